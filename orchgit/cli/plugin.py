"""`orchgit plugin`: where the Claude Code plugin lies that comes with this package, and how to use it there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer


def place() -> Path:
    return Path(str(files("orchgit").joinpath("plugin")))


def command(
    path: Annotated[bool, typer.Option("--path", help="Only the path: claude --plugin-dir $(orchgit plugin --path)")]
    = False,
) -> int:  # fmt: skip
    """Where the Claude Code plugin is, and how to install it."""
    if path:
        print(place())
        return 0
    print(
        f"The Claude Code plugin of this orchgit: {place()}\n\n"
        "for one session:\n"
        "  claude --plugin-dir $(orchgit plugin --path)\n"
        "for all, from inside Claude Code:\n"
        f"  /plugin marketplace add {place()}\n"
        "  /plugin install orchgit@orchgit\n\n"
        "It brings /orchgit:start, approve, status, watch, answer and report, and an orchestrator and a reviewer.\n"
        "Its hook tells a worker in a cell early what is out of scope. Hooks fail open: what holds is the sandbox\n"
        "and the gate, with or without the plugin."
    )
    return 0
