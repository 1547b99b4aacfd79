# SPDX-License-Identifier: Apache-2.0
"""The config file: what is wrong is named with file, line and key; a reload is all or nothing."""

import json
import re
import signal
import stat
import subprocess

import pytest

from host import NESTLETD, PATIENCE, wait_for
from neighbour import Neighbour, assert_refused

# text of the file -> the line and what the message must hold
WRONG = {
    "an unknown key": ('{\n "logg": {}\n}', None, ["'logg'", "did you mean 'log'?"]),
    "an unknown key in a group": (
        '{\n "log": {\n  "levle": "info"\n }\n}',
        3,
        ["'levle'", "did you mean 'level'?"],
    ),
    "a string for a number": (
        '{\n\n "gateway": {"headerBytes": "many"}}',
        3,
        ["'gateway.headerBytes'", "must be an integer", '"many"'],
    ),
    "a fraction for an integer": (
        '{"cells":\n{"prepared": 1.5}}',
        2,
        ["'cells.prepared'", "integer", "1.5"],
    ),
    "a number for a boolean": (
        '{"gateway": {\n"accessLog": 1}}',
        2,
        ["'gateway.accessLog'", "boolean"],
    ),
    "a number for a group": ('// mine\n{"log": 5}', 2, ["'log'", "must be an object"]),
    "a group for a string": ('{"stateDir": {}}', 1, ["'stateDir'", "must be"]),
    "a number out of range": (
        '{"gateway": {"headerBytes": 1}}',
        1,
        ["'gateway.headerBytes'", "from 1024"],
    ),
    "a word that is no choice": (
        '{"log": {"level": "loud"}}',
        1,
        ["'log.level'", '"debug"', '"loud"'],
    ),
    "an address that others reach": (
        '{"gateway": {"listen": "0.0.0.0:80"}}',
        1,
        ["'gateway.listen'", "loopback"],
    ),
    "a relative path": ('{"stateDir": "here"}', 1, ["'stateDir'", "absolute path"]),
    "a mode as a number": (
        '{"admin": {"socketMode": 600}}',
        1,
        ["'admin.socketMode'", '"0660"'],
    ),
    "a key given twice": ('{"log": {}, "log": {}}', 1, ["'log'", "twice"]),
    "an array": ("[]", 1, ["must be an object"]),
    "no JSON": ("{log: 1}", 1, []),
    "half a JSON": ('{"log": {', 1, []),
    "nothing": ("", 1, []),
    "a comment without end": ("{}\n/* still", 2, ["comment"]),
    "a function with an unknown key": (
        '{"functions": [\n {"name": "x", "runtime": "nodejs", "code": {"path": "/x"},\n'
        '  "memoryMB": 3}]}',
        3,
        ["'functions[0]'", "'memoryMB'", "did you mean 'memoryMb'?"],
    ),
    "a function with a wrong type": (
        '{"functions": [{"name": "x", "runtime": "nodejs", "code": {"path": "/x"},\n'
        '  "timeoutMs": "3"}]}',
        2,
        ["'functions[0]'", "'timeoutMs'", "integer"],
    ),
    "a function without runtime": (
        '{"functions": [{"name": "x", "code": {"path": "/x"}}]}',
        1,
        ["'functions[0]'", "'runtime' is missing"],
    ),
}


def run(*args):
    return subprocess.run(
        [str(NESTLETD), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_is_exit_2_and_names_file_line_and_key(workdir, case):
    text, line, words = WRONG[case]
    path = workdir / "wrong.conf"
    path.write_text(text)
    done = run("--config", path)
    assert done.returncode == 2, done
    told = re.search(rf"{re.escape(str(path))}: line (\d+)", done.stderr)
    assert told, done.stderr
    if line:
        assert int(told[1]) == line, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, "one line says it all"


def test_a_config_that_is_not_there_and_options_that_are_none_are_exit_2(workdir):
    done = run("--config", workdir / "gone.conf")
    assert done.returncode == 2 and str(workdir / "gone.conf") in done.stderr
    done = run("--confg", workdir / "gone.conf")
    assert done.returncode == 2 and "--confg" in done.stderr and "--help" in done.stderr
    done = run("--ready-fd", "three")
    assert done.returncode == 2 and "'three'" in done.stderr


def test_the_printed_config_is_a_config_with_every_default(workdir, make_host):
    printed = run("--print-config")
    assert printed.returncode == 0
    host = make_host({}, start=False)
    own = json.loads(host.write_config().read_text())
    # what the printed file says, with this test's directories put in
    text = printed.stdout
    for key in ("instance", "stateDir", "runDir"):
        text, n = re.subn(
            rf'^(\s*)(?://\s*)?"{key}":.*?(,?)$', rf'\1"{key}": "{own[key]}"\2', text, flags=re.M
        )
        assert n == 1, key
    text = re.sub(r'^(\s*)(?://\s*)?"dir": ""', rf'\1"dir": "{own["runtimes"]["dir"]}"', text, flags=re.M)
    host.write_config = lambda: path
    path = host.root / "printed.conf"
    path.write_text(text)
    path.chmod(0o644)
    host.start()


def test_sockets_have_the_configured_permissions(make_host):
    host = make_host({"gateway": {"socketMode": "0600"}})
    assert stat.S_IMODE(host.gateway_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.admin_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE((host.root / "state").stat().st_mode) == 0o700


# ---- reload ----


def reload(host, config):
    """SIGHUP with a new config; returns whether it was taken."""
    host.config = config
    host.write_config()
    before = host.metrics()
    names = ("nestlet_config_reloads_total", "nestlet_config_reload_failures_total")
    host.signal(signal.SIGHUP)

    def done():
        now = host.metrics()
        return [now[name] - before[name] for name in names] if now[names[0]] + now[names[1]] > (
            before[names[0]] + before[names[1]]
        ) else None

    return wait_for(done, "the reload is done") == [1, 0]


def configured(host, name, answer, **spec):
    """A function for the config file, whose code lies in a directory of that answer's."""
    source = f"exports.handler = async () => {answer};"
    directory = host.write_function(f"{name}-{answer}", {"index.js": source})
    return {"name": name, "runtime": "nodejs", "code": {"path": str(directory)}, **spec}


def test_a_reload_brings_changes_and_takes_away_functions_without_losing_a_request(make_host):
    host = make_host({})
    base = dict(host.config)
    with Neighbour(host):
        assert reload(host, {**base, "functions": [configured(host, "one", "1")]})
        wait_for(lambda: host.invoke("one").body == b"1", "the function of the config is there")
        assert reload(
            host,
            {
                **base,
                "functions": [configured(host, "one", "11"), configured(host, "two", "2")],
                "gateway": {"bodyBytes": 10},
            },
        )
        wait_for(lambda: host.invoke("one").body == b"11", "the changed code is there")
        wait_for(lambda: host.invoke("two").body == b"2", "the second function is there")
        too_long = host.invoke("one", {"long": "event"})
        assert_refused(too_long, 413, "Request.TooLarge", None)
        assert reload(host, {**base, "functions": [configured(host, "two", "2")]})
        wait_for(lambda: host.invoke("one").status == 404, "the first function is gone")
        assert host.invoke("two").body == b"2"
        assert reload(host, base)
        wait_for(lambda: host.invoke("two").status == 404, "all functions of the config are gone")


@pytest.mark.parametrize(
    "change,words",
    [
        ({"gatewya": {}}, ["'gatewya'"]),
        ({"log": {"level": "loud"}}, ["'log.level'"]),
        ({"functions": [{"name": "x"}]}, ["'functions[0]'"]),
        ({"cells": {"prepared": 5}}, ["cells.prepared", "new start"]),
        ({"runDir": "/tmp/elsewhere"}, ["runDir", "new start"]),
    ],
    ids=["an unknown key", "a wrong word", "a bad function", "a pool size", "a directory"],
)
def test_a_bad_reload_changes_nothing_and_is_logged_with_its_key(make_host, change, words):
    host = make_host({})
    base = dict(host.config)
    one = configured(host, "one", "1")
    assert reload(host, {**base, "functions": [one]})
    wait_for(lambda: host.invoke("one").body == b"1", "the function of the config is there")
    with Neighbour(host):
        bad = {**base, "gateway": {"bodyBytes": 1}, "functions": [], **change}
        assert not reload(host, bad)
        for word in words:
            assert word in host.log(), host.log()
        assert host.invoke("one").body == b"1"  # neither gone nor under the new limit
        asked = host.admin("POST", "/v1/reload")
        assert (asked.status, asked.error_type) == (422, "Config.Invalid"), asked
        done = host.nestctl("reload", check=False)
        assert done.returncode != 0 and words[0].strip("'") in done.stderr, done
    assert reload(host, base)


def test_a_function_of_the_config_is_not_changed_through_the_admin_api(make_host):
    host = make_host({})
    base = dict(host.config)
    assert reload(host, {**base, "functions": [configured(host, "one", "1")]})
    wait_for(lambda: host.invoke("one").body == b"1", "the function of the config is there")
    host.write_function("one", {"index.js": "exports.handler = async () => 2;"}, runtime="nodejs")
    done = host.nestctl("deploy", str(host.root / "functions" / "one"), check=False)
    assert done.returncode != 0 and "nestlet.conf" in done.stderr, done
    refused = host.admin("DELETE", "/v1/functions/one")
    assert (refused.status, refused.error_type) == (403, "Function.OwnedByConfig"), refused
    assert reload(host, base)


def test_functions_of_a_directory_and_defaults_for_all_of_them(make_host):
    host = make_host({}, start=False)
    directory = host.root / "functions.d"
    directory.mkdir(mode=0o755)
    spec = configured(host, "one", "process.env.WHO")
    (directory / "one.json").write_text(json.dumps(spec))
    (directory / "one.json").chmod(0o644)
    (directory / "README").write_text("not a function")
    host.config["functionsDir"] = str(directory)
    host.config["functionDefaults"] = {"env": {"WHO": "default"}, "timeoutMs": 1234}
    host.config["functions"] = []
    host.start()
    assert host.invoke("one").body == b'"default"'
    assert host.function("one")["spec"]["timeoutMs"] == 1234
    (directory / "one.json").unlink()
    assert reload(host, host.config)
    wait_for(lambda: host.invoke("one").status == 404, "the function is gone with its file")


def test_one_function_that_can_not_be_deployed_does_not_keep_the_host_from_serving(make_host):
    host = make_host({}, start=False)
    host.config["functions"] = [
        {"name": "gone", "runtime": "nodejs", "code": {"path": str(host.root / "gone")}},
        configured(host, "one", "1"),
    ]
    host.start()
    assert host.invoke("one").body == b"1"
    assert host.invoke("gone").status in (404, 503)
    listed = {f["name"]: f for f in host.admin("GET", "/v1/functions").json()["functions"]}
    assert listed["gone"]["state"] == "failed" and listed["gone"]["lastFailure"], listed
    assert str(host.root / "gone") in host.log()
