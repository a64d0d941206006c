"""What lands: the recorded base, plus the in-scope entries of what a worker left, and nothing else.

The input is bytes: a pack that was made inside the sandbox, and the ids that came with it. The order of the rules is
that of the design, section 7. True by construction: the tree that lands is built here from the base and the
entries that passed; then it is compared with the base once more by a second implementation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchgit.core.events import Violation
from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import trees
from orchgit.git.door import Door, GitError, Missing
from orchgit.git.trees import Change, Entry

MAX_PACK = 512 * 1024 * 1024
MAX_BLOB = 50 * 1024 * 1024
MAX_FILES = 5000
LISTED = 50
FILE, EXECUTABLE, LINK, GITLINK = "100644", "100755", "120000", "160000"
_OID = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)  # names that one common system cannot check out


class BadPack(Exception):
    """What came out of the cell is not usable; the message is for the worker's feedback."""


@dataclass(frozen=True)
class Snapshot:
    """What a worker left, now in the object store. `commit` holds its commits and its uncommitted work together."""

    commit: str
    tree: str


def admit(door: Door, output: bytes, start: str) -> Snapshot:
    """Take in what `harvest` printed. Every object is re-hashed and checked by git's own fsck rules.

    Raises BadPack. Nothing that fails leaves anything in the object store.
    """
    parts = output.split(b"\n", 3)
    if len(parts) != 4 or not all(_OID.fullmatch(p) for p in parts[:3]):
        raise BadPack("the cell gave no snapshot")
    commit, tree = parts[0].decode(), parts[1].decode()
    try:
        door.run("index-pack", "--stdin", "--strict", f"--max-input-size={MAX_PACK}", stdin=parts[3])
        # Connectivity: all that the commit reaches is here, down to where the worker began.
        door.run("rev-list", "--objects", "--quiet", commit, "--not", start)
        if door.tree_of(commit) != tree:
            raise BadPack("the snapshot's tree is not the one it names")
    except (GitError, Missing) as error:
        raise BadPack(f"git refused the work's objects: {error}") from error
    return Snapshot(commit, tree)


def raw_diff(door: Door, old: str, new: str) -> list[Change]:
    """git's own answer to what differs, renames not guessed at, as bytes."""
    output = door.run("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff", old, new)
    fields = output.split(b"\0")[:-1]
    found = []
    for head, path in zip(fields[::2], fields[1::2], strict=True):
        old_mode, new_mode, old_id, new_id, _ = head[1:].split(b" ")
        before = None if old_mode == b"000000" else (old_mode.decode(), old_id.decode())
        after = None if new_mode == b"000000" else (new_mode.decode(), new_id.decode())
        found.append(Change(path, before, after))
    return found


def judge(door: Door, scope: Scope, changes: Sequence[Change], base_tree: str) -> list[Violation]:
    """Every rule on every entry; empty means that all of it may land."""
    found: list[Violation] = []
    if not changes:
        return [Violation("", "nothing was changed")]
    if len(changes) > MAX_FILES:
        return [Violation("", f"{len(changes)} files changed, at most {MAX_FILES} may be")]
    for change in changes:
        # A name that the base has already is not this work's doing.
        rule = scope.why_not(change.path) or _mode(change) or (change.old is None and _name(change.path))
        if rule:
            found.append(Violation(printable(change.path), rule))
    found += _sizes(door, [c for c in changes if c.new and c.new != c.old])
    found += _collisions(door, base_tree, changes)
    return found


def _mode(change: Change) -> str:
    if GITLINK in ((change.old or ("",))[0], (change.new or ("",))[0]):
        return "a submodule may not be added, changed or removed"
    if change.new is None:
        return ""
    mode = change.new[0]
    if mode == LINK:
        return "a symbolic link may not be added or changed"
    if mode not in (FILE, EXECUTABLE):
        return f"mode {mode} may not land"
    if change.old is not None and change.old[0] == LINK:
        return "a symbolic link may not become a file"
    return ""


def _name(path: bytes) -> str:
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return "the name is not UTF-8"
    if unicodedata.normalize("NFC", text) != text:
        return "the name is not in Unicode normal form C"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text):
        return "the name holds control or invisible characters"
    if "\\" in text:
        return "the name holds a backslash"
    if len(path) > 4096 or any(len(part) > 255 for part in path.split(b"/")):
        return "the name is too long"
    for part in text.split("/"):
        if part != part.rstrip(". "):
            return "a part of the name ends in a dot or a space"
        if part.partition(".")[0].lower() in _RESERVED:
            return f"{part!r} is a reserved name on some systems"
    return ""


def _sizes(door: Door, changes: Sequence[Change]) -> list[Violation]:
    if not changes:
        return []
    asked = "".join(f"{c.new[1]}\n" for c in changes if c.new).encode()
    lines = door.run("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin=asked).splitlines()
    found = []
    for change, line in zip(changes, lines, strict=True):
        kind, size = line.split()
        if kind != b"blob":
            found.append(Violation(printable(change.path), f"its content is a {kind.decode()}, not a file"))
        elif int(size) > MAX_BLOB:
            found.append(Violation(printable(change.path), f"{int(size)} bytes, at most {MAX_BLOB} may be"))
    return found


def _fold(name: bytes) -> str:
    return unicodedata.normalize("NFKC", name.decode("utf-8", "surrogateescape")).casefold()


def _collisions(door: Door, base_tree: str, changes: Sequence[Change]) -> list[Violation]:
    """New names that some file systems cannot tell from another in the same directory of the result. Looks at the
    touched directories only; what the base has twice already is not this work's doing."""
    found = []
    removed = {c.path for c in changes if c.new is None}
    names: dict[bytes, dict[str, set[bytes]]] = {}
    for change in changes:
        if change.new is None:
            continue
        parts = change.path.split(b"/")
        for depth, part in enumerate(parts):
            folder = b"/".join(parts[:depth])
            if folder not in names:
                names[folder] = {}
                for name in _kept(door, base_tree, folder, removed):
                    names[folder].setdefault(_fold(name), set()).add(name)
            alike = names[folder].setdefault(_fold(part), set())
            if part not in alike and alike:
                rule = f"{printable(part)} and {printable(min(alike))} differ only in case or form"
                found.append(Violation(printable(change.path), rule))
                break
            alike.add(part)
    return found


def _kept(door: Door, base_tree: str, folder: bytes, removed: set[bytes]) -> Iterator[bytes]:
    """The names that a directory of the base has and the result still will: not those of removed files, nor of
    directories all of whose files are removed."""
    where = (trees.TREE, base_tree) if not folder else trees.lookup(door, base_tree, folder)
    if not where or where[0] != trees.TREE:
        return
    prefix = folder + b"/" if folder else b""
    for name, (mode, oid) in trees.entries(door, where[1]).items():
        path = prefix + name
        if mode != trees.TREE:
            if path not in removed:
                yield name
        elif any(c.path not in removed for c in trees.diff(door, "", oid, path + b"/")):
            yield name


def construct(door: Door, base_tree: str, changes: Iterable[Change], scope: Scope) -> str:
    """The tree that lands. Raises trees.Unmergeable; AssertionError if the two implementations disagree."""
    wanted: dict[bytes, Entry | None] = {c.path: c.new for c in changes}
    tree = trees.edit(door, base_tree, wanted)
    check(door, base_tree, tree, wanted, scope)
    return tree


def check(door: Door, base_tree: str, tree: str, wanted: dict[bytes, Entry | None], scope: Scope) -> None:
    """The claim of the gate, looked at again: outside the scope the landed tree equals its base, inside it what
    passed is there."""
    landing = {change.path: change.new for change in trees.diff(door, base_tree, tree)}
    for path in landing.keys() | wanted.keys():
        if path not in landing:
            raise AssertionError(f"{printable(path)} passed the gate and would not land")
        if not scope.allows(path) or wanted.get(path, ()) != landing[path]:
            raise AssertionError(f"{printable(path)} would land although the gate did not pass it")


def missing_outputs(door: Door, tree: str, outputs: Iterable[str]) -> list[Violation]:
    return [
        Violation(path, "the assignment requires this file, and it is not there")
        for path in outputs
        if trees.lookup(door, tree, path.encode()) is None
    ]
