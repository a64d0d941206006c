"""`orchgit audit [RUN]`: the laws of the log, and git against the log. 0 all hold · 1 a violation · 6 cannot say."""

from __future__ import annotations

import json
from pathlib import Path

from orchgit.cli.common import Json, RunName, store_of


def command(run: RunName = "", as_json: Json = False) -> int:
    """Check the log, and git against the log."""
    from orchgit.core.audit import judge, read, unattested
    from orchgit.core.errors import Kind
    from orchgit.git.door import Door
    from orchgit.git.facts import GitFacts
    from orchgit.git.user import common_dir
    from orchgit.report import safe

    store = store_of(run)
    reading = read(store.run, store.raw())
    object_format = reading.run.started.object_format if reading.run.started else "sha1"
    door = Door(common_dir(Path.cwd()), object_format)
    try:
        facts = GitFacts(door)
        results = judge(reading, facts)
        tail = unattested(reading, facts)
    finally:
        door.close()
    bad = [r for r in results if r.verdict == "violation"]
    unsure = [r for r in results if r.verdict == "inconclusive"]
    if as_json:
        told = [
            {
                "law": r.law, "sentence": r.sentence, "verdict": r.verdict, "why": r.why,
                "found": [{"where": f.where, "what": f.what} for f in r.found],
            }
            for r in results
        ]  # fmt: skip
        print(json.dumps({"run": store.run, "events": len(reading.events), "unattested": tail, "laws": told}, indent=2))
    else:
        broken = f" of {len(reading.events) + reading.unread} could be followed" if reading.unread else ""
        print(f"run {store.run}: {len(reading.events)} events{broken}, {reading.run.phase} by then")
        for r in results:
            print(f"  {r.verdict:<13} {r.law:<14} {r.sentence}")
            if r.why:
                print(f"                {r.why}")
            for f in r.found:
                print(f"    ! {safe(f.where)}: {safe(f.what)}")
        print(f"  the last {tail} events are attested by no commit: who owns this machine can still change them")
    if bad:
        return Kind.NO
    return Kind.UNSURE if unsure else 0
