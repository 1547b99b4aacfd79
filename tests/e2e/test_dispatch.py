# SPDX-License-Identifier: Apache-2.0
"""Who gets a request, and when: limits that are exact, a bounded queue, workers that come and go, deploys under load."""

import json
import os
import signal
import threading
import time

import pytest

from beacon import Beacon
from host import Answer, wait_for
from neighbour import assert_refused, worker_ids
from wire import invocation

NODE_MEET = "exports.handler = async (event) => { if (!event.free) await meet(event.n); return event.n ?? 0; };"
PYTHON_MEET = (
    "def handler(event, context):\n    if not event.get('free'):\n        meet(str(event['n']))\n"
    "    return event.get('n', 0)"
)


class Calls:
    """Invocations that are all under way at once, each on a connection of its own."""

    def __init__(self, host, name, function="meet"):
        self.host, self.name, self.function = host, name, function
        self.connections = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.close()

    def send(self, n, headers=None):
        for _ in range(n):
            connection = self.host.connect()
            body = json.dumps({"n": f"{self.name}{len(self.connections)}"})
            connection.request("POST", invocation(self.function), body, headers or {})
            self.connections.append(connection)

    def answers(self):
        return [Answer(connection.getresponse()) for connection in self.connections]

    def values(self):
        answers = self.answers()
        assert all(a.status == 200 for a in answers), answers
        return [a.json() for a in answers]


def of(host, name, field):
    """A figure of the live version."""
    [live] = [v for v in host.function(name)["versions"] if v["live"]]
    return live[field]


def wait_queued(host, n, name="meet"):
    wait_for(lambda: of(host, name, "queued") == n, f"{n} requests wait")


def deploy_meet(host, beacon, language="node", **spec):
    if language == "node":
        host.deploy_node("meet", beacon.node() + NODE_MEET, **spec)
    else:
        host.deploy_python("meet", beacon.python() + PYTHON_MEET, **spec)


# ---- concurrency and the queue ----


@pytest.mark.parametrize("language,limit", [("node", 1), ("node", 3), ("python", 1), ("python", 3)])
def test_a_worker_never_has_more_requests_than_its_concurrency(host, language, limit):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, language, concurrency=limit, workers={"max": 1})
        calls.send(12)
        beacon.wait(limit)
        wait_queued(host, 12 - limit)
        assert of(host, "meet", "inFlight") == limit
        for _ in range(12):
            wait_for(beacon.here, "a handler waits")
            beacon.release(1)
        assert sorted(calls.values()) == sorted(f"c{i}" for i in range(12))
        assert beacon.most == limit and len(beacon.told) == 12
        assert of(host, "meet", "requestsTotal") == 12


def test_the_queue_is_first_come_first_served(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1})
        for i in range(8):
            calls.send(1)
            if i == 0:
                beacon.wait(1)
            wait_queued(host, i)
        for i in range(8):
            beacon.wait(1)
            assert beacon.release() == [f"c{i}"]
            wait_for(lambda: of(host, "meet", "queued") == max(0, 6 - i), "the next one begins")
        calls.values()


def test_a_full_queue_is_429_and_those_in_it_are_served(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1}, queue={"length": 2})
        calls.send(1)
        beacon.wait(1)
        calls.send(2)
        wait_queued(host, 2)
        for _ in range(5):
            answer = host.invoke("meet", {"n": "late"})
            assert_refused(answer, 429, "Function.Throttled", "meet", "1", "2 requests wait")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["component"] == "host"
        beacon.open()
        assert calls.values() == ["c0", "c1", "c2"]
        assert "late" not in beacon.told
        throttled = 'nestlet_requests_total{function="meet",version="1",outcome="throttled"}'
        assert host.metrics()[throttled] == 5


def test_who_waits_too_long_for_a_worker_gets_503_and_was_never_begun(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1}, queue={"waitMs": 200})
        calls.send(1)
        beacon.wait(1)
        begin = time.monotonic()
        answer = host.invoke("meet", {"n": "late"})
        assert_refused(answer, 503, "Function.Unavailable", "meet", "1", "200 ms")
        assert 0.2 <= time.monotonic() - begin < 5 and int(answer.headers["retry-after"]) >= 1
        deadline = str(int(time.time() * 1000) + 100)
        answer = host.invoke("meet", {"n": "late"}, {"X-Nestlet-Deadline-Ms": deadline})
        assert_refused(answer, 504, "Function.Timeout", "meet", "1")
        beacon.open()
        assert calls.values() == ["c0"] and "late" not in beacon.told


def test_a_client_that_leaves_the_queue_makes_room_and_is_never_begun(host):
    with Beacon() as beacon, Calls(host, "c") as calls, Calls(host, "gone") as gone:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1}, queue={"length": 1})
        calls.send(1)
        beacon.wait(1)
        gone.send(1)
        wait_queued(host, 1)
        gone.connections[0].close()
        wait_queued(host, 0)
        calls.send(1)
        beacon.open()
        assert calls.values() == ["c0", "c1"] and "gone0" not in beacon.told


# ---- workers ----


def test_load_starts_workers_up_to_max_and_each_takes_its_share(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=2, workers={"max": 3})
        calls.send(20)
        beacon.wait(6)
        wait_queued(host, 14)
        workers = host.function("meet")["workers"]
        assert [w["inFlight"] for w in workers] == [2, 2, 2] and len({w["pid"] for w in workers}) == 3
        beacon.open()
        assert len(calls.values()) == 20
        assert len(worker_ids(host, "meet")) == 3


def test_the_least_loaded_worker_gets_the_next_request(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=8, workers={"min": 2, "max": 2})
        wait_for(lambda: of(host, "meet", "workers")["idle"] == 2, "two workers idle")
        for n in (2, 4, 6):
            calls.send(2)
            beacon.wait(n)
            assert [w["inFlight"] for w in host.function("meet")["workers"]] == [n / 2, n / 2]
        beacon.open()
        calls.values()


def test_many_requests_at_once_to_a_cold_function_start_one_worker(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=32)
        calls.send(30)
        beacon.wait(30)
        assert len(host.workers()) == 1
        beacon.open()
        calls.values()
        assert of(host, "meet", "coldStartsTotal") == 1


def test_idle_workers_go_to_zero_and_the_next_request_starts_one(host):
    with Beacon() as beacon:
        deploy_meet(host, beacon, workers={"idleMs": 100})
        seen = set()
        for i in range(3):
            assert host.invoke("meet", {"n": i, "free": 1}).json() == i
            [worker] = host.workers()
            seen.add(worker["id"])
            host.note_pids()
            wait_for(lambda: not host.workers(), "no worker is left")
        assert len(seen) == 3 and of(host, "meet", "coldStartsTotal") == 3
        restarts = [v for k, v in host.metrics().items() if k.startswith("nestlet_worker_restarts")]
        assert sum(restarts) == 0


def test_min_workers_are_kept_also_idle_and_replaced_when_they_die(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"min": 2, "max": 4, "idleMs": 100})
        wait_for(lambda: len(worker_ids(host, "meet")) == 2, "two workers without a request")
        assert of(host, "meet", "requestsTotal") == 0
        calls.send(4)
        beacon.wait(4)
        assert len(worker_ids(host, "meet")) == 4
        beacon.open()
        calls.values()
        wait_for(lambda: len(host.workers()) == 2, "back to two")
        first, second = sorted(host.workers(), key=lambda w: w["id"])
        host.note_pids()
        os.kill(first["pid"], signal.SIGKILL)
        wait_for(
            lambda: first["id"] not in worker_ids(host, "meet") and len(worker_ids(host, "meet")) == 2,
            "it is replaced",
        )
        assert second["id"] in worker_ids(host, "meet")


def test_when_all_cells_are_taken_idle_workers_of_others_make_room(make_host):
    host = make_host({"cells": {"max": 2, "prepared": 0}})
    for name in "abcd":
        host.deploy_node(name, f"exports.handler = async () => '{name}';")
    for _ in range(2):
        for name in "abcd":
            answer = host.invoke(name)
            assert (answer.status, answer.body) == (200, f'"{name}"'.encode()), answer
            assert len(host.workers()) <= 2


# ---- deploys, versions, removals ----


class Load:
    """Threads that call one function without pause; every answer must be right."""

    def __init__(self, host, path, threads=4):
        self.host, self.path = host, path
        self.count, self.failures, self.versions = 0, [], set()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.call_on, daemon=True) for _ in range(threads)]

    def call_on(self):
        connection = self.host.connect()
        try:
            while not self.stop.is_set():
                connection.request("POST", self.path, "{}")
                answer = Answer(connection.getresponse())
                if answer.status != 200 or b"version" not in answer.body:
                    self.failures.append(repr(answer))
                    return
                self.versions.add(answer.json()["version"])
                self.count += 1
        except (OSError, ValueError) as error:
            self.failures.append(repr(error))
        finally:
            connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self.count or self.failures, "the load runs")
        return self

    def __exit__(self, kind, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        if kind is None:
            assert not self.failures, self.failures[:3]


VERSION = "exports.handler = async (event, context) => ({ version: context.functionVersion, n: %d });"


def test_twenty_five_deploys_under_load_lose_no_request(host):
    host.deploy_node("web", VERSION % 0, concurrency=4, routes=[{"path": "/web"}])
    with Load(host, invocation("web")) as named, Load(host, "/web", 2) as routed:
        for n in range(1, 26):
            seen = named.count
            host.deploy_node("web", VERSION % n, concurrency=4, routes=[{"path": "/web"}])
            answer = host.invoke("web")  # from the deploy's return on it is the new one
            assert (answer.status, answer.json()) == (200, {"version": str(n + 1), "n": n}), answer
            wait_for(lambda: named.count > seen + 4 or named.failures, "the load goes on")
    assert len(named.versions) >= 20 and len(routed.versions) >= 10
    function = host.function("web")
    assert len(function["versions"]) == 10  # registry.versions
    wait_for(lambda: {w["version"] for w in host.workers()} == {"26"}, "old workers go")
    assert host.invoke("web:17").json()["version"] == "17"
    assert_refused(host.invoke("web:16"), 404, "Function.NotFound", "web", "16")


def test_a_request_that_is_under_way_ends_on_the_version_that_began_it(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1)
        calls.send(1)
        beacon.wait(1)
        host.deploy_node("meet", "exports.handler = async () => 'new';")
        assert host.invoke("meet").json() == "new"
        beacon.open()
        [answer] = calls.answers()
        assert (answer.status, answer.json()) == (200, "c0")
        assert answer.headers["x-amz-executed-version"] == "1"


def test_rm_lets_requests_in_flight_and_in_the_queue_end(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1})
        calls.send(3)
        beacon.wait(1)
        wait_queued(host, 2)
        host.nestctl("rm", "meet")
        assert_refused(host.invoke("meet", {"n": "late"}), 404, "Function.NotFound", "meet")
        assert host.admin("GET", "/v1/functions/meet").status == 404
        beacon.open()
        assert calls.values() == ["c0", "c1", "c2"]
        wait_for(lambda: not host.workers(), "its workers end")
        host.deploy_node("meet", "exports.handler = async () => 'again';")
        assert host.invoke("meet").json() == "again"


def assert_broken_off(answers):
    """The one that a worker had begun has failed; the one that waited can be sent elsewhere."""
    begun, waited = answers
    assert_refused(begun, 502, "Function.Crashed", "meet", "1")
    assert_refused(waited, 503, "Host.Draining", "meet", "1")
    assert int(waited.headers["retry-after"]) >= 1


def test_rm_breaks_off_what_does_not_end_within_the_grace(make_host):
    host = make_host({"drain": {"graceMs": 300}})
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1})
        calls.send(1)
        beacon.wait(1)
        calls.send(1)
        wait_queued(host, 1)
        host.nestctl("rm", "meet")
        assert_broken_off(calls.answers())
        wait_for(lambda: not host.workers(), "its worker is killed")
        assert host.admin("GET", "/v1/functions/meet").status == 404


@pytest.mark.parametrize("how", ["grace", "second signal"])
def test_a_drain_breaks_off_what_does_not_end(make_host, how):
    host = make_host({"drain": {"graceMs": 300 if how == "grace" else 60000}})
    with Beacon() as beacon, Calls(host, "c") as calls:
        deploy_meet(host, beacon, concurrency=1, workers={"max": 1})
        calls.send(1)
        beacon.wait(1)
        calls.send(1)
        wait_queued(host, 1)
        host.note_pids()
        host.signal(signal.SIGTERM)
        if how == "second signal":
            wait_for(lambda: not host.gateway_socket.exists(), "the drain has begun")
            host.signal(signal.SIGTERM)
        assert_broken_off(calls.answers())
        assert host.process.wait(20) == 0
