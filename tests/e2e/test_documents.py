# SPDX-License-Identifier: Apache-2.0
"""The documents say what the programs do: options, commands, error types, metrics, links."""

import re
import subprocess
from pathlib import Path

import pytest

from host import NESTCTL, NESTLETD, TOP
from test_metrics_and_logs import scrape

MAN = TOP / "docs" / "man"
OPTION = re.compile(r"^ +(?:-(\w), +)?--([a-z][a-z-]*)(?: (\S+))? ", re.M)


def help_of(program, *args):
    return subprocess.run(
        [str(program), *args], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def options(text):
    """Long name -> letter of what a --help lists."""
    return {name: letter or None for letter, name, _ in OPTION.findall(text)}


def documented(text):
    """Long name -> letter of the options that a piece of a manual page has as items."""
    found = {}
    for line in re.findall(r"^\.It (.*Fl .*)$", text, re.M):
        names = [n for n in re.findall(r"Fl (\S+)", line)]
        long = [n.lstrip("-") for n in names if n.startswith("-")]
        letters = [n for n in names if not n.startswith("-")]
        assert len(long) == 1, line
        found[long[0]] = letters[0] if letters else None
    return found


def commands():
    return re.findall(r"^  (\w+) ", help_of(NESTCTL, "--help").split("Options of")[0], re.M)


def command_parts():
    """Command -> its part of nestctl.1, and the part before all of them."""
    text = (MAN / "nestctl.1").read_text()
    text = text[: text.index(".Sh ENVIRONMENT")]
    pieces = re.split(r"^\.It Ic (\w+).*$", text, flags=re.M)
    return dict(zip(pieces[1::2], pieces[2::2])), pieces[0]


def test_nestctl_s_page_has_every_command_and_no_other():
    parts, _ = command_parts()
    assert list(parts) == commands()


@pytest.mark.parametrize("command", commands())
def test_nestctl_s_page_has_every_option_with_its_letter(command):
    parts, common = command_parts()
    own, _, shared = help_of(NESTCTL, command, "--help").partition("Options of every command")
    told = documented(parts[command])
    # options with little to say stand in the running text
    for letter, name in re.findall(r"^\.?(?:.*\s)?Fl (\w) , Fl -([a-z-]+)", parts[command], re.M):
        told.setdefault(name, letter)
    assert told == options(own.partition("Options")[2])
    assert documented(common) == options(shared)


def test_nestctl_s_page_has_its_operands_and_exit_codes():
    for command in commands():
        usage = help_of(NESTCTL, command, "--help").splitlines()[0]
        head = re.search(rf"^\.It Ic {command}(.*)$", (MAN / "nestctl.1").read_text(), re.M).group(1)
        assert ("Ar" in head or "Cm" in head) == (len(usage.split()) > 4), (usage, head)
    exits = (MAN / "nestctl.1").read_text().split(".Sh EXIT STATUS")[1].split(".Sh")[0]
    in_code = re.findall(r"NEST_COMMAND_\w+ = (\d)", (TOP / "agent/nestctl/command.h").read_text())
    assert re.findall(r"^\.It (\d)$", exits, re.M) == in_code


def test_nestletd_s_page_has_every_option_and_no_other():
    text = (MAN / "nestletd.8").read_text()
    listed = text[text.index("The options are:") : text.index(".Ss Readiness")]
    assert documented(listed) == options(help_of(NESTLETD, "--help"))


def test_both_programs_tell_the_same_version():
    versions = {help_of(p, "--version").split()[1] for p in (NESTCTL, NESTLETD)}
    assert len(versions) == 1


def test_the_gateway_s_errors_are_all_documented_with_their_status():
    produced = set()
    for line in (TOP / "agent" / "refusal.c").read_text().splitlines():
        if match := re.search(r'= \{ (\d+), "([A-Z]\w+\.\w+)", "(\w+)"', line):
            produced.add((match.group(1), match.group(2)))
    text = (TOP / "docs" / "gateway-api.md").read_text()
    rows = set(re.findall(r"^\| (\d{3}) \| `([A-Z]\w+\.\w+)` \|", text, re.M))
    assert produced <= rows, produced - rows
    assert {t for _, t in rows} == {t for _, t in produced}
    # failures of the runtime below are named alike
    kinds = set(re.findall(r'"([A-Z]\w+\.[A-Z]\w+)"', (TOP / "runtime" / "failure.c").read_text()))
    kinds.remove("Function.Cancelled")  # told to nobody: its caller has left
    assert kinds <= {t for _, t in rows}, kinds


def test_the_admin_api_s_errors_are_all_documented():
    produced = set()
    for path in (TOP / "agent").glob("admin*.c"):
        text = re.sub(r"\s+", " ", path.read_text())
        produced |= set(re.findall(r'(\d{3}), "([A-Z]\w+\.[A-Z]\w+)"', text))
    rows = set()
    for status, names in re.findall(
        r"^\| (\d{3}) \| ([^|]+) \|", (TOP / "docs" / "admin-api.md").read_text(), re.M
    ):
        rows |= {(status, name.strip(" `")) for name in names.split(",")}
    assert produced <= rows, produced - rows


def test_the_runtimes_errors_are_all_documented():
    text = (TOP / "docs" / "worker-protocol.md").read_text()
    listed = set(re.findall(r"^\| ((?:Runtime|Function)\.\w+) \|", text, re.M))
    used = set()
    for kind in ("node/*.cjs", "python/**/*.py"):
        for path in (TOP / "runtime").glob(kind):
            used |= set(re.findall(r"""['"]((?:Runtime|Function)\.[A-Z]\w+)['"]""", path.read_text()))
    assert used and used <= listed, used - listed


def test_the_admin_api_s_requests_are_all_documented():
    text = re.sub(r"\s+", " ", (TOP / "agent" / "admin.c").read_text())
    served = set(re.findall(r'\{ "([A-Z]+)", "(/[^"]*)"', text))
    page = (TOP / "docs" / "admin-api.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+) (/[^`\[]*)", page, re.M)
    assert served == set(rows)


@pytest.mark.parametrize("page", sorted(p.name for p in MAN.iterdir()))
def test_manual_pages_are_well_formed(page):
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(MAN / page)], capture_output=True, text=True, check=False
    )
    problems = [x for x in done.stdout.splitlines() if "referenced manual not found" not in x]
    assert not problems, "\n".join(problems)


def test_references_between_documents_lead_somewhere():
    pages = {p.name for p in MAN.iterdir()}
    for path in MAN.iterdir():
        for name, section in re.findall(r"Xr (nest\S+) (\d)", path.read_text()):
            assert f"{name}.{section}" in pages, f"{path.name}: {name}({section})"
    for path in [*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), *TOP.glob("*/README.md")]:
        text = path.read_text()
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
        for name, section in re.findall(r"\b(nest[a-z.-]+)\((\d)\)", text):
            assert f"{name}.{section}" in pages, f"{path.name}: {name}({section})"
        anchors = {
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", text, re.M)
        }
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert anchor in anchors, f"{path.name}: #{anchor}"


def test_metrics_named_in_documents_exist(host):
    names = set(scrape(host))
    suffixed = re.compile(r"_(bucket|sum|count)$")
    for path in [TOP / "README.md", *Path(TOP / "docs").glob("*.md"), *MAN.iterdir()]:
        for name in re.findall(r"\bnestlet_[a-z_]+[a-z]\b", path.read_text()):
            if name in ("nestlet_worker",):  # a Python package
                continue
            assert suffixed.sub("", name) in names, f"{path.name}: {name}"
