"""Takes in the results of the other threads: acknowledged batches, and crashes of stages.

Owns: the queues through which other threads report to the poll thread.
Thread: `completed`, `crashed` and `failed` are for any thread; the rest is for the poll thread, or
    the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Protocol

from worker import timeline
from worker.clock import Clock
from worker.core.copies import Wholes
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Encoded
from worker.core.refusals import TopicBreakers, verdicts_of
from worker.errors import Fatal, StageCrashed, StreamlabelError
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.outcome_counts import count_copies, count_outcomes
from worker.runtime.progress import Progress

log = get_logger(__name__)


class OutcomeObserver(Protocol):
    """Sees acknowledged outcomes, in the order of their acknowledgement."""

    def note(self, outcomes: Sequence[Encoded]) -> None: ...


class Completions:
    """Moves offsets by the broker's acknowledgements, and by nothing else.

    Args:
        offsets: marks the acknowledged records.
        metrics, clock: count and time the outcomes.
        progress: notes each round of the main loop.
        observers: see the outcomes after they are counted.
        breakers: count what the output topics accepted and refused; None counts nothing.
        routes: whether outcomes may have copies, and are counted by route.
    """

    def __init__(
        self,
        offsets: OffsetTracker,
        metrics: Metrics,
        progress: Progress,
        clock: Clock,
        observers: Sequence[OutcomeObserver] = (),
        breakers: TopicBreakers | None = None,
        *,
        routes: bool = False,
    ) -> None:
        self._offsets, self._metrics = offsets, metrics
        self._progress, self._clock = progress, clock
        self._observers, self._breakers = observers, breakers
        self._wholes = Wholes(offsets.tracks) if routes else None
        self._completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self._failures: queue.SimpleQueue[StreamlabelError] = queue.SimpleQueue()

    def completed(self, completion: Completion) -> None:
        """Any thread: report an acknowledged batch, or a refused record of it."""
        self._completions.put(completion)

    def crashed(self, stage: str, error: BaseException) -> None:
        """Any thread: report the error that ended a stage."""
        if not isinstance(error, Fatal):
            what = f"the {stage} stage crashed"
            log.error(what, exc_info=error)
            error = StageCrashed.by(error, what)
        self.failed(error)

    def failed(self, error: StreamlabelError) -> None:
        """Any thread: report an error for which the worker must stop."""
        self._failures.put(error)

    def absorb(self, wait: float = 0.0) -> None:
        """Take in all reports, waiting up to `wait` seconds for the first.

        Raises:
            Fatal: a stage crashed, or the broker refused a record.
        """
        self._progress.went_round()
        while True:
            try:
                completion = self._completions.get(block=wait > 0, timeout=wait)
            except queue.Empty:
                break
            self._settle(completion)
            wait = 0.0
        if not self._failures.empty():
            raise self._failures.get()

    def absorb_remaining(self) -> None:
        """Take in all reports while the worker stops. Errors are logged and not raised."""
        while True:
            try:
                return self.absorb()
            except StreamlabelError as error:
                log.error("error while stopping", reason=str(error))  # noqa: TRY400 - no stack needed
            except Exception:
                # Later completions may be good, and are committed all the same.
                log.exception("error while stopping")

    def _settle(self, completion: Completion) -> None:
        if completion.error is not None:
            raise completion.error
        if completion.kept:
            self._offsets.mark_kept(completion.kept)
        if not completion.outcomes:
            return
        now, now_ms = self._clock.monotonic(), self._clock.wall_ms()
        self._metrics.stage.labels("publish").observe(now - completion.sent_at)
        timeline.interval("acknowledge", completion.sent_at, now, records=len(completion.outcomes))
        if self._wholes is None:
            for outcome in completion.outcomes:
                self._offsets.resolve(outcome.ref, verdicts_of((outcome,)))
            self._tell(completion.outcomes, now_ms)
        elif done := self._wholes.add(completion.outcomes):
            for whole in done:
                verdicts = verdicts_of((whole.outcome, *whole.copies))
                self._offsets.resolve(whole.outcome.ref, verdicts)
            count_copies(self._metrics, [copy for whole in done for copy in whole.copies])
            self._tell([whole.outcome for whole in done], now_ms)
            self._wholes.forget_if_above(self._offsets.records)

    def _tell(self, outcomes: Sequence[Encoded], now_ms: int) -> None:
        routes = self._wholes is not None
        count_outcomes(self._metrics, outcomes, now_ms, self._offsets, routes=routes)
        for observer in self._observers:
            observer.note(outcomes)
        self._judge()

    def _judge(self) -> None:
        """Stop before a topic that refuses every result turns the input into dead letters.

        Raises:
            CircuitOpen: too many results in a row, or too large a share, were refused.
        """
        for verdicts in self._offsets.verdicts():
            if self._breakers:
                self._breakers.note(verdicts)
