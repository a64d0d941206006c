"""`python -m tests.crash [--events] [--calls] [--doubles N [--each K]] [--errors N] [--outliving] [--sample N] …`

All of what is asked for, one case after the other; one line of JSON for each that is not well, and the numbers at the
end. `--share I/N` takes every N-th case from the I-th on: so many of these run side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.crash.harness import AT_WORK, Fault, Lab, Result, call_points, doubles, error_points, event_points

LOSSES: tuple[Fault, ...] = tuple({"loss": loss} for loss in ("all", "names", "content", "any"))


def results(lab: Lab, first: tuple[Fault, ...], last: list[Fault]) -> Iterator[Result]:
    if "errno" in last[0]:
        yield from map(lab.error, last)
    elif first is LOSSES:
        yield from lab.power(last[0], [(loss["loss"], last[0]["number"]) for loss in LOSSES])
    elif len(last) > 1:
        yield from lab.cases(first, last)
    else:
        yield lab.case(*first, *last)


def count(result: Result, numbers: Counter[str], out: Path | None) -> None:
    faults = len(result.faults)
    numbers[f"{faults} faults"] += 1
    numbers[f"{faults} faults, {result.fired} fired"] += 1
    numbers["wrong"] += bool(result.wrong)
    line = json.dumps({"case": result.faults, "fired": result.fired, "where": result.where, "wrong": result.wrong,
                       "said": result.said})  # fmt: skip
    if result.wrong:
        print(line, flush=True)
    if out:
        with out.open("a") as file:
            file.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", action="store_true", help="every boundary of every event")
    parser.add_argument("--calls", action="store_true", help="every call that changes a file system")
    parser.add_argument("--doubles", type=int, default=0, help="so many pairs of faults, by the seed")
    parser.add_argument("--each", type=int, default=5, help="so many second faults for every first")
    parser.add_argument("--power", type=int, default=0, help="the power goes at so many calls, each with every loss")
    parser.add_argument("--errors", type=int, default=0, help="so many refused calls, by the seed")
    parser.add_argument("--sample", type=int, default=0, help="only so many of all of these, by the seed")
    parser.add_argument("--outliving", action="store_true", help="agents outlive their engine")
    parser.add_argument("--plain", action="store_true", help="by Landlock and without overlays: quicker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    without = ("immortal",) if given.outliving else ()
    begun = time.monotonic()
    numbers: Counter[str] = Counter()
    with Lab(outliving=100 * given.outliving, without=without, plain=given.plain) as lab:
        chance = Random(given.seed)
        before = (AT_WORK,) if given.outliving else ()  # while the agent is at work, so that it does outlive it
        points = event_points(lab.events) * given.events + call_points(lab.calls) * given.calls
        groups: list[tuple[tuple[Fault, ...], list[Fault]]] = [(before, [point]) for point in points]
        if given.doubles:
            singles = event_points(lab.events) + call_points(lab.calls)
            pairs = doubles(singles, chance, given.doubles, lab.calls, lab.events, given.each)
            groups += [((*before, first), seconds) for first, seconds in pairs]
        groups += [(LOSSES, [point]) for point in chance.sample(call_points(lab.calls), given.power)]
        groups += [((), [fault]) for fault in error_points(lab.of_class, chance, given.errors)]
        if given.sample:
            groups = chance.sample(groups, min(given.sample, len(groups)))
        mine, of = map(int, given.share.split("/"))
        groups = groups[mine::of]
        print(f"{lab.events} events, {lab.calls} calls, {sum(len(last) for _, last in groups)} cases", flush=True)
        for first, last in groups:
            if given.seconds and time.monotonic() - begun > given.seconds:
                numbers["not reached"] += len(last)
                continue
            for result in results(lab, first, last):
                count(result, numbers, given.out)
    numbers["seconds"] = int(time.monotonic() - begun)
    print(json.dumps(dict(numbers)))
    return 1 if numbers["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
