"""Says in the log, and measures, how others hold the input up. Poll thread.

Neither is a fault of this worker or of a broker, so that health stays green and nothing else tells:
a producer that neither commits nor aborts its transaction, and a group that waits for a member.
Imports core, kafka_io's protocols and the ground floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.clock import Clock
from worker.core.records import Partition
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)

_PATIENCE = 5.0  # seconds; a shorter wait is an ordinary one
_SAY_AGAIN = 60.0  # seconds


class Holdups:
    """Looks now and then whether something holds the input up, and for how long.

    Args:
        group: its name, for the log.

    Attributes:
        others: members of the group when this worker began to join it, where that is known.
    """

    def __init__(self, group: str, metrics: Metrics, clock: Clock) -> None:
        self._group, self._metrics, self._clock = group, metrics, clock
        self.others: int | str = "unknown"
        self._join = _Wait(clock)
        self._open: dict[Partition, _Open] = {}

    def look(self, source: RecordSource, partitions: Sequence[Partition]) -> None:
        """Judge the group, and these partitions, which are assigned."""
        settled = source.settled()
        # Without a broker nobody waits for the group, but for the broker.
        self._look_at_join(waits=source.connected() and not settled)
        self.others = "unknown" if settled else self.others  # it may have changed since
        positions = source.positions()
        for partition in partitions:
            end, stable = source.end_offset(partition), source.stable_end(partition)
            if end is not None and stable is not None:
                # It holds nothing up until all that lies before it is read.
                read = positions.get(partition, -1) >= stable
                self._look_at(partition, stable, end - stable if read else 0)
        for gone in self._open.keys() - set(partitions):
            del self._open[gone]

    def _look_at_join(self, *, waits: bool) -> None:
        if not waits:
            if self._join.end():
                log.info("the wait for the group is over", group=self._group)
        elif self._join.to_be_said():
            log.warning(
                "joining the group takes long: it waits until all others have joined again, and for one "
                "that died until its session is over (kafka.session_timeout)",
                group=self._group,
                seconds=round(self._join.seconds),
                others=self.others,
            )
        self._metrics.joining.set(self._join.seconds)

    def _look_at(self, partition: Partition, stable: int, held: int) -> None:
        topic, number = partition
        before = self._open.get(partition)
        if before and (held <= 0 or before.offset != stable):
            del self._open[partition]
            if before.wait.end():
                log.info("an open transaction has ended", topic=topic, partition=number)
        seconds = self._hold(partition, stable, held) if held > 0 else 0.0
        self._metrics.open_transaction.labels(topic, str(number)).set(seconds)

    def _hold(self, partition: Partition, stable: int, held: int) -> float:
        wait = self._open.setdefault(partition, _Open(stable, _Wait(self._clock))).wait
        if wait.to_be_said():
            log.warning(
                "another producer's open transaction holds the input up: nothing behind its first "
                "record can be read until that producer commits or aborts it, or the broker does at "
                "the producer's transaction.timeout.ms (`kafka-transactions.sh list` shows it)",
                topic=partition.topic,
                partition=partition.partition,
                offset=stable,
                held=held,
                seconds=round(wait.seconds),
            )
        return wait.seconds


class _Wait:
    """One wait: since when, and when it was said last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._said_at: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else self._clock.monotonic() - self._since

    def to_be_said(self) -> bool:
        """It goes on: whether that is to be said, after a while and then once in a while."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        last, pause = (
            (self._since, _PATIENCE) if self._said_at is None else (self._said_at, _SAY_AGAIN)
        )
        due = now - last >= pause
        self._said_at = now if due else self._said_at
        return due

    def end(self) -> bool:
        """It is over: whether it was said to go on."""
        said, self._since, self._said_at = self._said_at is not None, None, None
        return said


@dataclass(frozen=True, slots=True)
class _Open:
    """An open transaction: the offset of its first record, and how long it has held us up."""

    offset: int
    wait: _Wait
