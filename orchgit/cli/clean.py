"""`orchgit clean RUN`: remove the branches and refs of a run that is over. The log stays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchgit.core.errors import Kind, OrchgitError


def command(
    run: Annotated[str, typer.Argument(help="The run, or how its name begins.")],
    keep_integration: Annotated[bool, typer.Option(help="Leave the integration branch.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Also of a run that is not over.")] = False,
) -> int:
    """Remove the branches and refs of a run that is over."""
    import os

    from orchgit.cli.common import state_of
    from orchgit.config import state_home
    from orchgit.eventlog import find_run
    from orchgit.git import cells
    from orchgit.git.door import Door
    from orchgit.git.user import discover
    from orchgit.session import thaw

    repo = discover(Path.cwd())
    store = find_run(repo.common, run)
    state = state_of(store)
    if store.holder() is not None:
        raise OrchgitError(Kind.NO, f"run {store.run} has an engine", str(store.holder()), f"orchgit abort {store.run}")
    if not state.over and not force:
        raise OrchgitError(
            Kind.NO, f"run {store.run} is {state.phase}, not over", "", f"orchgit clean {store.run} --force"
        )
    door = Door(repo.common, repo.object_format)
    try:
        if not keep_integration and not force:
            elsewhere = door.run("for-each-ref", "--contains", state.tip, "--format=%(refname)", refs=True).decode()
            if not any(not r.startswith(("refs/heads/orchgit/", "refs/orchgit/")) for r in elsewhere.split()):
                raise OrchgitError(
                    Kind.NO,
                    "no other branch has this run's work",
                    f"it would be gone with orchgit/{store.run}/integration",
                    f"git merge orchgit/{store.run}/integration first, or --force",
                )
        under = (
            "refs/heads/orchgit/" + store.run,
            "refs/orchgit/salvage/" + store.run,
            "refs/orchgit/base/" + store.run,
        )
        listed = door.run("for-each-ref", "--format=%(refname) %(objectname)", *under, refs=True).decode().split("\n")
        refs = [tuple(line.split(" ")) for line in listed if line]
        gone = [(name, oid) for name, oid in refs if not (keep_integration and name == state.ref)]
        if gone:
            door.swap([(name, door.null, oid) for name, oid in gone], "orchgit: clean")
        for name, oid in gone:
            print(f"removed {name} ({oid[:10]})")
        if state.started:
            config, _ = thaw(store.blob(state.started.config))
            cells.remove(state_home(config, os.environ) / cells.repository_id(repo.common) / store.run)
    finally:
        door.close()
    return 0
