"""Decisions: a batch ends in a fixed point, a killed run as an undisturbed one, and nothing impossible is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from orchgit.core.decide import ENGINE, POLICIES, advance, decide, describe, waiting
from orchgit.core.plan import Plan
from orchgit.core.review import Finding
from orchgit.core.state import HOUSED, Illegal, Run, evolve, replay
from tests.core.world import (
    CALM,
    ERRING,
    ISSUE,
    ROUGH,
    RUN,
    USER,
    Odds,
    Sim,
    World,
    assignment,
    at,
    oid,
    plan_of,
    some_plan,
    some_settings,
)

PAIR = plan_of(assignment("api"), assignment("web", after=("api",)))


def sim(plan: Plan = PAIR, seed: int = 1, odds: Odds = CALM, **more: Any) -> Sim:
    return Sim(plan, seed, odds, e.Settings(**more))


def types(log: list[e.Event]) -> list[str]:
    return [event.body.type for event in log]


def until(done: Sim, kind: str) -> Sim:
    """Drive until something of this type is pending."""
    done.begin()
    while not any(p.body.type == kind for p in done.run.pending.values()):
        done.step()
    return done


# -- the plain story -------------------------------------------------------------------------------------


def test_one_assignment_from_start_to_end() -> None:
    done = sim(plan_of(assignment("api")), odds=replace(CALM, notes=0.0), reviewers=("security-reviewer",)).drive()
    assert [t for t in types(done.log) if t != "cell.removed"] == [
        "run.started", "issue.read", "plan.requested", "plan.proposed", "plan.approved",
        "assignment.started", "cell.requested", "cell.made", "agent.requested", "agent.reported",
        "gate.requested", "gate.passed", "cell.removal_requested", "checks.requested",
        "checks.passed", "verdict.requested", "verdict.given",
        "merge.prepared", "merge.built", "merge.requested", "merge.done",
        "checks.requested", "checks.passed", "review.requested", "review.reported",
        "synthesis.requested", "synthesis.written",
        "merge.prepared", "merge.built", "merge.requested", "merge.done", "run.completed",
    ]  # fmt: skip


def test_what_is_independent_goes_on_side_by_side_and_a_dependent_the_moment_it_can() -> None:
    plan = plan_of(assignment("api"), assignment("web"), assignment("docs", after=("web",)), assignment("ops"))
    done = sim(plan, parallel=2).begin()
    done.step()  # plan
    done.step()  # approval
    assert [n for n, w in done.run.works.items() if w.stage in HOUSED] == ["api", "web"]
    done.drive_on()
    started = [v.body.assignment for v in done.log if isinstance(v.body, e.AssignmentStarted)]
    assert sorted(started) == ["api", "docs", "ops", "web"]
    order = [(v.body.type, getattr(v.body, "assignment", "")) for v in done.log]
    merged = order.index(("merge.done", "web"))
    assert merged < order.index(("assignment.started", "docs"))


def test_policy_approves_and_says_so() -> None:
    done = sim(approval="policy").drive()
    (approved,) = [v for v in done.log if isinstance(v.body, e.PlanApproved)]
    assert (approved.actor, approved.body.mode) == (POLICIES[e.PlanApproved], "policy")  # type: ignore[attr-defined]


def test_the_same_run_gives_the_same_answer() -> None:
    one, two = (Sim(PAIR, 7, ROUGH, e.Settings()).drive() for _ in range(2))
    assert [v.line for v in one.log] == [v.line for v in two.log]


def test_a_clock_that_was_set_back_shows_no_time_running_backwards() -> None:
    done = sim().begin()
    run, written = decide(done.run, [e.Draft(e.AbortRequested(""), USER)], "1970-01-01T00:00:00.000Z")
    assert {v.time for v in written} == {done.run.time}
    assert run.time == done.run.time


# -- what cannot be --------------------------------------------------------------------------------------


def test_a_late_outcome_is_recorded_as_ignored() -> None:
    done = until(sim(), "gate.requested")
    ((seq, run_then, event),) = [(s, r, v) for s, (r, v, _) in done.tasks.items()]
    draft = done.world.perform(run_then, event)
    done.tasks.clear()
    done.record(draft)
    before = done.run
    done.record(draft, replace(draft, cause=None), replace(draft, cause=10**6))
    last = done.log[-3:]
    assert [v.body for v in last] == [e.OutcomeIgnored("gate.passed", b.body.why) for b in last]  # type: ignore[attr-defined]
    assert "nothing waits" in last[0].body.why  # type: ignore[attr-defined]
    assert [v.cause for v in last] == [seq, None, None]
    assert replace(done.run, seq=0, hash="", time="") == replace(before, seq=0, hash="", time="")


def test_an_impossible_outcome_fails_the_run_and_says_why() -> None:
    done = until(sim(), "gate.requested")
    ((seq, (_, event, _)),) = done.tasks.items()
    assert isinstance(event.body, e.GateRequested)
    done.record(e.Draft(e.MergeDone("merge", "api", oid("x")), ENGINE, seq))
    failed = done.log[-1]
    assert isinstance(failed.body, e.RunFailed)
    assert (failed.body.refused, failed.cause, done.run.phase) == ("merge.done", seq, "failed")
    assert "merge.done is no answer to gate.requested" in failed.body.why
    assert advance(done.run) is None
    assert waiting(done.run) is None
    # What comes in after that is kept, as ignored.
    done.record(e.Draft(e.GatePassed("api", 1, "c", "t", 1, ""), ENGINE, seq))
    assert isinstance(done.log[-1].body, e.OutcomeIgnored)


def test_an_outcome_that_fits_in_no_line_fails_the_run() -> None:
    for text, why in (("x" * 10**5, "at most 65536"), ("\ud800", "lone surrogate")):
        done = until(sim(), "agent.requested")
        ((seq, _),) = done.tasks.items()
        done.record(e.Draft(e.AgentReported("api", 1, text, (), ()), ENGINE, seq))
        assert isinstance(done.log[-1].body, e.RunFailed)
        assert why in done.log[-1].body.why


def test_a_note_that_fits_in_no_line_is_ignored_and_harms_nothing() -> None:
    done = until(sim(), "agent.requested")
    done.record(e.Draft(e.ScopeViolationSeen("api", 1, "x" * 10**5, "", "tool"), ENGINE, None))
    assert isinstance(done.log[-1].body, e.OutcomeIgnored)
    done.drive_on()
    assert done.run.phase == "completed"


ILLEGAL = (
    e.QuestionAnswered(("x",)), e.PlanApproved(1, oid("x"), "human"), e.PlanRejected(9, ""), e.ShipAsked(), ISSUE,
    e.BlockerAnswered("B1", ""), e.FindingWaived("F1", ""), e.PlanProposed(7, e.plan_digest(PAIR), PAIR),
    e.PlanProposed(1, "0", PAIR), e.AbortRequested("\ud800"), e.AbortRequested("x" * 10**5),
)  # fmt: skip


@pytest.mark.parametrize("body", ILLEGAL, ids=lambda b: b.type)
def test_an_input_that_cannot_be_is_said_to_who_said_it_and_nothing_is_written(body: e.Body) -> None:
    run = sim().begin().run
    with pytest.raises((Illegal, e.LineError)):
        decide(run, [e.Draft(body, USER)], at(9))


def test_an_outcome_before_the_run_has_begun_is_a_fault_of_the_caller() -> None:
    with pytest.raises(Illegal):
        decide(Run(RUN), [e.Draft(e.CellRemoved("api", 1), ENGINE, 0)], at(0))


# -- who waits for what ----------------------------------------------------------------------------------


def test_waiting() -> None:
    done = Sim(PAIR, 1, Odds(ask=1.0), e.Settings()).begin()
    assert waiting(done.run) is None
    done.step()
    assert waiting(done.run) == "questions"
    done = sim().begin()
    done.step()
    assert waiting(done.run) == "approval"
    done = Sim(plan_of(assignment("api")), 1, Odds(no_cell=1.0), e.Settings(approval="policy")).begin()
    while not waiting(done.run):
        done.step()
    assert waiting(done.run) == "blockers"
    assert isinstance(done.log[-1].body, e.RunBlocked)
    (blocker,) = done.run.open_blockers()
    assert describe(done.run, blocker) == 'orchgit answer r1 B1 "…"   or   orchgit retry r1/api'
    assert describe(done.run, replace(blocker, about="ship")) == 'orchgit answer r1 B1 "…"'
    assert describe(done.run, replace(blocker, kind="finding", about="F1")).startswith("orchgit waive r1 F1")


def test_a_blocker_stops_its_assignment_and_what_depends_on_it_and_nothing_else() -> None:
    class Asks(World):
        def _think(self, run: Run, body: e.Body) -> e.Body:
            done = super()._think(run, body)
            asks = isinstance(done, e.AgentReported) and done.assignment == "api" and not run.blockers
            return replace(done, blockers=("Which?",)) if asks else done  # type: ignore[type-var]

    done = Sim(plan_of(*PAIR.assignments, assignment("docs")), 2, CALM, e.Settings(approval="policy"))
    done.world = Asks(done.plan, 2, CALM)
    done.begin()
    while not waiting(done.run):
        done.step()
    assert {n: w.stage for n, w in done.run.works.items()} == {"api": "again", "web": "waiting", "docs": "merged"}
    assert done.run.works["api"].counted == 0, "to ask is no failure"
    done.say(e.BlockerAnswered("B1", "the red one"))
    again = next(v.body for v in reversed(done.log) if isinstance(v.body, e.AssignmentStarted))
    assert again.feedback == ("A human answered: the red one",)
    assert done.drive_on().run.phase == "completed"


def test_attempts_are_counted_and_then_a_human_is_asked_and_gives_as_many_again() -> None:
    done = Sim(plan_of(assignment("api")), 3, Odds(stray=1.0), e.Settings(attempts=2, approval="policy"), patience=2)
    done.drive()
    blockers = [v.body for v in done.log if isinstance(v.body, e.BlockerRaised)]
    assert [b.cause_kind for b in blockers] == ["attempts"] * 3
    assert "2 attempts, none good enough" in blockers[0].text
    assert "stray" in blockers[0].text
    started = [v.body for v in done.log if isinstance(v.body, e.AssignmentStarted)]
    assert [(s.attempt, s.counted) for s in started] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]


def test_an_absent_service_costs_no_attempt_and_is_asked_again_on_resume() -> None:
    done = Sim(plan_of(assignment("api")), 3, replace(CALM, away=1.0), e.Settings(approval="policy", attempts=1))
    done.begin()
    while not waiting(done.run):
        done.step()
    (blocker,) = done.run.open_blockers()
    assert (blocker.kind, blocker.about) == ("unavailable", "plan")
    done.world.odds = CALM
    done.resume()
    assert not done.run.open_blockers()
    assert done.drive_on().run.phase == "completed"


def review(*findings: Finding, **more: Any) -> Sim:
    """Driven until a human is needed or the run is over; the reviewer finds these, once."""

    class Finds(World):
        def _review(self, run: Run, body: e.ReviewRequested, key: tuple[object, ...]) -> e.Body:
            new = findings if not run.findings else ()
            fixed = tuple(f.id for f in run.open_findings() if f.state == "open")
            return e.ReviewReported(body.reviewer, body.round, body.tip, "read", new, fixed)

    done = sim(reviewers=("security-reviewer",), approval="policy", **more)
    done.world = Finds(PAIR, 1, CALM)
    done.begin()
    while not done.run.over and not waiting(done.run):
        done.step()
    return done


def test_what_does_not_block_is_reported_and_does_not_keep_the_run() -> None:
    done = review(Finding("high", "api/f0", 1, "odd"))
    assert done.run.phase == "completed"
    assert [f.id for f in done.run.open_findings()] == ["F1"]
    assert "fix.assigned" not in types(done.log)


def test_what_blocks_goes_to_its_owner_is_merged_again_and_read_again() -> None:
    done = review(Finding("high", "api/f0", 1, "odd", "because"), blocking="high")
    assert done.run.phase == "completed"
    (finding,) = done.run.findings
    assert (finding.state, finding.id, finding.reviewer) == ("fixed", "F1", "security-reviewer")
    merges = Counter(v.body.assignment for v in done.log if isinstance(v.body, e.MergeDone))
    assert merges == {"api": 2, "web": 1, "": 1}
    again = [v.body for v in done.log if isinstance(v.body, e.AssignmentStarted)][-1]
    assert again.assignment == "api"
    assert "Finding F1 (high) of security-reviewer at api/f0:1: odd\nbecause" in again.feedback[0]
    asked = [v.body for v in done.log if isinstance(v.body, e.ReviewRequested)]
    assert [a.round for a in asked] == [1, 2]
    assert asked[0].since == done.world.base
    assert asked[1].since == asked[0].tip


def test_a_finding_of_nobody_goes_to_a_human() -> None:
    done = review(Finding("critical", "nowhere", 1, "odd"))
    (blocker,) = done.run.open_blockers()
    assert (blocker.kind, blocker.about) == ("finding", "F1")
    assert "in nobody's scope" in blocker.text
    done.say(e.BlockerAnswered("B1", "", "web"))
    assert done.log[-1].body.type != "run.blocked"
    assert {v.body.assignment for v in done.log if isinstance(v.body, e.FixAssigned)} == {"web"}
    done = review(Finding("critical", "nowhere", 1, "odd"))
    done.say(e.FindingWaived("F1", "fine"))
    assert done.drive_on().run.phase == "completed"


def test_rounds_of_review_are_counted_and_then_a_human_is_asked() -> None:
    class Stubborn(World):
        def _review(self, run: Run, body: e.ReviewRequested, key: tuple[object, ...]) -> e.Body:
            new = () if run.findings else (Finding("critical", "api/f0", 1, "odd"),)
            return e.ReviewReported(body.reviewer, body.round, body.tip, "read", new, ())

    done = sim(reviewers=("security-reviewer",), approval="policy", rounds=1)
    done.world = Stubborn(PAIR, 1, CALM)
    done.begin()
    while not waiting(done.run):
        done.step()
    (blocker,) = done.run.open_blockers()
    assert (blocker.about, done.run.round) == ("review", 1)
    assert "1 rounds of review, and these still block: F1 odd" in blocker.text
    done.say(e.BlockerAnswered("B1", "once more"))
    assert "fix.assigned" in types(done.log)


# -- killed at any instant -------------------------------------------------------------------------------


def outcome(done: Sim) -> tuple[object, ...]:
    """What the same agents must lead to, whenever the engine died."""
    merges = Counter(v.body.assignment for v in done.log if isinstance(v.body, e.MergeDone))
    findings = sorted((f.path, f.title, f.state) for f in done.run.findings)
    return done.run.phase, dict(done.world.files(done.run.tip)), dict(merges), findings


def undisturbed(seed: int, odds: Odds) -> tuple[Plan, e.Settings, Sim]:
    rng = Random(seed)
    plan, chosen = some_plan(rng), replace(some_settings(rng), approval="policy")
    return plan, chosen, Sim(plan, seed, odds, chosen).drive()


@pytest.mark.parametrize("odds", [CALM, ERRING], ids=["calm", "erring"])
def test_killed_after_any_event_a_run_ends_as_it_would_have(odds: Odds) -> None:
    """Every place to die, of a whole run; among them those in the middle of a batch."""
    small = PAIR if odds is CALM else plan_of(assignment("api"), assignment("web"))
    chosen = e.Settings(reviewers=("security-reviewer",), approval="policy", ship="merge", attempts=2)
    seed = 11
    whole = Sim(small, seed, odds, chosen).drive()
    assert whole.run.phase == "completed"
    for length in range(1, len(whole.log)):
        killed = Sim(small, seed, odds, chosen, crash_at=length).drive()
        assert outcome(killed) == outcome(whole), f"killed after event {length}"
        assert [v.line for v in killed.log[:length]] == [v.line for v in whole.log[:length]]
        assert "run.resumed" not in types(killed.log)[:length]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 400))
def test_killed_anywhere_any_run_ends_as_it_would_have(seed: int, length: int) -> None:
    plan, chosen, whole = undisturbed(seed, replace(ERRING, blocker=0.0))
    length = 2 + length % (len(whole.log) - 2)
    killed = Sim(plan, seed, replace(ERRING, blocker=0.0), chosen, crash_at=length).drive()
    if "completed" == whole.run.phase == killed.run.phase:
        assert outcome(killed) == outcome(whole)
    lost = [v for v in killed.log if isinstance(v.body, e.AgentFailed) and v.body.lost]
    tries = sum(len(w.attempts) for w in killed.run.works.values())
    assert tries <= sum(len(w.attempts) for w in whole.run.works.values()) + len(lost)


def test_killed_again_and_again_a_run_still_ends() -> None:
    for seed in range(5):
        rng = Random(seed)
        done = Sim(some_plan(rng), seed, replace(CALM, crash=0.5), some_settings(rng)).drive()
        assert done.run.phase == "completed"
        counted = [w.counted for w in done.run.works.values()]
        assert set(counted) == {1}, "what was lost with its engine did not count"


def test_a_batch_cut_short_is_finished_before_anything_else() -> None:
    done = sim(approval="policy").drive()
    for cut in range(2, len(done.log)):
        run = replay(RUN, done.log[:cut])
        due = advance(run)
        after, written = decide(run, [], at(10**4))
        assert bool(written) == (due is not None)
        assert advance(after) is None
        if done.log[cut].body.kind in ("request", "decision"):
            assert [v.body for v in written] == [v.body for v in done.log[cut : cut + len(written)]]


def test_decide_writes_what_evolve_takes_and_nothing_else() -> None:
    done = until(sim(), "agent.requested")
    run, written = decide(done.run, [e.Draft(e.AbortRequested(""), USER)], at(9))
    state = done.run
    for event in written:
        state = evolve(state, event)
    assert state == run
