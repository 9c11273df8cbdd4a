"""Notes whether a service answers that the worker needs, and logs when it does not.

Owns: since when it has not answered, and why.
Thread: the poll thread writes; any thread reads `away` and `reason`.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from worker.clock import Clock
from worker.logs import get_logger

log = get_logger(__name__)


class Reachability:
    """The outages of one service.

    Args:
        began, ended: what to log.
        clock: times the outage.
        grace: seconds without an answer that are ordinary, as at a start or a reconnect.
        interval: seconds between two lines about one outage.
    """

    def __init__(
        self, began: str, ended: str, clock: Clock, *, grace: float = 3.0, interval: float = 30.0
    ) -> None:
        self._began, self._ended, self._clock = began, ended, clock
        self._grace, self._interval = grace, interval
        self._outage: tuple[float, str] | None = None  # since when, why; replaced whole
        self._logged_at = -interval

    @property
    def away(self) -> bool:
        """True while the service has not answered for longer than a reconnect takes."""
        return self.reason is not None

    @property
    def reason(self) -> str | None:
        """Why the service is `away`, or None."""
        outage = self._outage
        if outage is None or self._clock.monotonic() - outage[0] < self._grace:
            return None
        return outage[1]

    def note(self, reason: str | None, *, usual: bool = False) -> bool:
        """Note that the service answers, or why it does not; log an outage periodically.

        Args:
            reason: None if it answers.
            usual: True if that is no cause for a warning.

        Returns:
            True if an outage has just ended.
        """
        if reason is None:
            ended = self.away
            if ended:
                log.info(self._ended)
            self._outage = None
            return ended
        now = self._clock.monotonic()
        self._outage = (self._outage[0] if self._outage else now), reason
        if self.away and now - self._logged_at >= self._interval:
            self._logged_at = now
            (log.info if usual else log.warning)(self._began, reason=reason)
        return False
