"""The forge against a GitHub that speaks GitHub's own description: every operation, and every answer lost once."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import (
    Change,
    Forge,
    Key,
    LineComment,
    Result,
    ResultState,
    connect,
    key_of,
    keyed,
    reference,
)
from orchgit.forge.answers import lines_of
from tests.support.forge_stage import RUN, Stage, key, stage
from tests.support.github_server import Way, unkeyed
from tests.support.repos import git


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def change(here: Stage, name: str = "api", base: str = "main") -> Change:
    here.push(name, {f"{name}.txt": name}, on=base)
    return Change(f"The {name}", f"All of {name}", name, base, ("orchgit",))


# ---- reading


def test_an_issue_and_its_comments_keep_apart_who_wrote_what(here: Stage) -> None:
    number = here.github.issue("Invoices", "as PDF\n\ud800 \x1b[31m", by="rea", labels=["feature"])
    for n in range(250):
        here.github.comment(number, f"comment {n}", by="lea" if n % 2 else "rea")
    forge = here.forge()
    issue = forge.issue(number)
    assert (issue.title, issue.body, issue.author) == ("Invoices", "as PDF\n? \x1b[31m", "rea")
    assert (issue.labels, issue.state) == (("feature",), "open")
    comments = forge.comments(number)
    assert [c.body for c in comments] == [f"comment {n}" for n in range(250)]
    assert (comments[1].author, comments[1].association, comments[1].ours) == ("lea", "COLLABORATOR", False)
    assert [s.path for s in here.github.requests if s.path.endswith("/comments")] == [
        f"/repos/acme/shop/issues/{number}/comments"
    ] * 3


def test_what_did_not_change_is_not_sent_again(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    forge = here.forge()
    assert (forge.comments(number), forge.comments(number)) == ((), ())
    assert [s.status for s in here.github.requests if s.path.endswith("/comments")] == [200, 304]
    here.github.comment(number, "new", by="lea")
    assert [c.body for c in forge.comments(number)] == ["new"]


def test_only_who_may_push_may_instruct(here: Stage) -> None:
    here.github.person("maria", "maintain")
    here.github.person("tom", "triage")
    forge = here.forge()
    people = ("acme", "lea", "maria", "tom", "rea", "nobody-at-all", "", "../../acme")
    assert [who for who in people if forge.may_write(who)] == ["acme", "lea", "maria"]
    here.github.person("lea", "read")  # it is asked each time, not remembered
    assert not forge.may_write("lea")


# ---- each write: once as it should be, and with its answer lost


@dataclass(frozen=True)
class Write:
    """One write: what is done first, what is done then, the request it comes down to, how many of it there are."""

    first: Callable[[Stage, Forge], object]
    then: Callable[[Stage, Forge, object], object]
    method: str
    path: str
    count: Callable[[Stage], int]


def _opened(here: Stage, forge: Forge) -> int:
    return forge.change(key("change/api"), change(here)).number


def _stacked(here: Stage, forge: Forge) -> int:
    _opened(here, forge)
    return forge.change(key("change/web"), change(here, "web", "api")).number


def _issue(here: Stage, forge: Forge) -> int:
    return here.github.issue("x", by="lea")


def _noted(here: Stage, forge: Forge) -> int:
    number = _issue(here, forge)
    forge.note(number, key("progress"), "begun")
    return number


def _head(here: Stage, number: object) -> str:
    return here.github.thing(int(str(number))).head_sha


SUCCESS = Result("orchgit/scope", "success", "in scope", "https://x.test/1")
MANY = Result("orchgit/scope", "failure", "out", comments=tuple(LineComment("a.txt", n, f"{n}") for n in range(1, 121)))
REMARKS = (
    LineComment("api.txt", 1, "here"),
    LineComment("api.txt", 9, "off the diff"),
    LineComment("a.txt", 0, "file"),
)
WRITES: dict[str, Write] = {
    "note": Write(
        _issue, lambda h, f, n: f.note(int(str(n)), key("progress"), "begun"), "POST", "/comments",
        lambda h: sum(len(t.comments) for t in h.github.hub.things.values()),
    ),
    "note edited": Write(
        _noted, lambda h, f, n: f.note(int(str(n)), key("progress"), "done"), "PATCH", "/issues/comments",
        lambda h: sum(c["body"].endswith("\ndone") for t in h.github.hub.things.values() for c in t.comments),
    ),
    "change": Write(
        lambda h, f: change(h), lambda h, f, c: f.change(key("change/api"), c), "POST", "/pulls",  # type: ignore[arg-type]
        lambda h: len(h.github.pulls),
    ),
    "labels": Write(
        lambda h, f: change(h), lambda h, f, c: f.change(key("change/api"), c), "POST", "/labels",  # type: ignore[arg-type]
        lambda h: len(h.github.pulls[0].labels),
    ),
    "change brought up to date": Write(
        _opened, lambda h, f, n: f.change(key("change/api"), Change("New", "words", "api", "main")), "PATCH", "/pulls",
        lambda h: sum(t.title == "New" and str(t.body).endswith("\nwords") for t in h.github.pulls),
    ),
    "retarget": Write(
        _stacked, lambda h, f, n: f.retarget(int(str(n)), "main"), "PATCH", "/pulls",
        lambda h: sum(t.base == "main" and t.head == "web" for t in h.github.pulls),
    ),
    "status": Write(
        _opened, lambda h, f, n: f.status(key("scope/api/1"), _head(h, n), SUCCESS), "POST", "/statuses",
        lambda h: len(h.github.hub.statuses),
    ),
    "review": Write(
        _opened, lambda h, f, n: f.review(int(str(n)), key("review/1"), _head(h, n), "see", REMARKS, "comment"),
        "POST", "/reviews", lambda h: sum(len(t.reviews) for t in h.github.pulls),
    ),
    "merge": Write(
        _opened, lambda h, f, n: f.merge(int(str(n)), _head(h, n), "Merge the api", "Orchgit-Run: x"), "PUT", "/merge",
        lambda h: int(h.github.hub.git("rev-list", "--count", "--merges", "main")),
    ),
    "close": Write(
        _issue, lambda h, f, n: f.close(int(str(n))), "PATCH", "/issues",
        lambda h: sum(t.state == "closed" and t.reason == "completed" for t in h.github.hub.things.values()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", ["", "before", "after", "cut"])
@pytest.mark.parametrize("what", WRITES)
def test_a_write_is_done_once_whatever_becomes_of_its_answer(here: Stage, what: str, way: Way) -> None:
    write, forge = WRITES[what], here.forge()
    given = write.first(here, forge)
    already = len(here.github.writes(write.method, write.path))
    if way:
        here.github.fault(write.method, write.path, way)
    write.then(here, forge, given)
    assert write.count(here) == 1
    assert all(fault.times == 0 for fault in here.github.faults)  # it was met
    adds = what in ("note", "change", "status", "review", "merge")
    done = 1 if adds else 2 if way in ("after", "cut") else 1  # what only sets may be sent twice
    assert len(here.github.writes(write.method, write.path)) - already <= done
    # The engine died before it wrote the outcome down, and another one does it again.
    write.then(here, here.forge(), given)
    assert write.count(here) == 1


@pytest.mark.parametrize("way", ["", "before", "after", "cut"])
def test_check_runs_have_each_annotation_once(here: Stage, way: Way) -> None:
    here.github.person("orch[bot]", "write", app=True)
    sha = here.push("api", {"api.txt": "x"}, on="main")
    if way:
        here.github.fault("POST", "/check-runs", way)
        here.github.fault("PATCH", "/check-runs", way, skip=1)
    for forge in (here.forge("orch[bot]"), here.forge("orch[bot]")):
        assert forge.me() == "orch[bot]"
        forge.status(key("scope/api/1"), sha, MANY)
        (run,) = here.github.hub.checks
        assert [note["message"] for note in run["notes"]] == [str(n) for n in range(1, 121)]
        assert (run["name"], run["conclusion"], run["external_id"]) == (
            "orchgit/scope",
            "failure",
            f"{RUN}/scope/api/1",
        )
    here.forge("orch[bot]").status(key("scope/api/1"), sha, SUCCESS)
    assert [c["conclusion"] for c in here.github.hub.checks] == ["success"]
    assert here.github.hub.statuses == []


# ---- what GitHub has rules for


def test_a_status_is_said_again_when_it_changes_and_is_cut_to_what_github_takes(here: Stage) -> None:
    sha = here.push("api", {"api.txt": "x"}, on="main")
    forge = here.forge()
    states: tuple[ResultState, ...] = ("pending", "success", "pending", "pending", "success")
    for state in states:
        forge.status(key("checks/api/1"), sha, Result("orchgit/checks", state, "ö" * 200))
    said = [(s["state"], s["description"]) for s in here.github.hub.statuses]
    assert [state for state, _ in said] == ["pending", "success", "pending", "success"]
    assert {len(text) for _, text in said} == {140}


def test_findings_off_the_diff_go_into_the_body(here: Stage) -> None:
    sha = here.push(
        "api", {"a.txt": "".join(f"line {n}\n" for n in range(1, 21)).replace("line 9\n", "nine\n9b\n")}, on="main"
    )
    number = here.forge("lea").change(key("change/api"), Change("t", "b", "api", "main")).number
    remarks = tuple(LineComment(path, line, f"{path} {line}") for path, line in (
        ("a.txt", 9), ("a.txt", 6), ("a.txt", 13), ("a.txt", 14), ("a.txt", 1), ("b.txt", 1), ("a.txt", 0),
    ))  # fmt: skip
    seen = here.forge().review(number, key("review/1"), sha, "I looked.", remarks, "request_changes")
    assert seen.state == "changes_requested"
    assert [c.line for c in seen.comments] == [9, 6, 13]
    assert unkeyed(seen.body).split("\n\n") == [
        "I looked.", "**a.txt:14** a.txt 14", "**a.txt:1** a.txt 1", "**b.txt:1** b.txt 1", "**a.txt** a.txt 0",
    ]  # fmt: skip
    assert here.forge().reviews(number) == (seen,)


def test_the_path_of_a_finding_means_nothing(here: Stage) -> None:
    sha = here.push("api", {"api.txt": "1\n"}, on="main")
    number = here.forge("lea").change(key("change/api"), Change("t", "b", "api", "main")).number
    remark = LineComment("x** @lea fixes #1\n# h", 3, "y")
    seen = here.forge().review(number, key("review/1"), sha, "I looked.", (remark,), "comment")
    shown = unkeyed(seen.body).split("\n\n")[1]
    assert shown.startswith("**x&#42;&#42; ")
    assert not re.search(r"@lea|#1|\n", html.unescape(shown))


def test_a_diff_that_moves_under_a_review_costs_its_lines_and_not_the_review(here: Stage) -> None:
    sha = here.push("api", {"api.txt": "1\n2\n"}, on="main")
    number = here.forge("lea").change(key("change/api"), Change("t", "b", "api", "main")).number
    here.push("api", {"api.txt": "1\n"})
    seen = here.forge().review(number, key("review/1"), sha, "old", (LineComment("api.txt", 2, "two"),), "comment")
    assert (seen.commit, seen.comments, "**api.txt:2** two" in seen.body) == (sha, (), True)


def test_one_line_that_github_does_not_take_costs_no_review(here: Stage) -> None:
    sha = here.push("api", {"api.txt": "1\n"}, on="main")
    number = here.forge("lea").change(key("change/api"), Change("t", "b", "api", "main")).number
    here.github.fault("POST", "/reviews", "refuse", status=422, message="Unprocessable Entity")
    seen = here.forge().review(number, key("review/1"), sha, "see", (LineComment("api.txt", 1, "one"),), "comment")
    assert (seen.comments, "**api.txt:1** one" in seen.body) == ((), True)


def test_what_others_reviewed_is_seen_with_its_lines(here: Stage) -> None:
    here.push("api", {"api.txt": "1\n2\n"}, on="main")
    number = here.forge().change(key("change/api"), Change("t", "b", "api", "main")).number
    line = {"path": "api.txt", "line": 2, "side": "RIGHT", "body": "why?"}
    here.github.review(number, "REQUEST_CHANGES", "no", by="lea", comments=[line])
    here.github.review(number, "APPROVE", "fine", by="rea")
    first, second = here.forge().reviews(number)
    assert (first.author, first.state, first.body, first.ours) == ("lea", "changes_requested", "no", False)
    assert first.comments == (LineComment("api.txt", 2, "why?", author="lea"),)
    assert (second.author, second.association, second.state) == ("rea", "NONE", "approved")


def test_a_change_is_followed_when_it_is_merged_by_a_push(here: Stage) -> None:
    forge = here.forge()
    number = _opened(here, forge)
    here.push("main", {"b.txt": "x"}, on="main")
    git(here.root, "merge", "-q", "--no-ff", "-m", "as the engine merges", "api")
    git(here.root, "push", "-q", "origin", "main", env=forge.push_env())
    seen = forge.look(number)
    assert (seen.state, seen.merged, seen.head) == ("closed", True, "api")
    assert seen.merge_sha == here.github.hub.branch("main")
    # Found, and neither opened again nor written on.
    assert forge.change(key("change/api"), Change("other", "words", "api", "main")).number == number
    assert here.github.thing(number).title == "The api"


def test_a_merge_is_of_what_was_verified_and_of_nothing_else(here: Stage) -> None:
    forge = here.forge()
    number = _opened(here, forge)
    verified = _head(here, number)
    here.push("api", {"late.txt": "x"})
    with pytest.raises(OrchgitError) as no:
        forge.merge(number, verified, "t", "m")
    assert (no.value.kind, "head moved" in no.value.what) == (Kind.NO, True)
    assert here.github.thing(number).state == "open"
    # Moved between our look and our word: GitHub itself refuses.
    verified = _head(here, number)

    def race(method: str, path: str) -> None:
        if method == "PUT" and here.github.hub.branch("api") == verified:
            here.push("api", {"later.txt": "x"})

    here.github.on_request = race
    with pytest.raises(OrchgitError) as no:
        forge.merge(number, verified, "t", "m")
    assert (no.value.kind, "Head branch was modified" in no.value.why) == (Kind.NO, True)
    assert here.github.thing(number).state == "open"


def test_an_issue_that_a_person_closed_stays_as_they_closed_it(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    here.github.thing(number).state, here.github.thing(number).reason = "closed", "not_planned"
    here.forge().close(number)
    assert here.github.thing(number).reason == "not_planned"


def test_a_long_text_is_cut_and_says_so(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    made = here.forge().note(number, key("plan/1"), "ä" * 70_000)
    assert len(made.body) == 65_536
    assert made.body.endswith("GitHub takes no more in one text)")
    assert len(here.github.thing(number).comments) == 1


def test_a_note_that_somebody_deleted_is_written_again(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    forge = here.forge()
    forge.note(number, key("progress"), "one")
    here.github.thing(number).comments.clear()
    forge.note(number, key("progress"), "two")
    assert [unkeyed(c["body"]) for c in here.github.thing(number).comments] == ["two"]


# ---- keys


def test_a_key_counts_only_in_the_first_line_of_what_we_wrote(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    here.github.comment(number, keyed(key("progress"), "imitated"), by="lea")
    here.github.comment(number, f"quoted:\n{keyed(key('progress'), 'by a person with our login')}", by="bot")
    forge = here.forge()
    forge.note(number, key("plan/1"), f"words of an issue:\n{keyed(key('progress'), '')}")
    made = forge.note(number, key("progress"), "ours")
    assert made.ours
    bodies = [c["body"] for c in here.github.thing(number).comments]
    assert ["imitated" in bodies[0], "a person" in bodies[1], bodies[3:]] == [True, True, [made.body]]


def test_a_change_of_somebody_else_on_our_branch_is_not_taken_for_ours(here: Stage) -> None:
    asked = change(here)
    here.forge("lea").change(key("change/api"), asked)
    with pytest.raises(OrchgitError) as no:
        here.forge().change(key("change/api"), asked)
    assert (no.value.kind, "already exists" in no.value.why) == (Kind.NO, True)
    assert len(here.github.pulls) == 1


def test_keys_are_read_as_they_are_written() -> None:
    assert key_of(keyed(Key("r1", "review/api/2"), "x\ny")) == Key("r1", "review/api/2")
    assert unkeyed(keyed(Key("r1", "plan/1"), "x\ny")) == "x\ny"
    assert unkeyed("no key\nhere") == "no key\nhere"
    assert key_of(" " + keyed(Key("r1", "plan/1"), "")) is None
    for run, what in (("r1", "a b"), ("r1", "x -->"), ("r1", "a--b"), ("", "x"), ("r1", "x\ny"), ("r/1", "")):
        with pytest.raises(ValueError):
            keyed(Key(run, what), "")


@pytest.mark.parametrize(
    ("text", "number", "repo", "host"),
    [
        ("65", 65, "", ""), ("#65", 65, "", ""), ("acme/shop#65", 65, "acme/shop", ""),
        ("https://github.com/acme/shop/issues/65", 65, "acme/shop", "github.com"),
        ("https://ghe.acme.test:8443/acme/sh.op/issues/65#issuecomment-1", 65, "acme/sh.op", "ghe.acme.test:8443"),
    ],
)  # fmt: skip
def test_an_issue_is_named_as_people_name_it(text: str, number: int, repo: str, host: str) -> None:
    found = reference(text)
    assert found is not None
    assert (found.number, found.repo, found.host) == (number, repo, host)


@pytest.mark.parametrize(
    "text", ["issue.md", "-", "0", "65.md", "acme/shop", "https://github.com/acme/shop", "a/b/c#1", "६५"]
)
def test_what_names_no_issue_is_a_file(text: str) -> None:
    assert reference(text) is None


def test_lines_of_a_patch() -> None:
    patch = "@@ -1,3 +1,4 @@ def f():\n a\n-b\n+c\n+d\n e\n\\ No newline at end of file\n@@ -9 +20 @@\n-x\n+y"
    assert lines_of(patch) == {1, 2, 3, 4, 20}
    assert lines_of("") == set()


def test_without_a_forge_nothing_leaves_the_machine(tmp_path: Path) -> None:
    import threading

    forge = connect("local", tmp_path, {}, tell=print, stop=threading.Event())
    forge.ready()
    assert forge.push_env() == {}
    with pytest.raises(OrchgitError) as no:
        forge.issue(65)
    assert (no.value.kind, "[forge]" in no.value.hint) == (Kind.USAGE, True)
