"""Measures a speed over the last while, and predicts the end.

Owns: the readings of that time.
Thread: the caller's; pure.
Must not import: anything.
"""

from __future__ import annotations

from collections import deque

_WINDOW = 30.0  # seconds; long enough to span a rebalance


class Speed:
    """The speed of a number that grows."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> None:
        """Note how much is done at a time, in seconds.

        The speed counts from the last reading before the first progress: a worker loads its model
        before it does anything.
        """
        if len(self._readings) == 1 and self._readings[0][1] == done:
            self._readings.clear()
        self._readings.append((now, done))
        while len(self._readings) > 2 and self._readings[1][0] <= now - _WINDOW:
            self._readings.popleft()

    @property
    def per_second(self) -> float | None:
        """The mean of the window; None before the second reading."""
        if len(self._readings) < 2:
            return None
        (began, first), (ended, last) = self._readings[0], self._readings[-1]
        return max(0, last - first) / (ended - began) if ended > began else None

    def seconds_left(self, total: int) -> float | None:
        """Return the seconds until `total`; None while nothing moves."""
        speed = self.per_second
        return max(0, total - self._readings[-1][1]) / speed if speed else None


def in_words(seconds: float | None) -> str:
    """Return a time as `1:02:03`, `2:03` or `unknown`."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
