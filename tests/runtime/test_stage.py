"""A stage takes steps, ends when it is abandoned, and never dies quietly."""

from __future__ import annotations

import threading

import pytest

from tests.support.clocks import HandClock
from worker.clock import SystemClock
from worker.runtime.stage import Abandoned, Stage


class Bench:
    """One stage, what became of it, and the switch that gives it up."""

    def __init__(self) -> None:
        self.abandon = threading.Event()
        self.crashes: list[tuple[str, BaseException]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.parts = 0
        self.stage: Stage[str, None] = Stage(
            "infer", self.work, 1, self.on_crash, self.abandon, SystemClock()
        )
        self.stage.start()

    def work(self, _: str) -> None:
        while True:
            self.stage.step()
            self.parts += 1
            self.begun.set()
            self.gate.wait(10)

    def on_crash(self, name: str, error: BaseException) -> None:
        self.crashes.append((name, error))


def test_an_abandoned_stage_ends_in_the_middle_of_an_item() -> None:
    """FIELD complaint 7: shutdown must break mid-batch."""
    bench = Bench()
    assert bench.stage.offer("abcde")
    assert bench.begun.wait(10)
    assert bench.stage.held == 5
    bench.abandon.set()
    bench.gate.set()
    bench.stage.join(10)
    with pytest.raises(Abandoned):
        bench.stage.step()
    assert not bench.crashes


def test_only_the_time_at_work_is_told_as_busy() -> None:
    """Part by part; the wait for an item, and that for room behind, are left out."""
    clock, abandon, done = HandClock(), threading.Event(), threading.Event()
    busy: list[float] = []

    def work(_: str) -> str:
        clock.sleep(3.0)
        stage.step()
        clock.sleep(4.0)
        return "result"

    def hand_on(result: str) -> None:
        clock.sleep(100.0)
        if result == "result":
            done.set()

    stage: Stage[str, str] = Stage(
        "infer", work, 2, lambda *_: None, abandon, clock, hand_on=hand_on, busy=busy.append
    )
    clock.sleep(50.0)
    assert stage.offer("x")
    stage.start()
    assert done.wait(10)
    abandon.set()
    stage.join(10)
    assert [seconds for seconds in busy if seconds] == [3.0, 4.0]


def test_a_crash_is_told_with_the_stage_s_name() -> None:
    """Whatever is raised, be it the end of the interpreter's world."""
    crashed = threading.Event()
    told: list[str] = []

    def die(_: str) -> None:
        raise SystemExit

    def on_crash(name: str, error: BaseException) -> None:
        told.append(f"{name}: {type(error).__name__}")
        crashed.set()

    stage: Stage[str, None] = Stage("publish", die, 2, on_crash, threading.Event(), SystemClock())
    stage.start()
    stage.put("x")
    assert crashed.wait(10)
    stage.join(10)
    assert told == ["publish: SystemExit"]


def test_an_item_that_comes_while_something_else_is_done_has_not_waited_since_long_ago() -> None:
    """An idle stage answers a question from the page: what comes meanwhile is held since now."""
    clock, abandon = HandClock(), threading.Event()
    asked, told, looked = threading.Event(), threading.Event(), threading.Event()

    def between() -> None:
        if asked.is_set() and not told.is_set():
            looked.set()
            told.wait(10)

    stage: Stage[str, None] = Stage(
        "infer", lambda _: None, 1, lambda *_: None, abandon, clock, between=between
    )
    stage.start()
    clock.now += 1_000
    asked.set()
    assert looked.wait(10)
    assert stage.offer("abc")
    assert (stage.held, stage.moved_at) == (3, clock.now)
    told.set()
    abandon.set()
    stage.join(10)
