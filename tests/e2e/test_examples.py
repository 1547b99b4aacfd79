# SPDX-License-Identifier: Apache-2.0
"""What README and examples/ promise, done as they say it."""

import json
import os
import re
import subprocess
import threading

from host import NESTCTL, NESTLETD, PATIENCE, TOP, wait_for
from wire import Wire, invocation, request


def deploy(host, example, *names):
    for name in names:
        host.nestctl("deploy", str(example(name)))


def test_the_json_examples_greet_and_log_with_the_request_s_id(host, example):
    deploy(host, example, "json-node", "json-python")
    for name in ("json-node", "json-python"):
        for calls in (1, 2):
            answer = host.invoke(name, {"name": "Ada"}, {"X-Request-Id": f"{name}-{calls}"})
            seen = answer.json()
            assert (seen["message"], seen["calls"]) == ("Hello, Ada!", calls), answer
            assert seen["requestId"] == f"{name}-{calls}" and 0 < seen["remainingMs"] <= 30000
        done = host.nestctl("invoke", name, "-d", '{"name":"Grace"}', "--log")
        assert json.loads(done.stdout)["message"] == "Hello, Grace!"
        assert "greeting Grace" in done.stderr


def test_the_express_example_keeps_notes(host, example):
    deploy(host, example, "express-app")
    with Wire(host.gateway_socket) as wire:
        wire.send(request("GET", "/notes", None))
        assert wire.response().json() == [{"id": "1", "text": "Buy milk"}]
        wire.send(request("POST", "/notes", b'{"text":"Sleep"}', "content-type: application/json"))
        response = wire.response()
        assert (response.status, response.head.get("location")) == (201, "/notes/2")
        wire.send(request("GET", "/notes/2", None) + request("GET", "/notes/3", None))
        assert wire.response().json() == {"id": "2", "text": "Sleep"}
        assert wire.response().status == 404
    assert host.invoke("express-app", {"a": 1}).json() == {"notes": 2, "echo": {"a": 1}}


def test_the_react_example_renders_a_page(host, example):
    deploy(host, example, "react-ssr")
    answer = host.request("GET", "/shop/tea?x=<b>")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = answer.body.decode()
    assert page.startswith("<!doctype html><html") and "<b>Kettle</b>" in page
    assert "/shop/tea?x=&lt;b&gt;" in page and page.endswith("</html>")


def test_the_wsgi_example_tells_what_it_was_asked(host, example):
    deploy(host, example, "wsgi-python")
    answer = host.request("POST", "/wsgi/hello?a=1&a=2", b"body", {"Host": "shop.example.org"})
    assert answer.json() == {
        "method": "POST",
        "uri": "http://shop.example.org/wsgi/hello?a=1&a=2",
        "query": {"a": ["1", "2"]},
        "body": "body",
    }


def test_the_streaming_example_streams(host, example):
    deploy(host, example, "stream-node")
    with Wire(host.gateway_socket) as wire:
        wire.post(invocation("stream-node"), b'{"parts":3,"pauseMs":50}')
        head = wire.head()
        assert (head.status, head.get("content-type")) == (200, "application/x-ndjson")
        pieces = [wire.chunk() for _ in range(3)]
        assert [json.loads(p) for p in pieces] == [{"part": n, "of": 3} for n in (1, 2, 3)]
        assert wire.chunk() == b""


def test_every_example_is_deployed_by_the_tests_and_named_in_its_readme():
    names = {p.name for p in (TOP / "examples").iterdir() if p.is_dir()}
    readme = (TOP / "examples" / "README.md").read_text()
    mine = (TOP / "tests" / "e2e" / "test_examples.py").read_text()
    quickstart = (TOP / "tools" / "quickstart").read_text()
    for name in names - {"nginx", "scaler"}:  # which are no functions
        assert f'"{name}"' in mine and name in readme and f"'{name}|" in quickstart, name
    assert "nginx" in readme and "scaler" in readme


# ---- README: a first function in five minutes ----


class Shell:
    """One bash, so that what a block of the README leaves behind is there for the next."""

    def __init__(self, cwd, env):
        self.process = subprocess.Popen(
            ["bash", "--norc"], cwd=cwd, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.errors = []
        threading.Thread(target=self.drain_errors, daemon=True).start()

    def drain_errors(self):
        self.errors += self.process.stderr

    def run(self, script):
        """Output and exit code of a block."""
        self.process.stdin.write(f"{script}\necho end-of-block $?\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if "end-of-block " in line:
                text, code = line.rsplit("end-of-block ", 1)
                return "".join(lines) + text, int(code)
            lines.append(line)
        raise AssertionError(f"the shell ended: {self.errors}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def readme_blocks():
    text = (TOP / "README.md").read_text()
    [section] = re.findall(r"## A first function in five minutes\n(.*?)\n## ", text, re.S)
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", section, re.M)
    return [re.sub(r"^    ", "", block, flags=re.M) for block in blocks]


def test_the_readme_s_first_function_works_as_it_is_written(make_host, workdir):
    host = make_host(start=False)
    config = host.write_config()
    bin_dir = workdir / "bin"
    bin_dir.mkdir()
    (bin_dir / "nestletd").write_text(f'#!/bin/sh\nexec {NESTLETD} --config {config} "$@"\n')
    (bin_dir / "nestletd").chmod(0o755)
    os.symlink(NESTCTL, bin_dir / "nestctl")
    os.symlink(TOP / "examples", workdir / "examples")
    env = dict(os.environ, PATH=f"{bin_dir}:{os.environ['PATH']}")
    env["NESTLET_ADMIN_SOCKET"] = str(host.admin_socket)
    blocks = [b.replace("/run/nestlet/gateway.sock", str(host.gateway_socket)) for b in readme_blocks()]
    assert len(blocks) == 4, blocks
    start, write, call, routes = blocks
    assert start == "cd build && make install && cd ..\nnestletd &\n"  # installed by our bin/
    shell = Shell(workdir, env)
    try:
        _, code = shell.run("nestletd >/dev/null 2>&1 &")
        assert code == 0
        pid, _ = shell.run("echo $!")
        wait_for(lambda: host.gateway_socket.exists(), "the host is ready")
        text, code = shell.run(write)
        assert code == 0 and text.startswith("deployed hello version 1\n"), text
        call, follow = call.rsplit("\n", 2)[0], call.rsplit("\n", 2)[1]
        assert follow == "nestctl logs -f hello"
        text, code = shell.run(call)
        answers = re.findall(r'\{"message":"Hello, Ada!","request":"[0-9a-f-]{36}"\}', text)
        assert code == 0 and len(answers) == 2 and re.search(r"^hello +1 +nodejs +deployed ", text.replace("NAME", "\nNAME"), re.M), text
        follower = subprocess.Popen(follow.split(), cwd=workdir, env=env, stdout=subprocess.PIPE, text=True)
        assert follower.stdout.readline().endswith("hello Ada\n")
        follower.terminate()
        follower.wait(PATIENCE)
        follower.stdout.close()
        text, code = shell.run(routes)
        assert code == 0 and "deployed json-node version 1" in text, text
        assert '"message":"Hello, world!"' in text, text
    finally:
        text, _ = shell.run(f"kill {pid.strip()}; wait {pid.strip()}")
        _, code = shell.run("test -e " + str(host.gateway_socket))
        shell.close()
    assert code == 1  # the host has ended, and its socket is gone
