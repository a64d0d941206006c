"""Checks: what counts as evidence that tests ran and passed, and what an adversary can print."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from orchgit import checks
from orchgit.core.codec import MAX_INT
from orchgit.git.cells import Cell
from orchgit.process import Launch
from tests.support.repos import sandbox


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    from orchgit.agent_run import confined

    cell = Cell(tmp_path / "cell")
    for folder in (cell.work, cell.home, cell.tmp):
        folder.mkdir(parents=True)
    return confined(sandbox()[0], cell, (str(cell.work), str(cell.home)))


@pytest.mark.parametrize(
    ("command", "passed", "why"),
    [
        ("echo fine", True, ""),
        ("echo fine >&2", True, ""),
        ("exit 3", False, "exit code 3"),
        ("echo bad; false", False, "exit code 1"),
        ("kill -9 $$", False, "exit code"),
        ("nosuchprogram", False, "exit code 127"),
        ("true", False, "no output"),
        ("printf ' \\n\\t\\n'", False, "no output"),
        ("echo 'Ran 0 tests in 0.000s'", False, "no test"),
        ("echo 'no tests ran in 0.01s'", False, "no test"),
        ("echo '?   	x	[no test files]'", False, "no test"),
        ("echo '====== 3 skipped in 0.01s ======'", False, "no test"),
        ("echo '2 deselected in 0.01s'", False, "no test"),
        ("echo '# tests 0'", False, "no test"),
        ("echo 'test result: ok. 0 passed; 0 failed;'", False, "no test"),
        ("echo 'Ran 0 tests in 0.1s'; echo '=== 4 passed in 0.2s ==='", True, ""),
        ("cd /nowhere && echo x", False, "exit code"),
    ],
)
def test_evidence(launch: Launch, command: str, passed: bool, why: str) -> None:
    done = checks.run(command, launch, 20)
    assert done.passed is passed, done
    assert why in done.why
    assert (done.why == "") is passed


@pytest.mark.parametrize(
    ("said", "tests"),
    [
        ("....\n" + "-" * 70 + "\nRan 4 tests in 0.001s\n\nOK", 4),
        ("Ran 1 test in 0.001s", 1),
        ("Ran 1 test in 0.1s\nOK\nRan 2 tests in 0.1s\nOK", 3),
        ("============================== 5 passed in 0.03s ===============================", 5),
        ("5 passed in 0.03s", 5),
        ("=== 1 failed, 22 passed, 3 skipped, 1 warning in 61.20s (0:01:01) ===", 22),
        ("\x1b[32m\x1b[1m7 passed\x1b[0m, \x1b[33m1 warning\x1b[0m\x1b[32m in 0.50s\x1b[0m", 7),
        ("2 failed, 3 passed, 4 deselected, 1 xfailed, 2 subtests passed, 1 error in 1.0s", 3),
        ("ℹ tests 12\nℹ suites 0\nℹ pass 12", 12),
        ("TAP version 13\n# tests 3\n# pass 3", 3),
        ("test result: ok. 9 passed; 0 failed; 0 ignored\n\ntest result: ok. 1 passed; 0 failed;", 10),
        ("Tests:       1 failed, 5 passed, 6 total\nSnapshots:   0 total", 6),
        ("Tests:       6 total", 6),
        ("everything is fine", None),
        ("I ran 5 tests and 4 passed", None),
        ("", None),
    ],
)
def test_counts_of_known_runners(said: str, tests: int | None) -> None:
    assert checks.count(checks.plain(said.encode())) == tests


NASTY = [
    "=" * 300_000,
    "1 passed " * 40_000,
    "1 passed, " * 40_000,
    "=" * 1000 + "1 passed in " * 20_000,
    "1" * 300_000,
    "Tests:" + "1" * 300_000,
    "Tests:" + " 1 a," * 60_000,
    "Tests: " + " " * 300_000,
    "Ran " + "9" * 300_000 + " tests in 0.1s",
    "Ran " + "9" * 5_000 + " tests in 0.1s",
    "Ran 99999999999999999999 tests in 0.1s",
    "# tests " + "9" * 30,
    "test result: " + "a" * 300_000,
    "test result: ok. 99999999999999999999 passed",
    "Tests: 99999999999999999999 total",
    "=== 99999999999999999999 passed in 1s ===",
    "\x1b[" * 150_000,
    "\x1b[" + "1;" * 150_000,
    "no tests " * 40_000,
    "\n" * 300_000,
    "1 skipped " * 30_000,
    "1 passed, " * 30_000 + "x in 1.0s",
    ("1 passed, " * 29 + "\n") * 10_000,
    ("=" * 299 + "\n") * 10_000,
    ("Tests: " + "1" * 290 + "\n") * 10_000,
    ("1 skipped " * 29 + "\n") * 10_000,
]


@pytest.mark.parametrize("said", NASTY, ids=lambda s: repr(s[:24]))
def test_nothing_printed_stops_the_engine_or_spoils_the_log(said: str) -> None:
    """The code under test writes this. A number too large for an event would make the log unreadable for ever."""
    begun = time.process_time()
    left = checks.plain(said.encode())
    found = checks.count(left)
    checks._NOTHING.search(left)
    assert time.process_time() - begun < 3
    assert found is None or found < MAX_INT


SUITE = """
import unittest, code
class T(unittest.TestCase):
    def test_one(self): self.assertEqual(code.value, 1)
    def test_two(self): self.assertTrue(code.value)
"""


@pytest.mark.parametrize(
    ("code", "passed", "tests"),
    [
        ("value = 1", True, 2),
        ("value = 2", False, 2),
        ("import os; os._exit(0)", False, None),
        ("import os, sys; sys.stdout.close(); sys.stderr.close(); os._exit(0)", False, None),
        ("import signal, os; os.kill(os.getpid(), signal.SIGKILL)", False, None),
    ],
)
def test_a_real_unittest_run(launch: Launch, tmp_path: Path, code: str, passed: bool, tests: int | None) -> None:
    work = tmp_path / "cell" / "work"
    (work / "test_it.py").write_text(SUITE)
    (work / "code.py").write_text(code)
    done = checks.run(f"{sys.executable} -m unittest -q", launch, 30)
    assert (done.passed, done.tests) == (passed, tests), done
    (work / "code.py").write_text("raise SystemExit(0)")
    assert not checks.run(f"{sys.executable} -m unittest -q", launch, 30).passed


def test_a_suite_without_tests(launch: Launch) -> None:
    assert not checks.run(f"{sys.executable} -m unittest discover", launch, 30).passed


def test_deadline_and_descendants(launch: Launch, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = checks.run("echo begun; (setsid sleep 30; echo >late) & sleep 30", launch, 1)
    assert time.monotonic() - begun < 15
    assert not done.passed
    assert "still running after 1 s" in done.why
    assert b"begun" in done.output


def test_a_flood_is_cut(launch: Launch) -> None:
    done = checks.run("head -c 6000000 /dev/zero | tr '\\0' x; exit 1", launch, 30)
    assert len(done.output) <= 2 * checks.OUTPUT_CAP
    assert not done.passed


def test_the_excerpt_is_of_what_failed_and_short(launch: Launch) -> None:
    commands = ("echo first; false", "echo second", "seq 1 5000; exit 2", "printf '\\377\\033[31mred'; exit 1")
    done = [checks.run(command, launch, 20) for command in commands]
    assert [r.passed for r in done] == [False, True, False, False]
    text = checks.excerpt(done)
    assert "second" not in text
    assert all(f"$ {c}" in text for c in commands if c != "echo second")
    assert "[…]" in text
    assert "5000" in text
    assert "\n1\n2\n" in text
    assert len(text) < checks.EXCERPT + 300
    many = [checks.Checked(f"c{n}", False, "why", 1, 1, None, b"x" * 10_000) for n in range(100)]
    assert len(checks.excerpt(many)) < checks.EXCERPT + 100 * 20
    assert checks.excerpt([r for r in done if r.passed]) == ""
