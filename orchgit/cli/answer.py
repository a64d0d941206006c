"""`orchgit answer RUN [BLOCKER] TEXT…`: clarifying questions in order, or one blocker."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from orchgit.cli.common import state_of, store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError


def command(
    run: Annotated[str, typer.Argument(help="The run, or how its name begins.")],
    words: Annotated[list[str], typer.Argument(help="One answer per question; or a blocker's id and what to do.")],
) -> int:
    """Answer a question or a blocker."""
    store = store_of(run)
    state = state_of(store)
    if state.questions:
        if len(words) != len(state.questions):
            listed = "\n".join(f"{i}. {q}" for i, q in enumerate(state.questions, 1))
            raise OrchgitError(
                Kind.USAGE, f"{len(state.questions)} answers are wanted, {len(words)} were given", listed,
                f'orchgit answer {store.run} "…" for each, in order',
            )  # fmt: skip
        return tell(store, e.QuestionAnswered(tuple(w[:1500] for w in words)), "answered")
    opened = [b.id for b in state.open_blockers()]
    if re.fullmatch(r"B\d+", words[0]):
        blocker, words = words[0], words[1:]
        if blocker not in [b.id for b in state.blockers]:  # not to be taken for the first word of an answer
            raise OrchgitError(
                Kind.USAGE, f"run {store.run} has no blocker {blocker}", f"open: {', '.join(opened) or 'none'}",
                f"orchgit status {store.run}",
            )  # fmt: skip
    elif len(opened) == 1:
        blocker = opened[0]
    else:
        raise OrchgitError(
            Kind.USAGE if opened else Kind.NO,
            f"{len(opened)} blockers are open: say which" if opened else f"run {store.run} asks nothing",
            ", ".join(opened), f"orchgit status {store.run}",
        )  # fmt: skip
    return tell(store, e.BlockerAnswered(blocker, " ".join(words)[:4000]), f"{blocker} answered")
