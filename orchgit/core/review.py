"""What a reviewer found, and what follows from it: which findings block, and who must fix them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from orchgit.core.plan import Plan

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "info")
MAX_FINDINGS = 30  # of one report; a review is one event, and one event is one line


@dataclass(frozen=True)
class Finding:
    """`id` is the engine's (F1, F2, …) and stays the same for as long as the finding is open; "" before that."""

    severity: Severity
    path: str
    line: int  # 0: the file as a whole
    title: str
    detail: str = ""
    id: str = ""
    reviewer: str = ""
    state: Literal["open", "fixed", "waived"] = "open"
    owner: str = ""  # an assignment, where a human named one; else the scopes decide

    def closed(self, state: Literal["fixed", "waived"]) -> Finding:
        return replace(self, state=state)


def blocks(finding: Finding, threshold: Severity) -> bool:
    """Whether an open finding of this severity keeps the run from completing."""
    return finding.state == "open" and SEVERITIES.index(finding.severity) <= SEVERITIES.index(threshold)


def same(new: Finding, old: Finding) -> bool:
    """Whether a reviewer says again what is open already. The same words about another line, or worse, are news."""
    said_again = (new.path, new.line, new.title.casefold()) == (old.path, old.line, old.title.casefold())
    return said_again and SEVERITIES.index(new.severity) >= SEVERITIES.index(old.severity)


def owners(finding: Finding, plan: Plan) -> tuple[str, ...]:
    """The assignments whose scope allows the finding's path. Exactly one can be told to fix it."""
    if finding.owner:
        return (finding.owner,)
    if not finding.path:
        return ()
    path = finding.path.encode("utf-8", "surrogateescape")
    return tuple(a.id for a in plan.assignments if a.scope.allows(path))
