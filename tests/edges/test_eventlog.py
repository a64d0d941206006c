"""The log on the disk: torn, zeroed, full, held, replaced, killed; and the loop that owns it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchgit import runner
from orchgit.config import Config
from orchgit.core import events as e
from orchgit.core.decide import ENGINE, decide, waiting
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import Illegal, Run
from orchgit.effects import World
from orchgit.eventlog import Holder, Log, Store, write_file
from orchgit.git.user import UserRepo
from orchgit.watch import Watchdog
from tests.support.golden import sample
from tests.support.repos import repository

ADA = e.Actor("human", "ada")
NOW = "2026-01-01T00:00:00.000Z"
ROSTER = (e.Member("lead", "orchestrator", "plans", "scripted", "m"), e.Member("w", "worker", "works", "scripted", "m"))


def started(base: str = "1" * 40) -> e.Draft:
    body = e.RunStarted(
        e.DECIDER, base, "refs/heads/main", "sha1", "t", "g", "p", "0" * 64, e.Settings(), ROSTER, "none", False, True
    )  # fmt: skip
    return e.Draft(body, ADA)


READ = e.Draft(e.IssueRead("file:x", "Grüße, 日本", "0" * 64), ADA)
INVALID = e.PlanInvalid(('no: \x1b[31m \u2028 \\ " \x7f',))


def a_log(path: Path) -> list[e.Event]:
    """A small legal one: begun, an issue read, a plan asked for and refused, another one asked for."""
    log = Log(path)
    run, first = decide(Run(log.run), [started(), READ], NOW)
    run, second = decide(run, [e.Draft(INVALID, ENGINE, run.seq)], NOW)
    log.append(first)
    log.append(second)
    log.close()
    return [*first, *second]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r1"


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """Where an fsync costs nothing, for tests of thousands of them."""
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path))
    yield place / "r1"
    shutil.rmtree(place)


def reopened(path: Path) -> tuple[list[e.Event], int]:
    log = Log(path)
    try:
        found = log.read()
        assert log.events.read_bytes() == b"".join(event.line for event in found)
        return found, log.torn
    finally:
        log.close()


def test_what_was_appended_is_there_and_the_chain_goes_on(path: Path) -> None:
    written = a_log(path)
    assert Store(path).read() == written
    log = Log(path)
    run = runner.load(log)
    run, more = decide(run, [e.Draft(INVALID, ENGINE, run.seq)], NOW)
    log.append(more)
    log.close()
    assert Store(path).read() == [*written, *more]
    assert [event.prev for event in Store(path).read()] == [e.ZERO, *(event.hash for event in [*written, *more])][:-1]
    assert path.joinpath("events.jsonl").stat().st_mode & 0o777 == 0o600


# ---- torn


def test_torn_at_any_byte(quick: Path) -> None:
    """Whole lines stay, the unfinished one is set aside, and the log goes on from there."""
    path, written = quick, list[e.Event]()
    Log(path).close()
    for number in range(4):
        prev = written[-1].hash if written else e.ZERO
        written.append(
            e.seal(READ if number % 2 else e.Draft(INVALID, ENGINE, 7), run="r1", seq=number, time=NOW, prev=prev)
        )
    path.joinpath("events.jsonl").write_bytes(b"".join(event.line for event in written))
    data = path.joinpath("events.jsonl").read_bytes()
    ends = [0]
    for event in written:
        ends.append(ends[-1] + len(event.line))
    cuts = range(len(data) + 1)
    for cut in sorted({*sample(cuts, 300), *ends}):
        path.joinpath("events.jsonl").write_bytes(data[:cut])
        whole = max(n for n, end in enumerate(ends) if end <= cut)
        assert Store(path).read() == written[:whole], "a reader leaves an unfinished line out"
        found, torn = reopened(path)
        assert found == written[:whole]
        assert torn == cut - ends[whole]
        if torn:
            kept = [p for p in (path / "torn").iterdir() if p.name.startswith(f"{ends[whole]}-")]
            assert data[ends[whole] : cut] in [p.read_bytes() for p in kept]
        if cut % 10 == 0:
            assert reopened(path) == (found, 0), "mended once"


def test_a_tail_of_zeros_or_nonsense(path: Path) -> None:
    written = a_log(path)
    data = path.joinpath("events.jsonl").read_bytes()
    last = written[-1].line
    for tail in (
        b"\0" * 4096, b"\0", b"\0" * 100 + b"\n", b"{}\n", b"null\n", b"\n", b"\xff\xfe\n", b"garbage",
        b"[" * 9999 + b"\n",
        last[:50] + b"\0" * 300, last[:50] + b"\0" * 300 + b"\n",
        last.replace(b'"v":1', b'"v":2', 1), b"x" * 70_000 + b"\n",
    ):  # fmt: skip
        path.joinpath("events.jsonl").write_bytes(data + tail)
        assert reopened(path) == (written, len(tail)), tail[:20]
    path.joinpath("events.jsonl").write_bytes(b"\0" * 4096)
    assert reopened(path) == ([], 4096)
    path.joinpath("events.jsonl").write_bytes(data[: -len(last)] + last[:-3] + b"\0}\n")
    assert reopened(path)[0] == written[:-1]


def test_anything_wrong_before_the_last_line_is_refused(quick: Path) -> None:
    """By load and by every reader, in words; the file stays as it is, for audit."""
    path = quick
    written = a_log(path)
    lines = [event.line for event in written]
    data = b"".join(lines)
    rng = Random(5)
    damaged = [
        b"garbage\n" + data,
        lines[0] + b"\n" + b"".join(lines[1:]),
        lines[0] + b"\0" * len(lines[1]) + b"".join(lines[2:]),
        lines[0] + lines[1][:-1] + b"\r\n" + b"".join(lines[2:]),
        lines[0] + lines[1][:-1] + b"".join(lines[2:]),
        lines[0] + lines[0] + b"".join(lines[1:]),
        lines[1] + lines[0] + b"".join(lines[2:]),
        lines[0] + b"".join(lines[2:]),
        b"".join(lines[1:]),
        data + lines[-1],
        data.replace(b'"seq":1,', b'"seq":1 ,', 1),
        data.replace(b"ada", b"eve", 1),
        *(
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            for at in rng.sample(range(len(data) - len(lines[-1])), 60)
        ),
    ]
    for bad in damaged:
        path.joinpath("events.jsonl").write_bytes(bad)
        log = Log(path)
        try:
            with pytest.raises(OrchgitError) as error:
                runner.load(log)
        finally:
            log.close()
        assert error.value.kind is Kind.NO
        assert "orchgit audit r1" in error.value.hint
        if bad.endswith(lines[-1]):
            assert path.joinpath("events.jsonl").read_bytes() == bad


# ---- held, replaced, full


def test_one_writer(path: Path) -> None:
    log = Log(path)
    holder = Store(path).holder()
    assert holder is not None
    assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert holder.since.endswith("Z")
    with pytest.raises(OrchgitError) as error:
        Log(path)
    assert error.value.kind is Kind.USAGE
    assert str(os.getpid()) in error.value.why
    program = "import sys; from pathlib import Path; from orchgit.eventlog import Log; Log(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} is its engine" in done.stderr
    log.close()
    assert Store(path).holder() is None
    assert Store(path / "nowhere").holder() is None
    Log(path).close()


def test_looking_does_not_hold(path: Path) -> None:
    """Two who look must not see each other, nor keep an engine from starting."""
    Log(path).close()
    stop = threading.Event()
    seen: set[Holder | None] = set()

    def look() -> None:
        store = Store(path)
        while not stop.is_set():
            seen.add(store.holder())

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for each in lookers:
        each.start()
    time.sleep(0.3)
    stop.set()
    for each in lookers:
        each.join()
    assert seen == {None}
    Log(path).close()


def test_changed_by_somebody_else(path: Path) -> None:
    written = a_log(path)
    file = path / "events.jsonl"
    data = file.read_bytes()

    def appended(log: Log) -> None:
        run = Run(log.run)
        _, events = decide(run, [started()], NOW)
        log.append(events)

    def edited() -> None:
        (path / "new").write_bytes(data)
        (path / "new").rename(file)  # as an editor saves

    for change in (
        lambda: file.write_bytes(data + b"x"),
        lambda: file.write_bytes(data[:-1]),
        lambda: file.write_bytes(b""),
        lambda: file.unlink(),
        edited,
    ):
        file.write_bytes(data)
        log = Log(path)
        change()
        now = file.read_bytes() if file.exists() else None
        with pytest.raises(OrchgitError, match="changed by somebody else") as error:
            appended(log)
        assert error.value.kind is Kind.FAULT
        assert (file.read_bytes() if file.exists() else None) == now, "and nothing was written"
        log.close()
    file.write_bytes(data)
    assert reopened(path)[0] == written


FULL = """
import resource, sys
from pathlib import Path
from orchgit import runner
from orchgit.core import events as e
from orchgit.core.decide import ENGINE, decide, waiting
from orchgit.core.errors import OrchgitError
from orchgit.eventlog import Log
log = Log(Path(sys.argv[1]))
run = runner.load(log)
room = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (log.events.stat().st_size + room, resource.RLIM_INFINITY))
invalid = e.PlanInvalid(("no: \\x1b[31m \\u2028 \\\\ \\" \\x7f",))
run, events = decide(run, [e.Draft(invalid, ENGINE, run.seq)], "2026-01-01T00:00:00.000Z")
try:
    log.append(events)
except OrchgitError as error:
    print(error.kind.name, error.what, sep="|")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.close()
"""


@pytest.mark.parametrize("room", [0, 1, 200, "all but one"])
def test_a_full_disk_is_undone(path: Path, room: int | str) -> None:
    written = a_log(path)
    run = Run("r1")
    log = Log(path)
    run = runner.load(log)
    log.close()
    first = decide(run, [e.Draft(INVALID, ENGINE, run.seq)], NOW)[1][0]
    bytes_left = len(first.line) - 1 if isinstance(room, str) else room
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(bytes_left)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "FAULT|the event log could not be written\n", done.stderr
    assert reopened(path) == (written, 0)


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"one")
    program = (
        "import resource, sys; from pathlib import Path; from orchgit.eventlog import write_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "write_file(Path(sys.argv[1]), b'x' * 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "f")], capture_output=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "f").read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["f"], "no debris"


KILLED = """
# One process that forks fifty writers, and kills each at some moment.
import os, random, signal, sys, time
from pathlib import Path
from orchgit import runner
from orchgit.core import events as e
from orchgit.core.decide import ENGINE, decide, waiting
from orchgit.eventlog import Log, Store

path, rng = Path(sys.argv[1]), random.Random(7)

def write(out):
    log = Log(path)
    run = runner.load(log)
    while True:
        ignored = e.Draft(e.OutcomeIgnored("x", "y" * (run.seq * 37 % 3000)), ENGINE)
        run, events = decide(run, [ignored, ignored], "2026-01-01T00:00:00.000Z")
        log.append(events)
        log.put(events[-1].line)
        os.write(out, b"%d\\n" % run.seq)

for turn in range(50):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        write(theirs)
    os.close(theirs)
    said = os.read(ours, 100) if turn % 5 else b""
    time.sleep(rng.random() * 0.015)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(ours, 65536):
        said += more
    os.close(ours)
    found = Store(path).read()
    acknowledged = [int(n) for n in said.split()]
    assert not acknowledged or found[-1].seq >= acknowledged[-1], (found[-1].seq, acknowledged)
    assert Store(path).holder() is None
    log = Log(path)
    print(runner.load(log).seq + 1, log.torn)
    log.close()
for blob in (path / "blobs").iterdir():
    assert blob.name.startswith(".") or Store(path).blob(blob.name)
"""


def test_killed_fifty_times(path: Path) -> None:
    """Every time the log opens by itself, is legal, and holds all that was acknowledged."""
    a_log(path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lengths = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(lengths) == 50
    assert lengths == sorted(lengths)
    assert lengths[-1] > 100


# ---- blobs and messages


def test_blobs_are_what_their_names_say(path: Path) -> None:
    log = Log(path)
    digest = log.put(b"bytes\0\xff")
    assert log.put(b"bytes\0\xff") == digest
    assert Store(path).blob(digest) == b"bytes\0\xff"
    (path / "blobs" / digest).write_bytes(b"changed")
    with pytest.raises(OrchgitError, match="was changed") as changed:
        log.blob(digest)
    assert changed.value.kind is Kind.NO
    with pytest.raises(OrchgitError, match="is not here") as gone:
        log.blob("0" * 64)
    assert gone.value.kind is Kind.UNSURE
    for name in ("../events.jsonl", "../../x", ""):
        with pytest.raises((OrchgitError, IsADirectoryError)):
            log.blob(name)
    log.close()


def test_messages_come_in_order(path: Path) -> None:
    log = Log(path)
    sent = []
    for number in range(20):
        sent.append(log.submit({"number": number}))
        time.sleep(0.006)  # the clock of the file system ticks more slowly than ours
    assert not [p for p in (path / "inbox").iterdir() if p.stat().st_mode & 0o077]
    (path / "inbox" / ".half.json.1234").write_bytes(b"{")
    assert [p.name for p in log.inbox()] == sent
    assert [json.loads(p.read_bytes())["number"] for p in log.inbox()] == list(range(20))
    log.close()
    assert Store(path / "nowhere").inbox() == []


@pytest.fixture
def live(path: Path) -> Iterator[runner.Runner]:
    a_log(path)
    made = runner.Runner(Log(path))
    yield made
    made.close()


GARBAGE: list[bytes] = [
    b"", b"{", b"[]", b"null", b"17", b'"x"', b"\xff\xfe", b"{}", b"[" * 100_000, b'{"type": "run.completed"}',
    b'{"type": "plan.approved", "data": {}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "plan.approved", "data": [], "actor": "ada"}',
    b'{"type": {"a": 1}, "data": {}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "abort.requested", "data": {"reason": "x"}, "actor": {"kind": "engine", "id": "orchgit"}}',
    b'{"type": "abort.requested", "data": {"reason": "x"}, "actor": {"kind": "agent", "id": "w"}}',
    b'{"type": "abort.requested", "data": {"reason": "\\ud800"}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "abort.requested", "data": {"reason": 1.5}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "abort.requested", "data": {"reason": NaN}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "abort.requested", "data": {"reason": "' + b"x" * 70_000 + b'"}, "actor": {"kind": "human", "id": "a"}}',
    b'{"type": "gate.passed", "data": {}, "actor": {"kind": "human", "id": "ada"}}',
    b'{"type": "merge.done", "data": {"land": "seal"}, "actor": {"kind": "human", "id": "ada"}}',
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g[:60]))
def test_a_message_of_garbage_is_dropped_and_said_so(live: runner.Runner, garbage: bytes) -> None:
    before = live.run
    message = live.log.path / "inbox" / "0123.json"
    message.write_bytes(garbage)
    live._inbox()
    assert not message.exists()
    (said,) = live.log.read()[before.seq + 1 :]
    assert isinstance(said.body, e.OutcomeIgnored)
    assert said.body.refused == "inbox"
    assert "0123" in said.body.why
    assert live.run.phase == before.phase
    assert runner.load(live.log) == live.run


def test_killed_between_log_and_delete(live: runner.Runner) -> None:
    """The message is found again: refused, not applied twice."""
    live.record(e.Draft(e.QuestionAsked(("why?",)), e.Actor("agent", "lead"), live.run.seq))
    assert live.run.phase == "asking"
    live.log.submit(runner.message_of(e.Draft(e.QuestionAnswered(("because",)), ADA)))
    (path,) = live.log.inbox()
    data = path.read_bytes()
    live._inbox()
    once = live.run
    assert once.phase == "planning"
    path.write_bytes(data)
    live._inbox()
    events = live.log.read()
    assert [event.body.type for event in events].count("question.answered") == 1
    assert isinstance(events[-1].body, e.OutcomeIgnored)
    assert live.run.phase == once.phase
    assert not live.log.inbox()


def test_submit_to_a_run_alive_or_not(live: runner.Runner) -> None:
    abort = e.Draft(e.AbortRequested("enough"), ADA)
    approve = e.Draft(e.PlanApproved(1, "0" * 64, "human"), ADA)
    assert runner.submit(live.log.path, abort) == ("sent", None)
    with pytest.raises(OrchgitError, match="cannot be done now"):
        runner.submit(live.log.path, approve)
    assert len(live.log.inbox()) == 1, "told at once, not left in the inbox"
    live.close()
    try:
        with pytest.raises(OrchgitError, match="cannot be done now"):
            runner.submit(live.log.path, approve)
        assert Store(live.log.path).holder() is None
        said, run = runner.submit(live.log.path, abort)
        assert said == "logged"
        assert run is not None
        assert run.phase == "aborting"
        assert Store(live.log.path).holder() is None
    finally:
        live.log = Log(live.log.path)


# ---- the loop


def a_world(tmp_path: Path, log: Log) -> World:
    repo = repository(tmp_path / "user")
    found = UserRepo(repo.root, repo.common, repo.ask("rev-parse", "HEAD"), "refs/heads/main", "sha1", None)
    return World(found, repo.door(), cast(Any, SimpleNamespace(config=Config())), tmp_path / "state", Watchdog())


def test_what_git_cannot_do_stops_at_a_human(tmp_path: Path, path: Path) -> None:
    """The base is a commit that is not there, as if somebody had deleted it: an outcome, and no traceback."""
    a_log(path)
    log = Log(path)
    made = runner.Runner(log)
    world = a_world(tmp_path, log)
    run = made.drive(world)
    assert waiting(run) == "blockers"
    (blocker,) = run.open_blockers()
    assert blocker.kind == "unavailable"
    assert "ls-tree" in blocker.text
    made.record(e.Draft(e.AbortRequested("enough"), ADA))
    assert made.drive(world).phase == "aborted"
    assert log.read()[-1].body == e.LogCheckpointed(
        made.run.milestone, log.read()[-2].hash, "", f"git could not take it: {'1' * 40}"
    )
    made.close()
    world.watchdog.close()
    world.door.close()


def test_an_exception_in_a_thread_surfaces(tmp_path: Path, path: Path) -> None:
    """There is nobody to ask: a fault in the thread of the plan, and `drive` raises it."""
    log = Log(path)
    made = runner.Runner(log)
    world = a_world(tmp_path, log)
    made.record(started(world.repo.head), READ)
    # What was asked for is taken up: who only reads can read again, nothing is lost.
    with pytest.raises(AttributeError, match="has no attribute 'roster'"):
        made.drive(world)
    types = [event.body.type for event in log.read()]
    assert types.count("plan.requested") == 1
    assert "agent.failed" not in types
    assert made.run.pending, "it stays open, for resume"
    assert runner.load(log) == made.run
    made.interrupt()
    made.close()
    world.watchdog.close()
    world.door.close()


def test_input_that_cannot_happen_is_not_written(live: runner.Runner) -> None:
    before = live.log.events.read_bytes()
    for draft in (started(), READ, e.Draft(e.PlanApproved(1, "0" * 64, "human"), ADA)):
        with pytest.raises(Illegal):
            live.record(draft)
    assert live.log.events.read_bytes() == before


def test_a_batch_half_written_is_finished_on_opening(path: Path) -> None:
    """Killed between the lines of one batch: what was decided is decided again, the same."""
    written = a_log(path)
    for keep in range(1, len(written) + 1):
        path.joinpath("events.jsonl").write_bytes(b"".join(event.line for event in written[:keep]))
        made = runner.Runner(Log(path))
        assert made.run.pending or made.run.phase in ("started",)
        again = made.log.read()
        assert [event.body.type for event in again[:keep]] == [event.body.type for event in written[:keep]]
        made.close()
        length = path.joinpath("events.jsonl").stat().st_size
        runner.Runner(Log(path)).close()
        assert path.joinpath("events.jsonl").stat().st_size == length, "and only once"
