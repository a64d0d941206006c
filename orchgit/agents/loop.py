"""The bare loop: ask the model, run its tools in the sandbox, until a result tool is called or a limit is
met.

Shared by every backend that has a `Model` (anthropic, scripted), so that only the thinking differs between
them. It must never run a tool that the role does not have, run a call from a reply that was cut off, leave a
call without its result, call the model past a limit, or raise for what an agent or a service did. It does not
judge the work. Read `run_loop` first, then `_Run` from top to bottom.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from orchgit.agents import ROLE_TOOLS, Job, Outcome, ResultTool, Status, Usage, session, toolbox
from orchgit.agents.prices import Price
from orchgit.agents.session import NOTHING, Call, Conversation, Reply, Result, Text, UserTurn
from orchgit.process import Child

REMINDERS = 2  # for a reply that ends the turn without a result
CORRECTIONS = 5  # of a result that its parser refuses
CUT_REPLIES = 3  # in a row, by max_tokens
SAME_REPLIES = 3  # in a row, same calls and same results
BROKEN_STREAMS = 2  # retries of one call
TOOLBOX_STARTS = 4
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
    """For one call: the most output tokens, and when (time.monotonic) to give up."""

    output: int
    deadline_s: float


class ModelFailure(Exception):
    """The service will not answer. `usage` None: what it cost is unknown."""

    def __init__(self, status: Status, message: str, hint: str = "", usage: Usage | None = NOTHING) -> None:
        super().__init__(message)
        self.status: Status = status
        self.message, self.hint, self.usage = message, hint, usage


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
    """What thinks. Raises ModelFailure, StreamBroken or Interrupted, nothing else."""

    max_output: int  # tokens, of one reply
    price: Price | None  # None: unknown

    def reply(self, conversation: Conversation, tools: Sequence[Tool], job: Job, allowance: Allowance) -> Reply:
        """One reply; gives up within about 0.1 s once `job.stop` is set or the deadline has passed."""


def run_loop(job: Job, model: Model) -> Outcome:
    """Blocks until the job has ended; the transcript goes to `job.record` as it happens."""
    run = _Run(job, model)
    try:
        run.begin()
        while True:
            run.step()
    except _Ended as end:
        outcome = replace(end.outcome, usage=run.usage)
        if outcome.result and run.results[outcome.result[0]].pauses:
            outcome = replace(outcome, session=session.dump(run.conversation, run.turns, run.seen_tokens))
    finally:
        run.tools.close()
    job.record({"kind": "end", "status": outcome.status, "message": outcome.message, "usage": _usage(run.usage)})
    return outcome


class _Ended(Exception):
    def __init__(self, status: Status, message: str = "", hint: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.outcome = Outcome(status, result, message, hint)


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
        self.conversation: list[UserTurn | Reply] = []
        self.usage = NO_CALL
        self.turns = self.reminders = self.corrections = self.cuts = self.same = 0
        self.before: object = None  # the calls and results of the reply before
        self.seen_tokens = 0  # of input and output, at the last reply: what the next request has to repeat

    def begin(self) -> None:
        job = self.job
        self.job.record(
            {"kind": "start", "key": job.key, "agent": job.agent, "role": job.role, "purpose": job.purpose}
            | {"model": job.model, "tools": [tool.name for tool in self.told]}
            | {"system": job.system, "brief": job.brief}
        )
        if job.session:
            try:
                self.conversation, self.turns, self.seen_tokens = session.load(job.session)
            except ValueError as error:
                raise _Ended("error", f"the session to go on from cannot be read: {error}") from None
            last = self.conversation.pop()
            assert isinstance(last, UserTurn)  # the results of the calls that it stopped at
            self._say(*last.blocks, Text(job.answer))
        else:
            self._say(Text(job.brief))
        told = [(tool.name, tool.description, dict(tool.schema)) for tool in self.told]
        self.unseen_bytes += len(f"{job.system}{told}".encode("utf-8", "replace"))
        if job.limits.cost_micro is not None and self.model.price is None:
            raise _Ended(
                "error",
                f"there is a money limit, and the price of {job.model} is unknown",
                "give the price in the backend's options (prices), or set a token limit instead",
            )

    def step(self) -> None:
        reply = self._ask()
        self.turns += 1
        self.conversation.append(reply)
        self.job.record(
            {"kind": "reply", "turn": self.turns, "stop": reply.stop, "text": reply.text}
            | {"calls": [{"id": c.id, "name": c.name, "input": dict(c.input)} for c in reply.calls]}
            | {"thinking": [dict(b) for b in reply.raw if b.get("type") not in ("text", "tool_use")]}
            | {"usage": _usage(reply.usage)}
        )
        if reply.stop == "refusal":
            self._answer_none(reply, "not run: the reply was a refusal")
            raise _Ended("refused", reply.detail or "the model refused")
        if reply.stop == "context":
            self._answer_none(reply, "not run: the context window is full")
            raise _Ended("context", "the context window is full", "give the worker a smaller assignment")
        self.cuts = self.cuts + 1 if reply.stop == "max_tokens" else 0
        if reply.stop == "max_tokens":
            words = "Your reply was cut off at the output limit. Go on in smaller steps."
            results = self._answer_none(reply, "not run: your reply was cut off at the output limit")
            if self.cuts == CUT_REPLIES:
                raise _Ended("error", f"{CUT_REPLIES} replies in a row were cut off at the output limit")
            self._say(*results, Text(words))
        elif reply.calls:
            self._say(*self._run_calls(reply.calls))
        elif reply.stop != "pause_turn":  # that one is just sent back
            self._remind()

    def _say(self, *blocks: Result | Text) -> None:
        self.conversation.append(UserTurn(blocks))
        self.unseen_bytes = sum(len(block.text.encode("utf-8", "replace")) for block in blocks)

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

    def _allowance(self) -> Allowance:
        """The next call cannot overshoot: what it may write is cut down to what is left after its input."""
        self._check_stop()
        limits, used = self.job.limits, self.usage
        if self.turns >= limits.turns:
            raise _Ended("turns", f"the limit of {limits.turns} turns was reached")
        output = self.model.max_output
        # The worst case: what is new at two bytes to a token, and nothing of it all in the cache.
        needed = self.seen_tokens + self.unseen_bytes // 2
        if limits.tokens is not None:
            spent = used.input + used.cache_read + used.cache_write + used.output
            output = min(output, limits.tokens - spent - needed)
        if limits.cost_micro is not None and self.model.price is not None:
            if used.cost_micro is None:
                raise _Ended("budget", "what a call that was cut off has cost is unknown, so the limit cannot be kept")
            price = self.model.price.tier(needed)
            left = limits.cost_micro - used.cost_micro - needed * max(price.input, price.cache_write) // 1_000_000
            if price.output:
                output = min(output, left * 1_000_000 // price.output)
        if output < min(MIN_OUTPUT, self.model.max_output):
            raise _Ended("budget", "the next call could go beyond the money or token limit")
        return Allowance(output, time.monotonic() + self.deadline_s - self.job.clock())

    def _ask(self) -> Reply:
        for attempt in range(BROKEN_STREAMS + 1):
            allowance = self._allowance()
            try:
                reply = self.model.reply(self.conversation, self.told, self.job, allowance)
            except Interrupted as end:
                self._count(end.usage)
                self._check_stop()
                raise _Ended("error", "the call was interrupted, and nobody asked for it") from None
            except ModelFailure as failure:
                self._count(failure.usage)
                self._check_stop()
                raise _Ended(failure.status, failure.message, failure.hint) from None
            except StreamBroken as broken:
                self._count(broken.usage)
                self.job.record({"kind": "retry", "message": str(broken)})
                if attempt == BROKEN_STREAMS:
                    raise _Ended("unavailable", f"the reply broke off {attempt + 1} times: {broken}") from None
                self.job.progress("the reply broke off; asking again")
                continue
            self._count(reply.usage)
            usage = reply.usage
            self.seen_tokens = usage.input + usage.cache_read + usage.cache_write + usage.output
            return reply
        raise AssertionError("not reached")

    def _count(self, of: Usage | None) -> None:
        """Adds one call. What is unknown stays unknown: a sum with a hole in it is no sum."""
        total, price = self.usage, self.model.price
        if of is None or (price is None and of.calls):
            cost = None
        else:
            more = 0 if price is None else price.cost_micro(of)
            cost = None if total.cost_micro is None else total.cost_micro + more
        of = of or Usage(calls=1)
        self.usage = Usage(
            total.calls + of.calls,
            total.input + of.input,
            total.output + of.output,
            total.cache_read + of.cache_read,
            total.cache_write + of.cache_write,
            cost,
        )

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
        """In the model's order, never at once: a read after a write must see it."""
        done: list[Result] = []
        end: _Ended | None = None
        for call in calls:
            if end is not None:
                done.append(self._answer(call, False, f"not run: {end.outcome.message or 'the result is delivered'}"))
                continue
            try:
                self._check_stop()
                done.append(self._run_call(call))
            except _Ended as ended:
                end = ended
                ok = ended.outcome.status == "done"
                done.append(self._answer(call, ok, "accepted" if ok else ended.outcome.message))
        if end is not None:
            self.conversation.append(UserTurn(tuple(done)))
            raise end
        self._check_progress(calls, done)
        return done

    def _run_call(self, call: Call) -> Result:
        if call.name in self.results:
            return self._deliver(call, self.results[call.name])
        if call.name not in self.allowed:
            if call.name in toolbox.SPECS:
                self.job.progress(f"refused: {_line(call)}")
                return self._answer(call, False, f"{call.name} is not available to your role", refused=True)
            names = ", ".join(tool.name for tool in self.told)
            return self._answer(call, False, f"there is no tool {call.name!r}; you have {names}")
        self.job.progress(_line(call))
        ok, text = self.tools.call(call, self._check_stop)
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

    def close(self) -> str:
        child, self.child = self.child, None
        try:
            return child.stop(0.5).stderr.decode("utf-8", "replace")[-500:] if child is not None else ""
        except TimeoutError as error:  # stuck in the kernel; nothing more can be done from here
            return str(error)

    def call(self, call: Call, check: Callable[[], None]) -> tuple[bool, str]:
        wait_s: float = TOOL_S
        if call.name == "bash":
            given = call.input.get("timeout_s", toolbox.BASH_S)
            # The helper keeps the time limit itself; this is for the case that it cannot.
            wait_s = min(given, toolbox.BASH_MAX_S) + 10 if type(given) is int else TOOL_S
        if self.child is None:
            self.child = self._start()
        try:
            self.asked += 1
            request = {"id": self.asked, "tool": call.name, "input": dict(call.input)}
            self.child.send(json.dumps(request).encode() + b"\n")
            line = self._answer_line(self.child, self.job.clock() + wait_s, check)
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

    def _answer_line(self, child: Child, until_s: float, check: Callable[[], None]) -> Mapping[str, Any] | None:
        while True:
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
            if isinstance(line, dict) and line.get("id") == self.asked:
                return line

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
