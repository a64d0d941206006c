"""GitHub's REST over httpx2: what is safe to repeat is repeated, and nothing else.

Three ways for a request to go wrong, and only these decide what may follow. It was **refused** (any 4xx): it was not
done; a refusal because of a rate limit is waited for, and asked again. It was **never sent** (no connection): asked
again. Its answer was **lost** (a 5xx, a connection that broke): nobody knows. What reads or sets the same again is
repeated then; what creates raises `Lost`, and `once` looks before it writes again.

The token is in one header of requests to one origin: redirects and Link headers that lead elsewhere are not followed.
"""

from __future__ import annotations

import email.utils
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from orchgit import __version__
from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Stopped

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH", "PUT"]
TRIES = 4
LIMIT_S = 60  # the least to wait for a limit that does not say how long (GitHub's rule)
LIMIT_MAX_S = 900
PATIENCE_S = 7200  # for one request
CACHED = 256  # answers kept for their ETag: a 304 costs nothing of the rate limit


class Refused(Exception):
    """The service said no, and did nothing."""

    def __init__(
        self, status: int, message: str, details: tuple[str, ...], *, reading: bool = False, sso: str = ""
    ) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.message, self.details = status, message, details
        self.reading, self.sso = reading, sso

    @property
    def words(self) -> str:
        """As the service put it."""
        return f"GitHub says ({self.status}): " + "; ".join(filter(None, [self.message, *self.details]))


class Lost(Exception):
    """Whether it was done, nobody knows."""


class Unreachable(Exception):
    """Nothing was sent."""


@dataclass(frozen=True)
class Pace:
    """Seconds: between two writes, and before looking again; both double in what follows."""

    gap_s: float
    settle_s: float


# github.com asks for a second between writes, and answers reads from replicas that lag behind what was written.
CAREFUL = Pace(1.0, 1.0)
NEAR = Pace(0.0, 0.1)


class Client:
    """One API at one origin, with one token. Safe to call from several threads; one write at a time."""

    def __init__(
        self, api: str, token: str, source: str, *, pace: Pace, tell: Callable[[str], None], stop: threading.Event
    ) -> None:
        """`api`: such as https://api.github.com, no slash at the end. `source`: where the token is from, for words."""
        parts = urlsplit(api)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise OrchgitError(
                Kind.USAGE, f"{parts.hostname} would get the token unencrypted", "its address is http://"
            )
        self.api, self.host, self.source = api, parts.netloc, source
        self._origin = (parts.scheme, parts.netloc)
        self._token, self._pace, self._tell, self._stop = token, pace, tell, stop
        self._http: httpx2.Client | None = None
        self._guard, self._writing = threading.Lock(), threading.Lock()
        self._wrote = 0.0
        self._cache: dict[str, tuple[str, Any, str]] = {}  # URL -> ETag, what it gave, the next page

    def get(self, path: str, **params: str | int) -> Any:
        return self._page(path, params)[0]

    def pages(self, path: str, **params: str | int) -> Iterator[Any]:
        """The items of all pages of a list."""
        found, following = self._page(path, {"per_page": 100, **params})
        yield from found
        while following:
            found, following = self._page(following, {})
            yield from found

    def put(self, method: Literal["PATCH", "PUT", "POST"], path: str, body: Mapping[str, Any]) -> Any:
        """A write that sets: doing it twice is doing it once, so it is repeated until it is answered."""
        return self._write(method, path, body, resend=True)

    def create(self, method: Literal["PATCH", "PUT", "POST"], path: str, body: Mapping[str, Any]) -> Any:
        """A write that adds. Raises Lost where it may have been done: look before you write again."""
        return self._write(method, path, body, resend=False)

    def once(self, look: Callable[[], T | None], write: Callable[[], T]) -> T:
        """What is there, or what `write` makes: never twice, whatever answers are lost."""
        found, lost = look(), Lost("")
        for _ in range(TRIES):
            if found is not None:
                return found
            try:
                return write()
            except Lost as error:
                lost = error
            found = look()
            for round in range(3):  # a replica can be behind
                if found is not None:
                    break
                self._wait(self._pace.settle_s * 2**round)
                found = look()
        if found is not None:
            return found
        raise self._away(lost) from lost

    # ---- one request

    def _page(self, path: str, params: Mapping[str, str | int]) -> tuple[Any, str]:
        """What it gave, and the next page of it ("")."""
        url = self._url(path, params)
        with self._guard:
            etag, kept, following = self._cache.get(url, ("", None, ""))
        headers = {"If-None-Match": etag} if etag else {}
        answer, given = self._insist(lambda: self._ask("GET", url, None, headers), resend=True)
        if answer.status_code == 304:
            return kept, following
        link = str(answer.links.get("next", {}).get("url", ""))
        if link and not self._ours(link):
            raise OrchgitError(Kind.UNAVAILABLE, f"{self.host} names a next page elsewhere", urlsplit(link).netloc)
        if etag := answer.headers.get("etag", ""):
            with self._guard:
                self._cache.pop(url, None)
                while len(self._cache) >= CACHED:
                    del self._cache[next(iter(self._cache))]
                self._cache[url] = (etag, given, link)
        return given, link

    def _write(self, method: Method, path: str, body: Mapping[str, Any], *, resend: bool) -> Any:
        with self._writing:
            self._wait(self._wrote + self._pace.gap_s - time.monotonic())
            try:
                return self._insist(lambda: self._ask(method, self._url(path, {}), body, {}), resend=resend)[1]
            finally:
                self._wrote = time.monotonic()

    def _insist(self, ask: Callable[[], T], *, resend: bool) -> T:
        """Again, where nothing was sent; and, if it may be sent twice, where the answer was lost."""
        for attempt in range(TRIES):
            try:
                return ask()
            except (Unreachable, Lost) as error:
                if isinstance(error, Lost) and not resend:
                    raise
                if attempt == TRIES - 1:
                    raise self._away(error) from error
            self._wait(self._pace.settle_s * 2**attempt)
        raise AssertionError("unreachable")

    def _ask(
        self, method: Method, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[httpx2.Response, Any]:
        """The answer and what it holds, once it is something else than a rate limit."""
        limited, waited = 0, 0.0
        while True:
            answer = self._send(method, url, body, headers)
            wait_s = _limit(answer, limited)
            if wait_s is None:
                return answer, _json(answer)
            limited, waited = limited + 1, waited + wait_s
            if waited > PATIENCE_S:
                raise OrchgitError(
                    Kind.UNAVAILABLE, f"{self.host} limits how much may be asked, and would not lift it",
                    f"waited {int(waited - wait_s) // 60} minutes", "go on later: orchgit resume",
                )  # fmt: skip
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + wait_s))
            self._tell(f"{self.host} limits how much may be asked: waiting until {until}")
            self._wait(wait_s)

    def _send(
        self, method: Method, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> httpx2.Response:
        """One exchange, redirects within the origin followed. Raises Refused, Lost, Unreachable."""
        import httpx2

        for _ in range(4):
            if self._stop.is_set():
                raise Stopped
            try:
                answer = self._session().request(method, url, json=body, headers=dict(headers))
            except (
                httpx2.ConnectError,
                httpx2.ConnectTimeout,
                httpx2.PoolTimeout,
                httpx2.UnsupportedProtocol,
            ) as error:
                raise Unreachable(str(error)) from error
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                raise Lost(str(error) or type(error).__name__) from error
            if answer.status_code not in (301, 302, 307, 308):
                break
            moved = str(answer.url.join(answer.headers.get("location", "")))
            if not self._ours(moved) or (method != "GET" and answer.status_code in (301, 302)):
                raise Refused(answer.status_code, "it is somewhere else now", (moved,), reading=method == "GET")
            url = moved
        if answer.status_code >= 500:
            raise Lost(f"it answered {answer.status_code}")
        if answer.status_code >= 300 and answer.status_code != 304 and _limit(answer, 0) is None:
            raise _refusal(answer, reading=method == "GET")
        return answer

    def _session(self) -> httpx2.Client:
        import httpx2  # a quarter of a second: whoever needs no forge does not pay for it

        with self._guard:
            if self._http is None:
                self._http = httpx2.Client(
                    timeout=httpx2.Timeout(30, connect=10),
                    headers={
                        "Authorization": f"Bearer {self._token}",
                        "Accept": "application/vnd.github+json",
                        "X-GitHub-Api-Version": "2022-11-28",
                        "User-Agent": f"orchgit/{__version__}",
                    },
                )
            return self._http

    def _url(self, path: str, params: Mapping[str, str | int]) -> str:
        import httpx2

        url = httpx2.URL(path if path.startswith("http") else self.api + path)
        return str(url.copy_merge_params({k: str(v) for k, v in params.items()}) if params else url)

    def _ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == self._origin

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped

    def _away(self, error: Exception) -> OrchgitError:
        what = f"{self.host} cannot be reached" if isinstance(error, Unreachable) else f"{self.host} does not answer"
        return OrchgitError(
            Kind.UNAVAILABLE, what, str(error).replace(self._token, "…"),
            "look at the network, or https://www.githubstatus.com; then go on: orchgit resume",
        )  # fmt: skip


def _limit(answer: httpx2.Response, before: int) -> float | None:
    """Seconds to wait for a rate limit, `before`: how often it was met; None when the answer is something else."""
    if answer.status_code not in (403, 429):
        return None
    headers = answer.headers
    least = min(LIMIT_S * 2.0**before, LIMIT_MAX_S)
    if re.fullmatch(r"[0-9]{1,6}", headers.get("retry-after", "")):
        return max(float(headers["retry-after"]), 1.0)
    if headers.get("x-ratelimit-remaining") == "0" and re.fullmatch(
        r"[0-9]{1,12}", headers.get("x-ratelimit-reset", "")
    ):
        # Against the clock of the service, where it tells it: ours can be wrong.
        said = email.utils.parsedate_tz(headers.get("date", ""))
        now = email.utils.mktime_tz(said) if said else time.time()
        return min(max(float(headers["x-ratelimit-reset"]) - now + 1, 1.0), PATIENCE_S)
    limited = answer.status_code == 429 or "rate limit" in answer.text.lower()
    return least if limited else None


def _json(answer: httpx2.Response) -> Any:
    """What it holds; None for nothing. Raises Lost for what is not JSON: a proxy spoke, and nobody knows for whom."""
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise Lost("it answered something that is not JSON") from error


def _refusal(answer: httpx2.Response, *, reading: bool) -> Refused:
    try:
        said = answer.json()
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    errors = said.get("errors")
    details = []
    for each in errors if isinstance(errors, list) else [errors] if errors else []:
        if isinstance(each, dict):
            named = " ".join(str(each[k]) for k in ("resource", "field", "code") if each.get(k))
            details.append(str(each.get("message") or named))
        else:
            details.append(str(each))
    message = str(said.get("message") or answer.reason_phrase)
    sso = answer.headers.get("x-github-sso", "")
    return Refused(answer.status_code, message, tuple(details), reading=reading, sso=sso)
