"""`orchgit status [RUN]`: where it stands and what it waits for; without a name, every run of the repository."""

from __future__ import annotations

import json
from pathlib import Path

from orchgit.cli.common import Json, RunName, state_of, store_of


def command(run: RunName = "", as_json: Json = False) -> int:
    """Where a run stands, and what it waits for."""
    from orchgit.git.user import common_dir
    from orchgit.publish import stores
    from orchgit.report import status_json, status_lines

    runs = [store_of(run)] if run else stores(common_dir(Path.cwd()))
    states = [(state_of(s), s.holder()) for s in runs]
    if as_json:
        listed = [{**status_json(s), "engine": holder.pid if holder else None} for s, holder in states]
        print(json.dumps(listed[0] if run else listed, indent=2, ensure_ascii=False))
        return 0
    if not states:
        print("no run in this repository; orchgit start ISSUE.md begins one")
    for number, (state, holder) in enumerate(states):
        lines = status_lines(state, alive=holder is not None)
        if number and state.over:
            lines = lines[:1]  # old ones in a line each
        print("\n".join(lines))
        if holder is not None:
            print(f"  engine: {holder}, on {holder.host} since {holder.since}")
    return 0
