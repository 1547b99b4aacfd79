#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A central scaler for trying the scaler protocol out (docs/scaler-protocol.md). Not for production: it
keeps nothing over a restart, knows one kind of policy, and trusts whoever reaches it.

    scaler.py --functions functions.json [--listen 127.0.0.1:8700] [--copies 1] [--quiet]

functions.json is an array of specs as nestlet-function(5) has them, each with its version; it is read
again when it changes. Each function is placed on --copies of the hosts that report, always on the same
ones as long as these live; where it is placed it gets as many workers at least as its load there needs.

Hosts: {"scaler": {"url": "http://127.0.0.1:8700/v1/report"}} in nestlet.conf. It knows them by their names: of several
on one machine each needs its own (POD_NAME=one nestletd ...)."""

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GONE_S = 5  # a host that was silent for so long gets nothing
UTILISATION = 0.7  # of a worker's slots that may be taken before another worker is wanted
REPORT_MAX = 64 << 20


class Host:
    """What is known of one host, and what it was told."""

    def __init__(self):
        self.report = None
        self.seen = 0.0
        self.told = None  # the functions and bounds of the generation
        self.generation = 0


class Scaler:
    """Places functions on hosts; all of it under one lock."""

    def __init__(self, path, copies):
        self.path = path
        self.copies = copies
        self.lock = threading.Lock()
        self.hosts = {}
        self.functions = []
        self.read_at = None

    def read_functions(self):
        try:
            stat = os.stat(self.path)
            if self.read_at == (stat.st_mtime_ns, stat.st_ino):
                return
            with open(self.path, encoding="utf-8") as file:
                functions = json.load(file)
            self.functions = [{**f, "version": str(f["version"])} for f in functions]
            self.read_at = (stat.st_mtime_ns, stat.st_ino)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{self.path}: {error!r}; the functions stay as they are", flush=True)

    def placed_on(self, name):
        """The hosts of a function: of those that take work, the first by a hash of both names."""
        now = time.monotonic()
        able = [
            key
            for key, host in self.hosts.items()
            if now - host.seen < GONE_S and host.report["state"] in ("ready", "full", "starting")
        ]
        able.sort(key=lambda key: hashlib.sha256(f"{name}/{key}".encode()).digest())
        return able[: self.copies]

    @staticmethod
    def bounds(spec, report):
        """Workers for what waits and runs now, and one while there were requests a moment ago."""
        slots = spec.get("concurrency") or 1
        most = spec.get("workers", {}).get("max", 16)
        mine = [f for f in report["functions"] if f["name"] == spec["name"]]
        load = sum(f.get("inFlight", 0) + f.get("queued", 0) for f in mine)
        least = math.ceil(load / (slots * UTILISATION)) or int(any(f.get("rps", 0) > 0 for f in mine))
        return {"min": min(max(least, spec.get("workers", {}).get("min", 0)), most), "max": most}

    def answer(self, report):
        key = report["host"].get("uid") or report["host"]["name"]
        with self.lock:
            self.read_functions()
            host = self.hosts.setdefault(key, Host())
            host.report, host.seen = report, time.monotonic()
            functions = [f for f in self.functions if key in self.placed_on(f["name"])]
            told = (functions, {f["name"]: self.bounds(f, report) for f in functions})
            in_force = report["desired"]["generation"]
            if told != host.told:
                # above what the host has, also when it was told by another life of ours
                host.generation = max(host.generation, in_force) + 1
                host.told = told
            if in_force == host.generation:
                return {"protocol": 1, "generation": host.generation}
            if in_force > host.generation:
                host.generation = in_force + 1
            return {"protocol": 1, "generation": host.generation, "functions": told[0], "workers": told[1]}

    def table(self):
        """One line for each host."""
        now = time.monotonic()
        lines = [f"{'HOST':<24} {'STATE':<9} {'AGE':>5} {'GEN':>6} {'FUNCTIONS':>9} {'WORKERS':>7} {'RPS':>8}"]
        with self.lock:
            for key, host in sorted(self.hosts.items()):
                r = host.report
                state = r["state"] if now - host.seen < GONE_S else "gone"
                lines.append(
                    f"{key:<24.24} {state:<9} {now - host.seen:>4.0f}s {r['desired']['generation']:>6} "
                    f"{len(r['functions']):>9} {r['use']['cells']:>7} {r['totals']['rps']:>8.1f}"
                )
                for what in ("refused", "failed"):
                    lines += [f"  {what}: {w['function']}: {w['reason']}" for w in r["desired"][what]]
        return "\n".join(lines)


def handler_of(scaler):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            if self.path != "/v1/report" or not 0 < length <= REPORT_MAX:
                self.close_connection = True
                self.reply(404 if self.path != "/v1/report" else 413, {})
                return
            body = self.rfile.read(length)
            packed = self.headers.get("Content-Encoding") == "zstd"
            if packed and not shutil.which("zstd"):
                self.reply(415, {"error": "there is no zstd here"})  # the host then sends them as they are
                return
            try:
                if packed:
                    body = subprocess.run(["zstd", "-dcq"], input=body, capture_output=True, check=True).stdout
                self.reply(200, scaler.answer(json.loads(body)))
            except (subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
                self.reply(400, {"error": repr(error)})

        def do_GET(self):
            text = (scaler.table() + "\n").encode()
            self.send(200, "text/plain", text)

        def reply(self, status, value):
            self.send(status, "application/json", json.dumps(value).encode())

        def send(self, status, kind, body):
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the host has gone

        def log_message(self, *args):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", required=True, metavar="FILE")
    parser.add_argument("--listen", default="127.0.0.1:8700", metavar="ADDRESS:PORT")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="print no table each second")
    args = parser.parse_args()
    scaler = Scaler(args.functions, args.copies)
    scaler.read_functions()
    if scaler.read_at is None:
        sys.exit(1)  # hosts must not be told that nothing should run
    address, port = args.listen.rsplit(":", 1)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer((address, int(port)), handler_of(scaler))
    print(f"listening on http://{address}:{server.server_address[1]}/v1/report", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not stop.wait(1):
        if not args.quiet:
            print(scaler.table(), flush=True)


if __name__ == "__main__":
    main()
