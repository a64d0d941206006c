"""Commits of the engine's own: bases that hold the dependencies' work, merge results, merges, the seal.

Each is built from ids and the time of the event that asked for it, so that `recover` builds the same one again.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping, Sequence

from orchgit.git import trees
from orchgit.git.door import Door

# What GitHub and CI services act on in a message on a default branch: a person or a team, an issue (to be closed, at
# worst of another repository), and the word that no check is to run.
_MEANS = re.compile(
    r"(?<!\w)@(?=\w)|#(?=\d)|(?<=\bgh)-(?=\d)|/(?:issues|pull|discussions)/(?=\d)"
    r"|\[(?=[\w -]{0,30}\bskip\b|no ci\b)|\*\*\*(?=no_ci)",
    re.IGNORECASE,
)
_TRAILER = re.compile(r"orchgit-|[\w-]{1,30}-by\s*:|skip-checks\s*:", re.IGNORECASE)


class Stale(Exception):
    """The work cannot be carried over: the paths differ from what it was based on."""

    def __init__(self, paths: Sequence[bytes]) -> None:
        super().__init__(paths)
        self.paths = tuple(paths)


def git_date(event_time: str) -> str:
    """An event's time as git writes dates."""
    return f"{calendar.timegm(time.strptime(event_time[:19], '%Y-%m-%dT%H:%M:%S'))} +0000"


def message(subject: str, body: str, trailers: Mapping[str, str]) -> str:
    """A commit message whose trailers are ours alone: a line of the body that looks like one is indented."""
    safe = [f" {line}" if _TRAILER.match(line) else line for line in inert(clean(body)).splitlines()]
    text = [inert(clean(subject)).replace("\n", " ").strip()[:100] or "orchgit", "", *safe, ""]
    ours = [f"{key}: {value}" for key, value in trailers.items()]
    return "\n".join(text).rstrip() + "\n\n" + "\n".join(ours) + "\n"


def inert(text: str) -> str:
    """An agent's or an issue's words for a commit message: a space breaks what would call somebody or close something.
    One that is seen: others make a pager show their number."""
    return _MEANS.sub(r"\g<0> ", text)


def clean(text: str) -> str:
    """No control characters but newline and tab: what an agent wrote must not break the terminal of who reads it."""
    return "".join(c for c in text if c in "\n\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0))


def result(door: Door, base: str, head: str, onto: str) -> str:
    """The tree of `onto` with the work `base..head` (all commits) carried over. Raises Stale."""
    tree, stale = trees.carry(door, door.tree_of(base), door.tree_of(head), door.tree_of(onto))
    if stale:
        raise Stale(stale)
    return tree


def joined(
    door: Door, base: str, works: Sequence[tuple[str, str]], parents: Sequence[str], text: str, when: str
) -> str:
    """A commit on `parents` with the tree of `base` and every work (base, head) on it. Raises Stale."""
    tree = door.tree_of(base)
    for work_base, head in works:
        tree, stale = trees.carry(door, door.tree_of(work_base), door.tree_of(head), tree)
        if stale:
            raise Stale(stale)
    return door.write_commit(tree, parents, text, when)
