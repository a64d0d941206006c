"""Somebody else's words in Markdown, on a forge, where nothing in them may mean anything."""

from __future__ import annotations

import re
import unicodedata

MAX_LINE = 300
# Also the colon of a link, and the hyphen of GH-12, which names an issue as #12 does.
_MEANS = re.compile(r"[&<>@#|`*_\[\]~\\!]|(?<=\w):(?=//)|(?<=[Gg][Hh])-(?=\d)")
# Persons and issues are looked for after Markdown, in what an entity stands for: nothing may follow these at once.
_CALLS = "@#:-"
_ZERO_WIDTH_SPACE = "&#8203;"


def visible(text: str) -> str:
    """Without control and format characters: right-to-left marks and the like hide what a line says."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else "\ufffd"
        for c in text
    )


def plain(text: str, width: int = MAX_LINE) -> str:
    """On one line, and nothing in it means anything: entities are shown as what they stand for."""
    words = " ".join(visible(text).split())
    words = words if len(words) <= width else words[: width - 1] + "…"
    return _MEANS.sub(lambda found: f"&#{ord(found[0])};" + _ZERO_WIDTH_SPACE * (found[0] in _CALLS), words)
