"""`orchgit hooks install|status|uninstall`: the guard of runs' branches and logs, in every work tree of this clone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchgit.cli.common import Json
from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from orchgit.githooks import HookStatus

Action = Annotated[str, typer.Argument(help="install, status or uninstall")]


def command(action: Action = "status", as_json: Json = False) -> int:
    """Install, show or remove the guard in this clone."""
    from orchgit import githooks
    from orchgit.git.user import discover, work_trees

    actions = {"install": githooks.install, "status": githooks.status, "uninstall": githooks.uninstall}
    if action not in actions:
        raise OrchgitError(
            Kind.USAGE, f"hooks {action!r} is not known", "", "orchgit hooks install | status | uninstall"
        )
    repo = discover(Path.cwd())
    trees = [(str(root), hooks_path) for root, hooks_path in work_trees(repo)]
    if action != "status":
        for root, hooks_path in trees:
            actions[action](str(repo.common), hooks_path, work_tree=root)
    # Looked at only when all is done: what one work tree was given may serve another.
    places = []
    for root, hooks_path in trees:
        found = githooks.status(str(repo.common), hooks_path, work_tree=root)
        places.append((root, githooks.directory(str(repo.common), hooks_path, root), found))
    if as_json:
        _print_json(places)
    else:
        _print_words(places)
    return 0


def _print_json(places: list[tuple[str, str, list[HookStatus]]]) -> None:
    import json

    from orchgit.githooks import GUARDS

    listed = [
        {
            "work_tree": root,
            "directory": directory,
            "hooks": [
                {
                    "name": each.name, "in_force": each.in_force, "state": each.state, "guards": GUARDS[each.name],
                    "detail": each.detail,
                }
                for each in found
            ],
        }
        for root, directory, found in places
    ]  # fmt: skip
    print(json.dumps(listed, indent=2))


def _print_words(places: list[tuple[str, str, list[HookStatus]]]) -> None:
    from orchgit.githooks import GUARDS
    from orchgit.report import safe

    for root, directory, found in places:
        print(safe(f"{root}: git runs hooks from {directory}"))
        for each in found:
            print(f"  {'in force' if each.in_force else 'NOT in force':<12}  {each.name}: {GUARDS[each.name]}")
            if each.detail:
                print(safe(f"  {'':<12}  {each.detail}"))
