"""Every way the loop can end, over the real SDK, a real HTTP server and real tools; and the scripted backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchgit import process
from orchgit.agents import BACKENDS, Job, Limits, Outcome, ResultTool, Usage, backend, handin, prices
from orchgit.agents.anthropic_api import strict_schema
from orchgit.agents.scripted import load_playbook
from orchgit.core.errors import Kind, OrchgitError
from tests.support.messages_server import Invalid, MessagesServer, check_messages, check_strict

KEY = "sk-ant-test-0123456789"
MODEL = "claude-sonnet-5-5"
SCHEMA = {
    "title": "Report",
    "type": "object",
    "properties": {
        "summary": {"type": "string", "minLength": 3, "title": "Summary"},
        "title": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}], "default": None},
        "items": {"type": "array", "items": {"$ref": "#/$defs/Item", "description": "x"}, "minItems": 2},
    },
    "required": ["summary"],
    "$defs": {"Item": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}},
}


def parse_report(given: Mapping[str, Any]) -> object:
    if len(given.get("summary", "")) < 3:
        raise ValueError("summary must have at least 3 characters")
    return given


REPORT = ResultTool("report", "Deliver your report.", SCHEMA, parse_report)


def turn(*calls: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"calls": [{"tool": tool, "input": given} for tool, given in calls], **more}


def write(path: str, content: str = "x\n") -> tuple[str, dict[str, Any]]:
    return "write", {"path": path, "content": content}


def bash(command: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": command, **more}


DONE = turn(("report", {"summary": "all done"}))


@dataclass
class Bench:
    """Runs turns against a backend, and checks after each run what must hold for every run."""

    tree: Path
    books: Path
    stop: threading.Event = field(default_factory=threading.Event)
    transcript: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    children: list[process.Child] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    auth: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def launch(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> process.Child:
        whole = {"PATH": os.environ["PATH"], **(env or {})}
        self.children.append(process.start(argv, cwd=cwd or str(self.tree), env=whole))
        return self.children[-1]

    def record(self, entry: Mapping[str, Any]) -> None:
        self.transcript.append(json.loads(json.dumps(entry)))

    def job(self, **more: Any) -> Job:
        job = Job(
            role="worker",
            purpose="work",
            key="work/api/1",
            agent="api-agent",
            system="You are a worker.",
            brief="orchgit-job: work/api/1\nDo it.",
            workdir=str(self.tree),
            tools=("read", "glob", "grep", "bash", "write", "edit"),
            results=(REPORT,),
            model=MODEL,
            limits=Limits(),
            launch=self.launch,
            handin=lambda: handin.prepare(self.books, "brief"),
            stop=self.stop,
            record=self.record,
            progress=self.lines.append,
        )
        return replace(job, **more)

    def api(self, *turns: dict[str, Any], **more: Any) -> Outcome:
        self.transcript.clear()
        with MessagesServer({"jobs": {"work/api/1": list(turns)}}, key=KEY, log=self.books / "log") as server:
            os.environ["ANTHROPIC_BASE_URL"] = server.url
            outcome = backend("anthropic").run(self.job(**more))
        self.requests, self.auth, self.problems = server.requests, server.authorizations, server.problems
        self.check(outcome)
        return outcome

    def scripted(self, *turns: dict[str, Any], book: Any = None, **more: Any) -> Outcome:
        self.transcript.clear()
        path = self.books / "book.json"
        path.write_text(json.dumps(book if book is not None else {"jobs": {"work/api/1": turns}}))
        outcome = backend("scripted").run(self.job(options={"playbook": str(path)}, **more))
        self.check(outcome)
        return outcome

    def check(self, outcome: Outcome) -> None:
        assert not self.problems
        called = [call["id"] for entry in self.entries("reply") for call in entry["calls"]]
        assert called == [entry["id"] for entry in self.entries("result")], "a call without its result"
        assert (outcome.result is not None) == (outcome.status == "done")
        log = self.books / "log"
        words = [json.dumps(self.transcript), str(outcome), *self.lines, log.read_text() if log.exists() else ""]
        assert not any(KEY in text for text in words), "the key was written down"
        for child in self.children:
            assert not Path(f"/proc/{child.pid}").exists(), "a child was left"
        if not self.entries("reply") and not self.auth:
            assert outcome.usage == Usage(cost_micro=0), "no call was made, and that costs nothing"
        if self.transcript:
            assert self.transcript[0]["kind"] == "start"
            assert self.transcript[-1]["kind"] == "end"
            assert self.transcript[-1]["status"] == outcome.status

    def entries(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.transcript if entry["kind"] == kind]

    def results(self) -> list[tuple[bool, str]]:
        return [(entry["ok"], entry["text"]) for entry in self.entries("result")]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name in list(os.environ):
        if name.startswith("ANTHROPIC_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "tree").mkdir()
    (tmp_path / "books").mkdir()
    return Bench(tmp_path / "tree", tmp_path / "books")


# How it ends, over the real SDK


def test_done(bench: Bench) -> None:
    outcome = bench.api(
        turn(write("src/a.py", "a = 'ü \\n'\n"), text="I write.", thinking="Hm, what first?"),
        turn(("read", {"path": "src/a.py"})),
        DONE,
    )
    assert outcome.status == "done"
    assert outcome.result == ("report", {"summary": "all done"})
    assert (bench.tree / "src/a.py").read_text() == "a = 'ü \\n'\n"
    assert bench.lines == ["write src/a.py", "read src/a.py", "report: delivered"]
    first, *_, last = bench.requests
    assert (first["stream"], first["model"], first["max_tokens"]) == (True, MODEL, 32_000)
    assert (first["thinking"], first["cache_control"]) == ({"type": "adaptive"}, {"type": "ephemeral"})
    assert [tool["name"] for tool in first["tools"]] == ["read", "glob", "grep", "bash", "write", "edit", "report"]
    assert first["tools"][-1]["strict"] is True
    # The prefix never changes, or nothing would come from the cache; the thinking goes back, signature and all.
    assert all(request["tools"] == first["tools"] for request in bench.requests)
    assert last["messages"][: len(first["messages"])] == first["messages"]
    assert last["messages"][1]["content"][0]["thinking"] == "Hm, what first?"
    assert bench.entries("reply")[0]["thinking"][0]["thinking"] == "Hm, what first?"
    assert bench.auth == ["bearer"] * 3
    assert len(bench.children) == 1  # one helper for all calls, and none before the first


def test_the_cost_is_that_of_the_table(bench: Bench) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 200, "cache_read_input_tokens": 50_000}
    usage["cache_creation_input_tokens"] = 3000
    outcome = bench.api(turn(write("a"), usage=usage), {**DONE, "usage": usage})
    assert outcome.usage == Usage(2, 2000, 400, 100_000, 6000, cost_micro=2 * (2000 + 2000 + 5000 + 7500))


def test_no_report_after_two_reminders(bench: Bench) -> None:
    outcome = bench.api({"text": "I am done."}, {"text": "Really."}, {"text": "Yes."}, DONE)
    assert outcome.status == "no_report"
    assert len(bench.entries("reminder")) == 2
    assert len(bench.requests) == 3


def test_a_reminder_helps(bench: Bench) -> None:
    assert bench.api({"text": "I am done."}, {}, DONE).status == "done"


def test_refusal(bench: Bench) -> None:
    outcome = bench.api(turn(write("a"), text="No.", stop_reason="refusal"), DONE)
    assert outcome.status == "refused"
    assert bench.results() == [(False, "not run: the reply was a refusal")]
    assert not (bench.tree / "a").exists()


def test_a_call_that_was_cut_off_is_not_run(bench: Bench) -> None:
    assert bench.api(turn(write("a"), stop_reason="max_tokens"), DONE).status == "done"
    assert not (bench.tree / "a").exists()
    assert bench.results()[0] == (False, "not run: your reply was cut off at the output limit")


def test_cut_off_again_and_again(bench: Bench) -> None:
    outcome = bench.api(*[turn(write(f"{n}"), stop_reason="max_tokens") for n in range(5)])
    assert outcome.status == "error"
    assert "cut off at the output limit" in outcome.message
    assert len(bench.requests) == 3


def test_context_window(bench: Bench) -> None:
    assert bench.api({"text": "long", "stop_reason": "model_context_window_exceeded"}).status == "context"
    error = {"status": 400, "message": "prompt is too long: 1000001 tokens > 1000000 maximum"}
    assert bench.api(turn(write("a")), {"error": error}).status == "context"


def test_pause_turn_is_sent_back(bench: Bench) -> None:
    assert bench.api({"text": "Wait.", "stop_reason": "pause_turn"}, DONE).status == "done"
    assert [message["role"] for message in bench.requests[1]["messages"]] == ["user", "assistant"]
    assert not bench.entries("reminder")


def test_turn_limit(bench: Bench) -> None:
    outcome = bench.api(*[turn(write(f"{n}")) for n in range(9)], limits=Limits(turns=3))
    assert outcome.status == "turns"
    assert len(bench.requests) == 3
    assert bench.api(DONE, limits=Limits(turns=0)).status == "turns"
    assert not bench.requests


def test_money_limit_is_never_passed(bench: Bench) -> None:
    usage = {"input_tokens": 10_000, "output_tokens": 1000}  # 30,000 micro-dollars
    limit = 100_000
    outcome = bench.api(*[turn(write(f"{n}"), usage=usage) for n in range(9)], limits=Limits(cost_micro=limit))
    assert outcome.status == "budget"
    assert outcome.usage.cost_micro is not None
    assert 60_000 <= outcome.usage.cost_micro <= limit
    # Of what was left, each call was allowed only so much output as could still be paid for.
    for before, request in enumerate(bench.requests):
        assert before * 30_000 + request["max_tokens"] * 10 <= limit
    assert bench.api(DONE, limits=Limits(cost_micro=5)).status == "budget"
    assert not bench.requests


def test_token_limit(bench: Bench) -> None:
    usage = {"input_tokens": 100, "output_tokens": 1000, "cache_read_input_tokens": 8900}
    turns = [turn(write(f"{n}"), usage=usage) for n in range(9)]
    outcome = bench.api(*turns, limits=Limits(tokens=45_000))
    assert outcome.status == "budget"
    assert 20_000 <= outcome.usage.calls * 10_000 <= 45_000


def test_unknown_price_is_not_zero(bench: Bench) -> None:
    outcome = bench.api(turn(write("a")), DONE, model="claude-next-9")
    assert outcome.status == "done"
    assert outcome.usage.cost_micro is None
    outcome = bench.api(DONE, model="claude-next-9", limits=Limits(cost_micro=1_000_000))
    assert outcome.status == "error"
    assert "price of claude-next-9 is unknown" in outcome.message
    assert not bench.requests
    price = json.dumps({"claude-next-9": {"input": 1, "output": 1, "cache_read": 1, "cache_write": 1}})
    outcome = bench.api(DONE, model="claude-next-9", options={"prices": price}, limits=Limits(cost_micro=100))
    assert (outcome.status, outcome.usage.cost_micro) == ("done", 1)
    assert bench.api(DONE, options={"prices": "{"}).status == "error"


def test_time_limit_while_the_service_is_silent(bench: Bench) -> None:
    began = time.monotonic()
    outcome = bench.api({**DONE, "delay_ms": 5000}, limits=Limits(seconds=1))
    assert outcome.status == "time"
    # Nobody knows what the call that was left has cost: it is taken at its worst.
    assert outcome.usage.cost_micro == 0
    assert outcome.usage.unsure_micro > 32_000 * 10
    assert time.monotonic() - began < 4


def test_time_limit_in_a_tool(bench: Bench) -> None:
    outcome = bench.api(turn(bash("sleep 30"), write("never")), limits=Limits(seconds=1))
    assert outcome.status == "time"
    assert [ok for ok, _ in bench.results()] == [False, False]
    assert not (bench.tree / "never").exists()


def test_stop_while_the_service_is_silent(bench: Bench) -> None:
    threading.Timer(0.5, bench.stop.set).start()
    assert bench.api({**DONE, "delay_ms": 5000}).status == "stopped"


def test_stop_in_a_tool(bench: Bench) -> None:
    threading.Timer(1.0, bench.stop.set).start()
    outcome = bench.api(turn(bash("sleep 30"), write("never")), DONE)
    assert outcome.status == "stopped"
    assert len(bench.results()) == 2
    assert not (bench.tree / "never").exists()


def test_no_progress(bench: Bench) -> None:
    outcome = bench.api(*[turn(("read", {"path": "none"}))] * 9)
    assert outcome.status == "error"
    assert outcome.message == "no progress: read none, 3 times with the same result"
    assert len(bench.requests) == 3


def test_the_same_call_with_another_result_is_progress(bench: Bench) -> None:
    same = turn(bash("echo x >>n; wc -l n"))
    assert bench.api(same, same, same, same, DONE).status == "done"


# The service


def test_no_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    outcome = bench.api(DONE)
    assert outcome.status == "auth"
    assert "ANTHROPIC_API_KEY" in outcome.hint


def test_a_refused_key_is_not_repeated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "sk-ant-wrong-9876543210"
    monkeypatch.setenv("ANTHROPIC_API_KEY", wrong)
    outcome = bench.api(DONE)
    assert outcome.status == "auth"
    assert "invalid x-api-key: [key]" in outcome.message
    assert "ANTHROPIC_API_KEY" in outcome.hint
    assert wrong not in str(outcome) + json.dumps(bench.transcript)
    assert len(bench.auth) == 1  # not tried again


def test_auth_token_and_x_api_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.api(DONE, options={"auth": "x-api-key"}).status == "done"
    assert bench.auth == ["x-api-key"]
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    assert bench.api(DONE).status == "done"
    assert bench.auth == ["bearer"]


def test_unknown_model(bench: Bench) -> None:
    outcome = bench.api(DONE, model="gpt-9")
    assert outcome.status == "unavailable"
    assert "gpt-9" in outcome.message
    assert "another model" in outcome.hint


def test_overloaded_twice_then_fine(bench: Bench) -> None:
    assert bench.api({**DONE, "error": {"status": 529, "times": 2, "retry_after_ms": 10}}).status == "done"
    assert len(bench.requests) == 3


def test_overloaded_for_ever(bench: Bench) -> None:
    outcome = bench.api({**DONE, "error": {"status": 529, "retry_after_ms": 10}})
    assert outcome.status == "limited"
    assert outcome.retry_after_s is None  # it was believed six times
    assert "(HTTP 529, req_test), after 6 retries" in outcome.message
    assert outcome.usage == Usage(cost_micro=0)
    assert len(bench.requests) == 7


def test_nobody_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchgit.agents.loop.SHORT_WAITS", 1)
    outcome = backend("anthropic").run(bench.job())
    assert outcome.status == "unavailable"
    assert "ANTHROPIC_BASE_URL" in outcome.hint


def test_any_other_error_says_what_it_was(bench: Bench) -> None:
    outcome = bench.api({"error": {"status": 400, "message": "thinking.type: adaptive is not supported"}})
    assert outcome.status == "error"
    assert "adaptive is not supported" in outcome.message
    assert 'thinking = "off"' in outcome.hint
    assert bench.api(DONE, options={"thinking": "off", "cache": "off", "strict": "off"}).status == "done"
    assert not {"thinking", "cache_control"} & set(bench.requests[0])
    assert bench.requests[0]["tools"][-1] == {
        "name": "report",
        "description": REPORT.description,
        "input_schema": SCHEMA,
    }


@pytest.mark.parametrize(
    "trouble",
    [
        {"cut": {"times": 2}},
        {"cut": {"times": 2, "clean": True}},
        {"error": {"status": 529, "times": 2, "in_stream": True}},
    ],
)
def test_cut_in_the_middle_then_fine(bench: Bench, trouble: dict[str, Any]) -> None:
    half = turn(write("a", "once\n"), text="I write " + "word " * 40, **trouble)
    outcome = bench.api(half, turn(bash("cat a; echo >>a")), DONE)
    assert outcome.status == "done"
    assert (bench.tree / "a").read_text() == "once\n\n"  # run once, from the whole reply
    assert len(bench.entries("retry")) == 2
    assert outcome.usage.calls == 5  # the broken ones were paid for too


def test_cut_for_ever(bench: Bench) -> None:
    outcome = bench.api({**DONE, "cut": {"times": 99}})
    assert outcome.status == "unavailable"
    assert len(bench.requests) == 3


# Calls


def test_a_bad_result_is_corrected(bench: Bench) -> None:
    outcome = bench.api(turn(("report", {"summary": ""})), DONE)
    assert outcome.status == "done"
    assert bench.results()[0] == (
        False,
        "report was not accepted: summary must have at least 3 characters",
    )


def test_a_bad_result_too_often(bench: Bench) -> None:
    outcome = bench.api(*[turn(("report", {"summary": "x"}))] * 9)
    assert outcome.status == "error"
    assert len(bench.requests) == 6
    assert "refused 6 times, at last: summary must" in outcome.message


def test_parallel_calls_in_the_models_order(bench: Bench) -> None:
    outcome = bench.api(
        turn(write("a", "1"), ("read", {"path": "a"}), bash("cat a; rm a"), ("read", {"path": "a"})),
        turn(write("b"), ("report", {"summary": "done"}), write("c"), ("report", {"summary": "again"})),
    )
    assert outcome.result == ("report", {"summary": "done"})
    oks = [ok for ok, _ in bench.results()]
    assert oks == [True, True, True, False, True, True, False, False]
    told = [block["is_error"] for block in bench.requests[1]["messages"][-1]["content"]]
    assert told == [False, False, False, True]  # the model is told which of them failed
    assert (bench.tree / "b").exists()
    assert not (bench.tree / "c").exists()  # after the result nothing is run


def test_unknown_tool(bench: Bench) -> None:
    assert bench.api(turn(("fly", {})), DONE).status == "done"
    ok, text = bench.results()[0]
    assert not ok
    assert text.startswith("there is no tool 'fly'; you have read,")


@pytest.mark.parametrize("tools", [("read", "glob", "grep", "bash"), ("read", "write", "edit")])
def test_a_reviewer_cannot_write_whatever_its_job_says(bench: Bench, tools: tuple[str, ...]) -> None:
    (bench.tree / "a").write_text("as it was")
    edit = ("edit", {"path": "a", "old_string": "as", "new_string": "x"})
    calls = turn(write("new"), edit, ("read", {"path": "a"}))
    assert bench.api(calls, DONE, role="reviewer", purpose="review", tools=tools).status == "done"
    first, second, third, _ = bench.entries("result")
    assert first["text"] == "write is not available to your role"
    assert (first["refused"], second["refused"], "refused" in third) == (True, True, False)
    assert (bench.tree / "a").read_text() == "as it was"
    assert not (bench.tree / "new").exists()
    assert "write" not in [tool["name"] for tool in bench.requests[0]["tools"]]


def test_lost_tools_are_started_anew(bench: Bench) -> None:
    kill = bash("kill -9 $PPID; sleep 5")
    assert bench.api(turn(kill), turn(write("a")), DONE).status == "done"
    assert bench.results()[0][1].startswith("bash did not answer (it ended)")
    assert (bench.tree / "a").exists()
    outcome = bench.api(*[turn(kill, write(f"{n}")) for n in range(9)])
    assert (outcome.status, outcome.message) == ("error", "the tool helper was lost 4 times")


def test_tools_that_answer_nonsense_or_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = 'for n in 1 2 3; do echo "{\\"id\\":99,\\"ok\\":true,\\"text\\":\\"no\\"}"; done >/proc/$PPID/fd/1'
    assert bench.api(turn(bash(forged)), DONE).status == "done"
    assert bench.results()[0] == (True, "[exit code 0]")
    assert bench.api(turn(bash("echo nonsense >/proc/$PPID/fd/1; sleep 1")), DONE).status == "done"
    assert bench.results()[0][0] is False
    monkeypatch.setattr("orchgit.agents.loop.TOOL_S", 1)
    slow = turn(("grep", {"pattern": "(a+)+$", "path": "evil"}))
    (bench.tree / "evil").write_text("a" * 40 + "b")
    assert bench.api(slow, turn(write("b")), DONE).status == "done"
    assert bench.results()[:2] == [
        (False, "grep did not end within 1 s and was stopped"),
        (True, "wrote b, 2 bytes"),
    ]


def test_a_helper_that_cannot_start(bench: Bench) -> None:
    def launch(argv: Sequence[str], **more: Any) -> process.Child:
        raise FileNotFoundError(2, "no such program", "bwrap")

    outcome = bench.api(turn(write("a")), launch=launch)
    assert outcome.status == "error"
    assert "could not be started" in outcome.message


def test_the_key_is_nowhere_in_the_tools(bench: Bench) -> None:
    outcome = bench.api(turn(bash("env; cat /proc/$PPID/environ | tr '\\0' '\\n'")), DONE)
    assert outcome.status == "done"
    assert "ANTHROPIC" not in json.dumps(bench.results())


# The scripted backend


def test_scripted_drives_the_same_tools(bench: Bench) -> None:
    outcome = bench.scripted(turn(write("src/a.py"), text="I write."), turn(bash("cat src/a.py")), DONE)
    assert outcome.status == "done"
    assert outcome.usage == Usage(calls=0, cost_micro=0)
    assert (bench.tree / "src/a.py").read_text() == "x\n"
    assert bench.results()[1] == (True, "x\n[exit code 0]")
    assert bench.entries("start")[0]["model"] == "scripted"


def test_scripted_and_api_leave_the_same_transcript(bench: Bench) -> None:
    turns = [turn(write("a", "1\n"), text="Go."), turn(("report", {"summary": ""})), {"text": "Hm."}, DONE]
    bench.api(*turns)
    api = [(e["kind"], e.get("text"), e.get("ok"), e.get("stop")) for e in bench.transcript]
    bench.scripted(*turns)
    assert [(e["kind"], e.get("text"), e.get("ok"), e.get("stop")) for e in bench.transcript] == api


def test_scripted_looks_up_key_then_purpose(bench: Bench) -> None:
    assert bench.scripted(book={"default": {"work": [DONE]}}).status == "done"
    assert bench.scripted(book={"jobs": {"work/api/1": []}, "default": {"work": [DONE]}}).status == "no_report"
    outcome = bench.scripted(book={"jobs": {"work/api/2": [DONE]}, "default": {"plan": [DONE]}})
    assert outcome.status == "unavailable"
    assert "jobs/work/api/1" in outcome.message
    assert "book.json" in outcome.message


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"stop_reason": "refusal"}, "refused"),
        ({"stop_reason": "model_context_window_exceeded"}, "context"),
        ({"delay_ms": 60_000}, "time"),
    ],
)
def test_scripted_endings(bench: Bench, more: dict[str, Any], status: str) -> None:
    assert bench.scripted({**DONE, **more}, limits=Limits(seconds=1)).status == status


def test_scripted_stop(bench: Bench) -> None:
    threading.Timer(0.2, bench.stop.set).start()
    began = time.monotonic()
    assert bench.scripted({**DONE, "delay_ms": 60_000}).status == "stopped"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "book",
    [
        [],
        {"job": {}},
        {"jobs": []},
        {"jobs": {"a": {}}},
        {"jobs": {"a": [{"txt": "x"}]}},
        {"jobs": {"a": [{"calls": [{"tool": "read"}]}]}},
        {"jobs": {"a": [{"calls": [{"tool": "read", "input": "x"}]}]}},
        {"jobs": {"a": [{"stop_reason": "tired"}]}},
        {"jobs": {"a": [{"delay_ms": "1"}]}},
        {"jobs": {"a": [{"calls": "x"}]}},
    ],
)
def test_scripted_refuses_what_is_not_a_playbook(bench: Bench, book: Any) -> None:
    outcome = bench.scripted(book=book)
    assert outcome.status == "error"
    assert "cannot be used" in outcome.message
    assert not backend("scripted").probe({"playbook": str(bench.books / "book.json")}).found


# Around it


def test_probes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = backend("anthropic").probe({})
    assert (found.found, found.detail) == (True, "key from ANTHROPIC_API_KEY by ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    missing = backend("anthropic").probe({})
    assert not missing.found
    assert "export ANTHROPIC_API_KEY" in missing.hint
    (bench.books / "ok.json").write_text('{"jobs": {}}')
    assert backend("scripted").probe({"playbook": str(bench.books / "ok.json")}).found
    assert not backend("scripted").probe({"playbook": str(bench.books / "none.json")}).found
    assert not backend("scripted").probe({}).found


def test_the_table_of_backends() -> None:
    assert all(backend(name).name == name for name in BACKENDS)
    with pytest.raises(OrchgitError) as caught:
        backend("gpt")
    assert caught.value.kind is Kind.USAGE
    assert "scripted" in caught.value.hint


def test_nothing_imports_the_sdk_before_it_is_needed() -> None:
    code = (
        "import sys; from orchgit.agents import BACKENDS, backend; [backend(n).probe({}) for n in BACKENDS];"
        "print([m for m in ('anthropic', 'httpx2', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_prices() -> None:
    million = Usage(1, 1_000_000, 1_000_000, 1_000_000, 1_000_000)
    assert prices.cost_micro("claude-opus-4-5-20251101", million) == 5_000_000 + 25_000_000 + 500_000 + 6_250_000
    assert prices.cost_micro("claude-haiku-5-5", Usage(1, 100_000, 0)) == 10_000
    assert prices.cost_micro("claude-haiku-5-5", Usage(1, 90_000, 0, 20_000)) == 45_000 + 1_000  # all of it
    assert prices.cost_micro("claude-sonnet-5-5", Usage(1, 1, 0)) == 2
    assert prices.cost_micro("claude-haiku-5-5", Usage(1, 1, 0)) == 1  # rounded up, never to nothing
    assert prices.cost_micro("mystery", million) is None
    assert prices.cost_micro("mystery", million, {"mystery": prices.Price(1, 1, 1, 1)}) == 4


def test_strict_schema() -> None:
    strict = strict_schema(SCHEMA)
    check_strict(strict, "report")
    with pytest.raises(Invalid):
        check_strict(SCHEMA, "report")
    assert set(strict["properties"]) == {"summary", "title", "items"}  # a property may be called like a keyword
    assert strict["properties"]["summary"] == {"type": "string", "description": "{minLength: 3}"}
    assert strict["properties"]["items"]["items"] == {"$ref": "#/$defs/Item"}
    assert strict["$defs"]["Item"]["additionalProperties"] is False
    assert strict["required"] == ["summary"]


def test_the_server_is_strict() -> None:
    """Or the loop's tests would prove nothing."""
    user = {"role": "user", "content": [{"type": "text", "text": "x"}]}
    use = {"type": "tool_use", "id": "t1", "name": "read", "input": {}}
    asked = {"role": "assistant", "content": [use]}
    answer = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
    check_messages([user, asked, {"role": "user", "content": [answer]}])
    for bad in (
        [user, asked],
        [user, asked, user],
        [user, user],
        [asked],
        [user, asked, {"role": "user", "content": [user["content"][0], answer]}],
        [user, {"role": "assistant", "content": []}],
        [user, {"role": "assistant", "content": [{"type": "text", "text": ""}]}],
        [user, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": ""}]}],
    ):
        with pytest.raises(Invalid):
            check_messages(bad)  # type: ignore[arg-type]


def test_the_server_runs_by_itself(bench: Bench) -> None:
    book = bench.books / "book.json"
    book.write_text(json.dumps({"jobs": {"work/api/1": [turn(write("a")), DONE]}}))
    load_playbook(book)
    argv = [sys.executable, "-m", "tests.support.messages_server", "--playbook", str(book)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        assert server.stdout is not None
        os.environ["ANTHROPIC_BASE_URL"] = server.stdout.readline().strip()
        try:
            assert backend("anthropic").run(bench.job()).status == "done"
        finally:
            server.terminate()
