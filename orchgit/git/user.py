"""The user's repository: found, looked at, never changed. It is trusted, so this is GitPython's place."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchgit.core.errors import Kind, OrchgitError
from orchgit.git.door import IDENTITY, clean_env, git_argv

MIN_GIT = (2, 38)


@dataclass(frozen=True)
class UserRepo:
    root: Path  # the work tree
    common: Path  # the git directory that all its work trees share
    head: str  # "" before the first commit
    branch: str  # full ref name; "" when detached
    object_format: Literal["sha1", "sha256"]
    hooks_path: str | None  # core.hooksPath: ~ expanded, or relative to the work tree; None: not set
    roots: tuple[str, ...] = ()


def git_version() -> str:
    """Such as "2.39.5". Raises OrchgitError when git is missing or too old."""
    try:
        said = subprocess.run(["git", "--version"], capture_output=True, check=True, env=clean_env()).stdout.decode()
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise OrchgitError(Kind.USAGE, "git is not installed", "", "install git 2.38 or newer") from None
    version = said.split()[2]
    numbers = tuple(int(p) for p in version.split(".")[:2] if p.isdigit())
    if numbers < MIN_GIT:
        raise OrchgitError(Kind.USAGE, f"git {version} is too old", "2.38 or newer is needed", "upgrade git")
    return version


def common_dir(start: Path) -> Path:
    """The common git directory, without git and without imports: what status and log need, and nothing more.

    Raises OrchgitError outside a repository.
    """
    return shared_dir(git_dir(start))


def git_dir(start: Path) -> Path:
    """The git directory of this work tree: its HEAD and its index. Raises OrchgitError outside a repository."""
    if os.environ.get("GIT_DIR"):
        return Path(os.environ["GIT_DIR"]).absolute()
    here = start.absolute()
    for folder in (here, *here.parents):
        dot = folder / ".git"
        if dot.is_dir():
            return dot
        if dot.is_file():
            target = dot.read_text().partition("gitdir:")[2].strip()
            return (folder / target).resolve()
        if (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir():
            return folder
    raise OrchgitError(
        Kind.USAGE, "not a git repository", f"{here} and the folders above it hold no .git",
        "cd into a repository, or make one: git init && git add -A && git commit -m 'first'",
    )  # fmt: skip


def shared_dir(git_dir: Path) -> Path:
    """The one that all its work trees share."""
    pointer = git_dir / "commondir"
    if pointer.is_file():
        return (git_dir / pointer.read_text().strip()).resolve()
    return git_dir.resolve()


def discover(start: Path) -> UserRepo:
    """The repository around `start`. Raises OrchgitError outside one, and in a bare one."""
    common = common_dir(start)
    from git import Repo  # 0.1 s: only commands that start something pay for it
    from git.exc import InvalidGitRepositoryError, NoSuchPathError

    try:
        with Repo(start, search_parent_directories=True, expand_vars=False) as repo:  # `$` is a letter of a path
            if repo.bare or repo.working_tree_dir is None:
                raise OrchgitError(
                    Kind.USAGE, "this repository is bare", "a run needs a work tree to read its configuration from",
                    f"git clone {common} work && cd work",
                )  # fmt: skip
            config = repo.config_reader()
            kind = str(config.get_value("extensions", "objectformat", default="sha1")).lower()
            # GitPython knows no ids of SHA-256, and takes a repository of another owner for one without commits.
            head = _ask(repo.git_dir, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
            branch = _ask(repo.git_dir, "symbolic-ref", "--quiet", "HEAD")
            return UserRepo(
                Path(repo.working_tree_dir), common, head, branch, "sha256" if kind == "sha256" else "sha1",
                hooks_path(repo.git_dir),
            )  # fmt: skip
    except (InvalidGitRepositoryError, NoSuchPathError) as error:
        if (common / "HEAD").is_file() and common == start.resolve():
            raise OrchgitError(
                Kind.USAGE, "this repository is bare", "a run needs a work tree", f"git clone {common} work && cd work"
            ) from error
        raise OrchgitError(Kind.USAGE, "not a git repository", str(error), "cd into a repository") from error


def work_trees(repo: UserRepo) -> list[tuple[Path, str | None]]:
    """Every work tree of the repository, this one first, each with its core.hooksPath: they may differ."""
    found = {repo.root: repo.hooks_path}
    main = repo.common.parent
    if repo.common.name == ".git" and main.resolve() not in {each.resolve() for each in found}:
        found[main] = hooks_path(repo.common)
    for pointer in sorted(repo.common.glob("worktrees/*/gitdir")):
        root = Path(os.fsdecode(pointer.read_bytes().removesuffix(b"\n"))).parent
        if (root / ".git").is_file() and root.resolve() not in {each.resolve() for each in found}:
            found[root] = hooks_path(pointer.parent)
    return list(found.items())


def hooks_path(git_dir: str | os.PathLike[str]) -> str | None:
    """core.hooksPath as git finds it, in config.worktree too, which GitPython does not read; None: not set."""
    # Not of the environment: where the repository is, and what `git -c … orchgit` says for this once.
    once = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS"}
    env = {k: v for k, v in os.environ.items() if k not in once} | {"GIT_DIR": os.fspath(git_dir)}
    argv = ["git", "config", "-z", "--type=path", "--get", "core.hooksPath"]
    said = subprocess.run(argv, env=env, cwd="/", capture_output=True, check=False).stdout
    return (os.fsdecode(said.removesuffix(b"\0")) or "/") if said else None  # set to nothing, git looks in /


def _ask(git_dir: str | os.PathLike[str], *args: str) -> str:
    """What git says of this git directory; "" when it says no."""
    env = {**clean_env(), "GIT_DIR": os.fspath(git_dir)}
    return subprocess.run(git_argv(*args), env=env, cwd="/", capture_output=True, check=False).stdout.decode().strip()


def resolve(name: str) -> str:
    """The commit that the user means by a name, here; "" when there is none."""
    return ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def author() -> str:
    """Who the user is to git, as a commit names an author; ourselves when git does not know."""
    name, found, _ = ask("var", "GIT_AUTHOR_IDENT").rpartition(">")
    return name + found or IDENTITY


def ask(*args: str) -> str:
    """What the user's own git says in this place, in the user's own configuration; "" when it says no."""
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *args], env=env, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
