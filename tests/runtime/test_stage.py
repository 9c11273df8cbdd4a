"""A stage takes steps, ends when it is cancelled, and never dies silently."""

from __future__ import annotations

import threading

import pytest

from tests.support.clocks import HandClock
from tests.support.workers import wait_until
from worker.clock import SystemClock
from worker.runtime.stage import Stage, StageCancelled, StageControl, StageHooks
from worker.runtime.stall import StageProgress


class Bench:
    """One stage, its crashes, and the event that cancels it."""

    def __init__(self) -> None:
        self.crashes: list[tuple[str, BaseException]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.parts = 0
        self.progress = StageProgress("infer", 0.0)
        self.control = StageControl(self.on_crash, SystemClock())
        self.stage: Stage[str, None] = Stage(self.work, self.progress, self.control)
        self.stage.start()

    def work(self, _: str) -> None:
        while True:
            self.stage.step()
            self.parts += 1
            self.begun.set()
            self.gate.wait(10)

    def on_crash(self, name: str, error: BaseException) -> None:
        self.crashes.append((name, error))


def test_a_cancelled_stage_ends_in_the_middle_of_an_item() -> None:
    """FIELD complaint 7: shutdown must break mid-batch."""
    bench = Bench()
    assert bench.stage.offer("abcde")
    assert bench.begun.wait(10)
    assert bench.progress.held == 5
    bench.control.cancelled.set()
    bench.gate.set()
    bench.stage.join(10)
    with pytest.raises(StageCancelled):
        bench.stage.step()
    assert not bench.crashes


def test_only_work_counts_as_busy() -> None:
    """Each part counts as it ends; waits for an item and for room in the next stage do not."""
    clock, done = HandClock(), threading.Event()
    control = StageControl(lambda *_: None, clock)
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
        work,
        StageProgress("infer", 0.0),
        control,
        StageHooks(hand_on=hand_on, busy=busy.append),
        inbox_size=2,
    )
    clock.sleep(50.0)
    assert stage.offer("x")
    stage.start()
    assert done.wait(10)
    control.cancelled.set()
    stage.join(10)
    assert [seconds for seconds in busy if seconds] == [3.0, 4.0]


def test_a_crash_is_reported_with_the_stage_s_name() -> None:
    """Even SystemExit, on which a thread ends without a trace."""
    crashed = threading.Event()
    reports: list[str] = []

    def die(_: str) -> None:
        raise SystemExit

    def on_crash(name: str, error: BaseException) -> None:
        reports.append(f"{name}: {type(error).__name__}")
        crashed.set()

    stage: Stage[str, None] = Stage(
        die, StageProgress("publish", 0.0), StageControl(on_crash, SystemClock())
    )
    stage.start()
    stage.put("x")
    assert crashed.wait(10)
    stage.join(10)
    assert reports == ["publish: SystemExit"]


def test_an_item_that_arrives_while_an_idle_stage_is_busy_has_not_waited_before() -> None:
    """An idle stage answers a question from the page; an item that arrives meanwhile is new."""
    clock = HandClock()
    progress = StageProgress("infer", clock.now)
    control = StageControl(lambda *_: None, clock)
    question, answered, looked = threading.Event(), threading.Event(), threading.Event()

    def between() -> None:
        if question.is_set() and not answered.is_set():
            looked.set()
            answered.wait(10)

    stage: Stage[str, None] = Stage(lambda _: None, progress, control, StageHooks(between=between))
    stage.start()
    clock.now += 1_000
    wait_until(lambda: progress.moved_at == clock.now, what="the stage has seen the time")
    question.set()
    assert looked.wait(10)
    assert stage.offer("abc")
    assert (progress.held, progress.moved_at) == (3, clock.now)
    answered.set()
    control.cancelled.set()
    stage.join(10)
