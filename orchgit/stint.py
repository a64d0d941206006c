"""The work of one agent until it ends, and its waits in between; what it takes is counted over all of it.

An agent whose service limits keeps its place, its conversation and its attempt. Its seconds stand still meanwhile. That
it waits is said before it waits, and that it goes on before it does: whoever comes after a crash knows which of the two
it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from orchgit import agents
from orchgit.agents.budget import Spent, plus, usage, used
from orchgit.core import events as e
from orchgit.core.errors import OrchgitError
from orchgit.patience import Patience, epoch_s, rfc3339, wait

MAX_MESSAGE = 1000
MOST_WAITS = 100  # of one agent: then something else is wrong


class Stint:
    def __init__(
        self, backend: agents.Backend, clock: Callable[[], float], stop: threading.Event, patience: Patience,
        patience_s: int, keep: Callable[[bytes], str], spent: e.Used,
    ) -> None:  # fmt: skip
        """`keep` puts away a session and names it; `spent`: what it took under an engine before this one."""
        self._backend, self._clock, self._stop = backend, clock, stop
        self._patience, self._patience_s, self._keep = patience, patience_s, keep
        self._usage, self._before_ms = usage(spent), spent.duration_ms
        self._since_s: float | None = None  # by the clock: when it began to work

    @property
    def ms(self) -> int:
        """How long it has worked."""
        since_s = self._since_s
        return self._before_ms + (0 if since_s is None else int((self._clock() - since_s) * 1000))

    def work(
        self, job: agents.Job, emit: Callable[[e.Body], None], note: e.AgentWaiting | None = None
    ) -> agents.Outcome:
        """Until it ends. `note`: what it waits for already."""
        waits = tries = 1 if note else 0
        since_s = epoch_s(note.since) if note else 0.0
        while True:
            if note:
                if not wait(epoch_s(note.until), self._stop):
                    outcome = agents.Outcome("stopped", message="the engine asked it to stop, while it waited")
                    break
                emit(e.AgentWaited(job.agent))
            begun_s = time.time()
            outcome = self._once(job)
            self._usage = plus(self._usage, outcome.usage)
            if outcome.status != "limited":
                break
            # It stands still while the agent works, and is never set back: what it says of its work proves nothing.
            now_s = time.time()
            since_s = since_s + now_s - begun_s if since_s else now_s
            until = self._patience.limited(self._backend.name, outcome.retry_after_s, tries)
            if until - since_s > self._patience_s or waits == MOST_WAITS:
                why = f"it would wait until {rfc3339(until)}, and patience_s is {self._patience_s}"
                why = f"it has waited {waits} times" if waits == MOST_WAITS else why
                outcome = agents.Outcome(
                    "unavailable", message=f"{outcome.message}; {why}", hint="later: orchgit resume"
                )
                break
            waits, tries = waits + 1, 1 if outcome.usage.output else tries + 1
            note = self._note(job, outcome, until, rfc3339(since_s))
            emit(note)
            if outcome.session:
                job = replace(job, session=outcome.session, answer="")
        return replace(outcome, usage=self._usage)

    def _note(self, job: agents.Job, outcome: agents.Outcome, until: float, since: str) -> e.AgentWaiting:
        return e.AgentWaiting(
            job.agent, self._backend.name, rfc3339(until), since, outcome.message[:MAX_MESSAGE],
            self._keep(outcome.session) if outcome.session else "", used(self._usage, self.ms),
        )  # fmt: skip

    def _once(self, job: agents.Job) -> agents.Outcome:
        """Until it ends or has to wait. Its seconds run only here."""
        purse = job.purse
        assert purse is not None
        begun_s = self._since_s = self._clock()
        purse.begin(lambda: self._clock() - begun_s)
        seconds = max(1, job.limits.seconds - self._before_ms // 1000)
        nothing = agents.Usage(cost_micro=0)
        try:
            purse.begun()
            return self._backend.run(replace(job, limits=replace(job.limits, seconds=seconds)))
        except Spent as spent:  # it has not been taken up
            return agents.Outcome(spent.status, None, spent.words, "", nothing, job.session)
        except OrchgitError as error:
            # Raised where the first tool call made the place: the sandbox or the checkout failed, not the agent.
            return agents.Outcome(
                "unavailable", message=f"{error.what}: {error.why}", hint=error.hint, usage=nothing
            )  # fmt: skip
        finally:
            worked_ms = self.ms - self._before_ms
            self._before_ms, self._since_s = self._before_ms + worked_ms, None
            purse.end(worked_ms)
