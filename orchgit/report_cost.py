"""What a run has spent, in words: per agent, per attempt, in all, of which budget, what share came from a cache. Pure.

What is unknown is said to be unknown, and is never shown as nothing: a price that nobody knows, and what a call that
broke off can have taken beside what is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from orchgit.core import events as e
from orchgit.core.run import Run, Spending

MILLION = 1_000_000


def money(micro: int | None) -> str:
    return "cost unknown" if micro is None else f"${micro / MILLION:.2f}"


@dataclass(frozen=True)
class Sum:
    """Of several agent runs. `cost_micro` is what is known of it; `unknown` counts the runs of which it is not."""

    runs: int
    used: e.Used
    unknown: int

    @property
    def tokens_in(self) -> int:
        return self.used.input_tokens + self.used.cache_read_tokens + self.used.cache_write_tokens

    @property
    def cached(self) -> str:
        """The share of the input that was read from the service's cache."""
        return f"{self.used.cache_read_tokens * 100 // self.tokens_in} %" if self.tokens_in else "–"

    @property
    def cost_micro(self) -> int | None:
        """None: a part of it is unknown."""
        return None if self.unknown else self.used.cost_micro

    @property
    def cost(self) -> str:
        known = self.used.cost_micro or 0
        if self.unknown == self.runs and not known and self.runs:
            words = "cost unknown"
        else:
            words = money(known) + (f" and what {_runs(self.unknown)} cost, which is unknown" if self.unknown else "")
        broken = self.used.unsure_micro
        return words + (f", at most {money(broken)} more for calls that broke off" if broken else "")


def _runs(number: int) -> str:
    return f"{number} agent run{'' if number == 1 else 's'}"


def total(spendings: Iterable[Spending]) -> Sum:
    rows = [s.used for s in spendings]
    amounts: dict[str, Any] = {f.name: sum(getattr(u, f.name) or 0 for u in rows) for f in fields(e.Used)}
    return Sum(len(rows), e.Used(**amounts), sum(u.cost_micro is None for u in rows))


def by_agent(run: Run) -> list[tuple[str, Sum]]:
    names = dict.fromkeys(s.member for s in run.spent.values())
    return [(name, total(s for s in run.spent.values() if s.member == name)) for name in names]


def by_attempt(run: Run) -> list[tuple[str, Sum]]:
    """("work/api, attempt 2", ...), in the order in which they began."""
    rows: dict[str, list[Spending]] = {}
    for spending in run.spent.values():
        what = f"{spending.about}, attempt {spending.attempt}" if spending.attempt else spending.about
        rows.setdefault(what, []).append(spending)
    return [(what, total(of)) for what, of in rows.items()]


def of_assignment(run: Run, name: str) -> Sum:
    """All its attempts."""
    return total(s for s in run.spent.values() if s.about == f"work/{name}")


def limits(run: Run, name: str = "") -> e.Budget:
    """The budget in force: of the run, or of an assignment."""
    settings = run.settings
    base, raised = (settings.assignment_budget, run.works[name].raised) if name else (settings.budget, run.raised)
    pairs = {f.name: (getattr(base, f.name), getattr(raised, f.name)) for f in fields(e.Budget)}
    return e.Budget(**{k: None if a is None else a + (b or 0) for k, (a, b) in pairs.items()})


def budget(run: Run, of: Sum, name: str = "") -> str:
    """ "of the budget of $5.00, 1000 tokens"; "" where there is none."""
    most = limits(run, name)
    said = [money(most.cost_micro)] if most.cost_micro is not None else []
    said += [f"{most.tokens} tokens"] if most.tokens is not None else []
    said += [f"{most.turns} turns"] if most.turns is not None else []
    said += [f"{most.seconds} s of work ({of.used.duration_ms // 1000} s done)"] if most.seconds is not None else []
    return f" of a budget of {', '.join(said)}" if said else ""


def line(of: Sum) -> str:
    tokens = f"{of.tokens_in} tokens in ({of.cached} from cache), {of.used.output_tokens} out"
    return f"{of.cost}; {of.used.calls} call{'' if of.used.calls == 1 else 's'}, {tokens}"


def lines(run: Run) -> list[str]:
    """For `status`: in all, then per agent with its attempts. Nothing where no model was called and none is limited."""
    whole = total(run.spent.values())
    limited = budget(run, whole)
    if not (whole.used.calls or whole.unknown or limited):
        return []
    told = [f"spent{limited}: {line(whole)}"]
    for name, of in by_agent(run):
        if not (of.used.calls or of.unknown):
            continue
        parts = {
            (s.about, s.attempt): total(o for o in run.spent.values() if (o.about, o.attempt) == (s.about, s.attempt))
            for s in run.spent.values() if s.member == name
        }  # fmt: skip
        each = ", ".join(f"{about}{f' attempt {n}' if n else ''} {part.cost}" for (about, n), part in parts.items())
        told.append(f"  {name:<16} {each}")
    return told


def table(run: Run) -> str:
    """For the report, in Markdown."""
    head = [
        "| {} | runs | calls | tokens in | from cache | tokens out | cost |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def rows(what: Iterable[tuple[str, Sum]]) -> list[str]:
        return [
            f"| {name} | {s.runs} | {s.used.calls} | {s.tokens_in} | {s.cached} | {s.used.output_tokens} | {s.cost} |"
            for name, s in what
        ]

    whole = total(run.spent.values())
    agents = [
        head[0].format("agent"),
        head[1],
        *rows(by_agent(run)),
        *rows([(f"**in all**{budget(run, whole)}", whole)]),
    ]
    attempts = [head[0].format("work"), head[1], *rows(by_attempt(run))]
    return "\n".join(agents) + "\n\n" + "\n".join(attempts)


def as_json(run: Run) -> dict[str, Any]:
    from orchgit.core.codec import encode

    def row(of: Sum) -> dict[str, Any]:
        return {
            "runs": of.runs, "calls": of.used.calls, "tokens_in": of.tokens_in, "cached": of.used.cache_read_tokens,
            "tokens_out": of.used.output_tokens, "cost_micro": of.cost_micro, "known_micro": of.used.cost_micro,
            "unsure_micro": of.used.unsure_micro, "ms": of.used.duration_ms,
        }  # fmt: skip

    return {
        "in_all": row(total(run.spent.values())), "budget": encode(limits(run)),
        "attempts": {what: row(of) for what, of in by_attempt(run)},
    }  # fmt: skip
