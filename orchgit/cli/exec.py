"""`orchgit exec --allow 'src/api/**' -- CMD…`: any command in a cell of its own, with nothing else of orchgit round it.

The cell stands on a commit, the command has the sandbox, the hooks and the watchdog that a worker has, and with
`--keep` what it left goes through the gate, onto a branch. No run, no log, no configuration is needed.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.cellrun import Judged
    from orchgit.core.scope import Scope
    from orchgit.git import cells, gate
    from orchgit.git.door import Door
    from orchgit.git.user import UserRepo
    from orchgit.sandbox import Level, Network, Sandbox
    from orchgit.watch import Sighting

LISTED = 200  # paths of each sort that are shown


def command(
    words: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The command, after two dashes.")],
    allow: Annotated[list[str], typer.Option(help="A pattern of paths that may change: 'src/api/**'. Repeat.")] = [],  # noqa: B006
    deny: Annotated[list[str], typer.Option(help="Paths that may not, although allowed. Repeat.")] = [],  # noqa: B006
    base: Annotated[str, typer.Option(help="The commit to stand on.")] = "HEAD",
    symlinks: Annotated[bool, typer.Option("--symlinks", help="Links may land, from the scope to the scope.")] = False,
    keep: Annotated[str, typer.Option(metavar="BRANCH", help="Land the changes there, as one commit.")] = "",
    network: Annotated[str, typer.Option(help="none, loopback (servers of its own), or open.")] = "none",
    level: Annotated[str, typer.Option(help="This way of confining and no other; orchgit doctor lists them.")] = "",
    env: Annotated[list[str], typer.Option(help="A variable of yours to hand on, or NAME=VALUE. Repeat.")] = [],  # noqa: B006
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run although nothing stops it from writing anywhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON, as the last line on stderr.")] = False,
) -> int:
    """Run any command in a cell, and land what is in its scope.

    Exit code: the command's, 128 + n if signal n ended it; 1 if --keep landed nothing, though there was something.
    """
    from orchgit.core.pattern import PatternError
    from orchgit.core.scope import Scope
    from orchgit.git.door import Door
    from orchgit.git.user import discover

    if not words or not allow:
        raise OrchgitError(
            Kind.USAGE, "a command and a scope are wanted", "", "orchgit exec --allow 'src/api/**' -- CMD…"
        )
    try:
        scope = Scope(tuple(allow), tuple(deny), symlinks)
    except PatternError as error:
        raise OrchgitError(Kind.USAGE, "that is no pattern of a scope", str(error)) from error
    repo = discover(Path.cwd())
    door = Door(repo.common, repo.object_format)
    try:
        exec_ = _Exec(repo, door, scope, tuple(words), base, keep, as_json)
        exec_.choose(level, network, allow_unsandboxed)
        return exec_.run(_variables(env))
    finally:
        door.close()


def _variables(wanted: Sequence[str]) -> dict[str, str]:
    """What the command gets beside the usual. The terminal's own names go along where there is a terminal."""
    names = [*wanted, *(("TERM", "COLORTERM") if any(os.isatty(fd) for fd in (0, 1, 2)) else ())]
    pairs = [(n.partition("=")[0], n.partition("=")[2] if "=" in n else os.environ.get(n)) for n in names]
    return {name: value for name, value in pairs if value is not None}


class _Exec:
    """One call, from the cell to the report."""

    way: Sandbox  # as it is; `sandbox` is the same with what is hidden from the command
    sandbox: Sandbox
    level: Level
    network: Network

    def __init__(
        self, repo: UserRepo, door: Door, scope: Scope, words: tuple[str, ...], base: str, keep: str, as_json: bool
    ) -> None:
        from orchgit.git.user import resolve

        self.repo, self.door, self.scope, self.words, self.as_json = repo, door, scope, words, as_json
        self.base = resolve(base)
        if not self.base:
            raise OrchgitError(
                Kind.USAGE, f"{base} is no commit here", "", "git log --oneline shows some, or give --base"
            )
        self.ref = f"refs/heads/{keep}" if keep else ""
        self.old = self._landing_place() if keep else ""
        self.seen: list[Sighting] = []

    def choose(self, level: str, network: str, allow_unsandboxed: bool) -> None:
        """Raises OrchgitError for what this machine does not hold: nothing weaker is taken instead."""
        from orchgit.sandbox import SANDBOXES, best

        if level and level not in SANDBOXES:
            raise OrchgitError(Kind.USAGE, f"there is no level {level!r}", f"there are: {', '.join(SANDBOXES)}")
        if level == "none" and not allow_unsandboxed:
            raise OrchgitError(
                Kind.UNAVAILABLE,
                "level none stops it from nothing",
                "",
                "with --allow-unsandboxed it runs all the same",
            )
        self.way, self.level = best(allow_unsandboxed, level)
        if network not in ("none", "loopback", "open"):
            raise OrchgitError(Kind.USAGE, f"--network {network!r} is not known", "none, loopback or open")
        if network not in self.level.networks:
            raise OrchgitError(
                Kind.UNAVAILABLE, f"network {network} cannot be had at this level, {self.level.name}",
                f"what can: {', '.join(self.level.networks)}", "--network open, if you accept it",
            )  # fmt: skip
        self.network = network

    def run(self, variables: dict[str, str]) -> int:
        from orchgit import cellrun
        from orchgit.git import gate

        with self._cell() as cell:
            held = f"sandbox {self.level.name}, network {self.network}, a checkout of {self.base[:10]}"
            self._say(held if self.level.prevented else f"{held}; NOTHING STOPS IT FROM WRITING ANYWHERE")
            if _dirty():
                self._say("your uncommitted changes are not in it")
            code, lost = self._attached(cell, variables)
            when = f"{int(time.time())} +0000"
            try:
                left = cellrun.harvest(self.door, self.sandbox, cell, self.base, when)
            except gate.BadPack as error:
                raise OrchgitError(Kind.NO, "what the command left cannot be read", str(error)) from error
            base_tree = self.door.tree_of(self.base)
            judged = cellrun.judged(self.door, self.scope, base_tree, left.tree) if left.tree != base_tree else None
            return self._report(code, judged, left, when, lost)

    def _attached(self, cell: cells.Cell, variables: dict[str, str]) -> tuple[int, tuple[str, ...]]:
        """Run it. Its exit code in the shell's words, and why sightings may be missing."""
        from orchgit import attached, cellrun, githooks
        from orchgit.agent_run import confinement
        from orchgit.core.scope import hook_rules
        from orchgit.sandbox import base_env
        from orchgit.watch import Watchdog

        githooks.install_cell(str(cell.git), hook_rules(self.scope), base=self.base, branch=self._branch)
        places = cellrun.writable(cell, self.scope)
        forbidden = [str(self.repo.root), str(self.repo.common), str(cell.root)]
        probes = cellrun.tried(self.sandbox, cell, places, forbidden, network=self.network)
        if through := cellrun.through(probes, self.level):
            raise OrchgitError(Kind.UNAVAILABLE, through, "", "orchgit doctor")
        argv = self.sandbox.argv(confinement(cell, places, network=self.network), self.words)
        dog = Watchdog()
        watch = dog.watch(str(cell.top), self.scope.allows, self._sighted, lowers=tuple(map(str, cell.lowers)))
        try:
            env = base_env(str(cell.home), str(cell.tmp), extra=variables)
            code = attached.run(argv, cwd=str(cell.work), env=env)
            watch.settle()
        finally:
            watch.stop()
            lost = watch.reasons if watch.incomplete else ()
            dog.close()
        return (128 - code if code < 0 else code), lost

    @property
    def _branch(self) -> str:
        return self.ref or "refs/heads/work"

    @contextmanager
    def _cell(self) -> Iterator[cells.Cell]:
        """Made, and removed in the end. What an earlier call left that was killed goes too."""
        import fcntl
        import secrets

        from orchgit import ground
        from orchgit.agent_run import furnish
        from orchgit.config import load, state_home
        from orchgit.git import cells
        from orchgit.git.door import GitError

        config = load(self.repo.root, os.environ)
        place = state_home(config, os.environ) / cells.repository_id(self.repo.common)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in place.glob("exec-*"):
            fd = os.open(old, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cells.remove(old)
            except BlockingIOError:
                pass  # its command goes on
            finally:
                os.close(fd)
        self.token = f"{int(time.time())}-{secrets.token_hex(3)}"
        root = place / f"exec-{self.token}"
        root.mkdir(mode=0o700)
        lock = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.sandbox = furnish(self.way, self.level, config, self.door, root)
            stands = ground.make(
                self.door, config, self.sandbox, user_tree=self.repo.root, place=root, cache=place / "setup",
                commit=self.base, base=None, say=self._say,
            )  # fmt: skip
            try:
                cell = cells.make(self.door, root / "cell", self.base, branch=self._branch, under=stands.layers)
            except GitError as error:
                raise OrchgitError(Kind.FAULT, "the cell could not be made", str(error)) from error
            cells.overlook(cell, stands.names)
            for name in cells.copy_in(cell, self.repo.root, config.cells.copied):
                self._say(f"not copied, for it is not there: {name}")
            yield cell
        finally:
            cells.remove(root)
            os.close(lock)

    # -- words

    def _say(self, line: str) -> None:
        from orchgit.report import safe

        if not self.as_json:
            print(f"orchgit: {safe(line)}", file=sys.stderr, flush=True)

    def _sighted(self, seen: Sighting) -> None:
        """On the watchdog's thread. At once, unless the screen is the command's."""
        from orchgit.core.plan import printable

        self.seen.append(seen)
        if not os.isatty(0):
            self._say(f"out of scope: {printable(seen.path)} ({seen.kind})")

    def _report(self, code: int, judged: Judged | None, left: gate.Snapshot, when: str, lost: tuple[str, ...]) -> int:
        changed = _changed(judged)
        report: dict[str, Any] = {
            "exit_code": code, "base": self.base, "sandbox": self.level.name, "network": self.network,
            "prevented": self.level.prevented, "cell": "checkout", "changes": changed, "landed": "", "salvage": "",
            "touched": sorted({os.fsdecode(s.path) for s in self.seen} - {c["path"] for c in changed}),
            "watch_incomplete": list(lost),
        }  # fmt: skip
        refused = [c for c in changed if c["rule"]]
        if judged and self.ref:
            if judged.tree and code == 0:
                report["landed"] = self._land(judged.tree, when)
            else:
                report["salvage"] = self._salvage(left.commit)
        if self.as_json:
            print(json.dumps(report), file=sys.stderr)
        else:
            self._tell(report, refused)
        return Kind.NO if code == 0 and report["salvage"] else code

    def _tell(self, report: dict[str, Any], refused: list[dict[str, str]]) -> None:
        from orchgit.report import many

        changed: list[dict[str, str]] = report["changes"]
        fine = [c for c in changed if not c["rule"]]
        for change in fine[:LISTED]:
            self._say(f"  {change['kind']:<9} {change['path']}")
        if len(fine) > LISTED:
            self._say(f"  … and {len(fine) - LISTED} more")
        for change in refused[:LISTED]:
            hint = f"; to allow it: {change['allowed_by']}" if change["allowed_by"] else ""
            self._say(f"  REFUSED   {change['kind']} {change['path']}: {change['rule']}{hint}")
        if len(refused) > LISTED:
            self._say(f"  … and {len(refused) - LISTED} more REFUSED")
        for path in report["touched"][:LISTED]:
            self._say(f"  touched, outside the scope, and not in what it left (gone, or ignored by git): {path}")
        for why in report["watch_incomplete"]:
            self._say(f"the watchdog may have missed something: {why}")
        name = self.ref.removeprefix("refs/heads/")
        if report["landed"]:
            self._say(f"landed on {name} as {report['landed'][:10]}: git diff {self.base[:10]} {name}")
        elif report["salvage"]:
            why = f"{many(len(refused), 'path')} refused" if refused else f"the command failed ({report['exit_code']})"
            self._say(f"nothing landed on {name}: {why}; what it left is kept: git show {report['salvage']}")
        elif changed:
            self._say("none of it is kept; with --keep BRANCH what is in the scope lands there")
        else:
            self._say("nothing was changed")

    # -- landing

    def _landing_place(self) -> str:
        """What the branch holds now, "" for a new one. Raises OrchgitError when nothing may land there."""
        from orchgit.git.door import GitError

        name = self.ref.removeprefix("refs/heads/")
        try:
            fine = self.door.run("check-ref-format", "--branch", name).decode() == f"{name}\n"
        except GitError:
            fine = False
        if not fine:
            raise OrchgitError(Kind.USAGE, f"{name!r} is no name for a branch", "", "--keep BRANCH")
        if name.partition("/")[0] == "orchgit":
            raise OrchgitError(Kind.USAGE, "branches below orchgit/ are the engine's", "", "--keep another name")
        listed = self.door.run("worktree", "list", "--porcelain", "-z", refs=True).decode("utf-8", "replace")
        if f"branch {self.ref}" in listed.split("\0"):
            raise OrchgitError(
                Kind.USAGE, f"{name} is checked out", "no checkout of yours is touched", "--keep another name"
            )
        old = self.door.ref(self.ref) or ""
        if old not in ("", self.base):
            raise OrchgitError(
                Kind.USAGE, f"{name} is at {old[:10]}, and the command stands on {self.base[:10]}", "",
                f"--base {name}, or --keep another name",
            )  # fmt: skip
        return old

    def _land(self, tree: str, when: str) -> str:
        from orchgit.git import merges
        from orchgit.git.door import GitError
        from orchgit.git.user import author

        said = shlex.join(self.words)
        scope = " ".join([*self.scope.allow, *(f"!{pattern}" for pattern in self.scope.deny)])
        trailers = {"Orchgit-Exec": merges.clean(said).replace("\n", " ")[:500], "Orchgit-Scope": scope[:500]}
        text = merges.message(f"Run {said}", "", trailers)
        commit = self.door.write_commit(tree, (self.base,), text, when, author())
        self._landing_place()  # somebody may have checked it out meanwhile
        try:
            self.door.swap([(self.ref, commit, self.old)], "orchgit: exec")
        except GitError as error:
            raise OrchgitError(Kind.NO, f"{self.ref} was moved meanwhile", str(error), f"git show {commit}") from error
        self.door.barrier()
        return commit

    def _salvage(self, commit: str) -> str:
        ref = f"refs/orchgit/salvage/exec/{self.token}"
        self.door.swap([(ref, commit, "")], "orchgit: exec, as the command left it")
        self.door.barrier()
        return ref


def _changed(judged: Judged | None) -> list[dict[str, str]]:
    """Each path with what became of it, and the rule that refuses it, if one does."""
    from orchgit.core.plan import printable

    if judged is None:
        return []
    rules = {violation.path: violation.rule for violation in judged.violations}
    found = []
    for change in judged.changes:
        path = printable(change.path)
        kind = "created" if change.old is None else "deleted" if change.new is None else "modified"
        rule = rules.pop(path, "")
        found.append({"path": path, "kind": kind, "rule": rule, "allowed_by": _allowed_by(path, rule)})
    # What is about all of it: too many files, too deep.
    found += [{"path": path, "kind": "all", "rule": rule, "allowed_by": ""} for path, rule in rules.items()]
    return found


def _allowed_by(path: str, rule: str) -> str:
    if rule.startswith(("outside the scope", "protected:")):
        return f"--allow {shlex.quote(path)}"
    if rule.startswith("denied by "):
        return f"no --deny {shlex.quote(rule.removeprefix('denied by '))}"
    return ""


def _dirty() -> bool:
    from orchgit.git.user import ask

    return bool(ask("status", "--porcelain"))
