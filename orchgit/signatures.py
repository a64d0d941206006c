"""SSH signatures on approvals and checkpoints: `ssh-keygen -Y`, namespace `orchgit`. Off unless configured.

A key is a path to a private key, or to a public one whose private half an agent holds. Who may sign is said by
`.orchestration/allowed_signers` (ssh-keygen's own format) on the base branch, so that a run cannot add to it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from orchgit.core.errors import Kind, OrchgitError

NAMESPACE = "orchgit"
ALLOWED = ".orchestration/allowed_signers"


def sign(statement: bytes, key: str, namespace: str = NAMESPACE) -> str:
    """An armoured signature. Raises OrchgitError (USAGE) when the key cannot sign."""
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key]
    try:
        done = subprocess.run(argv, input=statement, capture_output=True, check=False, timeout=60)
        said = done.stderr.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OrchgitError(
            Kind.USAGE, "ssh-keygen cannot be used", str(error), "install OpenSSH 8.2 or newer"
        ) from error
    if done.returncode:
        raise OrchgitError(Kind.USAGE, f"{key} cannot sign", said, "[log] sign in .orchestration/config.toml names it")
    return done.stdout.decode()


def verify(statement: bytes, signature: str, allowed: bytes) -> str:
    """Who signed it, by the names in `allowed`; "" when nobody who is allowed to did."""

    with tempfile.TemporaryDirectory(prefix="orchgit-verify-") as folder:
        signers, signed = Path(folder) / "allowed", Path(folder) / "signature"
        signers.write_bytes(allowed)
        signed.write_text(signature)
        common = ["-n", NAMESPACE, "-f", str(signers), "-s", str(signed)]
        try:
            found = _keygen(["-Y", "find-principals", "-f", str(signers), "-s", str(signed)], b"")
            for who in found.splitlines():
                if _keygen(["-Y", "verify", "-I", who, *common], statement):
                    return who
        except OSError as error:
            raise OrchgitError(Kind.UNSURE, "ssh-keygen cannot be used", str(error), "install OpenSSH") from error
    return ""


def _keygen(args: list[str], data: bytes) -> str:
    """What it said; "" when it said no."""
    done = subprocess.run(["ssh-keygen", *args], input=data, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
