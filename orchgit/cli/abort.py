"""`orchgit abort [RUN]`: stop the agents, keep what they have on salvage refs, end the run.

`orchgit abort RUN/ASSIGNMENT`: end one attempt that the watchdog has paused; the run goes on.
"""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import Target, go_on, store_of, tell
from orchgit.core import events as e


def command(run: Target = "", why: Annotated[str, typer.Option(help="The reason; it is recorded.")] = "") -> int:
    """End a run, or an attempt that is paused, keeping what the workers have."""
    if "/" in run:
        return go_on(run, stop=True)
    return tell(store_of(run), e.AbortRequested(why[:1500]), "abort requested: no agent starts any more")
