"""Logs and measures how other clients delay the input.

Owns: how long the group has been joining, and how long each open transaction has held records back.
Thread: the poll thread, once a second.
Must not import: kafka, inference, cli.

Two causes lie outside this worker and its brokers, so health stays green and no other signal shows
them: a producer that neither commits nor aborts its transaction, and a group that waits for one of
its members.
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

_FIRST_LOG_AFTER = 5.0  # seconds; shorter delays are ordinary
_LOG_EVERY = 60.0  # seconds


class InputDelays:
    """Checks periodically for delays that other clients cause.

    Args:
        group: its name, for the log.
        other_members: members of the group just before this worker joined; "unknown" if the group
            could not be asked.
    """

    def __init__(
        self, group: str, other_members: int | str, metrics: Metrics, clock: Clock
    ) -> None:
        self._group, self._metrics, self._clock = group, metrics, clock
        self._other_members = other_members
        self._join = _Delay(clock)
        self._transactions: dict[Partition, _OpenTransaction] = {}

    def check(self, source: RecordSource, partitions: Sequence[Partition]) -> None:
        """Check the group's join, and the open transactions of the assigned partitions."""
        settled = source.settled()
        # Without a broker the wait is for the broker, not for the group.
        self._check_join(joining=source.connected() and not settled)
        if settled:
            self._other_members = "unknown"  # the number may have changed since
        positions = source.positions()
        for partition in partitions:
            end, stable = source.end_offset(partition), source.stable_end(partition)
            if end is not None and stable is not None:
                # A transaction delays nothing until every record before it is read.
                caught_up = positions.get(partition, -1) >= stable
                self._check_transaction(partition, stable, end - stable if caught_up else 0)
        for revoked in self._transactions.keys() - set(partitions):
            del self._transactions[revoked]

    def _check_join(self, *, joining: bool) -> None:
        if not joining:
            if self._join.end():
                log.info("joined group", group=self._group)
        elif self._join.log_due():
            log.warning(
                "joining group is slow: the group waits for every other member to rejoin, and for a "
                "dead member until its session times out (kafka.session_timeout)",
                group=self._group,
                seconds=round(self._join.seconds),
                other_members=self._other_members,
            )
        self._metrics.joining.set(self._join.seconds)

    def _check_transaction(self, partition: Partition, first_offset: int, held: int) -> None:
        topic, number = partition
        known = self._transactions.get(partition)
        if known and (held <= 0 or known.first_offset != first_offset):
            del self._transactions[partition]
            if known.delay.end():
                log.info("open transaction ended", topic=topic, partition=number)
        seconds = self._delayed(partition, first_offset, held) if held > 0 else 0.0
        self._metrics.open_transaction.labels(topic, str(number)).set(seconds)

    def _delayed(self, partition: Partition, first_offset: int, held: int) -> float:
        """Log a transaction that holds records back, when due; return its seconds."""
        new = _OpenTransaction(first_offset, _Delay(self._clock))
        delay = self._transactions.setdefault(partition, new).delay
        if delay.log_due():
            log.warning(
                "another producer's open transaction holds back the input: later records can't be read "
                "until the producer commits or aborts it, or the broker aborts it after the producer's "
                "transaction.timeout.ms (`kafka-transactions.sh list` shows it)",
                topic=partition.topic,
                partition=partition.partition,
                offset=first_offset,
                held=held,
                seconds=round(delay.seconds),
            )
        return delay.seconds


class _Delay:
    """Times one delay, and decides when to log it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._logged_at: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else self._clock.monotonic() - self._since

    def log_due(self) -> bool:
        """Note that the delay goes on; return True if it should be logged now."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        last, interval = (
            (self._since, _FIRST_LOG_AFTER)
            if self._logged_at is None
            else (self._logged_at, _LOG_EVERY)
        )
        due = now - last >= interval
        self._logged_at = now if due else self._logged_at
        return due

    def end(self) -> bool:
        """Note that the delay is over; return True if it had been logged."""
        logged, self._since, self._logged_at = self._logged_at is not None, None, None
        return logged


@dataclass(frozen=True, slots=True)
class _OpenTransaction:
    """Another producer's transaction: the offset of its first record, and the delay it causes."""

    first_offset: int
    delay: _Delay
