"""A program that stands in for Claude Code or Codex: it is started as they are, and speaks their stream.

`install` writes one executable file, whole, which goes on PATH under the real name. Each time it is started it plays
the next of its turns: Python, with what is defined below at hand. What was really said is in streams/, recorded from
the real programs in our sandbox; `play` says it again, and `last`, `init` and so on change a word of it.
How it was started it writes down in its HOME, in starts.jsonl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STREAMS = Path(__file__).parent / "streams"

BODY = r"""
import json, os, signal, sys, time

HOME, NAME = os.environ["HOME"], os.path.basename(sys.argv[0])
if sys.argv[1:] == ["--version"]:
    print(VERSION)
    sys.exit()
prompt = sys.stdin.read() if READS else ""
notes = os.path.join(HOME, "starts.jsonl")
number = len(open(notes).readlines()) if os.path.exists(notes) else 0
with open(notes, "a") as file:
    names = sorted(os.environ)
    credential = [os.path.join(HOME, name) for name in (".claude/.credentials.json", ".codex/auth.json")]
    kept = [open(path).read() for path in credential if os.path.exists(path)]
    print(json.dumps({"argv": sys.argv[1:], "prompt": prompt, "env": names, "kept": kept}), file=file)
lines = [json.loads(line.replace("${cwd}", os.getcwd())) for line in STREAM.splitlines()]
def arg(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else ""
SESSION = arg("--resume") or arg("--session-id") or (arg("resume") or "thread-1")
def say(line):
    for key in ("session_id", "thread_id"):
        if key in line:
            line[key] = SESSION
    print(json.dumps(line), flush=True)
def play(until=-1):
    for line in lines[:until]:
        say(dict(line))
def init():
    play(1)
def last(code=0, **changed):
    say({**lines[-1], **changed})
    sys.exit(code)
def done():
    play()
    last()
def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(60)
def words(text):
    say({"type": "item.completed", "item": {"id": "m", "type": "agent_message", "text": text}})
def handin(given):
    with open(os.environ["ORCHGIT_RESULT"], "w") as file:
        json.dump(given, file)
exec(TURNS[min(number, len(TURNS) - 1)])
"""


def install(folder: Path, stream: str, *turns: str, reads: bool = True, version: str = "") -> Path:
    """The program, in `folder`. `stream`: the name of a recording, whose first word is the program's."""
    name, _, number = stream.partition("-")
    text = (STREAMS / f"{stream}.jsonl").read_text()
    given = {
        "STREAM": text,
        "TURNS": list(turns or ("done()",)),
        "READS": reads,
        "VERSION": version or f"{number} ({name})",
    }
    program = folder / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!{sys.executable} -I\n" + "".join(f"{k} = {v!r}\n" for k, v in given.items()) + BODY)
    program.chmod(0o755)
    return program


def starts(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home / "starts.jsonl").read_text().splitlines()]
