"""Plans: everything that is wrong, all at once, each with its assignment, what it is and what would be right."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core.plan import (
    MAX_ASSIGNMENTS,
    MAX_PLAN_BYTES,
    Plan,
    Problem,
    imprecise,
    order,
    problems,
    upstream,
    waves,
)
from orchgit.core.scope import Scope
from tests.core.world import ROSTER, assignment, plan_of, some_plan


def wrong(plan: Plan) -> list[Problem]:
    return list(problems(plan, ROSTER))


def told(plan: Plan, *words: str) -> bool:
    """Some one problem has all these words."""
    return any(all(w in str(p) for w in words) for p in wrong(plan))


def test_a_good_plan_has_none() -> None:
    assert wrong(plan_of(assignment("api"), assignment("web", after=("api",)), reviewers=("style-reviewer",))) == []


ALONE: dict[str, tuple[Plan, tuple[str, ...]]] = {
    "nothing": (plan_of(), ("plan:", "no assignments", "at least one")),
    "goal": (Plan("  ", (assignment("api"),)), ("plan:", "goal is empty", "in a sentence")),
    "worker": (
        plan_of(assignment("api", worker="api-agnet")),
        ("'api'", "unknown worker 'api-agnet'", "did you mean 'api-agent'?", "choose from the roster: api-agent"),
    ),
    "a reviewer is no worker": (
        plan_of(assignment("api", worker="security-reviewer")), ("'api'", "unknown worker 'security-reviewer'"),
    ),
    "reviewer": (
        plan_of(assignment("api"), reviewers=("securty-reviewer",)),
        ("plan:", "unknown reviewer", "did you mean 'security-reviewer'?", "style-reviewer"),
    ),
    "task": (plan_of(assignment("api", task=" \n")), ("'api'", "task is empty", "say what")),
    "id": (plan_of(assignment("api", id="Api_1")), ("'Api_1'", "not usable", "a-z")),
    "long id": (plan_of(assignment("api", id="a" * 41)), ("not usable", "at most 40")),
    "option": (plan_of(assignment("api", id="-f")), ("'-f'", "not usable")),
    "twice": (plan_of(assignment("api"), assignment("api", allow=("x/**",))), ("'api'", "two assignments", "its own")),
    "empty scope": (plan_of(assignment("api", allow=("",))), ("'api'", "malformed scope pattern ''", "empty")),
    "no scope": (plan_of(replace(assignment("api"), allow=())), ("'api'", "scope is empty", "allow at least one path")),
    "malformed": (plan_of(assignment("api", allow=("/etc/**",))), ("'api'", "'/etc/**'", "must not begin")),
    "malformed deny": (plan_of(assignment("api", deny=("a/../b",))), ("'api'", "'a/../b'", "'.' or '..'")),
    "output outside": (
        plan_of(assignment("api", outputs=("web/x.ts",))), ("'api'", "output 'web/x.ts' is outside", "widen the scope"),
    ),
    "output denied": (
        plan_of(assignment("api", deny=("api/x",), outputs=("api/x",))), ("'api'", "output 'api/x' is outside"),
    ),
    "output a glob": (plan_of(assignment("api", outputs=("api/*.py",))), ("'api'", "not one file", "name each file")),
    "output a folder": (plan_of(assignment("api", outputs=("api/",))), ("'api'", "not one file")),
    "output malformed": (plan_of(assignment("api", outputs=("../x",))), ("'api'", "malformed output")),
    "protected": (
        plan_of(assignment("api", allow=("api/**", ".github/workflows/*"))),
        ("'api'", "'.github/workflows/*' claims protected paths", "by a wildcard", "literally"),
    ),
    "protected output": (
        plan_of(assignment("api", allow=("**",), outputs=("Makefile",))), ("'api'", "output 'Makefile' is outside"),
    ),
    "check": (plan_of(assignment("api", checks=("true", " "))), ("'api'", "a check is empty", "give a command")),
    "itself": (plan_of(assignment("api", after=("api",))), ("'api'", "depends on itself", "drop")),
    "nothing there": (
        plan_of(assignment("api"), assignment("web", after=("apj",))),
        ("'web'", "depends on 'apj', which does not exist", "did you mean 'api'?", "one of: api"),
    ),
    "cycle": (
        plan_of(*(assignment(n, after=(d,)) for n, d in (("api", "docs"), ("web", "api"), ("docs", "web")))),
        ("cycle", "api", "web", "docs", " -> ", "break it"),
    ),
    "overlap": (
        plan_of(assignment("api", allow=("src/**",)), assignment("web", allow=("src/web/**",))),
        ("'api'", "overlaps with that of 'web'", "src/web/", "disjoint", "depend on 'api'"),
    ),
    "overlap in case": (
        plan_of(assignment("api", allow=("SRC/a",)), assignment("web", allow=("src/a",))), ("overlaps", "both match"),
    ),
    "many": (
        plan_of(*(assignment("api", id=f"a{n}", allow=(f"a{n}/**",)) for n in range(MAX_ASSIGNMENTS + 1))),
        ("plan:", "65 assignments", "64 at most"),
    ),
    "large": (
        plan_of(*(assignment("api", id=f"a{n}", allow=(f"a{n}/**",), task="é" * 4000) for n in range(7))),
        ("plan:", "bytes as JSON", "shorten", str(MAX_PLAN_BYTES)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "words"), ALONE.values(), ids=ALONE)
def test_what_is_wrong_and_what_would_be_right(plan: Plan, words: tuple[str, ...]) -> None:
    assert told(plan, *words), [str(p) for p in wrong(plan)]


@pytest.mark.parametrize("name", ["integration", "ship", "seal", "plan", "review", "synthesis"])
def test_names_of_the_engines_own(name: str) -> None:
    assert told(plan_of(assignment("api", id=name)), repr(name), "reserved", "integration")


def test_all_at_once() -> None:
    plan = Plan(
        "",
        (
            assignment("api", worker="nobody", task="", allow=("a//b",), outputs=("*",), checks=("",)),
            assignment("api", after=("web",)),
            assignment("web", after=("api", "gone")),
            assignment("docs", id="integration", allow=(".git*/**",)),
        ),
        ("stranger",),
    )
    expected = (
        "goal is empty", "unknown reviewer 'stranger'", "two assignments", "reserved", "unknown worker 'nobody'",
        "task is empty", "malformed scope pattern 'a//b'", "'*' is not one file", "a check is empty", "'gone'",
        "form a cycle", "protected paths",
    )  # fmt: skip
    for words in expected:
        assert told(plan, words), words
    assert wrong(plan) == wrong(plan), "the order is stable"
    named = {p.assignment for p in wrong(plan)}
    assert {"", "api", "web", "integration"} >= named > {""}


def test_those_in_order_may_share_their_ground() -> None:
    first, last = assignment("api", allow=("src/**",)), assignment("docs", after=("web",), allow=("src/**",))
    assert wrong(plan_of(first, assignment("web", after=("api",)), last)) == []
    assert told(plan_of(first, assignment("web"), last), "overlaps with that of 'docs'")


def test_scopes_are_compared_only_when_they_can_be() -> None:
    plan = plan_of(assignment("api", allow=("src/**",)), assignment("web", allow=("src/**", "[")))
    assert not told(plan, "overlaps")
    assert told(plan, "malformed scope pattern '['")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_dependencies_come_first(seed: int) -> None:
    plan = some_plan(Random(seed))
    assert wrong(plan) == []
    placed: list[str] = []
    for a in order(plan):
        assert set(a.depends_on) <= set(placed)
        assert upstream(plan)[a.id] <= set(placed)
        placed.append(a.id)
    assert sorted(placed) == sorted(a.id for a in plan.assignments)
    seen: set[str] = set()
    for wave in waves(plan):
        assert wave
        assert all(set(a.depends_on) <= seen for a in wave)
        seen |= {a.id for a in wave}
    assert seen == set(placed)


def test_the_plans_own_order_among_the_free() -> None:
    plan = plan_of(assignment("web"), assignment("docs", after=("api",)), assignment("api"), assignment("ops"))
    assert [a.id for a in order(plan)] == ["web", "api", "docs", "ops"]
    assert [[a.id for a in w] for w in waves(plan)] == [["web", "api", "ops"], ["docs"]]


def test_a_plan_knows_its_assignments() -> None:
    plan = plan_of(assignment("api", deny=("api/x",)))
    assert plan.get("api").scope == Scope(("api/**",), ("api/x",))


def test_a_plan_that_the_kernel_cannot_hold_tightly_enough() -> None:
    files = [b"src/a.py", b"src/b.ts", b"src/c.ts"]
    tight, loose = assignment("api", allow=("src/**",)), assignment("web", allow=("src/*.py",))
    assert imprecise(plan_of(tight, loose), files, 0) == ()
    found = imprecise(plan_of(tight, loose), files, 50)
    assert [p.assignment for p in found] == ["web"]
    assert "of 3 files that the kernel would let it write, 1 are in its scope" in str(found[0])
    assert imprecise(plan_of(loose), files, 33) == ()
