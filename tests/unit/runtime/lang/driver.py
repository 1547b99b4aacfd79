# SPDX-License-Identifier: Apache-2.0
"""Plays the host: starts a runtime's bootstrap on a socket pair and speaks docs/worker-protocol.md."""

import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

HELLO, INIT, READY, REQUEST, RESPONSE, BODY, ERROR = 1, 2, 3, 4, 5, 6, 7
CREDIT, CANCEL, LOG, PING, PONG, DRAIN = 8, 9, 10, 11, 12, 13
CHECKPOINT, RESTORED = 14, 15
FIN = 1
WINDOW = 262144
MAX_BODY = 65536
HEADER = struct.Struct("<IBBHI")
TIMEOUT = 20

HERE = Path(__file__).resolve().parent
FIXTURES = HERE / "fixtures"
RUNTIME_DIR = HERE.parents[3] / "runtime"


def manifest(name):
    return json.loads((RUNTIME_DIR / "manifests" / f"{name}.json").read_text())


class Log:
    def __init__(self, stream, source, level, text):
        self.stream, self.source, self.level, self.text = stream, source, level, text


class Call:
    """One request and what came back of it."""

    def __init__(self, number):
        self.number = number
        self.status = None
        self.fields = []
        self.body = bytearray()
        self.frames = 0
        self.ended = False
        self.error = None
        self.credit = WINDOW
        self.unsent = b""
        self.sent_fin = False
        self.received = 0
        self.granted = WINDOW

    def header(self, name):
        values = [v for n, v in self.fields if n == name]
        return values[0] if len(values) == 1 else values or None

    def json(self):
        assert self.error is None, self.error
        return json.loads(bytes(self.body))


class Worker:
    """A worker process, from its host's side. Every wait has a limit and fails with what came."""

    def __init__(self, runtime, code_dir, handler, interface="event", concurrency=1, env=None,
                 runtime_dir=None, **init):
        self.runtime = runtime
        self._output = tempfile.TemporaryFile()
        ours, theirs = socket.socketpair()
        self.attach(ours)
        argv = [a.replace("/runtime/", f"{runtime_dir or RUNTIME_DIR}/") for a in manifest(runtime)["argv"]]
        base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **manifest(runtime)["env"]}
        base.pop("LD_PRELOAD", None)  # it is built, and in cells
        self.process = subprocess.Popen(
            argv,
            env={**base, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
        )
        theirs.close()
        self.init = {
            "function": "fn", "version": "7", "handler": handler, "interface": interface,
            "codeDir": str(code_dir), "memoryMb": 256, "timeoutMs": 30000,
            "concurrency": concurrency, "initTimeoutMs": 10000, **init,
        }

    def attach(self, sock):
        """Begins with the channel whose other end a worker has."""
        self.calls = {}
        self.logs = []
        self.pongs = []
        self.hello = self.ready = self.failure = None
        self.closed = self.at_rest = False
        self.auto_credit = True
        self._next = 0
        self._in = bytearray()
        self._out = bytearray()
        self.sock = sock
        sock.setblocking(False)

    def start(self):
        self.send(INIT, 0, 0, json.dumps(self.init).encode())
        self.wait(lambda: self.ready or self.failure or self.closed, "READY")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.sock.close()
        self.process.kill()
        self.process.wait()
        self._output.close()

    def output(self):
        """What the process wrote to its own standard output and error."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    # Sending

    def send(self, kind, flags, stream, payload=b"", length=None):
        size = len(payload) if length is None else length
        self._out += HEADER.pack(size, kind, flags, 0, stream) + payload

    def event(self, value=None, **options):
        return self.call(1, b"" if value is None else json.dumps(value).encode(), **options)

    def http(self, method="GET", target="/", headers=(), body=b"", **options):
        return self.call(2, body, [(4, b"", method.encode()), (5, b"", target.encode())] +
                         [(6, n.encode(), v.encode()) for n, v in headers], **options)

    def call(self, kind, body=b"", fields=(), request_id=None, deadline_ms=None, trace=None,
             client_context=None, fin=True, first=None):
        """Opens a stream. @first: how much of the body goes into the REQUEST frame."""
        self._next += 1
        call = self.calls[self._next] = Call(self._next)
        call.request_id = request_id or f"req-{call.number}"
        every = [(1, b"", call.request_id.encode())]
        every += [(2, b"", trace.encode())] if trace else []
        every += [(3, b"", client_context.encode())] if client_context else []
        every += fields
        packed = b"".join(struct.pack("<HHI", t, len(n), len(v)) + n + v for t, n, v in every)
        deadline = deadline_ms or int(time.time() * 1000) + 30000
        head = struct.pack("<BBHIQ", kind, 0, len(every), len(packed), deadline) + packed
        take = min(len(body), MAX_BODY) if first is None else first
        call.credit -= take
        call.unsent = body[take:]
        call.sent_fin = fin and not call.unsent
        call.fin = fin
        self.send(REQUEST, FIN if call.sent_fin else 0, call.number, head + body[:take])
        return call

    def more(self, call, data, fin=False):
        call.unsent += data
        call.fin = call.fin or fin
        if not call.unsent and fin:
            call.sent_fin = True
            self.send(BODY, FIN, call.number)

    def cancel(self, call):
        self.send(CANCEL, 0, call.number)

    def grant(self, call, count):
        call.granted += count
        self.send(CREDIT, 0, call.number, struct.pack("<I", count))

    def _send_bodies(self):
        for call in self.calls.values():
            while call.unsent and call.credit and not call.ended:
                take = min(len(call.unsent), MAX_BODY, call.credit)
                part, call.unsent = call.unsent[:take], call.unsent[take:]
                call.credit -= take
                call.sent_fin = call.fin and not call.unsent
                self.send(BODY, FIN if call.sent_fin else 0, call.number, part)

    # Receiving

    def wait(self, condition, what, timeout=TIMEOUT):
        """Pumps both ways until @condition() holds."""
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            assert left > 0, f"{what}: not within {timeout} s; {self.failure} {self.output()}"
            assert not self.closed or condition(), f"{what}: the worker went away: {self.output()}"
            self.pump(left)

    def pump(self, timeout):
        self._send_bodies()
        if self.closed:
            return
        readable, writable, _ = select.select([self.sock], [self.sock] if self._out else [], [], timeout)
        if writable:
            try:
                del self._out[:self.sock.send(self._out[:1 << 20])]
            except (BrokenPipeError, ConnectionResetError):
                self._out.clear()
        if readable:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self._in += data
            self._split()

    def _split(self):
        pos = 0
        while len(self._in) - pos >= HEADER.size:
            length, kind, flags, zero, stream = HEADER.unpack_from(self._in, pos)
            assert length <= 1 << 20 and flags in (0, FIN) and zero == 0
            if len(self._in) - pos - HEADER.size < length:
                break
            pos += HEADER.size + length
            self._take(kind, flags, stream, bytes(self._in[pos - length:pos]))
        del self._in[:pos]

    def _take(self, kind, flags, number, payload):
        if kind == HELLO:
            assert self.hello is None and number == 0
            self.hello = json.loads(payload)
        elif kind == READY:
            self.ready = json.loads(payload)
        elif kind == CHECKPOINT and number == 0:
            self.at_rest = True
        elif kind == PONG:
            self.pongs.append(payload)
        elif kind == LOG:
            self.logs.append(Log(number, payload[0], payload[1], payload[4:].decode()))
            assert len(payload) <= MAX_BODY and payload[2:4] == b"\0\0"
        elif kind == ERROR and number == 0:
            self.failure = json.loads(payload)
        else:
            self._take_stream(self.calls[number], kind, flags, payload)

    def _take_stream(self, call, kind, flags, payload):
        assert not call.ended, f"frame {kind} after the end of stream {call.number}"
        if kind == CREDIT:
            call.credit += struct.unpack("<I", payload)[0]
            assert call.credit <= WINDOW
            return
        if kind == ERROR:
            call.error = json.loads(payload)
            assert set(call.error) == {"errorType", "errorMessage", "stackTrace"}
            call.ended = True
            return
        if kind == RESPONSE:
            assert call.status is None
            payload = self._take_head(call, payload)
        else:
            assert kind == BODY and call.status is not None and len(payload) <= MAX_BODY
        call.frames += 1
        call.body += payload
        call.received += len(payload)
        assert call.received <= call.granted, "more body than there was credit for"
        call.ended = bool(flags & FIN)
        if payload and self.auto_credit and not call.ended:
            self.grant(call, len(payload))

    def _take_head(self, call, payload):
        call.status, count, length = struct.unpack_from("<HHI", payload)
        at = 8
        for _ in range(count):
            tag, name, value = struct.unpack_from("<HHI", payload, at)
            assert tag == 6
            at += 8
            call.fields.append((payload[at:at + name].decode("latin-1"),
                                payload[at + name:at + name + value].decode("latin-1")))
            at += name + value
        assert at == 8 + length
        return payload[at:]

    def end(self, *calls, timeout=TIMEOUT):
        """Waits for the end of @calls; returns the first."""
        self.wait(lambda: all(c.ended for c in calls), "the end of the response", timeout)
        return calls[0]

    def rest(self, hook_timeout_ms=5000):
        """Has it come to rest, as before it is frozen."""
        self.send(CHECKPOINT, 0, 0, json.dumps({"hookTimeoutMs": hook_timeout_ms}).encode())
        self.wait(lambda: self.at_rest or self.failure or self.closed, "CHECKPOINT")

    def wake(self, env=None, hook_timeout_ms=5000):
        """Goes on with it, as with a clone, whose environment is what it was unless another is given."""
        self.ready = None
        told = {"hookTimeoutMs": hook_timeout_ms, "entropy": os.urandom(64).hex()}
        if env is not None:
            told["env"] = env
        self.send(RESTORED, 0, 0, json.dumps(told).encode())
        self.wait(lambda: self.ready or self.failure or self.closed, "READY after RESTORED")

    def exit_code(self):
        """Waits until the worker has gone."""
        self.wait(lambda: self.closed, "the worker's exit")
        return self.process.wait(TIMEOUT)

    def log_of(self, call):
        return [entry for entry in self.logs if entry.stream == (call.number if call else 0)]
