"""For each request: perform it, in the world, and say what became of it.

`perform` is called from a thread of its own with the run as it was when the request was made; it returns the outcome
and may emit notes on the way. `recover` ends a request whose engine died: what can be done again is done again,
since every act here leads to the same objects and refs, and who only reads can read again; a worker that was lost
is said to be lost.

Nothing here decides what to do next, and nothing here writes the log.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchgit import brief, cellrun, checks, githooks, ground, wire
from orchgit.agent_run import Agents, Emit, Place, confined, live_transcript
from orchgit.agents import Role, human
from orchgit.agents.budget import taken
from orchgit.agents.toolbox import TEMP_PREFIX
from orchgit.config import Config
from orchgit.core import events as e
from orchgit.core.audit import merge_trailers
from orchgit.core.decide import ENGINE
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.handlers import MAX_ASKS
from orchgit.core.plan import Plan, imprecise, order, problems, upstream
from orchgit.core.plan import printable as shown
from orchgit.core.review import same
from orchgit.core.scope import Scope, hook_rules
from orchgit.core.state import Run, branch
from orchgit.forge_out import Writer
from orchgit.git import cells, conventions, gate, merges, totals, trees
from orchgit.git.door import Door, GitError, Missing
from orchgit.git.facts import author_of
from orchgit.git.harvest import is_whiteout
from orchgit.git.user import UserRepo
from orchgit.sandbox import Sandbox
from orchgit.sandbox.canary import Probe
from orchgit.watch import Sighting, Watch, Watchdog

OUTLINE_FILES = 400
MAX_COPIED_BYTES, MAX_COPIED_FILES = 1024**3, 100_000  # of a cell that git could not read
MAX_LISTED_BYTES = 40_000  # of the violations in one event, as JSON


class Guard:
    """What is done, by policy, when an attempt touches what is outside its scope. Called on the watchdog's thread."""

    def __init__(self, policy: Literal["tell", "pause", "stop"], place: Place, stop: threading.Event) -> None:
        self._policy, self._place, self._stop = policy, place, stop
        self._last = ""
        self.stopped = ""  # the path it was stopped for

    def seen(self, path: str) -> bool:
        """Whether it was paused for it."""
        self._last = path
        if self._policy == "stop":
            self.go_on(stop=True)
        return self._policy == "pause" and self._place.pause()

    def go_on(self, *, stop: bool) -> None:
        if stop:
            self.stopped = self._last
            self._stop.set()  # before the pause ends: no tool is to be called any more
        else:
            self._place.resume()


@dataclass
class World:
    """Everything outside that the requests of one run act on."""

    repo: UserRepo
    door: Door
    agents: Agents
    state: Path  # where this run's cells are
    watchdog: Watchdog
    overlay: bool = False  # whether cells are overlays on one checkout of the run's base
    writer: Callable[[], Writer] | None = None  # to the forge, where the run has one
    watches: dict[tuple[str, int], Watch] = field(default_factory=dict)
    stops: dict[int, threading.Event] = field(default_factory=dict)
    guards: dict[tuple[str, int], Guard] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def go_on(self, said: e.AgentContinued) -> None:
        """A human's word on a paused attempt."""
        guard = self.guards.get((said.assignment, said.attempt))
        if guard is not None:
            guard.go_on(stop=said.stop)

    def base(self, run: Run) -> cells.Base | None:
        """What this run's cells stand on; None where each is a checkout. Raises GitError."""
        if not self.overlay or run.started is None:
            return None
        with self._making:
            return cells.make_base(self.door, self.state / "base", run.started.base)

    def ground(self, run: Run) -> ground.Ground:
        """What else this run's cells stand on. Raises OrchgitError, GitError."""
        config, base = self.agents.config, self.base(run)
        if run.started is None or not (config.cells.share or config.setup.command):
            return ground.Ground()
        with self._making:
            return ground.make(
                self.door, config, self.agents.sandbox, user_tree=self.repo.root, place=self.state,
                cache=self.state.parent / "setup", commit=run.started.base, base=base,
                say=lambda line: self.agents.progress("set-up", line),
            )  # fmt: skip

    def cell(self, assignment: str, attempt: int) -> cells.Cell:
        return cells.Cell(self.state / f"{assignment}-{attempt}")

    def forbidden(self) -> list[str]:
        """What no agent may write: the user's work tree and git directory, the log, and other cells."""
        return [str(self.repo.root), str(self.repo.common), str(self.agents.store.path), str(self.state)]


def perform(world: World, run: Run, event: e.Event, emit: Emit) -> e.Draft:
    """Do what the request says; the outcome. A failure of ours is an exception, and ends the run as such.

    That git cannot is no fault of ours: somebody may have deleted what the run stands on. It is an outcome that stops
    at a human, and an abort gets through.
    """
    try:
        return _perform(world, run, event, emit)
    except Missing as error:
        return _unable(world, event, f"object {error} is not in the repository any more")
    except GitError as error:
        return _unable(world, event, str(error)[:1000])


def _unable(world: World, event: e.Event, why: str) -> e.Draft:
    """The outcome of a request that git could not serve."""
    body = event.body
    match body:
        case e.CellRequested():
            done: e.Body = e.CellFailed(body.assignment, body.attempt, why)
        case e.GateRequested():
            kept = _copy_out(world, world.cell(body.assignment, body.attempt), body.assignment, body.attempt)
            done = e.GateFailed(body.assignment, body.attempt, (e.Violation("", f"{why}; {kept}"[:1000]),), 1, "")
        case e.SalvageRequested():
            kept = _copy_out(world, world.cell(body.assignment, body.attempt), body.assignment, body.attempt)
            done = e.SalvageKept(body.assignment, body.attempt, "", f"{why}; {kept}")
        case e.ChecksRequested(subject="integration"):
            done = e.ChecksFailed(body.subject, body.attempt, body.onto, "", (), False, why)
        case e.ChecksRequested():
            done = e.ChecksStale(body.subject, body.attempt, body.onto, (), why)
        case e.MergePrepared() | e.MergeRequested():
            done = e.MergeStale(body.land, body.assignment, "", why)
        case e.ShipRequested():
            done = e.ShipObserved(body.ref, "", why)
        case e.ForgeRequested():
            done = e.ForgeFailed(body.key, why)
        case _:
            done = e.AgentFailed("unavailable", why)
    return e.Draft(done, ENGINE, event.seq)


def _perform(world: World, run: Run, event: e.Event, emit: Emit) -> e.Draft:
    body = event.body
    match body:
        case e.CellRequested():
            done: e.Body = _cell(world, run, event, body)
        case e.CellRemovalRequested():
            cells.remove(world.cell(body.assignment, body.attempt).root)
            done = e.CellRemoved(body.assignment, body.attempt)
        case e.AgentRequested():
            return _work(world, run, event, body, emit)
        case e.GateRequested():
            done = _gate(world, run, event, body, emit)
        case e.SalvageRequested():
            done = _salvage(world, run, event, body)
        case e.ChecksRequested():
            done = _checks(world, run, event, body)
        case e.MergePrepared():
            done = _build(world, run, event, body)
        case e.MergeRequested():
            done = _swap(world, run, body)
        case e.PlanRequested():
            return _plan(world, run, event, emit)
        case e.VerdictRequested():
            return _verdict(world, run, event, body, emit)
        case e.ReviewRequested():
            return _review(world, run, event, body, emit)
        case e.SynthesisRequested():
            return _synthesis(world, run, event, emit)
        case e.ShipRequested():
            done = observe(world.door, body.ref, run.tip)
        case e.ForgeRequested():
            done = _outward(world, run, event, body)
        case _:
            raise TypeError(f"{body.type} is not a request")
    return e.Draft(done, ENGINE, event.seq)


def recover(world: World, run: Run, event: e.Event, emit: Emit) -> e.Draft:
    """End a request that has no outcome."""
    # Asked for by a command that had no engine (`orchgit grant`): no agent has begun, so none was lost.
    # One that waits for its service has lost nothing: it goes on waiting.
    lost = event.seq in run.begun and event.seq not in run.waits
    if isinstance(event.body, e.AgentRequested) and lost and not _by_a_person(world, event.body):
        said = live_transcript(world.agents.store, event.seq)
        if said.exists():
            words = said.read_bytes()
            u = taken(words.decode("utf-8", "replace").splitlines())
            exited = e.AgentExited(
                event.body.member, "lost", "what it took is known as far as its transcript goes", u.duration_ms,
                u.calls, u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.cost_micro,
                world.agents.store.put(words), (), "", u.unsure_tokens, u.unsure_micro,
            )  # fmt: skip
            emit(e.Draft(exited, ENGINE, event.seq))
            said.unlink()
        return e.Draft(e.AgentFailed("lost", "its engine ended", lost=True), ENGINE, event.seq)
    return perform(world, run, event, emit)


def _by_a_person(world: World, body: e.AgentRequested) -> bool:
    """Who works in the cell does not end with the engine, and neither does the work."""
    return world.agents.roster.get(body.member).member.backend == human.NAME


# -- cells -----------------------------------------------------------------------------------------------


def _cell(world: World, run: Run, event: e.Event, body: e.CellRequested) -> e.Body:
    name, door = body.assignment, world.door
    work = run.works[name]
    cell = world.cell(name, body.attempt)
    ref = branch(run.id, name)
    try:
        start = _start(world, run, event, body)
        ours = {"", work.head, work.base, *(a.start for a in work.attempts)}
        found = door.ref(ref) or ""
        if found != start:
            if found not in ours:
                return e.CellFailed(name, body.attempt, f"{ref} was moved to {found} by somebody else")
            door.swap([(ref, start, found)], f"orchgit: attempt {body.attempt} starts")
        stands = world.ground(run)
        cell = cells.make(
            door, cell.root, start, branch=ref, who=work.spec.worker, base=world.base(run), under=stands.layers
        )  # fmt: skip
        cells.overlook(cell, stands.names)
        missing = cells.copy_in(cell, world.repo.root, world.agents.config.cells.copied)
        githooks.install_cell(str(cell.git), hook_rules(work.spec.scope), base=start, branch=ref)
        probes = _tried(world, cell, work.spec.scope, work.spec.worker)
        door.barrier(cell.root)  # a file of the base that a power cut empties would be the worker's change
    except merges.Stale as error:
        paths = ", ".join(map(shown, error.paths))
        return e.CellFailed(name, body.attempt, f"the dependencies' work cannot be joined, at: {paths}")
    except (GitError, OSError) as error:
        return e.CellFailed(name, body.attempt, str(error)[:1000])
    except OrchgitError as error:
        return e.CellFailed(name, body.attempt, f"{error.what} {error.why}"[:1000])
    through = cellrun.through(probes, world.agents.level)
    if through:
        return e.CellFailed(name, body.attempt, through)
    canary = [f"{p.name}: {'prevented' if p.prevented else 'not prevented'}" for p in probes]
    canary += [f"not copied, not there: {m}" for m in missing] + [stands.told] * bool(stands.told)
    loose = tuple(r.path or "." for r in work.spec.scope.roots() if not r.exact)
    return e.CellMade(name, body.attempt, start, ref, world.agents.level.name, tuple(canary), loose)


def _start(world: World, run: Run, event: e.Event, body: e.CellRequested) -> str:
    """The commit the attempt starts from: what the request says, or one built of the dependencies' work."""
    door, work = world.door, run.works[body.assignment]
    base = run.started.base if run.started else ""
    when = merges.git_date(event.time)
    if body.onto:
        if not body.start or _contains(door, body.onto, body.start):
            return body.onto
        text = merges.message(f"Join {body.assignment} with the tip", "", {"Orchgit-Run": run.id})
        return merges.joined(
            door, body.onto, [(work.base, body.start)], (body.start, body.onto), text, when
        )  # fmt: skip
    if body.start:
        return body.start
    if not body.dependencies:
        return base
    if len(body.dependencies) == 1:
        return run.works[body.dependencies[0]].head
    assert run.plan is not None
    above = upstream(run.plan)[body.assignment]
    works = [(run.works[a.id].base, run.works[a.id].head) for a in order(run.plan) if a.id in above]
    heads = tuple(dict.fromkeys(run.works[d].head for d in body.dependencies))
    text = merges.message(f"Base of {body.assignment}: {', '.join(body.dependencies)}", "", {"Orchgit-Run": run.id})
    return merges.joined(door, base, works, heads, text, when)


def _contains(door: Door, tip: str, commit: str) -> bool:
    try:
        door.run("merge-base", "--is-ancestor", commit, tip)
    except GitError:
        return False
    return True


def _salvage_ref(run: Run, name: str, attempt: int) -> str:
    return f"refs/orchgit/salvage/{run.id}/{name}/{attempt}"


def _salvage(world: World, run: Run, event: e.Event, body: e.SalvageRequested) -> e.Body:
    name, attempt = body.assignment, body.attempt
    _unwatch(world, name, attempt)
    cell, start = world.cell(name, attempt), run.works[name].attempts[-1].start
    if not cell.work.exists():
        return e.SalvageKept(name, attempt, "", "its cell is gone")
    try:
        left = cellrun.harvest(world.door, world.agents.sandbox, cell, start, merges.git_date(event.time))
    except gate.BadPack as error:
        return e.SalvageKept(name, attempt, "", f"{str(error)[:500]}; {_copy_out(world, cell, name, attempt)}")
    if left.tree == world.door.tree_of(start):
        return e.SalvageKept(name, attempt, "", "nothing was changed")
    world.door.swap([(_salvage_ref(run, name, attempt), left.commit, None)], "orchgit: set aside")
    world.door.barrier()
    changes = gate.raw_diff(world.door, world.door.tree_of(start), left.tree)
    why = _copy_out(world, cell, name, attempt) if _repositories(changes) else ""
    return e.SalvageKept(name, attempt, left.commit, why)


def _repositories(changes: Sequence[trees.Change]) -> bool:
    """Whether a repository lies inside the work: to git that is a name only, and its files are not in the snapshot."""
    return any(c.new is not None and c.new[0] == gate.GITLINK for c in changes)


def _copy_out(world: World, cell: cells.Cell, name: str, attempt: int) -> str:
    """What git could not read must not be lost with the cell: the files themselves stay, beside the log."""
    kept = world.agents.store.path / "salvage" / f"{name}-{attempt}"
    room = _Room()
    try:
        shutil.copytree(
            cell.top, kept, symlinks=True, dirs_exist_ok=True, ignore=room.whiteouts, copy_function=room.copy
        )
    except (OSError, RecursionError, _Full) as error:
        # One that cannot be copied (a pipe, a socket) does not keep the others from it.
        return f"its files are in {kept}, but not all of them: {error}"[:400]
    return f"its files are in {kept}"[:400]


class _Full(Exception):
    pass


class _Room:
    """How much is copied out, at most: a worker must not fill the disk of the log with what it leaves behind."""

    def __init__(self) -> None:
        self._bytes, self._files = MAX_COPIED_BYTES, MAX_COPIED_FILES

    def whiteouts(self, folder: str, names: list[str]) -> list[str]:
        """Of an overlay only the files that it changed: what says that one is gone is left out."""
        self._files -= len(names)
        if self._files < 0:
            raise _Full(f"more than {MAX_COPIED_FILES} files")
        return [name for name in names if is_whiteout(os.lstat(os.path.join(folder, name)))]

    def copy(self, there: str, here: str) -> None:
        self._bytes -= os.lstat(there).st_size
        if self._bytes < 0:
            raise _Full(f"more than {MAX_COPIED_BYTES} bytes")
        shutil.copy2(there, here, follow_symlinks=False)


# -- a worker --------------------------------------------------------------------------------------------


def _work(world: World, run: Run, event: e.Event, body: e.AgentRequested, emit: Emit) -> e.Draft:
    name, attempt = body.assignment, body.attempt
    work = run.works[name]
    cell = world.cell(name, attempt)
    scope = work.spec.scope
    stop = world.stops.setdefault(event.seq, threading.Event())

    writable = cellrun.writable(cell, scope)
    needs = world.agents.needs(body.member)
    place = Place(
        cell,
        lambda: confined(world.agents.sandbox, cell, writable, network=needs.network, readable=needs.readable),
    )
    guard = world.guards[name, attempt] = Guard(world.agents.config.watch.policy, place, stop)

    def sighted(seen: Sighting) -> None:
        path = shown(seen.path)[:300]
        paused = guard.seen(path)  # first, and then the words
        emit(e.Draft(e.ScopeViolationSeen(name, attempt, path, seen.kind, "watchdog"), ENGINE, event.seq))
        if paused:
            emit(e.Draft(e.AgentPaused(name, attempt, path), ENGINE, event.seq))

    if work.asks:
        through = _reconfine(world, cell, run, name)
        if through:
            return e.Draft(e.AgentFailed("error", through), ENGINE, event.seq)
    assert run.started is not None
    told = conventions.read(world.door, run.started.base, [root.path for root in scope.roots()])
    lowers = tuple(map(str, cell.lowers))
    watch = world.watchdog.watch(str(cell.top), scope.allows, sighted, ignore=_own_temporary, lowers=lowers)
    world.watches[name, attempt] = watch
    outcome, report = world.agents.run(
        role="worker", purpose="work", name=body.member, key=brief.key(run, body), brief=brief.work(run, name, told),
        place=place, stop=stop, cause=event.seq, emit=emit, scope_of=(name, attempt),
        session=world.agents.store.blob(body.session) if body.session else b"", answer=work.answer,
        scope=(work.spec.allow, work.spec.deny), assignment=name, waiting=run.waits.get(event.seq),
        before=[s.used for seq, s in run.spent.items() if (s.about, s.attempt) == (f"work/{name}", attempt)
                and seq != event.seq],
    )  # fmt: skip
    watch.settle()
    world.door.barrier(cell.root)  # what it says that it did is there, whatever happens to the machine
    if watch.incomplete:
        emit(e.Draft(e.WatchIncomplete(name, attempt, "; ".join(watch.reasons)[:500]), ENGINE, event.seq))
    if guard.stopped and outcome.status == "stopped":
        why = f"it was stopped because it touched {guard.stopped}, outside its scope"
        return e.Draft(e.AgentFailed("stopped", why), ENGINE, event.seq)
    if outcome.status in ("run_budget", "assignment_budget"):
        _unwatch(world, name, attempt)
        kept = world.agents.store.put(outcome.session) if outcome.session else ""
        whose: Literal["run", "assignment"] = "run" if outcome.status == "run_budget" else "assignment"
        halted = e.AgentHalted(name, attempt, whose, outcome.message[:1000], kept)
        return e.Draft(halted, ENGINE, event.seq)
    if isinstance(report, wire.ScopeRequestIn):
        if work.asks == MAX_ASKS:
            why = f"it asked for more scope {MAX_ASKS + 1} times in one attempt"
            return e.Draft(e.AgentFailed("error", why), ENGINE, event.seq)
        _unwatch(world, name, attempt)
        kept = world.agents.store.put(outcome.session) if outcome.session else ""
        asked = e.ScopeAsked(name, attempt, tuple(dict.fromkeys(report.paths)), report.why, kept)
        return e.Draft(asked, e.Actor("agent", body.member), event.seq)
    if not isinstance(report, wire.ReportIn):
        return _failed(outcome, event)
    made = e.AgentReported(
        name, attempt, report.summary, tuple(report.produced), tuple(report.blockers)
    )  # fmt: skip
    return e.Draft(made, e.Actor("agent", body.member), event.seq)


def _reconfine(world: World, cell: cells.Cell, run: Run, name: str) -> str:
    """A cell whose scope grew while its agent was away: hooks and canary anew. Why it cannot go on, or ""."""
    scope, git_hooks = run.works[name].spec.scope, cell.git / "hooks"
    # The git directory is the agent's: what it may have put there in place of a directory is not written through.
    if git_hooks.is_dir() and not git_hooks.is_symlink():
        start = run.works[name].attempts[-1].start
        githooks.install_cell(str(cell.git), hook_rules(scope), base=start, branch=branch(run.id, name))
    try:
        probes = _tried(world, cell, scope, run.works[name].spec.worker)
    except OrchgitError as error:
        return f"{error.what} {error.why}"[:1000]
    return cellrun.through(probes, world.agents.level)


def _tried(world: World, cell: cells.Cell, scope: Scope, member: str) -> list[Probe]:
    needs = world.agents.needs(member)
    return cellrun.tried(
        world.agents.sandbox, cell, cellrun.writable(cell, scope), world.forbidden(),
        network=needs.network, secret=str(world.agents.store.path / "events.jsonl"), readable=needs.readable,
    )  # fmt: skip


def _own_temporary(path: bytes) -> bool:
    """The file by which our own write and edit tools save: there for an instant, renamed into place."""
    return path.rpartition(b"/")[2].startswith(TEMP_PREFIX.encode())


def _failed(outcome: Any, event: e.Event) -> e.Draft:
    failed = e.AgentFailed(outcome.status, outcome.message[:1000], outcome.hint[:500])
    return e.Draft(failed, ENGINE, event.seq)


def _unwatch(world: World, name: str, attempt: int) -> None:
    watch = world.watches.pop((name, attempt), None)
    if watch is not None:
        watch.stop()


def _listed(found: Sequence[e.Violation]) -> tuple[e.Violation, ...]:
    """As many as fit in an event; names are as long as a worker likes."""
    listed: list[e.Violation] = []
    room = MAX_LISTED_BYTES
    for violation in found[: gate.LISTED]:
        cut = e.Violation(violation.path[:300], violation.rule[:1000])
        room -= len(e.dumps(e.encode(cut)).encode("utf-8", "replace"))
        if room < 0:
            break
        listed.append(cut)
    return tuple(listed)


def _gate(world: World, run: Run, event: e.Event, body: e.GateRequested, emit: Emit) -> e.Body:
    name, attempt, door = body.assignment, body.attempt, world.door
    work = run.works[name]
    start, spec, hand = work.attempts[-1].start, work.spec, work.attempts[-1].hand
    _unwatch(world, name, attempt)

    def failed(found: Sequence[e.Violation], salvage: str) -> e.Body:
        return e.GateFailed(name, attempt, _listed(found), len(found), salvage)

    try:
        left = _pushed(world, run, name, hand) if hand else cellrun.harvest(
            door, world.agents.sandbox, world.cell(name, attempt), start, merges.git_date(event.time)
        )  # fmt: skip
    except gate.BadPack as error:
        kept = _copy_out(world, world.cell(name, attempt), name, attempt)
        return failed([e.Violation("", f"{str(error)[:500]}; {kept}")], "")
    except OrchgitError as error:
        return failed([e.Violation("", f"{error.what}: {error.why}"[:1000])], "")
    salvage = (_salvage_ref(run, name, attempt), left.commit, None)
    base_tree = door.tree_of(start)
    judged = cellrun.judged(door, spec.scope, base_tree, left.tree, spec.outputs)
    changes, found, tree = judged.changes, judged.violations, judged.tree
    if found:
        door.swap([salvage], f"orchgit: attempt {attempt}, as the worker left it")
        door.barrier()
        if _repositories(changes):
            _copy_out(world, world.cell(name, attempt), name, attempt)
        return failed(found, left.commit)
    text = merges.message(
        spec.title, "Pushed by hand." if hand else work.report.summary if work.report else "",
        {"Orchgit-Run": run.id, "Orchgit-Assignment": name, "Orchgit-Attempt": str(attempt)},
    )  # fmt: skip
    by_hand = author_of(door, hand) if hand else ""
    author = by_hand or f"{spec.worker} <{spec.worker}@orchgit.invalid>"
    commit = door.write_commit(tree, (start,), text, merges.git_date(event.time), author)
    ref = branch(run.id, name)
    # After a crash between the swap and its outcome the branch is there already: the same commit, by construction.
    old = commit if door.ref(ref) == commit else start
    reason = f"orchgit: attempt {attempt} passed the gate"
    try:
        door.swap([salvage, (ref, commit, old)], reason)
    except GitError:
        found_at = door.ref(ref)
        if found_at is not None:
            door.swap([salvage], reason)
            return failed([e.Violation("", f"{ref} was moved to {found_at} by somebody else")], left.commit)
        door.swap([salvage, (ref, commit, "")], reason)  # deleted by hand: it is ours to make again
    door.barrier()
    return e.GatePassed(name, attempt, commit, tree, len(changes), left.commit, by_hand)


def _pushed(world: World, run: Run, name: str, hand: str) -> gate.Snapshot:
    """What somebody pushed onto its branch at the forge. Raises OrchgitError where it cannot be had."""
    assert world.writer is not None
    world.writer().bring(branch(run.id, name), _salvage_ref(run, name, run.works[name].attempt))
    try:
        return gate.Snapshot(hand, world.door.tree_of(hand))
    except Missing:
        raise OrchgitError(Kind.NO, f"{hand} is not on its branch any more", "somebody pushed something else") from None


# -- checks and merges -----------------------------------------------------------------------------------


def _checks(world: World, run: Run, event: e.Event, body: e.ChecksRequested) -> e.Body:
    door = world.door
    work = run.works.get(body.subject)
    base = work.base if work else (run.started.base if run.started else "")
    try:
        tree = door.tree_of(body.onto) if body.commit == body.onto else merges.result(
            door, base, body.commit, body.onto
        )  # fmt: skip
    except merges.Stale as error:
        paths = tuple(shown(p)[:200] for p in error.paths[:20])
        return e.ChecksStale(body.subject, body.attempt, body.onto, paths)
    commands = work.spec.checks if work else _all_checks(run)
    door.barrier()
    done = _run_checks(world, run, tree, commands, f"checks-{event.seq}")
    results = tuple(
        e.CheckResult(r.command, r.passed, r.why, r.exit_code, r.duration_ms, r.tests, world.agents.store.put(r.output))
        for r in done
    )
    if all(r.passed for r in done):
        return e.ChecksPassed(body.subject, body.attempt, body.onto, tree, results)
    alone = False
    if work and (own := door.tree_of(body.commit)) != tree:
        alone = all(r.passed for r in _run_checks(world, run, own, commands, f"checks-{event.seq}"))
    return e.ChecksFailed(body.subject, body.attempt, body.onto, tree, results, alone, checks.excerpt(done))


def _all_checks(run: Run) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for w in run.works.values() for c in w.spec.checks))


def _run_checks(world: World, run: Run, tree: str, commands: tuple[str, ...], name: str) -> list[checks.Checked]:
    team = world.agents
    try:
        under = world.ground(run).layers
    except OrchgitError as error:
        raise GitError(f"{error.what}: {error.why}") from error
    return run_checks(
        world.door, world.repo, team.config, team.sandbox, world.state / name, tree, commands, world.base(run),
        under,
    )  # fmt: skip


def run_checks(
    door: Door, repo: UserRepo, config: Config, sandbox: Sandbox, place: Path, tree: str, commands: tuple[str, ...],
    base: cells.Base | None = None, under: Sequence[Path] = (),
) -> list[checks.Checked]:  # fmt: skip
    """All of them, in order, also after a failure: the feedback should name everything at once.

    Each has a checkout, a HOME and a temporary directory of its own, beside `place`: what one check runs is the
    worker's code, and must not prepare the ground for the next.
    """
    done = []
    for number, command in enumerate(commands):
        cell = cells.plain_checkout(door, place.with_name(f"{place.name}-{number}"), tree, base, under)
        try:
            cells.copy_in(cell, repo.root, config.cells.copied)
            writable = (str(cell.work), str(cell.home))
            launch = confined(sandbox, cell, writable, network=config.network.checks)
            done.append(checks.run(command, launch, config.checks.deadline_s))
        finally:
            cells.remove(cell.root)
    return done


def _build(world: World, run: Run, event: e.Event, body: e.MergePrepared) -> e.Body:
    trailers = merge_trailers(run.id, body, event, run.plan_digest)
    parents: tuple[str, ...] = (body.old, body.commit)
    if body.land == "merge":
        work = run.works[body.assignment]
        subject, said = f"Merge {body.assignment}: {work.spec.title}", work.report.summary if work.report else ""
    elif body.land == "seal":
        parents = (body.old,)
        subject, said = f"Seal run {run.id}", run.synthesis.summary if run.synthesis else ""
    else:
        subject = run.issue.title if run.issue else f"Run {run.id}"
        said = run.synthesis.summary if run.synthesis else ""
    if body.land != "seal":
        # Nothing refers to the tree that was verified: a gc of the user's may have taken it while a verdict was waited
        # for. What it was made of is on branches, and gives the same tree again.
        base = run.started.base if run.started else ""
        base = run.works[body.assignment].base if body.land == "merge" else base
        again = merges.result(world.door, base, body.commit, body.old)
        assert again == body.tree, f"{again} is not the tree that was verified"
    text = merges.message(subject, said, trailers)
    new = world.door.write_commit(body.tree, parents, text, merges.git_date(event.time))
    world.door.barrier()
    return e.MergeBuilt(body.land, body.assignment, new)


def _swap(world: World, run: Run, body: e.MergeRequested) -> e.Body:
    door = world.door
    first = run.started is not None and body.old == run.started.base and body.land != "ship"
    found = door.ref(body.ref)
    if found != body.new:
        try:
            old = "" if first and found is None else body.old
            door.swap([(body.ref, body.new, old)], f"orchgit: {body.land} {body.assignment}".rstrip())
        except GitError as error:
            found = door.ref(body.ref)
            if (found or "") == old:  # where it was: it is not the ref that is in the way
                return e.MergeStale(body.land, body.assignment, old, str(error)[:1000])
            if found != body.new:
                return e.MergeStale(body.land, body.assignment, found or "")
    door.barrier()
    return e.MergeDone(body.land, body.assignment, body.new)


def observe(door: Door, ref: str, tip: str = "") -> e.ShipObserved:
    """Where the branch stands that `tip` is shipped to, and why that cannot be done now; "" when it can."""
    if not ref:
        return e.ShipObserved("", "", "HEAD was detached when the run began: there is no branch to merge into")
    old = door.ref(ref)
    if old is None:
        return e.ShipObserved(ref, "", f"{ref} is gone")
    if tip and _contains(door, old, tip):
        return e.ShipObserved(ref, old, "", merged=True)
    listed = door.run("worktree", "list", "--porcelain", refs=True).decode("utf-8", "replace")
    place = ""
    for line in listed.splitlines():
        if line.startswith("worktree "):
            place = line.removeprefix("worktree ")
        elif line == f"branch {ref}":
            why = f"{ref} is checked out in {place}, and no checkout of yours is touched; merge it there yourself"
            return e.ShipObserved(ref, old, why)
    return e.ShipObserved(ref, old, "")


def _outward(world: World, run: Run, event: e.Event, body: e.ForgeRequested) -> e.Body:
    """What a forge does not take is an outcome: the work goes on, and a human is told."""
    assert world.writer is not None
    try:
        return world.writer().write(run, event)
    except OrchgitError as error:
        why = ": ".join(filter(None, (error.what, error.why)))
        return e.ForgeFailed(body.key, why[:1000], error.hint[:500])


# -- orchestrator and reviewers --------------------------------------------------------------------------


def _view(world: World, run: Run, event: e.Event, commit: str, member: str) -> Place:
    """A read-only place on a commit, made only if a tool is called. The caller removes it."""
    root = world.state / f"view-{event.seq}"

    def make() -> Any:
        stands = world.ground(run)
        cell = cells.make(world.door, root, commit, who="reader", base=world.base(run), under=stands.layers)
        needs = world.agents.needs(member)
        return confined(world.agents.sandbox, cell, (), network=needs.network, readable=needs.readable)

    return Place(cells.Cell(root), make)


def _think(
    world: World, run: Run, event: e.Event, commit: str, emit: Emit, *, text: str, role: Role, name: str, **job: Any
) -> tuple[Any, object | None]:
    place = _view(world, run, event, commit, name)
    stop = world.stops.setdefault(event.seq, threading.Event())
    try:
        return world.agents.run(
            role=role, name=name, key=brief.key(run, event.body), brief=text, place=place, stop=stop, cause=event.seq,
            emit=emit, waiting=run.waits.get(event.seq), **job,
        )  # fmt: skip
    finally:
        if place.used:
            cells.remove(place.cell.root)


def _issue(world: World, run: Run) -> str:
    assert run.issue is not None
    return world.agents.store.blob(run.issue.text).decode("utf-8", "replace")


def _plan(world: World, run: Run, event: e.Event, emit: Emit) -> e.Draft:
    assert run.started is not None
    base = run.started.base
    listed = trees.files(world.door, base)
    outline = "\n".join(shown(p) for p in listed[:OUTLINE_FILES])
    if len(listed) > OUTLINE_FILES:
        outline += f"\n… and {len(listed) - OUTLINE_FILES} more files"
    orchestrator = world.agents.roster.orchestrator.member.name
    outcome, result = _think(
        world, run, event, base, emit, text=brief.plan(run, _issue(world, run), outline), role="orchestrator",
        purpose="plan", name=orchestrator, parse={"propose_plan": wire.parse_plan},
    )  # fmt: skip
    actor = e.Actor("agent", orchestrator)
    if isinstance(result, wire.QuestionsIn):
        return e.Draft(e.QuestionAsked(tuple(result.questions)), actor, event.seq)
    if not isinstance(result, Plan):
        return _failed(outcome, event)
    wrong = problems(result, run.started.roster) or imprecise(
        result, listed, world.agents.config.sandbox.precision
    )  # fmt: skip
    if wrong:
        listed_wrong = tuple(str(p)[:500] for p in wrong[:40])
        return e.Draft(e.PlanInvalid(listed_wrong), ENGINE, event.seq)
    proposed = e.PlanProposed(run.plan_version + 1, e.plan_digest(result), result)
    return e.Draft(proposed, actor, event.seq)


def _diff(world: World, old: str, new: str) -> str:
    """For reading; cut where the brief is made."""
    output = world.door.run("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", old, new)
    return output[: 4 * brief.MAX_DIFF].decode("utf-8", "replace")


def _verdict(world: World, run: Run, event: e.Event, body: e.VerdictRequested, emit: Emit) -> e.Draft:
    work = run.works[body.assignment]
    orchestrator = world.agents.roster.orchestrator.member.name
    ran = "\n".join(
        f"{r.command}: passed" + (f", {r.tests} tests" if r.tests is not None else "") for r in work.results
    )
    text = brief.verdict(
        run, body.assignment, _diff(world, work.base, body.commit), work.report.summary if work.report else "",
        ran or "(the plan has none)",
    )  # fmt: skip
    outcome, given = _think(
        world, run, event, body.commit, emit, text=text, role="orchestrator", purpose="verdict", name=orchestrator
    )  # fmt: skip
    if not isinstance(given, wire.VerdictIn):
        return _failed(outcome, event)
    made = e.VerdictGiven(body.assignment, body.attempt, given.decision, tuple(given.reasons))
    return e.Draft(made, e.Actor("agent", orchestrator), event.seq)


def _review(world: World, run: Run, event: e.Event, body: e.ReviewRequested, emit: Emit) -> e.Draft:
    mine = {f.id: f for f in run.open_findings() if f.reviewer == body.reviewer}

    def parse(data: Mapping[str, Any]) -> wire.ReviewIn:
        review = wire.parse(wire.ReviewIn, data)
        unknown = [f for f in review.fixed if f not in mine]
        if unknown:
            raise ValueError(
                f"fixed: {', '.join(unknown)} is not among your open findings ({', '.join(mine) or 'none'})"
            )
        return review

    text = brief.review(run, body, _issue(world, run), _diff(world, body.since, body.tip))
    outcome, given = _think(
        world, run, event, body.tip, emit, text=text, role="reviewer", purpose="review", name=body.reviewer,
        parse={"report_review": parse},
    )  # fmt: skip
    if not isinstance(given, wire.ReviewIn):
        return _failed(outcome, event)
    # A finding said again keeps the identity that it has; one that got worse is a new one.
    known = [f for i, f in mine.items() if i not in given.fixed]
    new = tuple(f for f in wire.findings(given) if not any(same(f, k) for k in known))
    fixed = tuple(dict.fromkeys(given.fixed))
    made = e.ReviewReported(body.reviewer, body.round, body.tip, given.summary, new, fixed)
    return e.Draft(made, e.Actor("agent", body.reviewer), event.seq)


def _synthesis(world: World, run: Run, event: e.Event, emit: Emit) -> e.Draft:
    assert run.started is not None
    attempts = sum(len(w.attempts) for w in run.works.values())
    counted = totals.count(world.door, run.started.base, run.tip, len(run.works), attempts)
    reports = "\n\n".join(f"{n}: {w.report.summary}" for n, w in run.works.items() if w.report)
    orchestrator = world.agents.roster.orchestrator.member.name
    outcome, given = _think(
        world, run, event, run.tip, emit, text=brief.synthesis(run, _issue(world, run), counted, reports),
        role="orchestrator", purpose="synthesis", name=orchestrator,
    )  # fmt: skip
    if not isinstance(given, wire.SynthesisIn):
        return _failed(outcome, event)
    made = e.SynthesisWritten(given.summary, tuple(given.review_by_human), counted)
    return e.Draft(made, e.Actor("agent", orchestrator), event.seq)
