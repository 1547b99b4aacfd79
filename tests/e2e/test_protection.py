# SPDX-License-Identifier: Apache-2.0
"""What protects a function, its callers and its neighbours: limits, the circuit breaker, fallbacks, recycling, quarantine."""

import json
import time

import pytest

from beacon import Beacon
from host import wait_for
from neighbour import Neighbour, assert_refused, worker_ids
from test_dispatch import NODE_MEET as MEET, Calls

ECHO = "exports.handler = async (event) => event;"
FRAGILE = """
exports.handler = async (event) => {
    if (event.how === 'throw') throw new Error('as asked');
    if (event.how === 'exit') process.exit(3);
    if (event.how === 'wait') await new Promise(() => {});
    return 'well';
};
"""
HTTP = "exports.handler = (req, res) => { res.statusCode = Number(req.url.slice(1)); res.end('own'); };"


def of(host, name, key):
    return host.function(name)["versions"][0][key]


def metric(host, family, name, version="1", **labels):
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return host.metrics()[f'nestlet_{family}{{function="{name}",version="{version}"{more}}}']


def assert_retry_after(answer, least=1, most=3600):
    assert least <= int(answer.headers["retry-after"]) <= most, answer


# ---- limits ----


def test_a_rate_limit_lets_its_burst_and_its_rate_through(host):
    host.deploy_node("echo", ECHO, limits={"rate": 0.01, "burst": 3})
    assert [host.invoke("echo").status for _ in range(3)] == [200, 200, 200]
    refused = host.invoke("echo")
    assert_refused(refused, 429, "Function.Throttled", "echo", "1", "0.01 requests a second")
    assert_retry_after(refused, 90, 100)
    assert metric(host, "rate_limited_total", "echo") == 1
    assert metric(host, "requests_total", "echo", outcome="throttled") == 1


def test_a_rate_limit_is_of_one_function_alone(host):
    host.deploy_node("echo", ECHO, limits={"rate": 0.01, "burst": 1})
    with Neighbour(host) as neighbour:
        seen = neighbour.answered
        assert host.invoke("echo").status == 200
        while neighbour.answered < seen + 20:
            assert host.invoke("echo").status == 429


def test_a_cap_on_concurrency_holds_over_all_workers(host):
    with Beacon() as beacon, Calls(host, "c") as calls:
        host.deploy_node(
            "meet",
            beacon.node() + MEET,
            concurrency=2,
            workers={"min": 3, "max": 4},
            limits={"concurrency": 3},
        )
        calls.send(9)
        beacon.wait(3)
        wait_for(lambda: of(host, "meet", "queued") == 6, "the others wait")
        assert of(host, "meet", "inFlight") == 3
        for _ in range(9):
            wait_for(beacon.here, "a handler waits")
            beacon.release(1)
        assert sorted(calls.values()) == sorted(f"c{i}" for i in range(9))
        assert beacon.most == 3


# ---- the breaker and the fallback ----


def fail_until_open(host, name, how="throw", times=3):
    for _ in range(times):
        answer = host.invoke(name, {"how": how})
        assert "x-amz-function-error" in answer.headers or answer.status in (502, 504), answer


@pytest.mark.parametrize("how", ["throw", "exit", "wait"])
def test_failures_in_a_row_open_the_breaker_for_a_while(host, how):
    host.deploy_node(
        "f", FRAGILE, timeoutMs=300, breaker={"failures": 3, "openMs": 400}
    )
    with Neighbour(host):
        fail_until_open(host, "f", how, 2)
        assert host.invoke("f").json() == "well"  # in a row only
        fail_until_open(host, "f", how)
        refused = host.invoke("f")
        assert_refused(refused, 503, "Function.Unavailable", "f", "1", "circuit breaker is open")
        assert_retry_after(refused)
        assert of(host, "f", "breaker") == "open" and metric(host, "breaker_open", "f") == 1
        assert "circuit breaker is open for 400 ms" in host.log()
        wait_for(lambda: host.invoke("f").status == 200, "a probe is let through")
        assert of(host, "f", "breaker") == "closed"
        assert metric(host, "breaker_opened_total", "f") == 1
        assert metric(host, "breaker_refused_total", "f") >= 1


def test_a_probe_that_fails_opens_the_breaker_again(host):
    host.deploy_node("f", FRAGILE, breaker={"failures": 1, "openMs": 200})
    fail_until_open(host, "f", times=1)

    def probe_fails():
        return "x-amz-function-error" in host.invoke("f", {"how": "throw"}).headers

    wait_for(probe_fails, "a probe is let through")
    assert_refused(host.invoke("f"), 503, "Function.Unavailable", "f", "1")
    assert metric(host, "breaker_opened_total", "f") == 2
    wait_for(lambda: host.invoke("f").status == 200, "the next probe closes it")


def test_statuses_from_500_on_count_for_the_breaker(host):
    host.deploy_node(
        "web",
        HTTP,
        interface="http",
        routes=[{"path": "/*"}],
        breaker={"failures": 2, "openMs": 60000},
    )
    for status in (500, 404, 503, 200, 500):
        assert host.request("GET", f"/{status}").status == status
    assert host.request("GET", "/500").status == 500
    assert_refused(host.request("GET", "/200"), 503, "Function.Unavailable", "web", "1")


def test_a_fallback_result_takes_the_place_of_a_failure(host):
    fallback = {"status": 200, "headers": {"content-type": "text/x-degraded"}, "body": '{"stale":1}'}
    host.deploy_node("f", FRAGILE, timeoutMs=200, fallback=fallback)
    for how, word in (("throw", "error"), ("exit", "crashed"), ("wait", "timeout")):
        answer = host.invoke("f", {"how": how})
        assert (answer.status, answer.json()) == (200, {"stale": 1}), answer
        assert answer.headers["x-nestlet-fallback"] == word
        assert answer.headers["content-type"] == "text/x-degraded"
        assert "x-amz-function-error" not in answer.headers
        assert metric(host, "requests_total", "f", outcome=word) == 1
    well = host.invoke("f")
    assert well.json() == "well" and "x-nestlet-fallback" not in well.headers
    assert metric(host, "fallbacks_total", "f") == 3


def test_a_fallback_of_an_http_function_when_the_breaker_is_open(host):
    host.deploy_node(
        "web",
        HTTP,
        interface="http",
        routes=[{"path": "/*"}],
        breaker={"failures": 1, "openMs": 60000},
        fallback={"status": 203, "when": "open", "body": "try later"},
    )
    own = host.request("GET", "/500")
    assert (own.status, own.body) == (500, b"own")
    answer = host.request("GET", "/200")
    assert (answer.status, answer.body) == (203, b"try later")
    assert answer.headers["x-nestlet-fallback"] == "unavailable"
    posted = host.invoke("web", {"any": 1})
    assert (posted.status, posted.body) == (203, b"try later")
    head = host.request("HEAD", "/200")
    assert (head.status, head.body) == (203, b"")


def test_a_fallback_is_no_answer_of_a_host_that_goes_away(make_host):
    host = make_host({"drain": {"graceMs": 300}})
    fallback = {"status": 200, "body": '"stale"'}
    with Beacon() as beacon, Calls(host, "c") as calls:
        host.deploy_node(
            "meet", beacon.node() + MEET, concurrency=1, workers={"max": 1}, fallback=fallback
        )
        calls.send(1)
        beacon.wait(1)
        calls.send(1)
        wait_for(lambda: of(host, "meet", "queued") == 1, "one waits")
        host.stop()
        begun, waited = calls.answers()
        assert begun.json() == "stale" and begun.headers["x-nestlet-fallback"] == "crashed"
        assert_refused(waited, 503, "Host.Draining", "meet", "1")


# ---- recycling ----


def test_workers_are_replaced_after_their_requests_and_none_fails(host):
    """Each serves until its successor is ready, and then no more."""
    source = "let n = 0; exports.handler = async () => { n += 1; return n; };"
    host.deploy_node("count", source, concurrency=1, workers={"max": 1}, recycle={"requests": 20})
    got = []

    def call():
        answer = host.invoke("count")
        assert answer.status == 200, answer
        got.append(answer.json())
        return got.count(1) > 4

    wait_for(call, "four workers have been replaced")
    assert all(b in (a + 1, 1) for a, b in zip(got, got[1:])), got
    assert all(a >= 20 for a, b in zip(got, got[1:]) if b == 1), got
    assert metric(host, "workers_recycled_total", "count", cause="requests") >= 4
    assert metric(host, "worker_restarts_total", "count", cause="exit") == 0
    assert " warn " not in host.log()


def test_a_worn_worker_ends_what_it_has_however_long_the_drain_s_grace(make_host):
    host = make_host({"drain": {"graceMs": 100}})
    with Beacon() as beacon, Calls(host, "c") as calls:
        host.deploy_node("meet", beacon.node() + MEET, concurrency=2, recycle={"requests": 2})
        calls.send(1)
        beacon.wait(1)
        first = worker_ids(host, "meet")
        assert host.invoke("meet", {"free": True}).status == 200
        wait_for(lambda: worker_ids(host, "meet") - first, "another one is there")
        time.sleep(0.3)  # longer than the grace
        assert beacon.here() == 1
        beacon.open()
        assert calls.values() == ["c0"]
        wait_for(lambda: not worker_ids(host, "meet") & first, "the worn one goes")


def test_a_worker_is_replaced_at_its_age_also_when_it_idles(host):
    host.deploy_node("echo", ECHO, workers={"min": 1}, recycle={"ageMs": 300})
    wait_for(lambda: worker_ids(host, "echo"), "the first worker")
    first = worker_ids(host, "echo")
    wait_for(lambda: worker_ids(host, "echo") - first, "another one takes its place")
    wait_for(lambda: not worker_ids(host, "echo") & first, "the first one goes")
    assert metric(host, "workers_recycled_total", "echo", cause="age") >= 1
    assert host.invoke("echo", {"n": 1}).json() == {"n": 1}


def test_an_old_worker_that_nobody_needs_just_goes(host):
    host.deploy_node("echo", ECHO, recycle={"ageMs": 500})
    assert host.invoke("echo").status == 200
    wait_for(lambda: not host.workers(), "it goes")
    assert metric(host, "cold_starts_total", "echo") == 1


def test_a_worker_that_has_grown_is_replaced(host):
    source = """
    const kept = [];
    exports.handler = async (event) => { kept.push(Buffer.alloc(event.mb << 20, 1)); return kept.length; };
    """
    host.deploy_node("grow", source, memoryMb=512, recycle={"memoryMb": 150})
    assert host.invoke("grow", {"mb": 200}).json() == 1
    host.workers()  # measures
    wait_for(lambda: host.invoke("grow", {"mb": 0}).json() == 1, "a fresh worker answers")
    assert metric(host, "workers_recycled_total", "grow", cause="memory") == 1


# ---- quarantine ----


def test_a_function_that_does_not_start_goes_into_quarantine(host):
    with Neighbour(host):
        host.deploy_node(
            "bad", "process.exit(7);", quarantine={"failures": 3, "maxMs": 60000}
        )

        def in_quarantine():
            host.invoke("bad")
            return of(host, "bad", "state") == "quarantined"

        wait_for(in_quarantine, "it is in quarantine")
        assert "is in quarantine: 3 starts of a worker in a row failed" in host.log()
        begin = time.monotonic()
        refused = wait_for(
            lambda: next((a for a in [host.invoke("bad")] if a.status == 503), None), "it is refused"
        )
        assert_refused(refused, 503, "Function.Unavailable", "bad", "1", "exited with code 7")
        assert_retry_after(refused)
        assert time.monotonic() - begin < 5 and metric(host, "quarantined", "bad") == 1
        listed = json.loads(host.nestctl("list", "--json").stdout)
        assert {f["name"]: f["state"] for f in listed}["bad"] == "quarantined"
        host.deploy_node("bad", ECHO)  # the next version begins anew
        assert host.invoke("bad", {"n": 1}).json() == {"n": 1}


def test_a_function_that_recovers_leaves_its_quarantine(host):
    source = "if (Date.now() < %d) process.exit(7); exports.handler = async () => 'here';"
    back = int(time.time() * 1000) + 1500
    host.deploy_node("bad", source % back, quarantine={"failures": 2, "maxMs": 1000})

    def quarantined():
        host.invoke("bad")
        return of(host, "bad", "state") == "quarantined"

    wait_for(quarantined, "it is in quarantine")
    wait_for(lambda: host.invoke("bad").status == 200, "it is tried again")
    assert of(host, "bad", "state") == "deployed"
    assert "is out of quarantine" in host.log()
