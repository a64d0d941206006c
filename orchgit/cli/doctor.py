"""`orchgit doctor`: what this machine can enforce, each level tried out by its canary."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from orchgit.cli.common import Json
from orchgit.core.errors import Kind, OrchgitError


def command(
    as_json: Json = False,
    attack: Annotated[bool, typer.Option("--attack", help="Try every known way out, at every level.")] = False,
) -> int:
    """What this machine can enforce, tried out."""
    if attack:
        from orchgit.cli.attacks import show

        return show(as_json)
    from orchgit.git.user import git_version
    from orchgit.sandbox import SANDBOXES

    told = [tried(name) for name in SANDBOXES]
    overlay = overlay_here()
    use = next((row["level"] for row in told if row.get("prevented") and not row["missed"]), None)
    if as_json:
        cells = {"available": not overlay, "why": overlay}
        print(json.dumps({"git": git_version(), "use": use, "overlay": cells, "levels": told}, indent=2))
        return 0 if use else Kind.NO
    print(f"git {git_version()}")
    for row in told:
        describe(row)
    print(f"overlay cells: {f'not available: {overlay}' if overlay else 'available'}")
    if use:
        print(f"runs here use {use}")
        return 0
    print("nothing here stops an agent from writing outside its scope:")
    print("orchgit start refuses, unless it is told --allow-unsandboxed")
    return Kind.NO


def tried(name: str) -> dict[str, Any]:
    """One level, by its name: what it promises here, and what the canary found."""
    from orchgit.sandbox import Confinement, base_env, sandbox
    from orchgit.sandbox.canary import misses, prove

    way = sandbox(name)
    level = way.probe()
    if isinstance(level, str):
        return {"level": name, "available": False, "why": level}
    with tempfile.TemporaryDirectory(prefix="orchgit-doctor-") as folder:
        base = Path(folder).resolve()
        for part in ("cell", "tmp", "home", "outside"):
            (base / part).mkdir()
        (secret := base / "secret").write_text("secret")
        tmp = str(base / "tmp")
        # Readable: below /tmp the place would not be there at all, and to fail would show little.
        confinement = Confinement((str(base / "cell"),), tmp, hidden=(str(secret),), readable=(str(base),))
        try:
            probes = prove(
                way, confinement, env=base_env(str(base / "home"), tmp), forbidden=[str(base / "outside")],
                engine_pid=os.getpid(), secret_path=str(secret),
            )  # fmt: skip
        except OrchgitError as error:
            return {"level": name, "available": False, "why": f"{error.what} {error.why}"}
    return {
        "level": name, "available": True, "detail": level.detail, "prevented": level.prevented,
        "networks": list(level.networks), "hides": level.secrets, "missed": [p.name for p in misses(probes, level)],
        "tried": {p.name.replace(str(base), "…"): p.prevented for p in probes},
    }  # fmt: skip


def describe(row: dict[str, Any]) -> None:
    if not row["available"]:
        print(f"{row['level']}: not available: {row['why']}")
        return
    print(f"{row['level']}: {row['detail']}" + ("" if row["prevented"] else "  (prevents nothing)"))
    for what, prevented in row["tried"].items():
        print(f"    {'prevented    ' if prevented else 'NOT prevented'}  {what}")
    print(f"    networks that it can enforce: {', '.join(row['networks'])}")
    if not row["hides"]:
        print("    files that the user can read, its programs can read: keys and tokens in HOME too")
    if row["missed"]:
        print(f"    IT DOES NOT HOLD what it promises: {', '.join(row['missed'])}")


def overlay_here() -> str:
    """Why cells cannot be overlays where they would lie; "" when they can."""
    from orchgit.config import Config, state_home
    from orchgit.sandbox import overlay_works

    place = state_home(Config(), os.environ)
    while not place.is_dir():
        place = place.parent
    try:
        return overlay_works(str(place))
    except OSError as error:
        return str(error)
