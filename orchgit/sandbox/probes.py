"""What a confined program may try against the machine around it: one list, for `orchgit doctor --attack` and the tests.

Each probe is tried in a sandbox launch of its own, against things that were made for it: a directory outside the
cell, a process that stands for the engine, sockets that listen. It must never harm the machine that it runs on: it
writes only below the lab's own directory, and opens, but does not write, what is the user's or the kernel's.

How to read it: PROBES is the list; PRELUDE is what a probe's code finds at hand; `Lab` makes the things and runs them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchgit.process import start
from orchgit.sandbox import Confinement, Level, Sandbox, base_env

DEADLINE_S = 20.0

# The field of Level that promises it (one that it has not got promises nothing); "keeper": holds at every level; "":
# no level promises it.
Promise = Literal[
    "prevented", "attributes", "signals", "limits", "secrets", "sockets", "network", "datagrams", "abstract", "keeper",
    "",
]  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """`code` raises OSError when it is refused. `marks`: it leaves a change in `outside`, or it did nothing.

    `anywhere`: without a sandbox an ordinary user gets away with it, on any Linux. That is what shows that it is one.
    """

    id: str
    group: Literal["files", "links", "modes", "devices", "processes", "ipc", "namespaces", "secrets", "network"]
    about: str
    promise: Promise
    code: str
    marks: bool = False
    anywhere: bool = True


@dataclass(frozen=True)
class Tried:
    probe: Probe
    prevented: bool
    detail: str  # the error it met, or what it got away with

    def missed(self, level: Level) -> bool:
        """Whether it got away with what the level promises to prevent."""
        return not self.prevented and promised(self.probe, level)


def promised(probe: Probe, level: Level) -> bool:
    """Whether this level says that the probe fails."""
    if probe.promise in ("", "keeper"):
        return bool(probe.promise)
    return level.prevented and bool(getattr(level, probe.promise, False))


# At hand: all of os; cell, tmp, outside, victim (a file in outside), engine (a process id), secret (a file), the ports
# tcp and udp, the addresses unix (in /tmp) and abstract, pty (a terminal), shm (a key),
# fd (a descriptor of the engine's, open for writing).
PRELUDE = r"""
import ctypes, errno, signal, struct, sys
from os import *
import os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
arm = uname().machine == "aarch64"
def c(function, *args):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = function(*words)
    if result in (-1, 0xFFFFFFFFFFFFFFFF):
        code = ctypes.get_errno()
        raise OSError(code, strerror(code))
    return result
def syscall(number, *args):
    return c(libc.syscall, number, *args)
def put(path, flags=O_WRONLY, data=b"marked"):
    f = open(path, flags, 0o600)
    write(f, data)
    close(f)
def touch(path):
    close(open(path, O_WRONLY | O_CREAT, 0o600))
    return path
def own_mounts():
    try:
        c(libc.unshare, 0x20000)
    except OSError:
        uid, gid = getuid(), getgid()
        c(libc.unshare, 0x10000000 | 0x20000)
        put("/proc/self/setgroups", data=b"deny")
        put("/proc/self/uid_map", data=b"0 %d 1" % uid)
        put("/proc/self/gid_map", data=b"0 %d 1" % gid)
    c(libc.mount, None, b"/", None, 0x4000 | 0x40000, None)
"""

_W: Promise = "prevented"
_A: Promise = "attributes"
PROBES: tuple[Probe, ...] = (
    # ---- files outside
    Probe("write", "files", "write to a file outside the cell", _W, "put(victim)", True),
    Probe("append", "files", "append to a file outside", _W, "put(victim, O_WRONLY | O_APPEND)", True),
    Probe("open-truncate", "files", "empty a file outside as it is opened", _W,
          "open(victim, O_RDONLY | O_TRUNC)", True),
    Probe("truncate", "files", "truncate(2), without opening the file", _W, "truncate(victim, 0)", True),
    Probe("create", "files", "create a file outside", _W, "touch(outside + '/new')", True),
    Probe("dot-dot", "files", "create a file outside by a path through ..", _W,
          "touch(cell + '/' + path.relpath(outside, cell) + '/new')", True),
    Probe("mkdir", "files", "make a directory outside", _W, "mkdir(outside + '/new')", True),
    Probe("unlink", "files", "delete a file outside", _W, "unlink(victim)", True),
    Probe("rmdir", "files", "delete a directory outside", _W, "rmdir(outside + '/empty')", True),
    Probe("rename-out", "files", "move a file out of the cell", _W,
          "rename(touch(cell + '/x'), outside + '/new')", True),
    Probe("rename-over", "files", "move a file over one outside", _W, "rename(touch(cell + '/x'), victim)", True),
    Probe("rename-in", "files", "move a file from outside into the cell", _W, "rename(victim, cell + '/x')", True),
    Probe("rename-cell", "files", "move the cell's own directory away", _W, "rename(cell, outside + '/moved')", True),
    Probe("exchange", "files", "exchange a file of the cell with one outside", _W,
          "c(libc.renameat2, -100, touch(cell + '/x').encode(), -100, victim.encode(), 2)", True),
    Probe("tmpfile", "files", "give a nameless file a name outside", _W,
          "f = open(cell, O_TMPFILE | O_RDWR, 0o600)\n"
          "c(libc.linkat, -100, b'/proc/self/fd/%d' % f, -100, (outside + '/new').encode(), 0x400)", True),
    Probe("mmap", "files", "write to a file outside through shared memory", _W,
          "import mmap\nf = open(victim, O_RDWR)\nm = mmap.mmap(f, 0); m[:6] = b'marked'; m.flush()", True),
    Probe("read-only-descriptor", "files", "reopen a descriptor that is open for reading, for writing", _W,
          "f = open(victim, O_RDONLY); put(f'/proc/self/fd/{f}')", True),
    Probe("proc-cwd", "files", "create a file through /proc/self/cwd", _W,
          "chdir(outside); touch('/proc/self/cwd/new')", True),
    Probe("file-handle", "files", "open a file outside by its handle (root)", _W,
          "h = ctypes.create_string_buffer(struct.pack('=Ii', 128, 0), 136); m = ctypes.c_int()\n"
          "c(libc.name_to_handle_at, -100, victim.encode(), h, ctypes.byref(m), 0)\n"
          "f = c(libc.open_by_handle_at, open(outside, O_RDONLY), h, O_WRONLY); write(f, b'marked')", True, False),
    Probe("memfd", "files", "run a program that is in no file, and write outside from it", _W,
          "f = memfd_create('x', 0); write(f, b'#!/bin/sh\\necho marked > ' + victim.encode() + b'\\n')\n"
          "pid = fork()\nif pid == 0: execv(f'/proc/self/fd/{f}', ['x'])\n"
          "if waitpid(pid, 0)[1]: raise OSError(errno.EACCES, 'the program failed')", True),
    Probe("io-uring", "files", "open a file outside by io_uring instead of a system call of its own", _W,
          "p = ctypes.create_string_buffer(120); r = syscall(425, 4, p)\n"
          "import mmap\nu = struct.unpack('=30I', p.raw)\n"  # sq offsets from word 10, cq offsets from word 20
          "ring = mmap.mmap(r, u[26] + 4 * 16 * 16, flags=1, prot=3, offset=0)\n"
          "sqes = mmap.mmap(r, 4 * 64, flags=1, prot=3, offset=0x10000000)\n"
          "name = ctypes.create_string_buffer(victim.encode())\n"
          "sqes[:64] = struct.pack('=BBHiQQIIQ24x', 18, 0, 0, -100, 0, ctypes.addressof(name), 0, 0o1001, 1)\n"
          "ring[u[16]:u[16] + 4] = struct.pack('=I', 0); ring[u[11]:u[11] + 4] = struct.pack('=I', 1)\n"
          "syscall(426, r, 1, 1, 1, None, 0)\n"
          "result = struct.unpack_from('=i', ring, u[25] + 8)[0]\n"
          "if result < 0: raise OSError(-result, strerror(-result))", True, False),
    Probe("engine-code", "files", "open the engine's own source for writing", _W, "open(source, O_WRONLY | O_APPEND)"),
    Probe("shell-rc", "files", "open the user's ~/.bashrc, ~/.profile or ~/.gitconfig for writing", _W,
          "for n in ('.bashrc', '.profile', '.gitconfig', '.ssh/authorized_keys'):\n"
          "    if path.isfile(home + '/' + n): open(home + '/' + n, O_WRONLY | O_APPEND); break\n"
          "else: raise OSError(errno.ENOENT, 'there is none')", False, False),
    # ---- links and odd files
    Probe("symlink", "links", "write outside through a symbolic link in the cell", _W,
          "symlink(victim, cell + '/x'); put(cell + '/x')", True),
    Probe("symlink-directory", "links", "create a file through a linked directory in the cell", _W,
          "symlink(outside, cell + '/x'); touch(cell + '/x/new')", True),
    Probe("symlink-out", "links", "make a symbolic link outside", _W, "symlink('/etc/passwd', outside + '/new')", True),
    Probe("hardlink-in", "links", "link a file from outside into the cell, and write to it", _W,
          "link(victim, cell + '/x'); put(cell + '/x')", True, False),
    Probe("hardlink-out", "links", "link a file of the cell to outside", _W,
          "link(touch(cell + '/x'), outside + '/new')", True, False),
    Probe("fifo-out", "links", "make a pipe outside, to hang who reads it", _W, "mkfifo(outside + '/new')", True),
    Probe("socket-out", "links", "make a socket file outside", _W,
          "import socket; chdir(outside); socket.socket(socket.AF_UNIX).bind('new')", True),
    # ---- modes, owners, times
    Probe("chmod", "modes", "change the mode of a file outside", _A, "chmod(victim, 0o666)", True),
    Probe("chmod-directory", "modes", "open a directory outside to everybody", _A, "chmod(outside, 0o777)", True),
    Probe("chmod-descriptor", "modes", "the same by a descriptor that is open for reading", _A,
          "fchmod(open(victim, O_RDONLY), 0o666)", True),
    Probe("chown", "modes", "give a file outside to somebody else (root)", _W, "chown(victim, 1, 1)", True, False),
    Probe("utime", "modes", "change the time of a file outside", _A, "utime(victim, (0, 0))", True),
    Probe("xattr", "modes", "set an extended attribute of a file outside", _A,
          "setxattr(victim, 'user.marked', b'x')", True, False),
    # ---- devices and settings of the host
    Probe("raw-disk", "devices", "make a device for the disk, and open it (root)", _W,
          "mknod(tmp + '/disk', 0o60600, stat(outside).st_dev); open(tmp + '/disk', O_RDONLY)", False, False),
    Probe("device-in-cell", "devices", "make a device in the cell (root)", _W,
          "mknod(cell + '/x', 0o20600, makedev(1, 3))", False, False),
    Probe("core-pattern", "devices", "open core_pattern for writing: root on the host (root)", _W,
          "open('/proc/sys/kernel/core_pattern', O_WRONLY)", False, False),
    Probe("sysrq", "devices", "open sysrq-trigger for writing (root)", _W,
          "open('/proc/sysrq-trigger', O_WRONLY)", False, False),
    Probe("kmsg", "devices", "open the kernel's log for writing (root)", _W,
          "open('/dev/kmsg', O_WRONLY)", False, False),
    Probe("terminal", "devices", "open the terminal that the user works in", _W, "open(pty, O_RDWR | O_NOCTTY)"),
    Probe("tiocsti", "devices", "type into the user's terminal", "keeper",
          "import fcntl\nfor f in (0, 1, 2):\n"
          "    if isatty(f): fcntl.ioctl(f, 0x5412, b'\\n'); break\n"
          "else: fcntl.ioctl(open('/dev/tty', O_RDWR), 0x5412, b'\\n')", False, False),
    # ---- the engine's process
    Probe("signal", "processes", "signal the engine", "signals", "kill(engine, 0)"),
    Probe("stop", "processes", "stop the engine", "signals", "kill(engine, signal.SIGSTOP)"),
    Probe("pidfd-signal", "processes", "signal the engine by a pidfd", "signals",
          "signal.pidfd_send_signal(pidfd_open(engine), 0)"),
    Probe("sigio", "processes", "let the kernel signal the engine (F_SETOWN)", "signals",
          "import fcntl\nr, w = pipe(); fcntl.fcntl(r, 10, 0); fcntl.fcntl(r, fcntl.F_SETOWN, engine)\n"
          "fcntl.fcntl(r, fcntl.F_SETFL, 0x2000 | O_NONBLOCK); write(w, b'x')\n"
          "import time; time.sleep(0.05)\n"
          "if not path.exists(outside + '/sigio'): raise OSError(errno.EPERM, 'no signal came')", True),
    Probe("ptrace", "processes", "attach to the engine as a debugger", _W, "c(libc.ptrace, 0x4206, engine, 0, 0)"),
    Probe("memory", "processes", "open the engine's memory", _W, "open(f'/proc/{engine}/mem', O_RDWR)"),
    Probe("read-memory", "processes", "read the engine's memory by process_vm_readv", _W,
          "import re\nat = int(re.search(r'(\\w+)-', io_open(f'/proc/{engine}/maps').read()).group(1), 16)\n"
          "b = ctypes.create_string_buffer(8)\n"
          "here, there = struct.pack('=QQ', ctypes.addressof(b), 8), struct.pack('=QQ', at, 8)\n"
          "c(libc.process_vm_readv, engine, here, 1, there, 1, 0)"),
    Probe("steal-descriptor", "processes", "take over a descriptor of the engine's (pidfd_getfd)", _W,
          "write(syscall(438, pidfd_open(engine), fd, 0), b'marked')", True),
    Probe("proc-fd", "processes", "reopen the engine's log through /proc", _W,
          "put(f'/proc/{engine}/fd/{fd}', O_WRONLY | O_APPEND)", True),
    Probe("proc-root", "processes", "create a file through the engine's root directory", _W,
          "touch(f'/proc/{engine}/root{outside}/new')", True),
    Probe("oom-score", "processes", "have the engine killed first when memory runs out", _W,
          "open(f'/proc/{engine}/oom_score_adj', O_WRONLY)"),
    Probe("prlimit", "processes", "set a resource limit of the engine", "limits",
          "import resource\nresource.prlimit(engine, 7, resource.prlimit(engine, 7))"),
    Probe("priority", "processes", "take the engine's priority away", "limits",
          "setpriority(PRIO_PROCESS, engine, 19)"),
    Probe("affinity", "processes", "bind the engine to one processor", "limits",
          "sched_setaffinity(engine, sched_getaffinity(engine))"),
    Probe("scheduler", "processes", "let the engine run only when nothing else does", "limits",
          "sched_setscheduler(engine, SCHED_IDLE, sched_param(0))"),
    Probe("io-priority", "processes", "let the engine write only when nothing else does", "limits",
          "syscall(30 if arm else 251, 1, engine, 3 << 13)"),
    # At bwrap its keeper is confined as it is itself, and holds nothing that it has not got.
    Probe("keeper-memory", "processes", "open the memory of the program that keeps it", "",
          "if 'keeper' not in io_open(f'/proc/{getppid()}/cmdline').read(): raise OSError(errno.ESRCH, 'unseen')\n"
          "open(f'/proc/{getppid()}/mem', O_RDWR)", False, False),
    Probe("daemon", "processes", "leave a daemon behind that works on", "keeper",
          "import time\nif fork() == 0:\n    setsid()\n    if fork() == 0:\n"
          "        for n in range(1, 30):\n            if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
          "        for f in (0, 1, 2): close(f)\n"
          "        time.sleep(0.4); touch(tmp + '/late'); time.sleep(60)\n    _exit(0)\n"
          "wait()", False, False),
    Probe("inherited-descriptor", "processes", "use a descriptor that the engine left open", "keeper",
          "for name in listdir('/proc/self/fd'):\n"
          "    try: where = readlink('/proc/self/fd/' + name)\n    except OSError: continue\n"
          "    if int(name) > 2: print(where); break\n"
          "else: raise OSError(errno.EBADF, 'there is none')", False, False),
    Probe("setuid", "processes", "gain rights by a setuid program", _W,
          "if c(libc.prctl, 39, 0, 0, 0, 0): raise OSError(errno.EPERM, 'no_new_privs')"),
    Probe("capabilities", "processes", "use a capability of the user's (root)", _W,
          "if not int(io_open('/proc/self/status').read().split('CapEff:')[1].split()[0], 16):\n"
          "    raise OSError(errno.EPERM, 'it has none')", False, False),
    # ---- shared memory and the like
    Probe("sysv-memory", "ipc", "attach to shared memory of another program of the user's", "limits",
          "c(libc.shmget, shm, 0, 0)"),
    Probe("posix-memory", "ipc", "make shared memory that other programs see", _W,
          "put(shm_name, O_WRONLY | O_CREAT)", True, False),
    Probe("abstract-socket", "ipc", "connect to an abstract socket of the user's", "abstract",
          "import socket; socket.socket(socket.AF_UNIX).connect(abstract)"),
    Probe("socket-file", "ipc", "connect to a socket file of the user's (docker, ssh-agent, dbus)", "sockets",
          "import socket; socket.socket(socket.AF_UNIX).connect(unix)"),
    Probe("socket-elsewhere", "ipc", "the same where no level looks for one", "",
          "import socket; socket.socket(socket.AF_UNIX).connect(outside + '/socket')"),
    Probe("keyring", "ipc", "put a key into the user's keyring", "",
          "k = syscall(217 if arm else 248, b'user', b'orchgit-probe', b'x', 1, -4)\n"
          "syscall(219 if arm else 250, 9, k, -4)", False, False),
    Probe("flock", "ipc", "lock a file of the user's that it can only read", "",
          "import fcntl; fcntl.flock(open(victim, O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"),
    # ---- namespaces and mounts
    Probe("remount", "namespaces", "mount the root writable again, and write", _W,
          "own_mounts(); libc.mount(None, b'/', None, 0x20 | 0x1000, None); put(victim)", True, False),
    Probe("bind-mount", "namespaces", "mount the outside directory inside the cell, and write", _W,
          "own_mounts(); c(libc.mount, outside.encode(), cell.encode(), None, 0x1000, None)\n"
          "touch(cell + '/new')", True, False),
    Probe("tmpfs", "namespaces", "mount something over a directory of the cell", _W,
          "own_mounts(); c(libc.mount, b'x', tmp.encode(), b'tmpfs', 0, None)", False, False),
    Probe("unmount", "namespaces", "unmount what covers the root, and write", _W,
          "own_mounts(); libc.umount2(b'/tmp', 2); libc.umount2(b'/', 2); put(victim)", True, False),
    Probe("setns", "namespaces", "enter the engine's namespaces, and write", _W,
          "c(libc.setns, open(f'/proc/{engine}/ns/mnt', O_RDONLY), 0); put(victim)", True, False),
    # ---- secrets
    Probe("environment", "secrets", "read the engine's environment: its API key", _W,
          "if b'CANARY' not in io_open(f'/proc/{engine}/environ', 'rb').read(): raise OSError(errno.ENODATA, 'empty')"),
    Probe("key-file", "secrets", "read a private key in the user's home", "secrets", "io_open(secret).read(1)"),
    Probe("command-line", "secrets", "read the engine's command line", "",
          "io_open(f'/proc/{engine}/cmdline', 'rb').read(1)"),
    # ---- network
    Probe("tcp-connect", "network", "connect to a TCP port of this machine", "network",
          "import socket; socket.create_connection(('127.0.0.1', tcp), 2)"),
    Probe("tcp6-connect", "network", "the same by an IPv6 address that holds an IPv4 one", "network",
          "import socket; socket.create_connection(('::ffff:127.0.0.1', tcp), 2)", False, False),
    Probe("tcp-listen", "network", "open a TCP port on this machine", "network",
          "import socket; socket.create_server(('127.0.0.1', 0))"),
    Probe("tcp-fastopen", "network", "send data with the first packet, without connect(2)", "network",
          "import socket, time; s = socket.socket(); s.sendto(b'x', 0x20000000, ('127.0.0.1', tcp))\n"
          "time.sleep(0.05); s.getpeername()", False, False),
    Probe("mptcp", "network", "connect by multipath TCP", "network",
          "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.connect(('127.0.0.1', tcp))",
          False, False),
    Probe("udp-send", "network", "send a UDP packet: a DNS query", "datagrams",
          "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'marked', ('127.0.0.1', udp))"),
    Probe("raw-socket", "network", "send packets of its own making (root)", _W,
          "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", False, False),
    Probe("packet-socket", "network", "read the machine's network traffic (root)", _W,
          "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", False, False),
)  # fmt: skip

_RUN = """
try:
    exec(compile(code, "probe", "exec"), globals())
    sys.stdout.write("done")
except OSError as error:
    sys.stdout.write("refused " + (errno.errorcode.get(error.errno or 0) or str(error)))
"""

# It stands for the engine: it holds a key in its environment, and the log open.
_ENGINE = """
import os, signal, sys
log = open(sys.argv[1] + "/log", "a")
signal.signal(signal.SIGIO, lambda *_: os.close(os.open(sys.argv[1] + "/sigio", os.O_CREAT | os.O_WRONLY)))
print(log.fileno(), flush=True)
sys.stdin.read()
"""


class Lab:
    """Somewhere to try a probe: made new for each, below `directory`, and removed."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def attempt(self, way: Sandbox, probe: Probe) -> Tried:
        """One launch of this one probe; OSError when the lab itself cannot be set up."""
        with ExitStack() as undo:
            root = Path(tempfile.mkdtemp(prefix="orchgit-probe-", dir=self.directory)).resolve()
            undo.callback(shutil.rmtree, root, ignore_errors=True)
            for name in ("cell", "tmp", "outside", "outside/empty"):
                (root / name).mkdir()
            outside = root / "outside"
            (outside / "victim").write_text("precious")
            (outside / "victim").chmod(0o600)
            (outside / "id_key").write_text("CANARY")
            job: dict[str, object] = {"cell": str(root / "cell"), "tmp": str(root / "tmp"), "outside": str(outside)}
            job |= {"victim": str(outside / "victim"), "secret": str(outside / "id_key"), "source": __file__}
            job |= {"home": os.path.expanduser("~"), "shm_name": f"/dev/shm/{root.name}"}
            listening = self._listen(undo, outside, root.name, job)
            engine = _stand_in(undo, outside, job)
            undo.callback(_forget, job["shm_name"])
            before = _look(outside)
            given = "".join(f"{name} = {value!a}\n" for name, value in job.items())
            code = f"import io\nio_open = io.open\n{PRELUDE}\n{given}code = {probe.code!a}\n{_RUN}"
            env = base_env(str(root / "tmp"), str(root / "tmp"))
            argv = way.argv(_confinement(root, way), [sys.executable, "-I", "-S", "-c", code])
            ended = start(argv, cwd=str(root / "cell"), env=env, sweeps=True).finish(deadline_s=DEADLINE_S)
            said = ended.stdout.decode(errors="replace").strip()
            changed = _look(outside) != before or os.path.exists(str(job["shm_name"]))
            if probe.id == "udp-send" and said == "done":
                changed = _arrived(listening)
                said = said if changed else "refused: it did not arrive"
            if probe.id == "daemon":
                said = _still_there(root, said)
            if not said:
                # Neither done nor refused: killed, or the sandbox did not let it begin. A sandbox that cannot be
                # set up must not pass for one that holds.
                why = ended.stderr.decode(errors="replace").strip()[-300:]
                if ended.returncode >= 0:
                    raise OSError(f"{way.name}, {probe.id}: {why or f'exit code {ended.returncode}'}")
                said = f"refused: killed by signal {-ended.returncode}"
            engine.poll()
        if probe.marks and changed:
            return Tried(probe, False, "it left a mark outside")
        if said.startswith("refused"):
            return Tried(probe, True, said.removeprefix("refused").strip(" :"))
        if probe.marks:
            return Tried(probe, True, "it saw a private copy")
        return Tried(probe, False, said.removeprefix("done").strip() or "it succeeded")

    def _listen(self, undo: ExitStack, outside: Path, name: str, job: dict[str, object]) -> socket.socket:
        tcp = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.2)
        common = undo.enter_context(tempfile.TemporaryDirectory(prefix="orchgit-probe-", dir="/tmp"))
        for key, address in (("unix", f"{common}/s"), ("abstract", f"\0{name}"), ("", f"{outside}/socket")):
            server = undo.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
            if key:
                job[key] = address
        ours, theirs = os.openpty()
        undo.callback(os.close, ours)
        undo.callback(os.close, theirs)
        job["pty"] = os.ttyname(theirs)
        libc = ctypes.CDLL(None)
        key_of = int.from_bytes(os.urandom(3), "big") | 0x40000000
        segment = libc.shmget(ctypes.c_int(key_of), ctypes.c_size_t(4096), 0o1600)
        if segment >= 0:
            undo.callback(libc.shmctl, segment, 0, None)
        job |= {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "shm": key_of}
        return udp


def attack(way: Sandbox, probes: Sequence[Probe], directory: str) -> list[Tried]:
    """All of them, one after the other. `directory`: where the lab may make its own; see `lab_directory`."""
    lab = Lab(directory)
    return [lab.attempt(way, probe) for probe in probes]


def lab_directory() -> str:
    """Not /tmp, where there is another place: some levels hide it, and what is not seen proves less."""
    return next((d for d in ("/var/tmp",) if os.path.isdir(d) and os.access(d, os.W_OK)), tempfile.gettempdir())


def _confinement(root: Path, way: Sandbox) -> Confinement:
    level = way.probe()
    cut = not isinstance(level, str) and level.network
    return Confinement(
        (str(root / "cell"),), str(root / "tmp"), network="none" if cut else "open",
        hidden=(str(root / "outside" / "id_key"),),
    )  # fmt: skip


def _stand_in(undo: ExitStack, outside: Path, job: dict[str, object]) -> subprocess.Popen[bytes]:
    engine = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ENGINE, str(outside)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=outside, env={"API_KEY": "CANARY"}, start_new_session=True,
    )  # fmt: skip
    undo.callback(engine.wait)
    undo.callback(engine.kill)
    assert engine.stdin is not None
    assert engine.stdout is not None
    undo.callback(engine.stdin.close)
    undo.callback(engine.stdout.close)
    job |= {"engine": engine.pid, "fd": int(engine.stdout.readline())}
    return engine


def _look(folder: Path) -> list[tuple[object, ...]]:
    """All that a probe could have changed; of the log only what is in it."""
    found: list[tuple[object, ...]] = []
    for path in (folder, *sorted(folder.rglob("*"))):
        info = path.lstat()
        when = info.st_mtime_ns if path.is_file() else 0
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        names = os.listxattr(path, follow_symlinks=False)
        found.append((path.name, info.st_mode, info.st_uid, info.st_nlink, when, data, names))
    return found


def _arrived(udp: socket.socket) -> bool:
    try:
        return udp.recv(16) == b"marked"
    except TimeoutError:
        return False


def _still_there(root: Path, said: str) -> str:
    """Whether the daemon lives: it carries the lab's name in its command line."""
    mark = os.fsencode(root.name)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                seen = Path(f"/proc/{name}/cmdline").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in seen and b"setsid" in seen and state not in "ZX":
                return f"done: process {name} lives"
    return "refused: it was ended" if said == "done" else said


def _forget(path: object) -> None:
    Path(str(path)).unlink(missing_ok=True)
