"""The `anthropic` backend: the bare loop over the Messages API. Runs outside the sandbox, with the key.

The key comes from this process's environment (ANTHROPIC_API_KEY, else ANTHROPIC_AUTH_TOKEN;
ANTHROPIC_BASE_URL for a gateway) and must never reach a transcript, a message or a child. `import anthropic`
takes 1.5 s, so it is inside functions. Only the small, old part of the SDK is used: its majors come fast, and
its tool runner keeps the conversation on the server by default, where a gateway that ignores the field loses
it silently; its retries sleep for as long as a server says, an hour if it says so, where nobody sees it: ours do not.

Options, all strings, for gateways and models that differ: `thinking` adaptive|off, `effort` (not sent unless
given), `cache` on|off, `strict` on|off, `max_tokens`, `long_context` (tokens), `auth` bearer|x-api-key,
`prices` (JSON, see prices.py).
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchgit.agents import Cost, Job, Needs, Outcome, Probe, Usage, prices
from orchgit.agents.loop import NO_CALL, Allowance, Busy, Interrupted, ModelFailure, StreamBroken, Tool, run_loop
from orchgit.agents.session import Call, Conversation, Reply, Result, Stop, Text, UserTurn

if TYPE_CHECKING:
    import anthropic

DEFAULT_MODEL = "claude-sonnet-5-5"
MAX_OUTPUT = 32_000
LONG_CONTEXT = 100_000  # tokens of a request
LIMITING = (429, 503, 529)
READ_TIMEOUT_S = 300.0  # between two pieces of a stream; the service sends pings in between
CACHED = {"type": "ephemeral"}
LOOK_BACK = 20  # blocks before a mark among which the service looks for what it has cached
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
KEY_HINT = "export ANTHROPIC_API_KEY=... (or ANTHROPIC_AUTH_TOKEN), then: orchgit agents"
STOPS: dict[str, Stop] = {
    "end_turn": "end_turn",
    "stop_sequence": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "pause_turn": "pause_turn",
    "model_context_window_exceeded": "context",
}


class AnthropicBackend:
    name = "anthropic"
    default_model = DEFAULT_MODEL
    cost: Cost = "table"

    def probe(self, options: Mapping[str, str]) -> Probe:
        """Looks, without importing the SDK or calling anything: a key that is there may still be refused."""
        if importlib.util.find_spec("anthropic") is None:
            return Probe(False, "the anthropic package is not installed", "pip install 'anthropic>=2,<3'")
        name = next((name for name in KEYS if os.environ.get(name)), None)
        if name is None:
            return Probe(False, "no key: neither ANTHROPIC_API_KEY nor ANTHROPIC_AUTH_TOKEN is set", KEY_HINT)
        where = " by ANTHROPIC_BASE_URL" if os.environ.get("ANTHROPIC_BASE_URL") else ""
        return Probe(True, f"key from {name}{where}")

    def needs(self, options: Mapping[str, str]) -> Needs:
        return Needs()

    def run(self, job: Job) -> Outcome:
        name = next((name for name in KEYS if os.environ.get(name)), None)
        if name is None:
            return Outcome("auth", None, "no key for the Anthropic API", KEY_HINT, NO_CALL)
        if importlib.util.find_spec("anthropic") is None:
            hint = "pip install 'anthropic>=2,<3'"
            return Outcome("unavailable", None, "the anthropic package is not installed", hint, NO_CALL)
        job = replace(job, model=job.model or DEFAULT_MODEL)
        hide = _Hider([os.environ[key] for key in KEYS if os.environ.get(key)])
        try:
            model = ApiModel(job, name)
        except ValueError as error:
            return Outcome("error", None, f"options of the anthropic backend: {error}", usage=NO_CALL)
        try:
            record = job.record
            outcome = run_loop(replace(job, record=lambda entry: record(hide.all(entry))), model)
        finally:
            model.close()
        return replace(outcome, message=hide.text(outcome.message))


class _Hider:
    """The service may echo a key in an error, and a misled agent may be shown one; it is not written down."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self.secrets = [secret for secret in secrets if len(secret) >= 8]

    def text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        return text

    def all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.all(item) for key, item in value.items()}
        return [self.all(item) for item in value] if isinstance(value, list | tuple) else value


class ApiModel:
    """The `Model` of loop.py. One per job."""

    def __init__(self, job: Job, key_name: str) -> None:
        import anthropic

        options = job.options
        self.max_output = int(options.get("max_tokens", MAX_OUTPUT))
        self.long_context = int(options.get("long_context", LONG_CONTEXT))
        overrides = prices.parse_overrides(options["prices"]) if "prices" in options else None
        self.price = prices.price_of(job.model, overrides)
        key = os.environ[key_name]
        headers = {"x-api-key": key} if options.get("auth") == "x-api-key" else None
        # Given explicitly, so that profiles on disk and workload identities play no part.
        self.client = anthropic.Anthropic(
            api_key=key if key_name == "ANTHROPIC_API_KEY" else None,
            auth_token=key if key_name == "ANTHROPIC_AUTH_TOKEN" else None,
            max_retries=0,
            timeout=anthropic.Timeout(60.0, connect=10.0, read=READ_TIMEOUT_S),
            default_headers=headers,
        )

    def close(self) -> None:
        self.client.close()

    def reply(self, conversation: Conversation, tools: Sequence[Tool], job: Job, allowance: Allowance) -> Reply:
        call = _Stream(self.client, _request(conversation, tools, job, allowance))
        # A blocked read cannot be woken from outside, and the SDK's waits between retries neither: so the
        # call has a thread, which is left behind when nobody wants the reply any more.
        thread = threading.Thread(target=call.run, name=f"anthropic {job.key}", daemon=True)
        thread.start()
        while not call.over.wait(0.05):
            if allowance.over():
                call.abandoned = True
                raise Interrupted(call.partial)
        if call.failure is not None:
            raise call.failure
        if call.message is None:
            raise ModelFailure("error", "the call ended in a fault of ours; its trace is on stderr", usage=None)
        return _reply(call.message)


class _Stream:
    """One call, in a thread of its own. `partial` is what it has cost as far as the service has said."""

    def __init__(self, client: anthropic.Anthropic, request: Mapping[str, Any]) -> None:
        self.client, self.request = client, request
        self.over = threading.Event()
        self.abandoned = False
        self.partial: Usage | None = None
        self.message: Any = None
        self.failure: ModelFailure | Busy | StreamBroken | None = None

    def run(self) -> None:
        import anthropic
        import httpx2

        try:
            with self.client.messages.stream(**self.request) as stream:
                received = 0
                for event in stream:
                    if self.abandoned:
                        return
                    if event.type == "message_start":
                        self.partial = _usage(event.message.usage)
                    elif event.type == "content_block_delta" and self.partial is not None:
                        # The count comes with the end of the stream. Should that never come, this is near
                        # enough.
                        received += sum(len(text) for text in event.delta.to_dict().values() if isinstance(text, str))
                        self.partial = replace(self.partial, output=received // 3)
                message = stream.get_final_message()
            if message.stop_reason is None:
                # A proxy that closes cleanly in the middle: no error, and no end either.
                self.failure = StreamBroken("the stream ended before the reply did", self.partial)
            else:
                self.message = message
        except anthropic.APIStatusError as error:
            self.failure = self._status(error)
        except anthropic.APITimeoutError as error:
            self.failure = ModelFailure("unavailable", f"the service did not answer: {error}", usage=None)
        except anthropic.APIConnectionError as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            hint = "check the network, and ANTHROPIC_BASE_URL if it is set"
            self.failure = Busy("unavailable", f"the service cannot be reached: {error}{cause}", hint)
        except (httpx2.HTTPError, anthropic.AnthropicError, ValueError) as error:
            # Raw errors of the HTTP library come out of a stream that broke; ValueError is tool input that is
            # not JSON. Whatever came so far is lost, and nothing of it was run.
            self.failure = StreamBroken(f"{type(error).__name__}: {error}"[:300], self.partial)
        finally:
            self.over.set()

    def _status(self, error: anthropic.APIStatusError) -> ModelFailure | Busy | StreamBroken:
        status, words = error.status_code, error.api_message or str(error)
        said = f"{words} (HTTP {status}{', ' + error.request_id if error.request_id else ''})"
        if status < 400:  # an error event inside a stream that had begun well
            return StreamBroken(words, self.partial)
        if status in (401, 403):
            return ModelFailure("auth", f"the key was refused: {said}", KEY_HINT)
        if status == 402 or "credit balance" in words:
            return ModelFailure("unavailable", said, "see the billing page of the account the key belongs to")
        if status == 404:
            model = self.request["model"]
            return ModelFailure("unavailable", f"no such model or address: {said}", f"set another model than {model}")
        # There is no code for it; the words have been these for years.
        if status == 413 or (status == 400 and ("prompt is too long" in words or "context" in words)):
            return ModelFailure("context", said, "give the worker a smaller assignment")
        after_s = _retry_after_s(error.response.headers)
        if status in LIMITING and (after_s is not None or error.response.headers.get("x-should-retry") != "false"):
            return Busy("limited", said, "", after_s)
        if status in (408, 409) or status >= 500:
            return Busy("unavailable", said, "try again later: orchgit resume", after_s)
        if status == 429:
            return ModelFailure("unavailable", said, "see the limits of the account the key belongs to")
        hint = 'for this model or gateway, try thinking = "off" in the options' if "thinking" in words else ""
        return ModelFailure("error", said, hint)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the service asks for: milliseconds, seconds or a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        said = headers.get("retry-after", "")
        if re.fullmatch(r"[0-9.]+", said):
            return float(said)
        from email.utils import parsedate_to_datetime

        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time()) if said else None
    except ValueError:
        return None


def _request(conversation: Conversation, tools: Sequence[Tool], job: Job, allowance: Allowance) -> dict[str, Any]:
    options = job.options
    strict = {} if options.get("strict") == "off" else {"strict": True}
    messages = [_message(turn) for turn in conversation]
    system = {"type": "text", "text": job.system}
    if options.get("cache") != "off":
        _mark(system, messages)
    request: dict[str, Any] = {
        "model": job.model,
        "max_tokens": allowance.output,
        "system": [system],
        "messages": messages,
        "tools": [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": strict_schema(tool.schema) if tool.result and strict else dict(tool.schema),
                **(strict if tool.result else {}),
            }
            for tool in tools
        ],
    }
    if options.get("thinking") != "off":
        request["thinking"] = {"type": "adaptive"}
    if "effort" in options:
        request["output_config"] = {"effort": options["effort"]}
    if options.get("cache") != "off":
        request["cache_control"] = CACHED
    return request


def _mark(system: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    """Beside the top-level mark, which moves with the last block: one after tools and system, which the next job of
    the same kind has in common with this one; and one where the request before ended, where that would not be found.
    """
    system["cache_control"] = CACHED
    new = sum(len(message["content"]) for message in messages[-2:])
    if len(messages) > 2 and new >= LOOK_BACK and messages[-3]["role"] == "user":
        messages[-3]["content"][-1]["cache_control"] = CACHED


_KEPT = ("type", "enum", "const", "format", "required", "$ref")
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The part of JSON Schema that strict tools take.

    What they do not take (minLength, pattern, default, ...) goes into the description, so that the model may
    keep to it; the tool's `parse` is what checks it. Objects are closed: a free-form mapping cannot be
    expressed, and comes out as an object without properties.
    """
    if "$ref" in schema and "$defs" not in schema:
        return {"$ref": schema["$ref"]}  # nothing may stand beside a reference
    out: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # names, not keywords: a property may well be called "title"
            out[key] = {name: strict_schema(sub) for name, sub in value.items()}
        elif key in ("anyOf", "oneOf", "allOf"):
            out["allOf" if key == "allOf" else "anyOf"] = [strict_schema(sub) for sub in value]
        elif key == "items" and isinstance(value, Mapping):
            out[key] = strict_schema(value)
        elif (key in _KEPT and (key != "format" or value in _FORMATS)) or (key == "minItems" and value in (0, 1)):
            out[key] = value
        elif key not in ("title", "description", "additionalProperties", "$schema"):
            extra[key] = value
    if schema.get("type") == "object":
        out.setdefault("properties", {})
        out["additionalProperties"] = False
    words = [schema["description"]] if "description" in schema else []
    if extra:
        words.append("{" + ", ".join(f"{key}: {value}" for key, value in extra.items()) + "}")
    return {**out, "description": " ".join(words)} if words else out


def _message(turn: UserTurn | Reply) -> dict[str, Any]:
    if isinstance(turn, Reply):
        return {"role": "assistant", "content": [dict(block) for block in turn.raw]}
    blocks: list[dict[str, Any]] = []
    for block in turn.blocks:
        if isinstance(block, Result):
            text = block.text or "[no output]"
            blocks.append({"type": "tool_result", "tool_use_id": block.id, "content": text, "is_error": not block.ok})
        else:
            blocks.append({"type": "text", "text": block.text})
    return {"role": "user", "content": blocks}


def _usage(usage: Any) -> Usage:
    """A gateway may leave fields out; what it does not count is counted as nothing."""
    return Usage(
        1,
        usage.input_tokens or 0,
        usage.output_tokens or 0,
        getattr(usage, "cache_read_input_tokens", None) or 0,
        getattr(usage, "cache_creation_input_tokens", None) or 0,
    )


def _reply(message: Any) -> Reply:
    stop = STOPS.get(message.stop_reason)
    if stop is None:
        # Whatever it means, running its calls is not safe to assume.
        raise ModelFailure("error", f"unknown stop reason {message.stop_reason!r}", usage=_usage(message.usage))
    blocks: list[Text | Call] = []
    raw: list[Mapping[str, Any]] = []
    for block in message.content:
        if block.type == "text" and not block.text:
            continue  # the API produces empty text, and refuses to have it back
        if block.type == "thinking" and not block.signature:
            continue  # cut off before its signature; it would be refused
        if block.type == "text":
            blocks.append(Text(block.text))
        elif block.type == "tool_use":
            given = block.input if isinstance(block.input, Mapping) else {}
            blocks.append(Call(block.id, block.name, given))
            raw.append({"type": "tool_use", "id": block.id, "name": block.name, "input": given})
            continue
        raw.append(block.to_dict())
    raw = raw or [{"type": "text", "text": "[empty reply]"}]  # a turn without content is refused as well
    details = getattr(message, "stop_details", None)
    detail = getattr(details, "explanation", None) or ""
    return Reply(tuple(blocks), stop, _usage(message.usage), tuple(raw), detail)
