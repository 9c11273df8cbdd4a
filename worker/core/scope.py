"""The offsets of one input partition that an audit judges.

Owns: nothing.
Thread: main, of `streamlabel audit`; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """The offsets of one input partition that are judged.

    Attributes:
        start: records below this offset are not judged.
        limit: records from `start` on and below this offset must have an outcome.
        end: end of the partition, read after the ends of the outcomes' topics: no outcome can
            belong to this offset or a later one.
        range_end: end of the range that the group labels; None if it has none.
    """

    limit: int
    end: int
    start: int = 0
    range_end: int | None = None

    def outside(self, offset: int) -> bool:
        """Return whether an offset is not in the range that the group labels."""
        return offset < self.start or (self.range_end is not None and offset >= self.range_end)

    @property
    def pending(self) -> range:
        """The offsets that a later audit will judge."""
        last = self.end if self.range_end is None else self.range_end
        return range(max(self.limit, self.start), max(self.limit, self.start, last))
