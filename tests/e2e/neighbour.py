# SPDX-License-Identifier: Apache-2.0
"""What most tests of misbehaviour share: a neighbour under a light constant load, and the shape of errors."""

import threading
import time

from host import Answer, wait_for

NEIGHBOUR = "exports.handler = async (event) => ({ echo: event.n });"
ERROR_FIELDS = {"errorType", "errorMessage", "component", "function", "version", "requestId"}


class Neighbour:
    """
    Another function in the same host, called about fifty times a second while the block runs. Leaving the block
    proves that every call was answered, rightly, and within `limit` seconds.
    """

    def __init__(self, host, limit=5.0, name="neighbour"):
        self.host, self.limit, self.name = host, limit, name
        self.answered, self.slowest, self.failures = 0, 0.0, []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.call_on, daemon=True)

    def call_once(self, connection):
        n, begin = self.answered, time.monotonic()
        connection.request(
            "POST", f"/2015-03-31/functions/{self.name}/invocations", body=f'{{"n":{n}}}'
        )
        answer = Answer(connection.getresponse())
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if answer.status != 200 or answer.json() != {"echo": n}:
            self.failures.append(repr(answer))
        self.answered += 1

    def call_on(self):
        connection = self.host.connect()
        try:
            while not self.stop.wait(0.02):
                self.call_once(connection)
        except (OSError, ValueError) as error:
            self.failures.append(repr(error))
        finally:
            connection.close()

    def __enter__(self):
        self.host.deploy_node(self.name, NEIGHBOUR)
        self.thread.start()
        wait_for(lambda: self.answered >= 2 or self.failures, "the neighbour answers")
        return self

    def __exit__(self, kind, error, trace):
        more = self.answered + 3
        if kind is None:
            wait_for(lambda: self.answered >= more or self.failures, "the neighbour still answers")
        self.stop.set()
        self.thread.join(self.limit)
        if kind is None:
            assert not self.failures, f"the neighbour failed: {self.failures[:3]}"
            assert self.slowest < self.limit, f"the neighbour waited {self.slowest:.1f} s"


def assert_refused(answer, status, error_type, function=None, version=None, contains=""):
    """The answer is that error, in the documented shape, and tells the id that the header tells."""
    assert answer.status == status, answer
    body = answer.json()
    assert set(body) == ERROR_FIELDS, answer
    assert body["errorType"] == error_type, answer
    assert body["function"] == function, answer
    if version is not None:
        assert body["version"] == version, answer
    assert body["requestId"] == answer.headers["x-request-id"], answer
    assert contains in body["errorMessage"], answer
    assert answer.headers["content-type"] == "application/json", answer
    return body


def worker_ids(host, name):
    """The ids of a function's workers that are not about to go."""
    return {w["id"] for w in host.workers() if w["function"] == name and w["state"] != "draining"}


def restarts(host, name, cause):
    """How often the workers of a function ended so, by the host's own count."""
    return sum(
        value
        for key, value in host.metrics().items()
        if key.startswith("nestlet_worker_restarts_total{")
        and f'function="{name}"' in key
        and f'cause="{cause}"' in key
    )


def assert_handler_error(answer, error_type):
    """The handler's own error on the Invoke API: 200, marked, with what was thrown."""
    assert answer.status == 200, answer
    assert answer.headers["x-amz-function-error"] == "Unhandled", answer
    body = answer.json()
    assert body["errorType"] == error_type, answer
    assert body["errorMessage"] and isinstance(body["stackTrace"], list), answer
