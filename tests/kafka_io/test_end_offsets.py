"""EndOffsets asks once a second, never waits, and forgets the answers of another assignment."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from tests.support.clocks import HandClock
from worker.core.records import Partition
from worker.kafka_io import internals
from worker.kafka_io.end_offsets import EndOffsets

A, B = Partition("in", 0), Partition("in", 1)


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.epochs = HandClock(), {A: 1, B: 1}
        self.asked: list[tuple[list[Any], internals.Future]] = []
        self.ends = EndOffsets(None, lambda: self.epochs, self.clock)
        monkeypatch.setattr(internals, "ask_end_offsets", self._ask)

    def _ask(self, _: object, partitions: Iterable[Any], __: float) -> internals.Future:
        self.asked.append((list(partitions), internals.Future()))
        return self.asked[-1][1]

    def answer(self, **ends: int) -> None:
        partitions, question = self.asked[-1]
        offsets = [SimpleNamespace(offset=offset) for offset in ends.values()]
        question.success(dict(zip(partitions, offsets, strict=True)))

    def after(self, seconds: float) -> list[int | None]:
        self.clock.sleep(seconds)
        self.ends.ask_if_due()
        return [self.ends.get(A), self.ends.get(B)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_each_answer_replaces_the_one_before(bench: Bench) -> None:
    assert bench.after(1) == [None, None]
    assert bench.after(0.1) == [None, None]
    assert [partitions for partitions, _ in bench.asked] == [[A, B]]
    bench.answer(a=12, b=3)
    assert bench.after(0.1) == [12, 3]
    assert len(bench.asked) == 1, "not a second yet"
    bench.after(1)
    bench.answer(a=15, b=3)
    assert bench.after(0.1) == [15, 3]


def test_one_question_at_a_time_and_a_failed_one_is_repeated(bench: Bench) -> None:
    bench.after(1)
    bench.answer(a=12, b=3)
    bench.after(1)
    assert bench.after(60) == [12, 3]
    assert len(bench.asked) == 2, "the second has no answer yet"
    bench.asked[-1][1].failure(KafkaTimeoutError())
    assert bench.after(0) == [12, 3], "the last one that is known"
    assert len(bench.asked) == 3


def test_an_answer_holds_for_its_assignment_only(bench: Bench) -> None:
    """The topic may have been deleted and created again: its ends begin at 0."""
    bench.after(1)
    bench.epochs = {A: 2}
    bench.answer(a=12, b=3)
    assert bench.after(0) == [None, None]
    bench.after(1)
    bench.answer(a=1)
    assert bench.after(0) == [1, None]


def test_nothing_is_asked_without_partitions(bench: Bench) -> None:
    bench.epochs = {}
    assert bench.after(1) == [None, None]
    assert bench.asked == []
