"""A run with a CLI agent in it, and how one is chosen: the whole command, with a program that speaks its stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_cli import install
from tests.support.scenario import Book, World, make, piece

KEY = "sk-ant-dummy-0123456789-never-to-be-seen"
CLAUDE, CODEX = "claude-2.1.330", "codex-0.169.0"
WRITE = "os.makedirs('src/api', exist_ok=True); open('src/api/billing.py', 'w').write('billing = 1\\n')"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    # Nothing that happens to be installed on this machine.
    made.extra_env["PATH"] = f"{tmp_path / 'bin'}:{Path(os.__file__).parents[2] / 'bin'}:/usr/bin:/bin"
    yield made
    made.close()


def book() -> Book:
    return Book(piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]))


def test_one_that_lies_and_then_works(world: World) -> None:
    """It reports, with exit status 0, and has done nothing; git knows better. Told so, it does."""
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    install(world.root / "bin", CLAUDE, f"if 'not the first attempt' in prompt: {WRITE}\ndone()")
    done = world.start(book(), "--agent", "api-agent=claude")
    assert "claude runs whole inside the sandbox, with its credential and an open network: api-agent" in done.err
    assert [ev["data"]["status"] for ev in world.events("agent.exited", member="api-agent")] == ["done", "done"]
    assert world.one("gate.failed")["data"]["violations"]
    assert "src/api/billing.py" in world.files(world.ref(f"{world.name}/integration"))
    started, ended = world.events("agent.started", member="api-agent"), world.events("agent.exited", member="api-agent")
    assert {(ev["data"]["backend"], ev["data"]["network"]) for ev in started} == {("claude", "open")}
    assert all(len(ev["data"]["conversation"]) == 36 and ev["data"]["cost_micro"] for ev in ended)
    assert {ev["data"]["network"] for ev in world.events("agent.started", member="orchestrator")} == {"none"}
    paths = {(ev["data"]["layer"], ev["data"]["path"]) for ev in world.events("scope.violation_seen")}
    assert paths == {("tool", "docs/evil.txt"), ("sandbox", "docs/evil2")}
    for path in (*world.runs.rglob("*"), *(world.root / "state").rglob("*")):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    world.none_left()


def test_a_flood_of_claims_is_told_in_part(world: World) -> None:
    """What its output says that was refused is in the log once each, and not without end."""
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    flood = """init()
say({"type": "assistant", "message": {"id": "m1", "model": "x", "usage": {}, "content": [
    {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "x"}}]}})
for n in (0, 0, *range(60)):
    text = " ".join(f"f{n}_{k}: Read-only file system" for k in range(5))
    say({"type": "user", "message": {"content": [
        {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": text}]}})
"""
    install(world.root / "bin", CLAUDE, f"{flood}{WRITE}\nlast()")
    world.start(book(), "--agent", "api-agent=claude")
    seen = [ev["data"] for ev in world.events("scope.violation_seen")]
    paths = [f"f{n}_{k}" for n in range(20) for k in range(5)]
    assert [s["path"] for s in seen] == [*paths, ""]
    assert "and more" in seen[-1]["what"]
    assert len(world.one("agent.exited", member="api-agent")["data"]["refused"]) == 20


def test_a_credential_that_is_refused_stops_at_once(world: World) -> None:
    world.extra_env["OPENAI_API_KEY"] = KEY
    failed = 'init(); say({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}})'
    install(world.root / "bin", CODEX, failed)
    done = world.start(book(), "--agent", "api-agent=codex", code=None)
    assert done.code in (4, 5)
    failure = world.one("agent.failed")["data"]
    assert (failure["status"], "codex login" in failure["hint"]) == ("auth", True)


def test_a_network_that_was_narrowed_is_kept(world: World) -> None:
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    install(world.root / "bin", CLAUDE)
    world.commit({".orchestration/config.toml": '[network]\nworker = "none"\n'})
    done = world.start(book(), "--agent", "api-agent=claude", code=2)
    assert "api-agent cannot work by claude with the network that it may have" in done.err
    assert '"auto"' in done.err
    assert not world.names()
    world.commit({".orchestration/config.toml": '[network]\nworker = "auto"\nreviewer = "none"\n'})
    assert world.run("start", str(world.issue()), "--backend", "claude", code=2).err.count("security-reviewer") >= 1


def test_what_is_here_is_taken_and_said(world: World) -> None:
    install(world.root / "bin", CLAUDE)
    install(world.root / "bin", CODEX)
    listed = world.run("agents", code=5).out
    assert "no   claude" in listed
    assert "Claude Code 2.1.330: not logged in" in listed
    assert "claude setup-token" in listed
    assert "codex login" in listed
    world.extra_env["OPENAI_API_KEY"] = KEY
    assert "yes  codex" in world.run("agents").out
    assert world.run("agents", "--json").json["codex"]["login"] == "OPENAI_API_KEY"
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    listed = world.run("agents").out
    assert "Claude Code 2.1.330, with ANTHROPIC_API_KEY (taken where none is configured)" in listed
    assert KEY not in listed
    refused = "init(); last(1, is_error=True, api_error_status=401, structured_output=None, result='bad key')"
    install(world.root / "bin", CLAUDE, refused)
    done = world.run("start", str(world.issue()), "--yes", code=None)
    assert "no backend is configured; using claude, which is here" in done.err
    assert world.one("agent.started")["data"]["backend"] == "claude"
    assert world.one("agent.failed")["data"]["message"] == "bad key"


def test_who_gets_what_by_flag(world: World) -> None:
    install(world.root / "bin", CLAUDE)
    world.extra_env["ANTHROPIC_API_KEY"] = KEY
    for given, words in (
        ("nobody=claude", "nobody has that name"),
        ("api-agent=cloud", "is not known"),
        ("api-agent=codex", "the Codex CLI is not installed"),
    ):
        done = world.start(book(), "--agent", given, code=None)
        assert (done.code in (2, 5), words in done.err) == (True, True), done
    assert not world.names()
