"""The power goes: whatever no sync had covered is lost, torn or zeros, and the run goes on to the same end.

The whole of it: `python -m tests.crash --power 600`.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from random import Random

import pytest

from tests.crash.harness import Fault, Lab
from tests.crash.power import Files, FileSystem, calls, read, write

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that kills at a call is C, and there is no cc")


@pytest.mark.parametrize("tenth", [5, *(pytest.param(n, marks=pytest.mark.whole) for n in (1, 2, 3, 4, 6, 7, 8, 9))])
def test_the_power_goes(lab: Lab, tenth: int) -> None:
    """By default half-way, while two workers are at work."""
    point: Fault = {"kind": "call", "number": lab.calls * tenth // 10, "action": "kill"}
    for result in lab.power(point, [("any", tenth)]):
        assert result.wrong == [], f"{result.faults}: {result.where}\n{result.said}"
        assert result.fired == 1


def test_what_a_worker_reported_is_there(lab: Lab) -> None:
    """Its files are in its cell, which nobody but the barrier syncs."""
    point: Fault = {"kind": "event", "number": lab.write_of("agent.reported", assignment="last"), "phase": "after"}
    (held,) = lab.power(point, [("content", 1)])
    assert (held.fired, held.wrong) == (1, []), held.said
    (lost,) = lab.power(point, [("content", 1)], without=("no_barrier",))
    assert any("another tree" in wrong for wrong in lost.wrong), lost


def test_a_message_is_whole_or_not_there_and_there_once_it_was_sent(lab: Lab) -> None:
    """At every call of `approve`, which leaves one for the engine that holds the run."""
    world = lab.fresh()
    assert lab.engines.run(world, *world.start_args(lab.book)).code == 4
    common, trace = world.repo / ".git", lab.folder / "trace"
    disk = FileSystem(common)
    with (world.log.parent / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert lab.engines.run(world, "approve", fault={"kind": "count"}, trace=str(trace)).code == 0
    done = list(calls(trace.read_bytes()))
    trace.unlink()
    begun = {name for name in disk.whole() if "/inbox/" in name}
    for number, call in enumerate(done, 1):
        disk.happens(*call)
        for after in outcomes(disk, most=30):
            sent = [held for name, held in after.items() if name.endswith(".json") and name not in begun]
            assert [json.loads(message[1:])["type"] for message in sent] in ([], ["plan.approved"])
            assert sent or number < len(done), "it was said to be sent"
    assert disk.whole() == read(common)


# -- the model


def model(root: Path, *lines: str) -> FileSystem:
    made = FileSystem(root)
    for line in lines:
        name, path, second, number, data = (line.split(" ") + [""] * 4)[:5]
        full = f"{root}/{second}" if second and name in ("rename", "link") else second
        made.replay(f"{name}\t{root}/{path}\t{full}\t{number or 0}\t{len(data)}\n{data}".encode())
    return made


def outcomes(made: FileSystem, most: int = 300) -> list[Files]:
    found: list[Files] = []
    for seed in range(most):
        after = made.after(Random(seed), "any")
        if after not in found:
            found.append(after)
    return found


MADE = ("create tmp", "write tmp  0 new")
SYNCED = ("fsync tmp begins 1 7", "fsync tmp ends 1")


def test_a_file_that_was_renamed_without_a_sync_may_be_the_old_one_or_empty(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    made = model(tmp_path, *MADE, "rename tmp f")
    assert made.whole() == {"f": b"=new"}
    assert {"f": b"=old"} in outcomes(made)
    assert {"f": b"="} in outcomes(made)
    assert {"f": b"=\0\0\0"} in outcomes(made)


def test_one_that_was_synced_before_it_was_renamed_is_the_old_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    made = model(tmp_path, *MADE, *SYNCED, "rename tmp f")
    assert {after.get("f") for after in outcomes(made)} == {b"=old", b"=new"}
    made.replay(f"fsync\t{tmp_path}\tbegins\t2\t1\n7fsync\t{tmp_path}\tends\t2\t0\n".encode())
    assert outcomes(made) == [{"f": b"=new"}]


def test_a_sync_holds_for_what_was_there_when_it_began(tmp_path: Path) -> None:
    made = model(tmp_path, "create a", "syncfs . begins 1 7", "create b", "syncfs . ends 1")
    assert sorted(map(sorted, outcomes(made))) == [["a"], ["a", "b"]]
    unfinished = model(tmp_path, "create a", "syncfs . begins 1 7")
    assert {} in outcomes(unfinished)


def test_a_directory_is_written_back(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    files: Files = {"d": b"=now a file", "e": b"/", "e/g": b"=y"}
    write(tmp_path, files)
    assert read(tmp_path) == files
