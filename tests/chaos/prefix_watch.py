"""Reads the outcomes of a run while its workers die, and checks every prefix of the log.

The watch has a thread. A broker that does not answer costs a round, but never makes a check wrong:
a check needs the answers that come before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from tests.chaos.lives import Lives
from tests.chaos.prefixes import Prefixes
from tests.chaos.sent import number_of
from tests.chaos.watch import Watch
from worker.clock import SystemClock
from worker.core.records import Partition
from worker.core.replay_outcomes import Kind
from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit_outcomes import read_outcome
from worker.kafka_io.reader import AuditRecord
from worker.settings import KafkaSettings

_ROUND_S: Final = 0.1
_ANSWER_MS: Final = 10_000
_LAST_S: Final = 60.0  # for the end of the run
_JOIN_S: Final = 2 * _LAST_S


class PrefixWatch(Watch):
    """Checks a run in exactly-once delivery, for the length of a `with` block.

    Args:
        servers: addresses without a proxy.
        group: of the workers.
        inputs: the topic that they read.
        outcomes: topic -> kind of the outcomes in it.
        lives: of the input's log, if it may end.

    Attributes:
        prefixes: the findings; complete after the block.
        rounds: number of moments that were looked at.
    """

    def __init__(
        self,
        servers: str,
        group: str,
        inputs: str,
        outcomes: Mapping[str, Kind],
        lives: Lives | None = None,
    ) -> None:
        super().__init__("prefixes", _JOIN_S)
        self._kafka = KafkaSettings(bootstrap_servers=servers)
        self._group, self._input, self._outcomes = group, inputs, outcomes
        self._clock, self._lives = SystemClock(), lives
        self.prefixes = Prefixes()
        self.rounds = 0

    @property
    def failure(self) -> str:
        """Say why the watch can't vouch for the run; empty if it can. Final after the block."""
        if self.error:
            return f"the watch of the prefixes ended early: {self.error}"
        if self.prefixes.waiting:
            return f"the watch of the prefixes had not read all outcomes after {_LAST_S:g} s"
        if not self.prefixes.checks["complete"]:
            return f"the watch of the prefixes checked nothing in {self.rounds} rounds"
        return ""

    def _look(self) -> None:
        with contextlib.ExitStack() as stack:
            if opened := self._open(stack):
                self._watch(*opened)

    def _open(self, stack: contextlib.ExitStack) -> tuple[Any, Admin] | None:
        """Connect once the cluster answers; return None if the run ends before."""
        while not self._stop.is_set():
            with contextlib.suppress(KafkaError, StreamlabelError):
                consumer = stack.enter_context(contextlib.closing(self._consumer()))
                return consumer, stack.enter_context(Admin(self._kafka))
            self._clock.sleep(_ROUND_S)
        return None

    def _consumer(self) -> Any:
        return KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers.split(","),
            group_id=self._group,  # whose offsets it reads; it does not join
            isolation_level="read_committed",  # and so it reads stable offsets
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    def _watch(self, consumer: Any, admin: Admin) -> None:
        while not self._stop.is_set():
            self._try_round(consumer, admin)
            self._clock.sleep(_ROUND_S)
        deadline = self._clock.monotonic() + _LAST_S
        done = self._try_round(consumer, admin)
        while not (done and not self.prefixes.waiting):
            if self._clock.monotonic() > deadline:
                self.error = "" if done else f"no last look in {_LAST_S:g} s"
                return
            self._clock.sleep(_ROUND_S)
            done = self._try_round(consumer, admin) or done

    def _try_round(self, consumer: Any, admin: Admin) -> bool:
        try:
            if not self._steady_round(consumer, admin):
                return False
        except (KafkaError, StreamlabelError):
            return False
        self.rounds += 1
        return True

    def _steady_round(self, consumer: Any, admin: Admin) -> bool:
        """Look once, unless the input has just no log."""
        if self._lives is None:
            self._round(consumer, admin)
            return True
        with self._lives.steady() as alive:
            if alive:
                self._round(consumer, admin)
            return alive

    def _round(self, consumer: Any, admin: Admin) -> None:
        numbers = None if self._lives is None else frozenset(self._lives.finished)
        committed = self._stable(consumer, self._starts(admin))
        ends = {
            Partition(topic, p): end
            for topic in self._outcomes
            for p, end in admin.end_offsets(topic).items()
        }
        self.prefixes.expect(committed, ends, numbers)
        consumer.assign([TopicPartition(*partition) for partition in ends])
        for tp, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                self._see(tp, record)
        starts = self._starts(admin)
        self.prefixes.covered(self._stable(consumer, {*starts, *self.prefixes.fresh}))
        positions = {p: consumer.position(TopicPartition(*p), _ANSWER_MS) or 0 for p in ends}
        self.prefixes.reached(positions, starts)

    def _starts(self, admin: Admin) -> dict[Partition, int]:
        starts = admin.start_offsets(self._input)
        return {Partition(self._input, number): start for number, start in starts.items()}

    def _stable(self, consumer: Any, inputs: Iterable[Partition]) -> dict[Partition, int]:
        found = {p: consumer.committed(TopicPartition(*p), timeout_ms=_ANSWER_MS) for p in inputs}
        return {partition: offset or 0 for partition, offset in found.items()}

    def _see(self, tp: TopicPartition, record: Any) -> None:
        read = AuditRecord(
            tp.partition,
            record.offset,
            record.headers,
            record.timestamp,
            record.value or b"",
            record.key,
        )
        outcome = read_outcome(self._outcomes[tp.topic], read)
        if outcome is None:
            return
        if self._lives is None:
            self.prefixes.see(outcome, tp.topic)
            return
        number = number_of(record.headers)
        if number is None:
            number = self._lives.find(outcome)
        self.prefixes.see(outcome, tp.topic, number, ended=(number or 0) < self._lives.first)
