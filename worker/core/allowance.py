"""Limits how many records a second a worker takes.

Owns: the records that may be taken now.
Thread: poll; pure.
Must not import: anything.
"""

from __future__ import annotations

# Seconds of records that may be taken at once. A worker that was busy for longer does not catch up.
_BURST = 0.2
# Seconds of records that are taken at least: the model labels several together faster.
_PORTION = 0.1


class Allowance:
    """A number of records that grows with time: a token bucket.

    Args:
        rate: records a second; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._records = 1.0
        self._at: float | None = None

    def limit(self, most: int, now: float) -> int:
        """Return how many records may be taken now, at most `most`.

        Args:
            most: 1 or more.
            now: seconds of the monotonic clock.
        """
        if self._rate is None:
            return most
        passed = 0.0 if self._at is None else now - self._at
        self._at = now
        largest = max(1.0, self._rate * _BURST)
        self._records = min(largest, self._records + passed * self._rate)
        if self._records < self._rate * _PORTION:
            return 0
        return min(most, int(self._records))

    def take(self, records: int) -> None:
        """Note that records were taken."""
        self._records -= records
