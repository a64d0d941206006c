"""Every opinion this system holds: given what has happened, what is the one next thing worth doing?

`advance` looks at the run and answers with one request or decision, or None when it has to wait. `decide` takes
what was seen in the world, and goes on to a fixed point. Both are pure: the same run gives the same answer, on
any machine, at any time. `audit` uses that to derive every recorded decision again.

Order matters here and is the policy: tidy up, then merge, then go on with what is under way, then start
something new, then look at the whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchgit.core import events as e
from orchgit.core import forge
from orchgit.core.amend import amended, amendment, covered
from orchgit.core.pattern import PatternError
from orchgit.core.plan import problems
from orchgit.core.review import Finding, blocks, owners
from orchgit.core.state import HOUSED, TERMINAL, Blocker, Illegal, Run, evolve

ENGINE = e.Actor("engine", "orchgit")
# What the configuration decides in a human's place, and under which name that is logged.
POLICIES: dict[type[e.Body], e.Actor] = {
    e.PlanApproved: e.Actor("policy", "--yes"),
    e.ScopeGranted: e.Actor("policy", "grant"),
    e.ScopeRefused: e.Actor("policy", "grant"),
}
EXCERPT = 1500  # characters of a text quoted in a blocker


def decide(run: Run, seen: Iterable[e.Draft], time: str) -> tuple[Run, list[e.Event]]:
    """The events to be written, and the run after them. What evolve refuses is never among them.

    An input that cannot happen raises Illegal: the human is told, nothing is written. An outcome nobody waits for
    is recorded as ignored; one that cannot have happened ends the run as failed, with the reason.
    """
    written: list[e.Event] = []
    time = max(time, run.time)  # a clock that was set back must not make the log look forged

    def write(draft: e.Draft) -> None:
        nonlocal run
        event = e.seal(draft, run=run.id, seq=run.seq + 1, time=time, prev=run.hash)
        run = evolve(run, event)
        written.append(event)

    for draft in seen:
        try:
            write(draft)
        except (Illegal, e.LineError) as error:
            if draft.body.kind == "input" or (isinstance(draft.body, e.PlanProposed) and draft.cause is None):
                raise
            write(_refused(run, draft, error))
    while (body := advance(run)) is not None:
        write(e.Draft(body, POLICIES.get(type(body), ENGINE)))
    return run, written


def _refused(run: Run, draft: e.Draft, error: Exception) -> e.Draft:
    why = str(error)[:EXCERPT]
    late = draft.cause is None or draft.cause not in run.pending
    if run.over or draft.body.kind == "note" or late:
        cause = draft.cause if draft.cause is not None and 0 <= draft.cause <= run.seq else None
        return e.Draft(e.OutcomeIgnored(draft.body.type, why), ENGINE, cause)
    if isinstance(error, e.LineError) and draft.actor.kind == "agent":
        # It said more than a line can hold. That is the agent's failure, not the run's.
        return e.Draft(e.AgentFailed("error", why), ENGINE, draft.cause)
    return e.Draft(e.RunFailed(draft.body.type, why), ENGINE, draft.cause)


def waiting(run: Run) -> str | None:
    """What a human is waited for: "questions", "approval", "blockers", or "review" of pull requests; None
    when the engine has work or is done."""
    if run.over or run.pending:
        return None
    if run.phase == "asking":
        return "questions"
    if run.phase == "approving":
        return "approval"
    if run.stopped:
        return "blockers"
    return "review" if forge.awaited(run) else None


def advance(run: Run) -> e.Body | None:
    """The one next thing. None: wait for an outcome or a human, or nothing is left."""
    if run.phase in TERMINAL | {"new", "started"}:
        return None
    if run.phase == "aborting":
        step = _aborting(run)
    else:
        step = _tidy(run) or _drop(run) or _amend(run) or _raise(run) or _of_phase(run)
    if step is None or isinstance(step, e.RunCompleted | e.RunAborted):
        step = forge.due(run, step) or step
    if step or run.pending or run.stopped or run.phase in ("asking", "approving", "aborting"):
        return step
    opened = run.open_blockers()
    return e.RunBlocked(tuple(b.id for b in opened)) if opened else None


def _of_phase(run: Run) -> e.Body | None:
    match run.phase:
        case "planning":
            return _planning(run)
        case "approving":
            return _approving(run)
        case "executing":
            return _executing(run)
        case "verifying":
            return _verifying(run)
        case "reviewing":
            return _reviewing(run)
        case "synthesizing":
            return _synthesizing(run)
        case "sealing":
            return _sealing(run)
        case "shipping":
            return _shipping(run)
    return None


def _aborting(run: Run) -> e.Body | None:
    """Keep what the workers have, leave no cell behind, and end."""
    for name, work in run.works.items():
        if work.stage in ("ready", "asking", "halted", "reported", "failed"):
            return e.SalvageRequested(name, work.attempt)
    step = _tidy(run)
    if step:
        return step
    return None if run.pending else e.RunAborted()


def _tidy(run: Run) -> e.Body | None:
    """A cell whose attempt is over goes; what mattered in it is on the branch or on a salvage ref."""
    for name, work in run.works.items():
        if work.cell and work.stage not in HOUSED:
            return e.CellRemovalRequested(name, work.attempt)
    return None


def _drop(run: Run) -> e.Body | None:
    """A fix that a human's waiver made needless is not tried again."""
    still = {f.id for f in run.open_findings()}
    for name, work in run.works.items():
        if work.stage == "again" and work.fixes and not still & set(work.fixes):
            return e.FixDropped(name)
        # What somebody pushed was refused, and there was nothing else to do.
        hand = work.attempts[-1].hand if work.stage == "again" and work.attempts else ""
        if hand and work.base == work.head and work.trouble is None and not run.open_blockers(name):
            return e.FixDropped(name)
    return None


def _amend(run: Run) -> e.Body | None:
    """A wish for more scope: granted by the configuration or by a human, and then a new version of the plan."""
    for name, work in run.works.items():
        if work.granted:
            return amendment(run, name)
        if not work.asked or run.open_blockers(name):
            continue
        try:
            plan, _ = amended(run, name, work.asked)
            wrong = tuple(map(str, problems(plan, run.started.roster if run.started else ())))
            granted = covered(run, work)
        except PatternError as error:
            wrong, granted = (str(error),), False
        if wrong:  # nobody could grant it, so nobody is asked
            return e.ScopeRefused(name, work.attempt, "; ".join(wrong)[:EXCERPT])
        if granted:
            return e.ScopeGranted(name, work.attempt, work.asked)
        text = f"It asks for more scope: {', '.join(work.asked)}\n{work.asked_why}"
        return e.BlockerRaised(f"B{len(run.blockers) + 1}", "scope", name, text[:EXCERPT])
    return None


def _raise(run: Run) -> e.Body | None:
    """Turn trouble into a blocker, once, as soon as it is known; what is independent goes on."""
    number = f"B{len(run.blockers) + 1}"
    for kind, about, text in run.trouble:
        return e.BlockerRaised(number, kind, about, text[:EXCERPT])
    for name, work in run.works.items():
        if work.stage in HOUSED:
            continue  # first its work is set aside
        if work.trouble:
            return e.BlockerRaised(number, work.trouble[0], name, work.trouble[1][:EXCERPT])
        if work.stage == "again" and work.counted >= work.allowance and not run.open_blockers(name):
            last = work.feedback[-1] if work.feedback else work.attempts[-1].end
            text = f"{work.counted} attempts, none good enough. The last one: {last}"
            return e.BlockerRaised(number, "attempts", name, text[:EXCERPT])
    return None


def _broke(run: Run) -> bool:
    """The run's budget is used up: no agent is asked for anything before a human has raised it."""
    return any(b.kind == "budget" for b in run.open_blockers(""))


def _planning(run: Run) -> e.Body | None:
    if run.busy or run.open_blockers("plan") or _broke(run):
        return None
    if run.plan_invalid > run.settings.plan_retries:
        text = "The orchestrator gave no valid plan. The last one: " + "; ".join(run.plan_feedback)
        return e.BlockerRaised(f"B{len(run.blockers) + 1}", "plan", "plan", text[:EXCERPT])
    return e.PlanRequested(run.plan_requests + 1)


def _approving(run: Run) -> e.Body | None:
    if run.settings.approval == "policy" and run.proposal:
        return e.PlanApproved(run.proposal.version, run.proposal.digest, "policy")
    return None


# -- executing -------------------------------------------------------------------------------------------


def _executing(run: Run) -> e.Body | None:
    return _more_fixes(run) or _wished(run) or _merging(run) or _ongoing(run) or _starting(run) or _finished(run)


def _more_fixes(run: Run) -> e.Body | None:
    """The other owners of the same round of findings; the first fix that was assigned began this phase."""
    if not run.fixing or run.plan is None:
        return None
    left = [f for f in run.open_findings() if blocks(f, run.settings.blocking) and f.id not in run.fixing]
    return _fix(run, left) if left else None


def _wished(run: Run) -> e.Body | None:
    """What a reader of a pull request wants changed goes to its worker, for its next attempt; what a reader changed
    goes to the gate, before that."""
    for name in (*run.outside.pushed, *run.outside.wishes):
        work = run.works[name]
        if work.stage not in ("merged", "accepted") or run.landing is not None:
            continue
        if name in run.outside.pushed and _active(run) < run.settings.parallel:
            hand = run.outside.pushed[name]
            return e.AssignmentStarted(name, work.attempt + 1, work.counted, work.head, (), hand)
        if name in run.outside.wishes:
            return e.FixAssigned(name, (), run.outside.wishes[name], forge.alone(run, name))
    return None


def _merging(run: Run) -> e.Body | None:
    """One candidate at a time is verified on the tip and merged; those that a verdict accepted come first."""
    landing = run.landing
    if landing is not None:
        if not landing.new or any(isinstance(p.body, e.MergeRequested) for p in run.pending.values()):
            return None
        p = landing.prepared
        return e.MergeRequested(p.land, p.assignment, p.attempt, run.ref, p.old, landing.new, p.tree)
    if any(w.stage in ("checking", "rechecking") for w in run.works.values()):
        return None
    queue = [w for stage in ("accepted", "gated") for w in run.works.values() if w.stage == stage]
    for work in queue:
        if run.open_blockers(work.spec.id) or forge.held(run, work):
            continue
        if work.stage == "accepted" and work.verified and work.verified[0] == run.tip:
            return e.MergePrepared(
                "merge", work.spec.id, work.attempt, work.head, run.tip, work.verified[1]
            )  # fmt: skip
        return e.ChecksRequested(work.spec.id, work.attempt, work.head, run.tip)
    return None


def _ongoing(run: Run) -> e.Body | None:
    for name, work in run.works.items():
        match work.stage:
            case "assigned":
                start = work.attempts[-1].start
                return e.CellRequested(name, work.attempt, start, work.onto, work.spec.depends_on)
            case "ready" if _active(run) < run.settings.parallel and not _broke(run):
                return e.AgentRequested(name, work.attempt, work.spec.worker, work.session)
            case "reported" if work.blocked_by_agent:
                return e.SalvageRequested(name, work.attempt)
            case "reported" | "handed":
                return e.GateRequested(name, work.attempt)
            case "failed":
                return e.SalvageRequested(name, work.attempt)
            case "checked" if not run.open_blockers(f"verdict/{name}") and not _broke(run):
                return e.VerdictRequested(name, work.attempt, work.head)
    return None


def _active(run: Run) -> int:
    """How many are at work. Who waits for a human about scope or budget keeps its cell, not its place among them."""
    return sum(w.stage in (HOUSED | {"assigned"}) - {"asking", "halted", "ready"} for w in run.works.values())


def _starting(run: Run) -> e.Body | None:
    """In the plan's order, the moment the last dependency is merged. No levels, no barriers."""
    if _active(run) + sum(w.stage == "ready" for w in run.works.values()) >= run.settings.parallel:
        return None
    if _broke(run):
        return None
    for name, work in run.works.items():
        if work.stage not in ("waiting", "again") or work.counted >= work.allowance or run.open_blockers(name):
            continue
        if all(run.works[d].stage == "merged" for d in work.spec.depends_on):
            start = work.head or work.base
            return e.AssignmentStarted(name, work.attempt + 1, work.counted + 1, start, work.feedback)
    return None


def _finished(run: Run) -> e.Body | None:
    if all(w.stage == "merged" for w in run.works.values()):
        return e.ChecksRequested("integration", 0, run.tip, run.tip)
    return None


# -- the whole -------------------------------------------------------------------------------------------


def _verifying(run: Run) -> e.Body | None:
    """All checks once more on the tip; a failing one goes back to the assignment it belongs to."""
    failed = run.failed_checks
    if any(isinstance(p.body, e.ChecksRequested) for p in run.pending.values()) or run.open_blockers("integration"):
        return None
    if failed is None:
        return e.ChecksRequested("integration", 0, run.tip, run.tip)
    bad = {r.command for r in failed.results if not r.passed}
    owner = next((n for n, w in run.works.items() if bad & set(w.spec.checks)), None)
    why = f"Your checks fail on the finished integration branch.\nOutput:\n{failed.excerpt}"
    if owner is None or run.check_rounds > run.settings.rounds:
        return e.BlockerRaised(f"B{len(run.blockers) + 1}", "checks", "integration", why[:EXCERPT])
    return e.FixAssigned(owner, (), why)


def _reviewing(run: Run) -> e.Body | None:
    """Every reviewer reads the tip; what blocks goes to its owner; then what changed is read again."""
    if run.reported:
        return _finding(run, run.reported[0])
    for name in run.reviewers():
        asked = any(isinstance(p.body, e.ReviewRequested) and p.body.reviewer == name for p in run.pending.values())
        if (
            run.reviews.get(name) != run.tip
            and not asked
            and not run.open_blockers(f"review/{name}")
            and not _broke(run)
        ):
            since = run.reviews.get(name) or (run.started.base if run.started else "")
            return e.ReviewRequested(name, run.round, since, run.tip)
    if run.busy or any(run.reviews.get(name) != run.tip for name in run.reviewers()):
        return None
    return _fixing(run)


def _finding(run: Run, report: e.ReviewReported) -> e.Body:
    if report.fixed:
        return e.FindingFixed(report.fixed[0], report.reviewer)
    new = report.findings[0]
    return e.FindingOpened(_numbered(new, f"F{len(run.findings) + 1}", report.reviewer))


def _numbered(finding: Finding, number: str, reviewer: str) -> Finding:
    return Finding(
        finding.severity, finding.path, finding.line, finding.title, finding.detail, number, reviewer
    )  # fmt: skip


def _fixing(run: Run) -> e.Body | None:
    plan = run.plan
    blocking = [f for f in run.open_findings() if blocks(f, run.settings.blocking)]
    if not blocking or plan is None:
        return None if run.open_blockers() else e.SynthesisRequested(run.tip)
    number = f"B{len(run.blockers) + 1}"
    if run.round >= run.rounds_allowed:
        if run.open_blockers("review"):
            return None
        names = ", ".join(f"{f.id} {f.title}" for f in blocking)
        text = f"{run.round} rounds of review, and these still block: {names}"
        return e.BlockerRaised(number, "finding", "review", text[:EXCERPT])
    for finding in blocking:
        owner = owners(finding, plan)
        if len(owner) != 1 and not run.open_blockers(finding.id):
            whose = f"owned by several assignments ({', '.join(owner)})" if owner else "in nobody's scope"
            text = f"{finding.id} ({finding.severity}) {finding.path}: {finding.title}. The path is {whose}."
            return e.BlockerRaised(number, "finding", finding.id, text[:EXCERPT])
    if any(len(owners(f, plan)) != 1 for f in blocking):
        return None  # fixes go out together: one round, one more review
    return _fix(run, blocking)


def _fix(run: Run, findings: list[Finding]) -> e.Body | None:
    """To the one owner of the first of these, with all the others that are its own."""
    assert run.plan is not None
    for finding in findings:
        owner = owners(finding, run.plan)
        if len(owner) == 1:
            theirs = tuple(f.id for f in findings if owners(f, run.plan) == owner)
            return e.FixAssigned(owner[0], theirs, "")
    return None


def _synthesizing(run: Run) -> e.Body | None:
    if run.busy or run.open_blockers("synthesis") or _broke(run):
        return None
    return e.SynthesisRequested(run.tip)


def _land(run: Run, ref: str) -> e.Body | None:
    """Go on with a landing that was prepared."""
    landing = run.landing
    if landing is None or not landing.new or run.busy:
        return None
    p = landing.prepared
    return e.MergeRequested(p.land, p.assignment, p.attempt, ref, p.old, landing.new, p.tree)


def _sealing(run: Run) -> e.Body | None:
    """A commit with the same tree, so that review and synthesis are attested by git too."""
    if run.landing:
        return _land(run, run.ref)
    if run.open_blockers("seal") or run.busy or run.verified is None:
        return None
    return e.MergePrepared("seal", "", 0, run.tip, run.tip, run.verified[1])


def _shipping(run: Run) -> e.Body | None:
    if run.landing:
        return _land(run, run.ship.ref if run.ship else "")
    if run.busy or run.open_blockers("ship"):
        return None
    if run.by_pr and not run.shipped:
        return _wished(run)  # the rest is the forge's: see forge.py
    wanted = (run.settings.ship == "merge" or run.ship_asked) and not run.ship_left
    if not wanted or run.shipped:
        return None if run.open_blockers() or run.pending else e.RunCompleted(run.tip)
    if run.ship is None:
        return e.ShipRequested(run.started.base_ref if run.started else "")
    if run.ship_verified is None:
        return e.ChecksRequested("ship", 0, run.tip, run.ship.old)
    return e.MergePrepared("ship", "", 0, run.tip, run.ship.old, run.ship_verified[1])


def describe(run: Run, blocker: Blocker) -> str:
    """What a person can type about a blocker."""
    if blocker.kind == "finding" and blocker.about != "review":
        return f'orchgit waive {run.id} {blocker.about} --why "…"   or   orchgit retry {run.id}/ASSIGNMENT'
    if blocker.kind == "scope":
        return f'orchgit grant {run.id}/{blocker.about}   or   orchgit refuse {run.id}/{blocker.about} --why "…"'
    if blocker.kind == "unavailable":
        return f"orchgit resume {run.id}"
    if blocker.kind == "budget":
        target = f"{run.id}/{blocker.about}" if blocker.about else run.id
        return f"orchgit raise {target} --usd 5   (or --tokens, --turns, --seconds: so much more)"
    if blocker.kind == "ship":
        return (
            f"git merge orchgit/{run.id}/integration, then: orchgit ship {run.id}   "
            f"or let go of the branch (git switch --detach), then the same   or   orchgit ship {run.id} --leave"
        )
    if blocker.about in run.works:
        return f'orchgit answer {run.id} {blocker.id} "…"   or   orchgit retry {run.id}/{blocker.about}'
    return f'orchgit answer {run.id} {blocker.id} "…"'
