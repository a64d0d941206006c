"""The Claude Code plugin: whole, naming only commands that there are, with a hook that knows the scope.

With the real Claude Code, from npm: pytest -m whole tests/hooks/test_plugin.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchgit import __version__
from orchgit.__main__ import COMMANDS
from orchgit.agents import handin
from orchgit.cli.plugin import place
from orchgit.core.scope import Scope, hook_rules
from orchgit.git import cells
from orchgit.githooks import install_cell
from tests.support.cli_server import CliServer
from tests.support.clis import installed
from tests.support.repos import repository
from tests.support.scenario import SOURCE, bare_world

PLUGIN = place()


def texts() -> list[Path]:
    return sorted(p for p in PLUGIN.rglob("*") if p.is_file())


def test_it_is_whole() -> None:
    names = {str(p.relative_to(PLUGIN)) for p in texts()}
    assert {".claude-plugin/plugin.json", ".claude-plugin/marketplace.json", ".mcp.json", "hooks/hooks.json"} < names
    for path in texts():
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".md":
            keys = yaml.safe_load(path.read_text().split("---\n")[1])
            assert keys["description"]
    manifest = json.loads((PLUGIN / ".claude-plugin/plugin.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("orchgit", __version__)


def test_it_names_only_commands_that_there_are() -> None:
    named = {word for p in texts() for word in re.findall(r"[`(\"!]orchgit ([a-z-]+)", p.read_text())}
    named |= {word for p in texts() for word in re.findall(r"exec orchgit ([a-z-]+)", p.read_text())}
    assert {"start", "approve", "status", "resume", "pre-tool"} <= named
    assert named - {"run"} <= set(COMMANDS), named - set(COMMANDS)


def test_neither_agent_of_it_may_write_and_nobody_approves_but_the_user() -> None:
    for name in ("orchestrator", "reviewer"):
        keys = yaml.safe_load((PLUGIN / f"agents/{name}.md").read_text().split("---\n")[1])
        assert not {"Write", "Edit", "NotebookEdit", "*"} & {t.strip() for t in keys["tools"].split(",")}
    for path in (PLUGIN / "commands").glob("*.md"):
        keys = yaml.safe_load(path.read_text().split("---\n")[1])
        assert "approve" not in keys["allowed-tools"], "never without the user's own yes"
    approve = yaml.safe_load((PLUGIN / "commands/approve.md").read_text().split("---\n")[1])
    assert approve["disable-model-invocation"] is True


def test_the_command_tells_where_it_is(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    assert world.run("plugin", "--path", cwd=tmp_path).out.strip() == str(PLUGIN)
    assert "--plugin-dir" in world.run("plugin", cwd=tmp_path).out


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> cells.Cell:
    root = tmp_path_factory.mktemp("cell")
    repo = repository(root / "repo", {"src/a.py": b"a\n", "package.json": b"{}\n"})
    door, head = repo.door(), repo.commit()
    made = cells.make(door, root / "cell", head)
    scope = Scope(("src/**", "lock.json"), ("src/secret/**",))
    install_cell(str(made.git), hook_rules(scope), base=head, branch="refs/heads/x")
    (made.work / "src" / "out").symlink_to(made.work / "docs")
    (made.work / "docs").mkdir()
    door.close()
    return made


def hook(cell: cells.Cell, said: object, *, inside: bool = True) -> tuple[int, str]:
    """The hook's own script, as Claude Code calls it."""
    tools = cell.root / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "orchgit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchgit "$@"\n')
    (tools / "orchgit").chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE)}
    env |= {handin.BRIEF: "/somewhere"} if inside else {}
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    done = subprocess.run(["sh", str(PLUGIN / "hooks/scope.sh")], input=data, env=env, capture_output=True, check=False)
    return done.returncode, done.stderr.decode()


def edit(cell: cells.Cell, path: str, cwd: str = ".") -> dict[str, object]:
    return {"tool_name": "Write", "cwd": str(cell.work / cwd), "tool_input": {"file_path": path, "content": "x"}}


def test_the_hook_knows_the_scope(cell: cells.Cell) -> None:
    for path in (f"{cell.work}/src/new/b.py", "lock.json", str(cell.tmp / "scratch")):
        assert hook(cell, edit(cell, path)) == (0, ""), path
    for path, why in (
        ("src/secret/k", "denies"), ("src/../docs/a.md", "no pattern"), ("src/out/a.md", "no pattern"),
        ("src/package.json", "protected"),
    ):  # fmt: skip
        code, words = hook(cell, edit(cell, path))
        assert code == 2, path
        assert why in words
        assert "request-scope" in words
    assert hook(cell, edit(cell, "../docs/a.md", "src"))[0] == 2
    note = {"cwd": str(cell.work), "tool_input": {"notebook_path": "docs/n.ipynb"}}
    assert hook(cell, note)[0] == 2


def test_what_is_not_as_expected_passes(cell: cells.Cell, tmp_path: Path) -> None:
    """It fails open like every hook, and what it says is never what keeps the scope."""
    assert hook(cell, edit(cell, "docs/a.md"), inside=False) == (0, "")
    for said in (
        b"",
        b"{",
        {},
        {"cwd": "/", "tool_input": {"file_path": "x"}},
        {"cwd": str(tmp_path), "tool_input": {}},
    ):
        assert hook(cell, said)[0] == 0
    assert hook(cell, {"cwd": str(tmp_path), "tool_input": {"file_path": "x"}})[0] == 0


# -- the real Claude Code ----------------------------------------------------------------------------------------


@pytest.fixture(params=["claude", "claude-old"])
def claude(request: pytest.FixtureRequest) -> Path:
    place = installed(request.param)
    if isinstance(place, str):
        pytest.skip(place)
    return place / "claude"


def at_home(root: Path, **more: str) -> dict[str, str]:
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1"}
    return {"PATH": os.environ["PATH"], "HOME": str(root), "CLAUDE_CONFIG_DIR": str(root / "config"), **quiet, **more}


@pytest.mark.whole
def test_claude_code_finds_it_valid(claude: Path, tmp_path: Path) -> None:
    argv = [str(claude), "plugin", "validate", str(PLUGIN)]
    done = subprocess.run(argv, env=at_home(tmp_path), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.whole
def test_claude_code_asks_the_hook_before_it_writes(claude: Path, cell: cells.Cell, tmp_path: Path) -> None:
    hook(cell, {})  # makes the `orchgit` that it finds on PATH
    paths = (f"{cell.work}/docs/evil.md", f"{cell.work}/src/new.py")
    writes = [{"calls": [{"tool": "Write", "input": {"file_path": path, "content": "x"}}]} for path in paths]
    turns = [*writes, {"text": "done"}]
    with CliServer({"jobs": {"work/api/1": turns}, "default": {}}) as server:
        env = at_home(tmp_path, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="sk-ant-test-0123456789")
        env |= {handin.BRIEF: "/somewhere", "PYTHONPATH": str(SOURCE), "PATH": f"{cell.root}/bin:{env['PATH']}"}
        argv = [str(claude), "-p", "--output-format", "stream-json", "--verbose", "--plugin-dir", str(PLUGIN)]
        argv += ["--permission-mode", "acceptEdits"]
        done = subprocess.run(argv, input="orchgit-job: work/api/1\nDo it.", env=env, cwd=cell.work, text=True,
                              capture_output=True, check=False, timeout=180)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is outside your scope (no pattern of the scope covers it)" in done.stdout
    assert "orchgit:orchestrator" in done.stdout
    assert "orchgit:approve" in done.stdout
    assert not list((cell.work / "docs").iterdir())
    assert (cell.work / "src/new.py").read_text() == "x"
    (cell.work / "src/new.py").unlink()
