"""`orchgit replay [RUN]`: the pure fold of the log, told as a story; and what would be done next."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orchgit.cli.common import Json, RunName, store_of


def command(
    run: RunName = "",
    at: Annotated[int | None, typer.Option(metavar="SEQ", help="Only up to this event.", min=0)] = None,
    as_json: Json = False,
) -> int:
    """Tell the story of a run from its log."""
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.core.state import Illegal, replay
    from orchgit.report import say, span, status_json, status_lines

    store = store_of(run)
    log = store.read()
    if at is not None:
        if at >= len(log):
            raise OrchgitError(
                Kind.USAGE, f"run {store.run} has no event {at}", f"the last is {len(log) - 1}",
                f"orchgit replay {store.run} --at {max(0, len(log) - 1)}",
            )  # fmt: skip
        log = log[: at + 1]
    try:
        state = replay(store.run, log)
    except Illegal as error:
        raise OrchgitError(
            Kind.NO, f"run {store.run} cannot be replayed", str(error), f"orchgit audit {store.run}"
        ) from error
    if as_json:
        print(json.dumps(status_json(state), indent=2, ensure_ascii=False))
        return 0
    asked = {ev.seq: ev for ev in log}
    for event in log:
        if event.body.kind == "request":
            continue  # its outcome tells what became of it
        took = ""
        if event.cause is not None and event.body.kind == "outcome" and event.cause in asked:
            took = f"  ({span(_ms(asked[event.cause].time, event.time))})"
        print(f"{event.seq:>4}  {event.time[11:19]}  {say(event)}{took}")
    print()
    print("\n".join(status_lines(state)))
    return 0


def _ms(start: str, end: str) -> int:
    from datetime import datetime

    return int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000)
