"""What a run changed, counted from git and from nothing else."""

from __future__ import annotations

import re

from orchgit.core.events import Totals
from orchgit.git import trees
from orchgit.git.door import Door

_TEST_FILE = re.compile(r"(^|/)(tests?|__tests__|spec)/|(^|/)test_[^/]*$|[._-](test|spec)\.[^/]+$|_test\.[^/]+$")
_DOCS_FILE = re.compile(r"(^|/)docs?/|\.(md|rst|adoc)$", re.I)
# A test in the languages whose tests can be told apart by a line.
_TEST_LINE = re.compile(
    rb"^\s*(?:(?:async )?def test_\w+\s*\(|(?:it|test)(?:\.\w+)?\s*\(\s*['\"`]|func Test\w*\s*\(|#\[(?:tokio::)?test\])"
)


def count(door: Door, base: str, tip: str, assignments: int, attempts: int) -> Totals:
    """base..tip, both commits."""
    created = changed = deleted = test_files = docs_files = 0
    for change in trees.diff(door, door.tree_of(base), door.tree_of(tip)):
        path = change.path.decode("utf-8", "replace")
        if change.new is None:
            deleted += 1
            continue
        if change.old is None:
            created += 1
        else:
            changed += 1
        test_files += bool(_TEST_FILE.search(path))
        docs_files += bool(_DOCS_FILE.search(path))
    added = removed = tests = 0
    body = False
    for line in door.run("diff", "-U0", "--no-ext-diff", "--no-textconv", "--no-renames", base, tip).split(b"\n"):
        if line.startswith(b"diff --git "):
            body = False
        elif line.startswith(b"@@"):
            body = True
        elif body and line.startswith(b"+"):
            added += 1
            tests += bool(_TEST_LINE.match(line[1:]))
        elif body and line.startswith(b"-"):
            removed += 1
            tests -= bool(_TEST_LINE.match(line[1:]))
    return Totals(created, changed, deleted, added, removed, test_files, tests, docs_files, assignments, attempts)
