"""KafkaSink: each outcome is sent, in poll order, until a producer has it acknowledged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, offsets, outcome
from worker.core.records import Completion, RecordRef
from worker.errors import AccessDenied, BrokerAway, StreamlabelError, TopicMissing
from worker.kafka_io.sink import KafkaSink

PATIENCE = 60.0
LOOK = PATIENCE / 4


class Bench:
    """A sink, the producers that it made, and what it said was acknowledged."""

    def __init__(self) -> None:
        self.clock, self.group = HandClock(), Group()
        self.made: list[Producer] = []
        self.refuse: StreamlabelError | None = None
        self.completions: list[Completion] = []
        self.sink = KafkaSink(
            self._make,  # type: ignore[arg-type]
            PATIENCE,
            self.completions.append,
            self.group,
            self.clock,
        )

    def _make(self) -> Producer:
        if self.refuse:
            raise self.refuse
        self.made.append(Producer())
        return self.made[-1]

    @property
    def completed(self) -> list[list[int]]:
        return [offsets(completion.outcomes) for completion in self.completions]

    def publish(self, *some: int) -> None:
        self.sink.publish([outcome(offset) for offset in some])

    def look(self, after: float = LOOK) -> None:
        self.clock.sleep(after)
        self.sink.advance()

    def until_replaced(self, *batches: tuple[int, ...]) -> Producer:
        """These batches are forgotten by the first producer; the one that will send them next."""
        for batch in batches:
            self.publish(*batch)
        self.made[0].forgets = True
        self.look(PATIENCE + 1)
        return self.made[1]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_batch_is_complete_when_all_of_it_is_acknowledged(bench: Bench) -> None:
    bench.publish(0, 1)
    bench.publish(2)
    (producer,) = bench.made
    assert producer.offsets == [0, 1, 2]
    producer.acknowledge(2, 0)
    assert bench.completed == [[2]]
    producer.acknowledge(1)
    assert bench.completed == [[2], [0, 1]]
    assert bench.completions[0].error is None
    bench.sink.request_commit()
    bench.sink.advance()
    assert len(bench.completed) == 2


def test_a_completion_says_when_its_batch_was_handed_over(bench: Bench) -> None:
    bench.clock.sleep(5)
    bench.publish(0)
    handed_over = bench.clock.now
    bench.clock.sleep(5)
    bench.made[0].acknowledge()
    assert bench.completions[0].sent_at == handed_over


def test_what_was_polled_under_another_assignment_is_not_sent(bench: Bench) -> None:
    bench.sink.publish([outcome(0), outcome(0, epoch=2), outcome(1)])
    assert bench.made[0].offsets == [0, 1]
    bench.made[0].acknowledge()
    assert bench.completed == [[0, 1]]
    bench.sink.publish([outcome(2, epoch=2)])
    assert (bench.made[0].offsets, bench.completed) == ([0, 1], [[0, 1]])


@pytest.mark.parametrize("asked", ["await_metadata", "current"])
def test_what_can_not_be_handed_over_is_handed_over_later_and_once(
    bench: Bench, asked: str
) -> None:
    def away(what: object) -> None:
        if what == "await_metadata" or isinstance(what, RecordRef):
            raise BrokerAway("just now")

    bench.publish(0)
    owner = bench.made[0] if asked == "await_metadata" else bench.group
    owner.before, before = away, owner.before  # type: ignore[assignment]
    with pytest.raises(BrokerAway):
        bench.publish(1, 2)
    with pytest.raises(BrokerAway):
        bench.sink.advance()
    owner.before = before  # type: ignore[assignment]
    bench.sink.advance()
    bench.sink.advance()
    assert bench.made[0].offsets == [0, 1, 2]


def test_what_is_acknowledged_is_let_go_while_something_older_waits(bench: Bench) -> None:
    """One record whose partition has no leader must not keep all that come after it in memory."""
    bench.publish(0)
    for offset in range(1, 500):
        bench.publish(offset)
        bench.made[0].acknowledge(offset)
    bench.sink.advance()
    assert len(bench.sink.unacknowledged_batches) == 1


def test_a_deleted_topic_is_told(bench: Bench) -> None:
    def gone(_: str) -> None:
        raise TopicMissing("out")

    bench.sink.check()
    bench.made[0].before = gone
    with pytest.raises(TopicMissing):
        bench.sink.check()


# -- a producer that forgets -------------------------------------------------------------------


def test_a_producer_that_forgets_is_replaced_at_the_second_look(bench: Bench) -> None:
    successor = bench.until_replaced((0, 1), (2,))
    assert successor.offsets == []
    bench.made[0].acknowledge(0)
    bench.look()
    assert bench.made[0].ends == ["abandon"]
    assert successor.offsets == [1, 2]
    bench.publish(3)
    assert successor.offsets == [1, 2, 3]
    successor.acknowledge()
    assert bench.completed == [[0, 1], [2], [3]]


def test_what_the_old_producer_says_after_that_is_ignored(bench: Bench) -> None:
    successor = bench.until_replaced((0, 1))
    bench.look()
    bench.made[0].acknowledge()
    assert bench.completed == []
    successor.acknowledge()
    assert bench.completed == [[0, 1]]


def test_what_is_acknowledged_while_the_old_producer_ends_is_not_sent_again(bench: Bench) -> None:
    successor = bench.until_replaced((0, 1), (2,))

    def answer(asked: str) -> None:
        if asked == "abandon":
            bench.made[0].acknowledge(0, 1)

    bench.made[0].before = answer
    bench.look()
    assert bench.completed == [[0, 1]]
    assert successor.offsets == [2]


def test_a_batch_that_is_complete_at_the_last_moment_is_complete_once(bench: Bench) -> None:
    successor = bench.until_replaced((0, 1), (2,))

    def answer(asked: str) -> None:
        if asked == "has_leader":
            bench.made[0].acknowledge(0, 1)

    successor.before = answer
    bench.look()
    assert bench.completed == [[0, 1]]
    assert successor.offsets == [2]


def test_what_is_another_s_by_then_is_neither_sent_nor_counted(bench: Bench) -> None:
    successor = bench.until_replaced((0, 1), (2,))
    bench.made[0].acknowledge(0)
    bench.group.epoch = 2
    bench.look()
    assert successor.offsets == []
    assert bench.completed == [[0]]


@pytest.mark.parametrize("place", ["current", "await_metadata", "send"])
@pytest.mark.parametrize("sent_before", [0, 1, 2])
def test_a_hand_over_that_is_interrupted_is_taken_up_again(
    bench: Bench, place: str, sent_before: int
) -> None:
    """The group is in doubt just then, or the broker away: 2 went out past 0 and 1, for ever."""
    successor = bench.until_replaced((0, 1), (2,))
    interruptions = iter(range(2))

    def away(asked: object) -> None:
        due = asked == place or isinstance(asked, RecordRef)
        if due and len(successor.sent) >= sent_before and next(interruptions, None) is not None:
            raise BrokerAway("just now")

    if place == "current":
        bench.group.before = away
    else:
        successor.before = away
    bench.clock.sleep(LOOK)
    advance = bench.sink.advance
    for step in (advance, lambda: bench.publish(3), advance, advance):
        with contextlib.suppress(BrokerAway):
            step()
    assert successor.offsets == [0, 1, 2, 3]
    successor.acknowledge()
    assert bench.completed == [[0, 1], [2], [3]]


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_a_hand_over_that_a_second_replacement_interrupts_is_taken_up_too(
    bench: Bench, sent: int
) -> None:
    second = bench.until_replaced((0, 1), (2, 3))

    def away(asked: str) -> None:
        if asked == "send" and len(second.sent) == sent:
            raise BrokerAway("just now")

    second.before = away
    with pytest.raises(BrokerAway):
        bench.look()
    second.forgets = True
    with pytest.raises(BrokerAway):
        bench.look(PATIENCE + 1)
    assert len(bench.made) == 3
    bench.look()
    assert (second.offsets, second.ends) == ([0, 1, 2, 3][:sent], ["abandon"])
    assert bench.made[2].offsets == [0, 1, 2, 3]
    bench.made[2].acknowledge()
    assert bench.completed == [[0, 1], [2, 3]]
    assert not any(completion.error for completion in bench.completions)


def test_a_producer_that_catches_up_is_kept(bench: Bench) -> None:
    successor = bench.until_replaced((0,))
    bench.made[0].acknowledge()
    bench.look()
    assert (successor.ends, bench.made[0].ends) == (["abandon"], [])
    bench.publish(1)
    assert bench.made[0].offsets == [0, 1]


def test_a_partition_without_leader_is_waited_for(bench: Bench) -> None:
    successor = bench.until_replaced((0,))
    successor.leader = False
    bench.look()
    assert (successor.ends, successor.sent, bench.made[0].ends) == (["abandon"], [], [])


@pytest.mark.parametrize("error", [BrokerAway("not now"), AccessDenied("not you")])
def test_a_suspicion_alone_stops_nothing(bench: Bench, error: StreamlabelError) -> None:
    bench.publish(0)
    bench.made[0].forgets = True
    bench.refuse = error
    bench.look(PATIENCE + 1)
    bench.look()
    assert len(bench.made) == 1
    bench.refuse = None
    bench.look()
    bench.look()
    assert bench.made[1].offsets == [0]


def test_a_successor_that_knows_no_topics_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignorant(_: Producer) -> None:
        raise BrokerAway("no metadata")

    bench.publish(0)
    bench.made[0].forgets = True
    with monkeypatch.context() as patched:
        patched.setattr(Producer, "await_metadata", ignorant)
        bench.look(PATIENCE + 1)
    assert bench.made[1].ends == ["abandon"]
    bench.look()
    bench.look()
    assert bench.made[2].offsets == [0]


# -- the end -----------------------------------------------------------------------------------


def test_closing_ends_every_producer(bench: Bench) -> None:
    successor = bench.until_replaced((0,))
    bench.sink.close(5)
    assert (bench.made[0].ends[0], successor.ends) == ("close within 5 s", ["abandon"])


def broken(*_: object) -> None:
    raise RuntimeError("broken")


def taken_over(bench: Bench) -> Callable[[str], None]:
    """The publish thread's next look, in the middle of the main thread's close."""
    done: list[str] = []

    def look(asked: str) -> None:
        if not done:
            done.append(asked)
            bench.look()

    return look


def test_closing_ends_the_one_though_the_other_breaks(bench: Bench) -> None:
    successor = bench.until_replaced((0,))
    successor.before = broken
    with pytest.raises(RuntimeError, match="broken"):
        bench.sink.close(5)
    assert bench.made[0].ends[0] == "close within 5 s"


def test_closing_beside_a_publish_thread_that_replaces_its_producer(bench: Bench) -> None:
    successor = bench.until_replaced((0,))
    bench.made[0].before = taken_over(bench)
    bench.sink.close(5)
    assert "abandon" in successor.ends
    assert "close within 5 s" in bench.made[0].ends
