"""Secrets are kept out of the log: what surely is a credential is replaced before it is written, never after.

Two sources: the shapes that providers give their keys, and values that the caller knows (its environment). One call,
where text enters the log or a blob. It must never eat an object id or a digest: those are what the log stands on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

# Whatever an agent prints comes through here: no beginning of a secret may look further than the next one, or the time
# grows with the square of the text. A match holds the interpreter, and so the whole engine.
PATTERN = (
    r"\b(?:sk-ant-[A-Za-z0-9_-]{8,}|sk-(?:proj-)?[A-Za-z0-9_]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|npm_[A-Za-z0-9]{36}"
    r"|eyJ[A-Za-z0-9_-]{10,4000}+\.eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]++|-(?!----(?:BEGIN|END) ))*+-----END [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^/\s:@\"']{1,100}:[^/\s:@\"']{3,200}(?=@)"
)
WORDS = "[redacted]"
MIN_KNOWN = 12  # shorter values are words that other text may hold for its own reasons
_NAMES = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$")
_HEADERS = re.compile(r"HEADERS?$")  # ANTHROPIC_CUSTOM_HEADERS: lines, of which what stands behind the name is secret
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
T = TypeVar("T")


def known(env: Mapping[str, str]) -> tuple[str, ...]:
    """Values of an environment whose names say that they are secret, longest first."""
    values = {v for k, v in env.items() if _NAMES.search(k.upper())}
    headers = [line for k, v in env.items() if _HEADERS.search(k.upper()) for line in v.splitlines()]
    values.update(word for line in headers for word in line.partition(":")[2].split())
    found = {v for v in values if len(v) >= MIN_KNOWN and not _ID.fullmatch(v)}
    return tuple(sorted(found, key=len, reverse=True))


class Redactor:
    """Replaces secrets in text, in bytes, and in every text of an event."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        listed = "|".join([*map(re.escape, secrets), PATTERN])
        self._text = re.compile(listed, re.DOTALL)
        self._bytes = re.compile(listed.encode(), re.DOTALL)

    def bytes(self, data: bytes) -> bytes:
        return self._bytes.sub(WORDS.encode(), data)

    def text(self, text: str) -> str:
        return text if len(text) < MIN_KNOWN or _ID.fullmatch(text) else self._text.sub(WORDS, text)

    def body(self, body: T) -> T:
        """The same event without secrets; the very same object when there are none."""
        done: T = self._value(body)
        return done

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, tuple):
            parts = tuple(map(self._value, value))
            return parts if parts != value else value
        if is_dataclass(value) and not isinstance(value, type):
            now = {f.name: getattr(value, f.name) for f in fields(value)}
            new = {name: self._value(part) for name, part in now.items()}
            changed = {name: part for name, part in new.items() if part != now[name]}
            return replace(value, **changed) if changed else value
        return value
