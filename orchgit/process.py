"""A supervised child: own session, deadline, output cap, TERM then KILL, always reaped.

One thread per child reads both pipes and waits for the end, so a chatty child never blocks on us and memory
stays bounded; everything else here waits on one condition. It decides nothing about environment or sandbox,
inherits nothing into a child but its three pipes, and must never signal a process id after it was reaped.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

LINE_CAP = 16 << 20  # bytes: the longest line, and what is buffered before we stop reading
OUTPUT_CAP = 1 << 20  # bytes of each stream in an Ended, unless finish() says otherwise
_PIPE_MAX = 1 << 20  # bytes: /proc/sys/fs/pipe-max-size; what a dead child can have left in a pipe
_LINGER_S = 0.2  # for those who hold the pipes of a dead child
_SWEEP_S = 10.0  # for a child that ends its own descendants: a fork bomb takes some killing
_UNKILLABLE_S = 10.0  # a process in uninterruptible sleep survives SIGKILL for a while


@dataclass(frozen=True)
class Ended:
    """How a child ended. `returncode` is negative for a signal; `truncated`: some output was beyond the cap."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    truncated: bool
    duration_ms: int


class Child(Protocol):
    """A running child. Every path out of it reaps it and everything it started."""

    pid: int

    def send(self, data: bytes) -> None:
        """Write to its standard input; BrokenPipeError when it is gone."""

    def end_input(self) -> None:
        """Close its standard input; what it prints can still be read by line."""

    def readline(self, timeout_s: float) -> bytes:
        """One line with its newline; b"" at end of file; TimeoutError. A line beyond 16 MiB is an OSError."""

    def finish(self, stdin: bytes = b"", *, deadline_s: float, output_cap: int = 1 << 20) -> Ended:
        """Feed `stdin`, close it, collect the output, wait; at the deadline stop it."""

    def stop(self, grace_s: float = 2.0) -> Ended:
        """TERM to everything it started, KILL after the grace; returns what it left in the pipes."""

    def pause(self) -> None:
        """Stop (SIGSTOP) it and everything it started, until `resume`. `stop` and a deadline end it all the same."""

    def resume(self) -> None:
        """Let it go on."""


class Launch(Protocol):
    """Starts a program in an environment and a sandbox that somebody else has already decided on."""

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        """`env` is added to the cell's own environment; `cwd` defaults to the cell's working tree."""


def start(argv: Sequence[str], *, cwd: str, env: Mapping[str, str], sweeps: bool = False) -> Child:
    """Start `argv` in `cwd`, leader of its own session. `env` is complete: nothing is inherited.

    `sweeps`: the program (the sandbox's keeper) ends its descendants at SIGTERM, at once at a second one, and
    then itself; so it gets that instead of SIGKILL. It stops them at SIGUSR1 and lets them go on at SIGUSR2; it is
    started with these two blocked, and waits for them. Of any other, only the process group is ended or stopped.

    OSError when the program cannot be started. Call `finish` or `stop`; a child that is merely forgotten is
    still read and reaped when it ends, but nothing stops it.
    """
    job = _Job(list(argv), cwd, dict(env), sweeps)
    _spawner().put(job)
    try:
        job.done.wait()
    except BaseException:  # Ctrl-C between the request and the fork: do not leave a child nobody knows of
        job.done.wait()
        if job.child is not None:
            job.child.stop(0)
        raise
    if job.child is None:
        raise job.error or RuntimeError(f"the spawner ended while starting {argv[0]!r}")
    return job.child


_PAUSES = (signal.SIGUSR1, signal.SIGUSR2)


def identity(pid: int) -> str:
    """What tells a process from another one that gets its number later; "" when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return "" if fields[0] in (b"Z", b"X") else f"{boot}/{int(fields[19])}"
    except (FileNotFoundError, ProcessLookupError):
        pass
    if sys.platform.startswith("linux"):
        return ""
    said = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, check=False).stdout
    return said.decode("ascii", "replace").strip().replace(" ", "_")


def members(leader: int) -> list[int]:
    """Living processes that descend from this one, or are of the session that it leads or led. Only where there is a
    /proc."""
    seen: dict[int, tuple[int, int]] = {}  # pid -> (parent, session)
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        with suppress(OSError, ValueError):
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent, _, session = file.read().rpartition(b")")[2].split()[:4]
            if state not in (b"Z", b"X"):
                seen[int(name)] = (int(parent), int(session))
    found = {pid for pid, (_, session) in seen.items() if session == leader and pid != leader}
    while more := {p for p, (up, _) in seen.items() if up in found | {leader} and p not in found and p != leader}:
        found |= more
    return sorted(found)


class _Job:
    def __init__(self, argv: list[str], cwd: str, env: dict[str, str], sweeps: bool) -> None:
        self.argv, self.cwd, self.env, self.sweeps = argv, cwd, env, sweeps
        self.child: _Running | None = None
        self.error: OSError | ValueError | TypeError | subprocess.SubprocessError | None = None
        self.done = threading.Event()


_Jobs = queue.SimpleQueue[_Job]
_spawner_lock = threading.Lock()
_spawner_now: tuple[int, threading.Thread, _Jobs] | None = None


def _spawner() -> _Jobs:
    """The queue of the one thread that forks.

    PR_SET_PDEATHSIG, which the sandbox's keeper relies on, fires when the *thread* that forked ends, not the
    process: a child started from a pool's worker thread would be killed as soon as the pool shrinks.
    """
    global _spawner_now
    with _spawner_lock:
        if _spawner_now is None or _spawner_now[0] != os.getpid() or not _spawner_now[1].is_alive():
            jobs: _Jobs = queue.SimpleQueue()
            thread = threading.Thread(target=_spawn_forever, args=(jobs,), name="orchgit-spawner", daemon=True)
            thread.start()
            _spawner_now = (os.getpid(), thread, jobs)
        return _spawner_now[2]


def _spawn_forever(jobs: _Jobs) -> None:
    while True:
        job = jobs.get()
        try:
            pipe = subprocess.PIPE
            # Inherited, so that a pause in the instant before it waits for them does not kill it.
            signal.pthread_sigmask(signal.SIG_SETMASK, _PAUSES if job.sweeps else ())
            popen = subprocess.Popen(  # close_fds is the default, and no preexec_fn: threads and fork do not mix
                job.argv,
                cwd=job.cwd,
                env=job.env,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                bufsize=0,
                start_new_session=True,
            )
            job.child = _Running(popen, job.sweeps)
        except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
            job.error = error
        finally:
            job.done.set()
        del job  # or it, its child and the child's output live until the next start


class _Running:
    """The Child. Every field is guarded by `_cond`, except that only `_pump` reads the pipes."""

    def __init__(self, popen: subprocess.Popen[bytes], sweeps: bool) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        self.pid = popen.pid
        self._popen = popen
        self._sweeps = sweeps
        self._started = time.monotonic()
        self._duration_ms = 0
        self._cond = threading.Condition()
        self._stdin_lock = threading.Lock()
        self._stdin, self._stdout, self._stderr = popen.stdin, popen.stdout, popen.stderr
        self._buffers = {self._stdout.fileno(): bytearray(), self._stderr.fileno(): bytearray()}
        self._out, self._err = self._buffers.values()
        self._scanned = 0  # bytes of _out known to hold no newline
        self._eof = False  # of stdout
        self._cap: int | None = None  # set by finish and stop: from then on drop what is beyond, never wait
        self._dropped = False
        self._exited = False  # a zombie, or reaped
        self._code: int | None = None  # reaped, and the pump has ended
        self._stopping = False
        self._timed_out = False
        self._wake_r, self._wake_w = os.pipe()
        for fd in (self._stdin.fileno(), *self._buffers, self._wake_r, self._wake_w):
            os.set_blocking(fd, False)
        self._pidfd = -1  # Linux 5.3; without it the pump looks every 20 ms, and the kill of the rest of the
        with suppress(OSError, AttributeError):  # group comes after the reaping: a smaller promise, on macOS
            self._pidfd = os.pidfd_open(self.pid)
        threading.Thread(target=self._pump, name=f"orchgit-child-{self.pid}", daemon=True).start()

    def send(self, data: bytes) -> None:
        self._feed(data, until=None)

    def end_input(self) -> None:
        self._close_stdin()

    def readline(self, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        with self._cond:
            while not self._stopping:
                end = self._out.find(b"\n", self._scanned)
                if end >= LINE_CAP or (end < 0 and len(self._out) > LINE_CAP):
                    raise OSError(errno.EMSGSIZE, f"a line of more than {LINE_CAP} bytes from child {self.pid}")
                if end >= 0 or self._eof:
                    size = end + 1 if end >= 0 else len(self._out)
                    line = bytes(self._out[:size])
                    if len(self._out) > LINE_CAP:
                        self._poke()  # the pump waits for room
                    del self._out[:size]
                    self._scanned = 0
                    return line
                self._scanned = len(self._out)
                if not self._cond.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    raise TimeoutError(f"no line from child {self.pid} within {timeout_s} s")
            return b""

    def finish(self, stdin: bytes = b"", *, deadline_s: float, output_cap: int = OUTPUT_CAP) -> Ended:
        until = time.monotonic() + deadline_s
        self._keep(output_cap)
        with suppress(BrokenPipeError):  # it may well not want its input; how it ends says the rest
            self._feed(stdin, until=until)
        self._close_stdin()
        if not self._wait(until - time.monotonic()):
            with self._cond:
                self._timed_out = not self._stopping
            self._end(2.0)
        return self._ended(output_cap)

    def stop(self, grace_s: float = 2.0) -> Ended:
        with self._cond:
            cap = OUTPUT_CAP if self._cap is None else self._cap
        self._keep(cap)
        self._end(grace_s)
        return self._ended(cap)

    def pause(self) -> None:
        self._signal(signal.SIGUSR1 if self._sweeps else signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGUSR2 if self._sweeps else signal.SIGCONT)

    def _keep(self, cap: int) -> None:
        with self._cond:
            self._cap = cap
            self._poke()

    def _ended(self, cap: int) -> Ended:
        with self._cond:
            if self._code is None:
                raise TimeoutError(f"child {self.pid} does not end, even after SIGKILL (uninterruptible sleep?)")
            truncated = self._dropped or len(self._out) > cap or len(self._err) > cap
            out, err = bytes(self._out[:cap]), bytes(self._err[:cap])
            return Ended(self._code, out, err, self._timed_out, truncated, self._duration_ms)

    def _wait(self, timeout_s: float) -> bool:
        with self._cond:
            return self._cond.wait_for(lambda: self._code is not None, max(0.0, timeout_s))

    def _end(self, grace_s: float) -> None:
        with self._cond:
            self._stopping = True
            self._cond.notify_all()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # somebody may have paused it
        if self._wait(grace_s):
            return
        if self._sweeps:
            # Killed now, it could end nobody, and daemons with a session of their own would stay. Looking for
            # them from here is a race that was lost once in 400. Repeated, because pending signals coalesce.
            until = time.monotonic() + _SWEEP_S
            while time.monotonic() < until:
                self._signal(signal.SIGTERM)
                if self._wait(0.02):
                    return
        self._signal(signal.SIGKILL)
        self._wait(_UNKILLABLE_S)

    def _signal(self, number: int) -> None:
        """To the group, only while its leader is not reaped: after that the id may be somebody else's."""
        with self._cond:
            if self._code is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def _feed(self, data: bytes, until: float | None) -> None:
        rest = memoryview(data)
        with self._stdin_lock:
            while rest and (until is None or time.monotonic() < until):
                with self._cond:
                    if self._stopping or self._exited or self._stdin.closed:
                        raise BrokenPipeError(errno.EPIPE, f"child {self.pid} is gone")
                poll = select.poll()
                poll.register(self._stdin, select.POLLOUT)
                if poll.poll(50):  # short, so that a stop() from another thread is seen
                    with suppress(BlockingIOError):
                        rest = rest[os.write(self._stdin.fileno(), rest) :]

    def _close_stdin(self) -> None:
        with self._stdin_lock, suppress(OSError):
            self._stdin.close()

    def _poke(self) -> None:
        if self._code is None:
            with suppress(BlockingIOError):
                os.write(self._wake_w, b"!")

    def _pump(self) -> None:
        """Read until the child has ended and its pipes are empty; kill the rest of its group, and reap it."""
        open_fds = set(self._buffers)
        late = 0  # bytes read after its end
        while True:
            with self._cond:
                full = self._cap is None and not self._exited and len(self._out) > LINE_CAP
            poll = select.poll()
            poll.register(self._wake_r, select.POLLIN)
            for fd in open_fds:
                if not (full and fd == self._stdout.fileno()):
                    poll.register(fd, select.POLLIN)
            if self._pidfd >= 0 and not self._exited:
                poll.register(self._pidfd, select.POLLIN)
            timeout_ms = int(_LINGER_S * 1000) if self._exited else None if self._pidfd >= 0 else 20
            ready = [fd for fd, _ in poll.poll(timeout_ms)]
            if self._wake_r in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            got = 0
            for fd in open_fds.intersection(ready):
                with suppress(BlockingIOError):
                    chunk = os.read(fd, 1 << 16)
                    got += len(chunk)
                    self._store(fd, chunk)
                    if not chunk:
                        open_fds.discard(fd)
            if self._exited:
                late += got
                # What the dead wrote is in the pipe, so readable at once: silence means that only strangers
                # hold it. More than a pipe holds means that one of them goes on writing.
                if not open_fds or not open_fds.intersection(ready) or late > 2 * _PIPE_MAX:
                    break
            elif self._pidfd in ready or (self._pidfd < 0 and self._popen.poll() is not None):
                self._signal(signal.SIGKILL)  # who is left of its group; the zombie keeps the id ours
                with self._cond:
                    self._exited = True
                if not open_fds:
                    break
        self._reap()

    def _store(self, fd: int, chunk: bytes) -> None:
        buffer = self._buffers[fd]
        with self._cond:
            cap = LINE_CAP + 2 * _PIPE_MAX if self._cap is None else self._cap
            room = max(0, cap - len(buffer))
            self._dropped = self._dropped or len(chunk) > room
            buffer += chunk[:room]
            if not chunk and fd == self._stdout.fileno():
                self._eof = True
            self._cond.notify_all()

    def _reap(self) -> None:
        self._close_stdin()
        with self._cond:
            if self._popen.returncode is None:
                try:
                    # Not Popen.wait: it reports 0 for a status that somebody else has collected.
                    self._popen.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                except ChildProcessError:
                    self._popen.returncode = 255
            self._duration_ms = int((time.monotonic() - self._started) * 1000)
            self._code, self._eof = self._popen.returncode, True
            self._stdout.close()
            self._stderr.close()
            for fd in (self._wake_r, self._wake_w, self._pidfd):
                if fd >= 0:
                    os.close(fd)
            self._cond.notify_all()
