"""`orchgit hooks install|status|uninstall`: the guard of runs' branches and logs in this clone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchgit.core.errors import Kind, OrchgitError


def command(action: Annotated[str, typer.Argument(help="install, status or uninstall")] = "status") -> int:
    """Install, show or remove the guard in this clone."""
    from orchgit import githooks
    from orchgit.git.user import discover

    repo = discover(Path.cwd())
    actions = {"install": githooks.install, "status": githooks.status, "uninstall": githooks.uninstall}
    if action not in actions:
        raise OrchgitError(
            Kind.USAGE, f"hooks {action!r} is not known", "", "orchgit hooks install | status | uninstall"
        )
    for status in actions[action](str(repo.common), repo.hooks_path, work_tree=str(repo.root)):
        print(f"{status.state:<10} {status.name}" + (f"  {status.detail}" if status.detail else ""))
    return 0
