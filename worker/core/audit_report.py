"""The findings of an audit, and the promises that they break.

Owns: the report's fields.
Thread: main, of `streamlabel audit`; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Offence = Literal["missing", "unproven", "uncopied", "duplicated", "reordered", "orphans"]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The findings. `consumed` is `published` + `filtered` + `dead_lettered` + `missing`.

    Attributes:
        consumed: input records that are judged.
        published, dead_lettered: input records whose first outcome is a result, or a dead letter.
            A replay is no record of its own: the record that was dead counts under its last one.
        replayed: records that were dead and that a replay has labelled since; part of `published`.
        missing: input records without an outcome.
        duplicated: outcomes after a record's first one.
        reordered: outcomes that follow an outcome of a later record of the same partition.
        orphans: outcomes without an input record, or without readable coordinates.
        pending: input offsets that are not judged yet.
        unjudged: reason -> number of records or outcomes that can't be judged.
        examples: a few coordinates of each offence.
        unproven: input records without an outcome whose outcome may have been removed from the
            beginning of its topic; part of `unjudged`.
        filtered: input records whose first outcome is the note of a filtered record.
        copies: topic -> first copies in it.
        refused_copies: copies that their topic refused; a dead letter tells of each.
        uncopied: copies that a result announces and that are not there.
        of_range: whether the group labels a range, which is proven only while its outcomes last.
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
    replayed: int = 0
    unproven: int = 0
    of_range: bool = False
    filtered: int = 0
    copies: Mapping[str, int] = field(default_factory=dict)
    refused_copies: int = 0
    uncopied: int = 0

    def breaches(self, allowed_duplicates: int | None) -> list[Offence]:
        """Return the offences that break a promise; `allowed_duplicates` None allows any number."""
        broken: list[Offence] = []
        if self.missing:
            broken.append("missing")
        if self.of_range and self.unproven:
            broken.append("unproven")
        if self.uncopied:
            broken.append("uncopied")
        if allowed_duplicates is not None and self.duplicated > allowed_duplicates:
            broken.append("duplicated")
        if self.reordered:
            broken.append("reordered")
        if self.orphans:
            broken.append("orphans")
        return broken
