"""Trees as values, against git: the same ids, the same differences, and nothing ever merged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchgit.git import gate, merges, trees
from orchgit.git.door import Door, Missing
from tests.support.repos import EXECUTABLE, FILE, LINK, Files, Repo, files_of, git, repository, sound

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = [b"a", b"b", b"a.b", b"a-", b"a0", b"A", b"\xc3\xa9", b"x y", b"n\nl", b"\xff", b"a\tb", b"z"]


def a_tree(rng: random.Random, size: int) -> dict[bytes, tuple[str, bytes]]:
    """Files with no file where another's directory is."""
    found: dict[bytes, tuple[str, bytes]] = {}
    for _ in range(size):
        path = b"/".join(rng.choices(NAMES, k=rng.randint(1, 4)))
        parts = path.split(b"/")
        above = [b"/".join(parts[:n]) for n in range(1, len(parts))]
        if any(up in found for up in above) or any(p.startswith(path + b"/") for p in found):
            continue
        found[path] = (rng.choice([FILE, FILE, EXECUTABLE, LINK]), rng.choice([b"1", b"2", b"", b"target"]))
    return found


@pytest.fixture(scope="module", params=["sha1", "sha256"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return repository(tmp_path_factory.mktemp("trees") / request.param, format=request.param)


def wanted(door: Door, old: Files, new: Files) -> dict[bytes, trees.Entry | None]:
    made: dict[bytes, trees.Entry | None] = {p: None for p in old if p not in new}
    for path, (mode, data) in new.items():
        if old.get(path) != (mode, data):
            made[path] = (mode, door.write(b"blob", data))
    return made


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_edit_diff_and_lookup_are_what_git_says(place: Repo, seed: int) -> None:
    rng = random.Random(seed)
    door = place.door()
    old_files = a_tree(rng, rng.randint(0, 12))
    new_files = a_tree(rng, rng.randint(0, 12))
    if rng.random() < 0.7:  # much in common
        kept = {p: f for p, f in old_files.items() if rng.random() < 0.7}
        clashing = [
            p for p in new_files if any(k.startswith(p + b"/") or p.startswith(k + b"/") for k in kept)
        ]  # fmt: skip
        new_files = {**{p: f for p, f in new_files.items() if p not in clashing}, **kept}
    old, new = place.tree(old_files), place.tree(new_files)
    try:
        changes = wanted(door, old_files, new_files)
        assert trees.edit(door, old, changes) == new
        differ = {c.path: (c.old, c.new) for c in trees.diff(door, old, new)}
        assert differ == {c.path: (c.old, c.new) for c in gate.raw_diff(door, old, new)}
        assert {p: n for p, (_, n) in differ.items()} == changes
        for path, entry in files_of(place, new).items():
            assert trees.lookup(door, new, path) == entry
        assert trees.lookup(door, new, b"a/b/nowhere") is None
        # All three at once: base -> new, carried onto a tree with something of its own.
        onto = place.tree({b"own/file": (FILE, b"own")}, base=old)
        there = place.tree({b"own/file": (FILE, b"own")}, base=new)
        assert trees.carry(door, old, new, onto) == (there, ())
        assert trees.carry(door, old, new, there) == (there, ()), "doing it twice is doing it once"
    finally:
        door.close()


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ({b"a": b"1"}, {b"a": None, b"a/b": b"2"}, {b"a/b": b"2"}),
        ({b"a/b": b"1"}, {b"a/b": None, b"a": b"2"}, {b"a": b"2"}),
        ({b"a/b/c": b"1", b"z": b"1"}, {b"a/b/c": None}, {b"z": b"1"}),
        ({b"a/b/c": b"1"}, {b"a/b/c": None}, {}),
        ({b"a": b"1"}, {b"a-": b"1", b"a/b": b"1", b"a": None, b"a0": b"1"}, {b"a-": b"1", b"a/b": b"1", b"a0": b"1"}),
        ({b"a/b": b"1", b"a/c": b"1"}, {b"a/b": None}, {b"a/c": b"1"}),
        ({}, {b"x/y/z": b"1"}, {b"x/y/z": b"1"}),
        ({b"a": b"1"}, {b"a/b": None, b"q/r": None, b"s": None}, {b"a": b"1"}),
    ],
)  # fmt: skip
def test_edit_by_hand(
    place: Repo, old: dict[bytes, bytes], change: dict[bytes, bytes | None], new: dict[bytes, bytes]
) -> None:
    door = place.door()
    tree = place.tree({p: (FILE, d) for p, d in old.items()})
    entries = {p: None if d is None else (FILE, door.write(b"blob", d)) for p, d in change.items()}
    made = trees.edit(door, tree, entries)
    assert made == place.tree({p: (FILE, d) for p, d in new.items()})
    sound(place)
    door.close()


@pytest.mark.parametrize("change", [{b"a/b": b"1"}, {b"d": b"1"}, {b"d/e/f": b"1"}])
def test_edit_refuses_what_a_tree_cannot_hold(place: Repo, change: dict[bytes, bytes]) -> None:
    door = place.door()
    tree = place.tree({b"a": (FILE, b"1"), b"d/e": (FILE, b"1")})
    with pytest.raises(trees.Unmergeable):
        trees.edit(door, tree, {p: (FILE, door.write(b"blob", d)) for p, d in change.items()})
    door.close()


def test_trees_of_old_tools(tmp_path: Path) -> None:
    """GitHub's first years wrote directories as 040000 and files as 100664; such trees are still checked out."""
    repo = repository(tmp_path / "r")
    door = repo.door()
    blob = repo.blob(b"1")
    deep = repo.raw_tree(("100664", b"file", blob))
    old = repo.raw_tree(("040000", b"dir", deep), ("100644", b"top", blob))
    assert trees.lookup(door, old, b"dir/file") == ("100664", blob)
    new = trees.edit(door, old, {b"dir/new": (FILE, blob)})
    assert [c.path for c in trees.diff(door, old, new)] == [b"dir/new"]
    assert [c.path for c in gate.raw_diff(door, old, new)] == [b"dir/new"]
    assert git(repo.root, "ls-tree", "-r", "--name-only", new) == b"dir/file\ndir/new\ntop\n"
    door.close()


def carried(repo: Repo, base: Files, head: Files, onto: Files) -> tuple[str, tuple[bytes, ...]]:
    door = repo.door()
    try:
        return trees.carry(door, repo.tree(base), repo.tree(head), repo.tree(onto))
    finally:
        door.close()


ONE, TWO, THREE = (FILE, b"1\n2\n3\n"), (FILE, b"1\n2\nX\n"), (FILE, b"Y\n2\n3\n")
PLUS_X = (EXECUTABLE, b"1\n2\n3\n")


@pytest.mark.parametrize(
    ("base", "head", "onto", "stale"),
    [
        ({b"f": ONE}, {b"f": TWO}, {b"f": THREE}, (b"f",)),  # git would merge it; nothing here does
        ({b"f": ONE}, {b"f": TWO}, {}, (b"f",)),
        ({b"f": ONE}, {}, {b"f": THREE}, (b"f",)),
        ({}, {b"f": ONE}, {b"f": TWO}, (b"f",)),
        ({b"f": ONE}, {b"f": TWO}, {b"f": PLUS_X}, (b"f",)),
        ({}, {b"d/f": ONE}, {b"d": TWO}, (b"d",)),
        ({}, {b"d": ONE}, {b"d/f": TWO}, (b"d",)),
        ({b"d/f": ONE}, {b"d": ONE}, {b"d/f": ONE, b"d/g": TWO}, (b"d",)),
        ({b"a": ONE, b"b": ONE}, {b"a": TWO, b"b": TWO}, {b"a": ONE, b"b": THREE}, (b"b",)),
    ],
)  # fmt: skip
def test_carry_says_stale_and_never_merges(
    place: Repo, base: Files, head: Files, onto: Files, stale: tuple[bytes, ...]
) -> None:
    assert carried(place, base, head, onto) == ("", stale)


@pytest.mark.parametrize(
    ("base", "head", "onto", "result"),
    [
        ({b"f": ONE}, {b"f": TWO}, {b"f": ONE, b"g": THREE}, {b"f": TWO, b"g": THREE}),
        ({b"f": ONE}, {b"f": TWO}, {b"f": TWO, b"g": ONE}, {b"f": TWO, b"g": ONE}),
        ({b"f": ONE}, {}, {b"g": ONE}, {b"g": ONE}),
        ({b"f": ONE}, {b"f": PLUS_X}, {b"f": ONE}, {b"f": PLUS_X}),
        ({b"f": ONE}, {b"f": ONE}, {b"g": TWO}, {b"g": TWO}),
    ],
)  # fmt: skip
def test_carry_sets_the_entries_and_no_others(
    place: Repo, base: Files, head: Files, onto: Files, result: Files
) -> None:
    assert carried(place, base, head, onto) == (place.tree(result), ())


def test_merges_are_the_same_commit_every_time(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r", {"a": b"1", "b": b"1"})
    door = repo.door()
    base = repo.ask("rev-parse", "HEAD")
    tree = repo.ask("rev-parse", "HEAD^{tree}")
    one = repo.made(repo.tree({b"a": (FILE, b"2")}, tree), base)
    two = repo.made(repo.tree({b"b": (FILE, b"2")}, tree), base)
    when = merges.git_date("2026-01-01T09:41:05.123Z")
    assert when == "1767260465 +0000"
    made = [merges.joined(door, base, [(base, one), (base, two)], (one, two), "both", when) for _ in range(2)]
    assert made[0] == made[1]
    assert files_of(repo, made[0])[b"a"][1] == files_of(repo, made[0])[b"b"][1] == repo.blob(b"2")
    assert door.commit(made[0])[1] == (one, two)
    assert merges.result(door, base, one, two) == door.tree_of(made[0])
    three = repo.made(repo.tree({b"a": (FILE, b"3")}, tree), base)
    with pytest.raises(merges.Stale) as stale:
        merges.joined(door, base, [(base, one), (base, three)], (one, three), "both", when)
    assert stale.value.paths == (b"a",)
    with pytest.raises(merges.Stale):
        merges.result(door, base, one, three)
    with pytest.raises(Missing):
        merges.result(door, base, one, "0" * 40)
    sound(repo)
    door.close()
