"""Outages of the schema registry, and the log lines about them.

Owns: `Outage`.
Thread: "registry" notes; any thread reads the reason.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from typing import Final

from worker.clock import Clock
from worker.logs import get_logger
from worker.metrics import Metrics

_LOG_EVERY_S: Final = 30.0

_log = get_logger(__name__)


class Outage:
    """The registry's latest failure, until it answers again.

    Attributes:
        reason: of the failure; None while the registry answers.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._gauge, self._clock = metrics.registry_away, clock
        self.reason: str | None = None
        self._since = 0.0
        self._logged_at: float | None = None
        self._announced = False

    def begin(self, reason: str, waiting: int) -> None:
        """Note a failure.

        Args:
            reason: without secrets.
            waiting: schemas that are asked for.
        """
        now = self._clock.monotonic()
        if self.reason is None:
            self._since = now
            self._gauge.set(1)
        self.reason = reason
        if self._logged_at is None or now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at, self._announced = now, True
            _log.warning(
                "the schema registry is away; records whose schema is not known yet wait",
                reason=reason,
                schemas=waiting,
                seconds=round(now - self._since, 1),
            )

    def end(self) -> bool:
        """Note an answer; return whether there was an outage."""
        if self.reason is None:
            return False
        self.forget()
        if self._announced:
            seconds = round(self._clock.monotonic() - self._since, 1)
            _log.info("the schema registry is back", seconds=seconds)
        self._announced = False
        return True

    def forget(self) -> None:
        """End the outage without an answer: the records that waited are gone."""
        self.reason = None
        self._gauge.set(0)
