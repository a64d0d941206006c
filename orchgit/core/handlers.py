"""What each event means beyond its row in the tables: one function per type, and the rules worth more than a row.

Long because there are many types; each function can be read alone.

Approval names the very plan that was shown; attempts are numbered and counted; and the merge gate: nothing is merged
but a tree whose checks passed on exactly the tip it is merged onto. Called by `state.evolve`, after the tables said
yes. No caller can go round them: the log is written through there, and read through there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from orchgit.core import events as e
from orchgit.core import forge
from orchgit.core.amend import amended, amendment
from orchgit.core.pattern import PatternError
from orchgit.core.plan import problems
from orchgit.core.review import Finding, blocks
from orchgit.core.run import Attempt, Blocker, Illegal, Landing, Posted, Run, Spending, Work, purpose_key

MAX_FEEDBACK = 4000  # characters of one piece; the attempt's brief carries them, and an event must fit in a line
MAX_FEEDBACK_BYTES = 9000  # of one piece in the log's JSON, where a character is up to six bytes
MAX_PIECES = 6
MAX_ASKS = 3  # for more scope, of one attempt: an agent that asks without end would never end
# Ends of a failed agent run that are nobody's fault at the keyboard of that agent: the try does not count.
UNCOUNTED = frozenset({"auth", "unavailable"})


def need(condition: bool, why: str) -> None:
    if not condition:
        raise Illegal(why)


def with_work(run: Run, work: Work) -> Run:
    return replace(run, works={**run.works, work.spec.id: work})


def _say(work: Work, *pieces: str) -> tuple[str, ...]:
    """Feedback for the next attempt: the newest pieces, each cut to what a brief can carry."""
    return (*work.feedback, *(_cut(p) for p in pieces if p))[-MAX_PIECES:]


def _cut(piece: str) -> str:
    cut = piece[:MAX_FEEDBACK]
    while len(e.dumps(cut).encode()) > MAX_FEEDBACK_BYTES:
        cut = cut[: len(cut) * 9 // 10]
    return cut if len(cut) == len(piece) else cut + " […]"


def _retell(work: Work) -> Work:
    """Nothing came of the attempt: what it had been told is told again, before what is said of it."""
    return replace(work, feedback=(*work.brief, *work.feedback)[-MAX_PIECES:], brief=())


def _end(work: Work, end: str, *, counts: bool = True) -> Work:
    """Close the current attempt."""
    attempts = (*work.attempts[:-1], replace(work.attempts[-1], end=end))
    return replace(work, attempts=attempts, counted=work.counted - (0 if counts else 1))


# One function per type that changes more than the tables say.


def _run_started(run: Run, event: e.Event) -> Run:
    body = _body(event, e.RunStarted)
    return replace(run, started=body, tip=body.base, rounds_allowed=body.settings.rounds)


def _run_resumed(run: Run, event: e.Event) -> Run:
    # Whoever resumes has mended what was missing (a key, a network): ask again.
    blockers = tuple(replace(b, answer="") if b.open and b.kind == "unavailable" else b for b in run.blockers)
    about = {b.about for b in run.blockers if b.open and b.kind == "unavailable"}
    failures = {k: v for k, v in run.failures.items() if k not in about}
    return replace(run, blockers=blockers, failures=failures, stopped=False)


def _run_blocked(run: Run, event: e.Event) -> Run:
    return replace(run, stopped=True)


def _run_completed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.RunCompleted)
    need(body.tip == run.tip and not run.pending, "the run is not at its end")
    need(not run.open_blockers(), "a blocker is open")
    return run


def _log_checkpointed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.LogCheckpointed)
    need(body.seq < event.seq, "a checkpoint of events that are not there yet")
    return replace(run, checkpoint=body)


def _redaction_recorded(run: Run, event: e.Event) -> Run:
    body = _body(event, e.RedactionRecorded)
    need(body.digest not in run.redacted, "it was dropped before")
    needed = {run.started.config if run.started else ""}
    if not run.over and run.issue:
        needed.add(run.issue.text)
    need(body.digest not in needed, "the run cannot go on, nor be cleaned, without it")
    return replace(run, redacted=(*run.redacted, body.digest))


def _issue_read(run: Run, event: e.Event) -> Run:
    return replace(run, issue=_body(event, e.IssueRead))


def _plan_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanRequested)
    need(body.number == run.plan_requests + 1, "plan requests are numbered in order")
    return replace(run, plan_requests=body.number)


def _question_asked(run: Run, event: e.Event) -> Run:
    body = _body(event, e.QuestionAsked)
    need(bool(body.questions), "a question without words")
    return replace(run, questions=body.questions, plan_answers=run.plan_answers + 1)


def _question_answered(run: Run, event: e.Event) -> Run:
    body = _body(event, e.QuestionAnswered)
    need(len(body.answers) == len(run.questions), f"{len(run.questions)} questions want as many answers")
    pairs = tuple(zip(run.questions, body.answers, strict=True))
    return replace(run, questions=(), answers=(*run.answers, *pairs))


def _plan_proposed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanProposed)
    need(body.version == run.plan_version + 1, "plan versions are numbered in order")
    need(body.digest == e.plan_digest(body.plan), "the digest is not that of the plan")
    wrong = problems(body.plan, run.started.roster if run.started else ())
    need(not wrong, f"not a valid plan: {'; '.join(map(str, wrong))}")
    if event.cause is None:  # a human's own: whatever the orchestrator is still asked for comes too late
        waited = {k: p for k, p in run.pending.items() if not isinstance(p.body, e.PlanRequested)}
        run = replace(run, pending=waited)
    answers = run.plan_answers + (event.cause is not None)
    return replace(run, plan_version=body.version, proposal=body, plan_invalid=0, failures={}, plan_answers=answers)


def _plan_invalid(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanInvalid)
    return replace(
        run, plan_invalid=run.plan_invalid + 1, plan_feedback=body.problems, plan_answers=run.plan_answers + 1
    )


def _plan_rejected(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanRejected)
    need(body.version == run.plan_version, f"version {body.version} is not the one proposed")
    feedback = (f"A human rejected version {body.version}: {body.feedback or 'no reason given'}",)
    return replace(run, plan_feedback=feedback)


def _plan_approved(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanApproved)
    proposal = run.proposal
    need(
        proposal is not None and (body.version, body.digest) == (proposal.version, proposal.digest),
        "the approval names another plan than the one proposed",
    )
    assert proposal is not None
    need(body.mode == "human" or run.settings.approval == "policy", "no policy approves plans in this run")
    works = {a.id: Work(a, run.settings.attempts) for a in proposal.plan.assignments}
    return replace(run, plan=proposal.plan, plan_digest=body.digest, works=works)


def _assignment_started(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AssignmentStarted)
    work = run.works[body.assignment]
    need(body.attempt == work.attempt + 1, "attempts are numbered in order")
    if body.hand:
        return _taken_over(run, work, body)
    need(body.counted == work.counted + 1 and body.counted <= work.allowance, "no tries are left")
    need(all(run.works[d].stage == "merged" for d in work.spec.depends_on), "a dependency is not merged")
    need(not run.open_blockers(body.assignment) and work.trouble is None, "a blocker is open")
    attempts = (*work.attempts, Attempt(body.attempt, body.start))
    return with_work(
        run,
        replace(
            work,
            attempts=attempts,
            counted=body.counted,
            feedback=(),
            brief=body.feedback,
            blocked_by_agent=False,
            onto=run.tip if work.rebase else work.onto,
            rebase=False,
            asks=0,
            answer="",
            session="",
        ),
    )


def _taken_over(run: Run, work: Work, body: e.AssignmentStarted) -> Run:
    """Somebody pushed onto its branch: an attempt without an agent, from where the branch was."""
    name = body.assignment
    need(run.outside.pushed.get(name) == body.hand and body.counted == work.counted, "nobody pushed that")
    # Of what is merged, only what comes on top of it lands.
    merged = bool(work.attempts[-1].end)
    work = replace(work, base=work.head) if merged else _end(work, "changed by hand")
    attempts = (*work.attempts, Attempt(body.attempt, body.start, hand=body.hand))
    pushed = {n: c for n, c in run.outside.pushed.items() if n != name}
    run = replace(run, outside=replace(run.outside, pushed=pushed), verified=None, failed_checks=None)
    return with_work(run, replace(work, attempts=attempts, onto="", verified=None, fixes=()))


def _cell_made(run: Run, event: e.Event) -> Run:
    body = _body(event, e.CellMade)
    work = run.works[body.assignment]
    request = _body(run.pending[event.cause or 0], e.CellRequested)
    attempts = (*work.attempts[:-1], replace(work.attempts[-1], start=body.start))
    if request.onto:  # joined: a later attempt goes on from here, since `base..head` is what lands
        work = replace(work, base=request.onto, head=body.start, onto="", verified=None)
    return with_work(run, replace(work, attempts=attempts, base=work.base or body.start, cell=True))


def _cell_failed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.CellFailed)
    work = _end(run.works[body.assignment], f"no cell: {body.why}", counts=False)
    return with_work(run, replace(_retell(work), trouble=("cell", body.why)))


def _cell_removal_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.CellRemovalRequested)
    return with_work(run, replace(run.works[body.assignment], cell=False))


def _agent_reported(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentReported)
    work = run.works[body.assignment]
    work = replace(work, report=body)
    if not body.blockers:
        return with_work(run, work)
    text = "\n".join(body.blockers)[:MAX_FEEDBACK]
    return with_work(run, replace(work, blocked_by_agent=True, trouble=("agent", text)))


def _scope_asked(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ScopeAsked)
    work = run.works[body.assignment]
    need(bool(body.patterns), "it asks for nothing")
    need(work.asks < MAX_ASKS, f"it asked {MAX_ASKS} times in one attempt already")
    work = replace(
        work, asked=body.patterns, asked_why=body.why, granted=(), asks=work.asks + 1, session=body.session
    )  # fmt: skip
    return with_work(run, work)


def _scope_granted(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ScopeGranted)
    work = run.works[body.assignment]
    need(not work.granted, "it was granted already")
    need(bool(body.patterns) and set(body.patterns) <= set(work.asked), "that is not what it asked for")
    try:
        plan, _ = amended(run, body.assignment, body.patterns)
        wrong = problems(plan, run.started.roster if run.started else ())
    except PatternError as error:
        raise Illegal(str(error)) from error
    need(not wrong, f"with that scope the plan cannot be run: {'; '.join(map(str, wrong))}")
    return _close_ask(with_work(run, replace(work, granted=body.patterns)), body.assignment, "granted")


def _agent_started(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentStarted)
    request = run.pending.get(event.cause if event.cause is not None else -1)
    if request is None:
        return run  # nobody waits for it any more
    if request.seq in run.spent:
        return run  # once more, after its engine had died: what it took before counts on
    spending = Spending(body.member, purpose_key(request.body), getattr(request.body, "attempt", 0), e.Used())
    return replace(run, spent={**run.spent, request.seq: spending})


def _take(run: Run, cause: int | None, used: e.Used) -> Run:
    """Of an agent run as a whole, so the last word counts: whoever says it again after a crash adds nothing."""
    if cause not in run.spent:
        return run
    assert cause is not None
    return replace(run, spent={**run.spent, cause: replace(run.spent[cause], used=used)})


def _agent_exited(run: Run, event: e.Event) -> Run:
    return _take(run, event.cause, _body(event, e.AgentExited).used)


def _agent_waiting(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentWaiting)
    if event.cause not in run.begun:
        return run
    assert event.cause is not None
    return _take(replace(run, waits={**run.waits, event.cause: body}), event.cause, body.used)


def _agent_waited(run: Run, event: e.Event) -> Run:
    need(event.cause in run.waits, "its agent does not wait")
    return replace(run, waits={k: v for k, v in run.waits.items() if k != event.cause})


def _agent_halted(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentHalted)
    work = replace(run.works[body.assignment], halted=body.budget, session=body.session, answer="")
    return _broke(with_work(run, work), "" if body.budget == "run" else body.assignment, body.message)


def _broke(run: Run, about: str, words: str) -> Run:
    """A budget is used up: said once, however many agents run into it."""
    if run.open_blockers(about) or any(t[1] == about for t in run.trouble) or run.phase == "aborting":
        return run
    return replace(run, trouble=(*run.trouble, ("budget", about, words)))


def _budget_raised(run: Run, event: e.Event) -> Run:
    body = _body(event, e.BudgetRaised)
    name, more = body.assignment, body.more
    amounts = [getattr(more, f.name) for f in fields(more)]
    need(any(amounts) and all(a is None or a > 0 for a in amounts), "a budget is raised by more than nothing")
    need(not name or name in run.works, f"there is no assignment {name!r}")
    blockers = tuple(
        replace(b, answer="raised") if b.open and b.kind == "budget" and b.about == name else b for b in run.blockers
    )
    trouble = tuple(t for t in run.trouble if t[:2] != ("budget", name))
    run = replace(run, blockers=blockers, trouble=trouble)
    if name:
        work = run.works[name]
        return with_work(run, _unhalted(replace(work, raised=_sum(work.raised, more)), "assignment"))
    run = replace(run, raised=_sum(run.raised, more))
    return replace(run, works={n: _unhalted(w, "run") for n, w in run.works.items()})


def _unhalted(work: Work, budget: str) -> Work:
    return replace(work, stage="ready", halted="") if work.stage == "halted" and work.halted == budget else work


def _sum(one: e.Budget, other: e.Budget) -> e.Budget:
    """None stays None only where neither says anything."""
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return e.Budget(
        **{name: None if a is None and b is None else (a or 0) + (b or 0) for name, (a, b) in pairs.items()}
    )


def _agent_paused(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentPaused)
    work = run.works.get(body.assignment)
    if work is None or work.stage != "working" or body.attempt != work.attempt:
        return run  # it has ended meanwhile
    return with_work(run, replace(work, paused=body.path))


def _agent_continued(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentContinued)
    work = run.works[body.assignment]
    need(bool(work.paused), f"{body.assignment} is not paused")
    return with_work(run, replace(work, paused=""))


def _scope_refused(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ScopeRefused)
    work = run.works[body.assignment]
    need(not work.granted, "it was granted already")
    answer = f"Your request for more scope ({', '.join(work.asked)}) was refused: {body.why or 'no reason given'}"
    return _close_ask(with_work(run, _tell(work, _cut(answer))), body.assignment, "refused")


def _plan_amended(run: Run, event: e.Event) -> Run:
    body = _body(event, e.PlanAmended)
    work = run.works[body.assignment]
    need(bool(work.granted) and body == amendment(run, body.assignment), "not the amendment that was granted")
    plan, waits = amended(run, body.assignment, work.granted)
    answer = f"You were granted more scope: {', '.join(work.granted)}"
    left = [p for p in work.asked if p not in work.granted]
    answer += f". Not granted: {', '.join(left)}" if left else ""
    if waits:
        answer += f". Others work there too ({', '.join(waits)}), so you begin again after them, on their work."
    run = replace(run, plan=plan, plan_digest=body.digest, plan_version=body.version)
    run = with_work(run, replace(_tell(work, _cut(answer)), rebase=bool(waits)))
    for spec in body.changed:
        run = with_work(run, replace(run.works[spec.id], spec=spec))
    return run


def _tell(work: Work, answer: str) -> Work:
    """What was asked is decided: whoever goes on, in this attempt or the next, is told."""
    brief = (*work.brief, answer)[-MAX_PIECES:]
    return replace(work, asked=(), asked_why="", granted=(), answer=answer, brief=brief)


def _close_ask(run: Run, name: str, answer: str) -> Run:
    return replace(
        run,
        blockers=tuple(
            replace(b, answer=answer) if b.open and b.kind == "scope" and b.about == name else b for b in run.blockers
        ),
    )


def _agent_failed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.AgentFailed)
    request = run.pending[event.cause or 0].body
    key = purpose_key(request)
    if body.status == "run_budget":
        return _broke(run, "", _words(body))
    if not body.lost and run.phase != "aborting":
        run = replace(run, failures={**run.failures, key: run.failures.get(key, 0) + 1})
    if isinstance(request, e.AgentRequested):
        work = run.works[request.assignment]
        counts = not (body.lost or body.status in UNCOUNTED)
        words = "lost with its engine" if body.lost else f"{body.status}: {body.message}"
        work = _retell(_end(work, words, counts=counts))
        if counts:
            said = f"Your last attempt ended without a report ({body.status}: {body.message}). "
            work = replace(work, feedback=_say(work, said + "Its uncommitted and out-of-scope work was set aside."))
        elif not body.lost:
            work = replace(work, trouble=("unavailable", _words(body)))
        return with_work(run, work)
    if body.status in ("auth", "unavailable") and not body.lost:
        return replace(run, trouble=(*run.trouble, ("unavailable", key, _words(body))))
    if not body.lost and run.failures.get(key, 0) > run.settings.agent_retries and run.phase != "aborting":
        return replace(run, trouble=(*run.trouble, ("agent", key, _words(body))))
    return run


def _words(body: e.AgentFailed) -> str:
    return f"{body.status}: {body.message}" + (f"\n{body.hint}" if body.hint else "")


def _gate_passed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.GatePassed)
    work = replace(run.works[body.assignment], head=body.commit, verified=None)
    failures = {k: v for k, v in run.failures.items() if k != f"work/{body.assignment}"}
    return with_work(replace(run, failures=failures), work)


def _gate_failed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.GateFailed)
    work = _retell(_end(run.works[body.assignment], f"gate: {body.total} violations"))
    listed = "\n".join(f"- {v.path}: {v.rule}" if v.path else f"- {v.rule}" for v in body.violations)
    more = f"\n(and {body.total - len(body.violations)} more)" if body.total > len(body.violations) else ""
    feedback = f"The gate refused your last attempt; nothing of it was kept in your branch:\n{listed}{more}"
    if body.salvage:
        back = f"git checkout {body.salvage} -- PATH"
        feedback += f"\nWhat you left is set aside in a commit; to have a file of it back: `{back}`"
    hand = work.attempts[-1].hand
    if hand:  # a person's work, so a person mends it
        there = f"orchgit/{run.id}/{body.assignment}"
        back = f"To put it back: git push --force-with-lease={there}:{hand} REMOTE {work.head}:refs/heads/{there}"
        text = f"What was pushed by hand onto {there} is refused:\n{listed}{more}\n{back}"
        return with_work(run, replace(work, trouble=("ref", text)))
    return with_work(run, replace(work, feedback=_say(work, feedback)))


def _salvage_kept(run: Run, event: e.Event) -> Run:
    body = _body(event, e.SalvageKept)
    work = run.works[body.assignment]
    if not work.attempts[-1].end:  # it reported a blocker: that is how it ended
        # A blocker is not a failure of the worker: the human's answer starts a fresh count anyway.
        work = _retell(_end(work, "blocked" if work.blocked_by_agent else "set aside", counts=False))
        if work.rebase and body.commit:
            back = f"git checkout {body.commit} -- PATH"
            work = replace(work, feedback=_say(work, f"What you had done is set aside; a file of it back: `{back}`"))
    return with_work(run, work)


def _checks_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ChecksRequested)
    if body.subject == "ship":
        observed = run.ship
        need(observed is not None and body.onto == observed.old and body.commit == run.tip, "not what is shipped")
    else:
        head = run.tip if body.subject == "integration" else run.works[body.subject].head
        need(body.onto == run.tip and body.commit == head, "checks of something else than the candidate")
    return run


def _checks_passed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ChecksPassed)
    need(all(r.passed for r in body.results), "a check that failed is not passed")
    work = run.works.get(body.subject)
    wanted = work.spec.checks if work else run.all_checks()
    need(tuple(r.command for r in body.results) == wanted, "not the checks of the approved plan")
    verified = (body.onto, body.tree)
    if body.subject == "ship":
        return replace(run, ship_verified=verified)
    if body.subject == "integration":
        return replace(run, verified=verified, failed_checks=None, fixing=(), round=run.round + 1)
    return with_work(run, replace(run.works[body.subject], verified=verified, results=body.results))


def _checks_failed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ChecksFailed)
    if body.subject == "integration":
        return replace(run, failed_checks=body, check_rounds=run.check_rounds + 1)
    if body.subject == "ship":
        return replace(
            run, trouble=(*run.trouble, ("ship", "ship", f"Checks fail on the base branch:\n{body.excerpt}"))
        )
    failed = "; ".join(f"`{r.command}`: {r.why}" for r in body.results if not r.passed)
    # Only the tip that moved is to blame: go on from the joined state, and do not count the try.
    work = _end(run.works[body.subject], f"checks: {failed}", counts=not body.alone)
    said = f"Checks failed on the merge result: {failed}\nOutput:\n{body.excerpt}"
    onto = body.onto if body.alone else work.onto
    return with_work(run, replace(work, feedback=_say(work, said), onto=onto, verified=None))


def _checks_stale(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ChecksStale)
    listed = ", ".join(body.paths)
    if body.subject == "ship":
        why = body.why or f"The base branch changed the same paths: {listed}"
        return replace(run, trouble=(*run.trouble, ("ship", "ship", why)))
    why = body.why or f"the integration branch changed under it, at: {listed}"
    return with_work(run, replace(run.works[body.subject], trouble=("ref", why), verified=None))


def _verdict_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.VerdictRequested)
    need(body.commit == run.works[body.assignment].head, "a verdict on something else than the gated commit")
    return run


def _verdict_given(run: Run, event: e.Event) -> Run:
    body = _body(event, e.VerdictGiven)
    work = run.works[body.assignment]
    failures = {k: v for k, v in run.failures.items() if k != f"verdict/{body.assignment}"}
    run = replace(run, failures=failures)
    if body.decision == "accept":
        return with_work(run, work)
    listed = "\n".join(f"- {r}" for r in body.reasons)
    work = _end(work, f"verdict: {body.decision}")
    work = replace(work, feedback=_say(work, f"The orchestrator read your work and wants changes:\n{listed}"))
    if body.decision == "blocked":
        work = replace(work, trouble=("verdict", listed))
    return with_work(run, work)


def _merge_prepared(run: Run, event: e.Event) -> Run:
    body = _body(event, e.MergePrepared)
    need(run.landing is None, "another merge is under way")
    if body.land == "ship":
        need(run.ship_verified == (body.old, body.tree) and body.commit == run.tip, "not what was verified")
    else:
        need(body.old == run.tip, "a merge onto something else than the tip")
        # The merge gate. What was verified is what is merged, byte for byte, and onto nothing else.
        verified = run.verified if body.land == "seal" else run.works[body.assignment].verified
        need(verified == (body.old, body.tree), "its checks did not pass for this tree on this tip")
        commit = run.tip if body.land == "seal" else run.works[body.assignment].head
        need(body.commit == commit, "not the commit that was verified")
    return replace(run, landing=Landing(body))


def _merge_built(run: Run, event: e.Event) -> Run:
    body = _body(event, e.MergeBuilt)
    landing = run.landing
    need(landing is not None and not landing.new and landing.prepared.land == body.land, "nothing was prepared")
    assert landing is not None
    return replace(run, landing=replace(landing, new=body.new))


def _merge_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.MergeRequested)
    landing = run.landing
    need(landing is not None and bool(landing.new), "no merge was built")
    assert landing is not None
    p = landing.prepared
    need(
        (body.land, body.assignment, body.old, body.tree, body.new)
        == (p.land, p.assignment, p.old, p.tree, landing.new),
        "not the merge that was prepared",
    )
    if body.land == "ship":
        need(run.ship is not None and body.ref == run.ship.ref and body.old == run.ship.old, "not where it ships")
    else:
        need(body.ref == run.ref and body.old == run.tip, "the tip has moved since")
    return run


def _merge_done(run: Run, event: e.Event) -> Run:
    body = _body(event, e.MergeDone)
    landing = run.landing
    need(landing is not None and body.new == landing.new, "not the merge that was requested")
    assert landing is not None
    run = replace(run, landing=None)
    if body.land == "ship":
        return replace(run, shipped=body.new)
    tree = landing.prepared.tree
    if body.land == "seal":
        return replace(run, tip=body.new, verified=(body.new, tree))
    work = _end(run.works[body.assignment], "merged")
    landed = (*run.landed, (body.assignment, body.new))
    return with_work(replace(run, tip=body.new, landed=landed), replace(work, fixes=()))


def _merge_stale(run: Run, event: e.Event) -> Run:
    body = _body(event, e.MergeStale)
    run = replace(run, landing=None)
    if body.land == "ship":
        if body.why:
            return replace(run, trouble=(*run.trouble, ("ship", "ship", body.why)))
        return replace(run, ship=None, ship_verified=None)  # it moved between the look and the swap: look again
    why = body.why or f"{run.ref} was moved to {body.found or 'nothing'} by somebody else; put it back to {run.tip}"
    if body.land == "seal":
        return replace(run, trouble=(*run.trouble, ("ref", "seal", why)))
    return with_work(run, replace(run.works[body.assignment], trouble=("ref", why)))


def _blocker_raised(run: Run, event: e.Event) -> Run:
    body = _body(event, e.BlockerRaised)
    need(body.blocker == f"B{len(run.blockers) + 1}", "blockers are numbered in order")
    blocker = Blocker(body.blocker, body.cause_kind, body.about, body.text)
    run = replace(run, blockers=(*run.blockers, blocker))
    run = replace(run, trouble=tuple(t for t in run.trouble if t[1] != body.about))
    if body.about in run.works:
        run = with_work(run, replace(run.works[body.about], trouble=None))
    return run


def _blocker_answered(run: Run, event: e.Event) -> Run:
    body = _body(event, e.BlockerAnswered)
    blocker = next((b for b in run.blockers if b.id == body.blocker), None)
    need(blocker is not None and blocker.open, f"no open blocker {body.blocker}")
    assert blocker is not None
    need(blocker.kind != "scope", "a request for more scope is granted or refused, not answered")
    need(blocker.kind != "budget", "a budget is raised, not answered: orchgit raise")
    blockers = tuple(replace(b, answer=body.text) if b is blocker else b for b in run.blockers)
    run = replace(run, blockers=blockers, failures={k: v for k, v in run.failures.items() if k != blocker.about})
    if body.assignment:
        need(body.assignment in run.works and blocker.kind == "finding", "only a finding is given to an assignment")
        need(run.works[body.assignment].stage == "merged", f"{body.assignment} is not merged yet")
        finding = tuple(f.id for f in run.open_findings() if f.id == blocker.about)
        # The next fix.assigned is derived from this; see decide.
        return replace(run, findings=_give(run.findings, finding, body.assignment))
    if blocker.about in run.works:
        work = run.works[blocker.about]
        answer = f"A human answered: {body.text}" if body.text else ""
        allowance = work.counted + run.settings.attempts
        return with_work(run, replace(work, allowance=allowance, feedback=_say(work, answer)))
    match blocker.kind:
        case "plan" | "agent":
            said = (f"A human says: {body.text}",) if body.text else ()
            return replace(run, plan_invalid=0, plan_feedback=(*run.plan_feedback, *said))
        case "finding":
            return replace(run, rounds_allowed=run.round + run.settings.rounds)
        case "checks":
            return replace(run, failed_checks=None, check_rounds=0)
        case "ship":
            return replace(run, ship=None, ship_verified=None)
    return run


def _give(findings: tuple[Finding, ...], ids: tuple[str, ...], assignment: str) -> tuple[Finding, ...]:
    return tuple(replace(f, owner=assignment) if f.id in ids else f for f in findings)


def _review_requested(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ReviewRequested)
    need(body.tip == run.tip and body.round == run.round, "a review of something else than the tip")
    return run


def _review_reported(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ReviewReported)
    need(body.tip == run.tip, "a report on another tip counts for nothing")
    need(set(body.fixed) <= {f.id for f in run.findings}, "it closes findings that were never opened")
    failures = {k: v for k, v in run.failures.items() if k != f"review/{body.reviewer}"}
    reviews = {**run.reviews, body.reviewer: body.tip}
    # A human may have waived one while the reviewer was reading.
    still = {f.id for f in run.open_findings()}
    left = replace(body, fixed=tuple(f for f in body.fixed if f in still))
    reported = (*run.reported, left) if left.findings or left.fixed else run.reported
    return replace(run, failures=failures, reviews=reviews, reported=reported)


def _settle(run: Run, spent: Callable[[e.ReviewReported], e.ReviewReported]) -> Run:
    """Take one finding out of the reports that still have some to open or close."""
    left = tuple(spent(r) if i == 0 else r for i, r in enumerate(run.reported))
    return replace(run, reported=tuple(r for r in left if r.findings or r.fixed))


def _finding_opened(run: Run, event: e.Event) -> Run:
    finding = _body(event, e.FindingOpened).finding
    need(finding.id == f"F{len(run.findings) + 1}" and bool(run.reported), "findings are numbered in order")
    run = replace(run, findings=(*run.findings, finding))
    return _settle(run, lambda r: replace(r, findings=r.findings[1:]))


def _finding_fixed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.FindingFixed)
    need(bool(run.reported) and body.finding in run.reported[0].fixed, "no report says that it is fixed")
    run = _close(run, body.finding, "fixed")
    return _settle(run, lambda r: replace(r, fixed=tuple(f for f in r.fixed if f != body.finding)))


def _finding_waived(run: Run, event: e.Event) -> Run:
    body = _body(event, e.FindingWaived)
    need(any(f.id == body.finding for f in run.open_findings()), f"no open finding {body.finding}")
    run = _close(run, body.finding, "waived")
    # What keeps the review from ending goes with the last finding that blocks.
    blocking = any(blocks(f, run.settings.blocking) for f in run.open_findings())
    about = {body.finding} if blocking else {body.finding, "review"}
    blockers = tuple(
        replace(b, answer=f"waived: {body.reason}") if b.open and b.about in about else b for b in run.blockers
    )
    return replace(run, blockers=blockers)


def _close(run: Run, name: str, state: Any) -> Run:
    return replace(
        run, findings=tuple(f.closed(state) if f.id == name and f.state == "open" else f for f in run.findings)
    )


def _fix_assigned(run: Run, event: e.Event) -> Run:
    body = _body(event, e.FixAssigned)
    work = run.works[body.assignment]
    said = [body.why] if body.why else []
    for f in run.findings:
        if f.id in body.findings:
            where = f"{f.path}:{f.line}" if f.line else f.path
            said.append(f"Finding {f.id} ({f.severity}) of {f.reviewer} at {where}: {f.title}\n{f.detail}")
    if not work.attempts[-1].end:  # accepted, and not merged: a reader of its pull request was not content
        work = _end(work, "changes were wanted")
    elif body.alone:
        work = replace(work, base=work.head)  # what it had is merged: only what comes on top of it lands
    work = replace(
        work, onto="" if body.alone else run.tip, fixes=body.findings, counted=0, allowance=run.settings.attempts,
        feedback=_say(work, *said), verified=None,
    )  # fmt: skip
    fixing = (*run.fixing, *body.findings)
    wishes = {n: text for n, text in run.outside.wishes.items() if n != body.assignment}
    run = replace(run, outside=replace(run.outside, wishes=wishes))
    return with_work(replace(run, verified=None, failed_checks=None, fixing=fixing), work)


def _fix_dropped(run: Run, event: e.Event) -> Run:
    body = _body(event, e.FixDropped)
    work = run.works[body.assignment]
    open_ids = {f.id for f in run.open_findings()}
    hand = bool(work.attempts[-1].hand) and work.base == work.head
    need(hand or (bool(work.fixes) and not open_ids & set(work.fixes)), "something of it is still open")
    blockers = tuple(replace(b, answer="dropped") if b.open and b.about == body.assignment else b for b in run.blockers)
    # What its branch holds beyond the merge never lands: the next landing diff begins after it.
    work = replace(work, base=work.head or work.base, onto="", fixes=(), feedback=(), trouble=None, verified=None)
    return with_work(replace(run, blockers=blockers), work)


def _synthesis_requested(run: Run, event: e.Event) -> Run:
    need(_body(event, e.SynthesisRequested).tip == run.tip, "a synthesis of something else than the tip")
    return run


def _synthesis_written(run: Run, event: e.Event) -> Run:
    return replace(run, synthesis=_body(event, e.SynthesisWritten), failures={})


def _ship_asked(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ShipAsked)
    need(not body.pr or run.settings.forge != "local", "there is no forge to open pull requests on")
    return replace(
        run, ship_asked=True, ship_pr=body.pr, ship_left=False, ship=None, ship_verified=None, shipped=""
    )  # fmt: skip


def _ship_left(run: Run, event: e.Event) -> Run:
    about = ("ship", "forge")
    blockers = tuple(replace(b, answer="left") if b.open and b.about in about else b for b in run.blockers)
    trouble = tuple(t for t in run.trouble if t[1] not in about)
    return replace(run, ship_left=True, blockers=blockers, trouble=trouble)


def _ship_observed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ShipObserved)
    if body.merged:
        return replace(run, ship=body, shipped=body.old)
    if body.why:
        return replace(run, trouble=(*run.trouble, ("ship", "ship", body.why)))
    return replace(run, ship=body)


# -- the forge -------------------------------------------------------------------------------------------


def occasion(run: Run, body: e.Body) -> Run:
    """A comment is heard once; and whoever speaks, or merges, is an occasion to try again what the forge refused."""
    comments: tuple[e.Comment, ...] = getattr(body, "comments", ())
    heard = run.outside.heard.union(c.id for c in comments)
    need(len(heard) == len(run.outside.heard) + len(comments), "that comment was heard before")
    again = body.kind == "input" or isinstance(body, e.MergeDone)
    if not comments and not (again and run.outside.failed):
        return run
    failed = {} if again else run.outside.failed
    return replace(run, outside=replace(run.outside, heard=heard, failed=failed))


def _forge_requested(run: Run, event: e.Event) -> Run:
    need(run.settings.forge != "local", "there is no forge to write to")
    need(not any(isinstance(p.body, e.ForgeRequested) for p in run.pending.values()), "one write at a time")
    return run


def _forge_done(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ForgeDone)
    request = _body(run.pending[event.cause or 0], e.ForgeRequested)
    posted = {**run.outside.posted, body.key: Posted(request, body.number, body.url)}
    run = replace(run, outside=replace(run.outside, posted=posted))
    return replace(run, shipped=body.commit) if request.act == "merge" else run


def _forge_failed(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ForgeFailed)
    failed = {**run.outside.failed, body.key: body.why}
    trouble = run.trouble
    if forge.needs(run, body.key):
        trouble = (*trouble, ("unavailable", "forge", "\n".join(filter(None, (body.why, body.hint)))))
    return replace(run, outside=replace(run.outside, failed=failed), trouble=trouble)


def _change_seen(run: Run, event: e.Event) -> Run:
    body = _body(event, e.ChangeSeen)
    last, outside = body.about == forge.LAST, run.outside
    need(last or body.about in run.works, f"no pull request is about {body.about!r}")
    need(f"change/{body.about}" in outside.posted, "that pull request was not opened")
    need(bool(body.comments), "nobody said so")
    if body.what in ("approved", "changes"):
        need(body.commit == forge.head(run, body.about), "it was said of another state than the one there is")
    match body.what:
        case "approved":
            outside = replace(outside, approved={**outside.approved, body.about: body.commit})
        case "changes" if not last:
            approved = {n: c for n, c in outside.approved.items() if n != body.about}
            outside = replace(outside, approved=approved, wishes={**outside.wishes, body.about: body.text})
            run = replace(run, rounds_allowed=run.round + run.settings.rounds)
        case "pushed" if not last:
            need(body.commit != forge.head(run, body.about), "that is what we pushed")
            outside = replace(outside, pushed={**outside.pushed, body.about: body.commit})
            run = replace(run, rounds_allowed=run.round + run.settings.rounds)
        case "merged" if last:  # whatever kept us from it
            about = ("ship", "forge")
            blockers = tuple(replace(b, answer="merged") if b.open and b.about in about else b for b in run.blockers)
            run = replace(run, shipped=body.commit, blockers=blockers)
        case "closed" if last:
            return _ship_left(run, event)
        case _:
            words = {"changes": "wants changes in", "pushed": "pushed onto"}.get(body.what, body.what)
            text = f"{body.comments[0].author} {words} the pull request of {body.about}. {body.text}"
            run = replace(run, trouble=(*run.trouble, ("ship", "ship", text.strip())))
    return replace(run, outside=outside)


def _body(event: e.Event, cls: type[e.T]) -> e.T:
    assert isinstance(event.body, cls), event.body.type
    return event.body


HANDLERS: dict[type[e.Body], Callable[[Run, e.Event], Run]] = {
    e.RunStarted: _run_started,
    e.RunResumed: _run_resumed,
    e.RunBlocked: _run_blocked,
    e.RunCompleted: _run_completed,
    e.LogCheckpointed: _log_checkpointed,
    e.RedactionRecorded: _redaction_recorded,
    e.IssueRead: _issue_read,
    e.PlanRequested: _plan_requested,
    e.QuestionAsked: _question_asked,
    e.QuestionAnswered: _question_answered,
    e.PlanProposed: _plan_proposed,
    e.PlanInvalid: _plan_invalid,
    e.PlanRejected: _plan_rejected,
    e.PlanApproved: _plan_approved,
    e.AssignmentStarted: _assignment_started,
    e.CellMade: _cell_made,
    e.CellFailed: _cell_failed,
    e.CellRemovalRequested: _cell_removal_requested,
    e.AgentReported: _agent_reported,
    e.ScopeAsked: _scope_asked,
    e.ScopeGranted: _scope_granted,
    e.ScopeRefused: _scope_refused,
    e.PlanAmended: _plan_amended,
    e.AgentStarted: _agent_started,
    e.AgentExited: _agent_exited,
    e.AgentWaiting: _agent_waiting,
    e.AgentWaited: _agent_waited,
    e.AgentHalted: _agent_halted,
    e.BudgetRaised: _budget_raised,
    e.AgentPaused: _agent_paused,
    e.AgentContinued: _agent_continued,
    e.AgentFailed: _agent_failed,
    e.GatePassed: _gate_passed,
    e.GateFailed: _gate_failed,
    e.SalvageKept: _salvage_kept,
    e.ChecksRequested: _checks_requested,
    e.ChecksPassed: _checks_passed,
    e.ChecksFailed: _checks_failed,
    e.ChecksStale: _checks_stale,
    e.VerdictRequested: _verdict_requested,
    e.VerdictGiven: _verdict_given,
    e.MergePrepared: _merge_prepared,
    e.MergeBuilt: _merge_built,
    e.MergeRequested: _merge_requested,
    e.MergeDone: _merge_done,
    e.MergeStale: _merge_stale,
    e.BlockerRaised: _blocker_raised,
    e.BlockerAnswered: _blocker_answered,
    e.ReviewRequested: _review_requested,
    e.ReviewReported: _review_reported,
    e.FindingOpened: _finding_opened,
    e.FindingFixed: _finding_fixed,
    e.FindingWaived: _finding_waived,
    e.FixAssigned: _fix_assigned,
    e.FixDropped: _fix_dropped,
    e.SynthesisRequested: _synthesis_requested,
    e.SynthesisWritten: _synthesis_written,
    e.ShipAsked: _ship_asked,
    e.ShipLeft: _ship_left,
    e.ShipObserved: _ship_observed,
    e.ForgeRequested: _forge_requested,
    e.ForgeDone: _forge_done,
    e.ForgeFailed: _forge_failed,
    e.ChangeSeen: _change_seen,
}
