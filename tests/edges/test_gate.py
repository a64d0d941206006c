"""The gate: every rule, every sort of broken pack, and generated work, honest and not."""

from __future__ import annotations

import os
import random
import unicodedata
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchgit.core.scope import Scope
from orchgit.git import gate, trees
from orchgit.git.door import Door
from tests.support.repos import (
    EXECUTABLE,
    FILE,
    GITLINK,
    LINK,
    WHEN,
    Files,
    Repo,
    files_of,
    git,
    repository,
    snapshot,
    sound,
)

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BASE: Files = {
    b"src/a.py": (FILE, b"a"),
    b"src/run": (EXECUTABLE, b"x"),
    b"src/link": (LINK, b"a.py"),
    b"src/sub": (GITLINK, b"1" * 40),
    b"src/deep/x.py": (FILE, b"x"),
    b"other/b.py": (FILE, b"b"),
    b"Docs/one.md": (FILE, b"1"),
    b"Docs/two.md": (FILE, b"2"),
    b"src/Both": (FILE, b"1"),
    b"src/both": (FILE, b"2"),
    b"src/aux.c": (FILE, b"1"),
    "src/cafe\u0301".encode(): (FILE, b"1"),
    b"src/old\\name": (FILE, b"1"),
    b"Makefile": (FILE, b"1"),
    b"src/Makefile": (FILE, b"1"),
    b"src/odd./old": (FILE, b"1"),
    b"src/\xff/old": (FILE, b"1"),
}
SRC = Scope(("src/**",), ("src/secret/**",))
ALL = Scope(("**",))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return repository(tmp_path_factory.mktemp("gate") / "r")


@pytest.fixture(scope="module")
def door(repo: Repo) -> Iterator[Door]:
    door = repo.door()
    yield door
    door.close()


Edit = dict[bytes, tuple[str, bytes] | None]


def after(base: Files, edit: Edit) -> Files:
    return {p: f for p, f in {**base, **edit}.items() if f is not None}


def judged(repo: Repo, door: Door, edit: Edit, scope: Scope = SRC, base: Files = BASE) -> dict[str, str]:
    old, new = repo.tree(base), repo.tree(after(base, edit))
    changes = gate.raw_diff(door, old, new)
    found = {v.path: v.rule for v in gate.judge(door, scope, changes, old)}
    assert len(found) == len(gate.judge(door, scope, changes, old)), "one reason for each"
    if not found:
        assert gate.construct(door, old, changes, scope) == new, "what passes is what was left"
    return found


X = (FILE, b"new")


@pytest.mark.parametrize(
    ("edit", "path", "rule"),
    [
        # out of scope: added, changed, deleted, renamed in and out, mode
        ({b"new": X}, "new", "outside"),
        ({b"other/b.py": X}, "other/b.py", "outside"),
        ({b"other/b.py": None}, "other/b.py", "outside"),
        ({b"other/b.py": None, b"src/b.py": (FILE, b"b")}, "other/b.py", "outside"),
        ({b"src/a.py": None, b"other/a.py": (FILE, b"a")}, "other/a.py", "outside"),
        ({b"other/b.py": (EXECUTABLE, b"b")}, "other/b.py", "outside"),
        ({b"other/b.py": (LINK, b"b")}, "other/b.py", "outside"),
        ({b"other/b.py": None, b"other": X}, "other", "outside"),
        ({b"src": X, **{p: None for p in BASE if p.startswith(b"src/")}}, "src", "outside"),
        ({b"src2/a": X}, "src2/a", "outside"),
        ({b"SRC/a.py": X}, "SRC/a.py", "outside"),
        ({b"src/" + b"a/" * 1500 + b"x": X}, "src/", "too deep"),
        ({b"src/secret/x": X}, "src/secret/x", "denied"),
        # modes and types
        ({b"src/new": (LINK, b"a.py")}, "src/new", "symbolic link"),
        ({b"src/link": (LINK, b"/etc/passwd")}, "src/link", "symbolic link"),
        ({b"src/link": (FILE, b"a.py")}, "src/link", "symbolic link"),
        ({b"src/a.py": (LINK, b"a")}, "src/a.py", "symbolic link"),
        ({b"src/new": (GITLINK, b"2" * 40)}, "src/new", "submodule"),
        ({b"src/sub": (GITLINK, b"2" * 40)}, "src/sub", "submodule"),
        ({b"src/sub": None}, "src/sub", "submodule"),
        ({b"src/sub": X}, "src/sub", "submodule"),
        ({b"src/a.py": (GITLINK, b"2" * 40)}, "src/a.py", "submodule"),
        # names
        ({"src/e\u0301".encode(): X}, "src/e", "normal form C"),
        ({b"src/\xff\xfe": X}, "src/", "UTF-8"),
        ({b"src/new\nline": X}, "src/new", "control"),
        ({b"src/tab\tx": X}, "src/tab", "control"),
        ({b"src/esc\x1b[31m": X}, "src/esc", "control"),
        ({"src/bidi\u202etxt.exe".encode(): X}, "src/bidi", "invisible"),
        ({"src/zero\u200bwidth".encode(): X}, "src/zero", "invisible"),
        ({"src/\ufeffbom".encode(): X}, "src/", "invisible"),
        ({b"src/back\\slash": X}, "src/back", "backslash"),
        ({b"src/dot.": X}, "src/dot.", "dot or a space"),
        ({b"src/space ": X}, "src/space ", "dot or a space"),
        ({b"src/dir. /x": X}, "src/dir. /x", "dot or a space"),
        ({b"src/.../x": X}, "src/.../x", "dot or a space"),
        ({b"src/con": X}, "src/con", "reserved"),
        ({b"src/NUL.txt": X}, "src/NUL.txt", "reserved"),
        ({b"src/com1/x": X}, "src/com1/x", "reserved"),
        ({b"src/aux .txt": X}, "src/aux .txt", "reserved"),
        ({b"src/CONOUT$": X}, "src/CONOUT$", "reserved"),
        ({b"src/GITHUB~1/x.yml": X}, "src/GITHUB~1/x.yml", "short name"),
        ({b"src/conf~12.py": X}, "src/conf~12.py", "short name"),
        ({("src/" + "日本" * 50).encode(): X}, "src/", "too long"),  # bytes, not characters
        ({b"src/odd./con": X}, "src/odd./con", "reserved"),  # the base's directory, but a name of this work
        ({b"src/" + b"a" * 256: X}, "src/", "too long"),
        ({b"src/" + b"a/" * 2100 + b"a": X}, "src/", "too long"),
        # names that collide: with the base, with each other, in a directory above
        ({b"src/A.PY": X}, "src/A.PY", "differ only"),
        ({b"src/Deep/y": X}, "src/Deep/y", "differ only"),
        ({b"src/new": X, b"src/NEW": X}, "src/new", "differ only"),
        ({b"src/d/x": X, b"src/D/y": X}, "src/d/x", "differ only"),
        ({"src/\ufb01le".encode(): X, b"src/file": X}, "src/\ufb01le", "differ only"),
        ({"src/stra\u00dfe".encode(): X, b"src/STRASSE": X}, "src/stra\u00dfe", "differ only"),
        ({"src/\u212a".encode(): X, b"src/k": X}, "src/", "normal form C"),
        ({b"src/BOTH": X}, "src/BOTH", "differ only"),
        # The small letter is one character with both accents, the capital composes to two.
        ({"src/\u03aa\u0301".encode(): X, "src/\u0390".encode(): X}, "src/", "differ only"),
        ({b"src/A.PY": X, b"src/deep/x.py": None}, "src/A.PY", "differ only"),
        ({b"src/deep/x.py": None, b"src/Deep": X, b"src/deep/y": X}, "src/", "differ only"),
        # protected names need to be named
        ({b"src/Makefile": X}, "src/Makefile", "protected"),
        ({b"src/conftest.py": X}, "src/conftest.py", "protected"),
        ({b"src/x/CONFTEST.py": X}, "src/x/CONFTEST.py", "protected"),
        ({b"src/.gitattributes": X}, "src/.gitattributes", "protected"),
        ({b"src/.github/workflows/x.yml": X}, "src/.github/workflows/x.yml", "protected"),
        ({b"src/.claude/settings.json": X}, "src/.claude/settings.json", "protected"),
        ({b"src/package.json": X}, "src/package.json", "protected"),
        ({}, "", "nothing was changed"),
    ],
)  # fmt: skip
def test_refused(repo: Repo, door: Door, edit: Edit, path: str, rule: str) -> None:
    found = judged(repo, door, edit)
    assert any(p.startswith(path) and rule in r for p, r in found.items()), found


@pytest.mark.parametrize(
    ("edit", "scope"),
    [
        ({b"src/a.py": X}, SRC),
        ({b"src/a.py": None}, SRC),
        ({b"src/a.py": (EXECUTABLE, b"a")}, SRC),
        ({b"src/run": (FILE, b"x")}, SRC),
        ({b"src/link": None}, SRC),
        ({b"src/a.py": None, b"src/a.py/x": X}, SRC),
        ({b"src/deep/x.py": None, b"src/deep": X}, SRC),
        ({b"src/deep/x.py": None, b"src/moved/x.py": (FILE, b"x")}, SRC),
        ({b"Makefile": X}, Scope(("Makefile",))),
        ({b"src/Makefile": X}, Scope(("src/**", "src/Makefile"))),
        ({"src/ünï/日本.py".encode(): X, b"src/with space": X, b"src/-dash": X, b"src/...x": X, b"src/q'\"": X}, SRC),
        # Renames that differ only in case leave nothing to collide with.
        ({b"src/a.py": None, b"src/A.py": (FILE, b"a")}, SRC),
        ({b"Docs/one.md": None, b"Docs/two.md": None, b"docs/one.md": X}, Scope(("docs/**", "Docs/**"))),
        # What the base has already is not this work's doing: two names alike, a reserved name, NFD, a backslash.
        ({b"src/both": X}, SRC),
        ({b"src/Both": X}, SRC),
        ({b"src/Both": None}, SRC),
        ({b"src/aux.c": X}, SRC),
        ({"src/cafe\u0301".encode(): X}, SRC),
        ({b"src/old\\name": None}, SRC),
        ({b"src/odd./new": X, b"src/\xff/new": X}, SRC),  # nor are its directories
        ({b"src/file.~1~": X, b"src/a~b": X, b"src/longer-than-eight~1": X, b"src/x~1.html": X}, SRC),
    ],
)  # fmt: skip
def test_passed(repo: Repo, door: Door, edit: Edit, scope: Scope) -> None:
    assert judged(repo, door, edit, scope) == {}


EDGE = Scope(("lib/**", "mid/in/**"))
EDGE_BASE: Files = {
    b"lib/a": X,
    b"lib/d/x": X,
    b"lib/d/y": X,
    b"mid/in/a": X,
    b"mid/out/b": X,
    b"mid/file": X,
    b"top/c": X,
}


@pytest.mark.parametrize(
    ("edit", "outside"),
    [
        # inside: a file and a directory change places, whatever the depth
        ({b"lib/a": None, b"lib/a/b/c": X}, []),
        ({b"lib/d/x": None, b"lib/d/y": None, b"lib/d": X}, []),
        ({b"lib/d/x": None, b"lib/d/y": None, b"lib/d": X, b"lib/a": None, b"lib/a/x": X}, []),
        ({p: None for p in EDGE_BASE if p.startswith(b"lib/")}, []),
        ({b"mid/in/a": None}, []),
        # across the edge
        ({b"mid/in/a": None, b"mid/in": X}, ["mid/in"]),  # the scope's own directory becomes a file
        ({b"lib": X, **{p: None for p in EDGE_BASE if p.startswith(b"lib/")}}, ["lib"]),
        ({b"mid/out/b": None, b"mid/out": X}, ["mid/out", "mid/out/b"]),
        ({b"mid/file": None, b"mid/file/x": X}, ["mid/file", "mid/file/x"]),
        ({p: None for p in EDGE_BASE if p.startswith(b"mid/")} | {b"mid": X}, ["mid", "mid/file", "mid/out/b"]),
        # renames over the edge, both ways, are a deletion and an addition
        ({b"top/c": None, b"lib/c": X}, ["top/c"]),
        ({b"lib/a": None, b"top/a": X}, ["top/a"]),
        ({b"mid/out/b": None, b"mid/in/b": X}, ["mid/out/b"]),
        # deletions, modes and types outside; nothing else
        ({b"top/c": None}, ["top/c"]),
        ({b"top/c": (EXECUTABLE, b"new")}, ["top/c"]),
        ({b"top/c": (LINK, b"new")}, ["top/c"]),
        ({b"top/c": (GITLINK, b"1" * 40)}, ["top/c"]),
        ({b"top/c": None, b"top/c/x": X}, ["top/c", "top/c/x"]),
        ({b"lib/a": (EXECUTABLE, b"new"), b"top/c": (FILE, b"")}, ["top/c"]),
    ],
    ids=lambda value: repr(value)[:70],
)  # fmt: skip
def test_at_the_edge_of_the_scope(repo: Repo, door: Door, edit: Edit, outside: list[str]) -> None:
    found = judged(repo, door, edit, EDGE, EDGE_BASE)
    assert sorted(found) == outside
    assert set(found.values()) <= {"outside the scope"}, "that rule, and no other"


@pytest.mark.parametrize(
    ("name", "entry", "blocked"),
    [
        (b"top/c/x", (FILE, b"1"), b"top/c"),  # under a file of the base
        (b"lib/d", (FILE, b"1"), b"lib/d"),  # over a directory of it
        (b"lib/a/b/c", (FILE, b"1"), b"lib/a"),
    ],
)
def test_an_entry_that_base_has_no_place_for(
    repo: Repo, door: Door, name: bytes, entry: tuple[str, bytes], blocked: bytes
) -> None:
    """No diff of two trees holds such an entry alone; one that did would not land."""
    change = trees.Change(name, None, (entry[0], repo.blob(entry[1])))
    with pytest.raises(trees.Unmergeable) as error:
        gate.construct(door, repo.tree(EDGE_BASE), [change], ALL)
    assert error.value.path == blocked


def test_a_directory_that_keeps_a_file_still_collides(repo: Repo, door: Door) -> None:
    found = judged(repo, door, {b"Docs/one.md": None, b"docs/one.md": X}, ALL)
    assert set(found) == {"docs/one.md"}
    found = judged(repo, door, {b"Docs/one.md": None, b"Docs/two.md": None, b"docs/x": X, b"Docs/y": X}, ALL)
    assert "differ only" in next(iter(found.values()))


def test_sizes_and_counts(repo: Repo, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_BLOB", 100)
    assert judged(repo, door, {b"src/big": (FILE, b"x" * 100)}) == {}
    assert "101 bytes" in judged(repo, door, {b"src/big": (FILE, b"x" * 101)})["src/big"]
    assert judged(repo, door, {b"src/big": None}, base={**BASE, b"src/big": (FILE, b"x" * 101)}) == {}
    monkeypatch.setattr(gate, "MAX_FILES", 3)
    assert judged(repo, door, {f"src/f{n}".encode(): X for n in range(3)}) == {}
    assert "4 files" in judged(repo, door, {f"src/f{n}".encode(): X for n in range(4)})[""]
    # One small blob under many names is large when it is checked out.
    monkeypatch.setattr(gate, "MAX_TOTAL", 150)
    big = (FILE, b"x" * 100)
    assert judged(repo, door, {b"src/big": big}) == {}
    assert "200 bytes in 2 files" in judged(repo, door, {b"src/big": big, b"src/more": big})[""]


def test_a_submodule_is_seen_although_gitmodules_says_to_ignore_it(repo: Repo, door: Door) -> None:
    hidden = b'[submodule "s"]\n\tpath = src/sub\n\tignore = all\n[diff]\n\tignoreSubmodules = all\n'
    base = {**BASE, b".gitmodules": (FILE, hidden)}
    assert "submodule" in judged(repo, door, {b"src/sub": (GITLINK, b"2" * 40)}, base=base)["src/sub"]


def test_a_tree_where_a_file_should_be(repo: Repo, door: Door) -> None:
    old = repo.tree(BASE)
    change = trees.Change(b"src/new", None, (FILE, repo.tree(BASE)))
    assert "not that of a file" in gate.judge(door, SRC, [change], old)[0].rule
    gone = trees.Change(b"src/new", None, (FILE, "1" * 40))
    assert gate.judge(door, SRC, [gone], old) != []


def test_missing_outputs(repo: Repo, door: Door) -> None:
    tree = repo.tree(BASE)
    assert gate.missing_outputs(door, tree, ["src/a.py", "src/deep", "src/run"]) == []
    found = gate.missing_outputs(door, tree, ["src/a.py", "src/b.py", "nowhere/x", "src/a.py/x", "SRC/a.py"])
    assert [v.path for v in found] == ["src/b.py", "nowhere/x", "src/a.py/x", "SRC/a.py"]


def test_construct_cannot_be_talked_into_landing_anything_else(repo: Repo, door: Door) -> None:
    """Were judge wrong, or edit: the second look stops it."""
    old, blob = repo.tree(BASE), repo.blob(b"new")
    with pytest.raises(AssertionError, match=r"other/b\.py"):
        gate.construct(door, old, [trees.Change(b"other/b.py", None, (FILE, blob))], SRC)
    changes = [trees.Change(b"src/a.py", None, (FILE, blob))]
    good = gate.construct(door, old, changes, SRC)
    more = repo.tree({b"src/sneaked": X}, base=good)
    wanted: dict[bytes, trees.Entry | None] = {b"src/a.py": (FILE, blob)}
    gate.check(door, old, good, wanted, SRC)
    for tree in (more, old, repo.tree({b"src/a.py": (EXECUTABLE, b"new")}, base=old)):
        with pytest.raises(AssertionError):
            gate.check(door, old, tree, wanted, SRC)
    with pytest.raises(trees.Unmergeable):
        gate.construct(door, old, [trees.Change(b"src/a.py/x", None, (FILE, blob))], SRC)


# ---- what comes out of a cell


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repo, Door, str, Repo]]:
    """The user's repository, its door, the start; and the worker's own, which has the start too."""
    place = tmp_path_factory.mktemp("far")
    mine = repository(place / "mine", {"a": b"1\n", "dir/b": b"2\n"})
    git(place, "clone", "-q", "--no-local", str(mine.root), "theirs")
    door = mine.door()
    yield mine, door, mine.ask("rev-parse", "HEAD"), Repo(place / "theirs")
    door.close()


def output(head: str, pack: bytes = b"", *, there: Files | None = None, gone: Sequence[bytes] = ()) -> bytes:
    """As the harvest prints it. `there`: path -> (mode, id)."""
    listing = b"".join(b"-%b\0" % path for path in gone)
    listing += b"".join(b"%b %b\t%b\0" % (mode.encode(), oid, path) for path, (mode, oid) in (there or {}).items())
    return f"{head}\n{len(listing)}\n".encode() + listing + pack


def committed(repo: Repo, start: str, commit: str) -> tuple[dict[bytes, tuple[str, bytes]], list[bytes]]:
    """(what is there, what is gone) when a worker left just what it committed."""
    old, new = files_of(repo, start), files_of(repo, commit)
    there = {path: (mode, oid.encode()) for path, (mode, oid) in new.items() if old.get(path) != (mode, oid)}
    return there, [path for path in old if path not in new]


def left_as_committed(door: Door, theirs: Repo, start: str, commit: str) -> gate.Snapshot:
    there, gone = committed(theirs, start, commit)
    out = output(commit, theirs.pack(commit, without=(start,)), there=there, gone=gone)
    return gate.admit(door, out, start, WHEN)


def test_admitted(far: tuple[Repo, Door, str, Repo]) -> None:
    mine, door, start, theirs = far
    git(theirs.root, "checkout", "-q", "-B", "admitted", start)
    theirs.write("a", b"2\n")
    theirs.commit("one")
    theirs.write("new/c", b"3\n")
    (theirs.root / "dir" / "b").unlink()
    head = theirs.commit("two")
    left = left_as_committed(door, theirs, start, head)
    assert left.tree == theirs.ask("rev-parse", "HEAD^{tree}")
    assert door.commit(left.commit) == (left.tree, (head,), "What the worker left, as it was\n")
    sound(mine)
    assert left_as_committed(door, theirs, start, head) == left, "twice is harmless"
    nothing = gate.admit(door, output(start), start, WHEN)
    assert door.commit(nothing.commit)[:2] == (door.tree_of(start), (start,))


@pytest.mark.parametrize(
    ("gone", "there", "left"),
    [
        ([b"dir"], {}, {"a"}),
        ([b"a", b"dir/b"], {}, set()),
        ([b"dir"], {b"dir/b": FILE}, {"a", "dir/b"}),
        ([b"dir"], {b"dir": FILE}, {"a", "dir"}),
        ([], {b"dir": FILE}, {"a", "dir"}),
        ([b"a"], {b"a/b/c": FILE}, {"a/b/c", "dir/b"}),
        ([], {b"a/b/c": LINK}, {"a/b/c", "dir/b"}),
        ([b"no/where", b"dir/no", b"a/no", b"dir/b/x", b""], {}, {"a", "dir/b"}),
    ],
)
def test_what_is_gone_and_what_is_there_make_the_tree(
    far: tuple[Repo, Door, str, Repo], gone: list[bytes], there: dict[bytes, str], left: set[str]
) -> None:
    mine, door, start, _ = far
    blob = mine.blob(b"blob").encode()
    out = output(start, there={path: (mode, blob) for path, mode in there.items()}, gone=gone)
    found = files_of(mine, gate.admit(door, out, start, WHEN).tree)
    assert {os.fsdecode(path) for path in found} == left
    assert all(found[path] == (mode, blob.decode()) for path, mode in there.items())
    sound(mine)


def test_what_is_as_in_the_base_is_no_change(far: tuple[Repo, Door, str, Repo]) -> None:
    mine, door, start, _ = far
    there = {path: (mode, oid.encode()) for path, (mode, oid) in files_of(mine, start).items()}
    assert gate.admit(door, output(start, there=there, gone=[b"a", b"dir"]), start, WHEN).tree == door.tree_of(start)


@pytest.mark.parametrize(
    "path",
    [".git", ".git/config", "dir/.GIT", "GIT~1", "x/GIT~1/y", ".g\u200cit/x", "..", "dir/../x", "./x", "dir/.", "/x",
     "dir//x", "x/", "/".join("d" * 500)],
)  # fmt: skip
def test_names_that_git_would_not_take(far: tuple[Repo, Door, str, Repo], path: str) -> None:
    mine, door, start, _ = far
    refused(door, mine, output(start, there={path.encode(): (FILE, mine.blob(b"blob").encode())}), start)


def test_whatever_history_only_the_net_counts(far: tuple[Repo, Door, str, Repo]) -> None:
    """A secret added and reverted, a root commit, a merge of something old, an evil merge: judged by the tree alone."""
    mine, door, start, theirs = far
    base = theirs.ask("rev-parse", f"{start}^{{tree}}")
    orphan = theirs.made(theirs.tree({b"src/x": X}, base))
    side = theirs.made(theirs.tree({b"secret": X}, base), start)
    merge = theirs.made(theirs.tree({b"evil": X, b"src/x": X}, base), side, orphan)
    back = theirs.made(theirs.tree({b"src/x": X}, base), side)
    for commit, ok in ((orphan, True), (merge, False), (back, True), (side, False)):
        left = left_as_committed(door, theirs, start, commit)
        changes = gate.raw_diff(door, door.tree_of(start), left.tree)
        found = gate.judge(door, SRC, changes, door.tree_of(start))
        assert (found == []) is ok, found
        if ok:
            landed = gate.construct(door, door.tree_of(start), changes, SRC)
            assert landed == mine.tree({b"src/x": X}, base)
    sound(mine)


def refused(door: Door, mine: Repo, out: bytes, start: str) -> str:
    before = snapshot(mine.common / "objects")
    with pytest.raises(gate.BadPack) as error:
        gate.admit(door, out, start, WHEN)
    new = {p for p in snapshot(mine.common / "objects") if p not in before and not p.startswith("info")}
    assert new == set(), "what fails leaves nothing in the object store"
    return str(error.value)


HAND_MADE = [
    [(FILE, b".git", "blob")],
    [("40000", b".git", "tree")],
    [(FILE, b".GIT", "blob")],
    [(FILE, b"GIT~1", "blob")],
    [(FILE, ".g\u200cit".encode(), "blob")],
    [("40000", b"..", "tree")],
    [("40000", b".", "tree")],
    [(FILE, b"", "blob")],
    [(FILE, b"a/b", "blob")],
    [(FILE, b"b", "blob"), (FILE, b"a", "blob")],
    [(FILE, b"a", "blob"), (FILE, b"a", "blob")],
    [(FILE, b"a", "blob"), ("40000", b"a", "tree")],
    [(LINK, b".gitmodules", "blob")],
    [("040000", b"padded", "tree")],
    [(FILE, b"null", "0" * 40)],
]


@pytest.mark.parametrize("entries", HAND_MADE, ids=lambda e: repr([n for _, n, _ in e]))
@pytest.mark.parametrize("deep", [False, True])
def test_trees_that_git_would_not_make(
    far: tuple[Repo, Door, str, Repo], entries: list[tuple[str, bytes, str]], deep: bool
) -> None:
    mine, door, start, theirs = far
    blob = theirs.blob(b"evil")
    inner = theirs.raw_tree((FILE, b"x", blob))
    named = [(mode, name, {"blob": blob, "tree": inner}.get(what, what)) for mode, name, what in entries]
    tree = theirs.raw_tree(*named)
    if deep:
        tree = theirs.raw_tree(("40000", b"src", tree))
    commit = theirs.made(tree, start)
    objects = [o for o in (commit, tree, blob, inner) if o] + (
        [line.split()[2].decode() for line in git(theirs.root, "ls-tree", tree).splitlines()] if deep else []
    )
    # pack-objects by list: --revs would already refuse to walk some of them.
    pack = git(theirs.root, "pack-objects", "--stdout", "-q", stdin="\n".join(objects).encode())
    refused(door, mine, output(commit, pack), start)


EVIL_URL = b'[submodule "x"]\n\tpath = x\n\turl = -u./evil\n'
SPELLINGS = (b".gitmodules", b".GITMODULES", b"GITMOD~1", b"gi7eba~1", ".git\u200dmodules".encode(), b".gitmodules ")


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("folder", [b"", b"src/deep/"])
def test_what_git_has_rules_for_is_judged_by_them(
    far: tuple[Repo, Door, str, Repo], name: bytes, folder: bytes
) -> None:
    """A tree that names it is made by the engine, after the pack was checked."""
    mine, door, start, theirs = far
    git(theirs.root, "checkout", "-q", "-B", "special", start)
    theirs.write("ok", EVIL_URL)
    head = theirs.commit("as another name")
    oid, pack = theirs.ask("rev-parse", f"{head}:ok").encode(), theirs.pack(head, without=(start,))
    said = refused(door, mine, output(head, pack, there={folder + name: (FILE, oid)}), start)
    assert "gitmodulesUrl" in said or "is not a name that git takes" in said
    refused(door, mine, output(head, pack, there={folder + name + b"/f": (FILE, oid)}), start)


def test_a_gitmodules_that_is_well_is_taken_in(far: tuple[Repo, Door, str, Repo]) -> None:
    mine, door, start, theirs = far
    git(theirs.root, "checkout", "-q", "-B", "special-well", start)
    theirs.write("ok", b'[submodule "x"]\n\tpath = x\n\turl = ./x\n')
    head = theirs.commit("as another name")
    there = {b"src/.gitmodules": (FILE, theirs.ask("rev-parse", f"{head}:ok").encode())}
    taken = gate.admit(door, output(head, theirs.pack(head, without=(start,)), there=there), start, WHEN)
    assert [c.path for c in gate.raw_diff(door, door.tree_of(start), taken.tree)] == [b"src/.gitmodules"]
    assert git(mine.root, "fsck", "--strict", "--no-dangling") == b""


def test_packs_that_are_not_right(far: tuple[Repo, Door, str, Repo]) -> None:
    mine, door, start, theirs = far
    git(theirs.root, "checkout", "-q", "-B", "broken", start)
    theirs.write("a", b"not right\n" * 1000)
    head = theirs.commit("not right")
    tree, blob = theirs.ask("rev-parse", "HEAD^{tree}"), theirs.ask("rev-parse", "HEAD:a")
    pack = theirs.pack(head, without=(start,))

    def by_list(*ids: str) -> bytes:
        return git(theirs.root, "pack-objects", "--stdout", "-q", stdin="\n".join(ids).encode())

    there, _ = committed(theirs, start, head)
    good = output(head, pack, there=there)
    assert "no snapshot" in refused(door, mine, b"", start)
    for out in (
        b"\n\n\n" + pack,
        b"garbage",
        output("HEAD", pack),
        output("--all" + head[5:], pack),
        output(head[:39] + "\n", pack),
        output(head.upper(), pack),
        output(head),
        output(start, there=there),
        output(head, pack[:-1]),
        output(head, pack[: len(pack) // 2]),
        output(head, b"PACK" + pack[8:]),
        output(head, pack[:30] + bytes([pack[30] ^ 1]) + pack[31:]),
        output(head, b"\0" * 1000),
        output(head, by_list(head, tree)),  # without the blob
        output(head, by_list(head, blob)),  # without the tree
        output(head, by_list(tree, blob)),  # without the commit
        output(tree, pack),  # a tree for a commit
        output(blob, pack),
        output("1" * 40, pack),  # another id
        output("1" * 64, pack),
        output(theirs.ask("rev-parse", "HEAD:a"), pack),
        good.replace(b"100644 ", b"100600 "),
        good.replace(b"100644 ", b"040000 "),
        output(head, pack, there={b"x": (FILE, tree.encode())}),  # a tree for a file
        output(head, pack, there={b"x": (FILE, b"2" * 40)}),
        output(head, pack, there={b"x": (FILE, b"0" * 40)}),
        output(head, pack, there={b"x": (FILE, blob[:39].encode())}),
        output(head, pack, there={b"x": (FILE, blob.encode()), b"x/y": (FILE, blob.encode())}),
        output(head, pack, there={b"": (FILE, blob.encode())}),
        good[: len(head) + 6],
    ):
        refused(door, mine, out, start)
    bad = theirs.ask(
        "hash-object", "-t", "commit", "-w", "--literally", "--stdin",
        stdin=f"tree {tree}\nparent {start}\nauthor x\ncommitter x <x> not-a-date\n\n".encode(),
    )  # fmt: skip
    refused(door, mine, output(bad, by_list(bad, tree, blob)), start)
    sound(mine)
    assert gate.admit(door, good, start, WHEN).tree == tree, "and it goes on"
    assert gate.admit(door, good + b"more", start, WHEN).tree == tree, "what follows a pack is not read"


def test_a_commit_that_is_there_already_but_not_all_of_it(far: tuple[Repo, Door, str, Repo]) -> None:
    """The user's store may hold the rests of what was pruned; a worker may name them."""
    mine, door, start, _ = far
    tree = mine.raw_tree((FILE, b"gone", "1" * 40))
    commit = mine.made(tree, start)
    refused(door, mine, output(commit), start)
    for oid in (tree, commit):
        (mine.common / "objects" / oid[:2] / oid[2:]).unlink()


def test_a_pack_that_is_too_large(far: tuple[Repo, Door, str, Repo], monkeypatch: pytest.MonkeyPatch) -> None:
    mine, door, start, theirs = far
    monkeypatch.setattr(gate, "MAX_PACK", 10_000)
    git(theirs.root, "checkout", "-q", "-B", "large", start)
    theirs.write("a", random.Random(1).randbytes(20_000))
    head = theirs.commit("one")
    out = output(head, theirs.pack(head, without=(start,)))
    assert "exceed" in refused(door, mine, out, start)


# ---- generated work

PARTS = ["a", "b", "c.py", "d", "E", "ö", "with space", "f.txt", "-g", "h_1"]


def a_path(rng: random.Random) -> str:
    return "/".join(rng.choices(PARTS, k=rng.randint(1, 3)))


def generated(rng: random.Random, inside: bool) -> tuple[Files, Edit, Scope]:
    """A base, an edit of it and a scope. `inside`: nothing of the edit is outside."""
    scope = Scope(tuple({"in/**", "lib/*.py", *rng.sample(["docs/", "one/file.txt", "t/**/x"], 2)}), ("in/no/**",))
    tops = ["in", "lib", "docs", "t", "one"] + ([] if inside else ["out", "IN", "src"])
    base: dict[bytes, tuple[str, bytes]] = {}
    edit: Edit = {}

    def fits(path: bytes) -> bool:
        now = {p.lower() for p, f in {**base, **edit}.items() if f is not None and p != path}
        low = path.lower()
        return low not in now and not any(
            p.startswith(low + b"/") or low.startswith(p + b"/") or _clash(p, low, path, {**base, **edit}) for p in now
        )

    def put(into: Edit, content: bytes) -> None:
        path = f"{rng.choice(tops)}/{a_path(rng)}".encode()
        if fits(path):
            into[path] = (rng.choice([FILE, FILE, EXECUTABLE]), content)

    old: Edit = {}
    for _ in range(rng.randint(1, 10)):
        put(old, b"old")
        base.update({p: f for p, f in old.items() if f is not None})
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        if kind < 0.5 or not base:
            put(edit, rng.choice([b"new", b"old", b""]))
        else:
            path = rng.choice(list(base))
            edit[path] = None if kind < 0.7 else (rng.choice([FILE, EXECUTABLE]), rng.choice([b"changed", b"old"]))
    if inside:
        edit = {p: f for p, f in edit.items() if scope.allows(p)}
    return base, edit, scope


def _clash(_p: bytes, _low: bytes, path: bytes, have: Edit) -> bool:
    """A directory of `path` that is there already, spelled in another case."""
    spelled: dict[bytes, set[bytes]] = {}
    for known, entry in have.items():
        if entry is not None:
            parts = known.split(b"/")
            for n in range(1, len(parts)):
                spelled.setdefault(b"/".join(parts[:n]).lower(), set()).add(b"/".join(parts[:n]))
    mine = path.split(b"/")
    return any(
        (up := b"/".join(mine[:n])) not in spelled.get(up.lower(), {up}) for n in range(1, len(mine))
    )  # fmt: skip


@settings(SETTINGS, max_examples=120)
@given(seed=st.integers(0, 2**32))
def test_honest_work_is_never_refused(repo: Repo, door: Door, seed: int) -> None:
    base, edit, scope = generated(random.Random(seed), inside=True)
    old, new = repo.tree(base), repo.tree(after(base, edit))
    changes = gate.raw_diff(door, old, new)
    if not changes:
        assert old == new
        return
    assert gate.judge(door, scope, changes, old) == []
    assert gate.construct(door, old, changes, scope) == new


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_nothing_outside_lands_even_if_only_the_inside_is_asked_for(repo: Repo, door: Door, seed: int) -> None:
    base, edit, scope = generated(random.Random(seed), inside=False)
    old, new = repo.tree(base), repo.tree(after(base, edit))
    changes = gate.raw_diff(door, old, new)
    outside = {c.path for c in changes if not scope.allows(c.path)}
    found = {v.path for v in gate.judge(door, scope, changes, old)}
    assert {unicodedata.normalize("NFC", p.decode()) for p in outside} <= found
    inside = [c for c in changes if c.path not in outside]
    try:
        landed = gate.construct(door, old, inside, scope)
    except trees.Unmergeable:
        return
    listing = {(c.path, c.new) for c in gate.raw_diff(door, old, landed)}
    assert listing == {(c.path, c.new) for c in inside}
    if outside:
        with pytest.raises((AssertionError, trees.Unmergeable)):
            gate.construct(door, old, changes, scope)
