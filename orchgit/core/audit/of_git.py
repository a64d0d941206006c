"""Laws of git against the log: which commits there are, by whom, with which content, and where the branches stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchgit.core import events as e
from orchgit.core.audit.model import (
    Changed,
    Facts,
    Found,
    Law,
    Note,
    Reading,
    Said,
    attested,
    first_parents,
    merge_trailers,
    named,
    trailers,
)
from orchgit.core.plan import printable
from orchgit.core.state import Run, branch

ENGINE = "orchgit <orchgit@localhost>"
FILES = ("", "100644", "100755")
LINK, GITLINK = "120000", "160000"


def merges(reading: Reading) -> Iterator[tuple[e.Event, e.MergePrepared, e.MergeRequested, bool]]:
    """Each merge asked for, with the event that prepared it, and whether it was done."""
    done = {ev.body.new for ev in reading.events if isinstance(ev.body, e.MergeDone)}
    prepared: e.Event | None = None
    for event in reading.events:
        if isinstance(event.body, e.MergePrepared):
            prepared = event
        elif isinstance(event.body, e.MergeRequested) and prepared and isinstance(prepared.body, e.MergePrepared):
            yield prepared, prepared.body, event.body, event.body.new in done


def worker(name: str) -> str:
    """How the engine signs what a worker made."""
    return f"{name} <{name}@orchgit.invalid>"


def _merge_commits(reading: Reading, facts: Facts) -> Iterator[Said]:
    for event, prepared, request, done in merges(reading):
        if not done:
            continue
        where = f"event {event.seq}, commit {request.new}"
        commit = facts.commit(request.new)
        if commit is None:
            yield Found(where, "the merge commit does not exist")
            continue
        parents = (prepared.old,) if prepared.land == "seal" else (prepared.old, prepared.commit)
        if commit.parents != parents:
            yield Found(where, f"its parents are {', '.join(commit.parents)}; the log says {', '.join(parents)}")
        if commit.tree != prepared.tree:
            yield Found(where, f"its tree is {commit.tree}; the log says {prepared.tree} was verified")


def _trailers(reading: Reading, facts: Facts) -> Iterator[Said]:
    for event, prepared, request, done in merges(reading):
        commit = facts.commit(request.new) if done else None
        if commit is None:
            continue  # said by git.merges
        said = trailers(commit.message)
        for key, value in merge_trailers(
            reading.run.id, prepared, event, reading.before[event.seq].plan_digest
        ).items():
            if said.get(key) != [value]:
                where = f"event {event.seq}, commit {request.new}"
                yield Found(where, f"its {key} is {', '.join(said.get(key, ['missing']))}; the log says {value}")


def _merge_trees(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The merged tree is the tip's with the worker's entries, and nothing else."""
    for event, prepared, request, done in merges(reading):
        if not done:
            continue
        before = reading.before[event.seq]
        if prepared.land == "seal":
            old = facts.commit(prepared.old)
            tree = old.tree if old else None
        else:
            base = before.started.base if before.started else ""
            base = before.works[prepared.assignment].base if prepared.land == "merge" else base
            tree = facts.merge_result(base, prepared.commit, prepared.old)
        if tree != prepared.tree:
            yield Found(
                f"event {event.seq}, commit {request.new}",
                f"the tip with the work of {prepared.assignment or 'the run'} is {tree or 'not to be made'}, "
                f"not {prepared.tree}: something was slipped in",
            )


def _landed(reading: Reading, facts: Facts) -> Iterator[tuple[str, e.MergePrepared, Run, list[Changed] | None]]:
    """Each merge and seal that was done: where, what, the run before it, and what it changed."""
    for event, prepared, request, done in merges(reading):
        old, new = facts.commit(prepared.old), facts.commit(request.new)
        if done and prepared.land != "ship" and old and new:  # a missing commit: said by git.merges
            where = f"event {event.seq}, commit {request.new}"
            yield where, prepared, reading.before[event.seq], facts.changed(old.tree, new.tree)


def _in_scope(reading: Reading, facts: Facts) -> Iterator[Said]:
    """By the plan that was in force when the merge was prepared."""
    for where, prepared, before, changed in _landed(reading, facts):
        if changed is None:
            yield Found(where, "a tree of this merge is missing")
            continue
        scope = before.works[prepared.assignment].spec.scope if prepared.assignment else None
        for change in changed:
            why = scope.why_not(change.path) if scope else "a seal changes nothing"
            if why:
                yield Found(where, f"{printable(change.path)} landed for {prepared.assignment or 'the seal'}: {why}")


def _modes(reading: Reading, facts: Facts) -> Iterator[Said]:
    for where, prepared, before, changed in _landed(reading, facts):
        links = bool(prepared.assignment) and before.works[prepared.assignment].spec.symlinks
        plain = (*FILES, LINK) if links else FILES
        for change in changed or ():
            if change.new_mode not in plain or change.old_mode == GITLINK:
                became = f"{change.old_mode or 'nothing'} became {change.new_mode or 'nothing'}"
                yield Found(where, f"{printable(change.path)}: {became}, which is no plain file")


def _tip(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The branch is where the log left it: nobody moved it, by force or otherwise."""
    run = reading.run
    if run.started is None or reading.unread:
        return
    at = facts.ref(run.ref)
    if at is None:
        if run.tip != run.started.base and not run.over:
            yield Found(run.ref, f"the branch is gone; the log has it at {run.tip}")
    elif at not in (run.tip, _asked(reading)):
        yield Found(f"commit {at}", f"{run.ref} points here; the log has it at {run.tip}")


def _asked(reading: Reading) -> str:
    """Where the branch was about to be moved: an engine that died right after has not said so yet; resume will."""
    return next((p.body.new for p in reading.run.pending.values() if isinstance(p.body, e.MergeRequested)), "")


def _history(reading: Reading, facts: Facts) -> Iterator[Said]:
    """The integration branch is the base and the recorded merges, in this order, and nothing else."""
    run = reading.run
    if run.started is None or reading.unread:
        return  # what a broken log no longer says is not held against git: the break itself is
    merged = [r.new for _, p, r, done in merges(reading) if done and p.land != "ship"]
    at = facts.ref(run.ref) or run.tip
    if at == _asked(reading):
        at = run.tip
    line = first_parents(facts, at, run.started.base)
    if line is None:
        yield Found(f"commit {at}", f"{run.ref} does not descend from the base {run.started.base}")
        return
    for oid in line:
        if oid not in merged:
            named = attested(facts.commit(oid))
            if named and named[0] >= len(reading.events):
                last = len(reading.events) - 1
                what = f"it attests event {named[0]}, and the log ends at {last}: its tail was cut off"
            else:
                what = "it is on the integration branch, and the log knows nothing of it"
            yield Found(f"commit {oid}", what)
    for oid in merged:
        if oid not in line:
            yield Found(f"commit {oid}", "the log has it merged, and it is not on the integration branch")
    if [oid for oid in line if oid in merged] != [oid for oid in merged if oid in line]:
        yield Found(f"commit {at}", "the merges are not in the order of the log")


def _branches(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Each worker's branch, where it still is, stands where the engine left it."""
    pending = {getattr(p.body, "assignment", "") for p in reading.run.pending.values()}
    for name, work in reading.run.works.items():
        at = facts.ref(branch(reading.run.id, name))
        expected = work.head or (work.attempts[-1].start if work.attempts else "")
        if at is not None and expected and at != expected and name not in pending and work.stage == "merged":
            yield Found(f"commit {at}", f"the branch of {name} points here; the log has it at {expected}")


def _gated(reading: Reading) -> Iterator[tuple[e.Event, e.GatePassed, e.Event, str, str]]:
    """Each commit that passed the gate: the event, its request, the worker, and the commit the attempt began from."""
    asked = {ev.seq: ev for ev in reading.events if isinstance(ev.body, e.GateRequested)}
    for event, before in zip(reading.events, reading.before, strict=True):
        if isinstance(event.body, e.GatePassed) and event.cause in asked:
            work = before.works[event.body.assignment]
            yield event, event.body, asked[event.cause], work.spec.worker, work.attempts[-1].start


def _work(reading: Reading, facts: Facts) -> Iterator[Said]:
    """A gated commit is one step from where its attempt began, with the tree that passed."""
    missing = 0
    for event, body, _, _, start in _gated(reading):
        commit = facts.commit(body.commit)
        if commit is None:
            missing += 1
        elif commit.parents != (start,):
            where = f"event {event.seq}, commit {body.commit}"
            yield Found(where, f"its parents are {', '.join(commit.parents)}; its attempt began at {start}")
        elif commit.tree != body.tree:
            yield Found(f"event {event.seq}, commit {body.commit}", f"its tree is {commit.tree}, {body.tree} was gated")
    if missing:
        yield Note(f"{missing} gated commits are not here: of branches that were not fetched, or were cleaned")


def _identity(reading: Reading, facts: Facts) -> Iterator[Said]:
    """Who made a commit, and when, is what the log says: workers author what they made, the engine commits it all."""

    def wrong(oid: str, author: str, event: e.Event) -> Iterator[Said]:
        commit = facts.commit(oid)
        if commit is None:
            return
        where = f"commit {oid}"
        if commit.author != author:
            yield Found(where, f"its author is {commit.author}; the log says {author}")
        if commit.committer != ENGINE:
            yield Found(where, f"its committer is {commit.committer}, not the engine")
        if commit.time != event.time[:19]:
            yield Found(
                where, f"it is of {commit.time}; event {event.seq}, which it was made for, of {event.time[:19]}"
            )

    for _, body, asked, name, _ in _gated(reading):
        yield from wrong(body.commit, body.author or worker(name), asked)
    for event, _, request, done in merges(reading):
        if done:
            yield from wrong(request.new, ENGINE, event)


def known(reading: Reading) -> dict[str, str]:
    """Every commit that the run may have made -> what it is."""
    found: dict[str, str] = {}
    for event in reading.events:
        match event.body:
            case e.CellMade(start=start):
                found[start] = "where an attempt began"
            case e.GatePassed(commit=commit):
                found[commit] = "gated work"
            case e.MergeBuilt(new=new):
                found[new] = "a merge"
    return found


def _commits(reading: Reading, facts: Facts) -> Iterator[Said]:
    """All that the branches reach beyond the base, through every parent, was made by the engine for a worker."""
    run = reading.run
    if run.started is None or reading.unread:
        return
    ours = known(reading)
    # The engine may have died between making one and saying so.
    unsaid = {getattr(p.body, "assignment", "") for p in run.pending.values()}
    names = [n for n in run.works if n not in unsaid]
    tips = [facts.ref(run.ref), *(facts.ref(branch(run.id, n)) for n in names)]
    roles = {m.name: m.role for m in run.started.roster}
    todo, seen = [t for t in tips if t], {run.started.base}
    if _asked(reading):
        ours[_asked(reading)] = "a merge"
    while todo:
        oid = todo.pop()
        if oid in seen:
            continue
        seen.add(oid)
        commit = facts.commit(oid)
        if oid not in ours:
            author = commit.author if commit else ""
            role = roles.get(author.partition(" <")[0], "")
            by = f"by {author}" + (f", whose role is {role}" if role else "")
            yield Found(f"commit {oid}", f"{by}: a branch of the run reaches it, and the log knows nothing of it")
        elif commit is not None:
            todo += commit.parents


def _objects(reading: Reading, facts: Facts) -> Iterator[Said]:
    """What was merged is all here. What was set aside may have been cleaned away since."""
    needed: dict[str, str] = {}
    aside: set[str] = set()
    for event in reading.events:
        where = f"event {event.seq}"
        match event.body:
            case e.RunStarted(base=base):
                needed[base] = where
            case e.GatePassed() | e.GateFailed() as body:
                aside.add(body.salvage)
            case e.SalvageKept(commit=commit):
                aside.add(commit)
    for event, prepared, request, done in merges(reading):
        if done:
            needed |= dict.fromkeys((request.new, prepared.commit, prepared.old, prepared.tree), f"event {event.seq}")
    for oid, where in needed.items():
        if not facts.has(oid):
            yield Found(where, f"{oid} is not in the repository")
    gone = sum(1 for oid in aside if oid and not facts.has(oid))
    if gone:
        yield Note(f"{gone} commits that were set aside are not here: salvage is not fetched, and can be cleaned")


def _tips(reading: Reading, facts: Facts) -> list[str]:
    """What the run has made, as far as it is here."""
    merged = [r.new for _, _, r, done in merges(reading) if done]
    return [oid for oid in dict.fromkeys((*merged, *known(reading))) if facts.has(oid)]


def _fsck(reading: Reading, facts: Facts) -> Iterator[Said]:
    if reading.run.started:
        for said in facts.damage(_tips(reading, facts), reading.run.started.base):
            yield Found("git", said)


def _replaced(reading: Reading, facts: Facts) -> Iterator[Said]:
    if reading.run.started:
        for said in facts.replaced(_tips(reading, facts), reading.run.started.base):
            yield Found("git", said)


def _tag(reading: Reading, facts: Facts) -> Iterator[Said]:
    """A tag of another's making may say anything; one that names an event is held to it."""
    tag = facts.sealed()
    if tag is None or reading.unread:
        return
    commit, message = tag
    said, where = named(message), f"refs/tags/orchgit/{reading.run.id}"
    if said is None:
        yield Note(f"{where} names no event of the log: it is not the engine's")
        return
    ended = [ev for ev in reading.events if isinstance(ev.body, e.RunCompleted) and (ev.seq, ev.hash) == said]
    if not ended:
        yield Found(where, f"it names event {said[0]}, and with that this run did not end")
    elif isinstance(ended[0].body, e.RunCompleted) and ended[0].body.tip != commit:
        yield Found(where, f"it is on {commit}, and the run ended at {ended[0].body.tip}")


def _law(name: str, sentence: str, check: Callable[[Reading, Facts], Iterator[Said]]) -> Law:
    return Law(f"git.{name}", sentence, check, needs_git=True)


LAWS = (
    _law("objects", "Everything that was merged is in the repository.", _objects),
    _law("fsck", "Every object of the run is whole, and what its name says.", _fsck),
    _law("replace", "No replace ref and no graft shows other objects in the place of the run's.", _replaced),
    _law("merges", "Every merge commit has the parents and the tree that the log has.", _merge_commits),
    _law("trailers", "Every merge commit names its run, plan and event, and no other.", _trailers),
    _law("trees", "Every merged tree is the tip with the worker's entries and nothing else.", _merge_trees),
    _law("scope", "Every landed path is in the scope of its assignment.", _in_scope),
    _law("modes", "Only plain files landed, and links where the plan allows them.", _modes),
    _law("work", "Every gated commit is one step from where its attempt began.", _work),
    _law("identity", "Every commit has the author, committer and time that the log has.", _identity),
    _law("commits", "The branches hold no commit but gated work and merges of the engine.", _commits),
    _law("tip", "The integration branch stands where the log has it.", _tip),
    _law("history", "The integration branch holds the recorded merges and nothing else.", _history),
    _law("branches", "Every worker's branch stands where the engine left it.", _branches),
    _law("tag", "The run's own tag, if there is one, is on the commit that it ended with.", _tag),
)
