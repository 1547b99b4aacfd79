# SPDX-License-Identifier: Apache-2.0
"""Where a clone's mapped memory would differ from any other's: given back, or grown. And that both ways
of meeting it do: what is preloaded, and copied memory. The languages that come with the host need neither."""

import json
import subprocess
from pathlib import Path

import pytest

from conftest import directory
from host import TOP
from test_snapshot import ON, await_snapshot, cold, restores

AREA = 64 * 4096
KINDS = {
    "copied": {"memory": "copied"},
    "mapped": {"memory": "mapped"},
    "bare": {"memory": "mapped", "memoryShim": False},
}


LOAD_PY = """
import gc, hashlib, ssl, threading
table = {i: str(i) * 10 for i in range(50000)}
blob, growing = bytearray(b'x') * (1 << 20), list(range(50000))
def wrong(n):
    return n - bytes(n).count(0)  # calloc()
def churn(ret):
    for size in (100, 3000, 70000, 200000):
        pieces = [bytearray(b'y') * size for _ in range(60)]
        del pieces[::2]
        ret.append(sum(wrong(size) for _ in range(60)))
def in_threads():
    ret = []
    threads = [threading.Thread(target=churn, args=(ret,)) for _ in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    return sum(ret)
in_threads(), ssl.create_default_context()
def hello():
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname='example.org')
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return len(out.read()) > 200
def handler(event, context):
    bad = 0
    for size in (1 << 20, 20 << 20):
        bad += in_threads() + wrong(size)
        gc.collect()
    blob.extend(b'x' * (40 << 20))
    growing.extend(range(50000, 1000000))
    for i in range(0, 50000, 3):
        del table[i]
    table.update({i: str(i) * 10 for i in range(0, 50000, 3)})
    return {'bad': bad, 'hello': hello(), 'blob': blob.count(b'x') == len(blob) == 41 << 20,
            'growing': growing == list(range(1000000)),
            'table': all(table[i] == str(i) * 10 for i in range(50000)),
            'digest': hashlib.sha256(blob[:1000]).hexdigest() == hashlib.sha256(b'x' * 1000).hexdigest()}
"""

LOAD_JS = """
const v8 = require('node:v8'), vm = require('node:vm'), crypto = require('node:crypto');
const { Worker } = require('node:worker_threads');
v8.setFlagsFromString('--expose-gc');
const gc = vm.runInNewContext('gc');
const table = new Map(Array.from({ length: 50000 }, (_, i) => [i, { text: 'value ' + i }]));
const wasm = new WebAssembly.Memory({ initial: 4, maximum: 2000 });
new Uint8Array(wasm.buffer).fill(7);
function wrong(buffer) {
  const words = new Uint32Array(buffer);
  let bad = 0;
  for (let i = 0; i < words.length; i++) bad += words[i] !== 0;
  return bad;
}
function churn() {
  let bad = 0, kept = [];
  for (let round = 0; round < 6; round++) {
    kept = Array.from({ length: 60000 }, (_, i) => ({ i, text: 'piece ' + i }));
    const pieces = Array.from({ length: 20 }, () => Buffer.alloc(1 << 20));
    for (const piece of pieces) {
      bad += wrong(piece.buffer);
      piece.fill(9);
    }
    bad += wrong(new ArrayBuffer(8 << 20));
    kept = null;
    gc();
  }
  return bad;
}
function thread() {
  return new Promise((resolve, reject) => {
    const worker = new Worker('const a = []; for (let i = 0; i < 1e5; i++) a.push({ i });' +
      'require("node:worker_threads").parentPort.postMessage(a.length)', { eval: true });
    worker.on('message', resolve).on('error', reject);
  });
}
churn();
exports.handler = async () => {
  const bad = churn() + churn();
  wasm.grow(600);
  const bytes = new Uint8Array(wasm.buffer);
  return { bad, thread: (await thread()) === 1e5,
    wasm: wrong(wasm.buffer.slice(4 * 65536)) === 0 && bytes.subarray(0, 4 * 65536).every((b) => b === 7),
    table: table.size === 50000 && [...table].every(([i, { text }]) => text === 'value ' + i),
    keys: crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.type === 'public' };
};
"""


def compile_worker(program):
    source = Path(__file__).with_name("memory") / "worker.c"
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", TOP,
                    "-o", program, source], check=True)


@pytest.fixture(scope="module")
def host(make_shared_host):
    """A host with the worker as three runtimes, and a function of each that starts from a snapshot."""
    with directory() as manifests:
        for name, keys in KINDS.items():
            (manifests / f"{name}.json").write_text(json.dumps({
                "name": name, "argv": ["/function/worker"], "interfaces": ["event"],
                "defaultHandler": "none", "memoryMb": {"default": 1024}, "snapshots": True, **keys}))
        for language in ("nodejs", "python"):
            shipped = json.loads((TOP / "runtime" / "manifests" / f"{language}.json").read_text())
            for memory in ("copied", "bare"):
                name = f"{language}-{memory}"
                (manifests / f"{name}.json").write_text(json.dumps({**shipped, **KINDS[memory], "name": name}))
        host = make_shared_host({**ON, "runtimes": {"manifestDirs": [str(manifests)]}})
        for name in KINDS:
            function = host.write_function(name, {}, runtime=name, workers={"idleMs": 1})
            compile_worker(function / "worker")
            host.nestctl("deploy", str(function))
            await_snapshot(host, name)
        yield host


# What of a clone's memory isn't as in any other process, in bytes.
@pytest.mark.parametrize("request_, copied, mapped, bare", [
    # the hazard: without the library the snapshot's bytes come back
    ("discard", 0, 0, AREA),
    # the library sees no bare system calls: a program that relies on these needs copied memory
    ("raw", 0, AREA, AREA),
    ("free", 0, 0, 1),
    ("grow", 0, 0, None),
    # what the C library does for itself is right in any case
    ("realloc", 0, 0, 0),
    ("calloc", 0, 0, 0),
    ("threads", 0, 0, 0),
    ("preload", 0, 1, 0),
])
def test_memory_given_back_or_grown_in_a_clone(host, request_, copied, mapped, bare):
    for name, expected in (("copied", copied), ("mapped", mapped), ("bare", bare)):
        before = restores(host, name)
        wrong = cold(host, name, request_)
        assert restores(host, name) == before + 1, name
        assert wrong == expected or (expected is None and wrong > 0), (name, wrong)


LOADS = {
    "nodejs": (LOAD_JS, ("thread", "wasm", "table", "keys")),
    "python": (LOAD_PY, ("hello", "blob", "growing", "table", "digest")),
}


@pytest.mark.parametrize("memory", ["", "-bare", "-copied"])
@pytest.mark.parametrize("language", sorted(LOADS))
def test_a_language_under_load_finds_all_memory_right_in_a_clone(host, language, memory):
    name = f"load-{language}{memory}"
    source, right = LOADS[language]
    make = host.deploy_node if language == "nodejs" else host.deploy_python
    make(name, source, runtime=language + memory, memoryMb=768, workers={"idleMs": 1})
    await_snapshot(host, name)
    for _ in range(2):
        assert cold(host, name) == {"bad": 0, **dict.fromkeys(right, True)}
    assert restores(host, name) == 2
