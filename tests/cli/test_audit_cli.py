"""`audit` on a log or a branch that somebody touched: it says so, exit 1, and names the event or the commit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario import Book, World, make, piece, turn, write


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished run with two merges; every test takes a copy of it."""
    world = make(tmp_path_factory.mktemp("honest"))
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"]),
        piece("docs", "docs-agent", ["docs/**"], depends_on=["api"], checks=["ls docs"]),
    )
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    world.start(book)
    return world


@pytest.fixture
def world(honest: World, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(honest.root, tmp_path / "w", symlinks=True)
    copied = World(tmp_path / "w")
    yield copied
    # Whatever was done to it: log prints it, line by line, and never fails.
    lines = copied.log.read_bytes().count(b"\n")
    assert len(copied.run("log", copied.name).out.splitlines()) == lines


def seal(line: bytes) -> bytes:
    """The line with the hash that its content now has."""
    head = line.rpartition(b',"hash":"')[0]
    return head + b',"hash":"' + hashlib.sha256(head).hexdigest().encode() + b'"}'


def chain(lines: list[bytes], first: int) -> list[bytes]:
    """All from `first` on chained and sealed again, as a forger would."""
    made = lines[:first]
    for line in lines[first:]:
        event = json.loads(line)
        if made:
            event["prev"] = json.loads(made[-1])["hash"]
        made.append(seal(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()))
    return made


def edit(world: World, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = world.log.read_bytes().split(b"\n")[:-1]
    world.log.write_bytes(b"".join(line + b"\n" for line in change(lines)))


def violations(world: World) -> dict[str, list[dict[str, str]]]:
    """law -> what it found."""
    told = world.run("audit", "--json", code=1).json
    return {law["law"]: law["found"] for law in told["laws"] if law["verdict"] == "violation"}


def published(world: World, at: str = "") -> None:
    """Put this machine's own copy of the log back to an earlier checkpoint, or take it away: its owner can."""
    ref = f"refs/orchgit/runs/{world.name}"
    world.git("update-ref", *([ref, f"{ref}{at}"] if at else ["-d", ref]))


def seq_of(world: World, kind: str, **data: Any) -> int:
    found: int = world.events(kind, **data)[0]["seq"]
    return found


def test_an_honest_run(world: World) -> None:
    told = world.run("audit", "--json").json
    assert {law["verdict"] for law in told["laws"]} == {"pass"}
    assert told["events"] == len(world.events())
    words = world.run("audit").out
    assert f"run {world.name}: {told['events']} events, completed" in words
    assert "the last 1 event is attested by no commit" in words
    assert told["unattested"] == 1  # that the last checkpoint was made
    published(world)
    # Without the log's own commits, what attests it is the seal: everything up to the event that its trailer names.
    told = world.run("audit", "--json").json
    assert told["unattested"] == told["events"] - 1 - seq_of(world, "merge.prepared", land="seal")


def test_an_honest_log_re_sealed_is_the_same_bytes(world: World) -> None:
    before = world.log.read_bytes()
    edit(world, lambda lines: chain(lines, 0))
    assert world.log.read_bytes() == before  # else the forgeries below would show for the wrong reason


def test_an_edited_line(world: World) -> None:
    n = seq_of(world, "verdict.given")
    edit(world, lambda ls: [*ls[:n], ls[n].replace(b'"accept"', b'"acCept"'), *ls[n + 1 :]])
    found = violations(world)
    assert found["log.chain"][0]["where"] == f"event {n}"
    assert f"    ! event {n}: " in world.run("audit", code=1).out
    assert world.run("log", "--json").out.encode() == world.log.read_bytes()
    for command in ("replay", "status", "resume"):
        said = world.run(command, world.name, code=1).err
        assert f"event {n} of run {world.name} cannot be read" in said
        assert f"orchgit audit {world.name}" in said


def test_an_edited_line_sealed_again(world: World) -> None:
    n = seq_of(world, "review.reported")
    edit(world, lambda ls: [*ls[:n], seal(ls[n].replace(b"read it all", b"read a half")), *ls[n + 1 :]])
    found = violations(world)
    assert found["log.chain"][0]["where"] == f"event {n + 1}"
    assert "the past was changed" in found["log.chain"][0]["what"]


def test_a_log_chained_again_from_an_edited_line(world: World) -> None:
    """The chain holds; the commits name another log."""
    n = seq_of(world, "agent.reported", assignment="api")
    edit(world, lambda ls: chain([*ls[:n], ls[n].replace(b"api is done", b"api is gone"), *ls[n + 1 :]], n))
    found = violations(world)
    assert set(found) == {"git.trailers", "log.copies", "log.checkpoints"}
    merges = [ev["data"]["new"] for ev in world.events("merge.done")]
    assert len(found["git.trailers"]) == 3  # every commit after the edit attests the log as it was
    for place, new in zip(found["git.trailers"], merges, strict=True):
        assert new in place["where"]
        assert "Orchgit-Log" in place["what"]


def test_a_decision_that_does_not_follow(world: World) -> None:
    """The verdict turned round, everything after it chained again: the merge no longer follows."""
    n = seq_of(world, "verdict.given", assignment="docs")
    edit(world, lambda ls: chain([*ls[:n], ls[n].replace(b'"accept"', b'"reassign"'), *ls[n + 1 :]], n))
    found = violations(world)
    assert any(place["where"] == f"event {n + 1}" for place in found["log.legal"])


def test_a_tail_cut_off_after_a_merge(world: World) -> None:
    n = seq_of(world, "merge.done", assignment="api")
    edit(world, lambda ls: ls[: n + 1])
    found = violations(world)
    docs = world.git("rev-parse", f"orchgit/{world.name}/integration~1")
    assert any(docs in place["where"] and "its tail was cut off" in place["what"] for place in found["git.history"])


def test_a_tail_cut_off_in_the_middle_of_a_merge(world: World) -> None:
    """The request to move the branch is the last line. It did move: that alone is a crash, and says so."""
    n = seq_of(world, "merge.requested", land="seal")
    edit(world, lambda ls: ls[: n + 1])
    published(world, "~2")  # as it stood then: the seal's checkpoint and the last one were not made
    world.run("audit")
    assert "merge.requested" in world.run("status").out
    world.run("resume")
    told = world.run("audit", "--json").json["events"]
    assert told == n + 5  # resumed, done, completed, and what was published at the end


def test_a_tail_cut_off_after_the_seal(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing outside the log attests its last lines, and audit says how many those are."""
    n = seq_of(world, "merge.done", land="seal")
    edit(world, lambda ls: ls[: n + 1])
    assert "log.copies" in violations(world)
    published(world)
    words = world.run("audit").out
    assert "the last 3 events are attested by no commit" in words
    assert f"run {world.name}: {n + 1} events, shipping" in words
    with capsys.disabled():
        print(f"\n  cut after the seal: exit 0; {words.splitlines()[0]}; {words.splitlines()[-1].strip()}")


@pytest.mark.parametrize("change", ["duplicate", "swap", "drop", "insert"])
def test_lines_moved_about(world: World, change: str) -> None:
    n = seq_of(world, "gate.passed", assignment="docs")

    def moved(ls: list[bytes]) -> list[bytes]:
        if change == "duplicate":
            return [*ls[: n + 1], ls[n], *ls[n + 1 :]]
        if change == "swap":
            return [*ls[:n], ls[n + 1], ls[n], *ls[n + 2 :]]
        if change == "drop":
            return [*ls[:n], *ls[n + 1 :]]
        return [*ls[:n], b'{"hello": "world"}', *ls[n:]]

    edit(world, moved)
    found = violations(world)
    assert found["log.chain"][0]["where"] == f"event {n + (change == 'duplicate')}"


def test_a_type_from_the_future_is_not_judged_and_not_hidden(world: World) -> None:
    last = seq_of(world, "run.completed")
    edit(world, lambda ls: chain([*ls[:last], ls[last].replace(b"run.completed", b"run.perfected")], last))
    published(world)
    told = world.run("audit", code=6).out
    assert "run.perfected" in told
    assert "inconclusive" in told
    assert world.run("replay", code=1).err


def test_bytes_that_are_no_text(world: World) -> None:
    n = seq_of(world, "gate.passed", assignment="docs")
    edit(world, lambda ls: [*ls[:n], b"\xff\xfe\x00\x1b[31m", *ls[n + 1 :]])
    assert violations(world)["log.chain"][0]["where"] == f"event {n}"
    assert "\x1b" not in world.run("log").out
    edit(world, lambda ls: [*ls[:n], b"[" * 20_000, *ls[n + 1 :]])
    assert violations(world)["log.chain"][0]["where"] == f"event {n}"


def test_an_empty_log(world: World) -> None:
    world.log.write_bytes(b"")
    assert world.run("audit", code=None).code in (1, 6)
    assert "never started" in world.run("resume", code=2).err
    assert world.run("status").code == 0


# -- git -------------------------------------------------------------------------------------------------


def commit_on(world: World, parents: list[str], tree: str, message: str) -> str:
    more = [arg for parent in parents for arg in ("-p", parent)]
    return world.git("commit-tree", *more, "-m", message, tree)


def test_a_hand_made_commit_on_the_integration_branch(world: World) -> None:
    ref = f"refs/heads/orchgit/{world.name}/integration"
    made = commit_on(world, [ref], f"{ref}^{{tree}}", "just a small fix")
    world.git("update-ref", ref, made)
    found = violations(world)
    places = {place["where"]: place["what"] for place in found["git.history"]}
    assert set(places) == {f"commit {made}"}
    assert f"    ! commit {made}: " in world.run("audit", code=1).out


def test_a_hand_made_commit_that_forges_its_trailers(world: World) -> None:
    ref = f"refs/heads/orchgit/{world.name}/integration"
    said = world.git("log", "-1", "--format=%B", ref)
    world.put({"evil.txt": "evil\n"})
    world.git("add", "evil.txt")
    made = commit_on(world, [f"{ref}~1"], world.git("write-tree"), said)
    world.git("update-ref", ref, made)
    found = violations(world)
    assert any(made in place["where"] for place in found["git.history"])


def test_an_amended_merge_commit(world: World) -> None:
    ref = f"refs/heads/orchgit/{world.name}/integration"
    merge = world.events("merge.done", land="merge")[-1]["data"]["new"]
    parents = world.git("log", "-1", "--format=%P", merge).split()
    words = world.git("log", "-1", "--format=%B", merge).replace("Merge docs", "Merge docs!")
    amended = commit_on(world, parents, f"{merge}^{{tree}}", words)
    seal_words = world.git("log", "-1", "--format=%B", ref)
    top = commit_on(world, [amended], f"{merge}^{{tree}}", seal_words)
    world.git("update-ref", ref, top)
    found = violations(world)
    text = " ".join(p["where"] + p["what"] for p in found["git.history"])
    assert amended in text
    assert merge in text


def test_a_merge_that_slipped_something_in(world: World) -> None:
    """Log and commit forged together, consistently: the tree still is not the tip with the worker's entries."""
    run, ref = world.name, f"refs/heads/orchgit/{world.name}/integration"
    done = world.events("merge.done", land="merge")[-1]
    prepared = world.events("merge.prepared", land="merge")[-1]
    world.git("read-tree", done["data"]["new"])
    (world.repo / "docs" / "evil.md").write_text("slipped in\n")
    world.git("update-index", "--add", "docs/evil.md")
    tree = world.git("write-tree")
    old_tree = prepared["data"]["tree"]
    lines = [
        line.replace(old_tree.encode(), tree.encode())
        for line in world.log.read_bytes().split(b"\n")[: done["seq"] + 1]
    ]
    first = next(i for i, line in enumerate(lines) if tree.encode() in line)
    lines = chain(lines, first)
    hashed = json.loads(lines[prepared["seq"]])["hash"]
    words = world.git("log", "-1", "--format=%B", done["data"]["new"])
    old_hash = words.partition("@sha256:")[2].split()[0]
    parents = world.git("log", "-1", "--format=%P", done["data"]["new"]).split()
    forged = commit_on(world, parents, tree, words.replace(old_hash, hashed))
    lines = chain([line.replace(done["data"]["new"].encode(), forged.encode()) for line in lines], first)
    world.log.write_bytes(b"".join(line + b"\n" for line in lines))
    world.git("update-ref", ref, forged)
    found = violations(world)
    assert "git.trees" in found, found
    assert any(forged in place["where"] and "slipped in" in place["what"] for place in found["git.trees"])
    assert run == world.name


def test_a_moved_worker_branch(world: World) -> None:
    ref = f"refs/heads/orchgit/{world.name}/api"
    was = world.git("rev-parse", ref)
    made = commit_on(world, [was], f"{was}^{{tree}}", "more")
    world.git("update-ref", ref, made)
    place = violations(world)["git.branches"][0]
    assert place["where"] == f"commit {made}"
    assert was in place["what"]
    assert "api" in place["what"]


def test_an_integration_branch_put_back(world: World) -> None:
    ref = f"refs/heads/orchgit/{world.name}/integration"
    world.git("update-ref", ref, f"{ref}~2")
    assert "git.history" in violations(world)


def test_branches_deleted_after_the_end_are_no_crime(world: World) -> None:
    for name in ("api", "docs"):
        world.git("branch", "-q", "-D", f"orchgit/{world.name}/{name}")
    world.run("audit")


def test_audit_from_a_clone_that_has_the_log(world: World) -> None:
    """Offline, elsewhere: the branches and the log's file are enough."""
    clone = world.root / "clone"
    world.git("clone", "-q", "--no-local", "--mirror", str(world.repo), str(clone / ".git"))
    world.git("config", "core.bare", "false", cwd=clone / ".git")
    shutil.copytree(world.runs, clone / ".git" / "orchgit" / "runs")
    assert "pass          git.merges" in world.run("audit", cwd=clone).out


def publish(world: World, where: Path) -> Path:
    """A clone that has fetched the log, and nothing of the run's directory."""
    blob = world.git("hash-object", "-w", str(world.log))
    tree = subprocess.run(
        ["git", "mktree"], cwd=world.repo, env=world.env, input=f"100644 blob {blob}\tevents.jsonl\n".encode(),
        capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    last = world.events()[-1]
    said = f"Log\n\nOrchgit-Run: {world.name}\nOrchgit-Log: {last['seq']}@sha256:{last['hash']}"
    ref = f"refs/orchgit/runs/{world.name}"
    world.git("update-ref", ref, commit_on(world, [], tree, said))
    world.git("clone", "-q", "--no-local", str(world.repo), str(where))
    world.git("fetch", "-q", "origin", f"{ref}:{ref}", f"{ref}:refs/orchgit/remotes/origin/{world.name}", cwd=where)
    world.git("fetch", "-q", "origin", "refs/heads/orchgit/*:refs/heads/orchgit/*", cwd=where)
    return where


def test_from_a_clone_the_log_is_read_from_where_it_was_published(world: World) -> None:
    clone = publish(world, world.root / "clone")
    told = world.run("audit", "--json", cwd=clone).json
    assert told["run"] == world.name
    assert "as it was published" in told["source"]
    assert {law["verdict"] for law in told["laws"]} == {"pass"}
    assert told["unattested"] == 0
    assert told["attested"]["published"] == told["events"] - 1
    notes = {law["law"]: law["notes"] for law in told["laws"]}
    assert "stayed on the machine of the run" in notes["log.blobs"][0]
    assert "all of it was seen on another machine" in world.run("audit", world.name[:8], cwd=clone).out
    assert "names 0" not in world.run("audit", "nothing", cwd=clone, code=2).err


def test_the_log_here_must_go_on_from_the_one_that_was_published(world: World) -> None:
    publish(world, world.root / "clone")
    edit(world, lambda ls: ls[:-1])
    assert "its tail was cut off" in violations(world)["log.copies"][0]["what"]


def test_a_report_to_file(world: World) -> None:
    n = seq_of(world, "review.reported")
    text = world.run("audit", "--markdown").out
    assert text == world.run("audit", "--format", "markdown").out
    assert text.startswith(f"# Audit of run `{world.name}`: no violation\n")
    for law in world.run("audit", "--json").json["laws"]:
        assert f"| `{law['law']}` | pass | {law['strength']} | {law['sentence']} |" in text
    assert "- *witnessed*: " in text
    evil = b"</table>|x\\u001b[31m`**"
    edit(world, lambda ls: chain([*ls[:n], ls[n].replace(b"security-reviewer", evil), *ls[n + 1 :]], n))
    bad = world.run("audit", "--markdown", code=1).out
    assert bad.startswith(f"# Audit of run `{world.name}`: VIOLATIONS\n")
    assert "\x1b" not in bad
    assert "</table>" not in bad


def test_the_checks_again(world: World) -> None:
    """On the very trees that landed; one that fails now is said, with the event and the command."""
    told = world.run("audit", "--rerun", "--json").json
    again = told["laws"][-1]
    assert (again["law"], again["verdict"], again["strength"]) == ("checks.rerun", "pass", "proved")
    before = world.log.read_bytes()
    # As if an engine had lied: the plan's check was another, and is said to have passed.
    edit(world, lambda ls: ls[: seq_of(world, "merge.prepared")])
    edit(world, lambda ls: chain([line.replace(b"ls src/api", b"ls src/abc") for line in ls], 0))
    world.run("audit", "--rerun", code=1)  # the branch says otherwise: nothing is run
    assert before != world.log.read_bytes()


def test_checks_that_pass_no_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Here because of what the check looked at outside of the repository."""
    world = make(tmp_path_factory.mktemp("again"))
    flag = Path(tempfile.mkdtemp(prefix="orchgit-test-", dir="/var/tmp")) / "flag"  # a sandbox may hide /tmp
    flag.write_text("up\n")
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=[f"cat {flag}"]))
    world.start(book.work("api", turn(write("src/api/billing.py", "billing = 1\n"))))
    shutil.rmtree(flag.parent)
    assert world.run("audit").code == 0
    again = world.run("audit", "--rerun", "--json", code=1).json["laws"][-1]
    assert (again["law"], again["verdict"]) == ("checks.rerun", "violation")
    assert "passed then, and now: exit code 1" in again["found"][0]["what"]
    assert not list((world.root / "state" / "orchgit").glob("audit-*"))


# -- replay ----------------------------------------------------------------------------------------------


def test_replay_at_every_event(world: World) -> None:
    last = len(world.events()) - 1
    for at in (0, last // 2):
        state = world.run("replay", "--at", str(at), "--json").json
        assert state["seq"] == at
    whole = world.run("replay", "--json").json
    assert whole == world.run("replay", "--at", str(last), "--json").json
    beyond = world.run("replay", "--at", str(last + 1), code=2).err
    assert f"the last is {last}" in beyond
    assert "Traceback" not in world.run("replay", "--at", "-1", code=2).err
    n = seq_of(world, "checks.requested", subject="docs")
    assert "waits for" in world.run("replay", "--at", str(n)).out
