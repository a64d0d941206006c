"""`orchgit demo [FOLDER]`: the whole of it, in a small repository of its own, with scripted agents.

Only the thinking is scripted. The repository, the cells, the sandbox, the checks, the merges and the log are those of
`orchgit start`, by the same code. The story is in `orchgit/demo/`: the repository, what the agents write, the playbook.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

ISSUE = "issues/team-billing.md"
PLAYBOOK = ".orchestration/playbook.json"
SUFFIX = ".tmpl"  # so that no tool of ours takes the demo's Python for its own
# The history of the repository: subject, and what was added.
HISTORY = (
    ("Add the router and the API of teams", ("api", "tests/__init__.py", "tests/api", ".gitignore")),
    ("Show a team on a page", ("web", "tests/web", "tests/integration", "serve.py")),
    ("Write down how to use it", ("README.md", "docs")),
    ("Add the issue about team billing", (ISSUE,)),
    ("Set up orchgit: roster, configuration, the demo's playbook", (".claude", ".orchestration")),
)


def command(
    folder: Annotated[str, typer.Argument(help="Where to make the repository: a new or an empty folder.")] = (
        "orchgit-demo"
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Approve the plan by policy; the log says so.")] = False,
    allow_unsandboxed: Annotated[
        bool, typer.Option("--allow-unsandboxed", help="Run although nothing stops an agent from writing anywhere.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every event, and what agents do.")] = False,
) -> int:
    """Show the whole of it in a small repository: a feature is planned, built, reviewed, fixed and merged."""
    import shutil

    from orchgit.cli.common import interactive
    from orchgit.cli.start import begin_and_drive, read_issue
    from orchgit.git.user import git_version
    from orchgit.session import Options

    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]  # GIT_DIR would lead to another repository than the demo's own
    if shutil.which("python3") is None:  # the checks call it by this name, and we are one
        os.environ["PATH"] = os.environ.get("PATH", os.defpath) + os.pathsep + str(Path(sys.executable).parent)
    # What could be missing is asked for before anything is made: a refusal leaves nothing behind.
    git_version()
    prevented = sandboxed(folder, allow_unsandboxed)
    root = empty_folder(folder)
    commits = make_repository(root, sandboxed=prevented)
    say(
        "",
        f"orchgit demo: made a small repository in {folder} ({commits} commits)",
        f"  what is asked for: {folder}/{ISSUE}",
        "From here on this is `orchgit start`; only the thinking is scripted.",
    )
    if not prevented:
        say("Nothing here stops a write outside a scope: the script leaves out the one it has.")
    policy = yes or not interactive()
    if policy:
        say("The plan is approved by policy: " + ("you said --yes." if yes else "there is no terminal to ask at."))
    say("")
    os.chdir(root)
    options = Options(
        backend="scripted", playbook=str(root / PLAYBOOK), approval="policy" if policy else "human", ship="none",
        allow_unsandboxed=allow_unsandboxed,
    )  # fmt: skip
    code = begin_and_drive(root, read_issue(ISSUE), options, verbose=verbose, tour=False)
    farewell(root, folder, completed=code == 0)
    return code


def sandboxed(folder: str, allow_unsandboxed: bool) -> bool:
    """Whether the kernel prevents writes outside a scope. OrchgitError (UNAVAILABLE) if not, unless that is allowed."""
    from orchgit.sandbox import best

    try:
        return best(allow_unsandboxed)[1].prevented
    except OrchgitError as error:
        hint = f"use Linux 6.2 or later with Landlock enabled, or: orchgit demo {quoted(folder)} --allow-unsandboxed"
        raise OrchgitError(error.kind, error.what, error.why, hint) from error


def say(*lines: str) -> None:
    print("\n".join(lines), file=sys.stderr, flush=True)


def empty_folder(folder: str) -> Path:
    """The folder, absolute and there. OrchgitError (USAGE) when something is in it: nothing is written over."""
    root = Path(folder).absolute()
    try:
        if root.is_dir() and any(root.iterdir()):
            ours = (root / PLAYBOOK).is_file()
            raise OrchgitError(
                Kind.USAGE, f"the folder {folder} is not empty", "the demo makes a repository of its own",
                "orchgit demo ANOTHER-FOLDER" + (f", or first: rm -rf {quoted(folder)}" if ours else ""),
            )  # fmt: skip
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrchgitError(
            Kind.USAGE, f"the folder {folder} cannot be made", error.strerror or str(error),
            "orchgit demo ANOTHER-FOLDER",
        ) from error  # fmt: skip
    return root.resolve()


def quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


# -- the repository --------------------------------------------------------------------------------------------------


def make_repository(root: Path, *, sandboxed: bool = True) -> int:
    """A repository with a history, set up as by `orchgit init`; the number of its commits."""
    from importlib.resources import files

    from orchgit import githooks, setup
    from orchgit.core.codec import dumps
    from orchgit.git.user import discover

    data = files("orchgit").joinpath("demo")
    git(root, "init", "--quiet", "--template=", "--initial-branch=main")
    git(root, "config", "user.name", "orchgit demo")
    git(root, "config", "user.email", "demo@orchgit.invalid")
    for path, text in texts(data.joinpath("repository")):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
    setup.init(root)
    (root / PLAYBOOK).write_text(dumps(playbook(data, sandboxed=sandboxed)), "utf-8")
    for subject, paths in HISTORY:
        git(root, "add", "--", *paths)
        git(root, "commit", "--quiet", "-m", subject)
    repo = discover(root)
    githooks.install(str(repo.common), repo.hooks_path, work_tree=str(root))
    return len(HISTORY)


def git(root: Path, *args: str) -> None:
    """Git in the demo's repository, whatever the user's own configuration says (signing, templates, hooks)."""
    import subprocess

    from orchgit.git.door import clean_env

    try:
        subprocess.run(["git", *args], cwd=root, env=clean_env(), check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        raise OrchgitError(Kind.USAGE, f"git {args[0]} did not work in {root}", said) from error


def texts(folder: Traversable, above: str = "") -> list[tuple[str, str]]:
    """(path, content) of every template below, in order."""
    found: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += texts(entry, f"{above}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            found.append((above + entry.name.removesuffix(SUFFIX), entry.read_text("utf-8")))
    return found


# -- the playbook ----------------------------------------------------------------------------------------------------


def playbook(data: Traversable, *, sandboxed: bool) -> dict[str, Any]:
    """The playbook as the scripted backend reads it, from demo/playbook.toml, which says how it is written."""
    import tomllib
    from copy import deepcopy

    source = tomllib.loads(data.joinpath("playbook.toml").read_text("utf-8"))

    def turn(told: dict[str, Any]) -> dict[str, Any]:
        writes = texts(data.joinpath("work", told["files"])) if "files" in told else []
        calls = [{"tool": c["tool"], "input": _joined(c["input"])} for c in told.get("calls", [])]
        calls += [{"tool": "write", "input": {"path": path, "content": text}} for path, text in writes]
        return {
            "text": told.get("text", ""), "calls": calls, "delay_ms": told.get("delay_ms", source["pace_ms"])
        }  # fmt: skip

    jobs = {
        key: [turn(told) for told in turns if sandboxed or not told.get("out_of_scope")]
        for key, turns in source["jobs"].items()
    }
    # Who asks for changes at the prompt gets an answer, if not the one hoped for.
    again = deepcopy(jobs["plan/1"][-1])
    plan = again["calls"][-1]["input"]
    plan["goal"] = f"(A script cannot follow you: this is the same plan again.) {plan['goal']}"
    return {"about": source["about"], "jobs": jobs, "default": {"plan": [again]}}


def _joined(value: Any, key: str = "") -> Any:
    """Paragraphs that were broken into lines for the reader of the file, on one line each; the rest as it is."""
    if isinstance(value, dict):
        return {k: _joined(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_joined(v, key) for v in value]
    if isinstance(value, str) and key in ("summary", "task", "detail"):
        return "\n\n".join(" ".join(part.split()) for part in value.strip().split("\n\n"))
    return value


# -- the end ---------------------------------------------------------------------------------------------------------


def farewell(root: Path, folder: str, *, completed: bool) -> None:
    """What a person may try now."""
    from orchgit.eventlog import all_runs
    from orchgit.git.user import common_dir

    runs = all_runs(common_dir(root))
    if not runs:
        return
    run = runs[0].run
    lines = ["", "That was the demo. Now you:" if completed else "The demo is not over. It is here:", ""]
    lines.append(f"  cd {quoted(folder)}")
    if completed:
        branch = f"orchgit/{run}/integration"
        lines += [
            "",
            "  orchgit log        # every event, as it was written",
            "  orchgit replay     # the story, told again from the log alone",
            "  orchgit report     # what was built, found, fixed, and left for you to look at",
            "  orchgit audit      # the log and git, checked against each other",
            f"  git log --graph --oneline {branch}",
            "",
            "Look at what was built (http://localhost:8000/teams/harbour/billing?as=ana):",
            "",
            f"  git switch --detach {branch}",
            "  python3 serve.py",
            "",
            "An experiment: say that the orchestrator had accepted what it sent back.",
            "",
            f"  LOG=.orchestration/runs/{run}/events.jsonl",
            '  sed -i.bak \'s/"reassign"/"accept"/\' $LOG',
            "  orchgit audit      # says no, and which event it is",
            "  mv $LOG.bak $LOG   # and it is as it was",
        ]
    else:
        lines += [f"  orchgit status {run}", f"  orchgit resume {run}"]
    say(*lines)
