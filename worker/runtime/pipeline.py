"""The three threads behind the poll thread: tokenise, infer, publish.

Owns the threads and their hand-offs. Work goes in by `offer`; completions come out through the
sink. Imports core and protocols; no kafka, no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from worker.clock import Clock
from worker.core.encoder import Encoder
from worker.core.faults import Disposition, backoff, disposition
from worker.core.pace import Demand, Pace
from worker.core.records import MicroBatch, Outcome
from worker.errors import StreamlabelError
from worker.http.feeds import PageFeeds
from worker.kafka_io.sink import RecordSink
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller, Tokenised
from worker.runtime.stage import Stage
from worker.runtime.tracing import Tracing

log = get_logger(__name__)

_SAY_EVERY = 10

_Tokenise = Stage[MicroBatch, Tokenised]
_Infer = Stage[Tokenised, list[Outcome]]
_Publish = Stage[list[Outcome], None]


class Pipeline:
    """Threads tokenise, infer and publish, one batch ready between each two.

    Args:
        labeller: what tokenise and infer do.
        encoder, sink: the way out.
        pace: told of the stages' work; says when more of it is wanted.
        tracing: follows each micro-batch.
        on_crash: told, with the stage's name, when a thread dies.
        feeds: see what goes out, and ask about texts between micro-batches.
    """

    def __init__(  # noqa: PLR0913 - the room where all that works on a record comes together
        self,
        labeller: Labeller,
        encoder: Encoder,
        sink: RecordSink,
        pace: Pace,
        *,
        metrics: Metrics,
        clock: Clock,
        tracing: Tracing,
        on_crash: Callable[[str, BaseException], None],
        feeds: PageFeeds | None = None,
    ) -> None:
        self._labeller, self._encoder, self._sink = labeller, encoder, sink
        self._pace = pace
        self._metrics, self._clock = metrics, clock
        self._feeds, self._tracing = feeds, tracing
        self._abandon = threading.Event()
        self._publish = Stage(
            "publish",
            self._do_publish,
            2,
            on_crash,
            self._abandon,
            clock,
            idle=self._do_advance,
            busy=metrics.busy.labels("publish").inc,
        )
        self._infer = Stage(
            "infer",
            self._do_infer,
            1,
            on_crash,
            self._abandon,
            clock,
            hand_on=self._publish.put,
            between=feeds.ask_queue.infer if feeds else lambda: None,
            busy=metrics.busy.labels("infer").inc,
        )
        self._tokenise = Stage(
            "tokenise",
            self._do_tokenise,
            1,
            on_crash,
            self._abandon,
            clock,
            hand_on=self._infer.put,
            between=feeds.ask_queue.tokenise if feeds else lambda: None,
            busy=metrics.busy.labels("tokenise").inc,
        )

    def start(self) -> None:
        """Start the threads."""
        for stage in reversed(self.stages):
            stage.start()

    @property
    def stages(self) -> tuple[_Tokenise, _Infer, _Publish]:
        """In the data's order."""
        return self._tokenise, self._infer, self._publish

    @property
    def has_room(self) -> bool:
        """Whether a batch can be handed over without waiting."""
        return self._tokenise.has_room

    def offer(self, batch: MicroBatch) -> bool:
        """Hand a batch over; False while the first stage is behind. Poll thread only."""
        handed = self._tokenise.offer(batch)
        if handed:
            self._pace.handed()
        return handed

    def demand(self, waiting: int) -> Demand:
        """What is wanted next, where this many tokens wait. Poll thread only."""
        return self._pace.demand(waiting)

    def close(self, timeout: float) -> None:
        """Let go of what is not published yet; await the acknowledgement of what is.

        Args:
            timeout: seconds for both, at most; a forward pass can't be interrupted.
        """
        deadline = self._clock.monotonic() + timeout
        self._abandon.set()
        for stage in self.stages:
            stage.join(max(0.0, deadline - self._clock.monotonic()))
        try:
            self._sink.close(max(0.1, deadline - self._clock.monotonic()))
        except StreamlabelError as error:
            log.warning("the producer did not close cleanly", reason=str(error))

    def _do_tokenise(self, batch: MicroBatch) -> Tokenised:
        self._tracing.begin(batch)
        started = self._clock.monotonic()
        self._metrics.stage.labels("queue").observe(started - batch.opened_at)
        tokenised = self._labeller.tokenise(batch, self._tokenise.step)
        seconds = self._clock.monotonic() - started
        self._metrics.stage.labels("tokenise").observe(seconds)
        self._pace.tokenised(batch.tokens, seconds)
        return tokenised

    def _do_infer(self, tokenised: Tokenised) -> list[Outcome]:
        started = self._clock.monotonic()
        self._pace.began(tokenised.tokens, started)
        outcomes = self._labeller.infer(tokenised, self._infer.step)
        ended = self._clock.monotonic()
        self._pace.ended(ended)
        self._metrics.stage.labels("infer").observe(ended - started)
        return outcomes

    def _do_publish(self, outcomes: list[Outcome]) -> None:
        now_ms, now = self._clock.wall_ms(), self._clock.monotonic()
        trace = self._tracing.current()
        encoded = [self._encoder.encode(o, now_ms=now_ms, now=now, trace=trace) for o in outcomes]
        if not self._persist(lambda: self._sink.publish(encoded)):
            return
        self._tracing.end(encoded)
        if self._feeds:
            self._feeds.posts.note(outcomes)

    def _do_advance(self) -> None:
        self._persist(self._sink.advance)

    def _persist(self, step: Callable[[], None]) -> bool:
        """Take a step of the sink's; after a passing fault, have the sink go on from there.

        False where the worker gave up meanwhile.
        """
        attempt = 0
        while not self._abandon.is_set():
            try:
                step()
            except Exception as error:
                if disposition(error) is not Disposition.RETRY:
                    raise
                if attempt % _SAY_EVERY == 0:
                    log.warning("can't publish, trying again", reason=str(error), attempt=attempt)
                attempt += 1
                self._clock.sleep(backoff(attempt))
                step = self._sink.advance
            else:
                return True
        return False
