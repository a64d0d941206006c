"""Runs an assignment's checks on a clean checkout of the merge result, confined, and says what to think of it.

Exit code 0 alone is not evidence: code under test can end the process that tests it. A check without any output
fails, and so does one whose runner is known and reports that it ran nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchgit.process import Ended, Launch

OUTPUT_CAP = 4 * 1024 * 1024
EXCERPT = 3500  # characters of failing output that the next attempt is shown

# What known runners print about how many tests they ran. Each pattern finds one number, summed over its matches.
# The code under test writes that output. So only short lines are looked at (on one of megabytes a pattern can take
# for ever), and no number is longer than an event can hold.
_RUNNERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("unittest", re.compile(r"^Ran (\d{1,9}) tests? in ", re.M)),
    ("pytest", re.compile(r"^(?=.* in [\d.]+s)=*[ ]?(?:\d+ [a-z ]+, )*(\d{1,9}) passed(?:, \d+ [a-z ]+)* in ", re.M)),
    ("node", re.compile(r"^(?:# |ℹ )tests (\d{1,9})$", re.M)),
    ("cargo", re.compile(r"^test result: \w{1,20}\. (\d{1,9}) passed", re.M)),
    ("jest", re.compile(r"^Tests:(?: +\d+ [a-z]+,)* +(\d{1,9}) total$", re.M)),
)
_LINE = 300  # characters
_NOTHING = re.compile(
    r"no tests ran|collected 0 items|no test files|No tests found|^=*[ ]?\d+ (?:skipped|deselected)[^=\n]* in [\d.]+s",
    re.I | re.M,
)


@dataclass(frozen=True)
class Checked:
    command: str
    passed: bool
    why: str
    exit_code: int
    duration_ms: int
    tests: int | None
    output: bytes


def run(command: str, launch: Launch, deadline_s: float) -> Checked:
    """One check. `launch` starts it in the clean checkout, confined."""
    ended = launch(["/bin/sh", "-c", command]).finish(deadline_s=deadline_s, output_cap=OUTPUT_CAP)
    output = ended.stdout + ended.stderr
    said = plain(output)
    tests = count(said)
    why = _why(ended, said, tests, deadline_s)
    return Checked(command, not why, why, ended.returncode, ended.duration_ms, tests, output)


def _why(ended: Ended, said: str, tests: int | None, deadline_s: float) -> str:
    """Why the check failed; "" when it passed."""
    if ended.timed_out:
        return f"still running after {deadline_s:g} s"
    if ended.returncode:
        return f"exit code {ended.returncode}"
    if not (ended.stdout + ended.stderr).strip():
        return "exit code 0 and no output: that is no evidence (let it print what it did)"
    if tests == 0 or (tests is None and _NOTHING.search(said)):
        return "exit code 0, but it ran no test"
    return ""


def plain(output: bytes) -> str:
    """The lines in which a runner can have summed up: short ones, without colours."""
    text = output.decode("utf-8", "replace")
    lines = (re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines() if len(line) <= 2 * _LINE)
    return "\n".join(line for line in lines if len(line) <= _LINE)


def count(said: str) -> int | None:
    """How many tests a known runner says it ran; None when no known runner spoke. Of what `plain` left."""
    found = [sum(map(int, matches)) for _, pattern in _RUNNERS if (matches := pattern.findall(said))]
    return sum(found) if found else None


def excerpt(results: list[Checked]) -> str:
    """Head and tail of what the failing checks printed."""
    pieces = []
    failing = [r for r in results if not r.passed]
    for r in failing:
        text = r.output.decode("utf-8", "replace")
        room = EXCERPT // len(failing)
        if len(text) > room:
            text = f"{text[: room // 3]}\n[…]\n{text[-2 * room // 3 :]}"
        pieces.append(f"$ {r.command}\n{text.rstrip()}")
    return "\n".join(pieces)
