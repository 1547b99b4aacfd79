# SPDX-License-Identifier: Apache-2.0
"""nestctl, every command of it: tables, JSON, exit codes, and errors that say what to do."""

import json
import os
import pty
import re
import subprocess

import pytest

from beacon import Beacon
from host import NESTCTL, PATIENCE, wait_for
from wire import invocation

OK, REFUSED, USAGE, UNREACHABLE, FUNCTION = 0, 1, 2, 3, 4
HELLO = (
    "exports.handler = async (event, context) => { console.log('greeting', event.name);"
    " if (event.fail) throw new Error('as told'); return { hello: event.name ?? null }; };"
)


def run(*args, env=None, cwd=None, stdin=None):
    """nestctl without a socket named."""
    return subprocess.run(
        [str(NESTCTL), *args],
        env={"PATH": os.environ["PATH"], **(env or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def on_terminal(host, *args, env=None):
    """What nestctl writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(NESTCTL), *args, "--socket", str(host.admin_socket)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={"PATH": os.environ["PATH"], "TERM": "xterm", **(env or {})},
    )
    os.close(follower)
    text = b""
    try:
        while piece := os.read(leader, 65536):
            text += piece
    except OSError:
        pass  # a terminal without its other side reads so
    os.close(leader)
    assert process.wait(PATIENCE) == 0
    return text.decode()


def fails(done, code, *texts):
    """It exits so, tells why on stderr and nothing on stdout."""
    assert done.returncode == code, done
    assert done.stdout == "" and done.stderr.startswith(("nestctl: ", "Usage: ")), done
    for text in texts:
        assert text in done.stderr, done
    return done


def table(text):
    """Rows of a table, as lists of words split at two blanks or more."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()]


def code_dir(host, name, files):
    directory = host.root / name
    directory.mkdir()
    for file, text in files.items():
        (directory / file).write_text(text)
    return directory


# ---- deploy ----


def test_a_directory_without_a_spec_is_deployed_by_what_lies_in_it(host):
    for name, files, runtime in [
        ("hello", {"index.js": HELLO}, "nodejs"),
        ("my.app", {"index.mjs": "export const handler = async () => 1;"}, "nodejs"),
        ("py", {"handler.py": "def handler(event, context):\n    return 1"}, "python"),
    ]:
        done = host.nestctl("deploy", str(code_dir(host, name, files)))
        deployed = name.replace(".", "-")
        assert done.stdout.splitlines()[0] == f"deployed {deployed} version 1"
        assert f"nestctl invoke {deployed}" in done.stdout  # what to do next
        assert host.function(deployed)["spec"]["runtime"] == runtime
        assert host.nestctl("invoke", deployed).returncode == OK


def test_options_lie_over_the_spec(host):
    directory = host.write_function(
        "opt", {"app.js": "exports.other = async () => process.env;"}, runtime="nodejs", handler="x.y",
        memoryMb=64, env={"A": "spec", "B": "spec"},
    )  # fmt: skip
    host.nestctl(
        "deploy", str(directory), "--name", "named", "--handler", "app.other", "-m", "200", "-t", "1234",
        "-c", "7", "--route", "/opt/*", "-e", "A=option", "--env", "C=x=y", "--version", "blue",
    )  # fmt: skip
    function = host.function("named")
    spec = function["spec"]
    assert function["versions"][0]["version"] == "blue"
    assert (spec["handler"], spec["memoryMb"], spec["timeoutMs"], spec["concurrency"]) == (
        "app.other",
        200,
        1234,
        7,
    )
    assert spec["routes"][0]["path"] == "/opt/*"
    env = host.invoke("named").json()
    assert (env["A"], env["B"], env["C"]) == ("option", "spec", "x=y")
    assert host.request("GET", "/opt/x").status == 200


def test_a_spec_file_names_its_code_relative_to_itself(host):
    code_dir(host, "src", {"index.js": HELLO})
    spec = {"name": "there", "runtime": "nodejs", "handler": "index.handler", "code": {"path": "src"}}
    (host.root / "there.json").write_text("// comments are fine\n" + json.dumps(spec))
    host.nestctl("deploy", str(host.root / "there.json"))
    assert host.invoke("there", {"name": "A"}).json() == {"hello": "A"}
    done = run("deploy", "there.json", "-s", str(host.admin_socket), "-j", cwd=host.root)
    assert json.loads(done.stdout) == {"name": "there", "version": "1", "created": False}


def test_deploying_the_same_again_changes_nothing_and_a_change_makes_a_version(host):
    directory = code_dir(host, "same", {"index.js": HELLO})
    assert host.nestctl("deploy", str(directory)).stdout.startswith("deployed same version 1")
    os.utime(directory / "index.js", (1, 1))  # times don't count
    assert host.nestctl("deploy", str(directory)).stdout.startswith("unchanged same version 1")
    assert len(host.function("same")["versions"]) == 1
    (directory / "index.js").write_text(HELLO + "//")
    assert host.nestctl("deploy", str(directory)).stdout.startswith("deployed same version 2")
    assert host.nestctl("deploy", str(directory), "-m", "128").stdout.startswith("deployed same version 3")
    done = host.nestctl("deploy", str(directory), "-V", "3", "-m", "64", check=False)
    fails(done, REFUSED, "version '3'", "(Function.Exists)")


def test_what_can_not_be_deployed_says_why_and_what_to_do(host):
    empty = code_dir(host, "empty", {"readme.txt": ""})
    good = code_dir(host, "good", {"index.js": HELLO})
    lost = host.root / "lost.json"
    lost.write_text('{"name":"lost","runtime":"nodejs","code":{"path":"nowhere"}}')
    (host.root / "wrong.json").write_text('{"name": "wrong",\n "runtime" "nodejs"}')
    cases = [
        ([str(empty)], USAGE, ["--runtime", "index.js"]),
        ([str(host.root / "gone")], REFUSED, ["gone", "No such file"]),
        ([str(lost)], REFUSED, ["lost.json", "nowhere", "No such file"]),
        ([str(host.root / "wrong.json")], USAGE, ["wrong.json", "line 2"]),
        ([str(good), "-m", "much"], USAGE, ["--memory takes a number, not 'much'"]),
        ([str(good), "-e", "novalue"], USAGE, ["KEY=VALUE", "novalue"]),
        ([str(good), "-e", "NESTLET_X=1"], REFUSED, ["NESTLET_X", "(Request.Invalid)"]),
        ([str(good), "-r", "cobol"], REFUSED, ["cobol"]),
        ([str(good), "-n", "no/slash"], REFUSED, ["no/slash"]),
        ([str(good), "-m", "0.5"], REFUSED, ["memoryMb"]),
        ([str(good), "-i", "smtp"], REFUSED, ["interface", "smtp"]),
        ([str(good), "-R", "no-slash"], REFUSED, ["path", "no-slash"]),
    ]  # fmt: skip
    for args, code, texts in cases:
        fails(host.nestctl("deploy", *args, check=False), code, "deploy: ", *texts)
    assert host.nestctl("list", "--json").stdout.strip() == "[]"


def test_a_handler_that_is_not_there_is_told_by_the_first_call(host):
    directory = code_dir(host, "hollow", {"index.js": "exports.other = 1;"})
    host.nestctl("deploy", str(directory))
    fails(host.nestctl("invoke", "hollow", check=False), FUNCTION, "Function.InitFailed")
    text = host.nestctl("describe", "hollow").stdout
    assert "Runtime.HandlerNotFound" in text or "no export" in text or "handler" in text, text


# ---- list, describe, top, check ----


def test_list_describe_and_top_show_tables_and_the_same_as_json(host):
    assert "nestctl deploy DIR" in host.nestctl("list").stdout
    host.deploy_node("hello", HELLO)
    host.deploy_python("py", "def handler(event, context):\n    raise ValueError()")
    host.invoke("hello")
    host.invoke("py")
    heading, *rows = table(host.nestctl("list").stdout)
    assert heading[:4] == ["NAME", "VERSION", "RUNTIME", "STATE"] and heading[-1] == "COLD STARTS"
    assert rows[0] == ["hello", "1", "nodejs", "deployed", "1", "0", "0", "1", "0", "1"]
    assert rows[1] == ["py", "1", "python", "deployed", "1", "0", "0", "1", "1", "1"]
    listed = json.loads(host.nestctl("list", "--json").stdout)
    assert [f["name"] for f in listed] == ["hello", "py"] and listed[1]["failedTotal"] == 1
    text = host.nestctl("describe", "hello").stdout
    assert "WORKER" in text and '"handler":' in text
    described = json.loads(host.nestctl("describe", "hello", "--json").stdout)
    assert set(described) == {"name", "versions", "workers", "aliases", "spec"}
    [worker] = described["workers"]
    assert worker["memoryBytes"] > 1 << 20 and worker["cpuUs"] > 0 and worker["requestsTotal"] == 1
    lines = host.nestctl("top").stdout.splitlines()  # once, as this is no terminal
    assert re.match(r"nestlet \S+, ready; 2 workers, \d+ cells prepared", lines[0]), lines
    assert lines[2].split()[:2] == ["WORKER", "PID"] and len(lines) == 5
    assert len(json.loads(host.nestctl("top", "--once", "--json").stdout)) == 2
    fails(host.nestctl("top", "-i", "0", check=False), USAGE, "--interval", "'0'")
    fails(host.nestctl("describe", "gone", check=False), REFUSED, "no function 'gone'")


def test_check_shows_the_features_of_this_machine(host):
    wait_for(lambda: host.admin("GET", "/v1/features").json()["features"], "features are known")
    done = host.nestctl("check", check=False)
    rows = table(done.stdout)
    assert rows[0][0] == "FEATURE" and len(rows) > 10
    features = json.loads(host.nestctl("check", "--json", check=False).stdout)
    assert {"name", "yes", "required", "detail", "remedy"} == set(features[0])
    assert len(features) == len(rows) - 1
    weak = [f for f in features if f["required"] and not f["yes"]]
    assert done.returncode == (REFUSED if weak else OK)
    assert all(f["remedy"] for f in features if not f["yes"]), features


# ---- invoke ----


def test_invoke_takes_its_event_from_anywhere_and_prints_the_result_alone(host):
    host.deploy_node("hello", HELLO)
    (host.root / "event.json").write_text('{"name":"file"}')
    for data, name, stdin in [
        (["-d", '{"name":"arg"}'], "arg", None),
        (["--data", f"@{host.root}/event.json"], "file", None),
        (["-d", "-"], "stdin", '{"name":"stdin"}'),
        ([], None, None),
    ]:
        done = host.nestctl("invoke", "hello", *data, stdin=stdin)
        assert (json.loads(done.stdout), done.stderr) == ({"hello": name}, ""), done
    done = host.nestctl("invoke", "hello", "-d", '{"name":"L"}', "--log")
    assert json.loads(done.stdout) == {"hello": "L"} and done.stderr == "greeting L\n"
    done = host.nestctl("invoke", "hello", "--gateway", str(host.gateway_socket))
    assert done.returncode == OK
    fails(host.nestctl("invoke", "hello", "-d", "@/nowhere", check=False), REFUSED, "/nowhere")


def test_invoke_tells_by_its_exit_code_who_failed(host):
    host.deploy_node("hello", HELLO)
    host.deploy_node("dies", "exports.handler = () => process.exit(1);")
    host.deploy_node("slow", "exports.handler = () => new Promise(() => {});", timeoutMs=100)
    done = host.nestctl("invoke", "hello", "-d", '{"fail":1}', check=False)
    assert done.returncode == FUNCTION and "the function failed" in done.stderr
    assert json.loads(done.stdout)["errorMessage"] == "as told"
    fails(host.nestctl("invoke", "dies", check=False), FUNCTION, "Function.Crashed")
    fails(host.nestctl("invoke", "slow", check=False), FUNCTION, "Function.Timeout")
    fails(host.nestctl("invoke", "gone", check=False), REFUSED, "Function.NotFound")
    fails(host.nestctl("invoke", "hello", "-q", "9", check=False), REFUSED, "Function.NotFound")
    done = host.nestctl("invoke", "hello", "-d", "not json", check=False)
    assert done.returncode == FUNCTION and "Runtime.UnmarshalError" in done.stdout


def test_invoke_async_and_by_version(host):
    with Beacon() as beacon:
        host.deploy_node("hello", beacon.node() + "exports.handler = (e) => tell(e.n);")
        host.deploy_node("hello", "exports.handler = async () => 'new';")
        done = host.nestctl("invoke", "hello", "-q", "1", "--async", "-d", '{"n":"late"}')
        assert done.returncode == OK
        beacon.wait_told("late")
    assert host.nestctl("invoke", "hello").stdout == '"new"'


# ---- logs, rm, reload, drain ----


def test_logs_show_lines_with_their_request_and_follow(host):
    host.deploy_node("hello", HELLO)
    for i in range(5):
        host.invoke("hello", {"name": f"n{i}"}, {"X-Request-Id": f"r-{i}"})
    wait_for(lambda: "n4" in host.nestctl("logs", "hello").stdout, "the lines are there")
    lines = host.nestctl("logs", "hello", "--tail", "2").stdout.splitlines()
    assert len(lines) == 2 and re.match(r"\S+Z v1/\d+ r-4 greeting n4$", lines[1]), lines
    rows = [json.loads(x) for x in host.nestctl("logs", "hello", "--json").stdout.splitlines()]
    assert [r["requestId"] for r in rows] == [f"r-{i}" for i in range(5)]
    keys = {"time", "function", "version", "worker", "stream", "level", "requestId", "message"}
    assert set(rows[0]) == keys
    follower = subprocess.Popen(
        [str(NESTCTL), "logs", "-f", "hello", "-t", "1", "-s", str(host.admin_socket)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout.readline().endswith("r-4 greeting n4\n")
    for i in range(5, 8):
        host.invoke("hello", {"name": f"n{i}"}, {"X-Request-Id": f"r-{i}"})
        assert follower.stdout.readline().endswith(f"r-{i} greeting n{i}\n")
    host.nestctl("rm", "hello")  # ends it
    assert follower.stdout.read() == "" and follower.wait(PATIENCE) == 0
    follower.stdout.close()
    fails(host.nestctl("logs", "gone", check=False), REFUSED, "no function 'gone'")
    fails(host.nestctl("logs", "gone", "-t", "x", check=False), USAGE, "--tail")


def test_rm_takes_a_function_or_one_version(host):
    for n in range(3):
        host.deploy_node("hello", f"exports.handler = async () => {n};")
    assert host.nestctl("rm", "hello", "-V", "2").stdout == "removed hello version 2\n"
    assert host.invoke("hello:1").json() == 0 and host.invoke("hello:2").status == 404
    fails(host.nestctl("rm", "hello", "-V", "3", check=False), REFUSED, "is live", "(Function.Busy)")
    fails(host.nestctl("rm", "hello", "-V", "2", check=False), REFUSED, "'hello' version 2")
    assert host.invoke("hello").json() == 2
    assert host.nestctl("rm", "hello").stdout == "removed hello\n"
    fails(host.nestctl("rm", "hello", check=False), REFUSED, "no function 'hello'")
    assert host.invoke("hello").status == 404


def test_reload_takes_the_config_or_says_what_is_wrong(host):
    assert host.nestctl("reload").stdout == "reloaded\n"
    config = host.root / "nestlet.conf"
    good = config.read_text()
    config.write_text('{"gateway": {"bodyByte": 1}}')
    fails(host.nestctl("reload", check=False), REFUSED, "nestlet.conf", "bodyByte", "(Config.Invalid)")
    config.write_text(good)
    assert host.nestctl("reload").returncode == OK


def test_drain_waits_for_the_end_if_told_so(host):
    with Beacon() as beacon:
        host.deploy_node("wait", beacon.node() + "exports.handler = async () => { await meet('x'); return 1; };")
        running = host.connect()
        running.request("POST", invocation("wait"), body="{}")
        beacon.wait(1)
        host.note_pids()
        drain = subprocess.Popen(
            [str(NESTCTL), "drain", "--wait", "-s", str(host.admin_socket)], stdout=subprocess.PIPE, text=True
        )
        wait_for(lambda: not host.gateway_socket.exists(), "it drains")
        assert host.admin("GET", "/readyz").status == 503 and drain.poll() is None
        beacon.open()
        assert running.getresponse().read() == b"1"
        running.close()
        # the host's end is seen by nestctl before its parent, which is this test, reaps it
        assert host.process.wait(PATIENCE) == 0
        assert drain.communicate(timeout=PATIENCE)[0] == "drained: the host has ended\n"
        assert drain.returncode == OK


# ---- the command line ----


def test_a_host_that_is_not_there_is_exit_code_3_with_the_remedy(host):
    nowhere = str(host.root / "nowhere.sock")
    for args in (["list"], ["invoke", "x"], ["rm", "x"], ["logs", "x"], ["top"], ["drain"], ["check"], ["reload"]):
        fails(run(*args, "-s", nowhere), UNREACHABLE, nowhere, "start nestletd", "--socket")
    env = {"NESTLET_ADMIN_SOCKET": nowhere}
    fails(run("list", env=env), UNREACHABLE, nowhere)
    fails(run("list"), UNREACHABLE, "/run/nestlet/admin.sock")
    assert run("list", env={"NESTLET_ADMIN_SOCKET": str(host.admin_socket)}).returncode == OK


def test_a_wrong_command_line_is_exit_code_2_and_points_to_help(host):
    for args in (["lsit"], ["list", "--wrong"], ["list", "more"], ["invoke"], ["rm"], ["rm", "a", "b"],
                 ["invoke", "x", "-d"], ["completion", "fish"], []):  # fmt: skip
        done = run(*args, "-s", str(host.admin_socket)) if args else run()
        assert done.returncode == USAGE and done.stdout == "", (args, done)
        assert "help" in done.stderr or "only bash" in done.stderr, (args, done)
    done = run("--socket", str(host.admin_socket), "list")
    assert done.returncode == 2 and "options come behind the command" in done.stderr


def test_help_of_all_and_of_each_command(host):
    text = run("--help").stdout
    commands = re.findall(r"^  (\w+) ", text.split("Options of")[0], re.M)
    assert len(commands) == 16 and run("help").stdout == text
    for command in commands:
        done = run(command, "--help")
        assert done.returncode == OK and done.stdout.startswith(f"Usage: nestctl {command}"), done
        assert "Example: " in done.stdout and "--socket" in done.stdout
    assert re.fullmatch(r"nestctl \d+\.\d+\S*\n", run("--version").stdout)


def test_colours_are_for_terminals_alone(host):
    host.deploy_node("hello", HELLO)
    assert "\x1b[" in on_terminal(host, "list")
    assert "\x1b[" not in on_terminal(host, "list", "--no-color")
    assert "\x1b[" not in on_terminal(host, "list", env={"NO_COLOR": "1"})
    for args in (["list"], ["describe", "hello"], ["top"], ["--help"]):
        done = run(*args, *([] if "--help" in args else ["-s", str(host.admin_socket)]))
        assert "\x1b" not in done.stdout + done.stderr
    host.invoke("hello", {"name": "x"})
    assert on_terminal(host, "invoke", "hello", "-d", '{"name":"t"}').endswith('{"hello":"t"}\r\n')


def complete(host, *words):
    """What bash would offer for the last word."""
    script = (
        'source <("$NESTCTL" completion bash)\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n'
        '_nestctl\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
        "complete -p nestctl >&2\n"
    )
    bin_dir = str(NESTCTL.parent)
    env = {"NESTCTL": str(NESTCTL), "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    env["NESTLET_ADMIN_SOCKET"] = str(host.admin_socket)
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        env=env, cwd=host.root, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stderr.strip() == "complete -F _nestctl nestctl", done.stderr
    return set(done.stdout.split())


def test_completion_works_in_a_real_bash(host):
    host.deploy_node("hello", HELLO)
    host.deploy_node("help-me", HELLO, routes=[{"path": "/x"}])
    assert complete(host, "nestctl", "de") == {"deploy", "describe"}
    assert {"invoke", "completion", "--help", "--version"} <= complete(host, "nestctl", "")
    assert complete(host, "nestctl", "invoke", "--d") == {"--data"}
    assert {"--name", "--env", "--socket", "--json"} <= complete(host, "nestctl", "deploy", "--")
    assert complete(host, "nestctl", "invoke", "he") == {"hello", "help-me"}
    assert complete(host, "nestctl", "logs", "-f", "hell") == {"hello"}
    assert "functions" in complete(host, "nestctl", "deploy", "fun")
    assert complete(host, "nestctl", "completion", "") == {"bash"}


@pytest.mark.parametrize("args", [["list"], ["top"], ["describe", "hello"], ["invoke", "hello"], ["logs", "hello"]])
def test_a_reader_that_leaves_is_no_crash(host, args):
    host.deploy_node("hello", HELLO)
    host.invoke("hello")
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    process = subprocess.Popen(
        [str(NESTCTL), *args, "-s", str(host.admin_socket)], stdout=write_fd, stderr=subprocess.PIPE
    )
    os.close(write_fd)
    process.communicate(timeout=PATIENCE)
    assert process.returncode >= 0  # not by a signal
