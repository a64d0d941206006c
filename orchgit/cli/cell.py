"""A run's cell as a command finds it: where it is, the sandbox that its run has, and a look into it.

Nothing here runs git where an agent can write: a snapshot is packed inside the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import HOUSED, Run, Work
from orchgit.git import cells
from orchgit.git.door import Door

if TYPE_CHECKING:
    from orchgit.config import Config
    from orchgit.eventlog import Store
    from orchgit.git.user import UserRepo
    from orchgit.sandbox import Furnished


@dataclass(frozen=True)
class Housed:
    """An assignment and its cell, which may be gone. The caller closes the door."""

    repo: UserRepo
    store: Store
    run: Run
    work: Work
    config: Config
    door: Door
    place: Path
    cell: cells.Cell

    @property
    def there(self) -> bool:
        return self.work.stage in HOUSED and self.cell.work.exists()

    def sandbox(self) -> Furnished:
        from orchgit.agent_run import furnish
        from orchgit.session import confine

        assert self.run.started is not None
        return furnish(*confine(self.config, not self.run.started.sandboxed), self.config, self.door, self.place)


def find(here: Path, run: str, name: str) -> Housed:
    from orchgit.cli.common import state_of
    from orchgit.config import state_home
    from orchgit.eventlog import find_run
    from orchgit.git.user import discover
    from orchgit.session import thaw

    repo = discover(here)
    store = find_run(repo.common, run or None)
    state = state_of(store)
    work = state.works.get(name)
    if work is None:
        known = ", ".join(state.works) or "none yet"
        raise OrchgitError(Kind.USAGE, f"run {state.id} has no assignment {name!r}", f"assignments: {known}")
    assert state.started is not None
    config, _ = thaw(store.blob(state.started.config))
    place = state_home(config, os.environ) / cells.repository_id(repo.common) / state.id
    cell = cells.Cell(place / f"{name}-{work.attempt}")
    return Housed(repo, store, state, work, config, Door(repo.common, repo.object_format), place, cell)


def snapshot(here: Path, run: str, name: str) -> tuple[Door, str, str]:
    """(door, the commit the attempt started from, a commit of what is there now). The caller closes the door."""
    from orchgit.agent_run import confined
    from orchgit.git import gate

    found = find(here, run, name)
    door, work = found.door, found.work
    if not found.there:
        if work.head:
            return door, work.base, work.head
        raise OrchgitError(
            Kind.NO, f"{name} has no cell now: it is {work.stage}", "", f"orchgit status {found.run.id}"
        )  # fmt: skip
    sandbox = found.sandbox()
    start = work.attempts[-1].start
    with tempfile.TemporaryDirectory(prefix="look-", dir=found.place) as scratch:
        # Its own temporary directory, so that looking never gets in the way of the gate's harvest.
        os.chmod(scratch, 0o700)
        looker = cells.Cell(found.cell.root, Path(scratch))
        launch = confined(sandbox, looker, (), mounted=False)
        ended = launch(cells.harvest_argv(looker, start)).finish(deadline_s=300, output_cap=gate.MAX_PACK)
    try:
        return door, start, gate.admit(door, ended.stdout, start, "0 +0000").commit
    except gate.BadPack as error:
        door.close()
        raise OrchgitError(Kind.NO, f"the cell of {name} cannot be read now", str(error), "try again") from error
