"""Kill one run everywhere, resume it, and say whether it is as if nothing had happened.

The run has three workers, a second attempt after failed checks, a review with a finding and its fix. A case is a first
fault (at an event boundary, or at the N-th call of the engine or one of its gits that changes a file system) and
perhaps a second one while it recovers. Everything is real: engines, gits, sandboxes, kills; only the agents follow a
playbook. `python -m tests.crash` runs them all; the tests run a seeded sample.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orchgit.core.audit import judge, read
from orchgit.git.door import Door
from orchgit.git.facts import GitFacts
from tests.crash import power
from tests.crash.power import FileSystem, Loss
from tests.support.scenario import SOURCE, Book, World, bash, finding, make, piece, turn, write

HERE = Path(__file__).parent
DEADLINE_S = 60.0
PARTS = (2, 50, 99)
WORKERS = ("api", "web", "last")
LATE = "for i in $(seq {}); do date +%N >> src/api/late.txt; sleep 0.01; done"

Fault = dict[str, Any]
# What a refused call can become that a human, or another attempt, has to deal with.
ASKING = ("blocker.raised", "cell.failed", "gate.failed", "agent.failed", "run.failed", "merge.stale", "checks.stale")
# While the first worker's command runs, which goes on writing if nobody stops it.
AT_WORK: Fault = {"kind": "file", "match": "orchgit/*/*/api-1/**/late.txt"}


def book(*, outliving: int = 0) -> Book:
    """`outliving`: so often the first worker writes a line, a hundred times a second, if nobody stops it."""
    made = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["grep -n good src/api/a.py"]),
        piece("web", "frontend-agent", ["src/web/**"]),
        piece("last", "test-agent", ["tests/**"], depends_on=["api", "web"]),
    )
    late = (bash(LATE.format(outliving)),) if outliving else ()
    made.jobs["work/api/1"] = [turn(write("src/api/a.py", "bad\n"), *late), turn(report_of("api"))]
    gone = (bash("rm -f src/api/late.txt"),) if outliving else ()
    made.jobs["work/api/2"] = [turn(write("src/api/a.py", "good\n"), *gone), turn(report_of("api"))]
    fixed = [turn(write("src/api/a.py", "good and safe\n")), turn(report_of("api"))]
    made.jobs["work/api/3"] = fixed
    made.work("web", turn(write("src/web/w.html", "<p>\n")))
    made.work("last", turn(write("tests/t.txt", "t\n")))
    return made.review(finding("src/api/a.py", "not safe")).review(fixed=["F1"])


def report_of(name: str) -> Any:
    return {"tool": "report", "input": {"summary": f"{name} is done"}}


class Engines:
    """The forking server, and what it answers. Use as a context."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="crash-", dir=place()))
        self.shim = build_shim()
        block = self.folder / "block"
        block.write_bytes(bytes(4096))
        env = {**os.environ, "LD_PRELOAD": str(self.shim), "CRASH_SHIM": str(block), "PYTHONPATH": str(SOURCE)}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=SOURCE,
        )

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, world: World, *argv: str, fault: Fault | None = None, without: tuple[str, ...] = (),
            deadline_s: float = DEADLINE_S, trace: str = "") -> Ran:  # fmt: skip
        request = {
            "argv": list(argv), "env": world.env, "cwd": str(world.repo), "out": str(world.root / "out.txt"),
            "canary": str(self.folder / "canary"), "fault": fault, "without": list(without), "deadline_s": deadline_s,
            "trace": trace,
        }  # fmt: skip
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, "the server of engines is gone"
        return Ran(**json.loads(answer))


@dataclass(frozen=True)
class Ran:
    """`code` None: it did not end in time. `counted`: calls that change a file system, gits included."""

    code: int | None
    counted: int
    of_class: list[int]  # by the shim's numbers of classes
    fired: bool
    what: str
    s: float


def place() -> str:
    """Not /dev/shm, which is quicker: bubblewrap has one of its own, and the cells would not be in it."""
    return os.environ.get("CRASH_PLACE") or tempfile.gettempdir()


def build_shim() -> Path:
    made = Path(tempfile.gettempdir()) / f"orchgit-shim-{os.getuid()}-{int((HERE / 'shim.c').stat().st_mtime)}.so"
    if not made.exists():
        half = made.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", half, HERE / "shim.c", "-ldl"], check=True)
        half.rename(made)
    return made


@dataclass
class Result:
    """`fired`: how many of its faults were seen to happen. `wrong`: what does not hold; empty is well."""

    faults: list[Fault]
    fired: int
    where: list[str]
    wrong: list[str] = field(default_factory=list)
    said: str = ""


class Lab:
    """One template world, copied for every case; and the tree of the undisturbed run. Use as a context."""

    def __init__(self, *, outliving: int = 0, without: tuple[str, ...] = (), plain: bool = False) -> None:
        self.without = without
        self.engines = Engines()
        self.folder = Path(tempfile.mkdtemp(prefix="lab-", dir=place()))
        self.template = make(self.folder / "template")
        if outliving:  # bubblewrap's own namespace dies with it: there nobody can outlive anything
            self.template.commit({".orchestration/config.toml": '[sandbox]\nlevel = "landlock"\n'})
        if plain:  # a fifth less to do: no bubblewrap, no overlays
            cheaper = '[sandbox]\nlevel = "landlock"\n[cells]\noverlay = "never"\n'
            self.template.commit({".orchestration/config.toml": cheaper})
        self.book = book(outliving=outliving)
        self._number = 0
        world = self.fresh()
        ran = self.engines.run(world, *world.start_args(self.book, "--yes"), fault={"kind": "count"})
        assert ran.code == 0, (world.root / "out.txt").read_text()
        self.calls, self.of_class = ran.counted, ran.of_class
        types = [ev["type"] for ev in world.events()]
        self.first = types.index("plan.requested") + 1  # events of the first batch, which is one write
        self.events = len(types) - self.first + 1  # writes to the log
        self.tree = world.git("rev-parse", f"orchgit/{world.name}/integration^{{tree}}")
        self.merges = merged(world)
        wrong = self.violations(world)
        assert not wrong, f"the undisturbed run: {wrong}"
        self.undisturbed = world

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.engines.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh(self) -> World:
        self._number += 1
        root = self.folder / f"case-{self._number}"
        shutil.copytree(self.template.root, root, symlinks=True)
        return World(root)

    def write_of(self, kind: str, **data: Any) -> int:
        """The number of the write that logs the first such event of the undisturbed run."""
        return int(self.undisturbed.events(kind, **data)[0]["seq"]) - self.first + 2

    def case(
        self, *faults: Fault, kill: bool = True, without: tuple[str, ...] = (), deadline_s: float = DEADLINE_S
    ) -> Result:
        """Start with the first fault, resume with each of the others, then resume to the end, and look."""
        without = without or self.without
        world = self.fresh()
        result = Result(list(faults), 0, [])
        for fault in faults:
            self._fault(world, result, fault, kill, without)
        self._end(world, result, without, deadline_s)
        shutil.rmtree(world.root, ignore_errors=True)
        return result

    def cases(self, before: tuple[Fault, ...], last: Sequence[Fault]) -> Iterator[Result]:
        """As `case` of `before` and one of `last`, for each of them; what leads there is done once. What it left is
        copied, and put back in the same place: paths are part of it."""
        world, kept = self.fresh(), self.folder / "kept"
        first = Result(list(before), 0, [])
        for fault in before:
            self._fault(world, first, fault, True, self.without)
        kill_left(world)  # who is at work would go on in one copy and not in the other
        copy_world(world.root, kept)
        for fault in last:
            result = Result([*before, fault], first.fired, [*first.where], [*first.wrong])
            self._fault(world, result, fault, True, self.without)
            self._end(world, result, self.without, DEADLINE_S)
            yield result
            shutil.rmtree(world.root)
            copy_world(kept, world.root)
        shutil.rmtree(world.root)
        shutil.rmtree(kept)

    def power(
        self, fault: Fault, losses: Sequence[tuple[Loss, int]], without: tuple[str, ...] = ()
    ) -> Iterator[Result]:
        """The power goes there; for each kind of loss and seed, one of the things that can be there afterwards."""
        world, kept, trace = self.fresh(), self.folder / "kept", self.folder / "trace"
        common = world.repo / ".git"
        disk = FileSystem(common)
        first = Result([fault], 0, [])
        args = world.start_args(self.book, "--yes")
        ran = self.engines.run(world, *args, fault=fault, without=without, trace=str(trace))
        first.fired, first.where = int(ran.fired), [f"{ran.what} -> {ran.code}"]
        left_over(world)
        kill_left(world)
        disk.replay(trace.read_bytes() if trace.exists() else b"")
        trace.unlink(missing_ok=True)
        modelled, real = disk.whole(), power.read(common)
        other = {n for n in modelled.keys() | real.keys() if modelled.get(n) != real.get(n)}
        if other:
            first.wrong.append(f"the model is not the machine: {sorted(other)[:5]}")
        unsynced = young(world.root / "state", disk.synced_ns)
        copy_world(world.root, kept)
        for loss, seed in losses:
            result = Result([fault, {"loss": loss, "seed": seed}], first.fired, [*first.where], [*first.wrong])
            chance = Random(seed)
            power.write(common, disk.after(chance, loss))
            tear(world.root / "state", unsynced, chance, loss)
            self._end(world, result, without, DEADLINE_S)
            yield result
            shutil.rmtree(world.root)
            copy_world(kept, world.root)
        shutil.rmtree(world.root)
        shutil.rmtree(kept)

    def _fault(self, world: World, result: Result, fault: Fault, kill: bool, without: tuple[str, ...]) -> None:
        argv = ["resume"] if begun(world) else world.start_args(self.book, "--yes")
        ran = self.engines.run(world, *argv, fault=fault, without=without)
        result.fired += ran.fired
        result.where.append(f"{ran.what} -> {ran.code}")
        if ran.code is None:
            result.wrong.append(f"{argv[0]} hangs")
        if kill and ran.fired and ran.code != -9:
            result.wrong.append(f"a kill that ended with {ran.code}")
        result.wrong += premature(world) if begun(world) else []

    def _end(self, world: World, result: Result, without: tuple[str, ...], deadline_s: float) -> None:
        if not begun(world):  # killed before it had begun anything: it is started again
            ran = self.engines.run(world, *world.start_args(self.book, "--yes"), without=without)
        else:
            ran = self.engines.run(world, "resume", without=without, deadline_s=deadline_s)
        if ran.code != 0:
            result.wrong.append(f"resume ends with {ran.code}")
        try:
            result.wrong += self.violations(world)
        except (OSError, ValueError, AssertionError, IndexError, KeyError):
            result.wrong.append(f"cannot be looked at: {traceback.format_exc()[-1500:]}")
        result.said = (world.root / "out.txt").read_text()[-3000:] if result.wrong else ""
        kill_left(world)

    def error(self, fault: Fault) -> Result:
        """The machine refuses a call, once or for ever; then it is mended.

        Always: it ends in words and not in a traceback, and the log, what is merged and the repository are whole. Where
        the engine did not turn it into something for a human to decide, resuming ends as if nothing had happened.
        """
        world = self.fresh()
        result = Result([fault], 0, [])
        ran = self.engines.run(world, *world.start_args(self.book, "--yes"), fault=fault)
        result.fired = int(ran.fired)
        result.where.append(f"{ran.what} -> {ran.code}")
        said = (world.root / "out.txt").read_text()
        if ran.code is None or ran.code < 0:
            result.wrong.append(f"it ends with {ran.code}")
        if "Traceback" in said:
            result.wrong.append(f"a traceback: {said[said.index('Traceback') :][-1500:]}")
        failed = [] if not begun(world) else [ev for ev in world.events() if ev["type"] in ASKING]
        if begun(world):
            result.wrong += [w for w in audit(world) if "violation" in w]
            ran = self.engines.run(world, "resume")
        else:
            ran = self.engines.run(world, *world.start_args(self.book, "--yes"))
        if not failed:
            result.wrong += [f"resume ends with {ran.code}"] if ran.code else self.violations(world)
        else:
            result.wrong += [w for w in audit(world) if "violation" in w]
            result.wrong += [f"processes: {left}" for left in left_over(world)]
            fsck = world.git("fsck", "--full", "--strict", "--no-dangling", ok=False)
            result.wrong += [f"fsck: {fsck}"] if fsck else []
        result.said = (world.root / "out.txt").read_text()[-4000:] if result.wrong else ""
        kill_left(world)
        shutil.rmtree(world.root, ignore_errors=True)
        return result

    def violations(self, world: World) -> list[str]:
        """What does not hold of a run that went on to its end."""
        wrong = []
        left = left_over(world)
        if left:
            wrong.append(f"processes: {left}")
        found = world.git("rev-parse", "-q", "--verify", f"orchgit/{world.name}/integration^{{tree}}", ok=False)
        if found != self.tree:
            wrong.append(f"another tree: {found or 'none'}")
        if merged(world) != self.merges:
            wrong.append(f"merged {merged(world)}, not {self.merges}")
        lost = [ev for ev in world.events("agent.failed") if not ev["data"]["lost"]]
        if lost:
            wrong.append(f"an attempt failed: {lost}")
        counted = Counter(ev["data"]["assignment"] for ev in world.events("assignment.started"))
        high = max((ev["data"]["counted"] for ev in world.events("assignment.started")), default=0)
        if high > 2:
            wrong.append(f"an interrupted attempt was counted: {counted}")
        wrong += debris(world)
        fsck = world.git("fsck", "--full", "--strict", "--no-dangling", ok=False)
        if fsck:
            wrong.append(f"fsck: {fsck}")
        wrong += audit(world)
        before = world.log.read_bytes()
        again = self.engines.run(world, "resume")
        if again.code != 0 or world.log.read_bytes() != before:
            wrong.append(f"a second resume was not a no-op: {again.code}")
        head = world.git("rev-parse", "-q", "--verify", f"refs/orchgit/runs/{world.name}", ok=False)
        ends = [ev["seq"] for ev in world.events("run.completed")]
        published = world.git("show", f"{head}:events.jsonl", ok=False).count("\n") if head else -1
        if not ends or published != ends[-1]:  # `git` strips the last newline
            wrong.append(f"published up to {published}, completed at {ends}")
        return wrong


def young(state: Path, since_ns: int) -> list[str]:
    """Files of cells that no sync has covered."""
    found = []
    for path in state.rglob("*"):
        held = path.lstat()
        if stat.S_ISREG(held.st_mode) and max(held.st_ctime_ns, held.st_mtime_ns) > since_ns:
            found.append(str(path.relative_to(state)))
    return found


def tear(state: Path, files: list[str], chance: Random, loss: Loss) -> None:
    """What is left of these; and it is another boot of the machine."""
    for name in files:
        path = state / name
        what = chance.choice({"all": "ge", "names": "g", "content": "ez", "any": "gezk"}[loss])
        if what == "g":
            path.unlink()
        elif what != "k":
            size = path.stat().st_size
            os.truncate(path, 0)
            os.truncate(path, size * (what == "z"))
    for done in state.glob("orchgit/*/*/base/done"):
        done.write_text(done.read_text().replace("-", "0"))


def begun(world: World) -> bool:
    return bool(world.names()) and world.log.exists()


def copy_world(there: Path, here: Path) -> None:
    """With what only overlays make: devices, and attributes of the kernel's."""
    subprocess.run(["cp", "-a", "--reflink=auto", there, here], check=True)


def premature(world: World) -> list[str]:
    """What was done before it was written down: a cell that no logged request asks for, an agent likewise."""
    asked = {f"{ev['data']['assignment']}-{ev['data']['attempt']}" for ev in world.events("cell.requested")}
    cells = {p.name for p in (world.root / "state").glob("orchgit/*/*/*-[0-9]*") if p.name.split("-")[0] in WORKERS}
    at_work = [int(p.stem) for p in (world.log.parent / "live").glob("*.jsonl")]
    early = [*sorted(cells - asked), *(f"agent of request {n}" for n in at_work if n >= len(world.events()))]
    return [f"{what} was acted on before it was written" for what in early]


def merged(world: World) -> dict[str, int]:
    return dict(Counter(ev["data"]["assignment"] or ev["data"]["land"] for ev in world.events("merge.done")))


def audit(world: World) -> list[str]:
    """The laws, in this process: a command of its own would cost more than the run."""
    door = Door(world.repo / ".git")
    try:
        reading = read(world.name, world.log.read_bytes().split(b"\n")[:-1])
        results = judge(reading, GitFacts(door, world.name, world.log.parent))
    finally:
        door.close()
    return [f"audit: {r.law}: {r.found}" for r in results if r.verdict != "pass"]


def debris(world: World) -> list[str]:
    """What must not be there when a run is over."""
    common, run = world.repo / ".git", world.name
    found = [str(p.relative_to(common)) for p in common.rglob("*.lock")]
    found += [str(p.relative_to(common)) for p in common.rglob("tmp_*")]
    found += [str(p.relative_to(common)) for p in common.glob("orchgit/engine.git/incoming-*")]
    # What was copied out of a cell that git could not read stays, whatever its names.
    half = (common / "orchgit/runs").rglob(".*")
    found += [str(p.relative_to(common)) for p in half if "/salvage/" not in str(p)]
    packs = {p.stem for p in common.glob("objects/pack/*.pack")}
    found += sorted(packs ^ {p.stem for p in common.glob("objects/pack/*.idx")})
    found += world.cells_left()
    refs = world.git("for-each-ref", "--format=%(refname)").split("\n")
    branches = {f"refs/heads/orchgit/{run}/{n}" for n in ("api", "web", "last", "integration")}
    ours = (*branches, f"refs/orchgit/base/{run}", f"refs/orchgit/runs/{run}", "refs/heads/main", "refs/heads/master")
    found += [r for r in refs if r not in ours and not r.startswith(f"refs/orchgit/salvage/{run}/")]
    found += [f"work tree: {s}" for s in world.git("status", "--porcelain").splitlines()]
    found += [f"worktree {w}" for w in world.git("worktree", "list").splitlines()[1:]]
    return [f"left: {f}" for f in found]


def left_over(world: World) -> list[str]:
    try:
        world.none_left(within=4)
    except AssertionError:
        return list(world.processes().values())
    return []


def kill_left(world: World) -> None:
    for pid in world.processes():
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass


# -- the points ------------------------------------------------------------------------------------------


def event_points(events: int) -> list[Fault]:
    """Every boundary of every event. The first batch is one write: it is torn and killed like an event."""
    found: list[Fault] = []
    for number in range(1, events + 1):
        found.append({"kind": "event", "number": number, "phase": "before"})
        found += [{"kind": "event", "number": number, "phase": "torn", "part": part} for part in PARTS]
        found += [{"kind": "event", "number": number, "phase": phase} for phase in ("unsynced", "after")]
    return found


def call_points(calls: int) -> list[Fault]:
    return [{"kind": "call", "number": n, "action": "kill"} for n in range(1, calls + 1)]


def error_points(of_class: list[int], chance: Random, count: int) -> list[Fault]:
    """Refusals at a write, a sync or a rename, once or from then on; with EINTR only once, which means "again"."""
    found: list[Fault] = []
    while len(found) < count:
        number, classes = chance.choice(((errno.EIO, 7), (errno.ENOSPC, 5), (errno.EDQUOT, 5), (errno.EINTR, 7)))
        action = "once" if number == errno.EINTR else chance.choice(("once", "always"))
        kind = chance.choice([c for c in (1, 2, 4) if c & classes])
        found.append({
            "kind": "call", "number": chance.randint(1, of_class[kind] - 5), "action": action, "errno": number,
            "classes": kind,
        })  # fmt: skip
    return found


def doubles(
    singles: list[Fault], chance: Random, count: int, calls: int, events: int, each: int = 1
) -> list[tuple[Fault, list[Fault]]]:
    """`count` pairs: a first fault anywhere, and `each` second ones while it recovers: half of them within what
    recovery itself does, the others in what was left to do, so that they happen."""
    found = []
    while count > 0:
        first = chance.choice(singles)
        gone = first["number"] / (calls if first["kind"] == "call" else events)
        last_call, last_event = max(60, int(calls * (1 - gone))), max(3, int(events * (1 - gone)))
        seconds: list[Fault] = []
        for _ in range(min(each, count)):
            number = chance.choice([chance.randint(1, 60), chance.randint(1, last_call)])
            seconds.append(chance.choice([
                {"kind": "call", "number": number, "action": "kill"},
                chance.choice(event_points(chance.choice([3, last_event]))),
            ]))  # fmt: skip
        found.append((first, seconds))
        count -= each
    return found
