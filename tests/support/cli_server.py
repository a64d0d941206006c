"""What the Messages server needs besides, so that the real Claude Code and the real Codex CLI run against it.

They are not ours, so nothing here checks what they send. The job is the first `orchgit-job: <key>` in what the user
said; the turn is the number of the assistant's turns in the request, so a session that is resumed goes on. Of the
playbook: `${cwd}` in a call's input is the client's working directory; a call names the client's own tool, with
`{"tool": "apply_patch", "input": {"patch": "..."}}` for the one of Codex's whose input is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchgit.agents.scripted import turns_of
from tests.support.messages_server import MessagesServer, _Handler, headers_of

CWD = re.compile(r"(?:[Ww]orking directory: |<cwd>)([^\s<\\]+)")
KEY = re.compile(r"orchgit-job: ([^\s\\]+)")


def substituted(value: Any, cwd: str) -> Any:
    if isinstance(value, str):
        return value.replace("${cwd}", cwd)
    if isinstance(value, Mapping):
        return {name: substituted(part, cwd) for name, part in value.items()}
    return [substituted(part, cwd) for part in value] if isinstance(value, list) else value


class _CliHandler(_Handler):
    owner: CliServer

    def do_HEAD(self) -> None:
        self.reply(200, {})

    def do_GET(self) -> None:
        self.fail(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0]
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        key = self.headers.get("x-api-key") or bearer
        self.owner.authorizations.append(
            "x-api-key" if self.headers.get("x-api-key") else "bearer" if bearer else "none"
        )
        if not key or (self.owner.key is not None and key != self.owner.key):
            return self.fail(401, f"invalid x-api-key: {key}")
        if path not in ("/v1/messages", "/v1/responses"):
            return self.fail(404, f"no such path: {path}")
        body = json.loads(raw)
        self.owner.keep(body)
        said = json.dumps(body.get("messages") or body.get("input"), ensure_ascii=False)
        found = KEY.search(said)
        turns = turns_of(self.owner.book, found[1], found[1].split("/")[0]) if found else None
        if found is None or turns is None:
            self.owner.problems.append(f"no job in the playbook for {found and found[1]}")
            return self.fail(400, self.owner.problems[-1])
        number = (
            sum(message["role"] == "assistant" for message in body["messages"])
            if path == "/v1/messages"
            else answered(body["input"])
        )
        where = CWD.search(json.dumps(body, ensure_ascii=False))
        turn = substituted(turns[number] if number < len(turns) else {}, where[1] if where else "/nowhere")
        what = f"{found[1]} {number}"
        if path == "/v1/messages":
            return self.play(body, turn or {"text": "I have nothing more to say."}, number, what)
        return self.respond(body, turn, number, what)

    def respond(self, body: Mapping[str, Any], turn: Mapping[str, Any], number: int, what: str) -> None:
        self.owner.closing.wait(turn.get("delay_ms", 0) / 1000)
        error: Mapping[str, Any] = turn.get("error", {"times": 0})
        if self.owner.take(f"error {what}", error.get("times", 1 << 30)):
            return self.fail(error["status"], error.get("message", "scripted error"), **headers_of(error))
        return self.stream(list(responses_of(body, turn, number)))


class CliServer(MessagesServer):
    """`with CliServer(book) as server`: ANTHROPIC_BASE_URL is `server.url`, Codex's base_url `server.url + "/v1"`."""

    handler = _CliHandler


def answered(items: list[Mapping[str, Any]]) -> int:
    """How many turns of the model's a Responses request holds: runs of its items between those of others."""
    turns, before = 0, False
    for item in items:
        kind = item.get("type", "message")
        own = kind in ("reasoning", "function_call", "custom_tool_call") or item.get("role") == "assistant"
        turns += own and not before
        before = own
    return turns


def responses_of(body: Mapping[str, Any], turn: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The stream of one reply, as the Responses API sends it."""
    items: list[dict[str, Any]] = []
    if turn.get("text") or not turn.get("calls"):
        text = turn.get("text") or "I have nothing more to say."
        content: list[dict[str, Any]] = [{"type": "output_text", "text": text, "annotations": []}]
        items.append({"type": "message", "id": f"msg_{number}", "role": "assistant", "content": content})
    for index, call in enumerate(turn.get("calls", [])):
        made = {"id": f"fc_{number}_{index}", "call_id": f"call_{number}_{index}", "name": call["tool"]}
        if call["tool"] == "apply_patch":
            items.append({"type": "custom_tool_call", **made, "input": call["input"]["patch"]})
        else:
            items.append({"type": "function_call", **made, "arguments": json.dumps(call["input"])})
    usage = {
        "input_tokens": len(json.dumps(body)) // 4, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    } | turn.get("usage", {})  # fmt: skip
    head = {"id": f"resp_{number}", "object": "response", "model": body.get("model", "")}
    yield {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}
    for index, item in enumerate(items):
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield {"type": "response.output_item.done", "output_index": index, "item": {**item, "status": "completed"}}
    yield {"type": "response.completed", "response": {**head, "status": "completed", "output": items, "usage": usage}}
