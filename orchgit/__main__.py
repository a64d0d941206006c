"""`orchgit`, `git orchgit`, `python -m orchgit`: finds the command, runs it, and turns failures into words.

Nothing heavy is imported before it is needed: `--version` and the list of commands are answered from here.
"""

from __future__ import annotations

import errno
import os
import sys

from orchgit import __version__

# name -> what it is for. One file per command, in cli/.
COMMANDS: dict[str, str] = {
    "init": "Write the roster, the configuration and the hooks, where absent",
    "start": "Start a run on a feature issue",
    "plan": "Show a run's plan, or check a plan file",
    "approve": "Approve the plan that was shown",
    "reject": "Send the plan back, with a reason",
    "answer": "Answer a question or a blocker",
    "grant": "Give a worker the paths that it asks for",
    "refuse": "Keep a worker to its scope, with a reason",
    "waive": "Let a finding stand, with a reason",
    "retry": "Give an assignment further attempts",
    "raise": "Let a run, or one assignment, spend more",
    "resume": "Go on with a run",
    "abort": "End a run, keeping what the workers have",
    "status": "Where a run stands, and what it waits for",
    "diff": "What a worker has changed so far",
    "shell": "A shell in a copy of a running cell",
    "work": "Work on an assignment yourself, in its cell",
    "exec": "Run any command in a cell, and land what is in its scope",
    "watch": "Follow a run while it goes on",
    "log": "Print the event log as it is",
    "replay": "Tell the story of a run from its log",
    "check": "Check that what lies between two commits is in a scope",
    "audit": "Check the log, and git against the log",
    "report": "The report of a run, in Markdown",
    "fetch": "Bring the logs of others' runs",
    "ship": "Merge the work into the branch it was based on, or by pull requests",
    "forge": "Check a pull request of a run, as CI does; print rulesets for GitHub",
    "hooks": "Install, show or remove the guard in this clone",
    "doctor": "What this machine can enforce, tried out",
    "agents": "Which agents are here, and why others are not",
    "clean": "Remove the branches and refs of a run that is over",
    "schema": "JSON Schema of the events",
    "report-work": "Inside a cell: hand in the report",
    "request-scope": "Inside a cell: ask for more paths",
    "mcp": "Inside a cell: the job as an MCP server on stdio",
    "pre-tool": "Inside a cell: what the plugin's hook asks before an edit",
    "plugin": "The Claude Code plugin: where it is, how to install it",
    "demo": "The whole of it, in a small repository, with scripted agents",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point of both console scripts. Returns the exit code (README, "Exit codes")."""
    args = sys.argv[1:] if argv is None else argv
    if args[:1] == ["--version"]:
        print(f"orchgit {__version__}")
        return 0
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if args else 2
    if args[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(args[0], COMMANDS, 1)
        hint = f"did you mean: orchgit {near[0]}" if near else "orchgit --help lists the commands"
        return complain(2, f"there is no command {args[0]!r}", "", hint)
    return run(args[0], args[1:])


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: orchgit COMMAND …        (also: git orchgit COMMAND …)",
            "",
            *lines,
            "",
            "orchgit COMMAND --help tells more.",
        ]
    )


def run(name: str, args: list[str]) -> int:
    """One command behind the one error boundary of the program."""
    from orchgit.core.errors import Kind, OrchgitError

    try:
        from orchgit.cli import invoke

        return invoke(name, args)
    except OrchgitError as error:
        return complain(error.kind, error.what, error.why, error.hint)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has had enough (`orchgit log | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return fault(Kind.FAULT, error, [name, *args])
        mended = "when that is mended, the same again; a run that has begun goes on with: orchgit resume"
        return complain(Kind.FAULT, "the machine refused something", str(error), mended)
    except Exception as error:  # noqa: BLE001 - the one place: a fault of ours must end in words, too
        return fault(Kind.FAULT, error, [name, *args])


def complain(kind: int, what: str, why: str, hint: str) -> int:
    """What happened, why, what to type next; the kind is the exit code."""
    from orchgit.report import safe

    heading = {1: "no", 3: "fault", 4: "a human is needed", 5: "not available", 6: "cannot say"}.get(kind, "error")
    out = [f"orchgit: {heading}: {safe(what)}"]
    out += [f"  {line}" for line in safe(why, lines=True).splitlines()]
    out += [f"  → {line}" if i == 0 else f"    {line}" for i, line in enumerate(safe(hint, lines=True).splitlines())]
    print("\n".join(out), file=sys.stderr)
    return int(kind)


def fault(kind: int, error: Exception, args: list[str]) -> int:
    import platform
    import traceback

    print(
        "orchgit: a fault of ours. The log is whole; `orchgit resume` goes on from it. Please report:", file=sys.stderr
    )
    print(f"  orchgit {__version__}, python {platform.python_version()}, {platform.platform()}", file=sys.stderr)
    print(f"  orchgit {' '.join(args)}", file=sys.stderr)
    traceback.print_exception(error, file=sys.stderr)
    return int(kind)


if __name__ == "__main__":
    sys.exit(main())
