# SPDX-License-Identifier: Apache-2.0
"""JSON in, JSON out; log lines carry the request's id."""

import logging

log = logging.getLogger(__name__)
calls = 0


def handler(event, context):
    global calls
    calls += 1
    name = (event or {}).get("name", "world")
    log.warning("greeting %s", name)
    return {
        "message": f"Hello, {name}!",
        "requestId": context.aws_request_id,
        "remainingMs": context.get_remaining_time_in_millis(),
        "calls": calls,
    }
