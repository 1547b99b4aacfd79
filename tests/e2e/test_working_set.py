# SPDX-License-Identifier: Apache-2.0
"""What a first request touches is learnt from one clone, and is in place in those that stand by after it."""

import time

import pytest

from host import wait_for
from test_snapshot import await_snapshot, cold, deploy, snapshot_of
from test_standby import await_standing, rungs, standing, with_standby

BURST_S = 1.1  # starts within a second of each other are one burst
SOURCES = {
    "nodejs": "let n = 0; exports.handler = async (who) => { n += 1; return { who, n }; };",
    "python": "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return {'who': event, 'n': n}\n",
}


@pytest.fixture(scope="module")
def host(make_shared_host):
    return make_shared_host(with_standby(perFunction=1))


def faults(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[7])


def start(host, name):
    """One that stands by serves its first request; how it stood, and how many page faults that took it."""
    [clone] = await_standing(host, name)
    before = faults(clone["pid"])
    assert host.invoke(name, "ada").json() == {"who": "ada", "n": 1}
    took = faults(clone["pid"]) - before
    wait_for(lambda: not [w for w in host.workers() if w["function"] == name], "it leaves")
    return clone, took


def start_until_prefetched(host, name):
    """The next clone is restored as soon as one is taken, which may be before that one's answer."""
    for _ in range(3):
        clone, took = start(host, name)
        if clone["prefetched"]:
            return clone, took
    raise AssertionError(f"none of {name} is prefetched: {standing(host)}")


def start_apart(host, name):
    start(host, name)
    time.sleep(BURST_S)


def prefetched(host):
    return {w["function"] for w in standing(host) if w["prefetched"]}


def settle(host, names):
    for name in names:
        await_standing(host, name)
    wait_for(lambda: all(w["privateBytes"] for w in standing(host)), "all are measured")


@pytest.mark.parametrize("runtime", sorted(SOURCES))
def test_the_second_clone_spares_what_the_first_one_had_to_fault_in(host, runtime):
    name = f"spared-{runtime}"
    deploy(host, runtime, name, SOURCES[runtime])
    await_snapshot(host, name)
    first, first_took = start(host, name)
    second, second_took = start_until_prefetched(host, name)
    assert not first["prefetched"]
    assert second_took * 3 < first_took, (first_took, second_took)
    assert second["privateBytes"] > first["privateBytes"], (first, second)
    # what was learnt is so for each that follows, and what they serve is a snapshot's, not a sibling's
    for _ in range(3):
        clone, took = start(host, name)
        assert clone["prefetched"] and took * 3 < first_took, (first_took, took)
    assert rungs(host, name)["standby"] >= 5 and sum(rungs(host, name).values()) == rungs(host, name)["standby"]
    await_standing(host, name)
    assert host.metrics()[f'nestlet_workers_prefetched{{function="{name}",version="1"}}'] == 1


def test_it_is_learnt_anew_of_a_snapshot_that_is_made_anew(host):
    deploy(host, "nodejs", "renewed", SOURCES["nodejs"])
    await_snapshot(host, "renewed")
    start_until_prefetched(host, "renewed")
    await_standing(host, "renewed")
    made = snapshot_of(host, "renewed")["madeAt"]
    time.sleep(1)  # it has seconds
    host.nestctl("snapshot", "build", "renewed")
    wait_for(lambda: snapshot_of(host, "renewed")["madeAt"] != made, "another is made")
    # the clone that stands is the old one's, and says nothing of the new one's
    assert start(host, "renewed")[0]["prefetched"]
    first, first_took = start(host, "renewed")
    second, second_took = start_until_prefetched(host, "renewed")
    assert not first["prefetched"]
    assert second_took * 3 < first_took, (first_took, second_took)


def test_garbage_in_the_place_of_what_was_learnt_costs_no_start(host):
    deploy(host, "nodejs", "garbled", SOURCES["nodejs"])
    await_snapshot(host, "garbled")
    start(host, "garbled")
    await_standing(host, "garbled")
    [learnt] = (host.root / "state" / "snapshots" / snapshot_of(host, "garbled")["key"]).glob("working-set")
    whole = learnt.read_bytes()
    for bad in (b"", b"garbage", whole[:-7], bytes(len(whole)), whole[:16] + b"\xff" * (len(whole) - 16)):
        learnt.write_bytes(bad)
        start(host, "garbled")
    assert rungs(host, "garbled") == {"standby": 6, "snapshot": 0, "runtime": 0, "plain": 0}


def test_they_are_as_few_as_configured_and_of_those_that_start_most_often(make_host):
    host = make_host(with_standby(perFunction=1, prefetched=1))
    for name in ("a", "b"):
        deploy(host, "nodejs", name, SOURCES["nodejs"])
        await_snapshot(host, name)
    start_until_prefetched(host, "a")
    settle(host, "ab")
    time.sleep(BURST_S)
    assert prefetched(host) == {"a"}
    # one start isn't more often, and takes nothing from who has it
    start_apart(host, "b")
    settle(host, "ab")
    assert prefetched(host) == {"a"}
    start_apart(host, "b")
    wait_for(lambda: prefetched(host) == {"b"}, "b has started twice since a has")
    settle(host, "ab")
    assert prefetched(host) == {"b"}
    start_apart(host, "a")
    settle(host, "ab")
    assert prefetched(host) == {"b"}


def test_none_is_where_none_is_configured(make_host):
    host = make_host(with_standby(perFunction=1, prefetched=0))
    deploy(host, "nodejs", "plain", SOURCES["nodejs"])
    await_snapshot(host, "plain")
    _, first_took = start(host, "plain")
    clone, took = start(host, "plain")
    assert not clone["prefetched"]
    # what it reads takes no memory of its own: that is mapped ahead
    assert took < first_took, (first_took, took)


def test_a_worker_for_one_request_alone_is_learnt_from_before_it_goes(host):
    deploy(host, "nodejs", "once", SOURCES["nodejs"], reuse="never", workers={"max": 1})
    await_snapshot(host, "once")
    for n in range(4):
        [clone] = await_standing(host, "once")
        assert host.invoke("once", "ada").json() == {"who": "ada", "n": 1}
        wait_for(lambda: [w["id"] for w in standing(host, "once")] != [clone["id"]], "it goes")
    assert await_standing(host, "once")[0]["prefetched"]


def test_one_restored_from_another_hosts_life_learns_again(make_host):
    host = make_host(with_standby(perFunction=1))
    deploy(host, "nodejs", "kept", SOURCES["nodejs"])
    await_snapshot(host, "kept")
    start(host, "kept")
    host.kill()
    host.start()
    await_snapshot(host, "kept")
    start_until_prefetched(host, "kept")
    assert cold(host, "kept", "ada")["n"] == 1
