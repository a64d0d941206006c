"""What a working tree needs beyond git before anybody can work in it: directories of the user's, what a set-up makes.

Cells stand on it as they stand on the checkout of the base: one copy below all overlays, which no cell can write, or a
copy of its own in each checkout. A set-up command is the repository's code, so it runs in the sandbox, on a checkout
of the base; what it made is used in sandboxes only, is kept per content of that base, or of what the configuration and
the command name of it, and never lands: git in a cell does not see it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchgit.agent_run import confined
from orchgit.config import Config
from orchgit.core.errors import Kind, OrchgitError
from orchgit.git import cells, trees
from orchgit.git.door import Door, clean_env
from orchgit.sandbox import Sandbox

MOST_KEPT = 8  # results of set-ups, of a repository; the oldest go
_LAST_WORDS = 1500
_WORD = re.compile(r"[^\s;&|<>(){}'\"`$=]+")  # of a shell's line; one too many only makes a set-up run again


@dataclass(frozen=True)
class Ground:
    """`layers`: directories, topmost first. `names`: the paths in them, relative to the working tree."""

    layers: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    told: str = ""  # how it came about, and how long that took


def make(
    door: Door, config: Config, sandbox: Sandbox, *, user_tree: Path, place: Path, cache: Path, commit: str,
    base: cells.Base | None, say: Callable[[str], None],
) -> Ground:  # fmt: skip
    """The ground for cells of one run, whose directory is `place`; `cache` is of all runs of this repository. Not for
    several threads at a time.

    Raises OrchgitError when the set-up fails: nobody works on half of it.
    """
    layers: list[Path] = []
    told: list[str] = []
    if config.cells.share:
        layers.append(place / "shared")
        told.append(_share(user_tree, layers[-1], config.cells.share))
    if config.setup.command:
        kept = cache / _key(door, commit, config)
        layers.append(kept / "tree")
        told.append(_set_up(door, config, sandbox, place / "setting-up", kept, commit, base, say))
    names = (*config.cells.share, *(config.setup.makes if config.setup.command else ()))
    return Ground(tuple(layers), tuple(dict.fromkeys(names)), "; ".join(told))


def _share(user_tree: Path, into: Path, names: tuple[str, ...]) -> str:
    """As they are when the run first needs them: what lies below an overlay may not change while it is mounted."""
    done = into.with_name("shared.done")
    if not done.exists():
        begun = time.monotonic()
        cells.remove(into)
        into.mkdir(parents=True)
        missing = [name for name in names if not copied(user_tree / name, into / name)]
        words = [f"shared {', '.join(n for n in names if n not in missing)} ({time.monotonic() - begun:.1f} s)"]
        words += [f"not shared, not there: {name}" for name in missing]
        done.write_text("; ".join(words))
    return done.read_text()


def copied(origin: Path, target: Path) -> bool:
    """A directory, by reflink where the file system can. False when it is not there, or a link.

    Never by hard links: where only Landlock holds, a worker could change the modes and times of the user's own files.
    """
    if origin.is_symlink() or not origin.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    _cp(origin, target)
    return True


def _cp(*words: str | Path) -> None:
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", *words], env=clean_env(), capture_output=True, check=False
    )
    if done.returncode:
        raise OrchgitError(Kind.FAULT, f"{words[0]} cannot be copied", os.fsdecode(done.stderr).strip()[-500:])


def _key(door: Door, commit: str, config: Config) -> str:
    """The same for the same command on the same lock files and on the same files and directories that its own line
    names: a script of another branch must not make what this one stands on. Without lock files, for the same tree."""
    tree, setup = door.tree_of(commit), config.setup
    words = [os.path.normpath(word) for word in _WORD.findall(setup.command)] if setup.locks else ["."]
    named = sorted({word for word in words if not word.startswith(("/", ".."))})
    found = [tree if name == "." else trees.lookup(door, tree, name.encode()) for name in (*setup.locks, *named)]
    said = [setup.command, *setup.makes, *map(str, found)]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:32]


def _set_up(
    door: Door, config: Config, sandbox: Sandbox, work: Path, kept: Path, commit: str, base: cells.Base | None,
    say: Callable[[str], None],
) -> str:  # fmt: skip
    done = kept / "done"
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(kept.parent):
        if done.exists():
            os.utime(kept)
            return f"set-up as it was made before (it took {done.read_text()})"
        for stale in sorted(kept.parent.glob("[0-9a-f]*/"), key=lambda p: p.stat().st_mtime)[: -MOST_KEPT + 1]:
            cells.remove(stale)
        say(f"set-up: {config.setup.command}")
        begun = time.monotonic()
        if kept.exists():
            cells.remove(kept)
        cell = cells.make(door, work, commit, who="set-up", base=base)
        try:
            _run(config, sandbox, cell)
            for name in config.setup.makes:
                _take(cell.top, name, kept / "tree" / name)
        finally:
            cells.remove(cell.root)
        (kept / "tree").mkdir(parents=True, exist_ok=True)
        took = f"{time.monotonic() - begun:.1f} s"
        subprocess.run(["sync", "-f", kept], env=clean_env(), capture_output=True, check=False)
        done.write_text(took)
        say(f"set-up: {took}")
        return f"set-up in {took}"


def _run(config: Config, sandbox: Sandbox, cell: cells.Cell) -> None:
    writable = (str(cell.work), str(cell.git), str(cell.home))
    launch = confined(sandbox, cell, writable, network=config.network.setup)
    ended = launch(["/bin/sh", "-c", config.setup.command]).finish(deadline_s=config.setup.deadline_s)
    if ended.returncode or ended.timed_out:
        how = f"not done in {config.setup.deadline_s} s" if ended.timed_out else f"exit code {ended.returncode}"
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace").strip()[-_LAST_WORDS:]
        network = config.network.setup
        raise OrchgitError(
            Kind.NO, f"the set-up command failed, {how}: {config.setup.command}", said,
            f'mend command in [setup]; it has the network "{network}" by setup in [network]',
        )  # fmt: skip


def _take(top: Path, name: str, target: Path) -> None:
    """Out of the cell, where nobody is any more; mostly a rename. What is not there is not; what a link of the set-up's
    leads to is not its own."""
    made = top / name
    if any(path.is_symlink() for path in (made, *made.parents) if path.is_relative_to(top)) or not made.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, target)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all runs of this repository on this machine."""
    import fcntl

    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
