"""Laws of what was witnessed: checks, reviews, and who said what. The engine was there; nothing else shows it."""

from __future__ import annotations

from collections.abc import Iterator

from orchgit.core import events as e
from orchgit.core.audit.model import Facts, Found, Law, Note, Reading, Said
from orchgit.core.audit.of_git import merges
from orchgit.core.state import TERMINAL


def _verified(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The last checks of a subject before it is merged passed, on exactly that tree and that tip, after its gate."""
    passed: dict[str, tuple[str, str]] = {}
    for event in reading.events:
        match event.body:
            case e.GatePassed(assignment=name):
                passed.pop(name, None)
            case e.ChecksFailed(subject=subject) | e.ChecksStale(subject=subject):
                passed.pop(subject, None)
            case e.ChecksPassed() as body:
                passed[body.subject] = (body.onto, body.tree)
            case e.MergePrepared() as body:
                subject = {"seal": "integration", "ship": "ship"}.get(body.land, body.assignment)
                had = passed.get(subject)
                if had != (body.old, body.tree):
                    said = f"tree {had[1]} on {had[0]}" if had else "nothing"
                    what = f"tree {body.tree} on {body.old} is to land; the last checks that passed were of {said}"
                    yield Found(f"event {event.seq}", what)


def _commands(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The checks that passed are those of the plan in force then, all of them, and each one did pass."""
    for event, before in zip(reading.events, reading.before, strict=True):
        body = event.body
        if not isinstance(body, e.ChecksPassed):
            continue
        work = before.works.get(body.subject)
        wanted = work.spec.checks if work else before.all_checks()
        if tuple(r.command for r in body.results) != wanted:
            yield Found(f"event {event.seq}", "what ran is not what the approved plan has")
        for r in body.results:
            if not r.passed or r.exit_code or r.why:
                yield Found(
                    f"event {event.seq}", f"{r.command!r} counts as passed, with exit code {r.exit_code} {r.why}"
                )
        if not wanted:
            yield Note(f"event {event.seq}: the plan has no checks for {body.subject}")


def _failed(reading: Reading, facts: Facts) -> Iterator[Said]:
    for event in reading.events:
        if isinstance(event.body, e.ChecksFailed) and all(r.passed for r in event.body.results):
            yield Found(f"event {event.seq}", "the checks failed, and not one of them did")


def _last(reading: Reading, facts: Facts) -> Iterator[Said]:
    """When review began, all checks had passed on the whole, as it then was."""
    whole = ""
    for event, before in zip(reading.events, reading.before, strict=True):
        if isinstance(event.body, e.ChecksPassed) and event.body.subject == "integration":
            whole = event.body.onto
        elif isinstance(event.body, e.ReviewRequested | e.SynthesisRequested) and whole != before.tip:
            yield Found(f"event {event.seq}", f"{event.body.type} on {before.tip}; all checks last passed on {whole}")


def _covered(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Each reviewer has read, without a gap, all from the base up to the tip that was sealed."""
    run = reading.run
    if run.started is None or run.synthesis is None:
        return
    read = dict.fromkeys(run.reviewers(), run.started.base)
    asked: dict[int, e.ReviewRequested] = {}
    # After a seal more may be wanted of its pull requests, and the run may end before there is another.
    sealed, by_then = "", dict(read)
    for event in reading.events:
        match event.body:
            case e.ReviewRequested() as body:
                asked[event.seq] = body
            case e.ReviewReported() as body:
                since = asked[event.cause].since if event.cause in asked else ""
                if since == read.get(body.reviewer):
                    read[body.reviewer] = body.tip
                else:
                    what = f"{body.reviewer} read from {since}; it had read up to {read.get(body.reviewer, 'nothing')}"
                    yield Found(f"event {event.seq}", what)
            case e.SynthesisRequested(tip=tip):
                sealed, by_then = tip, dict(read)
    for name, tip in by_then.items():
        if tip != sealed:
            yield Found(f"commit {sealed}", f"{name} has read up to {tip}, and not what shipped")
    if not read:
        yield Note("no reviewer was asked for")


def _reviewers(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Who reviews has that role, and wrote nothing of what is reviewed."""
    started = reading.run.started
    roles = {m.name: m.role for m in started.roster} if started else {}
    workers = {w.spec.worker for w in reading.run.works.values()}
    agents = set()
    for event in reading.events:
        if isinstance(event.body, e.ReviewReported):
            name = event.body.reviewer
            agents.add(name)
            if roles.get(name) != "reviewer" or name in workers:
                yield Found(f"event {event.seq}", f"{name} reviewed, and is {roles.get(name, 'nobody')}")
            if event.actor.kind == "agent" and event.actor.id != name:
                yield Found(f"event {event.seq}", f"the report of {name} came from {event.actor.id}")
    if agents:
        yield Note(f"reviews are by agents ({', '.join(sorted(agents))}), not by people")


def _findings(reading: Reading, facts: Facts) -> Iterator[Said]:
    """A finding is closed by a reviewer's report on another tip, with a merge between, or by a human."""
    opened: dict[str, str] = {}
    claimed: set[str] = set()
    for event, before in zip(reading.events, reading.before, strict=True):
        match event.body:
            case e.FindingOpened(finding=finding):
                opened[finding.id] = before.tip
            case e.ReviewReported(fixed=fixed):
                claimed |= set(fixed)
            case e.FindingFixed(finding=name):
                if name not in claimed:
                    yield Found(f"event {event.seq}", f"{name} is closed as fixed, and no reviewer said so")
                elif opened.get(name, "") == before.tip:
                    yield Found(f"event {event.seq}", f"{name} is closed as fixed, and nothing was merged since")
            case e.FindingWaived(finding=name):
                if event.actor.kind != "human":
                    yield Found(f"event {event.seq}", f"{name} is waived by {event.actor.kind}")
                yield Note(f"finding {name} was waived at event {event.seq} by {event.actor.id}")


# -- who -------------------------------------------------------------------------------------------------


def _actors(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Each sort of event has its sort of author; an agent that reports is the one that was asked."""
    started = reading.run.started
    roles = {m.name: m.role for m in started.roster} if started else {}
    for event in reading.events:
        body, actor = event.body, event.actor
        if body.kind == "input":
            allowed: tuple[str, ...] = ("human", "policy") if isinstance(body, POLICY) else ("human",)
        elif isinstance(body, e.PlanProposed) and event.cause is None:
            allowed = ("human",)
        elif isinstance(body, AGENTS):
            allowed = ("agent",)
        else:
            allowed = ("engine",)
        if actor.kind not in allowed:
            yield Found(
                f"event {event.seq}", f"{body.type} by {actor.kind} {actor.id}; it is for {' or '.join(allowed)}"
            )
        elif actor.kind == "agent" and (role := roles.get(actor.id)) != _role(body):
            yield Found(f"event {event.seq}", f"{body.type} by {actor.id}, who is {role or 'not on the roster'}")


POLICY = e.PlanApproved | e.ScopeGranted | e.ScopeRefused
AGENTS = (
    e.QuestionAsked | e.PlanProposed | e.AgentReported | e.ScopeAsked | e.VerdictGiven | e.ReviewReported
    | e.SynthesisWritten
)  # fmt: skip


def _role(body: e.Body) -> str:
    if isinstance(body, e.AgentReported | e.ScopeAsked):
        return "worker"
    return "reviewer" if isinstance(body, e.ReviewReported) else "orchestrator"


def _agents(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Who was started is on the roster, in that role."""
    started = reading.run.started
    members = {m.name: m for m in started.roster} if started else {}
    for event in reading.events:
        body = event.body
        if isinstance(body, e.AgentStarted):
            member = members.get(body.member)
            if member is None or member.role != body.role:
                yield Found(f"event {event.seq}", f"{body.member} was started as {body.role}, and is not that")
    if started and started.scripted:
        yield Note("the agents were scripted: no model was called")


def _sandbox(reading: Reading, facts: Facts) -> Iterator[Said]:
    started = reading.run.started
    if started is None:
        return
    weaker = [ev for ev in reading.events if isinstance(ev.body, e.RunResumed) and not ev.body.sandboxed]
    if started.sandboxed:
        for event in weaker:
            yield Found(f"event {event.seq}", "the run began with a sandbox, and went on without one")
    else:
        yield Note("nothing kept agents from writing elsewhere: only what landed was checked")
    yield Note(f"in force: {started.sandbox}")
    for event in reading.events:
        if isinstance(event.body, e.CellMade) and not event.body.canary and started.sandboxed:
            yield Found(f"event {event.seq}", "the sandbox of this cell was not tried out")


def _landed_all(reading: Reading, facts: Facts) -> Iterator[Said]:
    """A run that completed landed the work of every assignment."""
    if reading.run.phase not in TERMINAL - {"aborted", "failed"}:
        return
    merged = {p.assignment for _, p, _, done in merges(reading) if done}
    for name in reading.run.works:
        if name not in merged:
            yield Found(f"assignment {name}", "the run completed, and its work was never merged")


LAWS = (
    Law("checks.tree", "What landed is the very tree, on the very tip, that its checks passed on.", _verified,
        "witnessed"),
    Law("checks.plan", "The checks that passed are all those of the approved plan.", _commands, "witnessed"),
    Law("checks.failed", "Checks that failed name one that did.", _failed, "witnessed"),
    Law("checks.whole", "All checks passed on the whole before it was reviewed.", _last, "witnessed"),
    Law("checks.all", "A run that completed landed the work of every assignment.", _landed_all),
    Law("review.covers", "Every reviewer read all that was sealed, without a gap.", _covered, "witnessed"),
    Law("review.roles", "Who reviewed has that role, and wrote nothing of it.", _reviewers, "witnessed"),
    Law("review.findings", "A finding is closed by a reviewer after a merge, or by a human.", _findings, "asserted"),
    Law("who.actors", "Every event is by somebody who may do that.", _actors, "asserted"),
    Law("who.agents", "Every agent that was started is on the roster, in that role.", _agents, "asserted"),
    Law("who.sandbox", "No protection was weaker than at the start.", _sandbox, "witnessed"),
)  # fmt: skip
