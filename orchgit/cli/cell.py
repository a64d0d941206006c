"""Looking into a running cell without running git where an agent can write: a snapshot is packed inside the sandbox."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import HOUSED
from orchgit.git.door import Door


def snapshot(here: Path, run: str, name: str) -> tuple[Door, str, str]:
    """(door, the commit the attempt started from, a commit of what is there now). The caller closes the door."""
    from orchgit.agent_run import confined, furnish
    from orchgit.cli.common import state_of
    from orchgit.config import state_home
    from orchgit.eventlog import find_run
    from orchgit.git import cells, gate
    from orchgit.git.user import discover
    from orchgit.session import confine, thaw

    repo = discover(here)
    store = find_run(repo.common, run or None)
    state = state_of(store)
    work = state.works.get(name)
    if work is None:
        known = ", ".join(state.works) or "none yet"
        raise OrchgitError(Kind.USAGE, f"run {state.id} has no assignment {name!r}", f"assignments: {known}")
    door = Door(repo.common, repo.object_format)
    assert state.started is not None
    config, _ = thaw(store.blob(state.started.config))
    place = state_home(config, os.environ) / cells.repository_id(repo.common) / state.id
    cell = cells.Cell(place / f"{name}-{work.attempt}")
    if work.stage not in HOUSED or not cell.work.exists():
        if work.head:
            return door, work.base, work.head
        raise OrchgitError(Kind.NO, f"{name} has no cell now: it is {work.stage}", "", f"orchgit status {state.id}")
    sandbox = furnish(*confine(config, not state.started.sandboxed), config, door, place)
    start = work.attempts[-1].start
    with tempfile.TemporaryDirectory(prefix="look-", dir=place) as scratch:
        # Its own temporary directory, so that looking never gets in the way of the gate's harvest.
        os.chmod(scratch, 0o700)
        looker = cells.Cell(cell.root, Path(scratch))
        launch = confined(sandbox, looker, (), mounted=False)
        ended = launch(cells.harvest_argv(looker, start)).finish(deadline_s=300, output_cap=gate.MAX_PACK)
    try:
        return door, start, gate.admit(door, ended.stdout, start, "0 +0000").commit
    except gate.BadPack as error:
        door.close()
        raise OrchgitError(Kind.NO, f"the cell of {name} cannot be read now", str(error), "try again") from error
