"""`python -m tests.crash [--events] [--calls] [--doubles N] [--errors N] [--outliving] [--sample N] [--seed S] …`

All of what is asked for, one case after the other; one line of JSON for each that is not well, and the numbers at the
end. `--share I/N` takes every N-th case from the I-th on: so many of these run side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.crash.harness import AT_WORK, Fault, Lab, call_points, doubles, error_points, event_points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", action="store_true", help="every boundary of every event")
    parser.add_argument("--calls", action="store_true", help="every call that changes a file system")
    parser.add_argument("--doubles", type=int, default=0, help="so many pairs of faults, by the seed")
    parser.add_argument("--errors", type=int, default=0, help="so many refused calls, by the seed")
    parser.add_argument("--sample", type=int, default=0, help="only so many of all of these, by the seed")
    parser.add_argument("--outliving", action="store_true", help="agents outlive their engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    without = ("immortal",) if given.outliving else ()
    begun = time.monotonic()
    numbers: Counter[str] = Counter()
    with Lab(outliving=100 * given.outliving, without=without) as lab:
        cases: list[tuple[Fault, ...]] = []
        if given.events:
            cases += [(f,) for f in event_points(lab.events)]
        if given.calls:
            cases += [(f,) for f in call_points(lab.calls)]
        chance = Random(given.seed)
        if given.doubles:
            singles = event_points(lab.events) + call_points(lab.calls)
            cases += doubles(singles, chance, given.doubles, lab.calls, lab.events)
        if given.outliving:  # first while the agent is at work, so that it does outlive it
            cases = [(AT_WORK, *case) for case in cases]
        cases += [(f,) for f in error_points(lab.calls, chance, given.errors)]
        if given.sample:
            cases = chance.sample(cases, min(given.sample, len(cases)))
        mine, of = map(int, given.share.split("/"))
        cases = cases[mine::of]
        print(f"{lab.events} events, {lab.calls} calls, {len(cases)} cases", flush=True)
        for case in cases:
            if given.seconds and time.monotonic() - begun > given.seconds:
                numbers["not reached"] += 1
                continue
            result = lab.error(*case) if "errno" in case[0] else lab.case(*case)
            numbers[f"{len(case)} faults"] += 1
            numbers[f"{len(case)} faults, {int(result.fired)} fired"] += 1
            numbers["wrong"] += bool(result.wrong)
            line = json.dumps({"case": case, "fired": result.fired, "where": result.where, "wrong": result.wrong,
                               "said": result.said})  # fmt: skip
            if result.wrong:
                print(line, flush=True)
            if given.out:
                with given.out.open("a") as out:
                    out.write(line + "\n")
    numbers["seconds"] = int(time.monotonic() - begun)
    print(json.dumps(dict(numbers)))
    return 1 if numbers["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
