# SPDX-License-Identifier: Apache-2.0
"""The real nginx, with the example's config, before the gateway socket."""

import json
import os
import socket
import subprocess

import pytest

from beacon import Beacon
from host import PATIENCE, TOP, wait_for
from wire import CHUNKS_END, Head, Wire, chunked, invocation, request

MB = 1 << 20


class Nginx:
    def __init__(self, root, gateway_socket):
        self.root = root / "nginx"
        self.root.mkdir(mode=0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        text = (TOP / "examples" / "nginx" / "nginx.conf").read_text()
        for ours, theirs in {
            "/run/nestlet/gateway.sock": str(gateway_socket),
            "127.0.0.1:8080": f"127.0.0.1:{self.port}",
        }.items():
            assert text.count(ours) == 1, f"the example names {ours} {text.count(ours)} times"
            text = text.replace(ours, theirs)
        (self.root / "nginx.conf").write_text(text)
        self.log = open(self.root / "log", "wb")
        self.process = subprocess.Popen(
            ["nginx", "-p", str(self.root), "-c", str(self.root / "nginx.conf"), "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        wait_for(self.answers, "nginx listens")

    def answers(self):
        assert self.process.poll() is None, (self.root / "log").read_text()
        try:
            Wire(("127.0.0.1", self.port)).close()
            return True
        except ConnectionRefusedError:
            return False

    def wire(self):
        return LooseWire(("127.0.0.1", self.port))

    def stop(self):
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.log.close()
        return code


class LooseWire(Wire):
    """nginx writes the names of headers as it likes."""

    def head(self):
        first, fields = self.line(), []
        while line := self.line():
            name, _, value = line.partition(":")
            fields.append((name.lower(), value.strip()))
        return Head(first, fields)


@pytest.fixture
def host(make_host):
    """nginx's workers run as a user of their own, who must be able to connect."""
    return make_host({"gateway": {"socketMode": "0666"}})


@pytest.fixture
def nginx(host, workdir):
    server = Nginx(workdir, host.gateway_socket)
    yield server
    assert server.stop() == 0


ECHO = "exports.handler = async (event) => event;"


def test_nginx_keeps_its_connection_to_the_host(host, nginx):
    host.deploy_node("echo", ECHO)
    with nginx.wire() as wire:
        for i in range(50):
            wire.post("/invoke/echo", b"%d" % i)
            response = wire.response()
            assert (response.status, response.json()) == (200, i)
        assert host.metrics()["nestlet_gateway_connections"] == 1
        # of the requests that came by one connection, one answer each
        assert host.metrics()['nestlet_gateway_responses_total{code="2xx"}'] == 50


def test_invoke_by_the_short_name_and_by_the_whole_path(host, nginx):
    host.deploy_node(
        "who", "exports.handler = async (e, context) => [context.functionName, context.awsRequestId];"
    )
    with nginx.wire() as wire:
        for path in ("/invoke/who", invocation("who")):
            wire.post(path, b"{}")
            response = wire.response()
            name, request_id = response.json()
            assert name == "who" and response.head.get("x-request-id") == request_id
            assert len(request_id) == 32  # nginx's own $request_id
        wire.post("/invoke/gone", b"{}")
        response = wire.response()
        assert (response.status, response.json()["errorType"]) == (404, "Function.NotFound")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_6_mb_pass_through_nginx_each_way(host, nginx, framing):
    host.deploy_node("echo", ECHO)
    body = json.dumps(os.urandom(3 * MB - 1).hex()).encode()
    with nginx.wire() as wire:
        if framing == "length":
            wire.post("/invoke/echo", body)
        else:
            wire.send(request("POST", "/invoke/echo", None, "transfer-encoding: chunked"))
            for i in range(0, len(body), 100000):
                wire.send(chunked(body[i : i + 100000]))
            wire.send(CHUNKS_END)
        response = wire.response()
        assert response.status == 200 and response.body == body
    with nginx.wire() as wire:
        wire.send(request("POST", "/invoke/echo", None, f"content-length: {6 * MB + 1}"))
        assert wire.response().status == 413


def test_the_first_byte_comes_through_nginx_while_the_handler_runs(host, nginx):
    with Beacon() as beacon:
        host.deploy_node(
            "flow",
            beacon.node()
            + "exports.handler = async (req, res) => { res.write('one'); await meet('x');"
            " res.end('two'); };",
            interface="http",
            routes=[{"path": "/flow"}],
        )
        with nginx.wire() as wire:
            wire.send(request("GET", "/flow", None))
            assert wire.head().status == 200 and wire.chunk() == b"one"
            beacon.wait(1)
            beacon.open()
            assert wire.chunks() == b"two"


def test_an_upload_streams_through_nginx_and_routes_see_the_client(host, nginx):
    with Beacon() as beacon:
        host.deploy_node(
            "up",
            beacon.node()
            + "exports.handler = async (req, res) => { let n = 0; for await (const c of req) {"
            " if (n === 0) await tell('first'); n += c.length; }"
            " res.end(JSON.stringify([n, req.headers.host, req.socket.remoteAddress])); };",
            interface="http",
            routes=[{"host": "shop.example.org", "path": "/up"}],
        )
        with nginx.wire() as wire:
            wire.send(
                b"POST /up HTTP/1.1\r\nhost: shop.example.org\r\ntransfer-encoding: chunked\r\n\r\n"
                + chunked(b"x" * 1000)
            )
            beacon.wait_told("first")
            wire.send(chunked(b"y" * 1000) + CHUNKS_END)
            assert wire.response().json() == [2000, "shop.example.org", "127.0.0.1"]


def test_a_client_of_nginx_that_leaves_cancels_its_request(host, nginx):
    with Beacon() as beacon:
        host.deploy_node(
            "wait",
            beacon.node()
            + "exports.handler = (event, context) => new Promise((_, no) => {"
            " context.signal.addEventListener('abort', () => { tell('left'); no(1); });"
            " tell('here'); });",
        )
        with nginx.wire() as wire:
            wire.post("/invoke/wait", b"{}")
            beacon.wait_told("here")
        beacon.wait_told("left")
