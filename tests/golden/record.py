"""Record the golden logs anew: `python -m tests.golden.record [NAME…]`, from real runs with scripted agents.

One folder per version of the envelope, one below it per run: `events.jsonl`, `run.bundle` (every branch and ref of the
run, with its base) and `blobs.tar.xz`. A log of a version that was released is never recorded again: it has to
be read for ever. Before that, whoever changes what a run writes records them again, with this.
"""

from __future__ import annotations

import io
import shutil
import signal
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchgit.core.events import VERSION
from tests.support.scenario import Book, World, bash, finding, make, piece, report, turn, write

HERE = Path(__file__).parent
TOO_LONG_MS = 60_000
API = piece("api", "api-agent", ["src/api/**"], checks=["ls src/api"])
WEB = piece("web", "frontend-agent", ["src/web/**"], checks=["ls src/web"])
DOCS = piece("docs", "docs-agent", ["docs/**"], depends_on=["api"], checks=["ls docs"])


def plain(world: World) -> None:
    """Two that run beside each other, one after; all goes well; a human approves."""
    book = Book(API, WEB, DOCS)
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n")))
    world.run(*world.start_args(book), code=4)
    world.run("approve", world.name)
    world.run("resume", world.name)


def mended(world: World) -> None:
    """A verdict that wants changes, a gate that refuses, and a finding that goes back to its owner."""
    book = Book(API, {**DOCS, "deny": ["docs/private.md"]})
    book.work("api", turn(write("src/api/billing.py", "x = 1\n")))
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("api", turn(write("src/api/billing.py", "billing = 2\n")))
    book.verdict("api", 1, "reassign", "name it better")
    book.work("docs", turn(bash("echo mine > docs/private.md"), write("docs/billing.md", "# Billing\n")))
    book.work("docs", turn(write("docs/billing.md", "# Billing\n\nMore.\n")))
    book.review(finding("src/api/billing.py", "Anybody can bill"))
    book.review(fixed=["F1"])
    world.start(book)


def killed(world: World) -> None:
    """The engine is killed while two workers work; resume goes on."""
    book = Book(API, WEB)
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n"), delay_ms=TOO_LONG_MS))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    child = world.spawn(*world.start_args(book, "--yes"))
    world.wait_event("gate.passed", assignment="web")
    child.send_signal(signal.SIGKILL)
    child.wait()
    book = Book(API, WEB)
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    world.playbook(book)
    world.run("resume", world.name)


def answered(world: World) -> None:
    """A worker cannot go on, a human answers, and a finding in nobody's scope is waived."""
    book = Book(API, WEB)
    book.work("api", turn(report("stuck", blockers=["Which currency?"])))
    book.work("api", turn(write("src/api/billing.py", "billing = 'EUR'\n")))
    book.work("web", turn(write("src/web/billing.html", "<p>billing</p>\n")))
    book.review(finding("README.md", "It says nothing of billing"))
    world.start(book, code=4)
    world.run("answer", world.name, "Euro.")
    world.run("resume", world.name, code=4)
    world.run("waive", world.name, "F1", "--why", "it is meant so")
    world.run("resume", world.name)


def aborted(world: World) -> None:
    """One is merged, the other is stuck, and the human has had enough."""
    book = Book(API, WEB)
    book.work("api", turn(write("src/api/billing.py", "billing = 1\n")))
    book.work("web", turn(write("src/web/billing.html", "half\n"), report("stuck", blockers=["Which colour?"])))
    world.start(book, code=4)
    world.run("abort", world.name, code=None)
    world.run("resume", world.name, code=None)


RUNS: dict[str, Callable[[World], None]] = {
    "plain": plain, "mended": mended, "killed": killed, "answered": answered, "aborted": aborted,
}  # fmt: skip


def record(name: str, folder: Path) -> int:
    """The number of events."""
    with tempfile.TemporaryDirectory(prefix="golden-") as root:
        world = make(Path(root) / "w")
        try:
            RUNS[name](world)
        finally:
            world.close()
        world.run("audit", world.name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copyfile(world.log, folder / "events.jsonl")
        world.git("bundle", "create", "-q", str(folder / "run.bundle"), "--all")
        # The same bytes for the same blobs: no times, no names.
        with tarfile.open(folder / "blobs.tar.xz", "w:xz") as packed:
            for blob in sorted((world.log.parent / "blobs").iterdir()):
                info = tarfile.TarInfo(blob.name)
                info.size = blob.stat().st_size
                packed.addfile(info, io.BytesIO(blob.read_bytes()))
        return len(world.events())


def main(names: list[str]) -> None:
    for name in names or list(RUNS):
        events = record(name, HERE / f"v{VERSION}" / name)
        size = sum(p.stat().st_size for p in (HERE / f"v{VERSION}" / name).iterdir())
        print(f"{name}: {events} events, {size / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
