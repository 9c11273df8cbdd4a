"""The limits of an output topic: read at start, and corrected by the broker's refusals.

If the broker does not return a topic's configuration, the worker learns its limits: it sends a
record, and a refusal corrects the limits for the next try.

Owns: the known limits of one output topic.
Thread: publish; pure.
Must not import: anything but core.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from worker.core.topics import DEFAULT_AFTER_MS, DEFAULT_MAX_MESSAGE_BYTES, TopicInfo

# A broker closes the connection of a request above 100 MiB (`socket.request.max.bytes`).
LARGEST_RECORD = 32 * 1024 * 1024
_AROUND_RECORD = 2_000  # bytes of a request: names of a topic, a client and a transaction
_CLOCKS_DIFFER_MS = 60_000
_RANGE = re.compile(r"within \[(-?\d+), (-?\d+)\]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The broker's refusal of one record.

    Attributes:
        kind: `size` and `timestamp` can be corrected, `record` is any other reason.
        message: the broker's error message.
    """

    kind: Literal["size", "timestamp", "record"]
    message: str


@dataclass(slots=True)
class TopicLimits:
    """The limits of one topic.

    Attributes:
        max_bytes: size of the largest record; None if unknown.
        before_ms, after_ms: how far a timestamp may be behind or ahead of now; None: any distance.
        retention_ms: how long after its timestamp a record is kept; None: for ever, or unknown.
        keyless: the broker's message about a record without a key; empty until one is refused.
    """

    max_bytes: int | None = None
    before_ms: int | None = None
    after_ms: int | None = DEFAULT_AFTER_MS
    retention_ms: int | None = None
    keyless: str = ""

    @classmethod
    def of(cls, info: TopicInfo, max_request: int | None = None) -> TopicLimits:
        """Return the limits in the topic's configuration.

        Args:
            info: the configuration, if the broker returns it.
            max_request: bytes of the largest request that brokers accept, if known.
        """
        known = [info.max_message_bytes] if info.max_message_bytes is not None else []
        if max_request is not None:
            known.append(max_request - _AROUND_RECORD)
        if not info.is_described:
            return cls(min(known, default=None))
        return cls(
            max_bytes=min(known),
            before_ms=info.timestamp_before_ms if info.keeps_timestamps else None,
            after_ms=info.timestamp_after_ms if info.keeps_timestamps else None,
            retention_ms=info.deletes_after_ms if info.keeps_timestamps else None,
        )

    @property
    def most_bytes(self) -> int:
        """Size of the largest record to send."""
        return LARGEST_RECORD if self.max_bytes is None else self.max_bytes

    def timestamp(self, timestamp_ms: int, now_ms: int) -> int:
        """Return the timestamp, or now if the topic would refuse it."""
        ahead = timestamp_ms - now_ms
        early = self.before_ms is not None and -ahead >= _with_margin(self.before_ms)
        late = self.after_ms is not None and ahead >= _with_margin(self.after_ms)
        return now_ms if early or late else timestamp_ms

    def expired(self, timestamp_ms: int, now_ms: int) -> bool:
        """Return whether retention would delete a record with this timestamp at once."""
        age_ms = now_ms - timestamp_ms if timestamp_ms >= 0 else 0  # -1: no timestamp
        return self.retention_ms is not None and age_ms >= self.retention_ms

    def refused_size(self, size: int, *, cut: bool) -> None:
        """Note that a record of this size was too large.

        Args:
            size: bytes, as the encoder counts them.
            cut: whether the next record is cut to the limit. If so, the limit is lowered a lot, as
                every further refusal costs a connection.
        """
        if not cut:
            self.max_bytes = size - 1
        elif size > DEFAULT_MAX_MESSAGE_BYTES:
            self.max_bytes = DEFAULT_MAX_MESSAGE_BYTES
        else:
            self.max_bytes = size // 2

    def refused_timestamp(self, timestamp_ms: int, now_ms: int, message: str) -> None:
        """Note that this timestamp was too far from now; Kafka's message states the range."""
        ahead, bounds = timestamp_ms - now_ms, _RANGE.search(message)
        if ahead < 0:
            self.before_ms = now_ms - int(bounds[1]) if bounds else -ahead // 2
        else:
            self.after_ms = int(bounds[2]) - now_ms if bounds else ahead // 2


def _with_margin(bound_ms: int) -> int:
    """Reduce a bound, so that it holds by the clocks of both worker and broker."""
    return bound_ms - min(_CLOCKS_DIFFER_MS, bound_ms // 10)
