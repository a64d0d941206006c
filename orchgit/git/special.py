"""Names whose content git has rules for (.gitmodules, .gitattributes, in every spelling that some file system takes for
them), judged by git's own fsck before the engine puts them into a tree.

`index-pack --strict` knows by its name what to look into, and the trees that name these are made here, after it has
run: so it is shown each of them in a small tree of its own.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchgit.git.door import Door
from orchgit.git.trees import TREE, Entry

# More than fsck looks for: 8.3 names have a tilde, and HFS+ leaves out what is not ASCII here.
_LIKELY = re.compile(rb"git|mailmap|~", re.IGNORECASE)
_BEYOND_ASCII = re.compile(rb"[^\x00-\x7f]+")
_TREE_IN_PACK = 2


def check(door: Door, wanted: Mapping[bytes, Entry | None], room: Path, env: Mapping[str, str]) -> None:
    """Raises GitError with fsck's words. `env`: where the objects are. Leaves two files in `room`."""
    shown = dict.fromkeys(_entries(door, wanted))
    if shown:
        (room / "shown.pack").write_bytes(_pack(door.format, list(shown)))
        door.run("index-pack", "--strict", str(room / "shown.pack"), env=dict(env))


def _entries(door: Door, wanted: Mapping[bytes, Entry | None]) -> Iterable[bytes]:
    """The content of a tree for each."""
    empty = hashlib.new(door.format, b"tree 0\0").hexdigest()
    for path, entry in wanted.items():
        if entry is None:
            continue
        *folders, name = path.split(b"/")
        for part, (mode, oid) in (*((folder, (TREE, empty)) for folder in folders), (name, entry)):
            if _LIKELY.search(_BEYOND_ASCII.sub(b"", part)):
                yield mode.lstrip("0").encode() + b" " + part + b"\0" + bytes.fromhex(oid)


def _pack(kind: str, trees: list[bytes]) -> bytes:
    made = b"PACK" + struct.pack(">II", 2, len(trees))
    for content in trees:
        size = len(content) >> 4
        head = [_TREE_IN_PACK << 4 | len(content) & 15]
        while size:
            head[-1] |= 128
            head.append(size & 127)
            size >>= 7
        made += bytes(head) + zlib.compress(content, 1)
    return made + hashlib.new(kind, made).digest()
