"""The worker: its main loop, from the first poll to leaving the group.

Runs on the main thread, which alone owns consumer, batcher and offsets; the revoke thread stands
in for it while it is parked in a rebalance. Imports core, kafka_io's protocols and the ground
floor.
"""

from __future__ import annotations

import functools
import threading

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.decoder import Decoder, estimate_tokens
from worker.core.faults import OUTPUT, CircuitBreaker
from worker.core.offsets import OffsetTracker
from worker.core.readability import Readability
from worker.core.records import Partition, RawRecord, WorkItem
from worker.core.state import State
from worker.errors import BrokerAway, Fatal, InputDamaged, StageCrashed
from worker.kafka_io.sink import RecordSink
from worker.kafka_io.source import RecordSource
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions
from worker.runtime.drift import DriftWatch
from worker.runtime.holdups import Holdups
from worker.runtime.last_steps import LastSteps
from worker.runtime.outcome_counts import count_polled, show_inflight
from worker.runtime.pipeline import Pipeline
from worker.runtime.progress import Progress
from worker.runtime.rebalance import Rebalance
from worker.settings import Settings

log = get_logger(__name__)

# Longest nap in `poll`, seconds: how late a completion can be noticed while nothing comes in.
_IDLE_POLL = 0.1
_BUSY_POLL = 0.01
_POLL_RECORDS = 500
_LEAVE = 5.0  # seconds for the goodbye; a group that is busy joining would not answer sooner
_REPORT_EVERY = 1.0  # seconds


class Worker:
    """Polls, batches, hands on, commits; drains at a rebalance and at a stop.

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
        self._progress, self._stop = progress, stop
        batch = settings.batch
        self._decoder = Decoder(settings.input)
        self._readability = Readability(settings.max_unreadable_ratio)
        self._batcher = MicroBatcher(batch.max_records, batch.max_tokens)
        self._offsets = OffsetTracker()
        drift = DriftWatch(settings.drift, metrics) if settings.drift.reference_records else None
        breaker = CircuitBreaker(
            settings.max_consecutive_dead_letters, settings.max_dead_letter_ratio, OUTPUT
        )
        self.completions = Completions(self._offsets, metrics, progress, clock, drift, breaker)
        self._commits = Commits(
            self._offsets, settings.commit_every, metrics, clock, self.completions.failed
        )
        self.rebalance = Rebalance(
            self._offsets,
            self._batcher,
            self.completions,
            self._commits,
            drain_timeout=settings.rebalance_drain_timeout,
            metrics=metrics,
            clock=clock,
        )
        self.holdups = Holdups(settings.kafka.group_id, metrics, clock)
        self._next_report = 0.0
        self._damage: InputDamaged | None = None
        self._source: RecordSource
        self._pipeline: Pipeline
        self._sink: RecordSink

    def attach(self, source: RecordSource, pipeline: Pipeline, sink: RecordSink) -> None:
        """Give the worker its ends; `sink` is where the pipeline's leads."""
        self._source, self._pipeline, self._sink = source, pipeline, sink
        self._commits.attach(source, sink)
        self._progress.watch(pipeline.stages)

    def run(self) -> None:
        """Label until told to stop; leaves the group with everything in flight committed.

        Raises:
            Fatal: what stopped the worker.
        """
        try:
            self._shut_down(self._until_stopped())
        except BaseException:
            self._progress.move(State.FAILED)
            raise
        self._progress.move(State.STOPPED)
        log.info("stopped")

    def _until_stopped(self) -> Fatal | None:
        """Go round until told to stop (None) or until something fails."""
        try:
            self._pipeline.start()
            self._progress.move(State.RUNNING)
            while not self._stop.is_set():
                self._step()
        except Fatal as error:
            log.error("stopping on a fault", reason=str(error))  # noqa: TRY400 - raised again
            return error
        except BaseException as error:  # a library may call sys.exit
            log.exception("stopping on an unknown error")
            return StageCrashed(f"the main loop crashed: {type(error).__name__}: {error}")
        return None

    def _step(self) -> None:
        self.completions.absorb()
        self._commits.if_due()
        self._hand_over()
        self._balance()
        self._stop_at_damage()
        self._report()
        records = self._poll(self._nap())
        if records or self._progress.state is not State.PAUSED:  # a pause is no quiet stream
            self._readability.polled(len(records), self._clock.monotonic())
        for record in records:
            self._accept(record)
        if records:
            count_polled(self._metrics, len(records), self._offsets)

    # -- in ------------------------------------------------------------------------------------

    def _poll(self, timeout: float) -> list[RawRecord]:
        room = self._settings.max_inflight_records - self._offsets.held_records
        try:
            return self._source.poll(timeout, max(1, min(_POLL_RECORDS, room)))
        except BrokerAway as error:
            log.debug("poll failed, trying again", reason=str(error))
            self._clock.sleep(_IDLE_POLL)
            return []
        except InputDamaged as damage:
            self._damage = damage
            return []

    def _stop_at_damage(self) -> None:
        """Stop once all that was polled before the damage has its outcome.

        Whoever moves the group's offset past the damage would else skip those records too.
        """
        if self._damage is None:
            return
        self._source.pause()
        self._commits.request_commit()
        if not self._offsets.records:
            raise self._damage

    def _nap(self) -> float:
        """How long `poll` may wait for records without keeping anything else waiting."""
        if self._batcher.ready:
            # What was wanted by now has just been handed over: where nothing is on the way to the
            # model there is room. So this is no busy loop.
            wanted = self._pipeline.demand(self._batcher.tokens).at
            return min(_BUSY_POLL, max(0.0, wanted - self._clock.monotonic()))
        return _BUSY_POLL if self._offsets.records else _IDLE_POLL

    def _accept(self, record: RawRecord) -> None:
        entry, now = self._decoder.decode(record), self._clock.monotonic()
        hold = self._readability.note(entry, now)  # a record that stops the worker is not tracked
        self._offsets.track(record)
        tokens = estimate_tokens(entry.text) if isinstance(entry, WorkItem) else 0
        self._batcher.add(entry, tokens, now, hold=hold)

    def _hand_over(self) -> None:
        if self._batcher.held and self._readability.waited(self._clock.monotonic()):
            self._batcher.release()
        while self._pipeline.has_room:
            now = self._clock.monotonic()
            demand = self._pipeline.demand(self._batcher.tokens)
            trigger = self._batcher.due(now, demand)
            if trigger is None:
                return
            batch = self._batcher.take(trigger, now, demand.most_tokens)
            self._metrics.micro_batches.labels(trigger).inc()
            self._metrics.batch_records.observe(len(batch.entries))
            self._pipeline.offer(batch)

    def _balance(self) -> None:
        """Pause at the bound of what is held and keep polling; resume at half of it."""
        full = max(
            self._offsets.held_records / self._settings.max_inflight_records,
            self._offsets.held_bytes / self._settings.max_inflight_bytes,
        )
        if full >= 1:
            self._progress.move(State.PAUSED)
        elif full <= 0.5 and self._progress.state is State.PAUSED:
            self._source.resume()
            self._progress.move(State.RUNNING)
        paused = self._progress.state is State.PAUSED
        if paused:
            self._source.pause()  # at each step anew: a rebalance may have added partitions
            self._commits.request_commit()  # a transaction that waits for more would wait in vain
        self._metrics.paused.set(paused)

    # -- the end -------------------------------------------------------------------------------

    def _shut_down(self, fault: Fatal | None) -> None:
        """Drain, commit, leave the group, all within `shutdown_timeout`.

        After a fault nothing new is published; what the broker acknowledges of that which was
        sent is still committed, so that a successor repeats as little as can be. Each step is
        taken whatever became of the one before.

        Raises:
            Fatal: the first fault, or that not all could be drained in time.
        """
        steps = LastSteps("while stopping", fault)
        timeout = self._settings.shutdown_timeout
        deadline = self._clock.monotonic() + timeout
        self.rebalance.latest = deadline - timeout / 5  # the rest: the commit, the goodbye
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard())
        if fault is None:
            self._progress.move(State.DRAINING)
            log.info("stopping", inflight=self._offsets.records)
            steps.take(lambda: self._drain(deadline - timeout / 5))
        steps.take(lambda: self._pipeline.close(self._left(deadline)))
        self.rebalance.latest = 0.0  # nothing more comes: a rebalance now waits for nothing
        steps.take(self.completions.absorb_the_rest)
        steps.take(lambda: self.completions.letters.say(last=True))
        sit_out = functools.partial(self._poll, _IDLE_POLL)
        steps.take(lambda: self._commits.until(deadline, sit_out))
        undrained, uncommitted = self._offsets.records, len(self._offsets.acknowledged())
        steps.take(lambda: self._source.close(min(_LEAVE, self._left(deadline))))
        if steps.fault is not None:
            raise steps.fault
        if undrained or uncommitted:
            raise Fatal(
                f"within shutdown_timeout ({timeout:g} s), {undrained} records in flight could not "
                f"be published, and the offsets of {uncommitted} partitions not be committed; the "
                "group will deliver these records again"
            )

    def _left(self, deadline: float) -> float:
        return max(0.5, deadline - self._clock.monotonic())

    def _drain(self, deadline: float) -> None:
        """Wait for what was handed on; polling goes on, paused, so that rebalances do too."""
        while self._offsets.records and self._clock.monotonic() < deadline:
            self._source.pause()
            self._commits.request_commit()
            # A partition that came in this very moment was not paused yet; its records are
            # dropped untracked, and a successor polls them again.
            self._poll(_BUSY_POLL)
            self.completions.absorb()

    # -- what the outside sees -----------------------------------------------------------------

    def _report(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT_EVERY
        self._sink.check()
        self._progress.oldest = oldest = self._offsets.oldest()
        show_inflight(self._metrics, self._offsets)
        self._metrics.oldest_uncommitted.set(now - oldest[1] if oldest else 0)
        self._progress.connection(up=self._source.connected())
        self.completions.letters.say()
        self._report_progress(now)
        self.holdups.look(self._source, self._offsets.partitions)
        for partition in self._offsets.partitions:
            self._report_lag(partition)

    def _report_progress(self, now: float) -> None:
        settled = self._source.settled()
        self._progress.joined |= settled
        staged = len(self._batcher) + sum(stage.held for stage in self._pipeline.stages)
        self._progress.acknowledgements.note(
            self._offsets.records - staged, self._offsets.resolved, now
        )
        # While the group is busy with another member a commit may have to wait: no fault of ours.
        uncommitted = len(self._offsets.committable()) if settled else 0
        self._progress.commits.note(uncommitted, self._offsets.commits, now)
        self._progress.live()  # a stall is said whether or not anybody probes

    def _report_lag(self, partition: Partition) -> None:
        end, done = self._source.end_offset(partition), self._offsets.committed(partition)
        if done is None and not self._offsets.pending([partition]):
            # Nothing polled yet: what the group committed.
            done = self._source.positions().get(partition)
        if end is not None and done is not None:
            topic, number = partition
            self._metrics.offset_lag.labels(topic, str(number)).set(max(0, end - done))
