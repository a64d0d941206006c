"""Cells: made of every sort of repository, left in every sort of state, harvested without trusting any of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchgit import effects
from orchgit.core.scope import Scope
from orchgit.effects import World
from orchgit.eventlog import Store
from orchgit.git import cells, gate
from orchgit.git.door import Door, GitError
from tests.support.repos import (
    EXECUTABLE,
    FILE,
    GITLINK,
    LINK,
    WHEN,
    Repo,
    git,
    harvested,
    net,
    repository,
    sandbox,
    snapshot,
    sound,
    taken,
    work,
    worked,
)

BRANCH = "refs/heads/orchgit/r/a"
needs_sandbox = pytest.mark.skipif(not sandbox()[1].prevented, reason="nothing here stops a write outside")
BASE = {"src/a.py": b"a = 1\n", "src/b.py": b"b = 1\n", "other/c.py": b"c = 1\n", ".gitignore": b"*.log\nbuild/\n"}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path / "user", BASE)


def made(repo: Repo, root: Path, commit: str = "") -> tuple[Door, cells.Cell, str]:
    door = repo.door()
    start = commit or repo.ask("rev-parse", "HEAD")
    return door, cells.make(door, root, start, branch=BRANCH), start


def changed(repo: Repo, cell: cells.Cell, start: str) -> dict[str, str]:
    door = repo.door()
    left = taken(door, cell, start)
    door.close()
    sound(repo)
    return net(repo, start, left.tree)


# ---- of every sort of repository


def strange(repo: Repo) -> str:
    """A commit with all that a tree can hold."""
    inner = repo.ask("rev-parse", "HEAD")
    tree = repo.tree(
        {
            "grüße/日本.txt".encode(): (FILE, b"1"),
            b"with space/and\ttab": (FILE, b"2"),
            b"new\nline": (FILE, b"3"),
            b"q\"uote\\back": (FILE, b"4"),
            b"latin\xe9": (FILE, b"5"),
            b"-dash": (FILE, b"6"),
            b"link": (LINK, b"README"),
            b"dangling": (LINK, b"nowhere/at/all"),
            b"outside": (LINK, b"/etc/passwd"),
            b"updir": (LINK, b"../../.."),
            b"run.sh": (EXECUTABLE, b"#!/bin/sh\n"),
            b"sub": (GITLINK, inner.encode()),
            b".gitmodules": (FILE, b'[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n'),
            b".gitattributes": (FILE, b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.crlf text eol=crlf\n*.u ident\n"),
            b"big.bin": (FILE, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
            b"win.crlf": (FILE, b"one\ntwo\n"),
            b"id.u": (FILE, b"$Id$\n"),
            b"CASE": (FILE, b"7"),
            b"case": (FILE, b"8"),
        }
    )  # fmt: skip
    return repo.made(tree, inner)


@pytest.mark.parametrize("format", ["sha1", "sha256"])
def test_a_strange_tree_comes_out_as_it_went_in(tmp_path: Path, format: str) -> None:
    repo = repository(tmp_path / "user", format=format)
    commit = strange(repo)
    door, cell, start = made(repo, tmp_path / "cell", commit)
    assert (cell.work / "win.crlf").read_bytes() == b"one\r\ntwo\r\n"
    assert (cell.work / "big.bin").read_bytes().startswith(b"version https://git-lfs")
    assert os.readlink(cell.work / "outside") == "/etc/passwd"
    assert os.access(cell.work / "run.sh", os.X_OK)
    assert (cell.work / "new\nline").read_bytes() == b"3"
    left = taken(door, cell, start)
    assert left.tree == repo.ask("rev-parse", f"{commit}^{{tree}}"), "nothing was changed"
    worked(cell, "touch -h -- *; git status >&2; git stash -q || :")
    worked(cell, "printf 'one\\r\\nTWO\\r\\n' >win.crlf; chmod +x id.u; rm ./-dash")
    assert changed(repo, cell, start) == {"win.crlf": "M", "id.u": "M", "-dash": "D"}
    assert git(repo.root, "show", f"{taken(door, cell, start).tree}:win.crlf") == b"one\nTWO\n"
    cells.remove(cell.root)
    door.close()


def test_of_a_shallow_clone_with_alternates_and_a_linked_worktree(tmp_path: Path, repo: Repo) -> None:
    repo.write("src/a.py", b"a = 2\n")
    repo.commit("second")
    git(tmp_path, "clone", "-q", "--shared", str(repo.root), "shared")
    git(tmp_path, "clone", "-q", "--shared", str(tmp_path / "shared"), "twice")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.root}", "shallow")
    git(repo.root, "worktree", "add", "-q", "-b", "topic", str(tmp_path / "linked"))
    relative = tmp_path / "shared" / ".git" / "objects" / "info" / "alternates"
    relative.write_text("../../../user/.git/objects\n")
    for name in ("shared", "twice", "shallow"):
        other = Repo(tmp_path / name)
        door, cell, start = made(other, tmp_path / f"cell-{name}")
        worked(cell, "echo new >src/new.py; git add src/new.py; git commit -qm mine; git log --oneline; git fsck")
        assert changed(other, cell, start) == {"src/new.py": "A"}
        door.close()
    at = git(tmp_path / "linked", "rev-parse", "HEAD").decode().strip()
    door, cell, start = made(repo, tmp_path / "cell-linked", at)
    worked(cell, "echo new >src/new.py")
    assert changed(repo, cell, start) == {"src/new.py": "A"}
    door.close()


def test_of_an_empty_tree_and_of_a_user_s_crlf_and_sparse_configuration(tmp_path: Path, repo: Repo) -> None:
    empty = repo.made(repo.tree({}), repo.ask("rev-parse", "HEAD"))
    door, cell, start = made(repo, tmp_path / "cell", empty)
    assert [p.name for p in cell.work.iterdir()] == [".git"]
    worked(cell, "echo 1 >first")
    assert changed(repo, cell, start) == {"first": "A"}
    git(repo.root, "config", "core.autocrlf", "true")
    git(repo.root, "sparse-checkout", "set", "other")
    cell = cells.make(door, tmp_path / "cell", repo.ask("rev-parse", "HEAD"), branch=BRANCH)
    assert (cell.work / "src" / "a.py").read_bytes() == b"a = 1\n", "the whole tree, and as it is in git"
    assert not (cell.work / "first").exists(), "a cell at the same place is replaced"
    door.close()


@pytest.mark.parametrize(
    "name", ["with space", "q\"uote's", "ümlaut", "col:on", "$dollar`x`", "-dash", "a\\b", "new\nline"]
)
def test_any_path_also_when_the_private_git_directory_is_broken(tmp_path: Path, name: str) -> None:
    repo = repository(tmp_path / name / "user", BASE)
    door, cell, start = made(repo, tmp_path / name / "cell")
    worked(cell, "echo 2 >src/a.py; git add .; git commit -qm mine")
    assert changed(repo, cell, start) == {"src/a.py": "M"}
    worked(cell, "rm -rf ../git/*")
    assert changed(repo, cell, start) == {"src/a.py": "M"}
    door.close()


def test_what_cannot_be_checked_out_is_said(tmp_path: Path, repo: Repo) -> None:
    door = repo.door()
    for commit in ("0" * 40, repo.made(repo.raw_tree((FILE, b"gone", "1" * 40)))):
        with pytest.raises(GitError, match="checkout of"):
            cells.make(door, tmp_path / "cell", commit)
    door.close()


def test_plain_checkout_has_no_git_beside_it(tmp_path: Path, repo: Repo) -> None:
    door = repo.door()
    cell = cells.plain_checkout(door, tmp_path / "plain", repo.ask("rev-parse", "HEAD^{tree}"))
    assert sorted(p.name for p in cell.work.iterdir()) == [".gitignore", "other", "src"]
    assert sorted(p.name for p in cell.root.iterdir()) == ["home", "tmp", "work"]
    door.close()


# ---- what a worker does there stays there


def test_a_worker_has_all_of_git_and_the_user_s_repository_stays_the_same(tmp_path: Path, repo: Repo) -> None:
    git(repo.root, "stash", "list")
    git(repo.root, "tag", "v1")
    door, cell, start = made(repo, tmp_path / "cell")
    door.commit(start)
    before = snapshot(repo.root, ".git/orchgit")
    worked(
        cell,
        """
        test "$(git symbolic-ref HEAD)" = refs/heads/orchgit/r/a
        test -z "$(git status --porcelain)" && test -z "$(git for-each-ref refs/tags refs/heads/main)"
        echo 2 >src/a.py; git commit -qam one; echo 3 >src/b.py; git stash -q; git stash pop -q; git commit -qam two
        git checkout -q -b side HEAD~1; echo 4 >src/new.py; git add .; git commit -qm three
        git rebase -q orchgit/r/a; git checkout -q orchgit/r/a; git merge -q --ff-only side
        git tag mine; git gc -q --prune=now; git reflog expire --expire=now --all; git prune; git repack -adq
        git update-ref -d refs/tags/mine; git config core.bare false; git fsck --strict
        echo 5 >src/new.py; mkdir -p src/deep/er; echo 6 >src/deep/er/x.py
        echo 7 >noise.log; mkdir build; echo >build/x
        git rm -q --cached src/b.py
        """,
    )
    assert snapshot(repo.root, ".git/orchgit") == before
    ended = harvested(cell, start)
    assert snapshot(repo.root, ".git/orchgit") == before, "looking changes nothing either"
    left = gate.admit(door, ended.stdout, start, WHEN)
    assert net(repo, start, left.tree) == {
        "src/a.py": "M", "src/b.py": "M", "src/new.py": "A", "src/deep/er/x.py": "A",
    }  # fmt: skip
    log = repo.ask("log", "--format=%s %an", f"{start}..{left.commit}").splitlines()
    assert log == ["What the worker left, as it was orchgit", "three worker", "two worker", "one worker"]
    after = snapshot(repo.root, ".git/orchgit", ".git/objects")
    assert after == {p: v for p, v in before.items() if not p.startswith(".git/objects/")} | {
        ".git/objects": before[".git/objects"]
    } or after == {p: v for p, v in before.items() if not p.startswith(".git/objects")}, "objects come, nothing else"
    door.close()


@needs_sandbox
def test_a_worker_cannot_write_the_user_s_repository_or_another_cell(tmp_path: Path, repo: Repo) -> None:
    door, cell, _ = made(repo, tmp_path / "cell")
    other = cells.make(door, tmp_path / "other", repo.ask("rev-parse", "HEAD"))
    (tmp_path / "children").touch()  # whom the engine started, beside the cells
    before = snapshot(tmp_path, "cell")
    del before["children"]
    ended = work(
        cell,
        f"""
        GIT_DIR='{repo.common}' git update-ref refs/heads/evil HEAD
        GIT_DIR='{repo.common}' git config core.fsmonitor evil
        echo x >'{repo.root}/x'; rm -rf '{repo.common}' '{other.root}'; echo x >'{other.work}/x'
        echo x >'{cell.root}/index'; echo x >'{cell.root}/spare/config'; mv '{cell.root}/git' '{cell.root}/moved'
        mv '{cell.root}/spare' '{cell.root}/git/'; ln '{repo.common}/config' ../git/linked && echo x >>../git/linked
        true
        """,
    )
    assert ended.returncode == 0
    after = snapshot(tmp_path, "cell")
    del after["children"]
    assert after == before
    assert (cell.root / "spare" / "HEAD").exists()
    door.close()


# ---- the harvest trusts nothing

LEFT = "echo 2 >src/a.py; git commit -qam one; echo 3 >src/b.py; echo 4 >src/new.py; rm other/c.py; "
NET = {"src/a.py": "M", "src/b.py": "M", "src/new.py": "A", "other/c.py": "D"}


@pytest.mark.parametrize(
    "then",
    [
        "",
        "rm -rf ../git/* ../git/.[a-z]*",
        "echo garbage >../git/HEAD",
        "ln -sf /nowhere ../git/HEAD",
        "echo 'ref: refs/heads/none' >../git/HEAD",
        "echo '[broken' >../git/config",
        "printf '[core]\\n\\trepositoryformatversion = 9\\n' >../git/config",
        "printf '[extensions]\\n\\tobjectformat = sha256\\n' >>../git/config",
        "git config core.worktree /nowhere",
        "git config core.bare true",
        "git config user.useConfigOnly true; git config --unset user.email; git config --unset user.name",
        "rm -rf ../git/objects; mkdir ../git/objects",
        "rm ../git/objects/info/alternates",
        "echo /nowhere >../git/objects/info/alternates",
        "for f in ../git/objects/??/*; do chmod u+w $f; echo x >$f; done",
        "rm -rf .git; git init -q . ",
        "rm .git; echo 'gitdir: /nowhere' >.git",
        "rm ../git/index; echo garbage >../git/index",
        "git update-index --assume-unchanged src/b.py other/c.py; git update-index --skip-worktree src/a.py",
        "git config core.sparseCheckout true; mkdir -p ../git/info; echo /other/ >../git/info/sparse-checkout",
        "touch ../git/index.lock ../git/HEAD.lock ../git/config.lock ../git/objects/pack/x.lock",
        "touch ../tmp/harvest-index.lock; mkdir ../tmp/harvest ../tmp/harvest-index ../tmp/home-; touch ../tmp/home",
        "mkfifo ../tmp/harvest ../tmp/harvest-said 2>/dev/null || :",
        "chmod 0 ../git/objects ../git/refs src; chmod 0 ../git ../tmp; chmod 0 .",
        "chmod 0 src/a.py src/b.py src/new.py; chmod 500 src other; chmod 400 other",
        "git replace HEAD HEAD~1; git replace HEAD~1:src/b.py HEAD:src/a.py",
        "mkdir -p ../git/info; git rev-parse HEAD >../git/info/grafts; git rev-parse HEAD >../git/shallow",
        "git config core.ignoreCase true; git config core.fileMode false; git config core.trustctime false",
        "git config core.checkStat minimal; touch -r .gitignore src/*.py",
        "git config core.splitIndex true; git config index.sparse true; git config feature.manyFiles true",
        "git config pack.packSizeLimit 1; git config pack.threads 3; git config core.compression 0",
        "git config i18n.commitEncoding latin1; git config commit.gpgSign true; git config gpg.program /nowhere",
        "git config core.excludesFile ../../home/ignore; echo '*.py' >../home/ignore",
        "printf '[core]\\n\\tfsmonitor = /nowhere\\n\\texcludesFile = /dev/zero\\n' >../home/.gitconfig",
    ],
)  # fmt: skip
def test_the_net_comes_out_whatever_became_of_the_git_directory(tmp_path: Path, repo: Repo, then: str) -> None:
    door, cell, start = made(repo, tmp_path / "cell")
    worked(cell, LEFT + then)
    assert changed(repo, cell, start) == NET
    cells.remove(cell.root)
    assert not cell.root.exists()
    door.close()


TRAPS = ("fsmonitor", "hook", "filter", "textconv", "gpg", "editor", "ssh", "credential", "uploadpack", "alias")


@needs_sandbox
def test_nothing_of_the_worker_s_configuration_runs_outside_the_sandbox(tmp_path: Path, repo: Repo) -> None:
    """Each trap writes a marker beside the cell and one inside it: the first must never be there."""
    door, cell, start = made(repo, tmp_path / "cell")
    outside, inside = tmp_path / "outside", cell.git / "inside"
    outside.mkdir()
    lines = []
    for name in TRAPS:
        lines.append(f"""
        printf '#!/bin/sh\\necho >"{outside}/{name}"\\necho >>"{inside}"\\ncat\\n' >../git/{name}
        chmod +x ../git/{name}""")
    worked(cell, LEFT + "\n".join(lines) + f"""
        mkdir -p ../git/hooks ../git/info
        for h in post-index-change reference-transaction pre-commit post-checkout fsmonitor-watchman pre-auto-gc; do
            cp ../git/hook ../git/hooks/$h
        done
        cat >>../git/config <<END
[core]
    fsmonitor = {cell.git}/fsmonitor
    hooksPath = {cell.git}/hooks
    sshCommand = {cell.git}/ssh
    pager = {cell.git}/editor
    alternateRefsCommand = {cell.git}/hook
[filter "x"]
    clean = {cell.git}/filter
    smudge = {cell.git}/filter
    process = {cell.git}/filter
    required = true
[diff "x"]
    textconv = {cell.git}/textconv
    command = {cell.git}/textconv
[commit]
    gpgSign = true
[gpg]
    program = {cell.git}/gpg
[credential]
    helper = {cell.git}/credential
[alias]
    add = !{cell.git}/alias
[remote "o"]
    promisor = true
    url = {cell.git}
    uploadpack = {cell.git}/uploadpack
[extensions]
    partialClone = o
END
        echo '* filter=x diff=x' >../git/info/attributes
    """)  # fmt: skip
    worked(cell, "git status >/dev/null 2>&1 || :")
    assert inside.exists(), "the traps are set"
    ended = harvested(cell, start)
    left = gate.admit(door, ended.stdout, start, WHEN)
    assert net(repo, start, left.tree) == NET
    gate.raw_diff(door, start, left.commit)
    gate.judge(door, Scope(("**",)), gate.raw_diff(door, start, left.commit), door.tree_of(start))
    cells.remove(cell.root)
    assert list(outside.iterdir()) == []
    door.close()


def test_a_change_of_the_same_size_in_the_same_second_is_seen(tmp_path: Path, repo: Repo) -> None:
    """Most builds of git compare times by the second, and look again only where the index is not younger than that."""
    door = repo.door()
    start = repo.ask("rev-parse", "HEAD")
    time.sleep(1.02 - time.time() % 1)  # a second has just begun
    cell = cells.make(door, tmp_path / "cell", start, branch=BRANCH)
    (cell.work / "src" / "a.py").write_bytes(b"a = 2\n")
    time.sleep(1.02 - time.time() % 1)
    assert changed(repo, cell, start) == {"src/a.py": "M"}
    door.close()


def test_odd_files_in_the_tree(tmp_path: Path, repo: Repo) -> None:
    door, cell, start = made(repo, tmp_path / "cell")
    # From outside: the sandbox would not let a worker make the first three.
    os.mkfifo(cell.work / "src" / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(cell.work)
    try:
        listener.bind("socket")
    finally:
        os.chdir(here)
        listener.close()
    worked(
        cell,
        """
        ln -s nowhere src/dangling; ln -s /etc/passwd src/secret; ln -s . src/loop; mkdir src/empty
        : >src/nothing; printf '\\377\\0bin' >src/binary; ln src/a.py src/hard; chmod +x src/b.py
        mkdir ro; echo 1 >ro/f; chmod 500 ro
        """,
    )
    left = taken(door, cell, start)
    assert net(repo, start, left.tree) == {
        "src/dangling": "A", "src/secret": "A", "src/loop": "A", "src/nothing": "A", "src/binary": "A",
        "src/hard": "A", "src/b.py": "M", "ro/f": "A",
    }  # fmt: skip
    assert git(repo.root, "cat-file", "blob", f"{left.tree}:src/secret") == b"/etc/passwd", "the link, not its target"
    cells.remove(cell.root)
    assert not cell.root.exists()
    door.close()


def test_what_git_cannot_read_is_copied_out_as_far_as_it_can_be(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, cell, start = made(repo, tmp_path / "cell")
    worked(cell, "echo 1 >src/new.py; ln -s /etc src/out; ln -s nowhere src/dangling; rm src/a.py")
    os.mkfifo(cell.work / "src" / "a.py")  # where git has a file
    assert b"src/a.py" in harvested(cell, start).stderr
    store = Store(tmp_path / "run")
    world = cast(World, SimpleNamespace(agents=SimpleNamespace(store=store)))
    said = effects._copy_out(world, cell, "a", 1)
    kept = store.path / "salvage" / "a-1"
    assert str(kept) in said
    assert "not all" in said
    assert (kept / "src" / "new.py").read_text() == "1\n"
    assert os.readlink(kept / "src" / "out") == "/etc"
    assert os.readlink(kept / "src" / "dangling") == "nowhere"
    os.unlink(cell.work / "src" / "a.py")
    assert "not all" not in effects._copy_out(world, cell, "a", 2)
    worked(cell, "truncate -s 3M src/large")
    monkeypatch.setattr(effects, "MAX_COPIED_BYTES", 1024**2)
    assert "not all of them: more than 1048576 bytes" in effects._copy_out(world, cell, "a", 3)
    assert not (store.path / "salvage" / "a-3" / "src" / "large").exists()
    monkeypatch.setattr(effects, "MAX_COPIED_FILES", 3)
    assert "not all of them: more than 3 files" in effects._copy_out(world, cell, "a", 4)
    door.close()


def test_two_thousand_files(tmp_path: Path, repo: Repo) -> None:
    door, cell, start = made(repo, tmp_path / "cell")
    worked(cell, "mkdir src/many; cd src/many; i=0; while [ $i -lt 2000 ]; do echo $i >f$i; i=$((i+1)); done")
    left = taken(door, cell, start)
    changes = gate.raw_diff(door, door.tree_of(start), left.tree)
    assert len(changes) == 2000
    scope = Scope(("src/**",))
    assert gate.judge(door, scope, changes, door.tree_of(start)) == []
    assert gate.construct(door, door.tree_of(start), changes, scope) == left.tree
    door.close()


def test_what_the_base_ignores_stays_behind(tmp_path: Path, repo: Repo) -> None:
    repo.write("keep.log", b"tracked although ignored\n")
    repo.write("src/.gitignore", b"!wanted.log\n")
    start = repo.commit("with a tracked log")
    door, cell, _ = made(repo, tmp_path / "cell", start)
    worked(
        cell,
        "echo 2 >keep.log; echo 1 >src/x.log; echo 1 >src/wanted.log; mkdir build; echo 1 >build/y",
    )
    worked(cell, "git add -f src/x.log; git commit -qm forced")
    assert changed(repo, cell, start) == {"keep.log": "M", "src/wanted.log": "A"}
    door.close()


def test_repositories_inside(tmp_path: Path, repo: Repo) -> None:
    """With a commit it comes out as a submodule, which the gate refuses; without one git gives up, and says why."""
    door, cell, start = made(repo, tmp_path / "cell")
    inner = "mkdir src/inner; cd src/inner; unset GIT_DIR; git init -q .; echo 1 >f; "
    worked(cell, inner + "git add .; git -c user.name=x -c user.email=x@y commit -qm inner")
    left = taken(door, cell, start)
    changes = gate.raw_diff(door, door.tree_of(start), left.tree)
    assert [(c.path, c.new and c.new[0]) for c in changes] == [(b"src/inner", GITLINK)]
    assert "submodule" in gate.judge(door, Scope(("src/**",)), changes, door.tree_of(start))[0].rule
    cell = cells.make(door, tmp_path / "cell", start, branch=BRANCH)
    worked(cell, inner)
    ended = harvested(cell, start)
    assert ended.returncode != 0
    assert b"src/inner/" in ended.stderr
    cell = cells.make(door, tmp_path / "cell", start, branch=BRANCH)
    worked(cell, "mkdir build; cd build; git init -q .; echo 1 >f; cd ..; echo 2 >src/a.py")
    assert changed(repo, cell, start) == {"src/a.py": "M"}, "an ignored one is nobody's business"
    door.close()


def test_a_submodule_s_directory_is_left_alone(tmp_path: Path) -> None:
    repo = repository(tmp_path / "user")
    start = strange(repo)
    door, cell, _ = made(repo, tmp_path / "cell", start)
    worked(cell, "rmdir sub && mkdir sub && echo 1 >run.sh")
    assert changed(repo, cell, start) == {"run.sh": "M"}
    cell = cells.make(door, tmp_path / "cell", start, branch=BRANCH)
    worked(cell, "rmdir sub; echo 1 >sub")
    left = taken(door, cell, start)
    changes = gate.raw_diff(door, door.tree_of(start), left.tree)
    assert "submodule" in gate.judge(door, Scope(("**",)), changes, door.tree_of(start))[0].rule
    door.close()


# ---- roots, files from beside git, the end


def test_roots_never_lead_out_of_the_cell(tmp_path: Path) -> None:
    repo = repository(tmp_path / "user")
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = repo.tree(
        {
            b"in/link": (LINK, str(outside).encode()),
            b"up": (LINK, b".."),
            b"file": (FILE, b"1"),
            b"dangling": (LINK, str(tmp_path / "made").encode()),
            b"same": (LINK, b"in"),
            b"in/x": (FILE, b"1"),
        }
    )
    door, cell, _ = made(repo, tmp_path / "cell", repo.made(tree))
    asked = (
        "",
        "in",
        "in/link",
        "in/link/deep",
        "up",
        "up/spare",
        "file",
        "file/x",
        "dangling",
        "same/y",
        ".git/hooks",
        "new/deep",
        ".git",
    )
    assert cells.make_roots(cell, asked) == tuple(str(cell.work / p) for p in ("", "in", "new/deep"))
    assert (cell.work / "new" / "deep").is_dir()
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "made").exists()
    assert not (cell.work / "in" / "y").exists()
    door.close()


def test_files_beside_git(tmp_path: Path, repo: Repo) -> None:
    door, cell, start = made(repo, tmp_path / "cell")
    (repo.root / ".env").write_text("SECRET=1\n")
    (repo.root / "deep").mkdir()
    (repo.root / "deep" / "x").write_text("x")
    (repo.root / "link").symlink_to("/etc/passwd")
    names = ("deep", ".env", "deep/x", "link", "nowhere", "src/a.py")
    assert cells.copy_in(cell, repo.root, names) == ["deep", "link", "nowhere"]
    assert (cell.work / ".env").read_text() == "SECRET=1\n"
    assert (cell.work / "src" / "a.py").read_bytes() == b"a = 1\n", "what is in git is git's"
    worked(cell, "echo 2 >src/a.py; : >../git/info/exclude; git add -A; git commit -qm all")
    assert changed(repo, cell, start) == {"src/a.py": "M"}
    worked(cell, "rm -rf ../git/*")
    assert changed(repo, cell, start) == {"src/a.py": "M"}, "it never comes out again, broken git directory or not"
    door.close()


REMOVE = """
import os, sys
from pathlib import Path
from orchgit.git import cells
root = Path(sys.argv[1])
os.setgid(65534); os.setuid(65534)
root.mkdir()
deep = root
for name in "abcdef":
    deep = deep / name
    deep.mkdir()
    (deep / "file").write_text("x")
(root / "a" / "out").symlink_to(sys.argv[2])
(root / "a" / "b" / "outdir").symlink_to(os.path.dirname(sys.argv[2]))
here = os.getcwd()
os.chdir(root)
for _ in range(1200):  # deeper than Python recurses, and longer than a path may be
    os.mkdir("deeper"); os.chdir("deeper")
os.chdir(here)
for folder, _, files in os.walk(root / "a", topdown=False):
    for name in files:
        if name == "file":
            os.chmod(os.path.join(folder, name), 0)
    os.chmod(folder, 0)
os.chmod(root, 0)
cells.remove(root)
print(root.exists())
cells.remove(root)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user: needs root to become it")
def test_removed_whatever_the_modes_and_the_depth(tmp_path: Path) -> None:
    place = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        place.chmod(0o777)
        (place / "precious").write_text("precious")
        (place / "precious").chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", REMOVE, str(place / "cell"), str(place / "precious")], capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("False\n", "")
        assert (place / "precious").stat().st_mode & 0o777 == 0o600
        assert place.stat().st_mode & 0o777 == 0o777
    finally:
        subprocess.run(["rm", "-rf", str(place)], check=True)


def test_remove_takes_a_link_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "cell").symlink_to(tmp_path / "precious")
    cells.remove(tmp_path / "cell")
    assert (tmp_path / "precious").is_dir()
    assert not (tmp_path / "cell").is_symlink()


def test_names_of_repositories_on_this_machine(tmp_path: Path) -> None:
    one = cells.repository_id(tmp_path / "a" / ".git")
    assert one == cells.repository_id(tmp_path / "a" / ".git") != cells.repository_id(tmp_path / "b" / ".git")
    assert "/" not in one
    assert cells.repository_id(Path(os.fsdecode(b"/tmp/\xff/.git")))
