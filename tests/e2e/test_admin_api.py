# SPDX-License-Identifier: Apache-2.0
"""The admin API as docs/admin-api.md tells it, spoken without nestctl."""

import gzip
import hashlib
import io
import json
import lzma
import os
import re
import socket
import stat
import subprocess
import tarfile
import zipfile

import pytest

from host import PATIENCE, TOP, UnixConnection, wait_for
from wire import Wire, request

HANDLER = b"exports.handler = async () => 'from an artifact';"
SPEC = {"runtime": "nodejs", "handler": "index.handler"}


def tar(files, **kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **kind) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def lz4(data):
    return subprocess.run(["lz4", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def put(host, name, spec):
    return host.admin("PUT", f"/v1/functions/{name}", json.dumps(spec))


def upload(host, data):
    answer = host.admin("POST", "/v1/artifacts", data)
    assert answer.status == 201, answer
    return answer.json()["digest"]


def refused(answer, status, error_type, *texts):
    assert (answer.status, answer.error_type) == (status, error_type), answer
    assert set(answer.json()) == {"errorType", "errorMessage"}, answer
    for text in texts:
        assert text in answer.json()["errorMessage"], answer


def test_every_documented_request_is_there_and_takes_no_other_method(host):
    text = (TOP / "docs" / "admin-api.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (/[^`]*)` \|", text, re.M)
    assert len(rows) >= 14
    for method, path in rows:
        path = re.sub(r"\[.*", "", path).replace("{name}", "nobody")
        other = host.admin("PATCH", path)
        refused(other, 405, "Request.Invalid", path)
        if path.endswith("/drain"):
            continue  # has a test of its own
        answer = host.admin(method, path)
        if answer.headers["content-type"] == "application/json" and answer.status >= 400:
            assert answer.error_type != "Request.Invalid" or answer.status == 400, answer
    refused(host.admin("GET", "/v2/functions"), 404, "Request.Invalid", "/v2/functions")


def test_probes_host_and_features(host):
    for path, body in (("/healthz", b"ok\n"), ("/readyz", b"ready\n")):
        answer = host.admin("GET", path)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, body, "text/plain")
    seen = host.admin("GET", "/v1/host").json()
    assert (seen["pid"], seen["state"]) == (host.pid, "ready")
    assert seen["gatewaySocket"] == str(host.gateway_socket)
    assert {"nodejs", "python"} <= set(seen["runtimes"]) and re.match(r"\d", seen["version"])
    wait_for(lambda: host.admin("GET", "/v1/features").json()["features"], "features are known")


def test_the_socket_is_for_its_owner_alone(host):
    assert stat.S_IMODE(os.stat(host.admin_socket).st_mode) == 0o600
    code = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError: sys.exit(7)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(host.admin_socket)], user=65534, group=65534, check=False
    )
    assert done.returncode == 7


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst", "tar.lz4", "zip"])
def test_an_artifact_of_each_form_is_uploaded_and_deployed(host, form):
    files = {"index.js": HANDLER, "lib/data.txt": b"x" * 100000}
    data = {
        "tar": lambda: tar(files),
        "tar.gz": lambda: gzip.compress(tar(files)),
        "tar.zst": lambda: zstd(tar(files)),
        "tar.lz4": lambda: lz4(tar(files)),
        "zip": lambda: zipped(files),
    }[form]()
    answer = host.admin("POST", "/v1/artifacts", data)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert (answer.status, answer.json()["digest"]) == (201, digest), answer
    answer = put(host, "up", {**SPEC, "code": {"digest": digest}})
    assert (answer.status, answer.json()) == (201, {"name": "up", "version": "1", "created": True})
    assert host.invoke("up").json() == "from an artifact"
    answer = put(host, "up", {**SPEC, "code": {"digest": digest}})
    assert (answer.status, answer.json()) == (200, {"name": "up", "version": "1", "created": False})


def test_an_artifact_may_come_in_chunks_and_half_of_one_leaves_nothing(host):
    data = gzip.compress(tar({"index.js": HANDLER, "big": os.urandom(1 << 20)}))
    with Wire(host.admin_socket) as wire:
        wire.send(request("POST", "/v1/artifacts", None, "transfer-encoding: chunked"))
        for i in range(0, len(data), 30000):
            piece = data[i : i + 30000]
            wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        wire.send(b"0\r\n\r\n")
        response = wire.response()
        assert response.status == 201, response
    staging = host.root / "state" / "code" / "staging"
    wait_for(lambda: not list(staging.iterdir()), "the archive, which is a tree now, is swept")
    before = sorted(p.name for p in (host.root / "state").rglob("*"))
    with Wire(host.admin_socket) as wire:
        wire.send(request("POST", "/v1/artifacts", None, f"content-length: {len(data)}"))
        wire.send(data[: len(data) // 2])
        wire.sock.shutdown(socket.SHUT_WR)
        wire.file.read()
    wait_for(lambda: sorted(p.name for p in (host.root / "state").rglob("*")) == before, "it is gone")


def test_what_is_no_artifact_is_refused(host):
    refused(host.admin("POST", "/v1/artifacts"), 400, "Request.Invalid", "no bytes")
    good = tar({"index.js": HANDLER})
    for data in (b"neither tar nor zip" * 100, gzip.compress(good)[:-20], lzma.compress(good)):
        answer = host.admin("POST", "/v1/artifacts", data)
        assert answer.status in (400, 422) and answer.json()["errorMessage"], answer
    escape = tar({"../../escape.txt": b"x"})
    answer = host.admin("POST", "/v1/artifacts", escape)
    assert answer.status in (400, 422) and "escape" in answer.json()["errorMessage"], answer
    missing = put(host, "up", {**SPEC, "code": {"digest": "sha256:" + "0" * 64}})
    assert missing.status in (404, 422) and "sha256:0000" in missing.json()["errorMessage"], missing


def test_a_wrong_spec_names_what_is_wrong_and_deploys_nothing(host):
    code = {"code": {"digest": upload(host, tar({"index.js": HANDLER}))}}
    cases = [
        ({**SPEC, **code, "memoryMB": 5}, "memoryMb"),  # did you mean
        ({**SPEC, **code, "memoryMb": "much"}, "memoryMb"),
        ({**SPEC, **code, "timeoutMs": -1}, "timeoutMs"),
        ({**SPEC, **code, "name": "another"}, "another"),
        ({**SPEC, **code, "version": "no/slash"}, "version"),
        ({**SPEC, **code, "routes": [{"host": "x"}]}, "path"),
        ({**SPEC, **code, "env": {"LD_PRELOAD": "x"}}, "LD_PRELOAD"),
        ({**SPEC, "code": {"path": "relative"}}, "code.path"),
        ({**SPEC}, "code"),
        ({**code, "handler": "x.y"}, "runtime"),
        ([], "object"),
    ]
    for spec, text in cases:
        refused(put(host, "bad", spec), 400, "Request.Invalid", text)
    refused(host.admin("PUT", "/v1/functions/bad", "{]"), 400, "Request.Invalid")
    refused(put(host, "no%20name", {**SPEC, **code}), 400, "Request.Invalid")
    refused(host.admin("PUT", "/v1/functions/bad", b" " * (2 << 20)), 413, "Request.TooLarge")
    answer = put(host, "bad", {**SPEC, **code, "runtime": "cobol"})
    assert answer.status in (400, 422) and "cobol" in answer.json()["errorMessage"]
    assert host.admin("GET", "/v1/functions").json() == {"functions": []}


def test_versions_are_immutable_and_removal_is_exact(host):
    code = {"code": {"digest": upload(host, tar({"index.js": HANDLER}))}}
    assert put(host, "f", {**SPEC, **code, "version": "a"}).status == 201
    assert put(host, "f", {**SPEC, **code, "version": "a"}).status == 200
    refused(put(host, "f", {**SPEC, **code, "version": "a", "memoryMb": 99}), 409, "Function.Exists", "'a'")
    assert put(host, "f", {**SPEC, **code, "version": "b"}).status == 201
    refused(host.admin("DELETE", "/v1/functions/f?version=b"), 409, "Function.Busy", "live")
    refused(host.admin("DELETE", "/v1/functions/f?version=c"), 404, "Function.NotFound", "c")
    answer = host.admin("DELETE", "/v1/functions/f?version=a")
    assert (answer.status, answer.json()) == (200, {})
    assert [v["version"] for v in host.function("f")["versions"]] == ["b"]
    assert host.admin("DELETE", "/v1/functions/f").status == 200
    refused(host.admin("DELETE", "/v1/functions/f"), 404, "Function.NotFound", "'f'")
    for path in ("/v1/functions/f", "/v1/functions/f/logs"):
        refused(host.admin("GET", path), 404, "Function.NotFound", "'f'")


def test_functions_of_the_config_belong_to_it(make_host, workdir):
    code = workdir / "owned"
    code.mkdir()
    (code / "index.js").write_text("exports.handler = async () => 'config';")
    owned = {"name": "owned", **SPEC, "code": {"path": str(code)}}
    host = make_host({"functions": [owned]})
    assert host.invoke("owned").json() == "config"
    digest = upload(host, tar({"index.js": HANDLER}))
    refused(put(host, "owned", {**SPEC, "code": {"digest": digest}}), 403, "Function.OwnedByConfig", "owned")
    refused(host.admin("DELETE", "/v1/functions/owned"), 403, "Function.OwnedByConfig", "owned")
    assert host.invoke("owned").json() == "config"


def test_logs_follow_as_a_stream(host):
    host.deploy_node("f", "exports.handler = async (e) => console.log(e.n);")
    host.invoke("f", {"n": "first"})
    wait_for(lambda: host.admin("GET", "/v1/functions/f/logs").body, "it is logged")
    with Wire(host.admin_socket) as wire:
        wire.send(request("GET", "/v1/functions/f/logs?tail=10&follow=1", None))
        head = wire.head()
        assert (head.status, head.get("content-type")) == (200, "application/x-ndjson")
        text = wire.chunk()
        for n in ("second", "third"):
            host.invoke("f", {"n": n})
            while n.encode() not in text:
                text += wire.chunk()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["message"] for line in lines] == ["first", "second", "third"]
        host.admin("DELETE", "/v1/functions/f")
        assert wire.chunks().strip() == b""  # the stream ends


def test_drain_is_answered_and_the_host_ends(host):
    host.note_pids()
    answer = host.admin("POST", "/v1/drain")
    assert (answer.status, answer.json()) == (202, {})
    assert host.process.wait(PATIENCE) == 0


def test_a_host_that_starts_again_has_what_was_deployed(host):
    digest = upload(host, tar({"index.js": HANDLER}))
    for version in ("a", "b"):
        assert put(host, "f", {**SPEC, "version": version, "code": {"digest": digest}}).status == 201
    assert host.stop() == 0
    host.start()
    for name in ("f", "f:a", "f:b"):
        assert host.invoke(name).json() == "from an artifact"
    assert host.invoke("f").headers["x-amz-executed-version"] == "b"


def test_the_documented_deploy_by_curl_works(host):
    text = (TOP / "docs" / "admin-api.md").read_text()
    [script] = re.findall(r"```\n(tar -C hello.*?)```", text, re.S)
    (host.root / "hello").mkdir()
    (host.root / "hello" / "index.js").write_bytes(HANDLER)
    assert script.count("/run/nestlet/admin.sock") == 2
    script = script.replace("/run/nestlet/admin.sock", str(host.admin_socket))
    first, second = script.split("\ncurl ", 1)
    done = subprocess.run(["sh", "-c", first], cwd=host.root, capture_output=True, text=True, check=True)
    digest = json.loads(done.stdout)["digest"]
    second = "curl -sS " + second.replace("sha256:...", digest)
    done = subprocess.run(["sh", "-c", second], cwd=host.root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"name": "hello", "version": "1", "created": True}
    assert host.invoke("hello").json() == "from an artifact"


def test_many_admin_connections_at_once_are_answered(host):
    connections = [UnixConnection(host.admin_socket) for _ in range(60)]
    for connection in connections:
        connection.request("GET", "/v1/workers")
    for connection in connections:
        assert json.loads(connection.getresponse().read()) == {"workers": []}
        connection.close()
