"""Questions to the human at the terminal: the plan (y, n, edit, feedback), clarifying questions, blockers."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit.cli.common import approval, console, plan_title, show_plan
from orchgit.core import events as e
from orchgit.core.decide import describe, waiting
from orchgit.core.state import Run
from orchgit.report import plan_text, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchgit.cli.screen import Screen
    from orchgit.core.plan import Problem
    from orchgit.session import Session

YES = ("y", "yes")


class _Overtaken(Exception):
    """Somebody else spoke first, on the forge or in another terminal: it is in the inbox."""


class Human:
    """Asks at the terminal; `idle` for the runner. None means: nobody answers now."""

    def __init__(self, screen: Screen, who: str, session: Session) -> None:
        self._screen = screen
        self._session = session
        self._store = session.runner.log
        self._actor = e.Actor("human", who)

    def idle(self, run: Run) -> list[e.Draft] | None:
        self._screen.pause()
        need = waiting(run)
        if need == "review":
            return None  # of pull requests, where they are
        try:
            if need == "questions":
                return self._questions(run)
            if need == "approval":
                return self._approval(run)
            return self._blockers(run)
        except EOFError:
            return None
        except _Overtaken:
            print("\n(somebody else spoke first)", file=sys.stderr)
            return []

    def _draft(self, body: e.Body) -> list[e.Draft]:
        return [e.Draft(body, self._actor)]

    def _ask(self, prompt: str) -> str:
        return _ask(prompt, lambda: bool(self._store.inbox()))

    def _questions(self, run: Run) -> list[e.Draft] | None:
        answers = []
        print("\nThe orchestrator asks before it plans:", file=sys.stderr)
        for number, question in enumerate(run.questions, 1):
            print(f"  {number}. {safe(question)}", file=sys.stderr)
            answers.append(self._ask("     > ")[:1500])
        return self._draft(e.QuestionAnswered(tuple(answers)))

    def _approval(self, run: Run) -> list[e.Draft] | None:
        proposal = run.proposal
        assert proposal is not None
        out = console(stderr=True)
        out.print()
        show_plan(out, proposal.plan, plan_title(run), run.started.base if run.started else "")
        while True:
            answer = self._ask("\nApprove this plan?  y, n, show (the tasks), edit, or say what to change: ").strip()
            word = answer.casefold()
            if word in YES:
                return self._draft(approval(self._store, run))
            if word in ("n", "no", "q", "quit"):
                print("(nothing is decided: the plan waits)", file=sys.stderr)
                return None
            if word in ("s", "show"):
                out.print("\n\n".join(plan_text(proposal.plan)))
            elif word in ("e", "edit"):
                edited = self._edit(proposal.plan, run)
                if edited is not None:
                    version = proposal.version + 1
                    return self._draft(e.PlanProposed(version, e.plan_digest(edited), edited))
            elif answer and (" " in answer or self._sure(answer)):  # one word may be a slip, and a new plan costs
                return self._draft(e.PlanRejected(proposal.version, answer[:4000]))

    def _sure(self, answer: str) -> bool:
        return (
            self._ask(f"Send the plan back, with {safe(answer)!r} as what to change?  y, n: ").strip().casefold() in YES
        )

    def _blockers(self, run: Run) -> list[e.Draft] | None:
        blocker = run.open_blockers()[0]
        print(f"\nBlocker {blocker.id}, {blocker.about}: {safe(blocker.text, lines=True)}", file=sys.stderr)
        print(f"  ({safe(describe(run, blocker))})", file=sys.stderr)
        if blocker.kind == "finding" and blocker.about != "review":
            reason = self._ask("A reason to waive it, or nothing to leave it for now: ").strip()
            return self._draft(e.FindingWaived(blocker.about, reason[:1500])) if reason else None
        if blocker.kind == "scope":
            attempt = run.works[blocker.about].attempt
            answer = self._ask("Grant it?  y, or why not (nothing to leave it for now): ").strip()
            if answer.casefold() in YES:
                return self._draft(e.ScopeGranted(blocker.about, attempt, run.works[blocker.about].asked))
            return self._draft(e.ScopeRefused(blocker.about, attempt, answer[:1500])) if answer else None
        answer = self._ask("What should be done? (nothing to leave it for now) ").strip()
        return self._draft(e.BlockerAnswered(blocker.id, answer[:4000])) if answer else None

    def _edit(self, plan: e.Plan, run: Run) -> e.Plan | None:
        from orchgit.session import plan_problems

        assert run.started is not None
        started, world = run.started, self._session.world
        return edit(plan, lambda p: plan_problems(p, started.roster, world.agents.config, world.door, started.base))


def _ask(prompt: str, overtaken: Callable[[], bool] = lambda: False) -> str:
    print(prompt, end="", file=sys.stderr, flush=True)
    while not select.select([sys.stdin], [], [], 0.3)[0]:
        if overtaken():
            raise _Overtaken
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def edit(plan: e.Plan, judge: Callable[[e.Plan], Iterable[Problem]]) -> e.Plan | None:
    """The plan in $EDITOR, validated; again until it is valid or given up. None: unchanged or given up."""
    from orchgit.wire import parse_plan, plan_json

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="orchgit-plan-") as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan_json(plan))
        while True:
            try:
                subprocess.run([*shlex.split(editor), str(path)], check=True)
                edited = parse_plan(path.read_text())
                wrong = [str(p) for p in judge(edited)]
            except (ValueError, OSError, subprocess.CalledProcessError) as error:
                wrong = [str(error)]
            if not wrong:
                return None if edited == plan else edited
            print("This plan cannot be run:\n" + "\n".join(f"  - {safe(w)}" for w in wrong), file=sys.stderr)
            if _ask("Edit again? (y/n) ").strip().casefold() not in YES:
                return None
