"""Says in the log how many records became dead letters, by reason. The poll thread owns it.

One line at the first, then one a minute at most. Imports core and the ground floor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker.clock import Clock
from worker.core.records import Encoded
from worker.logs import get_logger

log = get_logger(__name__)

_EVERY = 60.0  # seconds


class DeadLetterLog:
    """Counts acknowledged dead letters until the next line."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reasons: Counter[str] = Counter()
        self._next = 0.0

    def note(self, outcomes: Iterable[Encoded]) -> None:
        """Count those of these outcomes that are dead letters."""
        self._reasons.update(o.reason.value for o in outcomes if o.reason is not None)

    def say(self, *, last: bool = False) -> None:
        """Write what was counted, if it is time; what is `last` need not wait."""
        now = self._clock.monotonic()
        if not self._reasons or (now < self._next and not last):
            return
        self._next = now + _EVERY
        log.warning(
            "records became dead letters: each has its reason in a header; where none of a stream can "
            "be read, `streamlabel check` says what its records look like",
            reasons=dict(self._reasons.most_common()),
        )
        self._reasons.clear()
