"""The levels beside one another: views, networks, what is hidden, limits, overlays; other users, and no namespaces."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import orchgit
from orchgit.git.door import object_stores
from orchgit.sandbox import Confinement, Network, Overlay, bwrap, overlay_works, seatbelt
from orchgit.sandbox.keeper import LIMIT_PASSED
from orchgit.sandbox.secrets import secrets
from tests.edges.test_sandbox import (
    BWRAP,
    PREVENTING,
    SYSTEM_PYTHON,
    WAYS,
    Place,
    needs_bwrap,
    needs_landlock,
    place,  # noqa: F401  # the fixture
)

HIDING = pytest.mark.parametrize(
    "way",
    [pytest.param("bwrap+landlock", marks=[needs_bwrap, needs_landlock]), pytest.param("bwrap", marks=needs_bwrap)],
)
OVERLAY = overlay_works("/var/tmp") if sys.platform.startswith("linux") else "overlays are for Linux"
needs_overlay = pytest.mark.skipif(bool(OVERLAY), reason=OVERLAY)


# ---- what is seen


def test_the_nearest_word_above_a_path_holds_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap, "private", lambda: ["/tmp"])
    monkeypatch.setattr(bwrap, "needed", lambda: ["/usr", "/tmp/venv"])
    cell = Confinement(
        ("/tmp/cells/a/work", "/etc/granted"), "/tmp/cells/a/tmp", readable=("/tmp/cells/a", "/tmp/cells/a/work/read"),
        hidden=("/etc", "/tmp/old", "/tmp/cells/a/key", "/usr/lib"),
    )  # fmt: skip
    monkeypatch.setattr(os.path, "isdir", lambda path: not path.endswith("key"))
    monkeypatch.setattr(os.path, "lexists", lambda path: True)
    assert bwrap.view(cell) == [
        "--tmpfs", "/etc", "--bind", "/etc/granted", "/etc/granted",
        "--tmpfs", "/tmp", "--ro-bind", "/tmp/cells/a", "/tmp/cells/a", "--ro-bind", "/dev/null", "/tmp/cells/a/key",
        "--bind", "/tmp/cells/a/tmp", "/tmp/cells/a/tmp", "--bind", "/tmp/cells/a/work", "/tmp/cells/a/work",
        "--ro-bind", "/tmp/venv", "/tmp/venv", "--tmpfs", "/usr/lib",
        "--remount-ro", "/etc", "--remount-ro", "/tmp", "--remount-ro", "/usr/lib",
    ]  # fmt: skip


def test_a_program_in_a_private_directory_stays_and_does_not_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bins = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (bins / "tools" / "bin").mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{bins}/tools/bin:/tmp/bin:relative:/usr/bin")
        needed = bwrap.needed()
        assert f"{bins}/tools" in needed
        assert not {"/tmp", "/", "relative", "/tmp/bin"} & set(needed)
    finally:
        shutil.rmtree(bins)


@HIDING
def test_hidden_is_hidden_and_what_is_granted_below_it_is_not(place: Place, way: str) -> None:  # noqa: F811
    (place.outside / "keys").mkdir()
    (place.outside / "keys" / "id").write_text("key")
    root = place.cell.parent
    hiding = replace(place.confinement, hidden=(str(place.outside / "keys"), str(place.precious), str(root / "cell")))
    script = (
        "print(listdir(outside + '/keys'), listdir(outside))\n"
        "try: print(read(open(precious, O_RDONLY), 9))\nexcept OSError: print('no')\n"
        "close(open(cell + '/new', O_CREAT)); print(listdir(cell), listdir('/tmp'), listdir('/run'))"
    )
    ended = place.run(script, way=way, confinement=hiding)
    above = str(root).split("/")[2]  # /tmp is empty but for the way to the cell, and to programs that lie in it
    lines = ended.stdout.decode().splitlines()
    assert lines[:2] == ["[] ['precious', 'keys']", "no"] or lines[:2] == ["[] ['keys', 'precious']", "no"], (
        ended.stderr
    )
    assert lines[2].startswith("['new']")
    assert above in lines[2]
    assert (place.cell / "new").exists()


@HIDING
def test_files_of_others_in_tmp_are_not_there(place: Place, way: str) -> None:  # noqa: F811
    with tempfile.NamedTemporaryFile(dir="/tmp") as secret:
        script = f"import os.path; print(os.path.exists({secret.name!r}))"
        assert place.run(script, way=way).stdout == b"False\n"
        assert place.run(script, way="none").stdout == b"True\n"


@HIDING
def test_it_cannot_write_to_what_covers_a_private_directory(place: Place, way: str) -> None:  # noqa: F811
    ended = place.run("open('/tmp/x', O_CREAT)", way=way)
    assert b"Errno" in ended.stderr
    assert ended.returncode == 1


@HIDING
def test_processes_outside_are_not_there(place: Place, way: str) -> None:  # noqa: F811
    ended = place.run("print(sorted(int(n) for n in listdir('/proc') if n.isdigit())[-1] < 50)", way=way)
    assert ended.stdout == b"True\n", ended.stderr


@pytest.mark.skipif(isinstance(BWRAP, str), reason=str(BWRAP))
@needs_landlock
def test_semaphores_and_terminals_of_its_own(place: Place) -> None:  # noqa: F811
    script = "import multiprocessing; multiprocessing.Lock(); print('lock')"
    assert place.start(sys.executable, "-c", script, way="bwrap+landlock").finish(deadline_s=20).stdout == b"lock\n"
    tty = "write(openpty()[1], b'x'); print('tty')"
    granted = replace(place.confinement, terminals=True)
    assert place.run(tty, way="bwrap+landlock", confinement=granted).stdout == b"tty\n"
    assert place.run(tty, way="bwrap+landlock").returncode == 1


def test_secrets_are_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "netrc").write_text("")
    (tmp_path / ".netrc").symlink_to("dotfiles/netrc")
    home = {path for path in secrets(str(tmp_path)) if path.startswith(str(tmp_path))}
    assert home == {f"{tmp_path}/.ssh", f"{tmp_path}/dotfiles/netrc"}  # real: a link cannot be mounted over


def test_objects_that_are_borrowed_stay_readable(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name / "info").mkdir(parents=True)
    (tmp_path / "a" / "info" / "alternates").write_text(f"# no\n../b\n/no/such\n{tmp_path}/c\n")
    (tmp_path / "c" / "info" / "alternates").write_text("../a\n")
    assert {path.name for path in object_stores(tmp_path / "a")} == {"a", "b", "c"}


# ---- roles


@PREVENTING
def test_a_role_that_reads_writes_in_its_temporary_directory_and_nowhere_else(place: Place, way: str) -> None:  # noqa: F811
    reader = replace(place.confinement, writable=())
    script = (
        "close(open(tmp + '/x', O_CREAT | O_WRONLY)); print(read(open(precious, O_RDONLY), 99))\n"
        "for place in (cell, outside, '/tmp', '/var/tmp', '/dev/mqueue', '/'):\n"
        "    try: open(place + '/x', O_CREAT); print(place)\n    except OSError: pass"
    )
    ended = place.run(script, way=way, confinement=reader)
    assert (ended.returncode, ended.stdout) == (0, b"b'precious'\n"), ended.stderr
    assert os.listdir(place.tmp) == ["x"]


@PREVENTING
def test_a_directory_that_became_a_link_grants_nothing(place: Place, way: str) -> None:  # noqa: F811
    (place.cell / "scope").symlink_to(place.outside)
    for confinement in (
        replace(place.confinement, writable=(str(place.cell / "scope"),)),
        replace(place.confinement, writable=(), tmp=str(place.cell / "scope")),
    ):
        ended = place.run("open(precious, O_WRONLY)", way=way, confinement=confinement)
        assert ended.returncode == 125
        assert b"symbolic link" in ended.stderr


# ---- networks

REACH = """
import socket
def tried(kind, port):
    try:
        with socket.socket(socket.AF_INET, kind) as end:
            end.settimeout(2); end.connect(('127.0.0.1', port)); end.send(b'x')
        return True
    except OSError:
        return False
def own():
    try:
        with socket.create_server(('127.0.0.1', 0)) as server:
            return tried(socket.SOCK_STREAM, server.getsockname()[1])
    except OSError:
        return False
print([tried(socket.SOCK_STREAM, PORT), tried(socket.SOCK_DGRAM, MAIL), own()])
"""


@PREVENTING
@pytest.mark.parametrize("network", ["none", "loopback", "open"])
def test_what_a_network_reaches(place: Place, way: str, network: Network) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as mail:
        mail.bind(("127.0.0.1", 0))
        mail.settimeout(0.2)
        script = REACH.replace("PORT", str(server.getsockname()[1])).replace("MAIL", str(mail.getsockname()[1]))
        ended = place.run(script, way=way, confinement=replace(place.confinement, network=network))
        assert ended.returncode == 0, ended.stderr
        tcp, _, own = ast.literal_eval(ended.stdout.decode())
        try:
            arrived = mail.recv(9) == b"x"
        except TimeoutError:
            arrived = False
    assert (tcp, arrived) == (network == "open", network == "open")
    assert own == (network != "none")


@PREVENTING
def test_without_a_network_there_are_no_sockets_but_local_ones(place: Place, way: str) -> None:  # noqa: F811
    script = (
        "import socket; found = []\n"
        "for family in (*range(1, 46),):\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try: socket.socket(family, kind).close(); found.append(family)\n"
        "        except OSError: pass\n"
        "print(sorted(set(found)), ctypes.CDLL(None).syscall(425, 1, bytes(120)))"
    )
    assert place.run(script, way=way).stdout == b"[1, 16] -1\n"


# ---- limits


@WAYS
def test_too_many_processes_end_all_of_them(place: Place, way: str) -> None:  # noqa: F811
    limited = replace(place.confinement, limits=(("processes", 20),))
    script = 'for i in $(seq $0); do sleep 60 & pids="$pids $!"; done; sleep 1; kill $pids; exit 4'
    few = place.start("sh", "-c", script, "5", way=way, confinement=limited).finish(deadline_s=20)
    assert (few.returncode, few.stderr) == (4, b"")
    many = place.start("sh", "-c", script, "40", way=way, confinement=limited).finish(deadline_s=20)
    assert many.returncode == LIMIT_PASSED
    assert b"processes, and the limit is 20: everything was ended" in many.stderr
    assert place.children() == []


@WAYS
def test_too_much_memory_ends_everything(place: Place, way: str) -> None:  # noqa: F811
    limited = replace(place.confinement, limits=(("memory", 200 << 20),))
    own = "import time; b = bytearray({mb} << 20); b[::4096] = b[::4096].replace(b'\\0', b'x')\n"
    # Shared by four processes it is counted once.
    shared = own.format(mb=90) + "[fork() for _ in range(2)]; time.sleep(1)"
    ended = place.run(shared, way=way, confinement=limited)
    assert (ended.returncode, ended.stderr) == (0, b"")
    ended = place.run(own.format(mb=300) + "time.sleep(5)", way=way, confinement=limited)
    assert ended.returncode == LIMIT_PASSED
    assert b"MB of memory, and the limit is 200 MB" in ended.stderr


@WAYS
def test_a_file_has_a_largest_size(place: Place, way: str) -> None:  # noqa: F811
    limited = replace(place.confinement, limits=(("fsize", 4096),))
    place.start("sh", "-c", "head -c 9999 /dev/zero > f", way=way, confinement=limited).finish(deadline_s=10)
    assert (place.cell / "f").stat().st_size == 4096


# ---- overlays


@pytest.fixture
def layers() -> Iterator[Overlay]:
    """Where commas, colons and backslashes would have to be escaped."""
    root = Path(os.path.realpath(tempfile.mkdtemp(dir="/var/tmp", prefix="a,b:c\\d e")))
    for name in ("at", "low", "base", "up", "work"):
        (root / name).mkdir()
    (root / "base" / "d").mkdir()
    (root / "base" / "d" / "f").write_text("base")
    (root / "low" / "top").write_text("low")
    yield Overlay(str(root / "at"), (str(root / "low"), str(root / "base")), str(root / "up"), str(root / "work"))
    shutil.rmtree(root)


def test_overlays_work_or_the_kernel_says_why_not() -> None:
    # Or a fault of ours would only skip the tests below.
    assert not OVERLAY or OVERLAY.startswith(("user namespace: ", "overlay at ", "overlays are for")), OVERLAY


@needs_overlay
@WAYS
@pytest.mark.parametrize("network", ["none", "loopback"])
def test_work_in_an_overlay(place: Place, layers: Overlay, way: str, network: Network) -> None:  # noqa: F811
    at = Path(layers.at)
    laid = replace(place.confinement, overlay=layers, writable=(f"{at}/d",), network=network)
    laid = replace(laid, network="open") if way == "none" else laid
    script = (
        f"chdir({layers.at!r}); print(sorted(listdir('.')), getcwd()); write(open('d/f', O_WRONLY | O_APPEND), b'+')"
    )
    ended = place.run(f"{script}\nopen('top', O_WRONLY)", way=way, confinement=laid)
    assert ended.stdout.decode() == f"['d', 'top'] {layers.at}\n", ended.stderr
    assert (ended.returncode == 0) == (way == "none")  # writable is d/, and nothing else of the mount
    assert Path(layers.upper, "d", "f").read_text() == "base+"
    assert Path(layers.lowers[1], "d", "f").read_text() == "base"
    assert os.listdir(at) == []


@needs_overlay
def test_a_directory_that_became_a_link_is_not_mounted_on(place: Place, layers: Overlay) -> None:  # noqa: F811
    os.rmdir(layers.at)
    os.symlink(place.outside, layers.at)
    ended = place.run("pass", way="none", confinement=replace(place.confinement, overlay=layers))
    assert ended.returncode == 125
    assert b"symbolic link" in ended.stderr


# ---- another user, and a machine without user namespaces

HARNESS = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
from orchgit.sandbox import SANDBOXES, Confinement, Level, base_env, overlay_works, sandbox
from orchgit.sandbox.canary import misses, prove
told = {"uid": os.getuid(), "overlay": overlay_works(sys.argv[2])}
for name in SANDBOXES:
    way = sandbox(name)
    level = way.probe()
    if not isinstance(level, Level):
        told[name] = level
        continue
    base = os.path.realpath(tempfile.mkdtemp(dir=sys.argv[2]))
    for part in ("cell", "tmp", "outside"):
        os.mkdir(os.path.join(base, part))
    tmp, outside = base + "/tmp", base + "/outside"
    open(outside + "/key", "w").write("key")
    confinement = Confinement((base + "/cell",), tmp, hidden=(outside + "/key",))
    probes = prove(way, confinement, env=base_env(tmp, tmp), forbidden=[outside], engine_pid=os.getpid(),
                   secret_path=outside + "/key")
    told[name] = [level.prevented, level.networks, [p.name for p in misses(probes, level)],
                  sorted(p.name.split(" /")[0] for p in probes if p.prevented), level.detail]
print(ascii(told))
"""


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A place that every user reaches, with this package in it: pytest's own is the user's alone."""
    root = Path(os.path.realpath(tempfile.mkdtemp(dir="/var/tmp")))
    root.chmod(0o755)
    shutil.copytree(Path(orchgit.__file__).parent, root / "orchgit", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "place").mkdir()
    (root / "place").chmod(0o777)
    yield root
    shutil.rmtree(root)


def harness(root: Path, *before: str) -> dict[str, object]:
    argv = [*before, SYSTEM_PYTHON, "-B", "-c", HARNESS, str(root), str(root / "place")]
    env = {"PATH": os.defpath, "TMPDIR": "/tmp", "HOME": "/nowhere"}
    done = subprocess.run(argv, env=env, cwd="/", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, object] = ast.literal_eval(done.stdout.decode())
    return told


def python_is_old() -> bool:
    argv = [SYSTEM_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return not os.path.exists(SYSTEM_PYTHON) or subprocess.run(argv, check=False).returncode != 0


needs_system_python = pytest.mark.skipif(python_is_old(), reason=f"needs Python 3.11 as {SYSTEM_PYTHON}")


@needs_landlock
@needs_system_python
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_every_level_holds_for_another_user(everybodys: Path) -> None:
    told = harness(everybodys, "setpriv", "--reuid=4242", "--regid=4242", "--clear-groups")
    assert told["uid"] == 4242
    assert told["overlay"] == OVERLAY
    for way in ("bwrap+landlock", "landlock", "bwrap"):
        if isinstance(found := told[way], str):
            assert isinstance(BWRAP, str) or BWRAP[0] != shutil.which("bwrap"), found
            continue
        assert isinstance(found, list)
        assert (found[0], found[2]) == (True, []), way
        assert {"create", "truncate", "signal", "connect"} <= set(found[3])
        assert ("attributes" in found[3], "secret" in found[3]) == ("bwrap" in way, "bwrap" in way)


@needs_landlock
@needs_system_python
@pytest.mark.skipif(bool(OVERLAY), reason="there are none here anyway")
def test_without_user_namespaces_landlock_holds_and_the_others_say_why(everybodys: Path) -> None:
    # As in a container: this user namespace lets nobody make another one.
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    told = harness(everybodys, "unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    assert "user namespace: No space left on device" in str(told["overlay"])
    assert isinstance(told["bwrap"], str)
    assert "not" in told["bwrap"]
    assert told["bwrap+landlock"] == told["bwrap"]
    found = told["landlock"]
    assert isinstance(found, list)
    assert (found[0], found[1], found[2]) == (True, ("none", "open"), [])
    assert "no loopback network of its own: user namespace: No space left on device" in found[4]


# ---- macOS


def test_the_profile_for_seatbelt() -> None:
    odd = '/w/a "b" \\c) (allow default)'
    text = seatbelt.profile(Confinement((odd, "/w/d"), "/w/tmp", hidden=("/Users/u/.ssh",), readable=("/w",)))
    assert text.splitlines() == [
        "(version 1)",
        "(allow default)",
        "(deny file-write*)",
        "(deny process-info* (target others))",
        "(deny signal)",
        "(allow signal (target same-sandbox))",
        '(deny file-read* (subpath "/Users/u/.ssh"))',
        '(allow file-read* (subpath "/w"))',
        '(allow file-read* file-write* (subpath "/w/a \\"b\\" \\\\c) (allow default)"))',
        '(allow file-read* file-write* (subpath "/w/d"))',
        '(allow file-read* file-write* (subpath "/w/tmp"))',
        *(f'(allow file-write* file-ioctl (literal "{device}"))' for device in seatbelt.DEVICES),
        "(deny network*)",
    ]
    assert "(deny network*)" not in seatbelt.profile(Confinement((), "/t", network="open"))
    local = seatbelt.profile(Confinement((), "/t", network="loopback")).splitlines()
    assert local[-1] == '(allow network-outbound (remote ip "localhost:*"))'
    with pytest.raises(ValueError, match="no path"):
        seatbelt.profile(Confinement(("/a\nb",), "/t"))
    assert isinstance(seatbelt.Seatbelt().probe(), str) or sys.platform == "darwin"
