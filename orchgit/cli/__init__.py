"""The commands: one file each, `command(…)` with typer's annotations, which returns the exit code; or `main(args)`,
where a command has to begin faster than typer does.

A module here is imported when its command is called, and imports what it needs in its own body.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import FunctionType

from orchgit.core.errors import OrchgitError


def invoke(name: str, args: list[str]) -> int:
    """Parse the arguments and run the command; its exit code."""
    module = import_module(f"orchgit.cli.{name.replace('-', '_')}")
    if hasattr(module, "main"):
        return int(module.main(args))
    command: Callable[..., int | None] = module.command
    if not args and isinstance(command, FunctionType) and _optional(command):
        # Nothing to parse, so no parser: typer imports pydantic to parse, which took as long as the whole of `status`.
        return command() or 0
    os.environ.setdefault("TYPER_USE_RICH", "0")  # plain help: half the time, and it pipes
    import typer

    result: list[int] = []
    raised: list[BaseException] = []

    @wraps(command)
    def kept(*arguments: object, **options: object) -> None:
        # typer has its own words for what is raised inside; ours are better, so it does not get to see it.
        try:
            result.append(command(*arguments, **options) or 0)
        except (OrchgitError, KeyboardInterrupt, BrokenPipeError) as error:
            raised.append(error)

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name)(kept)
    try:
        app(args, prog_name=f"orchgit {name}", standalone_mode=True)
    except SystemExit as ended:
        if not raised and not result:
            return int(ended.code or 0)
    if raised:
        raise raised[0]
    return result[0]


def _optional(command: FunctionType) -> bool:
    """Whether it can be called without arguments."""
    return len(command.__defaults__ or ()) == command.__code__.co_argcount and not command.__code__.co_kwonlyargcount
