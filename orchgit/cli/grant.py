"""`orchgit grant RUN/ASSIGNMENT [PATTERN…]`: the paths that a worker asks for, or some of them; a new plan version."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import asking, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(
    target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")],
    patterns: Annotated[list[str] | None, typer.Argument(help="Only these of what it asks for; else all.")] = None,
) -> int:
    """Give a worker the paths that it asks for."""
    store, work = asking(target)
    unknown = [p for p in patterns or () if p not in work.asked]
    if unknown:
        raise OrchgitError(
            Kind.USAGE, f"{work.spec.id} does not ask for {', '.join(unknown)}", f"it asks for: {', '.join(work.asked)}"
        )
    granted = tuple(patterns or work.asked)
    body = e.ScopeGranted(work.spec.id, work.attempt, granted)
    return tell(store, body, f"{work.spec.id} is granted {', '.join(granted)}")
