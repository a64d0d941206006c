"""Who thinks: one file per backend, all behind `Backend`.

A backend gets a `Job` whose `launch` is already sandboxed, works until the job's result is delivered, and
returns an `Outcome`. It never decides whether the work is good: git and the engine do. Nothing here may
import `sandbox` or `git`.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from orchgit.core.errors import Kind, OrchgitError
from orchgit.process import Launch

if TYPE_CHECKING:
    from orchgit.agents.budget import Purse

Role = Literal["orchestrator", "worker", "reviewer"]
Network = Literal["none", "loopback", "open"]  # as in sandbox, which nothing here may import
NETWORKS: tuple[Network, ...] = ("none", "loopback", "open")  # each reaches what the one before does
Purpose = Literal["plan", "work", "verdict", "review", "synthesis"]
# Where the cost of a backend's calls is known from: our table and [prices], what its program reports, or nowhere.
Cost = Literal["free", "table", "reported", "unknown"]
Status = Literal[
    "done",  # a result tool was called with input that its `parse` accepted
    "no_report",  # the agent stopped without one, reminders included
    "turns",  # turn limit
    "budget",  # money or token limit of its own
    "assignment_budget",  # the next call could go beyond what its assignment may spend
    "run_budget",  # or beyond what the run may
    "limited",  # the service asks for patience; it goes on from `session` after `retry_after_s`
    "time",  # wall clock limit
    "refused",  # the model refused
    "context",  # the context window is full
    "auth",  # no key, or a key that was refused
    "unavailable",  # the service cannot be reached, is overloaded beyond patience, or the model is unknown
    "error",  # anything else; `message` says what
    "stopped",  # the engine asked it to stop
]

# Tools that only read, and the most that each role may ever hold.
READ_TOOLS = ("read", "glob", "grep", "bash")
ROLE_TOOLS: dict[Role, tuple[str, ...]] = {
    "orchestrator": READ_TOOLS,
    "reviewer": READ_TOOLS,
    "worker": (*READ_TOOLS, "write", "edit"),
}


@dataclass(frozen=True)
class ResultTool:
    """A way for the agent to end: a strict tool. `parse` raises ValueError with words the agent can act on."""

    name: str
    description: str
    schema: Mapping[str, Any]
    parse: Callable[[Mapping[str, Any]], object]
    pauses: bool = False  # it asks for something: the agent goes on, by the outcome's `session`, when it has the answer


@dataclass(frozen=True)
class Limits:
    """Per agent run. Zero turns or tokens is not "unlimited"; None is. Money in micro-dollars."""

    turns: int = 60
    seconds: int = 1800
    tokens: int | None = None  # input + output, all calls of this run
    cost_micro: int | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens as the API counts them; `input` is the uncached part. `cost_micro` None: the price is unknown, never zero.
    `unsure_*`: what calls that broke off can have taken at most, beside what is known of them."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost_micro: int | None = None
    unsure_tokens: int = 0
    unsure_micro: int = 0


@dataclass(frozen=True)
class HandIn:
    """Files in the cell for an agent without our tools; see handin.py. The agent may do to both what it likes."""

    brief: Path  # its brief, system prompt and all
    result: Path  # where it may write its result


@dataclass(frozen=True)
class Job:
    role: Role
    purpose: Purpose
    key: str  # names this piece of work, e.g. "work/api/1"; stable across a resume. First line of the brief too.
    agent: str  # name in the roster, e.g. "api-agent"
    system: str
    brief: str
    workdir: str  # absolute; the cell's working tree
    tools: tuple[str, ...]
    results: tuple[ResultTool, ...]
    model: str
    limits: Limits
    launch: Launch  # its environment names the files of `handin`
    handin: Callable[[], HandIn]  # makes the cell, like the first launch
    stop: threading.Event
    record: Callable[[Mapping[str, Any]], None]  # one transcript entry; JSON-able, never a credential
    progress: Callable[[str], None]  # one short line for a person watching
    clock: Callable[[], float] = time.monotonic  # for its limits: stands still while the cell is paused
    options: Mapping[str, str] = field(default_factory=dict)  # of the backend, from the config
    session: bytes = b""  # of an earlier outcome, to go on from; b"": begin with the brief
    answer: str = ""  # to what it asked for then; "": nothing was asked
    allow: tuple[str, ...] = ()  # a worker's scope, for rules of an agent's own: a first word, never the boundary
    deny: tuple[str, ...] = ()
    confined: bool = True  # whether the kernel keeps what `launch` starts from writing elsewhere
    purse: Purse | None = None  # what it may spend, shared with others; None: `limits` alone
    held_s: Callable[[], float] = lambda: 0.0  # for how long its service wants no calls, says another agent; 0: call


@dataclass(frozen=True)
class Outcome:
    status: Status
    result: tuple[str, Mapping[str, Any]] | None = None  # (result tool, its raw input), only when done
    message: str = ""
    hint: str = ""  # what a person could type, where there is such a thing
    usage: Usage = field(default_factory=Usage)
    # Where it stopped, when the result pauses, a budget is used up or the service limits; b"": it cannot be taken up.
    session: bytes = b""
    retry_after_s: float | None = None  # when limited; None: the service did not say
    conversation: str = ""  # the agent's own name for it, where it has one


@dataclass(frozen=True)
class Probe:
    found: bool
    detail: str
    hint: str = ""
    version: str = ""  # of a program that is not ours
    login: str = ""  # what it would work with: the name of a variable or a file, never a value


@dataclass(frozen=True)
class Needs:
    """What a backend asks of the place that its programs run in, beside what every tool has there."""

    network: Network = "none"  # the least that it can work with
    readable: tuple[str, ...] = ()  # where its own program lies


class Backend(Protocol):
    """One way to have a job done."""

    name: str
    default_model: str  # for a job that names none
    cost: Cost

    def probe(self, options: Mapping[str, str]) -> Probe:
        """Whether this backend could work here, and if not, why and what to type."""

    def needs(self, options: Mapping[str, str]) -> Needs:
        """A backend that runs whole inside the sandbox says so by what it needs there: its service, its program."""

    def run(self, job: Job) -> Outcome:
        """Work until the end; blocks. Never raises for what an agent or a service did."""


# Name in the configuration -> where it is. A new backend is a file and a row here.
# In the order in which one is chosen where none is configured.
BACKENDS: dict[str, str] = {
    "claude": "orchgit.agents.claude:ClaudeBackend",
    "codex": "orchgit.agents.codex:CodexBackend",
    "anthropic": "orchgit.agents.anthropic_api:AnthropicBackend",
    "scripted": "orchgit.agents.scripted:ScriptedBackend",
    "command": "orchgit.agents.command:CommandBackend",
    "human": "orchgit.agents.human:HumanBackend",
}
# Never taken because it is there: somebody has to have chosen it, and so with every command.
ONLY_CHOSEN = ("scripted", "human")
ONLY_WORKS = ("human",)
# `command:NAME` is the program that [command.NAME] describes; what its argv may name, as {brief}.
COMMAND = "command:"
COMMAND_PLACES = ("brief", "brief_file", "result_file", "workdir", "model")


def backend(name: str) -> Backend:
    """Imported only now: a backend may bring a heavy package. OrchgitError (USAGE) for an unknown name."""
    kind, colon, _ = name.partition(":")
    if kind not in BACKENDS or (colon and kind != "command"):
        known = ", ".join(BACKENDS)
        raise OrchgitError(Kind.USAGE, f"there is no agent backend {name!r}", hint=f"one of: {known}")
    module, _, attribute = BACKENDS[kind].partition(":")
    make: Callable[..., Backend] = getattr(importlib.import_module(module), attribute)
    return make(name) if kind == "command" else make()
