"""The golden logs, and the repositories that go with them; and what a forger does to a log."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from orchgit.core import events as e
from orchgit.core.audit import Reading, Result, judge, read, split
from orchgit.core.codec import dumps
from orchgit.git.door import Door
from orchgit.git.facts import GitFacts
from tests.support.repos import ENV

HERE = Path(__file__).parent.parent / "golden"
ALL = bool(os.environ.get("ORCHGIT_ALL"))  # every case, however long it takes; else a sample with a fixed seed
T = TypeVar("T")


def sample(cases: Sequence[T], most: int, seed: int = 1) -> list[T]:
    return list(cases) if ALL or len(cases) <= most else Random(seed).sample(list(cases), most)


@dataclass(frozen=True)
class Golden:
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def data(self) -> bytes:
        return (self.folder / "events.jsonl").read_bytes()

    @property
    def lines(self) -> list[bytes]:
        return split(self.data)[0]

    @property
    def run(self) -> str:
        run: str = e.envelope(self.lines[0])["run"]
        return run

    def unpack(self, root: Path) -> Path:
        """A repository with its branches, its refs, and the run's directory; the common git directory."""
        common = root / "repo" / ".git"
        quiet = {"env": {**ENV}, "check": True, "capture_output": True}
        subprocess.run(["git", "init", "-q", "-b", "elsewhere", str(root / "repo")], **quiet)  # type: ignore[call-overload]
        bundle = str(self.folder / "run.bundle")
        subprocess.run(["git", "--git-dir", str(common), "fetch", "-q", bundle, "+refs/*:refs/*"], **quiet)  # type: ignore[call-overload]
        directory = common / "orchgit" / "runs" / self.run
        (directory / "blobs").mkdir(parents=True)
        (directory / "events.jsonl").write_bytes(self.data)
        with tarfile.open(self.folder / "blobs.tar.xz") as packed:
            packed.extractall(directory / "blobs", filter="data")
        return common


def goldens() -> list[Golden]:
    return [Golden(p) for p in sorted(HERE.glob("v*/*/")) if (p / "events.jsonl").exists()]


class Remembered:
    """Facts of a repository that does not change meanwhile: each question is asked of git once."""

    def __init__(self, facts: GitFacts) -> None:
        self._facts, self._known = facts, dict[Any, Any]()

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Any:
            key = (name, *(tuple(a) if isinstance(a, list) else a for a in args))
            if key not in self._known:
                self._known[key] = getattr(self._facts, name)(*args)
            return self._known[key]

        return ask


@dataclass
class Place:
    """A golden run in its repository, and what audit says there."""

    golden: Golden
    common: Path

    def __post_init__(self) -> None:
        self.door = Door(self.common)

    @property
    def directory(self) -> Path:
        return self.common / "orchgit" / "runs" / self.golden.run

    def facts(self, *, elsewhere: bool = False) -> GitFacts:
        return GitFacts(self.door, self.golden.run, None if elsewhere else self.directory)

    def git(self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", "--git-dir", str(self.common), *args], input=stdin, env={**ENV, **(env or {})},
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "replace").strip()

    def git_as(self, who: str, *args: str, stdin: bytes = b"", when: str = "1767225600") -> str:
        """As somebody, "name <mail>": author and committer."""
        name, _, mail = who.rstrip(">").partition(" <")
        said = {"NAME": name, "EMAIL": mail, "DATE": f"{when} +0000"}
        env = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in said.items()}
        return self.git(*args, stdin=stdin, env=env)

    def reading(self) -> Reading:
        return read(self.golden.run, *split((self.directory / "events.jsonl").read_bytes()))

    def results(self, facts: Any = None) -> dict[str, Result]:
        return {r.law: r for r in judge(self.reading(), facts or self.facts())}

    def violated(self) -> set[str]:
        return {law for law, r in self.results().items() if r.verdict == "violation"}


def verdict(results: Sequence[Result]) -> str:
    found = {r.verdict for r in results}
    return next(v for v in ("violation", "inconclusive", "pass") if v in found)


# -- what a forger does ----------------------------------------------------------------------------------


def reseal(fields: dict[str, Any]) -> bytes:
    """The line of these fields, with the hash that it then has."""
    head = dumps({k: v for k, v in fields.items() if k != "hash"})[:-1].encode("utf-8", "replace")
    return head + f',"hash":"{hashlib.sha256(head).hexdigest()}"}}'.encode()


def rechain(lines: Sequence[bytes], start: int) -> list[bytes]:
    """Mend seq, prev and hash of every line from `start` on."""
    mended = list(lines[:start])
    prev = e.envelope(mended[-1])["hash"] if mended else e.ZERO
    for number, line in enumerate(lines[start:], start):
        mended.append(reseal({**_fields(line), "seq": number, "prev": prev}))
        prev = mended[-1][-66:-2].decode()
    return mended


def _fields(line: bytes) -> dict[str, Any]:
    import json

    fields: dict[str, Any] = json.loads(line)
    return fields


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every place in a JSON value, with something else of the same sort to stand there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        yield path, value[:-1] if value else ["more"]
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int):
        yield path, value + 1
    elif isinstance(value, str):
        yield path, OTHER.get(value, value[:-1] + ("0" if value[-1:] != "0" else "1"))
    else:
        yield path, 3


OTHER = {
    "merge": "seal", "seal": "ship", "ship": "merge", "human": "engine", "engine": "human", "agent": "human",
    "accept": "reassign", "reassign": "accept", "medium": "low", "critical": "medium", "high": "low", "low": "high",
    "info": "low", "open": "fixed", "worker": "reviewer", "reviewer": "worker", "orchestrator": "worker",
    "none": "open", "sha1": "sha256", "work": "plan", "watchdog": "tool",
}  # fmt: skip


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copied = copy.deepcopy(value)
    inner = copied
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return copied


def edits(lines: Sequence[bytes]) -> list[tuple[int, str, dict[str, Any]]]:
    """(event, type and field, the fields after the edit), for every field of every event."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for number, line in enumerate(lines):
        fields = e.envelope(line)
        touched = {k: fields[k] for k in ("run", "type", "time", "actor", "cause", "data")}
        for path, new in leaves(touched):
            name = ".".join("*" if isinstance(p, int) else str(p) for p in path)
            found.append((number, f"{fields['type']} {name}", put(fields, path, new)))
    return found
