"""Launches a worker: checks its topics, connects it to Kafka, and runs it.

Owns: the consumer and the producer until the worker is complete; from then on the worker ends them.
Thread: the main thread.
Must not import: kafka, inference, cli; the model is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeVar

from worker.core.decisions.rules import decidable_labels, result_labels, unnamed_hint
from worker.core.encoder import Encoder
from worker.core.faults import backoff
from worker.core.model import Classifier, Tokeniser
from worker.core.pace import Pace
from worker.core.records import ModelCard
from worker.core.replacement import OutcomeReplacer
from worker.core.route_topics import cards_of, spelling_notes, with_label_topics
from worker.core.topics import TopicInfo
from worker.core.when import Span
from worker.errors import (
    BrokerAway,
    RegistryAway,
    TopicMissing,
)
from worker.http.feeds import ModelFeeds, PageFeeds
from worker.kafka_io.sink import RecordSink
from worker.kafka_io.source import KafkaSource
from worker.logs import get_logger
from worker.runtime.assembly import (
    build_encoder,
    build_in_flight,
    build_sink,
    build_worker,
)
from worker.runtime.completions import Completions
from worker.runtime.context import OtherSource, RecordPath, WorkerContext
from worker.runtime.formats import TopicFormats, require_packages, topic_formats
from worker.runtime.labeller_choice import build_labeller
from worker.runtime.labellers import AnyLabeller
from worker.runtime.outputs import OutputTopics
from worker.runtime.pipeline import Pipeline, PipelineObservers
from worker.runtime.reachability import Reachability
from worker.runtime.rebalance import RebalanceListener
from worker.runtime.service import Worker
from worker.runtime.shadow import Shadow
from worker.runtime.stage import StageControl
from worker.runtime.takeover import ModelTaker
from worker.runtime.topics import count_members, require, result_size_warning, suitability_warnings
from worker.runtime.tracing import Tracing, Untraced
from worker.settings import Settings, deciding_digest, route_names

log = get_logger(__name__)

Made = TypeVar("Made")

_LONGEST_WAIT = 5.0  # seconds until a service or a topic that is back is noticed
_CLOSE_TIMEOUT = 1.0  # seconds, for a client that has not joined the group


class Launcher:
    """Runs one worker from its topics to its last commit.

    Args:
        settings: of the worker.
        context: exists before the worker, and serves HTTP meanwhile. A signal handler sets its
            `stop`, which ends the wait for a broker, or drains the worker.
        feeds: the live page's, if a page is served.
        tracing: follows each micro-batch, if given; its owner closes it.
        span: the range to label, or another source of records; None for all records of the input.
    """

    def __init__(
        self,
        settings: Settings,
        context: WorkerContext,
        *,
        feeds: PageFeeds | None = None,
        tracing: Tracing | None = None,
        span: Span | OtherSource | None = None,
    ) -> None:
        self._settings, self._span = settings, span
        self._context = context
        self._feeds, self._tracing = feeds, tracing or Untraced()
        self._topics: dict[str, TopicInfo] | None = None
        self._shadow: Shadow | None = None

    def preflight(self) -> None:
        """Check packages and topics, while the model is loading.

        An unreachable broker is not an error here; `run` waits for it. With `wait_for_topics` it
        also waits for missing topics.

        Raises:
            SettingsError: a package is missing that a format needs.
            Fatal: a topic is missing or forbidden.
        """
        require_packages(self._settings)
        try:
            self._topics = require(self._settings)
        except BrokerAway as error:
            self._context.progress.connection(up=False, reason=str(error))
            log.warning("broker unreachable, loading the model meanwhile", reason=str(error))
        except TopicMissing as error:
            self._wait_for_topics(error)

    def run(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Label until `stop` is set.

        Raises:
            Fatal: the fault that stopped the worker.
        """
        with ExitStack() as resources:
            worker = self.complete(tokeniser, classifier, resources)
            if worker is not None:
                worker.run()

    def complete(
        self,
        tokeniser: Tokeniser,
        classifier: Classifier,
        resources: ExitStack,
        shadow: Shadow | None = None,
    ) -> Worker | None:
        """Return a worker that is ready to run, or None if it is stopped meanwhile.

        The worker alone holds the model, so that its memory is free once another one is in its
        place.

        Args:
            tokeniser: of the model.
            classifier: of the model.
            resources: ends, after the worker, what its formats need.
            shadow: compares a second model with this one, if given.

        Raises:
            Fatal: a topic or a schema is missing or forbidden.
        """
        settings, self._shadow = self._settings, shadow
        self._log_start(classifier.card)
        named = with_label_topics(settings, cards_of(classifier))
        topics = self._all_topics(named)
        if topics is None:
            return None
        context = self._context
        formats = self._retry_until_stopped(
            lambda: topic_formats(named, context.metrics, context.clock)
        )
        if formats is None:
            return None
        resources.enter_context(formats.resources)
        self._warn(topics, classifier)
        context.metrics.create_label_series(
            result_labels(classifier.card), decidable_labels(classifier.card)
        )
        with ExitStack() as undo:
            worker = self._build(topics, formats, tokeniser, classifier, undo)
            if worker is not None:
                undo.pop_all()  # from here on the worker ends what was started
        return worker

    def _all_topics(self, named: Settings) -> dict[str, TopicInfo] | None:
        """Return a description of each topic, those that labels name too; None at a stop."""
        known = self._topics
        if known is not None and set(named.topics.among(known).all) <= known.keys():
            return known
        return self._retry_until_stopped(lambda: require(named))

    def _build(
        self,
        topics: dict[str, TopicInfo],
        formats: TopicFormats,
        tokeniser: Tokeniser,
        classifier: Classifier,
        undo: ExitStack,
    ) -> Worker | None:
        """Return a complete worker, or None if it was stopped meanwhile.

        `undo` closes the clients if a later part can't be built.
        """
        settings, context = self._settings, self._context
        named = with_label_topics(settings, cards_of(classifier))
        outputs = self._retry_until_stopped(lambda: OutputTopics(named, topics, formats.add_output))
        if outputs is None:
            return None
        group = settings.kafka.group_id if isinstance(self._span, Span) else None
        encoder = build_encoder(settings, outputs.limits, formats.results, context.metrics, group)
        replace_outcome = OutcomeReplacer(encoder, outputs.limits, context.clock.wall_ms).replace
        more = list(self._span.observers) if isinstance(self._span, OtherSource) else []
        more += [self._feeds.dead_letters] if self._feeds else []
        work, listener = build_in_flight(settings, context, more), RebalanceListener()
        members = count_members(settings.kafka)  # before it is one itself
        source = self._retry_until_stopped(lambda: self._open_source(listener, outputs))
        if source is None:
            return None
        undo.callback(source.close, _CLOSE_TIMEOUT)
        log.info("joining group", group=settings.kafka.group_id, other_members=members)
        sink = self._retry_until_stopped(
            lambda: build_sink(
                settings,
                outputs,
                source,
                work.completions.completed,
                context.clock,
                replace_outcome,
            )
        )
        if sink is None:
            return None
        undo.callback(sink.close, _CLOSE_TIMEOUT)
        labeller = build_labeller(settings, tokeniser, classifier, context)
        feeds = self._feeds.calls if self._feeds else ModelFeeds()
        observers = PipelineObservers(
            context.metrics, self._tracing, context.progress.stages, feeds, shadow=self._shadow
        )
        if context.changes:
            observers = replace(observers, published=context.changes.first_offsets.note)
        pipeline = self._pipeline(labeller, encoder, sink, work.completions, observers)
        path = RecordPath(source, pipeline, sink)
        if context.changes:
            taker = ModelTaker(settings, context, topics, outputs, work, pipeline, self._shadow)
            context.changes.connect(classifier.card, taker, pipeline.in_use)
        return build_worker(
            settings,
            context,
            work,
            path,
            listener,
            formats=formats,
            other_members=members,
            rate=self._span.rate if self._span else None,
        )

    def _open_source(self, listener: RebalanceListener, outputs: OutputTopics) -> KafkaSource:
        span, clock = self._span, self._context.clock
        if isinstance(span, OtherSource):
            return span.open(listener, clock)
        return KafkaSource(self._settings, listener, clock, outputs.prepare, span)

    def _pipeline(
        self,
        labeller: AnyLabeller,
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
            inputs=settings.topics.pattern or list(settings.topics.inputs),
            output=settings.topics.output,
            dead_letters=settings.topics.dead_letters,
            delivery=settings.delivery,
            model=card.name,
            engine=card.engine,
            **_routing(settings),
        )

    def _warn(self, topics: dict[str, TopicInfo], classifier: Classifier) -> None:
        """Log what is doubtful about the topics.

        Raises:
            SettingsError: no result of the model would fit its topic.
        """
        cards = cards_of(classifier)
        named = with_label_topics(self._settings, cards)
        warnings = suitability_warnings(named, topics)
        if warning := result_size_warning(named, topics, classifier.card):
            warnings.append(warning)
        warnings += spelling_notes(self._settings, cards)
        for name, card in cards.items():
            path = f"models.{name}.decision" if name else "decision"
            warnings += unnamed_hint(card.labels, path)
        for text in warnings:
            log.warning(text)

    def _wait_for_topics(self, error: TopicMissing) -> None:
        """Note what the worker waits for; raise the error if it is not to wait."""
        if not self._settings.wait_for_topics:
            raise error
        self._context.progress.waits(str(error))

    def _retry_until_stopped(self, attempt: Callable[[], Made]) -> Made | None:
        """Retry while a service is unreachable, or a topic is awaited; return None at a stop."""
        progress, tries = self._context.progress, 0
        registry = Reachability(
            "the schema registry is away; its answer is needed to start",
            "the schema registry is back",
            self._context.clock,
        )
        while not self._context.stop.is_set():
            try:
                made = attempt()
            except BrokerAway as error:
                progress.connection(up=False, reason=str(error))
            except RegistryAway as error:
                progress.registry(str(error))
                registry.note(str(error))
            except TopicMissing as error:
                progress.connection(up=True)
                self._wait_for_topics(error)
            else:
                progress.connection(up=True)
                progress.waits(None)
                progress.registry(None)
                registry.note(None)
                return made
            tries += 1
            self._context.stop.wait(backoff(tries, base=0.5, cap=_LONGEST_WAIT))
        log.info("stopped before the first poll")
        return None


def _routing(settings: Settings) -> dict[str, Any]:
    """Return the routes as log fields, and the digest that notes of filtered records have."""
    shown: dict[str, Any] = {}
    if settings.routes:
        shown["routes"] = list(route_names(settings.routes))
    if settings.output.filtered_topic:
        shown |= {"filtered": settings.output.filtered_topic, "digest": deciding_digest(settings)}
    return shown
