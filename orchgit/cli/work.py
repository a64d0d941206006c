"""`orchgit work RUN/ASSIGNMENT`: a person is the worker, in a shell that is as confined as any agent.

The shell is yours, its HOME is the cell's: nothing of yours is read there or can be changed. Leaving it asks what came
of the work, and hands that in; the engine takes it from there to the same gate. Not done yet: come back as you like.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchgit.cli.common import split
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.agents.human import Desk
    from orchgit.cli.cell import Housed

SETTING_UP_S = 20.0  # between the note that the agent starts, and the desk
Result = tuple[str, dict[str, Any]]
MENU = """
How does it stand?
  d   done: a summary, and it goes to the gate
  s   you need more scope
  b   blocked: only somebody else can decide
  n   not done yet: it stays yours (orchgit work {target})
  g   go on now, in the shell
"""


def command(
    target: Annotated[str, typer.Argument(metavar="RUN/ASSIGNMENT")],
    run: Annotated[str, typer.Option("--command", "-c", help="Run this instead of an interactive shell.")] = "",
    summary: Annotated[str, typer.Option(help="Hand in this report, without asking.")] = "",
) -> int:
    """Work on an assignment as a person."""
    from orchgit.agents import human
    from orchgit.report import safe

    name = split(target)
    with _housed(*name) as (found, desk), human.taken(found.cell.root):
        target = f"{found.run.id}/{name[1]}"
        print(safe(desk.brief, lines=True), file=sys.stderr)
        _say("this shell is the cell's: read what you like, write in the scope; leave it to hand in")
        while True:
            code = _shell(found, desk, run)
            if code and run:
                _say(f"the command ended with {code}; nothing is handed in")
                return code
            result = _drafted(desk) or (("report", {"summary": summary}) if summary else _asked(target))
            if result is None:
                continue
            tool, given = result
            if not tool:
                _say(f"it stays yours; to go on: orchgit work {target}")
                return Kind.HUMAN
            return _hand_in(found, tool, given)


@contextmanager
def _housed(run: str, name: str) -> Iterator[tuple[Housed, Desk]]:
    """The cell that waits for a person. OrchgitError when it does not."""
    from orchgit.cli.cell import find
    from orchgit.report import by_hand

    found = find(Path.cwd(), run, name)
    try:
        alive = found.store.holder() is not None
        theirs = name in dict(by_hand(found.run))
        desk = _desk(found, SETTING_UP_S if alive else 0) if theirs else None
        if desk is None:
            raise OrchgitError(
                Kind.NO, f"no person is waited for at {name}",
                "its engine ended before it was ready" if theirs and not alive
                else f"it is {found.work.stage}, and its worker is {found.work.spec.worker}",
                f"orchgit resume {found.run.id}" if theirs and not alive else f"orchgit status {found.run.id}",
            )  # fmt: skip
        if not alive:
            _say(f"no engine is alive; what you hand in is taken by: orchgit resume {found.run.id}")
        yield found, desk
    finally:
        found.door.close()


def _desk(found: Housed, patience_s: float) -> Desk | None:
    """It is set up a moment after the log says that the worker has started."""
    from orchgit.agents import human

    until_s = time.monotonic() + patience_s
    while True:
        desk = human.read(found.cell.root)
        if desk is not None or time.monotonic() > until_s:
            return desk
        time.sleep(0.1)


def _shell(found: Housed, desk: Desk, run: str) -> int:
    """The person's shell in the cell, tried out first like every sandbox; its exit code."""
    from orchgit import attached, cellrun
    from orchgit.agent_run import confinement
    from orchgit.agents import handin
    from orchgit.sandbox import base_env

    sandbox, cell, network = found.sandbox(), found.cell, found.config.network.of("worker", "none")
    places = cellrun.writable(cell, found.work.spec.scope)
    forbidden = [str(found.repo.root), str(found.repo.common), str(found.store.path), str(found.place)]
    secret = str(found.store.path / "events.jsonl")
    probes = cellrun.tried(sandbox, cell, places, forbidden, network=network, secret=secret)
    if through := cellrun.through(probes, sandbox.level):
        raise OrchgitError(Kind.UNAVAILABLE, through, "", "orchgit doctor")
    shell = os.environ.get("SHELL", "/bin/sh")
    argv = sandbox.argv(confinement(cell, places, network=network), [shell, "-c", run] if run else [shell])
    extra = handin.environment(desk.files) | {"PS1": f"{found.work.spec.id} cell \\$ "}
    extra |= {k: os.environ[k] for k in ("TERM", "COLORTERM") if k in os.environ}
    code = attached.run(argv, cwd=str(cell.work), env=base_env(str(cell.home), str(cell.tmp), extra=extra))
    return 128 - code if code < 0 else code


def _drafted(desk: Desk) -> Result | None:
    """What was handed in from inside the shell, by `orchgit report-work` and its like."""
    from orchgit.agent_run import results
    from orchgit.agents import handin

    try:
        said = handin.take(desk.files, results("work"))
    except ValueError as error:
        _say(f"what was handed in from the shell cannot be taken: {error}")
        return None
    return (said[0], dict(said[1])) if said else None


def _asked(target: str) -> Result | None:
    """What the person says; None: back to the shell; ("", {}): not done yet."""
    print(MENU.format(target=target), file=sys.stderr)
    while True:
        answer = _line("> ").strip().lower()[:1]
        if answer == "d":
            summary = _text("What did you do, and why? An empty line ends it.")
            if summary:
                return "report", {"summary": summary}
        elif answer == "s":
            paths = _line("Which paths? ").split()
            return "request_scope", {"paths": paths, "why": _line("What for? ")}
        elif answer == "b":
            question = _text("What is to be decided? An empty line ends it.")
            summary = _line("And what is done so far? ")
            return "report", {"summary": summary or "blocked", "blockers": [question]}
        elif answer == "n":
            return "", {}
        elif answer == "g":
            return None


def _hand_in(found: Housed, tool: str, given: dict[str, Any]) -> int:
    """Checked as the engine will, so that the person hears of it now."""
    from orchgit.agent_run import results
    from orchgit.agents import human
    from orchgit.cli.common import state_of

    try:
        next(r for r in results("work") if r.name == tool).parse(given)
    except ValueError as error:
        hint = f"orchgit work {found.run.id}/{found.work.spec.id}"
        raise OrchgitError(Kind.USAGE, "that cannot be handed in", str(error), hint) from error
    now = state_of(found.store).works[found.work.spec.id]
    if (now.stage, now.attempt) != ("working", found.work.attempt):
        raise OrchgitError(
            Kind.NO, "it is too late to hand in", f"meanwhile the assignment is {now.stage}",
            f"orchgit status {found.run.id}; what you left is kept on a salvage ref",
        )  # fmt: skip
    human.hand_in(found.cell.root, tool, given)
    alive = found.store.holder() is not None
    _say("handed in" + ("; the engine goes on" if alive else f"; orchgit resume {found.run.id} takes it"))
    return 0


def _say(line: str) -> None:
    print(f"orchgit: {line}", file=sys.stderr, flush=True)


def _line(prompt: str) -> str:
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise OrchgitError(Kind.HUMAN, "nobody said what came of it", "", "orchgit work again, or with --summary")
    return line.rstrip("\n")


def _text(prompt: str) -> str:
    print(prompt, file=sys.stderr)
    lines = []
    while line := _line("  "):
        lines.append(line)
    return "\n".join(lines)
