# SPDX-License-Identifier: Apache-2.0
"""Clients that speak badly, too much or too slowly: refused in the documented words, and nobody else notices."""

import json
import threading

import pytest

from host import wait_for
from neighbour import ERROR_FIELDS, Neighbour

INVOKE = b"POST /2015-03-31/functions/echo/invocations HTTP/1.1\r\n"
HOST = b"Host: h\r\n"
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def gateway(make_shared_host):
    """A host with an echo function and a neighbour, and little patience with slow clients."""
    host = make_shared_host(
        {"gateway": {"headerTimeoutMs": 700, "bodyIdleMs": 700, "writeIdleMs": 3000}}
    )
    host.deploy_node("echo", "exports.handler = async (event) => event;")
    with Neighbour(host):
        yield host


def read_all(sock):
    """What comes until the host closes the connection."""
    got = b""
    while True:
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            return got
        if not more:
            return got
        got += more


def say(host, text):
    """Sends these bytes; returns status, headers and body of the answer, and waits for the end of the connection."""
    with host.raw() as sock:
        try:
            sock.sendall(text)
        except BrokenPipeError:
            pass  # the answer came before the end of what we say
        return parse(read_all(sock))


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


def assert_refusal(answer, status, error_type):
    got, headers, body = answer
    assert got == status, answer
    error = json.loads(body)
    assert set(error) == ERROR_FIELDS and error["errorType"] == error_type, answer
    assert error["component"] == "gateway" and error["requestId"] == headers["x-request-id"]
    assert headers["connection"] == "close" and int(headers["content-length"]) == len(body)


def calls(host):
    """How many requests the echo function has had, with any outcome."""
    return sum(
        v
        for k, v in host.metrics().items()
        if k.startswith("nestlet_requests_total{") and 'function="echo"' in k
    )


MALFORMED = {
    "words": b"hello there\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100a5010000a10303") + bytes(80),
    "zeros": bytes(50),
    "a HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that isn't": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT h:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an upgrade": b"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    + HOST
    + b"\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in the path": b"GET /a\x01b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without slash": b"GET x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in a header's name": INVOKE + HOST + b"A B: c\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": INVOKE + HOST + b"Content-Length : 2\r\n\r\n{}",
    "a header without colon": INVOKE + HOST + b"nothing\r\n\r\n",
    "a NUL in a value": INVOKE + HOST + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a CR in a value": INVOKE + HOST + b"X: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": INVOKE + HOST + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": (INVOKE + HOST + b"Content-Length: 2\r\n\r\n{}").replace(b"\r", b""),
    "no host": INVOKE + b"Content-Length: 2\r\n\r\n{}",
    "two hosts": INVOKE + HOST + b"Host: i\r\nContent-Length: 2\r\n\r\n{}",
    "length and chunks": INVOKE
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": INVOKE
    + HOST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": INVOKE + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": INVOKE + HOST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": INVOKE + HOST + b"Content-Length: -2\r\n\r\n{}",
    "a length with a sign": INVOKE + HOST + b"Content-Length: +2\r\n\r\n{}",
    "a length in hex": INVOKE + HOST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length beyond 64 bits": INVOKE + HOST + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "another transfer coding": INVOKE + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunked, but not last": INVOKE
    + HOST
    + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a chunk size of letters": INVOKE + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a negative chunk size": INVOKE + HOST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
    "a chunk size beyond 64 bits": INVOKE
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n",
    "a chunk longer than it says": INVOKE
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{ }\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("form", MALFORMED)
def test_what_is_not_http_is_400_and_ends_the_connection(gateway, form):
    assert_refusal(say(gateway, MALFORMED[form]), 400, "Request.Invalid")


def test_no_malformed_request_has_a_second_one_in_its_belly(gateway):
    """What follows a refused request on its connection is never run."""
    before = calls(gateway)
    inner = INVOKE + HOST + b"Content-Length: 2\r\n\r\n{}"
    for form, text in MALFORMED.items():
        if b"chunked\r\n\r\n" in text and b"Content-Length" not in text:
            continue  # the chunks are what is malformed: the request itself has begun
        status, _, body = say(gateway, text + inner)
        assert status == 400 and b"HTTP/1.1 2" not in body, form
    assert calls(gateway) == before


CALLS = {
    "another method": (b"PUT /2015-03-31/functions/echo/invocations HTTP/1.1\r\n", b""),
    "a name that climbs": (b"POST /2015-03-31/functions/..%2f..%2fx/invocations HTTP/1.1\r\n", b""),
    "a name too long": (
        b"POST /2015-03-31/functions/" + b"a" * 65 + b"/invocations HTTP/1.1\r\n",
        b"",
    ),
    "an unknown invocation type": (INVOKE, b"X-Amz-Invocation-Type: Maybe\r\n"),
    "a client context that is not base64": (INVOKE, b"X-Amz-Client-Context: {}\r\n"),
    "a deadline of words": (INVOKE, b"X-Nestlet-Deadline-Ms: soon\r\n"),
}


@pytest.mark.parametrize("form", CALLS)
def test_what_is_no_call_is_400(gateway, form):
    line, header = CALLS[form]
    answer = say(gateway, line + HOST + header + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
    assert_refusal(answer, 400, "Request.Invalid")


def test_an_event_that_is_not_json_is_told_as_such(gateway):
    for body in (b"{", b"{} {}", b"\xff\xfe", b"nul"):
        answer = gateway.request("POST", "/2015-03-31/functions/echo/invocations", body)
        assert answer.status == 200 and answer.headers["x-amz-function-error"] == "Unhandled"
        assert answer.error_type == "Runtime.UnmarshalError", answer


# ---- too much ----


def test_a_length_of_1_gb_is_413_before_any_of_it_is_read(gateway):
    before = calls(gateway)
    text = INVOKE + HOST + b"Content-Length: %d\r\n\r\n" % GIGABYTE
    assert_refusal(say(gateway, text), 413, "Request.TooLarge")
    waiting = text.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert_refusal(say(gateway, waiting), 413, "Request.TooLarge")
    assert calls(gateway) == before


def test_chunks_without_end_are_413_at_the_limit(gateway):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    text = INVOKE + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 100
    assert_refusal(say(gateway, text), 413, "Request.TooLarge")


def test_chunk_extensions_without_end_are_refused(gateway):
    text = INVOKE + HOST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * (4 << 20)
    assert_refusal(say(gateway, text), 431, "Request.TooLarge")


FLOODS = {
    "a long path": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path without end": b"GET /" + b"a" * (4 << 20),
    "a long header": INVOKE + HOST + b"X: " + b"a" * 70000 + b"\r\n\r\n",
    "a header without end": INVOKE + HOST + b"X: " + b"a" * (4 << 20),
    "a name without end": INVOKE + HOST + b"a" * (4 << 20),
    "many headers": INVOKE + HOST + b"".join(b"X-%d: a\r\n" % i for i in range(200)) + b"\r\n",
    "headers without end": INVOKE + HOST + b"a:b\r\n" * 100000,
}


@pytest.mark.parametrize("form", FLOODS)
def test_a_flood_of_headers_is_431(gateway, form):
    assert_refusal(say(gateway, FLOODS[form]), 431, "Request.TooLarge")


# ---- too slowly ----


def trickle(sock, text, stop):
    """One byte of @text after another, with pauses, until the host has had enough."""
    try:
        for byte in text:
            sock.sendall(bytes([byte]))
            if stop.wait(0.05):
                return
    except OSError:
        pass


def test_headers_that_trickle_are_408_in_the_time_for_all_of_them(gateway):
    """Each byte comes in time, all of them do not: forty such clients at once hold nobody up."""
    stop, socks, threads = threading.Event(), [], []
    try:
        for _ in range(40):
            sock = gateway.raw()
            text = INVOKE + b"".join(b"X-%d: a\r\n" % i for i in range(99))
            thread = threading.Thread(target=trickle, args=(sock, text, stop))
            thread.start()
            socks.append(sock)
            threads.append(thread)
        assert gateway.invoke("echo", {"n": 1}).json() == {"n": 1}
        for sock in socks:
            assert_refusal(parse(read_all(sock)), 408, "Request.Timeout")
    finally:
        stop.set()
        for thread, sock in zip(threads, socks):
            thread.join()
            sock.close()


@pytest.mark.parametrize(
    "begun", [b"P", INVOKE, INVOKE + HOST + b"X: a"], ids=["method", "line", "header"]
)
def test_headers_that_stop_are_408(gateway, begun):
    assert_refusal(say(gateway, begun), 408, "Request.Timeout")


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 10\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{"],
    ids=["length", "chunks"],
)
def test_a_body_that_stops_is_408_and_leaves_the_function_free(gateway, framing):
    status, headers, body = say(gateway, INVOKE + HOST + framing)
    error = json.loads(body)
    assert (status, error["errorType"]) == (408, "Request.Timeout")
    assert headers["connection"] == "close"
    wait_for(
        lambda: gateway.function("echo")["versions"][0]["inFlight"] == 0, "the slot is given back"
    )


def test_a_client_that_says_nothing_is_let_go(gateway):
    with gateway.raw() as sock:
        assert read_all(sock) == b""


def test_a_client_that_reads_nothing_holds_up_nobody_and_is_let_go(gateway):
    """50 MB wait for a client that never reads: the host keeps none of it, others get their answers."""
    gateway.deploy_node("big", "exports.handler = async () => 'x'.repeat(50 << 20);", memoryMb=512)
    text = INVOKE.replace(b"echo", b"big") + HOST + b"Content-Length: 2\r\n\r\n{}"
    sock = gateway.raw()
    try:
        sock.sendall(text)
        wait_for(
            lambda: gateway.function("big")["versions"][0]["inFlight"] == 1, "the answer begins"
        )
        assert len(gateway.invoke("big").body) == (50 << 20) + 2
        wait_for(
            lambda: gateway.function("big")["versions"][0]["inFlight"] == 0,
            "the client that reads nothing is given up",
        )
        assert len(read_all(sock)) < 50 << 20
    finally:
        sock.close()


def test_a_client_that_leaves_has_its_request_cancelled(gateway):
    source = (
        "let left = 0;\nexports.handler = async (event, context) => {\n"
        "  if (event.count) return left;\n"
        "  await new Promise((ok) => context.signal.addEventListener('abort', ok));\n"
        "  left++;\n};"
    )
    gateway.deploy_node("leave", source)
    with gateway.raw() as sock:
        text = INVOKE.replace(b"echo", b"leave") + HOST + b"Content-Length: 2\r\n\r\n{}"
        sock.sendall(text)
        wait_for(
            lambda: gateway.function("leave")["versions"][0]["inFlight"] == 1, "it is in flight"
        )
    wait_for(
        lambda: gateway.invoke("leave", {"count": 1}).body == b"1", "the handler is told to stop"
    )
