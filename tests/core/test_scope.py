"""Scope: each rule by example, then as properties against answers found in another way (enumeration, ERE)."""

from __future__ import annotations

import re
import sys
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchgit.core import scope as scope_module
from orchgit.core.pattern import PatternError, check_pattern, quote
from orchgit.core.scope import (
    PROTECTED,
    PROTECTED_ERE,
    Root,
    Scope,
    _conflict,
    hook_rules,
    overlap,
    precision,
    protected,
    wildcard_claims_protected,
)


def scope(*allow: str, deny: tuple[str, ...] = ()) -> Scope:
    return Scope(allow, deny)


# ---- the grammar

BAD = {
    "": "empty",
    "/src": "must not begin with '/'",
    ":(glob)src": "must not begin with ':'",
    "!src": "must not begin with '!'",
    "/": "must not begin",
    "src//api": "empty component",
    "src/api//": "empty component",
    "src/./api": "'.' or '..'",
    "../x": "'.' or '..'",
    "a/[.][.]/x": "'.' or '..'",
    "src\\api": "no backslash",
    "src\n": "control or invisible",
    "src/\x7f": "control or invisible",
    "src/\u200bapi": "control or invisible",
    "src/\u202eapi": "control or invisible",
    "src/\udc80": "control or invisible",
    "cafe\u0301": "normal form C",
    "src**": "whole component",
    "src/**.py": "whole component",
    "a/***": "whole component",
    "[x]**": "whole component",
    "src/[ab": "never closed",
    "src/[]": "never closed",
    "src/[!]": "never closed",
    "src/[a/b]": "never closed",
    "[[:alpha:]]": "no [:name:] classes",
    "[z-a]": "write a-z",
    "[é]": "one byte",
    "[a-é]": "one byte",
}


@pytest.mark.parametrize("pattern", BAD)
def test_grammar_refuses(pattern: str) -> None:
    with pytest.raises(PatternError, match=re.escape(BAD[pattern])) as caught:
        check_pattern(pattern)
    str(caught.value).encode()  # printable, whatever was in the pattern
    with pytest.raises(PatternError):
        Scope((), (pattern,))


@pytest.mark.parametrize("pattern", ["a", "**", "a/**/b", "a/", "[]a]", "[!]]", "[a-c-e]", "café/?", "a b", "...", "]"])
def test_grammar_accepts(pattern: str) -> None:
    check_pattern(pattern)


# ---- matching

MATCHES: list[tuple[str, str, str]] = [  # pattern, paths that match, paths that do not
    ("a/b", "a/b", "a a/b/c a/B xa/b a/bb"),
    ("*.py", "a.py .py .x.py", "d/a.py a.pyc a.PY"),
    ("a/*", "a/b a/.b", "a/b/c a ba/b"),
    ("a?c", "abc a.c", "a/c ac abbc"),
    ("é?", "éx", "éé"),  # byte by byte
    ("**", "a a/b .a/b", ""),
    ("**/b", "b a/b a/a/b", "ab a/b/c"),
    ("a/**", "a/b a/b/c a/.b", "a ab b/a/c"),
    ("a/", "a/b a/b/c", "a ab"),
    ("a/**/b", "a/b a/x/b a/x/y/b", "ab a/xb a/b/c"),
    ("**/a/**/b/*c*d", "a/b/cd x/a/y/b/xcxcxdxd a/a/b/b/cd", "a/b/c/d b/cd a/cd a/b/cdx"),
    ("**/**/b/**/**", "b/c a/b/c/d", "b a/b"),
    ("[a-c-e]", "a c - e", "d ]"),
    ("[!a-c]x", "dx Ax", "ax x ./x"),
    ("[^^]", "a", "^"),
    ("[]-]", "] -", "a"),
    ("a[--0]b", "a-b a.b a0b", "a/b"),  # the range has / in it
    ("a[!x]b", "ayb", "a/b axb"),
    ("[[]id]/*.ts", "[id]/a.ts", "i/a.ts"),
    ("*a*b", "ab xaxb aabb", "ba abx"),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), MATCHES)
def test_matching(pattern: str, yes: str, no: str) -> None:
    for path in yes.split():
        assert scope(pattern).allows(path.encode()), path
        assert not scope("**", deny=(pattern,)).allows(path.encode()), path
    for path in no.split():
        assert not scope(pattern).allows(path.encode()), path


@pytest.mark.parametrize("path", [b"", b"/a", b"a/", b"a//b", b".", b"a/../b", b"./a", b"a\0b"])
def test_what_is_no_path_is_in_no_scope(path: bytes) -> None:
    assert scope("**", "*", "**/*", "a*").why_not(path) == "outside the scope"


def test_odd_bytes_are_bytes() -> None:
    for path in (b"a\n", b"a/\nb", b"a/\xff\xfe", b"a/b\n"):
        assert scope("a*", "a/**").allows(path)
    assert not scope("a").allows(b"a\n")  # `$` would let it through
    assert not scope("*.py").allows(b"a.py\n")


def test_why_not() -> None:
    it = scope("src/**", deny=("src/x/**", "**/*.key"))
    assert it.why_not(b"src/a") is None
    assert it.why_not(b"a") == "outside the scope"
    assert it.why_not(b"src/a.key") == "denied by **/*.key"
    assert it.why_not(b"src/Makefile") == "protected: name it literally to allow it"
    assert scope("a", deny=("a",)).why_not(b"a") == "denied by a"  # deny wins over a literal name
    assert not scope().allows(b"a")


def test_star_heavy_patterns_stay_linear() -> None:
    # Seconds, not years: backtracking would be of the degree of the number of stars.
    assert not scope("*a" * 30 + "b").allows(b"a" * 4000)
    assert not scope("**/a/" * 30 + "b").allows(b"a/" * 2000 + b"c")


# ---- protected paths


@pytest.mark.parametrize("name", PROTECTED)
def test_a_wildcard_never_grants_a_protected_path(name: str) -> None:
    real = name.replace("*", "x")
    for spelled in (real, real.upper(), real.title()):
        for path in (spelled, f"a/b/{spelled}", f"{spelled}/x", f"a/{spelled}/b/c"):
            assert protected(path.encode())
            assert scope("**", "**/*", f"{path[:-1]}?").why_not(path.encode()) == (
                "protected: name it literally to allow it"
            )
            assert scope("**", path).allows(path.encode())
            assert not scope("**", path).allows(f"z/{path}".encode())
    # Every character that folds to the same letters counts as them: macOS would open the same file.
    for odd in ODD_CASE:
        for at in range(len(real)):
            if real[at:].lower().startswith(odd.casefold()):
                assert protected((real[:at] + odd + real[at + len(odd.casefold()) :]).encode()), odd


ODD_CASE = [c for c in map(chr, range(128, sys.maxunicode + 1)) if c.casefold().isascii() and c.casefold().isalpha()]


@pytest.mark.parametrize(
    "path", ["src/a.py", "xMakefile", "Makefile.am", "a.pth.py", "src/git", "lock", "lefthook.xml"]
)
def test_not_protected(path: str) -> None:
    assert not protected(path.encode())
    assert scope("**").allows(path.encode())


CLAIMS = {
    ".github/**": ".git*",
    ".git?": ".git*",
    ".claude/*.md": ".claude",
    ".orchestration/": ".orchestration",
    "**/package.json": "package.json",
    "src/*/[Mm]akefile": "Makefile",
    "**/*.p[t]h": "*.pth",
    "a/.CLAUDE/*": ".claude",
    "[p]ackage.jso[nN]": "package.json",
    "**/confte\u017f?.py": None,
    "confte\u017ft.p[yY]": "conftest.py",
    "src/**": None,
    "**": None,
    ".g*": None,
    "**/conf*t.py": None,
    "package.jso?": None,
    "Makefile": None,
    "a/Makefile": None,
}


@pytest.mark.parametrize("pattern", CLAIMS)
def test_wildcard_claims_protected(pattern: str) -> None:
    assert wildcard_claims_protected(pattern) == CLAIMS[pattern]


# ---- roots


def test_roots() -> None:
    cases = {
        scope("app/api/**"): [Root("app/api", True)],
        scope("app/api/"): [Root("app/api", True)],
        scope("types/billing.ts"): [Root("types", False, "types/billing.ts")],
        scope("types/a.ts", "types/b.ts"): [Root("types", False)],
        scope("README.md"): [Root("", False, "README.md")],
        scope("*.md"): [Root("", False)],
        scope("**/*.test.ts"): [Root("", False)],
        scope("app/api/*.py"): [Root("app/api", False)],
        scope("src/*/handlers/**"): [Root("src", False)],
        scope("app/[[]id]/**"): [Root("app/[id]", True)],
        scope("**"): [Root("", True)],
        scope(): [],
        scope("b/**", "a/", "a/x/**", "a/y"): [Root("a", True), Root("b", True)],
        scope("a/x", "a/b/**"): [Root("a", False)],
        scope("a/*", "a/*/**"): [Root("a", True)],
        scope("a/**", "ab/**"): [Root("a", True), Root("ab", True)],
        scope("a/**", deny=("a/secret/**",)): [Root("a", False)],
        scope("a/**", "b/**", deny=("**/*.key", "c/x")): [Root("a", False), Root("b", False)],
        scope("a/**", deny=("c/x",)): [Root("a", True)],
    }
    for it, roots in cases.items():
        assert list(it.roots()) == roots, it


# ---- overlap, by example

OVERLAPS: list[tuple[Scope, Scope, bytes | None]] = [
    (scope("src/api/**"), scope("src/web/**"), None),
    (scope("src/**"), scope("src/api/x.py"), b"src/api/x.py"),
    (scope("src/**/*.test.ts"), scope("src/api/**"), b"src/api/.test.ts"),
    (scope("*.py"), scope("*.ts"), None),
    (scope("a/*.py"), scope("a/**/*.ts"), b"a/.py/.ts"),  # a directory may be called .py
    (scope("types"), scope("types/x.ts"), b"types/x.ts"),
    (scope("types/x.ts"), scope("types"), b"types/x.ts"),
    (scope("App/x"), scope("app/X"), b"App/x"),
    (scope("App"), scope("app/x"), b"app/x"),
    (scope("É"), scope("é"), None),  # the gate's rule on collisions
    (scope("src/**", deny=("src/api/**",)), scope("src/api/**"), b"src/api/a"),  # and src/API
    (
        scope("src/**", deny=("src/[aA][pP][iI]/**",)),
        scope("src/api/**"),
        b"src/api/a",
    ),  # and the file src/api
    (scope("src/**", deny=("src/[aA][pP][iI]/**", "src/[aA][pP][iI]")), scope("src/api/**"), None),
    (scope("a/??"), scope("a/[.]?"), b"a/.a"),
    (scope("a/*/x"), scope("a/[.]*/x"), b"a/.a/x"),
    (scope("**/package.json"), scope("**/*.json"), None),  # neither is granted any such file
    (scope("package.json"), scope("**"), None),
    (scope("package.json"), scope("**", "package.json"), b"package.json"),
    (scope("package.json"), scope("PACKAGE.JSON"), b"package.json"),
    (scope("Makefile"), scope("Makefile/x"), b"Makefile/x"),
    (scope(), scope("**"), None),
]


@pytest.mark.parametrize(("a", "b", "witness"), OVERLAPS)
def test_overlap(a: Scope, b: Scope, witness: bytes | None) -> None:
    assert overlap(a, b) == witness
    assert (overlap(b, a) is None) == (witness is None)


def test_overlap_raises_rather_than_guess() -> None:
    with pytest.raises(PatternError, match="too intricate"):
        overlap(scope("**", deny=("*a" + "?" * 18,)), scope("*a" + "?" * 18))


# ---- the same, for all patterns

LETTERS = "aA.b"
names = st.one_of(
    st.sampled_from(["a", "b", "A", "ab", ".a", "*", "**", "Makefile", ".pth"]),
    st.text("aA*?.b", min_size=1, max_size=3),
    st.sampled_from(["[ab]", "[!a]", "[!a.]*", "[]a]", "[+-/]", "[A-a]b", "*[ab]", "a[^b]", "[[]", "é*", "(+)", "a|b"]),
)


def is_pattern(text: str) -> bool:
    try:
        check_pattern(text)
    except PatternError:
        return False
    return True


patterns = (
    st.tuples(st.lists(names, min_size=1, max_size=3).map("/".join), st.sampled_from(["", "", "", "/"]))
    .map("".join)
    .filter(is_pattern)
)
scopes = st.builds(
    Scope, st.lists(patterns, min_size=1, max_size=2).map(tuple), st.lists(patterns, max_size=1).map(tuple)
)


@st.composite
def paths_for(draw: st.DrawFn, pattern: str) -> bytes:
    """A path, more often than not one that `pattern` matches."""
    text = st.text("aA.b-é]\\^", max_size=2)
    out: list[str] = []
    for name in (pattern + "**" if pattern.endswith("/") else pattern).split("/"):
        if name == "**":
            out += draw(st.lists(text, max_size=2))
        else:
            name = name.replace("[[]", "[").replace("*", draw(text)).replace("?", draw(st.sampled_from("aAb.")))
            out.append(re.sub(r"\[.[^]]*\]", lambda _: draw(st.sampled_from("aAb.-]\\+,")), name))
    if draw(st.integers(0, 4)) == 0:
        out.append(draw(text))
    if draw(st.integers(0, 6)) == 0:
        out = [draw(st.sampled_from([name, name.swapcase()])) for name in out]
    return "/".join(name for name in out if name not in ("", ".", "..")).encode()


@st.composite
def scope_and_path(draw: st.DrawFn) -> tuple[Scope, bytes]:
    it = draw(scopes)
    path = draw(paths_for(draw(st.sampled_from(it.allow + it.deny))))
    assume(path)
    return it, path


def fold_prefixes(path: bytes) -> list[bytes]:
    parts = path.lower().split(b"/")
    return [b"/".join(parts[:n]) for n in range(1, len(parts) + 1)]


def conflict(p: bytes, q: bytes) -> bool:
    return p.lower() in fold_prefixes(q) or q.lower() in fold_prefixes(p)


ALL_SHORT = [
    path
    for size in range(1, 6)
    for path in (bytes(t) for t in product(b"aA./", repeat=size))
    if not any(name in (b"", b".", b"..") for name in path.split(b"/"))
]


@settings(max_examples=150, deadline=None)
@given(scopes, scopes)
def test_overlap_finds_whatever_trying_every_short_path_finds(a: Scope, b: Scope) -> None:
    of_a = {path for path in ALL_SHORT if a.allows(path)}
    of_b = {path for path in ALL_SHORT if b.allows(path)}
    deeper: list[int] = []
    for mine, others in ((of_a, of_b), (of_b, of_a)):
        folded = {path.lower() for path in others}
        deeper += [len(path) for path in mine if not folded.isdisjoint(fold_prefixes(path))]
    witness = overlap(a, b)
    if deeper:
        assert witness is not None
        assert len(witness) <= min(deeper)


@settings(max_examples=200, deadline=None)
@given(scopes, scopes)
def test_the_short_way_answers_as_the_long_one(a: Scope, b: Scope) -> None:
    """Patterns whose first names differ are not compared; nothing may hang on that."""
    long = _conflict(a, b, guarded=False)
    if long is not None and protected(long):
        long = _conflict(a, b, guarded=True)
    short = overlap(a, b)
    assert (short is None, short and len(short)) == (long is None, long and len(long))


def test_a_large_plan_is_compared_without_walking_automata() -> None:
    """64 assignments are 2,016 pairs: names that differ in the beginning settle all of these."""
    many = [scope(f"pkg{n}/**", f"tests/pkg{n}/**", f"docs/{n}.md", deny=("**/*.key",)) for n in range(64)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scope_module, "_conflict", None)  # whoever calls it fails
        for at, a in enumerate(many):
            assert all(overlap(a, b) is None for b in many[at + 1 :])
    assert overlap(many[0], scope("PKG0/x")) == b"pkg0/x"
    assert overlap(scope("a/[b]/x"), scope("A/B/x")) == b"a/b/x"
    assert overlap(scope("a/b"), scope("a/b/c/d")) == b"a/b/c/d"
    assert overlap(scope("a/**/x"), scope("a/b/c")) == b"a/b/c/x"
    assert overlap(scope("É/x"), scope("é/x")) is None


@settings(max_examples=300, deadline=None)
@given(scopes, scopes)
def test_overlap_witness_is_one(a: Scope, b: Scope) -> None:
    witness = overlap(a, b)
    assert (witness is None) == (overlap(b, a) is None)
    if witness is not None:
        above = {b"/".join(v.split(b"/")[:n]) for v in case_variants(witness) for n in range(1, v.count(b"/") + 2)}
        assert any(it.allows(witness) and any(map(other.allows, above)) for it, other in ((a, b), (b, a)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_overlap_means_no_sampled_conflict(data: st.DataObject) -> None:
    a, b = data.draw(scopes), data.draw(scopes)
    assume(overlap(a, b) is None)
    of_a = [data.draw(paths_for(pattern)) for pattern in a.allow]
    of_b = [data.draw(paths_for(pattern)) for pattern in b.allow]
    for p, q in product(filter(a.allows, of_a + of_b), filter(b.allows, of_a + of_b)):
        assert not conflict(p, q)


def case_variants(path: bytes) -> list[bytes]:
    return [bytes(spelled) for spelled in product(*({byte, bytes((byte,)).swapcase()[0]} for byte in path))]


@settings(max_examples=300, deadline=None)
@given(scope_and_path())
def test_regex_and_automaton_agree(case: tuple[Scope, bytes]) -> None:
    it, path = case
    assume(len(path) <= 12 and is_pattern(quote(path.decode())))
    parts = path.split(b"/")
    at_or_above = [v for n in range(len(parts)) for v in case_variants(b"/".join(parts[: n + 1]))]
    witness = overlap(it, scope(quote(path.decode())))
    assert (witness is not None and len(witness) == len(path)) == any(map(it.allows, at_or_above))


@settings(max_examples=300, deadline=None)
@given(scope_and_path())
def test_roots_cover_the_scope_and_exact_ones_no_more(case: tuple[Scope, bytes]) -> None:
    it, path = case
    roots = it.roots()
    over = [root for root in roots if root.path == "" or path.startswith(root.path.encode() + b"/")]
    if it.allows(path):
        assert len(over) == 1
    if over and over[0].exact and not protected(path):
        assert it.allows(path)
    if len(over) == 1 and over[0].file is not None:
        assert it.allows(path) <= (over[0].file.encode() == path)


def as_python(ere: str) -> re.Pattern[bytes]:
    """An ERE as `re`: in a bracket, POSIX takes a backslash as it is."""
    bracket = re.compile(rb"(\\.)|\[(\^?)(\]?[^]]*)\]", re.DOTALL)
    return re.compile(
        bracket.sub(lambda m: m[1] or b"[" + m[2] + re.sub(rb"[\\\[\]^]", rb"\\\g<0>", m[3]) + b"]", ere.encode())
    )


def hook_allows(it: Scope, path: bytes) -> bool:
    """What a hook does with the rules, on a path without a newline."""
    rules = hook_rules(it)
    allow, deny, guard = map(as_python, (rules.allow, rules.deny, rules.protected))
    named = path.decode(errors="replace") in rules.literals
    return bool(allow.search(path) and not deny.search(path) and (not guard.search(path) or named))


@settings(max_examples=400, deadline=None)
@given(scope_and_path())
def test_hook_rules_agree(case: tuple[Scope, bytes]) -> None:
    it, path = case
    assert hook_allows(it, path) == it.allows(path)


def test_hook_rules_by_example() -> None:
    rules = hook_rules(scope("src/**", "a/*.py", "[[]x]/Makefile", deny=("src/a?",)))
    assert rules.allow == r"^(src/.+|a/[^/]*\.py|\[x]/Makefile)$"
    assert rules.deny == "^(src/a[^/])$"
    assert rules.literals == ("[x]/Makefile",)
    assert rules.protected == PROTECTED_ERE
    # In a POSIX bracket the place of a character decides what it means: ] first, - last, ^ not first.
    brackets = {"[-^]": "[-^]", "[!-^]": "[^/^-]", "[a^[-]": "[a[^-]", "[]x-]": "[]x-]", "[!]]": "[^]/]"}
    for pattern, ere in brackets.items():
        assert hook_rules(scope(pattern)).allow == f"^({ere})$"
    assert hook_rules(scope()).allow == hook_rules(scope()).deny == "^(/)$"


def test_precision_counts_what_a_sandbox_by_directories_cannot_tell_apart() -> None:
    files = [b"src/a.py", b"src/b.ts", b"src/sub/c.py", b"docs/d.md", b"top.md"]
    assert precision(Scope(("src/**",)), files) == (3, 3)
    assert precision(Scope(("src/*.py",)), files) == (1, 3)
    assert precision(Scope(("**/*.md",)), files) == (2, 5)
    assert precision(Scope(("src/**",), ("src/sub/**",)), files) == (2, 3)
    assert precision(Scope(("new/**",)), files) == (0, 0)
