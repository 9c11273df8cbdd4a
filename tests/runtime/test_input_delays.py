"""InputDelays: delays that other clients cause are measured, and logged once they are long."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from worker.core.records import Partition
from worker.metrics import Metrics
from worker.runtime.input_delays import InputDelays

P = Partition("in", 0)


class Scene:
    """A worker with one partition, checked once a second; its source answers as the test sets."""

    def __init__(self, lines: list[MutableMapping[str, Any]]) -> None:
        self.lines = lines
        self.metrics, self.clock = Metrics(), HandClock()
        self.delays = InputDelays("group", 3, self.metrics, self.clock)
        self.joined, self.up, self.owned = True, True, (P,)
        self.end: int | None = 10
        self.stable: int | None = 10
        self.position = 10

    def settled(self) -> bool:
        return self.joined

    def connected(self) -> bool:
        return self.up

    def end_offset(self, _: Partition) -> int | None:
        return self.end

    def stable_end(self, _: Partition) -> int | None:
        return self.stable

    def positions(self) -> dict[Partition, int]:
        return {P: self.position}

    def watch(self, seconds: int) -> list[str]:
        """Let time pass, and return the messages logged meanwhile."""
        before = len(self.lines)
        for _ in range(seconds):
            self.delays.check(self, self.owned)  # type: ignore[arg-type]
            self.clock.sleep(1)
        return [line["event"].partition(":")[0] for line in self.lines[before:]]

    def value(self, name: str) -> float | None:
        labels = {"topic": "in", "partition": "0"} if "transaction" in name else {}
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}_seconds", labels)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with capture_logs() as lines:
        yield Scene(lines)


HELD = "another producer's open transaction holds back the input"
ENDED = "open transaction ended"
SLOW_JOIN = "joining group is slow"


def test_an_open_transaction_is_logged_once_a_minute_and_when_it_ends(scene: Scene) -> None:
    scene.stable = 7
    scene.position = 7
    assert scene.watch(5) == []
    assert scene.watch(3) == [HELD]
    assert scene.value("open_transaction") == 7
    line = scene.lines[-1]
    assert (line["topic"], line["partition"], line["offset"], line["held"]) == ("in", 0, 7, 3)
    assert scene.watch(100) == [HELD]
    scene.stable = scene.end = scene.position = 11
    assert scene.watch(3) == [ENDED]
    assert scene.value("open_transaction") == 0


def test_a_sequence_of_short_transactions_is_not_logged(scene: Scene) -> None:
    """Each check may find an open transaction, but never the same one for long."""
    for offset in range(10, 200, 2):
        scene.stable = scene.position = offset
        scene.end = offset + 1
        assert scene.watch(2) == []
    assert scene.value("open_transaction") == 1


def test_the_end_of_a_transaction_is_logged_while_the_next_one_is_open(scene: Scene) -> None:
    scene.stable = scene.position = 7
    assert scene.watch(8) == [HELD]
    scene.stable = scene.position = 9
    assert scene.watch(8) == [ENDED, HELD]


@pytest.mark.parametrize(
    ("end", "stable", "position"), [(10, 7, 3), (10, 10, 3), (None, 7, 7), (10, None, 7)]
)
def test_records_that_the_worker_has_yet_to_read_are_not_held_back(
    scene: Scene, end: int | None, stable: int | None, position: int
) -> None:
    scene.end, scene.stable, scene.position = end, stable, position
    assert scene.watch(30) == []
    assert not scene.value("open_transaction")


def test_the_transaction_of_a_revoked_partition_is_forgotten(scene: Scene) -> None:
    scene.stable = scene.position = 7
    assert scene.watch(8) == [HELD]
    scene.owned = ()
    scene.watch(1)
    scene.metrics.remove_partitions([P])
    assert scene.value("open_transaction") is None
    scene.owned = (P,)
    assert scene.watch(4) == []


def test_a_slow_join_is_logged_with_the_number_of_other_members(scene: Scene) -> None:
    """The number is known for the first join only."""
    scene.joined = False
    assert scene.watch(5) == []
    assert scene.watch(60) == [SLOW_JOIN]
    assert (scene.lines[-1]["group"], scene.lines[-1]["other_members"]) == ("group", 3)
    assert scene.value("joining") == 64
    assert scene.watch(5) == [SLOW_JOIN]
    scene.joined = True
    assert scene.watch(5) == ["joined group"]
    assert scene.value("joining") == 0
    scene.joined = False
    assert scene.watch(8) == [SLOW_JOIN]
    assert scene.lines[-1]["other_members"] == "unknown"


def test_an_unreachable_broker_is_not_a_slow_join(scene: Scene) -> None:
    scene.joined = scene.up = False
    assert scene.watch(60) == []
    assert scene.value("joining") == 0


def test_a_quick_rebalance_is_not_logged(scene: Scene) -> None:
    for _ in range(10):
        scene.joined = False
        assert scene.watch(3) == []
        scene.joined = True
        assert scene.watch(3) == []
