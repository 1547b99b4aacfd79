# SPDX-License-Identifier: Apache-2.0
"""Snapshots and the machine: which CRIU, whether it works here, and how much disk there is."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from host import NESTLETD, wait_for
from test_snapshot import await_snapshot, cold, deploy, restores, snapshot_of

PREFIX = Path("/usr/local/lib/nestlet/criu")
PROGRAMS = [Path("/usr/sbin/criu"), Path("/usr/local/sbin/criu")]
ROOTS = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"]


def real_criu():
    return PREFIX if PREFIX.exists() else next(p for p in PROGRAMS if p.exists())


@pytest.fixture
def place():
    """A directory that cells see."""
    path = Path(tempfile.mkdtemp(prefix="nestlet-e2e-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def config(place, criu):
    return {"snapshots": {"enabled": True, "criu": str(criu)}, "standby": {"memory": 0},
            "cells": {"rootPaths": [*ROOTS, str(place)]}}


def snapshots_of(host):
    """How the host stands with snapshots, once the self-test is done."""
    return wait_for(lambda: (s := host.admin("GET", "/v1/host").json()["snapshots"])["state"] != "untested" and s,
                    "the self-test")


def broken(place):
    """A CRIU that says that all is well, and is not."""
    program = place / "criu"
    program.write_text("#!/bin/sh\ncase $1 in --version) echo Version: 4.1.1 ;; check) ;; *) exit 1 ;; esac\n")
    program.chmod(0o755)
    return program


def test_a_host_tells_that_snapshots_work_here(make_host):
    host = make_host({"snapshots": {"enabled": True}})
    state = snapshots_of(host)
    assert state["state"] == "available" and "frozen and restored in" in state["detail"], state
    assert host.metrics()["nestlet_snapshots_available"] == 1
    rows = {row["name"]: row for row in host.admin("GET", "/v1/features").json()["features"]}
    assert rows["snapshots"]["yes"] and rows["snapshots"]["detail"] == state["detail"]
    assert "no snapshots" not in host.nestctl("top", "--once").stdout


def test_where_restores_do_not_work_functions_start_plainly_and_the_cause_is_told_once(make_host, place):
    host = make_host(config(place, broken(place)))
    deploy(host, "nodejs", "plain", "exports.handler = async () => 'served';")
    assert cold(host, "plain") == "served"
    state = snapshots_of(host)
    assert state["state"] == "unavailable" and "CRIU ended without an answer" in state["detail"], state
    assert snapshot_of(host, "plain")["state"] == "unavailable"
    assert "CRIU ended" in snapshot_of(host, "plain")["lastFailure"]
    for _ in range(2):
        assert cold(host, "plain") == "served"
    deploy(host, "nodejs", "later", "exports.handler = async () => 'served';")
    assert cold(host, "later") == "served" and snapshot_of(host, "later")["state"] == "unavailable"
    assert host.log().count("no snapshots on this machine") == 1
    assert host.metrics()["nestlet_snapshots_available"] == 0
    assert "no snapshots: " in host.nestctl("top", "--once").stdout
    refused = host.nestctl("snapshot", "build", "plain", check=False)
    assert refused.returncode != 0 and "has no snapshots" in refused.stderr
    assert restores(host, "plain") == 0


def test_a_check_uses_the_criu_of_the_config(workdir, place):
    file = workdir / "nestlet.conf"

    def check(criu):
        file.write_text(json.dumps({"snapshots": {"criu": str(criu)}}))
        done = subprocess.run([NESTLETD, "--check", "--json", "--config", file], capture_output=True, check=False)
        return {row["name"]: row for row in json.loads(done.stdout)}["snapshots"]

    assert check(real_criu())["yes"]
    assert "CRIU ended without an answer" in check(broken(place))["detail"]
    assert "neither a program nor a prefix" in check("/nonexistent/criu")["detail"]


def test_another_criu_makes_snapshots_of_its_own(make_host, place):
    other = place / "other"
    if real_criu().is_dir():
        shutil.copytree(real_criu(), other, symlinks=True)
    else:
        shutil.copy2(real_criu(), other)
    host = make_host(config(place, real_criu()))
    deploy(host, "nodejs", "kept", "exports.handler = async () => 'served';")
    first = await_snapshot(host, "kept")["key"]
    assert cold(host, "kept") == "served" and restores(host, "kept") == 1
    host.stop()
    host.config["snapshots"]["criu"] = str(other)
    host.start()
    assert await_snapshot(host, "kept")["key"] != first
    assert cold(host, "kept") == "served" and restores(host, "kept") == 1


def test_a_criu_that_cells_do_not_see_is_not_used(make_host, place):
    host = make_host({**config(place, broken(place)), "cells": {}})
    state = snapshots_of(host)
    assert state["state"] == "unavailable" and "below none of cells.rootPaths" in state["detail"], state
