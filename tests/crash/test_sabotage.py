"""Each step of the protocol, taken out in turn: the harness must see it. A step that nobody misses is not tested."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.harness import AT_WORK, Fault, Lab, book, kill_left, place
from tests.crash.power import calls

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that kills at a call is C, and there is no cc")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def at(lab: Lab, kind: str, phase: str = "before", **data: Any) -> Fault:
    return {"kind": "event", "number": lab.write_of(kind, **data), "phase": phase, "part": 50}


def seen(lab: Lab, fault: Fault, without: str, what: str, deadline_s: float = 60) -> None:
    """With the step the case is well, without it `what` is wrong."""
    whole = lab.case(fault)
    assert whole.wrong == [], whole.said
    assert whole.fired == 1
    broken = lab.case(fault, without=(without,), deadline_s=deadline_s)
    assert broken.fired == 1
    assert any(re.search(what, wrong) for wrong in broken.wrong), broken.wrong


def test_request_before_act(lab: Lab) -> None:
    seen(lab, at(lab, "cell.requested", assignment="last"), "act_before_request", "acted on before it was written")


def test_mending_of_a_torn_tail(lab: Lab) -> None:
    seen(lab, at(lab, "gate.passed", "torn", assignment="web"), "no_mending", "resume ends with|audit: log.chain")


def test_clearing_of_locks(lab: Lab) -> None:
    killed: Fault = {"kind": "call", "number": 1, "action": "kill", "classes": 1, "match": "refs/heads/orchgit"}
    seen(lab, killed, "no_lock_clearing", "resume ends with 4")


def test_clearing_of_objects_and_cells(lab: Lab) -> None:
    killed: Fault = {"kind": "call", "number": 1, "action": "kill", "classes": 2, "match": "tmp_obj_orchgit"}
    seen(lab, killed, "no_clearing", "left: objects/../tmp_obj_orchgit")


def test_taking_up_of_requests(lab: Lab) -> None:
    seen(lab, at(lab, "verdict.given", assignment="web"), "forget_requests", "resume ends with None", deadline_s=12)


def test_lost_attempts_are_not_counted(lab: Lab) -> None:
    seen(lab, at(lab, "agent.reported", assignment="last"), "lost_counts", "an attempt failed")


def test_publication(lab: Lab) -> None:
    seen(lab, at(lab, "gate.passed", assignment="web"), "no_publishing", "published up to -1|not a no-op")


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
    world.commit({".orchestration/config.toml": "[run]\nparallel = 1\n"})
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
