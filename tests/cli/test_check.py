"""`orchgit check`: every rule through the command, on every sort of repository, and what it can never be told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchgit.__main__ import main
from tests.support.repos import ENV, EXECUTABLE, FILE, GITLINK, LINK, Files, Repo, git, repository, snapshot
from tests.support.scenario import Book, bash, make, piece, turn, write

Said = tuple[int, str, str]
Check = Callable[..., Said]
X = (FILE, b"new\n")


@pytest.fixture
def check(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command in a directory: exit code, stdout, stderr."""

    def run(where: Repo | Path, *args: str) -> Said:
        monkeypatch.chdir(where.root if isinstance(where, Repo) else where)
        capfdbinary.readouterr()
        code = main(["check", *args])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(
        tmp_path / "r", {"src/a.py": b"a\n", "src/d/b.py": b"b\n", "other/c.py": b"c\n", "README": b"r\n"}
    )


def then(repo: Repo, edit: dict[bytes, tuple[str, bytes] | None], *parents: str) -> str:
    """A commit of the first parent's tree (HEAD's) with some files set or removed."""
    parents = parents or (repo.ask("rev-parse", "HEAD"),)
    index = {"GIT_INDEX_FILE": str(repo.common / "index-of-then")}
    git(repo.root, "read-tree", parents[0], env=index)
    lines = []
    for path, entry in edit.items():
        if entry is None:
            lines.append(b"0 " + b"0" * 40 + b"\t" + path + b"\0")
        else:
            oid = entry[1].decode() if entry[0] == GITLINK else repo.blob(entry[1])
            lines.append(f"{entry[0]} {oid}\t".encode() + path + b"\0")
    git(repo.root, "update-index", "-z", "--index-info", stdin=b"".join(lines), env=index)
    return repo.made(git(repo.root, "write-tree", env=index).decode().strip(), *parents)


SRC = ("--allow", "src/**")


def between(base: str, head: str) -> tuple[str, ...]:
    return ("--base", base, "--head", head)


def test_in_scope_and_out(repo: Repo, check: Check) -> None:
    head = then(repo, {b"src/a.py": X, b"src/new": X, b"src/d/b.py": None})
    code, out, err = check(repo, *between("HEAD", head), *SRC)
    assert (code, err) == (0, "")
    assert out == f"in scope: 3 changed files in 1 commit, HEAD..{head}\n"
    code, out, _ = check(repo, *between("main", head), "--allow", "src/*")
    assert code == 1
    assert out.splitlines()[0] == "! src/d/b.py: outside the scope  → --allow src/d/b.py"
    assert check(repo, *between("main", head), *SRC, "--deny", "src/n*")[1].startswith(
        "! src/new: denied by src/n*  → without --deny 'src/n*'\n"
    )
    assert check(repo, *between("main", "main"), *SRC)[0] == 0, "nothing changed is in every scope"


@pytest.mark.parametrize(
    ("edit", "rule", "remedy"),
    [
        ({b"src/it's [x].py": X, b"other/it's [x]": X}, "outside the scope", "--allow 'other/it'\"'\"'s [[]x]'"),
        ({b"src/Makefile": X}, "protected", "--allow src/Makefile"),
        ({b"-dash": X}, "outside the scope", "--allow=-dash"),
        ({b"src/l": (LINK, b"a.py")}, "symbolic link may not be added", "--symlinks"),
        ({b"src/sub": (GITLINK, b"1" * 40)}, "submodule", "nothing: no scope"),
        ({b"src/A.py": X}, "differ only", "nothing"),
        ({b"src/con": X}, "reserved", "nothing"),
        ({b"src/GITHUB~1": X}, "short name", "nothing"),
        ({b"other/\xff": X}, "outside the scope", "nothing: no pattern can name it"),
        ({b"other/a\nb": X}, "outside the scope", "nothing: no pattern can name it"),
        ({b"src/d/b.py": None, b"other/b.py": (FILE, b"b\n")}, "outside", "--allow other/b.py"),  # a rename
        ({b"other/c.py": (EXECUTABLE, b"c\n")}, "outside the scope", "--allow other/c.py"),
        ({b"other/c.py": (LINK, b"c\n")}, "outside the scope", "--allow other/c.py"),
    ],
)
def test_rules_and_what_would_allow_it(
    repo: Repo, check: Check, edit: dict[bytes, tuple[str, bytes] | None], rule: str, remedy: str
) -> None:
    head = then(repo, edit)
    code, out, _ = check(repo, *between("main", head), *SRC)
    assert code == 1
    lines = [line for line in out.splitlines() if line.startswith("!")]
    assert len(lines) == 1
    assert rule in lines[0]
    assert lines[0].partition("  → ")[2].startswith(remedy)
    if remedy.startswith("--allow"):  # typed as it stands, it works
        shell = f"{sys.executable} -m orchgit check --base main --head {head} --allow 'src/**' {remedy}"
        done = subprocess.run(["/bin/sh", "-c", shell], cwd=repo.root, env=tool_env(), capture_output=True, check=False)
        assert done.returncode == (0 if b"c\n" not in [e[1] for e in edit.values() if e and e[0] == LINK] else 1)


def tool_env(**more: str) -> dict[str, str]:
    return {**ENV, "PYTHONPATH": str(Path(__file__).parents[2]), **more}


def test_a_link_by_permission(repo: Repo, check: Check) -> None:
    good, bad = then(repo, {b"src/l": (LINK, b"a.py")}), then(repo, {b"src/l": (LINK, b"../other/c.py")})
    assert check(repo, *between("main", good), *SRC, "--symlinks")[0] == 0
    code, out, _ = check(repo, *between("main", bad), *SRC, "--symlinks")
    assert (code, "leads to other/c.py, outside the scope" in out) == (1, True)


# -- history ---------------------------------------------------------------------------------------------


def test_what_is_added_and_taken_back_is_found(repo: Repo, check: Check) -> None:
    base = repo.ask("rev-parse", "HEAD")
    one = then(repo, {b"secret.key": X}, base)
    two = then(repo, {b"secret.key": None, b"src/a.py": X}, one)
    code, out, _ = check(repo, *between(base, two), *SRC)
    assert code == 1
    assert f"! secret.key: outside the scope (commit {one[:10]})" in out
    assert f"(commit {two[:10]})" in out, "taking it away is outside, too"
    assert "in 2 commits" in out


def test_a_net_violation_is_told_once(repo: Repo, check: Check) -> None:
    one = then(repo, {b"other/x": X})
    two = then(repo, {b"src/y": X}, one)
    _, out, _ = check(repo, *between("main", two), *SRC)
    assert out.count("other/x: ") == 1


def test_a_link_before_its_target(repo: Repo, check: Check) -> None:
    """Two honest commits. In the end it has to be there."""
    one = then(repo, {b"src/l": (LINK, b"later.py")})
    two = then(repo, {b"src/later.py": X}, one)
    out_of = then(repo, {b"src/l": (LINK, b"../other/later.py")})
    back = then(repo, {b"src/l": None, b"src/x": X}, out_of)
    assert check(repo, *between("main", two), *SRC, "--symlinks")[0] == 0
    assert check(repo, *between("main", one), *SRC, "--symlinks")[0] == 1
    assert "leads to other/later.py, outside" in check(repo, *between("main", back), *SRC, "--symlinks")[1]


def test_merges(repo: Repo, check: Check) -> None:
    base = repo.ask("rev-parse", "HEAD")
    left, right = then(repo, {b"src/l.py": X}, base), then(repo, {b"src/r.py": X}, base)
    merge = then(repo, {b"src/r.py": X}, left, right)
    code, out, _ = check(repo, *between(base, merge), *SRC)
    assert (code, f"! a merge commit (commit {merge[:10]})  → --merges" in out) == (1, True)
    assert check(repo, *between(base, merge), *SRC, "--merges")[0] == 0
    # An evil merge brings more than its parents; the next commit takes it back.
    evil = then(repo, {b"src/r.py": X, b"evil": X}, left, right)
    after = then(repo, {b"evil": None}, evil)
    assert f"! evil: outside the scope (commit {evil[:10]})" in check(repo, *between(base, after), *SRC, "--merges")[1]
    # What only a side branch did is in the history too.
    side = then(repo, {b"secret": X}, base)
    joined = then(repo, {b"src/q": X}, left, side)
    assert (
        f"! secret: outside the scope (commit {side[:10]})" in check(repo, *between(base, joined), *SRC, "--merges")[1]
    )
    # -s ours: the net is empty, and the merge too.
    ours = then(repo, {}, base, side)
    assert "secret" in check(repo, *between(base, ours), *SRC, "--merges")[1]


def test_other_histories(repo: Repo, check: Check) -> None:
    base = repo.ask("rev-parse", "HEAD")
    root = repo.made(repo.ask("rev-parse", "HEAD^{tree}"))
    code, out, _ = check(repo, *between(base, root), *SRC)
    assert (code, "does not descend from" in out, "git rebase" in out) == (1, True, True)
    child = then(repo, {b"src/x": X}, base)
    assert check(repo, *between(child, base), *SRC)[0] == 1, "the wrong way round"
    joined = then(repo, {b"src/x": X}, base, root)
    assert "a root commit" in check(repo, *between(base, joined), *SRC, "--merges")[1]


# -- what it is given ------------------------------------------------------------------------------------


def test_usage(repo: Repo, check: Check, tmp_path: Path) -> None:
    head = then(repo, {b"src/x": X})
    for args, word in (
        (("--base", "main", "--head", head), "--allow"),
        ((*SRC, "--base", "main"), "--base main --head HEAD"),
        ((*SRC, "--staged", "--head", head), "--staged and --head"),
        ((*between("main", "nope"), *SRC), "unknown commit 'nope'"),
        (("--base=--all", "--head", head, *SRC), "unknown commit '--all'"),
        ((*between("main^{tree}", head), *SRC), "unknown commit"),
        ((*between("main\nmain", head), *SRC), "unknown commit"),
        ((*between("main:src", head), *SRC), "unknown commit"),
        ((*between("main", head), "--allow", "/abs"), "must not begin"),
        ((*between("main", head), *SRC, "--deny", "a**"), "whole component"),
        ((*SRC, "--plan", "x/y"), "the scope is the plan's"),
        (("--plan", "x/y"), "there is no run"),
        ((*between("main", head), *SRC, "--format", "xml"), "'xml'"),
    ):
        code, out, err = check(repo, *args)
        assert (code, out) == (2, ""), args
        assert word in err, (args, err)
    (tmp_path / "empty").mkdir()
    code, _, err = check(tmp_path / "empty", *between("a", "b"), *SRC)
    assert (code, "not a git repository" in err) == (2, True)


def test_any_repository(repo: Repo, check: Check, tmp_path: Path) -> None:
    """Bare, SHA-256, a linked worktree, a subdirectory, packed refs, an annotated tag, an abbreviated id."""
    head = then(repo, {b"other/x": X})
    git(repo.root, "update-ref", "refs/heads/topic", head)
    git(repo.root, "tag", "-a", "-m", "t", "v1", head)
    git(repo.root, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    git(repo.root, "worktree", "add", "-q", str(tmp_path / "linked"), "topic")
    for where, base, to in (
        (repo.root / "src", "main", "topic"),
        (tmp_path / "bare.git", "main", "topic"),
        (tmp_path / "linked", "main", "HEAD"),
        (repo.root, "v1~1", "v1"),
        (repo.root, head[:8] + "^", head[:8]),
        (repo.root, "refs/heads/main", "heads/topic"),
    ):
        assert check(where, *between(base, to), *SRC)[0] == 1, where
        assert check(where, *between(base, to), *SRC, "--allow", "other/x")[0] == 0, where
    git(repo.root, "pack-refs", "--all")
    assert check(repo, *between("main", "topic"), "--allow", "other/x")[0] == 0
    large = repository(tmp_path / "large", format="sha256")
    large.write("src/x")
    large.commit()
    assert check(large, *between("HEAD~1", "HEAD"), *SRC)[0] == 0
    assert check(large, *between("HEAD~1", "HEAD"), "--allow", "y")[0] == 1


def test_it_changes_nothing_and_needs_no_write(repo: Repo, check: Check) -> None:
    head = then(repo, {b"src/x": X})
    repo.write("src/staged", b"1")
    git(repo.root, "add", "-A")
    before = snapshot(repo.root)
    assert check(repo, *between("main", head), *SRC)[0] == 0
    assert check(repo, "--staged", *SRC)[0] == 0
    assert snapshot(repo.root) == before


def test_nothing_of_the_repository_is_obeyed(repo: Repo, check: Check, tmp_path: Path) -> None:
    """Configuration, hooks, filters, attributes, replace refs, grafts, aliases, an owner who is somebody else."""
    base = repo.ask("rev-parse", "HEAD")
    bad = then(repo, {b"other/x": X, b".gitattributes": (FILE, b"* -diff filter=evil\n")}, base)
    good = then(repo, {b"src/x": X}, base)
    git(repo.root, "replace", bad, good)
    (repo.common / "info").mkdir(exist_ok=True)
    (repo.common / "info/grafts").write_text(f"{bad}\n")
    (repo.common / "info/attributes").write_text("* -diff diff=evil filter=evil\n")
    mark = tmp_path / "ran"
    evil = f"touch {mark}; false"
    for key in (
        "core.fsmonitor", "core.pager", "diff.external", "diff.evil.command", "diff.evil.textconv", "filter.evil.clean",
        "filter.evil.smudge", "filter.evil.process", "core.sshCommand", "alias.rev-list", "remote.origin.uploadpack",
        "core.alternateRefsCommand",
    ):  # fmt: skip
        git(repo.root, "config", key, evil)
    git(repo.root, "config", "diff.ignoreSubmodules", "all")
    git(repo.root, "config", "diff.noprefix", "true")
    git(repo.root, "config", "diff.orderFile", "/nonexistent")
    for name in ("post-index-change", "reference-transaction", "pre-commit"):
        hook = repo.common / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{evil}\n")
        hook.chmod(0o755)
    repo.write(".gitattributes", b"* filter=evil\n")
    code, out, err = check(repo, *between(base, bad), *SRC)
    assert (code, err) == (1, "")
    assert {line.split(":")[0] for line in out.splitlines()} >= {"! other/x", "! .gitattributes"}
    assert check(repo, "--staged", *SRC)[0] == 0
    assert not mark.exists()
    if os.getuid() == 0:
        git(repo.root, "config", "--unset", "core.fsmonitor")
        for here, names, files in os.walk(repo.root):
            for name in (".", *names, *files):
                os.lchown(os.path.join(here, name), 4242, 4242)
        assert check(repo, *between(base, good), *SRC)[0] == 0


def test_a_partial_clone_fetches_nothing(repo: Repo, check: Check, tmp_path: Path) -> None:
    head = then(repo, {b"src/x": X})
    git(repo.root, "update-ref", "refs/heads/topic", head)
    git(repo.root, "config", "uploadpack.allowFilter", "true")
    part = tmp_path / "part"
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", "--no-local", f"file://{repo.root}", str(part))
    git(part, "config", "remote.origin.uploadpack", f"touch {tmp_path}/ran; git-upload-pack")
    code, out, err = check(part, *between("origin/main", "origin/topic"), *SRC)
    assert (code, out) == (2, "")
    assert "the content of src/x is not here" in err
    assert "git fetch --refetch" in err
    assert not (tmp_path / "ran").exists()


def test_a_shallow_clone_never_passes_by_mistake(repo: Repo, check: Check, tmp_path: Path) -> None:
    commits = [repo.ask("rev-parse", "HEAD")]
    commits.append(then(repo, {b"secret": X}, commits[-1]))
    commits.append(then(repo, {b"secret": None}, commits[-1]))
    commits += [then(repo, {b"src/x": X}, commits[-1])]
    commits += [then(repo, {b"src/y": X}, commits[-1])]
    git(repo.root, "update-ref", "refs/heads/main", commits[-1])
    for depth, base, code in ((1, 0, 2), (2, 0, 2), (3, 0, 2), (4, 0, 2), (5, 0, 1), (2, 3, 0), (3, 3, 0), (1, 4, 0)):
        place = tmp_path / f"{depth}-{base}"
        git(tmp_path, "clone", "-q", f"--depth={depth}", f"file://{repo.root}", str(place))
        got, out, err = check(place, *between(commits[base], "HEAD"), *SRC)
        assert got == code, (depth, base, out, err)
        if code == 2:
            assert "shallow" in err
            assert "git fetch --deepen" in err
    # The base is there, by another way; what lies between is not.
    place = tmp_path / "1-0"
    git(place, "fetch", "-q", "--depth=1", "origin", commits[0])
    code, _, err = check(place, *between(commits[0], "HEAD"), *SRC)
    assert (code, "cut off" in err, "--deepen" in err) == (2, True, True)
    git(place, "fetch", "-q", "--unshallow")
    # The base is there and an ancestor, but a side branch that was merged is cut off.
    side = then(repo, {b"src/side": X}, then(repo, {b"secret": X}, commits[0]))
    merge = then(repo, {b"src/side": X}, commits[-1], side)
    git(repo.root, "update-ref", "refs/heads/main", merge)
    git(tmp_path, "clone", "-q", "--depth=2", f"file://{repo.root}", str(tmp_path / "cut"))
    code, _, err = check(tmp_path / "cut", *between(commits[-1], "HEAD"), *SRC, "--merges")
    assert (code, f"cut off at {side[:10]}" in err) == (2, True)
    assert check(place, *between(commits[0], "HEAD"), *SRC)[0] == 1


def test_missing_objects_are_no_pass(repo: Repo, check: Check) -> None:
    head = then(repo, {b"src/x": X, b"src/deep/y": X})
    tree = repo.ask("rev-parse", f"{head}:src/deep")
    for oid in (repo.blob(b"new\n"), tree, repo.ask("rev-parse", f"{head}^{{tree}}")):
        path = repo.common / "objects" / oid[:2] / oid[2:]
        data = path.read_bytes()
        path.unlink()
        code, out, err = check(repo, *between("main", head), *SRC)
        assert (code, out) == (2, ""), err
        assert "does not hold all" in err
        path.write_bytes(data)
    assert check(repo, *between("main", head), *SRC)[0] == 0


def test_malformed_trees(repo: Repo, check: Check) -> None:
    """Whatever git makes of a tree that no git would write: it does not pass."""
    base = repo.ask("rev-parse", "HEAD")
    root = [
        (mode.decode().lstrip("0"), name, oid.decode())
        for line in git(repo.root, "ls-tree", "-z", base).split(b"\0")[:-1]
        for (mode, _, oid), name in [(line.partition(b"\t")[0].split(b" "), line.partition(b"\t")[2])]
    ]
    blob = repo.blob(b"evil")
    src = next(oid for _, name, oid in root if name == b"src")
    inside = [(FILE, b"a.py", repo.blob(b"a\n")), ("40000", b"d", repo.ask("rev-parse", f"{src}:d"))]
    made = 0
    for extra in (
        [(FILE, b"a.py", blob)],  # twice
        [(FILE, b"d", blob)],  # a file and a directory
        [(FILE, b"A/b", blob)],
        [(FILE, b"d/new", blob)],
        [(FILE, b"..", blob)],
        [(FILE, b".", blob)],
        [(FILE, b"", blob)],
        [(FILE, b".git", blob)],
        [("40000", b".GIT", src)],
        [(FILE, b"GIT~1", blob)],
        [("040000", b"padded", src)],
        [("40000", b"..", src)],
    ):
        for order in (inside + extra, extra + inside):
            tree = repo.raw_tree(*order)
            changed = [(m, n, tree if n == b"src" else o) for m, n, o in root]
            head = repo.made(repo.raw_tree(*changed), base)
            code, out, err = check(repo, *between(base, head), *SRC)
            assert code in (1, 2), (extra, order == inside + extra, out, err)
            made += 1
    assert made == 24
    # But git reads 100664 as 100644, and so do we: old tools wrote it.
    old = repo.raw_tree(*inside, ("100664", b"w", blob))
    head = repo.made(repo.raw_tree(*[(m, n, old if n == b"src" else o) for m, n, o in root]), base)
    assert check(repo, *between(base, head), *SRC)[0] == 0


# -- how it is said --------------------------------------------------------------------------------------

ODD: Files = {
    b"other/\xff\xfe": X,
    b"other/new\nline": X,
    b"other/cr\r%0A,:": X,
    b"other/esc\x1b[31m": X,
    b"::error file=x::y": X,
    b"other/##[add-mask]x": X,
    "other/ünï\u202e".encode(): X,
    b"other/\\xff\\xfe": X,
}


def test_github(repo: Repo, check: Check) -> None:
    head = then(repo, dict(ODD))
    code, out, _ = check(repo, *between("main", head), *SRC, "--format", "github")
    lines = out.splitlines()
    assert code == 1
    assert len(lines) == len(ODD) + 1
    assert all(line.startswith("::error file=") for line in lines[:-1])
    assert lines[-1].startswith(f"orchgit check: out of scope, {len(ODD)} violations: ")
    for line in lines[:-1]:
        properties = line.removeprefix("::error ").partition("::")[0]
        assert [p.partition("=")[0] for p in properties.split(",")] == ["file", "title"], line
        assert ":" not in properties
    assert "file=%3A%3Aerror file=x%3A%3Ay,title=" in out
    assert "%250A%2C%3A" in out, "a percent sign of a name stays one"
    assert not set(out) & set("\x1b\r\u202e")
    many = then(repo, {b"other/%d" % n: X for n in range(60)})
    out = check(repo, *between("main", many), *SRC, "--format", "github")[1]
    assert out.count("::error") == 50
    assert "(10 more are not shown)" in out


def test_odd_names_in_text_and_json(repo: Repo, check: Check) -> None:
    head = then(repo, dict(ODD))
    _, out, _ = check(repo, *between("main", head), *SRC)
    assert len(out.splitlines()) == len(ODD) + 1
    assert all(line.startswith("! ") for line in out.splitlines()[:-1]), "no command to a runner at the beginning"
    assert "##[" not in out
    assert not set(out) & set("\x1b\r\u202e")
    code, out, _ = check(repo, *between("main", head), *SRC, "--json")
    said = json.loads(out)
    assert out.isascii()
    assert (code, said["in_scope"], said["changes"], said["commits"]) == (1, False, len(ODD), 1)
    paths = {bytes.fromhex(v["path_hex"]) if "path_hex" in v else v["path"].encode() for v in said["violations"]}
    assert paths == ODD.keys(), "exactly, whatever the bytes"
    assert {v["allowed_by"] for v in said["violations"]} >= {"nothing: no pattern can name it"}
    assert check(repo, *between("main", "main"), *SRC, "--format", "json")[1] == (
        '{\n  "in_scope": true,\n  "range": "main..main",\n  "changes": 0,\n  "commits": 0,\n  "violations": []\n}\n'
    )


def test_no_locale_and_a_closed_pipe(repo: Repo) -> None:
    head = then(repo, {**ODD, "other/日本".encode(): X})
    argv = [sys.executable, "-m", "orchgit", "check", *between("main", head), *SRC]
    env = tool_env(PYTHONIOENCODING="ascii", LC_ALL="C")
    done = subprocess.run(argv, cwd=repo.root, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert "日本".encode() in done.stdout
    shell = f"{' '.join(argv[:4])} --base main --head {head} --allow src | true"
    done = subprocess.run(["/bin/sh", "-c", shell], cwd=repo.root, env=env, capture_output=True, check=False)
    assert done.stderr == b""


# -- the index -------------------------------------------------------------------------------------------


def test_staged(repo: Repo, check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check(repo, "--staged", *SRC)[0] == 0
    repo.write("src/a.py", b"changed\n")
    repo.write("other/c.py", b"only in the work tree\n")
    git(repo.root, "add", "src")
    code, out, _ = check(repo, "--staged", *SRC)
    assert (code, out) == (0, "in scope: 1 changed file, HEAD..what is staged\n")
    git(repo.root, "add", "-A")
    assert check(repo, "--staged", *SRC)[1].startswith("! other/c.py: outside the scope")
    git(repo.root, "update-index", "--assume-unchanged", "other/c.py")
    git(repo.root, "update-index", "--skip-worktree", "other/c.py")
    assert check(repo, "--staged", *SRC)[0] == 1, "no bit of the index hides it"
    # Another index, as `git commit other/c.py` and `git commit -a` have it.
    index = tmp_path / "index"
    git(repo.root, "read-tree", "HEAD", env={"GIT_INDEX_FILE": str(index)})
    monkeypatch.setenv("GIT_INDEX_FILE", str(index))
    assert check(repo, "--staged", *SRC)[0] == 0
    monkeypatch.delenv("GIT_INDEX_FILE")
    # Against another base: the whole of a branch, and what is about to come on top.
    first = repo.commit()
    repo.write("src/b", b"1")
    git(repo.root, "add", "-A")
    assert check(repo, "--staged", *SRC)[0] == 0
    assert check(repo, "--staged", "--base", f"{first}~1", *SRC)[0] == 1


def test_staged_in_every_form_of_index(repo: Repo, check: Check, tmp_path: Path) -> None:
    repo.write("other/new", b"1")
    for args in (
        ("update-index", "--index-version", "4"),
        ("update-index", "--split-index"),
        ("update-index", "--untracked-cache"),
    ):
        git(repo.root, *args, check=False)
        git(repo.root, "add", "-A")
        assert check(repo, "--staged", *SRC)[0] == 1, args
    git(repo.root, "update-index", "--no-split-index")
    git(repo.root, "rm", "-q", "--cached", "other/new")
    git(repo.root, "add", "-N", "other/new")
    assert check(repo, "--staged", *SRC)[0] == 0, "only announced: no commit would hold it"
    git(repo.root, "add", "-A")
    git(repo.root, "sparse-checkout", "set", "--cone", "--sparse-index", "src")
    assert check(repo, "--staged", *SRC)[0] == 1
    # A first commit; a conflict; no index.
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "-q")
    code, _, err = check(fresh, "--staged", *SRC)
    assert (code, "no index" in err) == (2, True)
    (fresh / "x").write_text("1")
    git(fresh, "add", "x")
    assert check(fresh, "--staged", *SRC)[0] == 1
    assert check(fresh, "--staged", "--allow", "x")[0] == 0
    blob = git(fresh, "rev-parse", ":x").decode().strip()
    git(fresh, "update-index", "--force-remove", "x")
    git(fresh, "update-index", "--index-info", stdin=f"100644 {blob} 1\tx\n100644 {blob} 2\tx\n".encode())
    code, _, err = check(fresh, "--staged", *SRC)
    assert (code, "could be committed" in err) == (2, True)


# -- a run's plan; a server's hook -----------------------------------------------------------------------


def test_the_scope_of_a_plan(tmp_path: Path, check: Check) -> None:
    world = make(tmp_path)
    one = piece("one", "api-agent", ["one/**"], symlinks=True)
    link = turn(bash("ln -s made.txt one/link"))
    book = Book(one).work("one", turn(write("one/made.txt", "1\n")), link)
    world.start(book, "--yes")
    run = world.name
    for target in (f"{run}/one", "one"):
        code, out, err = check(world.repo, "--plan", target)
        assert code == 0, err
        assert "in scope: 2 changed files in 1 commit" in out
    assert "120000" in world.git("ls-tree", "-r", f"orchgit/{run}/integration")
    assert "Symbolic links are allowed" in world.blob(world.events("agent.started", role="worker")[0]["data"]["brief"])
    assert "symbolic links too" in world.run("plan").out
    world.commit({"two.txt": "2\n"})
    assert check(world.repo, "--plan", "one", "--head", "HEAD")[0] == 1
    assert check(world.repo, "--plan", f"{run}/nobody")[0] == 2
    world.put({"one/more": "1"})
    world.git("add", "-A")
    assert check(world.repo, "--plan", "one", "--staged")[0] == 0


def test_in_a_hook_that_receives_a_push(repo: Repo, tmp_path: Path) -> None:
    """The objects of a push wait in quarantine until the hook agrees."""
    server = tmp_path / "server.git"
    git(repo.root, "clone", "-q", "--bare", ".", str(server))
    hook = server / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f"#!/bin/sh\nPYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m orchgit check "
        '--base "$2" --head "$3" --allow \'src/**\'\n'
    )
    hook.chmod(0o755)
    good, bad = then(repo, {b"src/x": X}), then(repo, {b"other/x": X})
    for commit, ok in ((bad, False), (good, True)):
        done = subprocess.run(
            ["git", "push", str(server), f"{commit}:refs/heads/main"], cwd=repo.root, env=ENV, capture_output=True
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stderr.decode()
    assert b"in scope" in done.stderr
