# SPDX-License-Identifier: Apache-2.0
"""A WSGI application with nothing but the standard library."""

import json
from urllib.parse import parse_qs
from wsgiref.util import request_uri


def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    answer = {
        "method": environ["REQUEST_METHOD"],
        "uri": request_uri(environ),
        "query": parse_qs(environ.get("QUERY_STRING", "")),
        "body": environ["wsgi.input"].read(length).decode("utf-8", "replace"),
    }
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
