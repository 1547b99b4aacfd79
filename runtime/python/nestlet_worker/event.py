# SPDX-License-Identifier: Apache-2.0
"""Handlers of (event, context): what they are given, and how what they return is answered."""

import json

from .context import Context
from .errors import RuntimeFault
from .result import is_streamable, to_chunk, to_json
from .stream import KIND_HTTP

_STREAM_TYPE = [(b"content-type", b"application/octet-stream")]


class Event:
    """Serves the requests of one loaded handler."""

    def __init__(self, handler):
        self._handler = handler

    def serve(self, stream):
        """Runs the handler on this thread."""
        result = self._handler(_event_of(stream, stream.read_all()), Context(stream))
        if hasattr(result, "__await__"):
            import asyncio

            result = asyncio.run(_awaited(result))
        status, fields, body = _answer(stream, result)
        if isinstance(body, bytes):
            stream.respond_all(status, fields, body)
        elif hasattr(body, "__next__"):
            _pump(stream, status, fields, body)
        else:
            import asyncio

            _pump(stream, status, fields, _iterate(asyncio.new_event_loop(), body))

    async def serve_async(self, stream):
        """Runs the handler as this task."""
        result = self._handler(_event_of(stream, await stream.aread_all()), Context(stream))
        if hasattr(result, "__await__"):
            result = await result
        status, fields, body = _answer(stream, result)
        if isinstance(body, bytes):
            await stream.arespond_all(status, fields, body)
        else:
            await _apump(stream, status, fields, body)


async def _awaited(result):
    return await result


def _event_of(stream, body):
    if stream.kind == KIND_HTTP:
        from . import bridge

        return bridge.to_event(stream, body)
    try:
        return json.loads(body) if body else None
    except ValueError as error:
        raise RuntimeFault("Runtime.UnmarshalError", f"the event is not JSON: {error}") from error


def _answer(stream, result):
    if stream.kind == KIND_HTTP:
        from . import bridge

        return bridge.response(result)
    if is_streamable(result):
        return 0, _STREAM_TYPE, result
    return 0, (), to_json(result)


def _pump(stream, status, fields, source):
    try:
        for value in source:
            chunk = to_chunk(value)
            if stream.head_sent:
                stream.write(chunk)
            else:
                stream.respond(status, fields, chunk)
        if not stream.head_sent:
            stream.respond(status, fields)
        stream.finish()
    finally:
        if hasattr(source, "close"):
            source.close()


async def _apump(stream, status, fields, source):
    try:
        if hasattr(source, "__aiter__"):
            async for value in source:
                await _send(stream, status, fields, to_chunk(value))
        else:
            for value in source:
                await _send(stream, status, fields, to_chunk(value))
        if not stream.head_sent:
            await stream.arespond(status, fields)
        stream.finish()
    finally:
        if hasattr(source, "aclose"):
            await source.aclose()
        elif hasattr(source, "close"):
            source.close()


async def _send(stream, status, fields, chunk):
    if stream.head_sent:
        await stream.awrite(chunk)
    else:
        await stream.arespond(status, fields, chunk)


def _iterate(loop, source):
    """The asynchronous iterable @source as a generator, for a thread without a loop."""
    iterator = source.__aiter__()
    try:
        while True:
            try:
                yield loop.run_until_complete(iterator.__anext__())
            except StopAsyncIteration:
                return
    finally:
        if hasattr(iterator, "aclose"):
            loop.run_until_complete(iterator.aclose())
        loop.close()
