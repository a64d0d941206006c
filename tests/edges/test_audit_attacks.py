"""The attack corpus: everything that can be done to a golden log, at every event and every field; and to its git.

Every attack on what a commit attests is caught. What cannot be caught is in docs/audit.md, and each has a test here
that shows it. A sample by default; with ORCHGIT_ALL=1 in the environment all of it, counted (`-s` prints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from orchgit.core import events as e
from orchgit.core.audit import anchors, chain, judge, read
from orchgit.core.codec import dumps
from tests.support.golden import Golden, Place, Remembered, edits, goldens, put, rechain, reseal, sample, verdict

each = pytest.mark.parametrize("golden", goldens(), ids=lambda g: g.name)


@pytest.fixture
def place(golden: Golden, tmp_path: Path) -> Iterator[Place]:
    made = Place(golden, golden.unpack(tmp_path))
    yield made
    made.door.close()


# -- the log ---------------------------------------------------------------------------------------------

Attack = tuple[str, int, Callable[[], list[bytes]]]  # (what it is, the first event that it changes, the log after it)


def plain_attacks(golden: Golden) -> Iterator[Attack]:
    """Of somebody who can write to the file, and no more."""
    lines = golden.lines
    for n in range(len(lines)):
        yield "delete", n, lambda n=n: [*lines[:n], *lines[n + 1 :]]  # type: ignore[misc]
        yield "double", n + 1, lambda n=n: [*lines[: n + 1], *lines[n:]]  # type: ignore[misc]
        if n + 1 < len(lines):
            yield "swap", n, lambda n=n: [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]  # type: ignore[misc]
    for n, name, fields in edits(lines):
        yield f"edit {name}", n, lambda n=n, f=fields: [*lines[:n], dumps(f).encode(), *lines[n + 1 :]]  # type: ignore[misc]
        yield f"seal {name}", n + 1, lambda n=n, f=fields: [*lines[:n], reseal(f), *lines[n + 1 :]]  # type: ignore[misc]


def chained_attacks(golden: Golden) -> Iterator[Attack]:
    """Of the machine's owner, who mends all hashes after it."""
    lines = golden.lines
    for n in range(len(lines)):
        yield "delete", n, lambda n=n: rechain([*lines[:n], *lines[n + 1 :]], n)  # type: ignore[misc]
        yield "double", n + 1, lambda n=n: rechain([*lines[: n + 1], *lines[n:]], n + 1)  # type: ignore[misc]
        yield "cut", n, lambda n=n: lines[:n]  # type: ignore[misc]
        if n + 1 < len(lines):
            yield "swap", n, lambda n=n: rechain([*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]], n)  # type: ignore[misc]
    for n, name, fields in edits(lines):
        yield f"edit {name}", n, lambda n=n, f=fields: rechain([*lines[:n], reseal(f), *lines[n + 1 :]], n)  # type: ignore[misc]


@each
def test_a_touched_log_is_seen_in_its_chain(golden: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    """All but a last line that was sealed again: nothing follows it."""
    attacks = list(plain_attacks(golden))
    chosen = sample(attacks, 1500)
    for name, first, make in chosen:
        lines = make()
        good, wrong = chain(golden.run, lines)
        last = first >= len(golden.lines)
        if last and name.startswith("seal"):
            continue
        if name == "delete" and first == len(golden.lines) - 1:
            assert not wrong
            continue
        assert good <= first, (name, first, good)
        assert wrong, (name, first)
    with capsys.disabled():
        print(f"\n  {golden.name}: {len(chosen)} of {len(attacks)} attacks on the chain")


@each
def test_a_log_forged_with_care_is_seen_in_git(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is at or before the last event that a commit attests. Of the rest, some is seen all the same."""
    golden, facts = place.golden, Remembered(place.facts())
    attested = anchors(place.reading(), facts).here
    attacks = list(chained_attacks(golden))
    caught = beyond = seen = 0
    for name, first, make in sample(attacks, 24):
        result = judge(read(golden.run, make()), facts)
        if first <= attested:
            # A type of the future is refused without a judgement; everything else is a violation.
            told = {r.law for r in result if r.verdict == "violation"}
            assert told or (name.endswith(" type") and verdict(result) == "inconclusive"), (name, first)
            caught += 1
        else:
            beyond += 1
            seen += verdict(result) != "pass"
    with capsys.disabled():
        print(f"\n  {golden.name}: {caught} caught; of {beyond} in the unattested tail {seen} are seen too")


@each
def test_forged_lines_appended(place: Place) -> None:
    """No outcome, decision or request can be added to a run that is over; what can, can be added to any."""
    reading, facts = place.reading(), Remembered(place.facts())
    run = reading.run
    tip = run.tip
    bodies: list[tuple[e.Body, e.Actor]] = [
        (e.RunCompleted(tip), e.Actor("engine", "orchgit")),
        (e.MergeDone("merge", "api", "0" * 40), e.Actor("engine", "orchgit")),
        (e.PlanApproved(1, run.plan_digest, "human"), e.Actor("human", "ada")),
        (e.AssignmentStarted("api", 9, 1, tip, ()), e.Actor("engine", "orchgit")),
        (e.FindingWaived("F1", "so what"), e.Actor("human", "ada")),
        (e.ChecksPassed("api", 1, tip, tip, ()), e.Actor("engine", "orchgit")),
    ]
    for body, actor in bodies:
        event = e.seal(e.Draft(body, actor), run=run.id, seq=run.seq + 1, time=run.time, prev=run.hash)
        result = judge(read(run.id, [*place.golden.lines, event.line[:-1]]), facts)
        assert verdict(result) == "violation", body.type


# -- git -------------------------------------------------------------------------------------------------


@cache
def usual() -> Golden:
    """The one with refused and repeated attempts, a finding and its fix."""
    return next(g for g in goldens() if g.folder.name == "mended")


@pytest.fixture
def golden() -> Golden:
    return usual()


def ref_of(place: Place) -> str:
    return f"refs/heads/orchgit/{place.golden.run}/integration"


def commit_on(
    place: Place, parents: list[str], tree: str, message: str, who: str = "orchgit <orchgit@localhost>"
) -> str:
    more = [arg for parent in parents for arg in ("-p", parent)]
    return place.git_as(who, "commit-tree", *more, tree, stdin=message.encode())


def tip_of(place: Place) -> str:
    return place.git("rev-parse", ref_of(place))


def merges_of(place: Place) -> list[e.MergeRequested]:
    return [ev.body for ev in place.reading().events if isinstance(ev.body, e.MergeRequested)]


def words(place: Place, commit: str) -> str:
    return place.git("log", "-1", "--format=%B", commit)


def tree_with(place: Place, commit: str, path: str, content: bytes = b"evil\n", mode: str = "100644") -> str:
    """The tree of a commit with one more entry at a path, one directory deep or none."""
    blob = place.git("hash-object", "-w", "--stdin", stdin=content)
    folder, _, name = path.rpartition("/")
    listed = place.git("ls-tree", f"{commit}:{folder}" if folder else f"{commit}^{{tree}}").splitlines()
    kept = [line for line in listed if line.split("\t")[1] != name]
    tree = place.git("mktree", stdin="\n".join([*kept, f"{mode} blob {blob}\t{name}"]).encode() + b"\n")
    while folder:
        folder, _, name = folder.rpartition("/")
        listed = place.git("ls-tree", f"{commit}:{folder}" if folder else f"{commit}^{{tree}}").splitlines()
        kept = [line for line in listed if line.split("\t")[1] != name]
        tree = place.git("mktree", stdin="\n".join([*kept, f"040000 tree {tree}\t{name}"]).encode() + b"\n")
    return tree


def an_evil_merge(place: Place) -> set[str]:
    """A merge commit like the honest one, but for a file."""
    old = merges_of(place)[0]
    made = commit_on(place, place.git("log", "-1", "--format=%P", old.new).split(),
                     tree_with(place, old.new, "src/api/evil.py"), words(place, old.new))  # fmt: skip
    place.git("update-ref", ref_of(place), made)
    return {"git.tip", "git.history", "git.commits"}


def an_extra_commit(place: Place) -> set[str]:
    made = commit_on(place, [tip_of(place)], f"{tip_of(place)}^{{tree}}", "just a small fix", "Ada <ada@example.org>")
    place.git("update-ref", ref_of(place), made)
    return {"git.tip", "git.history", "git.commits"}


def an_extra_commit_below(place: Place) -> set[str]:
    """On a worker's branch, merged as a second parent only."""
    branch = f"refs/heads/orchgit/{place.golden.run}/docs"
    at = place.git("rev-parse", branch)
    place.git("update-ref", branch, commit_on(place, [at], f"{at}^{{tree}}", "more"))
    return {"git.branches", "git.commits"}


def a_commit_of_the_reviewer(place: Place) -> set[str]:
    who = "security-reviewer <security-reviewer@orchgit.invalid>"
    made = commit_on(place, [tip_of(place)], tree_with(place, tip_of(place), "src/api/billing.py"), "mended", who)
    place.git("update-ref", ref_of(place), made)
    return {"git.tip", "git.history", "git.commits"}


def a_commit_of_the_orchestrator(place: Place) -> set[str]:
    started = place.reading().run.started
    assert started is not None
    name = next(m.name for m in started.roster if m.role == "orchestrator")
    made = commit_on(place, [tip_of(place)], tree_with(place, tip_of(place), "src/api/x.py"), "x", f"{name} <{name}@x>")
    place.git("update-ref", ref_of(place), made)
    assert "whose role is orchestrator" in str(place.results()["git.commits"].found)
    return {"git.tip", "git.history", "git.commits"}


def an_amended_merge(place: Place) -> set[str]:
    old = merges_of(place)[-1].new
    made = commit_on(
        place, place.git("log", "-1", "--format=%P", old).split(), f"{old}^{{tree}}", words(place, old) + "!"
    )
    place.git("update-ref", ref_of(place), made)
    return {"git.tip", "git.history", "git.commits"}


def a_forced_ref(place: Place) -> set[str]:
    place.git("update-ref", ref_of(place), f"{tip_of(place)}~1")
    return {"git.tip", "git.history"}


def another_history(place: Place) -> set[str]:
    made = commit_on(place, [], f"{tip_of(place)}^{{tree}}", words(place, tip_of(place)))
    place.git("update-ref", ref_of(place), made)
    return {"git.tip", "git.history", "git.commits"}


def a_replace_ref(place: Place) -> set[str]:
    old = merges_of(place)[0].new
    evil = commit_on(place, place.git("log", "-1", "--format=%P", old).split(), tree_with(place, old, "evil"), "x")
    place.git("replace", old, evil)
    return {"git.replace"}


def a_replaced_blob(place: Place) -> set[str]:
    old = place.git("rev-parse", f"{tip_of(place)}:src/api/billing.py")
    place.git("replace", old, place.git("hash-object", "-w", "--stdin", stdin=b"evil\n"))
    return {"git.replace"}


def a_graft(place: Place) -> set[str]:
    (place.common / "info").mkdir(exist_ok=True)
    (place.common / "info" / "grafts").write_text(f"{merges_of(place)[0].new}\n")
    return {"git.replace"}


def loose(place: Place) -> None:
    """Every object a file of its own."""
    for pack in (place.common / "objects" / "pack").glob("*.pack"):
        moved = place.common / pack.name
        pack.rename(moved)
        for other in (place.common / "objects" / "pack").glob(f"{pack.stem}.*"):
            other.unlink()
        place.git("unpack-objects", "-q", stdin=moved.read_bytes())


def a_missing(what: str) -> Callable[[Place], set[str]]:
    def attack(place: Place) -> set[str]:
        loose(place)
        merge = merges_of(place)[0].new
        oid = place.git(
            "rev-parse", {"commit": merge, "tree": f"{merge}^{{tree}}"}.get(what, f"{merge}:src/api/billing.py")
        )
        (place.common / "objects" / oid[:2] / oid[2:]).unlink()
        return {"commit": {"git.objects", "git.merges", "git.history"}, "tree": {"git.objects", "git.fsck"},
                "blob": {"git.fsck"}}[what]  # fmt: skip

    attack.__name__ = f"a_missing_{what}"
    return attack


def another_object_under_its_name(place: Place) -> set[str]:
    loose(place)
    old = place.git("rev-parse", f"{tip_of(place)}:src/api/billing.py")
    new = place.git("hash-object", "-w", "--stdin", stdin=b"evil\n")
    path = place.common / "objects" / old[:2] / old[2:]
    path.unlink()
    path.write_bytes((place.common / "objects" / new[:2] / new[2:]).read_bytes())
    return {"git.fsck"}


def a_changed_blob(place: Place) -> set[str]:
    blob = next((place.directory / "blobs").iterdir())
    blob.write_bytes(blob.read_bytes() + b"x")
    return {"log.blobs"}


def a_deleted_blob(place: Place) -> set[str]:
    brief = next(ev.body.brief for ev in place.reading().events if isinstance(ev.body, e.AgentStarted))
    (place.directory / "blobs" / brief).unlink()
    return {"log.blobs"}


def published(place: Place, data: bytes, *parents: str, named: tuple[int, str] | None = None) -> str:
    """A checkpoint of these bytes, as a commit."""
    blob = place.git("hash-object", "-w", "--stdin", stdin=data)
    tree = place.git("mktree", stdin=f"100644 blob {blob}\tevents.jsonl\n".encode())
    last = e.envelope(data.split(b"\n")[-2])
    seq, digest = named or (last["seq"], last["hash"])
    said = f"Log\n\nOrchgit-Run: {place.golden.run}\nOrchgit-Log: {seq}@sha256:{digest}\n"
    return commit_on(place, list(parents), tree, said)


def a_forked_log(place: Place) -> set[str]:
    """A colleague fetched another one of the same run."""
    lines = place.golden.lines
    other = rechain(
        [*lines[:-1], reseal(put(e.envelope(lines[-1]), ("time",), "2031-01-01T00:00:00.000Z"))], len(lines) - 1
    )
    commit = published(place, b"".join(line + b"\n" for line in other))
    place.git("update-ref", f"refs/orchgit/forks/{place.golden.run}/{commit[:12]}", commit)
    return {"log.copies", "log.checkpoints"}


def a_log_cut_after_it_was_published(place: Place) -> set[str]:
    commit = published(place, place.golden.data)
    place.git("update-ref", f"refs/orchgit/remotes/origin/{place.golden.run}", commit)
    (place.directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in place.golden.lines[:-1]))
    return {"log.copies", "log.checkpoints"}


def a_tail_chained_again_after_it_was_published(place: Place) -> set[str]:
    """What nothing attests here: `a_tail_chained_again`. A copy elsewhere does."""
    commit = published(place, place.golden.data)
    place.git("update-ref", f"refs/orchgit/remotes/origin/{place.golden.run}", commit)
    tail_chained_again(place)
    return {"log.copies", "log.checkpoints"}


def a_checkpoint_of_a_shorter_log_after_a_longer(place: Place) -> set[str]:
    first = published(place, place.golden.data)
    cut = b"".join(line + b"\n" for line in place.golden.lines[:-3])
    place.git("update-ref", f"refs/orchgit/runs/{place.golden.run}", published(place, cut, first))
    return {"log.checkpoints"}


def a_checkpoint_that_names_another_event(place: Place) -> set[str]:
    commit = published(place, place.golden.data, named=(3, "0" * 64))
    place.git("update-ref", f"refs/orchgit/runs/{place.golden.run}", commit)
    return {"log.checkpoints"}


# -- log and git forged together: the log is rewritten so that it agrees with the forged commits


def rewritten(place: Place, change: dict[str, str], first: int) -> None:
    """Ids replaced in the log, and everything chained again from `first` on."""
    lines = place.golden.lines
    for old, new in change.items():
        lines = [line.replace(old.encode(), new.encode()) for line in lines]
    (place.directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in rechain(lines, first)))


def forged_merge(place: Place, path: str, mode: str = "100644") -> None:
    """The first merge with another tree, its commit and the log's story of it made to agree; cut after it."""
    reading = place.reading()
    prepared = next(ev for ev in reading.events if isinstance(ev.body, e.MergePrepared))
    done = next(ev for ev in reading.events if isinstance(ev.body, e.MergeDone))
    assert isinstance(prepared.body, e.MergePrepared)
    assert isinstance(done.body, e.MergeDone)
    old_tree, old = prepared.body.tree, done.body.new
    tree = tree_with(place, old, path, mode=mode)
    lines = [line.replace(old_tree.encode(), tree.encode()) for line in place.golden.lines[: done.seq + 1]]
    first = next(n for n, line in enumerate(lines) if tree.encode() in line)
    lines = rechain(lines, first)
    hashed = e.envelope(lines[prepared.seq])["hash"]
    parents = place.git("log", "-1", "--format=%P", old).split()
    made = commit_on(place, parents, tree, words(place, old).replace(prepared.hash, hashed))
    lines = rechain([line.replace(old.encode(), made.encode()) for line in lines], first)
    (place.directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    place.git("update-ref", ref_of(place), made)


def a_file_slipped_into_scope(place: Place) -> set[str]:
    forged_merge(place, "src/api/evil.py")
    return {"git.trees"}


def a_file_out_of_scope(place: Place) -> set[str]:
    forged_merge(place, "README.md")
    return {"git.trees", "git.scope"}


def a_link_for_a_file(place: Place) -> set[str]:
    forged_merge(place, "src/api/routes.py", "120000")
    return {"git.trees", "git.modes"}


def a_mode_out_of_scope(place: Place) -> set[str]:
    forged_merge(place, "README.md", "100755")
    return {"git.trees", "git.scope"}


def stripped_trailers(place: Place) -> set[str]:
    """The last merge without them, and the log made to name that commit."""
    reading = place.reading()
    done = [ev for ev in reading.events if isinstance(ev.body, e.MergeDone)][-1]
    built = [ev for ev in reading.events if isinstance(ev.body, e.MergeBuilt)][-1]
    assert isinstance(done.body, e.MergeDone)
    old = done.body.new
    parents = place.git("log", "-1", "--format=%P", old).split()
    made = commit_on(place, parents, f"{old}^{{tree}}", words(place, old).partition("\n\n")[0] + "\n")
    rewritten(place, {old: made}, built.seq)
    place.git("update-ref", ref_of(place), made)
    return {"git.trailers"}


def another_author(place: Place) -> set[str]:
    """The seal by somebody else, and the log made to name that commit."""
    reading = place.reading()
    built = [ev for ev in reading.events if isinstance(ev.body, e.MergeBuilt)][-1]
    assert isinstance(built.body, e.MergeBuilt)
    old = built.body.new
    parents = place.git("log", "-1", "--format=%P", old).split()
    made = commit_on(place, parents, f"{old}^{{tree}}", words(place, old), "Eve <eve@example.org>")
    rewritten(place, {old: made}, built.seq)
    place.git("update-ref", ref_of(place), made)
    return {"git.identity"}


def tag_on(place: Place, commit: str, seq: int | None = None) -> None:
    """As the engine makes it, of the run's end or of another event."""
    events = place.reading().events
    ended = next(ev for ev in events if isinstance(ev.body, e.RunCompleted)) if seq is None else events[seq]
    said = f"Run, completed\n\nOrchgit-Run: {place.golden.run}\nOrchgit-Log: {ended.seq}@sha256:{ended.hash}\n"
    place.git_as("orchgit <orchgit@localhost>", "tag", "-f", "-a", "-F", "-", f"orchgit/{place.golden.run}", commit,
                 stdin=said.encode())  # fmt: skip


def a_moved_tag(place: Place) -> set[str]:
    tag_on(place, tip_of(place))
    assert place.violated() == set()
    tag_on(place, f"{tip_of(place)}~1")
    return {"git.tag"}


def a_tag_of_another_event(place: Place) -> set[str]:
    tag_on(place, tip_of(place), len(place.golden.lines) // 2)
    return {"git.tag"}


ATTACKS = [
    an_evil_merge, an_extra_commit, an_extra_commit_below, a_commit_of_the_reviewer, a_commit_of_the_orchestrator,
    an_amended_merge, a_forced_ref, another_history, a_replace_ref, a_replaced_blob, a_graft, a_missing("commit"),
    a_missing("tree"), a_missing("blob"), another_object_under_its_name, a_changed_blob, a_deleted_blob, a_forked_log,
    a_log_cut_after_it_was_published, a_tail_chained_again_after_it_was_published,
    a_checkpoint_of_a_shorter_log_after_a_longer, a_checkpoint_that_names_another_event, a_file_slipped_into_scope,
    a_file_out_of_scope, a_link_for_a_file, a_mode_out_of_scope, stripped_trailers, another_author,
    a_moved_tag, a_tag_of_another_event,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_an_attack_on_git_is_caught(place: Place, attack: Callable[[Place], set[str]]) -> None:
    """By the laws that are about just that, and maybe others."""
    expected = attack(place)
    assert expected <= place.violated(), {n: r.found for n, r in place.results().items() if r.found}


# -- what cannot be caught: docs/audit.md ----------------------------------------------------------------


def tail_chained_again(place: Place) -> None:
    lines = place.golden.lines
    n = len(lines) - 1
    fields = put(e.envelope(lines[n]), ("actor", "id"), "somebody/1")
    (place.directory / "events.jsonl").write_bytes(
        b"".join(line + b"\n" for line in rechain([*lines[:n], reseal(fields)], n))
    )


def test_uncaught_the_tail_after_the_last_commit_chained_again(place: Place) -> None:
    tail_chained_again(place)
    assert place.violated() == set()
    reading = place.reading()
    assert len(reading.events) - 1 > anchors(reading, place.facts()).here, "and audit says so"


def test_uncaught_the_tail_after_the_last_commit_cut(place: Place) -> None:
    lines = place.golden.lines
    (place.directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
    assert place.violated() == set()


def test_uncaught_log_and_commits_rewritten_together_before_anything_was_published(place: Place) -> None:
    """Every claim of a witness can be changed by who owns the machine; what follows from git alone cannot."""
    reading = place.reading()
    report = next(ev for ev in reading.events if isinstance(ev.body, e.AgentReported))
    lines = place.golden.lines
    fields = put(e.envelope(lines[report.seq]), ("data", "summary"), "something else")
    lines = rechain([*lines[: report.seq], reseal(fields), *lines[report.seq + 1 :]], report.seq)
    made: dict[str, str] = {}
    for event in reading.events:
        if not isinstance(event.body, e.MergeRequested):
            continue
        prepared = [ev for ev in reading.events if isinstance(ev.body, e.MergePrepared) and ev.seq < event.seq][-1]
        old = event.body.new
        message = words(place, old).replace(prepared.hash, e.envelope(lines[prepared.seq])["hash"])
        parents = [made.get(p, p) for p in place.git("log", "-1", "--format=%P", old).split()]
        when = place.git("log", "-1", "--format=%at", old)
        made[old] = place.git_as("orchgit <orchgit@localhost>", "commit-tree", *(a for p in parents for a in ("-p", p)),
                                 f"{old}^{{tree}}", stdin=message.encode() + b"\n", when=when)  # fmt: skip
        built = [ev for ev in reading.events if isinstance(ev.body, e.MergeBuilt) and ev.seq < event.seq][-1].seq
        lines = rechain(
            [*lines[:built], *(ln.replace(old.encode(), made[old].encode()) for ln in lines[built:])], built
        )
    (place.directory / "events.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    place.git("update-ref", ref_of(place), made[reading.run.tip])
    place.git("update-ref", "-d", f"refs/orchgit/runs/{place.golden.run}")
    told = place.results()
    # Later attempts stand on joined commits, which the old merges are parents of: that alone gives it away here.
    assert {law for law, r in told.items() if r.verdict == "violation"} <= {"git.commits", "git.work"}
    assert anchors(place.reading(), place.facts()).published == -1, "and audit says so"


def test_uncaught_what_only_a_witness_says(place: Place) -> None:
    """Of a run that is not over: the result of a check that nobody runs again."""
    lines = place.golden.lines
    passed = next(ev for ev in place.reading().events if isinstance(ev.body, e.ChecksPassed))
    fields = put(e.envelope(lines[passed.seq]), ("data", "results", 0, "tests"), 1000)
    forged = rechain([*lines[: passed.seq], reseal(fields)], passed.seq)
    result = {r.law: r for r in judge(read(place.golden.run, forged), None)}
    assert result["checks.tree"].verdict == "pass"
    assert result["checks.tree"].strength == "witnessed", "and audit says so"


def test_uncaught_a_tag_is_nobodys_claim(place: Place) -> None:
    """One of the branch's own name included: refs are asked for by their full names."""
    place.git("update-ref", f"refs/tags/orchgit/{place.golden.run}/integration", f"{tip_of(place)}~1")
    assert place.violated() == set()
