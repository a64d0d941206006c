"""Work in one cell, from the sandbox it is done in to what may land of it: for a run's assignments, and for
`orchgit exec`, which has no run.

Nothing here knows of runs, attempts and the log, moves a ref, or asks git anything in a place that a worker can write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from orchgit.agent_run import confined, confinement
from orchgit.core.events import Violation
from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import cells, gate, trees
from orchgit.git.door import Door
from orchgit.sandbox import Level, Network, Sandbox, base_env
from orchgit.sandbox.canary import Probe, misses, prove

HARVEST_S = 600


def writable(cell: cells.Cell, scope: Scope) -> tuple[str, ...]:
    """What a worker may write: the directories of its scope, made where they are missing, its git directory, HOME."""
    return (*cells.make_roots(cell, tuple(r.path for r in scope.roots())), str(cell.git), str(cell.home))


def tried(
    sandbox: Sandbox, cell: cells.Cell, places: Sequence[str], forbidden: Sequence[str], *, network: Network,
    secret: str | None = None, readable: Sequence[str] = (),
) -> list[Probe]:  # fmt: skip
    """The canary, in the very sandbox that the worker is about to get. `secret`: a file that it may not read."""
    return prove(
        sandbox, confinement(cell, places, network=network, readable=readable),
        env=base_env(str(cell.home), str(cell.tmp)), forbidden=forbidden, engine_pid=os.getpid(), secret_path=secret,
    )  # fmt: skip


def through(probes: Sequence[Probe], level: Level) -> str:
    """What got through although the level promises to prevent it, in words; "" when it holds."""
    got = "; ".join(f"{p.name}: {p.detail}" for p in misses(probes, level))
    return f"the sandbox does not hold: {got}"[:1000] if got else ""


def harvest(door: Door, sandbox: Sandbox, cell: cells.Cell, start: str, when: str) -> gate.Snapshot:
    """What the worker left, taken in. Raises gate.BadPack."""
    try:
        cells.reopen(cell)
        launch = confined(sandbox, cell, (str(cell.top),), mounted=False)
        ended = launch(cells.harvest_argv(cell, start)).finish(
            deadline_s=HARVEST_S, output_cap=gate.MAX_PACK + 4096
        )  # fmt: skip
    except OSError as error:
        raise gate.BadPack(f"its cell cannot be read: {error}") from error
    if ended.returncode or ended.timed_out or ended.truncated:
        said = ended.stderr.decode("utf-8", "backslashreplace").strip()[-500:]
        raise gate.BadPack(f"the work could not be packed: {said or 'too large, or too slow'}")
    return gate.admit(door, ended.stdout, start, when)


@dataclass(frozen=True)
class Judged:
    """What the gate says of a change: the tree that may land, or why none may."""

    changes: tuple[trees.Change, ...]
    violations: tuple[Violation, ...]
    tree: str  # "" when there are violations


def judged(door: Door, scope: Scope, base_tree: str, left_tree: str, outputs: Sequence[str] = ()) -> Judged:
    changes = gate.raw_diff(door, base_tree, left_tree)
    found = gate.judge(door, scope, changes, base_tree)
    tree = ""
    if not found:
        try:
            tree = gate.construct(door, base_tree, changes, scope)
            found = gate.missing_outputs(door, tree, outputs)
        except trees.Unmergeable as error:
            found = [Violation(printable(error.path), "a file and a directory cannot have one name")]
    return Judged(tuple(changes), tuple(found), "" if found else tree)
