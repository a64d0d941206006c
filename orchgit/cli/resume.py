"""`orchgit resume [RUN]`: go on from the log, whatever ended the engine before.

`orchgit resume RUN/ASSIGNMENT`: let an attempt go on that the watchdog has paused; its engine is alive.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchgit.cli.common import Target, exit_code


def command(
    run: Target = "",
    wait: Annotated[bool, typer.Option("--wait", help="Stay alive while a human is waited for.")] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Accept less than it began with.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every event, and what agents do.")] = False,
) -> int:
    """Go on with a run, or let an attempt go on that is paused."""
    if "/" in run:
        from orchgit.cli.common import go_on

        return go_on(run, stop=False)
    from orchgit.cli.common import state_of
    from orchgit.cli.screen import Screen
    from orchgit.cli.start import banner, drive
    from orchgit.eventlog import find_run
    from orchgit.git.user import discover
    from orchgit.session import finish, reopen

    repo = discover(Path.cwd())
    store = find_run(repo.common, run or None)
    state = state_of(store)
    if state.over:
        finish(repo, store)
        print(f"run {state.id} is over: {state.phase}", file=sys.stderr)
        return exit_code(state)
    if state.started and state.started.scripted:
        banner("scripted")
    with Screen(verbose=verbose) as screen:
        session = reopen(repo, store, (screen.event,), screen.progress, allow_unsandboxed=allow_unsandboxed)
        try:
            return drive(session, screen, wait=wait)
        finally:
            session.close()
