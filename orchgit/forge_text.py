"""What stands on a forge about a run, in Markdown: the plan, the progress, pull requests, reviews. Text in, text out.

What agents, issues and people wrote is data here too: it must not close an issue, call a person, hide behind a comment
of HTML, give an order to ourselves or break a table. `plain` takes the meaning out of it; `code` fences it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from orchgit.core import events as e
from orchgit.core import forge
from orchgit.core.plan import Plan, order
from orchgit.core.review import Finding
from orchgit.core.run import Run, Work
from orchgit.forge.markdown import plain, visible
from orchgit.git import merges

MAX_TEXT = 6000  # characters of one text of somebody else's
OUTPUT = 1500  # characters of what a check printed
MARKS = {"completed": "✅", "aborted": "⛔", "merged": "✅", "accepted": "☑️", "at work": "🔨", "verifying": "🔎",
         "again": "🔁"}  # fmt: skip


# -- other people's words --------------------------------------------------------------------------------


def quote(text: str) -> str:
    """A text of several lines, none of which means anything."""
    lines = visible(text.strip()[:MAX_TEXT]).split("\n")
    return "\n".join(f"> {plain(line, 2000)}".rstrip() for line in lines)


def code(text: str, kind: str = "text") -> str:
    """In a fence that is longer than any in it."""
    inner = visible(text.strip("\n"))
    longest = max((len(run) for run in re.findall(r"`+", inner)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{inner}\n{fence}"


def _inline(text: str) -> str:
    """A path or a command, as code in a line: a backtick in it would end it."""
    shown = plain(text, 200)
    return f"<code>{shown}</code>"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _list(items: Iterable[str]) -> str:
    return "<br>".join(_inline(i) for i in items) or "–"


def id10(oid: str) -> str:
    return oid[:10]


# -- the plan --------------------------------------------------------------------------------------------


def graph(plan: Plan, stages: Mapping[str, str] | None = None) -> str:
    """Who comes after whom. Nodes are numbered: a name could be a word of Mermaid's."""
    listed = order(plan)
    number = {a.id: n for n, a in enumerate(listed)}
    lines = ["flowchart LR"]
    for a in listed:
        stage = f"<br>{stages[a.id]}" if stages and a.id in stages else ""
        lines.append(f'  n{number[a.id]}["{_label(a.id)}{stage}"]')
    lines += [f"  n{number[d]} --> n{number[a.id]}" for a in listed for d in a.depends_on]
    return code("\n".join(lines), "mermaid")


def _label(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else f"#{ord(c)};" for c in visible(text)[:60])


def plan_note(run: Run) -> str:
    """The plan as it is to be approved, and what to write under it."""
    proposal = run.proposal
    assert proposal is not None
    plan, digest, base = proposal.plan, proposal.digest[:12], run.started.base if run.started else ""
    rows = [
        (f"**{plain(a.id)}**<br>{plain(a.title)}", plain(a.worker), _list((*a.allow, *(f"not {d}" for d in a.deny))),
         plain(", ".join(a.depends_on)) or "–", _list(a.checks))
        for a in order(plan)
    ]  # fmt: skip
    tasks = "\n\n".join(f"**{plain(a.id)}**\n\n{quote(a.task)}" + _interface(a.interface) for a in order(plan))
    loose = [plain(a.id) for a in order(plan) if not a.checks]
    parts = [
        f"### Plan v{proposal.version} of run `{run.id}`",
        f"Goal: {plain(plan.goal, 1000)}",
        _table(("assignment", "worker", "may write", "after", "checks"), rows),
        graph(plan),
        f"No checks: {', '.join(loose)}. Only the gate and the verdict stand before their merge." if loose else "",
        _folded("What each worker is told", tasks),
        f"Its digest is `{proposal.digest}`, on commit `{base}`. Nothing runs before "
        "somebody who may write to this repository says so, here or at the terminal:",
        code(f"/orchgit approve {digest}"),
        "or, in place of it, what should be different:",
        code("/orchgit reject WORDS"),
        "_A comment that was edited is not heard; write a new one._",
    ]
    return "\n\n".join(p for p in parts if p)


def _interface(text: str) -> str:
    return f"\n\nInterface to keep to:\n\n{quote(text)}" if text else ""


def questions_note(run: Run) -> str:
    listed = "\n".join(f"{n}. {plain(q, 1500)}" for n, q in enumerate(run.questions, 1))
    return "\n\n".join([
        f"### Before it plans, run `{run.id}` asks", listed,
        "To answer, write in one comment or in several, each line of its own:",
        code("\n".join(f"/orchgit answer {n} WORDS" for n in range(1, len(run.questions) + 1))),
    ])  # fmt: skip


# -- the progress ----------------------------------------------------------------------------------------


def progress_note(run: Run, phase: str) -> str:
    """The one comment that is edited in place. `phase`: where it stands, or how it is about to end."""
    plan = run.plan
    assert plan is not None
    stages = {n: forge.stage(w) for n, w in run.works.items()}
    rows = [
        (plain(a.id), plain(a.worker), f"{MARKS.get(stages[a.id], '▫️')} {stages[a.id]}", str(run.works[a.id].attempt),
         _link(run, a.id) or "–")
        for a in order(plan)
    ]  # fmt: skip
    parts = [
        f"### Run `{run.id}`: {MARKS.get(phase, '▶️')} {phase}",
        _table(("assignment", "worker", "stage", "attempt", "pull request"), rows),
        graph(plan, stages),
    ]
    for blocker in run.open_blockers():
        if blocker.about != "forge":
            # More scope is granted where the engine is: it is not for a comment to widen what a worker may write.
            ways = f"orchgit grant {run.id}/{blocker.about}" if blocker.kind == "scope" else (
                f"/orchgit answer {blocker.id} WORDS"
            )  # fmt: skip
            head = f"**A human is needed, {blocker.id}, about {plain(blocker.about)}:**"
            parts += [head, quote(blocker.text), code(ways)]
    if run.findings:
        listed = [
            (f.id, f.severity, _inline(f"{f.path}:{f.line}" if f.line else f.path), plain(f.title), f.state)
            for f in run.findings
        ]  # fmt: skip
        parts.append(_table(("finding", "severity", "where", "what", "state"), listed))
    last = _link(run, forge.LAST)
    if last:
        parts.append(f"All of it: {last}")
    if run.synthesis and phase in ("shipping", "completed"):
        parts.append(_synthesis(run))
    return "\n\n".join(parts)


def _link(run: Run, about: str) -> str:
    there = run.outside.posted.get(f"change/{about}")
    return f"[{there.number}]({there.url})" if there else ""


def _synthesis(run: Run) -> str:
    done = run.synthesis
    assert done is not None
    t = done.totals
    counted = (
        f"Counted from git: {t.files_created} files created, {t.files_changed} changed, {t.files_deleted} deleted, "
        f"+{t.lines_added} −{t.lines_deleted} lines, {t.tests_added} tests added, {t.assignments} assignments in "
        f"{t.attempts} attempts."
    )
    look = "\n".join(f"- {plain(i, 500)}" for i in done.review_by_human)
    return "\n\n".join(
        p for p in (quote(done.summary), counted, f"For a human to look at:\n{look}" if look else "") if p
    )


# -- pull requests ---------------------------------------------------------------------------------------


def change_title(run: Run, about: str) -> str:
    """A merge that squashes takes it for the message of its commit, so nothing in it means anything there either."""
    last = run.issue.title if run.issue else f"Run {run.id}"
    title = last if about == forge.LAST else f"{about}: {run.works[about].spec.title}"
    return merges.inert(" ".join(visible(title).split()))[:200]


def change_body(run: Run, about: str, log: Sequence[e.Event], output: Mapping[str, str]) -> str:
    """`output`: what checks printed, by its digest in the log."""
    if about == forge.LAST:
        return _last_body(run)
    work = run.works[about]
    spec, report = work.spec, work.report
    above = [f"- {_link(run, d) or 'not opened yet'}: {plain(d)}" for d in spec.depends_on]
    parts = [
        f"One assignment of run `{run.id}`" + (f", for #{run.settings.issue}." if run.settings.issue else "."),
        "## Assignment", quote(spec.task) + _interface(spec.interface),
        "## Scope", f"May write: {_list(spec.allow)}" + (f"<br>not: {_list(spec.deny)}" if spec.deny else ""),
        "## Evidence", _evidence(run, work, log), *_checks(work, output),
        *(["## What its worker says", quote(report.summary)] if report else []),
        *(["## Built on", "\n".join(above)] if above else []),
        "## How it goes on", _how(work.head),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _how(head: str) -> str:
    return (
        "An approving review of this commit lets it be merged; a review that requests changes goes to its worker, as "
        "feedback for the next attempt. Who opened this, and may not approve it, writes a comment:\n\n"
        + code(f"/orchgit approve {id10(head)}")
        + "\n\nor `/orchgit reject WORDS`."
    )


def _evidence(run: Run, work: Work, log: Sequence[e.Event]) -> str:
    name = work.spec.id
    gate = next((ev for ev in reversed(log) if isinstance(ev.body, e.GatePassed) and ev.body.assignment == name), None)
    spent, unknown = _cost(name, log)
    rows = [("commit", f"`{work.head}`")]
    if gate is not None and isinstance(gate.body, e.GatePassed):
        rows.append(("gate", f"passed: {gate.body.files} files, all in its scope (event {gate.seq})"))
    rows.append(("checks", f"{len(work.results)} passed on the merge result" if work.results else "none in the plan"))
    ends = "<br>".join(f"{a.number}: {plain(a.end or 'under way', 200)}" for a in work.attempts)
    rows += [("attempts", ends), ("cost", "unknown" if unknown else f"${spent / 1_000_000:.2f}"),
             ("plan", f"v{run.plan_version}, `{run.plan_digest}`")]  # fmt: skip
    return _table(("", ""), rows)


def _cost(name: str, log: Sequence[e.Event]) -> tuple[int, bool]:
    """Micro-dollars that its worker's agents cost, and whether a part of it is not known."""
    asked = {ev.seq for ev in log if isinstance(ev.body, e.AgentRequested) and ev.body.assignment == name}
    costs = [ev.body.cost_micro for ev in log if isinstance(ev.body, e.AgentExited) and ev.cause in asked]
    return sum(c or 0 for c in costs), any(c is None for c in costs)


def _checks(work: Work, output: Mapping[str, str]) -> list[str]:
    told = []
    for r in work.results:
        tests = f", {r.tests} tests" if r.tests is not None else ""
        title = f"{_inline(r.command)} passed in {r.duration_ms} ms{tests}"
        told.append(_folded(title, code(output.get(r.output, "")[-OUTPUT:] or "(printed nothing)")))
    return told


def _last_body(run: Run) -> str:
    works = "\n".join(f"- {_link(run, n) or plain(n)}: {plain(w.spec.title)}" for n, w in run.works.items())
    closes = f"Closes #{run.settings.issue}." if run.settings.issue else ""
    parts = [
        f"All of run `{run.id}`: what was merged, verified as a whole and reviewed. {closes}".strip(),
        _synthesis(run) if run.synthesis else "",
        f"## What it is made of\n\n{works}",
        f"The log is on `refs/orchgit/runs/{run.id}`; `orchgit audit {run.id}` checks it against these commits.",
        "## How it goes on", _how(run.tip),
    ]  # fmt: skip
    return "\n\n".join(p for p in parts if p)


def status(run: Run, about: str, context: str, log: Sequence[e.Event]) -> str:
    """At most 140 characters are shown."""
    works = list(run.works.values()) if about == forge.LAST else [run.works[about]]
    if context == "scope":
        names = {w.spec.id for w in works}
        gates = {ev.body.assignment: ev.body for ev in log if isinstance(ev.body, e.GatePassed)}
        files = sum(g.files for n, g in gates.items() if n in names)
        return f"{files} files, all in scope of the approved plan v{run.plan_version}"
    if context == "checks":
        count = len(run.all_checks()) if about == forge.LAST else len(works[0].spec.checks)
        return f"{count} commands passed on the merge result" if count else "the plan has no checks"
    opened = [f for f in run.findings if f.state == "open"]
    left = f"{len(opened)} findings stand, none of them blocks" if opened else "no finding is open"
    return f"read by {', '.join(run.reviewers()) or 'no reviewer'}: {left}"[:140]


def review_body(found: Sequence[Finding]) -> str:
    return f"{len(found)} findings of this run's reviewers that were let stand:"


def finding_words(finding: Finding) -> str:
    waived = ", waived by a human" if finding.state == "waived" else ""
    said = f"\n\n{quote(finding.detail)}" if finding.detail else ""
    return f"**{finding.id}, {finding.severity}{waived}** ({plain(finding.reviewer)}): {plain(finding.title)}{said}"


def merge_message(run: Run) -> tuple[str, str]:
    """Title and text of the last merge, which the forge makes."""
    title = run.issue.title if run.issue else f"Run {run.id}"
    said = run.synthesis.summary[:2000] if run.synthesis else ""
    subject, _, body = merges.message(visible(title), visible(said), {"Orchgit-Run": run.id}).partition("\n\n")
    return subject, body.rstrip()
