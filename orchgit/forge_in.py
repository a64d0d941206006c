"""What people say on a forge, as what it means for a run: comments and reviews in, drafts out.

Only who may write to the repository is heard, only in a comment of their own that nobody edited, once, and of exactly
what they were shown: an approval names the digest, or there is only one plan that it can mean. The forge says who wrote
it and when; that goes into the log.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from orchgit.core import events as e
from orchgit.core import forge as core
from orchgit.core.errors import OrchgitError
from orchgit.core.run import Run
from orchgit.forge import ChangeRef, Comment, Forge, Issue, ReviewSeen, Stopped, key_of

ORDER = re.compile(r"/orchgit[ \t]+(approve|reject|answer)\b[ \t]*(.*)", re.DOTALL)
MAX_WORDS = 4000
NAMED = 7  # digits of a digest that name it
MAX_ORDERS = 50  # of one comment
MAX_ISSUE = 100_000  # characters of an issue with its comments

Tell = Callable[[str], None]


def issue_text(issue: Issue, comments: Sequence[Comment]) -> str:
    """An issue and what was said under it. Who wrote what is kept apart: what people wrote is quoted, every line of it,
    so that nobody can write the line that says who is speaking."""
    labels = f", labels: {', '.join(map(_line, issue.labels))}" if issue.labels else ""
    parts = [f"# {_line(issue.title)}", f"Issue {issue.number}, by {_line(issue.author)}{labels}", _quoted(issue.body)]
    for comment in comments:
        if (comment.ours and key_of(comment.body)) or any(_split(comment.body)):
            continue  # our own, and orders to us, say nothing of what is to be built
        edited = ", edited" if comment.created_at != comment.updated_at else ""
        who = f"{_line(comment.author)} ({comment.association.lower()})"
        parts += [f"Comment by {who}, {comment.created_at}{edited}:", _quoted(comment.body)]
    text = "\n\n".join(parts)
    return text if len(text) <= MAX_ISSUE else text[:MAX_ISSUE] + "\n[cut here: the issue goes on]"


def _line(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.replace("\r", "").splitlines()) or "> (nothing)"


class Poller:
    """Asks a forge from time to time, on a thread of its own, and leaves what was said in the run's inbox. A forge that
    cannot be asked is told once, and asked again."""

    def __init__(self, ear: Ear, look: Callable[[], Run], submit: Callable[[e.Draft], object], tell: Tell) -> None:
        self._ear, self._look, self._submit, self._tell = ear, look, submit, tell
        self._sent: set[str] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def once(self) -> None:
        run = self._look()
        try:
            for draft in self._ear.hear(run):
                names = {c.id for c in getattr(draft.body, "comments", ())}
                if not names & self._sent:
                    self._submit(draft)
                    self._sent |= names
        except OrchgitError as error:
            self._complain(f"{run.settings.repository} cannot be asked: {error.what}", error.why)
        except OSError as error:  # a full disk: it is still there to be heard when that is mended
            self._complain(f"what was said at {run.settings.repository} cannot be taken", str(error))
        except Stopped:
            return
        else:
            self._trouble = ""

    def _complain(self, what: str, why: str) -> None:
        if self._trouble != what:
            self._trouble = what
            self._tell(f"{what}. {why}")

    def start(self, every_s: float) -> None:
        def ask() -> None:
            while not self._ended.wait(every_s):
                self.once()

        self._thread = threading.Thread(target=ask, name="forge", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5)


class Ear:
    """Reads one forge for one run. `tell`: what it does not obey, and why; once each."""

    def __init__(self, forge: Forge, tell: Tell) -> None:
        self._forge, self._tell = forge, tell
        self._told: set[str] = set()

    def hear(self, run: Run) -> list[e.Draft]:
        """All that was said and not heard yet, in order. Raises OrchgitError when the forge cannot be asked."""
        may_write = cache(self._forge.may_write)  # for this once: permissions are withdrawn too

        def obeyed(author: str, name: str) -> bool:
            if name in run.outside.heard:
                return False
            if may_write(author):
                return True
            comment = name.partition(".")[0]
            self._once(comment, f"{author} may not write to {self._forge.place}, and is not heard ({comment})")
            return False

        drafts = []
        if run.settings.issue and run.settings.plan == "comment" and _asks(run):
            drafts += list(self._on_issue(run, obeyed))
        for about in core.listens(run):
            drafts += list(self._on_change(run, about, obeyed))
        return drafts

    def _once(self, name: str, words: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self._tell(words)

    # -- the issue

    def _on_issue(self, run: Run, obeyed: Callable[[str, str], bool]) -> Iterator[e.Draft]:
        answers: dict[int, tuple[str, Comment]] = {}
        listed = self._forge.comments(run.settings.issue)
        edited = {c.id for c in listed if c.created_at != c.updated_at}
        for comment in listed:
            for nth, (word, rest) in enumerate(self._orders(comment)):
                if not obeyed(comment.author, _id(comment, nth)):
                    continue
                draft: e.Body | None = None
                match word:
                    case "approve":
                        draft = self._approval(run, comment, rest, edited)
                    case "reject" if run.proposal and run.phase == "approving" and _after(run, "plan/", comment):
                        draft = e.PlanRejected(run.proposal.version, rest[:MAX_WORDS], (_source(comment),))
                    case "answer":
                        draft = _blocker(run, comment, nth, rest)
                        number, words = _numbered(rest, len(run.questions))
                        if run.questions and number and _after(run, "questions/", comment):
                            answers[number] = (words, comment)
                if draft is not None:
                    yield _said(draft, comment)
        if run.questions and set(answers) == set(range(1, len(run.questions) + 1)):
            comments = {c.id: _source(c) for _, c in answers.values()}
            given = tuple(answers[n][0][:1500] for n in sorted(answers))
            last = max((c for _, c in answers.values()), key=lambda c: c.id)
            yield _said(e.QuestionAnswered(given, tuple(comments.values())), last)

    def _orders(self, comment: Comment) -> Iterator[tuple[str, str]]:
        """The orders in a comment; what an engine wrote has none, and what was edited is nobody's for sure."""
        if comment.ours and key_of(comment.body):
            return
        found = list(_split(comment.body))
        if found and comment.created_at != comment.updated_at:
            self._once(_id(comment), f"{comment.author} edited comment {comment.id}: write a new one")
            return
        if len(found) > MAX_ORDERS:
            self._once(f"{_id(comment)}+", f"comment {comment.id} has {len(found)} orders: {MAX_ORDERS} are heard")
        yield from found[:MAX_ORDERS]

    def _approval(self, run: Run, comment: Comment, named: str, edited: set[int]) -> e.Body | None:
        proposal = run.proposal
        if proposal is None or run.phase != "approving" or not _after(run, "plan/", comment):
            return None
        name = _id(comment)
        shown = run.outside.posted.get(f"plan/{proposal.version}")
        if shown is None or comment.id < shown.number or shown.number in edited:
            self._once(name, f"{comment.author} approved before plan v{proposal.version} was shown, or it was edited")
            return None
        only = [k for k in run.outside.posted if k.startswith("plan/")] == [f"plan/{proposal.version}"]
        named = named.strip().strip("`")
        if (named and (len(named) < NAMED or not proposal.digest.startswith(named))) or not (named or only):
            said = f"names {named[:20]}" if named else "does not name which plan"
            self._once(name, f"{comment.author} {said}: it is v{proposal.version}, {proposal.digest[:12]}")
            return None
        return e.PlanApproved(proposal.version, proposal.digest, "human", "", (_source(comment),))

    # -- a pull request

    def _on_change(self, run: Run, about: str, obeyed: Callable[[str, str], bool]) -> Iterator[e.Draft]:
        number = run.outside.posted[f"change/{about}"].number
        head = core.head(run, about)
        there = self._forge.look(number)
        if there.state == "closed":
            yield from self._ended(run, about, there)
            return
        name = f"change/{number}/{there.head_sha}"
        if there.head_sha != head:
            if name not in run.outside.heard:
                yield _seen(about, "pushed", there.head_sha, "", "somebody", name, "", there.url)
            return  # whatever was said of it, it was of another state
        for review in self._forge.reviews(number):
            if (review.ours and key_of(review.body)) or review.state not in ("approved", "changes_requested"):
                continue
            what = "approved" if review.state == "approved" else "changes"
            if what == "approved" and review.commit != head:
                continue  # of what it was before
            if obeyed(review.author, f"review/{review.id}"):
                yield _seen(about, what, head, _words(review), review.author, f"review/{review.id}",
                            review.submitted_at, review.url)  # fmt: skip
        for comment in self._forge.comments(number):
            for word, rest in self._orders(comment):
                named = rest.strip().strip("`")
                approves = word == "approve" and len(named) >= NAMED and head.startswith(named)
                if (approves or word == "reject") and obeyed(comment.author, _id(comment)):
                    what, words = ("approved", "") if approves else ("changes", rest)
                    yield _seen(about, what, head, words, comment.author, _id(comment), comment.created_at, comment.url)

    def _ended(self, run: Run, about: str, there: ChangeRef) -> Iterator[e.Draft]:
        """Somebody merged or closed it there. What was merged is the run's only if its head was."""
        what = "merged" if there.merged else "closed"
        name = f"change/{there.number}/{what}"
        if name in run.outside.heard:
            return
        if there.merged and about == core.LAST and there.head_sha != core.head(run, about):
            words = (
                f"It was merged with that, as {there.merge_sha[:10]}, and what came in beside the run nobody checked. "
            )
            words += f"Look at it, then: orchgit ship {run.id} --leave"
            yield _seen(about, "pushed", there.head_sha, words, "somebody", name, "", there.url)
            return
        commit = there.merge_sha if there.merged else there.head_sha
        yield _seen(about, what, commit, "", "somebody", name, "", there.url)


def _asks(run: Run) -> bool:
    return run.phase in ("asking", "approving") or bool(run.open_blockers())


def _after(run: Run, prefix: str, comment: Comment) -> bool:
    """Whether it was written below the note that asks: ids of comments only grow."""
    notes = [p.number for k, p in run.outside.posted.items() if k.startswith(prefix)]
    return bool(notes) and comment.id > max(notes)


def _split(body: str) -> Iterator[tuple[str, str]]:
    """Each line that begins with an order, with what stands below it up to the next. Only where nothing is before it:
    who quotes an order, or explains one, gives none."""
    text = body.replace("\r\n", "\n").strip()
    if not text.startswith("/orchgit"):
        return
    for part in re.split(r"\n(?=/orchgit[ \t])", text):
        found = ORDER.fullmatch(part.strip())
        if found:
            yield found[1], found[2].strip()


def _numbered(rest: str, count: int) -> tuple[int, str]:
    """Which question, and the answer; the only one needs no number."""
    found = re.fullmatch(r"(\d{1,3})[.:]?\s+(.+)", rest, re.DOTALL)
    if found and 1 <= int(found[1]) <= count:
        return int(found[1]), found[2].strip()
    return (1, rest) if count == 1 and rest else (0, "")


def _blocker(run: Run, comment: Comment, nth: int, rest: str) -> e.Body | None:
    found = re.fullmatch(r"(B\d{1,4})\b\s*(.*)", rest, re.DOTALL)
    opened = {b.id: b for b in run.open_blockers() if b.kind != "scope"}
    if found is None or found[1] not in opened:
        return None
    return e.BlockerAnswered(found[1], found[2].strip()[:MAX_WORDS], comments=(_source(comment, nth),))


def _words(review: ReviewSeen) -> str:
    lines = [f"{c.path}:{c.line}: {c.body}" if c.line else f"{c.path}: {c.body}" for c in review.comments]
    return "\n".join(filter(None, [review.body.strip(), *lines]))[:MAX_WORDS]


def _id(comment: Comment, nth: int = 0) -> str:
    """Of an order in a comment: the first one's is the comment's."""
    return f"comment/{comment.id}" + (f".{nth}" if nth else "")


def _source(comment: Comment, nth: int = 0) -> e.Comment:
    return e.Comment(_id(comment, nth), comment.author, comment.created_at, comment.url)


def _said(body: e.Body, comment: Comment) -> e.Draft:
    return e.Draft(body, e.Actor("human", f"github:{comment.author}"))


def _seen(about: str, what: str, commit: str, words: str, author: str, name: str, time: str, url: str) -> e.Draft:
    said = e.Comment(name, author, time, url)
    text = f"{author} reviewed your pull request, and wants changes:\n{words}" if what == "changes" else words
    body = e.ChangeSeen(about, what, commit, text[:MAX_WORDS], (said,))  # type: ignore[arg-type] # one of its literals
    return e.Draft(body, e.Actor("human", f"github:{author}"))
