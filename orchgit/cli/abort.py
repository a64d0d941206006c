"""`orchgit abort [RUN]`: stop the agents, keep what they have on salvage refs, end the run."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import RunName, store_of, tell
from orchgit.core import events as e


def command(run: RunName = "", why: Annotated[str, typer.Option(help="The reason; it is recorded.")] = "") -> int:
    """End a run, keeping what the workers have."""
    return tell(store_of(run), e.AbortRequested(why[:1500]), "abort requested")
