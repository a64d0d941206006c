"""Rulesets for GitHub that make the check required and keep the branches of runs for whoever runs orchgit. Pure.

https://docs.github.com/rest/repos/rules: each is one `POST /repos/OWNER/NAME/rulesets`, or one import in the settings.
"""

from __future__ import annotations

from typing import Any, Literal

CHECK = "orchgit"  # the job of the workflow in docs/github.md
ACTIONS = 15368  # GitHub Actions, as an App at github.com: nobody else's "orchgit" counts

Bypass = Literal["Integration", "User"]


def rulesets(bot: int, kind: Bypass, *, dotcom: bool) -> list[dict[str, Any]]:
    """`bot`: id of the App ("Integration") or user whose token orchgit runs with."""
    check: dict[str, Any] = {"context": CHECK}
    if dotcom:
        check["integration_id"] = ACTIONS
    return [
        {
            "name": "orchgit: scope and log are checked before a merge",
            "target": "branch",
            "enforcement": "active",
            "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
            "rules": [
                {
                    "type": "required_status_checks",
                    "parameters": {"required_status_checks": [check], "strict_required_status_checks_policy": False},
                }
            ],
        },
        {
            "name": "orchgit: the branches of runs are the engine's",
            "target": "branch",
            "enforcement": "active",
            "bypass_actors": [{"actor_id": bot, "actor_type": kind, "bypass_mode": "always"}],
            "conditions": {"ref_name": {"include": ["refs/heads/orchgit/**/*"], "exclude": []}},
            "rules": [{"type": "creation"}, {"type": "update"}, {"type": "deletion"}, {"type": "non_fast_forward"}],
        },
    ]
