"""The terms on which a topic takes records: told at start, corrected by refusals. Pure.

The encoder owns one of each output topic, on the publish thread. A broker that does not tell a
topic's limits is found out about: a record is tried, and a refusal teaches what to try next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from worker.core.topics import DEFAULT_AFTER_MS, DEFAULT_MAX_MESSAGE_BYTES, TopicInfo

# A broker takes requests of 100 MiB (`socket.request.max.bytes`) and hangs up on larger ones.
LARGEST_RECORD = 32 * 1024 * 1024
_CLOCKS_DIFFER_MS = 60_000
_RANGE = re.compile(r"within \[(-?\d+), (-?\d+)\]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The broker's answer to one record.

    Attributes:
        kind: `size` and `timestamp` can be mended, `record` is anything else.
        words: the broker's own.
    """

    kind: Literal["size", "timestamp", "record"]
    words: str


@dataclass(slots=True)
class Terms:
    """The terms of one topic.

    Attributes:
        max_bytes: the largest record; None where it is not known.
        before_ms, after_ms: how far behind or ahead of now a timestamp may lie; None: any.
        retention_ms: how long after its timestamp a record is kept; None: for ever, or not known.
        keyless: the broker's words on a record without a key; empty while none was refused.
    """

    max_bytes: int | None = None
    before_ms: int | None = None
    after_ms: int | None = DEFAULT_AFTER_MS
    retention_ms: int | None = None
    keyless: str = ""

    @classmethod
    def of(cls, info: TopicInfo) -> Terms:
        """As the topic's configuration has it."""
        if not info.told:
            return cls()
        return cls(
            max_bytes=info.max_message_bytes,
            before_ms=info.timestamp_before_ms if info.keeps_timestamps else None,
            after_ms=info.timestamp_after_ms if info.keeps_timestamps else None,
            retention_ms=info.deletes_after_ms if info.keeps_timestamps else None,
        )

    @property
    def most_bytes(self) -> int:
        """The largest record that is worth a try."""
        return LARGEST_RECORD if self.max_bytes is None else self.max_bytes

    def timestamp(self, timestamp_ms: int, now_ms: int) -> int:
        """The timestamp, or now where the topic would refuse it."""
        ahead = timestamp_ms - now_ms
        early = self.before_ms is not None and -ahead >= _less_a_bit(self.before_ms)
        late = self.after_ms is not None and ahead >= _less_a_bit(self.after_ms)
        return now_ms if early or late else timestamp_ms

    def expired(self, timestamp_ms: int, now_ms: int) -> bool:
        """True where retention would delete a record with this timestamp as soon as it is written."""
        age_ms = now_ms - timestamp_ms if timestamp_ms >= 0 else 0  # -1: it has none
        return self.retention_ms is not None and age_ms >= self.retention_ms

    def refused_size(self, size: int, *, cut: bool) -> None:
        """A record of so many bytes was too large.

        Args:
            size: as the encoder counts it.
            cut: whether the next one is cut to what fits: then the next guess should be far
                enough below, for each further refusal costs a connection.
        """
        if not cut:
            self.max_bytes = size - 1
        elif size > DEFAULT_MAX_MESSAGE_BYTES:
            self.max_bytes = DEFAULT_MAX_MESSAGE_BYTES
        else:
            self.max_bytes = size // 2

    def refused_timestamp(self, timestamp_ms: int, now_ms: int, words: str) -> None:
        """This timestamp lay too far from now; Kafka's words tell the range."""
        ahead, told = timestamp_ms - now_ms, _RANGE.search(words)
        if ahead < 0:
            self.before_ms = now_ms - int(told[1]) if told else -ahead // 2
        else:
            self.after_ms = int(told[2]) - now_ms if told else ahead // 2


def _less_a_bit(bound_ms: int) -> int:
    """A bound as two clocks that differ both keep it."""
    return bound_ms - min(_CLOCKS_DIFFER_MS, bound_ms // 10)
