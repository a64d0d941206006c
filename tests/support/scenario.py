"""A whole world for the real command: a repository, a HOME, a state directory, a playbook; nothing of the user's.

Every call is a process of its own, in an environment built from nothing: `run` forks it from one that has imported the
package, `spawn` starts `python -m orchgit`. A world lies below one temporary directory, so tests run beside each other.
`Book` builds the playbook (format: orchgit/agents/scripted.py); what it does not say has defaults that succeed: verdict
accept, review clean, one synthesis.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orchgit
from tests.support import forked

SOURCE = Path(orchgit.__file__).resolve().parent.parent  # the very code under test, wherever pytest found it
WORKERS = ("api-agent", "frontend-agent", "test-agent", "docs-agent")
PATIENCE_S = 60.0
Turn = dict[str, Any]
Call = dict[str, Any]


# -- the playbook ----------------------------------------------------------------------------------------


def write(path: str, content: str) -> Call:
    return {"tool": "write", "input": {"path": path, "content": content}}


def bash(command: str) -> Call:
    return {"tool": "bash", "input": {"command": command}}


def report(summary: str = "done", **more: Any) -> Call:
    return {"tool": "report", "input": {"summary": summary, **more}}


def turn(*calls: Call, delay_ms: int = 0, text: str = "") -> Turn:
    return {"calls": list(calls), **({"delay_ms": delay_ms} if delay_ms else {}), **({"text": text} if text else {})}


def verdict(decision: str = "accept", *reasons: str) -> list[Turn]:
    return [turn({"tool": "give_verdict", "input": {"decision": decision, "reasons": list(reasons)}})]


def review(*findings: dict[str, Any], fixed: Sequence[str] = (), summary: str = "read it all") -> list[Turn]:
    given = {"summary": summary, "findings": list(findings), "fixed": list(fixed)}
    return [turn({"tool": "report_review", "input": given})]


def finding(path: str, title: str, severity: str = "critical", line: int = 1) -> dict[str, Any]:
    return {"severity": severity, "path": path, "line": line, "title": title, "detail": f"{title}, and why it matters"}


def piece(name: str, worker: str, allow: Sequence[str], **more: Any) -> dict[str, Any]:
    """One assignment of a plan, as the orchestrator would write it."""
    return {"id": name, "worker": worker, "title": f"The {name} part", "task": f"Do the {name} part.",
            "allow": list(allow), **more}  # fmt: skip


def plan_of(*pieces: Mapping[str, Any], goal: str = "It is built.", **more: Any) -> dict[str, Any]:
    return {"goal": goal, "assignments": list(pieces), **more}


class Book:
    """A playbook under construction."""

    def __init__(self, *pieces: Mapping[str, Any], **plan: Any) -> None:
        self.jobs: dict[str, list[Turn]] = {}
        self.default: dict[str, list[Turn]] = {
            "verdict": verdict(),
            "review": review(),
            "synthesis": [
                turn({"tool": "write_synthesis", "input": {"summary": "All of it fits.", "review_by_human": ["look"]}})
            ],
        }
        self._tries: dict[str, int] = {}
        if pieces:
            self.plan(*pieces, **plan)

    def _add(self, key: str, turns: list[Turn]) -> Book:
        number = self._tries[key] = self._tries.get(key, 0) + 1
        self.jobs[f"{key}/{number}"] = turns
        return self

    def plan(self, *pieces: Mapping[str, Any], **more: Any) -> Book:
        """The next answer of the orchestrator to the issue."""
        return self._add("plan", [turn({"tool": "propose_plan", "input": plan_of(*pieces, **more)})])

    def ask(self, *questions: str) -> Book:
        return self._add("plan", [turn({"tool": "ask_questions", "input": {"questions": list(questions)}})])

    def work(self, name: str, *turns: Turn) -> Book:
        """The next try of an assignment. Without a report at the end, one is added."""
        made = list(turns)
        if not any(c["tool"] == "report" for t in made for c in t["calls"]):
            made.append(turn(report(f"{name} is done")))
        return self._add(f"work/{name}", made)

    def verdict(self, name: str, attempt: int, decision: str, *reasons: str) -> Book:
        """The verdict on this attempt, counted as in the log; without one, accept."""
        self.jobs[f"verdict/{name}/{attempt}"] = verdict(decision, *reasons)
        return self

    def review(self, *findings: dict[str, Any], who: str = "security-reviewer", fixed: Sequence[str] = ()) -> Book:
        return self._add(f"review/{who}", review(*findings, fixed=fixed))

    def json(self) -> str:
        return json.dumps({"about": "a test", "jobs": self.jobs, "default": self.default}, indent=1)


# -- the world -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    argv: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"$ orchgit {' '.join(self.argv)}\nexit code {self.code}\n-- stdout\n{self.out}\n-- stderr\n{self.err}"

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class World:
    """One repository and everything around it. `make` builds the usual one."""

    root: Path
    repo: Path = field(init=False)
    extra_env: dict[str, str] = field(default_factory=dict)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repo = self.root / "repo"
        for name in ("home", "state", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"),
            "XDG_STATE_HOME": str(self.root / "state"), "LANG": "C.UTF-8", "USER": "ada", "PYTHONPATH": str(SOURCE),
            "GIT_CONFIG_NOSYSTEM": "1", "TERM": "xterm", "COLUMNS": "140",
            "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z", **self.extra_env,
        }  # fmt: skip

    # -- git

    def git(self, *args: str, cwd: Path | None = None, ok: bool = True) -> str:
        env = {**self.env, "GIT_OPTIONAL_LOCKS": "0"}  # looking must not refresh the index that is being looked at
        done = subprocess.run(["git", *args], cwd=cwd or self.repo, env=env, capture_output=True, check=False)
        assert not ok or done.returncode == 0, f"git {args}: {done.stderr.decode()}"
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def put(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, str | bytes], message: str = "more") -> str:
        self.put(files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def ref(self, name: str) -> str:
        """A branch of a run, such as "<run>/integration"; "" when it is not there."""
        return self.git("rev-parse", "-q", "--verify", f"refs/heads/orchgit/{name}", ok=False)

    def tree(self, commit: str) -> dict[str, str]:
        """path -> content of every file of a commit."""
        names = self.git("ls-tree", "-r", "--name-only", "-z", commit).split("\0")
        return {n: self.git("show", f"{commit}:{n}") for n in names if n}

    def files(self, commit: str) -> set[str]:
        return {n for n in self.git("ls-tree", "-r", "--name-only", "-z", commit).split("\0") if n}

    # -- orchgit

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "orchgit"]

    def run(self, *args: str, code: int | None = 0, stdin: bytes = b"", cwd: Path | None = None,
            env: Mapping[str, str] | None = None, timeout: float = PATIENCE_S) -> Done:  # fmt: skip
        """The command, to its end. `code` None: any."""
        ended, out, err = forked.server().run(
            args, cwd=cwd or self.repo, env={**self.env, **(env or {})}, stdin=stdin, timeout=timeout
        )
        result = Done(ended, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"), args)
        assert code is None or result.code == code, str(result)
        assert "Traceback" not in result.err, str(result)
        return result

    def spawn(self, *args: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """The command in the background; its output goes to a file. `close` ends it."""
        out = (self.root / f"spawned-{len(self.children)}.txt").open("wb")
        child = subprocess.Popen([*self.argv, *args], cwd=cwd or self.repo, env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=out)  # fmt: skip
        out.close()
        self.children.append(child)
        return child

    def said(self, child: subprocess.Popen[bytes]) -> str:
        return (self.root / f"spawned-{self.children.index(child)}.txt").read_text()

    def playbook(self, book: Book, name: str = "playbook.json") -> Path:
        path = self.root / name
        path.write_text(book.json())
        return path

    def issue(self, text: str = "# Add billing\n\nTeams can pay.\n") -> Path:
        path = self.root / "issue.md"
        path.write_text(text)
        return path

    def start_args(self, book: Book, *args: str) -> list[str]:
        return ["start", str(self.issue()), "--backend", "scripted", "--playbook", str(self.playbook(book)), *args]

    def start(self, book: Book, *args: str, code: int | None = 0, cwd: Path | None = None) -> Done:
        """A run on a plan approved by policy, to wherever it gets."""
        return self.run(*self.start_args(book, "--yes", *args), code=code, cwd=cwd)

    # -- what a run left

    @property
    def runs(self) -> Path:
        return self.repo / ".git" / "orchgit" / "runs"

    def names(self) -> list[str]:
        """Names of all runs, oldest first."""
        return sorted(p.name for p in self.runs.iterdir()) if self.runs.exists() else []

    @property
    def name(self) -> str:
        return self.names()[-1]

    @property
    def log(self) -> Path:
        return self.runs / self.name / "events.jsonl"

    def events(self, kind: str = "", run: str = "", **data: Any) -> list[dict[str, Any]]:
        """Events as dicts; only those whose type begins with `kind` and whose data has these values."""
        path = self.runs / (run or self.name) / "events.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [
            ev for ev in map(json.loads, lines)
            if ev["type"].startswith(kind) and all(ev["data"].get(k) == v for k, v in data.items())
        ]  # fmt: skip

    def one(self, kind: str, **data: Any) -> dict[str, Any]:
        found = self.events(kind, **data)
        assert len(found) == 1, f"{len(found)} of {kind} {data}: {[ev['type'] for ev in self.events()]}"
        return found[0]

    def blob(self, digest: str) -> str:
        return (self.runs / self.name / "blobs" / digest).read_text()

    def wait_for(self, what: Callable[[], Any], why: str = "", timeout: float = PATIENCE_S) -> Any:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = what()
            if found:
                return found
            time.sleep(0.02)
        said = "\n".join(self.said(c) for c in self.children)
        raise AssertionError(f"waited {timeout} s for {why or what}; {said}")

    def wait_event(self, kind: str, count: int = 1, **data: Any) -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            found = self.events(kind, **data) if self.names() and self.log.exists() else []
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = self.wait_for(look, f"{count} of {kind} {data}")
        return found[count - 1]

    def processes(self) -> dict[int, str]:
        """Living processes that name this world: in their command line, their directory, or their environment."""
        mark = str(self.root).encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:  # one that is just ending can be gone at any of these
                argv = (folder / "cmdline").read_bytes()
                seen = argv + b"\0" + (folder / "environ").read_bytes()
                seen += b"\0" + os.fsencode(os.readlink(folder / "cwd"))
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in seen and state not in "ZX":
                found[int(folder.name)] = argv.replace(b"\0", b" ").decode()[:200]
        return found

    def none_left(self, within: float = 8.0) -> None:
        """No process of this world is alive, and nothing lies where its cells were."""
        self.wait_for(lambda: not self.processes(), f"no process left: {self.processes()}", within)

    def cells_left(self) -> list[str]:
        state = self.root / "state" / "orchgit"
        return [str(p.relative_to(state)) for p in state.glob("*/*/*")] if state.exists() else []

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()


def digest(world: World, repo: Path | None = None) -> dict[str, str]:
    """What a run must leave byte for byte: the work tree, the index, refs outside orchgit's, config, stash, hooks."""
    top = repo or world.repo
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(top):
        here = Path(folder)
        if here == top:
            folders.remove(".git") if ".git" in folders else None
        if here == top / ".orchestration" and "runs" in folders:
            folders.remove("runs")  # the link to the log, ignored by git
        for name in (*names, *(f for f in folders if (here / f).is_symlink())):
            path = here / name
            if path.relative_to(top).as_posix() == ".orchestration/.gitignore":
                continue
            info = path.lstat()
            data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            key = f"{path.relative_to(top)} {info.st_mode:o} {info.st_mtime_ns}"
            found[key] = hashlib.sha256(data).hexdigest()
        if here != top / ".orchestration":
            found[f"{here.relative_to(top)}/ {here.lstat().st_mode:o}"] = ""
    git_dir = Path(world.git("rev-parse", "--absolute-git-dir", cwd=top))
    for name in ("index", "config", "HEAD", "MERGE_HEAD", "MERGE_MSG", "logs/HEAD", "logs/refs/stash", "info/exclude"):
        path = git_dir / name
        found[f".git/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
    for path in sorted((git_dir / "hooks").glob("*")):
        found[f".git/hooks/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    listed = world.git("for-each-ref", "--format=%(refname) %(objectname)", cwd=top).splitlines()
    found |= dict(r.split(" ") for r in listed if not r.startswith(("refs/heads/orchgit/", "refs/orchgit/")))
    found["stash"] = world.git("stash", "list", cwd=top)
    return found


AGENT = """---
name: {name}
description: Does the {name} part.
tools: {tools}
---

You do your part and nothing else.
"""
FILES: dict[str, str | bytes] = {
    **{f".claude/agents/{n}.md": AGENT.format(name=n, tools="Read, Write, Edit, Bash, Glob, Grep") for n in WORKERS},
    "README.md": "# A small project\n",
    "src/api/routes.py": "ROUTES = ['/']\n",
    "src/web/page.html": "<p>page</p>\n",
    "tests/test_base.py": "import unittest\n\n\nclass T(unittest.TestCase):\n    def test_base(self):\n        pass\n",
    "docs/index.md": "# Docs\n",
}


def bare_world(root: Path) -> World:
    """A world without a repository in it."""
    return World(root)


def make(root: Path, files: Mapping[str, str | bytes] | None = None) -> World:
    """A small repository on branch main, with a roster of four workers, and one commit."""
    world = World(root)
    world.repo.mkdir()
    (root / "home" / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    world.git("init", "-q", "-b", "main")
    world.commit(FILES if files is None else files, "first")
    return world


def simple(**api: Any) -> Book:
    """One assignment that writes one file."""
    scope = piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"], **api)
    return Book(scope).work("api", turn(write("src/api/billing.py", "billing = 1\n")))


# -- a terminal ------------------------------------------------------------------------------------------


class Terminal:
    """The command on a pseudo-terminal, and somebody who types. Use as a context."""

    def __init__(self, world: World, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.text = ""
        self._read = 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(world.repo)
                os.execve(sys.executable, [*world.argv, *args], {**world.env, **(env or {})})
            finally:
                os._exit(127)
        attributes = termios.tcgetattr(self.fd)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
        self.code: int | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def _more(self, timeout: float) -> bool:
        """False at the end of the output."""
        if select.select([self.fd], [], [], timeout)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # EIO: the other side is gone
                return False
            if not data:
                return False
            self.text += data.decode("utf-8", "replace")
        return True

    def expect(self, pattern: str, timeout: float = PATIENCE_S) -> str:
        """Read until the pattern comes after what was expected before; the text up to and with it."""
        end = time.monotonic() + timeout
        while True:
            plain = self.plain[self._read :]
            found = re.search(pattern, plain)
            if found:
                self._read += found.end()
                return plain[: found.end()]
            alive = self._more(0.2)
            assert alive or re.search(pattern, self.plain[self._read :]), f"ended without {pattern!r}:\n{self.plain}"
            assert time.monotonic() < end, f"no {pattern!r} within {timeout} s:\n{self.plain}"

    @property
    def plain(self) -> str:
        """Without the escapes of the terminal's own (colour, cursor), and with plain newlines."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text).replace("\r\n", "\n")

    def type(self, line: str) -> None:
        os.write(self.fd, line.encode() + b"\n")

    def end(self, code: int | None = 0, timeout: float = PATIENCE_S) -> str:
        """Wait for its end; everything it wrote."""
        until = time.monotonic() + timeout
        while self._more(0.2):
            assert time.monotonic() < until, f"does not end:\n{self.plain}"
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert code is None or self.code == code, f"exit code {self.code}:\n{self.plain}"
        return self.plain
