"""`orchgit request-scope PATTERN… --why …`: for an agent in a cell that has no tool for it.

It writes the hand-in file of the cell; the engine reads that when the agent ends, and decides.
"""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.core.errors import Kind, OrchgitError


def command(
    paths: Annotated[list[str], typer.Argument(help="Patterns as in a plan, all that you need.")],
    why: Annotated[str, typer.Option(help="What for, and why it cannot be done inside your scope.")],
) -> int:
    """Inside a cell: ask for more paths."""
    from orchgit.agents import handin
    from orchgit.wire import parse_scope_request

    try:
        asked = parse_scope_request({"paths": paths, "why": why})
    except ValueError as error:
        raise OrchgitError(Kind.USAGE, "that cannot be asked for", str(error)) from error
    handin.write("request_scope", asked.model_dump(mode="json"))
    print("asked; end your work now, and go on when it is decided")
    return 0
