"""KafkaSink sends each outcome in poll order until a producer has it acknowledged."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest
from kafka.errors import TopicAuthorizationFailedError

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, offsets, outcome
from worker.core.records import Completion, RecordRef
from worker.errors import AccessDenied, BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io.sink import KafkaSink

PATIENCE = 60.0
INSPECTION = PATIENCE / 4


class SinkHarness:
    """A sink, the producers that it made, and its completions."""

    def __init__(self) -> None:
        self.clock, self.group = HandClock(), Group()
        self.made: list[Producer] = []
        self.make_error: StreamlabelError | None = None
        self.completions: list[Completion] = []
        self.sink = KafkaSink(
            self._make,  # type: ignore[arg-type]
            PATIENCE,
            self.completions.append,
            self.group,
            self.clock,
        )

    def _make(self) -> Producer:
        if self.make_error:
            raise self.make_error
        self.made.append(Producer())
        return self.made[-1]

    @property
    def completed(self) -> list[list[int]]:
        return [offsets(completion.outcomes) for completion in self.completions]

    def publish(self, *of: int) -> None:
        self.sink.publish([outcome(offset) for offset in of])

    def inspect(self, after: float = INSPECTION) -> None:
        self.clock.sleep(after)
        self.sink.advance()

    def until_replaced(self, *batches: tuple[int, ...]) -> Producer:
        """Let the first producer stall on these batches; return its successor."""
        for batch in batches:
            self.publish(*batch)
        self.made[0].forgets = True
        self.inspect(PATIENCE + 1)
        return self.made[1]


@pytest.fixture
def harness() -> SinkHarness:
    return SinkHarness()


def test_a_batch_completes_once_all_of_it_is_acknowledged(harness: SinkHarness) -> None:
    harness.publish(0, 1)
    harness.publish(2)
    (producer,) = harness.made
    assert producer.offsets == [0, 1, 2]
    producer.acknowledge(2, 0)
    assert harness.completed == [[2]]
    producer.acknowledge(1)
    assert harness.completed == [[2], [0, 1]]
    assert harness.completions[0].error is None
    harness.sink.request_commit()
    harness.sink.advance()
    assert len(harness.completed) == 2


def test_a_completion_has_the_time_of_sending(harness: SinkHarness) -> None:
    harness.clock.sleep(5)
    harness.publish(0)
    handed_over = harness.clock.now
    harness.clock.sleep(5)
    harness.made[0].acknowledge()
    assert harness.completions[0].sent_at == handed_over


def test_records_of_another_assignment_are_not_sent(harness: SinkHarness) -> None:
    harness.sink.publish([outcome(0), outcome(0, epoch=2), outcome(1)])
    assert harness.made[0].offsets == [0, 1]
    harness.made[0].acknowledge()
    assert harness.completed == [[0, 1]]
    harness.sink.publish([outcome(2, epoch=2)])
    assert (harness.made[0].offsets, harness.completed) == ([0, 1], [[0, 1]])


@pytest.mark.parametrize("step", ["await_metadata", "current"])
def test_interrupted_sending_continues_later_and_sends_once(
    harness: SinkHarness, step: str
) -> None:
    def away(call: object) -> None:
        if call == "await_metadata" or isinstance(call, RecordRef):
            raise BrokerAway("temporary")

    harness.publish(0)
    owner = harness.made[0] if step == "await_metadata" else harness.group
    owner.before, before = away, owner.before  # type: ignore[assignment]
    with pytest.raises(BrokerAway):
        harness.publish(1, 2)
    with pytest.raises(BrokerAway):
        harness.sink.advance()
    owner.before = before  # type: ignore[assignment]
    harness.sink.advance()
    harness.sink.advance()
    assert harness.made[0].offsets == [0, 1, 2]


def test_acknowledged_batches_are_dropped_while_an_older_one_waits(harness: SinkHarness) -> None:
    """A record whose partition has no leader must not keep all later ones in memory."""
    harness.publish(0)
    for offset in range(1, 500):
        harness.publish(offset)
        harness.made[0].acknowledge(offset)
    harness.sink.advance()
    assert len(harness.sink.unacknowledged_batches) == 1


def test_a_deleted_topic_is_reported(harness: SinkHarness) -> None:
    def raise_missing(_: str) -> None:
        raise TopicMissing("out")

    harness.sink.check()
    harness.made[0].before = raise_missing
    with pytest.raises(TopicMissing):
        harness.sink.check()


# -- a producer that stalls --------------------------------------------------------------------


def test_a_stalled_producer_is_replaced_at_the_second_inspection(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0, 1), (2,))
    assert successor.offsets == []
    harness.made[0].acknowledge(0)
    harness.inspect()
    assert harness.made[0].ends == ["abandon"]
    assert successor.offsets == [1, 2]
    harness.publish(3)
    assert successor.offsets == [1, 2, 3]
    successor.acknowledge()
    assert harness.completed == [[0, 1], [2], [3]]


def test_callbacks_of_the_old_producer_are_ignored(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0, 1))
    harness.inspect()
    harness.made[0].acknowledge()
    assert harness.completed == []
    successor.acknowledge()
    assert harness.completed == [[0, 1]]


def test_records_acknowledged_while_the_old_producer_ends_are_not_sent_again(
    harness: SinkHarness,
) -> None:
    successor = harness.until_replaced((0, 1), (2,))

    def answer(call: str) -> None:
        if call == "abandon":
            harness.made[0].acknowledge(0, 1)

    harness.made[0].before = answer
    harness.inspect()
    assert harness.completed == [[0, 1]]
    assert successor.offsets == [2]


def test_a_batch_acknowledged_at_the_last_moment_completes_once(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0, 1), (2,))

    def answer(call: str) -> None:
        if call == "has_leader":
            harness.made[0].acknowledge(0, 1)

    successor.before = answer
    harness.inspect()
    assert harness.completed == [[0, 1]]
    assert successor.offsets == [2]


def test_records_of_a_lost_partition_are_neither_sent_nor_completed(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0, 1), (2,))
    harness.made[0].acknowledge(0)
    harness.group.epoch = 2
    harness.inspect()
    assert successor.offsets == []
    assert harness.completed == [[0]]


@pytest.mark.parametrize("interrupted_at", ["current", "await_metadata", "send"])
@pytest.mark.parametrize("sent_before", [0, 1, 2])
def test_an_interrupted_takeover_continues(
    harness: SinkHarness, interrupted_at: str, sent_before: int
) -> None:
    """The membership is unconfirmed, or the broker away: record 2 once overtook 0 and 1."""
    successor = harness.until_replaced((0, 1), (2,))
    interruptions = iter(range(2))

    def away(call: object) -> None:
        due = call == interrupted_at or isinstance(call, RecordRef)
        if due and len(successor.sent) >= sent_before and next(interruptions, None) is not None:
            raise BrokerAway("temporary")

    if interrupted_at == "current":
        harness.group.before = away
    else:
        successor.before = away
    harness.clock.sleep(INSPECTION)
    advance = harness.sink.advance
    for step in (advance, lambda: harness.publish(3), advance, advance):
        with contextlib.suppress(BrokerAway):
            step()
    assert successor.offsets == [0, 1, 2, 3]
    successor.acknowledge()
    assert harness.completed == [[0, 1], [2], [3]]


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_a_takeover_that_a_second_replacement_interrupts_continues(
    harness: SinkHarness, sent: int
) -> None:
    second = harness.until_replaced((0, 1), (2, 3))

    def away(call: str) -> None:
        if call == "send" and len(second.sent) == sent:
            raise BrokerAway("temporary")

    second.before = away
    with pytest.raises(BrokerAway):
        harness.inspect()
    second.forgets = True
    with pytest.raises(BrokerAway):
        harness.inspect(PATIENCE + 1)
    assert len(harness.made) == 3
    harness.inspect()
    assert (second.offsets, second.ends) == ([0, 1, 2, 3][:sent], ["abandon"])
    assert harness.made[2].offsets == [0, 1, 2, 3]
    harness.made[2].acknowledge()
    assert harness.completed == [[0, 1], [2, 3]]
    assert not any(completion.error for completion in harness.completions)


def test_a_producer_that_catches_up_stays(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0,))
    harness.made[0].acknowledge()
    harness.inspect()
    assert (successor.ends, harness.made[0].ends) == (["abandon"], [])
    harness.publish(1)
    assert harness.made[0].offsets == [0, 1]


def test_a_partition_without_a_leader_is_waited_for(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0,))
    successor.leader = False
    harness.inspect()
    assert (successor.ends, successor.sent, harness.made[0].ends) == (["abandon"], [], [])


@pytest.mark.parametrize("error", [BrokerAway("not now"), AccessDenied("not you")])
def test_a_successor_that_can_not_be_made_does_not_stop_the_worker(
    harness: SinkHarness, error: StreamlabelError
) -> None:
    harness.publish(0)
    harness.made[0].forgets = True
    harness.make_error = error
    harness.inspect(PATIENCE + 1)
    harness.inspect()
    assert len(harness.made) == 1
    harness.make_error = None
    harness.inspect()
    harness.inspect()
    assert harness.made[1].offsets == [0]


def test_a_successor_without_metadata_is_abandoned(
    harness: SinkHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_metadata(_: Producer) -> None:
        raise BrokerAway("no metadata")

    harness.publish(0)
    harness.made[0].forgets = True
    with monkeypatch.context() as patched:
        patched.setattr(Producer, "await_metadata", without_metadata)
        harness.inspect(PATIENCE + 1)
    assert harness.made[1].ends == ["abandon"]
    harness.inspect()
    harness.inspect()
    assert harness.made[2].offsets == [0]


# -- the end -----------------------------------------------------------------------------------


def test_close_ends_every_producer(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0,))
    harness.sink.close(5)
    assert (harness.made[0].ends[0], successor.ends) == ("close within 5 s", ["abandon"])


def test_close_sends_the_dead_letters_that_wait_for_a_result(
    harness: SinkHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them, the offsets of a batch whose results are published could not be committed."""
    letter = replace(outcome(1), topic="dead", reason=DeadLetterReason.MODEL_FAILED)
    harness.sink.publish([outcome(0), letter, outcome(2)])
    (producer,) = harness.made
    assert producer.offsets == [0]

    def pass_time(seconds: float) -> None:
        harness.clock.now += seconds
        producer.acknowledge()

    monkeypatch.setattr(harness.clock, "sleep", pass_time)
    harness.sink.close(5)
    assert producer.offsets == [0, 1, 2]
    assert harness.sink._queue.waiting == deque()


def test_close_gives_up_what_still_waits_in_time(harness: SinkHarness) -> None:
    letter = replace(outcome(1), topic="dead", reason=DeadLetterReason.MODEL_FAILED)
    harness.sink.publish([outcome(0), letter])
    began = harness.clock.now
    harness.sink.close(5)
    (producer,) = harness.made
    assert producer.offsets == [0]
    assert harness.clock.now - began < 5
    assert producer.ends == ["close within 0.1 s"]


def test_close_does_not_wait_for_what_a_failed_producer_holds(harness: SinkHarness) -> None:
    """It once waited for the whole timeout, 30 s."""
    letter = replace(outcome(1), topic="dead", reason=DeadLetterReason.MODEL_FAILED)
    harness.sink.publish([outcome(0), letter])
    harness.made[0].sent[0][1].failure(TopicAuthorizationFailedError("out"))
    began = harness.clock.now
    harness.sink.close(30)
    assert harness.clock.now == began


def fail(*_: object) -> None:
    raise RuntimeError("broken")


def inspect_once(harness: SinkHarness) -> Callable[[str], None]:
    """Return a callback that lets the publish thread inspect its producer during a close."""
    calls: list[str] = []

    def inspect(call: str) -> None:
        if not calls:
            calls.append(call)
            harness.inspect()

    return inspect


def test_close_ends_a_producer_even_if_the_other_fails(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0,))
    successor.before = fail
    with pytest.raises(RuntimeError, match="broken"):
        harness.sink.close(5)
    assert harness.made[0].ends[0] == "close within 5 s"


def test_close_during_a_replacement_ends_both_producers(harness: SinkHarness) -> None:
    successor = harness.until_replaced((0,))
    harness.made[0].before = inspect_once(harness)
    harness.sink.close(5)
    assert "abandon" in successor.ends
    assert "close within 5 s" in harness.made[0].ends


def test_a_producer_that_takes_over_during_a_close_sends_nothing(harness: SinkHarness) -> None:
    """`close` may run between the old producer's end and the first record of the new one."""
    successor = harness.until_replaced((0,))

    def close(call: str) -> None:
        if call == "abandon":
            harness.made[0].before = lambda _: None
            harness.sink.close(0.1)

    harness.made[0].before = close
    with pytest.raises(BrokerAway, match="closed"):
        harness.inspect()
    assert (successor.sent, successor.ends[-1]) == ([], "abandon")


def test_a_successor_that_is_made_during_a_close_ends(
    harness: SinkHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.publish(0)
    harness.made[0].forgets = True
    close = harness.sink.close

    def await_metadata(producer: Producer) -> None:
        if producer is not harness.made[0]:
            close(0.1)

    monkeypatch.setattr(Producer, "await_metadata", await_metadata)
    with pytest.raises(BrokerAway, match="closed"):
        harness.inspect(PATIENCE + 1)
    assert harness.made[1].ends == ["abandon"]


def test_records_that_a_close_drops_are_not_called_refused(harness: SinkHarness) -> None:
    """The client fails them, and the worker logged "the broker refuses a record"."""
    harness.publish(0)
    harness.publish(1)
    harness.made[0].acknowledge(0)
    harness.sink.close(0.1)
    assert harness.completed == [[0]]
    assert harness.completions[0].error is None
    left = harness.sink.unacknowledged_batches
    assert left
    assert not any(batch.failed or batch.refused for batch in left)
