"""What is surely a credential leaves the text, in a time that grows with the text and not with its square."""

from __future__ import annotations

import time

import pytest

from orchgit.core.redact import WORDS, Redactor

HEADERS = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00"
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{HEADERS}\n\nMIIE/+x=\n-----END RSA PRIVATE KEY-----"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_X"


@pytest.mark.parametrize("secret", [KEY, TOKEN, "sk-ant-0123456789", "AKIA0123456789ABCDEF"])
def test_a_secret_leaves_what_is_around_it(secret: str) -> None:
    assert Redactor().text(f"before {secret}\nafter") == f"before {WORDS}\nafter"
    assert Redactor().bytes(f"before {secret}\nafter".encode()) == f"before {WORDS}\nafter".encode()


def test_a_key_after_the_beginning_of_another() -> None:
    assert Redactor().text(f"-----BEGIN PRIVATE KEY-----\n{KEY}\n") == f"-----BEGIN PRIVATE KEY-----\n{WORDS}\n"


@pytest.mark.parametrize("piece", [
    "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\n-----END X-----\n", "-----BEGIN PRIVATE KEY------",
    "-----BEGIN ", "eyJaaaaaaaaaa-", "eyJaaaaaaaaaa.", "eyJaaaaaaaaaa.eyJaaaaaaaaaa-", "://a:", "://aaa:bbb:", "gho_",
])  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    began = time.process_time()
    Redactor().bytes(text.encode())
    assert time.process_time() - began < 1
