"""`orchgit raise RUN[/ASSIGNMENT] --usd 5`: so much more may be spent; what had stopped for it goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from orchgit.cli.common import split, state_of, store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(
    target: Annotated[str, typer.Argument(metavar="RUN[/ASSIGNMENT]")],
    usd: Annotated[float, typer.Option(help="US dollars more.")] = 0.0,
    tokens: Annotated[int, typer.Option(help="Tokens more, read and written.")] = 0,
    turns: Annotated[int, typer.Option(help="Calls of a model more.")] = 0,
    seconds: Annotated[int, typer.Option(help="Seconds of work more.")] = 0,
) -> int:
    """Raise the budget of a run, or of one assignment."""
    run, name = split(target) if "/" in target else (target, "")
    store = store_of(run)
    state = state_of(store)
    if name and name not in state.works:
        known = ", ".join(state.works) or "none yet"
        raise OrchgitError(Kind.USAGE, f"run {store.run} has no assignment {name!r}", f"assignments: {known}")
    amounts = (round(usd * 1_000_000), tokens, turns, seconds)
    if min(amounts) < 0 or max(amounts) == 0 or not max(amounts) < 10**15:
        raise OrchgitError(
            Kind.USAGE, "a budget is raised by more than nothing", "", f"orchgit raise {target} --usd 5"
        )  # fmt: skip
    more = e.Budget(*(amount or None for amount in amounts))
    return tell(store, e.BudgetRaised(name, more), f"the budget of {target} is raised")
