"""What an agent without our tools may leave as its result: taken as a claim, whatever the file really is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchgit import wire
from orchgit.agents import HandIn, ResultTool, handin
from orchgit.core.errors import OrchgitError

REPORT = ResultTool("report", "Report.", {}, lambda given: wire.parse(wire.ReportIn, given))
RESULTS = (REPORT, ResultTool("request_scope", "Ask.", {}, wire.parse_scope_request, pauses=True))
FINE = {"report": {"summary": "built"}}


@pytest.fixture
def files(tmp_path: Path) -> HandIn:
    return handin.prepare(tmp_path, "do it")


def taken(files: HandIn) -> tuple[str, Mapping[str, Any]] | None:
    return handin.take(files, RESULTS)


def test_it_is_read_once(files: HandIn) -> None:
    assert taken(files) is None
    files.result.write_text(json.dumps(FINE))
    assert taken(files) == ("report", {"summary": "built"})
    assert taken(files) is None


@pytest.mark.parametrize("text", [
    "", "done", "null", "[]", '"report"', '{"report": {"summary": 1}}', '{"report": []}', "\ufeff{}",
    '{"report": {"summary": "a"}, "request_scope": {"paths": ["a"], "why": "b"}}',
    '{"give_verdict": {"decision": "accept"}}', '{"request_scope": {"paths": ["../up"], "why": "b"}}', "[" * 100_000,
    '{"report": {"summary": "' + "a" * 200_000 + '"}}', '{"report": {"summary": "' + "a" * 2000 + '"}}',
])  # fmt: skip
def test_what_is_no_result_is_told_in_words(files: HandIn, text: str) -> None:
    files.result.write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        taken(files)


def test_it_is_no_way_to_a_file_of_somebody_else(files: HandIn, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(FINE))
    os.symlink(other, files.result)
    with pytest.raises(ValueError, match="can be read"):
        taken(files)
    files.result.unlink()
    os.link(other, files.result)
    with pytest.raises(ValueError, match="plain file"):
        taken(files)
    files.result.unlink()
    os.mkfifo(files.result)  # and does not wait for a writer
    with pytest.raises(ValueError, match="plain file"):
        taken(files)
    files.result.unlink()
    files.result.mkdir()
    with pytest.raises(ValueError):
        taken(files)
    files.result.rmdir()
    files.result.write_bytes(b'{"report": {"summary": "\xff"}}')
    with pytest.raises(ValueError):
        taken(files)


CLOSED = """
import json, os, sys
from pathlib import Path
from orchgit.agents import ResultTool, handin
from orchgit.core.errors import OrchgitError
if os.geteuid() == 0:  # for whom no door is closed
    os.setgid(65534); os.setuid(65534)
tmp = Path(sys.argv[1], "tmp")
tmp.mkdir()
files = handin.prepare(tmp, "do it")
for mode in (0, 0o500):
    files.result.write_text(json.dumps({"report": {"summary": "built"}}))
    tmp.chmod(mode)
    print(handin.take(files, [ResultTool("report", "Report.", {}, lambda given: given)]))
    tmp.chmod(mode)
    files = handin.prepare(tmp, "again")
    print(files.brief.read_text())
try:
    handin.prepare(tmp / "gone", "again")
except OrchgitError as error:
    print(error.what)
"""


def test_an_agent_that_closes_its_directory_ends_nothing() -> None:
    place = tempfile.mkdtemp()
    try:
        os.chmod(place, 0o777)
        done = subprocess.run([sys.executable, "-c", CLOSED, place], capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(place)
    once = "('report', {'summary': 'built'})\nagain\n"
    assert (done.stdout, done.stderr) == (f"{once * 2}the brief cannot be written\n", "")


def test_the_last_word_counts_and_outside_a_cell_there_is_none(files: HandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(handin.RESULT, raising=False)
    with pytest.raises(OrchgitError, match="no cell"):
        handin.write("report", {"summary": "x"})
    for name, value in handin.environment(files).items():
        monkeypatch.setenv(name, value)
    handin.write("report", {"summary": "first"})
    handin.write("request_scope", {"paths": ["docs/a.md"], "why": "needed"})
    assert taken(files) == ("request_scope", {"paths": ["docs/a.md"], "why": "needed"})
    assert Path(os.environ[handin.BRIEF]).read_text() == "do it"


def test_the_brief_can_be_handed_in_by(files: HandIn) -> None:
    told = handin.instructions(RESULTS)
    assert "`report`" in told
    assert "`request_scope`" in told
    assert "$ORCHGIT_RESULT" in told
