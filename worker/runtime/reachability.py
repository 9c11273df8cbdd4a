"""Notes whether a service answers that the worker needs, and logs when it does not.

Owns: since when it has not answered.
Thread: the poll thread writes; any thread reads `away`.
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
        self._since: float | None = None
        self._logged_at = -interval

    @property
    def away(self) -> bool:
        """True while the service has not answered for longer than a reconnect takes."""
        since = self._since
        return since is not None and self._clock.monotonic() - since >= self._grace

    def note(self, reason: str | None) -> bool:
        """Note that the service answers, or why it does not; log an outage periodically.

        Args:
            reason: None if it answers.

        Returns:
            True if an outage has just ended.
        """
        if reason is None:
            ended = self.away
            if ended:
                log.info(self._ended)
            self._since = None
            return ended
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        if self.away and now - self._logged_at >= self._interval:
            self._logged_at = now
            log.warning(self._began, reason=reason)
        return False
