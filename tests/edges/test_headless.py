"""Claude Code and Codex as backends: every way in which they end, told by programs that speak what the real ones do.

Real sandbox, real cell, real processes; only what thinks is a script (tests/support/fake_cli.py). That the real
programs say these things is shown by tests/cli/test_clis.py.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchgit import patience, wire
from orchgit.agent_run import Place, confined, refusal, results
from orchgit.agents import Job, Limits, Outcome, backend, headless
from orchgit.agents.budget import Ledger, taken
from orchgit.agents.claude import _rule
from orchgit.agents.headless import denied, report_schema
from orchgit.agents.toolbox import RESULT_CHARS
from orchgit.core.events import Budget, Used
from orchgit.git import cells
from orchgit.patience import Patience
from orchgit.sandbox import Network
from orchgit.stint import Stint
from tests.support import fake_cli
from tests.support.messages_server import check_strict
from tests.support.repos import Repo, repository, sandbox

KEY = "sk-ant-test-0123456789-secret"
NEW, OLD, CODEX = "claude-2.1.330", "claude-2.1.197", "codex-0.169.0"
BOTH = (NEW, CODEX)
ASKED = {"request_scope": {"paths": ["docs/**"], "why": "to say so"}}
# A turn that ends well, with another result than the recorded one; in the form of each program.
REPORTS = {
    "claude": "init(); last(structured_output={})",
    "codex": "init(); words(json.dumps({})); last()",
}


def reporting(stream: str, given: object) -> str:
    return REPORTS[stream.partition("-")[0]].replace("{}", repr(given))


@dataclass
class Desk:
    """One cell, and an agent in it."""

    place: Place
    bin: Path
    stop: threading.Event = field(default_factory=threading.Event)
    transcript: list[dict[str, Any]] = field(default_factory=list)
    name: str = "claude"

    def install(self, stream: str, *turns: str, **more: Any) -> None:
        self.name = stream.partition("-")[0]
        fake_cli.install(self.bin, stream, *turns, **more)

    def run(self, stream: str, *turns: str, job: Mapping[str, Any] | None = None, **limits: Any) -> Outcome:
        self.install(stream, *turns)
        return self.again(job=job, **limits)

    def again(self, *, job: Mapping[str, Any] | None = None, **limits: Any) -> Outcome:
        self.place.brief = "the brief"
        model = "claude-sonnet-5-5" if self.name == "claude" else "default"
        made = Job(
            role="worker", purpose="work", key="work/api/1", agent="api-agent", system="You are a worker.",
            brief="orchgit-job: work/api/1\n\nBuild it.", workdir=str(self.place.cell.work),
            tools=("read", "glob", "grep", "bash", "write", "edit"), results=results("work"), model=model,
            limits=Limits(**{"seconds": 30, **limits}), launch=self.place, handin=self.place.handin, stop=self.stop,
            record=lambda entry: self.transcript.append(json.loads(json.dumps(entry))), progress=lambda line: None,
            clock=self.place.clock, allow=("src/**",), deny=("src/gen/**",),
        )  # fmt: skip
        outcome = backend(self.name).run(replace(made, **(job or {})))
        assert self.transcript[-1]["kind"] == "end"
        assert KEY not in json.dumps(self.transcript)
        return outcome

    @property
    def starts(self) -> list[dict[str, Any]]:
        return fake_cli.starts(self.place.cell.home)

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.transcript if entry["kind"] == kind]

    def alive(self) -> list[str]:
        mark, found = str(self.place.cell.root).encode(), []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path("/proc", pid, "environ").read_bytes() and int(pid) != os.getpid():
                    found.append(Path("/proc", pid, "cmdline").read_text())
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = repository(tmp_path_factory.mktemp("repo"), {"src/a.txt": b"a\n", "docs/index.md": b"docs\n"})
    made.commit()
    return made


@pytest.fixture
def desk(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(headless, "PAUSES_S", (0.05, 0.05))
    for name in ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "CODEX_API_KEY", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MY_OTHER_SECRET", "not for it")
    door = repo.door()
    cell = cells.make(door, tmp_path / "cell", repo.ask("rev-parse", "HEAD"))
    writable = (str(cell.work / "src"), str(cell.git), str(cell.home))

    def make() -> Any:
        needs = backend(made.name).needs({})
        network: Network = needs.network
        return confined(sandbox()[0], cell, writable, network=network, readable=needs.readable)

    made = Desk(Place(cell, make), tmp_path / "bin")
    yield made
    door.close()


# -- it works --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [NEW, OLD, CODEX])
def test_done(desk: Desk, stream: str) -> None:
    outcome = desk.run(stream)
    assert outcome.status == "done", outcome
    assert outcome.result == ("report", {"summary": "did it", "produced": ["src/ok.txt"], "blockers": []})
    assert outcome.session == b""
    assert outcome.conversation == (desk.starts[0]["argv"][-1] if desk.name == "claude" else "thread-1")
    first, shell = [seen for entry in desk.transcript if (seen := refusal(entry))]
    assert (first[0], first[2].removesuffix(".txt")) == ("tool", "docs/evil") or desk.name == "codex"
    assert {first[2], shell[2]} == {"docs/evil.txt", "docs/evil2"}
    assert {first[0], shell[0]} == {"tool", "sandbox"}
    told = [entry["text"] for entry in desk.transcript if entry["kind"] == "reply"]
    assert told[0] == "I begin."


def test_what_it_cost(desk: Desk) -> None:
    """Claude Code says itself; of Codex only the tokens are known, and no price is made up."""
    claude = desk.run(NEW).usage
    recorded = [json.loads((fake_cli.STREAMS / f"{stream}.jsonl").read_text().splitlines()[-1]) for stream in BOTH]
    assert (claude.calls, claude.cost_micro) == (3, round(recorded[0]["total_cost_usd"] * 1_000_000))
    assert claude.input == recorded[0]["modelUsage"]["claude-sonnet-5-5"]["inputTokens"]
    codex = desk.run(CODEX).usage
    assert (codex.calls, codex.cost_micro) == (4, None)
    assert (codex.input, codex.output) == (recorded[1]["usage"]["input_tokens"], 80)


def test_how_claude_is_started(desk: Desk) -> None:
    desk.run(NEW)
    (start,) = desk.starts
    argv = start["argv"]

    def after(name: str) -> str:
        return str(argv[argv.index(name) + 1])

    assert start["prompt"] == "orchgit-job: work/api/1\n\nBuild it."
    assert after("--setting-sources") == ""  # no settings, hooks, CLAUDE.md of anybody's
    assert {"-p", "--strict-mcp-config", "--disable-slash-commands"} <= set(argv)
    assert after("--tools") == "Read,Glob,Grep,Bash,Write,Edit"
    work = desk.place.cell.work
    rules = json.loads(after("--settings"))["permissions"]
    assert rules["defaultMode"] == "dontAsk"
    offered = ["mcp__orchgit"] if find_spec("mcp") else []  # its own server, and only where the package is there
    assert rules["allow"] == ["Read", "Glob", "Grep", "Bash", *offered, f"Edit(/{work}/src/**)"]
    assert ("--mcp-config" in argv) is bool(offered)
    assert f"Edit(/{work}/src/gen/**)" in rules["deny"]
    assert after("--append-system-prompt").startswith("You are a worker.")
    assert set(json.loads(after("--json-schema"))["properties"]) == {"report", "request_scope"}
    assert KEY not in " ".join(argv)
    assert "ANTHROPIC_API_KEY" in start["env"]
    assert {"MY_OTHER_SECRET", "OPENAI_API_KEY"}.isdisjoint(start["env"])
    desk.again(job={"role": "reviewer", "tools": ("read", "bash"), "allow": (), "deny": ()})
    argv = desk.starts[1]["argv"]
    assert after("--tools") == "Read,Bash"
    assert json.loads(after("--settings"))["permissions"]["allow"] == ["Read", "Bash", *offered]


def test_how_codex_is_started(desk: Desk) -> None:
    desk.run(CODEX)
    (start,) = desk.starts
    settings = dict(word.split("=", 1) for word in start["argv"] if "=" in word)
    assert settings["sandbox_mode"] == '"danger-full-access"'  # ours prevents
    assert settings["project_doc_max_bytes"] == "0"
    assert settings["developer_instructions"].startswith('"You are a worker.')
    assert "--ignore-user-config" in start["argv"]
    assert "CODEX_API_KEY" in start["env"]
    assert {"MY_OTHER_SECRET", "ANTHROPIC_API_KEY"}.isdisjoint(start["env"])
    assert KEY not in " ".join(start["argv"])
    desk.again(job={"confined": False})
    settings = dict(word.split("=", 1) for word in desk.starts[1]["argv"] if "=" in word)
    assert settings["sandbox_mode"] == '"workspace-write"'  # nothing else holds it


def test_a_login_is_copied_without_what_renews_it(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    kept = {"claudeAiOauth": {"accessToken": KEY, "refreshToken": "renew", "expiresAt": 4102444800000}}
    auth = {"OPENAI_API_KEY": None, "tokens": {"access_token": KEY, "refresh_token": "renew", "id_token": "x.y.z"}}
    for name, given in ((".claude/.credentials.json", kept), (".codex/auth.json", auth)):
        path = tmp_path / "user" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(given))
    for stream in BOTH:
        desk.install(stream)
        probe = backend(desk.name).probe({})
        assert (probe.found, probe.version) == (True, stream.partition("-")[2])
        assert probe.login.startswith(str(tmp_path / "user"))
        assert desk.again().status == "done"
        (copy,) = desk.starts[-1]["kept"][-1:]
        assert KEY in copy
        assert "renew" not in copy
    assert json.loads((tmp_path / "user/.claude/.credentials.json").read_text()) == kept
    kept["claudeAiOauth"]["expiresAt"] = 1000
    (tmp_path / "user/.claude/.credentials.json").write_text(json.dumps(kept))
    desk.install(NEW)
    assert "has run out" in backend("claude").probe({}).detail
    outcome = backend("claude").run(replace(_job(desk), model="m"))
    assert (outcome.status, "setup-token" in outcome.hint) == ("auth", True)


def _job(desk: Desk) -> Job:
    return Job(
        role="worker", purpose="work", key="k", agent="a", system="s", brief="b", workdir="/", tools=(), results=(),
        model="", limits=Limits(), launch=desk.place, handin=desk.place.handin, stop=desk.stop, record=lambda e: None,
        progress=lambda line: None,
    )  # fmt: skip


def test_what_is_not_here_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name, install in (("claude", "@anthropic-ai/claude-code"), ("codex", "@openai/codex")):
        probe = backend(name).probe({})
        assert not probe.found
        assert install in probe.hint
        assert backend(name).run(_job(desk)).status == "unavailable"
    monkeypatch.setenv("PATH", f"{desk.bin}:/usr/bin:/bin")
    desk.install(NEW, version="who knows")
    assert "does not say its version" in backend("claude").probe({}).detail


# -- every ending ----------------------------------------------------------------------------------------

API = 'is_error=True, terminal_reason="api_error", structured_output=None'
CLAUDE_ENDINGS = {
    "turns": ('init(); last(1, subtype="error_max_turns", is_error=True, errors=["Reached 60"], result=None)', "turns"),
    "budget": ('init(); last(1, subtype="error_max_budget_usd", is_error=True, structured_output=None)', "budget"),
    "refused": (f'init(); last(1, stop_reason="refusal", {API})', "refused"),
    "context": ('init(); last(1, is_error=True, terminal_reason="prompt_too_long", structured_output=None)', "context"),
    "400": (f'init(); last(1, api_error_status=400, result="bad request", {API})', "error"),
    "401": (f"init(); last(1, api_error_status=401, {API})", "auth"),
    "no login": (f'init(); last(1, result="Not logged in · Please run /login", {API})', "auth"),
    "404": (f"init(); last(1, api_error_status=404, {API})", "unavailable"),
    "no credit": (f'init(); last(1, api_error_status=400, result="Credit balance is too low", {API})', "unavailable"),
    "500": (f"init(); last(1, api_error_status=500, {API})", "unavailable"),
    "429": (f"init(); last(1, api_error_status=429, {API})", "limited"),
    "529": (f"init(); last(1, api_error_status=529, {API})", "limited"),
    "no connection": (f"init(); last(1, api_error_status=None, {API})", "unavailable"),
    "401 asked again for minutes": (
        'init(); say({"type": "system", "subtype": "api_retry", "attempt": 1, "error_status": 401, "error": "x"})\n'
        "time.sleep(60)",
        "auth",
    ),
    "bad flag": ('print("error: unknown option --x", file=sys.stderr); sys.exit(1)', "error"),
    "interrupted, exit status 0": ("play(4); sys.exit(0)", "error"),
    "exit status 0 and nothing else": ("sys.exit(0)", "error"),
    "not a stream at all": ('print("hello"); print("[1]"); print("{}"); sys.exit(0)', "error"),
    "killed": ("play(4); die()", "error"),
    "never a result": ("init(); last(structured_output=None)", "no_report"),
    "report of another shape": ('init(); last(structured_output={"summary": "x"})', "no_report"),
    "two results": ('init(); last(structured_output={"report": {"summary": "x"}, "request_scope": {}})', "no_report"),
}
FAILED = 'say({"type": "turn.failed", "error": {"message": %r}}); sys.exit(1)'
CODEX_ENDINGS = {
    "400": ("init(); " + FAILED % '{"error": {"type": "invalid_request_error", "message": "bad request"}}', "error"),
    "401": ("init(); " + FAILED % "unexpected status 401 Unauthorized: bad", "auth"),
    "401 asked again": (
        'init(); say({"type": "error", "message": "Reconnecting... 1/5 (unexpected status 401 Unauthorized: x)"})\n'
        "time.sleep(60)",
        "auth",
    ),
    "429": ("init(); " + FAILED % "exceeded retry limit, last status: 429 Too Many Requests", "limited"),
    "500": ("init(); " + FAILED % "We’re currently experiencing high demand", "unavailable"),
    "usage limit": ("init(); " + FAILED % "You've hit your usage limit. Try again at 3 PM.", "limited"),
    "context": ("init(); " + FAILED % "Your input exceeds the context window of this model.", "context"),
    "bad flag": ("print(\"error: unexpected argument '--x' found\", file=sys.stderr); sys.exit(2)", "error"),
    "exit status 0 and nothing else": ("sys.exit(0)", "error"),
    "killed": ("play(4); die()", "error"),
    "words, no result": ("init(); words('all done!'); last()", "no_report"),
    "another shape": ("init(); words(json.dumps({'report': 'done'})); last()", "no_report"),
}
ENDINGS = [(NEW, name, *row) for name, row in CLAUDE_ENDINGS.items()]
ENDINGS += [(CODEX, name, *row) for name, row in CODEX_ENDINGS.items()]


@pytest.mark.parametrize(("stream", "script", "status"), [(s, t, u) for s, _, t, u in ENDINGS],
                         ids=[f"{s.partition('-')[0]}: {name}" for s, name, *_ in ENDINGS])  # fmt: skip
def test_every_ending(desk: Desk, stream: str, script: str, status: str) -> None:
    before = time.monotonic()
    outcome = desk.run(stream, script)
    assert outcome.status == status, outcome
    assert outcome.result is None
    assert outcome.message
    assert status not in ("auth",) or outcome.hint
    assert time.monotonic() - before < 20
    # What cannot get better is not tried again; what was interrupted is, twice.
    passing = (status == "error" and ("die()" in script or "sys.exit(0)" in script)) or (
        status == "unavailable" and ("=500" in script or "=None, is" in script or "high demand" in script)
    )  # fmt: skip
    tries = {"no_report": 3 if "shape" in script or "{'report'" in script or '"summary"' in script else 2}
    assert len(desk.starts) == (3 if passing else tries.get(status, 1))


def test_a_service_that_wants_patience(desk: Desk) -> None:
    """The conversation is kept, and when it may go on; another agent's word counts before the program is started."""
    until = int(time.time()) + 3600
    limited = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": until}}
    outcome = desk.run(NEW, f"init(); say({limited!r}); last(1, api_error_status=429, {API})", "done()")
    assert (outcome.status, 3500 < (outcome.retry_after_s or 0) < 3601) == ("limited", True)
    held = desk.again(job={"session": outcome.session, "held_s": lambda: 12.0})
    assert (held.status, held.retry_after_s, len(desk.starts)) == ("limited", 12.0, 1)
    assert json.loads(held.session)["conversation"] == outcome.conversation
    again = desk.again(job={"session": held.session})
    assert (again.status, again.conversation) == ("done", outcome.conversation)
    assert "go on" in desk.starts[1]["prompt"]
    words = "You've hit your usage limit. Upgrade, or try again in 2 days 3 hours 5 minutes."
    outcome = desk.run(CODEX, "init(); " + FAILED % words)
    assert (outcome.status, outcome.retry_after_s) == ("limited", 2 * 86_400 + 3 * 3600 + 300)


LIMITED = """init(); say({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": %s}})
last(1, api_error_status=429, is_error=True, structured_output=None, result="limit")"""


def stint(desk: Desk, held: Patience, patience_s: int) -> Outcome:
    job = replace(
        _job(desk), results=results("work"), workdir=str(desk.place.cell.work), model="claude-sonnet-5-5",
        purse=Ledger(Budget(), Budget()).purse(Limits(), ()),
    )  # fmt: skip
    made = Stint(backend(desk.name), desk.place.clock, desk.stop, held, patience_s, lambda data: "", Used())
    return made.work(job, lambda note: None)


@pytest.mark.parametrize(("stream", "script"), [
    (NEW, LIMITED % 'float("inf")'), (NEW, LIMITED % 'float("nan")'), (NEW, LIMITED % "1e13"),
    (NEW, LIMITED % "time.time() + 1e7"), (NEW, LIMITED % "-10**400"),
    (CODEX, "init(); " + FAILED % "usage limit, try again in 99999999999999 days"),
    (CODEX, "init(); " + FAILED % f"usage limit, try again in {'9' * 400} days"),
])  # fmt: skip
def test_an_odd_limit_holds_nobody_else(desk: Desk, stream: str, script: str) -> None:
    """Its stream can be written by whatever runs beside it: no number in it ends the engine, or stops the others."""
    desk.install(stream, script)
    held = Patience(10)
    outcome = stint(desk, held, 10)
    assert (outcome.status, "patience_s is 10" in outcome.message) == ("unavailable", True), outcome
    assert held.held_s(desk.name) == 0


@pytest.mark.parametrize(("patience_s", "most", "why"), [(3, 100, "patience_s is 3"), (600, 3, "waited 3 times")])
def test_waits_end_though_it_says_that_it_works(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, patience_s: int, most: int, why: str
) -> None:
    """Each time it claims to have written something, and that its service wants no more than a second."""
    monkeypatch.setattr(patience, "FIRST_S", 0.3)
    monkeypatch.setattr("orchgit.stint.MOST_WAITS", most)
    said = "modelUsage={'x': {'outputTokens': int(time.time() * 1000) % 10**9}}"
    desk.install(NEW, (LIMITED % 1).replace("is_error", f"{said}, is_error"))
    late = threading.Timer(12, desk.stop.set)
    late.start()
    outcome = stint(desk, Patience(patience_s), patience_s)
    late.cancel()
    assert (outcome.status, why in outcome.message) == ("unavailable", True), outcome
    assert outcome.usage.output > 0
    assert 3 <= len(desk.starts) <= 4


def test_shared_budgets(desk: Desk) -> None:
    """What it may spend at most is told to the program; what it took is taken from all; what is met keeps the work."""
    ledger = Ledger(Budget(cost_micro=1_000_000), Budget())
    limits = Limits(cost_micro=5_000_000)
    outcome = desk.run(NEW, "init(); last(structured_output=None)", job={"purse": ledger.purse(limits, ())})
    start = desk.starts[0]["argv"]
    assert start[start.index("--max-budget-usd") + 1] == "1.000000"
    took = outcome.usage.cost_micro or 0
    assert ledger.purse(limits, ()).left().cost_micro == 1_000_000 - took
    ledger.raise_by(Budget(cost_micro=took - 1_000_000))
    outcome = desk.run(NEW, "init(); last(structured_output=None)", job={"purse": ledger.purse(limits, ())})
    assert (outcome.status, json.loads(outcome.session)["conversation"]) == ("run_budget", outcome.conversation)


REPLIES = """init()
for n in range(50):
    usage = {"input_tokens": 100_000, "output_tokens": 10_000}
    block = {"type": "text", "text": str(n)}
    say({"type": "assistant", "message": {"id": n, "model": "claude-sonnet-5-5", "usage": usage, "content": [block]}})
    time.sleep(0.2)
done()"""


def test_those_who_share_a_budget_keep_to_it_while_they_work(desk: Desk) -> None:
    """0.30 dollars a reply, two at the same time, 1.50 for both; each was told that all of it is left."""
    ledger, limits = Ledger(Budget(cost_micro=1_500_000), Budget()), Limits(cost_micro=5_000_000)
    desk.install(NEW, REPLIES)
    with ThreadPoolExecutor() as pool:
        other = Desk(desk.place, desk.bin)
        both = [pool.submit(one.again, job={"purse": ledger.purse(limits, ())}) for one in (desk, other)]
    outcomes = [one.result() for one in both]
    assert {outcome.status for outcome in outcomes} == {"run_budget"}
    assert any(outcome.session for outcome in outcomes)
    assert sum(outcome.usage.calls for outcome in outcomes) <= 5 + 2  # the one too many, of each
    assert ledger.purse(limits, ()).left().cost_micro == 0


def test_a_turn_that_broke_off_is_charged(desk: Desk) -> None:
    """Never more than it was handed; a service that took no call has cost nothing."""
    script = REPLIES.replace("done()", "die()").replace("range(50)", "range(2)").replace("sleep(0.2)", "sleep(0)")
    ledger, limits = Ledger(Budget(cost_micro=9_000_000), Budget()), Limits()
    outcome = desk.run(NEW, script, "init(); last(structured_output={})", job={"purse": ledger.purse(limits, ())})
    assert outcome.usage.cost_micro is None
    assert 600_000 < outcome.usage.unsure_micro < 1_200_000
    assert 7_000_000 < (ledger.purse(limits, ()).left().cost_micro or 0) < 8_400_000
    # Its engine killed instead, its transcript says the same.
    cut = next(n for n, entry in enumerate(desk.transcript) if entry["kind"] == "turn ended")
    for end in (cut, cut + 1):
        assert taken(map(json.dumps, desk.transcript[:end])).unsure_micro == outcome.usage.unsure_micro
    prices = {"prices": '{"mine": {"input": 1, "output": 1000000, "cache_read": 1, "cache_write": 10000000}}'}
    # The whole that it was handed, or a reply at its worst.
    for model, most in (("a-model-without-a-price", 3_000_000), ("claude-sonnet-5-5", 445_000), ("mine", 532_000)):
        desk.transcript.clear()
        desk.install(NEW, "die()")
        purse = Ledger(Budget(cost_micro=3_000_000), Budget()).purse(limits, ())
        desk.again(job={"purse": purse, "model": model, "options": prices})
        asked = next(n for n, entry in enumerate(desk.transcript) if entry["kind"] == "request")
        assert taken(map(json.dumps, desk.transcript[: asked + 1])).unsure_micro == most
    refused = "init(); say({'type': 'system', 'subtype': 'api_retry', 'error_status': 401})"
    assert desk.run(NEW, refused).usage.unsure_micro == 0


def test_a_codex_turn_that_broke_off_is_charged(desk: Desk) -> None:
    """It tells nothing until its turn is over: a reply for each of its tools, and one more."""
    prices = {"prices": '{"mine": {"input": 1, "output": 1000000, "cache_read": 1, "cache_write": 10000000}}'}
    job = {"model": "mine", "options": prices}
    outcome = desk.run(CODEX, "play(); die()", "done()", job=job)
    first = next(entry["total"] for entry in desk.kinds("turn ended"))
    assert (first["calls"], first["unsure_micro"]) == (3, 4 * 532_000)
    assert (outcome.usage.cost_micro, outcome.usage.unsure_micro) == (None, 4 * 532_000)
    assert desk.run(CODEX, "init(); " + FAILED % "401 Unauthorized", job=job).usage.unsure_micro == 0


@pytest.mark.parametrize("stream", BOTH)
def test_taken_up_again_where_it_was_killed(desk: Desk, stream: str) -> None:
    outcome = desk.run(stream, "play(4); die()", "done()")
    assert outcome.status == "done", outcome
    first, second = desk.starts
    assert outcome.conversation in second["argv"]
    assert "interrupted" in second["prompt"]
    assert outcome.conversation in (*first["argv"], "thread-1")
    assert outcome.usage.cost_micro is None  # what the killed part has cost nobody knows


def test_killed_before_there_was_a_conversation(desk: Desk) -> None:
    outcome = desk.run(NEW, "die()", "done()")
    first, second = desk.starts
    assert outcome.status == "done"
    assert second["prompt"] == first["prompt"]
    assert "--resume" not in second["argv"]


@pytest.mark.parametrize("stream", BOTH)
def test_reminded_of_its_result(desk: Desk, stream: str) -> None:
    nothing = "init(); last(structured_output=None)" if desk.name == stream else "init(); words('done'); last()"
    nothing = "init(); last(structured_output=None)" if stream == NEW else "init(); words('done'); last()"
    outcome = desk.run(stream, nothing, "done()")
    assert outcome.status == "done"
    assert "You have not delivered" in desk.starts[1]["prompt"]
    assert outcome.conversation in desk.starts[1]["argv"]


@pytest.mark.parametrize("stream", BOTH)
def test_a_result_that_is_not_valid_is_corrected(desk: Desk, stream: str) -> None:
    bad = {"report": {"summary": "x", "produced": 3, "blockers": []}, "request_scope": None}
    outcome = desk.run(stream, reporting(stream, bad), "done()")
    assert outcome.status == "done"
    assert "produced" in desk.starts[1]["prompt"]


@pytest.mark.parametrize("stream", BOTH)
def test_a_result_by_file(desk: Desk, stream: str) -> None:
    nothing = "last(structured_output=None)" if stream == NEW else "words('done'); last()"
    outcome = desk.run(stream, f"init(); handin({{'report': {{'summary': 'by file'}}}}); {nothing}")
    assert outcome.result == ("report", {"summary": "by file"})


@pytest.mark.parametrize("stream", BOTH)
def test_a_request_pauses_and_the_session_goes_on(desk: Desk, stream: str) -> None:
    asked = {"report": None, **ASKED}
    outcome = desk.run(stream, reporting(stream, asked), "done()")
    assert outcome.result == ("request_scope", ASKED["request_scope"])
    first = outcome.usage
    outcome = desk.again(job={"session": outcome.session, "answer": "You may."})
    assert outcome.status == "done"
    assert desk.starts[1]["prompt"] == "You may."
    assert outcome.conversation in desk.starts[1]["argv"]
    # Its numbers add up over the whole conversation; ours are of this job.
    assert (outcome.usage.input, first.input > 0) == (0, True)
    desk.transcript.clear()
    broken = backend(desk.name).run(replace(_job(desk), session=b"[1]"))
    assert (broken.status, "cannot be read" in broken.message) == ("error", True)


def test_a_request_by_file_pauses_too(desk: Desk) -> None:
    outcome = desk.run(NEW, f"play(); handin({ASKED!r}); last()")
    assert outcome.result == ("request_scope", ASKED["request_scope"])
    assert outcome.session


# -- hostile and broken ------------------------------------------------------------------------------------


def test_hanging_ends_by_the_clock(desk: Desk) -> None:
    for stream in BOTH:
        outcome = desk.run(stream, "init(); signal.signal(15, signal.SIG_IGN); time.sleep(60)", seconds=1)
        assert (outcome.status, outcome.conversation != "") == ("time", True)
    desk.install(NEW, "time.sleep(60)", reads=False)  # not even its prompt does it read
    assert desk.again(job={"brief": "x" * 1_000_000}, seconds=1).status == "time"
    assert not desk.alive()


def test_stopped(desk: Desk) -> None:
    threading.Timer(1, desk.stop.set).start()
    assert desk.run(NEW, "init(); time.sleep(60)").status == "stopped"
    assert not desk.alive()


FLOODS = {
    "lines": "while True: sys.stdout.write('x' * 99 + chr(10))",
    "one line": "while True: sys.stdout.write('x' * 100000)",
    "events": "t = json.dumps({'type': 'system', 'y': 'x' * 9000}) + chr(10)\nwhile True: sys.stdout.write(t)",
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_cut(desk: Desk, kind: str) -> None:
    outcome = desk.run(NEW, "init()\n" + FLOODS[kind])
    assert outcome.status == "error", outcome
    assert "printed more than" in outcome.message or "cannot be read" in outcome.message
    assert len(json.dumps(desk.transcript)) < 5_000_000
    assert not desk.alive()


def test_a_gigabyte_on_stderr_is_nothing(desk: Desk) -> None:
    script = "t = 'x' * (1 << 20)\nfor _ in range(1024): sys.stderr.write(t)\ndone()"
    assert desk.run(NEW, script).status == "done"


def test_what_it_leaves_running_ends_with_it(desk: Desk) -> None:
    daemon = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\ndone()"
    assert desk.run(NEW, daemon).status == "done"
    assert not desk.alive()


def test_one_that_does_not_end_after_its_last_word(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "LINGER_S", 0.5)
    assert desk.run(NEW, "play(); say(dict(lines[-1])); time.sleep(60)").status == "done"
    assert desk.kinds("lingers")
    assert not desk.alive()


def test_what_was_said_in_time_counts(desk: Desk) -> None:
    assert desk.run(NEW, "play(); say(dict(lines[-1]))\nwhile True: time.sleep(0.1); print('{}')",
                    seconds=2).status == "done"  # fmt: skip
    assert not desk.alive()


def test_noise_costs_nothing(desk: Desk) -> None:
    noise = "print('warning: x'); print('[' * 100000); print('{\"type\": \"assistant\"}'); print('{\"type\": 3}')"
    assert desk.run(NEW, f"init(); {noise}; done()").status == "done"
    assert len(desk.kinds("noise")) == 3


def test_what_cannot_be_written_down_is_not_taken(desk: Desk) -> None:
    """Numbers without end, halves of characters, names that are options: a hostile program is no fault of ours."""
    hostile = """
init(); say({"type": "system", "subtype": "init", "session_id": 3})
print('{"type": "system", "subtype": "init", "session_id": "--dangerously-skip-permissions"}')
print('{"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "\\\\ud800"}], "usage": {}}}')
huge = {"m": {"inputTokens": 10 ** 40, "outputTokens": -5, "cacheReadInputTokens": "x"}}
print(json.dumps({**lines[-1], "total_cost_usd": 1e999, "modelUsage": {}}))
last(total_cost_usd=1e300, modelUsage={"m": {"inputTokens": 10 ** 40, "outputTokens": -5}})
"""
    outcome = desk.run(NEW, hostile)
    assert outcome.status == "done"
    assert outcome.conversation in desk.starts[0]["argv"]
    assert (outcome.usage.input, outcome.usage.output, outcome.usage.cost_micro) == (1 << 48, 0, 1 << 48)
    assert "\\ud800" not in json.dumps(desk.transcript)


def test_the_last_of_several_results_counts(desk: Desk) -> None:
    script = "init(); say({**lines[-1], 'structured_output': None, 'is_error': True}); time.sleep(0.1); done()"
    assert desk.run(NEW, script).status == "done"


def test_limits(desk: Desk) -> None:
    assert desk.run(NEW, tokens=100).status == "budget"
    assert desk.run(CODEX, turns=1).status == "turns"
    assert desk.run(CODEX, cost_micro=5).status == "error"  # its price is unknown, so no limit could be kept
    outcome = desk.run(NEW, "init(); last(structured_output=None)", cost_micro=5)
    assert outcome.status == "budget"
    start = next(s for s in reversed(desk.starts) if "--max-budget-usd" in s["argv"])
    assert start["argv"][start["argv"].index("--max-budget-usd") + 1] == "0.000005"


# -- pieces ------------------------------------------------------------------------------------------------


def test_the_schema_is_as_strict_as_services_want_it() -> None:
    for purpose in ("plan", "work", "verdict", "review", "synthesis"):
        made = report_schema(results(purpose))
        check_strict(made, purpose)
        assert made["required"] == list(wire.PURPOSE_RESULTS[purpose])
        for ref in re.findall(r'"#/\$defs/(\w+)"', json.dumps(made)):
            assert ref in made["$defs"]


def test_a_rule_that_could_be_read_otherwise_is_none() -> None:
    assert _rule("/w", "src/api/**") == "Edit(//w/src/api/**)"
    assert _rule("/w", "docs/") == "Edit(//w/docs/**)"
    for pattern in ("app/(auth)/**", "a b/**", "x[ab]", "!x", "a,b"):
        assert _rule("/w", pattern) == ""


def test_what_counts_as_denied() -> None:
    text = (
        "/bin/bash: line 3: docs/x: Permission denied\n"
        "sh: 1: cannot create docs/y: Permission denied\n"
        "touch: cannot touch 'docs/z z': Read-only file system\n"
        "PermissionError: [Errno 13] Permission denied: '/w/docs/p'\n"
        "EROFS: read-only file system, open '/w/docs/n'\n"
        "find: ‘/root/x’: Permission denied\n"  # it was read, or not: nothing was written
    )
    assert [path for path, _ in denied(text, "/w")] == ["docs/x", "docs/y", "docs/z z", "docs/p", "docs/n"]
    assert not list(denied("a book on Permission denied and how to live with it", "/w"))
    made = "mkdir: cannot create directory ‘docs/d’: Permission denied\n"
    made += "cp: cannot create regular file 'docs/f': Read-only file system"
    assert [path for path, _ in denied(made, "/w")] == ["docs/d", "docs/f"]


@pytest.mark.parametrize("piece", [
    "cannot ", "cannot\n", "line 1: ", "line 1: a", "a:", "Errno 13] Permission denied: '", "EACCES: ",
    "sh: 1: cannot create ", "cannot a b c d e " * 23 + "\n", "a" * 399 + "\n", "cannot " * 57 + "\n",
])  # fmt: skip
def test_no_output_takes_long_to_judge(piece: str) -> None:
    """A match holds the interpreter: the engine, all other agents, and Ctrl-C wait for it."""
    began = time.process_time()
    assert not list(denied((piece * RESULT_CHARS)[:RESULT_CHARS], "/w"))
    assert time.process_time() - began < 0.3
