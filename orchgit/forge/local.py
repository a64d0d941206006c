"""No forge: nothing leaves this machine. The default; whoever asks something of it is told how to have one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import (
    Change,
    ChangeRef,
    Comment,
    Forge,
    Issue,
    Key,
    LineComment,
    Reference,
    Result,
    ReviewSeen,
    Verdict,
)


def connect(
    root: Path,
    env: Mapping[str, str],
    *,
    remote: str,
    wanted: Reference | None,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> Forge:
    return LocalForge()


class LocalForge:
    name = "local"
    place = ""
    remote = ""

    def me(self) -> str:
        return ""

    def push_env(self) -> Mapping[str, str]:
        return {}

    def may_write(self, login: str) -> bool:
        return False

    def ready(self) -> None:
        pass

    def issue(self, number: int) -> Issue:
        _none(f"issue {number} cannot be read")

    def comments(self, number: int, since: str = "") -> tuple[Comment, ...]:
        _none(f"the comments of {number} cannot be read")

    def note(self, number: int, key: Key, body: str) -> Comment:
        _none(f"no comment can be written on {number}")

    def change(self, key: Key, change: Change) -> ChangeRef:
        _none(f"no pull request can be opened for {change.head}")

    def look(self, number: int) -> ChangeRef:
        _none(f"pull request {number} cannot be looked at")

    def retarget(self, number: int, base: str) -> ChangeRef:
        _none(f"pull request {number} cannot be retargeted")

    def status(self, key: Key, sha: str, result: Result) -> None:
        _none(f"{result.context} cannot be said at {sha[:10]}")

    def review(
        self, number: int, key: Key, sha: str, body: str, comments: Sequence[LineComment], verdict: Verdict
    ) -> ReviewSeen:
        _none(f"pull request {number} cannot be reviewed")

    def reviews(self, number: int) -> tuple[ReviewSeen, ...]:
        _none(f"the reviews of {number} cannot be read")

    def merge(self, number: int, sha: str, title: str, message: str) -> str:
        _none(f"pull request {number} cannot be merged")

    def close(self, number: int) -> None:
        _none(f"issue {number} cannot be closed")


def _none(what: str) -> NoReturn:
    raise OrchgitError(
        Kind.USAGE, what, "no forge is configured: nothing leaves this machine",
        'set kind = "github" in [forge] of .orchestration/config.toml',
    )  # fmt: skip
