"""What the loop does on long work, in waits, and with a budget that it shares; over the real SDK and a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchgit.agents import Limits, Usage, context, toolbox
from orchgit.agents.budget import Ledger, Purse, Spent, own_account, taken
from orchgit.agents.prices import TABLE
from orchgit.agents.session import Call, Reply, Result, Text, UserTurn, load
from orchgit.core.events import NO_LIMIT, Budget, Used
from tests.edges.test_agents import DONE, MODEL, Bench, bash, turn, write
from tests.edges.test_agents import bench as bench  # the fixture

SONNET = TABLE[MODEL]
LIMITS = Limits()
TOO_LONG = {"status": 400, "message": "prompt is too long: 200001 tokens > 200000 maximum", "times": 1}


def read(path: str) -> tuple[str, dict[str, Any]]:
    return "read", {"path": path}


# The window


def test_a_full_window_is_emptied_of_what_tools_said(bench: Bench) -> None:
    (bench.tree / "long").write_text("word\n" * 2000)
    outcome = bench.api(turn(read("long")), turn(bash("cat long")), {**DONE, "error": TOO_LONG})
    assert outcome.status == "done"
    before, after = (r["messages"] for r in bench.requests[-2:])
    results = [[b["content"] for b in m["content"]] for m in after if m["content"][0]["type"] == "tool_result"]
    assert results[0][0].endswith("characters, taken out to save room; call the tool again if you need it]")
    assert len(results[1][0]) > 9000, "the newest stays"
    assert before[-1] == after[-1]
    assert [m["role"] for m in before] == [m["role"] for m in after]
    assert bench.entries("cleared")[0]["tokens"] > 2000


def test_and_where_that_does_not_help_it_goes_on_in_a_fresh_conversation(bench: Bench) -> None:
    full = turn(bash("cat a"), text="First the file.", stop_reason="model_context_window_exceeded")
    outcome = bench.api(full, brief=f"{bench.job().brief}\nBe quick.")
    assert outcome.status == "context", "the same again and again: it is said in the end"
    assert len(bench.entries("fresh")) == 2
    told = bench.requests[1]["messages"]
    assert len(told) == 1
    said = told[0]["content"][0]["text"]
    assert said.startswith("orchgit-job: work/api/1\nDo it.\nBe quick.")
    assert "- First the file.\n- called bash(command=cat a)" in said
    # In a fresh one it may get on.
    outcome = bench.api(turn(write("a", "2\n")), {**DONE, "error": TOO_LONG})
    assert outcome.status == "done"
    assert [len(r["messages"]) for r in bench.requests] == [1, 3, 1, 3]


def test_long_work_is_kept_short_in_few_steps(bench: Bench) -> None:
    """Each time the prefix changes, the service's cache is lost: seldom, and then much."""
    (bench.tree / "long").write_text("word\n" * 1500)
    turns = [turn(bash(f"cat long # {n}")) for n in range(14)]
    outcome = bench.api(*turns, DONE, options={"long_context": "24000"})
    assert outcome.status == "done"
    steps = len(bench.entries("cleared"))
    assert 1 <= steps <= 3
    same = 0
    for one, next_ in zip(bench.requests, bench.requests[1:], strict=False):
        plain = [
            json.loads(json.dumps(r["messages"]).replace(', "cache_control": {"type": "ephemeral"}', ""))
            for r in (one, next_)
        ]
        same += plain[1][: len(plain[0])] == plain[0]
    assert same == len(bench.requests) - 1 - steps
    assert max(len(json.dumps(r["messages"])) for r in bench.requests) < 14 * 7500 * 0.8


def test_what_is_retold_is_bounded_and_says_what_it_leaves_out() -> None:
    talk: list[UserTurn | Reply] = [UserTurn((Text("brief"),))]
    for n in range(500):
        talk.append(
            Reply((Text(f"step {n} " + "x" * 5000), Call(f"c{n}", "bash", {"command": "y" * 9000})), "tool_use")
        )
        talk.append(UserTurn((Result(f"c{n}", "z" * 50_000, ok=True),)))
    told = context.retold(talk, "orchgit-job: work/api/1\n\nDo it.")
    assert len(told) < context.TOLD_CHARS + 1000
    assert told.startswith("orchgit-job: work/api/1\n\nDo it.")
    assert "step 499" in told
    assert "steps before)" in told
    assert "zzz" not in told


# Reads at the same time


def test_reads_are_answered_as_they_are_ready_and_come_in_the_models_order(bench: Bench) -> None:
    (bench.tree / "slow").write_text("a b c d e f g h\n" * 400_000)
    (bench.tree / "small").write_text("quick\n")
    slow = ("grep", {"pattern": "(a|b|c|d) (h|g|x)+nowhere", "path": "slow"})
    helper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(toolbox.__file__)), "--tools", "read,grep"], cwd=bench.tree,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    lines = [{"id": 1, "tool": slow[0], "input": slow[1]}, {"id": 2, "tool": "read", "input": {"path": "small"}}]
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    helper.stdin.flush()
    assert [json.loads(helper.stdout.readline())["id"] for _ in lines] == [2, 1]
    helper.stdin.close()
    helper.wait(10)
    outcome = bench.api(turn(slow, read("small"), bash("rm small"), read("small")), DONE)
    assert outcome.status == "done"
    assert [ok for ok, _ in bench.results()] == [True, True, True, False, True]
    assert [text[:9] for _, text in bench.results()[:2]] == ["[no match", "     1\tqu"]


# Waits


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_long_wait_comes_to_us_with_the_conversation(bench: Bench, status: int) -> None:
    outcome = bench.api(turn(write("a")), {**DONE, "error": {"status": status, "times": 1, "retry_after": "30"}})
    assert (outcome.status, outcome.retry_after_s) == ("limited", 30.0)
    assert len(bench.requests) == 2, "not asked again before"
    assert outcome.usage.calls == 1
    assert outcome.usage.unsure_tokens == 0, "the refused call has cost nothing"
    kept, turns, _ = load(outcome.session)
    assert (len(kept), turns) == (3, 1)
    again = bench.api({"text": "not again"}, DONE, session=outcome.session)
    assert again.status == "done"
    assert len(bench.requests[0]["messages"]) == 3
    assert (bench.tree / "a").exists()


def test_how_long_it_takes_is_said_in_milliseconds_seconds_or_as_a_date(bench: Bench) -> None:
    later = formatdate(time.time() + 60, usegmt=True)
    for headers, least, most in (({"retry_after_ms": "45000"}, 45, 45), ({"retry_after": later}, 40, 60)):
        outcome = bench.api({**DONE, "error": {"status": 429, **headers}})
        assert outcome.status == "limited"
        assert least <= (outcome.retry_after_s or 0) <= most
    outcome = bench.api({**DONE, "error": {"status": 429, "message": "monthly limit", "x_should_retry": "false"}})
    assert (outcome.status, len(bench.requests)) == ("unavailable", 1)


def test_an_error_of_the_service_is_no_limit(bench: Bench) -> None:
    outcome = bench.api({**DONE, "error": {"status": 500, "retry_after_ms": 1}})
    assert outcome.status == "unavailable"
    assert len(bench.requests) == 7
    assert bench.api({**DONE, "error": {"status": 500, "times": 3, "retry_after_ms": 1}}).status == "done"


def test_while_another_agent_waits_no_call_is_made(bench: Bench) -> None:
    outcome = bench.api(DONE, held_s=lambda: 12.0)
    assert (outcome.status, outcome.retry_after_s) == ("limited", 12.0)
    assert not bench.requests
    assert load(outcome.session)[0] == [UserTurn((Text(bench.job().brief),))]


# Budgets that are shared


def test_together_they_never_go_beyond() -> None:
    """Eight agents with calls of any size, each charged at most what it reserved; looked at all the time."""
    ledger = Ledger(Budget(cost_micro=5_000_000, tokens=900_000), Budget(cost_micro=2_000_000))
    seen: list[tuple[str, int]] = []

    def agent(number: int) -> None:
        rng, made = Random(number), 0
        purse = ledger.purse(Limits(), (), f"a{number % 3}")
        try:
            while True:
                reserved = purse.reserve(rng.randrange(40_000), 32_000, SONNET, 1024, lambda: None)
                used = rng.choice((1.0, rng.random()))
                purse.settle(reserved, 1, int(reserved.tokens * used), int(reserved.micro * used))
                made += 1
                for account in purse.accounts:
                    for left in (account.left_micro(), account.left_tokens()):
                        assert left is None or left >= 0
        except Spent as spent:
            seen.append((spent.status, made))

    threads = [threading.Thread(target=agent, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 8
    assert {status for status, _ in seen} <= {"run_budget", "assignment_budget"}
    run = ledger.purse(Limits(), ()).accounts[-1]
    assert (run.held_micro, run.held_tokens) == (0, 0)
    assert run.cost_micro <= 5_000_000
    assert run.tokens <= 900_000
    assert min((run.left_micro() or 0) / 400_000, (run.left_tokens() or 0) / 72_000) < 1, "and they used what there was"


def test_what_another_call_holds_is_waited_for() -> None:
    ledger = Ledger(Budget(cost_micro=400_000), NO_LIMIT)
    one, other = ledger.purse(LIMITS, ()), ledger.purse(LIMITS, ())
    first = one.reserve(1000, 32_000, SONNET, 1024, lambda: None)
    threading.Timer(0.3, one.settle, (first, 1, 100, 1000)).start()
    began = time.monotonic()
    second = other.reserve(1000, 32_000, SONNET, 1024, lambda: None)
    assert (second.output, time.monotonic() - began > 0.25) == (32_000, True)
    other.settle(second, 1, 33_000, 322_500)
    third = one.reserve(1000, 32_000, SONNET, 1024, lambda: None)
    assert third.output == (400_000 - 1000 - 322_500 - 2500) // 10, "exactly what is left"
    one.settle(third, 1, 1000 + third.output, third.micro)
    with pytest.raises(Spent, match=r"the run: \$0\.4000 of the budget of \$0\.40 are spent"):
        other.reserve(10, 32_000, SONNET, 1, lambda: None)
    ledger.raise_by(Budget(cost_micro=1_000_000))
    assert other.reserve(10, 32_000, SONNET, 1024, lambda: None).output == 32_000


def test_turns_and_seconds_have_budgets_too(bench: Bench) -> None:
    ledger = Ledger(Budget(turns=3), NO_LIMIT)
    purse = ledger.purse(LIMITS, ())
    outcome = bench.api(*[turn(write(f"{n}")) for n in range(9)], purse=purse)
    assert (outcome.status, len(bench.requests)) == ("run_budget", 3)
    assert "3 turns of the budget of 3 turns" in outcome.message
    assert outcome.session
    clock = time.monotonic()
    slow = Ledger(NO_LIMIT, Budget(seconds=1)).purse(LIMITS, (), "api")
    slow.begin(lambda: time.monotonic() - clock)
    outcome = bench.api(turn(write("a")), {**DONE, "delay_ms": 20_000}, purse=slow)
    assert outcome.status == "assignment_budget"
    assert time.monotonic() - clock < 15
    assert outcome.usage.unsure_micro > 0 or not bench.requests


def test_a_program_that_makes_its_own_calls_is_stopped_after_the_turn() -> None:
    purse = Ledger(Budget(cost_micro=100), NO_LIMIT).purse(Limits(tokens=50), (Used(1, 10, 5),))
    assert purse.left() == Budget(100, 35)
    purse.spend(Usage(1, 10, cost_micro=60))
    with pytest.raises(Spent, match="of the budget of") as over:
        purse.spend(Usage(1, 10, cost_micro=60))
    assert over.value.status == "run_budget"
    with pytest.raises(Spent, match="what this agent costs is unknown"):
        Ledger(Budget(cost_micro=100), NO_LIMIT).purse(LIMITS, ()).spend(Usage(1, 10))


# What a transcript that broke off shows


def test_what_was_taken_is_in_the_transcript_wherever_it_breaks_off(bench: Bench) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 200}
    slow = {**turn(write("b")), "usage": usage, "cut": {"times": 1}}
    outcome = bench.api(turn(write("a"), usage=usage), slow, {**DONE, "usage": usage})
    lines = [json.dumps(entry) for entry in bench.transcript]
    whole = taken(lines)
    u = outcome.usage
    assert (whole.calls, whole.cost_micro, whole.unsure_micro) == (u.calls, u.cost_micro, u.unsure_micro)
    assert u.calls == 4
    charged = [0]
    for end in range(len(lines)):
        part = taken([*lines[:end], lines[end][:-3]])  # the last line torn
        if end == 0:
            assert part.cost_micro is None
            continue
        assert part.cost_micro is not None
        under_way = bench.transcript[end - 1]["kind"] == "request"
        assert (part.unsure_tokens > charged[-1]) or not under_way
        assert part.cost_micro + part.unsure_micro <= 4 * SONNET.most_micro(40_000, 32_000)
    assert taken(['{"kind":"start"}', '{"kind":"reply"}']).cost_micro is None, "of a backend that keeps no count"


def test_a_call_that_broke_off_is_charged_at_its_worst(bench: Bench) -> None:
    purse = Purse((own_account(Limits(cost_micro=500_000)),))
    outcome = bench.api({**DONE, "delay_ms": 30_000}, purse=purse, limits=Limits(seconds=1))
    assert outcome.status == "time"
    account = purse.accounts[0]
    assert account.cost_micro == outcome.usage.unsure_micro > 320_000
    assert outcome.usage.cost_micro == 0
