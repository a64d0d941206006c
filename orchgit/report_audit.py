"""What an audit found, told to people: lines for a terminal, a report in Markdown to file, JSON. Pure."""

from __future__ import annotations

from typing import Any

from orchgit.core import events as e
from orchgit.core.audit import Told
from orchgit.report import id7, many, safe, short
from orchgit.report_cost import by_agent

MEANING = {
    "proved": "follows from the bytes of the log and the objects of git alone",
    "witnessed": "the engine was there and wrote it down; nothing else shows it",
    "asserted": "an agent or a person said so",
}


def tail(told: Told) -> list[str]:
    """How much of the log something outside of it attests."""
    last = len(told.reading.events) - 1
    free = last - told.anchors.here
    lines = [f"the last {many(free, 'event')} {'is' if free == 1 else 'are'} attested by no commit: "
             "who owns this machine can still change them"]  # fmt: skip
    if free == 0:
        lines = ["every event is attested by a commit of this repository"]
    if told.anchors.published < 0:
        lines.append(
            "nothing of it was seen on another machine: its owner could have rewritten log and commits together"
        )
    elif told.anchors.published < last:
        lines.append(f"up to event {told.anchors.published}, a copy was seen on another machine")
    else:
        lines.append("all of it was seen on another machine")
    return lines


def audit_lines(told: Told) -> list[str]:
    reading = told.reading
    broken = f" of {len(reading.events) + reading.unread} could be followed" if reading.unread else ""
    lines = [
        f"run {told.run}: {len(reading.events)} events{broken}, {reading.run.phase} by then; read from {told.source}"
    ]
    for r in told.results:
        lines.append(f"  {r.verdict:<13} {r.law:<16} {r.strength if r.verdict == 'pass' else '':<10} {r.sentence}")
        lines += [f"                {r.why}"] if r.why else []
        lines += [f"    ! {f.where}: {f.what}" for f in r.found]
        lines += [f"    - {note}" for note in r.notes]
    lines += [f"  {line}" for line in tail(told)]
    return [safe(line) for line in (*lines, conclusion(told))]


def conclusion(told: Told) -> str:
    """The last line: yes, no or cannot say, and for a no what came first."""
    broken = [r for r in told.results if r.verdict == "violation"]
    open_ = sum(r.verdict == "inconclusive" for r in told.results)
    if broken:
        first = next((f"{f.where}: {f.what}" for r in broken for f in r.found), broken[0].sentence)
        return f"no: {many(len(broken), 'check')} found a violation, first of all {first}"
    if open_:
        return f"cannot say: {many(open_, 'check')} could not be decided, the others pass"
    return f"yes: all {len(told.results)} checks pass"


def audit_json(told: Told) -> dict[str, Any]:
    return {
        "run": told.run,
        "source": told.source,
        "verdict": told.verdict,
        "events": len(told.reading.events),
        "unread": told.reading.unread,
        "unattested": len(told.reading.events) - 1 - told.anchors.here,
        "attested": {"here": told.anchors.here, "published": told.anchors.published},
        "laws": [
            {
                "law": r.law, "sentence": r.sentence, "verdict": r.verdict, "strength": r.strength, "why": r.why,
                "found": [{"where": f.where, "what": f.what} for f in r.found], "notes": list(r.notes),
            }
            for r in told.results
        ],
    }  # fmt: skip


def audit_markdown(told: Told) -> str:
    """A report that stands alone: what was looked at, what was found, what a pass is worth, and what nobody can say."""
    run = told.reading.run
    title = {"pass": "no violation", "violation": "VIOLATIONS", "inconclusive": "not all could be decided"}
    parts = [f"# Audit of run `{cell(told.run)}`: {title[told.verdict]}"]
    facts = [f"- log: {len(told.reading.events)} events, read from {told.source}; SHA-256 of the last `{run.hash}`"]
    if run.started:
        facts.append(f"- base `{run.started.base}`, tip `{run.tip}`, phase: {run.phase}")
        facts.append(
            f"- written by {cell(run.started.tool)}, git {cell(run.started.git)}, Python {cell(run.started.python)}"
        )
    if run.plan:
        facts.append(f"- plan v{run.plan_version}, SHA-256 `{run.plan_digest}`")
    facts += [f"- {line}" for line in tail(told)]
    parts.append("\n".join(facts))
    bad = [r for r in told.results if r.found]
    if bad:
        listed = [f"- **{r.law}** {cell(f.where)}: {cell(f.what)}" for r in bad for f in r.found]
        parts += ["## Violations", "\n".join(listed)]
    unsure = [r for r in told.results if r.verdict == "inconclusive"]
    if unsure:
        parts += ["## Could not be decided", "\n".join(f"- **{r.law}** {cell(r.why)}" for r in unsure)]
    rows = ["| check | verdict | a pass is | what it says |", "| --- | --- | --- | --- |"]
    rows += [f"| `{r.law}` | {r.verdict} | {r.strength} | {r.sentence} |" for r in told.results]
    parts += ["## Checks", "\n".join(rows), "\n".join(f"- *{word}*: {means}" for word, means in MEANING.items())]
    notes = [f"- **{r.law}** {cell(note)}" for r in told.results for note in r.notes]
    if notes:
        parts += ["## To know", "\n".join(notes)]
    parts += ["## Who did what", "\n".join(_people(told))]
    return safe("\n\n".join(parts) + "\n", lines=True)


def _people(told: Told) -> list[str]:
    """The questions that an auditor asks: who asked, who approved, who wrote, who reviewed, at what cost."""
    rows = ["| event | time | who | what |", "| --- | --- | --- | --- |"]
    for event in told.reading.events:
        body = event.body
        if event.actor.kind in ("human", "policy") or isinstance(body, e.MergeDone | e.ReviewReported | e.GatePassed):
            said = f"{body.type} {getattr(body, 'assignment', '') or getattr(body, 'reviewer', '')}".strip()
            commit = getattr(body, "new", "") or getattr(body, "commit", "")
            said += f" `{id7(commit)}`" if commit else ""
            rows.append(
                f"| {event.seq} | {cell(event.time)} | {event.actor.kind} {cell(event.actor.id)} | {cell(said)} |"
            )
    for name, spent in by_agent(told.reading.run):
        rows.append(f"|  |  | agent {cell(name)} | {many(spent.runs, 'run')}, {spent.cost} |")
    return rows


def cell(text: str) -> str:
    """Text somebody else wrote, in Markdown: on one line, with nothing that Markdown would take for its own."""
    kept = short(text, 400)
    for mark in "\\`*_[]<>|#":
        kept = kept.replace(mark, "\\" + mark)
    return kept
