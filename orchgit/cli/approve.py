"""`orchgit approve [RUN]`: yes to exactly the plan that was shown, by its digest."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import RunName, approval, state_of, store_of, tell
from orchgit.core.errors import Kind, OrchgitError


def command(
    run: RunName = "",
    digest: Annotated[
        str, typer.Option(help="Of the plan you mean, as it was shown; refused if it is another by now.")
    ] = "",
) -> int:
    """Approve the plan that was shown."""
    store = store_of(run)
    state = state_of(store)
    proposal = state.proposal
    if proposal is None:
        raise OrchgitError(Kind.NO, f"run {store.run} has no plan to approve", "", f"orchgit status {store.run}")
    if digest and not proposal.digest.startswith(digest):
        raise OrchgitError(
            Kind.NO, f"the plan is another one by now: v{proposal.version}, {proposal.digest[:12]}",
            f"you named {digest}", f"orchgit plan {store.run}",
        )  # fmt: skip
    return tell(store, approval(store, state), f"plan v{proposal.version} approved")
