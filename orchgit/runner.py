"""The loop: decide, write, act; repeat.

One thread owns the log and the state: the one that calls `drive`. Requests are performed by threads of their own, which
post what they see to one queue. Nothing is acted on before it is written, and nothing is decided here.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit import publish
from orchgit.core import events as e
from orchgit.core.decide import ENGINE, decide, waiting
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import Illegal, Run, evolve, replay
from orchgit.eventlog import Log, Store

if TYPE_CHECKING:
    from orchgit.config import Log as LogSettings
    from orchgit.effects import World  # imported only to drive a run: `approve` and its like just write to one
    from orchgit.git.door import Door

Listener = Callable[[Run, e.Event], None]
POLL_S = 5.0  # the inbox is looked at when the watchdog says so, and this often in case it did not


@dataclass(frozen=True)
class _Waits:
    """A note whose thread goes on when it is logged."""

    draft: e.Draft
    logged: threading.Event


def now() -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def load(log: Store) -> Run:
    """Fold the log that is there. Raises OrchgitError for one that is not legal."""
    run = Run(log.run)
    for event in log.read() if log.events.exists() else []:
        try:
            run = evolve(run, event)
        except Illegal as error:
            raise OrchgitError(
                Kind.NO, f"event {event.seq} of run {log.run} could not happen", str(error), f"orchgit audit {log.run}"
            ) from error
    return run


class Runner:
    """Drives one run. Use as a context: leaving it stops what is under way and closes the log."""

    def __init__(self, log: Log, listeners: tuple[Listener, ...] = ()) -> None:
        self.log = log
        self.run = load(log)
        self.world: World | None = None
        self._listeners = listeners
        self._seen: queue.Queue[e.Draft | _Waits | BaseException | None] = queue.Queue()
        self._closing = threading.Event()
        self._threads: dict[int, threading.Thread] = {}
        self._inherited = frozenset(self.run.pending)  # asked for by an engine before this one
        for digest in self.run.redacted:  # one that was killed between saying and doing it
            log.drop(digest)
        # A batch that its engine could not finish writing is finished first: every batch ends in a fixed point.
        self.record()

    def record(self, *drafts: e.Draft) -> list[e.Event]:
        """Decide on what was seen and write it all. Raises Illegal for an input that cannot happen now."""
        if self.run.phase == "new" and not drafts:
            return []
        before = self.run
        run, written = decide(before, [self.log.clean(d) for d in drafts], now())
        if written:
            self.log.append(written)
        self.run = run
        for event in written:
            if isinstance(event.body, e.RedactionRecorded):
                self.log.drop(event.body.digest)
            for listen in self._listeners:
                listen(run, event)
        return written

    def listen(self, listener: Listener) -> None:
        self._listeners = (*self._listeners, listener)

    # -- driving

    def drive(
        self, world: World, *, wait: bool = False, idle: Callable[[Run], list[e.Draft] | None] | None = None
    ) -> Run:
        """Go on until a human is needed or the run is over.

        When it waits for a human, `idle` may supply what the human said (it blocks; None means nobody answers here,
        nothing that the inbox has it); with `wait`, the inbox is waited for instead of returning.
        """
        self.world = world
        watch = self._notice_inbox(world)
        try:
            self._take_up(world)
            self._act(world, [])
            while not self.run.over:
                self._inbox()
                if waiting(self.run) and self._seen.empty():
                    said = idle(self.run) if idle else None
                    if said is not None:
                        self._act(world, self.record(*said))
                        continue
                    if not wait:
                        return self.run
                if not self.run.pending and not waiting(self.run):
                    return self.run
                self._step(world)
            return self.run
        finally:
            watch()

    def _step(self, world: World) -> None:
        """Take what was seen, as much as there is, and go on from there."""
        drafts: list[e.Draft] = []
        waits: list[threading.Event] = []
        try:
            got = self._seen.get(timeout=POLL_S)
            while True:
                if isinstance(got, OSError):
                    raise self._refused(got) from got
                if isinstance(got, BaseException):
                    raise got
                if isinstance(got, _Waits):
                    drafts.append(got.draft)
                    waits.append(got.logged)
                elif got is not None:
                    drafts.append(got)
                got = self._seen.get_nowait()
        except queue.Empty:
            pass
        if drafts:
            self._act(world, self.record(*drafts))
        for logged in waits:
            logged.set()

    def _emit(self, draft: e.Draft) -> None:
        """A note from a thread. That an agent starts or has waited is on the disk before it works: resume goes by it.
        That it has ended, before its live transcript goes: else nobody could say what it took."""
        if not isinstance(draft.body, e.AgentStarted | e.AgentWaited | e.AgentExited):
            self._seen.put(draft)
            return
        logged = threading.Event()
        self._seen.put(_Waits(draft, logged))
        while not logged.wait(0.1):
            if self._closing.is_set():
                raise RuntimeError("the engine ends")

    def _act(self, world: World, written: list[e.Event]) -> None:
        if any(isinstance(event.body, e.ForgeRequested) for event in written):
            self._published(world)  # a push takes the log with it
        for event in written:
            if isinstance(event.body, e.AbortRequested):
                for stop in world.stops.values():
                    stop.set()
            if isinstance(event.body, e.AgentContinued):
                world.go_on(event.body)
            if isinstance(event.body, e.BudgetRaised):
                world.agents.ledger.raise_by(event.body.more, event.body.assignment)
            if event.body.kind == "request" and event.seq in self.run.pending:
                self._start(world, event)
        self._published(world)  # after what was asked for is on its way

    def _published(self, world: World) -> None:
        if publish.due(self.run):
            self.publish(world.door, world.agents.config.log)

    def publish(self, door: Door, settings: LogSettings) -> None:
        """A checkpoint of the log, and the note that it is there."""
        try:
            note = publish.checkpoint(
                door, self.log, self.run, everything=settings.publish_all, key=settings.sign, tag=settings.tag
            )
        except OSError as error:
            raise self._refused(error) from error
        self.record(e.Draft(note, ENGINE))

    def _refused(self, error: OSError) -> OrchgitError:
        return OrchgitError(
            Kind.FAULT, "the machine refused something that the run needs", str(error),
            f"when that is mended: orchgit resume {self.run.id}",
        )  # fmt: skip

    def _take_up(self, world: World) -> None:
        """What has no outcome yet: of an engine before this one, or asked for before there was a world to act on."""
        self._published(world)
        for seq, event in self.run.pending.items():
            if seq not in self._threads:
                self._start(world, event, inherited=seq in self._inherited)

    def _start(self, world: World, event: e.Event, *, inherited: bool = False) -> None:
        from orchgit import effects

        do, run = effects.recover if inherited else effects.perform, self.run

        def body() -> None:
            try:
                self._seen.put(do(world, run, event, self._emit))
            except BaseException as error:  # noqa: BLE001 - carried to the thread that owns the log, and raised there
                self._seen.put(error)

        thread = threading.Thread(target=body, name=f"{event.body.type} {event.seq}", daemon=True)
        self._threads[event.seq] = thread
        thread.start()

    # -- inbox

    def _notice_inbox(self, world: World) -> Callable[[], None]:
        try:
            return world.watchdog.notify(str(self.log.path / "inbox"), lambda _: self._seen.put(None)).stop
        except OSError:
            return lambda: None

    def _inbox(self) -> None:
        """Log each message once, then delete it: killed between the two, the second reading finds it refused."""
        for path in self.log.inbox():
            answer = apply(self, path)
            if self.world is not None:
                self._act(self.world, answer)
            path.unlink(missing_ok=True)

    # -- end

    def interrupt(self) -> None:
        """Stop every agent; their requests stay open in the log, for resume."""
        self._closing.set()
        if self.world is not None:
            for stop in self.world.stops.values():
                stop.set()
        deadline = time.monotonic() + 5
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        self.log.close()


def apply(runner: Runner, path: Path) -> list[e.Event]:
    """A message from another process, as the input it stands for. One that cannot happen now is dropped, said so."""
    try:
        message = json.loads(path.read_bytes())
        draft = draft_of(message)
        return runner.record(draft)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, Illegal) as error:
        said = f"message {path.stem}: {error}"[:500]
        ignored = e.Draft(e.OutcomeIgnored("inbox", said), ENGINE)
        return runner.record(ignored)


def message_of(draft: e.Draft) -> dict[str, object]:
    """What `draft_of` reads: an input on its way through the inbox."""
    return {"type": draft.body.type, "data": e.encode(draft.body), "actor": e.encode(draft.actor)}


def draft_of(message: dict[str, object]) -> e.Draft:
    """Raises ValueError for what is not an input of a human."""
    cls = e.TYPES.get(str(message["type"]))
    if cls is None or not (cls.kind == "input" or cls is e.PlanProposed):
        raise ValueError(f"{message['type']!r} does not come through the inbox")
    actor = e.decode(e.Actor, message["actor"])
    if actor.kind != "human":
        raise ValueError("only what a human said comes through the inbox")
    return e.Draft(e.decode(cls, message["data"]), actor)


def submit(log_path: Path, draft: e.Draft) -> tuple[str, Run | None]:
    """Say something to a run, alive or not. "sent" to a living engine, or "logged" with the run after it.

    Raises OrchgitError, with the reason, for what cannot happen now.
    """
    store = Store(log_path)
    if not store.events.exists():
        raise OrchgitError(
            Kind.NO, f"run {store.run} is not of this clone", "it was fetched; only the clone that began it goes on",
            f"orchgit status {store.run}",
        )  # fmt: skip
    if store.holder() is not None:
        _rehearse(store, draft)
        store.submit(message_of(draft))
        return "sent", None
    log = Log(log_path)
    try:
        runner = Runner(log)
        try:
            runner.record(draft)
        except (Illegal, e.LineError) as error:
            raise OrchgitError(Kind.NO, "that cannot be done now", str(error), f"orchgit status {log.run}") from error
        return "logged", runner.run
    finally:
        log.close()


def _rehearse(store: Store, draft: e.Draft) -> None:
    """Whether it could happen in the run as the log has it: the person at the keyboard is told at once."""
    try:
        decide(replay(store.run, store.read()), [draft], now())
    except (Illegal, e.LineError) as error:
        raise OrchgitError(Kind.NO, "that cannot be done now", str(error), f"orchgit status {store.run}") from error
