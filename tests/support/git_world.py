"""The simulated world of tests/core/world.py with real git objects, refs and checkpoints behind it: honest runs of any
shape and length, in a repository that the real audit can look at."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from orchgit.core import events as e
from orchgit.core.audit import Commit
from orchgit.core.plan import Plan
from orchgit.git import merges, trees
from orchgit.git.door import Door
from orchgit.git.facts import RUNS
from tests.core.world import ENGINE_ID, FILE, RUN, Odds, Sim, Tree, World, lines_of
from tests.support.repos import ENV


class Objects(Door):
    """A door that does not wait for the disk: nothing here has to survive."""

    def write(self, kind: bytes, data: bytes) -> str:
        raw = kind + b" %d\0" % len(data) + data
        oid = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        path = self.objects / oid[:2] / oid[2:]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(raw, 1))
        return oid


class GitWorld(World):
    """What `World` makes, git has too; ids are git's own."""

    def __init__(self, root: Path, plan: Plan, seed: int, odds: Odds) -> None:
        subprocess.run(["git", "init", "-q", str(root)], env=ENV, check=True)
        self.common = root / ".git"
        self.door = Objects(self.common)
        super().__init__(plan, seed, odds)

    def tree(self, files: Tree) -> str:
        entries = {p.encode(): (FILE, self.door.write(b"blob", text.encode())) for p, text in files.items()}
        oid = trees.edit(self.door, "", entries)
        self.trees[oid] = dict(files)
        return oid

    def write(
        self, files: Tree, parents: tuple[str, ...], message: str, author: str = ENGINE_ID, when: str = ""
    ) -> str:
        time = when[:19] or "2026-01-01T00:00:00"
        commit = Commit(self.tree(files), parents, message, author, ENGINE_ID, time)
        oid = self.door.write_commit(commit.tree, parents, message, merges.git_date(time), author)
        self.commits[oid] = commit
        return oid

    def show(self, log: Sequence[e.Event], run: str = RUN) -> None:
        """Refs as they are, and a checkpoint for every merge and the end, as the engine publishes them."""
        after = [ev.seq for ev in log if isinstance(ev.body, e.MergeDone | e.RunCompleted | e.RunAborted | e.RunFailed)]
        lines = [line + b"\n" for line in lines_of(list(log))]
        refs, last = dict(self.refs), ""
        for seq in after:
            blob = self.door.write(b"blob", b"".join(lines[: seq + 1]))
            tree = self.door.write(b"tree", b"100644 events.jsonl\0" + bytes.fromhex(blob))
            said = f"Log\n\nOrchgit-Run: {run}\nOrchgit-Log: {seq}@sha256:{log[seq].hash}\n"
            last = self.door.write_commit(tree, (last,) if last else (), said, "1767225600 +0000")
        if last:
            refs[f"{RUNS}{run}"] = last
        asked = "".join(f"create {name} {oid}\n" for name, oid in refs.items()).encode()
        subprocess.run(
            ["git", "--git-dir", str(self.common), "update-ref", "--stdin"], input=asked, env=ENV, check=True
        )  # fmt: skip


def sim(root: Path, plan: Plan, seed: int, odds: Odds, settings: e.Settings) -> tuple[Sim, GitWorld]:
    made = Sim(plan, seed, odds, settings)
    world = GitWorld(root, plan, seed, odds)
    made.world = world
    return made, world
