"""`orchgit report [RUN]`: what was asked, done, found and spent; Markdown, or JSON."""

from __future__ import annotations

import json

from orchgit.cli.common import Json, RunName, state_of, store_of


def command(run: RunName = "", as_json: Json = False) -> int:
    """The report of a run, in Markdown."""
    from orchgit.core.codec import encode
    from orchgit.report import costs, markdown, status_json

    store = store_of(run)
    log, state = store.read(), state_of(store)
    if as_json:
        spent = [
            dict(zip(("agent", "runs", "tokens_in", "tokens_out", "cost_micro"), row, strict=True))
            for row in costs(log)
        ]
        synthesis = encode(state.synthesis) if state.synthesis else None
        print(json.dumps({**status_json(state), "synthesis": synthesis, "costs": spent}, indent=2, ensure_ascii=False))
    else:
        print(markdown(state, log), end="")
    return 0
