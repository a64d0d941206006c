"""What `orchgit doctor --attack` prints: every probe, at every level of this machine."""

from __future__ import annotations

import json


def show(as_json: bool) -> int:
    """0 when every level holds what it promises."""
    from orchgit.core.errors import Kind
    from orchgit.report import safe
    from orchgit.sandbox import SANDBOXES, Level, sandbox
    from orchgit.sandbox.probes import PROBES, Tried, attack, lab_directory, promised

    levels: dict[str, Level] = {}
    absent: dict[str, str] = {}
    for name in reversed(SANDBOXES):  # none first: what a sandbox is there to change
        level = sandbox(name).probe()
        if isinstance(level, str):
            absent[name] = level
        else:
            levels[name] = level
    tried: dict[str, list[Tried]] = {n: attack(sandbox(n), PROBES, lab_directory()) for n in levels}
    missed = {name: [t for t in tried[name] if t.missed(level)] for name, level in levels.items()}
    if as_json:
        told = {
            name: {
                "detail": levels[name].detail, "prevented": sum(t.prevented for t in results), "of": len(results),
                "missed": [t.probe.id for t in missed[name]],
                "probes": {
                    t.probe.id: {
                        "prevented": t.prevented, "promised": promised(t.probe, levels[name]), "detail": t.detail,
                    }
                    for t in results
                },
            }
            for name, results in tried.items()
        }  # fmt: skip
        print(json.dumps({"levels": told, "not_available": absent}, indent=2))
        return Kind.NO if any(missed.values()) else 0
    widths = {name: max(len(name), 9) for name in levels}
    about = max(len(p.about) for p in PROBES)
    group = ""
    for at, probe in enumerate(PROBES):
        if probe.group != group:
            group = probe.group
            print(f"{group:<{about}}  " + "  ".join(f"{name:<{w}}" for name, w in widths.items()))
        words = ("prevented" if tried[name][at].prevented else "ALLOWED" for name in levels)
        line = "  ".join(f"{word:<{w}}" for word, w in zip(words, widths.values(), strict=True))
        print(f"{probe.about:<{about}}  {line}".rstrip())
    print()
    for name, level in levels.items():
        count = sum(t.prevented for t in tried[name])
        held = "holds what it promises" if level.prevented else "promises nothing"
        held = f"DOES NOT HOLD: {', '.join(t.probe.id for t in missed[name])}" if missed[name] else held
        print(f"{name}: {count} of {len(PROBES)} prevented; {held}")
    for name, why in absent.items():
        print(f"{name}: not available: {safe(why)}")
    return Kind.NO if any(missed.values()) else 0
