"""Every attack there is, as data: what is tried, and what must come of it at each level.

`Attack.how` is a real program. It runs as the worker of a whole run (stage.py), in the worker's own sandbox; the probes
of `orchgit doctor --attack`, which need no run, are attacks too. test_attacks.py plays all of them at every level of
the machine; docs/attacks.md is made of this list (table.py).

The answers:

- prevented: the act itself failed inside.
- detected: it happened, in the cell; gate, checks or engine reported it, and nothing of it landed.
- contained: it happened, in the cell, and came to nothing: what landed is in scope, nothing outside differs.
- not stopped: this level (or, for forged tests, nothing) keeps it from happening. Never more than the level promises.
- landed: the claim is broken. No attack may have this answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchgit.sandbox import Level
from orchgit.sandbox import probes as host

Answer = Literal["prevented", "detected", "contained", "not stopped", "landed"]
PREVENTED: Answer = "prevented"
DETECTED: Answer = "detected"
CONTAINED: Answer = "contained"
OPEN: Answer = "not stopped"
LANDED: Answer = "landed"


@dataclass(frozen=True)
class Attack:
    """`answer`: where nothing prevents it; `needs`: the field of Level that says that it is prevented, and then it is
    `held` (a check that meets the sandbox is not prevented but fails).

    `rule`: words of the report that must be there when it is detected. `outside`: its harm is to the host, which only a
    sandbox can spare it. `reach`: to get so far is harm enough (a file that is opened, and not written to). `forges`:
    it makes checks pass that should fail. `harvest`: a program instead of the engine's harvest, as a worker that had
    taken it over would have it. `before`: done in the user's repository before the run, by the user.
    """

    id: str
    group: str
    what: str
    how: str | Sequence[Mapping[str, Any]]
    answer: Answer
    by: str
    needs: str = ""
    held: Answer = PREVENTED
    rule: str = ""
    lang: Literal["sh", "py", "calls"] = "sh"
    outside: bool = False
    reach: bool = False
    forges: bool = False
    harvest: str = ""
    before: str = ""
    allow: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    patience_s: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    known: str = ""  # a fault that is known and not mended: the test must fail


def expected(attack: Attack, level: Level) -> Answer:
    if attack.needs == "landlock":  # a rule about what may be made, which no mount has
        return attack.held if "landlock" in level.name else attack.answer
    if attack.needs and level.prevented and getattr(level, attack.needs, False):
        return attack.held
    return attack.answer


def all_attacks() -> list[Attack]:
    from tests.attacks import engine, files, history

    found = [*files.ATTACKS, *history.ATTACKS, *engine.ATTACKS]
    names = [a.id for a in found] + [p.id for p in host.PROBES]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    return found
