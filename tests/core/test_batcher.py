"""MicroBatcher: when a batch closes, why, and which entries it has."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetterReason as R
from tests.support.records import invalid, item, raw
from worker.core.batcher import MicroBatcher
from worker.core.pace import Demand
from worker.core.records import InvalidRecord, MicroBatch, Partition

LATER = Demand(math.inf)
NOW = Demand(-math.inf)


def test_an_empty_batcher_is_not_due() -> None:
    batcher = MicroBatcher(2, 100)
    assert len(batcher) == 0
    assert batcher.due(1e9, NOW) is None


def test_a_batch_closes_at_its_most_records() -> None:
    batcher = MicroBatcher(2, 100)
    batcher.add(item(0), 1, now=0.0)
    assert batcher.due(0.5, LATER) is None
    batcher.add(item(1), 1, now=0.5)
    assert batcher.due(0.5, LATER) == "records"


def test_a_batch_closes_at_its_most_tokens() -> None:
    batcher = MicroBatcher(10, 100)
    batcher.add(item(0), 60, now=0.0)
    assert batcher.due(0.0, LATER) is None
    batcher.add(item(1), 40, now=0.0)
    assert batcher.due(0.0, LATER) == "tokens"


def test_a_batch_closes_when_the_model_needs_it() -> None:
    batcher = MicroBatcher(10, 100)
    batcher.add(item(0), 1, now=5.0)
    assert batcher.due(5.999, Demand(6.0)) is None
    assert batcher.due(6.0, Demand(6.0)) == "ready"


def test_a_batch_closes_at_the_tokens_of_the_latency_goal() -> None:
    batcher = MicroBatcher(10, 100)
    tight = Demand(math.inf, most_tokens=25.5)
    for offset in range(3):
        assert batcher.due(0.0, tight) is None
        batcher.add(item(offset), 10, now=0.0)
    assert batcher.due(0.0, tight) == "goal"
    batch = batcher.take("goal", 0.0, tight.most_tokens)
    assert (len(batch), batch.tokens, batcher.tokens) == (2, 20, 10)


def test_entries_that_do_not_fit_a_batch_keep_waiting() -> None:
    batcher = MicroBatcher(10, 100)
    for offset, tokens in enumerate((70, 20, 20)):
        batcher.add(item(offset), tokens, now=float(offset))
    batch = batcher.take("tokens", now=9.0)
    assert [e.record.ref.offset for e in batch.entries] == [0, 1]
    assert (batch.trigger, batch.opened_at, batch.closed_at) == ("tokens", 0.0, 9.0)
    assert (batch.tokens, batcher.tokens) == (90, 20)
    assert batcher.due(9.0, LATER) is None


def test_an_entry_above_the_token_limit_has_its_own_batch() -> None:
    batcher = MicroBatcher(10, 100)
    batcher.add(item(0), 500, now=0.0)
    batcher.add(item(1), 1, now=0.0)
    assert len(batcher.take("tokens", now=0.0).entries) == 1
    assert len(batcher) == 1


def test_discard_removes_one_partitions_entries_and_keeps_the_order() -> None:
    batcher = MicroBatcher(10, 100)
    for offset in range(4):
        batcher.add(item(offset, partition=offset % 2), 10, now=0.0)
    discarded = batcher.discard([Partition("in", 1)])
    assert [e.record.ref.offset for e in discarded] == [1, 3]
    assert [e.record.ref.offset for e in batcher.take("ready", 0.0).entries] == [0, 2]


def test_discarding_everything_resets_the_tokens() -> None:
    batcher = MicroBatcher(10, 100)
    batcher.add(item(0), 90, now=0.0)
    assert len(batcher.discard()) == 1
    batcher.add(invalid(1), 20, now=0.0)
    assert batcher.due(0.0, LATER) is None


@given(
    st.lists(st.integers(0, 200), max_size=60),
    st.integers(1, 10),
    st.integers(1, 150),
)
def test_every_entry_is_returned_once_in_order_within_the_limits(
    sizes: list[int], max_records: int, max_tokens: int
) -> None:
    """Draining returns exactly the added entries, in poll order, in batches within the limits."""
    batcher = MicroBatcher(max_records, max_tokens)
    for offset, tokens in enumerate(sizes):
        batcher.add(item(offset), tokens, now=0.0)
    seen: list[int] = []
    while trigger := batcher.due(0.0, NOW):
        batch = batcher.take(trigger, now=0.0)
        offsets = [e.record.ref.offset for e in batch.entries]
        assert 1 <= len(offsets) <= max_records
        assert len(offsets) == 1 or sum(sizes[o] for o in offsets) <= max_tokens
        seen += offsets
    assert seen == list(range(len(sizes)))


def test_the_length_of_a_batch_is_its_number_of_records() -> None:
    batch = MicroBatch((item(0), invalid(1)), "ready", 0.0, 0.0)
    assert len(batch) == 2


def test_entries_on_hold_are_in_no_batch() -> None:
    batcher = MicroBatcher(2, 100)
    batcher.add(item(0), 1, now=0.0)
    for offset in range(1, 4):
        batcher.add(invalid(offset), 0, now=0.0, hold=True)
    assert (len(batcher), batcher.ready, batcher.held) == (4, 1, 3)
    assert batcher.due(0.0, LATER) is None
    assert batcher.due(0.0, NOW) == "ready"
    assert [entry.record.ref.offset for entry in batcher.take("ready", 0.0).entries] == [0]
    assert batcher.due(1e9, NOW) is None
    batcher.release()
    assert batcher.due(0.0, LATER) == "records"
    assert [entry.record.ref.offset for entry in batcher.take("records", 0.0).entries] == [1, 2]


def test_an_entry_without_hold_releases_those_before_it() -> None:
    batcher = MicroBatcher(10, 100)
    batcher.add(invalid(0), 0, now=0.0, hold=True)
    batcher.add(item(1), 1, now=0.0)
    assert (batcher.ready, batcher.held) == (2, 0)
    batcher.add(invalid(2), 0, now=0.0, hold=True)
    assert (batcher.ready, batcher.held) == (2, 1)


def test_entries_on_hold_can_be_discarded() -> None:
    """Those of one partition, or all; the other entries stay ready or on hold."""
    batcher = MicroBatcher(10, 100)
    batcher.add(item(0), 1, now=0.0)
    batcher.add(item(0, partition=1), 1, now=0.0)
    batcher.add(invalid(1), 0, now=0.0, hold=True)
    batcher.add(InvalidRecord(raw(1, partition=1), R.NOT_JSON, "no"), 0, now=0.0, hold=True)
    assert len(batcher.discard([Partition("in", 1)])) == 2
    assert (batcher.ready, batcher.held) == (1, 1)
    assert len(batcher.discard()) == 2
    assert (batcher.ready, batcher.held, batcher.tokens) == (0, 0, 0)
