"""Every command with its arguments, as `streamlabel COMMAND --help` prints them.

Owns: the form of the page on commands.
Thread: the main thread.
Must not import: worker.cli; the module runs `streamlabel` and reads its output.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from textwrap import dedent

from benchmarks.docs.markdown import table
from worker.settings import child_environment

_COMMAND = re.compile(r"^ {4}([\w-]+) {2,}(.+)$", re.MULTILINE)
_CALL = re.compile(r"^ *(\w+: +|.*\| )?streamlabel ", re.MULTILINE)
_HEADING = re.compile(r"^\S.*:$")
# The groups of a command's own arguments; the groups of settings have a page of their own.
_OWN = ("positional arguments:", "options:")
_LEFT_OUT = re.compile(r"-h\b|--help|--config\b")


def page() -> str:
    """Return a table of the commands, then a section for each."""
    rows = ((f"[`streamlabel {name}`](#{name})", text) for name, text in summaries().items())
    parts = [table(("Command", "Purpose"), rows)]
    for name in summaries():
        parts.append(f"## `streamlabel {name}` {{ #{name} }}")
        parts += _section(_help(name).splitlines())
    return "\n\n".join(parts)


def summaries() -> dict[str, str]:
    """Return the names of the commands with their one-line descriptions."""
    return dict(_COMMAND.findall(_help()))


def _section(lines: list[str]) -> Iterator[str]:
    body = lines[lines.index("") + 1 :] if "" in lines else []
    description = takewhile(lambda line: not _HEADING.match(line), body)
    yield from map(_paragraph, "\n".join(description).strip().split("\n\n"))
    if rows := list(_arguments(body)):
        yield table(("Argument", "Description"), rows)


def _paragraph(text: str) -> str:
    """Return prose as one line, and examples of calls as a block of code."""
    if _CALL.search(text):
        return f"```bash\n{dedent(text)}\n```"
    return " ".join(text.split())


def _arguments(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the arguments of the command's own groups, each with its joined description."""
    own, names, words = False, "", ""
    for line in [*lines, "end:"]:
        entry = re.match(r"^ {2}(\S.*?)(?: {2,}(.*))?$", line)
        if names and (entry or _HEADING.match(line)):
            yield f"`{names}`", words.strip()
            names = words = ""
        if _HEADING.match(line):
            own = line in _OWN
        elif own and entry:
            names = "" if _LEFT_OUT.match(entry[1]) else entry[1]
            words = entry[2] or ""
        elif own and names:
            words += " " + line.strip()


@cache
def _help(*command: str) -> str:
    environment = child_environment(COLUMNS="200", NO_COLOR="1")
    program = [sys.executable, "-P", "-m", "worker", *command, "--help"]
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    return done.stdout
