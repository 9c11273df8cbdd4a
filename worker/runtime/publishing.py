"""Drives a sink from a stage's thread: each step is retried until it is done.

Owns: nothing; it calls the sink.
Thread: publish.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from worker.core.faults import Disposition, backoff, disposition
from worker.core.records import Encoded
from worker.kafka_io.sink import RecordSink
from worker.logs import get_logger
from worker.runtime.stage import StageControl

log = get_logger(__name__)

_LOG_EVERY_ATTEMPTS = 10
_LONGEST_SLEEP = 0.5  # seconds; a stop waits for it


class SinkDriver:
    """Publishes through a sink, and waits for a broker that is away.

    Args:
        sink: publishes.
        control: clock and cancellation of the stage.
    """

    def __init__(self, sink: RecordSink, control: StageControl) -> None:
        self._sink, self._control = sink, control

    def publish(self, encoded: Sequence[Encoded]) -> bool:
        """Publish a batch; return False if the worker gave up meanwhile."""
        return self._until_done(partial(self._sink.publish, encoded))

    def advance(self) -> None:
        """Continue with what the sink has accepted."""
        self._until_done(self._sink.advance)

    def _until_done(self, step: Callable[[], None]) -> bool:
        """Run a step of the sink; after a passing fault, retry with the sink's `advance`.

        `advance` goes on where the step was interrupted, so nothing is published twice.
        """
        attempt = 0
        while not self._control.cancelled.is_set():
            try:
                step()
            except Exception as error:
                if disposition(error) is not Disposition.RETRY:
                    raise
                if attempt % _LOG_EVERY_ATTEMPTS == 0:
                    log.warning("publish failed, retrying", reason=str(error), attempt=attempt)
                attempt += 1
                self._pause(backoff(attempt))
                step = self._sink.advance
            else:
                return True
        return False

    def _pause(self, seconds: float) -> None:
        clock, cancelled = self._control.clock, self._control.cancelled
        until = clock.monotonic() + seconds
        while not cancelled.is_set() and (left := until - clock.monotonic()) > 0:
            clock.sleep(min(left, _LONGEST_SLEEP))
