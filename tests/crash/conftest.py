"""One world for all cases: what it costs to make it is what three cases cost. By default the quicker one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.crash.harness import Lab
from tests.support.golden import ALL


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if not shutil.which("cc"):
        pytest.skip("the shim that kills at a call is C, and there is no cc")
    with Lab(plain=not ALL) as made:
        yield made
