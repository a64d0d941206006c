"""`orchgit forge check`: a pull request of a run, checked on a fresh machine. `orchgit forge protect`: rulesets.

0 all holds · 1 out of scope, or the log does not hold · 2 it cannot be looked at · 6 cannot say.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchgit.core.errors import Kind, OrchgitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchgit.pullcheck import Asked, Checked


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="orchgit forge", allow_abbrev=False, description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check", help="check a pull request: scope, log, and that its head is the run's", allow_abbrev=False,
        description="In GitHub Actions it knows which; elsewhere say it.",
    )  # fmt: skip
    check.add_argument("--branch", default="", help="the pull request's branch: orchgit/RUN/ASSIGNMENT")
    check.add_argument("--into", default="", metavar="BRANCH", help="the branch that it goes into")
    check.add_argument("--base", default="", metavar="COMMIT", help="the commit it began at")
    check.add_argument("--head", default="", metavar="COMMIT", help="its head")
    check.add_argument("--remote", default="origin", help="the remote to fetch the log from (default: origin)")
    protect = actions.add_parser("protect", help="print rulesets for the repository", allow_abbrev=False)
    protect.add_argument("--print", action="store_true", required=True, help="as JSON; nothing is written at GitHub")
    protect.add_argument("--app", type=int, default=0, metavar="ID", help="the GitHub App that orchgit runs as")
    protect.add_argument("--user", type=int, default=0, metavar="ID", help="the user it runs as: gh api user --jq .id")
    protect.add_argument("--enterprise", action="store_true", help="for a GitHub Enterprise Server")
    try:
        given = parser.parse_args(args)
    except SystemExit as ended:
        return int(ended.code or 0)
    return _check(given) if given.action == "check" else _protect(given)


def _protect(given: argparse.Namespace) -> int:
    from orchgit.forge.rules import rulesets

    if bool(given.app) == bool(given.user):
        raise OrchgitError(
            Kind.USAGE, "who runs orchgit there?", "only it may move the branches of runs", "--app ID, or --user ID"
        )
    made = rulesets(given.app or given.user, "Integration" if given.app else "User", dotcom=not given.enterprise)
    print(json.dumps(made, indent=2))
    return 0


def _check(given: argparse.Namespace) -> int:
    from orchgit.forge import access
    from orchgit.pullcheck import check, remote_url

    env = os.environ
    asked = _asked(given, env)
    url = remote_url(Path.cwd(), given.remote)
    place = access.place_of(given.remote, url)
    token = env.get("GITHUB_TOKEN", "")
    # Only what is given for this: in CI there is nobody to ask, and a public repository needs none.
    more = access.push_env(place, access.Token(token, "GITHUB_TOKEN"), env) if place and token else {}
    found = check(Path.cwd(), asked, url, more)
    in_actions = env.get("GITHUB_ACTIONS") == "true"
    lines = _commands(found) if in_actions else _lines(found)
    sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
    if env.get("GITHUB_STEP_SUMMARY"):
        with open(env["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8", errors="backslashreplace") as summary:
            summary.write(_summary(found))
    return Kind.NO if found.problems else Kind.UNSURE if found.unsure else 0


def _asked(given: argparse.Namespace, env: Mapping[str, str]) -> Asked:
    """What was said, else what the event of GitHub Actions says. The event's texts are anybody's: data."""
    from orchgit.pullcheck import Asked

    if given.head:
        return Asked(given.branch, given.into, given.base or given.into, given.head)
    try:
        event = json.loads(Path(env["GITHUB_EVENT_PATH"]).read_text("utf-8"))
        if queue := event.get("merge_group"):
            into = str(queue["base_ref"]).removeprefix("refs/heads/")
            return Asked("", into, str(queue["base_sha"]), str(queue["head_sha"]))
        pull = event["pull_request"]
        head, base = pull["head"], pull["base"]
        # A fork's branch can have any name; only this repository's own can be a run's.
        ours = (head.get("repo") or {}).get("id") == base["repo"]["id"]
        return Asked(str(head["ref"]) if ours else "", str(base["ref"]), str(base["sha"]), str(head["sha"]))
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise OrchgitError(
            Kind.USAGE, "which pull request?", "this is no event of a pull request or of a merge queue"
            if env.get("GITHUB_EVENT_PATH") else "nothing was said, and this is not GitHub Actions",
            "orchgit forge check --branch orchgit/RUN/ASSIGNMENT --into main --base COMMIT --head COMMIT",
        ) from error  # fmt: skip


# ---- how it is said


def _lines(found: Checked) -> list[str]:
    from orchgit.report import safe

    lines = []
    for p in found.problems:
        lines += [f"! {safe(f'{p.path}: ' if p.path else '')}{safe(p.what)}", f"    → {safe(p.hint)}"]
    return [*lines, *(f"- {safe(note)}" for note in found.notes), _verdict(found)]


def _commands(found: Checked) -> list[str]:
    """Workflow commands; GitHub shows ten of a step, so what the whole is about comes before single files."""
    from orchgit.cli.check import LISTED, command_of

    whole_first = sorted(found.problems, key=lambda p: bool(p.path))
    lines = [command_of("error", p.path, f"{p.what}. {p.hint}") for p in whole_first[:LISTED]]
    lines += [command_of("warning", "", note) for note in found.notes]
    left = len(found.problems) - LISTED
    return [*lines, *([f"{left} more are not shown"] if left > 0 else []), _verdict(found)]


def _verdict(found: Checked) -> str:
    from orchgit.report import safe

    count = len(found.problems)
    said = f"{count} problem{'s' * (count != 1)}" if count else "cannot say" if found.unsure else "holds"
    return f"orchgit forge check: {said}: {safe(found.about)}"


def _summary(found: Checked) -> str:
    """Markdown, for the page of the check."""
    from orchgit.report_audit import audit_markdown, cell

    title = "out of order" if found.problems else "cannot say" if found.unsure else "in order"
    parts = [f"# {cell(found.about)}: {title}"]
    if found.problems:
        rows = [f"| {cell(p.path)} | {cell(p.what)} | {cell(p.hint)} |" for p in found.problems]
        parts.append("\n".join(["| path | what | what to do |", "| --- | --- | --- |", *rows]))
    if found.scope is not None:
        bad = len(found.scope.breaches)
        size = f"{found.scope.changes} changed files in {found.scope.commits} commits"
        parts.append(f"Scope: {size}, {f'{bad} violations' if bad else 'all in the scope of the approved plan'}.")
    parts += [f"- {cell(note)}" for note in found.notes]
    parts += [audit_markdown(told).replace("\n#", "\n##").replace("# ", "## ", 1) for told in found.audits]
    return "\n\n".join(parts) + "\n"
