"""`orchgit plan [RUN]` shows a run's plan; `orchgit plan --check FILE` says all that is wrong with a plan file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.cli.common import Json, RunName, console, plan_title, show_plan, state_of, store_of
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.core.plan import Plan


def command(
    run: RunName = "",
    check: Annotated[str, typer.Option(help="Check this plan file against the roster instead.")] = "",
    as_json: Json = False,
) -> int:
    """Show a run's plan, or check a plan file."""
    from orchgit.wire import plan_json

    if check:
        plan = read_plan(Path(check))
        _check(plan)
        title, base = f"{check}: a valid plan", ""
    else:
        state = state_of(store_of(run))
        proposal = state.proposal
        if proposal is None:
            raise OrchgitError(Kind.NO, f"run {state.id} has no plan yet", "", f"orchgit status {state.id}")
        plan = state.plan or proposal.plan
        title, base = plan_title(state), state.started.base if state.started else ""
    if as_json:
        print(plan_json(plan), end="")
    else:
        show_plan(console(), plan, title, base)
    return 0


def read_plan(path: Path) -> Plan:
    from orchgit.wire import parse_plan

    try:
        return parse_plan(path.read_bytes())
    except OSError as error:
        raise OrchgitError(Kind.USAGE, f"the plan {path} cannot be read", error.strerror or str(error)) from error
    except (ValueError, json.JSONDecodeError) as error:
        raise OrchgitError(
            Kind.USAGE,
            f"{path} is not a plan",
            str(error),
            'the README shows the form, under "A plan"; so does `orchgit plan RUN --json`',
        ) from error


def _check(plan: Plan) -> None:
    import os

    from orchgit import roster
    from orchgit.config import load
    from orchgit.git.door import Door
    from orchgit.git.user import discover
    from orchgit.session import plan_problems

    repo = discover(Path.cwd())
    config = load(repo.root, os.environ)
    people = roster.load(repo.root, config)
    door = Door(repo.common, repo.object_format)
    wrong = plan_problems(plan, [m.member for m in people.members], config, door, repo.head)
    if wrong:
        lines = "\n".join(str(p) for p in wrong)
        raise OrchgitError(
            Kind.NO, f"{len(wrong)} problems keep this plan from being run", lines, "mend them all, and check again"
        )
