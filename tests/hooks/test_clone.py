"""The guard in a user's clone, with real git: what it refuses, what it says, and what it lets pass."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.hooks.support import SHELLS, Clone, Repo, every, make_clone, script, states, track_a_log

every_shell = pytest.mark.parametrize("clone", SHELLS, indirect=True)


@every_shell
def test_the_guard_refuses_with_words(clone: Clone) -> None:
    clone.git("update-ref", "refs/heads/orchgit/r1/integration", "HEAD")
    clone.git("update-ref", "refs/orchgit/runs/r1", "HEAD")
    assert states(clone.install()) == every("installed")
    clone.guarded()
    clone.git("switch", "-q", "orchgit/r1/integration")  # looking is free
    clone.write("README.md", "by hand\n")
    text = clone.refused("commit", "-q", "-a", GIT_EDITOR="touch ../edited; false")
    assert text.splitlines() == [
        "orchgit: you are on orchgit/r1/integration, which belongs to run r1: only orchgit moves it.",
        "orchgit: take what you have to a branch of your own: git switch -c my-branch",
        "orchgit: to do it all the same: ORCHGIT_ALLOW=1 git commit ...",
    ]
    assert not (clone.path.parent / "edited").exists()  # before anybody has written a message
    text = clone.refused("commit", "-q", "-n", "-a", "-m", "by hand")
    assert text.splitlines()[:3] == [
        "orchgit: orchgit/r1/integration belongs to run r1, and only orchgit moves it.",
        "orchgit: make your own branch from it: git switch -c my-branch orchgit/r1/integration",
        "orchgit: to do it all the same: ORCHGIT_ALLOW=1 git ...",
    ]
    clone.git("switch", "-q", "-c", "my-branch", "orchgit/r1/integration")
    clone.git("commit", "-q", "-a", "-m", "on my own")
    assert "orchgit clean r1" in clone.refused("branch", "-D", "orchgit/r1/integration")
    assert "orchgit's own record" in clone.refused("update-ref", "-d", "refs/orchgit/runs/r1")
    clone.refused("fetch", "-q", ".", "main:refs/orchgit/runs/r2")
    clone.git("branch", "orchgit-notes")
    clone.git("branch", "-m", "orchgit-notes", "orchgit/r1/notes")  # git renames without asking any hook
    clone.git("branch", "orchgit/notes/mine", ORCHGIT_ALLOW="1")
    clone.git("-c", "core.hooksPath=/dev/null", "update-ref", "refs/heads/orchgit/r1/integration", "HEAD")
    clone.git("pack-refs", "--all")
    clone.git("gc", "-q")
    # Packed, and deleted with and without its old value.
    assert not (clone.path / ".git/refs/heads/orchgit/r1/integration").exists()
    clone.refused("branch", "-D", "orchgit/r1/integration")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration")
    old = clone.git("rev-parse", "orchgit/r1/integration")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration", old)
    clone.refused("update-ref", "refs/heads/orchgit/r1/integration", "main")
    # A loose value over a packed one.
    clone.git("update-ref", "refs/heads/orchgit/r1/integration", "main", ORCHGIT_ALLOW="1")
    clone.refused("update-ref", "-d", "refs/heads/orchgit/r1/integration", clone.git("rev-parse", "main"))
    clone.refused("update-ref", "refs/heads/orchgit/r1/integration", old)
    assert clone.git("rev-parse", "orchgit/r1/integration") == clone.git("rev-parse", "main") != old


def test_a_fetch_of_many_refs_is_quick_and_whole(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script(clone.hooks / "reference-transaction", f'[ "$1" != prepared ] || cat >{log}')
    clone.install()
    lines = "".join(f"create refs/remotes/o/b{i} HEAD\n" for i in range(1_000))
    start = time.perf_counter()
    assert clone.feed(lines, "update-ref", "--stdin").returncode == 0
    assert time.perf_counter() - start < 20
    assert len(log.read_text().splitlines()) == 1_000
    assert log.read_text().splitlines()[-1].endswith(" refs/remotes/o/b999")
    many = lines + "create refs/heads/orchgit/r1/late HEAD\n"
    assert b"belongs to run r1" in clone.feed(many.replace("/o/", "/p/"), "update-ref", "--stdin").stderr


@every_shell
def test_ref_names_cannot_break_the_terminal(clone: Clone) -> None:
    clone.install()
    text = clone.refused("update-ref", "refs/heads/orchgit/r\u009b31m/\u202ex", "HEAD")
    assert all(" " <= char <= "~" for char in text.split("fatal:")[0].replace("\n", "")), text
    many = "".join(f"create refs/heads/orchgit/r1/b{i} HEAD\n" for i in range(30))
    done = clone.feed(many, "update-ref", "--stdin")
    assert done.returncode != 0
    assert done.stderr.decode().count(" belongs to run r1") == 20
    assert "orchgit: and 10 more" in done.stderr.decode()


@every_shell
def test_a_commit_that_rewrites_a_log_is_refused(clone: Clone) -> None:
    clone.install()
    track_a_log(clone)  # tracking it passes
    text = clone.refused("commit", "-q", "-m", "rewrite")
    assert ".orchestration/runs/r1/events.jsonl" in text
    assert "git restore --staged --worktree -- .orchestration/runs" in text
    clone.git("rm", "-q", "-r", "-f", ".orchestration")
    clone.refused("commit", "-q", "-m", "delete")
    clone.git("commit", "-q", "-m", "all the same", ORCHGIT_ALLOW="1")


def test_the_first_commit_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    clone = Clone(tmp_path / "new")
    clone.git("init", "-q")
    clone.install()
    clone.stage("a")
    clone.git("commit", "-q", "-m", "first")


@pytest.mark.parametrize("own_config", [False, True], ids=["", "worktreeConfig"])
def test_linked_worktrees_are_guarded_too(clone: Clone, tmp_path: Path, own_config: bool) -> None:
    clone.install()
    clone.git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    if own_config:
        clone.git("config", "extensions.worktreeConfig", "true")
        linked.git("config", "--worktree", "core.sparseCheckout", "false")
    linked.refused("branch", "orchgit/r1/x")
    track_a_log(linked)
    linked.refused("commit", "-q", "-m", "rewrite")
    linked.git("reset", "-q", "--hard")
    linked.git("switch", "-q", "-c", "orchgit/r1/api", ORCHGIT_ALLOW="1")
    linked.write("README.md", "by hand\n")
    assert "you are on orchgit/r1/api" in linked.refused("commit", "-q", "-a", "-m", "by hand")
    linked.git("switch", "-q", "-c", "my-branch")
    linked.git("commit", "-q", "-a", "-m", "on my own")


@pytest.mark.parametrize(
    "command",
    [
        ["commit", "-q", "-n", "--allow-empty", "-m", "x"],
        ["cherry-pick", "other"],
        ["merge", "-q", "other"],
        ["merge", "-q", "--no-ff", "--no-verify", "-m", "m", "other"],
        ["rebase", "-q", "other"],
        ["reset", "-q", "--hard", "other"],
        ["revert", "--no-edit", "HEAD"],
        ["am", "-q", "../other.patch"],
        ["update-ref", "refs/heads/orchgit/r1/api", "other"],
        ["branch", "-f", "orchgit/r1/integration", "other"],
        ["fetch", "-q", ".", "other:refs/heads/orchgit/r1/new"],
        ["push", "-q", ".", "other:refs/heads/orchgit/r1/new"],
    ],
    ids=lambda command: "-".join(command[:3]),
)
def test_whatever_moves_a_run_s_branch_is_refused(clone: Clone, command: list[str]) -> None:
    clone.git("switch", "-q", "-c", "other")
    clone.stage("new")
    clone.git("commit", "-q", "-m", "other")
    (clone.path.parent / "other.patch").write_text(clone.git("format-patch", "--stdout", "-1") + "\n")
    clone.git("branch", "orchgit/r1/integration", "main")
    clone.git("switch", "-q", "-c", "orchgit/r1/api", "main")
    if command[0] != "branch":  # so that a rebase has something to put on top
        clone.stage("mine")
        clone.git("commit", "-q", "-m", "mine")
    before = clone.git("for-each-ref", "refs/heads/orchgit")
    clone.install()
    assert " belongs to run r1" in clone.refused(*command)
    assert clone.git("for-each-ref", "refs/heads/orchgit") == before


@every_shell
def test_pushing_what_belongs_to_a_run(clone: Clone, tmp_path: Path) -> None:
    clone.git("commit", "-q", "--allow-empty", "-m", "two words")
    clone.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    clone.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    clone.git("branch", "orchgit/r1/api")
    clone.git("update-ref", "refs/orchgit/runs/r1", "HEAD")
    clone.git("update-ref", "refs/orchgit/notes", "HEAD")
    clone.install()
    clone.git("push", "-q", "origin", "main")
    clone.git("push", "-q", "origin", "orchgit/r1/api:refs/heads/mine")  # under a name of one's own
    clone.git("push", "-q", "origin", "HEAD^{/two words}:refs/heads/by-words")
    text = clone.refused("push", "-q", "origin", "refs/*:refs/*")
    assert text.splitlines()[:5] == [
        "orchgit: orchgit/r1/api belongs to run r1, and only orchgit pushes it.",
        "orchgit: refs/orchgit/notes is orchgit's own record, and only orchgit pushes it.",
        "orchgit: refs/orchgit/runs/r1 belongs to run r1, and only orchgit pushes it.",
        "orchgit: push what is yours by its name: git push REMOTE my-branch",
        "orchgit: to push these all the same: ORCHGIT_ALLOW=1 git push ...",
    ]
    clone.refused("push", "-q", "origin", "--all")
    clone.refused("push", "-q", "origin", "HEAD^{/two words}:refs/heads/orchgit/r1/words")
    assert "orchgit" not in clone.git("ls-remote", "origin")
    clone.git("push", "-q", "origin", "refs/*:refs/*", ORCHGIT_ALLOW="1")
    clone.refused("push", "-q", "origin", "--delete", "orchgit/r1/api")
    clone.git("-c", "core.hooksPath=/dev/null", "push", "-q", "origin", "--delete", "orchgit/r1/api")  # as the engine


def test_a_published_log_only_grows(clone: Clone, tmp_path: Path) -> None:
    clone.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    there, log = str(tmp_path / "remote.git"), "refs/orchgit/runs/r1"
    clone.install()
    clone.git("push", "-q", there, f"main:{log}", ORCHGIT_ALLOW="1")
    clone.stage("more")
    clone.git("commit", "-q", "-m", "more")
    clone.git("push", "-q", there, f"main:{log}", ORCHGIT_ALLOW="1")
    published = clone.git("ls-remote", there, log)
    for argument in (f"+main~1:{log}", f":{log}"):
        for allowed in ({}, {"ORCHGIT_ALLOW": "1"}):
            text = clone.refused("push", "-q", there, argument, **allowed)
            assert text.splitlines()[:3] == [
                f"orchgit: {log} is the log of run r1, and this push would rewrite or remove it there.",
                "orchgit: what is published is what an audit holds a log against.",
                "orchgit: to rewrite it all the same: git push --no-verify ...",
            ]
            assert there not in text.partition("error: ")[0]  # an address may hold a password
    # What somebody else has published, and is not here to compare with.
    stranger = make_clone(tmp_path / "stranger")
    stranger.git("commit", "-q", "--allow-empty", "-m", "stranger")
    stranger.git("push", "-q", "--force", there, f"main:{log}")
    clone.refused("push", "-q", "--force", there, f"main:{log}", ORCHGIT_ALLOW="1")
    assert published.split()[0] not in clone.git("ls-remote", there, log)
    clone.git("push", "-q", "--force", "--no-verify", there, f"main:{log}")
    assert clone.git("ls-remote", there, log) == published


@every_shell
def test_a_message_that_says_a_log_attests_it(clone: Clone) -> None:
    clone.git("commit", "-q", "--allow-empty", "-m", "Merge api", "-m", "Orchgit-Run: r1\nOrchgit-Log: 7@sha256:ab")
    attested = clone.head()
    clone.install()
    clone.stage("more")
    for command in (["--amend", "--no-edit"], ["-C", attested], ["-m", "x", "--trailer", "orchgit-log: é"]):
        text = clone.refused("commit", "-q", *command)
        assert "orchgit: only orchgit writes this: Orchgit-Log: 7@sha256:ab\n" in text or "orchgit-log: ??\n" in text
        assert text.splitlines()[-3:] == [
            "orchgit: such a line says that the log of a run attests this very commit.",
            "orchgit: take it out of your message, which is kept in .git/COMMIT_EDITMSG",
            "orchgit: to do it all the same: ORCHGIT_ALLOW=1 git commit ...",
        ]
        assert clone.head() == attested
    clone.git("commit", "-q", "-m", "what Orchgit-Log: means", "-m", " Orchgit-Log: indented")
    # The diff of `commit -v` is not the message.
    clone.write("quoted", "Orchgit-Log: 7\n")
    clone.git("add", "-A")
    clone.git("commit", "-q", "-v", GIT_EDITOR="sed -i 1s/^/words/")
    clone.git("commit", "-q", "--amend", "-C", attested, ORCHGIT_ALLOW="1")


def test_a_sha256_repository(tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "clone", format="sha256")
    clone.install()
    clone.guarded()
    clone.git("branch", "-D", "free")
    track_a_log(clone)
    clone.refused("commit", "-q", "-m", "rewrite")


def test_the_index_that_is_committed_is_looked_at(clone: Clone) -> None:
    clone.install()
    track_a_log(clone)
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-m", "this path alone", "--", "README.md")
    clone.refused("commit", "-q", "-m", "the log alone", "--", ".orchestration")
    clone.git("restore", "--staged", ".orchestration")
    clone.refused("commit", "-q", "-a", "-m", "all")


def test_names_in_any_bytes_and_ten_thousand_files(clone: Clone) -> None:
    clone.install()
    log = ".orchestration/runs/r1/"
    clone.stage_many(*(f"{log}{number}" for number in range(10_000)), log.encode() + b"line\nbreak\x1b[31m\xff")
    clone.git("commit", "-q", "-m", "tracked")
    clone.git("rm", "-q", "-r", "--cached", ".orchestration")
    text = clone.refused("commit", "-q", "-m", "gone")
    assert text.count("this commit rewrites a run log") == 20
    clone.git("reset", "-q")
    clone.git("rm", "-q", "--cached", "--", f"{log}line*")
    assert f'rewrites a run log: "{log}line\\nbreak\\033[31m\\377"' in clone.refused("commit", "-q", "-m", "gone")
