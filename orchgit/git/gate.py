"""What lands: the recorded base, plus the in-scope entries of what a worker left, and nothing else.

The input is bytes: a pack that was made inside the sandbox, and the ids that came with it. The order of the rules is
that of the design, section 7. True by construction: the tree that lands is built here from the base and the
entries that passed; then it is compared with the base once more by a second implementation.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchgit.core.events import Violation
from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import trees
from orchgit.git.door import Door, GitError, incoming_prefix, quoted
from orchgit.git.trees import Change, Entry

MAX_PACK = 512 * 1024 * 1024
MAX_BLOB = 50 * 1024 * 1024
MAX_FILES = 5000
MAX_DEPTH = 100  # trees are walked by recursion
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
    door.env()  # the engine's own directory is there
    with tempfile.TemporaryDirectory(dir=door.engine, prefix=incoming_prefix(door.owner)) as folder:
        incoming = Path(folder)
        for name in ("info", "pack"):
            (incoming / name).mkdir()
        (incoming / "info" / "alternates").write_text(f"{quoted(str(door.objects))}\n")
        env = {"GIT_OBJECT_DIRECTORY": folder}
        try:
            door.run("index-pack", "--stdin", "--strict", f"--max-input-size={MAX_PACK}", stdin=parts[3], env=env)
            # Connectivity: all that the commit reaches is here, down to where the worker began.
            door.run("rev-list", "--objects", "--quiet", commit, "--not", start, env=env)
            header, _, content = door.run("cat-file", "--batch", stdin=parts[0] + b"\n", env=env).partition(b"\n")
        except GitError as error:
            raise BadPack(f"git refused the work's objects: {error}") from error
        if header.split(b" ")[1] != b"commit" or not content.startswith(b"tree " + parts[1] + b"\n"):
            raise BadPack("the snapshot is not a commit of the tree it names")
        # The index comes last: with it the pack is there for every reader at once.
        for file in sorted((incoming / "pack").iterdir(), key=lambda p: (p.suffix == ".idx", p.name)):
            target = door.objects / "pack" / file.name
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
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
    fine = []
    for change in changes:
        # A name that the base has already is not this work's doing.
        rule = scope.why_not(change.path) or _mode(change) or (change.old is None and _name(change.path))
        if rule:
            found.append(Violation(printable(change.path), rule))
        else:
            fine.append(change)
    return found + _sizes(door, [c for c in fine if c.new]) + _collisions(door, base_tree, fine, changes)


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
    if path.count(b"/") >= MAX_DEPTH:
        return f"it is nested too deep, at most {MAX_DEPTH} may be"
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
            found.append(Violation(printable(change.path), "its content is not that of a file"))
        elif int(size) > MAX_BLOB:
            found.append(Violation(printable(change.path), f"{int(size)} bytes, at most {MAX_BLOB} may be"))
    return found


def _fold(name: bytes) -> str:
    return unicodedata.normalize("NFKC", name.decode("utf-8", "surrogateescape")).casefold()


def _collisions(door: Door, base_tree: str, fine: Sequence[Change], changes: Sequence[Change]) -> list[Violation]:
    """New names that some file systems cannot tell from another in the same directory of the result. Looks at the
    touched directories only; what the base has twice already is not this work's doing."""
    found = []
    removed = {c.path for c in changes if c.new is None}
    names: dict[bytes, dict[str, set[bytes]]] = {}  # directory -> folded name -> names
    below: dict[bytes, str] = {b"": base_tree}  # directory -> its tree in the base; "" when there is none
    for change in fine:
        if change.new is None:
            continue
        folder = b""
        for part in change.path.split(b"/"):
            if folder not in names:
                names[folder] = {}
                for name, (mode, oid) in trees.entries(door, below.get(folder, "")).items():
                    path = folder + name
                    if mode == trees.TREE:
                        below[path + b"/"] = oid
                    if not _gone(door, path, (mode, oid), removed):
                        names[folder].setdefault(_fold(name), set()).add(name)
            alike = names[folder].setdefault(_fold(part), set())
            if alike and part not in alike:
                rule = f"{printable(part)} and {printable(min(alike))} differ only in case or form"
                found.append(Violation(printable(change.path), rule))
                break
            alike.add(part)
            folder += part + b"/"
    return found


def _gone(door: Door, path: bytes, entry: Entry, removed: set[bytes]) -> bool:
    """Whether nothing of an entry of the base is left: a removed file, or a directory of removed files."""
    if entry[0] != trees.TREE:
        return path in removed
    return all(c.path in removed for c in trees.diff(door, "", entry[1], path + b"/"))


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
