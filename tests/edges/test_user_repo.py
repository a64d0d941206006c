"""Finding the user's repository, in all the shapes repositories have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.git.user import common_dir, discover, git_version
from tests.support.repos import ENV, git, repository, snapshot


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [k for k in os.environ if k.startswith("GIT_")]:
        monkeypatch.delenv(key)
    for key in ("HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"):
        monkeypatch.setenv(key, ENV[key])


@pytest.mark.parametrize("format", ["sha1", "sha256"])
def test_discover(tmp_path: Path, format: str) -> None:
    repo = repository(tmp_path / "r", {"deep/down/file": b"1"}, format=format)
    head = repo.ask("rev-parse", "HEAD")
    before = snapshot(repo.root)
    found = discover(repo.root / "deep" / "down")
    assert (found.root, found.common, found.head, found.branch) == (repo.root, repo.common, head, "refs/heads/main")
    assert (found.object_format, found.hooks_path) == (format, None)
    assert snapshot(repo.root) == before, "looked at, never changed"
    git(repo.root, "checkout", "-q", "--detach")
    git(repo.root, "config", "core.hooksPath", ".husky/_")
    git(repo.root, "pack-refs", "--all")
    found = discover(repo.root)
    assert (found.head, found.branch, found.hooks_path) == (head, "", ".husky/_")


@pytest.mark.parametrize("format", ["sha1", "sha256"])
def test_linked_worktree(tmp_path: Path, format: str) -> None:
    repo = repository(tmp_path / "r", format=format)
    git(repo.root, "worktree", "add", "-q", "-b", "topic", str(tmp_path / "linked"))
    (tmp_path / "linked" / "new").write_text("1")
    git(tmp_path / "linked", "add", ".")
    git(tmp_path / "linked", "commit", "-qm", "second")
    found = discover(tmp_path / "linked")
    assert (found.root, found.common, found.branch) == (tmp_path / "linked", repo.common, "refs/heads/topic")
    assert found.head == git(tmp_path / "linked", "rev-parse", "HEAD").decode().strip() != repo.ask("rev-parse", "HEAD")
    assert discover(repo.root).branch == "refs/heads/main"


def test_submodule_symlink_and_separate_git_dir(tmp_path: Path) -> None:
    inner, outer = repository(tmp_path / "inner"), repository(tmp_path / "outer")
    git(outer.root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.root), "sub")
    found = discover(outer.root / "sub")
    assert (found.root, found.common) == (outer.root / "sub", outer.common / "modules" / "sub")
    (tmp_path / "link").symlink_to(outer.root)
    assert discover(tmp_path / "link").common == outer.common
    git(tmp_path, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere"), "sep")
    assert common_dir(tmp_path / "sep") == tmp_path / "elsewhere"


@pytest.mark.parametrize("name", ["with space", "q\"uote's", "ümlaut", "new\nline", "back\\slash"])
def test_any_path(tmp_path: Path, name: str) -> None:
    repo = repository(tmp_path / name)
    git(repo.root, "worktree", "add", "-q", "-b", "topic", str(tmp_path / "linked"))
    for root in (repo.root, tmp_path / "linked"):
        found = discover(root)
        assert (found.root, found.common, found.head) == (root, repo.common, repo.ask("rev-parse", "HEAD"))


def test_unborn_bare_and_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "unborn")
    found = discover(tmp_path / "unborn")
    assert (found.head, found.branch) == ("", "refs/heads/main")
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    for place, words in ((tmp_path / "bare.git", "bare"), (tmp_path, "not a git repository")):
        with pytest.raises(OrchgitError) as error:
            discover(place)
        assert error.value.kind is Kind.USAGE
        assert words in error.value.what
    with pytest.raises(OrchgitError):
        common_dir(tmp_path)
    assert common_dir(tmp_path / "bare.git") == tmp_path / "bare.git"


def test_common_dir_agrees_with_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = repository(tmp_path / "r", {"deep/file": b"1"})
    git(repo.root, "worktree", "add", "-q", str(tmp_path / "linked"))
    for place in (repo.root, repo.root / "deep", tmp_path / "linked", repo.common):
        said = git(place, "rev-parse", "--git-common-dir").decode().strip()
        assert common_dir(place) == (place / said).resolve()
    monkeypatch.setenv("GIT_DIR", str(repo.common / "worktrees" / "linked"))  # as git exports it to an alias
    assert common_dir(tmp_path) == repo.common


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a repository away")
def test_a_repository_of_another_owner_is_not_an_empty_one(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r")
    head = repo.ask("rev-parse", "HEAD")
    subprocess.run(["chown", "-R", "65534:65534", str(repo.root)], check=True)
    assert discover(repo.root).head == head


def test_git_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert git_version().count(".") >= 1
    said = tmp_path / "git"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for version, ok in {
        "2.37.9": False, "1.9.1": False, "2.38.0": True, "2.39.5 (Apple Git-154)": True, "2.45.1.windows.1": True,
        "2.50.GIT": True, "3.0.0": True,
    }.items():  # fmt: skip
        said.write_text(f"#!/bin/sh\necho 'git version {version}'\n")
        said.chmod(0o755)
        if ok:
            assert git_version() == version.split()[0]
        else:
            with pytest.raises(OrchgitError, match="too old"):
                git_version()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(OrchgitError, match="not installed"):
        git_version()
