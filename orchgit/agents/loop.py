"""The bare loop: ask the model, run its tools in the sandbox, until a result tool is called or a limit is
met.

Shared by every backend that has a `Model` (anthropic, scripted), so that only the thinking differs between
them. It must never run a tool that the role does not have, run a call from a reply that was cut off, leave a
call without its result, call the model past a limit, or raise for what an agent or a service did. It does not
judge the work. Read `run_loop` first, then `_Run` from top to bottom.

A long conversation is kept short here, and not by the service: what tools had said a while ago is taken out when much
of it has gathered, since that works with every model and gateway. Where the window is full all the same, the work
goes on in a fresh conversation that knows what was done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from orchgit.agents import ROLE_TOOLS, Job, Outcome, ResultTool, Status, Usage, context, session, toolbox
from orchgit.agents.budget import Reserved, Spent, plus, purse_of
from orchgit.agents.prices import Price
from orchgit.agents.session import NOTHING, Call, Conversation, Reply, Result, Text, UserTurn
from orchgit.process import Child

REMINDERS = 2  # for a reply that ends the turn without a result
CORRECTIONS = 5  # of a result that its parser refuses
CUT_REPLIES = 3  # in a row, by max_tokens
SAME_REPLIES = 3  # in a row, same calls and same results
BROKEN_STREAMS = 2  # retries of one call
SHORT_WAITS = 6  # in a row, of one call, before it is said that the service limits
SHORT_WAIT_S = 2.0  # what is waited for without a word
FRESH_STARTS = 2  # conversations after the first, when the window is full
TOOLBOX_STARTS = 4
READS_AT_ONCE = 8
TOOL_S = 60  # what a tool other than bash may take
MIN_OUTPUT = 1024  # a call that can afford less output than this is not made
POLL_S = 0.1
# Imported, not run as a script: a script is compiled anew at every start, which took a quarter of it.
START = "import sys; sys.path.append(sys.argv.pop(1)); import toolbox; sys.exit(toolbox.main())"
NO_CALL = Usage(cost_micro=0)  # no call has been made, and that is known to have cost nothing


@dataclass(frozen=True)
class Tool:
    """What the model is told. `result` is set for the tools that end the job."""

    name: str
    description: str
    schema: Mapping[str, Any]
    result: ResultTool | None = None


@dataclass(frozen=True)
class Allowance:
    """For one call: the most output tokens, and whether to give up; asked many times a second."""

    output: int
    over: Callable[[], bool]


class ModelFailure(Exception):
    """The service will not answer. `usage` None: what it cost is unknown."""

    def __init__(self, status: Status, message: str, hint: str = "", usage: Usage | None = NOTHING) -> None:
        super().__init__(message)
        self.status: Status = status
        self.message, self.hint, self.usage = message, hint, usage


class Busy(Exception):
    """The service asks to come back later; this call has cost nothing. `status`: what it is when it stays so."""

    def __init__(self, status: Status, message: str, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status: Status = status
        self.message, self.hint, self.retry_after_s = message, hint, retry_after_s


class StreamBroken(Exception):
    """The reply broke off. Nothing of it was run, so asking again is safe."""

    def __init__(self, message: str, usage: Usage | None) -> None:
        super().__init__(message)
        self.usage = usage


class Interrupted(Exception):
    """`job.stop` was set or the deadline came during the call."""

    def __init__(self, usage: Usage | None) -> None:
        super().__init__("interrupted")
        self.usage = usage


class Model(Protocol):
    """What thinks. Raises ModelFailure, Busy, StreamBroken or Interrupted, nothing else."""

    max_output: int  # tokens, of one reply
    long_context: int  # tokens of a request from which on old results are taken out
    price: Price | None  # None: unknown

    def reply(self, conversation: Conversation, tools: Sequence[Tool], job: Job, allowance: Allowance) -> Reply:
        """One reply; gives up within about 0.1 s once `allowance.over()`."""


def run_loop(job: Job, model: Model) -> Outcome:
    """Blocks until the job has ended; the transcript goes to `job.record` as it happens."""
    run = _Run(job, model)
    try:
        run.begin()
        while True:
            run.step()
    except _Ended as end:
        outcome = replace(end.outcome, usage=run.usage)
        pauses = outcome.result is not None and run.results[outcome.result[0]].pauses
        if pauses or outcome.status in GOES_ON:
            outcome = replace(outcome, session=session.dump(run.conversation, run.turns, run.seen_tokens))
    finally:
        run.tools.close()
    job.record({"kind": "end", "status": outcome.status, "message": outcome.message, "usage": _usage(run.usage)})
    return outcome


GOES_ON = ("limited", "run_budget", "assignment_budget")  # endings that are none: the conversation is kept


class _Ended(Exception):
    def __init__(
        self, status: Status, message: str = "", hint: str = "", result: Any = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.outcome = Outcome(status, result, message, hint, retry_after_s=retry_after_s)


class _Run:
    def __init__(self, job: Job, model: Model) -> None:
        self.job, self.model = job, model
        # Whoever wrote the job cannot give a role more than the role may hold.
        self.allowed = tuple(name for name in job.tools if name in ROLE_TOOLS[job.role])
        specs = [toolbox.SPECS[name] for name in self.allowed]
        # Order and content are fixed for the whole run: the service's cache goes by the prefix.
        self.told = (
            *(Tool(s["name"], s["description"], s["input_schema"]) for s in specs),
            *(Tool(r.name, r.description, r.schema, r) for r in job.results),
        )
        self.results = {result.name: result for result in job.results}
        self.tools = _Toolbox(job, self.allowed)
        self.deadline_s = job.clock() + job.limits.seconds
        self.purse = job.purse or purse_of(job.limits)
        self.conversation: list[UserTurn | Reply] = []
        self.usage = NO_CALL
        self.turns = self.reminders = self.corrections = self.cuts = self.same = 0
        self.before: object = None  # the calls and results of the reply before
        self.seen_tokens = 0  # of input and output, at the last reply: what the next request has to repeat
        self.unseen = 0  # tokens at most, of what was said since
        self.fresh_starts = 0

    def begin(self) -> None:
        job = self.job
        self.job.record(
            {"kind": "start", "key": job.key, "agent": job.agent, "role": job.role, "purpose": job.purpose}
            | {"model": job.model, "tools": [tool.name for tool in self.told]}
            | {"system": job.system, "brief": job.brief, "total": _usage(self.usage)}
        )
        told = [(tool.name, tool.description, dict(tool.schema)) for tool in self.told]
        self.preamble = context.tokens(f"{job.system}{told}")
        if job.session:
            try:
                self.conversation, self.turns, self.seen_tokens = session.load(job.session)
            except ValueError as error:
                raise _Ended("error", f"the session to go on from cannot be read: {error}") from None
            last = self.conversation[-1]
            if isinstance(last, UserTurn):
                self.conversation.pop()
                self._say(*last.blocks, *([Text(job.answer)] if job.answer else []))
        else:
            self._say(Text(job.brief))
        self.unseen += self.preamble
        if self.model.price is None and any(a.limit.cost_micro is not None for a in self.purse.accounts):
            hint = "give it in [prices] of the configuration, or set a token limit instead"
            raise _Ended("error", f"there is a money limit, and the price of {self.job.model} is unknown", hint)

    def step(self) -> None:
        reply = self._ask()
        self.turns += 1
        self.conversation.append(reply)
        self.job.record(
            {"kind": "reply", "turn": self.turns, "stop": reply.stop, "text": reply.text}
            | {"calls": [{"id": c.id, "name": c.name, "input": dict(c.input)} for c in reply.calls]}
            | {"thinking": [dict(b) for b in reply.raw if b.get("type") not in ("text", "tool_use")]}
            | {"usage": _usage(reply.usage), "total": _usage(self.usage)}
        )
        if reply.stop == "refusal":
            self._answer_none(reply, "not run: the reply was a refusal")
            raise _Ended("refused", reply.detail or "the model refused")
        if reply.stop == "context":
            results = self._answer_none(reply, "not run: the context window is full")
            self._say(*results, *([] if results else [Text("Go on.")]))
            self._make_room()
            return
        self.cuts = self.cuts + 1 if reply.stop == "max_tokens" else 0
        if reply.stop == "max_tokens":
            words = "Your reply was cut off at the output limit. Go on in smaller steps."
            results = self._answer_none(reply, "not run: your reply was cut off at the output limit")
            if self.cuts == CUT_REPLIES:
                raise _Ended("error", f"{CUT_REPLIES} replies in a row were cut off at the output limit")
            self._say(*results, Text(words))
        elif reply.calls:
            self._say(*self._run_calls(reply.calls))
            self._tidy()
        elif reply.stop != "pause_turn":  # that one is just sent back
            self._remind()

    def _say(self, *blocks: Result | Text) -> None:
        self.conversation.append(UserTurn(blocks))
        self.unseen = sum(context.tokens(block.text) for block in blocks)

    # The window

    def _tidy(self) -> None:
        """Old results go when many have gathered: seldom, since each time the service's cache starts anew."""
        if self.seen_tokens + self.unseen < self.model.long_context:
            return
        conversation, freed = context.cleared(self.conversation)
        if freed > self.model.long_context // 5:
            self._clear(conversation, freed)

    def _clear(self, conversation: list[UserTurn | Reply], freed: int) -> None:
        self.conversation = conversation
        self.seen_tokens = max(0, self.seen_tokens - freed)
        self.job.record({"kind": "cleared", "tokens": freed})

    def _make_room(self) -> None:
        """The window is full. First without what tools said, then in a fresh conversation."""
        conversation, freed = context.cleared(self.conversation, keep=1)
        if freed:
            self._clear(conversation, freed)
            self.job.progress("the context window is full; what tools had said is taken out")
            return
        begun = any(isinstance(turn, Reply) for turn in self.conversation)
        if not begun or self.fresh_starts == FRESH_STARTS:
            raise _Ended("context", "the context window is full", "give the worker a smaller assignment")
        self.fresh_starts += 1
        said = context.retold(self.conversation, self.job.brief)
        self.job.record({"kind": "fresh", "text": said})
        self.job.progress("the context window is full; going on in a fresh conversation")
        self.conversation, self.seen_tokens = [], 0
        self.before, self.same = None, 0  # it cannot know that it did the same before
        self._say(Text(said))
        self.unseen += self.preamble

    def _remind(self) -> None:
        if self.reminders == REMINDERS:
            raise _Ended("no_report", "the agent stopped without delivering its result")
        self.reminders += 1
        words = f"You have not delivered your result. Call one of these tools now: {', '.join(self.results)}."
        self.job.record({"kind": "reminder", "text": words})
        self._say(Text(words))

    # Limits, before each call

    def _check_stop(self) -> None:
        if self.job.stop.is_set():
            raise _Ended("stopped", "the engine asked it to stop")
        if self.job.clock() >= self.deadline_s:
            raise _Ended("time", f"the time limit of {self.job.limits.seconds} s was reached")
        try:
            self.purse.check()
        except Spent as spent:
            raise _Ended(spent.status, spent.words) from None

    def _over(self) -> bool:
        try:
            self._check_stop()
        except _Ended:
            return True
        return False

    def _reserve(self) -> Reserved:
        """The next call cannot overshoot: what it may write is cut down to what is left after its input."""
        self._check_stop()
        held_s = self.job.held_s()
        if held_s > 0:
            raise _Ended("limited", "its service wants no calls now", retry_after_s=held_s)
        if self.turns >= self.job.limits.turns:
            raise _Ended("turns", f"the limit of {self.job.limits.turns} turns was reached")
        output = self.model.max_output
        needed = self.seen_tokens + self.unseen
        least = min(MIN_OUTPUT, output)
        try:
            return self.purse.reserve(needed, output, self.model.price, least, self._check_stop)
        except Spent as spent:
            raise _Ended(spent.status, spent.words) from None

    def _ask(self) -> Reply:
        broken = waits = 0
        while True:
            reserved = self._reserve()
            # Also for who reads the transcript of an engine that died in the middle of the call.
            self.job.record({"kind": "request", "tokens": reserved.tokens, "micro": reserved.micro})
            of: Usage | None = None
            reply: Reply | None = None
            whole = False
            try:
                reply = self.model.reply(self.conversation, self.told, self.job, Allowance(reserved.output, self._over))
                of, whole = reply.usage, True
                self.seen_tokens = of.input + of.cache_read + of.cache_write + of.output
                return reply
            except Interrupted as end:
                of, whole = end.usage, end.usage == NOTHING
                self._check_stop()
                raise _Ended("error", "the call was interrupted, and nobody asked for it") from None
            except ModelFailure as failure:
                of, whole = failure.usage, failure.usage == NOTHING
                self._check_stop()
                if failure.status == "context":
                    self._make_room()
                    continue
                raise _Ended(failure.status, failure.message, failure.hint) from None
            except Busy as busy:
                of, whole = NOTHING, True
                waits += 1
                self._wait_or_end(busy, waits)
            except StreamBroken as error:
                of = error.usage
                broken += 1
                self.job.record({"kind": "retry", "message": str(error)})
                if broken > BROKEN_STREAMS:
                    raise _Ended("unavailable", f"the reply broke off {broken} times: {error}") from None
                self.job.progress("the reply broke off; asking again")
            finally:
                self._settle(reserved, of, whole=whole)
                if reply is None:
                    self.job.record({"kind": "no reply", "total": _usage(self.usage)})

    def _wait_or_end(self, busy: Busy, waits: int) -> None:
        wait_s = 0.5 * 2 ** (waits - 1) if busy.retry_after_s is None else busy.retry_after_s
        long = busy.retry_after_s is not None and busy.retry_after_s > SHORT_WAIT_S
        if long or waits > SHORT_WAITS:
            after = f", after {waits - 1} retries" if waits > 1 else ""
            raise _Ended(
                busy.status, busy.message + after, busy.hint, retry_after_s=busy.retry_after_s if long else None
            )
        self.job.record({"kind": "retry", "message": busy.message})
        self.job.progress("the service is busy; asking again")
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s:
            self._check_stop()
            self.job.stop.wait(min(POLL_S, wait_s))

    def _settle(self, reserved: Reserved, of: Usage | None, *, whole: bool) -> None:
        """Adds one call. Of one that broke off, what is not known is taken at its worst."""
        price = self.model.price
        known = of or Usage(calls=1)
        cost = price.cost_micro(known) if price else None if known.calls else 0
        tokens = known.input + known.output + known.cache_read + known.cache_write
        unsure = (0, 0) if whole else (max(0, reserved.tokens - tokens), max(0, reserved.micro - (cost or 0)))
        self.usage = plus(self.usage, replace(known, cost_micro=cost, unsure_tokens=unsure[0], unsure_micro=unsure[1]))
        self.purse.settle(reserved, known.calls, tokens + unsure[0], (cost or 0) + unsure[1])

    # The calls of one reply

    def _answer_none(self, reply: Reply, words: str) -> list[Result]:
        return [self._answer(call, False, words) for call in reply.calls]

    def _answer(self, call: Call, ok: bool, text: str, *, refused: bool = False) -> Result:
        entry = {
            "kind": "result",
            "turn": self.turns,
            "id": call.id,
            "tool": call.name,
            "ok": ok,
            "text": text,
        }
        self.job.record(entry | ({"refused": True} if refused else {}))
        return Result(call.id, text, ok)

    def _run_calls(self, calls: Sequence[Call]) -> list[Result]:
        """In the model's order: a read after a write must see it. Only neighbours that all read go at the same time."""
        done: list[Result] = []
        end: _Ended | None = None
        for call, ahead in self._reading(calls):
            if end is not None:
                done.append(self._answer(call, False, f"not run: {end.outcome.message or 'the result is delivered'}"))
                continue
            try:
                self._check_stop()
                done.append(self._run_call(call, ahead))
            except _Ended as ended:
                end = ended
                ok = ended.outcome.status == "done"
                done.append(self._answer(call, ok, "accepted" if ok else ended.outcome.message))
        if end is not None:
            self.conversation.append(UserTurn(tuple(done)))
            raise end
        self._check_progress(calls, done)
        return done

    def _reading(self, calls: Sequence[Call]) -> Iterator[tuple[Call, Sequence[Call]]]:
        """Each call, with those that follow it and may run with it."""
        for number, call in enumerate(calls):
            ahead = takewhile(lambda c: c.name in toolbox.PURE and c.name in self.allowed, calls[number:])
            yield call, tuple(ahead)[:READS_AT_ONCE]

    def _run_call(self, call: Call, ahead: Sequence[Call]) -> Result:
        if call.name in self.results:
            return self._deliver(call, self.results[call.name])
        if call.name not in self.allowed:
            if call.name in toolbox.SPECS:
                self.job.progress(f"refused: {_line(call)}")
                return self._answer(call, False, f"{call.name} is not available to your role", refused=True)
            names = ", ".join(tool.name for tool in self.told)
            return self._answer(call, False, f"there is no tool {call.name!r}; you have {names}")
        self.job.progress(_line(call))
        ok, text = self.tools.call(call, self._check_stop, ahead)
        return self._answer(call, ok, text)

    def _deliver(self, call: Call, tool: ResultTool) -> Result:
        try:
            tool.parse(call.input)
        except ValueError as error:
            self.corrections += 1
            if self.corrections > CORRECTIONS:
                raise _Ended("error", f"{tool.name} was refused {self.corrections} times, at last: {error}") from None
            self.job.progress(f"{tool.name}: refused, to be corrected")
            return self._answer(call, False, f"{tool.name} was not accepted: {error}")
        self.job.progress(f"{tool.name}: delivered")
        raise _Ended("done", result=(tool.name, dict(call.input)))

    def _check_progress(self, calls: Sequence[Call], done: Sequence[Result]) -> None:
        # Results have a limit of their own; for the rest, the same reply with the same answer is a circle.
        now = [(c.name, c.input, r.text) for c, r in zip(calls, done, strict=True) if c.name not in self.results]
        self.same = self.same + 1 if now and now == self.before else 1
        self.before = now
        if now and self.same == SAME_REPLIES:
            raise _Ended("error", f"no progress: {_line(calls[0])}, {SAME_REPLIES} times with the same result")


class _Toolbox:
    """The helper inside the sandbox; started at the first call, and again after it was killed."""

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        self.job, self.names = job, names
        self.child: Child | None = None
        self.starts = self.asked = 0
        self.sent: dict[str, int] = {}  # call -> number of its request, asked ahead of its turn
        self.ready: dict[int, Mapping[str, Any]] = {}  # answers that came before they were waited for

    def close(self) -> str:
        child, self.child = self.child, None
        self.sent, self.ready = {}, {}
        try:
            return child.stop(0.5).stderr.decode("utf-8", "replace")[-500:] if child is not None else ""
        except TimeoutError as error:  # stuck in the kernel; nothing more can be done from here
            return str(error)

    def call(self, call: Call, check: Callable[[], None], ahead: Sequence[Call] = ()) -> tuple[bool, str]:
        """`ahead`: asked for at the same time; their answers are there, or coming, when they are called."""
        wait_s: float = TOOL_S
        if call.name == "bash":
            given = call.input.get("timeout_s", toolbox.BASH_S)
            # The helper keeps the time limit itself; this is for the case that it cannot.
            wait_s = min(given, toolbox.BASH_MAX_S) + 10 if type(given) is int else TOOL_S
        if self.child is None:
            self.child = self._start()
        try:
            for one in (call, *ahead):
                if one.id not in self.sent:
                    self.asked += 1
                    self.sent[one.id] = self.asked
                    request = {"id": self.asked, "tool": one.name, "input": dict(one.input)}
                    self.child.send(json.dumps(request).encode() + b"\n")
            line = self._answer_line(self.child, self.sent.pop(call.id), self.job.clock() + wait_s, check)
        except TimeoutError:
            self.close()
            return False, f"{call.name} did not end within {wait_s:.0f} s and was stopped"
        except OSError as error:  # gone, BrokenPipeError included, or a line without end
            return self._lost(call, str(error))
        if line is None:
            return self._lost(call, "it ended")
        # Cleaned again here: what comes from inside the sandbox is not to be trusted with the next request.
        text = str(line.get("text")).encode("utf-8", "replace").decode()
        return line.get("ok") is True, toolbox.shorten(text, 2 * toolbox.RESULT_CHARS)

    def _start(self) -> Child:
        if self.starts == TOOLBOX_STARTS:
            raise _Ended("error", f"the tool helper was lost {self.starts} times")
        self.starts += 1
        # -X utf8: with a C locale, names and pipes would be ASCII. -S: no site-packages inside the sandbox.
        argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", START, str(Path(toolbox.__file__).resolve().parent)]
        try:
            return self.job.launch([*argv, "--tools", ",".join(self.names)])
        except OSError as error:
            raise _Ended("error", f"the tool helper could not be started: {error}") from None

    def _answer_line(
        self, child: Child, wanted: int, until_s: float, check: Callable[[], None]
    ) -> Mapping[str, Any] | None:
        while wanted not in self.ready:
            check()
            if self.job.clock() > until_s:
                raise TimeoutError
            try:
                raw = child.readline(POLL_S)
            except TimeoutError:
                continue
            if not raw:
                return None
            try:
                line = json.loads(raw)
            except ValueError:
                return None
            if isinstance(line, dict) and type(line.get("id")) is int and line["id"] <= self.asked:
                self.ready.setdefault(line["id"], line)
        return self.ready.pop(wanted)

    def _lost(self, call: Call, why: str) -> tuple[bool, str]:
        stderr = self.close().strip()
        self.job.record({"kind": "toolbox lost", "why": why, "stderr": stderr})
        return False, f"{call.name} did not answer ({why}); the tools are started anew with the next call"


def _line(call: Call) -> str:
    """For a person watching: the tool and what it is about, on one short line."""
    about = next((call.input[k] for k in ("command", "pattern", "path") if k in call.input), "")
    words = "".join(c if c.isprintable() else " " for c in str(about))
    return f"{call.name}{':' if call.name == 'bash' else ''} {words}".strip()[:100]


def _usage(usage: Usage) -> dict[str, int | None]:
    return {name: getattr(usage, name) for name in Usage.__dataclass_fields__}
