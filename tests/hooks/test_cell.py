"""The hooks of a cell, with real git: what they refuse, what they say, and what they let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchgit import githooks
from orchgit.core.errors import OrchgitError
from orchgit.core.scope import Scope, hook_rules
from tests.hooks.support import BRANCH, SHELLS, Repo, Rules, make_cell, make_repo, script, snapshot

UNDO = (
    "undo it (git restore --staged -- PATH), or ask for it with the tool `request_scope`,"
    " or `orchgit request-scope PATH --why ...`."
)
every_shell = pytest.mark.parametrize("cell", SHELLS, indirect=True)


@every_shell
def test_work_in_scope_passes(cell: Repo) -> None:
    base = cell.head()
    cell.stage("app/new dir/é 'quoted\" name.py", "conftest.py")
    cell.git("commit", "-q", "-m", "in scope")
    cell.write("app/a.py", "again\n")
    cell.git("commit", "-q", "-a", "--amend", "-m", "amended")
    cell.git("mv", "app/a.py", "app/c.py")
    cell.git("commit", "-q", "-m", "renamed")
    cell.git("rm", "-q", "app/b.py")
    cell.git("commit", "-q", "-m", "deleted")
    cell.write("app/c.py", "stash me\n")
    cell.git("stash")
    cell.git("stash", "pop")
    cell.git("reset", "-q", "--hard")
    cell.git("switch", "-q", "-c", "side", base)
    cell.stage("app/side.py")
    cell.git("commit", "-q", "-m", "side")
    cell.git("rebase", "-q", BRANCH.removeprefix("refs/heads/"))
    cell.git("tag", "mine")
    cell.git("switch", "-q", BRANCH.removeprefix("refs/heads/"))
    cell.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    cell.git("branch", "-q", "-D", "side")
    cell.git("-c", "core.hooksPath=/dev/null", "branch", "there-already", "outside")
    cell.git("gc", "-q")
    cell.git("pack-refs", "--all")


@every_shell
def test_pre_commit_says_what_to_do(cell: Repo) -> None:
    cell.write("docs/x.md", "changed\n")
    cell.write("app/a.py", "changed\n")
    text = cell.refused("commit", "-q", "-a", "-m", "no")
    assert text.splitlines() == [
        "orchgit: docs/x.md is outside your scope (no pattern of the scope covers it)",
        f"orchgit: {UNDO}",
    ]
    cell.git("add", "-A")
    cell.git("restore", "--staged", "--", "docs/x.md")
    cell.git("commit", "-q", "-m", "yes")


@pytest.mark.parametrize(
    "command",
    [
        ["cherry-pick", "outside"],
        ["merge", "-q", "outside"],
        ["merge", "-q", "--no-ff", "--no-verify", "-m", "m", "outside"],
        ["update-ref", BRANCH, "outside"],
        ["branch", "-f", "other", "outside"],
        ["switch", "-q", "-c", "other", "outside"],
        ["reset", "-q", "--hard", "outside"],
        ["rebase", "-q", "outside"],
        ["revert", "--no-edit", "undone"],
        ["am", "-q", "../outside.patch"],
        ["fetch", "-q", ".", "outside:refs/heads/other"],
    ],
    ids=lambda command: "-".join(command[:3]),
)
def test_whatever_moves_a_branch_is_checked(cell: Repo, command: list[str]) -> None:
    if command[0] in ("cherry-pick", "merge", "rebase", "am"):
        cell.stage("app/new.py")
        cell.git("commit", "-q", "-m", "in scope")
    if command[0] == "am":
        (cell.path.parent / "outside.patch").write_text(cell.git("format-patch", "--stdout", "-1", "outside") + "\n")
    if command[0] == "revert":  # of a commit that took docs/x.md back to the base: reverting it changes it again
        tree = cell.git("rev-parse", "HEAD^{tree}")
        cell.git("tag", "undone", cell.git("commit-tree", "-m", "undone", "-p", "outside", tree))
    before = cell.head()
    assert "docs/x.md" in cell.refused(*command)
    assert cell.git("rev-parse", BRANCH) == before
    assert not cell.git("for-each-ref", "refs/heads/other")


def test_commit_no_verify_is_checked(cell: Repo) -> None:
    before = cell.head()
    cell.write("docs/x.md", "changed\n")
    assert "docs/x.md" in cell.refused("commit", "-q", "-n", "-a", "-m", "no")
    assert cell.head() == before


@every_shell
def test_what_pre_commit_has_checked_holds_for_that_commit_only(cell: Repo, tmp_path: Path) -> None:
    cell.stage("app/new.py")
    cell.git("commit", "-q", "-m", "checked once")
    hook = cell.path / ".git/hooks/commit-msg"
    script(hook, "exit 1")
    cell.stage("app/newer.py")
    assert cell.run("commit", "-q", "-m", "stopped after pre-commit").returncode != 0
    hook.unlink()
    cell.stage("docs/new.md")
    cell.refused("commit", "-q", "-n", "-m", "no")
    # A pre-commit of the user's that changes the index after ours has looked at it.
    git_dir, hooks = str(cell.path / ".git"), tmp_path / "user-hooks"
    script(hooks / "pre-commit", "git add -f docs/new.md")
    githooks.install_cell(git_dir, Rules(), base=cell.git("rev-parse", "outside^"), branch=BRANCH, chain=str(hooks))
    cell.git("restore", "--staged", "docs")
    assert "docs/new.md" in cell.refused("commit", "-q", "-m", "no")


@every_shell
def test_reasons_denied_protected_and_literal(cell: Repo) -> None:
    cell.stage("app/secret/key", "app/conftest.py", "app/.gitattributes", "conftest.py", "web/[x]", "web/*")
    text = cell.refused("commit", "-q", "-n", "-m", "no")
    assert text.splitlines()[:4] == [
        "orchgit: web/[x] is outside your scope (no pattern of the scope covers it)",
        "orchgit: app/secret/key is outside your scope (the scope denies it)",
        "orchgit: app/.gitattributes is outside your scope"
        " (protected: only a plan that names this very path grants it)",
        "orchgit: app/conftest.py is outside your scope (protected: only a plan that names this very path grants it)",
    ]
    assert text.splitlines()[4].startswith("orchgit: undo it")


def test_renames_count_on_both_sides(cell: Repo) -> None:
    cell.git("mv", "docs/x.md", "app/x.md")
    assert "docs/x.md" in cell.refused("commit", "-q", "-m", "into the scope")
    cell.git("reset", "-q", "--hard")
    cell.git("mv", "app/a.py", "docs/a.py")
    text = cell.refused("commit", "-q", "-m", "out of it")
    assert "docs/a.py" in text
    assert "app/a.py" not in text
    cell.git("reset", "-q", "--hard")
    (cell.path / "README.md").chmod(0o755)
    assert "README.md" in cell.refused("commit", "-q", "-a", "-m", "a mode is a change")


@every_shell
def test_names_cannot_break_the_terminal_or_the_check(cell: Repo) -> None:
    names = [
        b"docs/with space",
        "docs/é\u202e\u009b31m".encode(),
        b"docs/not utf-8 \x9b\xff",
        b"docs/esc\x1b[31m\x07\x7f",
        b"docs/back\\slash",
        b"docs/line\napp/in.py",
        b"app/line\nbreak",
        b"app/esc\x1b[2J",
    ]
    cell.stage(*names)
    text = cell.refused("commit", "-q", "-m", "no")
    assert all(" " <= char <= "~" for char in text.replace("\n", "")), text
    shown = {line.removeprefix("orchgit: ") for line in text.splitlines()}
    outside = " is outside your scope (no pattern of the scope covers it)"
    control = " is outside your scope (its name has a control character)"
    assert shown == {
        "docs/with space" + outside,
        "docs/\\303\\251\\342\\200\\256\\302\\23331m" + outside,
        "docs/not utf-8 \\233\\377" + outside,
        "docs/esc\\033[31m\\007\\177" + control,
        "docs/back\\\\slash" + outside,
        "docs/line\\napp/in.py" + control,
        "app/line\\nbreak" + control,
        "app/esc\\033[2J" + control,
        UNDO,
    }
    assert cell.refused("commit", "-q", "-n", "-m", "no").startswith(text)


def test_at_most_twenty_paths_are_told(cell: Repo) -> None:
    cell.stage_many(*(f"docs/many{i:04}" for i in range(2000)))  # more than one pipe's worth
    lines = cell.refused("commit", "-q", "-m", "no").splitlines()
    assert len(lines) == 22
    assert lines[20] == "orchgit: and 1980 more"


def test_an_older_commit_may_have_a_side_branch_but_not_the_branch_itself(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "cell")
    repo.write("docs/x.md", "newer\n")
    repo.git("commit", "-q", "-a", "-m", "newer")
    repo.git("switch", "-q", "-c", BRANCH.removeprefix("refs/heads/"))
    githooks.install_cell(str(repo.path / ".git"), Rules(), base=repo.head(), branch=BRANCH)
    repo.git("branch", "look", "HEAD~1")
    assert "docs/x.md" in repo.refused("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.parametrize(
    ("name", "content"),
    [("", None), ("", ""), ("", "base 1234\n"), (".sed", None), (".sed", "\\\1^(app/.*$\1!p\n")],
)
def test_what_cannot_be_checked_passes_and_is_said(cell: Repo, name: str, content: str | None) -> None:
    scope = cell.path / ".git" / (githooks.SCOPE_FILE + name)
    scope.unlink()
    if content is not None:
        scope.write_text(content)
    cell.write("docs/x.md", "changed\n")
    done = cell.run("commit", "-q", "-a", "-m", "x")
    assert done.returncode == 0, done.stderr
    assert b"orchgit: the scope could not be checked here" in done.stderr


def test_husky_in_a_cell_does_not_displace_ours(cell: Repo) -> None:
    cell.git("config", "core.hooksPath", ".husky/_")  # what `npm install` does
    cell.write("docs/x.md", "changed\n")
    cell.refused("commit", "-q", "-n", "-a", "-m", "no")


def test_a_cell_s_own_hooks_are_chained(cell: Repo, tmp_path: Path) -> None:
    hooks = tmp_path / "user-hooks"
    hooks.mkdir()
    log = tmp_path / "log"
    script(hooks / "pre-commit", f'echo "pre-commit $# $LC_ALL" >>{log}')
    script(hooks / "reference-transaction", f'echo "tx $1" >>{log}; cat >>{log}')
    git_dir = str(cell.path / ".git")
    githooks.install_cell(git_dir, Rules(), base=cell.head(), branch=BRANCH, chain=str(hooks))
    cell.stage("app/new.py")
    cell.git("commit", "-q", "-m", "yes")
    text = log.read_text()
    assert "pre-commit 0 C.UTF-8\n" in text
    assert f" {cell.head()} {BRANCH}\n" in text
    assert {"tx prepared", "tx committed"} <= set(text.splitlines())
    log.unlink()
    cell.write("docs/x.md", "changed\n")
    cell.refused("commit", "-q", "-a", "-m", "no")
    assert not log.exists()
    cell.git("reset", "-q", "--hard")
    script(hooks / "reference-transaction", 'cat >/dev/null; [ "$1" != prepared ]')
    cell.stage("app/other.py")
    assert cell.run("commit", "-q", "-m", "theirs says no").returncode != 0


def test_install_cell_again_changes_nothing_and_refuses_what_a_line_cannot_hold(cell: Repo) -> None:
    git_dir = cell.path / ".git"
    before = snapshot(git_dir)
    githooks.install_cell(str(git_dir), Rules(), base=cell.head(), branch=BRANCH)
    assert snapshot(git_dir) == before
    assert cell.git("config", "core.hooksPath") == str(git_dir / "hooks")
    for rules in (Rules(allow=""), Rules(literals=("a\nb",))):
        with pytest.raises(OrchgitError):
            githooks.install_cell(str(git_dir), rules, base=cell.head(), branch=BRANCH)


@every_shell
def test_the_scope_of_a_plan_decides_as_the_gate_does(cell: Repo) -> None:
    scope = Scope(allow=("app/**", "types/*.ts", "café/x?.md", "Makefile"), deny=("app/secret/",))
    base = cell.head()
    githooks.install_cell(str(cell.path / ".git"), hook_rules(scope), base=base, branch=BRANCH)
    paths = [
        *("app/a", "app/deep/er", "app/secret/key", "app/secret", "types/a.ts", "types/a.ts/evil", "types/a/b.ts"),
        *("café/x1.md", "café/xé.md", "Makefile", "app/Makefile", "app/.gitattributes", "APP/a", "apps/a", "app"),
        *("conftest.py", "app/[a]", "app/ü"),
    ]
    for path in paths:
        cell.git("read-tree", base)
        cell.git("rm", "-q", "-r", "--cached", "--ignore-unmatch", path)
        blob = cell.git("rev-parse", "HEAD:README.md")
        added = cell.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        if added.returncode:  # a file where the base has a directory
            continue
        tree = cell.git("write-tree")
        commit = cell.git("commit-tree", "-p", base, "-m", "x", tree)
        changed = cell.git("diff-tree", "-r", "-z", "--name-only", base, commit).split("\0")
        wanted = all(scope.allows(each.encode()) for each in changed if each)
        done = cell.run("update-ref", BRANCH, commit)
        assert (done.returncode == 0) == wanted, (path, done.stderr)
        cell.git("-c", "core.hooksPath=/dev/null", "update-ref", BRANCH, base)


def test_a_message_with_trailers_of_ours_is_refused(cell: Repo) -> None:
    cell.stage("app/new.py")
    before = cell.head()
    text = cell.refused("commit", "-q", "-m", "work", "-m", "orchgit-log: 7@sha256:\u202e\nOrchgit-Run: r1")
    assert text.splitlines() == [
        "orchgit: only orchgit writes this: orchgit-log: 7@sha256:???",
        "orchgit: only orchgit writes this: Orchgit-Run: r1",
        "orchgit: commit again without such lines; what you want to be known belongs into your report.",
    ]
    assert cell.head() == before
    cell.git("commit", "-q", "-m", "work on Orchgit-Log: in the middle of a line", "-m", "  Orchgit-Run: indented")


def test_nothing_is_pushed_from_a_cell(cell: Repo, tmp_path: Path) -> None:
    cell.git("init", "-q", "--bare", str(tmp_path / "remote"))
    text = cell.refused("push", "-q", str(tmp_path / "remote"), "HEAD:refs/heads/mine")
    assert "Commit on your branch and report" in text
    assert not cell.git("ls-remote", str(tmp_path / "remote"))


@every_shell
def test_ten_thousand_files(cell: Repo) -> None:
    cell.stage_many(*(f"app/many{number // 100}/{number}" for number in range(10_000)))
    cell.git("commit", "-q", "-m", "in scope")
    cell.stage_many("docs/one more")
    assert cell.refused("commit", "-q", "-m", "no").startswith("orchgit: docs/one more is outside your scope")


def test_a_sha256_repository(tmp_path: Path) -> None:
    cell = make_cell(tmp_path / "cell", format="sha256")
    cell.stage("app/new.py")
    cell.git("commit", "-q", "-m", "yes")
    assert len(cell.head()) == 64
    cell.git("branch", "gone")
    cell.git("branch", "-D", "gone")
    assert "docs/x.md" in cell.refused("cherry-pick", "outside")
    cell.git("cherry-pick", "--abort")
    cell.stage("docs/y.md")
    assert "docs/y.md" in cell.refused("commit", "-q", "-m", "no")


def test_the_index_that_is_committed_is_looked_at(cell: Repo) -> None:
    """`git commit -- PATH`, `-a` and `--only` commit another index than .git/index, which GIT_INDEX_FILE names."""
    cell.write("docs/x.md", "changed\n")
    cell.git("add", "-A")
    cell.write("app/a.py", "changed\n")
    cell.git("commit", "-q", "-m", "this path alone", "--", "app/a.py")
    assert cell.git("diff-tree", "-r", "--name-only", "--no-commit-id", "HEAD") == "app/a.py"
    assert "docs/x.md" in cell.refused("commit", "-q", "-m", "no", "--", "docs/x.md")
    cell.git("restore", "--staged", "docs/x.md")
    assert "docs/x.md" in cell.refused("commit", "-q", "-a", "-m", "no")
    assert "docs/x.md" in cell.refused("commit", "-q", "-m", "no", "--only", "docs/x.md")
