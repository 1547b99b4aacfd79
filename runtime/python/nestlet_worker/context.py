# SPDX-License-Identifier: Apache-2.0
"""The context object of a handler, in the shape that AWS's handlers expect."""

import os
import time


class Identity:
    """Always empty: who called is the gateway's business."""

    cognito_identity_id = None
    cognito_identity_pool_id = None


class Client:
    def __init__(self, values):
        self.installation_id = values.get("installation_id")
        self.app_title = values.get("app_title")
        self.app_version_name = values.get("app_version_name")
        self.app_version_code = values.get("app_version_code")
        self.app_package_name = values.get("app_package_name")


class ClientContext:
    """What the caller sent as X-Amz-Client-Context."""

    def __init__(self, values):
        self.client = Client(values.get("client") or {})
        self.custom = values.get("custom") or {}
        self.env = values.get("env") or {}


class Context:
    # What is the same for every request; set once at INIT.
    function_name = ""
    function_version = ""
    memory_limit_in_mb = ""
    invoked_function_arn = ""
    log_group_name = ""
    log_stream_name = ""
    identity = Identity()

    def __init__(self, stream):
        self._client = stream.client_context
        self.aws_request_id = stream.request_id
        self.request_id = stream.request_id
        self.deadline_ms = stream.deadline_ms
        self.traceparent = stream.traceparent

    @classmethod
    def configure(cls, init):
        cls.function_name = init["function"]
        cls.function_version = init["version"]
        cls.memory_limit_in_mb = str(init["memoryMb"])
        cls.invoked_function_arn = f"arn:nestlet:function:{init['function']}:{init['version']}"
        cls.log_group_name = f"/nestlet/{init['function']}"
        cls.log_stream_name = f"{init['version']}/{os.getpid()}"

    @property
    def client_context(self):
        """None when the caller sent none, or no JSON object."""
        if isinstance(self._client, str):
            self._client = _decode(self._client)
        return self._client

    def get_remaining_time_in_millis(self):
        return max(0, self.deadline_ms - int(time.time() * 1000))

    def log(self, message):
        print(message)


def _decode(text):
    import binascii
    import json

    try:
        values = json.loads(binascii.a2b_base64(text))
    except ValueError:
        return None
    return ClientContext(values) if isinstance(values, dict) else None
