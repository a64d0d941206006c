"""A server that forks engines: everything is imported once, so that one run costs what it does and not what it loads.

    LD_PRELOAD=shim.so CRASH_SHIM=block python -m tests.crash.engine < one JSON request per line

Each request names arguments, environment, directory, and what is to go wrong in that engine: a fault (below), and the
steps of the protocol that are taken out of it (`SABOTAGE`), to see that somebody notices. The engine is the real one,
in a process of its own, killed by the kernel.

    {"kind": "event", "number": N, "phase": "before" | "torn" | "unsynced" | "after", "part": 0..99}
    {"kind": "call", "number": N, "action": "kill" | "once" | "always", "errno": E, "classes": MASK,
     "match": PART}                           of those whose path has this part
    {"kind": "file", "match": GLOB}           killed as soon as there is such a file below the state directory
    {"kind": "count", "classes": MASK}       only counts
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

# What an engine ever imports: the point of the server.
import git  # noqa: F401
import watchdog.observers  # noqa: F401

import orchgit.__main__ as program
import orchgit.agents.loop
import orchgit.agents.scripted
import orchgit.agents.toolbox
import orchgit.cli.abort
import orchgit.cli.approve
import orchgit.cli.audit
import orchgit.cli.human
import orchgit.cli.resume
import orchgit.cli.screen
import orchgit.cli.start
import orchgit.cli.status
import orchgit.core.audit
import orchgit.effects
import orchgit.git.facts
import orchgit.sandbox.landlock
import orchgit.session
from orchgit import cellrun, eventlog, publish, recovery, runner, sandbox
from orchgit.core.events import AgentFailed, CellRequested
from orchgit.git import door

ALL = 15
FIELDS = struct.Struct("=8Q")
ACTIONS = {"count": 0, "kill": 1, "once": 2, "always": 3}


class Block:
    """The control block that the shim shares with every git of the engine."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def arm(self, fault: dict[str, Any] | None, trace: str, under: str) -> None:
        action, number, error, classes = "count", 0, 0, ALL
        if fault and fault["kind"] == "call":
            action, number = fault["action"], fault["number"]
            error, classes = fault.get("errno", 0), fault.get("classes", ALL)
        elif fault and fault["kind"] == "count":
            classes = fault.get("classes", ALL)
        self.map[:1024] = bytes(1024)
        for offset, text in ((256, (fault or {}).get("match", "")), (384, trace), (640, under)):
            at = FIELDS.size + offset
            self.map[at : at + len(text)] = text.encode()
        self.map[: FIELDS.size] = FIELDS.pack(1, 0, number, ACTIONS[action], error, classes, os.getpid(), 0)

    def read(self) -> dict[str, Any]:
        """Calls counted, how many there were of each class, whether the fault fired, and where."""
        fields = FIELDS.unpack(self.map[: FIELDS.size])
        what = self.map[FIELDS.size : FIELDS.size + 256].split(b"\0")[0].decode("utf-8", "replace")
        of_class = struct.unpack_from("=9Q", self.map, FIELDS.size + 640 + 256 + 24)
        return {"counted": fields[1], "of_class": of_class, "fired": bool(fields[7]), "what": what}

    def fired(self, what: str) -> None:
        self.map[FIELDS.size - 8 : FIELDS.size] = struct.pack("=Q", 1)
        self.map[FIELDS.size : FIELDS.size + 200] = what.encode()[:200].ljust(200, b"\0")


class Faulty:
    """`os`, as the event log sees it, with one death in it."""

    def __init__(self, fault: dict[str, Any], block: Block) -> None:
        self._fault, self._block, self._seen = fault, block, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _die(self, what: str) -> None:
        self._block.fired(what)
        os.kill(os.getpid(), signal.SIGKILL)

    def _is_log(self, fd: int) -> bool:
        return "events.jsonl" in os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    def write(self, fd: int, data: bytes) -> int:
        if not self._is_log(fd):
            return os.write(fd, data)
        self._seen += 1
        if self._seen != self._fault["number"]:
            return os.write(fd, data)
        phase = self._fault["phase"]
        what = f"event write {self._seen}, {phase} {self._fault.get('part', '')}"
        if phase == "before":
            self._die(what)
        if phase == "torn":
            os.write(fd, bytes(data)[: max(1, len(data) * self._fault["part"] // 100)])
            self._die(what)
        written = os.write(fd, data)
        if phase == "unsynced":
            self._die(what)
        return written

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        if self._fault["phase"] == "after" and self._is_log(fd) and self._seen >= self._fault["number"]:
            self._die(f"after the fsync of event write {self._seen}")


def kill_at_file(pattern: str, block: Block) -> None:
    def there() -> bool:
        try:
            return any(Path(os.environ["XDG_STATE_HOME"]).glob(pattern))
        except OSError:  # a directory that is just being removed
            return False

    def look() -> None:
        while not there():
            time.sleep(0.002)
        block.fired(pattern)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True).start()


def immortal() -> None:
    """As on a platform where nothing kills agents whose engine is gone: a keeper without the parent-death signal."""
    keeper = Path(sandbox.__file__).with_name("keeper.py")
    text = keeper.read_text()
    lines = [line for line in text.splitlines() if 'call("parent-death signal"' not in line]
    assert len(text.splitlines()) - len(lines) >= 2, "the keeper has changed: this takes nothing out of it any more"
    made = Path(os.environ["TMPDIR"]) / "keeper.py"
    made.write_text("\n".join(lines) + "\n")
    plain = sandbox.keeper_argv

    def argv(*args: Any, **kwargs: Any) -> list[str]:
        return [str(made.parent) if word == str(keeper.parent) else word for word in plain(*args, **kwargs)]

    for module in (sandbox, orchgit.sandbox.landlock):
        module.keeper_argv = argv  # type: ignore[attr-defined]


def same_canary() -> None:
    """The sandbox is proved once for all the engines of this server: the proof is not what is tested here."""
    plain = cellrun.tried

    def tried(*args: Any, **kwargs: Any) -> Any:
        kept = Path(os.environ["CRASH_CANARY"])
        if not kept.exists():
            kept.with_suffix(".half").write_bytes(pickle.dumps(plain(*args, **kwargs)))
            kept.with_suffix(".half").rename(kept)
        return pickle.loads(kept.read_bytes())  # noqa: S301 - our own

    cellrun.tried = tried


def act_before_request() -> None:
    """Start what is asked for, and only then write it down."""
    plain, started = runner.Runner.record, runner.Runner._start

    def record(self: Any, *drafts: Any) -> Any:
        append = self.log.append
        held: list[Any] = []
        self.log.append = held.extend
        try:
            written = plain(self, *drafts)
        finally:
            self.log.append = append
        if self.world is not None:
            for event in written:
                if event.body.kind == "request" and event.seq in self.run.pending:
                    started(self, self.world, event)
                    if isinstance(event.body, CellRequested):  # until it has done something that nobody wrote down
                        cell = self.world.cell(event.body.assignment, event.body.attempt).root
                        while not cell.exists():
                            time.sleep(0.005)
        if held:
            self.log.append(held)
        return written

    def start(self: Any, world: Any, event: Any, *, inherited: bool = False) -> None:
        if event.seq not in self._threads:
            started(self, world, event, inherited=inherited)

    runner.Runner.record = record  # type: ignore[method-assign]
    runner.Runner._start = start  # type: ignore[method-assign]


def no_compare() -> None:
    """Move refs whatever they are at."""
    plain = door.Door.swap
    door.Door.swap = lambda self, changes, reason: plain(  # type: ignore[method-assign]
        self, [(name, new, None) for name, new, _ in changes], reason
    )


def no_mending() -> None:
    def leave(self: Any) -> None:
        self._size = self.events.stat().st_size

    eventlog.Log._mend = leave  # type: ignore[method-assign]


def no_lock_clearing() -> None:
    recovery._locks = lambda common, run: iter(())


def no_stopping() -> None:
    recovery._stop = lambda children: iter(())


def no_clearing() -> None:
    recovery._objects = lambda door, run: iter(())
    recovery._cells = lambda state, run: iter(())


def no_barrier() -> None:
    door.Door.barrier = lambda self, *more: None  # type: ignore[method-assign]


def forget_requests() -> None:
    """Resume takes nothing up that an engine before it had asked for."""
    plain = runner.Runner._take_up

    def take_up(self: Any, world: Any) -> None:
        for seq in self._inherited:
            self._threads[seq] = threading.Thread()  # as if it were under way
            self._threads[seq].start()
        plain(self, world)

    runner.Runner._take_up = take_up  # type: ignore[method-assign]


def lost_counts() -> None:
    """An interrupted attempt is held against the worker."""
    plain = orchgit.effects.recover

    def recover(world: Any, run: Any, event: Any, emit: Any) -> Any:
        draft = plain(world, run, event, emit)
        if isinstance(draft.body, AgentFailed) and draft.body.lost:
            return replace(draft, body=replace(draft.body, lost=False))
        return draft

    orchgit.effects.recover = recover


def no_publishing() -> None:
    publish.due = lambda run: False


SABOTAGE = {
    f.__name__: f
    for f in (
        *(immortal, act_before_request, no_compare, no_mending, no_lock_clearing, no_stopping, no_clearing),
        *(no_barrier, forget_requests, lost_counts, no_publishing),
    )
}


def engine(request: dict[str, Any], block: Block, shim: dict[str, str]) -> None:
    """In the forked child; never returns."""
    os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(fd, target)
    os.environ["CRASH_CANARY"] = request["canary"]
    same_canary()
    for name in request.get("without", ()):
        SABOTAGE[name]()
    fault = request.get("fault")
    if fault and fault["kind"] == "event":
        eventlog.os = Faulty(fault, block)  # type: ignore[assignment, attr-defined]
    if fault and fault["kind"] == "file":
        kill_at_file(fault["match"], block)
    plain = door.clean_env
    for module in list(sys.modules.values()):
        if getattr(module, "clean_env", None) is plain:
            module.clean_env = lambda: {**plain(), **shim}  # type: ignore[attr-defined]
    block.arm(fault, request["trace"], f"{request['cwd']}/.git")
    code = 3
    try:
        code = program.main(request["argv"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    shim = {k: os.environ[k] for k in ("LD_PRELOAD", "CRASH_SHIM") if k in os.environ}
    block = Block(os.environ["CRASH_SHIM"])
    for line in sys.stdin:
        request = json.loads(line)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            engine(request, block, shim)
        status = None
        pause = 0.001
        while time.monotonic() - begun < request["deadline_s"]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            status = None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        seen = block.read()
        block.map[:8] = bytes(8)  # nothing that the engine left behind may count on, and kill whoever has its number
        answer = {
            "code": None if status is None else os.waitstatus_to_exitcode(status),
            **seen, "s": time.monotonic() - begun,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
