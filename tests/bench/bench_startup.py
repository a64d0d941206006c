"""What a command costs before it does anything, beside the interpreter itself.

    python -m tests.bench.bench_startup [--rounds 20]

Aim: `orchgit --version` at most 3 times `python -c pass`. `status` and `log` look at a finished run of four workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from tests.bench import common

BASE = "python -c pass"


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 20, argv)
    with common.place() as (root, env):
        plan = [common.assignment(f"w{i}") for i in range(1, 2 if given.quick else 5)]
        repo = common.repository(root / "origin" / "repo", env, given.files)
        common.prepare(repo, env, plan)
        common.call(common.start_argv(repo, "--yes"), repo, env)
        commands = {
            BASE: [sys.executable, "-c", "pass"],
            "python -I -S -c pass": [sys.executable, "-I", "-S", "-c", "pass"],
            "git --version": ["git", "--version"],
            "orchgit --version": [common.ORCHGIT, "--version"],
            "orchgit --help": [common.ORCHGIT, "--help"],
            "orchgit start --help": [common.ORCHGIT, "start", "--help"],
            "orchgit status": [common.ORCHGIT, "status"],
            "orchgit log": [common.ORCHGIT, "log"],
            "orchgit audit": [common.ORCHGIT, "audit"],
        }
        variants = {name: partial(common.call, command, repo, env) for name, command in commands.items()}
        taken = common.in_turn(variants, given.rounds)
        print(f"{len(common.events(repo))} events in the log")
    common.table("start-up", taken, BASE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
