"""What a call costs, in micro-dollars, by a table with a date on it.

Source: Claude Code 2.1.330's own list prices and genai-prices 0.2.3, compared on 2026-11-22; they agreed.
Prices are list prices, not an invoice. A model that is not here has an unknown price: `None`, never zero.
Cache reads are not a fixed share of the input price (5 % for the 5-5 models, 2.5 % for fable-5-2), so no
ratio is computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchgit.agents import Usage

AS_OF = "2026-11-22"
MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Micro-dollars per million tokens. Cache writes are the five-minute kind; the loop makes no other."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    # From this many tokens of input on (cached ones included), the whole request has the other price.
    beyond: tuple[int, Price] | None = None

    def tier(self, input_tokens: int) -> Price:
        return self.beyond[1] if self.beyond is not None and input_tokens > self.beyond[0] else self

    def cost_micro(self, usage: Usage) -> int:
        """Of one call, rounded up. Not of several added up: the tier goes by the single request."""
        price = self.tier(usage.input + usage.cache_read + usage.cache_write)
        total = (
            usage.input * price.input
            + usage.output * price.output
            + usage.cache_read * price.cache_read
            + usage.cache_write * price.cache_write
        )
        return -(-total // MILLION)

    def most_micro(self, input_tokens: int, output: int) -> int:
        """What a call can cost at most: nothing of its input in the cache, all of it written there."""
        price = self.tier(input_tokens)
        total = input_tokens * max(price.input, price.cache_write) + output * price.output
        return -(-total // MILLION)

    def output_for(self, micro: int, input_tokens: int) -> int | None:
        """The most output of a call that may cost so much at most; None where output costs nothing."""
        price = self.tier(input_tokens)
        left = micro * MILLION - input_tokens * max(price.input, price.cache_write)
        if not price.output:
            return None if left >= 0 else -1
        return left // price.output


FREE = Price(0, 0, 0, 0)

_FABLE_5_2 = Price(8_000_000, 40_000_000, 200_000, 10_000_000)
_FABLE_5_1 = Price(10_000_000, 50_000_000, 250_000, 12_500_000)
_FABLE_5 = Price(10_000_000, 50_000_000, 1_000_000, 12_500_000)
_OPUS = Price(5_000_000, 25_000_000, 500_000, 6_250_000)
_SONNET_4 = Price(3_000_000, 15_000_000, 300_000, 3_750_000)
# The write price above 100k is in neither source; everywhere else in them it is 1.25 times the input price.
_HAIKU_5_5_LONG = Price(500_000, 2_500_000, 50_000, 625_000)

TABLE: dict[str, Price] = {
    "claude-fable-5-2": _FABLE_5_2,
    "claude-mythos-5-2": _FABLE_5_2,
    "claude-fable-5-1": _FABLE_5_1,
    "claude-mythos-5-1": _FABLE_5_1,
    "claude-fable-5": _FABLE_5,
    "claude-mythos-5": _FABLE_5,
    "claude-opus-5-5": Price(4_000_000, 20_000_000, 200_000, 5_000_000),
    "claude-opus-5": _OPUS,
    "claude-opus-4-8": _OPUS,
    "claude-opus-4-7": _OPUS,
    "claude-opus-4-6": _OPUS,
    "claude-opus-4-5": _OPUS,
    "claude-sonnet-5-5": Price(2_000_000, 10_000_000, 100_000, 2_500_000),
    "claude-sonnet-5": Price(2_000_000, 10_000_000, 200_000, 2_500_000),
    "claude-sonnet-4-6": _SONNET_4,
    "claude-sonnet-4-5": _SONNET_4,
    "claude-haiku-5-5": Price(100_000, 500_000, 10_000, 125_000, (100_000, _HAIKU_5_5_LONG)),
    "claude-haiku-4-5": Price(1_000_000, 5_000_000, 100_000, 1_250_000),
}


def price_of(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """By exact name, or without a date (`claude-haiku-4-5-20251001`). None: unknown."""
    for name in (model, re.sub(r"-20\d{6}$", "", model)):
        for table in (overrides or {}, TABLE):
            if name in table:
                return table[name]
    return None


def cost_micro(model: str, usage: Usage, overrides: Mapping[str, Price] | None = None) -> int | None:
    """Of one call. None: the price is unknown."""
    price = price_of(model, overrides)
    return None if price is None else price.cost_micro(usage)


def parse_overrides(text: str) -> dict[str, Price]:
    """From `{"my-model": {"input": 2000000, "output": 1, "cache_read": 1, "cache_write": 1}}`; ValueError."""
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("prices must be an object: model name -> prices")
    out = {}
    for model, row in given.items():
        names = ("input", "output", "cache_read", "cache_write")
        if not isinstance(row, dict) or set(row) != set(names):
            raise ValueError(f"the price of {model} needs exactly {', '.join(names)}")
        if any(type(row[name]) is not int or row[name] < 0 for name in names):
            raise ValueError(f"the price of {model} must be whole micro-dollars per million tokens")
        out[model] = Price(**row)
    return out
