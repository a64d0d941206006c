"""A hook of the user's behind ours gets what git would have given it, and its word is what git hears."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from orchgit import githooks
from tests.hooks.support import BRANCH, SHELLS, Clone, Repo, Rules, make_cell, make_clone, script

PROBE = """#!{python} -IS
import json, os, sys
name = os.path.basename(sys.argv[0])
given = dict(name=name, args=sys.argv[1:], stdin=sys.stdin.buffer.read().decode("latin-1"), cwd=os.getcwd())
given["env"] = dict(os.environ)
with open({log!r}, "a") as file:
    file.write(json.dumps(given) + "\\n")
raise SystemExit({code})
"""
SHELL_S_OWN = {"PWD", "OLDPWD", "SHLVL", "_"}
# Names that a hook could be tempted to use, exported by somebody; and the awkward ones.
EXPORTED = {
    **dict.fromkeys(("name", "former", "updates", "line", "old", "new", "ref", "base", "branch"), "theirs"),
    **dict.fromkeys(("chain", "here", "files", "told", "run", "head", "word", "value", "words"), "theirs"),
    "LC_ALL": "C.UTF-8",
    "CDPATH": "/",
    "odd": 'é "quoted"\nand a line',
}


def probe(directory: Path, log: Path, *names: str, code: int = 0) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(PROBE.format(python=sys.executable, log=str(log), code=code))
        (directory / name).chmod(0o755)


def heard(log: Path) -> list[dict[str, Any]]:
    """What the probes were given, in order; the environment without what a shell in between may set."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    for line in lines:
        # `git commit -- PATH` has an index named after its process.
        line["env"] = {
            key: re.sub(r"(next-index-)\d+", r"\1PID", value)
            for key, value in line["env"].items()
            if key not in SHELL_S_OWN
        }
    return lines


def operations(repo: Repo, remote: Path, only: str = "") -> None:
    """The same objects each time: dates are fixed."""
    when = {"GIT_AUTHOR_DATE": "1767225600 +0000", "GIT_COMMITTER_DATE": "1767225600 +0000"}
    base = repo.git("rev-parse", "base")
    repo.write("app/a.py", "changed\n")
    repo.git("commit", "-q", "-a", "-m", "from the top", **when, **EXPORTED)
    repo.write("app/a.py", "again\n")
    repo.git("-C", "app", "commit", "-q", "-m", "from below, one path", "--", "a.py", **when, **EXPORTED)
    lines = "".join(f"create refs/tags/t{i} HEAD\n" for i in range(19))
    for more in range(3):  # up to and past the twenty lines that are read one by one
        lines += f"create refs/tags/more{more} HEAD\n"
        assert repo.feed(lines, "update-ref", "--stdin").returncode == 0
        assert (
            repo.feed(lines.replace("create", "delete").replace(" HEAD", ""), "update-ref", "--stdin").returncode == 0
        )
    if not only:
        repo.git("push", "-q", str(remote), "HEAD:refs/heads/mine", "HEAD~:refs/heads/other", **EXPORTED)
        repo.git("push", "-q", str(remote), "HEAD:refs/heads/mine")  # nothing to push: an empty input
        repo.git("push", "-q", str(remote), ":refs/heads/mine", ":refs/heads/other")
    repo.git("-c", "core.hooksPath=/dev/null", "reset", "-q", "--hard", base)


@pytest.mark.parametrize("shell", SHELLS)
def test_behind_the_guard_it_hears_what_it_would_hear_alone(tmp_path: Path, shell: str) -> None:
    clone, log = make_clone(tmp_path / "clone", shell=shell), tmp_path / "log"
    clone.git("tag", "base")
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    clone.git("commit", "-q", "--allow-empty", "-m", "warm")
    clone.git("reset", "-q", "--hard", "base")
    probe(clone.hooks, log, *githooks.NAMES)
    operations(clone, tmp_path / "remote")
    alone = heard(log)
    assert {line["name"] for line in alone} == set(githooks.NAMES)
    assert [line["stdin"] for line in alone if line["name"] == "pre-push"].count("") == 1
    path = clone.env["PATH"]
    clone.install()
    for line in alone:  # with busybox, ours is run with another PATH
        line["env"]["PATH"] = line["env"]["PATH"].replace(path, clone.env["PATH"])
    operations(clone, tmp_path / "remote")
    assert heard(log) == alone


@pytest.mark.parametrize("shell", SHELLS)
def test_behind_a_cell_s_hooks_too(tmp_path: Path, shell: str) -> None:
    cell, log, theirs = make_cell(tmp_path / "cell", shell=shell), tmp_path / "log", tmp_path / "their hooks"
    cell.git("tag", "base")
    cell.git("config", "--worktree", "core.hooksPath", str(theirs))
    probe(theirs, log, *githooks.NAMES)
    operations(cell, tmp_path, only="no push")
    alone = heard(log)
    cell.git("config", "--worktree", "core.hooksPath", str(cell.path / ".git/hooks"))
    chain = str(theirs)
    githooks.install_cell(str(cell.path / ".git"), Rules(), base=cell.head(), branch=BRANCH, chain=chain)
    cell.change_shell()
    operations(cell, tmp_path, only="no push")
    assert heard(log) == alone


def test_its_exit_code_decides_and_comes_after_ours(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    for name in githooks.NAMES:
        probe(clone.hooks, log, name, code=7)
        clone.install()
        command = (
            ["push", str(tmp_path / "remote"), "main"] if name == "pre-push" else ["commit", "--allow-empty", "-m", "x"]
        )
        done = clone.run(*command)
        assert done.returncode != 0
        assert b"orchgit" not in done.stderr.replace(os.fsencode(clone.path), b"")
        assert {line["name"] for line in heard(log)} == {name}
        clone.uninstall()
        (clone.hooks / name).unlink()
    # Ours says no first: theirs is not asked.
    probe(clone.hooks, log, *githooks.NAMES, code=7)
    clone.install()
    clone.refused("update-ref", "refs/heads/orchgit/r1/api", "HEAD")
    clone.refused("push", "-q", str(tmp_path / "remote"), "HEAD:refs/heads/orchgit/r1/api")
    assert [line["args"] for line in heard(log)] == [["aborted"]]  # as git tells every reference-transaction


def test_its_very_exit_code_reaches_who_calls_it(clone: Clone) -> None:
    for name in githooks.NAMES:
        script(clone.hooks / name, "cat >/dev/null; exit 43")
    clone.install()
    for name in githooks.NAMES:
        argument = "prepared" if name == "reference-transaction" else str(clone.path / "README.md")
        hook = [str(clone.hooks / name), argument]
        assert os.waitstatus_to_exitcode(os.system(f"cd '{clone.path}' && '{hook[0]}' '{hook[1]}' </dev/null")) == 43


def test_a_hook_without_a_shebang_and_one_that_never_reads(clone: Clone, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in githooks.NAMES:
        (clone.hooks / name).write_text(f"echo {name} >>'{log}'\n")
        (clone.hooks / name).chmod(0o755)
    clone.install()
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    lines = "".join(f"create refs/tags/{'long' * 20}{i} HEAD\n" for i in range(1500))  # more than a pipe holds
    assert clone.feed(lines, "update-ref", "--stdin").returncode == 0
    clone.git("push", "-q", "--tags", str(tmp_path / "remote"), "HEAD:refs/heads/main")
    clone.git("commit", "-q", "--allow-empty", "-m", "x")
    assert set(log.read_text().split()) == set(githooks.NAMES)


def test_a_hook_that_is_switched_off_stays_off(clone: Clone, tmp_path: Path) -> None:
    for name in githooks.NAMES:
        (clone.hooks / name).write_text("#!/bin/sh\nexit 1\n")
        (clone.hooks / name).chmod(0o644)
    assert {each.state for each in clone.round_trip()} == {"installed"}
    clone.git("init", "-q", "--bare", str(tmp_path / "remote"))
    clone.stage("a")
    clone.git("commit", "-q", "-m", "x")
    clone.git("push", "-q", str(tmp_path / "remote"), "main")


def test_what_hooks_do_to_find_their_place(clone: Clone, tmp_path: Path) -> None:
    """By their name, by a file beside them, by the repository above them, by a link."""
    log = tmp_path / "log"
    script(clone.hooks / "helper", f'echo "helper $1" >>{log}')
    body = '"$(dirname "$0")/helper" "$(basename "$0")"\ncd "$(dirname "$0")/../.." && test -f README.md || exit 1'
    script(clone.hooks / "pre-commit", body)
    script(clone.path / "tools/tx", f'echo "tx $1" >>{log}; cat >>{log}')
    (clone.hooks / "reference-transaction").symlink_to("../../tools/tx")
    script(clone.hooks / "post-commit", f"echo post-commit >>{log}")
    found = {each.name: each.state for each in clone.round_trip()}
    assert found == {
        "pre-commit": "chained", "commit-msg": "installed", "pre-push": "installed", "reference-transaction": "chained",
    }  # fmt: skip
    clone.write("README.md", "changed\n")
    clone.git("commit", "-q", "-a", "-m", "mine")
    text = log.read_text()
    assert "helper pre-commit\n" in text
    assert "post-commit\n" in text
    assert f" {clone.head()} refs/heads/main\n" in text
    assert {"tx prepared", "tx committed"} <= set(text.splitlines())
    clone.guarded()


def test_no_plain_variable_outside_a_subshell() -> None:
    """So that none can shadow an exported one of the user's; functions named here run in subshells only."""
    for folder in ("cell", "clone"):
        for name in os.listdir(os.path.join(githooks.source_dir(), folder)):
            text = Path(githooks.source_dir(), folder, name).read_text()
            for function in ("tell", "grows", "unmoved", "scope_reasons", "scope_words"):
                text = re.sub(rf"(?ms)^{function}\(\) \{{.*?^\}}$", "", text)
            assigned = re.findall(r"(?m)(?:^\s*|[;&|)] )([A-Za-z_]\w*)=", text)
            assert {each for each in assigned if not each.startswith("orchgit_")} <= {"LC_ALL"}, (folder, name)
