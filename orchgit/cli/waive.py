"""`orchgit waive RUN FINDING --why …`: a finding stands, and a human says why that is all right."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(
    run: Annotated[str, typer.Argument(help="The run, or how its name begins.")],
    finding: Annotated[str, typer.Argument(help="Such as F2.")],
    why: Annotated[str, typer.Option(help="The reason; it is recorded.")] = "",
) -> int:
    """Let a finding stand, with a reason."""
    if not why.strip():
        raise OrchgitError(Kind.USAGE, "a waiver wants a reason", "it is what the auditor reads", '--why "…"')
    return tell(store_of(run), e.FindingWaived(finding, why[:1500]), f"{finding} waived")
