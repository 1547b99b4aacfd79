# SPDX-License-Identifier: Apache-2.0
"""The central scaler: what hosts report to it, what it may say, and that nothing it does or fails to do harms a request."""

import json
import os
import subprocess
import threading
import time

import pytest

from central import Central
from host import PATIENCE, wait_for

HELLO = "exports.handler = async (event) => ({ hello: event.name ?? 'you' });"
SLOW = "exports.handler = async () => new Promise((done) => setTimeout(() => done('slept'), 300));"
INTERVAL_MS = 100


@pytest.fixture
def central(make_host):
    """A scaler that is stopped before the hosts are."""
    scaler = Central()
    yield scaler
    scaler.stop()


@pytest.fixture
def code(workdir):
    """Writes a Node function's code and gives a spec for it."""

    def write(name, version="1", source=HELLO, **spec):
        directory = workdir / "code" / f"{name}-{version}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "index.js").write_text(source)
        subprocess.run(["chmod", "-R", "go+rX", str(workdir / "code")], check=True)
        return {
            "name": name,
            "version": version,
            "runtime": "nodejs",
            "handler": "index.handler",
            "code": {"path": str(directory)},
            **spec,
        }

    return write


@pytest.fixture
def scaled(make_host, central):
    """Makes a host that reports to the scaler."""

    def make(scaler=None, name="host", **config):
        host = make_host(
            {"scaler": {"url": central.url, "intervalMs": INTERVAL_MS, **(scaler or {})}, **config}, name=name
        )
        host.fds_at_rest = None  # a connection to the scaler comes and goes
        return host

    return make


def test_functions_of_the_scaler_run_and_go(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("hello"), code("other")])
    central.wait_settled()
    assert host.invoke("hello", {"name": "me"}).json() == {"hello": "me"}
    report = central.wait_report(
        lambda r: any(f.get("requests", {}).get("success") == 1 for f in r["functions"]), "the request is reported"
    )
    [hello] = [f for f in report["functions"] if f["name"] == "hello"]
    assert hello["owner"] == "scaler" and hello["live"] and hello["version"] == "1"
    assert sum(hello["durations"]) == 1 and hello["durationUs"] > 0
    assert hello["coldStarts"]["plain"] == 1
    central.desire([code("other")])
    central.wait_settled()
    assert host.invoke("hello").status == 404
    assert host.invoke("other").status == 200


def test_a_report_says_who_and_how_the_host_is(scaled, central, monkeypatch):
    monkeypatch.setenv("POD_NAME", "pool-7")
    monkeypatch.setenv("POD_NAMESPACE", "faas")
    central.start()
    scaled(cells={"max": 17, "prepared": 1})
    first = central.wait_report(lambda r: r["state"] == "ready", "a report")
    assert (first["protocol"], first["host"]["name"], first["host"]["namespace"]) == (1, "pool-7", "faas")
    assert first["capacity"]["cells"] == 17
    assert first["capacity"]["cpuMilli"] > 0 and first["capacity"]["memoryBytes"] > 1 << 20
    assert 0 < first["use"]["memoryBytes"] <= first["capacity"]["memoryBytes"]
    later = central.wait_report(lambda r: True, "the next one")
    assert later["sequence"] > first["sequence"]
    assert later["host"]["bootId"] == first["host"]["bootId"]
    assert later["use"]["cpuUs"] >= first["use"]["cpuUs"]


def test_a_new_version_takes_over_and_no_request_fails(scaled, central, code):
    central.start()
    host = scaled()
    source = "exports.handler = async () => '{}';"
    central.desire([code("a", "1", source.format("one"))])
    central.wait_settled()
    statuses, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            statuses.append(host.invoke("a").status)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in ("2", "3", "4"):
        central.desire([code("a", version, source.format(version))])
        central.wait_settled()
        assert host.invoke("a").json() == version
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


def test_worker_bounds_are_kept_and_changed_without_a_new_version(scaled, central, code):
    central.start()
    host = scaled()
    spec = code("a", workers={"idleMs": 50})
    central.desire([spec], {"a": {"min": 2, "max": 4}})
    wait_for(lambda: len(host.workers()) == 2, "the minimum is up")
    central.desire([spec], {"a": {"min": 1, "max": 1}})
    wait_for(lambda: len(host.workers()) == 1, "the surplus goes")
    central.desire([spec])
    wait_for(lambda: not host.workers(), "what the spec says counts again")


def test_bounds_also_hold_for_what_the_scaler_did_not_place(scaled, central, code):
    central.start()
    host = scaled()
    host.deploy_node("mine", HELLO)
    central.desire([], {"mine": {"min": 1, "max": 2}})
    wait_for(lambda: len(host.workers()) == 1, "the minimum is up")


def test_a_bad_spec_is_told_with_its_reason_and_stops_no_other(scaled, central, code):
    central.start()
    host = scaled()
    bad = code("bad", memoryMb="much")
    unnumbered = {**code("unnumbered"), "version": ""}
    missing = {**code("missing"), "code": {"path": "/no/such/directory"}}
    central.desire([bad, unnumbered, missing, 7, code("good")], {"good": {"min": 3, "max": 2}})
    report = central.wait_settled()
    refused = {r["function"]: r["reason"] for r in report["desired"]["refused"]}
    assert "'memoryMb' must be an integer" in refused["bad"]
    assert "has no version" in refused["unnumbered"]
    assert "'min' is 3, more than 'max', 2" in refused["good"]
    assert "a spec is a JSON object, not a number" in refused[""]
    failed = {f["function"]: f["reason"] for f in report["desired"]["failed"]}
    assert "/no/such/directory" in failed["missing"]
    assert host.invoke("good").status == 200
    central.desire([code("good"), {**code("missing"), "version": "2"}])
    report = central.wait_settled()
    assert report["desired"]["refused"] == [] and host.invoke("missing").status == 200


def test_a_version_that_comes_with_another_spec_is_refused_and_the_one_that_stands_stays(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("a")])
    central.wait_settled()
    central.desire([code("a", memoryMb=200)])
    report = central.wait_settled()
    assert "stands with another spec" in report["desired"]["refused"][0]["reason"]
    assert host.invoke("a").status == 200


def test_what_could_not_be_deployed_is_tried_again(scaled, central, code, workdir):
    central.start()
    host = scaled()
    spec = code("late")
    spec["code"]["path"] += "-not-yet"
    central.desire([spec])
    report = central.wait_settled()
    assert report["desired"]["failed"][0]["function"] == "late"
    os.rename(workdir / "code" / "late-1", spec["code"]["path"])
    report = central.wait_report(lambda r: not r["desired"]["failed"], "the next attempt does it")
    assert host.invoke("late").status == 200


def test_config_comes_before_admin_and_admin_before_the_scaler(scaled, central, code):
    says = "exports.handler = async () => '{}';"
    central.start()
    host = scaled(functions=[code("a", "c1", says.format("config"))])
    host.nestctl("deploy", str(host.write_function("b", {"index.js": says.format("admin")}, runtime="nodejs", handler="index.handler")))
    central.desire([code(n, "1", says.format("scaler")) for n in "abc"])
    report = central.wait_settled()
    assert {f["name"]: f["owner"] for f in report["functions"]} == {"a": "config", "b": "admin", "c": "scaler"}
    assert [host.invoke(n).json() for n in "abc"] == ["config", "admin", "scaler"]
    answer = host.admin("PUT", "/v1/functions/c", json.dumps(code("c", "9")))
    assert (answer.status, answer.error_type) == (403, "Function.OwnedByScaler")
    assert host.admin("DELETE", "/v1/functions/c").error_type == "Function.OwnedByScaler"
    # what was shadowed comes up once its name is let go
    assert host.admin("DELETE", "/v1/functions/b").status == 200
    wait_for(lambda: host.invoke("b").status == 200, "the scaler's version is deployed")
    assert host.invoke("b").json() == "scaler"


def test_the_last_state_comes_back_after_kill_9_with_the_scaler_away(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("a")], {"a": {"min": 1, "max": 2}})
    central.wait_settled()
    central.stop()
    host.kill()
    host.start()
    host.fds_at_rest = None
    assert host.invoke("a").status == 200
    wait_for(lambda: len(host.workers()) == 1, "the bounds are kept too")
    shown = host.admin("GET", "/v1/scaler").json()
    assert shown["generation"] == 1 and shown["failuresInARow"] > 0 and shown["lastFailure"]


def test_an_older_generation_is_not_taken(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("a")], generation=5)
    central.wait_settled()
    central.misbehave = lambda handler: handler.reply(
        200, json.dumps({"protocol": 1, "generation": 4, "functions": [], "drain": True}).encode()
    )
    before = host.admin("GET", "/v1/scaler").json()
    wait_for(lambda: host.admin("GET", "/v1/scaler").json()["oldGenerationsTotal"] > 2, "old replies are counted")
    assert host.invoke("a").status == 200 and host.alive
    assert host.admin("GET", "/v1/scaler").json()["generation"] == before["generation"] == 5


FAULTS = {
    "stopped": None,
    "500": lambda h: h.reply(500, b"oh no"),
    "garbage": lambda h: h.reply(200, os.urandom(3000)),
    "wrong json": lambda h: h.reply(200, b'{"protocol":1,"generation":99,"functions":{}}'),
    "another protocol": lambda h: h.reply(200, b'{"protocol":2,"generation":99,"functions":[]}'),
    "redirect": lambda h: h.reply(302, b"", Location="http://127.0.0.1:1/"),
    "cut": lambda h: (h.send_response(200), h.send_header("Content-Length", "900"), h.end_headers(), h.wfile.write(b"{")),
}


@pytest.mark.parametrize("fault", [*FAULTS, "slow", "100 MB", "100 MB unannounced"])
def test_a_bad_scaler_harms_nothing_and_is_heard_again_within_two_intervals(scaled, central, code, fault):
    def huge(handler):
        handler.send_response(200)
        if fault == "100 MB":
            handler.send_header("Content-Length", str(100 << 20))
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" " * (1 << 20))
        handler.close_connection = True

    central.start()
    host = scaled({"timeoutMs": 2000})
    central.desire([code("a")])
    central.wait_settled()
    if fault == "stopped":
        central.stop()
    elif fault == "slow":
        central.misbehave = lambda handler: central.leave.wait(30)
    else:
        central.misbehave = FAULTS.get(fault, huge)
    wait_for(
        lambda: host.admin("GET", "/v1/scaler").json()["failuresInARow"] >= 3, "reports fail", PATIENCE
    )
    shown = host.admin("GET", "/v1/scaler").json()
    assert shown["generation"] == 1 and shown["lastFailure"]
    assert all(host.invoke("a").status == 200 for _ in range(20))
    central.desire([code("a"), code("b")])
    if fault == "stopped":
        central.start()
    central.misbehave = None
    back = time.monotonic()
    wait_for(lambda: host.admin("GET", "/v1/scaler").json()["generation"] == 2, "the next generation is in force")
    # two intervals, and as much again as a loaded machine may take
    assert time.monotonic() - back < 2 * INTERVAL_MS / 1000 + 2
    wait_for(lambda: host.invoke("b").status == 200, "it is deployed")
    assert "sanitizer" not in host.log().lower()


def test_the_scaler_drains_a_host_which_ends_when_its_requests_have(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("a", source=SLOW)])
    central.wait_settled()
    answers = []
    caller = threading.Thread(target=lambda: answers.append(host.invoke("a")))
    caller.start()
    central.wait_report(lambda r: r["totals"]["open"] > 0, "the request is under way")
    host.note_pids()
    central.extra = {"drain": True}
    caller.join()
    assert answers[0].status == 200
    assert host.process.wait(PATIENCE) == 0
    with central.lock:
        assert any(r["state"] == "draining" for _, r in central.reports)


def test_a_token_goes_along_and_is_read_anew(scaled, central, workdir):
    token = workdir / "token"
    token.write_text("first\n")
    token.chmod(0o644)
    central.start()
    host = scaled({"tokenFile": str(token)})

    def sent(word):
        with central.lock:
            return any(h.get("Authorization") == f"Bearer {word}" for h, _ in central.reports)

    wait_for(lambda: sent("first"), "the token is sent")
    token.write_text("second")
    wait_for(lambda: sent("second"), "the new one is sent")
    token.unlink()
    wait_for(lambda: "tokenFile" in host.admin("GET", "/v1/scaler").json()["lastFailure"], "its absence is told")


def test_https_is_checked_against_the_named_ca(scaled, central, workdir):
    cert, key = workdir / "cert.pem", workdir / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=scaler", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    cert.chmod(0o644)
    central.tls = (cert, key)
    central.start()
    scaled({"caFile": str(cert)}, name="trusting")
    central.wait_report(lambda r: True, "a report over TLS")
    wary = scaled(name="wary")
    wait_for(
        lambda: "certificate" in wary.admin("GET", "/v1/scaler").json()["lastFailure"].lower(), "an unknown CA is refused"
    )


def test_long_reports_are_compressed_and_plain_where_that_is_refused(scaled, central):
    central.start()
    scaled({"compressBytes": 1})
    central.wait_report(lambda r: True, "a compressed report")
    with central.lock:
        assert central.reports[-1][0]["Content-Encoding"] == "zstd"
    central.misbehave = lambda h: h.reply(415, b"") if h.headers.get("Content-Encoding") else h.reply(204, b"")

    def plain():
        with central.lock:
            return "Content-Encoding" not in central.reports[-1][0]

    wait_for(plain, "plain reports")


def test_a_token_is_never_sent_in_the_clear_to_another_machine(make_host):
    host = make_host({"scaler": {"url": "http://scaler.example/v1", "tokenFile": "/run/token"}}, start=False)
    assert host.start(expect_ready=False) == 2
    assert "'scaler.tokenFile' would be sent in the clear" in host.log()


def test_a_damaged_state_file_is_named_and_replaced(scaled, central, code):
    central.start()
    host = scaled()
    central.desire([code("a")])
    central.wait_settled()
    host.stop()
    (host.root / "state" / "desired.json").write_text("{ half")
    central.desire([code("a")])
    host.start()
    host.fds_at_rest = None
    assert "desired.json" in host.log()
    wait_for(lambda: host.invoke("a").status == 200, "the scaler's next reply brings it back")


def test_descriptors_and_memory_do_not_grow_with_a_bad_scaler(scaled, central):
    central.start()
    host = scaled({"intervalMs": 10, "timeoutMs": 500})
    central.misbehave = lambda h: h.reply(500, b"")

    def after(n):
        start = central.count()
        wait_for(lambda: central.count() >= start + n, "reports come")
        return host.fds()["agent"]

    first = after(50)
    assert abs(after(200) - first) <= 4
