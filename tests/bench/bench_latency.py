"""How long the engine takes from what unblocks work to the start of it, by the log's own times.

    python -m tests.bench.bench_latency [--rounds 5]

A chain of workers, each after the one before: from each merge to the start of the next agent, by step. And from
`orchgit approve` in another process, the engine alive and waiting, to the first assignment and the first agent. As a
baseline for both, in the same rounds: `git worktree add` of the same repository.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench import common

STEPS = ("assignment.started", "cell.requested", "cell.made", "agent.requested", "agent.started")


def after_merges(log: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, float]]:
    """Per merge that unblocks somebody: seconds from it to each step of who comes next."""
    found = []
    for before, name in pairwise(names):
        merged = next(e for e in log if e["type"] == "merge.done" and e["data"]["assignment"] == before)
        at = common.seconds(merged)
        request = next(e for e in log if e["type"] == "agent.requested" and e["data"]["assignment"] == name)
        steps = {}
        for step in STEPS:
            event = next(
                e for e in log
                if e["type"] == step and (e["data"].get("assignment") == name or e["cause"] == request["seq"])
            )  # fmt: skip
            steps[step] = common.seconds(event) - at
        found.append(steps)
    return found


def approved(root: Path, env: Mapping[str, str], files: int) -> dict[str, float]:
    """Seconds from the start of `orchgit approve` to what the engine wrote then."""
    repo = common.repository(root / "repo", env, files)
    common.prepare(repo, env, [common.assignment("w1")])
    engine = subprocess.Popen(
        common.start_argv(repo, "--wait"), cwd=repo, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        common.until(repo, "plan.proposed")
        time.sleep(0.3)
        begun = time.time()
        command = common.call([common.ORCHGIT, "approve"], repo, env)
        log = common.until(repo, "run.completed")
        assert engine.wait(30) == 0
    finally:
        engine.kill()
        engine.wait()
    request = next(e["seq"] for e in log if e["type"] == "agent.requested")
    found = {"the command itself": command}
    for step in ("plan.approved", "assignment.started", "cell.made", "agent.started"):
        event = next(e for e in log if e["type"] == step and (step != "agent.started" or e["cause"] == request))
        found[step] = common.seconds(event) - begun
    return found


def show(title: str, rows: Sequence[Mapping[str, float]], base: Sequence[float]) -> None:
    print(f"\n{title} (of {len(rows)})")
    for step in rows[0]:
        times = [row[step] for row in rows]
        print(f"  {step:<20}  {common.spread(times)}   x worktree add, of min {min(times) / min(base):.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 5, argv)
    names = [f"w{i}" for i in range(1, 3 if given.quick else 5)]
    merges: list[dict[str, float]] = []
    approvals: list[dict[str, float]] = []
    base: list[float] = []
    with common.place() as (root, env):
        for number in range(given.rounds):
            repo = common.repository(root / f"chain{number}" / "repo", env, given.files)
            plan = [common.assignment(name, names[max(0, i - 1) : i]) for i, name in enumerate(names)]
            common.prepare(repo, env, plan)
            for again in range(3):
                base.append(common.call(["git", "worktree", "add", "-q", f"../tree{again}"], repo, env))
            common.call(common.start_argv(repo, "--yes"), repo, env)
            merges += after_merges(common.events(repo), names)
            approvals.append(approved(root / f"approve{number}", env, given.files))
    print(f"git worktree add: {common.spread(base)}")
    show("from a merge to the steps of what it unblocks", merges, base)
    show("from `orchgit approve` in another process", approvals, base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
