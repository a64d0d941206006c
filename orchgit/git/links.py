"""Where a symbolic link leads, read from a tree, name by name as a kernel would: never from a file system.

A link that an assignment may make is relative, and leads from its scope to its scope. What each case means:

    absolute, empty, with a backslash or NUL   refused: it means another thing on another machine, or nothing
    `..` after a name                          refused: then where it leads is for whoever owns that name to say
    above the root of the repository           refused
    through another link, or to one            followed, if that link is in the scope itself; 40 at most, as Linux
    to itself, in a circle                     refused
    into or at a submodule                     refused: its content is not in the tree
    to a file                                  allowed if the file is in the scope (a protected one: named literally)
    to a directory                             allowed if all that could lie in it is in the scope; its deny included
    to a directory that the link lies in       refused: who follows links would never come back
    to what is not there                       refused: what comes to be there has not been judged
"""

from __future__ import annotations

from collections import deque

from orchgit.core.plan import printable
from orchgit.core.scope import Scope
from orchgit.git import trees
from orchgit.git.door import Objects

MAX_TARGET = 4095  # PATH_MAX
MAX_LINKS = 40


def fault(door: Objects, scope: Scope, tree: str, link: bytes, *, complete: bool = True) -> str:
    """Why the link at this path of the tree may not land; "" if it may. `complete`: nothing is to be added to the
    tree; else a link may lead to a path in the scope that is not there yet."""
    here = link.split(b"/")
    ahead = deque([here.pop()])
    followed = 0
    while ahead:
        name = ahead.popleft()
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not here:
                return "the link leads out of the repository"
            here.pop()
            continue
        path = b"/".join([*here, name])
        mode, oid = trees.lookup(door, tree, path) or ("", "")
        if mode == trees.LINK:
            if followed == MAX_LINKS:
                return f"the link leads in a circle, or over more than {MAX_LINKS} links"
            if not scope.allows(path):
                return f"the link leads over {printable(path)}, a link outside the scope"
            target = door.read(oid)[1]
            if why := _target(target):
                return why if followed == 0 else f"the link leads over {printable(path)}: {why}"
            ahead.extendleft(reversed(target.split(b"/")))
            followed += 1
            continue
        here.append(name)
        if not mode and not complete:
            here += [rest for rest in ahead if rest not in (b"", b".")]
            return _outside(scope, b"/".join(here))
        if not mode:
            return f"the link leads to {printable(path)}, which is not there"
        if mode == trees.GITLINK:
            return "the link leads into a submodule"
        if mode != trees.TREE:
            return _outside(scope, path) if not ahead else f"the link leads through {printable(path)}, a file"
    return _directory(scope, link, b"/".join(here))


def _target(text: bytes) -> str:
    if not text or b"\0" in text or len(text) > MAX_TARGET:
        return "the link has no usable target"
    if text.startswith(b"/"):
        return "the link is absolute; a relative one may lead to a path in the scope"
    if b"\\" in text:
        return "the link's target holds a backslash"
    names = [name for name in text.split(b"/") if name not in (b"", b".")]
    while names[:1] == [b".."]:
        names.pop(0)
    if b".." in names:
        return "the link's target has '..' after a name; write the direct way"
    return ""


def _outside(scope: Scope, path: bytes) -> str:
    why = scope.why_not(path)
    return f"the link leads to {printable(path)}, {why}" if why else ""


def _directory(scope: Scope, link: bytes, directory: bytes) -> str:
    if not directory or link.startswith(directory + b"/"):
        return "the link leads to a directory that it lies in"
    if not scope.covers(directory):
        return f"the link leads to {printable(directory)}/, not all of which is in the scope"
    return ""
