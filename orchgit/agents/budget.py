"""What may be spent: accounts of a run, of an assignment and of one agent run, and the purse that draws on all three.

Checked before the spending: a backend that makes its own calls reserves what the next one may cost at most, and is
given less output where less is left; what the call did cost is settled after it. Agents that work at the same time
share the accounts, so that together they cannot go beyond them either. A call of which nobody knows what it took is
charged with all that was reserved for it: what is unknown is never free. A backend whose agent makes calls by itself
says what a turn has taken while it is under way, so that all who share an account stop when they are beyond it
together, and settles after the turn.

Nothing is written here. The accounts of a run begin with what its log says was spent (effects.py), so they hold across
restarts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from orchgit.agents import Limits, Status, Usage
from orchgit.agents.prices import MILLION, Price
from orchgit.core.events import Budget, Used

Level = Literal["run", "assignment", "attempt"]
STATUS: dict[Level, Status] = {"run": "run_budget", "assignment": "assignment_budget", "attempt": "budget"}
POLL_S = 0.05
NO_COST = "there is a money budget, and what this agent costs is unknown"


class Spent(Exception):
    """The next call could go beyond this budget, or the agent has gone beyond it."""

    def __init__(self, level: Level, words: str) -> None:
        super().__init__(words)
        self.status = STATUS[level]
        self.words = words


@dataclass
class Account:
    """All amounts as in Budget. `held`: reserved by calls that are under way. `running`: taken by turns that are."""

    level: Level
    name: str  # for the words: "the run", "assignment api", "this attempt"
    limit: Budget = field(default_factory=Budget)
    cost_micro: int = 0
    tokens: int = 0
    turns: int = 0
    ms: int = 0
    held_micro: int = 0
    held_tokens: int = 0
    running_micro: int = 0
    running_tokens: int = 0
    running_turns: int = 0
    at_work: dict[int, Callable[[], float]] = field(default_factory=dict)  # agents at work: seconds since they began

    def add(self, used: Used) -> None:
        """What is unknown is charged at its worst."""
        self.turns += used.calls
        self.tokens += used.input_tokens + used.output_tokens + used.cache_read_tokens + used.cache_write_tokens
        self.tokens += used.unsure_tokens
        self.cost_micro += (used.cost_micro or 0) + used.unsure_micro
        self.ms += used.duration_ms

    def left_micro(self) -> int | None:
        taken = self.cost_micro + self.held_micro + self.running_micro
        return None if self.limit.cost_micro is None else self.limit.cost_micro - taken

    def left_tokens(self) -> int | None:
        taken = self.tokens + self.held_tokens + self.running_tokens
        return None if self.limit.tokens is None else self.limit.tokens - taken

    def left_turns(self) -> int | None:
        return None if self.limit.turns is None else self.limit.turns - self.turns - self.running_turns

    def left_s(self) -> float | None:
        if self.limit.seconds is None:
            return None
        return self.limit.seconds - self.ms / 1000 - sum(worked() for worked in list(self.at_work.values()))

    def over(self) -> str:
        """Which of its limits is passed already, in words; "" for none."""
        money, tokens, seconds = self.left_micro(), self.left_tokens(), self.left_s()
        if money is not None and money <= 0 and not self.held_micro:
            return self.words("money")
        if tokens is not None and tokens <= 0 and not self.held_tokens:
            return self.words("tokens")
        if self.limit.turns is not None and self.turns >= self.limit.turns:
            return self.words("turns")
        return self.words("seconds") if seconds is not None and seconds <= 0 else ""

    def beyond(self) -> str:
        """Likewise which one the turns under way have gone beyond. What calls have reserved is not taken yet."""
        money, tokens, turns = self.left_micro(), self.left_tokens(), self.left_turns()
        if money is not None and money + self.held_micro < 0:
            return self.words("money")
        if tokens is not None and tokens + self.held_tokens < 0:
            return self.words("tokens")
        return self.words("turns") if turns is not None and turns < 0 else ""

    def words(self, what: Literal["money", "tokens", "turns", "seconds"]) -> str:
        spent, limit = {
            "money": (
                f"${(self.cost_micro + self.running_micro) / MILLION:.4f}",
                f"${(self.limit.cost_micro or 0) / MILLION:.2f}",
            ),
            "tokens": (f"{self.tokens + self.running_tokens} tokens", f"{self.limit.tokens} tokens"),
            "turns": (f"{self.turns + self.running_turns} turns", f"{self.limit.turns} turns"),
            "seconds": (f"{self.ms // 1000} s", f"{self.limit.seconds} s"),
        }[what]
        return f"{self.name}: {spent} of the budget of {limit} are spent, and the next call could go beyond it"


@dataclass(frozen=True)
class Reserved:
    """For one call: the output that it may have, and what it is charged with until it is settled."""

    output: int
    tokens: int
    micro: int


class Purse:
    """Of one agent run. Draws on its own account and on those it shares; all of them have one lock."""

    def __init__(self, accounts: Sequence[Account], lock: threading.Condition | None = None) -> None:
        self.accounts = accounts
        self._lock = lock or threading.Condition()
        self._running: tuple[int, ...] = (0, 0, 0)  # micro, tokens, turns

    def reserve(
        self, needed: int, output: int, price: Price | None, least: int, check: Callable[[], None]
    ) -> Reserved:  # fmt: skip
        """For a call that reads at most `needed` tokens and would write `output`. Raises Spent where not even `least`
        can be paid for. What others have reserved may come back: for that it waits, calling `check` meanwhile."""
        with self._lock:
            while True:
                for account in self.accounts:
                    if words := account.over():
                        raise Spent(account.level, words)
                got, narrowest, what = self._affordable(needed, output, price)
                if got >= output or not any(a.held_micro or a.held_tokens for a in self.accounts):
                    break
                self._lock.wait(POLL_S)
                check()
            if got < least:
                assert narrowest is not None
                raise Spent(narrowest.level, narrowest.words(what))
            reserved = Reserved(got, needed + got, price.most_micro(needed, got) if price else 0)
            for account in self.accounts:
                account.held_tokens += reserved.tokens
                account.held_micro += reserved.micro
                account.turns += 1
            return reserved

    def _affordable(
        self, needed: int, output: int, price: Price | None
    ) -> tuple[int, Account | None, Literal["money", "tokens"]]:
        """The most output that every account can pay for, and which of them is the narrowest."""
        got, narrowest, what = output, None, "money"
        for account in self.accounts:
            tokens, money = account.left_tokens(), account.left_micro()
            if tokens is not None and tokens - needed < got:
                got, narrowest, what = tokens - needed, account, "tokens"
            if money is None:
                continue
            if price is None:
                raise Spent(account.level, NO_COST)
            most = price.output_for(money, needed)
            if most is not None and most < got:
                got, narrowest, what = most, account, "money"
        return got, narrowest, what  # type: ignore[return-value] # one of the two literals

    def settle(self, reserved: Reserved, calls: int, tokens: int, micro: int) -> None:
        """What the call did take, its unsure part included; `calls` 0 when it never came to one."""
        with self._lock:
            for account in self.accounts:
                account.held_tokens -= reserved.tokens
                account.held_micro -= reserved.micro
                account.turns += calls - 1
                account.tokens += tokens
                account.cost_micro += micro
            self._lock.notify_all()

    def run(self, usage: Usage, micro: int) -> None:
        """What the turn under way of an agent that makes its own calls has taken so far. All who share see it."""
        with self._lock:
            self._run(micro, usage.input + usage.output + usage.cache_read + usage.cache_write, usage.calls)

    def _run(self, *now: int) -> None:
        micro, tokens, turns = (new - old for new, old in zip(now, self._running, strict=True))
        self._running = now
        for account in self.accounts:
            account.running_micro += micro
            account.running_tokens += tokens
            account.running_turns += turns

    def spend(self, usage: Usage) -> None:
        """What an agent that makes its own calls took in its turn. Raises Spent where a limit is met: stop it."""
        with self._lock:
            self._run(0, 0, 0)
            for account in self.accounts:
                account.add(used(usage, 0))
            for account in self.accounts:
                if words := account.over():
                    raise Spent(account.level, words)
                if usage.cost_micro is None and not usage.unsure_micro and account.limit.cost_micro is not None:
                    raise Spent(account.level, NO_COST)

    def check(self) -> None:
        """Raises Spent when the seconds of an account are over. Cheap: called many times a second."""
        for account in self.accounts:
            left = account.left_s()
            if left is not None and left <= 0:
                raise Spent(account.level, account.words("seconds"))

    def watch(self) -> None:
        """`check`, for an agent that makes its own calls: also when those under way are beyond an account together."""
        self.check()
        for account in self.accounts:
            if words := account.beyond():
                raise Spent(account.level, words)

    def begun(self) -> None:
        """Before an agent begins that makes its own calls: raises Spent when a budget is used up already."""
        with self._lock:
            for account in self.accounts:
                if words := account.over():
                    raise Spent(account.level, words)

    def left(self) -> Budget:
        """The least that is left of anything: for a program that has limits of its own."""
        with self._lock:

            def least(values: Sequence[int | None]) -> int | None:
                return min((max(0, v) for v in values if v is not None), default=None)

            a = self.accounts
            seconds = [None if (left := x.left_s()) is None else int(left) for x in a]
            return Budget(least([x.left_micro() for x in a]), least([x.left_tokens() for x in a]),
                          least([x.left_turns() for x in a]), least(seconds))  # fmt: skip

    def begin(self, worked: Callable[[], float]) -> None:
        """The agent works from now on; `worked` gives the seconds since."""
        with self._lock:
            for account in self.accounts:
                account.at_work[id(self)] = worked

    def end(self, ms: int) -> None:
        """It has stopped working, after so long."""
        with self._lock:
            for account in self.accounts:
                account.at_work.pop(id(self), None)
                account.ms += ms


def own_account(limits: Limits, before: Iterable[Used] = ()) -> Account:
    """Of an agent run by itself. Its turns and seconds are kept by its backend, which counts them anyway."""
    account = Account("attempt", "this attempt", Budget(limits.cost_micro, limits.tokens))
    for used in before:
        account.add(used)
    return account


def purse_of(limits: Limits) -> Purse:
    """Where nothing is shared."""
    return Purse((own_account(limits),))


class Ledger:
    """The shared accounts of one run. Safe from any thread."""

    def __init__(self, budget: Budget, each: Budget) -> None:
        """`each`: of every assignment."""
        self._lock = threading.Condition()
        self._run = Account("run", "the run", budget)
        self._each = each
        self._assignments: dict[str, Account] = {}

    def _assignment(self, name: str) -> Account:
        return self._assignments.setdefault(name, Account("assignment", f"assignment {name}", self._each))

    def add(self, used: Used, assignment: str = "") -> None:
        """What was spent before."""
        with self._lock:
            self._run.add(used)
            if assignment:
                self._assignment(assignment).add(used)

    def raise_by(self, more: Budget, assignment: str = "") -> None:
        with self._lock:
            account = self._assignment(assignment) if assignment else self._run
            account.limit = summed(account.limit, more)
            self._lock.notify_all()

    def purse(self, limits: Limits, before: Iterable[Used], assignment: str = "") -> Purse:
        """For an agent run; `before`: what its attempt took until now (it is in the shared accounts already)."""
        with self._lock:
            shared = (self._assignment(assignment), self._run) if assignment else (self._run,)
        return Purse((own_account(limits, before), *shared), self._lock)


def summed(limit: Budget, more: Budget) -> Budget:
    """No limit stays none."""

    def plus(a: int | None, b: int | None) -> int | None:
        return None if a is None else a + (b or 0)

    return Budget(
        plus(limit.cost_micro, more.cost_micro), plus(limit.tokens, more.tokens), plus(limit.turns, more.turns),
        plus(limit.seconds, more.seconds),
    )  # fmt: skip


def used(usage: Usage, duration_ms: int) -> Used:
    """As the log has it."""
    return Used(
        usage.calls, usage.input, usage.output, usage.cache_read, usage.cache_write, usage.cost_micro,
        usage.unsure_tokens, usage.unsure_micro, duration_ms,
    )  # fmt: skip


def usage(taken: Used) -> Usage:
    """The reverse."""
    return Usage(
        taken.calls, taken.input_tokens, taken.output_tokens, taken.cache_read_tokens, taken.cache_write_tokens,
        taken.cost_micro, taken.unsure_tokens, taken.unsure_micro,
    )  # fmt: skip


def taken(transcript: Iterable[str]) -> Used:
    """What an agent run had taken when its transcript broke off; the call that was under way, at its worst.

    Of each entry: `total`, of all calls since the last `start`; of a `request`, what it can take at most, where its
    `total` does not say; `ms`, how long the agent had worked. A backend that keeps no such count is of unknown cost.
    """
    before, since, call, ms = Usage(cost_micro=0), Usage(cost_micro=0), (0, 0), 0
    counted = unknown = False
    for line in transcript:
        try:
            entry = json.loads(line)
            ms = int(entry.get("ms", ms))
            if entry["kind"] == "start":
                before, since = plus(before, since), Usage(cost_micro=0)
            if "total" in entry:
                since, call, counted, unknown = Usage(**entry["total"]), (0, 0), True, False
            elif entry["kind"] == "request":
                unknown = "tokens" not in entry  # until it has ended, nobody can say
                call = (int(entry.get("tokens", 0)), int(entry.get("micro", 0)))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # torn, or of a backend that keeps no such count
    known = plus(before, since)
    cost = 0 if counted and not unknown else None
    unsure = Usage(int(call[0] > 0), cost_micro=cost, unsure_tokens=call[0], unsure_micro=call[1])
    return used(plus(known, unsure), ms)


def plus(one: Usage, other: Usage) -> Usage:
    """Both together; a cost is known only where both are."""
    cost = None if one.cost_micro is None or other.cost_micro is None else one.cost_micro + other.cost_micro
    names = ("calls", "input", "output", "cache_read", "cache_write", "unsure_tokens", "unsure_micro")
    return replace(one, cost_micro=cost, **{name: getattr(one, name) + getattr(other, name) for name in names})
