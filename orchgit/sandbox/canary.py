"""Attacks from inside the very sandbox that an agent is about to get, to show that it holds.

One child, in that sandbox, tries everything; what it made, it removes. It must never harm what it attacks: it
opens but does not write, truncates only a file made for the purpose, sends only signal 0, sets a limit to what it
is, and reports that a secret could be read without passing it on. "Prevented" here is what was seen; `misses`
compares it with what the level promises.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from orchgit.core.errors import Kind, OrchgitError
from orchgit.process import start
from orchgit.sandbox import Confinement, Level, Sandbox

DEADLINE_S = 60.0  # it takes milliseconds; a machine that stalls must not look like a sandbox that leaks
NETWORK, SIGNAL, SECRET, LIMITS = "connect", "signal", "secret", "limits"
DATAGRAM, ABSTRACT, SOCKET, ATTRIBUTES = "UDP", "abstract socket", "socket file", "attributes"


@dataclass(frozen=True)
class Probe:
    """One attempt. `detail` is the error it met, or what it got away with."""

    name: str
    prevented: bool
    detail: str


# Runs inside, by the same interpreter, isolated, with `job` set before it. An attack raises OSError, or returns what
# it got away with. Literals for JSON and _socket for socket: it starts with every cell, and half of that was imports.
SCRIPT = r"""
import _socket, errno, os, sys
found = []
def attempt(name, attack, *args):
    try:
        words = attack(*args)
        found.append([name, False, words])
    except OSError as error:
        found.append([name, True, errno.errorcode.get(error.errno, str(error))])
def undo(function, path, words):
    try:
        function(path)
    except OSError as error:
        return f"{words}; LEFT BEHIND: {path} ({error.strerror})"
    return words
def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return undo(os.unlink, path, "made a file")
def append(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK))
    return f"opened {path} for writing"
def truncate(path):
    os.truncate(path, 0)
    return "emptied a file"
def rename(path):
    sources = [*job["writable"], job["tmp"]]
    device = os.stat(os.path.dirname(path)).st_dev
    # Across file systems a rename fails whatever the sandbox is, and would show nothing.
    source = next((s for s in sources if os.stat(s).st_dev == device), job["tmp"]) + "/" + job["token"]
    os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.rename(source, path)
    except OSError:
        os.unlink(source)
        raise
    return undo(os.unlink, path, "moved a file out")
def link(path):
    inside = job["tmp"] + "/" + job["token"]
    os.link(path, inside)
    return undo(os.unlink, inside, "linked a file in")
def read(path):
    with open(path, "rb", buffering=0) as file:
        file.read(1)
    return f"read {path}"
def reveal(path):
    if not (os.listdir(path) if os.path.isdir(path) else open(path, "rb", buffering=0).read(1)):
        raise OSError(errno.ENODATA, "")
    return f"read {path}"
def attributes(path):
    os.chmod(path, os.stat(path).st_mode & 0o7777)
    return f"could set the mode of {path}"
def process(attack):
    if os.readlink("/proc/self/ns/pid") != job["pids"]:
        raise ProcessLookupError(errno.ESRCH, "")  # the number would be another process's
    return attack(job["engine"])
def signal(pid):
    os.kill(pid, 0)
    return "could signal the engine"
def limits(pid):
    import resource
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))
    return "could set the engine's resource limits"
def connect(family, kind, address):
    end = _socket.socket(family, kind)
    if isinstance(address, str):
        os.chdir(os.path.dirname(address))  # an address has room for 107 bytes, and directories may be deep
        address = os.path.basename(address)
    try:
        end.settimeout(1)
        end.connect(address)
        if kind == _socket.SOCK_DGRAM:
            end.send(b"canary")
    finally:
        end.close()
    return "reached it"
def same(path, seen):
    try:
        info = os.stat(path)
    except OSError:
        return False
    return [info.st_dev, info.st_ino] == seen
# A directory of the sandbox's own may stand in its place: what is done there is not done outside.
targets = [target for target, seen in job["forbidden"] if same(target, seen)]
for target, seen in job["forbidden"]:
    if target not in targets:
        found.append(["create " + target, True, "not to be seen"])
    elif os.path.isdir(target):
        attempt("create " + target, create, os.path.join(target, job["token"]))
        attempt("rename into " + target, rename, os.path.join(target, job["token"]))
        try:
            first = next((e.path for e in os.scandir(target) if e.is_file(follow_symlinks=False)), None)
        except OSError:
            first = None
        if first:
            attempt("append in " + target, append, first)
    else:
        attempt("append " + target, append, target)
attempt("truncate", truncate, job["victim"])
attempt("hard link", link, job["victim"])
attempt("attributes", attributes, targets[0] if targets else job["victim"])
attempt("engine environment", process, lambda pid: read(f"/proc/{pid}/environ"))
attempt("signal", process, signal)
attempt("limits", process, limits)
for name, *address in job["addresses"]:
    attempt(name, connect, *address)
if job["secret"]:
    attempt("secret", reveal, job["secret"])
sys.stdout.write(ascii(found))
"""


def prove(
    sandbox: Sandbox,
    confinement: Confinement,
    *,
    env: Mapping[str, str],
    forbidden: Sequence[str],
    engine_pid: int,
    secret_path: str | None = None,
) -> list[Probe]:
    """What each attempt came to. `forbidden`: directories, or files, that must not be writable from inside.

    The network is tried only where it is to be cut. OrchgitError when the canary itself cannot run.
    """
    token = f".orchgit-canary-{os.getpid()}-{os.urandom(4).hex()}"
    with ExitStack() as undo:
        place = tempfile.mkdtemp(prefix="orchgit-canary-", dir=_outside(confinement, forbidden))
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        victim = os.path.join(place, "victim")
        with open(victim, "w") as file:
            file.write("x")
        addresses: list[tuple[Any, ...]] = []

        def listen(name: str, family: int, kind: int, address: Any, told: str = "") -> socket.socket:
            listener = undo.enter_context(socket.socket(family, kind))
            listener.bind(address)
            listener.setblocking(False)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            addresses.append((name, int(family), int(kind), told or listener.getsockname()))
            return listener

        mail = None
        if confinement.network != "open":
            listen(NETWORK, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
            mail = listen(DATAGRAM, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
            if sys.platform.startswith("linux"):
                listen(ABSTRACT, socket.AF_UNIX, socket.SOCK_STREAM, f"\0{token}".encode())
        if (temporary := tempfile.gettempdir()) and place.startswith(os.path.realpath(temporary) + "/"):
            path = os.path.join(place, "socket")
            listen(SOCKET, socket.AF_UNIX, socket.SOCK_STREAM, undo.enter_context(_short(path)), path)
        job = {
            "writable": confinement.writable,
            "tmp": confinement.tmp,
            "forbidden": [(path, [(seen := os.stat(path)).st_dev, seen.st_ino]) for path in forbidden],
            "token": token,
            "victim": victim,
            "engine": engine_pid,
            "pids": os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else "",
            "addresses": addresses,
            "secret": secret_path,
        }
        argv = sandbox.argv(confinement, [sys.executable, "-I", "-S", "-c", f"job = {job!a}{SCRIPT}"])
        ended = start(argv, cwd=confinement.tmp, env=env, sweeps=True).finish(deadline_s=DEADLINE_S)
        arrived = mail is not None and _arrived(mail)
    if ended.returncode != 0 or ended.timed_out:
        why = ended.stderr.decode(errors="replace").strip()[-2000:]
        raise OrchgitError(
            Kind.UNAVAILABLE,
            f"The sandbox ({sandbox.name}) did not let its own test run.",
            why or f"exit status {ended.returncode}{', out of time' if ended.timed_out else ''}",
            "orchgit doctor shows what this machine can enforce.",
        )
    found = [Probe(name, prevented, detail) for name, prevented, detail in literal_eval(ended.stdout.decode("ascii"))]
    # A datagram is sent without an answer, into a network of its own just as well: what counts is whether it came.
    lost = Probe(DATAGRAM, True, "it did not arrive")
    return [lost if p.name == DATAGRAM and not p.prevented and not arrived else p for p in found]


@contextmanager
def _short(path: str) -> Iterator[str]:
    """Another name for it, that fits into the address of a socket."""
    if not os.path.isdir("/proc/self/fd"):
        yield path
        return
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{os.path.basename(path)}"
    finally:
        os.close(fd)


def _arrived(mail: socket.socket) -> bool:
    try:
        return bool(mail.recv(16))
    except BlockingIOError:
        return False


def misses(probes: Sequence[Probe], level: Level) -> list[Probe]:
    """The attempts that got away with what the level promises to prevent: a start must be refused for any."""
    promised = promises(level)
    return [p for p in probes if not p.prevented and level.prevented and promised.get(p.name, True)]


def promises(level: Level) -> dict[str, bool]:
    """By an attempt's name, whether it must be prevented; of the others, each must be."""
    return {
        NETWORK: level.network, DATAGRAM: level.udp, ABSTRACT: level.abstract, SIGNAL: level.signals,
        SECRET: level.secrets, LIMITS: level.limits, SOCKET: level.sockets, ATTRIBUTES: level.attributes,
    }  # fmt: skip


def _outside(confinement: Confinement, forbidden: Sequence[str]) -> str:
    """A directory of ours to make the victim in: outside, or to truncate it would be allowed."""
    inside = [os.path.realpath(path) for path in (*confinement.writable, confinement.tmp)]
    for place in (tempfile.gettempdir(), *forbidden):
        real = os.path.realpath(place)
        if os.path.isdir(real) and not any(os.path.commonpath((real, path)) == path for path in inside):
            return real
    raise OrchgitError(
        Kind.USAGE,
        "The canary has no directory outside the cell to try to write in.",
        f"{tempfile.gettempdir()} is writable from inside, and no forbidden directory is given.",
        "Set TMPDIR to a directory outside the cell.",
    )
