# SPDX-License-Identifier: Apache-2.0
"""Bodies as streams: each piece passes when it is there, a slow side holds back the other, a client that leaves ends it."""

import socket
from pathlib import Path

import pytest

from beacon import Beacon
from host import wait_for
from wire import CHUNKS_END, Wire, chunked, invocation, request

MB = 1 << 20
STREAM_BYTES = 200 * MB


def memory_kb(pid, field):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0])


class FlatMemory:
    """Proves that the agent's memory, at its peak, stayed within `limit` MB of what it was."""

    def __init__(self, host, limit=8):
        self.host, self.limit = host, limit

    def __enter__(self):
        Path(f"/proc/{self.host.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = memory_kb(self.host.pid, "VmRSS")
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            grown = memory_kb(self.host.pid, "VmHWM") - self.before
            assert grown < self.limit * 1024, f"the agent grew by {grown} KiB"


def deploy(host, language, source, **spec):
    deployer = host.deploy_node if language == "node" else host.deploy_python
    deployer("flow", source, routes=[{"path": "/flow"}], timeoutMs=120000, **spec)


# ---- responses ----

PIECES = {
    "node streamifyResponse": (
        "node",
        "event",
        "exports.handler = awslambda.streamifyResponse(async (event, out) => {"
        " out.setContentType('text/plain'); out.write('one'); await meet('x'); out.end('two'); });",
    ),
    "node async generator": (
        "node",
        "event",
        "exports.handler = async function* () { yield 'one'; await meet('x'); yield 'two'; };",
    ),
    "node http": (
        "node",
        "http",
        "exports.handler = async (req, res) => { res.write('one'); await meet('x'); res.end('two'); };",
    ),
    "python generator": (
        "python",
        "event",
        "def handler(event, context):\n    yield 'one'\n    meet('x')\n    yield 'two'",
    ),
    "python async generator": (
        "python",
        "event",
        "import asyncio\nasync def handler(event, context):\n    yield 'one'\n"
        "    await asyncio.to_thread(meet, 'x')\n    yield 'two'",
    ),
    "wsgi": (
        "python",
        "wsgi",
        "def handler(environ, start_response):\n    start_response('200 OK', [])\n"
        "    yield b'one'\n    meet('x')\n    yield b'two'",
    ),
    "wsgi write": (
        "python",
        "wsgi",
        "def handler(environ, start_response):\n    write = start_response('200 OK', [])\n"
        "    write(b'one')\n    meet('x')\n    return [b'two']",
    ),
    "asgi": (
        "python",
        "asgi",
        "import asyncio\nasync def handler(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n        return\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'one', 'more_body': True})\n"
        "    await asyncio.to_thread(meet, 'x')\n"
        "    await send({'type': 'http.response.body', 'body': b'two'})",
    ),
}


@pytest.mark.parametrize("case", PIECES)
def test_the_first_byte_arrives_while_the_handler_still_runs(host, case):
    language, interface, source = PIECES[case]
    with Beacon() as beacon:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(host, language, prefix + source, interface=interface)
        for path in ["/flow", invocation("flow")]:
            with Wire(host.gateway_socket) as wire:
                wire.post(path, b"{}")
                head = wire.head()
                assert head.status == 200 and head.get("transfer-encoding") == "chunked"
                assert wire.chunk() == b"one"
                beacon.wait(1)  # the handler has not gone on
                beacon.release()
                assert wire.chunks() == b"two"


def test_a_streamed_result_has_the_type_that_its_handler_gave(host):
    deploy(host, "node", PIECES["node streamifyResponse"][2].replace("await meet('x');", ""))
    answer = host.invoke("flow")
    assert (answer.headers["content-type"], answer.body) == ("text/plain", b"onetwo")
    assert answer.headers["x-amz-executed-version"] == "1"


@pytest.mark.parametrize("language", ["node", "python"])
def test_a_handler_that_fails_midway_breaks_the_connection_off(host, language):
    sources = {
        "node": "exports.handler = async function* () { yield 'one'; await meet('x');"
        " throw new Error('no'); };",
        "python": "def handler(event, context):\n    yield 'one'\n    meet('x')\n"
        "    raise ValueError('no')",
    }
    with Beacon() as beacon:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(host, language, prefix + sources[language])
        for path in ["/flow", invocation("flow")]:
            with Wire(host.gateway_socket) as wire:
                wire.post(path, b"{}")
                assert wire.head().status == 200 and wire.chunk() == b"one"
                beacon.wait(1)
                beacon.release()
                assert wire.at_end()  # without the last chunk
        wait_for(lambda: host.function("flow")["versions"][0]["failedTotal"] == 2, "counted")


# ---- requests ----

UPLOADS = {
    "node http": (
        "node",
        "http",
        "exports.handler = async (req, res) => { let n = 0; for await (const c of req) {"
        " if (n === 0) await tell('first'); n += c.length; } res.end(String(n)); };",
    ),
    "wsgi": (
        "python",
        "wsgi",
        "def handler(environ, start_response):\n    body = environ['wsgi.input']\n"
        "    n = len(body.read(1))\n    tell('first')\n"
        "    while piece := body.read(65536):\n        n += len(piece)\n"
        "    start_response('200 OK', [])\n    return [b'%d' % n]",
    ),
    "asgi": (
        "python",
        "asgi",
        "async def handler(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n        return\n    n, more = 0, True\n"
        "    while more:\n        message = await receive()\n"
        "        if n == 0 and message['body']:\n            tell('first')\n"
        "        n += len(message['body'])\n        more = message['more_body']\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'%d' % n})",
    ),
}


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("case", UPLOADS)
def test_the_handler_reads_while_the_client_still_sends(host, case, framing):
    language, interface, source = UPLOADS[case]
    with Beacon() as beacon:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(host, language, prefix + source, interface=interface)
        with Wire(host.gateway_socket) as wire:
            if framing == "length":
                wire.send(request("POST", "/flow", None, "content-length: 500000"))
                wire.send(b"x" * 1000)
                beacon.wait_told("first")
                wire.send(b"y" * 499000)
            else:
                wire.send(request("POST", "/flow", None, "transfer-encoding: chunked"))
                wire.send(chunked(b"x" * 1000))
                beacon.wait_told("first")
                wire.send(chunked(b"y" * 400000, b"z" * 99000) + CHUNKS_END)
            assert wire.response().body == b"500000"


def test_both_directions_flow_at_the_same_time(host):
    deploy(
        host, "node", "exports.handler = (req, res) => { req.pipe(res); };", interface="http"
    )
    with Wire(host.gateway_socket) as wire:
        wire.send(request("POST", "/flow", None, "transfer-encoding: chunked"))
        wire.send(chunked(b"ping 0"))
        assert wire.head().status == 200
        for i in range(20):
            assert wire.chunk() == b"ping %d" % i
            wire.send(chunked(b"ping %d" % (i + 1)))
        assert wire.chunk() == b"ping 20"
        wire.send(CHUNKS_END)
        assert wire.chunk() == b""


# ---- back pressure ----

SOURCES = {
    "node": (
        "http",
        "const piece = Buffer.alloc(1 << 16, 'x');\n"
        "exports.handler = (req, res) => { let left = %(bytes)d, told = false;\n"
        "  if (req.url !== '/flow') return res.end('here');\n"
        "  const write = () => { while (left > 0) { left -= piece.length;\n"
        "    if (!res.write(piece)) { if (!told) { told = true; tell('full'); }\n"
        "      return res.once('drain', write); } } res.end(); }; write(); };",
    ),
    "python": (
        "wsgi",
        "import threading\npiece = b'x' * 65536\nsent = 0\n"
        "def watch():\n    import time\n    last = -1\n    while sent == 0 or sent != last:\n"
        "        last = sent\n        time.sleep(0.3)\n    tell('full')\n"
        "def handler(environ, start_response):\n    global sent\n"
        "    start_response('200 OK', [])\n"
        "    if environ['PATH_INFO'] != '/flow':\n        yield b'here'\n        return\n"
        "    threading.Thread(target=watch, daemon=True).start()\n"
        "    for i in range(%(bytes)d // 65536):\n        sent += 65536\n        yield piece",
    ),
}


@pytest.mark.parametrize("language", SOURCES)
def test_a_client_that_reads_slowly_holds_back_its_handler_alone(host, language):
    interface, source = SOURCES[language]
    with Beacon() as beacon, Wire(host.gateway_socket) as wire:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(
            host,
            language,
            prefix + source % {"bytes": STREAM_BYTES},
            interface=interface,
            concurrency=4,
        )
        assert host.invoke("flow").body == b"here"
        with FlatMemory(host):
            wire.send(request("GET", "/flow", None))
            assert wire.head().status == 200
            beacon.wait_told("full")
            # others are served by the same worker meanwhile
            assert host.invoke("flow").body == b"here"
            got = 0
            while piece := wire.chunk():
                got += len(piece)
            assert got == STREAM_BYTES
        [worker] = host.workers()
        assert worker["memoryPeakBytes"] < 160 * MB, worker


READERS = {
    "node": (
        "http",
        "exports.handler = async (req, res) => { await meet('before'); let n = 0;"
        " for await (const c of req) n += c.length; res.end(String(n)); };",
    ),
    "python": (
        "wsgi",
        "def handler(environ, start_response):\n    meet('before')\n    n = 0\n"
        "    while piece := environ['wsgi.input'].read(65536):\n        n += len(piece)\n"
        "    start_response('200 OK', [])\n    return [b'%d' % n]",
    ),
}


@pytest.mark.parametrize("language", READERS)
def test_a_handler_that_reads_slowly_holds_back_its_client(make_host, language):
    host = make_host({"gateway": {"bodyBytes": STREAM_BYTES}})
    interface, source = READERS[language]
    piece = b"x" * 65536
    with Beacon() as beacon, Wire(host.gateway_socket) as wire:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(host, language, prefix + source, interface=interface)
        with FlatMemory(host):
            wire.send(request("POST", "/flow", None, f"content-length: {STREAM_BYTES}"))
            beacon.wait(1)
            wire.sock.settimeout(1)
            sent = 0
            with pytest.raises(TimeoutError):  # the socket takes no more for a second
                while sent < STREAM_BYTES:
                    sent += wire.sock.send(piece)
            assert sent < 2 * MB, sent
            wire.sock.settimeout(30)
            beacon.open()
            while sent < STREAM_BYTES:
                sent += wire.sock.send(piece[: STREAM_BYTES - sent])
            assert wire.response().body == b"%d" % STREAM_BYTES
        [worker] = host.workers()
        assert worker["memoryPeakBytes"] < 160 * MB, worker


def test_a_client_that_takes_nothing_is_closed_in_time_and_its_request_cancelled(make_host):
    host = make_host({"gateway": {"writeIdleMs": 300}})
    with Beacon() as beacon:
        deploy(
            host,
            "node",
            beacon.node()
            + "exports.handler = (req, res) => { res.on('close', () => tell('closed'));"
            " const write = () => { while (res.write('x'.repeat(65536))); };"
            " res.on('drain', write); write(); };",
            interface="http",
        )
        with Wire(host.gateway_socket) as wire:
            wire.send(request("GET", "/flow", None))
            beacon.wait_told("closed")
        wait_for(lambda: host.function("flow")["versions"][0]["inFlight"] == 0, "it is over")


# ---- clients that leave ----

LEAVING = {
    "node's signal": (
        "node",
        "event",
        "exports.handler = (event, context) => event.ok ? 'well' : new Promise((_, no) => {"
        " context.signal.addEventListener('abort', () => { tell('left'); no(context.signal.reason); });"
        " tell('here'); });",
    ),
    "node's close": (
        "node",
        "http",
        "exports.handler = (req, res) => { if (req.method === 'PUT') return res.end('well');"
        " res.on('close', () => tell('left')); res.write('x'); tell('here'); };",
    ),
    "python's cancellation": (
        "python",
        "event",
        "import asyncio\nasync def handler(event, context):\n"
        "    if event.get('ok'):\n        return 'well'\n    tell('here')\n    try:\n"
        "        await asyncio.Event().wait()\n    except asyncio.CancelledError:\n"
        "        tell('left')\n        raise",
    ),
    "asgi's disconnect": (
        "python",
        "asgi",
        "async def handler(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n        return\n"
        "    await receive()\n"
        "    if scope['method'] != 'PUT':\n        tell('here')\n"
        "        assert (await receive())['type'] == 'http.disconnect'\n        tell('left')\n"
        "        return\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'well'})",
    ),
    "wsgi's next write": (
        "python",
        "wsgi",
        "def handler(environ, start_response):\n    start_response('200 OK', [])\n"
        "    if environ['REQUEST_METHOD'] == 'PUT':\n        yield b'well'\n        return\n"
        "    tell('here')\n    try:\n        while True:\n            yield b'x' * 1000\n"
        "    finally:\n        tell('left')",
    ),
}


@pytest.mark.parametrize("case", LEAVING)
def test_a_client_that_leaves_cancels_its_request_and_costs_no_worker(host, case):
    language, interface, source = LEAVING[case]
    with Beacon() as beacon:
        prefix = beacon.node() if language == "node" else beacon.python()
        deploy(host, language, prefix + source, interface=interface, concurrency=1)
        with Wire(host.gateway_socket) as wire:
            wire.post(invocation("flow"), b"{}")
            beacon.wait_told("here")
            workers = [w["id"] for w in host.workers()]
        beacon.wait_told("left")
        wait_for(lambda: host.function("flow")["versions"][0]["inFlight"] == 0, "the slot is free")
        if interface == "event":
            assert host.invoke("flow", {"ok": 1}).body == b'"well"'
        else:
            assert host.request("PUT", "/flow", b"").body == b"well"
        assert [w["id"] for w in host.workers()] == workers
        outcome = 'nestlet_requests_total{function="flow",version="1",outcome="cancelled"}'
        assert host.metrics()[outcome] == 1


def test_a_client_that_leaves_while_it_sends_cancels_too(host):
    with Beacon() as beacon:
        deploy(
            host,
            "node",
            beacon.node()
            + "exports.handler = async (req, res) => { await tell('here');"
            " try { for await (const c of req); } catch { await tell('left'); } res.end(); };",
            interface="http",
        )
        with Wire(host.gateway_socket) as wire:
            wire.send(request("POST", "/flow", None, "content-length: 1000") + b"x")
            beacon.wait_told("here")
        beacon.wait_told("left")


def test_a_handler_that_ignores_its_client_s_leave_is_killed_after_the_grace(make_host):
    host = make_host({"workers": {"cancelGraceMs": 200}})
    with Beacon() as beacon:
        deploy(
            host,
            "node",
            beacon.node()
            + "exports.handler = async (event) => { if (event.ok) return 1; tell('here');"
            " await new Promise(() => {}); };",
            concurrency=1,
        )
        with Wire(host.gateway_socket) as wire:
            wire.post(invocation("flow"), b"{}")
            beacon.wait_told("here")
            [worker] = host.workers()
            wire.sock.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: worker["id"] not in [w["id"] for w in host.workers()], "it is killed")
        assert host.invoke("flow", {"ok": 1}).json() == 1
