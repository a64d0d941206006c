"""Laws of the plan: what was approved, by whom, and that nothing ran before or beside it."""

from __future__ import annotations

from collections.abc import Iterator

from orchgit.core import events as e
from orchgit.core.audit.model import Doubt, Facts, Found, Law, Note, Reading, Said


def _approved_first(reading: Reading, facts: Facts) -> Iterator[Said]:
    approved = None
    for event in reading.events:
        body = event.body
        if isinstance(body, e.PlanApproved):
            approved = body.digest
            if body.mode == "human" and event.actor.kind != "human":
                yield Found(f"event {event.seq}", f"approved as by a human, recorded by {event.actor.kind}")
            if body.mode == "policy":
                yield Note(f"plan v{body.version} was approved by policy (--yes), not by a human")
        elif (
            isinstance(body, e.AssignmentStarted | e.CellRequested | e.AgentRequested | e.MergePrepared)
            and not approved
        ):
            yield Found(f"event {event.seq}", f"{body.type} before any plan was approved")


def _digests(reading: Reading, facts: Facts) -> Iterator[Said]:
    """An approval names by digest the very plan that was proposed last; the plan in force has its own digest."""
    shown: e.PlanProposed | None = None
    for event in reading.events:
        body = event.body
        if isinstance(body, e.PlanProposed):
            shown = body
            if e.plan_digest(body.plan) != body.digest:
                yield Found(f"event {event.seq}", f"the plan's digest is {e.plan_digest(body.plan)}, not {body.digest}")
        elif isinstance(body, e.PlanApproved) and (
            shown is None or (body.version, body.digest) != (shown.version, shown.digest)
        ):
            what = f"v{shown.version} {shown.digest}" if shown else "nothing"
            yield Found(f"event {event.seq}", f"it approves v{body.version} {body.digest}; proposed last was {what}")
    run = reading.run
    if run.plan is not None and e.plan_digest(run.plan) != run.plan_digest:
        yield Found(f"event {run.seq}", "the plan in force does not have the digest that was approved")


def _versions(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The plan in force changes by an event that names a newer version, and never back to an older one."""
    newest, digest = 0, ""
    after = (*reading.before[1:], reading.run)[: len(reading.events)]
    for event, run in zip(reading.events, after, strict=True):
        if run.plan_digest == digest:
            continue
        version = getattr(event.body, "version", None)
        if version is None or getattr(event.body, "digest", "") != run.plan_digest:
            yield Found(f"event {event.seq}", f"the plan in force changed by {event.body.type}, which names none")
        elif version <= newest:
            yield Found(f"event {event.seq}", f"v{version} is put in force after v{newest}: an older approval re-used")
        newest, digest = max(newest, version or 0), run.plan_digest


def _signatures(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Of approvals, where there are any: by a key that the base commit allows, over this very plan."""
    started = reading.run.started
    for event in reading.events:
        if not isinstance(event.body, e.PlanApproved) or started is None:
            continue
        body = event.body
        if not body.signature:
            yield Note(f"the approval of v{body.version} is not signed: who {event.actor.id} is, nothing shows")
            continue
        statement = e.approval_statement(event.run, started.base, body.version, body.digest)
        who = facts.signed(started.base, statement, body.signature)
        if who is None:
            yield Doubt(f"the signature of event {event.seq} cannot be checked here")
        elif not who:
            yield Found(
                f"event {event.seq}", "the signature is of no key that the base commit allows, or of another plan"
            )
        else:
            yield Note(f"the approval of v{body.version} is signed by {who}")


LAWS = (
    Law("log.approval", "Nothing ran before the plan was approved.", _approved_first, "witnessed"),
    Law("plan.digests", "Every approval names, by its digest, the plan that was shown last.", _digests),
    Law("plan.versions", "A plan in force is only ever followed by a newer one.", _versions),
    Law("plan.signatures", "Every signed approval is signed by a key that the base commit allows.", _signatures,
        needs_git=True),
)  # fmt: skip
