"""What people really type and really have: every answer says what, why and what next; never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import (
    AGENT,
    FILES,
    Book,
    World,
    bare_world,
    bash,
    digest,
    finding,
    make,
    piece,
    plan_of,
    report,
    simple,
    turn,
    write,
)

READING = ("status", "log", "replay", "audit", "report", "plan")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path)
    yield made
    made.close()


def words(text: str, *expected: str) -> None:
    for word in expected:
        assert word in text, f"{word!r} is not in:\n{text}"


def three_parts(text: str) -> None:
    """What happened, on one line; why; and what to type next."""
    text = text.removeprefix("orchgit: SCRIPTED agents: they follow a playbook, no model is called\n")
    assert text.startswith(("orchgit: error: ", "orchgit: no: ", "orchgit: not available: ")), text
    assert any(line.startswith("  → ") for line in text.splitlines()), text


# -- where it runs ---------------------------------------------------------------------------------------


def test_not_a_git_repository(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    issue = str(world.issue())
    for args in (["start", issue], ["init"], ["status"], ["resume"], ["abort"]):
        said = world.run(*args, code=2, cwd=world.root / "home").err
        words(said, "not a git repository", "git init")
        three_parts(said)


def test_a_bare_repository(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    world.repo.mkdir()
    world.git("init", "-q", "--bare")
    for args in (["start", str(world.issue())], ["init"]):
        said = world.run(*args, code=2).err
        words(said, "this repository is bare", "git clone")
        three_parts(said)


def test_no_commit_yet(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    world.repo.mkdir()
    world.git("init", "-q")
    world.put(FILES)
    said = world.run(*world.start_args(simple()), code=2).err
    words(said, "no commit yet", "git commit -m")
    assert world.names() == []
    assert not (world.repo / ".orchestration").exists()


def test_a_detached_head_works(world: World) -> None:
    world.git("switch", "-q", "--detach")
    world.start(simple())
    assert world.one("run.started")["data"]["base_ref"] == ""
    world.run("audit")


def test_from_a_folder_below_and_from_a_linked_worktree(world: World) -> None:
    world.start(simple(), cwd=world.repo / "src" / "api")
    first = world.name
    linked = world.root / "linked"
    world.git("worktree", "add", "-q", "-b", "other", str(linked))
    world.start(simple(), cwd=linked)
    assert len(world.names()) == 2
    assert (linked / ".orchestration" / "runs" / world.name).is_symlink()
    words(world.run("status", cwd=linked).out, first, world.name)
    world.run("audit", cwd=linked)


# -- the run's name --------------------------------------------------------------------------------------


def test_names_of_runs(world: World) -> None:
    words(world.run("status").out, "no run in this repository", "orchgit start")
    for command in ("log", "resume"):
        three_parts(world.run(command, code=2).err)
    for _ in range(2):
        world.run(*world.start_args(simple()), code=4)
    one, two = world.names()
    for command in ("log", "audit", "resume", "ship"):
        said = world.run(command, "nonsense", code=2).err
        words(said, "there is no run 'nonsense'", one, two, "orchgit status")
    said = world.run("abort", one[:2], code=2).err
    words(said, f"{one[:2]!r} names 2 runs", one, two)
    assert world.run("status", one, "--json").json["run"] == one
    assert world.run("log", "../../etc", code=2).code == 2


# -- the issue -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"# Caf\xe9\n", "is not UTF-8"),
        ("# Ünïcode\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_an_issue_that_says_nothing(world: World, content: bytes, expected: str) -> None:
    (world.root / "bad.md").write_bytes(content)
    args = ["--backend", "scripted", "--playbook", str(world.playbook(simple()))]
    said = world.run("start", str(world.root / "bad.md"), *args, code=2).err
    words(said, expected)
    three_parts(said)
    words(world.run("start", "-", *args, code=2, stdin=content).err, expected, "standard input")
    assert world.names() == []


def test_an_issue_that_is_not_there(world: World) -> None:
    for source, why in (("nowhere.md", "No such file"), (str(world.root), "s a directory"), ("", "")):
        said = world.run("start", source, code=2).err
        words(said, why)
        three_parts(said)
    assert world.names() == []


def test_an_issue_from_standard_input(world: World) -> None:
    args = ["--backend", "scripted", "--playbook", str(world.playbook(simple())), "--yes"]
    world.run("start", "-", *args, stdin="\ufeff\r\n# Añadir facturación\r\n\r\nsí\r\n".encode())
    assert world.one("issue.read")["data"]["title"] == "Añadir facturación"
    assert "sí" in world.blob(world.one("issue.read")["data"]["text"])


# -- the plan file ---------------------------------------------------------------------------------------

WRONG = plan_of(
    piece("api", "api-agnet", ["src/api/**"], depends_on=["web"], outputs=["docs/x.md"]),
    piece("web", "frontend-agent", ["../out"], depends_on=["api"]),
    piece("web", "frontend-agent", []),
    piece("Bad Id", "docs-agent", [".github/**"], depends_on=["nobody"]),
    piece("hen", "docs-agent", ["docs/hen/**"], depends_on=["egg"]),
    piece("egg", "docs-agent", ["docs/egg/**"], depends_on=["hen"]),
    piece("alone", "test-agent", ["tests/**"], depends_on=["alone"], checks=[" "]),
    reviewers=["security-reviwer"],
    goal=" ",
)
NAMED = (
    "unknown worker 'api-agnet' (did you mean 'api-agent'?)", "output 'docs/x.md' is outside the scope",
    "malformed scope pattern '../out'", "two assignments have this id", "the scope is empty", "the id is not usable",
    "claims protected paths", "it depends on 'nobody', which does not exist", "it depends on itself",
    "a check is empty", "the dependencies form a cycle: hen -> egg -> hen", "the goal is empty",
    "unknown reviewer 'security-reviwer' (did you mean 'security-reviewer'?)",
)  # fmt: skip


def plan_file(world: World, data: object) -> str:
    path = world.root / "plan.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def test_every_error_of_a_plan_is_named_at_once(world: World) -> None:
    path = plan_file(world, WRONG)
    said = world.run("plan", "--check", path, code=1).err
    words(said, *NAMED)
    three_parts(said)
    started = world.run(*world.start_args(simple(), "--plan", path), code=1).err
    words(started, "this plan cannot be run", *NAMED, "orchgit plan --check")
    assert world.names() == []


def test_overlapping_scopes_come_with_a_path_that_both_match(world: World) -> None:
    path = plan_file(world, plan_of(piece("a", "api-agent", ["src/**"]), piece("b", "docs-agent", ["src/*/x.py"])))
    words(world.run("plan", "--check", path, code=1).err, "both could run at the same time", "both match 'src/", "'b'")


def test_a_good_plan_file(world: World) -> None:
    data = plan_of(piece("api", "api-agent", ["src/api/**"], checks=["grep -n billing src/api/billing.py"]))
    path = plan_file(world, data)
    words(world.run("plan", "--check", path).out, "a valid plan", "src/api/**", "Order: api")
    book = simple()
    del book.jobs["plan/1"]
    world.start(book, "--plan", path)
    proposed = world.one("plan.proposed")
    assert proposed["actor"]["kind"] == "human"
    assert not world.events("agent.started", purpose="plan")
    world.run("audit")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "object"),
        ('{"goal": "x"}', "assignments"),
        ('{"goal": "x", "assignments": [], "surprise": 1}', "surprise"),
        ('{"goal": 3, "assignments": [{"id": "a"}]}', "assignments.0.worker"),
        ("\x00\x01", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
    ],
)
def test_a_plan_that_is_not_one(world: World, text: str, expected: str) -> None:
    path = plan_file(world, text)
    said = world.run(*world.start_args(simple(), "--plan", path), code=2).err
    words(said, "is not a plan", expected)
    assert len(said) < 2000
    assert world.names() == []


def test_a_plan_that_is_not_there(world: World) -> None:
    words(world.run("plan", "--check", "nowhere.json", code=2).err, "nowhere.json cannot be read", "No such file")


def test_plans_of_the_orchestrator_that_are_invalid_go_back_and_then_to_a_human(world: World) -> None:
    book = Book()
    for _ in range(3):
        book.plan(*WRONG["assignments"], goal="x")
    said = world.start(book, code=4).err
    words(said, "gave no valid plan", "unknown worker 'api-agnet'")
    assert len(world.events("plan.invalid")) == 3
    brief = world.blob(world.events("agent.started")[1]["data"]["brief"])
    words(brief, "sent back", *NAMED[:3])
    book.plan(piece("api", "api-agent", ["src/api/**"])).work("api", turn(write("src/api/a.py", "a\n")))
    world.playbook(book)
    world.run("answer", world.name, "one assignment is enough")
    world.run("resume")
    words(world.blob(world.events("agent.started")[3]["data"]["brief"]), "one assignment is enough")


# -- roster and configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("api-agent", "---\nname: api-agent\ndescription: [unclosed\n---\nx\n", ("api-agent.md, line", "not YAML")),
        ("api-agent", "---\nname: api-agent\n", ("api-agent.md", "not closed")),
        ("api-agent", "---\ndescription: x\n---\nx\n", ("api-agent.md", "'name' is missing", "write name:")),
        ("code-reviewer", AGENT.format(name="code-reviewer", tools="Read, Write, Bash"),
         ("code-reviewer.md, line 4", "a reviewer never writes", "Write", "tools: Read, Bash, Glob, Grep")),
        ("orchestrator", AGENT.format(name="orchestrator", tools="Read, Edit"),
         ("orchestrator.md, line 4", "an orchestrator never writes", "Edit")),
        ("api-agent", AGENT.format(name="api-agent", tools="Read").replace("tools:", "backend: antropic\ntools:"),
         ("no such backend: 'antropic' (did you mean 'anthropic'?)",)),
    ],
)  # fmt: skip
def test_a_roster_file_that_is_wrong(world: World, name: str, text: str, expected: tuple[str, ...]) -> None:
    world.put({f".claude/agents/{name}.md": text})
    said = world.run(*world.start_args(simple()), code=2).err
    words(said, *expected)
    three_parts(said)
    assert world.names() == []


def test_no_worker_on_the_roster(world: World) -> None:
    shutil.rmtree(world.repo / ".claude")
    said = world.run(*world.start_args(simple()), code=2).err
    words(said, "the roster has no worker", "orchgit init")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[run]\nattemps = 2\n", ("line 2", "unknown key 'attemps' in [run]", "did you mean 'attempts'?")),
        ("[runn]\nattempts = 2\n", ("unknown section 'runn'", "did you mean 'run'?")),
        ("[run]\nattempts = 'two'\n", ("line 2", "attempts", "whole number")),
        ("[run\n", ("line 1", "not TOML")),
        ("[agents.api-agnet]\nturns = 3\n", ("api-agnet", "not on the roster", "did you mean 'api-agent'?")),
        ("[run]\nreviewers = ['secure']\n", ("'secure'", "no reviewer on the roster")),
    ],
)
def test_a_configuration_that_is_wrong(world: World, text: str, expected: tuple[str, ...]) -> None:
    world.put({".orchestration/config.toml": text})
    said = world.run(*world.start_args(simple()), code=2).err
    words(said, "orchgit: error: .orchestration/config.toml", *expected)
    assert world.names() == []


# -- agents ----------------------------------------------------------------------------------------------


def test_no_key_and_no_agent(world: World) -> None:
    issue = str(world.issue())
    for args in (["start", issue], ["start", issue, "--backend", "anthropic"]):
        said = world.run(*args, code=5).err
        words(said, "ANTHROPIC_API_KEY", "--backend scripted --playbook", "orchgit demo")
        three_parts(said)
    assert world.names() == []
    words(world.run("agents", code=5).out, "no   anthropic", "no   scripted")
    assert world.run("agents", "--json", code=5).json["anthropic"]["found"] is False
    # A playbook that is there is no reason to use it.
    world.put({".orchestration/config.toml": f'[scripted]\nplaybook = "{world.playbook(simple())}"\n'})
    words(world.run("start", issue, code=5).err, "there is no agent to do the work")
    assert world.names() == []


def test_a_playbook_that_cannot_be_used(world: World) -> None:
    issue = str(world.issue())
    (world.root / "bad.json").write_text('{"jobs": {"work/api/1": "x"}}')
    for path, why in (("nowhere.json", "No such file"), (str(world.root / "bad.json"), "must be a list of turns")):
        said = world.run("start", issue, "--backend", "scripted", "--playbook", path, code=5).err
        words(said, "'scripted' cannot be used", why)
    words(world.run("start", issue, "--backend", "scripted", code=5).err, "no playbook is named")


def test_a_backend_that_does_not_exist(world: World) -> None:
    said = world.run("start", str(world.issue()), "--backend", "antropic", code=2).err
    words(said, "no agent backend 'antropic'", "one of: claude, codex, anthropic, scripted")


# -- repositories ----------------------------------------------------------------------------------------


def odd_names() -> dict[str, str | bytes]:
    return {
        "src/api/a file.py": "spaces\n", "src/api/ünïcode ✓.py": "utf-8\n", "src/api/new\nline.txt": "newline\n",
        "src/api/quo\"te's.txt": "quotes\n", "src/api/-dash.txt": "dash\n", "src/api/tab\t.txt": "tab\n",
        "src/web/日本語/ページ.html": "ja\n",
    }  # fmt: skip


def test_names_with_spaces_newlines_and_all_of_utf8(world: World) -> None:
    base = world.commit(odd_names())
    before = digest(world)
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["cat 'src/api/a file.py'"]))
    book.work("api", turn(write("src/api/a file.py", "changed\n"), write("src/api/ñandú y más.py", "new\n")))
    world.start(book)
    tip = world.ref(f"{world.name}/integration")
    assert world.files(tip) - world.files(base) == {"src/api/ñandú y más.py"}
    assert world.tree(tip)["src/api/a file.py"] == "changed"
    assert digest(world) == before
    world.run("audit")


def test_names_that_are_not_utf8_in_the_base(world: World) -> None:
    folder = os.fsencode(world.repo / "src" / "api")
    with open(folder + b"/latin-\xe9.txt", "wb") as file:
        file.write(b"latin\n")
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "latin")
    before = world.git("ls-tree", "HEAD:src/api", "-z")
    world.start(simple())
    after = world.git("ls-tree", "-z", f"orchgit/{world.name}/integration:src/api")
    assert "latin-\udce9.txt" in before
    assert "latin-\udce9.txt" in after
    world.run("audit")


def test_a_repository_with_submodules(world: World) -> None:
    library = world.root / "library"
    library.mkdir()
    world.git("init", "-q", cwd=library)
    (library / "lib.c").write_text("lib\n")
    world.git("add", "-A", cwd=library)
    world.git("commit", "-q", "-m", "lib", cwd=library)
    world.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "src/api/lib")
    world.git("commit", "-q", "-m", "submodule")
    before = digest(world)
    world.start(simple())
    tip = world.ref(f"{world.name}/integration")
    line = world.git("ls-tree", tip, "src/api/lib")
    assert line == world.git("ls-tree", "HEAD", "src/api/lib")
    assert line.startswith("160000 commit")
    assert world.files(tip) - world.files("HEAD") == {"src/api/billing.py"}
    assert digest(world) == before
    world.run("audit")


def test_a_repository_with_lfs_attributes(world: World) -> None:
    """The filters are the user's; in a cell nothing of theirs runs, and a pointer stays a pointer."""
    world.git("config", "filter.lfs.clean", "touch /nonexistent/clean-was-run; exit 1")
    world.git("config", "filter.lfs.smudge", "touch /nonexistent/smudge-was-run; exit 1")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
    world.commit({"src/api/big.bin": pointer})
    world.put({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    world.git("add", ".gitattributes")
    world.git("-c", "filter.lfs.clean=cat", "commit", "-q", "-m", "lfs")
    world.git("config", "filter.lfs.required", "true")
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["head -1 src/api/big.bin"]))
    book.work("api", turn(bash("cat src/api/big.bin > src/api/billing.py")))
    world.start(book)
    tip = world.ref(f"{world.name}/integration")
    assert world.tree(tip)["src/api/big.bin"] == pointer.decode().strip()
    assert world.tree(tip)["src/api/billing.py"] == pointer.decode().strip()
    world.run("audit")


def test_a_repository_with_hooks_filters_and_aliases_of_its_own(world: World) -> None:
    """None of what the user configured runs for the engine's own git."""
    hook = world.repo / ".git" / "hooks" / "post-checkout"
    marker = world.root / "hook-was-run"
    for name in ("post-checkout", "reference-transaction", "pre-commit", "post-merge", "post-index-change"):
        hook = world.repo / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
        hook.chmod(0o755)
    world.git("config", "core.fsmonitor", f"touch {marker}; false")
    world.git("config", "commit.gpgsign", "true")
    world.git("config", "core.autocrlf", "true")
    world.start(simple())
    assert not marker.exists()
    assert "billing = 1" in world.tree(world.ref(f"{world.name}/integration"))["src/api/billing.py"]


def test_a_repository_in_sha256(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    world.repo.mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    world.git("init", "-q", "-b", "main", "--object-format=sha256")
    world.commit(FILES)
    world.start(simple())
    assert len(world.ref(f"{world.name}/integration")) == 64
    world.run("audit")


def test_a_shallow_clone(world: World) -> None:
    world.commit({"more.txt": "more\n"})
    shallow = world.root / "shallow"
    world.git("clone", "-q", "--depth", "1", f"file://{world.repo}", str(shallow))
    book = simple()
    world.run(*world.start_args(book, "--yes"), cwd=shallow)
    world.run("audit", cwd=shallow)


# -- the command line ------------------------------------------------------------------------------------


def test_an_unknown_command_suggests(world: World) -> None:
    words(world.run("statsu", code=2).err, "there is no command 'statsu'", "did you mean: orchgit status")
    words(world.run("zzzz", code=2).err, "orchgit --help lists the commands")
    words(world.run("--help").out, "usage: orchgit COMMAND", "start", "audit")
    assert world.run(code=2).out.startswith("usage: orchgit")
    words(world.run("start", "--help").out, "--playbook", "--ship")
    assert world.run("--version").out.startswith("orchgit 0.")
    assert "No such option" in world.run("start", "x", "--nonsense", code=2).err
    assert "Missing argument" in world.run("start", code=2).err
    words(world.run("start", "x.md", "--ship", "mail", code=2).err, "--ship 'mail' is not known", "--ship merge")


def test_every_command_has_its_help(world: World) -> None:
    from orchgit.__main__ import COMMANDS

    for name in COMMANDS:
        assert (Path(__file__).parents[2] / "orchgit" / "cli" / f"{name.replace(chr(45), chr(95))}.py").exists(), name
    for name in ("answer", "demo", "replay"):
        assert world.run(name, "--help").out.startswith(f"Usage: orchgit {name}")


def test_what_reading_commands_print_is_only_what_was_asked_for(world: World) -> None:
    world.start(simple())
    for args in (*([command, world.name, "--json"] for command in READING), ["schema"], ["doctor", "--json"]):
        done = world.run(*args)
        assert done.err == ""
        for line in done.out.splitlines() if args[0] == "log" else [done.out]:
            json.loads(line)
    for command in ("status", "plan", "report"):
        plain = world.run(command, world.name)
        assert plain.out
        assert plain.err == ""


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_where_there_is_no_terminal(world: World, env: dict[str, str]) -> None:
    world.extra_env |= env
    said = world.run(*world.start_args(simple()), code=4)
    shown = world.run("plan")
    helped = world.run("start", "--help")
    for text in (said.out, said.err, shown.out, helped.out):
        assert "\x1b" not in text


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u200b\r"
RAW = set("\x1b\x07\x9b\u202e\u200b\r")


def test_escapes_never_reach_the_terminal_raw(world: World) -> None:
    """From the issue, its name, the plan, reports, names of files, verdicts, findings, questions, run names."""
    book = Book().ask(f"Which {EVIL} currency?")
    book.plan(piece("api", "api-agent", ["src/api/**"], title=f"T{EVIL}T", interface=EVIL, checks=[f"echo '{EVIL}'"]),
              goal=f"G{EVIL}G")  # fmt: skip
    book.work("api", turn(write(f"src/api/x{EVIL}.py", "x\n"), report(f"R{EVIL}R")))
    book.work("api", turn(bash("rm -f src/api/x*; printf '\\033[2Jtext' > src/api/b.py"), report(f"R{EVIL}R")))
    book.work("api", turn(bash("echo b > src/api/b.py"), report(f"R{EVIL}R", blockers=[f"B{EVIL}B"])))
    book.work("api", turn(bash("echo c > src/api/b.py"), report(f"R{EVIL}R")))
    book.verdict("api", 2, "reassign", f"V{EVIL}V")
    book.review(finding(f"src{EVIL}/x", f"F{EVIL}F"), finding("src/api/b.py", f"F{EVIL}F", "low"))
    book.default["synthesis"][0]["calls"][0]["input"] = {"summary": f"S{EVIL}S", "review_by_human": [f"H{EVIL}H"]}
    issue = world.root / "iss\x1b[31mue.md"
    issue.write_text(f"# Title {EVIL} here\n\n{EVIL}\n")
    said = [world.run("start", str(issue), "--backend", "scripted", "--playbook", str(world.playbook(book)), code=4)]
    run = world.name

    said.append(world.run("status", run))
    steps = [
        ["answer", run, f"A{EVIL}A"], ["resume"], ["approve", run], ["resume", "--verbose"],
        ["answer", run, "go on"], ["resume"], ["waive", run, "F1", "--why", f"W{EVIL}W"], ["resume"],
    ]  # fmt: skip
    for step in steps:
        said.append(world.run(*step, code=None))
        if step[0] == "resume":
            said.append(world.run("status", run))
    said += [world.run(command, run) for command in READING] + [world.run("diff", f"{run}/api", code=None)]
    assert world.run("status", run, "--json").json["phase"] == "completed"
    said += [world.run("plan", "--check", f"no{EVIL}.json", code=2)]
    said += [world.run(f"status{EVIL}", code=2), world.run("status", EVIL, code=2), world.run("start", EVIL, code=2)]
    for done in said:
        for stream in (done.out, done.err):
            bad = [c for c in stream if c in RAW or (ord(c) < 32 and c != "\n")]
            assert not bad, (done.argv, bad, stream)
    subjects = world.git("log", "--format=%B", f"orchgit/{run}/integration", "--not", "main")
    assert not {"\x1b", "\x07", "\r", "\x9b"} & set(subjects)


def test_a_reader_that_has_had_enough(world: World) -> None:
    world.start(simple())
    for command in ("log", "log --json", "schema", "--help"):
        script = f"{' '.join(world.argv)} {command} | head -c 20 >/dev/null; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], cwd=world.repo, env=world.env, capture_output=True, check=True)
        assert done.stderr == b"", done.stderr.decode()
        assert done.stdout.strip() in (b"0", b"141"), (command, done.stdout)


def test_a_full_standard_output_is_not_success(world: World) -> None:
    world.start(simple())
    script = f"{' '.join(world.argv)} log > /dev/full"
    done = subprocess.run(["bash", "-c", script], cwd=world.repo, env=world.env, capture_output=True, check=False)
    assert done.returncode != 0


def test_init_then_a_run(tmp_path: Path) -> None:
    world = bare_world(tmp_path)
    world.repo.mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    world.git("init", "-q", "-b", "main")
    world.commit({"README.md": "# x\n", "src/api/a.py": "a\n"})
    said = world.run("init").out
    words(said, "written", "orchestrator.md", "security-reviewer.md", "config.toml", "orchgit start ISSUE.md")
    again = world.run("init").out
    assert "written" not in again
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "orchgit")
    world.start(simple())
    assert world.git("status", "--porcelain") == ""
    world.run("audit")


def test_as_a_git_command(world: World) -> None:
    script = world.root / "bin"
    script.mkdir()
    (script / "git-orchgit").write_text(f'#!/bin/sh\nexec {" ".join(world.argv)} "$@"\n')
    (script / "git-orchgit").chmod(0o755)
    world.extra_env["PATH"] = f"{script}:{os.environ['PATH']}"
    book = world.playbook(simple())
    words(world.git("orchgit", "--version"), "orchgit 0.")
    world.git("orchgit", "start", str(world.issue()), "--backend", "scripted", "--playbook", str(book), "--yes",
              cwd=world.repo / "src")  # fmt: skip
    # git sets GIT_PREFIX, GIT_EXEC_PATH and, in a linked worktree, GIT_DIR: none of it may reach the engine's git.
    linked = world.root / "linked"
    world.git("worktree", "add", "-q", "-b", "other", str(linked))
    world.git("orchgit", "start", str(world.issue()), "--backend", "scripted", "--playbook", str(book), "--yes",
              cwd=linked)  # fmt: skip
    assert len(world.names()) == 2
    for name in world.names():
        world.run("audit", name)
