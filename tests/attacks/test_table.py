"""docs/attacks.md says what the catalogue says, and claims no answer that the tests here would not give."""

from __future__ import annotations

import re

from orchgit.sandbox.probes import PROBES, promised
from tests.attacks.catalogue import LANDED, PREVENTED, all_attacks, expected
from tests.attacks.stage import levels
from tests.attacks.table import BEGIN, DOCS, END, FAULT, cell, rows

MEND = "run the attacks, and then python -m tests.attacks.table RESULTS --write (see there)"


def published() -> tuple[list[str], dict[str, list[str]]]:
    """The levels, and the cells of each attack by its id."""
    text = DOCS.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line.startswith("|")
    ]
    heads = [line for line in lines if line[:3] == ["attack", "what", "stopped by"]]
    assert heads, MEND
    width = len(heads[0])
    return heads[0][3:], {
        line[0]: line[1:] for line in lines if len(line) == width and line[0] not in ("attack", "---")
    }


def test_every_attack_is_in_the_table_as_it_is_in_the_catalogue() -> None:
    _, table = published()
    wanted = {id: [cell(what), cell(by)] for id, _, what, by in rows()}
    assert {id: line[:2] for id, line in table.items() if id in wanted} == wanted, MEND


def test_the_answers_are_those_that_are_tested() -> None:
    names, table = published()
    here = levels()
    assert "none" in names
    for name in set(names) & set(here):
        at, level = 2 + names.index(name), here[name]
        for attack in all_attacks():
            wanted: set[str] = {expected(attack, level)}
            if attack.known:
                wanted = {FAULT}
            elif not attack.needs and name != "none":
                wanted.add("as at none")
            assert table[attack.id][at] in wanted, f"{attack.id} at {name}: {MEND}"
        for probe in PROBES:
            assert table[probe.id][at] == PREVENTED or not promised(probe, level), f"{probe.id} at {name}: {MEND}"


def test_nothing_landed() -> None:
    _, table = published()
    assert [id for id, line in table.items() if LANDED in line[2:] or "not run" in line[2:]] == []


def test_as_many_as_the_table_is_said_to_have() -> None:
    assert len(rows()) >= 120
