"""Limits, networks and answers that are not what they should be: waited for, told, stopped, and nothing half done."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchgit.core.errors import Kind, OrchgitError
from orchgit.forge import Stopped
from orchgit.forge.client import NEAR, Client, Pace
from tests.support.forge_stage import Stage, key, stage


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def client(api: str, *, told: list[str] | None = None, pace: Pace = NEAR) -> Client:
    tell = (told if told is not None else []).append
    return Client(api, "ghp_" + "x" * 36, "a test", pace=pace, tell=tell, stop=threading.Event())


# ---- rate limits


@pytest.mark.parametrize("kind", ["secondary", "primary"])
def test_a_rate_limit_is_waited_for_and_said(here: Stage, kind: str) -> None:
    number = here.github.issue("x", by="lea")
    if kind == "secondary":
        here.github.limit("POST", "/comments", "secondary", retry_after="1")
    else:
        here.github.limit("POST", "/comments", "primary")
    began = time.monotonic()
    here.forge().note(number, key("progress"), "x")
    assert 0.9 < time.monotonic() - began < 30
    assert len(here.github.thing(number).comments) == 1
    (said,) = here.told
    assert said.startswith(f"{here.github.host} limits how much may be asked: waiting until ")


def test_reading_waits_too(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    here.github.fault("GET", "/issues/", "refuse", status=429, headers={"retry-after": "1"})
    assert here.forge().issue(number).title == "x"
    assert len(here.told) == 1


def test_a_limit_that_does_not_say_how_long_costs_a_minute_and_can_be_stopped(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    here.github.limit("POST", "/comments", "secondary")
    forge, said = here.forge(), threading.Event()
    here.told.clear()
    until: list[float] = []

    def listen() -> None:
        while not here.told:
            time.sleep(0.01)
        hours, minutes, seconds = map(int, here.told[0].rpartition(" ")[2].split(":"))
        now = time.localtime()
        until.append((hours - now.tm_hour) * 3600 + (minutes - now.tm_min) * 60 + seconds - now.tm_sec)
        said.set()
        here.stop.set()

    listener = threading.Thread(target=listen)
    listener.start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        forge.note(number, key("progress"), "x")
    listener.join()
    assert time.monotonic() - began < 20
    assert 50 <= until[0] % 86_400 <= 61
    assert here.github.thing(number).comments == []


def test_a_limit_met_again_is_waited_for_longer() -> None:
    import httpx2

    from orchgit.forge.client import _limit

    answer = httpx2.Response(403, json={"message": "You have exceeded a secondary rate limit."})
    assert [_limit(answer, n) for n in range(5)] == [60, 120, 240, 480, 900]
    assert _limit(httpx2.Response(403, json={"message": "Must have admin rights."}), 0) is None
    # Against the service's own clock: ours may be wrong by hours.
    late = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1000000100", "date": "Sun, 09 Sep 2001 01:46:40 GMT"}
    assert _limit(httpx2.Response(403, headers=late), 0) == 101
    assert _limit(httpx2.Response(403, headers={**late, "x-ratelimit-reset": "1"}), 0) == 1
    assert _limit(httpx2.Response(403, headers={**late, "x-ratelimit-reset": "999999999999"}), 0) == 7200


# ---- networks


def test_nobody_there_is_said_with_what_to_do(here: Stage) -> None:
    forge = here.forge()
    here.github.stop()
    with pytest.raises(OrchgitError) as no:
        forge.issue(1)
    assert no.value.kind is Kind.UNAVAILABLE
    assert no.value.what == f"{here.github.host} cannot be reached"
    assert "orchgit resume" in no.value.hint


def test_an_answer_that_never_comes_ends_in_words_and_writes_once_at_most(here: Stage) -> None:
    number = here.github.issue("x", by="lea")
    forge = here.forge()
    forge.me()
    here.github.fault("", "/comments", "after", times=99)
    with pytest.raises(OrchgitError) as no:
        forge.note(number, key("progress"), "x")
    assert (no.value.kind, no.value.what) == (Kind.UNAVAILABLE, f"{here.github.host} does not answer")
    assert here.github.thing(number).comments == []
    here.github.faults.clear()
    here.github.fault("POST", "/comments", "before", times=99)
    with pytest.raises(OrchgitError):
        forge.note(number, key("progress"), "x")
    assert here.github.thing(number).comments == []


class Odd(threading.Thread):
    """A server that answers each request with the same bytes; what it was asked is kept."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(daemon=True)
        self.answer, self.asked = answer, list[bytes]()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(65536))
                connection.sendall(self.answer)

    def stop(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        self.socket.close()
        self.join()


def _answer(head: str, body: str) -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def test_a_page_that_is_no_json_is_no_answer() -> None:
    server = Odd(_answer("200 OK\r\nContent-Type: text/html", "<html>Sign in to the hotel's network</html>"))
    with pytest.raises(OrchgitError) as no:
        client(server.url).get("/user")
    assert (no.value.kind, "not JSON" in no.value.why) == (Kind.UNAVAILABLE, True)
    assert len(server.asked) == 4
    server.stop()


@pytest.mark.parametrize("how", ["redirect", "next page"])
def test_the_token_does_not_follow_to_another_host(how: str) -> None:
    other = Odd(_answer("200 OK", "[]"))
    away = f"{other.url}/elsewhere"
    head = f"302 Found\r\nLocation: {away}" if how == "redirect" else f'200 OK\r\nLink: <{away}>; rel="next"'
    server = Odd(_answer(head, "[]"))
    api = client(server.url)
    if how == "redirect":
        from orchgit.forge.client import Refused

        with pytest.raises(Refused):
            api.get("/x")
    else:
        with pytest.raises(OrchgitError):
            list(api.pages("/x"))
    assert b"Bearer ghp_" in server.asked[0]
    assert other.asked == []
    for each in (server, other):
        each.stop()


def test_a_token_is_not_sent_unencrypted_to_another_machine() -> None:
    with pytest.raises(OrchgitError) as no:
        client("http://github.example.org/api/v3")
    assert no.value.kind is Kind.USAGE
    client("https://github.example.org/api/v3")


def test_writes_keep_their_distance(here: Stage) -> None:
    place = f"{here.github.url}/api/v3/repos/acme/shop"
    number = here.github.issue("x", by="lea")
    api = Client(
        place, here.github.hub.people["bot"].token, "a test", pace=Pace(0.4, 0.1), tell=print, stop=threading.Event()
    )
    began = time.monotonic()
    for n in range(3):
        api.create("POST", f"/issues/{number}/comments", {"body": f"{n}"})
    assert time.monotonic() - began >= 0.8
