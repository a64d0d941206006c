"""A run on GitHub, by the command line, against a fake GitHub over real pushes: from issue to merged pull request."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.github_server import GitHub
from tests.support.scenario import Book, Terminal, World, make, piece, turn, write

CONFIG = """
[forge]
kind = "github"
plan = "comment"
poll_s = 1
[ship]
mode = "pr"
[run]
reviewers = []
"""


@dataclass
class Place:
    """A clone of a repository at GitHub, and the people there: bot (the token), lea who may write, eve who may not."""

    world: World
    hub: GitHub
    issue: int
    kills: Callable[[int], bool] = lambda n: False  # whether the engine is killed at the n-th write, which was done
    killed: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        return self.world.name

    def notes(self, what: str) -> list[dict[str, Any]]:
        marker = f"<!-- orchgit:{self.run}/{what}"
        return [c for c in self.hub.thing(self.issue).comments if c["body"].startswith(marker)]

    def pull(self, name: str) -> Any:
        found = [p for p in self.hub.pulls if p.head == f"orchgit/{self.run}/{name}"]
        assert len(found) == 1, [p.head for p in self.hub.pulls]
        return found[0]

    def at(self, name: str) -> str:
        """What a branch of the run holds at GitHub."""
        return self.hub.hub.branch(f"orchgit/{self.run}/{name}")

    def files(self, branch: str) -> set[str]:
        """Of a branch at GitHub."""
        listed = self.world.git("--git-dir", str(self.hub.bare), "ls-tree", "-r", "--name-only", branch)
        return set(listed.splitlines())

    def go(self, *args: str, code: int) -> None:
        """The command, to its end, again after each time that it was killed."""
        while True:
            child = self.world.spawn(*args)

            def wrote(n: int, method: str, path: str, pid: int = child.pid) -> None:
                if self.kills(n):
                    self.killed.append(f"{method} {path}")
                    os.kill(pid, signal.SIGKILL)

            self.hub.on_write = wrote
            ended = child.wait()
            self.hub.on_write = None
            if ended != -signal.SIGKILL:
                assert ended == code, self.world.said(child)
                return
            args = ("resume",) if args[0] == "start" else args

    def approve(self, *names: str) -> None:
        for name in names:
            self.hub.review(self.pull(name).number, "APPROVE", "good", by="lea")


def place(root: Path, config: str = CONFIG) -> Place:
    world = make(root / "w")
    hub = GitHub(root / "hub")
    world.extra_env["ORCHGIT_GITHUB_TOKEN"] = hub.person("bot", "write", token="ghp_" + "b0" * 18)
    hub.person("lea", "write")
    hub.person("eve", "read")
    world.git("remote", "add", "origin", hub.clone_url)
    world.commit({".orchestration/config.toml": config}, "configure")
    world.git("push", "-q", str(hub.bare), "main")
    issue = hub.issue("Add billing", "Teams can pay.", by="lea")
    return Place(world, hub, issue)


def told(there: Place) -> Place:
    """The whole story, with one less, whatever happens to the engine on its way."""
    book, hub = stacked(2), there.hub
    there.go("start", str(there.issue), "--backend", "scripted", "--playbook", str(there.world.playbook(book)), code=4)
    hub.comment(there.issue, f"/orchgit approve {digest(there)}", by="lea")
    there.go("resume", code=4)
    there.approve("api")
    hub.review(there.pull("web").number, "REQUEST_CHANGES", "Not yet.", by="lea")
    there.go("ship", code=4)
    there.approve("web")
    there.go("ship", code=4)
    there.approve("integration")
    there.go("ship", code=0)
    return there


def outcome(there: Place) -> dict[str, Any]:
    """What is at GitHub at the end, without what differs from run to run: ids, times, commits of other dates."""
    hub, run = there.hub, there.run

    def key(body: str) -> str:
        found = re.match(r"<!-- orchgit:[^/]+/(\S+) -->", body)
        return re.sub(r"[0-9a-f]{12}$", "…", found[1]) if found else "somebody's"

    pulls = {p.head.replace(run, "RUN"): (p.base.replace(run, "RUN"), p.state, bool(p.merged)) for p in hub.pulls}
    assert len(pulls) == len(hub.pulls)
    reviews = Counter((p.head.rpartition("/")[2], key(r["body"]), r["state"]) for p in hub.pulls for r in p.reviews)
    return {
        "pulls": pulls,
        "notes": Counter(key(c["body"]) for c in hub.thing(there.issue).comments),
        "reviews": reviews,
        "labels": [p.labels for p in hub.pulls],
        "statuses": Counter((s["context"], s["state"]) for s in hub.hub.statuses),
        "issue": hub.thing(there.issue).state,
        "added": there.files("main") - set(there.world.files("main")),
    }


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    made = place(tmp_path)
    yield made
    made.world.close()
    made.hub.stop()
    assert made.hub.problems == []


PIECES = (
    piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]),
    piece("web", "frontend-agent", ["src/web/**"], depends_on=["api"], checks=["cat src/web/billing.html"]),
    piece("docs", "docs-agent", ["docs/**"], depends_on=["web"], checks=["cat docs/billing.md"]),
)


def stacked(count: int = 3) -> Book:
    """api; web after api; docs after web."""
    book = Book(*PIECES[:count])
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    return book.work("web", turn(write("src/web/billing.html", "<p>Billing, as lea wants it</p>\n")))


def begin(there: Place, book: Book) -> None:
    """Up to the plan, as a comment on the issue."""
    args = ["--backend", "scripted", "--playbook", str(there.world.playbook(book))]
    there.world.run("start", str(there.issue), *args, code=4)


def digest(there: Place) -> str:
    found = re.search(r"/orchgit approve (\w+)", there.notes("plan/")[-1]["body"])
    assert found
    return found[1]


def test_from_an_issue_to_a_merged_pull_request(there: Place) -> None:
    hub, world = there.hub, there.world
    hub.comment(there.issue, "Not for free, please.", by="eve")
    begin(there, stacked())
    text = world.blob(world.one("issue.read")["data"]["text"])
    assert "> Teams can pay." in text
    assert "Comment by eve (none)" in text
    assert len(there.notes("plan/1")) == 1
    hub.comment(there.issue, f"/orchgit approve {digest(there)}", by="eve")
    hub.comment(there.issue, "/orchgit approve 0000000", by="lea")
    said = world.run("resume", code=4).err
    assert "eve may not write" in said
    assert "names 0000000" in said
    comment = hub.comment(there.issue, f"/orchgit approve {digest(there)}", by="lea")
    world.run("resume", code=4)
    approved = world.one("plan.approved")
    assert approved["actor"] == {"kind": "human", "id": "github:lea"}
    assert approved["data"]["comments"][0]["id"] == f"comment/{comment}"

    # Three pull requests, stacked, before anything is merged there.
    run = there.run
    assert [(p.head, p.base, p.state) for p in hub.pulls] == [
        (f"orchgit/{run}/api", f"orchgit/{run}/integration", "open"),
        (f"orchgit/{run}/web", f"orchgit/{run}/api", "open"),
        (f"orchgit/{run}/docs", f"orchgit/{run}/web", "open"),
    ]
    assert there.at("integration") == world.git("rev-parse", "main")
    before = len(hub.writes())
    foretold = world.run("ship", "--dry-run").out
    assert "merge integration main" in foretold
    assert "web: The web part" in foretold
    assert f"Closes #{there.issue}" in foretold
    assert len(hub.writes()) == before
    there.approve("api", "docs")
    lines = [{"path": "src/web/billing.html", "line": 1, "body": "a capital letter, please"}]
    hub.review(there.pull("web").number, "REQUEST_CHANGES", "Not yet.", by="lea", comments=lines)
    world.run("ship", code=4)
    brief = world.blob(
        next(
            e
            for e in world.events("agent.started", purpose="work")
            if e["seq"] > world.one("change.seen", what="changes")["seq"]
        )["data"]["brief"]
    )
    assert "a capital letter, please" in brief
    assert "lea wants" in brief or "lea reviewed" in brief
    shown = world.git("diff", "--name-only", f"{there.at('api')}...{there.at('web')}")
    assert shown == "src/web/billing.html"  # its own work, and nobody else's
    assert there.pull("web").state == "open"

    there.approve("web")
    world.run("ship", code=4)
    assert [bool(there.pull(n).merged) for n in ("api", "web", "docs")] == [True] * 3
    assert {there.pull(n).base for n in ("api", "web", "docs")} == {f"orchgit/{run}/integration"}
    assert there.at("integration") == world.ref(f"{run}/integration")
    last = there.pull("integration")
    assert (last.base, last.state) == ("main", "open")
    assert f"Closes #{there.issue}" in last.body
    there.approve("integration")
    world.run("ship")
    assert last.merged
    assert hub.thing(there.issue).state == "closed"
    assert world.run("status", run, "--json").json["phase"] == "completed"
    assert world.git("--git-dir", str(hub.bare), "rev-parse", f"refs/orchgit/runs/{run}") == world.git(
        "rev-parse", f"refs/orchgit/runs/{run}"
    )
    assert len(there.notes("progress")) == 1
    assert "completed" in there.notes("progress")[0]["body"]
    assert "pass" in world.run("audit").out
    secret = world.extra_env["ORCHGIT_GITHUB_TOKEN"].encode()
    for path in world.runs.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


INTO = "orchgit/RUN/integration"
EXPECTED: dict[str, Any] = {
    "pulls": {
        **{f"orchgit/RUN/{name}": (INTO, "closed", True) for name in ("api", "web")},
        INTO: ("main", "closed", True),
    },
    "notes": {"plan/1": 1, "progress": 1, "somebody's": 1},
    "reviews": {
        **{(name, "somebody's", "APPROVED"): 1 for name in ("api", "web", "integration")},
        ("web", "somebody's", "CHANGES_REQUESTED"): 1,
    },
    "labels": [["orchgit"]] * 3,
    # Of each pull request's commit, the second one of web's too, and of the tip.
    "statuses": {(f"orchgit/{context}", "success"): 4 for context in ("scope", "checks", "review")},
    "issue": "closed",
    "added": {"src/api/billing.py", "src/web/billing.html"},
}


def sound(there: Place) -> None:
    world = there.world
    world.none_left()
    assert {law["verdict"] for law in world.run("audit", "--json").json["laws"]} == {"pass"}
    merged = Counter(ev["data"]["assignment"] for ev in world.events("merge.done", land="merge"))
    assert merged == {"api": 1, "web": 2}


def test_every_answer_is_lost_and_the_engine_is_killed_now_and_then(there: Place) -> None:
    there.hub.lossy = True
    there.hub.fault("POST", "git-receive-pack", "cut", times=3)
    there.kills = lambda n: n % 11 == 4
    assert outcome(told(there)) == EXPECTED
    assert len(there.killed) >= 3
    sound(there)


@pytest.mark.whole
def test_killed_at_every_single_write(there: Place) -> None:
    there.kills = lambda n: True
    assert outcome(told(there)) == EXPECTED
    assert len(there.killed) > 25
    sound(there)


# -- the plan on the issue -------------------------------------------------------------------------------


def test_questions_a_rejection_and_an_approval_on_the_issue_while_a_terminal_waits(there: Place) -> None:
    world, hub = there.world, there.hub
    only = piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"])
    book = Book().ask("Which currency?").plan(only, goal="Dollars.").plan(only, goal="Euro.")
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    args = ["--backend", "scripted", "--playbook", str(world.playbook(book)), "--ship", "none"]
    with Terminal(world, "start", f"acme/shop#{there.issue}", *args) as terminal:
        terminal.expect(r"1\. Which currency")
        hub.comment(there.issue, "/orchgit answer 1 Euro", by="eve")
        hub.comment(there.issue, "/orchgit answer 1 Euro, of course", by="lea")
        terminal.expect("somebody else spoke first")
        terminal.expect("Approve this plan")
        first = digest(there)
        hub.comment(there.issue, "/orchgit reject In euro.\nNot in dollars.", by="lea")
        terminal.expect("somebody else spoke first")
        terminal.expect("Approve this plan")
        # Of the plan before, by its name or by none: not of this one.
        hub.comment(there.issue, f"/orchgit approve {first}", by="lea")
        hub.comment(there.issue, "/orchgit approve", by="lea")
        terminal.expect("does not name which plan")
        hub.comment(there.issue, f"/orchgit approve {digest(there)}", by="lea")
        terminal.expect("somebody else spoke first")
        terminal.end(0)
    assert world.one("question.answered")["data"]["answers"] == ["Euro, of course"]
    assert world.one("plan.rejected")["data"]["feedback"] == "In euro.\nNot in dollars."
    assert world.one("plan.approved")["data"]["version"] == 2
    assert [len(there.notes(n)) for n in ("questions", "plan/1", "plan/2", "progress")] == [1, 1, 1, 1]
    assert hub.pulls == []
    assert "completed" in there.notes("progress")[0]["body"]
    assert "pass" in world.run("audit").out


def test_what_cannot_be_done_is_said_and_nothing_is_half_done(there: Place) -> None:
    world, hub = there.world, there.hub
    args = ["--backend", "scripted", "--playbook", str(world.playbook(stacked()))]

    def refused(code: int, *words: str, issue: str = str(there.issue), **env: str) -> None:
        said = world.run("start", issue, *args, code=code, env=env).err
        for word in (*words, "\n"):
            assert word in said, said
        assert "ghp_" not in said

    pull = hub.issue("not yet a pull request", by="lea")
    hub.thing(pull).head, hub.thing(pull).base = "main", "main"
    refused(1, "is a pull request", issue=f"#{pull}")
    refused(1, "999", issue="999")
    refused(5, "does not take the token from ORCHGIT_GITHUB_TOKEN", ORCHGIT_GITHUB_TOKEN="ghp_wrong")
    refused(5, "there is no token", ORCHGIT_GITHUB_TOKEN="")
    refused(2, "acme/other", issue="acme/other#1")
    hub.person("bot", "read")
    refused(5, "may not push")
    hub.person("bot", "write")
    hub.hub.archived = True
    refused(5, "archived")
    hub.hub.archived, hub.hub.has_issues = False, False
    refused(1, "has no issues")
    hub.hub.has_issues = True
    world.commit({".orchestration/config.toml": "[ship]\nmode = 'pr'\n"})
    refused(2, "wants a forge", 'kind = "github"')
    world.commit({".orchestration/config.toml": "[forge]\nkind = 'github'\nreview = 'worker'\n"})
    refused(2, "wants pull requests", 'mode = "pr"')
    assert world.names() == []
    assert hub.writes() == []


# -- a human's approval before each merge ----------------------------------------------------------------

PAIR = """
[forge]
kind = "github"
review = "worker"
poll_s = 1
[ship]
mode = "pr"
[run]
reviewers = []
"""


def by_hand(there: Place, name: str, files: dict[str, str]) -> str:
    """Somebody clones, and pushes onto a worker's branch."""
    world, clone = there.world, there.world.root / f"clone-{len(list(there.world.root.iterdir()))}"
    ref = f"orchgit/{there.run}/{name}"
    world.git("clone", "-q", "-b", ref, str(there.hub.bare), str(clone), cwd=world.root)
    for path, content in files.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(content)
    world.git("add", "-A", cwd=clone)
    identity = ("-c", "user.name=Lea", "-c", "user.email=lea@example.org")
    world.git(*identity, "commit", "-q", "-m", "as I want it", cwd=clone)
    world.git("push", "-q", "origin", f"HEAD:{ref}", cwd=clone)
    there.hub.hub.sync()
    return world.git("rev-parse", "HEAD", cwd=clone)


def test_each_merge_waits_for_a_human_and_what_is_pushed_by_hand_is_judged(tmp_path: Path) -> None:
    there = place(tmp_path, PAIR)
    world, hub = there.world, there.hub
    try:
        book = Book(
            piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"]),
            piece("web", "frontend-agent", ["src/web/**"], depends_on=["api"], checks=["cat src/web/billing.html"]),
        )
        book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
        book.work("api", turn(write("src/api/billing.py", "billing = 2\n")))
        book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
        book.work("web", turn(write("src/web/billing.html", "<p>Billing</p>\n")))
        args = ["--yes", "--backend", "scripted", "--playbook", str(world.playbook(book))]
        said = world.run("start", str(there.issue), *args, code=4).err
        assert "waits for a human's approval of 1 pull request" in said
        run = there.run
        assert [p.head for p in hub.pulls] == [f"orchgit/{run}/api"]
        assert world.events("merge.requested") == []
        # A comment in place of a review names the commit; this one wants changes.
        hub.comment(there.pull("api").number, "/orchgit reject Two, not one.", by="lea")
        world.run("ship", code=4)
        assert world.one("fix.assigned")["data"]["why"].endswith("Two, not one.")
        assert "billing = 2" in world.git("--git-dir", str(hub.bare), "show", f"orchgit/{run}/api:src/api/billing.py")

        hand = by_hand(there, "api", {"src/api/billing.py": "billing = 3\n"})
        hub.comment(there.pull("api").number, f"/orchgit approve {hand[:10]}", by="lea")
        world.run("ship", code=4)
        gated = world.events("gate.passed", assignment="api")[-1]["data"]
        assert gated["author"] == "Lea <lea@example.org>"
        assert there.at("api") == gated["commit"] != hand
        assert world.git("log", "-1", "--format=%an", gated["commit"]) == "Lea"
        assert world.events("merge.requested") == []  # what was approved was another commit
        there.approve("api")
        world.run("ship", code=4)
        assert there.pull("api").merged
        assert there.pull("web").base == f"orchgit/{run}/integration"

        # Out of its scope: refused, said so, and nothing of it lands.
        head = there.at("web")
        hand = by_hand(there, "web", {"src/api/billing.py": "mine\n"})
        said = world.run("ship", code=4).err
        assert "src/api/billing.py" in said
        assert f"{hand}" in said.replace("\n", "")
        blocker = world.one("blocker.raised")["data"]["blocker"]
        world.git("push", "-q", "--force", str(hub.bare), f"{head}:refs/heads/orchgit/{run}/web")
        hub.hub.sync()
        world.run("answer", run, blocker, "With a capital letter, then.")
        world.run("resume", code=4)
        there.approve("web")
        world.run("ship", code=4)
        assert there.pull("web").merged
        # What a merge onto a base that moved would give, nobody has checked: a person merges it there.
        aside = world.root / "aside"
        world.git("clone", "-q", str(hub.bare), str(aside), cwd=world.root)
        (aside / "other.md").write_text("other\n")
        world.git("add", "-A", cwd=aside)
        world.git("commit", "-q", "-m", "other", cwd=aside)
        world.git("push", "-q", cwd=aside)
        hub.hub.sync()
        there.approve("integration")
        assert "main has moved since the run began" in world.run("ship", code=5).err
        hub.merge(there.pull("integration").number, by="lea")
        world.run("ship")
        assert hub.thing(there.issue).state == "closed"
        told = world.run("status", run, "--json").json
        assert told["phase"] == "completed"
        assert [p["about"] for p in told["pull_requests"]] == ["api", "web", "integration"]
        assert there.files("main") >= {"src/api/billing.py", "src/web/billing.html", "other.md"}
        assert {law["verdict"] for law in world.run("audit", "--json").json["laws"]} == {"pass"}
        assert hub.problems == []
    finally:
        world.close()
        hub.stop()
