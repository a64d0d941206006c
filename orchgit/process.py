"""A supervised child: own session, deadline, output cap, TERM then KILL, always reaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """How a child ended. `returncode` is negative for a signal. Output beyond the cap is dropped, and said."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    truncated: bool
    duration_ms: int


class Child(Protocol):
    """A running child. Every path out of it reaps it and everything it started."""

    pid: int

    def send(self, data: bytes) -> None:
        """Write to its standard input; BrokenPipeError when it is gone."""

    def readline(self, timeout_s: float) -> bytes:
        """One line with its newline; b"" at end of file; TimeoutError. A line beyond 16 MiB is an OSError."""

    def finish(self, stdin: bytes = b"", *, deadline_s: float, output_cap: int = 1 << 20) -> Ended:
        """Feed `stdin`, close it, collect the output, wait; at the deadline stop it."""

    def stop(self, grace_s: float = 2.0) -> Ended:
        """TERM to everything it started, KILL after the grace; returns what it left in the pipes."""


class Launch(Protocol):
    """Starts a program in an environment and a sandbox that somebody else has already decided on."""

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        """`env` is added to the cell's own environment; `cwd` defaults to the cell's working tree."""
