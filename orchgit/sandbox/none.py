"""No confinement: the keeper still sweeps up every descendant, but the program may do what its user may.

Used only where it was asked for (--allow-unsandboxed). It must never be called a sandbox to a person.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchgit.sandbox import Confinement, Level, keeper_argv


class Unconfined:
    name = "none"

    def probe(self) -> Level:
        return Level(self.name, "nothing is prevented; descendants are ended", prevented=False)

    def argv(self, confinement: Confinement, argv: Sequence[str]) -> list[str]:
        return keeper_argv(argv, landlock=None, limits=confinement.limits, overlay=confinement.overlay)
