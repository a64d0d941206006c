"""Findings: what blocks, and whose they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchgit.core.review import SEVERITIES, Finding, Severity, blocks, owners
from tests.core.world import assignment, plan_of

PLAN = plan_of(
    assignment("api", deny=("api/gen/**",)), assignment("web", after=("api",), allow=("web/**", "api/shared")),
    assignment("docs", after=("web",), allow=("docs/é*",)),
)  # fmt: skip
FOUND = Finding("high", "api/x.py", 3, "odd")


@pytest.mark.parametrize("threshold", SEVERITIES)
def test_at_or_above_the_threshold_blocks(threshold: Severity) -> None:
    blocking = [s for s in SEVERITIES if blocks(replace(FOUND, severity=s), threshold)]
    assert blocking == list(SEVERITIES[: SEVERITIES.index(threshold) + 1])


def test_only_an_open_one_blocks() -> None:
    for state in ("fixed", "waived"):
        assert not blocks(FOUND.closed(state), "info")
    assert blocks(FOUND, "info")


OWNERS = {
    "api/x.py": ("api",),
    "api/shared": ("api", "web"),
    "api/gen/x": (),
    "docs/é1": ("docs",),
    "README": (),
    "": (),
    "api/../web/x": (),
    "/api/x.py": (),
    "api/.github/x": (),
}


@pytest.mark.parametrize(("path", "names"), OWNERS.items())
def test_the_scopes_say_whose_a_path_is(path: str, names: tuple[str, ...]) -> None:
    assert owners(replace(FOUND, path=path), PLAN) == names


def test_a_human_may_say_otherwise() -> None:
    assert owners(replace(FOUND, path="nowhere", owner="web"), PLAN) == ("web",)
