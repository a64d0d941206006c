"""Which repository, with which token; and that the token shows up nowhere."""

from __future__ import annotations

import io
import logging
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Change, LineComment, Reference, Result, connect
from orchgit.forge.access import Place, find, place_of, push_env, token_for
from tests.support.forge_stage import Stage, key, leak, stage
from tests.support.github_server import Way
from tests.support.repos import ENV, git


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    root.mkdir()
    git(root, "init", "-q")
    return root


DOTCOM = Place("origin", "https", "github.com", "acme/shop", False)


# ---- which repository


@pytest.mark.parametrize(
    ("url", "host", "repo", "api"),
    [
        ("https://github.com/acme/shop.git", "github.com", "acme/shop", "https://api.github.com"),
        ("https://github.com/acme/shop/", "github.com", "acme/shop", "https://api.github.com"),
        ("https://x:ghp_secret@GitHub.com/acme/shop", "github.com", "acme/shop", "https://api.github.com"),
        ("git@github.com:acme/shop.git", "github.com", "acme/shop", "https://api.github.com"),
        ("github.com:acme/sh.op.git", "github.com", "acme/sh.op", "https://api.github.com"),
        ("ssh://git@ssh.github.com:443/acme/shop.git", "github.com", "acme/shop", "https://api.github.com"),
        ("https://ghe.acme.test:8443/acme/shop", "ghe.acme.test:8443", "acme/shop", "https://ghe.acme.test:8443/api/v3"),
        ("ssh://git@ghe.acme.test:2222/acme/shop", "ghe.acme.test", "acme/shop", "https://ghe.acme.test/api/v3"),
        ("https://acme.ghe.com/acme/shop", "acme.ghe.com", "acme/shop", "https://api.acme.ghe.com"),
        ("http://127.0.0.1:80/acme/shop.git", "127.0.0.1:80", "acme/shop", "http://127.0.0.1:80/api/v3"),
    ],
)  # fmt: skip
def test_a_remote_names_a_repository(url: str, host: str, repo: str, api: str) -> None:
    place = place_of("origin", url)
    assert place is not None
    assert (place.host, place.repo, place.api) == (host, repo, api)
    assert "secret" not in f"{place}{place!r}"


@pytest.mark.parametrize(
    "url", ["/srv/git/shop.git", "../shop", "file:///srv/shop.git", "https://github.com/shop", "https://x.test/a/b/c"]
)
def test_what_is_no_forge_is_none(url: str) -> None:
    assert place_of("origin", url) is None


def test_which_remote_it_is(clone: Path) -> None:
    with pytest.raises(OrchgitError) as no:
        find(clone, "", None)
    assert (no.value.kind, "git remote add origin" in no.value.hint) == (Kind.USAGE, True)
    git(clone, "remote", "add", "mine", "git@github.com:lea/shop.git")
    assert find(clone, "", None).repo == "lea/shop"
    git(clone, "remote", "add", "theirs", "https://github.com/acme/shop.git")
    with pytest.raises(OrchgitError) as no:
        find(clone, "", None)
    assert no.value.what == "which git remote is the forge?"
    assert find(clone, "theirs", None).repo == "acme/shop"
    assert find(clone, "", Reference(65, "Acme/Shop")).remote == "theirs"
    assert find(clone, "mine", Reference(65, "acme/shop", "github.com")).remote == "theirs"
    git(clone, "remote", "add", "origin", "/srv/shop.git")
    git(clone, "remote", "rename", "theirs", "upstream")
    git(clone, "remote", "set-url", "origin", "https://github.com/org/shop")
    assert find(clone, "", None).repo == "org/shop"
    for remote, wanted in (("nope", None), ("", Reference(1, "a/b")), ("", Reference(1, "acme/shop", "ghe.test"))):
        with pytest.raises(OrchgitError) as no:
            find(clone, remote, wanted)
        assert (no.value.kind, bool(no.value.hint)) == (Kind.USAGE, True)


def test_what_git_rewrites_is_rewritten(clone: Path) -> None:
    git(clone, "remote", "add", "origin", "gh:acme/shop")
    git(clone, "config", "url.https://github.com/.insteadOf", "gh:")
    assert find(clone, "", None).host == "github.com"


# ---- which token


def program(where: Path, name: str, text: str) -> dict[str, str]:
    """A program in front of the others."""
    folder = where / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return {**ENV, "PATH": f"{folder}:{ENV['PATH']}"}


def test_tokens_are_looked_for_in_order(clone: Path, tmp_path: Path) -> None:
    git(clone, "config", "credential.helper", "!f() { test $1 = get && echo username=x && echo password=of-git; }; f")
    env = program(tmp_path, "gh", 'test "$*" = "auth token --hostname github.com" && echo of-gh')
    given = {**env, "ORCHGIT_GITHUB_TOKEN": "of-orchgit", "GH_TOKEN": "of-gh-env", "GITHUB_TOKEN": "of-github"}
    found = []
    for name in ("ORCHGIT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "PATH"):
        found.append(token_for(DOTCOM, clone, given))
        given = {**given, name: ENV["PATH"] if name == "PATH" else ""}
    found.append(token_for(DOTCOM, clone, given))
    assert [(t.value, t.source) for t in found] == [
        ("of-orchgit", "ORCHGIT_GITHUB_TOKEN"), ("of-gh-env", "GH_TOKEN"), ("of-github", "GITHUB_TOKEN"),
        ("of-gh", "gh"), ("of-git", "git's credential helper"),
    ]  # fmt: skip
    assert push_env(DOTCOM, found[4], given) == {}  # git has it by itself
    git(clone, "config", "--unset", "credential.helper")
    with pytest.raises(OrchgitError) as no:
        token_for(DOTCOM, clone, given)
    assert no.value.kind is Kind.UNAVAILABLE
    assert "gh auth login --hostname github.com" in no.value.hint


@pytest.mark.parametrize("host", ["evil.test", "evil.ghe.com"])
def test_a_token_for_github_is_not_offered_to_another_host(clone: Path, host: str) -> None:
    other = Place("origin", "https", host, "acme/shop", False)
    env = {**ENV, "GH_TOKEN": "of-gh-env", "GITHUB_TOKEN": "of-github"}
    with pytest.raises(OrchgitError) as no:
        token_for(other, clone, env)
    assert "GH_TOKEN" not in no.value.why
    assert token_for(other, clone, {**env, "GH_HOST": host}).value == "of-gh-env"
    assert token_for(other, clone, {**ENV, "GITHUB_TOKEN": "t", "GITHUB_SERVER_URL": f"https://{host}"}).value == "t"
    assert token_for(other, clone, {**env, "ORCHGIT_GITHUB_TOKEN": "named"}).value == "named"


def test_what_is_no_token_is_refused_without_showing_it(clone: Path) -> None:
    with pytest.raises(OrchgitError) as no:
        token_for(DOTCOM, clone, {**ENV, "ORCHGIT_GITHUB_TOKEN": "two\nlines"})
    assert "two" not in str(no.value)


# ---- pushing


def test_git_is_let_in_for_one_push_and_keeps_nothing(here: Stage, tmp_path: Path) -> None:
    told = tmp_path / "told"
    git(here.root, "config", "credential.helper", f'!f() {{ echo "$1" >> {told}; cat >> {told}; }}; f')
    git(here.root, "remote", "set-url", "origin", here.github.clone_url.replace("://", "://somebody@"))
    git(here.root, "checkout", "-q", "-b", "api")
    forge = here.forge()
    again = {**ENV, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.version", "GIT_CONFIG_VALUE_0": "HTTP/1.1"}
    env = here.forge(env={**again, **here.env()}).push_env()
    git(here.root, "push", "-q", "origin", "api", env={**again, **env})
    assert here.github.hub.branch("api")
    assert not told.exists()  # neither asked nor told what the token is
    git(here.root, "fetch", "-q", "origin", env=forge.push_env())
    with pytest.raises(AssertionError, match=r"could not read Password|Authentication failed|terminal prompts"):
        git(here.root, "push", "-q", "origin", "api:web", env={"GIT_TERMINAL_PROMPT": "0"})


@pytest.mark.parametrize("path", [".husky", ""])
def test_no_hook_of_the_repository_s_sees_the_token(here: Stage, tmp_path: Path, path: str) -> None:
    stolen, folder = tmp_path / "stolen", here.root / (path or ".git/hooks")
    folder.mkdir(exist_ok=True)
    for name in ("pre-push", "reference-transaction"):
        (folder / name).write_text(f"#!/bin/sh\nenv >> {stolen}\n")
        (folder / name).chmod(0o755)
    if path:
        git(here.root, "config", "core.hooksPath", path)
    git(here.root, "push", "-q", "origin", "main:api", env=here.forge().push_env())
    git(here.root, "fetch", "-q", "origin", env=here.forge().push_env())
    assert here.github.hub.branch("api")
    assert not stolen.exists()


def test_a_push_by_who_may_not_is_refused(here: Stage) -> None:
    git(here.root, "checkout", "-q", "-b", "api")
    with pytest.raises(AssertionError, match="403"):
        git(here.root, "push", "-q", "origin", "api", env=here.forge("rea").push_env())


def test_the_helper_answers_for_its_host_alone(here: Stage) -> None:
    env = {**ENV, **here.forge().push_env(), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""}
    for asked, found in (
        (f"protocol=http\nhost={here.github.host}\n\n", True),
        ("protocol=https\nhost=evil.test\n\n", False),
    ):
        done = subprocess.run(
            ["git", "credential", "fill"],
            input=asked.encode(),
            env=env,
            cwd=here.root,
            capture_output=True,
            check=False,
        )
        assert (here.github.hub.people["bot"].token.encode() in done.stdout) is found


def test_ssh_needs_no_token(clone: Path) -> None:
    git(clone, "remote", "add", "origin", "git@github.com:acme/shop.git")
    env = {**ENV, "ORCHGIT_GITHUB_TOKEN": "ghp_" + "x" * 36}
    assert connect("github", clone, env, tell=print, stop=threading.Event()).push_env() == {}


# ---- and nowhere to be seen


def test_the_token_is_nowhere_to_be_seen(here: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    token = here.github.hub.people["bot"].token
    listening, said = io.StringIO(), []
    handler = logging.StreamHandler(listening)
    logging.getLogger().addHandler(handler)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        forge = here.forge()
        number = here.github.issue("x", by="lea")
        sha = here.push("api", {"api.txt": "x"}, on="main")
        here.github.limit("GET", "/user", "secondary", retry_after="1")
        forge.note(number, key("progress"), "x")
        made = forge.change(key("change/api"), Change("t", "b", "api", "main"))
        forge.status(key("scope/api"), sha, Result("orchgit/scope", "success", "x"))
        forge.review(made.number, key("review/1"), sha, "x", (LineComment("api.txt", 1, "y"),), "comment")
        git(here.root, "checkout", "-q", "-b", "web")
        git(here.root, "push", "-q", "origin", "web", env=forge.push_env())
        ways: tuple[Way, ...] = ("before", "cut")
        for way in ways:
            here.github.fault("", "/comments", way, times=99)
            with pytest.raises(OrchgitError) as no:
                forge.comments(number)
            said.append(f"{no.value!r}{no.value}{no.value.__cause__!r}{no.value.__context__!r}")
        here.github.hub.people["bot"].token = "another"
        with pytest.raises(OrchgitError) as no:
            forge.issue(number)
        said.append(f"{no.value!r}{no.value}{no.value.__cause__!r}")
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(level)
    out, err = capfd.readouterr()
    everything = [out, err, listening.getvalue(), *said, *here.told, repr(forge), repr(vars(forge)["_client"])]
    assert "HTTP/1.1" in listening.getvalue()  # it was listened to
    assert [text for text in everything if token in text] == []
    assert leak(tmp_path, token) == []
    assert [s for s in here.github.requests if token in s.path] == []
