"""The `human` backend: the engine waits, and a person does the work, by `orchgit work RUN/ASSIGNMENT`.

Beside the cell, where no program in it can write, lies the desk: what that command needs to know, and the lock of who
works there. The person's shell is as confined as an agent's; what is handed in is a report like any other, and the same
gate judges the work. An engine that ends meanwhile ends nothing: the next one waits at the same desk.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchgit.agents import Cost, HandIn, Job, Needs, Outcome, Probe, handin
from orchgit.agents.loop import NO_CALL
from orchgit.core.errors import Kind, OrchgitError

NAME = "human"
POLL_S = 0.5


@dataclass(frozen=True)
class Desk:
    """`draft`: where the shell's programs hand in. It counts once the person has left the shell."""

    brief: str
    brief_file: str
    draft: str

    @property
    def files(self) -> HandIn:
        return HandIn(Path(self.brief_file), Path(self.draft))


def _place(cell: Path) -> Path:
    return cell / "desk.json"


def result_place(cell: Path) -> Path:
    return cell / "handed-in.json"


def read(cell: Path) -> Desk | None:
    """The desk beside this cell's working tree; None: nobody is waited for there."""
    try:
        return Desk(**json.loads(_place(cell).read_bytes()))
    except FileNotFoundError:
        return None


@contextmanager
def taken(cell: Path) -> Iterator[None]:
    """One person at a time. OrchgitError (NO) where somebody is at it already."""
    fd = os.open(_place(cell), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise OrchgitError(Kind.NO, "somebody works there already", "another `orchgit work` has this cell") from error
    finally:
        os.close(fd)


class HumanBackend:
    name = NAME
    default_model = "a person"
    cost: Cost = "free"

    def probe(self, options: Mapping[str, str]) -> Probe:
        return Probe(True, "a person, by `orchgit work RUN/ASSIGNMENT`; workers only")

    def needs(self, options: Mapping[str, str]) -> Needs:
        return Needs()

    def run(self, job: Job) -> Outcome:
        if job.role != "worker":
            return Outcome("unavailable", message=f"a person cannot be the {job.role}, only a worker", usage=NO_CALL)
        cell = Path(job.workdir).parent
        begun, most = job.clock(), int(job.options.get("deadline_s", 0))
        job.record({"kind": "start", "key": job.key, "agent": job.agent, "brief": job.brief})
        desk = read(cell)
        if desk is None or desk.brief != job.brief:  # else an engine before this one has waited here
            self._set_up(job, cell)
        job.progress("waits for a person")
        while not job.stop.wait(POLL_S):
            if result_place(cell).exists():
                return self._taken(job, result_place(cell))
            if most and job.clock() - begun > most:
                return Outcome("time", message=f"nobody handed in within {most} s", usage=NO_CALL)
        return Outcome("stopped", message="it was stopped", usage=NO_CALL)

    def _set_up(self, job: Job, cell: Path) -> None:
        result_place(cell).unlink(missing_ok=True)
        files = job.handin()
        _write(_place(cell), asdict(Desk(job.brief, str(files.brief), str(files.result))))

    def _taken(self, job: Job, place: Path) -> Outcome:
        """It stays: should this engine die before it is logged, the next one takes it."""
        try:
            said = handin.read(place.read_bytes(), job.results)
        except (OSError, ValueError) as error:
            return Outcome("no_report", message=str(error), usage=NO_CALL)
        job.record({"kind": "handed in", "result": said[0], "input": dict(said[1])})
        return Outcome("done", said, usage=NO_CALL)


def hand_in(cell: Path, tool: str, given: Mapping[str, Any]) -> None:
    """From outside the cell, as the person who worked there."""
    _write(result_place(cell), {tool: given})


def _write(place: Path, content: Mapping[str, Any]) -> None:
    half = place.with_suffix(".half")
    half.write_text(json.dumps(content), "utf-8", "backslashreplace")
    half.replace(place)
