"""Runs the three stages behind the poll thread: tokenise, infer, publish.

Owns: the threads of the stages and their hand-offs.
Thread: `offer` and `demand` are for the poll thread; each stage has a thread of its own.
Must not import: kafka, torch.

Micro-batches enter by `offer`; completions come out through the sink.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from worker import timeline
from worker.core.encoder import Encoder
from worker.core.model import Classifier
from worker.core.pace import Demand, Pace
from worker.core.records import Encoded, MicroBatch, Outcome
from worker.errors import StreamlabelError
from worker.http.feeds import ModelFeeds
from worker.kafka_io.sink import RecordSink
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.labellers import AnyBatch, AnyLabeller
from worker.runtime.publishing import SinkDriver
from worker.runtime.shadow import Shadow
from worker.runtime.stage import Stage, StageControl, StageHooks
from worker.runtime.stall import StageProgress
from worker.runtime.tracing import Tracing

log = get_logger(__name__)

_Tokenise = Stage[MicroBatch, AnyBatch]
_Infer = Stage[AnyBatch, list[Outcome]]
_Publish = Stage[list[Outcome], None]


class RecordPipeline(Protocol):
    """The way of micro-batches to the sink, as the poll thread sees it."""

    @property
    def has_room(self) -> bool: ...
    def start(self) -> None: ...
    def offer(self, batch: MicroBatch) -> bool: ...
    def demand(self, waiting: int) -> Demand: ...
    def close(self, timeout: float) -> None: ...


@dataclass(frozen=True, slots=True)
class PipelineObservers:
    """The parts that watch the pipeline's work.

    Attributes:
        metrics: times of each stage.
        tracing: follows each micro-batch.
        progress: records held by tokenise, infer and publish, in this order; read by health.
        feeds: show published outcomes on the live page, and answer its questions to the model
            between micro-batches.
        published: takes the outcomes of each micro-batch that was published. Publish thread.
        shadow: compares a second model with the first, between micro-batches; None without one.
    """

    metrics: Metrics
    tracing: Tracing
    progress: tuple[StageProgress, StageProgress, StageProgress]
    feeds: ModelFeeds
    published: Callable[[Sequence[Encoded]], None] = lambda _: None
    shadow: Shadow | None = None


class Pipeline:
    """Threads tokenise, infer and publish, with one batch ready between each two.

    Args:
        labeller: does the work of tokenise and infer, until `use` replaces it.
        encoder, sink: do the work of publish.
        pace: learns the stages' speed, and predicts when they need more work.
        control: clock, crash handler and cancellation of the stages.
        observers: watch the work.
    """

    def __init__(
        self,
        labeller: AnyLabeller,
        encoder: Encoder,
        sink: RecordSink,
        pace: Pace,
        control: StageControl,
        observers: PipelineObservers,
    ) -> None:
        self._labeller, self._encoder, self._sink = labeller, encoder, sink
        self._pace, self._control, self._clock = pace, control, control.clock
        self._driver = SinkDriver(sink, control)
        self._metrics, self._tracing = observers.metrics, observers.tracing
        self._note, self._published = observers.feeds.note, observers.published
        self._shadow = observers.shadow
        # Not the labeller itself, which would keep its model in memory.
        self._infers = labeller.card
        # The stages keep the order, so each can count the micro-batches for itself.
        self._numbers = {stage: itertools.count(1) for stage in ("tokenise", "infer", "publish")}
        tokenise, infer, publish = observers.progress
        busy = observers.metrics.busy.labels
        self._publish: _Publish = Stage(
            self._do_publish,
            publish,
            control,
            StageHooks(idle=self._driver.advance, busy=busy("publish").inc),
            inbox_size=2,
        )
        self._infer: _Infer = Stage(
            self._do_infer,
            infer,
            control,
            StageHooks(
                hand_on=self._publish.put,
                between=partial(self._between_passes, observers.feeds),
                busy=busy("infer").inc,
            ),
        )
        self._tokenise: _Tokenise = Stage(
            self._do_tokenise,
            tokenise,
            control,
            StageHooks(
                hand_on=self._infer.put,
                between=partial(self._between, observers.feeds),
                busy=busy("tokenise").inc,
            ),
        )

    def start(self) -> None:
        """Start the threads."""
        for stage in reversed(self.stages):
            stage.start()

    @property
    def stages(self) -> tuple[_Tokenise, _Infer, _Publish]:
        """The stages in the order of the data flow."""
        return self._tokenise, self._infer, self._publish

    @property
    def has_room(self) -> bool:
        """True if a batch can be handed over without waiting."""
        return self._tokenise.has_room

    def offer(self, batch: MicroBatch) -> bool:
        """Hand a batch over; return False while the first stage is full. Poll thread only."""
        accepted = self._tokenise.offer(batch)
        if accepted:
            self._pace.handed()
        return accepted

    def use(self, labeller: AnyLabeller) -> None:
        """Give micro-batches to another model, from the next one that is tokenised. Poll thread.

        Those that are tokenised already stay with their own, so outcomes keep their order.
        """
        self._labeller = labeller
        self._pace.restart()

    def in_use(self) -> Classifier:
        """Return the model that the next micro-batch is given to."""
        return self._labeller.classifier

    def demand(self, waiting: int) -> Demand:
        """Return when and how much the model needs next. Poll thread only.

        Args:
            waiting: estimated tokens in the batcher.
        """
        return self._pace.demand(waiting)

    def close(self, timeout: float) -> None:
        """Drop what is not published yet, and await the acknowledgement of what is.

        Args:
            timeout: seconds for both. A forward pass can't be interrupted.
        """
        deadline = self._clock.monotonic() + timeout
        self._control.cancelled.set()
        for stage in self.stages:
            stage.join(max(0.0, deadline - self._clock.monotonic()))
        try:
            self._sink.close(max(0.1, deadline - self._clock.monotonic()))
        except StreamlabelError as error:
            log.warning("producer did not close cleanly", reason=str(error))

    def _do_tokenise(self, batch: MicroBatch) -> AnyBatch:
        self._tracing.begin(batch)
        started = self._clock.monotonic()
        self._metrics.stage.labels("queue").observe(started - batch.opened_at)
        tokenised = self._labeller.tokenise(batch, self._tokenise.step)
        seconds = self._clock.monotonic() - started
        counts = {
            "batch": next(self._numbers["tokenise"]),
            "records": len(batch),
            "tokens": batch.tokens,
        }
        timeline.interval("collect", batch.opened_at, batch.closed_at, **counts)
        timeline.interval("queue", batch.closed_at, started, **counts)
        timeline.spent("tokenise", started, **counts)
        self._metrics.stage.labels("tokenise").observe(seconds)
        self._pace.tokenised(batch.tokens, seconds)
        return tokenised

    def _between(self, feeds: ModelFeeds) -> None:
        feeds.tokenise(self._labeller.aside)

    def _between_passes(self, feeds: ModelFeeds) -> None:
        feeds.infer()
        if self._shadow:
            self._shadow.between()

    def _do_infer(self, tokenised: AnyBatch) -> list[Outcome]:
        started = self._clock.monotonic()
        if tokenised.labeller.card is not self._infers:
            self._infers = tokenised.labeller.card
            self._pace.restart()  # the last micro-batches of the model before were measured too
        self._pace.began(tokenised.tokens, started)
        outcomes = tokenised.infer(self._infer.step)
        ended = self._clock.monotonic()
        number = next(self._numbers["infer"])
        timeline.spent("infer", started, batch=number, records=len(outcomes))
        self._pace.ended(ended)
        self._metrics.stage.labels("infer").observe(ended - started)
        if self._shadow:
            self._shadow.note(outcomes, ended - started)
        return outcomes

    def _do_publish(self, outcomes: list[Outcome]) -> None:
        now_ms, now = self._clock.wall_ms(), self._clock.monotonic()
        number, trace = next(self._numbers["publish"]), self._tracing.current()
        with timeline.span("encode", batch=number, records=len(outcomes)):
            encoded = self._encoder.encode_batch(outcomes, now_ms=now_ms, now=now, trace=trace)
        with timeline.span("send", batch=number, records=len(outcomes)):
            if not self._driver.publish(encoded):
                return
        self._published(encoded)
        self._tracing.end(encoded)
        self._note(_published_as(encoded))


def _published_as(encoded: Sequence[Encoded]) -> list[Outcome]:
    """Return what was published of each record: a route may have dropped one that has labels."""
    return [one.outcome for one in encoded if one.outcome is not None and not one.is_copy]
