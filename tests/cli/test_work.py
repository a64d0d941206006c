"""A person as a worker: the engine waits, the shell is confined, and what is handed in goes the way of all work.

More of it with: pytest -m whole tests/cli/test_work.py
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import FILES, Book, Terminal, World, make, piece, turn, write

ADA = """---
name: ada
description: A person.
backend: human
---

Ada does her part.
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The agents are scripted, but for one worker."""
    made = make(tmp_path, {**FILES, ".claude/agents/ada.md": ADA})
    yield made
    made.close()


def begin(world: World, *pieces: dict[str, object], config: str = "") -> None:
    """A run up to where it waits for ada."""
    book = Book(piece("api", "ada", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]), *pieces)
    for one in pieces:
        book.work(str(one["id"]), turn(write(f"docs/{one['id']}.md", "x\n")))
    text = f'[agents]\nbackend = "scripted"\n[scripted]\nplaybook = "{world.playbook(book)}"\n{config}'
    world.put({".orchestration/config.toml": text})
    world.spawn("start", str(world.issue()), "--yes")
    world.wait_event("agent.started", backend="human")
    world.wait_for(lambda: list((world.root / "state").rglob("desk.json")), "the desk")


def ended(world: World) -> None:
    world.wait_event("run.completed")
    world.children[-1].wait(20)


def engine_cpu_s(world: World) -> float:
    fields = Path(f"/proc/{world.children[-1].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_at_the_terminal(world: World) -> None:
    begin(world)
    told = world.run("status").out
    assert f"orchgit work {world.name}/api" in told
    assert f"orchgit work {world.name}/api" in world.said(world.children[-1])
    before = engine_cpu_s(world)
    with Terminal(world, "work", f"{world.name}/api", env={"SHELL": "/bin/sh"}) as person:
        shown = person.expect("api cell . ")
        assert "# Assignment: api" in shown
        assert "src/api/**" in shown
        person.type("echo 'billing = 1' > src/api/billing.py; echo mine > docs/index.md; echo left=$HOME")
        assert "docs/index.md" in person.expect(r"left=/\S+/home")
        second = world.run("work", "api", "-c", "true", code=1)
        assert "somebody works there already" in second.err
        person.type("exit")
        person.expect("How does it stand")
        person.type("g")
        person.expect("api cell . ")
        person.type("cat src/api/billing.py; exit")
        person.expect("billing = 1")
        person.expect("How does it stand")
        person.type("d")
        person.type("billing, by hand\nas it was asked for\n")
        person.expect("handed in; the engine goes on")
        person.end(0)
    assert engine_cpu_s(world) - before < 1.5, "it waits, and does nothing else"
    ended(world)
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert tree["src/api/billing.py"] == "billing = 1"
    assert tree["docs/index.md"] == "# Docs"
    assert world.one("agent.reported")["data"]["summary"] == "billing, by hand\nas it was asked for"
    assert world.one("agent.exited", member="ada")["data"]["cost_micro"] == 0
    world.run("audit")
    world.none_left()
    assert "no person is waited for" in world.run("work", "api", code=1).err


@pytest.mark.whole
def test_not_done_yet_it_stays_theirs(world: World) -> None:
    begin(world)
    with Terminal(world, "work", "api", env={"SHELL": "/bin/sh"}) as person:
        person.expect("api cell . ")
        person.type("echo 'billing = 1' > src/api/billing.py; exit")
        person.expect("How does it stand")
        person.type("n")
        person.expect(f"to go on: orchgit work {world.name}/api")
        person.end(4)
    assert not world.events("agent.exited", member="ada")
    world.run("work", "api", "-c", "cat src/api/billing.py", "--summary", "done now")
    ended(world)
    world.run("audit")


@pytest.mark.whole
def test_scope_and_blockers_are_asked_for_the_same_way(world: World) -> None:
    begin(world)
    with Terminal(world, "work", "api", env={"SHELL": "/bin/sh"}) as person:
        person.expect("api cell . ")
        person.type("exit")
        person.expect("How does it stand")
        person.type("s\ndocs/index.md\nto say it\n")
        person.expect("handed in")
        person.end(0)
    world.wait_event("scope.amendment_asked")
    world.children[-1].wait(20)
    world.run("grant", "api")
    world.spawn("resume")
    world.wait_event("agent.started", count=2, backend="human")
    done = world.run("work", "api", "-c", "echo billing | tee src/api/billing.py > docs/index.md", "--summary", "both")
    assert "docs/index.md" in done.err, "the brief names what was granted"
    ended(world)
    assert world.tree(f"orchgit/{world.name}/integration")["docs/index.md"] == "billing"
    world.run("audit")


@pytest.mark.whole
def test_the_commands_of_a_cell_work_in_the_shell(world: World) -> None:
    begin(world)
    report = json.dumps({"report": {"summary": "by the file", "blockers": ["which currency?"]}})
    world.run("work", "api", "-c", f"echo '{report}' > $ORCHGIT_RESULT")
    world.wait_event("blocker.raised")
    world.children[-1].wait(20)
    assert "which currency?" in world.run("status").out


@pytest.mark.whole
def test_a_command_that_fails_hands_nothing_in(world: World) -> None:
    begin(world)
    assert "nothing is handed in" in world.run("work", "api", "-c", "exit 3", "--summary", "no", code=3).err
    assert "cannot be handed in" in world.run("work", "api", "-c", "true", "--summary", "x" * 2000, code=2).err
    assert not world.events("agent.exited", member="ada")


def test_the_engine_may_die_meanwhile_and_the_work_goes_on(world: World) -> None:
    begin(world)
    os.kill(world.children[-1].pid, signal.SIGKILL)
    world.children[-1].wait()
    told = world.run("work", "api", "-c", "echo billing > src/api/billing.py", "--summary", "without an engine").err
    assert f"orchgit resume {world.name} takes it" in told
    world.run("resume")
    assert len(world.events("assignment.started")) == 1, "nothing was lost"
    assert world.one("agent.reported")["data"]["summary"] == "without an engine"
    world.run("audit")


def test_an_abort_ends_the_wait_and_keeps_the_work(world: World) -> None:
    begin(world)
    world.run("work", "api", "-c", "echo half > src/api/billing.py; kill -9 $$", code=137)
    world.run("abort", world.name)
    world.wait_event("run.aborted")
    kept = world.one("salvage.kept")["data"]["commit"]
    assert world.tree(kept)["src/api/billing.py"] == "half"


def test_a_deadline_that_is_configured_is_kept(world: World) -> None:
    begin(world, config="[run]\nattempts = 1\n[human]\ndeadline_s = 1\n")
    world.wait_event("agent.failed")
    assert world.one("agent.exited", member="ada")["data"]["status"] == "time"


def test_a_person_cannot_be_the_orchestrator(world: World) -> None:
    refused = world.run("start", str(world.issue()), "--backend", "human", code=2)
    assert "workers only" in refused.err
    assert not world.names()


@pytest.mark.whole
def test_others_go_on_meanwhile(world: World) -> None:
    begin(world, piece("docs", "docs-agent", ["docs/docs.md"], checks=["ls docs"]))
    world.wait_event("merge.done")
    assert not world.events("agent.exited", member="ada")
    time.sleep(0.2)
    world.run("work", "api", "-c", "echo billing > src/api/billing.py", "--summary", "late")
    ended(world)
