"""Every benchmark still runs. What it measures is not looked at: times make poor tests."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"tests.bench.{name}").main(["--quick"]) == 0
    assert capsys.readouterr().out
