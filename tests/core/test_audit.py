"""Audit: honest logs pass every law; a log or a repository that was touched is found out, or said not to be.

The corpus is one honest log (`honest`), attacked at every event and every field: as it is, with the line's own hash
mended (`reseal`), and with everything after it mended too (`rechain`), as somebody does who owns the machine. What then
only git can show, and what nothing shows, stands in `TRUSTED` and `test_what_is_taken_on_trust`. A sample by
default; all of it with ORCHGIT_ALL=1 in the environment.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from orchgit.core.audit import LAWS, Changed, Commit, Facts, Result, judge, read, trailers, unattested
from orchgit.core.codec import dumps
from orchgit.core.decide import ENGINE
from orchgit.core.state import Run, branch
from tests.core.world import (
    BASE_REF,
    CALM,
    ERRING,
    ROUGH,
    RUN,
    USER,
    WILD,
    Odds,
    Sim,
    World,
    assignment,
    lines_of,
    oid,
    plan_of,
    some_plan,
    some_settings,
)
from tests.support.golden import ALL

LOG_LAWS = {law.id for law in LAWS if not law.needs_git}
GIT_LAWS = {law.id for law in LAWS if law.needs_git}


def results(lines: list[bytes], facts: Facts | None = None) -> dict[str, Result]:
    return {r.law: r for r in judge(read(RUN, lines), facts)}


def violated(lines: list[bytes], facts: Facts | None = None) -> set[str]:
    return {law for law, r in results(lines, facts).items() if r.verdict == "violation"}


def doubted(lines: list[bytes], facts: Facts | None = None) -> set[str]:
    """Laws that do not pass: broken, or nobody can say."""
    asked = LOG_LAWS if facts is None else LOG_LAWS | GIT_LAWS
    return {law for law, r in results(lines, facts).items() if r.verdict != "pass" and law in asked}


def said(lines: list[bytes], facts: Facts | None, law: str) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in results(lines, facts)[law].found)


@cache
def honest() -> Sim:
    """Two assignments, a finding that was fixed, a failed attempt, sealed and shipped."""
    plan = plan_of(assignment("api"), assignment("web", after=("api",)))
    chosen = e.Settings(reviewers=("security-reviewer",), ship="merge", blocking="medium")
    for seed in range(1000):
        done = Sim(plan, seed, replace(ERRING, blocker=0.0), chosen).drive()
        kinds = {v.body.type for v in done.log}
        if {"finding.fixed", "gate.failed", "agent.exited", "run.completed"} <= kinds and len(done.log) < 110:
            return done
    raise AssertionError("no such run")


def last_attested() -> int:
    """The last event that a commit of the integration branch names: the seal's."""
    return max(v.seq for v in honest().log if isinstance(v.body, e.MergePrepared) and v.body.land == "seal")


# -- honest logs -----------------------------------------------------------------------------------------


@settings(max_examples=200 if ALL else 5, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([ERRING, ROUGH, WILD]))
def test_no_honest_log_breaks_a_law(seed: int, odds: Odds) -> None:
    rng = Random(seed)
    done = Sim(some_plan(rng), seed, odds, some_settings(rng)).drive()
    reading = read(RUN, lines_of(done.log))
    assert reading.run == done.run
    assert {r.verdict for r in judge(reading, done.world)} == {"pass"}
    without = judge(reading, None)
    assert {r.law for r in without if r.verdict == "pass"} == LOG_LAWS
    assert {r.law for r in without if r.verdict == "inconclusive"} == GIT_LAWS


@settings(max_examples=100 if ALL else 3, deadline=None)
@given(st.integers(0, 10**6))
def test_no_moment_of_an_honest_run_breaks_a_law(seed: int) -> None:
    """Also with the branch already swapped and the log not saying so yet, and with any batch cut short."""
    rng = Random(seed)
    done = Sim(some_plan(rng), seed, ERRING, some_settings(rng)).begin()
    while not done.run.over:
        done.step()
        swaps = [t for t in done.tasks.values() if isinstance(t[1].body, e.MergeRequested)]
        if swaps or rng.random() < 0.05:
            lines, length = lines_of(done.log), len(done.log)
            assert doubted(lines, done.world) == set()
            assert doubted(lines[: rng.randint(max(1, length - 6), length)]) == set()
            for run, event, _ in swaps:
                done.world.perform(run, event)  # the engine dies right after the swap
                assert doubted(lines, done.world) == set()


def test_every_prefix_of_an_honest_log_breaks_no_law_of_the_log() -> None:
    lines = lines_of(honest().log)
    for length in range(1, len(lines), 1 if ALL else 7):
        assert doubted(lines[:length]) == set(), length


# -- a touched log ---------------------------------------------------------------------------------------


def reseal(fields: dict[str, Any]) -> bytes:
    body = {k: v for k, v in fields.items() if k != "hash"}
    head = dumps(body)[:-1].encode()
    return head + f',"hash":"{hashlib.sha256(head).hexdigest()}"}}'.encode()


def rechain(lines: list[bytes], start: int) -> list[bytes]:
    """Mend seq, prev and hash of every line from `start` on."""
    mended = list(lines[:start])
    for number, line in enumerate(lines[start:], start):
        prev = e.envelope(mended[-1])["hash"] if mended else e.ZERO
        mended.append(reseal({**e.envelope(line), "seq": number, "prev": prev}))
    return mended


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in a JSON value, with something else of the same sort to stand there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield path, value[:-1] if value else ["more"]
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int):
        yield path, value + 1
    elif isinstance(value, str):
        yield path, OTHER.get(value, value[:-1] + ("0" if value[-1:] != "0" else "1"))
    else:
        yield path, 3


OTHER = {
    "merge": "seal", "seal": "ship", "ship": "merge", "human": "engine", "engine": "human", "agent": "human",
    "accept": "reassign", "reassign": "accept", "medium": "low", "critical": "medium", "high": "low", "low": "high",
    "info": "low", "open": "fixed", "worker": "reviewer", "reviewer": "worker", "orchestrator": "worker",
    "none": "open", "sha1": "sha256", "work": "plan", "watchdog": "tool",
}  # fmt: skip


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copied = copy.deepcopy(value)
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return copied


@cache
def edits() -> list[tuple[int, str, dict[str, Any]]]:
    """(event, type and field, the fields after the edit)"""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for number, line in enumerate(lines_of(honest().log)):
        fields = e.envelope(line)
        touched = {k: fields[k] for k in ("run", "type", "time", "actor", "cause", "data")}
        for path, new in leaves(touched):
            name = ".".join("*" if isinstance(p, int) else str(p) for p in path)
            found.append((number, f"{fields['type']} {name}", put(fields, path, new)))
    return found


def test_an_edit_alone_is_seen_in_the_line_itself() -> None:
    lines = lines_of(honest().log)
    for number, name, fields in edits()[:: 1 if ALL else 37]:
        line = dumps(fields).encode()
        assert "log.chain" in violated([*lines[:number], line, *lines[number + 1 :]]), name


def test_an_edit_with_its_hash_mended_is_seen_in_the_line_after() -> None:
    lines = lines_of(honest().log)
    for number, name, fields in edits()[:: 1 if ALL else 53]:
        if number < len(lines) - 1:
            touched = [*lines[:number], reseal(fields), *lines[number + 1 : number + 2]]
            assert doubted(touched), name
            reading = read(RUN, touched)
            assert reading.unread
            if len(reading.events) > number:  # what it says now could have been; but then the line after says otherwise
                assert violated(touched) >= {"log.chain"}, name


def test_deleted_doubled_or_swapped_lines_are_seen() -> None:
    lines = lines_of(honest().log)
    for at in range(0, len(lines) - 1, 1 if ALL else 7):
        assert violated([*lines[:at], *lines[at + 1 :]]) == {"log.chain"}
        assert violated([*lines[: at + 1], *lines[at:]]) == {"log.chain"}
        assert violated([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]) == {"log.chain"}
    assert violated([*lines, lines[-1]]) == {"log.chain"}


def test_deleted_doubled_or_swapped_lines_with_the_chain_mended_do_not_pass_git() -> None:
    """Whatever the log's own laws say of them: every commit up to the seal names its event by hash."""
    lines, world = lines_of(honest().log), honest().world
    tried = seen_by_log = 0
    for at in range(1, last_attested(), 1 if ALL else 9):
        for touched in (
            [*lines[:at], *lines[at + 1 :]],
            [*lines[: at + 1], *lines[at:]],
            [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
        ):
            mended = rechain(touched, at)
            tried += 1
            seen_by_log += bool(violated(mended))
            assert doubted(mended, world), f"at event {at}, {e.envelope(lines[at])['type']}"
    assert seen_by_log > tried * 2 // 3, "most of it is illegal or not what the rules decide, too"


def test_no_touched_log_makes_audit_fall_over() -> None:
    """`read` and `judge` answer for whatever is a line; only the answer differs. Also for lines of other runs."""
    lines = lines_of(honest().log)
    rng = Random(5)
    for _ in range(2000 if ALL else 40):
        touched = list(lines)
        for _ in range(rng.randint(1, 3)):
            at, other = rng.randrange(len(touched)), rng.randrange(len(touched))
            match rng.randrange(4):
                case 0:
                    touched[at] = touched[other]
                case 1:
                    touched.insert(at, touched[other])
                case 2:
                    del touched[at]
                case _:
                    fields, given = e.envelope(touched[at]), e.envelope(touched[other])
                    touched[at] = reseal({**fields, "cause": given["cause"], "data": given["data"]})
        mended = rechain(touched, 0)
        assert {r.law for r in judge(read(RUN, mended), honest().world)} == LOG_LAWS | GIT_LAWS


def test_a_cut_tail_is_seen_by_git_and_only_where_a_merge_is_gone() -> None:
    lines, done = lines_of(honest().log), honest()
    asked = [v.seq for v in done.log if isinstance(v.body, e.MergeRequested) and v.body.land != "ship"]
    for length in (*range(1, len(lines), 1 if ALL else 7), max(asked), len(lines)):
        touched = lines[:length]
        assert violated(touched) == set(), "by itself, a shorter log is a log of a shorter past"
        if length <= max(asked):
            assert "git.history" in violated(touched, done.world), length
    first = next(v.seq for v in done.log if isinstance(v.body, e.MergePrepared))
    assert "its tail was cut off" in said(lines[:first], done.world, "git.history")
    assert violated(lines[: max(asked) + 2], done.world) == set(), "after the seal nothing attests: see unattested"


def test_forged_lines_at_the_end() -> None:
    done = honest()
    lines = lines_of(done.log)

    def forged(body: e.Body, actor: e.Actor = ENGINE, cause: int | None = None, run: str = RUN) -> list[bytes]:
        event = e.seal(
            e.Draft(body, actor, cause), run=run, seq=len(lines), time=done.run.time, prev=done.run.hash
        )  # fmt: skip
        return [*lines, event.line.removesuffix(b"\n")]

    assert violated(forged(e.RunCompleted(done.run.tip))) == {"log.legal"}
    assert violated(forged(e.MergeDone("merge", "api", oid("x")), cause=3)) == {"log.legal"}
    assert violated(forged(e.ShipAsked(), USER, run="r2")) == {"log.chain"}
    assert violated(forged(e.ShipAsked(), USER)) == set(), "a human may ask that at any time"
    unknown = forged(e.ShipAsked(), USER)
    unknown[-1] = reseal({**e.envelope(unknown[-1]), "type": "ship.dreamt"})
    verdicts = {law: r.verdict for law, r in results(unknown, done.world).items()}
    assert {verdicts.pop(law) for law in ("log.chain", "log.form", "log.tail")} == {"pass"}
    assert set(verdicts.values()) == {"inconclusive"}, "no pass for what could not be read to its end"


# type -> fields of its data whose edit, with everything after it mended, the log's own laws cannot see.
TRUSTED = {
    "run.started": "config git object_format python roster roster.*.allow roster.*.backend roster.*.deny "
    "roster.*.description roster.*.model sandbox sandboxed scripted settings.agent_retries "
    "settings.assignment_budget.cost_micro "
    "settings.assignment_budget.seconds settings.assignment_budget.tokens settings.assignment_budget.turns "
    "settings.attempts settings.budget.seconds settings.budget.turns settings.issue settings.parallel "
    "settings.plan_retries settings.repository settings.rounds tool",
    "issue.read": "source text title",
    "plan.approved": "signature",
    "cell.made": "approximate branch canary.* sandbox start",
    "agent.started": "backend brief model network purpose sandbox",
    "agent.exited": "cache_read_tokens cache_write_tokens calls conversation cost_micro duration_ms input_tokens "
    "member message output_tokens refused refused.* status transcript unsure_micro unsure_tokens",
    "agent.waiting": "backend member session since until used.cache_read_tokens used.cache_write_tokens used.calls "
    "used.cost_micro used.duration_ms used.input_tokens used.output_tokens used.unsure_micro used.unsure_tokens why",
    "agent.waited": "member",
    "agent.failed": "hint lost message status",
    "agent.reported": "produced produced.* summary",
    "gate.passed": "author files salvage tree",
    "checks.passed": "results.*.duration_ms results.*.output results.*.tests",
    "verdict.given": "reasons",
    "review.reported": "findings.*.id findings.*.owner findings.*.reviewer findings.*.state summary",
    "synthesis.written": "review_by_human review_by_human.* summary totals.assignments totals.attempts "
    "totals.docs_files totals.files_changed totals.files_created totals.files_deleted totals.lines_added "
    "totals.lines_deleted totals.test_files totals.tests_added",
}


@cache
def unseen() -> tuple[frozenset[str], frozenset[str]]:
    """Fields whose edit, with the chain mended, the log's laws do not see; and those that not even git shows."""
    done = honest()
    lines, by_log, by_git = lines_of(done.log), set(), set()
    tried: set[tuple[str, bool]] = set()
    for number, name, fields in edits():
        late = number > last_attested()
        # Of what every type has, a few types are enough.
        claimed = name.endswith((" time", " actor.id")) and number > 4 and number < len(lines) - 1
        if (name, late) in tried or claimed:
            continue
        tried.add((name, late))
        mended = rechain([*lines[:number], reseal(fields), *lines[number + 1 :]], number)
        if not doubted(mended):
            by_log.add(name)
            if not doubted(mended, done.world):
                by_git.add(f"{late} {name}")
    return frozenset(by_log), frozenset(by_git)


def test_what_is_taken_on_trust() -> None:
    """Facts of the world and claims: an honest engine wrote them, and the log alone cannot show that it did."""
    by_log = unseen()[0]
    data = {name.replace(" data.", " ") for name in by_log if " data." in name}
    assert data == {f"{kind} {field}" for kind, listed in TRUSTED.items() for field in listed.split()}
    # A time is a claim, between the one before it and the one after it; so is a name.
    assert {name.partition(" ")[0] for name in by_log if name.endswith(" time")} <= {"run.started", "agent.started"}
    named = {name.partition(" ")[0] for name in by_log if name.endswith(" actor.id")}
    assert named >= {"run.started", "issue.read", "plan.requested", "run.completed"}
    assert {name for name in by_log if name.endswith(" actor.kind")} == set()
    causes = {name.partition(" ")[0] for name in by_log if name.endswith(" cause")}
    assert causes <= {v.body.type for v in honest().log if v.body.kind == "note"}


def test_before_the_seal_nothing_can_be_edited_without_git_showing_it() -> None:
    assert {name for name in unseen()[1] if name.startswith("False")} == set()
    # The ship's own commit attests the rest but for the last event; without it, audit says how many those are.
    assert unseen()[1] == {"True run.completed actor.id"}


def test_decisions_and_approvals_are_among_what_the_log_itself_shows() -> None:
    by_log = unseen()[0]
    for body in e.BODIES:
        if body.kind in ("request", "decision"):
            mine = {n.partition(" ")[2] for n in by_log if n.startswith(f"{body.type} ")}
            assert {m for m in mine if m.startswith("data.")} == set(), body.type
    assert "plan.approved data.digest" not in by_log
    assert "plan.approved actor.kind" not in by_log
    assert "checks.passed data.results.*.passed" not in by_log
    assert "gate.passed data.assignment" not in by_log


def test_a_log_of_other_rules_is_judged_by_its_legality_alone() -> None:
    lines = lines_of(honest().log)
    fields = e.envelope(lines[0])
    other = rechain([reseal({**fields, "data": {**fields["data"], "decider": 99}}), *lines[1:]], 0)
    assert results(other)["log.decisions"].verdict == "inconclusive"
    assert results(other)["log.legal"].verdict == "pass"
    assert "other rules" in results(other)["log.decisions"].why


def test_what_is_missing_from_a_batch_is_seen() -> None:
    """An engine that did not do what was due: here it never asked the reviewer."""
    done = Sim(plan_of(assignment("api")), 1, CALM, e.Settings(reviewers=("security-reviewer",))).drive()
    at = next(v.seq for v in done.log if isinstance(v.body, e.ReviewRequested))
    run = read(RUN, lines_of(done.log)).before[at]
    event = e.seal(
        e.Draft(e.SynthesisRequested(run.tip), ENGINE), run=RUN, seq=at, time=run.time, prev=run.hash
    )  # fmt: skip
    skipped = [*lines_of(done.log)[:at], event.line.removesuffix(b"\n")]
    assert violated(skipped) == {"log.decisions"}
    assert "synthesis.requested was recorded; the rules say review.requested" in said(skipped, None, "log.decisions")


def test_an_outcome_taken_in_while_something_was_due_is_seen() -> None:
    done = honest()
    at = next(v.seq for v in done.log if isinstance(v.body, e.CellRequested))
    run = read(RUN, lines_of(done.log)).before[at]
    abort = e.seal(e.Draft(e.AbortRequested(""), USER), run=RUN, seq=at, time=run.time, prev=run.hash)
    touched = [*lines_of(done.log)[:at], abort.line.removesuffix(b"\n")]
    assert "cell.requested was due before it and is missing" in said(touched, None, "log.decisions")


def test_approval_by_a_human_is_recorded_by_a_human() -> None:
    lines = lines_of(honest().log)
    at = next(v.seq for v in honest().log if isinstance(v.body, e.PlanApproved))
    for kind in ("engine", "policy", "agent"):
        fields = {**e.envelope(lines[at]), "actor": {"kind": kind, "id": "ada"}}
        touched = rechain([*lines[:at], reseal(fields), *lines[at + 1 :]], at)
        assert "log.approval" in violated(touched), kind


# -- a touched repository --------------------------------------------------------------------------------


class Touched:
    """The honest world, with some answers changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.commits: dict[str, Commit | None] = {}
        self.refs: dict[str, str | None] = {}

    def commit(self, oid: str) -> Commit | None:
        return self.commits[oid] if oid in self.commits else self.world.commit(oid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def changed(self, old_tree: str, new_tree: str) -> list[Changed] | None:
        return self.world.changed(old_tree, new_tree)

    def ref(self, name: str) -> str | None:
        return self.refs.get(name, self.world.ref(name))

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        return self.world.merge_result(base, head, onto)


def merge_of(kind: str = "merge") -> e.MergeRequested:
    return next(v.body for v in honest().log if isinstance(v.body, e.MergeRequested) and v.body.land == kind)


def commit_with(**more: Any) -> Callable[[Touched], None]:
    def touch(facts: Touched) -> None:
        new = merge_of().new
        facts.commits[new] = replace(honest().world.commits[new], **more)

    return touch


def message(change: Callable[[str], str]) -> Callable[[Touched], None]:
    return lambda facts: commit_with(message=change(honest().world.commits[merge_of().new].message))(facts)


def remove(facts: Touched) -> None:
    facts.commits[merge_of().new] = None


def extra(facts: Touched) -> None:
    """One more commit on the integration branch, as good as it can be made."""
    tip = honest().run.tip
    facts.commits[oid("extra")] = Commit(honest().world.commits[tip].tree, (tip,), "by hand")
    facts.refs[honest().run.ref] = oid("extra")


def rewritten(facts: Touched) -> None:
    """Somebody has force-pushed a branch that begins elsewhere."""
    facts.commits[oid("elsewhere")] = Commit(honest().world.commits[honest().world.base].tree, (), "elsewhere")
    facts.refs[honest().run.ref] = oid("elsewhere")


def moved(ref: str, to: str) -> Callable[[Touched], None]:
    return lambda facts: facts.refs.__setitem__(ref, to)


def back(facts: Touched) -> None:
    facts.refs[honest().run.ref] = merge_of().new


def late_trailer(facts: Touched) -> None:
    extra(facts)
    tip = honest().run.tip
    trailer = f"x\n\nOrchgit-Log: {10**6}@sha256:{'a' * 64}\n"
    facts.commits[oid("extra")] = Commit(honest().world.commits[tip].tree, (tip,), trailer)


OTHER_TREE = oid("tree", "README", "hello")
TOUCHES: dict[str, tuple[Callable[[Touched], None], set[str], str]] = {
    "parents": (commit_with(parents=(oid("x"), oid("y"))),
                {"git.commits", "git.merges", "git.history"}, "its parents are"),
    "one parent less": (lambda f: commit_with(parents=honest().world.commits[merge_of().new].parents[:1])(f),
                        {"git.merges"}, "its parents are"),
    "tree": (commit_with(tree=OTHER_TREE), {"git.merges", "git.scope"}, "was verified"),
    "no trailers": (message(lambda m: "x\n"), {"git.trailers"}, "its Orchgit-Log is missing"),
    "another run": (message(lambda m: m.replace("Run: r1", "Run: r2")), {"git.trailers"}, "its Orchgit-Run is r2"),
    "another plan": (message(lambda m: m.replace("Plan: sha256:", "Plan: sha256:0")), {"git.trailers"}, "Orchgit-Plan"),
    "another assignment": (message(lambda m: m.replace("Assignment: api", "Assignment: web")), {"git.trailers"}, "web"),
    "another hash": (message(lambda m: m.replace("@sha256:", "@sha256:0")), {"git.trailers"}, "its Orchgit-Log is"),
    "a trailer twice": (message(lambda m: m + "Orchgit-Run: r2\n"), {"git.trailers"}, "Orchgit-Run is r1, r2"),
    "missing": (remove, {"git.merges", "git.history"}, "does not exist"),
    "an extra commit": (extra, {"git.commits", "git.history", "git.tip"}, "the log knows nothing of it"),
    "a commit after the end": (late_trailer, {"git.commits", "git.history", "git.tip"}, "it attests event 1000000"),
    "moved back": (back, {"git.history", "git.tip"}, "it is not on the integration branch"),
    "rewritten": (rewritten, {"git.commits", "git.history", "git.tip"}, "does not descend from the base"),
    "a worker's branch": (moved(branch(RUN, "api"), oid("x")),
                          {"git.branches", "git.commits"}, "the branch of api points here"),
}  # fmt: skip


@pytest.mark.parametrize(("touch", "laws", "words"), TOUCHES.values(), ids=TOUCHES)
def test_git_is_held_against_the_log(touch: Callable[[Touched], None], laws: set[str], words: str) -> None:
    lines, facts = lines_of(honest().log), Touched(honest().world)
    honest().world.tree({"README": "hello"})
    assert violated(lines, facts) == set()
    touch(facts)
    assert violated(lines, facts) == laws
    assert any(words in said(lines, facts, law) for law in laws), [said(lines, facts, law) for law in laws]


def test_a_branch_that_is_gone_is_a_violation_only_while_the_run_goes_on() -> None:
    done = honest()
    lines, facts = lines_of(done.log), Touched(done.world)
    facts.refs[done.run.ref] = None
    assert violated(lines, facts) == set(), "merged and deleted: the commits are still there"
    at = next(v.seq for v in done.log if isinstance(v.body, e.MergeDone))
    assert "git.tip" in violated(lines[: at + 1], facts)


def test_a_missing_tree_is_said() -> None:
    class Shallow(Touched):
        def changed(self, old_tree: str, new_tree: str) -> list[Changed] | None:
            return None

    lines = lines_of(honest().log)
    assert "a tree of this merge is missing" in said(lines, Shallow(honest().world), "git.scope")


def test_what_an_engine_with_a_fault_lands_is_found_in_git_though_its_log_is_legal() -> None:
    """Its checks ran on a tree into which something had been slipped; so the merge gate had nothing to say."""

    class Faulty(World):
        def _checks(self, run: Run, body: e.ChecksRequested) -> e.Body:
            done = super()._checks(run, body)
            if isinstance(done, e.ChecksPassed) and body.subject == "api":
                files = {**self.trees[done.tree], "web/stray": "slipped in"}
                return replace(done, tree=self.tree(files))
            return done

    plan = plan_of(assignment("api"))
    done = Sim(plan, 1, CALM, e.Settings())
    done.world = Faulty(plan, 1, CALM)
    done.drive()
    assert done.run.phase == "completed"
    lines = lines_of(done.log)
    assert violated(lines) == set()
    assert violated(lines, done.world) == {"git.trees", "git.scope"}
    assert "something was slipped in" in said(lines, done.world, "git.trees")
    assert "web/stray landed for api: outside the scope" in said(lines, done.world, "git.scope")


def test_a_seal_changes_nothing() -> None:
    class Faulty(World):
        def _checks(self, run: Run, body: e.ChecksRequested) -> e.Body:
            done = super()._checks(run, body)
            if isinstance(done, e.ChecksPassed) and body.subject == "integration":
                return replace(done, tree=self.tree({**self.trees[done.tree], "api/late": "x"}))
            return done

    plan = plan_of(assignment("api"))
    done = Sim(plan, 1, CALM, e.Settings())
    done.world = Faulty(plan, 1, CALM)
    done.drive()
    assert violated(lines_of(done.log), done.world) == {"git.scope", "git.trees"}
    assert "landed for the seal: a seal changes nothing" in said(lines_of(done.log), done.world, "git.scope")


# -- what nothing attests --------------------------------------------------------------------------------


def test_how_much_of_a_log_nothing_attests() -> None:
    done = honest()
    reading = read(RUN, lines_of(done.log))
    assert unattested(reading, done.world) == len(done.log) - 1 - last_attested()
    assert unattested(reading, None) == len(done.log)
    assert unattested(read(RUN, []), done.world) == 0
    # A log that was rewritten is attested by nothing from the rewritten event on.
    lines = lines_of(done.log)
    fields = e.envelope(lines[1])
    mended = rechain([lines[0], reseal({**fields, "data": {**fields["data"], "title": "Another"}}), *lines[2:]], 1)
    assert unattested(read(RUN, mended), done.world) == len(lines)


@pytest.mark.parametrize("claim", ["²@sha256:" + "0" * 64, "9" * 5000 + "@sha256:" + "0" * 64, "", "@", "-1@sha256:x",
                                   "7", "99@sha256:" + "0" * 64])  # fmt: skip
def test_a_trailer_may_say_anything(claim: str) -> None:
    done = honest()
    facts = Touched(done.world)
    for new in [v.body.new for v in done.log if isinstance(v.body, e.MergeRequested)]:
        facts.commits[new] = replace(done.world.commits[new], message=f"x\n\nOrchgit-Log: {claim}\n")
    reading = read(RUN, lines_of(done.log))
    assert unattested(reading, facts) == len(done.log)
    assert "git.trailers" in violated(lines_of(done.log), facts)
    assert "git.history" not in violated(lines_of(done.log), facts)
    cut = lines_of(done.log)[:20]
    assert "git.history" in violated(cut, facts)


def test_trailers_stand_in_the_last_paragraph() -> None:
    text = "Merge api\n\nOrchgit-Run: forged\n\nOrchgit-Run: r1\nOrchgit-Log: 1@x\nSigned-off-by: a\nOrchgit-Odd\n"
    assert trailers(text) == {"Orchgit-Run": ["r1"], "Orchgit-Log": ["1@x"]}
    assert trailers("") == {}


def test_the_shape_of_an_answer() -> None:
    for result in judge(read(RUN, lines_of(honest().log)), honest().world):
        assert result.sentence.endswith(".")
        assert (result.verdict, result.found, result.why) == ("pass", (), "")
    assert BASE_REF in honest().world.refs
