"""Signals: one request to stop is one stop, and so is a terminal that closes."""

from __future__ import annotations

import os
import queue
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clocks import HandClock
from worker.cli import run
from worker.errors import Interrupted
from worker.processes import Interrupts
from worker.settings import Loaded, load
from worker.signals import interrupt_as_our_own

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


def test_ctrl_c_is_told_from_an_interrupt_that_other_code_raises() -> None:
    interrupt_as_our_own()
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_as_our_own()
    signal.raise_signal(signal.SIGINT)  # `nohup` and a shell's background jobs ignore it


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


# Prints what SIGHUP does to a process whose standard input is a terminal, or is none.
_HANG_UP = """
import os, signal, sys, threading
from worker.signals import is_daemon, stop_on_signals
stop, asked = threading.Event(), []
stop_on_signals(stop, on_hang_up=(lambda: asked.append(1)) if is_daemon() else None)
for _ in range(2):
    os.kill(os.getpid(), signal.SIGHUP)
print(len(asked), stop.is_set())
"""


def test_a_daemon_reads_its_settings_again_at_sighup() -> None:
    command = [sys.executable, "-P", "-c", _HANG_UP]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 False\n"


def test_a_process_in_a_terminal_stops_when_that_hangs_up() -> None:
    controller, terminal = os.openpty()
    command = [sys.executable, "-P", "-c", _HANG_UP]
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, check=True)
    os.close(terminal)
    os.close(controller)
    assert done.stdout == "0 True\n"


def test_a_process_without_standard_input_is_a_daemon() -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec {shlex.quote(sys.executable)} -P -c "$0" <&-', _HANG_UP],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 False\n"


@pytest.mark.parametrize(("file", "daemon"), [(None, True), ("a.toml", False), ("a.toml", True)])
def test_sighup_stops_a_worker_that_has_nothing_to_read_again(
    monkeypatch: pytest.MonkeyPatch, file: str | None, *, daemon: bool
) -> None:
    monkeypatch.setattr(run, "is_daemon", lambda: daemon)
    loaded = Loaded(load({}, environ={}).settings, {}, (), Path(file) if file else None)
    triggers = queue.SimpleQueue[str]()
    on_hang_up = run._on_hang_up(loaded, triggers)
    assert (on_hang_up is None) == (file is None or not daemon)
    if on_hang_up:
        on_hang_up()
        assert triggers.get_nowait() == "SIGHUP"
