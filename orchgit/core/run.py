"""What a run is at a moment: its assignments at work, attempts, findings, blockers. Data; state.py changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchgit.core import events as e
from orchgit.core.plan import Assignment, Plan
from orchgit.core.review import Finding

TERMINAL = frozenset({"completed", "aborted", "failed"})

# Stages in which the attempt's cell is in use.
HOUSED = frozenset({"housing", "ready", "working", "asking", "halted", "reported", "failed", "gating", "salvaging"})


class Illegal(Exception):
    """An event that cannot happen in this state. It is never written."""


@dataclass(frozen=True)
class Attempt:
    """One try. `number` is unique for ever; only counted ones use up the allowance."""

    number: int
    start: str = ""
    end: str = ""  # in words; "" while it lives
    hand: str = ""  # the commit that somebody pushed, in place of an agent's work


@dataclass(frozen=True)
class Spending:
    """What one agent run took. `about` as in `purpose_key`; `attempt` 0 where there are none."""

    member: str
    about: str
    attempt: int
    used: e.Used


@dataclass(frozen=True)
class Work:
    """One assignment as it stands. Its landing diff is `base..head`."""

    spec: Assignment
    allowance: int
    stage: str = "waiting"
    attempts: tuple[Attempt, ...] = ()
    counted: int = 0
    base: str = ""
    head: str = ""  # tip of its branch: the last gated commit, or that commit joined with the tip it goes on from
    onto: str = ""  # the next attempt starts from this tip, joined with `head`
    feedback: tuple[str, ...] = ()  # gathered for the next attempt
    brief: tuple[str, ...] = ()  # what the current attempt was given of it
    fixes: tuple[str, ...] = ()
    verified: tuple[str, str] | None = None  # (tip, tree) of the last checks that passed, for `head`
    cell: bool = False
    trouble: tuple[e.BlockerKind, str] | None = None  # to be raised as a blocker before anything else
    blocked_by_agent: bool = False
    paused: str = ""  # the path that its agent was paused for
    asked: tuple[str, ...] = ()  # more scope: what it wants, until that is decided
    asked_why: str = ""
    granted: tuple[str, ...] = ()  # of it, until the plan is amended
    asks: int = 0  # of the current attempt
    answer: str = ""  # to the last one, for the agent that goes on
    session: str = ""  # blob: where that agent stopped
    halted: str = ""  # whose budget is used up: "run" or "assignment"
    raised: e.Budget = e.NO_LIMIT  # beyond its budget, by a human
    rebase: bool = False  # the next attempt starts from the tip: it has to stand on work that it did not depend on
    report: e.AgentReported | None = None  # of the last attempt that gave one
    results: tuple[e.CheckResult, ...] = ()  # of the last checks that passed

    @property
    def attempt(self) -> int:
        return self.attempts[-1].number if self.attempts else 0


@dataclass(frozen=True)
class Blocker:
    id: str
    kind: e.BlockerKind
    about: str
    text: str
    answer: str | None = None

    @property
    def open(self) -> bool:
        return self.answer is None


@dataclass(frozen=True)
class Landing:
    """A merge on its way: prepared, then built (`new` known), then requested."""

    prepared: e.MergePrepared
    new: str = ""


@dataclass(frozen=True)
class Posted:
    """A write on the forge that was done."""

    request: e.ForgeRequested
    number: int
    url: str


@dataclass(frozen=True)
class Outside:
    """What of the run stands on the forge, and what people did there."""

    posted: Mapping[str, Posted] = field(default_factory=dict)  # by key
    failed: Mapping[str, str] = field(default_factory=dict)  # key -> why; not tried again before the next occasion
    approved: Mapping[str, str] = field(default_factory=dict)  # whose pull request -> the head that was approved
    wishes: Mapping[str, str] = field(default_factory=dict)  # whose -> the changes that a reviewer wants
    pushed: Mapping[str, str] = field(default_factory=dict)  # onto whose branch -> what somebody pushed by hand
    heard: frozenset[str] = frozenset()  # ids of comments that were obeyed


@dataclass(frozen=True)
class Run:
    """The whole state. Mappings are never changed in place."""

    id: str
    phase: str = "new"
    seq: int = -1
    hash: str = e.ZERO
    time: str = ""
    started: e.RunStarted | None = None
    issue: e.IssueRead | None = None
    pending: Mapping[int, e.Event] = field(default_factory=dict)
    begun: frozenset[int] = frozenset()  # of these: an agent was started for it
    waits: Mapping[int, e.AgentWaiting] = field(default_factory=dict)  # of these: its agent waits for a service
    spent: Mapping[int, Spending] = field(default_factory=dict)  # by the request; so that none counts twice
    raised: e.Budget = e.NO_LIMIT  # beyond its budget, by a human
    plan: Plan | None = None
    plan_digest: str = ""
    plan_version: int = 0
    plan_requests: int = 0
    plan_answers: int = 0  # of the orchestrator, of any sort: how often planning had its chance
    plan_invalid: int = 0
    plan_feedback: tuple[str, ...] = ()
    proposal: e.PlanProposed | None = None
    questions: tuple[str, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    works: Mapping[str, Work] = field(default_factory=dict)
    tip: str = ""
    landing: Landing | None = None
    verified: tuple[str, str] | None = None  # (tip, tree): all checks passed there
    failed_checks: e.ChecksFailed | None = None
    check_rounds: int = 0
    round: int = 0
    rounds_allowed: int = 0
    reviews: Mapping[str, str] = field(default_factory=dict)  # reviewer -> tip it last reported on
    reported: tuple[e.ReviewReported, ...] = ()  # whose findings are not opened or closed yet
    findings: tuple[Finding, ...] = ()
    fixing: tuple[str, ...] = ()  # findings given to their owners in this round
    blockers: tuple[Blocker, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)  # purpose key -> failed agent runs in a row
    trouble: tuple[tuple[e.BlockerKind, str, str], ...] = ()  # (kind, about, text) to be raised
    stopped: bool = False  # run.blocked was said, and nothing has come since
    synthesis: e.SynthesisWritten | None = None
    ship: e.ShipObserved | None = None
    ship_verified: tuple[str, str] | None = None
    shipped: str = ""
    ship_asked: bool = False
    milestone: int = -1  # seq of the last event that the log is published after
    checkpoint: e.LogCheckpointed | None = None  # the last one that was tried
    redacted: tuple[str, ...] = ()  # blobs that were dropped
    ship_left: bool = False
    ship_pr: bool = False  # asked for, whatever the settings say
    landed: tuple[tuple[str, str], ...] = ()  # (assignment, merge commit) on the integration branch, in order
    outside: Outside = Outside()

    @property
    def settings(self) -> e.Settings:
        return self.started.settings if self.started else e.Settings()

    @property
    def ref(self) -> str:
        return f"refs/heads/orchgit/{self.id}/integration"

    @property
    def over(self) -> bool:
        return self.phase in TERMINAL

    @property
    def busy(self) -> bool:
        """Whether an outcome of the work itself is waited for. Nothing of it waits for the forge."""
        return any(not isinstance(p.body, e.ForgeRequested) for p in self.pending.values())

    @property
    def by_pr(self) -> bool:
        """Whether it ships by pull requests."""
        wanted = self.ship_pr if self.ship_asked else self.settings.ship == "pr"
        return wanted and self.settings.forge != "local" and not self.ship_left

    def all_checks(self) -> tuple[str, ...]:
        """Of every assignment, each once: what runs on the whole."""
        return tuple(dict.fromkeys(c for w in self.works.values() for c in w.spec.checks))

    def open_blockers(self, about: str | None = None) -> tuple[Blocker, ...]:
        return tuple(b for b in self.blockers if b.open and about in (None, b.about))

    def open_findings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.state == "open")

    def reviewers(self) -> tuple[str, ...]:
        named = self.plan.reviewers if self.plan else ()
        return tuple(dict.fromkeys((*self.settings.reviewers, *named)))


def branch(run: str, assignment: str) -> str:
    """The worker's branch; of the engine's alone to move."""
    return f"refs/heads/orchgit/{run}/{assignment}"


def purpose_key(body: e.Body) -> str:
    """Names the agent run that a request asks for; the key of playbooks, briefs and failure counts."""
    match body:
        case e.PlanRequested():
            return "plan"
        case e.AgentRequested(assignment=name):
            return f"work/{name}"
        case e.VerdictRequested(assignment=name):
            return f"verdict/{name}"
        case e.ReviewRequested(reviewer=name):
            return f"review/{name}"
        case e.SynthesisRequested():
            return "synthesis"
    raise TypeError(f"{body.type} asks for no agent")
