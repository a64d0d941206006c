"""Durable appends of the event log, beside SQLite (WAL, synchronous=FULL) storing the same lines in the same run.

    python -m tests.bench.bench_log [--rounds 10] [--quick]

Aim: an event by itself is not slower than a row by itself. A batch shares one fsync with us, one transaction with
SQLite. And what opening a log again takes (scan of the tail, every line parsed, the state rebuilt): resume's own part.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchgit import runner
from orchgit.core import events as e
from orchgit.core.state import Run
from orchgit.eventlog import Log
from tests.bench import common

ENGINE, ADA = e.Actor("engine", "orchgit"), e.Actor("human", "ada")
ROWS = 200
BATCH = 10
SINGLE, ROW = "an event, synced", "SQLite: a row, synced"


def lines(count: int) -> list[e.Event]:
    """A legal log of notes, of a size that events have."""
    started = e.RunStarted(
        e.DECIDER, "1" * 40, "refs/heads/main", "sha1", "t", "g", "p", "0" * 64, e.Settings(), (), "none", False, True
    )
    drafts = [e.Draft(started, ADA), e.Draft(e.IssueRead("file:x", "Add billing", "0" * 64), ADA)]
    note = e.OutcomeIgnored("agent.reported", "x" * 250)
    drafts += [e.Draft(note, ENGINE) for _ in range(count - 2)]
    found: list[e.Event] = []
    prev = e.ZERO
    for seq, draft in enumerate(drafts):
        found.append(e.seal(draft, run="bench", seq=seq, time="2026-01-01T00:00:00.000Z", prev=prev))
        prev = found[-1].hash
    return found


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="orchgit-bench-log-") as name:
        yield Path(name)


def append(events: Sequence[e.Event], batch: int) -> float:
    with folder() as root:
        (root / "runs" / "bench").mkdir(parents=True)
        log = Log(root / "runs" / "bench")
        log.append(events[:2])
        begun = time.perf_counter()
        for at in range(2, len(events), batch):
            log.append(events[at : at + batch])
        took = time.perf_counter() - begun
        log.close()
        return took


def insert(events: Sequence[e.Event], batch: int) -> float:
    with folder() as root:
        store = sqlite3.connect(root / "events.db", isolation_level=None)
        store.execute("pragma journal_mode=wal")
        store.execute("pragma synchronous=full")
        store.execute("create table events (seq integer primary key, line blob)")
        begun = time.perf_counter()
        for at in range(2, len(events), batch):
            store.execute("begin")
            store.executemany("insert into events values (?, ?)", [(v.seq, v.line) for v in events[at : at + batch]])
            store.execute("commit")
        took = time.perf_counter() - begun
        store.close()
        return took


def reopen(path: Path) -> float:
    begun = time.perf_counter()
    log = Log(path)
    run: Run = runner.load(log)
    log.close()
    assert run.seq >= 0
    return time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 10, argv)
    some = lines(20 if given.quick else ROWS)
    taken = common.in_turn(
        {
            SINGLE: lambda: append(some, 1),
            ROW: lambda: insert(some, 1),
            f"{BATCH} events, one sync": lambda: append(some, BATCH),
            f"SQLite: {BATCH} rows, one transaction": lambda: insert(some, BATCH),
        },
        given.rounds,
    )
    common.table(f"durable appends of {len(some[-1].line)} bytes, each", taken, ROW, per=len(some) - 2)
    sizes = (100, 200) if given.quick else (1000, 10_000, 50_000)
    with folder() as root:
        variants = {}
        for size in sizes:
            path = root / "runs" / f"of-{size}" / "bench"
            path.mkdir(parents=True)
            (path / "events.jsonl").write_bytes(b"".join(v.line for v in lines(size)))
            variants[f"{size} events"] = lambda path=path: reopen(path)
        again = common.in_turn(variants, min(given.rounds, 3))
    common.table("opening a log again", again, f"{sizes[0]} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
