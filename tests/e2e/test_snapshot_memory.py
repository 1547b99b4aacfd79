# SPDX-License-Identifier: Apache-2.0
"""Where a clone's mapped memory would differ from any other's: given back, or grown. And that both ways
of meeting it do: what is preloaded, and copied memory."""

import json
import subprocess
from pathlib import Path

import pytest

from conftest import directory
from test_snapshot import ON, await_snapshot, cold, restores

AREA = 64 * 4096
KINDS = {
    "copied": {"memory": "copied"},
    "mapped": {"memory": "mapped"},
    "bare": {"memory": "mapped", "memoryShim": False},
}


def compile_worker(program):
    source = Path(__file__).with_name("memory") / "worker.c"
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread",
                    "-o", program, source], check=True)


@pytest.fixture(scope="module")
def host(make_shared_host):
    """A host with the worker as three runtimes, and a function of each that starts from a snapshot."""
    with directory() as manifests:
        for name, keys in KINDS.items():
            (manifests / f"{name}.json").write_text(json.dumps({
                "name": name, "argv": ["/function/worker"], "interfaces": ["event"],
                "defaultHandler": "none", "memoryMb": {"default": 1024}, "snapshots": True, **keys}))
        host = make_shared_host({**ON, "runtimes": {"manifestDirs": [str(manifests)]}})
        for name in KINDS:
            function = host.write_function(name, {}, runtime=name, workers={"idleMs": 1})
            compile_worker(function / "worker")
            host.nestctl("deploy", str(function))
            await_snapshot(host, name)
        yield host


# What of a clone's memory isn't as in any other process, in bytes.
@pytest.mark.parametrize("request_, copied, mapped, bare", [
    # the hazard: without the library the snapshot's bytes come back
    ("discard", 0, 0, AREA),
    # the library sees no bare system calls: a program that relies on these needs copied memory
    ("raw", 0, AREA, AREA),
    ("free", 0, 0, 1),
    ("grow", 0, 0, None),
    # what the C library does for itself is right in any case
    ("realloc", 0, 0, 0),
    ("calloc", 0, 0, 0),
    ("threads", 0, 0, 0),
    ("preload", 0, 1, 0),
])
def test_memory_given_back_or_grown_in_a_clone(host, request_, copied, mapped, bare):
    for name, expected in (("copied", copied), ("mapped", mapped), ("bare", bare)):
        before = restores(host, name)
        wrong = cold(host, name, request_)
        assert restores(host, name) == before + 1, name
        assert wrong == expected or (expected is None and wrong > 0), (name, wrong)
