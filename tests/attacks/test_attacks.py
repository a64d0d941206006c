"""Every attack, at every level that this machine has. None may land."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

from orchgit.sandbox import probes, sandbox
from tests.attacks.catalogue import DETECTED, LANDED, OPEN, PREVENTED, Attack, all_attacks, expected
from tests.attacks.stage import Stage, levels, somewhere

LEVELS = levels()
ATTACKS = {a.id: a for a in all_attacks()}
HOST = {p.id: p for p in probes.PROBES}
RESULTS = os.environ.get("ORCHGIT_ATTACKS_RESULTS")  # a file that table.py reads


def keep(id: str, level: str, answer: str) -> None:
    if RESULTS:
        with open(RESULTS, "a") as file:  # one write per line: xdist's workers share it
            file.write(json.dumps({"id": id, "level": level, "answer": answer}) + "\n")


def cases() -> Iterator[ParameterSet]:
    """By default what a sandbox is to prevent is played at the strongest, and of all of them every third without any:
    there the gate is alone. Every one at every level when all is played (whole)."""
    for number, attack in enumerate(ATTACKS.values()):
        for level in LEVELS:
            alone = level == "none" and number % 3 == 0
            quick = alone or (attack.needs and level == next(iter(LEVELS)))
            marks = [] if quick and not attack.slow else [pytest.mark.whole]
            if attack.known:
                marks.append(pytest.mark.xfail(strict=True, reason=attack.known))
            yield pytest.param(attack.id, level, marks=marks, id=f"{attack.id}-{level}")


@pytest.mark.parametrize(("id", "level"), list(cases()))
def test_by_a_worker(id: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attack: Attack = ATTACKS[id]
    with somewhere(level) as root:
        played = Stage(root, level, monkeypatch).play(attack)
        keep(id, level, played.answer)
        assert played.answer != LANDED, str(played)
        assert played.answer == expected(attack, LEVELS[level]), str(played)
        if played.answer == DETECTED and attack.rule:
            assert attack.rule in " ".join(played.reported), str(played)


@pytest.mark.parametrize(
    "level", [pytest.param(n, marks=[] if n in ("none", next(iter(LEVELS))) else pytest.mark.whole) for n in LEVELS]
)
@pytest.mark.parametrize("id", HOST)
def test_on_the_host(id: str, level: str) -> None:
    probe = HOST[id]
    tried = probes.Lab(probes.lab_directory()).attempt(sandbox(level), probe)
    keep(id, level, PREVENTED if tried.prevented else OPEN)
    assert not tried.missed(LEVELS[level]), f"{level} promises to prevent {probe.about}: {tried.detail}"
    if level == "none" and probe.anywhere:
        assert not tried.prevented, f"a probe that fails without a sandbox proves nothing: {tried.detail}"
