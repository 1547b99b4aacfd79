# SPDX-License-Identifier: Apache-2.0
"""What every end-to-end test stands on: a real nestletd in directories of its own, real functions,
and the proof at the end of each test that nothing was left behind."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from host import TOP, Host, leftovers, mounts


def pytest_configure(config):
    if os.geteuid() != 0:
        raise pytest.UsageError("the end-to-end tests make cells: run them as root")


@contextlib.contextmanager
def directory():
    """A directory that the host's own user can pass through."""
    path = Path(tempfile.mkdtemp(prefix="nestlet-e2e-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def proven(path):
    """Makes hosts, started with the given config; at the end each is stopped and checked."""
    hosts = []
    before = mounts()

    def make(config=None, start=True, name="host"):
        host = Host(path / name, config or {})
        hosts.append(host)
        if start:
            host.start()
        return host

    yield make
    problems = []
    for host in hosts:
        problems += host.finish()
    problems += leftovers(hosts)
    gone = before - mounts()
    come = mounts() - before
    if gone or come:
        problems.append(f"mounts changed: {sorted(come)} came, {sorted(gone)} went")
    assert not problems, "\n".join(problems)


@pytest.fixture
def workdir():
    """A directory that the host's own user can pass through."""
    with directory() as path:
        yield path


@pytest.fixture
def make_host(workdir):
    """Makes hosts, started with the given config; each is stopped and checked at the end."""
    with proven(workdir) as make:
        yield make


@pytest.fixture
def host(make_host):
    """One host with the defaults."""
    return make_host()


@pytest.fixture(scope="module")
def make_shared_host():
    """As make_host, for tests of a module that leave no trace in the host: proven after the last."""
    with directory() as path, proven(path) as make:
        yield make


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """Gives a directory of examples/ by its name, in a copy with its npm packages installed."""
    root = tmp_path_factory.mktemp("examples")

    def copy(name):
        target = root / name
        if not target.exists():
            shutil.copytree(TOP / "examples" / name, target)
            if (target / "package-lock.json").exists() and not (target / "node_modules").exists():
                subprocess.run(["npm", "ci", "--silent"], cwd=target, check=True, timeout=300)
        return target

    return copy
