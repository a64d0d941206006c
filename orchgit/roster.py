"""Who is there to work: `.claude/agents/*.md` and the configuration, as a Roster.

The files are the user's own, and Claude Code reads the same ones: its keys are all accepted, and a key nobody
knows is a warning. What would make a role mean less than it says is refused: an orchestrator or a reviewer
that lists a tool that writes, a tool restricted in a way that cannot be kept here. Never does a file give a
member more than its role has (agents.ROLE_TOOLS), and never is a file left out without a word.

Effects here: name, description, tools, disallowedTools, model, maxTurns; ours: role, scope, backend. The
other keys of Claude Code's say nothing to orchgit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from orchgit.agents import ROLE_TOOLS, Limits, Purpose, Role
from orchgit.config import CONFIG_PATH, Config
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.pattern import PatternError, check_pattern
from orchgit.core.plan import Member
from orchgit.core.scope import PROTECTED

AGENTS_DIR = ".claude/agents"
BUILT_IN = ("orchestrator", "security-reviewer", "performance-reviewer")  # may come from our own templates
ALIASES = {"sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5", "haiku": "claude-haiku-5-5"}

# A tool's name in Claude Code, in lower case -> ours.
TOOLS = {tool: tool for tool in ROLE_TOOLS["worker"]} | {"multiedit": "edit", "notebookedit": "edit"}
OUR_KEYS = ("role", "scope", "backend")
CLAUDE_KEYS = (
    *("name", "description", "tools", "disallowedTools", "model", "effort", "permissionMode", "maxTurns"),
    *("autoCompactWindow", "mcpServers", "hooks", "skills", "initialPrompt", "memory", "background"),
    *("omitClaudeMd", "isolation", "color", "observer", "experimental"),
)
# Of these, whoever wrote them expects something of an agent, or is kept from something: it is said that it is not so.
WITHOUT_EFFECT = ("permissionMode", "mcpServers", "hooks", "skills")
# The whole roster is in the log's first event, one line of at most 64 KiB; some descriptions are pages long.
DESCRIPTION_CHARS = 400
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RosterMember:
    """A Member with what an agent needs to be it. `path` None: from orchgit's own templates."""

    member: Member
    prompt: str
    tools: tuple[str, ...]
    limits: Limits
    path: Path | None


@dataclass(frozen=True)
class Roster:
    """One orchestrator, at least one worker, and every reviewer that the configuration names."""

    members: tuple[RosterMember, ...]
    warnings: tuple[str, ...]

    @property
    def orchestrator(self) -> RosterMember:
        return next(m for m in self.members if m.member.role == "orchestrator")

    def get(self, name: str) -> RosterMember:
        """KeyError for a name that is not on the roster."""
        for member in self.members:
            if member.member.name == name:
                return member
        raise KeyError(name)


def prompt(purpose: Purpose) -> str:
    """The part of the system prompt that goes with the kind of work; the member's own prompt comes after it."""
    assert purpose in get_args(Purpose), purpose
    text = files("orchgit").joinpath("prompts", f"{purpose}.md").read_text("utf-8")
    return text.replace("{protected}", " ".join(f"`{name}`" for name in PROTECTED)).strip()


def template(name: str) -> str:
    """The agent file that init writes for this name."""
    return files("orchgit").joinpath("templates", "agents", f"{name}.md").read_text("utf-8")


def load(root: Path, config: Config) -> Roster:
    """The roster of the work tree at `root`. OrchgitError (USAGE) names file, line and what would be right."""
    warnings: list[str] = []
    members: list[RosterMember] = []
    for path in agent_files(root):
        found = _read(path, f"{AGENTS_DIR}/{path.name}", config, warnings)
        if found is None:
            continue
        twin = next((m for m in members if m.member.name == found.member.name), None)
        if twin is not None and twin.path is not None:
            raise _usage(
                f"two agents are called {found.member.name!r}",
                f"{AGENTS_DIR}/{twin.path.name} and {AGENTS_DIR}/{path.name}",
                "give one of them another name:, or delete it",
            )
        members.append(found)
    leaders = [m for m in members if m.member.role == "orchestrator"]
    if len(leaders) > 1:
        paths = " and ".join(f"{AGENTS_DIR}/{m.path.name}" for m in leaders if m.path)
        raise _usage("there is more than one orchestrator", paths, "write `role: worker` in all of these files but one")
    if not leaders:
        members.append(_built_in("orchestrator", members, config, warnings))
    for name in config.run.reviewers:
        if name in BUILT_IN and name not in [m.member.name for m in members]:
            members.append(_built_in(name, members, config, warnings))
    _agrees(members, config)
    return Roster(tuple(members), tuple(warnings))


def agent_files(root: Path) -> list[Path]:
    """The agent files there are, in order of their names. OrchgitError where the directory cannot be read."""
    directory = root / AGENTS_DIR
    try:
        return sorted(p for p in directory.iterdir() if p.suffix == ".md" and not p.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _usage(f"{AGENTS_DIR} cannot be read", error.strerror or str(error)) from error


def _built_in(name: str, members: list[RosterMember], config: Config, warnings: list[str]) -> RosterMember:
    taken = next((m for m in members if m.member.name == name), None)
    if taken is not None and taken.path is not None:
        raise _usage(
            f"{AGENTS_DIR}/{taken.path.name}: {name!r} has the role {taken.member.role!r}",
            "the roster has no orchestrator",
            "write `role: orchestrator` in this file, or give it another name",
        )
    found = _member(_Source(f"the built-in {name}.md", template(name)), None, config, warnings)
    assert found is not None
    warnings.append(f"{AGENTS_DIR} has no {name}: the built-in one is used. `orchgit init` writes it there to edit.")
    return found


def _agrees(members: list[RosterMember], config: Config) -> None:
    """What the configuration says of agents is about agents that are there: a misspelled limit is none."""
    names = [m.member.name for m in members]
    reviewers = [m.member.name for m in members if m.member.role == "reviewer"]
    for name in config.run.reviewers:
        if name not in reviewers:
            raise _usage(
                f"{CONFIG_PATH}: [run] reviewers names {name!r}, which is no reviewer on the roster",
                f"reviewers there: {', '.join(reviewers) or 'none'}{_near(name, reviewers)}",
                f"write {AGENTS_DIR}/{name}.md, or take the name out of [run] reviewers",
            )
    for name, _ in config.agents.by_name:
        if name not in names:
            raise _usage(
                f"{CONFIG_PATH}: [agents.{name}] is about an agent that is not on the roster{_near(name, names)}",
                f"on the roster: {', '.join(names)}",
                f"write {AGENTS_DIR}/{name}.md, or take [agents.{name}] out",
            )
    if not any(m.member.role == "worker" for m in members):
        raise _usage("the roster has no worker", f"{AGENTS_DIR} has no file for one", "orchgit init")


# -- one file --------------------------------------------------------------------------------------------


class _Source:
    """The text of one agent file, its keys, and the line that each stands on."""

    def __init__(self, label: str, text: str) -> None:
        self.label = label
        self.lines: dict[str, int] = {}
        self.keys: dict[str, Any] = {}
        self.body = ""
        self.plain = not text.startswith("---")  # no front matter at all
        if not self.plain:
            self._split(text)

    def wrong(self, key: str, what: str, right: str) -> OrchgitError:
        line = self.lines.get(key, 1)
        return _usage(f"{self.label}, line {line}: {what}", hint=right)

    def _split(self, text: str) -> None:
        lines = text.replace("\r\n", "\n").split("\n")  # not at U+2028 and the like
        end = next((i for i, line in enumerate(lines) if i and line.rstrip() == "---"), None)
        if lines[0].rstrip() != "---" or end is None:
            what = "the front matter is not closed" if lines[0].rstrip() == "---" else "this line is not ---"
            raise self.wrong("", what, "put a line with only --- before the keys, and another after them")
        self.body = "\n".join(lines[end + 1 :]).strip()
        self._parse("\n".join(map(_quoted, lines[1:end])))

    def _parse(self, text: str) -> None:
        import yaml  # 20 ms, and only start and resume come here

        try:
            node = yaml.compose(text, yaml.SafeLoader)
            if node is not None and not isinstance(node, yaml.MappingNode):
                raise self.wrong("", "the front matter is not a list of keys", "write it as `name: api-agent`")
            for key, _ in node.value if node is not None else ():
                self._seen(str(key.value), key.start_mark.line + 2)
            self.keys = {str(key): value for key, value in (yaml.safe_load(text) or {}).items()}
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 2}" if mark else ""
            said = getattr(error, "problem", None) or str(error)
            hint = "one `key: value` on a line; put quotes around a value with a colon, # or [ in it"
            raise _usage(f"{self.label}{line}: the front matter is not YAML: {said}", hint=hint) from error

    def _seen(self, key: str, line: int) -> None:
        if key in self.lines:  # yaml would take the last one
            what = f"{self.label}, line {line}: {key!r} stands here a second time"
            raise _usage(what, hint=f"keep this line or line {self.lines[key]}")
        self.lines[key] = line


def _quoted(line: str) -> str:
    """A one-line description with a colon in it, put in quotes: not YAML, but Claude Code writes and reads it."""
    found = re.fullmatch(r"description:[ \t]+([^\s\"'|>\[{&*!%@`#].*:(?:[ \t].*)?)", line)
    return "description: '" + found[1].replace("'", "''") + "'" if found else line


def _read(path: Path, label: str, config: Config, warnings: list[str]) -> RosterMember | None:
    if not path.is_file():
        warnings.append(f"{label} is not a file; left out")
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _usage(f"{label}: not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise _usage(f"{label} cannot be read", error.strerror or str(error)) from error
    return _member(_Source(label, text), path, config, warnings)


def _member(source: _Source, path: Path | None, config: Config, warnings: list[str]) -> RosterMember | None:
    if source.plain:
        warnings.append(f"{source.label} has no front matter, so it is no agent; left out")
        return None
    for key in source.keys:
        if key not in (*CLAUDE_KEYS, *OUR_KEYS):
            near = _near(key, (*CLAUDE_KEYS, *OUR_KEYS))
            warnings.append(f"{source.label}, line {source.lines.get(key, 1)}: unknown key {key!r}{near}")
    idle = [key for key in WITHOUT_EFFECT if key in source.keys]
    if idle:
        line = source.lines.get(idle[0], 1)
        warnings.append(f"{source.label}, line {line}: without effect in a run: {', '.join(idle)}")
    name = _text(source, "name", required=True)
    if not _NAME.fullmatch(name):
        raise source.wrong("name", f"the name {name!r} is not usable", "use letters, digits, '-', '_' and '.'")
    description = " ".join(_text(source, "description", required=True).split())
    if len(description) > DESCRIPTION_CHARS:
        description = description[: DESCRIPTION_CHARS - 1] + "…"
    role = _role(source, name)
    tools = _tools(source, role, warnings)
    if not tools:
        warnings.append(f"{source.label} has no tool that orchgit knows, so it could not work; left out")
        return None
    if not source.body:
        warnings.append(f"{source.label} has no prompt: below the front matter there is nothing")
    own = config.agent(name)
    model = _text(source, "model")
    model = own.model or ("" if model == "inherit" else model) or config.agents.model
    backend = _backend(source, config)
    member = Member(
        name=name,
        role=role,
        description=description,
        backend=own.backend or backend or config.agents.backend,
        model=ALIASES.get(model, model),
        allow=own.allow if own.allow is not None else _scope(source),
        deny=own.deny if own.deny is not None else (),
    )
    limits = _limits(source, config, name)
    return RosterMember(member, source.body, tools, limits, path)


def _text(source: _Source, key: str, *, required: bool = False) -> str:
    value = source.keys.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        what = f"{key!r} is missing" if value is None else f"{key!r} is not text: {value!r:.60}"
        raise source.wrong(key, what, f'write {key}: "…" between the --- lines')
    return value.strip()


def _list(source: _Source, key: str) -> tuple[str, ...] | None:
    """A list, or one string with commas; None when the key is not there."""
    if key not in source.keys:
        return None
    value = source.keys[key]
    if isinstance(value, str):
        value = re.split(r",(?![^(]*\))", value)  # not the comma in Bash(a, b)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value) or not value:
        right = f"write {key}: [a, b], or leave the line out"
        raise source.wrong(key, f"{key!r} is not a list of names: {source.keys[key]!r:.60}", right)
    return tuple(item.strip() for item in value)


def _role(source: _Source, name: str) -> Role:
    role = _text(source, "role")
    if not role:
        if name == "orchestrator":
            return "orchestrator"
        return "reviewer" if name == "reviewer" or name.endswith("-reviewer") else "worker"
    for known in get_args(Role):
        if role == known:
            return known  # type: ignore[no-any-return]
    near = _near(role, get_args(Role))
    raise source.wrong("role", f"no such role: {role!r}{near}", f"one of: {', '.join(get_args(Role))}")


def _tools(source: _Source, role: Role, warnings: list[str]) -> tuple[str, ...]:
    """Ours, in our order. A missing `tools:` or a `*` in it means all that the role may have."""
    listed = _list(source, "tools")
    taken: set[str] = set()
    unknown: list[str] = []
    if listed is None or "*" in listed:
        taken.update(ROLE_TOOLS[role])
    for item in () if listed is None else listed:
        tool = TOOLS.get(item.lower())  # not Bash(git *): a restriction we cannot keep gives no tool
        if tool:
            taken.add(tool)
        elif item != "*":
            unknown.append(item)
    for item in _list(source, "disallowedTools") or ():
        taken.discard(TOOLS.get(item.partition("(")[0].strip().lower(), ""))
    if unknown:
        line = source.lines["tools"]
        warnings.append(f"{source.label}, line {line}: not tools of orchgit's, left out: {', '.join(unknown)}")
    more = [tool for tool in TOOLS.values() if tool in taken and tool not in ROLE_TOOLS[role]]
    if more:
        an = "an" if role == "orchestrator" else "a"
        raise source.wrong(
            "tools",
            f"{an} {role} never writes, and this one lists {', '.join(t.capitalize() for t in dict.fromkeys(more))}",
            "write `tools: Read, Bash, Glob, Grep`; or `role: worker`, if it is to write",
        )
    return tuple(tool for tool in ROLE_TOOLS[role] if tool in taken)


def _backend(source: _Source, config: Config) -> str:
    name = _text(source, "backend")
    if name and name not in config.backends:
        what = f"no such backend: {name!r}{_near(name, config.backends)}"
        raise source.wrong("backend", what, f"one of: {', '.join(config.backends)}")
    return name


def _scope(source: _Source) -> tuple[str, ...]:
    patterns = _list(source, "scope") or ()
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except PatternError as error:
            raise source.wrong("scope", str(error), "for example: scope: [src/api/**, types/api.ts]") from error
    return patterns


def _limits(source: _Source, config: Config, name: str) -> Limits:
    """maxTurns narrows [agents], and gives way to [agents.NAME]."""
    limits, turns = config.limits(name), source.keys.get("maxTurns")
    if turns is None:
        return limits
    if type(turns) is not int or turns < 1:
        raise source.wrong("maxTurns", f"maxTurns is not a number of turns: {turns!r:.60}", "write maxTurns: 60")
    return limits if config.agent(name).turns is not None else replace(limits, turns=min(turns, limits.turns))


def names(root: Path) -> Mapping[str, Path]:
    """Name -> file, for what can be read; files that are broken are left out. For init."""
    found: dict[str, Path] = {}
    for path in agent_files(root):
        try:
            source = _Source(path.name, path.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, OrchgitError):
            continue
        name = source.keys.get("name")
        if isinstance(name, str):
            found.setdefault("orchestrator" if source.keys.get("role") == "orchestrator" else name, path)
    return found


def _near(name: str, known: Any) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _usage(what: str, why: str = "", hint: str = "") -> OrchgitError:
    return OrchgitError(Kind.USAGE, what, why, hint)
