"""`orchgit report-work SUMMARY`: for an agent in a cell that has no tool for it.

It writes the hand-in file of the cell, and nothing else; the engine reads that when the agent ends.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchgit.core.errors import Kind, OrchgitError


def command(
    summary: Annotated[str, typer.Argument(help="What you did and why. Without it: a JSON object on stdin.")] = "",
    produced: Annotated[list[str], typer.Option(help="A path that you created or changed. Repeat.")] = [],  # noqa: B006
    blocker: Annotated[list[str], typer.Option(help="A question that only a human can answer. Repeat.")] = [],  # noqa: B006
    file: Annotated[str, typer.Option(help="A JSON object with summary, produced, blockers; - for stdin.")] = "",
) -> int:
    """Inside a cell: hand in the report."""
    from orchgit import wire
    from orchgit.agents import handin

    given: dict[str, Any] | str = {"summary": summary, "produced": produced, "blockers": blocker}
    if file or not summary:
        if summary or produced or blocker:
            raise OrchgitError(Kind.USAGE, "the report is given twice", "as arguments and as JSON", "give one of them")
        given = _read(file)
    try:
        report = wire.parse(wire.ReportIn, given)
    except ValueError as error:
        raise OrchgitError(Kind.USAGE, "that is no report", str(error), "orchgit report-work --help") from error
    handin.write("report", report.model_dump(mode="json"))
    print("handed in; end your work now")
    return 0


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file in ("", "-") else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OrchgitError(Kind.USAGE, f"{file or 'stdin'} cannot be read", str(error)) from error
