"""`orchgit mcp`: inside a cell, the job as an MCP server on standard input and output, for agents that speak it.

It can do nothing that its agent may not: it reads the brief's file and writes the hand-in's, in the same sandbox. Where
this is no cell (the plugin starts it in every session), it has nothing to offer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchgit.agents import ResultTool
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.agents import Purpose

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
ASKED = {
    "type": "object", "additionalProperties": False, "required": ["question"],
    "properties": {
        "question": {"type": "string", "description": "answerable by somebody who has not seen your work"},
        "done": {"type": "string", "description": "what is done so far"},
    },
}  # fmt: skip
HANDED_IN = "Handed in. End your work now."


@dataclass(frozen=True)
class Tool:
    """`call` raises ValueError with words that the agent can act on."""

    name: str
    description: str
    schema: Mapping[str, Any]
    call: Callable[[Mapping[str, Any]], str]


def command() -> int:
    """Inside a cell: the job as an MCP server on stdio."""
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise OrchgitError(
            Kind.UNAVAILABLE, "the package mcp is not installed", "orchgit's extra of this name brings it",
            "pip install 'orchgit[mcp]', or use orchgit report-work and orchgit request-scope",
        )  # fmt: skip
    brief = _brief()
    offered = tools(brief) if brief else ()
    import anyio

    anyio.run(_serve, offered)
    return 0


def _brief() -> str:
    """ "" outside a cell."""
    from orchgit.agents import handin

    place = os.environ.get(handin.BRIEF)
    if not place or not os.environ.get(handin.RESULT):
        if sys.stdin.isatty():
            why = f"{handin.BRIEF} is not set: only an agent of a run has a job"
            raise OrchgitError(
                Kind.USAGE, "this is no cell", why, "it is for an MCP client, on standard input and output"
            )
        return ""
    try:
        return Path(place).read_text("utf-8", "replace")
    except OSError as error:
        raise OrchgitError(Kind.USAGE, "the brief cannot be read", str(error)) from error


def tools(brief: str) -> tuple[Tool, ...]:
    """What an agent with this brief may call: two that tell, and its job's ways to end."""
    from typing import get_args

    from orchgit.agent_run import results
    from orchgit.agents import Purpose
    from orchgit.brief import MARK

    job = next((line for line in brief.splitlines() if line.startswith(MARK)), "").removeprefix(MARK)
    purpose: Purpose | None = next((p for p in get_args(Purpose) if job.partition("/")[0] == p), None)
    if purpose is None:
        raise OrchgitError(Kind.USAGE, "the brief names no job", f"no line of it begins with {MARK!r}")
    made = [
        Tool("brief", "Your brief: task, interface, scope, checks.", NOTHING, lambda _: brief),
        Tool("scope", "Which paths you may touch.", NOTHING, lambda _: section(brief, "# Scope")),
    ]
    ways = {way.name: way for way in results(purpose)}
    made += [Tool(way.name, way.description, way.schema, _ending(way)) for way in ways.values()]
    if "report" in ways:
        report = _ending(ways["report"])
        said = "Something that only a human can decide. Ends your work; it stops until that is answered."
        made += [Tool(name, said, ASKED, lambda given: report(_blocked(given))) for name in ("blocker", "question")]
    if "ask_questions" in ways:
        ask = _ending(ways["ask_questions"])
        said = "A question to the human, before you plan. Ends your work until it is answered."
        made.append(Tool("question", said, ASKED, lambda given: ask({"questions": [given.get("question", "")]})))
    return tuple(made)


def _ending(way: ResultTool) -> Callable[[Mapping[str, Any]], str]:
    from orchgit.agents import handin

    def call(given: Mapping[str, Any]) -> str:
        way.parse(given)
        handin.write(way.name, given)
        return HANDED_IN

    return call


def _blocked(given: Mapping[str, Any]) -> dict[str, Any]:
    if not str(given.get("question", "")).strip():
        raise ValueError("question: say what is to be decided")
    return {"summary": given.get("done") or "blocked", "blockers": [given["question"]]}


def section(text: str, heading: str) -> str:
    """What stands below this heading, up to the next one; all of the text where there is none."""
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    return rest.partition("\n# ")[0].strip() if found else text


async def _serve(offered: tuple[Tool, ...]) -> None:
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server

    from orchgit import __version__

    by_name = {tool.name: tool for tool in offered}

    async def listed(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[types.Tool(name=t.name, description=t.description, input_schema=dict(t.schema)) for t in offered]
        )

    async def called(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        tool, failed = by_name.get(asked.name), False
        try:
            text = tool.call(asked.arguments or {}) if tool else ""
        except (ValueError, OSError) as error:
            text, failed = str(error), True
        if tool is None:
            text, failed = f"there is no tool {json.dumps(asked.name[:100])}; there are {', '.join(by_name)}", True
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    server: Any = Server("orchgit", version=__version__, on_list_tools=listed, on_call_tool=called)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
