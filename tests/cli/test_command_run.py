"""A whole run in which everybody is a program of the user's, which knows nothing of orchgit but two files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import World, make, piece, plan_of

# Plans, works, judges and sums up. It lies first: it says that it is done, and has only written outside its scope.
AGENT = """
import json, os, pathlib, re
brief = pathlib.Path(os.environ["ORCHGIT_BRIEF"]).read_text()
key = re.search("^orchgit-job: (.*)$", brief, re.M)[1]
what = key.split("/")[0]
if key == "work/api/1":
    try:
        pathlib.Path("docs/index.md").write_text("mine now")
    except OSError as error:
        print("refused:", error)
    result = {"report": {"summary": "all done, believe me", "produced": ["src/api/billing.py"]}}
elif key == "work/api/2":
    pathlib.Path("src/api/billing.py").write_text("billing = 1\\n")
    result = {"report": {"summary": "billing"}}
elif what == "verdict":
    result = {"give_verdict": {"decision": "accept"}}
elif what == "review":
    result = {"report_review": {"summary": "clean"}}
elif what == "synthesis":
    result = {"write_synthesis": {"summary": "All of it fits."}}
else:
    result = {"propose_plan": json.loads(os.environ["THE_PLAN"])}
pathlib.Path(os.environ["ORCHGIT_RESULT"]).write_text(json.dumps(result))
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def described(world: World, **more: object) -> None:
    entry = {"argv": [sys.executable, "-c", AGENT], "env": ["THE_PLAN"], **more}
    lines = [
        "[agents]",
        'backend = "command:mine"',
        "[command.mine]",
        *(f"{k} = {json.dumps(v)}" for k, v in entry.items()),
    ]
    world.put({".orchestration/config.toml": "\n".join(lines) + "\n"})
    plan = plan_of(piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]))
    world.extra_env["THE_PLAN"] = json.dumps(plan)


def test_from_the_plan_to_the_synthesis(world: World) -> None:
    described(world, network="open")
    listed = world.run("agents").out
    assert "command:mine" in listed
    assert "network open" in listed
    world.run("start", str(world.issue()), "--yes")
    # What it claimed counted for nothing: git had nothing.
    assert [ev["data"]["status"] for ev in world.events("agent.exited", member="api-agent")] == ["done", "done"]
    assert len(world.events("assignment.started")) == 2
    tree = world.tree(f"orchgit/{world.name}/integration")
    assert tree["src/api/billing.py"] == "billing = 1"
    assert tree["docs/index.md"] == "# Docs"
    started = [ev["data"] for ev in world.events("agent.started")]
    assert {(s["backend"], s["network"]) for s in started} == {("command:mine", "open")}
    transcript = world.blob(world.events("agent.exited", member="api-agent")[0]["data"]["transcript"])
    assert "refused:" in transcript
    seen = world.one("scope.violation_seen", layer="sandbox")["data"]
    assert seen["path"] == "docs/index.md"
    world.run("audit")
    world.none_left()


def test_one_that_is_not_described_is_not_replaced_by_another(world: World) -> None:
    described(world)
    refused = world.run("start", str(world.issue()), "--yes", "--backend", "command:other", code=5)
    assert "command:other" in refused.err
    assert not world.names()
