"""The JSONL file: one writer under a lock, one write per event, fsync, torn tail set aside; blobs; the inbox.

A run's directory is `<git common dir>/orchgit/runs/<run>/`:

    events.jsonl   the log
    lock           held (flock) by the one process that may write
    blobs/         bytes that are too long for a line, by SHA-256
    inbox/         one file per message from another process, until the writer has logged it
    torn/          what was cut off an unfinished last line, kept
    live/          transcripts of agents that are at work

An fsync error ends the process: after one, nobody can say what is on the disk. Secrets are replaced here, on their way
in: `Log.clean` for events, `put` for blobs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.redact import Redactor, known


def fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes) -> None:
    """All of it or nothing, and on the disk: temporary name, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, data)
        os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    fsync_dir(path.parent)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _lock(fd: int) -> None:
    """Take it, or raise BlockingIOError. Tried for a moment: `Store.holder` holds it while it looks."""
    for _ in range(10):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.02)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Holder:
    """The engine that holds a run. `pid` 0: it has not said who it is yet."""

    pid: int
    host: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"process {self.pid or '?'}"


class Store:
    """A run's directory, for reading. Any number of processes may; none of them needs the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = path / "events.jsonl"
        self._redactor: Redactor | None = None

    @property
    def redactor(self) -> Redactor:
        if self._redactor is None:
            self._redactor = Redactor(known(os.environ))
        return self._redactor

    @property
    def run(self) -> str:
        return self.path.name

    def raw(self) -> list[bytes]:
        """The whole lines, without their newlines. An unfinished last line is left out: it was never acknowledged."""
        try:
            data = self.events.read_bytes()
        except FileNotFoundError:
            raise OrchgitError(
                Kind.USAGE, f"run {self.run} has no log", str(self.events), "orchgit status lists the runs"
            ) from None
        return data.split(b"\n")[:-1]

    def read(self) -> list[e.Event]:
        """Every event, its hash checked. Raises OrchgitError for a line that is not one."""
        found = []
        for number, line in enumerate(self.raw()):
            try:
                found.append(e.parse(line))
            except e.LineError as error:
                raise OrchgitError(
                    Kind.NO, f"event {number} of run {self.run} cannot be read", str(error), f"orchgit audit {self.run}"
                ) from error
        return found

    def blob(self, digest: str) -> bytes:
        """Raises OrchgitError when it is not there or not what its name says."""
        path = self.path / "blobs" / digest
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise OrchgitError(
                Kind.UNSURE, f"blob {digest} is not here", "blobs stay on the machine of the run"
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise OrchgitError(Kind.NO, f"blob {digest} was changed", str(path))
        return data

    def has(self, digest: str) -> bool:
        return (self.path / "blobs" / digest).exists()

    def put(self, data: bytes) -> str:
        """Keep these bytes, without the secrets in them; returns the SHA-256 of what is kept. On the disk before this
        returns."""
        data = self.redactor.bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        path = self.path / "blobs" / digest
        if not path.exists():
            try:
                write_file(path, data)
            except OSError as error:
                raise OrchgitError(
                    Kind.FAULT, "a blob could not be written", str(error), f"make room, then: orchgit resume {self.run}"
                ) from error
        return digest

    def drop(self, digest: str) -> None:
        """What `redaction.recorded` says: the bytes go, the events that name them stay."""
        path = self.path / "blobs" / digest
        if path.exists():
            path.unlink()
            fsync_dir(path.parent)

    def holder(self) -> Holder | None:
        """The engine that holds the run; None when nobody does."""
        try:
            fd = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look must not see each other
        except BlockingIOError:
            pid, host, since = [*os.read(fd, 400).decode("utf-8", "replace").split(), "", "", ""][:3]
            return Holder(int(pid) if pid.isdigit() else 0, host, since)
        finally:
            os.close(fd)
        return None

    # -- inbox

    def submit(self, message: dict[str, Any]) -> str:
        """Leave a message for the writer; returns its id. On the disk before this returns."""
        name = f"{secrets.token_hex(8)}.json"
        write_file(self.path / "inbox" / name, json.dumps(message).encode())
        return name

    def inbox(self) -> list[Path]:
        """Messages, oldest first."""
        try:
            found = [
                p
                for p in (self.path / "inbox").iterdir()
                if p.suffix == ".json" and p.is_file() and not p.name.startswith(".")
            ]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name))


def runs_dir(common: Path) -> Path:
    return common / "orchgit" / "runs"


def all_runs(common: Path) -> list[Store]:
    """Runs of this repository, newest first."""
    try:
        found = [p for p in runs_dir(common).iterdir() if (p / "events.jsonl").exists()]
    except FileNotFoundError:
        return []
    return [Store(p) for p in sorted(found, key=lambda p: p.name, reverse=True)]


def find_run(common: Path, name: str | None) -> Store:
    """A run with a directory, by its name or the beginning of it; the newest when no name is given."""
    return pick(all_runs(common), name)


def pick(runs: list[Store], name: str | None) -> Store:
    """One of these, newest first. Raises OrchgitError when the name is nobody's, or several's."""
    if not runs:
        raise OrchgitError(Kind.USAGE, "there is no run in this repository", "", "orchgit start ISSUE.md")
    if not name:
        return runs[0]
    matching = [r for r in runs if r.run == name] or [r for r in runs if r.run.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    what = f"{name!r} names {len(matching)} runs" if matching else f"there is no run {name!r}"
    known = ", ".join(r.run for r in (matching or runs)[:5])
    raise OrchgitError(Kind.USAGE, what, f"runs here: {known}", "orchgit status")


def user_name() -> str:
    """Who is at the keyboard, for the log: a claim, like every actor's name."""
    return (os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid-{os.getuid()}")[:60]


class Log(Store):
    """The one writer of a run. Holds the lock for as long as it lives."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.torn = 0  # bytes set aside on opening
        for name in ("blobs", "inbox"):
            (path / name).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._lock)
        except BlockingIOError:
            os.close(self._lock)
            holder = self.holder() or Holder(0)
            raise OrchgitError(
                Kind.USAGE,
                f"run {path.name} is held by another process",
                f"{holder} is its engine" + (f", on {holder.host} since {holder.since}" if holder.host else ""),
                f"orchgit status {path.name}",
            ) from None
        since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()} {socket.gethostname()} {since}\n".encode(), 0)
        self._fd = -1  # a log begins with its first batch
        self._size = 0
        if self.events.exists():
            self._fd = self._open()
            self._mend()

    def _open(self) -> int:
        return os.open(self.events, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)

    def _mend(self) -> None:
        """Set an unfinished last line aside. Anything wrong before the last line is for audit, and is refused."""
        data = self.events.read_bytes()
        whole, newline, tail = data.rpartition(b"\n")
        keep = len(whole) + len(newline)
        if not tail and whole:
            # A whole line of zeros or of nonsense is what a crash of the machine can leave at the very end.
            start = whole.rfind(b"\n") + 1
            try:
                e.envelope(whole[start:])
            except e.UnknownType:
                pass
            except e.LineError:
                keep = start
        self._size = keep
        lost = data[keep:]
        if not lost:
            return
        self.torn = len(lost)
        (self.path / "torn").mkdir(exist_ok=True)
        write_file(self.path / "torn" / f"{keep}-{hashlib.sha256(lost).hexdigest()[:12]}", lost)
        os.ftruncate(self._fd, keep)
        self._sync()

    def clean(self, draft: e.Draft) -> e.Draft:
        """The draft as it may be logged: without secrets."""
        body = self.redactor.body(draft.body)
        if isinstance(body, e.PlanProposed) and body is not draft.body:
            body = replace(body, digest=e.plan_digest(body.plan))  # what is shown and approved is what is logged
        return replace(draft, body=body)

    def append(self, events: Sequence[e.Event]) -> None:
        """Write these lines and see them to the disk. They are acknowledged when this returns, not before.

        One write for each, one fsync for all: nothing is acted on before this returns, and a batch that was cut short
        is a log like any other, which `decide` completes.
        """
        if self._fd < 0:
            self._begin(b"".join(event.line for event in events))
            return
        if not self._untouched():
            raise OrchgitError(
                Kind.FAULT, f"the log of run {self.run} was changed by somebody else", str(self.events),
                f"orchgit audit {self.run}",
            )  # fmt: skip
        for event in events:
            try:
                written = os.write(self._fd, event.line)
            except OSError as error:
                self._undo(error)
            if written != len(event.line):
                self._undo(OSError("short write"))
            self._size += written
        self._sync()

    def _begin(self, lines: bytes) -> None:
        """The first batch, whole or not at all: half of what began a run would be a run that nobody asked for."""
        fsync_dir(self.path.parent)
        try:
            write_file(self.events, lines)
        except OSError as error:
            self._undo(error)
        self._fd = self._open()
        self._size = len(lines)

    def _untouched(self) -> bool:
        """Whether the log is still the file that was opened (an editor saves by renaming another one over it), and as
        long as we left it."""
        try:
            named = os.stat(self.events)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._fd)
        return os.path.samestat(named, ours) and ours.st_size == self._size

    def _undo(self, error: OSError) -> NoReturn:
        if self._fd >= 0:
            with suppress(OSError):  # what stays is a torn tail, and is set aside on opening
                os.ftruncate(self._fd, self._size)
        raise OrchgitError(
            Kind.FAULT, "the event log could not be written", str(error), f"make room, then: orchgit resume {self.run}"
        ) from error

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            os.write(2, f"orchgit: fsync of {self.events} failed ({error}); stopping at once\n".encode())
            os._exit(Kind.FAULT)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        os.close(self._lock)
