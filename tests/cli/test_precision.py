"""How much of what the kernel lets a worker write is in its scope: shown with every plan, and a threshold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import Book, World, make, piece, plan_of, turn, write

LOOSE = piece("api", "api-agent", ["src/*.py", "src/api/**"], checks=["ls src/api"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    made.commit({"src/one.py": "1\n", "src/two.ts": "2\n", "src/three.ts": "3\n", "src/four.ts": "4\n"})
    yield made
    made.close()


def threshold(world: World, percent: int) -> None:
    config = world.repo / ".orchestration" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f"[sandbox]\nprecision = {percent}\n")


def test_every_plan_shows_it(world: World) -> None:
    book = Book(LOOSE).work("api", turn(write("src/api/a.py", "a = 1\n")))
    world.run(*world.start_args(book), code=4)
    shown = " ".join(world.run("plan").out.split())
    below = [path for path in world.files("HEAD") if path.startswith("src/")]
    inside = [path for path in below if path.startswith("src/api/") or path == "src/one.py"]
    assert f"api {len(inside) * 100 // len(below)} % ({len(inside)}/{len(below)})" in shown
    assert "the gate refuses" in shown


def test_below_the_threshold_it_goes_back_to_the_orchestrator(world: World) -> None:
    threshold(world, 60)
    book = Book(LOOSE).plan(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(write("src/api/a.py", "a = 1\n")))
    world.start(book, "--yes")
    assert "60 % must be in scope" in world.one("plan.invalid")["data"]["problems"][0]
    brief = world.blob(world.events("agent.started", purpose="plan")[1]["data"]["brief"])
    assert "files that the kernel would let it write" in brief


def test_a_plan_that_was_brought_along_is_refused_too(world: World) -> None:
    threshold(world, 60)
    path = world.root / "plan.json"
    path.write_text(json.dumps(plan_of(LOOSE)))
    for args in (("plan", "--check", str(path)), (*world.start_args(Book(LOOSE)), "--plan", str(path))):
        assert "60 % must be in scope" in world.run(*args, code=None).err, args
