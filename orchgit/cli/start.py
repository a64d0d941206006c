"""`orchgit start ISSUE`: a run from a feature issue to a merged, verified, reviewed branch."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.cli.screen import Screen
    from orchgit.core.state import Run
    from orchgit.forge import Reference
    from orchgit.forge_in import Poller
    from orchgit.session import Issue, Options, Session


def command(
    issue: Annotated[
        str,
        typer.Argument(
            help="A Markdown file with the feature issue, - for standard input; or 65, owner/repo#65, a URL."
        ),
    ],
    plan: Annotated[str, typer.Option(help="A plan file (JSON): proposed in place of the orchestrator's.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Approve the plan by policy; the log says so.")] = False,
    backend: Annotated[str, typer.Option(help="Agent for everybody: claude, codex, anthropic, scripted.")] = "",
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=BACKEND", help="For one member of the roster; wins over --backend."),
    ] = None,
    playbook: Annotated[str, typer.Option(help="The script of the scripted backend.")] = "",
    model: Annotated[str, typer.Option(help="Model for everybody.")] = "",
    ship: Annotated[str, typer.Option(help="none; merge into the base branch at the end; or pr.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Stay alive while a human is waited for.")] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run although nothing stops an agent from writing anywhere.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every event, and what agents do.")] = False,
) -> int:
    """Start a run on a feature issue."""
    from orchgit.git.user import discover
    from orchgit.session import Options

    if ship not in ("", "none", "merge", "pr"):
        raise OrchgitError(Kind.USAGE, f"--ship {ship!r} is not known", "", "--ship none, --ship merge, or --ship pr")
    repo = discover(Path.cwd())
    read = read_issue(issue, repo.root)
    options = Options(
        backend=backend, by_name=by_name(agent or []), playbook=playbook, model=model,
        approval="policy" if yes else "human", ship=ship or None, allow_unsandboxed=allow_unsandboxed,  # type: ignore[arg-type] # checked above
    )  # fmt: skip
    return begin_and_drive(repo.root, read, options, plan_file=plan, wait=wait, verbose=verbose)


def by_name(given: list[str]) -> tuple[tuple[str, str], ...]:
    """`--agent NAME=BACKEND`, as often as it stands there. OrchgitError (USAGE)."""
    from orchgit import agents

    pairs = []
    for one in given:
        name, _, backend = one.partition("=")
        if not name or backend.partition(":")[0] not in agents.BACKENDS:
            known = ", ".join(agents.BACKENDS)
            raise OrchgitError(Kind.USAGE, f"--agent {one!r} is not known", f"NAME=BACKEND, with one of: {known}")
        pairs.append((name, backend))
    return tuple(pairs)


def begin_and_drive(
    root: Path,
    issue: Issue,
    options: Options,
    *,
    plan_file: str = "",
    wait: bool = False,
    verbose: bool = False,
    tour: bool = True,
) -> int:
    """`tour`: at the end, name the commands that show the work."""
    from orchgit.cli.screen import Screen
    from orchgit.git.user import discover
    from orchgit.session import begin

    plan = None
    if plan_file:
        from orchgit.cli.plan import read_plan

        plan = read_plan(Path(plan_file))
    with Screen(verbose=verbose) as screen:
        banner(options.backend)
        session, said = begin(discover(root), issue, options, (screen.event,), screen.progress, plan)
        for line in said:
            print(f"orchgit: {line}", file=sys.stderr)
        try:
            return drive(session, screen, wait=wait, tour=tour)
        finally:
            session.close()


def banner(backend: str) -> None:
    if backend == "scripted":
        print("orchgit: SCRIPTED agents: they follow a playbook, no model is called", file=sys.stderr)


def drive(session: Session, screen: Screen, *, wait: bool = False, tour: bool = True) -> int:
    """Go on until a human is needed or the run is over; say where it stands, and what to type."""
    from orchgit.cli.common import exit_code, interactive
    from orchgit.cli.human import Human
    from orchgit.eventlog import user_name
    from orchgit.report import next_lines, safe

    def stands(run: Run, event: e.Event) -> None:
        body, words = event.body, ""
        if isinstance(body, e.AgentPaused):
            words = f"orchgit run {run.id}: {body.assignment} is paused, it touched {safe(body.path)}"
        elif isinstance(body, e.AgentStarted) and body.backend == "human":
            words = f"orchgit run {run.id}: {safe(body.member)} has an assignment"
        if words:
            # Not on the thread that writes the log: the command may take its time.
            threading.Thread(target=call_notify, args=(session, words), daemon=True).start()
            for line in next_lines(run, alive=True):
                screen.say(f"         {line}")

    session.runner.listen(stands)
    idle = Human(screen, user_name(), session).idle if interactive() else None
    poller = _listen(session, screen, stay=wait or idle is not None)
    try:
        run = session.runner.drive(session.world, wait=wait, idle=idle)
    except KeyboardInterrupt:
        screen.pause()
        print(f"\norchgit: interrupted; to go on: orchgit resume {session.runner.run.id}", file=sys.stderr)
        return 130
    finally:
        if poller is not None:
            poller.stop()
    screen.pause()
    if run.phase == "completed" and run.by_pr:
        try:
            session.push_log()
        except OrchgitError as error:
            screen.say(f"the end of the log was not pushed: {safe(str(error), lines=True)}")
    notify(session, run)
    epilogue(run, screen, tour=tour)
    return exit_code(run)


def _listen(session: Session, screen: Screen, *, stay: bool) -> Poller | None:
    """What people said on the forge since the last time, at once; and from then on, if somebody `stay`s for it."""
    from orchgit.report import safe

    def tell(words: str) -> None:
        screen.say(f"orchgit: {safe(words)}")

    try:
        poller = session.poller(tell)
    except OrchgitError as error:  # the work itself needs no forge, and the terminal is heard too
        tell(str(error))
        return None
    if poller is not None:
        poller.once()
        if stay:
            poller.start(session.world.agents.config.forge.poll_s)
    return poller


def epilogue(run: Run, screen: Screen, *, tour: bool) -> None:
    """The end on the screen: the report's essence, and where to look."""
    from orchgit.cli.common import console, interactive, plan_title, show_plan
    from orchgit.core.decide import waiting
    from orchgit.report import next_lines, phase, totals

    if waiting(run) == "approval" and run.proposal and not interactive():
        out = console(stderr=True)
        out.print()
        show_plan(out, run.proposal.plan, plan_title(run), run.started.base if run.started else "")
    screen.say(f"\nrun {run.id}: {phase(run)}")
    if run.synthesis:
        screen.say(f"\n{run.synthesis.summary}\n\n{totals(run.synthesis.totals)}")
        if run.synthesis.review_by_human:
            screen.say("\nFor a human to look at:")
            for item in run.synthesis.review_by_human:
                screen.say(f"  - {item}")
            screen.say("")
    for line in next_lines(run):
        screen.say(f"  {line}")
    if run.phase == "completed" and tour:
        screen.say(f"  read it:      orchgit report {run.id}")
        screen.say(f"  check it:     orchgit audit {run.id}")
        screen.say(f"  see it:       git log --graph --oneline orchgit/{run.id}/integration")
        if not run.shipped:
            screen.say(f"  take it:      git merge orchgit/{run.id}/integration")


def notify(session: Session, run: Run) -> None:
    """Tell the human by the configured command, when the run waits for one."""
    from orchgit.core.decide import waiting

    need = waiting(run)
    if need:
        call_notify(session, f"orchgit run {run.id} waits for {need}")


def call_notify(session: Session, words: str) -> None:
    import subprocess

    command = session.world.agents.config.notify.command
    if command:
        try:
            subprocess.run([*command, words], check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"orchgit: the notify command did not work: {error}", file=sys.stderr)


def read_issue(source: str, root: Path = Path()) -> Issue:
    """Title: the first heading, or the first line. Raises OrchgitError for one that cannot be read or says nothing."""
    from orchgit.forge import reference
    from orchgit.session import Issue

    named = reference(source)
    if named is not None and not Path(source).exists():
        return _from_forge(named, root)
    if source == "-":
        data, name = sys.stdin.buffer.read(), "standard input"
    else:
        try:
            data, name = Path(source).read_bytes(), source
        except OSError as error:
            raise OrchgitError(
                Kind.USAGE, f"the issue {source!r} cannot be read", error.strerror or str(error),
                "give a Markdown file, - for standard input, or an issue at GitHub: 65, owner/repo#65, its URL",
            ) from error  # fmt: skip
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OrchgitError(Kind.USAGE, f"the issue {name} is not UTF-8 text", str(error), "save it as UTF-8") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise OrchgitError(
            Kind.USAGE,
            "the issue on standard input is empty" if source == "-" else f"the issue {name} is empty",
            "nothing can be planned from it",
            "say what is to be built, and why",
        )
    heading = next((line for line in lines if line.startswith("# ")), lines[0])
    return Issue(name, heading.lstrip("# ").strip(), text)


def _from_forge(named: Reference, root: Path) -> Issue:
    import os

    from orchgit.config import load
    from orchgit.forge import connect
    from orchgit.forge_in import issue_text
    from orchgit.session import Issue

    config = load(root, os.environ).forge
    kind = config.kind if config.kind != "local" else "github"  # reading needs no leave: nothing leaves the machine
    remote = "" if named.repo else config.remote

    def tell(words: str) -> None:
        print(f"orchgit: {words}", file=sys.stderr)

    forge = connect(kind, root, os.environ, remote=remote, wanted=named, tell=tell, stop=threading.Event())
    issue = forge.issue(named.number)
    if issue.state == "closed":
        tell(f"issue {issue.number} is closed")
    text = issue_text(issue, forge.comments(named.number))
    return Issue(issue.url, issue.title, text, issue.number, forge.remote)
