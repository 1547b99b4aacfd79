# SPDX-License-Identifier: Apache-2.0
"""Code from a web server: by URL and digest, in layers, and preloaded at the start."""

import hashlib
import json
import socket
import subprocess

import pytest

from host import NESTCTL, wait_for

SOURCE = "exports.handler = async () => require('./dep.js');"


class Server:
    """A real nginx over loopback that serves one directory and logs each request."""

    def __init__(self, root):
        self.root = root
        self.files = root / "files"
        self.files.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        (root / "nginx.conf").write_text(
            f"""daemon off; master_process off; pid {root}/pid; error_log stderr;
            events {{}}
            http {{
                access_log {root}/requests;
                client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;
                fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
                server {{ listen 127.0.0.1:{self.port}; root {self.files}; }}
            }}"""
        )
        self.process = subprocess.Popen(
            ["nginx", "-p", str(root), "-c", str(root / "nginx.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.listens, "nginx listens")

    def listens(self):
        assert self.process.poll() is None
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def pack(self, name, files):
        """Serves a directory with these files as name; returns its reference."""
        directory = self.root / f"{name}.d"
        directory.mkdir()
        for file, text in files.items():
            (directory / file).write_text(text)
        subprocess.run([str(NESTCTL), "pack", str(directory), "-o", str(self.files / name),
                        "--format", "tar.zst"], check=True, capture_output=True)
        (self.files / name).chmod(0o644)
        packed = (self.files / name).read_bytes()
        return {"url": f"http://127.0.0.1:{self.port}/{name}",
                "sha256": hashlib.sha256(packed).hexdigest(), "size": len(packed)}

    def asked(self, name):
        log = self.root / "requests"
        return log.read_text().count(f"/{name} ") if log.exists() else 0

    def stop(self):
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def server(workdir):
    server = Server(workdir / "server")
    yield server
    server.stop()


def put(host, name, code, **spec):
    spec = {"runtime": "nodejs", "handler": "index.handler", "code": code, **spec}
    return host.admin("PUT", f"/v1/functions/{name}", json.dumps(spec))


def call(host, name):
    answer = host.invoke(name)
    assert answer.status == 200, answer
    return answer.json()


def rest_after(host, name):
    """libcurl opens descriptors at its first use that it keeps: they count from here on."""
    host.admin("DELETE", f"/v1/functions/{name}")
    wait_for(lambda: not host.workers(), "the worker goes")
    host.fds_at_rest = None


def test_code_is_fetched_by_url_and_digest(host, server):
    code = server.pack("one.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'one';"})
    assert put(host, "fn", code).status == 201
    assert call(host, "fn") == "one"
    assert put(host, "again", code).status == 201
    assert call(host, "again") == "one"
    assert server.asked("one.tar.zst") == 1, "the second function finds it in the cache"
    host.admin("DELETE", "/v1/functions/again")
    rest_after(host, "fn")


def test_a_wrong_digest_is_refused_and_nothing_is_deployed(host, server):
    code = server.pack("one.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'one';"})
    answer = put(host, "fn", {**code, "sha256": "0" * 64})
    assert answer.status == 422, answer
    assert "digest" in answer.json()["errorMessage"] or "sha256" in answer.json()["errorMessage"]
    assert host.invoke("fn").status == 404
    assert host.admin("GET", "/v1/cache").json()["trees"] == []
    rest_after(host, "fn")


def test_a_size_is_optional_and_must_be_right(host, server):
    code = server.pack("one.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'one';"})
    layer = server.pack("base.tar.zst", {"dep.js": "module.exports = 'base';"})
    size = code.pop("size")
    for wrong in ({**code, "size": size + 1}, {**code, "size": size - 1}):
        answer = put(host, "fn", wrong)
        assert answer.status == 422, answer
        message = answer.json()["errorMessage"]
        assert f"it is {size} bytes long, not {wrong['size']}" in message, message
    answer = put(host, "fn", code, layers=[{**layer, "size": 1}])
    assert answer.status == 422 and "layer 1" in answer.json()["errorMessage"], answer
    for odd in (0, "7", 1.5):
        answer = put(host, "fn", {**code, "size": odd})
        assert answer.status == 400 and "'code.size' must be" in answer.json()["errorMessage"]
    assert host.invoke("fn").status == 404
    assert put(host, "fn", code).status == 201
    assert call(host, "fn") == "one"
    rest_after(host, "fn")


def test_nestctl_deploys_a_spec_that_names_a_url(host, server, workdir):
    code = server.pack("one.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'one';"})
    spec = workdir / "fn.json"
    spec.write_text(json.dumps({"name": "fn", "runtime": "nodejs", "code": code}))
    host.nestctl("deploy", spec)
    assert call(host, "fn") == "one"
    rest_after(host, "fn")


def test_a_server_that_lacks_the_file_is_named_with_its_status(host, server):
    answer = put(host, "fn", {"url": f"http://127.0.0.1:{server.port}/none?key=secret", "sha256": "0" * 64})
    assert answer.status == 422, answer
    message = answer.json()["errorMessage"]
    assert "404" in message and "/none" in message and "secret" not in message
    rest_after(host, "fn")


def test_remote_code_without_a_digest_is_refused(host, server):
    answer = put(host, "fn", {"url": f"http://127.0.0.1:{server.port}/one.tar.zst"})
    assert answer.status in (400, 422) and "sha256" in answer.json()["errorMessage"], answer
    assert server.asked("one.tar.zst") == 0


def test_later_layers_win_and_are_shared(host, server):
    base = server.pack("base.tar.zst", {"dep.js": "module.exports = 'base';", "index.js": "broken("})
    one = server.pack("one.tar.zst", {"index.js": SOURCE})
    two = server.pack("two.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'own';"})
    assert put(host, "a", one, layers=[base]).status == 201
    assert put(host, "b", two, layers=[base]).status == 201
    assert (call(host, "a"), call(host, "b")) == ("base", "own")
    assert server.asked("base.tar.zst") == 1
    host.admin("DELETE", "/v1/functions/a")
    rest_after(host, "b")


def test_what_is_preloaded_is_there_before_a_function_asks(make_host, server):
    code = server.pack("one.tar.zst", {"index.js": SOURCE, "dep.js": "module.exports = 'one';"})
    host = make_host({"preload": [code]})
    wait_for(lambda: host.admin("GET", "/v1/cache").json()["trees"], "the preload is done")
    server.stop()
    assert put(host, "fn", code).status == 201
    assert call(host, "fn") == "one"
    rest_after(host, "fn")
