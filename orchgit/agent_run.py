"""One run of one agent: the place it may be in, the transcript, the limits, and what came of it.

Shared by every purpose. It knows nothing of plans and merges: it turns a job into notes for the log (started, exited,
refused) and hands back the result as the agent's own, validated words.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchgit import agents, wire
from orchgit.agents import handin
from orchgit.agents.budget import Ledger, taken
from orchgit.config import Config, state_home
from orchgit.core import events as e
from orchgit.core.decide import ENGINE
from orchgit.eventlog import Store
from orchgit.git import cells
from orchgit.git.door import Door, object_stores
from orchgit.patience import Patience
from orchgit.process import Child, Launch, identity
from orchgit.roster import Roster, prompt
from orchgit.sandbox import Confinement, Furnished, Level, Network, Overlay, Sandbox, base_env, launcher
from orchgit.sandbox.secrets import secrets
from orchgit.stint import Stint

CHILDREN = "children"
Emit = Callable[[e.Draft], None]
MAX_MESSAGE = 1000


class Place:
    """Where an agent works: a cell and its confinement, made when the first tool is called and not before.

    Paused, all that was started there stands still, and what is started meanwhile does too.
    """

    brief = ""  # what the agent finds there in a file

    def __init__(self, cell: cells.Cell, make: Callable[[], Launch]) -> None:
        self.cell = cell
        self._make = make
        self._made: tuple[Launch, agents.HandIn] | None = None
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._still_s = 0.0  # how long it was paused, all in all
        self._since_s: float | None = None  # monotonic: when the pause began

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        with self._lock:
            launch, files = self._open()
            child = launch(argv, env={**handin.environment(files), **(env or {})}, cwd=cwd)
            self._children.append(child)
            if self._since_s is not None:
                child.pause()
        return child

    def handin(self) -> agents.HandIn:
        with self._lock:
            return self._open()[1]

    def _open(self) -> tuple[Launch, agents.HandIn]:
        if self._made is None:
            launch = self._make()
            self._made = launch, handin.prepare(self.cell.tmp, self.brief)
        return self._made

    def pause(self) -> bool:
        """False when it is paused already."""
        with self._lock:
            if self._since_s is not None:
                return False
            self._since_s = time.monotonic()
            for child in self._children:
                child.pause()
        return True

    def resume(self) -> None:
        with self._lock:
            if self._since_s is None:
                return
            self._still_s += time.monotonic() - self._since_s
            self._since_s = None
            for child in self._children:
                child.resume()

    def clock(self) -> float:
        """time.monotonic, but it stands still with the place."""
        since_s = self._since_s
        return (time.monotonic() if since_s is None else since_s) - self._still_s

    @property
    def used(self) -> bool:
        return self._made is not None


def confined(
    sandbox: Sandbox, cell: cells.Cell, writable: Sequence[str], *, network: Network = "none", mounted: bool = True,
    readable: Sequence[str] = (),
) -> Launch:  # fmt: skip
    """A launch into this cell: HOME lies in the private temporary directory where nothing else is writable.

    Not `mounted`, an overlay's layers are seen as they are: for who reads them, not for an agent.
    """
    # Not a name that an agent could have taken before us.
    home = str(cell.home) if str(cell.home) in writable else tempfile.mkdtemp(prefix="home-", dir=cell.tmp)
    cage = confinement(cell, writable, network=network, mounted=mounted, readable=readable)
    launch = launcher(sandbox, cage, cwd=str(cell.work), env=base_env(home, str(cell.tmp)))

    def recorded(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        child = launch(argv, env=env, cwd=cwd)
        note_child(cell.root.parent, child.pid)
        return child

    return recorded


def confinement(
    cell: cells.Cell, writable: Sequence[str], *, network: Network = "none", mounted: bool = True,
    readable: Sequence[str] = (),
) -> Confinement:  # fmt: skip
    """`readable`: what else must not be hidden."""
    overlay = None
    if mounted and cell.overlaid:
        lowers = tuple(map(str, cell.lowers))
        overlay = Overlay(str(cell.work), lowers, upper=str(cell.top), work=str(cell.root / "ovl"))
    seen = (os.path.realpath(cell.root), *readable)
    return Confinement(tuple(writable), str(cell.tmp), network=network, overlay=overlay, readable=seen)


def note_child(state: Path, pid: int) -> None:
    """Write down whom the engine started, for the one after it: agents die with their engine where the kernel sees to
    it, and elsewhere somebody has to look (recovery.py)."""
    with (state / CHILDREN).open("ab", buffering=0) as file:
        file.write(f"{pid} {identity(pid)}\n".encode())


def furnish(way: Sandbox, level: Level, config: Config, door: Door, place: Path) -> Furnished:
    """This way, with what holds for all programs of a run whose cells are in `place`.

    Of the user's repository they may read the objects, and nothing else: its configuration can hold a password, and
    the log lies beside it. Of all cells, of this run and of others, only their own: a cell may hold a credential.
    """
    homes = state_home(config, os.environ)
    limits = config.sandbox
    most = (
        ("memory", limits.memory_mb << 20), ("processes", limits.processes), ("fsize", limits.file_mb << 20)
    )  # fmt: skip
    return Furnished(
        way, level,
        hidden=(*secrets(os.path.expanduser("~")), *map(os.path.realpath, (door.common, homes, place))),
        readable=tuple(map(str, object_stores(door.objects))),
        limits=tuple((name, value) for name, value in most if value),
    )  # fmt: skip


@dataclass(frozen=True)
class Agents:
    """What every agent run needs."""

    config: Config
    roster: Roster
    store: Store
    sandbox: Sandbox
    level: Level
    progress: Callable[[str, str], None]  # (who, one line)
    ledger: Ledger
    patience: Patience

    def needs(self, name: str) -> agents.Needs:
        """Of this member's programs: what is configured, and what its backend cannot do without."""
        member = self.roster.get(name).member
        needs = agents.backend(member.backend).needs(self.config.options(member.backend))
        return replace(needs, network=self.config.network.of(member.role, needs.network))

    def run(
        self,
        *,
        role: agents.Role,
        purpose: agents.Purpose,
        name: str,
        key: str,
        brief: str,
        place: Place,
        stop: threading.Event,
        cause: int,
        emit: Emit,
        scope_of: tuple[str, int] | None = None,
        parse: Mapping[str, Callable[[Mapping[str, Any]], object]] | None = None,
        session: bytes = b"",
        answer: str = "",
        scope: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
        assignment: str = "",
        before: Sequence[e.Used] = (),
        waiting: e.AgentWaiting | None = None,
    ) -> tuple[agents.Outcome, object | None]:
        """Run it to its end; the outcome, and the result as parsed (None unless done). Emits notes on the way.

        `before`: what earlier runs of the same attempt took. `waiting`: it was waiting for its service when the engine
        before this one ended, and goes on with that.
        """
        member, network = self.roster.get(name), self.needs(name).network
        backend = agents.backend(member.member.backend)
        model = "scripted" if backend.name == "scripted" else member.member.model or backend.default_model
        text = f"orchgit-job: {key}\n\n{brief}\n"
        system = f"{prompt(purpose)}\n\n{member.prompt}"
        ways = results(purpose, parse)
        place.brief = f"{system}\n\n{text}\n{handin.instructions(ways)}\n"
        path = live_transcript(self.store, cause)
        path.parent.mkdir(exist_ok=True)
        # Its engine died in the middle of it: what it took until then was taken.
        spent = taken(path.read_text("utf-8", "replace").splitlines()) if path.exists() else e.Used()
        spent = waiting.used if waiting and waiting.used.calls >= spent.calls else spent
        refused: list[str] = []
        if waiting is None:
            emit(
                e.Draft(
                    e.AgentStarted(
                        name, role, purpose, backend.name, model, self.store.put(f"{system}\n\n{text}".encode()),
                        self.level.name, self.level.reach(network),
                    ),
                    ENGINE, cause,
                )
            )  # fmt: skip
        stint = Stint(backend, place.clock, stop, self.patience, self.config.agents.patience_s, self.store.put, spent)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as transcript:

            def record(entry: Mapping[str, Any]) -> None:
                transcript.write(json.dumps({**entry, "ms": stint.ms}, ensure_ascii=False) + "\n")
                transcript.flush()
                seen = refusal(entry)
                if seen is not None:
                    refused.append(f"{entry.get('tool')}: {seen[1]}"[:300])
                    if scope_of:
                        what = f"{entry.get('tool')}: {seen[1]}"[:300]
                        note = e.ScopeViolationSeen(scope_of[0], scope_of[1], seen[2], what, seen[0])
                        emit(e.Draft(note, ENGINE, cause))

            job = agents.Job(
                role=role, purpose=purpose, key=key, agent=name, system=system, brief=text,
                workdir=str(place.cell.work), tools=member.tools, results=ways,
                model=model, limits=member.limits, launch=place, handin=place.handin, stop=stop, record=record,
                clock=place.clock,
                progress=lambda line: self.progress(name, line), options=self.config.options(backend.name),
                session=session, answer=answer, allow=scope[0], deny=scope[1], confined=self.level.prevented,
                held_s=lambda: self.patience.held_s(backend.name),
                purse=self.ledger.purse(member.limits, [*before, spent], assignment),
            )  # fmt: skip
            if waiting and waiting.session:
                job = replace(job, session=self.store.blob(waiting.session), answer="")
            outcome = _handed_in(stint.work(job, lambda note: emit(e.Draft(note, ENGINE, cause)), waiting), place, ways)
        u = outcome.usage
        emit(
            e.Draft(
                e.AgentExited(
                    name, outcome.status, outcome.message[:MAX_MESSAGE], stint.ms,
                    u.calls, u.input, u.output, u.cache_read, u.cache_write, u.cost_micro,
                    self.store.put(path.read_bytes()), tuple(refused[:20]), outcome.conversation[:100],
                    u.unsure_tokens, u.unsure_micro,
                ),
                ENGINE, cause,
            )
        )  # fmt: skip
        path.unlink()
        parsed = None
        if outcome.status == "done" and outcome.result is not None:
            tool, given = outcome.result
            parsed = next(r for r in job.results if r.name == tool).parse(given)
        return outcome, parsed


def live_transcript(store: Store, cause: int) -> Path:
    """Of the agent that works for this request; a blob when it has ended."""
    return store.path / "live" / f"{cause}.jsonl"


def _handed_in(outcome: agents.Outcome, place: Place, results: Sequence[agents.ResultTool]) -> agents.Outcome:
    """With what it left in its file, where it called no result tool. A request goes before a report."""
    if outcome.status not in ("done", "no_report") or not place.used:
        return outcome
    try:
        left = handin.take(place.handin(), results)
    except ValueError as error:
        return outcome if outcome.status == "done" else replace(outcome, message=outcome.message or str(error))
    if left is None:
        return outcome
    if outcome.result is None or any(r.name == left[0] and r.pauses for r in results):
        return replace(outcome, status="done", result=left)
    return outcome


def refusal(entry: Mapping[str, Any]) -> tuple[Any, str, str] | None:
    """(layer, words, path) when a transcript entry is a tool call that was not allowed."""
    if entry.get("kind") != "result" or entry.get("ok"):
        return None
    text = str(entry.get("text", ""))
    if entry.get("refused"):
        return entry.get("layer", "tool"), text, str(entry.get("path", ""))[:200]
    if text.startswith("permission denied: "):
        path = text.removeprefix("permission denied: ").partition(" is ")[0]
        return "sandbox", text.partition(". ")[0], path[:200]
    return None


def results(
    purpose: agents.Purpose, parse: Mapping[str, Callable[[Mapping[str, Any]], object]] | None = None
) -> tuple[agents.ResultTool, ...]:
    """The ways to end a job. `parse`: of some, what knows more than the form."""
    parsers = {"request_scope": wire.parse_scope_request, **(parse or {})}
    made = []
    for name in wire.PURPOSE_RESULTS[purpose]:
        model, about = wire.RESULTS[name]
        way = parsers.get(name, partial(wire.parse, model))
        made.append(agents.ResultTool(name, about, wire.schema(model), way, pauses=name == "request_scope"))
    return tuple(made)
