"""What may happen when, and what an event means for a run.

`evolve(run, event)` is the only way a run changes. Two tables say which moves are legal: `RUN_MOVES` for the run,
`WORK_MOVES` for one assignment; a missing row is the error. What an event changes beside its row, and the rules that
are worth more than a row, are in handlers.py; what a run is, in run.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from orchgit.core import events as e
from orchgit.core.handlers import HANDLERS, need, occasion, with_work
from orchgit.core.run import HOUSED as HOUSED
from orchgit.core.run import TERMINAL as TERMINAL
from orchgit.core.run import Blocker as Blocker
from orchgit.core.run import Illegal as Illegal
from orchgit.core.run import Run as Run
from orchgit.core.run import Work as Work
from orchgit.core.run import branch as branch
from orchgit.core.run import purpose_key as purpose_key

# (phase, event) -> phase. Events of one assignment are in WORK_MOVES and need the phase "executing".
RUN_MOVES: dict[tuple[str, str], str] = {
    ("new", "run.started"): "started",
    ("started", "issue.read"): "planning",
    ("planning", "plan.requested"): "planning",
    ("planning", "plan.invalid"): "planning",
    ("planning", "agent.failed"): "planning",
    ("planning", "question.asked"): "asking",
    ("asking", "question.answered"): "planning",
    ("planning", "plan.proposed"): "approving",
    ("approving", "plan.proposed"): "approving",  # a human edited it: a new version
    ("approving", "plan.rejected"): "planning",
    ("approving", "plan.approved"): "executing",
    ("executing", "checks.requested:integration"): "verifying",
    ("verifying", "checks.requested:integration"): "verifying",
    ("verifying", "checks.passed:integration"): "reviewing",
    ("verifying", "checks.failed:integration"): "verifying",
    ("verifying", "fix.assigned"): "executing",
    ("reviewing", "review.requested"): "reviewing",
    ("reviewing", "review.reported"): "reviewing",
    ("reviewing", "agent.failed"): "reviewing",
    ("reviewing", "finding.opened"): "reviewing",
    ("reviewing", "finding.fixed"): "reviewing",
    ("reviewing", "fix.assigned"): "executing",
    ("executing", "fix.assigned"): "executing",  # the second owner of the same round
    ("reviewing", "synthesis.requested"): "synthesizing",
    ("synthesizing", "synthesis.requested"): "synthesizing",
    ("synthesizing", "agent.failed"): "synthesizing",
    ("synthesizing", "synthesis.written"): "sealing",
    ("sealing", "merge.prepared:seal"): "sealing",
    ("sealing", "merge.built:seal"): "sealing",
    ("sealing", "merge.requested:seal"): "sealing",
    ("sealing", "merge.stale:seal"): "sealing",
    ("sealing", "merge.done:seal"): "shipping",
    ("shipping", "fix.assigned"): "executing",  # a reader of its pull request wants changes
    ("shipping", "assignment.started:hand"): "executing",  # or made them
    ("executing", "assignment.started:hand"): "executing",
    ("shipping", "ship.requested"): "shipping",
    ("shipping", "ship.observed"): "shipping",
    ("shipping", "ship.left"): "shipping",
    ("shipping", "checks.requested:ship"): "shipping",
    ("shipping", "checks.passed:ship"): "shipping",
    ("shipping", "checks.failed:ship"): "shipping",
    ("shipping", "checks.stale:ship"): "shipping",
    ("shipping", "merge.prepared:ship"): "shipping",
    ("shipping", "merge.built:ship"): "shipping",
    ("shipping", "merge.requested:ship"): "shipping",
    ("shipping", "merge.stale:ship"): "shipping",
    ("shipping", "merge.done:ship"): "shipping",
    ("shipping", "run.completed"): "completed",
    ("completed", "ship.asked"): "shipping",
    ("aborting", "run.aborted"): "aborted",
}

# Legal in every phase that is not terminal; they change no phase, but for the two named here.
ANYTIME = frozenset({
    "run.resumed", "run.blocked", "blocker.raised", "blocker.answered", "finding.waived",
    "budget.raised",
    "forge.requested", "forge.done", "forge.failed", "change.seen",
})  # fmt: skip
ANYTIME_MOVES = {"abort.requested": "aborting", "run.failed": "failed"}

# (stage, event) -> stage, for one assignment.
WORK_MOVES: dict[tuple[str, str], str] = {
    ("waiting", "assignment.started"): "assigned",
    ("again", "assignment.started"): "assigned",
    ("assigned", "cell.requested"): "housing",
    ("housing", "cell.made"): "ready",
    ("housing", "cell.failed"): "again",
    ("ready", "agent.requested"): "working",
    ("ready", "salvage.requested"): "salvaging",  # the run is being aborted
    ("working", "agent.reported"): "reported",
    ("working", "scope.amendment_asked"): "asking",
    ("asking", "scope.amendment_granted"): "asking",
    ("asking", "scope.amendment_refused"): "ready",
    ("asking", "plan.amended"): "ready",  # the same attempt, in a new sandbox
    ("asking", "plan.amended:waits"): "failed",  # set aside: it begins again after others
    ("asking", "salvage.requested"): "salvaging",  # the run is being aborted
    ("working", "agent.halted"): "halted",  # until its budget is raised, which makes it ready again
    ("halted", "salvage.requested"): "salvaging",  # the run is being aborted
    ("working", "agent.failed"): "failed",
    ("working", "agent.continued"): "working",
    ("reported", "gate.requested"): "gating",
    ("reported", "salvage.requested"): "salvaging",  # it raised a blocker, or asked for more scope
    ("failed", "salvage.requested"): "salvaging",
    ("salvaging", "salvage.kept"): "again",
    ("gating", "gate.passed"): "gated",
    ("gating", "gate.failed"): "again",
    ("gated", "checks.requested"): "checking",
    ("checking", "checks.passed"): "checked",
    ("checking", "checks.failed"): "again",
    ("checking", "checks.stale"): "gated",
    ("checked", "verdict.requested"): "judging",
    ("judging", "verdict.given:accept"): "accepted",
    ("judging", "verdict.given:reassign"): "again",
    ("judging", "verdict.given:blocked"): "again",
    ("judging", "agent.failed"): "checked",
    ("accepted", "checks.requested"): "rechecking",  # the tip moved since; the verdict stands
    ("rechecking", "checks.passed"): "accepted",
    ("rechecking", "checks.failed"): "again",
    ("rechecking", "checks.stale"): "accepted",
    ("accepted", "merge.prepared"): "merging",
    ("merging", "merge.built"): "merging",
    ("merging", "merge.requested"): "merging",
    ("merging", "merge.done"): "merged",
    ("merging", "merge.stale"): "accepted",
    ("merged", "fix.assigned"): "again",
    ("accepted", "fix.assigned"): "again",
    ("merged", "assignment.started:hand"): "handed",
    ("accepted", "assignment.started:hand"): "handed",
    ("handed", "gate.requested"): "gating",
    ("again", "fix.dropped"): "merged",
}
# request -> the outcomes that can answer it. Whatever both of them name must be the same; see `_answers`.
ANSWERS: dict[str, tuple[str, ...]] = {
    "plan.requested": ("plan.proposed", "plan.invalid", "question.asked", "agent.failed"),
    "cell.requested": ("cell.made", "cell.failed"),
    "cell.removal_requested": ("cell.removed",),
    "agent.requested": ("agent.reported", "scope.amendment_asked", "agent.halted", "agent.failed"),
    "gate.requested": ("gate.passed", "gate.failed"),
    "salvage.requested": ("salvage.kept",),
    "checks.requested": ("checks.passed", "checks.failed", "checks.stale"),
    "verdict.requested": ("verdict.given", "agent.failed"),
    "merge.prepared": ("merge.built", "merge.stale"),
    "merge.requested": ("merge.done", "merge.stale"),
    "review.requested": ("review.reported", "agent.failed"),
    "synthesis.requested": ("synthesis.written", "agent.failed"),
    "ship.requested": ("ship.observed",),
    "forge.requested": ("forge.done", "forge.failed"),
}
ECHOED = frozenset(
    {"assignment", "attempt", "subject", "onto", "land", "reviewer", "round", "tip", "ref", "new", "key"}
)


# -- evolve ----------------------------------------------------------------------------------------------


def evolve(run: Run, event: e.Event) -> Run:
    """The run after this event. Raises Illegal for what cannot happen; the caller's `run` is unharmed."""
    body = event.body
    if event.run != run.id or event.seq != run.seq + 1 or event.prev != run.hash:
        raise Illegal(f"event {event.id} does not follow {run.id}/{run.seq}")
    run = occasion(_admit(run, event), body)
    handler = HANDLERS.get(type(body))
    if handler is not None:
        run = handler(run, event)
    pending, begun, waits = run.pending, run.begun, run.waits
    if body.kind == "request":
        pending = {**pending, event.seq: event}
    elif body.kind == "outcome" and event.cause is not None:
        pending = {k: v for k, v in pending.items() if k != event.cause}
        begun = begun - {event.cause}
        waits = {k: v for k, v in waits.items() if k != event.cause}
    elif isinstance(body, e.AgentStarted) and event.cause is not None and event.cause in pending:
        begun = begun | {event.cause}
    stopped = run.stopped and body.kind not in ("input", "outcome")
    shown = isinstance(body, e.ForgeRequested) and body.act == "push"  # the log goes with what it attests
    milestone = event.seq if shown or isinstance(body, e.MILESTONES) else run.milestone
    return replace(
        run, seq=event.seq, hash=event.hash, time=event.time, pending=pending, begun=begun, waits=waits,
        stopped=stopped, milestone=milestone,
    )  # fmt: skip


def replay(run_id: str, log: Iterable[e.Event]) -> Run:
    """The fold. Nothing here touches the world."""
    run = Run(run_id)
    for event in log:
        run = evolve(run, event)
    return run


def _admit(run: Run, event: e.Event) -> Run:
    """The tables: may this happen now, and where does it lead?"""
    body = event.body
    if body.kind == "outcome" and not (isinstance(body, e.PlanProposed) and event.cause is None):
        need(event.cause in run.pending, f"{body.type}: nothing waits for an outcome of {event.cause}")
        _answers(run.pending[event.cause or 0].body, body)
    elif body.kind == "note" and event.cause is not None:
        need(0 <= event.cause < event.seq, f"{body.type}: cause {event.cause} is not in the past")
    else:
        need(event.cause is None, f"{body.type} has no cause")
    if body.type in ("outcome.ignored",) or (body.kind == "note" and not isinstance(body, e.RunFailed)):
        need(run.phase != "new", f"{body.type}: the run has not started")
        return run
    if isinstance(body, e.CellRemoved):
        return run
    if isinstance(body, e.RedactionRecorded):  # also of a run that is over
        need(run.phase != "new", f"{body.type}: the run has not started")
        return run
    if body.type in ANYTIME_MOVES or body.type in ANYTIME:
        need(run.phase not in TERMINAL | {"new"}, f"{body.type}: the run is {run.phase}")
        return replace(run, phase=ANYTIME_MOVES.get(body.type, run.phase))
    name = _assignment_of(run, event)
    if name is not None and name in run.works:
        returns = isinstance(body, e.FixAssigned) or (isinstance(body, e.AssignmentStarted) and bool(body.hand))
        need(run.phase in ("executing", "aborting") or returns, _illegal(run.phase, body))
        work = _move(run.works[name], body)
        if returns:
            run = _phase(run, body)
        return with_work(run, work)
    need(name is None, f"{body.type}: no assignment {name!r} in the plan")
    return _phase(run, body)


def _answers(request: e.Body, outcome: e.Body) -> None:
    """An outcome is one of its own request, and of nothing else under way."""
    need(outcome.type in ANSWERS[request.type], f"{outcome.type} is no answer to {request.type}")
    for name in ECHOED.intersection(f.name for f in fields(outcome)):  # type: ignore[arg-type] # each is a dataclass
        said, asked = getattr(outcome, name), getattr(request, name, None)
        need(asked is None or said == asked, f"{outcome.type}: its {name} is not that of the {request.type}")


def _phase(run: Run, body: e.Body) -> Run:
    key = (run.phase, _key(body))
    # Aborting lets what is under way come to its end, and asks for nothing new.
    if run.phase == "aborting" and body.kind == "outcome":
        return run
    need(key in RUN_MOVES, _illegal(run.phase, body))
    return replace(run, phase=RUN_MOVES[key])


def _move(work: Work, body: e.Body) -> Work:
    if isinstance(body, e.CellRemovalRequested):
        need(work.cell and work.stage not in HOUSED, f"{body.type}: {work.spec.id} is {work.stage}")
        return work
    key = (work.stage, _key(body))
    need(key in WORK_MOVES, f"{_illegal(work.stage, body)} ({work.spec.id})")
    attempt = getattr(body, "attempt", None)
    if attempt is not None and not isinstance(body, e.AssignmentStarted):
        need(attempt == work.attempt, f"{body.type}: attempt {attempt} of {work.spec.id} is not the current one")
    stage = WORK_MOVES[key]
    return replace(work, stage=stage, paused=work.paused if stage == "working" else "")


def _illegal(state: str, body: e.Body) -> str:
    return f"{_key(body)} cannot happen while {state}"


def _key(body: e.Body) -> str:
    """The row's name: the type, with what it is about where one type means different moves."""
    match body:
        case e.VerdictGiven(decision=decision):
            return f"{body.type}:{decision}"
        case e.AssignmentStarted(hand=hand) if hand:
            return f"{body.type}:hand"
        case e.PlanAmended(waits=True):
            return f"{body.type}:waits"
        case e.ChecksRequested() | e.ChecksPassed() | e.ChecksFailed() | e.ChecksStale():
            return f"{body.type}:{body.subject}" if body.subject in ("integration", "ship") else body.type
        case e.MergePrepared() | e.MergeBuilt() | e.MergeRequested() | e.MergeDone() | e.MergeStale():
            return body.type if body.land == "merge" else f"{body.type}:{body.land}"
    return body.type


def _assignment_of(run: Run, event: e.Event) -> str | None:
    """The assignment whose row moves; None for an event of the run."""
    body = event.body
    if isinstance(body, e.AgentFailed):
        request = run.pending[event.cause or 0].body
        return request.assignment if isinstance(request, e.AgentRequested | e.VerdictRequested) else None
    if isinstance(body, e.ChecksRequested | e.ChecksPassed | e.ChecksFailed | e.ChecksStale):
        return None if body.subject in ("integration", "ship") else body.subject
    if isinstance(body, e.MergePrepared | e.MergeBuilt | e.MergeRequested | e.MergeDone | e.MergeStale):
        return body.assignment if body.land == "merge" else None
    name: str | None = getattr(body, "assignment", None)
    return name
