"""Programs that developers really use, as workers in the sandbox: by `orchgit exec`, to a commit on a branch."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scenario import Done, World, make

ALL = ("--allow", "src/**")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path, {"src/a.txt": "one\n", "src/b.txt": "two\n", "docs/d.md": "d\n", "README.md": "# A\n"})
    yield made
    made.none_left()
    made.close()


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [p for p in programs if not shutil.which(p)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed here: {', '.join(missing)}")


def reachable(host: str) -> None:
    try:
        socket.create_connection((host, 443), 10).close()
    except OSError as error:
        pytest.skip(f"{host} cannot be reached from here: {error}")


def kept(world: World, script: str, *options: str, code: int = 0) -> Done:
    """Run it, and have what it left land on `topic`."""
    return world.run("exec", *(options or ALL), "--keep", "topic", "--", "bash", "-euc", script, code=code, timeout=240)


def test_git_commit_amend_and_log(world: World) -> None:
    done = kept(world, """
        git switch -q topic 2>/dev/null || git status --short --branch
        echo more >> src/a.txt; git add -A; git commit -qm one
        echo more >> src/a.txt; git commit -qam two; git commit -q --amend -m 'two, amended'
        git log --oneline | wc -l; git diff --stat HEAD~2; git blame src/a.txt >/dev/null; git show --stat >/dev/null
        git mv src/b.txt src/c.txt; git commit -qm moved; git rm -q src/c.txt; git commit -qm gone
        git revert --no-edit HEAD >/dev/null; git reset -q --soft HEAD~1; git commit -qm 'gone, and back'
        git describe --always --dirty; git grep -q one; git fsck --no-dangling; git gc -q
    """)  # fmt: skip
    assert "src/a.txt" in done.out
    tree = world.tree("topic")
    assert tree["src/a.txt"] == "one\nmore\nmore"
    assert "src/c.txt" in tree
    assert "src/b.txt" not in tree
    assert world.git("rev-list", "--count", "main..topic") == "1", "one commit, whatever it did"


def test_git_rebase_stash_and_cherry_pick(world: World) -> None:
    kept(world, """
        echo 1 > src/1; git add -A; git commit -qm one; echo 2 > src/2; git add -A; git commit -qm two
        echo 3 > src/3; git add -A; git commit -qm three; three=$(git rev-parse HEAD)
        GIT_SEQUENCE_EDITOR="sed -i 2s/pick/fixup/" git rebase -q -i HEAD~3
        test "$(git log --oneline | wc -l)" = 3
        echo dirty >> src/a.txt; git stash -q; test -z "$(git status --porcelain)"; git stash pop -q
        grep -q dirty src/a.txt; git stash -q; git stash drop -q
        git reset -q --hard HEAD~1; git cherry-pick "$three" >/dev/null
        git restore --source HEAD~1 src/a.txt; git clean -qfd; git reflog >/dev/null
    """)  # fmt: skip
    assert {f for f in world.files("topic") if f.startswith("src/")} == {
        f"src/{n}" for n in ("1", "2", "3", "a.txt", "b.txt")
    }


def test_git_out_of_the_scope_is_told_by_the_hooks_already(world: World) -> None:
    """A commit can be made of objects, without the file: the hook tells, and nobody can go round the gate."""
    plumb = """
        blob=$(echo x | git hash-object -w --stdin)
        git update-index --add --cacheinfo 100644,$blob,docs/x.md
        git commit -qm 'out of scope' && echo 'nobody told it' || echo told
    """
    done = world.run("exec", *ALL, "--", "bash", "-c", plumb)
    assert done.out == "told\n"
    assert "docs/x.md" in done.err


def test_editors_that_save_by_rename(world: World) -> None:
    replace = "import os; open('src/tmp~', 'w').write('py\\n'); os.replace('src/tmp~', 'src/new.txt')"
    kept(world, f"""
        sed -i s/one/ONE/ src/a.txt
        {sys.executable} -c "{replace}"
        perl -pi -e s/two/TWO/ src/b.txt
    """)  # fmt: skip
    tree = world.tree("topic")
    assert (tree["src/a.txt"], tree["src/b.txt"], tree["src/new.txt"]) == ("ONE", "TWO", "py")
    assert not [f for f in tree if f.endswith("~")]


@needs("vim")
def test_vim(world: World) -> None:
    kept(world, """
        vim -es -u NONE -c 'set nobackup writebackup backupcopy=no' -c '%s/one/ONE/' -c wq src/a.txt
    """)  # fmt: skip
    assert world.tree("topic")["src/a.txt"] == "ONE"


@needs("ed")
def test_a_program_that_insists_on_tmp_is_refused(world: World) -> None:
    """ed keeps its buffer in /tmp, whatever TMPDIR says (tmpfile(3)): the one editor here that does not work."""
    done = kept(world, "printf '1s/two/TWO/\\nw\\nq\\n' | ed -s src/b.txt", code=1)
    assert "nothing was changed" in done.err


def test_an_editor_with_one_file_for_its_scope(world: World) -> None:
    """The sandbox goes by directories: saving by rename works, and what else it leaves beside the file is refused."""
    kept(world, "sed -i s/one/ONE/ src/a.txt", "--allow", "src/a.txt")
    assert world.tree("topic")["src/a.txt"] == "ONE"
    done = world.run(
        "exec", "--allow", "src/a.txt", "--keep", "other", "--", "bash", "-c", "echo x > src/a.txt~", code=1
    )
    assert "src/a.txt~" in done.err


@needs("make", "gcc")
def test_make_and_a_compiler(world: World) -> None:
    world.commit({
        "Makefile": "build/a: src/a.c\n\tmkdir -p build && cc -o $@ $<\n",
        "src/a.c": '#include <stdio.h>\nint main(void) { puts("built"); }\n', ".gitignore": "build/\n",
    })  # fmt: skip
    done = kept(world, "make -s -j2; ./build/a; cc -MM src/a.c > src/a.d", *ALL, "--allow", "build/**")
    assert done.out == "built\n"
    assert "src/a.d" in world.tree("topic")
    assert not [f for f in world.tree("topic") if f.startswith("build/")], "what git ignores stays behind"


def test_pytest(world: World) -> None:
    world.commit({"src/test_a.py": "import tempfile\n\ndef test_a(tmp_path):\n    (tmp_path / 'x').write_text('x')\n"})
    done = world.run("exec", *ALL, "--", sys.executable, "-m", "pytest", "-q", "src")
    assert "1 passed" in done.out
    # Its cache lies at the root, outside the scope: it warns, and goes on.
    options = (*ALL, "--allow", ".pytest_cache/**")
    assert "warning" not in world.run("exec", *options, "--", sys.executable, "-m", "pytest", "-q", "src").out


def test_pip_install_from_the_index(world: World) -> None:
    """Into a virtual environment of the cell's, ignored by git."""
    reachable("pypi.org")
    world.commit({".gitignore": ".venv/\n"})
    script = f"""
        {sys.executable} -m venv .venv
        .venv/bin/pip -q --disable-pip-version-check install iniconfig==2.0.0
        .venv/bin/python -c 'import iniconfig; print(iniconfig.__name__)' > src/said.txt
    """
    kept(world, script, *ALL, "--allow", ".venv/**", "--network", "open")
    assert world.tree("topic")["src/said.txt"] == "iniconfig"
    assert not [f for f in world.files("topic") if f.startswith(".venv")]


def test_pip_offline_from_a_wheel(world: World) -> None:
    """Without network, from a file."""
    lines = """
from zipfile import ZipFile
with ZipFile("own-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("own.py", "NAME = 'own'")
    wheel.writestr("own-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: own\\nVersion: 1\\n")
    wheel.writestr("own-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("own-1.dist-info/RECORD", "")
"""
    world.commit({"src/wheel.py": lines, ".gitignore": ".venv/\n"})
    script = f"""
        {sys.executable} -m venv .venv
        (cd $TMPDIR && {sys.executable} $OLDPWD/src/wheel.py)
        .venv/bin/pip -q --disable-pip-version-check install --no-index $TMPDIR/own-1-py3-none-any.whl
        .venv/bin/python -c 'import own; print(own.NAME)' > src/said.txt
    """
    kept(world, script, *ALL, "--allow", ".venv/**")
    assert world.tree("topic")["src/said.txt"] == "own"


@needs("npm")
def test_npm_install_from_the_registry_then_from_its_cache(world: World) -> None:
    reachable("registry.npmjs.org")
    package = {"name": "x", "version": "1.0.0", "private": True}
    world.commit({"package.json": json.dumps(package), ".gitignore": "node_modules/\n"})
    scope = ("--allow", "package.json", "--allow", "package-lock.json", "--allow", "node_modules/**", *ALL)
    script = """
        npm install --no-fund --no-audit --silent isarray@2.0.5
        node -e 'console.log(require("isarray")([]))' > src/said.txt
        rm -r node_modules; npm ci --offline --no-fund --no-audit --silent
        node -e 'console.log(require("isarray")([]))' >> src/said.txt
    """
    done = kept(world, script, *scope, "--network", "open")
    assert "landed" in done.err
    tree = world.tree("topic")
    assert tree["src/said.txt"] == "true\ntrue"
    assert "isarray" in json.loads(tree["package.json"])["dependencies"]
    assert "package-lock.json" in tree


@needs("npm")
def test_npm_without_network_says_so(world: World) -> None:
    world.commit({"package.json": '{"name": "x", "version": "1.0.0"}', ".gitignore": "node_modules/\n"})
    scope = ("--allow", "package.json", "--allow", "node_modules/**")
    script = "npm install --no-fund --no-audit --fetch-retries=0 --fetch-timeout=5000 isarray@2.0.5"
    done = world.run("exec", *scope, "--", "bash", "-c", script, code=None, timeout=120)
    assert done.code not in (0, None)


@needs("node")
def test_a_server_of_its_own_needs_a_network_of_its_own(world: World) -> None:
    script = (
        "const s = require('net').createServer(c => c.end('hi')).listen(0, '127.0.0.1', () => "
        "require('net').connect(s.address().port, '127.0.0.1')"
        ".on('data', d => { console.log(String(d)); s.close(); }));"
        "s.on('error', e => { console.log(e.code); process.exit(1); })"
    )
    assert world.run("exec", *ALL, "--", "node", "-e", script, code=1).out.strip() in ("EPERM", "EACCES")
    levels = world.run("exec", *ALL, "--network", "loopback", "--", "node", "-e", script, code=None)
    if levels.code == 5:
        pytest.skip(f"no loopback at this level: {levels.err}")
    assert levels.out == "hi\n"
