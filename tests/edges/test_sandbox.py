"""Real sandboxes: what a confined program cannot do, what it still can, and that nothing of it stays."""

from __future__ import annotations

import ast
import errno
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.process import Child, Ended, start
from orchgit.sandbox import (
    KEEPER,
    SANDBOXES,
    Confinement,
    Level,
    base_env,
    best,
    bwrap,
    canary,
    keeper_argv,
    landlock,
    launcher,
    require_networks,
    sandbox,
)
from orchgit.sandbox.keeper import FILTERED, IO_URING_SETUP, MORE, descendants, seccomp_program
from tests.edges.test_process import alive, soon

ABI = landlock.abi()
needs_landlock = pytest.mark.skipif(
    isinstance(ABI, str) or ABI < landlock.USEFUL_ABI, reason=f"needs Landlock abi 3, here: {ABI}"
)
needs_filter = pytest.mark.skipif(not seccomp_program(), reason="no seccomp filter for this machine")
needs_abi_6 = pytest.mark.skipif(isinstance(ABI, str) or ABI < 6, reason=f"needs Landlock abi 6, here: {ABI}")
BWRAP = bwrap.found()
needs_bwrap = pytest.mark.skipif(isinstance(BWRAP, str), reason=str(BWRAP))
PREVENTING = pytest.mark.parametrize(
    "way",
    [
        pytest.param("bwrap+landlock", marks=[needs_bwrap, needs_landlock]),
        pytest.param("landlock", marks=needs_landlock),
        pytest.param("bwrap", marks=needs_bwrap),
    ],
)
WAYS = pytest.mark.parametrize(
    "way",
    [
        "none",
        pytest.param("landlock", marks=needs_landlock),
        pytest.param("bwrap", marks=needs_bwrap),
        pytest.param("bwrap+landlock", marks=[needs_bwrap, needs_landlock]),
    ],
)
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Place:
    """A cell with a writable directory and a tmp, and what lies beside it and must not be touched."""

    cell: Path
    tmp: Path
    outside: Path
    precious: Path
    confinement: Confinement
    others: frozenset[int] = frozenset()  # children of this process that are not this test's

    def children(self) -> list[int]:
        return sorted(set(descendants(os.getpid())) - self.others)

    def start(self, *argv: str, way: str = "landlock", confinement: Confinement | None = None) -> Child:
        env = base_env(str(self.tmp), str(self.tmp))
        launch = launcher(sandbox(way), confinement or self.confinement, cwd=str(self.cell), env=env)
        return launch(argv)

    def run(self, script: str, *, way: str = "landlock", confinement: Confinement | None = None) -> Ended:
        """A Python script with `cell`, `tmp`, `outside`, `precious`, `ctypes` and all of os at hand."""
        names = ("cell", "tmp", "outside", "precious")
        head = "import ctypes; from os import *; " + "; ".join(f"{n} = {str(getattr(self, n))!r}" for n in names)
        argv = (sys.executable, "-I", "-S", "-c", f"{head}\n{script}")
        return self.start(*argv, way=way, confinement=confinement).finish(deadline_s=20)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path.resolve()
    for name in ("cell", "tmp", "outside"):
        (root / name).mkdir()
    precious = root / "outside" / "precious"
    precious.write_text("precious")
    # Readable, though it lies below /tmp: or an attack would fail because it finds nothing, and show nothing.
    confinement = Confinement((str(root / "cell"),), str(root / "tmp"), readable=(str(root),))
    others = frozenset(descendants(os.getpid()))
    return Place(root / "cell", root / "tmp", root / "outside", precious, confinement, others)


# ---- what is refused


REFUSED = {
    "write": "open(precious, O_WRONLY)",
    "append": "open(precious, O_WRONLY | O_APPEND)",
    "open and truncate": "open(precious, O_RDONLY | O_TRUNC)",
    "truncate": "truncate(precious, 0)",
    "create": "open(outside + '/new', O_CREAT | O_WRONLY)",
    "create by ..": "open(cell + '/../outside/new', O_CREAT | O_WRONLY)",
    "mkdir": "mkdir(outside + '/new')",
    "symlink": "symlink('x', outside + '/new')",
    "mkfifo": "mkfifo(outside + '/new')",
    "unlink": "unlink(precious)",
    "rename out": "close(open(cell + '/x', O_CREAT)); rename(cell + '/x', outside + '/new')",
    "rename over": "close(open(cell + '/x', O_CREAT)); rename(cell + '/x', precious)",
    "rename in": "rename(precious, cell + '/x')",
    "rename the cell away": "rename(cell, cell + '2')",
    "link in": "link(precious, cell + '/x')",
    "link out": "close(open(cell + '/x', O_CREAT)); link(cell + '/x', outside + '/new')",
    "through a symlink": "symlink(precious, cell + '/x'); open(cell + '/x', O_WRONLY)",
    "through /proc": "chdir(outside); open('/proc/self/cwd/new', O_CREAT | O_WRONLY)",
    "fifo in the tree": "mkfifo(cell + '/x')",
    "device in the tree": "mknod(cell + '/x', 0o20600, makedev(1, 3))",
    "device in tmp": "mknod(tmp + '/x', 0o20600, makedev(1, 3))",
    "host settings": "open('/proc/sys/kernel/core_pattern', O_WRONLY)",
    "someone's terminal": "open('/dev/ptmx', O_RDWR)",
    "keeper's memory": "open(f'/proc/{getppid()}/mem', O_RDONLY)",
    "keeper's environment": "open(f'/proc/{getppid()}/environ', O_RDONLY)",
    "mount": "ctypes.CDLL(None).mount(b'none', tmp.encode(), b'tmpfs', 0, None) and open(precious, O_WRONLY)",
}


# Not stopped by mounts, and of no harm: the gate takes no such file, the terminal and the process are its own.
BWRAP_ALLOWS = {"fifo in the tree", "someone's terminal", "keeper's memory", "keeper's environment"}
ERRORS = {errno.EPERM, errno.EACCES, errno.EXDEV, errno.EROFS, errno.EBUSY}
ATTACK = """
for name, attack in attacks.items():
    chdir(cell)
    try: exec(attack)
    except OSError as error: found = error.errno
    else: found = 0
    try: unlink(cell + '/x')
    except OSError: pass
    print([name, found])
"""


@PREVENTING
def test_refused(place: Place, way: str) -> None:
    ended = place.run(f"attacks = {REFUSED!r}\n{ATTACK}", way=way)
    assert ended.returncode == 0, ended.stderr
    found = dict(map(ast.literal_eval, ended.stdout.decode().splitlines()))
    assert list(found) == list(REFUSED)
    allowed = {name for name, number in found.items() if number == 0}
    assert allowed <= (BWRAP_ALLOWS if way == "bwrap" else set())
    assert {number for name, number in found.items() if name not in allowed} <= ERRORS
    assert place.precious.read_text() == "precious"
    assert os.listdir(place.outside) == ["precious"]
    assert place.cell.is_dir()


@needs_landlock
def test_the_attacks_work_without_a_sandbox(place: Place) -> None:
    # Or the test above would prove nothing.
    for name in (
        "write",
        "truncate",
        "create",
        "rename out",
        "link in",
        "through a symlink",
        "fifo in the tree",
    ):
        (place.cell / "x").unlink(missing_ok=True)
        (place.outside / "new").unlink(missing_ok=True)
        assert place.run(REFUSED[name], way="none").returncode == 0, name


@needs_landlock
def test_the_engines_environment_and_process(place: Place) -> None:
    # As root readable past Landlock, if a capability were left.
    engine = os.getpid()
    ended = place.run(f"open('/proc/{engine}/environ', O_RDONLY)")
    assert b"PermissionError" in ended.stderr
    status = place.start("cat", "/proc/self/status").finish(deadline_s=5).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert fields["CapBnd"] == "0" * 16


@needs_abi_6
def test_nobody_outside_can_be_signalled(place: Place) -> None:
    for pid in (os.getpid(), "getppid()"):
        assert b"PermissionError" in place.run(f"kill({pid}, 0)").stderr
    inside = place.start("sh", "-c", "sleep 60 & kill $! && wait $!; echo $?").finish(deadline_s=5)
    assert inside.stdout == b"143\n"


OTHERS_LIMITS = "resource.prlimit({pid}, resource.RLIMIT_CORE, resource.prlimit({pid}, resource.RLIMIT_CORE))"


@needs_landlock
@needs_filter
def test_limits_of_others_are_refused_and_ones_own_work(place: Place) -> None:
    for pid in (os.getpid(), "getppid()"):
        attack = "import resource; " + OTHERS_LIMITS.format(pid=pid)
        assert place.run(attack, way="none").returncode == 0  # or the next line would prove nothing
        assert b"PermissionError" in place.run(attack).stderr
    # The syscall itself, with a word above the pid's 32 bits, and the pid 0 with one.
    raw = f"libc = ctypes.CDLL(None, use_errno=True); n = {FILTERED[os.uname().machine][1]}\nfor pid in "
    raw += "(getppid(), getppid() | 1 << 32, 1 << 32):\n buffer = bytes(16)\n"
    raw += " print(libc.syscall(n, ctypes.c_ulong(pid), ctypes.c_ulong(4), None, buffer), ctypes.get_errno())"
    assert place.run(raw).stdout == b"-1 1\n-1 1\n0 1\n"
    own = "import resource; resource.setrlimit(7, (64, 64)); print(resource.prlimit(0, 7), resource.getrlimit(7))"
    assert place.run(own).stdout == b"(64, 64) (64, 64)\n"


@needs_landlock
@needs_filter
@pytest.mark.parametrize("make", ["shmget(0, 4096, 0o600)", "msgget(0, 0o600)", "semget(0, 1, 0o600)"])
def test_system_v_ipc_is_refused(place: Place, make: str) -> None:
    script = f"libc = ctypes.CDLL(None, use_errno=True); print(libc.{make}, ctypes.get_errno())"
    assert place.run(script).stdout == b"-1 1\n"


@needs_landlock
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86_64 has these")
def test_other_numberings_of_the_system_calls_are_no_way_around(place: Place) -> None:
    x32 = "libc = ctypes.CDLL(None, use_errno=True); print(libc.syscall(0x40000000 | 39), ctypes.get_errno())"
    assert place.run(x32).stdout == b"-1 1\n"
    # mov eax, 20 (getpid of i386); int 0x80; ret
    i386 = (
        "import mmap; page = mmap.mmap(-1, 4096, prot=7); page.write(bytes.fromhex('b814000000cd80c3'))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"
    )
    assert place.run(i386).returncode == -signal.SIGSYS


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("machine", FILTERED)
def test_the_filter_is_sound(monkeypatch: pytest.MonkeyPatch, machine: str, cut: bool) -> None:
    # Run by hand: of the two machines, only one is here.
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", machine)))
    lines = list(struct.iter_unpack("=HBBI", seccomp_program(cut=cut)))

    def verdict(arch: int, number: int, first: int = 0, second: int = 0) -> int:
        data = struct.pack("<IIQQQ", number, arch, 0, first, second)
        at = word = 0
        while True:
            code, then, other, operand = lines[at]
            if code == 6:
                return int(operand)
            at += 1
            if code == 0x20:
                word = struct.unpack_from("<I", data, operand)[0]
            else:
                at += then if (word == operand if code == 0x15 else word >= operand) else other

    arch, prlimit, sockets, *ipc = FILTERED[machine]
    allow, deny, kill = 0x7FFF0000, 0x00050001, 0x80000000
    scheduling, priorities, keyring = MORE[machine]
    denied = {number for number in range(1000) if verdict(arch, number, 7, 7) != allow}
    always = {prlimit, *ipc, *scheduling, *priorities, *keyring}
    assert denied == always | ({sockets, IO_URING_SETUP} if cut else set())
    assert {verdict(arch, number, 0, 0) for number in (prlimit, *scheduling)} == {allow}
    assert {verdict(arch, number, 7, 0) for number in priorities} == {allow}  # 7: a process, a group, a user
    families = {family for family in range(64) if verdict(arch, sockets, family) == allow}
    assert families == ({socket.AF_UNIX, socket.AF_NETLINK} if cut else set(range(64)))
    assert {verdict(arch, number, 7, 7) for number in denied} == {deny}
    assert (verdict(arch, prlimit), verdict(arch, prlimit, 1 << 32), verdict(arch, ipc[0])) == (allow, allow, deny)
    assert verdict(arch, 0x40000000 | prlimit) == deny
    assert verdict(arch ^ 1, 0) == kill


def test_a_machine_without_a_filter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 6)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", "", "", "riscv64")))
    level = landlock.Landlock().probe()
    assert isinstance(level, Level)
    assert (level.prevented, level.limits) == (True, False)
    assert "no seccomp filter for riscv64" in level.detail


@needs_landlock
@pytest.mark.skipif(isinstance(ABI, str) or ABI < 4, reason=f"needs Landlock abi 4, here: {ABI}")
def test_tcp_only_if_granted(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        assert b"PermissionError" in place.run(connect).stderr
        assert b"PermissionError" in place.run("import socket; socket.create_server(('127.0.0.1', 0))").stderr
        assert place.run(connect, confinement=replace(place.confinement, network="open")).returncode == 0


@needs_landlock
def test_a_read_only_role_writes_in_its_tmp_only(place: Place) -> None:
    reader = replace(place.confinement, writable=())
    script = (
        "open(tmp + '/x', O_CREAT | O_WRONLY); print(read(open(precious, O_RDONLY), 99))\nopen(cell + '/x', O_CREAT)"
    )
    ended = place.run(script, confinement=reader)
    assert ended.stdout == b"b'precious'\n"
    assert b"PermissionError" in ended.stderr


# ---- what still works


@needs_landlock
def test_ordinary_work_inside(place: Place) -> None:
    ended = place.run(
        "mkdir(cell + '/d'); fd = open(cell + '/d/f', O_CREAT | O_RDWR); write(fd, b'hello')\n"
        "truncate(cell + '/d/f', 2); rename(cell + '/d/f', cell + '/g'); link(cell + '/g', cell + '/h')\n"
        "symlink('g', cell + '/s'); unlink(cell + '/h'); rmdir(cell + '/d')\n"
        "close(open(tmp + '/f', O_CREAT)); rename(tmp + '/f', cell + '/from-tmp'); mkfifo(tmp + '/fifo')\n"
        "write(open('/dev/null', O_WRONLY), b'x'); print(umask(0))\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"18\n", b"")
    assert sorted(os.listdir(place.cell)) == ["from-tmp", "g", "s"]
    assert (place.cell / "g").read_text() == "he"


COMMIT = "git -c user.name=n -c user.email=e commit -qm m"
SPAWN = 'require("fs").writeFileSync("a", require("child_process").execSync("echo a"))'
TOOLS = {
    "git": f"git init -q . && echo a > a && git add a && {COMMIT} && git gc -q && git log",
    "node": f"node -e '{SPAWN}'",
    SYSTEM_PYTHON: f'{SYSTEM_PYTHON} -c \'import tempfile; tempfile.TemporaryFile(); open("a", "w")\'',
    "mktemp": "mktemp && mktemp -d && echo a > a 2> /dev/null && sed -i s/a/b/ a && mv a b && mv b a",
}


@needs_landlock
@pytest.mark.parametrize(("program", "script"), TOOLS.items(), ids=TOOLS.keys())
def test_tools_run(place: Place, program: str, script: str) -> None:
    if subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{program} is not installed")
    ended = place.start("sh", "-c", script).finish(deadline_s=30)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (place.cell / "a").exists()


@needs_landlock
def test_terminals_only_if_granted(place: Place) -> None:
    openpty = "write(openpty()[1], b'x')"
    assert place.run(openpty).returncode != 0
    assert place.run(openpty, confinement=replace(place.confinement, terminals=True)).returncode == 0


def test_limits(place: Place) -> None:
    limited = replace(place.confinement, limits=(("nofile", 99), ("fsize", 4096)))
    script = "ulimit -n; ulimit -c; head -c 9999 /dev/zero > f"
    ended = place.start("sh", "-c", script, way="none", confinement=limited).finish(deadline_s=5)
    assert ended.stdout == b"99\n0\n"
    assert (place.cell / "f").stat().st_size == 4096


# ---- how it ends


@WAYS
def test_the_exit_status_is_the_programs(place: Place, way: str) -> None:
    def code(*argv: str) -> Ended:
        return place.start(*argv, way=way).finish(deadline_s=10)

    def ended_by(number: int) -> int:
        return 128 + number if way.startswith("bwrap") else -number  # as a shell says it

    assert code("sh", "-c", "exit 7").returncode == 7
    assert code("sh", "-c", "kill -KILL $$").returncode == ended_by(signal.SIGKILL)
    assert code("sh", "-c", "kill -SEGV $$").returncode == ended_by(signal.SIGSEGV)
    # Python ignores SIGPIPE; the program must not inherit that.
    assert code("sh", "-c", "kill -PIPE $$").returncode == ended_by(signal.SIGPIPE)
    missing = code("no-such-program")
    assert (missing.returncode, missing.stderr[:39]) == (127, b"orchgit: no-such-program: no such progr")
    (place.cell / "text").write_text("not a program")
    assert code(f"{place.cell}/text").returncode == 126


def test_stdin_stdout_and_an_extra_environment(place: Place) -> None:
    env = base_env(str(place.tmp), str(place.tmp))
    launch = launcher(sandbox("none"), place.confinement, cwd=str(place.cell), env=env)
    ended = launch(["sh", "-c", "cat; pwd; echo $EXTRA"], env={"EXTRA": "e"}, cwd="/").finish(b"in\n", deadline_s=5)
    assert ended.stdout == b"in\n/\ne\n"
    assert "EXTRA" not in env


def without(key: str) -> Callable[[list[str]], list[str]]:
    return lambda spec: [word for word in spec if not word.startswith(f"{key}=")]


# The words of a keeper's spec -> words that must not do.
BREAKAGES: dict[str, Callable[[list[str]], list[str]]] = {
    "a right the kernel does not know": lambda s: [*without("landlock")(s), f"landlock={1 << 60},0,0,24"],
    "too few rules": lambda s: [*without("landlock")(s), "landlock=1,0,0"],
    "no such directory": lambda s: [*s, "dir=2:/no/such/directory"],
    "no word on landlock": without("landlock"),
    "two words on landlock": lambda s: [*s, "landlock=none"],
    "rules, and no landlock": lambda s: [*without("landlock")(s), "landlock=none"],
    "half the rules": without("device"),
    "the other half": without("dir"),
    "no rules": lambda s: without("dir")(without("device")(s)),
    "a directory without its rights": lambda s: [*s, "dir=/"],
    "an unknown word": lambda s: [*s, "dirs=2:/"],
    "an unknown limit": lambda s: [*s, "limit=nonsense:1"],
    "another engine": lambda s: ["engine=1", *without("engine")(s)],
    "rights out of range": lambda s: [*s, "dir=-1:/"],
}


@needs_landlock
@pytest.mark.parametrize("breakage", BREAKAGES.keys())
def test_a_sandbox_that_does_not_stand_runs_nothing(place: Place, breakage: str) -> None:
    argv = sandbox("landlock").argv(place.confinement, ["touch", str(place.cell / "ran")])
    end = argv.index("--")
    argv[len(KEEPER) : end] = BREAKAGES[breakage](argv[len(KEEPER) : end])
    ended = start(argv, cwd=str(place.cell), env=base_env(str(place.tmp), str(place.tmp))).finish(deadline_s=5)
    assert ended.returncode == 125
    assert ended.stderr.startswith(b"orchgit-sandbox: ")
    assert not (place.cell / "ran").exists()


@needs_landlock
def test_a_directory_that_became_a_symlink_grants_nothing(place: Place) -> None:
    (place.cell / "scope").symlink_to(place.outside)
    planted = replace(place.confinement, writable=(str(place.cell / "scope"),))
    ended = place.run("open(precious, O_WRONLY)", confinement=planted)
    assert ended.returncode == 125
    assert b"symbolic link" in ended.stderr


# ---- nothing is left behind

# Double fork, own session, deaf to TERM and HUP, and it starts children of its own all the time.
DAEMON = """
import os, signal, sys, time
if os.fork(): sys.exit(0) if sys.argv[1] == "leave" else time.sleep(60)
os.setsid()
if os.fork(): os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)
open(sys.argv[2], "w").write(str(os.getpid()))
while True:
    if os.fork() == 0:
        os.setsid(); time.sleep(60); os._exit(0)
    time.sleep(0.02)
"""


def daemon_argv(place: Place, how: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", DAEMON, how, str(place.cell / "pid")]


def daemon_pid(place: Place) -> int:
    """Its number out here; what it wrote is its number in there."""
    file = place.cell / "pid"
    assert soon(lambda: file.exists() and file.read_text() != "")
    inside = file.read_text()
    status = {pid: Path(f"/proc/{pid}/status").read_text() for pid in marked(place)}
    return next(pid for pid, text in status.items() if text.partition("NSpid:")[2].split("\n")[0].split()[-1] == inside)


def marked(place: Place) -> list[int]:
    """Who is alive and has the cell's path in its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                if str(place.cell).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


@pytest.fixture
def no_strays(place: Place) -> Iterator[None]:
    yield
    strays = marked(place)
    for pid in strays:
        os.kill(pid, signal.SIGKILL)
    assert strays == []


@WAYS
@pytest.mark.usefixtures("no_strays")
def test_a_daemon_does_not_outlive_the_program(place: Place, way: str) -> None:
    wait = f"while ! [ -s {place.cell}/pid ]; do sleep 0.02; done; sleep 0.1; exit 3"
    child = place.start("sh", "-c", '"$@"; ' + wait, "sh", *daemon_argv(place, "leave"), way=way)
    assert child.finish(deadline_s=10).returncode == 3
    assert (place.cell / "pid").read_text()
    assert marked(place) == []


@WAYS
@pytest.mark.parametrize("grace_s", [0.0, 0.3])
@pytest.mark.usefixtures("no_strays")
def test_stop_takes_the_daemons_along(place: Place, way: str, grace_s: float) -> None:
    child = place.start(*daemon_argv(place, "stay"), way=way)
    pid = daemon_pid(place)
    before = time.monotonic()
    child.stop(grace_s)
    assert time.monotonic() - before < grace_s + 2
    assert not alive(pid)
    assert place.children() == []


@pytest.mark.usefixtures("no_strays")
def test_stop_at_any_moment_leaves_nobody(place: Place) -> None:
    for after_ms in range(0, 80, 4):
        child = place.start(*daemon_argv(place, "stay"), way="none")
        time.sleep(after_ms / 1000)
        child.stop(0)
        assert place.children() == []


@WAYS
@pytest.mark.usefixtures("no_strays")
def test_stop_passes_term_on_and_waits(place: Place, way: str) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done"
    child = place.start("sh", "-c", script, way=way)
    assert child.readline(5) == b"up\n"
    ended = child.stop(5)
    assert (ended.returncode, ended.stdout) == (5, b"bye\n")


@pytest.mark.usefixtures("no_strays")
def test_a_stopped_program_can_be_ended(place: Place) -> None:
    child = place.start("sh", "-c", "echo $$; kill -STOP $$", way="none")
    child.readline(5)
    time.sleep(0.1)
    assert child.stop(5).returncode == -signal.SIGTERM


ENGINE = """
import sys, threading, time
from orchgit import sandbox
sandbox.GRACE_MS = 300
cell, tmp, way, *argv = sys.argv[1:]
confinement, env = sandbox.Confinement((cell,), tmp), sandbox.base_env(tmp, tmp)
launch = sandbox.launcher(sandbox.sandbox(way), confinement, cwd=cell, env=env)
kept = []
thread = threading.Thread(target=lambda: kept.append(launch(argv)))
thread.start(); thread.join()  # the thread that asked is gone; the program must not be
print(kept[0].pid, flush=True)
time.sleep(60)
"""


@WAYS
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.usefixtures("no_strays")
def test_nothing_outlives_the_engine(place: Place, way: str, death: signal.Signals) -> None:
    argv = [sys.executable, "-c", ENGINE, str(place.cell), str(place.tmp), way, *daemon_argv(place, "stay")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as engine:
        assert engine.stdout
        keeper = int(engine.stdout.readline())
        pid = daemon_pid(place)
        family = [keeper, *descendants(keeper)]
        assert pid in family
        time.sleep(0.2)
        assert alive(pid)
        engine.send_signal(death)
    assert soon(lambda: not alive(keeper))
    assert [p for p in family if alive(p)] == []


@pytest.mark.usefixtures("no_strays")
def test_a_keeper_that_may_open_nothing_sweeps(place: Place) -> None:
    # Without a sandbox a program can do this to its keeper.
    blind = "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))"
    script = '"$0" -c "$1"; shift; "$@"; ' + f"while ! [ -s {place.cell}/pid ]; do sleep 0.02; done; sleep 0.1; exit 3"
    blind = blind.replace("os.getppid()", "int(open(f'/proc/{os.getppid()}/stat').read().split()[3])")
    child = place.start("sh", "-c", script, sys.executable, blind, *daemon_argv(place, "leave"), way="none")
    ended = child.finish(deadline_s=10)
    assert (ended.returncode, ended.stderr) == (3, b"")
    assert (place.cell / "pid").read_text()
    assert marked(place) == []


@needs_abi_6
def test_the_program_cannot_end_its_keeper(place: Place) -> None:
    ended = place.run("try: kill(getppid(), 9)\nexcept PermissionError: print('no')\nraise SystemExit(7)")
    assert (ended.returncode, ended.stdout) == (7, b"no\n")


# ---- the table, the canary, the environment


def test_the_table_and_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [sandbox(name).name for name in SANDBOXES] == list(SANDBOXES)
    assert list(SANDBOXES)[-1] == "none"
    monkeypatch.setattr(landlock, "abi", lambda: "no Landlock here")
    if isinstance(BWRAP, tuple):
        assert best(allow_unsandboxed=False)[0].name == "bwrap"
    monkeypatch.setattr(bwrap, "found", lambda: "no bubblewrap here")
    with pytest.raises(OrchgitError) as caught:
        best(allow_unsandboxed=False)
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "no Landlock here" in caught.value.why
    assert "no bubblewrap here" in caught.value.why
    assert "--allow-unsandboxed" in caught.value.hint
    way, level = best(allow_unsandboxed=True)
    assert (way.name, level.prevented) == ("none", False)
    monkeypatch.setattr(landlock, "abi", lambda: 2)  # stops some: better than none, but not "prevented"
    way, level = best(allow_unsandboxed=True)
    assert (way.name, level.prevented) == ("landlock", False)
    with pytest.raises(OrchgitError, match="No sandbox"):
        best(allow_unsandboxed=False)


@PREVENTING
def test_a_level_can_be_forced(way: str) -> None:
    forced, level = best(allow_unsandboxed=False, level=way)
    assert (forced.name, level.name, level.prevented) == (way, way, True)


def test_a_forced_level_that_is_not_here_is_no_reason_for_another() -> None:
    for allowed in (False, True):
        with pytest.raises(OrchgitError) as caught:
            best(allowed, level="seatbelt")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert "macOS" in caught.value.why
        assert "[sandbox]" in caught.value.hint


def test_a_network_that_cannot_be_cut_refuses() -> None:
    level = Level("l", "old", prevented=True, networks=("none", "open"))
    require_networks(level, {"worker": "none", "checks": "open"})
    with pytest.raises(OrchgitError, match="checks = 'loopback'"):
        require_networks(level, {"worker": "none", "checks": "loopback"})
    assert (level.reach("none"), level.reach("loopback")) == ("none", "open")


@needs_landlock
@pytest.mark.parametrize("version", range(1, 8))
def test_the_rules_of_every_older_kernel_are_accepted(place: Place, version: int) -> None:
    if version > int(ABI):
        pytest.skip(f"this kernel has abi {ABI}")
    argv = keeper_argv(["true"], landlock=landlock.rules(version, replace(place.confinement, terminals=True)))
    ended = start(argv, cwd="/", env={"PATH": os.defpath}).finish(deadline_s=5)
    assert (ended.returncode, ended.stderr) == (0, b"")


def prove(place: Place, way: str, secret: str | None = None) -> list[canary.Probe]:
    forbidden = [str(place.outside), str(place.precious)]
    env = base_env(str(place.tmp), str(place.tmp))
    return canary.prove(
        sandbox(way),
        place.confinement,
        env=env,
        forbidden=forbidden,
        engine_pid=os.getpid(),
        secret_path=secret,
    )


@PREVENTING
@pytest.mark.parametrize("depth", [0, 120])
def test_the_canary_lives(place: Place, way: str, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`depth`: of the user's temporary directory, in characters; an address of a socket has no room for so many."""
    deep = place.outside.parent / ("d" * depth or "d")
    deep.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    level = sandbox(way).probe()
    assert isinstance(level, Level)
    hidden = replace(place, confinement=replace(place.confinement, hidden=(str(place.precious),)))
    probes = prove(hidden, way, secret=str(place.precious))
    assert canary.misses(probes, level) == []
    unprevented = {p.name for p in probes if not p.prevented}
    assert unprevented == {name for name, here in canary.promises(level).items() if not here}
    assert len(probes) == 15
    assert place.precious.read_text() == "precious"


def test_the_canary_dies_without_a_sandbox_and_harms_nothing(place: Place) -> None:
    probes = prove(place, "none", secret=str(place.precious))
    assert [p for p in probes if p.prevented] == []
    assert {p.name.split(" /")[0] for p in probes} == {
        "create", "rename into", "append in", "append", "truncate", "hard link", "engine environment",
        "signal", "limits", "connect", "UDP", "abstract socket", "socket file", "attributes", "secret",
    }  # fmt: skip
    assert place.precious.read_text() == "precious"
    assert os.listdir(place.outside) == ["precious"]
    assert os.listdir(place.cell) == os.listdir(place.tmp) == []
    assert "LEFT BEHIND" not in "".join(p.detail for p in probes)


def test_what_counts_as_a_miss() -> None:
    promises = canary.promises(Level("l", "", prevented=True))
    probes = [canary.Probe(name, False, "") for name in ("create /x", *promises)]
    every = dict.fromkeys(["udp", "abstract", "signals", "secrets", "limits", "attributes", "sockets"], True)
    full = Level("l", "", prevented=True, networks=("none",), **every)
    assert canary.misses(probes, full) == probes
    assert canary.misses(probes, Level("l", "", prevented=True)) == probes[:1]
    assert canary.misses(probes, replace(full, prevented=False)) == []
    assert canary.misses([replace(p, prevented=True) for p in probes], full) == []


@needs_landlock
def test_a_sandbox_with_a_hole_is_found_out(place: Place) -> None:
    holed = replace(place.confinement, writable=(str(place.cell), str(place.outside)))
    env = base_env(str(place.tmp), str(place.tmp))
    probes = canary.prove(sandbox("landlock"), holed, env=env, forbidden=[str(place.outside)], engine_pid=os.getpid())
    missed = {p.name.split(" /")[0] for p in canary.misses(probes, sandbox("landlock").probe())}  # type: ignore[arg-type]
    assert missed == {"create", "rename into", "append in"}
    assert os.listdir(place.outside) == ["precious"]


@needs_landlock
def test_a_canary_that_cannot_run_is_no_success(place: Place) -> None:
    gone = replace(place.confinement, writable=("/no/such/directory",))
    with pytest.raises(OrchgitError, match="did not let its own test run"):
        canary.prove(sandbox("landlock"), gone, env={}, forbidden=[], engine_pid=os.getpid())


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (
        "GIT_DIR",
        "GIT_CONFIG_GLOBAL",
        "ANTHROPIC_API_KEY",
        "LD_PRELOAD",
        "PYTHONPATH",
        "NODE_OPTIONS",
    ):
        monkeypatch.setenv(key, "bad")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    env = base_env("/h", "/t", extra={"KEY": "value"})
    assert "bad" not in env.values()
    assert (env["HOME"], env["TMPDIR"], env["TERM"], env["LC_ALL"]) == ("/h", "/t", "dumb", "C.UTF-8")
    assert (env["PATH"], env["KEY"]) == ("/usr/bin:/bin", "value")
    assert [key for key in env if key.startswith("GIT_")] == ["GIT_TERMINAL_PROMPT"]


def test_the_keeper_imports_nothing_of_ours() -> None:
    source = Path(KEEPER[-1], "keeper.py")
    assert "from orchgit" not in source.read_text()
    assert "import orchgit" not in source.read_text()
    assert stat.S_ISREG(source.stat().st_mode)
