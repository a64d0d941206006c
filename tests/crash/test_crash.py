"""A seeded sample of `python -m tests.crash`, which is all of it; `-m whole` has what is left out by default."""

from __future__ import annotations

import shutil
from random import Random
from typing import Any

import pytest

from tests.crash.harness import AT_WORK, Fault, Lab, call_points, doubles, event_points

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that kills at a call is C, and there is no cc")
SEED = 20


def some(total: int, *chosen: int) -> Any:
    """All these numbers, the chosen ones by default."""
    return [n if n in chosen else pytest.param(n, marks=pytest.mark.whole) for n in range(total)]


def holds(lab: Lab, *faults: Fault, fired: int | None = None) -> None:
    result = lab.case(*faults)
    assert result.wrong == [], f"{faults}: {result.where}\n{result.said}"
    assert result.fired == (len(faults) if fired is None else fired), f"{faults} was not seen to happen"


@pytest.mark.parametrize("index", some(6, 0, 2, 4))
def test_killed_at_an_event(lab: Lab, index: int) -> None:
    """One of each phase."""
    points = event_points(lab.events)
    holds(lab, points[index + 6 * Random(SEED + index).randrange(lab.events - 2)])


@pytest.mark.parametrize("index", some(6, 1, 3, 5))
def test_killed_at_a_call(lab: Lab, index: int) -> None:
    """One of each sixth of the run."""
    points = call_points(lab.calls)
    sixth = len(points) // 6
    holds(lab, points[index * sixth + Random(SEED + index).randrange(sixth - 20)])


@pytest.mark.parametrize("index", some(6, 1, 2))
def test_killed_again_while_it_recovers(lab: Lab, index: int) -> None:
    singles = event_points(lab.events)[:500] + call_points(lab.calls - 500)
    ((first, (second,)),) = doubles(singles, Random(SEED + index), 1, lab.calls, lab.events)
    holds(lab, first, second)


@pytest.mark.parametrize("phase", [pytest.param("before", marks=pytest.mark.whole), "torn", "unsynced"])
def test_what_began_half_never_began(lab: Lab, phase: str) -> None:
    """Before, while and after the first batch is written: there is no run, or a whole one."""
    holds(lab, {"kind": "event", "number": 1, "phase": phase, "part": 50})


@pytest.mark.parametrize("again", [pytest.param(n, marks=pytest.mark.whole) for n in (0, 1)] + [40])
def test_agents_that_outlive_their_engine_are_stopped(again: int) -> None:
    """As on a platform where nothing kills them: killed while the worker is at work, and again while it is resumed."""
    with Lab(outliving=100, without=("immortal",)) as lab:
        second: list[Fault] = [{"kind": "call", "number": again, "action": "kill"}] if again else []
        result = lab.case(AT_WORK, *second)
        assert result.wrong == [], f"{result.where}\n{result.said}"
        assert result.fired == 1 + len(second)
