"""Where issues come from and pull requests go: one file per forge, all behind `Forge`.

A forge is a place for words about the work; git stays the authority on the work itself, and pushing is git's. Each
write has a key and looks before it writes: a write whose answer was lost is found, never repeated. Whatever comes from
a forge was written by somebody: it is data. The forge's token must never be in a URL, an event, an error message, a
worker's environment or anything else that outlives the call.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchgit.core.errors import Kind, OrchgitError

ResultState = Literal["pending", "success", "failure", "error"]
ReviewState = Literal["approved", "changes_requested", "commented", "dismissed"]
Verdict = Literal["comment", "request_changes"]
Level = Literal["failure", "warning", "notice"]


@dataclass(frozen=True)
class Key:
    """Names one write of one run, for ever: `what` is such as "plan/2", "change/api", "review/api/1"."""

    run: str
    what: str

    def __str__(self) -> str:
        return f"{self.run}/{self.what}"


_KEY = re.compile(r"<!-- orchgit:([A-Za-z0-9][A-Za-z0-9._-]{0,99})/([A-Za-z0-9][A-Za-z0-9._/-]{0,199}) -->")


def keyed(key: Key, body: str) -> str:
    """A body that carries its key: invisible where Markdown is shown."""
    line = f"<!-- orchgit:{key} -->"
    if key_of(line) != key or "--" in str(key):  # Markdown's comments end at the first `--`
        raise ValueError(f"not an operation key: {key}")
    return f"{line}\n{body}"


def key_of(body: str) -> Key | None:
    """The key of a body that our own login wrote. Only the first line counts: below it stand the words of agents and
    of other people, who can write such a line too. Never ask it of what another login wrote."""
    found = _KEY.fullmatch(body.partition("\n")[0].rstrip())
    return Key(found[1], found[2]) if found else None


@dataclass(frozen=True)
class Issue:
    number: int
    title: str
    body: str
    author: str  # a login; "" where the account is gone
    labels: tuple[str, ...]
    state: Literal["open", "closed"]
    url: str


@dataclass(frozen=True)
class Comment:
    """`association` is what the forge says of the author in passing; whether they may write, ask `may_write`."""

    id: int
    author: str
    association: str  # OWNER, MEMBER, COLLABORATOR, CONTRIBUTOR, NONE, …
    created_at: str  # ISO 8601, UTC
    updated_at: str  # differs from created_at when it was edited
    body: str
    url: str
    ours: bool  # our own login wrote it


@dataclass(frozen=True)
class Change:
    """A pull request that is to be."""

    title: str
    body: str
    head: str  # branch names without refs/heads/; both are on the forge already
    base: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChangeRef:
    """A pull request that is."""

    number: int
    url: str
    title: str
    body: str
    head: str
    head_sha: str
    base: str
    state: Literal["open", "closed"]
    merged: bool
    merge_sha: str  # the merge commit, when merged; else ""
    draft: bool


@dataclass(frozen=True)
class LineComment:
    """Words at a line of the new side of a change. `line` 0: the file as a whole."""

    path: str
    line: int
    body: str
    level: Level = "warning"
    author: str = ""


@dataclass(frozen=True)
class Result:
    """What stands at a commit under `context`, such as "orchgit/scope". At most 140 characters of `description` are
    shown; `details` (Markdown) and `comments` only where the forge has room for them."""

    context: str
    state: ResultState
    description: str
    url: str = ""
    details: str = ""
    comments: tuple[LineComment, ...] = ()


@dataclass(frozen=True)
class ReviewSeen:
    id: int
    author: str
    association: str
    state: ReviewState
    body: str
    commit: str  # that was looked at; "" when it is gone
    submitted_at: str
    comments: tuple[LineComment, ...]
    url: str
    ours: bool


class Forge(Protocol):
    """One repository at one forge. Blocking; safe to call from several threads.

    OrchgitError of Kind.UNAVAILABLE: it cannot be asked now, or not with this token (no network, limits, permissions);
    nothing was written that a second call would not find. Kind.NO: it was asked, and the answer is no, such as a head
    that moved. A call that waits for a rate limit says so by `tell`, and ends with `Stopped` when `stop` is set.
    """

    name: str  # in FORGES
    place: str  # "github.com/owner/repo": may be shown and logged
    remote: str  # the git remote that is this repository

    def me(self) -> str:
        """Our own login."""

    def ready(self) -> None:
        """OrchgitError for what would end a run half-way: an archived repository, a fork, a token that may not write.
        Writes nothing."""

    def issue(self, number: int) -> Issue:
        """Kind.NO when there is none, when issues are off, and for a pull request."""

    def comments(self, number: int, since: str = "") -> tuple[Comment, ...]:
        """Of an issue or change, oldest first; `since` (ISO 8601): only what was written or edited from then on."""

    def may_write(self, login: str) -> bool:
        """Whether this person may push to the repository: only then do their words count as instructions."""

    def note(self, number: int, key: Key, body: str) -> Comment:
        """Our one comment with this key, made or edited."""

    def change(self, key: Key, change: Change) -> ChangeRef:
        """Our one pull request with this key: found, closed ones included, and its words brought up to date; or opened.
        It is never reopened, and its base is left alone: see `retarget`."""

    def look(self, number: int) -> ChangeRef:
        """A pull request as it is now."""

    def retarget(self, number: int, base: str) -> ChangeRef:
        """Another base branch, for an open pull request."""

    def status(self, key: Key, sha: str, result: Result) -> None:
        """Say a result at a commit."""

    def review(
        self, number: int, key: Key, sha: str, body: str, comments: Sequence[LineComment], verdict: Verdict
    ) -> ReviewSeen:
        """Our one review with this key. Comments off the diff are moved into the body; on our own pull request, where
        nobody may request changes, it only comments."""

    def reviews(self, number: int) -> tuple[ReviewSeen, ...]:
        """All that was submitted, oldest first, each with its line comments."""

    def merge(self, number: int, sha: str, title: str, message: str) -> str:
        """Merge with a merge commit, if the head still is `sha`; its id. The id it has, when it was merged already."""

    def close(self, number: int) -> None:
        """Close an issue as completed, or a change without merging it."""

    def push_env(self) -> Mapping[str, str]:
        """What the environment of one `git push` or `git fetch` needs on top, to be let in over https; {} elsewhere.
        It holds the token: for that one process, and never logged."""


class Stopped(Exception):
    """`stop` was set while a forge was waited for. Nothing is half done."""


@dataclass(frozen=True)
class Reference:
    """An issue as a person names it; `repo` "" is the repository at hand."""

    number: int
    repo: str = ""  # owner/name
    host: str = ""


_NUMBER = re.compile(r"#?([1-9][0-9]{0,9})")
_SHORT = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)#([1-9][0-9]{0,9})")
_URL = re.compile(
    r"https?://(?:[^@/\s]*@)?([A-Za-z0-9.-]+(?::[0-9]+)?)/([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)/(?:issues|pull)/"
    r"([1-9][0-9]{0,9})(?:[/?#].*)?"
)


def reference(text: str) -> Reference | None:
    """`65`, `#65`, `owner/repo#65`, or an issue's URL; None for what is none of these, such as a file's name."""
    if found := _NUMBER.fullmatch(text):
        return Reference(int(found[1]))
    if found := _SHORT.fullmatch(text):
        return Reference(int(found[2]), found[1])
    if found := _URL.fullmatch(text):
        return Reference(int(found[3]), found[2], found[1].lower())
    return None


# Name in the configuration -> where it is. A new forge is a file and a row here.
FORGES: dict[str, str] = {
    "local": "orchgit.forge.local:connect",
    "github": "orchgit.forge.github:connect",
}


def connect(
    name: str,
    root: Path,
    env: Mapping[str, str],
    *,
    remote: str = "",
    wanted: Reference | None = None,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> Forge:
    """The forge of the repository at `root`: its git remote `remote`, or the one that `wanted` is of. Asks no server.
    OrchgitError (USAGE) where no remote is one, (UNAVAILABLE) without a token."""
    if name not in FORGES:
        raise OrchgitError(Kind.USAGE, f"there is no forge {name!r}", hint=f"one of: {', '.join(FORGES)}")
    module, _, attribute = FORGES[name].partition(":")
    made: Forge = getattr(importlib.import_module(module), attribute)(
        root, env, remote=remote, wanted=wanted, tell=tell, stop=stop
    )
    return made
