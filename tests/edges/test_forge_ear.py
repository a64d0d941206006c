"""Who is heard on a forge, and for what: real comments and reviews at the tests' GitHub, read by the real client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchgit import forge_text as text
from orchgit.core import events as e
from orchgit.core.decide import waiting
from orchgit.core.forge import LAST, awaited
from orchgit.core.run import Blocker, Illegal, Posted, Run
from orchgit.core.state import evolve
from orchgit.forge import Forge, Key
from orchgit.forge_in import MAX_ORDERS, Ear, Poller
from tests.core.world import CALM, RUN, USER, Sim, assignment, at, plan_of
from tests.support.forge_stage import Stage, stage

PLAN = plan_of(assignment("api"))
NEVER = "2020-01-01T00:00:00Z"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        made.github.issue("Add billing", by="lea")
        yield made


def posted(run: Run, **there: Posted) -> Run:
    named = {key.replace("_", "/"): value for key, value in there.items()}
    return replace(run, outside=replace(run.outside, posted=named))


def proposed(here: Stage, forge: Forge) -> Run:
    """A run whose plan stands on issue 1."""
    settings = e.Settings(forge="github", repository="h/acme/shop", issue=1, plan="comment")
    sim = Sim(PLAN, 1, CALM, settings).begin()
    while waiting(sim.run) != "approval":
        sim.step()
    note = forge.note(1, Key(RUN, "plan/1"), text.plan_note(sim.run))
    return posted(sim.run, plan_1=Posted(e.ForgeRequested("note", "plan/1", "plan"), note.id, note.url))


def age(here: Stage, comment: int) -> None:
    """As if it had been written long ago, and was edited since."""
    there = next(c for t in here.github.hub.things.values() for c in t.comments if c["id"] == comment)
    there["created_at"] = NEVER


def heard(here: Stage, run: Run) -> list[e.Body]:
    return [d.body for d in Ear(here.forge(), here.told.append).hear(run)]


def test_only_an_unedited_comment_of_who_may_write_below_the_plan_approves_it(here: Stage) -> None:
    hub, forge = here.github, here.forge()
    early = hub.comment(1, "/orchgit approve", by="lea")
    run = proposed(here, forge)
    assert run.proposal is not None
    digest = run.proposal.digest
    hub.comment(1, f"/orchgit approve {digest[:12]}", by="rea")
    hub.comment(1, f"Type this:\n/orchgit approve {digest[:12]}", by="lea")
    age(here, hub.comment(1, f"/orchgit approve {digest[:12]}", by="lea"))
    hub.comment(1, f"/orchgit approve {digest[:5]}", by="lea")
    hub.comment(1, "/orchgit approve 0000000000", by="lea")
    assert heard(here, run) == []
    assert any("rea may not write" in said for said in here.told)
    assert any("edited comment" in said for said in here.told)
    bare = hub.comment(1, "/orchgit approve", by="lea")
    approval = heard(here, run)[0]
    assert isinstance(approval, e.PlanApproved)
    assert (approval.version, approval.digest) == (1, digest)
    assert [(c.id, c.author) for c in approval.comments] == [(f"comment/{bare}", "lea")]
    # Once it was heard it is heard no more; with a second plan shown, the first one's word is not enough.
    assert early < bare
    again = replace(run, outside=replace(run.outside, heard=frozenset({f"comment/{bare}"})))
    assert heard(here, again) == []
    old = run.outside.posted["plan/1"]
    later = hub.comment(1, f"/orchgit approve {digest}", by="lea")
    two = posted(run, plan_0=replace(old, number=old.number - 1), plan_1=old)
    named = heard(here, two)
    assert isinstance(named[0], e.PlanApproved)
    assert [c.id for c in named[0].comments] == [f"comment/{later}"]


def test_the_plan_on_the_issue_was_edited_by_somebody(here: Stage) -> None:
    run = proposed(here, here.forge())
    here.github.comment(1, "/orchgit approve", by="lea")
    assert len(heard(here, run)) == 1
    age(here, run.outside.posted["plan/1"].number)
    assert heard(here, run) == []


def test_what_the_engine_wrote_is_no_order_and_the_token_s_own_person_is_heard(here: Stage) -> None:
    forge = here.forge()
    run = proposed(here, forge)
    forge.note(1, Key(RUN, "progress"), "/orchgit approve")
    assert heard(here, run) == []
    here.github.comment(1, "/orchgit reject Too large.", by="bot")
    assert heard(here, run)[0] == e.PlanRejected(1, "Too large.", heard(here, run)[0].comments)  # type: ignore[attr-defined]


def test_a_comment_is_heard_once_whatever_the_poller_thinks(here: Stage) -> None:
    run = proposed(here, here.forge())
    here.github.comment(1, "/orchgit reject No.", by="lea")
    said = heard(here, run)[0]
    event = e.seal(e.Draft(said, USER), run=RUN, seq=run.seq + 1, time=at(99), prev=run.hash)
    assert evolve(run, event).phase == "planning"
    before = replace(run, outside=replace(run.outside, heard=frozenset({said.comments[0].id})))  # type: ignore[attr-defined]
    with pytest.raises(Illegal, match="heard before"):
        evolve(before, event)


def test_two_blockers_in_one_comment(here: Stage) -> None:
    run = proposed(here, here.forge())
    blockers = tuple(Blocker(f"B{n}", "agent", "api", "Which one?") for n in (1, 2))
    run = replace(run, blockers=(*blockers, Blocker("B3", "scope", "api", "more")))
    comment = here.github.comment(1, "\n".join(f"/orchgit answer B{n} the {n}th" for n in (1, 2, 3, 4)), by="lea")
    said = [b for b in heard(here, run) if isinstance(b, e.BlockerAnswered)]
    assert [(b.blocker, b.text, b.comments[0].id) for b in said] == [
        ("B1", "the 1th", f"comment/{comment}"), ("B2", "the 2th", f"comment/{comment}.1"),
    ]  # fmt: skip


def test_a_comment_of_many_orders_is_told_of_once_and_heard_in_part(here: Stage) -> None:
    run = proposed(here, here.forge())
    here.github.comment(1, "/orchgit approve\n" * 3000, by="rea")
    assert heard(here, run) == []
    assert len([said for said in here.told if "rea may not write" in said]) == 1
    assert len(here.told) == 2
    here.github.comment(1, "/orchgit reject x\n" * 3000, by="lea")
    assert len(heard(here, run)) == MAX_ORDERS


def test_what_the_disk_does_not_take_is_told_once_and_taken_later(here: Stage) -> None:
    run, tries = proposed(here, here.forge()), []
    taken: list[e.Body] = []

    def submit(draft: e.Draft) -> None:
        tries.append(draft)
        if len(tries) <= 2:
            raise OSError(28, "No space left on device")
        taken.append(draft.body)

    here.github.comment(1, "/orchgit reject No.", by="lea")
    poller = Poller(Ear(here.forge(), here.told.append), lambda: run, submit, here.told.append)
    for _ in range(4):
        poller.once()
    assert [type(body) for body in taken] == [e.PlanRejected]
    assert len(tries) == 3
    assert [said for said in here.told if "No space left" in said] == [
        "what was said at h/acme/shop cannot be taken. [Errno 28] No space left on device"
    ]


def opened(here: Stage, forge: Forge) -> tuple[Run, int, str]:
    """A run that waits for the approval of one pull request, which is really there."""
    settings = e.Settings(forge="github", repository="h/acme/shop", ship="pr")
    sim = Sim(PLAN, 1, CALM, settings).begin()
    while waiting(sim.run) != "review":
        sim.step()
    commit = here.push("api", {"b.txt": "new\n"}, on="main")
    number = here.github._as("bot", "post_pull", {"title": "api", "head": "api", "base": "main"})["number"]
    work = replace(sim.run.works["api"], head=commit)
    run = replace(sim.run, works={"api": work})
    there = {
        k: replace(p, request=replace(p.request, head=commit), number=number) for k, p in run.outside.posted.items()
    }
    return replace(run, outside=replace(run.outside, posted=there)), number, commit


def test_a_review_counts_for_the_commit_that_was_read_and_a_comment_names_it(here: Stage) -> None:
    hub = here.github
    run, number, commit = opened(here, here.forge())
    hub.review(number, "COMMENT", "hm", by="lea")
    hub.review(number, "APPROVE", "", by="rea")
    hub.comment(number, "/orchgit approve", by="bot")
    assert heard(here, run) == []
    hub.comment(number, f"/orchgit approve {commit[:10]}", by="bot")
    hub.review(number, "APPROVE", "", by="lea")
    said = [b for b in heard(here, run) if isinstance(b, e.ChangeSeen)]
    assert [(b.about, b.what, b.commit, b.comments[0].author) for b in said] == [
        ("api", "approved", commit, "lea"), ("api", "approved", commit, "bot"),
    ]  # fmt: skip
    # Somebody pushes: what was said is of another state, and that is told first.
    pushed = here.push("api", {"b.txt": "newer\n"})
    said = [b for b in heard(here, run) if isinstance(b, e.ChangeSeen)]
    assert [(b.what, b.commit) for b in said] == [("pushed", pushed)]
    work = replace(run.works["api"], head=pushed)  # as if it were ours: an approval of what was before is none of it
    there = {k: replace(p, request=replace(p.request, head=pushed)) for k, p in run.outside.posted.items()}
    ours = replace(run, works={"api": work}, outside=replace(run.outside, posted=there))
    assert heard(here, ours) == []
    hub.edit(number, by="lea", state="closed")
    said = [b for b in heard(here, run) if isinstance(b, e.ChangeSeen)]
    assert [(b.what, b.about) for b in said] == [("closed", "api")]
    assert LAST not in {b.about for b in said}


def test_what_was_merged_there_is_the_runs_only_if_its_head_was(here: Stage) -> None:
    """Else it is a human's to look at: the run has not shipped, and its issue stays open."""
    sim = Sim(PLAN, 1, CALM, e.Settings(forge="github", repository="h/acme/shop", issue=1, ship="pr")).begin()
    while awaited(sim.run) != (LAST,):
        sim.step()
    run = sim.run
    ours = here.push("whole", {"b.txt": "new\n"}, on="main")
    number = here.github._as("bot", "post_pull", {"title": "all", "head": "whole", "base": "main"})["number"]
    there = run.outside.posted[f"change/{LAST}"]
    there = replace(there, request=replace(there.request, head=ours), number=number)
    posts = {**run.outside.posted, f"change/{LAST}": there}
    run = replace(run, tip=ours, outside=replace(run.outside, posted=posts, approved={LAST: ours}))
    evil = here.push("whole", {"evil.txt": "evil\n"})
    merge = here.github.merge(number, by="lea")

    (said,) = heard(here, run)
    event = e.seal(e.Draft(said, USER), run=RUN, seq=run.seq + 1, time=at(99), prev=run.hash)
    after = evolve(run, event)
    assert after.shipped == ""
    (trouble,) = after.trouble
    assert trouble[:2] == ("ship", "ship")
    assert "pushed onto the pull request of integration" in trouble[2]
    assert f"merged with that, as {merge[:10]}" in trouble[2]
    assert isinstance(said, e.ChangeSeen)
    assert said.commit == evil
    assert heard(here, after) == []
    # The same, merged as it was: shipped.
    same = replace(run, tip=evil, outside=replace(run.outside, posted={**posts, f"change/{LAST}": replace(
        there, request=replace(there.request, head=evil))}))  # fmt: skip
    (said,) = heard(here, same)
    event = e.seal(e.Draft(said, USER), run=RUN, seq=run.seq + 1, time=at(99), prev=run.hash)
    assert evolve(same, event).shipped == merge
