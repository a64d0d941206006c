"""The three common managers of git hooks, as their users install and run them: from npm and PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.hooks.support import Clone

UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "NewConnectionError")
LEFTHOOK = """\
{name}:
  commands:
    theirs:
      run: echo "lefthook {name}" >>"{log}"
"""
PRE_COMMIT = """\
repos:
- repo: local
  hooks:
  - id: theirs
    name: theirs
    language: system
    entry: sh -c 'echo "pre-commit $PRE_COMMIT_REMOTE_BRANCH" >>"$HOOK_LOG"'
    always_run: true
    pass_filenames: false
    stages: [pre-commit, pre-push, commit-msg]
"""


class Unavailable(Exception):
    """They cannot be installed here, for a reason that is not a failure."""


def install_managers(place: Path) -> None:
    """Their programs into `place`/bin. Raises Unavailable where npm is missing or a registry cannot be reached."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise Unavailable("node and npm are not installed here, and husky and lefthook come by them")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "package.json").write_text('{"private": true}')
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    _install([npm, "install", *quiet, "husky@9", "lefthook@2"], place)
    framework = Path(sys.executable).with_name("pre-commit")
    if not framework.exists():
        _install([sys.executable, "-m", "venv", "venv"], place)
        _install(["venv/bin/python", "-m", "pip", "install", "-q", "pre-commit>=3.7"], place)
        framework = place / "venv/bin/pre-commit"
    (lefthook,) = place.glob("node_modules/lefthook-*/bin/lefthook")  # what its launcher, a node program, starts
    husky = place / "node_modules/husky/bin.js"
    husky.chmod(0o755)
    (place / "new bin").mkdir()
    programs = {"husky": husky, "lefthook": lefthook, "pre-commit": framework, "node": Path(node), "npm": Path(npm)}
    for name, program in programs.items():
        (place / "new bin" / name).symlink_to(program)
    (place / "new bin").rename(place / "bin")  # all of it is there, or nothing


def _install(argv: list[str], where: Path) -> None:
    done = subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        if done.returncode and any(word in line for word in UNREACHABLE):
            raise Unavailable(f"a package registry cannot be reached: {line.strip()[:200]}")
    assert done.returncode == 0, (argv, done.stdout, done.stderr)


class Managed(Clone):
    """A clone in which one of them keeps the hooks `pre-commit`, `commit-msg` and `pre-push`."""

    def __init__(self, path: Path, programs: Path, manager: str, log: Path) -> None:
        super().__init__(path)
        self.manager, self.log = manager, log
        self.env |= {"PATH": f"{programs}:{self.env['PATH']}", "HOOK_LOG": str(log), "CI": "1", "NO_COLOR": "1"}
        names = ("pre-commit", "commit-msg", "pre-push")
        if manager == "husky":
            self.write("package.json", '{"private": true, "scripts": {"prepare": "husky"}}')
            for name in names:
                self.write(f".husky/{name}", f'echo "husky {name}" >>"{log}"\n')
        elif manager == "lefthook":
            self.write("lefthook.yml", "".join(LEFTHOOK.format(name=name, log=log) for name in names))
        else:
            self.write(".pre-commit-config.yaml", PRE_COMMIT)
        self.git("add", "-A")
        self.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", f"use {manager}")

    def tool(self, *argv: str) -> None:
        done = subprocess.run(argv, cwd=self.path, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)

    def put(self) -> None:
        """What their users type, or `npm install` does for them."""
        every = ("-t", "pre-commit", "-t", "commit-msg", "-t", "pre-push")
        self.tool(
            *{"husky": ("husky",), "lefthook": ("lefthook", "install")}.get(
                self.manager, ("pre-commit", "install", *every)
            )
        )

    def take_out(self) -> None:
        if self.manager == "husky":  # it has no command for that; this is what its manual says
            self.git("config", "--unset", "core.hooksPath")
            shutil.rmtree(self.path / ".husky/_")
        elif self.manager == "lefthook":
            self.tool("lefthook", "uninstall")
        else:
            self.tool("pre-commit", "uninstall", "-t", "pre-commit", "-t", "commit-msg", "-t", "pre-push")

    def theirs_ran(self) -> int:
        """How often theirs have run since the last call."""
        count = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        self.log.unlink(missing_ok=True)
        return count

    def commit(self) -> None:
        """A commit of one new file, and all of theirs run."""
        self.theirs_ran()
        name = f"new{os.urandom(4).hex()}"
        self.write(name)
        self.git("add", name)
        self.git("commit", "-q", "-m", "mine")
        assert self.theirs_ran() == 2
