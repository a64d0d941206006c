"""`orchgit audit [RUN]`: the laws of the log, and git against the log. 0 all hold · 1 a violation · 6 cannot say.

Offline, in a clean-room git; from the run's directory where that is, else from the log that was published.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchgit.cli.common import Json, RunName


def command(
    run: RunName = "",
    as_json: Json = False,
    form: Annotated[
        Literal["text", "markdown", "json"], typer.Option("--format", help="How to tell it.")
    ] = "text",
    markdown: Annotated[bool, typer.Option("--markdown", help="A report to file; as --format markdown.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run the recorded checks again, on their trees.")] = False,
) -> int:  # fmt: skip
    """Check the log, and git against the log."""
    from orchgit.auditor import Audit
    from orchgit.core.errors import Kind
    from orchgit.git.user import common_dir
    from orchgit.report_audit import audit_json, audit_lines, audit_markdown

    with Audit(common_dir(Path.cwd()), run) as audit:
        told = audit.judge(rerun=rerun)
    if as_json or form == "json":
        print(json.dumps(audit_json(told), indent=2))
    elif markdown or form == "markdown":
        print(audit_markdown(told), end="")
    else:
        print("\n".join(audit_lines(told)))
    if any(r.verdict == "violation" for r in told.results):
        return Kind.NO
    return Kind.UNSURE if any(r.verdict == "inconclusive" for r in told.results) else 0
