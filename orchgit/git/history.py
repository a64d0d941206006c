"""The gate on what lies between two commits: the net change, and every commit on the way, by the gate's own functions.

A run lands the net change alone. Here the commits themselves are what would be merged, so each is judged: what one
adds and the next takes back stays in the history. Nothing is ever passed for want of an object: Missing is raised.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchgit.core.pattern import PatternError, check_pattern, quote
from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import gate, trees
from orchgit.git.door import Missing, Scratch
from orchgit.git.trees import Change
from orchgit.git.visit import Visitor

NOTHING = "nothing: no scope allows it"


@dataclass(frozen=True)
class Breach:
    """`path` is empty for what concerns the whole; `commit` for the net change."""

    path: bytes
    rule: str
    remedy: str  # what would allow it, as one types it; NOTHING
    commit: str = ""


@dataclass(frozen=True)
class Judgement:
    breaches: tuple[Breach, ...]
    changes: int
    commits: int


def judge_range(door: Visitor, scope: Scope, base: str, head: str, *, merges: bool = False) -> Judgement:
    """Of all that `head` has and `base` has not. `merges`: a merge commit is judged like any other, by what it changes
    against its first parent; else it is refused."""
    if not door.descends(head, base):
        if door.shallow:
            raise Missing(f"{head[:10]} may descend from {base[:10]}, or not: the history here is cut off")
        how = f"git rebase {base[:10]}, or --base with a commit that it descends from"
        return Judgement((Breach(b"", f"{head[:10]} does not descend from {base[:10]}", how),), 0, 0)
    commits = door.between(base, head)
    for commit, _ in commits:
        if commit in door.shallow:
            raise Missing(f"the history is cut off at {commit[:10]}, after {base[:10]}")
    old, new = door.tree_of(base), door.tree_of(head)
    pairs = [(old, new)]
    judged: list[str] = []
    refused: list[Breach] = []
    for commit, parents in commits:
        if not parents:
            refused.append(Breach(b"", "a root commit: another history was joined to this one", NOTHING, commit))
        elif len(parents) > 1 and not merges:
            refused.append(Breach(b"", "a merge commit", "--merges", commit))
        else:
            judged.append(commit)
            pairs.append((door.tree_of(parents[0]), door.tree_of(commit)))
    diffs = gate.raw_diffs(door, pairs)
    sizes = gate.sizes(door, (change for changes in diffs for change in changes))
    net = _judged(door, scope, diffs[0], pairs[0], sizes, complete=True)
    known = {(breach.path, breach.rule) for breach in net}
    for commit, pair, changes in zip(judged, pairs[1:], diffs[1:], strict=True):
        found = [] if pair == pairs[0] else _judged(door, scope, changes, pair, sizes, complete=False)
        refused += [
            Breach(b.path, b.rule, b.remedy, commit) for b in found if (b.path, b.rule) not in known
        ]  # fmt: skip
    return Judgement((*net, *refused), len(diffs[0]), len(commits))


def judge_trees(door: Visitor, scope: Scope, base_tree: str, tree: str) -> Judgement:
    """Of the net change alone: what is staged, and no commit yet."""
    changes = gate.raw_diff(door, base_tree, tree)
    found = _judged(door, scope, changes, (base_tree, tree), gate.sizes(door, changes), complete=True)
    return Judgement(tuple(found), len(changes), 0)


def _judged(
    door: Visitor, scope: Scope, changes: Sequence[Change], pair: tuple[str, str], sizes: gate.Sizes, *, complete: bool
) -> list[Breach]:
    base, tree = pair
    faults = gate.faults(door, scope, changes, base, known_sizes=sizes, complete=complete)
    for path, rule in faults:
        if rule == gate.NO_CONTENT:
            raise Missing(f"the content of {printable(path)} is not here")
    if not faults:
        faults = _not_as_built(door, scope, changes, base, tree)
    return [Breach(path, rule, remedy(scope, path, rule)) for path, rule in faults]


def _not_as_built(
    door: Visitor, scope: Scope, changes: Iterable[Change], base: str, tree: str
) -> list[tuple[bytes, str]]:
    """What the gate builds of the entries that passed must be the tree that is there, with nothing more in it. A pack
    that a worker made is looked at by `index-pack --strict` before; what lies in a repository may be malformed."""
    scratch = Scratch(door)
    try:
        built = gate.construct(scratch, base, changes, scope)
    except trees.Unmergeable as error:
        return [(error.path, "a file and a directory have one name")]
    except AssertionError as error:  # what git and we read differently: in a malformed tree there is such a thing
        return [(b"", str(error))]
    if built == tree:
        return []
    odd = [(path, "the directory is malformed") for path in _malformed(scratch, built, tree)]
    # Old tools wrote 100664 for 100644, and nothing writes it again.
    more = (c for c in trees.diff(scratch, built, tree) if _plain(c.old) != _plain(c.new))
    return odd or [(c.path, "git's own diff does not show it, but it is there") for c in more]


def _plain(entry: trees.Entry | None) -> trees.Entry | None:
    return ("100644", entry[1]) if entry and entry[0] == "100664" else entry


def _malformed(door: Scratch, built: str, tree: str, prefix: bytes = b"") -> list[bytes]:
    """Directories of `tree`, where it differs from `built`, that are not what their own entries make."""
    if built == tree:
        return []
    mine, theirs = trees.entries(door, built), trees.entries(door, tree)
    raw = door.read(tree)[1] if tree else b""
    found = [] if trees.encode(theirs) == raw else [prefix.rstrip(b"/")]
    for name, (mode, oid) in theirs.items():
        if mode == trees.TREE:
            there = mine.get(name, ("", ""))
            found += _malformed(door, there[1] if there[0] == trees.TREE else "", oid, prefix + name + b"/")
    return found


def remedy(scope: Scope, path: bytes, rule: str) -> str:
    """What would allow it, as one types it."""
    why = scope.why_not(path) or ""
    if rule in (gate.NO_LINK, gate.NO_UNLINK):
        return "--symlinks"
    if rule != why:
        return NOTHING
    if why.startswith("denied by "):
        return f"without --deny {shlex.quote(why.removeprefix('denied by '))}"
    try:
        pattern = quote(path.decode())
        check_pattern(pattern)
    except (UnicodeDecodeError, PatternError):
        return "nothing: no pattern can name it"
    return f"--allow{'=' if pattern.startswith('-') else ' '}{shlex.quote(pattern)}"
