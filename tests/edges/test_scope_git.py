"""Scope against the two programs it claims to agree with: git's wildmatch, and grep in the C locale.

The oracle for wildmatch is attributes, asked with `check-attr`: attr.c calls wildmatch() with WM_PATHNAME, and
nowhere else does git offer that bare of other rules (`for-each-ref` takes a pattern for a prefix too, and knows only
names of refs; ignore rules and pathspecs match directories). A line `/PATTERN name` in info/attributes is matched
against the whole path, and (unlike ignore rules) not against the directories above it; (unlike pathspecs) a
directory that is called like the pattern is no match. Git first compares the pattern up to its first wildcard
as plain text, which is the same for every pattern in our grammar (`**` is a whole component).
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchgit.core.pattern import PatternError, check_pattern
from orchgit.core.scope import Scope, hook_rules

ENV = {
    "PATH": os.environ["PATH"],
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
}
PIECES = [
    *"aabbAB.-_]^!+(){}|$é ",
    "*",
    "*",
    "?",
    "[ab]",
    "[!a]",
    "[^a-c]",
    "[]a]",
    "[a-]",
    "[--0]",
    "[A-a]",
    "[a-c-e]",
]
PIECES += ["[!]-]", "[[]", "[*?]", "[^^-]", "[,-:]", "[.]", "[ -~]", "[!!-.]", "[-^]"]
BYTES = [*"aabbABc.-_]^!+(){}|$é \\[*?0", "\n", "\t", "\udcff"]


def run(*argv: str, stdin: bytes, cwd: Path) -> bytes:
    return subprocess.run(argv, input=stdin, cwd=cwd, env=ENV, capture_output=True, check=True).stdout


def a_pattern(rng: random.Random) -> str:
    while True:
        names = [
            "**" if rng.random() < 0.3 else "".join(rng.choices(PIECES, k=rng.randint(1, 4)))
            for _ in range(rng.randint(1, 4))
        ]
        pattern = "/".join(names) + rng.choice(["", "", "", "/"])
        try:
            check_pattern(pattern)
        except PatternError:
            continue
        return pattern


def a_path(rng: random.Random, pattern: str) -> bytes:
    """Made after the pattern, and then often spoilt a little."""
    out: list[str] = []
    for name in (pattern + "**" if pattern.endswith("/") else pattern).split("/"):
        if name == "**":
            out += ["".join(rng.choices(BYTES, k=rng.randint(1, 2))) for _ in range(rng.randint(0, 3))]
            continue
        text, at = "", 0
        while at < len(name):
            if name[at] == "[":
                end = name.index("]", at + 2 + (name[at + 1] in "!^"))
                text += rng.choice([*name[at + 1 : end] * 3, *BYTES])
                at = end
            else:
                text += {"*": "".join(rng.choices(BYTES, k=rng.randint(0, 3))), "?": rng.choice(BYTES)}.get(
                    name[at], name[at]
                )
            at += 1
        out.append(text)
    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
        at = rng.randrange(len(out)) if out else 0
        out[at : at + 1] = rng.choice([[], ["a"], ["b", *out[at : at + 1]], [*out[at : at + 1], "c"]])
    path = "/".join(out).encode(errors="surrogateescape").replace(b"\0", b"")
    parts = [name for name in path.split(b"/") if name not in (b"", b".", b"..") and name.lower() != b".git"]
    return b"/".join(parts) or b"a"


def a_batch(seed: int, size: int) -> tuple[list[str], list[bytes]]:
    rng = random.Random(seed)
    patterns = [a_pattern(rng) for _ in range(size)]
    return patterns, sorted({a_path(rng, pattern) for pattern in patterns for _ in range(2)})


def git_matches(repository: Path, patterns: list[str], paths: list[bytes]) -> set[tuple[str, bytes]]:
    lines = []
    for at, pattern in enumerate(patterns):
        anchored = "/" + (pattern + "**" if pattern.endswith("/") else pattern)
        lines.append(f'"{anchored}" m{at}\n')
    (repository / ".git/info/attributes").write_bytes("".join(lines).encode())
    out = run("git", "check-attr", "--stdin", "-z", "-a", stdin=b"\0".join(paths) + b"\0", cwd=repository)
    fields = out.split(b"\0")[:-1]
    return {
        (patterns[int(name[1:])], path)
        for path, name in zip(fields[0::3], fields[1::3], strict=True)
        if name[:1] == b"m"
    }


def repository_at(path: Path) -> Path:
    if not (path / ".git").exists():
        run("git", "init", "-q", "--template=", ".", stdin=b"", cwd=path)
        (path / ".git/info").mkdir()
    return path


SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_every_pattern_means_what_git_says(tmp_path: Path, seed: int) -> None:
    """12 examples of 50 patterns by some 100 paths, others every time: 60,000 combinations, one git each."""
    agree(repository_at(tmp_path), *a_batch(seed, 50))


def test_two_thousand_patterns_mean_what_git_says(tmp_path: Path) -> None:
    """The same ones every time, in batches, each by the paths of its batch: some 200,000 combinations, no mismatch."""
    seen: set[str] = set()
    matched, odd = 0, 0
    for seed in range(48):
        patterns, paths = a_batch(seed, 55)
        seen.update(patterns)
        odd += sum(not path.isascii() for path in paths)
        matched += agree(repository_at(tmp_path), patterns, paths)
    assert len(seen) >= 2000
    assert {kind: sum(kind in p for p in seen) > 200 for kind in ("**", "[", "[!", "?", "*", "é")} == dict.fromkeys(
        ("**", "[", "[!", "?", "*", "é"), True
    )
    assert odd > 500, "paths with bytes beyond ASCII, some of them no UTF-8"
    assert matched > 2000, "the oracle is blind"


def agree(repository: Path, patterns: list[str], paths: list[bytes]) -> int:
    """How many combinations match, by git and by us."""
    git = git_matches(repository, patterns, paths)
    # As deny patterns, for deny knows nothing of protected paths.
    ours = {
        (pattern, path)
        for pattern in patterns
        for path in paths
        if (Scope(("**",), (pattern,)).why_not(path) or "").startswith("denied by")
    }
    assert ours == git, (sorted(ours - git), sorted(git - ours))
    assert len({pattern for pattern, _ in git}) > 10, "the oracle is blind"
    return len(git)


def test_oracle_is_whole_path_and_wm_pathname(tmp_path: Path) -> None:
    """Git's own word on the points where other matchers go wrong."""
    patterns = ["a", "*", "a/*", "**/b", "a/**", "a/**/b"]
    paths = [b"a", b"a/b", b"a/x/b", b"b", b"*/x", b"ab"]
    assert git_matches(repository_at(tmp_path), patterns, paths) == {
        ("a", b"a"),
        *(("*", path) for path in (b"a", b"b", b"ab")),
        ("a/*", b"a/b"),
        *(("**/b", path) for path in (b"b", b"a/b", b"a/x/b")),
        *(("a/**", path) for path in (b"a/b", b"a/x/b")),
        *(("a/**/b", path) for path in (b"a/b", b"a/x/b")),
    }


def grep(ere: str, paths: list[bytes], cwd: Path) -> set[bytes]:
    """As a hook does it. Exit code 1 is "none"."""
    done = subprocess.run(
        ["grep", "-E", "-a", "-e", ere],
        input=b"\n".join(paths) + b"\n",
        cwd=cwd,
        env=ENV,
        capture_output=True,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == b""
    return set(done.stdout.split(b"\n")[:-1])


SPECIAL = [
    b"Makefile",
    b"a/makeFILE",
    b".github/x",
    b"a/.GIT/x",
    b"b/conftest.py",
    b"b/xconftest.py",
    b"[a]/go.sum",
]


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_hook_rules_mean_the_same_to_grep(tmp_path: Path, seed: int) -> None:
    """12 examples of 5 scopes by some 30 paths: 1,800 combinations."""
    patterns, found = a_batch(seed, 20)
    paths = [path for path in found if b"\n" not in path] + SPECIAL
    for at in range(0, 20, 4):
        allow = (*patterns[at : at + 3], "b/**", *(["Makefile", "[[]a]/go.sum"] if at % 8 else []))
        scope = Scope(allow, (patterns[at + 3],))
        rules = hook_rules(scope)
        guarded = grep(rules.protected, paths, tmp_path) - {text.encode() for text in rules.literals}
        hook = grep(rules.allow, paths, tmp_path) - grep(rules.deny, paths, tmp_path) - guarded
        assert hook == {path for path in paths if scope.allows(path)}, scope
