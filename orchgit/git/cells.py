"""Cells: the private working tree and git directory in which an agent works, outside every repository.

    <state>/<repository>/<run>/<name>/
        work/     the working tree; work/.git is a file that names ../git
        git/      a private git directory: the user's objects by alternates, nothing else of theirs
        spare/    another one that no agent can write, for the case that git/ was broken
        index     the index as it was when the cell was made
        home/ tmp/

The engine runs git here only while making the cell, before any agent has seen it. What an agent leaves is read by
`harvest`, a script that runs inside the cell's own sandbox and hands out bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchgit.git.door import Door, GitError, clean_env, git_argv, quoted, write_git_dir


@dataclass(frozen=True)
class Cell:
    root: Path
    scratch: Path | None = None  # another temporary directory than its own

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def git(self) -> Path:
        return self.root / "git"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        return self.scratch or self.root / "tmp"


def repository_id(common: Path) -> str:
    """A short name for a repository on this machine, the same in every run."""
    return f"{common.parent.name[:24] or 'repo'}-{hashlib.sha256(os.fsencode(common)).hexdigest()[:8]}"


def make(door: Door, root: Path, commit: str, *, branch: str = "", who: str = "worker") -> Cell:
    """A cell standing on `commit`, on `branch` or detached. A half-made one at the same place is replaced.

    Raises GitError when the checkout fails.
    """
    cell = Cell(root)
    if root.exists():
        remove(root)
    for folder in (cell.work, cell.git, root / "spare", cell.home, cell.tmp):
        folder.mkdir(parents=True)
    cell.root.chmod(0o700)
    name = quoted(who)
    mail = quoted(f"{who}@orchgit.invalid")
    user = f"[user]\n\tname = {name}\n\temail = {mail}\n[advice]\n\tdetachedHead = false\n"
    for folder in (cell.git, root / "spare"):
        for part in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
            (folder / part).mkdir(parents=True)
        (folder / "objects" / "info" / "alternates").write_text(f"{quoted(str(door.objects))}\n")
        head = f"ref: {branch}\n" if branch and folder == cell.git else f"{commit}\n"
        write_git_dir(
            folder, door.format, head=head, bare=False, worktree=str(cell.work), extra=user
        )  # fmt: skip
        shallow = door.common / "shallow"
        if shallow.exists():
            shutil.copyfile(shallow, folder / "shallow")
    if branch:
        ref = cell.git / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(f"{commit}\n")
    checkout(cell.git, cell.work, commit)
    # With its time: by that git knows for which files "same size, same second" is not enough to be unchanged.
    shutil.copy2(cell.git / "index", root / "index")
    (cell.work / ".git").write_text(f"gitdir: {cell.git}\n")
    return cell


def checkout(git_dir: Path, work: Path, commit: str) -> None:
    """Fill an empty directory from a commit or tree; no hooks, no filters, in parallel where that pays."""
    env = {**clean_env(), "GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(work)}
    done = subprocess.run(
        git_argv("-c", "checkout.workers=8", "-c", "core.fsync=none", "read-tree", "-u", "--reset", commit),
        env=env, cwd=work, capture_output=True, check=False, process_group=0,
    )  # fmt: skip
    if done.returncode:
        raise GitError(f"checkout of {commit}: {done.stderr.decode('utf-8', 'backslashreplace').strip()}")


def plain_checkout(door: Door, root: Path, tree: str) -> Cell:
    """A clean checkout of a tree with no git directory beside it: where checks run."""
    cell = Cell(root)
    if root.exists():
        remove(root)
    for folder in (cell.work, cell.home, cell.tmp):
        folder.mkdir(parents=True)
    cell.root.chmod(0o700)
    scratch = root / "index-only"
    (scratch / "refs").mkdir(parents=True)
    (scratch / "objects" / "info").mkdir(parents=True)
    (scratch / "objects" / "info" / "alternates").write_text(f"{quoted(str(door.objects))}\n")
    write_git_dir(scratch, door.format, head="ref: refs/heads/none\n", bare=False, worktree=str(cell.work))
    checkout(scratch, cell.work, tree)
    shutil.rmtree(scratch)
    return cell


def copy_in(cell: Cell, source: Path, names: tuple[str, ...]) -> list[str]:
    """Files that git does not have and a working tree needs, by explicit list; returns those that are not there."""
    missing = []
    for name in names:
        origin = source / name
        target = cell.work / name
        if not origin.is_file() or origin.is_symlink() or target.exists():
            if not target.exists():
                missing.append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(origin, target)
    if names:
        exclude = "".join(f"/{name}\n" for name in names)
        for folder in (cell.git, cell.root / "spare"):
            (folder / "info").mkdir(exist_ok=True)
            (folder / "info" / "exclude").write_text(exclude)
    return missing


def make_roots(cell: Cell, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Absolute directories of the scope inside the cell, made where they do not exist yet: a sandbox can only
    open what is there. A root that the base has as a file or a link is left out; the gate judges the rest."""
    found = []
    for root in roots:
        path = cell.work
        # Part by part, never through a link: one in the base must not widen the scope to wherever it points.
        for part in root.split("/") if root else ():
            path = path / part
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                break
            path.mkdir(exist_ok=True)
        else:
            found.append(str(path))
    return tuple(found)


HARVEST = r"""
set -eu
unset GIT_DIR GIT_INDEX_FILE GIT_WORK_TREE
cd "$1"; start=$2; git=$3; spare=$4; pristine=$5
# A directory that no agent could name: what is left in $6 may be a pipe that blocks, or a lock.
tmp=$(mktemp -d "$6/harvest-XXXXXX")
# What its owner cannot read, git takes for unchanged, or for a reason to give up. It has no say in the modes git keeps.
find . -name .git -prune -o -type d ! -perm -500 -exec chmod u+rx {} \; \
    -o -type f ! -perm -400 -exec chmod u+r {} \; >&2 || :
export GIT_WORK_TREE="$1" GIT_INDEX_FILE="$tmp/harvest-index" GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
snapshot() {
    rm -f "$GIT_INDEX_FILE"; cp -p "$pristine" "$GIT_INDEX_FILE"
    g() { git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 \
        -c core.excludesFile="$spare/info/exclude" -c core.sparseCheckout=false -c core.ignoreCase=false \
        -c core.precomposeUnicode=false -c advice.addEmbeddedRepo=false -c core.worktree="$GIT_WORK_TREE" "$@"; }
    g add -A . >&2 || return 1
    tree=$(g write-tree) || return 1
    head=$(g rev-parse -q --verify 'HEAD^{commit}') || head=$start
    commit=$(g commit-tree "$tree" -p "$head" -m 'What the worker left, as it was') || return 1
    printf '%s\n%s\n%s\n' "$commit" "$tree" "$head"
    printf '%s\n^%s\n' "$commit" "$start" | g pack-objects --revs --stdout -q
}
GIT_DIR=$git; export GIT_DIR
if out=$(snapshot >"$tmp/harvest" 2>"$tmp/harvest-said"); then cat "$tmp/harvest"; exit 0; fi
cat "$tmp/harvest-said" >&2
GIT_DIR=$spare; GIT_OBJECT_DIRECTORY="$tmp/harvest-objects"; mkdir -p "$GIT_OBJECT_DIRECTORY/info"
cp "$spare/objects/info/alternates" "$GIT_OBJECT_DIRECTORY/info/alternates"; export GIT_DIR GIT_OBJECT_DIRECTORY
snapshot >"$tmp/harvest"; cat "$tmp/harvest"
"""


def harvest_argv(cell: Cell, start: str) -> list[str]:
    """A command for the cell's own sandbox. It prints three lines (commit, tree, the worker's HEAD) and a pack of
    everything since `start`: the worker's commits and its uncommitted work together. Ignored files stay behind."""
    return [
        "/bin/sh", "-c", HARVEST, "harvest", str(cell.work), start, str(cell.git), str(cell.root / "spare"),
        str(cell.root / "index"), str(cell.tmp),
    ]  # fmt: skip


def reopen(cell: Cell) -> None:
    """Let the engine in again, should an agent have closed the doors behind it."""
    for folder in (cell.work, cell.git, cell.tmp):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)


def remove(root: Path) -> None:
    """A cell and all in it, whatever an agent did to the modes, and however deep it dug."""
    if root.is_symlink() or root.is_file():
        root.unlink()
        return
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):
        # These two go down by file descriptors, so that no path is too long for them.
        opening = ["-type", "d", "!", "-perm", "-700", "-execdir", "chmod", "700", "{}", ";"]
        subprocess.run(["find", root, *opening], env=clean_env(), check=False, capture_output=True)
        done = subprocess.run(["rm", "-rf", "--", root], env=clean_env(), check=False, capture_output=True)
        if root.exists():
            raise OSError(f"{root} cannot be removed: {os.fsdecode(done.stderr).strip()[:500]}") from None
