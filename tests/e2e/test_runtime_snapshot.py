# SPDX-License-Identifier: Apache-2.0
"""Snapshots of runtimes that have loaded no function: new functions start from them, and functions'
snapshots are made upon them."""

import re
import time

import pytest

from host import wait_for
from test_snapshot import CHANCES, IMAGES, LAYERED, LOOK, ON, await_snapshot, cold, deploy, flip, snapshot_of
from test_standby import rungs

# keeps a function from being frozen: it goes on starting from its runtime's snapshot
UNFROZEN = {
    "nodejs": "exports.beforeSnapshot = () => { throw new Error('not me'); };\n",
    "python": "def before_snapshot():\n    raise Exception('not me')\n",
}


def directory_of(host, snapshot):
    return host.root / "state" / "snapshots" / snapshot["key"]


def images_of(host, snapshot):
    return list(directory_of(host, snapshot).iterdir())


def runtimes(host):
    found = host.admin("GET", "/v1/runtimes").json()["runtimes"]
    return {one["runtime"]: one["snapshot"] for one in found}


def await_runtime(host, name):
    return wait_for(lambda: (s := runtimes(host).get(name)) and s["state"] == "stands" and s, name)


def assert_differ(answers, fields):
    for field in fields:
        assert len({str(one[field]) for one in answers}) == len(answers), (field, answers)


@pytest.fixture(scope="module")
def runtime_host(make_shared_host):
    """With the snapshots of all runtimes."""
    host = make_shared_host(LAYERED)
    host.nestctl("snapshot", "build-runtimes")
    return host


@pytest.mark.parametrize("runtime", CHANCES)
def test_two_functions_of_one_runtime_are_their_own_selves(runtime_host, runtime):
    host = runtime_host
    source, chances = CHANCES[runtime]
    seen = []
    for name in (f"one-{runtime}", f"other-{runtime}"):
        deploy(host, runtime, name, UNFROZEN[runtime] + source, env={"SECRET": name})
        for _ in range(2):
            before = time.time() * 1000
            seen.append(cold(host, name))
            assert before - 5 <= seen[-1]["now"] <= time.time() * 1000 + 5
            assert seen[-1]["secret"] == name
        found = rungs(host, name)
        assert found["runtime"] == 2 and found["plain"] == 0, found
    assert_differ(seen, chances)


@pytest.mark.parametrize("runtime", CHANCES)
def test_two_functions_made_upon_one_snapshot_are_their_own_selves(runtime_host, runtime):
    host = runtime_host
    source, chances = CHANCES[runtime]
    seen = []
    for name in (f"upon-{runtime}", f"likewise-{runtime}"):
        deploy(host, runtime, name, source, env={"SECRET": name})
        await_snapshot(host, name)
        seen += [cold(host, name), cold(host, name)]
        assert rungs(host, name)["snapshot"] == 2
    assert_differ(seen, chances)


def test_a_start_from_a_runtimes_snapshot_is_confined_as_a_plain_worker_is(runtime_host):
    host = runtime_host
    deploy(host, "nodejs", "same", UNFROZEN["nodejs"] + LOOK)
    deploy(host, "nodejs", "same-plain", LOOK, snapshot="off")
    clone, plain = cold(host, "same"), cold(host, "same-plain")
    assert rungs(host, "same")["runtime"] == 1 and rungs(host, "same-plain")["plain"] == 1

    def user_of(seen):
        [line] = [line for line in seen["status"] if line.startswith("Uid")]
        return line.split()[1]

    assert user_of(clone) != user_of(plain)  # each function's own
    plain["status"] = [line.replace(user_of(plain), user_of(clone)) for line in plain["status"]]
    for one in (clone, plain):
        one["status"] = [line for line in one["status"] if not line.startswith(("NSpid", "NStgid"))]
        assert one.pop("hostname") in ("same", "same-plain") and one.pop("snapshot") in ("EACCES", [])
        one["mounts"] = sorted(re.sub(r"/trees/\w+", "/trees", line) for line in one["mounts"]
                               if not IMAGES.search(line))
    for field in plain:
        assert clone[field] == plain[field], field


@pytest.mark.parametrize("runtime,env,rung", [
    ("nodejs", {"NODE_OPTIONS": "--max-old-space-size=50"}, "plain"),
    ("nodejs", {"NODE_ENV": "production"}, "runtime"),
    ("nodejs", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, "plain"),
    ("nodejs", {"GREETING": "hello", "TZ": "Asia/Tokyo"}, "runtime"),
    ("python", {"LC_ALL": "C"}, "plain"),
    ("python", {"GREETING": "hello", "TZ": "Asia/Tokyo", "PYTHONPATH": "/tmp"}, "runtime"),
])
def test_what_a_runtime_reads_at_its_start_only_is_not_told_to_a_clone(runtime_host, runtime, env, rung):
    host, name = runtime_host, f"env-{runtime}-{next(iter(env)).lower().replace('_', '-')}"
    source = {
        "nodejs": "exports.handler = async () => [process.env, new Date(0).getHours(), process.execArgv];",
        "python": "import os, time\ndef handler(event, context):\n"
                  "    return [dict(os.environ), time.localtime(0).tm_hour, []]\n",
    }[runtime]
    deploy(host, runtime, name, UNFROZEN[runtime] + source, env=env)
    seen, hour, _ = cold(host, name)
    assert {key: seen[key] for key in env} == env
    assert hour == (9 if "TZ" in env else 0)
    assert rungs(host, name) == {"standby": 0, "snapshot": 0, "runtime": 0, "plain": 0, rung: 1}


def test_a_function_that_can_not_be_loaded_by_a_clone_says_why(runtime_host):
    host = runtime_host
    deploy(host, "nodejs", "broken", "throw new Error('not today');")
    answer = host.invoke("broken")
    assert answer.status == 502 and answer.error_type == "Function.InitFailed", answer
    assert "not today" in host.log() and "a clone of runtime 'nodejs' failed" not in host.log()
    assert runtimes(host)["nodejs"]["state"] == "stands"


def test_functions_with_other_limits_have_a_runtimes_snapshot_of_their_own(runtime_host):
    host = runtime_host
    deploy(host, "nodejs", "larger", UNFROZEN["nodejs"] + """
      exports.handler = async () => require('node:v8').getHeapStatistics().heap_size_limit;
    """, memoryMb=1024)
    wait_for(lambda: len([r for r in host.admin("GET", "/v1/runtimes").json()["runtimes"]
                          if r["runtime"] == "nodejs" and r["snapshot"]["state"] == "stands"]) == 2,
             "one for each")
    first, second = cold(host, "larger"), cold(host, "larger")
    assert first == second > 300 << 20  # as it is for a process started with 1 GiB
    assert rungs(host, "larger")["runtime"] >= 1


@pytest.mark.parametrize("layers", [True, False])
def test_a_functions_snapshot_is_made_upon_its_runtimes_if_so_configured(make_host, layers):
    host = make_host({**ON, "snapshots": {"enabled": True, "layers": layers}})
    deploy(host, "nodejs", "layered", "exports.handler = async () => 'served';")
    own = sum(file.stat().st_blocks * 512 for file in images_of(host, await_snapshot(host, "layered")))
    below = sum(file.stat().st_blocks * 512 for file in images_of(host, await_runtime(host, "nodejs")))
    assert (own < below * 3 / 4) == layers, (own, below)
    assert cold(host, "layered") == "served" and rungs(host, "layered")["snapshot"] == 1


def test_they_are_there_after_a_restart(make_host):
    host = make_host(LAYERED)
    table = host.nestctl("snapshot", "build-runtimes").stdout
    assert table.count("stands") == 2 and "nodejs" in table and "python" in table, table
    assert host.nestctl("snapshot", "runtimes").stdout == table
    made = {name: directory_of(host, one).stat().st_ino for name, one in runtimes(host).items()}
    host.stop()
    host.start()
    host.nestctl("snapshot", "build-runtimes")
    assert {name: directory_of(host, one).stat().st_ino for name, one in runtimes(host).items()} == made
    assert host.log().count("runtime 'nodejs' starts from a snapshot") == 1


def test_a_damaged_one_costs_no_request(make_host):
    host = make_host(LAYERED)
    deploy(host, "nodejs", "hurt", "exports.handler = async () => 'served';")
    await_snapshot(host, "hurt")
    memory = [file for file in images_of(host, runtimes(host)["nodejs"]) if file.name == "memory"]
    host.stop()
    flip(memory[0])
    host.start()
    await_snapshot(host, "hurt")
    assert cold(host, "hurt") == "served"
    assert "what it was made upon: 'memory' was changed" in host.log()
    assert cold(host, "hurt") == "served"
    assert snapshot_of(host, "hurt")["state"] == "paused"
    # neither is used again; both can be made anew
    host.nestctl("snapshot", "build-runtimes")
    host.nestctl("snapshot", "build", "hurt")
    await_snapshot(host, "hurt")
    assert cold(host, "hurt") == "served" and rungs(host, "hurt")["snapshot"] == 1


def test_its_restores_and_failures_are_in_the_metrics(make_host):
    host = make_host(LAYERED)
    host.nestctl("snapshot", "build-runtimes")
    deploy(host, "nodejs", "unfrozen", UNFROZEN["nodejs"] + "exports.handler = async () => 'served';")
    wait_for(lambda: snapshot_of(host, "unfrozen")["state"] == "paused", "it is not frozen")
    restores = 'nestlet_runtime_restore_duration_seconds_count{runtime="nodejs"}'
    damaged = 'nestlet_runtime_snapshot_failures_total{runtime="nodejs",cause="damaged"}'
    before = host.metrics()
    assert cold(host, "unfrozen") == "served"
    # the cell's word may come after the answer
    wait_for(lambda: host.metrics()[restores] == before[restores] + 1, "the restore is counted")
    metrics = host.metrics()
    assert metrics[damaged] == 0
    assert metrics['nestlet_runtime_snapshot_bytes{runtime="nodejs"}'] > 1 << 20
    assert metrics['nestlet_runtime_restore_duration_seconds_sum{runtime="nodejs"}'] > 0
    memory = next(file for file in images_of(host, runtimes(host)["nodejs"]) if file.name == "memory")
    host.stop()
    flip(memory)
    host.start()
    assert cold(host, "unfrozen") == "served"
    wait_for(lambda: host.metrics().get(damaged, 0) >= 1, "the failure is counted")


def test_where_no_snapshots_are_made_the_command_says_so(make_host):
    host = make_host({"snapshots": {"enabled": False}})
    told = host.nestctl("snapshot", "build-runtimes")
    assert "no snapshot of runtime 'nodejs': " in told.stderr and "makes no snapshots" in told.stderr
