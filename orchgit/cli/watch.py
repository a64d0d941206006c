"""`orchgit watch [RUN]`: follow a run from its log while another process drives it. It only reads.

Every event as it comes, in the words of `orchgit start`, and what the run waits for whenever it is quiet. It ends
with the run, with the code that `orchgit resume` would have, or at Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.cli.common import Json, RunName, exit_code, store_of
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import Illegal, Run, evolve

if TYPE_CHECKING:
    from orchgit.eventlog import Store

POLL_S = 0.2
QUIET_S = 1.0  # without an event, before it is said what is waited for


def command(
    run: RunName = "",
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every event.")] = False,
) -> int:
    """Follow a run while it goes on."""
    from orchgit.cli.screen import Screen

    store = store_of(run)
    state = Run(store.run)
    told: list[str] = []
    with Screen(verbose=verbose, asked=True) as screen:
        for line in _lines(store):
            if line is None:
                waits = _waits(store, state)
                if not as_json and waits != told:
                    told = waits
                    for words in waits:
                        screen.say(f"         {words}")
                continue
            event = e.parse(line)
            try:
                state = evolve(state, event)
            except Illegal as error:
                raise OrchgitError(
                    Kind.NO, f"the log of run {store.run} is not legal", str(error), f"orchgit audit {store.run}"
                ) from error
            if as_json:
                sys.stdout.buffer.write(line + b"\n")
                sys.stdout.buffer.flush()
            else:
                screen.event(state, event)
            if state.over:
                return exit_code(state)
    raise AssertionError("a log has no end")


def _lines(store: Store) -> Iterator[bytes | None]:
    """Each whole line of the log, as it comes; None whenever nothing has come for a while."""
    rest = b""
    quiet_s = 0.0
    with (store.path / "events.jsonl").open("rb") as file:
        while True:
            more = file.read()
            *lines, rest = (rest + more).split(b"\n")
            if lines:
                quiet_s = 0.0
                yield from lines
                continue
            if quiet_s >= QUIET_S:
                yield None
            time.sleep(POLL_S)
            quiet_s += POLL_S


def _waits(store: Store, run: Run) -> list[str]:
    from orchgit.report import next_lines

    return next_lines(run, alive=store.holder() is not None)
