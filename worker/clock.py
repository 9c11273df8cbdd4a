"""The only module that reads time; everything else is given a `Clock`.

Any thread may use it. Tests pass a clock of their own.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as Kafka's record timestamps are."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds that never go back, from an arbitrary start."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as Kafka's record timestamps are."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        time.sleep(seconds)
