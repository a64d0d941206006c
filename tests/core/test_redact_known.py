"""Which values of an environment are kept out of the log."""

from __future__ import annotations

from orchgit.core.redact import Redactor, known

ID = "0123456789abcdef0123456789abcdef01234567"


def test_what_names_say_is_secret() -> None:
    env = {"MY_KEY": "k" * 12, "GITHUB_TOKEN": "t" * 13, "A_TOKEN": "short", "B_KEY": ID, "PATH": "/usr/local/bin:/bin"}
    assert known(env) == ("t" * 13, "k" * 12)


def test_what_headers_hold_without_their_names() -> None:
    env = {
        "ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer gateway-5ecret-value\nX-Api-Key: another.5ecret\nX-Team: a"
    }
    redactor = Redactor(known(env))
    assert known(env) == ("gateway-5ecret-value", "another.5ecret")
    assert redactor.text("Authorization: Bearer gateway-5ecret-value") == "Authorization: Bearer [redacted]"
    assert redactor.bytes(b"curl -H x:another.5ecret") == b"curl -H x:[redacted]"
