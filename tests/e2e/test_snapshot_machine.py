# SPDX-License-Identifier: Apache-2.0
"""Snapshots and the machine: which CRIU, whether it works here, and how much disk there is."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from host import NESTLETD, descendants, wait_for
from test_snapshot import LAYERED, await_snapshot, cold, deploy, restores, snapshot_of

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
    refused = host.nestctl("snapshot", "build-runtimes", check=False)
    assert refused.returncode != 0 and "unavailable" in refused.stdout and "nodejs" in refused.stderr
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


def hindered(place, hindrance):
    """A CRIU that works unless the line of shell before it ends it. (-p: the shell stays root.)"""
    real = str(real_criu())
    if real_criu().is_dir():
        loader = next(real_criu().glob("usr/lib/*/ld-linux-*"))
        real = f"{loader} --argv0 criu --library-path {loader.parent} {real}/usr/sbin/criu"
    program = place / "criu"
    program.write_text(f"#!/bin/sh -p\n{hindrance}\nexec {real} \"$@\"\n")
    program.chmod(0o755)
    return program


def test_a_clone_counts_for_more_than_a_test_that_fails(make_host, place):
    its_ground, word = "/run/images", place / "fail"
    wait = f"if [ -d {its_ground} ]; then while [ ! -e {word} ]; do sleep 0.05; done; exit 1; fi"
    host = make_host(config(place, hindered(place, wait)))
    deploy(host, "nodejs", "works", "exports.handler = async () => 'served';")
    await_snapshot(host, "works")
    assert cold(host, "works") == "served" and restores(host, "works") == 1
    assert host.admin("GET", "/v1/host").json()["snapshots"]["state"] == "untested"
    word.touch()
    state = snapshots_of(host)
    assert state["state"] == "available" and "CRIU ended without an answer" in state["detail"], state
    assert "the test of snapshots failed, but clones work" in host.log()
    assert cold(host, "works") == "served" and restores(host, "works") == 2


def test_a_restore_that_takes_longer_than_its_limit_costs_no_request(make_host, place):
    settings = config(place, hindered(place, f"[ -e {place}/asleep ] && exec sleep 1000"))
    settings["cells"]["prepared"] = 1
    host = make_host(settings)
    deploy(host, "nodejs", "late", "exports.handler = async () => 'served';")
    await_snapshot(host, "late")
    assert snapshots_of(host)["state"] == "available"
    assert cold(host, "late") == "served" and restores(host, "late") == 1
    (place / "asleep").touch()
    timeouts = 'nestlet_snapshot_failures_total{function="late",version="1",cause="timeout"}'
    for _ in range(20):  # the first may find a cell that was prepared before
        assert cold(host, "late") == "served"
        if host.metrics()[timeouts] == 2:
            break
    state = snapshot_of(host, "late")
    assert host.metrics()[timeouts] == 2 and state["state"] == "paused", state
    assert "2000 ms" in state["lastFailure"], state
    (place / "asleep").unlink()
    assert cold(host, "late") == "served"  # in the cell that was prepared with one that sleeps
    host.nestctl("snapshot", "build", "late")
    await_snapshot(host, "late")
    before = restores(host, "late")
    wait_for(lambda: cold(host, "late") == "served" and restores(host, "late") > before, "a clone again")


def test_a_criu_that_cells_do_not_see_is_not_used(make_host, place):
    host = make_host({**config(place, broken(place)), "cells": {}})
    state = snapshots_of(host)
    assert state["state"] == "unavailable" and "below none of cells.rootPaths" in state["detail"], state


def test_spoiled_findings_about_the_kernel_are_found_out_anew(make_host):
    host = make_host({"snapshots": {"enabled": True}, "standby": {"memory": 0}})
    deploy(host, "nodejs", "first", "exports.handler = async () => 'served';")
    await_snapshot(host, "first")
    assert cold(host, "first") == "served"

    def findings():
        """CRIU's file, as a prepared cell sees it: all cells share it."""
        for pid in descendants(host.pid):
            try:
                if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return Path(f"/proc/{pid}/root/run/criu.kdat")
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has ended
        return None

    path = wait_for(findings, "a prepared cell")
    size = path.stat().st_size
    path.write_bytes(b"spoiled")
    for _ in range(4):  # two cells were prepared before
        assert cold(host, "first") == "served"
    assert restores(host, "first") == 5
    assert wait_for(findings, "a prepared cell").stat().st_size == size
    deploy(host, "python", "second", "def handler(event, context):\n    return 'served'\n")
    await_snapshot(host, "second")
    assert cold(host, "second") == "served" and restores(host, "second") == 1


# ---- stand-ins for libraries that CRIU never calls ----

SOURCES = Path(__file__).parents[2] / "sandbox" / "criu_standins"
STANDINS = "usr/lib/nestlet"
STOOD_IN = ["libgnutls", "libnet", "libnftables"]


def of_prefix(test):
    """A test of what there is only where CRIU is in a prefix: none otherwise."""
    return test if PREFIX.exists() else None


def restorers(host):
    """Which files of which library each one has mapped, by the library's name."""
    found = []
    for pid in descendants(host.pid):
        try:
            if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                found.append({Path(line.split()[-1]).name.split(".so")[0]: line.split()[-1]
                              for line in lines if ".so" in line})
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    return [libraries for libraries in found if "libc" in libraries]  # it has started


def prefix_with(place, standins):
    """A prefix whose stand-ins are what that makes of its directory for them."""
    prefix = place / "prefix"
    shutil.copytree(PREFIX, prefix, symlinks=True)
    standins(prefix / STANDINS)
    return prefix


def assert_all_libraries_are_used(host):
    deploy(host, "nodejs", "clone", "exports.handler = async () => 'served';")
    await_snapshot(host, "clone")
    for i in range(3):
        assert cold(host, "clone") == "served" and restores(host, "clone") == i + 1
        libraries = wait_for(lambda: restorers(host), "a prepared cell")[0]
        assert "libnettle" in libraries and STANDINS not in libraries["libgnutls"], libraries


@of_prefix
def test_a_restorer_has_no_library_that_it_never_calls(make_host):
    host = make_host({"snapshots": {"enabled": True}, "standby": {"memory": 0}})
    deploy(host, "nodejs", "first", "exports.handler = async () => 'served';")
    await_snapshot(host, "first")

    def prepared_anew():
        assert cold(host, "first") == "served"
        return [libraries for libraries in restorers(host) if "libnettle" not in libraries]

    libraries = wait_for(prepared_anew, "a cell prepared with stand-ins (tools/install-deps compiles them)")[0]
    for name in STOOD_IN:
        assert libraries[name].startswith(f"{PREFIX}/{STANDINS}/"), libraries
    assert not {"libnettle", "libgmp", "libp11-kit", "libmnl", "libnftnl"} & set(libraries), libraries
    deploy(host, "python", "second", "def handler(event, context):\n    return 'served'\n")
    await_snapshot(host, "second")
    assert cold(host, "second") == "served" and restores(host, "second") == 1
    assert "restores take longer" not in host.log()


def of_nobody(directory):
    for path in [directory, *directory.iterdir()]:
        os.chown(path, 65534, 65534)


def one_for_all_to_write(directory):
    (directory / "libnet.so.1").chmod(0o666)


@of_prefix
@pytest.mark.parametrize("standins", [shutil.rmtree, of_nobody, one_for_all_to_write])
def test_without_stand_ins_of_root_criu_has_all_its_libraries(make_host, place, standins):
    host = make_host(config(place, prefix_with(place, standins)))
    assert_all_libraries_are_used(host)
    assert "restores take longer" not in host.log()


def no_library(directory):
    (directory / "libnftables.so.1").write_bytes(b"no library")


def another_library(directory):
    shutil.copy2(directory / "libnet.so.1", directory / "libnftables.so.1")


def one_that_refuses_too_much(directory):
    source = (SOURCES / "libnftables.c").read_text()
    assert source.count("return (struct nft_ctx *)&none;") == 1
    subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-o", directory / "libnftables.so.1", "-x", "c", "-",
                    f"-Wl,-soname,libnftables.so.1,--version-script={SOURCES}/libnftables.map"], check=True,
                   input=source.replace("return (struct nft_ctx *)&none;", "return 0;").encode())


@of_prefix
@pytest.mark.parametrize("standins", [no_library, another_library, one_that_refuses_too_much])
def test_stand_ins_that_do_not_serve_are_told_of_once_and_left_out(make_host, place, standins):
    host = make_host(config(place, prefix_with(place, standins)))
    assert_all_libraries_are_used(host)
    assert host.log().count("restores take longer: CRIU does not work with the libraries in") == 1


@pytest.fixture
def small_disk(workdir):
    """A host's root whose snapshots lie on a file system of 64 MB."""
    disk = workdir / "host" / "state" / "snapshots"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk, left):
    """Leaves so many bytes on it."""
    status = os.statvfs(disk)
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, status.f_bavail * status.f_frsize - left)


@pytest.mark.parametrize("left", [0, 200_000, 4_000_000])
@pytest.mark.parametrize("runtime, source", [
    ("nodejs", "exports.handler = async () => 'served';"),
    ("python", "def handler(event, context):\n    return 'served'\n"),
], ids=["node", "python"])
def test_a_disk_that_fills_up_while_dumping_costs_no_request(small_disk, make_host, left, runtime, source):
    host = make_host({"snapshots": {"enabled": True}, "standby": {"memory": 0}})
    (small_disk / "ballast").touch()
    fill(small_disk, left)
    deploy(host, runtime, "big", source)
    state = wait_for(lambda: (s := snapshot_of(host, "big"))["state"] == "paused" and s, "the refusal")
    assert "is full" in state["lastFailure"] or "No space left" in state["lastFailure"], state
    assert cold(host, "big") == "served"
    wait_for(lambda: [p.name for p in small_disk.iterdir()] == ["ballast"], "the half-made one is swept")
    (small_disk / "ballast").unlink()
    host.nestctl("snapshot", "build", "big")
    await_snapshot(host, "big")
    assert cold(host, "big") == "served" and restores(host, "big") == 1


def kept(host):
    """key -> bytes on the disk of what the store keeps."""
    return {d.name: sum(f.stat().st_blocks * 512 for f in d.iterdir() if f.name != "contents")
            for d in (host.root / "state" / "snapshots").iterdir() if len(d.name) == 64}


def test_the_longest_unused_snapshot_goes_first_when_the_store_is_full(make_host):
    def deployed(host, name):
        deploy(host, "python", name, f"def handler(event, context):\n    return '{name}'\n")
        return await_snapshot(host, name)["key"]

    roomy = make_host(LAYERED, name="roomy")
    keys = [deployed(roomy, name) for name in ("one", "two", "three")]
    sizes = kept(roomy)
    limit = sum(sizes.values()) - min(sizes[key] for key in keys) // 2  # room for two of them
    host = make_host({**LAYERED, "snapshots": {**LAYERED["snapshots"], "bytes": limit}})
    one, two = deployed(host, "one"), deployed(host, "two")
    assert cold(host, "one") == "one" and restores(host, "one") == 1
    three = deployed(host, "three")
    assert {one, three} <= set(kept(host)) and two not in kept(host)
    assert sum(kept(host).values()) <= limit
    for name in ("one", "two", "three"):
        assert cold(host, name) == name
    assert [restores(host, name) for name in ("one", "two", "three")] == [2, 0, 1]
    assert snapshot_of(host, "two")["state"] == "paused"
