"""Signals: one request to stop is one stop, and so is a terminal that closes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.clocks import HandClock
from worker.processes import Interrupts

# Sends `{signals}` to itself and prints how it ended.
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


def outcome(signals: str, before: str = "") -> tuple[int, str]:
    program = _WORKER.format(signals=signals, before=before)
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def test_two_signals_at_once_are_one_stop() -> None:
    """`timeout` sends SIGTERM to its child and then to its group."""
    assert outcome("get(signal.SIGTERM); get(signal.SIGTERM); get(signal.SIGINT)") == (0, "drained")


def test_a_second_signal_after_a_second_stops_at_once() -> None:
    assert outcome("get(signal.SIGTERM); wait(); get(signal.SIGTERM)") == (1, "killed")


def test_a_terminal_that_closes_is_a_stop() -> None:
    assert outcome("get(signal.SIGHUP)") == (0, "drained")


def test_an_ignored_sighup_stays_ignored() -> None:
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert outcome("get(signal.SIGHUP)", before=ignored) == (0, "running")


def test_signals_at_once_kill_no_child() -> None:
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


def test_a_signal_after_an_answered_one_is_a_first_one() -> None:
    """One Ctrl-C ends `--keep`; the next one, during the clean-up, kills no child."""
    clock, killed = HandClock(), []

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        interrupts.sleep(0.1)

    with Interrupts(clock) as interrupts:
        interrupts.on_second(lambda: killed.append("child"))
        interrupts.repeat_until_signal(work)
        clock.sleep(5.0)
        signal.raise_signal(signal.SIGTERM)
        assert killed == []
        clock.sleep(5.0)
        signal.raise_signal(signal.SIGTERM)
        assert killed == ["child"]


def test_signals_are_handled_before_the_slow_imports_of_a_worker() -> None:
    """As PID 1 of a container, a process without a handler loses a SIGTERM."""
    program = (
        "import sys, worker.cli.run as run\n"
        "from worker.settings import load\n"
        "run.stop_on_signals = lambda *_, **__: sys.exit(int('kafka' in sys.modules))\n"
        "run._work(load({}, environ={}))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
