"""Logs: JSON or plain, and without message texts, even in a traceback's variables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging
import sys
from worker.logs import configure, get_logger

def label(text):
    raise ValueError("no")

configure("info", sys.argv[1], slot=1)
try:
    label("a private" + " text")
except ValueError:
    get_logger("test").exception("it broke", where="here", partitions=["a[0]", "a[1]"])
logging.getLogger("library").warning("from a %s", "library")
"""


@pytest.mark.parametrize("style", ["json", "plain"])
def test_a_traceback_shows_no_variables(style: str) -> None:
    command = [sys.executable, "-c", SCRIPT, style]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "it broke" in done.stderr
    assert "ValueError" in done.stderr
    assert "a private text" not in done.stderr


def test_a_json_line_begins_with_the_common_fields() -> None:
    command = [sys.executable, "-c", SCRIPT, "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line, foreign = map(json.loads, done.stderr.splitlines())
    for fields in (line, foreign):
        assert list(fields)[:4] == ["timestamp", "level", "message", "logger"]
        assert fields["slot"] == 1, "every line of this process has it"
        assert "event" not in fields
    assert (line["message"], line["level"], line["logger"]) == ("it broke", "error", "test")
    assert (line["where"], line["partitions"]) == ("here", ["a[0]", "a[1]"])
    assert (foreign["message"], foreign["logger"]) == ("from a library", "library")


HOSTILE = """
from worker.logs import configure, get_logger

configure("info", "plain")
hostile = chr(27) + "[2J" + chr(0x202E) + chr(7)
get_logger("test").info("loading " + hostile, model=hostile, labels=[hostile, "two words"])
"""


def test_control_characters_are_escaped_on_a_terminal() -> None:
    """A label or a model's name may hold anything."""
    command = [sys.executable, "-c", HOSTILE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stderr) & set("\x1b\u202e\x07")
    assert r"loading \x1b[2J\u202e\x07" in done.stderr
    assert r"model=\x1b[2J\u202e\x07" in done.stderr
