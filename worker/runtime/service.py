"""Runs the worker's main loop, from the first poll to leaving the group.

Owns: the main loop; through it consumer, batcher, offsets and state.
Thread: the main thread. The revoke thread replaces it while it is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from worker import timeline
from worker.core.allowance import Allowance
from worker.core.counted import counted
from worker.core.records import RawRecord
from worker.core.state import State
from worker.errors import BrokerAway, Fatal, InputDamaged, StageCrashed
from worker.logs import get_logger
from worker.runtime.cleanup import CleanupSteps
from worker.runtime.context import InFlight, Limits, OffsetControl, RecordPath, WorkerContext
from worker.runtime.ending import Ending
from worker.runtime.intake import BUSY_POLL, IDLE_POLL, Intake
from worker.runtime.status import StatusReporter

log = get_logger(__name__)

_POLL_RECORDS = 500
_LEAVE_TIMEOUT = 5.0  # seconds; a group that is busy rebalancing would not answer sooner
_COMMIT_SHARE = 5  # this part of the shutdown's time is left for commit and leaving


class Worker:
    """Polls, batches, hands on and commits; drains at a rebalance and at a stop.

    Args:
        context: state, clock and the stop signal.
        work: the records in flight.
        path: source, pipeline and sink.
        intake: batches what the source polls for the pipeline.
        control: commits and rebalances.
        status: reports once a second.
        limits: of the records held, and of the shutdown.
        each_round: called in each round of the main loop.
    """

    def __init__(
        self,
        context: WorkerContext,
        work: InFlight,
        path: RecordPath,
        *,
        intake: Intake,
        control: OffsetControl,
        status: StatusReporter,
        limits: Limits,
        each_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._metrics, self._clock = context.metrics, context.clock
        self._progress, self._stop = context.progress, context.stop
        self._work, self._offsets, self._completions = work, work.offsets, work.completions
        self._source, self._pipeline = path.source, path.pipeline
        self._ending = Ending(path.source, context)
        self._intake, self._status, self._limits = intake, status, limits
        self._allowance = Allowance(limits.rate)
        self._commits, self._rebalance = control.commits, control.rebalance
        self._damage: InputDamaged | None = None
        self._each_round = each_round

    def run(self) -> None:
        """Label until `stop` is set; leave the group with everything in flight committed.

        Raises:
            Fatal: the fault that stopped the worker.
        """
        try:
            self._shut_down(self._until_stopped())
        except BaseException:
            self._progress.move(State.FAILED)
            raise
        self._progress.move(State.STOPPED)
        totals = self._work.throughput.totals()
        log.info("stopped", **totals, offsets_committed=self._offsets.offsets_committed)

    def _until_stopped(self) -> Fatal | None:
        """Loop until `stop` is set, which returns None, or until something fails."""
        try:
            self._pipeline.start()
            self._progress.move(State.RUNNING)
            while not self._stop.is_set():
                self._step()
        except Fatal as error:
            log.error("stopping after a fault", reason=str(error))  # noqa: TRY400 - raised again
            return error
        except BaseException as error:  # a library may call sys.exit
            log.exception("stopping after an unexpected error")
            return StageCrashed.by(error, "the main loop crashed")
        return None

    def _step(self) -> None:
        self._completions.absorb()
        self._commits.commit_if_due()
        self._intake.release_settled()
        self._intake.hand_over()
        self._balance()
        self._stop_at_damage()
        self._status.report_if_due()
        self._ending.end_if_finished()
        self._each_round()
        records = self._poll(self._intake.poll_timeout())
        self._intake.accept(records, paused=self._progress.state is State.PAUSED)

    def _poll(self, timeout: float) -> list[RawRecord]:
        room = self._limits.records - self._offsets.held_records
        began = self._clock.monotonic()
        most = self._allowance.limit(max(1, min(_POLL_RECORDS, room)), began)
        if not most:
            self._clock.sleep(BUSY_POLL)
            return []
        try:
            records = self._source.poll(timeout, most)
        except BrokerAway as error:
            log.debug("poll failed, retrying", reason=str(error))
            self._clock.sleep(IDLE_POLL)
            return []
        except InputDamaged as damage:
            self._damage = damage
            return []
        self._allowance.take(len(records))
        if records:
            timeline.spent("poll", began, records=len(records))
        return records

    def _stop_at_damage(self) -> None:
        """Stop once every record that was polled before the damage has its outcome.

        Otherwise an operator who moves the group's offset past the damage would skip them too.

        Raises:
            InputDamaged: all of them have.
        """
        if self._damage is None:
            return
        self._source.pause()
        self._commits.request_commit()
        if not self._offsets.records:
            raise self._damage

    def _balance(self) -> None:
        """Pause when the limits are reached, and keep polling; resume at half of them."""
        fill = max(
            self._offsets.held_records / self._limits.records,
            self._offsets.held_bytes / self._limits.bytes,
        )
        if fill >= 1:
            self._progress.move(State.PAUSED)
        elif fill <= 0.5 and self._progress.state is State.PAUSED:
            self._source.resume()
            self._progress.move(State.RUNNING)
        paused = self._progress.state is State.PAUSED
        if paused:
            self._source.pause()  # at each step, because a rebalance may add partitions
            self._commits.request_commit()  # a transaction would wait in vain for more outcomes
        self._metrics.paused.set(paused)

    # -- the end -------------------------------------------------------------------------------

    def _shut_down(self, fault: Fatal | None) -> None:
        """Drain, commit and leave the group, all within `shutdown_timeout`.

        After a fault nothing new is published. Outcomes that were sent are still committed once the
        broker acknowledges them, so that a successor repeats as little as possible. An error in one
        step does not skip the next.

        Raises:
            Fatal: the first fault, or that not everything could be drained in time.
        """
        steps = CleanupSteps("error while stopping", fault)
        timeout = self._limits.shutdown_timeout
        deadline = self._clock.monotonic() + timeout
        drain_deadline = deadline - timeout / _COMMIT_SHARE
        self._rebalance.latest_deadline = drain_deadline
        self._intake.discard()
        if fault is None:
            self._progress.move(State.DRAINING)
            log.info("stopping", inflight=self._offsets.records)
            steps.run(lambda: self._drain(drain_deadline))
        steps.run(lambda: self._pipeline.close(self._left(deadline)))
        self._rebalance.latest_deadline = 0.0  # no outcome can follow, so a rebalance needn't wait
        steps.run(self._completions.absorb_remaining)
        steps.run(lambda: self._work.dead_letters.log_if_due(last=True))
        poll_once = functools.partial(self._poll, IDLE_POLL)  # lets a rebalance complete
        steps.run(lambda: self._commits.commit_by(deadline, poll_once))
        undrained, uncommitted = self._offsets.records, len(self._offsets.acknowledged())
        steps.run(lambda: self._source.close(min(_LEAVE_TIMEOUT, self._left(deadline))))
        if steps.fault is not None:
            raise steps.fault
        if undrained or uncommitted:
            raise Fatal(_incomplete(timeout, undrained, uncommitted))

    def _left(self, deadline: float) -> float:
        return max(0.5, deadline - self._clock.monotonic())

    def _drain(self, deadline: float) -> None:
        """Wait for the records that were handed on. Polling goes on, paused, for rebalances."""
        while self._offsets.records and self._clock.monotonic() < deadline:
            self._source.pause()
            self._commits.request_commit()
            # A partition that was assigned just now is not paused yet. Its records are dropped
            # untracked, and a successor polls them again.
            self._poll(BUSY_POLL)
            self._completions.absorb()


def _incomplete(timeout: float, undrained: int, uncommitted: int) -> str:
    return (
        f"not finished within shutdown_timeout ({timeout:g} s): "
        f"{counted(undrained, 'record')} in flight not published, offsets of "
        f"{counted(uncommitted, 'partition')} not committed; the group will read these records again"
    )
