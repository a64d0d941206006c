"""The story of a run from its log: who, what, why, how long, at what cost; what changed between two events. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orchgit.core import events as e
from orchgit.core.codec import dumps
from orchgit.core.state import Run
from orchgit.report import money, safe, say, short, span

WIDTH = 22  # of who said it


class Teller:
    """Tells events in their order. Requests are left out: the outcome says what became of them, and names them."""

    def __init__(self, only: str = "") -> None:
        self._only = only
        self._asked: dict[int, e.Event] = {}
        self._workers: dict[str, str] = {}  # assignment -> worker
        self._spent: int | None = 0
        self.told = 0

    def tell(self, event: e.Event) -> dict[str, Any] | None:
        """One event of the story as values; None for one that is not told."""
        body = event.body
        self._asked[event.seq] = event
        for assignment in _assignments(body):
            self._workers[assignment.id] = assignment.worker
        if isinstance(body, e.AgentExited) and self._spent is not None:
            self._spent = None if body.cost_micro is None else self._spent + body.cost_micro
        if body.kind == "request" or not self._about(event):
            return None
        self.told += 1
        cause = self._asked.get(event.cause) if event.cause is not None else None
        return {
            "seq": event.seq,
            "time": event.time,
            "who": f"{event.actor.kind} {event.actor.id}",
            "type": body.type,
            "what": say(event),
            "cause": event.cause,
            "why": cause.body.type if cause else None,
            "took_ms": took_ms(cause.time, event.time) if cause and body.kind == "outcome" else None,
            "cost_micro": body.cost_micro if isinstance(body, e.AgentExited) else None,
            "spent_micro": self._spent,
        }

    def _about(self, event: e.Event) -> bool:
        """Whether it concerns the worker, or whoever else is asked for by name."""
        if not self._only:
            return True
        asked = self._asked.get(event.cause) if event.cause is not None else None
        return any(self._only in self._names(ev) for ev in (event, asked) if ev is not None)

    def _names(self, event: e.Event) -> set[str]:
        fields = ("assignment", "subject", "member", "reviewer", "about")
        named = {str(getattr(event.body, field, "")) for field in fields}
        return named | {event.actor.id} | {self._workers[n] for n in named if n in self._workers}

    @property
    def known(self) -> list[str]:
        return sorted({*self._workers, *self._workers.values()})


def _assignments(body: e.Body) -> Sequence[e.Assignment]:
    if isinstance(body, e.PlanProposed):
        return body.plan.assignments
    return body.changed if isinstance(body, e.PlanAmended) else ()


def story_line(told: Mapping[str, Any]) -> str:
    parts = [span(told["took_ms"])] if told["took_ms"] is not None else []
    parts += [f"{money(told['spent_micro'])} so far"] if told["type"] == "agent.exited" else []
    parts += [f"for {told['cause']} {told['why']}"] if told["cause"] is not None else []
    more = f"  ({', '.join(parts)})" if parts else ""
    who = short(told["who"], WIDTH)
    return safe(f"{told['seq']:>4}  {told['time'][11:19]}  {who:<{WIDTH}}  {told['what']}{more}")


def took_ms(start: str, end: str) -> int:
    """Times are claims, and a forged log may claim anything: what is no time took nothing."""
    try:
        return int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000)
    except (ValueError, TypeError):
        return 0


# -- the state as values ---------------------------------------------------------------------------------

PLACE = ("seq", "hash", "time")  # these differ between any two events


def values(run: Run) -> dict[str, object]:
    """Everything the state holds, as "works.api.stage" -> value."""
    found: dict[str, object] = {}
    _flatten(run, "", found)
    return found


def _flatten(value: object, path: str, found: dict[str, object]) -> None:
    if isinstance(value, e.Event):
        found[path] = value.hash
        return
    inner: Iterable[tuple[object, object]]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, tuple):
        inner = enumerate(value)
    elif isinstance(value, frozenset):
        inner = enumerate(sorted(value))
    else:
        found[path] = value
        return
    found[path] = type(value).__name__  # also of an empty one
    for name, part in inner:
        _flatten(part, f"{path}.{name}" if path else str(name), found)


def state_digest(run: Run) -> str:
    """SHA-256 of all that the state holds: equal for equal states, wherever they were computed."""
    return hashlib.sha256(dumps(values(run)).encode("utf-8", "surrogatepass")).hexdigest()


def changes(before: Run, after: Run) -> dict[str, tuple[object, object]]:
    """Path -> (value before, value after), of what differs; None where there was or is nothing."""
    old, new = values(before), values(after)
    paths = [p for p in dict.fromkeys((*old, *new)) if p not in PLACE]
    return {p: (old.get(p), new.get(p)) for p in paths if old.get(p) != new.get(p)}


def change_lines(found: Mapping[str, tuple[object, object]]) -> list[str]:
    def words(value: object) -> str:
        return "nothing" if value is None else short(str(value), 80) or '""'

    return [safe(f"{path}: {words(old)} -> {words(new)}") for path, (old, new) in found.items()]
