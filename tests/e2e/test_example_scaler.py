# SPDX-License-Identifier: Apache-2.0
"""examples/scaler drives several hosts."""

import json
import re
import signal
import subprocess
import urllib.request

import pytest

from host import PATIENCE, TOP, wait_for

HELLO = "exports.handler = async () => 'hello';"


@pytest.fixture
def scaler(workdir, make_host):
    """Starts the example with these functions; it ends before the hosts do."""
    started = []

    def start(functions, *args):
        (workdir / "functions.json").write_text(json.dumps(functions))
        process = subprocess.Popen(
            ["/usr/bin/python3", "-B", str(TOP / "examples/scaler/scaler.py"), "--quiet",
             "--functions", str(workdir / "functions.json"), "--listen", "127.0.0.1:0", *args],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return re.match(r"listening on (\S+)", process.stdout.readline()).group(1)

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


def spec(workdir, name, version="1"):
    directory = workdir / "code"
    directory.mkdir(exist_ok=True)
    (directory / "index.js").write_text(HELLO)
    directory.chmod(0o755)
    return {"name": name, "version": version, "runtime": "nodejs", "handler": "index.handler",
            "code": {"path": str(directory)}}  # fmt: skip


def test_functions_are_spread_over_hosts_and_move_when_one_is_gone(scaler, make_host, workdir, monkeypatch):
    names = [f"f{i}" for i in range(12)]
    url = scaler([spec(workdir, name) for name in names])
    hosts = []
    for i in range(3):
        monkeypatch.setenv("POD_NAME", f"pool-{i}")
        hosts.append(make_host({"scaler": {"url": url, "intervalMs": 200}}, name=f"host{i}"))
        hosts[-1].fds_at_rest = None

    def held(host):
        return {f["name"] for f in host.admin("GET", "/v1/functions").json()["functions"]}

    def spread(over):
        all_held = [held(host) for host in over]
        return sum(len(h) for h in all_held) == len(names) and set().union(*all_held) == set(names)

    wait_for(lambda: spread(hosts), "each function is on one host")
    for name in names:
        [host] = [h for h in hosts if name in held(h)]
        assert host.invoke(name).json() == "hello"
    assert hosts[0].stop() == 0
    wait_for(lambda: spread(hosts[1:]), "the others take over")
    with urllib.request.urlopen(url.replace("/v1/report", "/"), timeout=PATIENCE) as answer:
        table = answer.read().decode()
    assert re.search(r"pool-0 +(draining|gone)", table) and re.search(r"pool-1 +ready", table), table
    (workdir / "functions.json").write_text(json.dumps([spec(workdir, "f0", "2")]))
    wait_for(lambda: sorted(len(held(h)) for h in hosts[1:]) == [0, 1], "what is not wanted any more goes")
