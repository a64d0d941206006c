"""The laws a log must obey: a name, a sentence and a predicate each.

The laws of the log need its bytes alone. The laws of git need the repository, seen through `Facts`, so that they
stay as pure as the rest; `orchgit/git/facts.py` answers them. A law says what it found, and where; it never
repairs, and never takes the word of the log for what git can show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from orchgit.core import events as e
from orchgit.core.decide import advance
from orchgit.core.plan import printable
from orchgit.core.review import blocks
from orchgit.core.state import Illegal, Run, branch, evolve

Verdict = Literal["pass", "violation", "inconclusive"]


@dataclass(frozen=True)
class Commit:
    tree: str
    parents: tuple[str, ...]
    message: str


class Facts(Protocol):
    """What git says, read by object id alone. None: the object is not there."""

    def commit(self, oid: str) -> Commit | None: ...

    def changed(self, old_tree: str, new_tree: str) -> list[bytes] | None:
        """Paths at which two trees differ; None when one of them is not there."""

    def ref(self, name: str) -> str | None: ...

    def first_parents(self, tip: str, base: str) -> list[str] | None:
        """Commits from `tip` back to `base` along first parents, `tip` first, `base` left out; None: no way."""

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        """The tree of `onto` with the entries of `base..head` carried over; None when that is not possible."""


@dataclass(frozen=True)
class Found:
    """One thing wrong: the event and commit it is about, in words a person can follow."""

    where: str
    what: str


@dataclass(frozen=True)
class Result:
    law: str
    sentence: str
    verdict: Verdict
    found: tuple[Found, ...] = ()
    why: str = ""  # of an inconclusive verdict


@dataclass(frozen=True)
class Reading:
    """A log that was read: its events as far as they are legal, each with the run before it."""

    run: Run
    events: tuple[e.Event, ...]
    before: tuple[Run, ...]
    broken: tuple[Found, ...]  # chain and sequence
    illegal: tuple[Found, ...]
    unknown: tuple[Found, ...]
    unread: int  # lines after the first that could not be followed


def read(run_id: str, lines: Sequence[bytes]) -> Reading:
    """Follow the chain line by line; stop at the first line that does not follow."""
    run = Run(run_id)
    events: list[e.Event] = []
    before: list[Run] = []
    broken: list[Found] = []
    illegal: list[Found] = []
    unknown: list[Found] = []
    done = 0
    for number, line in enumerate(lines):
        where = f"event {number}"
        try:
            event = e.parse(line)
        except e.UnknownType as error:
            unknown.append(Found(where, str(error)))
            break
        except e.LineError as error:
            broken.append(Found(where, str(error)))
            break
        if event.seq != number:
            broken.append(Found(where, f"its seq is {event.seq}: a line was taken out, put in, or moved"))
            break
        if event.run != run_id:
            broken.append(Found(where, f"it belongs to run {event.run}"))
            break
        if event.prev != run.hash:
            broken.append(Found(where, "its prev is not the hash of the line before: the past was changed"))
            break
        try:
            after = evolve(run, event)
        except Illegal as error:
            illegal.append(Found(where, f"{event.body.type}: {error}"))
            break
        events.append(event)
        before.append(run)
        run = after
        done = number + 1
    return Reading(
        run, tuple(events), tuple(before), tuple(broken), tuple(illegal), tuple(unknown), len(lines) - done
    )  # fmt: skip


@dataclass(frozen=True)
class Law:
    id: str
    sentence: str
    check: Callable[[Reading, Facts | None], Iterator[Found]]
    needs_git: bool = False


def judge(reading: Reading, facts: Facts | None) -> list[Result]:
    """Every law, in order. A log that could not be read to its end leaves the later laws without a pass."""
    results = []
    for law in LAWS:
        if law.needs_git and facts is None:
            results.append(Result(law.id, law.sentence, "inconclusive", (), "there is no repository to look at"))
            continue
        found = tuple(law.check(reading, facts))
        if found:
            results.append(Result(law.id, law.sentence, "violation", found))
        elif reading.unread and law.id not in ("log.chain", "log.legal"):
            why = f"the last {reading.unread} lines could not be followed"
            results.append(Result(law.id, law.sentence, "inconclusive", (), why))
        elif law.id == "log.legal" and (reading.unknown or reading.broken):
            why = reading.unknown[0].what if reading.unknown else "the chain is broken"
            results.append(Result(law.id, law.sentence, "inconclusive", (), why))
        elif law.id == "log.decisions" and not _our_rules(reading):
            why = "the log was written by other rules than these"
            results.append(Result(law.id, law.sentence, "inconclusive", (), why))
        else:
            results.append(Result(law.id, law.sentence, "pass"))
    return results


def unattested(reading: Reading, facts: Facts | None) -> int:
    """How many events at the end no merge commit attests: these, the machine's owner can still rewrite."""
    last = -1
    for event in reading.events:
        if isinstance(event.body, e.MergeDone) and event.body.land != "ship":
            commit = facts.commit(event.body.new) if facts else None
            seq, digest = _attested(commit) or (-1, "")
            if 0 <= seq < len(reading.events) and reading.events[seq].hash == digest:
                last = max(last, seq)
    return len(reading.events) - 1 - last


def _attested(commit: Commit | None) -> tuple[int, str] | None:
    """The event that a commit names: its seq and hash. A commit may be anybody's, and say anything."""
    said = trailers(commit.message).get("Orchgit-Log", []) if commit else []
    match = re.fullmatch(r"([0-9]{1,15})@sha256:([0-9a-f]{64})", said[0]) if said else None
    return (int(match[1]), match[2]) if match else None


def trailers(message: str) -> dict[str, list[str]]:
    """The `Orchgit-…` trailers of a commit message, from its last paragraph."""
    found: dict[str, list[str]] = {}
    for line in message.rstrip().rpartition("\n\n")[2].splitlines():
        key, colon, value = line.partition(": ")
        if colon and key.startswith("Orchgit-"):
            found.setdefault(key, []).append(value)
    return found


# -- laws of the log -------------------------------------------------------------------------------------


def _chain(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    yield from reading.broken


def _legal(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    yield from reading.illegal


def _our_rules(reading: Reading) -> bool:
    started = reading.run.started
    return started is not None and started.decider == e.DECIDER


def _decisions(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    """advance(run before it) is the very decision that was recorded; and no outcome came where one was due."""
    if not _our_rules(reading):
        return
    for event, before in zip(reading.events, reading.before, strict=True):
        body = event.body
        derived = body.kind in ("request", "decision") or event.actor.kind == "policy"
        due = advance(before)
        if derived and due != body:
            yield Found(f"event {event.seq}", f"{body.type} was recorded; the rules say {due.type if due else 'wait'}")
        elif not derived and due is not None and body.kind in ("input", "outcome"):
            # What was seen may arrive at any time, but a batch ends in a fixed point: nothing is left undecided.
            previous = reading.events[event.seq - 1].body if event.seq else None
            if previous is not None and previous.kind in ("request", "decision"):
                yield Found(f"event {event.seq}", f"{due.type} was due before it and is missing")


def _approved_first(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    approved = None
    for event in reading.events:
        body = event.body
        if isinstance(body, e.PlanApproved):
            approved = body.digest
            if body.mode == "human" and event.actor.kind != "human":
                yield Found(f"event {event.seq}", f"approved as by a human, recorded by {event.actor.kind}")
        elif (
            isinstance(body, e.AssignmentStarted | e.CellRequested | e.AgentRequested | e.MergePrepared)
            and not approved
        ):
            yield Found(f"event {event.seq}", f"{body.type} before any plan was approved")


def _closed(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    run = reading.run
    if run.phase != "completed":
        return
    for finding in run.open_findings():
        if blocks(finding, run.settings.blocking):
            yield Found(f"finding {finding.id}", "it blocks, and the run completed with it open")
    for blocker in run.open_blockers():
        yield Found(f"blocker {blocker.id}", "the run completed with it open")


# -- laws of git -----------------------------------------------------------------------------------------


def _merges(reading: Reading) -> Iterator[tuple[e.Event, e.MergePrepared, e.MergeRequested, bool]]:
    """Each merge asked for, with the event that prepared it, and whether it was done."""
    done = {ev.body.new for ev in reading.events if isinstance(ev.body, e.MergeDone)}
    prepared: e.Event | None = None
    for event in reading.events:
        if isinstance(event.body, e.MergePrepared):
            prepared = event
        elif isinstance(event.body, e.MergeRequested) and prepared and isinstance(prepared.body, e.MergePrepared):
            yield prepared, prepared.body, event.body, event.body.new in done


def _merge_commits(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    assert facts is not None
    for event, prepared, request, done in _merges(reading):
        if not done:
            continue
        where = f"event {event.seq}, commit {request.new}"
        commit = facts.commit(request.new)
        if commit is None:
            yield Found(where, "the merge commit does not exist")
            continue
        parents = (prepared.old,) if prepared.land == "seal" else (prepared.old, prepared.commit)
        if commit.parents != parents:
            yield Found(where, f"its parents are {', '.join(commit.parents)}; the log says {', '.join(parents)}")
        if commit.tree != prepared.tree:
            yield Found(where, f"its tree is {commit.tree}; the log says {prepared.tree} was verified")
        said = trailers(commit.message)
        wanted = merge_trailers(reading.run.id, prepared, event, reading.before[event.seq].plan_digest)
        for key, value in wanted.items():
            if said.get(key) != [value]:
                yield Found(where, f"its {key} is {', '.join(said.get(key, ['missing']))}; the log says {value}")


def merge_trailers(run: str, prepared: e.MergePrepared, event: e.Event, plan_digest: str) -> dict[str, str]:
    """What a merge commit says of the log: written by the engine, read by audit."""
    named = {"Orchgit-Assignment": prepared.assignment} if prepared.assignment else {}
    return {
        "Orchgit-Run": run,
        **named,
        "Orchgit-Plan": f"sha256:{plan_digest}",
        "Orchgit-Log": f"{event.seq}@sha256:{event.hash}",
    }


def _merge_trees(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    """The merged tree is the tip's with the worker's entries, and nothing else."""
    assert facts is not None
    for event, prepared, request, done in _merges(reading):
        if not done or prepared.land != "merge":
            continue
        work = reading.before[event.seq].works[prepared.assignment]
        tree = facts.merge_result(work.base, prepared.commit, prepared.old)
        if tree != prepared.tree:
            yield Found(
                f"event {event.seq}, commit {request.new}",
                f"the tip with the work of {prepared.assignment} is {tree or 'not to be made'}, "
                f"not {prepared.tree}: something was slipped in",
            )


def _in_scope(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    assert facts is not None
    for event, prepared, request, done in _merges(reading):
        if not done or prepared.land == "ship":
            continue
        old, new = facts.commit(prepared.old), facts.commit(request.new)
        if old is None or new is None:
            continue  # said by git.merges
        changed = facts.changed(old.tree, new.tree)
        if changed is None:
            yield Found(f"event {event.seq}", "a tree of this merge is missing")
            continue
        scope = reading.before[event.seq].works[prepared.assignment].spec.scope if prepared.assignment else None
        for path in changed:
            why = scope.why_not(path) if scope else "a seal changes nothing"
            if why:
                where = f"event {event.seq}, commit {request.new}"
                yield Found(where, f"{printable(path)} landed for {prepared.assignment or 'the seal'}: {why}")


def _history(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    """The integration branch is the base and the recorded merges, in this order, and nothing else."""
    assert facts is not None
    run = reading.run
    if run.started is None or reading.unread:
        return  # what a broken log no longer says is not held against git: the break itself is
    merged = [r.new for _, p, r, done in _merges(reading) if done and p.land != "ship"]
    at = facts.ref(run.ref)
    asked = next((p.body.new for p in run.pending.values() if isinstance(p.body, e.MergeRequested)), None)
    if at is None:
        if merged and not run.over:
            yield Found(run.ref, f"the branch is gone; the log has it at {run.tip}")
        at = run.tip
    elif at == asked:
        return  # swapped, and its engine died before it could say so: resume will
    elif at != run.tip:
        yield Found(f"commit {at}", f"{run.ref} points here; the log has it at {run.tip}")
    line = facts.first_parents(at, run.started.base)
    if line is None:
        yield Found(f"commit {at}", f"{run.ref} does not descend from the base {run.started.base}")
        return
    line.reverse()
    for oid in line:
        if oid not in merged:
            attested = _attested(facts.commit(oid))
            if attested and attested[0] >= len(reading.events):
                last = len(reading.events) - 1
                what = f"it attests event {attested[0]}, and the log ends at {last}: its tail was cut off"
            else:
                what = "it is on the integration branch, and the log knows nothing of it"
            yield Found(f"commit {oid}", what)
    for oid in merged:
        if oid not in line:
            yield Found(f"commit {oid}", "the log has it merged, and it is not on the integration branch")


def _branches(reading: Reading, facts: Facts | None) -> Iterator[Found]:
    """Each worker's branch, where it still is, stands where the engine left it."""
    assert facts is not None
    pending = {getattr(p.body, "assignment", "") for p in reading.run.pending.values()}
    for name, work in reading.run.works.items():
        at = facts.ref(branch(reading.run.id, name))
        expected = work.head or (work.attempts[-1].start if work.attempts else "")
        if at is not None and expected and at != expected and name not in pending and work.stage == "merged":
            yield Found(f"commit {at}", f"the branch of {name} points here; the log has it at {expected}")


LAWS: tuple[Law, ...] = (
    Law("log.chain", "Every line is whole, in sequence, and carries the hash of the line before.", _chain),
    Law("log.legal", "Every event could happen when it happened.", _legal),
    Law("log.decisions", "Every decision of the engine follows from the events before it.", _decisions),
    Law("log.approval", "Nothing ran before the plan was approved.", _approved_first),
    Law("log.closed", "The run did not complete with a blocking finding or a blocker open.", _closed),
    Law("git.merges", "Every merge commit has the parents, tree and trailers that the log has.", _merge_commits, True),
    Law("git.trees", "Every merged tree is the tip with the worker's entries and nothing else.", _merge_trees, True),
    Law("git.scope", "Every landed path is in the scope of its assignment.", _in_scope, True),
    Law("git.history", "The integration branch holds the recorded merges and nothing else.", _history, True),
    Law("git.branches", "Every worker's branch stands where the engine left it.", _branches, True),
)
