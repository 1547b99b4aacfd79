# SPDX-License-Identifier: Apache-2.0
"""Functions that start from a snapshot: clones are their own selves, have all that a plain worker has,
and a snapshot that is bad in any way costs no request."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from host import descendants, wait_for

# what each start is restored by is counted here: tests/e2e/test_standby.py has clones restored ahead
ON = {"snapshots": {"enabled": True}, "standby": {"memory": 0}}
LAYERED = {**ON, "snapshots": {"enabled": True, "layers": True}}

CHANCE_JS = """
const crypto = require('node:crypto');
const { random } = Math;
crypto.randomUUID(); crypto.randomInt(100); Math.random();
exports.handler = async () => ({
  bytes: crypto.randomBytes(16).toString('hex'),
  uuid: crypto.randomUUID(),
  global: globalThis.crypto.randomUUID(),
  web: Buffer.from(crypto.webcrypto.getRandomValues(new Uint8Array(16))).toString('hex'),
  ints: Array.from({ length: 4 }, () => crypto.randomInt(2 ** 40)).join(),
  math: Math.random(),
  kept: random(),
  now: Date.now(),
  performance: performance.timeOrigin + performance.now(),
  secret: process.env.SECRET,
});
"""

CHANCE_PY = """
import os, random, ssl, time, uuid
random.random(); ssl.RAND_bytes(8)
def handler(event, context):
    return {'bytes': ssl.RAND_bytes(16).hex(), 'uuid': str(uuid.uuid4()), 'random': random.random(),
            'urandom': os.urandom(8).hex(), 'now': time.time() * 1000,
            'secret': os.environ.get('SECRET')}
"""

CHANCES = {
    "nodejs": (CHANCE_JS, ("bytes", "uuid", "global", "web", "ints", "math", "kept")),
    "python": (CHANCE_PY, ("bytes", "uuid", "random", "urandom")),
}

# where a clone's images and its runtime's lie
IMAGES = re.compile(r" /(parent-)?snapshot ro,nosuid,nodev")

LOOK = """
const fs = require('node:fs');
const read = (file) => { try { return fs.readFileSync(file, 'utf8'); } catch (e) { return e.code; } };
const keep = /^(Uid|Gid|Groups|Umask|NoNewPrivs|Seccomp|Seccomp_filters|Cap|NSpid|NStgid|Threads|Sig(Ign|Cgt|Blk))/;
exports.handler = async () => ({
  status: read('/proc/self/status').split('\\n').filter((line) => keep.test(line)),
  limits: read('/proc/self/limits'),
  oom: read('/proc/self/oom_score_adj'),
  cgroup: read('/proc/self/cgroup').replace(/cell-?\\w+/g, 'cell'),
  cwd: process.cwd(),
  comm: read('/proc/self/comm'),
  cmdline: read('/proc/self/cmdline'),
  mounts: read('/proc/self/mountinfo').split('\\n').map((line) => line.split(' ').slice(3).join(' ')),
  root: fs.readdirSync('/').sort(),
  snapshot: (() => { try { return fs.readdirSync('/snapshot'); } catch (e) { return e.code; } })(),
  fds: fs.readdirSync('/proc/self/fd').length,
  hostname: require('node:os').hostname(),
  write: (() => { try { fs.writeFileSync('/function/x', ''); return 'written'; } catch (e) { return e.code; } })(),
});
"""


def snapshot_of(host, name):
    return host.function(name)["versions"][0]["snapshot"]


def await_snapshot(host, name):
    """Waits until the function starts from a snapshot, and fails as soon as it is known not to."""
    def settled():
        state = snapshot_of(host, name)
        return state if state["state"] in ("stands", "paused", "off", "unavailable") else None

    state = wait_for(settled, f"a snapshot of {name}")
    assert state["state"] == "stands", (state, host.log()[-3000:])
    return state


def deploy(host, runtime, name, source, **spec):
    spec.setdefault("workers", {"max": 4, "idleMs": 100})
    (host.deploy_node if runtime == "nodejs" else host.deploy_python)(name, source, **spec)


def quiet(host, name):
    """Waits until the function has no worker."""
    wait_for(lambda: not [w for w in host.workers() if w["function"] == name], "workers leave")


def cold(host, name, event=None):
    """The answer to a request that no worker was up for."""
    quiet(host, name)
    answer = host.invoke(name, event)
    assert answer.status == 200, (answer, host.log()[-3000:])
    return answer.json()


def restores(host, name):
    return snapshot_of(host, name)["restoresTotal"]


@pytest.fixture(scope="module")
def frozen_host(make_shared_host):
    return make_shared_host(ON)


@pytest.mark.parametrize("runtime", sorted(CHANCES))
def test_two_clones_differ_and_see_the_right_time(frozen_host, runtime):
    host, name = frozen_host, f"chance-{runtime}"
    source, fields = CHANCES[runtime]
    deploy(host, runtime, name, source, env={"SECRET": "s3"})
    await_snapshot(host, name)
    seen = [cold(host, name) for _ in range(3)]
    assert restores(host, name) == 3, snapshot_of(host, name)
    for field in fields:
        assert len({str(one[field]) for one in seen}) == 3, (field, seen)
    assert all(abs(one["now"] - time.time() * 1000) < 20000 for one in seen)
    assert all(abs(one.get("performance", one["now"]) - one["now"]) < 50 for one in seen)
    assert all(one["secret"] == "s3" for one in seen)


def test_a_clone_is_confined_as_a_plain_worker_is(frozen_host):
    host = frozen_host
    deploy(host, "nodejs", "look", LOOK)
    deploy(host, "nodejs", "look-plain", LOOK, snapshot="off")
    await_snapshot(host, "look")
    clone, plain = cold(host, "look"), cold(host, "look-plain")
    assert restores(host, "look") == 1
    uid = [line for line in plain["status"] if line.startswith("Uid")][0].split()[1]
    own = [line for line in clone["status"] if line.startswith("Uid")][0].split()[1]
    plain["status"] = [line.replace(uid, own) for line in plain["status"]]
    for pid_line in ("NSpid", "NStgid"):
        for one in (clone, plain):
            one["status"] = [s for s in one["status"] if not s.startswith(pid_line)]
    assert plain.pop("hostname") == "look-plain" and clone.pop("hostname") == "look"
    # its own images are mounted where only CRIU, as root, can look
    assert clone.pop("snapshot") == "EACCES" and plain.pop("snapshot") in ("EACCES", [])
    clone["mounts"] = [line for line in clone["mounts"] if not IMAGES.search(line)]
    for field in plain:
        assert clone[field] == plain[field], field


# what a function in a network namespace of its own finds there
NETWORKS = {
    "nodejs": """
const fs = require('node:fs');
const rows = (file, head) => fs.readFileSync(file, 'utf8').split('\\n').slice(head, -1).map((row) => row.trim());
exports.handler = async () => ({
  interfaces: rows('/proc/net/dev', 2).map((row) => row.split(':')[0]),
  channel: fs.readlinkSync('/proc/self/fd/3'),
  sockets: rows('/proc/net/unix', 1).map((row) => `socket:[${row.split(/\\s+/)[6]}]`),
});
""",
    "python": """
import os
def rows(file, head):
    with open(file) as lines:
        return list(lines)[head:]
def handler(event, context):
    return {'interfaces': [row.split(':')[0].strip() for row in rows('/proc/net/dev', 2)],
            'channel': os.readlink('/proc/self/fd/3'),
            'sockets': [f'socket:[{row.split()[6]}]' for row in rows('/proc/net/unix', 1)]}
""",
}


@pytest.mark.parametrize("config", [ON, LAYERED], ids=["alone", "layered"])
@pytest.mark.parametrize("runtime", sorted(NETWORKS))
def test_a_function_without_network_starts_from_a_snapshot_and_still_has_none(make_host, runtime, config):
    host = make_host(config)
    deploy(host, runtime, "inward", NETWORKS[runtime], network="none")
    await_snapshot(host, "inward")
    for _ in range(2):
        seen = cold(host, "inward")
        assert seen["interfaces"] == ["lo"]
        # both ends of its channel, and nothing that leads elsewhere
        assert seen["channel"] in seen["sockets"], seen
        # what restored it had one more, and takes a moment to go
        wait_for(lambda: len(host.invoke("inward").json()["sockets"]) == 2, "no other socket is there")
    assert restores(host, "inward") == 2, snapshot_of(host, "inward")


def test_hooks_and_a_warm_up_run_once_before_and_in_each_clone(frozen_host):
    host = frozen_host
    deploy(host, "nodejs", "hooked", """
      let served = [], log = [];
      exports.beforeSnapshot = async () => { log.push(`before after ${served.length}`); };
      exports.afterRestore = async () => { log.push('after'); };
      exports.handler = async (event) => { served.push(event.who); return { served, log }; };
    """, snapshot={"warmup": {"who": "warm-up"}})
    await_snapshot(host, "hooked")
    for _ in range(2):
        assert cold(host, "hooked", {"who": "caller"}) == {
            "served": ["warm-up", "caller"], "log": ["before after 1", "after"]}


def test_a_failing_hook_in_a_clone_costs_no_request(frozen_host):
    host = frozen_host
    deploy(host, "nodejs", "badhook", """
      exports.afterRestore = () => { throw new Error('no way back'); };
      exports.handler = async () => 'served';
    """)
    await_snapshot(host, "badhook")
    for _ in range(3):
        assert cold(host, "badhook") == "served"
    state = snapshot_of(host, "badhook")
    assert state["state"] == "paused" and "no way back" in state["lastFailure"], state
    assert restores(host, "badhook") == 0


def test_what_can_not_be_frozen_is_served_and_named(frozen_host):
    host = frozen_host
    deploy(host, "nodejs", "refuses", """
      exports.beforeSnapshot = () => { throw new Error('not me'); };
      exports.handler = async () => 'served';
    """)
    assert host.invoke("refuses").json() == "served"
    state = wait_for(lambda: (s := snapshot_of(host, "refuses"))["state"] == "paused" and s, "the refusal")
    assert "not me" in state["lastFailure"]
    assert cold(host, "refuses") == "served"


FILES_PY = """
import os, socket, stat
os.makedirs('/tmp/a/b', mode=0o750)
open('/tmp/a/b/data', 'w').write('here' * 1000)
os.chmod('/tmp/a/b/data', 0o640)
os.utime('/tmp/a/b/data', (5, 1234567890))
os.symlink('b/data', '/tmp/a/link')
os.symlink('/etc/passwd', '/tmp/outside')
open('/dev/shm/shared', 'wb').write(b'\\0' * 70000)
kept = open('/tmp/kept', 'w+')
kept.write('open')
kept.flush()
gone = open('/tmp/gone', 'w+')
gone.write('deleted but open')
gone.flush()
os.unlink('/tmp/gone')
def look(path):
    st = os.lstat(path)
    return [stat.filemode(st.st_mode), st.st_uid == os.getuid(), int(st.st_mtime)]
def handler(event, context):
    kept.write('!')
    kept.flush()
    gone.seek(0)
    return {'data': open('/tmp/a/link').read() == 'here' * 1000, 'look': look('/tmp/a/b/data'),
            'dir': look('/tmp/a/b')[:2], 'links': [os.readlink('/tmp/a/link'), os.readlink('/tmp/outside')],
            'shm': os.path.getsize('/dev/shm/shared'), 'kept': open('/tmp/kept').read(),
            'gone': gone.read(), 'all': sorted(os.listdir('/tmp'))}
"""


def test_files_in_tmp_come_with_the_snapshot_and_each_clone_has_its_own(frozen_host):
    host = frozen_host
    deploy(host, "python", "files", FILES_PY)
    await_snapshot(host, "files")
    for _ in range(2):
        assert cold(host, "files") == {
            "data": True, "look": ["-rw-r-----", True, 1234567890], "dir": ["drwxr-x---", True],
            "links": ["b/data", "/etc/passwd"], "shm": 70000, "kept": "open!",
            "gone": "deleted but open", "all": ["a", "kept", "outside"]}
    assert restores(host, "files") == 2


def test_what_can_not_be_kept_of_tmp_is_named(frozen_host):
    host = frozen_host
    deploy(host, "python", "pipes", "import os\nos.mkfifo('/tmp/pipe')\n"
           "def handler(event, context):\n    return 'served'\n")
    state = wait_for(lambda: (s := snapshot_of(host, "pipes"))["state"] == "paused" and s, "the refusal")
    assert "'/tmp/pipe' is neither a file nor a directory nor a link" in state["lastFailure"]
    assert cold(host, "pipes") == "served"


def test_twenty_cold_starts_at_once(frozen_host):
    host = frozen_host
    deploy(host, "nodejs", "crowd", "exports.handler = async (n) => { await new Promise((r) => "
           "setTimeout(r, 200)); return n; };", concurrency=1, workers={"max": 20, "idleMs": 100})
    await_snapshot(host, "crowd")
    quiet(host, "crowd")
    connections = [host.connect() for _ in range(20)]
    for n, connection in enumerate(connections):
        connection.request("POST", "/2015-03-31/functions/crowd/invocations", body=json.dumps(n))
    assert [json.loads(c.getresponse().read()) for c in connections] == list(range(20))


def images(host, name):
    root = host.root / "state" / "snapshots"
    key = snapshot_of(host, name)["key"]
    return [p for p in root.rglob("*") if p.is_file() and key in str(p)]


def flip(path):
    with path.open("r+b") as file:
        if not path.stat().st_blocks:
            return
        # a file of memory is mostly holes, and very large
        start = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        at = random.randrange(start, os.lseek(file.fileno(), start, os.SEEK_HOLE))
        byte = os.pread(file.fileno(), 1, at)[0] ^ 1 << random.randrange(8)
        os.pwrite(file.fileno(), bytes([byte]), at)


def copy_tree(source, target):
    """With holes as holes."""
    subprocess.run(["cp", "-a", source, target], check=True)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [flip, truncate, os.unlink])
def test_a_damaged_snapshot_costs_no_request(make_host, harm):
    host = make_host(ON)
    deploy(host, "nodejs", "hurt", "exports.handler = async () => 'served';")
    await_snapshot(host, "hurt")
    files = images(host, "hurt")
    assert files
    saved = host.root / "saved"
    copy_tree(host.root / "state" / "snapshots", saved)
    for file in files:
        host.stop()
        shutil.rmtree(host.root / "state" / "snapshots")
        copy_tree(saved, host.root / "state" / "snapshots")
        harm(file)
        host.start()
        assert cold(host, "hurt") == "served", file
        assert cold(host, "hurt") == "served", file


def test_a_snapshot_made_with_another_library_is_not_used(make_host):
    """Its memory would go on in code that has moved: a package was upgraded below the running host."""
    host = make_host(ON)
    deploy(host, "nodejs", "f", "exports.handler = async () => 'served';")
    await_snapshot(host, "f")
    assert cold(host, "f") == "served"
    assert restores(host, "f") == 1
    os.utime(host.root / "runtimes" / "preload" / "node.so")
    assert cold(host, "f") == "served"
    assert "it was made with another '/runtime/preload/node.so'" in host.log()
    assert restores(host, "f") == 1
    host.nestctl("snapshot", "build", "f")
    wait_for(lambda: snapshot_of(host, "f")["state"] == "stands", "another is made")
    assert cold(host, "f") == "served"
    assert restores(host, "f") == 2


def test_the_snapshot_of_another_version_under_this_ones_name_is_not_used(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "first", "exports.handler = async () => 'first';")
    deploy(host, "nodejs", "second", "exports.handler = async () => 'second';")
    await_snapshot(host, "first"), await_snapshot(host, "second")
    store = host.root / "state" / "snapshots"
    first, second = (store / snapshot_of(host, name)["key"] for name in ("first", "second"))
    host.stop()
    shutil.rmtree(first)
    second.rename(first)
    host.start()
    assert cold(host, "first") == "first" and cold(host, "second") == "second"
    for name in ("first", "second"):
        await_snapshot(host, name)
        assert cold(host, name) == name and restores(host, name) >= 1


def strike(host):
    """kill -9 of every CRIU of the host; how many there were."""
    struck = 0
    for pid in descendants(host.pid):
        try:
            if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                struck += 1
        except (FileNotFoundError, ProcessLookupError):
            pass
    return struck


def drafts(host):
    return list((host.root / "state" / "snapshots").glob("tmp-*"))


def rebuild(host, name):
    """Has a snapshot made anew; returns while its dump is under way."""
    host.nestctl("snapshot", "build", name)
    wait_for(lambda: drafts(host) or snapshot_of(host, name)["state"] == "paused", "the dump begins")


def test_kill_9_of_criu_while_it_dumps_costs_no_request(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "struck", "exports.handler = async () => 'served';")
    await_snapshot(host, "struck")
    struck = 0
    for _ in range(5):
        rebuild(host, "struck")
        if drafts(host):
            struck += strike(host)
        wait_for(lambda: snapshot_of(host, "struck")["state"] in ("stands", "paused"), "it is settled")
        assert cold(host, "struck") == "served"
        wait_for(lambda: not drafts(host), "the half-made one is swept")
    assert struck


def test_kill_9_of_criu_while_it_restores_costs_no_request(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "struck", "exports.handler = async () => 'served';")
    await_snapshot(host, "struck")
    struck = 0
    for n in range(12):
        quiet(host, "struck")
        connection = host.connect()
        connection.request("POST", "/2015-03-31/functions/struck/invocations", body="{}")
        time.sleep(n / 1000)  # each time a little further on in the restore
        struck += strike(host)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b'"served"'), host.log()[-3000:]
        connection.close()
    assert struck


def test_kill_9_of_the_host_while_it_dumps_leaves_one_that_serves(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "struck", "exports.handler = async () => 'served';")
    await_snapshot(host, "struck")
    rebuild(host, "struck")
    host.kill()
    host.start()
    assert cold(host, "struck") == "served"
    await_snapshot(host, "struck")
    wait_for(lambda: not drafts(host), "what the last life left is swept")


def resident_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int([line for line in status.splitlines() if line.startswith("VmRSS")][0].split()[1])


def footprint(host):
    """What must not grow: descriptors, mounts of the spawner, files in the state directory."""
    return {
        "fds": host.fds(),
        "mounts": len(Path(f"/proc/{host.spawner_pid()}/mountinfo").read_text().splitlines()),
        "files": sorted(str(p) for p in (host.root / "state").rglob("*")),
    }


def await_one_on_standby(host):
    """None is being restored any more, so that descriptors and mounts can be counted."""
    wait_for(lambda: [w["pid"] > 0 for w in host.workers(standby=True) if w["state"] == "standby"] == [True],
             "one stands by")


@pytest.mark.parametrize("standby", [{"memory": 0}, {"perFunction": 1}], ids=["restored", "on-standby"])
def test_rounds_of_clones_leak_nothing(make_host, standby):
    host = make_host({**ON, "standby": standby})
    deploy(host, "nodejs", "round", "exports.handler = async () => 'served';",
           workers={"max": 1, "idleMs": 1})
    await_snapshot(host, "round")
    rounds, standing = int(os.environ.get("NESTLET_ROUNDS", "200")), standby.get("perFunction", 0)

    def start_and_stop(times):
        for _ in range(times):
            cold(host, "round")
            if standing:
                await_one_on_standby(host)
        quiet(host, "round")
        host.settled_fds(running=standing)

    start_and_stop(20)
    before = footprint(host)
    resident = [resident_kb(pid) for pid in (host.pid, host.spawner_pid())]
    start_and_stop(rounds)
    wait_for(lambda: footprint(host) == before, "all is as before")
    for pid, kb in zip((host.pid, host.spawner_pid()), resident):
        assert resident_kb(pid) - kb < 1024, (pid, kb, resident_kb(pid))
    assert restores(host, "round") >= rounds, snapshot_of(host, "round")


def test_the_snapshot_of_a_removed_function_goes(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "gone", "exports.handler = async () => 'served';")
    await_snapshot(host, "gone")
    assert images(host, "gone")
    store = host.root / "state" / "snapshots"
    key = snapshot_of(host, "gone")["key"]
    host.nestctl("rm", "gone")
    wait_for(lambda: not (store / key).exists() and not list(store.glob("gone-*")), "the images go")
    # its runtime's stays for others
    assert [p for p in store.rglob("*") if p.is_file()]


def test_nestctl_shows_drops_and_makes_snapshots(make_host):
    host = make_host(ON)
    deploy(host, "nodejs", "shown", "exports.handler = async () => 'served';")
    deploy(host, "nodejs", "bare", "exports.handler = async () => 'served';", snapshot="off")
    await_snapshot(host, "shown")
    assert "stands" in host.nestctl("snapshot", "list").stdout
    host.nestctl("snapshot", "rm", "shown")
    assert snapshot_of(host, "shown")["state"] == "none"
    assert cold(host, "shown") == "served" and restores(host, "shown") == 0
    host.nestctl("snapshot", "build", "shown")
    await_snapshot(host, "shown")
    refused = host.nestctl("snapshot", "build", "bare", check=False)
    assert refused.returncode != 0 and "has no snapshots" in refused.stderr
