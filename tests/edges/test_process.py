"""Real children: what they write, how they end, and that nothing of them is left."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchgit import process
from orchgit.process import Child, Ended, start

ENV = {"PATH": os.environ.get("PATH", os.defpath)}


def shell(script: str, cwd: str = "/") -> Child:
    return start(["sh", "-c", script], cwd=cwd, env=ENV)


def python(script: str) -> Child:
    return start([sys.executable, "-I", "-S", "-u", "-c", script], cwd="/", env=ENV)


def alive(pid: int) -> bool:
    """False also for a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def test_environment_and_directory_are_exactly_what_was_given(tmp_path: Path) -> None:
    ended = start(["/usr/bin/env"], cwd=str(tmp_path), env={"A": "b"}).finish(deadline_s=5)
    assert ended.stdout == b"A=b\n"
    ended = shell("pwd; echo err >&2; exit 3", str(tmp_path)).finish(deadline_s=5)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, f"{tmp_path}\n".encode(), b"err\n")
    assert not ended.timed_out
    assert not ended.truncated
    assert 0 <= ended.duration_ms < 5000


def test_it_leads_a_session_and_inherits_three_descriptors() -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        child = python("import os; print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')))")
        assert child.finish(deadline_s=5).stdout == b"True ['0', '1', '2', '3']\n"  # 3 is the listing's own
    finally:
        os.close(secret)


def test_programs_and_directories_that_are_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        start(["/no/such/program"], cwd="/", env=ENV)
    with pytest.raises(FileNotFoundError):
        start(["true"], cwd="/no/such/directory", env=ENV)
    with pytest.raises(ValueError, match="null byte"):
        start(["a\0b"], cwd="/", env=ENV)
    assert shell("exit 0").finish(deadline_s=5).returncode == 0  # the spawner lives


def test_stdin_larger_than_every_pipe_goes_through() -> None:
    data = os.urandom(5 << 20)
    ended = start(["cat"], cwd="/", env=ENV).finish(data, deadline_s=20, output_cap=len(data))
    assert ended.stdout == data
    assert not ended.truncated


def test_stdin_that_nobody_reads_is_no_error() -> None:
    assert shell("exec <&-; sleep 0.1; exit 4").finish(bytes(10 << 20), deadline_s=5).returncode == 4


def test_the_deadline_ends_it_and_says_so() -> None:
    ended = shell("echo before; sleep 60").finish(deadline_s=0.3)
    assert (ended.returncode, ended.stdout, ended.timed_out) == (-signal.SIGTERM, b"before\n", True)
    assert 300 <= ended.duration_ms < 2500


def test_the_deadline_holds_while_stdin_is_not_read() -> None:
    ended = shell("sleep 60").finish(bytes(1 << 20), deadline_s=0.3)
    assert ended.timed_out
    assert ended.duration_ms < 2500


def test_who_ignores_term_is_killed_after_the_grace() -> None:
    child = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)")
    assert child.readline(5) == b"up\n"
    before = time.monotonic()
    assert child.stop(0.2).returncode == -signal.SIGKILL
    assert 0.2 <= time.monotonic() - before < 2


def test_the_grace_lets_it_say_goodbye() -> None:
    child = shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done")
    assert child.readline(5) == b"up\n"
    ended = child.stop(5)
    assert (ended.returncode, ended.stdout, ended.timed_out) == (7, b"bye\n", False)
    assert child.stop() == ended  # twice is the same
    assert child.readline(1) == b""
    with pytest.raises(BrokenPipeError):
        child.send(b"x")


def test_a_flood_is_cut_and_does_not_fill_memory() -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = shell("yes | head -c 200M; yes | head -c 50M >&2; echo end >&2").finish(deadline_s=60, output_cap=1000)
    assert ended.returncode == 0  # it was never blocked
    assert ended.stdout == ended.stderr == b"y\n" * 500
    assert ended.truncated
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10


def test_a_cap_that_is_just_met_truncates_nothing() -> None:
    assert not shell("printf 12345").finish(deadline_s=5, output_cap=5).truncated
    ended = shell("printf 12345").finish(deadline_s=5, output_cap=4)
    assert (ended.stdout, ended.truncated) == (b"1234", True)


def test_lines_and_what_a_timeout_interrupts() -> None:
    child = shell("printf ab; sleep 0.4; echo c; printf last")
    with pytest.raises(TimeoutError):
        child.readline(0.1)
    assert child.readline(5) == b"abc\n"
    assert child.readline(5) == b"last"
    assert child.readline(5) == b""
    assert child.finish(deadline_s=5).returncode == 0


def test_a_conversation_beside_a_chatty_stderr() -> None:
    child = shell("while read x; do head -c 5M /dev/zero >&2; echo got $x; done")
    for word in (b"one", b"two", b"three", b"four"):
        child.send(word + b"\n")
        assert child.readline(10) == b"got " + word + b"\n"
    ended = child.finish(deadline_s=5)
    assert (ended.returncode, ended.truncated) == (0, True)


def test_lines_nobody_reads_wait_in_the_child_not_in_memory() -> None:
    child = shell(f"yes {'x' * 999} | head -n 40000")
    time.sleep(0.5)
    buffered = len(child._out)  # type: ignore[attr-defined]
    assert process.LINE_CAP < buffered <= process.LINE_CAP + (1 << 17)
    assert sum(len(child.readline(5)) for _ in range(40000)) == 40_000_000
    assert child.readline(5) == b""
    child.stop()


def test_a_line_without_end_is_an_error() -> None:
    child = shell("head -c 17M /dev/zero")
    with pytest.raises(OSError, match="a line of more than"):
        child.readline(10)
    child.stop()


@pytest.mark.parametrize("blocked_in", ["readline", "finish", "send"])
def test_stop_from_another_thread_releases_who_waits(blocked_in: str) -> None:
    child = shell("sleep 60")
    got: list[object] = []

    def wait() -> None:
        try:
            if blocked_in == "readline":
                got.append(child.readline(60))
            elif blocked_in == "finish":
                got.append(child.finish(deadline_s=60))
            else:
                child.send(bytes(1 << 20))
        except BrokenPipeError as error:
            got.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    ended = child.stop()
    thread.join(2)
    assert not thread.is_alive()
    assert ended.returncode == -signal.SIGTERM
    assert not ended.timed_out
    if blocked_in == "finish":
        assert got == [ended]
    else:
        assert got == [b""] or isinstance(got[0], BrokenPipeError)


def test_the_rest_of_its_group_ends_with_it() -> None:
    ended = shell("sleep 60 & echo $!").finish(deadline_s=5)
    assert ended.duration_ms < 2000
    assert soon(lambda: not alive(int(ended.stdout)))


def test_a_stranger_that_holds_the_pipes_delays_nobody() -> None:
    # Without a keeper a daemon gets away; then at least nobody waits for it.
    ended = shell("setsid sh -c 'echo $$; exec sleep 60' & sleep 0.3; echo done").finish(deadline_s=10)
    pid, word = ended.stdout.split()
    with suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGKILL)
    assert word == b"done"
    assert ended.duration_ms < 3000


def test_a_thread_that_ends_takes_no_child_along() -> None:
    # PR_SET_PDEATHSIG, as the keeper sets it, fires at the end of the thread that forked.
    script = "import ctypes, time; ctypes.CDLL(None).prctl(1, 9); print('up'); time.sleep(60)"
    children: list[Child] = []

    def short() -> None:
        children.append(python(script))
        assert children[0].readline(5) == b"up\n"

    thread = threading.Thread(target=short)
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert alive(children[0].pid)
    assert children[0].stop().returncode == -signal.SIGTERM


def test_nothing_is_left_of_many_children() -> None:
    shell(":").finish(deadline_s=5)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    results: list[Ended] = []
    for _ in range(30):
        child = shell("cat; exit 5")
        results.append(child.finish(b"x", deadline_s=5))
        assert not Path(f"/proc/{child.pid}").exists()  # reaped
    assert {(r.returncode, r.stdout) for r in results} == {(5, b"x")}
    assert soon(lambda: threading.active_count() <= threads)
    assert soon(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_many_at_once() -> None:
    children = [shell(f"sleep 0.1; seq {n} {n + 2000}") for n in range(40)]
    outputs = [child.finish(deadline_s=30).stdout for child in children]
    assert outputs == ["".join(f"{i}\n" for i in range(n, n + 2001)).encode() for n in range(40)]
