"""The scope watchdog on real directories: what it sees, what it leaves alone, when it admits to losses."""

from __future__ import annotations

import logging
import mmap
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchgit.watch import MAX_SIGHTINGS, Sighting, Watch, Watchdog


def in_scope(path: bytes) -> bool:
    return path.startswith(b"app/")


class Seen:
    """The sightings of a watch, in order, to wait for."""

    def __init__(self) -> None:
        self.all: list[Sighting] = []
        self._queue: queue.Queue[Sighting] = queue.Queue()

    def __call__(self, sighting: Sighting) -> None:
        self._queue.put(sighting)

    def until(self, enough: Callable[[list[Sighting]], bool], deadline_s: float = 10.0) -> list[Sighting]:
        end = time.monotonic() + deadline_s
        while not enough(self.all):
            try:
                self.all.append(self._queue.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                pytest.fail(f"waited {deadline_s} s; seen: {self.all}")
        return self.all

    def path(self, path: bytes) -> Sighting:
        return next(each for each in self.until(lambda all: any(s.path == path for s in all)) if each.path == path)

    def paths(self) -> list[bytes]:
        return [each.path for each in self.all]


@pytest.fixture
def dog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "cell"
    for name in ("app/in.py", "docs/out.md", "docs/deep/er/x.md", "README.md"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("before\n")
    (top / ".git").write_text("gitdir: /nowhere\n")
    # A file older than the watch: see Watch._written.
    for path in top.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return top


def fence(root: Path, seen: Seen) -> None:
    """Everything before this has been seen once this has been."""
    (root / "zz-fence").write_text("")
    seen.path(b"zz-fence")


def test_created_modified_deleted_and_attributes(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    watch = dog.watch(str(root), in_scope, seen)
    (root / "new.txt").write_text("x")
    (root / "README.md").write_text("after\n")
    (root / "docs/out.md").unlink()
    (root / "docs/deep/er/x.md").chmod(0o755)
    fence(root, seen)
    assert seen.all[:-1] == [
        Sighting(b"new.txt", "created"),
        Sighting(b"README.md", "modified"),
        Sighting(b"docs/out.md", "deleted"),
        Sighting(b"docs/deep/er/x.md", "attributes"),
    ]
    assert not watch.incomplete, watch.reasons


def test_in_scope_git_file_ignored_and_reads_are_silent(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen, ignore=lambda path: path.startswith(b"cache/"))
    (root / "app/in.py").write_text("after\n")
    (root / "app/new").mkdir()
    (root / "app/new/file").write_text("x")
    (root / ".git").write_text("gitdir: /elsewhere\n")
    (root / "cache").mkdir()
    (root / "cache/entry").write_text("x")
    (root / "README.md").read_text()
    with open(root / "README.md", "r+b"):
        pass  # opened for writing, not written
    fence(root, seen)
    assert seen.paths() == [b"zz-fence"]


def test_renames_tell_both_sides(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    (root / "app/in.py").rename(root / "taken.py")  # out of the scope
    (root / "docs/out.md").rename(root / "app/stolen.md")  # into it
    (root / "docs/deep").rename(root / "docs/deeper")  # a whole tree beside it
    fence(root, seen)
    assert [each for each in seen.all if each.kind == "moved"] == [
        Sighting(b"taken.py", "moved"),
        Sighting(b"docs/out.md", "moved"),
        Sighting(b"docs/deep/er/x.md", "moved"),
        Sighting(b"docs/deeper/er/x.md", "moved"),
    ]


def test_a_tree_that_leaves_the_root(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    (root / "app/sub").mkdir()
    (root / "app/sub").rename(tmp_path / "sub")  # in scope
    (root / "docs").rename(tmp_path / "docs")
    assert seen.path(b"docs") == Sighting(b"docs", "deleted")
    fence(root, seen)
    assert seen.paths() == [b"docs", b"zz-fence"]


def test_a_tree_that_arrives(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    (tmp_path / "load/a").mkdir(parents=True)
    (tmp_path / "load/a/file").write_text("x")
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    (tmp_path / "load").rename(root / "load")
    assert seen.path(b"load/a/file").kind == "created"


def test_empty_directories_are_no_violation(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    (root / "empty/nested").mkdir(parents=True)
    (root / "empty/nested").rmdir()
    (root / "empty").rmdir()
    shutil.rmtree(root / "docs")
    fence(root, seen)
    assert sorted(seen.paths()) == [b"docs/deep/er/x.md", b"docs/out.md", b"zz-fence"]


def test_files_written_at_once_in_new_nested_directories(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    wanted = set()
    for i in range(50):
        path = root / f"new{i}/a/b/c.txt"
        path.parent.mkdir(parents=True)
        path.write_text("x")
        wanted.add(os.fsencode(path.relative_to(root)))
    seen.until(lambda all: wanted <= {each.path for each in all})
    assert set(seen.paths()) == wanted


def test_each_path_once_in_a_burst(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    for turn in range(5):
        for i in range(150):
            (root / f"burst{i}").write_text(str(turn))
    seen.until(lambda all: len(all) >= 150)
    fence(root, seen)
    assert len(seen.all) == 151
    assert len(set(seen.paths())) == 151


def test_names_are_bytes(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    names = [b"caf\xc3\xa9 \xe2\x80\xae.md", b"not utf-8 \xff", b"new\nline", b"\x1b[31m"]
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "wb"):
            pass
    fence(root, seen)
    assert seen.paths()[:-1] == names


def test_a_mapped_write_shows_when_the_file_is_closed(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    with open(root / "README.md", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"X"
        mapped.flush()
    assert seen.path(b"README.md").kind == "modified"


def test_symlinks_are_not_followed(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    seen = Seen()
    dog.watch(str(root), in_scope, seen)
    (outside / "file").write_text("x")
    (root / "later").symlink_to(outside)
    (outside / "file2").write_text("x")
    fence(root, seen)
    assert seen.all[:-1] == [Sighting(b"later", "created")]


def test_two_roots_one_observer(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    one, two = Seen(), Seen()
    first = dog.watch(str(root), in_scope, one)
    second = dog.watch(str(other), lambda path: False, two)
    (other / "app").mkdir()
    (other / "app/x").write_text("x")
    assert two.path(b"app/x").kind == "created"
    second.stop()
    second.stop()
    (other / "y").write_text("x")
    fence(root, one)
    assert one.paths() == [b"zz-fence"]
    assert two.paths() == [b"app/x"]
    assert not first.incomplete
    assert not second.incomplete
    with pytest.raises(ValueError, match="already watched"):
        dog.watch(str(root), in_scope, one)


def test_a_watch_of_its_own(root: Path) -> None:
    seen = Seen()
    before = threading.active_count()
    watch = Watch(str(root), in_scope, seen)
    watch.start()
    (root / "x").write_text("x")
    seen.path(b"x")
    watch.stop()
    assert not watch.incomplete
    assert threading.active_count() <= before + 1  # the library keeps one reader for the process


def test_stop_inside_a_callback(dog: Watchdog, root: Path) -> None:
    seen = Seen()

    def stop(sighting: Sighting) -> None:
        watch.stop()
        seen(sighting)

    watch = dog.watch(str(root), in_scope, stop)
    (root / "one").write_text("x")
    seen.path(b"one")
    (root / "two").write_text("x")
    (root / "three").write_text("x")
    again = Seen()
    dog.watch(str(root), in_scope, again)
    fence(root, again)
    assert seen.paths() == [b"one"]


def test_an_overflow_is_admitted(dog: Watchdog, root: Path) -> None:
    watch = dog.watch(str(root), in_scope, Seen())
    logging.getLogger("watchdog.observers.inotify_c").warning("something else")
    assert not watch.incomplete
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert watch.incomplete
    assert "overflow" in watch.reasons[0]
    dog.close()
    later = Watchdog()
    assert not later.watch(str(root), in_scope, Seen()).incomplete
    later.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_raises_ends_all_watching_and_says_so(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()

    def fail(sighting: Sighting) -> None:
        raise RuntimeError("a fault")

    first = dog.watch(str(root), in_scope, fail)
    second = dog.watch(str(other), in_scope, Seen())
    (root / "x").write_text("x")
    end = time.monotonic() + 10
    while not (first.incomplete and second.incomplete) and time.monotonic() < end:
        time.sleep(0.01)
    assert first.incomplete
    assert second.incomplete
    first.stop()
    second.stop()


def test_a_root_that_cannot_be_watched_is_incomplete(dog: Watchdog, tmp_path: Path) -> None:
    watch = dog.watch(str(tmp_path / "missing"), in_scope, Seen())
    assert watch.incomplete
    assert "cannot watch" in watch.reasons[0]
    watch.stop()


_LIMITED = """
import os, sys
from orchgit.watch import Watchdog
dog = Watchdog()
seen = []
watch = dog.watch(sys.argv[1], lambda path: False, seen.append)
print(watch.incomplete, watch.reasons)
dog.close()
"""


@pytest.mark.parametrize(("limit", "expected"), [("1", "True"), ("4", "True"), ("500", "False")])
def test_the_watch_limit_is_admitted(root: Path, limit: str, expected: str) -> None:
    """With too few watches for the tree the library says nothing: its root is watched, and that is all."""
    command = ["unshare", "-U", "-r", "sh", "-c"]
    script = f'echo {limit} >/proc/sys/user/max_inotify_watches && exec "$@"'
    try:
        subprocess.run([*command, script, "sh", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespace with a limit of its own here: {error}")
    done = subprocess.run(
        [*command, script, "sh", sys.executable, "-c", _LIMITED, str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected), done.stdout
    assert ("sysctl fs.inotify.max_user_watches=" in done.stdout) == (expected == "True")


def test_arrivals_in_an_inbox(dog: Watchdog, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    names: queue.Queue[bytes] = queue.Queue()
    handle = dog.notify(str(inbox), names.put)
    (tmp_path / "outside.tmp").write_text("x")
    (tmp_path / "outside.tmp").rename(inbox / "from-outside.json")
    assert names.get(timeout=10) == b"from-outside.json"
    (inbox / ".tmp").write_text("x")
    (inbox / ".tmp").rename(inbox / "renamed.json")
    while names.get(timeout=10) != b"renamed.json":
        pass
    (inbox / "sub").mkdir()
    (inbox / "sub/below").write_text("x")
    handle.stop()
    handle.stop()
    (inbox / "after.json").write_text("x")
    with pytest.raises(queue.Empty):
        names.get(timeout=0.2)
    with pytest.raises(OSError):
        dog.notify(str(tmp_path / "missing"), names.put)


def test_latency_is_printed(dog: Watchdog, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrived: queue.Queue[float] = queue.Queue()
    dog.watch(str(root), in_scope, lambda sighting: arrived.put(time.perf_counter()))
    took = []
    for i in range(50):
        start = time.perf_counter()
        (root / f"latency{i}").write_text("x")
        took.append((arrived.get(timeout=10) - start) * 1000)
    took.sort()
    with capsys.disabled():
        print(f"\nwatch latency: median {took[25]:.2f} ms, p95 {took[47]:.2f} ms, max {took[-1]:.2f} ms")


def test_what_happened_until_the_end_is_told(dog: Watchdog, root: Path) -> None:
    for _ in range(20):
        seen: list[Sighting] = []
        watch = dog.watch(str(root), in_scope, seen.append)
        subprocess.run(["sh", "-c", "echo x > stray; rm stray"], cwd=root, check=True)
        watch.settle()
        watch.stop()
        assert seen == [Sighting(b"stray", "created")]
        assert not watch.incomplete
    assert not list(root.glob(".orchgit*"))


def test_a_flood_is_cut_short_and_admitted(dog: Watchdog, root: Path) -> None:
    seen = Seen()
    watch = dog.watch(str(root), in_scope, seen)
    for i in range(MAX_SIGHTINGS + 50):
        (root / f"f{i}").write_text("x")
    seen.until(lambda all: len(all) == MAX_SIGHTINGS)
    end = time.monotonic() + 10
    while not watch.incomplete and time.monotonic() < end:
        time.sleep(0.01)
    assert watch.reasons == (f"more than {MAX_SIGHTINGS} paths outside the scope were touched",)
    watch.settle()
    with pytest.raises(queue.Empty):
        seen._queue.get(timeout=0.2)


def test_on_an_upper_directory_what_was_below_is_modified(dog: Watchdog, root: Path, tmp_path: Path) -> None:
    """A real overlay, mounted where the kernel lets a user namespace do it."""
    upper, work, at = (tmp_path / name for name in ("upper", "ovl", "at"))
    for folder in (upper, work, at):
        folder.mkdir()
    seen = Seen()
    watch = dog.watch(str(upper), in_scope, seen, lowers=[str(root)])
    options = f"lowerdir={root},upperdir={upper},workdir={work},userxattr"
    script = (
        f"mount -t overlay overlay -o {options} {at} && cd {at} && echo more >> README.md && "
        "echo new > docs/new.md && rm docs/out.md && chmod +x docs/deep/er/x.md && echo more >> app/in.py"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no overlay in a user namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    watch.settle()
    found = {s.path: s.kind for s in seen.until(lambda all: len(all) >= 4)}
    assert found == {
        b"README.md": "modified", b"docs/new.md": "created", b"docs/out.md": "deleted",
        b"docs/deep/er/x.md": "modified",
    }  # fmt: skip
    assert not watch.incomplete, watch.reasons


def test_an_instance_limit_says_what_to_raise(root: Path) -> None:
    """In a user namespace with a limit of its own: as many instances as others have already, which is none."""
    command = ["unshare", "-U", "-r", "sh", "-c", 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", _LIMITED, str(root)], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "Permission" in done.stderr:
        pytest.skip(f"no user namespace with a limit of its own here: {done.stderr}")
    assert done.stdout.startswith("True"), done.stderr
    assert "sysctl fs.inotify.max_user_instances=" in done.stdout
    assert "the gate does not depend on it" in done.stdout
