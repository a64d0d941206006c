"""The real Claude Code and the real Codex CLI as workers of one run, unmodified, in the real sandbox.

They come from npm and are installed once (tests/support/clis.py); their services are a server on loopback that plays a
playbook. `python -m pytest -m whole tests/cli/test_clis.py`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchgit.sandbox import SANDBOXES, sandbox
from tests.support.cli_server import CliServer
from tests.support.clis import installed
from tests.support.scenario import Book, World, digest, make, piece, report, turn, write

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


def ending(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return told(given) if name == "codex" else turn({"tool": "StructuredOutput", "input": given})


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
    world.commit({**UNWANTED, **({".orchestration/config.toml": f'[sandbox]\nlevel = "{level}"\n'} if level else {})})
    before, made = digest(world), book()
    server.book = {"jobs": made.jobs, "default": made.default}
    done = world.start(made, *WORKERS)
    assert "claude runs whole inside the sandbox, with its credential and an open network: api-agent" in done.err

    # The honest work is merged, and nothing else.
    started = world.one("run.started")["data"]["base"]
    assert world.files(world.ref(f"{world.name}/integration")) - world.files(started) == {
        *("src/api/billing.py", "src/api/more.py", "src/web/new.html", "src/web/more.html", "docs/billing.md"),
    }  # fmt: skip
    assert world.git("diff", "--name-status", started, f"orchgit/{world.name}/integration").count("A\t") == 5

    # What was tried outside is seen: by an edit tool, and by a shell.
    seen: dict[str, set[tuple[str, str]]] = {name: set() for name in ("api", "web", "docs")}
    for event in world.events("scope.violation_seen"):
        seen[event["data"]["assignment"]].add((event["data"]["layer"], event["data"]["path"]))
    by_shell = {("sandbox", "README.md"), ("sandbox", "docs/evil-sh.md"), ("sandbox", "../../evil")}
    assert seen["api"] == seen["web"] == {("tool", "docs/evil.md"), *by_shell}
    assert seen["docs"] == {("sandbox", "README.md")}

    # Reports, costs, session ids and the network are in the log.
    summaries = {ev["data"]["assignment"]: ev["data"]["summary"] for ev in world.events("agent.reported")}
    assert (summaries["api"], summaries["web"]) == ("the api, by Claude Code", "the web, by Codex")
    claude, codex = (world.one("agent.exited", member=name)["data"] for name in ("api-agent", "frontend-agent"))
    for ended, of in ((claude, "work/api/1"), (codex, "work/web/1")):
        assert ended["status"] == "done"
        assert ended["input_tokens"] > 10_000
        assert len(ended["conversation"]) == 36
        assert ended["conversation"] in world.blob(ended["transcript"])
        assert ended["conversation"] in json.dumps([r for r in server.requests if of in json.dumps(r)][-1])
    assert claude["cost_micro"] > 10_000
    assert codex["cost_micro"] is None
    networks = {ev["data"]["member"]: ev["data"]["network"] for ev in world.events("agent.started")}
    assert networks["api-agent"] == networks["frontend-agent"] == "open"

    # Nothing of the repository's or the user's configuration had a say; what the brief quotes is there once.
    for job in ("work/api/1", "work/web/1"):
        asked = [text for text in map(json.dumps, server.requests) if f"orchgit-job: {job}" in text]
        member = {"work/api/1": "api-agent", "work/web/1": "frontend-agent"}[job]
        brief = world.blob(world.one("agent.started", member=member)["data"]["brief"])
        assert {text.count("SAY-UNWANTED") for text in asked} == {brief.count("SAY-UNWANTED")}
    assert not (world.root / "hooked").exists()
    assert server.problems == []
    # The key went to the service alone.
    for path in (*world.runs.rglob("*"), *(world.root / "state").rglob("*")):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in str(done)
    assert {k: v for k, v in digest(world).items() if "orchgit" not in k} == before
    assert "violation" not in world.run("audit").out
    world.none_left()


UNWANTED = {
    "CLAUDE.md": "SAY-UNWANTED\n",
    "AGENTS.md": "SAY-UNWANTED\n",
    ".claude/settings.json": json.dumps(
        {"hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": "touch ../../../../../../hooked"}]}]}}
    ),
    ".mcp.json": json.dumps({"mcpServers": {"x": {"command": "touch", "args": ["../../../../../../hooked"]}}}),
    ".codex/config.toml": 'developer_instructions = "SAY-UNWANTED"\n',
}


@pytest.mark.parametrize("name", ["claude", "claude-old", "codex"])
def test_everybody_is_one_program(world: World, server: CliServer, name: str) -> None:
    """Orchestrator, worker, reviewer: all of a run by one CLI, found by itself, with no configuration."""
    there = installed(name)
    if isinstance(there, str):
        pytest.skip(there)
    world.extra_env["PATH"] = f"{there}:{os.environ['PATH']}"
    plan = {"goal": "It is built.", "reviewers": [], "assignments": [
        {"id": "api", "worker": "api-agent", "title": "The api", "task": "Do it.", "interface": "", "deny": [],
         "allow": ["src/api/**"], "inputs": [], "outputs": [], "depends_on": [], "symlinks": False,
         "checks": ["grep -n billing src/api/billing.py"]},
    ]}  # fmt: skip
    results: dict[str, dict[str, Any]] = {
        "plan/1": {"propose_plan": plan, "ask_questions": None},
        "verdict/api/1": {"give_verdict": {"decision": "accept", "reasons": []}},
        "review/security-reviewer/1": {"report_review": {"summary": "clean", "findings": [], "fixed": []}},
        "synthesis/1": {"write_synthesis": {"summary": "All of it.", "review_by_human": []}},
    }
    evil = "echo evil > src/api/evil.py; echo tried"
    if name == "codex":
        jobs = {key: [turn(shell(evil)), told(given)] for key, given in results.items()}
        jobs["work/api/1"] = [turn(shell("echo billing > src/api/billing.py")), told(result())]
    else:
        jobs = {
            key: [turn(claude("Bash", command=evil)), turn({"tool": "StructuredOutput", "input": given})]
            for key, given in results.items()
        }
        honest = claude("Write", file_path="${cwd}/src/api/billing.py", content="billing\n")
        jobs["work/api/1"] = [turn(honest), turn({"tool": "StructuredOutput", "input": result()})]
    server.book = {"jobs": jobs, "default": {}}
    done = world.run("start", str(world.issue()), "--yes")
    assert f"no backend is configured; using {name.partition('-')[0]}, which is here" in done.err
    started = world.one("run.started")["data"]["base"]
    changed = world.git("diff", "--name-only", started, f"orchgit/{world.name}/integration")
    assert changed == "src/api/billing.py"
    assert {ev["data"]["status"] for ev in world.events("agent.exited")} == {"done"}
    # Who only reads was stopped by the kernel, and it shows.
    assert len([ev for ev in world.events("agent.exited") if ev["data"]["refused"]]) == 4
    assert server.problems == []
    world.none_left()


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_more_scope_is_asked_for_and_the_conversation_goes_on(world: World, server: CliServer, name: str) -> None:
    asked = {"report": None, "request_scope": {"paths": ["docs/api.md"], "why": "it has to be written down"}}
    made = Book(piece("api", "api-agent", ["src/api/**"]))
    write_it = "echo billing > src/api/billing.py; mkdir -p docs; echo text > docs/api.md"
    do = shell(write_it) if name == "codex" else claude("Bash", command=write_it)
    made.jobs["work/api/1"] = [ending(name, asked), turn(do), ending(name, result())]
    server.book = {"jobs": made.jobs, "default": made.default}
    world.start(made, "--agent", f"api-agent={name}", code=4)
    world.run("grant", f"{world.name}/api")
    world.run("resume", code=None)
    assert world.one("run.completed")
    ends = [ev["data"] for ev in world.events("agent.exited", member="api-agent")]
    assert [end["status"] for end in ends] == ["done", "done"]
    assert ends[0]["conversation"] == ends[1]["conversation"]
    assert "docs/api.md" in world.files(world.ref(f"{world.name}/integration"))
    # The costs are of each part: the program itself adds them up.
    assert ends[1]["input_tokens"] < 4 * ends[0]["input_tokens"]


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_killed_in_mid_turn_it_is_taken_up_again(world: World, server: CliServer, name: str) -> None:
    made = Book(piece("api", "api-agent", ["src/api/**"]))
    first, then = "echo one > src/api/one.py; sleep 20", "cat src/api/one.py > src/api/two.py"
    if name == "codex":
        made.jobs["work/api/1"] = [turn(shell(first)), turn(shell(then)), told(result())]
    else:
        # Taken up, its conversation has a turn more, that says the last one was cut off.
        calls = [turn(claude("Bash", command=words)) for words in (first, then, then)]
        made.jobs["work/api/1"] = [*calls, turn({"tool": "StructuredOutput", "input": result()})]
    server.book = {"jobs": made.jobs, "default": made.default}
    engine = world.spawn(*world.start_args(made, "--yes", "--agent", f"api-agent={name}"))

    def working() -> list[int]:
        words = {}
        for pid in world.processes():
            with suppress(OSError):
                words[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if not any(w[:2] == [b"sleep", b"20"] for w in words.values()):
            return []
        own = (b"/claude", b"/claude.exe", b"/codex")
        return [pid for pid, w in words.items() if w[0].endswith(own) and {b"-p", b"exec"} & set(w)]

    for pid in world.wait_for(working, "the program at work"):
        os.kill(pid, signal.SIGKILL)
    assert engine.wait(60) == 0, world.said(engine)
    assert {"src/api/one.py", "src/api/two.py"} <= world.files(world.ref(f"{world.name}/integration"))
    ended = world.one("agent.exited", member="api-agent")["data"]
    assert (ended["status"], ended["cost_micro"]) == ("done", None)
    assert "interrupted" in world.blob(ended["transcript"]) or "killed" in world.blob(ended["transcript"])
    assert world.one("assignment.started")["data"]["attempt"] == 1


@pytest.mark.parametrize("name", ["claude", "claude-old"])
def test_the_job_is_offered_as_an_mcp_server(world: World, server: CliServer, name: str) -> None:
    if find_spec("mcp") is None:
        pytest.skip("the package mcp is not installed: pip install 'orchgit[mcp]'")
    there = installed(name)
    if isinstance(there, str):
        pytest.skip(there)
    world.extra_env["PATH"] = f"{there}:{os.environ['PATH']}"
    made = Book(piece("api", "api-agent", ["src/api/**"]))
    # The server is connected to in the background: what is called before that is told to try again.
    work = turn(claude("Bash", command="echo 1 > src/api/one.py; sleep 8"))
    made.jobs["work/api/1"] = [work, turn(claude("mcp__orchgit__scope")), ending("claude", result())]
    server.book = {"jobs": made.jobs, "default": made.default}
    world.start(made, "--agent", "api-agent=claude")
    said = world.blob(world.one("agent.exited", member="api-agent")["data"]["transcript"])
    results = [line for line in map(json.loads, said.splitlines()) if line["kind"] == "result" and line["ok"]]
    assert any("src/api/**" in line["text"] for line in results), said
    world.none_left()
