"""The endings of test_headless.py once more, by the real Claude Code and the real Codex, against a server on loopback.

`python -m pytest -m whole tests/edges/test_headless_real.py`; the programs come from npm (tests/support/clis.py).
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.edges.test_headless import KEY, Desk, desk, repo
from tests.support.cli_server import CliServer
from tests.support.clis import installed

pytestmark = pytest.mark.whole
__all__ = ["desk", "repo"]  # the fixtures


def failing(status: int, message: str) -> list[dict[str, Any]]:
    return [{"error": {"status": status, "message": message}}]


SHELL = {
    "claude": {"calls": [{"tool": "Bash", "input": {"command": "echo one"}}]},
    "codex": {"calls": [{"tool": "exec_command", "input": {"cmd": "echo one"}}]},
}
CREDIT = "Your credit balance is too low to access the Anthropic API"
CLAUDE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "400": (failing(400, "bad request"), {}, "error"),
    "401": (failing(401, "invalid x-api-key"), {}, "auth"),
    "404": (failing(404, "model: nope"), {}, "unavailable"),
    "no credit": (failing(400, CREDIT), {}, "unavailable"),
    "context": (failing(400, "prompt is too long: 210000 tokens > 200000 maximum"), {}, "context"),
    "refusal": ([{"text": "no", "stop_reason": "refusal"}] * 2, {}, "refused"),
    "turns": ([SHELL["claude"]] * 5, {"turns": 2}, "turns"),
    "budget": ([{**SHELL["claude"], "usage": {"input_tokens": 100_000}}] * 3, {"cost_micro": 100_000}, "budget"),
    "tokens": ([{**SHELL["claude"], "usage": {"input_tokens": 100_000}}] * 3, {"tokens": 150_000}, "budget"),
    "no report": ([SHELL["claude"], *[{"text": "done!"}] * 5], {}, "no_report"),
    "time": ([{"delay_ms": 60_000}], {"seconds": 3}, "time"),
}
CODEX: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "400": (failing(400, "bad request"), {}, "error"),
    "401": (failing(401, "invalid key"), {}, "auth"),
    "404": (failing(404, "no such model"), {}, "unavailable"),
    "context": (failing(400, "Your input exceeds the context window of this model."), {}, "context"),
    "turns": ([SHELL["codex"]] * 5, {"turns": 2}, "turns"),
    "no report": ([SHELL["codex"], *[{"text": "done!"}] * 5], {}, "no_report"),
    "time": ([{"delay_ms": 60_000}], {"seconds": 3}, "time"),
}
CASES = [(name, *row, case) for name in ("claude", "claude-old") for case, row in CLAUDE.items()]
CASES += [("codex", *row, case) for case, row in CODEX.items()]


@pytest.mark.parametrize(("name", "turns", "limits", "status"), [case[:4] for case in CASES],
                         ids=[f"{case[0]}: {case[4]}" for case in CASES])  # fmt: skip
def test_the_real_program_ends_so_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, turns: list[dict[str, Any]], limits: dict[str, Any],
    status: str,
) -> None:  # fmt: skip
    there = installed(name)
    if isinstance(there, str):
        pytest.skip(there)
    monkeypatch.setenv("PATH", f"{there}:{os.environ['PATH']}")
    desk.name = name.partition("-")[0]
    with CliServer({"jobs": {"work/api/1": turns}, "default": {}}, key=KEY) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        outcome = desk.again(**limits)
    assert outcome.status == status, outcome
    assert outcome.message
    assert outcome.conversation in json.dumps(desk.transcript) or status == "time"
    assert KEY not in json.dumps(desk.transcript)
    assert not desk.alive()
