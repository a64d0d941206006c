"""Following a log: first its chain, by bytes alone; then its lines, as events that could happen.

The rules of the chain are those of docs/verify-log.sh, which shares no code with this: no JSON is read for them. A
line begins `{"v":1,"seq":<n>,"run":"<run>",` and ends `,"prev":"<64 hex>","hash":"<64 hex>"}`; n counts from 0; `hash`
is SHA-256 of the line before `,"hash":"`; `prev` is the hash of the line before, 64 zeros at first; no byte is zero.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from orchgit.core import events as e
from orchgit.core.audit.model import Found, Reading
from orchgit.core.state import Illegal, Run, evolve

_LINE = re.compile(
    rb'\{"v":[0-9]+,"seq":(0|[1-9][0-9]{0,14}),"run":"([A-Za-z0-9._-]+)",'
    rb'[^\0]*,"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}',
    re.DOTALL,
)
_SUFFIX = len(',"hash":"') + 64 + len('"}')


def chain(run_id: str, lines: Sequence[bytes]) -> tuple[int, str]:
    """How many lines from the first on follow each other, and what is wrong with the next; "" when all do."""
    prev = e.ZERO.encode()
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None:
            return number, "not in the form of a line of the log"
        seq, run, said, digest = match.groups()
        if seq != b"%d" % number:
            return number, f"its seq is {seq.decode()}: a line was taken out, put in, or moved"
        if run != run_id.encode():
            return number, f"it belongs to run {run.decode()}"
        if said != prev:
            return number, "its prev is not the hash of the line before: the past was changed"
        if hashlib.sha256(line[:-_SUFFIX]).hexdigest().encode() != digest:
            return number, "the hash is not that of the line"
        prev = digest
    return len(lines), "" if lines else "there is not one event"


def read(run_id: str, lines: Sequence[bytes], tail: bytes = b"") -> Reading:
    """Follow a log line by line, to the first that does not follow. `tail`: bytes after the last newline."""
    whole, wrong = chain(run_id, lines)
    broken = (Found(f"event {whole}", wrong),) if wrong else ()
    run = Run(run_id)
    events: list[e.Event] = []
    before: list[Run] = []
    malformed: tuple[Found, ...] = ()
    illegal: tuple[Found, ...] = ()
    unknown: tuple[Found, ...] = ()
    for number, line in enumerate(lines[:whole]):
        where = f"event {number}"
        try:
            event = e.parse(line)
            after = evolve(run, event)
        except e.UnknownType as error:
            unknown = (Found(where, str(error)),)
            break
        except e.LineError as error:
            malformed = (Found(where, str(error)),)
            break
        except Illegal as error:
            illegal = (Found(where, f"{event.body.type}: {error}"),)
            break
        events.append(event)
        before.append(run)
        run = after
    data, unread = b"".join(line + b"\n" for line in lines) + tail, len(lines) - len(events)
    return Reading(
        run, data, tuple(events), tuple(before), broken, malformed, illegal, unknown, unread, len(tail)
    )  # fmt: skip


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """(whole lines, what stands after the last newline) of a log's bytes."""
    *lines, tail = data.split(b"\n")
    return lines, tail
