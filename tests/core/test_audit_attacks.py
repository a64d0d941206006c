"""No false alarm: honest runs of every sort, generated, pass every law, whole and cut at any event.

What is done to logs and repositories that are not honest: tests/edges/test_audit_attacks.py. A sample by default; with
ORCHGIT_ALL=1 in the environment all 520 runs.
"""

from __future__ import annotations

from random import Random

import pytest

from orchgit.core.audit import judge, read
from tests.core.world import ERRING, MOVING, ROUGH, RUN, WILD, Sim, lines_of, some_plan, some_settings
from tests.support.golden import ALL

RUNS = 520
SOME = 16


@pytest.mark.parametrize("part", range(4))
def test_no_honest_run_is_accused(part: int) -> None:
    for seed in range(part, RUNS if ALL else SOME, 4):
        rng = Random(seed)
        odds = (ERRING, ROUGH, WILD, MOVING)[(seed // 4) % 4]
        done = Sim(some_plan(rng), seed, odds, some_settings(rng)).drive()
        lines = lines_of(done.log)
        wrong = {r.law: (r.found, r.why) for r in judge(read(RUN, lines), done.world) if r.verdict != "pass"}
        assert wrong == {}, seed
        # As it was at any moment: what git has by now is ahead of it, so the laws of the log alone.
        cut = judge(read(RUN, lines[: rng.randint(1, len(lines))]), None)
        assert [r for r in cut if r.verdict == "violation"] == [], seed
