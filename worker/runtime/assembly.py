"""Builds a worker's parts in the order of their dependence.

Owns: nothing; each function returns parts that are complete.
Thread: the main thread, before the first poll.
Must not import: kafka, inference, cli.

::

    context    metrics, progress, clock, stop           exist before the worker
    work       offsets, batcher, completions            <- context
    listener   `RebalanceListener`                      <- nothing
    formats    of the input and of results              <- context
    source     the consumer                             <- listener
    sink       the producer (`build_sink`)              <- source, completions
    pipeline   the stages                               <- sink, completions, the model
    control    commits, rebalance                       <- work, source, sink
    holds      what waits for a schema                  <- work, source, formats
    worker     the main loop                            <- all of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.decisions.routes import Router
from worker.core.encoder import Encoder
from worker.core.faults import OUTPUT, CircuitBreaker
from worker.core.formats.format import ResultFormat
from worker.core.offsets import OffsetTracker
from worker.core.readability import Readability
from worker.core.refusals import TopicBreakers
from worker.core.replacement import ReplaceOutcome, give_up
from worker.core.routed_encoder import RoutedEncoder
from worker.core.topic_limits import TopicLimits
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.sent_batch import OnCompletion
from worker.kafka_io.sink import KafkaSink, RecordSink
from worker.kafka_io.source import KafkaSource
from worker.kafka_io.topic_watch import SeenTopics
from worker.kafka_io.transactions import TransactionalSink
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions, OutcomeObserver
from worker.runtime.context import InFlight, Limits, OffsetControl, RecordPath, WorkerContext
from worker.runtime.drift import DriftWatch
from worker.runtime.formats import TopicFormats
from worker.runtime.holds import Holds
from worker.runtime.input_delays import InputDelays
from worker.runtime.intake import Intake
from worker.runtime.outcome_counts import create_route_series
from worker.runtime.outcome_logs import DeadLetterLog, ExpiredLog, ThroughputLog
from worker.runtime.outputs import TopicSizes
from worker.runtime.rebalance import Rebalance, RebalanceListener
from worker.runtime.service import Worker
from worker.runtime.status import StatusReporter
from worker.settings import Settings, condition_paths


def build_in_flight(
    settings: Settings, context: WorkerContext, more: Sequence[OutcomeObserver] = ()
) -> InFlight:
    """Return the state of records in flight, with nothing in it.

    Args:
        settings: of the worker.
        context: exists before the worker.
        more: observers of the outcomes, beside those that write the log.
    """
    metrics, clock = context.metrics, context.clock
    offsets = OffsetTracker()
    throughput, dead_letters = ThroughputLog(clock), DeadLetterLog(clock)
    observers: list[OutcomeObserver] = [throughput, dead_letters, *more]
    drift = DriftWatch(settings.drift, metrics) if settings.drift.reference_records else None
    if drift:
        observers.append(drift)
    observers.append(ExpiredLog())
    breaker = CircuitBreaker(
        settings.max_consecutive_dead_letters, settings.max_dead_letter_ratio, OUTPUT
    )
    return InFlight(
        offsets,
        MicroBatcher(
            min(settings.batch.max_records, settings.max_inflight_records),
            settings.batch.max_tokens,
        ),
        Completions(
            offsets,
            metrics,
            context.progress,
            clock,
            observers,
            TopicBreakers(breaker),
            routes=bool(settings.routes),
        ),
        throughput,
        dead_letters,
        drift,
    )


def build_encoder(
    settings: Settings,
    limits: Mapping[str, TopicLimits],
    results: ResultFormat,
    metrics: Metrics,
    group: str | None = None,
) -> Encoder:
    """Return the encoder of results, dead letters and notes.

    Args:
        settings: name the topics.
        limits: of each output topic; topics may be added.
        results: serialises results.
        metrics: count the records that lack a field of a route's condition.
        group: of a backfill, which its outcomes name.
    """
    encoder: Callable[..., Encoder] = Encoder
    if settings.routes:
        create_route_series(metrics, settings.routes)

        def missing(path: str) -> None:
            metrics.path_missing.labels(path).inc()

        router = Router(settings.routes, settings.output.topic, missing)
        encoder = partial(RoutedEncoder, router=router)
    return encoder(
        settings.output,
        version=version("streamlabel"),
        limits=limits,
        results=results,
        group=group,
    )


def build_sink(
    settings: Settings,
    topics: TopicSizes,
    source: KafkaSource,
    on_completion: OnCompletion,
    clock: Clock,
    replace_outcome: ReplaceOutcome = give_up,
) -> RecordSink:
    """Return the sink that the delivery asks for.

    Args:
        settings: of the worker.
        topics: that are written to.
        source: knows which assignments are current.
        on_completion: called with what the broker has acknowledged.
        clock: times the sink.
        replace_outcome: returns another outcome for one that its topic refused.

    Raises:
        BrokerAway, Fatal: as the sinks.
    """
    seen = SeenTopics()

    def publisher(transactional_id: str | None = None) -> Publisher:
        most = topics.largest_batch
        return Publisher(settings, topics.partitions, most, clock, transactional_id, seen)

    if settings.delivery == "exactly_once":
        return TransactionalSink(
            settings,
            publisher,
            on_completion,
            source,
            clock,
            replace_outcome,
            note=source.note,
            leader_epoch=source.leader_epoch,
        )
    # A producer that works makes progress on every record within one request.
    patience = 2 * settings.kafka.request_timeout
    return KafkaSink(publisher, patience, on_completion, source, clock, replace_outcome)


def build_worker(
    settings: Settings,
    context: WorkerContext,
    work: InFlight,
    path: RecordPath,
    listener: RebalanceListener,
    *,
    formats: TopicFormats,
    other_members: int | str,
    rate: float | None = None,
) -> Worker:
    """Return a worker that is ready to run.

    Args:
        settings: of the worker.
        context: exists before the worker.
        work: the state of records in flight.
        path: source, pipeline and sink.
        listener: the one that the source was made with; it is connected here.
        formats: of the input.
        other_members: members of the group before this worker joined, if known.
        rate: most records a second; None for no limit.
    """
    metrics, clock = context.metrics, context.clock
    control = _build_control(settings, context, work, path)
    listener.connect(control.rebalance)
    delays = InputDelays(settings.kafka.group_id, other_members, metrics, clock)
    holds = Holds(path.source, work.offsets, formats.values, formats.away)
    return Worker(
        context,
        work,
        path,
        intake=Intake(
            formats.decoder(settings.input, formats.values, condition_paths(settings)),
            Readability(settings.max_unreadable_ratio),
            work.batcher,
            work.offsets,
            path.pipeline,
            holds,
            metrics=metrics,
            clock=clock,
        ),
        control=control,
        status=StatusReporter(
            context,
            work,
            path,
            delays,
            holds,
            *([context.changes.first_offsets.show] if context.changes else []),
        ),
        limits=Limits(
            settings.max_inflight_records,
            settings.max_inflight_bytes,
            settings.shutdown_timeout,
            rate,
        ),
        each_round=context.changes.step if context.changes else lambda: None,
    )


def _build_control(
    settings: Settings, context: WorkerContext, work: InFlight, path: RecordPath
) -> OffsetControl:
    metrics, clock = context.metrics, context.clock
    commits = Commits(
        work.offsets,
        path.source,
        path.sink,
        settings.commit_every,
        metrics=metrics,
        clock=clock,
        on_failure=work.completions.failed,
    )
    rebalance = Rebalance(
        work.offsets,
        work.batcher,
        work.completions,
        commits,
        drain_timeout=settings.rebalance_drain_timeout,
        metrics=metrics,
        clock=clock,
    )
    return OffsetControl(commits, rebalance)
