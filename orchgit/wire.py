"""What agents and people hand in, validated before it becomes a core object: plans, reports, verdicts, reviews.

Strict, unknown keys refused, lengths capped: every text here was written by somebody who is not trusted. The
JSON Schemas of these models are what agents are given as tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchgit.core.codec import dumps, encode
from orchgit.core.pattern import check_pattern
from orchgit.core.plan import MAX_PLAN_BYTES, Assignment, Plan
from orchgit.core.review import MAX_FINDINGS, Finding, Severity
from orchgit.core.scope import wildcard_claims_protected

M = TypeVar("M", bound="Wire")
MAX_RESULT_BYTES = MAX_PLAN_BYTES  # whatever is handed in becomes one event, and an event is one line of 64 KiB

Short = Annotated[str, StringConstraints(max_length=300)]
Text = Annotated[str, StringConstraints(max_length=8000)]
Note = Annotated[str, StringConstraints(max_length=1500)]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AssignmentIn(Wire):
    """One piece of work for one worker."""

    id: Short = Field(description="short name: a-z, 0-9 and '-'")
    worker: Short = Field(description="a worker's name from the roster")
    title: Short = Field(default="", description="one line")
    task: Text = Field(description="what to do, complete enough for somebody who reads nothing else")
    interface: Text = Field(default="", description="names, signatures, routes, types to keep to")
    allow: list[Short] = Field(description="paths the worker may touch: 'src/api/**', 'types/billing.ts'")
    deny: list[Short] = Field(default=[], description="exceptions; deny wins")
    inputs: list[Short] = Field(default=[], description="files worth reading first")
    outputs: list[Short] = Field(default=[], description="files that must exist at the end, inside the scope")
    depends_on: list[Short] = Field(default=[], description="ids of assignments that must be merged before")
    checks: list[Short] = Field(default=[], description="shell commands that must succeed on the merge result")
    symlinks: bool = Field(default=False, description="whether symbolic links may be made, from scope to scope")


class PlanIn(Wire):
    """The whole plan."""

    goal: Text = Field(description="the end result expected, in a sentence or two")
    assignments: list[AssignmentIn]
    reviewers: list[Short] = Field(default=[], description="reviewers from the roster, beside the ones always asked")

    def plan(self) -> Plan:
        return Plan(
            self.goal,
            tuple(
                Assignment(
                    a.id, a.worker, a.title or a.task.strip().splitlines()[0][:80] if a.task.strip() else a.title,
                    a.task, tuple(a.allow), tuple(a.deny), a.interface, tuple(a.inputs), tuple(a.outputs),
                    tuple(a.depends_on), tuple(a.checks), a.symlinks,
                )
                for a in self.assignments
            ),
            tuple(self.reviewers),
        )  # fmt: skip


class QuestionsIn(Wire):
    questions: list[Note] = Field(min_length=1, max_length=10, description="each answerable in a sentence")


class ReportIn(Wire):
    """A worker's report. It is a claim; git is looked at for the facts."""

    summary: Note = Field(description="what you did and why, for the commit message and the reviewer")
    produced: list[Short] = Field(default=[], max_length=100, description="paths you created or changed")
    blockers: list[Note] = Field(default=[], max_length=5, description="what only a human can decide")


class ScopeRequestIn(Wire):
    """More scope. The work goes on when it has been decided."""

    paths: list[Short] = Field(
        min_length=1, max_length=20,
        description="patterns as in a plan ('docs/api/**'; protected files by their literal name), all that you need",
    )  # fmt: skip
    why: Note = Field(min_length=1, description="what you need them for, and why it cannot be done inside your scope")


class VerdictIn(Wire):
    decision: Literal["accept", "reassign", "blocked"]
    reasons: list[Note] = Field(
        default=[], max_length=10, description="for reassign: each thing to change, as the worker needs to hear it"
    )


class FindingIn(Wire):
    severity: Severity
    path: Short = Field(description="path of the file, relative to the repository; empty if none")
    line: int = Field(default=0, ge=0, le=10_000_000, description="1-based; 0 for the file as a whole")
    title: Short
    detail: Annotated[str, StringConstraints(max_length=1000)] = Field(
        default="", description="why it is a problem and what would be right"
    )


class ReviewIn(Wire):
    """Empty lists are an answer: clean, no findings."""

    summary: Note
    findings: list[FindingIn] = Field(default=[], max_length=MAX_FINDINGS, description="new findings only")
    fixed: list[Short] = Field(default=[], max_length=100, description="ids of open findings that are now gone")


class SynthesisIn(Wire):
    summary: Text = Field(description="what was built and how the pieces fit, in a few paragraphs")
    review_by_human: list[Note] = Field(default=[], max_length=20, description="what a person should look at")


def parse(model: type[M], data: Mapping[str, Any] | bytes | str) -> M:
    """Validate; raises ValueError whose message names each field and what would be right."""
    try:
        # By way of JSON: strict mode then takes JSON's types, as an agent wrote them.
        text = data if isinstance(data, bytes | str) else json.dumps(data)
        made = model.model_validate_json(text)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join(str(part) for part in problem["loc"]) or "input"
            lines.append(f"{where}: {problem['msg']}")
        raise ValueError("\n".join(lines)) from error
    size = len(dumps(made.model_dump(mode="json")).encode())
    if size > MAX_RESULT_BYTES:
        raise ValueError(f"all of it is {size} bytes as JSON, at most {MAX_RESULT_BYTES}: say it shorter")
    return made


def parse_plan(data: Mapping[str, Any] | bytes | str) -> Plan:
    """A plan as an agent or a person wrote it; its meaning is judged by `problems`, not here."""
    plan = parse(PlanIn, data).plan()
    size = len(dumps(encode(plan)).encode())
    if size > MAX_PLAN_BYTES:
        raise ValueError(f"the plan is {size} bytes as JSON, at most {MAX_PLAN_BYTES}: shorten the tasks")
    return plan


def parse_scope_request(data: Mapping[str, Any] | bytes | str) -> ScopeRequestIn:
    """What a worker asks for: patterns that a plan could hold. Raises ValueError with what would be right."""
    asked = parse(ScopeRequestIn, data)
    for pattern in asked.paths:
        check_pattern(pattern)
        claimed = wildcard_claims_protected(pattern)
        if claimed:
            raise ValueError(f"{pattern!r} claims protected paths ({claimed}) by a wildcard; name each file literally")
    return asked


def plan_json(plan: Plan) -> str:
    """A plan as people edit it."""
    return json.dumps(encode(plan), indent=2, ensure_ascii=False) + "\n"


def findings(review: ReviewIn) -> tuple[Finding, ...]:
    return tuple(Finding(f.severity, f.path, f.line, f.title, f.detail) for f in review.findings)


def schema(model: type[Wire]) -> dict[str, Any]:
    return model.model_json_schema()


# name of the result tool -> (model, description)
RESULTS: dict[str, tuple[type[Wire], str]] = {
    "propose_plan": (PlanIn, "Hand in the plan. This ends your work."),
    "ask_questions": (QuestionsIn, "Ask the human before planning, when the issue leaves something open that matters."),
    "report": (ReportIn, "Hand in your report when the assignment is done, or when you cannot go on. Ends your work."),
    "request_scope": (
        ScopeRequestIn,
        "Ask for more paths, all that you need at once, with the reason. You go on where you are when it is decided.",
    ),
    "give_verdict": (VerdictIn, "Accept the work, send it back with reasons, or say that only a human can decide."),
    "report_review": (ReviewIn, "Hand in the review. No findings is an answer too. Ends your work."),
    "write_synthesis": (SynthesisIn, "Hand in the summary of the whole run. Ends your work."),
}
PURPOSE_RESULTS: dict[str, tuple[str, ...]] = {
    "plan": ("propose_plan", "ask_questions"),
    "work": ("report", "request_scope"),
    "verdict": ("give_verdict",),
    "review": ("report_review",),
    "synthesis": ("write_synthesis",),
}
