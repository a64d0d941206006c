"""The tools of the built-in loop, as a program of its own: it is what runs inside the sandbox, without the
key.

`python -I -S toolbox.py --tools read,glob,...` in the working tree; JSON lines on stdin and stdout:
`{"id":1,"tool":"read","input":{...}}` -> `{"id":1,"ok":true,"text":"..."}`. What only reads may be asked for several
times at once, and is answered as it is ready; whoever writes or runs a command waits for the answer first. End of
stdin ends it.

It must never import orchgit (the loop only imports `SPECS` from here), never open a FIFO or a device, never
let a command outlive its call, and never be the thing that enforces a scope: the kernel does that. What is
refused here is refused for the sake of a clear word. Its answers are claims too: a command of the agent's
could write to this program's stdout, and would fool nobody but the agent.
"""

from __future__ import annotations

import _thread  # not threading: it starts with every agent run
import errno
import json
import os
import re
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping

# It starts with every agent run, so `typing` stays out, and what only `bash` needs is imported there.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any, NoReturn

RESULT_CHARS = 30_000
READ_LINES = 2_000
LINE_CHARS = 2_000
FILE_BYTES = 16 << 20  # the largest file that edit and grep load
GLOB_RESULTS = 200
GREP_RESULTS = 200
WALK_S = 30.0  # how long glob and grep may look
BASH_S, BASH_MAX_S = 120, 600
KEPT_BYTES = 128 << 10  # of each end of a command's output, before it is cut down to RESULT_CHARS
# Somebody who watches the tree sees files of this name for an instant: `write` saves by renaming one.
TEMP_PREFIX = ".orchgit-tmp-"

OUT_OF_SCOPE = (
    "permission denied: {path} is outside your scope (or read-only). Your scope: see the brief; "
    "ask for more with the tool request_scope"
)


def _spec(name: str, about: str, required: str, **params: tuple[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind, "description": text} for key, (kind, text) in params.items()}
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return {"name": name, "description": about, "input_schema": {**schema, "additionalProperties": False}}


# The definitions as the Messages API takes them; the same table validates the input below.
SPECS: dict[str, dict[str, Any]] = {
    spec["name"]: spec
    for spec in (
        _spec(
            "read",
            f"Read a text file. At most {READ_LINES} lines at a time, each with its number in front.",
            "path",
            path=("string", "Relative to the working tree."),
            offset=("integer", "First line, from 1."),
            limit=("integer", "How many lines."),
        ),
        _spec(
            "glob",
            f"List paths by pattern, sorted, at most {GLOB_RESULTS}. `**` crosses directories, `*` does not.",
            "pattern",
            pattern=("string", "For example src/**/*.py; a bare *.py matches only the top directory."),
            path=("string", "Directory to start from; default is the working tree."),
        ),
        _spec(
            "grep",
            f"Search file contents, line by line, with a Python regular expression; {GREP_RESULTS} hits.",
            "pattern",
            pattern=("string", "Python regular expression."),
            path=("string", "File or directory; default is the working tree."),
            glob=("string", "Only files whose path, from `path` on, matches, for example **/*.py."),
            ignore_case=("boolean", "Default false."),
        ),
        _spec(
            "bash",
            "Run a shell command in the working tree. Nothing is kept between calls: no cd, no variables, no "
            "background process (all are killed when the command ends). No input, no terminal, no network.",
            "command",
            command=("string", "What bash -c gets."),
            timeout_s=("integer", f"Default {BASH_S}, at most {BASH_MAX_S}."),
        ),
        _spec(
            "write",
            "Create or replace a file, with its parent directories.",
            "path content",
            path=("string", "Relative to the working tree."),
            content=("string", "The whole new content."),
        ),
        _spec(
            "edit",
            "Replace text in a file. old_string must occur exactly once, unless replace_all.",
            "path old_string new_string",
            path=("string", "Relative to the working tree."),
            old_string=("string", "Exactly as in the file, without the line numbers that read shows."),
            new_string=("string", "What to put there."),
            replace_all=("boolean", "Default false."),
        ),
    )
}
TYPES: dict[str, type[Any]] = {"string": str, "integer": int, "boolean": bool}


class Refused(Exception):
    """The call cannot be done; the words go to the agent."""


def shorten(text: str, limit: int = RESULT_CHARS, left_out: int = 0) -> str:
    """Head and tail, and how much was left out between them (`left_out`: bytes that were never collected)."""
    if len(text) <= limit and not left_out:
        return text
    head, tail = text[: limit // 2], text[len(text) - min(limit // 2, len(text) // 2) :]
    return f"{head}\n[... {len(text) - len(head) - len(tail) + left_out} characters left out ...]\n{tail}"


def regular(path: str, *, missing_ok: bool = False) -> os.stat_result | None:
    """Looks before anything is opened: opening a FIFO would block, opening a device may do something."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise Refused(f"no such file: {path}") from None
    if stat.S_ISDIR(info.st_mode):
        raise Refused(f"{path} is a directory" if missing_ok else f"{path} is a directory; use glob to list it")
    if not stat.S_ISREG(info.st_mode):
        raise Refused(f"{path} is not a regular file")
    return info


def opened(path: str) -> int:
    """A descriptor of a regular file, checked again after opening: it may have been swapped."""
    regular(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused(f"{path} is not a regular file")
    return fd


def read(path: str, offset: int = 1, limit: int = READ_LINES) -> str:
    if offset < 1 or limit < 1:
        raise Refused("offset and limit are numbers from 1")
    out: list[str] = []
    used = 0
    with os.fdopen(opened(path), "rb") as file:
        start = file.read(8192)
        if b"\0" in start:
            return f"[binary file, {os.fstat(file.fileno()).st_size} bytes]"
        file.seek(0)
        number = 1
        while raw := file.readline(LINE_CHARS * 4):
            complete = raw.endswith(b"\n")
            if number >= offset:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                shown = f"{number:6d}\t{line[:LINE_CHARS]}"
                if len(line) > LINE_CHARS or not complete:
                    rest = raw
                    dropped = max(0, len(line) - LINE_CHARS)
                    while not complete and (rest := file.readline(1 << 16)):
                        complete = rest.endswith(b"\n")
                        dropped += len(rest) - complete
                    shown += f" [... {dropped} more on this line]" if dropped else ""
                # Pages end at a line: the middle of a file, left out, would be worse than its end.
                if len(out) == min(limit, READ_LINES) or used + len(shown) > RESULT_CHARS - 200:
                    out.append(f"[... more lines; go on with offset={number}]")
                    break
                out.append(shown)
                used += len(shown) + 1
            else:
                while not complete and (rest := file.readline(1 << 16)):
                    complete = rest.endswith(b"\n")
            number += 1
    if not out:
        return "[empty file]" if number == 1 else f"[the file has {number - 1} lines]"
    return "\n".join(out)


def pattern_of(glob: str) -> re.Pattern[str]:
    """`**` is any number of directories; `*` and `?` stay inside a component; [...] too."""
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise Refused("the pattern must be a relative path without ..; use `path` for another directory")
    out = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            out += ".*" if last else "(?:[^/]+/)*"
            continue
        for piece in re.findall(r"\[!?\]?[^]]*\]|\*+|.", part, re.DOTALL):
            if piece[0] == "*":
                out += "[^/]*"
            elif piece == "?":
                out += "[^/]"
            elif piece[0] == "[" and len(piece) > 1:
                inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
                out += "[" + ("^/" + inner[1:] if inner.startswith("!") else inner) + "]"
            else:
                out += re.escape(piece)
        out += "" if last else "/"
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise Refused(f"bad pattern: {error}") from None


def walk(top: str) -> Iterator[tuple[str, bool]]:
    """(path below `top`, is it a directory), sorted, without .git and without following links, for WALK_S."""
    end = time.monotonic() + WALK_S
    stack = [""]
    while stack:
        below = stack.pop()
        if time.monotonic() > end:
            raise Refused(f"gave up after {WALK_S:.0f} s; search a smaller directory with `path`")
        try:
            entries = sorted(os.scandir(os.path.join(top, below)), key=lambda e: e.name)
        except (PermissionError, FileNotFoundError):
            continue
        directories = []
        for entry in entries:
            path = below + entry.name
            is_dir = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git":
                continue
            if is_dir:
                directories.append(path + "/")
            yield path, is_dir
        stack.extend(reversed(directories))


def glob(pattern: str, path: str = ".") -> str:
    wanted = pattern_of(pattern)
    if not os.path.isdir(path):
        raise Refused(f"no such directory: {path}")
    prefix = "" if path == "." else path.rstrip("/") + "/"
    found = sorted(prefix + name + ("/" if is_dir else "") for name, is_dir in walk(path) if wanted.fullmatch(name))
    if len(found) > GLOB_RESULTS:
        found[GLOB_RESULTS:] = [f"[... {len(found) - GLOB_RESULTS} more; use a narrower pattern]"]
    return "\n".join(found) or "[nothing matches]"


def grep(pattern: str, path: str = ".", glob: str = "**", ignore_case: bool = False) -> str:
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise Refused(f"bad regular expression: {error}") from None
    chosen = pattern_of(glob)
    if os.path.isdir(path):
        prefix = "" if path == "." else path.rstrip("/") + "/"
        names: Iterator[str] = (prefix + n for n, is_dir in walk(path) if not is_dir and chosen.fullmatch(n))
    else:
        regular(path)
        names = iter((path,))
    out: list[str] = []
    skipped = 0
    for name in names:
        try:
            with os.fdopen(opened(name), "rb") as file:
                data = file.read(FILE_BYTES + 1)
        except (Refused, OSError):
            skipped += 1
            continue
        if len(data) > FILE_BYTES or b"\0" in data[:8192]:
            skipped += 1
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
            if wanted.search(line):
                if len(out) == GREP_RESULTS:
                    return "\n".join([*out, "[... more matches; narrow the search]"])
                cut = f" [... {len(line) - LINE_CHARS} more]" if len(line) > LINE_CHARS else ""
                out.append(f"{name}:{number}: {line[:LINE_CHARS]}{cut}")
    note = [f"[{skipped} binary, very large or unreadable files skipped]"] if skipped else []
    return "\n".join((out or ["[no match]"]) + note)


def writable(path: str) -> str:
    """The real path to write to. Links are resolved first, so that one inside cannot lead outside."""
    real, root = os.path.realpath(path), os.path.realpath(".")
    if real == root or not real.startswith(root.rstrip("/") + "/"):
        raise Refused(f"permission denied: {path} is outside the working tree; nothing outside it can be written")
    return real


def save(path: str, real: str, data: bytes) -> None:
    info = regular(real, missing_ok=True)
    temp = os.path.join(os.path.dirname(real), f"{TEMP_PREFIX}{os.getpid()}")
    try:
        os.makedirs(os.path.dirname(real), exist_ok=True)
        try:
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError:
            # The scope may be this one literal file, and its directory read-only: write in place.
            return _write_in_place(real, data)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if info is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(info.st_mode))
            os.rename(temp, real)
        except OSError:
            os.unlink(temp)
            # A file that is bind-mounted by itself cannot be renamed over (EBUSY); one may still be open for
            # writing.
            _write_in_place(real, data)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Refused(OUT_OF_SCOPE.format(path=path)) from None
        raise
    return None


def _write_in_place(real: str, data: bytes) -> None:
    fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    with os.fdopen(fd, "wb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(f"{real} is not a regular file")
        file.truncate(0)
        file.write(data)


def encoded(text: str) -> bytes:
    # A model can produce half a surrogate pair in JSON; no file can hold it.
    return text.encode("utf-8", "replace")


def write(path: str, content: str) -> str:
    real = writable(path)
    data = encoded(content)
    save(path, real, data)
    return f"wrote {path}, {len(data)} bytes"


def edit(path: str, old_string: str, new_string: str, replace_all: bool = False) -> str:
    # On bytes, so that what is not UTF-8 elsewhere in the file stays as it is.
    old, new = encoded(old_string), encoded(new_string)
    if not old:
        raise Refused("old_string is empty; use write for a new file")
    if old == new:
        raise Refused("old_string and new_string are the same")
    real = writable(path)
    with os.fdopen(opened(real), "rb") as file:
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise Refused(f"{path} is larger than {FILE_BYTES >> 20} MiB")
    count = data.count(old)
    if count == 0:
        crlf = " The file has CRLF line ends." if b"\r\n" in data and b"\n" in old else ""
        raise Refused(f"old_string does not occur in {path}; read the file and copy the text exactly.{crlf}")
    if count > 1 and not replace_all:
        raise Refused(f"old_string occurs {count} times in {path}; give more context, or replace_all")
    save(path, real, data.replace(old, new))
    return f"edited {path}, {count} place{'s' if count > 1 else ''}"


def clean_env() -> dict[str, str]:
    """The cell's environment has no keys in it to begin with; this is for the day when it does."""
    secret = re.compile(r"ANTHROPIC_.*|.*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)S?(_.*)?", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not secret.fullmatch(name)}


def children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []  # not Linux, or no /proc in the sandbox: whoever started us kills what is left


def end_of(shell: subprocess.Popen[bytes]) -> None:
    """Kill the command's group, then whatever left the group: as subreaper we have become its parent."""
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    shell.wait()
    for _ in range(100):
        left = children()
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError, PermissionError):
                pass


class Kept:
    """Both ends of an output of any length, in bounded memory."""

    def __init__(self) -> None:
        self.head, self.tail, self.dropped = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = max(0, KEPT_BYTES - len(self.head))
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > 2 * KEPT_BYTES:
            self.dropped += len(self.tail) - KEPT_BYTES
            del self.tail[: len(self.tail) - KEPT_BYTES]

    def text(self) -> str:
        if not self.dropped:
            return shorten((self.head + self.tail).decode("utf-8", "replace"))
        ends = self.head.decode("utf-8", "replace") + self.tail.decode("utf-8", "replace")
        return shorten(ends, left_out=self.dropped)


def adopt_orphans() -> None:
    """What a command daemonises becomes our child, so that we can end it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


running: subprocess.Popen[bytes] | None = None


def bash(command: str, timeout_s: int = BASH_S) -> str:
    global running
    if not 1 <= timeout_s <= BASH_MAX_S:
        raise Refused(f"timeout_s is from 1 to {BASH_MAX_S}")
    if "\0" in command:
        raise Refused("the command has a NUL byte in it")
    import subprocess

    adopt_orphans()
    shell = running = subprocess.Popen(
        ["/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", encoded(command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=clean_env(),
    )
    assert shell.stdout is not None
    pipe = shell.stdout.fileno()
    os.set_blocking(pipe, False)
    kept, open_ = Kept(), True
    end = time.monotonic() + timeout_s
    # The shell's end is the command's end, also when something in the background still holds the pipe.
    while shell.poll() is None and time.monotonic() < end:
        if not open_:
            time.sleep(0.01)  # it closed its output and goes on
        elif select.select([pipe], [], [], 0.05)[0]:
            data = os.read(pipe, 1 << 16)
            kept.add(data)
            open_ = bool(data)
    timed_out = shell.poll() is None
    end_of(shell)
    running = None
    for _ in range(32):  # what is still in the pipe; bounded, should a writer have got away
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            break
        if not data:
            break
        kept.add(data)
    shell.stdout.close()
    text = kept.text()
    text += "\n" if text and not text.endswith("\n") else ""
    if timed_out:
        raise Refused(f"{text}[stopped after {timeout_s} s, with everything it had started]")
    return f"{text}[exit code {shell.returncode}]"


TOOLS: dict[str, Callable[..., str]] = {
    "read": read,
    "glob": glob,
    "grep": grep,
    "bash": bash,
    "write": write,
    "edit": edit,
}


PURE = ("read", "glob", "grep")  # what only reads


def checked(tool: str, given: object) -> dict[str, Any]:
    """The input, if it is what the tool's schema says."""
    if not isinstance(given, dict):
        raise Refused(f"the input of {tool} must be an object")
    schema: dict[str, Any] = SPECS[tool]["input_schema"]
    for key, value in given.items():
        if key not in schema["properties"]:
            raise Refused(f"{tool} has no parameter {key!r}; it has {', '.join(schema['properties'])}")
        kind = schema["properties"][key]["type"]
        if type(value) is not TYPES[kind]:
            raise Refused(f"{key} of {tool} must be of type {kind}")
        if key == "path" and (not value or "\0" in value):
            raise Refused("path is empty or has a NUL byte in it")
    missing = [key for key in schema["required"] if key not in given]
    if missing:
        raise Refused(f"{tool} needs {', '.join(missing)}")
    return given


def answer(request: Mapping[str, Any], allowed: frozenset[str]) -> tuple[bool, str]:
    tool = request.get("tool")
    if not isinstance(tool, str) or tool not in TOOLS or tool not in allowed:
        return False, f"{tool} is not available here; you have {', '.join(sorted(allowed)) or 'no tools'}"
    try:
        ok, text = True, TOOLS[tool](**checked(tool, request.get("input")))
    except Refused as refusal:
        ok, text = False, shorten(str(refusal), RESULT_CHARS + 500)
    except PermissionError as error:
        ok, text = False, f"permission denied: {error.filename or tool} cannot be read here"
    except OSError as error:
        ok, text = False, f"{tool} failed: {error}"
    # Names that are not UTF-8 come as half surrogates, which no request body can carry; nor can some carry
    # NUL.
    return ok, text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def main() -> int:
    if len(sys.argv) != 3 or sys.argv[1] != "--tools":
        print("usage: toolbox.py --tools NAME,NAME...  (nothing else is answered)", file=sys.stderr)
        return 2
    allowed = frozenset(sys.argv[2].split(",")) & frozenset(TOOLS)

    def ended(signum: int, frame: object) -> NoReturn:
        if running is not None:
            end_of(running)
        os._exit(128 + signum)

    signal.signal(signal.SIGTERM, ended)
    one_at_a_time = _thread.allocate_lock()

    def serve(request: object) -> None:
        if isinstance(request, dict):
            ok, text = answer(request, allowed)
            reply = {"id": request.get("id"), "ok": ok, "text": text}
        else:
            reply = {"id": None, "ok": False, "text": "not a request"}
        with one_at_a_time:
            try:
                sys.stdout.write(json.dumps(reply) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                os._exit(1)

    for line in sys.stdin.buffer:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if isinstance(request, dict) and request.get("tool") in PURE:
            _thread.start_new_thread(serve, (request,))
        else:
            serve(request)
    return 0


if __name__ == "__main__":
    sys.exit(main())
