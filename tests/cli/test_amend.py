"""A worker that needs more than its scope: it asks, somebody decides, and it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario import Book, Terminal, World, bash, make, piece, report, turn, write

ASK = {"tool": "request_scope", "input": {"paths": ["docs/api.md"], "why": "the route is to be described"}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def ask(*paths: str, why: str = "needed") -> dict[str, Any]:
    return {"tool": "request_scope", "input": {"paths": list(paths), "why": why}}


def asking(*more: Any) -> Book:
    """One worker: it writes in its scope, is refused outside, asks, and writes there if it may."""
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    return book.work(
        "api",
        turn(write("src/api/a.py", "a = 1\n"), write("docs/api.md", "refused\n")),
        turn(ASK),
        *more,
        turn(report("with what I was given")),
    )


def approved(world: World) -> tuple[int, str]:
    state = world.run("status", "--json").json[0]
    return state["plan"]["version"], state["plan"]["digest"]


def test_granted_by_a_human_it_goes_on_in_the_same_attempt(world: World) -> None:
    done = world.start(asking(turn(write("docs/api.md", "# The route\n"))), "--yes", code=4)
    assert f"orchgit grant {world.name}/api" in done.err + done.out
    before = approved(world)
    assert "docs/api.md" in world.run("status").out
    world.run("grant", f"{world.name}/api")
    world.run("resume")
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert (tree["src/api/a.py"], tree["docs/api.md"]) == ("a = 1", "# The route")
    # One attempt, one conversation: the agent was started twice and did nothing twice.
    assert len(world.events("assignment.started")) == 1
    first, second = world.events("agent.requested")
    assert first["data"]["session"] == ""
    assert second["data"]["session"]
    granted = world.one("scope.amendment_granted")
    assert granted["actor"] == {"kind": "human", "id": "ada"}
    amended = world.one("plan.amended")["data"]
    after = approved(world)
    assert after == (amended["version"], amended["digest"])
    assert after[0] == before[0] + 1
    assert after[1] != before[1]
    assert "docs/api.md" in world.run("plan").out
    # Git says by which plan it was merged.
    assert f"Orchgit-Plan: sha256:{after[1]}" in world.git(
        "log", "-1", "--format=%B", f"orchgit/{world.name}/integration^"
    )
    # And never back: the version that had been approved before is no longer one.
    refused = world.run("approve", code=1)
    assert "cannot be done" in refused.err
    world.run("audit")
    world.none_left()


def test_refused_it_goes_on_without(world: World) -> None:
    world.start(asking(turn(write("docs/api.md", "refused again\n"))), "--yes", code=4)
    world.run("refuse", f"{world.name}/api", "--why", "the docs are another's")
    world.run("resume")
    assert "docs/api.md" not in world.tree(f"orchgit/{world.name}/integration")
    assert not world.events("plan.amended")
    transcript = world.blob(world.events("agent.exited", member="api-agent")[-1]["data"]["transcript"])
    assert "permission denied: docs/api.md" in transcript
    world.run("audit")


def test_a_part_can_be_granted_and_what_was_not_asked_cannot(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(write("src/api/a.py", "a = 1\n")), turn(ask("docs/a.md", "docs/b.md")),
              turn(write("docs/a.md", "a\n"), write("docs/b.md", "b\n"), bash("rm -f docs/b.md")))  # fmt: skip
    world.start(book, "--yes", code=4)
    assert "does not ask" in world.run("grant", "api", "src/web/**", code=2).err
    world.run("grant", "api", "docs/a.md")
    world.run("resume")
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert "docs/a.md" in tree
    assert "docs/b.md" not in tree
    assert world.one("plan.amended")["data"]["changed"][0]["allow"] == ["src/api/**", "docs/a.md"]


def test_the_configuration_grants_a_lock_file_without_a_human(world: World) -> None:
    config = world.repo / ".orchestration" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('[agents.api-agent]\ngrant = ["package-lock.json"]\n')
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(write("src/api/a.py", "a = 1\n")), turn(ask("package-lock.json")),
              turn(write("package-lock.json", "{}\n")))  # fmt: skip
    world.start(book, "--yes")
    assert world.tree(f"orchgit/{world.name}/integration")["package-lock.json"] == "{}"
    assert world.one("scope.amendment_granted")["actor"] == {"kind": "policy", "id": "grant"}
    world.run("audit")


def test_an_agent_without_the_tool_asks_by_a_file_or_by_the_command(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    wish = json.dumps({"request_scope": {"paths": ["docs/api.md"], "why": "to say it"}})
    once = f"[ -e src/api/a.py ] || echo '{wish}' > $ORCHGIT_RESULT"
    book.work("api", turn(bash(once), write("src/api/a.py", "a = 1\n")), turn(report()))
    world.start(book, "--yes", code=4)
    asked = world.one("scope.amendment_asked")["data"]
    assert (asked["patterns"], asked["session"]) == (["docs/api.md"], "")
    # No conversation to go on with, so the brief says what was decided.
    world.run("refuse", "api", "--why", "say it in the code")
    world.run("resume")
    brief = world.blob(world.events("agent.started", purpose="work")[-1]["data"]["brief"])
    assert "say it in the code" in brief
    assert len(world.events("assignment.started")) == 1


def test_on_ground_where_another_has_begun_it_begins_again_after_it(world: World) -> None:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["ls docs"]),
    )
    book.work("api", turn(write("src/api/a.py", "a = 1\n"), delay_ms=300), turn(ask("docs/api.md")))
    book.work("docs", turn(write("docs/api.md", "# by docs\n"), delay_ms=1500))
    again = turn(write("src/api/a.py", "a = 2\n"), bash("cat docs/api.md; echo more >> docs/api.md"))
    book.work("api", again)
    world.start(book, "--yes", code=4)
    world.run("grant", "api")
    world.run("resume")
    assert world.tree(f"orchgit/{world.name}/integration")["docs/api.md"] == "# by docs\nmore"
    amended = world.one("plan.amended")["data"]
    assert amended["waits"]
    assert amended["changed"][0]["depends_on"] == ["docs"]
    first, second = (s["data"] for s in world.events("assignment.started", assignment="api"))
    assert (first["counted"], second["counted"]) == (1, 1), "being sent to the back of the queue is nobody's failure"
    assert any("git checkout" in piece for piece in second["feedback"])
    world.run("audit")


def test_one_that_has_not_begun_comes_after(world: World) -> None:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("first", "api-agent", ["src/first/**"], checks=["ls src/first"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["ls docs"], depends_on=["first"]),
    )
    book.work(
        "api",
        turn(write("src/api/a.py", "a = 1\n")),
        turn(ask("docs/api.md")),
        turn(write("docs/api.md", "# by api\n")),
    )
    book.work("first", turn(write("src/first/f.py", "f = 1\n"), delay_ms=2500))
    book.work("docs", turn(bash("echo and docs >> docs/api.md")))
    config = world.repo / ".orchestration" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('[agents.api-agent]\ngrant = ["docs/*"]\n')
    world.start(book, "--yes")
    amended = world.one("plan.amended")["data"]
    assert not amended["waits"]
    assert {a["id"]: a["depends_on"] for a in amended["changed"]} == {"api": [], "docs": ["first", "api"]}
    assert world.tree(f"orchgit/{world.name}/integration")["docs/api.md"] == "# by api\nand docs"
    world.run("audit")


def test_what_nobody_could_grant_is_refused_at_once(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work(
        "api", turn(write("src/api/a.py", "a = 1\n")), turn(ask("**/package.json", "../up")), turn(ask("/etc/passwd"))
    )
    world.start(book, "--yes")
    assert not world.events("scope.amendment_asked"), "what is no pattern of a plan goes back to the agent"


def test_asking_without_end_is_a_failed_attempt(world: World) -> None:
    config = world.repo / ".orchestration" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('[run]\nattempts = 1\n[agents.api-agent]\ngrant = ["docs/*"]\n')
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(write("src/api/a.py", "a = 1\n")), *(turn(ask(f"docs/{n}.md")) for n in range(5)))
    world.start(book, "--yes", code=4)
    assert len(world.events("scope.amendment_asked")) == 3
    assert "4 times in one attempt" in world.one("agent.failed")["data"]["message"]


def test_killed_while_it_waits_for_the_answer(world: World) -> None:
    with Terminal(world, *world.start_args(asking(turn(write("docs/api.md", "# The route\n"))), "--yes")) as person:
        person.expect("Grant it")
    world.none_left()
    world.run("grant", "api")
    world.run("resume")
    assert world.tree(f"orchgit/{world.name}/integration")["docs/api.md"] == "# The route"
    assert len(world.events("assignment.started")) == 1
    world.run("audit")


def test_at_the_terminal(world: World) -> None:
    with Terminal(world, *world.start_args(asking(turn(write("docs/api.md", "# The route\n"))), "--yes")) as person:
        shown = person.expect("Grant it")
        assert "docs/api.md" in shown
        assert "the route is to be described" in shown
        person.type("y")
        person.expect("completed")
        person.end(0)
    assert "docs/api.md" in world.tree(f"orchgit/{world.name}/integration")


def test_aborted_while_it_waits_its_work_is_kept(world: World) -> None:
    world.start(asking(), "--yes", code=4)
    world.run("abort", world.name)
    world.run("resume", world.name, code=None)
    kept = world.one("salvage.kept")["data"]
    assert world.tree(kept["commit"])["src/api/a.py"] == "a = 1"
    assert not world.cells_left()
    world.run("audit")
