"""What only an overlay has: layers, marks in its upper directory, a mount that comes and goes with each program."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchgit.agent_run import confined
from orchgit.git import cells, gate, layers
from orchgit.git.door import Door, GitError
from orchgit.git.harvest import OPAQUE
from orchgit.sandbox import landlock, overlay_works
from tests.support.repos import LINK, Repo, net, repository, sandbox, snapshot, sound, taken, work, worked

BRANCH = "refs/heads/orchgit/r/a"
BASE = {
    "src/a.py": b"a = 1\n", "src/b.py": b"b = 1\n", "src/deep/c.py": b"c = 1\n", "other/d.py": b"d = 1\n",
    "top.txt": b"top\n", ".gitignore": b"*.log\n",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _overlays(tmp_path_factory: pytest.TempPathFactory) -> None:
    why = overlay_works(str(tmp_path_factory.mktemp("try")))
    if why:
        pytest.skip(f"no overlays here: {why}")
    if not sandbox()[1].prevented:
        pytest.skip("nothing here stops a write outside")


class Run:
    """A repository and its base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repo: Repo = repository(root / "user", BASE)
        self.door: Door = self.repo.door()
        self.start = self.repo.ask("rev-parse", "HEAD")
        self.base = cells.make_base(self.door, root / "base", self.start)

    def cell(self, commit: str = "", name: str = "cell") -> cells.Cell:
        return cells.make(self.door, self.root / name, commit or self.start, branch=BRANCH, base=self.base)

    def changed(self, cell: cells.Cell, start: str = "") -> dict[str, str]:
        start = start or self.start
        return net(self.repo, start, taken(self.door, cell, start).tree)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


# ---- the base


def test_the_base_is_made_once_and_a_half_made_or_older_one_again(run: Run) -> None:
    made = run.base.work.stat().st_ino
    assert cells.make_base(run.door, run.base.root, run.start) == run.base
    assert run.base.work.stat().st_ino == made
    (run.base.work / "top.txt").write_text("half\n")
    for spoil in ("", f"{run.start} another-boot\n", f"{'1' * 40} {cells._boot()}\n"):
        (run.base.root / "done").write_text(spoil)
        again = cells.make_base(run.door, run.base.root, run.start)
        assert (again.work / "top.txt").read_bytes() == b"top\n"
        assert sorted(p.name for p in again.root.iterdir()) == ["done", "index", "work"]
        (again.work / "top.txt").write_text("half\n")
    with pytest.raises(GitError, match="checkout of"):
        cells.make_base(run.door, run.root / "none", "1" * 40)
    assert not (run.root / "none" / "done").exists()


def test_no_worker_changes_the_base_or_another_cell(run: Run) -> None:
    before, one, two = snapshot(run.base.root), run.cell(name="one"), run.cell(name="two")
    worked(one, "echo 2 >src/a.py; rm -r other; chmod +x top.txt; git add -A; git commit -qm all; git gc -q")
    ended = work(
        one, f"echo x >'{run.base.work}/top.txt'; rm -r '{run.base.work}/src'; echo x >'{one.top}/src/a.py'; "
        f"echo x >'{one.top}/new'; rm '{one.top}/other'; echo x >'{two.top}/new'; echo x >'{one.root}/ovl/x'; true",
    )  # fmt: skip
    assert ended.returncode == 0
    assert snapshot(run.base.root) == before
    assert worked(two, "cat src/a.py other/d.py; git status --porcelain") == "a = 1\nd = 1\n"
    assert list(one.work.iterdir()) == list(two.work.iterdir()) == [], "mounted in the sandbox, and nowhere else"
    assert run.changed(one) == {"src/a.py": "M", "other/d.py": "D", "top.txt": "M"}
    assert run.changed(two) == {}


def test_no_worker_changes_a_mode_of_the_base_where_only_landlock_holds(run: Run) -> None:
    """It stops writes, and lets an owner change modes and times: so the layers are not to be found by their names."""
    way = landlock.Landlock()
    if isinstance(level := way.probe(), str):
        pytest.skip(level)
    before, cell = snapshot(run.base.root), run.cell()
    launch = confined(way, cell, (str(cell.work), str(cell.git), str(cell.home)))
    script = (
        f"chmod +x '{run.base.work}/top.txt' '{cell.top}'; touch -d 2001-01-01 '{run.base.work}/src/a.py'; cat top.txt"
    )
    ended = launch(["/bin/sh", "-c", script]).finish(deadline_s=60)
    assert (ended.returncode, ended.stdout) == (0, b"top\n")
    assert ended.stderr.count(b"No such file") == 2, ended.stderr
    assert snapshot(run.base.root) == before


def test_a_commit_that_is_missing_in_part_is_said(run: Run) -> None:
    gone = run.repo.made(run.repo.raw_tree(("100644", b"gone", "1" * 40)), run.start)
    for commit in ("1" * 40, gone):
        with pytest.raises(GitError, match="checkout"):
            run.cell(commit)


# ---- what git in it is told


@pytest.mark.parametrize("differs", [0, 2])
def test_the_first_status_reads_no_file_that_is_the_base_s(run: Run, differs: int) -> None:
    commit = run.start
    if differs:
        run.repo.write("src/a.py", b"a = 2\n")
        run.repo.write("new.py", b"n = 1\n")
        commit = run.repo.commit("second")
    time.sleep(1.1)  # times are compared by the second: nothing of the base is as young as the index
    cell = run.cell(commit)
    worked(cell, f"GIT_TRACE2_EVENT='{cell.tmp}/trace' git status --porcelain >'{cell.tmp}/said'")
    assert (cell.tmp / "said").read_text() == ""
    events = [json.loads(line) for line in (cell.tmp / "trace").read_text().splitlines()]
    scanned = [int(event["value"]) for event in events if event.get("key") == "refresh/sum_scan"]
    assert len(scanned) == 1
    assert scanned[0] <= differs


def test_a_directory_of_the_base_cannot_be_renamed_but_moved(run: Run) -> None:
    """EXDEV, as between file systems. mv copies; `git mv` and rename(2) fail, and say so."""
    cell = run.cell()
    ended = work(cell, "git mv other another")
    assert ended.returncode != 0
    assert b"cross-device" in ended.stderr
    script = (
        "import os, shutil\ntry: os.rename('other', 'x')\nexcept OSError as e: print(e.errno)\nshutil.move('src', 'l')"
    )
    assert worked(cell, f'python3 -I -c "{script}"; mv other another; git add -A; git mv l lib') == "18\n"
    assert run.changed(cell) == {
        "src/a.py": "D", "src/b.py": "D", "src/deep/c.py": "D", "lib/a.py": "A", "lib/b.py": "A", "lib/deep/c.py": "A",
        "other/d.py": "D", "another/d.py": "A",
    }  # fmt: skip
    assert "R  other/d.py -> another/d.py" in worked(cell, "git add -A; git status --porcelain")


def test_ten_thousand_files(run: Run) -> None:
    cell = run.cell()
    worked(
        cell,
        "mkdir -p many; cd many; seq 10000 | while read i; do echo $i >f$i; done; git add -A; git status -s | wc -l",
    )
    left = taken(run.door, cell, run.start)
    assert len(gate.raw_diff(run.door, run.door.tree_of(run.start), left.tree)) == 10_000
    sound(run.repo)


# ---- marks that an agent made


def test_an_agent_cannot_make_the_kernel_s_marks_through_the_mount(run: Run) -> None:
    cell = run.cell()
    worked(
        cell,
        f"""
        python3 -I -c "import os
os.mkdir('src/new')
for path in ('src', 'src/new', '.'):
    try: os.setxattr(path, '{OPAQUE}', b'y')
    except OSError: pass
try: os.setxattr('src/a.py', 'user.overlay.whiteout', b'y')
except OSError: pass"
        ! mknod src/b.py c 0 0; ! mknod src/white c 0 0; cat src/a.py src/b.py src/deep/c.py
        """,
    )
    assert run.changed(cell) == {}
    assert worked(cell, "cat src/a.py src/deep/c.py; git status --porcelain") == "a = 1\nc = 1\n"


def marked(path: str, name: str, value: bytes) -> Callable[[], None]:
    return lambda: os.setxattr(path, f"user.overlay.{name}", value)


def whiteout(path: str) -> Callable[[], None]:
    return lambda: os.mknod(path, stat.S_IFCHR, 0)


@pytest.mark.parametrize(
    ("mark", "comes_out"),
    [
        (marked("src", "opaque", b"y"), {"src/b.py": "D", "src/deep/c.py": "D", "src/a.py": "M"}),
        (marked("src", "opaque", b"x"), {"src/a.py": "M"}),
        (marked("src", "redirect", b"/other"), {"src/a.py": "M"}),
        (marked("src/a.py", "metacopy", b""), {"src/a.py": "M"}),
        (marked("src/a.py", "whiteout", b"y"), {"src/a.py": "M"}),
        (marked("src", "origin", b"garbage"), {"src/a.py": "M"}),
        (whiteout("src/b.py"), {"src/a.py": "M", "src/b.py": "D"}),
        (whiteout("src/new"), {"src/a.py": "M"}),
        (whiteout("src/deep"), {"src/a.py": "M", "src/deep/c.py": "D"}),
    ],
)
def test_marks_set_round_the_mount_are_deletions_or_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, mark: Callable[[], None], comes_out: dict[str, str]
) -> None:
    """A level that stops only writes lets an agent set an attribute on its own upper directory, by its real path. What
    comes out is no more than it could have done anyway, and goes before the gate like all else."""
    cell = run.cell()
    worked(cell, "echo 2 >src/a.py")
    monkeypatch.chdir(cell.top)
    mark()
    assert run.changed(cell) == comes_out
    sound(run.repo)


# ---- roots and files beside git


def test_roots_are_made_in_the_upper_directory_and_merge(run: Run) -> None:
    link = run.repo.made(
        run.repo.tree({b"src/link": (LINK, str(run.root).encode())}, run.repo.ask("rev-parse", "HEAD^{tree}"))
    )
    cell = run.cell(link)
    asked = ("src", "src/deep", "new/er", "top.txt", "src/link", "src/link/x", "src/a.py/x", "")
    found = cells.make_roots(cell, asked)
    assert found == tuple(str(cell.work / p) for p in ("src", "src/deep", "new/er", ""))
    assert sorted(p.name for p in cell.top.iterdir()) == [".git", "new"], "what is below is not made again"
    assert cells.make_roots(cell, ("src/deep/er",)) == (str(cell.work / "src/deep/er"),)
    assert worked(cell, "cat src/deep/c.py; ls -d new/er src/deep/er; cat src/a.py") == (
        "c = 1\nnew/er\nsrc/deep/er\na = 1\n"
    )
    assert run.changed(cell, link) == {}


def test_roots_that_the_worker_removed_stay_empty(run: Run) -> None:
    cell = run.cell()
    worked(cell, "rm -r src; rm -r other; echo file >other")
    assert cells.make_roots(cell, ("src/deep", "other", "src")) == tuple(
        str(cell.work / p) for p in ("src/deep", "src")
    )
    assert worked(cell, "find src; cat other") == "src\nsrc/deep\nfile\n"
    gone = {"src/a.py": "D", "src/b.py": "D", "src/deep/c.py": "D"}
    assert run.changed(cell) == {**gone, "other/d.py": "D", "other": "A"}


def test_only_the_roots_are_writable(run: Run) -> None:
    cell = run.cell()
    (root,) = cells.make_roots(cell, ("src/deep",))
    launch = confined(sandbox()[0], cell, (root, str(cell.git), str(cell.home)))
    script = "echo 2 >src/deep/c.py; rm -f src/deep/x; echo 1 >src/deep/new; echo x >src/a.py; rm other/d.py; echo x >y"
    launch(["/bin/sh", "-c", script]).finish(deadline_s=30)
    assert run.changed(cell) == {"src/deep/c.py": "M", "src/deep/new": "A"}


def test_files_beside_git_are_there_and_stay_behind(run: Run) -> None:
    for name in (".env", "src/local.cfg", "fresh/x", "src/a.py"):
        run.repo.write(name, b"mine\n")
    cell = run.cell()
    names = (".env", "src/local.cfg", "fresh/x", "src/a.py", "top.txt/x")
    assert cells.copy_in(cell, run.repo.root, names) == ["top.txt/x"]
    assert worked(cell, "cat .env src/local.cfg fresh/x src/a.py src/b.py; git status --porcelain") == (
        "mine\nmine\nmine\na = 1\nb = 1\n"
    )
    worked(cell, "echo 2 >.env; echo 2 >src/b.py; : >../git/info/exclude")
    assert run.changed(cell) == {"src/b.py": "M"}


# ---- looking, and the end


def test_a_running_cell_is_read_without_a_second_mount(run: Run) -> None:
    cell = run.cell()
    launch = confined(sandbox()[0], cell, (str(cell.work), str(cell.git), str(cell.home)))
    script = "echo 2 >src/a.py; rm -r other; mv src/deep deep; echo ready; read go; echo 3 >src/a.py; cat src/b.py"
    child = launch(["/bin/sh", "-ec", script])
    assert child.readline(30) == b"ready\n"
    now = {"src/a.py": "M", "other/d.py": "D", "src/deep/c.py": "D", "deep/c.py": "A"}
    for _ in range(2):
        assert run.changed(cell) == now
    child.send(b"go\n")
    ended = child.finish(deadline_s=30)
    assert (ended.returncode, ended.stdout) == (0, b"b = 1\n"), "and it did not notice"
    assert worked(cell, "cat src/a.py") == "3\n"
    assert run.changed(cell) == now


def test_removed_with_all_its_layers(run: Run) -> None:
    run.repo.write("new.py", b"n = 1\n")
    run.repo.write("src/deep/c.py", b"c = 2\n")
    os.unlink(run.repo.root / "top.txt")
    cell = run.cell(run.repo.commit("second"))
    assert stat.S_ISCHR((cell.root / "delta" / "top.txt").lstat().st_mode)
    worked(cell, "rm -r src; mkdir src; chmod 0 src; chmod 0 .")
    before = snapshot(run.base.root)
    cells.remove(cell.root)
    assert not cell.root.exists()
    assert snapshot(run.base.root) == before
    assert layers.find((run.base.work,), "top.txt") == ()
