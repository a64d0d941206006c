"""The `command` backend: any program, described in `[command.NAME]` of the configuration, used as `command:NAME`.

The whole program runs in the sandbox, one run a turn. It gets the brief on standard input, or where its argv names
{brief} or {brief_file}; and hands in by the file of handin.py, or as `report` says. What it prints is data: kept in
part, never obeyed. Its exit status alone decides nothing, and nothing of the user's HOME reaches it but what `home`
names; that is written by a process inside the sandbox, for an earlier turn may have put a link in its place.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchgit.agents import COMMAND, Cost, HandIn, Job, Needs, Network, Outcome, Probe, handin
from orchgit.agents.headless import denied
from orchgit.process import Child

if TYPE_CHECKING:
    import tarfile

OWN_MODEL = "its own"  # where the configuration names none
MAX_OUTPUT = 64 << 20  # bytes on stdout in one turn: beyond them nobody is working any more,
MAX_LINES = 300_000  # nor beyond so many lines
MAX_TAIL = 1 << 20  # of it, for the report
MAX_KEPT = 1 << 20  # of it, in the transcript
MAX_ARGUMENT = 120_000  # bytes; Linux takes 128 KiB
MAX_HOME = 16 << 20  # bytes of the user's HOME
MAX_SUMMARY = 1400
POLL_S = 0.1
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")
_UNPACK = "import os, sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall(os.environ['HOME'])"


@dataclass(frozen=True)
class Entry:
    """One [command.NAME]."""

    argv: tuple[str, ...]
    resume: tuple[str, ...]
    report: str
    network: Network
    env: tuple[str, ...]
    home: tuple[str, ...]

    @property
    def program(self) -> str:
        """What is run in the end: `env NAME=VALUE …` comes before it where variables are set."""
        words = iter(self.argv)
        first = next(words)
        if os.path.basename(first) != "env":
            return first
        return next((word for word in words if "=" not in word and not word.startswith("-")), first)


def entry(options: Mapping[str, str]) -> Entry:
    given = json.loads(options["entry"])
    argv, resume, env, home = (tuple(given[key]) for key in ("argv", "resume", "env", "home"))
    return Entry(argv, resume, given["report"], given["network"], env, home)


class CommandBackend:
    default_model = OWN_MODEL
    cost: Cost = "unknown"

    def __init__(self, name: str = "command") -> None:
        self.name = name

    def probe(self, options: Mapping[str, str]) -> Probe:
        if "entry" not in options:
            hint = f"describe it in [command.NAME] of .orchestration/config.toml, and choose {COMMAND}NAME"
            return Probe(False, "no program is described", hint)
        found = entry(options)
        where = shutil.which(found.program)
        if where is None:
            return Probe(
                False, f"{found.program} is not on PATH", f"install it, or mend argv in [{_section(self.name)}]"
            )
        missing = [name for name in found.env if not os.environ.get(name)]
        if missing:
            return Probe(False, f"{where} wants {', '.join(missing)}, not set here", f"export {missing[0]}=…")
        return Probe(True, f"{where}, network {found.network}")

    def needs(self, options: Mapping[str, str]) -> Needs:
        return Needs(network=entry(options).network if "entry" in options else "none")

    def run(self, job: Job) -> Outcome:
        return _Run(job, entry(job.options)).run()


def _section(name: str) -> str:
    return name.replace(":", ".")


@dataclass(frozen=True)
class _Ended:
    """One turn. `why`: it was ended by us, with this outcome."""

    code: int
    tail: str
    stderr: str
    why: Outcome | None = None


class _Run:
    def __init__(self, job: Job, described: Entry) -> None:
        self.job, self.entry = job, described
        self.deadline_s = job.clock() + job.limits.seconds
        self.env = {name: os.environ[name] for name in described.env if name in os.environ}
        self.kept = 0

    def run(self) -> Outcome:
        job = self.job
        if job.model == OWN_MODEL and any("{model}" in word for word in self.entry.argv):
            hint = "model in [agents] of .orchestration/config.toml, in the agent's file, or --model"
            return Outcome("error", message="its argv has {model}, and no model is named", hint=hint)
        job.record(
            {"kind": "start", "key": job.key, "agent": job.agent, "role": job.role, "purpose": job.purpose}
            | {"model": job.model, "argv": list(self.entry.argv), "system": job.system, "brief": job.brief}
        )
        outcome = self._work()
        job.record({"kind": "end", "status": outcome.status, "message": outcome.message})
        pauses = outcome.result and any(r.name == outcome.result[0] and r.pauses for r in job.results)
        return replace(outcome, session=b"resume" if pauses and self.entry.resume else b"")

    def _work(self) -> Outcome:
        job, files = self.job, self.job.handin()
        missing = self._furnish_home()
        if missing:
            return Outcome("error", message=missing, hint="mend `home` of this command")
        if job.session and self.entry.resume:
            files = handin.prepare(files.brief.parent, job.answer)
            ended = self._turn(self.entry.resume, files)
        else:
            ended = self._turn(self.entry.argv, files)
        outcome = self._judge(ended, files)
        if outcome.status != "no_report" or not self.entry.resume:
            return outcome
        words = f"You ended without a result. {outcome.message}\n\n{handin.instructions(job.results)}\n"
        job.record({"kind": "reminder", "text": words})
        files = handin.prepare(files.brief.parent, words)
        return self._judge(self._turn(self.entry.resume, files), files)

    def _judge(self, ended: _Ended, files: HandIn) -> Outcome:
        """What is handed in counts, whatever the exit status; without it, that says whether it came to its end."""
        if ended.why:
            return ended.why
        said, words = None, "nothing was handed in"
        try:
            said = handin.take(files, self.job.results)
            if said is None and ended.code == 0:
                said = self._printed(ended.tail)
        except ValueError as error:
            words = str(error)
        if said is not None:
            return Outcome("done", said)
        last = (ended.stderr.strip() or ended.tail.strip())[-500:]
        if ended.code == 127:
            return Outcome("unavailable", message=f"it cannot be started: {last}", hint="orchgit agents")
        if ended.code:
            how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
            return Outcome("error", message=f"it ended with {how}: {last}")
        return Outcome("no_report", message=words)

    def _printed(self, text: str) -> tuple[str, Mapping[str, Any]] | None:
        """The result as printed, where the entry says that it is. ValueError, with words for the agent."""
        if self.entry.report == "json":
            last = next((line for line in reversed(text.splitlines()) if line.lstrip().startswith("{")), "")
            return handin.read(last, self.job.results) if last else None
        tool = self.job.results[0]
        if self.entry.report != "text" or tool.name != "report" or not text.strip():
            return None
        given = {"summary": text.strip()[-MAX_SUMMARY:]}
        tool.parse(given)
        return tool.name, given

    # -- one turn

    def _turn(self, argv: Sequence[str], files: HandIn) -> _Ended:
        words, piped = self._filled(argv, files)
        # The shell opens the file: nobody has to feed a program that may not read, or print before it does.
        source = f'"${handin.BRIEF}"' if piped else "/dev/null"
        env = {**self.env, **handin.environment(files)}
        child = self.job.launch(["/bin/sh", "-c", f'exec "$@" <{source}', "sh", *words], env=env)
        over, why = threading.Event(), list[Outcome]()
        watcher = threading.Thread(target=self._watch, args=(child, over, why), daemon=True)
        watcher.start()
        try:
            tail, flooded = self._read(child)
            if flooded:
                why.append(
                    Outcome(
                        "error",
                        message=f"it was stopped: it printed more than {MAX_OUTPUT >> 20} MiB, or {MAX_LINES} lines",
                    )
                )
                ended = child.stop()
            else:
                ended = child.finish(deadline_s=10**9)  # the watcher's clock counts: it stands still in a pause
        finally:
            over.set()
            watcher.join()
        stderr = self._clean(ended.stderr[-4000:])
        if stderr.strip():
            self._say("stderr", stderr)
        return _Ended(ended.returncode, tail, stderr, why[0] if why else None)

    def _filled(self, argv: Sequence[str], files: HandIn) -> tuple[list[str], bool]:
        """The command line, and whether the brief still has to come on standard input."""
        job = self.job
        given = {"brief_file": str(files.brief), "result_file": str(files.result), "workdir": job.workdir}
        given |= {"model": job.model}
        if any("{brief}" in word for word in argv):
            given["brief"] = brief = files.brief.read_text("utf-8") if files.brief.is_file() else ""
            if len(brief.encode()) > MAX_ARGUMENT:
                given["brief"] = f"Read the file {files.brief}, all of it, and do what it says."
        piped = not any("{brief}" in word or "{brief_file}" in word for word in argv)
        return [re.sub(r"\{([a-z_]+)\}", lambda m: given.get(m[1], m[0]), word) for word in argv], piped

    def _watch(self, child: Child, over: threading.Event, why: list[Outcome]) -> None:
        while not over.wait(POLL_S):
            if self.job.stop.is_set():
                why.append(Outcome("stopped", message="it was stopped"))
            elif self.job.clock() > self.deadline_s:
                why.append(Outcome("time", message=f"not done within {self.job.limits.seconds} s"))
            if why:
                child.stop()
                return

    def _read(self, child: Child) -> tuple[str, bool]:
        """The end of what it prints; and whether that is too much."""
        tail, seen, lines = bytearray(), 0, 0
        while True:
            try:
                line = child.readline(3600)
            except TimeoutError:
                continue
            except OSError:  # a line without an end
                return "", True
            if not line:
                return self._clean(bytes(tail)), False
            seen, lines = seen + len(line), lines + 1
            if seen > MAX_OUTPUT or lines > MAX_LINES:
                return "", True
            tail += line
            if len(tail) > 2 * MAX_TAIL:
                del tail[: len(tail) - MAX_TAIL]
            self._note(line)

    def _note(self, line: bytes) -> None:
        if self.kept > MAX_KEPT:
            return
        self.kept += len(line)
        text = self._clean(line[:4000]).rstrip()
        if self.kept > MAX_KEPT:
            text = "[… what it printed from here on is left out …]"
        if text:
            self._say("stdout", text)
            self.job.progress(text[:200])

    def _say(self, stream: str, text: str) -> None:
        """Into the transcript; and what it says of writes that the sandbox refused, as far as one can tell."""
        self.job.record({"kind": "output", "stream": stream, "text": text})
        for path, words in denied(text, self.job.workdir):
            told = {"kind": "result", "tool": self.entry.program, "ok": False, "refused": True, "layer": "sandbox"}
            self.job.record({**told, "path": path, "text": words})

    def _clean(self, data: bytes) -> str:
        """As text, without terminal escapes, and without the values that it was given."""
        text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
        for name, value in self.env.items():
            if len(value) >= 8:
                text = text.replace(value, f"[{name}]")
        return text

    def _furnish_home(self) -> str:
        """Copy what `home` names into the private HOME; why it cannot be done, or ""."""
        if not self.entry.home:
            return ""
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in self.entry.home:
                origin = Path.home() / name
                if origin.exists():
                    tar.add(origin, arcname=name, filter=_owned)
        if packed.tell() > MAX_HOME:
            return f"`home` names more than {MAX_HOME >> 20} MiB"
        child = self.job.launch([sys.executable, "-I", "-S", "-W", "ignore", "-c", _UNPACK])
        ended = child.finish(packed.getvalue(), deadline_s=60)
        return ended.stderr.decode("utf-8", "replace")[-500:] if ended.returncode else ""


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files and directories, as our own: links would lead to what is not copied."""
    if not (member.isfile() or member.isdir()):
        return None
    return member.replace(uid=os.getuid(), gid=os.getgid(), uname="", gname="", deep=False)
