# SPDX-License-Identifier: Apache-2.0
"""Connections to the gateway: kept, pipelined, old, half-open, over TCP; bodies of every framing and size."""

import json
import os
import socket

import pytest

from beacon import Beacon
from host import Answer, wait_for
from neighbour import assert_refused
from wire import CHUNKS_END, Wire, chunked, invocation, request

MB = 1 << 20

NODE_SIZE = """
exports.handler = async (req, res) => {
    let bytes = 0, sum = 0;
    for await (const c of req) { bytes += c.length; for (let i = 0; i < c.length; i += 4093) sum += c[i]; }
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ method: req.method, bytes, length: req.headers['content-length'] ?? null }));
};
"""
ECHO = "exports.handler = async (event) => event;"


def deploy_size(host):
    host.deploy_node("size", NODE_SIZE, interface="http", routes=[{"path": "/size"}])


# ---- keep-alive and pipelining ----


def test_one_connection_serves_many_requests_and_errors_do_not_end_it(host):
    host.deploy_node("echo", ECHO)
    before = host.metrics()["nestlet_gateway_connections"]
    with Wire(host.gateway_socket) as wire:
        for i in range(50):
            wire.post(invocation("echo"), b"%d" % i)
            response = wire.response()
            assert (response.status, response.json()) == (200, i)
            assert response.head.get("connection") is None
            wire.post(invocation("gone"), b"{}")
            assert wire.response().status == 404
        assert host.metrics()["nestlet_gateway_connections"] == before + 1
        wire.post(invocation("echo"), b"1", "connection: close")
        assert wire.response().head.get("connection") == "close" and wire.at_end()
    wait_for(lambda: host.metrics()["nestlet_gateway_connections"] == before, "it is closed")


def test_pipelined_requests_are_answered_in_order_whatever_they_take(host):
    with Beacon() as beacon:
        host.deploy_node(
            "wait",
            beacon.node()
            + "exports.handler = async (n) => { if (n === 0) await meet('first'); return n; };",
            concurrency=8,
        )
        calls = [request("POST", invocation("wait"), b"%d" % i) for i in range(20)]
        calls.insert(5, request("GET", "/nowhere", None))
        calls.insert(9, request("POST", invocation("wait"), None, "transfer-encoding: chunked"))
        calls[9] += chunked(b"9", b"9") + CHUNKS_END
        with Wire(host.gateway_socket) as wire:
            wire.send(b"".join(calls))
            beacon.wait(1)
            beacon.open()
            answers = [wire.response() for _ in calls]
        bodies = [a.json() if a.status == 200 else a.status for a in answers]
        expected = list(range(20))
        expected.insert(5, 404)
        expected.insert(9, 99)
        assert bodies == expected


def test_a_pipeline_cut_anywhere_gives_the_same_answers(host):
    host.deploy_node("echo", ECHO)
    whole = request("POST", invocation("echo"), b'"first"') + request(
        "POST", invocation("echo"), b'"second"'
    )
    for cut in range(1, len(whole), 7):
        with Wire(host.gateway_socket) as wire:
            wire.send(whole[:cut])
            wire.send(whole[cut:])
            assert [wire.response().json() for _ in range(2)] == ["first", "second"], cut


def test_idle_connections_are_closed_after_keep_alive(make_host):
    host = make_host({"gateway": {"keepAliveMs": 200}})
    host.deploy_node("echo", ECHO)
    with Wire(host.gateway_socket) as wire:
        wire.post(invocation("echo"), b"1")
        assert wire.response().status == 200
        assert wire.at_end()


# ---- bodies ----


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("language", ["node", "python"])
def test_6_mb_arrive_whole_each_way(host, framing, language):
    if language == "node":
        host.deploy_node("echo", ECHO)
    else:
        host.deploy_python("echo", "def handler(event, context):\n    return event")
    text = os.urandom(3 * MB - 1).hex()
    body = json.dumps(text).encode()
    assert len(body) == 6 * MB
    with Wire(host.gateway_socket) as wire:
        if framing == "length":
            wire.post(invocation("echo"), body)
        else:
            wire.send(request("POST", invocation("echo"), None, "transfer-encoding: chunked"))
            for i in range(0, len(body), 100000):
                wire.send(chunked(body[i : i + 100000]))
            wire.send(CHUNKS_END)
        response = wire.response()
        assert response.status == 200 and response.body == body
        wire.post(invocation("echo"), b"1")  # and the connection goes on
        assert wire.response().json() == 1


def test_one_byte_over_the_limit_is_413_announced_or_not(host):
    host.deploy_node("echo", ECHO)
    with Wire(host.gateway_socket) as wire:
        wire.send(
            b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
            % (invocation("echo").encode(), 6 * MB + 1)
        )
        response = wire.response()  # at once: nothing of the body was sent
        assert (response.status, response.json()["errorType"]) == (413, "Request.TooLarge")
        assert response.json()["function"] in (None, "echo")
    with Wire(host.gateway_socket) as wire:
        wire.send(request("POST", invocation("echo"), None, "transfer-encoding: chunked"))
        wire.send(chunked(b" " * (6 * MB)) + chunked(b"1") + CHUNKS_END)
        response = wire.response()
        assert (response.status, response.json()["errorType"]) == (413, "Request.TooLarge")
    assert host.invoke("echo", 1).json() == 1


def test_request_bodies_reach_http_functions_in_every_framing(host):
    deploy_size(host)
    with Wire(host.gateway_socket) as wire:
        wire.send(request("PUT", "/size", b"x" * 100000))
        assert wire.response().json() == {"method": "PUT", "bytes": 100000, "length": "100000"}
        wire.send(request("PATCH", "/size", None, "transfer-encoding: chunked"))
        wire.send(chunked(b"x" * 70000, b"y", b"z" * 30000) + CHUNKS_END)
        assert wire.response().json()["bytes"] == 100001
        wire.send(request("DELETE", "/size", None))
        assert wire.response().json() == {"method": "DELETE", "bytes": 0, "length": None}


def test_an_answer_may_come_before_the_body_was_read(host):
    host.deploy_node(
        "early",
        "exports.handler = (req, res) => { res.statusCode = 403; res.end('no'); };",
        interface="http",
        routes=[{"path": "/early"}],
    )
    for size in (1000, 5 * MB):
        answer = host.request("POST", "/early", b"x" * size)
        assert (answer.status, answer.body) == (403, b"no")


# ---- HEAD, Expect, HTTP/1.0, half a close ----


def test_head_has_the_headers_of_get_and_no_body(host):
    host.deploy_node(
        "page",
        "exports.handler = (req, res) => { res.setHeader('x-method', req.method);"
        " res.setHeader('content-length', 5); res.end('hello'); };",
        interface="http",
        routes=[{"path": "/page"}, {"path": "/stream"}],
    )
    with Wire(host.gateway_socket) as wire:
        wire.send(request("HEAD", "/page", None) + request("GET", "/page", None))
        head = wire.response("HEAD")
        assert (head.status, head.head.get("x-method")) == (200, "HEAD")
        assert head.head.get("content-length") == "5"
        assert wire.response().body == b"hello"
        wire.send(request("HEAD", "/nowhere", None) + request("GET", "/page", None))
        assert wire.response("HEAD").status == 404
        assert wire.response().body == b"hello"


def test_expect_100_continue_is_answered_before_the_body_is_sent(host):
    deploy_size(host)
    with Wire(host.gateway_socket) as wire:
        wire.send(
            b"POST /size HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        )
        assert wire.response().status == 100
        wire.send(b"abc")
        assert wire.response().json()["bytes"] == 3
        wire.send(
            b"POST /size HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n"
            b"content-length: %d\r\n\r\n" % (7 * MB)
        )
        assert wire.response().status == 413
    with Wire(host.gateway_socket) as wire:
        wire.send(request("POST", "/nowhere", None, "expect: 100-continue", "content-length: 3"))
        assert wire.response().status == 404  # instead of 100
    with Wire(host.gateway_socket) as wire:
        wire.send(request("POST", "/size", b"", "expect: a-miracle"))
        response = wire.response()
        assert (response.status, response.json()["errorType"]) == (417, "Request.Invalid")


def test_an_http_1_0_client_gets_a_body_that_ends_with_the_connection(host):
    host.deploy_node(
        "old",
        "exports.handler = (req, res) => { res.write('a'); setImmediate(() => {"
        " res.write('b'); setImmediate(() => res.end('c')); }); };",
        interface="http",
        routes=[{"path": "/old"}],
    )
    host.deploy_node("echo", ECHO)
    with Wire(host.gateway_socket) as wire:
        wire.send(request("GET", "/old", None, version="HTTP/1.0"))
        response = wire.response()
        assert (response.status, response.body) == (200, b"abc")
        assert response.head.get("transfer-encoding") is None and wire.at_end()
    with Wire(host.gateway_socket) as wire:
        for _ in range(2):
            wire.send(
                request(
                    "POST", invocation("echo"), b"1", "connection: keep-alive", version="HTTP/1.0"
                )
            )
            response = wire.response()
            assert (response.json(), response.head.get("connection")) == (1, "keep-alive")
        wire.send(request("POST", invocation("echo"), b"2", version="HTTP/1.0"))
        assert wire.response().json() == 2 and wire.at_end()


# ---- the TCP listener ----


def test_the_loopback_listener_serves_what_the_socket_serves(make_host):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    host = make_host({"gateway": {"listen": f"127.0.0.1:{port}"}})
    host.deploy_node("echo", ECHO)
    deploy_size(host)
    with Wire(("127.0.0.1", port)) as wire:
        wire.post(invocation("echo"), b'"over tcp"')
        assert wire.response().json() == "over tcp"
        wire.send(request("PUT", "/size", b"x" * 5000000))
        assert wire.response().json()["bytes"] == 5000000
        wire.send(request("POST", invocation("gone"), b"{}"))
        assert wire.response().status == 404
    assert host.invoke("echo", 1).json() == 1
    assert host.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        Wire(("127.0.0.1", port))


# ---- draining ----


def test_a_draining_host_ends_what_runs_and_refuses_what_comes(host):
    with Beacon() as beacon:
        host.deploy_node(
            "wait", beacon.node() + "exports.handler = async () => { await meet('here'); return 1; };"
        )
        running, idle = host.connect(), Wire(host.gateway_socket)
        idle.post(invocation("gone"), b"{}")
        assert idle.response().status == 404
        running.request("POST", invocation("wait"), body="{}")
        beacon.wait(1)
        late = Wire(host.gateway_socket)
        late.send(b"POST ")  # a request that has begun: its connection is not idle
        host.note_pids()
        assert host.nestctl("drain").returncode == 0
        assert idle.at_end()
        late.send(request("POST", invocation("wait"), b"{}")[5:])
        response = late.response()
        assert (response.status, response.json()["errorType"]) == (503, "Host.Draining")
        assert int(response.head.get("retry-after")) >= 1
        assert response.head.get("connection") == "close" and late.at_end()
        assert not host.gateway_socket.exists() and host.alive
        beacon.open()
        answer = Answer(running.getresponse())
        assert (answer.status, answer.json()) == (200, 1)
        assert answer.headers["connection"] == "close"
        assert host.process.wait(20) == 0
        for connection in (running, idle, late):
            connection.close()


def test_a_half_closed_connection_counts_as_a_client_that_left(host):
    with Beacon() as beacon:
        host.deploy_node(
            "wait",
            beacon.node()
            + "exports.handler = (event, context) => event ? 1 : new Promise((_, no) => {"
            " context.signal.addEventListener('abort', () => { tell('left'); no(1); });"
            " tell('here'); });",
        )
        with Wire(host.gateway_socket) as wire:
            wire.post(invocation("wait"), b"")
            beacon.wait_told("here")
            wire.sock.shutdown(socket.SHUT_WR)
            beacon.wait_told("left")
        assert host.invoke("wait", 1).json() == 1


def test_more_connections_than_allowed_wait_their_turn(make_host):
    host = make_host({"gateway": {"maxConnections": 2}})
    host.deploy_node("echo", ECHO)
    first, second = Wire(host.gateway_socket), Wire(host.gateway_socket)
    for wire in (first, second):
        wire.post(invocation("echo"), b"1")
        assert wire.response().json() == 1
    third = Wire(host.gateway_socket)
    third.post(invocation("echo"), b"3")
    third.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # nobody has taken it in
        third.sock.recv(1)
    third.sock.settimeout(30)
    second.post(invocation("echo"), b"2")
    assert second.response().json() == 2
    first.close()
    assert third.response().json() == 3
    second.close()
    third.close()
    assert_refused(host.invoke("gone"), 404, "Function.NotFound", "gone")


def test_an_answer_that_its_client_has_not_read_yet_survives_a_drain(host):
    host.deploy_node("big", "exports.handler = async () => 'x'.repeat(400000);")
    with Wire(host.gateway_socket) as wire:
        wire.post(invocation("big"), b"{}")

        def ended():
            version = host.function("big")["versions"][0]
            return version["requestsTotal"] == 1 and version["inFlight"] == 0

        wait_for(ended, "the worker is done with it")
        host.note_pids()
        host.nestctl("drain")
        wait_for(lambda: not host.gateway_socket.exists(), "the drain has begun")
        assert wire.response().json() == "x" * 400000
    assert host.process.wait(30) == 0
