"""`orchgit ship [RUN]`: the finished work onto the branch it was based on: constructed, checked, swapped; or by pull
requests, as configured, which go on as far as they are approved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.cli.common import RunName
from orchgit.core.state import branch

if TYPE_CHECKING:
    from orchgit.core.state import Run
    from orchgit.eventlog import Store
    from orchgit.git.user import UserRepo


def command(
    run: RunName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    push: Annotated[str, typer.Option("--push", metavar="REMOTE", help="Only push its branches and its log.")] = "",
    leave: Annotated[bool, typer.Option("--leave", help="Do without, where a run waits only for this.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="By pull requests, whatever is configured.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the pull requests are merged.")] = False,
) -> int:
    """Merge the work into the branch it was based on."""
    from orchgit.cli.common import state_of, tell
    from orchgit.cli.screen import Screen
    from orchgit.cli.start import drive
    from orchgit.core import events as e
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.effects import observe
    from orchgit.eventlog import find_run, user_name
    from orchgit.git.door import Door, Missing
    from orchgit.git.user import discover
    from orchgit.session import reopen

    repo = discover(Path.cwd())
    store = find_run(repo.common, run or None)
    state = state_of(store)
    if push:
        return _push(repo, state, push)
    ref = state.started.base_ref if state.started else ""
    if leave:
        return tell(store, e.ShipLeft(), "left unshipped")
    if state.by_pr or pr or (state.settings.ship == "pr" and state.phase == "completed"):
        return _pull_requests(repo, store, state, dry_run=dry_run, wait=wait)
    waits = next((b for b in state.open_blockers() if b.kind == "ship"), None)
    if state.phase != "completed" and waits is None:
        raise OrchgitError(Kind.NO, f"run {state.id} is {state.phase}, not completed", "", f"orchgit status {state.id}")
    if state.shipped:
        print(f"already shipped: {ref} has {state.shipped}")
        return 0
    # Looked at before the run is asked: a completed run must not become a blocked one by a question.
    door = Door(repo.common, repo.object_format)
    try:
        door.commit(state.tip)
        seen = observe(door, ref, state.tip)
    except Missing:
        raise OrchgitError(
            Kind.NO, f"the work of run {state.id} is gone", f"commit {state.tip} is not in this repository", ""
        ) from None
    finally:
        door.close()
    if seen.merged and not waits:
        print(f"{ref} has the work already")
        return 0
    why = seen.why
    if why:
        raise OrchgitError(
            Kind.NO, f"run {state.id} cannot be shipped now", why,
            f"git merge orchgit/{state.id}/integration" + (
                f"\nor let go of the branch (git switch --detach) and: orchgit ship {state.id}" if ref else ""
            ),
        )  # fmt: skip
    if dry_run:
        print(f"would merge orchgit/{state.id}/integration ({state.tip[:10]}) into {ref}:")
        print("  look where it stands, carry the work onto it, run all checks on the result, swap it")
        return 0
    with Screen() as screen:
        session = reopen(repo, store, (screen.event,), screen.progress)
        try:
            asked = e.BlockerAnswered(waits.id, "look again") if waits else e.ShipAsked()
            session.runner.record(e.Draft(asked, e.Actor("human", user_name())))
            code = drive(session, screen)
        finally:
            session.close()
    print(
        f"orchgit: {ref} is at {session.runner.run.shipped[:10]}" if code == 0 else "orchgit: not shipped",
        file=sys.stderr,
    )
    return code


def _pull_requests(repo: UserRepo, store: Store, state: Run, *, dry_run: bool, wait: bool) -> int:
    """Hear what was said since the last time, and go on as far as that allows; begin, if it has not begun."""
    from orchgit.cli.screen import Screen
    from orchgit.cli.start import drive
    from orchgit.core import events as e
    from orchgit.core.errors import Kind, OrchgitError
    from orchgit.core.forge import changes
    from orchgit.eventlog import user_name
    from orchgit.session import reopen

    if state.settings.forge == "local":
        raise OrchgitError(
            Kind.USAGE, f"run {state.id} has no forge", "it was started without one, and keeps its configuration",
            f"orchgit ship {state.id} --push REMOTE, and open pull requests by hand\n"
            'before the next start: kind = "github" in [forge] of .orchestration/config.toml (docs/github.md)',
        )  # fmt: skip
    if state.shipped:
        print(f"already shipped: {state.shipped}")
        return 0
    if state.phase not in ("completed", "shipping") and not changes(state):
        raise OrchgitError(Kind.NO, f"run {state.id} is {state.phase}, not completed", "", f"orchgit status {state.id}")
    if dry_run:
        return _foretell(state, store)
    with Screen() as screen:
        session = reopen(repo, store, (screen.event,), screen.progress)
        try:
            if state.phase == "completed":
                session.runner.record(e.Draft(e.ShipAsked(pr=True), e.Actor("human", user_name())))
            return drive(session, screen, wait=wait)
        finally:
            session.close()


def _foretell(state: Run, store: Store) -> int:
    """All that would be written, in its order, and the words of it."""
    from orchgit import forge_text as text
    from orchgit.core.forge import LAST, done, everything
    from orchgit.report import safe

    log = store.read()
    print(f"would write to {state.settings.repository or 'the forge'}, each once, and only as far as it is approved:\n")
    for n, write in enumerate(everything(state), 1):
        there = " (is there)" if done(state, write) else ""
        what = f"{write.act} {write.about} {write.base}".rstrip() + (f" at {write.head[:10]}" if write.head else "")
        print(f"{n:3}. {what}{there}")
        if write.act == "push" and write.about == LAST and write.key.endswith(state.tip[:12]):
            print("     (the last verified merge; pushed, and never made anew there)")
        if write.act == "change":
            print(f"     {safe(text.change_title(state, write.about))}")
            for line in text.change_body(state, write.about, log, {}).splitlines():
                print(f"     | {safe(line)}")
    return 0


def _push(repo: UserRepo, state: Run, remote: str) -> int:
    """The integration branch, the workers' branches and the log: all or none."""
    from orchgit.git.door import Door
    from orchgit.publish import push

    door = Door(repo.common, repo.object_format)
    try:
        branches = [state.ref, *(branch(state.id, name) for name in state.works)]
        moved = push(door, repo.root, state.id, remote, [b for b in branches if door.ref(b)])
    finally:
        door.close()
    for name in moved:
        print(f"pushed {name}")
    if not moved:
        print(f"{remote} has it all")
    return 0
