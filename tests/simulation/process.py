"""One worker: the project's own parts, with the model's clients at their edges."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import Empty, Full
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

import structlog

from tests.simulation.broker import Broker
from tests.simulation.network import Network
from tests.simulation.producer import SimulatedProducer
from tests.simulation.source import SimulatedSource
from tests.simulation.world import Queue, Thread, World
from tests.support.records import CARD
from worker.core.model import Step, Synchronous, no_step
from worker.core.pace import Pace
from worker.core.records import ModelInput, Partition, Prediction, RawRecord, RecordRef
from worker.core.replacement import OutcomeReplacer
from worker.core.topic_limits import TopicLimits
from worker.errors import Fatal
from worker.http.feeds import ModelFeeds
from worker.kafka_io import transactions
from worker.kafka_io.group_offsets import CommittedOffset
from worker.kafka_io.listener import StartFrom
from worker.kafka_io.sink import KafkaSink
from worker.kafka_io.transactions import TransactionalSink
from worker.runtime import assembly, completions, labeller_choice, outcome_counts, stage
from worker.runtime.assembly import build_encoder, build_in_flight, build_worker
from worker.runtime.context import RecordPath, WorkerContext
from worker.runtime.formats import plain_formats
from worker.runtime.labeller_choice import build_labeller
from worker.runtime.pipeline import Pipeline, PipelineObservers
from worker.runtime.progress import Progress
from worker.runtime.rebalance import RebalanceListener
from worker.runtime.stage import StageControl
from worker.runtime.tracing import Untraced
from worker.settings import Settings

_PATIENCE = 5.0  # seconds for which a producer may do nothing for a record
_POISON = "poison"
# Probabilities of a text by its tokens: each goes another way through the routes of a history.
_BY_LENGTH = ((0.25, 0.75), (0.75, 0.25), (0.45, 0.55))
T = TypeVar("T")
TOPICS = ("out", "other", "copies", "notes", "dead")


class _Silent:
    """Stands in for metrics: any call of any member does nothing."""

    lock = threading.Lock()

    def __getattr__(self, name: str) -> _Silent:
        setattr(self, name, self)  # so that the next look-up finds it without a call
        return self

    def __call__(self, *_: object, **__: object) -> _Silent:
        return self

    def __iter__(self) -> Iterator[object]:
        return iter(())


_SILENT = _Silent()


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the input."""

    text: str | None
    key: bytes | None = None

    @property
    def labelled(self) -> bool:
        """Return whether it has a text, and one that the model can label."""
        return self.text not in (None, _POISON)

    def polled(self, ref: RecordRef, now: float) -> RawRecord:
        """Return it as a consumer does."""
        value = None if self.text is None else self.text.encode()
        return RawRecord(ref, 1_700_000_000_000, self.key, value, (), now)


class _Words:
    """A tokenizer: each text is one pass of its own length."""

    def tokenise(self, texts: Sequence[str], _: Step = no_step, /) -> list[ModelInput]:
        ids = tuple((1 if text == _POISON else 2,) * (len(text) % 5 + 1) for text in texts)
        return [ModelInput(ids, tuple(range(len(texts))), (False,) * len(texts))]


class _Model(Synchronous):
    """A model that takes a moment, and fails on one text."""

    card = CARD

    def __init__(self, world: World) -> None:
        self._world = world

    def warm_up(self) -> None:
        """It is warm."""

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        self._world.wait(0.01 * len(model_input.ids))
        if any(ids[0] == 1 for ids in model_input.ids):
            raise ValueError(_POISON)
        return [Prediction(_BY_LENGTH[len(ids) % 3], len(ids), False) for ids in model_input.ids]


class Process:
    """A worker's process.

    Attributes:
        network: its way to the brokers.
        ended: whether it is gone, in whatever way.
        fault: the error that it ended with.
    """

    def __init__(
        self,
        name: str,
        world: World,
        broker: Broker,
        settings: Settings,
        start: StartFrom,
        partitions: int,
    ) -> None:
        self.name, self._world, self._broker = name, world, broker
        self.network = Network(world)
        self._partitions = partitions
        self._stop = threading.Event()
        self._producers: list[SimulatedProducer] = []
        self.ended, self.frozen = False, False
        self.fault: BaseException | None = None
        Thread.owner = self
        self._run = self._build(settings, start).run
        world.spawn("main", self, self._main)
        self._io_task = world.spawn("kafka-io", self, self._io)
        self.source.woken = self.wake

    def _build(self, settings: Settings, start: StartFrom) -> Any:
        metrics: Any = _SILENT
        progress = Progress(settings.stall_timeout, metrics, self._world)
        progress.move(progress.state.WARMING)
        context = WorkerContext(metrics, progress, self._world, self._stop)
        outputs = {name: TopicLimits() for name in TOPICS}
        formats = _formats(settings)
        encoder = build_encoder(settings, outputs, formats.results, metrics)
        replacer = OutcomeReplacer(encoder, outputs, self._world.wall_ms).replace
        work, listener = build_in_flight(settings, context), RebalanceListener()
        self._offsets = work.offsets
        self.source = SimulatedSource(self.name, self._broker, self.network, listener, start)
        source: Any = self.source
        done = work.completions.completed
        sink: Any
        if settings.delivery == "exactly_once":
            sink = TransactionalSink(
                settings,
                self._producer,
                done,
                source,
                self._world,
                replacer,  # type: ignore[arg-type]
            )
        else:
            sink = KafkaSink(
                self._producer,
                _PATIENCE,
                done,
                source,
                self._world,
                replacer,  # type: ignore[arg-type]
            )
        model = _Model(self._world)
        pipeline = Pipeline(
            build_labeller(settings, _Words(), model, context),
            encoder,
            sink,
            Pace(None, settings.batch.max_seconds),
            StageControl(on_crash=work.completions.crashed, clock=self._world),
            PipelineObservers(metrics, Untraced(), progress.stages, ModelFeeds()),
        )
        path = RecordPath(source, pipeline, sink)
        return build_worker(
            settings, context, work, path, listener, formats=formats, other_members=0
        )

    def _producer(self, name: str | None = None) -> SimulatedProducer:
        made = SimulatedProducer(self._broker, self.network, self._partitions, name, self.wake)
        self._producers = [one for one in self._producers if one.has_work or one.forgets][-3:]
        self._producers.append(made)
        return made

    def _main(self) -> None:
        try:
            self._run()
        except Fatal as error:
            self.fault = error
        self.ended = True
        self._world.tell(f"{self.name} ended: {self.fault or 'as asked'}")

    def _io(self) -> None:
        """Be the client's own thread."""
        while not self.ended:
            busy = self.source.has_commit or any(one.has_work for one in self._producers)
            self._world.wait(0.002 if busy else 5.0)
            if not self.source.send_commit():
                for producer in list(self._producers):
                    producer.pump()

    def wake(self) -> None:
        """Let the client's thread look for work."""
        self._world.wake(self._io_task)

    # -- what happens to it ------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Send a heartbeat from the client's own thread, if one is due."""
        if not self.frozen and not self.ended:
            self.source.beat(now)

    def stop(self) -> None:
        """Ask it to end, as by SIGTERM."""
        self._stop.set()

    @property
    def held(self) -> int:
        """Return the records that take its memory: in flight, or done behind one in flight."""
        offsets = self._offsets
        return sum(len(log.queue) for log in offsets._logs.values())

    @property
    def stopping(self) -> bool:
        """Return whether it was asked to end."""
        return self._stop.is_set()

    def crash(self) -> None:
        """End it at once, as by SIGKILL."""
        self.ended = True
        self._world.kill(self)

    def freeze(self, *, frozen: bool) -> None:
        """Stop it, or let it go on, as by SIGSTOP and SIGCONT."""
        self.frozen = frozen
        self._world.freeze(self, frozen=frozen)

    def heal(self) -> None:
        """End its faults but one: a producer that has stopped does not begin again."""
        network = self.network
        network.lost = network.refused = network.away_until = network.silent_until = 0.0
        if self.frozen:
            self.freeze(frozen=False)

    def forget(self) -> None:
        """Let its producer stop sending without a word."""
        for producer in self._producers[-1:]:
            producer.forgets = True


@contextmanager
def entered(world: World, broker: Broker) -> Iterator[None]:
    """Give the worker's modules the tasks and the group of this world, which is let go after."""
    Queue.world = Thread.world = world
    _here["world"], _here["group"] = world, broker.group
    try:
        yield
    finally:
        del Queue.world, Thread.world
        Thread.owner = None
        _here.clear()


_here: dict[str, Any] = {}


def _once(of: Callable[[Settings], T]) -> Callable[[Settings], T]:
    """Return a function that is called once for each settings, which many histories share."""
    known: dict[int, tuple[Settings, T]] = {}

    def remembered(settings: Settings) -> T:
        if id(settings) not in known:
            known[id(settings)] = settings, of(settings)
        return known[id(settings)][1]

    return remembered


_formats = _once(plain_formats)


def _committed(_: Settings, partitions: Sequence[Partition]) -> dict[Partition, CommittedOffset]:
    world, group = _here["world"], _here["group"]
    world.wait(0.01)
    world.wait(5.0, lambda: all(map(group.stable, partitions)))
    return {p: CommittedOffset(group.offsets.get(p, -1)) for p in sorted(partitions)}


@contextmanager
def simulated() -> Iterator[None]:
    """Replace what a worker has of threads, and its log: it would tell of each fault."""
    queues = SimpleNamespace(Queue=Queue, SimpleQueue=Queue, Empty=Empty, Full=Full)
    threads = SimpleNamespace(Thread=Thread, Event=threading.Event, get_ident=threading.get_ident)
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=lambda *_: None,
    )
    with ExitStack() as stack:
        stack.callback(structlog.configure, **before)
        for module, name, new in (
            (stage, "queue", queues),
            (stage, "threading", threads),
            (completions, "queue", queues),
            (transactions, "committed_offsets", _committed),
            (outcome_counts, "observe_all", lambda *_: None),
            (assembly, "version", lambda _: "0"),
            (assembly, "condition_paths", _once(assembly.condition_paths)),
            (labeller_choice, "deciding_digest", _once(labeller_choice.deciding_digest)),
        ):
            stack.enter_context(mock.patch.object(module, name, new))
        yield
