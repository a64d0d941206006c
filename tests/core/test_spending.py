"""What a run knows of money and patience: what was taken counts once and for ever, and only a human gives more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchgit.core import events as e
from orchgit.core.decide import ENGINE, advance, decide, waiting
from orchgit.core.state import Illegal, Run, evolve
from tests.core.world import CALM, USER, Sim, assignment, at, plan_of

PLAN = plan_of(assignment("api"))
STARTED = e.AgentStarted("lead", "orchestrator", "plan", "anthropic", "m", "b", "bwrap", "none")
EXITED = e.AgentExited("lead", "done", "", 1000, 3, 10, 5, 90, 0, 700, "t")
USED = e.Used(2, 10, 5, 90, 0, 500, 0, 0, 800)
WAITING = e.AgentWaiting("lead", "anthropic", at(60), at(1), "too many requests", "s", USED)


def planning() -> tuple[Run, int]:
    """A run whose orchestrator is asked for a plan; and the request's seq."""
    run = Sim(PLAN, 1, CALM, e.Settings(budget=e.Budget(cost_micro=1000))).begin().run
    return run, next(iter(run.pending))


def then(run: Run, body: e.Body, cause: int | None, actor: e.Actor = ENGINE) -> Run:
    return evolve(run, e.seal(e.Draft(body, actor, cause), run=run.id, seq=run.seq + 1, time=run.time, prev=run.hash))


def test_what_was_taken_counts_once_whoever_says_it_again() -> None:
    run, asked = planning()
    run = then(run, STARTED, asked)
    assert run.spent[asked].used == e.Used()
    run = then(then(run, WAITING, asked), e.AgentWaited("lead"), asked)
    assert run.spent[asked].used == USED
    # Its engine dies, and the next one begins it again: what it took before counts on, until the whole is known.
    run = then(run, STARTED, asked)
    assert run.spent[asked].used == USED
    for _ in range(2):
        run = then(run, EXITED, asked)
        assert [s.used.cost_micro for s in run.spent.values()] == [700]
    # Nobody waits for it any more, and it has cost what it has cost.
    run = then(run, e.PlanProposed(1, e.plan_digest(PLAN), PLAN), None, USER)
    run = then(run, replace(EXITED, cost_micro=900), asked)
    assert run.spent[asked].used.cost_micro == 900


def test_a_wait_is_over_when_it_is_said_to_be_or_its_request_is_answered() -> None:
    run, asked = planning()
    with pytest.raises(Illegal, match="does not wait"):
        then(then(run, STARTED, asked), e.AgentWaited("lead"), asked)
    waits = then(then(run, STARTED, asked), WAITING, asked)
    assert waits.waits == {asked: WAITING}
    assert not then(waits, e.AgentWaited("lead"), asked).waits
    assert not then(waits, e.AgentFailed("unavailable", "no patience left"), asked).waits
    assert not then(run, WAITING, asked).waits, "an agent that was never started waits for nothing"


def test_a_budget_that_is_used_up_stops_all_that_costs_and_only_a_human_raises_it() -> None:
    run, asked = planning()
    run, written = decide(run, [e.Draft(e.AgentFailed("run_budget", "the run: all spent"), ENGINE, asked)], at(3))
    assert [type(ev.body) for ev in written] == [e.AgentFailed, e.BlockerRaised, e.RunBlocked]
    assert (waiting(run), run.blockers[0].kind, run.blockers[0].about) == ("blockers", "budget", "")
    assert not run.failures, "it is nobody's failure"
    resumed, _ = decide(run, [e.Draft(e.RunResumed("x", 0, "s", sandboxed=True), USER)], at(4))
    assert (advance(resumed), resumed.pending) == (None, {})
    for said, words in (
        (e.BlockerAnswered("B1", "go on"), "raised, not answered"),
        (e.BudgetRaised("", e.Budget()), "more than nothing"),
        (e.BudgetRaised("", e.Budget(cost_micro=-5)), "more than nothing"),
        (e.BudgetRaised("nobody", e.Budget(tokens=5)), "no assignment"),
    ):  # fmt: skip
        with pytest.raises(Illegal, match=words):
            decide(run, [e.Draft(said, USER)], at(5))
    run, written = decide(run, [e.Draft(e.BudgetRaised("", e.Budget(cost_micro=5)), USER)], at(6))
    assert [type(ev.body) for ev in written] == [e.BudgetRaised, e.PlanRequested]
    assert run.raised == e.Budget(cost_micro=5)
    assert not run.open_blockers()


def test_a_worker_that_halts_keeps_its_attempt_its_cell_and_its_conversation() -> None:
    sim = Sim(PLAN, 1, CALM, e.Settings()).begin()
    while not any(isinstance(p.body, e.AgentRequested) for p in sim.run.pending.values()):
        sim.step()
    asked = next(seq for seq, p in sim.run.pending.items() if isinstance(p.body, e.AgentRequested))
    halted = e.AgentHalted("api", 1, "assignment", "assignment api: all spent", "its session")
    run, _ = decide(sim.run, [e.Draft(halted, ENGINE, asked)], at(50))
    assert (run.works["api"].stage, run.works["api"].cell, run.works["api"].counted) == ("halted", True, 1)
    raised, written = decide(run, [e.Draft(e.BudgetRaised("api", e.Budget(tokens=9)), USER)], at(51))
    assert written[-1].body == e.AgentRequested("api", 1, "api-agent", "its session")
    # More for the run is no more for the assignment.
    other, _ = decide(run, [e.Draft(e.BudgetRaised("", e.Budget(tokens=9)), USER)], at(51))
    assert (other.works["api"].stage, len(other.open_blockers("api"))) == ("halted", 1)
    _, written = decide(run, [e.Draft(e.AbortRequested("enough"), USER)], at(51))
    assert isinstance(written[-1].body, e.SalvageRequested), "its work is set aside, and not lost"
    assert raised.raised == e.NO_LIMIT
