# SPDX-License-Identifier: Apache-2.0
"""Steady traffic from a process of its own, which keeps of every request when it ran and which version answered."""

import multiprocessing
import selectors
import socket
import time

CONNECTIONS = 32


class Connection:
    """One keep-alive connection with at most one request out."""

    def __init__(self, path, request):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.request, self.begin, self.data = request, None, b""

    def send(self):
        self.begin, self.data = time.monotonic(), b""
        self.sock.sendall(self.request)

    def read(self):
        """The record of the request, once its answer is whole; b"" from the host raises."""
        piece = self.sock.recv(65536)
        if not piece:
            raise ConnectionError("the host closed a connection")
        self.data += piece
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(fields[b"content-length"]):
            return None
        begin, self.begin = self.begin, None
        version = fields.get(b"x-amz-executed-version", b"").decode()
        status = int(head.split(b" ", 2)[1])
        return begin, time.monotonic(), status, version, body.decode()


def run(path, request, rate, pipe):
    """Sends so many requests a second until it is told to stop, then gives all records back."""
    selector, idle, records = selectors.DefaultSelector(), [], []
    for _ in range(CONNECTIONS):
        connection = Connection(path, request)
        selector.register(connection.sock, selectors.EVENT_READ, connection)
        idle.append(connection)
    begin = due = time.monotonic()
    stopping = False
    try:
        while not stopping or len(idle) < CONNECTIONS:
            now = time.monotonic()
            stopping = stopping or pipe.poll()
            # who can't keep up sends what it can: the next one is not owed the time of the last
            due = max(due, now - 0.05)
            while idle and due <= now and not stopping:
                idle.pop().send()
                due += 1 / rate
            for key, _ in selector.select(max(0.0, min(due - now, 0.01)) if idle else 0.01):
                record = key.data.read()
                if record:
                    records.append(record)
                    idle.append(key.data)
        pipe.send((records, len(records) / (time.monotonic() - begin)))
    except (OSError, ValueError, KeyError) as error:
        pipe.send(repr(error))


class Traffic:
    """`with Traffic(host, name, rate) as traffic:` and then traffic.records and traffic.rate."""

    def __init__(self, host, name, rate):
        request = (
            f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\n"
            "Host: nestlet\r\nContent-Length: 2\r\n\r\n{}"
        ).encode()
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=run, args=(str(host.gateway_socket), request, rate, other), daemon=True
        )
        self.records, self.rate = [], 0

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, kind, *_):
        self.pipe.send("stop")
        got = self.pipe.recv() if self.pipe.poll(30) else "the traffic does not end"
        self.process.join(10)
        if kind is None:
            assert not isinstance(got, str), got
        if not isinstance(got, str):
            self.records, self.rate = got
