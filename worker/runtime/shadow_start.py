"""Loads a second model beside the first one, while the worker runs, and connects both.

Owns: the shadow's model and its producer, for as long as the worker runs.
Thread: main; `_Start.loaded` runs on the thread that loads.
Must not import: kafka, inference; the caller passes a function that loads a model.

A model that can't be loaded and a topic that can't be written are logged. They stop no worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.encoder import Encoder
from worker.core.faults import CircuitBreaker
from worker.core.model import Classifier, Tokeniser
from worker.core.records import Classified
from worker.core.topic_limits import TopicLimits
from worker.errors import StreamlabelError
from worker.kafka_io.shadow_topic import ShadowTopic
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller
from worker.runtime.model_changes import LoadModel, Model
from worker.runtime.shadow import Publish, Shadow
from worker.settings import DecisionSettings, Settings

log = get_logger(__name__)

_FAILURES_IN_A_ROW: Final = 100  # texts on which the second model fails, until it is off


@contextmanager
def shadowing(
    settings: Settings, load_model: LoadModel, metrics: Metrics, clock: Clock
) -> Iterator[Shadow | None]:
    """Load the second model, if one is set, and let it go at the end of the `with` block."""
    if not settings.shadow.is_on:
        yield None
        return
    second = settings.model_copy(
        update={
            "model": settings.model.with_options(settings.shadow),
            "decision": DecisionSettings(),
        }
    )
    start = _Start(settings, Shadow(settings.shadow, metrics, clock), metrics, clock)
    # The metrics of the first model must not show the second's facts.
    with load_model(second, Metrics(), beside=True) as loading:
        loading.add_done_callback(start.loaded)
        try:
            yield start.shadow
        finally:
            start.close()


class _Start:
    def __init__(self, settings: Settings, shadow: Shadow, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self.shadow = shadow
        self._topic: ShadowTopic | None = None

    def loaded(self, loading: Future[Model]) -> None:
        """Connect the model once it is loaded, or note why it is not."""
        error = loading.exception()
        if error is None:
            try:
                labeller = build_shadow_labeller(self._settings, *loading.result())
                self.shadow.use(labeller, self._publisher())
            except Exception as unexpected:  # noqa: BLE001 - no fault of the shadow stops the worker
                error = unexpected
        if isinstance(error, Exception):  # otherwise the worker ends
            named = isinstance(error, StreamlabelError)
            self.shadow.give_up(str(error) if named else f"{type(error).__name__}: {error}")

    def _publisher(self) -> Publish | None:
        topic = self._settings.shadow.topic
        if topic is None:
            return None
        lost: Callable[[int], None] = self._metrics.shadow_unpublished.inc
        try:
            self._topic = ShadowTopic(self._settings, topic, lost)
        except StreamlabelError as error:
            log.warning(
                "the shadow's results are not published, it is compared all the same",
                topic=topic,
                reason=str(error),
            )
            return lambda results: lost(len(results))
        return self._encoding(self._topic, topic)

    def _encoding(self, shadow_topic: ShadowTopic, topic: str) -> Publish:
        output = self._settings.output
        encoder = Encoder(
            output.model_copy(update={"topic": topic, "mode": "classification"}),
            version=version("streamlabel"),
            limits={topic: TopicLimits(), output.dead_letter_topic: TopicLimits()},
        )

        def publish(results: Sequence[Classified]) -> None:
            now_ms, now = self._clock.wall_ms(), self._clock.monotonic()
            shadow_topic.send([encoder.encode(one, now_ms=now_ms, now=now) for one in results])

        return publish

    def close(self) -> None:
        if self._topic:
            self._topic.close()


def build_shadow_labeller(
    settings: Settings, tokeniser: Tokeniser, classifier: Classifier
) -> Labeller:
    """Return the work of the second model, whose passes count in no metric of the first."""
    # It sees a share of the texts, so a share of the cache holds the same minutes of the stream.
    cache_bytes = int(settings.cache.max_bytes * settings.shadow.share)
    card = classifier.card
    return Labeller(
        tokeniser,
        classifier,
        refuse_long=False,
        breaker=CircuitBreaker(_FAILURES_IN_A_ROW, ratio=1.0),
        budget=ForwardBudget(card.forward_tokens, pads=card.pads),
        metrics=Metrics(),
        cache=PredictionCache(cache_bytes) if cache_bytes else None,
    )
