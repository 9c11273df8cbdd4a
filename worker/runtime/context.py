"""Groups the parts that a worker is built from.

Owns: nothing; the groups are frozen and hold references.
Thread: any.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.clock import Clock
from worker.core.batcher import MicroBatcher
from worker.core.offsets import OffsetTracker
from worker.kafka_io.listener import RebalanceHandler
from worker.kafka_io.sink import RecordSink
from worker.kafka_io.source import KafkaSource, RecordSource
from worker.metrics import Metrics
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions, OutcomeObserver
from worker.runtime.drift import DriftWatch
from worker.runtime.model_changes import ModelChanges
from worker.runtime.outcome_logs import DeadLetterLog, ThroughputLog
from worker.runtime.pipeline import RecordPipeline
from worker.runtime.progress import Progress
from worker.runtime.rebalance import Rebalance


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The parts that exist before a worker does, and that others read or set while it runs.

    Attributes:
        metrics: read by /metrics.
        progress: state and counters that /livez and /readyz read.
        clock: times everything.
        stop: set by any thread, or by a signal handler, to drain and end the worker.
        changes: changes the model while the worker runs, if given; its owner closes it.
    """

    metrics: Metrics
    progress: Progress
    clock: Clock
    stop: threading.Event
    changes: ModelChanges | None = None


@dataclass(frozen=True, slots=True)
class InFlight:
    """The state of all records between poll and commit, and the logs of their outcomes.

    Owned by the poll thread. Other threads report to `completions`.
    """

    offsets: OffsetTracker
    batcher: MicroBatcher
    completions: Completions
    throughput: ThroughputLog
    dead_letters: DeadLetterLog
    drift: DriftWatch | None = None


@dataclass(frozen=True, slots=True)
class OtherSource:
    """A source of records other than the input topics.

    Attributes:
        open: makes the source.
        observers: see the outcomes.
        rate: most records a second; None for no limit.
    """

    open: Callable[[RebalanceHandler, Clock], KafkaSource]
    observers: Sequence[OutcomeObserver] = ()
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class RecordPath:
    """The way of a record: from the source through the pipeline to the sink."""

    source: RecordSource
    pipeline: RecordPipeline
    sink: RecordSink


@dataclass(frozen=True, slots=True)
class OffsetControl:
    """The parts that commit offsets: periodically, and before partitions are given back."""

    commits: Commits
    rebalance: Rebalance


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the main loop.

    Attributes:
        records, bytes: most records that are held, and their bytes. At either, polling pauses.
        shutdown_timeout: seconds to drain, commit and leave the group.
        rate: most records a second; None for no limit.
    """

    records: int
    bytes: int
    shutdown_timeout: float
    rate: float | None = None
