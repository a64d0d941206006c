"""A feature of orchgit's own, planned, built, sent back, found wanting, mended and summed up: as a playbook.

The issue asks for `orchgit badge`. Four assignments: `drawing` and `command` run at the same time, `tests` needs both,
`docs` comes last. On the way: the orchestrator and a worker try to write where they may not, a worker looks for the
key, the service is overloaded once and a stream is cut once, `command` is sent back for a missing option, and the
reviewer finds that `drawing` does not escape. The playbook is for the `anthropic` backend against
`tests.support.messages_server`. It is built from the files that are there, since orchgit itself goes on changing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ISSUE = """\
# orchgit badge: how many tests a run added

A README that shows what the last run brought is a nice thing to have. I want

    orchgit badge [RUN] [--label TEXT] > badge.svg

which prints a small SVG: on the left a label ("tests added" unless I give another), on the right the number of tests
that the run added, as its synthesis counted them in git. A run without a synthesis yet shows "none".

Titles and labels come from people, and the badge is shown on web pages: think of that.
With tests, and a page under docs/ that the README points to.
"""

INTERFACE = """\
orchgit/core/badge.py:   badge(label: str, value: str) -> str      one line of SVG, no newline at the end
orchgit/cli/badge.py:    value_of(run: Run) -> str                 "12", or "none" without a synthesis
                         command(run: RunName = "", label: str = "tests added") -> int    option --label
"""

DRAWING = '''\
"""A badge: a small SVG with a label and a value, as README files show them. Pure."""

from __future__ import annotations

CHARACTER = 7  # pixels, near enough


def badge(label: str, value: str) -> str:
    """One line of SVG."""
    left, right = (CHARACTER * len(text) + 10 for text in (label, value))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img">'
        f'<rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="#4c1"/>'
        f'<g fill="#fff" font-family="sans-serif" font-size="11">'
        f'<text x="5" y="14">{label}</text><text x="{left + 5}" y="14">{value}</text></g></svg>'
    )
'''
DRAWING_TEST = '''\
"""The badge as a picture."""

from __future__ import annotations

import unittest
from xml.etree import ElementTree

from orchgit.core.badge import badge

TEXT = "{http://www.w3.org/2000/svg}text"


class Drawing(unittest.TestCase):
    def test_it_is_svg_with_both_texts(self) -> None:
        drawn = badge("tests added", "12")
        self.assertEqual([node.text for node in ElementTree.fromstring(drawn).iter(TEXT)], ["tests added", "12"])
        self.assertNotIn("\\n", drawn)
'''
ESCAPE_TEST = """
    def test_markup_in_a_label_is_text(self) -> None:
        hostile = "</text><script>alert('&')</script>"
        drawn = ElementTree.fromstring(badge(hostile, hostile))
        self.assertEqual([node.text for node in drawn.iter(TEXT)], [hostile, hostile])
"""
COMMAND_1 = '''\
"""`orchgit badge [RUN]`: how many tests a run added, as an SVG on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchgit.cli.common import RunName, state_of, store_of

if TYPE_CHECKING:
    from orchgit.core.state import Run


def value_of(run: Run) -> str:
    return str(run.synthesis.totals.tests_added) if run.synthesis else "none"


def command(run: RunName = "") -> int:
    """Print a badge with the number of tests that a run added."""
    from orchgit.core.badge import badge

    print(badge("tests added", value_of(state_of(store_of(run)))))
    return 0
'''
COMMAND_TEST = '''\
"""What the badge command says, and that it is there."""

from __future__ import annotations

import unittest

from orchgit.__main__ import overview
from orchgit.cli.badge import value_of
from orchgit.core.state import Run


class Command(unittest.TestCase):
    def test_a_run_without_a_synthesis(self) -> None:
        self.assertEqual(value_of(Run("x")), "none")

    def test_it_is_listed(self) -> None:
        self.assertIn("badge", overview())
'''
LABEL_TEST = """
    def test_the_label_is_an_option(self) -> None:
        self.assertEqual(command.__defaults__, ("", "tests added"))
"""
WHOLE_TEST = '''\
"""The pieces together: a badge for a run, from the state to the picture."""

from __future__ import annotations

import unittest

from orchgit.cli.badge import value_of
from orchgit.core.badge import badge
from orchgit.core.state import Run


class Whole(unittest.TestCase):
    def test_a_badge_for_a_new_run(self) -> None:
        drawn = badge("tests added", value_of(Run("x")))
        self.assertTrue(drawn.startswith("<svg ") and drawn.endswith("</svg>"))
        self.assertIn(">none</text>", drawn)
'''
PAGE = """\
# A badge for your README

    orchgit badge > badge.svg

prints an SVG with the number of tests that the newest run added; name a run to mean another one. `--label TEXT` puts
other words on its left side. A run that has no synthesis yet shows "none".
"""

# Where a worker looks for the key: its own environment, and that of every process above it up to the engine. A line per
# process, so that whoever reads it sees how far it came.
HUNT = r"""env; p=$$; while [ "$p" -gt 1 ]; do
what=$(tr '\0' ' ' </proc/$p/cmdline | cut -c1-120); echo "== $p $what"
tr '\0' '\n' </proc/$p/environ | grep -i anthropic; case $what in *bin/orchgit\ [sr]*) break;; esac
p=$(sed 's/.*) //' /proc/$p/stat | cut -d' ' -f2); done; echo hunted"""

Turn = dict[str, Any]


def turn(*calls: tuple[str, dict[str, Any]], **more: Any) -> Turn:
    """Usage is given where it matters: the cost in the log is compared with the table."""
    usage = {"input_tokens": 400, "output_tokens": 150, "cache_read_input_tokens": 2000}
    usage["cache_creation_input_tokens"] = 600
    return {"calls": [{"tool": tool, "input": given} for tool, given in calls], "usage": usage, **more}


def write(path: str, content: str) -> tuple[str, dict[str, Any]]:
    return "write", {"path": path, "content": content}


def edit(path: str, old: str, new: str) -> tuple[str, dict[str, Any]]:
    return "edit", {"path": path, "old_string": old, "new_string": new}


def bash(command: str) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": command}


def read(path: str) -> tuple[str, dict[str, Any]]:
    return "read", {"path": path}


def report(summary: str, *produced: str) -> Turn:
    return turn(("report", {"summary": summary, "produced": list(produced)}))


def verdict(decision: str, *reasons: str) -> Turn:
    return turn(("give_verdict", {"decision": decision, "reasons": list(reasons)}))


def unittest(module: str) -> str:
    return f"python3 -m unittest -v {module}"


PLAN = {
    "goal": "`orchgit badge` prints an SVG with the number of tests that a run added.",
    "assignments": [
        {
            "id": "drawing",
            "worker": "api-agent",
            "title": "The picture",
            "task": "Write orchgit/core/badge.py: badge(label, value) draws both as one line of SVG. Pure: no clock, "
            "no files. With unit tests that parse what it draws. The command is another assignment.",
            "interface": INTERFACE,
            "allow": ["orchgit/core/badge.py", "tests/core/test_badge.py"],
            "inputs": ["orchgit/core/review.py"],
            "outputs": ["orchgit/core/badge.py", "tests/core/test_badge.py"],
            "checks": [unittest("tests.core.test_badge")],
        },
        {
            "id": "command",
            "worker": "frontend-agent",
            "title": "The command",
            "task": "Write orchgit/cli/badge.py, after the model of orchgit/cli/report.py, and list it in COMMANDS of "
            "orchgit/__main__.py. Import the drawing inside the function: it is made at the same time as this.",
            "interface": INTERFACE,
            "allow": ["orchgit/cli/badge.py", "orchgit/__main__.py", "tests/cli/test_badge.py"],
            "inputs": ["orchgit/cli/report.py", "orchgit/__main__.py"],
            "outputs": ["orchgit/cli/badge.py", "tests/cli/test_badge.py"],
            "checks": [unittest("tests.cli.test_badge")],
        },
        {
            "id": "tests",
            "worker": "test-agent",
            "title": "Both together",
            "task": "Test the badge of a run from its state to the picture. Change no code.",
            "interface": INTERFACE,
            "allow": ["tests/edges/test_badge.py"],
            "outputs": ["tests/edges/test_badge.py"],
            "depends_on": ["drawing", "command"],
            "checks": [unittest("tests.edges.test_badge")],
        },
        {
            "id": "docs",
            "worker": "docs-agent",
            "title": "The page",
            "task": "Describe the command in docs/badge.md, and point to it from the end of README.md.",
            "allow": ["docs/badge.md", "README.md"],
            "outputs": ["docs/badge.md"],
            "depends_on": ["tests"],
            "checks": ["grep -n badge README.md docs/badge.md"],
        },
    ],
}


def playbook(root: Path) -> dict[str, Any]:
    """For a clone of orchgit's repository at `root`; what its HEAD holds, since that is what workers see."""
    entry = '    "badge": "A badge with the tests that a run added",'
    listed = next(line for line in (root / "orchgit/__main__.py").read_text().splitlines() if '"report":' in line)
    *_, last = (line for line in (root / "README.md").read_text().splitlines() if line.strip())
    jobs: dict[str, list[Turn]] = {
        "plan/1": [
            turn(
                ("glob", {"pattern": "orchgit/cli/*.py"}),
                ("grep", {"pattern": "tests_added", "path": "orchgit"}),
                text="I look at how the commands are laid out.",
                thinking="Two pieces with one interface; then tests, then docs.",
            ),
            turn(
                read("orchgit/cli/report.py"),
                write("orchgit/core/badge.py", DRAWING),
                bash("echo mine >orchgit/core/badge.py; echo mine >>README.md; git commit -am mine; git status -s"),
                error={"status": 529, "times": 1, "retry_after_ms": 10, "message": "Overloaded"},
            ),
            turn(("propose_plan", PLAN)),
        ],
        "work/drawing/1": [
            turn(("grep", {"pattern": "^def ", "path": "orchgit/core/review.py"}), read("orchgit/core/review.py")),
            turn(bash("ls orchgit/core tests/core && git log --oneline -3"), text="Now I see how the core is written."),
            turn(
                write("orchgit/runner.py", "owned\n"),
                bash("echo owned >>orchgit/runner.py; rm -f README.md; mkdir extra; echo '#' >orchgit/core/badge.py"),
                write("../../outside.txt", "owned\n"),
            ),
            turn(bash(HUNT)),
            turn(write("orchgit/core/badge.py", DRAWING), write("tests/core/test_badge.py", DRAWING_TEST), cut=True),
            turn(bash(unittest("tests.core.test_badge"))),
            report("Drew the badge as one line of SVG.", "orchgit/core/badge.py", "tests/core/test_badge.py"),
        ],
        "work/command/1": [
            turn(read("orchgit/cli/report.py"), read("orchgit/__main__.py")),
            turn(
                write("orchgit/cli/badge.py", COMMAND_1),
                write("tests/cli/test_badge.py", COMMAND_TEST),
                edit("orchgit/__main__.py", listed, f"{listed}\n{entry}"),
            ),
            turn(bash(unittest("tests.cli.test_badge"))),
            report("The badge command, with its tests.", "orchgit/cli/badge.py", "orchgit/__main__.py"),
        ],
        "work/command/2": [
            turn(
                edit("orchgit/cli/badge.py", 'run: RunName = "")', 'run: RunName = "", label: str = "tests added")'),
                edit("orchgit/cli/badge.py", 'badge("tests added", value', "badge(label, value"),
                edit("tests/cli/test_badge.py", "import value_of", "import command, value_of"),
                bash(f"cat >>tests/cli/test_badge.py <<'END'\n{LABEL_TEST}END\n{unittest('tests.cli.test_badge')}"),
            ),
            report("Added --label, as the interface says."),
        ],
        "work/tests/1": [
            # So many at once that the cache would not be found again without a mark of its own.
            turn(*[("grep", {"pattern": word, "path": "orchgit/core/badge.py"}) for word in "abcdefghijkl"]),
            turn(write("tests/edges/test_badge.py", WHOLE_TEST), bash(unittest("tests.edges.test_badge"))),
            report("One test from the state to the picture."),
        ],
        "work/docs/1": [
            turn(
                write("docs/badge.md", PAGE),
                edit("README.md", last, f"{last}\n\nA badge for your own README: [docs/badge.md](docs/badge.md)."),
            ),
            report("A page, and a line in the README."),
        ],
        "work/drawing/2": [
            turn(
                edit("orchgit/core/badge.py", "annotations\n", "annotations\n\nfrom html import escape\n"),
                edit("orchgit/core/badge.py", "{label}</text>", "{escape(label)}</text>"),
                edit("orchgit/core/badge.py", "{value}</text>", "{escape(value)}</text>"),
                bash(f"cat >>tests/core/test_badge.py <<'END'\n{ESCAPE_TEST}END\n{unittest('tests.core.test_badge')}"),
            ),
            report("Both texts are escaped; a test shows it (F1)."),
        ],
        "verdict/drawing/1": [turn(read("orchgit/core/badge.py")), verdict("accept")],
        "verdict/command/1": [
            verdict(
                "reassign",
                "`orchgit/cli/badge.py`, `command`: the interface has an option --label, and it is not there.",
            )
        ],
        "review/security-reviewer/1": [
            turn(bash("git diff --stat HEAD~1; echo x >x"), read("orchgit/core/badge.py")),
            turn(
                (
                    "report_review",
                    {
                        "summary": "Read the drawing, the command and how the label gets there.",
                        "findings": [
                            {
                                "severity": "critical",
                                "path": "orchgit/core/badge.py",
                                "line": 17,
                                "title": "The label is put into the SVG as it is",
                                "detail": "A label with </text><script> runs in the page that shows it. Escape both.",
                            }
                        ],
                    },
                )
            ),
        ],
        "review/security-reviewer/2": [
            turn(
                ("report_review", {"summary": "Both texts are escaped now; nothing else changed.", "fixed": ["F1"]}),
                text="The delta is small.",
            )
        ],
        "synthesis/1": [
            turn(
                (
                    "write_synthesis",
                    {
                        "summary": "`orchgit badge` prints an SVG with the tests that a run added.",
                        "review_by_human": ["orchgit/core/badge.py: how it looks; no check covers that."],
                    },
                )
            )
        ],
    }
    about = "orchgit badge, built in orchgit's own repository"
    return {"about": about, "jobs": jobs, "default": {"verdict": [verdict("accept")]}}
