# SPDX-License-Identifier: Apache-2.0
"""The samples of docs/writing-functions.md do what the text says."""

import re

import pytest

from driver import RUNTIME_DIR

GUIDE = (RUNTIME_DIR.parent / "docs" / "writing-functions.md").read_text()
SAMPLES = dict(re.findall(r"<!-- sample: (\S+) -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
TESTED = {
    "node/index.js", "node/module.mjs", "node/callback.js", "node/stream.js", "node/http.js", "node/web.js",
    "python/app.py", "python/tasks.py", "python/rows.py", "python/wsgi.py", "python/asgi.py",
}


@pytest.fixture
def sample(worker, tmp_path):
    def start(name, handler="handler", interface="event"):
        folder, _, file = name.partition("/")
        assert name in TESTED
        (tmp_path / file).write_text(SAMPLES[name])
        runtime = {"node": "nodejs", "python": "python"}[folder]
        host = worker(runtime, tmp_path, f"{file.partition('.')[0]}.{handler}", interface, 2)
        assert host.ready, (host.failure, host.output())
        return host

    return start


def test_plain_handlers(sample):
    for name in ("node/index.js", "python/app.py"):
        host = sample(name)
        call = host.end(host.event({"name": "Ann"}, request_id="r1"))
        assert call.json() == {"hello": "Ann", "id": "r1"}
        assert re.fullmatch(r"for Ann,? \d+ ms left", host.log_of(call)[0].text)
        assert host.log_of(call)[0].level == 3


def test_a_module(sample):
    host = sample("node/module.mjs")
    assert host.end(host.event({"name": "Ann"})).json() == {"hello": "Ann"}


def test_a_callback(sample, tmp_path):
    host = sample("node/callback.js")
    (tmp_path / "text").write_text("four")
    assert host.end(host.event({"file": str(tmp_path / "text")})).json() == {"length": 4}
    assert host.end(host.event({"file": "/nothere"})).error["errorType"] == "Error"


def test_streams(sample):
    host = sample("node/stream.js")
    call = host.end(host.http())
    assert (call.status, bytes(call.body), call.header("content-type")) == (200, b"one\ntwo\n", "text/plain")
    host = sample("python/rows.py")
    assert bytes(host.end(host.event({"rows": 3})).body) == b"0\n1\n2\n"


def test_http(sample):
    host = sample("node/http.js", interface="http")
    assert host.end(host.http("PUT", "/a?b", [], b"12345")).json() == {"method": "PUT", "url": "/a?b", "bytes": 5}


def test_tasks(sample):
    host = sample("python/tasks.py")
    assert host.end(host.event()).json() == ["a", "b"]


@pytest.mark.parametrize("interface,body", [("wsgi", b"3 bytes for /x"), ("asgi", b"/x")])
def test_applications(sample, interface, body):
    host = sample(f"python/{interface}.py", "app", interface)
    assert bytes(host.end(host.http("POST", "/x", [], b"abc")).body) == body


def test_a_page(sample):
    host = sample("node/web.js")
    call = host.end(host.http("GET", "/"))
    assert (call.status, bytes(call.body), call.header("set-cookie")) == (200, b"<p>GET /</p>", "seen=1; Path=/")
    assert host.end(host.http("GET", "/x")).status == 404


def test_no_sample_is_left_out():
    assert set(SAMPLES) == TESTED
