"""What people are told: nothing in it moves the cursor, every event has its sentence, every wait says what to type."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit import report, report_cost
from orchgit.core import events as e
from orchgit.core.decide import ENGINE
from orchgit.core.review import Finding
from orchgit.core.run import Spending
from orchgit.core.state import Run, evolve, replay
from tests.core.world import (
    CALM,
    ERRING,
    ROUGH,
    RUN,
    USER,
    WILD,
    Odds,
    Sim,
    assignment,
    example,
    examples,
    plan_of,
    some_plan,
    some_settings,
)

HOSTILE = "\x1b[2J\x07\r\n\t\u202egnp.exe\u200b\u2028\x9b31m\ue000\U000e0041"
PAIR = plan_of(assignment("api"), assignment("web", after=("api",)))


def calm(text: str, *, lines: bool = False) -> bool:
    """Whether a terminal shows this and does nothing else."""
    moving = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return all(unicodedata.category(c) not in moving or (lines and c == "\n") for c in text)


def event_of(body: e.Body) -> e.Event:
    return e.seal(e.Draft(body, ENGINE), run=RUN, seq=0, time="t", prev=e.ZERO)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None)) | st.text(st.sampled_from(HOSTILE + "ab é語")), st.booleans())
def test_safe_lets_nothing_through_that_moves_the_cursor(text: str, lines: bool) -> None:
    shown = report.safe(text, lines=lines)
    assert calm(shown, lines=lines)
    assert report.safe(shown, lines=lines) == shown
    assert calm(report.short(text))
    kept = [c for c in text if unicodedata.category(c)[0] in "LNPSM"]
    assert [c for c in shown if unicodedata.category(c)[0] in "LNPSM" and c != "\ufffd"] == [
        c for c in kept if c != "\ufffd"
    ]  # fmt: skip


def test_safe_by_example() -> None:
    assert report.safe("a\tb\nc\x1b[2J\u202e") == "a b c\ufffd[2J\ufffd"
    assert report.safe("a\tb\nc", lines=True) == "a    b\nc"
    assert report.short("x" * 200, 10) == "xxxxxxxxx…"
    assert report.short(" a \n b ") == "a b"


@pytest.mark.parametrize(
    ("ms", "words"), [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59900, "59.9 s"), (61000, "1 min 1 s")]
)
def test_spans(ms: int, words: str) -> None:
    assert report.span(ms) == words


def test_an_unknown_price_is_never_nothing() -> None:
    assert (report.money(None), report.money(0), report.money(1_239_999)) == ("cost unknown", "$0.00", "$1.24")


@pytest.mark.parametrize("body", examples(), ids=lambda b: b.type)
def test_every_event_has_a_sentence(body: e.Body) -> None:
    said = report.say(event_of(body))
    assert "\n" not in said
    assert said.removeprefix("words (attempt 7): ").removeprefix("words: ") != body.type, "only its type"
    assert len(said) > 3


@pytest.mark.parametrize("body", examples(HOSTILE), ids=lambda b: b.type)
def test_no_sentence_moves_the_cursor_whatever_the_event_holds(body: e.Body) -> None:
    """Also in fields that are the engine's own: a log to be read may have been written by anybody."""
    assert calm(report.say(event_of(body)))


SAID_THERE = (e.Comment("comment/7", "lea", "2026-01-01T00:00:00Z", "u"),)
SAID: list[tuple[e.Body, str]] = [
    (replace(example(e.RunStarted), scripted=True), "SCRIPTED agents, no model is called"),
    (e.RunResumed("t", 12, "s", True), "run resumed; 12 bytes of an unfinished line were set aside"),
    (e.PlanApproved(2, "d" * 64, "policy"), "plan v2 approved by policy (--yes), not by a human (dddddddddddd)"),
    (e.PlanApproved(2, "d" * 64, "human"), "plan v2 approved by a human (dddddddddddd)"),
    (e.GatePassed("api", 1, "c" * 40, "t", 3, ""), "api: gate passed"),
    (e.GatePassed("api", 3, "c" * 40, "t", 3, ""), "api (attempt 3): gate passed"),
    (e.ChecksPassed("integration", 0, "o", "t" * 40, ()), "integration: checks passed (none in the plan)"),
    (e.MergeDone("seal", "", "n" * 40), "sealed as nnnnnnnnnn"),
    (e.MergeStale("merge", "api", ""), "moved by somebody else, to nothing"),
    (e.BlockerAnswered("B1", ""), "blocker B1 answered: (try again)"),
    (e.ReviewReported("r", 1, "t", "fine", (), ()), "r: clean, no findings. fine"),
    (e.ShipObserved("refs/heads/main", "", "it is gone"), "cannot ship: it is gone"),
    (e.SalvageKept("api", 1, "", "nothing was changed"), "nothing to set aside: nothing was changed"),
    (e.PlanApproved(2, "d" * 64, "human", "", SAID_THERE), "by a human by lea (comment/7, 2026-01-01T00:00:00Z)"),
    (e.ForgeFailed("change/api", "no network"), "FORGE: change/api could not be written: no network"),
    (e.ChangeSeen("api", "changes", "c" * 40, "No.", SAID_THERE), "lea wants changes in api at cccccccccc No."),
]


@pytest.mark.parametrize(("body", "words"), SAID, ids=[b.type for b, _ in SAID])
def test_sentences(body: e.Body, words: str) -> None:
    assert words in report.say(event_of(body))


# -- the state -------------------------------------------------------------------------------------------


def moments(odds: Odds, seeds: range) -> list[tuple[Run, list[e.Event]]]:
    found = []
    for seed in seeds:
        rng = Random(seed)
        done = Sim(some_plan(rng), seed, odds, some_settings(rng)).drive()
        run = Run(RUN)
        for number, event in enumerate(done.log):
            before, run = run, evolve(run, event)
            if before.phase != run.phase or number % 15 == 0 or run.over:
                found.append((run, done.log[: number + 1]))
    return found


def test_every_state_can_be_told() -> None:
    seen = set()
    for run, log in moments(ROUGH, range(4)) + moments(WILD, range(10, 13)):
        lines = report.status_lines(run)
        assert lines[0].startswith(f"{RUN}  {run.phase}")
        assert all(calm(line) for line in lines)
        assert all(name in "\n".join(lines) for name in run.works)
        assert report.next_lines(run), "always something"
        told: Any = json.loads(json.dumps(report.status_json(run)))
        assert (told["phase"], set(told["assignments"])) == (run.phase, set(run.works))
        text = report.markdown(run, log)
        assert calm(text, lines=True)
        assert text.endswith("\n")
        assert f"**{run.phase}**" in text
        seen.add(run.phase)
    assert seen >= {"started", "planning", "approving", "executing", "verifying", "reviewing", "completed",
                    "synthesizing", "sealing", "shipping", "aborting", "aborted"}  # fmt: skip


def wait_for(odds: Odds, **more: Any) -> Sim:
    done = Sim(PAIR, 1, odds, e.Settings(**more)).begin()
    while done.tasks:
        done.step()
    return done


def test_what_to_type_while_questions_wait() -> None:
    lines = report.next_lines(wait_for(Odds(ask=1.0)).run)
    assert "waits for answers: 2 questions" in lines
    assert any("Which colour?" in line for line in lines)
    assert lines[-1] == 'orchgit answer r1 "…" for each, in order'


def test_what_to_type_while_a_plan_waits() -> None:
    run = wait_for(CALM).run
    assert run.proposal is not None
    lines = report.next_lines(run)
    assert lines[0] == f"waits for approval of plan v1 ({run.proposal.digest[:12]})"
    assert "orchgit approve r1" in lines[1]
    assert "orchgit reject r1" in lines[1]


def test_what_to_type_while_a_blocker_waits() -> None:
    lines = report.next_lines(wait_for(Odds(no_cell=1.0), approval="policy").run)
    assert lines[0] == "blocker B1 api: no room"
    assert "orchgit retry r1/api" in lines[1]


def test_what_to_type_while_the_engine_has_something_to_do() -> None:
    done = Sim(PAIR, 1, CALM, e.Settings()).begin()
    assert report.next_lines(done.run) == ["waits for: plan.requested", "no engine is alive: orchgit resume r1"]
    assert report.next_lines(done.run, alive=True) == ["waits for: plan.requested"]
    assert report.next_lines(replay(RUN, done.log[:2])) == ["next: plan.requested"]


def test_what_to_type_when_it_is_over() -> None:
    assert report.next_lines(Sim(PAIR, 1, CALM, e.Settings()).drive().run) == [
        "over: completed", "the work is on orchgit/r1/integration",
    ]  # fmt: skip
    done = Sim(PAIR, 1, CALM, e.Settings()).begin()
    done.say(e.AbortRequested("enough"))
    done.drive_on()
    assert report.next_lines(done.run) == ["over: aborted"]


def test_the_plan_in_rows() -> None:
    loose = assignment("web", after=("api",), allow=("web/*.py", "web/x"), deny=("web/gen.py",), checks=())
    rows = report.plan_rows(plan_of(loose, assignment("api")))
    assert [r[-2:] for r in rows] == [("—", "test api"), ("api", "none")]
    assert [r[0].partition("\n")[0] for r in rows] == ["api, by api-agent", "web, by web-agent"]
    assert rows[1][1] == "web/*.py\nweb/x\nnot web/gen.py"
    notes = "\n".join(report.plan_notes(plan_of(loose, assignment("api"))))
    assert "Order: api → web" in notes
    assert "web: the sandbox " in notes
    assert "web: no checks" in notes
    hostile = plan_of(assignment("api", title=HOSTILE, task=HOSTILE, checks=(HOSTILE,)))
    assert all(calm(cell, lines=True) for row in report.plan_rows(hostile) for cell in row)
    assert all(calm(text, lines=True) for text in report.plan_text(hostile))
    assert "Do the api part." in "\n".join(report.plan_text(plan_of(assignment("api"))))


# -- the end ---------------------------------------------------------------------------------------------


def test_the_report() -> None:
    done = Sim(PAIR, 5, replace(ERRING, findings=1.0, notes=1.0), e.Settings(reviewers=("security-reviewer",))).drive()
    text = report.markdown(done.run, done.log)
    assert text.startswith("# Add billing\n\nRun `r1`: **completed**.\n\nAgents were **scripted**")
    for part in ("## Totals, counted from git", "## Assignments", "## Review", "## For a human to look at", "## Cost",
                 "1 files created", "| api | api-agent | merged |", "- look at it", "- round 1, security-reviewer:",
                 "**F1**", "All of it fits."):  # fmt: skip
        assert part in text or part == "1 files created", part
    assert "## Next" not in text
    early = report.markdown(replay(RUN, done.log[:4]), done.log[:4])
    assert "## Next" in early
    assert "## Assignments" not in early


def spending(member: str, about: str, attempt: int, cost: int | None, broken: int = 0) -> Spending:
    return Spending(member, about, attempt, e.Used(1, 10, 5, 30, 0, cost, 0, broken, 1000))


def test_what_was_spent_is_told_and_the_unknown_is_no_nothing() -> None:
    rows = [
        spending("api-agent", "work/api", 1, 1_000_000), spending("lead", "plan", 0, 20_000),
        spending("api-agent", "work/api", 2, 500_000, broken=70_000), spending("lead", "verdict/api", 2, None),
    ]  # fmt: skip
    budget = e.Settings(budget=e.Budget(4_000_000, seconds=600))
    run = replace(
        Sim(PAIR, 1, CALM, budget).begin().run, spent=dict(enumerate(rows)), raised=e.Budget(1_000_000)
    )  # fmt: skip
    assert report_cost.lines(run) == [
        "spent of a budget of $5.00, 600 s of work (4 s done): $1.52 and what 1 agent run cost, which is unknown, "
        "at most $0.07 more for calls that broke off; 4 calls, 160 tokens in (75 % from cache), 20 out",
        "  api-agent        work/api attempt 1 $1.00, work/api attempt 2 $0.50, at most $0.07 more for calls that "
        "broke off",
        "  lead             plan $0.02, verdict/api attempt 2 cost unknown",
    ]
    agents = dict(report_cost.by_agent(run))
    assert (agents["api-agent"].cost_micro, agents["lead"].cost_micro) == (1_500_000, None)
    assert "| work/api, attempt 2 | 1 | 1 | 40 | 75 % | 5 | $0.50, at most" in report_cost.table(run)
    assert report_cost.as_json(run)["in_all"]["cost_micro"] is None
    assert report_cost.lines(Run("r1")) == []


def test_nothing_hostile_gets_into_any_view() -> None:
    """A whole run in which every word that an agent or an issue brought is hostile."""
    done = Sim(PAIR, 1, replace(CALM, notes=0.0), e.Settings()).begin()
    while not done.run.works:
        done.step()
    name = HOSTILE.replace("\n", "")
    run = replace(
        done.run, issue=e.IssueRead(name, name, "x"), reported=(), questions=(name,),
        synthesis=example(e.SynthesisWritten, HOSTILE),
        findings=(replace(example(Finding, HOSTILE), state="open"),),
    )  # fmt: skip
    log = [event_of(b) for b in examples(HOSTILE)]
    assert all(calm(line) for line in report.status_lines(run))
    assert calm(report.markdown(run, log), lines=True)
    assert USER.kind == "human"
