"""Installing beside whatever stands there, and uninstalling: byte for byte and mode for mode as before."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit import githooks
from orchgit.core.errors import Kind, OrchgitError
from orchgit.git.user import discover, work_trees
from tests.hooks.support import Clone, details, every, make_clone, script, snapshot, states, track_a_log

ODD = "my \"own\" 'clone'  $HOME ü\u202e\\ [x]"
WRITTEN = {  # what stands there, and its mode
    "a hook": (b"#!/bin/sh\nexit 0\n", 0o755),
    "without a shebang": (b"exit 0\n", 0o750),
    "switched off": (b"#!/bin/sh\nexit 1\n", 0o640),
    "read-only": (b"#!/bin/sh\n\xff\0", 0o555),
    "empty": (b"", 0o644),
}
LINKED = {"a link": "../../tools/hook", "a broken link": "../nowhere", "a link to a loop": "loop"}
KINDS = ["nothing", "a directory", *WRITTEN, *LINKED]
WHERE = {  # core.hooksPath, relative to the work tree
    "not set": None,
    "in .git": ".git/my hooks",
    "in the work tree": ".githooks",
    "deep in the work tree": "tools/git hooks",
    "outside": "../shared",
}


def put(path: Path, kind: str) -> None:
    if kind in WRITTEN:
        path.write_bytes(WRITTEN[kind][0])
        path.chmod(WRITTEN[kind][1])
    elif kind in LINKED:
        path.symlink_to(LINKED[kind])
    elif kind == "a directory":
        script(path / "part", "exit 0")


def hooks_of(top: Path) -> dict[str, tuple[int, bytes]]:
    """What there is of hooks, ours and theirs."""
    return {name: found for name, found in snapshot(top).items() if "hooks" in name or "orchgit" in name}


@settings(max_examples=80, deadline=None)
@given(
    hooks=st.fixed_dictionaries({name: st.sampled_from(KINDS) for name in githooks.NAMES}),
    others=st.sets(st.sampled_from(["helper", "pre-push.sample", "pre-commit.d", "post-commit", "pre-push.old"])),
    where=st.sampled_from(sorted(WHERE)),
    absolute=st.booleans(),
    directory=st.booleans(),
)
def test_every_layout_is_put_back(
    hooks: dict[str, str], others: set[str], where: str, absolute: bool, directory: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve() / ODD
        common = root / ".git"
        common.mkdir(parents=True)
        script(root / "tools/hook", "exit 0")
        path = WHERE[where]
        if path and absolute:
            path = os.path.normpath(root / path)
        place = Path(os.path.normpath(root / (path or ".git/hooks")))
        if directory:
            place.mkdir(parents=True, exist_ok=True)
            (place / "loop").symlink_to("loop")
            for hook, kind in hooks.items():
                put(place / hook, kind)
            for each in others:
                script(place / each, "exit 0")
        before, standing_there = snapshot(root.parent), snapshot(place)
        found = githooks.install(str(common), path, work_tree=str(root))
        first = snapshot(root.parent)
        assert (
            githooks.install(str(common), path, work_tree=str(root))
            == found
            == githooks.status(str(common), path, work_tree=str(root))
        )
        assert snapshot(root.parent) == first, "a second time changes nothing"
        ours = where in ("not set", "in .git")
        assert all(each.in_force for each in found) == ours
        for hook, kind in hooks.items():
            standing = directory and kind not in ("nothing", "a broken link", "a link to a loop")
            runs = standing and os.access(
                place.parent / f"{place.name}.orchgit-chained" / hook if ours else place / hook, os.X_OK
            )
            if ours:
                assert states(found)[hook] == ("chained" if runs else "installed"), (hook, kind)
            elif directory:
                assert "not orchgit's to write" in details(found)[hook]
        if not ours:
            assert snapshot(place) == standing_there
        githooks.uninstall(str(common), path, work_tree=str(root))
        assert snapshot(root.parent) == before
        githooks.uninstall(str(common), path, work_tree=str(root))
        assert snapshot(root.parent) == before


def test_fresh_from_git_and_without_a_template(tmp_path: Path) -> None:
    """Sample files only, as `git init` leaves it; no directory of hooks at all; with git itself."""
    samples = Clone(tmp_path / "samples")
    samples.path.mkdir()
    samples.git("init", "-q")
    assert any(each.suffix == ".sample" for each in samples.hooks.iterdir())
    assert states(samples.round_trip()) == every("installed")
    clone = make_clone(tmp_path / ODD)
    shutil.rmtree(clone.hooks)
    assert states(clone.round_trip()) == every("installed")
    clone.guarded()


@pytest.mark.parametrize("name", ["plain", ODD, "new\nline", os.fsdecode(b"bytes \xff")], ids=repr)
@pytest.mark.parametrize("value", [None, ".git/own hooks", "~/{name}/.git/own hooks", "{root}/.git/own"])
def test_the_guard_where_git_looks_for_it(tmp_path: Path, name: str, value: str | None) -> None:
    clone = make_clone(tmp_path / name)
    if value is not None:
        clone.set_hooks_path(value.format(name=name, root=clone.path))
    assert states(clone.round_trip()) == every("installed")
    clone.guarded()
    clone.uninstall()
    clone.git("update-ref", "refs/heads/orchgit/r1/api", "HEAD")


def test_hooks_that_are_tracked_or_shared_are_left_alone_and_can_call_ours(tmp_path: Path) -> None:
    """As `detail` says; what follows the line still has the input."""
    clone, log = make_clone(tmp_path / ODD), tmp_path / "log"
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    for value in (".githooks", f"{clone.path}/tools/hooks", "../shared hooks", "~/home hooks"):
        clone.set_hooks_path(value)
        where = Path(clone.git("rev-parse", "--git-path", "hooks"))
        directory = where if where.is_absolute() else clone.path / where
        directory.mkdir(parents=True)
        for hook in githooks.NAMES:
            script(directory / hook, "exit 0")
        before = snapshot(directory)
        found = clone.round_trip()
        assert states(found) == every("foreign")
        assert snapshot(directory) == before
        for hook in githooks.NAMES:
            line = details(found)[hook].partition(f"add to {directory.resolve() / hook}: ")[2]
            assert line
            rest = f'printf "%s\\n" "$updates" >>"{log}"' if "updates" in line else f'echo "{hook}" >>"{log}"'
            script(directory / hook, f"{line}\n{rest}")
        assert states(clone.status()) == every("chained")
        assert clone.install() == clone.status()
        clone.guarded()
        clone.stage("new")
        clone.refused("commit", "-q", "-m", "x", "-m", "Orchgit-Log: 7")
        clone.git("commit", "-q", "-m", "x")
        clone.git("push", "-q", str(tmp_path / "remote"), "HEAD:refs/heads/mine")
        clone.refused("push", "-q", str(tmp_path / "remote"), "HEAD:refs/heads/orchgit/r1/api")
        track_a_log(clone)
        clone.refused("commit", "-q", "-m", "rewrite")
        told = log.read_text()
        assert all(word in told for word in ("pre-commit\n", "commit-msg\n", " refs/heads/free\n", " refs/heads/mine "))
        clone.uninstall()
        assert states(clone.status()) == every("foreign")
        assert "calls it, and it is not there" in clone.status()[0].detail
        clone.git("commit", "-q", "-m", "the lines do nothing where orchgit is not")
        log.unlink()
        clone.git("rm", "-q", "-r", "-f", ".orchestration", "new")
        clone.git("commit", "-q", "-m", "back")
        clone.git("branch", "-D", "free")
        clone.git("push", "-q", str(tmp_path / "remote"), ":refs/heads/mine")


def test_a_hooks_directory_that_links_into_the_work_tree(clone: Clone) -> None:
    script(clone.path / "githooks/pre-commit", "exit 0")
    clone.hooks.rmdir()
    clone.hooks.symlink_to("../githooks")
    before = snapshot(clone.path / "githooks")
    assert states(clone.round_trip()) == every("absent", pre_commit="foreign")
    assert snapshot(clone.path / "githooks") == before


def test_a_hooks_directory_that_links_to_another_of_git_s(clone: Clone) -> None:
    clone.hooks.rename(clone.path / ".git/those")
    clone.hooks.symlink_to("those")
    script(clone.hooks / "pre-commit", "exit 9")
    assert states(clone.round_trip()) == every("installed", pre_commit="chained")
    clone.guarded()
    assert clone.run("commit", "--allow-empty", "-m", "x").returncode != 0


def test_no_hooks_at_all(clone: Clone) -> None:
    for value in ("/dev/null", ".husky/_", ""):
        clone.set_hooks_path(value)
        found = githooks.install(str(clone.common), discover(clone.path).hooks_path, work_tree=str(clone.path))
        assert not any(each.in_force for each in found)
        if value:
            assert "and that is no directory: git runs no hook at all here" in found[0].detail
        clone.git("update-ref", "refs/heads/orchgit/r1/api", "HEAD")
        clone.git("-c", "core.hooksPath=/dev/null", "update-ref", "-d", "refs/heads/orchgit/r1/api")


def test_each_work_tree_has_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = make_clone(tmp_path / ODD)
    linked = Clone(tmp_path / "linked  tree")
    clone.git("worktree", "add", "-q", "-b", "linked", str(linked.path))
    clone.git("worktree", "add", "-q", "-b", "gone", str(tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")
    clone.git("config", "extensions.worktreeConfig", "true")
    linked.git("config", "--worktree", "core.hooksPath", f"{clone.path}/.git/linked hooks")
    for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"):
        monkeypatch.setenv(key, clone.env[key])
    hooks_path = f"{clone.path}/.git/linked hooks"
    assert work_trees(discover(clone.path)) == [(clone.path, None), (linked.path, hooks_path)]
    assert work_trees(discover(linked.path)) == [(linked.path, hooks_path), (clone.path, None)]
    script(Path(hooks_path) / "pre-commit", "exit 0")
    before = hooks_of(tmp_path)
    assert states(linked.round_trip()) == every("installed", pre_commit="chained")
    linked.guarded()
    linked.git("update-ref", "-d", "refs/heads/free")
    clone.git("update-ref", "refs/heads/orchgit/r1/api", "HEAD")  # the other one has none yet
    clone.git("update-ref", "-d", "refs/heads/orchgit/r1/api")
    assert states(clone.round_trip()) == every("installed")
    clone.guarded()
    clone.git("update-ref", "-d", "refs/heads/free")
    linked.uninstall()
    clone.uninstall()
    assert {k: v for k, v in snapshot(tmp_path).items() if "/hooks" in k} == {
        k: v for k, v in before.items() if "/hooks" in k
    }


def test_a_new_hook_over_ours_is_not_overwritten_and_none_is_lost(clone: Clone) -> None:
    script(clone.hooks / "pre-commit", "exit 0 # first")
    clone.install()
    script(clone.hooks / "pre-commit", "exit 0 # second")
    first, second = clone.install(), (clone.hooks / "pre-commit").read_text()
    assert states(first)["pre-commit"] == "foreign"
    assert "your earlier hook is kept at" in details(first)["pre-commit"]
    assert "second" in second
    clone.uninstall()
    assert "second" in (clone.hooks / "pre-commit").read_text()
    assert "first" in (clone.path / ".git/hooks.orchgit-chained/pre-commit").read_text()


def test_killed_in_the_middle_of_moving_a_hook_aside(clone: Clone) -> None:
    script(clone.hooks / "pre-commit", "exit 0")
    before = snapshot(clone.path)
    (clone.path / ".git/hooks.orchgit-chained").mkdir()
    os.link(clone.hooks / "pre-commit", clone.path / ".git/hooks.orchgit-chained/pre-commit")
    assert states(clone.install())["pre-commit"] == "chained"
    clone.uninstall()
    assert snapshot(clone.path) == before


def test_an_older_version_is_told_and_renewed(clone: Clone) -> None:
    clone.install()
    hook = clone.hooks / "pre-commit"
    current = hook.read_bytes()
    hook.write_bytes(current + b"# older\n")
    assert "another version" in clone.status()[0].detail
    clone.install()
    assert hook.read_bytes() == current
    hook.chmod(0o644)
    assert states(clone.status())["pre-commit"] == "absent"
    assert states(clone.install())["pre-commit"] == "installed"


def test_what_cannot_be_written_is_said(clone: Clone) -> None:
    clone.hooks.rmdir()
    clone.hooks.write_text("a file")
    before = snapshot(clone.path)
    with pytest.raises(OrchgitError) as told:
        clone.install()
    assert told.value.kind == Kind.USAGE
    assert str(clone.hooks) in told.value.what
    assert "a directory that you can write" in told.value.hint
    assert snapshot(clone.path) == before
