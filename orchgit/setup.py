"""What `orchgit init` writes: the agent files, the configuration, an ignore rule.

It only adds. Whatever is there, file or link, is kept as it is, so a second call changes nothing; and it
never writes through a symbolic link, which could lead out of the repository. Everything is looked at before
the first byte is written.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from orchgit import roster
from orchgit.config import CONFIG_PATH
from orchgit.core.errors import Kind, OrchgitError

AGENTS = (
    *("orchestrator", "api-agent", "frontend-agent", "test-agent", "docs-agent"),
    *("security-reviewer", "performance-reviewer"),
)
DIRECTORIES = (".claude", roster.AGENTS_DIR, ".orchestration")


@dataclass(frozen=True)
class Written:
    """`path` is absolute. `kept`: it was there before, or an agent of that name was, in this file."""

    path: Path
    state: Literal["written", "kept"]


def init(root: Path) -> list[Written]:
    """Write what is missing below `root`, a work tree. OrchgitError (USAGE) before anything is written."""
    for directory in DIRECTORIES:
        _check_directory(root, directory)
    taken = roster.names(root)
    plan: list[tuple[Path, str]] = []
    for name in AGENTS:
        plan.append((taken.get(name, root / roster.AGENTS_DIR / f"{name}.md"), roster.template(name)))
    templates = files("orchgit").joinpath("templates")
    plan.append((root / CONFIG_PATH, templates.joinpath("config.toml").read_text("utf-8")))
    plan.append((root / ".orchestration/.gitignore", templates.joinpath("gitignore").read_text("utf-8")))
    try:
        for directory in DIRECTORIES:
            os.makedirs(root / directory, exist_ok=True)
        return [Written(path, "written" if _add(path, text) else "kept") for path, text in plan]
    except OSError as error:
        what = f"{error.filename or root} cannot be written"
        raise OrchgitError(Kind.USAGE, what, error.strerror or str(error)) from error


def _check_directory(root: Path, directory: str) -> None:
    try:
        mode = os.lstat(root / directory).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        what = f"{directory} cannot be looked at"
        raise OrchgitError(Kind.USAGE, what, error.strerror or str(error)) from error
    if stat.S_ISLNK(mode):
        target = os.readlink(root / directory)
        raise OrchgitError(
            Kind.USAGE,
            f"{directory} is a symbolic link to {target}",
            "what init writes belongs to this repository, and the link may lead out of it",
            f"replace the link by a directory: rm {directory} && cp -R {target} {directory}",
        )
    if not stat.S_ISDIR(mode):
        raise OrchgitError(
            Kind.USAGE,
            f"{directory} is not a directory",
            "init writes files into it",
            f"move it away: mv {directory} {directory}.old",
        )


def _add(path: Path, text: str) -> bool:
    """Whole or not at all, and never over what is there. False: something is."""
    if os.path.lexists(path):
        return False
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(fd)
        try:
            os.link(temporary, path)  # a rename would replace what came in the meantime
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            os.rename(temporary, path)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
