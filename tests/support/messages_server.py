"""A Messages API on loopback that plays a playbook (format: orchgit/agents/scripted.py) to the real SDK.

It must be as strict as the real service about the shape of a request, or a broken loop would pass its tests;
and it must never write a credential down. The job is found by the first line of the first user message,
`orchgit-job: <key>`; the turn is the number of assistant messages in the request, so it holds no conversation
and survives retries and resumes. No real token counts, no cache, no images, no server tools.

What a turn may have on top, for the server alone:
    "error": {"status": 529, "times": 2, "message": "...", "retry_after_ms": 10, "in_stream": true}
             (or "retry_after": "30", or a date, in the standard's header)
    "cut": true, or {"times": 2, "clean": true}   the connection drops (or ends cleanly) in mid-reply
    "thinking": "..."                             a thinking block, whose signature must come back
    "usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 0, ...}

By itself: `python -m tests.support.messages_server --playbook F [--port N] [--log FILE]`, then
ANTHROPIC_BASE_URL=http://127.0.0.1:N.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from orchgit.agents.scripted import load_playbook, turns_of

REQUEST_KEYS = {
    "model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
    "cache_control", "metadata", "stop_sequences", "stream", "service_tier",
}  # fmt: skip
SCHEMA_KEYS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf",
    "$ref", "$defs", "description", "format", "minItems",
}  # fmt: skip
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip


class Invalid(Exception):
    """The request would get a 400 from the real service."""


def need(condition: object, words: str) -> None:
    if not condition:
        raise Invalid(words)


def check_request(body: Any) -> None:
    need(isinstance(body, dict), "the body must be an object")
    need(not set(body) - REQUEST_KEYS, f"extra inputs are not permitted: {sorted(set(body) - REQUEST_KEYS)}")
    need(isinstance(body.get("model"), str) and body["model"], "model: field required")
    need(type(body.get("max_tokens")) is int and body["max_tokens"] >= 1, "max_tokens: must be at least 1")
    need(isinstance(body.get("messages"), list) and body["messages"], "messages: at least one")
    for block in body.get("system", []):
        need(block.get("type") == "text" and block.get("text"), "system: text blocks must be non-empty")
    thinking = body.get("thinking", {"type": "disabled"}).get("type")
    need(thinking in ("adaptive", "disabled", "enabled"), "thinking.type: unknown")
    names = [tool.get("name", "") for tool in body.get("tools", [])]
    need(len(names) == len(set(names)), "tools: names must be unique")
    for tool in body.get("tools", []):
        need(set(tool) <= {"name", "description", "input_schema", "strict"}, f"tool: extra inputs: {set(tool)}")
        need(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]), f"tools: bad name {tool['name']!r}")
        need(tool["input_schema"].get("type") == "object", f"{tool['name']}: input_schema.type must be object")
        if tool.get("strict"):
            check_strict(tool["input_schema"], tool["name"])
    check_messages(body["messages"])


def check_strict(schema: Any, where: str) -> None:
    need(isinstance(schema, dict), f"{where}: a schema must be an object")
    extra = set(schema) - SCHEMA_KEYS
    need(not extra, f"{where}: strict tools do not support {sorted(extra)}")
    if schema.get("type") == "object":
        need(schema.get("additionalProperties") is False, f"{where}: additionalProperties must be false")
    for part in ("properties", "$defs"):
        for name, sub in schema.get(part, {}).items():
            check_strict(sub, f"{where}.{name}")
    for sub in [
        *schema.get("anyOf", []),
        *schema.get("allOf", []),
        *([schema["items"]] if "items" in schema else []),
    ]:
        check_strict(sub, where)


def check_messages(messages: list[dict[str, Any]]) -> None:
    need(messages[0].get("role") == "user", "the first message must be the user's")
    waiting: list[str] = []  # tool_use ids that the next message has to answer
    before = ""
    for number, message in enumerate(messages):
        where, role, content = f"messages.{number}", message.get("role"), message.get("content")
        need(role in ("user", "assistant"), f"{where}: unknown role {role!r}")
        need(role != before or role == "assistant", f"{where}: roles must alternate")
        need(isinstance(content, list) and content, f"{where}: content must not be empty")
        assert isinstance(content, list)
        results = [block for block in content if block.get("type") == "tool_result"]
        answered = [block.get("tool_use_id") for block in results]
        need(sorted(answered) == sorted(waiting), f"{where}: tool_use {waiting} got tool_result {answered}")
        need(content[: len(results)] == results, f"{where}: tool_result blocks must come first")
        waiting = []
        for block in content:
            kind = block.get("type")
            if kind == "text":
                need(block.get("text", "").strip(), f"{where}: text must be non-empty")
            elif kind == "tool_result":
                need(role == "user" and isinstance(block.get("content"), str), f"{where}: bad tool_result")
            elif kind == "tool_use":
                need(role == "assistant" and isinstance(block.get("input"), dict), f"{where}: bad tool_use")
                waiting.append(block["id"])
            elif kind == "thinking":
                need(
                    block.get("signature") == sign(block["thinking"]),
                    f"{where}: invalid signature in thinking",
                )
            else:
                raise Invalid(f"{where}: unknown block {kind!r}")
        before = str(role)
    need(not waiting, f"tool_use {waiting} without tool_result")


def sign(thinking: str) -> str:
    return hashlib.sha256(thinking.encode()).hexdigest()


def job_key(body: Mapping[str, Any]) -> str:
    content = body["messages"][0]["content"]
    first = content if isinstance(content, str) else content[0].get("text", "")
    match = re.match(r"orchgit-job: (\S+)$", first.split("\n", 1)[0])
    need(match, "test server: the first line of the first message is not `orchgit-job: <key>`")
    assert match is not None
    return match[1]


def message_of(body: Mapping[str, Any], turn: Mapping[str, Any], number: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if turn.get("thinking"):
        content.append({"type": "thinking", "thinking": turn["thinking"], "signature": sign(turn["thinking"])})
    if turn.get("text"):
        content.append({"type": "text", "text": turn["text"]})
    for index, call in enumerate(turn.get("calls", [])):
        content.append(
            {
                "type": "tool_use",
                "id": f"toolu_{number}_{index}",
                "name": call["tool"],
                "input": call["input"],
            }
        )
    usage = {"input_tokens": len(json.dumps(body)) // 4, "output_tokens": len(json.dumps(content)) // 4 + 1}
    usage |= turn.get("usage", {})
    stop = turn.get("stop_reason", "tool_use" if turn.get("calls") else "end_turn")
    if usage["output_tokens"] > body["max_tokens"]:  # no service writes more than it may
        usage["output_tokens"], stop = body["max_tokens"], "max_tokens"
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            **usage,
        },
    }


def events_of(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream of a message, tool input in pieces that cut through escapes and numbers."""
    start_usage = {**message["usage"], "output_tokens": 1}
    yield {
        "type": "message_start",
        "message": {**message, "content": [], "stop_reason": None, "usage": start_usage},
    }
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        deltas: list[dict[str, Any]]
        if block["type"] == "tool_use":
            empty = {**block, "input": {}}
            text = json.dumps(block["input"])
            pieces = ["", *(text[at : at + 7] for at in range(0, len(text), 7))] if len(text) < 4000 else [text]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        elif block["type"] == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        else:
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in re.findall(r"\s*\S+\s*", block["text"])]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


class MessagesServer:
    """`with MessagesServer(book) as server: server.url, server.requests`."""

    handler: ClassVar[type[_Handler]]

    def __init__(
        self, book: Mapping[str, Any], *, port: int = 0, log: Path | None = None, key: str | None = None
    ) -> None:
        self.book = {"jobs": {}, "default": {}, **book}
        self.log, self.key = log, key
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []  # which header the key came in, not the key
        self.problems: list[str] = []  # every 400 of our own making; a test ends by looking at it
        self.played: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        server = self

        class Handler(self.handler):  # type: ignore[name-defined, misc] # one per server, with its owner
            owner = server

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def take(self, what: str, times: int) -> bool:
        """True the first `times` times."""
        with self.lock:
            self.played[what] += 1
            return self.played[what] <= times

    def keep(self, body: dict[str, Any]) -> None:
        with self.lock:
            self.requests.append(body)
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(json.dumps(body) + "\n")


class _Handler(BaseHTTPRequestHandler):
    owner: MessagesServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what matters is in `requests`."""

    def do_POST(self) -> None:
        owner = self.owner
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        key = self.headers.get("x-api-key") or bearer
        owner.authorizations.append("x-api-key" if self.headers.get("x-api-key") else "bearer" if bearer else "none")
        if not key or (owner.key is not None and key != owner.key):
            return self.fail(401, f"invalid x-api-key: {key}")  # the worst case: a service that echoes it
        if self.path.split("?")[0] != "/v1/messages":
            return self.fail(404, f"no such path: {self.path}")
        try:
            body = json.loads(raw)
            if isinstance(body, dict):
                owner.keep(body)
            check_request(body)
            found = job_key(body)
        except (ValueError, KeyError, Invalid) as error:
            owner.problems.append(str(error))
            return self.fail(400, str(error))
        if not body["model"].startswith("claude-"):
            return self.fail(404, f"model: {body['model']}")
        turns = turns_of(owner.book, found, found.split("/")[0])
        if turns is None:
            owner.problems.append(f"the playbook has no job {found}")
            return self.fail(400, f"the playbook has no job {found}")
        number = sum(message["role"] == "assistant" for message in body["messages"])
        turn = turns[number] if number < len(turns) else {}
        return self.play(body, turn, number, f"{found} {number}")

    def play(self, body: dict[str, Any], turn: Mapping[str, Any], number: int, what: str) -> None:
        owner = self.owner
        owner.closing.wait(turn.get("delay_ms", 0) / 1000)
        error: Mapping[str, Any] = turn.get("error", {"times": 0})
        failing = owner.take(f"error {what}", error.get("times", 1 << 30))
        if failing and not error.get("in_stream"):
            return self.fail(error["status"], error.get("message", "scripted error"), **headers_of(error))
        cut = turn.get("cut", {"times": 0})
        cut = {"times": 1} if cut is True else cut
        cutting = owner.take(f"cut {what}", cut.get("times", 1))
        message = message_of(body, turn, number)
        if not body.get("stream"):
            return self.reply(200, message)
        events = list(events_of(message))
        if cutting or failing:
            events = events[: max(3, len(events) // 2)]
        if failing:
            kind = ERROR_TYPES.get(error["status"], "api_error")
            events.append({"type": "error", "error": {"type": kind, "message": error.get("message", "scripted")}})
        return self.stream(events, cut=cutting and not cut.get("clean"))

    def stream(self, events: Sequence[Mapping[str, Any]], *, cut: bool = False) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            if cut:
                self.wfile.write(b"ff\r\nevent: content_bl")
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone away, as a stopped one does

    def fail(self, status: int, message: str, **headers: str) -> None:
        kind = ERROR_TYPES.get(status, "api_error")
        self.reply(status, {"type": "error", "error": {"type": kind, "message": message}}, **headers)

    def reply(self, status: int, body: Mapping[str, Any], **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("request-id", "req_test")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def headers_of(error: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(error[name]) for name in ("retry_after", "retry_after_ms", "x_should_retry") if name in error}


MessagesServer.handler = _Handler


def main() -> None:
    parser = argparse.ArgumentParser(description="A Messages API on loopback that plays a playbook.")
    parser.add_argument("--playbook", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    with MessagesServer(load_playbook(given.playbook), port=given.port, log=given.log) as server:
        print(server.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
