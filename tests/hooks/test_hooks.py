"""The hooks with real git: in a cell, and in a user's clone beside the four ways people keep hooks there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchgit import githooks
from orchgit.core.errors import OrchgitError
from orchgit.core.scope import Scope, hook_rules

SH = shutil.which("dash") or "sh"
BRANCH = "refs/heads/orchgit/r1/api"


@dataclass(frozen=True)
class Rules:
    """Patterns made by hand: app/** without app/secret/**; conftest.py and .git* anywhere are protected."""

    allow: str = "^(app/.+|conftest\\.py|web/\\*)$"
    deny: str = "^(app/secret/.*)$"
    protected: str = "^((.*/)?conftest\\.py|(.*/)?\\.git[^/]*)$"
    literals: tuple[str, ...] = ("conftest.py", "web/[x]")


class Repo:
    """A repository with an environment of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(path.parent),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *args], cwd=self.path, env={**self.env, **env}, capture_output=True, check=False)

    def feed(self, text: str, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["git", *args], cwd=self.path, env=self.env, input=text.encode(), capture_output=True, check=False
        )

    def git(self, *args: str, **env: str) -> str:
        done = self.run(*args, **env)
        assert done.returncode == 0, (args, done.stderr.decode())
        return done.stdout.decode().strip()

    def refused(self, *args: str, **env: str) -> str:
        done = self.run(*args, **env)
        assert done.returncode != 0, (args, done.stdout, done.stderr)
        text = done.stderr.decode()  # strictly: nothing but what the hook meant to print
        assert "orchgit: " in text, text
        return text

    def write(self, name: str | bytes, text: str = "x\n") -> None:
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def stage(self, *names: str | bytes) -> None:
        for name in names:
            self.write(name)
        self.git("add", "-A", "-f")

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


def make_repo(path: Path) -> Repo:
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "-q", "-b", "main")
    for name in ("app/a.py", "app/b.py", "docs/x.md", "conftest.py", "README.md"):
        repo.write(name, f"{name}\n" * 5)
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "base")
    return repo


@pytest.fixture
def cell(tmp_path: Path) -> Repo:
    """A private clone on the assignment's branch, with an out-of-scope commit on a ref to try things with."""
    repo = make_repo(tmp_path / "cell")
    repo.git("switch", "-q", "-c", BRANCH.removeprefix("refs/heads/"))
    base = repo.head()
    repo.write("docs/x.md", "changed\n")
    repo.git("commit", "-q", "-a", "-m", "outside")
    repo.git("tag", "outside")
    repo.git("reset", "-q", "--hard", base)
    githooks.install_cell(str(repo.path / ".git"), Rules(), base=base, branch=BRANCH)
    return repo


def test_the_programs_are_posix_sh() -> None:
    for folder in ("cell", "clone"):
        for name in os.listdir(os.path.join(githooks.source_dir(), folder)):
            path = os.path.join(githooks.source_dir(), folder, name)
            done = subprocess.run([SH, "-n", path], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


# --- in a cell ---------------------------------------------------------------------------------------------


def test_work_in_scope_passes(cell: Repo) -> None:
    base = cell.head()
    cell.stage("app/new dir/é 'quoted\" name.py", "conftest.py")
    cell.git("commit", "-q", "-m", "in scope")
    cell.write("app/a.py", "again\n")
    cell.git("commit", "-q", "-a", "--amend", "-m", "amended")
    cell.git("mv", "app/a.py", "app/c.py")
    cell.git("commit", "-q", "-m", "renamed")
    cell.git("rm", "-q", "app/b.py")
    cell.git("commit", "-q", "-m", "deleted")
    cell.write("app/c.py", "stash me\n")
    cell.git("stash")
    cell.git("stash", "pop")
    cell.git("reset", "-q", "--hard")
    cell.git("switch", "-q", "-c", "side", base)
    cell.stage("app/side.py")
    cell.git("commit", "-q", "-m", "side")
    cell.git("rebase", "-q", BRANCH.removeprefix("refs/heads/"))
    cell.git("tag", "mine")
    cell.git("switch", "-q", BRANCH.removeprefix("refs/heads/"))
    cell.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    cell.git("branch", "-q", "-D", "side")
    cell.git("-c", "core.hooksPath=/dev/null", "branch", "there-already", "outside")
    cell.git("gc", "-q")
    cell.git("pack-refs", "--all")


def test_pre_commit_says_what_to_do(cell: Repo) -> None:
    cell.write("docs/x.md", "changed\n")
    cell.write("app/a.py", "changed\n")
    text = cell.refused("commit", "-q", "-a", "-m", "no")
    assert text.splitlines() == [
        "orchgit: docs/x.md is outside your scope (no pattern of the scope covers it)",
        "orchgit: undo it (git restore --staged -- PATH), or ask for it in the scope_requests of your report.",
    ]
    cell.git("add", "-A")
    cell.git("restore", "--staged", "--", "docs/x.md")
    cell.git("commit", "-q", "-m", "yes")


@pytest.mark.parametrize(
    "command",
    [
        ["cherry-pick", "outside"],
        ["merge", "-q", "outside"],
        ["merge", "-q", "--no-ff", "--no-verify", "-m", "m", "outside"],
        ["update-ref", BRANCH, "outside"],
        ["branch", "-f", "other", "outside"],
        ["switch", "-q", "-c", "other", "outside"],
        ["reset", "-q", "--hard", "outside"],
        ["rebase", "-q", "outside"],
        ["fetch", "-q", ".", "outside:refs/heads/other"],
    ],
    ids=lambda command: "-".join(command[:3]),
)
def test_whatever_moves_a_branch_is_checked(cell: Repo, command: list[str]) -> None:
    if command[0] in ("cherry-pick", "merge") or command[0] == "rebase":
        cell.stage("app/new.py")
        cell.git("commit", "-q", "-m", "in scope")
    before = cell.head()
    assert "docs/x.md" in cell.refused(*command)
    assert cell.git("rev-parse", BRANCH) == before
    assert not cell.git("for-each-ref", "refs/heads/other")


def test_commit_no_verify_is_checked(cell: Repo) -> None:
    before = cell.head()
    cell.write("docs/x.md", "changed\n")
    assert "docs/x.md" in cell.refused("commit", "-q", "-n", "-a", "-m", "no")
    assert cell.head() == before


def test_what_pre_commit_has_checked_holds_for_that_commit_only(cell: Repo, tmp_path: Path) -> None:
    cell.stage("app/new.py")
    cell.git("commit", "-q", "-m", "checked once")
    hook = cell.path / ".git/hooks/commit-msg"
    script(hook, "exit 1")
    cell.stage("app/newer.py")
    assert cell.run("commit", "-q", "-m", "stopped after pre-commit").returncode != 0
    hook.unlink()
    cell.stage("docs/new.md")
    cell.refused("commit", "-q", "-n", "-m", "no")
    # A pre-commit of the user's that changes the index after ours has looked at it.
    git_dir, hooks = str(cell.path / ".git"), tmp_path / "user-hooks"
    script(hooks / "pre-commit", "git add -f docs/new.md")
    githooks.install_cell(git_dir, Rules(), base=cell.git("rev-parse", "outside^"), branch=BRANCH, chain=str(hooks))
    cell.git("restore", "--staged", "docs")
    assert "docs/new.md" in cell.refused("commit", "-q", "-m", "no")


def test_reasons_denied_protected_and_literal(cell: Repo) -> None:
    cell.stage("app/secret/key", "app/conftest.py", "app/.gitattributes", "conftest.py", "web/[x]", "web/*")
    text = cell.refused("commit", "-q", "-n", "-m", "no")
    assert text.splitlines()[:4] == [
        "orchgit: web/[x] is outside your scope (no pattern of the scope covers it)",
        "orchgit: app/secret/key is outside your scope (the scope denies it)",
        "orchgit: app/.gitattributes is outside your scope"
        " (protected: only a plan that names this very path grants it)",
        "orchgit: app/conftest.py is outside your scope (protected: only a plan that names this very path grants it)",
    ]
    assert text.splitlines()[4].startswith("orchgit: undo it")


def test_renames_count_on_both_sides(cell: Repo) -> None:
    cell.git("mv", "docs/x.md", "app/x.md")
    assert "docs/x.md" in cell.refused("commit", "-q", "-m", "into the scope")
    cell.git("reset", "-q", "--hard")
    cell.git("mv", "app/a.py", "docs/a.py")
    text = cell.refused("commit", "-q", "-m", "out of it")
    assert "docs/a.py" in text
    assert "app/a.py" not in text
    cell.git("reset", "-q", "--hard")
    (cell.path / "README.md").chmod(0o755)
    assert "README.md" in cell.refused("commit", "-q", "-a", "-m", "a mode is a change")


def test_names_cannot_break_the_terminal_or_the_check(cell: Repo) -> None:
    names = [
        b"docs/with space",
        "docs/é\u202e\u009b31m".encode(),
        b"docs/not utf-8 \x9b\xff",
        b"docs/esc\x1b[31m\x07\x7f",
        b"docs/back\\slash",
        b"docs/line\napp/in.py",
        b"app/line\nbreak",
        b"app/esc\x1b[2J",
    ]
    cell.stage(*names)
    text = cell.refused("commit", "-q", "-m", "no")
    assert all(" " <= char <= "~" for char in text.replace("\n", "")), text
    shown = {line.removeprefix("orchgit: ") for line in text.splitlines()}
    outside = " is outside your scope (no pattern of the scope covers it)"
    control = " is outside your scope (its name has a control character)"
    assert shown == {
        "docs/with space" + outside,
        "docs/\\303\\251\\342\\200\\256\\302\\23331m" + outside,
        "docs/not utf-8 \\233\\377" + outside,
        "docs/esc\\033[31m\\007\\177" + control,
        "docs/back\\\\slash" + outside,
        "docs/line\\napp/in.py" + control,
        "app/line\\nbreak" + control,
        "app/esc\\033[2J" + control,
        "undo it (git restore --staged -- PATH), or ask for it in the scope_requests of your report.",
    }
    assert cell.refused("commit", "-q", "-n", "-m", "no").startswith(text)


def test_at_most_twenty_paths_are_told(cell: Repo) -> None:
    cell.stage(*(f"docs/many{i:04}" for i in range(2000)))  # more than one pipe's worth
    lines = cell.refused("commit", "-q", "-m", "no").splitlines()
    assert len(lines) == 22
    assert lines[20] == "orchgit: and 1980 more"


def test_an_older_commit_may_have_a_side_branch_but_not_the_branch_itself(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "cell")
    repo.write("docs/x.md", "newer\n")
    repo.git("commit", "-q", "-a", "-m", "newer")
    repo.git("switch", "-q", "-c", BRANCH.removeprefix("refs/heads/"))
    githooks.install_cell(str(repo.path / ".git"), Rules(), base=repo.head(), branch=BRANCH)
    repo.git("branch", "look", "HEAD~1")
    assert "docs/x.md" in repo.refused("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.parametrize(
    ("name", "content"),
    [("", None), ("", ""), ("", "base 1234\n"), (".sed", None), (".sed", "\\\1^(app/.*$\1!p\n")],
)
def test_what_cannot_be_checked_passes_and_is_said(cell: Repo, name: str, content: str | None) -> None:
    scope = cell.path / ".git" / (githooks.SCOPE_FILE + name)
    scope.unlink()
    if content is not None:
        scope.write_text(content)
    cell.write("docs/x.md", "changed\n")
    done = cell.run("commit", "-q", "-a", "-m", "x")
    assert done.returncode == 0, done.stderr
    assert b"orchgit: the scope could not be checked here" in done.stderr


def test_husky_in_a_cell_does_not_displace_ours(cell: Repo) -> None:
    cell.git("config", "core.hooksPath", ".husky/_")  # what `npm install` does
    cell.write("docs/x.md", "changed\n")
    cell.refused("commit", "-q", "-n", "-a", "-m", "no")


def test_a_cell_s_own_hooks_are_chained(cell: Repo, tmp_path: Path) -> None:
    hooks = tmp_path / "user-hooks"
    hooks.mkdir()
    log = tmp_path / "log"
    script(hooks / "pre-commit", f'echo "pre-commit $# $LC_ALL" >>{log}')
    script(hooks / "reference-transaction", f'echo "tx $1" >>{log}; cat >>{log}')
    git_dir = str(cell.path / ".git")
    githooks.install_cell(git_dir, Rules(), base=cell.head(), branch=BRANCH, chain=str(hooks))
    cell.stage("app/new.py")
    cell.git("commit", "-q", "-m", "yes")
    text = log.read_text()
    assert "pre-commit 0 C.UTF-8\n" in text
    assert f" {cell.head()} {BRANCH}\n" in text
    assert {"tx prepared", "tx committed"} <= set(text.splitlines())
    log.unlink()
    cell.write("docs/x.md", "changed\n")
    cell.refused("commit", "-q", "-a", "-m", "no")
    assert not log.exists()
    cell.git("reset", "-q", "--hard")
    script(hooks / "reference-transaction", 'cat >/dev/null; [ "$1" != prepared ]')
    cell.stage("app/other.py")
    assert cell.run("commit", "-q", "-m", "theirs says no").returncode != 0


def test_install_cell_again_changes_nothing_and_refuses_what_a_line_cannot_hold(cell: Repo) -> None:
    git_dir = cell.path / ".git"
    before = snapshot(git_dir)
    githooks.install_cell(str(git_dir), Rules(), base=cell.head(), branch=BRANCH)
    assert snapshot(git_dir) == before
    assert cell.git("config", "core.hooksPath") == str(git_dir / "hooks")
    for rules in (Rules(allow=""), Rules(literals=("a\nb",))):
        with pytest.raises(OrchgitError):
            githooks.install_cell(str(git_dir), rules, base=cell.head(), branch=BRANCH)


def test_the_scope_of_a_plan_decides_as_the_gate_does(cell: Repo) -> None:
    scope = Scope(allow=("app/**", "types/*.ts", "café/x?.md", "Makefile"), deny=("app/secret/",))
    base = cell.head()
    githooks.install_cell(str(cell.path / ".git"), hook_rules(scope), base=base, branch=BRANCH)
    paths = [
        *("app/a", "app/deep/er", "app/secret/key", "app/secret", "types/a.ts", "types/a.ts/evil", "types/a/b.ts"),
        *("café/x1.md", "café/xé.md", "Makefile", "app/Makefile", "app/.gitattributes", "APP/a", "apps/a", "app"),
        *("conftest.py", "app/[a]", "app/ü"),
    ]
    for path in paths:
        cell.git("read-tree", base)
        cell.git("rm", "-q", "-r", "--cached", "--ignore-unmatch", path)
        blob = cell.git("rev-parse", "HEAD:README.md")
        added = cell.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        if added.returncode:  # a file where the base has a directory
            continue
        tree = cell.git("write-tree")
        commit = cell.git("commit-tree", "-p", base, "-m", "x", tree)
        changed = cell.git("diff-tree", "-r", "-z", "--name-only", base, commit).split("\0")
        wanted = all(scope.allows(each.encode()) for each in changed if each)
        done = cell.run("update-ref", BRANCH, commit)
        assert (done.returncode == 0) == wanted, (path, done.stderr)
        cell.git("-c", "core.hooksPath=/dev/null", "update-ref", BRANCH, base)


# --- in the user's clone -----------------------------------------------------------------------------------


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def snapshot(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, link and directory below `top` that hooks are about: mode and content."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if name.startswith(("objects", "logs")):
            continue
        mode = path.lstat().st_mode
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else b""
        found[name] = (mode, path.read_bytes() if stat.S_ISREG(mode) else content)
    return found


def states(found: list[githooks.HookStatus]) -> dict[str, str]:
    return {each.name: each.state for each in found}


class Clone(Repo):
    """A user's clone, and the arguments that githooks wants for it."""

    hooks_path: str | None = None

    @property
    def hooks(self) -> Path:
        return self.path / ".git/hooks"

    def install(self) -> list[githooks.HookStatus]:
        return githooks.install(str(self.path / ".git"), self.hooks_path, work_tree=str(self.path))

    def uninstall(self) -> list[githooks.HookStatus]:
        return githooks.uninstall(str(self.path / ".git"), self.hooks_path, work_tree=str(self.path))

    def status(self) -> list[githooks.HookStatus]:
        return githooks.status(str(self.path / ".git"), self.hooks_path, work_tree=str(self.path))

    def set_hooks_path(self, value: str) -> None:
        self.hooks_path = value
        self.git("config", "core.hooksPath", value)

    def round_trip(self) -> list[githooks.HookStatus]:
        """Install (twice), and leave installed; that uninstalling restores everything is checked on the way."""
        before = snapshot(self.path)
        found = self.install()
        installed = snapshot(self.path)
        assert self.install() == found == self.status()
        assert snapshot(self.path) == installed
        self.uninstall()
        assert snapshot(self.path) == before
        return self.install()

    def guarded(self) -> None:
        """The guard on refs is live."""
        text = self.refused("update-ref", "refs/heads/orchgit/r1/api", "HEAD")
        assert "git switch -c my-branch orchgit/r1/integration" in text
        self.git("update-ref", "refs/heads/free", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    repo = make_repo(tmp_path / "clone")
    shutil.rmtree(repo.path / ".git/hooks")
    (repo.path / ".git/hooks").mkdir()
    return Clone(repo.path)


def track_a_log(repo: Repo) -> None:
    repo.write(".orchestration/runs/r1/events.jsonl", "one\n")
    repo.git("add", "-A", "-f")
    repo.git("commit", "-q", "-m", "track a log")
    repo.write(".orchestration/runs/r1/events.jsonl", "two\n")
    repo.git("add", "-A", "-f")


def test_the_guard_refuses_with_words(clone: Clone) -> None:
    clone.git("update-ref", "refs/heads/orchgit/r1/integration", "HEAD")
    clone.git("update-ref", "refs/orchgit/runs/r1", "HEAD")
    assert states(clone.round_trip()) == {"pre-commit": "installed", "reference-transaction": "installed"}
    clone.guarded()
    clone.git("switch", "-q", "orchgit/r1/integration")  # looking is free
    clone.write("README.md", "by hand\n")
    text = clone.refused("commit", "-q", "-n", "-a", "-m", "by hand")
    assert text.splitlines()[:3] == [
        "orchgit: orchgit/r1/integration belongs to run r1, and only orchgit moves it.",
        "orchgit: make your own branch from it: git switch -c my-branch orchgit/r1/integration",
        "orchgit: to do it all the same: ORCHGIT_ALLOW=1 git ...",
    ]
    clone.git("switch", "-q", "-c", "my-branch", "orchgit/r1/integration")
    clone.git("commit", "-q", "-a", "-m", "on my own")
    assert "orchgit clean r1" in clone.refused("branch", "-D", "orchgit/r1/integration")
    assert "orchgit's own record" in clone.refused("update-ref", "-d", "refs/orchgit/runs/r1")
    clone.refused("fetch", "-q", ".", "main:refs/orchgit/runs/r2")
    clone.git("branch", "orchgit-notes")
    clone.git("branch", "-m", "orchgit-notes", "orchgit/r1/notes")  # git renames without asking any hook
    clone.git("branch", "orchgit/notes/mine", ORCHGIT_ALLOW="1")
    clone.git("-c", "core.hooksPath=/dev/null", "update-ref", "refs/heads/orchgit/r1/integration", "HEAD")
    clone.git("pack-refs", "--all")
    clone.git("gc", "-q")
    # Packed, and deleted with and without its old value.
    assert not (clone.path / ".git/refs/heads/orchgit/r1/integration").exists()
    clone.refused("branch", "-D", "orchgit/r1/integration")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration")
    old = clone.git("rev-parse", "orchgit/r1/integration")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration", old)
    clone.refused("update-ref", "refs/heads/orchgit/r1/integration", "main")
    # A loose value over a packed one.
    clone.git("update-ref", "refs/heads/orchgit/r1/integration", "main", ORCHGIT_ALLOW="1")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration", clone.git("rev-parse", "main"))
    clone.refused("update-ref", "refs/heads/orchgit/r1/integration", old)
    assert clone.git("rev-parse", "orchgit/r1/integration") == clone.git("rev-parse", "main") != old


def test_a_fetch_of_many_refs_is_quick_and_whole(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(clone.hooks / "reference-transaction", f'[ "$1" != prepared ] || cat >{log}')
    clone.install()
    lines = "".join(f"create refs/remotes/o/b{i} HEAD\n" for i in range(3_000))
    start = time.perf_counter()
    assert clone.feed(lines, "update-ref", "--stdin").returncode == 0
    assert time.perf_counter() - start < 20
    assert len(log.read_text().splitlines()) == 3_000
    assert log.read_text().splitlines()[-1].endswith(" refs/remotes/o/b2999")
    many = lines + "create refs/heads/orchgit/r1/late HEAD\n"
    assert b"belongs to run r1" in clone.feed(many.replace("/o/", "/p/"), "update-ref", "--stdin").stderr


def test_ref_names_cannot_break_the_terminal(clone: Clone) -> None:
    clone.install()
    text = clone.refused("update-ref", "refs/heads/orchgit/r\u009b31m/\u202ex", "HEAD")
    assert all(" " <= char <= "~" for char in text.split("fatal:")[0].replace("\n", "")), text
    many = "".join(f"create refs/heads/orchgit/r1/b{i} HEAD\n" for i in range(30))
    done = clone.feed(many, "update-ref", "--stdin")
    assert done.returncode != 0
    assert done.stderr.decode().count(" belongs to run r1") == 20
    assert "orchgit: and 10 more" in done.stderr.decode()


def test_a_commit_that_rewrites_a_log_is_refused(clone: Clone) -> None:
    clone.install()
    track_a_log(clone)  # tracking it passes
    text = clone.refused("commit", "-q", "-m", "rewrite")
    assert ".orchestration/runs/r1/events.jsonl" in text
    assert "git restore --staged --worktree -- .orchestration/runs" in text
    clone.git("rm", "-q", "-r", "-f", ".orchestration")
    clone.refused("commit", "-q", "-m", "delete")
    clone.git("commit", "-q", "-m", "all the same", ORCHGIT_ALLOW="1")


def test_the_first_commit_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    clone = Clone(tmp_path / "new")
    clone.git("init", "-q")
    clone.install()
    clone.stage("a")
    clone.git("commit", "-q", "-m", "first")


def test_linked_worktrees_are_guarded_too(clone: Clone, tmp_path: Path) -> None:
    clone.install()
    clone.git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    linked.refused("branch", "orchgit/r1/x")
    track_a_log(linked)
    linked.refused("commit", "-q", "-m", "rewrite")


def test_plain_hooks_are_chained(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    # What hooks do to find their place: by name, by a file beside them, by the repository above them.
    script(clone.hooks / "helper", f'echo "helper $1" >>{log}')
    body = '"$(dirname "$0")/helper" "$(basename "$0")"\ncd "$(dirname "$0")/../.." && test -f README.md || exit 1'
    script(clone.hooks / "pre-commit", body)
    script(clone.path / "tools/tx", f'echo "tx $1" >>{log}; cat >>{log}')
    (clone.hooks / "reference-transaction").symlink_to("../../tools/tx")
    script(clone.hooks / "commit-msg", f"echo commit-msg >>{log}")
    found = clone.round_trip()
    assert states(found) == {"pre-commit": "chained", "reference-transaction": "chained"}
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    text = log.read_text()
    assert "helper pre-commit\n" in text
    assert "commit-msg\n" in text
    assert f" {clone.head()} refs/heads/main\n" in text
    assert {"tx prepared", "tx committed"} <= set(text.splitlines())
    clone.guarded()
    track_a_log(clone)
    clone.refused("commit", "-q", "-m", "rewrite")
    script(clone.path / "tools/tx", 'cat >/dev/null; [ "$1" != prepared ]')
    assert clone.run("update-ref", "refs/heads/theirs", "HEAD").returncode != 0


def test_a_hook_that_is_switched_off_stays_off(clone: Clone) -> None:
    (clone.hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    found = clone.round_trip()
    assert states(found)["pre-commit"] == "installed"
    clone.stage("a")
    clone.git("commit", "-q", "-m", "x")


# The framework's own template (pre-commit 4.7), with the program replaced by what it does with hooks.
PRE_COMMIT = """#!/usr/bin/env bash
# File generated by pre-commit: https://pre-commit.com
# ID: 138fd403232d2ddd5efb44317e38bf03
HERE="$(cd "$(dirname "$0")" && pwd)"
if [ -n "$PRE_COMMIT_RUNNING_LEGACY" ]; then echo "bug: migration mode" >&2; exit 1; fi
if [ -x "$HERE/pre-commit.legacy" ]; then
    PRE_COMMIT_RUNNING_LEGACY=1 "$HERE/pre-commit.legacy" "$@" </dev/null || exit 1
fi
echo framework >>"{log}"
"""


def install_framework(clone: Clone, log: Path) -> None:
    """`pre-commit install`: moves what is not its own to .legacy, and writes its hook."""
    hook = clone.hooks / "pre-commit"
    if hook.exists() and "138fd403232d2ddd5efb44317e38bf03" not in hook.read_text():
        hook.replace(clone.hooks / "pre-commit.legacy")
    hook.write_text(PRE_COMMIT.replace("{log}", str(log)))
    hook.chmod(0o755)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_pre_commit_framework(clone: Clone, tmp_path: Path, legacy: bool) -> None:
    log = tmp_path / "log"
    if legacy:
        script(clone.hooks / "pre-commit", f"echo legacy >>{log}")
    install_framework(clone, log)
    found = clone.round_trip()
    assert states(found) == {"pre-commit": "chained", "reference-transaction": "installed"}
    install_framework(clone, log)  # once more, over ours
    assert states(clone.status()) == states(found)
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    assert log.read_text().split() == (["legacy"] if legacy else []) + ["framework"]
    clone.guarded()
    track_a_log(clone)
    clone.refused("commit", "-q", "-m", "rewrite")
    assert log.read_text().split().count("framework") == 2  # the commit that tracked the log


def test_the_pre_commit_framework_installed_later(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(clone.hooks / "pre-commit", f"echo mine >>{log}")
    mine = (clone.hooks / "pre-commit").read_bytes()
    clone.install()
    install_framework(clone, log)
    assert states(clone.status())["pre-commit"] == "chained"
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    assert log.read_text().split() == ["mine", "framework"]
    before = snapshot(clone.path)
    clone.install()
    assert snapshot(clone.path) == before
    clone.uninstall()  # as if ours had never been there
    assert (clone.hooks / "pre-commit.legacy").read_bytes() == mine
    assert sorted(os.listdir(clone.hooks)) == ["pre-commit", "pre-commit.legacy"]


LEFTHOOK = """#!/bin/sh
call_lefthook()
{
  echo "lefthook $2" >>"{log}"
}
call_lefthook run "pre-commit" "$@"
"""


def install_lefthook(clone: Clone, log: Path) -> None:
    """`lefthook install`: moves what is not its own to .old, which it never runs; fails if .old is there."""
    hook = clone.hooks / "pre-commit"
    if hook.exists() and "call_lefthook" not in hook.read_text():
        assert not (clone.hooks / "pre-commit.old").exists(), "can't rename pre-commit to pre-commit.old"
        hook.rename(clone.hooks / "pre-commit.old")
    hook.write_text(LEFTHOOK.replace("{log}", str(log)))
    hook.chmod(0o755)


def test_lefthook(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    install_lefthook(clone, log)
    script(clone.hooks / "reference-transaction", f'echo "tx $1" >>{log}; cat >>{log}')
    theirs = (clone.hooks / "pre-commit").read_bytes()
    found = clone.round_trip()
    assert states(found) == {"pre-commit": "foreign", "reference-transaction": "chained"}
    assert "lefthook.yml" in found[0].detail
    assert (clone.hooks / "pre-commit").read_bytes() == theirs
    install_lefthook(clone, log)
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    assert "lefthook pre-commit\n" in log.read_text()
    assert f" {clone.head()} refs/heads/main\n" in log.read_text()
    clone.guarded()
    # Chained by hand, as `detail` says.
    (clone.path / "lefthook.yml").write_text("run: $h/orchgit/hooks/pre-commit")
    assert states(clone.status())["pre-commit"] == "chained"


def test_lefthook_installed_later_is_noticed(clone: Clone, tmp_path: Path) -> None:
    script(clone.hooks / "pre-commit", "exit 0")
    mine = (clone.hooks / "pre-commit").read_bytes()
    clone.install()
    install_lefthook(clone, tmp_path / "log")
    found = clone.status()
    assert states(found) == {"pre-commit": "foreign", "reference-transaction": "installed"}
    before = snapshot(clone.hooks)
    clone.install()
    assert snapshot(clone.hooks) == before
    clone.uninstall()
    assert (clone.hooks / "pre-commit.old").read_bytes() == mine  # where lefthook would have put it
    assert sorted(os.listdir(clone.hooks)) == ["pre-commit", "pre-commit.old"]


def install_husky(clone: Clone) -> None:
    """What husky 9 does on every `npm install`."""
    clone.set_hooks_path(".husky/_")
    below = clone.path / ".husky/_"
    script(below / "h", 'n=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\n[ ! -f "$s" ] || sh -e "$s" "$@"')
    (below / ".gitignore").write_text("*")
    for name in ("pre-commit", "commit-msg", "pre-push"):
        script(below / name, '. "$(dirname "$0")/h"')


def test_husky(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (clone.path / ".husky").mkdir()
    (clone.path / ".husky/pre-commit").write_text(f"echo husky >>{log}\n")
    install_husky(clone)
    found = clone.round_trip()
    assert states(found) == {"pre-commit": "foreign", "reference-transaction": "installed"}
    install_husky(clone)
    assert states(clone.status()) == states(found)
    assert not [line for line in clone.git("status", "--porcelain").splitlines() if "_" in line]
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    assert log.read_text() == "husky\n"
    clone.guarded()
    # The line that `detail` gives, added by hand to the tracked file.
    with open(clone.path / ".husky/pre-commit", "a") as file:
        file.write(found[0].detail.partition("/.husky/pre-commit: ")[2] + "\n")
    assert states(clone.status())["pre-commit"] == "chained"
    track_a_log(clone)
    clone.refused("commit", "-q", "-m", "rewrite")
    clone.uninstall()
    clone.git("commit", "-q", "-m", "the line does nothing where orchgit is not")


def test_hooks_that_are_tracked_or_shared_are_left_alone(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(clone.path / ".githooks/reference-transaction", f"cat >>{log}")
    shared = tmp_path / "shared"
    shared.mkdir()
    for where in (".githooks", str(shared), "~/shared"):
        clone.set_hooks_path(where)
        before = snapshot(clone.path / ".githooks"), snapshot(shared)
        found = clone.round_trip()
        assert set(states(found).values()) <= {"absent", "foreign"}
        assert all("which is not orchgit's to write" in each.detail for each in found)
        assert (snapshot(clone.path / ".githooks"), snapshot(shared)) == before
        clone.uninstall()
    # By hand, as `detail` says; what follows the line still has the input.
    clone.set_hooks_path(".githooks")
    line = clone.install()[1].detail.partition("reference-transaction: ")[2]
    script(clone.path / ".githooks/reference-transaction", f'{line}\nprintf "%s\\n" "$updates" >>{log}')
    assert states(clone.status())["reference-transaction"] == "chained"
    clone.guarded()
    assert " refs/heads/free\n" in log.read_text()


def test_a_hooks_directory_that_links_into_the_work_tree(clone: Clone) -> None:
    script(clone.path / "githooks/pre-commit", "exit 0")
    clone.hooks.rmdir()
    clone.hooks.symlink_to("../githooks")
    before = snapshot(clone.path / "githooks")
    assert set(states(clone.round_trip()).values()) == {"foreign", "absent"}
    assert snapshot(clone.path / "githooks") == before


def test_a_new_hook_over_ours_is_not_overwritten_and_none_is_lost(clone: Clone) -> None:
    script(clone.hooks / "pre-commit", "exit 0 # first")
    clone.install()
    script(clone.hooks / "pre-commit", "exit 0 # second")
    first, second = clone.install(), (clone.hooks / "pre-commit").read_text()
    assert states(first)["pre-commit"] == "foreign"
    assert "your earlier hook is kept at" in first[0].detail
    assert "second" in second
    clone.uninstall()
    assert "second" in (clone.hooks / "pre-commit").read_text()
    assert "first" in (clone.path / ".git/orchgit-chained/pre-commit").read_text()


def test_killed_in_the_middle_of_moving_a_hook_aside(clone: Clone) -> None:
    script(clone.hooks / "pre-commit", "exit 0")
    before = snapshot(clone.path)
    (clone.path / ".git/orchgit-chained").mkdir()
    os.link(clone.hooks / "pre-commit", clone.path / ".git/orchgit-chained/pre-commit")
    assert states(clone.install())["pre-commit"] == "chained"
    clone.uninstall()
    assert snapshot(clone.path) == before


def test_an_older_version_is_told_and_renewed(clone: Clone) -> None:
    clone.install()
    hook = clone.hooks / "pre-commit"
    current = hook.read_bytes()
    hook.write_bytes(current + b"# older\n")
    assert "another version" in clone.status()[0].detail
    clone.install()
    assert hook.read_bytes() == current
    hook.chmod(0o644)
    assert states(clone.status())["pre-commit"] == "absent"
    assert states(clone.install())["pre-commit"] == "installed"


def test_uninstall_also_finds_the_guard_that_husky_has_since_displaced(clone: Clone) -> None:
    clone.install()
    install_husky(clone)
    clone.uninstall()
    assert os.listdir(clone.hooks) == []
