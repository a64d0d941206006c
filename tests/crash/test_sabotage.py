"""Each step of the protocol, taken out in turn: the harness must see it. A step that nobody misses is not tested.

With the step each of these cases is well: `-m whole` looks at that, for the sample of test_crash says the same.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crash.harness import AT_WORK, Fault, Lab, book, kill_left, place
from tests.crash.power import calls

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that kills at a call is C, and there is no cc")


def at(lab: Lab, kind: str, phase: str = "before", **data: Any) -> Fault:
    return {"kind": "event", "number": lab.write_of(kind, **data), "phase": phase, "part": 50}


@dataclass(frozen=True)
class Step:
    """Without it, this fault leads to what is `wrong`. `deadline_s`: for what then never ends."""

    name: str
    wrong: str
    fault: Callable[[Lab], Fault]
    deadline_s: float = 60


def first(classes: int, match: str) -> Callable[[Lab], Fault]:
    return lambda lab: {"kind": "call", "number": 1, "action": "kill", "classes": classes, "match": match}


STEPS = (
    Step("act_before_request", "acted on before it was written",
         lambda lab: at(lab, "cell.requested", assignment="last")),
    Step("no_mending", "resume ends with|audit: log.chain",
         lambda lab: at(lab, "gate.passed", "torn", assignment="web")),
    Step("no_lock_clearing", "resume ends with 4", first(1, "refs/heads/orchgit")),
    Step("no_clearing", "left: objects/../tmp_obj_orchgit", first(2, "tmp_obj_orchgit")),
    Step("forget_requests", "resume ends with None", lambda lab: at(lab, "verdict.given", assignment="web"), 12),
    Step("lost_counts", "an attempt failed", lambda lab: at(lab, "agent.reported", assignment="last")),
    Step("no_publishing", "published up to -1|not a no-op", lambda lab: at(lab, "gate.passed", assignment="web")),
)  # fmt: skip
each = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@each
def test_without_this_step_it_goes_wrong(lab: Lab, step: Step) -> None:
    broken = lab.case(step.fault(lab), without=(step.name,), deadline_s=step.deadline_s)
    assert broken.fired == 1
    assert any(re.search(step.wrong, wrong) for wrong in broken.wrong), broken.wrong


@pytest.mark.whole
@each
def test_with_it_all_is_well(lab: Lab, step: Step) -> None:
    held = lab.case(step.fault(lab))
    assert (held.fired, held.wrong) == (1, []), held.said


def outlived(lab: Lab, *without: str) -> list[str]:
    """Killed while a worker's command runs that would go on for half a minute, on a platform where nothing kills it."""
    world = lab.fresh()
    args = world.start_args(book(outliving=3000), "--yes")
    ran = lab.engines.run(world, *args, fault=AT_WORK, without=("immortal",))
    assert ran.fired
    assert world.processes(), "nobody outlived the engine"
    world.playbook(book(outliving=1))
    assert lab.engines.run(world, "resume", without=("immortal", *without)).code == 0
    kept = world.events("salvage.kept", assignment="api", attempt=1)
    assert world.files(kept[0]["data"]["commit"]) >= {"src/api/a.py", "src/api/late.txt"}, "its work was lost"
    wrong = lab.violations(world)
    kill_left(world)
    return wrong


def test_stopping_of_those_who_outlived_their_engine() -> None:
    with Lab(outliving=1, without=("immortal",)) as lab:
        assert outlived(lab) == []
        assert any("processes: " in wrong for wrong in outlived(lab, "no_stopping"))


def moved_under_it(lab: Lab, *without: str) -> tuple[int | None, bool]:
    """Somebody moves the integration branch between the request to merge and the swap: how the resume ends, and
    whether that commit is still on the branch."""
    world = lab.fresh()
    args = world.start_args(lab.book, "--yes")
    fault = at(lab, "merge.requested", "unsynced", assignment="last")
    ran = lab.engines.run(world, *args, fault=fault)
    assert ran.fired
    ref = f"refs/heads/orchgit/{world.name}/integration"
    theirs = world.git("commit-tree", f"{ref}^{{tree}}", "-p", ref, "-m", "somebody else's")
    world.git("update-ref", ref, theirs)
    ended = lab.engines.run(world, "resume", without=tuple(without))
    kept = (
        world.git("merge-base", "--is-ancestor", theirs, ref, ok=False) == "" and world.git("rev-parse", ref) == theirs
    )
    return ended.code, kept


def test_compare_and_swap(lab: Lab) -> None:
    assert moved_under_it(lab) == (4, True)
    assert moved_under_it(lab, "no_compare") == (0, False)


# ---- power loss: what the log names is on the disk


NAMES = ("cell.made", "gate.passed", "salvage.kept", "merge.built", "merge.done", "log.checkpointed", "plan.proposed")


def unsynced(lab: Lab, *without: str) -> list[str]:
    """Events that name objects or refs whose directory entries, or content, no sync had covered by then.

    From the recorded order of every call of the engine and its gits; one assignment at a time, so that what is
    unsynced at a moment belongs to the event being written.
    """
    world = lab.fresh()
    config = world.repo / ".orchestration" / "config.toml"
    before = config.read_text() if config.exists() else ""  # its sandbox is the one that was proved for all engines
    world.commit({".orchestration/config.toml": before + "[run]\nparallel = 1\n"})
    trace = Path(place()) / f"trace-{world.root.parent.name}-{world.root.name}"
    ran = lab.engines.run(
        world, *world.start_args(lab.book, "--yes"), fault={"kind": "count"}, trace=str(trace), without=tuple(without)
    )
    assert ran.code == 0
    recorded = trace.read_bytes()
    trace.unlink()
    lines = world.events()
    found, entries, content = [], set[str](), set[str]()
    number = -1
    for name, path, second, _, _ in calls(recorded):
        inside = "/.git/objects/" in path or "/.git/refs/" in path
        if (name, second) == ("syncfs", "ends"):
            entries.clear()
            content.clear()
        elif (name, second) == ("fsync", "ends"):
            content.discard(path)
        elif inside and name == "write":
            content.add(path)
        elif inside and name in ("rename", "link"):
            entries.add(second)
            if path in content:
                content.remove(path)
                content.add(second)
        elif name == "write" and path.endswith("/events.jsonl"):
            number += 1
            event = lines[number + lab.first]
            if event["type"] in NAMES and (entries or content):
                found.append(f"{event['seq']} {event['type']}: {sorted(entries | content)}")
    assert number + lab.first + 1 == len(lines), "every write of an event was seen"
    return found


def test_the_barrier(lab: Lab) -> None:
    """By the model of a file system that loses every directory entry and every byte no sync had covered."""
    assert unsynced(lab) == []
    assert len(unsynced(lab, "no_barrier")) >= 5
