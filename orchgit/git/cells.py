"""Cells: the private working tree and git directory in which an agent works, outside every repository.

    <state>/<repository>/<run>/<name>/
        work/     the working tree; work/.git is a file that names ../git
        git/      a private git directory: the user's objects by alternates, nothing else of theirs
        spare/    another one that no agent can write: git/ may be broken, and its configuration is not ours
        index     of a checkout: the index as it was when the cell was made
        home/ tmp/

Where the kernel allows it, the working tree is an overlay, mounted at work/ (empty otherwise) in the sandbox of each
program that runs there, and nowhere else; then there is also

        base      a link to the run's one checkout of its base, which all its cells share and none can write
        under-0…  links to what lies below that and is not git's (ground.py); a checkout has a copy of it in work/
        delta/    what the cell's commit has otherwise; only if it is not the base
        upper/    all that was changed since, and what is beside git; ovl/ is the kernel's own

The engine runs git here only while making the cell, before any agent has seen it. What an agent leaves is read by
`harvest.py`, which runs inside the cell's own sandbox and hands out bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchgit.git import layers
from orchgit.git.door import Door, GitError, Missing, clean_env, git_argv, quoted, write_git_dir


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

    @property
    def overlaid(self) -> bool:
        return (self.root / "base").is_symlink()

    @property
    def top(self) -> Path:
        """Where the cell's own files are: the upper directory, or the whole working tree."""
        return self.root / "upper" if self.overlaid else self.work

    @property
    def lowers(self) -> tuple[Path, ...]:
        """What an overlay stands on, topmost first."""
        if not self.overlaid:
            return ()
        base, delta = Path(os.readlink(self.root / "base")), self.root / "delta"
        under = [Path(os.readlink(link)) for link in sorted(self.root.glob("under-*"))]
        return (*([delta] if delta.is_dir() else []), base, *under)


@dataclass(frozen=True)
class Base:
    """A checkout that overlays stand on. Nothing in it may ever change."""

    root: Path
    commit: str

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def index(self) -> Path:
        return self.root / "index"


def repository_id(common: Path) -> str:
    """A short name for a repository on this machine, the same in every run."""
    return f"{common.parent.name[:24] or 'repo'}-{hashlib.sha256(os.fsencode(common)).hexdigest()[:8]}"


def make_base(door: Door, root: Path, commit: str) -> Base:
    """The one at this place, made unless it is there. Not for several threads at a time. Raises GitError."""
    base, done = Base(root, commit), root / "done"
    # Nothing of it was synced: after a power cut its files may be empty. And a half-made one is not done.
    session = f"{commit} {_boot()}\n"
    if done.is_file() and done.read_text() == session:
        return base
    if root.exists():
        remove(root)
    base.work.mkdir(parents=True)
    root.chmod(0o700)
    git = _index_only(door, root, base.work)
    checkout(git, base.work, commit)
    (git / "index").rename(base.index)
    shutil.rmtree(git)
    done.write_text(session)
    return base


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def make(
    door: Door,
    root: Path,
    commit: str,
    *,
    branch: str = "",
    who: str = "worker",
    base: Base | None = None,
    under: Sequence[Path] = (),
) -> Cell:
    """A cell standing on `commit`, on `branch` or detached; an overlay on `base`, or a checkout. A half-made one at
    the same place is replaced. `under`: directories with what is not git's, see ground.py.

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
    if base is not None:
        _lay(door, cell, base, commit, cell.git)
    else:
        checkout(cell.git, cell.work, commit)
        # With its time: by that git knows for which files "same size, same second" is not enough to be unchanged.
        shutil.copy2(cell.git / "index", root / "index")
    _found(cell, under)
    (cell.top / ".git").write_text(f"gitdir: {cell.git}\n")
    return cell


def _lay(door: Door, cell: Cell, base: Base, what: str, git: Path) -> None:
    """Make the layers of an overlay that stands on a commit or tree, and its index in `git`. Costs what differs from
    the base, and a copy of its index."""
    for name in ("upper", "ovl"):
        (cell.root / name).mkdir()
    # With a time of its own: since that time nothing below has changed, so git need not look again.
    shutil.copyfile(base.index, git / "index")
    old, new = (_tree(door, commit) for commit in (base.commit, what))
    if old != new:
        (cell.root / "delta").mkdir()
        try:
            layers.differences(door, old, new, cell.root / "delta", git)
        except Missing as error:
            raise GitError(f"checkout of {what}: {error} is missing") from error
    (cell.root / "base").symlink_to(base.work)


def _found(cell: Cell, under: Sequence[Path]) -> None:
    """Lay what is not git's below what is."""
    for number, layer in enumerate(under):
        if cell.overlaid:
            (cell.root / f"under-{number}").symlink_to(layer)
            continue
        # What is there is git's, or of a layer above; a link of git's is not followed.
        command = ["cp", "-a", "-n", "--reflink=auto", "--", f"{layer}/.", str(cell.work)]
        done = subprocess.run(command, env=clean_env(), check=False, capture_output=True)
        if done.returncode:
            raise OSError(f"{layer} cannot be copied: {os.fsdecode(done.stderr).strip()[-500:]}")


def _tree(door: Door, what: str) -> str:
    try:
        return what if door.read(what)[0] == b"tree" else door.tree_of(what)
    except Missing as error:
        raise GitError(f"checkout of {what}: {error} is missing") from error


def _index_only(door: Door, root: Path, work: Path) -> Path:
    """A git directory that serves one checkout, and is to be removed."""
    git = root / "index-only"
    (git / "refs").mkdir(parents=True)
    (git / "objects" / "info").mkdir(parents=True)
    (git / "objects" / "info" / "alternates").write_text(f"{quoted(str(door.objects))}\n")
    write_git_dir(git, door.format, head="ref: refs/heads/none\n", bare=False, worktree=str(work))
    return git


def checkout(git_dir: Path, work: Path, commit: str) -> None:
    """Fill an empty directory from a commit or tree; no hooks, no filters, in parallel where that pays."""
    env = {**clean_env(), "GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(work)}
    done = subprocess.run(
        git_argv("-c", "checkout.workers=8", "-c", "core.fsync=none", "read-tree", "-u", "--reset", commit),
        env=env, cwd=work, capture_output=True, check=False, process_group=0,
    )  # fmt: skip
    if done.returncode:
        raise GitError(f"checkout of {commit}: {done.stderr.decode('utf-8', 'backslashreplace').strip()}")


def plain_checkout(door: Door, root: Path, tree: str, base: Base | None = None, under: Sequence[Path] = ()) -> Cell:
    """A clean working tree of a tree with no git directory beside it: where checks run."""
    cell = Cell(root)
    if root.exists():
        remove(root)
    for folder in (cell.work, cell.home, cell.tmp):
        folder.mkdir(parents=True)
    cell.root.chmod(0o700)
    git = _index_only(door, root, cell.work)
    if base is not None:
        _lay(door, cell, base, tree, git)
    else:
        checkout(git, cell.work, tree)
    shutil.rmtree(git)
    _found(cell, under)
    return cell


def copy_in(cell: Cell, source: Path, names: tuple[str, ...]) -> list[str]:
    """Files that git does not have and a working tree needs, by explicit list; returns those that are not there."""
    missing = []
    for name in names:
        origin = source / name
        *folders, last = Path(name).parts
        there = origin.is_file() and not origin.is_symlink()
        place = layers.folder((cell.top, *cell.lowers), folders) if there else None
        if place is None:
            missing.append(name)
        elif layers.find(place, last) is None:  # what is in git is git's
            place[0].mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, place[0] / last)
    overlook(cell, names)
    return missing


def overlook(cell: Cell, names: Sequence[str]) -> None:
    """Let git in this cell, the worker's and the harvest's, not see these paths."""
    for git in (cell.git, cell.root / "spare"):
        if names and git.is_dir():  # a clean checkout has none
            (git / "info").mkdir(exist_ok=True)
            with (git / "info" / "exclude").open("a") as file:
                file.write("".join(f"/{name}\n" for name in names))


def make_roots(cell: Cell, roots: tuple[str, ...]) -> tuple[str, ...]:
    """Absolute directories of the scope inside the cell, made where they do not exist yet: a sandbox can only
    open what is there. A root that the base has as a file or a link is left out; the gate judges the rest.

    May be called again, for other roots, while nothing runs in the cell.
    """
    found = []
    for root in roots:
        parts = root.split("/") if root else []
        if layers.folder((cell.top, *cell.lowers), parts) is not None:
            found.append(str(cell.work.joinpath(*parts)))
    return tuple(found)


def harvest_argv(cell: Cell, start: str) -> list[str]:
    """A command for the cell's own sandbox, but without its overlay. It prints what `gate.admit` takes: everything
    since `start`, the worker's commits and its uncommitted work together. Ignored files stay behind."""
    kind = "overlay" if cell.overlaid else "checkout"
    places = (cell.top, start, cell.git, cell.root / "spare", cell.root / "index", cell.tmp)
    harvest = Path(__file__).with_name("harvest.py")
    return [sys.executable, "-I", "-S", str(harvest), kind, *map(str, places)]


def reopen(cell: Cell) -> None:
    """Let the engine in again, should an agent have closed the doors behind it."""
    for folder in (cell.top, cell.git, cell.tmp):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(stat.S_IRWXU)


def remove(root: Path) -> None:
    """A cell and all in it, whatever an agent did to the modes, and however deep it dug."""
    if root.is_symlink() or root.is_file():
        root.unlink()
        return
    try:
        shutil.rmtree(root)
    except (OSError, RecursionError):
        if not root.exists():
            return
        # These two go down by file descriptors, so that no path is too long for them.
        opening = ["-type", "d", "!", "-perm", "-700", "-execdir", "chmod", "700", "{}", ";"]
        subprocess.run(["find", root, *opening], env=clean_env(), check=False, capture_output=True)
        done = subprocess.run(["rm", "-rf", "--", root], env=clean_env(), check=False, capture_output=True)
        if root.exists():
            raise OSError(f"{root} cannot be removed: {os.fsdecode(done.stderr).strip()[:500]}") from None
