"""Signals: one wish to stop is one stop, and a terminal that closes is one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.clocks import HandClock
from worker.processes import Interrupts

# `{signals}` come while nothing else runs; the drain that follows them ends with a word.
_WORKER = """
import os, signal, threading
{before}
from worker.signals import stop_on_signals
from worker.clock import SystemClock
stop = threading.Event()
stop_on_signals(stop, lambda: print("killed", flush=True))
def get(number): os.kill(os.getpid(), number)
def wait(): SystemClock().sleep(1.05)
{signals}
print("drained" if stop.is_set() else "running")
"""


def told(signals: str, before: str = "") -> tuple[int, str]:
    program = _WORKER.format(signals=signals, before=before)
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def test_two_signals_at_once_are_one_stop() -> None:
    """`timeout` sends SIGTERM to its child and then to its group."""
    assert told("get(signal.SIGTERM); get(signal.SIGTERM); get(signal.SIGINT)") == (0, "drained")


def test_a_second_signal_after_a_second_stops_at_once() -> None:
    assert told("get(signal.SIGTERM); wait(); get(signal.SIGTERM)") == (1, "killed")


def test_a_terminal_that_closes_is_a_stop() -> None:
    assert told("get(signal.SIGHUP)") == (0, "drained")


def test_nohup_is_respected() -> None:
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert told("get(signal.SIGHUP)", before=ignored) == (0, "running")


def test_the_demo_does_not_take_two_signals_at_once_for_impatience() -> None:
    clock, killed = HandClock(), []
    with Interrupts(clock) as interrupts:
        interrupts.on_second(lambda: killed.append("child"))
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert killed == []
        clock.sleep(1.0)
        signal.raise_signal(signal.SIGTERM)
        assert killed == ["child"]
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            pass


def test_the_demo_begins_to_count_again_after_a_signal_that_was_answered() -> None:
    """One Ctrl-C ends `--keep`; the next one, while it tidies up, is a first one."""
    clock, killed = HandClock(), []

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        interrupts.sleep(0.1)

    with Interrupts(clock) as interrupts:
        interrupts.on_second(lambda: killed.append("child"))
        interrupts.until_one(work)
        clock.sleep(5.0)
        signal.raise_signal(signal.SIGTERM)
        assert killed == []
        clock.sleep(5.0)
        signal.raise_signal(signal.SIGTERM)
        assert killed == ["child"]
