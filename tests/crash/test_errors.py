"""The machine refuses a write, a sync or a rename, once or from then on: it ends in words, and nothing is broken."""

from __future__ import annotations

import errno
import shutil
from random import Random

import pytest

from tests.crash.harness import Fault, Lab, error_points

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="the shim that refuses a call is C, and there is no cc")


@pytest.mark.parametrize("index", [1, 2, *(pytest.param(n, marks=pytest.mark.whole) for n in (0, 3, 4, 5, 6, 7))])
def test_refused_somewhere(lab: Lab, index: int) -> None:
    (fault,) = error_points(lab.of_class, Random(40 + index), 1)
    result = lab.error(fault)
    assert result.wrong == [], f"{fault}: {result.where}\n{result.said}"
    assert result.fired == 1


LOG = [(errno.ENOSPC, 1), (errno.EIO, 2)]
MORE = [(number, classes) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT) for classes in (1, 2)]


@pytest.mark.parametrize(
    ("number", "classes"), LOG + [pytest.param(*p, marks=pytest.mark.whole) for p in MORE if p not in LOG]
)
def test_refused_at_the_log(lab: Lab, number: int, classes: int) -> None:
    """The write is undone, and an fsync is never tried again: either way the engine ends, and resume goes on."""
    fault: Fault = {
        "kind": "call", "number": 12, "action": "once", "errno": number, "classes": classes, "match": "/events.jsonl",
    }  # fmt: skip
    result = lab.error(fault)
    assert result.wrong == [], f"{fault}: {result.where}\n{result.said}"
    assert result.fired == 1
    assert result.where[0].endswith("-> 3")


def test_refused_at_the_last_thing_that_is_published(lab: Lab) -> None:
    """By the thread that owns the log, where nothing but words may come of it."""
    engines_own: Fault = {"classes": 1, "match": "tmp_obj_orchgit"}
    world = lab.fresh()
    ran = lab.engines.run(world, *world.start_args(lab.book, "--yes"), fault={"kind": "count", **engines_own})
    for number in (ran.counted, ran.counted - 3):  # who is merged first decides how many trees there are
        refused: Fault = {"kind": "call", "number": number, "action": "once", "errno": errno.EDQUOT, **engines_own}
        result = lab.error(refused)
        assert result.wrong == [], f"{result.where}\n{result.said}"
        if result.fired:
            break
    assert (result.fired, result.where[0].endswith("-> 3")) == (1, True)


def test_refused_before_there_is_a_run(lab: Lab) -> None:
    result = lab.error({
        "kind": "call", "number": 1, "action": "once", "errno": errno.ENOSPC, "classes": 1, "match": "engine.git",
    })  # fmt: skip
    assert result.wrong == [], f"{result.where}\n{result.said}"
    assert (result.fired, result.where[0].endswith("-> 3")) == (1, True)
