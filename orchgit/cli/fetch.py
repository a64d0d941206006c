"""`orchgit fetch [REMOTE]`: bring the logs of others' runs. 0 · 1 where two logs of one run do not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchgit.cli.common import Json
from orchgit.core.errors import Kind


def command(
    remote: Annotated[str, typer.Argument(metavar="[REMOTE]", help="A remote's name, or a URL.")] = "origin",
    as_json: Json = False,
) -> int:
    """Bring the logs of others' runs."""
    import json
    from dataclasses import asdict

    from orchgit import publish
    from orchgit.git.door import Door
    from orchgit.git.user import discover
    from orchgit.report import safe

    repo = discover(Path.cwd())
    door = Door(repo.common, repo.object_format)
    try:
        found = publish.fetch(door, repo.root, remote)
    finally:
        door.close()
    if as_json:
        print(json.dumps([asdict(f) for f in found], indent=2))
    else:
        for f in found:
            print(f"{f.state:<10} {safe(f.run)}" + (f"  {safe(f.detail)}" if f.detail else ""))
        if not found:
            print(f"{remote} has no runs")
    return Kind.NO if any(f.bad for f in found) else 0
