"""What a forge can refuse, and a person can meet: each in words, with what to do next, and nothing half done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Change, Forge, Result
from tests.support.forge_stage import Stage, key, stage


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def refused(ask: Callable[[], object]) -> OrchgitError:
    with pytest.raises(OrchgitError) as no:
        ask()
    assert no.value.what
    assert no.value.why
    assert no.value.hint
    return no.value


def everything(here: Stage) -> object:
    """What a refused write must leave as it is."""
    hub = here.github.hub
    return repr([(t, len(t.comments), len(t.reviews)) for t in hub.things.values()]), len(hub.statuses), len(hub.checks)


def test_a_wrong_token(here: Stage) -> None:
    forge = here.forge(env={**here.env(), "ORCHGIT_GITHUB_TOKEN": "ghp_" + "0" * 36})
    no = refused(forge.ready)
    assert no.kind is Kind.UNAVAILABLE
    assert (
        no.why == f"{forge.place} does not take the token from ORCHGIT_GITHUB_TOKEN. GitHub says (401): Bad credentials"
    )
    assert "gh auth login" in no.hint


def test_a_token_that_may_only_read(here: Stage) -> None:
    forge = here.forge("rea")
    number = here.github.issue("x", by="lea")
    sha = here.push("api", {"api.txt": "x"}, on="main")
    assert forge.issue(number).title == "x"
    before = everything(here)
    ready = refused(forge.ready)
    assert ready.kind is Kind.UNAVAILABLE
    assert ready.why == f"the token from ORCHGIT_GITHUB_TOKEN may not push to {forge.place}."
    for ask in (
        lambda: forge.change(key("change/api"), Change("t", "b", "api", "main")),
        lambda: forge.status(key("scope/api"), sha, Result("orchgit/scope", "success", "x")),
        lambda: forge.close(number),
        lambda: forge.may_write("lea"),
    ):
        no = refused(ask)
        assert (no.kind, "may not" in no.why) == (Kind.UNAVAILABLE, True)
    assert everything(here) == before


def test_a_repository_that_the_token_may_not_see(here: Stage) -> None:
    here.github.person("eve", "none")
    no = refused(lambda: here.forge("eve").issue(1))
    assert no.kind is Kind.UNAVAILABLE
    assert "or the token from ORCHGIT_GITHUB_TOKEN may not see it" in no.why


def test_an_issue_that_is_not_there(here: Stage) -> None:
    no = refused(lambda: here.forge().issue(7))
    assert (no.kind, no.what) == (Kind.NO, "issue acme/shop#7 cannot be read")


def test_an_issue_that_is_a_pull_request(here: Stage) -> None:
    here.push("api", {"api.txt": "x"}, on="main")
    forge = here.forge()
    number = forge.change(key("change/api"), Change("Add \x1b[2J", "b", "api", "main")).number
    no = refused(lambda: forge.issue(number))
    assert (no.kind, no.what) == (Kind.NO, f"acme/shop#{number} is a pull request, not an issue")
    assert "\x1b" not in no.why


def test_issues_are_off(here: Stage) -> None:
    here.github.hub.has_issues = False
    no = refused(lambda: here.forge().issue(1))
    assert (no.kind, no.why) == (Kind.NO, "acme/shop has no issues: they are off")
    assert "issue.md" in no.hint


def test_a_fork_has_its_issues_elsewhere(here: Stage) -> None:
    here.github.hub.has_issues, here.github.hub.parent = False, "upstream/shop"
    no = refused(lambda: here.forge().issue(1))
    assert (no.kind, no.why) == (Kind.NO, "acme/shop has no issues: it is a fork of upstream/shop")
    assert "upstream/shop#NUMBER" in no.hint


def test_a_fork_of_somebody_else(here: Stage) -> None:
    here.github.hub.parent = "upstream/shop"
    no = refused(here.forge("rea").ready)
    assert no.why.endswith("a fork of upstream/shop.")
    here.forge().ready()  # a fork of our own is a repository like any other


def test_an_archived_repository(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    here.github.hub.archived = True
    forge = here.forge()
    assert forge.issue(number).title == "x"
    before = everything(here)
    for ask in (forge.ready, lambda: forge.note(number, key("plan/1"), "x"), lambda: forge.close(number)):
        no = refused(ask)
        assert (no.kind, "is archived: nobody can write to it" in no.why) == (Kind.UNAVAILABLE, True)
    assert everything(here) == before


def test_an_issue_that_was_moved(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    there = here.github.issue("elsewhere", by="lea")
    here.github.hub.thing(str(number)).moved_to = f"{here.github.url}/api/v3/repos/acme/shop/issues/{there}"
    assert here.forge().issue(number).title == "elsewhere"  # within the repository: followed
    here.github.hub.thing(str(number)).moved_to = "https://api.elsewhere.test/repos/acme/other/issues/1"
    no = refused(lambda: here.forge().issue(number))
    assert (no.kind, "acme/other/issues/1" in no.why) == (Kind.NO, True)


def _nothing(here: Stage, forge: Forge) -> object:
    here.push("api", {"a.txt": "x"}, on="main")
    here.push("main", {"b.txt": "x"}, on="api")
    return forge.change(key("change/api"), Change("t", "b", "api", "main"))


def _no_base(here: Stage, forge: Forge) -> object:
    here.push("api", {"a.txt": "x"}, on="main")
    return forge.change(key("change/api"), Change("t", "b", "api", "nowhere"))


def _no_head(here: Stage, forge: Forge) -> object:
    return forge.change(key("change/api"), Change("t", "b", "nowhere", "main"))


def _draft(here: Stage, forge: Forge) -> object:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    here.github.thing(number).draft = True
    return forge.merge(number, sha, "t", "m")


def _required(here: Stage, forge: Forge) -> object:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    here.github.hub.required_checks = ("orchgit/scope",)
    forge.status(key("scope/api"), sha, Result("orchgit/scope", "failure", "out"))
    return forge.merge(number, sha, "t", "m")


def _approval(here: Stage, forge: Forge) -> object:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    here.github.hub.required_approvals = 1
    here.github.review(number, "APPROVE", "fine", by="rea")  # who may not write does not count
    return forge.merge(number, sha, "t", "m")


def _conflict(here: Stage, forge: Forge) -> object:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    here.push("main", {"a.txt": "y"}, on="main")
    return forge.merge(number, sha, "t", "m")


def _closed(here: Stage, forge: Forge) -> object:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    here.github.edit(number, by="lea", state="closed")
    assert forge.change(key("change/api"), Change("t", "b", "api", "main")).state == "closed"  # found, not reopened
    return forge.merge(number, sha, "t", "m")


def _retarget(here: Stage, forge: Forge) -> object:
    here.push("api", {"a.txt": "x"}, on="main")
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    return forge.retarget(number, "nowhere")


def _unknown_commit(here: Stage, forge: Forge) -> object:
    forge.status(key("scope/api"), "1" * 40, Result("orchgit/scope", "success", "x"))
    return None


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (_nothing, "No commits between main and api"),
        (_no_base, "PullRequest base invalid"),
        (_no_head, "PullRequest head invalid"),
        (_draft, "Pull Request is still a draft"),
        (_required, 'Required status check "orchgit/scope" is expected.'),
        (_approval, "At least 1 approving review is required"),
        (_conflict, "Pull Request is not mergeable"),
        (_closed, "it was not merged"),
        (_retarget, "PullRequest base invalid"),
        (_unknown_commit, f"No commit found for SHA: {'1' * 40}"),
    ],
)
def test_what_github_does_not_do(here: Stage, ask: Callable[[Stage, Forge], object], why: str) -> None:
    no = refused(lambda: ask(here, here.forge()))
    assert no.kind is Kind.NO
    assert why in no.why


def test_our_own_pull_request_is_commented_where_changes_cannot_be_requested(here: Stage) -> None:
    sha = here.push("api", {"a.txt": "x"}, on="main")
    forge = here.forge()
    number = forge.change(key("change/api"), Change("t", "b", "api", "main")).number
    assert forge.review(number, key("review/1"), sha, "no", (), "request_changes").state == "commented"


def test_single_sign_on(here: Stage) -> None:
    here.github.fault(
        "GET", "/issues/", "refuse", status=403, message="Resource protected by organization SAML enforcement.",
        headers={"x-github-sso": "required; url=https://github.test/orgs/acme/sso?authorization_request=1"},
    )  # fmt: skip
    no = refused(lambda: here.forge().issue(1))
    assert no.hint == "authorise it: https://github.test/orgs/acme/sso?authorization_request=1"
