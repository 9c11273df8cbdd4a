"""Every collector, once, in one catalogue. Imports prometheus_client, core and the contract.

Any thread may observe (the library locks). Names, units and labels follow the Prometheus
conventions; partition series are dropped when the partition is revoked. How a pool of processes
makes one gauge of many is declared beside it, in the library's words (`multiprocess_mode`); one
that declares nothing is shown for each process by itself.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
)

from schemas.dead_letter import DeadLetterReason
from worker.core.offsets import OffsetTracker
from worker.core.records import Encoded

LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
# Up to what max_inflight_records make a record wait at 40 texts a second, and a drain at most takes.
STAGE_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
)  # fmt: skip
POWERS_OF_TWO = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKEN_BUCKETS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
SHARE_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

STAGES = ("queue", "tokenise", "infer", "publish", "commit")
THREADS = ("tokenise", "infer", "publish")


class _OneMoment(CollectorRegistry):
    """Reads all of a scrape while nobody is in the middle of counting.

    So what is counted together is never seen apart: consumed = published + dead-lettered + in
    flight, results by label = published, in every scrape. (But for one that asks for some names
    alone, which the library collects without us.)
    """

    def __init__(self, counting: threading.Lock) -> None:
        super().__init__()
        self._counting = counting

    def collect(self) -> Iterator[Metric]:
        with self._counting:
            families = list(super().collect())
        yield from families


class Metrics:
    """The catalogue. One per worker process; tests make their own."""

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self.registry: CollectorRegistry = _OneMoment(self._counting)
        r = self.registry
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)

        self.consumed = Counter(
            "streamlabel_records_consumed",
            "Records polled from the input topic. One that is given back before it was handed on, "
            "in a rebalance, is polled again.",
            registry=r,
        )
        self.skipped = Counter(
            "streamlabel_offsets_skipped",
            "Input offsets that retention or deletion removed before they were polled.",
            registry=r,
        )
        self.begun = Counter(
            "streamlabel_partitions_begun",
            "Partitions of which the group had committed nothing: it is new, its offsets expired, or "
            "the partition was added. The log says where it begins.",
            registry=r,
        )
        self.published = Counter(
            "streamlabel_records_published", "Results that the broker acknowledged.", registry=r
        )
        self.dead_lettered = Counter(
            "streamlabel_records_dead_lettered",
            "Dead letters that the broker acknowledged.",
            ["reason"],
            registry=r,
        )
        self.expired = Counter(
            "streamlabel_outcomes_expired",
            "Outcomes with a timestamp older than their topic keeps records: Kafka deletes them "
            "soon (its retention.ms, output.timestamp).",
            registry=r,
        )
        self.end_to_end = Histogram(
            "streamlabel_end_to_end_seconds",
            "From the input record's timestamp to the acknowledgement of its outcome.",
            buckets=LATENCY_BUCKETS,
            registry=r,
        )
        self.stage = Histogram(
            "streamlabel_stage_seconds",
            "Time of one micro-batch in one stage; `queue` is the wait between poll and tokenise.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=r,
        )
        self.busy = Counter(
            "streamlabel_stage_busy_seconds",
            "Seconds that a stage worked, waits for its neighbours left out; the rate is its share.",
            ["stage"],
            registry=r,
        )
        self.batch_records = Histogram(
            "streamlabel_batch_records",
            "Records in a micro-batch.",
            buckets=POWERS_OF_TWO,
            registry=r,
        )
        self.batch_tokens = Histogram(
            "streamlabel_batch_tokens",
            "Tokens in one forward pass, padding left out.",
            buckets=TOKEN_BUCKETS,
            registry=r,
        )
        self.padding = Histogram(
            "streamlabel_padding_ratio",
            "Share of padding in one forward pass.",
            buckets=SHARE_BUCKETS,
            registry=r,
        )
        self.forward_tokens = Gauge(
            "streamlabel_forward_tokens",
            "Most tokens in one forward pass, padding included: batch.forward_tokens or what the "
            "warm-up found, or less since memory ran out.",
            multiprocess_mode="livemin",
            registry=r,
        )
        self.micro_batches = Counter(
            "streamlabel_micro_batches",
            "Micro-batches closed, by what closed them.",
            ["trigger"],
            registry=r,
        )
        self.truncated = Counter(
            "streamlabel_truncated", "Texts cut to the model's length.", registry=r
        )
        self.cache_hits = Counter(
            "streamlabel_cache_hits",
            "Texts that the model was not asked about again: `batch`, the same micro-batch had them "
            "before; `cache`, an earlier one.",
            ["source"],
            registry=r,
        )
        self.cache_misses = Counter(
            "streamlabel_cache_misses",
            "Texts that the model was asked about, whether or not there is a cache.",
            registry=r,
        )
        self.cache_bytes = Gauge(
            "streamlabel_cache_bytes",
            "Memory of the cached predictions.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.inflight_records = Gauge(
            "streamlabel_inflight_records",
            "Records between poll and acknowledgement.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.inflight_bytes = Gauge(
            "streamlabel_inflight_bytes",
            "Bytes between poll and acknowledgement.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.held_records = Gauge(
            "streamlabel_held_records",
            "Records in flight, and those acknowledged behind an older one in flight: their offsets "
            "can't be committed yet. At max_inflight_records polling pauses.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.held_bytes = Gauge(
            "streamlabel_held_bytes",
            "Bytes of these records. At max_inflight_bytes polling pauses.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.offset_lag = Gauge(
            "streamlabel_offset_lag",
            "Offsets between the committed one and the end of the partition.",
            ["topic", "partition"],
            multiprocess_mode="livemax",  # one owner; in a rebalance the old one may still tell
            registry=r,
        )
        self.open_transaction = Gauge(
            "streamlabel_open_transaction_seconds",
            "Seconds for which another producer's open transaction has held a partition of the input "
            "up, with everything before it read; 0 while none does.",
            ["topic", "partition"],
            multiprocess_mode="livemax",  # as above
            registry=r,
        )
        self.joining = Gauge(
            "streamlabel_joining_seconds",
            "Seconds for which the worker has waited for its group to take it in, or for a rebalance "
            "to end; 0 while it has its part.",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.time_lag = Gauge(
            "streamlabel_time_lag_seconds",
            "Age of the input record that was acknowledged last.",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.oldest_uncommitted = Gauge(
            "streamlabel_oldest_uncommitted_age_seconds",
            "Seconds since the oldest record in flight was polled.",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.paused = Gauge(
            "streamlabel_paused",
            "1 while polling is paused by backpressure; in a pool, how many processes are.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.rebalances = Counter(
            "streamlabel_rebalances",
            "Changes of the assignment.",
            ["kind"],
            registry=r,
        )
        self.rebalance_drain = Histogram(
            "streamlabel_rebalance_drain_seconds",
            "Time to drain partitions before they were given up.",
            buckets=STAGE_BUCKETS,
            registry=r,
        )
        self.labels = Counter(
            "streamlabel_labels", "Results by their most probable label.", ["label"], registry=r
        )
        self.confidence = Histogram(
            "streamlabel_confidence",
            "Probability of the most probable label.",
            buckets=CONFIDENCE_BUCKETS,
            registry=r,
        )
        self.label_drift = Gauge(
            "streamlabel_label_drift",
            "Population stability index of the labels of the newest results against the first ones "
            "since the start: below 0.1 stable, above 0.25 shifted. 0 until there are enough "
            "(drift.reference_records, then drift.window_records).",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.confidence_drift = Gauge(
            "streamlabel_confidence_drift",
            "The same of the confidences, in the cells of streamlabel_confidence.",
            multiprocess_mode="livemax",
            registry=r,
        )
        self.model = Info("streamlabel_model", "The model in force.", registry=r)
        self.state = Gauge(
            "streamlabel_state",
            "0 starting, 1 warming, 2 running, 3 paused, 4 draining, 5 stopped, 6 failed.",
            multiprocess_mode="liveall",
            registry=r,
        )
        self.live = Gauge(
            "streamlabel_live",
            "1 while /livez is green: a restart would not help.",
            multiprocess_mode="livemin",
            registry=r,
        )
        self.ready = Gauge(
            "streamlabel_ready",
            "1 while /readyz is green: records are taken; in a pool, how many processes are ready.",
            multiprocess_mode="livesum",
            registry=r,
        )
        self.build = Info("streamlabel_build", "Version of the worker.", registry=r)
        self._show_zeroes()

    def _show_zeroes(self) -> None:
        """A series that is absent until its first event makes rates and alerts blind to it."""
        for stage in STAGES:
            self.stage.labels(stage)
        for stage in THREADS:
            self.busy.labels(stage)
        for trigger in ("records", "tokens", "goal", "ready"):
            self.micro_batches.labels(trigger)
        for source in ("batch", "cache"):
            self.cache_hits.labels(source)
        for kind in ("assigned", "revoked", "lost"):
            self.rebalances.labels(kind)
        for reason in DeadLetterReason:
            self.dead_lettered.labels(reason.value)

    def show_labels(self, labels: Iterable[str]) -> None:
        """What the model can say, once it is known: for the same reason."""
        for label in labels:
            self.labels.labels(label)

    def count_polled(self, records: int, inflight: OffsetTracker) -> None:
        """Count records that were polled and are in flight now."""
        with self._counting:
            self.consumed.inc(records)
            self.show(inflight)

    def show(self, inflight: OffsetTracker) -> None:
        """Tell what is in flight and what is held."""
        self.inflight_records.set(inflight.records)
        self.inflight_bytes.set(inflight.bytes)
        self.held_records.set(inflight.held_records)
        self.held_bytes.set(inflight.held_bytes)

    def count_outcomes(
        self, outcomes: Sequence[Encoded], now_ms: int, inflight: OffsetTracker
    ) -> None:
        """Count acknowledged outcomes; `now_ms` is the wall clock, `inflight` is without them.

        What can be counted together is: each call of a collector takes a lock.
        """
        results = [outcome for outcome in outcomes if outcome.reason is None]
        labels = collections.Counter(outcome.label for outcome in results)
        reasons = collections.Counter(o.reason.value for o in outcomes if o.reason is not None)
        with self._counting:
            for outcome in outcomes:
                age = max(0.0, (now_ms - outcome.happened_ms) / 1000)
                exemplar = {"trace_id": outcome.trace_id} if outcome.trace_id else None
                self.end_to_end.observe(age, exemplar)
                self.time_lag.set(age)
            for outcome in results:
                self.confidence.observe(outcome.score)
            self.published.inc(len(results))
            self.truncated.inc(sum(outcome.truncated for outcome in results))
            self.expired.inc(sum(outcome.expired for outcome in outcomes))
            for label, number in labels.items():
                self.labels.labels(label).inc(number)
            for reason, number in reasons.items():
                self.dead_lettered.labels(reason).inc(number)
            self.show(inflight)

    def forget_partitions(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drop the series of partitions that this worker no longer owns."""
        for topic, partition in partitions:
            for gauge in (self.offset_lag, self.open_transaction):
                # `remove` raises for a series that was never made: a partition may go before its
                # first reading.
                gauge.labels(topic, str(partition))
                gauge.remove(topic, str(partition))


class PoolMetrics:
    """What the parent of a pool counts itself; the rest is the sum over its processes."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)

        self.restarts = Counter(
            "streamlabel_process_restarts",
            "Processes of a pool that ended unasked and were started again.",
            registry=r,
        )
        # Beside that of each process: one that hangs tells the parent nothing at all.
        self.live = Gauge("streamlabel_live", "1 while /livez is green.", registry=r)
