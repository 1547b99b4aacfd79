# SPDX-License-Identifier: Apache-2.0
"""WSGI applications (PEP 3333)."""

import sys
from urllib.parse import unquote_to_bytes

from . import bridge
from .context import Context
from .errors import RuntimeFault

_BLOCK = 65536


class Wsgi:
    """Serves the requests of one application."""

    def __init__(self, application, concurrency):
        self._application = application
        self._threads = concurrency > 1

    def serve(self, stream):
        answer = _Answer(stream)
        result = self._application(self._environ(stream), answer.start_response)
        try:
            if isinstance(result, (list, tuple)):
                answer.send_all(b"".join(result))
                return
            for chunk in result:
                answer.write(chunk)
            answer.end()
        finally:
            if hasattr(result, "close"):
                result.close()

    def _environ(self, stream):
        path, _, query = stream.target.partition("?")
        environ = {
            "REQUEST_METHOD": stream.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path.encode("latin-1")).decode("latin-1"),
            "QUERY_STRING": query,
            "REQUEST_URI": stream.target,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.input": Input(stream),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self._threads,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "nestlet.context": Context(stream),
        }
        _add_headers(environ, stream)
        _add_connection(environ)
        return environ


def _add_headers(environ, stream):
    for raw_name, raw_value in stream.headers:
        # An underscore would be mistaken for the hyphen of another header.
        if b"_" in raw_name:
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        if key in environ:
            value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
        environ[key] = value
    if "CONTENT_LENGTH" not in environ and stream.whole and stream.pieces:
        environ["CONTENT_LENGTH"] = str(sum(map(len, stream.pieces)))


def _add_connection(environ):
    proto = environ.get("HTTP_X_FORWARDED_PROTO", "http").rpartition(",")[2].strip()
    secure = proto == "https"
    environ["wsgi.url_scheme"] = "https" if secure else "http"
    environ["REMOTE_ADDR"] = bridge.source_address(environ.get("HTTP_X_FORWARDED_FOR"))
    name, port = _split_host(environ.get("HTTP_HOST", "localhost"))
    environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port or ("443" if secure else "80")


def _split_host(host):
    """("a", "80") of "a:80", ("[::1]", "") of "[::1]"."""
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and port.isdigit() else (host, "")


class _Answer:
    """What start_response() and write() gather, until the first of the body goes out."""

    def __init__(self, stream):
        self._stream = stream
        self._status = 0
        self._fields = None

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self._stream.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._fields is not None:
            raise AssertionError("start_response() was called a second time without exc_info")
        code = int(status[:3]) if isinstance(status, str) and status[:3].isdecimal() else 0
        if not 200 <= code <= 599:
            text = f"start_response(): bad status {status!r}"
            raise RuntimeFault("Function.InvalidResponse", text)
        fields = []
        for name, value in headers:
            bridge.add_field(fields, name, value)
        self._status = code
        self._fields = fields
        return self.write

    def write(self, chunk):
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise RuntimeFault(
                "Function.InvalidResponse",
                f"a WSGI application must give bytes, not {type(chunk).__name__}",
            )
        self._check()
        if not len(chunk):
            return
        if self._stream.head_sent:
            self._stream.write(bytes(chunk))
        else:
            self._stream.respond(self._status, self._fields, bytes(chunk))

    def send_all(self, body):
        self._check()
        if self._stream.head_sent:
            self._stream.write(body)
            self._stream.finish()
        else:
            self._stream.respond_all(self._status, self._fields, body)

    def end(self):
        self._check()
        if not self._stream.head_sent:
            self._stream.respond_all(self._status, self._fields, b"")
        self._stream.finish()

    def _check(self):
        if self._fields is None:
            raise RuntimeFault(
                "Function.InvalidResponse", "the application did not call start_response()"
            )


class FileWrapper:
    """wsgi.file_wrapper: the blocks of a file-like object."""

    def __init__(self, filelike, block_size=_BLOCK):
        self._file = filelike
        self._block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        block = self._file.read(self._block_size)
        if block:
            return block
        raise StopIteration


class Input:
    """wsgi.input: the request's body, as it comes."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = b""

    def read(self, size=-1):
        if size is None or size < 0:
            rest, self._buffer = self._buffer, b""
            return rest + self._stream.read_all()
        parts = []
        while size > 0 and (self._buffer or self._fill()):
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _fill(self):
        self._buffer = self._stream.read()
        return bool(self._buffer)

    def readline(self, size=-1):
        parts = []
        limit = -1 if size is None else size
        while limit != 0 and (self._buffer or self._fill()):
            at = self._buffer.find(b"\n") + 1 or len(self._buffer)
            at = at if limit < 0 else min(at, limit)
            part, self._buffer = self._buffer[:at], self._buffer[at:]
            parts.append(part)
            limit = limit if limit < 0 else limit - at
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    def readlines(self, hint=-1):
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self):
        return iter(self.readline, b"")
