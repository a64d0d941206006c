"""Repositories for the hooks' tests: a cell, a user's clone, and every shell that may stand at /bin/sh."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchgit import githooks

BRANCH = "refs/heads/orchgit/r1/api"
# What is at /bin/sh: Debian and Ubuntu, Alpine, Red Hat and macOS. With busybox the tools are its own too.
SHELLS = {"dash": ("dash",), "busybox": ("busybox", "sh"), "bash": ("bash", "--posix")}
BUSYBOX_TOOLS = ("awk", "cat", "cut", "grep", "sed", "tr", "test", "true", "false")


@dataclass(frozen=True)
class Rules:
    """Patterns made by hand: app/** without app/secret/**; conftest.py and .git* anywhere are protected."""

    allow: str = "^(app/.+|conftest\\.py|web/\\*)$"
    deny: str = "^(app/secret/.*)$"
    protected: str = "^((.*/)?conftest\\.py|(.*/)?\\.git[^/]*)$"
    literals: tuple[str, ...] = ("conftest.py", "web/[x]")


class Repo:
    """A repository with an environment of its own; `shell` runs the hooks, or None: /bin/sh."""

    def __init__(self, path: Path, shell: str | None = None) -> None:
        self.path = path
        self.shell = shell
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

    def feed(self, text: str | bytes, *args: str) -> subprocess.CompletedProcess[bytes]:
        data = text.encode() if isinstance(text, str) else text
        return subprocess.run(["git", *args], cwd=self.path, env=self.env, input=data, capture_output=True, check=False)

    def git(self, *args: str, **env: str) -> str:
        done = self.run(*args, **env)
        assert done.returncode == 0, (args, done.stderr.decode())
        return os.fsdecode(done.stdout).strip()

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

    def stage_many(self, *names: str | bytes) -> None:
        """In the index alone, which is quick."""
        blob = self.git("hash-object", "-w", "README.md").encode()
        lines = b"".join(b"100644 %s\t%s\0" % (blob, os.fsencode(name)) for name in names)
        assert self.feed(lines, "update-index", "-z", "--index-info").returncode == 0

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def change_shell(self) -> None:
        """Have our hooks run by `shell` and, for busybox, with its tools before any other."""
        if self.shell is None:
            return
        program, *rest = SHELLS[self.shell]
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed here")
        for hook in (self.path / ".git" / "hooks").iterdir():
            text = hook.read_bytes()
            if text.startswith(b"#!/bin/sh\n# orchgit-hook"):
                hook.write_bytes(text.replace(b"#!/bin/sh", f"#!{' '.join([found, *rest])}".encode(), 1))
        tools = self.path.parent / "busybox tools"
        if program == "busybox" and not tools.exists():
            tools.mkdir()
            for tool in BUSYBOX_TOOLS:
                (tools / tool).symlink_to(found)
            self.env["PATH"] = f"{tools}:{self.env['PATH']}"


def make_repo(path: Path, *, shell: str | None = None, format: str = "sha1") -> Repo:
    path.mkdir(parents=True)
    repo = Repo(path, shell)
    repo.git("init", "-q", "-b", "main", f"--object-format={format}")
    for name in ("app/a.py", "app/b.py", "docs/x.md", "conftest.py", "README.md"):
        repo.write(name, f"{name}\n" * 5)
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "base")
    return repo


def make_cell(path: Path, *, shell: str | None = None, format: str = "sha1") -> Repo:
    """A private clone on the assignment's branch, with an out-of-scope commit on a ref to try things with."""
    repo = make_repo(path, shell=shell, format=format)
    repo.git("switch", "-q", "-c", BRANCH.removeprefix("refs/heads/"))
    base = repo.head()
    repo.write("docs/x.md", "changed\n")
    repo.git("commit", "-q", "-a", "-m", "outside")
    repo.git("tag", "outside")
    repo.git("reset", "-q", "--hard", base)
    githooks.install_cell(str(repo.path / ".git"), Rules(), base=base, branch=BRANCH)
    repo.change_shell()
    return repo


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


def details(found: list[githooks.HookStatus]) -> dict[str, str]:
    return {each.name: each.detail for each in found}


def every(state: str, **others: str) -> dict[str, str]:
    """All hooks in one state, but for those named (with _ for -)."""
    return dict.fromkeys(githooks.NAMES, state) | {name.replace("_", "-"): other for name, other in others.items()}


class Clone(Repo):
    """A user's clone (or one of its linked work trees), and the arguments that githooks wants for it."""

    @property
    def common(self) -> Path:
        return (self.path / self.git("rev-parse", "--git-common-dir")).resolve()

    @property
    def hooks(self) -> Path:
        return self.common / "hooks"

    @property
    def hooks_path(self) -> str | None:
        return os.fsdecode(self.run("config", "-z", "--type=path", "core.hooksPath").stdout.removesuffix(b"\0")) or None

    def install(self) -> list[githooks.HookStatus]:
        found = githooks.install(str(self.common), self.hooks_path, work_tree=str(self.path))
        self.change_shell()
        return found

    def uninstall(self) -> list[githooks.HookStatus]:
        return githooks.uninstall(str(self.common), self.hooks_path, work_tree=str(self.path))

    def status(self) -> list[githooks.HookStatus]:
        return githooks.status(str(self.common), self.hooks_path, work_tree=str(self.path))

    def set_hooks_path(self, value: str) -> None:
        self.git("config", "core.hooksPath", value)

    def round_trip(self) -> list[githooks.HookStatus]:
        """Install (twice), and leave installed; that uninstalling restores everything is checked on the way."""
        before = snapshot(self.path), snapshot(self.common)
        found = self.install()
        installed = snapshot(self.path), snapshot(self.common)
        assert self.install() == found == self.status()
        assert (snapshot(self.path), snapshot(self.common)) == installed
        self.uninstall()
        assert (snapshot(self.path), snapshot(self.common)) == before
        return self.install()

    def guarded(self) -> None:
        """The guard on refs is live."""
        text = self.refused("update-ref", "refs/heads/orchgit/r1/api", "HEAD")
        assert "git switch -c my-branch orchgit/r1/integration" in text
        self.git("update-ref", "refs/heads/free", "HEAD")


def make_clone(path: Path, *, shell: str | None = None, format: str = "sha1") -> Clone:
    repo = make_repo(path, shell=shell, format=format)
    shutil.rmtree(repo.path / ".git/hooks")
    (repo.path / ".git/hooks").mkdir()
    return Clone(repo.path, shell)


def track_a_log(repo: Repo, *options: str) -> None:
    repo.write(".orchestration/runs/r1/events.jsonl", "one\n")
    repo.git("add", "-f", ".orchestration")
    repo.git("commit", "-q", *options, "-m", "track a log")
    repo.write(".orchestration/runs/r1/events.jsonl", "two\n")
    repo.git("add", "-f", ".orchestration")
