"""The end of a worker that labels a range."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.doubles import Source
from worker.errors import BrokerAway, Fatal
from worker.metrics import Metrics
from worker.runtime.context import WorkerContext
from worker.runtime.ending import Ending
from worker.runtime.progress import Progress


class Bench:
    """An ending, and a source whose answer the test sets: a bool or an exception."""

    def __init__(self) -> None:
        self.clock, self.stop = HandClock(), threading.Event()
        self.answer: Any = False
        self.questions = 0
        metrics = Metrics()
        progress = Progress(60, metrics, self.clock)
        source = Source(self.clock, lambda: None)
        source.finished = self._finished  # type: ignore[method-assign]
        context = WorkerContext(metrics, progress, self.clock, self.stop)
        self.ending = Ending(source, context)

    def _finished(self) -> bool:
        self.questions += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)


def test_the_worker_stops_once_the_group_has_finished() -> None:
    bench = Bench()
    bench.ending.end_if_finished()
    assert not bench.stop.is_set()
    bench.answer = True
    bench.clock.sleep(1)
    bench.ending.end_if_finished()
    assert bench.stop.is_set()


def test_the_group_is_not_asked_at_each_step() -> None:
    bench = Bench()
    for _ in range(100):
        bench.ending.end_if_finished()
        bench.clock.sleep(0.01)
    assert bench.questions == 2


def test_a_group_that_does_not_answer_is_asked_again() -> None:
    bench = Bench()
    bench.answer = BrokerAway("a timeout")
    bench.ending.end_if_finished()
    assert not bench.stop.is_set()
    bench.answer = True
    bench.clock.sleep(1)
    bench.ending.end_if_finished()
    assert bench.stop.is_set()


def test_a_group_with_another_range_stops_the_worker_with_its_reason() -> None:
    bench = Bench()
    bench.answer = Fatal("the group labels another range")
    with pytest.raises(Fatal, match="another range"):
        bench.ending.end_if_finished()
