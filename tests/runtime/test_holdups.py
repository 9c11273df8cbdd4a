"""Holdups: what others hold the input up with is said after a while, measured, and its end is told."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from worker.core.records import Partition
from worker.metrics import Metrics
from worker.runtime.holdups import Holdups

P = Partition("in", 0)


class Scene:
    """A worker with one partition, seen once a second; a source that says what it is told to say."""

    def __init__(self, lines: list[MutableMapping[str, Any]]) -> None:
        self.lines = lines
        self.metrics, self.clock = Metrics(), HandClock()
        self.holdups = Holdups("group", self.metrics, self.clock)
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
        """The events of that time."""
        before = len(self.lines)
        for _ in range(seconds):
            self.holdups.look(self, self.owned)  # type: ignore[arg-type]
            self.clock.sleep(1)
        return [line["event"].partition(":")[0] for line in self.lines[before:]]

    def value(self, name: str) -> float | None:
        labels = {"topic": "in", "partition": "0"} if "transaction" in name else {}
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}_seconds", labels)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with capture_logs() as lines:
        yield Scene(lines)


HELD = "another producer's open transaction holds the input up"
ENDED = "an open transaction has ended"


def test_an_open_transaction_is_said_once_a_minute_and_so_is_its_end(scene: Scene) -> None:
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


def test_transactions_one_after_the_other_hold_nobody_up(scene: Scene) -> None:
    """There may be an open one at each look, and always another one."""
    for offset in range(10, 200, 2):
        scene.stable = scene.position = offset
        scene.end = offset + 1
        assert scene.watch(2) == []
    assert scene.value("open_transaction") == 1


def test_the_end_of_one_is_told_though_the_next_one_is_open(scene: Scene) -> None:
    scene.stable = scene.position = 7
    assert scene.watch(8) == [HELD]
    scene.stable = scene.position = 9
    assert scene.watch(8) == [ENDED, HELD]


@pytest.mark.parametrize(
    ("end", "stable", "position"), [(10, 7, 3), (10, 10, 3), (None, 7, 7), (10, None, 7)]
)
def test_what_this_worker_has_to_read_first_is_its_own_matter(
    scene: Scene, end: int | None, stable: int | None, position: int
) -> None:
    scene.end, scene.stable, scene.position = end, stable, position
    assert scene.watch(30) == []
    assert not scene.value("open_transaction")


def test_a_partition_that_goes_takes_its_transaction_along(scene: Scene) -> None:
    scene.stable = scene.position = 7
    assert scene.watch(8) == [HELD]
    scene.owned = ()
    scene.watch(1)
    scene.metrics.remove_partitions([P])
    assert scene.value("open_transaction") is None
    scene.owned = (P,)
    assert scene.watch(4) == []


def test_a_join_that_waits_is_said_with_whom_it_waits_for(scene: Scene) -> None:
    scene.joined, scene.holdups.others = False, 3
    assert scene.watch(5) == []
    assert scene.watch(60) == ["joining the group takes long"]
    assert (scene.lines[-1]["group"], scene.lines[-1]["others"]) == ("group", 3)
    assert scene.value("joining") == 64
    assert scene.watch(5) == ["joining the group takes long"]
    scene.joined = True
    assert scene.watch(5) == ["the wait for the group is over"]
    assert scene.value("joining") == 0
    scene.joined = False
    assert scene.watch(8) == ["joining the group takes long"]
    assert scene.lines[-1]["others"] == "unknown"


def test_a_broker_that_is_away_is_no_group_that_waits(scene: Scene) -> None:
    scene.joined = scene.up = False
    assert scene.watch(60) == []
    assert scene.value("joining") == 0


def test_a_quick_rebalance_is_no_news(scene: Scene) -> None:
    for _ in range(10):
        scene.joined = False
        assert scene.watch(3) == []
        scene.joined = True
        assert scene.watch(3) == []
