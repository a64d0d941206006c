"""What several commands share: finding the run, speaking as a human, exit codes, the plan on the screen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from rich.console import Console

    from orchgit.core.plan import Plan
    from orchgit.core.state import Run, Work
    from orchgit.eventlog import Store

RunName = Annotated[str, typer.Argument(metavar="[RUN]", help="The run, or how its name begins; else the newest.")]
Target = Annotated[
    str, typer.Argument(metavar="[RUN[/ASSIGNMENT]]", help="A run, else the newest; or a paused assignment of it.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")]


def store_of(name: str) -> Store:
    from orchgit.git.user import common_dir
    from orchgit.publish import find

    return find(common_dir(Path.cwd()), name or None)


def state_of(store: Store) -> Run:
    """The fold of its log. Raises OrchgitError for a log that is not legal."""
    from orchgit.core.state import Illegal, replay

    try:
        return replay(store.run, store.read())
    except Illegal as error:
        raise OrchgitError(
            Kind.NO, f"the log of run {store.run} is not legal", str(error), f"orchgit audit {store.run}"
        ) from error


def split(target: str) -> tuple[str, str]:
    """RUN/ASSIGNMENT, or ASSIGNMENT alone for the newest run."""
    run, slash, name = target.rpartition("/")
    return (run, name) if slash else ("", target)


def go_on(target: str, *, stop: bool) -> int:
    """A word on RUN/ASSIGNMENT, which is paused: it goes on, or this attempt ends."""
    name_of_run, name = split(target)
    store = store_of(name_of_run)
    works = state_of(store).works
    work = works.get(name)
    if work is None or not work.paused or store.holder() is None:
        dead = store.holder() is None
        who = ", ".join(n for n, w in works.items() if w.paused and not dead)
        raise OrchgitError(
            Kind.NO if work else Kind.USAGE,
            f"{name} is not paused" if work else f"run {store.run} has no assignment {name!r}",
            "no engine is alive, so nothing runs" if dead else f"paused: {who or 'nobody'}",
            f"orchgit resume {store.run}" if dead else f"orchgit status {store.run}",
        )
    return tell(store, e.AgentContinued(name, work.attempt, stop), f"{name} {'is stopped' if stop else 'goes on'}")


def asking(target: str) -> tuple[Store, Work]:
    """RUN/ASSIGNMENT that asks for more scope."""
    name_of_run, name = split(target)
    store = store_of(name_of_run)
    works = state_of(store).works
    if name in works and works[name].asked:
        return store, works[name]
    who = ", ".join(n for n, w in works.items() if w.asked)
    raise OrchgitError(
        Kind.NO if name in works else Kind.USAGE, f"{name} asks for no more scope",
        f"who does: {who}" if who else "nobody does", f"orchgit status {store.run}",
    )  # fmt: skip


def approval(store: Store, run: Run) -> e.PlanApproved:
    """Of the plan that is proposed, by a human; signed where the run is configured to sign."""
    import json

    proposal, started = run.proposal, run.started
    assert proposal is not None
    assert started is not None
    # Not through the whole of Config: that takes longer than everything else here.
    key = json.loads(store.blob(started.config))["config"].get("log", {}).get("sign", "")
    approved = e.PlanApproved(proposal.version, proposal.digest, "human")
    if not key:
        return approved
    from orchgit.signatures import sign

    statement = e.approval_statement(run.id, started.base, proposal.version, proposal.digest)
    return replace(approved, signature=sign(statement, key))


def tell(store: Store, body: e.Body, done: str) -> int:
    """Say something to a run as a human, whether an engine is alive or not."""
    from orchgit.eventlog import user_name
    from orchgit.runner import submit

    how, run = submit(store.path, e.Draft(body, e.Actor("human", user_name())))
    if run is not None and run.over:
        print(f"{done}; run {run.id} is {run.phase}")
        return 0
    print(
        f"{done}; " + ("the engine goes on" if how == "sent" else f"no engine is alive, so: orchgit resume {store.run}")
    )
    return 0


def exit_code(run: Run) -> int:
    """Of a command that drove a run."""
    if run.phase == "completed":
        return 0
    if run.phase == "failed":
        return Kind.FAULT
    if run.phase == "aborted":
        return Kind.NO
    unavailable = any(b.kind == "unavailable" for b in run.open_blockers())
    return Kind.UNAVAILABLE if unavailable else Kind.HUMAN


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = 110
    return made


def plan_title(run: Run) -> str:
    proposal = run.proposal
    assert proposal is not None
    if run.plan:
        return f"Plan v{run.plan_version} of run {run.id} (sha256 {run.plan_digest[:12]}), approved"
    return f"Plan v{proposal.version} of run {run.id} (sha256 {proposal.digest[:12]})"


def show_plan(out: Console, plan: Plan, title: str, base: str) -> None:
    """The plan as a person judges it, for work on the commit `base`, or on HEAD."""
    from rich.table import Table

    from orchgit.report import plan_notes, plan_rows, safe

    out.print(title)
    out.print(f"Goal: {safe(plan.goal)}\n")
    table = Table(show_lines=True, pad_edge=False)
    for column, ratio in (("assignment", 5), ("may write", 5), ("after", 2), ("checks", 6)):
        table.add_column(column, ratio=ratio, overflow="fold")
    for row in plan_rows(plan):
        table.add_row(*row)
    out.print(table)
    for note in plan_notes(plan, _files(base)):
        out.print(note)
    if plan.reviewers:
        out.print(f"Reviewers beside those always asked: {', '.join(map(safe, plan.reviewers))}")


def _files(commit: str) -> list[bytes]:
    from orchgit.git import trees
    from orchgit.git.door import Door, GitError
    from orchgit.git.user import discover

    try:
        repo = discover(Path.cwd())
        return trees.files(Door(repo.common, repo.object_format), commit or repo.head)
    except (GitError, OrchgitError):  # not here: a plan can be read without its base
        return []


def interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
