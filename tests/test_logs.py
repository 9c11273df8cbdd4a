"""Logs: JSON or plain, and never a message's text, not even in a traceback's variables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from worker.logs import configure, get_logger

def label(text):
    raise ValueError("no")

configure("info", sys.argv[1], slot=1)
try:
    label("a private" + " text")
except ValueError:
    get_logger("test").exception("it broke", where="here")
"""


@pytest.mark.parametrize("style", ["json", "plain"])
def test_a_traceback_shows_no_variables(style: str) -> None:
    command = [sys.executable, "-c", SCRIPT, style]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "it broke" in done.stderr
    assert "ValueError" in done.stderr
    assert "a private text" not in done.stderr


def test_a_json_line_has_the_fields_that_were_given() -> None:
    command = [sys.executable, "-c", SCRIPT, "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"], said["where"]) == ("it broke", "error", "here")
    assert said["slot"] == 1, "as every line of this process"


STEERING = """
from worker.logs import configure, get_logger

configure("info", "plain")
steers = chr(27) + "[2J" + chr(0x202E) + chr(7)
get_logger("test").info("loading " + steers, model=steers, labels=[steers, "two words"])
"""


def test_nothing_that_is_logged_steers_a_terminal() -> None:
    """A label or a model's name may hold anything."""
    command = [sys.executable, "-c", STEERING]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(done.stderr) & set("\x1b\u202e\x07")
    assert r"loading \x1b[2J\u202e\x07" in done.stderr
    assert r"model=\x1b[2J\u202e\x07" in done.stderr
