"""Under the run's lock, before anything is started: what an engine that died left half-made goes, who outlived it ends.

Only what is this run's by name or by id is touched: its refs' locks, its temporary objects and quarantines, its cells
and check-outs, the processes that its engine wrote down. A lock, a file or a process of anybody else's stays, whatever
state it is in. Every step may be killed and done again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchgit.agent_run import CHILDREN
from orchgit.core import events as e
from orchgit.core.run import HOUSED, Run
from orchgit.eventlog import Log, Store, fsync_dir, runs_dir
from orchgit.git import cells
from orchgit.git.door import Door, incoming_prefix, temporary_prefix
from orchgit.process import identity, members

GRACE_S = 3.0  # for those who outlived their engine, between TERM and KILL
TRANSIENT_S = 0.5  # how long a lock may be a living git's, of somebody who works on our refs by hand


def clear(door: Door, log: Log, state: Path, run: Run) -> tuple[str, ...]:
    """Do all of it; what was found, in words for the log."""
    found = [
        *_stop(state / CHILDREN),
        *_locks(door.common, run),
        *_objects(door, run.id),
        *_files(log, run),
        *_cells(state, run),
    ]
    return tuple(found[:50])


# -- who outlived the engine -----------------------------------------------------------------------------


def _stop(children: Path) -> Iterator[str]:
    """End every recorded process that is still the one that was recorded, and what is left of its session."""
    try:
        lines = children.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return
    recorded = [(int(pid), said) for pid, _, said in (line.partition(" ") for line in lines) if pid.isdigit()]
    for pid, said in recorded:
        if not _alive(pid, said):
            continue
        # Its keeper sweeps what it started, at once when told twice; what a keeper cannot do, its session shows.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            rest = _alive(pid, said)
            for one in rest:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(one, number)
                    os.kill(one, signal.SIGCONT)
            end = time.monotonic() + GRACE_S / 2
            while _alive(pid, said) and time.monotonic() < end:
                time.sleep(0.01)
            if not _alive(pid, said):
                break
        yield f"process {pid} had outlived its engine"
    children.unlink()


def _alive(pid: int, said: str) -> list[int]:
    """The process itself, what descends from it, and its session, whose number is not given out while one lives."""
    now = identity(pid)
    if now and now != said:
        return []  # the number is somebody else's by now
    boot = said.partition("/")[0]
    if not now and "/" in said and identity(os.getpid()).partition("/")[0] != boot:
        return []
    return [*([pid] if now else []), *members(pid)]


# -- what it left in the repository ----------------------------------------------------------------------


def _locks(common: Path, run: Run) -> Iterator[str]:
    """Locks of refs that only the engine moves. git leaves them when it is killed, and then refuses for ever."""
    asked = [p.body for p in run.pending.values() if isinstance(p.body, e.MergeRequested)]
    ids = {body.new for body in asked}
    places = [common / "refs/heads/orchgit" / run.id, common / "refs/orchgit/salvage" / run.id]
    ours = [lock for place in places for lock in place.rglob("*.lock")]
    ours += [common / f"refs/orchgit/{kind}/{run.id}.lock" for kind in ("base", "runs")]
    # The branch that the work is shipped to is the user's: its lock is ours if it holds what we asked for, and can be
    # nobody else's if it holds nothing: a living git needs microseconds between making and writing it.
    shipped = [common / f"{body.ref}.lock" for body in asked if body.land == "ship"]
    for lock in ours + shipped:
        if _abandoned(lock, ids, any_content=lock not in shipped):
            lock.unlink(missing_ok=True)
            yield f"lock {lock.relative_to(common)}"


def _abandoned(lock: Path, ids: set[str], *, any_content: bool) -> bool:
    """Whether nobody is behind it. One that goes away by itself was somebody's."""
    try:
        while True:
            held = lock.read_bytes().decode("ascii", "replace").strip()
            if held in ids:
                return True
            if held and not any_content:
                return False
            if time.time() - lock.stat().st_mtime > TRANSIENT_S:
                return True
            time.sleep(0.02)
    except OSError:
        return False


def _objects(door: Door, run: str) -> Iterator[str]:
    for temporary in door.objects.glob(f"??/{temporary_prefix(run)}*"):
        temporary.unlink(missing_ok=True)
        yield f"object {temporary.parent.name}/{temporary.name}"
    for folder in door.engine.glob(f"{incoming_prefix(run)}*"):
        # Killed between moving the pack and its index: without the index nobody can see the pack.
        for index in folder.glob("pack/*.idx"):
            for part in (door.objects / "pack").glob(f"{index.stem}.*"):
                if not (door.objects / "pack" / index.name).exists():
                    part.unlink(missing_ok=True)
        cells.remove(folder)
        yield f"quarantine {folder.name}"


# -- what it left beside the log, and where the cells are ------------------------------------------------


def _files(log: Log, run: Run) -> Iterator[str]:
    """Half-written files of the writer's. Messages of other processes may be just being written: they stay."""
    for folder in (log.path, log.path / "blobs", log.path / "torn"):
        for half in folder.glob(".*"):
            half.unlink(missing_ok=True)
            yield f"file {half.relative_to(log.path)}"
    for transcript in (log.path / "live").glob("*.jsonl"):
        if not transcript.stem.isdigit() or int(transcript.stem) not in run.pending:
            transcript.unlink(missing_ok=True)


def _cells(state: Path, run: Run) -> Iterator[str]:
    """Check-outs of checks and readers, and cells of attempts that are over."""
    keep = {f"{n}-{w.attempt}" for n, w in run.works.items() if w.cell or w.stage in HOUSED}
    if run.phase in ("completed", "aborted"):
        if state.exists():
            cells.remove(state)
        return
    for path in sorted(state.iterdir()) if state.exists() else []:
        name, _, number = path.name.rpartition("-")
        ours = path.name.startswith(("checks-", "view-")) or (name in run.works and number.isdigit())
        if ours and path.name not in keep:
            cells.remove(path)
            yield f"check-out {path.name}"


def birth(common: Path, root: Path, name: str) -> Log:
    """The directory of a new run and its lock. Who is here alone knows that a directory with neither log nor lock is of
    a run whose engine was killed before it could write the first line: it is buried."""
    runs = runs_dir(common)
    runs.mkdir(parents=True, exist_ok=True)
    fd = os.open(runs.parent / "births", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for path in runs.iterdir():
            if path.is_dir() and not (path / "events.jsonl").exists() and Store(path).holder() is None:
                _bury(common, root, path)
        (runs / name).mkdir()
        fsync_dir(runs)
        return Log(runs / name)
    finally:
        os.close(fd)


def _bury(common: Path, root: Path, path: Path) -> None:
    door = Door(common, owner=path.name)
    base = f"refs/orchgit/base/{path.name}"
    (common / f"{base}.lock").unlink(missing_ok=True)
    pinned = door.ref(base)
    if pinned:
        door.swap([(base, "0" * len(pinned), pinned)], "orchgit: a run that never began")
    (root / ".orchestration" / "runs" / path.name).unlink(missing_ok=True)
    cells.remove(path)
    fsync_dir(path.parent)
