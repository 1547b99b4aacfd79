# SPDX-License-Identifier: Apache-2.0
"""Versions and the names that point to them: canaries, rollback, and a switch that drops no request."""

import json
import random
import shutil
import threading
import time

import pytest

from host import wait_for
from neighbour import assert_refused
from traffic import Traffic

VERSION = "exports.handler = async (event, context) => ({ version: context.functionVersion, n: %d });"
BROKEN = "throw new Error('no such thing');"


def deploy(host, n, name="web", source=VERSION, **spec):
    """Deploys the n-th source under version n; returns the finished nestctl."""
    directory = host.write_function(
        name,
        {"index.js": source % n if "%d" in source else source},
        runtime="nodejs",
        handler="index.handler",
        version=str(n),
        **spec,
    )
    return lambda *args, check=True: host.nestctl("deploy", str(directory), *args, check=check)


def put_alias(host, alias, body, name="web"):
    return host.admin("PUT", f"/v1/functions/{name}/aliases/{alias}", json.dumps(body))


def set_alias(host, alias, *versions, **more):
    answer = put_alias(host, alias, {"versions": list(versions), **more})
    assert answer.status == 200, answer


def part(version, weight=1, **header):
    return {"version": version, "weight": weight, **({"header": header} if header else {})}


def answered_by(host, qualifier="", headers=None, name="web"):
    answer = host.invoke(name + qualifier, None, headers)
    assert answer.status == 200, answer
    version = answer.headers["x-amz-executed-version"]
    assert answer.json()["version"] == version
    return version


def aliases(host, name="web"):
    found = host.admin("GET", f"/v1/functions/{name}/aliases").json()["aliases"]
    return {
        a["name"]: [(v["version"], v["weight"]) for v in a["versions"]] for a in found
    }


def two_versions(host, **spec):
    deploy(host, 1, **spec)()
    deploy(host, 2, **spec)("--canary", "0")
    assert aliases(host) == {"live": [("1", 1)]}


# ---- names ----


def test_an_alias_is_called_as_a_version_is(host):
    two_versions(host)
    set_alias(host, "beta", part("2"))
    assert answered_by(host) == answered_by(host, ":live") == answered_by(host, ":1") == "1"
    assert answered_by(host, ":beta") == answered_by(host, ":2") == "2"
    assert_refused(host.invoke("web:gamma"), 404, "Function.NotFound", "web", "gamma", "alias")
    host.nestctl("alias", "rm", "web", "beta")
    assert_refused(host.invoke("web:beta"), 404, "Function.NotFound", "web", "beta")


def test_weights_share_requests_out(host):
    two_versions(host)
    set_alias(host, "live", part("1", 9), part("2", 1))
    got = [answered_by(host) for _ in range(100)]
    assert 8 <= got.count("2") <= 12
    assert answered_by(host, ":1") == "1"


def test_a_canary_is_asked_for_by_a_header_and_routes_follow_it(host):
    two_versions(host, routes=[{"path": "/web"}])
    set_alias(host, "live", part("1"), part("2", 0, name="x-canary", value="yes"))
    for _ in range(10):
        assert answered_by(host) == "1"
        assert answered_by(host, headers={"X-Canary": "yes"}) == "2"
        assert answered_by(host, headers={"X-Canary": "no"}) == "1"
        routed = host.request("GET", "/web", None, {"x-canary": "yes"})
        assert routed.json()["version"] == "2"
        assert host.request("GET", "/web").json()["version"] == "1"


def test_sticky_requests_stay_with_their_version(host):
    two_versions(host)
    host.nestctl("alias", "set", "web", "live", "1=50", "2=50", "--sticky", "x-user")
    users = [f"user-{i}" for i in range(40)]
    first = {user: answered_by(host, headers={"X-User": user}) for user in users}
    assert {user: answered_by(host, headers={"X-User": user}) for user in users} == first
    assert 5 <= list(first.values()).count("2") <= 35
    set_alias(host, "live", part("1", 20), part("2", 80), sticky="x-user")
    after = {user: answered_by(host, headers={"X-User": user}) for user in users}
    assert all(after[user] == "2" for user in users if first[user] == "2")


def test_a_canary_is_deployed_made_live_and_rolled_back(host):
    deploy(host, 1)()
    told = deploy(host, 2)("--canary", "20").stdout
    assert "with 20% of the requests" in told and "alias set web live 2" in told
    assert aliases(host) == {"live": [("1", 80), ("2", 20)]}
    assert {answered_by(host) for _ in range(20)} == {"1", "2"}
    assert "version 1 of web is live" in host.nestctl("rollback", "web").stdout
    assert {answered_by(host) for _ in range(20)} == {"1"}
    host.nestctl("alias", "set", "web", "live", "2")
    assert answered_by(host) == "2"
    host.nestctl("rollback", "web")
    assert answered_by(host) == "1"
    host.nestctl("rollback", "web")  # and forth again
    assert answered_by(host) == "2"
    table = host.nestctl("alias", "list", "web").stdout.splitlines()
    assert table[1].split()[:3] == ["live", "2", "1"]
    assert "\n".join(table) in host.nestctl("describe", "web").stdout


def test_names_survive_a_kill(host):
    two_versions(host)
    set_alias(host, "beta", part("2"), sticky="x-user")
    set_alias(host, "live", part("1", 3), part("2", 1))
    before = aliases(host)
    host.kill()
    host.start()
    assert aliases(host) == before == {"beta": [("2", 1)], "live": [("1", 3), ("2", 1)]}
    assert [answered_by(host) for _ in range(40)].count("2") in range(8, 13)
    assert answered_by(host, ":beta") == "2"
    assert json.loads(host.nestctl("rollback", "web", "--json").stdout)["version"] == "1"


def test_what_a_name_stands_for_is_not_removed(host):
    two_versions(host)
    set_alias(host, "beta", part("2"))
    refused = host.admin("DELETE", "/v1/functions/web?version=2")
    assert (refused.status, refused.error_type) == (409, "Function.Busy")
    assert "alias 'beta'" in refused.json()["errorMessage"]
    host.nestctl("rm", "web")
    assert host.admin("GET", "/v1/functions/web/aliases").status == 404


@pytest.mark.parametrize(
    "alias,body,status,error,says",
    [
        ("beta", {"versions": [{"version": "9"}]}, 404, "Function.NotFound", "version '9'"),
        ("1", {"versions": [{"version": "1"}]}, 400, "Request.Invalid", "alias's name"),
        ("beta", {"versions": []}, 400, "Request.Invalid", "1 to 16"),
        ("beta", {"versions": [{"version": "1", "weight": 0}]}, 400, "Request.Invalid", "weight"),
        ("beta", {"version": "1"}, 400, "Request.Invalid", "version"),
        ("beta", [], 400, "Request.Invalid", "object"),
    ],
)
def test_a_wrong_alias_is_refused(host, alias, body, status, error, says):
    deploy(host, 1)()
    answer = put_alias(host, alias, body)
    assert (answer.status, answer.error_type) == (status, error), answer
    assert says in answer.json()["errorMessage"]
    assert aliases(host) == {"live": [("1", 1)]}


def test_other_requests_about_names_are_refused(host):
    deploy(host, 1)()
    for method, path, status in (
        ("GET", "/v1/functions/none/aliases", 404),
        ("PUT", "/v1/functions/none/aliases/live", 404),
        ("DELETE", "/v1/functions/web/aliases/none", 404),
        ("DELETE", "/v1/functions/web/aliases/live", 409),
        ("POST", "/v1/functions/web/rollback", 404),
        ("POST", "/v1/functions/web/aliases/live", 405),
        ("GET", "/v1/functions/web/aliases/live/x", 404),
        ("PUT", "/v1/functions/web?share=101", 400),
        ("PUT", "/v1/functions/web?share=x", 400),
    ):
        answer = host.admin(method, path, json.dumps({"versions": [{"version": "1"}]}))
        assert answer.status == status, (method, path, answer)
        assert answer.json()["errorMessage"]


def test_a_function_of_the_config_has_no_aliases_to_set(make_host):
    host = make_host(start=False)
    code = host.write_function("code", {"index.js": VERSION % 1})
    host.config["functions"] = [{"name": "web", "runtime": "nodejs", "code": {"path": str(code)}}]
    host.start()
    assert answered_by(host) == "1"
    assert aliases(host) == {"live": [("1", 1)]}
    assert put_alias(host, "beta", {"versions": [{"version": "1"}]}).status == 403


def test_a_canary_that_can_not_be_deployed_at_a_start_leaves_the_main_version_live(host):
    two_versions(host)
    set_alias(host, "live", part("1", 50), part("2", 50))
    host.kill()
    trees = host.root / "state" / "code" / "trees"
    [lost] = [t for t in trees.iterdir() if t.is_dir() and "n: 2 }" in (t / "index.js").read_text()]
    shutil.rmtree(lost)
    host.start()
    states = {v["version"]: v["state"] for v in host.function("web")["versions"]}
    assert states == {"1": "deployed", "2": "failed"}
    assert {answered_by(host) for _ in range(10)} == {"1"}
    deploy(host, 2)("--canary", "50")
    assert {answered_by(host) for _ in range(10)} == {"1", "2"}


# ---- switching ----


def test_a_new_version_has_workers_before_it_gets_requests(host):
    spec = {"concurrency": 1, "workers": {"max": 3}}
    deploy(host, 1, **spec)()
    with Traffic(host, "web", 500):
        wait_for(lambda: len(host.workers()) == 3, "three workers are up")
        deploy(host, 2, **spec)()
        of_two = [w for w in host.workers() if w["version"] == "2"]
        assert [w["state"] in ("idle", "busy") for w in of_two] == [True] * 3, of_two
    wait_for(lambda: {w["version"] for w in host.workers()} == {"2"}, "the old ones go")


def test_a_new_version_takes_over_from_its_snapshot(make_host):
    host = make_host({"snapshots": {"enabled": True}})
    deploy(host, 1)()
    assert answered_by(host) == "1"
    deploy(host, 2)()
    [two] = [v for v in host.function("web")["versions"] if v["version"] == "2"]
    assert two["snapshot"]["state"] == "stands", two
    rungs = {
        rung: host.metrics()[
            f'nestlet_cold_starts_by_rung_total{{function="web",version="2",rung="{rung}"}}'
        ]
        for rung in ("snapshot", "plain")
    }
    assert rungs == {"snapshot": 1, "plain": 0}
    assert answered_by(host) == "2"


def test_a_reload_switches_a_version_of_the_config_once_it_is_ready(make_host):
    host = make_host()

    def configure(n):
        code = host.write_function(f"code{n}", {"index.js": VERSION % n})
        spec = {"name": "web", "runtime": "nodejs", "code": {"path": str(code)}, "version": str(n)}
        host.config["functions"] = [spec]
        host.write_config()
        host.nestctl("reload")

    configure(1)
    wait_for(lambda: host.invoke("web").status == 200, "the function is there")
    with Traffic(host, "web", 500) as traffic:
        configure(2)
        wait_for(lambda: answered_by(host) == "2", "the new version is live")
        wait_for(lambda: {w["version"] for w in host.workers()} == {"2"}, "the old one goes")
    assert {r[2] for r in traffic.records} == {200}
    order = [r[3] for r in sorted(traffic.records, key=lambda r: r[0])]
    assert set(order) == {"1", "2"} and order[0] == "1" and order[-1] == "2"


def test_workers_min_of_a_canary_are_up_too(host):
    deploy(host, 1)()
    deploy(host, 2, workers={"min": 2})("--canary", "1")
    states = [w["state"] for w in host.workers() if w["version"] == "2"]
    assert states == ["idle", "idle"]
    host.nestctl("rollback", "web")
    wait_for(lambda: {w["version"] for w in host.workers()} == {"1"}, "its workers go")


def test_a_version_that_does_not_start_leaves_the_old_one_live(host):
    deploy(host, 1)()
    assert answered_by(host) == "1"  # it has a worker, for which one must take over
    refused = deploy(host, 2, source=BROKEN)(check=False)
    assert refused.returncode == 1
    assert "did not get ready, so the live one stays" in refused.stderr
    assert "no such thing" in refused.stderr or "function 'web'" in refused.stderr
    assert answered_by(host) == "1"
    assert [v["version"] for v in host.function("web")["versions"]] == ["1"]
    deploy(host, 2)()
    assert answered_by(host) == "2"


def test_a_switch_to_a_version_that_does_not_start_is_refused(host):
    deploy(host, 1)()
    assert answered_by(host) == "1"
    deploy(host, 2, source=BROKEN)("--canary", "0")
    refused = put_alias(host, "live", {"versions": [part("1"), part("2")]})
    assert (refused.status, refused.error_type) == (422, "Function.NotReady"), refused
    assert aliases(host) == {"live": [("1", 1)]}
    assert {answered_by(host) for _ in range(5)} == {"1"}


def test_changes_from_many_sides_at_once_break_nothing(host):
    """Deploys, names, removals of one function at the same time: each is done or refused, and the host stays whole."""
    deploy(host, 0)()
    digest = host.function("web")["spec"]["code"]["digest"]
    odd, stop = [], threading.Event()

    def change(seed):
        chance = random.Random(seed)
        while not stop.is_set():
            n = chance.randrange(6)
            spec = {"runtime": "nodejs", "version": f"v{n}", "code": {"digest": digest}}
            alias = {"versions": [{"version": f"v{n}"}, {"version": f"v{(n + 1) % 6}"}]}
            method, path, body = chance.choice(
                (
                    ("PUT", f"web?share={chance.choice((0, 30, 100))}", spec),
                    ("PUT", "web", {**spec, "workers": {"min": 2}}),
                    ("PUT", f"web/aliases/{chance.choice(('live', 'beta'))}", alias),
                    ("DELETE", "web/aliases/beta", None),
                    ("POST", "web/rollback", None),
                    ("DELETE", f"web?version=v{n}", None),
                    ("GET", "web", None),
                )
                if chance.random() < 0.98
                else (("DELETE", "web", None),)
            )
            answer = host.admin(method, f"/v1/functions/{path}", json.dumps(body) if body else None)
            if answer.status not in (200, 201, 404, 409, 422):
                odd.append((method, path, answer))

    threads = [threading.Thread(target=change, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 5
    while time.monotonic() < end and not odd:
        answer = host.invoke("web")
        # what is removed while it is called may be broken off, and no more than that
        if answer.status not in (200, 404):
            odd.append(answer)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not odd, odd[:3]
    deploy(host, 7)()
    assert answered_by(host) == "7"


def check_answers(records, deploys):
    """Every answer is right, and by a version that was live at some moment of its request."""
    live = {}  # version -> spans in which it may have been live
    for (begin, _, version), after in zip(deploys, deploys[1:] + [(0, float("inf"), "")]):
        live.setdefault(version, []).append((begin, after[1]))
    failed = [r for r in records if r[2] != 200]
    wrong = [
        r
        for r in records
        if r[2] == 200 and not any(r[1] >= a and r[0] <= b for a, b in live.get(r[3], []))
    ]
    assert not failed, (len(failed), failed[:3])
    assert not wrong, (len(wrong), wrong[:3])
    assert all(json.loads(r[4])["version"] == r[3] for r in records)


@pytest.mark.parametrize("snapshots", [False, True], ids=["plain", "snapshots"])
def test_fifty_deploys_under_load_fail_no_request_and_none_by_a_version_not_live(
    make_host, capsys, snapshots
):
    host = make_host({"snapshots": {"enabled": snapshots}})
    deploys, digests = [], []
    for n in range(2):
        deploy(host, n + 1, name=f"code{n}")()
        spec = host.function(f"code{n}")["spec"]
        digests.append(spec["code"]["digest"])

    def put(n):
        body = {"runtime": "nodejs", "handler": "index.handler", "version": f"v{n}"}
        begin = time.monotonic()
        answer = host.admin(
            "PUT", "/v1/functions/web", json.dumps({**body, "code": {"digest": digests[n % 2]}})
        )
        deploys.append((begin, time.monotonic(), f"v{n}"))
        assert answer.status == 201, answer

    put(0)
    assert answered_by(host) == "v0"
    with Traffic(host, "web", 2000) as traffic:
        for n in range(1, 51):
            put(n)
            wait_for(lambda: answered_by(host) == f"v{n}", "the new version answers", 1)
    check_answers(traffic.records, deploys)
    with capsys.disabled():
        took = [end - begin for begin, end, _ in deploys[1:]]
        print(
            f" [{len(traffic.records)} requests, {traffic.rate:.0f}/s, "
            f"deploy {sorted(took)[25] * 1000:.0f} ms]",
            end="",
        )
    assert len({r[3] for r in traffic.records}) == 51
    wait_for(lambda: {w["version"] for w in host.workers()} == {"v50"}, "old workers go")
