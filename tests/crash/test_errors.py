"""The machine refuses a write, a sync or a rename, once or from then on: it ends in words, and nothing is broken."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from random import Random

import pytest

from tests.crash.harness import Fault, Lab, error_points

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that refuses a call is C, and there is no cc")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.parametrize("index", range(4))
def test_refused_somewhere(lab: Lab, index: int) -> None:
    (fault,) = error_points(lab.calls, Random(40 + index), 1)
    result = lab.error(fault)
    assert result.wrong == [], f"{fault}: {result.where}\n{result.said}"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("classes", [1, 2])
def test_refused_at_the_log(lab: Lab, number: int, classes: int) -> None:
    """The write is undone, and an fsync is never tried again: either way the engine ends, and resume goes on."""
    fault: Fault = {
        "kind": "call", "number": 12, "action": "once", "errno": number, "classes": classes, "match": "/events.jsonl",
    }  # fmt: skip
    result = lab.error(fault)
    assert result.wrong == [], f"{fault}: {result.where}\n{result.said}"
    assert result.fired == 1
    assert result.where[0].endswith("-> 3")
