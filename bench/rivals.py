# SPDX-License-Identifier: Apache-2.0
"""The same handler started without the host: what bench/coldstart holds its starts against.

Each rival's start() returns the milliseconds from before its first process to the handler's first answer. They get
the environment that the host gives, and no more: a Node whose environment names extra certificates, for one, needs
twice the time to come up."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
MANIFESTS = {name: json.loads((TOP / "runtime" / "manifests" / f"{name}.json").read_text())
             for name in ("nodejs", "python")}
NODE_EVENT = """
const [, , dir, event] = process.argv;
Promise.resolve(require(dir + '/index.js').handler(JSON.parse(event), {}))
  .then((answer) => process.stdout.write(JSON.stringify(answer) + '\\n'));
"""
# no server and no client: less than any way to serve it takes
NODE_HTTP = """
const [, , dir] = process.argv;
const answer = { setHeader() {}, end: (body) => process.stdout.write(body + '\\n') };
require(dir + '/index.js').handler({ method: 'GET', url: '/shop/tea', headers: {} }, answer);
"""
PYTHON_EVENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from handler import handler
print(json.dumps(handler(json.loads(sys.argv[2]), None)), flush=True)
"""
ROOT = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64")


def first_line(command, env, mark):
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=env) as process:
        line = process.stdout.readline()
        took = (time.perf_counter() - begin) * 1000
    if mark.encode() not in line:
        sys.exit(f"{command[0]} answered {line!r}")
    return took


class Floor:
    """The runtime and the handler, and nothing else."""

    def __init__(self, case, work):
        python, manifest = case.spec["runtime"] == "python", MANIFESTS[case.spec["runtime"]]
        script = work / f"{case.name}-alone.{'py' if python else 'cjs'}"
        script.write_text(PYTHON_EVENT if python else NODE_HTTP if case.is_http else NODE_EVENT)
        self.paths = [str(script), str(case.directory)]
        # as the host starts it, but for the bootstrap, which is the last argument
        self.command = [*manifest["argv"][:-1], *self.paths, json.dumps(case.event)]
        self.env = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **manifest["env"], **case.spec.get("env", {})}
        self.env.pop("LD_PRELOAD", None)  # the host's own, for workers in cells
        self.mark = case.mark

    def start(self):
        return first_line(self.command, self.env, self.mark)

    def close(self):
        pass


class Bwrap(Floor):
    """The same in bubblewrap: namespaces of its own, the machine's root read-only."""

    def __init__(self, case, work):
        super().__init__(case, work)
        binds = [word for path in self.paths for word in ("--ro-bind", path, path)]
        self.command = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
                        "--unshare-all", "--die-with-parent", *binds, *self.command]


class Runc(Floor):
    """The same in a container of runc's: namespaces and cgroups of its own, a read-only root of the machine's /usr
    and what belongs to it, a user without privileges."""

    def __init__(self, case, work):
        super().__init__(case, work)
        self.bundle = work / f"{case.name}-runc"
        (self.bundle / "rootfs").mkdir(parents=True)
        mounts = list(self.paths)
        for path in map(Path, ROOT):
            if path.is_symlink():
                (self.bundle / "rootfs" / path.name).symlink_to(path.readlink())
            elif path.exists():
                mounts.append(str(path))
        (self.bundle / "config.json").write_text(json.dumps(self.config(mounts)))
        self.n = 0

    def config(self, mounts):
        namespaces = ("pid", "mount", "ipc", "uts", "network")
        return {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 65534, "gid": 65534}, "args": self.command, "cwd": "/",
                        "env": [f"{key}={value}" for key, value in self.env.items()], "noNewPrivileges": True},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                       {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
                       *[{"destination": m, "type": "bind", "source": m, "options": ["rbind", "ro"]} for m in mounts]],
            "linux": {"namespaces": [{"type": name} for name in namespaces]},
        }

    def start(self):
        self.n += 1
        return first_line(["runc", "--root", str(self.bundle / "state"), "run", "--bundle", str(self.bundle),
                           f"nestlet-bench-{os.getpid()}-{self.n}"], self.env | {"PATH": os.environ["PATH"]}, self.mark)


class CriuCommand:
    """`criu restore` as a command: bench/criu_restore.py."""

    def __init__(self, case, work, build, runtimes):
        images = work / f"{case.name}-images"
        images.mkdir()
        plan = {"runtime": case.spec["runtime"], "handler": case.spec["handler"], "env": case.spec.get("env", {}),
                "interface": case.spec.get("interface", "event"), "code": str(case.directory), "mark": case.mark,
                "event": case.event, "runtimes": str(runtimes), "confined": str(build / "bench" / "confined"),
                "images": str(images)}
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "--mount-proc",
             "/usr/bin/python3", "-B", str(TOP / "bench" / "criu_restore.py"), json.dumps(plan)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready\n")

    def expect(self, word=None):
        line = self.process.stdout.readline()
        if not line or (word and line != word):
            sys.exit(f"bench/criu_restore.py said {line!r}")
        return line

    def start(self):
        self.process.stdin.write("restore\n")
        self.process.stdin.flush()
        return float(self.expect())

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
