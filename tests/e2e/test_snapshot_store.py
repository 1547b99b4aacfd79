# SPDX-License-Identifier: Apache-2.0
"""Snapshots that hosts share by a server: made by one, used by all, and by nobody without the secret."""

import http.server
import subprocess
import threading

import pytest

from host import wait_for
from test_snapshot import await_snapshot, cold, deploy, restores, snapshot_of

SOURCE = "const born = Math.random(); exports.handler = async () => born;"


class Store:
    """A server that keeps what is PUT and gives it to those who GET."""

    def __init__(self):
        self.files, self.asked, self.status = {}, [], None
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status, body=b""):
                self.send_response(store.status or status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_GET(self):
                store.asked.append(self.path)
                body = store.files.get(self.path)
                self.answer(200 if body else 404, body or b"none")

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not store.status:
                    store.files[self.path] = body
                self.answer(201)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/snapshots"

    def the(self, which):
        """The path of the runtime's snapshot, which is made first, or of the function's."""
        assert len(self.files) == 2, list(self.files)
        return list(self.files)[0 if which == "runtime" else 1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def store():
    server = Store()
    yield server
    server.close()


@pytest.fixture
def hosts(make_host, workdir, store):
    """Makes hosts of one pool: one server, one image of the runtimes, and by default one secret."""
    made = []

    def make(secret=b"s" * 32):
        n = len(made)
        key = workdir / f"key-{n}"
        key.write_bytes(secret)
        key.chmod(0o600)
        config = {"snapshots": {"enabled": True, "layers": True, "store": store.url, "storeKeyFile": str(key)},
                  "cache": {"imageSources": ["*"]},  # of code: a snapshot is none
                  "loader": {"retries": 0}}
        if made:
            config["runtimes"] = {"dir": str(made[0].root / "runtimes")}
        host = make_host(config, name=f"host-{n}")
        made.append(host)
        return host

    return make


def publish(hosts, store, name="shared"):
    """A first host makes a snapshot and sends it to the server; returns that host."""
    host = hosts()
    deploy(host, "nodejs", name, SOURCE)
    await_snapshot(host, name)
    try:
        wait_for(lambda: len(store.files) == 2, "the snapshots are published")
    except AssertionError as error:
        raise AssertionError(f"{error}: {list(store.files)}, asked for {store.asked}\n{host.log()}") from None
    return host


def test_a_snapshot_of_one_host_starts_workers_of_another(hosts, store):
    first = publish(hosts, store)
    born = cold(first, "shared")
    second = hosts()
    deploy(second, "nodejs", "shared", SOURCE)
    state = await_snapshot(second, "shared")
    assert state["key"] == snapshot_of(first, "shared")["key"] and state["key"] in store.the("function")
    # it was frozen after its init, which ran only once
    logs = [[line for line in host.log().splitlines() if " debug " not in line] for host in (first, second)]
    assert restores(first, "shared") == 1, logs
    assert cold(second, "shared") == born and restores(second, "shared") == 1, (logs, second.log()[-4000:])
    assert "another host's snapshot" in second.log() and "publish snapshot" not in second.log()
    metrics = second.metrics()
    assert metrics['nestlet_snapshots_exchanged_total{way="fetched"}'] == 2
    assert metrics['nestlet_snapshots_exchanged_total{way="published"}'] == 0
    trees = second.admin("GET", "/v1/cache").json()["trees"]
    assert len(trees) == 1 and trees[0]["inUse"]  # the code; the snapshot is in its own store alone


def alter(store, path):
    """Another archive under the same name: one byte of a process's memory is not what it was."""
    tar = bytearray(subprocess.run(["zstd", "-dc"], input=store.files[path], check=True,
                                   capture_output=True).stdout)
    tar[-3000] ^= 1
    store.files[path] = subprocess.run(["zstd", "-c"], input=bytes(tar), check=True,
                                       capture_output=True).stdout


def truncate(store, path):
    store.files[path] = store.files[path][:-100]


def garbage(store, path):
    store.files[path] = b"not an archive" * 1000


def fetched(host):
    return host.metrics()['nestlet_snapshots_exchanged_total{way="fetched"}']


@pytest.mark.parametrize("harm", [alter, truncate, garbage])
def test_what_was_changed_on_the_server_is_refused(hosts, store, harm):
    publish(hosts, store)
    harm(store, store.the("function"))
    second = hosts()
    deploy(second, "nodejs", "shared", SOURCE)
    await_snapshot(second, "shared")
    assert "function 'shared' version '1' starts from another host's snapshot" not in second.log()
    assert "fetch snapshot" in second.log() and fetched(second) == 1
    cold(second, "shared")
    assert restores(second, "shared") == 1  # from its own


def test_what_was_made_upon_another_runtimes_snapshot_is_refused(hosts, store):
    publish(hosts, store)
    del store.files[store.the("runtime")]
    second = hosts()
    deploy(second, "nodejs", "shared", SOURCE)
    await_snapshot(second, "shared")
    assert "that it was made upon is not here" in second.log() and fetched(second) == 0
    cold(second, "shared")
    assert restores(second, "shared") == 1  # from its own, upon its own


def test_a_host_with_another_secret_is_not_believed(hosts, store):
    publish(hosts, store)
    second = hosts(secret=b"another secret, of 32 bytes also")
    deploy(second, "nodejs", "shared", SOURCE)
    await_snapshot(second, "shared")
    assert "not sealed for this key with this host's secret" in second.log()


def test_another_snapshot_under_this_ones_name_is_refused(hosts, store):
    first = publish(hosts, store)
    deploy(first, "nodejs", "other", SOURCE + " // other")
    await_snapshot(first, "other")
    wait_for(lambda: len(store.files) == 3, "both are published")
    wrong = store.files[f"/snapshots/{snapshot_of(first, 'other')['key']}.tar.zst"]
    store.files[f"/snapshots/{snapshot_of(first, 'shared')['key']}.tar.zst"] = wrong
    second = hosts()
    deploy(second, "nodejs", "shared", SOURCE)
    await_snapshot(second, "shared")
    assert "not sealed for this key" in second.log()


def test_a_server_that_fails_costs_only_a_line(hosts, store):
    store.status = 503
    host = hosts()
    deploy(host, "nodejs", "alone", SOURCE)
    await_snapshot(host, "alone")
    cold(host, "alone")
    assert restores(host, "alone") == 1
    wait_for(lambda: "publish snapshot" in host.log(), "the failure is told")
    assert "the server answers 503" in host.log()


def test_a_store_without_a_secret_or_with_one_that_others_read_is_an_error(make_host, workdir, store):
    host = make_host({"snapshots": {"enabled": True, "store": store.url}}, start=False)
    assert host.start(expect_ready=False) != 0
    assert "snapshots.storeKeyFile" in host.log()
    key = workdir / "open-key"
    key.write_bytes(b"s" * 32)
    key.chmod(0o644)
    host.config["snapshots"]["storeKeyFile"] = str(key)
    assert host.start(expect_ready=False) != 0
    assert "nobody else can read" in host.log()
