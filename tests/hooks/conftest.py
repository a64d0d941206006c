"""Fixtures of the hooks' tests; parametrize `cell` or `clone` indirectly with a shell's name to have it run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hooks.support import Clone, Repo, make_cell, make_clone


@pytest.fixture
def cell(tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    return make_cell(tmp_path / "cell", shell=getattr(request, "param", None))


@pytest.fixture
def clone(tmp_path: Path, request: pytest.FixtureRequest) -> Clone:
    return make_clone(tmp_path / "clone", shell=getattr(request, "param", None))
