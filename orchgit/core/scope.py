"""Which paths an assignment may touch: matching, overlap, and what sandbox and hooks need to know of it.

Every layer that decides about a path (gate, sandbox, watchdog, hooks) asks this file, so that they cannot
disagree. It must never look at a file system, and never answer "allowed" or "no overlap" for want of an
answer: what cannot be decided raises.

A path is the bytes git stores: relative, `/` between the components, case-sensitive. What a pattern means is in
pattern.py. Read in order: what is protected; `Scope`; then `overlap`, which walks two automata in step.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product, takewhile

from orchgit.core.pattern import (
    BYTES,
    DEEP,
    DOT,
    NAME_BYTES,
    SLASH,
    STAR,
    Component,
    PatternError,
    Token,
    check_pattern,
    compile_any,
    component_of,
    ere,
    ere_any,
    ere_caseless,
    literal,
    literal_path,
    parse,
    quote,
    regex,
    regex_component,
)  # fmt: skip

# A path with such a component, in any upper or lower case and at any depth, is granted only by a pattern
# that names it literally: these files run code, or steer people, agents, CI and this program.
# fmt: off
PROTECTED: tuple[str, ...] = (
    ".git*",  # .gitattributes .gitmodules .gitignore .github/ .gitlab-ci.yml
    ".circleci", ".travis.yml", "Jenkinsfile", "azure-pipelines.yml",
    ".claude", ".codex", ".cursor", ".vscode", ".mcp.json", "CLAUDE.md", "AGENTS.md", ".orchestration",
    "conftest.py", "sitecustomize.py", "usercustomize.py", "*.pth", "Makefile", "GNUmakefile",
    ".husky", "lefthook.y*ml", ".lefthook*", ".pre-commit-config.yaml", ".pre-commit-hooks.yaml",
    ".envrc", ".npmrc", "package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock",
    "uv.lock", "Pipfile.lock", "Cargo.lock", "Gemfile.lock", "composer.lock", "go.sum",
)
# fmt: on


# What a case-insensitive file system may take for these letters, besides the two ASCII cases: long s, Kelvin
# sign, ligatures. The gate's rule on collisions sees only names that exist, so it is no help here.
_ODD_CASE = {
    "fi": ("fi", "\ufb01"),
    "st": ("st", "\u017ft", "\ufb05", "\ufb06"),
    "s": ("s", "\u017f"),
    "k": ("k", "\u212a"),
}


def _spellings(name: str) -> list[Component]:
    """`name` in every odd case, ASCII in lower case."""
    pieces: list[str] = re.findall("|".join([*_ODD_CASE, "."]), name.lower())
    return [component_of(name, "".join(c)) for c in product(*(_ODD_CASE.get(piece, piece) for piece in pieces))]


_PROTECTED_NAMES = tuple(spelling for name in PROTECTED for spelling in _spellings(name))


@cache  # half of what importing this file took, which every command does
def _protected_re() -> re.Pattern[bytes]:
    names = b"|".join(map(regex_component, _PROTECTED_NAMES))
    return compile_any([b"(?:[^/]+/)*(?:" + names + b")(?:/.+)?"], re.IGNORECASE)  # of bytes: about ASCII


def protected(path: bytes) -> bool:
    """Whether only a pattern that names `path` literally can grant it."""
    return _protected_re().match(path) is not None


PROTECTED_ERE = ere_any([b"(.+/)?(" + b"|".join(map(ere_caseless, _PROTECTED_NAMES)) + b")(/.+)?"])


# ---- the scope


@dataclass(frozen=True)
class Root:
    """A directory a sandbox must make writable; `""` is the whole tree.

    `exact`: all below it is in the scope, protected paths aside. If not, more becomes writable than the scope
    grants, and the gate stops it. `file`: the one literal path this root is for, if that is all.
    """

    path: str
    exact: bool
    file: str | None = None


@dataclass(frozen=True)
class HookRules:
    """What a hook needs, for LC_ALL=C grep -E on one path per line.

    In scope = matches `allow`, does not match `deny`, and does not match `protected` or equals one of
    `literals`. No regex is empty (that would match all): where nothing is listed, it matches no path. A path
    with a newline in it cannot be asked this way; a hook refuses it.
    """

    allow: str
    deny: str
    protected: str
    literals: tuple[str, ...]


@dataclass(frozen=True)
class Scope:
    """The paths that match `allow`, without those that match `deny`, and protected ones only by literal name.

    Raises PatternError. An empty `allow` allows nothing. `symlinks`: whether a path in the scope may be a symbolic
    link to another in the scope; where it leads is for the gate to find out, which has the tree.
    """

    allow: tuple[str, ...]
    deny: tuple[str, ...] = ()
    symlinks: bool = False

    def __post_init__(self) -> None:
        for pattern in (*self.allow, *self.deny):
            check_pattern(pattern)

    def allows(self, path: bytes) -> bool:
        """Whether `path` is in the scope. What is not a path as git stores them is in none."""
        return self.why_not(path) is None

    def why_not(self, path: bytes) -> str | None:
        """None when allowed, else the reason in words."""
        rules = _rules(self)
        if not rules.allow.match(path) or not _is_path(path):
            return "outside the scope"
        for pattern, denies in rules.deny:
            if denies.match(path):
                return f"denied by {pattern}"
        if protected(path) and path not in rules.literals:
            return "protected: name it literally to allow it"
        return None

    def covers(self, directory: bytes) -> bool:
        """Whether all that could ever lie in `directory` is in the scope, protected names aside."""
        try:
            return not protected(directory + b"/a") and _is_exact(self, directory.decode())
        except (UnicodeDecodeError, PatternError):  # no pattern can name it
            return False

    def roots(self) -> tuple[Root, ...]:
        """The directories a sandbox must make writable, none below another, in order."""
        return _roots(self)


def precision(scope: Scope, files: Iterable[bytes]) -> tuple[int, int]:
    """(files in the scope, files that a sandbox by directories leaves writable): what the kernel can tell apart."""
    roots = [root.path.encode() for root in scope.roots()]
    below = tuple(root + b"/" for root in roots)
    writable = [path for path in files if b"" in roots or path.startswith(below)]
    return sum(map(scope.allows, writable)), len(writable)


def hook_rules(scope: Scope) -> HookRules:
    """The scope as POSIX extended regexes."""
    return HookRules(
        allow=ere_any(ere(parse(pattern)) for pattern in scope.allow),
        deny=ere_any(ere(parse(pattern)) for pattern in scope.deny),
        protected=PROTECTED_ERE,
        literals=tuple(sorted(path.decode() for path in _rules(scope).literals)),
    )


def _is_path(path: bytes) -> bool:
    return b"\0" not in path and not any(name in (b"", b".", b"..") for name in path.split(b"/"))


@dataclass(frozen=True)
class _Rules:
    allow: re.Pattern[bytes]
    deny: tuple[tuple[str, re.Pattern[bytes]], ...]
    literals: frozenset[bytes]


@lru_cache(maxsize=1024)
def _rules(scope: Scope) -> _Rules:
    literals = [literal_path(pattern) for pattern in scope.allow]
    return _Rules(
        allow=compile_any(regex(parse(pattern)) for pattern in scope.allow),
        deny=tuple((pattern, compile_any([regex(parse(pattern))])) for pattern in scope.deny),
        literals=frozenset(path for path in literals if path is not None),
    )


@lru_cache(maxsize=1024)
def _roots(scope: Scope) -> tuple[Root, ...]:
    wanted: dict[str, set[str | None]] = {}  # directory -> the literal paths it is for; None: for more than that
    for pattern in scope.allow:
        fixed: list[str] = []
        for component in parse(pattern)[:-1]:
            name = literal(component)
            if name is None:
                break
            fixed.append(name.decode())
        path = literal_path(pattern)
        wanted.setdefault("/".join(fixed), set()).add(path.decode() if path is not None else None)
    kept: dict[str, set[str | None]] = {}
    for directory in sorted(wanted):  # what lies above comes first
        above = (up for up in kept if up == "" or directory.startswith(up + "/"))
        kept.setdefault(next(above, directory), set()).update(wanted[directory])
    return tuple(
        Root(directory, _is_exact(scope, directory), files.pop() if len(files) == 1 else None)
        for directory, files in kept.items()
    )


def _is_exact(scope: Scope, directory: str) -> bool:
    below = quote(directory) + "/**" if directory else "**"
    try:
        left_out = _conflict(Scope((below,), deny=scope.allow), Scope(("**",)), guarded=False)
        return left_out is None and _conflict(Scope((below,)), Scope(scope.deny), guarded=False) is None
    except PatternError:  # too intricate to say; "not exact" promises nothing
        return False


# ---- overlap


def overlap(a: Scope, b: Scope) -> bytes | None:
    """A shortest path that shows `a` and `b` to conflict; None if they are disjoint.

    They conflict if `a` allows some path p and `b` some path q such that p and q are equal, or one is a
    directory above the other, with ASCII letters taken as equal in upper and lower case (other letters are
    left to the gate's rule on collisions). The answer is the deeper of the two; of two that differ in case
    only, a's. So **/*.py and **/*.ts conflict: a file x.py, a directory x.py with y.ts in it.

    Exact. It terminates because the automata have finitely many states, and each tuple of states is visited
    once. Patterns written for it can make that many (2 to the number of `?` after a `*`): beyond
    LIMIT tuples it raises PatternError rather than guess.
    """
    pairs = [(mine, yours) for mine in a.allow for yours in b.allow if _may_meet(mine, yours)]
    if not pairs:  # so it is with nearly all of the 2,016 pairs of a large plan
        return None
    a = Scope(tuple(dict.fromkeys(mine for mine, _ in pairs)), a.deny)
    b = Scope(tuple(dict.fromkeys(yours for _, yours in pairs)), b.deny)
    # Protected names make the automata far larger and hardly ever matter. Without them the scopes only grow:
    # no conflict is no conflict, and a shortest witness that is not protected is a shortest one.
    found = _conflict(a, b, guarded=False)
    return found if found is None or not protected(found) else _conflict(a, b, guarded=True)


@lru_cache(maxsize=4096)
def _fixed(pattern: str) -> tuple[bytes, ...]:
    """The names, in lower case, that every path which `pattern` matches begins with."""
    names = takewhile(lambda name: name is not None, map(literal, parse(pattern)))
    return tuple(name.lower() for name in names if name is not None)


def _may_meet(mine: str, yours: str) -> bool:
    """Whether a path of one pattern may be, or lie above, one of the other's. A no is exact: where two names differ
    with which all their paths begin, all their paths differ."""
    return all(x == y for x, y in zip(_fixed(mine), _fixed(yours), strict=False))


def wildcard_claims_protected(pattern: str) -> str | None:
    """One of PROTECTED, if `pattern` has wildcards and matches protected paths only: it grants nothing."""
    claimed, everything = Scope((pattern,)), Scope(("**",))
    if literal_path(pattern) is not None or _conflict(claimed, everything, guarded=True) is not None:
        return None
    parts = (_conflict(claimed, everything, guarded=False) or b"").split(b"/")
    for name in PROTECTED:
        protects = compile_any(map(regex_component, _spellings(name)), re.IGNORECASE)
        if any(map(protects.match, parts)):
            return name
    raise AssertionError(f"{pattern} matches protected paths only, and none of them")


LIMIT = 50_000
_LITERAL, _WILD, _DENIED = 1, 2, 4  # what it means that a program ends
_State = frozenset[tuple[int, int]]  # (program, place): all the places that reading so far can have led to


class _Automaton:
    """Programs read side by side. A program is tokens in a row; `**` is the set of all bytes, as a token.

    Made anew for each question: the tables grow, and threads may ask at the same time.
    """

    def __init__(self, programs: Iterable[tuple[tuple[Token, ...], int]]) -> None:
        self.programs = list(programs)
        self.begin = frozenset(place for at in range(len(self.programs)) for place in self._enter(at, 0))
        self.steps: dict[tuple[_State, int], _State] = {}
        sets = list({token for program, _ in self.programs for token in program})
        self.classes = [tuple(byte in token for token in sets) for byte in range(256)]  # alike: read alike

    def _enter(self, at: int, place: int) -> Iterator[tuple[int, int]]:
        yield at, place
        program = self.programs[at][0]
        if place < len(program) and program[place] in (STAR, BYTES):  # may read nothing
            yield from self._enter(at, place + 1)

    def _reads(self, at: int, place: int, byte: int) -> Iterator[tuple[int, int]]:
        program = self.programs[at][0]
        if place == len(program):
            return
        token = program[place]
        if token == BYTES:  # any number of directories: stay, but leave only after a slash, or for the end
            yield at, place
            if byte == SLASH or place + 1 == len(program):
                yield from self._enter(at, place + 1)
        elif token == STAR:
            if byte != SLASH:
                yield from self._enter(at, place)
        elif byte in token:
            yield from self._enter(at, place + 1)

    def step(self, state: _State, byte: int) -> _State:
        if (state, byte) not in self.steps:
            places = (after for at, place in state for after in self._reads(at, place, byte))
            self.steps[state, byte] = frozenset(places)
        return self.steps[state, byte]

    def ends(self, state: _State) -> int:
        meaning = 0
        for at, place in state:
            program, means = self.programs[at]
            meaning |= means if place == len(program) else 0
        return meaning

    def alive(self, state: _State) -> bool:
        return any(self.programs[at][1] != _DENIED for at, _ in state)


def _program(pattern: str) -> tuple[Token, ...]:
    tokens: list[Token] = []
    for component in parse(pattern):
        tokens.extend([BYTES] if component == DEEP else [*component, frozenset((SLASH,))])
    if tokens[-1] == BYTES:
        return (*tokens[:-1], NAME_BYTES, BYTES)  # at the end, ** is not nothing
    return tuple(tokens[:-1])


def _automaton(scope: Scope) -> _Automaton:
    allow = [(_program(p), _WILD if literal_path(p) is None else _LITERAL) for p in scope.allow]
    return _Automaton([*allow, *((_program(pattern), _DENIED) for pattern in scope.deny)])


_FRESH, _NAMED = 0, 3  # the component so far: nothing; 1 a dot; 2 two dots; a name
# a's state and b's, None once its path ended as a directory above the other's; the protected names' state,
# None once a component was one; the component so far
_Walk = tuple[_State | None, _State | None, _State | None, int]
_Pair = tuple[int, int]  # the next byte of a's path, and of b's: the same, or one letter in both cases


def _conflict(a: Scope, b: Scope, *, guarded: bool) -> bytes | None:
    """As `overlap`; if not `guarded`, as though nothing were protected. Breadth first, so shortest first."""
    left, right = _automaton(a), _automaton(b)
    names = _Automaton((name, _WILD) for name in (_PROTECTED_NAMES if guarded else ()))
    alphabet = _alphabet(left, right, names)

    def grants(automaton: _Automaton, state: _State | None, walk: _Walk) -> bool:
        """Whether a path that ends here is granted. An ended one was, at its end."""
        if state is None:
            return True
        meaning = automaton.ends(state)
        secured = walk[2] is None or names.ends(walk[2])
        return walk[3] == _NAMED and not meaning & _DENIED and bool(meaning & (_LITERAL if secured else ~0))

    def moves(walk: _Walk) -> Iterator[tuple[_Pair, _Walk]]:
        p, q, name, so_far = walk
        for x, y in alphabet:
            after_p, after_q = p and left.step(p, x), q and right.step(q, y)
            if x != SLASH:
                after_name = name and names.step(name, _LOWER[x])
                yield (x, y), (after_p, after_q, after_name, min(so_far + 1, _NAMED) if x == DOT else _NAMED)
            elif so_far == _NAMED:
                after_name = None if name is None or names.ends(name) else names.begin
                yield (x, y), (after_p, after_q, after_name, _FRESH)
                if p is not None and q is not None and grants(right, q, walk):
                    yield (x, y), (after_p, None, after_name, _FRESH)
                if p is not None and q is not None and grants(left, p, walk):
                    yield (x, y), (None, after_q, after_name, _FRESH)

    start: _Walk = (left.begin, right.begin, names.begin, _FRESH)
    came: dict[_Walk, tuple[_Walk, _Pair] | None] = {start: None}
    queue = deque([start])
    while queue:
        walk = queue.popleft()
        if grants(left, walk[0], walk) and grants(right, walk[1], walk):
            return _spell(walk, came)
        for pair, after in moves(walk):
            p, q = after[:2]
            if after not in came and (p is None or left.alive(p)) and (q is None or right.alive(q)):
                came[after] = (walk, pair)
                queue.append(after)
        if len(came) > LIMIT:
            raise PatternError("these scopes are too intricate to compare; use fewer wildcards in one pattern")
    return None


_LOWER = [bytes((byte,)).lower()[0] for byte in range(256)]


def _alphabet(left: _Automaton, right: _Automaton, names: _Automaton) -> list[_Pair]:
    """One pair of bytes for each way to differ, the most readable first."""
    tasty = b"abcdefghijklmnopqrstuvwxyz0123456789/._-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    by_taste = sorted(BYTES, key=lambda byte: (byte not in tasty, tasty.find(byte), not 32 < byte < 127, byte))
    pairs = [(x, x) for x in by_taste] + [(x, bytes((x,)).swapcase()[0]) for x in by_taste]
    best: dict[object, _Pair] = {}
    for x, y in pairs:
        classes = left.classes[x], right.classes[y], names.classes[_LOWER[x]]
        best.setdefault((classes, x if x in (SLASH, DOT) else None), (x, y))
    return list(best.values())


def _spell(walk: _Walk, came: dict[_Walk, tuple[_Walk, _Pair] | None]) -> bytes:
    deeper = 1 if walk[0] is None else 0
    spelled: list[int] = []
    step = came[walk]
    while step is not None:
        walk, pair = step
        spelled.append(pair[deeper])
        step = came[walk]
    return bytes(reversed(spelled))
