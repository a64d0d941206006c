"""What GitHub's refusals mean, and what to do about them: its own words are for programs that know more than we do."""

from __future__ import annotations

import re

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge.answers import Repository
from orchgit.forge.client import Refused


def refusal(no: Refused, what: str, place: str, repository: Repository | None, source: str) -> OrchgitError:
    """`repository`: as the token sees it; None when it does not. `source`: where the token is from."""
    if no.status == 401:
        return OrchgitError(
            Kind.UNAVAILABLE, what, f"{place} does not take the token from {source}. {no.words}",
            "it may have expired or been revoked: make a new one, or gh auth login",
        )  # fmt: skip
    if no.sso:
        url = no.sso.partition("url=")[2].partition(";")[0]
        return OrchgitError(
            Kind.UNAVAILABLE, what, f"the organisation wants single sign-on of the token from {source}",
            f"authorise it: {url}" if url else "authorise it in the settings of your tokens",
        )  # fmt: skip
    if repository is None and no.status in (403, 404):
        return OrchgitError(
            Kind.UNAVAILABLE, what,
            f"there is no {place}, or the token from {source} may not see it. {no.words}",
            "git remote -v shows where the remotes lead; give the token access to the repository",
        )  # fmt: skip
    if no.status == 410 or (repository is not None and no.status == 404 and not repository.has_issues):
        return _no_issues(what, repository, no)
    if repository is not None and not no.reading and (wrong := unwell(place, repository, source, what, no.words)):
        return wrong
    if no.status == 403 or (no.status == 404 and not no.reading):
        return OrchgitError(
            Kind.UNAVAILABLE, what, f"the token from {source} may not do that. {no.words}",
            "a token for orchgit needs: contents, issues, pull requests and commit statuses, all to read and write",
        )  # fmt: skip
    return OrchgitError(Kind.NO, what, no.words, _hint(no))


def unwell(place: str, repository: Repository, source: str, what: str, said: str = "") -> OrchgitError | None:
    """What keeps a run from writing there; None if nothing does."""
    if repository.archived:
        why, hint = f"{place} is archived: nobody can write to it", "unarchive it in its settings"
    elif repository.disabled:
        why, hint = f"{place} is disabled", "ask GitHub's support"
    elif repository.permissions is not None and not repository.permissions.push:
        parent = repository.parent.full_name if repository.parent else ""
        why = f"the token from {source} may not push to {place}" + (f", a fork of {parent}" if parent else "")
        hint = "use a token of somebody who may, or a fork of your own: set remote in [forge]"
    else:
        return None
    return OrchgitError(Kind.UNAVAILABLE, what, " ".join(filter(None, [why + ".", said])), hint)


def _no_issues(what: str, repository: Repository | None, no: Refused) -> OrchgitError:
    if repository is not None and not repository.has_issues:
        parent = repository.parent.full_name if repository.parent else ""
        why = f"{repository.full_name} has no issues" + (f": it is a fork of {parent}" if parent else ": they are off")
        hint = f"name its issue: {parent}#NUMBER, with a remote for {parent}" if parent else (
            "turn issues on in its settings, or give a Markdown file: orchgit start issue.md"
        )  # fmt: skip
        return OrchgitError(Kind.NO, what, why, hint)
    return OrchgitError(Kind.NO, what, no.words, "it may have been deleted: look for it in the browser")


def _hint(no: Refused) -> str:
    said = no.words.lower()
    for pattern, hint in (
        (r"draft", "mark it as ready for review there, and go on"),
        (r"required status check|required check|review is required|approving review|rule violations",
         "see what is missing on the pull request, and go on when it is there"),
        (r"merge queue", "this branch takes merges from its queue only: merge the pull request there"),
        (r"not mergeable|conflict", "bring the base branch into it, and go on"),
        (r"merge commits are not allowed", "allow merge commits in the repository's settings"),
        (r"already exists", "close the other pull request of this branch, and go on"),
        (r"no commits between", "there is nothing to review: the branches are equal"),
        (r"\bbase\b", "push the base branch first"),
        (r"\bhead\b", "push the branch first"),
    ):  # fmt: skip
        if re.search(pattern, said):
            return hint
    if no.status in (301, 302, 307, 308):
        return "name it there; for a renamed repository: git remote set-url"
    if "no commit found" in said:
        return "push it first"
    return "git remote -v shows which repository this is about" if no.status == 404 else ""
