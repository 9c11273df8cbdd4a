"""What comes back from the other threads: acknowledged batches, and deaths of stages.

Any thread leaves something here; only the poll thread (or the revoke thread in its place) takes
it out. Imports core and the ground floor.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable

from schemas.dead_letter import DeadLetterReason
from worker.clock import Clock
from worker.core.faults import CircuitBreaker
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Encoded
from worker.errors import Fatal, StageCrashed, StreamlabelError
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.dead_letter_log import DeadLetterLog
from worker.runtime.drift import DriftWatch
from worker.runtime.outcome_counts import count_outcomes
from worker.runtime.progress import Progress

log = get_logger(__name__)

_OUTPUT_AT_FAULT = (DeadLetterReason.RESULT_TOO_LARGE, DeadLetterReason.RESULT_REFUSED)


class Completions:
    """Moves offsets by what the broker has acknowledged, and by nothing else.

    Args:
        drift: told of results in the order of their acknowledgement; None compares nothing.
        breaker: told of results and of those that their topic refused.

    Attributes:
        letters: says how many records became dead letters.
    """

    def __init__(
        self,
        offsets: OffsetTracker,
        metrics: Metrics,
        progress: Progress,
        clock: Clock,
        drift: DriftWatch | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._offsets, self._metrics = offsets, metrics
        self._progress, self._clock = progress, clock
        self._drift, self._breaker = drift, breaker
        self._expiry_said = False
        self.letters = DeadLetterLog(clock)
        self._done: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self._crashes: queue.SimpleQueue[StreamlabelError] = queue.SimpleQueue()

    def completed(self, completion: Completion) -> None:
        """Any thread: a batch is acknowledged, or one of it refused."""
        self._done.put(completion)

    def crashed(self, stage: str, error: BaseException) -> None:
        """Any thread: a stage died of this."""
        if not isinstance(error, Fatal):
            cause = error
            error = StageCrashed(f"the {stage} stage crashed: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        self.failed(error)

    def failed(self, error: StreamlabelError) -> None:
        """Any thread: the worker must stop for this."""
        self._crashes.put(error)

    def absorb(self, wait: float = 0.0) -> None:
        """Take in everything that is there, waiting up to `wait` seconds for the first.

        Raises:
            Fatal: what a stage died of, or what the broker refused.
        """
        self._progress.went_round()
        while True:
            try:
                completion = self._done.get(block=wait > 0, timeout=wait)
            except queue.Empty:
                break
            self._settle(completion)
            wait = 0.0
        if not self._crashes.empty():
            raise self._crashes.get()

    def absorb_the_rest(self) -> None:
        """Take in everything that is there; what it raises is only said, for we are stopping."""
        while True:
            try:
                return self.absorb()
            except StreamlabelError as error:
                log.error("while stopping", reason=str(error))  # noqa: TRY400 - no news in a stack
            except Exception:
                log.exception("while stopping")  # what comes after it may be committed all the same

    def _settle(self, completion: Completion) -> None:
        if completion.error is not None:
            raise completion.error
        if completion.kept:
            self._offsets.mark_kept(completion.kept)
        if not completion.outcomes:
            return
        now, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        self._metrics.stage.labels("publish").observe(now - completion.sent_at)
        for outcome in completion.outcomes:
            self._offsets.resolve(outcome.ref, refused=_refused(outcome))
        count_outcomes(self._metrics, completion.outcomes, now_ms, self._offsets)
        self.letters.note(completion.outcomes)
        if self._drift is not None:
            self._drift.note(completion.outcomes)
        self._say_expiry(completion.outcomes)
        self._judge()

    def _say_expiry(self, outcomes: Iterable[Encoded]) -> None:
        """Once, for as long as the worker runs; the metric counts on."""
        old = next((outcome for outcome in outcomes if outcome.expired), None)
        if old is None or self._expiry_said:
            return
        self._expiry_said = True
        topic, partition, offset, _ = old.ref
        log.warning(
            "an outcome is older than its topic keeps records and is deleted soon: set the topic's "
            'retention.ms, or output.timestamp = "labelled"',
            topic=old.topic,
            record=f"{topic}[{partition}] offset {offset}",
            metric="streamlabel_outcomes_expired",
        )

    def _judge(self) -> None:
        """Stop before a topic that refuses everything has drained the input into dead letters.

        Raises:
            CircuitOpen: too many results in a row, or too large a share, were refused.
        """
        for refused in self._offsets.verdicts():
            if self._breaker:
                self._breaker.note(failed=refused)


def _refused(outcome: Encoded) -> bool | None:
    """Whether its topic refused a result; None where there was none."""
    if outcome.reason is not None and outcome.reason not in _OUTPUT_AT_FAULT:
        return None
    return outcome.reason is not None
