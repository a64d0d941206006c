"""Codec: what a field's annotation allows goes there and back; everything else is refused, and said where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchgit.core import events as e
from orchgit.core.codec import MAX_INT, DecodeError, decode, dumps, encode, json_schema
from tests.core.world import examples


@dataclass(frozen=True)
class Inner:
    word: Literal["a", "b"]
    maybe: int | None


@dataclass(frozen=True)
class Outer:
    text: str
    number: int
    flag: bool
    inner: Inner
    many: tuple[Inner, ...]
    names: tuple[str, ...] = ("x",)


GOOD: dict[str, Any] = {
    "text": "t", "number": 1, "flag": True, "inner": {"word": "a", "maybe": None},
    "many": [{"word": "b", "maybe": 3}], "names": ["y"],
}  # fmt: skip
inners = st.builds(Inner, st.sampled_from(["a", "b"]), st.none() | st.integers(-MAX_INT + 1, MAX_INT - 1))
outers = st.builds(
    Outer, st.text(), st.integers(-MAX_INT + 1, MAX_INT - 1), st.booleans(), inners,
    st.lists(inners, max_size=3).map(tuple), st.lists(st.text(), max_size=3).map(tuple),
)  # fmt: skip


def changed(**more: Any) -> dict[str, Any]:
    return {**GOOD, **more}


@settings(max_examples=200, deadline=None)
@given(outers)
def test_there_and_back(value: Outer) -> None:
    assert decode(Outer, encode(value)) == value


def test_every_event_there_and_back() -> None:
    for body in examples("wörds"):
        assert decode(type(body), encode(body)) == body


def test_fields_keep_the_order_of_their_declaration() -> None:
    assert list(encode(decode(Outer, dict(reversed(GOOD.items()))))) == list(GOOD)


def test_a_default_may_be_left_out() -> None:
    assert decode(Outer, {k: v for k, v in GOOD.items() if k != "names"}).names == ("x",)


BAD = {
    "no object": ([], "expected an object"),
    "missing": ({k: v for k, v in GOOD.items() if k != "text"}, "missing field 'text'"),
    "unknown": (changed(more=1), "unknown field 'more'"),
    "string for int": (changed(number="1"), "number: expected an integer"),
    "bool for int": (changed(number=True), "number: expected an integer"),
    "float for int": (changed(number=1.0), "number: expected an integer"),
    "too large": (changed(number=MAX_INT), "number: expected an integer"),
    "too small": (changed(number=-MAX_INT), "number: expected an integer"),
    "int for bool": (changed(flag=1), "flag: expected true or false"),
    "none for string": (changed(text=None), "text: expected a string"),
    "string for list": (changed(names="ab"), "names: expected a list"),
    "wrong item": (changed(names=["a", 1]), "names[1]: expected a string"),
    "wrong literal": (changed(inner={"word": "c", "maybe": None}), "inner.word: 'c' is not one of a, b"),
    "unhashable literal": (changed(inner={"word": ["a"], "maybe": None}), "inner.word"),
    "wrong optional": (changed(inner={"word": "a", "maybe": "x"}), "inner.maybe: expected an integer"),
    "deep": (changed(many=[{"word": "a", "maybe": 1}, {"word": "a"}]), "many[1]: missing field 'maybe'"),
    "a class's own": (changed(type="x"), "unknown field 'type'"),
}


@pytest.mark.parametrize(("value", "words"), BAD.values(), ids=BAD)
def test_refused_and_said_where(value: Any, words: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(Outer, value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_one_way_of_writing() -> None:
    assert dumps({"b": 1, "a": ["é", "\x07", None, True]}) == '{"b":1,"a":["é","\\u0007",null,true]}'
    with pytest.raises(ValueError):
        dumps(float("nan"))


def obeys(schema: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as is used here."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(obeys(s, value) for s in schema["anyOf"])
    match schema["type"]:
        case "object":
            known = schema["properties"]
            return (
                isinstance(value, dict) and set(schema["required"]) <= value.keys() <= known.keys()
                and all(obeys(known[k], v) for k, v in value.items())
            )  # fmt: skip
        case "array":
            return isinstance(value, list) and all(obeys(schema["items"], v) for v in value)
        case "integer":
            return type(value) is int
        case "boolean":
            return type(value) is bool
        case "null":
            return value is None
    return schema["type"] == "string" and isinstance(value, str)


def test_the_schema_says_the_same() -> None:
    assert obeys(json_schema(Outer), GOOD)
    wrong_ints = ("too large", "too small")  # JSON Schema has no word for it that every reader knows
    for name, (value, _) in BAD.items():
        assert name in wrong_ints or not obeys(json_schema(Outer), value), name
    for body in examples():
        schema = json_schema(type(body))
        assert obeys(schema, encode(body)), body.type
        assert schema["additionalProperties"] is False
    assert json_schema(e.RunAborted)["properties"] == {}
