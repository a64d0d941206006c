"""Each law by itself, on a log that `evolve` would have refused: a fault of the engine's is caught twice.

An honest reading is taken, and events in it are exchanged as if the engine had had a fault; the law alone is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchgit.core import events as e
from orchgit.core.audit import LAWS, Doubt, Found, Note, Reading, read
from orchgit.core.audit.model import Said
from tests.core.test_audit import honest
from tests.core.world import RUN, World, lines_of, oid

Change = Callable[[e.Event], e.Event]


def reading() -> Reading:
    return read(RUN, lines_of(honest().log))


def asked(law: str, touched: Reading, facts: Any = None) -> list[Said]:
    check = next(entry.check for entry in LAWS if entry.id == law)
    return list(check(touched, facts or honest().world))


def first(cls: type[e.Body], **fields: Any) -> Callable[[Reading, Change], Reading]:
    """Change the first event of a type, with these values."""

    def touch(whole: Reading, change: Change) -> Reading:
        at = next(
            ev.seq for ev in whole.events
            if isinstance(ev.body, cls) and all(getattr(ev.body, k) == v for k, v in fields.items())
        )  # fmt: skip
        events = tuple(change(ev) if ev.seq == at else ev for ev in whole.events)
        return replace(whole, events=events)

    return touch


def body(**fields: Any) -> Change:
    return lambda event: replace(event, body=replace(event.body, **fields))  # type: ignore[type-var]


def actor(kind: Any, name: str = "x") -> Change:
    return lambda event: replace(event, actor=e.Actor(kind, name))


def time(year: str) -> Change:
    return lambda event: replace(event, time=f"{year}-01-01T00:00:00.000Z")


def left_out(event: e.Event) -> e.Event:
    return replace(event, body=e.ShipLeft())


MERGE = {"land": "merge"}
REVIEWER = "security-reviewer"
FAULTS: dict[str, tuple[str, Callable[[Reading, Change], Reading], Change, str]] = {
    "time goes back": ("log.time", first(e.PlanProposed), time("2020"), "2020"),
    "an outcome of nothing": ("state.requests", first(e.GatePassed), lambda v: replace(v, cause=0), "asked for none"),
    "a second outcome": ("state.requests", first(e.CellMade), lambda v: replace(v, cause=2), "or has one"),
    "an attempt left out": ("state.attempts", first(e.AssignmentStarted), body(attempt=2), "attempt 2 follows 0"),
    "a gate of another attempt": ("state.attempts", first(e.GatePassed), body(attempt=7), "not the current one"),
    "what is merged is not gated": ("state.attempts", first(e.MergePrepared, **MERGE), body(commit="x"), "x is merged"),
    "work before approval": ("log.approval", first(e.PlanApproved), left_out, "before any"),
    "approved as by a human": ("log.approval", first(e.PlanApproved), actor("engine"), "recorded by engine"),
    "another plan's digest": ("plan.digests", first(e.PlanProposed), body(digest="0" * 64), "the plan's digest is"),
    "an older plan approved": ("plan.digests", first(e.PlanApproved), body(version=0), "proposed last was v1"),
    "another tree than was checked": ("checks.tree", first(e.MergePrepared, **MERGE), body(tree="t"), "tree t on"),
    "checks on another tip": ("checks.tree", first(e.ChecksPassed), body(onto="t"), "were of"),
    "no checks at all": ("checks.tree", first(e.ChecksPassed), left_out, "were of nothing"),
    "one check left out": ("checks.plan", first(e.ChecksPassed), body(results=()), "not what the approved plan has"),
    "a review of less": ("review.covers", first(e.ReviewReported), body(tip=oid("elsewhere")), "read"),
    "a review with a gap": ("review.covers", first(e.ReviewRequested), body(since=oid("elsewhere")), "read from"),
    "a worker reviews": ("review.roles", first(e.ReviewReported), body(reviewer="api-agent"), "api-agent reviewed"),
    "somebody else reports": ("review.roles", first(e.ReviewReported), actor("agent", "lead"), "came from lead"),
    "closed by nobody": ("review.findings", first(e.FindingFixed), body(finding="F99"), "no reviewer said so"),
    "an outcome by a human": ("who.actors", first(e.GatePassed), actor("human"), "it is for engine"),
    "a decision by an agent": ("who.actors", first(e.AssignmentStarted), actor("agent"), "it is for engine"),
    "an input by the engine": ("who.actors", first(e.IssueRead), actor("engine"), "it is for human"),
    "a report by a reviewer": ("who.actors", first(e.AgentReported), actor("agent", REVIEWER), "who is reviewer"),
    "a report by a stranger": ("who.actors", first(e.AgentReported), actor("agent", "eve"), "not on the roster"),
    "an agent in another role": ("who.agents", first(e.AgentStarted), body(role="reviewer"), "is not that"),
    "a cell not tried": ("who.sandbox", first(e.CellMade), body(canary=()), "not tried out"),
    "gated on other ground": ("git.work", first(e.GatePassed), body(tree="t"), "t was gated"),
    "at another time": ("git.identity", first(e.GateRequested), time("2031"), "2031"),
    "a merge left out": ("checks.all", first(e.MergeDone, **MERGE), body(new="x"), ""),
}  # fmt: skip


@pytest.mark.parametrize(("law", "touch", "change", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_engine_is_seen_by_the_law_about_it(
    law: str, touch: Callable[[Reading, Change], Reading], change: Change, words: str
) -> None:
    whole = reading()
    assert not [s for s in asked(law, whole) if isinstance(s, Found)], "the honest log is not accused"
    touched = touch(whole, change)
    if law == "checks.all":  # of an assignment that was merged only once
        touched = replace(touched, events=tuple(ev for ev in whole.events if not isinstance(ev.body, e.MergeRequested)))
    said = asked(law, touched)
    assert any(words in f"{s.where}: {s.what}" for s in said if isinstance(s, Found)), said


def test_an_older_plan_put_in_force_again_is_an_approval_re_used() -> None:
    whole = reading()
    assert not asked("plan.versions", whole)
    at = next(ev.seq for ev in whole.events if isinstance(ev.body, e.PlanApproved))
    later = next(ev.seq for ev in whole.events if isinstance(ev.body, e.GatePassed))
    again = replace(whole.events[at], seq=later)
    events = tuple(again if ev.seq == later else ev for ev in whole.events)
    other = replace(whole.events[at].body, digest="0" * 64, version=2)  # type: ignore[type-var]
    events = tuple(replace(ev, body=other) if ev.seq == at else ev for ev in events)
    # In force: another plan, v2, up to there; from there on the first one, by its old approval.
    run = whole.run
    before = tuple(replace(r, plan_digest="0" * 64) if at < r.seq + 1 <= later else r for r in whole.before)
    said = asked("plan.versions", replace(whole, events=events, before=before, run=run))
    assert [s for s in said if isinstance(s, Found) and "an older approval re-used" in s.what], said


class Seen(World):
    """The honest world, where some blobs are not what they were."""

    states: dict[str, Any]

    def __init__(self, world: World, states: dict[str, Any]) -> None:
        self.__dict__ = {**world.__dict__, "states": states}

    def blob(self, digest: str) -> Any:
        return self.states.get(digest, "here")

    def signed(self, base: str, statement: bytes, signature: str) -> str | None:
        if signature == "nobody's":
            return ""
        return "ada" if statement.endswith(b"\n") and base == self.base else None


def test_blobs_changed_gone_elsewhere_and_redacted() -> None:
    whole = reading()
    text = next(ev.body.text for ev in whole.events if isinstance(ev.body, e.IssueRead))
    for state, sort in (("changed", Found), ("missing", Found), ("elsewhere", Note)):
        said = asked("log.blobs", whole, Seen(honest().world, {text: state}))
        assert [type(s) for s in said] == [sort], state
    # With an event that says so it is no fault; unless it is still there.
    event = replace(whole.events[-1], body=e.RedactionRecorded(text, "a name"), actor=e.Actor("human", "ada"))
    dropped = replace(whole, events=(*whole.events[:-1], event))
    gone = Seen(honest().world, {text: "missing"})
    assert asked("log.blobs", dropped, gone) == []
    assert [type(s) for s in asked("log.redactions", dropped, gone)] == [Note]
    assert "by ada: a name" in str(asked("log.redactions", dropped, gone))
    assert [type(s) for s in asked("log.redactions", dropped, Seen(honest().world, {}))] == [Found]


def test_a_signature_is_of_somebody_of_nobody_or_cannot_be_asked() -> None:
    whole = reading()
    facts = Seen(honest().world, {})
    sign = first(e.PlanApproved)
    assert [type(s) for s in asked("plan.signatures", whole, facts)] == [Note]
    assert "is signed by ada" in str(asked("plan.signatures", sign(whole, body(signature="hers")), facts))
    assert [type(s) for s in asked("plan.signatures", sign(whole, body(signature="nobody's")), facts)] == [Found]
    unasked = asked("plan.signatures", sign(whole, body(signature="hers")), honest().world)
    assert [type(s) for s in unasked] == [Doubt]


def test_every_law_has_an_id_of_its_own_and_a_sentence() -> None:
    assert len({law.id for law in LAWS}) == len(LAWS)
    for law in LAWS:
        assert law.id.partition(".")[0] in ("log", "state", "git", "plan", "checks", "review", "who")
        assert law.sentence.endswith(".")
        assert law.strength in ("proved", "witnessed", "asserted")
