"""Known bugs, planted on purpose to check that the suite catches them.

Only the harness's worker process imports this module, and only if a bug is asked for. Each bug
removes one line of defence by replacing a method of the production code.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.consumer import ConsumerCoordinator

import worker.kafka_io.source as source_module
from schemas.dead_letter import DeadLetterReason
from worker.clock import SystemClock
from worker.core.copies import Whole, Wholes
from worker.core.faults import Disposition, disposition
from worker.core.offsets import OffsetTracker
from worker.core.records import Completion, Encoded, Partition, RecordRef
from worker.errors import RecordRejected, StreamlabelError
from worker.kafka_io.admin import Admin
from worker.kafka_io.held_partitions import HeldPartitions
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.transactions import TransactionalSink
from worker.registry.store import SchemaStore
from worker.runtime.commits import Commits
from worker.runtime.completions import Completions
from worker.runtime.pipeline import Pipeline
from worker.runtime.rebalance import Rebalance
from worker.settings import Settings


def plant(name: str) -> None:
    """Plant a bug.

    Raises:
        KeyError: there is no bug of this name.
    """
    BUGS[name]()


def _commit_before_acknowledgement() -> None:
    """Count a batch as acknowledged when it is handed to the stages."""
    offer = Pipeline.offer

    def eager(self: Pipeline, batch: Any) -> bool:
        done = tuple(Encoded(e.record.ref, "", None, b"", [], 0) for e in batch.entries)
        sink: Any = self._sink
        on_completion = getattr(sink, "_queue", sink)._on_completion
        on_completion(Completion(done, self._clock.monotonic()))
        return offer(self, batch)

    Pipeline.offer = eager  # type: ignore[method-assign]


def _late_commit_after_revoke() -> None:
    """Commit the positions of revoked partitions again with the next commit."""
    revoke, committable = OffsetTracker.revoke, OffsetTracker.committable
    kept: dict[Partition, int] = {}

    def keeping(self: OffsetTracker, partition: Partition) -> None:
        log = self._logs.get(partition)
        if log is not None and log.position is not None:
            kept[partition] = log.position
        revoke(self, partition)

    def with_kept(self: OffsetTracker) -> dict[Partition, int]:
        offsets = committable(self)
        for partition in self._logs:
            kept.pop(partition, None)
        return {**kept, **offsets} if offsets else offsets

    OffsetTracker.revoke = keeping  # type: ignore[method-assign]
    OffsetTracker.committable = with_kept  # type: ignore[method-assign]


def _no_drain_on_revoke() -> None:
    """Release partitions at once, with records in flight."""
    Rebalance._drain = lambda *_: None  # type: ignore[method-assign]


def _swallowed_publish_error() -> None:
    """Take a failed transaction for a committed one."""
    start_over = TransactionalSink._start_over

    def swallow(self: TransactionalSink, error: Exception) -> Any:
        held, self._uncommitted = tuple(self._uncommitted), []
        cause = start_over(self, error)
        if disposition(cause) is Disposition.RETRY:
            self._on_completion(Completion(held, 0.0))
        return cause

    TransactionalSink._start_over = swallow  # type: ignore[method-assign]


def _order_lost_on_retry() -> None:
    """Retry failed outcomes after later ones."""
    start_over = TransactionalSink._start_over

    def behind(self: TransactionalSink, error: Exception) -> Any:
        cause = start_over(self, error)
        middle = len(self._uncommitted) // 2
        self._uncommitted = self._uncommitted[middle:] + self._uncommitted[:middle]
        return cause

    TransactionalSink._start_over = behind  # type: ignore[method-assign]


def _offsets_outside_the_transaction() -> None:
    """Publish in a transaction, but commit the offsets by the consumer, periodically."""
    TransactionalSink.commits_offsets = False
    build = Commits.__init__

    def commit(self: Any, *_: object) -> None:
        self._await(self._producer._transaction_manager.begin_commit())

    def outside(self: Commits, *args: Any, **more: Any) -> None:
        build(self, *args, **more)
        self._interval = 0.5

    Publisher.commit = commit  # type: ignore[method-assign]
    Commits.__init__ = outside  # type: ignore[method-assign]
    # Without offsets to commit, the sink would leave the transaction open.
    TransactionalSink._due = lambda _: True  # type: ignore[method-assign]


def _unstable_offsets_read_on_takeover() -> None:
    """Take a partition over at an outdated committed offset.

    Kafka shows the offsets of a transaction a moment after its commit has returned, and a consumer
    that does not ask for stable offsets reads the old ones. The moment lasts milliseconds, so a run
    of minutes may not hit it; this bug extends it to three seconds.
    """
    start = source_module.KafkaSource.__init__
    fetch = ConsumerCoordinator.fetch_committed_offsets_async
    seen: deque[dict[int, int]] = deque(maxlen=13)

    def watched(self: Any, settings: Settings, *args: Any) -> None:
        threading.Thread(target=watch, args=(settings,), daemon=True).start()
        start(self, settings, *args)

    def watch(settings: Settings) -> None:
        clock = SystemClock()
        while True:
            with contextlib.suppress(StreamlabelError), Admin(settings.kafka) as admin:
                while True:
                    seen.append(admin.committed(settings.kafka.group_id, settings.input.topic))
                    clock.sleep(0.25)
            clock.sleep(0.25)

    async def stale(self: Any, partitions: Any, timeout_ms: Any = None) -> Any:
        offsets = await fetch(self, partitions, timeout_ms)
        old = seen[0] if seen else {}
        return {
            tp: known._replace(offset=min(known.offset, old.get(tp.partition, known.offset)))
            for tp, known in offsets.items()
        }

    source_module.KafkaSource.__init__ = watched  # type: ignore[method-assign, assignment]
    ConsumerCoordinator.fetch_committed_offsets_async = stale


def _dead_stage_ignored() -> None:
    """Ignore the crash of a stage."""
    Completions.crashed = lambda *_: None  # type: ignore[method-assign]


def _zombie_not_fenced() -> None:
    """Publish records that were polled under an assignment that is over."""
    source_module.KafkaSource.current = lambda *_: True  # type: ignore[method-assign]
    TransactionalSink._current = lambda _, outcomes: list(outcomes)  # type: ignore[method-assign]

    commit = Publisher.commit

    def unchecked(self: Any, offsets: Any, membership: Any, sent: Any) -> None:
        commit(self, offsets, membership.group_id, sent)

    Publisher.commit = unchecked  # type: ignore[method-assign]


def _outage_taken_for_an_answer() -> None:
    """Make a dead letter of a record if the registry does not answer."""

    def believe(self: Any, key: int | str, error: Exception) -> None:
        self._settle(
            key, self._rejected(RecordRejected(DeadLetterReason.UNKNOWN_SCHEMA, str(error)), 1.0)
        )

    SchemaStore._postpone = believe  # type: ignore[method-assign]


def _held_records_skipped() -> None:
    """Go on behind the records that waited for a schema."""

    def stay(self: Any, ref: RecordRef, _leader_epoch: int) -> None:
        self._consumer.pause(TopicPartition(ref.topic, ref.partition))
        self._held[Partition(ref.topic, ref.partition)] = ref.epoch

    HeldPartitions.hold = stay  # type: ignore[method-assign]


def _frame_of_another_schema() -> None:
    """Frame every enriched result with the first schema."""
    enriched_frame = SchemaStore.enriched_frame
    first: list[bytes | None] = []

    def framed(self: Any, *key: Any) -> bytes | None:
        first.append(enriched_frame(self, *key))
        del first[1:]
        return first[0]

    SchemaStore.enriched_frame = framed  # type: ignore[method-assign]


def _copies_lost_with_their_producer() -> None:
    """Send the outcomes of a failed transaction again, without their copies."""
    start_over = TransactionalSink._start_over

    def without(self: TransactionalSink, error: Exception) -> Any:
        cause = start_over(self, error)
        self._uncommitted = [one for one in self._uncommitted if not one.is_copy]
        return cause

    def eager(_: Wholes, acknowledged: Iterable[Encoded]) -> list[Whole]:
        return [Whole(one) for one in acknowledged if not one.is_copy]

    TransactionalSink._start_over = without  # type: ignore[method-assign]
    Wholes.add = eager  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "commit_before_acknowledgement": _commit_before_acknowledgement,
    "late_commit_after_revoke": _late_commit_after_revoke,
    "no_drain_on_revoke": _no_drain_on_revoke,
    "swallowed_publish_error": _swallowed_publish_error,
    "order_lost_on_retry": _order_lost_on_retry,
    "offsets_outside_the_transaction": _offsets_outside_the_transaction,
    "unstable_offsets_read_on_takeover": _unstable_offsets_read_on_takeover,
    "dead_stage_ignored": _dead_stage_ignored,
    "zombie_not_fenced": _zombie_not_fenced,
    "outage_taken_for_an_answer": _outage_taken_for_an_answer,
    "held_records_skipped": _held_records_skipped,
    "frame_of_another_schema": _frame_of_another_schema,
    "copies_lost_with_their_producer": _copies_lost_with_their_producer,
}
