"""What an engine costs that waits for a human (`start --wait`, the plan is not approved), beside `sleep`.

    python -m tests.bench.bench_idle [--rounds 10]   a round is a second

Aim: near zero. CPU time and context switches of all its threads, from /proc.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import common

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def used(pid: int) -> tuple[float, int]:
    """(CPU seconds, context switches) so far, of all threads."""
    cpu, switches = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        # In ns where the kernel keeps it; the ticks of `stat` are too coarse for what is nearly nothing.
        try:
            cpu += int((task / "schedstat").read_text().split()[0]) / 1e9
        except FileNotFoundError:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) * TICK_S
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                switches += int(line.split()[1])
    return cpu, switches


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 10, argv)
    with common.place() as (root, env):
        repo = common.repository(root / "origin" / "repo", env, given.files)
        common.prepare(repo, env, [common.assignment("w1")])
        engine = subprocess.Popen(
            common.start_argv(repo, "--wait"), cwd=repo, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        other = subprocess.Popen(["sleep", "600"])
        try:
            common.until(repo, "plan.proposed")
            time.sleep(0.2 if given.quick else 1)
            before = {child: (time.monotonic(), *used(child.pid)) for child in (engine, other)}
            time.sleep(0.3 if given.quick else given.rounds)
            print("waiting")
            for name, child in (("engine", engine), ("sleep", other)):
                assert child.poll() is None
                begun, cpu, switches = before[child]
                wall = time.monotonic() - begun
                now_cpu, now_switches = used(child.pid)
                threads = len(os.listdir(f"/proc/{child.pid}/task"))
                share, rate = (now_cpu - cpu) / wall, (now_switches - switches) / wall
                print(f"  {name:<7} {threads:2} threads  {share * 100:.3f} % of a CPU  {rate:6.1f} switches a second")
        finally:
            for child in (engine, other):
                child.terminate()
                child.wait(20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
