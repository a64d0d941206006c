"""What a wider scope does to the plan: who waits for whom from then on.

A worker that asks for more paths is given them in a new version of the plan. Disjointness is decided anew: whoever else
could be at work on the same ground is put in order with it. One that has not started yet comes after the worker that
asked; one that has started, or is merged already, comes before it, and then the worker begins again on its result.
"""

from __future__ import annotations

from dataclasses import replace

from orchgit.core import events as e
from orchgit.core.pattern import check_pattern, literal_path
from orchgit.core.plan import Plan, order, upstream
from orchgit.core.run import Run, Work
from orchgit.core.scope import Scope, overlap


def amended(run: Run, name: str, patterns: tuple[str, ...]) -> tuple[Plan, tuple[str, ...]]:
    """The plan with these patterns added to the scope of `name`, and the assignments that it now has to wait for.

    Raises PatternError. Whether the plan can be run is for `problems` to say.
    """
    assert run.plan is not None
    spec = run.plan.get(name)
    wider = replace(spec, allow=tuple(dict.fromkeys((*spec.allow, *patterns))))
    above = upstream(run.plan)
    changed = {name: wider}
    waits: list[str] = []
    for other in order(run.plan):
        if other.id == name or other.id in above[name] or name in above[other.id]:
            continue
        if overlap(wider.scope, other.scope) is None:
            continue
        if run.works[other.id].attempts:
            waits.append(other.id)
        else:
            changed[other.id] = replace(other, depends_on=(*other.depends_on, name))
    changed[name] = replace(wider, depends_on=(*wider.depends_on, *waits))
    return replace(run.plan, assignments=tuple(changed.get(a.id, a) for a in run.plan.assignments)), tuple(waits)


def covered(run: Run, work: Work) -> bool:
    """Whether the configuration grants all that was asked: each pattern is listed, or one path that the list allows."""
    listed = next((g.allow for g in run.settings.grants if g.worker == work.spec.worker), ())
    for pattern in work.asked:
        check_pattern(pattern)
        path = literal_path(pattern)
        if pattern not in listed and (path is None or not Scope(listed).allows(path)):
            return False
    return bool(work.asked)


def amendment(run: Run, name: str) -> e.PlanAmended:
    """The decision that follows from what was granted to `name`."""
    plan, waits = amended(run, name, run.works[name].granted)
    before = {a.id: a for a in run.plan.assignments} if run.plan else {}
    changed = tuple(a for a in plan.assignments if a != before[a.id])
    return e.PlanAmended(
        name, run.works[name].attempt, run.plan_version + 1, e.plan_digest(plan), changed, bool(waits)
    )  # fmt: skip
