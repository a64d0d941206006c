"""What lies on a person's machine and is nobody's business in a cell: hidden, by the levels that can hide."""

from __future__ import annotations

import os

# Below HOME: keys, tokens, and what other agents keep of their sessions.
IN_HOME = tuple(
    """
    .ssh .gnupg .aws .azure .kube .docker .config/gcloud .config/gh .config/glab-cli .config/hub .config/op
    .netrc .git-credentials .config/git/credentials .npmrc .yarnrc.yml .pypirc .gem/credentials
    .cargo/credentials .cargo/credentials.toml .m2/settings.xml .gradle/gradle.properties .terraform.d .vault-token
    .password-store .local/share/keyrings .pgpass .my.cnf .claude .claude.json .codex .gemini .config/opencode
    .bash_history .zsh_history .python_history
    """.split()  # noqa: SIM905
)
IN_ETC = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers.d", "/etc/ssl/private")


def secrets(home: str) -> tuple[str, ...]:
    """Real paths of those that exist."""
    below = (os.path.join(home, name) for name in IN_HOME) if os.path.isabs(home) else ()
    return tuple(dict.fromkeys(os.path.realpath(path) for path in (*below, *IN_ETC) if os.path.exists(path)))
