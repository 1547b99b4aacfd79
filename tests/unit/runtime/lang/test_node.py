# SPDX-License-Identifier: Apache-2.0
"""What only Node has: callbacks, response streams, and (req, res) handlers."""

import gzip
import json
import re

import pytest

from driver import FIXTURES, PING, WINDOW

CODE = FIXTURES / "node"


@pytest.fixture
def run(worker):
    def start(handler, interface="event", concurrency=8, code=CODE, **options):
        one = worker("nodejs", code, handler, interface, concurrency, **options)
        assert one.ready, (one.failure, one.output())
        return one

    return start


def test_callbacks_answer(run):
    host = run("handlers.callback")
    assert host.end(host.event({"a": 1})).json() == {"called": {"a": 1}}
    error = host.end(host.event({"fail": True})).error
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", "out of it")


def test_context_succeed_answers(run):
    host = run("handlers.legacy")
    assert host.end(host.event(3)).json() == {"legacy": 3}


def test_a_synchronous_result_and_throw(run):
    host = run("handlers.sync")
    assert host.end(host.event(3)).json() == {"got": 3}
    host = run("handlers.failSync")
    assert host.end(host.event(3)).error["errorType"] == "TypeError"


def test_anything_can_be_thrown(run):
    host = run("handlers.failValue")
    assert host.end(host.event()).error == {"errorType": "string", "errorMessage": "just text", "stackTrace": []}


def test_a_readable_is_streamed(run):
    host = run("handlers.readable")
    assert bytes(host.end(host.event()).body) == b"xy"


def test_a_response_stream_has_its_type(run):
    host = run("handlers.stream")
    call = host.end(host.event({}))
    assert (call.status, call.header("content-type"), bytes(call.body)) == (0, "text/plain", b"first;second")


def test_a_response_stream_with_metadata_over_http(run):
    host = run("handlers.streamHttp")
    call = host.end(host.http())
    assert (call.status, call.header("x-kind"), bytes(call.body)) == (201, "streamed", b"one two")
    assert call.header("set-cookie") == ["a=1", "b=2"]


def test_a_response_stream_with_metadata_as_an_event(run):
    host = run("handlers.streamHttp")
    call = host.end(host.event({}))
    head, body = bytes(call.body).split(b"\0" * 8)
    assert json.loads(head)["statusCode"] == 201 and body == b"one two"
    assert call.header("content-type") == "application/vnd.awslambda.http-integration-response"


def test_a_response_stream_waits_for_its_reader(run):
    host = run("handlers.streamBig", concurrency=1)
    call = host.end(host.event({"size": 100 * 65536}))
    assert call.received == 100 * 65536
    host.send(PING, 0, 0, b"12345678")
    host.wait(lambda: host.pongs and host.logs, "the log line")
    assert host.logs[-1].text == "waits true"


@pytest.fixture
def web(run):
    return run("web.handler", "http")


def test_a_request_is_as_node_gives_it(web):
    headers = [("host", "a.example"), ("x-a", "1"), ("x-a", "2"), ("x-forwarded-for", "1.1.1.1, 10.0.0.7"),
               ("x-forwarded-proto", "https")]
    call = web.end(web.http("GET", "/info?q=1", headers))
    got = call.json()
    assert (got["method"], got["url"], got["version"]) == ("GET", "/info?q=1", "1.1")
    assert got["headers"]["x-a"] == "1, 2" and got["raw"][:4] == ["host", "a.example", "x-a", "1"]
    assert (got["ip"], got["encrypted"]) == ("10.0.0.7", True)
    assert got["request"] and got["response"] and got["trailers"] == {} and got["sent"] is False
    assert call.header("set-cookie") == ["a=1", "b=2"]
    assert call.header("content-length") == str(len(call.body))
    assert call.frames == 1


@pytest.mark.parametrize("path", ["/echo", "/pipe"])
def test_6_mb_go_through_each_way(web, path):
    data = bytes(range(256)) * 24000
    call = web.end(web.http("POST", path, [("content-length", str(len(data)))], data))
    assert (call.status, bytes(call.body) == data) == (200, True)


def test_a_body_without_length_is_announced_as_chunked(web):
    call = web.http("POST", "/echo", [], b"abc", first=1)
    assert bytes(web.end(call).body) == b"abc"
    call = web.http("POST", "/info", [], b"abc", first=0)
    assert web.end(call).json()["headers"]["transfer-encoding"] == "chunked"
    call = web.http("POST", "/info", [], b"abc")
    assert web.end(call).json()["headers"]["content-length"] == "3"


@pytest.mark.parametrize("path,status,first,whole", [("/stream", 200, b"first;", b"first;second"), ("/flush", 203, b"", b"body")])
def test_the_response_begins_when_the_handler_writes(web, path, status, first, whole):
    call = web.http("GET", path)
    web.wait(lambda: call.status is not None, "the head")
    assert (call.status, bytes(call.body), call.ended) == (status, first, False)
    assert bytes(web.end(call).body) == whole


def test_heads(web):
    call = web.end(web.http("HEAD", "/head"))
    assert (call.status, call.body, call.header("x-one"), call.header("x-two")) == (200, b"", "1", "2")
    assert call.header("connection") is None
    assert bytes(web.end(web.http("GET", "/head")).body) == b"with body"
    call = web.end(web.http("GET", "/none"))
    assert (call.status, call.body, call.header("content-length")) == (204, b"", None)
    call = web.end(web.http("GET", "/mixed"))
    assert (call.status, call.header("x-gone"), call.header("x-kept"), call.header("x-new")) == (418, None, "b", "c")
    assert web.end(web.http("GET", "/nowhere")).status == 404


def test_finish_and_close_are_emitted(web):
    call = web.end(web.http("GET", "/events"))
    web.wait(lambda: web.logs, "the log line")
    assert web.logs[0].text == "seen finish,callback,close true true"
    assert bytes(call.body) == b"x"


def test_a_client_that_goes_away_closes_both(web):
    call = web.http("GET", "/hang")
    web.wait(lambda: call.body, "the first bytes")
    web.cancel(call)
    web.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    assert [e.text for e in web.log_of(call)] == ["req aborted", "res closed false"]


def test_a_client_that_goes_away_before_the_response_is_sent_closes_it(web):
    web.auto_credit = False
    call = web.http("GET", "/bigend")
    web.wait(lambda: call.received == WINDOW, "a full window")
    web.cancel(call)
    web.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    assert [e.text for e in web.log_of(call)] == ["closed false"]


@pytest.mark.parametrize("path,kind", [("/throw", "TypeError"), ("/reject", "TypeError"), ("/destroy", "Runtime.StreamDestroyed"),
                                       ("/badheader", "Function.InvalidResponse"),
                                       ("/manyheaders", "Function.InvalidResponse")])
def test_failures_are_errors(web, path, kind):
    assert web.end(web.http("GET", path)).error["errorType"] == kind
    assert web.end(web.http("GET", "/info")).status == 200


def test_write_tells_when_to_wait(web):
    call = web.end(web.http("GET", "/big"))
    assert call.received == 6_000_000
    web.wait(lambda: web.logs, "the log line")
    assert web.logs[0].text == "waits true"


def test_a_file_is_piped(web):
    assert bytes(web.end(web.http("GET", "/file")).body) == (CODE / "web.js").read_bytes()


def test_a_body_that_nobody_reads_holds_nothing_up(web):
    call = web.end(web.http("POST", "/ignore", [], b"z" * 1_000_000))
    assert bytes(call.body) == b"not read"
    assert web.end(web.http("GET", "/info")).status == 200


@pytest.mark.parametrize("name,text", [("server", b"from a server"), ("handled", b"from handle")])
def test_other_kinds_of_application(run, name, text):
    host = run(f"web.{name}", "http")
    assert bytes(host.end(host.http()).body) == text


def test_an_export_that_is_no_application(worker):
    host = worker("nodejs", CODE, "web.none", "http")
    assert host.failure["errorType"] == "Runtime.HandlerNotFound"


@pytest.fixture(params=["express4", "express5"])
def express(run, apps, request):
    return run(f"{request.param}.handler", "http", code=apps)


def test_express_routes_json_and_cookies(express):
    headers = [("host", "a.example"), ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https")]
    call = express.end(express.http("GET", "/hello/world?a=1", headers))
    assert call.json() == {"hello": "world", "q": {"a": "1"}, "ip": "9.9.9.9", "protocol": "https", "host": "a.example"}
    assert call.header("set-cookie").startswith("seen=1") and call.header("x-powered-by") == "Express"
    assert re.match("application/json", call.header("content-type")) and call.header("etag")


def test_express_parses_bodies(express):
    big = json.dumps({"k": "v" * 5_000_000}).encode()
    call = express.end(express.http("POST", "/json", [("content-type", "application/json")], big))
    assert (call.status, call.json()["got"]["k"]) == (201, "v" * 5_000_000)
    call = express.end(express.http("POST", "/form", [("content-type", "application/x-www-form-urlencoded")], b"a=b"))
    assert bytes(call.body) == b"form b"
    call = express.end(express.http("POST", "/json", [("content-type", "application/json")], b"{bad"))
    assert call.status == 500


def test_express_compresses(express):
    call = express.end(express.http("GET", "/hello/x", [("accept-encoding", "gzip")]))
    assert call.header("content-encoding") == "gzip"
    assert json.loads(gzip.decompress(bytes(call.body)))["hello"] == "x"


def test_express_redirects_sends_files_and_handles_errors(express):
    call = express.end(express.http("GET", "/redirect"))
    assert (call.status, call.header("location")) == (302, "/hello/x")
    call = express.end(express.http("GET", "/send"))
    assert (call.status, call.json()["name"]) == (200, "lang-fixtures")
    etag = call.header("etag")
    call = express.end(express.http("GET", "/send", [("if-none-match", etag)]))
    assert (call.status, bytes(call.body)) == (304, b"")
    assert express.end(express.http("HEAD", "/hello/x")).body == b""
    assert express.end(express.http("GET", "/fail")).json() == {"error": "in a route"}
    assert express.end(express.http("GET", "/nowhere")).status == 404
    assert bytes(express.end(express.http("GET", "/files/a/b")).body) == b"/files/a/b"


def test_express_serves_many_at_once(express):
    calls = [express.http("GET", f"/hello/{i}") for i in range(8)]
    express.end(*calls)
    assert [c.json()["hello"] for c in calls] == [str(i) for i in range(8)]


@pytest.mark.parametrize("name", ["handler", "app"])
def test_koa(run, apps, name):
    host = run(f"koa.{name}", "http", code=apps)
    call = host.end(host.http("GET", "/a/b?c=d"))
    assert call.json() == {"path": "/a/b", "query": {"c": "d"}}
    assert call.header("x-koa") == "yes" and call.header("set-cookie").startswith("k=v")
