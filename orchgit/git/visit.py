"""A repository that is only looked at: any, by anyone, bare ones, clones of strangers, a pull request's in CI.

Nothing in it is written, and nothing in it is obeyed: git runs in a directory of its own that has the repository's
objects as alternates, its refs by a link, and no configuration, hook, attribute, replace ref or remote of it. So a
partial clone fetches nothing here, and what is missing is said to be missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from orchgit.core.errors import Kind, OrchgitError
from orchgit.git.door import Door, GitError, Missing, clean_env, quoted, write_git_dir
from orchgit.git.user import shared_dir

_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Visitor(Door):
    """A door through which nothing is carried in. `scratch`: an empty directory, for the caller to remove."""

    def __init__(self, git_dir: Path, scratch: Path) -> None:
        common = shared_dir(git_dir)
        if not (common / "objects").is_dir():
            raise OrchgitError(Kind.USAGE, "not a git repository", f"{common} has no objects", "cd into a repository")
        super().__init__(common, _object_format(common))
        self.git_dir = git_dir
        self.engine = scratch / "git"
        self.objects = scratch / "objects"
        self.shallow = frozenset((common / "shallow").read_text().split()) if (common / "shallow").exists() else ()

    def _make(self) -> None:
        if self._made:
            return
        self.engine.mkdir()
        write_git_dir(self.engine, self.format, head="ref: refs/heads/none\n", bare=True)
        (self.engine / "objects").mkdir()
        (self.objects / "info").mkdir(parents=True)
        (self.objects / "info" / "alternates").write_text("".join(f"{quoted(path)}\n" for path in self._stores()))
        for name in ("refs", "packed-refs"):
            (self.engine / name).symlink_to(self.common / name)
        for name in ("HEAD", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REBASE_HEAD"):
            if (self.git_dir / name).is_file():
                shutil.copyfile(self.git_dir / name, self.engine / name)
        if self.shallow:
            shutil.copyfile(self.common / "shallow", self.engine / "shallow")
        self._made = True

    def _stores(self) -> list[str]:
        """Where objects are. In a hook that receives a push, the new ones wait elsewhere until it has agreed."""
        waiting = [os.environ.get("GIT_OBJECT_DIRECTORY", "")] if os.environ.get("GIT_QUARANTINE_PATH") else []
        return [str(self.common / "objects"), *(os.path.abspath(path) for path in waiting if path)]

    def env(self, *, refs: bool = False) -> dict[str, str]:
        self._make()
        return {**clean_env(), "GIT_DIR": str(self.engine), "GIT_OBJECT_DIRECTORY": str(self.objects)}

    def commit_of(self, name: str) -> str:
        """The commit that a person means. Raises OrchgitError."""
        try:
            if "\0" not in name:
                asked = f"{name}^{{commit}}"
                return self.run("rev-parse", "--verify", "--quiet", "--end-of-options", asked).decode().strip()
        except GitError:
            pass
        why = "no commit here goes by this name; names of upstreams and reflogs (@{…}) are not looked up"
        hint = "git fetch, or give its full id: git rev-parse " + name
        if self.shallow:
            why = "this clone is shallow, so it may be one that was left out"
            hint = DEEPEN
        raise OrchgitError(Kind.USAGE, f"unknown commit {name!r}", why, hint)

    def unborn(self) -> bool:
        """Whether HEAD is a branch without a commit."""
        try:
            return not self.run("rev-parse", "--verify", "--quiet", "HEAD")
        except GitError:
            return (self.engine / "HEAD").read_bytes().startswith(b"ref:")

    def descends(self, head: str, base: str) -> bool:
        try:
            self.run("merge-base", "--is-ancestor", base, head)
        except GitError as error:
            if error.code == 1:
                return False
            raise
        return True

    def between(self, base: str, head: str) -> list[tuple[str, tuple[str, ...]]]:
        """(commit, parents) of all that `head` has and `base` has not, parents first."""
        said = self.run("rev-list", "--parents", "--topo-order", "--reverse", head, f"^{base}").decode()
        return [(first, tuple(more)) for first, *more in (line.split() for line in said.splitlines())]

    def staged(self) -> str:
        """The tree of the index: what a commit made now would hold. Raises OrchgitError."""
        index = Path(os.environ.get("GIT_INDEX_FILE") or self.git_dir / "index")
        self.env()
        if not index.is_file():
            raise OrchgitError(
                Kind.USAGE, "there is no index here", f"{index} is not there", "git add what is to be checked"
            )
        # A copy, for git writes what it has computed into the index it reads.
        shutil.copyfile(index, self.engine / "index")
        for shared in self.git_dir.glob("sharedindex.*"):
            shutil.copyfile(shared, self.engine / shared.name)
        try:
            return self.run("write-tree", "--missing-ok").decode().strip()
        except GitError as error:
            raise OrchgitError(
                Kind.USAGE, "the index is not one that could be committed", str(error), "git status; then git add"
            ) from error


DEEPEN = "git fetch --deepen=100, or all of it: git fetch --unshallow (in GitHub Actions: fetch-depth: 0)"


def _object_format(common: Path) -> str:
    # By the file alone: asked any other way, git would look at all the rest that is configured.
    argv = ["git", "config", "--file", str(common / "config"), "--get", "extensions.objectformat"]
    done = subprocess.run(argv, env=clean_env(), cwd="/", capture_output=True, check=False)
    return "sha256" if done.stdout.strip().lower() == b"sha256" else "sha1"


def missing(door: Visitor, error: Missing | GitError) -> OrchgitError:
    """In words, with what to type, that objects are not here."""
    hint = DEEPEN if door.shallow else "git fetch --refetch --no-filter origin (in a partial clone); else: git fsck"
    what = f"object {error} is not here" if isinstance(error, Missing) and _OID.fullmatch(str(error)) else str(error)
    return OrchgitError(Kind.USAGE, "this repository does not hold all that has to be looked at", what, hint)
