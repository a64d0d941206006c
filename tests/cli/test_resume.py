"""Killed at any moment, `resume` ends as an undisturbed run would: same tree, finished work kept, nobody left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.scenario import Book, World, bash, digest, finding, make, piece, simple, turn, write


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def several(delay_ms: int) -> Book:
    """One that is merged early, two at the same time, one after both; a second try, a finding and its fix."""
    book = Book(
        piece("early", "docs-agent", ["docs/**"], checks=["cat docs/early.md"]),
        piece("left", "api-agent", ["src/api/**"], depends_on=["early"], checks=["grep -n good src/api/left.py"]),
        piece("right", "frontend-agent", ["src/web/**"], depends_on=["early"], checks=["cat src/web/right.html"]),
        piece("last", "test-agent", ["tests/**"], depends_on=["left", "right"], checks=["cat tests/last.txt"]),
    )
    book.work("early", turn(write("docs/early.md", "early\n")))
    book.work("left", turn(write("src/api/left.py", "bad\n")), turn(delay_ms=delay_ms // 3))
    book.work("left", turn(bash("cat src/api/left.py; echo good >> src/api/left.py")), turn(delay_ms=delay_ms))
    book.work("left", turn(bash("echo fixed >> src/api/left.py")))
    book.work("right", turn(bash("cat docs/early.md > src/web/right.html")), turn(delay_ms=delay_ms))
    book.work("right", turn(write("src/web/never.html", "a second try that must not be needed\n")))
    book.work("last", turn(bash("cat src/api/left.py src/web/right.html > tests/last.txt")))
    book.work("last", turn(write("tests/never.txt", "a second try that must not be needed\n")))
    return book.review(finding("src/api/left.py", "not fixed yet")).review(fixed=["F1"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tree that a run nobody killed ends with."""
    world = make(tmp_path_factory.mktemp("undisturbed"))
    world.start(several(0))
    assert world.files("HEAD") < world.files(world.ref(f"{world.name}/integration"))
    return world.git("rev-parse", f"orchgit/{world.name}/integration^{{tree}}")


def same(world: World, tree: str) -> None:
    """What must hold after it was killed and went on to its end."""
    world.none_left()
    assert world.git("rev-parse", f"orchgit/{world.name}/integration^{{tree}}") == tree
    merged = Counter(ev["data"]["assignment"] for ev in world.events("merge.done", land="merge"))
    assert merged == {"early": 1, "left": 2, "right": 1, "last": 1}  # left a second time with its fix
    assert len(world.events("merge.done", land="seal")) == 1
    counted = Counter(
        ev["data"]["assignment"] for ev in world.events("gate.passed")
    )  # what went through the gate was not done again
    assert counted == {"early": 1, "left": 3, "right": 1, "last": 1}
    audit = world.run("audit", "--json").json
    assert {law["verdict"] for law in audit["laws"]} == {"pass"}
    assert world.git("fsck", "--full", "--strict", "--no-dangling") == ""
    assert world.cells_left() == []
    assert world.run("status", world.name, "--json").json["phase"] == "completed"


def found(world: World, pattern: str) -> bool:
    """Whether there is such a file in a cell of the run."""
    return any((world.root / "state").glob(f"orchgit/*/*/{pattern}"))


def reached(world: World, engine: subprocess.Popen[bytes], count: int, kind: str = "") -> bool:
    """So many events are in the log, or the engine has ended."""
    return len(world.events(kind)) >= count or engine.poll() is not None


def kill(engine: subprocess.Popen[bytes]) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()


def test_killed_between_two_workers_at_work(world: World, undisturbed: str, capsys: pytest.CaptureFixture[str]) -> None:
    world.put({"README.md": "dirty\n"})
    before = digest(world)
    engine = world.spawn(*world.start_args(several(5000), "--yes"))
    world.wait_event("assignment.started", attempt=2, assignment="left")
    world.wait_event("agent.started", 4, purpose="work")  # early, left twice, right
    for path in ("left-2/*/src/api/left.py", "right-1/*/src/web/right.html"):
        world.wait_for(partial(found, world, path), path)
    kill(engine)
    killed = time.monotonic()
    world.none_left(within=8)
    with capsys.disabled():
        print(f"\n  last process gone {time.monotonic() - killed:.2f} s after the kill")
    assert world.run("status").out.count("working") == 2
    assert digest(world) == before
    done = {n: world.ref(f"{world.name}/{n}") for n in ("early", "left")}
    size = world.log.stat().st_size
    past = world.log.read_bytes()[:size]
    world.playbook(several(0))
    said = world.run("resume").err
    assert "run resumed" in said
    same(world, undisturbed)
    assert world.log.read_bytes().startswith(past)
    assert world.ref(f"{world.name}/early") == done["early"]
    assert world.git("merge-base", "--is-ancestor", done["left"], f"orchgit/{world.name}/left", ok=True) == ""
    # Merged before the kill: not run again. Lost with the engine: run again, and the try is not counted.
    assert len(world.events("agent.requested", assignment="early")) == 1
    lost = [ev for ev in world.events("agent.failed") if ev["data"]["lost"]]
    assert len(lost) == 2
    third = world.one("assignment.started", assignment="left", attempt=3)["data"]
    assert third["counted"] == 2
    assert len(world.events("scope.violation_seen")) == 0
    assert digest(world) == before
    # A second resume has nothing to do, and writes nothing.
    bytes_after = world.log.read_bytes()
    assert "is over: completed" in world.run("resume").err
    assert world.log.read_bytes() == bytes_after


def test_resume_does_not_wait_for_what_the_kill_left(world: World, undisturbed: str) -> None:
    """At once after the kill, with the old agents perhaps not gone yet."""
    engine = world.spawn(*world.start_args(several(1500), "--yes"))
    world.wait_event("agent.started", 3, purpose="work")
    kill(engine)
    world.run("resume")
    same(world, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_killed_at_many_moments(world: World, undisturbed: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(seed)
    engine = world.spawn(*world.start_args(several(150), "--yes"))
    world.wait_event("plan.approved")
    told = []
    for _ in range(8):
        until = len(world.events()) + chance.randint(1, 14)
        pause = chance.choice([0.0, 0.0, 0.01, 0.05])
        world.wait_for(partial(reached, world, engine, until), "some events")
        time.sleep(pause)
        if engine.poll() is not None:
            break
        kill(engine)
        told.append(f"{len(world.events())}:{world.events()[-1]['type']}")
        engine = world.spawn("resume")
        world.wait_for(partial(reached, world, engine, len(told), "run.resumed"), "resumed")
    assert engine.wait(60) == 0, world.said(engine)
    with capsys.disabled():
        print(f"\n  killed after {' '.join(told)}")
    assert len(told) >= 5
    same(world, undisturbed)


def test_killed_before_anything_was_planned(world: World) -> None:
    book = simple()
    book.jobs["plan/1"] = [turn(delay_ms=20_000), *book.jobs["plan/1"]]
    engine = world.spawn(*world.start_args(book, "--yes"))
    world.wait_event("agent.started", purpose="plan")
    kill(engine)
    book.jobs["plan/1"] = [turn(delay_ms=1), *book.jobs["plan/1"][1:]]
    world.playbook(book)
    world.run("resume")
    world.none_left()
    world.run("audit")


def test_a_torn_last_line_is_set_aside(world: World) -> None:
    world.run(*world.start_args(simple()), code=4)
    with world.log.open("ab") as log:
        log.write(b'{"v":1,"seq":7,"run":"half a li')
    assert world.run("status").code == 0
    world.run("approve")
    world.run("resume")
    assert list((world.log.parent / "torn").iterdir())
    world.run("audit")


def test_terminated_politely_it_leaves_nobody_behind(world: World, undisturbed: str) -> None:
    engine = world.spawn(*world.start_args(several(2000), "--yes"))
    world.wait_event("agent.started", 3, purpose="work")
    engine.send_signal(signal.SIGTERM)
    engine.wait(20)
    world.none_left()
    world.playbook(several(0))
    world.run("resume")
    same(world, undisturbed)


def test_two_engines_on_one_run(world: World) -> None:
    engine = world.spawn(*world.start_args(simple()), "--wait")
    world.wait_event("plan.proposed")
    for _ in range(2):
        refused = world.run("resume", code=2)
        assert "is held by another process" in refused.err
        assert f"process {engine.pid} is its engine" in refused.err
        assert f"orchgit status {world.name}" in refused.err
    assert f"engine: process {engine.pid}" in world.run("status").out
    assert world.run("status", world.name, "--json").json["engine"] == engine.pid
    assert world.run("clean", world.name, code=1).err.startswith(f"orchgit: no: run {world.name} has an engine")
    world.run("approve")
    assert engine.wait(60) == 0, world.said(engine)
    assert world.run("status", world.name, "--json").json["engine"] is None
    world.run("audit")


def test_many_who_look_do_not_keep_the_engine_out(world: World) -> None:
    """`status` asks who holds the lock; it must never hold it in the way of a resume."""
    world.run(*world.start_args(simple()), code=4)
    store = world.log.parent
    looker = subprocess.Popen(
        [*world.argv[:1], "-c", "import sys\nfrom pathlib import Path\nfrom orchgit.eventlog import Store\n"
         "s = Store(Path(sys.argv[1]))\nwhile True: s.holder()", str(store)], env=world.env,
    )  # fmt: skip
    try:
        world.run("approve")
        world.run("resume")
    finally:
        looker.kill()
        looker.wait()


def test_two_runs_side_by_side_in_one_repository(world: World) -> None:
    first = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    first.work("api", turn(write("src/api/one.py", "1\n")), turn(delay_ms=700))
    second = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    second.work("api", turn(write("src/api/two.py", "2\n")), turn(delay_ms=700))
    engines = []
    for number, book in enumerate((first, second)):
        path = str(world.playbook(book, f"book-{number}.json"))
        args = ["start", str(world.issue()), "--backend", "scripted", "--playbook", path, "--yes"]
        engines.append(world.spawn(*args))
    for engine in engines:
        assert engine.wait(60) == 0, world.said(engine)
    assert len(world.names()) == 2
    found = set()
    for name in world.names():
        world.run("audit", name)
        found.add(frozenset(world.files(f"orchgit/{name}/integration") - world.files("HEAD")))
    assert found == {frozenset({"src/api/one.py"}), frozenset({"src/api/two.py"})}
    started, ended = [], []
    for name in world.names():
        started.append(next(e for e in world.events("agent.started", run=name, purpose="work"))["time"])
        ended.append(next(e for e in world.events("agent.exited", run=name) if e["data"]["duration_ms"] > 600)["time"])
    assert max(started) < min(ended)
    listed = world.run("status", "--json").json
    assert [row["run"] for row in listed] == world.names()[::-1]
    world.none_left()
    assert world.git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_lock_of_somebody_elses_is_left_to_a_human(world: World) -> None:
    """git holds HEAD.lock, empty, for as long as the hooks of a commit take: whose it is nothing shows. Only who has
    checked out a branch of the run meets it."""
    world.run(*world.start_args(simple()), code=4)
    ref = f"refs/heads/orchgit/{world.name}/integration"
    head, lock = world.repo / ".git" / "HEAD", world.repo / ".git" / "HEAD.lock"
    was = head.read_text()
    head.write_text(f"ref: {ref}\n")
    lock.touch()
    world.run("approve")
    world.run("resume", code=4)
    assert "HEAD.lock" in world.one("merge.stale")["data"]["why"]
    assert "HEAD.lock" in world.one("blocker.raised")["data"]["text"]
    assert lock.exists()
    lock.unlink()
    head.write_text(was)
    world.run("answer", world.name, "B1", "it was left by a git that was killed")
    world.run("resume")
    assert world.events("run.completed")


def test_what_is_half_made_goes_if_it_is_the_runs_and_stays_if_it_is_anybody_elses(world: World) -> None:
    world.run(*world.start_args(simple()), code=4)
    common, run = world.repo / ".git", world.name
    ours = [
        f"refs/heads/orchgit/{run}/api.lock", f"refs/orchgit/runs/{run}.lock", f"refs/orchgit/salvage/{run}/api/1.lock",
        f"objects/ab/tmp_obj_orchgit-{run}_1", f"orchgit/engine.git/incoming-{run}_1/pack/tmp_pack_1",
        f"orchgit/runs/{run}/blobs/.half.1", f"orchgit/runs/{run}/live/99.jsonl",
    ]  # fmt: skip
    theirs = [
        "index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock", "objects/ab/tmp_obj_Ab12",
        "refs/heads/orchgit/another-run/api.lock", "refs/orchgit/runs/another-run.lock",
        "objects/ab/tmp_obj_orchgit-another-run_1", "orchgit/engine.git/incoming-another-run_1/pack/tmp_pack_1",
        f"orchgit/runs/{run}/inbox/.message.json.1",
    ]  # fmt: skip
    for name in (*ours, *theirs):
        (common / name).parent.mkdir(parents=True, exist_ok=True)
        (common / name).write_text("")
    world.run("resume", code=4)
    assert [name for name in ours if (common / name).exists()] == []
    assert [name for name in theirs if not (common / name).exists()] == []
    said = " ".join(world.events("run.resumed")[-1]["data"]["debris"])
    assert all(word in said for word in ("api.lock", "1.lock", f"{run}.lock", "tmp_obj_", "incoming-", ".half.1")), said
