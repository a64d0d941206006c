"""The watchdog's policies in a whole run: tell, pause, stop; and `orchgit watch`, which looks on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import Book, World, bash, make, piece, report, turn, write

# Writable by the sandbox, which goes by directories, and outside the scope.
STRAY = "src/api/notes.txt"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def straying(then: str) -> Book:
    """Attempt 1 touches a path outside its scope and goes on; attempt 2 does not."""
    book = Book(piece("api", "api-agent", ["src/api/*.py"], checks=["ls src/api"]))
    book.work("api", turn(bash(f"echo x > {STRAY}; {then}")), turn(write("src/api/a.py", "a = 1\n")), turn(report()))
    return book.work("api", turn(write("src/api/a.py", "a = 2\n")))


def policy(world: World, name: str) -> None:
    config = world.repo / ".orchestration" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    told = world.root / "told"
    config.write_text(f'[watch]\npolicy = "{name}"\n[notify]\ncommand = ["sh", "-c", "echo \\"$0\\" >> {told}"]\n')


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ticking(world: World) -> tuple[str, Path]:
    """A command that counts, in the background too, as long as it runs; and where."""
    log = world.root / "tmp" / "ticks"
    loop = "while :; do echo t >> $TMPDIR/ticks; sleep 0.05; done"
    return f"setsid sh -c '{loop}' & for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; kill %1; rm {STRAY}", log


def inside(world: World) -> dict[int, str]:
    """What runs in a cell, the keeper not among it: (pid, state)."""
    found = {}
    for pid, line in world.processes().items():
        if "keeper.main(" in line or "-m orchgit" in line:
            continue
        try:
            if "/cell" in os.readlink(f"/proc/{pid}/cwd") or "/api-1" in os.readlink(f"/proc/{pid}/cwd"):
                found[pid] = state(pid)
        except OSError:
            continue
    return found


def test_paused_until_a_human_lets_it_go_on(world: World) -> None:
    policy(world, "pause")
    command, _ = ticking(world)
    child = world.spawn(*world.start_args(straying(command), "--yes"))
    paused = world.wait_event("agent.paused")
    assert (paused["data"]["path"], paused["data"]["attempt"]) == (STRAY, 1)
    world.wait_for(lambda: set(inside(world).values()) == {"T"}, f"all stand still: {inside(world)}")
    target = f"{world.name}/api"
    status = world.run("status", world.name)
    assert "paused" in status.out
    assert f"orchgit resume {target}" in status.out
    assert f"orchgit abort {target}" in status.out
    assert world.run("status", world.name, "--json").json["assignments"]["api"]["paused"] == STRAY
    world.wait_for(lambda: (world.root / "told").exists(), "the notify command")
    assert STRAY in (world.root / "told").read_text()
    assert len(inside(world)) >= 2, "the one in the background is among them"
    before = world.events()
    assert not [ev for ev in before if ev["type"] == "agent.reported"]
    world.run("resume", target)
    assert child.wait(60) == 0, world.said(child)
    (continued,) = world.events("agent.continued")
    assert continued["actor"] == {"kind": "human", "id": "ada"}
    assert not continued["data"]["stop"]
    # It tidied up after itself, so the same attempt passed.
    assert [ev["data"]["attempt"] for ev in world.events("gate.passed")] == [1]
    assert "PAUSED" in world.said(child)
    assert "not paused" in world.run("resume", target, code=1).err
    world.run("audit")
    world.none_left()


def test_paused_and_stopped_by_a_human(world: World) -> None:
    policy(world, "pause")
    child = world.spawn(*world.start_args(straying("sleep 300"), "--yes"))
    world.wait_event("agent.paused")
    world.run("abort", f"{world.name}/api")
    assert child.wait(60) == 0, world.said(child)
    failed = world.one("agent.failed")["data"]
    assert (failed["status"], STRAY in failed["message"]) == ("stopped", True)
    assert STRAY in " ".join(world.events("assignment.started")[1]["data"]["feedback"])
    assert [ev["data"]["attempt"] for ev in world.events("gate.passed")] == [2]
    world.run("audit")
    world.none_left()


def test_a_paused_one_ends_with_its_run_and_with_its_engine(world: World) -> None:
    policy(world, "pause")
    child = world.spawn(*world.start_args(straying("sleep 300"), "--yes"))
    world.wait_event("agent.paused")
    child.send_signal(signal.SIGKILL)
    child.wait()
    world.none_left()
    assert "no engine" in world.run("resume", f"{world.name}/api", code=1).err
    # Lost with its engine, it begins again.
    again = world.spawn("resume", world.name)
    world.wait_event("agent.paused", 2)
    world.run("abort", world.name)
    assert again.wait(60) == 1, world.said(again)
    assert world.events("run.aborted")
    world.none_left()


def test_the_policy_stop_gives_the_path_as_feedback(world: World) -> None:
    policy(world, "stop")
    world.start(straying("sleep 300"))
    assert STRAY in world.one("agent.failed")["data"]["message"]
    assert STRAY in " ".join(world.events("assignment.started")[1]["data"]["feedback"])
    world.none_left()


def test_the_policy_tell_only_tells(world: World) -> None:
    world.start(straying(f"sleep 0.5; rm {STRAY}"))
    assert world.one("scope.violation_seen", layer="watchdog")["data"]["path"] == STRAY
    assert not world.events("agent.paused")
    assert len(world.events("gate.passed")) == 1


def test_watch_follows_a_run_to_its_end(world: World) -> None:
    policy(world, "pause")
    engine = world.spawn(*world.start_args(straying(f"sleep 1; rm {STRAY}"), "--yes"))
    world.wait_event("run.started")
    told, as_json = world.spawn("watch"), world.spawn("watch", "--json", world.name)
    world.wait_for(lambda: f"orchgit resume {world.name}/api" in world.said(told), "what it waits for")
    world.run("resume", f"{world.name}/api")
    assert (engine.wait(60), told.wait(60), as_json.wait(60)) == (0, 0, 0)
    assert "run completed" in world.said(told)
    assert "OUT OF SCOPE" in world.said(told)
    end = world.one("run.completed")["seq"]  # what is published after it is not waited for
    assert [json.loads(line)["seq"] for line in world.said(as_json).splitlines()] == list(range(end + 1))
    # Of one that is over, the whole story at once.
    assert "run completed" in world.run("watch").out
    # Reading, it has changed nothing.
    world.run("audit")


def test_watch_ends_at_ctrl_c_and_the_run_does_not(world: World) -> None:
    child = world.spawn(*world.start_args(straying("sleep 2; rm {STRAY}"), "--yes"))
    world.wait_event("agent.started", purpose="work")
    looking = world.spawn("watch", "-v")
    world.wait_for(lambda: "asked to work" in world.said(looking))
    looking.send_signal(signal.SIGINT)
    assert looking.wait(20) == 130
    assert child.wait(60) == 0
