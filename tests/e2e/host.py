# SPDX-License-Identifier: Apache-2.0
"""A nestletd under test, and the two clients that the tests speak to it with: raw HTTP and nestctl."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("NESTLET_BUILD", TOP / "build")).resolve()
NESTLETD = BUILD / "nestletd"
NESTCTL = BUILD / "nestctl"
CGROUPS = Path("/sys/fs/cgroup")

# a limit for everything that a test waits for, never a sleep: long, as the machine may be loaded
PATIENCE = 30


def wait_for(condition, what, timeout=PATIENCE):
    """Waits until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.01)


def mounts():
    """The mount points of this test's namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return {line.split()[4] for line in file}


def processes():
    """pid -> (parent, command line) of every process there is, but for dead orphans that await init."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = stat.rsplit(")", 1)[1].split()[:2]
        if state != "Z" or parent != "1":
            found[int(entry.name)] = (int(parent), command)
    return found


def descendants(pid):
    """The pids of all processes below pid."""
    table = processes()
    below, grew = {pid}, True
    while grew:
        more = {p for p, (parent, _) in table.items() if parent in below} - below
        below |= more
        grew = bool(more)
    return below - {pid}


def links_of(pid):
    """What the descriptors of a process refer to; nothing when it is gone."""
    links = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return links


def cgroups_of(instance):
    """The cgroup directories that belong to one host."""
    found = []
    for path, names, _ in os.walk(CGROUPS):  # others' come and go meanwhile
        found += [os.path.join(path, name) for name in names if name == f"nestlet-{instance}"]
    return found


def leftovers(hosts):
    """What the hosts of a test left behind after their end."""
    problems = []
    table = processes()
    for host in hosts:
        for pid in sorted(host.seen_pids & set(table)):
            problems.append(f"process {pid} is left: {table[pid][1]}")
        for path in cgroups_of(host.instance):
            problems.append(f"cgroup {path} is left")
        for path in (host.gateway_socket, host.admin_socket):
            if path.exists():
                problems.append(f"socket file {path} is left")
    return problems


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path, timeout=PATIENCE):
        super().__init__("nestlet", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    """A whole HTTP response."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    @property
    def error_type(self):
        return self.json()["errorType"]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:400]!r}>"


class Host:
    """One nestletd with directories of its own below `root`."""

    count = 0

    def __init__(self, root, config):
        Host.count += 1
        self.root = Path(root)
        self.root.mkdir(mode=0o755, exist_ok=True)
        self.instance = f"t{os.getpid()}-{Host.count}"
        self.config = {
            "instance": self.instance,
            "stateDir": str(self.root / "state"),
            "runDir": str(self.root / "run"),
            "runtimes": {},
            "log": {"level": "debug", "format": "text"},
            "snapshots": {"enabled": False},  # tests of them turn them on
            **config,
        }
        self.config["runtimes"].setdefault("dir", str(self.runtimes()))
        self.gateway_socket = self.root / "run" / "gateway.sock"
        self.admin_socket = self.root / "run" / "admin.sock"
        self.log_path = self.root / "host.log"
        self.process = None
        self.seen_pids = set()
        self.fds_at_rest = None
        self.environment = {}  # on top of this process's

    def runtimes(self):
        """The language sides, copied to where the host's user can read them wherever the checkout is."""
        target = self.root / "runtimes"
        if not target.exists():
            target.mkdir(mode=0o755)
            for name in ("node", "python", "manifests"):
                shutil.copytree(TOP / "runtime" / name, target / name)
            for module in (BUILD / "runtime" / "node").glob("*.node"):
                shutil.copy(module, target / "node")
            (target / "preload").mkdir()
            for library in (BUILD / "runtime" / "preload").glob("*.so"):
                shutil.copy(library, target / "preload")
            subprocess.run(["chmod", "-R", "go+rX", str(target)], check=True)
        return target

    # ---- life ----

    def write_config(self):
        path = self.root / "nestlet.conf"
        path.write_text(json.dumps(self.config))
        path.chmod(0o644)
        return path

    def command(self, write_fd):
        return [str(NESTLETD), "--config", str(self.write_config()), "--ready-fd", str(write_fd)]

    def start(self, expect_ready=True):
        """Starts nestletd and waits for READY=1, or for its end if that is expected."""
        read_fd, write_fd = os.pipe()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(write_fd),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[write_fd],
            )
        os.close(write_fd)
        with os.fdopen(read_fd) as ready:
            told = ready.readline().strip()
        if not expect_ready:
            return self.process.wait(PATIENCE)
        assert told == "READY=1", f"the host did not become ready:\n{self.log()}"
        self.note_pids()
        if not self.has_configured() and self.fds_at_rest is None:
            self.fds_at_rest = self.settled_fds()
        return self

    def has_configured(self):
        """Whether the config brings functions, which only it can take away."""
        return bool(self.config.get("functions") or self.config.get("functionsDir"))

    def settled_fds(self, running=0):
        """How many descriptors there are once the prepared cells are made beside those that are running, and no
        connection of ours is open."""
        prepared = self.config.get("cells", {}).get("prepared", 2)

        def settled():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(self.admin_socket))
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                text = b"".join(iter(lambda: sock.recv(65536), b""))
            return f"nestlet_cells_prepared {prepared}\n".encode() in text

        def children_of(pid):
            return [p for p, (parent, _) in processes().items() if parent == pid]

        wait_for(settled, "the prepared cells are made")
        wait_for(lambda: len(children_of(self.spawner_pid())) == prepared + running, "CRIU's libraries are tried")
        return self.fds()

    @property
    def pid(self):
        return self.process.pid

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    def note_pids(self):
        """Remembers every process below the host, so that the end can be checked."""
        if self.alive:
            self.seen_pids |= descendants(self.pid) | {self.pid}
        return self.seen_pids

    def children(self):
        """The agent's direct children: the spawner, and for a while the one that tries the machine's features."""
        return [p for p, (parent, _) in processes().items() if parent == self.pid]

    def spawner_pid(self):
        """The privileged child: the one that has an event loop of its own."""
        spawners = [p for p in self.children() if "anon_inode:[eventpoll]" in links_of(p)]
        assert len(spawners) == 1, f"the agent's children with a loop: {spawners}"
        return spawners[0]

    def fds(self):
        """How many descriptors agent and spawner hold."""
        return {
            "agent": len(os.listdir(f"/proc/{self.pid}/fd")),
            "spawner": len(os.listdir(f"/proc/{self.spawner_pid()}/fd")),
        }

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Drains it and returns the exit code."""
        if self.alive:
            self.note_pids()
            self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self):
        """kill -9 of the agent."""
        self.note_pids()
        self.process.kill()
        self.process.wait(PATIENCE)

    def finish(self):
        """The end of a test: takes all functions away, looks for leaks, stops. Returns the problems."""
        problems = []
        if self.process is None:
            return problems
        if self.alive:
            try:
                problems += self.leaks_at_rest()
            except (OSError, AssertionError) as error:
                problems.append(f"at rest: {error}")
            code = self.stop()
            if code != 0:
                problems.append(f"nestletd exited with {code}")
        if "AddressSanitizer" in self.log() or "runtime error:" in self.log():
            problems.append("a sanitizer complained")
        dead = wait_for_quiet(self)
        if dead or problems:
            problems.append(f"--- log of the host ---\n{self.log()[-6000:]}")
        return problems

    def leaks_at_rest(self):
        """With no function deployed a host holds the descriptors that it began with."""
        if self.fds_at_rest is None or self.has_configured():
            return []
        for function in {f["name"] for f in self.admin("GET", "/v1/functions").json()["functions"]}:
            self.admin("DELETE", f"/v1/functions/{function}")
        wait_for(lambda: not self.workers(standby=True), "the workers of removed functions end")
        try:
            wait_for(lambda: self.fds() == self.fds_at_rest, "descriptors are given back", 10)
        except AssertionError:
            return [f"descriptors leaked: {self.fds_at_rest} at first, {self.fds()} at the end"]
        return []

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # ---- the gateway ----

    def connect(self, timeout=PATIENCE):
        return UnixConnection(self.gateway_socket, timeout)

    def raw(self, timeout=PATIENCE):
        """A bare connected socket to the gateway."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(str(self.gateway_socket))
        return sock

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        connection = self.connect(timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def invoke(self, name, event=None, headers=None, timeout=PATIENCE):
        return self.request(
            "POST",
            f"/2015-03-31/functions/{name}/invocations",
            json.dumps(event if event is not None else {}),
            headers,
            timeout,
        )

    # ---- the admin API and nestctl ----

    def admin(self, method, path, body=None):
        connection = UnixConnection(self.admin_socket)
        try:
            connection.request(method, path, body=body)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def workers(self, standby=False):
        """Those that serve, or will; with standby those that stand by too."""
        workers = self.admin("GET", "/v1/workers").json()["workers"]
        return [w for w in workers if standby or w["state"] != "standby"]

    def function(self, name):
        return self.admin("GET", f"/v1/functions/{name}").json()

    def metrics(self):
        """name{labels} -> value of /metrics."""
        values = {}
        for line in self.admin("GET", "/metrics").body.decode().splitlines():
            if line and not line.startswith("#"):
                key, value = line.rsplit(" ", 1)
                values[key] = float(value)
        return values

    def nestctl(self, *args, check=True, stdin=None):
        """Runs nestctl; returns the finished process with text output."""
        done = subprocess.run(
            [str(NESTCTL), *args, "--socket", str(self.admin_socket)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"nestctl {args}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write_function(self, name, files, **spec):
        """A function's directory with these files and this spec."""
        directory = self.root / "functions" / name
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        (directory / "nestlet.json").write_text(json.dumps({"name": name, **spec}))
        return directory

    def deploy(self, name, files, **spec):
        """Writes a function and deploys it by nestctl."""
        self.nestctl("deploy", str(self.write_function(name, files, **spec)))

    def deploy_node(self, name, source, **spec):
        spec.setdefault("runtime", "nodejs")
        spec.setdefault("handler", "index.handler")
        self.deploy(name, {"index.js": source}, **spec)

    def deploy_python(self, name, source, **spec):
        spec.setdefault("runtime", "python")
        spec.setdefault("handler", "handler.handler")
        self.deploy(name, {"handler.py": source}, **spec)


def wait_for_quiet(host):
    """Waits until no process of a stopped host is left; the pids that stay are told by leftovers()."""
    try:
        wait_for(lambda: not (host.seen_pids & set(processes())), "processes end", 10)
        wait_for(lambda: not cgroups_of(host.instance), "cgroups go", 10)
    except AssertionError:
        return True
    return False
