"""What is to be built, by whom, where, and in which order: Plan, Assignment, Roster.

A plan is immutable once approved. `problems` says everything that is wrong with one, all at once, each with
the assignment, what is wrong and what would be right: an agent or a person mends it in one go. An empty
answer is the only way for a plan to become a proposal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Literal

from orchgit.core.codec import dumps, encode
from orchgit.core.pattern import PatternError, check_pattern
from orchgit.core.scope import Scope, overlap, precision, wildcard_claims_protected

MAX_ASSIGNMENTS = 64
MAX_PLAN_BYTES = 48 * 1024  # a plan is one event, and one event is one line of at most 64 KiB
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# "integration" names a branch of ours; the others are what checks and blockers are about when it is no assignment.
_RESERVED = frozenset({"integration", "ship", "seal", "plan", "review", "synthesis"})

MemberRole = Literal["orchestrator", "worker", "reviewer"]


@dataclass(frozen=True)
class Member:
    """One name on the roster. `allow` and `deny` are a worker's usual ground: a suggestion to the planner."""

    name: str
    role: MemberRole
    description: str
    backend: str
    model: str
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """One piece of work. `outputs` are literal paths that must exist in the end; `checks` are shell commands."""

    id: str
    worker: str
    title: str
    task: str
    allow: tuple[str, ...]
    deny: tuple[str, ...] = ()
    interface: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    symlinks: bool = False

    @cached_property  # asked for at every decision about who owns a path
    def scope(self) -> Scope:
        return Scope(self.allow, self.deny, self.symlinks)


@dataclass(frozen=True)
class Plan:
    goal: str  # the end result expected
    assignments: tuple[Assignment, ...]
    reviewers: tuple[str, ...] = ()

    def get(self, name: str) -> Assignment:
        return next(a for a in self.assignments if a.id == name)


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plan. `assignment` is empty when it concerns the plan as a whole."""

    assignment: str
    what: str
    instead: str

    def __str__(self) -> str:
        where = f"assignment {self.assignment!r}: " if self.assignment else "plan: "
        return f"{where}{self.what}; {self.instead}"


def problems(plan: Plan, roster: Iterable[Member]) -> tuple[Problem, ...]:
    """Everything that keeps this plan from being run. The order is stable."""
    members = tuple(roster)
    found: list[Problem] = []
    if not plan.assignments:
        found.append(Problem("", "it has no assignments", "give at least one assignment to a worker"))
    if len(plan.assignments) > MAX_ASSIGNMENTS:
        found.append(Problem("", f"{len(plan.assignments)} assignments", f"split the issue: {MAX_ASSIGNMENTS} at most"))
    size = len(dumps(encode(plan)).encode("utf-8", "surrogatepass"))
    if size > MAX_PLAN_BYTES:
        found.append(Problem("", f"{size} bytes as JSON", f"shorten the tasks: {MAX_PLAN_BYTES} bytes at most"))
    if not plan.goal.strip():
        found.append(Problem("", "the goal is empty", "say in a sentence what will be true at the end"))
    found += _names(plan, members)
    for assignment in plan.assignments:
        found += _own(assignment, members)
    found += _dependencies(plan)
    if not found:  # scopes can only be compared once they are well-formed and the order is one
        found += _overlaps(plan)
    return tuple(found)


def imprecise(plan: Plan, files: Iterable[bytes], percent: int) -> tuple[Problem, ...]:
    """The assignments whose prevention precision, over the files of the base, is below `percent`."""
    listed = tuple(files) if percent else ()
    found = []
    for assignment in plan.assignments:
        inside, writable = precision(assignment.scope, listed)
        if inside * 100 < percent * writable:
            what = f"of {writable} files that the kernel would let it write, {inside} are in its scope"
            found.append(Problem(assignment.id, what, f"give it directories of its own: {percent} % must be in scope"))
    return tuple(found)


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _names(plan: Plan, members: tuple[Member, ...]) -> list[Problem]:
    found = []
    seen: set[str] = set()
    for assignment in plan.assignments:
        name = assignment.id
        if not _ID.fullmatch(name):
            found.append(
                Problem(name, "the id is not usable", "use a-z, 0-9 and '-', at most 40, not starting with '-'")
            )
        elif name in _RESERVED:
            taken = ", ".join(sorted(_RESERVED))
            found.append(Problem(name, "the id is reserved", f"choose another: the run itself uses {taken}"))
        if name in seen:
            found.append(Problem(name, "two assignments have this id", "give each its own"))
        seen.add(name)
    reviewers = [m.name for m in members if m.role == "reviewer"]
    for name in plan.reviewers:
        if name not in reviewers:
            hint = _near(name, reviewers)
            found.append(
                Problem("", f"unknown reviewer {name!r}{hint}", f"choose from: {', '.join(reviewers) or 'none'}")
            )
    return found


def _own(assignment: Assignment, members: tuple[Member, ...]) -> list[Problem]:
    """What is wrong with one assignment, looked at alone."""
    found: list[Problem] = []

    def say(what: str, instead: str) -> None:
        found.append(Problem(assignment.id, what, instead))

    workers = [m.name for m in members if m.role == "worker"]
    if assignment.worker not in workers:
        say(
            f"unknown worker {assignment.worker!r}{_near(assignment.worker, workers)}",
            f"choose from the roster: {', '.join(workers) or 'it has no workers'}",
        )
    if not assignment.task.strip():
        say("the task is empty", "say what the worker has to do")
    if not assignment.allow:
        say("the scope is empty", "allow at least one path, such as 'src/api/**'")
    well_formed = True
    for pattern in (*assignment.allow, *assignment.deny):
        try:
            check_pattern(pattern)
        except PatternError as error:
            well_formed = False
            say(f"malformed scope pattern {pattern!r}", str(error))
    for pattern in assignment.allow if well_formed else ():
        claimed = wildcard_claims_protected(pattern)
        if claimed:
            say(
                f"{pattern!r} claims protected paths ({claimed}) by a wildcard",
                "name each protected file literally, such as '.github/workflows/test.yml'",
            )
    for output in assignment.outputs:
        try:
            check_pattern(output)
        except PatternError as error:
            say(f"malformed output {output!r}", str(error))
            continue
        if output.endswith("/") or any(c in output for c in "*?["):
            say(f"output {output!r} is not one file", "name each file that must exist")
        elif well_formed and assignment.allow:
            why = assignment.scope.why_not(output.encode())
            if why:
                say(f"output {output!r} is outside the scope ({why})", "widen the scope or drop the output")
    for check in assignment.checks:
        if not check.strip():
            say("a check is empty", "give a command, or leave it out")
    return found


def _dependencies(plan: Plan) -> list[Problem]:
    found = []
    known = {a.id for a in plan.assignments}
    for assignment in plan.assignments:
        for name in assignment.depends_on:
            if name == assignment.id:
                found.append(Problem(assignment.id, "it depends on itself", "drop that dependency"))
            elif name not in known:
                found.append(
                    Problem(
                        assignment.id,
                        f"it depends on {name!r}, which does not exist{_near(name, known)}",
                        f"depend on one of: {', '.join(sorted(known - {assignment.id})) or 'nothing'}",
                    )
                )
    cycle = _cycle({a.id: tuple(d for d in a.depends_on if d in known and d != a.id) for a in plan.assignments})
    if cycle:
        found.append(Problem(cycle[0], f"the dependencies form a cycle: {' -> '.join(cycle)}", "break it at one place"))
    return found


def _cycle(graph: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """One cycle, first name repeated at the end; empty when there is none."""
    done: set[str] = set()
    for root in graph:
        path: list[str] = []
        stack: list[tuple[str, int]] = [(root, 0)]
        while stack:
            name, index = stack.pop()
            if index == 0:
                if name in done:
                    continue
                if name in path:
                    return (*path[path.index(name) :], name)
                path.append(name)
            if index < len(graph[name]):
                stack += [(name, index + 1), (graph[name][index], 0)]
            else:
                done.add(name)
                path.remove(name)
    return ()


def upstream(plan: Plan) -> dict[str, frozenset[str]]:
    """For each assignment, all that it depends on, directly or not. The plan must be acyclic."""
    direct = {a.id: a.depends_on for a in plan.assignments}
    result: dict[str, frozenset[str]] = {}

    def all_of(name: str) -> frozenset[str]:
        if name not in result:
            result[name] = frozenset(direct[name]).union(*(all_of(d) for d in direct[name]))
        return result[name]

    for name in direct:
        all_of(name)
    return result


def order(plan: Plan) -> tuple[Assignment, ...]:
    """Dependencies first; among the free ones, the plan's own order. The plan must be acyclic."""
    above = upstream(plan)
    left = list(plan.assignments)
    placed: list[Assignment] = []
    while left:
        ready = next(a for a in left if above[a.id] <= {p.id for p in placed})
        placed.append(ready)
        left.remove(ready)
    return tuple(placed)


def waves(plan: Plan) -> tuple[tuple[Assignment, ...], ...]:
    """What can run at the same time, for showing to a person only: the engine itself has no barriers."""
    above = upstream(plan)
    depth: dict[str, int] = {}
    for a in order(plan):
        depth[a.id] = 1 + max((depth[d] for d in above[a.id]), default=-1)
    return tuple(tuple(a for a in order(plan) if depth[a.id] == d) for d in range(max(depth.values(), default=-1) + 1))


@lru_cache(maxsize=4096)
def _witness(a: Scope, b: Scope) -> bytes | None:
    """`overlap`, once: milliseconds for each pair, and a plan is looked at when decided on, replayed and shown."""
    return overlap(a, b)


def _overlaps(plan: Plan) -> list[Problem]:
    above = upstream(plan)
    found = []
    for i, a in enumerate(plan.assignments):
        for b in plan.assignments[i + 1 :]:
            if a.id in above[b.id] or b.id in above[a.id]:
                continue
            try:
                witness = _witness(a.scope, b.scope)
            except PatternError as error:  # too many states to decide: never guessed
                found.append(Problem(a.id, f"its scope cannot be compared with that of {b.id!r}", str(error)))
                continue
            if witness is not None:
                found.append(
                    Problem(
                        a.id,
                        f"its scope overlaps with that of {b.id!r}, and both could run at the same time: "
                        f"both match {printable(witness)!r}",
                        f"make the scopes disjoint, or let {b.id!r} depend on {a.id!r}",
                    )
                )
    return found


def printable(path: bytes) -> str:
    """A path for people and for JSON: UTF-8 where it is, escapes where it is not."""
    return path.decode("utf-8", "backslashreplace")
