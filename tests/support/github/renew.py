"""Renews `openapi.json`: GitHub's own description of its API, cut to the operations that orchgit uses.

    python -m tests.support.github.renew            # needs npm; VERSION below is what is fetched

GitHub publishes it, the npm package @octokit/openapi carries it (MIT, see LICENSE beside this file). What is kept is as
published, but for descriptions and examples, which no check reads.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

VERSION = "23.0.2"
HERE = Path(__file__).parent
REPO = "/repos/{owner}/{repo}"
OPERATIONS: dict[str, tuple[str, ...]] = {
    "/user": ("get",),
    REPO: ("get",),
    f"{REPO}/check-runs": ("post",),
    f"{REPO}/check-runs/{{check_run_id}}": ("get", "patch"),
    f"{REPO}/collaborators/{{username}}/permission": ("get",),
    f"{REPO}/commits/{{ref}}/check-runs": ("get",),
    f"{REPO}/commits/{{ref}}/statuses": ("get",),
    f"{REPO}/issues": ("post",),
    f"{REPO}/issues/comments/{{comment_id}}": ("delete", "patch"),
    f"{REPO}/issues/{{issue_number}}": ("get", "patch"),
    f"{REPO}/issues/{{issue_number}}/comments": ("get", "post"),
    f"{REPO}/issues/{{issue_number}}/labels": ("post",),
    f"{REPO}/pulls": ("get", "post"),
    f"{REPO}/pulls/{{pull_number}}": ("get", "patch"),
    f"{REPO}/pulls/{{pull_number}}/comments": ("get",),
    f"{REPO}/pulls/{{pull_number}}/files": ("get",),
    f"{REPO}/pulls/{{pull_number}}/merge": ("put",),
    f"{REPO}/pulls/{{pull_number}}/reviews": ("get", "post"),
    f"{REPO}/rulesets": ("post",),
    f"{REPO}/statuses/{{sha}}": ("post",),
}
ALSO = ("#/components/schemas/basic-error", "#/components/schemas/validation-error")
DROPPED = ("description", "example", "examples", "externalDocs", "x-github", "x-octokit", "tags", "summary", "headers")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        package = f"@octokit/openapi@{VERSION}"
        argv = ["npm", "install", package, "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", scratch]
        subprocess.run(argv, check=True)
        came = Path(scratch) / "node_modules/@octokit/openapi"
        whole = json.loads((came / "generated/api.github.com.json").read_text())
        shutil.copyfile(came / "LICENSE", HERE / "LICENSE")
    (HERE / "openapi.json").write_text(lines(cut(whole)))


def lines(node: dict[str, Any], depth: int = 2) -> str:
    """JSON with a line for each path and each schema, so that a renewal is a diff that can be read."""
    parts = []
    for name, value in sorted(node.items()):
        deeper = depth and name in ("paths", "components", "schemas", "parameters", "responses")
        text = lines(value, depth - 1).rstrip() if deeper else json.dumps(value, sort_keys=True, separators=(",", ":"))
        parts.append(f"{json.dumps(name)}:{text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def cut(whole: dict[str, Any]) -> dict[str, Any]:
    paths = {}
    for path, methods in OPERATIONS.items():
        paths[path] = {method: bare(whole["paths"][path][method]) for method in methods}
    components: dict[str, dict[str, Any]] = {}
    waiting = [*references(paths), *ALSO]
    while waiting:
        _, _, kind, name = waiting.pop().split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = bare(whole["components"][kind][name])
            waiting += references(components[kind][name])
    return {
        "openapi": whole["openapi"],
        "info": {"title": whole["info"]["title"], "version": VERSION, "license": whole["info"]["license"]},
        "paths": paths,
        "components": components,
    }


def bare(node: Any, *, names: bool = False) -> Any:
    """Without prose. `names`: the keys are names of properties, and "description" is one."""
    if isinstance(node, list):
        return [bare(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {k: bare(v, names=k == "properties" and not names) for k, v in node.items() if names or k not in DROPPED}


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [ref for each in node for ref in references(each)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [ref for each in node.values() for ref in references(each)]


if __name__ == "__main__":
    main()
