"""No false alarm with real git: honest runs of every sort pass what the command asks. With ORCHGIT_ALL=1, 60."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from orchgit.auditor import Audit
from tests.core.world import ERRING, ROUGH, RUN, WILD, some_plan, some_settings
from tests.support.git_world import sim
from tests.support.golden import ALL


@pytest.mark.parametrize("seed", range(60 if ALL else 6))
def test_no_honest_run_is_accused(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    done, world = sim(tmp_path, some_plan(rng), seed, (ERRING, ROUGH, WILD)[seed % 3], some_settings(rng))
    done.drive()
    world.show(done.log)
    with Audit(world.common, RUN) as audit:
        told = audit.judge()
    assert {r.law: (r.found, r.why) for r in told.results if r.verdict != "pass"} == {}
