# SPDX-License-Identifier: Apache-2.0
"""An HTTP request for an event handler: the event has the shape of API Gateway's payload format
2.0, and so has the answer."""

import binascii
import re
import time
from urllib.parse import parse_qsl

from .errors import RuntimeFault
from .result import is_streamable, to_json

_TEXT_TYPE = re.compile(
    r"(?:text/|application/(?:[\w.-]+\+)?"
    r"(?:json|xml|javascript|x-www-form-urlencoded|graphql|x-ndjson)\b)",
    re.IGNORECASE,
)
HOP_BY_HOP = frozenset((
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
))
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def to_event(stream, body):
    headers, cookies = _join_headers(stream.headers)
    path, _, query = stream.target.partition("?")
    now = time.time()
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "domainName": headers.get("host"),
            "http": {
                "method": stream.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source_address(headers.get("x-forwarded-for")),
                "userAgent": headers.get("user-agent"),
            },
            "requestId": stream.request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": _clf_time(time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        joined = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            joined[name] = f"{joined[name]},{value}" if name in joined else value
        event["queryStringParameters"] = joined
    if body:
        _add_body(event, headers, body)
    return event


def _add_body(event, headers, body):
    if "content-encoding" not in headers and _TEXT_TYPE.match(headers.get("content-type", "")):
        event["body"] = bytes(body).decode("utf-8", "replace")
    else:
        event["body"] = binascii.b2a_base64(body, newline=False).decode()
        event["isBase64Encoded"] = True


def _join_headers(fields):
    headers = {}
    cookies = []
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [c for c in re.split(r";\s*", value) if c]
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers, cookies


def source_address(forwarded):
    """The last one is what the gateway itself saw; what stands before it anyone may have sent."""
    return forwarded.rpartition(",")[2].strip() if forwarded else "127.0.0.1"


def _clf_time(at):
    return (f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:"
            f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000")


def head(answer):
    """{statusCode, headers, multiValueHeaders, cookies} as a status and head fields."""
    try:
        status = int(answer["statusCode"])
    except (TypeError, ValueError):
        status = 0
    if not 200 <= status <= 599:
        given = answer["statusCode"]
        raise _invalid(f"statusCode must be an integer from 200 to 599, not {given!r}")
    fields = []
    for name, value in (answer.get("headers") or {}).items():
        add_field(fields, name, value)
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        for value in values:
            add_field(fields, name, value)
    for cookie in answer.get("cookies") or ():
        add_field(fields, "set-cookie", cookie)
    return status, fields


def add_field(fields, name, value):
    """Appends the header field unless it belongs to the connection. Raises RuntimeFault when it
    can't be sent."""
    if value is None:
        return
    try:
        key = (name if isinstance(name, bytes) else str(name).encode("latin-1")).lower()
        text = value if isinstance(value, bytes) else str(value).encode("latin-1")
    except UnicodeEncodeError as error:
        raise _invalid(f"header {name!r}: {error}") from None
    if key in HOP_BY_HOP:
        return
    if not _NAME.fullmatch(key) or len(key) > 65535:
        raise _invalid(f"header name {name!r}")
    if _BAD_VALUE.search(text):
        raise _invalid(f"the value of header {name!r} has control characters")
    fields.append((key, text.strip(b" \t")))


def _invalid(why):
    text = f"the handler's HTTP response is not valid: {why}"
    return RuntimeFault("Function.InvalidResponse", text)


def response(value):
    """What the handler returned, as (status, fields, body). The body is bytes, or what is to be
    streamed."""
    if not isinstance(value, dict) or "statusCode" not in value:
        if is_streamable(value):
            return 200, [(b"content-type", b"application/octet-stream")], value
        return 200, [(b"content-type", b"application/json")], to_json(value)
    status, fields = head(value)
    body = value.get("body")
    if body is None:
        return status, fields, b""
    if isinstance(body, str):
        if value.get("isBase64Encoded"):
            return status, fields, _from_base64(body)
        return status, _with_type(fields, b"application/json"), body.encode("utf-8", "replace")
    if isinstance(body, (bytes, bytearray, memoryview)):
        return status, _with_type(fields, b"application/octet-stream"), bytes(body)
    if is_streamable(body):
        return status, _with_type(fields, b"application/octet-stream"), body
    return status, _with_type(fields, b"application/json"), to_json(body)


def _from_base64(body):
    try:
        return binascii.a2b_base64(body)
    except ValueError as error:
        raise _invalid(f"the body is not base64: {error}") from None


def _with_type(fields, content_type):
    if any(name == b"content-type" for name, _ in fields):
        return fields
    return [*fields, (b"content-type", content_type)]
