"""Answers for audit, read from git objects by id, in the clean-room environment. Nothing here trusts a ref's name to be
what it says, and nothing writes: a replace ref, a filter or a hook of the repository has no say."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from orchgit.core.audit import Changed, Commit
from orchgit.git import trees
from orchgit.git.door import Door, GitError, Missing, Scratch

RUNS, REMOTES, FORKS = "refs/orchgit/runs/", "refs/orchgit/remotes/", "refs/orchgit/forks/"
LOG, BLOBS, SIGNATURE = b"events.jsonl", b"blobs", b"signature"
SIGNERS = b".orchestration/allowed_signers"
Verify = Callable[[bytes, str, bytes], str]  # (statement, signature, allowed signers) -> whose; "" for nobody's
State = Literal["here", "changed", "missing", "elsewhere"]


class GitFacts:
    """`directory`: the run's own, on its machine; None in a clone that only fetched it."""

    def __init__(self, door: Door, run: str, directory: Path | None, verify: Verify | None = None) -> None:
        self._door, self._run, self._directory, self._verify = door, run, directory, verify
        self._commits: dict[str, Commit | None] = {}
        self._logs: dict[str, tuple[str, int] | None] = {}

    # -- objects

    def commit(self, oid: str) -> Commit | None:
        if oid not in self._commits:
            try:
                kind, data = self._door.read(oid)
            except Missing:
                kind, data = b"", b""
            self._commits[oid] = _commit(data) if kind == b"commit" else None
        return self._commits[oid]

    def has(self, oid: str) -> bool:
        try:
            self._door.read(oid)
        except Missing:
            return False
        return True

    def changed(self, old_tree: str, new_tree: str) -> list[Changed] | None:
        try:
            return [
                Changed(c.path, c.old[0] if c.old else "", c.new[0] if c.new else "")
                for c in trees.diff(self._door, old_tree, new_tree)
            ]
        except Missing:
            return None

    def merge_result(self, base: str, head: str, onto: str) -> str | None:
        door = self._door
        try:
            # In memory: who only looks must not mend, by the way, what is missing.
            return trees.carry(Scratch(door), door.tree_of(base), door.tree_of(head), door.tree_of(onto))[0] or None
        except Missing:
            return None

    def blob_id(self, data: bytes) -> str:
        return hashlib.new(self._door.format, b"blob %d\0" % len(data) + data).hexdigest()

    # -- refs

    @cached_property
    def _refs(self) -> dict[str, str]:
        """Those of the run, in one call."""
        patterns = (
            f"refs/heads/orchgit/{self._run}/",
            f"refs/tags/orchgit/{self._run}",
            RUNS,
            REMOTES,
            FORKS,
            "refs/remotes/",
            "refs/replace/",
        )
        listed = self._door.run("for-each-ref", "--format=%(objectname) %(refname)", *patterns, refs=True)
        return {name: oid for oid, name in (line.split(" ", 1) for line in listed.decode().splitlines())}

    def ref(self, name: str) -> str | None:
        if name.startswith(f"refs/heads/orchgit/{self._run}/"):
            return self._refs.get(name)
        return self._door.ref(name)

    def checkpoints(self) -> dict[str, str]:
        own = f"{RUNS}{self._run}"
        return {
            name: oid for name, oid in self._refs.items()
            if name == own or (name.startswith(REMOTES) and name.endswith(f"/{self._run}"))
            or name.startswith(f"{FORKS}{self._run}/")
        }  # fmt: skip

    def pushed(self, commit: str) -> list[str]:
        return [name for name, reached in self._seen_elsewhere.items() if commit in reached]

    @cached_property
    def _seen_elsewhere(self) -> dict[str, frozenset[str]]:
        """Remote-tracking ref -> the commits of the run that it reaches."""
        mine = f"/orchgit/{self._run}/"
        names = [n for n in self._refs if n.startswith(REMOTES) and n.endswith(f"/{self._run}")]
        names += [n for n in self._refs if n.startswith("refs/remotes/") and mine in n]
        found = {}
        for name in names:
            try:
                reached = self._door.run("rev-list", self._refs[name]).decode().split()
            except GitError:
                reached = [self._refs[name]]
            found[name] = frozenset(reached)
        return found

    # -- the published log

    def log_of(self, commit: str) -> tuple[str, int] | None:
        if commit not in self._logs:
            self._measure(commit)
        return self._logs[commit]

    def _measure(self, tip: str) -> None:
        """The logs of a checkpoint and of all before it, with one question about their sizes."""
        blobs: dict[str, str] = {}
        todo, seen = [tip], set(self._logs)
        while todo:
            oid = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            self._logs[oid] = None
            commit = self.commit(oid)
            entry = self._entry(commit.tree, LOG) if commit else None
            if commit and entry:
                blobs[oid] = entry
                todo += commit.parents
        asked = "".join(f"{blob}\n" for blob in blobs.values()).encode()
        said = self._door.run("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin=asked).splitlines()
        for (oid, blob), line in zip(blobs.items(), said, strict=True):
            kind, _, size = line.partition(b" ")
            if kind == b"blob":
                self._logs[oid] = (blob, int(size))

    def _entry(self, tree: str, name: bytes) -> str | None:
        try:
            return trees.entries(self._door, tree).get(name, ("", None))[1]
        except Missing:
            return None

    def log(self) -> bytes | None:
        """The longest log that was published and is here: what there is to judge where the run's directory is not."""
        found = [(self.log_of(oid), name) for name, oid in self.checkpoints().items() if not name.startswith(FORKS)]
        held = max((h for h, _ in found if h), key=lambda h: h[1], default=None)
        return self._door.read(held[0])[1] if held else None

    @cached_property
    def _published(self) -> dict[str, str]:
        """digest -> blob id, of all that the last checkpoints hold."""
        found: dict[str, str] = {}
        for oid in self.checkpoints().values():
            commit = self.commit(oid)
            folder = self._entry(commit.tree, BLOBS) if commit else None
            if folder:
                try:
                    listed = trees.entries(self._door, folder)
                except Missing:
                    continue
                found |= {name.decode("utf-8", "replace"): entry[1] for name, entry in listed.items()}
        return found

    def blob(self, digest: str) -> State:
        copies: list[bytes] = []
        if digest in self._published:
            try:
                copies.append(self._door.read(self._published[digest])[1])
            except Missing:
                return "missing"
        try:
            if self._directory:
                copies.append((self._directory / "blobs" / digest).read_bytes())
        except OSError:
            pass
        if any(hashlib.sha256(data).hexdigest() != digest for data in copies):
            return "changed"
        if copies:
            return "here"
        return "missing" if self._directory else "elsewhere"

    # -- the whole

    def damage(self, tips: Sequence[str], base: str) -> list[str]:
        """Packed and indexed anew, in a place of its own: that hashes every object, and asks fsck's rules of it."""
        door = self._door
        asked = "".join(f"{oid}\n" for oid in (*tips, f"^{base}")).encode()
        try:
            listed = {line[:len(door.null)] for line in door.run("rev-list", "--objects", "--stdin", stdin=asked)
                      .decode("utf-8", "replace").splitlines()}  # fmt: skip
            if not listed:
                return []
            pack = door.run("pack-objects", "--revs", "--stdout", "--no-reuse-object", "-q", stdin=asked)
            with tempfile.TemporaryDirectory(prefix="orchgit-audit-") as folder:
                (Path(folder) / "info").mkdir()
                (Path(folder) / "info" / "alternates").write_text(f"{door.objects}\n")
                env = {"GIT_OBJECT_DIRECTORY": folder}
                name = door.run("index-pack", "--stdin", "--strict", stdin=pack, env=env).split()[-1].decode()
                index = (Path(folder) / "pack" / f"pack-{name}.idx").read_bytes()
                there = {line.split()[1].decode() for line in door.run("show-index", *self._hash, stdin=index)
                         .splitlines()}  # fmt: skip
        except GitError as error:
            return str(error).splitlines()[:10]
        return [f"{oid} is not what its name says" for oid in sorted(listed - there)[:10]]

    @property
    def _hash(self) -> tuple[str, ...]:
        return (f"--object-format={self._door.format}",)

    def replaced(self, tips: Sequence[str], base: str) -> list[str]:
        door = self._door
        swapped = {
            n.removeprefix("refs/replace/"): oid for n, oid in self._refs.items() if n.startswith("refs/replace/")
        }
        try:
            grafts = (door.common / "info" / "grafts").read_text("ascii", "replace").splitlines()
        except OSError:
            grafts = []
        grafted = {line.split(" ")[0] for line in grafts if line and not line.startswith("#")}
        if not swapped and not grafted:
            return []
        asked = "".join(f"{oid}\n" for oid in (*tips, f"^{base}")).encode()
        try:
            listed = door.run("rev-list", "--objects", "--stdin", stdin=asked).decode("utf-8", "replace").splitlines()
        except GitError:
            listed = list(tips)  # git.fsck says what is missing
        ours = {line[: len(door.null)] for line in listed} | {base}
        found = [f"refs/replace/{oid} shows {new} in its place" for oid, new in swapped.items() if oid in ours]
        return found + [f"info/grafts gives {oid} other parents" for oid in sorted(grafted & ours)]

    def sealed(self) -> tuple[str, str] | None:
        try:
            kind, data = self._door.read(self._refs.get(f"refs/tags/orchgit/{self._run}", ""))
        except Missing:
            return None
        head, _, message = data.decode("utf-8", "replace").partition("\n\n")
        # A signature stands below, and is git's to verify.
        message = message.partition("-----BEGIN ")[0]
        return (head.partition("\n")[0].removeprefix("object "), message) if kind == b"tag" else None

    def signature(self, commit: str) -> str:
        made = self.commit(commit)
        entry = self._entry(made.tree, SIGNATURE) if made else None
        try:
            return self._door.read(entry)[1].decode("utf-8", "replace") if entry else ""
        except Missing:
            return ""

    def signed(self, base: str, statement: bytes, signature: str) -> str | None:
        if self._verify is None:
            return None
        try:
            entry = trees.lookup(self._door, self._door.tree_of(base), SIGNERS)
            allowed = self._door.read(entry[1])[1] if entry else b""
        except Missing:
            return None
        return self._verify(statement, signature, allowed)


def _commit(data: bytes) -> Commit:
    head, _, message = data.partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition(" ")
        fields.setdefault(key, []).append(value)
    author, when = _person(fields.get("author", [""])[0])
    committer, _ = _person(fields.get("committer", [""])[0])
    tree = fields.get("tree", [""])[0]
    return Commit(
        tree, tuple(fields.get("parent", ())), message.decode("utf-8", "replace"), author, committer, when
    )  # fmt: skip


def _person(value: str) -> tuple[str, str]:
    """("name <mail>", UTC time) of an author or committer line; "" for a time that is none."""
    who, _, when = value.rpartition("> ")
    seconds, _, _ = when.partition(" ")
    if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 11:
        return value, ""
    return f"{who}>", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds)))


def author_of(door: Door, oid: str) -> str:
    """ "name <mail>" of a commit that is here."""
    return _commit(door.read(oid)[1]).author
