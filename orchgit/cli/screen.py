"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere: on stderr, but where it is
what was asked for."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from orchgit.core import events as e
from orchgit.core.state import HOUSED, Run
from orchgit.report import clock, safe, say, short

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

# Of interest to whoever reads the log, not to whoever watches.
QUIET = frozenset(
    {
        "cell.requested", "cell.removal_requested", "cell.removed", "agent.requested", "gate.requested",
        "salvage.requested", "merge.prepared", "merge.built", "merge.requested", "agent.started",
        "log.checkpointed", "forge.requested", "forge.done",
    }
)  # fmt: skip
LOUD = frozenset(
    {
        "agent.waiting",
        "agent.halted",
        "scope.violation_seen",
        "agent.paused",
        "blocker.raised",
        "finding.opened",
        "gate.failed",
        "checks.failed",
        "forge.failed",
    }
)


class Screen:
    """A listener of the runner, and where agents' progress lines go. Safe to call from any thread."""

    def __init__(self, *, verbose: bool = False, asked: bool = False) -> None:
        """`asked`: the story is what was asked for, so it goes to stdout, and without a live table."""
        self._verbose = verbose
        self._asked = asked
        self._file = sys.stdout if asked else sys.stderr
        self._live: Live | None = None
        self._console: Console | None = None
        self._run: Run | None = None
        self._doing: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._terminal = self._file.isatty()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def event(self, run: Run, event: e.Event) -> None:
        with self._lock:
            self._run = run
            unpublished = isinstance(event.body, e.LogCheckpointed) and event.body.why
            opened = isinstance(event.body, e.ForgeDone) and event.body.key.startswith("change/")
            if self._verbose or unpublished or opened or event.body.type not in QUIET:
                refused = isinstance(event.body, e.AgentExited) and event.body.refused
                mark = "! " if event.body.type in LOUD or refused else "  "
                self._print(f"{event.time[11:19]} {mark}{say(event)}")
            body = event.body
            if isinstance(body, e.AgentStarted):
                self._since[body.member] = time.monotonic()
                self._show()
            elif isinstance(body, e.AgentWaiting):
                self._since.setdefault(body.member, time.monotonic())
                self._doing[body.member] = f"waits until {clock(body.until)} for {short(body.backend)}"
                self._show()
            elif isinstance(body, e.AgentWaited):
                self._doing.pop(body.member, None)
            elif isinstance(body, e.AgentExited):
                self._since.pop(body.member, None)
                self._doing.pop(body.member, None)

    def progress(self, who: str, line: str) -> None:
        with self._lock:
            self._doing[who] = short(line, 80)
            if self._verbose and not self._terminal:
                self._print(f"           {who}: {short(line)}")

    def pause(self) -> None:
        """Take the live table away, so that a question can be asked; the next agent that starts brings it back."""
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(safe(line), markup=False, highlight=False)
        elif self._terminal:
            self._out().print(safe(line), markup=False, highlight=False)  # broken at words, not in them
        else:
            print(safe(line), file=self._file, flush=True)

    def say(self, text: str) -> None:
        """Lines for the person, outside the story of events."""
        with self._lock:
            for line in text.split("\n"):
                self._print(line)

    def _out(self) -> Console:
        if self._console is None:
            from orchgit.cli.common import console

            self._console = console(stderr=not self._asked)
        return self._console

    def _show(self) -> None:
        if not self._terminal or self._asked or self._live is not None:
            return
        from rich.live import Live

        self._live = Live(
            console=self._out(), refresh_per_second=4, transient=True, get_renderable=self._table
        )  # fmt: skip
        self._live.start()

    def _table(self) -> Table:
        from rich.table import Table

        # Called from rich's own thread, which holds rich's lock: taking ours here could wait for ever.
        table = Table.grid(padding=(0, 2))
        run, now = self._run, time.monotonic()
        works = run.works.items() if run else ()
        busy = {w.spec.worker: f"{n} · attempt {w.attempt}" for n, w in works if w.stage in HOUSED}
        for who, since in tuple(self._since.items()):
            doing = self._doing.get(who, "thinking")
            table.add_row("●", who, busy.get(who, ""), f"{now - since:.0f} s", doing)
        return table
