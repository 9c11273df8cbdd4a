"""The last line of a worker that fails: one sentence with cause and remedy.

Kubernetes shows the end of a container's log as the reason why it ended, and a log collector reads
each line as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.cli import main as command
from worker.settings import child_environment

KEPT = 2048  # bytes of a log that the kubelet shows; at most 80 lines

BROKEN = """
import sys
from worker.cli import run
from worker.cli.main import main

LINES = int(sys.argv.pop(1))

def work(settings):
    raise ZeroDivisionError("first line" + "\\nnext line \u4e2d\u6587\U0001f600" * LINES)

run._work = work
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: str, code: tuple[str, ...] = ("-m", "worker")) -> tuple[int, str]:
    """Run a worker whose standard error is no terminal; return its exit code and its log."""
    command = [sys.executable, "-P", *code, "run", "--http-port", "0", *arguments]
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, timeout=200, check=False
    )
    return done.returncode, done.stderr


def last(log: str) -> dict[str, Any]:
    """Return the last line, which must fit what is shown, and be JSON as all others."""
    lines = [json.loads(line) for line in log.splitlines()]
    assert len(log.splitlines()[-1].encode()) < KEPT
    assert lines[-1]["level"] == "error"
    assert "exception" not in lines[-1]
    found: dict[str, Any] = lines[-1]
    return found


def test_wrong_settings_are_one_line_with_each_of_them() -> None:
    code, log = run("--http-port", "70000", "--delivery", "often")
    message = last(log)["message"]
    assert code == 2
    assert message.startswith("wrong settings: ")
    assert "http.port = '70000': must be a whole number from 0 to 65535" in message
    assert "delivery = 'often'" in message


def test_a_missing_model_is_the_last_line() -> None:
    code, log = run("--model", "/no/model", "--kafka-request-timeout", "1")
    assert code == 1
    assert last(log)["message"].startswith(
        "there is no directory /no/model: set model.name (--model)"
    )


@pytest.mark.parametrize("lines", ["1", "1000"])
def test_an_unknown_error_ends_with_its_message_and_not_with_its_stack(lines: str) -> None:
    code, log = run(code=("-c", BROKEN, lines))
    assert code == 1
    message = last(log)["message"]
    assert message.startswith(
        "stopped by an unknown error: ZeroDivisionError: first line next line \u4e2d\u6587\U0001f600"
    )
    assert message.endswith("report it with the stack in the log if it comes again")
    before = json.loads(log.splitlines()[-2])
    assert before["exception"][0]["exc_type"] == "ZeroDivisionError"


def test_kubernetes_gets_the_reason_as_one_plain_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kubectl describe pod` shows that file, where a container has it, and not the log's end."""
    message = tmp_path / "termination-log"
    monkeypatch.setattr(command, "TERMINATION_LOG", message)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    given = ["model", "fetch", "--model", "/no/\x1b[2Jmodel"]
    assert command.main(given) == 1
    assert not message.exists(), "outside of a container there is no such file"
    message.touch()
    assert command.main(given) == 1
    assert message.read_text() == (
        "there is no directory /no/[U+001B][2Jmodel: set model.name (--model) to one, or to a hub id "
        "(`owner/name`)"
    )
    assert capsys.readouterr().err.count("streamlabel: there is no directory") == 2


def test_a_command_beside_the_worker_leaves_its_reason_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kubectl exec` runs commands in the worker's container."""
    message = tmp_path / "termination-log"
    message.write_text("the worker's reason")
    given = ["audit", "--kafka-request-timeout=-1"]
    monkeypatch.setattr(command, "TERMINATION_LOG", message)
    assert command.main(given) == 2
    assert message.read_text() == "the worker's reason"
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert command.main(given) == 2
    assert message.read_text() != "the worker's reason"


def test_an_unknown_errors_text_stays_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may quote a record, and more people may read the state of a pod than its log."""

    def broken(_: object) -> None:
        raise ValueError("a post that nobody should see")

    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setattr(command, "TERMINATION_LOG", message)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr("worker.cli.run._work", broken)
    assert command.main(["run", "--log-format", "json"]) == 1
    assert "a post that nobody should see" in last(capsys.readouterr().err)["message"]
    assert message.read_text() == (
        "stopped by an unknown error: ValueError, whose message is in the log; a restart resumes "
        "from the committed offsets: report it with the stack in the log if it comes again"
    )


def test_a_plain_log_ends_with_plain_words() -> None:
    """So does a terminal's."""
    code, log = run("--http-port", "70000", "--log-format", "plain")
    assert code == 2
    assert log.splitlines()[0] == "streamlabel: wrong settings"
    assert log.splitlines()[-1].startswith("  http.port = '70000'")
