"""The tests' own GitHub must notice what GitHub would not take, or the forge's tests prove nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forge_stage import Stage, stage
from tests.support.github.renew import OPERATIONS as SLICE
from tests.support.github_server import OPERATIONS, REPO
from tests.support.repos import git


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def ask(here: Stage, method: str, path: str, body: Any = None, *, who: str = "bot", token: str = "") -> tuple[int, Any]:
    import httpx2

    headers = {"Authorization": f"Bearer {token or here.github.hub.people[who].token}"}
    url = f"{here.github.url}/api/v3/repos/acme/shop{path}"
    said = httpx2.request(method, url, json=body, headers=headers)
    return said.status_code, said.json() if said.content else None


def test_it_knows_each_operation_of_the_slice() -> None:
    known = {(method.lower(), REPO + path if path != "/user" else path) for method, path in OPERATIONS}
    assert known == {(method, path) for path, methods in SLICE.items() for method in methods}


@pytest.mark.parametrize(
    ("method", "path", "body", "problem"),
    [
        ("POST", "/pulls", {"title": "t", "head": "x"}, "'base' is a required property"),
        ("POST", "/pulls", {"title": "t", "head": "x", "base": "main", "draft": "yes"}, "is not of type 'boolean'"),
        ("POST", "/pulls", {"title": "t", "head": "x", "base": "main", "reviewers": []}, "reviewers is not known"),
        ("GET", "/pulls?sate=all", None, "sate is not known"),
        ("POST", f"/statuses/{'1' * 40}", {"state": "passed"}, "is not one of"),
        ("GET", "/nothing", None, "is not in the slice"),
    ],
)
def test_a_wrong_request_is_a_problem(here: Stage, method: str, path: str, body: Any, problem: str) -> None:
    status, _ = ask(here, method, path, body)
    assert status in (404, 422)
    assert any(problem in found for found in here.github.problems), here.github.problems
    here.github.problems.clear()


@pytest.mark.parametrize("change", [{"state": "merged"}, {"merged_at": "yesterday"}, {"html_url": 7}, {"user": {}}])
def test_a_wrong_answer_is_a_problem(here: Stage, change: dict[str, Any]) -> None:
    here.push("api", {"x": "x"}, on="main")
    assert ask(here, "POST", "/pulls", {"title": "t", "head": "api", "base": "main"})[0] == 201
    assert here.github.problems == []
    pull = here.github.hub.see_pull(here.github.pulls[0], whole=True)
    found = list(here.github.spec.answer("GET", f"{REPO}/pulls/{{pull_number}}", 200, {**pull, **change}))
    assert found
    del pull["head"]
    assert any("'head' is a required" in f for f in here.github.spec.answer("POST", f"{REPO}/pulls", 201, pull))


def test_who_may_not_is_refused(here: Stage) -> None:
    here.push("api", {"x": "x"}, on="main")
    asked = {"title": "t", "head": "api", "base": "main"}
    assert ask(here, "POST", "/pulls", asked, who="rea")[0] == 403
    assert ask(here, "POST", "/pulls", asked, token="nobody's")[0] == 401
    assert ask(here, "POST", "/check-runs", {"name": "x", "head_sha": "1" * 40})[0] == 403
    assert ask(here, "POST", "/pulls", asked)[0] == 201
    review = {"event": "APPROVE", "body": "", "commit_id": here.github.pulls[0].head_sha}
    assert ask(here, "POST", "/pulls/1/reviews", review)[0] == 422  # one's own
    assert ask(here, "POST", "/pulls/1/reviews", review, who="lea")[0] == 200
    line = {**review, "event": "COMMENT", "body": "x", "comments": [{"path": "a.txt", "line": 1, "body": "x"}]}
    assert ask(here, "POST", "/pulls/1/reviews", line)[0] == 422  # off the diff
    assert len(here.github.pulls[0].reviews) == 1


def test_a_branch_that_goes_takes_its_pull_requests_with_it(here: Stage) -> None:
    here.push("api", {"x": "x"}, on="main")
    here.push("web", {"y": "y"}, on="api")
    for head, base in (("api", "main"), ("web", "api")):
        assert ask(here, "POST", "/pulls", {"title": "t", "head": head, "base": base})[0] == 201
    git(here.root, "push", "-q", "origin", ":api", env=here.forge().push_env())
    assert [pull.state for pull in here.github.pulls] == ["closed", "closed"]
    assert ask(here, "PATCH", "/pulls/2", {"base": "main"})[0] == 422
