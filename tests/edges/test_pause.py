"""A child that is paused: it and everything it started stands still, and can still be ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from orchgit.process import Child, start
from orchgit.sandbox import SANDBOXES, Confinement, base_env, sandbox

# A daemon with a session of its own, a child that counts, and one that has children without end.
TREE = """
setsid sh -c 'while :; do echo d >> d; sleep 0.01; done' &
(while :; do echo c >> c; sleep 0.01; done) &
(while :; do (echo f >> f) & wait $!; done) &
echo ready; while :; do echo p >> p; sleep 0.01; done
"""
FILES = ("d", "c", "f", "p")


def launched(tmp_path: Path, name: str) -> tuple[Child, Path]:
    way = sandbox(name)
    level = way.probe()
    if isinstance(level, str):
        pytest.skip(f"{name} is not available here: {level}")
    work, tmp = tmp_path / "work", tmp_path / "tmp"
    for folder in (work, tmp):
        folder.mkdir()
    argv = way.argv(Confinement((str(work),), str(tmp), network="open"), ["/bin/sh", "-c", TREE])
    child = start(argv, cwd=str(work), env=base_env(str(work), str(tmp)), sweeps=True)
    assert child.readline(30) == b"ready\n"
    until(lambda: all((work / name).exists() for name in FILES))
    return child, work


def until(what: Callable[[], bool], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def sizes(work: Path) -> list[int]:
    return [(work / name).stat().st_size for name in FILES]


def still(work: Path) -> bool:
    before = sizes(work)
    time.sleep(0.3)
    return sizes(work) == before


def grown(work: Path, before: list[int]) -> bool:
    return all(now > then for now, then in zip(sizes(work), before, strict=True))


@pytest.mark.parametrize("name", [*SANDBOXES])
def test_all_stand_still_and_go_on(tmp_path: Path, name: str) -> None:
    child, work = launched(tmp_path, name)
    try:
        for _ in range(3):
            child.pause()
            until(lambda: still(work))
            time.sleep(1.5)
            assert still(work), "nobody wakes up by himself"
            before = sizes(work)
            child.resume()
            until(partial(grown, work, before))
    finally:
        child.stop(1)


@pytest.mark.parametrize("name", [*SANDBOXES])
@pytest.mark.parametrize("grace_s", [0, 2.0])
def test_a_paused_one_can_be_ended(tmp_path: Path, name: str, grace_s: float) -> None:
    child, work = launched(tmp_path, name)
    child.pause()
    until(lambda: still(work))
    began = time.monotonic()
    child.stop(grace_s)
    assert time.monotonic() - began < 15
    assert still(work)
    assert not running(work)


def running(work: Path) -> list[str]:
    """Processes that are at home in the tree."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cwd").readlink() == work:
                found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_paused_at_its_very_start(tmp_path: Path) -> None:
    """The signal comes before the keeper waits for it: it must not be killed by it, and its program must not run."""
    for turn in range(20):
        folder = tmp_path / str(turn)
        (folder / "tmp").mkdir(parents=True)
        argv = sandbox("none").argv(Confinement((str(folder),), str(folder / "tmp")), ["/bin/sh", "-c", "echo up; cat"])
        child = start(argv, cwd=str(folder), env=base_env(str(folder), str(folder)), sweeps=True)
        time.sleep(turn * 0.005)
        child.pause()
        child.resume()
        child.pause()
        child.resume()
        assert child.readline(20) == b"up\n"
        assert child.finish(deadline_s=20).returncode == 0


def test_a_pause_between_the_fork_and_its_own_group_does_not_end_the_program(tmp_path: Path) -> None:
    """The signal is pending in the program by then, and is not the program's."""
    (tmp_path / "tmp").mkdir()
    argv = sandbox("none").argv(Confinement((str(tmp_path),), str(tmp_path / "tmp")), ["/bin/echo", "up"])
    at = argv.index("-c") + 1
    argv[at] = argv[at].replace("keeper.main(", f"exec({EARLY!r}); keeper.main(")
    ended = start(argv, cwd=str(tmp_path), env=base_env(str(tmp_path), str(tmp_path)), sweeps=True).finish(
        deadline_s=20
    )
    assert (ended.returncode, ended.stdout) == (0, b"up\n"), ended.stderr


EARLY = """
import os, signal
setsid = os.setsid
os.setsid = lambda: (os.kill(os.getpid(), signal.SIGUSR1), setsid())
"""


def test_a_limit_of_time_ends_a_paused_one(tmp_path: Path) -> None:
    child = start(["/bin/sleep", "300"], cwd=str(tmp_path), env={}, sweeps=False)
    child.pause()
    ended = child.finish(deadline_s=0.3)
    assert ended.timed_out
    assert ended.returncode < 0
