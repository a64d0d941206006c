"""Requests and answers against GitHub's published description of its API (`openapi.json`, see renew.py).

Stricter than the description where a mistake of ours would hide: a key or parameter that it does not know is a problem.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

_FORMATS = FormatChecker(formats=())
for _name, _form in (("date-time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"), ("uri", r"[a-z]+://[^\s/]+|/")):
    _FORMATS.checks(_name)(functools.partial(lambda form, v: not isinstance(v, str) or re.match(form, v), _form))


class Spec:
    def __init__(self) -> None:
        self.whole = _schema(json.loads((Path(__file__).parent / "openapi.json").read_text()))
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(path))), path) for path in sorted(self.whole["paths"])
        ]

    def operation(self, method: str, path: str) -> tuple[str, tuple[str, ...]] | None:
        """The path's template and what its parameters are; None for what orchgit is not known to use."""
        for pattern, template in self._paths:
            if (found := pattern.fullmatch(path)) and method.lower() in self.whole["paths"][template]:
                return template, tuple(map(unquote, found.groups()))
        return None

    def request(self, method: str, template: str, query: Mapping[str, str], body: Any) -> Iterator[str]:
        operation = self.whole["paths"][template][method.lower()]
        parameters = [self._found(p) for p in operation.get("parameters", [])]
        known = {p["name"]: p["schema"] for p in parameters if p["in"] == "query"}
        for name, value in query.items():
            if name not in known:
                yield f"query: {name} is not known"
                continue
            kind = self._found(known[name]).get("type")
            yield from self._check(known[name], int(value) if kind == "integer" and value.isdigit() else value, name)
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            if body is not None:
                yield "a body where none is expected"
            return
        yield from self._check(schema, body, "body")
        yield from self._strange(schema, body, "body")

    def answer(self, method: str, template: str, status: int, body: Any) -> Iterator[str]:
        answers = self.whole["paths"][template][method.lower()]["responses"]
        described = self._found(answers.get(str(status), {}))
        schema = described.get("content", {}).get("application/json", {}).get("schema")
        if status == 422:  # what is described leaves out the texts that GitHub gives for reviews
            schema = {"type": "object", "required": ["message"]}
        elif schema is None and status >= 400:
            schema = {"$ref": "#/components/schemas/basic-error"}
        elif str(status) not in answers:
            yield f"{status} is not described"
        if schema is None:
            if body is not None:
                yield f"a body at {status}, where none is described"
            return
        yield from self._check(schema, body, "answer")

    def fill(self, name: str, known: Mapping[str, Any]) -> Any:
        """An object of this schema: everything that is required, over it what is known."""
        made = copy.deepcopy(self._blank(name))
        _lay(made, known)
        return made

    @functools.cache  # noqa: B019 - one Spec for the whole session
    def _blank(self, name: str) -> Any:
        return self._least({"$ref": f"#/components/schemas/{name}"})

    def _least(self, schema: Any) -> Any:
        schema = self._found(schema)
        kind = schema.get("type")
        if "null" in (kind if isinstance(kind, list) else [kind]) or {"type": "null"} in schema.get("anyOf", []):
            return None
        for word in ("allOf", "anyOf", "oneOf"):
            if word in schema:
                return self._least(schema[word][0])
        if "enum" in schema:
            return schema["enum"][0]
        if kind == "object" or "properties" in schema:
            return {name: self._least(schema["properties"][name]) for name in schema.get("required", [])}
        texts = {"date-time": "2026-01-01T00:00:00Z", "uri": "https://github.test/x"}
        return {"array": [], "integer": 0, "number": 0, "boolean": False}.get(
            kind, texts.get(schema.get("format"), "x")
        )

    def _found(self, schema: Any) -> Any:
        while "$ref" in schema:
            node = self.whole
            for part in schema["$ref"].removeprefix("#/").split("/"):
                node = node[part]
            schema = node
        return schema

    def _check(self, schema: Any, value: Any, where: str) -> Iterator[str]:
        whole = {**schema, "components": self.whole["components"]}
        for error in Draft202012Validator(whole, format_checker=_FORMATS).iter_errors(value):
            yield f"{where}.{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"

    def _strange(self, schema: Any, value: Any, where: str) -> Iterator[str]:
        schema = self._found(schema)
        if isinstance(value, list) and "items" in schema:
            for each in value:
                yield from self._strange(schema["items"], each, where)
        if not isinstance(value, dict) or "properties" not in schema:
            return
        for name, part in value.items():
            if name not in schema["properties"]:
                yield f"{where}: {name} is not known"
            else:
                yield from self._strange(schema["properties"][name], part, f"{where}.{name}")


def _schema(node: Any) -> Any:
    """OpenAPI 3.0's `nullable` as JSON Schema has it."""
    if isinstance(node, list):
        return [_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {k: _schema(v) for k, v in node.items()}
    if made.pop("nullable", None) is not True:
        return made
    if isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        return {**made, "enum": [*made["enum"], None]} if "enum" in made else made
    return {"anyOf": [made, {"type": "null"}]}


def _lay(made: dict[str, Any], known: Mapping[str, Any]) -> None:
    for name, value in known.items():
        if isinstance(value, dict) and isinstance(made.get(name), dict):
            _lay(made[name], value)
        else:
            made[name] = value
