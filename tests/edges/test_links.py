"""Where a link leads: every case that links.py decides, through the gate, and against what a kernel says."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchgit.core.scope import Scope
from orchgit.git import gate, links, trees
from orchgit.git.door import Door
from tests.support.repos import EXECUTABLE, FILE, GITLINK, LINK, Files, Repo, git, repository

Edit = dict[bytes, tuple[str, bytes] | None]
X = (FILE, b"x")
BASE: Files = {
    b"src/a.py": X,
    b"src/d/b.py": X,
    b"src/d/e/c.py": X,
    b"src/Makefile": X,
    b"src/secret/key": X,
    b"src/plain.py": X,
    b"other/o.py": X,
    b"src/out": (LINK, b"../other"),  # of the base: not this work's doing, but nothing may lead over it
    b"src/old": (LINK, b"a.py"),
    b"src/sub": (GITLINK, b"1" * 40),
    b"outer": (LINK, b"src"),
}
SRC = Scope(("src/**",), ("src/secret/**",), symlinks=True)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return repository(tmp_path_factory.mktemp("links") / "r")


@pytest.fixture(scope="module")
def door(repo: Repo) -> Iterator[Door]:
    door = repo.door()
    yield door
    door.close()


def judged(repo: Repo, door: Door, edit: Edit, scope: Scope = SRC, *, complete: bool = True) -> dict[bytes, str]:
    old = repo.tree(BASE)
    new = repo.tree({p: f for p, f in {**BASE, **edit}.items() if f is not None})
    changes = gate.raw_diff(door, old, new)
    found = gate.faults(door, scope, changes, old, complete=complete)
    if not found:
        assert gate.construct(door, old, changes, scope) == new
    assert len(dict(found)) == len(found), "one reason for each"
    return dict(found)


def link(target: bytes) -> tuple[str, bytes]:
    return LINK, target


L = b"src/l"


@pytest.mark.parametrize(
    "edit",
    [
        {L: link(b"a.py")},
        {L: link(b"./a.py")},
        {L: link(b".//./d//b.py")},
        {L: link(b"d/e/c.py")},
        {L: link(b"d")},  # a directory, all of which is in the scope
        {L: link(b"d/")},
        {L: link(b"d/e/.")},
        {L: link(b"../src/a.py")},
        {b"src/d/l": link(b"../a.py")},
        {b"src/d/e/l": link(b"../../plain.py")},
        {L: link(b"old")},  # to a link of the base that stays inside
        {L: link(b"m"), b"src/m": link(b"n"), b"src/n": link(b"a.py")},  # libx.so -> libx.so.1 -> libx.so.1.2
        {L: link(b"m/e/c.py"), b"src/m": link(b"d")},  # through a link to a directory
        {L: link(b"new"), b"src/new": X},
        {L: link(b"new/x"), b"src/new/x": X},
        {b"src/a.py": link(b"plain.py")},  # a file becomes one
        {b"src/old": X},  # and the other way round
        {b"src/old": link(b"plain.py")},
        {b"src/old": None},
        {b"src/out": None},  # one that led outside goes, or is mended
        {b"src/out": link(b"d")},
        {b"src/d/b.py": None, b"src/d/e/c.py": None, b"src/d": link(b"moved"), b"src/moved/b.py": X},
        {b"src/a.py": None, b"src/z/a.py": link(b"../plain.py")},
        {"src/é".encode(): X, L: link("é".encode())},
    ],
    ids=lambda edit: repr(sorted(edit.items()))[:80],
)
def test_may_land(repo: Repo, door: Door, edit: Edit) -> None:
    assert judged(repo, door, edit) == {}
    refused = judged(repo, door, edit, Scope(SRC.allow, SRC.deny))
    made = {p for p, f in edit.items() if f and f[0] == LINK} | ({b"src/old"} if edit == {b"src/old": X} else set())
    assert refused.keys() == made, "without the permission"
    assert all(rule in (gate.NO_LINK, gate.NO_UNLINK) for rule in refused.values())


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        ({L: link(b"/etc/passwd")}, "absolute"),
        ({L: link(b"/src/a.py")}, "absolute"),
        ({L: link(b"a.py\0x")}, "no usable target"),
        ({L: link(b"./" * 3000 + b"a.py")}, "no usable target"),
        ({L: link(b"d\\b.py")}, "backslash"),
        ({L: link(b"../../x")}, "out of the repository"),
        ({L: link(b"../../src/a.py")}, "out of the repository"),  # though it comes back
        ({L: link(b"..")}, "that it lies in"),
        ({L: link(b".")}, "that it lies in"),
        ({b"src/d/l": link(b"../../src")}, "that it lies in"),
        ({L: link(b"d/../a.py")}, "'..' after a name"),
        ({L: link(b"../other/../src/a.py")}, "'..' after a name"),
        ({L: link(b"../other/o.py")}, "other/o.py, outside the scope"),
        ({L: link(b"../other")}, "other/, not all of which"),
        ({L: link(b"out/o.py")}, "other/o.py, outside the scope"),  # by a link of the base that leaves
        ({L: link(b"../outer/a.py")}, "over outer, a link outside"),
        ({L: link(b"nowhere")}, "src/nowhere, which is not there"),
        ({L: link(b"A.PY")}, "src/A.PY, which is not there"),
        ({L: link(b"a.py/x")}, "through src/a.py, a file"),
        ({L: link(b"a.py/")}, "through src/a.py, a file"),
        ({L: link(b"a.py/.")}, "through src/a.py, a file"),
        ({L: link(b"l")}, "in a circle"),
        ({L: link(b"m"), b"src/m": link(b"l")}, "in a circle"),
        ({L: link(b"l/x")}, "in a circle"),
        ({L: link(b"plain.py"), b"src/plain.py": None}, "which is not there"),  # what it leads to goes with it
        ({L: link(b"sub")}, "into a submodule"),
        ({L: link(b"sub/x")}, "into a submodule"),
        ({L: link(b"secret/key")}, "denied by src/secret/**"),
        ({L: link(b"secret")}, "not all of which"),
        ({L: link(b"Makefile")}, "protected"),
        ({L: link(b"m"), b"src/m": link(b"../other/o.py")}, "outside the scope"),
        ({b"src/.github": link(b"d")}, "protected"),  # the link itself
        ({b"other/l": link(b"../src/a.py")}, "outside the scope"),
        ({b"src/l.": link(b"a.py")}, "dot or a space"),
        ({b"src/A.py": link(b"plain.py")}, "differ only"),
    ],
    ids=lambda value: repr(value)[:80],
)  # fmt: skip
def test_may_not(repo: Repo, door: Door, edit: Edit, rule: str) -> None:
    found = judged(repo, door, edit)
    assert any(rule in why for why in found.values()), found
    if L in edit and rule not in ("in a circle", "outside the scope"):
        assert found.keys() == {L}, "that rule, and no other"


def test_an_empty_target_and_many_links(repo: Repo, door: Door) -> None:
    tree = repo.raw_tree((LINK, b"l", repo.blob(b"")))
    assert "no usable target" in links.fault(door, Scope(("*",), symlinks=True), tree, b"l")
    chain: Edit = {b"src/n%d" % n: link(b"n%d" % (n + 1)) for n in range(links.MAX_LINKS - 1)}
    chain[b"src/n%d" % (links.MAX_LINKS - 1)] = link(b"a.py")
    assert judged(repo, door, chain) == {}
    chain[b"src/first"] = link(b"n0")
    assert "more than 40" in judged(repo, door, chain)[b"src/first"]


def test_a_narrow_scope(repo: Repo, door: Door) -> None:
    """A directory counts when all that could lie in it is in the scope, not only what lies there today."""
    scope = Scope(("src/l", "src/d/*.py", "src/d/e/**"), symlinks=True)
    assert "not all of which" in judged(repo, door, {L: link(b"d")}, scope)[L]
    assert judged(repo, door, {L: link(b"d/e")}, scope) == {}
    assert judged(repo, door, {L: link(b"d/b.py")}, scope) == {}
    assert judged(repo, door, {L: link(b"a.py")}, scope)[L] == "the link leads to src/a.py, outside the scope"
    named = Scope(("src/l", "src/Makefile"), symlinks=True)
    assert judged(repo, door, {L: link(b"Makefile")}, named) == {}
    assert Scope(("**",)).covers(b"src")
    assert not Scope(("**",)).covers(b".github")
    assert not Scope(("**",)).covers(b"\xff")


def test_what_is_to_come(repo: Repo, door: Door) -> None:
    """Of a commit that others follow: a link may lead to what is not there yet, but only to a path in the scope."""
    for target, fine in ((b"later", True), (b"new/later", True), (b"../later", False), (b"secret/later", False)):
        assert (judged(repo, door, {L: link(target)}, complete=False) == {}) is fine, target
        assert judged(repo, door, {L: link(target)}) != {}


def test_what_passes_leads_inside_for_a_kernel_too(repo: Repo, door: Door, tmp_path: Path) -> None:
    """Generated links, checked out: whatever the gate passes, realpath finds inside the scope. And what it refuses for
    being outside or missing is so."""
    rng = random.Random(7)
    names = [
        b"a.py",
        b"d",
        b"e",
        b"..",
        b".",
        b"l0",
        b"l1",
        b"l2",
        b"l3",
        b"src",
        b"other",
        b"o.py",
        b"",
        b"c.py",
        b"out",
    ]
    passed = refused = 0
    for number in range(60):
        edit: dict[bytes, tuple[str, bytes]] = {}
        for n in range(4):
            target = b"/".join(rng.choices(names, k=rng.randint(1, 3))).lstrip(b"/") or b"."
            edit[b"%s/l%d" % (rng.choice([b"src", b"src/d"]), n)] = link(target)
        found = judged(repo, door, {**edit})
        place = tmp_path / str(number)
        place.mkdir()
        root = os.fsencode(place.resolve())
        tree = repo.tree({**{p: f for p, f in BASE.items() if f[0] != GITLINK}, **edit})
        git(repo.root, f"--work-tree={place}", "read-tree", "-u", "--reset", tree,
            env={"GIT_INDEX_FILE": str(tmp_path / f"index{number}")})  # fmt: skip
        for path in edit:
            where = os.path.realpath(os.path.join(root, path))
            inside = where.startswith(root + b"/src/") and os.path.exists(where)
            if path not in found:
                assert inside, (path, edit)
                passed += 1
            else:
                refused += 1
                if any(word in found[path] for word in ("not there", "in a circle", "through")):
                    assert not os.path.exists(os.path.join(root, path)), (path, edit[path], found[path])
    assert passed > 10
    assert refused > 50


def test_the_second_look_knows_modes(repo: Repo, door: Door) -> None:
    """Were judge wrong about a link, or about any mode: construct stops it."""
    old = repo.tree(BASE)
    blob = repo.blob(b"a.py")
    for mode, symlinks, lands in (
        (LINK, True, True),
        (LINK, False, False),
        (EXECUTABLE, False, True),
        (GITLINK, True, False),
    ):
        change = trees.Change(b"src/new", None, (mode, blob))
        scope = Scope(("src/**",), symlinks=symlinks)
        if lands:
            gate.construct(door, old, [change], scope)
        else:
            with pytest.raises(AssertionError):
                gate.construct(door, old, [change], scope)
