"""How long audit and replay take, by the number of events and of merges, and how that grows; and in how much memory.

    python -m tests.bench.bench_audit [--rounds 3]

Aim: 10,000 events and 192 merges audited within 6 s of processor time; time linear in both. The log is read from
where it was published, with a checkpoint for every merge.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchgit.core import events as e
from orchgit.core.decide import ENGINE
from orchgit.core.review import Finding
from orchgit.core.run import Run
from tests.bench import common
from tests.core.world import CALM, NAMES, RUN, USUAL, Sim, assignment, plan_of
from tests.support.git_world import GitWorld


class Long(Sim):
    """A run with as many notes for each worker as it takes."""

    padding = 0

    def notes(self, event: e.Event) -> Iterator[e.Draft]:
        if isinstance(event.body, e.AgentRequested):
            name, attempt = event.body.assignment, event.body.attempt
            for n in range(self.padding):
                seen = e.ScopeViolationSeen(name, attempt, f"stray/{n}", "created", "watchdog")
                yield e.Draft(seen, ENGINE, event.seq)


class Fixing(GitWorld):
    """Every assignment has a finding in each of the first rounds, so that it is merged that many times more."""

    rounds = 0

    def _review(self, run: Run, body: e.ReviewRequested, key: tuple[object, ...]) -> e.Body:
        found: tuple[Finding, ...] = ()
        if body.round <= self.rounds:
            found = tuple(Finding("critical", f"{a.id}/f0", 1, "odd", "because") for a in self.plan.assignments)
        mine = tuple(f.id for f in run.open_findings() if f.reviewer == body.reviewer)
        return e.ReviewReported(body.reviewer, body.round, body.tip, "read it", found, mine)


def build(root: Path, merges: int, events: int) -> tuple[int, int]:
    """A repository with a run of about so many events; how many there are, and how many merges."""
    wide = min(64, merges)
    names = [f"{NAMES[n % len(NAMES)]}{n}" for n in range(wide)]
    plan = plan_of(*(replace(assignment(n), worker=f"{NAMES[i % len(NAMES)]}-agent") for i, n in enumerate(names)))
    rounds = max(0, merges // wide - 1)
    settings = replace(USUAL, rounds=rounds + 2, parallel=8, reviewers=("security-reviewer",))
    done = Long(plan, 1, CALM, settings, most=events + 20_000)
    world = Fixing(root, plan, 1, CALM)
    world.rounds = rounds
    done.world = world
    done.padding = max(0, (events - 30 * merges) // merges)
    done.drive()
    world.show(done.log)
    world.door.close()
    return len(done.log), sum(isinstance(ev.body, e.MergeDone) and ev.body.land == "merge" for ev in done.log)


def measured(argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """(seconds of processor time with its children's, MiB at most) of a command: the machine may be busy with others.
    Raises when it fails."""
    pid = os.posix_spawnp(
        argv[0], list(argv), dict(env),
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{argv}: exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 3, argv)
    sizes = [(4, 200)] if given.quick else [(32, 1_000), (192, 1_000), (192, 10_000), (192, 100_000)]
    with common.place() as (root, env):
        print("  events  merges   audit s   replay s   audit MiB   audit ms/event")
        for number, (merges, events) in enumerate(sizes):
            repo = root / f"repo{number}"
            counted, merged = build(repo, merges, events)
            log = repo / ".git" / "orchgit" / "runs" / RUN / "events.jsonl"
            show = ["git", "cat-file", "blob", f"refs/orchgit/runs/{RUN}:events.jsonl"]
            blob = subprocess.run(show, cwd=repo, env=env, capture_output=True, check=True).stdout
            there = {**env, "GIT_DIR": str(repo / ".git")}
            python = [sys.executable, "-m", "orchgit"]
            taken = [measured([*python, "audit", RUN], there) for _ in range(given.rounds)]
            log.parent.mkdir(parents=True)
            log.write_bytes(blob)
            told = [measured([*python, "replay", RUN], there)[0] for _ in range(given.rounds)]
            seconds, memory = min(taken)
            print(f"  {counted:>6}  {merged:>6}   {seconds:7.2f}   {min(told):8.2f}   {memory:9.0f}   "
                  f"{seconds / counted * 1000:14.2f}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
