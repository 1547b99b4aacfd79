# SPDX-License-Identifier: Apache-2.0
"""How a host starts: readiness, one host a state directory, without root, and what --check tells of a machine."""

import json
import os
import socket
import subprocess
from pathlib import Path

from host import BUILD, NESTLETD, PATIENCE, Host, processes, wait_for
from neighbour import assert_refused

NOBODY = 65534
ECHO = "exports.handler = async (event) => ({ uid: process.getuid(), ...event });"


class NobodysHost(Host):
    """A host that an ordinary user starts, in directories of that user's."""

    def command(self, write_fd):
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] + super().command(
            write_fd
        )

    def own_directories(self):
        for path in (self.root, self.root / "state", self.root / "run"):
            path.mkdir(exist_ok=True)
            os.chown(path, NOBODY, NOBODY)


def notify_socket(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    sock.settimeout(PATIENCE)
    return sock


def test_notify_socket_is_told_of_readiness_and_of_the_end(make_host):
    host = make_host({}, start=False)
    path = str(host.root / "notify.sock")
    with notify_socket(path) as sock:
        host.environment = {"NOTIFY_SOCKET": path}
        host.start()
        assert sock.recv(100) == b"READY=1"
        host.deploy_node("env", "exports.handler = async () => Object.keys(process.env);")
        assert "NOTIFY_SOCKET" not in host.invoke("env").json()
        host.stop()
        assert sock.recv(100) == b"STOPPING=1"


def test_an_abstract_notify_socket_works_too(make_host):
    host = make_host({}, start=False)
    name = f"nestlet-e2e-{os.getpid()}"
    with notify_socket("\0" + name) as sock:
        host.environment = {"NOTIFY_SOCKET": "@" + name}
        host.start()
        assert sock.recv(100) == b"READY=1"


def test_a_notify_socket_that_is_none_is_an_error_that_names_it(make_host):
    host = make_host({}, start=False)
    host.environment = {"NOTIFY_SOCKET": "relative.sock"}
    assert host.start(expect_ready=False) == 1
    assert "NOTIFY_SOCKET is 'relative.sock'" in host.log()


def test_a_second_host_on_one_state_directory_is_refused_and_the_first_serves_on(make_host):
    first = make_host()
    first.deploy_node("echo", ECHO)
    second = make_host({}, start=False, name="second")
    second.config["stateDir"] = first.config["stateDir"]
    assert second.start(expect_ready=False) == 1
    assert first.config["stateDir"] in second.log() and "another host" in second.log()
    assert first.invoke("echo", {"n": 1}).json()["n"] == 1


def test_a_second_host_on_one_run_directory_does_not_take_the_first_ones_sockets(make_host):
    first = make_host()
    first.deploy_node("echo", ECHO)
    second = make_host({}, start=False, name="second")
    second.config["runDir"] = first.config["runDir"]
    assert second.start(expect_ready=False) == 1
    assert "admin.sock" in second.log(), second.log()
    assert first.invoke("echo", {"n": 1}).json()["n"] == 1
    assert first.admin("GET", "/readyz").status == 200


def test_two_hosts_side_by_side_do_not_meddle(make_host):
    first, second = make_host(name="first"), make_host(name="second")
    for host in (first, second):
        host.deploy_node("echo", ECHO)
        assert host.invoke("echo", {"n": 1}).json()["n"] == 1
    first.stop()
    assert second.invoke("echo", {"n": 2}).json()["n"] == 2


def test_the_agent_has_no_privilege_and_the_spawner_only_what_it_needs(make_host):
    host = make_host({"user": "12345"})

    def status(pid):
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file)

    agent, spawner = status(host.pid), status(host.spawner_pid())
    assert agent["Uid"].split() == agent["Gid"].split() == ["12345"] * 4
    assert agent["Groups"].strip() == ""
    assert [agent[k] for k in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == ["0" * 16] * 4
    assert agent["NoNewPrivs"] == "1"
    assert spawner["Uid"].split() == ["0"] * 4
    assert int(spawner["CapPrm"], 16) < int(status(os.getpid())["CapPrm"], 16)
    assert spawner["Threads"] == "1"


def test_the_spawner_is_a_program_of_its_own_with_little_in_it(make_host):
    host = make_host()
    maps = Path(f"/proc/{host.spawner_pid()}/maps").read_text(encoding="utf-8")
    assert "/nestlet-spawner\n" in maps
    for library in ("curl", "archive", "ssl", "uv", "cjson", "zstd", "lz4", "llhttp"):
        assert f"/lib{library}" not in maps, maps
    done = subprocess.run([str(BUILD / "nestlet-spawner")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "nestlet-spawner: nestletd starts this, nobody else can\n"


def test_an_ordinary_user_gets_a_host_that_serves_and_says_what_is_missing(workdir):
    host = NobodysHost(workdir / "host", {"log": {"level": "info", "format": "text"}})
    host.own_directories()
    host.start()
    try:
        host.deploy_node("echo", ECHO)
        host.deploy_python("py", "def handler(event, context): return event['n']")
        assert host.invoke("echo", {"n": 1}).json() == {"uid": NOBODY, "n": 1}
        assert host.invoke("py", {"n": 2}).body == b"2"
        assert os.stat(f"/proc/{host.pid}").st_uid == NOBODY
        for word in ("mount namespace", "pid namespace", "cgroup memory", "CAP_SETUID"):
            assert word in host.log(), host.log()
        host.deploy_node("hang", "exports.handler = () => { for (;;); };", timeoutMs=300)
        assert_refused(host.invoke("hang"), 504, "Function.Timeout", "hang")
    finally:
        pids = set(host.note_pids())
        code = host.stop()
    assert code == 0
    wait_for(lambda: not pids & set(processes()), "all processes end", 10)
    assert not host.gateway_socket.exists() and not host.admin_socket.exists()


def test_an_ordinary_user_who_requires_isolation_is_refused_with_what_is_missing(workdir):
    host = NobodysHost(workdir / "host", {"cells": {"isolation": "required"}})
    host.own_directories()
    assert host.start(expect_ready=False) == 1
    assert "isolation is required, but this machine lacks" in host.log()


def check(*args):
    return subprocess.run(
        [*args, str(NESTLETD), "--check", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_check_tells_every_feature_with_reason_and_remedy():
    done = check()
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    for name in ("user", "seccomp", "Landlock", "CRIU", "EROFS", "time namespace", "pid namespace"):
        assert name in rows, sorted(rows)
    assert any(name.startswith("cgroup v1") for name in rows)
    assert any(name.startswith("cgroup v2") for name in rows)
    for row in rows.values():
        assert row["detail"], row
        assert row["yes"] or row["remedy"], row
    lacking = [row for row in rows.values() if row["required"] and not row["yes"]]
    assert done.returncode == (1 if lacking else 0)
    assert not lacking, lacking


def test_check_for_an_ordinary_user_fails_and_says_so_of_each_required_feature():
    done = check("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert not rows["user"]["yes"] and rows["user"]["remedy"]
    assert all(row["yes"] or row["remedy"] for row in rows.values())


def test_check_prints_a_table():
    done = subprocess.run(
        [str(NESTLETD), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["FEATURE", "DETAIL", "REMEDY"]
    assert any(line.startswith("seccomp") and " yes " in line for line in lines), done.stdout
