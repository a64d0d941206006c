"""Trees as values: read, compare, edit. Paths are bytes; a tree's entry is (mode, object id).

This is the second, independent implementation that the gate's result is compared with: git's own diff decides what
changed, this says whether what was built from it differs from the base where it may, and nowhere else. Cost grows
with the change and its depth, never with the repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from orchgit.git.door import Door, Missing, Objects

TREE, LINK, GITLINK = "40000", "120000", "160000"
Entry = tuple[str, str]  # (mode, object id)


class Unmergeable(Exception):
    """Entries that a tree cannot take: a file where a directory would have to be, or the reverse."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class Change:
    path: bytes
    old: Entry | None
    new: Entry | None


def entries(door: Objects, tree: str) -> dict[bytes, Entry]:
    """One directory. The empty id is the empty directory."""
    if not tree:
        return {}
    kind, data = door.read(tree)
    if kind != b"tree":
        raise Missing(tree)
    return dict(_parsed(data, 20 if door.format == "sha1" else 32))


@lru_cache(maxsize=64)  # the root of a wide repository is looked at by every step of the gate
def _parsed(data: bytes, width: int) -> Mapping[bytes, Entry]:
    found: dict[bytes, Entry] = {}
    at = 0
    while at < len(data):
        space = data.index(b" ", at)
        null = data.index(b"\0", space)
        # Old tools wrote directories as 040000, and their trees are still in use.
        mode = data[at:space].lstrip(b"0").decode()
        found[data[space + 1 : null]] = (mode, data[null + 1 : null + 1 + width].hex())
        at = null + 1 + width
    return found


def files(door: Door, commit: str) -> list[bytes]:
    """Every path of a commit. One git call: it costs what the repository has."""
    return door.run("ls-tree", "-r", "-z", "--name-only", commit).split(b"\0")[:-1]


class Folders:
    """The directories of one tree, each read once, when it is asked for."""

    def __init__(self, door: Objects, tree: str) -> None:
        self._door = door
        self._known = {b"": entries(door, tree)}

    def at(self, path: bytes) -> Entry | None:
        """The entry at a path; None when there is none."""
        folder, _, name = path.rpartition(b"/")
        return self.within(folder).get(name)

    def within(self, folder: bytes) -> dict[bytes, Entry]:
        if folder not in self._known:
            mode, oid = self.at(folder) or ("", "")
            self._known[folder] = entries(self._door, oid) if mode == TREE else {}
        return self._known[folder]


def lookup(door: Objects, tree: str, path: bytes) -> Entry | None:
    """The entry at a path; None when there is none."""
    *folders, name = path.split(b"/")
    for folder in folders:
        mode, oid = entries(door, tree).get(folder, ("", ""))
        if mode != TREE:
            return None
        tree = oid
    return entries(door, tree).get(name)


def diff(door: Objects, old: str, new: str, prefix: bytes = b"") -> Iterator[Change]:
    """Every file at which two trees differ, in path order within a directory."""
    if old == new:
        return
    before, after = entries(door, old), entries(door, new)
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name), after.get(name)
        if a == b:
            continue
        path = prefix + name
        a_tree, b_tree = a is not None and a[0] == TREE, b is not None and b[0] == TREE
        if a_tree or b_tree:
            yield from diff(door, a[1] if a and a_tree else "", b[1] if b and b_tree else "", path + b"/")
        if (a and not a_tree) or (b and not b_tree):
            yield Change(path, None if a_tree else a, None if b_tree else b)


def edit(door: Objects, tree: str, changes: Mapping[bytes, Entry | None]) -> str:
    """The tree with these entries set, or removed (None); directories come and go as needed. Writes what is new."""
    result = _edit(door, tree, changes, b"")
    return result or door.write(b"tree", b"")


def _edit(door: Objects, tree: str, changes: Mapping[bytes, Entry | None], prefix: bytes) -> str:
    here = entries(door, tree)
    files: dict[bytes, Entry | None] = {}
    below: dict[bytes, dict[bytes, Entry | None]] = {}
    for path, entry in changes.items():
        name, slash, rest = path.partition(b"/")
        if slash:
            below.setdefault(name, {})[rest] = entry
        else:
            files[name] = entry
    # Removals, then directories, then files: so a file can become a directory and an emptied directory a file.
    for name, entry in files.items():
        if entry is None and here.get(name, ("", ""))[0] != TREE:
            here.pop(name, None)
    for name, inner in below.items():
        mode, oid = here.get(name, (TREE, ""))
        if mode != TREE:
            if any(entry is not None for entry in inner.values()):
                raise Unmergeable(prefix + name)
            continue
        made = _edit(door, oid, inner, prefix + name + b"/")
        if made:
            here[name] = (TREE, made)
        else:
            here.pop(name, None)
    for name, entry in files.items():
        if entry is not None:
            if here.get(name, ("", ""))[0] == TREE:
                raise Unmergeable(prefix + name)
            here[name] = entry
    if not here:
        return ""
    return door.write(b"tree", encode(here))


def encode(folder: Mapping[bytes, Entry]) -> bytes:
    """A tree object's content; git orders a directory as if its name ended in a slash."""
    order = sorted(folder.items(), key=lambda item: item[0] + (b"/" if item[1][0] == TREE else b""))
    return b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in order)


def carry(door: Objects, base: str, head: str, onto: str) -> tuple[str, tuple[bytes, ...]]:
    """(tree, stale paths): the entries of base..head set on `onto`, all three trees.

    Only where `onto` has the base's entry (or the head's already); otherwise the path is stale and the tree is "".
    No content is merged: the scopes of what runs at the same time are disjoint, so nothing ever has to be.
    """
    wanted: dict[bytes, Entry | None] = {}
    stale: list[bytes] = []
    for change in diff(door, base, head):
        there = lookup(door, onto, change.path)
        if there is not None and there[0] == TREE:
            there = None  # a directory that becomes a file: no file yet, and `edit` sees to it that none is left below
        if there == change.new:
            continue
        if there != change.old:
            stale.append(change.path)
        wanted[change.path] = change.new
    if stale:
        return "", tuple(stale)
    if not wanted:
        return onto, ()
    try:
        return edit(door, onto, wanted), ()
    except Unmergeable as error:
        return "", (error.path,)
