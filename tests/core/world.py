"""A simulated world for the core: trees, commits, refs and cells as values, agents and humans by seeded chance.

`World` answers each request as orchgit/effects.py would, on dictionaries: ids are hashes, a tree is path -> content.
It is also the `Facts` that audit asks. `Sim` drives a run in it: outcomes come in any order and in batches of any size,
the engine can die between any two events, humans say what they like. After every event it looks for what must never be.

What an agent does is decided by its job's key (orchgit/brief.py) and the seed, not by when it is asked: so a run that
was killed and resumed meets the same agents as one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any, Literal, get_args, get_origin, get_type_hints

from orchgit import brief
from orchgit.core import events as e
from orchgit.core import state
from orchgit.core.audit import Changed, Commit, merge_trailers
from orchgit.core.decide import ENGINE, advance, decide, waiting
from orchgit.core.forge import LAST, awaited, head
from orchgit.core.plan import Assignment, Member, Plan, order, upstream
from orchgit.core.review import SEVERITIES, Finding, Severity
from orchgit.core.state import HOUSED, Illegal, Run, branch, evolve

Tree = Mapping[str, str]
USER = e.Actor("human", "ada")
RUN = "r1"
BASE_REF = "refs/heads/main"
ENGINE_ID = "orchgit <orchgit@localhost>"
FILE = "100644"
NAMES = ("api", "web", "docs", "tests", "ops", "data")
ROSTER = (
    Member("lead", "orchestrator", "plans", "scripted", "m"),
    *(Member(f"{name}-agent", "worker", f"does {name}", "scripted", "m") for name in NAMES),
    Member("security-reviewer", "reviewer", "reads", "scripted", "m"),
    Member("style-reviewer", "reviewer", "reads too", "scripted", "m"),
)
THINKERS = e.AgentRequested | e.PlanRequested | e.VerdictRequested | e.ReviewRequested | e.SynthesisRequested


def oid(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:40]


def at(n: int) -> str:
    """The time of the n-th batch. Nobody looks at a clock here."""
    return f"2026-01-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.000Z"


@dataclass(frozen=True)
class Odds:
    """How probable it is that a thing goes otherwise than well. All zero: nothing ever does."""

    ask: float = 0.0  # the orchestrator asks before it plans
    invalid: float = 0.0  # it proposes what cannot be run
    fails: float = 0.0  # an agent ends without a result
    away: float = 0.0  # its service is not there
    blocker: float = 0.0  # a worker raises a blocker
    wish: float = 0.0  # it asks for more scope
    broke: float = 0.0  # a budget is used up
    stray: float = 0.0  # it writes outside its scope
    idle: float = 0.0  # it changes nothing
    red: float = 0.0  # its own checks fail
    clash: float = 0.0  # checks fail on the merge result only
    whole: float = 0.0  # checks fail on the finished branch
    reassign: float = 0.0
    undecided: float = 0.0  # the verdict is that a human has to decide
    findings: float = 0.0
    homeless: float = 0.0  # a finding's path is owned by nobody
    no_cell: float = 0.0
    stale: float = 0.0  # checks say that the work cannot be carried over
    moved: float = 0.0  # a ref was moved by somebody else
    no_ship: float = 0.0
    again: float = 0.0  # an outcome is reported twice
    notes: float = 0.3
    human: float = 0.0  # per step: a human says something unasked
    unsaid: float = 0.0  # the forge does not take what is written there
    picky: float = 0.0  # who reads a pull request does something else than approve it
    abort: float = 0.0  # per step
    crash: float = 0.0  # per step: the engine dies


CALM = Odds()
# Agents err, the world does not, and nobody interferes: what comes of it must not depend on when.
ERRING = Odds(wish=0.1, fails=0.15, stray=0.1, idle=0.05, red=0.15, reassign=0.2, findings=0.5, blocker=0.05)
ROUGH = Odds(
    ask=0.2, invalid=0.2, fails=0.15, away=0.04, blocker=0.1, wish=0.2, broke=0.06, stray=0.1, idle=0.05, red=0.12,
    clash=0.12,
    whole=0.15, reassign=0.15, undecided=0.06, findings=0.5, homeless=0.2, no_cell=0.05, stale=0.05,
    moved=0.06, no_ship=0.15, again=0.1, unsaid=0.1, picky=0.3, human=0.05, abort=0.002, crash=0.03,
)  # fmt: skip
WILD = replace(ROUGH, human=0.2, abort=0.01, crash=0.15, fails=0.3, again=0.2, broke=0.2)
# Everybody works side by side, and the tip is never where it was.
MOVING = Odds(
    wish=0.2, broke=0.1, clash=0.3, stale=0.3, moved=0.3, findings=0.8, fails=0.1, crash=0.02, human=0.1, abort=0.003
)
STATUSES = ("no_report", "turns", "budget", "time", "refused", "context_full", "error", "stopped")


def assignment(name: str, *, after: tuple[str, ...] = (), allow: tuple[str, ...] = (), **more: Any) -> Assignment:
    usual = Assignment(
        name, f"{name}-agent", f"The {name} part", f"Do the {name} part.", allow or (f"{name}/**",), depends_on=after,
        checks=(f"test {name}",),
    )  # fmt: skip
    return replace(usual, **more)


def plan_of(*assignments: Assignment, reviewers: tuple[str, ...] = ()) -> Plan:
    return Plan("It is built.", assignments, reviewers)


def some_plan(rng: Random) -> Plan:
    """One to six assignments, any order of dependencies; now and then a dependent shares its dependency's ground."""
    made: list[Assignment] = []
    for name in rng.sample(NAMES, rng.randint(1, 6)):
        after = tuple(a.id for a in made if rng.random() < 0.35)
        allow: tuple[str, ...] = (f"{name}/**",)
        if after and rng.random() < 0.2:
            allow = (*allow, f"{after[-1]}/shared")
            # Whoever shares has to be in order with everybody on that ground.
            after = tuple(a.id for a in made)
        checks = tuple(f"test {name} {n}" for n in range(rng.choice((0, 1, 1, 2))))
        made.append(assignment(name, after=after, allow=allow, checks=checks))
    rng.shuffle(made)
    return plan_of(*made, reviewers=tuple(r for r in ("style-reviewer",) if rng.random() < 0.3))


def some_settings(rng: Random) -> e.Settings:
    return e.Settings(
        attempts=rng.randint(1, 3), rounds=rng.randint(1, 3), parallel=rng.randint(1, 4),
        plan_retries=rng.randint(0, 2), agent_retries=rng.randint(0, 2), blocking=rng.choice(SEVERITIES[:3]),
        reviewers=rng.choice(((), ("security-reviewer",), ("security-reviewer", "style-reviewer"))),
        approval=rng.choice(("human", "human", "policy")), ship=rng.choice(("none", "merge")),
        grants=rng.choice(((), (e.Grant("api-agent", ("extra/**", "web/shared")), e.Grant("web-agent", ("**",))))),
    )  # fmt: skip


def on_a_forge(rng: Random, settings: e.Settings) -> e.Settings:
    """The same, with a forge."""
    return replace(
        settings, forge="github", repository="example.org/acme/shop", issue=rng.choice((0, 65)),
        plan=rng.choice(("off", "comment")), review=rng.choice(("ship", "worker")),
        ship=rng.choice(("none", "pr", "pr")),
    )  # fmt: skip


def speaker(asked: e.Body, done: e.Body) -> e.Actor:
    """Who an outcome is from: the agent that was asked, if it answered."""
    if isinstance(done, e.AgentReported | e.ScopeAsked) and isinstance(asked, e.AgentRequested):
        return e.Actor("agent", asked.member)
    if isinstance(done, e.ReviewReported):
        return e.Actor("agent", done.reviewer)
    spoken = e.PlanProposed | e.QuestionAsked | e.VerdictGiven | e.SynthesisWritten
    return e.Actor("agent", "lead") if isinstance(done, spoken) else ENGINE


# -- the world -------------------------------------------------------------------------------------------


class World:
    """Objects are only ever added; refs and cells change. Satisfies `orchgit.core.audit.Facts`."""

    def __init__(self, plan: Plan, seed: int, odds: Odds) -> None:
        self.plan, self.seed, self.odds = plan, seed, odds
        self.trees: dict[str, Tree] = {}
        self.commits: dict[str, Commit] = {}
        self.cells: dict[tuple[str, int], dict[str, str]] = {}
        files = {"README": "hello", **{f"{a.id}/shared": "old" for a in plan.assignments}}
        self.base = self.write(files, (), "base")
        self.refs: dict[str, str] = {BASE_REF: self.base}

    def chance(self, what: str, *key: object) -> bool:
        odds: float = getattr(self.odds, what)
        return odds > 0 and self.random(what, *key).random() < odds

    def random(self, *key: object) -> Random:
        return Random(f"{self.seed}|{'|'.join(map(str, key))}")

    # -- objects

    def tree(self, files: Tree) -> str:
        name = oid("tree", *sorted(files.items()))
        self.trees[name] = dict(files)
        return name

    def write(
        self, files: Tree, parents: tuple[str, ...], message: str, author: str = ENGINE_ID, when: str = ""
    ) -> str:
        commit = Commit(self.tree(files), parents, message, author, ENGINE_ID, when[:19])
        name = oid("commit", commit.tree, *parents, message)
        self.commits[name] = commit
        return name

    def files(self, commit: str) -> Tree:
        return self.trees[self.commits[commit].tree]

    def contains(self, tip: str, commit: str) -> bool:
        return tip == commit or any(self.contains(p, commit) for p in self.commits[tip].parents)

    @staticmethod
    def carry(base: Tree, head: Tree, onto: Tree) -> tuple[dict[str, str], list[str]]:
        """As orchgit/git/trees.py: the entries of base..head set on `onto`; the paths that keep it from being done."""
        result, stale = dict(onto), []
        for path in sorted(base.keys() | head.keys()):
            old, new, there = base.get(path), head.get(path), onto.get(path)
            if old == new or there == new:
                continue
            if there != old:
                stale.append(path)
            if new is None:
                result.pop(path, None)
            else:
                result[path] = new
        return result, stale

    # -- Facts

    def commit(self, oid: str) -> Commit | None:
        return self.commits.get(oid)

    def has(self, oid: str) -> bool:
        return oid in self.commits or oid in self.trees

    def changed(self, old_tree: str, new_tree: str) -> list[Changed] | None:
        if old_tree not in self.trees or new_tree not in self.trees:
            return None
        old, new = self.trees[old_tree], self.trees[new_tree]
        return [
            Changed(p.encode(), FILE if p in old else "", FILE if p in new else "")
            for p in sorted(old.keys() | new.keys()) if old.get(p) != new.get(p)
        ]  # fmt: skip

    def damage(self, tips: Sequence[str], base: str) -> list[str]:
        return []

    def replaced(self, tips: Sequence[str], base: str) -> list[str]:
        return []

    def checkpoints(self) -> dict[str, str]:
        return {}

    def log_of(self, commit: str) -> tuple[str, int] | None:
        return None

    def blob_id(self, data: bytes) -> str:
        return oid("blob", data)

    def pushed(self, commit: str) -> list[str]:
        return []

    def blob(self, digest: str) -> Literal["here", "changed", "missing", "elsewhere"]:
        return "here"

    def sealed(self) -> tuple[str, str] | None:
        return None

    def signature(self, commit: str) -> str:
        return ""

    def signed(self, base: str, statement: bytes, signature: str) -> str | None:
        return None

    def ref(self, name: str) -> str | None:
        return self.refs.get(name)

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        if not {base, head, onto} <= self.commits.keys():
            return None
        files, stale = self.carry(self.files(base), self.files(head), self.files(onto))
        return None if stale else self.tree(files)

    # -- requests

    def perform(self, run: Run, event: e.Event) -> e.Draft:
        body = event.body
        match body:
            case e.CellRequested():
                done: e.Body = self._cell(run, event, body)
            case e.CellRemovalRequested():
                self.cells.pop((body.assignment, body.attempt), None)
                done = e.CellRemoved(body.assignment, body.attempt)
            case e.GateRequested():
                done = self._gate(run, event, body)
            case e.SalvageRequested():
                done = self._salvage(run, body)
            case e.ChecksRequested():
                done = self._checks(run, body)
            case e.MergePrepared():
                done = self._build(run, event, body)
            case e.MergeRequested():
                done = self._swap(run, event, body)
            case e.ShipRequested():
                done = self._observe(run, event, body)
            case e.ForgeRequested():
                done = self._outward(event, body)
            case _:
                done = self._think(run, body)
        return e.Draft(done, speaker(body, done), event.seq)

    def recover(self, run: Run, event: e.Event) -> e.Draft:
        if isinstance(event.body, THINKERS) and event.seq not in run.waits:
            return e.Draft(e.AgentFailed("lost", "its engine ended", lost=True), ENGINE, event.seq)
        return self.perform(run, event)

    def _think(self, run: Run, body: e.Body) -> e.Body:
        about = state.purpose_key(body)
        asked = sum(1 for b in run.blockers if b.about == about)
        key = (brief.key(run, body), run.failures.get(about, 0), asked)
        if isinstance(body, e.AgentRequested):  # what it did before it failed is in its cell
            self._write(run, body, key)
        work = run.works[body.assignment] if isinstance(body, e.AgentRequested) else None
        if self.chance("away", *key):
            return e.AgentFailed(self.random("away?", *key).choice(("auth", "unavailable")), "not there", "log in")
        if self.chance("broke", *key, sum(1 for b in run.blockers if b.kind == "budget")):
            rng = self.random("broke?", *key)
            if work is None:
                return e.AgentFailed("run_budget", "the run: $5.00 of the budget of $5.00 are spent")
            whose: Literal["run", "assignment"] = "run" if rng.random() < 0.5 else "assignment"
            return e.AgentHalted(work.spec.id, work.attempt, whose, "spent", rng.choice(("", oid("s"))))
        if self.chance("fails", *key):
            return e.AgentFailed(self.random("fails?", *key).choice(STATUSES), "no result")
        match body:
            case e.PlanRequested():
                if self.chance("ask", *key):
                    return e.QuestionAsked(("Which colour?", "Which size?"))
                if self.chance("invalid", *key):
                    return e.PlanInvalid(("assignment 'x': the task is empty; say what to do",))
                return e.PlanProposed(run.plan_version + 1, e.plan_digest(self.plan), self.plan)
            case e.AgentRequested():
                assert work is not None
                blockers = ("Which one?",) if self.chance("blocker", *key) else ()
                if self.chance("wish", *key, work.asks) and work.asks < 3:
                    rng = self.random("wish", *key, work.asks)
                    theirs = rng.choice(self.plan.assignments).id
                    wishes = rng.choice((("extra/x",), (f"{theirs}/shared",), (f"{theirs}/**", "extra/**"), ("a[",)))
                    return e.ScopeAsked(body.assignment, body.attempt, wishes, "needed", rng.choice(("", oid("s"))))
                return e.AgentReported(body.assignment, body.attempt, "done", ("x",), blockers)
            case e.VerdictRequested():
                decision = "reassign" if self.chance("reassign", *key) else "accept"
                decision = "blocked" if self.chance("undecided", *key) else decision
                reasons = () if decision == "accept" else ("name it better",)
                return e.VerdictGiven(body.assignment, body.attempt, decision, reasons)  # type: ignore[arg-type]
            case e.ReviewRequested():
                return self._review(run, body, key)
        totals = e.Totals(1, 2, 0, 30, 4, 1, 2, 0, len(run.works), 3)
        return e.SynthesisWritten("All of it fits.", ("look at it",), totals)

    def _outward(self, event: e.Event, body: e.ForgeRequested) -> e.Body:
        if self.chance("unsaid", event.seq):
            return e.ForgeFailed(body.key, "not now", "wait")
        commit = oid("merge there", body.head) if body.act == "merge" else ""
        return e.ForgeDone(body.key, 100 + event.seq, f"https://example.org/{body.key}", "", commit)

    def by_hand(self, run: Run, name: str) -> str:
        """What somebody pushes onto a worker's branch."""
        work, rng = run.works[name], self.random("hand", name, run.seq)
        files = {**self.files(work.head), f"{name}/f0" if rng.random() < 0.7 else "stray": f"by hand, {run.seq}"}
        return self.write(files, (work.head,), f"by hand {run.seq}", "Lea <lea@example.org>")

    def _review(self, run: Run, body: e.ReviewRequested, key: tuple[object, ...]) -> e.Body:
        rng = self.random("review", *key)
        paths = [f"{a.id}/{name}" for a in self.plan.assignments for name in ("f0", "shared")]
        found = []
        for n in range(rng.randint(1, 3) if self.chance("findings", *key) else 0):
            path = rng.choice(("", "nowhere.md")) if self.chance("homeless", n, *key) else rng.choice(paths)
            severity: Severity = rng.choice(SEVERITIES)
            found.append(Finding(severity, path, n, f"odd {n}", "because"))
        mine = [f.id for f in run.open_findings() if f.reviewer == body.reviewer]
        fixed = tuple(i for i in mine if rng.random() < 0.8)
        return e.ReviewReported(body.reviewer, body.round, body.tip, "read it", tuple(found), fixed)

    def _write(self, run: Run, body: e.AgentRequested, key: tuple[object, ...]) -> None:
        rng, name = self.random("write", *key), body.assignment
        cell = self.cells[name, body.attempt]
        if self.chance("idle", *key):
            return
        spec = run.works[name].spec
        for n in range(rng.randint(1, 2)):
            cell[f"{name}/f{n}"] = f"{key}"
        for path in spec.allow:
            if not path.endswith("**") and rng.random() < 0.7:
                cell[path] = f"{key}"
        if self.chance("stray", *key):
            cell["stray"] = f"{key}"

    def _cell(self, run: Run, event: e.Event, body: e.CellRequested) -> e.Body:
        name, work = body.assignment, run.works[body.assignment]
        if self.chance("no_cell", event.seq):
            return e.CellFailed(name, body.attempt, "no room")
        start, stale = self._start(run, event, body)
        if stale:
            return e.CellFailed(name, body.attempt, f"cannot be joined, at: {', '.join(stale)}")
        ref = branch(run.id, name)
        found = self.refs.get(ref, "")
        ours = {"", start, work.head, work.base, *(a.start for a in work.attempts)}
        assert found in ours, f"{ref} is at {found}, and nobody but us moved it"
        self.refs[ref] = start
        self.cells[name, body.attempt] = dict(self.files(start))
        return e.CellMade(name, body.attempt, start, ref, "simulated", ("write outside: prevented",), ())

    def _start(self, run: Run, event: e.Event, body: e.CellRequested) -> tuple[str, list[str]]:
        work = run.works[body.assignment]
        if body.onto:
            if not body.start or self.contains(body.onto, body.start):
                return body.onto, []
            files, stale = self.carry(self.files(work.base), self.files(body.start), self.files(body.onto))
            return self.write(files, (body.start, body.onto), f"join {event.time}"), stale
        if body.start:
            return body.start, []
        if len(body.dependencies) < 2:
            return (run.works[body.dependencies[0]].head if body.dependencies else self.base), []
        assert run.plan is not None
        above = upstream(run.plan)[body.assignment]
        files = dict(self.files(self.base))
        for a in order(run.plan):
            if a.id in above:
                files, stale = self.carry(
                    self.files(run.works[a.id].base), self.files(run.works[a.id].head), files
                )  # fmt: skip
                if stale:
                    return "", stale
        heads = tuple(dict.fromkeys(run.works[d].head for d in body.dependencies))
        return self.write(files, heads, f"base of {body.assignment} {event.time}"), []

    def _gate(self, run: Run, event: e.Event, body: e.GateRequested) -> e.Body:
        name, attempt, work = body.assignment, body.attempt, run.works[body.assignment]
        start, hand = work.attempts[-1].start, work.attempts[-1].hand
        left = dict(self.files(hand)) if hand else self.cells[body.assignment, body.attempt]
        salvage = self.write(left, (start,), f"salvage {name} {attempt}")
        self.refs[f"refs/orchgit/salvage/{run.id}/{name}/{attempt}"] = salvage
        before = self.files(start)
        changed = [p for p in sorted(before.keys() | left.keys()) if before.get(p) != left.get(p)]
        wrong = [e.Violation(p, why) for p in changed if (why := work.spec.scope.why_not(p.encode()))]
        if not changed:
            wrong = [e.Violation("", "nothing was changed")]
        if wrong:
            return e.GateFailed(name, attempt, tuple(wrong), len(wrong), salvage)
        author = self.commits[hand].author if hand else ""
        who = author or f"{work.spec.worker} <{work.spec.worker}@orchgit.invalid>"
        commit = self.write(left, (start,), f"{name} {attempt}", who, event.time)
        assert self.refs[branch(run.id, name)] in (start, commit)
        self.refs[branch(run.id, name)] = commit
        return e.GatePassed(name, attempt, commit, self.commits[commit].tree, len(changed), salvage, author)

    def _salvage(self, run: Run, body: e.SalvageRequested) -> e.Body:
        name, attempt = body.assignment, body.attempt
        start, left = run.works[name].attempts[-1].start, self.cells[name, attempt]
        if left == self.files(start):
            return e.SalvageKept(name, attempt, "", "nothing was changed")
        return e.SalvageKept(name, attempt, self.write(left, (start,), f"salvage {name} {attempt}"))

    def _red(self, command: str, files: Tree) -> bool:
        """A command's answer depends on the files of the assignment that it is named after, and on nothing else."""
        own = command.split()[1]
        return self.chance("red", command, *sorted(i for i in files.items() if i[0].startswith(f"{own}/")))

    def _checks(self, run: Run, body: e.ChecksRequested) -> e.Body:
        work, files, stale = run.works.get(body.subject), self.files(body.commit), list[str]()
        if work or body.subject == "ship":
            base = work.base if work else self.base
            files, stale = self.carry(self.files(base), self.files(body.commit), self.files(body.onto))
        where = (body.subject, body.commit, body.onto, len(run.blockers))
        if stale or (work and self.chance("stale", *where)):
            return e.ChecksStale(body.subject, body.attempt, body.onto, tuple(stale) or ("api/shared",))
        commands = work.spec.checks if work else run.all_checks()
        what = "clash" if work or body.subject == "ship" else "whole"
        late = [c for c in commands if (not work or body.onto != work.base) and self.chance(what, c, *where)]
        red = [c for c in commands if work and self._red(c, files)]
        results = tuple(
            e.CheckResult(c, c not in (*late, *red), "exit code 1" if c in (*late, *red) else "", 0, 5, 3, oid(c))
            for c in commands
        )
        tree = self.tree(files)
        if not late and not red:
            return e.ChecksPassed(body.subject, body.attempt, body.onto, tree, results)
        alone = bool(work) and not red
        if what == "whole" and self.chance("homeless", *where):
            results = (e.CheckResult("test nobody", False, "exit code 1", 1, 5, None, oid("x")),)
        return e.ChecksFailed(body.subject, body.attempt, body.onto, tree, results, alone, "it is red")

    def _build(self, run: Run, event: e.Event, body: e.MergePrepared) -> e.Body:
        said = merge_trailers(run.id, body, event, run.plan_digest)
        text = f"{body.land} {event.time}\n\n" + "\n".join(f"{k}: {v}" for k, v in said.items()) + "\n"
        parents = (body.old,) if body.land == "seal" else (body.old, body.commit)
        return e.MergeBuilt(
            body.land, body.assignment, self.write(self.trees[body.tree], parents, text, when=event.time)
        )

    def _swap(self, run: Run, event: e.Event, body: e.MergeRequested) -> e.Body:
        if self.refs.get(body.ref) == body.new:
            return e.MergeDone(body.land, body.assignment, body.new)
        if self.chance("moved", event.seq) or (body.land == "ship" and self.chance("moved", "ship", event.seq)):
            if body.land == "ship":
                self.refs[BASE_REF] = self.write({**self.files(self.refs[BASE_REF]), "u": f"{event.seq}"},
                                                 (self.refs[BASE_REF],), "a user's own")  # fmt: skip
            return e.MergeStale(body.land, body.assignment, oid("somebody's"))
        first = body.land != "ship" and body.old == self.base
        assert self.refs.get(body.ref, body.old if first else None) == body.old
        self.refs[body.ref] = body.new
        return e.MergeDone(body.land, body.assignment, body.new)

    def _observe(self, run: Run, event: e.Event, body: e.ShipRequested) -> e.Body:
        if self.chance("no_ship", "by hand", event.seq):
            return e.ShipObserved(body.ref, self.refs[body.ref], "", merged=True)
        if self.chance("no_ship", event.seq):
            return e.ShipObserved(body.ref, "", "it is checked out")
        if self.chance("moved", "main", event.seq):
            ours = [p for p in self.files(run.tip) if self.files(run.tip)[p] not in ("hello", "old")]
            path = self.random("path", event.seq).choice(("u", *ours[:1]))
            at = self.refs[body.ref]
            self.refs[body.ref] = self.write({**self.files(at), path: f"{event.seq}"}, (at,), "a user's own")
        return e.ShipObserved(body.ref, self.refs[body.ref], "")


# -- the run in it ---------------------------------------------------------------------------------------


@dataclass
class Watch:
    """What must never be, looked for after every event, from the events alone where that is possible."""

    gated: dict[str, str] = field(default_factory=dict)
    passed: dict[str, tuple[str, str]] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    tip: str = ""
    attempts: dict[str, int] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)  # by a human, on the forge

    def see(self, before: Run, event: e.Event, after: Run) -> None:
        body = event.body
        named = ("assignment", "attempt", "subject", "reviewer")
        things = [(type(p.body), *(getattr(p.body, n, "") for n in named)) for p in after.pending.values()]
        assert len(things) == len(set(things)), f"two requests for one thing: {things}"
        assert sum(1 for p in after.pending.values() if isinstance(p.body, e.MergePrepared | e.MergeRequested)) <= 1
        if isinstance(body, THINKERS):
            used_up = [b.id for b in before.open_blockers("") if b.kind == "budget"]
            assert not used_up, f"{body.type}, and the budget of the run is used up: {used_up}"
        busy = [n for n, w in after.works.items() if w.stage in (HOUSED | {"assigned"}) - {"asking", "halted", "ready"}]
        if after.phase != "aborting":  # all that was waiting is set aside then, at once
            assert len(busy) <= after.settings.parallel, f"too many at work: {busy}"
        for name, work in after.works.items():
            assert work.counted <= work.allowance, name
            assert [a.number for a in work.attempts] == list(range(1, len(work.attempts) + 1))
        match body:
            case e.RunStarted():
                self.tip = body.base
            case e.AssignmentStarted():
                assert set(before.works[body.assignment].spec.depends_on) <= self.merged
                assert body.attempt == self.attempts.get(body.assignment, 0) + 1
                self.attempts[body.assignment] = body.attempt
                if body.hand:
                    self.merged.discard(body.assignment)
            case e.ChangeSeen(what="approved"):
                self.approved[body.about] = body.commit
            case e.ForgeRequested(act="push", about="integration") if before.settings.review == "ship":
                heads = {n: w.head for n, w in before.works.items()}
                first = before.started is not None and body.head == before.started.base
                assert first or heads.items() <= self.approved.items(), "merged there before it was approved"
            case e.ForgeRequested(act="merge"):
                assert self.approved["integration"] == body.head == after.tip
            case e.AgentFailed(lost=True) if event.cause is not None:
                asked = before.pending[event.cause].body
                if isinstance(asked, e.AgentRequested):
                    assert after.works[asked.assignment].counted == before.works[asked.assignment].counted - 1
            case e.FixAssigned():
                self.merged.discard(body.assignment)
            case e.FixDropped():
                self.merged.add(body.assignment)  # what was merged before the fix was asked for stands
            case e.GatePassed():
                self.gated[body.assignment] = body.commit
                self.passed.pop(body.assignment, None)
            case e.ChecksPassed():
                self.passed[body.subject] = (body.onto, body.tree)
            case e.MergePrepared():
                if body.land == "merge":
                    if before.settings.review == "worker" and before.by_pr:
                        assert self.approved[body.assignment] == body.commit, "merged before it was approved"
                    assert self.passed[body.assignment] == (body.old, body.tree)
                    assert self.gated[body.assignment] == body.commit
                elif body.land == "seal":
                    assert self.passed["integration"] == (body.old, body.tree)
                assert body.land == "ship" or body.old == self.tip
            case e.MergeDone() if body.land != "ship":
                self.tip = body.new
                self.merged.add(body.assignment)
            case e.RunCompleted():
                assert set(before.works) <= self.merged
        if after.phase in ("completed", "aborted"):
            assert not any(w.cell or w.stage in HOUSED for w in after.works.values()), "a cell is left behind"
        assert after.tip == self.tip


Rows = set[tuple[str, str]]
USUAL = e.Settings()


@dataclass
class Sim:
    plan: Plan
    seed: int
    odds: Odds = ROUGH
    settings: e.Settings = USUAL
    patience: int = 25  # what a human answers before giving up
    crash_at: int | None = None  # the engine dies once, so that the log has this many events
    scripted: bool = True
    most: int = 3000  # events

    def __post_init__(self) -> None:
        self.world = World(self.plan, self.seed, self.odds)
        self.rng = Random(self.seed)
        self.run = Run(RUN)
        self.log: list[e.Event] = []
        self.tasks: dict[int, tuple[Run, e.Event, bool]] = {}  # seq -> run when asked, request, to be recovered
        self.watch = Watch()
        self.run_rows: Rows = set()
        self.work_rows: Rows = set()
        self.batches = 0
        self.refused = 0
        self.shipped_later = False
        self.answered: list[e.Draft] = []

    # -- recording

    def record(self, *drafts: e.Draft, crash: bool = False) -> None:
        """What the runner does with what was seen. With `crash`, only a part of it reaches the disk."""
        self.batches += 1
        assert len(self.log) < self.most, "it never ends"
        run, written = decide(self.run, drafts, at(self.batches))
        if self.crash_at is not None and len(self.log) + len(written) >= self.crash_at > len(self.log):
            kept, self.crash_at, crash = self.crash_at - len(self.log), None, True
        else:
            kept = self.rng.randint(0, len(written)) if crash else len(written)
        state_now = self.run
        for event in written[:kept]:
            again = e.parse(event.line)
            assert again == event
            after = evolve(state_now, again)
            self._rows(state_now, event)
            self.watch.see(state_now, event, after)
            state_now = after
        self.log += written[:kept]
        if crash and state_now.phase != "new":
            self.run = state_now
            self.resume()
            return
        self.log += written[kept:]  # before the run has begun there is nothing to resume
        if kept < len(written):
            for event in written[kept:]:
                self.watch.see(state_now, event, state_now := evolve(state_now, event))
        assert state_now == run, "replay differs from what was decided"
        self.run = run
        self._settled()
        for event in written:
            if event.body.kind == "request" and event.seq in run.pending:
                self.tasks[event.seq] = (run, event, False)

    def resume(self) -> None:
        self.tasks.clear()
        self.answered.clear()  # an engine that is dead says nothing again
        if self.run.phase == "started":  # the issue was not on the disk yet: whoever starts again gives it again
            self.record(e.Draft(ISSUE, USER))
        else:
            self.record()
        if not self.run.over:
            self.record(e.Draft(e.RunResumed("orchgit/0", 0, "simulated", True), USER))
        self.tasks = {seq: (self.run, event, True) for seq, event in self.run.pending.items()}

    def _settled(self) -> None:
        run = self.run
        assert advance(run) is None, "a batch does not end in a fixed point"
        need = waiting(run)
        assert run.over or run.pending or need or run.phase == "started", f"dead: {run.phase}, nothing is due"
        if need == "blockers":
            assert run.open_blockers()

    def _rows(self, before: Run, event: e.Event) -> None:
        key, body = state._key(event.body), event.body
        if (before.phase, key) in state.RUN_MOVES:
            self.run_rows.add((before.phase, key))
        if isinstance(body, e.AgentFailed):
            body = before.pending[event.cause or 0].body
        name = getattr(body, "assignment", "") or getattr(body, "subject", "")
        if name in before.works and (before.works[name].stage, key) in state.WORK_MOVES:
            self.work_rows.add((before.works[name].stage, key))

    # -- driving

    def begin(self) -> Sim:
        started = e.RunStarted(
            e.DECIDER, self.world.base, BASE_REF, "sha1", "orchgit/0", "git/2", "python/3", oid("config"),
            self.settings, ROSTER, "simulated", True, self.scripted,
        )  # fmt: skip
        self.record(e.Draft(started, USER), e.Draft(ISSUE, USER))
        return self

    def drive(self) -> Sim:
        """To the end."""
        return self.begin().drive_on()

    def drive_on(self) -> Sim:
        while not self.run.over or self._later():
            self.step()
        if self.run.phase != "failed":
            assert not self.world.cells, f"cells are left behind: {list(self.world.cells)}"
        return self

    def _later(self) -> bool:
        """`orchgit ship` on a run that completed without, now and then."""
        if self.run.phase != "completed" or self.shipped_later or self.odds.no_ship == 0:
            return False
        self.shipped_later = True
        if self.rng.random() < 0.5:
            self.record(e.Draft(e.ShipAsked(), USER))
        return not self.run.over

    def step(self) -> None:
        rng, odds = self.rng, self.odds
        if rng.random() < odds.human:
            self.say(self.anything())
        if rng.random() < odds.abort:
            self.say(e.AbortRequested("enough"))
        if self.run.over:
            return
        if not self.tasks:
            self.say(self.answer())
            return
        seqs = rng.sample(list(self.tasks), rng.randint(1, len(self.tasks)))
        drafts: list[e.Draft] = []
        for seq in seqs:
            run, event, lost = self.tasks.pop(seq)
            drafts += self.notes(event)
            done = self.world.recover(run, event) if lost else self.world.perform(run, event)
            drafts.append(done)
            self.answered.append(done)
        if self.answered and rng.random() < odds.again:
            drafts.append(rng.choice(self.answered))
        self.record(*drafts, crash=rng.random() < odds.crash)

    def say(self, body: e.Body) -> None:
        """What a human says is taken, or refused with nothing changed."""
        if self.run.over:
            return
        before, length = self.run, len(self.log)
        try:
            self.record(e.Draft(body, USER))
        except Illegal:
            self.refused += 1
            assert self.run is before
            assert len(self.log) == length

    def notes(self, event: e.Event) -> Iterator[e.Draft]:
        if isinstance(event.body, THINKERS) and self.rng.random() < self.odds.notes:
            member, started = "api-agent", e.AgentStarted
            yield e.Draft(started(member, "worker", "work", "scripted", "m", oid("b"), "simulated", "none"), ENGINE,
                          event.seq)  # fmt: skip
            if self.rng.random() < 0.3:
                used = e.Used(1, 50, 10, 0, 0, 600_000, 0, 0, 700)
                waiting = e.AgentWaiting(member, "scripted", at(9), at(1), "too many requests", oid("s"), used)
                yield e.Draft(waiting, ENGINE, event.seq)
                yield e.Draft(e.AgentWaited(member), ENGINE, event.seq)
            exited = e.AgentExited(
                member, "done", "", 1200, 3, 100, 20, 5, 5, 1_250_000, oid("t"), ("bash: no",), "s-1", 40, 2000
            )
            yield e.Draft(exited, ENGINE, event.seq)
        if isinstance(event.body, e.AgentRequested) and self.rng.random() < self.odds.notes / 3:
            name, attempt = event.body.assignment, event.body.attempt
            seen = e.ScopeViolationSeen(name, attempt, "stray", "created", "watchdog")
            yield e.Draft(seen, ENGINE, event.seq)
            yield e.Draft(e.WatchIncomplete(name, attempt, "overflow"), ENGINE, event.seq)
            yield e.Draft(e.AgentPaused(name, attempt, "stray"), ENGINE, event.seq)
            yield e.Draft(e.AgentContinued(name, attempt, self.rng.random() < 0.5), USER)

    # -- humans

    def answer(self) -> e.Body:
        """To what the run waits for."""
        run, rng = self.run, self.rng
        self.patience -= 1
        if self.patience < 0:
            return e.AbortRequested("enough")
        need = waiting(run)
        if need == "questions":
            return e.QuestionAnswered(("red", "large"))
        if need == "approval":
            assert run.proposal is not None
            doubt = rng.random() if self.odds.human else 0.0
            if doubt > 0.85:
                return e.PlanRejected(run.proposal.version, "no")
            if doubt > 0.7:
                edited = replace(run.proposal.plan, goal=f"It is built, says v{run.proposal.version + 1}.")
                return e.PlanProposed(run.proposal.version + 1, e.plan_digest(edited), edited)
            return e.PlanApproved(run.proposal.version, run.proposal.digest, "human")
        if need == "review":
            return self._reads(rng.choice(awaited(run)))
        assert need == "blockers", need
        # Keyed like the agents: a human says the same of the same thing, whenever it is asked.
        blocker = min(run.open_blockers(), key=lambda b: b.about)
        of = next(((f.path, f.title, f.reviewer) for f in run.findings if f.id == blocker.about), blocker.about)
        rng = self.world.random("human", of, sum(1 for b in run.blockers if b.about == blocker.about))
        if blocker.kind == "finding" and blocker.about != "review":
            merged = [n for n, w in run.works.items() if w.stage == "merged"]
            if merged and rng.random() < 0.5:
                return e.BlockerAnswered(blocker.id, "yours", rng.choice(merged))
            return e.FindingWaived(blocker.about, "it is meant so")
        if blocker.kind == "scope":
            work = run.works[blocker.about]
            if rng.random() < 0.3:
                return e.ScopeRefused(blocker.about, work.attempt, "keep out")
            return e.ScopeGranted(blocker.about, work.attempt, work.asked)
        if blocker.kind == "budget":
            return e.BudgetRaised(blocker.about, e.Budget(5_000_000, rng.choice((None, 1000))))
        if blocker.kind == "ship" and rng.random() < 0.5:
            return e.ShipLeft()
        return e.BlockerAnswered(blocker.id, rng.choice(("", "try again")))

    def _reads(self, about: str) -> e.Body:
        """What a person does with a pull request."""
        run, rng = self.run, self.rng
        said = (e.Comment(f"review/{self.batches}", "lea", "", ""),)
        if rng.random() >= self.odds.picky:
            return e.ChangeSeen(about, "approved", head(run, about), "", said)
        what = rng.choice(("changes", "changes", "pushed", "closed", "merged"))
        commit = head(run, about)
        if what == "pushed" and about != LAST and commit:
            commit = self.world.by_hand(run, about)
        return e.ChangeSeen(about, what, commit, "Not yet.", said)  # type: ignore[arg-type] # one of its literals

    def anything(self) -> e.Body:
        """Something a human could say at any time, sensible or not."""
        run, rng = self.run, self.rng
        digest = run.proposal.digest if run.proposal else oid("x")
        edited = replace(self.plan, goal=f"Mine, v{run.plan_version + 1}.")
        if run.open_findings() and rng.random() < 0.3:
            return e.FindingWaived(rng.choice(run.open_findings()).id, "so what")
        return rng.choice((
            e.FindingWaived(f"F{rng.randint(1, len(run.findings) + 1)}", "so what"),
            e.BlockerAnswered(f"B{rng.randint(1, len(run.blockers) + 1)}", "go on"),
            e.BlockerAnswered(f"B{rng.randint(1, len(run.blockers) + 1)}", "", rng.choice(self.plan.assignments).id),
            e.QuestionAnswered(("one",)),
            e.PlanApproved(run.plan_version, rng.choice((digest, oid("y"))), "human"),
            e.PlanRejected(run.plan_version, "no"),
            e.PlanProposed(run.plan_version + 1, e.plan_digest(edited), edited),
            e.ShipAsked(rng.random() < 0.5),
            self._reads(rng.choice([LAST, *run.works])),
            e.BudgetRaised(rng.choice(("", "nobody", self.plan.assignments[0].id)), e.Budget(rng.choice((None, 0, 9)))),
            e.ScopeGranted(rng.choice(self.plan.assignments).id, 1, ("extra/x",)),
            e.ScopeRefused(rng.choice(self.plan.assignments).id, 1, "no"),
            e.AgentContinued(rng.choice(self.plan.assignments).id, 1, True),
        ))  # fmt: skip


ISSUE = e.IssueRead("issue.md", "Add billing", oid("issue text"))


def lines_of(log: list[e.Event]) -> list[bytes]:
    return [event.line.removesuffix(b"\n") for event in log]


# -- examples of events, from their annotations ----------------------------------------------------------


def example(hint: Any, text: str = "words") -> Any:
    """A value of this annotation; `text` wherever a string may be anything."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        return (example(args[0], text), example(args[0], text))
    if hint is str:
        return text
    if hint is int:
        return 7
    if hint is bool:
        return True
    if isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{f.name: example(hints[f.name], text) for f in fields(hint)})
    return args[0] if origin is not None and isinstance(args[0], str) else example(args[0], text)


def examples(text: str = "words") -> list[e.Body]:
    return [example(body, text) for body in e.BODIES]
