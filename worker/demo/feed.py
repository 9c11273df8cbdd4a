"""Moves the demo along: sends what is due, reads what came back.

Owns: the pace. Knows the broker only as something that sends and something that reads. Runs on:
the demo's main thread; no step waits. Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from worker.clock import Clock
from worker.core.records import RawRecord
from worker.demo.tally import Tally
from worker.errors import Fatal

# As fast as they go, but no more at once than keeps the view moving.
_BURST: Final = 200
_STALL_S: Final = 60.0


class Producer(Protocol):
    """Sends records and tells where they landed."""

    def send(self, tag: int, key: bytes, value: bytes | None, timestamp_ms: int) -> None: ...
    def acknowledged(self) -> Iterable[tuple[int, int, int]]: ...


class Reader(Protocol):
    """Gives what was published since it was last asked."""

    def read(self) -> list[RawRecord]: ...


class Feed:
    """One run through the sample.

    Args:
        tally: the records to send, and where everything is noted.
        producer: of the input topic.
        reader: of results and dead letters.
        rate: records a second; 0 is as fast as they go.
        clock: the pace and the records' timestamps.
    """

    def __init__(
        self, tally: Tally, producer: Producer, reader: Reader, rate: float, clock: Clock
    ) -> None:
        self._tally = tally
        self._producer = producer
        self._reader = reader
        self._rate = rate
        self._clock = clock
        self._begun = clock.monotonic()
        self._moved = (0, 0)
        self._moved_at = self._begun

    def step(self) -> None:
        """Send what is due and take in what arrived.

        Raises:
            Fatal: nothing has moved for a minute.
            StreamlabelError: the broker refuses or is away.
        """
        for _ in range(self._due()):
            self._send_next()
        for acknowledged in self._producer.acknowledged():
            self._tally.note_acknowledged(*acknowledged)
        for record in self._reader.read():
            self._tally.note_outcome(record)
        self._watch()

    def _due(self) -> int:
        left = self._tally.total - self._tally.sent
        if not self._rate:
            return min(left, _BURST)
        elapsed = self._clock.monotonic() - self._begun
        return max(0, min(left, int(elapsed * self._rate) + 1 - self._tally.sent))

    def _send_next(self) -> None:
        index = self._tally.sent
        record = self._tally.records[index]
        # Counted first: the clock of the whole run starts before its first record.
        self._tally.note_sent()
        self._producer.send(index, record.key, record.value, self._clock.wall_ms())

    def _watch(self) -> None:
        tally, now = self._tally, self._clock.monotonic()
        if (tally.sent, tally.answered) != self._moved:
            self._moved, self._moved_at = (tally.sent, tally.answered), now
        elif now - self._moved_at > _STALL_S and tally.sent > tally.answered:
            raise Fatal(
                f"{tally.sent - tally.answered} of {tally.sent} records have had no outcome and "
                f"nothing has moved for {_STALL_S:.0f} s"
            )
