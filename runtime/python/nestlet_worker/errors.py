# SPDX-License-Identifier: Apache-2.0
"""What is told of a failure: {errorType, errorMessage, stackTrace}, bounded."""

MAX_MESSAGE = 16 * 1024
MAX_TRACE = 48 * 1024
MAX_LINES = 128
_OWN = __file__.rpartition("/")[0]


class RuntimeFault(Exception):
    """An error of the runtime's own, with its type on the wire."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Cancelled(ConnectionError):
    """The caller of this request has gone, or its deadline has passed."""

    def __init__(self):
        super().__init__("the request was cancelled")


CANCELLED = {
    "errorType": "Function.Cancelled",
    "errorMessage": "the request was cancelled",
    "stackTrace": [],
}


def describe(error):
    """The wire form of the exception @error. Never raises, whatever its __str__ does."""
    if isinstance(error, Cancelled):
        return CANCELLED
    try:
        message = str(error)
    except BaseException:
        message = "an error that can not be described"
    return {
        "errorType": getattr(error, "kind", None) if isinstance(error, RuntimeFault)
        else type(error).__name__,
        "errorMessage": _clip(message),
        "stackTrace": _trace(error),
    }


def _clip(text):
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


def _trace(error):
    import traceback

    lines = []
    room = MAX_TRACE
    chain = error.__cause__ if isinstance(error, RuntimeFault) and error.__cause__ else error
    frames = traceback.extract_tb(chain.__traceback__)
    frames = [frame for frame in frames if not frame.filename.startswith(_OWN)]
    for entry in traceback.format_list(frames[-MAX_LINES:]):
        room -= len(entry)
        if room < 0:
            break
        lines.append(entry.encode("utf-8", "replace").decode())
    return lines


def as_text(told):
    """@told (of describe) for the log."""
    head = f"{told['errorType']}: {told['errorMessage']}"
    return "\n".join([head, *(line.rstrip("\n") for line in told["stackTrace"])])
