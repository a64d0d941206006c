"""Laws of what may follow what: legality, decisions, requests and their outcomes, attempts, the end."""

from __future__ import annotations

from collections.abc import Iterator

from orchgit.core import events as e
from orchgit.core.audit.model import Doubt, Facts, Found, Law, Reading, Said
from orchgit.core.decide import advance
from orchgit.core.review import blocks


def _legal(reading: Reading, facts: Facts) -> Iterator[Said]:
    yield from reading.illegal
    if reading.unknown:
        yield Doubt(reading.unknown[0].what)
    elif reading.broken or reading.malformed:
        yield Doubt("the log cannot be followed to its end")


def _decisions(reading: Reading, facts: Facts) -> Iterator[Said]:
    """advance(run before it) is the very decision that was recorded; and no outcome came where one was due."""
    started = reading.run.started
    if started is None or started.decider != e.DECIDER:
        yield Doubt("the log was written by other rules than these")
        return
    for event, before in zip(reading.events, reading.before, strict=True):
        body = event.body
        derived = body.kind in ("request", "decision") or event.actor.kind == "policy"
        if not derived:
            # What was seen may arrive at any time, but a batch ends in a fixed point: nothing is left undecided.
            previous = reading.events[event.seq - 1].body if event.seq else None
            if body.kind not in ("input", "outcome") or previous is None:
                continue
            if previous.kind not in ("request", "decision"):
                continue
        due = advance(before)
        if derived and due != body:
            yield Found(f"event {event.seq}", f"{body.type} was recorded; the rules say {due.type if due else 'wait'}")
        elif not derived and due is not None:
            yield Found(f"event {event.seq}", f"{due.type} was due before it and is missing")


def _requests(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Counted anew, without the tables: an outcome is of one request before it, and of no other outcome."""
    open_: dict[int, e.Event] = {}
    for event in reading.events:
        body = event.body
        if body.kind == "request":
            open_[event.seq] = event
        elif body.kind == "outcome" and event.cause is not None:
            if open_.pop(event.cause, None) is None:
                yield Found(f"event {event.seq}", f"an outcome of {event.cause}, which asked for none, or has one")
        elif isinstance(body, e.PlanProposed):  # a human's own: what the orchestrator was asked for comes too late
            open_ = {k: v for k, v in open_.items() if not isinstance(v.body, e.PlanRequested)}
        elif isinstance(body, e.RunFailed) and event.cause is not None:
            open_.pop(event.cause, None)
    if reading.run.phase == "completed":
        for seq, event in open_.items():
            yield Found(f"event {seq}", f"{event.body.type} has no outcome, and the run completed")


def _attempts(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Numbered from 1, one at a time; and what is merged is what the last attempt left at the gate."""
    numbers: dict[str, int] = {}
    gated: dict[str, str] = {}
    for event in reading.events:
        body = event.body
        if isinstance(body, e.AssignmentStarted):
            if body.attempt != numbers.get(body.assignment, 0) + 1:
                yield Found(f"event {event.seq}", f"attempt {body.attempt} follows {numbers.get(body.assignment, 0)}")
            numbers[body.assignment] = body.attempt
        elif isinstance(body, e.GatePassed):
            gated[body.assignment] = body.commit
            if body.attempt != numbers.get(body.assignment):
                yield Found(
                    f"event {event.seq}", f"the gate passed attempt {body.attempt}, which is not the current one"
                )
        elif isinstance(body, e.MergePrepared) and body.land == "merge" and gated.get(body.assignment) != body.commit:
            what = f"{body.commit} is merged; the last that passed the gate is {gated.get(body.assignment, 'nothing')}"
            yield Found(f"event {event.seq}", what)


def _closed(reading: Reading, facts: Facts) -> Iterator[Said]:
    run = reading.run
    if run.phase != "completed":
        return
    for finding in run.open_findings():
        if blocks(finding, run.settings.blocking):
            yield Found(f"finding {finding.id}", "it blocks, and the run completed with it open")
    for blocker in run.open_blockers():
        yield Found(f"blocker {blocker.id}", "the run completed with it open")


def _budgets(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Counted anew: what the agent runs before it took, against the budget of the run in force when it began."""
    limit, took = reading.run.settings.budget, dict[int | None, e.Used]()
    used_up: dict[int | None, str] = {}  # agent run -> what was used up when it began
    for event in reading.events:
        body = event.body
        if isinstance(body, e.BudgetRaised) and not body.assignment:
            limit = e.Budget(
                *(a if a is None else a + (b or 0) for a, b in zip(_amounts(limit), _amounts(body.more), strict=True))
            )
        elif isinstance(body, e.AgentStarted):
            spent = list(took.values())
            tokens = sum(
                u.input_tokens + u.output_tokens + u.cache_read_tokens + u.cache_write_tokens + u.unsure_tokens
                for u in spent
            )
            money = sum((u.cost_micro or 0) + u.unsure_micro for u in spent)
            if limit.cost_micro is not None and money > limit.cost_micro:
                used_up[event.cause] = f"{money} of {limit.cost_micro} micro-dollars"
            if limit.tokens is not None and tokens > limit.tokens:
                used_up[event.cause] = f"{tokens} of {limit.tokens} tokens"
        elif isinstance(body, e.AgentWaiting):
            took[event.cause] = body.used
        elif isinstance(body, e.AgentExited):
            took[event.cause] = body.used
            if body.calls and event.cause in used_up:
                yield Found(f"event {event.seq}", f"it called a model when {used_up[event.cause]} were spent")


def _amounts(budget: e.Budget) -> tuple[int | None, ...]:
    return (budget.cost_micro, budget.tokens, budget.turns, budget.seconds)


LAWS = (
    Law("log.legal", "Every event could happen when it happened.", _legal),
    Law("log.decisions", "Every decision of the engine follows from the events before it.", _decisions),
    Law("state.requests", "Every outcome is of one request, and every request has one outcome.", _requests),
    Law("state.attempts", "Attempts are numbered, and what is merged is what passed the gate last.", _attempts),
    Law("state.budget", "No agent that began when the budget was used up called a model.", _budgets, "witnessed"),
    Law("log.closed", "The run did not complete with a blocking finding or a blocker open.", _closed),
)
