# SPDX-License-Identifier: Apache-2.0
"""What only Python has: WSGI and ASGI applications."""

import time

import pytest

from driver import DRAIN, FIXTURES

CODE = FIXTURES / "python"


@pytest.fixture
def wsgi(worker):
    one = worker("python", CODE, "wsgiapp.app", "wsgi", 4)
    assert one.ready, (one.failure, one.output())
    return one


@pytest.fixture
def asgi(worker):
    one = worker("python", CODE, "asgiapp.app", "asgi", 16)
    assert one.ready, (one.failure, one.output())
    return one


HEADERS = [("host", "a.example:8080"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2"),
           ("content-type", "text/plain"), ("x_a", "spoof"), ("x-forwarded-for", "1.1.1.1, 10.0.0.7"),
           ("x-forwarded-proto", "https")]


def test_the_wsgi_environ(wsgi):
    call = wsgi.end(wsgi.http("POST", "/caf%C3%A9?q=%20", HEADERS, b"hi"))
    got = call.json()
    environ = got["environ"]
    assert got["body"] == "hi"
    expected = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/cafÃ©", "QUERY_STRING": "q=%20",
        "SERVER_NAME": "a.example", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.7", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "2",
        "HTTP_X_A": "1,2", "HTTP_COOKIE": "a=1; b=2", "wsgi.url_scheme": "https", "wsgi.version": [1, 0],
        "wsgi.multithread": True, "wsgi.run_once": False,
    }
    assert {k: environ.get(k) for k in expected} == expected
    assert call.header("set-cookie") == ["a=1", "b=2"] and call.header("connection") is None
    assert call.frames == 1


def test_wsgi_passes_the_standard_validator(wsgi):
    call = wsgi.end(wsgi.http("GET", "/valid", [("host", "a")]))
    assert (call.status, bytes(call.body)) == (200, b"ok"), wsgi.output()


def test_wsgi_6_mb_go_through_each_way(wsgi):
    data = bytes(range(256)) * 24000
    call = wsgi.end(wsgi.http("POST", "/echo", [("content-length", str(len(data)))], data))
    assert (call.status, bytes(call.body) == data) == (200, True)


def test_wsgi_input_reads_lines(wsgi):
    call = wsgi.end(wsgi.http("POST", "/lines", [], b"one\ntwo22\nthree\nend", first=6))
    assert call.json() == ["one\n", "two", ["22\n", "three\n", "end"]]


def test_wsgi_streams(wsgi):
    call = wsgi.http("GET", "/stream")
    wsgi.wait(lambda: call.body, "the first bytes")
    assert (bytes(call.body), call.ended) == (b"first;", False)
    assert bytes(wsgi.end(call).body) == b"first;second"


def test_wsgi_write_and_file_wrapper(wsgi):
    call = wsgi.end(wsgi.http("GET", "/writes"))
    assert (call.status, bytes(call.body)) == (201, b"abc")
    call = wsgi.end(wsgi.http("GET", "/wrapped"))
    assert bytes(call.body) == b"w" * 200000
    wsgi.wait(lambda: wsgi.logs, "the log line")
    assert wsgi.logs[0].text == "file closed"


def test_wsgi_start_response_again(wsgi):
    call = wsgi.end(wsgi.http("GET", "/replaced"))
    assert (call.status, call.header("x-replaced"), bytes(call.body)) == (500, "1", b"failed")
    assert wsgi.end(wsgi.http("GET", "/twice")).error["errorType"] == "AssertionError"


@pytest.mark.parametrize("path,kind", [("/fails", "ValueError"), ("/never", "Function.InvalidResponse"),
                                       ("/manyheaders", "Function.InvalidResponse"),
                                       ("/badheader", "Function.InvalidResponse")])
def test_wsgi_failures(wsgi, path, kind):
    assert wsgi.end(wsgi.http("GET", path)).error["errorType"] == kind
    assert wsgi.end(wsgi.http("GET", "/valid", [("host", "a")])).status == 200


def test_wsgi_cancelled_iterables_are_closed(wsgi):
    call = wsgi.http("GET", "/endless")
    wsgi.wait(lambda: call.received > 500_000, "some of the body")
    wsgi.cancel(call)
    wsgi.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    wsgi.wait(lambda: wsgi.logs, "the log line")
    assert wsgi.logs[0].text == "iterable closed"


def test_the_asgi_scope(asgi):
    call = asgi.end(asgi.http("PUT", "/info?q=%20", HEADERS, b""))
    got = call.json()
    assert got["type"] == "http" and got["asgi"]["version"] == "3.0" and got["method"] == "PUT"
    assert (got["path"], got["raw_path"], got["query_string"]) == ("/info", "/info", "q=%20")
    assert (got["scheme"], got["client"], got["server"]) == ("https", ["10.0.0.7", 0], ["a.example", 8080])
    assert got["headers"] == [list(h) for h in HEADERS]
    assert got["state"] == {"db": "open"}
    assert call.header("x-a") == "1" and call.header("set-cookie") == ["a=1", "b=2"]
    assert call.frames == 1


def test_asgi_6_mb_go_through_each_way(asgi):
    data = bytes(range(256)) * 24000
    call = asgi.end(asgi.http("POST", "/echo", [("content-length", str(len(data)))], data))
    assert (call.status, bytes(call.body) == data) == (200, True)


def test_asgi_streams_and_runs_many_at_once(asgi):
    begin = time.monotonic()
    calls = [asgi.http("GET", "/stream") for _ in range(16)]
    asgi.wait(lambda: calls[0].body, "the first bytes")
    assert bytes(calls[0].body) == b"first;" and not calls[0].ended
    asgi.end(*calls)
    assert {bytes(c.body) for c in calls} == {b"first;second"}
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("path,text", [("/disconnect", "got http.disconnect"), ("/stubborn", "task cancelled")])
def test_asgi_cancel(asgi, path, text):
    call = asgi.http("GET", path)
    asgi.wait(lambda: asgi.logs, "the log line")
    asgi.cancel(call)
    asgi.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    assert [e.text for e in asgi.log_of(call)] == ["waits", text]


@pytest.mark.parametrize("path,kind", [("/fails", "ValueError"), ("/incomplete", "Function.InvalidResponse"),
                                       ("/late", "ValueError")])
def test_asgi_failures(asgi, path, kind):
    call = asgi.end(asgi.http("GET", path))
    assert call.error["errorType"] == kind
    assert bytes(call.body) == (b"part" if path == "/late" else b"")
    assert asgi.end(asgi.http("GET", "/stream")).status == 200


def test_asgi_shuts_down(asgi):
    asgi.send(DRAIN, 0, 0)
    assert asgi.exit_code() == 0
    assert [e.text for e in asgi.logs] == ["shut down"]


def test_asgi_without_lifespan(worker):
    host = worker("python", CODE, "asgiapp.plain", "asgi", 2)
    assert bytes(host.end(host.http()).body) == b"no lifespan"
    host.send(DRAIN, 0, 0)
    assert host.exit_code() == 0


def test_asgi_startup_that_fails(worker):
    host = worker("python", CODE, "asgiapp.broken", "asgi", 2)
    assert host.failure["errorType"] == "Runtime.StartupFailed"
    assert "no database" in host.failure["errorMessage"]
    assert host.exit_code() == 1
