"""Time, behind an interface: every other module receives a `Clock`, and tests pass their own.

Owns: the module `time`.
Thread: any.
Must not import: anything of worker.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; they never go back."""
        ...

    def wall_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC, like the timestamps of Kafka records."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; they never go back."""
        return time.monotonic()

    def wall_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC, like the timestamps of Kafka records."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        time.sleep(seconds)
