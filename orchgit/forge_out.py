"""Writes on the forge: one request, one write, one outcome. Every write looks first, so doing it again does nothing.

What it says is made here, from the run and its log (forge_text.py); what and when, in core/forge.py. A failure is an
outcome, with words. Nothing of the forge's token gets into any of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from orchgit import forge_text as text
from orchgit import publish
from orchgit.core import events as e
from orchgit.core import forge as core
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.review import Finding
from orchgit.core.run import Run, branch
from orchgit.eventlog import Store
from orchgit.forge import Change, Forge, Key, LineComment, Result
from orchgit.git.door import Door

LABEL = "orchgit"


class Writer:
    """Of one run, to one forge."""

    def __init__(self, forge: Forge, door: Door, root: Path, store: Store) -> None:
        self.forge, self._door, self._root, self._store = forge, door, root, store

    def write(self, run: Run, event: e.Event) -> e.ForgeDone:
        """Raises OrchgitError where the forge does not take it."""
        asked = event.body
        assert isinstance(asked, e.ForgeRequested)
        key, forge = Key(run.id, asked.key), self.forge
        match asked.act:
            case "push":
                hands = {branch(run.id, n): a.hand for n, w in run.works.items() for a in w.attempts if a.hand}
                wanted = self.refs(run, asked)
                publish.send(self._door, self._root, forge.remote, wanted, forge.push_env(), judged=hands)
                return e.ForgeDone(asked.key, 0, "")
            case "note":
                body = self.words(run, asked)
                note = forge.note(run.settings.issue, key, body)
                return e.ForgeDone(asked.key, note.id, note.url, self._keep(body))
            case "change":
                return self._change(run, asked, key)
            case "retarget":
                moved = forge.retarget(_number(run, asked), asked.base)
                return e.ForgeDone(asked.key, moved.number, moved.url)
            case "status":
                said = text.status(run, asked.about, asked.base, self._log(event))
                found = core.findings(run, asked.about) if asked.base == "review" else ()
                more = text.review_body(found) if found else ""  # both where a check run has room for them
                forge.status(
                    key, asked.head, Result(f"orchgit/{asked.base}", "success", said, "", more, _at_lines(found))
                )
                return e.ForgeDone(asked.key, 0, "")
            case "review":
                found = core.findings(run, asked.about)
                body = text.review_body(found)
                made = forge.review(_number(run, asked), key, asked.head, body, _at_lines(found), "comment")
                return e.ForgeDone(asked.key, made.id, made.url, self._keep(body))
            case "merge":
                self._unmoved(run, asked)
                title, body = text.merge_message(run)
                commit = forge.merge(_number(run, asked), asked.head, title, body)
                return e.ForgeDone(asked.key, _number(run, asked), "", commit=commit)
            case "close":
                forge.close(run.settings.issue)
                return e.ForgeDone(asked.key, run.settings.issue, "")

    def _unmoved(self, run: Run, asked: e.ForgeRequested) -> None:
        """The forge makes the merge: onto a base that holds more than the run does, nobody has checked what it is."""
        there = publish.remote_ref(self._root, self.forge.remote, f"refs/heads/{asked.base}", self.forge.push_env())
        if (
            there
            and not publish.holds(self._door, asked.head, there)
            and not self.forge.look(_number(run, asked)).merged
        ):
            raise OrchgitError(
                Kind.NO, f"{asked.base} has moved since the run began, to {there[:10]}",
                "what a merge would give now, nobody has checked",
                f"merge the pull request there, as its required checks allow, then: orchgit ship {run.id}    or do "
                f"without: orchgit ship {run.id} --leave",
            )  # fmt: skip

    def bring(self, ref: str, into: str) -> None:
        """Fetch a branch of ours that somebody else pushed onto. Everything in it is judged here; git transports."""
        publish.bring(self._root, self.forge.remote, ref, into, self.forge.push_env())

    def _change(self, run: Run, asked: e.ForgeRequested, key: Key) -> e.ForgeDone:
        body = self.words(run, asked)
        head = _branch(run, asked.about).removeprefix("refs/heads/")
        change = Change(text.change_title(run, asked.about), body, head, asked.base, (LABEL,))
        made = self.forge.change(key, change)
        if made.state == "closed" and not made.merged:
            raise OrchgitError(
                Kind.NO, f"the pull request of {asked.about} was closed, and not merged", made.url,
                f"reopen it there, then: orchgit ship {run.id}    or do without: orchgit ship {run.id} --leave",
            )  # fmt: skip
        return e.ForgeDone(asked.key, made.number, made.url, self._keep(body))

    def words(self, run: Run, asked: e.ForgeRequested) -> str:
        """What a note or a pull request says."""
        if asked.act == "change":
            log = self._store.read()
            work = run.works.get(asked.about)
            printed = {r.output: self._output(r.output) for r in work.results} if work else {}
            return text.change_body(run, asked.about, log, printed)
        if asked.about == "plan":
            return text.plan_note(run)
        if asked.about == "questions":
            return text.questions_note(run)
        return text.progress_note(run, asked.state.partition(" ")[0])

    def refs(self, run: Run, asked: e.ForgeRequested) -> Mapping[str, str]:
        """What a push moves, and to where. The log goes with all that it attests."""
        log = {publish.RUNS + run.id: run.checkpoint.commit} if run.checkpoint and run.checkpoint.commit else {}
        if sealed := self._door.ref(publish.tag_of(run.id)):
            log[publish.tag_of(run.id)] = sealed
        if asked.about == "workers":
            return {**{branch(run.id, n): run.works[n].head for n in asked.state.split()}, **log}
        return {run.ref: asked.head, **log}

    def _output(self, digest: str) -> str:
        return self._store.blob(digest).decode("utf-8", "replace") if self._store.has(digest) else ""

    def _log(self, event: e.Event) -> list[e.Event]:
        return [ev for ev in self._store.read() if ev.seq < event.seq]

    def _keep(self, body: str) -> str:
        return self._store.put(body.encode())


def _at_lines(found: Iterable[Finding]) -> tuple[LineComment, ...]:
    return tuple(LineComment(f.path, f.line, text.finding_words(f)) for f in found)


def _branch(run: Run, about: str) -> str:
    return run.ref if about == core.LAST else branch(run.id, about)


def _number(run: Run, asked: e.ForgeRequested) -> int:
    return run.outside.posted[f"change/{asked.about}"].number
