"""`orchgit retry RUN/ASSIGNMENT`: further attempts for an assignment that is blocked, or a finding given to it."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import split, state_of, store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(
    target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")],
    note: Annotated[str, typer.Option(help="What the next attempt should know.")] = "",
) -> int:
    """Give an assignment further attempts."""
    run, name = split(target)
    store = store_of(run)
    state = state_of(store)
    if name not in state.works:
        known = ", ".join(state.works) or "none yet"
        raise OrchgitError(Kind.USAGE, f"run {store.run} has no assignment {name!r}", f"assignments: {known}")
    own = [b for b in state.open_blockers() if b.about in (name, f"verdict/{name}")]
    homeless = [b for b in state.open_blockers() if b.kind == "finding" and b.about != "review"]
    if own:
        return tell(store, e.BlockerAnswered(own[0].id, note[:4000]), f"{name} gets further attempts")
    if homeless:
        body = e.BlockerAnswered(homeless[0].id, note[:4000], name)
        return tell(store, body, f"finding {homeless[0].about} goes to {name}")
    raise OrchgitError(Kind.NO, f"nothing blocks {name}", "", f"orchgit status {store.run}")
