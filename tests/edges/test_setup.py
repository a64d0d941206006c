"""What `orchgit init` writes, in real directories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchgit import config, roster, setup
from orchgit.core.errors import Kind, OrchgitError


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


def test_what_init_writes_is_a_roster_and_a_configuration_without_a_warning(tmp_path: Path) -> None:
    written = setup.init(tmp_path)
    assert {w.state for w in written} == {"written"}
    assert set(tree(tmp_path)) == {
        *(f".claude/agents/{name}.md" for name in setup.AGENTS),
        ".orchestration/config.toml",
        ".orchestration/.gitignore",
    }
    loaded = roster.load(tmp_path, config.load(tmp_path, {}))
    assert loaded.warnings == ()
    roles = {m.member.name: m.member.role for m in loaded.members}
    assert roles == {
        "orchestrator": "orchestrator",
        **dict.fromkeys(("api-agent", "frontend-agent", "test-agent", "docs-agent"), "worker"),
        **dict.fromkeys(("security-reviewer", "performance-reviewer"), "reviewer"),
    }
    for found in loaded.members:
        assert ("write" in found.tools) == ("edit" in found.tools) == (found.member.role == "worker")
        assert found.path is not None
        text = found.path.read_text()
        worker = found.member.role == "worker"
        listed = "Read, Write, Edit, Bash, Glob, Grep" if worker else "Read, Bash, Glob, Grep"
        assert f"\ntools: {listed}\n" in text


def test_the_scopes_suggested_in_the_files_are_scopes(tmp_path: Path) -> None:
    setup.init(tmp_path)
    for path in roster.agent_files(tmp_path):
        path.write_text(path.read_text().replace("# scope:", "scope:"))
    members = roster.load(tmp_path, config.load(tmp_path, {})).members
    assert all(bool(m.member.allow) == (m.member.role == "worker") for m in members)


def test_twice_changes_nothing(tmp_path: Path) -> None:
    setup.init(tmp_path)
    before = tree(tmp_path)
    assert {w.state for w in setup.init(tmp_path)} == {"kept"}
    assert tree(tmp_path) == before


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / ".claude/agents").mkdir(parents=True)
    (tmp_path / ".claude/agents/api-agent.md").write_text("mine")
    (tmp_path / ".orchestration").mkdir()
    (tmp_path / ".orchestration/config.toml").symlink_to("/nowhere/at/all")
    kept = {w.path.name for w in setup.init(tmp_path) if w.state == "kept"}
    assert kept == {"api-agent.md", "config.toml"}
    assert (tmp_path / ".claude/agents/api-agent.md").read_text() == "mine"
    assert os.readlink(tmp_path / ".orchestration/config.toml") == "/nowhere/at/all"


def test_an_agent_that_is_there_under_another_file_name_gets_no_twin(tmp_path: Path) -> None:
    directory = tmp_path / ".claude/agents"
    directory.mkdir(parents=True)
    (directory / "backend.md").write_text("---\nname: api-agent\ndescription: d\n---\nYou.\n")
    (directory / "boss.md").write_text("---\nname: boss\nrole: orchestrator\ndescription: d\n---\nYou.\n")
    (directory / "broken.md").write_text("---\nname: [\n---\n")
    states = {w.path.name: w.state for w in setup.init(tmp_path)}
    assert (states["backend.md"], states["boss.md"]) == ("kept", "kept")
    (directory / "broken.md").unlink()
    assert roster.load(tmp_path, config.load(tmp_path, {})).orchestrator.member.name == "boss"


@pytest.mark.parametrize("directory", setup.DIRECTORIES)
def test_a_link_or_a_file_in_the_way_stops_it_before_anything_is_written(tmp_path: Path, directory: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / directory).parent.mkdir(parents=True)
    outside.mkdir()
    (root / directory).symlink_to(outside)
    with pytest.raises(OrchgitError, match="is a symbolic link to") as caught:
        setup.init(root)
    assert caught.value.kind is Kind.USAGE
    (root / directory).unlink()
    (root / directory).write_text("a file")
    with pytest.raises(OrchgitError, match="is not a directory"):
        setup.init(root)
    assert tree(outside) == {}
    assert set(tree(root)) == {directory}


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(OrchgitError) as caught:
        setup.init(tmp_path / "root")
    assert caught.value.kind is Kind.USAGE


def test_git_ignores_runs_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    setup.init(tmp_path)
    runs = tmp_path / ".orchestration/runs"
    runs.mkdir()
    (runs / "r1").symlink_to("/somewhere")
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    ).stdout
    assert "runs" not in listed
    assert len(listed.splitlines()) == 9


def test_no_temporary_file_is_left_and_the_mode_is_a_plain_one(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        setup.init(tmp_path)
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_file()}
    assert modes == {0o644}
    assert len(tree(tmp_path)) == 9


def test_this_repository_is_set_up() -> None:
    here = Path(__file__).resolve().parents[2]
    assert (here / config.CONFIG_PATH).is_file()
    assert (here / ".orchestration/.gitignore").is_file()
    config.load(here, {})
