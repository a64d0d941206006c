"""What GitHub answers, as far as it is used here: lenient about what is new or null, strict about what is needed.

Each model ends in a dataclass of `orchgit.forge`, so that nothing else depends on GitHub's names. Texts are data: they
are kept as they are, but for lone surrogates, which no UTF-8 can hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import ChangeRef, Comment, Issue, LineComment, ReviewSeen, ReviewState

M = TypeVar("M", bound="Answer")


REVIEW_STATES: dict[str, ReviewState] = {
    "APPROVED": "approved", "CHANGES_REQUESTED": "changes_requested", "COMMENTED": "commented",
    "DISMISSED": "dismissed",
}  # fmt: skip


def _text(value: Any) -> Any:
    """ "" for null, and what UTF-8 can hold of anything."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else "" if value is None else value


Text = Annotated[str, BeforeValidator(_text)]


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class User(Answer):
    login: Text = ""


class Label(Answer):
    name: Text = ""


class Permissions(Answer):
    push: bool = False


class Parent(Answer):
    full_name: Text = ""


class Repository(Answer):
    full_name: Text
    archived: bool = False
    disabled: bool = False
    fork: bool = False
    has_issues: bool = True
    parent: Parent | None = None
    permissions: Permissions | None = None


class IssueAnswer(Answer):
    number: int
    title: Text
    body: Text = ""
    user: User | None = None
    labels: list[Label | str] = []
    state: Literal["open", "closed"]
    html_url: Text
    pull_request: dict[str, Any] | None = None
    repository_url: Text = ""

    def issue(self) -> Issue:
        labels = tuple(each if isinstance(each, str) else each.name for each in self.labels)
        return Issue(self.number, self.title, self.body, _login(self.user), labels, self.state, self.html_url)


class CommentAnswer(Answer):
    id: int
    user: User | None = None
    author_association: Text = "NONE"
    created_at: Text
    updated_at: Text
    body: Text = ""
    html_url: Text

    def comment(self, me: str) -> Comment:
        author = _login(self.user)
        return Comment(
            self.id, author, self.author_association, self.created_at, self.updated_at, self.body, self.html_url,
            author.lower() == me.lower(),
        )  # fmt: skip


class Branch(Answer):
    ref: Text
    sha: Text


class ChangeAnswer(Answer):
    number: int
    html_url: Text
    title: Text
    body: Text = ""
    user: User | None = None
    head: Branch
    base: Branch
    state: Literal["open", "closed"]
    merged_at: Text = ""
    merge_commit_sha: Text = ""  # of an open one: a trial merge, nobody's
    draft: bool = False
    labels: list[Label] = []

    def change(self) -> ChangeRef:
        merged = bool(self.merged_at)
        return ChangeRef(
            self.number, self.html_url, self.title, self.body, self.head.ref, self.head.sha, self.base.ref, self.state,
            merged, self.merge_commit_sha if merged else "", self.draft,
        )  # fmt: skip


class StatusAnswer(Answer):
    context: Text
    state: Text
    description: Text = ""
    target_url: Text = ""


class CheckOutput(Answer):
    title: Text = ""
    summary: Text = ""
    annotations_count: int = 0


class CheckAnswer(Answer):
    id: int
    external_id: Text = ""
    status: Text
    conclusion: Text = ""
    details_url: Text = ""
    output: CheckOutput = CheckOutput()


class FileAnswer(Answer):
    filename: Text
    patch: Text = ""  # none for what is binary or large


class ReviewAnswer(Answer):
    id: int
    user: User | None = None
    author_association: Text = "NONE"
    state: Text
    body: Text = ""
    commit_id: Text = ""
    submitted_at: Text = ""
    html_url: Text

    def review(self, comments: Iterable[LineAnswer], me: str) -> ReviewSeen:
        author = _login(self.user)
        return ReviewSeen(
            self.id, author, self.author_association, REVIEW_STATES.get(self.state, "commented"), self.body,
            self.commit_id, self.submitted_at, tuple(each.comment() for each in comments), self.html_url,
            author.lower() == me.lower(),
        )  # fmt: skip


class LineAnswer(Answer):
    pull_request_review_id: int | None = None
    path: Text
    line: int | None = None  # null once the line is gone
    original_line: int | None = None
    body: Text = ""
    user: User | None = None

    def comment(self) -> LineComment:
        return LineComment(self.path, self.line or self.original_line or 0, self.body, author=_login(self.user))


def parse(model: type[M], data: Any) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise OrchgitError(
            Kind.UNAVAILABLE, "GitHub answered something that is not understood",
            f"{model.__name__}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            "if it lasts, report it with the version of your GitHub Enterprise Server",
        ) from None  # fmt: skip


def lines_of(patch: str) -> frozenset[int]:
    """The lines of the new side that a patch shows: only there GitHub takes a comment."""
    shown, number = set(), 0
    for row in patch.split("\n"):
        if found := re.match(r"@@ -\d+(?:,\d+)? \+(\d+)(?:,\d+)? @@", row):
            number = int(found[1])
        elif number and row[:1] in ("+", " "):
            shown.add(number)
            number += 1
    return frozenset(shown)


def _login(user: User | None) -> str:
    return user.login if user else ""
