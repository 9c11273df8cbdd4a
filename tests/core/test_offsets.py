"""OffsetTracker: no offset passes a record without an acknowledged outcome."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import raw
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef

P = Partition("in", 0)


def tracking(*offsets: int, epoch: int = 1) -> OffsetTracker:
    tracker = OffsetTracker()
    tracker.assign(P, epoch)
    for offset in offsets:
        tracker.track(raw(offset, b"xx", epoch=epoch, polled_at=float(offset)))
    return tracker


def test_commits_follow_the_oldest_unresolved_record() -> None:
    tracker = tracking(5, 6, 7)
    assert tracker.resolve(raw(6).ref)
    assert tracker.committable() == {}
    assert tracker.resolve(raw(5).ref)
    assert tracker.committable() == {P: 7}
    assert tracker.resolve(raw(7).ref)
    assert tracker.committable() == {P: 8}


def test_gaps_in_the_log_are_no_records() -> None:
    """Compaction and transaction markers leave offsets that nobody will ever resolve."""
    tracker = tracking(1, 4, 9)
    for offset in (1, 4, 9):
        tracker.resolve(raw(offset).ref)
    assert tracker.committable() == {P: 10}


def test_a_commit_is_due_once() -> None:
    tracker = tracking(0)
    tracker.resolve(raw(0).ref)
    tracker.mark_committed(tracker.committable())
    assert tracker.committable() == {}
    assert tracker.committed(P) == 1


def test_committed_offsets_are_counted_with_their_gaps() -> None:
    """From the first offset that was tracked, or from the start that the group committed."""
    tracker = tracking(5, 6, 9)
    tracker.mark_committed({P: 7})
    assert tracker.offsets_committed == 2
    tracker.mark_committed({P: 10})
    assert tracker.offsets_committed == 5
    tracker.mark_committed({P: 8})
    assert tracker.offsets_committed == 5, "an answer that comes late moves nothing"
    other = Partition("in", 1)
    tracker.assign(other, 1)
    tracker.mark_committed({other: 100})
    assert tracker.offsets_committed == 5, "nothing of it was read"
    tracker.mark_committed({other: 103})
    assert tracker.offsets_committed == 8


def test_commits_of_a_partition_that_went_are_ignored() -> None:
    tracker = OffsetTracker()
    tracker.mark_committed({P: 4})
    assert tracker.committed(P) is None


def test_an_old_epochs_acknowledgement_is_fenced() -> None:
    """The partition went and came back: the first poll's late answer must not count."""
    tracker = tracking(7)
    stale = raw(7).ref
    tracker.assign(P, epoch=2)
    tracker.track(raw(7, epoch=2))
    assert not tracker.resolve(stale)
    assert tracker.committable() == {}
    assert tracker.records == 1


def test_records_of_unknown_or_old_assignments_are_not_tracked() -> None:
    tracker = tracking(epoch=2)
    tracker.track(raw(0, epoch=1))
    tracker.track(raw(0, partition=9))
    assert tracker.records == 0
    assert not tracker.resolve(raw(0, partition=9).ref)


def test_resolving_twice_counts_once() -> None:
    tracker = tracking(0, 1)
    assert tracker.resolve(raw(0).ref)
    assert not tracker.resolve(raw(0).ref)
    assert (tracker.records, tracker.bytes) == (1, 2)


def test_offsets_must_rise() -> None:
    tracker = tracking(3)
    with pytest.raises(ValueError, match="polled after offset 3"):
        tracker.track(raw(3))


def test_revoking_releases_what_was_in_flight() -> None:
    tracker = tracking(0, 1, 2)
    tracker.revoke(P)
    assert (tracker.records, tracker.bytes, tracker.partitions) == (0, 0, ())
    tracker.revoke(P)


def test_forgotten_records_hold_nothing_back() -> None:
    """What was never handed on is polled again; what was handed on still commits."""
    tracker = tracking(0, 1, 2)
    tracker.forget([raw(1).ref, raw(2).ref, raw(8, partition=3).ref, raw(9).ref])
    tracker.resolve(raw(0).ref)
    assert tracker.committable() == {P: 1}
    assert tracker.pending([P]) == 0


def test_pending_and_oldest_tell_what_is_in_flight() -> None:
    tracker = tracking(4, 5)
    assert tracker.oldest() == (raw(4).ref, 4.0)
    assert tracker.pending([P, Partition("in", 8)]) == 2
    tracker.resolve(raw(4).ref)
    assert tracker.oldest() == (raw(5).ref, 5.0)
    tracker.resolve(raw(5).ref)
    assert tracker.oldest() is None


def test_what_is_acknowledged_behind_an_older_record_is_held() -> None:
    """It takes memory, and comes again after a crash, until the older one has its outcome too."""
    tracker = tracking(0, 1, 2)
    for offset in (1, 2):
        tracker.resolve(raw(offset).ref)
    assert (tracker.records, tracker.bytes) == (1, 2)
    assert (tracker.held_records, tracker.held_bytes) == (3, 6)
    tracker.resolve(raw(0).ref)
    assert (tracker.held_records, tracker.held_bytes) == (0, 0)


def test_what_is_given_up_or_forgotten_is_not_held() -> None:
    tracker = tracking(0, 1, 2)
    tracker.resolve(raw(1).ref)
    tracker.forget([raw(2).ref])
    assert (tracker.held_records, tracker.held_bytes) == (2, 4)
    tracker.revoke(P)
    assert (tracker.held_records, tracker.held_bytes, tracker.records) == (0, 0, 0)


def test_the_oldest_record_is_the_one_that_was_polled_first() -> None:
    """Partitions are polled in any order."""
    tracker = tracking()
    tracker.assign(Partition("in", 1), 1)
    for record in (raw(9, partition=1, polled_at=1.0), raw(3, polled_at=1.0)):
        tracker.track(record)
    assert tracker.oldest() == (raw(9, partition=1).ref, 1.0)


def test_only_the_oldest_record_s_acknowledgement_is_progress() -> None:
    """Later records do not count, in its partition or in another."""
    tracker = tracking(0, 1)
    tracker.assign(Partition("in", 1), 1)
    tracker.track(raw(0, partition=1))
    for late in (raw(1), raw(0, partition=1)):
        tracker.resolve(late.ref)
        assert tracker.resolved == 0
    tracker.resolve(raw(0).ref)
    assert tracker.resolved == 3


def work(step: Callable[[], object]) -> int:
    """How many Python functions a step calls: what it costs, on any machine."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(before)
    return calls


def test_forgetting_costs_as_much_as_there_is_to_forget() -> None:
    """At a rebalance thousands of records wait; each of them was looked for among all."""

    def forget_half(records: int) -> int:
        tracker = tracking(*range(records))
        refs = [raw(offset).ref for offset in range(records // 2, records)]
        return work(lambda: tracker.forget(refs))

    assert forget_half(800) < 3 * forget_half(400)


@given(st.data())
def test_the_committable_offset_never_passes_an_unresolved_record(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 500), min_size=1, max_size=40)))
    tracker = tracking(*offsets)
    unresolved = set(offsets)
    for offset in data.draw(st.permutations(offsets)):
        tracker.resolve(raw(offset).ref)
        unresolved.remove(offset)
        position = tracker.committable().get(P, 0)
        assert all(position <= other for other in unresolved)
    assert tracker.committable() == {P: offsets[-1] + 1}
    assert (tracker.records, tracker.bytes) == (0, 0)
    assert (tracker.held_records, tracker.held_bytes) == (0, 0)


# -- offsets that have no record ------------------------------------------------------------------


def test_the_sources_position_counts_where_nothing_before_it_is_open() -> None:
    """A transaction's marker has offset 6: no outcome will ever move the group past it."""
    tracker = tracking(5)
    tracker.reach({P: 7, Partition("in", 9): 3})
    assert tracker.committable() == {}
    tracker.resolve(raw(5).ref)
    assert tracker.acknowledged() == {P: 6}
    assert tracker.committable() == {P: 7}
    tracker.mark_committed({P: 7})
    assert tracker.acknowledged() == tracker.committable() == {}


def test_aborted_records_alone_move_the_group() -> None:
    tracker = tracking()
    tracker.reach({P: 4})
    assert tracker.committable() == {P: 4}
    assert tracker.acknowledged() == {}


def test_a_position_does_not_count_that_passes_what_was_forgotten() -> None:
    """It was polled, so the source is past it; but it comes again."""
    tracker = tracking(0, 1)
    tracker.reach({P: 2})
    tracker.forget([raw(1).ref])
    tracker.resolve(raw(0).ref)
    assert tracker.committable() == {P: 1}


def test_a_late_answer_takes_no_commit_back() -> None:
    tracker = tracking(0, 1)
    tracker.mark_committed({P: 2})
    tracker.mark_committed({P: 1})
    assert tracker.committed(P) == 2


def test_where_a_group_begins_is_chosen_once_under_an_epoch() -> None:
    """The commit of the first choice may be under way: a later one would skip what lies between."""
    tracker, other = tracking(), Partition("in", 9)
    assert tracker.begin({P: 10, other: 3}) == [P]
    assert tracker.begin({P: 15}) == []
    assert tracker.begun([P, other]) == {P: 10}
    tracker.assign(P, epoch=2)
    assert tracker.begun([P]) == {}
    assert tracker.begin({P: 15}) == [P]


def test_positions_that_were_kept_count_for_their_epoch() -> None:
    tracker, other = tracking(epoch=1), Partition("in", 9)
    (ref,) = tracker.refs({P: 4, other: 3})
    assert ref == RecordRef("in", 0, 4, 1)
    tracker.assign(P, epoch=2)
    tracker.mark_kept([ref])
    assert tracker.committed(P) is None
    tracker.mark_kept(tracker.refs({P: 6}))
    assert tracker.committed(P) == 6


@given(st.integers(0, 2**32))
def test_progress_reaches_the_end_and_passes_no_open_record(seed: int) -> None:
    """Polls of any size, acknowledgements in any order, commits at any time, gaps anywhere."""
    chance = random.Random(seed)
    tracker, position, done = tracking(), 0, 0
    has_record = [chance.random() < 0.6 for _ in range(chance.randrange(1, 60))]
    unresolved: list[int] = []
    while position < len(has_record) or unresolved:
        upto = min(position + chance.randrange(8), len(has_record))
        for offset in range(position, upto):
            if has_record[offset]:
                tracker.track(raw(offset))
                unresolved.append(offset)
        position = upto
        if chance.random() < 0.5:
            tracker.reach({P: position})
        chance.shuffle(unresolved)
        for _ in range(chance.randint(0, len(unresolved))):
            tracker.resolve(raw(unresolved.pop()).ref)
        committable = tracker.committable().get(P, done)
        assert done <= committable <= min(unresolved, default=position)
        if chance.random() < 0.5:
            tracker.mark_committed({P: committable})
            done = committable
    tracker.reach({P: position})
    assert tracker.committable().get(P, done) == len(has_record)
