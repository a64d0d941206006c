"""Landlock and a small seccomp filter (Linux 5.13; 6.2 to be of use): writes outside fail. No package, no namespace.

Decides what is handled and what is granted; `keeper.py` applies it between fork and exec. Only writes, TCP
and signals are handled, reads and execution never, so that every tool starts and reads as it always did.

What it cannot prevent, so that nobody claims it: chmod, chown, utime and xattr outside (capabilities are
dropped, but an owner may), connecting to a socket file, and reading any file the user can read. UDP is cut by the
filter, on the machines that it knows.
What it costs: nothing can be made in /dev/shm, so no POSIX semaphores inside (multiprocessing.Lock); no System V
IPC (a PostgreSQL server does not start, fakeroot neither); on the filter's machines, no 32-bit programs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from orchgit.core.errors import Kind, OrchgitError
from orchgit.sandbox import NETWORKS, Confinement, Level, keeper_argv, loopback_works
from orchgit.sandbox.keeper import PR_SET_SECCOMP, SECCOMP_MODE_FILTER, seccomp_program

CREATE_RULESET, CREATE_RULESET_VERSION = 444, 1
USEFUL_ABI = 3  # before it truncate(2) destroys any file of the user's

WRITE_FILE = 1 << 1
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER = 1 << 13  # abi 2: link and rename between directories; refused everywhere before
TRUNCATE = 1 << 14  # abi 3
IOCTL_DEV = 1 << 15  # abi 5
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1  # abi 4
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1 << 0, 1 << 1  # abi 6

HANDLED = (
    WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_CHAR | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO
    | MAKE_BLOCK | MAKE_SYM | REFER | TRUNCATE | IOCTL_DEV
)  # fmt: skip
# What a working tree needs. A socket or FIFO in it could only hang whoever reads the tree afterwards.
TREE = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
TMP = TREE | MAKE_SOCK | MAKE_FIFO
DEVICE = WRITE_FILE | TRUNCATE | IOCTL_DEV
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")
# With /dev/pts come the user's own terminals, which a program can then write on: only when asked for.
TERMINALS = ("/dev/ptmx", "/dev/pts")


def abi() -> int | str:
    """The kernel's Landlock version, from 1; or why there is none."""
    if not sys.platform.startswith("linux"):
        return "Landlock is part of Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_ulong(word) for word in (0, 0, CREATE_RULESET_VERSION)]
    version = int(libc.syscall(CREATE_RULESET, *words))
    if version > 0:
        return version
    code = ctypes.get_errno()
    if code == errno.EOPNOTSUPP:
        return "Landlock is built in but was not enabled at boot (kernel parameter lsm=)"
    if code == errno.ENOSYS:
        return "this kernel has no Landlock (it needs Linux 5.13, and 6.2 to be of use)"
    return f"Landlock does not answer: {os.strerror(code)}"


def filtered() -> bool | str:
    """Whether the keeper adds its seccomp filter on this machine; or why it would fail to."""
    if not seccomp_program():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(*(ctypes.c_ulong(word) for word in (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0)))
    code = ctypes.get_errno()  # a kernel with filters gets as far as reading the one at address 0
    return True if code == errno.EFAULT else f"this kernel takes no seccomp filter ({os.strerror(code)})"


def rules(version: int, confinement: Confinement) -> dict[str, Any]:
    """What the keeper is to apply, for a kernel of this `version`. The wire form is `keeper.landlock`'s."""
    known = HANDLED
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if version < since:
            known &= ~right
    net = BIND_TCP | CONNECT_TCP if version >= 4 and confinement.network == "none" else 0
    scoped = SCOPE_SIGNAL | SCOPE_ABSTRACT_SOCKET if version >= 6 else 0
    return {
        "handled": [known, net, scoped],
        "size": 8 if version < 4 else 16 if version < 6 else 24,
        "dirs": [*([path, TREE & known] for path in confinement.writable), [confinement.tmp, TMP & known]],
        "devices": [[path, DEVICE & known] for path in DEVICES + TERMINALS * confinement.terminals],
    }


class Landlock:
    name = "landlock"

    def probe(self) -> Level | str:
        version = abi()
        if isinstance(version, str):
            return version
        limits = filtered()
        if isinstance(limits, str):
            return limits
        loopback = loopback_works()
        here = {"none": limits or version >= 4, "loopback": not loopback, "open": True}
        detail = [f"abi {version}", "capabilities dropped"]
        detail += [] if version >= USEFUL_ABI else ["truncate(2) outside is not stopped (needs abi 3, Linux 6.2)"]
        detail += [
            "network can be cut"
            if limits
            else "TCP can be cut, UDP cannot"
            if version >= 4
            else "network cannot be cut"
        ]
        detail += [f"no loopback network of its own: {loopback}"] if loopback else []
        detail += ["signals and abstract sockets cut"] if version >= 6 else ["can signal processes of this user"]
        unfiltered = f"no seccomp filter for {os.uname().machine}: can set resource limits of this user's processes"
        detail += ["resource limits of others cut"] if limits else [unfiltered]
        return Level(
            self.name,
            ", ".join(detail),
            prevented=version >= USEFUL_ABI,
            networks=tuple(network for network in NETWORKS if here[network]),
            udp=limits,
            abstract=version >= 6,
            signals=version >= 6,
            limits=limits,
        )

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        version = abi()
        if isinstance(version, str):
            raise OrchgitError(Kind.UNAVAILABLE, "Landlock is not available.", version, "orchgit doctor")
        return keeper_argv(
            argv, landlock=rules(version, confinement), network=confinement.network, limits=confinement.limits,
            overlay=confinement.overlay,
        )  # fmt: skip
