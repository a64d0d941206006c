"""What orchgit adds per worker, beside the plainest shell script that does the same git work one after the other.

    python -m tests.bench.bench_workers [--rounds 5]

Every worker writes one file; no checks, no reviewers, verdict accept. Aim: at most 2.0 times the script at equal
durability (core.fsync=all). "work" is the run without its fixed part (start-up, plan, synthesis, seal, end), from the
log's times: approval to the last merge.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from tests.bench import common

Taken = dict[str, list[float]]
SCRIPT = """
set -eu
git worktree add -q ../integration -b integration
for i in $(seq 1 "$1"); do
    git branch "w$i" main
    git worktree add -q "../cell$i" "w$i"
    mkdir "../cell$i/w$i"
    echo "w$i" >"../cell$i/w$i/made.txt"
    git -C "../cell$i" add -A
    git -C "../cell$i" commit -q -m "w$i"
    git -C ../integration merge -q --no-ff -m "Merge w$i" "w$i"
    git worktree remove "../cell$i"
done
"""
PLAIN, DURABLE, TOTAL, WORK = "script", "script, fsync=all", "orchgit, total", "orchgit, work"


def measure(root: Path, env: Mapping[str, str], number: int, given: Namespace) -> tuple[Taken, Taken]:
    """Seconds by the clock, and seconds of CPU."""
    plan = [common.assignment(f"w{i}") for i in range(1, number + 1)]
    origin = common.repository(root / f"origin{number}" / "repo", env, given.files)
    common.prepare(origin, env, plan)
    durable = dict(env) | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsync", "GIT_CONFIG_VALUE_0": "all"}
    fresh = count()
    work: list[float] = []
    cpu: dict[str, list[float]] = {name: [] for name in (PLAIN, DURABLE, TOTAL)}

    def copied() -> Path:
        return Path(shutil.copytree(origin.parent, root / f"{number}-{next(fresh)}")) / "repo"

    def timed(name: str, argv: Sequence[str], repo: Path, environment: Mapping[str, str]) -> float:
        before = common.cpu()
        took = common.call(argv, repo, environment)
        cpu[name].append(common.cpu() - before)
        return took

    def script(name: str, environment: Mapping[str, str]) -> float:
        repo = copied()
        took = timed(name, ["sh", "-c", SCRIPT, "script", str(number)], repo, environment)
        made = repo.parent / "integration"
        assert all((made / f"w{i}" / "made.txt").exists() for i in range(1, number + 1))
        return took

    def orchgit() -> float:
        repo = copied()
        took = timed(TOTAL, common.start_argv(repo, "--yes"), repo, env)
        log = common.events(repo)
        assert any(event["type"] == "run.completed" for event in log), log[-1]
        (approved,) = (e for e in log if e["type"] == "plan.approved")
        merged = [e for e in log if e["type"] == "merge.done" and e["data"]["land"] == "merge"]
        assert len(merged) == number
        work.append(common.seconds(merged[-1]) - common.seconds(approved))
        return took

    variants: dict[str, Callable[[], float]] = {
        PLAIN: partial(script, PLAIN, env), DURABLE: partial(script, DURABLE, durable), TOTAL: orchgit
    }  # fmt: skip
    taken = common.in_turn(variants, given.rounds)
    taken[WORK] = work[-given.rounds :]
    return taken, {name: used[-given.rounds :] for name, used in cpu.items()}


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 5, argv)
    numbers = (1,) if given.quick else (1, 4, 16)
    with common.place() as (root, env):
        clock: dict[int, Taken] = {}
        cpu: dict[int, Taken] = {}
        for number in numbers:
            clock[number], cpu[number] = measure(root, env, number, given)
            common.table(f"per worker, N = {number}", clock[number], PLAIN, DURABLE, per=number)
            common.table(f"CPU per worker, N = {number}", cpu[number], PLAIN, DURABLE, per=number)
    if not given.quick:
        low, high = numbers[0], numbers[-1]
        for what, taken in (("", clock), ("CPU of ", cpu)):
            more = {
                name: [max(b - a, 1e-9) for a, b in zip(taken[low][name], times, strict=True)]
                for name, times in taken[high].items()
            }
            title = f"{what}one worker more: (N = {high} less N = {low}) / {high - low}"
            common.table(title, more, PLAIN, DURABLE, per=high - low)
    return 0


if __name__ == "__main__":
    sys.exit(main())
