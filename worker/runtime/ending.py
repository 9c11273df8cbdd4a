"""Ends a worker that labels a range, once its group has committed all of it.

Owns: when the group was asked last.
Thread: the poll thread.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from worker.errors import BrokerAway
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.runtime.context import WorkerContext

log = get_logger(__name__)

_INTERVAL = 0.5  # seconds between two questions to the group


class Ending:
    """Stops the worker once the source has nothing left to read, for any member of its group.

    A worker without partitions stays until then: it may have to take over those of another one.
    """

    def __init__(self, source: RecordSource, context: WorkerContext) -> None:
        self._source, self._clock, self._stop = source, context.clock, context.stop
        self._next = 0.0

    def end_if_finished(self) -> None:
        """Ask, if it is time to, and request the worker's stop.

        Raises:
            Fatal: the group labels another range.
        """
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        try:
            finished = self._source.finished()
        except BrokerAway as error:
            log.debug("can't ask how far the group is, retrying", reason=str(error))
            return
        if finished:
            log.info("the group has labelled the range")
            self._stop.set()
