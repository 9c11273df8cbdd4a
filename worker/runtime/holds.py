"""Holds partitions whose next record can't be decoded yet, because its schema is not known.

Owns: which partition waits for which schema.
Thread: the poll thread.
Must not import: kafka, inference, cli, registry.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from worker.core.formats.format import Format
from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef
from worker.kafka_io.source import RecordSource


class _Hold(NamedTuple):
    """The record that a partition begins with again, and its schema."""

    ref: RecordRef
    schema: Hashable


class Holds:
    """Holds partitions until the schemas that they wait for are settled.

    A record that is not decoded yet must not be tracked: it would keep everything behind it from
    being committed, and look like a stall. So it goes back to the source, with all records after
    it, and the source's position is the record's offset again.

    Args:
        source: stops fetching a partition, and continues.
        offsets: know which assignments are current; a hold ends with its partition's epoch.
        format_: tells which schemas are settled.
        away: returns why the schema registry does not answer a request, None if it does.

    Attributes:
        away: as given.
    """

    def __init__(
        self,
        source: RecordSource,
        offsets: OffsetTracker,
        format_: Format,
        away: Callable[[], str | None],
    ) -> None:
        self._source, self._offsets, self._format = source, offsets, format_
        self.away = away
        self._holds: dict[Partition, _Hold] = {}

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that wait."""
        return tuple(self._holds)

    @property
    def waits(self) -> bool:
        """True if an answer of the registry is due any moment."""
        return bool(self._holds) and self.away() is None

    def hold(self, ref: RecordRef, schema: Hashable) -> None:
        """Let a partition wait for a schema, from this record on."""
        self._source.hold(ref)
        self._holds[Partition(ref.topic, ref.partition)] = _Hold(ref, schema)

    def release_settled(self) -> None:
        """Continue with the partitions whose schemas are settled."""
        for partition, hold in list(self._holds.items()):
            if not self._offsets.tracks(hold.ref) or self._format.settled(hold.schema):
                del self._holds[partition]
                self._source.release(partition)
