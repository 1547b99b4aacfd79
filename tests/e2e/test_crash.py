# SPDX-License-Identifier: Apache-2.0
"""kill -9 of every part, and the ways to end and start again: the host, or its next start, is whole."""

import json
import os
import random
import signal
import threading
import time

import pytest

from host import Answer, cgroups_of, descendants, processes, wait_for
from neighbour import Neighbour, assert_refused, restarts, worker_ids

ECHO = "exports.handler = async (event) => event;"
SLOW = (
    "exports.handler = async (event) => {"
    " await new Promise((ok) => setTimeout(ok, event.ms)); return 'done'; };"
)


def worker_pid(host, name):
    """The host's number of the one worker's process."""
    pids = [w["pid"] for w in host.workers() if w["function"] == name and w["state"] != "draining"]
    assert len(pids) == 1, pids
    return pids[0]


def in_flight(host, name):
    return host.function(name)["versions"][0]["inFlight"]


class Calling:
    """A call that goes on in the background."""

    def __init__(self, host, name, event, before=None):
        self.answer, self.error = None, None
        self.thread = threading.Thread(target=self.run, args=(host, name, event))
        self.thread.start()

    def run(self, host, name, event):
        try:
            self.answer = host.invoke(name, event)
        except OSError as error:
            self.error = error

    def end(self):
        self.thread.join(30)
        assert not self.thread.is_alive(), "the call does not end"
        return self.answer


def assert_all_gone(host, pids):
    """Nothing of a host that was killed runs any more."""
    wait_for(lambda: not pids & set(processes()), f"the processes {pids} end", 10)


def start_again(host):
    """The next life, with the same state directory."""
    host.start()
    assert host.admin("GET", "/readyz").status == 200


# ---- a worker, a cell ----


def test_kill_9_of_an_idle_worker_is_noticed_and_the_next_request_gets_another(host):
    with Neighbour(host):
        host.deploy_node("echo", ECHO)
        host.invoke("echo")
        before = worker_ids(host, "echo")
        os.kill(worker_pid(host, "echo"), signal.SIGKILL)
        wait_for(lambda: restarts(host, "echo", "signal") == 1, "its end is counted")
        assert host.invoke("echo", {"n": 1}).json() == {"n": 1}
        assert not worker_ids(host, "echo") & before
        assert "was killed by signal 9 (SIGKILL)" in host.log()


def test_kill_9_of_a_worker_in_flight_fails_its_request_alone(host):
    with Neighbour(host):
        host.deploy_node("slow", SLOW)
        call = Calling(host, "slow", {"ms": 60000})
        wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
        os.kill(worker_pid(host, "slow"), signal.SIGKILL)
        assert_refused(call.end(), 502, "Function.Crashed", "slow", "1", "SIGKILL")
        assert host.invoke("slow", {"ms": 0}).status == 200


def test_kill_9_of_the_process_1_of_a_cell_ends_the_cell_and_is_survived(host):
    with Neighbour(host):
        host.deploy_node("slow", SLOW)
        call = Calling(host, "slow", {"ms": 60000})
        wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
        worker = worker_pid(host, "slow")
        init = processes()[worker][0]
        assert processes()[init][0] == host.spawner_pid()
        os.kill(init, signal.SIGKILL)
        assert_refused(call.end(), 502, "Function.Crashed", "slow", "1")
        assert host.invoke("slow", {"ms": 0}).status == 200
        assert_all_gone(host, {worker, init})


def test_kill_9_of_prepared_cells_is_made_good(host):
    host.deploy_node("echo", ECHO)
    spawner = host.spawner_pid()
    for pid, (parent, _) in processes().items():
        if parent == spawner:
            os.kill(pid, signal.SIGKILL)
    assert host.invoke("echo", {"n": 1}).json() == {"n": 1}
    wait_for(lambda: host.metrics()["nestlet_cells_prepared"] == 2, "the pool is refilled")


# ---- the spawner ----


def test_kill_9_of_the_spawner_ends_the_host_with_1_and_a_clear_log_and_no_cell_stays(host):
    host.deploy_node("slow", SLOW)
    call = Calling(host, "slow", {"ms": 60000})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    pids = set(host.note_pids())
    os.kill(host.spawner_pid(), signal.SIGKILL)
    assert host.process.wait(10) == 1
    assert "the spawner is lost" in host.log()
    assert_refused(call.end(), 502, "Function.Crashed", "slow", "1", "was lost")
    assert_all_gone(host, pids)
    assert not host.gateway_socket.exists() and not host.admin_socket.exists()
    start_again(host)
    assert host.invoke("slow", {"ms": 0}).body == b'"done"'


# ---- the agent ----


def test_kill_9_of_the_agent_takes_all_with_it_and_the_next_start_is_whole(host):
    with Neighbour(host):
        host.deploy_node("slow", SLOW, env={"WHO": "before"})
    host.deploy_python("py", "def handler(event, context): return 1")
    assert host.invoke("py").body == b"1"
    call = Calling(host, "slow", {"ms": 60000})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    before = json.loads((host.root / "state" / "registry.json").read_text())
    pids = set(host.note_pids())
    host.kill()
    assert call.end() is None
    assert_all_gone(host, pids)
    start_again(host)  # at once, over the socket files of the life before
    assert host.invoke("slow", {"ms": 0}).body == b'"done"'
    assert host.invoke("py").body == b"1"
    assert host.invoke("neighbour", {"n": 7}).json() == {"echo": 7}
    assert json.loads((host.root / "state" / "registry.json").read_text()) == before
    cells = [p for c in cgroups_of(host.instance) for p in os.listdir(c) if p.startswith("cell-")]
    alive = len(descendants(host.spawner_pid()))
    assert cells and len(set(cells)) <= alive, "cgroups of the life before are left"


def test_a_start_sweeps_what_a_killed_host_could_not_take_away(host):
    """The spawner stopped, the agent killed, then the spawner: nobody was there to clean up."""
    host.deploy_node("echo", ECHO)
    host.invoke("echo")
    pids = set(host.note_pids())
    spawner = host.spawner_pid()
    os.kill(spawner, signal.SIGSTOP)
    host.kill()
    os.kill(spawner, signal.SIGKILL)
    assert_all_gone(host, pids)
    assert cgroups_of(host.instance), "there is something to sweep"
    start_again(host)
    assert host.invoke("echo", {"n": 1}).json() == {"n": 1}


def next_version(host, name, n):
    host.write_function(
        name,
        {"index.js": f"exports.handler = async () => {n};"},
        runtime="nodejs",
        handler="index.handler",
    )
    return host.nestctl("deploy", str(host.root / "functions" / name), check=False).returncode == 0


def test_kill_9_of_the_agent_at_any_moment_of_a_deploy_keeps_what_was_acknowledged(host):
    """After each restart the function answers as one that was acknowledged, or as the one in flight."""
    chance = random.Random(20250101)
    assert next_version(host, "f", 0)
    host.invoke("f")
    acknowledged, asked = 0, 0
    for _ in range(15):
        deployed = []

        def deploy_on():
            n = asked
            while True:
                n += 1
                deployed.append([n, False])
                if not next_version(host, "f", n):
                    return
                deployed[-1][1] = True

        deployer = threading.Thread(target=deploy_on)
        deployer.start()
        wait_for(lambda: deployed, "the first deploy begins")
        time.sleep(chance.uniform(0, 0.25))  # the moment of the kill is what is tried
        host.kill()
        deployer.join()
        start_again(host)
        acknowledged = max([n for n, well in deployed if well], default=acknowledged)
        asked = deployed[-1][0]
        got = json.loads(host.invoke("f").body)
        assert got in (acknowledged, asked), f"{got} answers after {deployed}"
        acknowledged = got
    staging = list((host.root / "state" / "code" / "staging").iterdir())
    assert staging == [], "half-made code is left"


# ---- drain ----


def test_sigterm_lets_requests_in_flight_end_and_takes_no_new_ones(host):
    host.deploy_node("slow", SLOW)
    host.invoke("slow", {"ms": 0})
    call = Calling(host, "slow", {"ms": 1500})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    early = host.connect()
    early.connect()
    host.signal(signal.SIGTERM)
    wait_for(lambda: host.admin("GET", "/readyz").status == 503, "it is not ready any more")
    try:
        early.request("POST", "/2015-03-31/functions/slow/invocations", body='{"ms": 0}')
        answer = Answer(early.getresponse())
        assert_refused(answer, 503, "Host.Draining")
        assert int(answer.headers["retry-after"]) >= 1
    except ConnectionError:
        pass  # an idle connection may be closed instead
    early.close()
    assert call.end().body == b'"done"'
    assert host.process.wait(10) == 0
    assert "drained" in host.log()


def test_a_drain_ends_after_its_grace_with_what_is_still_in_flight(make_host):
    host = make_host({"drain": {"graceMs": 400}})
    host.deploy_node("slow", SLOW)
    call = Calling(host, "slow", {"ms": 60000})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    begin = time.monotonic()
    host.signal(signal.SIGTERM)
    assert host.process.wait(10) == 0
    assert 0.4 <= time.monotonic() - begin < 5
    assert_refused(call.end(), 502, "Function.Crashed", "slow", "1", "going away")
    assert "drain.graceMs" in host.log()


def test_a_second_sigterm_breaks_off_what_is_in_flight(host):
    host.deploy_node("slow", SLOW)
    call = Calling(host, "slow", {"ms": 60000})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    host.signal(signal.SIGTERM)
    wait_for(lambda: "draining" in host.log(), "the drain begins")
    assert host.alive
    host.signal(signal.SIGTERM)
    assert host.process.wait(10) == 0
    assert_refused(call.end(), 502, "Function.Crashed", "slow", "1", "going away")
    assert "second signal" in host.log()


def test_nestctl_drain_ends_the_host_as_sigterm_does(host):
    host.deploy_node("slow", SLOW)
    call = Calling(host, "slow", {"ms": 1000})
    wait_for(lambda: in_flight(host, "slow") == 1, "the call is in flight")
    host.nestctl("drain")
    assert call.end().body == b'"done"'
    assert host.process.wait(10) == 0


def test_a_start_again_after_a_drain_has_all_functions_and_cached_code(host):
    host.deploy_node("echo", ECHO)
    host.invoke("echo")
    assert host.stop() == 0
    start_again(host)
    assert host.invoke("echo", {"n": 1}).json() == {"n": 1}
    assert host.metrics()["nestlet_code_cache_misses_total"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_host_that_ends_as_soon_as_it_is_ready_can_be_started_again_at_once(host, number):
    """Nothing of its start, such as the trial of the machine's features, holds on to the state directory."""
    for _ in range(5):
        host.note_pids()
        host.signal(number)
        host.process.wait(10)
        start_again(host)
