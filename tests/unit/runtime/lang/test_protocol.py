# SPDX-License-Identifier: Apache-2.0
"""What both runtimes owe the host, whatever the handler."""

import base64
import json
import time

import pytest

from driver import (
    BODY, CANCEL, CREDIT, DRAIN, FIN, FIXTURES, INIT, LOG, PING, REQUEST, WINDOW,
)

CODE = {"nodejs": FIXTURES / "node", "python": FIXTURES / "python"}
RUNTIMES = sorted(CODE)
# The same handlers once as tasks of an event loop, once as threads, once one at a time.
MODES = [("nodejs", "", 1), ("nodejs", "", 16), ("python", "", 1), ("python", "", 16), ("python", "a", 16)]


@pytest.fixture
def run(worker):
    def start(runtime, name, concurrency=1, **options):
        one = worker(runtime, CODE[runtime], f"handlers.{name}", concurrency=concurrency, **options)
        assert one.ready, (one.failure, one.output())
        return one

    return start


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_says_hello_then_ready(run, runtime):
    host = run(runtime, "echo")
    assert host.hello["protocol"] == 1
    assert host.hello["runtime"] == runtime
    assert host.hello["runtimeVersion"].count(".") == 2
    assert 0 < host.ready["initMs"] < 20000


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_an_event_comes_back(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}echo", concurrency)
    for value in (None, 0, "täxt \U0001f600", [1, {"a": None}], {"__proto__": 1}, "x" * 200000):
        call = host.end(host.event(value))
        assert (call.status, call.json()) == (0, value)
    empty = host.end(host.event())
    assert bytes(empty.body) == b"null"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_small_answer_is_one_frame(run, runtime):
    host = run(runtime, "echo")
    assert host.end(host.event({"a": 1})).frames == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_handler_without_a_result_answers_null(run, runtime):
    host = run(runtime, "nothing")
    assert bytes(host.end(host.event({})).body) == b"null"


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_many_requests_in_flight_each_get_their_own_answer(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}echo", max(concurrency, 1))
    for _ in range(5):
        calls = [host.event({"n": i}) for i in range(concurrency)]
        host.end(*calls)
        assert [c.json()["n"] for c in calls] == list(range(concurrency))


@pytest.mark.parametrize("runtime,name", [("nodejs", "wait"), ("python", "wait"), ("python", "await_")])
def test_requests_run_side_by_side(run, runtime, name):
    host = run(runtime, name, 16)
    begin = time.monotonic()
    calls = [host.event({"id": i, "ms": 500}) for i in range(16)]
    host.end(*calls)
    assert [c.json() for c in calls] == list(range(16))
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_a_body_of_6_mb_each_way(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}echo", concurrency)
    text = "0123456789" * 600_000
    call = host.end(host.event(text))
    assert call.json() == text
    assert max(len(call.body), 1) == len(text) + 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_body_may_begin_after_its_head_and_come_in_pieces(run, runtime):
    host = run(runtime, "echo")
    call = host.event({"some": "thing"}, first=0, fin=False)
    host.more(call, b"", fin=True)
    host.end(call)
    assert call.json() == {"some": "thing"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_more_is_sent_than_there_is_credit_for(run, runtime):
    host = run(runtime, "streamBig")
    host.auto_credit = False
    size = 32 * 65536
    call = host.event({"size": size})
    host.wait(lambda: call.received == WINDOW, "a full window")
    host.send(PING, 0, 0, b"12345678")
    host.wait(lambda: host.pongs, "PONG")
    assert call.received == WINDOW and not call.ended
    host.grant(call, 10)
    host.wait(lambda: call.received == WINDOW + 10, "ten bytes more")
    host.auto_credit = True
    host.grant(call, WINDOW)
    host.end(call)
    assert bytes(call.body) == b"".join(bytes([i]) * 65536 for i in range(32))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_slow_reader_stops_only_its_own_stream(run, runtime):
    host = run(runtime, "streamBig", 4)
    host.auto_credit = False
    slow = host.event({"size": 64 * 65536})
    host.wait(lambda: slow.received == WINDOW, "a full window")
    quick = host.end(host.event({"size": 2 * 65536}))
    assert quick.received == 2 * 65536
    host.cancel(slow)
    host.end(slow)
    assert slow.error["errorType"] == "Function.Cancelled"


@pytest.mark.parametrize("runtime,name", [("nodejs", "stream"), ("python", "stream")])
def test_a_streamed_answer_begins_before_the_handler_ends(run, runtime, name):
    host = run(runtime, name)
    call = host.event({"ms": 300})
    host.wait(lambda: call.body, "the first bytes")
    assert (bytes(call.body), call.ended) == (b"first;", False)
    host.end(call)
    assert bytes(call.body) == b"first;second"
    assert call.header("content-type")


@pytest.mark.parametrize("runtime,name", [("nodejs", "iterable"), ("python", "iterable"), ("python", "aiterable")])
@pytest.mark.parametrize("kind", ["event", "http"])
def test_a_returned_iterator_is_streamed(run, runtime, name, kind):
    host = run(runtime, name)
    call = host.end(host.event({}) if kind == "event" else host.http())
    assert bytes(call.body) == b"abc"
    assert call.status == (0 if kind == "event" else 200)


@pytest.mark.parametrize("runtime,name", [("nodejs", "streamFails"), ("python", "streamFails")])
def test_a_failure_in_the_middle_of_a_stream_ends_it_with_an_error(run, runtime, name):
    host = run(runtime, name)
    call = host.end(host.event({}))
    assert bytes(call.body) == b"some"
    assert call.error["errorMessage"] == "midway"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_context_tells_all(run, runtime):
    host = run(runtime, "context", env={"OWN": "mine"})
    client = base64.b64encode(json.dumps({"custom": {"a": "b"}}).encode()).decode()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    deadline = int(time.time() * 1000) + 5000
    call = host.event({}, request_id="abc-1", client_context=client, trace=trace, deadline_ms=deadline)
    got = host.end(call).json()
    assert got["awsRequestId"] == got["requestId"] == "abc-1"
    assert (got["functionName"], got["functionVersion"], got["memoryLimitInMB"]) == ("fn", "7", "256")
    assert "fn" in got["invokedFunctionArn"] and "fn" in got["logGroupName"]
    assert got["clientContext"] == {"custom": {"a": "b"}}
    assert got["identity"] is True and got["traceparent"] == trace
    assert got["deadlineMs"] == deadline and 0 < got["remaining"] <= 5000
    assert got["env"] == {"name": "fn", "own": "mine", "root": str(CODE[runtime]), "channel": None}
    assert got["cwd"] == str(CODE[runtime])
    assert host.end(host.event({}, client_context="bm90IGpzb24=")).json().get("clientContext") is None


def test_python_runs_a_lone_handler_on_the_main_thread(run):
    host = run("python", "context")
    assert host.end(host.event({})).json()["main"] is True


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_what_a_handler_throws_is_an_error_with_its_name_and_place(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}fail", concurrency)
    error = host.end(host.event({})).error
    assert (error["errorType"], error["errorMessage"]) == ("CardError", "declined")
    assert any("handlers." in line for line in error["stackTrace"])
    assert not any("nestlet_worker" in line or "runtime/node" in line for line in error["stackTrace"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_error_is_bounded(run, runtime):
    host = run(runtime, "failHuge")
    assert len(json.dumps(host.end(host.event({})).error)) < 80000


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["notJson", "circular"])
def test_a_result_that_is_no_json_is_a_marshal_error(run, runtime, name):
    host = run(runtime, name)
    assert host.end(host.event({})).error["errorType"] == "Runtime.MarshalError"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_event_that_is_no_json_is_refused(run, runtime, concurrency):
    host = run(runtime, "echo", concurrency)
    assert host.end(host.call(1, b"{oops")).error["errorType"] == "Runtime.UnmarshalError"
    assert host.end(host.event(1)).json() == 1


@pytest.mark.parametrize("runtime,file,kind,words", [
    ("nodejs", "nothere.handler", "Runtime.ImportModuleError", ["nothere.js", ".mjs"]),
    ("nodejs", "handlers.nothere", "Runtime.HandlerNotFound", ["handlers.js", "nothere", "echo"]),
    ("nodejs", "handlers.notFunction", "Runtime.HandlerNotFound", ["number"]),
    ("nodejs", "syntax.handler", "Runtime.UserCodeSyntaxError", ["syntax.js"]),
    ("nodejs", "missing.handler", "Runtime.ImportModuleError", ["no-such-package"]),
    ("nodejs", "boom.handler", "RangeError", ["thrown at load"]),
    ("nodejs", "late.handler", "Error", ["while loading"]),
    ("nodejs", "../x.handler", "Runtime.MalformedHandlerName", ["../x.handler"]),
    ("nodejs", "handlers", "Runtime.MalformedHandlerName", ["handlers"]),
    ("python", "nothere.handler", "Runtime.ImportModuleError", ["nothere.py"]),
    ("python", "handlers.nothere", "Runtime.HandlerNotFound", ["handlers.py", "nothere", "echo"]),
    ("python", "handlers.notFunction", "Runtime.HandlerNotFound", ["int"]),
    ("python", "syntax.handler", "Runtime.UserCodeSyntaxError", ["syntax.py"]),
    ("python", "missing.handler", "Runtime.ImportModuleError", ["no_such_package"]),
    ("python", "boom.handler", "KeyError", ["thrown at load"]),
    ("python", "exits.handler", "Runtime.ExitError", ["3"]),
    ("python", "handlers", "Runtime.MalformedHandlerName", ["handlers"]),
])
def test_a_handler_that_does_not_load_is_named(worker, runtime, file, kind, words):
    host = worker(runtime, CODE[runtime], file)
    assert host.ready is None
    assert host.failure["errorType"] == kind
    for word in words:
        assert word in host.failure["errorMessage"]
    assert host.exit_code() == 1
    assert any(kind in entry.text for entry in host.logs)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_unknown_interface_fails_the_start(worker, runtime):
    host = worker(runtime, CODE[runtime], "handlers.echo", interface="carrier-pigeon")
    assert "carrier-pigeon" in host.failure["errorMessage"]
    assert host.exit_code() == 1


@pytest.mark.parametrize("runtime,file", [("nodejs", "src/api/app.handler"), ("nodejs", "handlers.inner.deep.handler"),
                                          ("nodejs", "module.handler"), ("nodejs", "esm/index.handler"),
                                          ("nodejs", "esm/index.other"), ("nodejs", "esm.handler"),
                                          ("python", "pkg/mod.handler"), ("python", "pkg.mod.handler")])
def test_handlers_are_found_where_they_are(worker, runtime, file):
    host = worker(runtime, CODE[runtime], file)
    assert host.ready, host.failure
    assert host.end(host.event(1)).error is None


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_ping_is_answered(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}echo", concurrency)
    host.send(PING, 0, 0, b"abcdefgh")
    host.wait(lambda: host.pongs == [b"abcdefgh"], "PONG")


@pytest.mark.parametrize("runtime,name", [("nodejs", "wait"), ("python", "wait"), ("python", "block")])
def test_ping_is_answered_while_a_handler_runs(run, runtime, name):
    host = run(runtime, name)
    call = host.event({"id": 1, "ms": 1500})
    host.send(PING, 0, 0, b"abcdefgh")
    host.wait(lambda: host.pongs, "PONG")
    assert not call.ended
    host.end(call)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cancel_reaches_the_handler(run, runtime):
    host = run(runtime, "untilAborted", 4)
    call = host.event({})
    other = host.event({})
    host.wait(lambda: host.log_of(call), "the handler's first line")
    host.cancel(call)
    host.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    assert [e.text for e in host.log_of(call)] == ["waits", "aborted"]
    assert not other.ended


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cancel_that_comes_with_the_request_ends_it(run, runtime):
    host = run(runtime, "untilAborted", 4)
    call = host.event({})
    host.cancel(call)
    host.end(call)
    assert call.error["errorType"] == "Function.Cancelled"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_cancelled_slot_is_free_only_when_the_handler_is_done(run, runtime):
    host = run(runtime, "wait")
    call = host.event({"id": 1, "ms": 400})
    host.cancel(call)
    begin = time.monotonic()
    host.end(call)
    assert time.monotonic() - begin > 0.2
    assert host.end(host.event({"id": 2, "ms": 0})).json() == 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_request_cancelled_before_its_body_is_whole_ends(run, runtime):
    host = run(runtime, "echo")
    call = host.event({"a": 1}, first=0, fin=False)
    call.unsent = b""
    host.cancel(call)
    host.end(call)
    assert call.error["errorType"] == "Function.Cancelled"
    assert host.end(host.event(5)).json() == 5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_frames_of_an_ended_stream_are_ignored(run, runtime):
    host = run(runtime, "echo")
    call = host.end(host.event(1))
    host.send(CANCEL, 0, call.number)
    host.send(CREDIT, 0, call.number, b"\1\0\0\0")
    host.send(BODY, FIN, call.number, b"late")
    assert host.end(host.event(2)).json() == 2


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_drain_when_idle_exits_at_once(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}echo", concurrency)
    host.end(host.event(1))
    host.send(DRAIN, 0, 0)
    assert host.exit_code() == 0


@pytest.mark.parametrize("runtime,name", [("nodejs", "wait"), ("python", "wait"), ("python", "await_")])
def test_drain_lets_what_is_in_flight_finish(run, runtime, name):
    host = run(runtime, name, 4)
    calls = [host.event({"id": i, "ms": 300}) for i in range(4)]
    host.send(DRAIN, 0, 0)
    host.end(*calls)
    assert [c.json() for c in calls] == [0, 1, 2, 3]
    assert host.exit_code() == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_worker_exits_when_the_host_is_gone(run, runtime):
    host = run(runtime, "wait")
    host.event({"id": 1, "ms": 60000})
    host.pump(0)
    host.sock.close()
    host.closed = True
    assert host.process.wait(10) == 1


BAD = {
    "an unknown type": (77, 0, 0, b""),
    "a worker's type": (3, 0, 0, b"{}"),
    "a LOG": (LOG, 0, 0, b"\1\0\0\0x"),
    "an unknown flag": (PING, 2, 0, b"12345678"),
    "a short PING": (PING, 0, 0, b"1"),
    "a second INIT": (INIT, 0, 0, b"{}"),
    "a REQUEST of stream 0": (REQUEST, FIN, 0, bytes(16)),
    "a short head": (REQUEST, FIN, 9, b"\1"),
    "a head without a request id": (REQUEST, FIN, 9, b"\1" + bytes(15)),
    "a field beyond the head": (REQUEST, FIN, 9, b"\1\0\1\0\x08\0\0\0" + bytes(8) + b"\1\0\0\0\xff\0\0\0"),
    "a head beyond the frame": (REQUEST, FIN, 9, b"\1\0\1\0\xff\xff\xff\xff" + bytes(8)),
    "a large BODY": (BODY, FIN, 9, bytes(65537)),
    "a short CREDIT": (CREDIT, 0, 9, b"\1"),
    "a CANCEL of stream 0": (CANCEL, 0, 0, b""),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_frame_ends_the_worker(run, runtime, name):
    host = run(runtime, "echo")
    host.send(*BAD[name])
    assert host.exit_code() == 1
    assert "nestlet: worker exits: " in host.output()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_frame_that_is_too_long_ends_the_worker(run, runtime):
    host = run(runtime, "echo")
    host.send(PING, 0, 0, b"", length=(1 << 20) + 1)
    assert host.exit_code() == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_stream_that_is_open_can_not_be_opened_again(run, runtime):
    host = run(runtime, "wait", 2)
    host.event({"id": 1, "ms": 5000})
    host._next = 0
    host.event({"id": 1, "ms": 5000})
    assert host.exit_code() == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_body_after_the_end_of_the_request_ends_the_worker(run, runtime):
    host = run(runtime, "wait")
    call = host.event({"id": 1, "ms": 5000})
    host.send(BODY, FIN, call.number, b"x")
    assert host.exit_code() == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_handler_that_exits_takes_the_worker_along_but_not_its_log(run, runtime):
    host = run(runtime, "exit")
    call = host.event({"code": 9})
    assert host.exit_code() == 9
    assert not call.ended
    assert [e.text for e in host.logs] == ["going"]


@pytest.mark.parametrize("name,kind", [("uncaught", "Error"), ("rejection", "Runtime.UnhandledPromiseRejection")])
def test_an_error_that_nobody_catches_answers_what_is_open_and_ends_the_worker(run, name, kind):
    host = run("nodejs", name, 4)
    calls = [host.event({}) for _ in range(2)]
    host.end(*calls)
    assert {c.error["errorType"] for c in calls} == {kind}
    assert "nobody" in calls[0].error["errorMessage"]
    assert host.exit_code() == 1
    assert any("nobody" in e.text and e.level == 5 for e in host.logs)


@pytest.mark.parametrize("runtime,kind,concurrency", MODES)
def test_log_lines_carry_the_request_that_wrote_them(run, runtime, kind, concurrency):
    host = run(runtime, f"{kind}logs", concurrency)
    calls = [host.event({"id": f"r{i}", "ms": 30}) for i in range(concurrency)]
    host.end(*calls)
    for i, call in enumerate(calls):
        lines = [(e.source, e.level, e.text) for e in host.log_of(call)]
        info = 3 if runtime == "nodejs" else 0
        error = 5 if runtime == "nodejs" else 0
        debug = 1 if runtime == "nodejs" else 2
        assert lines == [
            (1, info, f"r{i} begins"), (2, error, f"r{i} error"), (2, 4, f"r{i} warn"),
            (debug, 2, f"r{i} debug"), (1, 0, f"r{i} partial"), (1, 0, f"unfinished r{i}"),
        ]
    assert host.log_of(None) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_line_of_any_length_arrives_in_parts(run, runtime):
    host = run(runtime, "longLine")
    call = host.end(host.event({"length": 100_001}))
    lines = host.log_of(call)
    assert "".join(e.text for e in lines) == "é" * 100_001
    assert len(lines) > 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_log_flood_loses_nothing_and_does_not_grow_the_worker(run, runtime):
    host = run(runtime, "flood")
    lines = 300_000
    call = host.end(host.event({"lines": lines}), timeout=60)
    assert sum(e.text.count("\n") + 1 for e in host.logs) == lines
    assert call.json()["rss"] < 200 << 20


def test_a_log_flood_that_nobody_reads_is_dropped_and_counted(run):
    host = run("nodejs", "flood")
    lines = 100_000
    call = host.event({"lines": lines})
    host.pump(0)
    time.sleep(3)  # The host reads nothing for longer than the worker waits.
    host.end(call, timeout=60)
    host.end(host.event({"lines": 1}))
    got = sum(1 for e in host.logs if e.text == "x" * 99)
    told = [int(e.text.split()[0]) for e in host.logs if "log lines lost" in e.text]
    assert got < lines and got + sum(told) == lines + 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_event_handler_gets_an_http_request_as_api_gateway_sends_it(run, runtime):
    host = run(runtime, "apigw")
    headers = [("host", "shop.example"), ("cookie", "a=1; b=2"), ("x-many", "1"), ("x-many", "2"),
               ("content-type", "application/json"), ("user-agent", "test/1"),
               ("x-forwarded-for", "6.6.6.6, 10.0.0.9")]
    call = host.http("POST", "/a%20b/c?x=1&x=2&y=%C3%A9", headers, b'{"k":1}', request_id="rid")
    host.end(call)
    assert call.status == 202
    assert call.header("x-a") == "b" and call.header("connection") is None
    assert call.header("set-cookie") == ["c=1", "d=2"]
    event = call.json()
    assert (event["version"], event["routeKey"]) == ("2.0", "$default")
    assert (event["rawPath"], event["rawQueryString"]) == ("/a%20b/c", "x=1&x=2&y=%C3%A9")
    assert event["queryStringParameters"] == {"x": "1,2", "y": "é"}
    assert event["cookies"] == ["a=1", "b=2"] and "cookie" not in event["headers"]
    assert event["headers"]["x-many"] == "1,2"
    assert (event["body"], event["isBase64Encoded"]) == ('{"k":1}', False)
    context = event["requestContext"]
    assert context["http"] == {"method": "POST", "path": "/a%20b/c", "protocol": "HTTP/1.1",
                               "sourceIp": "10.0.0.9", "userAgent": "test/1"}
    assert (context["requestId"], context["stage"]) == ("rid", "$default")
    assert abs(context["timeEpoch"] - time.time() * 1000) < 60000
    assert context["domainName"] == "shop.example"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_binary_body_travels_as_base64_both_ways(run, runtime):
    host = run(runtime, "base64")
    data = bytes(range(256)) * 10
    call = host.end(host.http("POST", "/", [("content-type", "image/png")], data))
    assert (call.status, bytes(call.body)) == (200, data)
    assert call.header("content-type") == "image/png"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_plain_result_is_sent_as_json(run, runtime):
    host = run(runtime, "plain")
    call = host.end(host.http())
    assert (call.status, call.header("content-type"), call.json()) == (200, "application/json", [1, 2])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_bad_status_is_an_invalid_response(run, runtime):
    host = run(runtime, "badStatus")
    call = host.end(host.http())
    assert call.error["errorType"] == "Function.InvalidResponse"
    assert "oops" in call.error["errorMessage"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_children_of_a_handler_do_not_get_the_channel(run, runtime):
    host = run(runtime, "children")
    lines = [line.split()[-3:] for line in host.end(host.event()).json().splitlines() if "->" in line]
    inherited = [target for number, _, target in lines if int(number) > 2]
    assert inherited and not any("socket" in target for target in inherited)
