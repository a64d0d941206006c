"""The toolbox as it is used: a real child, lines in and lines out, real files and real processes."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchgit.agents import toolbox

ALL = "read,glob,grep,bash,write,edit"


class Box:
    def __init__(self, tree: Path, tools: str = ALL, env: dict[str, str] | None = None) -> None:
        self.tree = tree
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", toolbox.__file__, "--tools", tools],
            cwd=tree,
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.number = 0

    def raw(self, line: bytes) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(line + b"\n")
        self.child.stdin.flush()
        assert select.select([self.child.stdout], [], [], 20)[0], "the toolbox does not answer"
        found: dict[str, Any] = json.loads(self.child.stdout.readline())
        return found

    def call(self, tool: str, **given: Any) -> tuple[bool, str]:
        self.number += 1
        reply = self.raw(json.dumps({"id": self.number, "tool": tool, "input": given}).encode())
        assert reply["id"] == self.number
        return reply["ok"], reply["text"]

    def good(self, tool: str, **given: Any) -> str:
        ok, text = self.call(tool, **given)
        assert ok, text
        return text

    def bad(self, tool: str, **given: Any) -> str:
        ok, text = self.call(tool, **given)
        assert not ok, text
        return text

    def close(self) -> int:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        code = self.child.wait(5)
        self.child.stdout.close()
        return code


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "src/deep").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / ".git/config").write_text("needle\n")
    (made / "src/a.py").write_text("one\ntwo\nneedle = 3\n")
    (made / "src/deep/b.py").write_text("Needle\n")
    (made / "top.py").write_text("")
    return made


@pytest.fixture
def box(tree: Path) -> Iterator[Box]:
    made = Box(tree)
    yield made
    assert made.close() == 0


def alive(pid: int) -> bool:
    """False for a zombie too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    until = time.monotonic() + 3
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


# read


def test_read_numbers_lines_and_pages(box: Box, tree: Path) -> None:
    assert box.good("read", path="src/a.py") == "     1\tone\n     2\ttwo\n     3\tneedle = 3"
    assert box.good("read", path="src/a.py", offset=2, limit=1) == "     2\ttwo\n[... more lines; go on with offset=3]"
    assert box.good("read", path="src/a.py", offset=9) == "[the file has 3 lines]"
    assert box.good("read", path="top.py") == "[empty file]"
    (tree / "long").write_text("".join(f"{n}\n" for n in range(1, 5001)))
    page = box.good("read", path="long").split("\n")
    assert page[1999:] == ["  2000\t2000", "[... more lines; go on with offset=2001]"]
    assert box.good("read", path="long", offset=2001).startswith("  2001\t2001\n")


def test_read_bounds_long_lines_and_large_pages(box: Box, tree: Path) -> None:
    (tree / "line").write_text("x" * 3_000_000 + "\nend\n")
    first, second = box.good("read", path="line").split("\n")
    assert first == f"     1\t{'x' * 2000} [... 2998000 more on this line]"
    assert second == "     2\tend"
    assert box.good("read", path="line", offset=2) == "     2\tend"
    (tree / "wide").write_text(("y" * 1000 + "\n") * 100)
    text = box.good("read", path="wide")
    assert len(text) <= toolbox.RESULT_CHARS
    assert text.endswith("[... more lines; go on with offset=30]")


def test_read_of_what_is_not_text(box: Box, tree: Path) -> None:
    (tree / "bin").write_bytes(b"\x7fELF\0\0" + b"\xff" * 100)
    assert box.good("read", path="bin") == "[binary file, 106 bytes]"
    (tree / "latin").write_bytes(b"caf\xe9\n")
    assert box.good("read", path="latin") == "     1\tcaf\N{REPLACEMENT CHARACTER}"
    assert "no such file" in box.bad("read", path="nope")
    assert "directory" in box.bad("read", path="src")


def test_never_opens_a_fifo_or_a_device(box: Box, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "link").symlink_to("fifo")
    (tree / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "link"):
        assert "not a regular file" in box.bad("read", path=name)
        assert "not a regular file" in box.bad("write", path=name, content="x")
        assert "not a regular file" in box.bad("edit", path=name, old_string="a", new_string="b")
    assert "not a regular file" in box.bad("read", path="zero")
    assert "skipped" in box.good("grep", pattern="xyz")  # walks over all of them


# glob and grep


def test_glob(box: Box, tree: Path) -> None:
    assert box.good("glob", pattern="**/*.py") == "src/a.py\nsrc/deep/b.py\ntop.py"
    assert box.good("glob", pattern="*.py") == "top.py"
    assert box.good("glob", pattern="src/*") == "src/a.py\nsrc/deep/"
    assert box.good("glob", pattern="[!t]*.py", path="src") == "src/a.py"
    assert box.good("glob", pattern="**/config") == "[nothing matches]"  # .git is not looked into
    assert "relative" in box.bad("glob", pattern="../*")
    for number in range(250):
        (tree / f"src/deep/f{number:03}").touch()
    (tree / "loop").symlink_to(".")
    lines = box.good("glob", pattern="**/f*").split("\n")
    assert (len(lines), lines[0], lines[-1]) == (
        201,
        "src/deep/f000",
        "[... 50 more; use a narrower pattern]",
    )


def test_grep(box: Box, tree: Path) -> None:
    assert box.good("grep", pattern="needle") == "src/a.py:3: needle = 3"
    found = "src/a.py:3: needle = 3\nsrc/deep/b.py:1: Needle"
    assert box.good("grep", pattern="NEEDLE", ignore_case=True) == found
    assert box.good("grep", pattern="eedle", glob="deep/*.py", path="src") == "src/deep/b.py:1: Needle"
    assert box.good("grep", pattern="two", path="src/a.py") == "src/a.py:2: two"
    assert box.good("grep", pattern="absent") == "[no match]"
    assert "bad regular expression" in box.bad("grep", pattern="(")
    (tree / "many").write_text("hit\n" * 300 + "hit" + "z" * 5000)
    lines = box.good("grep", pattern="hit").split("\n")
    assert (len(lines), lines[-1]) == (201, "[... more matches; narrow the search]")
    assert box.good("grep", pattern="hitz").endswith("[... 3003 more]")


def test_a_name_that_is_not_utf8(box: Box, tree: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tree) + b"/bad\xff.py"))).write_text("q")
    assert box.good("glob", pattern="bad*") == "bad?.py"


# write and edit


def test_write_makes_parents_and_replaces(box: Box, tree: Path) -> None:
    assert box.good("write", path="new/dir/f.txt", content="grün\n") == "wrote new/dir/f.txt, 6 bytes"
    assert (tree / "new/dir/f.txt").read_text() == "grün\n"
    (tree / "run.sh").write_text("old")
    (tree / "run.sh").chmod(0o755)
    box.good("write", path="run.sh", content="new")
    assert (tree / "run.sh").read_text() == "new"
    assert (tree / "run.sh").stat().st_mode & 0o777 == 0o755
    box.good("write", path="half.txt", content="\ud800")
    assert (tree / "half.txt").read_text() == "?"
    assert not list(tree.rglob(toolbox.TEMP_PREFIX + "*"))


def test_write_stays_in_the_tree(box: Box, tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "f").write_text("kept")
    (tree / "dir").symlink_to(outside)
    (tree / "file").symlink_to(outside / "f")
    (tree / "dangling").symlink_to(outside / "none")
    (tree / "inner").symlink_to("src/a.py")
    for path in ("../outside/f", str(outside / "f"), "dir/f", "file", "dangling", "src/../../outside/f", "."):
        assert "outside the working tree" in box.bad("write", path=path, content="x"), path
    assert "outside the working tree" in box.bad("edit", path="file", old_string="kept", new_string="x")
    assert sorted(p.name for p in outside.iterdir()) == ["f"]
    assert (outside / "f").read_text() == "kept"
    box.good("write", path="inner", content="through a link that stays inside\n")
    assert (tree / "inner").is_symlink()
    assert (tree / "src/a.py").read_text() == "through a link that stays inside\n"


def test_edit_wants_exactly_one_place(box: Box, tree: Path) -> None:
    (tree / "e").write_bytes(b"aa bb aa \xff\xfe\n")
    assert "does not occur" in box.bad("edit", path="e", old_string="cc", new_string="x")
    assert "occurs 2 times" in box.bad("edit", path="e", old_string="aa", new_string="x")
    assert "empty" in box.bad("edit", path="e", old_string="", new_string="x")
    assert "the same" in box.bad("edit", path="e", old_string="bb", new_string="bb")
    assert "no such file" in box.bad("edit", path="none", old_string="bb", new_string="x")
    assert (tree / "e").read_bytes() == b"aa bb aa \xff\xfe\n"
    assert box.good("edit", path="e", old_string="bb", new_string="c$\\1") == "edited e, 1 place"
    assert box.good("edit", path="e", old_string="aa", new_string="d", replace_all=True) == "edited e, 2 places"
    assert (tree / "e").read_bytes() == b"d c$\\1 d \xff\xfe\n"  # what is not UTF-8 is as it was
    (tree / "dos").write_bytes(b"a\r\nb\r\n")
    assert "CRLF" in box.bad("edit", path="dos", old_string="a\nb", new_string="x")


def test_a_file_that_cannot_be_written_says_what_to_do(tree: Path) -> None:
    launcher = []
    if os.getuid() == 0:
        # Root passes over modes by a capability; without it, it is treated like anybody.
        drop = "-dac_override,-dac_read_search"
        launcher = ["setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}"]
        if shutil.which("setpriv") is None or subprocess.run([*launcher, "true"]).returncode != 0:
            pytest.skip("root, and setpriv cannot drop its capabilities here")
    (tree / "src/a.py").chmod(0o444)
    (tree / "src").chmod(0o555)
    (tree / "src/deep/b.py").chmod(0o644)
    (tree / "src/deep").chmod(0o555)
    python = [sys.executable, "-I", "-S", toolbox.__file__, "--tools", ALL]
    lines = [
        {"id": 1, "tool": "write", "input": {"path": "src/a.py", "content": "x"}},
        {"id": 2, "tool": "write", "input": {"path": "src/new/x", "content": "x"}},
        {"id": 3, "tool": "write", "input": {"path": "src/deep/b.py", "content": "in place"}},
    ]
    done = subprocess.run(
        [*launcher, *python],
        input="\n".join(json.dumps(line) for line in lines),
        capture_output=True,
        text=True,
        cwd=tree,
    )
    for path in (tree / "src", tree / "src/deep"):
        path.chmod(0o755)
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert not first["ok"]
    assert first["text"].startswith("permission denied: src/a.py is outside your scope (or read-only).")
    assert "request_scope" in first["text"]
    assert not second["ok"]
    assert "src/new/x is outside your scope" in second["text"]
    assert third["ok"], "a scope of one literal file: its directory is read-only, the file is not"
    assert (tree / "src/deep/b.py").read_text() == "in place"


# bash


def test_bash(box: Box, tree: Path) -> None:
    assert box.good("bash", command="echo out; echo err >&2; exit 3") == "out\nerr\n[exit code 3]"
    assert box.good("bash", command="cat; pwd; cd src; export A=1") == f"{tree}\n[exit code 0]"  # stdin is closed
    assert box.good("bash", command="pwd; echo $A") == f"{tree}\n\n[exit code 0]"  # nothing was kept
    assert box.good("bash", command="kill -9 $$") == "[exit code -9]"
    assert box.good("bash", command="printf 'a\\0b'") == "a\N{REPLACEMENT CHARACTER}b\n[exit code 0]"
    assert box.good("bash", command="exec >&- 2>&-; sleep 0.2; exit 4") == "[exit code 4]"
    assert "from 1 to 600" in box.bad("bash", command="true", timeout_s=601)


def test_bash_timeout_kills_everything(box: Box, tree: Path) -> None:
    command = "sleep 98 & echo $! >pids; setsid sleep 99 & echo $! >>pids; (setsid sleep 97 & echo $! >>pids); wait"
    began = time.monotonic()
    text = box.bad("bash", command=f"echo before; {command}", timeout_s=1)
    assert time.monotonic() - began < 3
    assert text == "before\n[stopped after 1 s, with everything it had started]"
    pids = [int(word) for word in (tree / "pids").read_text().split()]
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)


def test_bash_does_not_wait_for_the_background(box: Box, tree: Path) -> None:
    began = time.monotonic()
    assert box.good("bash", command="sleep 96 & echo $! >pid; echo hi") == "hi\n[exit code 0]"
    text = box.good("bash", command="yes & exit 5")
    assert text.endswith("[exit code 5]")
    assert time.monotonic() - began < 3
    assert gone(int((tree / "pid").read_text()))


def test_bash_flood_is_cut_in_the_middle(box: Box) -> None:
    text = box.good("bash", command="echo first; yes | head -c 40000000; echo last; exit 0")
    assert text.startswith("first\ny\n")
    assert text.endswith("last\n[exit code 0]")
    assert len(text) < toolbox.RESULT_CHARS + 200
    left_out = int(text.split("[... ")[1].split()[0])
    assert left_out == 40_000_000 + len("first\nlast\n") - toolbox.RESULT_CHARS


def test_bash_gets_no_secret(tree: Path) -> None:
    names = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "MY_KEY", "GITHUB_TOKEN", "aws_secret_access_key")
    box = Box(tree, env={**dict.fromkeys(names, "hush"), "HARMLESS": "shown"})
    text = box.good("bash", command="env")
    box.close()
    assert "hush" not in text
    assert "HARMLESS=shown" in text


# the protocol


def test_only_the_given_tools(tree: Path) -> None:
    box = Box(tree, "read,glob")
    assert box.bad("write", path="x", content="x") == "write is not available here; you have glob, read"
    assert "not available" in box.bad("bash", command="touch x")
    assert "not available" in box.bad("__class__")
    box.good("read", path="src/a.py")
    box.close()
    assert not (tree / "x").exists()


def test_bad_requests_are_answered(box: Box) -> None:
    assert "needs path" in box.bad("read")
    assert "no parameter 'file'" in box.bad("read", file="x")
    assert "type integer" in box.bad("read", path="x", offset="1")
    assert "type integer" in box.bad("read", path="x", offset=True)
    assert "NUL" in box.bad("read", path="a\0b")
    for line in (b"nonsense", b"[1]", b"\xff"):
        assert box.raw(line) == {"id": None, "ok": False, "text": "not a request"}
    assert box.raw(b'{"id": 7, "tool": ["read"], "input": 3}')["ok"] is False
    assert box.raw(b'{"id": 8, "tool": "read", "input": 3}')["text"] == "the input of read must be an object"


def test_term_ends_the_command_too(tree: Path) -> None:
    box = Box(tree)
    assert box.child.stdin is not None
    box.child.stdin.write(b'{"id":1,"tool":"bash","input":{"command":"echo $$ >pid; exec sleep 95"}}\n')
    box.child.stdin.flush()
    until = time.monotonic() + 5
    while not ((tree / "pid").exists() and (tree / "pid").read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    box.child.send_signal(signal.SIGTERM)
    assert box.child.wait(3) == 128 + signal.SIGTERM
    assert gone(int((tree / "pid").read_text()))
    box.close()


def test_it_imports_nothing_of_ours() -> None:
    code = f"import runpy, sys; runpy.run_path({toolbox.__file__!r}); print([m for m in sys.modules if 'orchgit' in m])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
