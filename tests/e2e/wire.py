# SPDX-License-Identifier: Apache-2.0
"""HTTP as bytes: what an HTTP library would hide, such as pieces, their order and the connection's end."""

import json
import socket

from host import PATIENCE


class Head:
    """Status line and headers of one response."""

    def __init__(self, line, fields):
        self.line = line
        self.version, status, self.reason = line.split(" ", 2)
        self.status = int(status)
        self.fields = fields

    def all(self, name):
        return [value for key, value in self.fields if key == name]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} is repeated: {values}"
        return values[0] if values else default


class Response:
    def __init__(self, head, body):
        self.head, self.status, self.body = head, head.status, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.head.line} {self.head.fields} {self.body[:300]!r}>"


class Wire:
    """One connection; reads exactly what belongs to a response, so that the next one stays to be read."""

    def __init__(self, address, timeout=PATIENCE):
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(address if isinstance(address, tuple) else str(address))
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def post(self, path, body, *headers):
        self.send(request("POST", path, body, *headers))

    def line(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"not a whole line: {line!r}"
        return line[:-2].decode("latin-1")

    def head(self):
        first, fields = self.line(), []
        while line := self.line():
            name, _, value = line.partition(":")
            assert name == name.lower() and name.strip() == name, f"header {line!r}"
            fields.append((name, value.strip()))
        return Head(first, fields)

    def chunk(self):
        """The next chunk of a chunked body; empty at its end."""
        size = int(self.line(), 16)
        data = self.file.read(size)
        assert len(data) == size, "the connection ended within a chunk"
        assert self.line() == ""
        return data

    def chunks(self):
        pieces = []
        while piece := self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    def body(self, head, method="GET"):
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            return b""
        if head.get("transfer-encoding") == "chunked":
            return self.chunks()
        length = head.get("content-length")
        if length is None:
            assert head.get("connection") == "close", f"a body without an end: {head.fields}"
            return self.file.read()
        data = self.file.read(int(length))
        assert len(data) == int(length), "the connection ended within the body"
        return data

    def response(self, method="GET"):
        head = self.head()
        return Response(head, self.body(head, method))

    def at_end(self):
        """Whether the host has closed the connection, with nothing more to read."""
        return self.file.read(1) == b""


def request(method, path, body=b"", *headers, version="HTTP/1.1"):
    """One request as bytes; the body has a length unless it is None."""
    lines = [f"{method} {path} {version}", "host: h", *headers]
    if body is None:
        return ("\r\n".join(lines) + "\r\n\r\n").encode()
    lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def chunked(*pieces):
    """Pieces as chunks, without the end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


CHUNKS_END = b"0\r\n\r\n"


def invocation(name):
    return f"/2015-03-31/functions/{name}/invocations"
