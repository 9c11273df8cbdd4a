"""What an audit found, and which promises that breaks. Pure; imports no other room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Offence = Literal["missing", "duplicated", "reordered", "orphans"]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found. `consumed` is `published` + `dead_lettered` + `missing`.

    Attributes:
        consumed: input records that are judged.
        published, dead_lettered: those whose first outcome is a result, a dead letter.
        missing: those without an outcome.
        duplicated: outcomes beyond a record's first one.
        reordered: outcomes that came after one of a later record of the same partition.
        orphans: outcomes of no input record, or without readable coordinates.
        pending: input offsets that are not judged yet.
        unjudged: reason -> records or outcomes of which nothing can be said.
        examples: a few coordinates of each offence.
    """

    consumed: int
    published: int
    dead_lettered: int
    missing: int
    duplicated: int
    reordered: int
    orphans: int
    pending: int
    unjudged: Mapping[str, int]
    examples: Mapping[Offence, list[str]]

    def breaches(self, allowed_duplicates: int | None) -> list[Offence]:
        """The offences that break a promise; `allowed_duplicates` None means any number."""
        broken: list[Offence] = []
        if self.missing:
            broken.append("missing")
        if allowed_duplicates is not None and self.duplicated > allowed_duplicates:
            broken.append("duplicated")
        if self.reordered:
            broken.append("reordered")
        if self.orphans:
            broken.append("orphans")
        return broken
