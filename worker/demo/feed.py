"""Drives the demo's traffic: sends the records that are due and reads the outcomes.

Owns: the pace. It knows the broker only as a sender and a reader.
Thread: main; no step waits.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from worker.clock import Clock
from worker.core.records import RawRecord
from worker.demo.tally import Tally
from worker.errors import Fatal

# With no rate given, a step sends this many at most, so that the screen keeps moving.
_BURST: Final = 200
_STALL_S: Final = 60.0


class RecordSender(Protocol):
    """Sends records and reports the offsets that they got."""

    def send(self, tag: int, key: bytes, value: bytes | None, timestamp_ms: int) -> None: ...
    def acknowledged(self) -> Iterable[tuple[int, int, int]]: ...


class OutcomeReader(Protocol):
    """Returns the records that were published since the last call."""

    def read(self) -> list[RawRecord]: ...


class SampleFeed:
    """Sends the sample once, and reads results and dead letters meanwhile.

    Args:
        tally: the records to send; counts what is sent and read.
        sender: writes to the input topic.
        reader: reads results and dead letters.
        rate: records a second; 0 is as fast as possible.
        clock: for the pace and the records' timestamps.
    """

    def __init__(
        self, tally: Tally, sender: RecordSender, reader: OutcomeReader, rate: float, clock: Clock
    ) -> None:
        self._tally = tally
        self._sender = sender
        self._reader = reader
        self._rate = rate
        self._clock = clock
        self._started = clock.monotonic()
        self._last_counts = (0, 0)  # sent, answered
        self._last_change = self._started

    def step(self) -> None:
        """Send the records that are due and note the outcomes that have arrived.

        Raises:
            Fatal: records wait for their outcome, and nothing has changed for a minute.
            StreamlabelError: the broker refused a record or is unreachable.
        """
        for _ in range(self._due()):
            self._send_next()
        for acknowledgement in self._sender.acknowledged():
            self._tally.note_acknowledged(*acknowledgement)
        for record in self._reader.read():
            self._tally.note_outcome(record)
        self._check_stall()

    def _due(self) -> int:
        left = self._tally.total - self._tally.sent
        if not self._rate:
            return min(left, _BURST)
        elapsed = self._clock.monotonic() - self._started
        return max(0, min(left, int(elapsed * self._rate) + 1 - self._tally.sent))

    def _send_next(self) -> None:
        index = self._tally.sent
        record = self._tally.records[index]
        # Counted before it is sent: the run's time starts before its first record.
        self._tally.note_sent()
        self._sender.send(index, record.key, record.value, self._clock.wall_ms())

    def _check_stall(self) -> None:
        tally, now = self._tally, self._clock.monotonic()
        if (tally.sent, tally.answered) != self._last_counts:
            self._last_counts, self._last_change = (tally.sent, tally.answered), now
        elif now - self._last_change > _STALL_S and tally.sent > tally.answered:
            raise Fatal(
                f"no outcome for {tally.sent - tally.answered} of {tally.sent} records, and none "
                f"has arrived for {_STALL_S:.0f} s"
            )
