"""What GitHub knows and what it allows: one repository, its people, issues, pull requests, reviews and results.

Commits, branches, diffs and merges are git's own, in a bare repository that is really pushed to. The rules, and the
words they are refused with, are GitHub's as far as they are known; where they differ from GitHub's, correct them here.
Every method is called with the lock held, and answers (status, body).
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.github.spec import Spec

Body = Any
ORDER = ("none", "read", "triage", "write", "maintain", "admin")


class No(Exception):
    def __init__(self, status: int, message: str, errors: list[Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message, "documentation_url": "https://docs.github.com/rest"}
        if errors is not None:
            self.body["errors"] = errors


def invalid(resource: str, field_name: str) -> No:
    return No(422, "Validation Failed", [{"resource": resource, "field": field_name, "code": "invalid"}])


def custom(resource: str, message: str) -> No:
    return No(422, "Validation Failed", [{"resource": resource, "code": "custom", "message": message}])


@dataclass
class Person:
    login: str
    permission: str  # of ORDER
    token: str
    app: bool = False  # its token is an installation's: no user, but check runs


@dataclass
class Thing:
    """An issue or, with a head, a pull request."""

    number: int
    title: str
    body: str | None
    author: str
    created: str
    state: str = "open"
    reason: str | None = None
    labels: list[str] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    head: str = ""
    base: str = ""
    head_sha: str = ""
    base_sha: str = ""
    draft: bool = False
    merged: str = ""  # when
    merge_sha: str = ""
    merged_by: str = ""
    reviews: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    moved_to: str = ""


class Hub:
    def __init__(self, owner: str, name: str, bare: Path, url: str, spec: Spec) -> None:
        self.owner, self.name, self.bare, self.url, self.spec = owner, name, bare, url, spec
        self.api = f"{url}/api/v3"
        self.people: dict[str, Person] = {}
        self.things: dict[int, Thing] = {}
        self.statuses: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.archived, self.has_issues, self.parent, self.private = False, True, "", True
        self.required_checks: tuple[str, ...] = ()
        self.required_approvals = 0
        self._last = 1000

    # ---- ids, times, git

    def next_id(self) -> int:
        self._last += 1
        return self._last

    def git(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(["git", *args], cwd=self.bare, capture_output=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"git {args}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "surrogateescape").strip("\n") if done.returncode == 0 else ""

    def branch(self, name: str) -> str:
        return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{name}", check=False)

    def ahead(self, base: str, head: str) -> bool:
        return self.git("rev-list", "-n", "1", f"{base}..{head}") != ""

    def sync(self) -> None:
        """What a push does to open pull requests: a new head, closed without a branch, merged when contained."""
        for thing in self.things.values():
            if not thing.head or thing.state == "closed":
                continue
            head, base = self.branch(thing.head), self.branch(thing.base)
            if not head or not base:
                thing.state = "closed"
                continue
            thing.head_sha, thing.base_sha = head, base
            if not self.ahead(base, head):
                onward = self.git("rev-list", "--reverse", "--ancestry-path", f"{head}..{base}").split()
                self._merged(thing, onward[0] if onward else base, "")

    def _merged(self, thing: Thing, sha: str, by: str) -> None:
        thing.state, thing.merged, thing.merge_sha, thing.merged_by = "closed", now(), sha, by
        for number in re.findall(r"(?i)\b(?:fix(?:es|ed)?|close[sd]?|resolve[sd]?):? #(\d+)", thing.body or ""):
            issue = self.things.get(int(number))
            if issue and not issue.head and self.git("symbolic-ref", "--short", "HEAD") == thing.base:
                issue.state, issue.reason = "closed", "completed"

    # ---- who may

    def may(self, person: Person, least: str) -> bool:
        return ORDER.index(person.permission) >= ORDER.index(least)

    def need(self, person: Person, least: str, words: str = "Resource not accessible by personal access token") -> None:
        if self.archived and least != "read":
            raise No(403, "Repository was archived so is read-only.")
        if not self.may(person, "read") and self.private:
            raise No(404, "Not Found")
        if not self.may(person, least):
            raise No(403, words)

    def thing(self, number: str) -> Thing:
        found = self.things.get(int(number)) if number.isdigit() else None
        if found is not None and not found.head and not self.has_issues:
            raise No(410, "Issues has been disabled in this repository.")
        if found is None:
            raise No(404, "Not Found") if self.has_issues else No(410, "Issues has been disabled in this repository.")
        return found

    def pull(self, number: str) -> Thing:
        found = self.things.get(int(number)) if number.isdigit() else None
        if found is None or not found.head:
            raise No(404, "Not Found")
        return found

    # ---- how things look

    def see_user(self, login: str) -> dict[str, Any]:
        kind = "Bot" if login.endswith("[bot]") else "User"
        made: dict[str, Any] = self.spec.fill(
            "simple-user", {"login": login, "type": kind, "id": int.from_bytes(login.encode()) % 10**6}
        )
        return made

    def see_issue(self, thing: Thing) -> dict[str, Any]:
        known: dict[str, Any] = {
            "id": thing.number + 10**6, "number": thing.number, "title": thing.title, "body": thing.body,
            "user": self.see_user(thing.author), "state": thing.state, "state_reason": thing.reason,
            "labels": [{"name": name} for name in thing.labels], "comments": len(thing.comments),
            "author_association": self.association(thing.author), "created_at": thing.created,
            "html_url": f"{self.url}/{self.owner}/{self.name}/{'pull' if thing.head else 'issues'}/{thing.number}",
            "repository_url": f"{self.api}/repos/{self.owner}/{self.name}",
        }  # fmt: skip
        if thing.head:
            links = dict.fromkeys(("url", "html_url", "diff_url", "patch_url"), f"{self.api}/pulls/{thing.number}")
            known["pull_request"] = {**links, "merged_at": thing.merged or None}
        made: dict[str, Any] = self.spec.fill("issue", known)
        return made

    def association(self, login: str) -> str:
        person = self.people.get(login)
        if login == self.owner:
            return "OWNER"
        return "COLLABORATOR" if person and self.may(person, "write") else "NONE"

    def see_pull(self, thing: Thing, *, whole: bool) -> dict[str, Any]:
        def end(ref: str, sha: str) -> dict[str, Any]:
            full = f"{self.owner}/{self.name}"
            repo = self.spec.fill(
                "repository", {"name": self.name, "full_name": full, "owner": self.see_user(self.owner)}
            )
            return {
                "ref": ref,
                "sha": sha,
                "label": f"{self.owner}:{ref}",
                "repo": repo,
                "user": self.see_user(self.owner),
            }

        known: dict[str, Any] = {
            "id": thing.number + 2 * 10**6, "number": thing.number, "title": thing.title, "body": thing.body,
            "user": self.see_user(thing.author), "state": thing.state, "draft": thing.draft,
            "html_url": f"{self.url}/{self.owner}/{self.name}/pull/{thing.number}",
            "labels": [self.spec.fill("label", {"name": name, "description": ""}) for name in thing.labels],
            "head": end(thing.head, thing.head_sha), "base": end(thing.base, thing.base_sha),
            "merged_at": thing.merged or None, "merge_commit_sha": thing.merge_sha or None,
            "closed_at": thing.merged or None, "created_at": thing.created,
            "author_association": self.association(thing.author),
            "_links": {name: {"href": "https://github.test/x"} for name in (
                "comments", "commits", "statuses", "html", "issue", "review_comments", "review_comment", "self")},
        }  # fmt: skip
        if whole:
            known |= {"merged": bool(thing.merged), "mergeable": None if thing.merged else True}
            known["merged_by"] = self.see_user(thing.merged_by) if thing.merged_by else None
        made: dict[str, Any] = self.spec.fill("pull-request" if whole else "pull-request-simple", known)
        return made

    # ---- the operations, by method and template

    def get_user(self, who: Person) -> Body:
        if who.app:
            raise No(403, "Resource not accessible by integration")
        return 200, self.spec.fill("private-user", {**self.see_user(who.login)})

    def get_repo(self, who: Person) -> Body:
        self.need(who, "read")
        full = f"{self.owner}/{self.name}"
        known: dict[str, Any] = {
            "name": self.name, "full_name": full, "owner": self.see_user(self.owner), "archived": self.archived,
            "has_issues": self.has_issues, "fork": bool(self.parent), "private": self.private,
            "permissions": {level: self.may(who, {"pull": "read", "push": "write"}.get(level, level))
                            for level in ("admin", "maintain", "push", "triage", "pull")},
        }  # fmt: skip
        if self.parent:
            owner, _, name = self.parent.partition("/")
            parent = {"name": name, "full_name": self.parent, "owner": self.see_user(owner)}
            known["parent"] = self.spec.fill("repository", parent)
        return 200, self.spec.fill("full-repository", known)

    def get_permission(self, who: Person, login: str) -> Body:
        self.need(who, "write", "Must have push access to view collaborator permission.")
        if login not in self.people:
            raise No(404, f"{login} is not a user")
        level = self.people[login].permission
        seen = {"maintain": "write", "triage": "read"}.get(level, level)
        return 200, {"permission": seen, "role_name": level, "user": None}

    # issues

    def post_issue(self, who: Person, body: Body) -> Body:
        self.need(who, "read")
        if not self.has_issues:
            raise No(410, "Issues has been disabled in this repository.")
        return 201, self.see_issue(self.add(body["title"], body.get("body"), who.login, labels=body.get("labels", [])))

    def add(self, title: str, text: str | None, author: str, labels: list[str] | None = None) -> Thing:
        number = len(self.things) + 1
        self.things[number] = Thing(number, title, text, author, now(), labels=list(labels or []))
        return self.things[number]

    def get_issue(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        thing = self.thing(number)
        if thing.moved_to:
            return 301, {"message": "Moved Permanently", "url": thing.moved_to, "documentation_url": "https://x"}
        return 200, self.see_issue(thing)

    def patch_issue(self, who: Person, number: str, body: Body) -> Body:
        thing = self.thing(number)
        self.need(who, "read" if who.login == thing.author else "triage")
        if self.archived:
            raise No(403, "Repository was archived so is read-only.")
        thing.title, thing.body = body.get("title", thing.title), body.get("body", thing.body)
        thing.state = body.get("state", thing.state)
        thing.reason = body.get("state_reason") or ("completed" if thing.state == "closed" and not thing.head else None)
        return 200, self.see_issue(thing)

    def get_comments(self, who: Person, number: str, query: dict[str, str]) -> Body:
        self.need(who, "read")
        return 200, [c for c in self.thing(number).comments if c["updated_at"] >= query.get("since", "")]

    def post_comment(self, who: Person, number: str, body: Body) -> Body:
        thing = self.thing(number)
        if self.archived:
            raise No(403, "Repository was archived so is read-only.")
        self.need(who, "read")
        long(body["body"], "IssueComment")
        made: dict[str, Any] = self.spec.fill(
            "issue-comment",
            {
                "id": self.next_id(), "body": body["body"], "user": self.see_user(who.login), "created_at": now(),
                "updated_at": now(), "author_association": self.association(who.login),
                "html_url": f"{self.url}/{self.owner}/{self.name}/issues/{number}#issuecomment-{self._last}",
            },
        )  # fmt: skip
        thing.comments.append(made)
        return 201, made

    def _comment(self, number: str) -> tuple[Thing, dict[str, Any]]:
        for thing in self.things.values():
            for comment in thing.comments:
                if str(comment["id"]) == number:
                    return thing, comment
        raise No(404, "Not Found")

    def patch_comment(self, who: Person, number: str, body: Body) -> Body:
        _, comment = self._comment(number)
        self.need(who, "read" if comment["user"]["login"] == who.login else "write")
        if self.archived:
            raise No(403, "Repository was archived so is read-only.")
        long(body["body"], "IssueComment")
        comment |= {"body": body["body"], "updated_at": now()}
        return 200, comment

    def delete_comment(self, who: Person, number: str) -> Body:
        thing, comment = self._comment(number)
        self.need(who, "write")
        thing.comments.remove(comment)
        return 204, None

    def post_labels(self, who: Person, number: str, body: Body) -> Body:
        self.need(who, "triage")
        thing = self.thing(number)
        thing.labels += [name for name in dict.fromkeys(body["labels"]) if name not in thing.labels]
        return 200, [self.spec.fill("label", {"name": name}) for name in thing.labels]

    # pull requests

    def get_pulls(self, who: Person, query: dict[str, str]) -> Body:
        self.need(who, "read")
        state, head = query.get("state", "open"), query.get("head", "")
        found = [t for t in self.things.values() if t.head and state in ("all", t.state)]
        # Where `head` is not of the form user:branch, GitHub leaves it out of account.
        if ":" in head:
            found = [t for t in found if f"{self.owner}:{t.head}" == head]
        if "base" in query:
            found = [t for t in found if t.base == query["base"]]
        return 200, [self.see_pull(t, whole=False) for t in sorted(found, key=lambda t: -t.number)]

    def post_pull(self, who: Person, body: Body) -> Body:
        self.need(who, "write")
        head = body["head"].removeprefix(f"{self.owner}:")
        base = body["base"]
        if not self.branch(base):
            raise invalid("PullRequest", "base")
        if not self.branch(head):
            raise invalid("PullRequest", "head")
        if not self.ahead(base, head):
            raise custom("PullRequest", f"No commits between {base} and {head}")
        if any(t.head == head and t.base == base and t.state == "open" for t in self.things.values()):
            raise custom("PullRequest", f"A pull request already exists for {self.owner}:{head}.")
        long(body.get("body") or "", "PullRequest")
        thing = self.add(body["title"], body.get("body"), who.login)
        thing.head, thing.base, thing.draft = head, base, body.get("draft", False)
        thing.head_sha, thing.base_sha = self.branch(head), self.branch(base)
        return 201, self.see_pull(thing, whole=True)

    def get_pull(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        return 200, self.see_pull(self.pull(number), whole=True)

    def patch_pull(self, who: Person, number: str, body: Body) -> Body:
        thing = self.pull(number)
        self.need(who, "write")
        long(body.get("body") or "", "PullRequest")
        if "base" in body and body["base"] != thing.base:
            if thing.state != "open":
                raise custom("PullRequest", "Cannot change the base branch of a closed pull request.")
            if not self.branch(body["base"]):
                raise invalid("PullRequest", "base")
            if not self.ahead(body["base"], thing.head):
                words = f"There are no new commits between base branch '{body['base']}' and head branch '{thing.head}'"
                raise custom("PullRequest", words)
            thing.base, thing.base_sha = body["base"], self.branch(body["base"])
        if body.get("state") == "open" and thing.merged:
            raise invalid("PullRequest", "state")
        thing.state = body.get("state", thing.state)
        thing.title, thing.body = body.get("title", thing.title), body.get("body", thing.body)
        return 200, self.see_pull(thing, whole=True)

    def put_merge(self, who: Person, number: str, body: Body) -> Body:
        thing = self.pull(number)
        self.need(who, "write")
        body = body or {}
        if thing.draft:
            raise No(405, "Pull Request is still a draft")
        if thing.state != "open":
            raise No(405, "Pull Request is not mergeable")
        if body.get("sha", thing.head_sha) != thing.head_sha:
            raise No(409, "Head branch was modified. Review and try the merge again.")
        for context in self.required_checks:
            if self.result(thing.head_sha, context) != "success":
                raise No(405, f'Required status check "{context}" is expected.')
        if self.approvals(thing) < self.required_approvals:
            raise No(405, "At least 1 approving review is required by reviewers with write access.")
        tree = self.git("merge-tree", "--write-tree", thing.base_sha, thing.head_sha, check=False)
        if not tree:
            raise No(405, "Pull Request is not mergeable")
        message = f"{body.get('commit_title') or f'Merge #{number}'}\n\n{body.get('commit_message') or ''}"
        identity = ("-c", f"user.name={who.login}", "-c", f"user.email={who.login}@users.noreply.github.test")
        sha = self.git(*identity, "commit-tree", tree, "-p", thing.base_sha, "-p", thing.head_sha, "-m", message)
        self.git("update-ref", f"refs/heads/{thing.base}", sha, thing.base_sha)
        self._merged(thing, sha, who.login)
        self.sync()
        return 200, {"sha": sha, "merged": True, "message": "Pull Request successfully merged"}

    def result(self, sha: str, context: str) -> str:
        """What counts for a required check: the last word said, "" for none."""
        said = [s["state"] for s in self.statuses if s["sha"] == sha and s["context"] == context]
        ran = [c["conclusion"] for c in self.checks if c["head_sha"] == sha and c["name"] == context]
        return str([*said, *ran][-1]) if said or ran else ""

    def approvals(self, thing: Thing) -> int:
        last = {r["user"]["login"]: r["state"] for r in thing.reviews if r["state"] != "COMMENTED"}
        return sum(state == "APPROVED" and self.may(self.people[who], "write") for who, state in last.items())

    def diff(self, thing: Thing) -> dict[str, tuple[str, str, list[int]]]:
        """Path -> (status, patch, lines of the new side that can be commented)."""
        start = self.git("merge-base", thing.base_sha, thing.head_sha)
        listed = self.git("diff", "--no-renames", "--name-status", "-z", start, thing.head_sha).split("\0")
        words = {"A": "added", "D": "removed", "M": "modified", "T": "changed"}
        found = {}
        for status, path in zip(listed[::2], listed[1::2], strict=False):
            text = self.git("diff", "--no-renames", "--no-color", start, thing.head_sha, "--", path)
            patch = text[text.index("\n@@ ") + 1 :] if "\n@@ " in text else ""
            lines = []
            for hunk in re.split(r"^(?=@@ )", patch, flags=re.MULTILINE)[1:]:
                header, *rows = hunk.rstrip("\n").split("\n")
                first = int(re.findall(r"\+(\d+)", header)[0])
                lines += [first + i for i, _ in enumerate(row for row in rows if row[0] in "+ ")]
            found[path] = (words[status], patch, lines)
        return found

    def get_files(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        made = []
        for path, (status, patch, _) in self.diff(self.pull(number)).items():
            adds = sum(row.startswith("+") for row in patch.split("\n"))
            cuts = sum(row.startswith("-") for row in patch.split("\n"))
            known = {"filename": path, "status": status, "additions": adds, "deletions": cuts, "changes": adds + cuts}
            made.append(self.spec.fill("diff-entry", known | ({"patch": patch} if patch else {})))
        return 200, made

    # reviews

    def get_reviews(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        seen = [r for r in self.pull(number).reviews if r["state"] != "PENDING" or r["user"]["login"] == who.login]
        return 200, seen

    def get_lines(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        return 200, self.pull(number).lines

    def post_review(self, who: Person, number: str, body: Body) -> Body:
        thing = self.pull(number)
        self.need(who, "read")
        event = (body or {}).get("event")
        if who.login == thing.author and event in ("APPROVE", "REQUEST_CHANGES"):
            words = "approve" if event == "APPROVE" else "request changes on"
            raise No(422, "Unprocessable Entity", [f"Can not {words} your own pull request"])
        if event in ("COMMENT", "REQUEST_CHANGES") and not body.get("body"):
            raise No(422, "Unprocessable Entity", ["You need to leave a comment indicating the requested changes."])
        long(body.get("body") or "", "PullRequestReview")
        commit = body.get("commit_id") or thing.head_sha
        if not self.git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", check=False):
            raise No(422, "Unprocessable Entity", ["The commit_id is not part of the pull request"])
        shown = self.diff(thing)
        for comment in body.get("comments", []):
            if comment["path"] not in shown:
                raise No(422, "Unprocessable Entity", ["Path could not be resolved"])
            if comment.get("line") not in shown[comment["path"]][2]:
                raise No(422, "Unprocessable Entity", ["Line could not be resolved"])
        states = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}
        review: dict[str, Any] = self.spec.fill(
            "pull-request-review",
            {
                "id": self.next_id(), "body": body.get("body") or "", "state": states.get(str(event), "PENDING"),
                "user": self.see_user(who.login), "commit_id": commit, "submitted_at": now(),
                "author_association": self.association(who.login),
                "html_url": f"{self.url}/{self.owner}/{self.name}/pull/{number}#pullrequestreview-{self._last}",
                "_links": {"html": {"href": "https://x.test"}, "pull_request": {"href": "https://x.test"}},
            },
        )  # fmt: skip
        for comment in body.get("comments", []):
            known = {
                "id": self.next_id(), "pull_request_review_id": review["id"], "path": comment["path"],
                "line": comment["line"], "original_line": comment["line"], "side": comment.get("side", "RIGHT"),
                "body": comment["body"], "user": self.see_user(who.login), "commit_id": commit,
                "original_commit_id": commit, "author_association": self.association(who.login),
            }  # fmt: skip
            thing.lines.append(self.spec.fill("pull-request-review-comment", known))
        thing.reviews.append(review)
        return 200, review

    # results

    def post_status(self, who: Person, sha: str, body: Body) -> Body:
        self.need(who, "write")
        if not self.git("rev-parse", "--verify", "--quiet", f"{sha}^{{commit}}", check=False):
            raise No(422, f"No commit found for SHA: {sha}")
        if len(body.get("description") or "") > 140:
            raise custom("Status", "description is too long (maximum is 140 characters)")
        made = self.spec.fill(
            "status",
            {
                "id": self.next_id(), "state": body["state"], "context": body.get("context", "default"),
                "description": body.get("description"), "target_url": body.get("target_url"),
                "creator": self.see_user(who.login), "created_at": now(), "updated_at": now(),
            },
        )  # fmt: skip
        self.statuses.append({**made, "sha": sha})
        return 201, made

    def get_statuses(self, who: Person, sha: str) -> Body:
        self.need(who, "read")
        found = [s for s in reversed(self.statuses) if s["sha"] == sha]
        return 200, [{k: v for k, v in s.items() if k != "sha"} for s in found]

    def _app(self, who: Person) -> None:
        self.need(who, "read")
        if not who.app:
            raise No(403, "You must authenticate via a GitHub App.")
        self.need(who, "write")

    def post_check(self, who: Person, body: Body) -> Body:
        self._app(who)
        if not self.git("rev-parse", "--verify", "--quiet", f"{body['head_sha']}^{{commit}}", check=False):
            raise No(422, f"No commit found for SHA: {body['head_sha']}")
        run: dict[str, Any] = self.spec.fill("check-run", {
            "id": self.next_id(), "name": body["name"], "head_sha": body["head_sha"], "notes": []})  # fmt: skip
        run["output"] |= {"title": None, "summary": None, "text": None}
        self.checks.append(run)
        return 201, self._set_check(run, body)

    def _set_check(self, run: dict[str, Any], body: Body) -> dict[str, Any]:
        output = body.get("output", {})
        notes = output.get("annotations", [])
        if len(notes) > 50:
            raise custom("CheckRun", "No more than 50 items are allowed; annotations")
        if body.get("status") == "completed" and not body.get("conclusion"):
            raise invalid("CheckRun", "conclusion")
        run["notes"] += notes
        run |= {k: body[k] for k in ("status", "conclusion", "external_id", "details_url") if k in body}
        run["output"] |= {k: output[k] for k in ("title", "summary", "text") if k in output}
        run["output"]["annotations_count"] = len(run["notes"])
        return {k: v for k, v in run.items() if k != "notes"}

    def _check(self, number: str) -> dict[str, Any]:
        found = next((c for c in self.checks if str(c["id"]) == number), None)
        if found is None:
            raise No(404, "Not Found")
        return found

    def get_check(self, who: Person, number: str) -> Body:
        self.need(who, "read")
        return 200, {k: v for k, v in self._check(number).items() if k != "notes"}

    def patch_check(self, who: Person, number: str, body: Body) -> Body:
        self._app(who)
        return 200, self._set_check(self._check(number), body)

    def get_checks(self, who: Person, sha: str, query: dict[str, str]) -> Body:
        self.need(who, "read")
        found = [c for c in self.checks if c["head_sha"] == sha and query.get("check_name") in (None, c["name"])]
        seen = [{k: v for k, v in c.items() if k != "notes"} for c in reversed(found)]
        return 200, {"total_count": len(seen), "check_runs": seen}

    def post_ruleset(self, who: Person, body: Body) -> Body:
        self.need(who, "admin")
        return 201, self.spec.fill("repository-ruleset", {**body, "id": self.next_id(), "source": self.name})


def long(text: str, resource: str) -> None:
    if len(text) > 65536:
        raise custom(resource, "body is too long (maximum is 65536 characters)")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
