"""`orchgit check`: the gate on any two commits of any repository, or on what is staged. No run, no configuration.

0 in scope · 1 out of scope · 2 it cannot be looked at (unknown commit, bad pattern, objects that are not here).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchgit.core.scope import Scope
    from orchgit.git.history import Judgement
    from orchgit.git.visit import Visitor

LISTED = 50  # annotations: GitHub shows ten, and keeps fifty
ABOUT = """\
Check that all changes between two commits are in a scope: every commit on the way, and the net change. Reads objects
only: no work tree, hook, filter, attribute, configuration or replace ref of the repository.
"""


def main(args: Sequence[str]) -> int:
    """Parses by itself: it runs at every commit of somebody's, and typer takes longer to import than it takes."""
    try:
        given = _parser().parse_args(args)
    except SystemExit as ended:
        return int(ended.code or 0)
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orchgit check", description=ABOUT, allow_abbrev=False,
        epilog="Exit code: 0 in scope, 1 out of scope, 2 it cannot be looked at.",
    )  # fmt: skip
    option = parser.add_argument
    option("--base", default="", metavar="COMMIT", help="the commit it began at; with --staged, HEAD")
    option("--head", default="", metavar="COMMIT", help="the commit to judge, with all commits from the base to it")
    option("--staged", action="store_true", help="judge the index instead of a commit")
    option(
        "--allow", action="append", default=[], metavar="PATTERN", help="paths that may change: 'src/api/**'; repeat"
    )
    option(
        "--deny", action="append", default=[], metavar="PATTERN", help="paths that may not, although allowed; repeat"
    )
    option("--symlinks", action="store_true", help="links may land, from the scope to the scope")
    option("--plan", default="", metavar="RUN/ASSIGNMENT", help="scope, base and head of a run's approved plan")
    option(
        "--merges",
        action="store_true",
        help="merge commits may be there; each is judged by all that it changes against its first parent, what it "
        "brought from elsewhere included",
    )
    option("--format", choices=("text", "json", "github"), default="text", help="how to say it (default: text)")
    option("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    return parser


def command(given: argparse.Namespace) -> int:
    import tempfile

    from orchgit.git.door import GitError, Missing
    from orchgit.git.user import git_dir
    from orchgit.git.visit import Visitor, missing

    where = git_dir(Path.cwd())
    scope, base, head = _asked(where, given)
    with tempfile.TemporaryDirectory(prefix="orchgit-check-") as scratch:
        door = Visitor(where, Path(scratch))
        try:
            if given.plan and not given.head and head:
                head = _here(door, head)
            judgement = _judge(door, scope, base, head, merges=given.merges, staged=given.staged)
        except (Missing, GitError) as error:
            raise missing(door, error) from error
        finally:
            door.close()
    what = f"{base or 'HEAD'}..{head or 'what is staged'}"
    show = {"text": _text, "json": _json, "github": _github}[given.format]
    # As bytes: the locale of a CI job has no say in what a path is.
    sys.stdout.flush()
    sys.stdout.buffer.write(show(judgement, what).encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
    return Kind.NO if judgement.breaches else 0


def _asked(where: Path, given: argparse.Namespace) -> tuple[Scope, str, str]:
    """Scope, base, head; of the plan what was not said. Raises OrchgitError for what does not go together."""
    from orchgit.core.pattern import PatternError
    from orchgit.core.scope import Scope

    def wrong(what: str, hint: str) -> OrchgitError:
        return OrchgitError(Kind.USAGE, what, "", hint)

    base, head, allow, deny, staged = given.base, given.head, given.allow, given.deny, given.staged
    if staged and head:
        raise wrong("--staged and --head: one of the two", "leave out --head")
    if given.plan:
        if allow or deny or given.symlinks:
            raise wrong("the scope is the plan's", "leave out --allow, --deny and --symlinks, or --plan")
        scope, planned_base, planned_head = _planned(where, given.plan)
        return scope, base or ("" if staged else planned_base), head or ("" if staged else planned_head)
    if not allow:
        raise wrong("no scope was given", "--allow 'src/api/**', or --plan RUN/ASSIGNMENT")
    if not staged and not (base and head):
        raise wrong("two commits are needed", "--base main --head HEAD, or --staged")
    try:
        return Scope(tuple(allow), tuple(deny), given.symlinks), base, head
    except PatternError as error:
        raise OrchgitError(
            Kind.USAGE, "a pattern is not usable", str(error), "quote patterns: --allow 'src/**'"
        ) from error


def _planned(where: Path, target: str) -> tuple[Scope, str, str]:
    from orchgit import publish
    from orchgit.cli.common import split, state_of
    from orchgit.core.run import branch
    from orchgit.git.user import shared_dir

    run, name = split(target)
    state = state_of(publish.find(shared_dir(where), run or None))
    if state.plan is None:
        raise OrchgitError(Kind.USAGE, f"run {state.id} has no approved plan", "", f"orchgit plan {state.id}")
    if name not in state.works:
        known = ", ".join(state.works)
        raise OrchgitError(Kind.USAGE, f"run {state.id} has no assignment {name!r}", f"it has: {known}", "")
    work = state.works[name]
    if not work.base:
        raise OrchgitError(
            Kind.USAGE, f"assignment {name} has not begun", "so it has no base and no branch",
            f"orchgit status {state.id}",
        )  # fmt: skip
    return work.spec.scope, work.base, branch(state.id, name)


def _here(door: Visitor, ref: str) -> str:
    """A run's branch, in a fresh clone that has it from a remote only."""
    if door.ref(ref) is not None:
        return ref
    there = f"refs/remotes/*/{ref.removeprefix('refs/heads/')}"
    found = door.run("for-each-ref", "--format=%(objectname) %(refname)", there, refs=True).decode().splitlines()
    ids = {line.partition(" ")[0] for line in found}
    return ids.pop() if len(ids) == 1 else ref


def _judge(door: Visitor, scope: Scope, base: str, head: str, *, merges: bool, staged: bool) -> Judgement:
    from orchgit.git.history import judge_range, judge_trees

    if not staged:
        return judge_range(door, scope, door.commit_of(base), door.commit_of(head), merges=merges)
    first = not base and door.unborn()
    old = door.write(b"tree", b"") if first else door.tree_of(door.commit_of(base or "HEAD"))
    return judge_trees(door, scope, old, door.staged())


# ---- how it is said


def _summary(judgement: Judgement, what: str) -> str:
    size = f"{judgement.changes} changed files" if judgement.changes != 1 else "1 changed file"
    if judgement.commits:
        size += f" in {judgement.commits} commit{'s' * (judgement.commits != 1)}"
    bad = len(judgement.breaches)
    verdict = f"out of scope, {bad} violation{'s' * (bad != 1)}" if bad else "in scope"
    return f"{verdict}: {size}, {_visible(what)}"


def _shown(path: bytes) -> str:
    return _visible(path.decode("utf-8", "backslashreplace"))


def _visible(text: str) -> str:
    """Nothing that a terminal obeys, and no command to a CI runner, which looks for them in all that is printed."""
    if not text.isprintable():
        from orchgit.report import safe

        text = safe(text)
    return text.replace("##", "#\\x23")


def _text(judgement: Judgement, what: str) -> str:
    lines = []
    for b in judgement.breaches:
        path = f"{_shown(b.path)}: " if b.path else ""
        commit = f" (commit {b.commit[:10]})" if b.commit else ""
        lines.append(f"! {path}{_visible(b.rule)}{commit}  → {_visible(b.remedy)}")
    return "\n".join([*lines, _summary(judgement, what)]) + "\n"


def _json(judgement: Judgement, what: str) -> str:
    import json

    told = []
    for b in judgement.breaches:
        path = b.path.decode("utf-8", "backslashreplace")
        exact = {} if path.encode() == b.path else {"path_hex": b.path.hex()}
        told.append({"path": path, **exact, "commit": b.commit, "rule": b.rule, "allowed_by": b.remedy})
    whole = {
        "in_scope": not told, "range": what, "changes": judgement.changes, "commits": judgement.commits,
        "violations": told,
    }  # fmt: skip
    return json.dumps(whole, indent=2) + "\n"


def _github(judgement: Judgement, what: str) -> str:
    """Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions"""
    lines = []
    for b in judgement.breaches[:LISTED]:
        commit = f" (commit {b.commit[:10]})" if b.commit else ""
        path = b.path.decode("utf-8", "backslashreplace")
        message = f"{path}: {b.rule}{commit}. What would allow it: {b.remedy}"
        lines.append(command_of("error", path, message, title="out of scope"))
    left = len(judgement.breaches) - LISTED
    more = f" ({left} more are not shown)" if left > 0 else ""
    return "\n".join([*lines, f"orchgit check: {_summary(judgement, what)}{more}"]) + "\n"


def command_of(level: str, path: str, message: str, *, title: str = "orchgit") -> str:
    """A workflow command: an annotation, at a file where there is one."""
    where = f"file={_property(_visible(path))}," if path else ""
    return f"::{level} {where}title={_property(title)}::{_data(_visible(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
