# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess

import pytest

import driver


@pytest.fixture
def worker():
    """Starts workers that are gone at the end of the test: worker(runtime, dir, handler, ...)."""
    started = []

    def start(*args, **options):
        one = driver.Worker(*args, **options)
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.__exit__()


@pytest.fixture(scope="session")
def apps(tmp_path_factory):
    """The applications with their npm packages installed."""
    target = tmp_path_factory.mktemp("apps")
    shutil.copytree(driver.FIXTURES / "apps", target, dirs_exist_ok=True)
    subprocess.run(["npm", "ci", "--silent"], cwd=target, check=True, timeout=300)
    return target
