"""Runs in the simulated world: whatever happens, in whatever order, the run obeys its tables and comes to an end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from orchgit.core import handlers, state
from orchgit.core.decide import ENGINE
from orchgit.core.review import Finding
from orchgit.core.state import ANSWERS, RUN_MOVES, TERMINAL, WORK_MOVES, Illegal, Run, Work, evolve, replay
from tests.core.world import (
    BASE_REF,
    CALM,
    ERRING,
    ISSUE,
    MOVING,
    ROSTER,
    ROUGH,
    RUN,
    USER,
    WILD,
    Odds,
    Sim,
    World,
    assignment,
    at,
    example,
    oid,
    on_a_forge,
    plan_of,
    some_plan,
    some_settings,
)

seeds = st.integers(0, 10**9)


def sim(seed: int, odds: Odds, *, forge: bool = False) -> Sim:
    rng = Random(seed)
    plan, chosen = some_plan(rng), some_settings(rng)
    return Sim(plan, seed, odds, on_a_forge(rng, chosen) if forge else chosen)


# -- every schedule --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([CALM, ERRING, ROUGH, WILD, MOVING]))
def test_every_run_ends_and_nothing_forbidden_is_seen_on_the_way(seed: int, odds: Odds) -> None:
    """`Sim` and `Watch` look after every event; see there for what they look for."""
    done = sim(seed, odds).drive()
    assert done.run.phase in ("completed", "aborted"), done.log[-1].body
    assert replay(RUN, done.log) == done.run
    if odds is CALM:
        assert done.run.phase == "completed"


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_what_landed_is_what_the_workers_made_and_nothing_else(seed: int) -> None:
    done = sim(seed, ROUGH).drive()
    tip = done.world.files(done.run.tip)
    ours = {a.id: a.scope for a in (done.run.plan or done.plan).assignments}
    for path, content in tip.items():
        if content not in ("hello", "old"):
            assert any(s.allows(path.encode()) and f"work/{n}/" in content for n, s in ours.items()), (path, content)
    assert tip["README"] == "hello"
    for name, work in done.run.works.items():
        if work.stage == "merged":
            assert tip.get(f"{name}/f0", "").startswith(f"('work/{name}/")


@cache
def rows() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    run_rows: set[tuple[str, str]] = set()
    work_rows: set[tuple[str, str]] = set()
    # First those that went far when this was written; what else the world does moves them, and then more are tried.
    for seed in (1180, 1212, 1068, 1061, 1040, 1036, *range(1000, 1400)):
        done = sim(seed, (ROUGH, WILD, MOVING)[seed % 3], forge=seed % 4 == 0).drive()
        run_rows |= done.run_rows
        work_rows |= done.work_rows
        if run_rows >= set(RUN_MOVES) and work_rows >= set(WORK_MOVES):
            break
    return frozenset(run_rows), frozenset(work_rows)


def test_every_row_of_the_tables_is_reached() -> None:
    """A row that nothing reaches is dead, and a promise that nobody keeps."""
    run_rows, work_rows = rows()
    assert set(RUN_MOVES) - run_rows == set()
    assert set(WORK_MOVES) - work_rows == set()


def test_the_tables_name_what_there_is() -> None:
    phases = {p for p, _ in RUN_MOVES} | set(RUN_MOVES.values()) | set(state.ANYTIME_MOVES.values())
    assert phases - {p for p, _ in RUN_MOVES} == TERMINAL - {"completed"}
    stages = {s for s, _ in WORK_MOVES} | set(WORK_MOVES.values())
    assert stages == {s for s, _ in WORK_MOVES}
    assert stages > state.HOUSED
    for _, key in (*RUN_MOVES, *WORK_MOVES):
        assert key.partition(":")[0] in e.TYPES
    requests = {b.type for b in e.BODIES if b.kind == "request"}
    assert set(ANSWERS) == requests
    assert {o for outcomes in ANSWERS.values() for o in outcomes} == {b.type for b in e.BODIES if b.kind == "outcome"}


# -- one step at a time ----------------------------------------------------------------------------------


class Steps:
    """A run by hand, event by event, without decide: so that what decide would never do can be tried."""

    def __init__(self, *, until: str = "", **more: Any) -> None:
        self.plan = plan_of(assignment("api"), assignment("web", after=("api",)))
        self.run = Run(RUN)
        world = World(self.plan, 0, CALM)
        chosen = e.Settings(**more)
        self.add(e.RunStarted(1, world.base, BASE_REF, "sha1", "t", "g", "p", "c", chosen, ROSTER, "s", True, True))
        self.add(ISSUE)
        self.base = world.base
        self.digest = e.plan_digest(self.plan)
        for make in self._script():
            body = make()
            if body.type == until:
                return
            self.add(body)

    def _script(self) -> list[Callable[[], e.Body]]:
        t1, c1, m1 = oid("t1"), oid("c1"), oid("m1")
        red = e.CheckResult("test api", True, "", 0, 1, 1, "d")
        self.results = (red,)
        return [
            lambda: e.PlanRequested(1),
            lambda: e.PlanProposed(1, self.digest, self.plan),
            lambda: e.PlanApproved(1, self.digest, "human"),
            lambda: e.AssignmentStarted("api", 1, 1, "", ()),
            lambda: e.CellRequested("api", 1, "", "", ()),
            lambda: e.CellMade("api", 1, self.base, "refs/x", "s", (), ()),
            lambda: e.AgentRequested("api", 1, "api-agent"),
            lambda: e.AgentReported("api", 1, "done", (), ()),
            lambda: e.GateRequested("api", 1),
            lambda: e.GatePassed("api", 1, c1, t1, 1, ""),
            lambda: e.ChecksRequested("api", 1, c1, self.base),
            lambda: e.ChecksPassed("api", 1, self.base, t1, self.results),
            lambda: e.VerdictRequested("api", 1, c1),
            lambda: e.VerdictGiven("api", 1, "accept", ()),
            lambda: e.MergePrepared("merge", "api", 1, c1, self.base, t1),
            lambda: e.MergeBuilt("merge", "api", m1),
            lambda: e.MergeRequested("merge", "api", 1, self.run.ref, self.base, m1, t1),
            lambda: e.MergeDone("merge", "api", m1),
        ]

    def add(self, body: e.Body, cause: int | None = None) -> e.Event:
        if cause is None and body.kind == "outcome":
            cause = max(self.run.pending)
        draft = e.Draft(body, ENGINE if body.kind != "input" else USER, cause)
        event = e.seal(draft, run=RUN, seq=self.run.seq + 1, time=at(self.run.seq + 1), prev=self.run.hash)
        self.run = evolve(self.run, event)
        return event

    def refuses(self, body: e.Body, words: str, cause: int | None = None) -> None:
        before = self.run
        with pytest.raises(Illegal, match=words):
            self.add(body, cause)
        assert self.run is before

    @property
    def api(self) -> Work:
        return self.run.works["api"]


T1, C1, M1 = oid("t1"), oid("c1"), oid("m1")


def test_the_script_is_legal_to_its_end() -> None:
    steps = Steps()
    assert steps.api.stage == "merged"
    assert steps.run.tip == M1
    assert steps.run.pending == {}


GATE = {
    "another tree": (lambda s: e.MergePrepared("merge", "api", 1, C1, s.base, oid("t2")), "did not pass"),
    "another tip": (lambda s: e.MergePrepared("merge", "api", 1, C1, oid("b2"), T1), "than the tip"),
    "another commit": (lambda s: e.MergePrepared("merge", "api", 1, oid("c2"), s.base, T1), "not the commit"),
    "another attempt": (lambda s: e.MergePrepared("merge", "api", 2, C1, s.base, T1), "not the current one"),
    "another assignment": (lambda s: e.MergePrepared("merge", "web", 1, C1, s.base, T1), "cannot happen while waiting"),
    "nobody": (lambda s: e.MergePrepared("merge", "docs", 1, C1, s.base, T1), "no assignment 'docs'"),
    "a seal": (lambda s: e.MergePrepared("seal", "", 0, s.base, s.base, T1), "cannot happen while executing"),
    "at once": (lambda s: e.MergeRequested("merge", "api", 1, s.run.ref, s.base, M1, T1), "cannot happen while accept"),
}


@pytest.mark.parametrize(("body", "words"), GATE.values(), ids=GATE)
def test_the_merge_gate(body: Callable[[Steps], e.Body], words: str) -> None:
    steps = Steps(until="merge.prepared")
    steps.refuses(body(steps), words)


def test_no_merge_without_checks_or_verdict() -> None:
    for until in ("checks.requested", "verdict.requested"):
        steps = Steps(until=until)
        steps.refuses(e.MergePrepared("merge", "api", 1, C1, steps.base, T1), "cannot happen while")
    # A gate that passed again makes checks of the work before worthless.
    steps = Steps(until="merge.prepared")
    stale = replace(steps.run, works={**steps.run.works, "api": replace(steps.api, verified=None)})
    steps.run = stale
    steps.refuses(e.MergePrepared("merge", "api", 1, C1, steps.base, T1), "checks did not pass")


SWAP = {
    "another commit": (lambda s: e.MergeRequested("merge", "api", 1, s.run.ref, s.base, oid("m2"), T1), "prepared"),
    "another tree": (lambda s: e.MergeRequested("merge", "api", 1, s.run.ref, s.base, M1, oid("t2")), "prepared"),
    "another old": (lambda s: e.MergeRequested("merge", "api", 1, s.run.ref, oid("b2"), M1, T1), "prepared"),
    "another ref": (lambda s: e.MergeRequested("merge", "api", 1, BASE_REF, s.base, M1, T1), "tip has moved"),
    "another kind": (lambda s: e.MergeRequested("ship", "api", 1, BASE_REF, s.base, M1, T1), "cannot happen"),
}


@pytest.mark.parametrize(("body", "words"), SWAP.values(), ids=SWAP)
def test_what_was_prepared_is_what_is_merged(body: Callable[[Steps], e.Body], words: str) -> None:
    steps = Steps(until="merge.requested")
    steps.refuses(body(steps), words)


def test_one_merge_at_a_time() -> None:
    steps = Steps(until="merge.built")
    steps.run = replace(steps.run, works={**steps.run.works, "api": replace(steps.api, stage="accepted")})
    steps.refuses(e.MergePrepared("merge", "api", 1, C1, steps.base, T1), "another merge is under way")


def test_a_merge_is_done_only_when_it_was_asked_for() -> None:
    steps = Steps(until="merge.requested")
    steps.refuses(e.MergeDone("merge", "api", M1), "nothing waits", cause=1)
    steps = Steps(until="merge.done")
    steps.refuses(e.MergeDone("merge", "api", oid("m2")), "its new is not that")
    steps.refuses(e.MergeDone("seal", "", M1), "its land is not that|its assignment is not that")


def test_an_outcome_answers_its_own_request_and_no_other() -> None:
    """Every outcome, against every request that it could be passed off for."""
    outcomes = [b for b in e.BODIES if b.kind == "outcome"]
    tried = 0
    for until in outcomes:
        steps = Steps(until=until.type)
        if not steps.run.pending:
            continue
        (cause, request), *_ = steps.run.pending.items()
        for cls in outcomes:
            if cls.type not in ANSWERS[request.body.type]:
                steps.refuses(example(cls), "no answer", cause=cause)
                tried += 1
    assert tried > 50


OLD = {
    "a report of another attempt": ("agent.reported", e.AgentReported("api", 2, "", (), ()), "attempt is not that"),
    "a report of another": ("agent.reported", e.AgentReported("web", 1, "", (), ()), "assignment is not that"),
    "a gate of another attempt": ("gate.passed", e.GatePassed("api", 0, C1, T1, 1, ""), "attempt is not that"),
    "checks on another tip": ("checks.passed", e.ChecksPassed("api", 1, oid("b2"), T1, ()), "onto is not that"),
    "failed checks on another": ("checks.passed", e.ChecksFailed("web", 1, oid("b"), T1, (), False, ""), "not that"),
    "checks never asked for": (
        "checks.passed", e.ChecksPassed("integration", 1, oid("b2"), T1, ()), "subject is not that|onto is not that",
    ),
    "a verdict of another attempt": ("verdict.given", e.VerdictGiven("api", 2, "accept", ()), "attempt is not that"),
    "a merge commit of another": ("merge.built", e.MergeBuilt("merge", "web", M1), "assignment is not that"),
    "nobody asked": ("gate.requested", e.GatePassed("api", 1, C1, T1, 1, ""), "nothing waits"),
}  # fmt: skip


@pytest.mark.parametrize(("until", "body", "words"), OLD.values(), ids=OLD)
def test_outcomes_of_something_else(until: str, body: e.Body, words: str) -> None:
    steps = Steps(until=until)
    steps.refuses(body, words, cause=max(steps.run.pending, default=3))


def test_an_outcome_counts_once() -> None:
    steps = Steps(until="gate.requested")
    steps.refuses(e.AgentReported("api", 1, "again", (), ()), "nothing waits", cause=8)


def test_checks_are_those_of_the_plan_and_all_of_them_passed() -> None:
    steps = Steps(until="checks.passed")
    good = steps.results[0]
    for results in ((), (good, good), (replace(good, command="true"),)):
        steps.refuses(e.ChecksPassed("api", 1, steps.base, T1, results), "not the checks of the approved plan")
    steps.refuses(e.ChecksPassed("api", 1, steps.base, T1, (replace(good, passed=False),)), "is not passed")


def test_checks_of_the_whole_are_all_checks() -> None:
    done = Sim(Steps().plan, 1, CALM).drive()
    index = next(i for i, v in enumerate(done.log) if isinstance(v.body, e.ChecksPassed) and v.body.attempt == 0)
    before, event = replay(RUN, done.log[:index]), done.log[index]
    assert isinstance(event.body, e.ChecksPassed)
    for results in ((), event.body.results[:1]):
        draft = e.Draft(replace(event.body, results=results), ENGINE, event.cause)
        forged = e.seal(draft, run=RUN, seq=index, time=event.time, prev=before.hash)
        with pytest.raises(Illegal, match="not the checks of the approved plan"):
            evolve(before, forged)


def test_approval_is_of_the_very_plan_that_was_shown() -> None:
    steps = Steps(until="plan.approved")
    steps.refuses(e.PlanApproved(1, oid("other"), "human"), "another plan")
    steps.refuses(e.PlanApproved(2, steps.digest, "human"), "another plan")
    steps.refuses(e.PlanApproved(1, steps.digest, "policy"), "no policy")
    edited = replace(steps.plan, goal="Something else.")
    steps.refuses(e.PlanProposed(1, e.plan_digest(edited), edited), "nothing waits|numbered", cause=99)
    event = e.Draft(e.PlanProposed(2, e.plan_digest(edited), edited), USER)
    steps.run = evolve(
        steps.run, e.seal(event, run=RUN, seq=steps.run.seq + 1, time=at(9), prev=steps.run.hash)
    )  # fmt: skip
    steps.refuses(e.PlanApproved(1, steps.digest, "human"), "another plan")
    steps.add(e.PlanApproved(2, e.plan_digest(edited), "human"))
    assert steps.run.plan == edited


def test_only_a_valid_plan_is_proposed() -> None:
    for plan, digest, words in (
        (plan_of(), None, "not a valid plan: plan: it has no assignments"),
        (Steps().plan, oid("x"), "digest is not that"),
    ):
        steps = Steps(until="plan.proposed")
        steps.refuses(e.PlanProposed(1, digest or e.plan_digest(plan), plan), words)
    steps.refuses(e.PlanProposed(2, steps.digest, steps.plan), "numbered in order")


def test_starting() -> None:
    steps = Steps(until="assignment.started", attempts=1)
    steps.refuses(e.AssignmentStarted("web", 1, 1, "", ()), "a dependency is not merged")
    steps.refuses(e.AssignmentStarted("api", 2, 1, "", ()), "numbered in order")
    steps.refuses(e.AssignmentStarted("api", 1, 2, "", ()), "no tries are left")
    steps.refuses(e.AssignmentStarted("docs", 1, 1, "", ()), "no assignment 'docs'")
    steps = Steps(attempts=1)
    steps.add(e.AssignmentStarted("web", 1, 1, "", ()))
    steps.refuses(e.AssignmentStarted("web", 2, 2, "", ()), "cannot happen while assigned")


def test_a_lost_try_does_not_count_and_a_failed_one_does() -> None:
    for lost, status, counted in ((True, "lost", 0), (False, "auth", 0), (False, "unavailable", 0), (False, "turns", 1),
                                  (False, "stopped", 1)):  # fmt: skip
        steps = Steps(until="agent.reported", attempts=1)
        steps.add(e.AgentFailed(status, "m", lost=lost))
        assert steps.api.counted == counted, status
        steps.add(e.SalvageRequested("api", 1))
        steps.add(e.SalvageKept("api", 1, "", "nothing"))
        if counted:
            steps.refuses(e.AssignmentStarted("api", 2, 2, "", ()), "no tries are left")
        elif lost:
            steps.add(e.AssignmentStarted("api", 2, 1, "", ()))
            assert steps.api.attempt == 2


def test_what_an_attempt_was_told_is_told_again_when_nothing_came_of_it() -> None:
    told = ("The orchestrator wants changes: name it better",)

    def begun(until: str) -> Steps:
        steps = Steps(until="assignment.started")
        steps.add(e.AssignmentStarted("api", 1, 1, "", told))
        steps.add(e.CellRequested("api", 1, "", "", ()))
        if until == "cell":
            return steps
        steps.add(e.CellMade("api", 1, steps.base, "refs/x", "s", (), ()))
        steps.add(e.AgentRequested("api", 1, "api-agent"))
        if until == "agent":
            return steps
        asks = until == "blocker"
        steps.add(e.AgentReported("api", 1, "done", (), ("Which?",) if asks else ()))
        steps.add(e.SalvageRequested("api", 1) if asks else e.GateRequested("api", 1))
        return steps

    ends: list[tuple[str, e.Body, tuple[str, ...]]] = [
        ("cell", e.CellFailed("api", 1, "no room"), ()),
        ("agent", e.AgentFailed("lost", "its engine ended", lost=True), ()),
        ("agent", e.AgentFailed("auth", "no key"), ()),
        ("agent", e.AgentFailed("turns", "too many"), ("without a report (turns",)),
        ("blocker", e.SalvageKept("api", 1, ""), ()),
        ("gate", e.GateFailed("api", 1, (e.Violation("x", "out"),), 1, ""), ("The gate refused",)),
    ]
    for until, body, more in ends:
        steps = begun(until)
        assert not steps.api.feedback
        steps.add(body)
        assert steps.api.feedback[:1] == told, body.type
        assert len(steps.api.feedback) == 1 + len(more)
        assert all(words in piece for words, piece in zip(more, steps.api.feedback[1:], strict=True))
    steps = begun("gate")
    steps.add(e.GatePassed("api", 1, C1, T1, 1, ""))
    assert not steps.api.feedback, "what was asked for is in the commit now"


def test_after_a_join_every_later_attempt_goes_on_from_it() -> None:
    """`base..head` is what lands: a head from before the join would take back what others had landed since."""
    steps = Steps()
    steps.run = replace(steps.run, phase="reviewing")
    steps.add(e.FixAssigned("api", (), "red"))
    steps.add(e.AssignmentStarted("api", 2, 1, C1, ()))
    steps.add(e.CellRequested("api", 2, C1, M1, ()))
    joined = oid("joined")
    steps.add(e.CellMade("api", 2, joined, "refs/x", "s", (), ()))
    steps.add(e.AgentRequested("api", 2, "api-agent"))
    steps.add(e.AgentFailed("lost", "", lost=True))
    assert (steps.api.base, steps.api.head) == (M1, joined)


def test_feedback_always_fits_into_the_event_that_carries_it() -> None:
    steps = Steps(until="gate.requested")
    steps.add(e.GateRequested("api", 1))
    for text in ("\x1b" * 4000, "語" * 4000, "😀" * 4000, "x" * 9000):
        steps.run = replace(steps.run, works={**steps.run.works, "api": replace(steps.api, stage="again")})
        for _ in range(9):
            steps.run = replace(steps.run, works={
                **steps.run.works, "api": replace(steps.api, feedback=handlers._say(steps.api, text))})  # fmt: skip
        draft = e.Draft(e.AssignmentStarted("api", 2, 2, "", steps.api.feedback), ENGINE)
        assert len(steps.api.feedback) == handlers.MAX_PIECES
        assert steps.api.feedback[0].endswith(" […]")
        assert len(e.seal(draft, run=RUN, seq=1, time=at(1), prev=e.ZERO).line) <= e.MAX_LINE


def test_only_outcomes_and_notes_have_causes() -> None:
    steps = Steps(until="assignment.started")
    steps.refuses(e.AssignmentStarted("api", 1, 1, "", ()), "has no cause", cause=2)
    steps.refuses(e.AbortRequested(""), "has no cause", cause=2)
    note = e.WatchIncomplete("api", 1, "overflow")
    steps.refuses(note, "not in the past", cause=steps.run.seq + 1)
    steps.refuses(note, "not in the past", cause=-1)
    steps.add(note, cause=2)


def test_the_chain() -> None:
    steps = Steps()
    seq, prev = steps.run.seq + 1, steps.run.hash
    for run, number, before in (("r2", seq, prev), (RUN, seq + 1, prev), (RUN, seq - 1, prev), (RUN, seq, e.ZERO)):
        event = e.seal(e.Draft(e.AbortRequested(""), USER), run=run, seq=number, time=at(1), prev=before)
        with pytest.raises(Illegal, match="does not follow"):
            evolve(steps.run, event)


def test_blockers() -> None:
    steps = Steps(until="assignment.started")
    steps.refuses(e.BlockerRaised("B2", "agent", "api", "?"), "numbered in order")
    steps.add(e.BlockerRaised("B1", "agent", "api", "?"))
    steps.refuses(e.AssignmentStarted("api", 1, 1, "", ()), "a blocker is open")
    steps.refuses(e.BlockerAnswered("B2", "x"), "no open blocker B2")
    steps.refuses(e.BlockerAnswered("B1", "x", "api"), "only a finding is given")
    steps.add(e.BlockerAnswered("B1", "do it so"))
    steps.refuses(e.BlockerAnswered("B1", "x"), "no open blocker B1")
    assert steps.api.feedback == ("A human answered: do it so",)


def test_nothing_happens_to_a_run_that_is_over_or_not_begun() -> None:
    for body in (e.AbortRequested(""), e.PlanRequested(1), e.RunBlocked(()), e.RunAborted(), ISSUE):
        fresh = Run(RUN)
        event = e.seal(e.Draft(body, USER), run=RUN, seq=0, time=at(0), prev=e.ZERO)
        with pytest.raises(Illegal):
            evolve(fresh, event)
    steps = Steps(until="gate.requested")
    steps.add(e.AbortRequested(""))
    steps.add(e.SalvageRequested("api", 1))
    steps.add(e.SalvageKept("api", 1, ""))
    steps.add(e.RunAborted())
    assert steps.run.over
    for over in (e.AbortRequested(""), e.RunAborted(), e.PlanRequested(2), e.BlockerAnswered("B1", ""), e.ShipAsked()):
        steps.refuses(over, "aborted")
    steps.add(e.OutcomeIgnored("gate.passed", "late"))


# -- reviews and humans at the same time -----------------------------------------------------------------


def in_review(*findings: Finding) -> Sim:
    """A run whose reviewer has reported these, and whose fixes went through to the second review."""

    class Reviewed(World):
        def _review(self, run: Run, body: e.ReviewRequested, key: tuple[object, ...]) -> e.Body:
            new = findings if body.round == 1 else ()
            fixed = tuple(f.id for f in run.open_findings())
            return e.ReviewReported(body.reviewer, body.round, body.tip, "read", new, fixed if body.round > 1 else ())

    done = Sim(Steps().plan, 3, CALM, e.Settings(reviewers=("security-reviewer",)))
    done.world = Reviewed(done.plan, 3, CALM)
    done.begin()
    while not (done.run.phase == "reviewing" and done.run.round == 2 and done.tasks):
        done.step()
    return done


def test_a_finding_waived_while_its_reviewer_reads_stays_waived_and_fails_nothing() -> None:
    done = in_review(Finding("critical", "api/f0", 1, "odd"), Finding("critical", "web/f0", 1, "odd too"))
    done.say(e.FindingWaived("F1", "it is meant so"))
    done.drive_on()
    assert done.run.phase == "completed"
    assert [f.state for f in done.run.findings] == ["waived", "fixed"]


def test_a_reviewer_cannot_close_what_was_never_opened() -> None:
    done = in_review(Finding("critical", "api/f0", 1, "odd"))
    ((seq, event),) = done.run.pending.items()
    assert isinstance(event.body, e.ReviewRequested)
    body = e.ReviewReported("security-reviewer", event.body.round, event.body.tip, "", (), ("F9",))
    done.tasks.clear()
    done.record(e.Draft(body, ENGINE, seq))
    assert done.run.phase == "failed"


def test_a_humans_plan_supersedes_the_one_that_is_being_made() -> None:
    """`orchgit start --plan FILE` with --yes, or an edited plan that crosses with a rejection."""
    for approval in ("human", "policy"):
        done = Sim(Steps().plan, 4, CALM, e.Settings(approval=approval)).begin()
        ((seq, _),) = done.run.pending.items()
        mine = replace(done.plan, goal="Mine.")
        done.say(e.PlanProposed(1, e.plan_digest(mine), mine))
        assert seq not in done.run.pending
        late = e.PlanProposed(2, e.plan_digest(done.plan), done.plan)
        done.record(e.Draft(late, ENGINE, seq))
        assert isinstance(done.log[-1].body, e.OutcomeIgnored)
        del done.tasks[seq]
        done.drive_on()
        assert done.run.phase == "completed"
        assert done.run.plan == mine


def test_all_findings_of_a_round_go_out_together() -> None:
    done = in_review(*(Finding("critical", f"{n}/f0", i, f"odd {i}") for i, n in enumerate(("api", "web") * 5)))
    fixes = [v.body for v in done.log if isinstance(v.body, e.FixAssigned)]
    assert [(f.assignment, len(f.findings)) for f in fixes] == [("api", 5), ("web", 5)]
