"""Ways of confining a child. One file per way; this one has what they share, and the table of their names.

Every way runs the program under the keeper (`keeper.py`), which leaves no descendant behind; they differ in
what the kernel prevents meanwhile. Nothing here may claim more than was tried: a `Level` says what the kernel
promises, and `canary.prove` shows, in the very sandbox, that it keeps it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol

from orchgit.core.errors import Kind, OrchgitError
from orchgit.process import Child, Launch, start

GRACE_MS = 5000  # TERM to KILL when the engine died; a living engine's stop(grace_s) cuts it short
TRIAL_S = 60.0  # it takes milliseconds; a machine that stalls must not look like one that cannot


# `loopback` is one of the program's own: it reaches the servers that it starts, and nothing else.
Network = Literal["none", "loopback", "open"]
NETWORKS: tuple[Network, ...] = ("none", "loopback", "open")


@dataclass(frozen=True)
class Overlay:
    """A working tree laid over read-only directories, mounted at `at` before the program is confined.

    `lowers`: what it stands on, topmost first. `upper` takes every change; `work` is the kernel's own, on the same file
    system. Nobody but the kernel writes to the three while it is mounted.
    """

    at: str
    lowers: tuple[str, ...]
    upper: str
    work: str


@dataclass(frozen=True)
class Confinement:
    """What a program may touch. Paths are absolute, exist, and are real (no symbolic link on the way).

    A read-only role has no `writable`, only `tmp`. HOME, if it is to be writable, lies in one of them.
    """

    writable: tuple[str, ...]
    tmp: str  # private temporary directory, writable too
    network: Network = "none"
    terminals: bool = False  # pseudo-terminals: opens /dev/pts, so the user's own terminals too, where ways share it
    limits: tuple[tuple[str, int], ...] = ()  # resource limits by name: nofile, nproc, fsize (bytes), ...
    overlay: Overlay | None = None
    hidden: tuple[str, ...] = ()  # files and directories that are not to be read, where the level can hide them
    readable: tuple[str, ...] = ()  # to be read all the same, where a hidden or a private directory is above them


@dataclass(frozen=True)
class Level:
    """What holds on this machine. The fields after `prevented` say what the canary must find prevented."""

    name: str
    detail: str
    prevented: bool  # the kernel stops writes outside
    networks: tuple[Network, ...] = ("open",)  # what can be enforced
    udp: bool = False  # where the network is cut, UDP is cut too
    abstract: bool = False  # where the network is cut, abstract sockets of programs outside are out of reach
    signals: bool = False  # the engine cannot be signalled
    secrets: bool = False  # files outside can be hidden from reading
    limits: bool = False  # resource limits of the engine cannot be set
    attributes: bool = False  # modes, owners, times and xattrs of files outside cannot be changed
    sockets: bool = False  # socket files in /run, /tmp and the like cannot be connected to

    @property
    def network(self) -> bool:
        """Whether it can be cut."""
        return "none" in self.networks

    def reach(self, wanted: Network) -> Network:
        """What comes of it here. Wider than `wanted` only in a run that was told --allow-unsandboxed."""
        return wanted if wanted in self.networks else "open"


class Sandbox(Protocol):
    """One way of confining."""

    @property
    def name(self) -> str: ...

    def probe(self) -> Level | str:
        """What it gives here, or why it is not available, in words for a person."""

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` confined, as a child of this very process."""


@dataclass(frozen=True)
class Furnished:
    """A way, with what is the same for every program of a run: what is hidden, what stays readable, the limits."""

    way: Sandbox
    level: Level
    hidden: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return self.way.name

    def probe(self) -> Level | str:
        return self.level

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        furnished = replace(
            confinement, network=self.level.reach(confinement.network), hidden=confinement.hidden + self.hidden,
            readable=confinement.readable + self.readable, limits=confinement.limits + self.limits,
        )  # fmt: skip
        return self.way.argv(furnished, argv)


# Strongest first: `best` takes the first that prevents. A new way is a new file and a line here.
SANDBOXES: dict[str, str] = {
    "bwrap+landlock": "orchgit.sandbox.bwrap:BwrapLandlock",
    "landlock": "orchgit.sandbox.landlock:Landlock",
    "bwrap": "orchgit.sandbox.bwrap:Bwrap",
    "seatbelt": "orchgit.sandbox.seatbelt:Seatbelt",
    "none": "orchgit.sandbox.none:Unconfined",
}


def sandbox(name: str) -> Sandbox:
    """By its name in the table; KeyError."""
    module, _, cls = SANDBOXES[name].partition(":")
    made: Sandbox = getattr(import_module(module), cls)()
    return made


def best(allow_unsandboxed: bool, level: str = "") -> tuple[Sandbox, Level]:
    """The strongest that prevents writes outside; OrchgitError (UNAVAILABLE) if there is none.

    With `allow_unsandboxed`, if none prevents, the strongest there is: look at `Level.prevented`.
    `level`: that one, and no other.
    """
    weak: list[tuple[Sandbox, Level]] = []
    reasons: list[str] = []
    for name in (level,) if level else SANDBOXES:
        way = sandbox(name)
        found = way.probe()
        if isinstance(found, str):
            reasons.append(f"{name}: {found}")
        elif found.prevented:
            return way, found
        else:
            weak.append((way, found))
            reasons.append(f"{name}: {found.detail}")
    if allow_unsandboxed and weak:
        return weak[0]
    if level:
        raise OrchgitError(
            Kind.UNAVAILABLE,
            f"The sandbox that is configured does not hold on this machine: {level}.",
            "; ".join(reasons),
            "orchgit doctor shows what does. Set that as level in [sandbox] of .orchestration/config.toml",
        )
    raise OrchgitError(
        Kind.UNAVAILABLE,
        "No sandbox on this machine stops an agent from writing outside its cell.",
        "; ".join(reasons),
        "Use Linux 6.2 or later with Landlock enabled, or accept the risk with --allow-unsandboxed.",
    )


def require_networks(level: Level, wanted: Mapping[str, Network]) -> None:
    """OrchgitError (UNAVAILABLE) when a role is to reach less than this level can see to."""
    beyond = [f"{role} = {network!r}" for role, network in wanted.items() if network not in level.networks]
    if not beyond:
        return
    raise OrchgitError(
        Kind.UNAVAILABLE,
        f"The sandbox here ({level.name}) cannot cut the network as [network] asks: {', '.join(beyond)}.",
        f"It can enforce: {', '.join(level.networks)}. {level.detail}",
        "Ask for one of these in [network] of .orchestration/config.toml, or accept it with --allow-unsandboxed.",
    )


def keeper_argv(
    argv: Sequence[str],
    *,
    landlock: Mapping[str, Any] | None,
    dropped: bool = False,
    network: Network = "open",
    limits: Sequence[tuple[str, int]] = (),
    overlay: Overlay | None = None,
    real: Sequence[str] = (),
    deaf: bool = False,
) -> list[str]:
    """The keeper's command line; its docstring has the words. It runs only as a child of the process that calls this.

    With `landlock`, rights are always `dropped`.
    """
    spec = [f"engine={os.getpid()}", f"grace_ms={GRACE_MS}", *_spec(landlock, dropped, network, limits)]
    spec += [*(f"real={path}" for path in real), *["deaf=yes"] * deaf]
    if overlay:
        spec += [f"at={overlay.at}", f"upper={overlay.upper}", f"work={overlay.work}"]
        spec += [f"lower={path}" for path in overlay.lowers]
    return [*KEEPER, *spec, "--", *argv]


def inner_argv(
    argv: Sequence[str],
    *,
    landlock: Mapping[str, Any] | None,
    network: Network,
    limits: Sequence[tuple[str, int]],
    real: Sequence[str],
) -> list[str]:
    """What runs inside bwrap, under another keeper: drops rights, and execs. `real`: see the keeper's words."""
    spec = ["engine=none", *_spec(landlock, True, network, limits), *(f"real={path}" for path in real)]
    return [*KEEPER, *spec, "--", *argv]


# -I -S: nothing of the user's or the cell's (PYTHONPATH, sitecustomize, .pth) runs before it is confined. Imported, and
# not run as a script, because only then its bytecode is kept: to compile it took as long as all of its imports.
_BOOT = "import sys; sys.path.append(sys.argv[1]); import keeper; keeper.main(sys.argv[2:])"
KEEPER = (sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).parent))


def _spec(
    landlock: Mapping[str, Any] | None, dropped: bool, network: Network, limits: Sequence[tuple[str, int]]
) -> list[str]:
    spec = [f"network={network}", f"rights={'dropped' if dropped or landlock else 'kept'}"]
    spec += [f"limit={name}:{most}" for name, most in limits]
    if landlock is None:
        return [*spec, "landlock=none"]
    spec.append(f"landlock={','.join(map(str, (*landlock['handled'], landlock['size'])))}")
    spec += [f"dir={rights}:{path}" for path, rights in landlock["dirs"]]
    return spec + [f"device={rights}:{path}" for path, rights in landlock["devices"]]


@cache
def loopback_works() -> str:
    """ "" when a program can be given a network of its own without bwrap; or why not, found by trying."""
    argv = keeper_argv(["/bin/true"], landlock=None, network="loopback")
    ended = start(argv, cwd="/", env={"PATH": os.defpath}, sweeps=True).finish(deadline_s=TRIAL_S)
    return "" if ended.returncode == 0 else _reason(ended.stderr)


def _reason(stderr: bytes) -> str:
    said = stderr.decode(errors="replace").strip().removeprefix("orchgit-sandbox: ").removeprefix("SetupError: ")
    return said[-500:] or "it failed without a word"


def overlay_works(directory: str) -> str:
    """ "" when a program can be given an overlay whose changes are kept in `directory`; or why not, found by trying."""
    with TemporaryDirectory(prefix="overlay-", dir=directory) as made:
        root = os.path.realpath(made)
        lower, upper, work, at = (os.path.join(root, name) for name in ("lower", "upper", "work", "at"))
        for folder in (lower, upper, work, at):
            os.mkdir(folder)
        with open(os.path.join(lower, "old"), "w") as file:
            file.write("old")
        # Through the mount: a change of what is below, and a rename over it, which some file systems refuse.
        script = "echo new >> old && echo x > x && mv x old && rm old && mkdir d && echo old > d/old"
        argv = keeper_argv(["/bin/sh", "-c", script], landlock=None, overlay=Overlay(at, (lower,), upper, work))
        ended = start(argv, cwd=at, env={"PATH": os.defpath}, sweeps=True).finish(deadline_s=TRIAL_S)
        if ended.returncode == 0 and os.path.exists(os.path.join(upper, "d", "old")):
            return ""
        return _reason(ended.stderr)


def launcher(way: Sandbox, confinement: Confinement, *, cwd: str, env: Mapping[str, str]) -> Launch:
    """The Launch that agents, checks and harvest get. `env` is complete; see `base_env`."""
    default_cwd = cwd

    def launch(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Child:
        argv = way.argv(confinement, argv)
        return start(argv, cwd=cwd or default_cwd, env={**base, **(env or {})}, sweeps=True)

    base = dict(env)
    return launch


# Of the user's environment a child gets these and no others: where programs are, how to spell, what time it
# is, which certificates to trust, and where the version managers, whose shims are on PATH, keep the real
# programs (they look below HOME otherwise, and HOME is private).
_KEPT = frozenset(
    """
    PATH LANG LANGUAGE TZ USER LOGNAME SHELL
    SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE
    PYENV_ROOT RBENV_ROOT NVM_DIR FNM_DIR VOLTA_HOME ASDF_DIR ASDF_DATA_DIR MISE_DATA_DIR RUSTUP_HOME
    JAVA_HOME GOROOT
    """.split()  # noqa: SIM905
)


def base_env(home: str, tmp: str, *, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a confined child: an allow-list, private HOME, caches and TMPDIR, then `extra`."""
    env = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith("LC_")}
    env.setdefault("PATH", os.defpath)
    env |= {
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/.cache",
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_DATA_HOME": f"{home}/.local/share",
        "XDG_STATE_HOME": f"{home}/.local/state",
        "npm_config_cache": f"{home}/.npm",
        "TMPDIR": tmp,
        "TMP": tmp,
        "TEMP": tmp,
        # Not beside the sources: it may be read-only, or harvested. Nor elsewhere (PYTHONPYCACHEPREFIX): that would
        # leave the bytecode of the libraries unread too, and every check would compile all that it imports.
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "dumb",
        "GIT_TERMINAL_PROMPT": "0",  # the only GIT_* there is
    }
    return env | dict(extra or {})
