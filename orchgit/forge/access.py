"""Which repository at GitHub this one is, and with which token it is asked.

The token goes to the host it was given for and to nobody else: one that the environment holds for github.com is not
offered to whatever host a remote happens to name.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Reference

_DEADLINE_S = 15  # for gh and git's credential helper, which can ask a server or a keyring
# git asks twice, for https://HOST only, and forgets the helpers it was configured with: ours alone answers.
_HELPER = '!f() { test "$1" = get && printf "username=x-access-token\\npassword=%s\\n" "$ORCHGIT_PUSH_TOKEN"; }; f'


@dataclass(frozen=True)
class Place:
    """One repository, as a remote of ours names it."""

    remote: str
    scheme: str  # https; http for a server on this machine
    host: str  # with the port, if any
    repo: str  # owner/name
    over_ssh: bool

    def __str__(self) -> str:
        return f"{self.host}/{self.repo}"

    @property
    def dotcom(self) -> bool:
        """GitHub's own service, and not somebody's Enterprise Server."""
        return self.host == "github.com" or self.host.endswith(".ghe.com")

    @property
    def api(self) -> str:
        return f"{self.scheme}://api.{self.host}" if self.dotcom else f"{self.scheme}://{self.host}/api/v3"

    @property
    def graphql(self) -> str:
        return f"{self.api}/graphql" if self.dotcom else f"{self.scheme}://{self.host}/api/graphql"


_HTTP = re.compile(r"(https?)://(?:[^@/]*@)?([A-Za-z0-9.-]+(?::[0-9]+)?)/+(.+)")
_SSH = re.compile(r"(?:ssh|git\+ssh)://(?:[^@/]*@)?([A-Za-z0-9._-]+)(?::[0-9]+)?/+(.+)")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?([A-Za-z0-9._-]+):(?!/)(.+)")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?:_[A-Za-z0-9]+)?/[A-Za-z0-9._-]+")


def place_of(remote: str, url: str) -> Place | None:
    """The repository that a remote's URL names; None for a path, or anything else that is no forge."""
    if found := _HTTP.fullmatch(url):
        scheme, host, path = found[1], found[2].lower(), found[3]
        ssh = False
    elif found := _SSH.fullmatch(url) or _SCP.fullmatch(url):
        scheme, host, path = "https", found[1].lower(), found[2]
        ssh = True
    else:
        return None
    host = {"ssh.github.com": "github.com", "www.github.com": "github.com"}.get(host, host)
    repo = path.rstrip("/").removesuffix(".git")
    return Place(remote, scheme, host, repo, ssh) if _REPO.fullmatch(repo) else None


def find(root: Path, remote: str, wanted: Reference | None) -> Place:
    """The repository of `remote`; without one, the only one there is, or origin; with `wanted`, the one it is of."""
    urls = _urls(root)
    places = {name: place for name, url in urls.items() if (place := place_of(name, url))}
    if remote and remote not in urls:
        raise OrchgitError(
            Kind.USAGE, f"there is no git remote {remote!r}", f"git has: {', '.join(urls) or 'none'}",
            f"git remote add {remote} URL, or another remote in [forge]",
        )  # fmt: skip
    if remote and remote not in places:
        raise OrchgitError(
            Kind.USAGE, f"the git remote {remote!r} is not a repository at GitHub", "its URL names no owner/name",
            f"git remote get-url {remote}",
        )  # fmt: skip
    if wanted and wanted.repo:
        return _match({name: _named(root, place) for name, place in places.items()}, remote, wanted)
    if remote:
        return _named(root, places[remote])
    if "origin" in places or len(places) == 1:
        return _named(root, places.get("origin") or next(iter(places.values())))
    raise OrchgitError(
        Kind.USAGE, "no git remote is a repository at GitHub" if not places else "which git remote is the forge?",
        f"git has: {', '.join(urls) or 'none'}",
        "git remote add origin https://github.com/OWNER/NAME.git" if not places
        else f'set remote = "{next(iter(places))}" in [forge] of .orchestration/config.toml',
    )  # fmt: skip


def _match(places: Mapping[str, Place], remote: str, wanted: Reference) -> Place:
    for name in sorted(places, key=lambda n: (n != remote, n != "origin", n)):
        place = places[name]
        if place.repo.lower() == wanted.repo.lower() and wanted.host in ("", place.host):
            return place
    known = ", ".join(f"{name} is {place}" for name, place in places.items()) or "there is none"
    where = f"{wanted.host}/{wanted.repo}" if wanted.host else wanted.repo
    raise OrchgitError(
        Kind.USAGE, f"{where} is no remote of this repository", known,
        "run it in a clone of that repository, or: git remote add NAME URL",
    )  # fmt: skip


def _named(root: Path, place: Place) -> Place:
    """With the real name of a host that ssh knows by another one (github-work)."""
    if not place.over_ssh or "." in place.host or place.host == "localhost":
        return place
    try:
        said = subprocess.run(
            ["ssh", "-G", place.host], cwd=root, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=10
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return place
    real = re.search(r"^hostname ([A-Za-z0-9.-]+)$", said, re.MULTILINE)
    return place_of(place.remote, f"git@{real[1]}:{place.repo}") or place if real else place


def _urls(root: Path) -> dict[str, str]:
    """Remote -> where it is pushed to, `insteadOf` applied."""
    said = subprocess.run(["git", "remote", "-v"], cwd=root, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    found = re.findall(r"^(\S+)\t(.*) \(push\)$", said.stdout.decode("utf-8", "replace"), re.MULTILINE)
    return dict(reversed(found))  # a remote may have several: the first one counts


@dataclass(frozen=True, repr=False)
class Token:
    """`source`: where it is from, for words."""

    value: str
    source: str
    helper: bool = False  # git has it by itself

    @property
    def of_app(self) -> bool:
        """An installation token, of a GitHub App or of Actions: only these may make check runs."""
        return self.value.startswith("ghs_")


def token_for(place: Place, root: Path, env: Mapping[str, str]) -> Token:
    """ORCHGIT_GITHUB_TOKEN, GH_TOKEN, GITHUB_TOKEN, gh, git's credential helper; OrchgitError when none has one."""
    for name in ("ORCHGIT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"):
        value = env.get(name, "").strip()
        if value and (name == "ORCHGIT_GITHUB_TOKEN" or _meant(place, env)):
            if not re.fullmatch(r"[\x21-\x7e]+", value):
                raise OrchgitError(Kind.USAGE, f"{name} is not a token", "it holds characters that no token has")
            return Token(value, name)
    if value := _said(["gh", "auth", "token", "--hostname", place.host], root, env):
        return Token(value, "gh")
    asked = f"protocol={place.scheme}\nhost={place.host}\npath={place.repo}.git\n\n"
    silent = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GCM_INTERACTIVE": "never"}
    said = _said(["git", "-c", "core.askPass=", "credential", "fill"], root, {**env, **silent}, asked)
    if found := re.search(r"^password=([\x21-\x7e]+)$", said, re.MULTILINE):
        return Token(found[1], "git's credential helper", helper=True)
    raise OrchgitError(
        Kind.UNAVAILABLE, f"there is no token for {place.host}",
        "looked in ORCHGIT_GITHUB_TOKEN" + (", GH_TOKEN, GITHUB_TOKEN" if _meant(place, env) else "")
        + ", gh and git's credential helper",
        f"gh auth login --hostname {place.host}, or set ORCHGIT_GITHUB_TOKEN",
    )  # fmt: skip


def push_env(place: Place, token: Token, env: Mapping[str, str]) -> dict[str, str]:
    """What lets one git process in over https; the token is in its environment, never in its arguments or its URL.

    Hooks would inherit it, and `core.hooksPath` may lead to files that the repository itself tracks: none is run.
    """
    if place.over_ssh or token.helper:
        return {}
    count = int(env.get("GIT_CONFIG_COUNT") or 0)  # what is configured by the environment already stays
    key = f"credential.{place.scheme}://{place.host}.helper"
    return {
        f"GIT_CONFIG_KEY_{count}": key, f"GIT_CONFIG_VALUE_{count}": "",
        f"GIT_CONFIG_KEY_{count + 1}": key, f"GIT_CONFIG_VALUE_{count + 1}": _HELPER,
        f"GIT_CONFIG_KEY_{count + 2}": "core.hooksPath", f"GIT_CONFIG_VALUE_{count + 2}": os.devnull,
        "GIT_CONFIG_COUNT": str(count + 3), "GIT_TERMINAL_PROMPT": "0", "ORCHGIT_PUSH_TOKEN": token.value,
    }  # fmt: skip


def _meant(place: Place, env: Mapping[str, str]) -> bool:
    """Whether tokens that are for GitHub at large are for this host: github.com, or the server that is named for it."""
    named = {env.get("GH_HOST", ""), urlsplit(env.get("GITHUB_SERVER_URL", "")).netloc}
    return place.host == "github.com" or place.host in named


def _said(argv: list[str], root: Path, env: Mapping[str, str], asked: str = "") -> str:
    try:
        done = subprocess.run(
            argv, cwd=root, env=dict(env), input=asked.encode(), capture_output=True, check=False, timeout=_DEADLINE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
