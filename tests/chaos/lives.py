"""Follows an input whose log may be deleted and created again, or lose records.

A topic that is created again has other records at the same offsets, and compaction leaves holes.
The audit knows a record by its offset, so it can't tell which records must have an outcome. This
watch can: it reads each record that the log still has after the group has committed an offset
beyond it. So the group has read the record, and must have labelled it.

The watch has a thread. The harness's thread ends a life of the log and begins the next one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tests.chaos.sent import Sent, number_of
from tests.chaos.watch import Watch
from worker.clock import SystemClock
from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit_outcomes import AuditedOutcome
from worker.kafka_io.reader import TopicReader
from worker.settings import KafkaSettings

_ROUND_S: Final = 0.1
_PATIENCE_S: Final = 2.0
_JOIN_S: Final = 30.0


class Lives(Watch):
    """The lives of an input's log, for the length of a `with` block.

    Args:
        servers: addresses without a proxy.
        topic: that the workers read.
        committed: returns their group's offset of each of its partitions.
        sent: its records, by number.

    Attributes:
        finished: numbers of records that the log had after the group had committed an offset
            beyond them. Each must have an outcome.
        first: number of the first record of the current life; earlier ones are of ended lives.
        number: of the current life, from 1 on.
        reached: whether the group has finished a record of the current life.
    """

    def __init__(
        self, servers: str, topic: str, committed: Callable[[Admin], Mapping[int, int]], sent: Sent
    ) -> None:
        super().__init__("lives", _JOIN_S)
        self._kafka = KafkaSettings(bootstrap_servers=servers)
        self._topic, self._committed = topic, committed
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._positions: dict[int, int] = {}
        self._away = False
        self._begun = self._complete = 0  # the last round that began, and the last without a gap
        self.sent = sent
        self.finished: set[int] = set()
        self.first, self.number, self.reached = 0, 1, False

    @property
    def failure(self) -> str:
        """Say why the watch can't tell which records must have an outcome; empty if it can."""
        if self.error:
            return f"the watch of the input ended early: {self.error}"
        return "" if self.finished else "the watch of the input found no record that was finished"

    def end(self, patience: float) -> bool:
        """End the current life; the log is not looked at until `begin`.

        Each record that the group has finished by now is found first. Otherwise a record that it
        had committed since the last round, without an outcome, would count as lost with its log.

        Returns:
            False, and the life goes on, if the log can't be read within `patience` seconds.
        """
        deadline = self._clock.monotonic() + patience
        with self._lock:  # no round is under way
            last = self._begun
        while self._complete <= last:
            if self._clock.monotonic() > deadline:
                return False
            self._clock.sleep(_ROUND_S)
        with self._lock:
            self._away = True
        return True

    def begin(self, first: int) -> None:
        """Begin another life, which may have other records from any offset on.

        Args:
            first: number of its first record.
        """
        with self._lock:
            self.first, self._away, self.reached = first, False, False
            self.number += 1
            self._positions = {}

    @contextlib.contextmanager
    def steady(self) -> Iterator[bool]:
        """Let no life end or begin in a `with` block; the value is False between two lives."""
        with self._lock:
            yield not self._away

    def find(self, outcome: AuditedOutcome) -> int | None:
        """Return the number of the record of an outcome without one, once its place is known."""
        if outcome.source is None:
            return None
        _, partition, offset = outcome.source
        deadline = self._clock.monotonic() + _PATIENCE_S
        while (number := self.sent.find(partition, offset, outcome.timestamp_ms)) is None:
            if self._clock.monotonic() > deadline:
                return None
            self._clock.sleep(_ROUND_S)  # the acknowledgement is on its way
        return number

    def _look(self) -> None:
        while not self._stop.is_set():
            self._try_life()
            self._clock.sleep(_ROUND_S)

    def _try_life(self) -> None:
        """Look until the life ends, as a consumer ends with its topic, or until a round fails."""
        number = self.number
        with (
            contextlib.suppress(StreamlabelError),
            Admin(self._kafka) as admin,
            TopicReader(self._kafka, _PATIENCE_S) as reader,
        ):
            while self.number == number and not self._stop.is_set():
                if not self._try_round(admin, reader):
                    break
                self._clock.sleep(_ROUND_S)

    def _try_round(self, admin: Admin, reader: TopicReader) -> bool:
        try:
            with self.steady() as alive:
                if alive:
                    self._round(admin, reader)
        except StreamlabelError:
            return False
        return True

    def _round(self, admin: Admin, reader: TopicReader) -> None:
        self._begun += 1
        committed = self._committed(admin)
        begin = {p: self._positions.get(p, 0) for p in committed}
        for record in reader.read(self._topic, committed, begin):
            if (number := number_of(record.headers)) is not None:
                self.finished.add(number)
                self.reached = self.reached or number >= self.first
                self.sent.found(number, record.partition, record.offset, record.timestamp_ms)
            self._positions[record.partition] = record.offset + 1
        for partition, end in committed.items():
            if partition not in reader.unread:
                self._positions[partition] = max(end, begin[partition])
        if not reader.unread:
            self._complete = self._begun
