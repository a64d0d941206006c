"""What a path pattern means: its text as components of tokens, and those as a Python `re` and a POSIX ERE.

A pattern means what git's wildmatch with WM_PATHNAME says of a whole path, byte by byte (`?` is one byte: `é` needs
two). The one addition is `dir/`, short for `dir/**`. A pattern without wildcards is one path, not the directory
below it. A token is the set of bytes of which one is read, or `STAR`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

Token = frozenset[int]
Component = tuple[Token, ...]

SLASH, DOT = 0x2F, 0x2E
BYTES = frozenset(range(1, 256))  # git can store every byte but NUL
NAME_BYTES = BYTES - {SLASH}
STAR: Token = frozenset()  # a class is never empty, so the empty set is free to mean `*`
DEEP: Component = ()  # nor is a component: `**`


class PatternError(ValueError):
    """Says what is wrong with a pattern, and what would be right."""


# ---- pattern text -> components


def check_pattern(pattern: str) -> None:
    """Raises PatternError unless `pattern` is in the grammar (design, section 7)."""
    parse(pattern)


def quote(path: str) -> str:
    """The pattern that names exactly `path`: `app/[id].ts` -> `app/[[]id].ts`."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


@lru_cache(maxsize=4096)
def parse(pattern: str) -> tuple[Component, ...]:
    if not pattern:
        raise PatternError("a pattern is empty; write a path such as src/api/** (** alone is the whole tree)")
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in pattern):
        raise PatternError(f"{pattern!a} has a control or invisible character; write visible characters only")
    if not unicodedata.is_normalized("NFC", pattern):
        nfc = unicodedata.normalize("NFC", pattern)
        raise PatternError(f"{pattern!a} is not in Unicode normal form C; write {nfc!a}")
    if "\\" in pattern:
        raise PatternError(f"{pattern}: no backslash; separate with '/', and write [*] [?] [[] for * ? [")
    if pattern[0] in "/:!":
        raise PatternError(f"{pattern}: must not begin with {pattern[0]!r}; write it relative to the repository")
    texts = (pattern + "**" if pattern.endswith("/") else pattern).split("/")
    components: list[Component] = []
    for text in texts:
        component = component_of(pattern, text)
        if not (component == DEEP and components and components[-1] == DEEP):  # **/** is **
            components.append(component)
    return tuple(components)


def component_of(pattern: str, text: str) -> Component:
    if not text:
        raise PatternError(f"{pattern}: empty component; write one '/' between names")
    if text == "**":
        return DEEP
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at] == "*":
            if tokens and tokens[-1] == STAR:
                raise PatternError(f"{pattern}: ** must be a whole component; write **/ before or /** after it")
            tokens.append(STAR)
        elif text[at] == "?":
            tokens.append(NAME_BYTES)
        elif text[at] == "[":
            chosen, at = _class(pattern, text, at)
            tokens.append(chosen)
        else:
            tokens.extend(frozenset((byte,)) for byte in text[at].encode())
        at += 1
    if literal(tuple(tokens)) in (b".", b".."):
        raise PatternError(f"{pattern}: no '.' or '..' component; write the path from the root of the repository")
    return tuple(tokens)


def _class(pattern: str, text: str, start: int) -> tuple[frozenset[int], int]:
    """The bytes of the class that opens at `start`, and where it closes."""
    at = start + 1
    negated = text[at : at + 1] in ("!", "^")
    first = at = at + negated
    chosen: set[int] = set()
    low = ""  # wildmatch: the end of a range does not begin another, so in [a-c-e] the second - is a plain one
    while at == first or text[at : at + 1] != "]":  # a ] that comes first is a plain one
        char, high = text[at : at + 1], text[at + 1 : at + 2]
        if not char:
            raise PatternError(f"{pattern}: [ is never closed in {text!r}; for the character itself write [[]")
        if char + high == "[:":
            raise PatternError(f"{pattern}: no [:name:] classes; write the characters, as in [a-z]")
        span = char == "-" and low != "" and high not in ("", "]")
        if not (high if span else char).isascii():
            raise PatternError(f"{pattern}: a class reads one byte, {high if span else char!r} is more; write *")
        if span and high < low:
            raise PatternError(f"{pattern}: the range {low}-{high} is empty; write {high}-{low}")
        chosen.update(range(ord(low), ord(high) + 1) if span else (ord(char),))
        low = "" if span else char
        at += 2 if span else 1
    return NAME_BYTES - chosen if negated else frozenset(chosen) & NAME_BYTES, at


def literal(component: Component) -> bytes | None:
    """The name a component is, if it can be only one. [[] is one byte: so a literal bracket is written."""
    one = component != DEEP and all(len(token) == 1 for token in component)
    return b"".join(map(bytes, component)) if one else None


def literal_path(pattern: str) -> bytes | None:
    names = [literal(component) for component in parse(pattern)]
    known = [name for name in names if name is not None]
    return b"/".join(known) if len(known) == len(names) else None


# ---- components -> Python re


def _regex_run(tokens: Iterable[Token]) -> bytes:
    out = b""
    for token in tokens:
        small = min(token, BYTES - token, key=len)
        out += b"[%s%s]" % (b"^" * (small != token), b"".join(b"\\x%02x" % byte for byte in sorted(small)))
    return out


def regex_component(component: Component) -> bytes:
    runs: list[list[Token]] = [[]]
    for token in component:
        if token == STAR:
            runs.append([])
        else:
            runs[-1].append(token)
    if len(runs) == 1:
        return _regex_run(runs[0])
    # Atomic: the first place where a run fits is as good as any later one, for a star follows. Without it
    # *a*a*a*a*b on a long name takes minutes, and a worker chooses the names.
    middle = b"".join(b"(?>[^/]*?%s)" % _regex_run(run) for run in runs[1:-1])
    return _regex_run(runs[0]) + middle + b"[^/]*" + _regex_run(runs[-1])


def regex(components: tuple[Component, ...]) -> bytes:
    stretches: list[list[bytes]] = [[]]
    for component in components:
        if component == DEEP:
            stretches.append([])
        else:
            stretches[-1].append(regex_component(component))
    first, *rest = [b"/".join(stretch) for stretch in stretches]
    if not rest:
        return first
    *middle, last = rest
    skipping = b"".join(b"(?>(?:[^/]+/)*?%s/)" % stretch for stretch in middle)  # atomic: as above
    return (first + b"/" if first else b"") + skipping + (b"(?:[^/]+/)*" + last if last else b".+")


def compile_any(sources: Iterable[bytes], flags: int = 0) -> re.Pattern[bytes]:
    joined = b"|".join(sources) or b"(?!)"
    # \Z, for $ also matches before a last newline.
    return re.compile(b"(?:" + joined + rb")\Z", re.DOTALL | flags)


# ---- components -> POSIX ERE, for grep -E in the C locale


def _ere_quote(text: bytes) -> bytes:
    return re.sub(rb"[.\[(){*+?|^$\\]", rb"\\\g<0>", text)


def _ere_token(token: Token) -> bytes:
    if token == STAR:
        return b"[^/]*"
    if len(token) == 1:
        return _ere_quote(bytes(token))
    negated = 0xFF in token  # what a class names is ASCII: the other bytes are all in, or all out
    named = (NAME_BYTES - token) | {SLASH} if negated else token
    # Where it stands decides what a character means: ] first, - last, ^ not first, [ not before . : =
    text = bytes(sorted(named, key=lambda byte: (byte != 0x5D, b"[^-".find(byte), byte)))
    if text[:1] == b"^":
        text = text[1:] + b"^"
    return b"[" + b"^" * negated + text + b"]"


def ere(components: tuple[Component, ...]) -> bytes:
    out = b""
    for at, component in enumerate(components, 1):
        last = at == len(components)
        if component == DEEP:
            out += b".+" if last else b"(.+/)?"
        else:
            out += b"".join(map(_ere_token, component)) + (b"" if last else b"/")
    return out


def ere_any(sources: Iterable[bytes]) -> str:
    # The empty ERE would match every line; no path is "/".
    return (b"^(" + (b"|".join(sources) or b"/") + b")$").decode()


def ere_caseless(component: Component) -> bytes:
    both = (token | frozenset(bytes(token).upper()) for token in component)
    return b"".join(map(_ere_token, both))
