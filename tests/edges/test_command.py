"""Any program as an agent: real ones, in a real cell, that work, lie, hang, flood, fork and say nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchgit import wire
from orchgit.agent_run import Place, confined
from orchgit.agents import Job, Limits, Outcome, ResultTool, backend
from orchgit.config import Command
from orchgit.git import cells
from orchgit.sandbox import overlay_works
from tests.support.repos import Repo, repository, sandbox

RESULTS = (
    ResultTool("report", "Report.", {}, lambda given: wire.parse(wire.ReportIn, given)),
    ResultTool("request_scope", "Ask.", {}, wire.parse_scope_request, pauses=True),
)
REPORT = """echo '{"report": {"summary": "built"}}'"""
HAND_IN = f"{REPORT} > $ORCHGIT_RESULT"


@dataclass
class Desk:
    """One cell, and jobs of programs in it."""

    place: Place
    stop: threading.Event = field(default_factory=threading.Event)
    transcript: list[Mapping[str, Any]] = field(default_factory=list)
    seconds: int = 30
    brief: str = "You are a worker.\n\norchgit-job: work/api/1\n\nBuild it.\n"

    def run(self, script: str | list[str], *, job: Mapping[str, Any] | None = None, **entry: Any) -> Outcome:
        """`script`: of a shell. The rest are keys of [command.NAME]."""
        argv = ["sh", "-c", script] if isinstance(script, str) else script
        described = Command.model_validate({"argv": tuple(argv), **entry})
        self.place.brief = self.brief
        made = Job(
            role="worker", purpose="work", key="work/api/1", agent="api-agent", system="You are a worker.",
            brief="Build it.", workdir=str(self.place.cell.work), tools=("bash",), results=RESULTS, model="some/model",
            limits=Limits(seconds=self.seconds), launch=self.place, handin=self.place.handin, stop=self.stop,
            record=self.transcript.append, progress=lambda line: None, clock=self.place.clock,
            options={"entry": described.model_dump_json()},
        )  # fmt: skip
        return backend("command:test").run(replace(made, **(job or {})))

    def file(self, name: str) -> str:
        return (self.place.cell.top / name).read_text()

    @property
    def said(self) -> str:
        return json.dumps(self.transcript)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = repository(tmp_path_factory.mktemp("repo"), {"a.txt": b"a\n"})
    made.commit()
    return made


@pytest.fixture
def desk(repo: Repo, tmp_path: Path) -> Iterator[Desk]:
    """An overlay where the kernel has it, as in a run."""
    door, head = repo.door(), repo.ask("rev-parse", "HEAD")
    base = None if overlay_works(str(tmp_path)) else cells.make_base(door, tmp_path / "base", head)
    cell = cells.make(door, tmp_path / "cell", head, base=base)
    writable = (str(cell.work), str(cell.git), str(cell.home))
    yield Desk(Place(cell, lambda: confined(sandbox()[0], cell, writable)))
    door.close()


def alive(mark: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in words:
            found.append(pid)
    return found


# -- the brief in, the report out ------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [
    ["sh", "-c", f"cat > got; {HAND_IN}"],
    ["sh", "-c", f'cat "$1" > got; {HAND_IN}', "sh", "{brief_file}"],
    ["sh", "-c", f'printf %s "$1" > got; {HAND_IN}', "sh", "{brief}"],
    ["env", "X=1", "sh", "-c", f'cat "$ORCHGIT_BRIEF" > got; {HAND_IN}'],
])  # fmt: skip
def test_the_brief_goes_in_by_every_way(desk: Desk, argv: list[str]) -> None:
    outcome = desk.run(argv)
    assert (outcome.status, outcome.result) == ("done", ("report", {"summary": "built"})), outcome
    assert "Build it." in desk.file("got")
    assert outcome.usage.cost_micro is None, "nobody said what it cost"


def test_the_other_places(desk: Desk) -> None:
    script = f'echo "$1 $2" > got; {REPORT} > "$3"'
    outcome = desk.run(["sh", "-c", script, "sh", "{model}", "{workdir}", "{result_file}"])
    assert outcome.status == "done"
    assert desk.file("got") == f"some/model {desk.place.cell.work}\n"


def test_a_brief_that_is_too_long_for_an_argument_is_named_by_its_file(desk: Desk) -> None:
    desk.brief = "x" * 200_000
    outcome = desk.run(["sh", "-c", f'printf %s "$1" > got; {HAND_IN}', "sh", "{brief}"])
    assert outcome.status == "done"
    assert desk.file("got").startswith("Read the file /")


def test_the_report_as_the_last_json_line(desk: Desk) -> None:
    outcome = desk.run(f"""echo '{{"step": 1}}'; {REPORT}; echo bye""", report="json")
    assert outcome.result == ("report", {"summary": "built"})
    assert desk.run("""echo '{"summary": "built"}'""", report="json").status == "no_report"
    assert desk.run(REPORT).status == "no_report", "not where it was not asked for"


def test_the_output_as_the_summary(desk: Desk) -> None:
    outcome = desk.run(r"printf '\033[1mbuilt\033[0m it\n\033]0;title\007'", report="text")
    assert outcome.result == ("report", {"summary": "built it"})
    assert desk.run("true", report="text").status == "no_report", "silence is no report"
    assert desk.run("echo half; exit 3", report="text").status == "error"


# -- every wrong way to end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [
    "true",
    "echo done; exit 0",
    "echo 'I am done.' > $ORCHGIT_RESULT",
    "echo '{}' > $ORCHGIT_RESULT",
    """echo '{"report": {}}' > $ORCHGIT_RESULT""",
    """echo '{"give_verdict": {"decision": "accept"}}' > $ORCHGIT_RESULT""",
    "ln -s /etc/passwd $ORCHGIT_RESULT",
    "mkfifo $ORCHGIT_RESULT",
    "mkdir $ORCHGIT_RESULT",
    "head -c 300000 /dev/zero > $ORCHGIT_RESULT",
    "trap '' TERM; exec >&- 2>&-; exit 0",
])  # fmt: skip
def test_exit_status_0_is_no_report(desk: Desk, script: str) -> None:
    outcome = desk.run(script)
    assert (outcome.status, outcome.result) == ("no_report", None), outcome
    assert outcome.message


def test_a_failure_is_told_with_its_last_words(desk: Desk) -> None:
    outcome = desk.run("echo no credit left >&2; exit 7")
    assert outcome.status == "error"
    assert "exit code 7: no credit left" in outcome.message
    killed = desk.run("kill -9 $$")
    assert killed.status == "error"
    gone = desk.run(["no-such-agent", "run"])
    assert gone.status == "unavailable"
    assert "no-such-agent" in gone.message


def test_hanging_ends_at_the_deadline(desk: Desk) -> None:
    desk.seconds = 1
    begun = time.monotonic()
    outcome = desk.run("trap '' TERM; exec >&- 2>&-; while :; do sleep 1; done")
    assert outcome.status == "time"
    assert time.monotonic() - begun < 15
    # It reads nothing, and its brief is larger than a pipe.
    assert desk.run("sleep 1000").status == "time"


def test_stopped_by_the_engine(desk: Desk) -> None:
    threading.Timer(0.5, desk.stop.set).start()
    assert desk.run("sleep 1000.125").status == "stopped"
    assert not alive("1000.125")


def test_a_flood_is_stopped_in_bounded_memory(desk: Desk) -> None:
    outcome = desk.run("yes flood | head -c 1000000000")
    assert outcome.status == "error"
    assert "64 MiB" in outcome.message
    assert len(desk.said) < 12 << 20
    assert desk.run("head -c 1000000000 /dev/zero").status == "error", "without a line's end either"
    outcome = desk.run(f"head -c 100000000 /dev/zero >&2; {HAND_IN}")
    assert outcome.status == "done", "what is not looked at does no harm"


def test_daemons_do_not_outlive_it(desk: Desk) -> None:
    daemon = "setsid sh -c 'sleep 1000.25' </dev/null & setsid sleep 1000.25 >/dev/null 2>&1 </dev/null &"
    begun = time.monotonic()
    outcome = desk.run(f"{daemon} {HAND_IN}")
    assert outcome.status == "done"
    assert time.monotonic() - begun < 15
    assert not alive("1000.25")


# -- going on --------------------------------------------------------------------------------------------------


def test_one_reminder_where_it_can_go_on(desk: Desk) -> None:
    resume = ("sh", "-c", f"cat > reminder; {HAND_IN}")
    outcome = desk.run("echo '{}' > $ORCHGIT_RESULT", resume=resume)
    assert outcome.status == "done"
    assert "not an object with one key" in desk.file("reminder")
    assert "$ORCHGIT_RESULT" in desk.file("reminder")
    assert [entry["kind"] for entry in desk.transcript].count("reminder") == 1


def test_and_no_second_one(desk: Desk) -> None:
    outcome = desk.run("true", resume=("sh", "-c", "echo again >> again"))
    assert outcome.status == "no_report"
    assert desk.file("again") == "again\n"
    assert desk.run("exit 1", resume=("sh", "-c", "echo more >> again")).status == "error"
    assert desk.file("again") == "again\n", "who failed is not reminded"


def test_it_asks_for_scope_and_goes_on_with_the_answer(desk: Desk) -> None:
    ask = """echo '{"request_scope": {"paths": ["docs/a.md"], "why": "x"}}' > $ORCHGIT_RESULT"""
    resume = ("sh", "-c", f"cat > answer; {HAND_IN}")
    outcome = desk.run(ask, resume=resume)
    assert outcome.result == ("request_scope", {"paths": ["docs/a.md"], "why": "x"})
    assert outcome.session
    after = desk.run("exit 9", job={"session": outcome.session, "answer": "Granted: docs/a.md"}, resume=resume)
    assert after.status == "done"
    assert desk.file("answer") == "Granted: docs/a.md"
    assert desk.run(ask).session == b"", "who cannot be resumed has no session"


# -- what it is given ------------------------------------------------------------------------------------------


def test_variables_by_name_and_their_values_are_not_written_down(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_AGENT_AUTH", "hunter2-hunter2")
    monkeypatch.setenv("ANOTHER", "not for it")
    outcome = desk.run("env | grep -c ANOTHER; echo $MY_AGENT_AUTH | tee got; echo $MY_AGENT_AUTH >&2; exit 1",
                       env=("MY_AGENT_AUTH",))  # fmt: skip
    assert desk.file("got") == "hunter2-hunter2\n"
    assert "hunter2" not in desk.said + outcome.message
    assert "[MY_AGENT_AUTH]" in outcome.message
    assert '"0"' in desk.said


def test_files_of_home_are_copied_inside_the_sandbox(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "user"
    (home / ".config/tool").mkdir(parents=True)
    (home / ".config/tool/auth.json").write_text("{}")
    (home / "outside").write_text("kept")
    monkeypatch.setenv("HOME", str(home))
    # What an earlier turn left in the way does not lead out.
    (desk.place.cell.home / ".config").symlink_to(home)
    told = desk.run(f"cat $HOME/.config/tool/auth.json; {HAND_IN}", home=(".config/tool",))
    assert (home / "outside").read_text() == "kept"
    assert sorted(p.name for p in home.iterdir()) == [".config", "outside"]
    assert told.status in ("error", "done")
    (desk.place.cell.home / ".config").unlink(missing_ok=True)
    told = desk.run(f"cp $HOME/.config/tool/auth.json got; echo x > $HOME/.config/tool/auth.json; {HAND_IN}",
                    home=(".config/tool", ".missing"))  # fmt: skip
    assert told.status == "done", told
    assert desk.file("got") == "{}"
    assert (home / ".config/tool/auth.json").read_text() == "{}"


def test_a_model_that_is_not_named_is_not_made_up(desk: Desk) -> None:
    outcome = desk.run(["sh", "-c", "true", "{model}"], job={"model": "its own"})
    assert outcome.status == "error"
    assert "no model is named" in outcome.message


def test_probe_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)

    def probe(*argv: str, **more: Any) -> str:
        found = backend("command:x").probe({"entry": Command.model_validate({"argv": argv, **more}).model_dump_json()})
        return f"{found.found} {found.detail}"

    assert probe("env", "A=1", "sh", "-c", "x").startswith("True /")
    assert "no-such-agent is not on PATH" in probe("env", "A=1", "no-such-agent")
    assert "NOT_SET_HERE" in probe("sh", env=("NOT_SET_HERE",))
    assert not backend("command").probe({}).found
