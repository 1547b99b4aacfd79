# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of cold starts share: handlers, requests that are timed, and waiting for the host to come to rest."""

import json
import sys
import time

EVENT = {"name": "Ada", "items": [1, 2, 3]}
NODE = "exports.handler = async (event) => ({ message: `Hello, ${event.name}!`, items: event.items.length });\n"
PYTHON = ("def handler(event, context):\n"
          "    return {'message': f\"Hello, {event['name']}!\", 'items': len(event['items'])}\n")
NODE_MODULES = "for (const name of ['http', 'crypto', 'zlib', 'url']) require(name);\n" + NODE
NODE_DATA = "const table = Array.from({ length: 50000 }, (_, i) => ({ id: i, name: `item ${i}` }));\n" + NODE.replace(
    "event.items.length", "event.items.length + table[0].id")
PYTHON_MODULES = "import email.message, hashlib, http.client, logging, random, ssl, uuid\n" + PYTHON
TREES = (("nodejs", NODE), ("python", PYTHON), ("nodejs", NODE_MODULES), ("python", PYTHON_MODULES),
         ("nodejs", NODE_DATA))
SETTLE = 0.03  # seconds of quiet before each start, so that all find the machine alike


def request(host, name, mark="Ada"):
    connection = host.connect()
    connection.connect()
    begin = time.perf_counter()
    connection.request("POST", f"/2015-03-31/functions/{name}/invocations", body=json.dumps(EVENT))
    response = connection.getresponse()
    body = response.read()
    took = (time.perf_counter() - begin) * 1000
    connection.close()
    if response.status != 200 or mark.encode() not in body:
        sys.exit(f"bench: {name}: {response.status} {body!r}")
    return took


def workers(host, name, states):
    return [w for w in host.admin("GET", "/v1/workers").json()["workers"]
            if w["function"] == name and w["state"] in states]


def await_true(condition, what, limit=60):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench: {what}: not within {limit} s")
        time.sleep(0.002)


def snapshot(host, name):
    return host.function(name)["versions"][0]["snapshot"]


def await_snapshot(host, name):
    await_true(lambda: snapshot(host, name)["state"] in ("stands", "paused"), "a snapshot")
    if snapshot(host, name)["state"] != "stands":
        sys.exit(f"bench: no snapshot of {name}: {snapshot(host, name)['lastFailure']}")


def deploy_one_of_many(host, i):
    """The name of function i of many, of one of a few code trees; its snapshot stands."""
    runtime, source = TREES[i % len(TREES)]
    name = f"many-{i:04}"
    spec = {"concurrency": 1, "workers": {"max": 1, "idleMs": 1}, "snapshot": {"warmup": EVENT}}
    (host.deploy_python if runtime == "python" else host.deploy_node)(name, source, **spec)
    await_snapshot(host, name)
    return name


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]
