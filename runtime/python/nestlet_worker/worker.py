# SPDX-License-Identifier: Apache-2.0
"""A worker's life: INIT, load the handler, READY, requests, DRAIN. Or, after READY, CHECKPOINT: it
comes to rest and is frozen, and each clone of it goes on with RESTORED, READY, requests, DRAIN.
Before INIT a CHECKPOINT has the runtime frozen without a function, and a clone goes on with RESTORED,
INIT.

A thread of its own reads the channel, so PING and CANCEL are taken while a handler runs. The main
thread is the handler's: it imports the code and runs the requests, or the event loop that runs
them. With a concurrency above one, synchronous handlers get more threads as they are needed.
"""

import contextvars
import json
import os
import sys
import threading
import time
from _queue import SimpleQueue
from collections import deque

from . import connections, log, snapshot
from .channel import (
    BODY, CANCEL, CHECKPOINT, CREDIT, DRAIN, ERROR, FIN, HELLO, INIT, MAX_BODY, PING, PONG, READY,
    REQUEST, RESTORED, Channel, ProtocolError,
)
from .context import Context
from .errors import Cancelled, as_text, describe
from .stream import KIND_EVENT, LoopStream, Stream

PROTOCOL = 1
_STARTED = time.monotonic()


class Worker:
    def __init__(self, channel):
        self.channel = channel
        self.streams = {}
        self.ready = False
        self.draining = False
        self.interface = ""
        self.scheduler = None
        self._inits = SimpleQueue()
        self._begun = False
        self._resting = False
        self._started = _STARTED
        # The CHECKPOINT that waits for the last stream's end.
        self._checkpoint = deque(maxlen=1)

    def run(self):
        """Returns when the worker is drained."""
        version = ".".join(map(str, sys.version_info[:3]))
        self.channel.send_json(
            HELLO, 0, {"protocol": PROTOCOL, "runtime": "python", "runtimeVersion": version}
        )
        threading.Thread(target=self._read, name="nestlet-channel", daemon=True).start()
        init = self._await_init()
        _set_up(init)
        self.interface = init["interface"]
        self.scheduler = _load(self, init)
        self.scheduler.run()

    def _await_init(self):
        while True:
            kind, told = self._inits.get()
            if kind == INIT:
                return told
            if kind == CHECKPOINT:
                _prepare()
                self.rested()
            else:
                snapshot.refresh(told)
                self._started = time.monotonic()
                self._resting = False

    def is_ready(self):
        self.ready = True
        elapsed = round((time.monotonic() - self._started) * 1000, 1)
        self.channel.send_json(READY, 0, {"initMs": elapsed})

    # The reader's thread.

    def _read(self):
        try:
            while True:
                frames = self.channel.read()
                if not frames:
                    _quit("the host closed the channel")
                for frame in frames:
                    self._take(*frame)
        except ProtocolError as error:
            _quit(str(error))

    def _take(self, kind, flags, number, payload):
        if kind == PING and number == 0 and len(payload) == 8:
            self.channel.send(PONG, 0, 0, payload)
        elif kind == INIT and number == 0 and not self._begun:
            self._begun = True
            self._inits.put((kind, _parse("INIT", payload)))
        elif kind == CHECKPOINT and number == 0 and not self._begun and not self._resting:
            self._resting = True
            self._inits.put((kind, _parse("CHECKPOINT", payload)))
        elif kind == RESTORED and number == 0 and not self._begun and self._resting:
            self._inits.put((kind, _parse("RESTORED", payload)))
        elif kind == CHECKPOINT and number == 0 and self.ready and not self._resting:
            self._resting = True
            self._checkpoint.append(_parse("CHECKPOINT", payload))
            self._rest_if_quiet()
        elif kind == RESTORED and number == 0 and self._resting:
            self.scheduler.wake(_parse("RESTORED", payload))
        elif kind in _HANDLED and self.ready and (number != 0) == (kind != DRAIN):
            self.scheduler.take(kind, flags, number, payload)
        else:
            raise ProtocolError(
                f"a frame that a worker can't accept came: type {kind}, stream {number}"
            )

    def _rest_if_quiet(self):
        """The reader and whoever ends the last stream may both come here: one of them gets it."""
        if self.streams:
            return
        try:
            told = self._checkpoint.pop()
        except IndexError:
            return
        self.scheduler.rest(told)

    # Around the hooks, on the thread that runs them.

    def rested(self):
        snapshot.rehearse(not self._begun)
        snapshot.collect()
        log.finish()
        connections.park(self.channel.fd)
        self.channel.send_json(CHECKPOINT, 0, {})

    def woken(self, began):
        self._resting = False
        elapsed = round((time.monotonic() - began) * 1000, 1)
        self.channel.send_json(READY, 0, {"initMs": elapsed})

    def hooks_failed(self, error):
        told = describe(error)
        log.error(0, as_text(told))
        self.channel.send_json(ERROR, 0, told)
        leave(1)

    # The scheduler's thread: the reader's, or the loop's.

    def handle(self, kind, flags, number, payload):
        if kind == REQUEST:
            self._open(flags, number, payload)
            return
        if kind == DRAIN:
            self.draining = True
            if not self.streams:
                self.scheduler.stop()
            return
        if len(payload) > MAX_BODY or kind == CREDIT and len(payload) != 4:
            raise ProtocolError(f"a frame of a wrong size came: type {kind}, {len(payload)} bytes")
        stream = self.streams.get(number)
        if stream is None or stream.cancelled:
            return  # They crossed with its end.
        if kind == BODY:
            stream.feed(payload, bool(flags & FIN))
        elif kind == CREDIT:
            stream.add_credit(int.from_bytes(payload, "little"))
        else:
            stream.cancel()
            self.scheduler.cancelled(stream)

    def _open(self, flags, number, payload):
        if number in self.streams or self.draining or self._resting:
            raise ProtocolError(f"a REQUEST came that can't be: stream {number}")
        stream = self.scheduler.stream_type(self.channel, number, self._closed)
        body = stream.parse(payload)
        if stream.kind == KIND_EVENT and self.interface != "event":
            raise ProtocolError(f"an event came for a handler of interface {self.interface}")
        stream.feed(body, bool(flags & FIN))
        self.streams[number] = stream
        self.scheduler.begin(stream)

    def _closed(self, stream):
        self.streams.pop(stream.id, None)
        if self.draining and not self.streams:
            self.scheduler.stop()
        if self._checkpoint:
            self._rest_if_quiet()


_HANDLED = frozenset((REQUEST, BODY, CREDIT, CANCEL, DRAIN))


class Threads:
    """Runs synchronous handlers: on the main thread, and as many more as there are requests."""

    stream_type = Stream

    def __init__(self, worker, serve, concurrency):
        self._worker = worker
        self._serve = serve
        self._limit = concurrency
        self._running = 1
        self._queue = SimpleQueue()
        self.take = worker.handle

    def run(self):
        self._worker.is_ready()
        self._work()

    def begin(self, stream):
        self._queue.put(stream)
        if self._running < min(len(self._worker.streams), self._limit):
            self._running += 1
            threading.Thread(target=self._work, name="nestlet-handler", daemon=True).start()

    def cancelled(self, stream):
        """A synchronous handler can't be interrupted: it notices when it reads or writes."""

    def stop(self):
        self._queue.put(None)

    def rest(self, told):
        self._queue.put(lambda: self._rest(told))

    def wake(self, told):
        """On the reader's thread, which does it at once where no hook wants the main one."""
        if snapshot.hooks_after():
            self._queue.put(lambda: self._wake(told))
        else:
            self._wake(told)

    def _rest(self, told):
        worker = self._worker
        try:
            with snapshot.Watchdog("before_snapshot", told["hookTimeoutMs"], worker.hooks_failed):
                snapshot.run(snapshot.hooks_before())
        except BaseException as error:
            worker.hooks_failed(error)
        worker.rested()

    def _wake(self, told):
        began = time.monotonic()
        worker = self._worker
        try:
            snapshot.refresh(told)
            hooks = snapshot.hooks_after()
            if hooks:
                with snapshot.Watchdog("after_restore", told["hookTimeoutMs"], worker.hooks_failed):
                    snapshot.run(hooks)
        except BaseException as error:
            worker.hooks_failed(error)
        worker.woken(began)

    def _work(self):
        while True:
            stream = self._queue.get()
            if callable(stream):
                stream()
                continue
            if stream is None:
                # For the other threads too; the main one then ends the process.
                self._queue.put(None)
                return
            contextvars.copy_context().run(self._serve_one, stream)

    def _serve_one(self, stream):
        log.current.set(stream)
        log.watch_logging()
        try:
            self._serve(stream)
        except SystemExit as error:
            _exit_by_handler(error)
        except BaseException as error:
            stream.fail(error)
        if not stream.closed:
            stream.finish()


class Loop:
    """Runs asynchronous handlers: as tasks of one event loop on the main thread."""

    stream_type = LoopStream

    def __init__(self, worker, service):
        import asyncio

        self._worker = worker
        self._service = service
        self._delay = getattr(service, "CANCEL_DELAY", 0)
        self._asyncio = asyncio
        self._loop = None
        self._inbox = deque()
        self._woken = False
        self._stopping = None
        self._step = None  # The loop itself keeps no strong reference to a task.

    def run(self):
        self._asyncio.run(self._main())

    async def _main(self):
        self._loop = self._asyncio.get_running_loop()
        self._stopping = self._asyncio.Event()
        if hasattr(self._service, "start"):
            await self._service.start()
        self._worker.is_ready()
        await self._stopping.wait()
        if hasattr(self._service, "stop"):
            await self._service.stop()

    def take(self, *frame):
        """On the reader's thread: hands the frame to the loop's."""
        self._inbox.append(frame)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._handle_all)

    def _handle_all(self):
        self._woken = False
        try:
            while self._inbox:
                self._worker.handle(*self._inbox.popleft())
        except ProtocolError as error:
            _quit(str(error))

    def begin(self, stream):
        context = contextvars.copy_context()
        context.run(log.current.set, stream)
        log.watch_logging()
        stream.task = self._loop.create_task(self._serve_one(stream), context=context)
        # A task that is cancelled before its first step never runs.
        stream.task.add_done_callback(lambda _task: stream.closed or stream.fail(Cancelled()))

    def cancelled(self, stream):
        if self._delay:
            self._loop.call_later(self._delay, stream.task.cancel)
        else:
            stream.task.cancel()

    def stop(self):
        self._stopping.set()

    def rest(self, told):
        """On the loop's thread, or the reader's."""
        self._loop.call_soon_threadsafe(self._spawn, self._rest, told)

    def wake(self, told):
        self._loop.call_soon_threadsafe(self._spawn, self._wake, told)

    def _spawn(self, step, told):
        self._step = self._loop.create_task(step(told))

    async def _rest(self, told):
        worker = self._worker
        try:
            with snapshot.Watchdog("before_snapshot", told["hookTimeoutMs"], worker.hooks_failed):
                await snapshot.run_async(snapshot.hooks_before())
        except BaseException as error:
            worker.hooks_failed(error)
        worker.rested()

    async def _wake(self, told):
        began = time.monotonic()
        worker = self._worker
        try:
            snapshot.refresh(told)
            hooks = snapshot.hooks_after()
            if hooks:
                with snapshot.Watchdog("after_restore", told["hookTimeoutMs"], worker.hooks_failed):
                    await snapshot.run_async(hooks)
        except BaseException as error:
            worker.hooks_failed(error)
        worker.woken(began)

    async def _serve_one(self, stream):
        try:
            await self._service.serve_async(stream)
        except SystemExit as error:
            _exit_by_handler(error)
        except BaseException as error:
            stream.fail(Cancelled() if stream.cancelled else error)
        if not stream.closed:
            stream.finish()


def _parse(what, payload):
    try:
        return json.loads(payload)
    except ValueError as error:
        raise ProtocolError(f"{what} is not JSON: {error}") from None


def _prepare():
    """The runtime alone is to be frozen, for any function: what handlers need is loaded now."""
    snapshot.remember_environment()
    from . import bridge, event, handler, result, wsgi  # noqa: F401


def _set_up(init):
    """The surroundings that functions look for. What the function's configuration sets stays."""
    environ = os.environ
    snapshot.remember_environment()
    snapshot.install_module()
    code_dir = init.setdefault("codeDir", environ.get("NESTLET_FUNCTION_DIR", "/function"))
    environ.pop("NESTLET_CHANNEL_FD", None)
    environ.setdefault("LAMBDA_TASK_ROOT", code_dir)
    environ.setdefault("AWS_LAMBDA_FUNCTION_NAME", init["function"])
    environ.setdefault("AWS_LAMBDA_FUNCTION_VERSION", init["version"])
    environ.setdefault("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", str(init["memoryMb"]))
    environ.setdefault("_HANDLER", init["handler"])
    os.chdir(code_dir)
    # The interpreter was told to ignore its environment while it started.
    sys.path[0:0] = [code_dir, *filter(None, environ.get("PYTHONPATH", "").split(":"))]
    sys.argv = [os.path.join(code_dir, init["handler"])]
    Context.configure(init)


def _load(worker, init):
    from . import handler

    interface = init["interface"]
    concurrency = init.get("concurrency", 1)
    if interface not in ("event", "wsgi", "asgi"):
        raise ValueError(
            f"the Python runtime has no interface '{interface}': it knows event, wsgi and asgi"
        )
    loaded = handler.load(init["codeDir"], init["handler"], interface)
    log.watch_logging()
    if interface == "wsgi":
        from .wsgi import Wsgi

        return Threads(worker, Wsgi(loaded, concurrency).serve, concurrency)
    if interface == "asgi":
        from .asgi import Asgi

        return Loop(worker, Asgi(loaded))
    from .event import Event

    event = Event(loaded)
    if handler.is_async(loaded):
        return Loop(worker, event)
    return Threads(worker, event.serve, concurrency)


def _exit_by_handler(error):
    code = error.code
    if code is not None and not isinstance(code, int):
        log.error(0, str(code))
        code = 1
    leave(code or 0)


def _quit(reason):
    """Nothing can be told on the channel any more."""
    try:
        os.write(2, f"nestlet: worker exits: {reason}\n".encode())
    finally:
        os._exit(1)


def leave(code):
    """Ends the process: what was registered for its exit runs, threads that still run don't keep
    it."""
    import atexit

    try:
        atexit._run_exitfuncs()
        log.finish()
    finally:
        os._exit(code)


def main():
    channel = Channel(int(os.environ.get("NESTLET_CHANNEL_FD", "3")))
    worker = Worker(channel)
    log.install(channel, worker.streams)
    try:
        worker.run()
    except BaseException as error:
        told = describe(error)
        log.error(0, as_text(told))
        channel.send_json(ERROR, 0, told)
        leave(1)
    leave(0)
