"""The worker: its state and its main loop.

Runs on the main thread, which alone owns consumer, batcher and offsets. Two exceptions, both by
hand-over and never at the same time: the revoke thread acts for the main thread while that is
parked in a rebalance (see `kafka_io/source.py`), and other threads leave completions and crashes
in queues. Imports core, kafka_io's protocols and the ground floor.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.codec import Decoder, estimate_tokens
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Partition, RawRecord, WorkItem
from worker.errors import BrokerAway, Fatal, StageCrashed, StreamlabelError
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.pipeline import Pipeline
from worker.runtime.progress import Progress
from worker.runtime.state import State
from worker.settings import Settings

log = get_logger(__name__)

# Longest nap in `poll` (seconds): how late a completion can be noticed while nothing comes in,
# and while a closed batch waits for the tokenise stage to take it.
_IDLE_POLL = 0.1
_BUSY_POLL = 0.01
_POLL_RECORDS = 500
_LEAVE = 5.0  # seconds for the goodbye; a group that is busy joining would not answer sooner


class Worker:
    """Polls, batches, hands on, commits; drains on a rebalance and on a stop.

    Args:
        settings: the settings in force.
        progress: state and counters that /livez and /readyz read.
        stop: set by anyone, also a signal handler: drain and end.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self._progress = progress
        self._decoder = Decoder(settings.input)
        self._batcher = MicroBatcher(
            settings.batch.max_records,
            settings.batch.max_tokens,
            settings.batch.max_delay_ms / 1000,
        )
        self._offsets = OffsetTracker()
        self._completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
        self._crashes: queue.SimpleQueue[StreamlabelError] = queue.SimpleQueue()
        self._stop = stop
        self._source: RecordSource
        self._pipeline: Pipeline
        self._commits_here = True
        self._commit_in_flight = False
        self._next_commit = 0.0
        self._next_report = 0.0

    # -- wiring --------------------------------------------------------------------------------

    def attach(self, source: RecordSource, pipeline: Pipeline, *, commits_here: bool) -> None:
        """Give the worker its ends. `commits_here` is False where the sink commits offsets."""
        self._source, self._pipeline, self._commits_here = source, pipeline, commits_here

    def completed(self, completion: Completion) -> None:
        """Any thread: note an acknowledged (or refused) batch."""
        self._completions.put(completion)

    def crashed(self, stage: str, error: BaseException) -> None:
        """Any thread: note a stage's death; the main loop stops on it."""
        if isinstance(error, Fatal):
            self._crashes.put(error)
            return
        crash = StageCrashed(f"the {stage} stage crashed: {type(error).__name__}: {error}")
        crash.__cause__ = error
        self._crashes.put(crash)

    # -- the main loop -------------------------------------------------------------------------

    def run(self) -> None:
        """Label until told to stop; leaves the group with everything in flight committed.

        Raises:
            Fatal: what stopped the worker.
        """
        self._pipeline.start()
        self._progress.move(State.RUNNING)
        try:
            while not self._stop.is_set():
                self._step()
            self._shut_down(failed=False)
        except Fatal as error:
            log.error("stopping on a fault", reason=str(error))  # noqa: TRY400 - raised again
            if self._progress.state is not State.DRAINING:
                self._shut_down(failed=True)
            self._progress.move(State.FAILED)
            raise
        self._progress.move(State.STOPPED)
        log.info("stopped")

    def _step(self) -> None:
        self._absorb()
        self._commit_if_due()
        self._hand_over()
        self._balance()
        self._report_if_due()
        for record in self._poll(self._nap()):
            self._accept(record)

    def _poll(self, timeout: float) -> list[RawRecord]:
        try:
            room = self._settings.max_inflight_records - self._offsets.records
            return self._source.poll(timeout, max(1, min(_POLL_RECORDS, room)))
        except BrokerAway as error:
            log.debug("poll failed, trying again", reason=str(error))
            self._clock.sleep(_IDLE_POLL)
            return []

    def _nap(self) -> float:
        """How long `poll` may wait for records without keeping anything else waiting."""
        if self._batcher.due(self._clock.monotonic()):
            return _BUSY_POLL  # a batch is closed and the tokenise stage is behind
        deadline = self._batcher.deadline
        if deadline is None:
            return _BUSY_POLL if self._offsets.records else _IDLE_POLL
        return min(_IDLE_POLL, max(0.0, deadline - self._clock.monotonic()))

    def _accept(self, record: RawRecord) -> None:
        self._offsets.track(record)
        self._metrics.consumed.inc()
        entry = self._decoder.decode(record)
        tokens = estimate_tokens(entry.text) if isinstance(entry, WorkItem) else 0
        self._batcher.add(entry, tokens, self._clock.monotonic())

    def _hand_over(self) -> None:
        while self._pipeline.has_room:
            now = self._clock.monotonic()
            trigger = self._batcher.due(now)
            if trigger is None:
                return
            batch = self._batcher.take(trigger, now)
            self._metrics.micro_batches.labels(trigger).inc()
            self._metrics.batch_records.observe(len(batch.entries))
            self._pipeline.offer(batch)

    def _balance(self) -> None:
        """Pause at the bound of work in flight and keep polling; resume at half of it."""
        full = max(
            self._offsets.records / self._settings.max_inflight_records,
            self._offsets.bytes / self._settings.max_inflight_bytes,
        )
        if full >= 1:
            self._progress.move(State.PAUSED)
        elif full <= 0.5 and self._progress.state is State.PAUSED:
            self._source.resume()
            self._progress.move(State.RUNNING)
        paused = self._progress.state is State.PAUSED
        if paused:
            self._source.pause()  # at each step anew: a rebalance may have added partitions
        self._metrics.paused.set(paused)

    # -- completions and commits ---------------------------------------------------------------

    def _absorb(self, wait: float = 0.0) -> None:
        """Take in what other threads have left, waiting up to `wait` seconds for the first.

        Raises:
            Fatal: what a stage crashed on, or what the broker refused.
        """
        while True:
            try:
                completion = self._completions.get(block=wait > 0, timeout=wait)
            except queue.Empty:
                break
            self._settle(completion)
            wait = 0
        if not self._crashes.empty():
            raise self._crashes.get()

    def _settle(self, completion: Completion) -> None:
        if completion.error is not None:
            raise completion.error
        self._metrics.stage.labels("publish").observe(self._clock.monotonic() - completion.sent_at)
        now_ms = self._clock.wall_ms()
        for outcome in completion.outcomes:
            self._offsets.resolve(outcome.ref)
            self._metrics.count_outcome(outcome, now_ms)
        self._progress.advanced()

    def _commit_if_due(self) -> None:
        now = self._clock.monotonic()
        if self._commit_in_flight or now < self._next_commit:
            return
        offsets = self._offsets.committable()
        if not offsets:
            return
        self._next_commit = now + self._settings.commit_interval
        if not self._commits_here:
            self._offsets.mark_committed(offsets)
            return
        self._commit_in_flight = True
        self._source.commit_async(offsets, self._committed(offsets, now))

    def _committed(
        self, offsets: Mapping[Partition, int], started: float
    ) -> Callable[[StreamlabelError | None], None]:
        def done(error: StreamlabelError | None) -> None:
            self._commit_in_flight = False
            if error is None:
                self._offsets.mark_committed(offsets)
                self._metrics.stage.labels("commit").observe(self._clock.monotonic() - started)
            elif isinstance(error, BrokerAway):
                log.debug("commit failed, trying again", reason=str(error))
            else:
                self._crashes.put(error)

        return done

    def _commit_now(self, deadline: float) -> None:
        """Commit and wait, trying again while a rebalance or an outage refuses, until `deadline`."""
        while self._commits_here and (offsets := self._offsets.committable()):
            left = deadline - self._clock.monotonic()
            try:
                self._source.commit(offsets, max(left, 0.1))
                self._offsets.mark_committed(offsets)
            except BrokerAway as error:
                if left <= 0:
                    log.warning("could not commit in time", reason=str(error))
                    return
                self._poll(_IDLE_POLL)
        if not self._commits_here:
            self._offsets.mark_committed(self._offsets.committable())

    # -- rebalances (RebalanceHandler) ---------------------------------------------------------

    def on_assigned(self, partitions: Mapping[Partition, int]) -> None:
        """IO thread, main parked: track these partitions from now on."""
        for partition, epoch in partitions.items():
            self._offsets.assign(partition, epoch)
        self._metrics.rebalances.labels("assigned").inc()
        log.info("partitions assigned", partitions=_named(partitions))

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        """Revoke thread, main parked: drain these partitions, commit, let go.

        What still waits in the batcher was never handed on: it is dropped, and the next owner
        polls it again. What was handed on is waited for, at most `rebalance_drain_timeout`.
        """
        gone = list(partitions)
        started = self._clock.monotonic()
        deadline = started + self._settings.rebalance_drain_timeout
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard(gone))
        try:
            while self._offsets.pending(gone) and self._clock.monotonic() < deadline:
                self._absorb(_IDLE_POLL)
            late = self._offsets.pending(gone)
            if late:
                log.warning("partitions given up undrained, expect repeats", records=late)
            self._commit_revoked(deadline)
        except StreamlabelError as error:
            self._crashes.put(error)
        self._let_go(gone, "revoked")
        self._metrics.rebalance_drain.observe(self._clock.monotonic() - started)

    def _commit_revoked(self, deadline: float) -> None:
        offsets = self._offsets.committable()
        if not (offsets and self._commits_here):
            return
        try:
            self._source.commit(offsets, max(deadline - self._clock.monotonic(), 1.0))
            self._offsets.mark_committed(offsets)
        except BrokerAway as error:
            log.warning("could not commit before a revocation", reason=str(error))

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        """IO thread, main parked: too late to commit; fence what is in flight."""
        gone = list(partitions)
        self._batcher.discard(gone)
        self._let_go(gone, "lost")
        log.warning("partitions lost: this worker was away for too long")

    def _let_go(self, partitions: list[Partition], kind: str) -> None:
        for partition in partitions:
            self._offsets.revoke(partition)
        self._metrics.forget_partitions(partitions)
        self._metrics.rebalances.labels(kind).inc()
        log.info("partitions let go", kind=kind, partitions=_named(partitions))

    # -- the end -------------------------------------------------------------------------------

    def _shut_down(self, *, failed: bool) -> None:
        """Drain, commit, leave the group, all within `shutdown_timeout`.

        After a failure nothing new is published; what the broker acknowledges of that which was
        sent is still committed, so that a successor repeats as little as can be.
        """
        deadline = self._clock.monotonic() + self._settings.shutdown_timeout
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard())
        if not failed:
            self._progress.move(State.DRAINING)
            log.info("stopping", inflight=self._offsets.records)
            # The last fifth of the time is for the commit and for leaving.
            self._drain(deadline - self._settings.shutdown_timeout / 5)
        self._pipeline.close(self._left(deadline))
        self._absorb_what_is_left()
        self._commit_now(deadline)
        undrained = self._offsets.records
        for partition in self._offsets.partitions:
            self._offsets.revoke(partition)  # nothing left to drain when `close` revokes
        self._source.close(min(_LEAVE, self._left(deadline)))
        if undrained and not failed:
            raise Fatal(
                f"{undrained} records in flight were not published within shutdown_timeout "
                f"({self._settings.shutdown_timeout:g} s); the group will deliver them again"
            )

    def _left(self, deadline: float) -> float:
        return max(0.5, deadline - self._clock.monotonic())

    def _drain(self, deadline: float) -> None:
        """Wait for what was handed on; polling goes on, paused, so that rebalances do too."""
        while self._offsets.records and self._clock.monotonic() < deadline:
            self._source.pause()
            self._poll(_BUSY_POLL)
            self._absorb()

    def _absorb_what_is_left(self) -> None:
        while True:
            try:
                return self._absorb()
            except Fatal as error:
                log.error("while stopping", reason=str(error))  # noqa: TRY400 - told by its raiser

    def _report_if_due(self) -> None:
        now = self._clock.monotonic()
        self._progress.step(work_waiting=self._offsets.records > 0)
        if now < self._next_report:
            return
        self._next_report = now + 1.0
        oldest = self._offsets.oldest()
        self._metrics.inflight_records.set(self._offsets.records)
        self._metrics.inflight_bytes.set(self._offsets.bytes)
        self._metrics.oldest_uncommitted.set(now - oldest if oldest is not None else 0)
        self._progress.connection(up=self._source.connected())
        for partition in self._offsets.partitions:
            self._report_lag(partition)

    def _report_lag(self, partition: Partition) -> None:
        end, done = self._source.end_offset(partition), self._offsets.committed(partition)
        if done is None and not self._offsets.pending([partition]):
            done = self._source.position(partition)  # nothing polled yet: what the group committed
        if end is not None and done is not None:
            topic, number = partition
            self._metrics.offset_lag.labels(topic, str(number)).set(max(0, end - done))


def _named(partitions: Iterable[Partition]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))
