"""Beside real installations of husky, lefthook and pre-commit: before them, after them, and out in both orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchgit import githooks
from tests.hooks.managers import Managed
from tests.hooks.support import Clone, details, every, make_clone, script, snapshot, states, track_a_log

pytestmark = pytest.mark.slow
MANAGERS = ("husky", "lefthook", "pre-commit")
PLACES = {"plain": "clone", "spaces": "my  own 'clone' & ü", "linked work tree": "clone"}
# Once theirs stands in three of the four places.
STANDING = {
    "husky": every("foreign", reference_transaction="installed"),
    "lefthook": every("foreign", reference_transaction="installed"),
    "pre-commit": every("chained", reference_transaction="installed"),
}


@pytest.fixture(params=[(manager, place) for manager in MANAGERS for place in PLACES], ids="-".join)
def managed(request: pytest.FixtureRequest, tmp_path: Path, managers: Path) -> Managed:
    manager, place = request.param
    clone: Clone = make_clone(tmp_path / PLACES[place])
    if place == "linked work tree":
        clone.git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked tree"))
        clone = Clone(tmp_path / "linked tree")
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    return Managed(clone.path, managers, manager, tmp_path / "their log")


def in_force(managed: Managed) -> None:
    """Whatever status() calls in force refuses, and theirs run all the same."""
    found, base = states(managed.status()), managed.head()
    live = {name for name, state in found.items() if state in ("installed", "chained")}
    remote = str(managed.path.parent / "remote")
    managed.guarded()
    managed.commit()
    managed.git("push", "-q", remote, "HEAD:refs/heads/mine")
    assert managed.theirs_ran() == 1
    done = managed.run("push", remote, "HEAD:refs/heads/orchgit/r1/x")
    assert (done.returncode != 0) == ("pre-push" in live)
    done = managed.run("commit", "--allow-empty", "-m", "x", "-m", "Orchgit-Log: 7")
    assert (done.returncode != 0) == ("commit-msg" in live)
    track_a_log(managed, "-n")
    assert (managed.run("commit", "-m", "rewrite").returncode != 0) == ("pre-commit" in live)
    quiet = ("-c", "core.hooksPath=/dev/null")
    managed.git(*quiet, "reset", "-q", "--hard", base)
    managed.git(*quiet, "push", "-q", "--prune", remote, "refs/heads/none*:refs/heads/*")
    managed.git(*quiet, "branch", "-D", "free")


def test_after_them(managed: Managed) -> None:
    managed.put()
    found = managed.round_trip()  # that all is as before after uninstalling is looked at in there
    assert states(found) == STANDING[managed.manager]
    in_force(managed)
    before = snapshot(managed.hooks)
    managed.put()  # theirs again, over ours
    assert states(managed.status()) == STANDING[managed.manager]
    assert snapshot(managed.hooks) == before
    managed.take_out()
    managed.uninstall()
    assert not ours_left(managed)
    assert managed.run("update-ref", "refs/heads/orchgit/r1/api", "HEAD").returncode == 0


def test_before_them(managed: Managed) -> None:
    mine = managed.path.parent / "my log"
    script(managed.hooks / "pre-commit", f'echo mine >>"{mine}"')
    script(managed.hooks / "reference-transaction", f'echo mine >>"{mine}"; cat >/dev/null')
    before = {each.name: each.read_bytes() for each in managed.hooks.iterdir()}
    assert states(managed.install()) == every("installed", pre_commit="chained", reference_transaction="chained")
    managed.put()
    standing = {**STANDING[managed.manager], "reference-transaction": "chained"}
    if managed.manager == "husky":  # git looks into .husky/_ alone from now on: our guard of the refs is not there
        assert states(managed.status()) == every("foreign", reference_transaction="absent")
        assert states(managed.install()) == STANDING["husky"]
    else:
        assert states(managed.status()) == standing
        assert states(managed.install()) == standing
    in_force(managed)
    # Out in the other order than in.
    managed.take_out()
    if managed.manager != "husky":
        assert states(managed.status()) == every("installed", pre_commit="chained", reference_transaction="chained")
    managed.uninstall()
    assert {each.name: each.read_bytes() for each in managed.hooks.iterdir()} == before
    assert not ours_left(managed)


def test_before_them_and_out_before_them(managed: Managed) -> None:
    script(managed.hooks / "pre-commit", "exit 0 # mine")
    managed.install()
    managed.put()
    managed.install()
    managed.uninstall()
    assert not ours_left(managed)
    managed.commit()  # theirs goes on
    # As if ours had never been there.
    there = snapshot(managed.hooks)
    managed.take_out()
    assert "mine" in (managed.hooks / "pre-commit").read_text()
    script(managed.hooks / "pre-commit", "exit 0 # mine")
    managed.put()
    assert snapshot(managed.hooks) == there


def ours_left(managed: Managed) -> list[str]:
    places = {**snapshot(managed.common), **snapshot(managed.path)}
    return [name for name, (_, data) in places.items() if b"# orchgit-hook" in data or "orchgit-" in name]


def test_the_line_that_is_offered_works(managed: Managed) -> None:
    """What `hooks status` says to add to husky's scripts or to lefthook.yml."""
    if managed.manager == "pre-commit":
        return  # it has a door of its own
    managed.put()
    for name, told in details(managed.install()).items():
        if name == "reference-transaction":
            continue
        if managed.manager == "husky":
            path = managed.path / ".husky" / name
            path.write_text(told.partition(f"{path}: ")[2] + "\n" + path.read_text())
        else:
            path = managed.path / "lefthook.yml"
            under = f"{name}:\n  commands:\n"
            path.write_text(path.read_text().replace(under, f"{under}    {told.partition('commands: ')[2]}\n"))
    managed.put()
    assert states(managed.install()) == every("chained", reference_transaction="installed")
    in_force(managed)
    managed.uninstall()
    managed.commit()  # the lines do nothing where orchgit is not
    assert not managed.status()[0].in_force


@pytest.mark.parametrize("managed", [("husky", "plain")], indirect=True, ids=["husky"])
def test_npm_install_in_a_new_work_tree(managed: Managed) -> None:
    managed.tool("npm", "run", "--silent", "prepare")  # as `npm install` does
    managed.install()
    linked = managed.path.parent / "another-tree"
    managed.git("worktree", "add", "-q", str(linked))
    fresh = githooks.status(str(managed.common), managed.hooks_path, work_tree=str(linked))
    assert {each.state for each in fresh} == {"absent"}
    assert "that is no directory: git runs no hook at all here" in fresh[0].detail
    Clone(linked).git("update-ref", "refs/heads/orchgit/r1/api", "HEAD")


@pytest.mark.parametrize("managed", [("lefthook", "plain")], indirect=True, ids=["lefthook"])
def test_lefthook_that_keeps_reference_transaction_too(managed: Managed) -> None:
    log = managed.log
    with open(managed.path / "lefthook.yml", "a") as file:
        file.write(f'reference-transaction:\n  commands:\n    theirs: {{use_stdin: true, run: cat >>"{log}"}}\n')
    managed.put()
    found = managed.round_trip()
    assert states(found) == every("foreign")
    told = details(found)["reference-transaction"].partition("commands: ")[2]
    with open(managed.path / "lefthook.yml", "a") as file:
        file.write(f"    {told}\n")
    managed.put()
    assert states(managed.status())["reference-transaction"] == "chained"
    managed.guarded()
    assert " refs/heads/free\n" in log.read_text()
