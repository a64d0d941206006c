"""The MCP server, by the official client over stdio: the server in the sandbox, the client outside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the package mcp is not installed; pip install 'orchgit[mcp]'")

import anyio
import mcp

from orchgit.agent_run import confinement, results
from orchgit.agents import HandIn, handin
from orchgit.cli.mcp import tools
from orchgit.core.errors import OrchgitError
from orchgit.git import cells
from orchgit.sandbox import base_env
from tests.support.repos import repository, sandbox
from tests.support.scenario import SOURCE

BRIEF = "You are a worker.\n\norchgit-job: {job}\n\n# Scope\n\nAllowed:\n- src/**\n\n# The whole\n\nmore\n"


class Cell:
    def __init__(self, root: Path, job: str = "work/api/1") -> None:
        repo = repository(root / "repo", {"src/a.py": b"a\n", "docs/b.md": b"b\n"})
        self.door = repo.door()
        self.cell = cells.make(self.door, root / "cell", repo.commit())
        self.files: HandIn = handin.prepare(self.cell.tmp, BRIEF.format(job=job))

    def talk(self, say: Callable[[mcp.ClientSession], Awaitable[Any]]) -> Any:
        """Start the server as an agent would, in the cell's sandbox, and talk to it."""
        way, _ = sandbox()
        writable = (str(self.cell.work / "src"), str(self.cell.git), str(self.cell.home))
        words = [sys.executable, "-m", "orchgit", "mcp"]
        argv = way.argv(confinement(self.cell, writable), words)
        env = base_env(str(self.cell.home), str(self.cell.tmp), extra=handin.environment(self.files))
        env["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, sys.path)])
        server = mcp.StdioServerParameters(command=argv[0], args=argv[1:], env=env, cwd=str(self.cell.work))

        async def run() -> Any:
            async with mcp.stdio_client(server) as (read, write), mcp.ClientSession(read, write) as session:
                await session.initialize()
                return await say(session)

        return anyio.run(run)

    @property
    def taken(self) -> Any:
        return handin.take(self.files, results("work"))


def test_what_a_worker_is_offered_and_what_comes_of_it(tmp_path: Path) -> None:
    cell = Cell(tmp_path)

    async def say(session: mcp.ClientSession) -> dict[str, Any]:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(listed) == {"brief", "scope", "report", "request_scope", "blocker", "question"}
        assert "summary" in listed["report"].input_schema["properties"]
        said: dict[str, Any] = {}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("brief", {}), ("scope", {}), ("report", {"summary": 3}), ("blocker", {"question": " "}),
            ("request_scope", {"paths": ["../up"], "why": "x"}), ("write", {"path": "docs/b.md"}),
            ("report", {"summary": "built"}),
        ]  # fmt: skip
        for name, given in calls:
            done: Any = await session.call_tool(name, given)
            said[f"{name} {json.dumps(given)}"] = (done.is_error, done.content[0].text)
        return said

    said = cell.talk(say)
    assert said["brief {}"] == (False, BRIEF.format(job="work/api/1"))
    assert said["scope {}"] == (False, "Allowed:\n- src/**")
    assert said['report {"summary": 3}'][0]
    assert "summary" in said['report {"summary": 3}'][1]
    assert said['request_scope {"paths": ["../up"], "why": "x"}'][0]
    assert said['blocker {"question": " "}'][0]
    assert said['write {"path": "docs/b.md"}'][0]
    assert cell.taken == ("report", {"summary": "built"})


def test_other_jobs_have_their_own_ways_to_end() -> None:
    assert {tool.name for tool in tools(BRIEF.format(job="plan/1"))} == {
        "brief", "scope", "propose_plan", "ask_questions", "question",
    }  # fmt: skip
    assert {tool.name for tool in tools(BRIEF.format(job="review/x/1"))} == {"brief", "scope", "report_review"}
    with pytest.raises(OrchgitError, match="names no job"):
        tools("no job at all")


def test_asking_is_handing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = handin.prepare(tmp_path, "")
    for name, value in handin.environment(files).items():
        monkeypatch.setenv(name, value)
    offered = {tool.name: tool for tool in tools(BRIEF.format(job="work/api/1"))}
    offered["request_scope"].call({"paths": ["docs/b.md"], "why": "to say it"})
    assert handin.take(files, results("work")) == ("request_scope", {"paths": ["docs/b.md"], "why": "to say it"})
    offered["question"].call({"question": "Which currency?"})
    assert handin.take(files, results("work")) == ("report", {"summary": "blocked", "blockers": ["Which currency?"]})
    offered = {tool.name: tool for tool in tools(BRIEF.format(job="plan/1"))}
    offered["question"].call({"question": "Which currency?"})
    assert handin.take(files, results("plan")) == ("ask_questions", {"questions": ["Which currency?"]})


def test_outside_a_cell_it_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(tmp_path)
    monkeypatch.setattr(handin, "environment", lambda files: {})

    async def names(session: mcp.ClientSession) -> list[str]:
        return [tool.name for tool in (await session.list_tools()).tools]

    assert cell.talk(names) == []
