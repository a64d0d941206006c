"""orchgit builds a feature of its own, in a clone of its own repository, over the real SDK and a real HTTP server.

What no smaller test shows: the whole chain with the backend that people will use. One run is made undisturbed and
looked at from all sides; a second one loses its engine twice and must come to the same tree. Whoever changes the words
of a brief sees here what a model gets: the server keeps every request.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchgit.agents import Usage, prices
from orchgit.agents.anthropic_api import DEFAULT_MODEL
from orchgit.core import events as e
from orchgit.eventlog import Store
from orchgit.sandbox import best
from tests.support.messages_server import MessagesServer, job_key
from tests.support.own_repository import INTERFACE, ISSUE, playbook

ROOT = Path(__file__).parents[2]
DENIED = re.compile("Permission denied|Read-only file system")  # by Landlock, by a mount
KEY = "sk-ant-dummy-0123456789-never-to-be-seen"
ORCHGIT = Path(sys.executable).with_name("orchgit")  # not `-m`: in the clone, that would be the clone's own orchgit
PATIENCE_S = 90
WORKERS = ("work/drawing/1", "work/command/1")


class Server(MessagesServer):
    """Holds replies back, so that what happens at the same time does so on any machine."""

    def __init__(self, book: dict[str, Any]) -> None:
        super().__init__(book, key=KEY)
        self.asked: list[tuple[str, int]] = []  # (job, turn), in order
        self.held: dict[tuple[str, int], threading.Event] = {}
        self.arrived = threading.Condition()

    def keep(self, body: dict[str, Any]) -> None:
        super().keep(body)
        what = job_key(body), sum(m["role"] == "assistant" for m in body["messages"])
        with self.arrived:
            self.asked.append(what)
            self.arrived.notify_all()
        if what in self.held:
            self.held[what].wait(PATIENCE_S)

    def hold(self, *what: tuple[str, int]) -> None:
        self.held.update({each: threading.Event() for each in what})

    def wait_for(self, engine: subprocess.Popen[str], *what: tuple[str, int]) -> None:
        end = time.monotonic() + PATIENCE_S
        with self.arrived:
            while not set(what) <= set(self.asked):
                assert engine.poll() is None, f"the engine has ended; {what}: {self.asked}"
                assert time.monotonic() < end, f"{what}: {self.asked}"
                self.arrived.wait(0.2)

    def release(self) -> None:
        held, self.held = self.held, {}
        for each in held.values():
            each.set()

    def bodies(self, job: str) -> list[dict[str, Any]]:
        return [body for body in self.requests if job_key(body) == job]

    def brief(self, job: str) -> str:
        return str(self.bodies(job)[0]["messages"][0]["content"][0]["text"])

    def system(self, job: str) -> str:
        return str(self.bodies(job)[0]["system"][0]["text"])

    def result(self, job: str, of_turn: int, call: int) -> tuple[bool, str]:
        """(ok, text) of a call, as the model was told."""
        block = self.bodies(job)[-1]["messages"][2 * of_turn + 2]["content"][call]
        return not block["is_error"], block["content"]


@dataclass
class Clone:
    """A clone of this project with a dirty checkout, and a user at its keyboard."""

    place: Path
    server: Server | None = None
    before: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.place / "clone"

    def env(self) -> dict[str, str]:
        """Of the user: the venv first, and nothing of the machine's own that could change what happens."""
        scripts = str(Path(sys.executable).parent)
        env = {"PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(self.place / "home"), "LANG": "C.UTF-8"}
        env |= {"XDG_STATE_HOME": str(self.place / "state"), "USER": "somebody", "TMPDIR": str(self.place / "tmp")}
        if self.server is not None:
            env |= {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": self.server.url}
        return env

    def git(self, *args: str) -> str:
        argv = ["git", "-C", str(self.root), "--no-optional-locks", *args]
        done = subprocess.run(argv, env=self.env(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout

    def orchgit(self, *args: str, code: int = 0) -> str:
        argv = [str(ORCHGIT), *args]
        done = subprocess.run(
            argv, cwd=self.root, env=self.env(), capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def engine(self, *args: str) -> subprocess.Popen[str]:
        """A command that drives the run, on its own. Its words go to a file: nobody reads a pipe meanwhile."""
        argv = [str(ORCHGIT), *args]
        with (self.place / "said").open("a") as said:
            return subprocess.Popen(
                argv, cwd=self.root, env=self.env(), stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True
            )

    def ended(self, engine: subprocess.Popen[str]) -> int:
        try:
            return engine.wait(PATIENCE_S)
        finally:
            engine.kill()

    @property
    def said(self) -> str:
        return (self.place / "said").read_text()

    @property
    def store(self) -> Store:
        (path,) = (self.root / ".git/orchgit/runs").iterdir()
        return Store(path)

    @cached_property
    def events(self) -> list[e.Event]:
        return list(self.store.read())

    def of(self, kind: type[e.T]) -> list[e.T]:
        return [event.body for event in self.events if isinstance(event.body, kind)]

    def tree(self) -> str:
        """Of the integration branch: path and blob of everything."""
        return self.git("ls-tree", "-r", f"orchgit/{self.store.run}/integration")

    def snapshot(self) -> dict[str, str]:
        """What is the user's, byte for byte: the checkout, and the git directory but for what is orchgit's own."""
        found = {}
        refs = [f".git/{logs}refs/{kind}orchgit/" for logs in ("", "logs/") for kind in ("", "heads/")]
        ours = (".git/objects/", ".git/orchgit/", ".orchestration/runs/", *refs)
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_symlink() or path.is_dir() or name.startswith(ours):
                continue
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        found["status"] = self.git("status", "--porcelain=v2", "--untracked-files=all", "--show-stash")
        found["stash"] = self.git("stash", "list") + self.git("stash", "show", "-p")
        return found

    def left_over(self) -> list[str]:
        """Processes that work below our temporary directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").resolve().is_relative_to(self.place / "state"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


def clone_at(place: Path, source: Path = ROOT) -> Clone:
    clone = Clone(place)
    for name in ("home", "state", "tmp"):
        (place / name).mkdir(parents=True)
    argv = ["git", "clone", "-q", "--no-hardlinks", "--single-branch", str(source), str(clone.root)]
    done = subprocess.run(argv, env=clone.env(), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the project is not a git repository here: {done.stderr.decode()}")
    clone.git("config", "user.name", "Some Body")
    clone.git("config", "user.email", "somebody@example.com")
    clone.orchgit("init")
    # As dirty as a checkout gets: a stash, a staged change with another on top, a plain change, a deletion, a file
    # that git does not know, and one that it ignores.
    readme, project = clone.root / "README.md", clone.root / "pyproject.toml"
    readme.write_text(readme.read_text() + "\nstashed\n")
    clone.git("stash")
    project.write_text(project.read_text() + "\n# staged\n")
    clone.git("add", "pyproject.toml")
    project.write_text(project.read_text() + "# and not\n")
    readme.write_text("My own README, not yet done.\n")
    (clone.root / "LICENSE").unlink()
    (clone.root / "notes on ü.txt").write_text("untracked\n")
    (clone.root / "build").mkdir()
    (clone.root / "build/ignored").write_text("ignored\n")
    (clone.place / "issue.md").write_text(ISSUE)
    return clone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """The undisturbed run: started at one terminal, approved at another."""
    if not best(True)[1].prevented:
        pytest.skip("no sandbox here, and half of this is about what it prevents")
    clone = clone_at(tmp_path_factory.mktemp("own"))
    clone.before = clone.snapshot()
    with Server(playbook_of(clone)) as server:
        clone.server = server
        server.hold(*((job, 1) for job in WORKERS))
        engine = clone.engine("start", "../issue.md", "--backend", "anthropic", "--wait", "-v")
        try:
            wait_until(lambda: "waits for approval" in clone.orchgit("status") if clone_has_run(clone) else False)
            plan = clone.orchgit("plan")
            assert "drawing + command → tests → docs" in plan
            assert "the engine goes on" in clone.orchgit("approve")
            server.wait_for(engine, *((job, 1) for job in WORKERS))
            server.release()
            assert clone.ended(engine) == 0, clone.said
        finally:
            engine.kill()
        yield clone


def playbook_of(clone: Clone) -> dict[str, Any]:
    pristine = clone.place / "pristine"
    for name in ("README.md", "orchgit/__main__.py"):
        (pristine / name).parent.mkdir(parents=True, exist_ok=True)
        (pristine / name).write_text(clone.git("show", f"HEAD:{name}"))
    return playbook(pristine)


def clone_has_run(clone: Clone) -> bool:
    return any((clone.root / ".git/orchgit/runs").glob("*/events.jsonl"))


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def server_of(clone: Clone) -> Server:
    assert clone.server is not None
    return clone.server


# The run, its log and git


def test_the_feature_is_there_and_works(made: Clone) -> None:
    work = made.place / "taken"
    made.git("worktree", "add", "-q", "--detach", str(work), f"orchgit/{made.store.run}/integration")
    try:
        tests = ["tests.core.test_badge", "tests.cli.test_badge", "tests.edges.test_badge"]
        argv = [sys.executable, "-m", "unittest", *tests]
        done = subprocess.run(argv, cwd=work, env=made.env(), capture_output=True, text=True, check=False)
        assert "Ran 6 tests" in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
        assert "docs/badge.md" in (work / "README.md").read_text()
    finally:
        made.git("worktree", "remove", "--force", str(work))


def test_audit_and_git_agree(made: Clone) -> None:
    assert "violation" not in made.orchgit("audit")
    assert made.git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_the_users_checkout_is_byte_for_byte_the_same(made: Clone) -> None:
    after = made.snapshot()
    assert not list((made.place / "state").glob("orchgit/*/*"))
    assert {name for name in after if made.before.get(name) != after[name]} == set()
    assert set(made.before) == set(after)
    refs = made.git("for-each-ref", "--format=%(refname)").split()
    assert {"refs/stash", "refs/heads/" + made.git("branch", "--show-current").strip()} <= set(refs)


def test_two_workers_ran_at_the_same_time(made: Clone) -> None:
    requests = {ev.body.assignment: ev.seq for ev in reversed(made.events) if isinstance(ev.body, e.AgentRequested)}

    def span(name: str) -> list[int]:
        """Of its first attempt: where in the log its agent started and ended."""
        notes = [ev for ev in made.events if ev.cause == requests[name]]
        return [ev.seq for ev in notes if isinstance(ev.body, e.AgentStarted | e.AgentExited)]

    (drawn_from, drawn_to), (made_from, made_to) = span("drawing"), span("command")
    assert max(drawn_from, made_from) < min(drawn_to, made_to)
    assert len({body.member for body in made.of(e.AgentStarted) if body.role == "worker"}) == 4
    merged = [body.assignment for body in made.of(e.MergeDone) if body.land == "merge"]
    assert set(merged[:2]) == {"drawing", "command"}
    assert merged[2:] == ["tests", "docs", "drawing"]  # the last one is the fix


def test_sent_back_found_wanting_and_mended(made: Clone) -> None:
    verdicts = [(body.assignment, body.attempt, body.decision) for body in made.of(e.VerdictGiven)]
    assert ("command", 1, "reassign") in verdicts
    assert ("command", 2, "accept") in verdicts
    (finding,) = [body.finding for body in made.of(e.FindingOpened)]
    assert (finding.id, finding.severity, finding.path) == ("F1", "critical", "orchgit/core/badge.py")
    assert [body.assignment for body in made.of(e.FixAssigned)] == ["drawing"]
    assert [(body.round, len(body.findings), body.fixed) for body in made.of(e.ReviewReported)] == [
        (1, 1, ()),
        (2, 0, ("F1",)),
    ]
    assert [body.finding for body in made.of(e.FindingFixed)] == ["F1"]


def test_the_checks_ran_tests_on_the_merge_result(made: Clone) -> None:
    passed = made.of(e.ChecksPassed)
    assert not made.of(e.ChecksFailed)
    ran = {body.subject: [r.tests for r in body.results] for body in passed}
    assert ran == {"drawing": [2], "command": [3], "tests": [1], "docs": [None], "integration": [2, 3, 1, None]}
    output = made.store.blob(passed[0].results[0].output).decode()
    assert "Ran 1 test" in output or "Ran 2 tests" in output


# Who may write what


def test_the_orchestrator_cannot_write(made: Clone) -> None:
    server = server_of(made)
    assert server.result("plan/1", 1, 1) == (False, "write is not available to your role")
    ok, text = server.result("plan/1", 1, 2)
    assert ok  # the command ran; what it tried did not work
    assert len(DENIED.findall(text)) >= 2
    assert "\n M" not in text
    (plan,) = [body for body in made.of(e.AgentExited) if body.member == "orchestrator" and body.calls == 3]
    assert plan.refused == ("write: write is not available to your role",)
    told = {tool["name"] for tool in server.bodies("plan/1")[0]["tools"]}
    assert told == {"read", "glob", "grep", "bash", "propose_plan", "ask_questions"}
    _, text = server.result("review/security-reviewer/1", 0, 0)
    assert DENIED.search(text)
    assert "docs/badge.md" in text  # and git shows what was done


def test_a_worker_cannot_write_outside_its_scope(made: Clone) -> None:
    server = server_of(made)
    by_write = server.result("work/drawing/1", 2, 0)
    assert by_write[0] is False
    assert by_write[1].startswith("permission denied: orchgit/runner.py is outside your scope")
    _, by_bash = server.result("work/drawing/1", 2, 1)
    assert re.search(f"orchgit/runner.py: ({DENIED.pattern})", by_bash)
    assert "README.md" in by_bash
    assert len(DENIED.findall(by_bash)) == 3
    outside = server.result("work/drawing/1", 2, 2)
    assert outside[0] is False
    seen = {(body.assignment, body.path, body.layer) for body in made.of(e.ScopeViolationSeen)}
    assert seen == {("drawing", "orchgit/runner.py", "sandbox"), ("drawing", "../../outside.txt", "sandbox")}
    landed = made.git("diff", "--name-only", "HEAD", f"orchgit/{made.store.run}/integration").split()
    assert set(landed) == {
        *("orchgit/core/badge.py", "tests/core/test_badge.py", "orchgit/cli/badge.py", "orchgit/__main__.py"),
        *("tests/cli/test_badge.py", "tests/edges/test_badge.py", "docs/badge.md", "README.md"),
    }


# The key, the costs


def test_the_key_is_nowhere(made: Clone) -> None:
    ok, hunt = server_of(made).result("work/drawing/1", 3, 0)
    assert ok
    *_, engine = hunt.split("\n== ")
    # It came as far as the process that has the key, or, in a namespace of its own, as far as there are processes.
    assert "environ: Permission denied" in engine or "orchgit start" not in hunt
    assert hunt.rstrip().removesuffix("[exit code 0]").rstrip().endswith("hunted")
    assert "anthropic" not in hunt.split("\n==", 1)[0].lower()  # its own environment
    assert KEY not in made.said
    files = [path for path in (made.root / ".git/orchgit").rglob("*") if path.is_file()]
    assert len(files) > 40
    for path in (*files, *(p for p in (made.place / "state").rglob("*") if p.is_file())):
        assert KEY.encode() not in path.read_bytes(), path
    assert set(server_of(made).authorizations) == {"bearer"}


def test_costs_tokens_and_models_are_in_the_log(made: Clone) -> None:
    one = Usage(1, 400, 150, 2000, 600)
    price = prices.TABLE[DEFAULT_MODEL].cost_micro(one)
    exits = made.of(e.AgentExited)
    assert len(exits) == 16
    whole = [body for body in exits if body.calls and body.calls * price == body.cost_micro]
    assert len(whole) == 15  # all but the one with the cut stream, which was paid for as far as it came
    two = next(body for body in whole if body.calls == 2)
    assert (two.input_tokens, two.output_tokens, two.cache_read_tokens) == (800, 300, 4000)
    (cut,) = [body for body in exits if body not in whole]
    assert cut.calls == 8
    assert cut.cost_micro is not None
    assert cut.cost_micro > 7 * price
    assert {(body.backend, body.model, body.network) for body in made.of(e.AgentStarted)} == {
        ("anthropic", DEFAULT_MODEL, "none" if best(True)[1].network else "open")
    }
    report = json.loads(made.orchgit("report", "--json"))
    spent = {row["agent"]: row for row in report["costs"]}
    assert spent["test-agent"]["tokens_in"] == 3 * 3000
    assert sum(row["cost_micro"] for row in spent.values()) == sum(body.cost_micro or 0 for body in exits)
    assert "| test-agent | 1 | 3 | 9000 | 66 % | 450 |" in made.orchgit("report")


def test_overload_and_a_cut_stream_are_no_failure(made: Clone) -> None:
    server = server_of(made)
    assert server.played["error plan/1 1"] == 2
    assert server.played["cut work/drawing/1 4"] == 2
    assert not made.of(e.AgentFailed)
    assert not made.of(e.BlockerRaised)


# What the model gets


def test_no_request_broke_the_protocol(made: Clone) -> None:
    assert server_of(made).problems == []


def test_the_prefix_of_a_job_never_changes(made: Clone) -> None:
    """What the service has cached is found again: across the calls of a job, and at the tools across jobs."""
    server = server_of(made)
    for job in dict.fromkeys(map(job_key, server.requests)):
        for before, after in pairwise(server.bodies(job)):
            for part in ("model", "system", "tools", "thinking", "cache_control"):
                assert before[part] == after[part]
            kept = len(before["messages"])
            assert [_bare(m) for m in after["messages"][:kept]] == [_bare(m) for m in before["messages"]]
    same = [server.bodies(f"verdict/{name}/1")[0] for name in ("drawing", "command", "tests")]
    assert all((body["tools"], body["system"]) == (same[0]["tools"], same[0]["system"]) for body in same)
    assert all("cache_control" in body["system"][-1] for body in server.requests)
    # Twelve calls and their results are more blocks than the service looks back.
    marked = [body for body in server.requests if any(map(_marks, body["messages"]))]
    assert [(job_key(body), len(body["messages"])) for body in marked] == [("work/tests/1", 3)]
    assert _marks(marked[0]["messages"][0]) == 1


def _marks(message: dict[str, Any]) -> int:
    return sum("cache_control" in block for block in message["content"])


def _bare(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in block.items() if k != "cache_control"} for block in message["content"]]


def test_the_planner_is_told_what_it_needs(made: Clone) -> None:
    brief, system = server_of(made).brief("plan/1"), server_of(made).system("plan/1")
    assert brief.startswith("orchgit-job: plan/1\n")
    assert ISSUE.strip() in brief
    assert "orchgit/core/review.py" in brief
    assert "api-agent: Server side work" in brief
    assert "Always asked: security-reviewer" in brief
    assert "`package.json`" in system
    assert "You lead the work on this repository" in system


def test_a_worker_is_told_what_it_needs(made: Clone) -> None:
    server = server_of(made)
    brief, system = server.brief("work/command/1"), server.system("work/command/1")
    assert "Write orchgit/cli/badge.py, after the model of" in brief
    assert fence_of(brief, "interface") == INTERFACE.strip()
    assert "- orchgit/__main__.py" in brief
    assert "python3 -m unittest -v tests.cli.test_badge" in brief
    assert "- drawing (api-agent): The picture" in fence_of(brief, "plan")  # whose part is whose
    assert "- command (yours): The command" in fence_of(brief, "plan")
    assert "feedback" not in brief
    assert "Inputs" not in server.brief("work/tests/1")  # an empty heading says nothing
    assert "You are a worker in an orchgit run" in system
    again = server.brief("work/command/2")
    assert "the interface has an option --label, and it is not there" in fence_of(again, "feedback")
    fix = server.brief("work/drawing/2")
    assert "Finding F1 (critical) of security-reviewer at orchgit/core/badge.py:17" in fence_of(fix, "feedback")
    assert "- docs (docs-agent, in your working tree)" in fence_of(fix, "plan")
    assert "- drawing (api-agent, in your working tree)" in fence_of(server.brief("work/docs/1"), "plan")


def test_judge_and_reviewer_are_told_what_they_need(made: Clone) -> None:
    server = server_of(made)
    brief = server.brief("verdict/command/2")
    assert "it is not there" in fence_of(brief, "feedback")
    assert "+def value_of(run: Run) -> str:" in fence_of(brief, "diff")
    assert "tests.cli.test_badge: passed, 3 tests" in fence_of(brief, "checks")
    first, again = (server.brief(f"review/security-reviewer/{n}") for n in (1, 2))
    assert "+def badge(label: str, value: str) -> str:" in fence_of(first, "diff")
    assert "What blocks here: critical." in first
    assert "- docs: docs/badge.md, README.md" in fence_of(first, "scopes")
    assert "F1 (critical) orchgit/core/badge.py:17" in fence_of(again, "findings")
    assert "docs/badge.md" not in fence_of(again, "diff")  # only the delta
    sums = server.brief("synthesis/1")
    assert "drawing: Both texts are escaped" in fence_of(sums, "reports")
    assert "command (frontend-agent, 2 attempts): The command" in fence_of(sums, "plan")
    assert "F1 (critical, fixed) orchgit/core/badge.py:17" in fence_of(sums, "findings")


def fence_of(brief: str, name: str) -> str:
    """What stands inside the fence of this name."""
    _, begin, rest = brief.partition(f"<<{name}")
    assert begin, f"no fence {name}"
    return rest.split("~~~~~~~~")[1].strip()


# Killed


def test_killed_twice_and_resumed(made: Clone, tmp_path: Path) -> None:
    clone = clone_at(tmp_path, made.root)  # not ROOT: somebody may commit there meanwhile
    clone.before = clone.snapshot()
    assert clone.git("rev-parse", "HEAD") == made.git("rev-parse", "HEAD")
    with Server(playbook_of(clone)) as server:
        clone.server = server
        # While two workers are at it, each with its tools running; and again while the last one is.
        for command, moment in (
            (("start", "../issue.md", "--backend", "anthropic", "--yes"), [(job, 1) for job in WORKERS]),
            (("resume",), [("work/docs/1", 1)]),
        ):
            server.hold(*moment)
            engine = clone.engine(*command)
            try:
                server.wait_for(engine, *moment)
                assert clone.left_over()
            finally:
                engine.send_signal(signal.SIGKILL)
                engine.wait()
            server.release()
            wait_until(lambda: not clone.left_over())
        asked = len(server.asked)
        assert clone.ended(clone.engine("resume")) == 0, clone.said
    assert clone.tree() == made.tree()
    again = {job for job, _ in server.asked[asked:]}
    assert again.isdisjoint({*WORKERS, "work/command/2", "work/tests/1", "plan/1"})  # finished work was kept
    assert len(clone.of(e.RunResumed)) == 2
    assert [body.lost for body in clone.of(e.AgentFailed)] == [True] * 3
    assert {body.counted for body in clone.of(e.AssignmentStarted)} <= {1, 2}
    merged = [body.assignment for body in clone.of(e.MergeDone) if body.land == "merge"]
    assert sorted(merged) == ["command", "docs", "drawing", "drawing", "tests"]
    assert server.problems == []
    assert "violation" not in clone.orchgit("audit")
    assert clone.git("fsck", "--full", "--strict", "--no-dangling") == ""
    assert clone.snapshot() == clone.before
    assert not clone.left_over()
    assert not list((clone.place / "state").glob("orchgit/*/*"))  # no cell either
