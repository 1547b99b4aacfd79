# SPDX-License-Identifier: Apache-2.0
"""A central scaler that a test plays: it keeps the reports that hosts send, and answers as it is told, well or badly."""

import json
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from host import PATIENCE, wait_for


def unzstd(data):
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


class Central:
    """Listens on a port of its own from start() to stop(), which can be called in turns."""

    def __init__(self):
        self.port = 0
        self.server = None
        self.thread = None
        self.tls = None
        self.lock = threading.Condition()
        self.reports = []  # (headers, report), oldest first
        self.generation = 0
        self.functions = []
        self.workers = {}
        self.extra = {}  # members of every reply
        self.misbehave = None  # called with the handler instead of a reply
        self.connections = []
        self.leave = threading.Event()  # what hangs may end

    def start(self):
        central = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                central.connections.append(self.connection)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "zstd":
                    body = unzstd(body)
                report = json.loads(body)
                with central.lock:
                    central.reports.append((dict(self.headers), report))
                    central.lock.notify_all()
                    misbehave = central.misbehave
                try:
                    if misbehave:
                        misbehave(self)
                    else:
                        self.reply(200, json.dumps(central.answer(report)).encode())
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def reply(self, status, body, **headers):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.leave.clear()
        self.server = Server(("127.0.0.1", self.port), Handler)
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def stop(self):
        """Nobody listens any more, and what hung is let go."""
        self.leave.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join(PATIENCE)
            self.server = None
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed
        self.connections.clear()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1/report"

    def answer(self, report):
        if self.generation == 0:
            return {"protocol": 1, "unchanged": True, **self.extra}
        if report["desired"]["generation"] == self.generation:
            return {"protocol": 1, "generation": self.generation, **self.extra}
        return self.whole()

    def whole(self):
        return {
            "protocol": 1,
            "generation": self.generation,
            "functions": self.functions,
            "workers": self.workers,
            **self.extra,
        }

    def desire(self, functions, workers=None, generation=None):
        """A new generation: all that should run."""
        with self.lock:
            self.functions = functions
            self.workers = workers or {}
            self.generation = generation or self.generation + 1

    def wait_report(self, condition, what, timeout=PATIENCE):
        """The first report from now on that fits."""
        with self.lock:
            seen = len(self.reports)

        def find():
            with self.lock:
                return next((r for _, r in self.reports[seen:] if condition(r)), None)

        return wait_for(find, what, timeout)

    def wait_settled(self, timeout=PATIENCE):
        """Until a host says that the newest generation is in force, and deployed as far as it can be."""
        return self.wait_report(
            lambda r: r["desired"]["generation"] == self.generation and r["desired"].get("settled"),
            f"generation {self.generation} is settled",
            timeout,
        )

    def count(self):
        with self.lock:
            return len(self.reports)
