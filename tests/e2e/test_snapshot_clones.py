# SPDX-License-Identifier: Apache-2.0
"""What a clone has of the worker that was frozen, and what it must not have."""

import json

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
