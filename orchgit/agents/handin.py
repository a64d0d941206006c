"""The two files by which an agent without our tools gets its brief and hands in its result.

    $ORCHGIT_BRIEF    the brief, and how to hand in
    $ORCHGIT_RESULT   to be written: a JSON object with one key, a result tool of the job's, and its input as the value

Both lie in the cell's private temporary directory, under names that nobody knows beforehand. What is handed in is a
claim by an untrusted program: read once, when it has ended, without following a link, and judged by the job's own
`ResultTool.parse`. `orchgit report-work`, `request-scope` and `mcp` write that file, and can do nothing else.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchgit.agents import HandIn, ResultTool
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.plan import MAX_PLAN_BYTES

BRIEF = "ORCHGIT_BRIEF"
RESULT = "ORCHGIT_RESULT"
MAX_BYTES = 4 * MAX_PLAN_BYTES  # as written, with all its spaces; what it says has its own limit


def prepare(tmp: Path, brief: str) -> HandIn:
    """Write the brief where the agent finds it."""
    token = os.urandom(6).hex()
    made = HandIn(tmp / f"orchgit-brief-{token}.md", tmp / f"orchgit-result-{token}.json")
    _reopen(tmp)
    try:
        fd = os.open(made.brief, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(brief)
    except OSError as error:
        raise OrchgitError(Kind.NO, "the brief cannot be written", str(error), "orchgit resume") from error
    return made


def _reopen(tmp: Path) -> None:
    """Let the engine in again: an agent may have closed the door behind it, for it owns the place."""
    with suppress(OSError):
        if tmp.is_dir() and not tmp.is_symlink():
            tmp.chmod(stat.S_IRWXU)


def environment(files: HandIn) -> dict[str, str]:
    return {BRIEF: str(files.brief), RESULT: str(files.result)}


def instructions(results: Sequence[ResultTool]) -> str:
    """How to hand in, for an agent that was not given the result tools."""
    schemas = "\n\n".join(f"`{r.name}`: {r.description}\n\n    {json.dumps(dict(r.schema))}" for r in results)
    return (
        f"# How to hand in\n\nWhere you have no tool of these names, write a file: the one that `${RESULT}` names. It "
        "holds a JSON object with exactly one key, one of the names below, and as its value an object of that schema. "
        f"Then end your work; without it, none of it counts.\n\n{schemas}"
    )


def take(files: HandIn, results: Sequence[ResultTool]) -> tuple[str, Mapping[str, Any]] | None:
    """(result tool, its input), which `parse` accepts; None when nothing was handed in. It is gone afterwards.

    ValueError, with words for the agent, when there is something that cannot be taken.
    """
    _reopen(files.result.parent)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(files.result, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{RESULT}: not a file that can be read ({error.strerror})") from error
    try:
        found = os.fstat(fd)
        # Another name of it would be a file of somebody else's, which the agent cannot read and we can.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ValueError(f"{RESULT}: not a plain file")
        data = os.read(fd, MAX_BYTES + 1)
    finally:
        os.close(fd)
    files.result.unlink(missing_ok=True)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{RESULT}: more than {MAX_BYTES} bytes")
    return read(data, results)


def read(data: bytes | str, results: Sequence[ResultTool]) -> tuple[str, Mapping[str, Any]]:
    """What `take` gives, of the content alone."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise ValueError(f"{RESULT}: not JSON: {str(error)[:200]}") from error
    tools = {tool.name: tool for tool in results}
    if not isinstance(said, dict) or len(said) != 1 or not isinstance(next(iter(said.values())), dict):
        raise ValueError(
            f"{RESULT}: not an object with one key whose value is an object; the key: {' or '.join(tools)}"
        )
    name, given = next(iter(said.items()))
    if name not in tools:
        raise ValueError(f"{RESULT}: {name[:100]!r} is no result of this job; there is {' and '.join(tools)}")
    tools[name].parse(given)
    return name, given


def write(tool: str, given: Mapping[str, Any]) -> None:
    """From inside a cell: hand in, in place of what was handed in before. OrchgitError (USAGE) anywhere else."""
    place = os.environ.get(RESULT)
    if not place:
        raise OrchgitError(Kind.USAGE, "this is no cell", f"{RESULT} is not set: only an agent of a run can hand in")
    half = f"{place}.{os.urandom(4).hex()}"
    Path(half).write_text(json.dumps({tool: given}), encoding="utf-8", errors="backslashreplace")
    os.replace(half, place)
