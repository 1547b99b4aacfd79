# SPDX-License-Identifier: Apache-2.0
"""What the host tells of itself: /metrics in Prometheus' text format, and functions' logs."""

import json
import os
import re
import threading

import pytest

from beacon import Beacon
from host import wait_for
from wire import Wire, invocation

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)$")
SUFFIXES = {"histogram": {"_bucket", "_sum", "_count"}, "counter": {""}, "gauge": {""}}


def parse(text):
    """
    The text format, strictly: HELP then TYPE then samples of one family together, no family or sample twice, and
    what Prometheus' conventions say of names. Returns family -> (type, {labels: value} per sample name).
    """
    assert text.endswith("\n")
    families, family, seen = {}, None, set()
    lines = iter(text[:-1].split("\n"))
    for line in lines:
        if line.startswith("# HELP "):
            _, _, family, help_text = line.split(" ", 3)
            assert family not in families and re.fullmatch(NAME, family), line
            assert help_text.endswith(".") or "Unix time" in help_text, line
            following = next(lines).split(" ")
            assert following[:3] == ["#", "TYPE", family] and following[3] in SUFFIXES, following
            families[family] = (following[3], {})
            kind = following[3]
            assert family.endswith("_total") == (kind == "counter"), f"{family} is a {kind}"
            assert not re.search(r"_(ms|us|kb|mb|milliseconds|kilobytes)(_total)?$", family), family
            continue
        match = SAMPLE.fullmatch(line)
        assert match and line not in seen, f"not a sample: {line!r}"
        name, labels, value = match.group(1), match.group(2) or "", float(match.group(match.lastindex))
        pairs = tuple(re.findall(LABEL, labels))
        kind, samples = families[family]
        assert name.startswith(family) and name[len(family) :] in SUFFIXES[kind], line
        assert len({key for key, _ in pairs}) == len(pairs), line
        assert (name, pairs) not in seen, f"twice: {line}"
        assert kind == "gauge" or value >= 0, line
        seen.add((name, pairs))
        samples[(name, pairs)] = value
    return families


def check_histograms(families):
    for family, (kind, samples) in families.items():
        if kind != "histogram":
            continue
        series = {}
        for (name, pairs), value in samples.items():
            rest = tuple(p for p in pairs if p[0] != "le")
            part = series.setdefault(rest, {"buckets": []})
            if name.endswith("_bucket"):
                part["buckets"].append((float(dict(pairs)["le"]), value))
            else:
                part[name[len(family) :]] = value
        for rest, part in series.items():
            bounds = [bound for bound, _ in part["buckets"]]
            counts = [count for _, count in part["buckets"]]
            assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), (family, rest)
            assert counts == sorted(counts) and counts[-1] == part["_count"], (family, rest)
            low = sum(
                (b1 - b0) * bound
                for bound, b0, b1 in zip([0, *bounds[:-1]], [0, *counts], counts)
            )
            assert low <= part["_sum"] and (part["_count"] > 0 or part["_sum"] == 0), (family, rest)


def scrape(host):
    answer = host.admin("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = parse(answer.body.decode())
    check_histograms(families)
    return families


def value(families, family, name=None, **labels):
    """The sample with just these labels; 0 when it is not there yet."""
    return families[family][1].get((name or family, tuple(labels.items())), 0)


def requests(families, outcome, version="1", function="f"):
    return value(families, "nestlet_requests_total", function=function, version=version, outcome=outcome)


F = {"function": "f", "version": "1"}


def test_metrics_are_well_formed_with_and_without_functions(host):
    families = scrape(host)
    needed = {
        "nestlet_build_info": "gauge", "nestlet_ready": "gauge", "nestlet_requests_total": "counter",
        "nestlet_request_duration_seconds": "histogram", "nestlet_cold_start_duration_seconds": "histogram",
        "nestlet_queue_depth": "gauge", "nestlet_requests_in_flight": "gauge", "nestlet_workers": "gauge",
        "nestlet_worker_restarts_total": "counter", "process_resident_memory_bytes": "gauge",
        "process_cpu_seconds_total": "counter", "process_start_time_seconds": "gauge",
    }  # fmt: skip
    assert {name: families[name][0] for name in needed} == needed
    assert value(families, "nestlet_ready") == 1
    host.deploy_node("f", "exports.handler = async () => 1;")
    host.deploy_node("other-one_2", "exports.handler = async () => 1;", version="v1.0-x_y")
    host.invoke("f")
    families = scrape(host)
    assert families.keys() >= needed.keys()
    labels = dict(function="other-one_2", version="v1.0-x_y", outcome="success")
    assert value(families, "nestlet_requests_total", **labels) == 0


def test_each_outcome_is_counted_once_where_it_belongs(make_host):
    host = make_host({"workers": {"cancelGraceMs": 200}})
    host.deploy_node(
        "f",
        "exports.handler = async (event) => { switch (event.do) {"
        " case 'throw': throw new Error('x'); case 'exit': process.exit(1); break;"
        " case 'sleep': await new Promise(r => setTimeout(r, 60000)); } return 1; };",
        timeoutMs=300,
    )
    before = scrape(host)
    for what, times in {"ok": 5, "throw": 3, "exit": 1, "sleep": 1}.items():
        for _ in range(times):
            host.invoke("f", {"do": what})
    after = scrape(host)
    counts = {o: requests(after, o) - requests(before, o) for o in ("success", "error", "crashed", "timeout")}
    assert counts == {"success": 5, "error": 3, "crashed": 1, "timeout": 1}
    total = sum(v for (n, _), v in after["nestlet_requests_total"][1].items())
    histogram = "nestlet_request_duration_seconds"
    assert value(after, histogram, f"{histogram}_count", **F) == total == 10
    assert 0.3 <= value(after, histogram, f"{histogram}_sum", **F) < 60
    restarts = "nestlet_worker_restarts_total"
    assert value(after, restarts, **F, cause="exit") == 1
    wait_for(lambda: value(scrape(host), restarts, **F, cause="timeout") == 1, "the stuck one is killed")
    assert value(after, "nestlet_cold_starts_total", **F) == 2
    responses = "nestlet_gateway_responses_total"
    assert value(after, responses, code="2xx") == 8 and value(after, responses, code="5xx") == 2
    host.invoke("gone")
    assert value(scrape(host), responses, code="4xx") == 1


def test_gauges_follow_what_runs_and_waits(host):
    with Beacon() as beacon:
        host.deploy_node(
            "f",
            beacon.node() + "exports.handler = async () => { await meet('x'); };",
            concurrency=2,
            workers={"max": 1, "idleMs": 100},
        )
        connections = [Wire(host.gateway_socket) for _ in range(5)]
        for wire in connections:
            wire.post(invocation("f"), b"{}")
        beacon.wait(2)
        wait_for(lambda: value(scrape(host), "nestlet_queue_depth", **F) == 3, "three wait")
        families = scrape(host)
        assert value(families, "nestlet_requests_in_flight", **F) == 2
        assert value(families, "nestlet_workers", **F, state="busy") == 1
        assert value(families, "nestlet_gateway_connections") == 5
        beacon.open()
        for wire in connections:
            assert wire.response().status == 200
            wire.close()
        wait_for(lambda: value(scrape(host), "nestlet_workers", **F, state="idle") == 0, "it goes")
        families = scrape(host)
        assert value(families, "nestlet_queue_depth", **F) == 0
        assert value(families, "nestlet_requests_in_flight", **F) == 0
        wait_for(lambda: value(scrape(host), "nestlet_gateway_connections") == 0, "all are closed")


def test_counters_of_a_function_survive_a_new_version_and_go_with_the_function(host):
    host.deploy_node("f", "exports.handler = async () => 1;")
    host.invoke("f")
    host.deploy_node("f", "exports.handler = async () => 2;")
    host.invoke("f")
    families = scrape(host)
    assert requests(families, "success", "1") == requests(families, "success", "2") == 1
    host.nestctl("rm", "f")
    wait_for(lambda: not scrape(host)["nestlet_requests_total"][1], "its samples are gone")


# ---- logs ----


def log_lines(host, name, query="tail=100000"):
    body = host.admin("GET", f"/v1/functions/{name}/logs?{query}").body
    return [json.loads(line) for line in body.splitlines()]


@pytest.mark.parametrize("language", ["node", "python"])
def test_every_line_has_the_id_of_its_request_under_concurrency(host, language):
    if language == "node":
        source = (
            "const { setTimeout: sleep } = require('node:timers/promises');\n"
            "exports.handler = async (event) => { for (let i = 0; i < 10; i++) {"
            " console.log(`line ${i} of ${event.n}`); await sleep(Math.random() * 3); } };"
        )
        host.deploy_node("f", source, concurrency=16, workers={"max": 1}, logs={"bytes": 16 << 20})
    else:
        source = (
            "import random, time\ndef handler(event, context):\n    for i in range(10):\n"
            "        print(f\"line {i} of {event['n']}\")\n        time.sleep(random.random() * 0.003)\n"
        )
        host.deploy_python("f", source, concurrency=16, workers={"max": 1}, logs={"bytes": 16 << 20})

    def call(k):
        for i in range(10):
            n = f"{k}-{i}"
            assert host.invoke("f", {"n": n}, {"X-Request-Id": f"id-{n}"}).status == 200

    threads = [threading.Thread(target=call, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_for(lambda: len(log_lines(host, "f")) >= 1200, "all lines are there")
    lines = log_lines(host, "f")
    assert len(lines) == 1200
    by_request = {}
    for line in lines:
        word, _, n = line["message"].rpartition(" of ")
        assert line["requestId"] == f"id-{n}", line
        assert (line["function"], line["version"], line["stream"]) == ("f", "1", "stdout")
        by_request.setdefault(n, []).append(word)
    assert all(words == [f"line {i}" for i in range(10)] for words in by_request.values())


def test_streams_levels_and_times_are_told(host):
    host.deploy_node(
        "f",
        "exports.handler = async () => { console.info('i'); console.warn('w'); console.error('e');"
        " console.debug('d'); process.stdout.write('raw\\n'); };",
    )
    host.deploy_python(
        "p",
        "import logging, sys\nlogging.getLogger().setLevel('DEBUG')\ndef handler(event, context):\n"
        "    logging.info('i')\n    logging.warning('w')\n    logging.error('e')\n    print('raw')\n"
        "    print('err', file=sys.stderr)\n",
    )
    host.invoke("f")
    host.invoke("p")
    wait_for(lambda: len(log_lines(host, "f")) == 5 and len(log_lines(host, "p")) >= 5, "all are there")
    seen = [(line["stream"], line.get("level"), line["message"]) for line in log_lines(host, "f")]
    assert seen == [
        ("stdout", "info", "i"),
        ("stderr", "warn", "w"),
        ("stderr", "error", "e"),
        ("stdout", "debug", "d"),
        ("stdout", None, "raw"),
    ], seen
    levels = {line["message"].split()[-1]: line.get("level") for line in log_lines(host, "p")}
    assert (levels["i"], levels["w"], levels["e"]) == ("info", "warn", "error")
    time = log_lines(host, "f")[0]["time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z", time), time


def test_logs_stay_within_their_bytes_and_keep_the_newest(host):
    limit = 256 << 10
    host.deploy_node(
        "f",
        "exports.handler = async (event) => { for (let i = 0; i < 80; i++)"
        " console.log(`${event.n} ${i} ${'x'.repeat(100)}`); };",
        logs={"bytes": limit},
    )
    logs = host.root / "state" / "logs"
    for n in range(20):
        host.invoke("f", {"n": n})
        last = f'"message":"{n} 79 '
        wait_for(lambda: any(last in f.read_text() for f in logs.glob("f.log*")), "it is on disk")
        assert sum(os.path.getsize(f) for f in logs.glob("f.log*")) <= limit
    numbers = [tuple(map(int, line["message"].split()[:2])) for line in log_lines(host, "f")]
    assert numbers == sorted(numbers) and numbers[-1] == (19, 79) and len(numbers) >= 400
    assert not any(n == 0 for n, _ in numbers)
    assert len(log_lines(host, "f", "tail=7")) == 7
    assert all(os.stat(f).st_mode & 0o077 == 0 for f in logs.glob("f.log*"))


def test_logs_survive_a_restart_of_the_host_and_go_with_the_function(host):
    host.deploy_node("f", "exports.handler = async (e) => console.log('before', e.n);")
    host.invoke("f", {"n": 1})
    wait_for(lambda: log_lines(host, "f"), "it is logged")
    assert host.stop() == 0
    host.start()
    host.invoke("f", {"n": 2})
    wait_for(lambda: len(log_lines(host, "f")) == 2, "both are there")
    assert [line["message"] for line in log_lines(host, "f")] == ["before 1", "before 2"]
    host.nestctl("rm", "f")
    wait_for(lambda: not list((host.root / "state" / "logs").glob("f.log*")), "the files go")


def test_the_access_log_has_one_json_line_for_each_call(make_host):
    host = make_host({"gateway": {"accessLog": True}, "log": {"format": "json", "level": "info"}})
    host.deploy_node("f", "exports.handler = async () => 1;", routes=[{"path": "/r"}])
    host.invoke("f", {}, {"X-Request-Id": "acc-1"})
    host.request("GET", "/r?q=1", headers={"X-Request-Id": "acc-2"})
    host.invoke("gone", {}, {"X-Request-Id": "acc-3"})
    wait_for(lambda: all(f"acc-{i}" in host.log() for i in (1, 2, 3)), "the calls are logged")
    lines = [json.loads(line) for line in host.log().splitlines()]
    for i, status in ((1, 200), (2, 200), (3, 404)):
        [line] = [x for x in lines if f"acc-{i}" in json.dumps(x)]
        assert str(status) in json.dumps(line), line
