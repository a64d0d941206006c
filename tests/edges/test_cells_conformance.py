"""Checkout or overlay: a worker cannot tell, and what comes out is the same tree.

Each scenario is a shell script in the sandbox of three cells: a checkout; an overlay on its own commit; and an overlay
on another commit, with a layer of what differs between the two.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.agent_run import confined
from orchgit.git import cells, gate
from orchgit.git.door import Door
from orchgit.sandbox import overlay_works
from tests.support.repos import EXECUTABLE, FILE, GITLINK, LINK, Files, Repo, net, repository, sandbox, taken, worked

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
        b".gitattributes": (FILE, b"*.crlf -text\n"), b"odd/gone\nline": (FILE, b"gone\n"),
        b".gitignore": (FILE, b"*\n"),
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


# What the worker does, and the paths that are then added, modified, deleted, or of another type.
SCENARIOS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "nothing": (
        r"""
        git status >/dev/null; ls -R >/dev/null; cat dir/* >/dev/null 2>&1 || :
        """,
        {},
    ),
    "touched": (
        r"""
        touch a.txt src/x.py; chmod u+rw dir/one; : >>dir/two; touch src dir; touch -h link
        """,
        {},
    ),
    "written as it was": (
        r"""
        cp a.txt t && cp t a.txt && rm t; cp -p run.sh t; mv t run.sh; mkdir src/e; rmdir src/e
        """,
        {},
    ),
    "added": (
        r"""
        echo 1 >new; echo 1 >dir/new; mkdir -p deep/er/new; echo 1 >deep/er/new/file; mkdir -p src/n/o
        mkdir src/n/p; echo 1 >src/n/p/f
        """,
        {"A": ["new", "dir/new", "deep/er/new/file", "src/n/p/f"]},
    ),
    "edited": (
        r"""
        echo 2 >>a.txt; sed -i s/1/2/ dir/one; printf 'y = 2\n' >src/y.py; : >run.sh; echo x >empty
        """,
        {"M": ["a.txt", "dir/one", "src/y.py", "run.sh", "empty"]},
    ),
    "deleted": (
        r"""
        rm a.txt link; rm -r dir/deep; rm dir/two; rm -r src; git rm -q tracked.log
        """,
        {
            "D": [
                "a.txt",
                "link",
                "dir/deep/er/three",
                "dir/two",
                "src/x.py",
                "src/y.py",
                "src/only/here",
                "tracked.log",
            ]
        },
    ),
    "deleted and made again": (
        r"""
        rm -r dir; mkdir dir; echo 9 >dir/one; printf '2\n' >dir/two; rm a.txt; printf 'a\n' >a.txt
        """,
        {"M": ["dir/one"], "D": ["dir/deep/er/three", "dir/.gitignore", "dir/.gitattributes", "dir/a.win"]},
    ),
    "made again deeper": (
        r"""
        rm -r dir; mkdir -p dir/deep/er; printf '3\n' >dir/deep/er/three; mkdir dir/empty
        """,
        {"D": ["dir/one", "dir/two", "dir/.gitignore", "dir/.gitattributes", "dir/a.win"]},
    ),
    "everything deleted": (
        r"""
        find . -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +
        """,
        {"D": [os.fsdecode(path) for path in files()]},
    ),
    "emptied": (
        r"""
        rm dir/deep/er/three; find src -type f -delete
        """,
        {"D": ["dir/deep/er/three", "src/x.py", "src/y.py", "src/only/here"]},
    ),
    "modes": (
        r"""
        chmod +x a.txt src/x.py; chmod -x run.sh; chmod 600 dir/one; chmod 400 dir/two; chmod 700 dir
        """,
        {"M": ["a.txt", "src/x.py", "run.sh"]},
    ),
    "closed modes": (
        r"""
        echo 2 >a.txt; chmod 0 a.txt; echo 2 >src/x.py; chmod 0 src/x.py src; mkdir n; echo 1 >n/f
        chmod 0 n/f n; chmod 0 dir
        """,
        {"M": ["a.txt", "src/x.py"], "A": ["n/f"]},
    ),
    "links": (
        r"""
        ln -sf dir link; ln -s /etc/passwd abs; ln -s . src/loop; rm dangling; ln -s other dangling
        ln dir/one hard; rm dir/two; ln -s one dir/two; rm -r src/only; ln -s ../dir src/only
        """,
        {
            "M": ["link", "dangling"],
            "A": ["abs", "src/loop", "hard", "src/only"],
            "T": ["dir/two"],
            "D": ["src/only/here"],
        },
    ),
    "file to directory": (
        r"""
        rm a.txt; mkdir a.txt; echo 1 >a.txt/in; rm link; mkdir -p link/deep; echo 1 >link/deep/in; rm empty
        mkdir empty
        """,
        {"D": ["a.txt", "link", "empty"], "A": ["a.txt/in", "link/deep/in"]},
    ),
    "directory to file": (
        r"""
        rm -r dir; echo file >dir; rm -r src/only; ln -s x src/only; rm -r odd; echo 1 >odd.log
        """,
        {
            "A": ["dir", "src/only"],
            "D": [
                "dir/one",
                "dir/two",
                "dir/deep/er/three",
                "dir/.gitignore",
                "dir/.gitattributes",
                "dir/a.win",
                "src/only/here",
                "odd/new\nline",
                "odd/latin\udce9",
                'odd/q"uote\\',
                "odd/ sp ace ",
                "odd/grüße",
            ],
        },
    ),
    "directory to an ignored file": (
        r"""
        rm -r src; echo 1 >out; mv out src; rm -r dir/deep; echo 1 >dir/secret; mv dir/secret dir/deep
        """,
        {"A": ["src", "dir/deep"], "D": ["src/x.py", "src/y.py", "src/only/here", "dir/deep/er/three"]},
    ),
    "renamed": (
        r"""
        mv src lib; mv dir/deep moved; git mv a.txt dir/b.txt; mv dir/one one; mkdir new; mv lib/only new/place
        mv new renewed
        """,
        {
            "D": ["src/x.py", "src/y.py", "src/only/here", "a.txt", "dir/deep/er/three", "dir/one"],
            "A": ["lib/x.py", "lib/y.py", "renewed/place/here", "moved/er/three", "dir/b.txt", "one"],
        },
    ),
    "renamed and back": (
        r"""
        mv src lib; mv lib src; mv a.txt b; mv b a.txt; git mv a.txt b; git mv b a.txt
        """,
        {},
    ),
    "swapped": (
        r"""
        mv src t; mv dir src; mv t dir
        """,
        {
            "D": [
                "src/x.py",
                "src/y.py",
                "src/only/here",
                "dir/one",
                "dir/two",
                "dir/deep/er/three",
                "dir/.gitignore",
                "dir/.gitattributes",
                "dir/a.win",
            ],
            "A": [
                "dir/x.py",
                "dir/y.py",
                "dir/only/here",
                "src/one",
                "src/two",
                "src/deep/er/three",
                "src/.gitignore",
                "src/.gitattributes",
                "src/a.win",
            ],
        },
    ),
    "ignored": (
        r"""
        echo 1 >x.log; echo 1 >src/x.log; echo 1 >dir/kept.log; echo 1 >dir/secret; echo 1 >out
        mkdir -p src/build; echo 1 >src/build/x; echo 1 >build/new; mkdir build/more; echo 1 >build/more/x
        echo 2 >src/out
        """,
        {"A": ["dir/kept.log", "src/out"]},
    ),
    "tracked although ignored": (
        r"""
        echo 2 >tracked.log; echo 2 >build/tracked; rm build/sub/tracked; chmod +x build/tracked
        """,
        {"M": ["tracked.log", "build/tracked"], "D": ["build/sub/tracked"]},
    ),
    "an ignored directory made again": (
        r"""
        rm -r build; mkdir -p build/sub; echo 2 >build/sub/tracked; echo 1 >build/new
        """,
        {"D": ["build/tracked"], "M": ["build/sub/tracked"]},
    ),
    "other ignore rules": (
        r"""
        echo '*.tmp' >.gitignore; rm dir/.gitignore; echo 1 >a.tmp; echo 1 >b.log; echo 1 >dir/secret
        echo 1 >build/new; mkdir n; echo '*' >n/.gitignore; echo 1 >n/x
        """,
        {"M": [".gitignore"], "D": ["dir/.gitignore"], "A": ["b.log", "dir/secret", "build/new"]},
    ),
    "ignore rules that are a link": (
        r"""
        mv .gitignore rules; ln -s rules .gitignore; echo 1 >b.log
        """,
        {"T": [".gitignore"], "A": ["rules", "b.log"]},
    ),
    "attributes": (
        r"""
        printf 'one\r\nTWO\r\n' >win.crlf; printf 'n\r\n' >new.crlf; printf 'n\r\n' >dir/b.win
        printf 'n\r\n' >b.win; printf 'more\r\n' >>raw.auto; printf 'a\r\nb\r\n' >new.auto
        printf 'r\r\n' >r.bin; printf '$Id: 1$\n' >n.u
        """,
        {"M": ["win.crlf", "raw.auto"], "A": ["new.crlf", "dir/b.win", "b.win", "new.auto", "r.bin", "n.u"]},
    ),
    # Not such as change what an untouched file looks like: of these git sees only what it happens to read again.
    "other attributes": (
        r"""
        echo '*.txt text eol=crlf' >>.gitattributes; printf 'a\r\nb\r\n' >a.txt
        echo '*.x text eol=crlf' >dir/.gitattributes; printf 'a\r\n' >dir/b.x; printf 'a\r\n' >dir/b.win
        rm dir/a.win
        """,
        {"M": [".gitattributes", "dir/.gitattributes", "a.txt"], "A": ["dir/b.x", "dir/b.win"], "D": ["dir/a.win"]},
    ),
    "odd names": (
        r"""
        cd odd; for f in *; do echo more >>"$f"; done; printf x >"$(printf '\001\377')"; printf x >'-n'
        mkdir "$(printf 'd\n\t')"; echo 1 >"$(printf 'd\n\t')/ x"; rm "$(printf 'latin\351')"
        """,
        {
            "M": ["odd/new\nline", 'odd/q"uote\\', "odd/ sp ace ", "odd/grüße"],
            "D": ["odd/latin\udce9"],
            "A": ["odd/\x01\udcff", "odd/-n", "odd/d\n\t/ x"],
        },
    ),
    "commits and more": (
        r"""
        echo 2 >a.txt; git commit -qam one; echo 3 >dir/one; git rm -q dir/two; git add -A; git commit -qm two
        echo 4 >src/x.py; echo 1 >new; rm src/y.py; test $(git rev-list --count HEAD) = 4
        """,
        {"M": ["a.txt", "dir/one", "src/x.py"], "D": ["dir/two", "src/y.py"], "A": ["new"]},
    ),
    "amended, rebased, stashed": (
        r"""
        echo 2 >a.txt; git commit -qam one; echo 3 >a.txt; git commit -q --amend -am better
        git checkout -q -b side HEAD~1; echo 2 >src/x.py; git commit -qam side; git rebase -q orchgit/r/a
        echo 5 >dir/one; git stash -q; test "$(cat dir/one)" = 1; git stash pop -q
        git checkout -q orchgit/r/a -- ; git merge -q --ff-only side
        """,
        {"M": ["a.txt", "src/x.py", "dir/one"]},
    ),
    "another branch and back": (
        r"""
        git checkout -q -b wipe; git rm -qr dir src; mkdir src; echo 1 >src/only; git add .
        git commit -qm wiped; git checkout -q orchgit/r/a; test -z "$(git status --porcelain)"
        cat dir/deep/er/three src/only/here
        """,
        {},
    ),
    "reset and cleaned": (
        r"""
        echo 2 >a.txt; rm -r src; echo 1 >new; mkdir -p n/n; echo 1 >n/n/n; git add -A; git reset -q --hard
        echo 1 >x.log; echo 1 >n2; git clean -qfdx; test -z "$(git status --porcelain --ignored)"
        """,
        {},
    ),
    "forced": (
        r"""
        echo 1 >f.log; git add -f f.log; git commit -qm forced; echo 2 >a.txt
        """,
        {"M": ["a.txt"]},
    ),
    "without .git": (
        r"""
        rm .git; echo 2 >a.txt; rm src/x.py
        """,
        {"M": ["a.txt"], "D": ["src/x.py"]},
    ),
    "another .git": (
        r"""
        rm .git; git init -q .; echo 2 >a.txt; rm src/x.py
        """,
        {"M": ["a.txt"], "D": ["src/x.py"]},
    ),
    "a broken index": (
        r"""
        echo 2 >a.txt; rm src/x.py; echo garbage >../git/index
        """,
        {"M": ["a.txt"], "D": ["src/x.py"]},
    ),
    "a broken git directory": (
        r"""
        echo 2 >a.txt; git commit -qam 1; rm -rf ../git/*; rm src/x.py
        """,
        {"M": ["a.txt"], "D": ["src/x.py"]},
    ),
    "its own configuration": (
        r"""
        git config core.autocrlf true; git config core.fileMode false; git config filter.x.clean 'tr a-z A-Z'
        echo '* filter=x' >../git/info/attributes; printf 'x\r\n' >new; chmod +x a.txt; echo 2 >dir/one
        """,
        {"A": ["new"], "M": ["a.txt", "dir/one"]},
    ),
    "a submodule left": (
        r"""
        rmdir sub; mkdir sub; echo 1 >sub/x; echo 2 >a.txt
        """,
        {"M": ["a.txt"]},
    ),
    "a submodule gone": (
        r"""
        rmdir sub
        """,
        {"D": ["sub"]},
    ),
    "a submodule to a file": (
        r"""
        rmdir sub; echo 1 >sub
        """,
        {"T": ["sub"]},
    ),
    "a repository inside": (
        r"""
        export GIT_AUTHOR_DATE='@1 +0000' GIT_COMMITTER_DATE='@1 +0000'
        mkdir n; cd n; git init -q .; echo 1 >f; git add .
        git -c user.name=x -c user.email=x@y commit -qm 1; cd ..; mkdir dir/.git; echo 2 >dir/one
        echo 1 >dir/new
        """,
        {"A": ["n", "dir/new"], "M": ["dir/one"]},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_comes_out(shared: Place, name: str) -> None:
    script, expected = SCENARIOS[name]
    trees = set()
    for kind in KINDS:
        cell = shared.cell(kind)
        worked(cell, script)
        left = shared.left(cell)
        changes = net(shared.repo, shared.start, left.tree)
        assert changes == {path: letter for letter, paths in expected.items() for path in paths}, kind
        trees.add(left.tree)
        cells.remove(cell.root)
    assert len(trees) == 1


# ---- whatever it does

# No attributes here: when these change, git looks at an untouched file or not, as the clock has it.
PLACES = [
    *("a.txt", "dir", "dir/one", "dir/deep", "dir/deep/er", "dir/deep/er/three", "dir/.gitignore", "src", "src/x.py"),
    *("src/only", "link", "new", "new/in", "new/in/it", "build", "build/tracked", "x.log", "dir/kept.log", "empty"),
    *("sub", "odd", "odd/new\nline"),
]


def operation(draw: Callable[[st.SearchStrategy[str]], str]) -> str:
    one, other = (shlex.quote(draw(st.sampled_from(PLACES))) for _ in range(2))
    parent = f"mkdir -p $(dirname {one})"
    return draw(
        st.sampled_from(
            [
                f"{parent}; echo {draw(st.sampled_from('123'))} >{one}", f"echo more >>{one}", f"rm -rf {one}",
                f"rm -rf {one}; mkdir -p {one}", f"mkdir -p {one}", f"mv {one} {other}", f"mv -T {one} {other}",
                f"cp -a {one} {other}", f"rm -rf {one}; cp -a {other} {one}", f"chmod +x {one}", f"chmod -x {one}",
                f"{parent}; ln -sfn {other} {one}", f"ln -f {one} {other}", f"touch {one}", f"rmdir {one}",
                f"git checkout -q HEAD -- {one}", f"git rm -rqf {one}", "git add -A; git commit -qm some",
                f"git add -f {one}", "git stash -qu", "git stash pop -q", "git reset -q --hard", "git clean -qfd",
            ]
        )
    )  # fmt: skip


@st.composite
def scripts(draw: Callable[[st.SearchStrategy[str]], str]) -> str:
    lines = [operation(draw) for _ in range(draw(st.integers(3, 25)))]  # type: ignore[arg-type, call-overload]
    return "\n".join(f"( {line} ) >/dev/null 2>&1 || :" for line in lines)


@settings(max_examples=12, deadline=None)
@given(script=scripts())
def test_whatever_a_worker_does_the_same_comes_out(shared: Place, script: str) -> None:
    trees = {}
    for kind in KINDS:
        cell = shared.cell(kind)
        worked(cell, script)
        trees[kind] = shared.left(cell).tree
        cells.remove(cell.root)
    assert len(set(trees.values())) == 1, trees


LOOK = r"""
find . -path ./.git -prune -o \( -type d -empty -printf '%p empty\0' \) -o ! -type d -printf '%p %y %m %l\0'
find . -path ./.git -prune -o -type f -exec sha1sum -z {} +
"""


def seen(cell: cells.Cell) -> list[bytes]:
    launch = confined(sandbox()[0], cell, (str(cell.work),))
    ended = launch(["/bin/sh", "-ec", LOOK]).finish(deadline_s=60)
    assert ended.returncode == 0, ended.stderr
    return sorted(ended.stdout.split(b"\0"))


def test_a_worker_and_a_check_see_the_same(shared: Place) -> None:
    expected = seen(shared.cell("checkout"))
    assert len(expected) > 40
    tree = shared.door.tree_of(shared.start)
    assert seen(cells.plain_checkout(shared.door, shared.root / "plain", tree)) == expected
    for kind, commit in (("overlay", shared.start), ("delta", shared.other)):
        cell = shared.cell(kind)
        assert seen(cell) == expected, kind
        assert worked(cell, "git status --porcelain --ignored") == ""
        base = cells.make_base(shared.door, shared.root / f"base-{kind}", commit)
        plain = cells.plain_checkout(shared.door, shared.root / "plain", tree, base)
        assert seen(plain) == expected, kind
        assert not (plain.root / "index-only").exists()
