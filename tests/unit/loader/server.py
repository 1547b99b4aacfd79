#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A web server that misbehaves on command: GET /MODE/NAME sends the file NAME of the directory it
was given, in the way that MODE says, and GET /count/MODE/NAME how often that was asked for,
/most/MODE/NAME how many such requests it had at once. It is a proxy as well: a request for
http://elsewhere.invalid/MODE/NAME is one for /MODE/NAME. It prints its port, and ends when its standard
input does.

    server.py DIRECTORY [SECONDS]

SECONDS is what it takes for each answer at least."""

import collections
import os
import re
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

DIRECTORY = sys.argv[1]
LATENCY_S = float(sys.argv[2]) if sys.argv[2:] else 0.003  # a server next door is asked over one connection
TOGETHER = 4
MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"
counts = collections.Counter()
running = collections.Counter()
most = collections.Counter()
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def plain(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self):
        self.plain(403)

    def do_GET(self):
        path = self.path.split("?")[0]
        self.proxied = path.startswith("http://elsewhere.invalid/")
        path = path.removeprefix("http://elsewhere.invalid")
        _, mode, name = path.split("/", 2)
        with lock:
            counts[path] += 1
            running[path] += 1
            most[path] = max(most[path], running[path])
            self.count = counts[path]
        time.sleep(LATENCY_S)
        method = self.mode_good if mode.startswith("mirror") else getattr(
            self, "mode_" + mode.replace("-", "_"), None)
        try:
            if mode in ("count", "most"):
                self.tell((counts if mode == "count" else most)["/" + name])
            elif method:
                method(self.read(name))
            else:
                self.plain(404)
        finally:
            with lock:
                running[path] -= 1

    def tell(self, number):
        body = str(number).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read(self, name):
        with open(os.path.join(DIRECTORY, os.path.basename(name)), "rb") as file:
            return file.read()

    def range_of(self, body):
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return None
        first = int(match[1])
        last = min(int(match[2]) if match[2] else len(body) - 1, len(body) - 1)
        return first, last

    def ranged(self, body, etag='"one"', total=None, stop=None, length=None, modified=None):
        """A 206, or a 200 without a range; sends only @stop bytes and then hangs up."""
        asked = self.range_of(body)
        first, last = asked or (0, len(body) - 1)
        if asked and first >= len(body):
            self.plain(416, Content_Range=f"bytes */{len(body)}")
            return
        part = body[first:last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total or len(body)}")
        self.send_header("Content-Length", str(length or len(part)))
        if etag:
            self.send_header("ETag", etag)
        if modified:
            self.send_header("Last-Modified", modified)
        self.end_headers()
        self.wfile.write(part if stop is None else part[:stop])
        if stop is not None:
            self.close_connection = True

    def whole(self, body, stop=None, length=None, etag='"one"'):
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(body)))
        self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body if stop is None else body[:stop])
        if stop is not None:
            self.close_connection = True

    def mode_good(self, body):
        self.ranged(body)

    def mode_together(self, body):
        """No answer before so many requests are there."""
        together = self.wait_until(lambda: counts[self.path] >= TOGETHER)
        self.ranged(body) if together else self.plain(400)

    def wait_until(self, happened):
        deadline = time.monotonic() + 3
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.001)
        return happened()

    def late(self):
        """Whoever asks for the beginning waits until others have their answer."""
        if self.range_of(b"")[0] == 0:
            self.wait_until(lambda: counts[self.path] >= TOGETHER and running[self.path] == 1)

    def mode_late(self, body):
        self.late()
        self.ranged(body)

    def mode_late_whole(self, body):
        self.late()
        self.whole(body)

    def mode_late_416(self, body):
        """Nothing is there but the beginning, and not a word on where that ends."""
        self.late()
        self.ranged(body) if self.range_of(body)[0] == 0 else self.plain(416)

    def mode_whole(self, body):
        self.whole(body)

    def mode_slow(self, body):
        time.sleep(0.2)
        self.ranged(body)

    def mode_bare(self, body):
        """No validator, no length."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), 100000):
            chunk = body[at:at + 100000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def mode_drops(self, body):
        """Every other answer ends early."""
        self.ranged(body, stop=200000 if self.count % 2 else None)

    def resumed(self, body, wanted, **validators):
        """The first answer ends early; a later request must hold @wanted in its If-Range."""
        if self.count > 1 and self.headers.get("If-Range") != wanted:
            self.plain(400)
            return
        self.ranged(body, stop=200000 if self.count == 1 else None, **validators)

    def mode_strong(self, body):
        self.resumed(body, '"one"', modified=MODIFIED)

    def mode_weak(self, body):
        self.resumed(body, MODIFIED, etag='W/"one"', modified=MODIFIED)

    def mode_weak_alone(self, body):
        self.resumed(body, None, etag='W/"one"')

    def mode_modified(self, body):
        self.resumed(body, MODIFIED, etag=None, modified=MODIFIED)

    def mode_touched(self, body):
        self.ranged(body, etag=None, modified=MODIFIED if self.count == 1 else
                    MODIFIED.replace("2020", "2021"))

    def mode_weakly_changed(self, body):
        self.ranged(body, etag='W/"%d"' % min(self.count, 2), modified=MODIFIED)

    def mode_proxied(self, body):
        self.ranged(body) if self.proxied else self.plain(404)

    def mode_drops_whole(self, body):
        self.whole(body, stop=3000000 if self.count == 1 else None)

    def mode_drops_always(self, body):
        self.ranged(body, stop=1000)

    def mode_breaks(self, body):
        """Two megabytes, and then no byte any more."""
        self.ranged(body, stop=2000000 if self.count == 1 else 0)

    def mode_dies(self, body):
        """The first megabyte, then nobody is there."""
        if self.count > 1:
            os._exit(0)
        self.ranged(body)

    def mode_changes(self, body):
        self.ranged(body, etag='"%d"' % min(self.count, 2))

    def mode_grows(self, body):
        self.ranged(body, etag=None, total=len(body) + (self.count > 1))

    def mode_ignores(self, body):
        self.ranged(body) if self.count == 1 else self.whole(body)

    def mode_replaced(self, body):
        self.ranged(body) if self.count == 1 else self.whole(body, etag='"two"')

    def mode_elsewhere(self, body):
        """Another range than the one asked for."""
        if self.count == 1:
            self.ranged(body)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-9/{len(body)}")
        self.send_header("Content-Length", "10")
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(body[:10])

    def mode_lies_long(self, body):
        self.whole(body, length=len(body) + 5, stop=len(body))

    def mode_lies_short(self, body):
        self.whole(body, length=len(body) // 2)
        self.close_connection = True

    def mode_corrupt(self, body):
        self.ranged(body[:1500000] + bytes([body[1500000] ^ 1]) + body[1500001:])

    def mode_truncated(self, body):
        self.ranged(body[:-700000])

    def mode_huge(self, body):
        self.ranged(body, total=1 << 40)

    def mode_garbage(self, body):
        self.wfile.write(b"\x00\xffno http at all" * 100)
        self.close_connection = True

    def mode_pauses(self, body):
        """Half of the answer, then silence."""
        self.whole(body[:len(body) // 2], length=len(body))
        self.wfile.flush()
        time.sleep(600)

    def mode_busy(self, body):
        self.plain(503) if self.count < 3 else self.ranged(body)

    def mode_limits(self, body):
        self.plain(429, Retry_After="1") if self.count == 1 else self.ranged(body)

    def mode_limits_long(self, body):
        self.plain(429, Retry_After="3600")

    def mode_fails(self, body):
        self.plain(500)

    def mode_secret(self, body):
        wanted = ("Bearer t0ken", "Basic cmVhZGVyOnBhc3M=")
        self.ranged(body) if self.headers.get("Authorization") in wanted else self.plain(401)

    def mode_moved(self, body):
        self.plain(302, Location=self.path.replace("moved", "good", 1))

    def mode_moved_anywhere(self, body):
        """To another place each time."""
        self.plain(302, Location=f"/mirror{self.count}/a.tar")

    def mode_moves_on(self, body):
        """The first one is served; each other is sent to a place of its own, once that was done."""
        if self.range_of(b"")[0] == 0:
            self.ranged(body)
        else:
            self.wait_until(lambda: counts[self.path] > running[self.path] >= 1)
            self.plain(302, Location=f"/mirror{self.count}/a.tar")

    def mode_loops(self, body):
        self.plain(302, Location=self.path)

    def mode_to_file(self, body):
        self.plain(302, Location="file:///etc/passwd")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.write(1, b"%d\n" % server.server_address[1])
sys.stdin.read()
os._exit(0)
