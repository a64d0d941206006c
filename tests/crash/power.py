"""What the power can leave of a git directory: a model of a file system, fed with every call that changed one.

    fs = FileSystem(before)       the directory as it was, all of it on the disk
    fs.replay(trace)              what the shim wrote down, up to where the power went
    fs.whole()                    what the directory holds while the machine lives; a test of the model itself
    fs.after(chance, loss)        one of the directories that can be there when the machine is on again

What no sync covered may be lost, each by itself and in any combination: that a name was made, moved, linked or removed,
and what was written, from any byte on; of what was written and lost, the length may be there, as zeros. fsync of a file
covers its content, of a directory its names; syncfs all; each what was done before it began, once it has ended. A name
that was moved is never at both places and never at none. Disks here keep what they said they have: a drive that lies
about a flush, and bits that rot, are not covered; nor is a file system that loses what an fsync had covered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

Loss = Literal["all", "names", "content", "any"]  # of what was not synced
Files = dict[str, bytes]


def calls(trace: bytes) -> Iterator[tuple[str, str, str, int, bytes]]:
    """What the shim wrote down: name, path, second path, number, bytes."""
    at = 0
    while at < len(trace):
        end = trace.index(b"\n", at)
        name, path, second, number, size = trace[at:end].decode().split("\t")
        at = end + 1 + int(size)
        yield name, path, second, int(number), trace[end + 1 : at]


@dataclass
class Node:
    """A file or a directory. `written`: (number of the call, offset, bytes; None cuts there), since the last sync."""

    folder: bool
    content: bytes = b""
    written: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    link: str = ""


@dataclass
class Move:
    """Names that change together: (directory, name, what it stands for from now on)."""

    number: int
    names: list[tuple[int, str, int | None]]


class FileSystem:
    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._nodes = [Node(True)]
        self._kept: dict[int, dict[str, int]] = {0: {}}  # directory -> its names, as they are on the disk
        self._now: dict[int, dict[str, int]] = {0: {}}
        self._moves: list[Move] = []
        self._syncs: dict[int, tuple[int, int | None, int]] = {}  # under way: when it began, of what, and its time
        self.synced_ns = 0  # when the last sync of everything began that has ended
        self._number = 0
        self._known(root, 0)

    def _known(self, folder: Path, node: int) -> None:
        for path in sorted(folder.iterdir()):
            made = self._node(path.is_dir() and not path.is_symlink())
            if path.is_symlink():
                self._nodes[made].link = os.readlink(path)
            elif path.is_dir():
                self._known(path, made)
            else:
                self._nodes[made].content = path.read_bytes()
            self._kept[node][path.name] = self._now[node][path.name] = made

    def _node(self, folder: bool) -> int:
        self._nodes.append(Node(folder))
        made = len(self._nodes) - 1
        if folder:
            self._kept[made], self._now[made] = {}, {}
        return made

    # -- what happens

    def replay(self, trace: bytes) -> None:
        for call in calls(trace):
            self.happens(*call)

    def happens(self, name: str, path: str, second: str, number: int, data: bytes) -> None:
        self._number += 1
        if path.endswith(" (deleted)"):  # written to by who has it open: nobody will see it
            return
        match name:
            case "create" | "mkdir" | "symlink":
                made = self._node(name == "mkdir")
                self._nodes[made].link = second
                self._move((*self._place(path), made))
            case "write":
                self._nodes[self._at(path)].written.append((self._number, number, data))
            case "truncate":
                self._nodes[self._at(path)].written.append((self._number, number, None))
            case "rename":
                node = self._at(path)
                self._move((*self._place(path), None), (*self._place(second), node))
            case "link":
                self._move((*self._place(second), self._at(path)))
            case "unlink":
                self._move((*self._place(path), None))
            case "fsync" | "syncfs":
                if second == "begins":
                    self._syncs[number] = (self._number, None if name == "syncfs" else self._at(path), int(data))
                else:
                    self._sync(*self._syncs.pop(number))
            case _:
                raise ValueError(f"{name} of {path} is not in the model")

    def _place(self, path: str) -> tuple[int, str]:
        folder, _, name = os.path.normpath(path).rpartition("/")
        return self._at(folder), name

    def _at(self, path: str) -> int:
        node = 0
        for part in os.path.relpath(path, self.root).split("/"):
            node = node if part == "." else self._now[node][part]
        return node

    def _move(self, *names: tuple[int, str, int | None]) -> None:
        self._moves.append(Move(self._number, list(names)))
        _apply(self._now, self._moves[-1])

    def _sync(self, began: int, only: int | None, began_ns: int) -> None:
        self.synced_ns = began_ns if only is None else self.synced_ns
        left = []
        for move in self._moves:
            # A file that moved to another directory is where it is said to be once that directory was synced.
            if move.number < began and only in (None, move.names[-1][0]):
                _apply(self._kept, move)
            else:
                left.append(move)
        self._moves = left
        for node in self._nodes if only is None else [self._nodes[only]]:
            done = [w for w in node.written if w[0] < began]
            node.content, node.written = _written(node.content, done), node.written[len(done) :]

    # -- what there is

    def whole(self) -> Files:
        return self._files(self._now, [_written(n.content, n.written) for n in self._nodes])

    def after(self, chance: Random, loss: Loss) -> Files:
        names = {node: dict(held) for node, held in self._kept.items()}
        for move in self._moves:
            if loss == "content" or (loss == "any" and chance.random() < 0.5):
                _apply(names, move)
        content = []
        for node in self._nodes:
            lasting = len(node.written) if loss == "names" else 0 if loss == "all" else chance.randint(
                0, len(node.written)
            )  # fmt: skip
            held = _written(node.content, node.written[:lasting])
            if lasting < len(node.written) and loss != "all":
                held = _torn(held, _written(held, node.written[lasting : lasting + 1]), chance)
            content.append(held)
        return self._files(names, content)

    def _files(self, names: dict[int, dict[str, int]], content: list[bytes]) -> Files:
        """path -> content; of a directory b"/", of a link where it leads to, after b"->"."""
        found: Files = {}
        todo = [("", 0)]
        while todo:
            at, folder = todo.pop()
            for name, node in names[folder].items():
                path = f"{at}{name}"
                if self._nodes[node].folder:
                    found[path] = b"/"
                    todo.append((f"{path}/", node))
                else:
                    link = self._nodes[node].link
                    found[path] = b"->" + link.encode() if link else b"=" + content[node]
        return found


def _apply(names: dict[int, dict[str, int]], move: Move) -> None:
    """As far as it still makes sense where moves before it were lost: what is not there cannot go anywhere."""
    for folder, name, node in move.names:
        if node is None:
            names[folder].pop(name, None)
        else:
            names[folder][name] = node


def _written(content: bytes, written: list[tuple[int, int, bytes | None]]) -> bytes:
    for _, offset, data in written:
        content = content.ljust(offset, b"\0")
        content = content[:offset] if data is None else content[:offset] + data + content[offset + len(data) :]
    return content


def _torn(before: bytes, after: bytes, chance: Random) -> bytes:
    """Between the one and the other: a part of it, and perhaps the length of all of it."""
    if len(after) <= len(before):
        return chance.choice((before, after))
    cut = chance.randint(len(before), len(after))
    return after[:cut] if chance.random() < 0.5 else after[:cut].ljust(len(after), b"\0")


def read(root: Path) -> Files:
    found: Files = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = b"->" + os.readlink(path).encode()
        else:
            found[name] = b"/" if path.is_dir() else b"=" + path.read_bytes()
    return found


def write(root: Path, files: Files) -> None:
    """Make the directory hold these and nothing else."""
    there = read(root)
    for name in sorted(there, reverse=True):
        path = root / name
        if there[name] != files.get(name):
            path.rmdir() if there[name] == b"/" else path.unlink()
    for name in sorted(files):
        path, held = root / name, files[name]
        if held == there.get(name):
            continue
        if held == b"/":
            path.mkdir()
        elif held.startswith(b"->"):
            path.symlink_to(held[2:].decode())
        else:
            path.write_bytes(held[1:])
            if name.startswith("objects/"):
                path.chmod(0o444)
