# SPDX-License-Identifier: Apache-2.0
"""What a handler returned, as bytes."""

import json

from .errors import RuntimeFault


def is_streamable(value):
    """Whether @value is to be streamed: a generator or another iterator, synchronous or not."""
    return hasattr(value, "__next__") or hasattr(value, "__aiter__")


def to_json(value):
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RuntimeFault(
            "Runtime.MarshalError", f"the handler's result is not JSON: {error}"
        ) from error


def to_chunk(value):
    """A piece of a streamed body."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise RuntimeFault(
        "Runtime.MarshalError", f"a streamed chunk must be str or bytes, not {type(value).__name__}"
    )
