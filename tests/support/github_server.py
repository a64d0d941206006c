"""A GitHub on loopback: its REST over state of its own, and git over http on a real bare repository.

What is pushed is git's own, and so are shas, diffs and merges (`github/hub.py`). Every request, and every answer, is
checked against GitHub's published description (`github/spec.py`): `problems` must be empty at the end of a test. It is
strict about tokens, and writes none down.

    with GitHub(tmp_path, "acme/shop") as hub:
        hub.person("lea", "write"); hub.person("bot", "write", token="ghs_…", app=True)
        git remote add origin {hub.clone_url}              # token by GIT_ASKPASS or credential helper
        hub.issue("Title", "body", by="lea")               # people act: comment, review, push, merge
        hub.fault("POST", "/comments", "after")            # the next such write is done, and its answer is a 502
        hub.lossy = True                                    # every write is done, and its answer lost, once

By itself: `python -m tests.support.github_server --repo acme/shop --dir D [--port N]` prints its address and tokens.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from orchgit.forge import key_of
from tests.support.github.hub import Hub, No, Person, Thing
from tests.support.github.spec import Spec

API, GRAPHQL = "/api/v3", "/api/graphql"
REPO = "/repos/{owner}/{repo}"
# before: not done, and a 5xx; after: done, and a 5xx; cut: done, and the connection ends without an answer; refuse: not
# done, with `status` and `headers` (limits)
Way = Literal["before", "after", "cut", "refuse"]
_SPEC: list[Spec] = []


def unkeyed(body: str) -> str:
    """The body without the line that a key of ours is in."""
    return body.partition("\n")[2] if key_of(body) else body


@dataclass
class Fault:
    method: str
    path: str  # a part of it
    way: Way
    times: int = 1
    skip: int = 0  # so many such requests go well before
    status: int = 502
    message: str = "Server Error"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One request, without its token."""

    method: str
    path: str
    login: str
    status: int
    body: Any = None


class GitHub:
    """Tests act through it; `hub` is the state behind."""

    def __init__(self, root: Path, repo: str = "acme/shop", *, port: int = 0) -> None:
        owner, _, name = repo.partition("/")
        self.repo, self.root = repo, root
        self.bare = root / owner / f"{name}.git"
        if not self.bare.exists():
            self.bare.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.bare)], check=True)
        if not _SPEC:
            _SPEC.append(Spec())
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self._server.daemon_threads = True
        self._server.github = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.hub = Hub(owner, name, self.bare, self.url, _SPEC[0])
        self.spec = _SPEC[0]
        self.lock = threading.RLock()
        self.requests: list[Seen] = []
        self.problems: list[str] = []
        self.faults: list[Fault] = []
        self.lossy = False
        self.on_request: Callable[[str, str], None] | None = None  # (method, path), before anything is done
        self.on_write: Callable[[int, str, str], None] | None = None  # (how many so far, method, path), once it is done
        self._writes = 0
        self._lost: set[str] = set()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def clone_url(self) -> str:
        return f"{self.url}/{self.repo}.git"

    # ---- people, and what they do

    def person(self, login: str, permission: str = "write", *, token: str = "", app: bool = False) -> str:
        """The token of a new person, or of one whose permission changes."""
        made = token or (self.hub.people[login].token if login in self.hub.people else "")
        made = made or ("ghs_" if app else "ghp_") + hashlib.sha256(login.encode()).hexdigest()[:36]
        with self.lock:
            self.hub.people[login] = Person(login, permission, made, app)
        return made

    def issue(self, title: str, body: str = "", *, by: str, labels: list[str] | None = None) -> int:
        with self.lock:
            return self.hub.add(title, body, by, labels).number

    def comment(self, number: int, body: str, *, by: str) -> int:
        return int(self._as(by, "post_comment", str(number), {"body": body})["id"])

    def review(
        self, number: int, event: str, body: str, *, by: str, comments: list[dict[str, Any]] | None = None
    ) -> int:
        asked = {"event": event, "body": body, "comments": comments or []}
        return int(self._as(by, "post_review", str(number), asked)["id"])

    def merge(self, number: int, *, by: str) -> str:
        return str(self._as(by, "put_merge", str(number), {})["sha"])

    def edit(self, number: int, *, by: str, **fields: Any) -> None:
        """A pull request's title, body, state or base."""
        self._as(by, "patch_pull", str(number), fields)

    def _as(self, login: str, what: str, *args: Any) -> Any:
        with self.lock:
            return getattr(self.hub, what)(self.hub.people[login], *args)[1]

    def thing(self, number: int) -> Thing:
        return self.hub.things[number]

    @property
    def pulls(self) -> list[Thing]:
        return [t for t in self.hub.things.values() if t.head]

    def writes(self, method: str = "", path: str = "") -> list[Seen]:
        """The writes that were done, by API."""
        found = [s for s in self.requests if s.method != "GET" and s.status < 300 and "git-" not in s.path]
        return [s for s in found if method in ("", s.method) and path in s.path]

    def fault(
        self, method: str, path: str, way: Way, *, times: int = 1, skip: int = 0, status: int = 502,
        message: str = "Server Error", headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.faults.append(Fault(method, path, way, times, skip, status, message, headers or {}))

    def limit(self, method: str, path: str, kind: Literal["secondary", "primary"], **headers: str) -> None:
        """A rate limit, once. Headers as keywords: retry_after="1"; "primary" has a reset in a second of its own."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        words = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        if kind == "primary":
            words = "API rate limit exceeded for user ID 1."
            said = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 1), **said}
        self.fault(method, path, "refuse", status=403, message=words, headers=said)

    # ---- called by the handler

    def who(self, authorization: str) -> Person | None:
        """None for nobody; No(401) for a wrong token."""
        kind, _, given = authorization.partition(" ")
        if not given:
            return None
        token = base64.b64decode(given).decode().partition(":")[2] if kind == "Basic" else given
        found = next((p for p in self.hub.people.values() if p.token == token), None)
        if found is None:
            raise No(401, "Bad credentials")
        return found

    def due(self, method: str, path: str, *, lose: str = "") -> Fault | None:
        """The fault that this request meets, if any."""
        for fault in self.faults:
            if fault.method in (method, "") and fault.path in path and fault.times > 0:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        if self.lossy and lose and lose not in self._lost:
            self._lost.add(lose)
            return Fault(method, path, "after")
        return None

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, person: Person) -> tuple[int, Any]:
        if path == "/graphql" and method == "POST":
            return 200, {"data": {"viewer": {"login": person.login}}}
        found = self.spec.operation(method, path)
        if found is None:
            self.problems.append(f"{method} {path} is not in the slice")
            raise No(404, "Not Found")
        template, values = found
        problems = list(self.spec.request(method, template, query, body))
        if problems:
            self.problems += [f"{method} {path}: {p}" for p in problems]
            raise No(422, "Invalid request.", problems)
        if template.startswith(REPO):
            owner, name, *values = values  # type: ignore[assignment]
            if f"{owner}/{name}".lower() != self.repo.lower():
                raise No(404, "Not Found")
        return self._call(method, template, list(values), query, body, person)

    def _call(
        self, method: str, template: str, values: list[str], query: dict[str, str], body: Any, person: Person
    ) -> tuple[int, Any]:
        what, takes = OPERATIONS[method, template.removeprefix(REPO)]
        args: list[Any] = [*values, *({"query": query, "body": body}[name] for name in takes)]
        try:
            made: tuple[int, Any] = getattr(self.hub, what)(person, *args)
        except No as no:
            self._check(method, template, no.status, no.body)
            raise
        self._check(method, template, *made)
        return made

    def _check(self, method: str, template: str, status: int, body: Any) -> None:
        self.problems += [
            f"answer to {method} {template}: {p}" for p in self.spec.answer(method, template, status, body)
        ]

    def wrote(self, method: str, path: str) -> None:
        self._writes += 1
        if self.on_write is not None:
            self.on_write(self._writes, method, path)


# (method, template without the repository) -> (method of Hub, what it takes beside the path's values)
OPERATIONS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("GET", "/user"): ("get_user", ()),
    ("GET", ""): ("get_repo", ()),
    ("GET", "/collaborators/{username}/permission"): ("get_permission", ()),
    ("POST", "/issues"): ("post_issue", ("body",)),
    ("GET", "/issues/{issue_number}"): ("get_issue", ()),
    ("PATCH", "/issues/{issue_number}"): ("patch_issue", ("body",)),
    ("GET", "/issues/{issue_number}/comments"): ("get_comments", ("query",)),
    ("POST", "/issues/{issue_number}/comments"): ("post_comment", ("body",)),
    ("PATCH", "/issues/comments/{comment_id}"): ("patch_comment", ("body",)),
    ("DELETE", "/issues/comments/{comment_id}"): ("delete_comment", ()),
    ("POST", "/issues/{issue_number}/labels"): ("post_labels", ("body",)),
    ("GET", "/pulls"): ("get_pulls", ("query",)),
    ("POST", "/pulls"): ("post_pull", ("body",)),
    ("GET", "/pulls/{pull_number}"): ("get_pull", ()),
    ("PATCH", "/pulls/{pull_number}"): ("patch_pull", ("body",)),
    ("PUT", "/pulls/{pull_number}/merge"): ("put_merge", ("body",)),
    ("GET", "/pulls/{pull_number}/files"): ("get_files", ()),
    ("GET", "/pulls/{pull_number}/reviews"): ("get_reviews", ()),
    ("POST", "/pulls/{pull_number}/reviews"): ("post_review", ("body",)),
    ("GET", "/pulls/{pull_number}/comments"): ("get_lines", ()),
    ("POST", "/statuses/{sha}"): ("post_status", ("body",)),
    ("GET", "/commits/{ref}/statuses"): ("get_statuses", ()),
    ("POST", "/check-runs"): ("post_check", ("body",)),
    ("GET", "/check-runs/{check_run_id}"): ("get_check", ()),
    ("PATCH", "/check-runs/{check_run_id}"): ("patch_check", ("body",)),
    ("GET", "/commits/{ref}/check-runs"): ("get_checks", ("query",)),
    ("POST", "/rulesets"): ("post_ruleset", ("body",)),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def github(self) -> GitHub:
        found: GitHub = self.server.github  # type: ignore[attr-defined]
        return found

    def handle_any(self) -> None:
        data = self._data()
        path = urlsplit(self.path).path
        if path.startswith(API) or path == GRAPHQL:
            self._api(path.removeprefix(API) if path.startswith(API) else "/graphql", data)
        else:
            self._git(path, data)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def _data(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    # ---- REST

    def _api(self, path: str, data: bytes) -> None:
        method, query = self.command, dict(parse_qsl(urlsplit(self.path).query))
        login, fault, headers = "", None, dict[str, str]()
        body = json.loads(data) if data else None
        with self.github.lock:
            try:
                person = self.github.who(self.headers.get("Authorization", ""))
                if person is None:
                    raise No(401, "Requires authentication")
                login = person.login
                if self.github.on_request is not None:
                    self.github.on_request(method, path)
                write = method != "GET" and path != "/graphql"
                mark = hashlib.sha256(f"{method} {path}".encode() + data).hexdigest() if write else ""
                fault = self.github.due(method, path, lose=mark)
                if fault and fault.way == "refuse":
                    headers = dict(fault.headers)
                    raise No(fault.status, fault.message)
                if fault and fault.way == "before":
                    raise No(fault.status, fault.message)
                status, answer = self.github.answer(method, path, query, body, person)
                if write:
                    self.github.wrote(method, path)
            except No as no:
                status, answer = no.status, no.body
            status, headers, sent = self._shaped(status, answer, headers, query)
            self.github.requests.append(Seen(method, path, login, status, body))
        if fault and fault.way == "cut":
            self.close_connection = True
        elif fault and fault.way == "after":
            self._send(fault.status, {}, b"<html>Bad Gateway</html>")
        else:
            self._send(status, headers, sent)

    def _shaped(
        self, status: int, answer: Any, headers: dict[str, str], query: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """A page of a list, or nothing where the client has it already."""
        if self.command == "GET" and status == 200 and isinstance(answer, list):
            size, page = min(int(query.get("per_page", 30)), 100), int(query.get("page", 1))
            if len(answer) > size * page:
                rest = urlencode({**query, "page": str(page + 1)})
                headers["Link"] = f'<{self.github.url}{urlsplit(self.path).path}?{rest}>; rel="next"'
            answer = answer[size * (page - 1) : size * page]
        if status == 301 and isinstance(answer, dict):
            headers["Location"] = answer["url"]
        data = b"" if answer is None else json.dumps(answer).encode()
        if self.command == "GET" and status == 200:
            headers["ETag"] = f'W/"{hashlib.sha256(data).hexdigest()}"'
            if self.headers.get("If-None-Match") == headers["ETag"]:
                status, data = 304, b""
        return status, {"Content-Type": "application/json; charset=utf-8", **headers}, data

    def _send(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # ---- git

    def _git(self, path: str, data: bytes) -> None:
        query = urlsplit(self.path).query
        push = "git-receive-pack" in path or "git-receive-pack" in query
        with self.github.lock:
            try:
                person = self.github.who(self.headers.get("Authorization", ""))
                if person is None:
                    raise No(401, "Requires authentication")
                self.github.hub.need(person, "write" if push else "read")
                fault = self.github.due(self.command, path, lose="")
                if fault and fault.way in ("before", "refuse"):
                    raise No(fault.status, fault.message)
            except No as no:
                basic = {"WWW-Authenticate": 'Basic realm="GitHub"'} if no.status == 401 else {}
                self._send(no.status, {"Content-Type": "text/plain", **basic}, str(no).encode())
                return
            status, headers, answer = self._backend(path, query, data, person.login)
            self.github.hub.sync()
            self.github.requests.append(Seen(self.command, path, person.login, status))
            if push and self.command == "POST":
                self.github.wrote("PUSH", path)
            if fault and fault.way == "cut":
                self.close_connection = True
                return
        self._send(status, headers, answer)

    def _backend(self, path: str, query: str, data: bytes, login: str) -> tuple[int, dict[str, str], bytes]:
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.github.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "REQUEST_METHOD": self.command, "QUERY_STRING": query, "REMOTE_USER": login,
            "REMOTE_ADDR": "127.0.0.1", "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(data)), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nonexistent",
            "GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            "GIT_CONFIG_KEY_1": "http.receivepack", "GIT_CONFIG_VALUE_1": "true",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=data, env=env, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = re.match(r"\d+", headers.pop("Status", "200 OK"))
        return int(status[0]) if status else 500, headers, answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repo", default="acme/shop")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    with GitHub(Path(given.dir), given.repo, port=given.port) as github:
        print(github.clone_url, {login: github.person(login) for login in ("bot", "lea")}, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
