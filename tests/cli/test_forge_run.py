"""A run on GitHub, by the command line, against a fake GitHub on real pushes: from an issue to a merged pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.github_server import GitHub
from tests.support.scenario import Book, World, make, piece, turn, write

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


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    made = place(tmp_path)
    yield made
    made.world.close()
    made.hub.stop()
    assert made.hub.problems == []


def stacked(*, again: bool = True) -> Book:
    """api; web after api; docs after web."""
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]),
        piece("web", "frontend-agent", ["src/web/**"], depends_on=["api"], checks=["cat src/web/billing.html"]),
        piece("docs", "docs-agent", ["docs/**"], depends_on=["web"], checks=["cat docs/billing.md"]),
    )
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    if again:
        book.work("web", turn(write("src/web/billing.html", "<p>Billing, as lea wants it</p>\n")))
    return book


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
