"""The log as commits: on `refs/orchgit/runs/<run>`, at every merge and at the end; pushed, fetched, read from there.

A checkpoint is a commit. Its tree:

    events.jsonl    the lines of the log, byte for byte, up to and with the event it is for
    blobs/<sha256>  what of the blobs is published: configuration and issue, with `[log] publish_all` all of them; the
                    plan, reports, findings and answers are in the events themselves
    signature       with `[log] sign`: armoured SSH signature over `events.checkpoint_statement`, namespace `orchgit`

Its parents are the checkpoint before it, if any, and the tip of the integration branch at that event; its message has
the trailers `Orchgit-Run` and `Orchgit-Log: <seq>@sha256:<hash>`; author, committer and date are the engine's and that
event's. It ends with one of `events.MILESTONES`, the last of them the seal of the run, or with a push to a forge, which
takes the log with it. So it is a function of the log (but for a signature), and what is done again after a crash is the
same: nobody has to ask for it first, and the note `log.checkpointed` says that it is there.

The ref only ever moves to a longer log with the same beginning, here and on a remote. Two different events at one
sequence number are never reconciled: both heads are kept, the other one on `refs/orchgit/forks/<run>/<commit>`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from orchgit import signatures
from orchgit.core import events as e
from orchgit.core.errors import Kind, OrchgitError
from orchgit.core.run import Run
from orchgit.eventlog import Store, all_runs, pick, runs_dir
from orchgit.git import merges
from orchgit.git.door import IDENTITY, Door, GitError, Missing

RUNS = "refs/orchgit/runs/"
FORKS = "refs/orchgit/forks/"
REMOTES = "refs/orchgit/remotes/"
INCOMING = "refs/orchgit/incoming/"
LOG, BLOBS, SIGNATURE = b"events.jsonl", b"blobs", b"signature"


def refspec(remote: str) -> str:
    """What `init` adds, so that `git fetch` brings the logs of others.

    No `+`: with one, a remote that rewrites a log would silently replace what was fetched before. And not into
    `refs/orchgit/runs/`: our own run is ahead of what we pushed of it, and each fetch would be refused as going back.
    """
    return f"{RUNS}*:{REMOTES}{remote}/*"


# -- writing ---------------------------------------------------------------------------------------------


def due(run: Run) -> bool:
    """Whether a checkpoint is to be made. One that could not be published is not tried again before the next is due."""
    tried = run.checkpoint.seq if run.checkpoint else -1
    return run.milestone > tried


def checkpoint(
    door: Door, store: Store, run: Run, *, everything: bool, key: str, tag: bool = False
) -> e.LogCheckpointed:
    """Publish the log up to the run's last milestone; the note to log. Made already, it is found and not made again.

    `tag`: of a run that completed, first a tag of its seal (`tag_of`).
    """
    events = store.read()[: run.milestone + 1]
    last = events[-1]
    ref = RUNS + run.id

    def unpublished(why: str) -> e.LogCheckpointed:
        return e.LogCheckpointed(last.seq, last.hash, "", why[:1000])

    lines = b"".join(event.line for event in events)
    try:
        found = door.ref(ref)
        before = found or (run.checkpoint.commit if run.checkpoint else "")
        there = _log_at(door, before) if before else b""
        if there is None:
            before, there = "", b""  # somebody deleted its objects: the events are all here
        if tag and isinstance(last.body, e.RunCompleted):
            _tag(door, run, last, key)
        if there.startswith(lines) and found:
            return e.LogCheckpointed(last.seq, last.hash, found)
        if not lines.startswith(there):
            return unpublished(f"{ref} was moved to {before}, which holds another log")
        parents = tuple(dict.fromkeys(p for p in (before, run.tip) if p))
        door.tree_of(run.tip)
        commit = _build(door, store, run, events, lines, parents, everything=everything, key=key)
        door.barrier()
        door.swap([(ref, commit, found or "")], "orchgit: checkpoint")
        door.barrier()
    except (GitError, Missing) as error:
        return unpublished(f"git could not take it: {error}")
    except OrchgitError as error:
        return unpublished(f"{error.what}: {error.why}")
    return e.LogCheckpointed(last.seq, last.hash, commit)


def _build(
    door: Door, store: Store, run: Run, events: Sequence[e.Event], lines: bytes, parents: tuple[str, ...],
    *, everything: bool, key: str,
) -> str:  # fmt: skip
    last = events[-1]
    kept = {}
    for digest in published(events, everything=everything):
        if digest not in run.redacted and store.has(digest):
            kept[digest.encode()] = ("100644", door.write(b"blob", store.blob(digest)))
    entries = {LOG: ("100644", door.write(b"blob", lines))}
    if kept:
        entries[BLOBS] = ("40000", _tree(door, kept))
    if key:
        statement = e.checkpoint_statement(run.id, last.seq, last.hash)
        entries[SIGNATURE] = ("100644", door.write(b"blob", signatures.sign(statement, key).encode()))
    trailers = {"Orchgit-Run": run.id, "Orchgit-Log": f"{last.seq}@sha256:{last.hash}"}
    text = merges.message(f"Log of run {run.id}, {last.seq + 1} events", "", trailers)
    return door.write_commit(_tree(door, entries), parents, text, merges.git_date(last.time))


def tag_of(run: str) -> str:
    return f"refs/tags/orchgit/{run}"


def _tag(door: Door, run: Run, last: e.Event, key: str) -> None:
    """On the seal, for who reads git and no log; it names the event that the run ended with. Signed as git signs, so
    that `git verify-tag` can tell. One that is there and says the same stays."""
    ref = tag_of(run.id)
    trailers = {"Orchgit-Run": run.id, "Orchgit-Log": f"{last.seq}@sha256:{last.hash}"}
    head = f"object {run.tip}\ntype commit\ntag orchgit/{run.id}\ntagger {IDENTITY} {merges.git_date(last.time)}\n\n"
    text = (head + merges.message(f"Run {run.id}, completed", "", trailers)).encode()
    found = door.ref(ref)
    if found and door.read(found)[1].startswith(text):
        return
    made = door.write(b"tag", text + (signatures.sign(text, key, namespace="git").encode() if key else b""))
    door.barrier()
    door.swap([(ref, made, "")], "orchgit: sealed")


def _tree(door: Door, entries: Mapping[bytes, tuple[str, str]]) -> str:
    ordered = sorted(entries.items(), key=lambda item: item[0] + (b"/" if item[1][0] == "40000" else b""))
    return door.write(b"tree", b"".join(m.encode() + b" " + n + b"\0" + bytes.fromhex(o) for n, (m, o) in ordered))


def published(events: Iterable[e.Event], *, everything: bool) -> tuple[str, ...]:
    """Digests of the blobs that a checkpoint of these events holds."""
    found: list[str] = []
    for event in events:
        body = event.body
        if isinstance(body, e.RunStarted):
            found.append(body.config)
        elif isinstance(body, e.IssueRead):
            found.append(body.text)
        elif everything:
            found += local(body)
    return tuple(dict.fromkeys(d for d in found if d))


def local(body: e.Body) -> list[str]:
    """Digests of the blobs that stay on the machine of the run unless it is configured otherwise."""
    match body:
        case e.AgentStarted():
            return [body.brief]
        case e.AgentExited():
            return [body.transcript]
        case e.ChecksPassed() | e.ChecksFailed():
            return [r.output for r in body.results]
        case e.ForgeDone():
            return [body.text]
    return []


# -- reading ---------------------------------------------------------------------------------------------


def _entries(door: Door, tree: str) -> dict[bytes, tuple[str, str]]:
    kind, data = door.read(tree)
    if kind != b"tree":
        raise Missing(tree)
    size, found = len(door.null) // 2, {}
    while data:
        head, _, rest = data.partition(b"\0")
        mode, _, name = head.partition(b" ")
        found[name] = (mode.decode(), rest[:size].hex())
        data = rest[size:]
    return found


def _log_at(door: Door, commit: str) -> bytes | None:
    """The events that a checkpoint holds, as bytes; None for what is no checkpoint, or is not all there."""
    try:
        entry = _entries(door, door.tree_of(commit)).get(LOG)
        kind, data = door.read(entry[1]) if entry else (b"", b"")
    except Missing:
        return None
    return data if kind == b"blob" else None


class Published(Store):
    """A run that was fetched: read from a checkpoint, without a directory of its own. Nobody can write to it."""

    def __init__(self, common: Path, run: str, door: Door, commit: str) -> None:
        super().__init__(runs_dir(common) / run)
        self.door, self.commit = door, commit

    def raw(self) -> list[bytes]:
        data = _log_at(self.door, self.commit)
        if data is None:
            raise OrchgitError(
                Kind.UNSURE, f"the log of run {self.run} is not whole here", f"commit {self.commit} is no checkpoint",
                "orchgit fetch",
            )  # fmt: skip
        return data.split(b"\n")[:-1]

    def has(self, digest: str) -> bool:
        return digest.encode() in self._blobs()

    def blob(self, digest: str) -> bytes:
        entry = self._blobs().get(digest.encode())
        if entry is None:
            raise OrchgitError(Kind.UNSURE, f"blob {digest} is not here", "it stayed on the machine of the run")
        data = self.door.read(entry[1])[1]
        if hashlib.sha256(data).hexdigest() != digest:
            raise OrchgitError(Kind.NO, f"blob {digest} was changed", f"in commit {self.commit}")
        return data

    def _blobs(self) -> dict[bytes, tuple[str, str]]:
        try:
            entry = _entries(self.door, self.door.tree_of(self.commit)).get(BLOBS)
            return _entries(self.door, entry[1]) if entry else {}
        except Missing:
            return {}


def signature_of(door: Door, commit: str) -> str:
    """The armoured signature of a checkpoint; "" for none."""
    try:
        entry = _entries(door, door.tree_of(commit)).get(SIGNATURE)
        return door.read(entry[1])[1].decode("utf-8", "replace") if entry else ""
    except Missing:
        return ""


def heads(door: Door, run: str = "") -> dict[str, list[str]]:
    """Run -> its checkpoints' refs here, our own first, then what `git fetch` brought."""
    listed = door.run("for-each-ref", "--format=%(refname)", RUNS, REMOTES, refs=True).decode().split()
    found: dict[str, list[str]] = {}
    for ref in sorted(listed, key=lambda r: (not r.startswith(RUNS), r)):
        name = ref.rpartition("/")[2]
        if run in ("", name):
            found.setdefault(name, []).append(ref)
    return found


def stores(common: Path, kind: str = "") -> list[Store]:
    """Every run of this repository, with a directory or fetched, newest first."""
    here = all_runs(common)
    known = {s.run for s in here}
    door = Door(common, kind or object_format(common))
    for name, refs in heads(door).items():
        commit = door.ref(refs[0]) if name not in known else None
        if commit:
            here.append(Published(common, name, door, commit))
    return sorted(here, key=lambda s: s.run, reverse=True)


def object_format(common: Path) -> str:
    """Of the repository, from its own configuration."""
    try:
        text = (common / "config").read_text("utf-8", "replace").lower().replace(" ", "")
    except OSError:
        return "sha1"
    return "sha256" if "objectformat=sha256" in text else "sha1"


def find(common: Path, name: str | None) -> Store:
    """A run by its name, or by the beginning of it; the newest when no name is given. One with a directory needs no git
    process to be found."""
    here = all_runs(common)
    if here and (not name or name in {run.run for run in here}):
        return pick(here, name)
    return pick(stores(common), name)


# -- remotes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fetched:
    """What became of one run of a remote. `state`: new, longer, same, shorter, forked, unreadable."""

    run: str
    state: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.state in ("forked", "unreadable")


def forked_at(ours: bytes, theirs: bytes) -> int | None:
    """The sequence number at which two logs differ; None where one is the beginning of the other."""
    if ours.startswith(theirs) or theirs.startswith(ours):
        return None
    pairs = zip(ours.split(b"\n"), theirs.split(b"\n"), strict=False)
    return next(n for n, (a, b) in enumerate(pairs) if a != b)


def fetch(door: Door, root: Path, remote: str) -> list[Fetched]:
    """Bring the logs of a remote. Everything is judged here; git only transports."""
    folder = f"{INCOMING}{hashlib.sha256(remote.encode()).hexdigest()[:12]}/"
    _git(
        root, "-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=",
        "--prune", "--no-auto-maintenance", "--no-recurse-submodules", remote, f"+{RUNS}*:{folder}*",
    )  # fmt: skip
    listed = door.run("for-each-ref", "--format=%(refname) %(objectname)", folder, refs=True).decode().splitlines()
    found = []
    for line in listed:
        ref, commit = line.split(" ")
        found.append(_take(door, remote, ref.rpartition("/")[2], commit))
        door.swap([(ref, door.null, commit)], "orchgit: fetched")
    door.barrier()
    return found


def _take(door: Door, remote: str, run: str, commit: str) -> Fetched:
    theirs = _log_at(door, commit)
    try:
        named = e.envelope(theirs.split(b"\n", 1)[0])["run"] if theirs else ""
    except e.LineError:
        named = ""
    if theirs is None or named != run:
        return Fetched(run, "unreadable", f"{commit} is no checkpoint of this run")
    ours = _ours(door, run)
    for where, known in ours.items():
        seq = forked_at(known, theirs)
        if seq is not None:
            kept = f"{FORKS}{run}/{commit[:12]}"
            door.swap([(kept, commit, None)], "orchgit: two logs of one run")
            what = f"event {seq} is not the one that {where} has; theirs is kept on {kept}"
            return Fetched(run, "forked", what)
    store = runs_dir(door.common) / run
    if store.exists() and len(theirs) > len(ours.get("the log here", b"")):
        return Fetched(run, "forked", f"{remote} has events that the log here has lost; theirs is on {commit}")
    longest = max(map(len, ours.values()), default=0)
    if len(theirs) <= longest:
        return Fetched(run, "same" if len(theirs) == longest else "shorter")
    old = door.ref(RUNS + run)
    door.swap([(RUNS + run, commit, old or "")], "orchgit: fetched")
    return Fetched(run, "longer" if ours else "new", f"{theirs.count(bytes([10]))} events")


def _ours(door: Door, run: str) -> dict[str, bytes]:
    """Every version of a log that is here, by where it is."""
    found = {}
    path = runs_dir(door.common) / run / "events.jsonl"
    if path.exists():
        found["the log here"] = path.read_bytes()
    for ref in heads(door, run).get(run, []):
        data = _log_at(door, door.ref(ref) or "")
        if data is not None:
            found[ref] = data
    return found


def push(door: Door, root: Path, run: str, remote: str, branches: Sequence[str]) -> list[str]:
    """Push branches of a run and its log to a remote, all or none; the refs that were moved. Nothing is ever forced:
    what the remote has must be in what we have, and must still be there when it is moved."""
    sealed = [tag_of(run)] if door.ref(tag_of(run)) else []
    wanted = {}
    for ref in (RUNS + run, *sealed, *branches):
        ours = door.ref(ref)
        if ours is None:
            raise OrchgitError(Kind.NO, f"{ref} is not here", "there is nothing to push", f"orchgit status {run}")
        wanted[ref] = ours
    return send(door, root, remote, wanted)


def send(
    door: Door, root: Path, remote: str, wanted: Mapping[str, str], env: Mapping[str, str] = MappingProxyType({}),
    *, judged: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:  # fmt: skip
    """As `push`: have each of these refs of a remote hold this commit. `env`: what the remote wants on top of the
    user's own. A push whose answer was lost is seen to have been done. `judged`: what somebody
    else pushed and we took over, in a commit of our own: that one is replaced."""
    there = _there(root, remote, wanted, env)
    moved = [ref for ref, ours in wanted.items() if there.get(ref) != ours]
    for ref in moved:
        ours, theirs = wanted[ref], there.get(ref, "")
        if theirs and theirs != judged.get(ref) and not holds(door, ours, theirs):
            why = f"{remote} has {theirs} there, which is not part of what is here ({ours})"
            raise OrchgitError(Kind.NO, f"{ref} cannot be pushed", why, f"orchgit fetch {remote} says more")
    leases = [f"--force-with-lease={ref}:{there.get(ref, '')}" for ref in moved]
    specs = [f"{wanted[ref]}:{ref}" for ref in moved]
    if moved:
        try:
            _git(root, "push", "--quiet", "--atomic", *leases, remote, *specs, env=env)
        except OrchgitError:
            if any(_there(root, remote, wanted, env).get(ref) != wanted[ref] for ref in moved):
                raise
    return moved


def bring(root: Path, remote: str, ref: str, into: str, env: Mapping[str, str]) -> None:
    """Fetch one ref of a remote."""
    _git(
        root, "-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=",
        "--no-auto-maintenance", "--no-recurse-submodules", remote, f"+{ref}:{into}", env=env,
    )  # fmt: skip


def remote_ref(root: Path, remote: str, ref: str, env: Mapping[str, str]) -> str:
    """Where a ref of a remote stands; "" for nowhere."""
    return _there(root, remote, [ref], env).get(ref, "")


def _there(root: Path, remote: str, refs: Iterable[str], env: Mapping[str, str]) -> dict[str, str]:
    said = _git(root, "ls-remote", remote, *refs, env=env).decode()
    return {ref: oid for oid, _, ref in (line.partition("\t") for line in said.splitlines())}


def holds(door: Door, tip: str, commit: str) -> bool:
    """Whether `commit` is part of `tip`. One that is not here is not."""
    try:
        door.run("merge-base", "--is-ancestor", commit, tip)
    except GitError:
        return False
    return True


def follow(root: Path) -> list[tuple[str, bool]]:
    """Let `git fetch` bring the logs too, from every remote; (remote, whether that was new)."""
    done = []
    for remote in _git(root, "remote").decode().split("\n")[:-1]:
        key = f"remote.{remote}.fetch"
        there = _git(root, "config", "--local", "--get-all", key, missing=True).decode().split("\n")
        new = refspec(remote) not in there
        if new:
            _git(root, "config", "--local", "--add", key, refspec(remote))
        done.append((remote, new))
    return done


def _git(root: Path, *args: str, missing: bool = False, env: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The user's git, with the user's configuration: remotes, keys and proxies are theirs. `missing`: exit code 1 says
    that there is nothing."""
    env = {**os.environ, **env, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    argv = ["git", "-c", "core.fsync=all", *args]
    done = subprocess.run(argv, cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode and not (missing and done.returncode == 1):
        words = next(a for a in args if a in ("fetch", "push", "ls-remote", "remote", "config"))
        said = done.stderr.decode("utf-8", "backslashreplace").strip()[-2000:]
        raise OrchgitError(Kind.UNAVAILABLE, f"git {words} did not work", said, "git remote -v")
    return done.stdout
