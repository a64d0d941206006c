"""`orchgit exec`: any command in a cell, its streams, its end, what it changed, and what lands of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario import Done, Terminal, World, digest, make

ALLOW = ("--allow", "src/**")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path, {"README.md": "# A\n", "src/a.py": "a = 1\n", "src/b.py": "b = 1\n", "docs/d.md": "d\n"})
    yield made
    made.none_left()
    assert [c for c in made.cells_left() if "exec-" in c] == []
    made.close()


def sh(world: World, script: str, *options: str, code: int = 0, stdin: bytes = b"") -> Done:
    return world.run("exec", *(options or ALLOW), "--", "sh", "-c", script, code=code, stdin=stdin)


def reported(done: Done) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.err.splitlines()[-1])
    return report


def test_its_streams_and_its_exit_code_are_the_commands(world: World) -> None:
    done = sh(world, "cat; echo to stderr >&2; exit 7", code=7, stdin=b"\x00\xffbytes")
    assert done.out.encode("utf-8", "surrogateescape") == b"\x00\xffbytes"
    assert "to stderr\n" in done.err
    assert "nothing was changed" in done.err
    assert sh(world, "kill -TERM $$", code=143).out == ""
    assert "no such program" in world.run("exec", *ALLOW, "--", "nothing-of-that-name", code=127).err


def test_without_keep_the_changes_are_shown_and_gone(world: World) -> None:
    before = digest(world)
    done = sh(world, "echo a = 2 > src/a.py; rm src/b.py; mkdir src/new; echo c > src/new/c.py; pwd; id -u > /dev/null")
    assert "modified  src/a.py" in done.err
    assert "deleted   src/b.py" in done.err
    assert "created   src/new/c.py" in done.err
    assert "sandbox " in done.err
    assert "network none" in done.err
    assert "--keep BRANCH" in done.err
    assert not Path(done.out.strip()).exists()
    assert digest(world) == before
    assert world.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_what_the_kernel_refuses_the_command_is_told(world: World) -> None:
    done = sh(world, f"echo x > docs/d.md || echo x > {world.repo}/src/a.py || echo x > ~/.profile && cat ~/.profile")
    assert len(re.findall("Permission denied|Read-only file system|nonexistent", done.err)) == 2
    assert done.out == "x\n", "HOME is its own"
    assert not (world.root / "home" / ".profile").exists()
    assert "nothing was changed" in done.err


def test_keep_lands_one_commit_on_a_new_branch(world: World) -> None:
    base = world.git("rev-parse", "HEAD")
    script = "echo a = 2 > src/a.py; git add -A; git commit -qm one; echo c > src/c.py; chmod +x src/b.py"
    done = sh(world, script, *ALLOW, "--keep", "topic/a", "--json")
    report = reported(done)
    assert report["landed"] == world.git("rev-parse", "topic/a")
    assert {(c["path"], c["kind"]) for c in report["changes"]} == {
        ("src/a.py", "modified"), ("src/b.py", "modified"), ("src/c.py", "created"),
    }  # fmt: skip
    assert world.git("rev-parse", "topic/a^") == base
    assert world.tree("topic/a") == {**world.tree("HEAD"), "src/a.py": "a = 2", "src/c.py": "c"}
    assert world.git("log", "-1", "--format=%an <%ae>", "topic/a") == "Ada <ada@example.org>"
    assert "Orchgit-Scope: src/**" in world.git("log", "-1", "--format=%B", "topic/a")
    assert world.git("fsck", "--strict", "--no-dangling") == ""


def test_one_path_out_of_scope_and_nothing_lands(world: World) -> None:
    script = "echo a > src/x.py; echo b > src/x.txt; echo c > src/Makefile"
    options = ("--allow", "src/*.py", "--allow", "src/M*", "--deny", "src/x.p?", "--keep", "topic")
    done = sh(world, script, *options, code=1)
    assert "REFUSED   created src/x.txt: outside the scope; to allow it: --allow src/x.txt" in done.err
    assert "REFUSED   created src/Makefile: protected" in done.err
    assert "REFUSED   created src/x.py: denied by src/x.p?; to allow it: no --deny 'src/x.p?'" in done.err
    assert "out of scope: src/x.txt (created)" in done.err, "told by the watchdog, while it ran"
    assert world.git("rev-parse", "-q", "--verify", "topic", ok=False) == ""
    salvage = world.git("for-each-ref", "--format=%(refname)", "refs/orchgit/salvage/exec")
    assert salvage in done.err
    assert world.tree(salvage)["src/x.txt"] == "b"


def test_a_command_that_fails_lands_nothing_and_loses_nothing(world: World) -> None:
    report = reported(sh(world, "echo a = 2 > src/a.py; exit 5", *ALLOW, "--keep", "topic", "--json", code=5))
    assert not report["landed"]
    assert world.tree(report["salvage"])["src/a.py"] == "a = 2"
    assert world.git("rev-parse", "-q", "--verify", "topic", ok=False) == ""


def test_where_nothing_may_land(world: World) -> None:
    """Found before the command has run."""
    mark = "echo ran; echo a = 2 > src/a.py"
    world.git("branch", "old")
    world.commit({"src/z.py": "z = 1\n"})
    for name, why in (
        ("main", "checked out"), ("old", "stands on"), ("orchgit/x", "the engine's"), ("a..b", "no name"),
        ("-x", "no name"),
    ):  # fmt: skip
        done = sh(world, mark, *ALLOW, f"--keep={name}", code=2)
        assert why in done.err, name
        assert done.out == ""
    tree = world.root / "tree"
    world.git("worktree", "add", "-q", str(tree), "-b", "elsewhere")
    assert "checked out" in sh(world, mark, *ALLOW, "--keep", "elsewhere", code=2).err
    # At the base it may be there already, and another base can be named.
    sh(world, mark, *ALLOW, "--keep", "old", "--base", "old")
    assert world.git("rev-list", "--count", "main~1..old") == "1"


def test_a_branch_that_moved_meanwhile_is_not_overwritten(world: World) -> None:
    world.git("branch", "topic")
    child = world.spawn("exec", *ALLOW, "--keep", "topic", "--", "sh", "-c",
                        "echo a = 2 > src/a.py; while ! [ -e $TMPDIR/go ]; do sleep 0.05; done")  # fmt: skip
    world.wait_for(lambda: "sandbox" in world.said(child))
    other = world.git("commit-tree", "-m", "theirs", "-p", "HEAD", "HEAD^{tree}")
    world.git("update-ref", "refs/heads/topic", other)
    (tmp,) = (world.root / "state").glob("orchgit/*/exec-*/cell/tmp")
    (tmp / "go").touch()
    assert child.wait(30) == 2
    assert world.git("rev-parse", "topic") == other


def test_usage(world: World) -> None:
    assert "scope" in world.run("exec", "--", "true", code=2).err
    assert "no pattern" in world.run("exec", "--allow", "../x", "--", "true", code=2).err
    assert "no commit" in world.run("exec", *ALLOW, "--base", "nothing", "--", "true", code=2).err
    assert "no commit" in world.run("exec", *ALLOW, "--base=--all", "--", "true", code=2).err
    assert "not known" in world.run("exec", *ALLOW, "--network", "some", "--", "true", code=2).err
    assert "no level" in world.run("exec", *ALLOW, "--level", "steel", "--", "true", code=2).err
    assert "--allow-unsandboxed" in world.run("exec", *ALLOW, "--level", "none", "--", "true", code=5).err


def test_unsandboxed_says_so_and_the_gate_still_stands(world: World) -> None:
    options = (*ALLOW, "--level", "none", "--allow-unsandboxed", "--network", "open", "--keep", "topic")
    done = sh(world, "echo x > docs/d.md", *options, code=1)
    assert "NOTHING STOPS IT" in done.err
    assert "REFUSED   modified docs/d.md" in done.err


def test_touched_and_put_back_is_told(world: World) -> None:
    options = ("--allow", "src/*.py", "--json")
    report = reported(sh(world, "echo x > src/t.txt; rm src/t.txt; echo c > src/c.py", *options))
    assert report["touched"] == ["src/t.txt"]
    assert [c["path"] for c in report["changes"]] == ["src/c.py"]


def test_a_dirty_work_tree_is_said_and_left_alone(world: World) -> None:
    world.put({"src/a.py": "a = 'mine'\n", "src/untracked.py": "u\n"})
    before = digest(world)
    done = sh(world, "cat src/a.py; ls src")
    assert done.out == "a = 1\na.py\nb.py\n"
    assert "uncommitted changes are not in it" in done.err
    assert digest(world) == before


def test_the_environment(world: World) -> None:
    world.extra_env |= {"SECRET_KEY": "s3cret", "WANTED": "yes", "GIT_DIR_OF": "x"}
    done = sh(world, "env", *ALLOW, "--env", "WANTED", "--env", "GIVEN=a=b", "--env", "MISSING")
    env = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    assert (env["WANTED"], env["GIVEN"]) == ("yes", "a=b")
    assert "SECRET_KEY" not in env
    assert "MISSING" not in env
    assert env["HOME"] != world.env["HOME"]


def test_network(world: World) -> None:
    with_port = (
        "python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()); print('reached')\" 2>/dev/null"
    )
    assert "reached" not in sh(world, with_port, code=1).out
    assert sh(world, with_port, *ALLOW, "--network", "open").out == "reached\n"


def test_what_it_leaves_running_is_ended(world: World) -> None:
    began = time.monotonic()
    sh(world, "setsid sleep 300 & (sleep 300 &) ; echo done")
    assert time.monotonic() - began < 30
    world.none_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_everything_it_started(world: World, number: int) -> None:
    child = world.spawn("exec", *ALLOW, "--", "sh", "-c", "setsid sleep 301 & echo ready; trap '' TERM INT; sleep 302")
    world.wait_for(lambda: "ready" in world.said(child))
    child.send_signal(number)
    time.sleep(0.3)
    child.send_signal(number)
    assert child.wait(20) in (137, 143)
    world.none_left()


def test_what_a_killed_one_left_goes_with_the_next(world: World) -> None:
    child = world.spawn("exec", *ALLOW, "--", "sh", "-c", "echo ready; sleep 303")
    world.wait_for(lambda: "ready" in world.said(child))
    living = world.spawn("exec", *ALLOW, "--", "sh", "-c", "echo ready; sleep 3; ls src; echo over")
    world.wait_for(lambda: "ready" in world.said(living))
    child.kill()
    child.wait()
    assert len([c for c in world.cells_left() if "exec-" in c]) >= 2
    sh(world, "true")
    assert living.wait(20) == 0
    assert "a.py" in world.said(living), "its cell was taken from under it"


def test_from_a_linked_work_tree_it_stands_on_that_head(world: World) -> None:
    tree = world.root / "tree"
    world.git("worktree", "add", "-q", str(tree), "-b", "side")
    (tree / "src" / "side.py").write_text("s = 1\n")
    world.git("add", "-A", cwd=tree)
    world.git("commit", "-qm", "side", cwd=tree)
    done = world.run("exec", *ALLOW, "--", "ls", "src", cwd=tree / "docs")
    assert "side.py" in done.out


# -- a terminal


def test_a_terminal_of_its_own(world: World) -> None:
    """It is one, with the user's size, and not the user's; what is typed arrives, and the settings come back."""
    script = (
        "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; read line; echo got $line; echo x > src/x"
    )
    with Terminal(world, "exec", *ALLOW, "--", "bash", "-c", script) as terminal:
        outer = os.ttyname(os.open(os.ptsname(terminal.fd), os.O_RDWR | os.O_NOCTTY)) if hasattr(os, "ptsname") else ""
        terminal.expect("three")
        terminal.type("hello")
        terminal.expect("got hello")
        said = terminal.end(0)
    assert outer not in said or not outer
    assert "created   src/x" in said


def test_ctrl_c_on_a_terminal(world: World) -> None:
    script = "setsid sleep 304 & echo ready; sleep 305; echo not reached"
    with Terminal(world, "exec", *ALLOW, "--", "bash", "-c", script) as terminal:
        terminal.expect("ready")
        os.write(terminal.fd, b"\x03")
        said = terminal.end(130)
    assert "not reached\n" not in said.partition("ready")[2]
    world.none_left()


def test_a_program_may_have_ctrl_c_for_itself(world: World) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with Terminal(world, "exec", *ALLOW, "--", "bash", "-c", script) as terminal:
        terminal.expect("ready")
        os.write(terminal.fd, b"\x03")
        terminal.expect("caught")
        terminal.end(9)


@pytest.mark.skipif(not shutil.which("vim"), reason="no vim here")
def test_an_editor_on_a_terminal(world: World) -> None:
    with Terminal(world, "exec", *ALLOW, "--keep", "topic", "--", "vim", "src/a.py") as terminal:
        terminal.expect("a = 1")
        os.write(terminal.fd, b"ob = 2\x1b:wq\r")
        said = terminal.end(0)
    assert "landed on topic" in said
    assert world.tree("topic")["src/a.py"] == "a = 1\nb = 2"
