"""Reads what a worker left in a cell, inside the cell's own sandbox. A program of its own, no module of the engine:

    python -I -S harvest.py KIND TREE START GIT SPARE INDEX TMP

KIND is `checkout` or `overlay`. TREE is the working tree, or the upper directory of the overlay that it is: that
directory alone is read, never the layers below, and nothing need be mounted. START is the commit the cell began
at, GIT its git directory, SPARE the one that no agent can write, INDEX (of a checkout) the index as it was at first.

Printed are, in this order, and `gate.admit` reads them:

    HEAD "\\n"                       the worker's own HEAD, or START
    LENGTH "\\n"                     of the listing in bytes
    ("-" PATH "\\0" | MODE " " ID "\\t" PATH "\\0")*   what of START is gone at and below PATH; then what is there
    a pack of the new objects       "" when there are none

What the files are is decided with SPARE's configuration, so nothing that an agent configured has a say in it; git
itself reads them (filters, attributes, ignore rules, repositories inside). GIT is only asked for the history.
It must never be taken for the truth: all it prints is what an agent's machine claims.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator

HEAD_S, HISTORY_S = 30, 240  # the history is given up after that, and the files are not
OPAQUE = "user.overlay.opaque"
TREE, LINK, GITLINK = b"40000", b"120000", b"160000"
SETTINGS = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.excludesFile=/dev/null", "core.attributesFile=/dev/null",
    "core.sparseCheckout=false", "gc.auto=0", "maintenance.auto=false", "advice.addEmbeddedRepo=false",
)  # fmt: skip
Entry = tuple[bytes, bytes]  # (mode, object id)


class Unreadable(Exception):
    """The work cannot be taken; git has said why, or the message does."""


class Cell:
    def __init__(self, tree: str, start: str, git: str, spare: str, tmp: str) -> None:
        self.tree, self.start, self.git_dir, self.spare, self.tmp = tree, start, git, spare, tmp
        self.objects = f"{tmp}/objects"  # new ones; nothing that an agent wrote
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self.env = kept | {
            "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": "/dev/null", "GIT_LITERAL_PATHSPECS": "1",
            "GIT_WORK_TREE": tree, "GIT_INDEX_FILE": f"{tmp}/index", "GIT_DIR": spare,
            "GIT_OBJECT_DIRECTORY": self.objects,
        }  # fmt: skip

    def git(self, *args: str, stdin: bytes = b"") -> bytes:
        """One call with the configuration of ours. What it complains of goes to our standard error."""
        done = subprocess.run(git_argv(args), input=stdin, stdout=subprocess.PIPE, env=self.env, cwd=self.tree)
        if done.returncode:
            raise Unreadable
        return done.stdout


def git_argv(args: tuple[str, ...]) -> list[str]:
    return ["git", *(word for setting in SETTINGS for word in ("-c", setting)), *args]


def main(kind: str, tree: str, start: str, git_dir: str, spare: str, index: str, parent: str) -> int:
    # A directory that no agent could name: what lies in the temporary one may be a pipe that blocks, or a lock.
    tmp = f"{parent}/harvest-{os.urandom(8).hex()}"
    os.makedirs(f"{tmp}/objects/info", mode=0o700)
    with open(f"{spare}/objects/info/alternates", "rb") as file, open(f"{tmp}/objects/info/alternates", "wb") as to:
        to.write(file.read())
    cell = Cell(tree, start, git_dir, spare, tmp)
    open_modes(tree)
    try:
        gone, there = of_overlay(cell) if kind == "overlay" else of_checkout(cell, index)
        new = [oid for _, (mode, oid) in there if mode != GITLINK]
        head, pack = pack_history(cell, new) or (start, pack_objects(cell, new))
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    listing = b"".join(b"-%b\0" % path for path in gone)
    listing += b"".join(b"%b %b\t%b\0" % (*entry, path) for path, entry in there)
    out = sys.stdout.buffer
    out.write(b"%b\n%d\n" % (head.encode(), len(listing)) + listing)
    with open(pack, "rb") as file:
        while chunk := file.read(1 << 20):
            out.write(chunk)
    out.flush()
    return 0


def open_modes(tree: str) -> None:
    """What its owner cannot read, git takes for unchanged, or for a reason to give up. It has no say in the modes that
    git keeps."""
    closed = ["-type", "d", "!", "-perm", "-500", "-exec", "chmod", "u+rx", "{}", ";", "-o",
              "-type", "f", "!", "-perm", "-400", "-exec", "chmod", "u+r", "{}", ";"]  # fmt: skip
    subprocess.run(["find", ".", "-name", ".git", "-prune", "-o", *closed], stdout=2, cwd=tree)


def of_checkout(cell: Cell, index: str) -> tuple[list[bytes], list[tuple[bytes, Entry]]]:
    """(what is gone, what is there and was not, or not so), by one look at every file."""
    ours = cell.env["GIT_INDEX_FILE"]
    with open(index, "rb") as file, open(ours, "wb") as to:
        to.write(file.read())
    was = os.stat(index)
    os.utime(ours, ns=(was.st_atime_ns, was.st_mtime_ns))
    cell.git("add", "-A", ".")
    said = cell.git("diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev", cell.start).split(b"\0")
    gone, there = [], []
    for head, path in zip(said[:-1:2], said[1::2], strict=True):
        _, mode, _, oid, letter = head.split(b" ")
        if letter == b"D":
            gone.append(path)
        else:
            there.append((path, (mode, oid)))
    return gone, there


def of_overlay(cell: Cell) -> tuple[list[bytes], list[tuple[bytes, Entry]]]:
    """(what is gone, what lies in the upper directory and git would track), by a look at that directory alone.

    git gets an index with the entries that the upper directory covers and no others. Two sorts of entry stand for files
    that are not there (skip-worktree): the ignore rules and attributes of the base, which it then reads from the index,
    and a name in each directory of the base, so that it goes in where an ignore rule would keep it out.
    """
    known = Trees(cell)
    gone: list[bytes] = []
    tracked: list[tuple[bytes, Entry]] = []
    absent: list[tuple[bytes, Entry]] = []
    token = b"orchgit-" + os.urandom(8).hex().encode()
    null = b"1" * len(cell.start)
    top = os.fsencode(cell.tree)
    todo = [(b"", known.root(cell.start), False)]
    while todo:
        folder, base, hidden = todo.pop()
        names = set()
        for entry in os.scandir(os.path.join(top, folder)):
            names.add(entry.name)
            path = folder + entry.name
            if path == b".git":
                continue
            mode, oid = base.get(entry.name, (b"", b""))
            found = entry.stat(follow_symlinks=False)
            directory = stat.S_ISDIR(found.st_mode)
            file = stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)
            if not mode:
                continue  # new, with all that is below: git alone decides
            if mode == TREE:
                opaque = directory and is_opaque(entry.path)
                if (opaque or not directory) and not hidden:
                    gone.append(path)
                if directory:
                    absent.append((path + b"/" + token, (b"100644", null)))
                    todo.append((path + b"/", known.entries(oid), hidden or opaque))
            elif is_whiteout(found) or (directory and mode != GITLINK):
                gone.append(path)
            elif file or directory:
                tracked.append((path, (mode, oid)))
            else:
                raise Unreadable(f"{os.fsdecode(path)!r} is neither a file nor a link nor a directory")
        for name in (b".gitignore", b".gitattributes"):
            if name in base and name not in names and not hidden:
                absent.append((folder + name, base[name]))
    known.close()
    lines = b"".join(b"%b %b\t%b\0" % (*entry, path) for path, entry in tracked + absent)
    cell.git("update-index", "-z", "--index-info", stdin=lines)
    if absent:
        cell.git("update-index", "--skip-worktree", "-z", "--stdin", stdin=b"".join(b"%b\0" % p for p, _ in absent))
    cell.git("add", "-A")
    not_there = {path for path, _ in absent}
    return gone, [(path, entry) for path, entry in listed(cell) if path not in not_there]


def listed(cell: Cell) -> Iterator[tuple[bytes, Entry]]:
    for line in cell.git("ls-files", "-s", "-z").split(b"\0")[:-1]:
        head, _, path = line.partition(b"\t")
        mode, oid, _ = head.split(b" ")
        yield path, (mode, oid)


def is_whiteout(found: os.stat_result) -> bool:
    """How an overlay keeps that a name below is gone. An agent cannot make one through the mount, and one that it made
    elsewhere is a deletion like any other: the gate judges it."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: bytes) -> bool:
    """How it keeps that nothing below shows through. Set by an agent on the directory itself, round the mount, it is
    what its next mount shows: as if it had deleted all that. Only these two marks are believed: no mount of ours
    follows a redirect or a copy without content, and the kernel's other whiteout (an xattr) is an empty file here."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


class Trees:
    """Trees of the user's repository, by one lasting process."""

    def __init__(self, cell: Cell) -> None:
        self._child = subprocess.Popen(
            git_argv(("cat-file", "--batch")), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=cell.env, cwd="/"
        )

    def root(self, commit: str) -> dict[bytes, Entry]:
        return self.entries(f"{commit}^{{tree}}".encode())

    def entries(self, tree: bytes) -> dict[bytes, Entry]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(tree + b"\n")
        self._child.stdin.flush()
        header = self._child.stdout.readline().split()
        if len(header) != 3 or header[1] != b"tree":
            raise Unreadable(f"the tree {tree.decode()} cannot be read")
        data = self._child.stdout.read(int(header[2]) + 1)[:-1]
        width = len(header[0]) // 2
        found, at = {}, 0
        while at < len(data):
            space = data.index(b" ", at)
            null = data.index(b"\0", space)
            oid = data[null + 1 : null + 1 + width].hex().encode()
            found[data[space + 1 : null]] = (data[at:space].lstrip(b"0"), oid)
            at = null + 1 + width
        return found

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def pack_objects(cell: Cell, new: list[bytes]) -> str:
    """Of what is not in the user's repository. Its path."""
    path = f"{cell.tmp}/pack"
    with open(path, "wb") as to:
        if new and any(len(name) == 2 for name in os.listdir(cell.objects)):
            ids = b"".join(b"%b\n" % oid for oid in dict.fromkeys(new))
            argv = git_argv(("pack-objects", "--local", "--stdout", "-q"))
            if subprocess.run(argv, input=ids, stdout=to, env=cell.env, cwd=cell.tree).returncode:
                raise Unreadable
    return path


def pack_history(cell: Cell, new: list[bytes]) -> tuple[str, str] | None:
    """(the worker's HEAD, the path of a pack with its commits and the new objects); None when it made no commit, or
    its git directory is not sound."""
    path = f"{cell.tmp}/pack-with-history"
    ours = '"' + cell.objects.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    env = cell.env | {
        "GIT_DIR": cell.git_dir, "GIT_OBJECT_DIRECTORY": f"{cell.git_dir}/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": ours,
    }  # fmt: skip
    argv = git_argv(("rev-parse", "-q", "--verify", "HEAD^{commit}"))
    try:
        with open(path, "wb") as to:
            asked = subprocess.run(
                argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, cwd=cell.tree, timeout=HEAD_S
            )
            head = asked.stdout.strip()
            if asked.returncode or head == cell.start.encode():
                return None
            wanted = b"".join(b"%b\n" % line for line in (head, b"^" + cell.start.encode(), *dict.fromkeys(new)))
            # --sparse: look into those trees alone that the commits changed.
            argv = git_argv(("pack-objects", "--revs", "--sparse", "--stdout", "-q"))
            done = subprocess.run(
                argv, input=wanted, stdout=to, stderr=subprocess.DEVNULL, env=env, cwd=cell.tree, timeout=HISTORY_S
            )
    except subprocess.TimeoutExpired:  # its configuration may be a pipe that nobody writes to
        return None
    return None if done.returncode else (head.decode(), path)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
