"""Fixtures of the hooks' tests; parametrize `cell` or `clone` indirectly with a shell's name to have it run them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.hooks.managers import Unavailable, install_managers
from tests.hooks.support import Clone, Repo, make_cell, make_clone


@pytest.fixture
def cell(tmp_path: Path, request: pytest.FixtureRequest) -> Repo:
    return make_cell(tmp_path / "cell", shell=getattr(request, "param", None))


@pytest.fixture
def clone(tmp_path: Path, request: pytest.FixtureRequest) -> Clone:
    return make_clone(tmp_path / "clone", shell=getattr(request, "param", None))


@pytest.fixture(scope="session")
def managers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs husky, lefthook and pre-commit, installed once for all of pytest's processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    place = shared / "hook managers"
    with open(shared / "hook-managers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "bin").exists():
            try:
                install_managers(place)
            except Unavailable as why:
                pytest.skip(str(why))
    return place / "bin"
