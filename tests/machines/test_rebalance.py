"""Rebalance, commits and completions as a state machine.

The oracle knows the records of each partition, which of them have an outcome that the broker
acknowledged, and the offsets that the group's coordinator accepted.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.clocks import HandClock
from tests.support.doubles import Sink, Source, outcome
from tests.support.records import item
from worker.core.batcher import MicroBatcher
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, InvalidRecord, Partition, RecordRef, WorkItem
from worker.errors import AccessDenied, BrokerAway, StageCrashed, StreamlabelError
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions
from worker.runtime.progress import Progress
from worker.runtime.rebalance import Rebalance

_PARTITIONS = (Partition("in", 0), Partition("in", 1))
_DRAIN = 20.0
_METRICS = Metrics()
_FAULTS = (BrokerAway("no broker is reached"), AccessDenied("no right"), StageCrashed("a stage"))


@dataclass
class Records:
    """One partition.

    Attributes:
        epoch: of the assignment; 0 while another worker has the partition.
        position: the next record that is polled.
        answered: records with an acknowledged outcome.
        flying: records that a stage has and that have no outcome.
        committed: the group's offset.
    """

    epoch: int = 0
    position: int = 0
    committed: int = 0
    answered: set[int] = field(default_factory=set)
    flying: list[RecordRef] = field(default_factory=list)


class _Drained(Completions):
    """Lets time pass and the machine answer, instead of waiting."""

    machine: Assignments

    def absorb(self, wait: float = 0.0) -> None:
        if wait:
            self._clock.sleep(wait)
            self.machine.answer_while_draining()
        super().absorb()


class Assignments(RuleBasedStateMachine):
    """Partitions come and go, with faults in each step of a revocation."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.offsets = HandClock(), OffsetTracker()
        self.source, self.sink = Source(self.clock, lambda: None), Sink()
        self.batcher = MicroBatcher(100, 10_000)
        progress = Progress(10.0, _METRICS, self.clock)
        self.completions = _Drained(self.offsets, _METRICS, progress, self.clock)
        self.completions.machine = self
        self.commits = Commits(
            self.offsets,
            self.source,
            self.sink,
            0.5,
            metrics=_METRICS,
            clock=self.clock,
            on_failure=self.completions.failed,
        )
        self.rebalance = Rebalance(
            self.offsets,
            self.batcher,
            self.completions,
            self.commits,
            drain_timeout=_DRAIN,
            metrics=_METRICS,
            clock=self.clock,
        )
        self.records = {partition: Records() for partition in _PARTITIONS}
        self.source.commit = self._commit  # type: ignore[method-assign]
        self.epochs = 0
        self.while_draining = "all"
        self.commit_fault: StreamlabelError | None = None
        self.late: list[RecordRef] = []  # of assignments that are over
        self.stopping: StreamlabelError | None = None

    @initialize()
    def begin(self) -> None:
        self.assign(_PARTITIONS[0])

    def _commit(self, offsets: dict[Partition, int], _: float) -> None:
        fault, self.commit_fault = self.commit_fault, None
        if fault:
            self.clock.sleep(_DRAIN)
            raise fault
        self._accept(offsets)

    def _accept(self, offsets: dict[Partition, int]) -> None:
        """The coordinator accepts any offset of a member, even a wrong one."""
        for partition, offset in offsets.items():
            self.records[partition].committed = offset

    # -- what happens ------------------------------------------------------------------------------

    @rule(partition=st.sampled_from(_PARTITIONS))
    def assign(self, partition: Partition) -> None:
        records = self.records[partition]
        if records.epoch:
            return
        self.epochs += 1
        records.epoch, records.position = self.epochs, records.committed
        self.rebalance.on_assigned({partition: self.epochs})
        self._note_positions()

    @rule(handed=st.booleans(), number=st.integers(1, 3))
    def poll(self, number: int, *, handed: bool) -> None:
        for partition, records in self.records.items():
            for _ in range(number if records.epoch else 0):
                entry = item(records.position, partition=partition.partition)
                ref = entry.record.ref._replace(epoch=records.epoch)
                object.__setattr__(entry.record, "ref", ref)
                self.offsets.track(entry.record)
                records.position += 1
                self.batcher.add(entry, 1, self.clock.now)
        if handed:
            self.hand_over()
        self._note_positions()

    def _note_positions(self) -> None:
        self.source.at = {p: r.position for p, r in self.records.items() if r.epoch}

    @rule()
    def hand_over(self) -> None:
        while self.batcher.ready:
            for entry in self.batcher.take("ready", self.clock.now).entries:
                ref = entry.record.ref
                self.records[Partition(ref.topic, ref.partition)].flying.append(ref)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        flying = [ref for records in self.records.values() for ref in records.flying]
        if flying:
            self._answer([data.draw(st.sampled_from(flying))])

    def _answer(self, refs: list[RecordRef]) -> None:
        done = [outcome(r.offset, partition=r.partition, epoch=r.epoch) for r in refs]
        for ref in refs:
            records = self.records[Partition(ref.topic, ref.partition)]
            records.answered.add(ref.offset)
            if ref in records.flying:
                records.flying.remove(ref)
        self.completions.completed(Completion(tuple(done), self.clock.now))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def answer_late(self, data: st.DataObject) -> None:
        self._answer([data.draw(st.sampled_from(self.late))])

    @rule()
    def absorb(self) -> None:
        try:
            self.completions.absorb()
        except StreamlabelError as error:
            self.stopping = error

    @rule(seconds=st.sampled_from((0.1, 0.6)))
    def commit_if_due(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.commits.commit_if_due()

    @rule(accepted=st.booleans())
    def answer_a_commit(self, *, accepted: bool) -> None:
        if not self.source.answers:
            return
        done = self.source.answers.pop(0)
        if accepted:
            mine = {p: o for p, o in self.source.commits[-1].items() if self.records[p].epoch}
            self._accept(mine)
        done(None if accepted else BrokerAway("the answer was lost"))

    # -- a revocation ------------------------------------------------------------------------------

    @rule(
        partition=st.sampled_from(_PARTITIONS),
        while_draining=st.sampled_from(("all", "one", "none", "crash")),
        fault=st.sampled_from((None, None, *_FAULTS)),
    )
    def revoke(
        self, partition: Partition, while_draining: str, fault: StreamlabelError | None
    ) -> None:
        records = self.records[partition]
        if not records.epoch:
            return
        self.while_draining, self.commit_fault = while_draining, fault
        began = self.clock.now
        waiting = sum(entry.record.ref.partition == partition.partition for entry in self._kept())
        self.rebalance.on_revoked([partition])
        assert self.clock.now - began <= 2 * _DRAIN + 1, "a revocation has a bound"
        self.commit_fault = None
        drained = while_draining == "all"
        if drained and fault is None and self.stopping is None:
            assert records.committed == records.position - waiting, "what was drained is committed"
        self._leave(partition)

    @rule(partition=st.sampled_from(_PARTITIONS))
    def lose(self, partition: Partition) -> None:
        if self.records[partition].epoch:
            self.rebalance.on_lost([partition])
            self._leave(partition)

    def _leave(self, partition: Partition) -> None:
        records = self.records[partition]
        self.late += records.flying
        records.flying, records.epoch = [], 0
        self._note_positions()
        assert partition not in self.offsets.partitions, "a fault before must not keep it"
        assert not any(entry.record.ref.partition == partition.partition for entry in self._kept())
        with contextlib.suppress(StreamlabelError):
            self.completions.absorb()

    def _kept(self) -> list[WorkItem | InvalidRecord]:
        return [waiting[0] for waiting in self.batcher._waiting]

    def answer_while_draining(self) -> None:
        flying = [ref for records in self.records.values() for ref in records.flying]
        if self.while_draining == "crash":
            self.while_draining = "none"
            self.completions.crashed("infer", ValueError("boom"))
        elif self.while_draining == "all":
            self._answer(flying)
        elif self.while_draining == "one":
            self._answer(flying[:1])
            self.while_draining = "none"

    # -- promises ----------------------------------------------------------------------------------

    @invariant()
    def no_offset_passes_an_open_record(self) -> None:
        for partition, records in self.records.items():
            passed = set(range(records.committed))
            assert passed <= records.answered, (partition, passed - records.answered)

    @invariant()
    def the_counters_agree(self) -> None:
        waiting = len(self.batcher)
        flying = sum(len(records.flying) for records in self.records.values())
        unheard = self.offsets.records - waiting - flying
        assert unheard >= 0
        assert unheard == sum(len(c.outcomes) for c in self._reported() if not c.error)

    def _reported(self) -> list[Completion]:
        """Return the completions that wait, without those of older assignments."""
        queue, waiting = self.completions._completions, []
        for _ in range(queue.qsize()):
            completion = queue.get_nowait()
            waiting.append(completion)
            queue.put(completion)
        return [c for c in waiting if all(map(self.offsets.tracks, (o.ref for o in c.outcomes)))]


TestAssignments = Assignments.TestCase
TestAssignments.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
