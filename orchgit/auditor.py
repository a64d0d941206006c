"""An audit of one run: finds the log, asks the laws, and, if told to, runs the recorded checks again.

From the run's directory on its machine, else from what was published and fetched. The log may be anybody's: nothing it
says is run outside a sandbox, and no path or setting of it is used.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from orchgit import ground, publish, signatures
from orchgit.core import events as e
from orchgit.core.audit import Found, Reading, Result, Told, anchors, judge, read, split
from orchgit.core.errors import OrchgitError
from orchgit.git import cells
from orchgit.git.door import Door
from orchgit.git.facts import GitFacts

RERUN = "Checks pass again on the trees that landed, here and now."


class Audit:
    """Use as a context."""

    def __init__(self, common: Path, name: str) -> None:
        store = publish.find(common, name or None)
        self.run = store.run
        # Without a directory of its own it was fetched.
        self._directory = None if isinstance(store, publish.Published) else store.path
        self._common = common
        self._door = Door(common, publish.object_format(common))

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def read(self) -> Reading:
        """The log by itself."""
        data = (self._directory / "events.jsonl").read_bytes() if self._directory else self._facts().log() or b""
        return read(self.run, *split(data))

    def judge(self, *, rerun: bool = False) -> Told:
        facts, reading = self._facts(), self.read()
        source = "the run's directory" if self._directory else f"{publish.RUNS}{self.run}, as it was published"
        results = judge(reading, facts)
        if rerun:
            results.append(self._rerun(reading, results))
        return Told(self.run, source, reading, tuple(results), anchors(reading, facts))

    def _facts(self) -> GitFacts:
        return GitFacts(self._door, self.run, self._directory, signatures.verify)

    def _rerun(self, reading: Reading, results: list[Result]) -> Result:
        """Only of a log that is in order; with this repository's own settings, not with those that the log names."""
        done = Result("checks.rerun", RERUN, "pass")
        if any(r.verdict == "violation" for r in results):
            return replace(done, verdict="inconclusive", why="nothing was run: the log is not in order")
        try:
            failed = tuple(self._fails(reading))
        except OrchgitError as error:
            return replace(done, verdict="inconclusive", why=f"{error.what}: {error.why}")
        return replace(done, verdict="violation" if failed else "pass", found=failed)

    def _fails(self, reading: Reading) -> Iterator[Found]:
        from orchgit import effects
        from orchgit.config import Config, load, state_home
        from orchgit.git.user import discover
        from orchgit.sandbox import best

        repo = discover(self._common if self._common.name != ".git" else self._common.parent)
        config = load(repo.root, os.environ)
        sandbox, _ = best(allow_unsandboxed=False)
        home = state_home(Config(), os.environ)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=home, prefix="audit-") as folder:
            started = reading.run.started
            stands = ground.make(
                self._door, config, sandbox, user_tree=repo.root, place=Path(folder),
                cache=home / cells.repository_id(repo.common) / "setup", commit=started.base if started else repo.head,
                base=None, say=lambda line: None,
            )  # fmt: skip
            for event in reading.events:
                body = event.body
                if not isinstance(body, e.ChecksPassed) or body.tree not in _landed(reading):
                    continue
                commands = tuple(r.command for r in body.results)
                place = Path(folder) / f"checks-{event.seq}"
                for checked in effects.run_checks(
                    self._door, repo, config, sandbox, place, body.tree, commands, under=stands.layers
                ):
                    if not checked.passed:
                        where = f"event {event.seq}, tree {body.tree}"
                        yield Found(where, f"{checked.command!r} passed then, and now: {checked.why}")


def _landed(reading: Reading) -> set[str]:
    return {ev.body.tree for ev in reading.events if isinstance(ev.body, e.MergePrepared)}
