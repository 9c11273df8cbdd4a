"""HeldPartitions on the client's own bookkeeping of positions and pauses."""

from __future__ import annotations

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import SubscriptionState

from worker.core.records import Partition, RecordRef
from worker.kafka_io.held_partitions import HeldPartitions

A, B = TopicPartition("in", 0), TopicPartition("in", 1)


class PausingConsumer:
    """A consumer of two partitions without a broker."""

    def __init__(self) -> None:
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user([A, B])

    def pause(self, *tps: TopicPartition) -> None:
        for tp in tps:
            self._subscription.pause(tp)

    def resume(self, *tps: TopicPartition) -> None:
        for tp in tps:
            self._subscription.resume(tp)

    def paused(self) -> set[TopicPartition]:
        return set(self._subscription.paused_partitions())

    def assignment(self) -> set[TopicPartition]:
        return set(self._subscription.assigned_partitions())


class Bench:
    def __init__(self) -> None:
        self.consumer = PausingConsumer()
        self.epochs = {Partition(*A): 1, Partition(*B): 2}
        self.held = HeldPartitions(self.consumer, lambda: self.epochs)

    def hold_a(self, offset: int = 7) -> None:
        self.held.hold(RecordRef("in", 0, offset, 1), leader_epoch=4)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_hold_moves_the_position_back_with_its_leader_epoch(bench: Bench) -> None:
    """Without the epoch the client would not notice a log that is truncated meanwhile."""
    bench.hold_a()
    assert bench.consumer._subscription.position(A) == OffsetAndMetadata(7, "", 4)
    assert bench.consumer.paused() == {A}
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == set()


def test_a_hold_and_the_pause_of_all_end_independently(bench: Bench) -> None:
    bench.hold_a()
    bench.held.pause()
    assert bench.consumer.paused() == {A, B}
    bench.held.resume()
    assert bench.consumer.paused() == {A}
    bench.held.pause()
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == {A, B}, "all are still paused"
    bench.held.resume()
    assert bench.consumer.paused() == set()


def test_a_hold_ends_with_its_assignment(bench: Bench) -> None:
    """The partition went to another worker, or came back under another epoch."""
    bench.hold_a()
    bench.epochs = {Partition(*A): 3, Partition(*B): 2}
    bench.held.pause()
    bench.held.resume()
    assert bench.consumer.paused() == set()
    bench.epochs = {Partition(*B): 2}
    bench.consumer._subscription.assign_from_user([B])
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == set()


def test_a_partition_at_its_end_is_read_again_if_its_position_goes_back(bench: Bench) -> None:
    bench.held.stop_at_end({Partition(*A)})
    bench.held.stop_at_end({Partition(*A)})
    assert bench.consumer.paused() == {A}
    bench.held.stop_at_end({Partition(*B)})
    assert bench.consumer.paused() == {B}


def test_an_end_that_is_left_ends_no_other_pause(bench: Bench) -> None:
    bench.held.stop_at_end({Partition(*A), Partition(*B)})
    bench.hold_a()
    bench.held.stop_at_end({Partition(*B)})
    assert bench.consumer.paused() == {A, B}, "0 is held"
    bench.held.pause()
    bench.held.stop_at_end(set())
    assert bench.consumer.paused() == {A, B}, "all are paused"
    bench.held.resume()
    assert bench.consumer.paused() == {A}
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == set()


def test_a_partition_at_its_end_may_go_to_another_worker(bench: Bench) -> None:
    bench.held.stop_at_end({Partition(*A)})
    bench.consumer._subscription.assign_from_user([B])
    bench.held.stop_at_end(set())
    assert bench.consumer.paused() == set()


def test_a_release_fetches_a_partition_again_that_has_lost_its_epoch_only(bench: Bench) -> None:
    """Its topic vanished for a moment: the client keeps the partition, and keeps it paused."""
    bench.hold_a()
    bench.epochs = {Partition(*B): 2}
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == set()


def test_a_partition_whose_log_was_truncated_is_read_again_after_its_release(bench: Bench) -> None:
    bench.hold_a()
    bench.epochs[Partition(*A)] = 3
    bench.held.release(Partition(*A))
    assert bench.consumer.paused() == set()
