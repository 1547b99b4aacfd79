# SPDX-License-Identifier: Apache-2.0
"""Functions that fail, die, hang, hoard or flood: each is answered for by name, alone, and replaced."""

import os
from http.client import IncompleteRead
from pathlib import Path

import pytest

from host import Answer, wait_for
from neighbour import Neighbour, assert_handler_error, assert_refused, restarts, worker_ids

# a worker that holds on to a request which is over is killed after this: short, for the tests' sake
HASTE = {"workers": {"cancelGraceMs": 200}}


def node(bad):
    """A handler that does what is bad, but answers {"ok": true} well."""
    return (
        "const fs = require('fs');\n"
        "exports.handler = async (event) => {\n"
        f"if (event.ok) {{ console.log('well'); return 'well'; }}\n{bad}\n}};"
    )


def python(bad):
    body = "\n".join("    " + line for line in bad.splitlines())
    return (
        "import os, sys, time\n"
        f"def handler(event, context):\n    if event.get('ok'):\n"
        f"        print('well')\n        return 'well'\n{body}\n"
    )


def deploy(host, name, language, source, **spec):
    deployer = {"node": host.deploy_node, "python": host.deploy_python}[language]
    deployer(name, source, **spec)


def assert_well(host, name="bad"):
    """The function is whole again: the next request is answered."""
    answer = host.invoke(name, {"ok": True})
    assert (answer.status, answer.body) == (200, b'"well"'), answer


# ---- code that can't be loaded ----

BROKEN = {
    "node without the handler": ("node", "exports.other = 1;", "Runtime.HandlerNotFound"),
    "node with a syntax error": (
        "node",
        "exports.handler = async ( => {",
        "Runtime.UserCodeSyntaxError",
    ),
    "node without a module": ("node", "require('./gone');", "Runtime.ImportModuleError"),
    "node that throws": ("node", "throw new RangeError('at load');", "RangeError: at load"),
    "python without the handler": ("python", "other = 1", "Runtime.HandlerNotFound"),
    "python with a syntax error": (
        "python",
        "def handler(:\n    pass",
        "Runtime.UserCodeSyntaxError",
    ),
    "python without a module": ("python", "import gone", "Runtime.ImportModuleError"),
    "python that throws": ("python", "raise KeyError('at load')", "KeyError"),
    "python that exits": ("python", "import sys\nsys.exit(3)", "Runtime.ExitError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_code_that_can_not_be_loaded_fails_its_requests_and_says_why_in_the_log(host, case):
    language, source, why = BROKEN[case]
    with Neighbour(host):
        deploy(host, "bad", language, source)
        answer = host.invoke("bad")
        assert_refused(answer, 502, "Function.InitFailed", "bad", "1", "could not be initialised")
        assert host.function("bad")["versions"][0]["lastFailure"]
        wait_for(lambda: why in host.nestctl("logs", "bad").stdout, "the function's log says why")
        assert why in host.log()


def test_a_better_version_replaces_code_that_could_not_be_loaded(host):
    host.deploy_node("bad", "throw new Error('at load');")
    assert host.invoke("bad").status == 502
    host.deploy_node("bad", node(""))
    assert_well(host)


@pytest.mark.parametrize(
    "language,source",
    [("node", "process.exit(3);"), ("python", "import os\nos._exit(3)")],
    ids=["node", "python"],
)
def test_code_that_exits_while_it_is_loaded_is_named_with_its_exit_code(host, language, source):
    deploy(host, "bad", language, source)
    answer = host.invoke("bad")
    assert_refused(
        answer, 502, "Function.InitFailed", "bad", "1", "exited with code 3 before it was ready"
    )


@pytest.mark.parametrize(
    "language,source",
    [("node", "for (;;);"), ("python", "while True: pass")],
    ids=["node", "python"],
)
def test_code_that_is_never_loaded_is_given_up_after_init_timeout(host, language, source):
    with Neighbour(host):
        deploy(host, "bad", language, source, initTimeoutMs=700)
        answer = host.invoke("bad")
        assert_refused(
            answer, 502, "Function.InitFailed", "bad", "1", "was not ready within 700 ms"
        )
        wait_for(lambda: not worker_ids(host, "bad"), "the worker that hung is gone")


# ---- handlers that fail ----


@pytest.mark.parametrize(
    "language,source,error_type",
    [
        ("node", node("throw new TypeError('not so');"), "TypeError"),
        ("node", node("return 1n;"), "Runtime.MarshalError"),
        ("node", node("const a = {}; a.a = a; return a;"), "Runtime.MarshalError"),
        ("python", python("raise ValueError('not so')"), "ValueError"),
        ("python", python("return {1, 2}"), "Runtime.MarshalError"),
        ("python", python("return b'bytes'"), "Runtime.MarshalError"),
    ],
    ids=["node throws", "a BigInt", "a circle", "python throws", "a set", "bytes"],
)
def test_a_handler_that_throws_or_returns_no_json_is_a_handler_error(
    host, language, source, error_type
):
    with Neighbour(host):
        deploy(host, "bad", language, source)
        assert_handler_error(host.invoke("bad"), error_type)
        before = worker_ids(host, "bad")
        assert_well(host)
        assert worker_ids(host, "bad") == before  # an error costs no worker


def test_a_handler_that_throws_on_a_route_is_502_and_tells_nothing_of_its_code(host):
    host.deploy_node("bad", node("throw new Error('secret');"), routes=[{"path": "/bad"}])
    answer = host.request("GET", "/bad")
    assert_refused(answer, 502, "Function.Error", "bad", "1")
    assert b"secret" not in answer.body and b"/function" not in answer.body


def test_an_unhandled_rejection_ends_the_worker_and_its_requests(host):
    with Neighbour(host):
        host.deploy_node(
            "bad", node("Promise.reject(new Error('lost')); await new Promise(() => {});")
        )
        assert_handler_error(host.invoke("bad"), "Runtime.UnhandledPromiseRejection")
        wait_for(lambda: restarts(host, "bad", "exit") == 1, "the restart is counted")
        assert_well(host)


# ---- workers that die ----

DEATHS = {
    "node exits": ("node", node("process.exit(7);"), "exited with code 7", "exit"),
    "python exits": ("python", python("os._exit(7)"), "exited with code 7", "exit"),
    "python calls sys.exit": ("python", python("sys.exit(7)"), "exited with code 7", "exit"),
    "node is killed": (
        "node",
        node("process.kill(process.pid, 'SIGKILL'); await new Promise(() => {});"),
        "was killed by signal 9 (SIGKILL)",
        "signal",
    ),
    "python aborts": ("python", python("os.abort()"), "was killed by signal 6 (SIGABRT)", "signal"),
    "python crashes": (
        "python",
        python("import ctypes\nctypes.string_at(0)"),
        "was killed by signal 11 (SIGSEGV)",
        "signal",
    ),
}


@pytest.mark.parametrize("case", DEATHS)
def test_a_worker_that_dies_is_named_with_its_cause_and_replaced(host, case):
    language, source, how, cause = DEATHS[case]
    with Neighbour(host):
        deploy(host, "bad", language, source)
        assert_refused(
            host.invoke("bad"), 502, "Function.Crashed", "bad", "1", f"{how} while it had"
        )
        assert restarts(host, "bad", cause) == 1
        assert f"function 'bad' {how}" in host.log()
        assert_well(host)


def test_a_worker_that_dies_takes_down_only_the_requests_it_had(host):
    source = node("if (event.die) process.exit(1); await new Promise(r => setTimeout(r, 60000));")
    host.deploy_node("bad", source, concurrency=4)
    assert_well(host)
    connections = [host.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/2015-03-31/functions/bad/invocations", body="{}")
    wait_for(lambda: host.function("bad")["versions"][0]["inFlight"] == 3, "three are in flight")
    assert_refused(host.invoke("bad", {"die": 1}), 502, "Function.Crashed", "bad")
    for connection in connections:
        assert_refused(Answer(connection.getresponse()), 502, "Function.Crashed", "bad")
        connection.close()
    assert_well(host)


HOARDS = {
    "node's buffers": (
        "node",
        node("const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1));"),
        64,
    ),
    "node's heap": ("node", node("const all = []; for (;;) all.push([...'x'.repeat(9999)]);"), 64),
    "python": ("python", python("hoard = []\nwhile True: hoard.append(b'x' * (1 << 20))"), 64),
    "a child of python's": (
        "python",
        python(
            "hoard = []\nif os.fork() == 0:\n    while True: hoard.append(b'x' * (1 << 20))\n"
            "os.wait()\nos._exit(1)"
        ),
        64,
    ),
}


@pytest.mark.parametrize("case", HOARDS)
def test_a_worker_that_allocates_without_end_is_named_out_of_memory(host, case):
    language, source, megabytes = HOARDS[case]
    with Neighbour(host):
        deploy(host, "bad", language, source, memoryMb=megabytes)
        answer = host.invoke("bad")
        text = f"used more than its {megabytes} MB of memory"
        assert_refused(answer, 502, "Function.OutOfMemory", "bad", "1", text)
        assert restarts(host, "bad", "out_of_memory") == 1
        assert_well(host)


# ---- workers that fork ----


def test_a_function_that_starts_processes_without_end_gets_eagain_at_its_limit(host):
    source = (
        "children = []\ntry:\n    while True:\n        pid = os.fork()\n"
        "        if pid == 0:\n            time.sleep(1000)\n        children.append(pid)\n"
        "except OSError as error:\n    return [error.errno, len(children)]"
    )
    with Neighbour(host):
        host.deploy_python("bad", python(source), pids=40, memoryMb=256)
        answer = host.invoke("bad")
        errno, children = answer.json()
        assert (answer.status, errno) == (200, 11) and 20 <= children < 40, answer
        host.admin("DELETE", "/v1/functions/bad")
        wait_for(lambda: not worker_ids(host, "bad"), "the worker and its children are gone")


def test_a_fork_bomb_is_ended_at_its_deadline_with_all_its_processes(make_host):
    host = make_host(HASTE)
    with Neighbour(host):
        host.deploy_python(
            "bad",
            python("while True:\n    try: os.fork()\n    except OSError: pass"),
            pids=64,
            cpu=0.5,
            timeoutMs=1000,
        )
        assert_refused(host.invoke("bad"), 504, "Function.Timeout", "bad")
        wait_for(lambda: restarts(host, "bad", "timeout") == 1, "the bomb's worker is killed")
        assert_well(host)


# ---- workers that don't answer ----

SILENCES = {
    "node awaits for ever": ("node", node("await new Promise(() => {});")),
    "node spins for ever": ("node", node("for (;;);")),
    "python sleeps for ever": ("python", python("while True: time.sleep(1)")),
    "python spins for ever": ("python", python("while True: pass")),
}


@pytest.mark.parametrize("case", SILENCES)
def test_a_handler_that_never_answers_times_out_and_its_worker_is_replaced(make_host, case):
    language, source = SILENCES[case]
    host = make_host(HASTE)
    with Neighbour(host):
        deploy(host, "bad", language, source, timeoutMs=500, cpu=0.5)
        assert_well(host)
        before = worker_ids(host, "bad")
        answer = host.invoke("bad")
        assert_refused(answer, 504, "Function.Timeout", "bad", "1", "did not answer within")
        wait_for(lambda: restarts(host, "bad", "timeout") == 1, "the worker is killed")
        assert_well(host)
        assert not worker_ids(host, "bad") & before


def test_a_worker_that_spins_between_requests_is_found_hung_and_replaced(make_host):
    host = make_host({"workers": {"pingIntervalMs": 100, "pingTimeoutMs": 500}})
    with Neighbour(host):
        host.deploy_node("bad", node("setTimeout(() => { for (;;); }, 50); return 1;"), cpu=0.5)
        assert host.invoke("bad").status == 200
        wait_for(lambda: restarts(host, "bad", "hung") == 1, "the worker is found hung")
        assert "is hung" in host.log()
        assert_well(host)


# ---- workers that write ----


def rss_kb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


@pytest.fixture
def lean_host(make_host):
    """A host whose memory can be judged, also where a sanitizer would keep what was freed."""
    host = make_host({}, start=False)
    options = os.environ.get("ASAN_OPTIONS", "")
    host.environment = {"ASAN_OPTIONS": f"{options}:quarantine_size_mb=1"}
    return host.start()


def log_bytes(host, name):
    """What the function's log takes on disk."""
    return sum(f.stat().st_size for f in (host.root / "state" / "logs").glob(f"{name}.log*"))


FLOODS = {
    "1 GB of lines on stdout": (
        "node",
        node("const b = Buffer.alloc(1 << 20, 'one line of a flood\\n');"
             "for (let i = 0; i < 1024; i++) fs.writeSync(1, b); return 'done';"),
    ),
    "1 GB of lines on python's stderr": (
        "python",
        python("b = b'one line of a flood\\n' * 50000\nfor i in range(1074): os.write(2, b)\n"
               "return 'done'"),
    ),
    "100 MB through console.log": (
        "node",
        node("const s = 'x'.repeat(999); for (let i = 0; i < 100000; i++) console.log(s);"
             "return 'done';"),
    ),
    "one line of 100 MB": (
        "node",
        node("const b = Buffer.alloc(1 << 20, 'x'); for (let i = 0; i < 100; i++)"
             "fs.writeSync(1, b); return 'done';"),
    ),
}  # fmt: skip


def dropped_log_bytes(host, name):
    return sum(v for k, v in host.metrics().items() if "log_dropped" in k and f'"{name}"' in k)


def says_what_is_lost(host):
    """With the next line that it keeps, the log tells what it did not."""
    assert_well(host)
    kept = host.nestctl("logs", "bad").stdout
    return "bytes of log lost" in kept or "is cut" in kept


@pytest.mark.parametrize("limit", [64 << 10, 1 << 20])
@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_of_output_keeps_to_the_log_limit_and_to_flat_memory(lean_host, case, limit):
    language, source = FLOODS[case]
    host = lean_host
    with Neighbour(host):
        deploy(
            host,
            "bad",
            language,
            source,
            logs={"bytes": limit},
            timeoutMs=60000,
            workers={"idleMs": 500},
        )
        assert_well(host)
        before = rss_kb(host.pid)
        answer = host.invoke("bad", timeout=60)
        assert (answer.status, answer.body) == (200, b'"done"'), answer
        assert rss_kb(host.pid) - before < 16 * 1024
        assert log_bytes(host, "bad") <= limit
        # a line that does not end is counted when its worker is gone
        wait_for(lambda: dropped_log_bytes(host, "bad") > 50 << 20, "what is lost is counted")
        wait_for(lambda: says_what_is_lost(host), "the log says what is lost")
    assert 0 < log_bytes(host, "bad") <= limit


def test_a_long_line_is_cut_and_says_so_and_the_next_one_is_whole(host):
    host.deploy_node(
        "bad",
        node("fs.writeSync(1, 'x'.repeat(3 << 20) + '\\n'); fs.writeSync(1, 'after\\n'); return 1;"),
    )
    assert host.invoke("bad").status == 200
    wait_for(lambda: "after" in host.nestctl("logs", "bad").stdout, "the next line is there")
    lines = host.admin("GET", "/v1/functions/bad/logs").body.decode().splitlines()
    assert len(lines[0]) < 70000 and "line above is cut" in lines[1], lines[1][-300:]


def test_1_gb_into_tmp_ends_with_enospc_for_the_function_alone(host):
    source = (
        "const f = fs.openSync('/tmp/big', 'w'); const b = Buffer.alloc(1 << 20, 1);"
        "let n = 0; try { for (; n < 1024; n++) fs.writeSync(f, b); }"
        "catch (e) { fs.closeSync(f); fs.unlinkSync('/tmp/big'); return [e.code, n]; } return n;"
    )
    room = os.statvfs("/tmp").f_bfree
    with Neighbour(host):
        host.deploy_node("bad", node(source), tmpMb=32)
        for _ in range(2):  # what was removed can be used again
            answer = host.invoke("bad")
            assert (answer.status, answer.json()) == (200, ["ENOSPC", 32]), answer
    assert os.statvfs("/tmp").f_bfree > room // 2


def test_a_tmp_larger_than_the_memory_limit_is_out_of_memory(host):
    source = "with open('/tmp/big', 'wb') as f:\n    for i in range(1024): f.write(b'x' * (1 << 20))"
    with Neighbour(host):
        host.deploy_python("bad", python(source), tmpMb=1024, memoryMb=64)
        assert_refused(host.invoke("bad"), 502, "Function.OutOfMemory", "bad")
        assert_well(host)


# ---- answers that are none ----


def test_a_result_of_50_mb_arrives_whole_and_leaves_the_host_flat(lean_host):
    host = lean_host
    host.deploy_node("bad", node("return 'x'.repeat(50 << 20);"), memoryMb=512)
    with Neighbour(host):
        before = rss_kb(host.pid)
        answer = host.invoke("bad")
        assert answer.status == 200 and len(answer.body) == (50 << 20) + 2
        assert rss_kb(host.pid) - before < 16 * 1024
        assert_well(host)


def test_a_result_over_the_configured_limit_is_an_invalid_response(make_host):
    host = make_host({"limits": {"responseBytes": 1 << 20}})
    host.deploy_node("bad", node("return 'x'.repeat(event.n);"), memoryMb=512)
    with Neighbour(host):
        assert host.invoke("bad", {"n": 1 << 19}).status == 200
        with pytest.raises(IncompleteRead):  # it had begun: the caller sees it cut
            host.invoke("bad", {"n": 50 << 20})
        outcomes = [k for k, v in host.metrics().items() if "invalid_response" in k and v == 1]
        assert any('function="bad"' in k for k in outcomes), outcomes
        assert_well(host)


@pytest.mark.parametrize(
    "answer",
    [
        "{statusCode: 200, headers: {'bad name': 'x'}, body: ''}",
        "{statusCode: 200, headers: {'x-a': 'b\\r\\nset-cookie: c'}, body: ''}",
        "{statusCode: 99999, body: ''}",
        "{statusCode: 'two hundred', body: ''}",
    ],
    ids=["a header's name", "a header's value", "a status too high", "a status of words"],
)
def test_an_answer_that_is_no_http_response_is_502_and_never_sent(host, answer):
    with Neighbour(host):
        host.deploy_node("bad", node(f"return {answer};"), routes=[{"path": "/bad"}])
        refused = host.request("POST", "/bad", "{}", {"content-type": "application/json"})
        assert_refused(refused, 502, "Function.InvalidResponse", "bad", "1")
        assert "set-cookie" not in refused.headers
        assert_well(host)


def test_wsgi_headers_with_line_breaks_are_502_and_never_sent(host):
    source = (
        "def handler(environ, start_response):\n"
        "    start_response('200 OK', [('X-A', 'b\\r\\nSet-Cookie: c')])\n    return [b'x']\n"
    )
    host.deploy_python("bad", source, interface="wsgi", routes=[{"path": "/bad"}])
    refused = host.request("GET", "/bad")
    assert_refused(refused, 502, "Function.InvalidResponse", "bad", "1")
    assert "set-cookie" not in refused.headers
