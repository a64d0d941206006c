"""`orchgit replay [RUN]`: the pure fold of the log, told as a story, and what is due next. It does nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.cli.common import Json, RunName, store_of

if TYPE_CHECKING:
    from orchgit.core.events import Event
    from orchgit.core.state import Run
    from orchgit.eventlog import Store

POLL_S = 0.2


def command(
    run: RunName = "",
    at: Annotated[int | None, typer.Option(metavar="SEQ", help="Only up to this event.", min=0)] = None,
    diff: Annotated[
        tuple[int, int] | None, typer.Option(metavar="A B", help="What changed in the state between two events.")
    ] = None,
    worker: Annotated[str, typer.Option(metavar="NAME", help="Only what concerns this worker or assignment.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on as events come, until the run is over.")] = False,
    as_json: Json = False,
) -> int:
    """Tell the story of a run from its log."""
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.report import status_json, status_lines
    from orchgit.report_replay import Teller, change_lines, changes, state_digest, story_line

    if sum((at is not None, diff is not None, follow)) > 1:
        raise OrchgitError(Kind.USAGE, "--at, --diff and --follow exclude each other", "", "orchgit replay --help")
    store = store_of(run)
    log = store.read()
    if diff is not None:
        states = [_state(store, log, seq) for seq in diff]
        found = changes(*states)
        lines = [json.dumps(found, indent=2, ensure_ascii=False)] if as_json else change_lines(found)
        print("\n".join(lines) if lines else "nothing")
        return 0
    state = _state(store, log, len(log) - 1 if at is None else at)
    teller = Teller(worker)
    story = [told for event in log[: state.seq + 1] if (told := teller.tell(event))]
    if worker and not story:
        known = f"known: {', '.join(teller.known) or 'nobody'}"
        raise OrchgitError(
            Kind.USAGE, f"nothing in run {store.run} concerns {worker!r}", known, f"orchgit replay {store.run}"
        )
    if as_json and not follow:
        whole = {**status_json(state), "digest": state_digest(state), "story": story}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return 0
    for told in story:
        print(json.dumps(told, ensure_ascii=False) if as_json else story_line(told), flush=follow)
    if follow:
        for event in _coming(store, log, state):
            if told_now := teller.tell(event):
                print(json.dumps(told_now, ensure_ascii=False) if as_json else story_line(told_now), flush=True)
        return 0
    print()
    print("\n".join(status_lines(state)))
    return 0


def _state(store: Store, log: list[Event], seq: int) -> Run:
    """The state after an event. Raises OrchgitError for one that is not there, or a log that is not legal."""
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.core.state import Illegal, replay

    if log and not 0 <= seq < len(log):
        raise OrchgitError(
            Kind.USAGE, f"run {store.run} has no event {seq}", f"the last is {len(log) - 1}",
            f"orchgit replay {store.run} --at {len(log) - 1}",
        )  # fmt: skip
    try:
        return replay(store.run, log[: seq + 1])
    except Illegal as error:
        raise OrchgitError(
            Kind.NO, f"run {store.run} cannot be replayed", str(error), f"orchgit audit {store.run}"
        ) from error


def _coming(store: Store, log: list[Event], state: Run) -> Iterator[Event]:
    """Events that are not in `log` yet, as they are written, until the run is over."""
    from orchgit.core import events as e
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.core.state import Illegal, evolve

    at = sum(len(event.line) for event in log)
    rest = b""
    with store.events.open("rb") as file:
        while not state.over:
            file.seek(at)
            new = file.read()
            at += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                try:
                    event = e.parse(line)
                    state = evolve(state, event)
                except (e.LineError, Illegal) as error:
                    raise OrchgitError(
                        Kind.NO, f"event {state.seq + 1} of run {store.run} cannot be replayed", str(error),
                        f"orchgit audit {store.run}",
                    ) from error  # fmt: skip
                yield event
            if not new:
                time.sleep(POLL_S)
