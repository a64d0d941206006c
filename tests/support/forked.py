"""The real command in a process of its own, without the time it takes to import it: a server that has imported all of
the package forks one for every request. A third of what most tests of the command cost was imports.

    python -m tests.support.forked < one JSON request per line, answered by one line each

The process that is forked ends as a program does, with the interpreter's own shutdown. What it is not: a fresh
interpreter. Tests that are about starting, about the environment of a Python, or about being killed, use
`subprocess` with `World.argv`.
"""

from __future__ import annotations

import atexit
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import orchgit

SOURCE = Path(orchgit.__file__).resolve().parent.parent
RUN_ALONE = ("orchgit.sandbox.keeper", "orchgit.__main__")


class Server:
    """Of one thread of the tests: a request is answered before the next one."""

    def __init__(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(SOURCE), "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked"], cwd=SOURCE, env=env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.process.communicate)  # it ends when nobody can ask any more

    def run(
        self, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes, timeout: float
    ) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr); TimeoutExpired."""
        with tempfile.TemporaryDirectory(prefix="forked-") as place:
            names = {name: os.path.join(place, name) for name in ("in", "out", "err")}
            Path(names["in"]).write_bytes(stdin)
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            request = {"args": list(args), "cwd": str(cwd), "env": dict(env), **names}
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            pid = int(self.process.stdout.readline())
            late = threading.Event()

            def end() -> None:
                late.set()
                os.kill(pid, signal.SIGKILL)

            timer = threading.Timer(timeout, end)
            timer.start()
            status = int(self.process.stdout.readline())
            timer.cancel()
            out, err = (Path(names[name]).read_bytes() for name in ("out", "err"))
        if late.is_set():
            raise subprocess.TimeoutExpired(["orchgit", *args], timeout, out, err)
        return os.waitstatus_to_exitcode(status), out, err


_mine = threading.local()


def server() -> Server:
    if not hasattr(_mine, "server"):
        _mine.server = Server()
    made: Server = _mine.server
    return made


def _become(request: Mapping[str, str], args: Sequence[str], env: Mapping[str, str]) -> None:
    """What exec would have done."""
    for number, name, flags in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        fd = os.open(request[name], flags | os.O_CREAT, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["orchgit", *args]


def serve() -> int:
    """One forked process returns from here with its exit code; the server, when nobody asks any more."""
    from orchgit.__main__ import main

    for module in pkgutil.walk_packages(orchgit.__path__, "orchgit."):
        if module.name not in RUN_ALONE and not module.name.startswith("orchgit.demo."):
            import_module(module.name)
    # By number: a forked process gets other files at 0 and 1, and the buffers of sys.stdin hold what is not its own.
    answers = os.dup(1)
    pending = b""
    while data := os.read(0, 1 << 16):
        pending += data
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                os.close(answers)
                _become(request, request["args"], request["env"])
                return main()
            os.write(answers, b"%d\n" % pid)
            _, status = os.waitpid(pid, 0)
            os.write(answers, b"%d\n" % status)
    return 0


if __name__ == "__main__":
    sys.exit(serve())
