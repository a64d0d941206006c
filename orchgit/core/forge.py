"""What of a run is to stand on the forge, and in which order it gets there.

`wanted` names all that should be there by now; what is there already is in `run.outside.posted`; the first that is not
is the next write. One write at a time, each a request with a key, so that whoever resumes finds it and does not repeat
it. Words are made where they are sent (forge_text.py); here stands only what they are made of.

A write that failed is not tried again before the next occasion (a human's word, a merge, a resume). Notes are a
courtesy: nothing waits for them. What pull requests need is waited for, by a blocker that a resume answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from orchgit.core import events as e
from orchgit.core.plan import order
from orchgit.core.review import Finding, owners
from orchgit.core.run import Posted, Run, Work, branch
from orchgit.core.scope import overlap

LAST = "integration"  # whose pull request is the last one: all of it, into the base
CONTEXTS = ("scope", "checks", "review")


def short(*parts: object) -> str:
    """Names what something is made from."""
    return hashlib.sha256(e.dumps([str(p) for p in parts]).encode()).hexdigest()[:12]


def due(run: Run, step: e.Body | None) -> e.ForgeRequested | None:
    """The next write on the forge. `step` is what the run would do next: how it ends is told before it has ended."""
    if run.settings.forge == "local" or any(isinstance(p.body, e.ForgeRequested) for p in run.pending.values()):
        return None
    for write in (*_notes(run, step), *_needed(run)):
        if not done(run, write) and write.key not in run.outside.failed:
            return write
    return None


def done(run: Run, write: e.ForgeRequested) -> bool:
    there = run.outside.posted.get(write.key)
    return there is not None and there.request == write


def needs(run: Run, key: str) -> bool:
    """Whether the run cannot go on without the write of this key."""
    return any(w.key == key for w in _needed(run))


def awaited(run: Run) -> tuple[str, ...]:
    """Whose pull requests a human's approval is waited for."""
    if run.busy or run.open_blockers("forge") or any(not done(run, w) for w in _needed(run)):
        return ()
    if run.settings.review == "worker" and run.phase == "executing":
        return tuple(n for n, w in run.works.items() if held(run, w))
    if run.phase != "shipping" or not run.by_pr or run.shipped:
        return ()
    if _gated(run):
        left = tuple(n for n in run.works if not approved(run, n))
        if left:
            return left
    return () if approved(run, LAST) else (LAST,)


def listens(run: Run) -> tuple[str, ...]:
    """On whose pull requests a human's word counts now."""
    opened = [n for n, there in changes(run) if there.request.head == head(run, n)]
    if run.phase == "executing":
        return tuple(n for n in opened if n != LAST and held(run, run.works[n]))
    if run.phase != "shipping" or not run.by_pr or run.shipped:
        return ()
    if LAST in opened:
        return (LAST,)
    return tuple(opened) if _gated(run) and not all(approved(run, n) for n in run.works) else ()


def changes(run: Run) -> list[tuple[str, Posted]]:
    """The pull requests that were opened, by whose they are."""
    posted = run.outside.posted
    return [(n, posted[f"change/{n}"]) for n in (*run.works, LAST) if f"change/{n}" in posted]


def head(run: Run, name: str) -> str:
    """The commit that a pull request is to be of."""
    return run.tip if name == LAST else run.works[name].head


def held(run: Run, work: Work) -> bool:
    """Whether its merge waits for a human's approval of its pull request."""
    if run.settings.review != "worker" or run.settings.ship != "pr" or run.settings.forge == "local":
        return False
    return work.stage == "accepted" and not approved(run, work.spec.id)


def approved(run: Run, name: str) -> bool:
    return run.outside.approved.get(name) == head(run, name)


def _gated(run: Run) -> bool:
    """Whether approval of the workers' pull requests is still to come at the end; else each came before its merge."""
    return run.settings.review == "ship"


def alone(run: Run, name: str) -> bool:
    """Whether a later attempt can go on from the worker's own branch: nobody else has worked on its ground."""
    mine = run.works[name].spec.scope
    return all(n == name or overlap(mine, w.spec.scope) is None for n, w in run.works.items())


# -- words on the issue ----------------------------------------------------------------------------------


def _notes(run: Run, step: e.Body | None) -> Iterator[e.ForgeRequested]:
    settings = run.settings
    if not settings.issue or not (settings.plan == "comment" or settings.ship == "pr" or run.by_pr):
        return
    asks = settings.plan == "comment" and settings.approval == "human"
    if asks and run.phase == "asking":
        yield e.ForgeRequested("note", f"questions/{run.plan_answers}", "questions", short(*run.questions))
    if asks and run.phase == "approving" and run.proposal:
        yield e.ForgeRequested("note", f"plan/{run.proposal.version}", "plan", run.proposal.digest)
    if run.works:
        yield e.ForgeRequested("note", "progress", "progress", state=_progress(run, step))


def ending(run: Run, step: e.Body | None) -> str:
    """The phase, or the one that this step would end in."""
    match step:
        case e.RunCompleted():
            return "completed"
        case e.RunAborted():
            return "aborted"
    return run.phase


def _progress(run: Run, step: e.Body | None) -> str:
    """What the note on the issue shows, in short: it is edited when that is another, and not at every event."""
    works = [(n, stage(w), w.attempt, approved(run, n)) for n, w in run.works.items()]
    findings = [(f.id, f.state) for f in run.findings]
    blockers = [b.id for b in run.open_blockers() if b.about != "forge"]
    changes = [k for k in run.outside.posted if k.startswith("change/")]
    made = short(works, findings, blockers, changes, run.shipped, run.plan_digest)
    return f"{ending(run, step)} {made}"


def stage(work: Work) -> str:
    """Where an assignment stands, to somebody who looks now and then."""
    if work.stage in ("waiting", "again", "accepted", "merged"):
        return work.stage
    return "at work" if work.stage not in ("gated", "checking", "checked", "judging", "rechecking") else "verifying"


# -- pull requests ---------------------------------------------------------------------------------------


def _needed(run: Run) -> Iterator[e.ForgeRequested]:
    if run.open_blockers("forge") or run.plan is None or run.started is None:
        return
    if run.phase == "executing" and run.settings.review == "worker" and run.settings.ship == "pr":
        yield from _one_by_one(run)
    elif run.phase == "shipping" and run.by_pr and run.synthesis:
        yield from _shipping(run)


def everything(run: Run) -> Iterator[e.ForgeRequested]:
    """All that shipping writes, approved or not: for whoever wants to see it first."""
    yield from _opened(run, tuple(a.id for a in order(run.plan)) if run.plan else (), stacked=_gated(run))
    yield from _merged(run)
    yield from _last(run, sure=True)


def _shipping(run: Run) -> Iterator[e.ForgeRequested]:
    assert run.plan is not None
    if _gated(run):
        names = tuple(a.id for a in order(run.plan))
        yield from _opened(run, names, stacked=True)
        if not all(approved(run, n) for n in names):
            return
    yield from _merged(run)
    yield from _last(run)


def _one_by_one(run: Run) -> Iterator[e.ForgeRequested]:
    """Each is opened when a verdict accepted it, and its merge is pushed when it was approved and merged."""
    assert run.started is not None
    yield _push_tip(run.started.base)
    for _, commit in run.landed:
        yield _push_tip(commit)
    yield from _opened(run, tuple(n for n, w in run.works.items() if w.stage == "accepted"), stacked=False)


def _push_tip(commit: str) -> e.ForgeRequested:
    return e.ForgeRequested("push", f"push/{LAST}/{commit[:12]}", LAST, commit)


def _opened(run: Run, names: tuple[str, ...], *, stacked: bool) -> Iterator[e.ForgeRequested]:
    """A pull request each. The forge refuses one with nothing in it, so all are opened while the integration branch
    there is still where the run began."""
    assert run.started is not None
    if not names:
        return
    heads = short(*(f"{n} {run.works[n].head}" for n in names))
    yield _push_tip(run.started.base)
    yield e.ForgeRequested("push", f"push/workers/{heads}", "workers", state=" ".join(names))
    for name in names:
        work = run.works[name]
        yield e.ForgeRequested("change", f"change/{name}", name, work.head, _base(run, work, stacked=stacked))
    for name in names:
        for context in CONTEXTS if stacked else CONTEXTS[:2]:
            yield _status(run, name, run.works[name].head, context)
        yield from _review(run, name, run.works[name].head)


def _base(run: Run, work: Work, *, stacked: bool) -> str:
    """Where its pull request goes: on the one that it was built on, if that is one, so that it shows its own work."""
    above = work.spec.depends_on
    ref = branch(run.id, above[0]) if stacked and len(above) == 1 else run.ref
    return ref.removeprefix("refs/heads/")


def _status(run: Run, about: str, commit: str, context: str) -> e.ForgeRequested:
    return e.ForgeRequested("status", f"status/{about}/{context}", about, commit, context, "success")


def _review(run: Run, about: str, commit: str) -> Iterator[e.ForgeRequested]:
    """What reviewers found and a human let stand: by whose pull request it is."""
    found = findings(run, about)
    if found:
        ids = short(*(f"{f.id} {f.state}" for f in found))
        yield e.ForgeRequested("review", f"review/{about}/{ids}", about, commit)


def findings(run: Run, about: str) -> tuple[Finding, ...]:
    """Those that a reader of this pull request should see; of the last one those that are nobody's alone."""
    assert run.plan is not None
    kept = []
    for finding in run.findings:
        mine = owners(finding, run.plan)
        whose = mine[0] if len(mine) == 1 else LAST
        if finding.state != "fixed" and whose == about:
            kept.append(finding)
    return tuple(kept)


def _merged(run: Run) -> Iterator[e.ForgeRequested]:
    """The merges that were verified here are pushed, in their order; the forge sees what is merged by what they hold.

    An assignment is there when its last merge is; one that was built on others, not before they are.
    """
    assert run.plan is not None
    last = {name: n for n, (name, _) in enumerate(run.landed)}
    there: dict[str, int] = {}
    for a in order(run.plan):
        there[a.id] = max([last[a.id], *(there[d] for d in a.depends_on)])
    into = run.ref.removeprefix("refs/heads/")
    for point in sorted(set(there.values())):
        for name in (n for n, at in there.items() if at == point):
            # Before what it was stacked on may be deleted: a forge closes what is left without its base.
            if _gated(run) and _base(run, run.works[name], stacked=True) != into:
                yield e.ForgeRequested("retarget", f"retarget/{name}", name, base=into)
        yield _push_tip(run.landed[point][1])
    yield _push_tip(run.tip)


def _last(run: Run, *, sure: bool = False) -> Iterator[e.ForgeRequested]:
    assert run.started is not None
    base = run.started.base_ref.removeprefix("refs/heads/")
    yield e.ForgeRequested("change", f"change/{LAST}", LAST, run.tip, base)
    for context in CONTEXTS:
        yield _status(run, LAST, run.tip, context)
    yield from _review(run, LAST, run.tip)
    if not sure and not approved(run, LAST):
        return
    if not run.shipped:
        yield e.ForgeRequested("merge", f"merge/{run.tip[:12]}", LAST, run.tip, base)
    if run.settings.issue:
        yield e.ForgeRequested("close", "close", "issue")
