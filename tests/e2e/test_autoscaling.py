# SPDX-License-Identifier: Apache-2.0
"""How many workers a function has: ahead of its load, by schedules, and when functions compete."""

import asyncio
import json
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from host import wait_for
from neighbour import worker_ids
from wire import invocation

NAP = "exports.handler = async (event) => { await new Promise((r) => setTimeout(r, event.ms)); return 1; };"
ONE = "exports.handler = async () => 1;"


class Crowd:
    """So many clients as it is told to have, each with one request at a time, without a pause."""

    def __init__(self, host, function, event):
        body = json.dumps(event).encode()
        head = f"POST {invocation(function)} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        self.path, self.request = str(host.gateway_socket), head.encode() + body
        self.clients, self.wanted = [], 0
        self.answered, self.failed = 0, []

    async def client(self, number):
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            while number < self.wanted:
                writer.write(self.request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if not head.startswith(b"HTTP/1.1 200 ") or b"x-amz-function-error" in head.lower():
                    self.failed.append((head, body))
                self.answered += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failed.append(error)
        finally:
            writer.close()

    def resize(self, n):
        self.wanted = n
        self.clients = [c for c in self.clients if not c.done()]
        while len(self.clients) < n:
            self.clients.append(asyncio.ensure_future(self.client(len(self.clients))))

    async def leave(self):
        self.wanted = 0
        await asyncio.gather(*self.clients)


def gauge(host, name, function):
    return int(host.metrics().get(f'{name}{{function="{function}",version="1"}}', 0))


def up(host, function):
    """Workers that take requests."""
    return sum(1 for w in host.workers() if w["function"] == function and w["state"] in ("idle", "busy"))


def test_the_published_case_min_4_threshold_100_utilisation_070_through_a_peak(make_host):
    host = make_host({"autoscaler": {"intervalMs": 200}, "gateway": {"maxConnections": 2000}})
    host.deploy_node(
        "f",
        NAP,
        concurrency=100,
        workers={"min": 4, "max": 16},
        queue={"length": 1000},
        scaling={
            "concurrency": 100, "utilization": 0.7, "windowMs": 4000, "panicWindowMs": 1000, "inDelayMs": 2000,
        },
    )  # fmt: skip
    wait_for(lambda: up(host, "f") == 4, "the minimum is up")
    crowd = Crowd(host, "f", {"ms": 800})
    seen = []

    async def watch():
        while True:
            desired = await asyncio.to_thread(gauge, host, "nestlet_workers_desired", "f")
            seen.append((crowd.wanted, desired, await asyncio.to_thread(up, host, "f")))
            await asyncio.sleep(0.2)

    async def grows_to(n):
        end = time.monotonic() + 30
        while seen[-1][2] < n and time.monotonic() < end:
            await asyncio.sleep(0.1)
        assert seen[-1][2] >= n, seen

    async def peak():
        watcher = asyncio.ensure_future(watch())
        crowd.resize(100)
        await asyncio.sleep(2)
        assert seen[-1][1] == 4, seen
        for n in range(120, 601, 20):
            crowd.resize(n)
            await asyncio.sleep(0.2)
        # 600 at once want 9 workers of 70 each, before six are full
        await grows_to(9)
        crowd.resize(100)
        end = time.monotonic() + 30
        while (seen[-1][1] > 4 or seen[-1][2] > 4) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await crowd.leave()
        watcher.cancel()

    asyncio.run(peak())
    assert not crowd.failed, crowd.failed[:3]
    assert crowd.answered > 1000
    assert min(workers for _, _, workers in seen) >= 4, seen
    assert seen[-1][1:] == (4, 4), seen[-5:]
    figures = host.metrics()
    assert sum(v for k, v in figures.items() if k.startswith("nestlet_worker_restarts_total")) == 0
    assert sum(v for k, v in figures.items() if k.startswith("nestlet_requests_total") and "success" not in k) == 0


def test_requests_a_second_scale_a_function_whose_slots_are_free(make_host):
    host = make_host({"autoscaler": {"intervalMs": 100}})
    host.deploy_node(
        "f",
        NAP,
        concurrency=100,
        workers={"max": 3},
        scaling={"requestsPerSecond": 10, "windowMs": 2000, "panicWindowMs": 1000},
    )
    crowd = Crowd(host, "f", {"ms": 50})

    async def some():
        crowd.resize(2)
        end = time.monotonic() + 30
        while await asyncio.to_thread(up, host, "f") < 3 and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await crowd.leave()

    asyncio.run(some())
    assert not crowd.failed
    assert up(host, "f") == 3


def test_a_schedule_keeps_workers_as_long_as_it_holds(make_host):
    host = make_host()
    now = datetime.now(ZoneInfo("Europe/Berlin"))

    def around(begins, ends):
        crons = [(now + timedelta(hours=h)).strftime("%M %H * * *") for h in (begins, ends)]
        return {"start": crons[0], "end": crons[1], "timeZone": "Europe/Berlin", "min": 2}

    host.deploy_node("f", ONE, workers={"idleMs": 50}, scaling={"schedules": [around(-3, 3)]})
    wait_for(lambda: up(host, "f") == 2, "two workers without a request")
    assert host.invoke("f").status == 200
    assert gauge(host, "nestlet_workers_desired", "f") == 2
    host.deploy_node("g", ONE, workers={"idleMs": 50}, scaling={"schedules": [around(3, 6)]})
    assert host.invoke("g").status == 200
    wait_for(lambda: up(host, "g") == 0, "it goes to zero")
    assert up(host, "f") == 2


def test_a_wrong_schedule_is_refused_by_its_place(host):
    directory = host.write_function(
        "f",
        {"index.js": ONE},
        runtime="nodejs",
        handler="index.handler",
        scaling={"schedules": [{"start": "0 8 * * *", "end": "0 9 * * *", "timeZone": "Europe/Atlantis", "min": 1}]},
    )
    done = host.nestctl("deploy", str(directory), check=False)
    assert done.returncode != 0
    assert "'scaling.schedules[0]': 'timeZone': there is no time zone 'Europe/Atlantis'" in done.stderr


def test_a_function_outlives_its_time_zone(make_host):
    host = make_host()
    schedule = {"start": "0 8 * * *", "end": "0 9 * * *", "timeZone": "Europe/Berlin", "min": 1}
    host.deploy_node("f", ONE, scaling={"schedules": [schedule]})
    host.stop()
    registry = host.root / "state" / "registry.json"
    registry.write_text(registry.read_text().replace("Europe/Berlin", "Europe/Atlantis"))
    host.start()
    assert host.invoke("f").status == 200
    assert "function 'f' version '1' runs without a schedule" in host.log()
    assert "there is no time zone 'Europe/Atlantis'" in host.log()


def test_a_host_that_is_idle_does_not_wake_up(host):
    host.deploy_node("f", ONE, workers={"idleMs": 100})
    assert host.invoke("f").status == 200
    host.note_pids()
    wait_for(lambda: not host.workers(), "no worker is left")

    def switches():
        with open(f"/proc/{host.pid}/status", encoding="utf-8") as status:
            return [int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt")]

    def sleeps():
        before = switches()
        time.sleep(2.5)  # what is measured is this time
        return switches() == before

    wait_for(sleeps, "two and a half seconds without a wake-up")
    assert host.invoke("f").status == 200


def test_an_idle_worker_can_be_frozen_and_thaws_with_its_next_request(host):
    ticking = "let ticks = 0; setInterval(() => ticks++, 5); exports.handler = async () => ticks;"
    host.deploy_node("f", ticking, workers={"freezeMs": 50})
    wait_for(lambda: host.invoke("f").json() > 3, "it ticks")
    ticks = host.invoke("f").json()
    wait_for(lambda: host.workers()[0]["frozen"], "it is frozen")
    assert gauge(host, "nestlet_workers_frozen", "f") == 1
    [before] = host.workers()
    time.sleep(1)  # two hundred ticks, if it ran
    assert host.invoke("f").json() - ticks < 100
    [after] = host.workers()
    assert (after["id"], after["requestsTotal"]) == (before["id"], before["requestsTotal"] + 1)
    # frozen, it can be taken away as well
    wait_for(lambda: host.workers()[0]["frozen"], "it is frozen again")


def test_reserved_room_is_kept_for_who_reserved_it(make_host):
    host = make_host({"cells": {"max": 2, "prepared": 0}})
    host.deploy_node("mine", ONE, workers={"reserved": 1})
    host.deploy_node("greedy", NAP, concurrency=1, queue={"waitMs": 20000})
    crowd = Crowd(host, "greedy", {"ms": 300})

    async def compete():
        crowd.resize(3)
        while not await asyncio.to_thread(up, host, "greedy"):
            await asyncio.sleep(0.05)
        for _ in range(3):
            answer = await asyncio.to_thread(host.invoke, "mine")
            assert answer.status == 200
            assert len(await asyncio.to_thread(worker_ids, host, "greedy")) <= 1
        await crowd.leave()

    asyncio.run(compete())
    assert not crowd.failed
    assert gauge(host, "nestlet_cold_starts_total", "mine") == 1


def test_the_least_valuable_idle_worker_makes_room(make_host):
    host = make_host({"cells": {"max": 2, "prepared": 0}})
    slow = f"const end = Date.now() + 1500; while (Date.now() < end);\n{ONE}"
    host.deploy_node("slow-to-start", slow)
    host.deploy_node("quick", ONE)
    host.deploy_node("another", ONE)
    for _ in range(40):
        assert host.invoke("slow-to-start").status == 200
    assert host.invoke("quick").status == 200
    host.note_pids()
    # used less recently, but often, and dear to start: it stays
    kept = worker_ids(host, "slow-to-start")
    assert host.invoke("another").status == 200
    assert worker_ids(host, "slow-to-start") == kept
    assert not worker_ids(host, "quick")


def test_workers_together_stay_within_the_memory(make_host):
    host = make_host({"workers": {"memoryMb": 260}})
    large = f"const held = Buffer.alloc(100 << 20, 1); exports.held = held;\n{ONE}"
    for name in ("a", "b", "c"):
        host.deploy_node(name, large, memoryMb=256)
    for name in ("a", "b"):
        assert host.invoke(name).status == 200
        host.note_pids()

    def measured():
        workers = host.workers()
        return workers and all(w["memoryBytes"] > 100 << 20 for w in workers)

    wait_for(measured, "they are measured")
    assert host.invoke("c").status == 200
    wait_for(lambda: measured() and len(host.workers()) <= 2, "one made room")
    assert up(host, "c") == 1
