# SPDX-License-Identifier: Apache-2.0
"""What is pulled: the flat JSON, Prometheus' text and Knative's Stat on their addresses, and readiness by load."""

import json
import socket
import struct
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from beacon import Beacon
from host import PATIENCE, wait_for
from test_metrics_and_logs import parse

HELLO = "exports.handler = async () => 'hello';"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def get(port, path, method="GET", data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


@pytest.fixture
def ports():
    return free_port(), free_port()


@pytest.fixture
def served(make_host, ports):
    """A host whose figures can be pulled over TCP."""
    return make_host({"stats": {"listen": f":{ports[0]}"}, "knative": {"listen": f"0.0.0.0:{ports[1]}"}})


def test_numbers_stand_at_paths_that_do_not_change(served, ports):
    served.deploy_node("hello", HELLO)
    idle = json.loads(get(ports[0], "/v1/stats")[2])
    assert idle["functions"]["hello"]["requestsTotal"] == 0
    for _ in range(5):
        served.invoke("hello")
    busy = json.loads(get(ports[0], "/v1/stats")[2])
    assert busy["functions"]["hello"]["requestsTotal"] == 5
    assert busy["functions"]["hello"]["rps"] > 0 and busy["functions"]["hello"]["p99Ms"] > 0
    assert busy["functions"]["hello"].keys() == idle["functions"]["hello"].keys()
    assert busy["host"].keys() == idle["host"].keys() and busy["host"]["ready"] == 1
    assert all(isinstance(v, (int, float)) for v in [*busy["host"].values(), *busy["functions"]["hello"].values()])
    assert served.admin("GET", "/v1/stats").json()["functions"]["hello"]["requestsTotal"] == 5


def test_probes_and_prometheus_are_served_and_nothing_else(served, ports):
    assert get(ports[0], "/healthz")[0] == 200
    assert get(ports[0], "/readyz")[::2] == (200, b"ready\n")
    parse(get(ports[0], "/metrics")[2].decode())
    assert get(ports[0], "/v1/functions")[0] == 404
    assert get(ports[0], "/v1/drain", "POST")[0] == 404
    assert get(ports[0], "/metrics", "POST")[0] == 405
    assert get(ports[0], "/metrics", "POST", b"x")[0] == 413
    assert get(ports[1], "/v1/stats")[0] == 404


def ask_and_leave(connect, address):
    with socket.socket(*connect) as sock:
        sock.connect(address)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 3)


@pytest.mark.parametrize("how", ["goes-on", "stops"])
def test_whoever_asks_for_metrics_and_leaves_harms_nothing(served, ports, how):
    served.deploy_node("hello", HELLO)
    for _ in range(50):
        ask_and_leave((socket.AF_INET,), ("127.0.0.1", ports[0]))
        ask_and_leave((socket.AF_UNIX,), str(served.admin_socket))
    if how == "stops":  # with some of them being written
        assert served.stop() == 0
        return
    assert "nestlet_ready" in get(ports[0], "/metrics")[2].decode()
    assert served.metrics()["nestlet_ready"] == 1


def stat(data):
    """field -> value of a flat protobuf message of strings and doubles."""
    fields = {}
    while data:
        tag, data = data[0], data[1:]
        if tag & 7 == 2:
            fields[tag >> 3], data = data[1 : 1 + data[0]], data[1 + data[0] :]
        else:
            assert tag & 7 == 1, tag
            [fields[tag >> 3]], data = struct.unpack("<d", data[:8]), data[8:]
    return fields


MEET = "exports.handler = async () => { await meet('here'); };"


def test_knative_scrapes_average_concurrency_and_rate(served, ports):
    status, kind, body = get(ports[1], "/metrics")
    assert (status, kind) == (200, "application/protobuf")
    assert stat(body)[1].decode() == socket.gethostname() and stat(body)[6] > 0
    with Beacon() as beacon, ThreadPoolExecutor() as pool:
        served.deploy_node("meet", beacon.node() + MEET, concurrency=8)
        calls = [pool.submit(served.invoke, "meet") for _ in range(4)]
        beacon.wait(4)
        # averages over windows that lie behind one another come to what is open all the time
        wait_for(lambda: stat(get(ports[1], "/metrics")[2])[2] == pytest.approx(4, abs=0.01), "4 are open")
        beacon.open()
        assert all(call.result().status == 200 for call in calls)
    wait_for(lambda: stat(get(ports[1], "/metrics")[2]).get(4, 0) > 0, "requests a second are told")


def test_a_full_host_is_not_ready_until_it_has_room(make_host):
    host = make_host({"ready": {"maxRequests": 2}})
    with Beacon() as beacon, ThreadPoolExecutor() as pool:
        host.deploy_node("meet", beacon.node() + MEET)
        calls = [pool.submit(host.invoke, "meet") for _ in range(2)]
        beacon.wait(2)
        answer = host.admin("GET", "/readyz")
        assert (answer.status, answer.body) == (503, b"full: 2 requests of at most 2 wait or run\n")
        beacon.open()
        assert all(call.result().status == 200 for call in calls)
    assert host.admin("GET", "/readyz").status == 200


def test_an_address_that_is_taken_is_named(make_host):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        host = make_host({"stats": {"listen": address}}, start=False)
        assert host.start(expect_ready=False) == 1
    assert f"listen on '{address}'" in host.log()
