"""The feed sends at its rate, passes outcomes on, and reports a stall."""

from __future__ import annotations

import pytest

from tests.support.clocks import HandClock
from worker.core.records import RawRecord
from worker.demo.feed import SampleFeed
from worker.demo.sample import SampleRecord
from worker.demo.tally import Tally
from worker.errors import Fatal


class SentRecords:
    """Accepts every record and acknowledges it at once."""

    def __init__(self) -> None:
        self.tags: list[int] = []
        self._pending: list[tuple[int, int, int]] = []

    def send(self, tag: int, key: bytes, value: bytes | None, timestamp_ms: int) -> None:
        self.tags.append(tag)
        self._pending.append((tag, 0, tag))

    def acknowledged(self) -> list[tuple[int, int, int]]:
        pending, self._pending = self._pending, []
        return pending


class NoOutcomes:
    def read(self) -> list[RawRecord]:
        return []


def make(records: int, rate: float) -> tuple[SampleFeed, SentRecords, HandClock]:
    clock, sent = HandClock(), SentRecords()
    tally = Tally([SampleRecord(b"key", b"value", "text")] * records, clock)
    return SampleFeed(tally, sent, NoOutcomes(), rate, clock), sent, clock


def test_records_are_sent_at_the_rate() -> None:
    """The first one is due at once; a late step catches up."""
    feed, sent, clock = make(records=1_000, rate=100.0)
    feed.step()
    assert len(sent.tags) == 1
    clock.sleep(1.0)
    feed.step()
    feed.step()
    assert sent.tags == list(range(101))


def test_without_a_rate_records_are_sent_in_bursts() -> None:
    feed, sent, _ = make(records=250, rate=0.0)
    feed.step()
    assert len(sent.tags) == 200
    feed.step()
    assert len(sent.tags) == 250


def test_a_stall_is_reported() -> None:
    """The error counts the records that have no outcome."""
    feed, _, clock = make(records=3, rate=0.0)
    feed.step()
    clock.sleep(61.0)
    with pytest.raises(Fatal, match="no outcome for 3 of 3 records"):
        feed.step()
