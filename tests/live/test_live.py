"""One small run against the real Messages API: costs a few cents, so only when somebody asks for it.

    ORCHGIT_LIVE=1 ANTHROPIC_API_KEY=... pytest -m live tests/live

ORCHGIT_LIVE_MODEL names another model. Nothing here says how good the work is: it shows that requests, strict tools,
streaming, thinking and the cache are what the service takes, which no server of ours can show.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
MODEL = os.environ.get("ORCHGIT_LIVE_MODEL", "claude-haiku-4-5")
CONFIG = """\
[run]
attempts = 2
reviewers = []
[agents]
turns = 25
seconds = 600
cost_usd = 0.50
"""
ISSUE = """\
# double(n)

calc.py gets a function `double(n)` that returns twice n, and test_calc.py a unittest for it (`python3 -m unittest`).
One assignment for api-agent is enough. The check is `python3 -m unittest -v test_calc`.
"""

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.environ.get("ORCHGIT_LIVE") != "1", reason="costs money: set ORCHGIT_LIVE=1 to run it"),
    pytest.mark.skipif(
        not any(os.environ.get(key, "").startswith("sk-") for key in KEYS), reason=f"needs a real key in {KEYS[0]}"
    ),
]


def test_a_small_feature(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}

    def run(*argv: str) -> str:
        done = subprocess.run(argv, cwd=repo, env=env, capture_output=True, text=True, check=False, timeout=1800)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    repo.mkdir()
    orchgit = str(Path(sys.executable).with_name("orchgit"))
    run("git", "init", "-q", "-b", "main")
    (repo / "calc.py").write_text("def add(a: int, b: int) -> int:\n    return a + b\n")
    (repo / ".orchestration").mkdir()
    (repo / ".orchestration/config.toml").write_text(CONFIG)
    (tmp_path / "issue.md").write_text(ISSUE)
    run(orchgit, "init")
    run("git", "add", "-A")
    run("git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "first")
    run(orchgit, "start", "../issue.md", "--backend", "anthropic", "--model", MODEL, "--yes", "-v")
    run(orchgit, "audit")
    report = json.loads(run(orchgit, "report", "--json"))
    assert report["phase"] == "completed"
    spent = [row["cost_micro"] for row in report["costs"]]
    assert all(cost is not None and cost > 0 for cost in spent)
    assert sum(spent) < 2_000_000
    integration = f"orchgit/{report['run']}/integration"
    code = run("git", "show", f"{integration}:calc.py") + "\nassert double(21) == 42\n"
    run(sys.executable, "-c", code)
