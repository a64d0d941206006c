"""What the gate costs: it should grow with the change, not with the repository.

    python -m tests.bench.bench_gate [--rounds 9]

The same change of ten files (five changed, three new, two gone) in repositories of 200, 10,000 and 50,000 files, in
directories of twenty, fifty of these in each above: the gate as a run has it (raw diff, judge, construct, the second
look), beside git's own `diff-tree` of the same two trees; and `orchgit check`, the whole command, beside `python -c
pass`. Every x is against the smallest repository. (It does grow with the width of the directories that are touched.)
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from orchgit.core.scope import Scope
from orchgit.git import gate
from orchgit.git.door import Door
from tests.bench import common

SIZES = (200, 10_000, 50_000)
SCOPE = Scope(("area0/pkg1/**", "area0/pkg2/**"))


def repository(root: Path, env: Mapping[str, str], files: int) -> tuple[str, str]:
    """`files` files and a change of ten; (base, head). By fast-import: no work tree."""
    root.mkdir(parents=True)
    common.call(["git", "init", "-q", "-b", "main"], root, env)
    who = b"committer bench <bench@example.invalid> 1767225600 +0000\n"
    stream = [b"commit refs/heads/main\nmark :1\n" + who + b"data 0"]
    stream += [
        b"M 644 inline area%d/pkg%d/module%d.py\ndata 13\nvalue%7d\n" % (n // 1000, n // 20, n, n) for n in range(files)
    ]
    stream += [b"commit refs/heads/work\nmark :2\n" + who + b"data 0\nfrom :1"]
    stream += [
        b"M 644 inline area0/pkg1/module%d.py\ndata 7\nnew%3d\n" % (n, n) for n in (*range(20, 25), 990, 991, 992)
    ]
    stream += [b"D area0/pkg2/module%d.py" % n for n in (40, 41)]
    subprocess.run(["git", "fast-import", "--quiet"], cwd=root, env=env, input=b"\n".join(stream), check=True)
    asked = ["git", "rev-parse", "main", "work"]
    base, head = subprocess.run(asked, cwd=root, env=env, capture_output=True, check=True).stdout.decode().split()
    return base, head


def passage(door: Door, base: str, head: str) -> float:
    """Seconds from two commits to the tree that would land."""
    begun = time.perf_counter()
    old, new = door.tree_of(base), door.tree_of(head)
    changes = gate.raw_diff(door, old, new)
    assert gate.judge(door, SCOPE, changes, old) == []
    assert gate.construct(door, old, changes, SCOPE) == new
    took = time.perf_counter() - begun
    assert len(changes) == 10
    return took


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 9, argv)
    sizes = SIZES[:1] if given.quick else SIZES
    gates: dict[str, Callable[[], float]] = {}
    commands: dict[str, Callable[[], float]] = {}
    doors = []
    with common.place() as (root, env):
        for files in sizes:
            repo = root / str(files)
            base, head = repository(repo, env, files)
            door = Door(repo / ".git")
            doors.append(door)
            plain = ["git", "diff-tree", "-r", "-z", "--raw", "--no-renames", base, head]
            gates[f"git diff-tree, {files} files"] = partial(common.call, plain, repo, env)
            gates[f"the gate, {files} files"] = partial(passage, door, base, head)
            argv_ = [common.ORCHGIT, "check", "--base", base, "--head", head]
            argv_ += [part for pattern in SCOPE.allow for part in ("--allow", pattern)]
            commands[f"orchgit check, {files} files"] = partial(common.call, argv_, repo, env)
        commands["python -c pass"] = partial(common.call, [sys.executable, "-c", "pass"], root, env)
        try:
            told = common.in_turn({**gates, **commands}, given.rounds)
        finally:
            for door in doors:
                door.close()
    first = sizes[0]
    common.table("a change of ten files", {n: told[n] for n in gates}, f"the gate, {first} files")
    common.table("the whole command", {n: told[n] for n in commands}, f"orchgit check, {first} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
