"""Checkout or overlay: a worker cannot tell, and what comes out is the same tree.

Each scenario is a shell script in the sandbox of three cells: a checkout; an overlay on its own commit; and an overlay
on another commit, with a layer of what differs between the two.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchgit.git import cells, gate
from orchgit.git.door import Door
from orchgit.sandbox import overlay_works
from tests.support.repos import (
    EXECUTABLE, FILE, GITLINK, LINK, Files, Repo, files_of, git, harvested, net, repository, sandbox, sound, taken, work,
    worked,
)  # fmt: skip

BRANCH = "refs/heads/orchgit/r/a"
KINDS = ("checkout", "overlay", "delta")


@pytest.fixture(autouse=True, scope="module")
def _overlays(tmp_path_factory: pytest.TempPathFactory) -> None:
    why = overlay_works(str(tmp_path_factory.mktemp("try")))
    if why:
        pytest.skip(f"no overlays here: {why}")
    if not sandbox()[1].prevented:
        pytest.skip("nothing here stops a write outside")


@dataclass(frozen=True)
class Place:
    """A repository, the commit that cells start from, and one that is otherwise in every way."""

    repo: Repo
    door: Door
    root: Path
    start: str
    other: str

    def cell(self, kind: str, name: str = "") -> cells.Cell:
        base = None
        if kind != "checkout":
            commit = self.start if kind == "overlay" else self.other
            base = cells.make_base(self.door, self.root / f"base-{kind}", commit)
        return cells.make(self.door, self.root / (name or kind), self.start, branch=BRANCH, base=base)

    def left(self, cell: cells.Cell) -> gate.Snapshot:
        return taken(self.door, cell, self.start)

    def changed(self, cell: cells.Cell) -> dict[str, str]:
        return net(self.repo, self.start, self.left(cell).tree)


def files() -> dict[bytes, tuple[str, bytes]]:
    return {
        b"a.txt": (FILE, b"a\n"),
        b"run.sh": (EXECUTABLE, b"#!/bin/sh\n"),
        b"link": (LINK, b"a.txt"),
        b"dangling": (LINK, b"no/where"),
        b"dir/one": (FILE, b"1\n"),
        b"dir/two": (FILE, b"2\n"),
        b"dir/deep/er/three": (FILE, b"3\n"),
        b"src/x.py": (FILE, b"x = 1\n"),
        b"src/y.py": (FILE, b"y = 1\n"),
        b"src/only/here": (FILE, b"here\n"),
        b".gitignore": (FILE, b"*.log\nbuild/\n/out\n"),
        b"dir/.gitignore": (FILE, b"!kept.log\nsecret\n"),
        b"tracked.log": (FILE, b"tracked although ignored\n"),
        b"build/tracked": (FILE, b"in an ignored directory\n"),
        b"build/sub/tracked": (FILE, b"and deeper\n"),
        b".gitattributes": (FILE, b"*.crlf text eol=crlf\n*.auto text=auto\n*.bin -text\n*.u ident\n"),
        b"dir/.gitattributes": (FILE, b"*.win text eol=crlf\n"),
        b"win.crlf": (FILE, b"one\ntwo\n"),
        b"raw.auto": (FILE, b"with\r\nCR in git\r\n"),
        b"dir/a.win": (FILE, b"one\ntwo\n"),
        b"id.u": (FILE, b"$Id$\n"),
        b"empty": (FILE, b""),
        b"odd/new\nline": (FILE, b"n\n"),
        b"odd/latin\xe9": (FILE, b"l\n"),
        b'odd/q"uote\\': (FILE, b"q\n"),
        b"odd/ sp ace ": (FILE, b"s\n"),
        "odd/grüße".encode(): (FILE, b"g\n"),
        b"sub": (GITLINK, b"1" * 40),
    }  # fmt: skip


def otherwise() -> Files:
    """Another commit: files more, less and otherwise, directories for files and the reverse, other attributes."""
    found = files()
    for path in (b"src/only/here", b"dir/deep/er/three", b"dir/.gitattributes", b"odd/new\nline", b"link", b"sub"):
        del found[path]
    found |= {
        b"a.txt": (EXECUTABLE, b"a\n"), b"dir/one": (LINK, b"two"), b"dangling": (FILE, b"a file\n"),
        b"dir/deep/er": (FILE, b"a file where a directory is\n"), b"src/only": (LINK, b"/etc"),
        b"link/in": (FILE, b"a directory where a link is\n"), b"sub/was": (FILE, b"a directory where a submodule is\n"),
        b"more/of/it": (FILE, b"more\n"), b"src/z.py": (FILE, b"z = 1\n"), b"src/x.py": (FILE, b"x = 1000\n"),
        b".gitattributes": (FILE, b"*.crlf -text\n"), b"odd/gone\nline": (FILE, b"gone\n"), b".gitignore": (FILE, b"*\n"),
    }  # fmt: skip
    return found


def place_at(root: Path) -> Place:
    repo = repository(root / "user")
    first = repo.ask("rev-parse", "HEAD")
    start, other = (repo.made(repo.tree(f), first) for f in (files(), otherwise()))
    return Place(repo, repo.door(), root, start, other)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place_at(tmp_path_factory.mktemp("conformance"))


SCENARIOS: dict[str, tuple[str, dict[str, str] | str]] = {
    "nothing": ("git status >/dev/null; ls -R >/dev/null; cat dir/* >/dev/null 2>&1 || :", {}),
    "touched": ("touch a.txt src/x.py; chmod u+rw dir/one; : >>dir/two; touch src dir; touch -h link", {}),
    "written as it was": ("cp a.txt t && cp t a.txt && rm t; cp -p run.sh t; mv t run.sh; mkdir src/e; rmdir src/e", {}),
    "added": (
        "echo 1 >new; echo 1 >dir/new; mkdir -p deep/er/new; echo 1 >deep/er/new/file; mkdir -p src/n/o; mkdir src/n/p; "
        "echo 1 >src/n/p/f",
        {"new": "A", "dir/new": "A", "deep/er/new/file": "A", "src/n/p/f": "A"},
    ),
    "edited": (
        "echo 2 >>a.txt; sed -i s/1/2/ dir/one; printf 'y = 2\\n' >src/y.py; : >run.sh; echo x >empty",
        {"a.txt": "M", "dir/one": "M", "src/y.py": "M", "run.sh": "M", "empty": "M"},
    ),
    "deleted": (
        "rm a.txt link; rm -r dir/deep; rm dir/two; rm -r src; git rm -q tracked.log",
        {"a.txt": "D", "link": "D", "dir/deep/er/three": "D", "dir/two": "D", "src/x.py": "D", "src/y.py": "D",
         "src/only/here": "D", "tracked.log": "D"},
    ),
    "deleted and made again": (
        "rm -r dir; mkdir dir; echo 9 >dir/one; printf '2\\n' >dir/two; rm a.txt; printf 'a\\n' >a.txt",
        {"dir/one": "M", "dir/deep/er/three": "D", "dir/.gitignore": "D", "dir/.gitattributes": "D", "dir/a.win": "D"},
    ),
    "made again deeper": (
        "rm -r dir; mkdir -p dir/deep/er; printf '3\\n' >dir/deep/er/three; mkdir dir/empty",
        {"dir/one": "D", "dir/two": "D", "dir/.gitignore": "D", "dir/.gitattributes": "D", "dir/a.win": "D"},
    ),
    "everything deleted": ("find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +", "all gone"),
    "emptied": ("rm dir/deep/er/three; find src -type f -delete", {"dir/deep/er/three": "D", "src/x.py": "D",
                "src/y.py": "D", "src/only/here": "D"}),
    "modes": (
        "chmod +x a.txt src/x.py; chmod -x run.sh; chmod 600 dir/one; chmod 400 dir/two; chmod 700 dir",
        {"a.txt": "M", "src/x.py": "M", "run.sh": "M"},
    ),
    "closed modes": (
        "echo 2 >a.txt; chmod 0 a.txt; echo 2 >src/x.py; chmod 0 src/x.py src; mkdir n; echo 1 >n/f; chmod 0 n/f n; chmod 0 dir",
        {"a.txt": "M", "src/x.py": "M", "n/f": "A"},
    ),
    "links": (
        "ln -sf dir link; ln -s /etc/passwd abs; ln -s . src/loop; rm dangling; ln -s other dangling; ln dir/one hard; "
        "rm dir/two; ln -s one dir/two; rm -r src/only; ln -s ../dir src/only",
        {"link": "A", "abs": "A", "src/loop": "A", "dangling": "M", "hard": "A", "dir/two": "T", "src/only": "A",
         "src/only/here": "D"} | {"link": "M"},
    ),
    "file to directory": (
        "rm a.txt; mkdir a.txt; echo 1 >a.txt/in; rm link; mkdir -p link/deep; echo 1 >link/deep/in; rm empty; mkdir empty",
        {"a.txt": "D", "a.txt/in": "A", "link": "D", "link/deep/in": "A", "empty": "D"},
    ),
    "directory to file": (
        "rm -r dir; echo file >dir; rm -r src/only; ln -s x src/only; rm -r odd; echo 1 >odd.log",
        {"dir": "A", "dir/one": "D", "dir/two": "D", "dir/deep/er/three": "D", "dir/.gitignore": "D",
         "dir/.gitattributes": "D", "dir/a.win": "D", "src/only": "A", "src/only/here": "D", 'odd/new\nline': "D",
         "odd/latin\udce9": "D", 'odd/q"uote\\': "D", "odd/ sp ace ": "D", "odd/grüße": "D"},
    ),
    "directory to an ignored file": (
        "rm -r src; echo 1 >out; mv out src; rm -r dir/deep; echo 1 >dir/secret; mv dir/secret dir/deep",
        {"src": "A", "src/x.py": "D", "src/y.py": "D", "src/only/here": "D", "dir/deep": "A", "dir/deep/er/three": "D"},
    ),
    "renamed": (
        "mv src lib; mv dir/deep moved; git mv a.txt dir/b.txt; mv dir/one one; mkdir new; mv lib/only new/place; mv new renewed",
        {"src/x.py": "D", "src/y.py": "D", "src/only/here": "D", "lib/x.py": "A", "lib/y.py": "A", "a.txt": "D",
         "renewed/place/here": "A", "dir/deep/er/three": "D", "moved/er/three": "A", "dir/b.txt": "A", "dir/one": "D", "one": "A"},
    ),
    "renamed and back": ("mv src lib; mv lib src; mv a.txt b; mv b a.txt; git mv a.txt b; git mv b a.txt", {}),
    "swapped": (
        "mv src t; mv dir src; mv t dir",
        {"src/x.py": "D", "src/y.py": "D", "src/only/here": "D", "dir/x.py": "A", "dir/y.py": "A", "dir/only/here": "A",
         "dir/one": "D", "dir/two": "D", "dir/deep/er/three": "D", "dir/.gitignore": "D", "dir/.gitattributes": "D",
         "dir/a.win": "D", "src/one": "A", "src/two": "A", "src/deep/er/three": "A", "src/.gitignore": "A",
         "src/.gitattributes": "A", "src/a.win": "A"},
    ),
    "ignored": (
        "echo 1 >x.log; echo 1 >src/x.log; echo 1 >dir/kept.log; echo 1 >dir/secret; echo 1 >out; mkdir -p src/build; "
        "echo 1 >src/build/x; echo 1 >build/new; mkdir build/more; echo 1 >build/more/x; echo 2 >src/out",
        {"dir/kept.log": "A", "src/out": "A"},
    ),
    "tracked although ignored": (
        "echo 2 >tracked.log; echo 2 >build/tracked; rm build/sub/tracked; chmod +x build/tracked",
        {"tracked.log": "M", "build/tracked": "M", "build/sub/tracked": "D"},
    ),
    "an ignored directory made again": (
        "rm -r build; mkdir -p build/sub; echo 2 >build/sub/tracked; echo 1 >build/new",
        {"build/tracked": "D", "build/sub/tracked": "M"},
    ),
    "other ignore rules": (
        "echo '*.tmp' >.gitignore; rm dir/.gitignore; echo 1 >a.tmp; echo 1 >b.log; echo 1 >dir/secret; echo 1 >build/new; "
        "mkdir n; echo '*' >n/.gitignore; echo 1 >n/x",
        {".gitignore": "M", "dir/.gitignore": "D", "b.log": "A", "dir/secret": "A", "build/new": "A"},
    ),
    "ignore rules that are a link": (
        "mv .gitignore rules; ln -s rules .gitignore; echo 1 >b.log",
        {".gitignore": "T", "rules": "A", "b.log": "A"},
    ),
    "attributes": (
        "printf 'one\\r\\nTWO\\r\\n' >win.crlf; printf 'n\\r\\n' >new.crlf; printf 'n\\r\\n' >dir/b.win; printf 'n\\r\\n' >b.win; "
        "printf 'more\\r\\n' >>raw.auto; printf 'a\\r\\nb\\r\\n' >new.auto; printf 'r\\r\\n' >r.bin; printf '$Id: 1$\\n' >n.u",
        {"win.crlf": "M", "new.crlf": "A", "dir/b.win": "A", "b.win": "A", "raw.auto": "M", "new.auto": "A", "r.bin": "A",
         "n.u": "A"},
    ),
    # Not such as change what an untouched file looks like: of these git itself sees only what it happens to read again.
    "other attributes": (
        "echo '*.txt text eol=crlf' >>.gitattributes; printf 'a\\r\\nb\\r\\n' >a.txt; echo '*.x text eol=crlf' >dir/.gitattributes; "
        "printf 'a\\r\\n' >dir/b.x; printf 'a\\r\\n' >dir/b.win; rm dir/a.win",
        {".gitattributes": "M", "dir/.gitattributes": "M", "a.txt": "M", "dir/b.x": "A", "dir/b.win": "A", "dir/a.win": "D"},
    ),
    "odd names": (
        "cd odd; for f in *; do echo more >>\"$f\"; done; printf x >\"$(printf '\\001\\377')\"; printf x >'-n'; "
        "mkdir \"$(printf 'd\\n\\t')\"; echo 1 >\"$(printf 'd\\n\\t')/ x\"; rm \"$(printf 'latin\\351')\"",
        {"odd/new\nline": "M", "odd/latin\udce9": "D", 'odd/q"uote\\': "M", "odd/ sp ace ": "M", "odd/grüße": "M",
         "odd/\x01\udcff": "A", "odd/-n": "A", "odd/d\n\t/ x": "A"},
    ),
    "commits and more": (
        "echo 2 >a.txt; git commit -qam one; echo 3 >dir/one; git rm -q dir/two; git add -A; git commit -qm two; echo 4 >src/x.py; "
        "echo 1 >new; rm src/y.py; test $(git rev-list --count HEAD) = 4",
        {"a.txt": "M", "dir/one": "M", "dir/two": "D", "src/x.py": "M", "new": "A", "src/y.py": "D"},
    ),
    "amended, rebased, stashed": (
        "echo 2 >a.txt; git commit -qam one; echo 3 >a.txt; git commit -q --amend -am better; git checkout -q -b side HEAD~1; "
        "echo 2 >src/x.py; git commit -qam side; git rebase -q orchgit/r/a; echo 5 >dir/one; git stash -q; "
        "test \"$(cat dir/one)\" = 1; git stash pop -q; git checkout -q orchgit/r/a -- ; git merge -q --ff-only side",
        {"a.txt": "M", "src/x.py": "M", "dir/one": "M"},
    ),
    "another branch and back": (
        "git checkout -q -b wipe; git rm -qr dir src; mkdir src; echo 1 >src/only; git add .; git commit -qm wiped; "
        "git checkout -q orchgit/r/a; test -z \"$(git status --porcelain)\"; cat dir/deep/er/three src/only/here",
        {},
    ),
    "reset and cleaned": (
        "echo 2 >a.txt; rm -r src; echo 1 >new; mkdir -p n/n; echo 1 >n/n/n; git add -A; git reset -q --hard; echo 1 >x.log; "
        "echo 1 >n2; git clean -qfdx; test -z \"$(git status --porcelain --ignored)\"",
        {},
    ),
    "forced": ("echo 1 >f.log; git add -f f.log; git commit -qm forced; echo 2 >a.txt", {"a.txt": "M"}),
    "without .git": ("rm .git; echo 2 >a.txt; rm src/x.py", {"a.txt": "M", "src/x.py": "D"}),
    "another .git": ("rm .git; git init -q .; echo 2 >a.txt; rm src/x.py", {"a.txt": "M", "src/x.py": "D"}),
    "a broken index": ("echo 2 >a.txt; rm src/x.py; echo garbage >../git/index", {"a.txt": "M", "src/x.py": "D"}),
    "a broken git directory": ("echo 2 >a.txt; git commit -qam 1; rm -rf ../git/*; rm src/x.py", {"a.txt": "M", "src/x.py": "D"}),
    "its own configuration": (
        "git config core.autocrlf true; git config core.fileMode false; git config filter.x.clean 'tr a-z A-Z'; "
        "echo '* filter=x' >../git/info/attributes; printf 'x\\r\\n' >new; chmod +x a.txt; echo 2 >dir/one",
        {"new": "A", "a.txt": "M", "dir/one": "M"},
    ),
    "a submodule left": ("rmdir sub; mkdir sub; echo 1 >sub/x; echo 2 >a.txt", {"a.txt": "M"}),
    "a submodule gone": ("rmdir sub", {"sub": "D"}),
    "a submodule to a file": ("rmdir sub; echo 1 >sub", {"sub": "T"}),
    "a repository inside": (
        "mkdir n; cd n; git init -q .; echo 1 >f; git add .; git -c user.name=x -c user.email=x@y commit -qm 1; cd ..; "
        "mkdir dir/.git; echo 2 >dir/one; echo 1 >dir/new",
        {"n": "A", "dir/one": "M", "dir/new": "A"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_comes_out(shared: Place, name: str) -> None:
    script, expected = SCENARIOS[name]
    if expected == "all gone":
        expected = {os.fsdecode(path): "D" for path in files()}
    assert isinstance(expected, dict)
    trees = {}
    for kind in KINDS:
        cell = shared.cell(kind)
        worked(
            cell, script.replace("git -c user", "GIT_COMMITTER_DATE='@1 +0000' GIT_AUTHOR_DATE='@1 +0000' git -c user")
        )
        trees[kind] = shared.left(cell).tree
        assert net(shared.repo, shared.start, trees[kind]) == expected, kind
        cells.remove(cell.root)
    assert len(set(trees.values())) == 1, trees
