"""The log as commits: made at every merge, the same when made again, pushed all or none, fetched, never reconciled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchgit import publish, signatures
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.state import replay
from orchgit.eventlog import Store
from orchgit.git.door import Door
from tests.support.scenario import Book, World, bash, make, piece, simple, turn, write

TOKEN = "ghp_" + "A1b2" * 9
KNOWN = "correct-horse-battery"


def two() -> Book:
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/a.py"]),
        piece("docs", "docs-agent", ["docs/**"], depends_on=["api"], checks=["cat docs/d.md"]),
    )
    book.work("api", turn(write("src/api/a.py", "a\n"), bash(f"echo {TOKEN} {KNOWN}")))
    return book.work("docs", turn(write("docs/d.md", "d\n")))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One run of two merges, complete; tests copy it before they change it."""
    world = make(tmp_path_factory.mktemp("published"))
    world.extra_env["SERVICE_TOKEN"] = KNOWN
    world.run(*world.start_args(two(), "--yes"))
    yield world
    world.close()


@pytest.fixture
def world(done: World, tmp_path: Path) -> Iterator[World]:
    """A copy of the run, with a bare remote beside it."""
    shutil.copytree(done.root, tmp_path / "w", symlinks=True)
    made = World(tmp_path / "w")
    made.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    made.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    made.git("push", "-q", "origin", "HEAD:refs/heads/main")
    yield made
    made.close()


def door_of(world: World) -> Door:
    return Door(world.repo / ".git")


def head(world: World, ref: str = "") -> str:
    return world.git("rev-parse", "-q", "--verify", ref or publish.RUNS + world.name, ok=False)


def test_a_checkpoint_at_every_merge_and_at_the_end(done: World) -> None:
    lines = done.log.read_bytes()
    noted = [ev["data"] for ev in done.events("log.checkpointed")]
    merges = [ev["seq"] for ev in done.events("merge.done")]
    # The seal is merged and the run completed in one batch: one checkpoint for both.
    assert [n["seq"] for n in noted] == [*merges[:-1], done.one("run.completed")["seq"]]
    assert [n["commit"] for n in noted][-1] == head(done)
    tips = {ev["seq"]: ev["data"]["new"] for ev in done.events("merge.done")}
    before = ""
    for n in noted:
        held = subprocess.run(["git", "show", f"{n['commit']}:events.jsonl"], cwd=done.repo, capture_output=True).stdout
        assert lines.startswith(held)
        assert held.count(b"\n") == n["seq"] + 1
        assert json.loads(held.split(b"\n")[-2])["hash"] == n["hash"]
        parents = done.git("show", "-s", "--format=%P", n["commit"]).split()
        tip = tips.get(n["seq"], list(tips.values())[-1])
        assert parents == [p for p in (before, tip) if p]
        names = done.files(n["commit"])
        started, issue = done.one("run.started")["data"], done.one("issue.read")["data"]
        assert names == {"events.jsonl", f"blobs/{started['config']}", f"blobs/{issue['text']}"}
        said = done.git("show", "-s", "--format=%(trailers:key=Orchgit-Log,valueonly)", n["commit"])
        assert said.strip() == f"{n['seq']}@sha256:{n['hash']}"
        before = n["commit"]
    assert done.git("fsck", "--full", "--strict", "--no-dangling") == ""
    assert "log published" not in done.run("replay").err
    assert "log published up to event" in done.run("replay").out


def test_made_again_it_is_the_same_commit(world: World) -> None:
    """As after a crash between the swap and its note, or before the swap."""
    run = world.name
    store, door = Store(world.runs / run), door_of(world)
    events = store.read()
    for note in [ev for ev in events if isinstance(ev.body, e.LogCheckpointed)]:
        state = replay(run, events[: note.seq])
        assert publish.due(state)
        assert not publish.due(replay(run, events[: note.seq + 1]))
        for there in ("the commit it makes", "the one before", ""):
            body = note.body
            assert isinstance(body, e.LogCheckpointed)
            before = state.checkpoint.commit if state.checkpoint else ""
            where = body.commit if there == "the commit it makes" else before
            if there and where:
                world.git("update-ref", publish.RUNS + run, where)
            else:
                world.git("update-ref", "-d", publish.RUNS + run)
            assert publish.checkpoint(door, store, state, everything=False, key="") == body
            assert head(world) == body.commit
    door.close()


def test_a_ref_that_holds_another_log_is_left_alone(world: World) -> None:
    door, store = door_of(world), Store(world.runs / world.name)
    other = world.git("commit-tree", "HEAD^{tree}", "-m", "not a checkpoint")
    lines = store.events.read_bytes().split(b"\n")
    blob = door.write(b"blob", b"\n".join(lines[:3]) + b"\n{}\n")
    tree = door.write(b"tree", b"100644 events.jsonl\0" + bytes.fromhex(blob))
    fork = world.git("commit-tree", tree, "-m", "another log")
    events = store.read()
    state = replay(world.name, [ev for ev in events if ev.seq <= world.one("run.completed")["seq"]])
    world.git("update-ref", publish.RUNS + world.name, fork)
    said = publish.checkpoint(door, store, state, everything=False, key="")
    assert said.commit == ""
    assert "holds another log" in said.why
    assert head(world) == fork
    # What is no log at all says nothing against ours: it is replaced, by compare-and-swap.
    world.git("update-ref", publish.RUNS + world.name, other)
    assert publish.checkpoint(door, store, state, everything=False, key="").commit == head(world)
    door.close()


def clone(world: World, name: str = "colleague") -> World:
    other = World(world.root.parent / name)
    shutil.rmtree(other.repo, ignore_errors=True)
    world.git("clone", "-q", str(world.root.parent / "remote.git"), str(other.repo), cwd=world.root)
    return other


def test_pushed_and_fetched_and_read_without_the_directory(world: World) -> None:
    said = world.run("ship", "--push", "origin").out
    assert said.count("pushed refs/") == 4  # the log, integration, two workers
    assert world.run("ship", "--push", "origin").out == "origin has it all\n"
    other = clone(world)
    assert "no run" in other.run("status").out
    assert other.run("fetch").out.startswith(f"new        {world.name}  ")
    assert other.run("fetch").out == f"same       {world.name}\n"
    assert not other.runs.exists()
    reading: list[tuple[str, ...]] = [
        ("log",),
        ("log", "--json"),
        ("replay",),
        ("report",),
        ("status", world.name[:9]),
        ("status",),
    ]
    for args in reading:
        mine, theirs = world.run(*args).out.split("\n"), other.run(*args).out.split("\n")
        # The note on the last checkpoint comes after it, so it is not in it.
        assert [t for t in theirs if t not in mine] == [], args
        assert len(mine) - len(theirs) <= 1, args
    assert other.run("audit").code == 0
    commands: list[tuple[str, ...]] = [("abort",), ("resume",), ("waive", world.name, "F1", "--why", "x")]
    for args in commands:
        refused = other.run(*args, code=None)
        assert refused.code != 0
        assert not other.runs.exists(), args
    # Further on, it goes forward; behind, it says so.
    first = world.events("log.checkpointed")[0]["data"]["commit"]
    other.git("update-ref", publish.RUNS + world.name, first)
    assert other.run("fetch").out.startswith("longer ")
    world.git("push", "-q", "-f", "origin", f"{first}:{publish.RUNS}{world.name}")
    assert other.run("fetch").out.startswith("shorter ")
    assert head(other, publish.RUNS + world.name) == head(world)


def fork_of(world: World) -> str:
    """Another log of the same run, whole and re-chained from its third event on, as a checkpoint."""
    door, run = door_of(world), world.name
    events = Store(world.runs / run).read()
    lines, prev = [ev.line for ev in events[:2]], events[1].hash
    for ev in events[2:6]:
        again = e.seal(
            e.Draft(ev.body, ev.actor, ev.cause), run=run, seq=ev.seq, time="2027-01-01T00:00:00.000Z", prev=prev
        )
        lines.append(again.line)
        prev = again.hash
    blob = door.write(b"blob", b"".join(lines))
    tree = door.write(b"tree", b"100644 events.jsonl\0" + bytes.fromhex(blob))
    return door.write_commit(tree, (), "fork", "1767225600 +0000")


def test_two_events_at_one_number_are_never_reconciled(world: World) -> None:
    world.run("ship", "--push", "origin")
    other = clone(world)
    other.run("fetch")
    fork = fork_of(world)
    world.git("push", "-q", "-f", "origin", f"{fork}:{publish.RUNS}{world.name}")
    for who in (other, world):  # the one with a directory, too
        ours = head(who, publish.RUNS + world.name)
        said = who.run("fetch", code=1).out
        assert said.startswith(f"forked     {world.name}  event 2 is not the one that ")
        assert head(who, publish.RUNS + world.name) == ours
        assert head(who, f"{publish.FORKS}{world.name}/{fork[:12]}") == fork
    with pytest.raises(OrchgitError, match="cannot be pushed") as refused:
        publish.push(door_of(world), world.repo, world.name, "origin", [])
    assert refused.value.kind is Kind.NO
    # Our own log, cut short: the remote still has the rest.
    world.git("push", "-q", "-f", "origin", f"{head(world)}:{publish.RUNS}{world.name}")
    lines = world.log.read_bytes().split(b"\n")
    world.log.write_bytes(b"\n".join(lines[:9]) + b"\n")
    world.git("update-ref", "-d", publish.RUNS + world.name)
    assert "has lost" in world.run("fetch", code=1).out
    # Nonsense under a run's name.
    world.git("push", "-q", "-f", "origin", f"HEAD:{publish.RUNS}nonsense")
    assert "unreadable nonsense" in other.run("fetch", code=1).out


def test_plain_git_fetch_follows_and_refuses_a_rewrite(world: World) -> None:
    world.run("ship", "--push", "origin")
    other = clone(world)
    said = other.run("init", "--no-hooks").out
    spec = "refs/orchgit/runs/*:refs/orchgit/remotes/origin/*"
    assert f"written  fetch of origin: {spec}" in said
    assert f"kept     fetch of origin: {spec}" in other.run("init", "--no-hooks").out
    assert other.git("config", "--get-all", "remote.origin.fetch").split("\n").count(spec) == 1
    other.git("fetch", "-q")
    assert other.run("replay").code == 0
    ours = head(other, f"{publish.REMOTES}origin/{world.name}")
    assert ours == head(world)
    world.git("push", "-q", "-f", "origin", f"{fork_of(world)}:{publish.RUNS}{world.name}")
    other.git("fetch", "-q", ok=False)
    assert head(other, f"{publish.REMOTES}origin/{world.name}") == ours


def test_a_push_is_all_or_none(world: World) -> None:
    """One branch is refused by the remote: nothing moved there. And a ref that moved meanwhile is not overwritten."""
    hook = world.root.parent / "remote.git" / "hooks" / "update"
    hook.write_text("#!/bin/sh\ncase $1 in */docs) exit 1;; esac\n")
    hook.chmod(0o755)
    branches = [f"refs/heads/orchgit/{world.name}/{n}" for n in ("integration", "api", "docs")]
    remote = str(world.root.parent / "remote.git")
    before = world.git("ls-remote", remote)
    with pytest.raises(OrchgitError, match="git push did not work"):
        publish.push(door_of(world), world.repo, world.name, "origin", branches)
    assert world.git("ls-remote", remote) == before
    hook.unlink()
    world.git("push", "-q", "origin", f"HEAD:{branches[0]}")  # an ancestor: it goes forward
    assert len(publish.push(door_of(world), world.repo, world.name, "origin", branches)) == 4
    alien = world.git("commit-tree", "HEAD^{tree}", "-m", "somebody else's")
    world.git("push", "-q", "-f", "origin", f"{alien}:{branches[1]}")
    with pytest.raises(OrchgitError, match="cannot be pushed"):
        publish.push(door_of(world), world.repo, world.name, "origin", branches)
    assert alien in world.git("ls-remote", remote)


# ---- secrets


def test_secrets_are_not_written_down(done: World) -> None:
    """A key of a known shape, and a value of the engine's own environment, printed by a worker's command."""
    for path in done.log.parent.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
            assert KNOWN.encode() not in path.read_bytes(), path
    transcripts = [ev["data"]["transcript"] for ev in done.events("agent.exited")]
    assert any("[redacted] [redacted]" in done.blob(t) for t in transcripts)


def test_a_blob_can_be_dropped(world: World) -> None:
    digest = world.events("agent.exited")[0]["data"]["transcript"]
    world.run("log", "--redact", digest, code=2)
    world.run("log", "--redact", "0" * 64, "--why", "x", code=1)
    world.run("log", "--redact", digest, "--why", "a customer's name")
    assert not (world.log.parent / "blobs" / digest).exists()
    assert world.one("redaction.recorded")["data"] == {"digest": digest, "why": "a customer's name"}
    assert world.run("audit").code == 0
    assert f"blob {digest[:12]} dropped" in world.run("replay").out
    config = world.one("run.started")["data"]["config"]
    assert "cannot go on" in world.run("log", "--redact", config, "--why", "x", code=1).err
    issue = world.one("issue.read")["data"]["text"]
    assert "published already" in world.run("log", "--redact", issue, "--why", "x").err
    # Killed between the event and the deed: whoever opens the log next does it.
    other = world.events("agent.exited")[1]["data"]["transcript"]
    kept = (world.log.parent / "blobs" / other).read_bytes()
    world.run("log", "--redact", other, "--why", "x")
    (world.log.parent / "blobs" / other).write_bytes(kept)
    third = world.events("agent.exited")[2]["data"]["transcript"]
    world.run("log", "--redact", third, "--why", "x")
    assert not (world.log.parent / "blobs" / other).exists()


# ---- signatures


def test_signed_and_verified(tmp_path: Path) -> None:
    keys = {}
    for name in ("ada", "eve"):
        keys[name] = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys[name]], check=True)
    allowed = b"ada@example.org " + (tmp_path / "ada.pub").read_bytes()
    statement = e.approval_statement("r", "1" * 40, 1, "2" * 64)
    good = signatures.sign(statement, str(keys["ada"]))
    assert signatures.verify(statement, good, allowed) == "ada@example.org"
    assert signatures.verify(e.approval_statement("r", "1" * 40, 2, "2" * 64), good, allowed) == ""
    assert signatures.verify(statement, signatures.sign(statement, str(keys["eve"])), allowed) == ""
    for nonsense in ("", "nonsense", good[:-60]):
        assert signatures.verify(statement, nonsense, allowed) == ""
    assert signatures.verify(statement, good, b"") == ""
    with pytest.raises(OrchgitError, match="cannot sign"):
        signatures.sign(statement, str(tmp_path / "nobody"))


def test_a_signed_run(tmp_path: Path) -> None:
    world = make(tmp_path)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    allowed = b"ada " + key.with_suffix(".pub").read_bytes()
    world.commit(
        {".orchestration/config.toml": f'[log]\nsign = "{tmp_path / "nobody"}"\n', signatures.ALLOWED: allowed}
    )
    assert "cannot sign" in world.run(*world.start_args(simple()), code=2).err
    assert world.names() == []
    world.commit({".orchestration/config.toml": f'[log]\nsign = "{key}"\npublish_all = true\ntag = true\n'})
    world.run(*world.start_args(simple()), code=4)
    world.run("approve")
    world.run("resume")
    approved, started = world.one("plan.approved")["data"], world.one("run.started")["data"]
    statement = e.approval_statement(world.name, started["base"], 1, approved["digest"])
    assert signatures.verify(statement, approved["signature"], allowed) == "ada"
    door = door_of(world)
    for note in (ev["data"] for ev in world.events("log.checkpointed")):
        said = e.checkpoint_statement(world.name, note["seq"], note["hash"])
        assert signatures.verify(said, publish.signature_of(door, note["commit"]), allowed) == "ada"
    outputs = {r["output"] for ev in world.events("checks.passed") for r in ev["data"]["results"]}
    briefs = {ev["data"]["brief"] for ev in world.events("agent.started")}
    assert {f"blobs/{d}" for d in outputs | briefs} <= world.files(head(world))
    tag, allowing = f"orchgit/{world.name}", f"gpg.ssh.allowedSignersFile={world.repo / signatures.ALLOWED}"
    assert world.git("rev-parse", f"{tag}^{{commit}}") == world.one("run.completed")["data"]["tip"]
    ended = world.one("run.completed")
    assert f"Orchgit-Log: {ended['seq']}@sha256:{ended['hash']}" in world.git("cat-file", "tag", tag)
    checked = subprocess.run(
        ["git", "-c", allowing, "verify-tag", tag], cwd=world.repo, env=world.env, capture_output=True
    )
    assert b'Good "git" signature for ada' in checked.stderr, checked.stderr
    assert "orchgit/" not in world.run("audit").err
    # Made again after a crash it is the same, and is not somebody else's to move.
    before = world.git("rev-parse", f"refs/tags/{tag}")
    world.git("update-ref", "-d", f"refs/orchgit/runs/{world.name}")
    store = Store(world.log.parent)
    run = replay(world.name, store.read())
    assert publish.checkpoint(door, store, run, everything=True, key=str(key), tag=True).commit
    assert world.git("rev-parse", f"refs/tags/{tag}") == before
    world.git("tag", "-f", "-m", "mine", tag, "HEAD~1")
    assert f"refs/tags/{tag} names no event of the log" in world.run("audit", code=None).out
    world.git("update-ref", "-d", f"refs/orchgit/runs/{world.name}")
    unpublished = publish.checkpoint(door, store, run, everything=True, key=str(key), tag=True)
    assert (unpublished.commit, "git could not take it" in unpublished.why) == ("", True)
    door.close()
    assert os.path.exists(world.log)
