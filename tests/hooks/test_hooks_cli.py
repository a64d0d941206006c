"""`orchgit hooks` as typed: every work tree, in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchgit import githooks
from tests.hooks.support import Clone, make_clone, script, snapshot


def orchgit(clone: Clone, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "orchgit", *args]
    return subprocess.run(argv, cwd=clone.path, env=clone.env, capture_output=True, text=True, check=False)


def of_hooks(found: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    return {k: v for k, v in found.items() if ("hooks" in k or "orchgit" in k) and "/refs/" not in k}


def test_every_hook_in_every_place_in_words_and_as_json(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "my  $HOME 'clone' ü")
    linked = Clone(tmp_path / "linked")
    clone.git("worktree", "add", "-q", str(linked.path))
    clone.git("config", "extensions.worktreeConfig", "true")
    linked.git("config", "--worktree", "core.hooksPath", ".githooks")
    script(linked.path / ".githooks/pre-push", "exit 0")
    script(clone.hooks / "pre-commit", "exit 0")
    before = snapshot(tmp_path)
    done = orchgit(clone, "hooks")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{clone.path}: git runs hooks from {clone.hooks}"
    assert lines[1] == (
        "  NOT in force  pre-commit: refuses a commit on a run's branch, and one that rewrites a run's log"
    )
    assert lines[2] == (
        f"                {clone.hooks}/pre-commit runs alone; `orchgit hooks install` puts the guard there"
    )
    assert f"{linked.path}: git runs hooks from {linked.path}/.githooks" in lines
    assert f"add to {linked.path}/.githooks/pre-push: " in done.stdout
    assert done.stdout.count("NOT in force") == 8
    assert snapshot(tmp_path) == before

    done = orchgit(linked, "hooks", "install")  # from either of them
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(f"{linked.path}: ")
    clone.guarded()
    found = json.loads(orchgit(clone, "hooks", "status", "--json").stdout)
    assert [place["work_tree"] for place in found] == [str(clone.path), str(linked.path)]
    assert found[0]["directory"] == str(clone.hooks)
    assert [hook["name"] for hook in found[0]["hooks"]] == list(githooks.NAMES)
    assert found[0]["hooks"][0] == {
        "name": "pre-commit",
        "in_force": True,
        "state": "chained",
        "guards": githooks.GUARDS["pre-commit"],
        "detail": f"then runs your own, {clone.hooks}.orchgit-chained/pre-commit",
    }
    assert all(hook["in_force"] for hook in found[0]["hooks"])
    assert not any(hook["in_force"] for hook in found[1]["hooks"])
    assert "which is not orchgit's to write" in found[1]["hooks"][2]["detail"]

    clone.git("branch", "-D", "free")
    assert orchgit(clone, "hooks", "uninstall").returncode == 0
    assert of_hooks(snapshot(tmp_path)) == of_hooks(before)


def test_what_is_not_known_and_what_cannot_be_written(clone: Clone) -> None:
    done = orchgit(clone, "hooks", "instal")
    assert done.returncode == 2
    assert "orchgit hooks install | status | uninstall" in done.stderr
    clone.hooks.rmdir()
    clone.hooks.write_text("a file")
    done = orchgit(clone, "hooks", "install")
    assert done.returncode == 2
    assert "cannot be changed" in done.stderr
    assert "a directory that you can write, then: orchgit hooks status" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variable", ["GIT_CONFIG_PARAMETERS", "GIT_DIR"])
def test_what_holds_for_one_command_only_is_not_taken_for_the_clone_s(clone: Clone, variable: str) -> None:
    """As `git -c core.hooksPath=x orchgit hooks install` would set it, and a hook that calls us."""
    clone.env[variable] = {"GIT_DIR": str(clone.path / ".git")}.get(variable, "'core.hookspath'='/elsewhere'")
    assert orchgit(clone, "hooks", "install").returncode == 0
    del clone.env[variable]
    clone.guarded()
