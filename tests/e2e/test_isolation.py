# SPDX-License-Identifier: Apache-2.0
"""What a function sees and gets, as Node and Python see it. The raw system calls are tried in tests/attack."""

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from host import CGROUPS, wait_for
from neighbour import Neighbour

# runs the event's source with what it needs at hand: each test asks the cell what it wants to know
NODE_EVAL = """
const fs = require('fs'), os = require('os'), net = require('net'), cp = require('child_process');
const code = async (f) => { try { return await f(); } catch (e) { return e.code || String(e); } };
exports.handler = async (event) => eval(`(async () => { ${event.source} })()`);
"""
PYTHON_EVAL = """
import errno, os, socket, subprocess, sys
def code(f):
    try:
        return f()
    except OSError as error:
        return errno.errorcode[error.errno]
def handler(event, context):
    space = dict(globals())
    exec(event['source'], space)
    return space['result']
"""


@pytest.fixture(scope="module")
def cells(make_shared_host):
    """A host with two Node functions and a Python one that run what they are told."""
    host = make_shared_host({})
    host.deploy_node("one", NODE_EVAL, env={"SECRET": "of-one"})
    host.deploy_node("two", NODE_EVAL, env={"SECRET": "of-two"})
    host.deploy_python("three", PYTHON_EVAL)
    host.deploy_node("alone", NODE_EVAL, network="none")
    for name in ("one", "two", "alone"):
        assert ask(host, name, "return 1") == 1
    assert ask(host, "three", "result = 3") == 3
    return host


def ask(host, name, source):
    answer = host.invoke(name, {"source": source})
    assert answer.status == 200 and "x-amz-function-error" not in answer.headers, answer
    return answer.json()


# ---- files ----


def test_two_functions_do_not_see_each_others_files(cells):
    write = "fs.writeFileSync('/tmp/mine', 'of one'); fs.writeFileSync('/dev/shm/mine', 'x'); return 1"
    assert ask(cells, "one", write) == 1
    assert ask(cells, "one", "return fs.readdirSync('/tmp')") == ["mine"]
    assert ask(cells, "two", "return [fs.readdirSync('/tmp'), fs.readdirSync('/dev/shm')]") == [
        [],
        [],
    ]
    assert ask(cells, "three", "result = os.listdir('/tmp') + os.listdir('/dev/shm')") == []
    assert not os.path.exists("/tmp/mine")


@pytest.mark.parametrize(
    "path", ["/function/x", "/function/index.js", "/runtime/x", "/x", "/etc/x", "/usr/x", "/dev/x"]
)
def test_there_is_no_writing_outside_tmp(cells, path):
    told = ask(cells, "one", f"return code(() => fs.writeFileSync('{path}', ''))")
    assert told in ("EROFS", "EACCES"), told
    told = ask(cells, "three", f"result = code(lambda: open('{path}', 'w').close())")
    assert told in ("EROFS", "EACCES"), told


def test_code_and_runtime_can_not_be_changed_or_removed(cells):
    source = (
        "return [await code(() => fs.unlinkSync('/function/index.js')),"
        " await code(() => fs.chmodSync('/function/index.js', 0o777)),"
        " await code(() => fs.renameSync('/function', '/tmp/f')),"
        " await code(() => fs.mkdirSync('/function/sub'))]"
    )
    for told in ask(cells, "one", source):
        assert told in ("EROFS", "EACCES", "EBUSY", "EXDEV", "EPERM"), told


def test_the_hosts_directories_are_not_there(cells):
    """Neither state, with everybody's code and logs, nor the sockets, nor this test's files."""
    for path in (cells.root, cells.root / "state", cells.gateway_socket, cells.admin_socket):
        assert ask(cells, "one", f"return fs.existsSync('{path}')") is False, path
        assert ask(cells, "three", f"result = os.path.exists('{path}')") is False, path
    for path in ("/root", "/home", "/var", "/run", "/sys", "/boot", "/work"):
        told = ask(cells, "one", f"return code(() => fs.readdirSync('{path}'))")
        assert told == "ENOENT" or told == [], (path, told)


def test_a_state_directory_below_a_visible_path_is_covered(make_host):
    """Where stateDir lies in what cells see of the root file system, they find it empty."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as visible:
        os.chmod(visible, 0o755)
        (Path(visible) / "seen").write_text("")
        host = make_host({}, start=False)
        host.config["stateDir"] = f"{visible}/state"
        host.config["cells"] = {
            "rootPaths": ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", visible]
        }
        host.start()
        host.deploy_node("one", NODE_EVAL)
        assert sorted(os.listdir(f"{visible}/state")) > []
        assert ask(host, "one", f"return fs.readdirSync('{visible}').sort()") == ["seen", "state"]
        assert ask(host, "one", f"return fs.readdirSync('{visible}/state')") == []
        host.stop()


def test_shadow_and_the_like_are_not_readable(cells):
    for path in ("/etc/shadow", "/proc/kcore", "/proc/kmsg", "/proc/1/environ", "/proc/keys"):
        told = ask(cells, "one", f"return code(() => fs.readFileSync('{path}', 'latin1'))")
        assert told in ("EACCES", "ENOENT", "EPERM", ""), (path, told[:80])


# ---- processes and environment ----


def test_a_function_sees_its_own_processes_only(cells):
    pids = "fs.readdirSync('/proc').filter((n) => /^[0-9]+$/.test(n)).map(Number)"
    assert ask(cells, "one", f"return {pids}") == [ask(cells, "one", "return process.pid")]
    assert ask(cells, "three", "result = [p for p in os.listdir('/proc') if p.isdigit()]") == [
        str(ask(cells, "three", "result = os.getpid()"))
    ]


def test_a_function_can_signal_nobody_else(cells):
    pids = {w["function"]: w["pid"] for w in cells.workers()}
    for pid in (1, pids["two"], cells.pid, cells.spawner_pid()):
        told = ask(cells, "one", f"return code(() => process.kill({pid}, 0))")
        assert told in ("ESRCH", "EPERM"), (pid, told)
    assert ask(cells, "two", "return 1") == 1


def test_a_function_has_its_own_environment_and_nothing_of_the_hosts(make_host):
    host = make_host({}, start=False)
    host.environment = {"HOST_SECRET": "not for functions"}
    host.start()
    host.deploy_node("one", NODE_EVAL, env={"SECRET": "of-one"})
    host.deploy_node("two", NODE_EVAL)
    assert ask(host, "one", "return process.env.SECRET") == "of-one"
    seen = ask(host, "two", "return process.env")
    assert "SECRET" not in seen and "HOST_SECRET" not in seen and "NESTLET_CHANNEL_FD" not in seen
    for pid in (w["pid"] for w in host.workers()):
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert b"HOST_SECRET" not in file.read()


def test_functions_have_users_of_their_own_without_any_privilege(cells):
    uids = {name: ask(cells, name, "return process.getuid()") for name in ("one", "two", "alone")}
    uids["three"] = ask(cells, "three", "result = os.getuid()")
    assert len(set(uids.values())) == 4 and min(uids.values()) > 1000, uids
    status = ask(cells, "one", "return fs.readFileSync('/proc/self/status', 'utf8')")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert fields[key] == "0" * 16, (key, fields[key])
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert fields["Groups"].strip() in ("", str(uids["one"]))


def test_the_host_name_is_the_functions(cells):
    assert ask(cells, "one", "return os.hostname()") == "one"
    assert ask(cells, "three", "result = socket.gethostname()") == "three"


def test_a_child_does_not_inherit_the_channel(cells):
    source = "return cp.execFileSync('/bin/ls', ['/proc/self/fd']).toString().trim().split('\\n')"
    # what ls itself opens takes the first free number, which is the channel's in its parent
    assert len(ask(cells, "one", source)) == 4
    source = "result = subprocess.run(['/bin/readlink', '/proc/self/fd/3'], stdout=-1).stdout.decode()"
    assert "socket" not in ask(cells, "three", source)


# ---- network ----


def test_the_hosts_sockets_are_out_of_reach(cells):
    for path in (cells.admin_socket, cells.gateway_socket):
        connect = (
            "return new Promise((ok) => net.connect({path: '%s'}).on('error', (e) => ok(e.code))"
            ".on('connect', () => ok('connected')))" % path
        )
        assert ask(cells, "one", connect) == "ENOENT"
        connect = (
            "s = socket.socket(socket.AF_UNIX)\n"
            f"result = code(lambda: s.connect('{path}')) or 'connected'"
        )
        assert ask(cells, "three", connect) == "ENOENT"


def test_a_function_without_network_has_lo_and_nothing_else(cells):
    assert list(ask(cells, "alone", "return os.networkInterfaces()")) == ["lo"]
    connect = (
        "return new Promise((ok) => net.connect(%s).on('error', (e) => ok(e.code))"
        ".on('connect', () => ok('connected')))"
    )
    assert ask(cells, "alone", connect % "{host: '192.0.2.1', port: 80}") == "ENETUNREACH"
    own = (
        "return new Promise((ok) => { const s = net.createServer((c) => c.end('hi')).listen(0, '127.0.0.1', () =>"
        " net.connect(s.address().port, '127.0.0.1').on('data', (d) => { s.close(); ok(String(d)); })); })"
    )
    assert ask(cells, "alone", own) == "hi"


def test_a_server_on_the_pods_loopback_is_reached_with_network_pod_only(cells):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = (
            "return new Promise((ok) => { const c = net.connect(%d, '127.0.0.1')"
            ".on('error', (e) => ok(e.code)).on('connect', () => { c.destroy(); ok('connected'); }); })"
            % port
        )
        assert ask(cells, "one", connect) == "connected"
        assert ask(cells, "alone", connect) == "ECONNREFUSED"


# ---- limits ----

V2_ALONE = (CGROUPS / "cgroup.controllers").exists()


def cgroup_file(host, name, controller, file):
    """A file of the cgroup of a function's worker."""
    pid = next(w["pid"] for w in host.workers() if w["function"] == name)
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as lines:
        for line in lines:
            _, controllers, path = line.strip().split(":", 2)
            if V2_ALONE:
                return (CGROUPS / path[1:] / file).read_text(encoding="utf-8").strip()
            if controller in controllers.split(","):
                with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
                    mount = next(
                        m.split()
                        for m in mounts
                        if " - cgroup " in m and controller in m.split()[-1].split(",")
                    )
                root, point = mount[3], mount[4]
                below = path[len(root) :] if root != "/" else path
                with open(f"{point}/{below}/{file}", encoding="utf-8") as limit:
                    return limit.read().strip()
    raise AssertionError(f"no cgroup of controller {controller}")


def cpu_limit(host, name):
    """Quota and period of a function's worker."""
    if V2_ALONE:
        return cgroup_file(host, name, "cpu", "cpu.max").split()
    return [cgroup_file(host, name, "cpu", f"cpu.cfs_{what}_us") for what in ("quota", "period")]


def test_limits_are_a_functions_own_whoever_was_started_before(host):
    """Cells are limited ahead as the last one was, and then by what their function's spec says."""
    limits = {"small": (100, 40, 8), "large": (300, 90, 64), "tight": (80, 40, 8)}
    for name, (memory, pids, tmp) in limits.items():
        more = {"cpu": 0.25} if name == "tight" else {}
        host.deploy_node(name, NODE_EVAL, memoryMb=memory, pids=pids, tmpMb=tmp, workers={"idleMs": 100}, **more)
    for name in ("small", "large", "large", "small", "small", "tight", "large", "small"):
        memory, pids, tmp = limits[name]
        size = "const s = fs.statfsSync('/tmp'); return [s.blocks * s.bsize, s.files]"
        assert ask(host, name, size) == [tmp << 20, (tmp << 20) // 4096]
        if V2_ALONE:
            assert cgroup_file(host, name, "memory", "memory.max") == str(memory << 20)
        else:
            for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
                assert cgroup_file(host, name, "memory", file) == str(memory << 20)
        assert cgroup_file(host, name, "pids", "pids.max") == str(pids + 1)
        assert (cpu_limit(host, name)[0] in ("-1", "max")) == (name != "tight")
        wait_for(lambda: not host.workers(), "its worker is gone")
        wait_for(lambda: host.metrics()["nestlet_cells_prepared"] == 2, "cells are prepared")


def test_each_function_has_the_limits_of_its_spec(host):
    host.deploy_node("small", NODE_EVAL, memoryMb=100, pids=40, cpu=0.25, nofile=50)
    host.deploy_node("large", NODE_EVAL, memoryMb=300, pids=90)
    for name in ("small", "large"):
        ask(host, name, "return 1")
    memory = "memory.max" if V2_ALONE else "memory.limit_in_bytes"
    assert cgroup_file(host, "small", "memory", memory) == str(100 << 20)
    assert cgroup_file(host, "large", "memory", memory) == str(300 << 20)
    assert cgroup_file(host, "small", "pids", "pids.max") == "41"  # and the cell's process 1
    assert cgroup_file(host, "large", "pids", "pids.max") == "91"
    quota, period = cpu_limit(host, "small")
    assert int(quota) * 4 == int(period)
    assert cpu_limit(host, "large")[0] in ("-1", "max")
    opens = "const all = []; try { for (;;) all.push(fs.openSync('/dev/null')); } catch (e) {"
    opens += " all.forEach((f) => fs.closeSync(f)); return [e.code, all.length < 50]; }"
    assert ask(host, "small", opens) == ["EMFILE", True]
    usage = {w["function"]: w["memoryBytes"] for w in host.workers()}
    assert 5 << 20 < usage["small"] < 100 << 20


def test_a_function_with_a_cpu_limit_gets_no_more(host):
    host.deploy_python("hog", PYTHON_EVAL, cpu=0.2)
    source = (
        "import time\nbegin, used = time.monotonic(), time.process_time()\n"
        "while time.monotonic() - begin < 1.5: pass\n"
        "result = (time.process_time() - used) / (time.monotonic() - begin)"
    )
    assert 0.05 < ask(host, "hog", source) < 0.35


def test_hogs_of_cpu_do_not_starve_a_neighbour(host):
    """Twice as many busy workers as there are cores: the neighbour's answers stay quick."""
    host.deploy_python("hog", PYTHON_EVAL, cpu=0.5, timeoutMs=20000, workers={"max": 4})
    source = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\nresult = 1"
    with Neighbour(host, limit=1.5) as neighbour:
        threads = [threading.Thread(target=ask, args=(host, "hog", source)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: host.function("hog")["versions"][0]["inFlight"] == 4, "four hogs run")
        begin, before = time.monotonic(), neighbour.answered
        for thread in threads:
            thread.join()
        rate = (neighbour.answered - before) / (time.monotonic() - begin)
        assert rate > 10, f"{rate:.0f} answers a second beside the hogs"


def test_a_function_that_fills_its_memory_leaves_the_neighbours_alone(host):
    """The cgroup's OOM killer takes the hoarder and nobody else."""
    host.deploy_python("hoard", PYTHON_EVAL, memoryMb=64)
    with Neighbour(host):
        before = {w["id"] for w in host.workers() if w["function"] == "neighbour"}
        for _ in range(3):
            answer = host.invoke("hoard", {"source": "result = len(b'x' * (1 << 30))"})
            assert answer.status == 502 and answer.error_type == "Function.OutOfMemory", answer
        assert {w["id"] for w in host.workers() if w["function"] == "neighbour"} == before


# ---- the end of a worker ----


def test_what_a_function_started_ends_with_it(host):
    source = (
        "cp.spawn('/bin/sleep', ['1000'], {detached: true, stdio: 'ignore'}).unref();"
        "cp.spawn('/bin/sh', ['-c', 'trap \"\" TERM HUP; (setsid sleep 1000 &) ; sleep 1000'],"
        " {detached: true, stdio: 'ignore'}).unref(); await new Promise(ok => setTimeout(ok, 200)); return 1"
    )
    host.deploy_node("parent", NODE_EVAL)
    assert ask(host, "parent", source) == 1
    pids = set(host.note_pids())
    assert len(pids) > 8
    host.admin("DELETE", "/v1/functions/parent")
    wait_for(lambda: not host.workers(), "the worker is gone")
    # the proof that every process ended is the fixture's


def test_a_next_worker_finds_nothing_of_the_one_before(host):
    host.deploy_node("one", NODE_EVAL)
    assert ask(host, "one", "fs.writeFileSync('/tmp/left', ''); return 1") == 1
    answer = host.invoke("one", {"source": "process.exit(1)"})
    assert answer.error_type == "Function.Crashed"
    assert ask(host, "one", "return fs.readdirSync('/tmp')") == []
