"""A coding agent that is a program of its own, run without a terminal: what Claude Code and Codex have in common.

The program runs whole inside the sandbox, unmodified, with its service in reach and the one credential that it needs
there. What differs between programs is a `Dialect`: how a turn is started, and what a line of the stream means. One
`converse` is one job: a turn, and in the same conversation further ones, where it was interrupted, forgot its report,
or gave one that is not valid.

It must never take an exit status for an ending (both programs exit 0 with nothing done), hold more than a line of
output, leave anything running, or write a credential down. Read `converse` first.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from typing import Any, Protocol

from orchgit.agents import Job, Outcome, Probe, ResultTool, Status, Usage, handin
from orchgit.agents.anthropic_api import strict_schema
from orchgit.agents.budget import Spent, plus, purse_of
from orchgit.agents.loop import GOES_ON
from orchgit.agents.prices import Price, parse_overrides, price_of
from orchgit.agents.toolbox import RESULT_CHARS, shorten
from orchgit.core.events import Budget
from orchgit.process import Child

OUTPUT_CAP = 64 << 20  # bytes that one turn may print: an image or two and all tool results, and no flood;
LINE_CAP = 100_000  # nor more lines than this
NOISE = 100  # lines that are no stream, in the transcript of a turn
POLL_S = 0.1
ASK_S = 20  # for a program's word on its version
LINGER_S = 20.0  # for a program that has said its last word and does not end
REMINDERS = 1  # for a turn that ended without a result
CORRECTIONS = 2  # of a result that its parser refuses
PAUSES_S = (1.0, 10.0)  # before a turn that was interrupted is taken up again; then it has failed
MOST = 1 << 48  # of anything that is counted
UNHEARD = 50_000, 32_000  # tokens that a reply of which nothing is known has read anew, and written, at most
DENIALS = 5  # told of one tool call
PROXIES = tuple(name for plain in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") for name in (plain, plain.lower()))

GO_ON = "You were interrupted. Look at what is there, and go on with your work where you were."
REMINDER = "You have not delivered your result. Deliver it now, in the form that was asked for: {names}."
REFUSED = "Your result was not accepted. Deliver it again, with this put right:\n{why}"
ENDING = """
How you end here: where the text above speaks of calling {names}, you give your final, structured output instead: an \
object with {the} {names}, {rule}. Without a way to give structured output, write that object, as JSON, to the file \
that the environment variable ORCHGIT_RESULT names, and end.
"""

# Runs inside, before the program. What it is given by standard input, ahead of the prompt, is neither in the command
# line nor in the environment of the sandbox's own processes: it holds the credential. Only its HOME is written.
PRELUDE = r"""
import json, os, sys
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit("the launch broke off")
        data += piece
    return data
def placed(word):
    for name in ("HOME", "TMPDIR"):
        if word == "$" + name or word.startswith("$" + name + "/"):
            return os.environ[name] + word[len(name) + 1:]
    return word
given = json.loads(take(int(sys.argv[1])))
home = os.environ["HOME"]
for name, text in given["files"].items():
    path = os.path.join(home, name)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
for name, value in given["env"].items():
    os.environ[name] = placed(value)
argv = [placed(word) for word in sys.argv[2:]]
os.execv(argv[0], argv)
"""


@dataclass(frozen=True)
class Start:
    """One turn. `files` lie below HOME; a value of `env`, and a word of `argv`, may begin with $HOME or $TMPDIR."""

    argv: tuple[str, ...]
    prompt: str
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """`passing`: the same conversation, taken up again, may well get on. `after_s`: when, if its service says so."""

    status: Status
    message: str
    hint: str = ""
    passing: bool = False
    after_s: float | None = None


class Over(Exception):
    """The turn is to be stopped at once."""

    def __init__(self, status: Status, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(status, message, hint)


@dataclass
class Turn:
    """What is known of a turn; filled by a dialect, line by line."""

    job: Job
    started: bool = False  # there is a conversation that can be taken up again
    ended: bool = False  # its last word was said
    failure: Failure | None = None
    report: object = None  # its structured output
    noise: int = 0
    usage: Usage = field(default_factory=lambda: Usage(cost_micro=None))
    micro: int = 0  # what its replies have cost so far, by their price
    tools: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> (name, what it is about)

    def say(self, text: str) -> None:
        if text.strip():
            self.job.record({"kind": "reply", "text": shorten(text, RESULT_CHARS)})

    def call(self, call_id: str, name: str, about: str, given: Mapping[str, Any]) -> None:
        if len(self.tools) >= 10_000:
            raise Over("error", "it called 10000 tools and more")
        self.tools[call_id] = name, about
        text = json.dumps(given, ensure_ascii=False)
        self.job.record({"kind": "call", "id": call_id, "tool": name, "input": shorten(text, RESULT_CHARS)})
        self.job.progress(one_line(f"{name} {about}"))

    def result(self, call_id: str, ok: bool, text: str, *, refused: bool = False) -> None:
        """`refused`: by a rule of the program's own. What the sandbox refused stands in the text, and is told too."""
        name, about = self.tools.get(call_id, ("tool", ""))
        entry = {"kind": "result", "id": call_id, "tool": name}
        if refused:
            self.job.record({**entry, "ok": False, "text": shorten(text, RESULT_CHARS), "refused": True, "path": about})
            self.job.progress(one_line(f"refused: {name} {about}"))
            return
        self.job.record({**entry, "ok": ok, "text": shorten(text, RESULT_CHARS)})
        for path, words in denied(text, self.job.workdir):
            what = {"ok": False, "refused": True, "layer": "sandbox", "path": path, "text": words}
            self.job.record({**entry, **what})


class Dialect(Protocol):
    """One program's way of speaking. A new one for every job."""

    def start(self, prompt: str, conversation: str, left: Budget) -> Start:
        """`conversation` "": a new one. `left`: for limits that the program keeps itself."""

    def hear(self, said: Mapping[str, Any], turn: Turn) -> None:
        """One line of the stream. KeyError, TypeError and the like for a line that is not what it should be."""

    def silent(self, code: int, stderr: str, turn: Turn) -> Failure:
        """It ended without its last word."""

    conversation: str
    price: Price | None  # of a reply, as far as it is known

    @property
    def memory(self) -> Mapping[str, Any]:
        """Kept with the conversation, for the job that takes it up."""


def converse(job: Job, dialect: Dialect) -> Outcome:
    """The whole job. Blocks; raises OrchgitError only for what `launch` may."""
    job.record(
        {"kind": "start", "key": job.key, "agent": job.agent, "role": job.role, "purpose": job.purpose}
        | {"model": job.model, "tools": list(job.tools), "system": job.system, "brief": job.brief}
    )
    talk = _Talk(job, dialect)
    outcome = replace(talk.run(), usage=talk.usage, conversation=dialect.conversation)
    job.record({"kind": "end", "status": outcome.status, "message": outcome.message, "usage": vars(outcome.usage)})
    return outcome


class _Talk:
    def __init__(self, job: Job, dialect: Dialect) -> None:
        self.job, self.dialect = job, dialect
        self.usage = Usage(cost_micro=0)
        self.purse = job.purse or purse_of(job.limits)
        self.left = Budget()  # when the turn began: what it was handed
        self.until_s = job.clock() + job.limits.seconds
        self.results = {result.name: result for result in job.results}
        self.known = bool(job.session)  # whether there is a conversation to take up

    def run(self) -> Outcome:
        prompt = (self.job.answer or GO_ON) if self.job.session else self.job.brief
        interrupted = reminded = corrected = 0
        while True:
            turn = self.turn(prompt)
            failure = turn.failure
            if failure is not None and failure.passing and interrupted < len(PAUSES_S):
                self.job.record({"kind": "retry", "message": failure.message})
                self.job.progress(one_line(f"interrupted ({failure.message}); taking it up again"))
                failure = self.wait(PAUSES_S[interrupted])
                interrupted += 1
                prompt = GO_ON if turn.started else prompt
                if failure is None:
                    continue
            if failure is not None:
                kept = self.session() if failure.status in GOES_ON and self.known else b""
                return Outcome(
                    failure.status, None, failure.message, failure.hint, session=kept, retry_after_s=failure.after_s
                )
            try:
                found = self.delivered(turn.report)
            except ValueError as error:
                if corrected == CORRECTIONS:
                    return Outcome("no_report", None, f"its result was not valid, at last: {error}")
                corrected += 1
                prompt = REFUSED.format(why=error)
                self.job.record({"kind": "reminder", "text": prompt})
                continue
            if found is not None:
                self.job.progress(f"{found[0]}: delivered")
                return Outcome("done", found, session=self.session() if self.results[found[0]].pauses else b"")
            if reminded == REMINDERS:
                return Outcome("no_report", None, "it stopped without delivering its result")
            reminded += 1
            prompt = REMINDER.format(names=", ".join(self.results))
            self.job.record({"kind": "reminder", "text": prompt})

    def session(self) -> bytes:
        return json.dumps({"conversation": self.dialect.conversation, **self.dialect.memory}).encode()

    def delivered(self, report: object) -> tuple[str, Mapping[str, Any]] | None:
        """(result tool, its input): what was handed in by file when that asks for something, else as structured output,
        else by file. None when there is neither; ValueError with words that the agent can act on."""
        left = handin.take(self.job.handin(), self.job.results)
        if report is None or (left is not None and self.results[left[0]].pauses):
            return left
        given = {k: v for k, v in report.items() if v is not None} if isinstance(report, Mapping) else {}
        if len(given) != 1 or not set(given) <= set(self.results):
            raise ValueError(
                f"it must be an object in which exactly one of these is not null: {', '.join(self.results)}"
            )
        ((name, value),) = given.items()
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be an object")
        self.results[name].parse(value)
        return name, value

    def turn(self, prompt: str) -> Turn:
        """Start the program, listen to it until it ends or is stopped."""
        turn = Turn(self.job)
        held_s = self.job.held_s()
        if held_s > 0:
            turn.failure = Failure("limited", "its service wants no calls now", after_s=held_s)
            return turn
        left = self.purse.left()
        turns = self.job.limits.turns - self.usage.calls
        self.left = replace(left, turns=max(1, turns if left.turns is None else min(turns, left.turns)))
        start = self.dialect.start(prompt, self.dialect.conversation if self.known else "", self.left)
        given = json.dumps({"env": dict(start.env), "files": dict(start.files)}).encode()
        argv = [sys.executable, "-I", "-S", "-c", PRELUDE, str(len(given)), *start.argv]
        try:
            child = self.job.launch(argv)
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            turn.failure = Failure("error", f"it could not be started: {error}")
            return turn
        self.job.record({"kind": "request", "total": vars(plus(self.usage, self.charge(turn)))})
        feeder = threading.Thread(
            target=_feed, args=(child, given + start.prompt.encode("utf-8", "replace")), daemon=True
        )
        feeder.start()
        try:
            code, stderr = self.listen(child, turn)
            if not turn.ended and turn.failure is None:
                turn.failure = self.dialect.silent(code, stderr, turn)
        except Over as over:
            turn.failure = over.failure
        finally:
            with suppress(TimeoutError):  # stuck in the kernel; nothing more can be done from here
                child.stop()
        self.known = self.known or turn.started
        self.count(turn)
        return turn

    def listen(self, child: Child, turn: Turn) -> tuple[int, str]:
        """(exit status, the end of stderr), once its output has ended."""
        heard = lines = 0
        since_s: float | None = None  # when it said its last word
        while True:
            try:
                self.check(turn)
            except Over:
                if not turn.ended or self.job.stop.is_set():
                    raise
                return 0, ""  # its last word was said in time
            try:
                line = child.readline(POLL_S)
            except TimeoutError:
                if turn.ended and since_s is None:
                    since_s = self.job.clock()
                if since_s is not None and self.job.clock() - since_s > LINGER_S:
                    self.job.record({"kind": "lingers", "message": "it has said its last word, and is ended"})
                    return 0, ""
                continue
            except OSError as error:
                raise Over("error", f"its output cannot be read: {error}") from None
            if not line:
                break
            since_s = None
            heard, lines = heard + len(line), lines + 1
            if heard > OUTPUT_CAP or lines > LINE_CAP:
                raise Over("error", f"it printed more than {OUTPUT_CAP >> 20} MB, or {LINE_CAP} lines")
            self.hear(line, turn)
        ended = child.finish(deadline_s=2 if turn.ended else 10)
        return ended.returncode, ended.stderr.decode("utf-8", "replace").strip()[-2000:]

    def hear(self, line: bytes, turn: Turn) -> None:
        text, before = line.decode("utf-8", "replace"), turn.usage
        try:
            said = json.loads(text)
            if not isinstance(said, dict):
                raise ValueError("not an object")
            # Half a surrogate pair is a string to JSON, and nothing that can be written down.
            self.dialect.hear(_clean(said) if "\\ud" in text.lower() else said, turn)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            # Not ours to mend, and no reason to lose the work: what counts is the last word, and git.
            turn.noise += 1
            if turn.noise <= NOISE:
                self.job.record({"kind": "noise", "why": repr(error)[:200], "text": shorten(text, 2000)})
        if turn.usage != before and not turn.ended:
            # For who shares the accounts, and for who finds the transcript of an engine that died.
            self.purse.run(turn.usage, turn.micro)
            self.job.record({"kind": "so far", "total": vars(plus(self.usage, self.charge(turn)))})

    def check(self, turn: Turn) -> None:
        if self.job.stop.is_set():
            raise Over("stopped", "the engine asked it to stop")
        if self.job.clock() >= self.until_s:
            raise Over("time", f"the time limit of {self.job.limits.seconds} s was reached")
        if self.left.turns is not None and turn.usage.calls > self.left.turns:
            raise Over("turns", f"the limit of {self.job.limits.turns} turns was reached")
        try:
            self.purse.watch()
        except Spent as spent:
            raise Over(spent.status, spent.words) from None

    def charge(self, turn: Turn) -> Usage:
        """What it took, were it over now. Without a last word that tells, at its worst: one reply more than was heard
        (all of them, where the stream does not tell what they cost), and never more than it was handed."""
        used, failure = turn.usage, turn.failure
        if turn.ended and (failure is None or used.cost_micro is not None):
            return used
        if failure is not None and failure.status in ("auth", "limited") and not used.calls:
            return Usage(cost_micro=0)  # its service took no call
        heard = used.input + used.output + used.cache_read + used.cache_write
        replies = 1 if heard else used.calls + 1
        tokens = _most(replies * sum(UNHEARD), self.left.tokens, heard)
        price = self.dialect.price
        micro = turn.micro + replies * price.most_micro(*UNHEARD) if price else None
        return replace(used, unsure_tokens=tokens, unsure_micro=_most(micro, self.left.cost_micro, 0))

    def count(self, turn: Turn) -> None:
        took = self.charge(turn)
        self.usage = plus(self.usage, took)
        self.job.record({"kind": "turn ended", "total": vars(self.usage)})
        try:
            self.purse.spend(took)
        except Spent as spent:
            failure = turn.failure
            if turn.report is None and (failure is None or failure.passing or failure.status in ("budget", "turns")):
                turn.failure = Failure(spent.status, spent.words)

    def wait(self, pause_s: float) -> Failure | None:
        until_s = min(self.job.clock() + pause_s, self.until_s)
        while self.job.clock() < until_s:
            if self.job.stop.wait(POLL_S):
                return Failure("stopped", "the engine asked it to stop")
        return None


def taken_up(session: bytes) -> dict[str, Any]:
    """What `session` put away. Raises ValueError for anything else: it has been on a disk."""
    kept = json.loads(session) if session else {}
    if not isinstance(kept, dict) or not isinstance(kept.get("seen", {}), dict):
        raise ValueError("not a session")
    if session:
        named(kept.get("conversation"))
    return kept


def _feed(child: Child, data: bytes) -> None:
    """In a thread: a program that does not read must not keep us from watching it."""
    with suppress(OSError):
        child.send(data)
    child.end_input()


def price(job: Job, model: str) -> Price | None:
    """By the user's word, else by our table."""
    given = job.options.get("prices")
    return price_of(model, parse_overrides(given) if given else None)


def _most(estimate: int | None, handed: int | None, heard: int) -> int:
    """What may have been taken beside what was heard; 0 when there is nothing to tell it by."""
    known = [amount for amount in (estimate, None if handed is None else handed - heard) if amount is not None]
    return max(0, min(known, default=0))


def counted(value: Any) -> int:
    """A number of a stream's, within what can be written down and added up."""
    return max(0, min(int(value or 0), MOST))


def named(value: Any) -> str:
    """A conversation's name, as we hand it back on a command line. ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", str(value)):
        raise ValueError(f"not a name: {value!r:.100}")
    return str(value)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def one_line(text: str) -> str:
    """For a person watching."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:100]


# -- the result --------------------------------------------------------------------------------------------


def report_schema(results: Sequence[ResultTool]) -> dict[str, Any]:
    """One object with a property for each way to end, exactly one of them not null.

    As strict as services want it: everything required, nothing else allowed, no alternatives at the top.
    """
    defs: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for tool in results:
        schema = strict_schema({"description": tool.description, **tool.schema})
        defs |= schema.pop("$defs", {})
        properties[tool.name] = schema if len(results) == 1 else {"anyOf": [schema, {"type": "null"}]}
    whole = {"type": "object", "properties": properties, "additionalProperties": False}
    made: dict[str, Any] = _all_required({**whole, **({"$defs": defs} if defs else {})})
    return made


def _all_required(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_all_required(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    done = {key: _all_required(value) for key, value in schema.items()}
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        done["required"] = list(schema["properties"])
    return done


def ending(results: Sequence[ResultTool]) -> str:
    """What a system prompt that speaks of tools means to an agent that has none of ours."""
    names = " and ".join(f"`{result.name}`" for result in results)
    rule = "exactly one of them not null" if len(results) > 1 else "and nothing else"
    return ENDING.format(names=names, the="the properties" if len(results) > 1 else "the property", rule=rule)


def mcp_server() -> list[str]:
    """The command line of `orchgit mcp`, as the program starts it inside; [] where its package is not installed.

    It tells the brief and the scope, and hands in by the file; -P, for the working tree may hold a folder `orchgit`.
    """
    return [sys.executable, "-P", "-m", "orchgit", "mcp"] if find_spec("mcp") else []


# -- what the sandbox refused --------------------------------------------------------------------------------

_WHY = r"(?:[Pp]ermission denied|[Rr]ead-only file system)"
_DENIED = re.compile(
    # A redirection of a shell's; "cannot touch 'x'"; Python; Node.
    rf"(?:\bline \d+: |\bsh: \d+: cannot create |\bcannot (?:[a-z]+ ){{1,4}})(?P<a>[^:]{{1,300}}+): {_WHY}$"
    rf"|Errno (?:13|30)\] {_WHY}: (?P<b>'[^']{{1,300}}')"
    rf"|(?:EACCES|EROFS): {_WHY}, \w+ (?P<c>'[^']{{1,300}}')"
    rf"|(?<![^\s:'\"])(?P<d>[^\s:'\"]{{1,300}}+): Read-only file system"
)
LINE_CHARS = 400  # of a line that tells of one: a match holds the interpreter, and who wrote the line may want that


def denied(text: str, workdir: str) -> Iterable[tuple[str, str]]:
    """(path, the words) of writes that failed, as far as a tool's output tells: a claim, for the log to show."""
    seen: dict[str, str] = {}
    lines = (line for line in text[:RESULT_CHARS].split("\n") if len(line) <= LINE_CHARS)
    for found in chain.from_iterable(map(_DENIED.finditer, lines)):
        path = next(part for part in found.groups() if part).strip("'‘’\"")
        path = os.path.relpath(os.path.join(workdir, path), workdir)
        seen.setdefault(path, found[0][-200:])
        if len(seen) == DENIALS:
            break
    return seen.items()


# -- endings and credentials -----------------------------------------------------------------------------


def environment(names: Iterable[str]) -> dict[str, str]:
    """Those of the user's variables that are set, by an explicit list; and the proxies'."""
    return {name: os.environ[name] for name in (*names, *PROXIES) if os.environ.get(name)}


def looked_at(title: str, path: str, login: tuple[str, str], install: str, how: str) -> Probe:
    """Asks the program itself, as the user: outside every sandbox, and without a call to its service.

    `login`: (what it would work with, why there is nothing); `install` and `how`: what to type for it and for a login.
    """
    said = _asked(path, "--version")
    version = next(iter(re.findall(r"\d+\.\d+\.\d+", said)), "")
    if not version:
        return Probe(False, f"{path} does not say its version: {said[:200] or 'nothing at all'}", install)
    with_what, problem = login
    if problem:
        return Probe(False, f"{title} {version}: {problem}", how, version)
    return Probe(True, f"{title} {version}, with {with_what}", "", version, with_what)


def _asked(*argv: str) -> str:
    """What a program of the user's says; "" when it says nothing, or does not come to an end."""
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=ASK_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).decode("utf-8", "replace").strip()


def silence(code: int, stderr: str, turn: Turn) -> Failure:
    """It ended without its last word. Both exit 0 when they are interrupted, and say nothing."""
    if code == 0:
        return Failure("error", "it ended with exit status 0 and without a last word", passing=True)
    if code < 0 or code > 128:
        return Failure("error", f"it was killed by signal {-code if code < 0 else code - 128}", passing=True)
    lines = [line for line in stderr.splitlines() if line.strip()]
    said = next((line for line in lines if "rror" in line), lines[-1] if lines else "without a word")
    return Failure("error", f"it ended with exit status {code}: {said[:500]}", passing=turn.started)
