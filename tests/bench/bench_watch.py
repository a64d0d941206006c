"""How late the watchdog is, and what a flood does to it.

    python -m tests.bench.bench_watch [--rounds 200]

From a write outside the scope to the sighting, and to the event on the disk, beside a bare read of inotify of the same
write in the same round. Then a burst of file creations: by another process, with and without the watchdog, in time,
in CPU and memory of the process that watches, and whether it admits what it lost.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from orchgit.core import events as e
from orchgit.core.decide import ENGINE
from orchgit.eventlog import Log
from orchgit.watch import Sighting, Watchdog
from tests.bench import common

IN_CREATE = 0x100
MAKE = "import sys\nfor i in range(int(sys.argv[2])): open(f'{sys.argv[1]}/f{i}', 'w').close()"
PERCENTILES = (50, 95, 99)


class Bare:
    """inotify on one directory, and nothing round it."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        libc.inotify_add_watch(self.fd, os.fsencode(directory), IN_CREATE)

    def wait(self) -> float:
        select.select([self.fd], [], [])
        at = time.perf_counter()
        os.read(self.fd, 65536)
        return at


def delays(place: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds after each write: the bare read, the sighting, the event in the log."""
    root = place / "cell"
    root.mkdir()
    log = Log(_run_dir(place))
    taken: dict[str, list[float]] = {"bare inotify": [], "the sighting": [], "its event on the disk": []}
    sighted: queue.Queue[float] = queue.Queue()
    dog, bare = Watchdog(), Bare(root)
    dog.watch(str(root), lambda path: False, lambda seen: sighted.put(time.perf_counter()))
    prev, seq = e.ZERO, 0
    for number in range(rounds):
        begun = time.perf_counter()
        os.close(os.open(root / f"f{number}", os.O_WRONLY | os.O_CREAT))
        plain = bare.wait()
        seen = sighted.get()
        note = e.ScopeViolationSeen("api", 1, f"f{number}", "created", "watchdog")
        event = e.seal(e.Draft(note, ENGINE, 0), run=log.run, seq=seq, time="2026-01-01T00:00:00.000Z", prev=prev)
        log.append([event])
        prev, seq = event.hash, seq + 1
        for name, at in zip(taken, (plain, seen, time.perf_counter()), strict=True):
            taken[name].append(at - begun)
        if number % 100 == 99:  # a watch tells 200 at most
            dog._watches[0].stop()
            dog.watch(str(root), lambda path: False, lambda seen: sighted.put(time.perf_counter()))
    dog.close()
    os.close(bare.fd)
    log.close()
    return taken


def _run_dir(place: Path) -> Path:
    path = place / "run"
    path.mkdir()
    return path


def burst(place: Path, files: int, name: str, allowed: bool | None) -> dict[str, float]:
    """What a flood of creations costs: the process that makes them, and the one that watches, if one does."""
    root = place / name
    root.mkdir()
    seen: list[Sighting] = []
    dog = None if allowed is None else Watchdog()
    watch = dog.watch(str(root), lambda path: bool(allowed), seen.append) if dog else None
    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", MAKE, str(root), str(files)], check=True)
    made = time.perf_counter() - begun
    late = 0.0
    if watch:
        first = time.perf_counter()
        watch.settle(60)
        late = time.perf_counter() - first
    found = {
        "seconds to make them": made,
        "seconds until told": late,
        "CPU seconds of the watching": time.process_time() - before,
        "MB more": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
        "sightings": len(seen),
    }
    if watch and dog:
        found["incomplete, said"] = float(watch.incomplete)
        print(f"  {'; '.join(watch.reasons) or 'complete'}")
        dog.close()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 200, argv)
    rounds, files = (20, 2000) if given.quick else (given.rounds, 100_000)
    with common.place() as (place, _):
        taken = delays(place, rounds)
        print(f"after a write, of {rounds}, in ms (x bare inotify)")
        base = sorted(taken["bare inotify"])
        for name, times in taken.items():
            ordered = sorted(times)
            cells = []
            for percent in PERCENTILES:
                at = min(len(ordered) - 1, len(ordered) * percent // 100)
                cells.append(f"p{percent} {ordered[at] * 1000:8.2f} (x {ordered[at] / base[at]:5.1f})")
            print(f"  {name:<22}  {'  '.join(cells)}")
        print(f"\na burst of {files} files")
        for name, allowed in (("alone", None), ("outside the scope", False), ("in the scope", True)):
            found = burst(place, files, name, allowed)
            print(f"  {name}: " + ", ".join(f"{what} {value:.2f}" for what, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
