"""What the benchmarks share: repositories, runs with scripted agents, rounds taken in turn, tables of ratios.

A number here is never a verdict: machines differ and are shared, so everything is measured beside its baseline in
the same run, the variants taking turns, and what is printed is the ratio: of the minima, and the median of the rounds'.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ORCHGIT = str(Path(sys.executable).with_name("orchgit"))
HOME_KEYS = {"HOME": "home", "XDG_STATE_HOME": "state", "TMPDIR": "tmp"}


def arguments(about: str | None, rounds: int, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """--rounds, and --quick: the least that still runs all of the code."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--quick", action="store_true", help="N=1 and one round: only to see that it runs")
    given = parser.parse_args(argv)
    given.files = 20 if given.quick else 200
    if given.quick:
        given.rounds = 1
    return given


@contextmanager
def place() -> Iterator[tuple[Path, dict[str, str]]]:
    """A private directory, and an environment whose home, state and temporary files lie in it."""
    with tempfile.TemporaryDirectory(prefix="orchgit-bench-") as name:
        root = Path(name).resolve()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "ORCHGIT_", "XDG_", "ANTHROPIC_"))}
        for key, folder in HOME_KEYS.items():
            (root / folder).mkdir()
            env[key] = str(root / folder)
        who = {"NAME": "bench", "EMAIL": "bench@example.invalid"}
        env |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
        yield root, env | {"GIT_CONFIG_NOSYSTEM": "1"}


def call(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> float:
    """Seconds that a command took. Raises with its output when it fails."""
    begun = time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.returncode}\n{(done.stdout + done.stderr).decode(errors='replace')[-3000:]}")
    return took


def cpu() -> float:
    """CPU seconds, of every child that has ended. Says less about a machine's load than the clock does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def repository(root: Path, env: Mapping[str, str], files: int) -> Path:
    """A small repository: `files` files in directories of twenty, one commit."""
    root.mkdir(parents=True)
    for number in range(files):
        path = root / f"pkg{number // 20}" / f"module{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# module {number}\n" + f"value_{number} = {number}\n" * 80)
    for args in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"], ["repack", "-adq"]):
        call(["git", *args], root, env)
    return root


# -- runs with scripted agents


def job(name: str, *, delay_ms: int = 0) -> list[dict[str, Any]]:
    """The turns of a worker that writes one file and reports."""
    written = {"tool": "write", "input": {"path": f"{name}/made.txt", "content": f"{name}\n"}}
    return [
        {"calls": [written], "delay_ms": delay_ms},
        {"calls": [{"tool": "report", "input": {"summary": f"{name} is done"}}]},
    ]


def assignment(name: str, after: Sequence[str] = ()) -> dict[str, Any]:
    """One that may write one directory of its own; no checks."""
    return {
        "id": name, "worker": "api-agent", "title": name, "task": f"Write {name}/made.txt", "allow": [f"{name}/**"],
        "outputs": [f"{name}/made.txt"], "depends_on": list(after),
    }  # fmt: skip


def prepare(repo: Path, env: Mapping[str, str], plan: Sequence[Mapping[str, Any]]) -> None:
    """Roster and configuration without reviewers in the repository; beside it, the playbook and the issue."""
    call([ORCHGIT, "init"], repo, env)
    config = repo / ".orchestration" / "config.toml"
    config.write_text("[run]\nreviewers = []\n")
    done = {"summary": "all of it is there"}
    given = {"goal": "each file is there", "assignments": list(plan)}
    book = {
        "jobs": {f"work/{a['id']}/1": job(a["id"]) for a in plan},
        "default": {
            "plan": [{"calls": [{"tool": "propose_plan", "input": given}]}],
            "verdict": [{"calls": [{"tool": "give_verdict", "input": {"decision": "accept"}}]}],
            "synthesis": [{"calls": [{"tool": "write_synthesis", "input": done}]}],
        },
    }
    beside = repo.parent
    (beside / "playbook.json").write_text(json.dumps(book))
    (beside / "issue.md").write_text("# A file each\n\nEvery worker writes one file.\n")


def start_argv(repo: Path, *more: str) -> list[str]:
    beside = repo.parent
    return [
        ORCHGIT, "start", str(beside / "issue.md"), "--backend", "scripted", "--playbook",
        str(beside / "playbook.json"), *more,
    ]  # fmt: skip


def events(repo: Path) -> list[dict[str, Any]]:
    """Every event of the one run there is."""
    (log,) = (repo / ".git" / "orchgit" / "runs").glob("*/events.jsonl")
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def until(repo: Path, kind: str, deadline_s: float = 30) -> list[dict[str, Any]]:
    """The events, as soon as one is of this type."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            log = events(repo)
        except (ValueError, OSError):  # no log yet, or a line that is just being written
            log = []
        if any(event["type"] == kind for event in log):
            return log
        time.sleep(0.01)
    raise TimeoutError(f"no {kind} within {deadline_s} s")


def seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


# -- rounds and tables


def in_turn(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant, one after the other in each round, the order turned round every time.

    One round before, not counted, to warm up; none when a single round is asked for.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(-1 if rounds > 1 else 0, rounds):
        order = list(variants) if number % 2 == 0 else list(variants)[::-1]
        for name in order:
            took = variants[name]()
            if number >= 0:
                taken[name].append(took)
    return taken


def ratios(taken: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """(of the minima, median of the rounds')."""
    return min(taken) / min(base), statistics.median(a / b for a, b in zip(taken, base, strict=True))


def table(title: str, taken: Mapping[str, Sequence[float]], *bases: str, per: int = 1) -> None:
    """Milliseconds per item, and for each baseline the ratio of the minima and the median ratio."""
    width = max(map(len, taken))
    print(f"\n{title}")
    heads = "".join(f"  {f'x {b}: of min, median':>{len(b) + 20}}" for b in bases)
    print(f"  {'':<{width}}  {'min ms':>9}  {'median ms':>9}{heads}")
    for name, times in taken.items():
        cells = ""
        for base in bases:
            least, middle = ratios(times, taken[base])
            cells += f"  {f'{least:.2f}, {middle:.2f}':>{len(base) + 20}}"
        low, mid = min(times) * 1000 / per, statistics.median(times) * 1000 / per
        print(f"  {name:<{width}}  {low:9.1f}  {mid:9.1f}{cells}")


def spread(times: Sequence[float]) -> str:
    """min, median and max, in milliseconds."""
    return f"min {min(times) * 1000:.1f}  median {statistics.median(times) * 1000:.1f}  max {max(times) * 1000:.1f} ms"
