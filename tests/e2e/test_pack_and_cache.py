# SPDX-License-Identifier: Apache-2.0
"""Packing code, images that are mounted instead of unpacked, and an operator's hand on the cache."""

import contextlib
import hashlib
import http.server
import json
import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest

from host import NESTCTL, wait_for
from test_snapshot import await_snapshot, cold, quiet, restores
from test_standby import await_standing, rungs

IMAGES = {"cache": {"imageSources": ["admin"]}}
SOURCE = """
const fs = require('fs');
exports.handler = async () => ({
  mount: fs.readFileSync('/proc/mounts', 'utf8').split('\\n').filter((l) => l.includes(' /function ')),
  dep: fs.readFileSync('/function/lib/dep.txt', 'utf8'),
});
"""
SPEC = {"runtime": "nodejs", "handler": "index.handler"}


def erofs_mounts():
    """The EROFS file systems that the kernel has, in whatever namespace."""
    top = Path("/sys/fs/erofs")
    return {e.name for e in top.iterdir() if e.name != "features"} if top.exists() else set()


@pytest.fixture(autouse=True)
def before():
    """What is mounted when no host is up, which is all at the end too. A host that starts mounts for a moment."""
    before = erofs_mounts()
    yield before
    wait_for(lambda: erofs_mounts() <= before, "images are unmounted")


@pytest.fixture
def code(workdir):
    directory = workdir / "code"
    (directory / "lib").mkdir(parents=True)
    (directory / "index.js").write_text(SOURCE)
    (directory / "lib" / "dep.txt").write_text("a layer's file\n")
    (directory / "lib" / "run").write_text("#!/bin/sh\n")
    (directory / "lib" / "run").chmod(0o700)
    (directory / "link").symlink_to("lib/dep.txt")
    (directory / ".git").mkdir()
    (directory / ".git" / "HEAD").write_text("left out")
    return directory


def nestctl(*args, check=True):
    done = subprocess.run(
        [str(NESTCTL), *map(str, args)], capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done
    return done


def pack(directory, output, kind):
    return json.loads(nestctl("pack", directory, "-o", output, "--format", kind, "--json").stdout)


def pack_plainly(directory, output):
    """An archive that becomes no image."""
    subprocess.run(["tar", "-czf", str(output), "-C", str(directory), "--exclude=.git", "."], check=True)
    return output


def upload(host, path):
    return host.admin("POST", "/v1/artifacts", Path(path).read_bytes())


def deploy_digest(host, name, digest):
    spec = {"name": name, "code": {"digest": digest}, **SPEC}
    return host.admin("PUT", f"/v1/functions/{name}", json.dumps(spec))


def deploy_image(host, workdir, code, name="fn"):
    pack(code, workdir / "code.erofs", "erofs")
    answer = upload(host, workdir / "code.erofs")
    assert answer.status == 201, answer
    digest = answer.json()["digest"]
    answer = deploy_digest(host, name, digest)
    assert answer.status == 201, answer
    return digest


def unpacked_warnings(host):
    return host.log().count("is unpacked, as its image can't be mounted: ")


def cached(host):
    return {t["digest"]: t for t in host.admin("GET", "/v1/cache").json()["trees"]}


# ---- pack ----


@pytest.mark.parametrize("kind", ["tar.zst", "erofs"])
def test_the_same_content_packs_to_the_same_bytes(workdir, code, kind):
    one = pack(code, workdir / "one", kind)
    subprocess.run(["cp", "-r", str(code), str(workdir / "copy")], check=True)
    subprocess.run(["chmod", "-R", "go=", str(workdir / "copy")], check=True)
    (workdir / "copy" / "nestlet.json").write_text("{}")
    os.utime(workdir / "copy" / "index.js", (1, 1))
    two = pack(workdir / "copy", workdir / "two", kind)
    assert (workdir / "one").read_bytes() == (workdir / "two").read_bytes()
    sha256 = hashlib.sha256((workdir / "one").read_bytes()).hexdigest()
    assert one["digest"] == two["digest"] == f"sha256:{sha256}"
    assert one["bytes"] == (workdir / "one").stat().st_size
    assert one["files"] == 3
    said = nestctl("pack", code, "-o", workdir / "one", "--format", kind).stdout
    assert f'"sha256": "{sha256}", "size": {one["bytes"]}' in said
    (workdir / "copy" / "lib" / "dep.txt").write_text("other")
    assert pack(workdir / "copy", workdir / "two", kind)["digest"] != one["digest"]


def test_an_archive_is_many_frames_that_any_tar_reads(workdir, code):
    (code / "big").write_bytes(os.urandom(3 << 20))
    for name in (b"caf\xc3\xa9", b"caf\xe9"):
        Path(os.fsdecode(bytes(code) + b"/" + name)).write_bytes(name)
    pack(code, workdir / "code.tar.zst", "tar.zst")
    listed = subprocess.run(
        ["zstd", "-lv", str(workdir / "code.tar.zst")], capture_output=True, text=True, check=True
    ).stdout
    assert "Skippable Frames: 1" in listed and "Check: XXH64" in listed
    assert "# Zstandard Frames: 4" in listed, listed
    (workdir / "out").mkdir()
    said = subprocess.run(
        ["tar", "--zstd", "-xf", str(workdir / "code.tar.zst"), "-C", str(workdir / "out")],
        check=True,
        capture_output=True,
    )
    # the names that are not ASCII say that they are bytes, which tar heeds and doesn't know
    assert said.stderr.count(b"hdrcharset") <= 2, said.stderr
    subprocess.run(["diff", "-r", "-x.git", str(code), str(workdir / "out")], check=True)
    assert (workdir / "out" / "lib" / "run").stat().st_mode & 0o777 == 0o755


def test_pack_shows_on_a_terminal_how_far_it_is(workdir, code):
    (code / "large").write_bytes(os.urandom(4 << 20))
    command = [str(NESTCTL), "pack", str(code), "-o", str(workdir / "code.tar.zst")]
    terminal, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # at the end of what is shown
            while piece := os.read(terminal, 4096):
                shown += piece
        said = process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0 and "sha256:" in said and "\r" not in said
    shares = [int(share) for share in re.findall(rb"(\d+) ?%", shown)]
    assert len(shares) > 2 and shares == sorted(shares) and shares[-1] <= 100, shown
    assert shown.endswith(b"\r\x1b[K"), shown  # and it makes room for what comes next


def test_pack_says_what_is_wrong(workdir, code):
    gone = nestctl("pack", workdir / "gone", "-o", workdir / "x", check=False)
    assert gone.returncode == 1 and "No such file" in gone.stderr
    odd = nestctl("pack", code, "--format", "rar", check=False)
    assert odd.returncode == 2 and "tar.zst or erofs" in odd.stderr
    os.mkfifo(code / "fifo")
    fifo = nestctl("pack", code, "-o", workdir / "x", "--format", "erofs", check=False)
    assert fifo.returncode == 1 and "fifo" in fifo.stderr
    assert not (workdir / "x").exists()


# ---- images ----


def test_an_image_is_mounted_once_for_all_its_functions(before, make_host, workdir, code):
    host = make_host(IMAGES)
    digest = deploy_image(host, workdir, code)
    assert deploy_digest(host, "twin", digest).status == 201
    for name in ("fn", "twin"):
        answer = host.invoke(name).json()
        assert answer["dep"] == "a layer's file\n"
        (mount,) = answer["mount"]
        assert " erofs ro,nosuid,nodev," in mount
    wait_for(lambda: len(erofs_mounts() - before) == 1, "it is mounted once")
    assert cached(host)[digest]["kind"] == "image" and cached(host)[digest]["inUse"]
    for name in ("fn", "twin"):
        host.nestctl("rm", name)
    wait_for(lambda: erofs_mounts() == before, "the image is unmounted")
    assert not cached(host)[digest]["inUse"]


def test_an_image_survives_a_restart_and_a_kill(before, make_host, workdir, code):
    host = make_host(IMAGES)
    deploy_image(host, workdir, code)
    host.kill()
    wait_for(lambda: erofs_mounts() == before, "the image is unmounted")
    host.start()
    assert host.invoke("fn").json()["dep"] == "a layer's file\n"


def test_images_are_unpacked_unless_their_source_is_named(before, make_host, workdir, code):
    pack(code, workdir / "code.erofs", "erofs")
    for number, config in enumerate(({}, {"cache": {"imageSources": ["https://example.com/"]}})):
        host = make_host(config, name=f"host{number}")
        digest = deploy_image(host, workdir, code)
        assert cached(host)[digest]["kind"] == "directory"
        assert host.invoke("fn").json()["dep"] == "a layer's file\n"
        wait_for(lambda: erofs_mounts() == before, "none is mounted")


@pytest.fixture
def no_mountable_state(workdir):
    """A state directory whose files can only be mounted by a loop device, and none of these."""
    state = workdir / "host" / "state"
    state.mkdir(parents=True)
    mounts = [("-t", "tmpfs", "-o", "mode=0755", "tmpfs", state), ("--bind", "/dev/null", "/dev/loop-control")]
    for mount in mounts:
        subprocess.run(["mount", *map(str, mount)], check=True)
    yield
    for mount in reversed(mounts):
        subprocess.run(["umount", str(mount[-1])], check=True)


def test_images_are_unpacked_where_none_can_be_mounted(no_mountable_state, make_host, workdir, code):
    host = make_host(IMAGES)
    assert "images are unpacked, none is mounted: " in host.log()
    digest = deploy_image(host, workdir, code)
    assert cached(host)[digest]["kind"] == "directory"
    assert host.invoke("fn").json()["dep"] == "a layer's file\n"


def test_an_image_that_only_the_kernel_refuses_is_unpacked(before, make_host, workdir, code):
    host = make_host(IMAGES)
    (code / "big").write_bytes(os.urandom(1 << 16))
    pack(code, workdir / "code.erofs", "erofs")
    whole = (workdir / "code.erofs").read_bytes()
    (workdir / "bad").write_bytes(whole[: len(whole) // 8192 * 4096])
    assert "cut short" in upload(host, workdir / "bad").json()["errorMessage"]
    # a superblock that only the kernel sees through
    (workdir / "bad").write_bytes(whole[:1028] + b"\x00\x00\x00\x00" + whole[1032:])
    digest = upload(host, workdir / "bad").json()["digest"]
    assert deploy_digest(host, "fn", digest).status == 201
    assert unpacked_warnings(host) == 1 and "mount code image" in host.log()
    assert host.invoke("fn").json()["dep"] == "a layer's file\n"
    wait_for(lambda: erofs_mounts() == before, "none is mounted")


# ---- archives that become images ----

LAZY = """
const fs = require('node:fs');
const crypto = require('node:crypto');
exports.handler = async (event) => event.file
  ? crypto.createHash('sha256').update(fs.readFileSync('/function/' + event.file)).digest('hex')
  : fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').filter((l) => l.split(' ')[4] === '/function');
"""


@pytest.fixture
def large_code(code):
    """Code over several frames, and a file that nothing reads but an event that asks for it."""
    (code / "index.js").write_text(LAZY)
    (code / "lazy").write_bytes(os.urandom(3 << 20))
    (code / "later").write_bytes(b"later " * 100000)
    return code


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reads(host, name, code, ask=None):
    """The function gets whole files of its code, and says by what they are mounted."""
    ask = ask or (lambda event: host.invoke(name, event).json())
    for file in ("lazy", "later", "lib/dep.txt"):
        assert ask({"file": file}) == sha256(code / file)
    (mount,) = ask({})
    return mount


@pytest.mark.parametrize("way", ["upload", "http"])
def test_an_archive_of_nestctls_is_mounted_as_it_came(before, make_host, workdir, large_code, server, way):
    host = make_host({"cache": {"imageSources": ["admin" if way == "upload" else f"{server.url}/"]}})
    if way == "http":
        fetch_for_the_first_time(host, server)
    digest = pack(large_code, workdir / "code.tar.zst", "tar.zst")["digest"]
    origin = {"url": f"{server.url}/code.tar.zst", "sha256": digest[7:]}
    if way == "upload":
        assert upload(host, workdir / "code.tar.zst").json()["digest"] == digest
        origin = {"digest": digest}
    spec = {"name": "fn", "code": origin, **SPEC}
    answer = host.admin("PUT", "/v1/functions/fn", json.dumps(spec))
    assert answer.status == 201, answer
    assert " - erofs " in reads(host, "fn", large_code)
    (worker,) = host.workers()
    with open(f"/proc/{worker['pid']}/mountinfo", encoding="utf-8") as file:
        assert [line for line in file if " /function ro,nosuid,nodev" in line and " - erofs " in line]
    (row,) = [line for line in host.nestctl("cache", "list").stdout.splitlines() if digest in line]
    assert " image " in row, row
    tree = host.root / "state" / "code" / "trees" / digest[7:]
    assert [entry.name for entry in tree.iterdir()] == ["image.erofs"]
    wait_for(lambda: len(erofs_mounts() - before) == 1, "it is mounted once")
    assert unpacked_warnings(host) == 0


def test_a_directory_that_is_deployed_is_mounted_too(make_host):
    host = make_host(IMAGES)
    host.deploy_node("fn", LAZY)
    assert " - erofs " in host.invoke("fn").json()[0]
    assert [tree["kind"] for tree in cached(host).values()] == ["image"]


def test_what_was_made_an_image_is_unpacked_where_none_is_mounted_any_more(before, make_host, workdir, large_code):
    host = make_host(IMAGES)
    pack(large_code, workdir / "code.tar.zst", "tar.zst")
    digest = upload(host, workdir / "code.tar.zst").json()["digest"]
    assert deploy_digest(host, "fn", digest).status == 201
    assert " - erofs " in reads(host, "fn", large_code)
    assert host.stop() == 0
    for _ in range(2):
        host.config["cache"] = {"imageSources": []}
        warned = unpacked_warnings(host)
        host.start()
        assert " - erofs " not in reads(host, "fn", large_code)
        assert unpacked_warnings(host) == warned + 1
        assert sorted(tree["kind"] for tree in cached(host).values()) == ["directory", "image"]
        wait_for(lambda: erofs_mounts() == before, "none is mounted")
        assert host.stop() == 0
    host.config["cache"] = IMAGES["cache"]
    host.start()
    assert " - erofs " in reads(host, "fn", large_code)
    assert host.nestctl("cache", "verify").returncode == 0


def test_an_image_that_was_damaged_on_the_disk_can_be_had_again(make_host, workdir, large_code):
    host = make_host(IMAGES)
    pack(large_code, workdir / "code.tar.zst", "tar.zst")
    digest = upload(host, workdir / "code.tar.zst").json()["digest"]
    assert deploy_digest(host, "fn", digest).status == 201
    assert host.stop() == 0
    image = host.root / "state" / "code" / "trees" / digest[7:] / "image.erofs"
    whole = image.read_bytes()
    image.write_bytes(whole[:1024] + bytes(4) + whole[1028:])
    host.start()
    (version,) = host.function("fn")["versions"]
    assert version["state"] == "failed" and "no EROFS image" in version["lastFailure"], version
    # an attempt to deploy it may be using it
    wait_for(lambda: "1 damaged and removed" in host.nestctl("cache", "verify", check=False).stdout, "it is removed")
    assert upload(host, workdir / "code.tar.zst").json()["digest"] == digest
    # it is tried again and again, sooner at first
    wait_for(lambda: host.invoke("fn").status == 200, "it is deployed")
    assert " - erofs " in reads(host, "fn", large_code)


@pytest.mark.parametrize("standby", [0, None])
def test_a_clone_reads_what_its_snapshot_has_not_read(make_host, workdir, large_code, standby):
    ahead = {"standby": {"memory": 0}} if standby == 0 else {}
    host = make_host({**IMAGES, **ahead, "snapshots": {"enabled": True}})
    pack(large_code, workdir / "code.tar.zst", "tar.zst")
    digest = upload(host, workdir / "code.tar.zst").json()["digest"]
    spec = {"name": "fn", "code": {"digest": digest}, "workers": {"max": 2, "idleMs": 100}, **SPEC}
    answer = host.admin("PUT", "/v1/functions/fn", json.dumps(spec))
    assert answer.status == 201, answer
    await_snapshot(host, "fn")
    quiet(host, "fn")
    if standby is None:
        await_standing(host, "fn")
    assert " - erofs " in reads(host, "fn", large_code, lambda event: cold(host, "fn", event))
    assert restores(host, "fn") > 0
    used = rungs(host, "fn")
    assert used["plain"] == 0 and used["standby" if standby is None else "snapshot"] > 0, used


# ---- the cache ----


def test_what_is_in_use_stays_in_the_cache(make_host):
    host = make_host()
    host.deploy_node("fn", "exports.handler = async () => 1;")
    (digest,) = cached(host)
    refused = host.nestctl("cache", "rm", digest, check=False)
    assert refused.returncode == 1 and "in use" in refused.stderr
    assert host.admin("DELETE", f"/v1/cache/{digest}").status == 409
    assert digest in host.nestctl("cache", "list").stdout
    host.nestctl("rm", "fn")
    wait_for(lambda: not cached(host)[digest]["inUse"], "the code is given back")
    host.nestctl("cache", "rm", digest)
    assert cached(host) == {}
    assert host.admin("DELETE", f"/v1/cache/{digest}").status == 404
    assert host.admin("DELETE", "/v1/cache/sha256:1").status == 400
    trees = host.root / "state" / "code" / "trees"
    assert not list(trees.iterdir())


def test_verify_finds_what_changed_on_the_disk(make_host, workdir, code):
    host = make_host(IMAGES)
    image = deploy_image(host, workdir, code)
    archive = upload(host, pack_plainly(code, workdir / "code.tar.gz")).json()["digest"]
    trees = host.root / "state" / "code" / "trees"
    known = trees / f"{archive[7:]}.json"
    wait_for(lambda: json.loads(known.read_text())["content"], "its content is noted")
    # no verification before this one: what was unpacked is what is compared with
    with open(trees / archive[7:] / "lib" / "dep.txt", "r+b") as file:
        file.write(b"X")
    with open(trees / image[7:] / "image.erofs", "r+b") as file:
        file.write(b"X")
    found = host.nestctl("cache", "verify", check=False)
    assert found.returncode == 1
    assert f"damaged: {archive}" in found.stdout and f"damaged: {image}" in found.stdout
    assert "1 damaged and removed, 1 damaged and in use" in found.stdout
    assert list(cached(host)) == [image]
    # what is mounted is another copy
    assert host.invoke("fn").json()["dep"] == "a layer's file\n"
    assert upload(host, workdir / "code.tar.gz").json()["digest"] == archive
    wait_for(lambda: json.loads(known.read_text())["content"], "its content is noted")
    again = json.loads(host.nestctl("cache", "verify", "--json", check=False).stdout)
    assert again == {"trees": 2, "recorded": 0, "removed": 0, "inUse": 1, "damaged": [image]}


class Server:
    """A directory over HTTP on loopback, which notes what it was asked for."""

    def __init__(self, directory):
        asked = self.asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(directory))

            def log_message(self, *args):
                asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(workdir):
    server = Server(workdir)
    yield server
    server.close()


def fetch_for_the_first_time(host, server):
    """What the HTTP client makes once, and keeps, is no leak."""
    host.nestctl("cache", "prefetch", f"{server.url}/gone", "sha256:" + "0" * 64, check=False)
    host.fds_at_rest = host.settled_fds()


@pytest.mark.parametrize("kind", ["tar.zst", "erofs"])
def test_what_was_prefetched_is_deployed_without_a_download(
    make_host, workdir, code, server, kind
):
    host = make_host({"cache": {"imageSources": [f"{server.url}/"]}})
    fetch_for_the_first_time(host, server)
    packed = pack(code, workdir / f"code.{kind}", kind)
    url = f"{server.url}/code.{kind}"
    done = host.nestctl("cache", "prefetch", url, packed["digest"], str(packed["bytes"]))
    assert packed["digest"] in done.stdout
    assert cached(host)[packed["digest"]]["kind"] == "image"
    server.asked.clear()
    assert deploy_digest(host, "fn", packed["digest"]).status == 201
    assert host.invoke("fn").json()["dep"] == "a layer's file\n"
    host.nestctl("cache", "prefetch", url, packed["digest"])
    assert server.asked == []


def test_a_prefetch_that_fails_says_why(make_host, workdir, code, server):
    host = make_host()
    fetch_for_the_first_time(host, server)
    pack(code, workdir / "code.tar.zst", "tar.zst")
    wrong = "sha256:" + "0" * 64
    bad = host.nestctl("cache", "prefetch", f"{server.url}/code.tar.zst", wrong, check=False)
    assert bad.returncode == 1 and "sha256" in bad.stderr
    gone = host.nestctl("cache", "prefetch", f"{server.url}/gone", wrong, check=False)
    assert gone.returncode == 1 and "404" in gone.stderr
    longer = host.nestctl("cache", "prefetch", f"{server.url}/code.tar.zst", wrong, "7", check=False)
    assert longer.returncode == 1 and "bytes long, not 7" in longer.stderr
    word = host.nestctl("cache", "prefetch", f"{server.url}/code.tar.zst", wrong, "7 MB", check=False)
    assert word.returncode == 2 and "SIZE" in word.stderr
    none = host.admin("POST", "/v1/cache/prefetch", "{}")
    assert none.status == 400 and "url" in none.json()["errorMessage"]
    assert cached(host) == {}
    odd = host.nestctl("cache", "burn", check=False)
    assert odd.returncode == 2 and "prefetch" in odd.stderr
