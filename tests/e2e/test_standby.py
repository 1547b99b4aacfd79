# SPDX-License-Identifier: Apache-2.0
"""Clones on standby: restored ahead and frozen, each serves once woken as its own self, they keep to
their memory, and they give way to whoever needs a cell."""

import json
import os
import signal
import time

import pytest

from host import wait_for
from test_snapshot import await_snapshot, cold, deploy

MB = 1 << 20
ON = {"snapshots": {"enabled": True}}


def with_standby(**keys):
    return {**ON, "standby": keys}


def standing(host, name=None):
    """The clones that stand by, measured; those still being restored have no pid."""
    return [w for w in host.workers(standby=True)
            if w["state"] == "standby" and w["pid"] and (name is None or w["function"] == name)]


def await_standing(host, name, count=1):
    return wait_for(lambda: len(found := standing(host, name)) >= count and found, f"{count} of {name} stand by")


def rungs(host, name):
    found = {}
    for key, value in host.metrics().items():
        if key.startswith("nestlet_cold_starts_by_rung_total{") and f'function="{name}"' in key:
            found[key.split('rung="')[1].split('"')[0]] = value
    return found


@pytest.fixture(scope="module")
def standby_host(make_shared_host):
    return make_shared_host(with_standby())


SELF_JS = """
const crypto = require('node:crypto');
const log = [];
exports.afterRestore = () => { log.push(Date.now()); };
exports.handler = async () => ({ bytes: crypto.randomBytes(16).toString('hex'),
  uuid: crypto.randomUUID(), math: Math.random(), now: Date.now(), woken: log,
  up: performance.timeOrigin + performance.now(), secret: process.env.SECRET });
"""

SELF_PY = """
import os, random, ssl, time, uuid
def handler(event, context):
    return {'bytes': ssl.RAND_bytes(16).hex(), 'uuid': str(uuid.uuid4()), 'math': random.random(),
            'now': time.time() * 1000, 'secret': os.environ.get('SECRET')}
"""


@pytest.mark.parametrize("runtime,source", [("nodejs", SELF_JS), ("python", SELF_PY)])
def test_each_clone_that_stood_by_is_its_own_self_and_sees_the_time_of_its_waking(
        standby_host, runtime, source):
    host, name = standby_host, f"self-{runtime}"
    deploy(host, runtime, name, source, env={"SECRET": "s3"})
    await_snapshot(host, name)
    seen = []
    for _ in range(3):
        await_standing(host, name)
        stood_until = time.time() * 1000
        seen.append(cold(host, name))
        assert stood_until - 5 <= seen[-1]["now"] <= time.time() * 1000 + 5
        assert all(t >= stood_until - 5 for t in seen[-1].get("woken", []))
        assert abs(seen[-1].get("up", seen[-1]["now"]) - seen[-1]["now"]) < 50
    assert rungs(host, name) == {"standby": 3, "snapshot": 0, "runtime": 0, "plain": 0}
    for field in ("bytes", "uuid", "math"):
        assert len({str(one[field]) for one in seen}) == 3, (field, seen)
    assert all(one["secret"] == "s3" for one in seen)


def test_a_clone_on_standby_takes_no_time_whatever_timers_it_has(standby_host):
    host = standby_host
    deploy(host, "nodejs", "ticker", "let n = 0; setInterval(() => { n++; for (let i = 0; i < 1e6; i++); }, 1);"
           "exports.handler = async () => n;")
    await_snapshot(host, "ticker")
    [clone] = await_standing(host, "ticker")

    def used():
        return {w["id"]: w["cpuUs"] for w in standing(host, "ticker")}[clone["id"]]

    # the kernel freezes soon, not at once
    wait_for(lambda: used() == (time.sleep(0.1), used())[1], "it stands still")
    before = used()
    time.sleep(0.3)
    assert used() == before
    assert cold(host, "ticker") >= 0


def test_a_burst_finds_more_than_one(standby_host):
    host = standby_host
    deploy(host, "nodejs", "burst", "exports.handler = async (n) => { await new Promise((r) => "
           "setTimeout(r, 200)); return n; };", concurrency=1, workers={"max": 8, "idleMs": 50})
    await_snapshot(host, "burst")
    await_standing(host, "burst")

    def burst():
        connections = [host.connect() for _ in range(3)]
        for n, connection in enumerate(connections):
            connection.request("POST", "/2015-03-31/functions/burst/invocations", body=json.dumps(n))
        assert [json.loads(c.getresponse().read()) for c in connections] == [0, 1, 2]

    burst()
    wait_for(lambda: not [w for w in host.workers() if w["function"] == "burst"], "workers leave")
    await_standing(host, "burst", 3)
    before = rungs(host, "burst")["standby"]
    burst()
    assert rungs(host, "burst")["standby"] - before == 3, rungs(host, "burst")


def test_a_removed_or_replaced_version_leaves_none(standby_host):
    host = standby_host
    deploy(host, "nodejs", "replaced", "exports.handler = async () => 1;")
    await_snapshot(host, "replaced")
    await_standing(host, "replaced")
    deploy(host, "nodejs", "replaced", "exports.handler = async () => 2;")
    wait_for(lambda: not [w for w in standing(host, "replaced") if w["version"] == "1"], "the old ones go")
    assert cold(host, "replaced") == 2
    wait_for(lambda: [w for w in standing(host, "replaced") if w["version"] == "2"], "a new one stands")
    host.nestctl("snapshot", "rm", "replaced")
    wait_for(lambda: not standing(host, "replaced"), "those of a snapshot that is gone go")
    host.nestctl("rm", "replaced")
    wait_for(lambda: not [w for w in host.workers(standby=True) if w["function"] == "replaced"], "all go")


def test_one_that_dies_on_standby_is_replaced_and_its_snapshot_kept(standby_host):
    host = standby_host
    deploy(host, "nodejs", "struck", "exports.handler = async () => 'served';")
    await_snapshot(host, "struck")
    for _ in range(3):
        [clone] = await_standing(host, "struck")
        os.kill(clone["pid"], signal.SIGKILL)
        assert cold(host, "struck") == "served"
    await_standing(host, "struck")
    assert host.function("struck")["versions"][0]["snapshot"]["state"] == "stands"


def test_a_failing_hook_at_the_waking_costs_no_request(standby_host):
    host = standby_host
    deploy(host, "nodejs", "badhook", """
      exports.afterRestore = () => { throw new Error('no way back'); };
      exports.handler = async () => 'served';
    """)
    await_snapshot(host, "badhook")
    await_standing(host, "badhook")
    for _ in range(3):
        assert cold(host, "badhook") == "served"
    assert rungs(host, "badhook")["runtime"] >= 2


def test_they_keep_to_their_memory_and_those_used_last_stand(make_host):
    budget = 3 * MB // 2  # of which three take most
    host = make_host(with_standby(memory=budget, prefetched=0))
    names = [f"f{n}" for n in range(5)]
    for name in names:
        deploy(host, "nodejs", name, "exports.handler = async () => 'served';")
        await_snapshot(host, name)
    for name in ("f1", "f0", "f3"):
        assert cold(host, name) == "served"
        await_standing(host, name)
        wait_for(lambda: sum(w["privateBytes"] for w in standing(host)) <= budget, "within the budget")
    held = wait_for(lambda: len(found := standing(host)) >= 2 and found, "as many as there is memory for")
    assert {w["function"] for w in held} <= {"f0", "f1", "f3"}, held
    wait_for(lambda: all(w["privateBytes"] < MB for w in standing(host)), "each holds little")


def test_metrics_and_the_list_of_workers_tell_what_they_hold(standby_host):
    host = standby_host
    deploy(host, "nodejs", "told", "exports.handler = async () => 'served';")
    await_snapshot(host, "told")
    [clone] = await_standing(host, "told")

    def memory(kind):
        return host.metrics()[f'nestlet_workers_memory_bytes{{function="told",version="1",kind="{kind}"}}']

    # what restored it takes a moment to go
    wait_for(lambda: standing(host, "told")[0]["privateBytes"] < MB, "it holds little")
    assert 0 < memory("standby") == memory("private") < MB
    assert clone["sharedBytes"] > memory("private")
    assert host.metrics()['nestlet_workers{function="told",version="1",state="standby"}'] == 1


def test_with_no_memory_for_them_none_stands_by(make_host):
    host = make_host(with_standby(memory=0))
    deploy(host, "nodejs", "alone", "exports.handler = async () => 'served';")
    await_snapshot(host, "alone")
    assert cold(host, "alone") == "served"
    assert not host.workers(standby=True) or not standing(host)
    assert rungs(host, "alone") == {"standby": 0, "snapshot": 1, "runtime": 0, "plain": 0}


def test_they_give_their_cells_to_those_who_start(make_host):
    host = make_host({**with_standby(), "cells": {"max": 4, "prepared": 1}})
    for name in ("a", "b"):
        deploy(host, "nodejs", name, "exports.handler = async () => 'served';")
        await_snapshot(host, name)
    wait_for(lambda: len(standing(host)) == 2, "two stand by")
    deploy(host, "nodejs", "crowd", "exports.handler = async (n) => { await new Promise((r) => "
           "setTimeout(r, 500)); return n; };", concurrency=1, snapshot="off",
           workers={"max": 4, "idleMs": 50})
    connections = [host.connect() for _ in range(4)]
    for n, connection in enumerate(connections):
        connection.request("POST", "/2015-03-31/functions/crowd/invocations", body=json.dumps(n))
    wait_for(lambda: len([w for w in host.workers() if w["state"] == "busy"]) == 4, "all four run at once")
    assert not standing(host)
    assert [json.loads(c.getresponse().read()) for c in connections] == [0, 1, 2, 3]
    wait_for(lambda: len(standing(host)) == 2, "two stand by again")


def test_kill_9_of_a_host_with_clones_on_standby_leaves_nothing(make_host):
    host = make_host(with_standby())
    deploy(host, "nodejs", "left", "exports.handler = async () => 'served';")
    await_snapshot(host, "left")
    await_standing(host, "left")
    host.kill()
    host.start()
    await_standing(host, "left")
    assert cold(host, "left") == "served"


TRACES_JS = """
const fs = require('node:fs');
let seen = [];
exports.handler = async (who) => {
  const before = { global: seen.slice(), files: fs.readdirSync('/tmp') };
  seen.push(who);
  fs.writeFileSync('/tmp/' + who, who);
  console.log('served ' + who);
  return before;
};
"""


@pytest.mark.parametrize("snapshot", ["on", "off"])
def test_with_reuse_never_nothing_of_one_request_is_left_for_the_next(standby_host, snapshot):
    host, name = standby_host, f"clean-{snapshot}"
    deploy(host, "nodejs", name, TRACES_JS, reuse="never", snapshot=snapshot, workers={"max": 4})
    if snapshot == "on":
        await_snapshot(host, name)
    callers = [f"caller{n}" for n in range(12)]
    for who in callers:
        assert host.invoke(name, who).json() == {"global": [], "files": []}
    connections = [host.connect() for _ in range(6)]
    for n, connection in enumerate(connections):
        connection.request("POST", f"/2015-03-31/functions/{name}/invocations", body=json.dumps(f"c{n}"))
    for connection in connections:
        assert json.loads(connection.getresponse().read()) == {"global": [], "files": []}
    workers = sum(rungs(host, name).values())
    assert workers >= 18 and (snapshot == "off" or rungs(host, name)["plain"] == 0), rungs(host, name)
    log = wait_for(lambda: (text := host.nestctl("logs", name).stdout).count("served") >= 18 and text, "the log")
    assert all(f"served {who}" in log for who in callers)


def test_clones_without_network_stand_by_for_each_request(standby_host):
    host, name = standby_host, "inward"
    source = "exports.handler = async () => Object.keys(require('node:os').networkInterfaces());"
    deploy(host, "nodejs", name, source, network="none", reuse="never", workers={"max": 2})
    await_snapshot(host, name)
    for _ in range(3):
        await_standing(host, name)
        assert host.invoke(name).json() == ["lo"]
    assert rungs(host, name)["standby"] >= 3 and rungs(host, name)["plain"] == 0, rungs(host, name)


def test_reuse_never_has_no_concurrency(standby_host):
    with pytest.raises(AssertionError, match="'concurrency' is 2"):
        standby_host.deploy_node("greedy", "exports.handler = async () => 1;", reuse="never", concurrency=2)
