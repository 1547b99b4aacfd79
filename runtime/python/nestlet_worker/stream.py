# SPDX-License-Identifier: Apache-2.0
"""One request's stream: its head, what arrives of its body, and the response with its credit.

The reader thread feeds it; the handler's thread, or task, takes from it and answers. What both
touch is guarded by one lock for all streams: it is held for a few instructions only.

    open --finish()/fail()--> closed      (FIN or ERROR is sent: the slot is free)
"""

import struct
import threading
from collections import deque

from . import log
from .channel import BODY, ERROR, FIN, MAX_BODY, RESPONSE, ProtocolError
from .errors import CANCELLED, Cancelled, RuntimeFault, describe

KIND_EVENT, KIND_HTTP = 1, 2
INITIAL_CREDIT = 262144
# Consumed bytes are given back in lots of this size, well below the window.
CREDIT_LOT = 65536
MAX_FIELDS = 256
MAX_HEAD_BYTES = 65536

_HEAD = struct.Struct("<BBHIQ")
_FIELD = struct.Struct("<HHI")
_RESPONSE = struct.Struct("<HHI")
_TAG_HEADER = 6

_lock = threading.Lock()


def _invalid_head(count, size):
    return RuntimeFault(
        "Function.InvalidResponse",
        f"the handler's HTTP response is not valid: {count} headers of {size} bytes; "
        f"at most {MAX_FIELDS} of {MAX_HEAD_BYTES} bytes can be sent",
    )


class Stream:
    def __init__(self, channel, number, onclosed):
        self.channel = channel
        self.id = number
        self.onclosed = onclosed
        self.kind = 0
        self.request_id = ""
        self.traceparent = None
        self.client_context = None
        self.method = ""
        self.target = ""
        self.headers = []
        self.deadline_ms = 0
        self.closed = False
        self.cancelled = False
        self.head_sent = False
        self.tails = None
        self.credit = INITIAL_CREDIT
        # The body: pieces that nobody took yet, and whether the last one has come.
        self.pieces = deque()
        self.whole = False
        self._ungranted = 0
        self._changed = None

    def parse(self, payload):
        """Takes the request head. Returns the body bytes behind it."""
        try:
            self.kind, _, count, length, self.deadline_ms = _HEAD.unpack_from(payload)
            at, end = _HEAD.size, _HEAD.size + length
            for _ in range(count):
                tag, name_length, value_length = _FIELD.unpack_from(payload, at)
                name = at + _FIELD.size
                value = name + name_length
                at = value + value_length
                if at > end:
                    raise ProtocolError("a request's field is longer than its head")
                self._take_field(tag, payload[name:value], payload[value:at])
        except struct.error:
            raise ProtocolError("a request head is cut short") from None
        if at != end or end > len(payload) or not self.request_id:
            raise ProtocolError("a request head is malformed")
        if self.kind == KIND_HTTP and not (self.method and self.target):
            raise ProtocolError("an HTTP request came without its method or target")
        if self.kind not in (KIND_EVENT, KIND_HTTP):
            raise ProtocolError(f"a request of unknown kind {self.kind} came")
        return payload[end:]

    def _take_field(self, tag, name, value):
        if tag == _TAG_HEADER:
            self.headers.append((name, value))
            return
        text = value.decode("latin-1")
        if tag == 1:
            self.request_id = text
        elif tag == 2:
            self.traceparent = text
        elif tag == 3:
            self.client_context = text
        elif tag == 4:
            self.method = text
        elif tag == 5:
            self.target = text
        # Any other is a field of a later host: its request is as good without it.

    # For the reader thread.

    def feed(self, data, last):
        """A piece of the body came."""
        with _lock:
            if self.whole:
                raise ProtocolError(f"a BODY came after the end of request {self.id}")
            if data:
                self.pieces.append(data)
            self.whole = last
            self._notify()

    def add_credit(self, count):
        with _lock:
            self.credit += count
            self._notify()

    def cancel(self):
        with _lock:
            self.cancelled = True
            self._notify()

    def _notify(self):
        if self._changed is not None:
            self._changed.notify_all()

    # For the thread of the handler.

    def _wait(self):
        if self._changed is None:
            self._changed = threading.Condition(_lock)
        self._changed.wait()

    def read(self):
        """Returns the next piece of the body, waiting for it; b"" at its end."""
        with _lock:
            while not self.pieces:
                if self.whole:
                    return b""
                if self.cancelled:
                    raise Cancelled()
                self._wait()
            piece = self.pieces.popleft()
        self.consumed(len(piece))
        return piece

    def read_all(self):
        pieces = []
        while True:
            piece = self.read()
            if not piece:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.append(piece)

    def consumed(self, count):
        if self.whole or self.cancelled:
            return
        self._ungranted += count
        if self._ungranted >= CREDIT_LOT:
            self.channel.send_credit(self.id, self._ungranted)
            self._ungranted = 0

    def respond(self, status, fields, data=b""):
        """Sends the response head and the first of @data."""
        first = self.take(data)
        self.send_head(status, fields, first, 0)
        if len(first) < len(data):
            self.write(memoryview(data)[len(first):])

    def respond_all(self, status, fields, data):
        """Sends the whole response; in one frame, when it fits."""
        if len(data) <= MAX_BODY and not self.cancelled:
            log.leave(self)
            self.send_head(status, fields, data, FIN)
            self._end()
            self._closed()
            return
        self.respond(status, fields, data)
        self.finish()

    def write(self, data):
        """Sends body bytes, waiting for credit. Raises Cancelled when the caller has gone."""
        while len(data):
            part = self.take(data)
            if len(part):
                self.channel.send(BODY, 0, self.id, part)
                data = data[len(part):]
                continue
            with _lock:
                while not self.credit and not self.cancelled:
                    self._wait()

    def take(self, data):
        """As much of @data as one frame may carry now, taken off the credit."""
        with _lock:
            if self.cancelled:
                raise Cancelled()
            count = min(len(data), MAX_BODY, self.credit)
            self.credit -= count
        return data if count == len(data) else data[:count]

    # For either.

    def send_head(self, status, fields, data, flags):
        parts = []
        length = 0
        if len(fields) > MAX_FIELDS:
            raise _invalid_head(len(fields), "any")
        for name, value in fields:
            parts += (_FIELD.pack(_TAG_HEADER, len(name), len(value)), name, value)
            length += _FIELD.size + len(name) + len(value)
        if length > MAX_HEAD_BYTES:
            raise _invalid_head(len(fields), length)
        head = _RESPONSE.pack(status, len(fields), length)
        self.head_sent = True
        self.channel.send(RESPONSE, flags, self.id, head, *parts, data)

    def finish(self):
        """Ends the response."""
        if self.closed:
            return
        if self.cancelled:
            self.fail(Cancelled())
            return
        self._end()
        self.channel.send(BODY, FIN, self.id)
        self._closed()

    def fail(self, error):
        """Ends the stream with the exception @error; with the news of its cancelling, if it was."""
        if self.closed:
            return
        self._end()
        self.channel.send_json(ERROR, self.id, CANCELLED if self.cancelled else describe(error))
        self._closed()

    def _end(self):
        log.leave(self)
        self.closed = True

    def _closed(self):
        self.pieces.clear()
        self.onclosed(self)


class LoopStream(Stream):
    """A stream whose handler is a task of an event loop: waiting is awaiting. All of it but the
    parsing happens on the loop's thread."""

    def __init__(self, channel, number, onclosed):
        super().__init__(channel, number, onclosed)
        self.task = None
        self._waiters = []

    def _notify(self):
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self):
        """Waits until something came for this stream, or until it ended."""
        import asyncio

        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def aread_all(self):
        pieces = []
        while True:
            while self.pieces:
                pieces.append(self.pieces.popleft())
                self.consumed(len(pieces[-1]))
            if self.whole:
                return b"".join(pieces)
            if self.cancelled:
                raise Cancelled()
            await self.changed()

    async def arespond(self, status, fields, data=b""):
        first = self.take(data)
        self.send_head(status, fields, first, 0)
        if len(first) < len(data):
            await self.awrite(memoryview(data)[len(first):])

    async def arespond_all(self, status, fields, data):
        if len(data) <= MAX_BODY and not self.cancelled:
            self.respond_all(status, fields, data)
            return
        await self.arespond(status, fields, data)
        self.finish()

    async def awrite(self, data):
        while len(data):
            part = self.take(data)
            if len(part):
                self.channel.send(BODY, 0, self.id, part)
                data = data[len(part):]
            else:
                await self.changed()

    def _closed(self):
        super()._closed()
        self._notify()
