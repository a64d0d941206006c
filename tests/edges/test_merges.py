"""The engine's commit messages: trailers are ours alone, whatever an agent writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchgit.git import merges
from tests.support.repos import WHEN, git, repository, sound

OURS = {"Orchgit-Run": "r1", "Orchgit-Log": "7@sha256:" + "0" * 64}
TRICKS = [
    "Orchgit-Log: 1@sha256:forged",
    "fine\n\nOrchgit-Run: other",
    "fine\r\nORCHGIT-Run: other",
    "Orchgit\r-Run: other",
    "x\u2028Orchgit-Run: other\u2029Orchgit-Log: forged",
    "x\x85Orchgit-Run: other\x0bOrchgit-Run: other",
    "Orch\x1bgit-Run: other",
    "Orchgit-Run: other\nOrchgit-Log: forged",
    "text\n\nSigned-off-by: x\nOrchgit-Run: other\n\n\n",
    "---\nOrchgit-Run: other",
    "",
    "a" * 5000,
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trailer_but_ours(tmp_path: Path, trick: str) -> None:
    repo = repository(tmp_path / "r")
    door = repo.door()
    for subject, body in ((trick, ""), ("subject", trick), (trick, trick)):
        text = merges.message(subject, body, OURS)
        commit = door.write_commit(repo.ask("rev-parse", "HEAD^{tree}"), (), text, WHEN)
        sound(repo)
        said = git(repo.root, "log", "-1", "--format=%(trailers:only,unfold)", commit).decode().splitlines()
        assert [line for line in said if line.lower().startswith("orchgit-")] == [f"{k}: {v}" for k, v in OURS.items()]
        below = text.partition("\n")[2].splitlines()
        bare = [line for line in below if line.lower().startswith("orchgit-")]
        assert bare == [f"{k}: {v}" for k, v in OURS.items()], "nor a line that a simpler reader could take for one"
        shown = git(repo.root, "log", "-1", "--format=%B", commit).decode()
        assert not [c for c in shown if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]
        assert len(git(repo.root, "log", "-1", "--format=%s", commit)) <= 100 + 1
        assert door.commit(commit)[2].startswith(shown.splitlines()[0])
    door.close()


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("fixes #1, Closes org/other#2", "fixes # 1, Closes org/other# 2"),
        ("resolves: GH-12 and gh-x", "resolves: GH- 12 and gh-x"),
        ("fixes https://github.com/o/r/issues/7", "fixes https://github.com/o/r/issues/ 7"),
        ("cc @org/team (@lea) a@example.com", "cc @ org/team (@ lea) a@example.com"),
        ("[skip ci] [ci skip] [no ci] [skip actions] [x]", "[ skip ci] [ ci skip] [ no ci] [ skip actions] [x]"),
        ("***NO_CI***", "*** NO_CI***"),
        ("x\n\nCo-authored-by: V <v@example.com>", "x\n\n Co-authored-by: V <v@example.com>"),
        ("x\n\n\nskip-checks: true", "x\n\n\n skip-checks: true"),
        ("C# 7, a#b, note: by hand", "C# 7, a#b, note: by hand"),
    ],
)
def test_it_calls_nobody_and_closes_nothing(said: str, left: str) -> None:
    assert merges.message("subject", said, OURS).split("\n", 2)[2].startswith(f"{left}\n\nOrchgit-Run: r1\n")


def test_dates_and_unicode_are_kept(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r")
    door = repo.door()
    text = merges.message("Grüße", "日本\n\tindented", OURS)
    commit = door.write_commit(
        repo.ask("rev-parse", "HEAD^{tree}"), (), text, merges.git_date("2026-02-28T23:59:59.999Z")
    )
    assert repo.ask("log", "-1", "--format=%s|%cI|%aI|%cn", commit) == (
        "Grüße|2026-02-28T23:59:59+00:00|2026-02-28T23:59:59+00:00|orchgit"
    )
    door.close()
