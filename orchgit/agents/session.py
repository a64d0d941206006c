"""What has been said between the loop and a model, and how it is put away and taken up again.

A worker that asks for more scope stops; what it has learned so far is its conversation. It is kept as a blob of the
run, so it is data of ours when it comes back, and still it is checked: a blob may have been changed on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchgit.agents import Usage

NOTHING = Usage()

Stop = Literal["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", "context"]


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Call:
    id: str
    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    id: str
    text: str
    ok: bool


@dataclass(frozen=True)
class UserTurn:
    """Results first, in the order of the calls, then words; the API wants it so."""

    blocks: tuple[Result | Text, ...]


@dataclass(frozen=True)
class Reply:
    """`raw`: what the service wants back verbatim (signed thinking included). `usage`: of this call alone."""

    blocks: tuple[Text | Call, ...]
    stop: Stop
    usage: Usage = NOTHING
    raw: tuple[Mapping[str, Any], ...] = ()
    detail: str = ""  # why, on a refusal

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Call))

    @property
    def text(self) -> str:
        return "\n".join(block.text for block in self.blocks if isinstance(block, Text))


Conversation = Sequence[UserTurn | Reply]


def dump(conversation: Conversation, turns: int, seen_tokens: int) -> bytes:
    """As JSON. `turns` and `seen_tokens` count on when it is taken up again."""
    said = [_turn(turn) for turn in conversation]
    return json.dumps({"turns": turns, "seen_tokens": seen_tokens, "conversation": said}, ensure_ascii=False).encode(
        "utf-8", "replace"
    )


def _turn(turn: UserTurn | Reply) -> dict[str, Any]:
    if isinstance(turn, UserTurn):
        return {"user": [_block(block) for block in turn.blocks]}
    blocks = [_block(block) for block in turn.blocks]
    return {"reply": blocks, "stop": turn.stop, "raw": [dict(block) for block in turn.raw]}


def _block(block: Text | Call | Result) -> dict[str, Any]:
    match block:
        case Text(text):
            return {"text": text}
        case Call(name_id, name, given):
            return {"call": name_id, "name": name, "input": dict(given)}
        case Result(name_id, text, ok):
            return {"result": name_id, "text": text, "ok": ok}


def load(data: bytes) -> tuple[list[UserTurn | Reply], int, int]:
    """(conversation, turns, seen tokens) of what `dump` wrote. Raises ValueError for anything else."""
    try:
        kept = json.loads(data)
        conversation: list[UserTurn | Reply] = []
        for turn in kept["conversation"]:
            if "user" in turn:
                conversation.append(UserTurn(tuple(_user_block(block) for block in turn["user"])))
            else:
                blocks = tuple(_reply_block(block) for block in turn["reply"])
                conversation.append(Reply(blocks, turn["stop"], raw=tuple(turn["raw"])))
        return conversation, int(kept["turns"]), int(kept["seen_tokens"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a session: {error!r}") from error


def _user_block(block: Mapping[str, Any]) -> Result | Text:
    return Result(block["result"], block["text"], block["ok"]) if "result" in block else Text(block["text"])


def _reply_block(block: Mapping[str, Any]) -> Text | Call:
    return Call(block["call"], block["name"], block["input"]) if "call" in block else Text(block["text"])
