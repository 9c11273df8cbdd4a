"""OffsetTracker as a state machine: no commit passes a record without an acknowledged outcome.

The oracle is the input topic itself: which records exist, which have an outcome that was
acknowledged, and which offset the group has committed. It knows no epochs and no queues.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.support.records import raw
from tests.support.work import work
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef

_PARTITIONS = tuple(Partition("in", number) for number in range(3))


@dataclass
class Topic:
    """One partition of the input, and what became of its records.

    Attributes:
        records: offsets of the records; compaction leaves gaps.
        end: the next offset that a producer writes.
        answered: offsets whose outcome was acknowledged, under any assignment.
        committed: the group's committed offset.
        position: the next offset that this worker polls; None while another worker has it.
        flying: records that were polled under this assignment and have no outcome yet.
        kept_back: those among them that no stage has received, the newest ones.
        polled: all records that were polled under this assignment, without those given back.
    """

    records: list[int] = field(default_factory=list)
    end: int = 0
    answered: set[int] = field(default_factory=set)
    committed: int = 0
    epoch: int = 0
    position: int | None = None
    flying: list[RecordRef] = field(default_factory=list)
    kept_back: list[RecordRef] = field(default_factory=list)
    polled: list[RecordRef] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Return the records from the oldest one in flight on: their memory is taken."""
        return len(self.polled) - self.polled.index(self.flying[0]) if self.flying else 0


class Offsets(RuleBasedStateMachine):
    """Polls, answers in any order, moves partitions, commits, and loses answers."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.topics = {partition: Topic() for partition in _PARTITIONS}
        self.epochs = 0
        self.stale: list[RecordRef] = []  # records of assignments that are over
        self.asked: list[dict[Partition, int]] = []  # commits whose answer is under way

    @initialize()
    def begin(self) -> None:
        self.assign(_PARTITIONS[0])

    @rule(
        partition=st.sampled_from(_PARTITIONS),
        gap=st.integers(0, 3),
        number=st.sampled_from((1, 2, 4, 100)),
    )
    def produce(self, partition: Partition, gap: int, number: int) -> None:
        topic = self.topics[partition]
        first = topic.end + gap
        topic.records += range(first, first + number)
        topic.end = first + number

    @rule(partition=st.sampled_from(_PARTITIONS))
    def end_with_a_marker(self, partition: Partition) -> None:
        """A transaction's marker takes an offset and is no record."""
        self.topics[partition].end += 1

    @rule(partition=st.sampled_from(_PARTITIONS))
    def assign(self, partition: Partition) -> None:
        topic = self.topics[partition]
        self._lose(topic)
        self.epochs += 1
        topic.epoch, topic.position = self.epochs, topic.committed
        self.tracker.assign(partition, self.epochs)

    @rule(partition=st.sampled_from(_PARTITIONS))
    def revoke(self, partition: Partition) -> None:
        self._lose(self.topics[partition])
        self.tracker.revoke(partition)

    def _lose(self, topic: Topic) -> None:
        self.stale += topic.flying
        topic.flying, topic.kept_back, topic.polled, topic.position = [], [], [], None

    @rule(most=st.sampled_from((1, 2, 5, 400)), handed=st.booleans())
    def poll(self, most: int, *, handed: bool) -> None:
        """Poll some records of each partition; the stages get them, or the batcher keeps them."""
        for partition, topic in self.topics.items():
            if topic.position is None:
                continue
            rest = [offset for offset in topic.records if offset >= topic.position]
            for offset in rest[:most]:
                record = raw(offset, b"xx", partition=partition.partition, epoch=topic.epoch)
                self.tracker.track(record)
                topic.flying.append(record.ref)
                topic.polled.append(record.ref)
                if not handed:
                    topic.kept_back.append(record.ref)
            if handed:
                topic.kept_back = []  # the batcher keeps the order of the poll
            topic.position = rest[most - 1] + 1 if len(rest) >= most else topic.end
        self.tracker.reach(
            {p: topic.position for p, topic in self.topics.items() if topic.position is not None}
        )

    @rule()
    def hand_over(self) -> None:
        for topic in self.topics.values():
            topic.kept_back = []

    @precondition(lambda self: any(t.flying for t in self.topics.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """A record that a stage has received gets its outcome, in any order."""
        flying = [r for t in self.topics.values() for r in t.flying if r not in t.kept_back]
        if not flying:
            return
        ref = data.draw(st.sampled_from(flying))
        topic = self.topics[Partition(ref.topic, ref.partition)]
        assert self.tracker.resolve(ref)
        topic.flying.remove(ref)
        topic.answered.add(ref.offset)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def answer_late(self, data: st.DataObject) -> None:
        """An answer of an assignment that is over counts for nobody."""
        assert not self.tracker.resolve(data.draw(st.sampled_from(self.stale)))

    @rule()
    def forget(self) -> None:
        """Give back what no stage has received, as at a rebalance; it is polled again."""
        refs = [ref for topic in self.topics.values() for ref in topic.kept_back]
        held = self.tracker.held_records
        assert work(lambda: self.tracker.forget(refs)) <= 8 * (len(refs) + held) + 20
        for topic in self.topics.values():
            if topic.kept_back:
                topic.position = topic.kept_back[0].offset
                topic.flying = [ref for ref in topic.flying if ref not in topic.kept_back]
                topic.polled = [ref for ref in topic.polled if ref not in topic.kept_back]
                topic.kept_back = []

    @rule()
    def ask_for_a_commit(self) -> None:
        offsets = self.tracker.committable()
        for partition, offset in offsets.items():
            topic = self.topics[partition]
            topic.committed = max(topic.committed, offset)
        self.asked.append(offsets)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer_a_commit(self, data: st.DataObject) -> None:
        """Answers to commits may come late and in any order."""
        at = data.draw(st.integers(0, len(self.asked) - 1))
        offsets = self.asked.pop(at)
        self.tracker.mark_committed(
            {p: o for p, o in offsets.items() if self.topics[p].position is not None}
        )

    @invariant()
    def no_commit_passes_an_open_record(self) -> None:
        offered = self.tracker.committable()
        for partition, topic in self.topics.items():
            for offset in (topic.committed, offered.get(partition, 0)):
                passed = {one for one in topic.records if one < offset}
                assert passed <= topic.answered, (partition, offset, passed - topic.answered)

    @invariant()
    def the_records_in_flight_are_counted(self) -> None:
        flying = sum(len(topic.flying) for topic in self.topics.values())
        assert (self.tracker.records, self.tracker.bytes) == (flying, 2 * flying)
        assert self.tracker.pending(_PARTITIONS) == flying
        held = sum(topic.held for topic in self.topics.values())
        assert (self.tracker.held_records, self.tracker.held_bytes) == (held, 2 * held)
        assert (self.tracker.oldest() is None) == (flying == 0)

    def teardown(self) -> None:
        """When every record has its outcome, the group can reach the end of what was polled."""
        self.hand_over()
        self.poll(most=1, handed=True)  # after records were given back the source is asked again
        for topic in self.topics.values():
            for ref in topic.flying:
                self.tracker.resolve(ref)
                topic.answered.add(ref.offset)
        offered = self.tracker.committable()
        for partition, topic in self.topics.items():
            if topic.position is not None:
                known = self.tracker.committed(partition)
                reached = max(offered.get(partition, 0), known or 0, topic.committed)
                assert reached >= topic.position, (partition, offered)


TestOffsets = Offsets.TestCase
TestOffsets.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
