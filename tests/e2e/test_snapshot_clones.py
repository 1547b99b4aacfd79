# SPDX-License-Identifier: Apache-2.0
"""What a clone has of the worker that was frozen, and what it must not have."""

import json
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from host import cgroups_of, wait_for
from test_snapshot import LAYERED, ON, await_snapshot, cold, deploy, restores, snapshot_of


@pytest.fixture(scope="module")
def clones_host(make_shared_host):
    return make_shared_host(ON)


def await_refusal(host, name):
    state = wait_for(lambda: (s := snapshot_of(host, name))["state"] == "paused" and s, "the refusal")
    return state["lastFailure"]


# ---- functions of several processes ----

KIN_JS = """
let calls = 0;
process.on('message', (text) => process.send({ text, calls: ++calls, pid: process.pid }));
"""

FAMILY_JS = """
const { fork, spawn } = require('node:child_process');
const lines = require('node:readline');
const kin = fork(`${__dirname}/kin.js`);
const shell = spawn('/bin/sh', ['-c', 'n=0; while read word; do n=$((n+1)); echo "$word $n $$"; done'],
  { stdio: ['pipe', 'pipe', 'inherit'] });
const reader = lines.createInterface({ input: shell.stdout });
exports.handler = async (word) => {
  const line = new Promise((resolve) => reader.once('line', resolve));
  const message = new Promise((resolve) => kin.once('message', resolve));
  shell.stdin.write(`${word}\\n`);
  kin.send(word);
  return { shell: await line, kin: await message };
};
"""

FAMILY_PY = """
import multiprocessing, os, subprocess
cat = subprocess.Popen(['/bin/cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def square(n):
    return n * n
pool = multiprocessing.get_context('fork').Pool(2)
def handler(word, context):
    cat.stdin.write(word.encode() + b'\\n')
    cat.stdin.flush()
    return {'said': cat.stdout.readline().decode().strip(), 'cat': cat.pid, 'alive': cat.poll() is None,
            'squares': pool.map(square, range(8)), 'pool': sorted(p.pid for p in pool._pool)}
"""


@pytest.mark.parametrize("memory", ["mapped", "copied"])
def test_child_processes_are_frozen_and_go_on_in_each_clone(make_host, memory):
    host = make_host(LAYERED, start=False)
    for manifest in (host.root / "runtimes" / "manifests").iterdir():
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "memory": memory}))
    host.start()
    host.deploy("family", {"index.js": FAMILY_JS, "kin.js": KIN_JS}, runtime="nodejs",
                handler="index.handler", snapshot={"warmup": "first"}, workers={"max": 4, "idleMs": 100})
    deploy(host, "python", "relatives", FAMILY_PY, snapshot={"warmup": "first"})
    await_snapshot(host, "family"), await_snapshot(host, "relatives")
    assert "upon its runtime's" not in host.log()  # it was no obstacle to that
    family = [cold(host, "family", "again") for _ in range(2)]
    relatives = [cold(host, "relatives", "again") for _ in range(2)]
    assert restores(host, "family") == 2 and restores(host, "relatives") == 2
    assert family[0] == family[1] and relatives[0] == relatives[1]
    assert family[0]["shell"].startswith("again 2 ")
    assert family[0]["kin"] == {"text": "again", "calls": 2, "pid": family[0]["kin"]["pid"]}
    assert relatives[0]["said"] == "again" and relatives[0]["alive"]
    assert relatives[0]["squares"] == [n * n for n in range(8)]


def test_a_process_that_clones_would_be_without_is_named_and_the_function_served(clones_host):
    host = clones_host
    deploy(host, "python", "daemon", """
import subprocess, time
pid = subprocess.run(['/bin/sh', '-c', 'sleep 1000 > /dev/null 2>&1 & echo $!'], capture_output=True).stdout.decode().strip()
while open(f'/proc/{pid}/comm').read() != 'sleep\\n':
    time.sleep(0.001)
def handler(event, context):
    return subprocess.run(['/bin/sh', '-c', 'cat /proc/[0-9]*/comm'], capture_output=True).stdout.decode()
""")
    assert "process 'sleep' runs in the background" in await_refusal(host, "daemon")
    assert "sleep" in cold(host, "daemon")
    assert restores(host, "daemon") == 0


# ---- connections ----

KEEPS_JS = """
const net = require('node:net');
const events = [];
const socket = net.connect(PORT, '127.0.0.1', () => events.push('connect'));
for (const name of ['end', 'error', 'close']) socket.on(name, (x) => events.push(name));
const open = new Promise((resolve) => socket.once('data', resolve));
const closed = new Promise((resolve) => socket.once('close', resolve));
exports.beforeSnapshot = () => open;
exports.handler = async (event) => { await (event.closed ? closed : open); return { events, destroyed: socket.destroyed }; };
"""

KEEPS_PY = """
import socket
kept = socket.create_connection(('127.0.0.1', PORT))
kept.recv(100)
def handler(event, context):
    if not event.get('closed'):
        return kept.getpeername()[1]
    try:
        kept.sendall(b'a clone wrote')
        wrote = True
    except BrokenPipeError:
        wrote = False
    return {'read': kept.recv(100).decode(), 'wrote': wrote}
"""

KEEPS_ASYNC_PY = """
import asyncio
task = None
async def connect():
    reader, writer = await asyncio.open_connection('127.0.0.1', PORT)
    await reader.readexactly(5)
    return await reader.read()
async def handler(event, context):
    global task
    task = task or asyncio.ensure_future(connect())
    if not event.get('closed'):
        await asyncio.sleep(0.2)
        return task.done()
    return (await task).decode()
"""


@pytest.fixture(scope="module")
def server():
    """Greets whoever connects; knows what each has said, and the end of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    said = []

    def listen(connection, heard):
        connection.sendall(b"hello")
        while True:
            try:
                heard.append(connection.recv(100))
            except OSError:
                heard.append(b"")
            if not heard[-1]:
                return

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            said.append([])
            threading.Thread(target=listen, args=(connection, said[-1]), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], said
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("runtime, source, answer", [
    ("nodejs", KEEPS_JS, {"events": ["connect", "end", "close"], "destroyed": True}),
    ("python", KEEPS_PY, {"read": "", "wrote": False}),
    ("python", KEEPS_ASYNC_PY, ""),
], ids=["node", "python", "asyncio"])
def test_a_connection_of_the_frozen_worker_is_a_closed_one_in_its_clones(
        clones_host, server, runtime, source, answer):
    host, (port, said) = clones_host, server
    name = f"keeps-{runtime}-{len(said)}"
    deploy(host, runtime, name, source.replace("PORT", str(port)), snapshot={"warmup": {}})
    await_snapshot(host, name)
    connections = len(said)
    for _ in range(2):
        assert cold(host, name, {"closed": True}) == answer
    assert restores(host, name) == 2
    assert len(said) == connections, "a clone connected"
    wait_for(lambda: all(heard == [b""] for heard in said), "each connection ends, and has sent nothing")


def test_a_listening_socket_costs_no_request(clones_host):
    host = clones_host
    deploy(host, "python", "listens", """
import socket
listener = socket.create_server(('127.0.0.1', 0))
def handler(event, context):
    return 'served'
""")
    state = wait_for(lambda: (s := snapshot_of(host, "listens"))["state"] in ("paused", "stands") and s, "an end")
    assert state["state"] == "stands" or "socket" in state["lastFailure"], state  # as CRIU and the kernel are
    assert cold(host, "listens") == "served"


# ---- what confines it ----

FILES = ("status", "limits", "stat", "oom_score_adj", "cgroup", "comm", "cmdline", "loginuid", "sessionid",
         "timerslack_ns", "personality", "coredump_filter", "attr/current", "setgroups", "uid_map", "gid_map")

MIRROR_JS = """
const fs = require('node:fs');
const read = (file) => { try { return fs.readFileSync(file, 'utf8'); } catch (e) { return e.code; } };
const list = (dir) => { try { return fs.readdirSync(dir).sort(); } catch (e) { return e.code; } };
const self = '/proc/self';
exports.handler = async (files) => ({
  files: Object.fromEntries(files.map((file) => [file, read(`${self}/${file}`)])),
  namespaces: Object.fromEntries(list(`${self}/ns`).map((name) => [name, fs.readlinkSync(`${self}/ns/${name}`)])),
  threads: list(`${self}/task`).map((id) => read(`${self}/task/${id}/status`)),
  umask: process.umask(), cwd: process.cwd(), exe: fs.readlinkSync(`${self}/exe`), pid: process.pid, ppid: process.ppid,
  root: list('/'), processes: list('/proc').filter((name) => /^[0-9]+$/.test(name)),
  descriptors: list(`${self}/fd`).length, env: process.env,
  write: (() => { try { fs.writeFileSync('/function/x', ''); return 'written'; } catch (e) { return e.code; } })(),
});
"""

MIRROR_PY = """
import ctypes, os, resource, signal, threading
libc = ctypes.CDLL(None)
def read(file):
    try:
        return open(file).read()
    except OSError as error:
        return str(error.errno)
def asked(option):
    value = ctypes.c_int(-1)
    return [libc.prctl(option, ctypes.byref(value), 0, 0, 0), value.value]
def handler(files, context):
    self = '/proc/self'
    umask = os.umask(0o22)
    os.umask(umask)
    return {
        'files': {file: read(f'{self}/{file}') for file in files},
        'namespaces': {name: os.readlink(f'{self}/ns/{name}') for name in os.listdir(f'{self}/ns')},
        'threads': [read(f'{self}/task/{id}/status') for id in os.listdir(f'{self}/task')],
        # dumpable, keep capabilities, seccomp, securebits, timer slack, no_new_privs, THP
        'prctl': [libc.prctl(option, 0, 0, 0, 0) for option in (3, 7, 21, 27, 30, 39, 42)],
        'death signal': asked(2), 'subreaper': asked(37), 'umask': umask, 'cwd': os.getcwd(),
        'exe': os.readlink(f'{self}/exe'), 'pid': os.getpid(), 'ppid': os.getppid(), 'sid': os.getsid(0),
        'group': os.getpgrp(), 'affinity': sorted(os.sched_getaffinity(0)),
        'policy': os.sched_getscheduler(0), 'priority': os.getpriority(os.PRIO_PROCESS, 0),
        'blocked': sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), 'root': sorted(os.listdir('/')),
        'processes': sorted(name for name in os.listdir('/proc') if name.isdigit()),
        'descriptors': len(os.listdir(f'{self}/fd')), 'env': dict(os.environ), 'write': os.access('/function', os.W_OK),
    }
"""

STATUS = re.compile(r"^(Name|Umask|Groups|Uid|Gid|Sig(Pnd|Blk|Ign|Cgt)|ShdPnd|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|"
                    r"Seccomp|Seccomp_filters|Speculation_\w+|THP_enabled|Cpus_allowed|Mems_allowed|TracerPid|NSsid)")
SESSION, NICE, POLICY = 3, 16, 38  # in stat, counted from behind the name


def confinement(seen, uid):
    """What is the same for every worker of a function, whatever its user, cell and moment."""
    def lines(status):
        return [line.replace(uid, "UID") for line in status.splitlines() if STATUS.match(line)]

    files = seen["files"]
    files["status"] = lines(files["status"])
    stat = files.pop("stat").rsplit(")", 1)[1].split()
    files["scheduling"] = [stat[SESSION], stat[NICE], stat[POLICY]]
    files["cgroup"] = re.sub(r"cell-?\w+", "cell", files["cgroup"])
    seen["threads"] = sorted(lines(status)[1:] for status in seen["threads"])
    return seen


LIMITS = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "cpu.cfs_quota_us", "cpu.cfs_period_us",
          "cpu.shares", "cpuset.cpus", "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max")


def cell_limits(host, name):
    """The bounds of the one cell that a function has now, in each hierarchy."""
    pid = str([w for w in host.workers() if w["function"] == name][0]["pid"])
    found = {}
    for root in cgroups_of(host.instance):
        for cell in Path(root).iterdir():
            if cell.is_dir() and pid in (cell / "cgroup.procs").read_text().split():
                found.update({(Path(root).parts[4], f): (cell / f).read_text() for f in LIMITS if (cell / f).exists()})
    return found


@pytest.mark.parametrize("runtime, source", [("nodejs", MIRROR_JS), ("python", MIRROR_PY)], ids=["node", "python"])
def test_a_clone_is_in_each_field_what_a_plain_worker_is(clones_host, runtime, source):
    host = clones_host
    seen, bounds, spaces = {}, {}, {}
    for snapshot in ("on", "off"):
        name = f"mirror-{runtime}-{snapshot}"
        deploy(host, runtime, name, source, snapshot=snapshot, env={"SHOWN": "x"}, memoryMb=300, tmpMb=7,
               workers={"max": 1, "idleMs": 60000})
        if snapshot == "on":
            await_snapshot(host, name)
        one = cold(host, name, FILES)
        bounds[snapshot] = cell_limits(host, name)
        uid = re.search(r"Uid:\t(\d+)", one["files"]["status"])[1]
        spaces[snapshot] = one.pop("namespaces")
        seen[snapshot] = confinement(json.loads(json.dumps(one).replace(name, "NAME")), uid)
    assert restores(host, f"mirror-{runtime}-on") == 1
    for field in seen["off"]["files"]:
        assert seen["on"]["files"][field] == seen["off"]["files"][field], field
    for field in seen["off"]:
        assert seen["on"][field] == seen["off"][field], field
    assert bounds["on"] == bounds["off"] and bounds["on"]
    own = {name for name, link in spaces["off"].items() if link != os.readlink(f"/proc/{host.pid}/ns/{name}")}
    assert {"pid", "mnt", "ipc", "uts"} <= own
    for name, link in spaces["off"].items():
        if name in own:
            assert spaces["on"][name] not in (link, os.readlink(f"/proc/{host.pid}/ns/{name}")), name
        elif not name.startswith("time"):  # a clone's clocks go on from where the frozen worker's were
            assert spaces["on"][name] == link, name


# ---- what changes between its freeze and its requests ----

ENV = {
    "nodejs": "const born = process.env.SECRET;\nexports.handler = async () => [born, process.env.SECRET, process.env.MORE];",
    "python": "import os\nborn = os.environ.get('SECRET')\n"
              "def handler(event, context):\n    return [born, os.environ.get('SECRET'), os.environ.get('MORE')]\n",
}


@pytest.mark.parametrize("runtime", sorted(ENV))
def test_a_changed_secret_is_seen_at_once_and_by_every_clone_from_then_on(clones_host, runtime):
    host, name = clones_host, f"secret-{runtime}"
    for secret, more in (("first", None), ("second", "more"), ("third", None)):
        env = {"SECRET": secret, **({"MORE": more} if more else {})}
        deploy(host, runtime, name, ENV[runtime], env=env)
        assert cold(host, name) == [secret, secret, more]  # whether or not it is a clone yet
        await_snapshot(host, name)
        for _ in range(2):
            assert cold(host, name) == [secret, secret, more]
        assert restores(host, name) >= 2


CLOCKS = {
    "nodejs": """
const ms = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const born = ms(), wall = Date.now();
let last = born, ticks = 0, back = 0;
const look = () => { const now = ms(); if (now < last) back++; last = now; };
setInterval(() => { ticks++; look(); }, 10);
exports.handler = async () => {
  const begun = ticks;
  look();
  while (ticks < begun + 5) await new Promise((resolve) => setTimeout(resolve, 10));
  look();
  return { monotonic: last - born, wall: Date.now() - wall, back, now: Date.now() };
};
""",
    "python": """
import threading, time
born, wall = time.monotonic(), time.time()
last, back, ticks = born, 0, 0
lock = threading.Lock()
def look():
    global last, back
    with lock:
        now = time.monotonic()
        back += now < last
        last = now
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1
        look()
threading.Thread(target=tick, daemon=True).start()
def handler(event, context):
    begun = ticks
    look()
    while ticks < begun + 5:
        time.sleep(0.01)
    look()
    return {'monotonic': (last - born) * 1000, 'wall': (time.time() - wall) * 1000, 'back': back, 'now': time.time() * 1000}
""",
}


def assert_clock_goes_on(seen):
    assert seen["back"] == 0 and seen["monotonic"] > 0, seen
    # what runs by it runs on; while the worker lay on disk it may have stood still
    assert seen["monotonic"] < seen["wall"] + 1000, seen
    assert abs(seen["now"] - time.time() * 1000) < 20000, seen


@pytest.fixture
def elsewhen():
    """Makes what a host is started by on a machine whose clocks, as since its boot, differ by seconds from ours."""
    sleepers = []

    def command(seconds, plain):
        offsets = [f"--monotonic={seconds}", f"--boottime={seconds}"]
        sleeper = subprocess.Popen(["unshare", "--time", *offsets, "--fork", "--kill-child", "sleep", "1000"])
        sleepers.append(sleeper)
        child = wait_for(lambda: Path(f"/proc/{sleeper.pid}/task/{sleeper.pid}/children").read_text().split(), "its child")
        wait_for(lambda: Path(f"/proc/{child[0]}/comm").read_text() == "sleep\n", "its program")
        return lambda fd: ["nsenter", f"--time=/proc/{child[0]}/ns/time", *plain(fd)]

    yield command
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("runtime", sorted(CLOCKS))
def test_the_monotonic_clock_goes_on_and_never_back_after_a_reboot_too(make_host, elsewhen, runtime):
    host = make_host(ON)
    plain = host.command
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    deploy(host, runtime, "clock", CLOCKS[runtime])
    await_snapshot(host, "clock")
    assert_clock_goes_on(cold(host, "clock"))
    for seconds in (-int(uptime / 2), 1000000):
        host.stop()
        host.command = elsewhen(seconds, plain)
        host.start()
        await_snapshot(host, "clock")
        for _ in range(2):
            assert_clock_goes_on(cold(host, "clock"))
        assert restores(host, "clock") == 2
