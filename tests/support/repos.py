"""Real repositories for tests: fixed names and dates, and nothing of this machine's configuration.

What git is asked here goes past `orchgit.git.door` on purpose: it is the oracle that the door is compared with.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchgit.agent_run import confined
from orchgit.git import cells, gate
from orchgit.git.door import Door
from orchgit.process import Ended
from orchgit.sandbox import Furnished, Level, Sandbox, best

WHEN = "1767225600 +0000"
ENV = {
    "PATH": os.environ["PATH"],
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (
        ("NAME", "Ann"), ("EMAIL", "ann@example.org"), ("DATE", WHEN),
    )},
}  # fmt: skip
FILE, EXECUTABLE, LINK, GITLINK = "100644", "100755", "120000", "160000"
Files = Mapping[bytes, tuple[str, bytes]]  # path -> (mode, content); a gitlink's content is its commit


def git(where: Path, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, check: bool = True) -> bytes:
    """Standard output of git in a directory. CalledProcessError unless told not to."""
    done = subprocess.run(
        ["git", *args], cwd=where, input=stdin, env={**ENV, **(env or {})}, capture_output=True, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def ask(where: Path, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    return git(where, *args, stdin=stdin, env=env).decode().strip()


@dataclass(frozen=True)
class Repo:
    root: Path
    format: str = "sha1"

    @property
    def common(self) -> Path:
        return self.root / ".git"

    def door(self) -> Door:
        return Door(self.common, self.format)

    def write(self, path: str, data: bytes = b"", *, executable: bool = False) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if executable:
            target.chmod(0o755)

    def commit(self, message: str = "a commit") -> str:
        """Of everything in the work tree; its id."""
        git(self.root, "add", "-A", "-f")
        git(self.root, "commit", "-q", "--allow-empty", "-m", message)
        return self.ask("rev-parse", "HEAD")

    def ask(self, *args: str, stdin: bytes = b"") -> str:
        return ask(self.root, *args, stdin=stdin)

    def tree(self, files: Files, base: str = "") -> str:
        """The tree that git itself makes of these files on top of another tree."""
        return _tree(self, tuple(files.items()), base)

    def blob(self, data: bytes) -> str:
        return _blob(self, data)

    def made(self, tree: str, *parents: str, message: str = "made") -> str:
        """A commit of a tree."""
        return self.ask("commit-tree", tree, *(part for p in parents for part in ("-p", p)), "-m", message)

    def raw_tree(self, *entries: tuple[str, bytes, str]) -> str:
        """A tree written by hand, with whatever git would refuse to write."""
        data = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        return self.ask("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data)

    def pack(self, *wanted: str, without: tuple[str, ...] = ()) -> bytes:
        asked = "".join(f"{oid}\n" for oid in (*wanted, *(f"^{oid}" for oid in without)))
        return git(self.root, "pack-objects", "--revs", "--stdout", "-q", stdin=asked.encode())


@cache
def _blob(repo: Repo, data: bytes) -> str:
    return repo.ask("hash-object", "-w", "--stdin", stdin=data)


@cache
def _tree(repo: Repo, files: tuple[tuple[bytes, tuple[str, bytes]], ...], base: str) -> str:
    index = {"GIT_INDEX_FILE": str(repo.common / "index-of-a-test")}
    git(repo.root, "read-tree", *([base] if base else ["--empty"]), env=index)
    lines = []
    for path, (mode, data) in files:
        oid = data.decode() if mode == GITLINK else repo.blob(data)
        lines.append(f"{mode} {oid}\t".encode() + path + b"\0")
    git(repo.root, "update-index", "-z", "--index-info", stdin=b"".join(lines), env=index)
    return ask(repo.root, "write-tree", env=index)


def repository(root: Path, files: Mapping[str, bytes] | None = None, *, format: str = "sha1") -> Repo:
    """A new one on branch main, with a commit of these files (of a README when there are none)."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", f"--object-format={format}")
    repo = Repo(root, format)
    for path, data in (files if files is not None else {"README": b"read me\n"}).items():
        repo.write(path, data)
    repo.commit("first")
    return repo


def snapshot(folder: Path, *skip: str) -> dict[str, tuple[int, str]]:
    """Every file below: mode, and a digest of its content (or where the link leads)."""
    found = {}
    for here, names, files in os.walk(folder):
        names[:] = [n for n in names if os.path.relpath(os.path.join(here, n), folder) not in skip]
        for name in (*names, *files):
            path = os.path.join(here, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                said = os.readlink(path)
            elif stat.S_ISREG(mode):
                said = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            else:
                said = ""
            found[os.path.relpath(path, folder)] = (mode, said)
    return found


# ---- cells


def sandbox() -> tuple[Sandbox, Level]:
    """The best there is, in which the repositories of a test stay readable: they lie below /tmp."""
    way, level = best(allow_unsandboxed=True)
    return Furnished(way, level, readable=(os.path.realpath(tempfile.gettempdir()),)), level


def work(cell: cells.Cell, script: str) -> Ended:
    """A worker: a shell script in the cell's own sandbox, the whole working tree open to it."""
    writable = (str(cell.work), str(cell.git), str(cell.home))
    launch = confined(sandbox()[0], cell, writable)
    return launch(["/bin/sh", "-c", script]).finish(deadline_s=60)


def worked(cell: cells.Cell, script: str) -> str:
    """The same, and it must succeed."""
    ended = work(cell, f"set -e\n{script}")
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode(errors="replace")


def harvested(cell: cells.Cell, start: str) -> Ended:
    """What the harvest prints, as the engine runs it."""
    cells.reopen(cell)
    launch = confined(sandbox()[0], cell, (str(cell.top),), mounted=False)
    return launch(cells.harvest_argv(cell, start)).finish(deadline_s=60, output_cap=gate.MAX_PACK)


def taken(door: Door, cell: cells.Cell, start: str) -> gate.Snapshot:
    ended = harvested(cell, start)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return gate.admit(door, ended.stdout, start, WHEN)


def files_of(repo: Repo, tree: str) -> dict[bytes, tuple[str, str]]:
    """path -> (mode, id), as git lists them."""
    found = {}
    for line in git(repo.root, "ls-tree", "-r", "-z", "--full-tree", tree).split(b"\0")[:-1]:
        head, _, path = line.partition(b"\t")
        mode, _, oid = head.decode().split(" ")
        found[path] = (mode, oid)
    return found


def net(repo: Repo, old: str, new: str) -> dict[str, str]:
    """path -> status letter of what differs, as git says."""
    said = git(repo.root, "diff-tree", "-r", "-z", "--no-renames", "--name-status", old, new).split(b"\0")[:-1]
    return {os.fsdecode(path): letter.decode() for letter, path in zip(said[::2], said[1::2], strict=True)}


def sound(repo: Repo) -> None:
    """git finds nothing wrong with any object."""
    assert git(repo.root, "fsck", "--full", "--strict", "--no-dangling", "--no-progress") == b""
