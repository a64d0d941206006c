"""One layer broken on purpose, the others as they are: nothing lands, and the broken layer's own tests would notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchgit import githooks, watch
from orchgit.git import gate
from orchgit.git.door import Door
from tests.attacks.catalogue import CONTAINED, DETECTED, LANDED, PREVENTED, Attack, all_attacks
from tests.attacks.stage import Played, Stage, levels, somewhere

BEST = next(iter(levels()))
ATTACKS = {a.id: a for a in all_attacks()}
needs_sandbox = pytest.mark.skipif(BEST == "none", reason="no sandbox on this machine prevents a write outside")
# Long enough after the act for the watchdog's thread, which tells within milliseconds.
SEEN = Attack("seen", "", "", "echo x >README.md; sleep 1", DETECTED, "")

Break = Callable[[pytest.MonkeyPatch], None]


def played(attack: Attack, level: str, monkeypatch: pytest.MonkeyPatch, *broken: Break) -> Played:
    for way in broken:
        way(monkeypatch)
    with somewhere(level) as root:
        return Stage(root, level, monkeypatch).play(attack)


def without_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(githooks, "install_cell", nothing)


def without_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(_watch: watch.Watch, _event: object) -> None: ...

    monkeypatch.setattr(watch.Watch, "dispatch", blind)


def without_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "judge", lambda *_: [])


def without_strictness(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Door.run

    def lenient(door: Door, *args: str, **more: Any) -> bytes:
        return real(door, *(a for a in args if a != "--strict"), **more)

    monkeypatch.setattr(Door, "run", lenient)


def sightings(seen: Played) -> int:
    return sum(ev["type"] == "scope.violation_seen" and ev["data"]["layer"] == "watchdog" for ev in seen.events)


@needs_sandbox
@pytest.mark.parametrize("id", ["cell-overwrite", "cell-move-scope", "cell-symlink"])
def test_without_the_sandbox_the_gate_holds(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(ATTACKS[id], BEST, monkeypatch).answer == PREVENTED
    broken = played(ATTACKS[id], "none", monkeypatch)
    assert (broken.answer, broken.harm) == (DETECTED, [])


def test_without_hooks_the_commit_is_made_and_does_not_land(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(ATTACKS["commit-no-verify"], BEST, monkeypatch)
    assert whole.answer == PREVENTED
    assert "outside your scope" in whole.said
    broken = played(ATTACKS["commit-no-verify"], BEST, monkeypatch, without_hooks)
    assert (broken.answer, broken.harm, broken.phase) == (CONTAINED, [], "completed")


def test_without_the_watchdog_the_gate_sees_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sightings(played(SEEN, "none", monkeypatch)) >= 1
    broken = played(SEEN, "none", monkeypatch, without_watchdog)
    assert sightings(broken) == 0
    assert (broken.answer, broken.harm) == (DETECTED, [])


@pytest.mark.parametrize("id", ["cell-overwrite", "commit-no-verify", "link-absolute", "lie-out-of-scope", "denied"])
def test_with_nothing_left_but_the_gate(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = played(ATTACKS[id], "none", monkeypatch, without_hooks, without_watchdog)
    assert broken.answer in (DETECTED, CONTAINED)
    assert broken.harm == []


def test_without_the_judge_the_second_implementation_stops_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = played(ATTACKS["cell-overwrite"], "none", monkeypatch, without_judge)
    assert (broken.answer, broken.harm) == (DETECTED, [])
    assert "README.md would land although the gate did not pass it" in " ".join(broken.reported)


def test_without_strictness_the_test_of_malformed_objects_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(ATTACKS["tree-dot-git"], "none", monkeypatch).answer == DETECTED
    broken = played(ATTACKS["tree-dot-git"], "none", monkeypatch, without_strictness)
    # It is in the user's object store now, though on no branch: git's own fsck says so, and so does the stage.
    assert broken.answer == LANDED
    assert [h for h in broken.harm if not h.startswith("fsck: ")] == []
