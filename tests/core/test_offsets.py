"""OffsetTracker: no committable offset passes a record without an acknowledged outcome."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import raw
from tests.support.work import work
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


def test_gaps_between_offsets_do_not_stop_commits() -> None:
    """Compaction and transaction markers leave offsets that are never resolved."""
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


def test_commits_of_a_revoked_partition_are_ignored() -> None:
    tracker = OffsetTracker()
    tracker.mark_committed({P: 4})
    assert tracker.committed(P) is None


def test_an_old_epochs_acknowledgement_is_fenced() -> None:
    """The partition was revoked and assigned again: a late acknowledgement is ignored."""
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


def test_an_assignment_is_tracked_under_its_own_epoch_only() -> None:
    tracker = tracking(0)
    assert tracker.tracks(raw(9).ref), "whether or not the record is"
    assert not tracker.tracks(raw(0, epoch=2).ref)
    tracker.revoke(P)
    assert not tracker.tracks(raw(0).ref)


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


def test_forgotten_records_do_not_stop_commits() -> None:
    """Records that no stage received are polled again; the others are still committed."""
    tracker = tracking(0, 1, 2)
    tracker.forget([raw(1).ref, raw(2).ref, raw(8, partition=3).ref, raw(9).ref])
    tracker.resolve(raw(0).ref)
    assert tracker.committable() == {P: 1}
    assert tracker.pending([P]) == 0


def test_pending_and_oldest_describe_the_records_in_flight() -> None:
    tracker = tracking(4, 5)
    assert tracker.oldest() == (raw(4).ref, 4.0)
    assert tracker.pending([P, Partition("in", 8)]) == 2
    tracker.resolve(raw(4).ref)
    assert tracker.oldest() == (raw(5).ref, 5.0)
    tracker.resolve(raw(5).ref)
    assert tracker.oldest() is None


def test_a_record_acknowledged_before_an_older_one_is_held() -> None:
    """It takes memory, and is repeated after a crash, until the older one has its outcome."""
    tracker = tracking(0, 1, 2)
    for offset in (1, 2):
        tracker.resolve(raw(offset).ref)
    assert (tracker.records, tracker.bytes) == (1, 2)
    assert (tracker.held_records, tracker.held_bytes) == (3, 6)
    tracker.resolve(raw(0).ref)
    assert (tracker.held_records, tracker.held_bytes) == (0, 0)


def test_revoked_and_forgotten_records_are_not_held() -> None:
    tracker = tracking(0, 1, 2)
    tracker.resolve(raw(1).ref)
    tracker.forget([raw(2).ref])
    assert (tracker.held_records, tracker.held_bytes) == (2, 4)
    tracker.revoke(P)
    assert (tracker.held_records, tracker.held_bytes, tracker.records) == (0, 0, 0)


def test_the_oldest_record_was_polled_first() -> None:
    """Partitions are polled in any order."""
    tracker = tracking()
    tracker.assign(Partition("in", 1), 1)
    for record in (raw(9, partition=1, polled_at=1.0), raw(3, polled_at=1.0)):
        tracker.track(record)
    assert tracker.oldest() == (raw(9, partition=1).ref, 1.0)


def test_only_the_oldest_records_acknowledgement_is_progress() -> None:
    """Later records, in its partition or in another, are no progress."""
    tracker = tracking(0, 1)
    tracker.assign(Partition("in", 1), 1)
    tracker.track(raw(0, partition=1))
    for late in (raw(1), raw(0, partition=1)):
        tracker.resolve(late.ref)
        assert tracker.resolved == 0
    tracker.resolve(raw(0).ref)
    assert tracker.resolved == 3


def test_the_cost_of_forgetting_is_linear() -> None:
    """At a rebalance thousands of records wait. A search for each among all would be quadratic."""

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


# -- offsets without a record ------------------------------------------------------------------


def test_the_sources_position_counts_if_all_records_before_it_are_acknowledged() -> None:
    """Offset 6 is a transaction marker: no outcome will move the group past it."""
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


def test_a_position_beyond_forgotten_records_does_not_count() -> None:
    """The records were polled, so the source is past them, but they will be polled again."""
    tracker = tracking(0, 1)
    tracker.reach({P: 2})
    tracker.forget([raw(1).ref])
    tracker.resolve(raw(0).ref)
    assert tracker.committable() == {P: 1}


def test_a_late_answer_does_not_revert_a_commit() -> None:
    tracker = tracking(0, 1)
    tracker.mark_committed({P: 2})
    tracker.mark_committed({P: 1})
    assert tracker.committed(P) == 2


def test_the_groups_beginning_is_set_once_in_an_epoch() -> None:
    """The first position's commit may be under way; a later one would skip the records between."""
    tracker, other = tracking(), Partition("in", 9)
    assert tracker.begin({P: 10, other: 3}) == [P]
    assert tracker.begin({P: 15}) == []
    assert tracker.begun([P, other]) == {P: 10}
    tracker.assign(P, epoch=2)
    assert tracker.begun([P]) == {}
    assert tracker.begin({P: 15}) == [P]


def test_kept_positions_count_in_their_epoch_only() -> None:
    tracker, other = tracking(epoch=1), Partition("in", 9)
    (ref,) = tracker.refs({P: 4, other: 3})
    assert ref == RecordRef("in", 0, 4, 1)
    tracker.assign(P, epoch=2)
    tracker.mark_kept([ref])
    assert tracker.committed(P) is None
    tracker.mark_kept(tracker.refs({P: 6}))
    assert tracker.committed(P) == 6


@given(st.integers(0, 2**32))
def test_progress_reaches_the_end_and_passes_no_unacknowledged_record(seed: int) -> None:
    """For polls of any size, acknowledgements in any order, commits at any time, gaps anywhere."""
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
