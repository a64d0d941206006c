"""Frozen dataclasses to JSON values and back, strictly: what a field's annotation does not allow is refused.

Only the types that events need: str, int, bool, None, Literal, tuple[X, ...], X | None, and other frozen
dataclasses. Written out so that a log can be replayed with the standard library alone.
"""

from __future__ import annotations

import dataclasses
import json
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
MAX_INT = 2**53  # beyond this, JSON readers in other languages disagree about the value


class DecodeError(ValueError):
    """A JSON value that does not have the shape its type demands; the message begins with where."""


_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(value: object) -> str:
    """The one way of writing JSON here: no spaces, keys in the order given, UTF-8 as it is."""
    return _WRITER.encode(value)


def encode(value: Any) -> Any:
    """A dataclass, tuple or scalar as a JSON value. Fields keep the order of their declaration.

    Raises ValueError for an integer that `decode` would refuse: what is written can be read.
    """
    if type(value) is int and abs(value) >= MAX_INT:
        raise ValueError(f"{value:.6g} is too large an integer")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [encode(v) for v in value]
    return value


def decode(cls: type[T], value: Any, where: str = "") -> T:
    """The reverse. Raises DecodeError for a missing, unknown or ill-typed field."""
    if not isinstance(value, dict):
        raise DecodeError(f"{where or cls.__name__}: expected an object, got {type(value).__name__}")
    shape: Any = cls  # hashable, as every class is; mypy does not know it of a type variable
    hints, required, names = _shape(shape)
    unknown = [k for k in value if k not in names]
    if unknown:
        raise DecodeError(f"{where or cls.__name__}: unknown field {unknown[0]!r}")
    missing = [n for n in required if n not in value]
    if missing:
        raise DecodeError(f"{where or cls.__name__}: missing field {missing[0]!r}")
    return cls(**{k: _decode(hints[k], v, f"{where}.{k}" if where else k) for k, v in value.items()})


@cache
def _shape(cls: Any) -> tuple[dict[str, Any], tuple[str, ...], frozenset[str]]:
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    required = tuple(
        f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    return hints, required, frozenset(f.name for f in fields)


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise DecodeError(f"{where}: {value!r} is not one of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise DecodeError(f"{where}: expected a list, got {type(value).__name__}")
        return tuple(_decode(get_args(hint)[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (types.UnionType, Union):
        if value is None:
            return None
        return _decode(next(a for a in get_args(hint) if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return decode(hint if isinstance(hint, type) else type(hint), value, where)
    if hint is int:
        if type(value) is not int or abs(value) >= MAX_INT:
            raise DecodeError(f"{where}: expected an integer, got {value!r:.40}")
    elif hint is bool:
        if type(value) is not bool:
            raise DecodeError(f"{where}: expected true or false, got {value!r:.40}")
    elif type(value) is not str:
        raise DecodeError(f"{where}: expected a string, got {type(value).__name__}")
    return value


def json_schema(cls: type) -> dict[str, Any]:
    """JSON Schema (2020-12) of what `encode` writes for this dataclass."""
    hints, required, _ = _shape(cls)
    return {
        "type": "object",
        "properties": {name: _schema(hint) for name, hint in hints.items() if not _is_classvar(hint)},
        "required": list(required),
        "additionalProperties": False,
    }


def _is_classvar(hint: Any) -> bool:
    return "ClassVar" in str(hint)


def _schema(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if origin in (types.UnionType, Union):
        inner = next(a for a in get_args(hint) if a is not type(None))
        return {"anyOf": [_schema(inner), {"type": "null"}]}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return json_schema(hint)
    return {"type": {int: "integer", bool: "boolean"}.get(hint, "string")}
