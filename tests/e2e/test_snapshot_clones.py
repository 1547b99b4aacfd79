# SPDX-License-Identifier: Apache-2.0
"""What a clone has of the worker that was frozen, and what it must not have."""

import json
import socket
import threading

import pytest

from host import wait_for
from test_snapshot import ON, await_snapshot, cold, deploy, restores, snapshot_of


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
    host = make_host(ON, start=False)
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
import subprocess
subprocess.run(['/bin/sh', '-c', 'sleep 1000 &'])
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
