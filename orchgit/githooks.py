"""Puts the hooks (`hooks/`, POSIX sh) into a cell and the user's clone, takes them out, tells their state.

A hook is a quick, clear word to an honest agent or human, never a boundary: an agent can edit its cell's
hooks, `git -c core.hooksPath=/dev/null` goes round any of them, and the gate asks none of them. Hence the
rule for the user's clone: never break, replace or lose a hook of theirs, and where the guard cannot stand
without that, do not install it and say how to call it by hand.

In the clone, `.git/hooks/NAME` is ours and the user's own moves to `.git/hooks.orchgit-chained/NAME`: the same name
and the same depth, so `basename $0`, `dirname $0/../..` and relative symlinks still hold; what else lies in
`hooks/` is linked beside it. Other hook managers:

- pre-commit (framework): its own door, `NAME.legacy`, which it runs first and keeps over reinstalls.
- lefthook: rewrites its files and moves ours away, so its files are left alone.
- husky 9 (`core.hooksPath=.husky/_`): rewrites all that it knows in `_` on every `npm install`, but never
  `_/reference-transaction`, and `_` is ignored by its own .gitignore: that one can be ours.
- `core.hooksPath` anywhere else in the work tree, or outside the repository: not ours to write.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from orchgit.core.errors import Kind, OrchgitError

State = Literal["installed", "chained", "absent", "foreign"]

SCOPE_FILE = "orchgit-scope"
GUARDS = {
    "pre-commit": "refuses a commit on a run's branch, and one that rewrites a run's log",
    "commit-msg": "refuses a message with a trailer that only orchgit writes",
    "pre-push": "refuses to push what belongs to a run, and to rewrite a published log",
    "reference-transaction": "refuses to move, make or delete a run's branches and records",
}
NAMES = tuple(GUARDS)
_READS_INPUT = ("pre-push", "reference-transaction")
_CELL = (*NAMES, "orchgit-scope.sh")
_CHAINED = ".orchgit-chained"
_MADE = ".orchgit-made"  # in a directory of hooks that was not there before
_MARK = b"# orchgit-hook: "
_LEFTHOOK_CONFIGS = tuple(
    f"{dot}lefthook{local}.{suffix}"
    for dot in ("", ".")
    for local in ("", "-local")
    for suffix in ("yml", "yaml", "toml", "json")
)


class Rules(Protocol):
    """The compiled scope: orchgit.core.scope.HookRules."""

    @property
    def allow(self) -> str: ...
    @property
    def deny(self) -> str: ...
    @property
    def protected(self) -> str: ...
    @property
    def literals(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class HookStatus:
    """How one hook of the guard stands in a clone.

    `installed`: ours runs, alone. `chained`: ours runs, and the user's own. `absent`: ours is not there.
    `foreign`: somebody else's hook stands where ours would, and ours does not run. For the last two,
    `detail` says what to do.
    """

    name: str
    state: State
    detail: str = ""

    @property
    def in_force(self) -> bool:
        return self.state in ("installed", "chained")


def source_dir() -> str:
    """The hooks as shipped: inside a wheel `orchgit/_hooks`, in a source tree `hooks/` beside the package."""
    package = os.path.dirname(os.path.abspath(__file__))
    for found in (os.path.join(package, "_hooks"), os.path.join(os.path.dirname(package), "hooks")):
        if os.path.isfile(os.path.join(found, "cell", "orchgit-scope.sh")):
            return found
    raise OrchgitError(
        Kind.FAULT,
        "the git hooks are missing from this installation",
        why=f"neither {package}/_hooks nor {os.path.dirname(package)}/hooks has them",
        hint="Reinstall orchgit.",
    )


# --- the cell ----------------------------------------------------------------------------------------------


def install_cell(git_dir: str, rules: Rules, *, base: str, branch: str, chain: str | None = None) -> None:
    """Write the compiled scope and the hooks that read it into a cell's private git directory.

    `base` is a full object id, `branch` a full ref name, `chain` the absolute path of a directory whose hooks
    of the same names run after ours pass. Call it before a worker has touched the cell, or from where the
    worker's links cannot lead out: it follows what it finds in `git_dir`.
    """
    git_dir = os.path.abspath(git_dir)
    lines = [f"base {base}", f"branch {branch}"]  # first: the hooks stop reading at the first long rule
    lines += [f"chain {os.path.abspath(chain)}"] if chain else []
    lines += [f"allow {rules.allow}", f"deny {rules.deny}", f"protected {rules.protected}"]
    lines += [f"literal {path}" for path in rules.literals]
    never = "|".join(pattern for pattern in (rules.deny, rules.protected, "[[:cntrl:]]") if pattern)
    # sed takes any character around a pattern: one that no pattern has. Prints what is, or may be, outside.
    program = f"\\\1{never}\1{{\np\nd\n}}\n\\\1{rules.allow}\1!p\n"
    if not rules.allow or "\1" in never + rules.allow or any("\n" in line for line in lines):
        raise OrchgitError(Kind.FAULT, "this scope cannot be written as rules for a hook", why=repr(lines))
    _write(os.path.join(git_dir, SCOPE_FILE), os.fsencode("\n".join(lines) + "\n"), 0o644)
    _write(os.path.join(git_dir, f"{SCOPE_FILE}.sed"), os.fsencode(program), 0o644)
    hooks = os.path.join(git_dir, "hooks")
    os.makedirs(hooks, exist_ok=True)
    for name in _CELL:
        _write(os.path.join(hooks, name), _shipped("cell", name), 0o755)
    _pin(git_dir, hooks)


def _pin(git_dir: str, hooks: str) -> None:
    """Name the hooks in config.worktree, which wins over config. Into config, `npm install` in a repository
    that uses husky writes core.hooksPath, and without a word every hook of ours would be gone."""
    quoted = hooks.replace("\\", "\\\\").replace('"', '\\"')
    for name, section in (
        ("config", "[extensions]\n\tworktreeConfig = true\n"),
        ("config.worktree", f'[core]\n\thooksPath = "{quoted}"\n'),
    ):
        path = os.path.join(git_dir, name)
        before = _read(path) or b""
        if os.fsencode(section) not in before:
            _write(path, before + os.fsencode(section), 0o644)


# --- the user's clone --------------------------------------------------------------------------------------


def install(common_dir: str, hooks_path: str | None, *, work_tree: str | None = None) -> list[HookStatus]:
    """Install the guard as far as that breaks nothing of the user's; a second time changes nothing.

    `common_dir` is git's common directory, `hooks_path` what git says of core.hooksPath (None: not set), relative
    to `work_tree` (None: a bare repository). Returns what status() then says. Raises OrchgitError where the
    directory cannot be written.
    """
    place = _place(common_dir, hooks_path, work_tree)
    slots = {name: place.slot(name) for name in NAMES}
    with _writing(place.directory):
        for name, slot in slots.items():
            if slot is None:
                continue
            if not os.path.isdir(os.path.dirname(slot)):
                os.makedirs(os.path.dirname(slot))
                _write(os.path.join(os.path.dirname(slot), _MADE), b"", 0o644)
            if _kind(slot) == "other":
                _move_aside(slot, place.former(name))
            _write(slot, _shipped("clone", name), 0o755)
    if None in slots.values():
        with _writing(place.by_hand):
            os.makedirs(place.by_hand, exist_ok=True)
            for name in NAMES:
                _write(os.path.join(place.by_hand, name), _shipped("clone", name), 0o755)
    return [_look(place, name) for name in NAMES]


def uninstall(common_dir: str, hooks_path: str | None, *, work_tree: str | None = None) -> list[HookStatus]:
    """Take the guard out, put back byte for byte what was there before. Returns what status() then says."""
    place = _place(common_dir, hooks_path, work_tree)
    # Also from .git/hooks when core.hooksPath was set only after the guard had been installed there.
    for each in {place.directory: place, None: _place(common_dir, None, work_tree)}.values():
        with _writing(each.directory):
            for name in NAMES:
                _uninstall_one(each, name)
            _clear(each)
    for name in NAMES:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(place.by_hand, name))
    for directory in (place.by_hand, os.path.dirname(place.by_hand)):
        with suppress(OSError):
            os.rmdir(directory)
    return [_look(place, name) for name in NAMES]


def status(common_dir: str, hooks_path: str | None, *, work_tree: str | None = None) -> list[HookStatus]:
    """How each hook of the guard stands now; changes nothing. Notices who has installed over it."""
    place = _place(common_dir, hooks_path, work_tree)
    return [_look(place, name) for name in NAMES]


def directory(common_dir: str, hooks_path: str | None, work_tree: str | None = None) -> str:
    """Where git looks for hooks."""
    return _place(common_dir, hooks_path, work_tree).directory


@contextmanager
def _writing(directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OrchgitError(
            Kind.USAGE, f"the hooks in {directory} cannot be changed", str(error),
            f"make {directory} a directory that you can write, then: orchgit hooks status",
        ) from error  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """The directory git runs hooks from, and whether we may write there."""

    common: str
    named: str  # as git names it, whose `$0` the hooks go by
    directory: str  # what it is in truth
    work_tree: str | None
    ours: Literal["yes", "husky", "no"]

    @property
    def by_hand(self) -> str:
        return os.path.join(self.common, "orchgit", "hooks")

    def former(self, name: str) -> str:
        """Where the user's own hook lies while ours stands in its place (the hooks find it by `$0`)."""
        return os.path.join(self.named + _CHAINED, name)

    def callers(self, name: str) -> list[str]:
        """The files in which somebody who chains the guard by hand will have written its name."""
        found = [os.path.join(self.directory, name), os.path.join(os.path.dirname(self.directory), name)]
        return found + [os.path.join(self.work_tree, each) for each in _LEFTHOOK_CONFIGS if self.work_tree]

    def slot(self, name: str) -> str | None:
        """The file that ours may be, or None."""
        path = os.path.join(self.directory, name)
        kind = _kind(path)
        if self.ours == "husky":
            return path if name == "reference-transaction" and kind in ("none", "ours") else None
        if self.ours == "no" or kind == "lefthook" or (kind != "none" and _names(name, path)):
            return None
        slot = f"{path}.legacy" if kind == "pre-commit" else path
        # A former hook and a new one: which of them the user still wants is theirs to say.
        former = self.former(name)
        if _kind(slot) == "other" and os.path.lexists(former) and _read(slot) != _read(former):
            return None
        return slot


def _place(common_dir: str, hooks_path: str | None, work_tree: str | None) -> _Place:
    common = os.path.realpath(common_dir)
    top = os.path.realpath(work_tree) if work_tree else None
    if hooks_path is None:
        hooks_path = os.path.join(common, "hooks")
    above, name = os.path.split(os.path.normpath(os.path.join(top or common, hooks_path)))
    named = os.path.join(os.path.realpath(above), name)
    # A directory of hooks that is a link into the work tree is the work tree's.
    directory = os.path.realpath(named)
    ours: Literal["yes", "husky", "no"] = "no"
    if named.startswith(common + os.sep) and directory.startswith(common + os.sep):
        ours = "yes"
    elif top and directory.startswith(top + os.sep) and os.path.isfile(os.path.join(directory, "h")):
        ignored = _read(os.path.join(directory, ".gitignore")) or b""
        ours = "husky" if ignored.strip() == b"*" else "no"
    return _Place(common, named, directory, top, ours)


def _look(place: _Place, name: str) -> HookStatus:
    path = os.path.join(place.directory, name)
    kind = _kind(path)
    if kind == "pre-commit" and _runs(f"{path}.legacy"):
        return HookStatus(name, "chained", f"the pre-commit framework runs it first, as {path}.legacy")
    if kind == "ours" and _runs(path):
        older = _read(path) != _shipped("clone", name)
        words = ["of another version: `orchgit hooks install` renews it"] if older else []
        if not os.access(place.former(name), os.X_OK):
            return HookStatus(name, "installed", "; ".join(words))
        return HookStatus(name, "chained", "; ".join([*words, f"then runs your own, {place.former(name)}"]))
    state: State = "absent" if kind in ("none", "ours") else "foreign"
    for caller in place.callers(name):
        if _names(name, caller) and _runs(os.path.join(place.by_hand, name)):
            return HookStatus(name, "chained", f"{caller} calls it")
        if _names(name, caller):
            return HookStatus(name, state, f"{caller} calls it, and it is not there: `orchgit hooks install`")
    if place.slot(name) is not None:
        beside = {"none": "not installed", "ours": f"{path} is not executable"}.get(kind, f"{path} runs alone")
        return HookStatus(name, state, f"{beside}; `orchgit hooks install` puts the guard there")
    if place.ours == "yes" and os.path.lexists(place.former(name)) and kind not in ("none", "ours"):
        kept = place.former(name)
        return HookStatus(name, state, f"{path} was put over ours; your earlier hook is kept at {kept}")
    return HookStatus(name, state, _advice(place, name, path, kind))


def _advice(place: _Place, name: str, path: str, kind: str) -> str:
    """Why the guard is not in force, and how to call it by hand from where we do not write."""
    if not os.path.isdir(place.directory):
        return f"core.hooksPath is {place.directory}, and that is no directory: git runs no hook at all here"
    program = f'h="$(git rev-parse --git-common-dir)/orchgit/hooks/{name}"; [ ! -x "$h" ] || '
    if kind == "lefthook":
        given = {"commit-msg": ' "{1}"', "pre-push": ' "{1}" "{2}"', "reference-transaction": ' "{1}"'}.get(name, "")
        use = "use_stdin: true, " if name in _READS_INPUT else ""
        command = f"orchgit: {{{use}run: '{program}\"$h\"{given}'}}"
        return f"lefthook rewrites {path}; add to lefthook.yml, under {name}, commands: {command}"
    if name in _READS_INPUT:  # and what follows it may want that too
        line = f'updates=$(cat); {program}printf "%s\\n" "$updates" | "$h" "$@" || exit 1'
    else:
        line = program + '"$h" "$@" || exit 1'
    if place.ours == "husky":
        return f"husky rewrites {path}; add to {os.path.join(os.path.dirname(place.directory), name)}: {line}"
    return f"core.hooksPath is {place.directory}, which is not orchgit's to write; add to {path}: {line}"


def _move_aside(slot: str, former: str) -> None:
    """Keep the user's hook at `former`; `slot` may still have it too, and is about to be replaced."""
    hooks, directory = os.path.dirname(slot), os.path.dirname(former)
    os.makedirs(directory, exist_ok=True)
    if os.path.lexists(former):
        return  # the same bytes (see slot): killed in the middle, the last time
    try:
        # A second name for it, and ours over the first: killed at any moment, theirs or ours stands there.
        os.link(slot, former, follow_symlinks=False)
    except OSError:
        os.rename(slot, former)
    for each in os.listdir(hooks):
        if each not in (*NAMES, _MADE) and not each.endswith(".sample"):
            with suppress(FileExistsError):
                os.symlink(os.path.join(os.path.relpath(hooks, directory), each), os.path.join(directory, each))


def _uninstall_one(place: _Place, name: str) -> None:
    path = os.path.join(place.directory, name)
    former = place.former(name)
    if place.ours != "yes":
        if place.ours == "husky" and _kind(path) == "ours":
            os.unlink(path)
        return
    # Whoever installed over us has moved ours to a name of their choice; there the user's own would lie.
    ours = [each for each in (path, f"{path}.legacy", f"{path}.old") if _kind(each) == "ours"]
    for each in ours:
        os.unlink(each)
    if os.path.lexists(former):
        back = ours[0] if ours else path
        if not os.path.lexists(back):
            os.rename(former, back)
        elif _read(back) == _read(former):
            os.unlink(former)


def _clear(place: _Place) -> None:
    """Remove the links that _move_aside made, and the directories of ours if nothing of the user's is in them."""
    chained = os.path.dirname(place.former(NAMES[0]))
    with suppress(FileNotFoundError, NotADirectoryError):
        for each in os.listdir(chained):
            path = os.path.join(chained, each)
            if each not in NAMES and os.path.islink(path):
                os.unlink(path)
    with suppress(OSError):
        os.rmdir(chained)
    made = os.path.join(place.directory, _MADE)
    if os.path.lexists(made):
        os.unlink(made)
        with suppress(OSError):
            os.rmdir(place.directory)


# --- files -------------------------------------------------------------------------------------------------


def _kind(path: str) -> Literal["none", "ours", "pre-commit", "lefthook", "other"]:
    if not os.path.lexists(path):
        return "none"
    data = _read(path) or b""
    if data.startswith(b"#!/bin/sh\n" + _MARK):
        return "ours"
    if b"File generated by pre-commit" in data:
        return "pre-commit"
    return "lefthook" if b"call_lefthook" in data else "other"


def _names(name: str, path: str) -> bool:
    """Whether the file calls the guard by hand."""
    return f"orchgit/hooks/{name}".encode() in (_read(path) or b"")


def _runs(path: str) -> bool:
    return _kind(path) == "ours" and os.access(path, os.X_OK)


def _shipped(where: str, name: str) -> bytes:
    with open(os.path.join(source_dir(), where, name), "rb") as file:
        return file.read()


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # nothing there, a directory, a broken link, not ours to read
        return None


def _write(path: str, data: bytes, mode: int) -> None:
    """Replace `path` in one step; leave it alone when it is so already."""
    if not os.path.islink(path) and _read(path) == data and os.stat(path).st_mode & 0o777 == mode:
        return
    handle, temporary = tempfile.mkstemp(prefix=".orchgit-", dir=os.path.dirname(path))
    with open(handle, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    os.replace(temporary, path)
