"""Results as check runs, which only a GitHub App's token may make: with details, and annotations on the lines.

One run per key, commit and context, found again by its external id. GitHub takes 50 annotations a call and appends
them, so how many are there already says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchgit.forge import Key, LineComment, Result
from orchgit.forge import answers as a
from orchgit.forge.client import Client

BATCH = 50
TEXT_MAX = 65_535
ANNOTATIONS_MAX = 500
_CONCLUSIONS = {"success": "success", "failure": "failure", "error": "failure"}


class CheckRuns:
    def __init__(self, client: Client, repo: str) -> None:
        self._client, self._repo = client, repo

    def say(self, key: Key, sha: str, result: Result) -> None:
        asked = _asked(key, result)
        notes = result.comments[:ANNOTATIONS_MAX]
        made = {**asked, "head_sha": sha, "output": {**asked["output"], "annotations": _annotations(notes[:BATCH])}}
        run = self._client.once(
            lambda: self._find(key, sha, result.context),
            lambda: a.parse(a.CheckAnswer, self._client.create("POST", f"{self._repo}/check-runs", made)),
        )
        if not _same(run, asked):
            run = self._set(run.id, asked)
        while run.output.annotations_count < len(notes):
            run = self._add(run, asked, notes)

    def _find(self, key: Key, sha: str, context: str) -> a.CheckAnswer | None:
        said = self._client.get(
            f"{self._repo}/commits/{sha}/check-runs", check_name=context, filter="all", per_page=100
        )  # fmt: skip
        runs = [a.parse(a.CheckAnswer, raw) for raw in (said or {}).get("check_runs", [])]
        return next((run for run in runs if run.external_id == str(key)), None)

    def _set(self, run: int, asked: dict[str, Any]) -> a.CheckAnswer:
        return a.parse(a.CheckAnswer, self._client.put("PATCH", f"{self._repo}/check-runs/{run}", asked))

    def _add(self, run: a.CheckAnswer, asked: dict[str, Any], notes: Sequence[LineComment]) -> a.CheckAnswer:
        """The next annotations. Appending is not setting: it looks whether they came, before it sends them again."""
        had = run.output.annotations_count
        batch = {**asked, "output": {**asked["output"], "annotations": _annotations(notes[had : had + BATCH])}}
        at = f"{self._repo}/check-runs/{run.id}"

        def look() -> a.CheckAnswer | None:
            now = a.parse(a.CheckAnswer, self._client.get(at))
            return now if now.output.annotations_count > had else None

        return self._client.once(look, lambda: a.parse(a.CheckAnswer, self._client.create("PATCH", at, batch)))


def _asked(key: Key, result: Result) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "name": result.context,
        "external_id": str(key),
        "output": {
            "title": result.description[:255] or result.context,
            "summary": (result.details or result.description)[:TEXT_MAX],
        },
    }
    if result.url:
        asked["details_url"] = result.url
    if result.state == "pending":
        return {**asked, "status": "in_progress"}
    return {**asked, "status": "completed", "conclusion": _CONCLUSIONS[result.state]}


def _same(run: a.CheckAnswer, asked: dict[str, Any]) -> bool:
    there = (run.status, run.conclusion, run.output.title, run.output.summary)
    return there == (
        asked["status"], asked.get("conclusion", ""), asked["output"]["title"], asked["output"]["summary"],
    )  # fmt: skip


def _annotations(comments: Sequence[LineComment]) -> list[dict[str, Any]]:
    return [
        {
            "path": c.path, "start_line": max(c.line, 1), "end_line": max(c.line, 1), "annotation_level": c.level,
            "message": c.body[:16_000] or c.path,
        }
        for c in comments
    ]  # fmt: skip
