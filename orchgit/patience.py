"""Waiting for a service that limits its rate or is overloaded: together, bounded, and by the clock on the wall.

By that clock because a wait outlives the engine: the log says until when, and the next engine goes on waiting. Who is
asked to wait while others already do waits with them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from orchgit.core import events as e

FIRST_S, LONGEST_S = 15.0, 600.0  # where a service does not say how long: doubled each time
NEVER_S = 366 * 86_400.0  # as good as: a service, or who speaks in its name, may say any number
POLL_S = 0.5


def rfc3339(epoch_s: float) -> str:
    """UTC, milliseconds, as in the log."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch_s(text: str) -> float:
    """The reverse. What is no time is now: nobody waits for it."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time()


class Patience:
    """Which backends want no calls, and until when. One for all agents of an engine; safe from any thread."""

    def __init__(self, longest_s: float, waits: Iterable[e.AgentWaiting] = ()) -> None:
        """`longest_s`: on the word of one, the others are not held for longer. `waits`: what the last engine left."""
        self._longest_s = longest_s
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        for wait in waits:
            self._until[wait.backend] = max(self._until.get(wait.backend, 0.0), epoch_s(wait.until))

    def held_s(self, backend: str) -> float:
        """0: call."""
        return max(0.0, self._until.get(backend, 0.0) - time.time())

    def limited(self, backend: str, retry_after_s: float | None, tries: int) -> float:
        """The service asked for patience, for the `tries`-th time in a row (from 0). Until when (epoch, seconds)."""
        wait_s = min(max(0.0, retry_after_s or 0.0), NEVER_S)
        if not wait_s or tries:
            wait_s = max(wait_s, min(LONGEST_S, FIRST_S * 2**tries))
        with self._lock:
            now = time.time()
            until = self._until.get(backend, 0.0)
            if until > now:
                return until
            until = now + wait_s
            if wait_s <= self._longest_s:
                self._until[backend] = until
            return until


def wait(until: float, stop: threading.Event) -> bool:
    """False: it was stopped before."""
    while (left_s := until - time.time()) > 0:
        if stop.wait(min(left_s, POLL_S)):
            return False
    return not stop.is_set()
