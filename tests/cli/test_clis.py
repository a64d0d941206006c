"""The real Claude Code and the real Codex CLI as workers of one run, unmodified, in the real sandbox.

They come from npm and are installed once (tests/support/clis.py); their services are a server on loopback that plays a
playbook. `python -m pytest -m whole tests/cli/test_clis.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchgit.sandbox import SANDBOXES, sandbox
from tests.support.cli_server import CliServer
from tests.support.clis import installed
from tests.support.scenario import Book, World, make, piece, report, turn, write

pytestmark = pytest.mark.whole
KEY = "sk-ant-dummy-0123456789-never-to-be-seen"
CLIS = {name: installed(name) for name in ("claude", "codex")}
WORKERS = ("--backend", "scripted", "--agent", "api-agent=claude", "--agent", "frontend-agent=codex")


def patch(*files: str) -> dict[str, Any]:
    added = "".join(f"*** Add File: {name}\n+by the patch\n" for name in files)
    return {"tool": "apply_patch", "input": {"patch": f"*** Begin Patch\n{added}*** End Patch"}}


def shell(command: str) -> dict[str, Any]:
    return {"tool": "exec_command", "input": {"cmd": command}}


def claude(tool: str, **given: Any) -> dict[str, Any]:
    return {"tool": tool, "input": given}


def result(summary: str = "done", **more: Any) -> dict[str, Any]:
    return {"report": {"summary": summary, "produced": [], "blockers": [], **more}, "request_scope": None}


def told(given: dict[str, Any]) -> dict[str, Any]:
    return {"text": json.dumps(given)}


def book() -> Book:
    """Three workers; each writes its part, and tries what is not its own by an edit tool and by its shell."""
    made = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]),
        piece("web", "frontend-agent", ["src/web/**"], checks=["grep -n patch src/web/new.html"]),
        piece("docs", "docs-agent", ["docs/**"], checks=["grep -n billing docs/billing.md"]),
    )
    evil = "echo evil > README.md; echo evil > docs/evil-sh.md; echo evil > ../../evil; echo tried"
    made.jobs["work/api/1"] = [
        turn(claude("Write", file_path="${cwd}/docs/evil.md", content="evil\n")),
        turn(claude("Bash", command=evil)),
        turn(
            claude("Write", file_path="${cwd}/src/api/billing.py", content="billing = 1\n"),
            claude("Bash", command="echo 'more = 2' > src/api/more.py"),
        ),
        turn({"tool": "StructuredOutput", "input": result("the api, by Claude Code")}),
    ]
    made.jobs["work/web/1"] = [
        turn(patch("docs/evil.md")),
        turn(shell(evil)),
        turn(patch("src/web/new.html"), shell("echo '<p>more</p>' > src/web/more.html")),
        told(result("the web, by Codex")),
    ]
    made.work("docs", turn(write("README.md", "evil\n")), turn(write("docs/billing.md", "billing\n")), turn(report()))
    return made


@pytest.fixture
def server() -> Iterator[CliServer]:
    with CliServer({}, key=KEY) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, server: CliServer) -> Iterator[World]:
    for name, found in CLIS.items():
        if isinstance(found, str):
            pytest.skip(f"{name}: {found}")
    world = make(tmp_path)
    world.extra_env |= {
        "PATH": ":".join([*map(str, CLIS.values()), os.environ["PATH"]]),
        "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY,
    }  # fmt: skip
    yield world
    world.close()


@pytest.mark.parametrize("level", ["", "landlock"])
def test_three_workers_of_three_kinds(world: World, server: CliServer, level: str) -> None:
    held = sandbox(level or next(iter(SANDBOXES))).probe()
    if isinstance(held, str) or not held.prevented:
        pytest.skip(f"the sandbox {level or next(iter(SANDBOXES))} does not hold here: {held}")
    if level:
        world.commit({".orchestration/config.toml": f'[sandbox]\nlevel = "{level}"\n'})
    made = book()
    server.book = {"jobs": made.jobs, "default": made.default}
    done = world.start(made, *WORKERS, code=None)
    print(done)
    for ev in world.events("agent."):
        print(ev["type"], json.dumps(ev["data"])[:600])
        if ev["type"] == "agent.exited" and ev["data"]["transcript"]:
            print(world.blob(ev["data"]["transcript"])[:6000])
    for ev in world.events("scope"):
        print(ev["type"], json.dumps(ev["data"])[:600])
    assert done.code == 0
