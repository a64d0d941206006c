"""Keeping a conversation within the model's window: what tools said a while ago goes first, then all but what was done.

Pure. Done here and not by the service (`clear_tool_uses`, `compaction`: betas), so that it works the same with every
model and behind every gateway, and the transcript says what the model was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchgit.agents.session import Conversation, Reply, Result, Text, UserTurn

KEPT_TURNS = 4  # of the user, at the end, whose results stay
WORTH = 400  # characters: a shorter result is not worth taking out
TOLD_CALLS = 60
TOLD_CHARS = 12_000


def tokens(text: str) -> int:
    """At most so many, for a budget: two bytes to a token, and one where it is not ASCII."""
    data = text.encode("utf-8", "replace")
    plain = sum(byte < 128 for byte in data) if not text.isascii() else len(data)
    return plain // 2 + (len(data) - plain)


def cleared(conversation: Conversation, keep: int = KEPT_TURNS) -> tuple[list[UserTurn | Reply], int]:
    """Without what tools said before the last `keep` turns of the user; and how many tokens that frees, at least."""
    places = [i for i, turn in enumerate(conversation) if isinstance(turn, UserTurn)]
    old = set(places[: max(0, len(places) - keep)])
    freed = 0
    out: list[UserTurn | Reply] = []
    for number, turn in enumerate(conversation):
        if number in old and isinstance(turn, UserTurn):
            blocks: list[Result | Text] = []
            for block in turn.blocks:
                if isinstance(block, Result) and len(block.text) > WORTH:
                    words = (
                        f"[{len(block.text)} characters, taken out to save room; call the tool again if you need it]"
                    )
                    freed += (len(block.text) - len(words)) // 4
                    block = replace(block, text=words)
                blocks.append(block)
            turn = UserTurn(tuple(blocks))
        out.append(turn)
    return out, freed


def retold(conversation: Conversation, brief: str) -> str:
    """The brief again, and what was done so far: its own words, and its calls in a line each."""
    lines: list[str] = []
    for turn in conversation:
        if not isinstance(turn, Reply):
            continue
        if turn.text:
            lines.append(_short(turn.text, 600))
        for call in turn.calls:
            about = ", ".join(f"{key}={_short(str(value), 120)}" for key, value in call.input.items())
            lines.append(f"called {call.name}({about})")
    told = _latest(lines)
    return (
        f"{brief}\n\n# You go on from here\n\nYou have worked on this before, until your context window was full. What "
        "you said and did, the oldest first, is listed below; what tools answered is not there any more. All that you "
        f"wrote is in your working tree: look at it before you go on.\n\n{told}"
    )


def _latest(lines: Sequence[str]) -> str:
    kept: list[str] = []
    room = TOLD_CHARS
    for line in reversed(lines[-TOLD_CALLS:]):
        room -= len(line) + 3
        if room < 0:
            break
        kept.append(f"- {line}")
    left = len(lines) - len(kept)
    return "\n".join([*([f"- (and {left} steps before)"] if left else []), *reversed(kept)])


def _short(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
