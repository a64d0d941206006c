"""GitHub, and GitHub Enterprise Server, as a `Forge`. REST only, but for one question that REST cannot be asked.

Of what GitHub does not promise, this takes care: it answers a write and loses the answer; it refuses a whole review
for one line outside the diff; it lets nobody request changes on their own pull request; it closes what is stacked on
a branch that is deleted; check runs are for Apps. The rules it enforces, and in which words, are also what the fake of
tests/support/github_server.py does.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import (
    Change,
    ChangeRef,
    Comment,
    Forge,
    Issue,
    Key,
    LineComment,
    Reference,
    Result,
    ReviewSeen,
    Verdict,
    access,
    key_of,
    keyed,
)
from orchgit.forge import answers as a
from orchgit.forge.checkruns import CheckRuns
from orchgit.forge.client import CAREFUL, NEAR, Client, Refused
from orchgit.forge.markdown import plain
from orchgit.forge.words import refusal, unwell

TEXT_MAX = 65_536  # characters of an issue, a comment, a pull request or a review
DESCRIPTION_MAX = 140
LINES_MAX = 50  # line comments of one review; what is beyond stands in its body


def connect(
    root: Path,
    env: Mapping[str, str],
    *,
    remote: str,
    wanted: Reference | None,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> Forge:
    place = access.find(root, remote, wanted)
    token = access.token_for(place, root, env)
    pace = CAREFUL if place.dotcom else NEAR
    client = Client(place.api, token.value, token.source, pace=pace, tell=tell, stop=stop)
    return GitHub(place, client, of_app=token.of_app, push_env=access.push_env(place, token, env))


class GitHub:
    name = "github"

    def __init__(
        self, place: access.Place, client: Client, *, of_app: bool = False, push_env: Mapping[str, str] | None = None
    ) -> None:
        self.place, self.remote = str(place), place.remote
        self._repo, self._graphql = place.repo, place.graphql
        self._owner = place.repo.partition("/")[0]
        self._client, self._push_env = client, dict(push_env or {})
        self._checks = CheckRuns(client, f"/repos/{place.repo}") if of_app else None
        self._me = ""
        self._notes: dict[tuple[int, Key], int] = {}  # where our comments are, once they were looked up

    def push_env(self) -> Mapping[str, str]:
        return dict(self._push_env)

    def me(self) -> str:
        if not self._me:
            try:
                said = self._client.get("/user")
            except Refused as no:
                if no.status != 403:
                    raise self._say(no, "who we are") from no
                said = self._viewer()
            self._me = a.parse(a.User, said).login
        return self._me

    def _viewer(self) -> object:
        """An App's token is no user to REST."""
        try:
            said = self._client.put("POST", self._graphql, {"query": "query { viewer { login } }"})
        except Refused as no:
            raise self._say(no, "who we are") from no
        viewer = ((said or {}).get("data") or {}).get("viewer")
        if not viewer:
            raise OrchgitError(
                Kind.UNAVAILABLE, f"{self.place} does not say who this token is", "", "use another token"
            )
        return viewer

    def ready(self) -> None:
        self.me()
        if wrong := unwell(self.place, self._repository(), self._client.source, f"a run cannot write to {self.place}"):
            raise wrong

    def _repository(self) -> a.Repository:
        try:
            return a.parse(a.Repository, self._client.get(self._at("")))
        except Refused as no:
            raise refusal(no, f"{self.place} cannot be read", self.place, None, self._client.source) from no

    # ---- reading

    def issue(self, number: int) -> Issue:
        found = self._issue(number)
        if found.pull_request is not None:
            raise OrchgitError(
                Kind.NO, f"{self._repo}#{number} is a pull request, not an issue", a_line(found.title),
                "name the issue that it is for",
            )  # fmt: skip
        return found.issue()

    def _issue(self, number: int) -> a.IssueAnswer:
        try:
            found = a.parse(a.IssueAnswer, self._client.get(self._at(f"/issues/{number}")))
        except Refused as no:
            raise self._say(no, f"issue {self._repo}#{number} cannot be read") from no
        if not found.repository_url.lower().endswith(f"/repos/{self._repo}".lower()):
            raise OrchgitError(
                Kind.NO, f"issue {self._repo}#{number} was moved", f"it is now {a_line(found.html_url)}",
                "name it there, in a clone of that repository; for a renamed one: git remote set-url",
            )  # fmt: skip
        return found

    def comments(self, number: int, since: str = "") -> tuple[Comment, ...]:
        me = self.me()
        try:
            found = self._client.pages(self._at(f"/issues/{number}/comments"), **({"since": since} if since else {}))
            return tuple(a.parse(a.CommentAnswer, each).comment(me) for each in found)
        except Refused as no:
            raise self._say(no, f"the comments of {self._repo}#{number} cannot be read") from no

    def may_write(self, login: str) -> bool:
        if not login:
            return False
        try:
            said = self._client.get(self._at(f"/collaborators/{quote(login, safe='')}/permission"))
        except Refused as no:
            if no.status == 404:
                return False
            raise self._say(no, f"whether {a_line(login)} may write cannot be asked") from no
        return isinstance(said, dict) and said.get("permission") in ("admin", "write")  # maintain is "write" here

    def look(self, number: int) -> ChangeRef:
        return self._change(number).change()

    def _change(self, number: int) -> a.ChangeAnswer:
        try:
            return a.parse(a.ChangeAnswer, self._client.get(self._at(f"/pulls/{number}")))
        except Refused as no:
            raise self._say(no, f"pull request {self._repo}#{number} cannot be read") from no

    def reviews(self, number: int) -> tuple[ReviewSeen, ...]:
        me = self.me()
        try:
            reviews = [a.parse(a.ReviewAnswer, r) for r in self._client.pages(self._at(f"/pulls/{number}/reviews"))]
            lines = [a.parse(a.LineAnswer, c) for c in self._client.pages(self._at(f"/pulls/{number}/comments"))]
        except Refused as no:
            raise self._say(no, f"the reviews of {self._repo}#{number} cannot be read") from no
        # A pending one is our own, which nobody has submitted: it says nothing yet.
        said = [r for r in reviews if r.state != "PENDING"]
        return tuple(r.review([c for c in lines if c.pull_request_review_id == r.id], me) for r in said)

    # ---- writing

    def note(self, number: int, key: Key, body: str) -> Comment:
        body = clip(keyed(key, body))
        known = self._notes.get((number, key))
        at = self._at(f"/issues/{number}/comments")
        try:
            there = self._edit(known, body) if known else None
            if there is None:
                there = self._client.once(
                    lambda: self._note(number, key),
                    lambda: self._comment(self._client.create("POST", at, {"body": body})),
                )
                if there.body != body:
                    there = self._edit(there.id, body) or there
        except Refused as no:
            raise self._say(no, f"no comment can be written on {self._repo}#{number}") from no
        self._notes[number, key] = there.id
        return there

    def _note(self, number: int, key: Key) -> Comment | None:
        return next((c for c in self.comments(number) if c.ours and key_of(c.body) == key), None)

    def _edit(self, comment: int, body: str) -> Comment | None:
        """None when it is gone: somebody deleted it."""
        try:
            said = self._client.put("PATCH", self._at(f"/issues/comments/{comment}"), {"body": body})
        except Refused as no:
            if no.status == 404:
                return None
            raise
        return self._comment(said)

    def _comment(self, said: object) -> Comment:
        return a.parse(a.CommentAnswer, said).comment(self.me())

    def change(self, key: Key, change: Change) -> ChangeRef:
        body = clip(keyed(key, change.body))
        title = a_line(change.title)[:256]
        asked = {"title": title, "head": change.head, "base": change.base, "body": body}
        what = f"no pull request can be opened from {change.head} to {change.base}"
        try:
            found = self._client.once(
                lambda: self._ours(key, change.head),
                lambda: a.parse(a.ChangeAnswer, self._client.create("POST", self._at("/pulls"), asked)),
            )
            if found.state == "open" and (found.title, found.body) != (title, body):
                said = self._client.put("PATCH", self._at(f"/pulls/{found.number}"), {"title": title, "body": body})
                found = a.parse(a.ChangeAnswer, said)
            missing = [each for each in change.labels if each not in {label.name for label in found.labels}]
            if missing:
                self._client.put("POST", self._at(f"/issues/{found.number}/labels"), {"labels": missing})
        except Refused as no:
            raise self._say(no, what) from no
        return found.change()

    def _ours(self, key: Key, head: str) -> a.ChangeAnswer | None:
        """Our pull request with this key, the open one first."""
        me = self.me().lower()
        listed = self._client.pages(self._at("/pulls"), head=f"{self._owner}:{head}", state="all")
        found = [each for each in (a.parse(a.ChangeAnswer, raw) for raw in listed) if key_of(each.body) == key]
        mine = [each for each in found if each.user and each.user.login.lower() == me]
        return min(mine, key=lambda each: (each.state != "open", -each.number), default=None)

    def retarget(self, number: int, base: str) -> ChangeRef:
        there = self._change(number)
        if there.base.ref == base:
            return there.change()
        if there.state != "open":
            raise OrchgitError(Kind.NO, f"{self._repo}#{number} is closed: its base stays {there.base.ref}", "", "")
        try:
            said = self._client.put("PATCH", self._at(f"/pulls/{number}"), {"base": base})
        except Refused as no:
            raise self._say(no, f"{self._repo}#{number} cannot go onto {base}") from no
        return a.parse(a.ChangeAnswer, said).change()

    def status(self, key: Key, sha: str, result: Result) -> None:
        try:
            if self._checks is not None:
                return self._checks.say(key, sha, result)
            description = shorten(a_line(result.description), DESCRIPTION_MAX)
            asked = {"state": result.state, "context": result.context, "description": description}
            if result.url:
                asked["target_url"] = result.url
            self._client.once(
                lambda: self._said(sha, asked),
                lambda: a.parse(a.StatusAnswer, self._client.create("POST", self._at(f"/statuses/{sha}"), asked)),
            )
        except Refused as no:
            raise self._say(no, f"{result.context} cannot be said at {sha[:10]}") from no

    def _said(self, sha: str, asked: Mapping[str, str]) -> a.StatusAnswer | None:
        """What stands there now, if it is just that. The newest comes first."""
        for raw in self._client.pages(self._at(f"/commits/{sha}/statuses")):
            there = a.parse(a.StatusAnswer, raw)
            if there.context == asked["context"]:
                same = (there.state, there.description, there.target_url)
                return there if same == (asked["state"], asked["description"], asked.get("target_url", "")) else None
        return None

    def review(
        self, number: int, key: Key, sha: str, body: str, comments: Sequence[LineComment], verdict: Verdict
    ) -> ReviewSeen:
        def write() -> ReviewSeen:
            change = self._change(number)
            own = change.user is not None and change.user.login.lower() == self.me().lower()
            event = "COMMENT" if own or verdict == "comment" else "REQUEST_CHANGES"
            # The diff that GitHub shows is the head's: at an older commit, no line can be trusted to be in it.
            inside = self._inside(number, comments) if change.head.sha == sha else []
            try:
                return self._submit(number, key, sha, body, comments, inside, event)
            except Refused as no:
                if no.status != 422 or not inside:
                    raise
                # One line that it does not take, and it takes nothing: say all of it in the body.
                return self._submit(number, key, sha, body, comments, [], event)

        try:
            return self._client.once(lambda: self._reviewed(number, key), write)
        except Refused as no:
            raise self._say(no, f"{self._repo}#{number} cannot be reviewed") from no

    def _submit(
        self, number: int, key: Key, sha: str, body: str, comments: Sequence[LineComment],
        inside: Sequence[LineComment], event: str,
    ) -> ReviewSeen:  # fmt: skip
        outside = [c for c in comments if c not in inside]
        asked = {
            "commit_id": sha, "event": event, "body": clip(keyed(key, "\n\n".join([body, *map(_in_words, outside)]))),
            "comments": [{"path": c.path, "line": c.line, "side": "RIGHT", "body": clip(c.body)} for c in inside],
        }  # fmt: skip
        said = a.parse(a.ReviewAnswer, self._client.create("POST", self._at(f"/pulls/{number}/reviews"), asked))
        return said.review(
            [a.LineAnswer(path=c.path, line=c.line, body=c.body, user=said.user) for c in inside], self.me()
        )

    def _reviewed(self, number: int, key: Key) -> ReviewSeen | None:
        return next((r for r in self.reviews(number) if r.ours and key_of(r.body) == key), None)

    def _inside(self, number: int, comments: Sequence[LineComment]) -> list[LineComment]:
        if not any(c.line for c in comments):
            return []
        files = (a.parse(a.FileAnswer, raw) for raw in self._client.pages(self._at(f"/pulls/{number}/files")))
        wanted = {c.path for c in comments}
        shown = {f.filename: a.lines_of(f.patch) for f in files if f.filename in wanted}
        return [c for c in comments if c.line in shown.get(c.path, ())][:LINES_MAX]

    def merge(self, number: int, sha: str, title: str, message: str) -> str:
        asked = {"sha": sha, "merge_method": "merge", "commit_title": a_line(title), "commit_message": message}

        def merged() -> str | None:
            there = self.look(number)
            if there.head_sha != sha:
                raise OrchgitError(
                    Kind.NO, f"{self._repo}#{number} is not what was verified: its head moved",
                    f"verified: {sha[:10]}; now: {there.head_sha[:10]}" + (", merged" if there.merged else ""),
                    f"git log {sha[:10]}..{there.head_sha[:10]}",
                )  # fmt: skip
            if there.state == "closed" and not there.merged:
                raise OrchgitError(Kind.NO, f"{self._repo}#{number} is closed", "it was not merged", "reopen it there")
            return there.merge_sha or None

        def write() -> str:
            return str(self._client.create("PUT", self._at(f"/pulls/{number}/merge"), asked)["sha"])

        try:
            return self._client.once(merged, write)
        except Refused as no:
            raise self._say(no, f"{self._repo}#{number} cannot be merged") from no

    def close(self, number: int) -> None:
        there = self._issue(number)
        if there.state == "closed":
            return
        asked = {"state": "closed"}
        if there.pull_request is None:
            asked["state_reason"] = "completed"
        try:
            self._client.put("PATCH", self._at(f"/issues/{number}"), asked)
        except Refused as no:
            raise self._say(no, f"{self._repo}#{number} cannot be closed") from no

    # ---- words

    def _at(self, path: str) -> str:
        return f"/repos/{self._repo}{path}"

    def _say(self, no: Refused, what: str) -> OrchgitError:
        """What GitHub refused, and why. It says 404 for what a token may not see, and 403 for nearly all else: so
        the repository itself is asked."""
        repository = None
        if no.status in (403, 404, 410):
            try:
                repository = a.parse(a.Repository, self._client.get(self._at("")))
            except (Refused, OrchgitError):
                pass  # then the words stand without it
        return refusal(no, what, self.place, repository, self._client.source)


def a_line(text: str) -> str:
    """Somebody's words on one line, nothing in them that a terminal obeys."""
    return re.sub(
        r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def shorten(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def clip(text: str) -> str:
    """What fits into one body; the end says that there is more."""
    more = "\n\n… (cut here: GitHub takes no more in one text)"
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - len(more)] + more


def _in_words(comment: LineComment) -> str:
    where = plain(comment.path) + (f":{comment.line}" if comment.line else "")
    return f"**{where}** {comment.body}"
