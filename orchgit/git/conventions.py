"""AGENTS.md and CLAUDE.md: how things are done in a repository, as it says itself, for whoever works in a part of it.

Read from a commit, never from a working tree: what a worker writes there is not to reach another worker's brief, nor
its own. Quoted to it as data; nothing here is obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchgit.git import trees
from orchgit.git.door import Door, Missing

NAMES = ("AGENTS.md", "CLAUDE.md")
MAX_FILES = 12
MAX_BYTES = 64 * 1024  # of one file; beyond it nobody wrote it to be read


def read(door: Door, commit: str, folders: Iterable[str]) -> list[tuple[str, str]]:
    """(path, text) of those that hold for these folders: in them and above, the root's first, each text once."""
    tree = door.tree_of(commit)
    places = {above for folder in folders for above in _upward(folder)}
    found: dict[str, tuple[str, str]] = {}
    for place in sorted(places, key=lambda p: (p.count("/") + bool(p), p)):
        for name in NAMES:
            path = f"{place}/{name}" if place else name
            entry = trees.lookup(door, tree, path.encode())
            # Not a link: where it leads, the scope of the reader may not.
            if entry is None or entry[0] not in ("100644", "100755") or entry[1] in found:
                continue
            text = _text(door, entry[1])
            if text and text != f"@{NAMES[0]}":
                found[entry[1]] = (path, text)
    return list(found.values())[:MAX_FILES]


def _upward(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _text(door: Door, oid: str) -> str:
    try:
        data = door.read(oid)[1]
    except Missing:  # a partial clone
        return ""
    return data.decode("utf-8", "replace").strip() if len(data) <= MAX_BYTES else ""
