"""A process ends although a thread does not, with its exit code and everything it has to write."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.workers import STUCK_LOAD, wait_until
from worker import exits

GIVEN_UP = """
import atexit, sys, threading
from worker import exits
atexit.register(lambda: print("exit function", end=""))
{more}
thread = threading.Thread(target=threading.Event().wait, name="load")
thread.start()
exits.give_up(thread)
print("output,", end=" ")
sys.exit(exits.leave({code}))
"""

RUN = """
from worker.cli.main import main
sys.exit(main(["run", "--bootstrap-servers", "127.0.0.1:1", "--http-port", "0"]))
"""


def run(code: int, more: str = "") -> tuple[int, str]:
    program = GIVEN_UP.format(code=code, more=more)
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=120, check=False, text=True
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("code", [0, 1])
def test_a_thread_that_was_given_up_does_not_keep_the_process(code: int) -> None:
    """The exit functions run, coverage's among them, and buffers are written."""
    assert run(code) == (code, "output, exit function")


def test_an_exit_function_that_waits_does_not_keep_the_process_either() -> None:
    code, _ = run(0, "atexit.register(lambda: thread.join())")
    assert code == 0


def test_a_process_without_such_a_thread_ends_as_usual() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    exits.give_up(thread)
    assert exits.leave(3) == 3


def test_sigterm_ends_a_worker_whose_load_does_not_end(tmp_path: Path) -> None:
    """With the exit code of a clean stop: it has read no record."""
    stuck, log = tmp_path / "stuck", tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", STUCK_LOAD + RUN, str(stuck)],
            stdin=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        wait_until(stuck.exists, what="the load is stuck")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "stopped before the model was ready" in log.read_text()
    assert "the load of a model does not end" in log.read_text()
