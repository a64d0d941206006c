"""What audit asks, and how it answers: the log as it was read, the repository as it is seen, a law and its result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from orchgit.core import events as e
from orchgit.core.state import Run

Verdict = Literal["pass", "violation", "inconclusive"]
# What a pass is worth. proved: it follows from bytes and git objects alone. witnessed: the engine was there and wrote
# it down; nothing else shows it. asserted: an agent or a person said so.
Strength = Literal["proved", "witnessed", "asserted"]


@dataclass(frozen=True)
class Commit:
    """`author` and `committer` as "name <mail>"; `time` is the author's, UTC, as an event's up to the second."""

    tree: str
    parents: tuple[str, ...]
    message: str
    author: str = ""
    committer: str = ""
    time: str = ""


@dataclass(frozen=True)
class Changed:
    """One path at which two trees differ. Modes as git writes them, "" where there is nothing."""

    path: bytes
    old_mode: str
    new_mode: str


class Facts(Protocol):
    """What git says, read by object id alone. None: the object is not there."""

    def commit(self, oid: str) -> Commit | None: ...

    def has(self, oid: str) -> bool: ...

    def changed(self, old_tree: str, new_tree: str) -> list[Changed] | None:
        """Paths at which two trees differ, renames not guessed at; None when one of them is not there."""

    def ref(self, name: str) -> str | None: ...

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        """The tree of `onto` with the entries of `base..head` carried over; None when that is not possible."""

    def damage(self, tips: Sequence[str], base: str) -> list[str]:
        """What git's own fsck says of all that `tips` reach and `base` does not."""

    def replaced(self, tips: Sequence[str], base: str) -> list[str]:
        """Replace refs and grafts that show something else in the place of what `tips` reach; in words."""

    def checkpoints(self) -> dict[str, str]:
        """Full ref name -> commit, of every published copy of the log: this repository's, remotes', forks."""

    def log_of(self, commit: str) -> tuple[str, int] | None:
        """(blob id, bytes) of the log in a checkpoint; None for a commit that holds none."""

    def blob_id(self, data: bytes) -> str:
        """The id that git gives these bytes as a blob."""

    def pushed(self, commit: str) -> list[str]:
        """Remote-tracking refs that hold this commit: what was seen on another machine."""

    def blob(self, digest: str) -> Literal["here", "changed", "missing", "elsewhere"]:
        """A blob of the run, by SHA-256. elsewhere: this is not the machine of the run, and it was not published."""

    def sealed(self) -> tuple[str, str] | None:
        """(commit, message) of the run's own tag; None where there is none, or it is no tag with words."""

    def signature(self, commit: str) -> str:
        """Of a checkpoint, armoured; "" for none."""

    def signed(self, base: str, statement: bytes, signature: str) -> str | None:
        """Whose signature it is, by the allowed signers of the commit `base`; "" for nobody; None: cannot say."""


@dataclass(frozen=True)
class Found:
    """One thing wrong: the event and commit it is about, in words a person can follow."""

    where: str
    what: str


@dataclass(frozen=True)
class Doubt:
    """Why nothing can be said."""

    why: str


@dataclass(frozen=True)
class Note:
    """What an auditor should know, and is no fault."""

    what: str


Said = Found | Doubt | Note


@dataclass(frozen=True)
class Result:
    law: str
    sentence: str
    verdict: Verdict
    found: tuple[Found, ...] = ()
    why: str = ""  # of an inconclusive verdict
    strength: Strength = "proved"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A log that was read: its events as far as they are legal, each with the run before it."""

    run: Run
    data: bytes  # all of it, as it lies
    events: tuple[e.Event, ...]
    before: tuple[Run, ...]
    broken: tuple[Found, ...]  # the chain
    malformed: tuple[Found, ...]  # a line in the chain that is no event
    illegal: tuple[Found, ...]
    unknown: tuple[Found, ...]
    unread: int  # lines after the first that could not be followed
    tail: int  # bytes after the last whole line


@dataclass(frozen=True)
class Law:
    id: str
    sentence: str
    check: Callable[[Reading, Facts], Iterator[Said]]
    strength: Strength = "proved"
    needs_git: bool = False


def trailers(message: str) -> dict[str, list[str]]:
    """The `Orchgit-…` trailers of a commit message, from its last paragraph."""
    found: dict[str, list[str]] = {}
    for line in message.rstrip().rpartition("\n\n")[2].splitlines():
        key, colon, value = line.partition(": ")
        if colon and key.startswith("Orchgit-"):
            found.setdefault(key, []).append(value)
    return found


def attested(commit: Commit | None) -> tuple[int, str] | None:
    """The event that a commit names: its seq and hash. A commit may be anybody's, and say anything."""
    return named(commit.message) if commit else None


def named(message: str) -> tuple[int, str] | None:
    said = trailers(message).get("Orchgit-Log", [])
    match = re.fullmatch(r"([0-9]{1,15})@sha256:([0-9a-f]{64})", said[0]) if said else None
    return (int(match[1]), match[2]) if match else None


def merge_trailers(run: str, prepared: e.MergePrepared, event: e.Event, plan_digest: str) -> dict[str, str]:
    """What a merge commit says of the log: written by the engine, read by audit."""
    named = {"Orchgit-Assignment": prepared.assignment} if prepared.assignment else {}
    return {
        "Orchgit-Run": run,
        **named,
        "Orchgit-Plan": f"sha256:{plan_digest}",
        "Orchgit-Log": f"{event.seq}@sha256:{event.hash}",
    }


def first_parents(facts: Facts, tip: str, base: str) -> list[str] | None:
    """Commits from `base`, left out, up to `tip` along first parents; None: no way, or one is missing."""
    line: list[str] = []
    while tip != base:
        line.append(tip)
        commit = facts.commit(tip)
        if commit is None or not commit.parents:
            return None
        tip = commit.parents[0]
    return line[::-1]
