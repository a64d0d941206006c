"""Answers for audit, read from git objects by id, in the clean-room environment."""

from __future__ import annotations

from orchgit.core.audit import Commit
from orchgit.git import trees
from orchgit.git.door import Door, Missing, Scratch


class GitFacts:
    def __init__(self, door: Door) -> None:
        self._door = door

    def commit(self, oid: str) -> Commit | None:
        try:
            return Commit(*self._door.commit(oid))
        except Missing:
            return None

    def changed(self, old_tree: str, new_tree: str) -> list[bytes] | None:
        try:
            return [c.path for c in trees.diff(self._door, old_tree, new_tree)]
        except Missing:
            return None

    def ref(self, name: str) -> str | None:
        return self._door.ref(name)

    def first_parents(self, tip: str, base: str) -> list[str] | None:
        line: list[str] = []
        while tip != base:
            line.append(tip)
            commit = self.commit(tip)
            if commit is None or not commit.parents:
                return None
            tip = commit.parents[0]
        return line

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        door = self._door
        try:
            # In memory: who only looks must not mend, by the way, what is missing.
            return trees.carry(Scratch(door), door.tree_of(base), door.tree_of(head), door.tree_of(onto))[0] or None
        except Missing:
            return None
