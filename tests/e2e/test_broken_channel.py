# SPDX-License-Identifier: Apache-2.0
"""Functions that abuse their channel to the host, descriptor 3: the worker is ended, the host and others go on."""

from http.client import IncompleteRead

import pytest

from host import wait_for
from neighbour import Neighbour, assert_refused, restarts, worker_ids

# frames as docs/worker-protocol.md has them; the first request of a worker is stream 1
ABUSE = """
const fs = require('fs');
const forever = () => new Promise(() => {});
function frame(type, stream, payload, flags = 0) {
    payload = Buffer.from(payload);
    const head = Buffer.alloc(12);
    head.writeUInt32LE(payload.length, 0);
    head[4] = type; head[5] = flags;
    head.writeUInt32LE(stream, 8);
    return Buffer.concat([head, payload]);
}
function response(status, fields, body = '', declared = null) {
    const parts = fields.map(([name, value]) => {
        const head = Buffer.alloc(8);
        head.writeUInt16LE(6, 0); head.writeUInt16LE(Buffer.byteLength(name), 2);
        head.writeUInt32LE(Buffer.byteLength(value), 4);
        return Buffer.concat([head, Buffer.from(name), Buffer.from(value)]);
    });
    const all = Buffer.concat(parts), head = Buffer.alloc(8);
    head.writeUInt16LE(status, 0); head.writeUInt16LE(fields.length, 2);
    head.writeUInt32LE(declared ?? all.length, 4);
    return Buffer.concat([head, all, Buffer.from(body)]);
}
function send(bytes) {
    for (let at = 0; at < bytes.length;) {
        try { at += fs.writeSync(3, bytes, at); } catch (e) { if (e.code !== 'EAGAIN') throw e; }
    }
}
exports.handler = async (event) => { if (event.ok) return 'well'; %s };
"""

HELLO = "frame(1, 0, JSON.stringify({protocol: 1, runtime: 'x', runtimeVersion: 'y'}))"
BROKEN = {
    "random bytes": "send(require('crypto').randomBytes(4096)); await forever();",
    "text": "send(Buffer.from('console.log to the wrong descriptor\\n')); await forever();",
    "a length beyond the limit": "const f = frame(6, 1, ''); f.writeUInt32LE(0x7fffffff, 0); send(f);"
    " await forever();",
    "an unknown flag": "send(frame(12, 0, Buffer.alloc(8), 0x80)); await forever();",
    "a reserved field": "const f = frame(12, 0, Buffer.alloc(8)); f[6] = 1; send(f); await forever();",
    "a frame of the host's": "send(frame(4, 1, Buffer.alloc(16))); await forever();",
    "a second HELLO": f"send({HELLO}); await forever();",
    "a second READY": "send(frame(3, 0, '{}')); await forever();",
    "an ERROR of the start": "send(frame(7, 0, '{}')); await forever();",
    "an answer to a request that is not there": "send(frame(5, 999, response(0, []), 1));"
    " await forever();",
    "an answer to the request it will get next": "send(frame(5, 2, response(0, []), 1));"
    " await forever();",
    "a body before the head": "send(frame(6, 1, 'body')); await forever();",
    "a head cut short": "send(frame(5, 1, Buffer.alloc(3), 1)); await forever();",
    "fields longer than the frame": "send(frame(5, 1, response(0, [], '', 1000), 1)); await forever();",
    "more fields than there are": "const r = response(0, []); r.writeUInt16LE(9, 2);"
    " send(frame(5, 1, r, 1)); await forever();",
    "a header with a line break": "send(frame(5, 1, response(0, [['content-type', 'a\\r\\nb: c']]), 1));"
    " await forever();",
    "a header's name with a space": "send(frame(5, 1, response(0, [['a b', 'c']]), 1)); await forever();",
    "a status for an event": "send(frame(5, 1, response(200, []), 1)); await forever();",
    "credit that was never used": "const c = Buffer.alloc(4, 0xff); send(frame(8, 1, c)); await forever();",
    "more body than its credit": "send(frame(5, 1, response(0, [], 'x'.repeat(300000)), 1));"
    " await forever();",
    "a log line of half a frame": "send(frame(10, 1, Buffer.alloc(2))); await forever();",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_worker_that_breaks_the_protocol_is_killed_and_its_request_fails(host, case):
    with Neighbour(host):
        host.deploy_node("bad", ABUSE % BROKEN[case], timeoutMs=20000)
        answer = host.invoke("bad")
        assert answer.status == 502, answer
        assert_refused(answer, 502, answer.error_type, "bad", "1")
        assert answer.error_type in ("Function.Crashed", "Function.InvalidResponse"), answer
        assert "b" not in answer.headers
        wait_for(lambda: restarts(host, "bad", "protocol") == 1, "the restart is counted")
        assert "broke the worker protocol" in host.log()
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


@pytest.mark.parametrize(
    "second",
    ["response(0, [])", "response(0, [], 'x'.repeat(300000))"],
    ids=["a second head", "and too much body"],
)
def test_an_answer_that_breaks_the_protocol_once_it_has_begun_is_cut(host, second):
    source = f"send(frame(5, 1, response(0, [], '1'))); send(frame(5, 1, {second})); await forever();"
    with Neighbour(host):
        host.deploy_node("bad", ABUSE % source)
        with pytest.raises(IncompleteRead):
            host.invoke("bad")
        wait_for(lambda: restarts(host, "bad", "protocol") == 1, "the restart is counted")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


@pytest.mark.parametrize(
    "language,source",
    [
        ("node", ABUSE % "fs.closeSync(3); await forever();"),
        (
            "python",
            "import os, time\ndef handler(event, context):\n    if event.get('ok'): return 'well'\n"
            "    os.close(3)\n    time.sleep(1000)\n",
        ),
    ],
    ids=["node", "python"],
)
def test_a_worker_that_closes_its_channel_has_crashed(make_host, language, source):
    host = make_host({"workers": {"pingIntervalMs": 200}})  # Python's goes with the next ping
    with Neighbour(host):
        {"node": host.deploy_node, "python": host.deploy_python}[language]("bad", source)
        assert_refused(host.invoke("bad"), 502, "Function.Crashed", "bad", "1")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


def test_python_garbage_on_the_channel_ends_the_worker(host):
    source = (
        "import os, time\ndef handler(event, context):\n    if event.get('ok'): return 'well'\n"
        "    os.write(3, b'\\xff' * 100)\n    time.sleep(1000)\n"
    )
    with Neighbour(host):
        host.deploy_python("bad", source)
        assert_refused(host.invoke("bad"), 502, "Function.Crashed", "bad", "1", "broke the worker")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


def test_half_a_frame_is_waited_for_until_the_deadline(make_host):
    host = make_host({"workers": {"cancelGraceMs": 200}})
    half = "send(frame(5, 1, response(0, [], 'x'.repeat(1000)), 1).subarray(0, 500)); await forever();"
    with Neighbour(host):
        host.deploy_node("bad", ABUSE % half, timeoutMs=500)
        assert_refused(host.invoke("bad"), 504, "Function.Timeout", "bad", "1")
        wait_for(lambda: not worker_ids(host, "bad"), "the worker is ended")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


def test_a_worker_that_reads_nothing_holds_up_nobody(make_host):
    """It stops reading its channel in the midst of a large request."""
    host = make_host({"workers": {"cancelGraceMs": 200}})
    with Neighbour(host):
        host.deploy_node("bad", ABUSE % "process.kill(process.pid, 'SIGSTOP');", timeoutMs=1000)
        big = b'{"big": "' + b"x" * (5 << 20) + b'"}'
        answer = host.request("POST", "/2015-03-31/functions/bad/invocations", big)
        assert_refused(answer, 504, "Function.Timeout", "bad", "1")
        wait_for(lambda: not worker_ids(host, "bad"), "the worker is ended")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'


def test_a_flood_of_harmless_frames_does_not_starve_the_neighbours(make_host):
    host = make_host({"workers": {"cancelGraceMs": 200}})
    pongs = "const p = Buffer.concat(Array(5000).fill(frame(12, 0, Buffer.alloc(8)))); for (;;) send(p);"
    with Neighbour(host, limit=3):
        host.deploy_node("bad", ABUSE % pongs, timeoutMs=1500, cpu=0.5)
        assert_refused(host.invoke("bad"), 504, "Function.Timeout", "bad", "1")
        wait_for(lambda: not worker_ids(host, "bad"), "the worker is ended")
        assert host.invoke("bad", {"ok": 1}).body == b'"well"'
