"""Laws of the log by itself: its bytes, its order in time, its copies, and the blobs that it names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from orchgit.core import events as e
from orchgit.core.audit.model import Doubt, Facts, Found, Law, Note, Reading, Said, attested, trailers


def _chain(reading: Reading, facts: Facts) -> Iterator[Said]:
    yield from reading.broken


def _form(reading: Reading, facts: Facts) -> Iterator[Said]:
    yield from reading.malformed


def _tail(reading: Reading, facts: Facts) -> Iterator[Said]:
    if reading.tail:
        yield Doubt(f"{reading.tail} bytes of an unfinished line: a crash leaves that, and resume sets it aside")


def _time(reading: Reading, facts: Facts) -> Iterator[Said]:
    last = ""
    for event in reading.events:
        if event.time < last:
            yield Found(f"event {event.seq}", f"it says {event.time}, and the event before it {last}")
        last = event.time


def _copies(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Every copy that was published is the beginning of this log, or goes on from it."""
    ours = reading.data[: len(reading.data) - reading.tail]
    for ref, commit in facts.checkpoints().items():
        held = facts.log_of(commit)
        if held is None:
            yield Found(f"commit {commit}", f"{ref} points to it, and it holds no log")
            continue
        blob, size = held
        if size > len(ours):
            yield Found(ref, f"it holds {size} bytes of this log, and there are {len(ours)} here: its tail was cut off")
        elif facts.blob_id(ours[:size]) != blob:
            yield Found(ref, "it holds another log of this run: one of the two was changed")


def _checkpoints(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Along each published copy: every checkpoint goes on from the one before, and says which event it ends with."""
    if reading.unread:
        return
    seen: set[str] = set()
    ends = list(accumulate(len(event.line) for event in reading.events))  # of each line, in bytes
    for ref, tip in facts.checkpoints().items():
        at, size_above = tip, len(reading.data) + 1
        while at and at not in seen:
            seen.add(at)
            commit, held = facts.commit(at), facts.log_of(at)
            if commit is None or held is None:
                yield Found(f"commit {at}", f"a checkpoint of {ref} that is missing, or holds no log")
                break
            blob, size = held
            if size >= size_above or facts.blob_id(reading.data[:size]) != blob:
                yield Found(f"commit {at}", f"{ref}: its log is not the beginning of the one after it")
            last = bisect_left(ends, size)
            named = attested(commit)
            if size not in ends[last : last + 1] or named != (last, reading.events[last].hash):
                yield Found(f"commit {at}", f"{ref}: it does not name the event that its log ends with")
            if trailers(commit.message).get("Orchgit-Run") != [reading.run.id]:
                yield Found(f"commit {at}", f"{ref}: it is not of this run")
            size_above = size
            at = next((p for p in commit.parents if facts.log_of(p) is not None), "")


def blobs_named(reading: Reading) -> dict[str, str]:
    """digest -> the event that names it, in words."""
    named: dict[str, str] = {}
    for event in reading.events:
        for what, digest in _digests(event.body):
            if digest:
                named.setdefault(digest, f"event {event.seq}, its {what}")
    return named


def _digests(body: e.Body) -> list[tuple[str, str]]:
    match body:
        case e.RunStarted():
            return [("configuration", body.config)]
        case e.IssueRead():
            return [("issue", body.text)]
        case e.AgentRequested() | e.ScopeAsked() | e.AgentHalted() | e.AgentWaiting():
            return [("session", body.session)]
        case e.AgentStarted():
            return [("brief", body.brief)]
        case e.AgentExited():
            return [("transcript", body.transcript)]
        case e.ChecksPassed() | e.ChecksFailed():
            return [("check output", r.output) for r in body.results]
        case e.ForgeDone():
            return [("words", body.text)]
    return []


def redacted(reading: Reading) -> dict[str, e.Event]:
    """digest -> the event that says it was dropped."""
    return {ev.body.digest: ev for ev in reading.events if isinstance(ev.body, e.RedactionRecorded)}


def _blobs(reading: Reading, facts: Facts) -> Iterator[Said]:
    gone = redacted(reading)
    elsewhere = 0
    for digest, where in blobs_named(reading).items():
        state = facts.blob(digest)
        if state == "changed":
            yield Found(where, f"blob {digest} is not what its name says")
        elif state == "missing" and digest not in gone:
            yield Found(where, f"blob {digest} is gone, and no event says that it was redacted")
        elif state == "elsewhere" and digest not in gone:
            elsewhere += 1
    if elsewhere:
        yield Note(f"{elsewhere} blobs stayed on the machine of the run, and were not looked at")


def _redactions(reading: Reading, facts: Facts) -> Iterator[Said]:
    for digest, event in redacted(reading).items():
        if facts.blob(digest) == "here":
            yield Found(f"event {event.seq}", f"blob {digest} was redacted, and is here")
        else:
            assert isinstance(event.body, e.RedactionRecorded)
            yield Note(f"blob {digest} was redacted at event {event.seq} by {event.actor.id}: {event.body.why}")


def _signed(reading: Reading, facts: Facts) -> Iterator[Said]:
    if reading.run.started is None:
        return
    for ref, commit in facts.checkpoints().items():
        signature, named = facts.signature(commit), attested(facts.commit(commit))
        if not signature or named is None:
            continue
        who = facts.signed(reading.run.started.base, e.checkpoint_statement(reading.run.id, *named), signature)
        if who is None:
            yield Doubt(f"the signature of {commit} cannot be checked here")
        elif not who:
            yield Found(f"commit {commit}", f"{ref}: signed by no key that the base commit allows, or of another log")
        else:
            yield Note(f"{ref}, up to event {named[0]}, is signed by {who}")


LAWS = (
    Law("log.chain", "Every line is whole, in sequence, and carries the hash of the line before.", _chain),
    Law("log.form", "Every line is an event, in the one form that events are written in.", _form),
    Law("log.tail", "Nothing stands after the last whole line.", _tail),
    Law("log.time", "Time never goes back.", _time, "asserted"),
    Law("log.copies", "Every published copy of the log is the beginning of this one.", _copies, needs_git=True),
    Law("log.checkpoints", "Every checkpoint goes on from the one before it.", _checkpoints, needs_git=True),
    Law("log.signatures", "Every signed checkpoint is signed by a key that the base commit allows.", _signed,
        needs_git=True),
    Law("log.blobs", "Every blob that the log names is unchanged, or was redacted.", _blobs, needs_git=True),
    Law("log.redactions", "What was redacted is gone, and the log says who did it and why.", _redactions,
        "witnessed", needs_git=True),
)  # fmt: skip
