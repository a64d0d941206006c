"""Honest work is never refused: 208 branches as people and agents make them, in real repositories, all accepted.

Each is made by git itself in a work tree, from a seed, of three to six steps; every kind of step begins at least seven
of them. It has to pass the gate's functions (and be what they construct, also on a tip that moved), and `orchgit
check`, which looks at every commit. The counterpart: one small thing outside, and the same branch is refused.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchgit.__main__ import main
from orchgit.core.scope import Scope
from orchgit.git import gate, merges
from tests.support.repos import FILE, Repo, git, repository

BATCHES, EACH = 8, 26
ALLOW = ("src/**", "tests/unit/**", "docs/*.md", "types/api.ts", "src/Makefile", "src/web/package.json")
DENY = ("src/secret/**",)
FILES = {
    **{f"src/m{n}.py": b"value = 1\n" * 20 for n in range(8)},
    **{f"src/pkg{n}/{name}.py": b"x = 1\n" for n in range(4) for name in ("a", "b", "deep/c")},
    "src/run.sh": b"#!/bin/sh\n", "src/Makefile": b"all:\n", "src/web/package.json": b"{}\n",
    "src/crlf.txt": b"a\r\nb\r\n",
    "src/secret/key": b"k\n", "tests/unit/test_a.py": b"def test(): pass\n", "docs/one.md": b"# 1\n",
    "types/api.ts": b"\n", "other/o.py": b"o\n", "README": b"r\n", "Makefile": b"all:\n", ".gitignore": b"*.pyc\n",
}  # fmt: skip
NAMES = [
    "naïve.py", "日本語.md", "пример.txt", "emoji-😀.txt", "with space.py", "it's.txt", '"quoted".txt', "-dash",
    "--help", "#hash", "a,b;c", "100%", "[id].tsx", "(group)", "...rest.ts", ".hidden", "a..b", "~backup", "file.~1~",
    "$var", "&and", "under_score", "UPPER.TXT", "control.py", "console.log", "auxiliary.c", "nullable.h", "x" * 200,
    "lock", "makefile.am", "conftest.pyx", "package.jsonc", "git", "gitignore", "readme", "e=mc²",
]  # fmt: skip


class Work:
    """One branch in the making: a work tree, chance, and the steps."""

    def __init__(self, repo: Repo, rng: random.Random, symlinks: bool) -> None:
        self.repo, self.rng, self.symlinks = repo, rng, symlinks
        self.base = repo.ask("rev-parse", "HEAD")
        self.number = 0
        self.linked: list[Path] = []

    def path(self) -> Path:
        below = self.repo.root / self.rng.choice(["src", "src/pkg0", "src/new", "tests/unit", "src/new/deep/er"])
        return self.repo.root / "src" if below.is_file() else below

    def write(self, path: Path, data: bytes = b"") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or b"made %d\n" % self.rng.randrange(10**9))
        return path

    def fresh(self, suffix: str = ".py") -> Path:
        self.number += 1
        return self.path() / f"made{self.number}{suffix}"

    def some(self) -> Path:
        """A file of the source that is there."""
        held = self.held()
        found = [
            Path(here, name)
            for here, _, names in os.walk(self.repo.root / "src")
            for name in names
            if name.endswith(".py") and not os.path.islink(os.path.join(here, name))
        ]
        free = sorted(path for path in found if path not in held)
        return self.rng.choice(free) if free else self.write(self.repo.root / "src" / "again.py")

    def held(self) -> set[Path]:
        """What a link leads to or through: were it gone the link would dangle, and be refused, rightly."""
        return {up for link in self.linked for up in (link.resolve(), *link.resolve().parents)}

    def link(self, link: Path, target: str) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        self.linked.append(link)

    def commit(self, *more: str) -> None:
        git(self.repo.root, "add", "-A")
        git(self.repo.root, "commit", "-q", "--allow-empty", "-m", f"step {self.number}", *more)


def edit(w: Work) -> None:
    with w.some().open("ab") as file:
        file.write(b"more = 2\n")


def new_directories(w: Work) -> None:
    for n in range(3):
        w.write(w.repo.root / "src" / f"tree{w.rng.randrange(99)}" / "a" / "b" / f"c{n}.py")


def odd_names(w: Work) -> None:
    for name in w.rng.sample(NAMES, 6):
        w.write(w.repo.root / "src" / "names" / name)


def odd_directories(w: Work) -> None:
    for name in w.rng.sample(NAMES, 2):
        w.write(w.repo.root / "src" / "folders" / name / "x.py")


def rename(w: Work) -> None:
    old, new = w.some(), w.fresh()
    new.parent.mkdir(parents=True, exist_ok=True)
    git(w.repo.root, "mv", str(old), str(new)) if tracked(w, old) else old.rename(new)


def tracked(w: Work, path: Path) -> bool:
    return git(w.repo.root, "ls-files", "--", str(path)) != b""


def rename_and_change(w: Work) -> None:
    old, new = w.some(), w.fresh()
    w.write(new, old.read_bytes() + b"changed = 1\n")
    old.unlink()


def rename_in_case_only(w: Work) -> None:
    old = w.some()
    new = old.with_name(old.name.swapcase())
    if not new.exists():
        old.rename(new)


def rename_directory(w: Work) -> None:
    folder = w.repo.root / "src" / f"pkg{w.rng.randrange(4)}"
    if folder.is_dir() and folder not in w.held():
        folder.rename(folder.with_name(f"moved{w.rng.randrange(99)}-{folder.name}"))


def copy(w: Work) -> None:
    w.write(w.fresh(), w.some().read_bytes())


def delete(w: Work) -> None:
    w.some().unlink()


def delete_directory(w: Work) -> None:
    folder = w.repo.root / "src" / f"pkg{w.rng.randrange(4)}"
    if folder.is_dir() and folder not in w.held():
        shutil.rmtree(folder)


def executable(w: Work) -> None:
    path = w.repo.root / "src/run.sh"
    path.chmod(path.stat().st_mode ^ 0o111)
    w.write(w.fresh(".sh"), b"#!/bin/sh\n").chmod(0o755)


def empty_file(w: Work) -> None:
    path = w.fresh()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def no_newline_at_the_end(w: Work) -> None:
    w.write(w.fresh(), b"no newline")


def crlf(w: Work) -> None:
    path = w.repo.root / "src/crlf.txt"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\r\n", b"\n") if b"\r" in data else data.replace(b"\n", b"\r\n"))
    w.write(w.fresh(".bat"), b"echo\r\n\r\n")


def binary(w: Work) -> None:
    w.write(w.fresh(".bin"), w.rng.randbytes(5000) + b"\0\xff")


def large_file(w: Work) -> None:
    w.write(w.fresh(".dat"), w.rng.randbytes(1000) * 3000)


def many_files(w: Work) -> None:
    for n in range(60):
        w.write(w.repo.root / "src" / "many" / f"d{n % 7}" / f"f{n}.py")


def many_commits(w: Work) -> None:
    for _ in range(4):
        edit(w)
        w.commit()


def file_to_directory(w: Work) -> None:
    path = w.some()
    path.unlink()
    w.write(path / "inner" / "x.py")


def directory_to_file(w: Work) -> None:
    folder = w.repo.root / "src" / f"pkg{w.rng.randrange(4)}"
    if folder.is_dir() and folder not in w.held():
        shutil.rmtree(folder)
        w.write(folder)


def named_literally(w: Work) -> None:
    for name in ("src/Makefile", "src/web/package.json", "types/api.ts", "docs/new.md"):
        w.write(w.repo.root / name)


def links(w: Work) -> None:
    if not w.symlinks:
        return edit(w)
    target = w.some()
    for _ in range(2):  # to a file, and to that link
        link = w.path() / f"link{w.rng.randrange(10**6)}"
        w.link(link, os.path.relpath(target, link.parent))
        target = link
    return None


def links_to_directories(w: Work) -> None:
    if not w.symlinks:
        return new_directories(w)
    w.write(w.repo.root / "src" / "real" / "x.py")
    return w.link(w.repo.root / "src" / f"current{w.rng.randrange(10**6)}", "real")


def amend(w: Work) -> None:
    edit(w)
    w.commit()
    edit(w)
    w.commit("--amend")


def revert(w: Work) -> None:
    edit(w)
    w.commit()
    git(w.repo.root, "revert", "--no-edit", "HEAD")


def cherry_pick(w: Work) -> None:
    w.commit()
    start = w.repo.ask("rev-parse", "HEAD")
    empty_file(w)
    w.commit()
    picked = w.repo.ask("rev-parse", "HEAD")
    git(w.repo.root, "reset", "-q", "--hard", start)
    git(w.repo.root, "cherry-pick", picked)


def rebase(w: Work) -> None:
    """The base has moved, elsewhere and beside it."""
    w.commit()
    onto = moved(w.repo, w.base)
    git(w.repo.root, "rebase", "-q", "--empty=keep", "--onto", onto, w.base)
    w.base = onto


def squash(w: Work) -> None:
    new_directories(w)
    w.commit()
    git(w.repo.root, "reset", "-q", "--soft", w.base)


def take_back(w: Work) -> None:
    """Added, and gone again, inside the scope."""
    path = w.write(w.fresh(".tmp"))
    w.commit()
    path.unlink()


STEPS: tuple[Callable[[Work], None], ...] = (
    edit, new_directories, odd_names, odd_directories, rename, rename_and_change, rename_in_case_only, rename_directory,
    copy, delete, delete_directory, executable, empty_file, no_newline_at_the_end, crlf, binary, large_file, many_files,
    many_commits, file_to_directory, directory_to_file, named_literally, links, links_to_directories, amend, revert,
    cherry_pick, rebase, squash, take_back,
)  # fmt: skip


def moved(repo: Repo, base: str) -> str:
    """The base, with a change of somebody else's on it."""
    files = {b"other/o.py": (FILE, b"moved\n"), b"src/secret/more": (FILE, b"s\n")}
    return repo.made(repo.tree(files, repo.ask("rev-parse", f"{base}^{{tree}}")), base)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [n if n < 3 else pytest.param(n, marks=pytest.mark.whole) for n in range(BATCHES)])
def test_honest_branches(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    repo = repository(tmp_path / "r", FILES)
    git(repo.root, "config", "gc.auto", "0")
    first = repo.ask("rev-parse", "HEAD")
    door = repo.door()
    monkeypatch.chdir(repo.root)
    sizes = []
    for number in range(batch * EACH, (batch + 1) * EACH):
        rng = random.Random(number)
        git(repo.root, "checkout", "-q", "-f", "-B", "work", first)
        git(repo.root, "clean", "-q", "-fdx")
        w = Work(repo, rng, symlinks=number % 2 == 0 or STEPS[number % len(STEPS)].__name__.startswith("links"))
        steps = [STEPS[number % len(STEPS)], *rng.choices(STEPS, k=rng.randint(2, 5))]
        for step in steps:
            step(w)
            if rng.random() < 0.6:
                w.commit()
        w.commit()
        told = f"branch {number}: {', '.join(step.__name__ for step in steps)}"
        head = repo.ask("rev-parse", "HEAD")
        scope = Scope(ALLOW, DENY, w.symlinks)
        base_tree = door.tree_of(w.base)
        changes = gate.raw_diff(door, base_tree, door.tree_of(head))
        sizes.append(len(changes))
        if changes:
            assert gate.judge(door, scope, changes, base_tree) == [], told
        assert gate.construct(door, base_tree, changes, scope) == door.tree_of(head), told
        tip = moved(repo, w.base)
        landed = gate.raw_diff(door, door.tree_of(tip), merges.result(door, w.base, head, tip))
        assert [(c.path, c.new) for c in landed] == [(c.path, c.new) for c in changes], told
        args = ["check", "--base", w.base, "--head", head]
        args += [part for p in ALLOW for part in ("--allow", p)] + [part for p in DENY for part in ("--deny", p)]
        args += ["--symlinks"] * w.symlinks
        assert main(args) == 0, (told, capfdbinary.readouterr())
        # And it is not that everything passes: one byte outside, in one commit of many, and taken back.
        if number % 4 == 0:
            (repo.root / "other/o.py").write_bytes(b"x")
            w.commit()
            git(repo.root, "revert", "--no-edit", "HEAD")
            args[4] = repo.ask("rev-parse", "HEAD")
            assert main(args) == 1, told
            assert capfdbinary.readouterr().out.count(b"! other/o.py: outside the scope") == 2
        capfdbinary.readouterr()
    door.close()
    assert sum(size > 1 for size in sizes) > EACH * 0.8, "they do something"


def test_there_are_enough() -> None:
    assert BATCHES * EACH >= 200
    assert BATCHES * EACH // len(STEPS) >= 6, "each kind of step begins some"
