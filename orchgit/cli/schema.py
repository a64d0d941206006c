"""`orchgit schema`: JSON Schema (2020-12) of a line of the event log."""

from __future__ import annotations

import json


def command() -> int:
    """JSON Schema of the events."""
    from orchgit.core import events as e
    from orchgit.core.codec import json_schema

    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    whole = {"type": "integer", "minimum": 0}
    lines = []
    for name, body in e.TYPES.items():
        fields = {
            "v": {"const": e.VERSION}, "seq": whole, "run": {"type": "string"}, "type": {"const": name},
            "time": {"type": "string", "format": "date-time"}, "actor": json_schema(e.Actor),
            "cause": {"anyOf": [whole, {"type": "null"}]}, "data": json_schema(body), "prev": digest, "hash": digest,
        }  # fmt: skip
        lines.append({"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False})
    print(
        json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "orchgit event", "oneOf": lines},
            indent=1,
        )
    )
    return 0
