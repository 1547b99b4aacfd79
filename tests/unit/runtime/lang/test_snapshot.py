# SPDX-License-Identifier: Apache-2.0
"""What a worker does before it is frozen, and what its clone does before its first request."""

import os
import shutil
import subprocess

import pytest

from driver import FIXTURES, RUNTIME_DIR

LANGUAGES = ["nodejs", "python"]
CODE = {"nodejs": FIXTURES / "node", "python": FIXTURES / "python"}


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory):
    """/runtime as it is installed: with the modules that Node loads."""
    target = tmp_path_factory.mktemp("runtime")
    for name in ("node", "python"):
        shutil.copytree(RUNTIME_DIR / name, target / name, dirs_exist_ok=True)
    for source in (RUNTIME_DIR / "node").glob("*.c"):
        subprocess.run(
            [os.environ.get("CC", "cc"), "-D_GNU_SOURCE", f"-I{RUNTIME_DIR.parent}", "-shared", "-fPIC", "-o",
             target / "node" / f"{source.stem}.node", source], check=True, timeout=60)
    return target


@pytest.fixture
def run(worker, runtimes):
    def start(language, handler, **options):
        one = worker(language, CODE[language], f"frozen.{handler}", runtime_dir=runtimes,
                     snapshot=True, **options)
        assert one.ready, (one.failure, one.output())
        return one

    return start


HANDLERS = [("nodejs", "told"), ("python", "told"), ("python", "told_async")]


@pytest.mark.parametrize("language, handler", HANDLERS)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_hooks_run_in_order_and_see_the_new_environment(run, language, handler, concurrency):
    host = run(language, handler, concurrency=concurrency, env={"SECRET": "old", "GONE": "1"})
    host.end(*[host.event() for _ in range(concurrency)])
    host.rest()
    assert host.at_rest, (host.failure, host.output())
    host.wake({"SECRET": "new", "FRESH": "2", "PATH": "/usr/bin:/bin"})
    answer = host.end(host.event()).json()
    assert answer["told"] == ["registered before", "exported before", "exported after new",
                              "registered after"]
    env = answer["env"]
    assert (env["SECRET"], env["FRESH"], env["SET_BY_CODE"]) == ("new", "2", "kept")
    assert "GONE" not in env and "NESTLET_CHANNEL_FD" not in env
    assert env["PATH"] == "/usr/bin:/bin"
    assert env["AWS_LAMBDA_FUNCTION_NAME"] == "fn"


@pytest.mark.parametrize("language, handler", HANDLERS)
def test_without_a_new_environment_it_is_what_it_was(run, language, handler):
    host = run(language, handler, env={"SECRET": "old"})
    before = host.end(host.event()).json()["env"]
    host.rest()
    host.wake()
    answer = host.end(host.event()).json()
    assert answer["told"][2] == "exported after old"
    assert answer["env"] == before and before["SECRET"] == "old"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hook_that_hangs_is_named(run, language):
    host = run(language, "told", env={"HANG_BEFORE": "1"})
    host.rest(hook_timeout_ms=50)
    assert not host.at_rest
    assert host.failure["errorType"] == "Runtime.HookTimeout"
    assert "not done within 50 ms" in host.failure["errorMessage"]
    assert host.exit_code() == 1


@pytest.mark.parametrize("language, error", [("nodejs", "RangeError"), ("python", "ValueError")])
def test_a_failed_hook_ends_the_clone(run, language, error):
    host = run(language, "told")
    host.rest()
    host.wake({"FAIL_AFTER": "1"})
    assert not host.ready
    assert host.failure["errorType"] == error and host.failure["errorMessage"] == "no way back"
    assert host.exit_code() == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_open_request_is_waited_for_or_refused(run, language):
    host = run(language, "told")
    host.rest()
    host.event()
    assert host.exit_code() == 1
    assert "can't be" in host.output()


@pytest.mark.parametrize("language", LANGUAGES)
def test_chance_works_after_a_restore(run, language):
    host = run(language, "chance")
    first = host.end(host.event()).json()
    host.rest()
    host.wake()
    second = host.end(host.event()).json()
    assert all(first[name] != second[name] for name in first if name != "drift")
    assert second.get("drift", 0) < 50


def test_math_random_is_even(run):
    counts = run("nodejs", "spread")
    host = counts.end(counts.event()).json()
    assert sum(host) == 100000 and all(9500 < n < 10500 for n in host), host


def test_a_worker_that_was_not_told_is_not_frozen(worker, runtimes):
    host = worker("nodejs", CODE["nodejs"], "frozen.told", runtime_dir=runtimes)
    host.rest()
    assert host.exit_code() == 1
