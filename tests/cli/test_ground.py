"""Directories of the user's and what a set-up makes: there for workers and checks, in every kind of cell, not git's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import FILES, Book, World, bash, make, piece, report, turn

LOCK = "src/web/lock.json"
SETUP = (
    "mkdir -p vendor/lib && cat src/web/lock.json > vendor/lib/made && date +%N%s >> vendor/lib/made && echo x > stray"
    " && echo changed > README.md && ln -s $USER_TREE/modules src/api/link && (echo x > ../../escaped || true)"
)


@pytest.fixture(params=["auto", "never"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = make(tmp_path, {**FILES, LOCK: "1\n", ".gitignore": "modules/\n"})
    made.put({"modules/pkg/index.js": "x\n", "modules/pkg/cache": "old\n"})
    made.extra_env["OVERLAY"] = request.param
    yield made
    made.close()


def configured(world: World, **setup: object) -> None:
    keys = {
        "command": SETUP.replace("$USER_TREE", str(world.repo)),
        "makes": ["vendor", "src/api/link/pkg"],
        "locks": [LOCK],
        **setup,
    }
    lines = ["[cells]", f'overlay = "{world.extra_env["OVERLAY"]}"', 'share = ["modules", "not-there"]', "[setup]"]
    world.put({".orchestration/config.toml": "\n".join([*lines, *(f"{k} = {json.dumps(v)}" for k, v in keys.items())])})


def book() -> Book:
    check = "cat modules/pkg/index.js vendor/lib/made && test ! -e stray && ls src/api"
    made = Book(piece("api", "api-agent", ["**"], checks=[check]))
    script = (
        "cat modules/pkg/index.js vendor/lib/made README.md > src/api/seen; git status --porcelain > src/api/status;"
        " ls vendor src/api > src/api/list; echo mine > modules/pkg/cache && echo mine > vendor/lib/made"
    )
    return made.work("api", turn(bash(script)), turn(report()))


def test_it_is_there_for_all_and_does_not_land(world: World) -> None:
    configured(world)
    world.start(book(), "--yes")
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert tree["src/api/seen"].startswith("x\n1\n")
    assert tree["src/api/seen"].endswith("# A small project"), "what the set-up did to git's files is not there"
    assert tree["src/api/status"] == "?? src/api/seen\n?? src/api/status"
    assert tree["src/api/list"].split() == ["src/api:", "list", "routes.py", "seen", "status", "vendor:", "lib"]
    transcript = world.blob(world.events("agent.exited", member="api-agent")[0]["data"]["transcript"])
    assert "exit code 0" in transcript, "in its own cell it may change them"
    assert not [name for name in tree if name.startswith(("modules", "vendor", "stray", "src/api/link"))]
    assert (world.repo / "modules/pkg/cache").read_text() == "old\n", "a worker changes only its own"
    assert not list(world.root.rglob("escaped"))
    cells = [ev["data"]["canary"] for ev in world.events("cell.made")]
    assert any("shared modules (" in line and "not shared, not there: not-there" in line for line in cells[0])
    assert any("set-up " in line for line in cells[0])
    world.run("audit", "--rerun")


@pytest.mark.whole
@pytest.mark.parametrize("world", ["auto"], indirect=True)
def test_it_is_made_once_for_the_same_lock_file(world: World) -> None:
    configured(world)
    stamps = []
    for change in ("", "2\n"):
        if change:
            world.put({LOCK: change})
            world.git("add", LOCK)
            world.git("commit", "-q", "-m", "lock")
        for _ in range(2 - bool(change)):
            world.start(book(), "--yes")
            stamps.append(world.tree(f"orchgit/{world.name}/integration")["src/api/seen"].splitlines()[1:3])
    one, again, other = stamps
    assert one == again
    assert (one[0], other[0]) == ("1", "2")
    told = world.events("cell.made", run=world.names()[1])[0]["data"]["canary"]
    assert any("set-up as it was made before" in line for line in told)


@pytest.mark.parametrize("world", ["auto"], indirect=True)
def test_what_the_script_of_a_branch_made_stands_below_no_other(world: World) -> None:
    def made(script: str) -> str:
        world.commit({"tools/setup.sh": f"mkdir -p vendor; echo {script} > vendor/lib\n"})
        return world.run("exec", "--allow", "src/**", "--", "cat", "vendor/lib").out

    configured(world, command="sh ./tools/setup.sh && true", makes=["vendor"])
    assert made("good") == "good\n"
    assert made("evil") == "evil\n", "the lock file is the same, what the command names is not"
    world.commit({"src/api/x.py": "x\n"})
    done = world.run("exec", "--allow", "src/**", "--", "cat", "vendor/lib")
    assert (done.out, "set-up: " in done.err) == ("evil\n", False), "for another tree with the same of both it is kept"


@pytest.mark.parametrize("world", ["auto"], indirect=True)
def test_one_that_fails_stops_the_assignment_with_its_words(world: World) -> None:
    configured(world, command="echo no such package; exit 3")
    done = world.start(book(), "--yes", code=4)
    assert "no such package" in world.events("cell.failed")[0]["data"]["why"]
    assert "exit code 3" in done.err + done.out + world.run("status").out


@pytest.mark.parametrize("world", ["auto"], indirect=True)
def test_a_command_that_does_not_say_what_it_makes_is_refused(world: World) -> None:
    configured(world, makes=[])
    assert "does not say what it makes" in world.run("start", str(world.issue()), "--yes", code=2).err
