"""The layers of an overlay, read and made as the kernel reads them: topmost first, whiteouts, opaque directories.

Only for what no program has mounted at the time. No link in a layer is ever followed.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchgit.git import trees
from orchgit.git.door import Door, GitError, clean_env, git_argv
from orchgit.git.harvest import OPAQUE, is_opaque, is_whiteout

GITLINK = "160000"
ATTRIBUTES = b".gitattributes"
Layers = tuple[Path, ...]


def find(layers: Layers, name: str) -> Layers | None:
    """What a name in a merged directory stands for: the directories that it merges; () for a file or a link; None
    when there is nothing."""
    merged: list[Path] = []
    for layer in layers:
        path = layer / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            return tuple(merged) or (None if is_whiteout(found) else ())
        merged.append(path)
        if is_opaque(os.fsencode(path)):
            break
    return tuple(merged) or None


def folder(layers: Layers, parts: Sequence[str]) -> Layers | None:
    """The directories that a path merges, the topmost one first, where it is or would be; made there if none of the
    layers has it. None where a file or a link is in the way."""
    place = layers[0]
    for part in parts:
        place = place / part
        found = find(layers, part)
        if found == ():
            return None
        if found is None:
            _make(place)
            found = (place,)
        layers = found
    return (place, *(layer for layer in layers if layer != place))


def _make(place: Path) -> None:
    if not place.is_char_device():
        place.mkdir(parents=True)
        return
    place.unlink()  # a whiteout: what was below must stay gone
    place.mkdir()
    os.setxattr(place, OPAQUE, b"y")


def differences(door: Door, old: str, new: str, delta: Path, git_dir: Path) -> None:
    """Fill `delta`, an empty directory, so that on a checkout of the tree `old` it makes one of `new`; and let the
    index in `git_dir`, which is that of `old`, be that of `new`. Files are written by git, as attributes ask for.

    Raises GitError, and Missing.
    """
    changes = list(trees.diff(door, old, new))
    lines = [
        f"{change.new[0]} {change.new[1]}\t".encode() + change.path if change.new
        else f"0 {door.null}\t".encode() + change.path
        for change in changes
    ]  # fmt: skip
    files = {change.path for change in changes if change.new}
    for change in changes:
        if change.path.rpartition(b"/")[2] == ATTRIBUTES:
            # Other attributes, and every file that they are about may look otherwise.
            files |= set(_files(door, new, change.path[: -len(ATTRIBUTES)]))
    for path in whiteouts(door, old, new):
        place = os.path.join(os.fsencode(delta), path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.mknod(place, stat.S_IFCHR, 0)
    _git(git_dir, delta, "update-index", "-z", "--index-info", names=lines)
    _git(git_dir, delta, "checkout-index", "-f", "-q", "-u", "-z", "--stdin", names=sorted(files))


def whiteouts(door: Door, old: str, new: str, prefix: bytes = b"") -> Iterator[bytes]:
    """The topmost paths that `old` has and `new` has nothing at."""
    here, there = trees.entries(door, old), trees.entries(door, new)
    for name, (mode, oid) in here.items():
        now, other = there.get(name, ("", ""))
        if not now:
            yield prefix + name
        elif mode == trees.TREE and oid != other and now in (trees.TREE, GITLINK):
            # A submodule is an empty directory.
            yield from whiteouts(door, oid, other if now == trees.TREE else "", prefix + name + b"/")


def _files(door: Door, tree: str, prefix: bytes) -> Iterator[bytes]:
    """All of one directory."""
    if prefix:
        entry = trees.lookup(door, tree, prefix[:-1])
        if entry is None or entry[0] != trees.TREE:
            return
        tree = entry[1]
    for change in trees.diff(door, "", tree, prefix):
        yield change.path


def _git(git_dir: Path, work: Path, *args: str, names: Sequence[bytes]) -> None:
    env = {**clean_env(), "GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(work)}
    done = subprocess.run(
        git_argv("-c", "core.fsync=none", *args), env=env, cwd=work, input=b"".join(n + b"\0" for n in names),
        capture_output=True, check=False, process_group=0,
    )  # fmt: skip
    if done.returncode:
        raise GitError(f"{args[0]}: {done.stderr.decode('utf-8', 'backslashreplace').strip()}")
