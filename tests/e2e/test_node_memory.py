# SPDX-License-Identifier: Apache-2.0
"""What is preloaded into Node makes its processes cheap to restore, and shows in nothing else."""

import pytest

from test_snapshot import ON, await_snapshot, cold, restores

LIBRARY = "preload/node.so"
# small arrays, which lie in pages of 256 KB
HELD_MB = 100

FUNCTION = """
const fs = require('node:fs');
const { execFileSync } = require('node:child_process');
const { Worker } = require('node:worker_threads');
const held = [];
for (let kb = 0; kb < %d * 1024; kb += 8) held.push(Array.from({ length: 1024 }, (_, i) => kb + i));
// (memory (export "memory") 1) (func (export "at") (param i32) (result i32) (i32.load (local.get 0)))
const module_ = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1,
  127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 15, 2, 6, 109, 101, 109, 111, 114, 121, 2, 0, 2, 97, 116, 0, 0, 10, 9, 1, 7, 0,
  32, 0, 40, 2, 0, 11]));
const { at, memory } = new WebAssembly.Instance(module_).exports;
let served = 0;
const ask = {
  process: () => ({
    threads: fs.readdirSync('/proc/self/task').length,
    areas: fs.readFileSync('/proc/self/maps', 'utf8').trim().split('\\n').length,
    library: fs.readFileSync('/proc/self/maps', 'utf8').includes('/preload/node.so'),
    held: held.length && held.every((row, i) => row[1023] === i * 8 + 1023),
  }),
  wasm: () => {
    new DataView(memory.buffer).setInt32(65532, 42, true);
    const beyond = [65536, 0x7ffffff0, -8].map((i) => {
      try { return at(i); } catch (error) { return error.constructor.name; }
    });
    memory.grow(100);
    return { beyond, last: at(65532), grown: at(100 * 65536) };
  },
  thread: () => new Promise((resolve, reject) => {
    const worker = new Worker(`const a = []; for (let i = 0; i < 1e6; i++) a.push({ i });
      require('node:worker_threads').parentPort.postMessage(a.length)`, { eval: true });
    worker.on('message', resolve).on('error', reject);
  }),
  child: () => JSON.parse(execFileSync(process.execPath, ['--v8-pool-size=1', '-p', `JSON.stringify({
    threads: fs.readdirSync('/proc/self/task').length,
    library: fs.readFileSync('/proc/self/maps', 'utf8').includes('/preload/node.so'),
    env: process.env.LD_PRELOAD ?? ''})`])),
  env: () => process.env.LD_PRELOAD ?? '',
  signal: async () => {
    for (let i = 0; i < 3; i++) process.kill(process.pid, 'SIGUSR1');
    await new Promise((resolve) => setTimeout(resolve, 20));
    return require('node:inspector').url() === undefined;
  },
};
exports.handler = async (what) => ({ told: await ask[what](), served: ++served });
""" % HELD_MB


@pytest.fixture(scope="module")
def host(make_shared_host):
    """A host with the function, which starts plainly, and from a snapshot."""
    host = make_shared_host(ON)
    for name, snapshot in (("plain", "off"), ("cloned", "on")):
        host.deploy_node(name, FUNCTION, memoryMb=512, snapshot=snapshot,
                         workers={"max": 1, "idleMs": 300})
    await_snapshot(host, "cloned")
    yield host


STARTS = ("plain", "cloned")


def ask(host, name, what):
    before = name == "cloned" and restores(host, name)
    told = cold(host, name, what)["told"]
    assert name == "plain" or restores(host, name) == before + 1
    return told


@pytest.mark.parametrize("name", STARTS)
def test_a_worker_has_few_threads_and_areas_whatever_its_heap(host, name):
    told = ask(host, name, "process")
    assert told["library"] and told["held"]
    # the loop's, the one of V8's pool, and the one that keeps its delayed tasks
    assert told["threads"] == 3
    assert told["areas"] < HELD_MB * 4 / 2


@pytest.mark.parametrize("name", STARTS)
def test_webassembly_has_its_guards_and_grows(host, name):
    assert ask(host, name, "wasm") == {"beyond": ["RuntimeError"] * 3, "last": 42, "grown": 0}


@pytest.mark.parametrize("name", STARTS)
def test_a_thread_with_a_heap_of_its_own_runs(host, name):
    assert ask(host, name, "thread") == 10 ** 6


@pytest.mark.parametrize("name", STARTS)
def test_programs_that_the_function_starts_are_like_any(host, name):
    assert LIBRARY not in ask(host, name, "env")
    told = ask(host, name, "child")
    assert not told["library"] and LIBRARY not in told["env"]
    assert told["threads"] == 4


@pytest.mark.parametrize("name", STARTS)
def test_a_signal_that_would_open_the_inspector_does_nothing(host, name):
    assert ask(host, name, "signal") is True
    # the same worker serves on
    assert host.invoke(name, "env").json()["served"] == 2


def test_without_the_library_functions_run_as_ever(make_host):
    host = make_host(ON, start=False)
    (host.runtimes() / LIBRARY).unlink()
    host.start()
    host.deploy_node("hello", "exports.handler = async () => require('fs').readdirSync('/proc/self/task').length;",
                     workers={"idleMs": 1})
    await_snapshot(host, "hello")
    assert cold(host, "hello") == 4
    assert restores(host, "hello") == 1
