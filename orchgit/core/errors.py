"""The kinds of failure a person can meet. The kind fixes the exit code; the words say what, why and what next."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """Exit codes of the command line (README, "Exit codes")."""

    NO = 1  # the answer is no: checks failed, audit found something, out of scope
    USAGE = 2  # the command, its arguments or the configuration are wrong
    FAULT = 3  # a fault of ours
    HUMAN = 4  # a human is needed
    UNAVAILABLE = 5  # an agent or a forge is not available
    UNSURE = 6  # cannot say


class OrchgitError(Exception):
    """What happened (`what`), why (`why`), and what to type next (`hint`)."""

    def __init__(self, kind: Kind, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.hint) if part)
