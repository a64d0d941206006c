"""The laws a log must obey: a name, a sentence, a predicate each, and what a pass of it is worth.

Read model.py first, then reading.py, then the laws by group. Laws of the log need its bytes alone; laws of git see the
repository through `Facts`, so that they stay as pure as the rest; `orchgit/git/facts.py` answers them. A law says what
it found, and where; it never repairs, and never takes the word of the log for what git can show. The plan that a law
goes by is the one in force at the event it looks at: plans are amended while a run goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchgit.core import events as e
from orchgit.core.audit import of_evidence, of_git, of_log, of_plan, of_state
from orchgit.core.audit.model import Changed as Changed
from orchgit.core.audit.model import Commit as Commit
from orchgit.core.audit.model import Doubt as Doubt
from orchgit.core.audit.model import Facts as Facts
from orchgit.core.audit.model import Found as Found
from orchgit.core.audit.model import Law as Law
from orchgit.core.audit.model import Note as Note
from orchgit.core.audit.model import Reading as Reading
from orchgit.core.audit.model import Result as Result
from orchgit.core.audit.model import Strength as Strength
from orchgit.core.audit.model import Verdict as Verdict
from orchgit.core.audit.model import attested
from orchgit.core.audit.model import merge_trailers as merge_trailers
from orchgit.core.audit.model import trailers as trailers
from orchgit.core.audit.of_git import known as known
from orchgit.core.audit.reading import chain as chain
from orchgit.core.audit.reading import read as read
from orchgit.core.audit.reading import split as split

LAWS: tuple[Law, ...] = (*of_log.LAWS, *of_state.LAWS, *of_git.LAWS, *of_plan.LAWS, *of_evidence.LAWS)
# Of these a pass means something although the log could not be followed to its end: they are about just that.
_OF_THE_BREAK = ("log.chain", "log.form", "log.tail", "log.legal")


def judge(reading: Reading, facts: Facts | None) -> list[Result]:
    """Every law, in order. A log that could not be read to its end leaves the later laws without a pass."""
    return [_judge(law, reading, facts) for law in LAWS]


def _judge(law: Law, reading: Reading, facts: Facts | None) -> Result:
    if law.needs_git and facts is None:
        why = "there is no repository to look at"
        return Result(law.id, law.sentence, "inconclusive", (), why, law.strength)
    said = list(law.check(reading, facts))  # type: ignore[arg-type] # a law that does not need it does not look at it
    found = tuple(s for s in said if isinstance(s, Found))
    doubts = [s.why for s in said if isinstance(s, Doubt)]
    notes = tuple(s.what for s in said if isinstance(s, Note))
    if found:
        return Result(law.id, law.sentence, "violation", found, "", law.strength, notes)
    if reading.unread and law.id not in _OF_THE_BREAK:
        doubts.insert(0, f"the last {reading.unread} lines could not be followed")
    elif law.id == "log.form" and reading.broken:
        doubts.insert(0, "the chain is broken")
    if doubts:
        return Result(law.id, law.sentence, "inconclusive", (), doubts[0], law.strength, notes)
    return Result(law.id, law.sentence, "pass", (), "", law.strength, notes)


@dataclass(frozen=True)
class Anchors:
    """The last event that something outside the log names by its hash; -1 for none."""

    here: int  # by a commit in this repository: its owner can still rewrite both
    published: int  # by a commit that was seen on another machine


def anchors(reading: Reading, facts: Facts | None) -> Anchors:
    here = published = -1
    if facts is None:
        return Anchors(here, published)
    commits = [ev.body.new for ev in reading.events if isinstance(ev.body, e.MergeDone) and ev.body.land != "ship"]
    for oid in (*commits, *facts.checkpoints().values()):
        seq, digest = attested(facts.commit(oid)) or (-1, "")
        if not (0 <= seq < len(reading.events) and reading.events[seq].hash == digest):
            continue
        here = max(here, seq)
        if seq > published and facts.pushed(oid):
            published = seq
    return Anchors(here, published)


def unattested(reading: Reading, facts: Facts | None) -> int:
    """How many events at the end no commit attests: these, the machine's owner can still rewrite alone."""
    return len(reading.events) - 1 - anchors(reading, facts).here


@dataclass(frozen=True)
class Told:
    """What came of an audit."""

    run: str
    source: str  # where the log was read, in words
    reading: Reading
    results: tuple[Result, ...]
    anchors: Anchors

    @property
    def verdict(self) -> str:
        verdicts = {r.verdict for r in self.results}
        return next(v for v in ("violation", "inconclusive", "pass") if v in verdicts)
