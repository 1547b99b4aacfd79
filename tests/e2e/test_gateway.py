# SPDX-License-Identifier: Apache-2.0
"""The Invoke API: what a caller by name sends, what the handler sees, and what comes back."""

import base64
import json
import re
import threading
import time
from urllib.parse import quote

import pytest

from beacon import Beacon
from host import wait_for
from neighbour import assert_refused
from wire import Wire, invocation, request

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

ECHO = """
exports.handler = async (event, context) => ({
    event, id: context.awsRequestId, name: context.functionName, version: context.functionVersion,
    memory: context.memoryLimitInMB, left: context.getRemainingTimeInMillis(),
    deadline: context.deadlineMs, client: context.clientContext ?? null,
    trace: context.traceparent ?? null, arn: context.invokedFunctionArn });
"""
PYTHON_ECHO = """
def handler(event, context):
    client = context.client_context
    return {
        "event": event, "id": context.aws_request_id, "name": context.function_name,
        "version": context.function_version, "memory": context.memory_limit_in_mb,
        "left": context.get_remaining_time_in_millis(), "deadline": context.deadline_ms,
        "client": {"custom": client.custom} if client else None,
        "trace": context.traceparent or None, "arn": context.invoked_function_arn,
    }
"""
LANGUAGES = ["node", "python"]


def deploy_echo(host, language="node", **spec):
    if language == "node":
        host.deploy_node("echo", ECHO, **spec)
    else:
        host.deploy_python("echo", PYTHON_ECHO, **spec)


# ---- RequestResponse ----


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_handler_sees_event_and_context_and_its_result_is_the_answer(host, language):
    deploy_echo(host, language, memoryMb=200, timeoutMs=5000, version="blue")
    client = base64.b64encode(json.dumps({"custom": {"a": "ä"}}).encode()).decode()
    before = time.time() * 1000
    answer = host.invoke(
        "echo",
        {"n": [1, None, "ü"]},
        {"X-Request-Id": "call-1", "X-Amz-Client-Context": client, "traceparent": TRACE},
    )
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-amz-executed-version"] == "blue"
    assert answer.headers["x-request-id"] == answer.headers["x-amzn-requestid"] == "call-1"
    assert "x-amz-function-error" not in answer.headers and "date" in answer.headers
    seen = answer.json()
    deadline, left = seen.pop("deadline"), seen.pop("left")
    assert seen == {
        "event": {"n": [1, None, "ü"]},
        "id": "call-1",
        "name": "echo",
        "version": "blue",
        "memory": "200",
        "client": {"custom": {"a": "ä"}},
        "trace": TRACE,
        "arn": "arn:nestlet:function:echo:blue",
    }
    assert before < deadline <= time.time() * 1000 + 5000 and 0 < left <= 5000


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_headers_the_context_has_none_and_an_empty_body_is_null(host, language):
    deploy_echo(host, language)
    answer = host.request("POST", invocation("echo"))
    seen = answer.json()
    assert (seen["event"], seen["client"], seen["trace"]) == (None, None, None), answer
    assert seen["version"] == "1"


def test_the_request_id_is_honoured_or_minted_and_is_the_same_everywhere(host):
    deploy_echo(host)
    assert host.invoke("echo", {}, {"X-Amzn-RequestId": "aws-1"}).json()["id"] == "aws-1"
    both = {"X-Amzn-RequestId": "aws-1", "X-Request-Id": "mine-1"}
    assert host.invoke("echo", {}, both).json()["id"] == "mine-1"
    assert host.invoke("echo", {}, {"X-Request-Id": "x" * 128}).json()["id"] == "x" * 128
    for unfit in ["x" * 129, "two words", "umläut", ""]:
        answer = host.invoke("echo", {}, {"X-Request-Id": unfit.encode().decode("latin-1")})
        assert UUID.fullmatch(answer.json()["id"]), answer
        assert answer.headers["x-request-id"] == answer.json()["id"]
    minted = {host.invoke("echo").json()["id"] for _ in range(20)}
    assert len(minted) == 20


def test_the_request_id_is_on_errors_too(host):
    headers = {"X-Request-Id": "lost-1"}
    answer = host.invoke("nobody", {}, headers)
    body = assert_refused(answer, 404, "Function.NotFound", "nobody")
    assert body["requestId"] == "lost-1" and body["component"] == "gateway"
    assert body["version"] is None
    host.deploy_node("bad", "exports.handler = async () => { throw new Error('no'); };")
    assert host.invoke("bad", {}, headers).headers["x-request-id"] == "lost-1"


@pytest.mark.parametrize(
    "language,source",
    [
        ("node", "exports.handler = async () => { throw new TypeError('not so'); };"),
        ("node", "exports.handler = (e, c, done) => done(new TypeError('not so'));"),
        ("python", "def handler(event, context):\n    raise TypeError('not so')"),
        ("python", "async def handler(event, context):\n    raise TypeError('not so')"),
    ],
)
def test_a_handlers_error_is_200_marked_and_told_as_it_was_thrown(host, language, source):
    (host.deploy_node if language == "node" else host.deploy_python)("bad", source)
    answer = host.invoke("bad")
    assert answer.status == 200 and answer.headers["x-amz-function-error"] == "Unhandled", answer
    assert answer.headers["x-amz-executed-version"] == "1"
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (body["errorType"], body["errorMessage"]) == ("TypeError", "not so")
    assert set(body) == {"errorType", "errorMessage", "stackTrace"}
    text = "\n".join(body["stackTrace"])
    assert "handler" in text and "/runtime/" not in text, text


def test_callback_and_promise_results_of_every_json_type_come_back_as_they_are(host):
    host.deploy_node("same", "exports.handler = (event, context, done) => done(null, event);")
    for value in [None, True, 0, -1.5, "", "text", [], [[]], {}, {"a": {"b": [1]}}]:
        answer = host.request("POST", invocation("same"), json.dumps(value))
        assert (answer.status, answer.json()) == (200, value), answer


# ---- the deadline ----


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_callers_deadline_shortens_the_functions_own(host, language):
    deploy_echo(host, language, timeoutMs=5000)
    host.invoke("echo")
    now = int(time.time() * 1000)
    seen = host.invoke("echo", {}, {"X-Nestlet-Deadline-Ms": str(now + 3000)}).json()
    assert now + 2900 <= seen["deadline"] <= now + 3000 and seen["left"] <= 3000, seen
    seen = host.invoke("echo", {}, {"X-Nestlet-Deadline-Ms": str(now + 900000)}).json()
    assert seen["left"] <= 5000, seen
    for wrong in ["soon", "-1", "1.5"]:
        answer = host.invoke("echo", {}, {"X-Nestlet-Deadline-Ms": wrong})
        assert_refused(answer, 400, "Request.Invalid")


def test_a_deadline_that_passes_is_504_and_the_handler_is_told(host):
    with Beacon() as beacon:
        host.deploy_node(
            "slow",
            beacon.node()
            + "exports.handler = (event, context) => event.ok ? 'well' : new Promise((_, no) =>"
            "  context.signal.addEventListener('abort', () => { tell('aborted'); no(1); }));",
        )
        assert host.invoke("slow", {"ok": 1}).body == b'"well"'
        workers = host.workers()
        deadline = str(int(time.time() * 1000) + 300)
        answer = host.invoke("slow", {}, {"X-Nestlet-Deadline-Ms": deadline})
        assert_refused(answer, 504, "Function.Timeout", "slow", "1")
        beacon.wait_told("aborted")
        assert host.invoke("slow", {"ok": 1}).body == b'"well"'
        assert [w["id"] for w in host.workers()] == [w["id"] for w in workers]


# ---- Event and DryRun ----


def test_an_event_call_is_202_at_once_and_really_runs(host):
    with Beacon() as beacon:
        host.deploy_node(
            "later",
            beacon.node()
            + "exports.handler = async (event) => { await meet(event.n); tell('end'); };",
        )
        answer = host.invoke(
            "later", {"n": "x1"}, {"X-Amz-Invocation-Type": "Event", "X-Request-Id": "ev-1"}
        )
        assert (answer.status, answer.body) == (202, b""), answer
        assert answer.headers["x-request-id"] == "ev-1"
        beacon.wait(1)  # the caller has its answer, and has gone; the handler runs on
        assert beacon.release() == ["x1"]
        beacon.wait_told("end")


def test_an_event_call_that_fails_is_counted_and_logged_but_not_told(host):
    host.deploy_node("bad", "exports.handler = async () => { throw new Error('in vain'); };")
    answer = host.invoke("bad", {}, {"X-Amz-Invocation-Type": "Event", "X-Request-Id": "ev-2"})
    assert (answer.status, answer.body) == (202, b""), answer
    wait_for(lambda: host.function("bad")["versions"][0]["failedTotal"] == 1, "it is counted")
    wait_for(lambda: "ev-2" in host.log(), "the host's log tells of it")
    gone = host.invoke("gone", {}, {"X-Amz-Invocation-Type": "Event"})
    assert_refused(gone, 404, "Function.NotFound", "gone")


def test_a_dry_run_checks_the_call_and_runs_nothing(host):
    deploy_echo(host)
    headers = {"X-Amz-Invocation-Type": "DryRun"}
    answer = host.invoke("echo", {}, headers)
    assert (answer.status, answer.body) == (204, b""), answer
    assert_refused(host.invoke("gone", {}, headers), 404, "Function.NotFound", "gone")
    assert_refused(host.invoke("echo:7", {}, headers), 404, "Function.NotFound", "echo")
    function = host.function("echo")
    assert function["versions"][0]["requestsTotal"] == 0 and not function["workers"]


def test_a_header_value_that_is_none_of_the_documented_is_400_and_named(host):
    deploy_echo(host)
    for name, value in [
        ("x-amz-invocation-type", "Sometimes"),
        ("x-amz-log-type", "Head"),
        ("x-amz-client-context", "not base64!"),
    ]:
        answer = host.invoke("echo", {}, {name: value})
        assert_refused(answer, 400, "Request.Invalid", contains=name)
    assert not host.workers()


# ---- Log-Type ----


def test_log_type_tail_returns_the_last_4_kib_of_this_request_alone(host):
    with Beacon() as beacon:
        host.deploy_node(
            "talk",
            beacon.node() + "exports.handler = async (event) => {"
            "  console.log(`begin ${event.n}`); await meet(event.n);"
            "  for (let i = 0; i < (event.lines ?? 1); i++) console.log(`${event.n} line ${i}`);"
            "  return event.n; };",
            concurrency=4,
        )
        tails = {}

        def call(n, lines):
            answer = host.invoke("talk", {"n": n, "lines": lines}, {"X-Amz-Log-Type": "Tail"})
            assert answer.json() == n
            tails[n] = base64.b64decode(answer.headers["x-amz-log-result"]).decode()

        threads = [
            threading.Thread(target=call, args=args) for args in [("a", 1), ("b", 2), ("c", 1000)]
        ]
        for thread in threads:
            thread.start()
        beacon.wait(3)
        beacon.open()
        for thread in threads:
            thread.join(30)
        assert tails["a"].splitlines() == ["begin a", "a line 0"]
        assert tails["b"].splitlines() == ["begin b", "b line 0", "b line 1"]
        assert 3500 < len(tails["c"]) <= 4096 and tails["c"].endswith("c line 999\n"), tails["c"]
        for value in [{}, {"X-Amz-Log-Type": "None"}]:
            assert "x-amz-log-result" not in host.invoke("talk", {"n": "d"}, value).headers


def test_log_type_tail_comes_with_an_error_too(host):
    host.deploy_python(
        "bad", "def handler(event, context):\n    print('so far')\n    raise ValueError('no')"
    )
    answer = host.invoke("bad", {}, {"X-Amz-Log-Type": "Tail"})
    assert answer.headers["x-amz-function-error"] == "Unhandled"
    assert "so far" in base64.b64decode(answer.headers["x-amz-log-result"]).decode()


# ---- names and qualifiers ----


def test_a_version_is_called_by_its_qualifier_in_every_form(host):
    for version in ["1", "two.beta"]:
        deploy_echo(host, version=version)
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:echo"
    forms = {
        "echo": "two.beta",
        "echo:$LATEST": "two.beta",
        "echo:1": "1",
        "echo%3A1": "1",
        "123456789012:function:echo": "two.beta",
        "123456789012:function:echo:1": "1",
        arn: "two.beta",
        f"{arn}:1": "1",
        quote(f"{arn}:1", safe=""): "1",
        "echo:two.beta": "two.beta",
    }
    for form, version in forms.items():
        answer = host.invoke(form)
        assert answer.status == 200, (form, answer)
        assert answer.headers["x-amz-executed-version"] == answer.json()["version"] == version
    for query, version in {"1": "1", "two.beta": "two.beta", "%24LATEST": "two.beta"}.items():
        answer = host.request("POST", f"{invocation('echo')}?Qualifier={query}", "{}")
        assert answer.json()["version"] == version, query
    assert_refused(host.invoke("echo:3"), 404, "Function.NotFound", "echo", "3")


def test_an_old_version_keeps_answering_by_its_name_after_a_new_one_is_live(host):
    deploy_echo(host, env={"N": "1"})
    host.invoke("echo")
    deploy_echo(host, env={"N": "2"})
    assert host.invoke("echo").headers["x-amz-executed-version"] == "2"
    assert host.invoke("echo:1").headers["x-amz-executed-version"] == "1"
    host.nestctl("rm", "echo", "--version", "1")
    assert_refused(host.invoke("echo:1"), 404, "Function.NotFound", "echo")
    assert host.invoke("echo").status == 200


def test_what_is_no_call_is_refused_and_runs_nothing(host):
    deploy_echo(host)
    for method, path, status, error_type in [
        ("GET", invocation("echo"), 400, "Request.Invalid"),
        ("DELETE", invocation("echo"), 400, "Request.Invalid"),
        ("POST", invocation("ec%20ho"), 400, "Request.Invalid"),
        ("POST", invocation("echo:a:b"), 400, "Request.Invalid"),
        ("POST", invocation("echo%2F.."), 400, "Request.Invalid"),
        ("POST", invocation("echo%zz"), 400, "Request.Invalid"),
        ("POST", "/2015-03-31/functions/echo", 404, "Function.NotFound"),
        ("POST", "/", 404, "Function.NotFound"),
    ]:
        answer = host.request(method, path, "{}")
        assert (answer.status, answer.error_type) == (status, error_type), (path, answer)
    assert not host.workers()


# ---- applications by name ----


def test_an_http_function_invoked_by_name_gets_a_post_of_the_event(host):
    host.deploy_node(
        "web",
        "exports.handler = async (req, res) => { let body = ''; for await (const c of req) body += c;"
        " res.writeHead(201, {'x-app': 'yes', 'content-type': 'application/vnd.x+json'});"
        " res.end(JSON.stringify([req.method, req.url, req.headers['content-type'],"
        "  req.headers.traceparent, req.headers['x-request-id'], body])); };",
        interface="http",
    )
    answer = host.invoke("web", {"a": 1}, {"traceparent": TRACE, "X-Request-Id": "w-1"})
    assert (answer.status, answer.headers["x-app"]) == (201, "yes"), answer
    assert answer.headers["content-type"] == "application/vnd.x+json"
    assert answer.json() == ["POST", "/", "application/json", TRACE, "w-1", '{"a": 1}']
    answer = host.invoke("web", {}, {"Content-Type": "text/plain"})
    assert answer.json()[2] == "text/plain"


def test_an_event_may_come_in_chunks_and_in_any_pieces(host):
    deploy_echo(host)
    text = json.dumps({"text": "ü" * 1000}).encode()
    with Wire(host.gateway_socket) as wire:
        wire.send(request("POST", invocation("echo"), None, "transfer-encoding: chunked"))
        for i in range(0, len(text), 97):
            piece = text[i : i + 97]
            wire.send(b"%X;ext=1\r\n" % len(piece) + piece + b"\r\n")
        wire.send(b"0\r\ntrailer: dropped\r\n\r\n")
        assert wire.response().json()["event"] == {"text": "ü" * 1000}
        for byte in request("POST", invocation("echo"), b"[7]"):
            wire.send(bytes([byte]))
        assert wire.response().json()["event"] == [7]
