"""A clone of a repository at the GitHub of `github_server`, and the forge that orchgit has there.

with stage(tmp_path) as here:        # people: bot (we), lea (write), rea (read), acme (the owner)
    here.push("api", {"a.txt": "…"}, on="main")
    here.forge().note(…)
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from orchgit.forge import Forge, Key, connect
from tests.support.github_server import GitHub
from tests.support.repos import ENV, ask, git

RUN = "20260101-000000-aaaa"


def key(what: str) -> Key:
    return Key(RUN, what)


@dataclass
class Stage:
    github: GitHub
    root: Path
    told: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def env(self, login: str = "bot") -> dict[str, str]:
        return {**ENV, "ORCHGIT_GITHUB_TOKEN": self.github.hub.people[login].token}

    def forge(self, login: str = "bot", env: Mapping[str, str] | None = None, remote: str = "") -> Forge:
        """A new one each time, which knows nothing of what another one did."""
        return connect(
            "github", self.root, env or self.env(login), remote=remote, tell=self.told.append, stop=self.stop
        )

    def push(self, branch: str, files: Mapping[str, str], *, on: str = "") -> str:
        """A commit on top of `on` (or of the branch), at the forge; its id. Past http, which takes far longer."""
        git(self.root, "checkout", "-q", "-B", branch, *([on] if on else []))
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", f"work on {branch}")
        git(self.root, "push", "-q", str(self.github.bare), branch)
        self.github.hub.sync()
        return ask(self.root, "rev-parse", "HEAD")


@cache
def _first() -> Path:
    """A clone and its bare repository, with one commit: made once, copied for each stage."""
    where = Path(tempfile.mkdtemp(prefix="orchgit-stage-"))
    atexit.register(shutil.rmtree, where, ignore_errors=True)
    root, bare = where / "clone", where / "shop.git"
    root.mkdir()
    for place in ("--bare", str(bare)), (str(root),):
        git(where, "init", "-q", "-b", "main", "--template=", *place)
    (root / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 21)))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    git(root, "push", "-q", str(bare), "main")
    return where


@contextmanager
def stage(where: Path) -> Iterator[Stage]:
    root = where / "clone"
    shutil.copytree(_first() / "clone", root)
    shutil.copytree(_first() / "shop.git", where / "github" / "acme" / "shop.git")
    with GitHub(where / "github") as github:
        for login, permission in (("acme", "admin"), ("bot", "write"), ("lea", "write"), ("rea", "read")):
            github.person(login, permission)
        with (root / ".git" / "config").open("a") as config:
            config.write(f'[remote "origin"]\n\turl = {github.clone_url}\n')
            config.write("\tfetch = +refs/heads/*:refs/remotes/origin/*\n")
        yield Stage(github, root)
        assert github.problems == []


def leak(where: Path, secret: str) -> list[str]:
    """The files below that hold a secret."""
    found = []
    for folder, _, names in os.walk(where):
        found += [os.path.join(folder, n) for n in names if secret.encode() in (Path(folder) / n).read_bytes()]
    return found
