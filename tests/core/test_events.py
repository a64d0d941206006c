"""Events on the wire: one form, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from tests.core.world import assignment, examples, plan_of

ENGINE = e.Actor("engine", "orchgit")
SAMPLE = e.seal(
    e.Draft(e.MergeDone("merge", "api", "a" * 40), ENGINE, 16), run="r1", seq=17, time="2026-01-01T00:00:00.000Z",
    prev="b" * 64,
)  # fmt: skip
LINE = SAMPLE.line.removesuffix(b"\n")


def sealed(fields: dict[str, Any] | str) -> bytes:
    """These fields as a line with the right hash, whatever they are."""
    text = fields if isinstance(fields, str) else json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    head = text.partition(',"hash"')[0].encode("utf-8", "surrogatepass")
    return head + f',"hash":"{hashlib.sha256(head).hexdigest()}"}}'.encode()


def fields_of(line: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_the_form_in_the_design() -> None:
    assert sealed(fields_of(LINE)) == LINE
    assert LINE.startswith(
        b'{"v":1,"seq":17,"run":"r1","type":"merge.done","time":"2026-01-01T00:00:00.000Z",'
        b'"actor":{"kind":"engine","id":"orchgit"},"cause":16,"data":{"land":"merge","assignment":"api",'
    )
    head, _, rest = LINE.partition(b',"hash":"')
    assert rest == hashlib.sha256(head).hexdigest().encode() + b'"}'
    assert SAMPLE.id == "r1/17"


def test_every_type_there_and_back() -> None:
    for body in examples("wörds\n\x07"):
        event = e.seal(e.Draft(body, ENGINE, None), run="r", seq=1, time="t", prev=e.ZERO)
        again = e.parse(event.line)
        assert again == event
        assert again.line == event.line == e.parse(event.line.removesuffix(b"\n")).line


@settings(max_examples=150, deadline=None)
@given(st.text(), st.text(), st.text(), st.none() | st.integers(0, 10**9))
def test_any_words_there_and_back(words: str, run: str, time: str, cause: int | None) -> None:
    draft = e.Draft(e.AbortRequested(words), e.Actor("human", words), cause)
    event = e.seal(draft, run=run, seq=3, time=time, prev=e.ZERO)
    assert e.parse(event.line) == event
    assert event.line.count(b"\n") == 1


def test_types_and_kinds() -> None:
    assert len(e.TYPES) == len(e.BODIES)
    assert {b.kind for b in e.BODIES} == {"input", "request", "outcome", "note", "decision"}
    subclasses = {c for c in e.Body.__subclasses__() if c.__module__ == e.__name__}
    assert subclasses == set(e.BODIES), "an event that cannot be read back"


def replaced(**more: Any) -> bytes:
    return sealed({**fields_of(LINE), **more})


def moved(fields: dict[str, Any]) -> dict[str, Any]:
    keys = ["seq", "v", *list(fields)[2:]]
    return {k: fields[k] for k in keys}


TEXT = LINE.decode()
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "not JSON": (b"seventeen", "not JSON"),
    "not UTF-8": (b"\xff" + LINE, "not JSON"),
    "a list": (b"[]", "keys"),
    "a space after": (LINE + b" ", "hash is not"),
    "a space before": (b" " + LINE, "hash is not"),
    "a carriage return": (LINE + b"\r\n", "hash is not"),
    "a byte order mark": (b"\xef\xbb\xbf" + LINE, "not JSON"),
    "UTF-16": (LINE.decode().encode("utf-16"), "not"),
    "other spacing": (sealed(TEXT.replace('"seq":17', '"seq": 17')), "not in the form"),
    "escapes": (sealed(TEXT.replace("api", "\\u0061pi")), "not in the form"),
    "other order": (sealed(moved(fields_of(LINE))), "keys"),
    "a key more": (sealed(TEXT.replace('"seq":17', '"x":1,"seq":17')), "keys"),
    "a key missing": (sealed({k: v for k, v in fields_of(LINE).items() if k != "cause"}), "keys"),
    "a key twice": (sealed(TEXT.replace('"seq":17', '"seq":17,"seq":17')), "not in the form"),
    "a key twice, inside": (sealed(TEXT.replace('"land":"merge"', '"land":"seal","land":"merge"')), "not in the form"),
    "a float": (sealed(TEXT.replace('"seq":17', '"seq":17.0')), "only integers"),
    "an exponent": (sealed(TEXT.replace('"seq":17', '"seq":1e1')), "only integers"),
    "minus nothing": (sealed(TEXT.replace('"seq":17', '"seq":-0')), "not in the form"),
    "NaN": (sealed(TEXT.replace('"seq":17', '"seq":NaN')), "only integers"),
    "infinity": (sealed(TEXT.replace('"seq":17', '"seq":-Infinity')), "only integers"),
    "an endless integer": (sealed(TEXT.replace('"seq":17', '"seq":' + "9" * 5000)), "not JSON"),
    "a wrong hash": (LINE[:-3] + (b"0" if LINE[-3:-2] != b"0" else b"1") + LINE[-2:], "hash is not"),
    "a hash that is no string": (LINE.partition(b',"hash"')[0] + b',"hash":1}', "hash is not"),
    "too long": (replaced(data={"land": "merge", "assignment": "x" * e.MAX_LINE, "new": "n"}), "at most 65536"),
    "a lone surrogate": (sealed(TEXT.replace("api", "\\ud800")), "not JSON"),
    "a lone surrogate, raw": (sealed(TEXT.replace("api", "\ud800")), "not JSON"),
    "too deep": (sealed(TEXT.replace('"api"', "[" * 30000 + "]" * 30000)), "not JSON"),
    "seq true": (replaced(seq=True), "integers"),
    "cause a string": (replaced(cause="16"), "integers"),
    "a type that is no string": (replaced(type=["merge.done"]), "not a string"),
    "a type that is an object": (replaced(type={}), "not a string"),
    "a run that is no string": (replaced(run=1), "not a string"),
    "a prev that is no string": (replaced(prev=None), "not a string"),
    "an actor of no kind": (replaced(actor={"kind": "god", "id": "x"}), "god"),
    "an actor with more": (replaced(actor={"kind": "human", "id": "x", "y": 1}), "unknown field"),
    "data of another type": (replaced(data={"attempt": 1}), "unknown field"),
    "data that is no object": (replaced(data=[]), "expected an object"),
}


@pytest.mark.parametrize(("line", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_event(line: bytes, words: str) -> None:
    with pytest.raises(e.LineError) as caught:
        e.parse(line)
    assert not isinstance(caught.value, e.UnknownType)
    assert words in str(caught.value)


@pytest.mark.parametrize("depth", range(150, 1000, 25))
def test_nesting_of_any_depth_is_refused_and_nothing_else_is_raised(depth: int) -> None:
    with pytest.raises(e.LineError):
        e.parse(sealed(TEXT.replace('"seq":17', '"seq":' + "[" * depth + "]" * depth)))
    started = e.seal(e.Draft(examples()[1], ENGINE), run="r", seq=0, time="t", prev=e.ZERO)
    with pytest.raises(e.LineError):
        e.parse(sealed(started.line.decode().replace('"torn_bytes":7', '"torn_bytes":' + "[" * depth + "]" * depth)))


@pytest.mark.parametrize("more", [{"type": "merge.dreamt"}, {"v": 2}, {"v": True}, {"v": "1"}, {"type": ""}])
def test_what_another_version_may_have_written_is_unknown_and_not_wrong(more: dict[str, Any]) -> None:
    with pytest.raises(e.UnknownType):
        e.parse(replaced(**more))


def test_the_envelope_of_an_unknown_type_can_be_shown() -> None:
    assert e.envelope(replaced(type="merge.dreamt", data={"any": [1, {}]}))["data"] == {"any": [1, {}]}


def test_every_flipped_bit_of_a_line_is_refused() -> None:
    for at in range(len(LINE)):
        for bit in range(8):
            line = bytearray(LINE)
            line[at] ^= 1 << bit
            with pytest.raises(e.LineError):
                e.parse(bytes(line))
            with pytest.raises(e.LineError):
                e.envelope(bytes(line))


def test_every_prefix_of_a_line_is_refused() -> None:
    for length in range(len(LINE)):
        with pytest.raises(e.LineError):
            e.parse(LINE[:length])


def test_a_draft_that_cannot_be_a_line() -> None:
    def seal(text: str) -> e.Event:
        return e.seal(e.Draft(e.AbortRequested(text), ENGINE), run="r", seq=0, time="t", prev=e.ZERO)

    with pytest.raises(e.LineError, match="lone surrogate"):
        seal("\ud800")
    room = e.MAX_LINE - len(seal("").line)
    assert e.parse(seal("x" * room).line).body == e.AbortRequested("x" * room)
    with pytest.raises(e.LineError, match="at most 65536"):
        seal("x" * (room + 1))


def test_a_plans_digest_is_of_every_word_in_it() -> None:
    plan = plan_of(assignment("api"))
    digests = {e.plan_digest(p) for p in (plan, plan_of(assignment("web")), plan_of(assignment("api", checks=("x",))))}
    assert len(digests) == 3
    assert e.plan_digest(plan) == e.plan_digest(plan_of(assignment("api")))
