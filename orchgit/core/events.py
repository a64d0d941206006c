"""Everything that can happen in a run, and its form on the wire.

Long on purpose: it is the whole catalogue, to be read from top to bottom or looked up in.

Each class below is one type of event; `type` is its wire name, a literal that never changes, and `kind` says
what sort of thing it is:

    input     from outside: a human, or the command that began the run
    request   the engine decided to act; written before it acts; answered by exactly one outcome
    outcome   what became of a request (`cause` is the request's seq)
    note      seen while a request was being performed (`cause` likewise); answers nothing
    decision  the engine decided something that needs no act in the world

A request is the command: there is no second vocabulary. Requests and decisions hold only what can be derived
from the events before them; whatever the world alone knows (ids of new objects, digests, exit codes, costs)
is in outcomes and notes. That is what lets `audit` derive every decision again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from orchgit.core.codec import DecodeError as DecodeError
from orchgit.core.codec import decode as decode
from orchgit.core.codec import dumps as dumps
from orchgit.core.codec import encode as encode
from orchgit.core.plan import Assignment as Assignment
from orchgit.core.plan import Member as Member
from orchgit.core.plan import Plan as Plan
from orchgit.core.review import Finding, Severity

VERSION = 1  # of the envelope
DECIDER = 2  # number of the rules in decide.py; audit re-derives decisions only for logs that carry ours
MAX_LINE = 64 * 1024
ZERO = "0" * 64

Kind = Literal["input", "request", "outcome", "note", "decision"]


class LineError(ValueError):
    """A line that is not an event of this log; the message says why."""


class UnknownType(LineError):
    """A well-formed line of a type this version does not know."""


@dataclass(frozen=True)
class Actor:
    kind: Literal["engine", "human", "policy", "agent"]
    id: str


@dataclass(frozen=True)
class Comment:
    """What a person wrote on the forge, and is obeyed for: the forge says who, and when. Each is heard once."""

    id: str  # of its kind: comment/123, review/45
    author: str
    time: str
    url: str


class Body:
    """What an event says. Subclasses are frozen dataclasses."""

    type: ClassVar[str]
    kind: ClassVar[Kind]


T = TypeVar("T", bound=Body)


# -- the run ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grant:
    """What a worker is granted without a human when it asks for more scope."""

    worker: str
    allow: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """The most that may be spent on something, all its agents together. None: no limit. Money in micro-dollars."""

    cost_micro: int | None = None
    tokens: int | None = None  # read and written
    turns: int | None = None  # calls of a model
    seconds: int | None = None  # that agents worked; waiting for a service is not work


NO_LIMIT = Budget()


@dataclass(frozen=True)
class Used:
    """What an agent run took, as far as it is known. `cost_micro` None: the price is unknown. `unsure_*`: what its
    calls that broke off can have taken at most, beside what is known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_micro: int | None = 0
    unsure_tokens: int = 0
    unsure_micro: int = 0
    duration_ms: int = 0


@dataclass(frozen=True)
class Settings:
    """What decisions depend on, frozen at the start. The whole configuration is a blob, named by its digest."""

    attempts: int = 3  # counted tries per assignment before a human is asked
    rounds: int = 3  # of review
    parallel: int = 4  # assignments at work at the same time
    plan_retries: int = 2  # invalid plans sent back
    agent_retries: int = 2  # of planning, verdict, review and synthesis, when the agent fails
    blocking: Severity = "critical"
    reviewers: tuple[str, ...] = ()  # always asked, beside those the plan names
    approval: Literal["human", "policy"] = "human"
    ship: Literal["none", "merge", "pr"] = "none"
    grants: tuple[Grant, ...] = ()
    budget: Budget = NO_LIMIT  # of the run
    assignment_budget: Budget = NO_LIMIT  # of each assignment, all its attempts
    forge: Literal["local", "github"] = "local"
    repository: str = ""  # there: host/owner/name
    issue: int = 0  # its number there; 0: it is a file
    plan: Literal["off", "comment"] = "off"
    review: Literal["ship", "worker"] = "ship"  # what a human's approval of a pull request stands before


@dataclass(frozen=True)
class RunStarted(Body):
    type = "run.started"
    kind = "input"
    decider: int
    base: str
    base_ref: str  # "" for a detached head
    object_format: Literal["sha1", "sha256"]
    tool: str
    git: str
    python: str
    config: str  # blob digest
    settings: Settings
    roster: tuple[Member, ...]
    sandbox: str  # what is in force on this machine, in words
    sandboxed: bool
    scripted: bool


@dataclass(frozen=True)
class RunResumed(Body):
    type = "run.resumed"
    kind = "input"
    tool: str
    torn_bytes: int
    sandbox: str
    sandboxed: bool
    debris: tuple[str, ...] = ()  # of the engine before this one, removed under the lock


@dataclass(frozen=True)
class RunCompleted(Body):
    type = "run.completed"
    kind = "decision"
    tip: str


@dataclass(frozen=True)
class RunBlocked(Body):
    """Nothing is left to do before a human has answered."""

    type = "run.blocked"
    kind = "decision"
    blockers: tuple[str, ...]


@dataclass(frozen=True)
class AbortRequested(Body):
    type = "abort.requested"
    kind = "input"
    reason: str


@dataclass(frozen=True)
class RunAborted(Body):
    type = "run.aborted"
    kind = "decision"


@dataclass(frozen=True)
class RunFailed(Body):
    """A fault of ours: an outcome that cannot have happened. The log stays legal; the run is over."""

    type = "run.failed"
    kind = "note"
    refused: str  # type of the refused event
    why: str


@dataclass(frozen=True)
class OutcomeIgnored(Body):
    """An outcome nobody waits for any more: of an old attempt, or one already answered."""

    type = "outcome.ignored"
    kind = "note"
    refused: str
    why: str


@dataclass(frozen=True)
class LogCheckpointed(Body):
    """The log up to event `seq` (whose hash is `hash`) is the commit `commit` on refs/orchgit/runs/<run>.

    A note, not an outcome: the commit is a function of the log before it, so doing it twice is doing it once, and
    nobody has to ask for it first. `why` says what kept it from being published; "" when it was.
    """

    type = "log.checkpointed"
    kind = "note"
    seq: int
    hash: str
    commit: str
    why: str = ""


@dataclass(frozen=True)
class RedactionRecorded(Body):
    """A blob was dropped from the run's directory, and is in no checkpoint from here on."""

    type = "redaction.recorded"
    kind = "input"
    digest: str
    why: str


# -- issue and plan --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IssueRead(Body):
    type = "issue.read"
    kind = "input"
    source: str
    title: str
    text: str  # blob digest


@dataclass(frozen=True)
class PlanRequested(Body):
    type = "plan.requested"
    kind = "request"
    number: int


@dataclass(frozen=True)
class QuestionAsked(Body):
    type = "question.asked"
    kind = "outcome"
    questions: tuple[str, ...]


@dataclass(frozen=True)
class QuestionAnswered(Body):
    type = "question.answered"
    kind = "input"
    answers: tuple[str, ...]
    comments: tuple[Comment, ...] = ()  # on the forge, by which it was said


@dataclass(frozen=True)
class PlanProposed(Body):
    """A valid plan, from the orchestrator (an outcome) or edited by a human (then there is no cause)."""

    type = "plan.proposed"
    kind = "outcome"
    version: int
    digest: str
    plan: Plan


@dataclass(frozen=True)
class PlanInvalid(Body):
    type = "plan.invalid"
    kind = "outcome"
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PlanRejected(Body):
    type = "plan.rejected"
    kind = "input"
    version: int
    feedback: str
    comments: tuple[Comment, ...] = ()


@dataclass(frozen=True)
class PlanApproved(Body):
    type = "plan.approved"
    kind = "input"
    version: int
    digest: str
    mode: Literal["human", "policy"]
    signature: str = ""  # armoured SSH signature over `approval_statement`; "" when none was asked for
    comments: tuple[Comment, ...] = ()


# -- an assignment ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssignmentStarted(Body):
    """`start` is the commit the worker starts from; "" while it has to be made of the dependencies' work."""

    type = "assignment.started"
    kind = "decision"
    assignment: str
    attempt: int
    counted: int  # tries that count, this one included
    start: str
    feedback: tuple[str, ...]
    hand: str = ""  # no agent: this commit, which somebody pushed onto its branch, goes to the gate; it does not count


@dataclass(frozen=True)
class CellRequested(Body):
    """`onto`: the attempt goes on from `start`, joined with this tip first; "" when there is nothing to join."""

    type = "cell.requested"
    kind = "request"
    assignment: str
    attempt: int
    start: str
    onto: str
    dependencies: tuple[str, ...]


@dataclass(frozen=True)
class CellMade(Body):
    type = "cell.made"
    kind = "outcome"
    assignment: str
    attempt: int
    start: str  # commit the cell stands on
    branch: str
    sandbox: str
    canary: tuple[str, ...]  # what was tried in that very sandbox, and what came of it
    approximate: tuple[str, ...]  # directories writable beyond the scope: closed by the gate alone


@dataclass(frozen=True)
class CellFailed(Body):
    type = "cell.failed"
    kind = "outcome"
    assignment: str
    attempt: int
    why: str


@dataclass(frozen=True)
class CellRemovalRequested(Body):
    type = "cell.removal_requested"
    kind = "request"
    assignment: str
    attempt: int


@dataclass(frozen=True)
class CellRemoved(Body):
    type = "cell.removed"
    kind = "outcome"
    assignment: str
    attempt: int


@dataclass(frozen=True)
class AgentRequested(Body):
    """`session`: a blob by which an agent that had asked for more scope goes on where it was; "" for a fresh one."""

    type = "agent.requested"
    kind = "request"
    assignment: str
    attempt: int
    member: str
    session: str = ""


@dataclass(frozen=True)
class AgentStarted(Body):
    """Any agent, worker or not. `brief` is a blob digest."""

    type = "agent.started"
    kind = "note"
    member: str
    role: Literal["orchestrator", "worker", "reviewer"]
    purpose: Literal["plan", "work", "verdict", "review", "synthesis"]
    backend: str
    model: str
    brief: str
    sandbox: str
    network: Literal["none", "loopback", "open"]


@dataclass(frozen=True)
class AgentExited(Body):
    """Costs in micro-dollars, None when unknown; `unsure_*` as in Used. `transcript` is a blob digest."""

    type = "agent.exited"
    kind = "note"
    member: str
    status: str
    message: str
    duration_ms: int
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_micro: int | None
    transcript: str
    refused: tuple[str, ...] = ()  # tool calls that the role or the sandbox did not allow
    conversation: str = ""  # the agent's own name for it, where it has one
    unsure_tokens: int = 0
    unsure_micro: int = 0

    @property
    def used(self) -> Used:
        return Used(
            self.calls, self.input_tokens, self.output_tokens, self.cache_read_tokens, self.cache_write_tokens,
            self.cost_micro, self.unsure_tokens, self.unsure_micro, self.duration_ms,
        )  # fmt: skip


@dataclass(frozen=True)
class AgentWaiting(Body):
    """Its service asked for patience: nothing failed, and the agent goes on by itself, also under another engine.

    `session` is where it stopped (a blob; "": it begins anew), `used` what it has taken so far, `since` when it began
    to wait, put later by the time that it worked in between: what is asked for again and again still has an end.
    """

    type = "agent.waiting"
    kind = "note"
    member: str
    backend: str
    until: str  # RFC 3339, UTC
    since: str
    why: str
    session: str
    used: Used


@dataclass(frozen=True)
class AgentWaited(Body):
    """The wait is over: it works again."""

    type = "agent.waited"
    kind = "note"
    member: str


@dataclass(frozen=True)
class AgentReported(Body):
    """A worker's report: a claim. What happened is in git."""

    type = "agent.reported"
    kind = "outcome"
    assignment: str
    attempt: int
    summary: str
    produced: tuple[str, ...]
    blockers: tuple[str, ...]


@dataclass(frozen=True)
class AgentFailed(Body):
    """Any agent that ended without a result. `lost`: its engine died under it; the try does not count."""

    type = "agent.failed"
    kind = "outcome"
    status: str
    message: str
    hint: str = ""
    lost: bool = False


@dataclass(frozen=True)
class AgentHalted(Body):
    """A worker stopped before the call that could have gone beyond a budget. Its attempt is not over: it goes on from
    `session` (as in ScopeAsked) when a human has raised that budget."""

    type = "agent.halted"
    kind = "outcome"
    assignment: str
    attempt: int
    budget: Literal["run", "assignment"]
    message: str
    session: str = ""


@dataclass(frozen=True)
class BudgetRaised(Body):
    """By a human: so much more may be spent on the assignment, or, without one, on the run. None: nothing more."""

    type = "budget.raised"
    kind = "input"
    assignment: str
    more: Budget


@dataclass(frozen=True)
class ScopeAsked(Body):
    """A worker wants more paths, all that it needs at once, and says why. Its attempt is not over: `session` is where
    it stopped (a blob), or "" for an agent that cannot be taken up again and reads the answer in its brief."""

    type = "scope.amendment_asked"
    kind = "outcome"
    assignment: str
    attempt: int
    patterns: tuple[str, ...]
    why: str
    session: str = ""


@dataclass(frozen=True)
class ScopeGranted(Body):
    """By a human, or by the configuration (then the actor is a policy). `patterns`: all that was asked, or a part."""

    type = "scope.amendment_granted"
    kind = "input"
    assignment: str
    attempt: int
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class ScopeRefused(Body):
    type = "scope.amendment_refused"
    kind = "input"
    assignment: str
    attempt: int
    why: str


@dataclass(frozen=True)
class PlanAmended(Body):
    """A new version of the approved plan. `changed` are its assignments that differ from the version before: the one
    with the wider scope, and those whose order changed for it. `waits`: it begins again after others, on their work."""

    type = "plan.amended"
    kind = "decision"
    assignment: str
    attempt: int
    version: int
    digest: str
    changed: tuple[Assignment, ...]
    waits: bool


@dataclass(frozen=True)
class ScopeViolationSeen(Body):
    type = "scope.violation_seen"
    kind = "note"
    assignment: str
    attempt: int
    path: str
    what: str
    layer: Literal["sandbox", "watchdog", "tool"]


@dataclass(frozen=True)
class AgentPaused(Body):
    """All that runs in the attempt's cell stands still, until a human says how it goes on."""

    type = "agent.paused"
    kind = "note"
    assignment: str
    attempt: int
    path: str  # outside the scope, and touched


@dataclass(frozen=True)
class AgentContinued(Body):
    """A human's word on a paused attempt: it goes on, or it ends (`stop`)."""

    type = "agent.continued"
    kind = "input"
    assignment: str
    attempt: int
    stop: bool


@dataclass(frozen=True)
class WatchIncomplete(Body):
    """The watchdog lost events: its silence means even less than usual. The gate reads the whole tree anyway."""

    type = "watch.incomplete"
    kind = "note"
    assignment: str
    attempt: int
    why: str


# -- gate, checks, verdict -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Violation:
    path: str
    rule: str


@dataclass(frozen=True)
class GateRequested(Body):
    type = "gate.requested"
    kind = "request"
    assignment: str
    attempt: int


@dataclass(frozen=True)
class GatePassed(Body):
    """`commit` is ours, on the worker's branch; `salvage` is the worker's own last state, on a salvage ref.
    `author`: of work that was pushed by hand."""

    type = "gate.passed"
    kind = "outcome"
    assignment: str
    attempt: int
    commit: str
    tree: str
    files: int
    salvage: str
    author: str = ""


@dataclass(frozen=True)
class GateFailed(Body):
    """At most 50 violations are listed; `total` counts them all."""

    type = "gate.failed"
    kind = "outcome"
    assignment: str
    attempt: int
    violations: tuple[Violation, ...]
    total: int
    salvage: str


@dataclass(frozen=True)
class SalvageRequested(Body):
    type = "salvage.requested"
    kind = "request"
    assignment: str
    attempt: int


@dataclass(frozen=True)
class SalvageKept(Body):
    """What a failed attempt left is kept as `commit`; "" when there was nothing to keep."""

    type = "salvage.kept"
    kind = "outcome"
    assignment: str
    attempt: int
    commit: str
    why: str = ""


@dataclass(frozen=True)
class CheckResult:
    command: str
    passed: bool
    why: str  # in words; "" when passed
    exit_code: int
    duration_ms: int
    tests: int | None  # run, where the runner is known; None otherwise
    output: str  # blob digest


@dataclass(frozen=True)
class ChecksRequested(Body):
    """Checks of `commit` merged onto `onto`. `subject`: an assignment, "integration" or "ship"."""

    type = "checks.requested"
    kind = "request"
    subject: str
    attempt: int
    commit: str
    onto: str


@dataclass(frozen=True)
class ChecksPassed(Body):
    type = "checks.passed"
    kind = "outcome"
    subject: str
    attempt: int
    onto: str
    tree: str
    results: tuple[CheckResult, ...]


@dataclass(frozen=True)
class ChecksFailed(Body):
    """`alone`: the same checks pass on the worker's commit by itself, so only the moved tip is to blame."""

    type = "checks.failed"
    kind = "outcome"
    subject: str
    attempt: int
    onto: str
    tree: str
    results: tuple[CheckResult, ...]
    alone: bool
    excerpt: str  # head and tail of the failing output, as data for whoever mends it


@dataclass(frozen=True)
class ChecksStale(Body):
    """The tip no longer has the base's entry at a path the work changes: it cannot be carried over.

    `why`: what else keeps it from being checked, such as an object that somebody deleted; "" otherwise.
    """

    type = "checks.stale"
    kind = "outcome"
    subject: str
    attempt: int
    onto: str
    paths: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class VerdictRequested(Body):
    type = "verdict.requested"
    kind = "request"
    assignment: str
    attempt: int
    commit: str


@dataclass(frozen=True)
class VerdictGiven(Body):
    type = "verdict.given"
    kind = "outcome"
    assignment: str
    attempt: int
    decision: Literal["accept", "reassign", "blocked"]
    reasons: tuple[str, ...]


# -- merges ----------------------------------------------------------------------------------------------

LandKind = Literal["merge", "seal", "ship"]


@dataclass(frozen=True)
class MergePrepared(Body):
    """The merge commit takes its date and its Orchgit-Log trailer from this event: it can be rebuilt for ever.

    `land`: "merge" of a worker's commit, the "seal" at the end (same tree, no second parent), or "ship" onto
    the user's branch.
    """

    type = "merge.prepared"
    kind = "request"
    land: LandKind
    assignment: str
    attempt: int
    commit: str
    old: str
    tree: str


@dataclass(frozen=True)
class MergeBuilt(Body):
    type = "merge.built"
    kind = "outcome"
    land: LandKind
    assignment: str
    new: str


@dataclass(frozen=True)
class MergeRequested(Body):
    type = "merge.requested"
    kind = "request"
    land: LandKind
    assignment: str
    attempt: int
    ref: str
    old: str
    new: str
    tree: str


@dataclass(frozen=True)
class MergeDone(Body):
    type = "merge.done"
    kind = "outcome"
    land: LandKind
    assignment: str
    new: str


@dataclass(frozen=True)
class MergeStale(Body):
    """Somebody else moved the ref; `found` is what it is now. `why`: what else kept it from being built or swapped."""

    type = "merge.stale"
    kind = "outcome"
    land: LandKind
    assignment: str
    found: str
    why: str = ""


# -- blockers --------------------------------------------------------------------------------------------

BlockerKind = Literal[
    "scope",
    "attempts",
    "agent",
    "verdict",
    "unavailable",
    "plan",
    "finding",
    "ref",
    "cell",
    "checks",
    "ship",
    "budget",
]


@dataclass(frozen=True)
class BlockerRaised(Body):
    """`about` names the assignment or finding concerned; "" for the run as a whole."""

    type = "blocker.raised"
    kind = "decision"
    blocker: str
    cause_kind: BlockerKind
    about: str
    text: str


@dataclass(frozen=True)
class BlockerAnswered(Body):
    """`text` is handed to whoever tries again; it may be empty (`orchgit retry`). `assignment`: who takes a finding."""

    type = "blocker.answered"
    kind = "input"
    blocker: str
    text: str
    assignment: str = ""
    comments: tuple[Comment, ...] = ()


# -- review ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewRequested(Body):
    """`since` is where this reviewer's reading begins: the run's base, or what it read last time."""

    type = "review.requested"
    kind = "request"
    reviewer: str
    round: int
    since: str
    tip: str


@dataclass(frozen=True)
class ReviewReported(Body):
    """`findings` are new; `fixed` are ids of open ones that are gone. Both empty: clean, no findings."""

    type = "review.reported"
    kind = "outcome"
    reviewer: str
    round: int
    tip: str
    summary: str
    findings: tuple[Finding, ...]
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class FindingOpened(Body):
    type = "finding.opened"
    kind = "decision"
    finding: Finding


@dataclass(frozen=True)
class FindingFixed(Body):
    type = "finding.fixed"
    kind = "decision"
    finding: str
    reviewer: str


@dataclass(frozen=True)
class FindingWaived(Body):
    type = "finding.waived"
    kind = "input"
    finding: str
    reason: str


@dataclass(frozen=True)
class FixAssigned(Body):
    """Findings (or, after the last checks, `why` alone) go back to the assignment that owns the paths."""

    type = "fix.assigned"
    kind = "decision"
    assignment: str
    findings: tuple[str, ...]
    why: str
    alone: bool = False  # it goes on from its own branch, as a pull request shows it, and not joined with the tip


@dataclass(frozen=True)
class FixDropped(Body):
    """Nothing of what the assignment was to fix is open any more: a human waived it. Its merged work stands."""

    type = "fix.dropped"
    kind = "decision"
    assignment: str


# -- the end ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SynthesisRequested(Body):
    type = "synthesis.requested"
    kind = "request"
    tip: str


@dataclass(frozen=True)
class Totals:
    """Counted from git, base..tip. Never from reports."""

    files_created: int
    files_changed: int
    files_deleted: int
    lines_added: int
    lines_deleted: int
    test_files: int  # created or changed
    tests_added: int  # test functions on added lines, less those on deleted lines; where the language is known
    docs_files: int  # created or changed
    assignments: int
    attempts: int


@dataclass(frozen=True)
class SynthesisWritten(Body):
    type = "synthesis.written"
    kind = "outcome"
    summary: str
    review_by_human: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True)
class ShipAsked(Body):
    """`orchgit ship RUN` on a run that had completed without. `pr`: by pull requests."""

    type = "ship.asked"
    kind = "input"
    pr: bool = False


@dataclass(frozen=True)
class ShipLeft(Body):
    """`orchgit ship RUN --leave`: the run completes without; the work stays on the integration branch."""

    type = "ship.left"
    kind = "input"


@dataclass(frozen=True)
class ShipRequested(Body):
    """Look at the branch that the work is to land on."""

    type = "ship.requested"
    kind = "request"
    ref: str


@dataclass(frozen=True)
class ShipObserved(Body):
    """Where that branch stands. `why` says what keeps us from moving it; "" when nothing does. `merged`: it has the
    work already, by hand."""

    type = "ship.observed"
    kind = "outcome"
    ref: str
    old: str
    why: str
    merged: bool = False


# -- the forge -------------------------------------------------------------------------------------------

ForgeAct = Literal["note", "push", "change", "retarget", "status", "review", "merge", "close"]


@dataclass(frozen=True)
class ForgeRequested(Body):
    """A write on the forge. The same key is the same thing there: found if it is there already, and brought up to date.

    `about`: an assignment, "integration" or "workers", or what a note or a status is of. `head`: a commit, or the
    digest of what is shown. `base`: the branch that a change is to go into. `state`: of a status; or in short what a
    text is made from, so that it is written again when that is another.
    """

    type = "forge.requested"
    kind = "request"
    act: ForgeAct
    key: str
    about: str
    head: str = ""
    base: str = ""
    state: str = ""


@dataclass(frozen=True)
class ForgeDone(Body):
    """`number` of the comment, pull request or review; `text` the blob of what was written; `commit` of a merge."""

    type = "forge.done"
    kind = "outcome"
    key: str
    number: int
    url: str
    text: str = ""
    commit: str = ""


@dataclass(frozen=True)
class ForgeFailed(Body):
    """It is not there, or nobody knows. Tried again on the next occasion; no work of the run's fails for it."""

    type = "forge.failed"
    kind = "outcome"
    key: str
    why: str
    hint: str = ""


@dataclass(frozen=True)
class ChangeSeen(Body):
    """What a person did with a pull request of the run's. `commit`: the head that it was done to, the one that was
    pushed, or the merge."""

    type = "change.seen"
    kind = "input"
    about: str  # an assignment; "integration": the last one
    what: Literal["approved", "changes", "pushed", "merged", "closed"]
    commit: str
    text: str
    comments: tuple[Comment, ...]


BODIES: tuple[type[Body], ...] = (
    RunStarted, RunResumed, RunCompleted, RunBlocked, AbortRequested, RunAborted, RunFailed, OutcomeIgnored,
    IssueRead, PlanRequested, QuestionAsked, QuestionAnswered, PlanProposed, PlanInvalid, PlanRejected,
    PlanApproved, AssignmentStarted, CellRequested, CellMade, CellFailed, CellRemovalRequested, CellRemoved,
    AgentRequested, AgentStarted, AgentWaiting, AgentWaited, AgentExited, AgentReported, AgentFailed,
    AgentHalted, BudgetRaised, ScopeAsked,
    ScopeGranted, ScopeRefused, PlanAmended, ScopeViolationSeen, AgentPaused, AgentContinued, WatchIncomplete,
    GateRequested, GatePassed, GateFailed, SalvageRequested, SalvageKept, ChecksRequested, ChecksPassed,
    ChecksFailed, ChecksStale, VerdictRequested, VerdictGiven, MergePrepared, MergeBuilt, MergeRequested,
    MergeDone, MergeStale, BlockerRaised, BlockerAnswered, ReviewRequested, ReviewReported, FindingOpened,
    FindingFixed, FindingWaived, FixAssigned, FixDropped, SynthesisRequested, SynthesisWritten, ShipAsked,
    ShipRequested, ShipLeft, ShipObserved, ForgeRequested, ForgeDone, ForgeFailed, ChangeSeen,
    LogCheckpointed, RedactionRecorded,
)  # fmt: skip
TYPES: dict[str, type[Body]] = {body.type: body for body in BODIES}


# Events after which the log is published: what was merged, and every way to end.
MILESTONES = (MergeDone, RunCompleted, RunAborted, RunFailed)

# -- envelope --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """An event before it has its place in the log."""

    body: Body
    actor: Actor
    cause: int | None = None


@dataclass(frozen=True)
class Event:
    """A line of the log. `hash` is SHA-256 of the line's own bytes up to `,"hash":"`; `prev` is the line before's."""

    seq: int
    run: str
    time: str  # RFC 3339, UTC, milliseconds; a claim, used for no decision
    actor: Actor
    cause: int | None
    body: Body
    prev: str
    hash: str
    line: bytes = field(default=b"", compare=False, repr=False)  # with its newline

    @property
    def id(self) -> str:
        return f"{self.run}/{self.seq}"


def seal(draft: Draft, *, run: str, seq: int, time: str, prev: str) -> Event:
    """Give a draft its place in the chain. Raises LineError for one too long to be a line."""
    try:
        data = encode(draft.body)
    except ValueError as error:
        raise LineError(f"{draft.body.type}: {error}") from error
    envelope: dict[str, Any] = {
        "v": VERSION,
        "seq": seq,
        "run": run,
        "type": draft.body.type,
        "time": time,
        "actor": {"kind": draft.actor.kind, "id": draft.actor.id},
        "cause": draft.cause,
        "data": data,
        "prev": prev,
    }
    try:
        head = dumps(envelope)[:-1].encode()
    except UnicodeEncodeError as error:
        raise LineError(f"{draft.body.type}: a string holds a lone surrogate") from error
    digest = hashlib.sha256(head).hexdigest()
    line = head + f',"hash":"{digest}"}}\n'.encode()
    if len(line) > MAX_LINE:
        raise LineError(f"{draft.body.type}: {len(line)} bytes, at most {MAX_LINE} fit in one line")
    return Event(seq, run, time, draft.actor, draft.cause, draft.body, prev, digest, line)


def _no_float(text: str) -> Any:
    raise ValueError(f"{text}: only integers")


_READER = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float)
_KEYS = ["v", "seq", "run", "type", "time", "actor", "cause", "data", "prev", "hash"]
_SUFFIX = len(',"hash":"') + 64 + len('"}')


def envelope(line: bytes) -> dict[str, Any]:
    """The fields of one line (without its newline), its own hash checked; `data` as it stands, of any type.

    Raises LineError for whatever this program would not have written: other spacing, other key order,
    duplicate keys, floats, a wrong hash, more bytes than a line may have.
    """
    if len(line) >= MAX_LINE:
        raise LineError(f"{len(line) + 1} bytes, at most {MAX_LINE} fit in one line")
    try:
        fields: dict[str, Any] = _READER.decode(line.decode())
        written = dumps(fields).encode()
    except (ValueError, RecursionError) as error:  # a lone surrogate, escaped in the line, fails in encode()
        raise LineError(f"not JSON: {error}") from error
    if not isinstance(fields, dict) or list(fields) != _KEYS:
        raise LineError("not the keys of an event, in their order")
    if hashlib.sha256(line[:-_SUFFIX]).hexdigest() != fields["hash"]:
        raise LineError("the hash is not that of the line")
    if written != line:
        raise LineError("not in the form that events are written in")
    if type(fields["v"]) is not int or fields["v"] != VERSION:
        raise UnknownType(f"envelope version {fields['v']!r:.40}")
    return fields


def parse(line: bytes) -> Event:
    """One line, with or without its newline, as an event. Raises LineError, UnknownType."""
    line = line.removesuffix(b"\n")
    fields = envelope(line)
    if type(fields["seq"]) is not int or not (fields["cause"] is None or type(fields["cause"]) is int):
        raise LineError("seq and cause are integers")
    if not all(isinstance(fields[k], str) for k in ("run", "type", "time", "prev", "hash")):
        raise LineError("an envelope field is not a string")
    body_type = TYPES.get(fields["type"])
    if body_type is None:
        raise UnknownType(f"event type {fields['type']!r:.80}")
    try:
        body = decode(body_type, fields["data"])
        actor = decode(Actor, fields["actor"])
    except (DecodeError, RecursionError) as error:
        raise LineError(f"{fields['type']}: {error}") from error
    return Event(
        fields["seq"], fields["run"], fields["time"], actor, fields["cause"], body,
        fields["prev"], fields["hash"], line + b"\n",
    )  # fmt: skip


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the plan as the log writes it. Approval names this."""
    return hashlib.sha256(dumps(encode(plan)).encode()).hexdigest()


def approval_statement(run: str, base: str, version: int, digest: str) -> bytes:
    """What a person signs who approves a plan, in the namespace `orchgit`."""
    return f"orchgit approval\nrun: {run}\nbase: {base}\nversion: {version}\nplan: sha256:{digest}\n".encode()


def checkpoint_statement(run: str, seq: int, digest: str) -> bytes:
    """What is signed of a checkpoint, in the namespace `orchgit`."""
    return f"orchgit checkpoint\nrun: {run}\nlog: {seq}@sha256:{digest}\n".encode()
