"""`orchgit diff RUN/ASSIGNMENT`: what a worker has changed so far, read in the cell's own sandbox."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchgit.cli.common import split


def command(target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")]) -> int:
    """What a worker has changed so far."""
    from orchgit.cli.cell import snapshot
    from orchgit.git.door import Door

    run, name = split(target)
    door, start, left = snapshot(Path.cwd(), run, name)
    assert isinstance(door, Door)
    try:
        diff = door.run("diff", "--no-ext-diff", "--no-textconv", "--no-color", start, left)
        # An agent's bytes on the user's terminal: escapes are made visible, whatever they say.
        if sys.stdout.isatty():
            from orchgit.report import safe

            print(safe(diff.decode("utf-8", "replace"), lines=True), end="")
        else:
            sys.stdout.buffer.write(diff)
    finally:
        door.close()
    return 0
