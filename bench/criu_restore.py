# SPDX-License-Identifier: Apache-2.0
"""`criu restore` as a command: what bench/coldstart holds the host's restores against.

One worker is started, warmed up and dumped, all by the runtime's own bootstrap and the worker protocol, as the host
does it, under the same system call filter; but CRIU is a command each time, its images are as it writes them, made upon
no other and read into memory, and there is no cell and no user of its own, which would only add to its time. It runs as
PID 1 of namespaces of its own, where the worker's pids are free, with a tmpfs as /run, which CRIU caches in what it
found out about the kernel. Each line of standard input is answered with the milliseconds of one restore, from before
CRIU's start to the whole response."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
OWN_PREFIX = Path(os.environ.get("NESTLET_DEPS_PREFIX", "/usr/local/lib/nestlet")) / "criu"
QUIET = ["--network-lock", "skip", "--manage-cgroups=ignore", "--file-locks"]


def criu():
    """CRIU's command, without the script that starts the one of tools/install-deps."""
    loaders = sorted(OWN_PREFIX.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        return ["criu"]
    return [str(loaders[0]), "--argv0", "criu", "--library-path", str(loaders[0].parent),
            str(OWN_PREFIX / "usr" / "sbin" / "criu")]


class Image:
    """A dumped worker, and how it is restored."""

    def __init__(self, plan):
        self.plan, self.images = plan, plan["images"]
        manifest = driver.manifest(plan["runtime"])

        def here(text):
            return text.replace("/runtime/", plan["runtimes"] + "/")

        ours, theirs = socket.socketpair()
        self.ino = os.fstat(theirs.fileno()).st_ino
        with subprocess.Popen(
                [plan["confined"], *map(here, manifest["argv"])],
                env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", **{k: here(v) for k, v in manifest["env"].items()},
                           **plan["env"], "NESTLET_FUNCTION_DIR": plan["code"]},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3,),
                start_new_session=True, preexec_fn=lambda: os.dup2(theirs.fileno(), 3)) as process:
            theirs.close()
            self.pid = process.pid
            worker = Clone(ours)
            worker.init = {"function": "bench", "version": "1", "handler": plan["handler"],
                           "interface": plan["interface"], "memoryMb": 256, "timeoutMs": 30000, "concurrency": 1,
                           "initTimeoutMs": 10000, "codeDir": plan["code"], "snapshot": True}
            worker.start()
            self.ask(worker)
            worker.rest()
            self.run(["dump", "-t", str(self.pid), "--external", f"unix[{self.ino}]"], "dump.log")
        ours.close()

    def run(self, command, log):
        done = subprocess.run([*criu(), *command, *QUIET, "-D", self.images, "-v1", "-o", log], check=False)
        if done.returncode:
            sys.exit(f"criu {command[0]}: {(Path(self.images) / log).read_text(errors='replace')}")

    def ask(self, worker):
        if self.plan["interface"] == "http":
            call = worker.end(worker.http("GET", "/shop/tea"))
            assert call.status == 200, call.body
        else:
            call = worker.end(worker.event(self.plan["event"]))
        assert self.plan["mark"].encode() in call.body, call.body

    def restore(self):
        """Milliseconds to the whole response."""
        ours, theirs = socket.socketpair()
        clone = Clone(ours)
        begin = time.perf_counter()
        with subprocess.Popen(
                [*criu(), "restore", "-d", *QUIET, "-D", self.images, "-v0", "--inherit-fd",
                 f"fd[{theirs.fileno()}]:socket:[{self.ino}]"],
                pass_fds=(theirs.fileno(),), stdout=subprocess.DEVNULL):
            theirs.close()
            clone.wake()
            self.ask(clone)
            took = (time.perf_counter() - begin) * 1000
        ours.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)  # it is ours now: CRIU has left it to PID 1
        return took


def main():
    plan = json.loads(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    image = Image(plan)
    image.restore()  # now its caches are warm
    print("ready", flush=True)
    for _ in sys.stdin:
        print(image.restore(), flush=True)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(TOP / "tests" / "unit" / "runtime" / "lang"))
    import driver

    class Clone(driver.Worker):
        """The host's side of a worker that it did not start itself."""

        def __init__(self, sock):  # pylint: disable=super-init-not-called
            self.attach(sock)

        def output(self):
            return ""

    main()
