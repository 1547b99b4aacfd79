# SPDX-License-Identifier: Apache-2.0
"""What user code prints or logs becomes LOG frames, marked with the request that did.

A context variable follows each request through its thread or task. A thread that a handler starts
itself has none: its lines are the request's while only one is open, else nobody's.

Lines are whole: what comes without a line feed waits for the rest of its line, or for the end of
its request.
"""

import contextvars
import io
import sys

from .channel import LOG, MAX_BODY

STDOUT, STDERR = 1, 2
TRACE, DEBUG, INFO, WARN, ERROR = 1, 2, 3, 4, 5
MAX_TEXT = MAX_BODY - 4

current = contextvars.ContextVar("nestlet_stream", default=None)

_channel = None
_streams = {}
_outside = ["", ""]


def install(channel, streams):
    """Takes over sys.stdout and sys.stderr. @streams: the open requests by number."""
    global _channel, _streams
    _channel = channel
    _streams = streams
    sys.stdout = LogWriter(STDOUT)
    sys.stderr = LogWriter(STDERR)
    sys.__stdout__ = sys.stdout
    sys.__stderr__ = sys.stderr


def owner():
    """The open request whose code runs, or None."""
    stream = current.get()
    if stream is None and len(_streams) == 1:
        try:
            stream = next(iter(_streams.values()))
        except (StopIteration, RuntimeError):
            # Ended by another thread meanwhile.
            return None
    return stream if stream is not None and not stream.closed else None


def write(source, text):
    """Logs @text as printed by whose code runs, as far as its lines are whole."""
    stream = owner()
    if stream is None:
        tails, number = _outside, 0
    else:
        if stream.tails is None:
            stream.tails = ["", ""]
        tails, number = stream.tails, stream.id
    whole, feed, rest = text.rpartition("\n")
    if feed:
        whole, tails[source - 1] = tails[source - 1] + whole, rest
    elif len(tails[source - 1]) + len(rest) < MAX_TEXT:
        tails[source - 1] += rest
        return
    else:
        whole, tails[source - 1] = tails[source - 1] + rest, ""
    emit(number, source, 0, whole)


def emit(number, source, level, text):
    data = text.encode("utf-8", "replace")
    head = bytes((source, level, 0, 0))
    if len(data) <= MAX_TEXT:
        _channel.send(LOG, 0, number, head, data)
        return
    start = 0
    while start < len(data):
        end = _cut(data, start)
        _channel.send(LOG, 0, number, head, data[start:end])
        start = end + 1 if data[end:end + 1] == b"\n" else end


def _cut(data, start):
    """Where a frame that begins at @start ends: after a whole line if there is one, never inside a
    character."""
    end = start + MAX_TEXT
    if end >= len(data):
        return len(data)
    line = data.rfind(b"\n", start, end + 1)
    if line > start:
        return line
    while data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def leave(stream):
    """@stream is about to end: its last unfinished lines go out."""
    if stream.tails is not None:
        _flush(stream.id, stream.tails)


def finish():
    _flush(0, _outside)


def _flush(number, tails):
    for i, text in enumerate(tails):
        if text:
            tails[i] = ""
            emit(number, i + 1, 0, text)


def error(number, text):
    """A line of the runtime's own."""
    emit(number, STDERR, ERROR, text)


class LogBytes(io.RawIOBase):
    """sys.stdout.buffer: bytes that are lines of text."""

    def __init__(self, source):
        super().__init__()
        self._source = source

    def writable(self):
        return True

    def fileno(self):
        return self._source

    def write(self, data):
        view = bytes(data)
        write(self._source, view.decode("utf-8", "replace"))
        return len(view)


class LogWriter(io.TextIOBase):
    """sys.stdout or sys.stderr."""

    encoding = "utf-8"
    errors = "replace"
    line_buffering = True
    write_through = True
    mode = "w"

    def __init__(self, source):
        super().__init__()
        self._source = source
        self.name = "<stdout>" if source == STDOUT else "<stderr>"
        self.buffer = LogBytes(source)

    def writable(self):
        return True

    def fileno(self):
        return self._source

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        write(self._source, text)
        return len(text)

    def reconfigure(self, **_options):
        """Accepted: the encoding and the buffering are the channel's."""

    def close(self):
        """The process's own: it ends with the process only."""


_logging_ready = False


def watch_logging():
    """Gives the logging module, once it is in use, a handler that keeps levels. The module is not
    imported for functions that don't."""
    global _logging_ready
    if _logging_ready or "logging" not in sys.modules:
        return
    logging = sys.modules["logging"]
    if not hasattr(logging, "getLogger"):
        return  # Still being imported by another thread.
    _logging_ready = True

    class ChannelHandler(logging.Handler):
        def emit(self, record):
            try:
                stream = owner()
                number = stream.id if stream else 0
                emit(number, STDERR, _level(record.levelno), self.format(record))
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(ChannelHandler())


def _level(number):
    if number >= 40:
        return ERROR
    if number >= 30:
        return WARN
    if number >= 20:
        return INFO
    return DEBUG if number >= 10 else TRACE
