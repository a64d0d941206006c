"""The scope watchdog: tells, within milliseconds, that a file outside the scope was touched in a cell.

It is feedback for a worker and a line for the log. It is never evidence that nothing happened: events are
lost when the kernel's queue overflows (88 % of a burst of 100,000 creates), a write by mmap shows only when
the file is closed, a write through a link from elsewhere never, and what happened just before stop(), without
settle(), may not have come yet. `incomplete` says when losses are known; the audit of the tree decides.

How to read it: a Watchdog owns the one Observer and its threads; a Watch is one working tree, turns the
library's events into Sightings, and tells each path once. Callbacks run on the library's thread, one after
the other: they must be quick (put it in a queue) and must not raise; one that does ends all watching, and
every watch then says so. Symlinks are not followed.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers.api import BaseObserver, ObservedWatch

SightingKind = Literal["created", "modified", "deleted", "moved", "attributes"]

SETTLE_S = 2.0
MAX_SIGHTINGS = 200  # of one watch: a worker that floods its cell must not flood the log

# Without a filter watchdog also hears opens and reads, its own walks of the tree included, and drowns in
# them. FileAttribEvent is not in every version.
_TREE = (
    *("FileCreatedEvent", "FileModifiedEvent", "FileClosedEvent", "FileDeletedEvent", "FileMovedEvent"),
    *("FileAttribEvent", "DirCreatedEvent", "DirDeletedEvent", "DirMovedEvent"),
)
_ARRIVALS = ("FileCreatedEvent", "FileClosedEvent", "FileMovedEvent")

_KINDS: dict[str, SightingKind] = {
    "created": "created",
    "modified": "modified",
    "closed": "modified",
    "deleted": "deleted",
    "attrib": "attributes",
}


@dataclass(frozen=True)
class Sighting:
    """A path outside the scope that was touched: relative to the root, as bytes."""

    path: bytes
    kind: SightingKind


class Stoppable(Protocol):
    """What notify() returns."""

    def stop(self) -> None:
        """End it; a second time does nothing."""


class Watchdog:
    """The one Observer that every watch of an engine shares: each would cost threads."""

    def __init__(self) -> None:
        from watchdog.observers import Observer

        # When it registers a directory twice, which a quick mkdir makes it do, watchdog warns with the repr
        # of every watch there is: hundreds of kilobytes on stderr.
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        self._observer: BaseObserver | None = None
        self._watches: list[Watch] = []
        self._overflow = _Overflow(self._lose)
        logging.getLogger("watchdog").addHandler(self._overflow)
        self._broken = ""
        try:
            self._observer = Observer()
            self._observer.start()
        except (OSError, RuntimeError) as error:  # no thread, no descriptor
            self._broken = _limit(error) or f"the watchdog did not start: {error}"

    def watch(
        self,
        root: str,
        allows: Callable[[bytes], bool],
        on_violation: Callable[[Sighting], None],
        *,
        ignore: Callable[[bytes], bool] | None = None,
        lowers: Sequence[str] = (),
    ) -> Watch:
        """A started Watch on `root`."""
        watch = Watch(root, allows, on_violation, ignore=ignore, lowers=lowers, owner=self)
        watch.start()
        return watch

    def notify(self, directory: str, callback: Callable[[bytes], None]) -> Stoppable:
        """Call back with the name of a file that arrived in `directory` (not below it), or was written to.

        Raises OSError when it cannot be watched. The name may come twice, before the file is complete, and
        after an overflow not at all: a reason to look now, beside looking from time to time.
        """
        return _Arrivals(self, os.path.realpath(directory), callback)

    def close(self) -> None:
        """Stop every watch and the threads."""
        for watch in list(self._watches):
            watch.stop()
        logging.getLogger("watchdog").removeHandler(self._overflow)
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            if threading.current_thread() is not self._observer:
                self._observer.join(timeout=5)

    # What Watch and _Arrivals use.

    def _add(self, handler: object, path: str, *, recursive: bool) -> ObservedWatch:
        from watchdog import events

        if self._broken or self._observer is None:
            raise OSError(self._broken)
        names = _TREE if recursive else _ARRIVALS
        wanted = [getattr(events, name) for name in names if hasattr(events, name)]
        # All that an observer asks of a handler is `dispatch`; a subclass would import watchdog at the top.
        handler = cast("FileSystemEventHandler", handler)
        return self._observer.schedule(handler, path, recursive=recursive, event_filter=wanted)

    def _remove(self, observed: ObservedWatch) -> None:
        if self._observer is not None and self._observer.is_alive():
            self._observer.unschedule(observed)

    def _room(self) -> bool:
        """Whether one more directory can be watched. When the limit is reached below a root, watchdog says
        nothing and goes on without; so ask for one more, which would fail."""
        try:
            with tempfile.TemporaryDirectory(prefix="orchgit-watch-") as directory:
                self._remove(self._add(_Nobody(), directory, recursive=False))
        except (OSError, RuntimeError):
            return False
        return True

    def _lose(self, why: str) -> None:
        for watch in list(self._watches):
            watch._lose(why)

    def _alive(self) -> bool:
        return self._observer is not None and self._observer.is_alive()


class Watch:
    """Tells `on_violation` of each path under `root` that was touched and that `allows` refuses, once each.

    `ignore` is asked first, for paths that are nobody's business (caches). `.git` at the root is skipped, and
    so are empty directories, which git does not track. `allows` and `ignore` get what `Sighting.path` has.

    Of an overlay, `root` is its upper directory and `lowers` what lies below it: there a file of the base that is
    written to appears as a new one (its copy), and is told as modified.
    """

    def __init__(
        self,
        root: str,
        allows: Callable[[bytes], bool],
        on_violation: Callable[[Sighting], None],
        *,
        ignore: Callable[[bytes], bool] | None = None,
        lowers: Sequence[str] = (),
        owner: Watchdog | None = None,
    ) -> None:
        self._root = os.path.realpath(root)
        self._prefix = os.fsencode(self._root) + b"/"
        self._allows = allows
        self._on_violation = on_violation
        self._ignore = ignore
        self._lowers = tuple(os.fsencode(lower) + b"/" for lower in lowers)
        self._owner = owner
        self._own: Watchdog | None = None  # ours alone, when nobody gave us one
        self._observed: ObservedWatch | None = None
        self._reasons: list[str] = []
        self._told: set[bytes] = set()
        self._new_dirs: set[bytes] = set()
        self._left_dirs: set[bytes] = set()
        self._since_ns = 0
        self._full = False  # has told all that it may tell
        self._fence: bytes | None = None
        self._fenced = threading.Event()
        self._stopped = False

    @property
    def incomplete(self) -> bool:
        """Whether events are known to be lost. False proves nothing."""
        if self._observed is not None and self._owner is not None and not self._owner._alive():
            self._lose("the watchdog's thread has ended")
        return bool(self._reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is incomplete."""
        return tuple(self._reasons)

    def start(self) -> None:
        """Watch from now on, once. What cannot be watched makes it incomplete; it does not raise."""
        if self._owner is None:
            self._owner = self._own = Watchdog()
        # For watchdog they would be one watch, and the first to stop would end both.
        if any(watch._root == self._root for watch in self._owner._watches):
            raise ValueError(f"{self._root} is already watched")
        self._since_ns = time.time_ns()
        self._owner._watches.append(self)
        try:
            self._observed = self._owner._add(self, self._root, recursive=True)
        except (OSError, RuntimeError) as error:
            self._lose(_limit(error) or f"cannot watch {self._root}: {error}")
            return
        self._check_room()

    def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Wait until all that happened so far has been told, or it is incomplete. Not from a callback, and only when
        nobody else writes to the root any more: a file of our own comes there, and goes."""
        if self._full or self.incomplete or self._observed is None:
            return
        self._fence = f".orchgit-fence-{secrets.token_hex(8)}".encode()
        path = self._prefix + self._fence
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.unlink(path)
        except OSError as error:
            self._lose(f"its last moments may be missing: {error}")
            return
        if not self._fenced.wait(timeout_s) and not self._full:
            self._lose("its last moments may be missing: the watchdog is behind")

    def stop(self) -> None:
        """Tell nothing more. A second time does nothing."""
        owner, observed = self._owner, self._observed
        if self._stopped or owner is None:
            return
        self._stopped = True
        if observed is not None and not self.incomplete:
            self._check_room()  # for the directories made since the start
        self._observed = None
        if observed is not None:
            owner._remove(observed)
        owner._watches.remove(self)
        if self._own is not None:
            self._own.close()

    def dispatch(self, event: FileSystemEvent) -> None:
        """For watchdog's thread only."""
        if self._stopped or self._full:  # with events still in the queue
            return
        finished = False
        try:
            self._see(event)
            finished = True
        finally:
            if not finished and self._owner is not None:
                self._owner._lose("a callback raised, and the watchdog's thread ended")

    def _see(self, event: FileSystemEvent) -> None:
        source = self._relative(event.src_path)
        if source is not None and source == self._fence:
            self._fenced.set()
            return
        target = self._relative(event.dest_path)
        if event.event_type == "moved":
            # Of a directory that moved, watchdog tells each file too.
            if source is not None:
                self._left_dirs.add(os.path.dirname(source))
            if event.is_directory:
                self._new_dirs.update(path for path in (target,) if path is not None)
                return
            for path in (source, target):
                if path is not None:
                    self._tell(path, "moved")
            return
        kind = _KINDS.get(event.event_type)
        if source is None or kind is None:
            return
        if event.is_directory:
            self._see_directory(source, kind)
            return
        if kind == "deleted":
            self._left_dirs.add(os.path.dirname(source))
        if event.event_type == "closed" and not self._written(source):
            return
        if kind == "created" and self._is_whiteout(source):
            kind = "deleted"
        elif kind == "created" and any(os.path.lexists(lower + source) for lower in self._lowers):
            kind = "modified"
        self._tell(source, kind)

    def _see_directory(self, path: bytes, kind: SightingKind) -> None:
        if kind == "created":
            self._new_dirs.add(path)
        elif kind == "deleted":
            # Moved out of the root with all that is in it, or removed when empty: one and the same event. But
            # git checks out no empty directory, so one that was here, and that nothing left, was full.
            # One below a new one is new itself, though it may have gone too soon for its creation to be seen.
            parts = path.split(b"/")
            new = any(b"/".join(parts[:depth]) in self._new_dirs for depth in range(1, len(parts) + 1))
            empty = new or path in self._left_dirs
            self._left_dirs.add(os.path.dirname(path))
            if not empty and not self._allows(path + b"/0"):
                self._tell(path, "deleted")

    def _tell(self, path: bytes, kind: SightingKind) -> None:
        if path == b".git" or path.startswith(b".git/") or path in self._told:
            return
        if (self._ignore is not None and self._ignore(path)) or self._allows(path):
            return
        if len(self._told) >= MAX_SIGHTINGS:
            self._full = True
            self._lose(f"more than {MAX_SIGHTINGS} paths outside the scope were touched")
            observed, self._observed = self._observed, None
            if observed is not None and self._owner is not None:
                self._owner._remove(observed)  # what comes now costs nothing
            return
        self._told.add(path)
        self._on_violation(Sighting(path, kind))

    def _relative(self, path: bytes | str) -> bytes | None:
        raw = os.fsencode(path)
        return raw[len(self._prefix) :] if raw.startswith(self._prefix) else None

    def _written(self, path: bytes) -> bool:
        """Whether a file that was closed may have been written to, and not only opened for it. A write by
        mmap shows here alone."""
        try:
            changed_ns = os.lstat(self._prefix + path).st_mtime_ns
        except OSError:
            return True
        return changed_ns > self._since_ns - 1_000_000_000  # file times come from a coarser clock

    def _is_whiteout(self, path: bytes) -> bool:
        """In the upper directory of an overlay, a deleted file is a character device 0:0."""
        try:
            found = os.lstat(self._prefix + path)
        except OSError:
            return False
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def _check_room(self) -> None:
        if self._owner is not None and not self._owner._room():
            self._lose(_limit(OSError(errno.ENOSPC, "")))

    def _lose(self, why: str) -> None:
        if why not in self._reasons:
            self._reasons.append(why)


def _limit(error: Exception) -> str:
    """What to raise, when it is one of inotify's limits; else ""."""
    number = error.errno if isinstance(error, OSError) else None
    name = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}.get(number or 0)
    if name is None:
        return ""
    try:
        with open(f"/proc/sys/fs/inotify/{name}") as file:
            now = int(file.read())
    except (OSError, ValueError):
        now = 0
    what = "the watchdog cannot watch more directories" if number == errno.ENOSPC else "the watchdog cannot start"
    return f"{what} (the gate does not depend on it): sysctl fs.inotify.{name}={max(2 * now, 1024)}, now {now}"


class _Arrivals:
    """New files in one directory."""

    def __init__(self, owner: Watchdog, directory: str, callback: Callable[[bytes], None]) -> None:
        self._owner = owner
        self._directory = os.fsencode(directory)
        self._callback = callback
        self._observed: ObservedWatch | None = owner._add(self, directory, recursive=False)

    def dispatch(self, event: FileSystemEvent) -> None:
        path = os.fsencode(event.dest_path if event.event_type == "moved" else event.src_path)
        if os.path.dirname(path) == self._directory:
            self._callback(os.path.basename(path))

    def stop(self) -> None:
        observed, self._observed = self._observed, None
        if observed is not None:
            self._owner._remove(observed)


class _Nobody:
    def dispatch(self, event: FileSystemEvent) -> None:
        pass


class _Overflow(logging.Handler):
    """watchdog tells no handler that the kernel dropped events; it only logs it."""

    def __init__(self, lose: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._lose_events = lose

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "overflow" in message or "Unable to rebuild" in message:
            self._lose_events(message[:200])
