"""A run over its budget stops before it spends, not after, and loses nothing; over the real SDK and a real server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_cli
from tests.support.messages_server import MessagesServer
from tests.support.scenario import Book, Turn, World, bash, make, piece, report, turn, write

pytest.importorskip("anthropic")
KEY = "sk-ant-test-0123456789"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def served(world: World, book: Book) -> MessagesServer:
    server = MessagesServer(json.loads(book.json()), key=KEY)
    world.extra_env |= {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
    return server


def start(world: World, *args: str) -> list[str]:
    return ["start", str(world.issue()), "--backend", "anthropic", "--yes", *args]


def costly(*calls: Any, output: int = 30_000) -> Turn:
    """A turn of 0.30 dollars."""
    usage = {"input_tokens": 5, "cache_read_input_tokens": 300, "output_tokens": output}
    return {**turn(*calls), "usage": usage}


def charged(world: World) -> int:
    """Micro-dollars of all that the log says was spent."""
    return sum(e["data"]["cost_micro"] + e["data"]["unsure_micro"] for e in world.events("agent.exited"))


def two_workers() -> Book:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/a.py"]),
        piece("web", "frontend-agent", ["src/web/**"], checks=["cat src/web/b.html"]),
    )
    # Every one of them says all there is to say: a reply that is cut off is lost, and the next one takes its place.
    for name, path in (("api", "src/api/a.py"), ("web", "src/web/b.html")):
        calls = [bash(f"printf 'one\\n{name}\\n' > {path} # {n}") for n in range(5)]
        book.jobs[f"work/{name}/1"] = [*map(costly, calls), turn(report(f"{name} is there"))]
    return book


def test_out_of_budget_the_run_stops_before_it_spends_and_goes_on_when_it_is_raised(world: World) -> None:
    world.put({".orchestration/config.toml": "[budget]\ncost_usd = 1.00\n"})
    with served(world, two_workers()) as server:
        stopped = world.run(*start(world), code=4)
        assert f"orchgit raise {world.name} --usd" in stopped.err
        assert 600_000 < charged(world) <= 1_000_000
        # Two at the same time drew on one budget; what either may write was cut to what was left.
        assert min(r["max_tokens"] for r in server.requests) < 32_000
        halted = {e["data"]["assignment"] for e in world.events("agent.halted", budget="run")}
        assert halted
        blocker = world.one("blocker.raised")["data"]
        assert (blocker["cause_kind"], blocker["about"]) == ("budget", "")
        assert "of the budget of $1.00 are spent" in blocker["text"]
        status = world.run("status").out
        assert "spent of a budget of $1.00: $" in status
        assert "api-agent        work/api attempt 1 $" in status
        made = len(server.requests)
        # Neither a resume nor an empty answer spends money that nobody gave.
        assert world.run("resume", code=4)
        assert "orchgit raise" in world.run("answer", world.name, "go on", code=1).err
        assert len(server.requests) == made
        assert world.run("raise", world.name, "--usd", "0", code=2).err
        assert "no engine is alive" in world.run("raise", world.name, "--usd", "4").out
        world.run("resume")
        assert not server.problems
        assert charged(world) <= 5_000_000
        # It went on where it had stopped: same attempt, same conversation, same cell.
        for name in halted:
            assert len(world.events("assignment.started", assignment=name)) == 1
            assert len(world.events("agent.requested", assignment=name)) == 2
            after = [r for r in server.requests[made:] if f"work/{name}/1" in str(r["messages"][0])]
            assert len(after[0]["messages"]) > 1
    assert not world.events("agent.failed")
    assert world.tree(f"orchgit/{world.name}/integration")["src/api/a.py"] == "one\napi"
    said = world.run("report").out
    assert "| **in all** of a budget of $5.00 |" in said
    assert "| work/api, attempt 1 |" in said
    whole = world.run("report", "--json").json["spent"]["in_all"]
    assert whole["cost_micro"] == charged(world)
    assert whole["cached"] > 0
    audit = world.run("audit", "--json").json
    assert {law["verdict"] for law in audit["laws"]} == {"pass"}


def test_an_engine_that_died_has_spent_what_it_has_spent(world: World) -> None:
    """Killed in the middle of a call: what its transcript shows, and the call that was under way at its worst."""
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/a.py"]))
    slow = {**costly(bash("true")), "delay_ms": 60_000}
    book.jobs["work/api/1"] = [costly(write("src/api/a.py", "one\n")), slow]
    world.put({".orchestration/config.toml": "[budget]\nassignment_cost_usd = 0.70\n"})
    with served(world, book) as server:
        engine = world.spawn(*start(world))
        world.wait_for(lambda: sum("work/api/1" in str(r["messages"][0]) for r in server.requests) == 2, "the call")
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
        world.none_left()
        made = len(server.requests)
        stopped = world.run("resume", code=4)
        lost = world.one("agent.exited", status="lost")["data"]
        assert (lost["calls"], lost["output_tokens"]) == (2, 30_000)
        assert lost["cost_micro"] == 300_040
        assert 300_000 < lost["unsure_micro"] <= 450_000
        # What is left is less than a call could cost: the next attempt makes none, and a human is asked.
        assert len(server.requests) == made
        blocker = world.one("blocker.raised")["data"]
        assert (blocker["cause_kind"], blocker["about"]) == ("budget", "api")
        assert "assignment api: $" in stopped.err
        assert f"orchgit raise {world.name}/api --usd" in stopped.err
        assert (
            "api-agent        work/api attempt 1 $0.30, at most $0.40 more for calls that broke off"
            in world.run("status").out
        )


REPLIES = """init()
for n in range(20):
    usage = {"input_tokens": 100_000, "output_tokens": 10_000}
    block = {"type": "text", "text": "told " + arg("--max-budget-usd")}
    say({"type": "assistant", "message": {"id": n, "model": "claude-sonnet-5-5", "usage": usage, "content": [block]}})
time.sleep(60)"""


def test_a_program_that_was_killed_with_its_engine_has_spent_too(world: World) -> None:
    """Its word on what it cost never came: 20 replies of 0.30 dollars, and it is told what those leave."""
    world.put({".orchestration/config.toml": "[budget]\ncost_usd = 10.0\n"})
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    fake_cli.install(world.root / "bin", "claude-2.1.330", REPLIES)
    world.extra_env["PATH"] = f"{world.root / 'bin'}:{os.environ['PATH']}"
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/a.py"]))
    args = world.start_args(book, "--yes", "--agent", "api-agent=claude")

    def told() -> str:
        return "".join(path.read_text() for path in world.runs.rglob("live/*.jsonl"))

    engine = world.spawn(*args)
    world.wait_for(lambda: told().count('"text": "told 10.0') == 20, "all replies")
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()
    world.none_left()
    world.run("resume", code=4)
    lost = world.one("agent.exited", status="lost")["data"]
    assert (lost["calls"], lost["cost_micro"]) == (20, None)
    assert 6_000_000 < lost["unsure_micro"] < 7_000_000
    (second,) = world.events("agent.exited", status="run_budget")
    assert second["data"]["calls"] <= 15
    assert world.one("blocker.raised")["data"]["cause_kind"] == "budget"


def test_a_price_that_nobody_knows_is_no_price_of_nothing(world: World) -> None:
    world.put({".orchestration/config.toml": '[budget]\ncost_usd = 1.00\n[agents]\nmodel = "claude-next-9"\n'})
    with served(world, two_workers()) as server:
        refused = world.run(*start(world), code=2)
        assert "what api-agent costs is unknown" in refused.err
        assert '[prices."claude-next-9"]' in refused.err
        assert "limit tokens instead" in refused.err
        assert not world.names()
        price = "input = 2.0\noutput = 10\ncache_read = 0.1\ncache_write = 2.5\n"
        config = '[budget]\ncost_usd = 0.2\n[agents]\nmodel = "claude-next-9"\n[prices.claude-next-9]\n'
        world.put({".orchestration/config.toml": config + price})
        world.run(*start(world), code=4)
        assert charged(world) <= 200_000
        assert not server.problems
