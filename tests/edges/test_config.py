"""config.toml and the roster, on real files: the defaults, every way to be wrong, and what each is told."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest

from orchgit import config, roster, wire
from orchgit.agents import Limits, Purpose
from orchgit.agents.prices import Price, parse_overrides
from orchgit.config import Config, load, state_home
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.events import Budget, Settings
from orchgit.core.scope import PROTECTED

TEMPLATE = files("orchgit").joinpath("templates/config.toml").read_text("utf-8")


def put(root: Path, text: str) -> Path:
    path = root / config.CONFIG_PATH
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return root


def given(root: Path, text: str, **env: str) -> Config:
    return load(put(root, text), env)


def refused(root: Path, text: str, **env: str) -> str:
    with pytest.raises(OrchgitError) as caught:
        given(root, text, **env)
    assert caught.value.kind is Kind.USAGE
    return str(caught.value)


# -- the file ----------------------------------------------------------------------------------------------


def test_no_file_and_the_template_are_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, {}) == Config()
    assert given(tmp_path, TEMPLATE) == Config()


def test_the_template_gives_every_key_with_its_default_and_a_comment(tmp_path: Path) -> None:
    for section, field in Config.model_fields.items():
        if section in ("command", "prices"):
            continue  # tables by name, below
        assert f"[{section}]" in TEMPLATE
        for key, about in type(field.default).model_fields.items():
            if key != "by_name":
                pattern = rf"^#?{about.alias or key} = " if about.default is None else rf"^{about.alias or key} = "
                part = TEMPLATE.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
                assert re.search(pattern, part, re.MULTILINE), f"[{section}] {key}"
                assert re.search(r"^# \S", part, re.MULTILINE)
    for key in config.Command.model_fields:
        assert re.search(rf"^#{key} = ", TEMPLATE.partition("#[command.my-agent]")[2], re.MULTILINE), key
    for key in config.Price.model_fields:
        assert re.search(rf"^#{key} = ", TEMPLATE.partition("#[prices.my-model]")[2], re.MULTILINE), key
    for key in config.Agent.model_fields:
        assert re.search(rf"^#{key} = ", TEMPLATE.partition("#[agents.api-agent]")[2], re.MULTILINE), key


def test_the_examples_in_the_template_hold(tmp_path: Path) -> None:
    loaded = given(tmp_path, re.sub(r"(?m)^#(?=\S)", "", TEMPLATE))
    assert loaded.limits("api-agent") == Limits(100, 3600, 4_000_000, 10_000_000)
    assert loaded.limits("docs-agent") == Limits(60, 1800, 2_000_000, 5_000_000)
    assert loaded.settings(approval="human").budget == Budget(20_000_000, 10_000_000, 500, 14_400)
    assert loaded.settings(approval="human").assignment_budget == Budget(5_000_000, 2_000_000, 200, 7200)
    price = parse_overrides(loaded.options("anthropic")["prices"])["my-model"]
    assert price == Price(2_000_000, 10_000_000, 200_000, 2_500_000)
    assert loaded.agent("api-agent").deny == ("src/api/generated/**",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\n\nattemps = 3", "line 3: unknown key 'attemps' in [run]; did you mean 'attempts'?"),
        ("[rnu]\n", "line 1: unknown section 'rnu' at the top; did you mean 'run'?"),
        ('[run]\nattempts = "3"', 'line 2: [run] attempts = "3" is not allowed: a whole number from 1 to 20'),
        ("[run]\nattempts = true", "[run] attempts = true is not allowed: a whole number"),
        ("[run]\nattempts = 0", "[run] attempts = 0 is not allowed: a whole number from 1 to 20"),
        ("run.rounds = 1.5", "line 1: [run] rounds = 1.5 is not allowed"),
        ('[run]\nblocking = "bad"', 'one of "critical", "high", "medium", "low", "info"'),
        ('[run]\nreviewers = "x"', "a list of strings"),
        ("[notify]\ncommand = ['a', 1]", "[notify] command[1] = 1 is not allowed"),
        ("run = 3", "line 1: run = 3 is not allowed: a table: write [run]"),
        ("[network]\nchecks = 1", "one of"),
        ("[agents]\ncost_usd = 0", "[agents] cost_usd = 0 is not allowed: a number above 0"),
        ("[agents]\ncost_usd = inf", "cost_usd = inf is not allowed"),
        ('[agents]\nbackend = "antropic"', "no such backend; did you mean 'anthropic'?"),
        ("[agents]\nturn = 3", "unknown key 'turn' in [agents]; did you mean 'turns'?"),
        ("[agents]\nby_name = 3", "unknown key 'by_name' in [agents]"),
        ("[agents.x]\nname = 'y'", "unknown key 'name' in [agents.x]"),
        ("[agents.a]\n[agents.b]\ntokns = 1", "line 3: unknown key 'tokns' in [agents.b]; did you mean 'tokens'?"),
        ("[agents.b]\nallow = ['ok/**', '/etc']", 'line 2: [agents.b] allow[1] = "/etc" is not allowed'),
        ("[budget]\ncost_usd = -1", "[budget] cost_usd = -1 is not allowed: a number above 0"),
        ("[prices.m]\ninput = 1\noutput = 2\ncache_read = 3", "[prices.m] has no cache_write"),
        ("[prices]\n[prices.m]\ninput = -1", "line 3: [prices.m] input = -1 is not allowed"),
        ("[prices.m]\ninptu = 1", "unknown key 'inptu' in [prices.m]; did you mean 'input'?"),
        ("[cells]\ncopy = ['../x']", 'copy[0] = "../x" is not allowed: write one path inside the repository'),
        ("[cells]\ncopy = ['.git/config']", ".git is never copied into a cell"),
        ("[cells]\ncopied = ['x']", "unknown key 'copied' in [cells]; did you mean 'copy'?"),
        ("[cells]\ndirectory = 'cells'", "give an absolute path outside the repository"),
        ("[run]\nattempts = \n", "line 2, column 12: not TOML"),
        ("[run]\nattempts = [", "line 2, column 13: not TOML"),
        ("[run]\nrounds = 1\nrounds = 2", "line 3, column 11: not TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, text)
    assert said in message
    assert message.startswith(".orchestration/config.toml")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, "[run]\natempts = 1\nrounds = 0\n[ship]\nmode = 'mail'\n")
    assert [f"line {n}" in message for n in (2, 3, 5)] == [True] * 3


def test_a_credential_is_refused_and_not_repeated(tmp_path: Path) -> None:
    secret = "sk-ant-api03-abcdefghij"
    message = refused(tmp_path, f"[notify]\ncommand = ['curl', '{secret}']")
    assert "line 2: this looks like a credential" in message
    assert secret not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = put(tmp_path, "") / config.CONFIG_PATH
    path.write_bytes(b"\xff")
    with pytest.raises(OrchgitError, match="cannot be read"):
        load(tmp_path, {})
    path.unlink()
    path.mkdir()
    with pytest.raises(OrchgitError, match="cannot be read"):
        load(tmp_path, {})


# -- what becomes of it ------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_but_not_over_one_agent(tmp_path: Path) -> None:
    text = "[agents]\nbackend = 'anthropic'\n[agents.a]\nbackend = 'anthropic'"
    loaded = given(tmp_path, text, ORCHGIT_BACKEND="scripted", ORCHGIT_PLAYBOOK="p/book.json", ORCHGIT_MODEL="m")
    assert loaded.agents.backend == "scripted"
    assert loaded.agent("a").backend == "anthropic"
    assert loaded.options("scripted") == {"playbook": str(tmp_path / "p/book.json")}
    assert "environment variable ORCHGIT_BACKEND" in refused(tmp_path, "", ORCHGIT_BACKEND="x")


def test_what_is_kept_with_the_run_is_the_same_config_and_nothing_of_the_environment(tmp_path: Path) -> None:
    loaded = given(tmp_path, "[agents.a]\nturns = 3\ncost_usd = 0.1", ANTHROPIC_API_KEY="hush", HOME="/h")
    assert Config.from_json(loaded.to_json()) == loaded
    assert Config.from_json(loaded.to_json()).to_json() == loaded.to_json()
    assert "hush" not in loaded.to_json()
    assert loaded.limits("a").cost_micro == 100_000
    hash(loaded)  # frozen to the bottom
    for text in ("", "{}x", '{"run":{"attempts":0}}', '{"new":{}}'):
        with pytest.raises(OrchgitError) as caught:
            Config.from_json(text)
        assert caught.value.kind is Kind.FAULT


def test_settings(tmp_path: Path) -> None:
    loaded = given(tmp_path, "[run]\nattempts = 5\nblocking = 'high'\nreviewers = []\n[ship]\nmode = 'merge'")
    assert loaded.settings(approval="policy") == Settings(
        attempts=5, blocking="high", reviewers=(), approval="policy", ship="merge"
    )
    assert loaded.settings(approval="human", ship="none").ship == "none"
    assert Config().settings(approval="human") == Settings(reviewers=("security-reviewer",))


def test_options_hold_only_what_was_set(tmp_path: Path) -> None:
    assert Config().options("anthropic") == {"thinking": "adaptive", "long_context": "100000"}
    text = "[anthropic]\nthinking = 'off'\neffort = 'low'"
    assert given(tmp_path, text).options("anthropic") == {"thinking": "off", "effort": "low", "long_context": "100000"}
    assert Config().options("scripted") == {}


def test_where_cells_lie(tmp_path: Path) -> None:
    assert state_home(Config(), {"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/orchgit")
    assert state_home(Config(), {"XDG_STATE_HOME": "s", "HOME": "/h"}) == Path("/h/.local/state/orchgit")
    with pytest.raises(OrchgitError, match="no place for cells"):
        state_home(Config(), {})
    repository = tmp_path / "repo"
    repository.mkdir()
    outside = given(repository, "[cells]\ndirectory = '~/cells'", HOME=str(tmp_path))
    assert state_home(outside, {}) == tmp_path / "cells"
    (tmp_path / "link").symlink_to(repository)
    for inside in (repository, repository / "cells", tmp_path / "link/cells"):
        assert "cannot be used" in refused(repository, f"[cells]\ndirectory = '{inside}'")


# -- the roster --------------------------------------------------------------------------------------------

WORKER = "name: api\ndescription: builds"


def agents(root: Path, **texts: str) -> Path:
    directory = root / roster.AGENTS_DIR
    directory.mkdir(parents=True, exist_ok=True)
    for name, front in texts.items():
        text = front if front.startswith(("---", "#")) else f"---\n{front}\n---\n\nYou are {name}.\n"
        (directory / f"{name}.md").write_text(text, "utf-8")
    return root


def member(root: Path, front: str, **about: Any) -> roster.RosterMember:
    loaded = roster.load(agents(root, it=front, spare="name: spare\ndescription: d"), Config(**about))
    return next(m for m in loaded.members if m.path is not None and m.path.name == "it.md")


def broken(root: Path, **texts: str) -> str:
    with pytest.raises(OrchgitError) as caught:
        roster.load(agents(root, **{"spare": "name: spare\ndescription: d", **texts}), Config())
    assert caught.value.kind is Kind.USAGE
    return str(caught.value)


def test_a_worker(tmp_path: Path) -> None:
    found = member(tmp_path, WORKER + "\nmodel: opus\nscope: [src/api/**, types/api.ts]\nbackend: scripted")
    assert found.member.role == "worker"
    assert (found.member.model, found.member.backend) == ("claude-opus-5-5", "scripted")
    assert found.member.allow == ("src/api/**", "types/api.ts")
    assert found.prompt == "You are it."
    assert found.tools == ("read", "glob", "grep", "bash", "write", "edit")
    assert found.limits == Limits()


@pytest.mark.parametrize(
    ("front", "role"),
    [
        ("name: orchestrator", "orchestrator"),
        ("name: reviewer", "reviewer"),
        ("name: code-reviewer", "reviewer"),
        ("name: code-reviewer\nrole: worker", "worker"),
        ("name: reviewer-of-x", "worker"),
        ("name: boss\nrole: orchestrator", "orchestrator"),
    ],
)
def test_roles(tmp_path: Path, front: str, role: str) -> None:
    found = member(tmp_path, front + "\ndescription: d")
    assert found.member.role == role
    assert ("write" in found.tools) == (role == "worker")


@pytest.mark.parametrize(
    ("keys", "tools"),
    [
        ("tools: Read, Bash", ("read", "bash")),
        ("tools: [Read, MultiEdit, NotebookEdit]", ("read", "edit")),
        ("tools: '*'", ("read", "glob", "grep", "bash", "write", "edit")),
        ("tools: Read, Bash(git log:*, git diff:*), WebFetch", ("read",)),
        ("disallowedTools: Write, Edit, Bash(rm *)", ("read", "glob", "grep")),
    ],
)
def test_tools(tmp_path: Path, keys: str, tools: tuple[str, ...]) -> None:
    assert member(tmp_path, f"{WORKER}\n{keys}").tools == tools


def test_a_tool_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    loaded = roster.load(agents(tmp_path, it=WORKER + "\ntools: Read, Bash(git *), WebFetch"), Config())
    assert ".claude/agents/it.md, line 4: not tools of orchgit's, left out: Bash(git *), WebFetch" in loaded.warnings


def test_the_configuration_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    text = "[agents]\nmodel = 'haiku'\nbackend = 'anthropic'\n"
    front = WORKER + "\nmodel: inherit\nscope: a/**\nmaxTurns: 7"
    agents(tmp_path, it=front)
    found = roster.load(tmp_path, given(tmp_path, text)).get("api")
    assert (found.member.model, found.member.backend) == ("claude-haiku-5-5", "anthropic")
    assert (found.member.allow, found.limits.turns) == (("a/**",), 7)
    text += "[agents.api]\nmodel = 'x'\nbackend = 'scripted'\nallow = ['b/**']\ndeny = ['b/c']\nturns = 9"
    found = roster.load(tmp_path, given(tmp_path, text)).get("api")
    assert (found.member.model, found.member.backend, found.limits.turns) == ("x", "scripted", 9)
    assert (found.member.allow, found.member.deny) == (("b/**",), ("b/c",))


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("---\nname: x\n", ("it.md, line 1: the front matter is not closed", "a line with only ---")),
        ("name: x", ("it.md, line 1: 'description' is missing", 'write description: "')),
        ("description: x", ("it.md, line 1: 'name' is missing", "write name:")),
        ("name: no\ndescription: x", ("it.md, line 2: 'name' is not text: False",)),
        ("name: a b\ndescription: x", ("line 2: the name 'a b' is not usable", "use letters")),
        ("name: x\nname: y\ndescription: x", ("line 3: 'name' stands here a second time", "line 2")),
        ("name: x\ndescription: d\ntools: [Read", ("it.md, line", "not YAML", "put quotes")),
        ("name: x\ncolor: a: b", ("it.md, line 3: the front matter is not YAML",)),
        ("- a", ("it.md, line 1: the front matter is not a list of keys",)),
        ("[a]: b", ("it.md",)),
        (WORKER + "\ntools:", ("line 4: 'tools' is not a list of names: None", "leave the line out")),
        (WORKER + "\nrole: reviwer", ("line 4: no such role: 'reviwer' (did you mean 'reviewer'?)", "one of:")),
        (WORKER + "\nscope: [/etc]", ("line 4: /etc: must not begin with '/'", "for example")),
        (WORKER + "\nbackend: scriptd", ("line 4: no such backend: 'scriptd' (did you mean 'scripted'?)",)),
        (WORKER + "\nmaxTurns: many", ("line 4: maxTurns is not a number",)),
    ],
)
def test_broken_front_matter(tmp_path: Path, front: str, said: tuple[str, ...]) -> None:
    message = broken(tmp_path, it=front)
    for words in (".claude/agents/it.md", *said):
        assert words in message


@pytest.mark.parametrize("tools", ["Read, Write", "[Read, Edit]", "Read, MultiEdit", "Read, write"])
@pytest.mark.parametrize("name", ["orchestrator", "x-reviewer"])
def test_who_must_not_write_cannot_be_given_a_pen(tmp_path: Path, name: str, tools: str) -> None:
    message = broken(tmp_path, it=f"name: {name}\ndescription: d\ntools: {tools}")
    assert ".claude/agents/it.md, line 4" in message
    assert "never writes" in message
    assert "tools: Read, Bash, Glob, Grep" in message


def test_two_of_a_name_and_two_orchestrators(tmp_path: Path) -> None:
    message = broken(tmp_path, one=WORKER, two=WORKER)
    assert ".claude/agents/one.md and .claude/agents/two.md" in message
    boss = "name: boss\ndescription: d\nrole: orchestrator"
    message = broken(tmp_path, one=boss, two=boss.replace("boss", "orchestrator"))
    assert "more than one orchestrator" in message


def test_what_is_missing_comes_from_the_templates_and_is_said(tmp_path: Path) -> None:
    loaded = roster.load(agents(tmp_path, it=WORKER), Config())
    assert loaded.orchestrator.path is None
    assert loaded.orchestrator.prompt
    assert loaded.get("security-reviewer").path is None
    assert len(loaded.warnings) == 2
    assert "orchestrator: the built-in one is used" in loaded.warnings[0]


def test_a_configuration_about_nobody_is_refused(tmp_path: Path) -> None:
    agents(tmp_path, it=WORKER)
    with pytest.raises(OrchgitError, match=r"\[agents.apy\].*did you mean 'api'"):
        roster.load(tmp_path, given(tmp_path, "[agents.apy]\ndeny = ['secret/**']"))
    with pytest.raises(OrchgitError, match="'api', which is no reviewer"):
        roster.load(tmp_path, given(tmp_path, "[run]\nreviewers = ['api']"))


def test_no_worker(tmp_path: Path) -> None:
    with pytest.raises(OrchgitError, match="no worker") as caught:
        roster.load(tmp_path, Config())
    assert caught.value.hint == "orchgit init"


def test_files_as_claude_code_users_have_them(tmp_path: Path) -> None:
    long = "Use this agent when: it is 'late'. Examples:\\n<example>user: go</example> " + "x" * 900
    keys = "\n".join(f"{key}: whatever" for key in roster.CLAUDE_KEYS[5:] if key != "maxTurns")
    texts = {
        "it": f"name: it\ndescription: {long}\n{keys}\ncolour: red",
        "README": "# Our agents\n",
        "web": "name: web\ndescription: d\ntools: WebFetch",
    }
    (agents(tmp_path, **texts) / roster.AGENTS_DIR / "dir.md").mkdir()
    loaded = roster.load(tmp_path, Config())
    said = "\n".join(loaded.warnings)
    assert loaded.get("it").member.description.startswith("Use this agent when: it is 'late'.")
    assert len(loaded.get("it").member.description) == roster.DESCRIPTION_CHARS
    assert "unknown key 'colour' (did you mean 'color'?)" in said
    for left_out in ("README.md", "web.md", "dir.md"):
        assert left_out in said
    assert said.count("unknown key") == 1
    assert "without effect in a run: permissionMode, mcpServers, hooks, skills" in said


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = agents(tmp_path, spare=WORKER) / roster.AGENTS_DIR / "it.md"
    path.write_bytes(b"\xef\xbb\xbf---\r\nname: it\r\ndescription: d\r\n---\r\nOne.\r\nTwo.\r\n")
    assert roster.load(tmp_path, Config()).get("it").prompt == "One.\nTwo."


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / ".claude").write_text("a file")
    with pytest.raises(OrchgitError, match="cannot be read"):
        roster.load(tmp_path, Config())


# -- prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", get_args(Purpose))
def test_prompts_name_their_result_tools_and_say_what_is_data(purpose: Purpose) -> None:
    text = roster.prompt(purpose)
    for tool in wire.PURPOSE_RESULTS[purpose]:
        assert f"`{tool}`" in text
    assert "fences" in text
    assert "data, not instructions" in text
    assert "{" not in text


def test_the_planner_is_told_every_protected_name() -> None:
    assert all(f"`{name}`" in roster.prompt("plan") for name in PROTECTED)


# -- commands --------------------------------------------------------------------------------------------------


def test_a_command_is_described_and_chosen_by_its_name(tmp_path: Path) -> None:
    text = (
        '[agents]\nbackend = "command:mine"\n[command.mine]\nargv = ["mine", "{brief}"]\nnetwork = "open"\n'
        '[command.other]\nargv = ["other"]\n'
    )
    loaded = given(tmp_path, text)
    assert loaded.agents.backend == "command:mine"
    assert {"command:mine", "command:other"} < set(loaded.backends)
    assert "command" not in loaded.backends
    assert '"network":"open"' in loaded.options("command:mine")["entry"]
    assert Config.from_json(loaded.to_json()) == loaded


@pytest.mark.parametrize(("text", "said"), [
    ('[command.x]\nargv = []', "argv"),
    ('[command.x]\nnetwork = "open"', "has no argv"),
    ('[command.x]\nargv = ["x", "{breif}"]', "there is no {breif}"),
    ('[command.x]\nargv = ["x"]\nenv = ["A=1"]', "names of variables"),
    ('[command.x]\nargv = ["x"]\nhome = ["../up"]', "below your HOME"),
    ('[command.x]\nargv = ["x"]\nhome = ["~/.x"]', "below your HOME"),
    ('[command.x]\nargv = ["x"]\nrepport = "text"', "'repport' in [command.x]; did you mean 'report'"),
    ('[command.x]\nargv = ["x"]\nnetwork = "all"', '"loopback"'),
    ('[command."a b"]\nargv = ["x"]', "a name is of letters"),
    ("[command]\nargv = 3", "[command"),
    ("command = 3", "a table"),
    ('[agents]\nbackend = "command:y"\n[command.yy]\nargv = ["x"]', "no [command.y]; did you mean 'command:yy'"),
    ('[agents.a]\nbackend = "command:y"', "line 2: there is no [command.y]"),
])  # fmt: skip
def test_every_way_to_describe_a_command_wrongly(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


DOCS = (Path(config.__file__).parent.parent / "docs" / "agents.md").read_text("utf-8")


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL))
def test_the_examples_of_the_docs_are_valid(tmp_path: Path, example: str) -> None:
    assert given(tmp_path, example) != Config()


def test_the_results_of_the_docs_are_valid() -> None:
    for line in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)[0].splitlines():
        ((name, value),) = json.loads(line).items()
        wire.parse(wire.RESULTS[name][0], value)
