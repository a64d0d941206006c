"""A second opinion: the forge against `emulate` of npm, a stand-in for GitHub that others wrote. Needs Node and npm.

It has no commit statuses, no git over http, no GraphQL, takes no line comments in a review, and shows no pull request
among the issues; what of the forge needs these is not asked here. pytest -m whole tests/edges/test_forge_emulate.py
"""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Change, Key, Result, key_of
from orchgit.forge.access import Place
from orchgit.forge.client import NEAR, Client
from orchgit.forge.github import GitHub
from tests.support.github_server import unkeyed

VERSION = "0.11.2"  # npm's "latest" is an unrelated package of the same name; 0.12 needs a newer Node
SEED = """
tokens:
  tok_bot: {login: bot, scopes: [repo, user]}
  tok_lea: {login: lea, scopes: [repo, user]}
github:
  users: [{login: bot}, {login: lea}]
  repos: [{owner: bot, name: shop, auto_init: true}]
"""
RUN = "20260101-000000-aaaa"

pytestmark = pytest.mark.whole


class Emulated:
    def __init__(self, url: str) -> None:
        self.url = url
        self.place = Place("origin", "http", url.removeprefix("http://"), "bot/shop", False)

    def forge(self, token: str = "tok_bot", *, of_app: bool = False) -> GitHub:
        """A new one each time, which knows nothing of what another one did."""
        client = Client(self.url, token, "a test", pace=NEAR, tell=print, stop=threading.Event())
        return GitHub(self.place, client, of_app=of_app)

    def ask(self, method: str, path: str, body: Any = None, token: str = "tok_lea") -> Any:
        import httpx2

        headers = {"Authorization": f"Bearer {token}"}
        said = httpx2.request(method, f"{self.url}/repos/bot/shop{path}", json=body, headers=headers)
        assert said.status_code < 300, said.text
        return said.json()

    def branch(self, name: str, path: str) -> str:
        """A branch with one more file than main; its head."""
        main = self.ask("GET", "/git/ref/heads/main")["object"]["sha"]
        self.ask("POST", "/git/refs", {"ref": f"refs/heads/{name}", "sha": main}, "tok_bot")
        body = {"message": "work", "content": base64.b64encode(b"x\n").decode(), "branch": name}
        return str(self.ask("PUT", f"/contents/{path}", body, "tok_bot")["commit"]["sha"])


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    root = tmp_path_factory.mktemp("emulate")
    argv = [npm, "install", f"emulate@{VERSION}", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(root)]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"npm has no emulate@{VERSION} for us: {done.stderr.decode()[-200:]}")
    (root / "seed.yaml").write_text(SEED)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = root / "node_modules/emulate/dist/index.js"
    argv = [node, str(program), "start", "--service", "github", "--port", str(port), "--seed", str(root / "seed.yaml")]
    with (root / "said").open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said, cwd=root) as child:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("localhost", port)) == 0:
                        break
                time.sleep(0.1)
            yield Emulated(f"http://localhost:{port}")
        finally:
            child.terminate()


def key(what: str) -> Key:
    return Key(RUN, what)


def test_the_issue_and_its_comments(there: Emulated) -> None:
    issue = there.ask("POST", "/issues", {"title": "Invoices", "body": "as PDF", "labels": ["feature"]})["number"]
    for n in range(120):
        there.ask("POST", f"/issues/{issue}/comments", {"body": f"comment {n}"})
    forge = there.forge()
    assert forge.me() == "bot"
    seen = forge.issue(issue)
    assert (seen.title, seen.body, seen.author, seen.state) == ("Invoices", "as PDF", "lea", "open")
    assert [c.body for c in forge.comments(issue)] == [f"comment {n}" for n in range(120)]
    assert forge.may_write("bot")
    for body in ("begun", "begun", "done"):
        there.forge().note(issue, key("progress"), body)
    ours = [c for c in forge.comments(issue) if c.ours]
    assert [(key_of(c.body), unkeyed(c.body)) for c in ours] == [(key("progress"), "done")]
    for _ in range(2):
        there.forge().close(issue)
    assert forge.issue(issue).state == "closed"
    with pytest.raises(OrchgitError) as no:
        forge.issue(10_000)
    assert no.value.kind is Kind.NO


def test_a_pull_request_to_its_merge(there: Emulated) -> None:
    head = there.branch("api", "api.txt")
    asked = Change("The api", "All of it", "api", "main", ("orchgit",))
    made = [there.forge().change(key("change/api"), asked) for _ in range(2)]
    assert made[0].number == made[1].number
    forge, number = there.forge(), made[0].number
    again = forge.change(key("change/api"), Change("The API", "All of it", "api", "main", ("orchgit",)))
    assert (again.number, forge.look(number).title) == (number, "The API")
    body = {"body": "no", "event": "REQUEST_CHANGES"}
    there.ask("POST", f"/pulls/{number}/reviews", body)
    assert [(r.author, r.state, r.body) for r in forge.reviews(number)] == [("lea", "changes_requested", "no")]
    head = forge.look(number).head_sha or head
    merged = {there.forge().merge(number, head, "Merge the api", "") for _ in range(2)}
    seen = forge.look(number)
    assert (seen.merged, {seen.merge_sha}) == (True, merged)


def test_a_merge_of_what_was_not_verified(there: Emulated) -> None:
    there.branch("web", "web.txt")
    forge = there.forge()
    number = forge.change(key("change/web"), Change("The web", "All of it", "web", "main")).number
    with pytest.raises(OrchgitError) as no:
        forge.merge(number, "1" * 40, "t", "m")
    assert (no.value.kind, "head moved" in no.value.what) == (Kind.NO, True)
    assert not forge.look(number).merged


def test_a_check_run(there: Emulated) -> None:
    sha = there.branch("docs", "docs.txt")
    for state in ("pending", "success", "success"):
        there.forge(of_app=True).status(key("scope/docs/1"), sha, Result("orchgit/scope", state, "in scope"))
    runs = there.ask("GET", f"/commits/{sha}/check-runs")["check_runs"]
    assert [(r["name"], r["status"], r["conclusion"]) for r in runs] == [("orchgit/scope", "completed", "success")]
