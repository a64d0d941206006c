"""`orchgit log [RUN]`: the lines as they are. It reads and never evolves: also a log that nothing else accepts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit import publish
from orchgit.cli.common import Json, RunName, store_of, tell
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.eventlog import Store


def command(
    run: RunName = "",
    as_json: Json = False,
    kind: Annotated[str, typer.Option("--type", help="Only events whose type begins so, such as merge.")] = "",
    redact: Annotated[str, typer.Option(metavar="DIGEST", help="Drop this blob for ever; the log says so.")] = "",
    why: Annotated[str, typer.Option(help="The reason for it; it is recorded.")] = "",
) -> int:
    """Print the event log as it is."""
    if redact:
        return _redact(store_of(run), redact, why)
    from orchgit.report import safe, say

    for number, line in enumerate(store_of(run).raw()):
        try:
            event = e.parse(line)
        except e.LineError as error:
            if as_json:
                sys.stdout.buffer.write(line + b"\n")
            else:
                print(f"{number:>4} ?  {error}: {safe(line.decode('utf-8', 'replace'))[:200]}")
            continue
        if not event.body.type.startswith(kind):
            continue
        if as_json:
            sys.stdout.buffer.write(event.line)
        else:
            cause = f"←{event.cause}" if event.cause is not None else ""
            who = f"{event.actor.kind}:{safe(event.actor.id)}"
            print(f"{event.seq:>4} {event.time[11:23]} {event.body.type:<24} {cause:<5} {who:<28} {say(event)}")
    sys.stdout.flush()
    return 0


def _redact(store: Store, digest: str, why: str) -> int:
    """The bytes go, the events that name them stay, and audit says what is missing and why."""
    if not why.strip():
        raise OrchgitError(
            Kind.USAGE, "a redaction wants a reason", "whoever audits the run reads it", f'--redact {digest} --why "…"'
        )
    if not store.has(digest):
        raise OrchgitError(
            Kind.NO, f"run {store.run} has no blob {digest[:80]}", "its whole SHA-256 is wanted",
            f"orchgit log {store.run} --json names them",
        )  # fmt: skip
    code = tell(store, e.RedactionRecorded(digest, why[:1000]), f"blob {digest[:12]} dropped")
    if digest in publish.published(store.read(), everything=False):
        print(
            f"It is in the checkpoints that were published already: refs/orchgit/runs/{store.run} here and wherever it "
            "was pushed. A secret that was in it is to be replaced.",
            file=sys.stderr,
        )
    return code
