"""Replays dead letters: copies them back into a topic, or labels them at once.

Both are the worker itself with another source, `kafka_io.dead_letter_source`: its group, offsets,
rebalances and sinks. So a replay that is killed loses nothing, and in exactly_once repeats nothing.

::

    label   dead letters -> the worker's pipeline -> results and new dead letters
    copy    dead letters -> `CopyPipeline`        -> the topic that they came from

Owns: the pipeline of copies, and the count of what the broker has acknowledged.
Thread: the main thread, which becomes the poll thread; `CopyPipeline` has one of its own.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from worker.clock import Clock, SystemClock
from worker.core.decoder import Decoder
from worker.core.pace import Demand
from worker.core.records import Encoded, MicroBatch, RawRecord, WorkItem
from worker.core.replay_rules import ReplaySelection
from worker.core.state import State
from worker.core.topic_limits import TopicLimits
from worker.core.topics import DEFAULT_MAX_MESSAGE_BYTES, TopicInfo
from worker.errors import StreamlabelError
from worker.kafka_io.dead_letter_source import DeadLetterSource
from worker.kafka_io.listener import RebalanceHandler
from worker.kafka_io.sink import RecordSink
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.assembly import build_in_flight, build_sink, build_worker
from worker.runtime.context import OtherSource, RecordPath, WorkerContext
from worker.runtime.formats import plain_formats
from worker.runtime.progress import Progress
from worker.runtime.publishing import SinkDriver
from worker.runtime.rebalance import RebalanceListener
from worker.runtime.stage import Stage, StageControl, StageHooks
from worker.settings import Settings

log = get_logger(__name__)

_CLOSE_TIMEOUT = 1.0  # seconds, for a client that has not joined the group


@dataclass(slots=True)
class ReplayTally:
    """Counts the outcomes that the broker has acknowledged.

    Attributes:
        on_progress: called after each batch.
        done: copies, or results.
        dead: new dead letters by reason.
    """

    on_progress: Callable[[], None] = lambda: None
    done: int = 0
    dead: Counter[str] = field(default_factory=Counter)

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Count acknowledged outcomes."""
        reasons = [outcome.reason.value for outcome in outcomes if outcome.reason is not None]
        self.dead.update(reasons)
        self.done += len(outcomes) - len(reasons)
        self.on_progress()


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """One run of a replay.

    Attributes:
        settings: of the worker that wrote the dead letters, with the replay's group and delivery.
        selection: decides about each dead letter, and counts.
        ends: offset at which the run ends, by partition of the dead-letter topic.
        rate: dead letters a second; None: as fast as possible.
        tally: counts what was acknowledged.
    """

    settings: Settings
    selection: ReplaySelection
    ends: Mapping[int, int]
    rate: float | None = None
    tally: ReplayTally = field(default_factory=ReplayTally)

    @property
    def source(self) -> OtherSource:
        """The dead letters, as the worker's source of records."""

        def start(handler: RebalanceHandler, clock: Clock) -> DeadLetterSource:
            settings = _reading_dead_letters(self.settings)
            return DeadLetterSource(settings, handler, clock, self.selection, self.ends)

        return OtherSource(start, (self.tally,), self.rate)


def _reading_dead_letters(settings: Settings) -> Settings:
    """Return the settings of a worker whose input is the dead-letter topic."""
    changed = {
        "topic": settings.topics.dead_letters,
        "topics": (),
        "topic_pattern": None,
        "start": "earliest",
    }
    return settings.model_copy(update={"input": settings.input.model_copy(update=changed)})


class CopyTopics:
    """The topics that take copies.

    Args:
        infos: describes each of them that exists.
        max_request: bytes of the largest request that brokers accept, if known.

    Attributes:
        limits: by topic.
        partitions: number of partitions by topic.
        largest_batch: bytes of the largest batch that one of the topics accepts.
    """

    def __init__(self, infos: Mapping[str, TopicInfo], max_request: int | None) -> None:
        self.limits = {name: TopicLimits.of(info, max_request) for name, info in infos.items()}
        self.partitions = {name: info.partitions for name, info in infos.items()}
        sizes = [info.max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES for info in infos.values()]
        largest = max(sizes, default=DEFAULT_MAX_MESSAGE_BYTES)
        self.largest_batch = min(largest, max_request or largest)


class CopyPipeline:
    """Sends each record on as it is.

    Args:
        to: topic of the copies; None: that of each record's origin.
        sink: publishes.
        control: clock, crash handler and cancellation of the stage.
        progress: counts the records of the only stage.
    """

    def __init__(
        self, to: str | None, sink: RecordSink, control: StageControl, progress: Progress
    ) -> None:
        self._to, self._sink, self._control = to, sink, control
        self._driver = SinkDriver(sink, control)
        hooks: StageHooks[None] = StageHooks(idle=self._driver.advance)
        self._stage: Stage[MicroBatch, None] = Stage(
            self._publish, progress.publish, control, hooks
        )

    @property
    def has_room(self) -> bool:
        """True if a batch can be handed over without waiting."""
        return self._stage.has_room

    def start(self) -> None:
        """Start the thread."""
        self._stage.start()

    def offer(self, batch: MicroBatch) -> bool:
        """Hand a batch over; return False while the stage is full. Poll thread only."""
        return self._stage.offer(batch)

    def demand(self, waiting: int) -> Demand:  # noqa: ARG002 - the interface
        """Return that any batch is wanted at once: nothing is gained by waiting."""
        return Demand(-math.inf)

    def close(self, timeout: float) -> None:
        """Drop what is not published yet, and await the acknowledgement of what is."""
        deadline = self._control.clock.monotonic() + timeout
        self._control.cancelled.set()
        self._stage.join(timeout)
        try:
            self._sink.close(max(0.1, deadline - self._control.clock.monotonic()))
        except StreamlabelError as error:
            log.warning("producer did not close cleanly", reason=str(error))

    def _publish(self, batch: MicroBatch) -> None:
        self._driver.publish([_copy(entry.record, self._to) for entry in batch.entries])


def _copy(record: RawRecord, to: str | None) -> Encoded:
    """Return a record to publish: same bytes, key, headers, timestamp and partition."""
    return Encoded(
        ref=record.ref,
        topic=to or record.source.topic,
        key=record.key,
        value=record.value,
        headers=[*record.headers],
        timestamp_ms=record.timestamp_ms,
        origin=record.origin,
    )


class _Unread(Decoder):
    """Takes each record as it is: a copy needs no text."""

    def decode(self, record: RawRecord) -> WorkItem:
        return WorkItem(record, "")


def copy_dead_letters(plan: ReplayPlan, topics: CopyTopics, stop: threading.Event) -> None:
    """Copy dead letters until all partitions have reached their ends, or `stop` is set.

    Args:
        plan: the run.
        topics: that take the copies.
        stop: set from a signal handler.

    Raises:
        StreamlabelError: the reason why it stopped; the same command continues.
    """
    clock, metrics = SystemClock(), Metrics()
    settings = plan.settings
    progress = Progress(settings.stall_timeout, metrics, clock)
    progress.move(State.WARMING)
    context = WorkerContext(metrics, progress, clock, stop)
    work, listener = build_in_flight(settings, context, plan.source.observers), RebalanceListener()
    with ExitStack() as undo:
        source = plan.source.open(listener, clock)
        undo.callback(source.close, _CLOSE_TIMEOUT)
        sink = build_sink(settings, topics, source, work.completions.completed, clock)
        undo.callback(sink.close, _CLOSE_TIMEOUT)
        control = StageControl(on_crash=work.completions.crashed, clock=clock)
        pipeline = CopyPipeline(plan.selection.rules.to, sink, control, progress)
        worker = build_worker(
            settings,
            context,
            work,
            RecordPath(source, pipeline, sink),
            listener,
            formats=replace(plain_formats(settings), decoder=_Unread),
            other_members=0,
            rate=plan.rate,
        )
        undo.pop_all()  # from here on the worker ends what was started
    worker.run()
