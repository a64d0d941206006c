"""Runs one confined program in the foreground, with the standard streams of this process.

A stream that is a terminal is not handed over: whoever holds the user's terminal can type into it, change its settings,
read what is typed after the end. The program gets a pseudo-terminal of its own, and this process carries the bytes; the
window's size and every key go along, Ctrl-C with them. Any other stream is handed over as it is.

It must never leave the terminal in another state than it found it in, nor return before the program, which runs under
the sandbox's keeper, and all that it started are gone.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
AGAIN_S = 0.5  # between the signals that a keeper gets which was told to end at once


def run(argv: Sequence[str], *, cwd: str, env: Mapping[str, str]) -> int:
    """Its exit status; negative for a signal, 128 + n in the shell's words. `argv` is the keeper's.

    A signal that ends this process ends the program first, by SIGTERM, and at once when it comes again. Call it from
    the main thread: nobody else is told of signals, and the keeper ends with the thread that started it.
    """
    ours = [fd for fd in (0, 1, 2) if os.isatty(fd)]
    master, slave = os.openpty() if ours else (-1, -1)
    try:
        if ours:
            _dress(slave, ours[0], raw=0 in ours)
        streams = [slave if fd in ours else fd for fd in (0, 1, 2)]
        with _wakeups() as wake, _raw(0 in ours):
            child = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=streams[0], stdout=streams[1], stderr=streams[2], start_new_session=True
            )
            if ours:
                os.close(slave)
                slave = -1
            _carry(child, master, wake, ours)
            return child.wait()
    finally:
        for fd in (master, slave):
            if fd >= 0:
                os.close(fd)


def _dress(slave: int, like: int, *, raw: bool) -> None:
    """Settings and size of the user's terminal. Where that is not made raw, newlines are translated there."""
    settings = termios.tcgetattr(like)
    if not raw:
        settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    _resize(slave, like)


def _resize(to: int, like: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(to, termios.TIOCSWINSZ, fcntl.ioctl(like, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0)))


@contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Keys are the program's, Ctrl-C too: its own terminal makes a signal of it."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _wakeups() -> Iterator[int]:
    """A descriptor that gives the number of every signal that is to be dealt with."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (*ENDINGS, signal.SIGCHLD, signal.SIGWINCH)
    old = {number: signal.signal(number, lambda *_: None) for number in numbers}
    before = signal.set_wakeup_fd(write)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)


def _carry(child: subprocess.Popen[bytes], master: int, wake: int, ours: Sequence[int]) -> None:
    """Bytes and signals, until it has ended and its last words are out."""
    out = next((fd for fd in (1, 2) if fd in ours), -1)
    inputs = {wake, *([master] if ours else ()), *([0] if 0 in ours else ())}
    typed = b""
    ending = False
    while True:
        ended = child.poll() is not None
        ready, writable, _ = select.select(
            inputs, [master] if typed else [], [], 0 if ended else AGAIN_S if ending else None
        )
        if wake in ready:
            for number in os.read(wake, 4096):
                if number in ENDINGS:
                    ending = True
                    _send(child, signal.SIGTERM)
                elif number == signal.SIGWINCH and ours:
                    _resize(master, ours[0])
        elif ending and not ready:
            _send(child, signal.SIGTERM)
        if 0 in ready:
            keys = _read(0)
            typed += keys
            if not keys:  # the terminal is gone
                inputs.discard(0)
        if writable:
            typed = typed[os.write(master, typed) :]
        if master in ready:
            said = _read(master)
            if not said:  # nobody has the other side open any more
                inputs.discard(master)
            if out >= 0:
                _write(out, said)
        if ended and master not in ready:
            return


def _send(child: subprocess.Popen[bytes], number: int) -> None:
    if child.poll() is None:
        os.kill(child.pid, number)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # EIO: the other side of a terminal is closed
        return b""


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:  # whoever read it has gone
            return
