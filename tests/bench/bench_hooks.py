"""What our hooks add to a commit: those of a cell, and the guard in the user's own clone; beside two managers of hooks.

    python -m tests.bench.bench_hooks [--rounds 40]

Aim: at most 10 ms more than the same commit without a hook. `git commit` alone is timed, one new file each. Lefthook
(npm) and the pre-commit framework (PyPI) are installed into a temporary directory, and do what a cell's pre-commit
does as one would write it for them: the staged names through one grep. Not with --quick, nor where they cannot be had.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from orchgit import githooks
from orchgit.core.scope import Scope, hook_rules
from tests.bench import common
from tests.hooks.managers import Unavailable, install_managers

NONE, CELL, WIDE, GUARD = "no hook", "cell, one pattern", "cell, 20 patterns and a deny", "guard in the user's clone"
LEFTHOOK, FRAMEWORK = "lefthook, a like check", "pre-commit framework, a like check"
CHECK = "! git diff --cached --no-renames --name-only | grep -vE '^(pkg0/.+|[.a-z-]+)$'\n"
CONFIGURED = {
    LEFTHOOK: ("lefthook.yml", "pre-commit:\n  commands:\n    scope: {run: sh check.sh}\n", ("lefthook", "install")),
    FRAMEWORK: (
        ".pre-commit-config.yaml",
        "repos:\n- repo: local\n  hooks:\n  - {id: scope, name: scope, language: system, entry: sh check.sh,"
        " always_run: true, pass_filenames: false}\n",
        ("pre-commit", "install"),
    ),
}


def commits(repo: Path, env: Mapping[str, str]) -> Callable[[], float]:
    """A commit of one new file; `git add` is not timed."""
    fresh = count()

    def one() -> float:
        path = repo / "pkg0" / f"made{next(fresh)}.txt"
        path.write_text("made\n")
        common.call(["git", "add", "-A"], repo, env)
        return common.call(["git", "commit", "-q", "-m", "made"], repo, env)

    return one


def cell_hooks(repo: Path, env: Mapping[str, str], scope: Scope) -> None:
    common.call(["git", "switch", "-q", "-c", "orchgit/r1/w1"], repo, env)
    base = (repo / ".git" / "refs" / "heads" / "main").read_text().strip()
    githooks.install_cell(str(repo / ".git"), hook_rules(scope), base=base, branch="refs/heads/orchgit/r1/w1")


def managed(repo: Path, env: Mapping[str, str], manager: str) -> None:
    name, text, install = CONFIGURED[manager]
    (repo / name).write_text(text)
    (repo / "check.sh").write_text(CHECK)
    common.call(["git", "add", "-A"], repo, env)
    common.call(["git", "commit", "-q", "-m", "configured"], repo, env)
    common.call(list(install), repo, env)


def peers(place: Path, env: dict[str, str]) -> dict[str, Callable[[Path], object]]:
    try:
        install_managers(place)
    except Unavailable as why:
        print(f"  without lefthook and pre-commit: {why}")
        return {}
    env["PATH"] = f"{place / 'bin'}:{env['PATH']}"
    return {name: partial(managed, env=env, manager=name) for name in CONFIGURED}


def main(argv: Sequence[str] | None = None) -> int:
    given = common.arguments(__doc__, 40, argv)
    wide = Scope(("pkg0/**", *(f"src/part{i}/**/*.py" for i in range(19))), ("pkg0/secret/**",))
    with common.place() as (root, env):
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "maintenance.auto", "GIT_CONFIG_VALUE_0": "false"}
        install: dict[str, Callable[[Path], object]] = {
            NONE: lambda repo: None,
            CELL: lambda repo: cell_hooks(repo, env, Scope(("pkg0/**",))),
            WIDE: lambda repo: cell_hooks(repo, env, wide),
            GUARD: lambda repo: githooks.install(str(repo / ".git"), None, work_tree=str(repo)),
        }
        install |= {} if given.quick else peers(root / "peers", env)
        variants = {}
        for number, (name, put) in enumerate(install.items()):
            repo = common.repository(root / str(number), env, given.files)
            common.call(["git", "branch", "orchgit/r1/integration"], repo, env)
            put(repo)
            variants[name] = commits(repo, env)
        taken = common.in_turn(variants, given.rounds)
    common.table("git commit of one new file", taken, NONE)
    print("\n  more than without a hook")
    for name in list(variants)[1:]:
        more = [(a - b) * 1000 for a, b in zip(taken[name], taken[NONE], strict=True)]
        of_min = (min(taken[name]) - min(taken[NONE])) * 1000
        print(f"  {name:<34}  of min {of_min:5.1f} ms   median {statistics.median(more):5.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
