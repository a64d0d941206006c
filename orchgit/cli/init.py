"""`orchgit init`: roster, configuration and hooks, where absent. Twice changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    hooks: Annotated[bool, typer.Option(help="Install the guard of the run's branches in this clone.")] = True,
    follow: Annotated[bool, typer.Option(help="Let git fetch bring the logs of others' runs, too.")] = True,
) -> int:
    """Write the roster, the configuration and the hooks, where absent."""
    from orchgit import githooks, publish, setup
    from orchgit.git.user import discover

    repo = discover(Path.cwd())
    for written in setup.init(repo.root):
        print(f"{written.state:<8} {written.path}")
    if hooks:
        for status in githooks.install(str(repo.common), repo.hooks_path, work_tree=str(repo.root)):
            print(f"{status.state:<8} hook {status.name}" + (f": {status.detail}" if status.detail else ""))
    for remote, new in publish.follow(repo.root) if follow else []:
        print(f"{'written' if new else 'kept':<8} fetch of {remote}: {publish.refspec(remote)}")
    print(
        "next: orchgit start ISSUE.md    (.claude/agents and .orchestration/config.toml are yours to change and commit)"
    )
    return 0
