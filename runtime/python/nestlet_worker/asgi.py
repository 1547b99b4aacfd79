# SPDX-License-Identifier: Apache-2.0
"""ASGI 3 applications: HTTP and lifespan."""

import asyncio
from urllib.parse import unquote_to_bytes

from . import bridge, log
from .context import Context
from .errors import Cancelled, RuntimeFault, as_text, describe
from .wsgi import _split_host

_VERSIONS = {"version": "3.0", "spec_version": "2.3"}


class Asgi:
    """Serves the requests of one application."""

    # How long an application may take to heed http.disconnect before its task is cancelled.
    CANCEL_DELAY = 0.25

    def __init__(self, application):
        self._application = application
        self._lifespan = Lifespan(application)

    async def start(self):
        await self._lifespan.startup()

    async def stop(self):
        await self._lifespan.shutdown()

    async def serve_async(self, stream):
        exchange = _Exchange(stream)
        scope = _scope(stream)
        scope["state"] = dict(self._lifespan.state)
        await self._application(scope, exchange.receive, exchange.send)
        if not exchange.complete:
            raise Cancelled() if stream.cancelled else RuntimeFault(
                "Function.InvalidResponse", "the application returned without a complete response"
            )


def _scope(stream):
    path, _, query = stream.target.partition("?")
    raw_path = path.encode("latin-1")
    found = dict(reversed(stream.headers))
    proto = found.get(b"x-forwarded-proto", b"http").rpartition(b",")[2].strip()
    scheme = "https" if proto == b"https" else "http"
    host, port = _split_host(found.get(b"host", b"localhost").decode("latin-1"))
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": stream.method,
        "scheme": scheme,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": stream.headers,
        "client": (bridge.source_address(found.get(b"x-forwarded-for", b"").decode("latin-1")), 0),
        "server": (host, int(port or (443 if scheme == "https" else 80))),
        "extensions": {},
        "nestlet.context": Context(stream),
    }


class _Exchange:
    """receive() and send() of one request."""

    def __init__(self, stream):
        self._stream = stream
        self._status = 0
        self._fields = None
        self._body_read = False
        self.complete = False

    async def receive(self):
        stream = self._stream
        while not self._body_read:
            if stream.cancelled or stream.closed:
                return {"type": "http.disconnect"}
            if stream.pieces or stream.whole:
                return self._body_message()
            await stream.changed()
        while not stream.cancelled and not stream.closed:
            await stream.changed()
        return {"type": "http.disconnect"}

    def _body_message(self):
        stream = self._stream
        body = stream.pieces.popleft() if stream.pieces else b""
        more = bool(stream.pieces) or not stream.whole
        self._body_read = not more
        stream.consumed(len(body))
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.start" and self._fields is None:
            self._start(message)
        elif kind == "http.response.body" and self._fields is not None and not self.complete:
            await self._send_body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"the message '{kind}' is not expected now")

    def _start(self, message):
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 599:
            text = f"http.response.start: bad status {status!r}"
            raise RuntimeFault("Function.InvalidResponse", text)
        fields = []
        for name, value in message.get("headers", ()):
            bridge.add_field(fields, name, value)
        self._status = int(status)
        self._fields = fields

    async def _send_body(self, body, more):
        stream = self._stream
        if stream.cancelled or stream.closed:
            self.complete = not more
            return
        if not more:
            self.complete = True
        if stream.head_sent:
            await stream.awrite(body)
            if not more:
                stream.finish()
        elif more:
            await stream.arespond(self._status, self._fields, body)
        else:
            await stream.arespond_all(self._status, self._fields, body)


class Lifespan:
    """The application's startup and shutdown; without effect for one that knows no lifespan."""

    def __init__(self, application):
        self._application = application
        self.state = {}
        self._inbox = asyncio.Queue()
        self._started = None
        self._stopped = None
        self._task = None
        self._failure = None

    async def startup(self):
        loop = asyncio.get_running_loop()
        self._started = loop.create_future()
        self._stopped = loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run())
        await self._started
        if self._failure is not None:
            raise RuntimeFault(
                "Runtime.StartupFailed", f"the application's startup failed: {self._failure}"
            )

    async def shutdown(self):
        if self._task is None or self._task.done():
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await self._stopped

    async def _run(self):
        scope = {"type": "lifespan", "asgi": _VERSIONS, "state": self.state}
        try:
            await self._application(scope, self._inbox.get, self._send)
        except Exception as error:
            # Before its startup was confirmed, this is how an application declines lifespan.
            if self._started.done():
                log.error(0, as_text(describe(error)))
        finally:
            for waiting in (self._started, self._stopped):
                if not waiting.done():
                    waiting.set_result(None)

    async def _send(self, message):
        kind = message["type"]
        if kind.endswith(".failed"):
            self._failure = message.get("message") or "no reason given"
            log.error(0, f"{kind}: {self._failure}")
        waiting = self._started if kind.startswith("lifespan.startup.") else self._stopped
        if not waiting.done():
            waiting.set_result(None)
