"""`orchgit agents`: which backends are here, and for each that is not: why, and what to type."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from orchgit.cli.common import Json
from orchgit.core.errors import Kind


def command(as_json: Json = False) -> int:
    """Which agents are here, and why others are not."""
    from orchgit import agents
    from orchgit.config import load
    from orchgit.git.user import discover

    config = load(discover(Path.cwd()).root, os.environ)
    found = {name: agents.backend(name).probe(config.options(name)) for name in config.backends}
    width = max(map(len, found))
    if as_json:
        print(json.dumps({name: asdict(probe) for name, probe in found.items()}, indent=2))
    else:
        first = next((name for name, p in found.items() if p.found and name not in agents.ONLY_CHOSEN), "")
        for name, p in found.items():
            note = " (taken where none is configured)" if name == first else ""
            print(f"{'yes' if p.found else 'no ':<4} {name:<{width}} {p.detail}{note}")
            if p.hint:
                print(f"{'':<{width + 5}} → {p.hint}")
    return 0 if any(p.found for n, p in found.items() if n not in agents.ONLY_CHOSEN) else Kind.UNAVAILABLE
