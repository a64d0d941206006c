"""How this program talks to git: a clean-room environment, objects as values, refs by compare-and-swap.

Objects are read by one lasting `cat-file --batch` and written as loose files, without a process; everything else is
a git call. The engine's own git directory lies in the user's (`orchgit/engine.git`): it shares the object store by
GIT_OBJECT_DIRECTORY and nothing else, so that no configuration, hook, filter or replace ref of the user's repository,
or of an agent's, has a say in what the engine decides. Each git has a process group of its own: Ctrl-C is for the
engine, which stops when it has written down where it stands.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from orchgit.core.errors import Kind, OrchgitError

# Durable by default: git alone syncs neither loose objects nor refs, and a log must not outlive what it names.
SETTINGS = (
    "core.fsync=all", "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.attributesFile=/dev/null",
    "core.protectHFS=true", "core.protectNTFS=true", "gc.auto=0", "maintenance.auto=false",
    "advice.graftFileDeprecated=false", "core.logAllRefUpdates=true", "core.filesRefLockTimeout=1000",
)  # fmt: skip
IDENTITY = "orchgit <orchgit@localhost>"
NULL = {"sha1": "0" * 40, "sha256": "0" * 64}
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class GitError(Exception):
    """git said no; the message is its own words."""

    def __init__(self, message: str, code: int = 128) -> None:
        super().__init__(message)
        self.code = code


class Missing(Exception):
    """An object that is not in the repository."""


def clean_env() -> dict[str, str]:
    """The environment of every git of ours, built from nothing."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": "/dev/null",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def temporary_prefix(owner: str) -> str:
    """Of an object that is being written. git's own prefix, which gc knows, and whose it is."""
    return f"tmp_obj_orchgit-{owner}_"


def incoming_prefix(owner: str) -> str:
    """Of a quarantine below the engine's git directory."""
    return f"incoming-{owner}_"


def git_argv(*args: str) -> list[str]:
    return ["git", *(part for setting in SETTINGS for part in ("-c", setting)), *args]


class Objects(Protocol):
    """Where trees are read from and written to."""

    format: str

    def read(self, oid: str) -> tuple[bytes, bytes]: ...

    def write(self, kind: bytes, data: bytes) -> str: ...


class Scratch:
    """Objects over a repository's that are kept in memory: to find out what something would be."""

    def __init__(self, under: Objects) -> None:
        self.format = under.format
        self._under = under
        self._new: dict[str, tuple[bytes, bytes]] = {}

    def read(self, oid: str) -> tuple[bytes, bytes]:
        return self._new[oid] if oid in self._new else self._under.read(oid)

    def write(self, kind: bytes, data: bytes) -> str:
        oid = hashlib.new(self.format, kind + b" %d\0" % len(data) + data).hexdigest()
        self._new[oid] = (kind, data)
        return oid

    def keep(self, where: Objects) -> None:
        """Store them after all."""
        for kind, data in self._new.values():
            where.write(kind, data)


def object_stores(objects: Path) -> list[Path]:
    """This object directory, and all that it borrows from by alternates, as git follows them."""
    found: list[Path] = []
    todo = [Path(os.path.realpath(objects))]
    while todo and len(found) < 16:
        store = todo.pop()
        if store in found or not store.is_dir():
            continue
        found.append(store)
        try:
            lines = (store / "info" / "alternates").read_text(errors="surrogateescape").splitlines()
        except OSError:
            continue
        todo += [Path(os.path.realpath(store / line)) for line in lines if line and line[0] not in '#"']
    return found


class Door:
    """Git for one repository, named by its common directory. Safe to use from several threads.

    `owner`: the run whose lock is held by who writes here; what a crash leaves half-made carries its name.
    """

    def __init__(self, common: Path, object_format: str = "sha1", owner: str = "") -> None:
        self.common = common
        self.owner = owner
        self.format = object_format
        self.objects = common / "objects"
        self.engine = common / "orchgit" / "engine.git"
        self.null = NULL[object_format]
        self._reader: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._made = False

    def _make(self) -> None:
        """The engine's own git directory: made once, a few files, no process."""
        if self._made:
            return
        (self.engine / "refs").mkdir(parents=True, exist_ok=True)
        (self.engine / "objects").mkdir(exist_ok=True)
        write_git_dir(self.engine, self.format, head="ref: refs/heads/none\n", bare=True)
        shallow = self.common / "shallow"
        if shallow.exists():
            settle(self.engine / "shallow", shallow.read_bytes())
        else:
            (self.engine / "shallow").unlink(missing_ok=True)  # the user has fetched the rest since
        self._made = True

    def env(self, *, refs: bool = False) -> dict[str, str]:
        """With `refs`, the user's git directory, for its refs alone; else the engine's own."""
        self._make()
        where = {"GIT_DIR": str(self.common)} if refs else {
            "GIT_DIR": str(self.engine), "GIT_OBJECT_DIRECTORY": str(self.objects),
        }  # fmt: skip
        return {**clean_env(), **where}

    def run(self, *args: str, stdin: bytes = b"", refs: bool = False, env: dict[str, str] | None = None) -> bytes:
        """One git call; its standard output. Raises GitError with what it said."""
        done = subprocess.run(
            git_argv(*args), input=stdin, capture_output=True, env={**self.env(refs=refs), **(env or {})}, check=False,
            cwd="/", process_group=0,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode("utf-8", "backslashreplace").strip()
            raise GitError(f"git {args[0]}: {said or f'exit code {done.returncode}'}", done.returncode)
        return done.stdout

    # -- objects

    def read(self, oid: str) -> tuple[bytes, bytes]:
        """(type, content) of an object, by its full id. Raises Missing, also for one that cannot be read."""
        if not _OID.fullmatch(oid):
            raise Missing(oid)  # anything else could be two questions, and the second answer somebody else's
        with self._lock:
            if self._reader is None or self._reader.poll() is not None:
                self._reader = subprocess.Popen(
                    git_argv("cat-file", "--batch"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, env=self.env(), cwd="/", process_group=0,
                )  # fmt: skip
            assert self._reader.stdin is not None
            assert self._reader.stdout is not None
            try:
                self._reader.stdin.write(oid.encode() + b"\n")
                self._reader.stdin.flush()
                header = self._reader.stdout.readline().split()
                if len(header) == 2 and header[1] in (b"missing", b"ambiguous"):
                    raise Missing(oid)
                data = self._reader.stdout.read(int(header[2]) + 1) if len(header) == 3 else b""
            except BrokenPipeError:
                header, data = [], b""
            if len(header) != 3 or len(data) != int(header[2]) + 1:
                # It died in the middle: that is what git does when it meets a damaged object.
                self._stop_reader()
                raise Missing(oid)
            return header[1], data[:-1]

    def _stop_reader(self) -> None:
        if self._reader is None:
            return
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.kill()
        with contextlib.suppress(BrokenPipeError):
            self._reader.stdin.close()
        self._reader.stdout.close()
        self._reader.wait()
        self._reader = None

    def write(self, kind: bytes, data: bytes) -> str:
        """Store an object, synced; its id. Writing one that is there already is harmless."""
        raw = kind + b" %d\0" % len(data) + data
        oid = hashlib.new(self.format, raw).hexdigest()
        folder = self.objects / oid[:2]
        path = folder / oid[2:]
        if path.exists():
            return oid
        folder.mkdir(exist_ok=True)
        temporary = folder / f"{temporary_prefix(self.owner)}{secrets.token_hex(6)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            view = memoryview(zlib.compress(raw, 1))
            while view:  # a disk that fills up takes a part and says so only the next time
                view = view[os.write(fd, view) :]
            os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return oid

    def write_commit(self, tree: str, parents: Sequence[str], message: str, when: str, author: str = IDENTITY) -> str:
        """A commit whose id follows from its arguments alone. `when`: "<seconds> +0000"."""
        lines = [f"tree {tree}", *(f"parent {p}" for p in parents), f"author {author} {when}"]
        lines += [f"committer {IDENTITY} {when}", "", message.rstrip("\n") + "\n"]
        return self.write(b"commit", "\n".join(lines).encode())

    def commit(self, oid: str) -> tuple[str, tuple[str, ...], str]:
        """(tree, parents, message). Raises Missing, also for an object of another type."""
        kind, data = self.read(oid)
        if kind != b"commit":
            raise Missing(oid)
        head, _, message = data.partition(b"\n\n")
        tree, parents = "", []
        for line in head.split(b"\n"):
            key, _, value = line.partition(b" ")
            if key == b"tree":
                tree = value.decode()
            elif key == b"parent":
                parents.append(value.decode())
        return tree, tuple(parents), message.decode("utf-8", "replace")

    def tree_of(self, commit: str) -> str:
        return self.commit(commit)[0]

    # -- refs

    def ref(self, name: str) -> str | None:
        """The id a ref holds, by its full name; None when there is no such ref."""
        # Not rev-parse, which goes on to refs/heads/refs/heads/… where there is no such ref.
        listed = self.run("for-each-ref", "--format=%(refname) %(objectname)", "--", name, refs=True).decode()
        found = dict(line.rsplit(" ", 1) for line in listed.splitlines())
        return found.get(name)

    def swap(self, changes: Sequence[tuple[str, str, str | None]], reason: str) -> None:
        """Move refs from old to new, all or none. (name, new, old): old "" means it must not exist, None means
        whatever it is. Raises GitError when one of them is not where it was."""
        parts = ["start"]
        for name, new, old in changes:
            tail = "" if old is None else f"\0{old or self.null}"
            parts.append(f"update {name}\0{new}{tail}" + ("\0" if old is None else ""))
        parts += ["prepare", "commit"]
        self.run("update-ref", "-m", reason, "-z", "--stdin", stdin="\0".join(parts).encode() + b"\0", refs=True)

    def barrier(self, *more: Path) -> None:
        """Everything written so far is on the disk when this returns, also on the file systems of `more`. Needed before
        the log names it: git syncs files, not the directories they are named in; and nobody syncs a cell."""
        places = {place.stat().st_dev: place for place in (*more, self.common) if place.exists()}
        for place in places.values():
            sync(place)

    def close(self) -> None:
        with self._lock:
            self._stop_reader()


def write_git_dir(
    path: Path, object_format: str, *, head: str, bare: bool, worktree: str = "", extra: str = ""
) -> None:
    """HEAD and config of a git directory of ours. The folder must exist."""
    version = "1" if object_format == "sha256" else "0"
    config = f"[core]\n\trepositoryformatversion = {version}\n\tbare = {'true' if bare else 'false'}\n"
    if worktree:
        config += f"\tworktree = {quoted(worktree)}\n"
    config += "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
    if object_format == "sha256":
        config += "[extensions]\n\tobjectformat = sha256\n"
    settle(path / "config", (config + extra).encode())
    settle(path / "HEAD", head.encode())


def settle(path: Path, content: bytes) -> None:
    """Make the file hold this. Replaced whole, and only where it differs: the git of another run may be reading it."""
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    temporary = path.with_name(f".{path.name}.{os.getpid()}_{secrets.token_hex(4)}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def quoted(value: str) -> str:
    """A value for a git config file."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def sync(path: Path) -> None:
    """syncfs(2) where there is one; else everything."""
    if not sys.platform.startswith("linux"):
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OrchgitError(Kind.FAULT, "the disk refused a sync", os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)
