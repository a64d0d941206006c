"""What lands: the recorded base, plus the in-scope entries of what a worker left, and nothing else.

The input is bytes: a pack that was made inside the sandbox, and the paths and ids that came with it. The order of the
rules is that of the design, section 7. True by construction: the tree that lands is built here from the base and the
entries that passed; then it is compared with the base once more by a second implementation.
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import links as leads
from orchgit.git import special, trees
from orchgit.git.door import Door, GitError, Objects, Scratch, incoming_prefix, quoted
from orchgit.git.trees import Change, Entry

if TYPE_CHECKING:
    from orchgit.core.events import Violation

MAX_PACK = 512 * 1024 * 1024
MAX_BLOB = 50 * 1024 * 1024
MAX_TOTAL = 1024 * 1024 * 1024  # of what a checkout would write: a pack of a few bytes can hold any size
MAX_FILES = 5000
MAX_NAME = 4096
MAX_DEPTH = 100  # trees are walked by recursion
LISTED = 50
FILE, EXECUTABLE, LINK, GITLINK = "100644", "100755", trees.LINK, trees.GITLINK
NO_CONTENT = "its content is not in this repository"
NO_LINK, NO_UNLINK = "a symbolic link may not be added or changed", "a symbolic link may not become a file"
Sizes = dict[str, tuple[str, int]]  # object id -> (type, or the id itself when it is not there; bytes)
MAX_NESTING = 400  # of what can be set aside at all
_OID = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_ENTRY = re.compile(rb"(100644|100755|120000|160000) ([0-9a-f]{40}|[0-9a-f]{64})\t(.+)", re.DOTALL)
# 8.3 names of NTFS: GIT~1 is .git there, and GITHUB~1 is .github.
_SHORT = re.compile(r"(?=[^.]{1,8}(\.|$))[^.]+~[0-9]+(\.[^.]{0,3})?")
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)  # names that one common system cannot check out


class BadPack(Exception):
    """What came out of the cell is not usable; the message is for the worker's feedback."""


@dataclass(frozen=True)
class Snapshot:
    """What a worker left, now in the object store. `commit` holds its commits and its uncommitted work together."""

    commit: str
    tree: str


def admit(door: Door, output: bytes, start: str, when: str) -> Snapshot:
    """Take in what `harvest.py` printed: check it, and build of it a tree and a commit dated `when`. Every object is
    re-hashed and checked by git's own fsck rules, every name by its rules for names.

    Raises BadPack. Nothing that fails leaves anything in the object store.
    """
    head, gone, there, pack = _parsed(output)
    base_tree = door.tree_of(start)
    door.env()  # the engine's own directory is there
    with tempfile.TemporaryDirectory(dir=door.engine, prefix=incoming_prefix(door.owner)) as folder:
        incoming = Path(folder)
        for name in ("info", "pack"):
            (incoming / name).mkdir()
        (incoming / "info" / "alternates").write_text(f"{quoted(str(door.objects))}\n")
        env = {"GIT_OBJECT_DIRECTORY": folder, "GIT_INDEX_FILE": str(incoming / "index")}
        try:
            if pack:
                door.run("index-pack", "--stdin", "--strict", f"--max-input-size={MAX_PACK}", stdin=pack, env=env)
            if head != start:
                # Connectivity: all that the commit reaches is here, down to where the worker began.
                door.run("rev-list", "--objects", "--quiet", head, "--not", start, env=env)
            if there:
                names = b"".join(f"{mode} {oid}\t".encode() + path + b"\0" for path, (mode, oid) in there.items())
                door.run("update-index", "-z", "--index-info", stdin=names, env=env)
                # A name that it does not take it leaves out, and says nothing that counts.
                taken = door.run("ls-files", "-z", env=env).split(b"\0")[:-1]
                if refused := there.keys() - set(taken):
                    raise BadPack(f"{printable(min(refused)[:300])} is not a name that git takes")
            ids = [head, *(oid for mode, oid in there.values() if mode != GITLINK)]
            kinds = door.run(
                "cat-file", "--batch-check=%(objecttype)", stdin="".join(f"{oid}\n" for oid in ids).encode(), env=env
            ).splitlines()  # fmt: skip
        except GitError as error:
            raise BadPack(f"git refused the work's objects: {error}") from error
        if kinds != [b"commit", *[b"blob"] * (len(ids) - 1)]:
            raise BadPack("the snapshot names objects that are not there, or are of another kind")
        made, wanted = Scratch(door), _wanted(door, base_tree, gone, there)
        try:
            special.check(door, wanted, incoming, env)
            tree = trees.edit(made, base_tree, wanted)
        except GitError as error:
            raise BadPack(f"git refuses what a file of its own says: {error}") from error
        except trees.Unmergeable as error:
            raise BadPack(f"{printable(error.path)} is a file and a directory at once") from error
        # The index comes last: with it the pack is there for every reader at once.
        for file in sorted((incoming / "pack").iterdir(), key=lambda p: (p.suffix == ".idx", p.name)):
            target = door.objects / "pack" / file.name
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
    made.keep(door)
    return Snapshot(door.write_commit(tree, (head,), "What the worker left, as it was", when), tree)


def _parsed(output: bytes) -> tuple[str, list[bytes], dict[bytes, Entry], bytes]:
    """(HEAD, what is gone at and below these paths, what is there, the pack). Raises BadPack."""
    head, _, rest = output.partition(b"\n")
    length, _, rest = rest.partition(b"\n")
    if not _OID.fullmatch(head) or not length.isdigit() or len(rest) < int(length):
        raise BadPack("the cell gave no snapshot")
    gone: list[bytes] = []
    there: dict[bytes, Entry] = {}
    for record in rest[: int(length)].split(b"\0")[:-1]:
        entry = _ENTRY.fullmatch(record)
        if entry is None and not record.startswith(b"-"):
            raise BadPack("the cell gave no snapshot")
        path = entry[3] if entry else record[1:]
        if path.count(b"/") >= MAX_NESTING:
            raise BadPack(f"{printable(path[:100])}… is nested too deep, at most {MAX_DEPTH} may be")
        if entry:
            there[path] = (entry[1].decode(), entry[2].decode())
        else:
            gone.append(path)
    return head.decode(), gone, there, rest[int(length) :]


def _wanted(
    door: Door, base_tree: str, gone: Sequence[bytes], there: Mapping[bytes, Entry]
) -> dict[bytes, Entry | None]:
    """What makes of the base's tree the worker's: files, each by its path; None for one that is gone."""
    base = trees.Folders(door, base_tree)
    wanted: dict[bytes, Entry | None] = {}
    for path in (*gone, *there):
        was = base.at(path)
        if was is not None and was[0] == trees.TREE:
            wanted.update((change.path, None) for change in trees.diff(door, was[1], "", path + b"/"))
        elif was is not None:
            wanted[path] = None
    for path in there:
        for at in (i for i, byte in enumerate(path) if byte == ord("/")):
            was = base.at(path[:at])
            if was is not None and was[0] != trees.TREE:
                wanted[path[:at]] = None  # a directory is there now
    wanted.update(there)
    return {path: entry for path, entry in wanted.items() if base.at(path) != entry}


_DIFF = ("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff")


def raw_diff(door: Door, old: str, new: str) -> list[Change]:
    """git's own answer to what differs, renames not guessed at, as bytes."""
    return _changes(door.run(*_DIFF, old, new))[0]


def raw_diffs(door: Door, pairs: Sequence[tuple[str, str]]) -> list[list[Change]]:
    """The same of several pairs, by one git. Trees only: of two commits, git takes the second for a parent."""
    asked = "".join(f"{old} {new}\n" for old, new in pairs).encode()
    _, *found = _changes(door.run(*_DIFF, "--stdin", stdin=asked))
    if len(found) != len(pairs):
        raise GitError("git diff-tree left out a pair of trees")
    return found


def _changes(said: bytes) -> list[list[Change]]:
    found: list[list[Change]] = [[]]
    at = 0
    while at < len(said):
        if said[at : at + 1] != b":":  # a pair that was asked for, in a line of its own; its changes follow
            at = said.index(b"\n", at) + 1
            found.append([])
            continue
        middle = said.index(b"\0", at)
        end = said.index(b"\0", middle + 1)
        old_mode, new_mode, old_id, new_id, _ = said[at + 1 : middle].split(b" ")
        before = None if old_mode == b"000000" else (old_mode.decode(), old_id.decode())
        after = None if new_mode == b"000000" else (new_mode.decode(), new_id.decode())
        found[-1].append(Change(said[middle + 1 : end], before, after))
        at = end + 1
    return found


def judge(door: Door, scope: Scope, changes: Sequence[Change], base_tree: str) -> list[Violation]:
    """Every rule on every entry; empty means that all of it may land."""
    from orchgit.core.events import Violation  # slow to import, and `orchgit check` needs none of it

    if not changes:
        return [Violation("", "nothing was changed")]
    return [Violation(printable(path), rule) for path, rule in faults(door, scope, changes, base_tree)]


def faults(
    door: Door,
    scope: Scope,
    changes: Sequence[Change],
    base_tree: str,
    *,
    known_sizes: Sizes | None = None,
    complete: bool = True,
) -> list[tuple[bytes, str]]:
    """(path, rule) of every violation, one for each path. What is not `complete` is followed by more: its links may
    lead to what comes with that."""
    if len(changes) > MAX_FILES:
        return [(b"", f"{len(changes)} files changed, at most {MAX_FILES} may be")]
    found: list[tuple[bytes, str]] = []
    fine = []
    for change in changes:
        # A name that the base has already is not this work's doing.
        rule = (
            scope.why_not(change.path)
            or _mode(change, scope)
            or (change.old is None and _new_name(door, base_tree, change.path))
        )
        if rule:
            found.append((change.path, rule))
        else:
            fine.append(change)
    landing = [c for c in fine if c.new]
    found += _sizes(landing, sizes(door, landing) if known_sizes is None else known_sizes)
    found += _collisions(door, base_tree, fine, changes)
    known = {path for path, _ in found}
    links = [c.path for c in fine if c.new and c.new[0] == LINK and c.path not in known]
    return found + (_links(door, scope, fine, base_tree, links, complete) if links else [])


def _mode(change: Change, scope: Scope) -> str:
    old, new = (side[0] if side else "" for side in (change.old, change.new))
    if GITLINK in (old, new):
        return "a submodule may not be added, changed or removed"
    if new not in ("", FILE, EXECUTABLE, LINK):
        return f"mode {new} may not land"
    if scope.symlinks or not new:
        return ""
    if new == LINK:
        return NO_LINK
    return NO_UNLINK if old == LINK else ""


def _links(
    door: Door, scope: Scope, fine: Sequence[Change], base_tree: str, links: Sequence[bytes], complete: bool
) -> list[tuple[bytes, str]]:
    """Where links lead, in the tree as it would be: computed, not written."""
    scratch = Scratch(door)
    try:
        tree = trees.edit(scratch, base_tree, {c.path: c.new for c in fine})
    except trees.Unmergeable:
        return []  # what would have made room did not pass: refused as it is
    told = ((path, leads.fault(scratch, scope, tree, path, complete=complete)) for path in links)
    return [(path, why) for path, why in told if why]


def _new_name(door: Door, base_tree: str, path: bytes) -> str:
    why = _name(path)
    if not why:
        return ""
    # Directories that the base has are not this work's doing either: only what is new in the name counts.
    above, tree = 0, base_tree
    for part in path.split(b"/")[:-1]:
        mode, tree = trees.entries(door, tree).get(part, ("", ""))
        if mode != trees.TREE:
            break
        above += len(part) + 1
    return _name(path[above:]) if above and len(path) <= MAX_NAME else why


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
    if len(path) > MAX_NAME or any(len(part) > 255 for part in path.split(b"/")):
        return "the name is too long"
    if path.count(b"/") >= MAX_DEPTH:
        return f"it is nested too deep, at most {MAX_DEPTH} may be"
    for part in text.split("/"):
        if part != part.rstrip(". "):
            return "a part of the name ends in a dot or a space"
        if part.partition(".")[0].rstrip(" ").lower() in _RESERVED:
            return f"{part!r} is a reserved name on some systems"
        if _SHORT.fullmatch(part):
            return f"{part!r} is another file's short name on some systems"
    return ""


def sizes(door: Door, changes: Iterable[Change]) -> Sizes:
    """Of what is new: object id -> (type, bytes)."""
    oids = sorted({c.new[1] for c in changes if c.new and c.new[0] != GITLINK})
    if not oids:
        return {}
    lines = door.run("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin="\n".join([*oids, ""]).encode())
    told = (line.decode().rsplit(" ", 1) for line in lines.splitlines())
    return {
        oid: (kind, 0) if size == "missing" else (kind, int(size)) for oid, (kind, size) in zip(oids, told, strict=True)
    }


def _sizes(changes: Sequence[Change], known: Sizes) -> list[tuple[bytes, str]]:
    found = []
    total = 0
    for change in changes:
        assert change.new is not None
        kind, size = known[change.new[1]]
        total += size
        if kind == change.new[1]:
            found.append((change.path, NO_CONTENT))
        elif kind != "blob":
            found.append((change.path, "its content is not that of a file"))
        elif size > MAX_BLOB:
            found.append((change.path, f"{size} bytes, at most {MAX_BLOB} may be"))
    if total > MAX_TOTAL:
        found.append((b"", f"{total} bytes in {len(changes)} files, at most {MAX_TOTAL} may be"))
    return found


def _fold(name: bytes) -> str:
    if name.isascii():
        return name.decode().lower()
    # Composed again at the end: the small letter with both accents is one character, the capital is two.
    text = unicodedata.normalize("NFKC", name.decode("utf-8", "surrogateescape")).casefold()
    return unicodedata.normalize("NFKC", text)


def _collisions(
    door: Door, base_tree: str, fine: Sequence[Change], changes: Sequence[Change]
) -> list[tuple[bytes, str]]:
    """New names that some file systems cannot tell from another in the same directory of the result. Looks at the
    touched directories only; what the base has twice already is not this work's doing."""
    found = []
    removed = {c.path for c in changes if c.new is None}
    base: dict[bytes, dict[bytes, Entry]] = {}  # touched directory -> what the base has in it
    names: dict[bytes, dict[str, set[bytes]]] = {}  # and its names, by what they fold to
    made: set[bytes] = set()  # what this work has something at or below
    for change in fine:
        if change.new is None:
            continue
        folder, tree = b"", base_tree  # "" when the base has no such directory
        for part in change.path.split(b"/"):
            if folder not in names:
                base[folder], names[folder] = trees.entries(door, tree), {}
                for name in base[folder]:
                    names[folder].setdefault(_fold(name), set()).add(name)
            alike = names[folder].setdefault(_fold(part), set())
            if part not in alike:
                for other in sorted(alike & base[folder].keys()):
                    if folder + other not in made and _gone(door, folder + other, base[folder][other], removed):
                        alike.discard(other)
            if alike and part not in alike:
                rule = f"{printable(part)} and {printable(min(alike))} differ only in case or form"
                found.append((change.path, rule))
                break
            alike.add(part)
            made.add(folder + part)
            mode, oid = base[folder].get(part, ("", ""))
            folder, tree = folder + part + b"/", oid if mode == trees.TREE else ""
    return found


def _gone(door: Door, path: bytes, entry: Entry, removed: set[bytes]) -> bool:
    """Whether nothing of an entry of the base is left: a removed file, or a directory of removed files."""
    if entry[0] != trees.TREE:
        return path in removed
    return all(c.path in removed for c in trees.diff(door, "", entry[1], path + b"/"))


def construct(door: Objects, base_tree: str, changes: Iterable[Change], scope: Scope) -> str:
    """The tree that lands. Raises trees.Unmergeable; AssertionError if the two implementations disagree."""
    wanted: dict[bytes, Entry | None] = {c.path: c.new for c in changes}
    tree = trees.edit(door, base_tree, wanted)
    check(door, base_tree, tree, wanted, scope)
    return tree


def check(door: Objects, base_tree: str, tree: str, wanted: dict[bytes, Entry | None], scope: Scope) -> None:
    """The claim of the gate, looked at again: outside the scope the landed tree equals its base, inside it what
    passed is there."""
    landing = {change.path: change.new for change in trees.diff(door, base_tree, tree)}
    for path in landing.keys() | wanted.keys():
        if path not in landing:
            raise AssertionError(f"{printable(path)} passed the gate and would not land")
        mode = (landing[path] or (FILE,))[0]
        lawful = scope.allows(path) and (mode in (FILE, EXECUTABLE) or (mode == LINK and scope.symlinks))
        if not lawful or wanted.get(path, ()) != landing[path]:
            raise AssertionError(f"{printable(path)} would land although the gate did not pass it")


def missing_outputs(door: Door, tree: str, outputs: Iterable[str]) -> list[Violation]:
    from orchgit.core.events import Violation

    return [
        Violation(path, "the assignment requires this file, and it is not there")
        for path in outputs
        if trees.lookup(door, tree, path.encode()) is None
    ]
