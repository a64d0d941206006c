"""`orchgit shell RUN/ASSIGNMENT`: a shell in a copy of what a running cell holds now.

A copy, because the cell belongs to the agent: its git configuration, hooks and rc files could run the agent's code as
you. The copy has your own shell, and git in it is a clone of ours with nothing of the agent's but its files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from orchgit.cli.common import split


def command(
    target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")],
    run: Annotated[str, typer.Option("--command", "-c", help="Run this instead of an interactive shell.")] = "",
) -> int:
    """A shell in a copy of a running cell."""
    from orchgit.cli.cell import snapshot
    from orchgit.git import cells

    name = split(target)
    door, start, left = snapshot(Path.cwd(), *name)
    with tempfile.TemporaryDirectory(prefix="orchgit-shell-") as folder:
        try:
            copy = cells.make(door, Path(folder) / "copy", left, who="look")
        finally:
            door.close()
        print(f"orchgit: a copy of {name[1]} as it is now; what you change here goes nowhere", file=sys.stderr)
        print(f"orchgit: what it changed: git diff {start[:10]}", file=sys.stderr)
        shell = os.environ.get("SHELL", "/bin/sh")
        done = subprocess.run([shell, "-c", run] if run else [shell], cwd=copy.work, check=False)
        return done.returncode
