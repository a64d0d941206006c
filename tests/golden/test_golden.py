"""Recorded logs are read for ever: each replays, passes audit with its git evidence, and is as the schema says."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from random import Random

import pytest

from orchgit.core.audit import anchors, chain, judge, read, split
from orchgit.core.codec import dumps
from orchgit.core.events import VERSION, LineError, envelope
from orchgit.core.state import replay
from tests.golden.record import RUNS
from tests.support.golden import ALL, HERE, Golden, Place, edits, goldens, rechain, reseal, sample, verdict

VERIFIER = Path(__file__).parents[2] / "docs" / "verify-log.sh"
each = pytest.mark.parametrize("golden", goldens(), ids=lambda g: g.name)


def test_every_kind_of_run_is_there_in_this_version() -> None:
    assert {p.name for p in (HERE / f"v{VERSION}").iterdir()} == set(RUNS)


@each
def test_it_replays_and_passes_audit(golden: Golden, tmp_path: Path) -> None:
    place = Place(golden, golden.unpack(tmp_path))
    try:
        reading = place.reading()
        results = place.results()
        assert {law: r.verdict for law, r in results.items() if r.verdict != "pass"} == {}
        assert replay(golden.run, reading.events) == reading.run
        assert anchors(reading, place.facts()).here >= 0
        # Elsewhere, without the run's directory, nothing is lost but the blobs.
        there = {law: r.verdict for law, r in place.results(place.facts(elsewhere=True)).items()}
        assert set(there.values()) == {"pass"}
    finally:
        place.door.close()


@cache
def published() -> dict[str, object]:
    """The schema, as `orchgit schema` prints it."""
    import sys

    done = subprocess.run([sys.executable, "-m", "orchgit", "schema"], capture_output=True, check=True)
    schema: dict[str, object] = json.loads(done.stdout)
    return schema


@each
def test_its_lines_are_as_the_published_schema_says(golden: Golden) -> None:
    validator = pytest.importorskip("jsonschema", reason="pip install -e .[dev]").Draft202012Validator(published())
    for line in golden.lines:
        assert validator.is_valid(json.loads(line)), line


def test_events_in_the_docs_are_as_the_published_schema_says() -> None:
    """And whole: their hash is theirs. A line with an ellipsis is a sketch."""
    validator = pytest.importorskip("jsonschema", reason="pip install -e .[dev]").Draft202012Validator(published())
    root = Path(__file__).parents[2]
    texts = [path.read_text() for path in (root / "README.md", *(root / "docs").glob("*.md"))]
    shown = [line for text in texts for line in text.splitlines() if line.startswith('{"v":') and "…" not in line]
    assert shown
    for line in shown:
        assert validator.is_valid(json.loads(line)), line
        envelope(line.encode())


# -- every byte ------------------------------------------------------------------------------------------


def judged(golden: Golden, data: bytes) -> str:
    """The verdict of the laws of the log alone, and never a traceback."""
    reading = read(golden.run, *split(data))
    return verdict([r for r in judge(reading, None) if "no repository" not in r.why])


@each
def test_cut_anywhere_it_is_not_taken_for_whole(golden: Golden) -> None:
    """In the middle of a line: doubt. Between two: a log of a shorter past, which only git can tell from the whole."""
    data, rng = golden.data, Random(5)
    start = 0
    for number, line in enumerate(golden.lines):
        # What is judged depends on the whole lines alone, and on whether anything follows them.
        for at in range(start + 1, start + len(line) + 1):
            lines, tail = split(data[:at])
            assert len(lines) == number, at
            assert tail, at
        if number in sample(range(len(golden.lines)), 12):
            cut = data[: rng.randint(start + 1, start + len(line))]
            assert judged(golden, cut) == ("inconclusive" if number else "violation"), number
            assert judged(golden, data[:start]) == ("pass" if number else "violation"), number
        start += len(line) + 1


@each
def test_zeroed_or_flipped_at_every_byte_it_is_no_event(golden: Golden) -> None:
    """Line by line; that a log is no further taken for valid than to such a line is the next test's."""
    rng = Random(9)
    for number, line in enumerate(golden.lines):
        for at in range(0 if ALL else number % 7, len(line), 1 if ALL else 7):
            for byte in (0, line[at] ^ 1 << rng.randrange(8)):
                first, *rest = (line[:at] + bytes([byte]) + line[at + 1 :]).split(b"\n")
                try:
                    envelope(first)
                except LineError:
                    continue
                assert rest, (number, at)
                raise AssertionError(f"byte {at} of line {number}")


@each
def test_zeroed_or_flipped_anywhere_it_is_not_taken_for_valid(golden: Golden) -> None:
    data, rng = golden.data, Random(7)
    for at in [*sample(range(len(data)), 40), len(data) - 1]:
        touched = bytearray(data)
        touched[at] ^= 1 << rng.randrange(8)
        _refused(golden, bytes(touched), at)
        _refused(golden, data[:at] + b"\0" + data[at + 1 :], at)


def _refused(golden: Golden, data: bytes, at: int) -> None:
    """At the very byte: the chain up to the line before holds, and no further."""
    lines, tail = split(data)
    good, wrong = chain(golden.run, lines)
    line = golden.data.count(b"\n", 0, at)
    if at == len(golden.data) - 1:  # the last newline
        assert tail
    else:
        assert good <= line, at
        assert wrong, at


# -- the other verifier ----------------------------------------------------------------------------------


def corrupted(golden: Golden) -> list[tuple[str, bytes]]:
    """A log's corruptions of every sort: bytes, lines, and forgeries of every degree."""
    data, lines, rng = golden.data, golden.lines, Random(3)
    made: list[tuple[str, bytes]] = [
        ("as it is", data),
        ("empty", b""),
        ("a newline", b"\n"),
        ("CRLF", data.replace(b"\n", b"\r\n")),
    ]
    for at in rng.sample(range(len(data)), 60):
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        made += [
            (f"cut {at}", data[:at]),
            (f"flip {at}", bytes(flipped)),
            (f"zero {at}", data[:at] + b"\0" + data[at + 1 :]),
        ]
    for n in range(len(lines)):
        moved = {"delete": [*lines[:n], *lines[n + 1 :]], "double": [*lines[: n + 1], *lines[n:]],
                 "swap": [*lines[:n], *lines[n : n + 2][::-1], *lines[n + 2 :]], "stop": lines[:n]}  # fmt: skip
        for how, new in moved.items():
            made.append((f"{how} {n}", whole(new)))
            made.append((f"{how} {n} and chain", whole(rechain(new, n) if new else new)))
    for n, name, fields in rng.sample(edits(lines), 60):
        made.append((f"edit {name}", whole([*lines[:n], dumps(fields).encode(), *lines[n + 1 :]])))
        made.append((f"edit {name} and seal", whole([*lines[:n], reseal(fields), *lines[n + 1 :]])))
        made.append((f"edit {name} and chain", whole(rechain([*lines[:n], reseal(fields), *lines[n + 1 :]], n))))
    last = json.loads(lines[-1])
    forged = reseal({**last, "seq": len(lines), "prev": last["hash"]})
    for how, line in {
        "forged": forged,
        "spaced": forged.replace(b",", b", ", 1),
        "upper": forged[:-10] + forged[-10:].upper(),
    }.items():
        made.append((how, whole([*lines, line])))
    return made


def whole(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@each
@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_the_verifier_in_sh_agrees(golden: Golden, shell: str, tmp_path: Path) -> None:
    """With `log.chain`, and with `log.tail` of what is not whole, on every log: the two share no code."""
    program, *args = shell.split()
    if not shutil.which(program):
        pytest.skip(f"{program} is not here")
    file = tmp_path / "log"
    cases = corrupted(golden)
    chosen = cases[:4] + sample(cases[4:], 12 if shell == "sh" else 3, seed=len(golden.data))
    for name, data in chosen:
        file.write_bytes(data)
        done = subprocess.run([program, *args, str(VERIFIER), str(file), golden.run], capture_output=True, check=False)
        assert done.returncode in (0, 1), (name, done.stderr)
        assert done.stderr == b"", name
        lines, tail = split(data)
        good, wrong = chain(golden.run, lines)
        assert (done.returncode == 0) == (not wrong and not tail), (name, wrong, done.stdout)
        if wrong and not tail and b"\0" not in data:
            assert done.stdout.startswith(b"event %d:" % good), (name, wrong, done.stdout)
