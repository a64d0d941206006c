"""`orchgit report [RUN]`: what was asked, done, found and spent; Markdown, or JSON."""

from __future__ import annotations

import json

from orchgit.cli.common import Json, RunName, state_of, store_of


def command(run: RunName = "", as_json: Json = False) -> int:
    """The report of a run, in Markdown."""
    from orchgit.core.codec import encode
    from orchgit.report import markdown, status_json
    from orchgit.report_cost import by_agent

    store = store_of(run)
    log, state = store.read(), state_of(store)
    if as_json:
        spent = [
            {
                "agent": name,
                "runs": s.runs,
                "tokens_in": s.tokens_in,
                "tokens_out": s.used.output_tokens,
                "cost_micro": s.cost_micro,
            }
            for name, s in by_agent(state)
        ]
        synthesis = encode(state.synthesis) if state.synthesis else None
        print(json.dumps({**status_json(state), "synthesis": synthesis, "costs": spent}, indent=2, ensure_ascii=False))
    else:
        print(markdown(state, log), end="")
    return 0
