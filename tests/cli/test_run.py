"""Whole runs with scripted agents, from the issue to the sealed branch: the real command on real repositories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchgit.sandbox import best
from tests.support.scenario import (
    FILES,
    Book,
    World,
    bash,
    digest,
    finding,
    make,
    piece,
    review,
    simple,
    turn,
    verdict,
    write,
)

UNITTEST = "python3 -m unittest discover -s tests"
TEST_FILE = """import unittest


class Billing(unittest.TestCase):
    def test_api(self):
        with open("src/api/billing.py") as f:
            self.assertIn("billing", f.read())

    def test_page(self):
        with open("src/web/billing.html") as f:
            self.assertIn("billing", f.read())
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def ms(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp() * 1000


def working(world: World, name: str, attempt: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """agent.started and agent.exited of one attempt."""
    asked = world.one("agent.requested", assignment=name, attempt=attempt)["seq"]
    both = [ev for ev in world.events("agent.") if ev["cause"] == asked]
    return next(e for e in both if e["type"] == "agent.started"), next(e for e in both if e["type"] == "agent.exited")


def brief_of(world: World, name: str, attempt: int) -> str:
    return world.blob(working(world, name, attempt)[0]["data"]["brief"])


def trailers(world: World, commit: str) -> dict[str, str]:
    said = world.git("log", "-1", "--format=%(trailers:only,unfold)", commit)
    return dict(line.split(": ", 1) for line in said.splitlines() if line)


def sound(world: World) -> None:
    """What must hold after any run, however it went."""
    world.none_left()
    assert "pass" in world.run("audit", world.name).out
    problems = world.git("fsck", "--full", "--strict", "--no-dangling")
    assert problems == "", problems


# -- a feature, in seven assignments ---------------------------------------------------------------------


def feature() -> Book:
    """api; web after api; tests after both; docs last; two that have nothing to do with any of it."""
    book = Book(
        piece("api", "api-agent", ["src/api/**"], outputs=["src/api/billing.py"],
              checks=["grep -n billing src/api/billing.py"]),
        piece("web", "frontend-agent", ["src/web/**"], depends_on=["api"], checks=["grep -rn billing src"]),
        piece("tests", "test-agent", ["tests/**"], depends_on=["api", "web"], checks=[UNITTEST]),
        piece("docs", "docs-agent", ["docs/**"], depends_on=["tests", "left", "right"], checks=["cat docs/billing.md"]),
        piece("left", "api-agent", ["left/**"], checks=["cat left/a.txt"]),
        piece("right", "frontend-agent", ["right/**"], checks=["cat right/a.txt"]),
    )  # fmt: skip
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n"), write("src/api/routes.py", "R = ['/pay']\n")))
    book.work("web", turn(bash("grep -q billing src/api/billing.py && echo billing > src/web/billing.html")))
    book.work("tests", turn(write("tests/test_billing.py", TEST_FILE)))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n"), bash("rm docs/index.md")))
    # Two workers at work at the same time, also on a slow machine.
    book.work("left", turn(write("left/a.txt", "left\n")), turn(delay_ms=1200))
    book.work("right", turn(write("right/a.txt", "right\n")), turn(delay_ms=1200))
    return book


def make_dirty(world: World) -> None:
    """Modified, staged, untracked, ignored, stashed, and in the middle of a merge with a conflict."""
    world.commit({".gitignore": "*.log\n", "both.txt": "base\n"})
    world.git("switch", "-q", "-c", "side")
    world.commit({"both.txt": "side\n"})
    world.git("switch", "-q", "main")
    world.commit({"both.txt": "main\n"})
    world.put({"src/api/routes.py": "stashed\n"})
    world.git("stash", "-q")
    world.git("merge", "-q", "side", ok=False)
    world.put({"staged.txt": "staged\n", "README.md": "modified\n", "untracked.txt": "u\n", "debug.log": "ignored\n"})
    world.git("add", "staged.txt")
    (world.repo / "a link").symlink_to("README.md")
    assert "UU both.txt" in world.git("status", "--porcelain")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, dict[str, str], dict[str, str], str]]:
    """(world after the run, its checkout before, and after, the base)."""
    world = make(tmp_path_factory.mktemp("feature"))
    make_dirty(world)
    base = world.git("rev-parse", "HEAD")
    before = digest(world)
    world.start(feature())
    yield world, before, digest(world), base
    world.close()


Built = tuple[World, dict[str, str], dict[str, str], str]


def test_a_dirty_checkout_is_byte_for_byte_the_same_after(built: Built) -> None:
    world, before, after, _ = built
    assert after == before
    assert len(before) > 20
    status = world.git("status", "--porcelain")
    assert "UU both.txt" in status
    assert ".orchestration" not in status


def test_the_work_of_all_is_there_and_nothing_of_the_dirty_checkout(built: Built) -> None:
    world, _, _, base = built
    tree = world.tree(world.ref(f"{world.name}/integration"))
    expected = {n: c.strip() for n, c in world.tree(base).items()}
    expected |= {
        "src/api/billing.py": "billing = 1", "src/api/routes.py": "R = ['/pay']", "src/web/billing.html": "billing",
        "tests/test_billing.py": TEST_FILE.strip(), "docs/billing.md": "# Billing", "left/a.txt": "left",
        "right/a.txt": "right",
    }  # fmt: skip
    del expected["docs/index.md"]
    assert tree == expected


def test_two_workers_were_at_work_at_the_same_time(built: Built) -> None:
    world = built[0]
    (l0, l1), (r0, r1) = working(world, "left"), working(world, "right")
    assert max(l0["seq"], r0["seq"]) < min(l1["seq"], r1["seq"])
    overlap = min(ms(l1), ms(r1)) - max(ms(l0), ms(r0))
    assert overlap > 300, f"{overlap:.0f} ms together"


def test_each_starts_when_what_it_depends_on_is_merged_and_not_before(built: Built) -> None:
    world = built[0]
    started = {ev["data"]["assignment"]: ev["seq"] for ev in world.events("assignment.started")}
    merged = {ev["data"]["assignment"]: ev["seq"] for ev in world.events("merge.done", land="merge")}
    needs = {"web": ["api"], "tests": ["api", "web"], "docs": ["tests", "left", "right"]}
    for name, above in needs.items():
        assert started[name] > max(merged[a] for a in above)
    # And at once: the start is decided together with the last merge, before anything else is waited for.
    assert all(started[n] - max(merged[a] for a in above) < 6 for n, above in needs.items())
    assert started["web"] < min(working(world, "left")[1]["seq"], working(world, "right")[1]["seq"])
    assert world.one("plan.approved")["seq"] < min(started.values())


def test_one_branch_per_worker_with_one_constructed_commit(built: Built) -> None:
    world, _, _, base = built
    run = world.name
    listed = world.git("for-each-ref", "--format=%(refname)", "refs/heads/orchgit/").splitlines()
    names = ("api", "docs", "integration", "left", "right", "tests", "web")
    assert listed == [f"refs/heads/orchgit/{run}/{n}" for n in names]
    heads = {ev["data"]["assignment"]: ev["data"] for ev in world.events("gate.passed")}
    for name, passed in heads.items():
        assert world.ref(f"{run}/{name}") == passed["commit"]
        start = world.one("cell.made", assignment=name)["data"]["start"]
        assert world.git("rev-list", f"{start}..{passed['commit']}").split() == [passed["commit"]]
        assert world.git("rev-parse", f"{passed['commit']}^{{tree}}") == passed["tree"]
        worker = world.one("agent.requested", assignment=name)["data"]["member"]
        assert world.git("log", "-1", "--format=%an|%cn", passed["commit"]) == f"{worker}|orchgit"
        said = trailers(world, passed["commit"])
        assert said == {"Orchgit-Run": run, "Orchgit-Assignment": name, "Orchgit-Attempt": "1"}
    assert world.one("cell.made", assignment="api")["data"]["start"] == base


def test_a_base_holds_the_work_of_what_it_depends_on_and_nothing_else(built: Built) -> None:
    world, _, _, base = built
    starts = {ev["data"]["assignment"]: ev["data"]["start"] for ev in world.events("cell.made")}
    heads = {ev["data"]["assignment"]: ev["data"]["commit"] for ev in world.events("gate.passed")}
    assert starts["api"] == starts["left"] == starts["right"] == base
    assert starts["web"] == heads["api"]
    assert world.git("diff", "--name-only", base, starts["tests"]).split() == [
        "src/api/billing.py", "src/api/routes.py", "src/web/billing.html"
    ]  # fmt: skip
    assert world.git("log", "-1", "--format=%P", starts["tests"]).split() == [heads["api"], heads["web"]]
    assert world.git("diff", "--name-only", base, starts["docs"]).split() == [
        "left/a.txt", "right/a.txt", "src/api/billing.py", "src/api/routes.py", "src/web/billing.html",
        "tests/test_billing.py",
    ]  # fmt: skip


def test_merges_have_the_parents_and_trailers_and_attest_the_log(built: Built) -> None:
    world, _, _, base = built
    lines = world.log.read_bytes().split(b"\n")[:-1]
    tip = base
    plan = world.one("plan.approved")["data"]["digest"]
    merges = world.events("merge.done", land="merge")
    assert len(merges) == 6
    for done in merges:
        name, new = done["data"]["assignment"], done["data"]["new"]
        head = world.one("gate.passed", assignment=name)["data"]["commit"]
        assert world.git("log", "-1", "--format=%P", new).split() == [tip, head]
        said = trailers(world, new)
        assert (said["Orchgit-Run"], said["Orchgit-Assignment"]) == (world.name, name)
        assert said["Orchgit-Plan"] == f"sha256:{plan}"
        seq, _, hashed = said["Orchgit-Log"].partition("@sha256:")
        # By coreutils alone: the hash is that of the raw bytes of the line before its last key.
        assert hashlib.sha256(lines[int(seq)].rpartition(b',"hash":"')[0]).hexdigest() == hashed
        prepared = world.events("merge.prepared", assignment=name)
        assert [p["seq"] for p in prepared] == [int(seq)]
        # What was verified is what was merged: these checks, on this tree, on this tip.
        checks = world.events("checks.passed", subject=name, onto=tip)[-1]
        assert checks["data"]["tree"] == world.git("rev-parse", f"{new}^{{tree}}")
        tip = new
    seal = world.one("merge.done", land="seal")["data"]["new"]
    assert world.git("log", "-1", "--format=%P", seal) == tip
    assert world.git("rev-parse", f"{seal}^{{tree}}") == world.git("rev-parse", f"{tip}^{{tree}}")
    assert world.ref(f"{world.name}/integration") == seal
    line = world.git("rev-list", "--first-parent", f"{base}..{seal}").split()
    assert line == [seal, *[m["data"]["new"] for m in reversed(merges)]]


def test_the_whole_was_checked_again_reviewed_and_recorded_as_clean(built: Built) -> None:
    world = built[0]
    last = world.events("merge.done", land="merge")[-1]["data"]["new"]
    checks = world.one("checks.passed", subject="integration")["data"]
    assert checks["onto"] == last
    assert {r["command"] for r in checks["results"]} >= {UNITTEST, "cat docs/billing.md"}
    assert next(r["tests"] for r in checks["results"] if r["command"] == UNITTEST) == 3
    reported = world.one("review.reported")["data"]
    assert (reported["tip"], reported["findings"]) == (last, [])
    report = world.run("report").out
    assert "security-reviewer: clean, no findings" in report
    assert "no model was called" in report


def test_the_totals_are_what_git_counts(built: Built) -> None:
    world, _, _, base = built
    tip = world.ref(f"{world.name}/integration")
    rows = [line.split("\t") for line in world.git("diff", "--numstat", "--no-renames", base, tip).splitlines()]
    kinds = [line.split("\t")[0] for line in world.git("diff", "--name-status", "--no-renames", base, tip).splitlines()]
    counted = world.one("synthesis.written")["data"]["totals"]
    assert counted["lines_added"] == sum(int(r[0]) for r in rows)
    assert counted["lines_deleted"] == sum(int(r[1]) for r in rows)
    assert [counted[f"files_{k}"] for k in ("created", "changed", "deleted")] == [kinds.count(k) for k in "AMD"]
    assert (counted["assignments"], counted["attempts"], counted["tests_added"]) == (6, 6, 2)
    shown = world.run("report").out
    added, created = counted["lines_added"], counted["files_created"]
    assert f"{created} files created, 1 changed, 1 deleted; +{added} -" in shown


def test_nothing_is_left_over(built: Built) -> None:
    world = built[0]
    sound(world)
    assert world.cells_left() == []
    assert list((world.root / "tmp").iterdir()) == []
    assert not list((world.runs / world.name / "live").iterdir())
    assert list((world.root / "home").iterdir()) == [world.root / "home" / ".gitconfig"]


def test_reading_commands_after_a_run(built: Built) -> None:
    world = built[0]
    state = world.run("status", world.name, "--json").json
    assert (state["phase"], state["waiting"], state["scripted"]) == ("completed", None, True)
    assert {a["stage"] for a in state["assignments"].values()} == {"merged"}
    for command in ("replay", "report", "plan", "audit"):
        assert world.run(command, "--json").json
    story = world.run("replay").out
    assert "web: merged as" in story
    assert story.rstrip().endswith(f"the work is on orchgit/{world.name}/integration")
    early = world.run("replay", "--at", "6", "--json").json
    assert (early["phase"], early["seq"]) == ("executing", 6)
    assert len(world.run("log").out.splitlines()) == len(world.events())
    assert world.run("log", "--json").out.encode() == world.log.read_bytes()
    assert all(" merge." in line for line in world.run("log", "--type", "merge").out.splitlines())


def test_the_log_is_reached_through_the_work_tree_and_survives_git_clean(built: Built) -> None:
    world = built[0]
    link = world.repo / ".orchestration" / "runs" / world.name
    assert link.is_symlink()
    assert (link / "events.jsonl").read_bytes() == world.log.read_bytes()
    size = len(world.log.read_bytes())
    world.git("stash", "-q", "--include-untracked", ok=False)
    world.git("clean", "-q", "-fdx")
    assert len(world.log.read_bytes()) == size
    assert world.run("audit").code == 0


# -- scope -----------------------------------------------------------------------------------------------


def test_a_write_out_of_scope_is_refused_and_in_the_log(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"]))
    book.work(
        "api",
        turn(write("README.md", "mine\n")),
        turn(bash("echo mine > src/web/page.html; rm docs/index.md; touch new.txt; ls")),
        turn(bash(f"echo mine > {world.repo}/README.md; touch {world.repo}/.git/x {world.runs}/x; echo tried")),
        turn(write("src/api/billing.py", "billing = 1\n")),
    )
    before = digest(world)
    said = world.start(book).err
    seen = world.events("scope.violation_seen")
    assert [(s["data"]["layer"], s["data"]["path"]) for s in seen] == [("sandbox", "README.md")]
    assert "OUT OF SCOPE, sandbox: README.md" in said
    assert any("README.md" in r for r in working(world, "api")[1]["data"]["refused"])
    assert world.one("gate.passed")["data"]["files"] == 1
    assert digest(world) == before
    sound(world)


def test_who_reads_cannot_write(world: World) -> None:
    """Orchestrator and reviewer: no such tool, and the shell they have cannot write either."""
    tries = [
        turn(write("README.md", "mine\n")),
        turn(bash("echo mine > README.md; echo mine > src/api/x; git commit --allow-empty -m mine; echo tried")),
        turn(bash(f"echo mine > {world.repo}/README.md; echo mine > {world.repo}/new.txt; echo tried")),
    ]
    book = simple()
    book.jobs["plan/1"] = [*tries, *book.jobs["plan/1"]]
    book.default["verdict"] = [*tries, *verdict()]
    book.default["review"] = [*tries, *review()]
    before = digest(world)
    world.start(book)
    for role, purpose in (("orchestrator", "plan"), ("orchestrator", "verdict"), ("reviewer", "review")):
        begun = world.one("agent.started", role=role, purpose=purpose)
        ended = next(ev for ev in world.events("agent.exited") if ev["cause"] == begun["cause"])
        assert any(r.startswith("write:") for r in ended["data"]["refused"]), (purpose, ended["data"]["refused"])
        transcript = world.blob(ended["data"]["transcript"])
        assert transcript.count("tried") >= 2
        assert "mine" not in world.git("log", "--all", "--format=%s")
    assert digest(world) == before
    assert world.files(world.ref(f"{world.name}/integration")) == {*FILES, "src/api/billing.py"}
    sound(world)


def test_the_gate_refuses_a_sibling_that_the_sandbox_let_through(world: World) -> None:
    """A literal file in a scope makes its directory writable: the watchdog sees its sibling, the gate refuses it."""
    book = Book(piece("api", "api-agent", ["src/api/billing.py"], checks=["cat src/api/billing.py"]))
    book.work("api", turn(bash("echo 'billing = 1' > src/api/billing.py; echo x > src/api/other.py; sleep 0.7")))
    book.work("api", turn(bash("ls src/api; echo 'billing = 2' > src/api/billing.py")))
    said = world.start(book).err
    seen = world.one("scope.violation_seen")["data"]
    assert (seen["layer"], seen["path"], seen["attempt"]) == ("watchdog", "src/api/other.py", 1)
    failed = world.one("gate.failed")["data"]
    assert [v["path"] for v in failed["violations"]] == ["src/api/other.py"]
    assert "gate failed, 1 violation: src/api/other.py" in said
    assert "src/api/other.py" in brief_of(world, "api", 2)
    assert "src/api/other.py" in world.files(failed["salvage"])  # nothing is lost
    assert world.git("rev-parse", f"refs/orchgit/salvage/{world.name}/api/1") == failed["salvage"]
    ended = world.blob(working(world, "api", 2)[1]["data"]["transcript"])
    assert "other.py" not in ended.partition('"kind": "result"')[2]
    assert world.files(world.ref(f"{world.name}/integration")) == {*FILES, "src/api/billing.py"}
    assert world.one("cell.made", attempt=1)["data"]["approximate"] == ["src/api"]
    sound(world)


# -- what comes back is looked at ------------------------------------------------------------------------


def test_failing_checks_send_it_back_with_their_output(world: World) -> None:
    check = "echo looking && grep -n right src/api/billing.py"
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=[check]))
    book.work("api", turn(write("src/api/billing.py", "wrong\n")))
    book.work("api", turn(bash("grep -n wrong src/api/billing.py && echo right > src/api/billing.py")))
    world.start(book)
    failed = world.one("checks.failed")["data"]
    assert failed["results"][0]["exit_code"] == 1
    brief = brief_of(world, "api", 2)
    assert "looking" in brief
    assert "exit code 1" in brief
    # One constructed commit per gated attempt, each on the last.
    base = world.one("run.started")["data"]["base"]
    commits = world.git("rev-list", "--reverse", f"{base}..orchgit/{world.name}/api").split()
    assert commits == [ev["data"]["commit"] for ev in world.events("gate.passed")]
    assert [trailers(world, c)["Orchgit-Attempt"] for c in commits] == ["1", "2"]
    sound(world)


@pytest.mark.parametrize(("check", "why"), [("true", "no output"), ("echo 'collected 0 items'", "ran no test")])
def test_exit_code_0_alone_is_no_evidence(world: World, check: str, why: str) -> None:
    world.put({".orchestration/config.toml": "[run]\nattempts = 1\n"})
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=[check]))
    world.start(book.work("api", turn(write("src/api/a.py", "a\n"))), code=4)
    assert why in world.one("checks.failed")["data"]["results"][0]["why"]


def test_a_missing_output_sends_it_back(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], outputs=["src/api/types.py"]))
    book.work("api", turn(write("src/api/billing.py", "billing\n")))
    book.work("api", turn(write("src/api/types.py", "types\n")))
    world.start(book)
    failed = world.one("gate.failed")["data"]["violations"]
    assert [(v["path"], "not there" in v["rule"]) for v in failed] == [("src/api/types.py", True)]
    assert "src/api/types.py: the assignment requires this file" in brief_of(world, "api", 2)
    sound(world)


def test_an_attempt_that_changed_nothing_does_not_pass(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"]))
    book.work("api", turn(text="I did it, believe me."))
    book.work("api", turn(write("src/api/billing.py", "billing\n")))
    world.start(book)
    assert world.one("gate.failed")["data"]["violations"][0]["rule"] == "nothing was changed"
    sound(world)


def test_the_verdict_sends_it_back_with_reasons(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], interface="billing(team) -> int", checks=["ls src/api"]))
    book.work("api", turn(write("src/api/billing.py", "def bill(): ...\n")))
    book.work("api", turn(bash("echo 'def billing(team): return 1' > src/api/billing.py")))
    book.verdict("api", 1, "reassign", "the interface says billing(team), and bill() is there")
    world.start(book)
    given = [ev["data"]["decision"] for ev in world.events("verdict.given")]
    assert given == ["reassign", "accept"]
    assert "the interface says billing(team)" in brief_of(world, "api", 2)
    assert len(world.events("merge.done", land="merge")) == 1
    sound(world)


def test_no_report_is_not_done(world: World) -> None:
    """The playbook's turns run out: an agent that just stops has not reported."""
    book = Book(piece("api", "api-agent", ["src/api/**"]))
    book.jobs["work/api/1"] = [turn(write("src/api/half.py", "half\n"))]
    book._tries["work/api"] = 1
    book.work("api", turn(bash("test ! -e src/api/half.py && echo whole > src/api/whole.py")))
    world.start(book)
    assert world.one("agent.failed")["data"]["status"] == "no_report"
    kept = world.one("salvage.kept")["data"]["commit"]
    assert "src/api/half.py" in world.files(kept)
    assert world.files(world.ref(f"{world.name}/integration")) == {*FILES, "src/api/whole.py"}
    sound(world)


# -- blockers --------------------------------------------------------------------------------------------


def stuck() -> Book:
    """api never passes its checks in its first two tries; web depends on it; left does not."""
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["grep -n right src/api/billing.py"]),
        piece("web", "frontend-agent", ["src/web/**"], depends_on=["api"], checks=["ls src/web"]),
        piece("left", "docs-agent", ["left/**"], checks=["cat left/a.txt"]),
    )
    for word in ("wrong", "still wrong"):
        book.work("api", turn(write("src/api/billing.py", f"{word}\n")))
    book.work("api", turn(write("src/api/billing.py", "right\n")))
    book.work("web", turn(write("src/web/a.html", "web\n")))
    return book.work("left", turn(write("left/a.txt", "left\n")), turn(delay_ms=300))


@pytest.mark.parametrize("way", ["answer", "retry"])
def test_the_attempt_limit_is_a_blocker_and_a_human_goes_on(world: World, way: str) -> None:
    world.commit({".orchestration/config.toml": "[run]\nattempts = 2\n"})
    said = world.start(stuck(), code=4).err
    raised = world.one("blocker.raised")["data"]
    assert (raised["blocker"], raised["about"], raised["cause_kind"]) == ("B1", "api", "attempts")
    assert len(world.events("assignment.started", assignment="api")) == 2
    assert not world.events("assignment.started", assignment="web")
    assert world.events("merge.done", assignment="left")
    run = world.name
    assert f"run {run}: executing, stopped: a human is needed" in said
    assert "has no blocker B7" in world.run("answer", run, "B7", "write", "right", code=2).err
    assert f'orchgit answer {run} B1 "…"   or   orchgit retry {run}/api' in said
    state = world.run("status", run, "--json").json
    assert (state["waiting"], state["blockers"][0]["open"]) == ("blockers", True)
    assert world.run("status").code == 0
    assert world.run("resume", code=4).code == 4  # nothing has changed
    if way == "answer":
        done = world.run("answer", run[:9], "B1", "write", "right")
    else:
        done = world.run("retry", f"{run}/api", "--note", "write right")
    assert f"orchgit resume {run}" in done.out
    world.run("resume")
    assert "write right" in brief_of(world, "api", 3)
    assert world.files(world.ref(f"{run}/integration")) >= {"src/api/billing.py", "src/web/a.html", "left/a.txt"}
    assert len(world.events("merge.done", land="merge")) == 3
    sound(world)


def test_a_worker_raises_a_blocker(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    asks = {"tool": "report", "input": {"summary": "half", "blockers": ["which currency?"]}}
    book.work("api", turn(write("src/api/half.py", "?\n"), asks))
    book.work("api", turn(write("src/api/billing.py", "EUR\n")))
    said = world.start(book, code=4).err
    assert "which currency?" in said
    assert "src/api/half.py" in world.files(world.one("salvage.kept")["data"]["commit"])
    world.run("answer", world.name, "euros")
    world.run("resume")
    assert "euros" in brief_of(world, "api", 2)
    sound(world)


def test_a_verdict_of_blocked_stops(world: World) -> None:
    book = simple().verdict("api", 1, "blocked", "the issue contradicts itself")
    book.work("api", turn(write("src/api/billing.py", "billing = 2\n")))
    assert "the issue contradicts itself" in world.start(book, code=4).err
    world.run("answer", world.name, "B1", "take the second reading")
    world.run("resume")
    sound(world)


def test_a_playbook_that_does_not_know_a_job_stops_instead_of_guessing(world: World) -> None:
    book = simple()
    del book.default["verdict"]
    said = world.start(book, code=5).err
    assert "default/verdict" in said
    assert "playbook" in said
    sound(world)


# -- review ----------------------------------------------------------------------------------------------


def test_a_critical_finding_goes_to_its_owner_and_the_delta_is_reviewed_again(world: World) -> None:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["ls docs"]),
    )
    book.work("api", turn(write("src/api/billing.py", "eval(team)\n")))
    book.work("api", turn(bash("ls docs/b.md && echo 'int(team)' > src/api/billing.py")))
    book.work("docs", turn(write("docs/b.md", "docs\n")))
    book.review(finding("src/api/billing.py", "eval of input"), finding("docs/b.md", "a typo", "low"))
    book.review(fixed=["F1"])
    world.start(book)
    opened = world.events("finding.opened")
    assert [o["data"]["finding"]["id"] for o in opened] == ["F1", "F2"]
    fix = world.one("fix.assigned")["data"]
    assert (fix["assignment"], fix["findings"]) == ("api", ["F1"])
    assert "eval of input" in brief_of(world, "api", 2)
    first, second = (ev["data"] for ev in world.events("review.requested"))
    assert (second["since"], second["round"]) == (first["tip"], 2)
    assert second["tip"] == world.events("merge.done", assignment="api")[-1]["data"]["new"]
    # The fix starts from the tip, and only what it changed is read again.
    assert first["tip"] in world.git("rev-list", world.ref(f"{world.name}/api")).split()
    begun = next(ev for ev in world.events("agent.started", role="reviewer") if "int(team)" in world.blob(
        ev["data"]["brief"]))  # fmt: skip
    read_again = world.blob(begun["data"]["brief"])
    assert "docs/b.md b/docs/b.md" not in read_again
    assert world.one("finding.fixed")["data"]["finding"] == "F1"
    assert len(world.events("checks.passed", subject="integration")) == 2
    report = world.run("report").out
    assert "**F1** critical, fixed" in report
    assert "**F2** low, open" in report
    assert world.tree(world.ref(f"{world.name}/integration"))["src/api/billing.py"] == "int(team)"
    sound(world)


def test_a_finding_in_nobodys_scope_waits_for_a_human_who_waives_it(world: World) -> None:
    book = simple().review(finding("README.md", "a key in the README"))
    said = world.start(book, code=4).err
    run = world.name
    assert f'orchgit waive {run} F1 --why "…"   or   orchgit retry {run}/ASSIGNMENT' in said
    assert "in nobody's scope" in said
    refused = world.run("waive", run, "F1", code=2)
    assert "a waiver wants a reason" in refused.err
    assert world.run("waive", run, "F9", "--why", "because", code=1).err.startswith("orchgit: no: ")
    world.run("waive", run, "F1", "--why", "it is an example key")
    world.run("resume")
    assert world.one("finding.waived")["data"]["reason"] == "it is an example key"
    assert "**F1** critical, waived" in world.run("report").out
    sound(world)


def test_one_check_cannot_prepare_the_ground_for_the_next(world: World) -> None:
    """The first check runs what the worker wrote: that overwrites the second in the checkout, and in HOME."""
    world.commit({"lint.sh": "grep -rq FORBIDDEN src && { echo forbidden; exit 1; }; echo fine\n"})
    checks = ["python3 src/api/selftest.py", "sh lint.sh"]
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=checks))
    attack = "open('lint.sh', 'w').write('echo fine'); print('ok')\nFORBIDDEN = 1\n"
    book.work("api", turn(write("src/api/selftest.py", attack)))
    book.work("api", turn(write("src/api/selftest.py", "print('ok')\n")))
    world.start(book)
    failed = world.one("checks.failed")["data"]["results"]
    assert [(r["command"], r["passed"]) for r in failed] == [(checks[0], True), (checks[1], False)]
    sound(world)


def test_a_finding_that_got_worse_is_a_new_one(world: World) -> None:
    book = simple().review(finding("src/api/billing.py", "SQL", "low"), finding("src/api/billing.py", "other"))
    book.work("api", turn(bash("echo '# mended' >> src/api/billing.py")))
    book.review(finding("src/api/billing.py", "SQL"), fixed=["F2"])
    book.work("api", turn(bash("echo '# really' >> src/api/billing.py"))).review(fixed=["F3"])
    world.start(book)
    assert [o["data"]["finding"]["severity"] for o in world.events("finding.opened")] == ["low", "critical", "critical"]
    sound(world)


def test_more_than_a_line_can_hold_is_sent_back_to_who_said_it(world: World) -> None:
    long = [finding("src/api/billing.py", f"{number} " + "長" * 290, "low") for number in range(30)]
    for each in long:
        each["detail"] = "長" * 1000
    book = simple()
    book.jobs["review/security-reviewer/1"] = [*review(*long)[:1], *review()]
    world.start(book)
    ended = world.events("agent.exited", member="security-reviewer")[0]["data"]
    assert "say it shorter" in world.blob(ended["transcript"])
    sound(world)


def test_a_branch_deleted_by_hand_is_made_again(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(delay_ms=1500), turn(write("src/api/billing.py", "billing = 1\n")))
    child = world.spawn(*world.start_args(book, "--yes"))
    world.wait_event("agent.started", purpose="work")
    world.git("update-ref", "-d", f"refs/heads/orchgit/{world.name}/api")
    assert child.wait(60) == 0, world.said(child)
    sound(world)


def test_a_waiver_ends_the_fix_that_it_makes_needless(world: World) -> None:
    """The worker is asked to mend what is right, changes nothing, and the human says that it is right."""
    book = simple().review(finding("src/api/billing.py", "a false alarm"))
    book.work("api", turn()).work("api", turn()).work("api", turn())
    assert "nothing was changed" in world.start(book, code=4).err
    world.run("waive", world.name, "F1", "--why", "it is right")
    world.run("resume")
    assert world.one("fix.dropped")["data"]["assignment"] == "api"
    assert world.run("status", world.name, "--json").json["phase"] == "completed"
    sound(world)


def test_work_that_is_nowhere_else_is_not_cleaned_away(world: World) -> None:
    world.start(simple())
    assert "no other branch has this run's work" in world.run("clean", world.name, "--no-keep-integration", code=1).err
    world.run("clean", world.name)
    world.git("merge", "-q", "--ff-only", f"orchgit/{world.name}/integration")
    world.run("clean", world.name, "--no-keep-integration")
    # Its log is what attests the work that is on main now: that stays.
    left = world.git("for-each-ref", "--format=%(refname)").split()
    assert left == ["refs/heads/main", f"refs/orchgit/runs/{world.name}"]


def test_a_finding_in_nobodys_scope_is_given_to_an_assignment(world: World) -> None:
    book = simple().review(finding("README.md", "no word of billing")).review(fixed=["F1"])
    book.work("api", turn(bash("echo '# see README' >> src/api/billing.py")))
    world.start(book, code=4)
    world.run("retry", f"{world.name}/api", "--note", "say it in the module")
    world.run("resume")
    assert world.one("fix.assigned")["data"]["assignment"] == "api"
    assert world.one("finding.fixed")["data"]["finding"] == "F1"
    sound(world)


def test_after_the_last_round_a_human_decides(world: World) -> None:
    world.commit({".orchestration/config.toml": "[run]\nrounds = 1\n"})
    book = simple().review(finding("src/api/billing.py", "never good enough"))
    said = world.start(book, code=4).err
    assert "1 rounds of review" in said
    assert "F1 never good enough" in said
    book.work("api", turn(write("src/api/billing.py", "billing = 2\n"))).review(fixed=["F1"])
    world.playbook(book)
    world.run("answer", world.name, "B1", "one more round")
    world.run("resume")
    sound(world)


def test_waiving_what_blocks_after_the_last_round_ends_the_review(world: World) -> None:
    world.commit({".orchestration/config.toml": "[run]\nrounds = 1\n"})
    world.start(simple().review(finding("src/api/billing.py", "never good enough")), code=4)
    world.run("waive", world.name, "F1", "--why", "good enough for us")
    world.run("resume")
    assert world.run("status", world.name, "--json").json["phase"] == "completed"
    sound(world)


# -- shipping --------------------------------------------------------------------------------------------


def test_ship_onto_a_branch_that_is_not_checked_out_by_then(world: World) -> None:
    """Started in a linked worktree, whose branch is let go while the agents work."""
    linked = world.root / "linked"
    world.git("worktree", "add", "-q", "-b", "release", str(linked))
    main = world.git("rev-parse", "main")
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(delay_ms=800), turn(write("src/api/billing.py", "billing = 1\n")))
    child = world.spawn(*world.start_args(book, "--yes", "--ship", "merge"), cwd=linked)
    world.wait_event("agent.started", purpose="work")
    world.git("switch", "-q", "--detach", cwd=linked)
    # Somebody else's work goes onto the branch meanwhile: the ship is a merge onto that.
    moved = world.git("commit-tree", "-p", "release", "-m", "meanwhile", "release^{tree}")
    world.git("update-ref", "refs/heads/release", moved)
    assert child.wait(60) == 0, world.said(child)
    shipped = world.git("rev-parse", "release")
    tip = world.ref(f"{world.name}/integration")
    assert world.git("log", "-1", "--format=%P", shipped).split() == [moved, tip]
    assert world.one("merge.done", land="ship")["data"]["new"] == shipped
    assert world.events("checks.passed", subject="ship")[0]["data"]["onto"] == moved
    assert trailers(world, shipped)["Orchgit-Run"] == world.name
    assert "src/api/billing.py" in world.files("release")
    assert world.git("rev-parse", "main") == main
    assert not (linked / "src/api/billing.py").exists()
    assert "already shipped" in world.run("ship", world.name).out
    sound(world)


def test_a_branch_that_is_checked_out_is_not_shipped_to(world: World) -> None:
    before = digest(world)
    said = world.start(simple(), "--ship", "merge", code=4).err
    assert "as it is now, shipping would stop at the end: refs/heads/main is checked out" in said
    assert "merge it there yourself" in said
    assert digest(world) == before
    world.git("switch", "-q", "--detach")
    world.run("answer", world.name, "B1", "it is free now")
    world.run("resume")
    assert world.git("rev-parse", "main") == world.one("merge.done", land="ship")["data"]["new"]
    sound(world)


def test_the_files_of_a_repository_inside_the_work_are_kept(world: World) -> None:
    """To git it is a name only, and the gate refuses it: the files stay beside the log."""
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    inner = "mkdir src/api/inner; cd src/api/inner; git init -q .; echo precious >f; git add .; "
    inner += "git -c user.name=x -c user.email=x@y commit -qm inner"
    book.work("api", turn(bash(inner))).work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    world.start(book)
    assert "submodule" in world.one("gate.failed")["data"]["violations"][0]["rule"]
    kept = world.repo / ".git/orchgit/runs" / world.name / "salvage/api-1/src/api/inner/f"
    assert kept.read_text() == "precious\n"
    sound(world)


def test_what_was_merged_by_hand_is_shipped(world: World) -> None:
    world.start(simple(), "--ship", "merge", code=4)
    world.git("merge", "-q", "--ff-only", f"orchgit/{world.name}/integration")
    world.run("answer", world.name, "B1", "merged it")
    world.run("resume")
    assert world.run("status", world.name, "--json").json["phase"] == "completed"
    assert world.events("ship.observed")[-1]["data"]["merged"]
    sound(world)


def test_a_run_can_do_without_shipping(world: World) -> None:
    main = world.git("rev-parse", "main")
    world.start(simple(), "--ship", "merge", code=4)
    assert "completed" in world.run("ship", world.name, "--leave").out
    assert world.git("rev-parse", "main") == main
    sound(world)


def test_ship_afterwards(world: World) -> None:
    world.start(simple())
    run, main = world.name, world.git("rev-parse", "main")
    assert "git merge" in world.run("ship", "--dry-run", code=1).err
    refused = world.run("ship", code=1)
    assert "checked out" in refused.err
    assert "git merge" in refused.err
    # A refusal leaves the run what it was: completed.
    assert world.run("status", run, "--json").json["phase"] == "completed"
    assert world.git("rev-parse", "main") == main
    world.git("switch", "-q", "--detach")
    assert "would merge" in world.run("ship", "--dry-run").out
    assert world.git("rev-parse", "main") == main
    world.run("ship")
    assert "src/api/billing.py" in world.files("main")
    assert world.run("status", run, "--json").json["phase"] == "completed"
    sound(world)


def test_what_fails_on_the_moved_base_is_not_shipped(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["test ! -e bad.txt && echo fine"]))
    world.start(book.work("api", turn(write("src/api/billing.py", "billing = 1\n"))))
    moved = world.commit({"bad.txt": "breaks it\n"})
    world.git("switch", "-q", "--detach")
    said = world.run("ship", code=4).err
    assert "Checks fail on the base branch" in said
    assert world.git("rev-parse", "main") == moved


def test_a_detached_head_has_nowhere_to_ship_to(world: World) -> None:
    world.git("switch", "-q", "--detach")
    assert "no branch to ship to" in world.start(simple(), "--ship", "merge", code=2).err
    assert world.names() == []  # refused before anything was written
    world.start(simple())
    said = world.run("ship", code=1).err
    assert "detached" in said
    assert re.search(r"git merge orchgit/\S+/integration", said)
    assert world.run("status", world.name, "--json").json["phase"] == "completed"
    sound(world)


def test_looking_into_a_running_cell(world: World) -> None:
    """What is there now, without touching the cell; what the agent left as git configuration there is not run."""
    marker = world.root / "state" / "was-run"
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work(
        "api",
        turn(write("src/api/half.py", "half\n"), bash(f"git config core.fsmonitor 'touch {marker}; touch ran'")),
        turn(delay_ms=30_000),
    )
    engine = world.spawn(*world.start_args(book, "--yes"))

    def configured() -> bool:
        return any("fsmonitor" in p.read_text() for p in (world.root / "state").glob("orchgit/*/*/api-1/git/config"))

    world.wait_for(configured, "the agent's configuration")
    run = world.name
    before = digest(world)
    shown = world.run("diff", f"{run}/api")
    assert "+half" in shown.out
    assert world.run("diff", "api").out == shown.out
    looked = world.run("shell", f"{run[:9]}/api", "-c", "cat src/api/half.py; echo mine > src/api/mine.py; git status")
    assert looked.out.startswith("half\n")
    assert "mine.py" in looked.out
    assert "mine.py" not in world.run("diff", f"{run}/api").out
    unknown = world.run("diff", f"{run}/web", code=2).err
    assert "no assignment 'web'" in unknown
    assert digest(world) == before
    assert not marker.exists()
    assert not list((world.root / "state").glob("orchgit/*/*/api-1/*/ran"))
    world.run("abort")
    assert engine.wait(30) == 1, world.said(engine)
    sound(world)


def test_clean_removes_the_branches_and_keeps_the_log(world: World) -> None:
    world.start(simple())
    run = world.name
    world.run("clean", run)
    left = world.git("for-each-ref", "--format=%(refname)", "refs/heads/orchgit/", "refs/orchgit/").split()
    assert left == [f"refs/heads/orchgit/{run}/integration", f"refs/orchgit/runs/{run}"]
    assert world.run("log", run).out
    assert world.run("audit", run).code == 0


@pytest.mark.skipif("bwrap" not in best(False)[1].name, reason="only bubblewrap hides what lies outside")
def test_a_cell_is_hidden_from_every_other(tmp_path: Path) -> None:
    """A CLI agent has its credential there."""
    world = make(tmp_path / "w")
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["cat docs/billing.md"]),
    )
    book.work("api", turn(bash("echo sesame >$HOME/key; echo sesame >$TMPDIR/key")), turn(delay_ms=2500),
              turn(write("src/api/billing.py", "billing = 1\n")))  # fmt: skip
    peek = "sleep 1; ls ../..; cat ../../*/home/key ../../*/tmp/key; echo looked"
    book.work("docs", turn(bash(peek)), turn(write("docs/billing.md", "# Billing\n")))
    world.start(book)
    said = world.blob(world.one("agent.exited", member="docs-agent")["data"]["transcript"])
    assert "looked" in said
    assert "docs-1" in said
    assert "api-1" not in said
    assert "sesame" not in said
