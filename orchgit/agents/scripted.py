"""The `scripted` backend: replies from a file instead of a model; everything else is real.

It drives the same loop and the same tools in the same sandbox. For the demo, the tests and the docs; it must
always be shown as what it is ("scripted; no model was called"), and nothing may ever fall back to it.

The playbook is a JSON file, named by the option `playbook` (an absolute path). Example:

    {"about": "what it shows, for a reader",
     "jobs": {"work/api/1": [
         {"text": "I add it.", "calls": [{"tool": "write", "input": {"path": "a.py", "content": "a = 1"}}]},
         {"calls": [{"tool": "report", "input": {"summary": "..."}}]}]},
     "default": {"verdict": [{"calls": [{"tool": "give_verdict", "input": {"decision": "accept"}}]}],
                 "review": [{"calls": [{"tool": "report_review", "input": {"summary": "clean"}}]}],
                 "synthesis": [{"calls": [{"tool": "write_synthesis", "input": {"summary": "built"}}]}]}}

The keys: plan/1 (propose_plan or ask_questions), work/ASSIGNMENT/TRY (report), verdict/ASSIGNMENT/TRY (give_verdict),
review/REVIEWER/ROUND (report_review), synthesis/1 (write_synthesis). What each result takes is in orchgit/wire.py.

A job is looked up by its key (`job.key`), then by its purpose under `default`. Its turn is the number of
replies in the conversation so far, so a job that starts again starts at the top, and the same file gives the
same run. When the turns are used up, the agent ends its turn without a word. Of one turn: `text`; `calls`
(`tool`, `input`); `delay_ms` (ended early by a stop); `stop_reason` (refusal, max_tokens, pause_turn,
model_context_window_exceeded; else it follows from the calls). tests/support/messages_server.py plays the
same file to the real SDK, and knows more: `error`, `cut`, `usage`, `thinking`; they are ignored here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchgit.agents import Cost, Job, Needs, Outcome, Probe, Usage
from orchgit.agents.loop import NO_CALL, POLL_S, Allowance, Interrupted, Tool, run_loop
from orchgit.agents.prices import FREE, Price
from orchgit.agents.session import Call, Conversation, Reply, Stop, Text

LABEL = "scripted"
TURN_KEYS = {"text", "thinking", "calls", "delay_ms", "stop_reason", "error", "cut", "usage"}
STOPS: dict[str, Stop] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "max_tokens": "max_tokens",
    "pause_turn": "pause_turn",
    "model_context_window_exceeded": "context",
}


def load_playbook(path: Path) -> dict[str, Any]:
    """The content, checked. OSError: it cannot be read; ValueError, with words: it is not a playbook."""
    book = json.loads(path.read_text("utf-8"))
    if not isinstance(book, dict) or set(book) - {"about", "jobs", "default"}:
        raise ValueError("a playbook is an object with about, jobs and default")
    book = {"jobs": {}, "default": {}, **book}
    for part in ("jobs", "default"):
        if not isinstance(book[part], dict):
            raise ValueError(f"{part} must be an object: key -> list of turns")
        for key, turns in book[part].items():
            if not isinstance(turns, list):
                raise ValueError(f"{part}/{key} must be a list of turns")
            for number, turn in enumerate(turns):
                _check_turn(f"{part}/{key}, turn {number}", turn)
    return book


def _check_turn(where: str, turn: Any) -> None:
    if not isinstance(turn, dict) or set(turn) - TURN_KEYS:
        raise ValueError(f"{where}: a turn is an object with {', '.join(sorted(TURN_KEYS))}")
    if not isinstance(turn.get("text", ""), str) or type(turn.get("delay_ms", 0)) is not int:
        raise ValueError(f"{where}: text must be a string, delay_ms a whole number")
    if turn.get("stop_reason", "end_turn") not in STOPS:
        raise ValueError(f"{where}: stop_reason is one of {', '.join(STOPS)}")
    calls = turn.get("calls", [])
    for call in calls if isinstance(calls, list) else [None]:
        if not isinstance(call, dict) or set(call) != {"tool", "input"} or not isinstance(call["input"], dict):
            raise ValueError(f"{where}: calls is a list of objects with tool and input")


def turns_of(book: Mapping[str, Any], key: str, purpose: str) -> list[dict[str, Any]] | None:
    """None: the playbook does not know this job."""
    found = book["jobs"].get(key, book["default"].get(purpose))
    return None if found is None else list(found)


class ScriptedBackend:
    name = "scripted"
    default_model = LABEL
    cost: Cost = "free"

    def probe(self, options: Mapping[str, str]) -> Probe:
        hint = "name one: --playbook FILE, ORCHGIT_PLAYBOOK, or playbook in [scripted] of .orchestration/config.toml"
        if not options.get("playbook"):
            return Probe(False, "no playbook is named; there is no model behind this backend", hint)
        try:
            load_playbook(Path(options["playbook"]))
        except (OSError, ValueError) as error:
            return Probe(False, f"the playbook cannot be used: {error}", hint)
        return Probe(True, f"scripted, no model: {options['playbook']}")

    def needs(self, options: Mapping[str, str]) -> Needs:
        return Needs()

    def run(self, job: Job) -> Outcome:
        path = Path(job.options.get("playbook", ""))
        if not path.is_absolute():
            return _error("the option playbook must be the absolute path of a playbook")
        try:
            turns = turns_of(load_playbook(path), job.key, job.purpose)
        except (OSError, ValueError) as error:
            return _error(f"the playbook {path} cannot be used: {error}")
        if turns is None:
            words = f"the playbook {path} has neither jobs/{job.key} nor default/{job.purpose}"
            return Outcome("unavailable", None, words, f'add "{job.key}" to its jobs', NO_CALL)
        return run_loop(replace(job, model=LABEL), ScriptedModel(turns))


def _error(message: str, hint: str = "") -> Outcome:
    return Outcome("error", None, message, hint, NO_CALL)


class ScriptedModel:
    """The `Model` of loop.py that does not think."""

    max_output = 32_000
    long_context = 1 << 40
    # Not an unknown price: no model was called, and that is known to cost nothing. The usage says zero calls.
    price: Price | None = FREE

    def __init__(self, turns: Sequence[Mapping[str, Any]]) -> None:
        self.turns = turns

    def reply(self, conversation: Conversation, tools: Sequence[Tool], job: Job, allowance: Allowance) -> Reply:
        number = sum(isinstance(turn, Reply) for turn in conversation)
        if number >= len(self.turns):
            return Reply((), "end_turn")
        turn = self.turns[number]
        wanted_s = turn.get("delay_ms", 0) / 1000
        until_s = time.monotonic() + wanted_s
        while (left_s := until_s - time.monotonic()) > 0:
            if allowance.over():
                raise Interrupted(Usage())
            job.stop.wait(min(left_s, POLL_S))
        calls = [
            Call(f"call_{number}_{index}", call["tool"], call["input"])
            for index, call in enumerate(turn.get("calls", []))
        ]
        text = [Text(turn["text"])] if turn.get("text") else []
        stop = STOPS[turn.get("stop_reason", "tool_use" if calls else "end_turn")]
        return Reply((*text, *calls), stop)
