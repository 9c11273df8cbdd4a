"""Launches a worker: checks its topics, connects it to Kafka, and runs it.

Owns: the consumer and the producer until the worker is complete; from then on the worker ends them.
Thread: the main thread.
Must not import: kafka, inference, cli; the model is passed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import TypeVar

from worker.clock import Clock
from worker.core.encoder import Encoder
from worker.core.faults import backoff
from worker.core.model import Classifier, Tokeniser
from worker.core.pace import Pace
from worker.core.records import ModelCard
from worker.core.replacement import OutcomeReplacer, ReplaceOutcome
from worker.core.topic_limits import TopicLimits
from worker.core.topics import DEFAULT_MAX_MESSAGE_BYTES, TopicInfo
from worker.errors import BrokerAway
from worker.http.feeds import ModelFeeds, PageFeeds
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.sink import KafkaSink, RecordSink
from worker.kafka_io.source import KafkaSource
from worker.kafka_io.transactions import TransactionalSink
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.assembly import (
    build_encoder,
    build_in_flight,
    build_labeller,
    build_worker,
)
from worker.runtime.completions import Completions
from worker.runtime.context import RecordPath, WorkerContext
from worker.runtime.labelling import Labeller
from worker.runtime.pipeline import Pipeline, PipelineObservers
from worker.runtime.progress import Progress
from worker.runtime.rebalance import RebalanceListener
from worker.runtime.service import Worker
from worker.runtime.stage import StageControl
from worker.runtime.topics import count_members, require, result_size_warning, suitability_warnings
from worker.runtime.tracing import Tracing, Untraced
from worker.settings import Settings

log = get_logger(__name__)

Made = TypeVar("Made")

_CLOSE_TIMEOUT = 1.0  # seconds, for a client that has not joined the group


class Launcher:
    """Runs one worker from its topics to its last commit.

    Args:
        settings: of the worker.
        metrics, progress, clock: exist before the worker, and serve HTTP meanwhile.
        stop: set from a signal handler; ends the wait for a broker, or drains the worker.
        feeds: the live page's, if a page is served.
        tracing: follows each micro-batch, if given; its owner closes it.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        progress: Progress,
        clock: Clock,
        stop: threading.Event,
        *,
        feeds: PageFeeds | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._context = WorkerContext(metrics, progress, clock, stop)
        self._feeds, self._tracing = feeds, tracing or Untraced()
        self._topics: dict[str, TopicInfo] | None = None

    def preflight(self) -> None:
        """Check that the topics exist, while the model is loading.

        An unreachable broker is not an error here; `run` waits for it.

        Raises:
            Fatal: a topic is missing or forbidden.
        """
        try:
            self._topics = require(self._settings)
        except BrokerAway as error:
            self._context.progress.connection(up=False)
            log.warning("broker unreachable, loading the model meanwhile", reason=str(error))

    def run(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Label until `stop` is set.

        Raises:
            Fatal: the fault that stopped the worker.
        """
        settings = self._settings
        self._log_start(classifier.card)
        topics = self._topics or self._retry_until_stopped(lambda: require(settings))
        if topics is None:
            return
        self._warn(topics, classifier.card)
        self._context.metrics.create_label_series(classifier.card.labels)
        with ExitStack() as undo:
            worker = self._build(topics, tokeniser, classifier, undo)
            if worker is None:
                return
            undo.pop_all()  # from here on the worker ends what was started
        worker.run()

    def _build(
        self,
        topics: dict[str, TopicInfo],
        tokeniser: Tokeniser,
        classifier: Classifier,
        undo: ExitStack,
    ) -> Worker | None:
        """Return a complete worker, or None if it was stopped meanwhile.

        `undo` closes the clients if a later part can't be built.
        """
        settings, context = self._settings, self._context
        most = settings.kafka.max_request_bytes
        limits = {name: TopicLimits.of(topics[name], most) for name in settings.topics.outputs}
        encoder = build_encoder(settings, limits, classifier.card)
        replace_outcome = OutcomeReplacer(encoder, limits, context.clock.wall_ms).replace
        work, listener = build_in_flight(settings, context), RebalanceListener()
        members = count_members(settings.kafka)  # before it is one itself
        source = self._retry_until_stopped(lambda: KafkaSource(settings, listener, context.clock))
        if source is None:
            return None
        undo.callback(source.close, _CLOSE_TIMEOUT)
        log.info("joining group", group=settings.kafka.group_id, other_members=members)
        sink = self._retry_until_stopped(
            lambda: self._sink(topics, source, work.completions, replace_outcome)
        )
        if sink is None:
            return None
        undo.callback(sink.close, _CLOSE_TIMEOUT)
        labeller = build_labeller(settings, tokeniser, classifier, context)
        feeds = self._feeds.for_model(tokeniser, classifier) if self._feeds else ModelFeeds()
        observers = PipelineObservers(
            context.metrics, self._tracing, context.progress.stages, feeds
        )
        pipeline = self._pipeline(labeller, encoder, sink, work.completions, observers)
        path = RecordPath(source, pipeline, sink)
        return build_worker(settings, context, work, path, listener, members)

    def _pipeline(
        self,
        labeller: Labeller,
        encoder: Encoder,
        sink: RecordSink,
        completions: Completions,
        observers: PipelineObservers,
    ) -> Pipeline:
        batch = self._settings.batch
        goal = batch.latency_goal_ms / 1000 if batch.latency_goal_ms else None
        return Pipeline(
            labeller,
            encoder,
            sink,
            Pace(goal, batch.max_seconds),
            StageControl(on_crash=completions.crashed, clock=self._context.clock),
            observers,
        )

    def _log_start(self, card: ModelCard) -> None:
        settings = self._settings
        log.info(
            "starting",
            version=version("streamlabel"),
            broker=settings.kafka.bootstrap_servers,
            group=settings.kafka.group_id,
            inputs=list(settings.topics.inputs),
            output=settings.topics.output,
            dead_letters=settings.topics.dead_letters,
            delivery=settings.delivery,
            model=card.name,
            engine=card.engine,
        )

    def _warn(self, topics: dict[str, TopicInfo], card: ModelCard) -> None:
        """Log what is doubtful about the topics.

        Raises:
            SettingsError: no result of the model would fit its topic.
        """
        warnings = suitability_warnings(self._settings, topics)
        if warning := result_size_warning(self._settings, topics, card):
            warnings.append(warning)
        for text in warnings:
            log.warning(text)

    def _sink(
        self,
        topics: dict[str, TopicInfo],
        source: KafkaSource,
        completions: Completions,
        replace_outcome: ReplaceOutcome,
    ) -> RecordSink:
        settings, clock, completed = self._settings, self._context.clock, completions.completed
        outputs = settings.topics.outputs
        partitions = {name: topics[name].partitions for name in outputs}
        largest = max(
            topics[name].max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES for name in outputs
        )

        largest = min(largest, settings.kafka.max_request_bytes or largest)

        def publisher(transactional_id: str | None = None) -> Publisher:
            return Publisher(settings, partitions, largest, clock, transactional_id)

        if settings.delivery == "exactly_once":
            return TransactionalSink(settings, publisher, completed, source, clock, replace_outcome)
        # A producer that works makes progress on every record within one request.
        patience = 2 * settings.kafka.request_timeout
        return KafkaSink(publisher, patience, completed, source, clock, replace_outcome)

    def _retry_until_stopped(self, attempt: Callable[[], Made]) -> Made | None:
        """Retry while the broker is unreachable; return None if the worker is stopped first."""
        tries = 0
        while not self._context.stop.is_set():
            try:
                made = attempt()
            except BrokerAway as error:
                self._context.progress.connection(up=False, reason=str(error))
                tries += 1
                self._context.stop.wait(backoff(tries, base=0.5))
            else:
                self._context.progress.connection(up=True)
                return made
        log.info("stopped before the first poll")
        return None
