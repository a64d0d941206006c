"""Runs one program, confined, and leaves nothing of it behind. A program of its own, no module of the engine:

    python -I -S keeper.py SPEC... -- PROGRAM [ARGUMENT...]    (or its `main`, which is quicker: it is compiled once)

It stays as the parent and adopts every orphan (sub-reaper). When the program ends, it kills every descendant,
daemons with a session of their own included; told SIGTERM (or INT, HUP, QUIT), or when the engine dies in
whatever way, it sends them TERM, and KILL after `grace_ms`, or at once when told again. Only then does it end
itself, with the program's exit status; if a signal killed the program, it kills itself by the same signal.
SIGUSR1 stops every descendant, those born meanwhile too, until SIGUSR2; an ending goes before both.
127: no such program. 126: it is there and cannot be run. 125, with "orchgit-sandbox: ..." on stderr: the
sandbox could not be set up, and the program was never run. 128, with a line on stderr: a limit was passed that the
keeper counts, and everything was ended.

It must never run the program with less confinement than the spec says, import anything outside the standard
library, or keep a descriptor above 2. The spec is made by `orchgit.sandbox.keeper_argv`; policy is not here.
It is words and not JSON, and `signal` and `typing` stay out, because it starts three times for every worker:
`json`, `re` and `enum` alone took longer than the interpreter itself.

    engine=PID grace_ms=N          whom it dies with, and how long TERM is given; or
    engine=none                    inside a bwrap that an outer keeper supervises: set the rest up, and exec
    network=HOW                    open; none, by the seccomp filter; loopback, a network namespace of its own
    rights=kept|dropped            dropped: capabilities, and by a seccomp filter (on the machines in FILTERED) what
                                   reaches other processes
    landlock=none|FILES,NETWORK,SCOPES,SIZE dir=RIGHTS:PATH... device=RIGHTS:PATH...
                                   the bits that are handled, and how many bytes of them this kernel knows
    real=PATH...                   directories that must be there without a symbolic link on the way
    limit=NAME:MOST...             a resource limit; memory (bytes) and processes are counted by the keeper
    at=PATH lower=PATH... upper=PATH work=PATH
                                   an overlay, mounted in a user and a mount namespace of the program's own before
                                   anything else is opened
    deaf=yes                       the program is a bwrap: TERM is for the one in it, which this one must outlive
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # what `signal` is made of, without its enums

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
# The same numbers on every architecture but alpha: they were given out after the tables had been unified.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
# By machine: AUDIT_ARCH, and the numbers of prlimit64, socket, shmget, msgget, semget. Little-endian, 64 bits.
FILTERED = {
    "x86_64": (0xC000003E, 302, 41, 29, 68, 64),
    "aarch64": (0xC00000B7, 261, 198, 194, 186, 190),
}
# sched_setaffinity, sched_setparam, sched_setscheduler, sched_setattr; setpriority, ioprio_set; the keyring's three.
MORE = {
    "x86_64": ((203, 142, 144, 314), (141, 251), (248, 249, 250)),
    "aarch64": ((122, 118, 119, 274), (140, 30), (217, 218, 219)),
}
IO_URING_SETUP = 425  # everywhere
TIOCSCTTY = 0x540E
SECCOMP_MODE_FILTER, X32_BIT, EPERM = 2, 0x40000000, 1
AF_UNIX, AF_NETLINK = 1, 16
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000 | EPERM, 0x80000000  # what a filter returns

LIMIT_PASSED = 128  # an exit status
LOOK_S = 0.25  # between two countings; a fork bomb makes a few thousand meanwhile
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
MS_RDONLY = 1

COUNTED = ("memory", "processes")

ENDINGS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
PAUSE, RESUME = signal.SIGUSR1, signal.SIGUSR2
WATCHED = ENDINGS | {signal.SIGCHLD, PAUSE, RESUME}
PAUSE_S = 1.0  # how often a pause looks for who runs all the same: somebody outside may have sent it SIGCONT

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class SetupError(Exception):
    """The sandbox does not stand: nothing may run."""


def call(what: str, function: ctypes._NamedFuncPointer, *args: int | bytes) -> int:
    """A C function with word-sized arguments; SetupError when it returns a negative number."""
    result = int(function(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in args)))
    if result < 0:
        raise SetupError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def main(args: list[str]) -> NoReturn:
    """Never returns. `args` is [SPEC..., "--", program, argument...]."""
    try:
        end = args.index("--") if "--" in args else len(args)
        argv = args[end + 1 :]
        if not argv:
            raise SetupError("usage: keeper.py SPEC... -- PROGRAM [ARGUMENT...]")
        spec = read_spec(args[:end])
        if spec["engine"] == "none":
            restrict(spec)
            own_terminal()
            run(argv)
        engine, grace_s = int(spec["engine"]), int(spec["grace_ms"]) / 1000
        most = {name: int(limit) for name, limit in spec["limit"] if name in COUNTED}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would lose every exit status
        # Blocked and waited for, never handled: no moment in which one of them is lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        call("parent-death signal", libc.prctl, PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != engine:  # it died before the line above
            raise SetupError("the engine that asked for this is gone")
        call("sub-reaper", libc.prctl, PR_SET_CHILD_SUBREAPER, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Opened before the program can lower our RLIMIT_NOFILE. It closes what it inherits of them.
        null, children = os.open("/dev/null", os.O_RDWR), open_children()
        keeper, program = os.getpid(), os.fork()
        if program == 0:
            lock_down(spec, keeper)
            if not spec["deaf"]:
                own_terminal()
            run(argv)
    except (SetupError, ValueError, LookupError, TypeError, AttributeError, OSError, struct.error) as error:
        quit_with(125, f"orchgit-sandbox: {type(error).__name__}: {error}")
    supervise(program, grace_s, null, children, most)


ONCE = ("engine", "grace_ms", "network", "rights", "landlock", "at", "upper", "work", "deaf")


def read_spec(words: list[str]) -> dict:  # type: ignore[type-arg]
    """The words by their keys: a string for what is said once, a list for the others, of (head, rest) for rules."""
    spec: dict[str, object] = {}
    ruled: dict[str, list[tuple[str, str]]] = {"limit": [], "dir": [], "device": []}
    listed: dict[str, list[str]] = {"real": [], "lower": []}
    for word in words:
        key, equals, value = word.partition("=")
        head, colon, rest = value.partition(":")
        if key in ruled and head and colon and rest:
            ruled[key].append((head, rest))
        elif key in listed and value:
            listed[key].append(value)
        elif equals and key in ONCE and key not in spec:
            spec[key] = value
        else:
            raise SetupError(f"not a spec: {word}")
    if (spec["landlock"] == "none") != (not ruled["dir"]) or (not ruled["dir"]) != (not ruled["device"]):
        raise SetupError("not a spec: rules without landlock, or the reverse")
    if spec["rights"] not in ("kept", "dropped") or spec["network"] not in ("open", "none", "loopback"):
        raise SetupError(f"not a spec: rights={spec['rights']} network={spec['network']}")
    if spec["rights"] == "kept" and (spec["landlock"] != "none" or spec["network"] == "none"):
        raise SetupError("not a spec: what would be enforced could be undone")
    if spec["engine"] == "none" and any(name in COUNTED for name, _ in ruled["limit"]):
        raise SetupError("not a spec: a limit that nobody would count")
    if len({"at", "upper", "work"} & set(spec)) != (3 if listed["lower"] else 0):
        raise SetupError("not a spec: a part of an overlay is missing")
    return {"deaf": "", **spec, **ruled, **listed}


def quit_with(code: int, line: str) -> NoReturn:
    say(line)
    os._exit(code)


def say(line: str) -> None:
    try:
        os.write(2, f"{line}\n".encode(errors="replace"))
    except OSError:
        pass  # the engine that would have read it is gone


# ---- the program's side: from the fork to the exec


def lock_down(spec: dict, keeper: int) -> None:  # type: ignore[type-arg]
    """Under the keeper: what ties the program to it, and then everything else."""
    os.setsid()  # its own group: a kill(0, ...) of the program's must not reach the keeper
    if spec["lower"] or spec["network"] == "loopback":
        enter_namespaces(spec)
    call("parent-death signal", libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        raise SetupError("the keeper is gone")
    os.umask(0o022)
    try:  # out of memory, the kernel should take the program, never the keeper: nobody would sweep
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass
    restrict(spec)


def restrict(spec: dict) -> None:  # type: ignore[type-arg]
    """Everything the program may not undo. The order matters where a line says so."""
    for path in spec["real"]:
        os.close(open_real(path))
    for name, wanted in spec["limit"]:
        if name in COUNTED:
            continue
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(number)[1]
        most = int(wanted) if hard == resource.RLIM_INFINITY else min(int(wanted), hard)
        resource.setrlimit(number, (most, most))
    # Python ignores the last two, and an exec would keep that.
    for number in (*ENDINGS, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN if spec["deaf"] and number in ENDINGS else signal.SIG_DFL)
    # One that came before this process had a group of its own is still pending, and would end it: ignoring discards.
    for number in (PAUSE, RESUME):
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if spec["rights"] == "dropped":
        call("no_new_privs", libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # Landlock asks for it
        if spec["landlock"] != "none":
            files, network, scopes, size = map(int, spec["landlock"].split(","))
            landlock(struct.pack("=QQQ", files, network, scopes)[:size], spec["dir"], spec["device"])
        drop_capabilities()
        if program := seccomp_program(cut=spec["network"] == "none"):
            seccomp(program)
    for name in os.listdir("/proc/self/fd"):  # an open descriptor is a right that Landlock does not revoke
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one listdir itself had open


def enter_namespaces(spec: dict) -> None:  # type: ignore[type-arg]
    """A user namespace in which we are who we were, and in it what only its owner may do: mount, bring `lo` up."""
    user, group, loopback = os.geteuid(), os.getegid(), spec["network"] == "loopback"
    flags = CLONE_NEWUSER | CLONE_NEWNS * bool(spec["lower"]) | CLONE_NEWNET * loopback
    call("user namespace", libc.unshare, flags)
    # In this order: without the first, no user but root may write the last.
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)
    if loopback:
        import _socket
        import fcntl

        request = struct.pack("16sh14x", b"lo", IFF_UP)
        some = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        fcntl.ioctl(some.fileno(), SIOCSIFFLAGS, request)
        some.close()
    if spec["lower"]:
        mount_overlay(spec["at"], spec["lower"], spec["upper"], spec["work"])


def mount_overlay(at: str, lowers: list[str], upper: str, work: str) -> None:
    """Fails where one of the paths is no directory, or not a real one."""
    cwd = os.getcwd()
    # By descriptor: commas, colons and backslashes in a path would have to be escaped, each in its own way.
    upper, work, *lowers = (f"/proc/self/fd/{open_real(path)}" for path in (upper, work, *lowers))
    options = f"userxattr,lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    point = f"/proc/self/fd/{open_real(at)}"
    call(f"overlay at {at}", libc.mount, *map(os.fsencode, ("overlay", point, "overlay")), 0, os.fsencode(options))
    # By their own names the layers are other cells' files too, and Landlock lets an owner change modes and times.
    for layer in (upper, work, *lowers):
        cover = map(os.fsencode, ("tmpfs", layer, "tmpfs"))
        call("an empty directory over a layer", libc.mount, *cover, MS_RDONLY, b"size=4k,mode=555")
    os.chdir(cwd)  # or it would still be the directory below the mount


def open_real(path: str) -> int:
    """A directory, as it is named: SetupError when a symbolic link is on the way.

    A worker's earlier attempt may have put one where its directory was, and we would grant what it points to.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.readlink(f"/proc/self/fd/{fd}") != path:
        raise SetupError(f"{path} is not a real path: a part of it is a symbolic link, or it was moved")
    return fd


def landlock(attribute: bytes, dirs: list[tuple[str, str]], devices: list[tuple[str, str]]) -> None:
    """Applies what `orchgit.sandbox.landlock` has decided."""
    ruleset = call("landlock ruleset", libc.syscall, CREATE_RULESET, attribute, len(attribute), 0)
    for rights, path in dirs:
        add_rule(ruleset, open_real(path), int(rights), path)
    for rights, path in devices:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(os.fstat(fd).st_mode) or path == "/dev/pts":
            add_rule(ruleset, fd, int(rights), path)
    call("landlock", libc.syscall, RESTRICT_SELF, ruleset, 0)


def add_rule(ruleset: int, fd: int, rights: int, path: str) -> None:
    call(f"landlock rule for {path}", libc.syscall, ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    os.close(fd)


def drop_capabilities() -> None:
    """All of them, for good. CAP_PERFMON alone reads /proc/<engine>/environ past Landlock: the API key."""
    for capability in range(64):
        try:
            call("bounding set", libc.prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
        except SetupError:
            # Without CAP_SETPCAP, or beyond the last one. The bounding set is the second lock: no_new_privs
            # already keeps an exec as root from giving back what capset takes (ambient ones go with it).
            break
    header, nothing = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    call("dropping capabilities", libc.capset, header, nothing)


def seccomp_program(*, cut: bool = False) -> bytes:
    """What Landlock leaves open, as classic BPF; empty on a machine whose system calls are not known here.

    prlimit64 on another process: it ends the engine by RLIMIT_CPU, blinds the keeper by RLIMIT_NOFILE, gives the
    engine a core file with the API key in it; its scheduling and priorities likewise, by which it would starve. And
    System V IPC and the user's keyring, which outlive the run. Another architecture's system calls have other numbers,
    so none of them is let through. `cut`: no sockets but Unix and netlink ones, so that UDP, raw packets and the
    hypervisor's sockets are cut as well; and no io_uring, which makes any of them.
    """
    numbers = FILTERED.get(os.uname().machine)
    if numbers is None or sys.maxsize < 1 << 32:  # a 32-bit Python on a 64-bit kernel is another architecture
        return b""
    arch, prlimit, socket, *ipc = numbers
    scheduling, priorities, keyring = MORE[os.uname().machine]
    # What each of these may have as which argument: the process (0 is who asks), the protocol family.
    guarded: dict[int, tuple[int, tuple[int, ...]]] = dict.fromkeys((prlimit, *scheduling), (0, (0,)))
    guarded |= dict.fromkeys(priorities, (1, (0,)))
    guarded |= {socket: (0, (AF_UNIX, AF_NETLINK))} if cut else {}
    refused = [*ipc, *keyring, *((IO_URING_SETUP,) if cut else ())]
    load, equal, at_least, end = 0x20, 0x15, 0x35, 0x06
    at_nr, at_arch, at_arguments = 0, 4, 16  # in struct seccomp_data; of an argument, the lower word
    allow = 4 + len(refused) + len(guarded) + sum(1 + len(values) for _, values in guarded.values())
    deny, kill = allow + 1, allow + 2
    lines = [(load, 0, 0, at_arch), (equal, 2, kill, arch), (load, 0, 0, at_nr), (at_least, deny, 4, X32_BIT)]
    lines += [(equal, deny, 5 + i, number) for i, number in enumerate(refused)]
    tests: list[tuple[int, int, int, int]] = []
    start = len(lines) + len(guarded)
    for i, (number, (argument, values)) in enumerate(guarded.items()):
        otherwise = len(lines) + 1 if i < len(guarded) - 1 else allow
        lines.append((equal, start + len(tests), otherwise, number))
        tests.append((load, 0, 0, at_arguments + 8 * argument))
        for value in values:
            at = start + len(tests)
            tests.append((equal, allow, deny if value == values[-1] else at + 1, value))
    lines += [*tests, (end, 0, 0, ALLOW), (end, 0, 0, DENY), (end, 0, 0, KILL)]
    # Written with the lines to go to; the kernel wants how many to skip.
    return b"".join(
        struct.pack("=HBBI", code, then and then - at - 1, other and other - at - 1, operand)
        for at, (code, then, other, operand) in enumerate(lines)
    )


def seccomp(program: bytes) -> None:
    """Asks for no_new_privs. There is no way back."""
    lines = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    call("seccomp filter", libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0)


def own_terminal() -> None:
    """A terminal that the program was given is its session's: keys can become signals, and `/dev/tty` opens."""
    for fd in (0, 1, 2):
        if os.isatty(fd):
            try:
                os.setsid()  # inside bwrap, the session is that of bwrap's own init
            except OSError:
                pass  # its leader already
            libc.ioctl(fd, TIOCSCTTY, 0)  # refused where it is another session's: then it is just not so
            return


def run(argv: list[str]) -> NoReturn:
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        # A script whose interpreter is missing gives the same error.
        quit_with(127, f"orchgit: {argv[0]}: no such program (or the interpreter in its first line is missing)")
    except OSError as error:
        quit_with(126, f"orchgit: {argv[0]}: cannot be run: {error.strerror}")


# ---- the keeper's side


def supervise(program: int, grace_s: float, null: int, children: int, most: dict[str, int]) -> NoReturn:
    """Wait for the program, or for a signal; end everything; leave as the program did. `most`: limits to count."""
    for fd in (0, 1):  # or the engine would not see that the program closed its ends
        try:
            os.dup2(null, fd)
        except OSError:  # RLIMIT_NOFILE is 0
            os.close(fd)
    status: int | None = None
    kill_at: float | None = None  # monotonic seconds
    look_at, too_much = time.monotonic() + LOOK_S, ""
    paused = False
    while True:
        left_s = PAUSE_S if paused else 60.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
        seen = signal.sigtimedwait(WATCHED, min(left_s, LOOK_S) if most else left_s)
        ended, alone = reap()
        status = ended.get(program, status)
        if alone or (status is not None and kill_at is None) or (kill_at and time.monotonic() >= kill_at):
            break
        if seen and seen.si_signo in ENDINGS and kill_at is not None:
            break
        if seen and seen.si_signo in ENDINGS:
            kill_at, paused = time.monotonic() + grace_s, False
            for pid in family(children):
                kill(pid, signal.SIGTERM)
                kill(pid, signal.SIGCONT)  # a stopped process would get its TERM never
        elif seen and seen.si_signo in (PAUSE, RESUME) and kill_at is None:
            paused = seen.si_signo == PAUSE
            for pid in () if paused else family(children):
                kill(pid, signal.SIGCONT)
        if paused:
            halt(children)
        if most and time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_S
            if too_much := passed(most, children):
                break
    while not alone:
        # As sub-reaper we are every orphan's parent: without a child there is no descendant, so "no child"
        # proves it, and what one walk misses because it was just being forked, the next one finds.
        victims = family(children)
        if victims and not sum(kill(pid, signal.SIGKILL) for pid in victims):
            say(f"orchgit: not allowed to end {victims}: they go on")
            break
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)
        ended, alone = reap()
        status = ended.get(program, status)
    if too_much:
        quit_with(LIMIT_PASSED, f"orchgit: {too_much}: everything was ended")
    leave(status)


def passed(most: dict[str, int], children: int) -> str:
    """Which limit is passed, in words; "" if none. RLIMIT_NPROC counts a user's, and RLIMIT_AS breaks node."""
    pids = descendants(os.getpid()) if children < 0 else kin(os.getpid())
    if len(pids) > most.get("processes", len(pids)):
        return f"{len(pids)} processes, and the limit is {most['processes']}"
    # What is shared is counted once for each who shares it; only when that is too much, exactly.
    if "memory" not in most or sum(map(resident, pids)) <= most["memory"]:
        return ""
    used = sum(map(proportional, pids))
    return f"{used >> 20} MB of memory, and the limit is {most['memory'] >> 20} MB" if used > most["memory"] else ""


def kin(root: int) -> list[int]:
    """As `descendants`, and misses no fewer, but costs what there is of them and not what runs on the machine."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    todo += (below := [int(child) for child in file.read().split()])
                    found += below
        except (OSError, ValueError):
            continue  # it has just ended, or we may open nothing
    return found


def resident(pid: int) -> int:
    """Bytes; 0 when it has just ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Bytes, of what is shared its part."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    except (OSError, ValueError, StopIteration):
        return resident(pid)


def reap() -> tuple[dict[int, int], bool]:
    """The statuses of those that ended, by process id; and whether no child is left."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, True
        if pid == 0:
            return ended, False
        ended[pid] = status


def kill(pid: int, number: int) -> bool:
    """False when it may not be signalled (it is another user's now: sudo, without a sandbox)."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def halt(children: int) -> None:
    """Stop every descendant. Again, as long as one is found that still runs: a fork may be faster than the walk."""
    stopped: set[int] = set()
    for _ in range(1000):
        running = set(family(children)) - stopped
        if not sum(kill(pid, signal.SIGSTOP) for pid in running):
            return
        stopped |= running


def open_children() -> int:
    """A descriptor to read our direct children from, or -1 (a kernel without CONFIG_PROC_CHILDREN)."""
    try:
        return os.open("/proc/thread-self/children", os.O_RDONLY)
    except OSError:
        return -1


def family(children: int) -> list[int]:
    """Our descendants. When nothing can be opened any more, our children: ended, they leave us theirs."""
    try:
        return descendants(os.getpid())
    except OSError:  # EMFILE, ENFILE, ENOMEM
        pass
    try:
        # A space follows each: what has none was cut off, and would be someone else.
        return [int(pid) for pid in os.pread(children, 1 << 16, 0).rpartition(b" ")[0].split()]
    except OSError:
        return []  # to be asked again: whoever has children left does not leave


def descendants(root: int) -> list[int]:
    """The process ids below `root`, zombies left out. Not a snapshot: what is forked meanwhile may be missing."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            # The command's name stands in brackets before these, and may hold spaces and brackets itself.
            if state not in (b"Z", b"X"):
                below.setdefault(int(parent), []).append(int(name))
    found, todo = [], [root]
    while todo:
        todo += (children := below.get(todo.pop(), []))
        found += children
    return found


def leave(status: int | None) -> NoReturn:
    if status is None:  # it could not be ended
        os._exit(125)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
