"""Runs on a forge, in the simulated world: what is written, when, and that nothing is merged there unapproved."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from orchgit.core import forge
from orchgit.core.audit import judge, read
from orchgit.core.state import replay
from tests.core.world import (
    CALM,
    ERRING,
    ROUGH,
    RUN,
    WILD,
    Odds,
    Sim,
    assignment,
    lines_of,
    on_a_forge,
    plan_of,
    some_plan,
    some_settings,
)

BY_PR = e.Settings(forge="github", repository="h/o/n", issue=65, plan="comment", ship="pr")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([ERRING, ROUGH, WILD, replace(CALM, crash=0.4, picky=0.3)]))
@example(2758, ROUGH)  # sealed, then changes were wanted, reviewed and not sealed again before it was aborted
def test_any_run_on_a_forge_is_legal_ends_and_passes_audit(seed: int, odds: Odds) -> None:
    """`Watch` looks on: no merge there, and in the mode for it none here, without a human's approval of that commit."""
    rng = Random(seed)
    done = Sim(some_plan(rng), seed, odds, on_a_forge(rng, some_settings(rng))).drive()
    reading = read(RUN, lines_of(done.log))
    assert reading.run == done.run == replay(RUN, done.log)
    assert {r.law for r in judge(reading, done.world) if r.verdict != "pass"} == set()


def writes(sim: Sim) -> list[str]:
    return [ev.body.key for ev in sim.log if isinstance(ev.body, e.ForgeRequested)]


def test_the_order_of_writes() -> None:
    plan = plan_of(assignment("api"), assignment("web", after=("api",)))
    done = Sim(plan, 1, CALM, BY_PR).drive()
    assert done.run.phase == "completed"
    keys = [k for k in writes(done) if k != "progress"]
    bare = [k if not k.startswith(("push/", "merge/")) else k.rpartition("/")[0] for k in keys]
    contexts = ("scope", "checks", "review")
    assert bare == [
        "plan/1",
        "push/integration", "push/workers", "change/api", "change/web",
        *(f"status/{n}/{c}" for n in ("api", "web") for c in contexts),
        "push/integration", "retarget/web", "push/integration", "push/integration",
        "change/integration", *(f"status/integration/{c}" for c in contexts), "merge", "close",
    ]  # fmt: skip
    first = next(ev.body for ev in done.log if isinstance(ev.body, e.ForgeRequested) and ev.body.act == "push")
    assert first.head == done.world.base
    opened = [ev.body for ev in done.log if isinstance(ev.body, e.ForgeRequested) and ev.body.act == "change"]
    assert [c.base for c in opened] == [f"orchgit/{RUN}/integration", f"orchgit/{RUN}/api", "main"]
    assert done.run.shipped


def test_without_a_forge_nothing_is_written() -> None:
    plan = plan_of(assignment("api"))
    assert writes(Sim(plan, 1, CALM, replace(BY_PR, forge="local", ship="none")).drive()) == []


def test_a_forge_that_takes_nothing_stops_no_work() -> None:
    plan = plan_of(assignment("api"), assignment("web", after=("api",)))
    done = Sim(plan, 1, replace(CALM, unsaid=1.0), replace(BY_PR, ship="none")).drive()
    assert done.run.phase == "completed"
    assert {type(ev.body) for ev in done.log if ev.body.type.startswith("forge.")} == {e.ForgeRequested, e.ForgeFailed}


def test_pull_requests_that_cannot_be_opened_are_a_blocker_and_a_human_can_do_without() -> None:
    plan = plan_of(assignment("api"))
    sim = Sim(plan, 1, replace(CALM, unsaid=1.0), BY_PR).begin()
    while not sim.run.open_blockers():
        sim.step()
    assert [b.kind for b in sim.run.open_blockers()] == ["unavailable"]
    sim.say(e.ShipLeft())
    sim.drive_on()
    assert (sim.run.phase, sim.run.shipped) == ("completed", "")


def test_a_later_attempt_stands_alone_only_where_nobody_else_works_on_its_ground() -> None:
    plan = plan_of(assignment("api"), assignment("web", after=("api",), allow=("web/**", "api/shared")))
    done = Sim(plan, 1, CALM, replace(BY_PR, issue=0)).drive()
    assert not forge.alone(done.run, "api")
    apart = Sim(plan_of(assignment("api"), assignment("web")), 1, CALM, BY_PR).drive()
    assert forge.alone(apart.run, "api")
