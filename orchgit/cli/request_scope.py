"""`orchgit request-scope PATTERN… --why …`: for an agent in a cell that has no tool for it.

It writes one file in the cell's own temporary directory; the engine reads it when the agent ends, and decides.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from orchgit.core.errors import Kind, OrchgitError


def command(
    paths: Annotated[list[str], typer.Argument(help="Patterns as in a plan, all that you need.")],
    why: Annotated[str, typer.Option(help="What for, and why it cannot be done inside your scope.")],
) -> int:
    """Inside a cell: ask for more paths."""
    from orchgit.agent_run import ASK_VARIABLE
    from orchgit.wire import parse_scope_request

    place = os.environ.get(ASK_VARIABLE)
    if not place:
        raise OrchgitError(
            Kind.USAGE, "this is no cell", f"{ASK_VARIABLE} is not set: only a worker of a run can ask for more scope"
        )
    try:
        asked = parse_scope_request({"paths": paths, "why": why})
    except ValueError as error:
        raise OrchgitError(Kind.USAGE, "that cannot be asked for", str(error)) from error
    Path(place).write_text(json.dumps(asked.model_dump(mode="json")))
    print("asked; end your work now, and go on when it is decided")
    return 0
