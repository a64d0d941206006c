"""The `claude` backend: Claude Code, unmodified, run headless (`claude -p`), whole inside the sandbox.

Its own rules (nothing is asked; edits only in the scope) are a first word to an honest agent and no boundary: none of
them sees through a shell. Nothing of the user's or the repository's configuration is loaded: no settings, no hooks, no
CLAUDE.md, no MCP server. It gets one credential: a variable of KEYS, else a copy of its own credential file without the
token that renews it, so that a copy can never log the user out. Written for 2.1.197 to 2.1.330; what it does not
know in a stream it leaves aside.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchgit.agents import Cost, Job, Needs, Outcome, Probe, Usage
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
    mcp_server,
    named,
    price,
    report_schema,
    silence,
    taken_up,
)
from orchgit.core.events import Budget

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
PASSED = ("ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS")
QUIET = dict.fromkeys(
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING",
     "CLAUDE_CODE_DISABLE_AUTO_MEMORY", "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"),
    "1",
)  # fmt: skip
MCP = "orchgit"
RETRIES = "5"  # of one call, by itself; its own 10 take minutes, with a key that is refused as well
CREDENTIALS, LOCAL = ".credentials.json", "~/.claude/local"
INSTALL = "npm install -g @anthropic-ai/claude-code, or https://claude.com/claude-code"
LOGIN = (
    "run `claude` once and log in, or `claude setup-token` and export CLAUDE_CODE_OAUTH_TOKEN, or export "
    "ANTHROPIC_API_KEY"
)
TOOLS = {"bash": "Bash", "read": "Read", "glob": "Glob", "grep": "Grep", "write": "Write", "edit": "Edit"}


def program() -> str:
    """On PATH, where its own installer of old put it, or in the Python SDK; "" when there is none."""
    found = shutil.which("claude") or shutil.which(os.path.expanduser(f"{LOCAL}/claude"))
    if found is None and (package := find_spec("claude_agent_sdk")) and package.submodule_search_locations:
        bundled = Path(next(iter(package.submodule_search_locations)), "_bundled", "claude")
        found = str(bundled) if os.access(bundled, os.X_OK) else None
    return os.path.abspath(found) if found else ""


class ClaudeBackend:
    name = "claude"
    default_model = "claude-sonnet-5-5"
    cost: Cost = "reported"

    def probe(self, options: Mapping[str, str]) -> Probe:
        path = program()
        if not path:
            return Probe(False, "Claude Code is not installed: there is no claude on PATH", INSTALL)
        return looked_at("Claude Code", path, _login(), INSTALL, LOGIN)

    def needs(self, options: Mapping[str, str]) -> Needs:
        path, local = program(), os.path.realpath(os.path.expanduser(LOCAL))
        if not path:
            return Needs("open")
        real = os.path.realpath(path)
        # What lies beside ~/.claude/local is hidden: its sessions, its credential.
        return Needs("open", (path, local if real.startswith(local + "/") else real))

    def run(self, job: Job) -> Outcome:
        path = program()
        if not path:
            return Outcome("unavailable", None, "there is no claude on PATH", INSTALL)
        _, problem = _login()
        if problem:
            return Outcome("auth", None, problem, LOGIN)
        try:
            dialect = _Claude(job, path)
        except ValueError as error:
            return Outcome("error", None, f"the session to go on from cannot be read: {error}")
        return converse(job, dialect)


def _login() -> tuple[str, str]:
    """(the name of what it would work with, why there is nothing): one of them is ""."""
    for name in KEYS:
        if os.environ.get(name):
            return name, ""
    path = _credentials_path()
    try:
        kept = json.loads(path.read_text("utf-8"))["claudeAiOauth"]
        token, until_ms = str(kept["accessToken"]), int(kept.get("expiresAt") or 0)
    except (OSError, ValueError, KeyError, TypeError):
        return "", f"not logged in in a way that can be handed into a sandbox (no key in the environment, no {path})"
    if not token or (until_ms and until_ms / 1000 < time.time() + 60):
        return "", f"the login in {path} has run out; running `claude` once renews it"
    return str(path), ""


def _credentials_path() -> Path:
    return Path(os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")) / CREDENTIALS


def _credentials() -> str:
    """A copy for the cell. Without the token that renews it: the first to use that one ends it for all others."""
    kept = json.loads(_credentials_path().read_text("utf-8"))["claudeAiOauth"]
    return json.dumps({"claudeAiOauth": {key: value for key, value in kept.items() if key != "refreshToken"}})


class _Claude:
    """The dialect. Of one conversation its numbers add up, over all runs of the program: `seen` is what they were."""

    def __init__(self, job: Job, path: str) -> None:
        self.job, self.path = job, path
        self.price = price(job, job.model)
        kept = taken_up(job.session)
        self.conversation = str(kept.get("conversation", ""))
        self.seen: dict[str, int] = {str(key): counted(value) for key, value in kept.get("seen", {}).items()}
        self.before: dict[str, int] = {}
        self.refused: set[str] = set()
        self.resets_s = 0.0  # when the account's limit ends: seconds since 1970, as its service says
        self.messages: dict[str, Usage] = {}

    @property
    def memory(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def start(self, prompt: str, conversation: str, left: Budget) -> Start:
        job = self.job
        self.before, self.messages, self.refused = dict(self.seen), {}, set()
        if not conversation:
            self.conversation, self.before, self.seen = str(uuid.uuid4()), {}, {}
        tools = [TOOLS[name] for name in job.tools if name in TOOLS]
        argv = [
            self.path, "-p", "--output-format", "stream-json", "--verbose",
            "--setting-sources", "", "--strict-mcp-config", "--disable-slash-commands",
            "--tools", ",".join(tools), "--settings", json.dumps({"permissions": self.permissions(tools)}),
            "--json-schema", json.dumps(report_schema(job.results)),
            "--append-system-prompt", job.system + ending(job.results),
            "--max-turns", str(left.turns),
            *(("--mcp-config", json.dumps({"mcpServers": {MCP: _stdio(mcp_server())}})) if mcp_server() else ()),
            *(("--model", job.model) if job.model else ()),
            *(("--resume", conversation) if conversation else ("--session-id", self.conversation)),
        ]  # fmt: skip
        if left.cost_micro is not None:
            argv += ["--max-budget-usd", f"{max(1, left.cost_micro) / 1e6:.6f}"]
        env = {**QUIET, "CLAUDE_CODE_MAX_RETRIES": RETRIES, "CLAUDE_CODE_TMPDIR": "$TMPDIR", **environment(PASSED)}
        key = next((name for name in KEYS if os.environ.get(name)), "")
        if key:
            return Start(tuple(argv), prompt, {**env, key: os.environ[key]})
        return Start(tuple(argv), prompt, env, {f".claude/{CREDENTIALS}": _credentials()})

    def permissions(self, tools: list[str]) -> dict[str, Any]:
        """Nothing is asked: what is not allowed here is denied at once. `Edit` rules hold for Write too."""
        allow = [tool for tool in tools if tool not in ("Edit", "Write")]
        allow += [f"mcp__{MCP}"] * bool(mcp_server())
        deny: list[str] = []
        if {"Edit", "Write"} & set(tools):
            rules = [_rule(self.job.workdir, pattern) for pattern in self.job.allow]
            # A pattern that its rules could read otherwise than we do must not keep honest work out.
            allow += [rule for rule in rules if rule] if all(rules) and rules else ["Edit"]
            deny += [rule for pattern in self.job.deny if (rule := _rule(self.job.workdir, pattern))]
        return {"defaultMode": "dontAsk", "allow": allow, "deny": [*deny, "WebFetch", "WebSearch"]}

    def hear(self, said: Mapping[str, Any], turn: Turn) -> None:
        match said["type"], said.get("subtype"):
            case "system", "init":
                turn.started = True
                self.conversation = named(said["session_id"])
                kept = ("session_id", "model", "permissionMode", "tools", "apiKeySource", "claude_code_version")
                turn.job.record({"kind": "session", **{key: said.get(key) for key in kept}})
            case "system", "api_retry":
                self.retried(said, turn)
            case "system", "permission_denied":
                self.refused.add(str(said["tool_use_id"]))
            case "assistant", _:
                self.replied(said["message"], turn)
            case "user", _:
                self.told(said["message"]["content"], turn)
            case "rate_limit_event", _:
                limit = said["rate_limit_info"]
                if limit.get("status") == "rejected":
                    self.resets_s = float(limit["resetsAt"])
            case "result", _:
                self.last(said, turn)

    def retried(self, said: Mapping[str, Any], turn: Turn) -> None:
        status = said.get("error_status")
        why = f"the service answered {status or 'nothing'} ({said.get('error')})"
        turn.job.record({"kind": "retry", "message": why, "attempt": said.get("attempt")})
        turn.job.progress(f"{why}; asking again")
        if status in (401, 403):
            raise Over("auth", f"the credential was refused: {why}", LOGIN)

    def replied(self, message: Mapping[str, Any], turn: Turn) -> None:
        """One line for every block of a reply; the usage on it is of the beginning, the same each time: how much was
        written its length must tell. Four characters are a token, about."""
        usage = message.get("usage") or {}
        if message.get("model") != "<synthetic>":
            name, all_ = str(message["id"]), turn.usage
            was = self.messages.get(name, Usage())
            length = len(json.dumps(message["content"], ensure_ascii=False)) // 4
            now = self.messages[name] = Usage(
                1, counted(usage.get("input_tokens")), max(was.output + length, counted(usage.get("output_tokens"))),
                counted(usage.get("cache_read_input_tokens")), counted(usage.get("cache_creation_input_tokens")),
            )  # fmt: skip
            self.price = price(self.job, str(message.get("model"))) or self.price
            if self.price is not None:
                turn.micro += self.price.cost_micro(now) - (self.price.cost_micro(was) if was.calls else 0)
            turn.usage = Usage(
                all_.calls + now.calls - was.calls, all_.input + now.input - was.input,
                all_.output + now.output - was.output, all_.cache_read + now.cache_read - was.cache_read,
                all_.cache_write + now.cache_write - was.cache_write, None,
            )  # fmt: skip
        for block in message["content"]:
            if block["type"] == "text":
                turn.say(str(block["text"]))
            elif block["type"] == "tool_use":
                given = block["input"]
                about = next((str(given[k]) for k in ("file_path", "command", "pattern", "path") if given.get(k)), "")
                if about.startswith(turn.job.workdir + "/"):
                    about = about[len(turn.job.workdir) + 1 :]
                turn.call(str(block["id"]), str(block["name"]), about, given)

    def told(self, content: Any, turn: Turn) -> None:
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "tool_result":
                said = block.get("content")
                text = said if isinstance(said, str) else "\n".join(str(b.get("text", b["type"])) for b in said or ())
                refused = str(block["tool_use_id"]) in self.refused or text.startswith("Permission to use ")
                # What follows is advice to the model, a page of it.
                text = text.partition(" IMPORTANT: ")[0] if refused else text
                turn.result(str(block["tool_use_id"]), not block.get("is_error"), text, refused=refused)

    def last(self, said: Mapping[str, Any], turn: Turn) -> None:
        """Its last word, so far: what runs in the background may let it speak once more."""
        failure = _failure(said)
        if failure is not None and failure.status == "limited" and self.resets_s:
            failure = replace(failure, after_s=max(1.0, self.resets_s - time.time()))
        turn.started = turn.ended = True
        turn.report, turn.failure = said.get("structured_output"), failure
        now = dict.fromkeys(_COUNTED, 0)
        for used in (said.get("modelUsage") or {}).values():
            for key in _COUNTED:
                now[key] += counted(used.get(key))
        cost = said.get("total_cost_usd")
        now["cost"] = counted(float(cost or 0) * 1_000_000 + 0.5)
        before = self.before if now["cost"] >= self.before.get("cost", 0) else {}
        self.seen = now
        fresh, output, read, written, micro = (max(0, value - before.get(key, 0)) for key, value in now.items())
        turn.usage = Usage(len(self.messages), fresh, output, read, written, None if cost is None else micro)
        turn.job.record({"kind": "result line", **{key: said.get(key) for key in _TOLD}})

    def silent(self, code: int, stderr: str, turn: Turn) -> Failure:
        return silence(code, stderr, turn)


def _stdio(argv: list[str]) -> dict[str, Any]:
    return {"type": "stdio", "command": argv[0], "args": argv[1:]}


_COUNTED = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
_TOLD = (
    "subtype", "is_error", "num_turns", "stop_reason", "terminal_reason", "result", "errors", "api_error_status",
    "total_cost_usd", "modelUsage", "permission_denials", "duration_ms",
)  # fmt: skip


def _failure(said: Mapping[str, Any]) -> Failure | None:
    """None: it ended well, with or without a report. The exit status would not tell one from the other."""
    words = str(said.get("result") or "; ".join(map(str, said.get("errors") or ())))[:500]
    status, reason = said.get("api_error_status"), said.get("terminal_reason")
    match str(said.get("subtype")):
        case "error_max_turns":
            return Failure("turns", words)
        case "error_max_budget_usd":
            return Failure("budget", words)
        case subtype if subtype.startswith("error_max_structured_output"):
            return None  # as if it had given none
        case "error_during_execution":
            return Failure("error", words or "an error while it ran", passing="No conversation found" not in words)
    if not said.get("is_error"):
        return None
    if said.get("stop_reason") == "refusal":
        return Failure("refused", words)
    if reason == "prompt_too_long":
        return Failure("context", words, "give the worker a smaller assignment")
    if status in (401, 403) or "/login" in words or "Not logged in" in words or "Invalid API key" in words:
        return Failure("auth", words, LOGIN)
    if status == 402 or "redit balance" in words:
        return Failure("unavailable", words, "see the billing page of the account that is used")
    if status == 404:
        return Failure("unavailable", words, "name another model: --model, or model in .orchestration/config.toml")
    if status in (429, 529) or "limit reached" in words:
        return Failure("limited", words)
    if status is None or status >= 500:
        return Failure("unavailable", words, passing=True)
    return Failure("error", words)


def _rule(workdir: str, pattern: str) -> str:
    """An Edit rule for a pattern of the scope; "" for one that its grammar could take for something else.

    Absolute, which takes two slashes: with one, a rule is relative to the settings file, and silently matches nothing.
    """
    pattern = pattern + "**" if pattern.endswith("/") else pattern
    path = f"{workdir}/{pattern}"
    return "" if re.search(r"[()\[\]{}\\!#,\s]", path) else f"Edit(/{path})"
