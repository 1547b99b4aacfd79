# SPDX-License-Identifier: Apache-2.0
"""
kill -9 of the agent at any moment of a run of deploys, canaries, aliases and rollbacks: what a restart finds is what was
acknowledged last, or that with the one change that was under way, whole. NESTLET_CRASHES says how many times (50).
"""

import copy
import json
import os
import random
import threading
import time

from host import wait_for

CRASHES = int(os.environ.get("NESTLET_CRASHES", "50"))
KEEP = 5
VERSION = "exports.handler = async (event, context) => ({ version: context.functionVersion });"


class Model:
    """What the registry should hold of one function."""

    def __init__(self):
        self.versions, self.live, self.before, self.beta = [], [], None, None

    def pinned(self, version):
        return version in [v for v, _ in self.live] or version in (self.beta, self.versions[-1])

    def deploy(self, version, share):
        self.versions.append(version)
        if share == 100 or not self.live:
            self.point(version)
        elif share > 0:
            self.live = [(self.live[0][0], 100 - share), (version, share)]
        for old in list(self.versions):
            if len(self.versions) > KEEP and not self.pinned(old):
                self.versions.remove(old)
                self.before = None if self.before == old else self.before

    def point(self, version):
        if self.live and self.live[0][0] != version:
            self.before = self.live[0][0]
        self.live = [(version, 1)]

    def rollback(self):
        if len(self.live) > 1:
            self.point(self.live[0][0])
        elif self.before:
            self.point(self.before)

    def seen(self):
        names = {"live": self.live, **({"beta": [(self.beta, 1)]} if self.beta else {})}
        return sorted(self.versions), names


def found(host):
    versions = host.function("web")["versions"]
    assert all(v["state"] == "deployed" for v in versions), versions
    aliases = host.admin("GET", "/v1/functions/web/aliases").json()["aliases"]
    names = {a["name"]: [(v["version"], v["weight"]) for v in a["versions"]] for a in aliases}
    return sorted(v["version"] for v in versions), names


class Changes:
    """Changes one after the other until the host is gone. `acknowledged` and `asked` are what it may hold then."""

    def __init__(self, host, model, digest, chance, number):
        self.host, self.digest, self.chance, self.number = host, digest, chance, number
        self.acknowledged, self.asked = model, model
        self.count, self.refused = 0, []
        self.thread = threading.Thread(target=self.run)

    def deploy(self, model):
        share = self.chance.choice((100, 100, 10, 0))
        self.number += 1
        model.deploy(f"v{self.number}", share)
        spec = {"runtime": "nodejs", "version": f"v{self.number}", "code": {"digest": self.digest}}
        return "PUT", f"web?share={share}", spec, (201,)

    def set_beta(self, model):
        model.beta = self.chance.choice(model.versions)
        return "PUT", "web/aliases/beta", {"versions": [{"version": model.beta}]}, (200,)

    def remove_beta(self, model):
        model.beta = None
        return "DELETE", "web/aliases/beta", None, (200, 404)

    def rollback(self, model):
        model.rollback()
        return "POST", "web/rollback", None, (200, 404)

    def run(self):
        try:
            while True:
                model = copy.deepcopy(self.acknowledged)
                change = self.chance.choice(
                    (self.deploy, self.deploy, self.set_beta, self.remove_beta, self.rollback)
                )
                method, path, body, statuses = change(model)
                self.asked = model
                answer = self.host.admin(
                    method, f"/v1/functions/{path}", json.dumps(body) if body else None
                )
                if answer.status not in statuses:
                    self.refused.append((method, path, answer))
                    return
                self.acknowledged = model
                self.count += 1
        except (OSError, ValueError):
            pass  # the host is gone; how far it came is what is looked at


def test_a_kill_at_any_moment_leaves_the_registry_as_it_was_acknowledged(make_host, capsys):
    host = make_host({"registry": {"versions": KEEP}})
    host.deploy_node("code", VERSION)
    digest = host.function("code")["spec"]["code"]["digest"]
    chance = random.Random(20251121)
    model, number, total, under_way = Model(), 0, 0, 0
    for _ in range(CRASHES):
        changes = Changes(host, model, digest, chance, number)
        if not model.versions:  # the first one is there before any kill
            method, path, body, _ = changes.deploy(model)
            assert host.admin(method, f"/v1/functions/{path}", json.dumps(body)).status == 201
        changes.thread.start()
        time.sleep(chance.uniform(0, 0.1))  # the moment of the kill is what is tried
        host.kill()
        changes.thread.join(30)
        assert not changes.refused, changes.refused
        host.start()
        got = found(host)
        assert got in (changes.acknowledged.seen(), changes.asked.seen()), (
            got,
            changes.acknowledged.seen(),
            changes.asked.seen(),
        )
        model = changes.acknowledged if got == changes.acknowledged.seen() else changes.asked
        under_way += model is changes.asked and model is not changes.acknowledged
        number, total = changes.number, total + changes.count
    answer = host.invoke("web")
    assert answer.json()["version"] in [v for v, _ in model.live]
    with capsys.disabled():
        print(f" [{CRASHES} kills, {total} changes, {under_way} found done unacknowledged]", end="")
    wait_for(lambda: host.admin("GET", "/readyz").status == 200, "it is ready")
