"""The `codex` backend: the Codex CLI, unmodified, run headless (`codex exec --json`), whole inside the sandbox.

Its own sandbox cannot be made inside ours (no mount and no user namespace is to be had there), so it is switched off,
and only where ours prevents; where ours does not, its own is all there is, and stays on. Nothing of the user's or the
repository's configuration is loaded: no config.toml, no rules, no AGENTS.md. It gets one credential: CODEX_API_KEY or
OPENAI_API_KEY, else a copy of its own auth.json without the token that renews it, so that a copy can never log the
user out. Written for 0.169; what it does not know in a stream it leaves aside.

It has no limit of its own, so turns are counted here (one for every tool it has used), and tokens and money are known
when a turn of its own is over, which may be late.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchgit.agents import Cost, Job, Needs, Outcome, Probe, Usage
from orchgit.agents.budget import purse_of
from orchgit.agents.headless import (
    Failure,
    Over,
    Start,
    Turn,
    converse,
    counted,
    ending,
    environment,
    looked_at,
    named,
    price,
    report_schema,
    silence,
    taken_up,
)
from orchgit.core.events import Budget
from orchgit.core.scope import Scope

KEYS = ("CODEX_API_KEY", "OPENAI_API_KEY")  # only the first is read by `codex exec` itself
BASE_URL = "OPENAI_BASE_URL"
PASSED = ("OPENAI_ORGANIZATION", "OPENAI_PROJECT")
AUTH, SCHEMA = ".codex/auth.json", ".codex/orchgit-result.json"
INSTALL = "npm install -g @openai/codex"
LOGIN = "run `codex login`, or export CODEX_API_KEY (or OPENAI_API_KEY)"
OWN_MODEL = "default"  # what Codex takes itself: only it knows what the account may use
WAIT_S = 120.0  # for a network that is not there; by itself it waits for ever
# As TOML; JSON's strings and lists are that too.
FIXED = {
    "approval_policy": '"never"',
    "analytics.enabled": "false",
    "check_for_update_on_startup": "false",
    "project_doc_max_bytes": "0",  # AGENTS.md: the brief quotes it, as of the base
    "shell_environment_policy.exclude": '["*KEY*", "*TOKEN*", "*SECRET*"]',
    "web_search": '"disabled"',
}
RETRYING = re.compile(r"Reconnecting\.\.\. ")
ITEMS = ("command_execution", "file_change", "mcp_tool_call", "web_search")


def program() -> str:
    found = shutil.which("codex")
    return os.path.abspath(found) if found else ""


class CodexBackend:
    name = "codex"
    default_model = OWN_MODEL
    cost: Cost = "table"

    def probe(self, options: Mapping[str, str]) -> Probe:
        path = program()
        if not path:
            return Probe(False, "the Codex CLI is not installed: there is no codex on PATH", INSTALL)
        return looked_at("Codex", path, _login(), INSTALL, LOGIN)

    def needs(self, options: Mapping[str, str]) -> Needs:
        path = program()
        if not path:
            return Needs("open")
        # The program on PATH is a script that starts another one, two directories up from where the link leads.
        real = Path(os.path.realpath(path))
        return Needs(
            "open", (path, str(real), *map(str, real.parents[2:3])) if real.suffix == ".js" else (path, str(real))
        )

    def run(self, job: Job) -> Outcome:
        path = program()
        if not path:
            return Outcome("unavailable", None, "there is no codex on PATH", INSTALL)
        _, problem = _login()
        if problem:
            return Outcome("auth", None, problem, LOGIN)
        if (job.purse or purse_of(job.limits)).left().cost_micro is not None and price(job, job.model) is None:
            words = f"there is a money limit, and the price of its model ({job.model}) is unknown"
            return Outcome("error", None, words, "set a token limit instead")
        try:
            dialect = _Codex(job, path)
        except ValueError as error:
            return Outcome("error", None, f"the session to go on from cannot be read: {error}")
        return converse(job, dialect)


def _login() -> tuple[str, str]:
    """(the name of what it would work with, why there is nothing): one of them is ""."""
    for name in KEYS:
        if os.environ.get(name):
            return name, ""
    path = _auth_path()
    try:
        _auth()
    except (OSError, ValueError, KeyError, TypeError):
        return "", f"not logged in (no key in the environment, none in {path})"
    return str(path), ""


def _auth_path() -> Path:
    return Path(os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")) / "auth.json"


def _auth() -> str:
    """A copy for the cell. Without the token that renews it: the first to use that one ends it for all others."""
    kept = json.loads(_auth_path().read_text("utf-8"))
    if kept.get("tokens"):
        kept["tokens"] = {**kept["tokens"], "refresh_token": ""}
    elif not kept["OPENAI_API_KEY"]:
        raise ValueError("no credential")
    return json.dumps(kept)


class _Codex:
    """The dialect. Of one conversation its numbers add up, over all runs of the program: `seen` is what they were."""

    def __init__(self, job: Job, path: str) -> None:
        self.job, self.path = job, path
        self.price = price(job, job.model)
        kept = taken_up(job.session)
        self.conversation = str(kept.get("conversation", ""))
        self.seen: dict[str, int] = {str(key): counted(value) for key, value in kept.get("seen", {}).items()}
        self.before: dict[str, int] = {}
        self.last = ""  # its last message: the result, when the turn is over
        self.since_s: float | None = None  # since when it waits for the network

    @property
    def memory(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def start(self, prompt: str, conversation: str, left: Budget) -> Start:
        job = self.job
        if not conversation:
            self.conversation, self.seen = "", {}
        self.before, self.last, self.since_s = dict(self.seen), "", None
        settings = {**FIXED, **self.sandbox(), "developer_instructions": _toml(job.system + ending(job.results))}
        key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "")
        if os.environ.get(BASE_URL):
            url = _toml(os.environ[BASE_URL])
            named = f'{{name = "{BASE_URL}", base_url = {url}, wire_api = "responses", env_key = "{KEYS[0]}"}}'
            settings |= {"model_provider": '"orchgit"', "model_providers.orchgit": named}
        argv = [
            self.path, "exec", *(("resume", conversation) if conversation else ()), "--json", "--ignore-user-config",
            "--ignore-rules", "--skip-git-repo-check", "--output-schema", f"$HOME/{SCHEMA}",
            *(("--model", job.model) if job.model not in ("", OWN_MODEL) else ()),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")), "-",
        ]  # fmt: skip
        files = {SCHEMA: json.dumps(report_schema(job.results)), **({} if key else {AUTH: _auth()})}
        env = {**environment(PASSED), "CODEX_HOME": "$HOME/.codex", **({KEYS[0]: key} if key else {})}
        return Start(tuple(argv), prompt, env, files)

    def sandbox(self) -> dict[str, str]:
        if self.job.confined:
            return {"sandbox_mode": '"danger-full-access"'}
        mode = "workspace-write" if {"write", "edit"} & set(self.job.tools) else "read-only"
        return {
            "sandbox_mode": f'"{mode}"',
            "sandbox_workspace_write.exclude_slash_tmp": "true",
            "sandbox_workspace_write.exclude_tmpdir_env_var": "true",
        }

    def hear(self, said: Mapping[str, Any], turn: Turn) -> None:
        kind = said["type"]
        if kind == "thread.started":
            turn.started = True
            self.conversation = named(said["thread_id"])
            turn.job.record({"kind": "session", "session_id": self.conversation})
        elif kind == "error":
            self.trouble(str(said["message"]), turn)
        elif kind in ("item.started", "item.completed"):
            self.since_s = None
            self.item(said["item"], kind == "item.completed", turn)
        elif kind == "turn.completed":
            self.completed(said["usage"], turn)
        elif kind == "turn.failed":
            turn.ended = True
            turn.failure = _failure(str(said["error"]["message"]))
            turn.job.record({"kind": "turn failed", "message": turn.failure.message})

    def trouble(self, message: str, turn: Turn) -> None:
        """It asks again by itself; a refused key it asks again with too."""
        turn.job.record({"kind": "retry", "message": message[:500]})
        if not RETRYING.match(message):
            return  # the turn is about to fail with the same words
        turn.job.progress(message[:100])
        failure = _failure(message)
        if failure.status == "auth":
            raise Over("auth", failure.message, failure.hint)
        if "waiting for network" in message:
            now = turn.job.clock()
            self.since_s = now if self.since_s is None else self.since_s
            if now - self.since_s > WAIT_S:
                raise Over("unavailable", "the service cannot be reached", f"check the network, and {BASE_URL}")

    def item(self, item: Mapping[str, Any], done: bool, turn: Turn) -> None:
        kind, name = item["type"], str(item["id"])
        if kind == "agent_message" and done:
            self.last = str(item["text"])
            turn.say(self.last)
        elif kind == "error" and done:
            turn.job.record({"kind": "notice", "message": str(item["message"])[:500]})
        if kind not in ITEMS:
            return
        paths = [os.path.relpath(str(c["path"]), turn.job.workdir) for c in item.get("changes") or ()]
        about = ", ".join(paths) or str(item.get("command") or item.get("tool") or item.get("query") or "")
        if name not in turn.tools:
            given = {key: item[key] for key in ("command", "changes", "arguments", "query") if key in item}
            turn.call(name, kind, about, given)
        if not done:
            return
        turn.usage = Usage(turn.usage.calls + 1, cost_micro=None)
        text = str(item.get("aggregated_output") or item.get("error") or "")
        failed = item.get("status") in ("failed", "declined") or item.get("exit_code") not in (None, 0)
        # A patch that the sandbox stopped, perhaps halfway, says no more than that it failed.
        scope = Scope(turn.job.allow, turn.job.deny)
        stopped = kind == "file_change" and failed and not all(scope.allows(os.fsencode(path)) for path in paths)
        turn.result(name, not failed, about if stopped else text, refused=stopped or item.get("status") == "declined")

    def silent(self, code: int, stderr: str, turn: Turn) -> Failure:
        return silence(code, stderr, turn)

    def completed(self, usage: Mapping[str, Any], turn: Turn) -> None:
        turn.ended = True
        names = ("input_tokens", "cached_input_tokens", "cache_write_input_tokens", "output_tokens")
        now = {name: counted(usage.get(name)) for name in names}
        before = self.before if now["input_tokens"] >= self.before.get("input_tokens", 0) else {}
        total, cached, written, output = (max(0, now[name] - before.get(name, 0)) for name in names)
        self.seen = now
        # Its input has the cached part in it, as ours has not.
        spent = Usage(turn.usage.calls + 1, max(0, total - cached - written), output, cached, written)
        turn.usage = replace(spent, cost_micro=None if self.price is None else self.price.cost_micro(spent))
        try:
            turn.report = json.loads(self.last)
        except ValueError:
            turn.report = None  # words, and no result: it is reminded


def _failure(message: str) -> Failure:
    """It gives no codes: what went wrong is in its words, and in those of the service."""
    words = message[:500]
    if found := re.search(r'"message": ?"((?:[^"\\]|\\.)*)"', message):
        words = found[1][:500]
    if re.search(r"\b(?:401 Unauthorized|403 Forbidden)|[Ii]nvalid.api.key|log ?in again|token_expired", message):
        return Failure("auth", f"the credential was refused: {words}", LOGIN)
    if re.search(r"context window|context_length", message):
        return Failure("context", words, "give the worker a smaller assignment")
    if re.search(r"\b429 Too Many|rate.?limit|usage limit", message, re.IGNORECASE):
        return Failure("limited", words, after_s=_after_s(message))
    if re.search(r"insufficient_quota|quota exceeded|billing", message, re.IGNORECASE):
        return Failure("unavailable", words, "see the plan or the billing page of the account that is used")
    if re.search(r"model.{0,80}(?:not found|does not exist|not supported)|404 Not Found", message):
        return Failure("unavailable", words, "name another model: --model, or model in .orchestration/config.toml")
    if re.search(r"content.?policy|safety|flagged", message, re.IGNORECASE):
        return Failure("refused", words)
    if "invalid_request" in message or "400 Bad Request" in message:
        return Failure("error", words)
    return Failure("unavailable", words, passing=True)


_UNITS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1, "s": 1, "ms": 0.001}


def _after_s(message: str) -> float | None:
    """How long it asks to wait, in its words: "try again in 2 days 3 hours", "in 1.5s"."""
    found = re.search(r"try again in ((?:(?:[0-9.]+) ?(?:day|hour|minute|second|ms|s)s?,? ?)+)", message)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?) ?(day|hour|minute|second|ms|s)", found[1]) if found else []
    return sum(float(number) * _UNITS[unit] for number, unit in parts) or None


def _toml(text: str) -> str:
    """A basic string: JSON's, but for the one character that TOML wants escaped and JSON does not."""
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")
