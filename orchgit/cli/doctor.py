"""`orchgit doctor`: what this machine can enforce, each level tried out by its canary."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from orchgit.cli.common import Json
from orchgit.core.errors import Kind


def command(
    as_json: Json = False,
    attack: Annotated[bool, typer.Option("--attack", help="Try every known way out, at every level.")] = False,
) -> int:
    """What this machine can enforce, tried out."""
    if attack:
        from orchgit.cli.attacks import show

        return show(as_json)
    from orchgit.git.user import git_version
    from orchgit.sandbox import SANDBOXES, Confinement, base_env, sandbox
    from orchgit.sandbox.canary import misses, prove

    told = []
    held = False
    for name in SANDBOXES:
        way = sandbox(name)
        level = way.probe()
        if isinstance(level, str):
            told.append({"level": name, "available": False, "why": level})
            continue
        with tempfile.TemporaryDirectory(prefix="orchgit-doctor-") as folder:
            base = Path(folder).resolve()
            for part in ("cell", "tmp", "home", "outside"):
                (base / part).mkdir()
            tmp = str(base / "tmp")
            probes = prove(
                way, Confinement((str(base / "cell"),), tmp), env=base_env(str(base / "home"), tmp),
                forbidden=[str(base / "outside")], engine_pid=os.getpid(),
            )  # fmt: skip
        missed = misses(probes, level)
        held = held or (level.prevented and not missed)
        told.append(
            {
                "level": name, "available": True, "detail": level.detail, "prevented": level.prevented,
                "missed": [p.name for p in missed],
                "tried": {p.name: p.prevented for p in probes},
            }
        )  # fmt: skip
    if as_json:
        print(json.dumps({"git": git_version(), "levels": told}, indent=2))
        return 0 if held else Kind.NO
    print(f"git {git_version()}")
    for row in told:
        if not row["available"]:
            print(f"{row['level']}: not available: {row['why']}")
            continue
        print(f"{row['level']}: {row['detail']}" + ("" if row["prevented"] else "  (prevents nothing)"))
        tried = row["tried"]
        assert isinstance(tried, dict)
        for what, prevented in tried.items():
            print(f"    {'prevented    ' if prevented else 'NOT prevented'}  {what}")
    if held:
        best = next(row["level"] for row in told if row["available"] and row.get("prevented") and not row["missed"])
        print(f"runs here use {best}")
    else:
        print("nothing here stops an agent from writing outside its scope:")
        print("orchgit start refuses, unless it is told --allow-unsandboxed")
    return 0 if held else Kind.NO
