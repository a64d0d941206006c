"""The human's part: at the terminal, from another process while the engine lives, and with no engine at all."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import (
    FILES,
    Book,
    Terminal,
    World,
    finding,
    make,
    piece,
    simple,
    turn,
    write,
)

ASKS = r"say what to change: "


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def sound(world: World) -> None:
    world.none_left()
    world.run("audit", world.name)


def editor(world: World, *steps: str) -> dict[str, str]:
    """$EDITOR: a script that applies one Python expression per call to the plan `p` it finds; "!" breaks the file."""
    path = world.root / "editor.py"
    path.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys, pathlib\n"
        f"here = pathlib.Path({str(world.root)!r})\n"
        f"steps = {list(steps)!r}\n"
        "count = here / 'edits'\n"
        "n = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(n + 1))\n"
        "f = pathlib.Path(sys.argv[-1])\n"
        "kept = here / 'before'\n"
        "kept.exists() or kept.write_text(f.read_text())\n"
        "p = json.loads(kept.read_text()) if steps[n] != '!' else None\n"
        "exec(steps[n]) if p is not None else None\n"
        "f.write_text(json.dumps(p) if p is not None else '{ not json')\n"
    )
    path.chmod(0o755)
    return {"EDITOR": f"{path} --wait"}


# -- at the terminal -------------------------------------------------------------------------------------


def test_yes(world: World) -> None:
    with Terminal(world, *world.start_args(simple())) as person:
        shown = person.expect(ASKS)
        for word in ("Plan v1 of run", "Goal: It is built.", "api-agent", "src/api/**", "Order: api"):
            assert word in shown
        assert "grep -n" in shown
        assert not world.events("assignment.started")
        person.type("Y")
        person.expect("completed")
        text = person.end(0)
    approved = world.one("plan.approved")
    assert (approved["actor"], approved["data"]["mode"]) == ({"kind": "human", "id": "ada"}, "human")
    assert "SCRIPTED agents" in text
    assert f"git merge orchgit/{world.name}/integration" in text
    sound(world)


def test_no_leaves_it_waiting(world: World) -> None:
    with Terminal(world, *world.start_args(simple())) as person:
        person.expect(ASKS)
        person.type("ok")  # a slip, and not worth another plan
        person.expect("Send the plan back, with 'ok' as what to change?")
        person.type("n")
        person.expect(ASKS)
        person.type("N")
        text = person.end(4)
    assert f"orchgit approve {world.name}" in text
    assert "nothing is decided" in text
    assert not world.events("plan.rejected")
    assert not world.events("plan.approved")
    world.run("approve")
    world.run("resume")
    sound(world)


def test_feedback_in_words_gives_a_new_version(world: World) -> None:
    book = simple()
    book.plan(piece("billing", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("billing", turn(write("src/api/billing.py", "billing = 1\n")))
    with Terminal(world, *world.start_args(book)) as person:
        person.expect(ASKS)
        person.type("call it billing, please")
        assert "Plan v2 of run" in person.expect(ASKS)
        person.type("yes")
        person.end(0)
    rejected = world.one("plan.rejected")["data"]
    assert (rejected["version"], rejected["feedback"]) == (1, "call it billing, please")
    brief = world.blob(world.events("agent.started", purpose="plan")[1]["data"]["brief"])
    assert "call it billing, please" in brief
    assert world.one("plan.approved")["data"]["version"] == 2
    sound(world)


def test_edit_until_it_is_valid(world: World) -> None:
    steps = (
        "!",  # not JSON
        "p['assignments'][0]['worker'] = 'api-agnet'; p['assignments'][0]['allow'] = []",
        "p['assignments'][0]['worker'] = 'docs-agent'; p['assignments'][0]['allow'] = ['src/api/**']",
    )
    with Terminal(world, *world.start_args(simple()), env=editor(world, *steps)) as person:
        person.expect(ASKS)
        person.type("edit")
        assert "This plan cannot be run" in person.expect("Edit again")
        person.type("y")
        said = person.expect("Edit again")
        assert "unknown worker 'api-agnet' (did you mean 'api-agent'?)" in said
        assert "the scope is empty" in said
        person.type("y")
        shown = person.expect(ASKS)
        assert "Plan v2 of run" in shown
        assert "docs-agent" in shown
        person.type("y")
        person.end(0)
    edited = world.events("plan.proposed")[1]
    assert edited["actor"] == {"kind": "human", "id": "ada"}
    assert world.one("agent.requested")["data"]["member"] == "docs-agent"
    sound(world)


def test_edit_given_up_and_edit_without_a_change_ask_again(world: World) -> None:
    with Terminal(world, *world.start_args(simple()), env=editor(world, "!", "pass")) as person:
        person.expect(ASKS)
        person.type("e")
        person.expect("Edit again")
        person.type("n")
        person.expect(ASKS)
        person.type("e")
        person.expect(ASKS)
        person.type("n")
        person.end(4)
    assert len(world.events("plan.proposed")) == 1


def test_an_editor_that_is_not_there_is_said(world: World) -> None:
    with Terminal(world, *world.start_args(simple()), env={"EDITOR": "/nonexistent/ed"}) as person:
        person.expect(ASKS)
        person.type("edit")
        assert "/nonexistent/ed" in person.expect("Edit again")
        person.type("n")
        person.expect(ASKS)
        person.type("n")
        person.end(4)


def test_questions_are_answered_at_the_terminal(world: World) -> None:
    book = Book().ask("Which currency?", "Who pays?")
    book.plan(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(write("src/api/billing.py", "EUR\n")))
    with Terminal(world, *world.start_args(book)) as person:
        person.expect("1. Which currency")
        person.type("euros")
        person.expect("2. Who pays")
        person.type("the team")
        person.expect(ASKS)
        person.type("y")
        person.end(0)
    assert world.one("question.answered")["data"]["answers"] == ["euros", "the team"]
    brief = world.blob(world.events("agent.started", purpose="plan")[1]["data"]["brief"])
    assert "Question: Which currency?\nAnswer: euros" in brief
    sound(world)


def test_a_finding_is_waived_at_the_terminal(world: World) -> None:
    book = simple().review(finding("README.md", "a key"))
    with Terminal(world, *world.start_args(book, "--yes")) as person:
        person.expect("A reason to waive it")
        person.type("it is an example")
        person.end(0)
    assert world.one("finding.waived")["data"]["reason"] == "it is an example"
    sound(world)


def test_a_blocker_left_for_now_stops_with_what_to_type(world: World) -> None:
    asks = {"tool": "report", "input": {"summary": "half", "blockers": ["which currency?"]}}
    book = Book(piece("api", "api-agent", ["src/api/**"])).work("api", turn(asks))
    with Terminal(world, *world.start_args(book, "--yes")) as person:
        person.expect("What should be done")
        person.type("")
        assert f"orchgit answer {world.name} B1" in person.end(4)


def test_control_c_stops_and_says_how_to_go_on(world: World) -> None:
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    book.work("api", turn(delay_ms=30_000), turn(write("src/api/billing.py", "late\n")))
    with Terminal(world, *world.start_args(book, "--yes")) as person:
        world.wait_event("agent.started", purpose="work")
        time.sleep(0.2)
        person.type("\x03")
        text = person.end(130)
    assert f"orchgit resume {world.name}" in text
    world.none_left()
    book.jobs["work/api/1"] = [turn(write("src/api/billing.py", "now\n")), *book.jobs["work/api/1"][2:]]
    world.playbook(book)
    world.run("resume")
    sound(world)


# -- without a terminal ----------------------------------------------------------------------------------


def test_approve_without_an_engine(world: World) -> None:
    waiting = world.run(*world.start_args(simple()), code=4)
    run, plan = world.name, world.one("plan.proposed")["data"]["digest"]
    assert f"waits for approval of plan v1 ({plan[:12]})" in waiting.err
    assert f"orchgit approve {run}" in waiting.err
    assert world.run("plan", "--json").json["assignments"][0]["id"] == "api"
    assert "approved" not in world.run("plan").out
    other = world.run("approve", "--digest", "0" * 64, code=1)
    assert "the plan is another one by now" in other.err
    assert f"orchgit resume {run}" in world.run("approve", "--digest", plan[:12]).out
    twice = world.run("approve", code=1)
    assert "executing" in twice.err
    world.run("resume")
    assert f"sha256 {plan[:12]}), approved" in world.run("plan").out
    assert "completed" in world.run("approve", code=1).err
    sound(world)


def test_reject_without_an_engine(world: World) -> None:
    book = simple().plan(piece("api", "docs-agent", ["src/api/**"], checks=["ls src/api"]))
    world.run(*world.start_args(book), code=4)
    world.run("reject", "--why", "the docs agent should do it")
    world.run("resume", code=4)
    assert world.events("plan.proposed")[1]["data"]["plan"]["assignments"][0]["worker"] == "docs-agent"
    world.run("approve")
    world.run("resume")
    sound(world)


def test_answer_without_an_engine(world: World) -> None:
    book = Book().ask("Which currency?", "Who pays?").plan(piece("api", "api-agent", ["src/api/**"]))
    book.work("api", turn(write("src/api/billing.py", "EUR\n")))
    waiting = world.run(*world.start_args(book, "--yes"), code=4)
    run = world.name
    assert "waits for answers: 2 questions" in waiting.err
    assert "Which currency?" in waiting.err
    few = world.run("answer", run, "euros", code=2)
    assert "2 answers are wanted, 1 were given" in few.err
    assert "1. Which currency?" in few.err
    assert "Which currency?" in world.run("status", run).out
    world.run("answer", run, "euros", "the team")
    world.run("resume")
    assert "asks nothing" in world.run("answer", run, "more", code=1).err
    sound(world)


def test_words_for_a_run_that_does_not_wait_for_them(world: World) -> None:
    world.start(simple())
    run = world.name
    for command in (["reject", run, "--why", "no"], ["approve", run], ["abort", run]):
        said = world.run(*command, code=1).err
        assert said.startswith("orchgit: no: "), said
        assert "completed" in said
        assert "orchgit status" in said
    assert "nothing blocks api" in world.run("retry", f"{run}/api", code=1).err
    unknown = world.run("retry", f"{run}/apo", code=2).err
    assert "has no assignment 'apo'" in unknown
    assert "assignments: api" in unknown
    before = world.log.read_bytes()
    assert "is over: completed" in world.run("resume").err
    assert world.log.read_bytes() == before


# -- while the engine lives ------------------------------------------------------------------------------


def test_the_inbox_while_the_engine_waits(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """answer, reject, approve from other processes; the engine goes on by itself, at once."""
    book = Book().ask("Which currency?")
    book.plan(piece("api", "docs-agent", ["src/api/**"], checks=["ls src/api"]))
    book.plan(piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]))
    asks = {"tool": "report", "input": {"summary": "half", "blockers": ["how many decimals?"]}}
    book.work("api", turn(asks)).work("api", turn(write("src/api/billing.py", "2\n")))
    engine = world.spawn(*world.start_args(book), "--wait")
    delays = []

    def tell(event: str, *command: str) -> None:
        done = world.run(*command)
        assert "the engine goes on" in done.out
        told = time.monotonic()
        world.wait_event(event)
        delays.append(time.monotonic() - told)
        assert engine.poll() is None

    world.wait_event("question.asked")
    run = world.name
    tell("question.answered", "answer", run, "euros")
    world.wait_event("plan.proposed")
    tell("plan.rejected", "reject", run, "--why", "the api agent")
    world.wait_event("plan.proposed", 2)
    assert world.run("approve", run, "--digest", "f" * 12, code=1)
    tell("plan.approved", "approve", run)
    world.wait_event("run.blocked")
    assert "cannot be done now" in world.run("approve", run, code=1).err
    tell("blocker.answered", "answer", run, "two")
    assert engine.wait(60) == 0, world.said(engine)
    with capsys.disabled():
        print(f"\n  inbox to log: {', '.join(f'{d * 1000:.0f} ms' for d in delays)}")
    assert max(delays) < 2.5  # by notice, not by the poll of 5 s
    assert [ev["data"].get("answers") or "" for ev in world.events("question.answered")] == [["euros"]]
    assert world.one("plan.approved")["actor"]["kind"] == "human"
    assert not list((world.runs / run / "inbox").iterdir())
    sound(world)


def test_a_waiting_engine_uses_no_cpu(world: World) -> None:
    engine = world.spawn(*world.start_args(simple()), "--wait")
    world.wait_event("plan.proposed")
    time.sleep(0.5)

    def ticks() -> int:
        fields = Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 4  # 1/100 s each: 2 % of a core
    world.run("approve")
    assert engine.wait(60) == 0


def test_abort_keeps_the_work_on_salvage_refs(world: World) -> None:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["ls docs"]),
    )
    book.work("api", turn(write("src/api/half.py", "half\n")), turn(delay_ms=30_000))
    book.work("docs", turn(write("docs/done.md", "done\n")))
    engine = world.spawn(*world.start_args(book, "--yes"))
    world.wait_event("merge.done", assignment="docs")
    half = world.root / "state" / "orchgit"
    world.wait_for(lambda: list(half.glob("*/*/api-1/*/src/api/half.py")), "the half-done file")
    told = time.monotonic()
    assert "the engine goes on" in world.run("abort", "--why", "changed my mind").out
    assert engine.wait(30) == 1, world.said(engine)
    assert time.monotonic() - told < 10
    assert world.one("abort.requested")["data"]["reason"] == "changed my mind"
    kept = world.git("rev-parse", f"refs/orchgit/salvage/{world.name}/api/1")
    assert "src/api/half.py" in world.files(kept)
    assert world.one("salvage.kept", assignment="api")["data"]["commit"] == kept
    assert world.files(world.ref(f"{world.name}/integration")) == {*FILES, "docs/done.md"}
    assert world.events("run.aborted")
    assert world.cells_left() == []
    sound(world)


def test_abort_without_an_engine(world: World) -> None:
    world.run(*world.start_args(simple()), code=4)
    done = world.run("abort", "--why", "no")
    assert world.run("status", world.name, "--json").json["phase"] == "aborted"
    assert "resume" not in done.out  # nothing is left to go on with
    assert world.run("resume", code=1).code == 1
    sound(world)


def test_a_message_that_makes_no_sense_is_dropped_and_said(world: World) -> None:
    engine = world.spawn(*world.start_args(simple()), "--wait")
    world.wait_event("plan.proposed")
    inbox = world.runs / world.name / "inbox"
    approved = {"type": "plan.approved", "data": {"version": 1, "digest": "0" * 64, "mode": "human"}}
    forged = {**approved, "actor": {"kind": "engine", "id": "x"}}
    for number, text in enumerate(["{", "[]", "3", json.dumps(forged), json.dumps({"type": "merge.done"}),
                                   json.dumps({**approved, "actor": {"kind": "human", "id": "eve"}})]):  # fmt: skip
        (inbox / f"{number}.json").write_text(text)
    world.wait_event("outcome.ignored", 6)
    assert not world.events("plan.approved")
    world.run("approve")
    assert engine.wait(60) == 0, world.said(engine)
    sound(world)
