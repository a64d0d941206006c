"""`orchgit-check` under the pre-commit framework itself: what it runs, with what, and what it says."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.repos import ENV, Repo, repository

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pre_commit") is None, reason="the pre-commit framework is not installed (dev extra)"
)
SOURCE = Path(__file__).parents[2]
MANIFEST = SOURCE / ".pre-commit-hooks.yaml"
ALLOW = ["--allow", "src/**", "--deny", "src/secret/**"]


def framework(repo: Repo, *args: str, check: bool = True, timeout_s: int = 120) -> str:
    """pre-commit with a private home; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", *args], cwd=repo.root, env=env_of(repo), capture_output=True, check=False,
        timeout=timeout_s,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode()
    assert not check or done.returncode == 0, said
    return said


def env_of(repo: Repo) -> dict[str, str]:
    place = repo.root.parent
    return {**ENV, "HOME": str(place), "PRE_COMMIT_HOME": str(place / "pre-commit"), "PYTHONPATH": str(SOURCE)}


def commit(repo: Repo, *args: str) -> tuple[bool, str]:
    done = subprocess.run(
        ["git", "commit", "-m", "a commit", *args], cwd=repo.root, env=env_of(repo), capture_output=True, check=False
    )
    return done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """With the hook as the manifest has it, but run from here: installing us for it takes a minute."""
    made = repository(tmp_path / "r", {"src/a.py": b"a\n", "other/b.py": b"b\n"})
    (hook,) = yaml.safe_load(MANIFEST.read_text())
    assert hook["entry"].startswith("orchgit check ")
    hook |= {
        "language": "system",
        "entry": hook["entry"].replace("orchgit", f"{sys.executable} -m orchgit", 1),
        "args": ALLOW,
    }
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    made.write(".pre-commit-config.yaml", json.dumps(config).encode())
    made.commit("configured")
    framework(made, "install")
    return made


def test_the_manifest_is_valid(repo: Repo) -> None:
    framework(repo, "validate-manifest", str(MANIFEST))


def test_commits(repo: Repo) -> None:
    repo.write("src/a.py", b"changed\n")
    done, said = commit(repo, "-a")
    assert done, said
    repo.write("src/a.py", b"again\n")
    repo.write("other/b.py", b"changed\n")
    done, said = commit(repo, "-a")
    assert not done
    assert "! other/b.py: outside the scope  → --allow other/b.py" in said
    # A part of what is changed: git makes another index for it, and tells the hook.
    done, said = commit(repo, "src/a.py")
    assert done, said
    done, said = commit(repo, "other/b.py")
    assert not done
    assert "other/b.py" in said
    (repo.root / "other/b.py").unlink()
    done, said = commit(repo, "-a")
    assert not done, "a deletion is in no list of files, but it is a change"
    repo.ask("checkout", "HEAD", "--", "other/b.py")
    (repo.root / "other/b.py").chmod(0o755)
    done, said = commit(repo, "-a")
    assert not done, "and so is a mode"
    repo.ask("checkout", "HEAD", "--", "other/b.py")
    repo.write("src/secret/x", b"1")
    repo.ask("add", "src")
    done, said = commit(repo)
    assert not done
    assert "denied by src/secret/**" in said


def test_what_is_not_staged_is_not_judged(repo: Repo) -> None:
    repo.write("src/a.py", b"staged\n")
    repo.ask("add", "src")
    repo.write("other/b.py", b"not staged\n")
    repo.write("other/untracked", b"not staged\n")
    done, said = commit(repo)
    assert done, said
    assert (repo.root / "other/b.py").read_bytes() == b"not staged\n"


@pytest.mark.slow
def test_installed_by_the_framework(tmp_path: Path) -> None:
    """As a user has it: cloned, built and installed by pre-commit, dependencies and all."""
    try:
        socket.create_connection(("pypi.org", 443), timeout=5).close()
    except OSError as error:
        pytest.skip(f"pypi.org cannot be reached, and the framework installs from there: {error}")
    # What a checkout of this tree would hold, as a repository of its own: ours may be a worktree, or an sdist.
    source = repository(tmp_path / "source", {})
    files = subprocess.run(
        ["git", "ls-files", "-z", "orchgit", "hooks", "pyproject.toml", "README.md", "LICENSE", MANIFEST.name],
        cwd=SOURCE, capture_output=True, check=False,
    ).stdout.decode().split("\0")[:-1]  # fmt: skip
    if not files:
        pytest.skip("this tree is not a git checkout")
    for name in {*files, MANIFEST.name}:
        source.write(name, (SOURCE / name).read_bytes())
    source.commit("all of it")
    repo = repository(tmp_path / "r", {"src/a.py": b"a\n"})
    env = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "HTTP", "http", "SSL", "REQUESTS"))}
    config = tmp_path / "config.yaml"
    hooks = [{"id": "orchgit-check", "args": ALLOW}]
    rev = source.ask("rev-parse", "HEAD")
    config.write_text(json.dumps({"repos": [{"repo": str(source.root), "rev": rev, "hooks": hooks}]}))
    for name, ok in (("src/b.py", True), ("other.py", False)):
        repo.write(name, b"new\n")
        repo.ask("add", name)
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", "--config", str(config)],
            cwd=repo.root, env={**env, **env_of(repo), "PYTHONPATH": ""}, capture_output=True, timeout=600, check=False,
        )  # fmt: skip
        said = done.stdout.decode() + done.stderr.decode()
        assert (done.returncode == 0) is ok, said
        assert ok or "! other.py: outside the scope" in said
