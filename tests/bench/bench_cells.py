"""How long a cell takes to be ready, and its work to be judged, as the repository grows: overlay beside checkout.

    python -m tests.bench.bench_cells [--rounds 3] [--full]

"ready" ends with the worker's first `git status` possible: the cell is made, nothing has run in it. The baseline is
`git worktree add`. "delta" is an overlay whose commit differs from the shared checkout's in 10 files. Aim: at most
1/20 of `git worktree add` at 50,000 files. "gate" is harvest, admission, judgement and construction of a change of 10
files, without and with a commit of the worker's: for overlay it should not grow with the repository. "status" is the
worker's first `git status`, sandbox included.

Without --full the largest repository is left out. Repositories are made below TMPDIR.
"""

from __future__ import annotations

import shutil
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from orchgit.agent_run import confined, furnish
from orchgit.config import Config
from orchgit.core.scope import Scope
from orchgit.git import cells, gate
from orchgit.git.door import Door
from orchgit.process import Ended
from orchgit.sandbox import Level, Sandbox, best, overlay_works
from tests.bench import common

WHEN = "1767225600 +0000"
SCOPE = Scope(("pkg0/**", "made/**"))
CHANGE = "for i in 1 2 3 4 5; do echo changed >>pkg0/module$i.py; mkdir -p made; echo new >made/file$i.py; done"


class Bench:
    """One repository, with the run's checkout of its base already there: it is made once per run."""

    def __init__(self, root: Path, env: Mapping[str, str], files: int, way: Sandbox, level: Level) -> None:
        self.repo = common.repository(root / f"repo{files}", env, files)
        self.root, self.env = root, env
        self.door = Door(self.repo / ".git")
        self.sandbox = furnish(way, level, Config(), self.door, root)
        self.start = self.door.ref("refs/heads/main") or ""
        for path in sorted(self.repo.rglob("*.py"))[:10]:
            path.write_text("otherwise\n")
        common.call(["git", "commit", "-qam", "ten files"], self.repo, env)
        self.other = self.door.ref("refs/heads/main") or ""
        begun = time.perf_counter()
        self.base = cells.make_base(self.door, root / f"base{files}", self.start)
        self.base_s = time.perf_counter() - begun
        self._fresh = count()

    def place(self) -> Path:
        return self.root / f"cell-{next(self._fresh)}"

    def ready(self, base: cells.Base | None, commit: str) -> float:
        root = self.place()
        begun = time.perf_counter()
        cells.make(self.door, root, commit, branch="refs/heads/orchgit/r/a", base=base)
        took = time.perf_counter() - begun
        cells.remove(root)
        return took

    def worktree(self) -> float:
        root = self.place()
        took = common.call(["git", "worktree", "add", "-q", "--detach", str(root), self.start], self.repo, self.env)
        shutil.rmtree(root)
        common.call(["git", "worktree", "prune"], self.repo, self.env)
        return took

    def run(self, cell: cells.Cell, script: str) -> Ended:
        launch = confined(self.sandbox, cell, (str(cell.work), str(cell.git), str(cell.home)))
        ended = launch(["/bin/sh", "-ec", script]).finish(deadline_s=300)
        assert ended.returncode == 0, ended.stderr
        return ended

    def status(self, base: cells.Base | None) -> float:
        cell = cells.make(self.door, self.place(), self.start, branch="refs/heads/orchgit/r/a", base=base)
        begun = time.perf_counter()
        assert self.run(cell, "git status --porcelain").stdout == b""
        took = time.perf_counter() - begun
        cells.remove(cell.root)
        return took

    def gate(self, base: cells.Base | None, script: str) -> float:
        door = self.door
        cell = cells.make(door, self.place(), self.start, branch="refs/heads/orchgit/r/a", base=base)
        self.run(cell, script)
        begun = time.perf_counter()
        launch = confined(self.sandbox, cell, (str(cell.top),), mounted=False)
        ended = launch(cells.harvest_argv(cell, self.start)).finish(deadline_s=300, output_cap=gate.MAX_PACK)
        left = gate.admit(door, ended.stdout, self.start, WHEN)
        tree = door.tree_of(self.start)
        changes = gate.raw_diff(door, tree, left.tree)
        assert gate.judge(door, SCOPE, changes, tree) == [], ended.stderr
        assert len(changes) == 10
        gate.construct(door, tree, changes, SCOPE)
        took = time.perf_counter() - begun
        cells.remove(cell.root)
        return took


def measure(bench: Bench, size: int, rounds: int) -> dict[str, list[float]]:
    """Prints what it took to make cells and to ask in them; returns the gate's times."""
    ready: dict[str, Callable[[], float]] = {
        "git worktree add": bench.worktree,
        "checkout": lambda: bench.ready(None, bench.start),
        "overlay": lambda: bench.ready(bench.base, bench.start),
        "overlay, delta": lambda: bench.ready(bench.base, bench.other),
    }
    common.table(f"ready, {size} files", common.in_turn(ready, rounds), "git worktree add")
    status = {"checkout": lambda: bench.status(None), "overlay": lambda: bench.status(bench.base)}
    common.table(f"first git status, {size} files", common.in_turn(status, rounds), "checkout")
    committed = f"{CHANGE}; git add -A; git commit -qm all"
    judged: dict[str, Callable[[], float]] = {
        f"{kind}, {how}": partial(bench.gate, base, script)
        for kind, base in (("checkout", None), ("overlay", bench.base))
        for how, script in (("uncommitted", CHANGE), ("committed", committed))
    }
    taken = common.in_turn(judged, rounds)
    common.table(f"gate, {size} files", taken, "checkout, uncommitted")
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, a small repository: only to see that it runs")
    parser.add_argument("--full", action="store_true", help="50,000 files too")
    given = parser.parse_args(argv)
    sizes = (20,) if given.quick else (200, 10_000, 50_000) if given.full else (200, 10_000)
    rounds = 1 if given.quick else given.rounds
    way, level = best(allow_unsandboxed=True)
    with common.place() as (root, env):
        if why := overlay_works(str(root)):
            print(f"no overlays here: {why}")
            return 0
        gates: dict[str, list[float]] = {}
        for size in sizes:
            bench = Bench(root, env, size, way, level)
            print(
                f"\n{size} files; the run's checkout of its base, made once: {bench.base_s * 1000:.0f} ms", flush=True
            )
            for name, times in measure(bench, size, rounds).items():
                gates.setdefault(name, []).append(min(times))
            bench.door.close()
        print(f"\ngate at {sizes[-1]} files, in times of its own at {sizes[0]}: of min")
        for name, times in gates.items():
            print(f"  {name:<22} {times[-1] / times[0]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
