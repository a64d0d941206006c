"""`orchgit refuse RUN/ASSIGNMENT --why …`: a worker that asks for more scope goes on without."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import asking, tell
from orchgit.core import events as e


def command(
    target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")],
    why: Annotated[str, typer.Option(help="What the worker should do instead.")] = "",
) -> int:
    """Keep a worker to its scope, with a reason."""
    store, work = asking(target)
    return tell(store, e.ScopeRefused(work.spec.id, work.attempt, why[:1500]), f"{work.spec.id} keeps its scope")
