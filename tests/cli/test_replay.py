"""`replay` tells what happened, and computes what the living engine knew: the same state, after every event."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchgit.core import events as e
from orchgit.core.state import Run, evolve
from orchgit.report_replay import Teller, state_digest, story_line
from tests.support.golden import Golden, goldens, put, reseal
from tests.support.scenario import Book, World, finding, make, piece, turn, write

each = pytest.mark.parametrize("golden", goldens(), ids=lambda g: g.name)
# A real run, driven as `start --yes` drives one, by an engine that also writes down the digest of what it knows after
# each batch of events: what the process knew then, not what a log says.
ENGINE = """
import json, sys
from pathlib import Path
from orchgit.report_replay import state_digest
from orchgit.cli.start import read_issue
from orchgit.git.user import discover
from orchgit.session import Options, begin

known = {}
issue, playbook, out = sys.argv[1:]
options = Options(backend="scripted", playbook=playbook, approval="policy")
listen = lambda run, event: known.__setitem__(run.seq, state_digest(run))
session, _ = begin(discover(Path.cwd()), read_issue(issue), options, (listen,), lambda who, line: None)
try:
    run = session.runner.drive(session.world)
finally:
    session.close()
Path(out).write_text(json.dumps({"run": run.id, "known": known}))
"""


def book() -> Book:
    made = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["ls docs"]),
    )
    made.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    made.work("api", turn(write("src/api/billing.py", "billing = 2\n")))
    made.verdict("docs", 1, "reassign", "say more")
    made.work("docs", turn(write("docs/a.md", "# A\n")))
    made.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    made.review(finding("src/api/billing.py", "Anybody can bill"))
    made.review(fixed=["F1"])
    return made


def test_the_state_after_each_event_is_the_one_that_the_engine_had(tmp_path: Path) -> None:
    world = make(tmp_path / "w")
    out = tmp_path / "known.json"
    argv = [sys.executable, "-c", ENGINE, str(world.issue()), str(world.playbook(book())), str(out)]
    done = subprocess.run(argv, cwd=world.repo, env=world.env, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(out.read_text())
    known = {int(seq): digest for seq, digest in told["known"].items()}
    run = Run(told["run"])
    compared = 0
    for line in world.log.read_bytes().split(b"\n")[:-1]:
        run = evolve(run, e.parse(line))
        if run.seq in known:  # the last event of a batch
            assert state_digest(run) == known[run.seq], run.seq
            compared += 1
    assert run.phase == "completed", [b.text for b in run.open_blockers()]
    assert compared == len(known) > 20
    last = world.run("replay", "--json").json
    assert last["digest"] == known[run.seq]
    at = sorted(known)[len(known) // 2]
    assert world.run("replay", "--json", "--at", str(at)).json["digest"] == known[at]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The golden run with the most in it, in a repository without anything else."""
    golden = next(g for g in goldens() if g.folder.name == "mended")
    made = make(tmp_path / "w")
    directory = made.runs / golden.run
    directory.mkdir(parents=True)
    shutil.copyfile(golden.folder / "events.jsonl", directory / "events.jsonl")
    return made


def test_the_story_says_who_what_why_how_long_and_at_what_cost(world: World) -> None:
    lines = world.run("replay").out.splitlines()
    events = world.events()
    gated = next(ev for ev in events if ev["type"] == "gate.failed")
    line = next(line for line in lines if line.startswith(f"{gated['seq']:>4}  "))
    assert "engine orchgit" in line
    assert "docs: gate failed, 1 violation: docs/private.md" in line
    assert f"for {gated['cause']} gate.requested" in line
    assert "$0.00 so far" in "\n".join(lines)
    approved = next(line for line in lines if "approved by policy" in line)
    assert "policy --yes" in approved
    assert not any("merge.requested" in line.partition("  (")[0] for line in lines), "requests are told by outcomes"


def test_of_one_worker_alone(world: World) -> None:
    story = world.run("replay", "--worker", "docs-agent", "--json").json["story"]
    assert {"gate.failed", "agent.reported", "merge.done", "agent.exited"} <= {t["type"] for t in story}
    assert not [t for t in story if t["what"].startswith("api")]
    by_name = world.run("replay", "--worker", "docs", "--json").json["story"]
    assert [t for t in by_name if t["type"].startswith(("gate", "merge"))] == [
        t for t in story if t["type"].startswith(("gate", "merge"))
    ]
    assert "known: api, api-agent, docs, docs-agent" in world.run("replay", "--worker", "nobody", code=2).err


def test_what_changed_between_two_events(world: World) -> None:
    merged = next(ev["seq"] for ev in world.events("merge.done", assignment="api"))
    found = world.run("replay", "--diff", str(merged - 1), str(merged), "--json").json
    assert found["works.api.stage"] == ["merging", "merged"]
    assert found["tip"][1] == world.events("merge.done", assignment="api")[0]["data"]["new"]
    assert "works.docs.stage" not in found
    assert "works.api.stage: merging -> merged" in world.run("replay", "--diff", str(merged - 1), str(merged)).out
    assert world.run("replay", "--diff", "5", "5").out == "nothing\n"
    for wrong in (("--diff", "0", "9999"), ("--diff", "0", "1", "--at", "3"), ("--diff", "-1", "3")):
        assert "Traceback" not in world.run("replay", *wrong, code=2).err


def test_following_a_run_ends_with_it(world: World) -> None:
    lines = world.log.read_bytes().splitlines(keepends=True)
    del lines[next(n for n, line in enumerate(lines, 1) if b'"type":"run.completed"' in line) :]  # published after it
    world.log.write_bytes(b"".join(lines))
    whole = world.run("replay").out.splitlines()
    half = len(lines) // 2
    world.log.write_bytes(b"".join(lines[:half]))
    child = world.spawn("replay", "--follow")
    shown = whole[: whole.index("")]
    world.wait_for(lambda: len(world.said(child).splitlines()) >= half // 3)
    with world.log.open("ab") as log:
        log.write(b"".join(lines[half:-1]) + lines[-1][:40])
        log.flush()
        world.wait_for(lambda: len(world.said(child).splitlines()) == len(shown) - 1)
        log.write(lines[-1][40:])
    assert child.wait(30) == 0
    assert world.said(child).splitlines() == shown


@each
def test_whatever_a_log_says_never_reaches_the_terminal_raw(golden: Golden) -> None:
    """Each text of each event, replaced by one that would move the cursor and write on."""
    evil = "\x1b[2J\x9b31m\r\u202e\u2066\x07\x00 \U000e0001"
    for line in golden.lines:
        fields = e.envelope(line)
        for path in [p for p, value in _texts(fields["data"]) if value] + [("actor",), ("time",)]:
            where = ("actor", "id") if path == ("actor",) else path if path == ("time",) else ("data", *path)
            try:
                event = e.parse(reseal(put(fields, where, evil)))
            except e.LineError:
                continue  # a text that is one of a few
            teller = Teller()
            told = teller.tell(event)
            said = story_line(told) if told else ""
            assert not [c for c in said if ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\U000e0001"], path


def _texts(value: object, path: tuple[object, ...] = ()) -> list[tuple[tuple[object, ...], str]]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _texts(inner, (*path, key))]
    if isinstance(value, list):
        return [found for index, inner in enumerate(value) for found in _texts(inner, (*path, index))]
    return [(path, value)] if isinstance(value, str) else []
