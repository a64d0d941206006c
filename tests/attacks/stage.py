"""The stage of an attack: a repository, a HOME and a whole real run, in which the worker is the attacker.

The run is `orchgit start` from inside: the same session, log, cell, sandbox, watchdog, gate, checks and merge; only the
level of the sandbox is chosen here, and the agents are scripted. The answer is computed from facts: what the act met
inside, what the log says, and what is different outside.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchgit import cellrun, session
from orchgit.core import events as e
from orchgit.core.errors import OrchgitError
from orchgit.core.plan import Assignment, Plan
from orchgit.core.state import Run
from orchgit.eventlog import Store
from orchgit.git import cells, user
from orchgit.git.door import GitError
from orchgit.report import say
from orchgit.sandbox import SANDBOXES, Level, sandbox
from tests.attacks.catalogue import CONTAINED, DETECTED, LANDED, OPEN, PREVENTED, Answer, Attack
from tests.support import repos, scenario

PLACE = os.environ.get("ORCHGIT_ATTACKS_DIR")
SECRET, KEY = "CANARY-5ec2e7", "CANARY-f11eb5"  # the one that the engine holds, and one in a file of the user's
BASE: dict[str, str | bytes] = {
    **scenario.FILES,
    ".gitignore": "*.log\nbuild/\n__pycache__/\n",
    ".gitattributes": "*.bin -text\n",
    ".github/workflows/ci.yml": "on: push\n",
    ".orchestration/config.toml": "[run]\nattempts = 1\nreviewers = []\n[checks]\ndeadline_s = 5\n",
    "CLAUDE.md": "Be good.\n",
    "Makefile": "all:\n\ttrue\n",
    "package.json": '{"scripts": {}}\n',
    "other/c.py": "c = 1\n",
    "src/api/a.py": "a = 1\n",
    "src/api/deep/x.py": "x = 1\n",
    "types/first.ts": "export {};\n",
    "tests/test_api.py": "import sys, unittest\nsys.path.insert(0, 'src')\n\n\nclass T(unittest.TestCase):\n"
    "    def test_a(self):\n        from api import a\n        self.assertEqual(a.a, 1)\n",
}
ALLOW, DENY = ("src/api/**", "types/*.ts"), ("src/api/secret/**",)
_PROTECTED = re.compile(
    rb"(^|/)(\.git[^/]*|\.github|\.claude|claude\.md|conftest\.py|makefile|package\.json)(/|$)", re.I
)


def in_scope(path: bytes) -> bool:
    """The scope of ALLOW and DENY once more, said by somebody else than the code under test."""
    inside = path.startswith(b"src/api/") and not path.startswith(b"src/api/secret/")
    return (inside or re.fullmatch(rb"types/[^/]+\.ts", path) is not None) and not _PROTECTED.search(path)


@dataclass
class Played:
    """What became of it. `said`: what the act printed; `harm`: each thing outside that is not as it was."""

    answer: Answer
    said: str
    reported: list[str]
    harm: list[str]
    events: list[dict[str, Any]] = field(repr=False)
    phase: str = ""

    def __str__(self) -> str:
        told = (
            f"{self.answer} ({self.phase})\n-- reported: {self.reported}\n-- harm: {self.harm}\n-- said:\n{self.said}"
        )
        return told + "\n-- log\n" + "\n".join(f"{ev['type']} {json.dumps(ev['data'])[:300]}" for ev in self.events)


@functools.cache
def levels() -> dict[str, Level]:
    """Those of this machine, by name, none last."""
    probed = {name: sandbox(name).probe() for name in SANDBOXES}
    return {name: level for name, level in probed.items() if isinstance(level, Level)}


def _place(level: str) -> str | None:
    """Tmpfs, where there is one: a run syncs some forty times, and nothing here must outlive a power cut. But
    bubblewrap has a /dev and a /tmp of its own: a repository there is refused, since its canary can write beside it."""
    if PLACE:
        return PLACE
    if "bwrap" not in level and os.access("/dev/shm", os.W_OK):
        return "/dev/shm"
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else None


@contextmanager
def somewhere(level: str) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="orchgit-attack-", dir=_place(level))).resolve()
    try:
        yield made
    finally:
        cells.remove(made)


@functools.cache
def _template(process: int) -> Path:
    """A world to copy: made once per process, its git directory included."""
    root = Path(tempfile.mkdtemp(prefix="orchgit-template-", dir=_place("none"))).resolve()
    import atexit

    atexit.register(shutil.rmtree, root, ignore_errors=True)
    world = scenario.make(root / "w", BASE)
    (world.repo / "src/api/run.sh").write_text("#!/bin/sh\n")
    (world.repo / "src/api/run.sh").chmod(0o755)
    (world.repo / "src/api/link").symlink_to("a.py")
    world.git("add", "-A")
    world.git("commit", "-qm", "second")
    world.git("branch", "private")
    home = root / "w" / "home"
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519").write_text(KEY)
    (home / ".ssh" / "api_key").write_text(SECRET)
    (home / ".bashrc").write_text("# mine\n")
    (root / "w" / "outside").mkdir()
    (root / "w" / "outside" / "precious").write_text("precious")
    (root / "w" / "marks").mkdir()
    return root / "w"


class Stage:
    def __init__(self, root: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copytree(_template(os.getpid()), root / "w", symlinks=True)
        self.world = scenario.World(root / "w")
        self.repo = repos.Repo(self.world.repo)
        self.level, self.patch = level, monkeypatch
        self.way = sandbox(level)
        found = self.way.probe()
        assert isinstance(found, Level)
        self.held = found
        for name in list(os.environ):
            if name not in ("PATH", "LANG", "TMPDIR"):
                monkeypatch.delenv(name)
        for name, value in {**self.world.env, "ANTHROPIC_API_KEY": SECRET}.items():
            if name not in ("TMPDIR", "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "PYTHONPATH"):
                monkeypatch.setenv(name, value)
        monkeypatch.setattr(session, "best", lambda *_: (self.way, self.held))

    # -- the act

    def command(self, attack: Attack) -> str:
        """What the worker's shell gets. Canary commands are at hand as $MARK: run by the engine, it leaves a file."""
        world = self.world
        given = {
            "USER_REPO": world.repo, "USER_HOME": world.root / "home", "OUTSIDE": world.root / "outside",
            "MARKS": world.root / "marks", "PY": sys.executable,
            "SOURCE": scenario.SOURCE,
        }  # fmt: skip
        names = "".join(f"export {key}='{value}'\n" for key, value in given.items())
        # The name of the mark says from which HOME it was run: the engine's, or the cell's own.
        names += (
            'export MARK="$HOME/mark.sh"\nprintf \'#!/bin/sh\\necho "$HOME" >>"%s/$$"\\ncat\\n\' "$MARKS" >"$MARK"\n'
        )
        names += 'chmod +x "$MARK"\nexport GIT_CONFIG_COUNT=0\n'
        if attack.lang == "sh":
            body = f"( set -e\n{attack.how}\n)"
        else:
            body = f"\"$PY\" -I -S - <<'END_OF_ATTACK'\n{PYTHON}\n{attack.how}\nEND_OF_ATTACK"
        return f"{names}{body}\ncode=$?\n[ $code = 0 ] && echo 'ACT: done' || echo \"ACT: refused $code\"\n"

    def _book(self, attack: Attack) -> scenario.Book:
        if attack.lang == "calls":
            assert not isinstance(attack.how, str)
            turns = [scenario.turn(dict(call)) for call in attack.how]
            return scenario.Book().work("api", *turns)
        report = scenario.report(**{"summary": "done", **dict(attack.report)})
        return scenario.Book().work("api", scenario.turn(scenario.bash(self.command(attack))), scenario.turn(report))

    def play(self, attack: Attack) -> Played:
        if attack.before:
            subprocess.run(["/bin/sh", "-ec", attack.before], cwd=self.world.repo, env=self.world.env, check=True)
        if attack.harvest:
            lie = [sys.executable, "-I", "-S", "-c", f"{PYTHON}\n{attack.harvest}"]
            self.patch.setattr(
                cells, "harvest_argv", lambda cell, start, *_more: [*lie, str(cell.work), start, str(cell.git)]
            )
        if attack.patience_s:
            self.patch.setattr(cellrun, "HARVEST_S", attack.patience_s)
        before = self._outside()
        run, store, stopped = self._run(attack)
        parsed = _events(store)
        events = [json.loads(event.line) for event in parsed]
        # Or all of it would count as prevented.
        assert not any(ev["type"] == "cell.failed" for ev in events), f"no cell, no attack: {events[-3:]}"
        said = self._said(events, store, attack)
        reported = [*_reported(events), *([f"the engine stopped: {stopped}"] if stopped else [])]
        harm = self._harm(before, run, store, parsed)
        refused = "ACT: done" not in said and not stopped
        if harm or (attack.reach and not refused):
            answer: Answer = OPEN if attack.outside or attack.reach else LANDED
        elif refused:
            answer = PREVENTED
        else:
            answer = DETECTED if reported else CONTAINED
        if answer == CONTAINED and attack.forges and run.tip and run.phase == "completed":
            answer = OPEN
        return Played(answer, said, reported, harm, events, run.phase)

    def _run(self, attack: Attack) -> tuple[Run, Store, str]:
        """The run, its log, and why the engine gave up, if it did."""
        world = self.world
        found = user.discover(world.repo)
        spec = Assignment(
            "api", "api-agent", "The api part", "Do the api part.", attack.allow or ALLOW, DENY,
            outputs=attack.outputs, checks=attack.checks,
        )  # fmt: skip
        options = session.Options(
            backend="scripted", playbook=str(world.playbook(self._book(attack))), approval="policy",
            allow_unsandboxed=True,
        )  # fmt: skip
        opened, _ = session.begin(
            found, session.Issue("a test", "t", "t"), options, (), lambda _who, _line: None, Plan("g", (spec,))
        )
        stopped = ""
        try:
            opened.runner.drive(opened.world)
        except (OrchgitError, GitError, AssertionError) as error:  # also what the engine asserts of itself
            stopped = str(error) or getattr(error, "what", "")
        finally:
            opened.close()
        return opened.runner.run, Store(opened.runner.log.path), stopped

    # -- the facts

    def _said(self, events: list[dict[str, Any]], store: Store, attack: Attack) -> str:
        said = []
        for ev in events:
            if ev["type"] == "agent.exited" and ev["data"]["member"] == "api-agent":
                for line in store.blob(ev["data"]["transcript"]).decode().splitlines():
                    entry = json.loads(line)
                    if entry.get("kind") == "result" and entry.get("tool") not in ("report", "request_scope"):
                        said.append(str(entry.get("text")))
                        if attack.lang == "calls" and entry.get("ok"):
                            said.append("ACT: done")
        return "\n".join(said)

    def _outside(self) -> dict[str, object]:
        root = self.world.root
        common = self.repo.common
        found: dict[str, object] = dict(scenario.digest(self.world))
        for name in ("home", "outside"):
            found |= {f"{name}/{path}": what for path, what in repos.snapshot(root / name).items()}
        objects = [p for p in (common / "objects").rglob("*") if p.is_file()]
        found |= {f"object {p.relative_to(common)}": p.stat().st_size for p in objects}
        return found

    def _harm(self, before: dict[str, object], run: Run, store: Store, events: list[e.Event]) -> list[str]:
        after = self._outside()
        harm = [f"changed: {key}" for key in before if after.get(key) != before[key]]
        harm += [f"new: {key}" for key in after.keys() - before.keys() if not key.startswith("object ")]
        state = str(self.world.root / "state")
        for mark in (self.world.root / "marks").iterdir():
            harm += [f"the engine ran it, HOME={line}" for line in mark.read_text().splitlines() if state not in line]
        harm += self._landed(run)
        for path in store.path.rglob("*"):
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in (SECRET, KEY)):
                harm.append(f"the secret is in {path.relative_to(store.path)}")
        harm += [f"the screen would get it raw: {word!r}" for word in map(say, events) if not all(map(_plain, word))]
        harm += ["the run was aborted from inside"] if run.phase == "aborted" else []
        harm += [f"still alive: {line}" for line in self.world.processes().values()]
        return harm

    def _landed(self, run: Run) -> list[str]:
        """What is on the run's branches and is not in scope; and whether git finds anything wrong with it."""
        assert run.started is not None
        base, repo, harm = run.started.base, self.repo, []
        kept = repos.files_of(repo, base)
        tips = repo.ask("for-each-ref", "--format=%(objectname)", f"refs/heads/orchgit/{run.id}").split()
        commits = repo.ask("rev-list", *tips, "--not", base).split() if tips else []
        for commit in commits:
            now = repos.files_of(repo, commit)
            for path in kept.keys() | now.keys():
                if kept.get(path) == now.get(path):
                    continue
                if not in_scope(path):
                    harm.append(f"landed out of scope: {path!r}")
                elif path in now and now[path][0] not in (repos.FILE, repos.EXECUTABLE):
                    harm.append(f"landed with mode {now[path][0]}: {path!r}")
            head = repos.git(repo.root, "cat-file", "commit", commit)
            if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", head):
                harm.append(f"control characters in commit {commit}")
            if b"orchgit" not in head.partition(b"\n\n")[0]:
                harm.append(f"commit {commit} is not the engine's")
            names = repo.ask("log", "-1", "--format=%(trailers:key=Orchgit-Run,valueonly)", commit).split()
            if names != [run.id]:
                harm.append(f"trailers of commit {commit}: {names}")
        if commits and repos.git(repo.root, "grep", "-lF", "-e", SECRET, "-e", KEY, commits[0], check=False):
            harm.append("the secret was landed")
        fsck = subprocess.run(
            ["git", "fsck", "--full", "--strict", "--no-dangling", "--no-progress"], cwd=repo.root, env=repos.ENV,
            capture_output=True, check=False,
        )  # fmt: skip
        return harm + ([f"fsck: {fsck.stdout!r} {fsck.stderr!r}"] if fsck.stdout or fsck.returncode else [])


def _events(store: Store) -> list[e.Event]:
    """Those lines of the log that are events; an attacker without a sandbox may have left others."""
    found = []
    for line in store.raw():
        with suppress(e.LineError):
            found.append(e.parse(line))
    return found


def _plain(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _reported(events: list[dict[str, Any]]) -> list[str]:
    """What gate, checks or engine said against it. The watchdog is feedback: what it sees in time is not counted."""
    found = []
    for ev in events:
        data = ev["data"]
        match ev["type"]:
            case "gate.failed":
                found += [f"gate: {v['path']} {v['rule']}" for v in data["violations"]]
            case "checks.failed":
                found += [f"checks: {r['command']}: {r['why']}" for r in data["results"] if not r["passed"]]
            case "blocker.raised":
                found.append(f"blocker: {data['text']}")
            case "run.failed" | "merge.stale" | "cell.failed":
                found.append(f"{ev['type']}: {data.get('why', '')}")
    return found


PYTHON = r"""
import ctypes, hashlib, os, stat, struct, sys, zlib
from os import environ
here = os.getcwd()
git_dir = os.path.join(os.path.dirname(here), "git")
def put(path, data=b"marked", mode="wb"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, mode) as file:
        file.write(data)
def obj(kind, data):
    raw = kind.encode() + b" %d\0" % len(data) + data
    oid = hashlib.sha1(raw).hexdigest()
    path = f"{git_dir}/objects/{oid[:2]}/{oid[2:]}"
    if not os.path.exists(path):
        put(path, zlib.compress(raw))
    return oid
def tree(*entries):
    return obj("tree", b"".join(mode + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries))
WHO = b"a <a@b> 1767225600 +0000"
def commit(tree_id, *parents, author=WHO, message=b"x"):
    lines = [b"tree " + tree_id.encode(), *(b"parent " + p.encode() for p in parents)]
    return obj("commit", b"\n".join([*lines, b"author " + author, b"committer " + WHO, b"", message + b"\n"]))
def head():
    said = open(git_dir + "/HEAD").read().strip()
    if not said.startswith("ref: "):
        return said
    return open(git_dir + "/" + said[5:]).read().strip()
def move(oid):
    said = open(git_dir + "/HEAD").read().strip()
    put(git_dir + "/" + said[5:], oid.encode() + b"\n")
def honest():
    put("src/api/honest.py", b"honest = 1\n")
"""
