"""The door: nothing of the user's configuration has a say, objects are sound, refs move together or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchgit.git.door import Door, GitError, Missing
from tests.support.repos import WHEN, Repo, git, repository, snapshot, sound


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path / "r", {"a": b"1\n", "dir/b": b"2\n"})


def trap(path: Path, marker: Path) -> None:
    """A program that leaves a trace when somebody runs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {path.name} >>'{marker}'\nexit 1\n")
    path.chmod(0o755)


def test_neither_configuration_nor_environment_has_a_say(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    first, tree = repo.ask("rev-parse", "HEAD"), repo.ask("rev-parse", "HEAD^{tree}")
    repo.write("a", b"changed\n")
    second = repo.commit("second")
    fake = repo.made(tree, message="the replacement")
    git(repo.root, "update-ref", f"refs/replace/{second}", fake)
    # Of the repository:
    for name in ("reference-transaction", "pre-commit", "post-index-change", "fsmonitor", "filter", "diff", "pager"):
        trap(repo.common / "hooks" / name, marker)
    hook = repo.common / "hooks"
    for key, value in {
        "core.fsmonitor": str(hook / "fsmonitor"), "core.hooksPath": str(hook), "diff.external": str(hook / "diff"),
        "core.pager": str(hook / "pager"), "filter.x.smudge": str(hook / "filter"), "filter.x.required": "true",
        "filter.x.clean": str(hook / "filter"), "core.alternateRefsCommand": str(hook / "pager"),
        "diff.x.textconv": str(hook / "diff"), "user.useConfigOnly": "true",
        "core.attributesFile": str(tmp_path / "at"),
    }.items():  # fmt: skip
        git(repo.root, "config", key, value)
    (tmp_path / "at").write_text("* filter=x diff=x\n")
    (repo.common / "info").mkdir(exist_ok=True)
    (repo.common / "info" / "attributes").write_text("* filter=x diff=x\n")
    (repo.common / "info" / "grafts").write_text(f"{second}\n")
    # Of the user and the caller:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f"[core]\n\thooksPath = {hook}\n\tfsmonitor = {hook}/fsmonitor\n[broken\n")
    other = repository(tmp_path / "other")
    for key, value in {
        "HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_DIR": str(other.common), "GIT_WORK_TREE": str(other.root),
        "GIT_INDEX_FILE": str(tmp_path / "no-index"), "GIT_OBJECT_DIRECTORY": str(other.common / "objects"),
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": str(hook / "fsmonitor"),
        "GIT_CONFIG_PARAMETERS": "'diff.external'='/bin/false'", "GIT_EXTERNAL_DIFF": str(hook / "diff"),
        "GIT_TRACE": str(tmp_path / "trace"), "GIT_NAMESPACE": "ns", "GIT_REPLACE_REF_BASE": "refs/heads",
        "GIT_SHALLOW_FILE": str(tmp_path / "none"), "GIT_CEILING_DIRECTORIES": "/", "GIT_PAGER": str(hook / "pager"),
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)

    door = repo.door()
    assert door.commit(second) == (repo_tree(repo, second), (first,), "second\n")
    assert door.run("rev-list", "--count", second).strip() == b"2"
    assert door.run("diff", "--name-only", first, second) == b"a\n"
    assert b"changed" in door.run("diff", "--no-ext-diff", "--no-textconv", first, second)
    door.swap([("refs/orchgit/x", second, "")], "a reason")
    assert door.ref("refs/orchgit/x") == second
    assert not marker.exists(), marker.read_text()
    git(repo.root, "update-ref", "refs/x", second, check=False)
    assert marker.exists(), "the trap is set"
    assert not (tmp_path / "trace").exists()
    door.close()


def repo_tree(repo: Repo, commit: str) -> str:
    """Without replace refs."""
    return git(repo.root, "--no-replace-objects", "rev-parse", f"{commit}^{{tree}}").decode().strip()


@pytest.mark.parametrize("format", ["sha1", "sha256"])
def test_objects_are_git_s_own(tmp_path: Path, format: str) -> None:
    ids = []
    for name in ("one", "two"):
        repo = repository(tmp_path / name, format=format)
        door = repo.door()
        contents = [b"", b"\0\n\xff", b"x" * 100_000, b"fixed"]
        blobs = [door.write(b"blob", data) for data in contents]
        assert blobs == [repo.ask("hash-object", "--stdin", stdin=data) for data in contents]
        assert [door.read(oid) for oid in blobs] == [(b"blob", data) for data in contents]
        assert door.write(b"blob", b"fixed") == blobs[-1], "twice is harmless"
        tree, parent = repo.ask("rev-parse", "HEAD^{tree}"), repo.ask("rev-parse", "HEAD")
        commit = door.write_commit(tree, (parent,), "Ein Grund\n\nund mehr\n\n\n", WHEN, "Bob <bob@example.org>")
        assert door.commit(commit) == (tree, (parent,), "Ein Grund\n\nund mehr\n")
        assert repo.ask("log", "-1", "--format=%an %ae %cn %at %ct", commit) == (
            "Bob bob@example.org orchgit 1767225600 1767225600"
        )
        ids.append(commit)
        sound(repo)
        assert not list(repo.common.rglob("tmp_obj_*"))
        door.close()
    assert ids[0] == ids[1], "the same arguments, the same id, in any repository"


def test_a_full_disk_leaves_no_half_object(tmp_path: Path, repo: Repo) -> None:
    """RLIMIT_FSIZE takes a part of the write first, and refuses only the next, as a full disk does."""
    before = snapshot(repo.common / "objects")
    program = (
        "import resource, os, sys; from pathlib import Path; from orchgit.git.door import Door\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "try: Door(Path(sys.argv[1])).write(b'blob', os.urandom(100_000))\n"
        "except OSError as error: print('refused', error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(repo.common)], capture_output=True, text=True, check=True)
    assert done.stdout == "refused 27\n"
    after = snapshot(repo.common / "objects")
    assert {p for p in after if p not in before} <= {p for p in after if len(p) == 2}, "but for an empty directory"
    sound(repo)


def test_what_is_not_there_is_missing_and_the_reader_lives_on(repo: Repo) -> None:
    door = repo.door()
    head = repo.ask("rev-parse", "HEAD")
    first, reader = door.read(head), door._reader
    for name in ("0" * 40, "f" * 40, "0" * 64, "", "HEAD", "main", f"{head}\n{head}", f"{head} x", "a b c", head[:7],
                 f"{head}^{{tree}}", "\n", head.upper() + "0", "-h"):  # fmt: skip
        with pytest.raises(Missing):
            door.read(name)
        assert door.read(head) == first, name
    with pytest.raises(Missing):
        door.commit(repo.ask("rev-parse", "HEAD^{tree}"))
    assert door._reader is reader, "one process for all of it"
    assert door.read(repo.blob(b"new")) == (b"blob", b"new"), "made after the reader began"
    git(repo.root, "repack", "-adq")
    assert door.read(head) == first
    door.close()
    assert door.read(head) == first, "closed is not broken"
    door.close()


def test_a_damaged_object_is_missing_not_half_read(repo: Repo) -> None:
    door = repo.door()
    head, data = repo.ask("rev-parse", "HEAD"), os.urandom(300_000)
    oid = door.write(b"blob", data)
    path = repo.common / "objects" / oid[:2] / oid[2:]
    whole = path.read_bytes()
    path.chmod(0o644)
    for damaged in (whole[: len(whole) // 2], whole[:20], b"", b"\0" * len(whole), whole[:-1000] + b"\0" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(Missing):
            door.read(oid)
        assert door.read(head)[0] == b"commit"
    path.write_bytes(whole)
    assert door.read(oid) == (b"blob", data)
    for _ in range(3):
        assert door._reader is not None
        door._reader.kill()  # as the OOM killer does
        try:
            got = door.read(head)[0]
        except Missing:
            got = door.read(head)[0]
        assert got == b"commit"
    door.close()


def test_eight_threads_get_what_they_asked_for(repo: Repo) -> None:
    door = repo.door()
    known = {}
    for number in range(40):
        data = str(number).encode() * (1 + number * 997)
        known[door.write(b"blob", data)] = data

    def some(start: int) -> int:
        right = 0
        for at in range(120):
            oid = list(known)[(start * 7 + at) % len(known)]
            if at % 10 == 3:
                with pytest.raises(Missing):
                    door.read("1" * 40)
            right += door.read(oid) == (b"blob", known[oid])
            door.write(b"blob", b"same for all")
        return right

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(some, range(8))) == [120] * 8
    sound(repo)
    door.close()


# ---- refs


def test_refs_move_together_or_not_at_all(repo: Repo) -> None:
    door = repo.door()
    one = repo.ask("rev-parse", "HEAD")
    two = repo.made(repo.ask("rev-parse", "HEAD^{tree}"), one)
    door.swap([("refs/x/a", one, ""), ("refs/x/b", one, "")], "made")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/b", two, two)], "one of them is elsewhere")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/b", two, "")], "one of them is there already")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/c", two, one)], "one of them is not there")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/b/c", two, "")], "a ref below a ref")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/d", "1" * 40, "")], "an object that is not there")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/new\nline", two, "")], "a name that is none")
    with pytest.raises(GitError):
        door.swap([("refs/x/a", two, one), ("refs/x/e\nupdate refs/x/b", two, "")], "an instruction in a name")
    assert (door.ref("refs/x/a"), door.ref("refs/x/b"), door.ref("refs/x/c")) == (one, one, None)
    assert sorted(git(repo.root, "for-each-ref", "--format=%(refname)", "refs/x").split()) == [b"refs/x/a", b"refs/x/b"]
    door.swap([("refs/x/a", two, one), ("refs/x/b", two, None), ("refs/x/c", two, None)], "all of them")
    assert [door.ref(f"refs/x/{n}") for n in "abc"] == [two, two, two]
    door.swap([("refs/heads/topic", two, "")], "why it moved")
    assert repo.ask("log", "-g", "-1", "--format=%gs", "refs/heads/topic") == "why it moved"
    assert not list(repo.common.rglob("*.lock"))
    door.close()


def test_sixteen_writers_one_winner_each_time(repo: Repo) -> None:
    door = repo.door()
    tree, tip = repo.ask("rev-parse", "HEAD^{tree}"), repo.ask("rev-parse", "HEAD")
    door.swap([("refs/x/tip", tip, "")], "made")
    rivals = [door.write_commit(tree, (tip,), f"rival {n}", WHEN) for n in range(16)]

    def attempt(new: str) -> str | None:
        try:
            door.swap([("refs/x/tip", new, tip)], "mine")
        except GitError:
            return None
        return new

    with ThreadPoolExecutor(4) as pool:
        won = [new for new in pool.map(attempt, rivals) if new]
    assert won == [door.ref("refs/x/tip")]
    door.close()


def test_a_ref_is_found_by_its_full_name_only(repo: Repo) -> None:
    door = repo.door()
    head = repo.ask("rev-parse", "HEAD")
    git(repo.root, "update-ref", "refs/heads/refs/heads/twice", head)
    git(repo.root, "tag", "-a", "-m", "annotated", "v1")
    git(repo.root, "update-ref", "refs/heads/below/it", head)
    git(repo.root, "update-ref", "refs/heads/spaß", head)
    for name in (
        "refs/heads/twice",
        "twice",
        "main",
        "HEAD",
        head,
        "refs/heads/below",
        "refs/heads/*",
        "",
        "refs/heads/",
    ):
        assert door.ref(name) is None, name
    assert door.ref("refs/heads/main") == door.ref("refs/heads/below/it") == door.ref("refs/heads/spaß") == head
    git(repo.root, "pack-refs", "--all")
    assert door.ref("refs/heads/main") == head
    assert door.ref("refs/tags/v1") == repo.ask("rev-parse", "refs/tags/v1") != head
    door.close()


# ---- where a repository can be


def test_objects_by_alternates_and_from_a_shallow_clone(tmp_path: Path, repo: Repo) -> None:
    repo.write("a", b"2")
    head = repo.commit("second")
    git(tmp_path, "clone", "-q", "--shared", str(repo.root), "shared")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo.root}", "shallow")
    for name, commits in (("shared", b"2"), ("shallow", b"1")):
        door = Door(tmp_path / name / ".git")
        assert door.commit(head)[2] == "second\n"
        assert door.run("rev-list", "--count", head).strip() == commits
        door.close()
    git(tmp_path / "shallow", "fetch", "-q", "--unshallow")
    door = Door(tmp_path / "shallow" / ".git")
    assert door.run("rev-list", "--count", head).strip() == b"2", "the engine must not keep what the user has undone"
    door.close()


@pytest.mark.parametrize("name", ["with space", "q\"uote's", "back\\slash", "col:on", "ümlaut", "new\nline", "#hash;"])
def test_any_path(tmp_path: Path, name: str) -> None:
    repo = repository(tmp_path / name)
    door = repo.door()
    head = repo.ask("rev-parse", "HEAD")
    assert door.commit(head)[2] == "first\n"
    door.swap([("refs/x/y", head, "")], "made")
    door.barrier()
    assert door.ref("refs/x/y") == head
    door.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a repository away")
def test_a_repository_of_another_owner(repo: Repo) -> None:
    """In containers that is the rule; git refuses to look for itself there, and is told where to look."""
    subprocess.run(["chown", "-R", "65534:65534", str(repo.root)], check=True)
    door = repo.door()
    head = door.ref("refs/heads/main")
    assert head is not None
    assert door.commit(head)[2] == "first\n"
    door.close()
