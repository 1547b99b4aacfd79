# SPDX-License-Identifier: Apache-2.0
"""The channel: frames in, frames out (docs/worker-protocol.md).

One thread reads; any thread writes, a frame at a time, blocking until the host has taken it. The
host always reads, so what blocks is a flood (of logs, say), which is slowed to the host's speed.
"""

import json
import os
import struct
import threading

HELLO, INIT, READY, REQUEST, RESPONSE, BODY, ERROR = 1, 2, 3, 4, 5, 6, 7
CREDIT, CANCEL, LOG, PING, PONG, DRAIN = 8, 9, 10, 11, 12, 13
CHECKPOINT, RESTORED = 14, 15
FIN = 1

HEADER_BYTES = 12
MAX_PAYLOAD = 1 << 20
MAX_BODY = 65536
# Below what malloc() maps anew for each call and gives back: 128 KiB.
READ_BYTES = 65536

_HEADER = struct.Struct("<IBBHI")
_U32 = struct.Struct("<I")


class ProtocolError(Exception):
    """The host sent what a worker can't accept."""


class Channel:
    def __init__(self, fd):
        self.fd = fd
        # User code can run in the midst of a write: a signal's handler, a finaliser. What it
        # prints goes out behind the frame that it interrupted.
        self._lock = threading.RLock()
        self._writing = False
        self._late = []
        self._buffer = bytearray()
        os.set_blocking(fd, True)
        os.set_inheritable(fd, False)

    def read(self):
        """Returns the next whole frames, each (type, flags, stream, payload); none at the end of
        the channel."""
        buffer = self._buffer
        while True:
            frames = self._split()
            if frames:
                return frames
            try:
                data = os.read(self.fd, READ_BYTES)
            except OSError:
                return []
            if not data:
                return []
            buffer += data

    def _split(self):
        buffer = self._buffer
        frames = []
        pos = 0
        end = len(buffer)
        while end - pos >= HEADER_BYTES:
            length, kind, flags, zero, stream = _HEADER.unpack_from(buffer, pos)
            if length > MAX_PAYLOAD or flags & ~FIN or zero:
                raise ProtocolError(f"a malformed frame came: type {kind}, {length} bytes")
            start = pos + HEADER_BYTES
            if end - start < length:
                break
            pos = start + length
            frames.append((kind, flags, stream, bytes(buffer[start:pos])))
        if pos:
            del buffer[:pos]
        return frames

    def send(self, kind, flags, stream, *payload):
        """Sends one frame whose payload is the given parts."""
        length = sum(map(len, payload))
        frame = b"".join((_HEADER.pack(length, kind, flags, 0, stream), *payload))
        with self._lock:
            if self._writing:
                self._late.append(frame)
                return
            self._writing = True
            try:
                self._write(frame)
                while self._late:
                    self._write(self._late.pop(0))
            finally:
                self._writing = False

    def _write(self, data):
        try:
            sent = os.write(self.fd, data)
            if sent == len(data):
                return
            view = memoryview(data)
            while sent < len(data):
                sent += os.write(self.fd, view[sent:])
        except OSError:
            # The host is gone; there is nobody left to tell.
            os._exit(1)

    def send_json(self, kind, stream, value):
        self.send(kind, 0, stream, json.dumps(value).encode())

    def send_credit(self, stream, count):
        self.send(CREDIT, 0, stream, _U32.pack(count))
