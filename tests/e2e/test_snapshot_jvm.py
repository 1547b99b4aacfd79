# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a JVM: a dozen threads, a heap and a compiler of its own, frozen and restored."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from test_snapshot import await_snapshot, cold, restores

MANIFEST = {
    "description": "a worker in Java",
    "argv": ["/usr/bin/java", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx128m",
             "--add-opens", "java.base/java.io=ALL-UNNAMED", "-cp", "/function", "Worker"],
    "interfaces": ["event"],
    "defaultHandler": "Worker",
    "memoryMb": {"default": 512},
    "snapshots": True,
}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    directory = tmp_path_factory.mktemp("jvm")
    source = Path(__file__).with_name("jvm") / "Worker.java"
    subprocess.run(["javac", "-d", str(directory), str(source)], check=True)
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture
def jvm_host(make_host, workdir):
    """A host that has the JVM as two runtimes: its memory copied, and mapped."""
    manifests = workdir / "manifests"
    manifests.mkdir(mode=0o755)
    for memory in ("copied", "mapped"):
        text = json.dumps({"name": f"jvm-{memory}", "memory": memory, **MANIFEST})
        (manifests / f"{memory}.json").write_text(text)
    host = make_host({"snapshots": {"enabled": True}, "runtimes": {"manifestDirs": [str(manifests)]}})
    yield host
    shutil.rmtree(manifests)


@pytest.mark.parametrize("memory", ["copied", "mapped"])
def test_a_jvm_goes_on_where_it_was_frozen(jvm_host, code, memory):
    host, name = jvm_host, f"jvm-{memory}"
    host.deploy(name, code, runtime=name, handler="Worker", concurrency=1, workers={"idleMs": 100})
    await_snapshot(host, name)
    for _ in range(3):
        before = restores(host, name)
        answer = cold(host, name)
        assert restores(host, name) == before + 1
        assert (answer["served"], answer["entries"], answer["sample"]) == (1, 300000, "value 123456")
        assert abs(answer["now"] / 1000 - time.time()) < 2
