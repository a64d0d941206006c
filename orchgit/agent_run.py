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
from orchgit.agents.budget import Ledger, Spent, plus, taken, usage, used
from orchgit.config import Config
from orchgit.core import events as e
from orchgit.core.decide import ENGINE
from orchgit.core.errors import OrchgitError
from orchgit.eventlog import Store
from orchgit.git import cells
from orchgit.git.door import Door, object_stores
from orchgit.patience import Patience, epoch_s, rfc3339, wait
from orchgit.process import Child, Launch, identity
from orchgit.roster import Roster, prompt
from orchgit.sandbox import Confinement, Furnished, Level, Network, Overlay, Sandbox, base_env, launcher
from orchgit.sandbox.secrets import secrets

CHILDREN = "children"
Emit = Callable[[e.Draft], None]
MAX_MESSAGE = 1000
ASK_VARIABLE = "ORCHGIT_SCOPE_REQUEST"  # names the file by which an agent without our tools asks for more scope


class Place:
    """Where an agent works: a cell and its confinement, made when the first tool is called and not before.

    Paused, all that was started there stands still, and what is started meanwhile does too.
    """

    def __init__(self, workdir: Path, make: Callable[[], Launch]) -> None:
        self.workdir = workdir
        self._make = make
        self._launch: Launch | None = None
        self._lock = threading.Lock()
        self._children: list[Child] = []
        self._still_s = 0.0  # how long it was paused, all in all
        self._since_s: float | None = None  # monotonic: when the pause began

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        with self._lock:
            if self._launch is None:
                self._launch = self._make()
            child = self._launch(argv, env=env, cwd=cwd)
            self._children.append(child)
            if self._since_s is not None:
                child.pause()
        return child

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
        return self._launch is not None


def confined(
    sandbox: Sandbox, cell: cells.Cell, writable: Sequence[str], *, network: Network = "none", mounted: bool = True
) -> Launch:
    """A launch into this cell: HOME lies in the private temporary directory where nothing else is writable.

    Not `mounted`, an overlay's layers are seen as they are: for who reads them, not for an agent.
    """
    # Not a name that an agent could have taken before us.
    home = str(cell.home) if str(cell.home) in writable else tempfile.mkdtemp(prefix="home-", dir=cell.tmp)
    cage = confinement(cell, writable, network=network, mounted=mounted)
    env = base_env(home, str(cell.tmp), extra={ASK_VARIABLE: str(scope_request(cell))})
    launch = launcher(sandbox, cage, cwd=str(cell.work), env=env)

    def recorded(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        child = launch(argv, env=env, cwd=cwd)
        note_child(cell.root.parent, child.pid)
        return child

    return recorded


def confinement(
    cell: cells.Cell, writable: Sequence[str], *, network: Network = "none", mounted: bool = True
) -> Confinement:
    overlay = None
    if mounted and cell.overlaid:
        lowers = tuple(map(str, cell.lowers))
        overlay = Overlay(str(cell.work), lowers, upper=str(cell.top), work=str(cell.root / "ovl"))
    readable = (os.path.realpath(cell.root),)
    return Confinement(tuple(writable), str(cell.tmp), network=network, overlay=overlay, readable=readable)


def note_child(state: Path, pid: int) -> None:
    """Write down whom the engine started, for the one after it: agents die with their engine where the kernel sees to
    it, and elsewhere somebody has to look (recovery.py)."""
    with (state / CHILDREN).open("ab", buffering=0) as file:
        file.write(f"{pid} {identity(pid)}\n".encode())


def scope_request(cell: cells.Cell) -> Path:
    return cell.tmp / "scope-request.json"


def furnish(way: Sandbox, level: Level, config: Config, door: Door, place: Path) -> Furnished:
    """This way, with what holds for all programs of a run whose cells are in `place`.

    Of the user's repository they may read the objects, and nothing else: its configuration can hold a password, and
    the log lies beside it.
    """
    limits = config.sandbox
    most = (
        ("memory", limits.memory_mb << 20), ("processes", limits.processes), ("fsize", limits.file_mb << 20)
    )  # fmt: skip
    return Furnished(
        way, level, hidden=(*secrets(os.path.expanduser("~")), os.path.realpath(door.common)),
        readable=(os.path.realpath(place), *map(str, object_stores(door.objects))),
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

    def network(self, role: agents.Role) -> Network:
        """What its programs may reach, as configured."""
        return dict[agents.Role, Network](
            orchestrator=self.config.network.orchestrator, worker=self.config.network.worker,
            reviewer=self.config.network.reviewer,
        )[role]  # fmt: skip

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
        assignment: str = "",
        before: Sequence[e.Used] = (),
        waiting: e.AgentWaiting | None = None,
    ) -> tuple[agents.Outcome, object | None]:
        """Run it to its end; the outcome, and the result as parsed (None unless done). Emits notes on the way.

        `before`: what earlier runs of the same attempt took. `waiting`: it was waiting for its service when the engine
        before this one ended, and goes on with that.
        """
        member = self.roster.get(name)
        backend = agents.backend(member.member.backend)
        model = "scripted" if backend.name == "scripted" else member.member.model or backend.default_model
        text = f"orchgit-job: {key}\n\n{brief}\n"
        system = f"{prompt(purpose)}\n\n{member.prompt}"
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
                        self.level.name, self.level.reach(self.network(role)),
                    ),
                    ENGINE, cause,
                )
            )  # fmt: skip
        with path.open("a", encoding="utf-8", errors="backslashreplace") as transcript:
            stint = _Stint(self, emit, cause, name, backend, place, stop, spent)

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
                workdir=str(place.workdir), tools=member.tools, results=_results(purpose, parse or {}),
                model=model, limits=member.limits, launch=place, stop=stop, record=record, clock=place.clock,
                progress=lambda line: self.progress(name, line), options=self.config.options(backend.name),
                session=session, answer=answer, held_s=lambda: self.patience.held_s(backend.name),
                purse=self.ledger.purse(member.limits, [*before, spent], assignment),
            )  # fmt: skip
            outcome = stint.work(job, waiting)
        u = outcome.usage
        emit(
            e.Draft(
                e.AgentExited(
                    name, outcome.status, outcome.message[:MAX_MESSAGE], stint.ms,
                    u.calls, u.input, u.output, u.cache_read, u.cache_write, u.cost_micro,
                    self.store.put(path.read_bytes()), tuple(refused[:20]), u.unsure_tokens, u.unsure_micro,
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


class _Stint:
    """The work of one agent until it ends, and its waits in between; what it takes is counted over all of it."""

    def __init__(
        self, team: Agents, emit: Emit, cause: int, name: str, backend: agents.Backend, place: Place,
        stop: threading.Event, spent: e.Used,
    ) -> None:  # fmt: skip
        self._team, self._emit, self._cause, self._name = team, emit, cause, name
        self._backend, self._place, self._stop = backend, place, stop
        self._usage, self._before_ms = usage(spent), spent.duration_ms
        self._since_s: float | None = None  # by the place's clock: when it began to work

    @property
    def ms(self) -> int:
        """How long it has worked."""
        since_s = self._since_s
        return self._before_ms + (0 if since_s is None else int((self._place.clock() - since_s) * 1000))

    def work(self, job: agents.Job, note: e.AgentWaiting | None) -> agents.Outcome:
        tries, since = 0, note.since if note else ""
        if note and note.session:
            job = replace(job, session=self._team.store.blob(note.session), answer="")
        while True:
            if note:
                if not wait(epoch_s(note.until), self._stop):
                    outcome = agents.Outcome("stopped", message="the engine asked it to stop, while it waited")
                    break
                self._emit(e.Draft(e.AgentWaited(self._name), ENGINE, self._cause))
            outcome = self._once(job)
            self._usage = plus(self._usage, outcome.usage)
            if outcome.status != "limited":
                break
            if outcome.usage.output or not since:
                tries, since = 0, rfc3339(time.time())
            until = self._team.patience.limited(self._backend.name, outcome.retry_after_s, tries)
            tries += 1
            patience_s = self._team.config.agents.patience_s
            if until - epoch_s(since) > patience_s:
                why = f"{outcome.message}; it would wait until {rfc3339(until)}, and patience_s is {patience_s}"
                outcome = agents.Outcome("unavailable", message=why, hint="later: orchgit resume")
                break
            session = self._team.store.put(outcome.session) if outcome.session else ""
            note = e.AgentWaiting(
                self._name, self._backend.name, rfc3339(until), since, outcome.message[:MAX_MESSAGE], session,
                used(self._usage, self.ms),
            )  # fmt: skip
            self._emit(e.Draft(note, ENGINE, self._cause))
            if outcome.session:
                job = replace(job, session=outcome.session, answer="")
        return replace(outcome, usage=self._usage)

    def _once(self, job: agents.Job) -> agents.Outcome:
        """Until it ends or has to wait. Its seconds run only here."""
        purse = job.purse
        assert purse is not None
        begun_s = self._since_s = self._place.clock()
        purse.begin(lambda: self._place.clock() - begun_s)
        seconds = max(1, job.limits.seconds - self._before_ms // 1000)
        try:
            purse.begun()
            return self._backend.run(replace(job, limits=replace(job.limits, seconds=seconds)))
        except Spent as spent:
            session = job.session  # it has not been taken up
            return agents.Outcome(spent.status, None, spent.words, "", agents.Usage(cost_micro=0), session)
        except OrchgitError as error:
            # Raised where the first tool call made the place: the sandbox or the checkout failed, not the agent.
            return agents.Outcome(
                "unavailable", message=f"{error.what}: {error.why}", hint=error.hint, usage=agents.Usage(cost_micro=0)
            )
        finally:
            worked_ms = self.ms - self._before_ms
            self._before_ms, self._since_s = self._before_ms + worked_ms, None
            purse.end(worked_ms)


def refusal(entry: Mapping[str, Any]) -> tuple[Any, str, str] | None:
    """(layer, words, path) when a transcript entry is a tool call that was not allowed."""
    if entry.get("kind") != "result" or entry.get("ok"):
        return None
    text = str(entry.get("text", ""))
    if entry.get("refused"):
        return "tool", text, ""
    if text.startswith("permission denied: "):
        path = text.removeprefix("permission denied: ").partition(" is ")[0]
        return "sandbox", text.partition(". ")[0], path[:200]
    return None


def _results(purpose: str, parse: Mapping[str, Callable[[Mapping[str, Any]], object]]) -> tuple[agents.ResultTool, ...]:
    made = []
    for name in wire.PURPOSE_RESULTS[purpose]:
        model, about = wire.RESULTS[name]
        made.append(
            agents.ResultTool(
                name,
                about,
                wire.schema(model),
                parse.get(name, partial(wire.parse, model)),
                pauses=name == "request_scope",
            )
        )
    return tuple(made)
