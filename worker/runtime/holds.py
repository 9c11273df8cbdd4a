"""Holds partitions whose next record can't be decoded yet, because its schema is not known.

Owns: which partition waits for which schema.
Thread: the poll thread.
Must not import: kafka, inference, cli, registry.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, Protocol

from worker.core.offsets import OffsetTracker
from worker.core.records import Partition, RecordRef
from worker.kafka_io.source import RecordSource


class Schemas(Protocol):
    """The schemas of the input's records."""

    def settled(self, schema: Hashable) -> bool:
        """Return whether a record that raised `SchemaPending` can be decoded by now.

        Raises:
            SchemaRefused: the registry refuses a schema or the sign-in; the worker can't go on.
        """

    def away(self) -> str | None:
        """Return why the registry does not answer, None if it does or nothing was asked."""


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
        schemas: tell what is settled.
    """

    def __init__(self, source: RecordSource, offsets: OffsetTracker, schemas: Schemas) -> None:
        self._source, self._offsets, self._schemas = source, offsets, schemas
        self._holds: dict[Partition, _Hold] = {}

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that wait."""
        return tuple(self._holds)

    @property
    def waits(self) -> bool:
        """True if an answer of the registry is due any moment."""
        return bool(self._holds) and self._schemas.away() is None

    def hold(self, ref: RecordRef, schema: Hashable) -> None:
        """Let a partition wait for a schema, from this record on."""
        self._source.hold(ref)
        self._holds[Partition(ref.topic, ref.partition)] = _Hold(ref, schema)

    def release_settled(self) -> None:
        """Continue with the partitions whose schemas are settled.

        Raises:
            SchemaRefused: the registry refuses a schema or the sign-in.
        """
        for partition, hold in list(self._holds.items()):
            if not self._offsets.tracks(hold.ref) or self._schemas.settled(hold.schema):
                del self._holds[partition]
                self._source.release(partition)

    def away(self) -> str | None:
        """Return why the registry does not answer, None if it does or nothing was asked."""
        return self._schemas.away()
