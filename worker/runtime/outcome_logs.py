"""Logs outcomes: throughput each minute, dead letters by reason, and results that expire at once.

Owns: the counts behind these log lines.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.

Each class sees acknowledged outcomes by `note`, and writes its line when `log_if_due` is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from worker.clock import Clock
from worker.core.counted import counted
from worker.core.records import Encoded
from worker.logs import get_logger

log = get_logger(__name__)

_INTERVAL = 60.0  # seconds between two lines of a kind


class ThroughputLog:
    """Logs the throughput once a minute while records flow, and the totals at the end.

    A minute begins with its first outcome, so the rate is not diluted by idle time before it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock.monotonic()
        self._labelled = self._dead_letters = 0
        self._minute_labelled = self._minute_dead_letters = 0
        self._minute_began: float | None = None

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Count acknowledged outcomes."""
        if self._minute_began is None:
            self._minute_began = self._clock.monotonic()
        others = [one for one in outcomes if one.reason is not None or one.filtered]
        self._minute_labelled += len(outcomes) - len(others)
        self._minute_dead_letters += sum(one.reason is not None for one in others)

    def log_if_due(self, lag: int | None) -> None:
        """Log one line, if a minute has passed since the first outcome that is not logged yet.

        Args:
            lag: offsets behind the end of the input; None if unknown.
        """
        if self._minute_began is None:
            return
        seconds = self._clock.monotonic() - self._minute_began
        if seconds < _INTERVAL:
            return
        labelled, dead_letters = self._minute_labelled, self._minute_dead_letters
        rate = (labelled + dead_letters) / seconds
        message = (
            f"labelled {counted(labelled, 'record')}, {_short(rate)}/s, "
            f"lag {'unknown' if lag is None else f'{lag:,}'}, {counted(dead_letters, 'dead letter')}"
        )
        log.info(
            message,
            labelled=labelled,
            records_per_second=round(rate, 2),
            lag=lag,
            dead_letters=dead_letters,
        )
        self._end_minute()

    def _end_minute(self) -> None:
        self._labelled += self._minute_labelled
        self._dead_letters += self._minute_dead_letters
        self._minute_labelled = self._minute_dead_letters = 0
        self._minute_began = None

    def totals(self) -> dict[str, int | float]:
        """Return the totals since the start, as log fields."""
        return {
            "labelled": self._labelled + self._minute_labelled,
            "dead_letters": self._dead_letters + self._minute_dead_letters,
            "uptime_seconds": round(self._clock.monotonic() - self._started_at, 1),
        }


class DeadLetterLog:
    """Logs how many records became dead letters, by reason: at once, then once a minute at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reasons: Counter[str] = Counter()
        self._next = 0.0

    def note(self, outcomes: Iterable[Encoded]) -> None:
        """Count the dead letters among acknowledged outcomes."""
        self._reasons.update(o.reason.value for o in outcomes if o.reason is not None)

    def log_if_due(self, *, last: bool = False) -> None:
        """Log the counts since the last line, if it is time; the last line does not wait."""
        now = self._clock.monotonic()
        if not self._reasons or (now < self._next and not last):
            return
        self._next = now + _INTERVAL
        log.warning(
            "records became dead letters; each has its reason in a header, and `streamlabel check` "
            "shows the records of the input",
            reasons=dict(self._reasons.most_common()),
        )
        self._reasons.clear()


class ExpiredLog:
    """Logs the first outcome that retention deletes at once; the metric counts every one."""

    def __init__(self) -> None:
        self._logged = False

    def note(self, outcomes: Iterable[Encoded]) -> None:
        """Look for an outcome that is older than its topic keeps records."""
        expired = next((outcome for outcome in outcomes if outcome.expired), None)
        if expired is None or self._logged:
            return
        self._logged = True
        topic, partition, offset, _ = expired.ref
        log.warning(
            "outcome is older than its topic's retention and will be deleted soon: raise the topic's "
            'retention.ms, or set output.timestamp = "labelled"',
            topic=expired.topic,
            record=f"{topic}[{partition}] offset {offset}",
            metric="streamlabel_outcomes_expired",
        )


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
