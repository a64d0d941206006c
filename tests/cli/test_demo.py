"""`orchgit demo`: the real command, once, without a key and without a terminal; then what it told, line by line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from orchgit.cli import demo
from orchgit.core.errors import OrchgitError
from orchgit.sandbox import best
from tests.support.scenario import Done, Terminal, World, bare_world


def landlock() -> str:
    """Why the demo cannot be run here; "" if it can."""
    try:
        best(False)
    except OrchgitError as error:
        return f"{error.what} {error.why}"
    return ""


pytestmark = pytest.mark.skipif(bool(landlock()), reason=landlock())


class Shown(World):
    """A world after the demo: its folder is `repo`."""

    told: Done


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    world = Shown(tmp_path_factory.mktemp("demo"))
    # What a person may have configured, and what must not get in the way.
    (world.root / "home" / ".gitconfig").write_text("[commit]\n\tgpgsign = true\n[core]\n\thooksPath = /nonexistent\n")
    elsewhere = {"GIT_DIR": str(world.root / "elsewhere.git"), "ORCHGIT_BACKEND": "anthropic"}
    world.told = world.run("demo", "repo", cwd=world.root, env=elsewhere)
    yield world
    world.close()


def place(world: World, kind: str, **data: Any) -> int:
    """The seq of the one event of this type with these data."""
    seq: int = world.one(kind, **data)["seq"]
    return seq


def during(world: World, kind: str, **data: Any) -> tuple[int, int]:
    """Seq of a request and of its outcome."""
    asked = place(world, kind, **data)
    notes = ("agent.started", "agent.exited", "scope.violation_seen")
    return asked, next(ev["seq"] for ev in world.events() if ev["cause"] == asked and ev["type"] not in notes)


# -- the story -------------------------------------------------------------------------------------------------------


def test_it_is_told_in_order(shown: Shown) -> None:
    exits = [ev for ev in shown.events("agent.exited", member="orchestrator") if ev["data"]["refused"]]
    assert [ev["data"]["refused"] for ev in exits] == [["write: write is not available to your role"]]
    proposed = place(shown, "plan.proposed")
    assert exits[0]["seq"] < proposed < place(shown, "plan.approved", mode="policy")

    sent_back = shown.one("verdict.given", assignment="api", attempt=1)
    assert sent_back["data"]["decision"] == "reassign"
    assert "Invoice is missing" in sent_back["data"]["reasons"][0]
    again = place(shown, "assignment.started", assignment="api", attempt=2)
    accepted = place(shown, "verdict.given", assignment="api", attempt=2, decision="accept")
    api_merged = place(shown, "merge.done", assignment="api")
    assert sent_back["seq"] < again < accepted < api_merged

    outside = shown.one("scope.violation_seen")
    assert (outside["data"]["assignment"], outside["data"]["layer"]) == ("page", "sandbox")
    assert outside["data"]["path"] == "api/types/billing.py"
    page = place(shown, "assignment.started", assignment="page", attempt=1)
    assert api_merged < page < outside["seq"] < place(shown, "gate.passed", assignment="page", attempt=1)

    critical, low = shown.events("finding.opened")
    assert [f["data"]["finding"]["severity"] for f in (critical, low)] == ["critical", "low"]
    fix = shown.one("fix.assigned")
    assert (fix["data"]["assignment"], fix["data"]["findings"]) == ("page", ["F1"])
    merged_again = shown.events("merge.done", assignment="page")[1]["seq"]
    second = shown.one("review.reported", reviewer="security-reviewer", round=2)
    assert (second["data"]["findings"], second["data"]["fixed"]) == ([], ["F1"])
    fixed = place(shown, "finding.fixed", finding="F1")
    written = place(shown, "synthesis.written")
    assert critical["seq"] < fix["seq"] < merged_again < second["seq"] < fixed < written < place(shown, "run.completed")
    clean = shown.one("review.reported", reviewer="performance-reviewer", round=2)
    assert (clean["data"]["findings"], clean["data"]["fixed"]) == ([], [])


def test_a_finding_names_the_line_that_is_wrong(shown: Shown) -> None:
    merged = shown.events("merge.done", assignment="page")[0]["data"]["new"]
    for event, wrong in zip(shown.events("finding.opened"), ('{summary["team"]}', "def get_billing"), strict=True):
        found = event["data"]["finding"]
        text = shown.git("show", f"{merged}:{found['path']}")
        assert wrong in text.splitlines()[found["line"] - 1]


def test_two_work_at_the_same_time_and_the_others_one_after_the_other(shown: Shown) -> None:
    api, styles = (during(shown, "agent.requested", assignment=name, attempt=1) for name in ("api", "styles"))
    assert max(api[0], styles[0]) < min(api[1], styles[1])
    for before, after in (("api", "page"), ("styles", "page"), ("page", "tests"), ("api", "tests"), ("tests", "docs")):
        merged = shown.events("merge.done", assignment=before)[0]["seq"]
        assert merged < place(shown, "assignment.started", assignment=after, attempt=1)


def test_totals_are_those_of_git(shown: Shown) -> None:
    data = shown.one("synthesis.written")["data"]
    changed = shown.git("diff", "--name-status", "main", f"orchgit/{shown.name}/integration").splitlines()
    assert data["totals"]["files_created"] == sum(line.startswith("A") for line in changed)
    assert data["totals"]["files_changed"] == sum(line.startswith("M") for line in changed)
    assert (data["totals"]["assignments"], data["totals"]["attempts"]) == (5, 7)
    assert len(data["review_by_human"]) == 3


# -- what is left ----------------------------------------------------------------------------------------------------


def test_the_log_and_git_agree_and_a_changed_line_shows(shown: Shown) -> None:
    assert "violation" not in shown.run("audit").out
    before = shown.log.read_bytes()
    changed = next(n for n, line in enumerate(before.splitlines()) if b'"reassign"' in line)
    try:
        shown.log.write_bytes(before.replace(b'"reassign"', b'"accept"'))
        assert f"event {changed}: " in shown.run("audit", code=1).out
    finally:
        shown.log.write_bytes(before)
    shown.run("audit")


def test_what_was_built_works(shown: Shown) -> None:
    built = shown.root / "built"
    shown.git("clone", "--quiet", "--branch", f"orchgit/{shown.name}/integration", str(shown.repo), str(built))
    for check in (["-m", "unittest"], ["-m", "doctest", "docs/billing.md"]):
        subprocess.run(["python3", *check], cwd=built, env=shown.env, check=True, capture_output=True)
    assert "class Invoice" in (built / "api/types/billing.py").read_text()
    show = 'import api, web; print(web.render("/teams/harbour/billing", "ana")[1])'
    done = subprocess.run(["python3", "-c", show], cwd=built, env=shown.env, check=True, capture_output=True)
    assert "€27.00 a month" in done.stdout.decode()


def test_the_repository_is_one_that_works_before_too(shown: Shown) -> None:
    assert shown.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert len(shown.git("log", "--format=%s", "main").splitlines()) == len(demo.HISTORY)
    assert set(shown.git("log", "--format=%an <%ae>").splitlines()) == {"orchgit demo <demo@orchgit.invalid>"}
    subprocess.run(["python3", "-m", "unittest"], cwd=shown.repo, env=shown.env, check=True, capture_output=True)
    assert not list(shown.repo.rglob("*.tmpl"))


def test_nothing_is_left_over(shown: Shown) -> None:
    shown.none_left()
    assert shown.cells_left() == []
    assert shown.git("status", "--porcelain") == ""
    assert not (shown.root / "elsewhere.git").exists()


# -- what a person sees ----------------------------------------------------------------------------------------------


def test_it_says_what_it_is_and_what_to_try(shown: Shown) -> None:
    said = shown.told.err
    assert "SCRIPTED agents: they follow a playbook, no model is called" in said
    assert "The plan is approved by policy: there is no terminal to ask at." in said
    assert "write is not available to your role" in said
    assert "OUT OF SCOPE, sandbox: api/types/billing.py" in said
    for typed in ("cd repo", "orchgit log", "orchgit replay", "orchgit report", "orchgit audit", "sed -i.bak"):
        assert f"\n  {typed}" in said
    assert f"git log --graph --oneline orchgit/{shown.name}/integration" in said
    assert shown.one("run.started")["data"]["scripted"] is True
    for line in said[said.index("That was the demo") :].splitlines():
        assert len(line) <= 80, line


def test_at_a_terminal_it_asks(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    world.repo.mkdir()
    with Terminal(world, "demo", ".") as terminal:
        terminal.expect("say what to change: ")
        terminal.type("fewer tests")
        terminal.expect(r"\(A script cannot follow you: this is the same plan again.\)(.|\n)*say what to change: ")
        terminal.type("n")
        said = terminal.end(4)
    assert f"orchgit resume {world.name}" in said
    assert world.events("assignment.started") == []
    world.none_left()


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "hint"), [("notes.txt", False), (demo.PLAYBOOK, True)])
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, there: str, hint: bool) -> None:
    world = bare_world(tmp_path)
    world.put({there: "mine"})
    done = world.run("demo", "repo", cwd=tmp_path, code=2)
    assert "the folder repo is not empty" in done.err
    assert ("rm -rf" in done.err) is hint  # only what was made by a demo is for throwing away
    assert [str(p.relative_to(world.repo)) for p in world.repo.rglob("*") if p.is_file()] == [there]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be made" in world.run("demo", "file/demo", cwd=tmp_path, code=2).err
    assert "cannot be made" in world.run("demo", "file", cwd=tmp_path, code=2).err


def test_without_git_nothing_is_made(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    done = world.run("demo", "repo", cwd=tmp_path, code=2, env={"PATH": str(tmp_path)})
    assert "git is not installed" in done.err
    assert not world.repo.exists()


# -- the playbook ----------------------------------------------------------------------------------------------------


def test_without_a_sandbox_the_script_leaves_out_what_only_a_sandbox_stops() -> None:
    data = files("orchgit").joinpath("demo")
    whole, tame = (demo.playbook(data, sandboxed=held)["jobs"]["work/page/1"] for held in (True, False))
    assert "api/types/billing.py" in json.dumps([c for t in whole for c in t["calls"] if c["tool"] == "edit"])
    assert [c for t in tame for c in t["calls"] if c["tool"] == "edit"] == []
    assert len(tame) == len(whole) - 1
