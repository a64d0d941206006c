"""What each level of sandbox costs: to start a program, and while it runs; beside the same program without one.

    python -m tests.bench.bench_sandbox [--rounds 20]

Aim: a start below the time of a model's first token by two orders of magnitude, running within a fifth of bare. Each
round runs every variant once, in turn. `keeper` is level none: supervision alone, and an interpreter's start.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchgit.process import start
from orchgit.sandbox import SANDBOXES, Confinement, base_env, sandbox
from tests.bench import common

PROGRAMS = {
    "true": ["true"],
    "git status": ["git", "-c", "core.fsmonitor=false", "status", "--porcelain"],
    "grep -r": ["grep", "-r", "--include=*.txt", "nowhere-to-be-found", "."],
    "find": ["find", ".", "-type", "f", "-newer", "no-such-file", "-o", "-name", "*.md"],
}
QUIET = {"grep -r": 1, "find": 1}  # their exit status here


def variants(cell: Path, tmp: Path, env: Mapping[str, str]) -> dict[str, Callable[[Sequence[str]], int]]:
    def bare(argv: Sequence[str]) -> int:
        return start(argv, cwd=str(cell), env=env).finish(deadline_s=60).returncode

    found: dict[str, Callable[[Sequence[str]], int]] = {"bare": bare}
    for name in SANDBOXES:
        way = sandbox(name)
        if isinstance(way.probe(), str):
            continue
        confinement = Confinement((str(cell),), str(tmp), readable=(str(cell.parent),))

        def run(argv: Sequence[str], way: object = way, confinement: Confinement = confinement) -> int:
            confined = way.argv(confinement, argv)  # type: ignore[attr-defined]
            return start(confined, cwd=str(cell), env=env, sweeps=True).finish(deadline_s=60).returncode

        found[name if name != "none" else "keeper"] = run
    return found


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 20, argv)
    with common.place() as (root, _):
        cell, tmp = root / "cell", root / "tmp"
        for at in range(given.files * 25 // 10):
            folder = cell / f"d{at % 97}" / f"e{at % 13}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"f{at}.txt").write_text(f"{at}\n" * 20)
        env = base_env(str(tmp), str(tmp))
        for line in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b", "commit", "-qm", "b"]):
            subprocess.run(["git", *line], cwd=cell, env=env, check=True)
        ways = variants(cell, tmp, env)
        took: dict[tuple[str, str], list[float]] = {}
        for _ in range(given.rounds):
            for program, command in PROGRAMS.items():
                for name, run in ways.items():
                    begun = time.perf_counter()
                    code = run(command)
                    took.setdefault((program, name), []).append(time.perf_counter() - begun)
                    assert code == QUIET.get(program, 0), (program, name, code)
    print(f"{given.rounds} rounds, load {os.getloadavg()[0]:.1f}; milliseconds: the least (and the median)")
    for program in PROGRAMS:
        print(program)
        bare = took[program, "bare"]
        for name in ways:
            own = took[program, name]
            ratio = statistics.median(o / b for o, b in zip(own, bare, strict=True))
            less = min(own) - min(took["true", name]) + min(took["true", "bare"])
            running = "" if program == "true" else f"   without its start {less / min(bare):5.2f}"
            print(
                f"  {name:15} {min(own) * 1e3:7.1f} ({statistics.median(own) * 1e3:7.1f})   of bare"
                f" {min(own) / min(bare):6.2f} ({ratio:6.2f}){running}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
