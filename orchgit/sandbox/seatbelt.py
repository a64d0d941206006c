"""macOS's seatbelt, by `sandbox-exec`: writes outside the cell fail. NOT TESTED: written without a Mac at hand.

Deprecated by Apple for years, and what browsers and other agents' sandboxes use. There is no keeper on macOS: the
engine ends a program's process group, and a daemon that has left the group outlives it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from orchgit.sandbox import Confinement, Level

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
DEVICES = ("/dev/null", "/dev/zero", "/dev/tty", "/dev/dtracehelper")
TERMINALS = '(allow file-write* file-ioctl (literal "/dev/ptmx") (regex #"^/dev/(tty|pty)[a-z0-9]+$"))'


def quoted(path: str) -> str:
    """A string of the profile's language: in it a quote and a backslash are the only characters with a meaning."""
    if "\0" in path or "\n" in path:
        raise ValueError(f"no path for a sandbox profile: {path!r}")
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def profile(confinement: Confinement) -> str:
    """In it the last rule that matches decides."""
    lines = ["(version 1)", "(allow default)", "(deny file-write*)", "(deny process-info* (target others))"]
    lines += ["(deny signal)", "(allow signal (target same-sandbox))"]
    for path in confinement.hidden:
        lines.append(f"(deny file-read* (subpath {quoted(path)}))")
    for path in confinement.readable:
        lines.append(f"(allow file-read* (subpath {quoted(path)}))")
    for path in (*confinement.writable, confinement.tmp):
        lines.append(f"(allow file-read* file-write* (subpath {quoted(path)}))")
    lines += [f"(allow file-write* file-ioctl (literal {quoted(path)}))" for path in DEVICES]
    lines += [TERMINALS] * confinement.terminals
    if confinement.network != "open":
        lines.append("(deny network*)")
    if confinement.network == "loopback":
        lines += [f'(allow {way} (local ip "localhost:*"))' for way in ("network-bind", "network-inbound")]
        lines.append('(allow network-outbound (remote ip "localhost:*"))')
    return "\n".join(lines)


class Seatbelt:
    name = "seatbelt"

    def probe(self) -> Level | str:
        if sys.platform != "darwin":
            return "seatbelt is part of macOS"
        if not os.access(SANDBOX_EXEC, os.X_OK):
            return f"{SANDBOX_EXEC} is not there"
        detail = "sandbox-exec (not tested by us), daemons can outlive their attempt"
        # Not "loopback": it would be the machine's own, with whatever listens there.
        return Level(
            self.name, detail, prevented=True, networks=("none", "open"), udp=True, signals=True, secrets=True,
        )  # fmt: skip

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        if confinement.overlay:
            raise ValueError("there are no overlays on macOS")
        return [SANDBOX_EXEC, "-p", profile(confinement), *argv]
