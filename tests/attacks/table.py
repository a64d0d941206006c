"""The table of attacks, in Markdown: what was tried, what stops it, what came of it at each level.

    ORCHGIT_ATTACKS_RESULTS=results.jsonl python -m pytest tests/attacks -n 2
    python -m tests.attacks.table results.jsonl            prints it
    python -m tests.attacks.table results.jsonl --write    puts it into docs/attacks.md

What no sandbox has a say in is played without one, and where it was not played again it says "as at none".
test_table.py holds that docs/attacks.md says what the catalogue says.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from orchgit.sandbox.probes import PROBES, Probe
from tests.attacks.catalogue import Attack, all_attacks

DOCS = Path(__file__).resolve().parents[2] / "docs" / "attacks.md"
BEGIN, END = "<!-- attacks: begin (python -m tests.attacks.table RESULTS --write) -->", "<!-- attacks: end -->"
FAULT = "known fault"  # Attack.known says which
LAYERS = {"keeper": "keeper", "": "nothing"}
Results = Mapping[tuple[str, str], str]  # (attack, level) -> answer


def rows() -> list[tuple[str, str, str, str]]:
    """(id, group, what, stopped by) of every attack, groups together."""
    found = [_of_host(p) for p in PROBES] + [_of_worker(a) for a in all_attacks()]
    order = list(dict.fromkeys(group for _, group, _, _ in found))
    return sorted(found, key=lambda row: order.index(row[1]))


def _of_host(probe: Probe) -> tuple[str, str, str, str]:
    return probe.id, f"host: {probe.group}", probe.about, LAYERS.get(probe.promise, "sandbox")


def _of_worker(attack: Attack) -> tuple[str, str, str, str]:
    return attack.id, attack.group, attack.what, attack.by


def read(path: Path) -> Results:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["id"], line["level"]): line["answer"] for line in lines}


def table(results: Results) -> str:
    found: set[str] = {level for _, level in results}
    levels: list[str] = [name for name in ("none", "landlock", "bwrap", "bwrap+landlock") if name in found]
    levels += sorted(found - set(levels))
    text = [_summary(results, levels), ""]
    same = {a.id for a in all_attacks() if not a.needs}
    faults = {a.id for a in all_attacks() if a.known}
    for group, listed in groupby(rows(), key=lambda row: row[1]):
        text += [f"### {group[0].upper()}{group[1:]}", "", f"| attack | what | stopped by | {' | '.join(levels)} |"]
        text.append("| --- " * (3 + len(levels)) + "|")
        for id, _, what, by in listed:
            missing = "as at none" if id in same else "not run"
            answers = [FAULT if id in faults else results.get((id, level), missing) for level in levels]
            text.append(f"| {id} | {cell(what)} | {cell(by)} | {' | '.join(answers)} |")
        text.append("")
    return "\n".join(text)


def cell(words: str) -> str:
    return words.replace("|", "\\|")


def _summary(results: Results, levels: list[str]) -> str:
    answers = ("prevented", "detected", "contained", "not stopped", "landed")
    listed = {id for id, *_ in rows()} - {a.id for a in all_attacks() if a.known}
    lines = [f"| level | {' | '.join(answers)} |", "| --- " * (1 + len(answers)) + "|"]
    for level in levels:
        counted = Counter(answer for (id, where), answer in results.items() if where == level and id in listed)
        lines.append(f"| {level} | {' | '.join(str(counted[a]) for a in answers)} |")
    return "\n".join(lines)


def main(args: list[str]) -> int:
    made = table(read(Path(args[0])))
    if "--write" not in args:
        print(made)
        return 0
    text = DOCS.read_text()
    DOCS.write_text(text[: text.index(BEGIN) + len(BEGIN)] + "\n\n" + made + "\n" + text[text.index(END) :])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
