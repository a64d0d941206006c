"""`.orchestration/config.toml` and the environment, as one frozen `Config`.

Every key has a default, so no file is a valid file; `templates/config.toml` shows them all. What is written
there either means something here or is refused, with its line and what would be right: a limit that was
misspelled must never be a limit that is silently not there. A Config is kept with its run, and pushed: it
must never hold a secret. Of the environment only OVERRIDES goes into it.

How to read it: the sections are the models below, and they are the list of what is known and allowed; `load`
turns TOML into them, `_complaint` turns pydantic's errors into words.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from orchgit.agents import BACKENDS, COMMAND, COMMAND_PLACES, Limits, Role
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.events import Budget as Limit
from orchgit.core.events import Grant, Settings
from orchgit.core.pattern import PatternError, check_pattern
from orchgit.core.review import Severity

CONFIG_PATH = ".orchestration/config.toml"

# Environment variable -> key. It wins over the file, except where the file names one agent.
OVERRIDES: dict[str, tuple[str, str]] = {
    "ORCHGIT_BACKEND": ("agents", "backend"),
    "ORCHGIT_MODEL": ("agents", "model"),
    "ORCHGIT_PLAYBOOK": ("scripted", "playbook"),
}


def _pattern(text: str) -> str:
    try:
        check_pattern(text)
    except PatternError as error:
        raise ValueError(str(error)) from error
    return text


def _file(text: str) -> str:
    parts = PurePosixPath(text).parts
    if not parts or text.startswith("/") or ".." in parts or "\0" in text:
        raise ValueError("write one path inside the repository, relative to its root, such as .env")
    if parts[0].lower() in (".git", ".orchestration"):
        raise ValueError(f"{parts[0]} is never copied into a cell")
    return text


def _backend(text: str) -> str:
    if text and text not in BACKENDS and not text.startswith(COMMAND):
        raise ValueError(f"there is no such backend{_near(text, BACKENDS)}; one of: {', '.join(BACKENDS)}")
    return text


def _argv(words: tuple[str, ...]) -> tuple[str, ...]:
    """A misspelled placeholder would be handed on as it is, and the program would work without its brief."""
    unknown = [name for word in words for name in re.findall(r"\{([a-z_]+)\}", word) if name not in COMMAND_PLACES]
    if unknown:
        raise ValueError(
            f"there is no {{{unknown[0]}}}; there are {', '.join(f'{{{name}}}' for name in COMMAND_PLACES)}"
        )
    return words


def _home_file(text: str) -> str:
    parts = PurePosixPath(text).parts
    if not parts or text.startswith(("/", "~")) or ".." in parts or "\0" in text:
        raise ValueError("write paths below your HOME, such as .config/tool/auth.json")
    return text


def _command_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError("a name is of letters, digits, '-', '_' and '.'")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("write names of variables; their values stay in the environment")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
LocalFile = Annotated[str, AfterValidator(_file)]
BackendName = Annotated[str, AfterValidator(_backend)]
Reach = Literal["none", "loopback", "open"]
ShipMode = Literal["none", "merge", "pr"]
AgentReach = Literal["auto", "none", "loopback", "open"]
Turns = Annotated[int, Field(ge=1, le=10_000)]
Seconds = Annotated[int, Field(ge=1, le=604_800)]
Tokens = Annotated[int, Field(ge=1, le=10**12)]
PerMillion = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Dollars = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Run(_Section):
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    rounds: Annotated[int, Field(ge=1, le=20)] = 3
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    plan_retries: Annotated[int, Field(ge=0, le=10)] = 2
    blocking: Severity = "critical"
    reviewers: tuple[str, ...] = ("security-reviewer",)


class Agent(_Section):
    """[agents.NAME]: None is "as for all the others"."""

    backend: BackendName | None = None
    model: str | None = None
    allow: tuple[Pattern, ...] | None = None
    deny: tuple[Pattern, ...] | None = None
    grant: tuple[Pattern, ...] | None = None
    turns: Turns | None = None
    seconds: Seconds | None = None
    tokens: Tokens | None = None
    cost_usd: Dollars | None = None


class Agents(_Section):
    """`cost_usd` and `tokens`: None is no limit."""

    backend: BackendName = ""
    model: str = ""
    turns: Turns = 60
    seconds: Seconds = 1800
    tokens: Tokens | None = None
    cost_usd: Dollars | None = None
    patience_s: Annotated[int, Field(ge=0, le=604_800)] = 21_600
    by_name: tuple[tuple[str, Agent], ...] = ()  # [agents.NAME] in the file

    @property
    def cost_micro(self) -> int | None:
        return _micro(self.cost_usd)


class Budget(_Section):
    """Of the run, all its agents, and of each assignment, all its attempts. None is no limit."""

    cost_usd: Dollars | None = None
    tokens: Tokens | None = None
    turns: Tokens | None = None
    seconds: Seconds | None = None
    assignment_cost_usd: Dollars | None = None
    assignment_tokens: Tokens | None = None
    assignment_turns: Tokens | None = None
    assignment_seconds: Seconds | None = None


class Price(_Section):
    """[prices.MODEL]: US dollars per million tokens."""

    input: PerMillion
    output: PerMillion
    cache_read: PerMillion
    cache_write: PerMillion


class Prices(_Section):
    by_name: tuple[tuple[str, Price], ...] = ()  # the tables in the file


class Scripted(_Section):
    playbook: str = ""  # absolute, once loaded


class Anthropic(_Section):
    thinking: Literal["adaptive", "off"] = "adaptive"
    effort: Literal["", "low", "medium", "high"] = ""
    long_context: Annotated[int, Field(ge=1000, le=10_000_000)] = 100_000


class Command(_Section):
    """[command.NAME]: a program that is an agent; see agents/command.py."""

    argv: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_argv)]
    resume: Annotated[tuple[str, ...], AfterValidator(_argv)] = ()
    report: Literal["file", "json", "text"] = "file"
    network: Reach = "none"
    env: tuple[Annotated[str, AfterValidator(_variable)], ...] = ()
    home: tuple[Annotated[str, AfterValidator(_home_file)], ...] = ()


class Human(_Section):
    """`deadline_s`: 0 is none."""

    deadline_s: Annotated[int, Field(ge=0, le=31_536_000)] = 0


class Commands(_Section):
    by_name: tuple[
        tuple[Annotated[str, AfterValidator(_command_name)], Command], ...
    ] = ()  # [command.NAME] in the file


class Sandbox(_Section):
    """`level` "": the strongest that holds here. Limits of everything that runs in one cell at a time; 0 is none."""

    level: Literal["", "bwrap+landlock", "landlock", "bwrap", "seatbelt"] = ""
    memory_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    processes: Annotated[int, Field(ge=0, le=100_000)] = 1024
    file_mb: Annotated[int, Field(ge=0, le=1_000_000)] = 4096
    precision: Annotated[int, Field(ge=0, le=100)] = 0


class Network(_Section):
    """What reaches the network inside the sandbox, by role. `loopback` is one of its own, not the machine's.

    `auto`: no more than the role's agent cannot do without. That is none for the built-in one, whose tools alone run
    inside, and open for a program that has to reach its own service.
    """

    orchestrator: AgentReach = "auto"
    worker: AgentReach = "auto"
    reviewer: AgentReach = "auto"
    checks: Reach = "none"
    setup: Reach = "none"

    def of(self, role: Role, least: Reach) -> Reach:
        said: AgentReach = getattr(self, role)
        return least if said == "auto" else said

    def asked(self) -> dict[str, Reach]:
        """By role, what the machine has to be able to keep; `auto` as for an agent that needs nothing."""
        roles: tuple[Role, ...] = ("orchestrator", "worker", "reviewer")
        return {**{role: self.of(role, "none") for role in roles}, "checks": self.checks, "setup": self.setup}


class Cells(_Section):
    directory: str = ""  # absolute, once loaded; "": see state_home
    overlay: Literal["auto", "never"] = "auto"
    # `copy` would hide a method of pydantic's; the file and the JSON say "copy".
    copied: tuple[LocalFile, ...] = Field(default=(), alias="copy")
    share: tuple[LocalFile, ...] = ()


class Setup(_Section):
    """What a working tree needs that has to be made; see ground.py."""

    command: str = ""
    makes: tuple[LocalFile, ...] = ()
    locks: tuple[LocalFile, ...] = ()
    deadline_s: Annotated[int, Field(ge=1, le=86_400)] = 900


class Checks(_Section):
    deadline_s: Annotated[int, Field(ge=1, le=86_400)] = 600


class Watch(_Section):
    policy: Literal["tell", "pause", "stop"] = "tell"


class Ship(_Section):
    mode: ShipMode = "none"


class Forge(_Section):
    """`remote` "": the one that is a repository of the forge. `poll_s`: how often it is asked while a human is waited
    for."""

    kind: Literal["local", "github"] = "local"
    remote: str = ""
    plan: Literal["off", "comment"] = "off"
    review: Literal["ship", "worker"] = "ship"
    poll_s: Annotated[int, Field(ge=1, le=3600)] = 20


class Log(_Section):
    """`sign`: a key of SSH, absolute once loaded; "" signs nothing. `tag`: the seal of a run gets a tag."""

    publish_all: bool = False
    sign: str = ""
    tag: bool = False


class Notify(_Section):
    command: tuple[str, ...] = ()


class Config(_Section):
    """The whole configuration. Frozen to the bottom, equal by value."""

    run: Run = Run()
    agents: Agents = Agents()
    budget: Budget = Budget()
    prices: Prices = Prices()
    scripted: Scripted = Scripted()
    anthropic: Anthropic = Anthropic()
    command: Commands = Commands()
    human: Human = Human()
    sandbox: Sandbox = Sandbox()
    network: Network = Network()
    cells: Cells = Cells()
    setup: Setup = Setup()
    checks: Checks = Checks()
    watch: Watch = Watch()
    ship: Ship = Ship()
    forge: Forge = Forge()
    log: Log = Log()
    notify: Notify = Notify()

    def settings(
        self, *, approval: Literal["human", "policy"], ship: ShipMode | None = None, repository: str = "",
        issue: int = 0,
    ) -> Settings:  # fmt: skip
        """What decisions depend on. `ship` is the command line's word; None: as configured. `repository` and `issue`:
        at the forge, where there is one."""
        own = self.budget
        return Settings(
            attempts=self.run.attempts,
            rounds=self.run.rounds,
            parallel=self.run.parallel,
            plan_retries=self.run.plan_retries,
            blocking=self.run.blocking,
            reviewers=self.run.reviewers,
            approval=approval,
            ship=ship or self.ship.mode,
            grants=tuple(Grant(name, agent.grant) for name, agent in self.agents.by_name if agent.grant),
            budget=Limit(_micro(own.cost_usd), own.tokens, own.turns, own.seconds),
            assignment_budget=Limit(
                _micro(own.assignment_cost_usd), own.assignment_tokens, own.assignment_turns, own.assignment_seconds
            ),
            forge=self.forge.kind,
            repository=repository,
            issue=issue,
            plan=self.forge.plan,
            review=self.forge.review,
        )

    def agent(self, name: str) -> Agent:
        """What the file says of one agent; an Agent that says nothing, if it does not name it."""
        return dict(self.agents.by_name).get(name, Agent())

    def limits(self, name: str) -> Limits:
        """Budgets of one agent run: [agents.NAME] over [agents]."""
        own, common = self.agent(name), self.agents
        return Limits(
            turns=own.turns if own.turns is not None else common.turns,
            seconds=own.seconds if own.seconds is not None else common.seconds,
            tokens=own.tokens if own.tokens is not None else common.tokens,
            cost_micro=_micro(own.cost_usd) if own.cost_usd is not None else common.cost_micro,
        )

    def options(self, backend: str) -> dict[str, str]:
        """What a backend's `probe` and `Job.options` take; only what was set, all strings."""
        given: dict[str, str] = {}
        if backend == "anthropic":
            given = {"thinking": self.anthropic.thinking, "effort": self.anthropic.effort}
            given |= {"long_context": str(self.anthropic.long_context), "prices": self._prices()}
        elif backend in ("claude", "codex"):
            given = {"prices": self._prices()}
        elif backend == "scripted":
            given = {"playbook": self.scripted.playbook}
        elif backend == "human":
            given = {"deadline_s": str(self.human.deadline_s)}
        elif backend.startswith(COMMAND) and backend in self.backends:
            given = {"entry": dict(self.command.by_name)[backend.removeprefix(COMMAND)].model_dump_json()}
        return {key: value for key, value in given.items() if value}

    def _prices(self) -> str:
        """As agents.prices reads them: whole micro-dollars per million tokens."""
        rows = {
            name: {key: round(value * 1_000_000) for key, value in price.model_dump().items()}
            for name, price in self.prices.by_name
        }
        return json.dumps(rows) if rows else ""

    @property
    def backends(self) -> tuple[str, ...]:
        """All that can be chosen here, by the name that chooses it."""
        described = (f"{COMMAND}{name}" for name, _ in self.command.by_name)
        return (*(name for name in BACKENDS if name != "command"), *described)

    def to_json(self) -> str:
        """As the log keeps it: the same Config gives the same bytes."""
        return self.model_dump_json(by_alias=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Config:
        """The reverse, for resume. OrchgitError (FAULT) for what to_json did not write."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            hint = "It may be from another version of orchgit: resume with the version that began the run."
            raise OrchgitError(Kind.FAULT, "the configuration kept with this run cannot be read", why, hint) from error


def _micro(dollars: float | None) -> int | None:
    return None if dollars is None else max(1, round(dollars * 1_000_000))  # a budget is never rounded to 0


def state_home(config: Config, env: Mapping[str, str]) -> Path:
    """Where cells and check-outs lie: absolute, outside every repository. Not created here."""
    if config.cells.directory:
        return Path(config.cells.directory)
    if env.get("XDG_STATE_HOME", "").startswith("/"):  # a relative one is to be ignored (XDG, 0.8)
        return Path(env["XDG_STATE_HOME"]) / "orchgit"
    if env.get("HOME", "").startswith("/"):
        return Path(env["HOME"]) / ".local" / "state" / "orchgit"
    raise OrchgitError(
        Kind.USAGE,
        "there is no place for cells",
        "neither XDG_STATE_HOME nor HOME is an absolute path",
        f"set one of them, or directory in [cells] of {CONFIG_PATH}",
    )


def load(root: Path, env: Mapping[str, str]) -> Config:
    """The configuration of the work tree at `root`. OrchgitError (USAGE) with every mistake, by line."""
    path = root / CONFIG_PATH
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise OrchgitError(Kind.USAGE, f"{CONFIG_PATH} cannot be read", _reason(error)) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(text, error) from error
    _no_secrets(data, text)
    for variable, (section, key) in OVERRIDES.items():
        if env.get(variable) and isinstance(data.setdefault(section, {}), dict):
            data[section][key] = env[variable]
    return _validate(data, text, root, env)


def _validate(data: dict[str, Any], text: str, root: Path, env: Mapping[str, str]) -> Config:
    """A Config of what TOML gave; `text` is only there to find lines in."""
    shaped = dict(data)
    if isinstance(data.get("agents"), dict):
        shaped["agents"] = _split_agents(data["agents"])
    if isinstance(data.get("prices"), dict):
        shaped["prices"] = {"by_name": list(map(list, data["prices"].items()))}
    if isinstance(data.get("command"), dict):
        shaped["command"] = {"by_name": list(map(list, data["command"].items()))}
    try:
        config = Config.model_validate(_frozen(shaped))
        _known_commands(config, text)
        if config.setup.command and not config.setup.makes:
            what, right = (
                "[setup] has a command and does not say what it makes",
                'for example: makes = ["node_modules"]',
            )
            raise OrchgitError(Kind.USAGE, f"{CONFIG_PATH}: {what}", "only what is named there is kept", right)
    except ValidationError as error:
        problems = [_complaint(p, shaped, text, env) for p in error.errors(include_url=False)]
        what = "\n".join(said for said, _ in problems)
        hints = dict.fromkeys(hint for _, hint in problems if hint)
        raise OrchgitError(Kind.USAGE, what, hint="\n".join(hints)) from error
    return _absolute(config, root, env)


def _known_commands(config: Config, text: str) -> None:
    """A command that is chosen is described. OrchgitError (USAGE)."""
    chosen = [(["agents", "backend"], config.agents.backend)]
    chosen += [(["agents", name, "backend"], agent.backend or "") for name, agent in config.agents.by_name]
    for path, backend in chosen:
        if backend.startswith(COMMAND) and backend not in config.backends:
            line = _line(text, path)
            where = CONFIG_PATH + (f", line {line}" if line else "")
            near = _near(backend, config.backends)
            raise OrchgitError(
                Kind.USAGE, f"{where}: there is no [command.{backend.removeprefix(COMMAND)}]{near}", "",
                f"describe it there; known: {', '.join(config.backends)}",
            )  # fmt: skip


def _split_agents(table: dict[str, Any]) -> dict[str, Any]:
    """The tables in [agents] are agents, by name; what is left are the keys for all of them."""
    known = set(Agents.model_fields) - {"by_name"}
    named = {k: v for k, v in table.items() if k not in known and isinstance(v, dict)}
    common = {k: v for k, v in table.items() if k not in named}
    return {"by_name": list(map(list, named.items())), **common}


def _frozen(value: Any) -> Any:
    """TOML's lists as tuples: strict models with tuple fields take nothing else."""
    if isinstance(value, dict):
        return {k: _frozen(v) for k, v in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _absolute(config: Config, root: Path, env: Mapping[str, str]) -> Config:
    """Paths as they are meant: a playbook from the root of the work tree, cells outside of it."""
    playbook, directory = config.scripted.playbook, config.cells.directory
    sign = _tilde(config.log.sign, env)
    if playbook:
        playbook = os.path.abspath(os.path.join(root, _tilde(playbook, env)))
    if directory:
        directory = _tilde(directory, env)
        inside = os.path.realpath(directory).startswith(os.path.join(os.path.realpath(root), ""))
        if not os.path.isabs(directory) or inside or os.path.realpath(directory) == os.path.realpath(root):
            why = "a cell inside a repository finds that repository's conftest.py and node_modules"
            hint = "give an absolute path outside the repository, or leave it empty"
            what = f'{CONFIG_PATH}: [cells] directory = "{config.cells.directory}" cannot be used'
            raise OrchgitError(Kind.USAGE, what, why, hint)
        directory = os.path.normpath(directory)
    return config.model_copy(
        update={
            "scripted": Scripted(playbook=playbook),
            "log": config.log.model_copy(update={"sign": sign and os.path.abspath(os.path.join(root, sign))}),
            "cells": config.cells.model_copy(update={"directory": directory}),
        }
    )


def _tilde(path: str, env: Mapping[str, str]) -> str:
    return env["HOME"] + path[1:] if env.get("HOME") and (path == "~" or path.startswith("~/")) else path


# -- words for what is wrong -----------------------------------------------------------------------------

_SECRET = re.compile(r"\b(sk-ant-|gh[pousr]_[A-Za-z0-9]{20}|github_pat_|xox[abprs]-|AKIA[A-Z0-9]{16})")


def _no_secrets(value: Any, text: str) -> None:
    """The file is committed and its content is kept with every run: refuse what is surely a credential."""
    hit = _SECRET.search(json.dumps(value, ensure_ascii=False, default=str))
    if hit:
        line = text[: text.find(hit[0])].count("\n") + 1
        raise OrchgitError(
            Kind.USAGE,
            f"{CONFIG_PATH}, line {line}: this looks like a credential ({hit[0][:4]}…)",
            "the configuration is kept in the log of every run",
            "keep it in the environment, and replace the one that was written here",
        )


def _syntax(text: str, error: tomllib.TOMLDecodeError) -> OrchgitError:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
    said, line, column = found.groups() if found else (str(error), None, None)
    lines = text.splitlines() or [""]
    at = f"line {line or len(lines)}, column {column or len(lines[-1]) + 1}"
    shown = lines[min(int(line or len(lines)), len(lines)) - 1].strip()[:80]
    return OrchgitError(Kind.USAGE, f"{CONFIG_PATH}, {at}: not TOML: {said}", f"the line is: {shown}")


def _complaint(
    problem: Mapping[str, Any], shaped: dict[str, Any], text: str, env: Mapping[str, str]
) -> tuple[str, str]:
    """One of pydantic's errors as (what, hint)."""
    loc: list[int | str] = list(problem["loc"])
    names = [part for part in loc if isinstance(part, str)]
    model: type[BaseModel] = Config
    unknown = problem["type"] == "extra_forbidden" or names == ["agents", "by_name"]
    tables: dict[str, type[BaseModel]] = {"agents": Agent, "command": Command, "prices": Price}
    if names[0] in tables and names[1:2] == ["by_name"] and len(loc) > 3:  # ..., index, 0 for the name, or 1, key
        names = [names[0], shaped[names[0]]["by_name"][loc[2]][0], *names[2:]]
        model = tables[names[0]] if len(loc) > 4 else Config
    elif len(names) > 1:
        model = type(getattr(Config(), names[0]))
    section, key = ".".join(names[:-1]), names[-1]
    variable = next((v for v, k in OVERRIDES.items() if list(k) == names and env.get(v)), None)
    line = _line(text, names)
    where = CONFIG_PATH + (f", line {line}" if line else "")
    if variable:
        where = f"the environment variable {variable}"
    if unknown:
        known = [field.alias or name for name, field in model.model_fields.items() if name != "by_name"]
        label = f"in [{section}]" if section else "at the top"
        what = f"{where}: unknown {'key' if section else 'section'} {key!r} {label}{_near(key, known)}"
        return what, f"{f'[{section}]' if section else 'The file'} knows: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{where}: [{section}] has no {key}: {_allowed(model, key)}", ""
    allowed = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else _allowed(model, key)
    label = (f"[{section}] {key}" if section else key) + (f"[{loc[-1]}]" if isinstance(loc[-1], int) else "")
    return f"{where}: {label} = {_given(problem['input'])} is not allowed: {allowed}", ""


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _given(value: Any) -> str:
    """A value as TOML has it, near enough to be recognised."""
    if isinstance(value, Mapping):
        return "{…}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_given, value))}]"
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"


def _allowed(model: type[BaseModel], key: str) -> str:
    """What a key takes, in words, from its model: there is no second list to keep."""
    field: dict[str, Any] = model.model_json_schema(by_alias=True)["properties"].get(key, {})
    field = next((option for option in field.get("anyOf", ()) if option.get("type") != "null"), field)
    if "enum" in field:
        return "one of " + ", ".join(json.dumps(value) for value in field["enum"])
    kind = field.get("type")
    if kind in ("integer", "number"):
        low = field.get("minimum", field.get("exclusiveMinimum"))
        word = "a whole number" if kind == "integer" else "a number"
        return f"{word} {'above' if 'exclusiveMinimum' in field else 'from'} {low} to {field['maximum']}"
    words = {"boolean": "true or false", "array": 'a list of strings, such as ["a", "b"]', "string": "a string"}
    return words.get(str(kind), f"a table: write [{key}] on a line of its own, and its keys below")


def _line(text: str, names: list[str]) -> int | None:
    """The line where a key or table stands, if it can be found. Asks tomllib, one line at a time."""
    table: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*(\[\[?[^\]]+\]\]?)\s*(#.*)?$", line)
        if header:
            path = table = _path(header[1])
        elif "=" in line:
            path = [*table, *_path(line.partition("=")[0] + "= 0")]
        else:
            continue
        if path[: len(names)] == names:
            return number
    return None


def _path(line: str) -> list[str]:
    try:
        node: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return []
    path = []
    while isinstance(node, dict) and node:
        name, node = next(iter(node.items()))
        path.append(name)
        node = node[0] if isinstance(node, list) and node else node
    return path


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error))
