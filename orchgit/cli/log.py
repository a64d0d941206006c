"""`orchgit log [RUN]`: the lines as they are. It reads and never evolves: also a log that nothing else accepts."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchgit.cli.common import Json, RunName, store_of
from orchgit.core import events as e


def command(
    run: RunName = "",
    as_json: Json = False,
    kind: Annotated[str, typer.Option("--type", help="Only events whose type begins so, such as merge.")] = "",
) -> int:
    """Print the event log as it is."""
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
