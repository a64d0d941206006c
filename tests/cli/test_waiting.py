"""A service that asks for patience: nothing fails, all of its agents wait, and an engine that dies is replaced by one
that goes on waiting. Over the real SDK, a real server, and a real kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.messages_server import MessagesServer
from tests.support.scenario import Book, Turn, World, bash, make, piece, report, turn, write

pytest.importorskip("anthropic")
KEY = "sk-ant-test-0123456789"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def limited(status: int, seconds: float, times: int = 1) -> dict[str, Any]:
    after = {"retry_after": str(seconds)}
    return {"error": {"status": status, "times": times, "message": "slow down \x1b[31m", **after}}


def served(world: World, book: Book) -> MessagesServer:
    server = MessagesServer(json.loads(book.json()), key=KEY)
    world.extra_env |= {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
    return server


def start(world: World, *args: str) -> list[str]:
    return ["start", str(world.issue()), "--backend", "anthropic", "--yes", *args]


def epoch(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def two(*then: Turn) -> Book:
    """`api` is told to wait after its first turn; `web` works at the same time, in more turns."""
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/a.py"]),
        piece("web", "frontend-agent", ["src/web/**"], checks=["cat src/web/b.html"]),
    )
    book.jobs["work/api/1"] = [turn(write("src/api/a.py", "one\n")), *then, turn(report())]
    book.jobs["work/web/1"] = [turn(write("src/web/b.html", "two\n")), turn(bash("sleep 2")), turn(report())]
    return book


def test_killed_in_a_wait_the_next_engine_waits_on(world: World) -> None:
    wait_s = 9
    book = two({**turn(bash("cat src/api/a.py")), **limited(429, wait_s)})
    with served(world, book) as server:
        engine = world.spawn(*start(world))
        note = world.wait_event("agent.waiting", member="api-agent")
        until = epoch(note["data"]["until"])
        asked = time.time()
        assert wait_s - 4 < until - asked <= wait_s + 1
        assert (note["data"]["backend"], note["data"]["used"]["calls"]) == ("anthropic", 1)
        # All of them wait: the other one was never refused, and still makes no call before the time has come.
        world.wait_event("agent.waiting", member="frontend-agent")
        for said in (world.run("status").out, world.run("status", world.name, "--json").out):
            assert "429" in said
            assert "\x1b" not in said
        assert f"api-agent waits until {note['data']['until'][:10]}" in world.run("status").out
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
        world.none_left()
        made = len(server.requests)
        assert "waits until" in world.run("status").out
        resumed = world.spawn("resume")
        world.wait_event("run.resumed")
        while time.time() < until - 0.3:
            assert len(server.requests) == made, "a call was made before the time had come"
            assert resumed.poll() is None, world.said(resumed)
            time.sleep(0.1)
        assert resumed.wait(90) == 0, world.said(resumed)
        assert not server.problems
    assert "WAITS until" in world.said(engine)
    gone_on = world.one("agent.waited", member="api-agent")
    assert epoch(gone_on["time"]) >= until - 0.05
    # Nothing failed, nothing began anew, no try was counted; the conversation went on where it was.
    assert not world.events("agent.failed")
    for name in ("api", "web"):
        assert len(world.events("agent.requested", assignment=name)) == 1
        assert world.one("gate.passed", assignment=name)["data"]["attempt"] == 1
    assert len(world.events("agent.started", purpose="work")) == 2
    after = [r for r in server.requests[made:] if "work/api/1" in str(r["messages"][0])]
    assert [len(r["messages"]) for r in after] == [3, 5]
    assert "one" in str(after[1]["messages"][-1]), "its file was there when it went on"
    # What it took before the kill counts on; the wait itself was no work.
    for member, calls in (("api-agent", 3), ("frontend-agent", 3)):
        exited = world.one("agent.exited", member=member)["data"]
        assert exited["calls"] == calls
        assert exited["unsure_tokens"] == 0
    slept = epoch(world.events("agent.exited")[-1]["time"]) - asked
    assert world.one("agent.exited", member="api-agent")["data"]["duration_ms"] < (slept - wait_s + 4) * 1000
    world.run("audit")
    assert world.cells_left() == []


def test_patience_ends_at_a_human(world: World) -> None:
    """A wait that is longer than the configuration allows stops the run, and says for how long it would have been."""
    book = two({**turn(bash("cat src/api/a.py")), **limited(529, 7200)})
    book.jobs |= {"work/api/2": two().jobs["work/api/1"], "work/web/2": book.jobs["work/web/1"]}
    world.put({".orchestration/config.toml": "[agents]\npatience_s = 600\n"})
    with served(world, book) as server:
        said = world.run(*start(world), code=5).err
        assert "it would wait until" in said
        assert "patience_s is 600" in said
        assert f"orchgit resume {world.name}" in said
        assert {(f["data"]["status"], f["data"]["lost"]) for f in world.events("agent.failed")} == {
            ("unavailable", False)
        }
        # A resume asks again, and the tries were not counted.
        world.run("resume")
        assert not server.problems
    assert world.one("assignment.started", assignment="api", attempt=2)["data"]["counted"] == 1


def test_a_refused_key_stops_at_once_with_what_to_type(world: World) -> None:
    with served(world, two()) as server:
        server.key = "another"
        began = time.monotonic()
        said = world.run(*start(world), code=5).err
        assert time.monotonic() - began < 20
        assert len(server.requests) == 0
    assert "the key was refused" in said
    assert "export ANTHROPIC_API_KEY=" in said
    assert f"orchgit resume {world.name}" in said
    assert KEY not in said
