"""`orchgit doctor --attack`: it shows what happened, says so by its exit code, and leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchgit.cli import doctor
from orchgit.core.errors import Kind
from orchgit.sandbox import probes
from tests.attacks.stage import levels

FEW = tuple(p for p in probes.PROBES if p.id in ("write", "signal", "command-line"))
LEVELS = levels()


def test_a_table_and_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probes, "PROBES", FEW)
    monkeypatch.setattr(probes, "lab_directory", lambda: str(tmp_path))
    assert doctor.command(attack=True) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("write to a file outside the cell"))
    assert line.split("  ")[-1].strip() == ("ALLOWED" if list(LEVELS) == ["none"] else "prevented")
    assert line.split("cell")[1].split()[0] == "ALLOWED", "none comes first"
    assert "none: 0 of 3 prevented; promises nothing" in said
    assert list(tmp_path.iterdir()) == []


def test_a_level_that_does_not_hold_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A program's own command line can be read by itself everywhere: no level could keep this promise.
    own = replace(FEW[0], id="own", promise="keeper", code="print(io_open('/proc/self/cmdline').read(1))", marks=False)
    monkeypatch.setattr(probes, "PROBES", (own,))
    assert doctor.command(attack=True) == Kind.NO
    assert "none: 0 of 1 prevented; DOES NOT HOLD: own" in capsys.readouterr().out
    assert doctor.command(attack=True, as_json=True) == Kind.NO
    told = json.loads(capsys.readouterr().out)
    assert {name: level["missed"] for name, level in told["levels"].items()} == {key: ["own"] for key in LEVELS}


@pytest.mark.skipif("landlock" not in LEVELS, reason="no Landlock here")
def test_a_sandbox_that_cannot_begin_does_not_pass_for_one_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchgit.sandbox import keeper_argv, sandbox

    way = sandbox("landlock")
    rules = {"handled": [1 << 60, 0, 0], "size": 24, "dirs": [["/", 1 << 60]], "devices": [["/dev/null", 1]]}
    monkeypatch.setattr(way, "argv", lambda _confinement, argv: keeper_argv(argv, landlock=rules))
    with pytest.raises(OSError, match="landlock, write: orchgit-sandbox"):
        probes.Lab(probes.lab_directory()).attempt(way, FEW[0])
