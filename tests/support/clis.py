"""The real Claude Code and the real Codex CLI, for the tests that ask for them: from npm, outside the repository.

They are installed once, into ORCHGIT_TEST_CLIS or ~/.cache/orchgit-tests, and used unmodified. Where that cannot be
done the tests say why they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = {
    "claude": ("@anthropic-ai/claude-code", "2.1.330"),
    "claude-old": ("@anthropic-ai/claude-code", "2.1.197"),
    "codex": ("@openai/codex", "0.169.0"),
}
PLACE = Path(os.environ.get("ORCHGIT_TEST_CLIS") or Path.home() / ".cache" / "orchgit-tests")


@cache
def installed(name: str) -> Path | str:
    """The directory that goes on PATH; or why there is none."""
    package, version = PACKAGES[name]
    place = PLACE / f"{name}-{version}"
    program = place / "node_modules" / ".bin" / name.partition("-")[0]
    if (place / "done").exists():
        return program.parent
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        return f"{name} comes from npm, and there is no npm here"
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text('{"private": true}')
    argv = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{package}@{version}"]
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        return f"{package} {version} cannot be installed: {done.stderr.strip()[-300:]}"
    script = place / "node_modules" / package / "install.cjs"  # what its own install script would run
    if script.exists():
        subprocess.run([node, script.name], cwd=script.parent, capture_output=True, check=False, timeout=120)
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False, timeout=60)
    if version not in said.stdout:
        return f"{package} {version} does not run here: {(said.stdout + said.stderr).strip()[-300:]}"
    (place / "done").touch()
    return program.parent
