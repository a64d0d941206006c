"""A run, told to people: one sentence per event, the state in a few lines, the report in Markdown, all of it as JSON.

Pure: events and a Run in, text out. Whatever an agent or an issue wrote goes through `safe`: it may say what it likes,
and it may not move the cursor.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from orchgit import report_cost
from orchgit.core import events as e
from orchgit.core.codec import encode
from orchgit.core.decide import advance, describe, waiting
from orchgit.core.forge import approved, awaited, changes
from orchgit.core.plan import Plan, order, waves
from orchgit.core.scope import precision
from orchgit.core.state import Run
from orchgit.report_cost import Sum
from orchgit.report_cost import money as money


def safe(text: str, *, lines: bool = False) -> str:
    """Text somebody else wrote, for a terminal: no control, format or surrogate characters; newlines if `lines`."""
    kept = []
    for c in text:
        if c == "\n":
            kept.append("\n" if lines else " ")
        elif c == "\t":
            kept.append("    " if lines else " ")
        elif unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            kept.append("\N{REPLACEMENT CHARACTER}")
        else:
            kept.append(c)
    return "".join(kept)


def short(text: str, width: int = 100) -> str:
    text = " ".join(safe(text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def span(ms: int) -> str:
    if ms < 1000:
        return f"{ms} ms"
    seconds = ms / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def many(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def id7(oid: str) -> str:
    return oid[:10]


def say(event: e.Event) -> str:
    """One line: what happened, in the words of the design."""
    # Also what is ours in an honest log, such as ids and names: this one may have been written by anybody.
    return safe(f"{_subject(event.body)}{_sentence(event.body)}")


def _subject(body: e.Body) -> str:
    name = getattr(body, "assignment", "") or getattr(body, "subject", "")
    if not name:
        return ""
    attempt = getattr(body, "attempt", 0)
    return f"{name} (attempt {attempt}): " if attempt > 1 else f"{name}: "


def _sentence(body: e.Body) -> str:
    match body:
        case e.RunStarted():
            note = "; SCRIPTED agents, no model is called" if body.scripted else ""
            held = "" if body.sandboxed else " (NOTHING PREVENTS WRITES)"
            return f"run started at {id7(body.base)}, sandbox {body.sandbox.partition(',')[0]}{held}{note}"
        case e.RunResumed():
            torn = f"; {body.torn_bytes} bytes of an unfinished line were set aside" if body.torn_bytes else ""
            cleared = f"; cleared away: {short('; '.join(body.debris))}" if body.debris else ""
            return f"run resumed{torn}{cleared}"
        case e.RunCompleted():
            return f"run completed at {id7(body.tip)}"
        case e.RunBlocked():
            return f"run blocked: a human is needed for {', '.join(body.blockers)}"
        case e.AbortRequested():
            return f"abort requested: {short(body.reason)}"
        case e.RunAborted():
            return "run aborted"
        case e.RunFailed():
            return f"run failed: {body.refused} was refused: {short(body.why)}"
        case e.OutcomeIgnored():
            return f"ignored {body.refused}: {short(body.why)}"
        case e.LogCheckpointed():
            if body.why:
                return f"the log could not be published up to event {body.seq}: {short(body.why)}"
            return f"log published up to event {body.seq} ({id7(body.commit)})"
        case e.RedactionRecorded():
            return f"blob {body.digest[:12]} dropped: {short(body.why)}"
        case e.IssueRead():
            return f"issue read from {safe(body.source)}: {short(body.title)}"
        case e.PlanRequested():
            return "plan requested from the orchestrator"
        case e.QuestionAsked():
            return f"{many(len(body.questions), 'question')} asked: {short('; '.join(body.questions))}"
        case e.QuestionAnswered():
            return f"questions answered{_by(body.comments)}: {short('; '.join(body.answers))}"
        case e.PlanProposed():
            names = ", ".join(a.id for a in body.plan.assignments)
            return f"plan v{body.version} proposed ({body.digest[:12]}): {names}"
        case e.PlanInvalid():
            return f"plan sent back, {many(len(body.problems), 'problem')}: {short('; '.join(body.problems), 200)}"
        case e.PlanRejected():
            return f"plan v{body.version} rejected{_by(body.comments)}: {short(body.feedback)}"
        case e.PlanApproved():
            who = "by a human" if body.mode == "human" else "by policy (--yes), not by a human"
            return f"plan v{body.version} approved {who}{_by(body.comments)} ({body.digest[:12]})"
        case e.AssignmentStarted():
            again = ", with feedback on the last attempt" if body.feedback else ""
            return f"assignment started{again}"
        case e.CellRequested():
            return "cell requested"
        case e.CellMade():
            stopped = sum(1 for c in body.canary if c.endswith(": prevented"))
            more = [short(c) for c in body.canary if not c.endswith("prevented")]
            made = f"cell made at {id7(body.start)}, {body.sandbox}, canary: {stopped} attempts prevented"
            return "; ".join([made, *more])
        case e.CellFailed():
            return f"no cell: {short(body.why)}"
        case e.CellRemovalRequested() | e.CellRemoved():
            return "cell removed" if isinstance(body, e.CellRemoved) else "cell to be removed"
        case e.AgentRequested():
            return f"{body.member} asked to work"
        case e.AgentStarted():
            return f"{body.member} started ({body.purpose}, {body.backend}, {safe(body.model)}, network {body.network})"
        case e.AgentExited():
            words = [body.status, span(body.duration_ms)]
            if body.calls:
                words += [f"{body.input_tokens + body.cache_read_tokens + body.cache_write_tokens} tokens in",
                          f"{body.output_tokens} out", Sum(1, body.used, body.cost_micro is None).cost]  # fmt: skip
            if body.refused:
                words.append(f"{many(len(body.refused), 'call')} REFUSED: {short(body.refused[0], 80)}")
            return f"{body.member} ended: {', '.join(words)}"
        case e.AgentWaiting():
            return f"{body.member} WAITS until {clock(body.until)} for {safe(body.backend)}: {short(body.why)}"
        case e.AgentWaited():
            return f"{body.member} goes on after its wait"
        case e.AgentHalted():
            return f"stopped before it could go beyond a budget: {short(body.message, 200)}"
        case e.BudgetRaised():
            return f"the budget of {safe(body.assignment) or 'the run'} is raised by {_more(body.more)}"
        case e.AgentReported():
            more = [f"blocker: {b}" for b in body.blockers]
            return f"reported: {short(' '.join([body.summary, *more]))}"
        case e.AgentFailed():
            return f"agent ended without a result: {body.status}: {short(body.message)}"
        case e.ScopeAsked():
            return f"asks for more scope: {short(', '.join(body.patterns))}: {short(body.why)}"
        case e.ScopeGranted():
            return f"more scope granted: {short(', '.join(body.patterns))}"
        case e.ScopeRefused():
            return f"more scope refused: {short(body.why) or 'no reason given'}"
        case e.PlanAmended():
            order = f"; order changed for {', '.join(a.id for a in body.changed)}" if len(body.changed) > 1 else ""
            again = "; it begins again after others" if body.waits else ""
            return f"plan v{body.version} ({body.digest[:12]}) has it{order}{again}"
        case e.ScopeViolationSeen():
            return f"OUT OF SCOPE, {body.layer}: {safe(body.path)} {short(body.what)}".rstrip()
        case e.AgentPaused():
            return f"PAUSED, it touched {safe(body.path)}: a human says how it goes on"
        case e.AgentContinued():
            return "stopped by a human" if body.stop else "goes on, says a human"
        case e.WatchIncomplete():
            return f"the watchdog lost events ({short(body.why)}); the gate reads the whole tree"
        case e.GateRequested():
            return "gate"
        case e.GatePassed():
            return f"gate passed: {many(body.files, 'file')}, commit {id7(body.commit)}"
        case e.GateFailed():
            first = "; ".join(f"{v.path} {v.rule}".strip() for v in body.violations[:3])
            return f"gate failed, {many(body.total, 'violation')}: {short(first, 160)}"
        case e.SalvageRequested():
            return "work is being set aside"
        case e.SalvageKept():
            return (
                f"work set aside as {id7(body.commit)}" if body.commit else f"nothing to set aside: {short(body.why)}"
            )
        case e.ChecksRequested():
            return f"checks on the merge result with {id7(body.onto)}"
        case e.ChecksPassed():
            return f"checks passed ({_results(body.results)}) for tree {id7(body.tree)}"
        case e.ChecksFailed():
            return (
                f"checks failed: {'; '.join(f'{short(r.command, 60)}: {r.why}' for r in body.results if not r.passed)}"
            )
        case e.ChecksStale():
            return f"cannot be carried onto the tip, at: {short(', '.join(body.paths))}"
        case e.VerdictRequested():
            return "verdict requested from the orchestrator"
        case e.VerdictGiven():
            return f"verdict: {body.decision}" + (f": {short('; '.join(body.reasons), 160)}" if body.reasons else "")
        case e.MergePrepared():
            return f"{body.land} prepared onto {id7(body.old)}"
        case e.MergeBuilt():
            return f"{body.land} commit {id7(body.new)}"
        case e.MergeRequested():
            return f"{body.ref.removeprefix('refs/heads/')}: {id7(body.old)} -> {id7(body.new)}"
        case e.MergeDone():
            return {"merge": "merged", "seal": "sealed", "ship": "shipped"}[body.land] + f" as {id7(body.new)}"
        case e.MergeStale():
            return f"the branch was moved by somebody else, to {id7(body.found) or 'nothing'}"
        case e.BlockerRaised():
            about = f" about {body.about}" if body.about else ""
            return f"BLOCKER {body.blocker}{about}: {short(body.text, 200)}"
        case e.BlockerAnswered():
            return f"blocker {body.blocker} answered{_by(body.comments)}: {short(body.text) or '(try again)'}"
        case e.ReviewRequested():
            return f"{body.reviewer} asked to read {id7(body.since)}..{id7(body.tip)}, round {body.round}"
        case e.ReviewReported():
            if not body.findings and not body.fixed:
                return f"{body.reviewer}: clean, no findings. {short(body.summary)}"
            new = many(len(body.findings), "new finding") if body.findings else "clean, nothing new"
            return f"{body.reviewer}: {new}" + (f", {len(body.fixed)} fixed" if body.fixed else "")
        case e.FindingOpened(finding=f):
            return f"finding {f.id} opened, {f.severity}, {safe(f.path)}:{f.line}: {short(f.title)}"
        case e.FindingFixed():
            return f"finding {body.finding} fixed, says {body.reviewer}"
        case e.FindingWaived():
            return f"finding {body.finding} waived: {short(body.reason)}"
        case e.FixDropped():
            return "nothing left to fix; the merged work stands"
        case e.FixAssigned():
            return f"to fix: {', '.join(body.findings) or short(body.why)}"
        case e.SynthesisRequested():
            return "synthesis requested from the orchestrator"
        case e.SynthesisWritten():
            return f"synthesis: {totals(body.totals)}"
        case e.ShipAsked():
            return "asked to ship" + (" by pull requests" if body.pr else "")
        case e.ShipRequested():
            return f"looks where {safe(body.ref) or 'the base'} stands"
        case e.ShipLeft():
            return "left unshipped"
        case e.ShipObserved(merged=True):
            return f"{body.ref} has the work already, at {id7(body.old)}"
        case e.ShipObserved():
            return f"{body.ref} is at {id7(body.old)}" if not body.why else f"cannot ship: {short(body.why, 200)}"
        case e.ForgeRequested():
            return f"forge: {body.act} {body.key}" + (f", {short(body.state)}" if body.act == "status" else "")
        case e.ForgeDone():
            return f"forge: {body.key} is there" + (f", {safe(body.url)}" if body.url else "")
        case e.ForgeFailed():
            return f"FORGE: {body.key} could not be written: {short(body.why, 200)}"
        case e.ChangeSeen():
            did = {"changes": "wants changes in", "closed": "closed"}.get(body.what, body.what)
            who = body.comments[0].author if body.comments else "somebody"
            return f"{safe(who)} {did} {body.about} at {id7(body.commit)} {short(body.text)}".rstrip()
    return body.type


def _more(by: e.Budget) -> str:
    said = [money(by.cost_micro)] if by.cost_micro is not None else []
    for value, what in ((by.tokens, "token"), (by.turns, "turn"), (by.seconds, "second")):
        said += [many(value, what)] if value is not None else []
    return ", ".join(said)


def clock(time: str) -> str:
    """A time of the log for people: to the second, and in which zone it is."""
    return f"{safe(time[:10])} {safe(time[11:19])} UTC"


def _by(comments: Sequence[e.Comment]) -> str:
    """Who said it on the forge, in which comment and when."""
    return "".join(f" by {safe(c.author)} ({safe(c.id)}, {safe(c.time)})" for c in comments)


def _results(results: Sequence[e.CheckResult]) -> str:
    if not results:
        return "none in the plan"
    tests = [r.tests for r in results if r.tests is not None]
    return many(len(results), "command") + (f", {many(sum(tests), 'test')}" if tests else "")


def totals(t: e.Totals) -> str:
    return (
        f"{many(t.files_created, 'file')} created, {t.files_changed} changed, {t.files_deleted} deleted; "
        f"+{t.lines_added} -{t.lines_deleted} lines; "
        f"{many(t.tests_added, 'test')} added in {many(t.test_files, 'file')}; {many(t.docs_files, 'docs file')}; "
        f"{many(t.assignments, 'assignment')} in {many(t.attempts, 'attempt')}"
    )


# -- the plan --------------------------------------------------------------------------------------------


def plan_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """(assignment, title and worker; writes; after; checks), dependencies first."""
    rows = []
    for a in order(plan):
        who = f"{safe(a.id)}, by {safe(a.worker)}\n{short(a.title, 60)}"
        writes = "\n".join([*a.allow, *(f"not {d}" for d in a.deny), *["(symbolic links too)"] * a.symlinks])
        rows.append(
            (
                who,
                safe(writes, lines=True),
                "\n".join(a.depends_on) or "—",
                safe("\n".join(a.checks), lines=True) or "none",
            )
        )
    return rows


def plan_notes(plan: Plan, files: Sequence[bytes] = ()) -> list[str]:
    """What a person has to know before saying yes, beside the table. `files`: of the base."""
    steps = " → ".join(" + ".join(a.id for a in wave) for wave in waves(plan))
    notes = [f"Order: {steps}  (each starts the moment what it depends on is merged)"]
    if files:
        found = {a.id: precision(a.scope, files) for a in order(plan)}
        told = (f"{n} {_percent(*p)}" for n, p in found.items())
        notes.append(f"Prevention precision, in-scope files over those the kernel lets it write: {', '.join(told)}")
    for a in order(plan):
        loose = [r.path or "the whole tree" for r in a.scope.roots() if not r.exact]
        if loose:
            notes.append(
                f"{a.id}: the sandbox goes by directories and leaves more writable in {', '.join(loose)}; "
                "what is outside the scope there, the gate refuses"
            )
        if not a.checks:
            notes.append(f"{a.id}: no checks; only the gate and the verdict stand before its merge")
    return notes


def _percent(inside: int, writable: int) -> str:
    return f"{inside * 100 // writable} % ({inside}/{writable})" if writable else "– (no file there yet)"


def plan_text(plan: Plan) -> list[str]:
    """Each assignment in full, as its worker will read it."""
    told = []
    for a in order(plan):
        lines = [f"{a.id} ({safe(a.worker)}): {short(a.title)}", safe(a.task, lines=True)]
        for name, value in (
            ("interface", a.interface),
            ("inputs", "\n".join(a.inputs)),
            ("outputs", "\n".join(a.outputs)),
        ):
            if value:
                lines.append(f"{name}:\n{safe(value, lines=True)}")
        told.append("\n".join(lines))
    return told


# -- the state -------------------------------------------------------------------------------------------


def phase(run: Run) -> str:
    """The phase in words: a run that waits for a human about a blocker is not executing anything."""
    return f"{run.phase}, stopped: a human is needed" if waiting(run) == "blockers" else run.phase


def status_lines(run: Run, *, alive: bool = False) -> list[str]:
    told = [f"{run.id}  {phase(run)}" + (f"  {short(run.issue.title, 70)}" if run.issue else "")]
    for name, work in run.works.items():
        attempt = f"attempt {work.attempt}" if work.attempt else "not started"
        stage = "paused" if work.paused else work.stage
        told.append(f"  {name:<16} {stage:<12} {attempt:<12} {safe(work.spec.worker)}")
    for f in run.open_findings():
        told.append(f"  finding {f.id} {f.severity} {safe(f.path)}:{f.line} {short(f.title, 60)}")
    told += [f"  {line}" for line in report_cost.lines(run)]
    told += [f"  {line}" for line in next_lines(run, alive=alive)]
    return [safe(line) for line in told]


def next_lines(run: Run, *, alive: bool = False) -> list[str]:
    """What a person can do now, or what the engine would do next."""
    failed = [f"the forge does not have {key}: {short(why, 200)}" for key, why in run.outside.failed.items()]
    return [safe(line) for line in (*failed, *_next(run, alive))]


def _next(run: Run, alive: bool) -> list[str]:
    if run.over:
        return [f"over: {run.phase}"] + (
            [f"the work is on orchgit/{run.id}/integration"] if run.phase == "completed" else []
        )  # fmt: skip
    need = waiting(run)
    if need == "questions":
        asked = [f"  {number}. {short(q, 400)}" for number, q in enumerate(run.questions, 1)]
        count = f"{len(run.questions)} questions" if len(run.questions) > 1 else "1 question"
        return [f"waits for answers: {count}", *asked, f'orchgit answer {run.id} "…" for each, in order']
    if need == "approval" and run.proposal:
        return [
            f"waits for approval of plan v{run.proposal.version} ({run.proposal.digest[:12]})",
            f'orchgit plan {run.id}    orchgit approve {run.id}    orchgit reject {run.id} --why "…"',
        ]
    if need == "blockers":
        lines = []
        for b in run.open_blockers():
            lines += [f"blocker {b.id} {b.about}: {short(b.text, 400)}", f"  {describe(run, b)}"]
        return lines
    if need == "review":
        names = awaited(run)
        listed = [f"  {n}: {run.outside.posted[f'change/{n}'].url}" for n in names]
        return [
            f"waits for a human's approval of {many(len(names), 'pull request')}", *listed,
            f"then: orchgit ship {run.id}    or stay with it: orchgit ship {run.id} --wait",
        ]  # fmt: skip
    step = advance(run)
    if step is not None:
        return [f"next: {step.type}"]
    waits = ", ".join(sorted(_pending_words(ev) for ev in run.pending.values()))
    lines = [f"waits for: {waits}" if waits else "nothing is due"]
    for wait in run.waits.values():
        lines.append(f"{wait.member} waits until {clock(wait.until)} for {wait.backend}: {short(wait.why)}")
    lines += [f"waits for a person, {who}: orchgit work {run.id}/{name}" for name, who in by_hand(run)]
    for name, work in run.works.items():
        if work.paused:
            target = f"{run.id}/{name}"
            lines += [
                f"paused: {name} touched {short(work.paused)}, outside its scope",
                f"  orchgit resume {target} lets it go on    orchgit abort {target} stops this attempt",
            ]
    return lines if alive else [*lines, f"no engine is alive: orchgit resume {run.id}"]


def by_hand(run: Run) -> list[tuple[str, str]]:
    """(assignment, worker) of those whose worker is a person, and who work now."""
    people = {m.name for m in run.started.roster if m.backend == "human"} if run.started else set()
    return [(n, w.spec.worker) for n, w in run.works.items() if w.stage == "working" and w.spec.worker in people]


def _pending_words(event: e.Event) -> str:
    about = getattr(event.body, "assignment", "") or getattr(event.body, "reviewer", "")
    return f"{event.body.type} {about}".strip()


def status_json(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "phase": run.phase,
        "seq": run.seq,
        "waiting": waiting(run),
        "issue": run.issue.title if run.issue else None,
        "base": run.started.base if run.started else None,
        "tip": run.tip,
        "scripted": bool(run.started and run.started.scripted),
        "plan": {"version": run.plan_version, "digest": run.plan_digest} if run.plan else None,
        "questions": list(run.questions),
        "assignments": {
            n: {
                "stage": w.stage, "paused": w.paused, "worker": w.spec.worker, "attempt": w.attempt,
                "counted": w.counted, "head": w.head, "base": w.base, "depends_on": list(w.spec.depends_on),
            }
            for n, w in run.works.items()
        },
        "findings": [encode(f) for f in run.findings],
        "blockers": [
            {"id": b.id, "kind": b.kind, "about": b.about, "text": b.text, "open": b.open} for b in run.blockers
        ],
        "pull_requests": [
            {"about": about, "number": p.number, "url": p.url, "approved": approved(run, about)}
            for about, p in changes(run)
        ],
        "pending": [{"seq": s, "type": ev.body.type} for s, ev in run.pending.items()],
        "waits": [
            {"agent": w.member, "backend": w.backend, "until": w.until, "why": w.why} for w in run.waits.values()
        ],
        "spent": report_cost.as_json(run),
        "next": next_lines(run),
    }  # fmt: skip


# -- the end ---------------------------------------------------------------------------------------------


def markdown(run: Run, log: Sequence[e.Event]) -> str:
    """The report: what was asked, what was done, by whom, what was found, what it cost, what a human should look at."""
    title = safe(run.issue.title) if run.issue else run.id
    parts = [f"# {title}", f"Run `{run.id}`: **{run.phase}**."]
    if run.started and run.started.scripted:
        parts.append("Agents were **scripted**: no model was called.")
    if run.synthesis:
        parts += [
            safe(run.synthesis.summary, lines=True),
            "## Totals, counted from git",
            totals(run.synthesis.totals) + ".",
        ]
    if run.works:
        rows = ["| assignment | worker | stage | attempts | commit |", "| --- | --- | --- | --- | --- |"]
        for n, w in run.works.items():
            rows.append(f"| {n} | {safe(w.spec.worker)} | {w.stage} | {len(w.attempts)} | `{id7(w.head)}` |")
        parts += ["## Assignments", "\n".join(rows)]
    opened = [f"- {about}: {safe(p.url)}" for about, p in changes(run)]
    if opened:
        parts += ["## Pull requests", "\n".join(opened)]
    reviews = [ev.body for ev in log if isinstance(ev.body, e.ReviewReported)]
    if reviews:
        listed = [
            f"- round {r.round}, {safe(r.reviewer)}: "
            + (
                "clean, no findings"
                if not r.findings and not r.fixed
                else f"{len(r.findings)} new, {len(r.fixed)} fixed"
            )
            for r in reviews
        ]
        listed += [
            f"- **{f.id}** {f.severity}, {f.state}: `{safe(f.path)}:{f.line}` {short(f.title)}" for f in run.findings
        ]
        parts += ["## Review", "\n".join(listed)]
    if run.synthesis and run.synthesis.review_by_human:
        parts += ["## For a human to look at", "\n".join(f"- {short(i, 300)}" for i in run.synthesis.review_by_human)]
    if run.spent:
        parts += ["## Cost", safe(report_cost.table(run), lines=True)]
    if not run.over:
        parts += ["## Next", "\n".join(f"- {line}" for line in next_lines(run))]
    return safe("\n\n".join(parts) + "\n", lines=True)
