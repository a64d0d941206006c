"""`orchgit pre-tool`: what the plugin's hook calls before Claude Code writes a file: is it in the scope of this cell?

Reads the hook's JSON on standard input; exit code 2 and words on stderr keep the edit from being made. A quick word,
for a hook fails open and the rules it reads lie where the agent can write: whatever is not as expected passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

STOP = 2  # Claude Code's: the tool is not called, and stderr goes to the model


def main(args: list[str]) -> int:
    if args:
        print("usage: orchgit pre-tool  (in a cell; the hook's JSON on standard input)", file=sys.stderr)
        return 0 if args[0] in ("-h", "--help") else 1
    try:
        said = json.loads(sys.stdin.buffer.read())
        named = _named(said)
        found = _rules(Path(said["cwd"])) if named else None
        if not named or found is None:
            return 0
        top, rules = found
        # Not resolved as a whole: a link at the path itself is what would be written through.
        target = Path(said["cwd"], named)
        path = os.path.join(os.path.realpath(target.parent), target.name)
        why = _outside(os.path.relpath(path, os.path.realpath(top)), rules)
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    if why:
        print(
            f"orchgit: {named!r} is outside your scope ({why}). Look for a way inside it; if there is none, ask "
            'for all that you need at once: `orchgit request-scope PATH… --why "…"`, and end your work there.',
            file=sys.stderr,
        )
    return STOP if why else 0


def _named(said: dict[str, Any]) -> str:
    given = said["tool_input"]
    return str(given.get("file_path") or given.get("notebook_path") or "")


def _rules(here: Path) -> tuple[Path, dict[str, list[str]]] | None:
    """(top of the cell's working tree, word -> values); None where this is no cell."""
    from orchgit.githooks import SCOPE_FILE

    for folder in (here, *here.parents):
        pointer = folder / ".git"
        if pointer.is_file():
            git_dir = folder / pointer.read_text("utf-8").removeprefix("gitdir: ").rstrip("\n")
            rules: dict[str, list[str]] = {}
            for line in (git_dir / SCOPE_FILE).read_text("utf-8", "surrogateescape").splitlines():
                word, _, value = line.partition(" ")
                rules.setdefault(word, []).append(value)
            return folder, rules
        if pointer.exists():
            return None
    return None


def _outside(path: str, rules: dict[str, list[str]]) -> str:
    """Why it is, or ""."""
    if path.startswith("../"):
        return ""  # the private HOME and TMPDIR; anything else there, the sandbox refuses
    if not _matches(rules["allow"], path):
        return "no pattern of the scope covers it"
    if any(rules["deny"]) and _matches(rules["deny"], path):
        return "the scope denies it"
    if _matches(rules["protected"], path) and path not in rules.get("literal", []):
        return "protected: only a plan that names this very path grants it"
    return ""


def _matches(patterns: list[str], path: str) -> bool:
    """As the cell's git hooks read the same rules: POSIX extended regular expressions."""
    words = [word for pattern in patterns if pattern for word in ("-e", pattern)]
    env = {"LC_ALL": "C", "PATH": os.defpath}
    done = subprocess.run(["grep", "-qE", *words], input=os.fsencode(path), env=env, check=False, capture_output=True)
    if done.returncode > 1:
        raise ValueError(done.stderr)
    return done.returncode == 0
