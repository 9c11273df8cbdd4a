"""Puts a worker together and runs it: topics, consumer, producer, stages, main loop.

Runs on the main thread, before any record is read. Imports kafka_io and the rest of runtime; the
model comes in as a value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import TypeVar

from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.encoder import Encoder
from worker.core.faults import CircuitBreaker, backoff
from worker.core.model import Classifier, Tokeniser
from worker.core.pace import Pace
from worker.core.records import ModelCard
from worker.core.replacement import OutcomeReplacer, ReplaceOutcome
from worker.core.topic_limits import TopicLimits
from worker.core.topics import DEFAULT_MAX_MESSAGE_BYTES, TopicInfo
from worker.errors import BrokerAway
from worker.http.feeds import PageFeeds
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.sink import KafkaSink, RecordSink
from worker.kafka_io.source import KafkaSource
from worker.kafka_io.transactions import TransactionalSink
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller
from worker.runtime.pipeline import Pipeline
from worker.runtime.progress import Progress
from worker.runtime.service import Worker
from worker.runtime.topics import fit, judged, others, require
from worker.runtime.tracing import Tracing, Untraced
from worker.settings import Settings

log = get_logger(__name__)

Made = TypeVar("Made")

_LEAVE = 1.0  # seconds; it has not joined yet


class Launcher:
    """One worker's life from topics to the last commit.

    Args:
        stop: set from a signal handler; ends the waiting for a broker, or drains the worker.
        feeds: people at the page, where there is one.
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
        self._settings, self._metrics = settings, metrics
        self._progress, self._clock, self._stop = progress, clock, stop
        self._feeds, self._tracing = feeds, tracing or Untraced()
        self._topics: dict[str, TopicInfo] | None = None

    def preflight(self) -> None:
        """Before the model is loaded, which takes seconds: are the topics there?

        Raises:
            Fatal: they are not, or are forbidden. A broker that is away is waited for by `run`.
        """
        try:
            self._topics = require(self._settings)
        except BrokerAway as error:
            self._progress.connection(up=False)
            log.warning("no broker answers yet; the model is loaded meanwhile", reason=str(error))

    def run(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Label until `stop`.

        Raises:
            Fatal: what stopped the worker.
        """
        settings = self._settings
        topics = self._topics or self._retry_until_stopped(lambda: require(settings))
        if topics is None:
            return
        self._judge(topics, classifier.card)
        self._metrics.create_label_series(classifier.card.labels)
        worker = Worker(settings, self._metrics, self._clock, self._progress, self._stop)
        worker.holdups.others = others(settings)
        encoder, replace_outcome = self._encoder(topics, classifier.card)
        with ExitStack() as undo:
            source = self._retry_until_stopped(
                lambda: KafkaSource(settings, worker.rebalance, self._clock)
            )
            if source is None:
                return
            undo.callback(source.close, _LEAVE)
            sink = self._retry_until_stopped(
                lambda: self._sink(topics, source, worker, replace_outcome)
            )
            if sink is None:
                return
            undo.callback(sink.close, _LEAVE)
            pipeline = self._pipeline(encoder, sink, worker, tokeniser, classifier)
            worker.attach(source, pipeline, sink)
            undo.pop_all()  # from here on the worker ends what was begun
        worker.run()

    def _pipeline(
        self,
        encoder: Encoder,
        sink: RecordSink,
        worker: Worker,
        tokeniser: Tokeniser,
        classifier: Classifier,
    ) -> Pipeline:
        settings, card = self._settings, classifier.card
        labeller = Labeller(
            tokeniser,
            classifier,
            refuse_long=settings.input.overflow == "dead_letter",
            breaker=CircuitBreaker(
                settings.max_consecutive_dead_letters, settings.max_dead_letter_ratio
            ),
            budget=ForwardBudget(card.forward_tokens, pads=card.pads),
            metrics=self._metrics,
            cache=PredictionCache(settings.cache.max_bytes) if settings.cache.max_bytes else None,
        )
        goal = settings.batch.latency_goal_ms
        if self._feeds:
            self._feeds.open(tokeniser, classifier)
        return Pipeline(
            labeller,
            encoder,
            sink,
            Pace(goal / 1000 if goal else None),
            metrics=self._metrics,
            clock=self._clock,
            tracing=self._tracing,
            on_crash=worker.completions.crashed,
            feeds=self._feeds,
        )

    def _judge(self, topics: dict[str, TopicInfo], card: ModelCard) -> None:
        """Say what is doubtful; raises SettingsError where no result would fit its topic."""
        doubts = judged(self._settings, topics)
        if said := fit(self._settings, topics, card):
            doubts.append(said)
        for doubt in doubts:
            log.warning(doubt)

    def _encoder(
        self, topics: dict[str, TopicInfo], card: ModelCard
    ) -> tuple[Encoder, ReplaceOutcome]:
        names = self._settings.topics
        limits = {name: TopicLimits.of(topics[name]) for name in names.outputs}
        encoder = Encoder(
            self._settings.output,
            card,
            version=version("streamlabel"),
            limits=limits[names.output],
            dead_letter_limits=limits[names.dead_letters],
        )
        return encoder, OutcomeReplacer(encoder, limits, self._clock.wall_ms).replace

    def _sink(
        self,
        topics: dict[str, TopicInfo],
        source: KafkaSource,
        worker: Worker,
        replace_outcome: ReplaceOutcome,
    ) -> RecordSink:
        settings, clock, completed = self._settings, self._clock, worker.completions.completed
        outputs = settings.topics.outputs
        partitions = {name: topics[name].partitions for name in outputs}
        largest = max(
            topics[name].max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES for name in outputs
        )

        def publisher(transactional_id: str | None = None) -> Publisher:
            return Publisher(settings, partitions, largest, clock, transactional_id)

        if settings.delivery == "exactly_once":
            return TransactionalSink(settings, publisher, completed, source, clock, replace_outcome)
        # A client that works does something for every record within one request.
        patience = 2 * settings.kafka.request_timeout
        return KafkaSink(publisher, patience, completed, source, clock, replace_outcome)

    def _retry_until_stopped(self, attempt: Callable[[], Made]) -> Made | None:
        """Try until it works or the worker is told to stop (None); says so once a while."""
        tries = 0
        while not self._stop.is_set():
            try:
                made = attempt()
            except BrokerAway as error:
                self._progress.connection(up=False, reason=str(error))
                tries += 1
                self._stop.wait(backoff(tries, base=0.5))
            else:
                self._progress.connection(up=True)
                return made
        log.info("stopped before the first record was polled")
        return None
