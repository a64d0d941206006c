"""`orchgit reject [RUN] --why …`: the plan goes back to the orchestrator with the reason."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import RunName, state_of, store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(run: RunName = "", why: Annotated[str, typer.Option(help="What should be different.")] = "") -> int:
    """Send the plan back, with a reason."""
    if not why.strip():
        raise OrchgitError(Kind.USAGE, "a rejection wants a reason", "the orchestrator plans anew from it", '--why "…"')
    store = store_of(run)
    version = state_of(store).plan_version
    return tell(store, e.PlanRejected(version, why[:4000]), f"plan v{version} rejected")
