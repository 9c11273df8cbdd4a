"""The seams between the record path and the formats of its topics.

Owns: the protocols, and the values that pass through them.
Thread: a `Format` is for the poll thread, a `ResultFormat` for the publish thread.
Must not import: kafka_io, registry.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Protocol

from worker.core.formats.walk import FieldNames
from worker.core.records import Frame, Headers, WorkItem


class SchemaPending(Exception):
    """The schema of a record is not known yet; decode the record again later.

    Attributes:
        schema: identifies it, for `Format.settled`.
    """

    def __init__(self, schema: Hashable) -> None:
        super().__init__(str(schema))
        self.schema = schema


class Document(NamedTuple):
    """A parsed value.

    Attributes:
        payload: an object (a mapping whose values are scalars, mappings and lists), or the text
            itself if the format has no members.
        frame: how a schema registry's serializer framed it; None for a plain value.
        fields: the names of its schema's fields, for messages.
    """

    payload: Any
    frame: Frame | None = None
    fields: FieldNames | None = None


class Format(Protocol):
    """Parses the values of the input topics."""

    @property
    def has_members(self) -> bool:
        """True if a payload is an object, False if it is the text alone."""

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:
        """Parse a value without waiting for anything.

        Args:
            value: of the record.
            headers: of the record.
            topic: of the record; some formats prepare its result, whose topic may depend on it.

        Raises:
            RecordRejected: the value can't be parsed.
            SchemaPending: its schema was requested just now or before, and is not here yet.
        """

    def settled(self, schema: Hashable) -> bool:
        """Return whether a record that raised SchemaPending can be parsed, or rejected, by now."""


class ResultFormat(Protocol):
    """Serialises results."""

    def classification(self, document: Mapping[str, Any], topic: str) -> bytes:
        """Return a result.

        Args:
            document: the members of `schemas.classification.Classification`; times are datetimes.
            topic: the output topic.
        """

    def enriched(self, item: WorkItem, document: Mapping[str, Any], topic: str) -> bytes:
        """Return the value of the item's record with the result added."""
