"""Workers without the tools report by the command, or by the file that they are told of."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import SOURCE, Book, World, bash, make, piece, turn, write


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


ORCHGIT = f"PYTHONPATH={shlex.quote(str(SOURCE))} {shlex.quote(sys.executable)} -m orchgit"


def test_by_the_command(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    hand_in = f"{ORCHGIT} report-work 'billing, by the command' --produced src/api/a.py"
    book.jobs["work/api/1"] = [turn(write("src/api/a.py", "a = 1\n"), bash(hand_in))]
    world.start(book)
    reported = world.one("agent.reported")["data"]
    assert (reported["summary"], reported["produced"]) == ("billing, by the command", ["src/api/a.py"])
    assert world.one("agent.exited", member="api-agent")["data"]["status"] == "done"
    world.run("audit")


def test_by_the_file_and_the_brief_is_there(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    result = json.dumps({"report": {"summary": "by the file"}})
    read = "grep -c 'orchgit-job: work/api/1' $ORCHGIT_BRIEF > src/api/a.py; cp $ORCHGIT_BRIEF src/api/brief.md"
    book.jobs["work/api/1"] = [turn(bash(read), bash(f"echo {shlex.quote(result)} > $ORCHGIT_RESULT"))]
    world.start(book)
    assert world.one("agent.reported")["data"]["summary"] == "by the file"
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert tree["src/api/a.py"] == "1"
    assert "# How to hand in" in tree["src/api/brief.md"]


@pytest.mark.whole
def test_what_is_no_result_is_no_report_and_the_work_is_kept(world: World) -> None:
    (world.repo / ".orchestration").mkdir(exist_ok=True)
    (world.repo / ".orchestration" / "config.toml").write_text("[run]\nattempts = 1\n")
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.jobs["work/api/1"] = [turn(write("src/api/a.py", "a = 1\n"), bash("echo done > $ORCHGIT_RESULT"))]
    world.start(book, code=4)
    assert world.one("agent.exited", member="api-agent")["data"]["status"] == "no_report"
    salvaged = world.one("salvage.kept")["data"]["commit"]
    assert world.tree(salvaged)["src/api/a.py"] == "a = 1"
