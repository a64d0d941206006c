"""A pull request of a run, checked on a machine that the agents never touched: scope and log, from what was pushed.

Everything is fetched anew into a repository of its own that borrows the objects of the clone at hand, and is judged
there: nothing in the clone is configured, checked out or believed. What a branch may hold comes from the plan in the
run's log, the log is audited against git, the head has to be what the log says may be merged, and where it goes has to
have the commit that the run began at: a pull request brings all that its base has not. No log, no pass.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchgit import publish
from orchgit.auditor import Audit
from orchgit.core import events as e
from orchgit.core.audit import Told, known, trailers
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.run import Run, branch
from orchgit.git.door import quoted
from orchgit.git.history import Judgement, judge_range
from orchgit.git.user import git_dir, shared_dir
from orchgit.git.visit import DEEPEN, Visitor

INTEGRATION = "integration"
BASE = "refs/base"  # here: the branch that the run began on, as the remote has it
MAX_RUNS = 20  # that commits say they are of: each is asked for, and anybody can say it of any number
LISTED = 20  # commits, by their ids
_BRANCH = re.compile(r"orchgit/([A-Za-z0-9][A-Za-z0-9._-]*)/([A-Za-z0-9][A-Za-z0-9._-]*)")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Asked:
    """A pull request, or what a merge queue is about to merge. Branches without refs/heads/; `branch` "" is none of
    this repository's: a fork's, or a queue's."""

    branch: str
    into: str
    base: str  # commits
    head: str


@dataclass(frozen=True)
class Problem:
    what: str
    hint: str
    path: str = ""


@dataclass(frozen=True)
class Checked:
    """`unsure`: whether something could not be decided, and nothing was found wrong."""

    about: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()  # commits that are in no merge of a run: nothing was looked at in them
    scope: Judgement | None = None
    audits: tuple[Told, ...] = ()

    @property
    def unsure(self) -> bool:
        return not self.problems and any(told.verdict == "inconclusive" for told in self.audits)


def check(start: Path, asked: Asked, remote: str, env: Mapping[str, str]) -> Checked:
    """OrchgitError where it cannot be looked at: no such commit, no network."""
    named = _BRANCH.fullmatch(asked.branch)
    with tempfile.TemporaryDirectory(prefix="orchgit-pull-") as scratch:
        here = _borrow(git_dir(start), Path(scratch) / "git")
        if named is not None:
            return _of_run(here, asked, named[1], named[2], remote, env)
        return _of_others(here, asked, remote, env)


def _of_run(here: Path, asked: Asked, run: str, name: str, remote: str, env: Mapping[str, str]) -> Checked:
    about = f"{name} of run {run}"
    if not _fetch(here, remote, run, env):
        return Checked(about, (_no_log(run),))
    with _visit(here) as door:
        told, problems = _audit(here, run)
        state, judgement = told.reading.run, None
        if name in state.works:
            judgement = _in_scope(door, state, name, asked.head)
            problems += [Problem(f"{b.rule}{_at(b.commit)}", f"what would allow it: {b.remedy}", _path(b.path))
                         for b in (judgement.breaches if judgement else ())]  # fmt: skip
        elif name != INTEGRATION:
            problems.append(Problem(f"the plan of run {run} has no assignment {name!r}", "push it under another name"))
        may = _merges(told) if name == INTEGRATION else _accepted(told, name)
        if asked.head not in may:
            problems.append(_stranger(door, asked.head, ours=asked.head in known(told.reading)))
        problems += [*_misplaced(asked, state, name), *_ahead(here, asked, state, remote, env)]
    return Checked(about, tuple(problems), scope=judgement, audits=(told,))


def _of_others(here: Path, asked: Asked, remote: str, env: Mapping[str, str]) -> Checked:
    """Not a run's own branch: people's work, and, in a queue or under another name, the work of runs."""
    if _BRANCH.fullmatch(asked.into):
        what = f"{asked.into} is a run's branch: only the branches of that run go into it"
        return Checked("no branch of a run", (Problem(what, "choose another base"),))
    problems, notes, audits = list[Problem](), list[str](), list[Told]()
    with _visit(here) as door:
        runs = _runs_in(door, asked.base, asked.head)
    if len(runs) > MAX_RUNS:
        problems.append(Problem(f"its commits are of {len(runs)} runs, too many to look at", "merge them in parts"))
        runs = []
    for run in runs:
        if not _fetch(here, remote, run, env):
            notes.append(f"commits say that they are of run {run}, and its log is not published")
            continue
        told, found = _audit(here, run)
        audits.append(told)
        problems += found
    with _visit(here) as door:
        beside = _beside(door, asked, audits)
    about = f"merges of {', '.join(runs)}" if runs else "no work of a run"
    if runs and beside:
        about += f", and {len(beside)} commit{'s' * (len(beside) != 1)} beside them"
        notes.append(f"in no merge of these runs, so not looked at: {', '.join(c[:10] for c in beside[:LISTED])}"
                     + (", …" if len(beside) > LISTED else ""))  # fmt: skip
    return Checked(about, tuple(problems), tuple(notes), beside, audits=tuple(audits))


# ---- a place of its own


def _borrow(clone: Path, place: Path) -> Path:
    common = shared_dir(clone)
    kind = publish.object_format(common)
    subprocess.run(["git", "init", "-q", "--bare", f"--object-format={kind}", str(place)], check=True)
    store = quoted(str(common / "objects"))
    (place / "objects" / "info" / "alternates").write_text(f"{store}\n")
    if (common / "shallow").exists():
        (place / "shallow").write_bytes((common / "shallow").read_bytes())
    return place


def _fetch(here: Path, remote: str, run: str, env: Mapping[str, str]) -> bool:
    """The log and the branches of a run; whether there is a log."""
    log, heads = publish.RUNS + run, f"refs/heads/orchgit/{run}/"
    for ref in (f"{log}*", f"{heads}*"):  # a pattern: what is not there is no error
        publish.bring(here, remote, ref, ref, env)
    return bool(_git(here, "rev-parse", "--verify", "--quiet", log))


def _git(here: Path, *args: str) -> str | None:
    """What git says; None when it says no."""
    done = subprocess.run(["git", *args], cwd=here, check=False, capture_output=True)
    return done.stdout.decode().strip() if done.returncode == 0 else None


@contextmanager
def _visit(here: Path) -> Iterator[Visitor]:
    with tempfile.TemporaryDirectory(prefix="orchgit-visit-") as scratch:
        door = Visitor(here, Path(scratch))
        try:
            yield door
        finally:
            door.close()


# ---- what is looked at


def _audit(here: Path, run: str) -> tuple[Told, list[Problem]]:
    """What audit finds of what the log says; and whether the integration branch is on the way there. At the forge it is
    pushed merge by merge, after people have looked, so there it may stand at any merge that was done."""
    ref = f"refs/heads/orchgit/{run}/{INTEGRATION}"
    at = _git(here, "rev-parse", "--verify", "--quiet", ref)
    with Audit(here, run) as audit:
        reading = audit.read()
        if reading.run.tip:
            _git(here, "update-ref", ref, reading.run.tip)
        told = audit.judge()
    problems = [
        Problem(f"{r.law}: {found.where}: {found.what}", f"orchgit audit {run}")
        for r in told.results
        for found in r.found
    ]
    if at and at not in _merges(told):
        what = f"the integration branch stands at {at[:10]}, which is no merge that the run's log has"
        problems.append(Problem(what, "somebody else moved it: see who, and put it back"))
    return told, problems


def _in_scope(door: Visitor, state: Run, name: str, head: str) -> Judgement | None:
    """None before it has begun: then no head of it is one that the log knows."""
    work = state.works[name]
    if not work.base:
        return None
    # A join of the engine's own is a merge; each is judged by what it changes against its first parent.
    return judge_range(door, work.spec.scope, work.base, door.commit_of(head), merges=True)


def _merges(told: Told) -> list[str]:
    """Where the integration branch may stand: where the run began, then its merges; of the last one an engine that died
    has not said yet that it was done."""
    state = told.reading.run
    found = [state.started.base] if state.started else []
    for event in told.reading.events:
        match event.body:
            case e.MergeDone(land="merge" | "seal", new=new):
                found.append(new)
            case e.MergeRequested(land="merge" | "seal", new=new) if event.seq in state.pending:
                found.append(new)
    return found


def _accepted(told: Told, name: str) -> set[str]:
    """An assignment's own work that the orchestrator accepted: what it rejected is in the log as well."""
    gated, accepted = dict[int, str](), set[str]()
    for event in told.reading.events:
        match event.body:
            case e.GatePassed(assignment=of, attempt=attempt, commit=commit) if of == name:
                gated[attempt] = commit
            case e.VerdictGiven(assignment=of, attempt=attempt, decision="accept") if of == name and attempt in gated:
                accepted.add(gated[attempt])
    return accepted


def _misplaced(asked: Asked, state: Run, name: str) -> Iterator[Problem]:
    """A worker's branch goes into its run, where the whole is verified; only the whole goes to where the run began."""
    if name == INTEGRATION:
        wanted = _began_on(state, asked)
        right = asked.into == wanted
    else:
        wanted = f"orchgit/{state.id}/{INTEGRATION}"
        right = asked.into in {wanted, *(f"orchgit/{state.id}/{other}" for other in state.works if other != name)}
    if not right:
        what = f"it goes into {asked.into or 'a branch that was not named'}; {name} of this run goes into {wanted}"
        yield Problem(what, f"choose {wanted} as its base")


def _ahead(here: Path, asked: Asked, state: Run, remote: str, env: Mapping[str, str]) -> Iterator[Problem]:
    """What the run began with comes along with it, and nothing here looks at it: it has to be there already."""
    ref = f"refs/heads/{_began_on(state, asked)}"
    base = state.started.base if state.started else ""
    there = publish.remote_ref(here, remote, ref, env)
    if there:
        publish.bring(here, remote, ref, BASE, env)
    if not there or _git(here, "merge-base", "--is-ancestor", "--end-of-options", base, BASE) is None:
        where = ref.removeprefix("refs/heads/")
        what = f"the run began at {base[:10]}, which {where} has not: its commits would come along"
        yield Problem(
            what, DEEPEN if (here / "shallow").exists() else f"bring that commit into {where} by itself first"
        )


def _began_on(state: Run, asked: Asked) -> str:
    """The branch that the run began on; with a detached head on none, and then it may go anywhere."""
    return (state.started.base_ref.removeprefix("refs/heads/") if state.started else "") or asked.into


def _beside(door: Visitor, asked: Asked, audits: list[Told]) -> tuple[str, ...]:
    """What would come that no merge of these runs holds; what a run began with is none of it."""
    base = door.commit_of(asked.base)
    coming = [commit for commit, _ in door.between(base, door.commit_of(asked.head))]
    held = set[str]()
    for told in audits:
        began, *merges = _merges(told) or [base]
        for merge in reversed(merges):  # the last that was pushed holds those before it
            try:
                held.update(c for c, _ in door.between(door.commit_of(began), door.commit_of(merge)))
            except OrchgitError:
                continue
            break
    return tuple(commit for commit in coming if commit not in held)


def _stranger(door: Visitor, head: str, *, ours: bool) -> Problem:
    if ours:
        return Problem(
            f"its head {head[:10]} is a commit of the run's, and not one that was accepted for this branch",
            "put the branch back to where the log has it: orchgit ship RUN --push REMOTE",
        )
    author = door.run("log", "-1", "--format=%an", door.commit_of(head)).decode("utf-8", "replace").strip()
    return Problem(
        f"its head {head[:10]}, by {author}, is a commit that the run's log knows nothing of",
        f"orchgit takes over what people push onto a worker's branch, and checks it: orchgit ship; "
        f"else take it back: git push --force-with-lease origin LAST:{branch('RUN', 'NAME')}",
    )


def _no_log(run: str) -> Problem:
    return Problem(
        f"the log of run {run} is not published: {publish.RUNS}{run} is not there",
        f"on the machine of the run: orchgit ship {run} --push REMOTE",
    )


def _runs_in(door: Visitor, base: str, head: str) -> list[str]:
    """The runs that commits in between say they are of."""
    said = door.run("log", "--format=%B%x00", door.commit_of(head), f"^{door.commit_of(base)}").decode(
        "utf-8", "replace"
    )
    named = [run for message in said.split("\0") for run in trailers(message.strip()).get("Orchgit-Run", ())]
    return list(dict.fromkeys(run for run in named if _RUN.fullmatch(run)))


def _at(commit: str) -> str:
    return f" (commit {commit[:10]})" if commit else ""


def _path(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def remote_url(start: Path, remote: str) -> str:
    """Where a remote of the clone is fetched from."""
    done = subprocess.run(["git", "remote", "get-url", remote], cwd=start, capture_output=True, check=False)
    if done.returncode:
        raise OrchgitError(
            Kind.USAGE, f"there is no git remote {remote!r}", done.stderr.decode().strip(), "git remote -v"
        )
    return done.stdout.decode().strip()
