"""The catalogue of metrics: every collector, declared once.

Names, units and labels follow the Prometheus conventions. A gauge declares how a pool of processes
combines it (`multiprocess_mode`); a gauge without a mode has a series for each process.

Owns: the collectors and their registries. Counting outcomes belongs to `runtime.outcome_counts`.
Thread: any; the library locks each collector.
Must not import: anything of worker.
"""

from __future__ import annotations

import bisect
import collections
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial

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

LATENCY_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
# The longest wait: max_inflight_records ahead at 40 texts a second. A drain takes no longer.
STAGE_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
)  # fmt: skip
POWERS_OF_TWO = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKEN_BUCKETS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
SHARE_BUCKETS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
# Bits. Two number types of one model differ by less than the first.
DIVERGENCE_BUCKETS = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)

STAGES = ("queue", "tokenise", "infer", "publish", "commit")
THREADS = ("tokenise", "infer", "publish")
MODEL_STAGES = ("tokenise", "infer")  # in which a model works


class ShadowState(IntEnum):
    """The state of the second model, in `streamlabel_shadow_state`."""

    NONE = 0
    LOADING = 1
    COMPARING = 2
    FAILED = 3


class _ConsistentRegistry(CollectorRegistry):
    """Collects under a lock, so that a scrape sees related counters in agreement.

    In every scrape, consumed = published + dead-lettered + in flight, and results by label =
    published. The exception is a scrape that selects names, which the library collects itself.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock_for_counting = lock

    def collect(self) -> Iterator[Metric]:
        with self._lock_for_counting:
            families = list(super().collect())
        yield from families


def observe_all(histogram: Histogram, amounts: Sequence[float]) -> None:
    """Observe each amount, with one lock for each bucket instead of two for each amount.

    The library has no such method; a test compares the result with that of `Histogram.observe`.
    """
    bounds = histogram._upper_bounds  # noqa: SLF001 - as the docstring says
    found = collections.Counter([bisect.bisect_left(bounds, amount) for amount in amounts])
    histogram._sum.inc(sum(amounts))  # noqa: SLF001
    for bucket, number in found.items():
        histogram._buckets[bucket].inc(number)  # noqa: SLF001


class Metrics:
    """The collectors of a worker process.

    Attributes:
        registry: all of them.
        lock: hold it to change counters that a scrape must see together.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.registry: CollectorRegistry = _ConsistentRegistry(self.lock)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        info = partial(Info, registry=self.registry)

        self.consumed = counter(
            "streamlabel_records_consumed",
            "Records polled from the input topic. A record returned in a rebalance before it was "
            "handed to the stages is polled, and counted, again.",
        )
        self._of_the_input(counter)
        self.published = counter(
            "streamlabel_records_published", "Results acknowledged by the broker."
        )
        self.dead_lettered = counter(
            "streamlabel_records_dead_lettered",
            "Dead letters acknowledged by the broker.",
            ["reason"],
        )
        self.expired = counter(
            "streamlabel_outcomes_expired",
            "Results and dead letters with a timestamp older than their topic's retention.ms: Kafka "
            "deletes them soon. See output.timestamp.",
        )
        self.end_to_end = histogram(
            "streamlabel_end_to_end_seconds",
            "Time from the input record's timestamp to the acknowledgement of its outcome. Replays of "
            "dead letters are left out: they keep the timestamps of the records.",
            buckets=LATENCY_BUCKETS,
        )
        self.stage = histogram(
            "streamlabel_stage_seconds",
            "Time of a micro-batch in a stage; `queue` is the wait between poll and tokenise.",
            ["stage"],
            buckets=STAGE_BUCKETS,
        )
        self.busy = counter(
            "streamlabel_stage_busy_seconds",
            "Seconds that a stage worked, without waits for other stages. The rate is its "
            "utilisation.",
            ["stage"],
        )
        self.batch_records = histogram(
            "streamlabel_batch_records", "Records in a micro-batch.", buckets=POWERS_OF_TWO
        )
        self.batch_tokens = histogram(
            "streamlabel_batch_tokens",
            "Tokens in a forward pass, without padding.",
            buckets=TOKEN_BUCKETS,
        )
        self.padding = histogram(
            "streamlabel_padding_ratio",
            "Share of padding in a forward pass.",
            buckets=SHARE_BUCKETS,
        )
        self.forward_tokens = gauge(
            "streamlabel_forward_tokens",
            "Maximum tokens in a forward pass, padding included: batch.forward_tokens or the result "
            "of the warm-up; lower after memory ran out.",
            multiprocess_mode="livemin",
        )
        self.micro_batches = counter(
            "streamlabel_micro_batches", "Micro-batches, by what closed them.", ["trigger"]
        )
        self.truncated = counter("streamlabel_truncated", "Texts cut to the model's length limit.")
        self.text_windows = histogram(
            "streamlabel_text_windows",
            'Windows of a text, with input.overflow = "windows". A repeat within a micro-batch does '
            "not count.",
            buckets=POWERS_OF_TWO,
        )
        self.cache_hits = counter(
            "streamlabel_cache_hits",
            "Repeated texts that needed no forward pass. `batch`: repeats within a micro-batch; "
            "`cache`: repeats from an earlier one.",
            ["source"],
        )
        self.cache_misses = counter(
            "streamlabel_cache_misses",
            "Texts passed to the model, counted with and without a cache.",
        )
        self.cache_bytes = gauge(
            "streamlabel_cache_bytes",
            "Memory used by cached predictions.",
            multiprocess_mode="livesum",
        )
        self.inflight_records = gauge(
            "streamlabel_inflight_records",
            "Records between poll and acknowledgement.",
            multiprocess_mode="livesum",
        )
        self.inflight_bytes = gauge(
            "streamlabel_inflight_bytes",
            "Bytes between poll and acknowledgement.",
            multiprocess_mode="livesum",
        )
        self.held_records = gauge(
            "streamlabel_held_records",
            "Records whose offsets can't be committed yet: in flight, or acknowledged behind an older "
            "record in flight. Polling pauses at max_inflight_records.",
            multiprocess_mode="livesum",
        )
        self.held_bytes = gauge(
            "streamlabel_held_bytes",
            "Bytes of the records in streamlabel_held_records. Polling pauses at max_inflight_bytes.",
            multiprocess_mode="livesum",
        )
        self.offset_lag = gauge(
            "streamlabel_offset_lag",
            "Offsets between the committed offset and the end of the partition.",
            ["topic", "partition"],
            multiprocess_mode="livemax",  # after a rebalance, the old owner may still report
        )
        self.open_transaction = gauge(
            "streamlabel_open_transaction_seconds",
            "Seconds that another producer's open transaction has blocked an input partition, with "
            "everything before it read. 0 if none does.",
            ["topic", "partition"],
            multiprocess_mode="livemax",  # as above
        )
        self.joining = gauge(
            "streamlabel_joining_seconds",
            "Seconds that the worker has waited to join its group or for a rebalance to end. 0 while "
            "it has an assignment.",
            multiprocess_mode="livemax",
        )
        self.time_lag = gauge(
            "streamlabel_time_lag_seconds",
            "Age of the input record that was acknowledged last, replays of dead letters left out.",
            multiprocess_mode="livemax",
        )
        self.oldest_uncommitted = gauge(
            "streamlabel_oldest_uncommitted_age_seconds",
            "Seconds since the oldest record in flight was polled.",
            multiprocess_mode="livemax",
        )
        self.paused = gauge(
            "streamlabel_paused",
            "1 while backpressure pauses polling. In a pool: the number of paused processes.",
            multiprocess_mode="livesum",
        )
        self.waiting = gauge(
            "streamlabel_waiting_partitions",
            "Partitions that wait until the schema registry has answered for their next record.",
            multiprocess_mode="livesum",
        )
        self.rebalances = counter(
            "streamlabel_rebalances", "Changes of the partition assignment.", ["kind"]
        )
        self.rebalance_drain = histogram(
            "streamlabel_rebalance_drain_seconds",
            "Time to drain partitions before they were revoked.",
            buckets=STAGE_BUCKETS,
        )
        self.labels = counter("streamlabel_labels", "Results by most probable label.", ["label"])
        self.confidence = histogram(
            "streamlabel_confidence",
            "Probability of the most probable label.",
            buckets=CONFIDENCE_BUCKETS,
        )
        self.label_drift = gauge(
            "streamlabel_label_drift",
            "Population stability index of labels: newest results against the first ones of the model "
            "in use. Below 0.1 is stable, above 0.25 shifted. 0 until drift.reference_records and "
            "drift.window_records are reached.",
            multiprocess_mode="livemax",
        )
        self.confidence_drift = gauge(
            "streamlabel_confidence_drift",
            "Population stability index of confidences, over the buckets of streamlabel_confidence.",
            multiprocess_mode="livemax",
        )
        self.state = gauge(
            "streamlabel_state",
            "State: 0 starting, 1 warming, 2 running, 3 paused, 4 draining, 5 stopped, 6 failed.",
            multiprocess_mode="liveall",
        )
        self.live = gauge(
            "streamlabel_live",
            "1 while /livez succeeds. 0 asks for a restart.",
            multiprocess_mode="livemin",
        )
        self.ready = gauge(
            "streamlabel_ready",
            "1 while /readyz succeeds: records are polled. In a pool: the number of ready processes.",
            multiprocess_mode="livesum",
        )
        self.build = info("streamlabel_build", "Version of the worker.")
        self.worker = info(
            "streamlabel_worker",
            "Group, topics, delivery, version and host, which tell deployments apart. A query joins "
            "it on job and instance.",
        )
        self._of_other_parts(counter, gauge, histogram, info)

    def _of_other_parts(
        self,
        counter: partial[Counter],
        gauge: partial[Gauge],
        histogram: partial[Histogram],
        info: partial[Info],
    ) -> None:
        self._of_the_model(counter, gauge, info)
        self._of_each_model(counter, info)
        self._of_the_routes(counter)
        self._of_the_schema_registry(counter, gauge)
        self._of_the_shadow(counter, gauge, histogram, info)
        self._create_series()

    def _of_the_input(self, counter: partial[Counter]) -> None:
        self.arrived = counter(
            "streamlabel_offsets_arrived",
            "Offsets by which the ends of the assigned partitions grew. The rate is that of arriving "
            "records; a transaction's marker counts as one.",
        )
        self.skipped = counter(
            "streamlabel_offsets_skipped",
            "Input offsets that retention or deletion removed before they were polled.",
        )
        self.begun = counter(
            "streamlabel_partitions_begun",
            "Partitions without a committed offset at assignment: the group is new, its offsets "
            "expired, or the partition was added. The log has the start position.",
        )

    def _of_the_model(
        self, counter: partial[Counter], gauge: partial[Gauge], info: partial[Info]
    ) -> None:
        self.prepare_seconds = counter(
            "streamlabel_prepare_seconds",
            "Seconds in the preparation of texts, prepare.function included. 0 without one.",
        )
        self.model = info("streamlabel_model", "The model in use.")
        self.model_changes = counter(
            "streamlabel_model_changes",
            "Requests to change the model that have ended. `unchanged`: it was the same model. "
            "`refused`: the settings or the model don't fit. `failed`: it could not be loaded. With "
            "the last two, the one in use stays.",
            ["outcome"],
        )
        self.model_first_offset = gauge(
            "streamlabel_model_first_offset",
            "First offset of an input partition that the model in use has labelled, since this "
            "process has the partition.",
            ["topic", "partition", "model", "weights"],
            multiprocess_mode="livemax",  # after a rebalance, the old owner may still report
        )

    def _of_each_model(self, counter: partial[Counter], info: partial[Info]) -> None:
        """Declare what several models do. With one model, these have no series.

        The label `name` is that of a table `[models.NAME]`.
        """
        self.each_model = info(
            "streamlabel_each_model", "Each of several models in use, by its name.", ["name"]
        )
        self.model_records = counter(
            "streamlabel_model_records",
            "Acknowledged results by model and outcome: `labelled`, or why the model gave none.",
            ["name", "outcome"],
        )
        self.model_labels = counter(
            "streamlabel_model_labels",
            "Results by model and label: of those that the model labelled.",
            ["name", "label"],
        )
        self.model_seconds = counter(
            "streamlabel_model_seconds",
            "Seconds that a thread worked for one of several models. The rate is its share of the "
            "thread's time.",
            ["name", "stage"],
        )

    def _of_the_routes(self, counter: partial[Counter]) -> None:
        self.routed = counter(
            "streamlabel_routed",
            "Results by the route that chose their topic. `(none)`: output.topic. Not counted without "
            "routes.",
            ["route"],
        )
        self.copies = counter(
            "streamlabel_copies", "Copies of results acknowledged by the broker.", ["route"]
        )
        self.copies_lost = counter(
            "streamlabel_copies_lost",
            "Copies of results that their topic refused. Each is a dead letter with the header "
            "streamlabel-copy.",
            ["route"],
        )
        self.filtered = counter(
            "streamlabel_filtered",
            "Records without a result, by the settings' wish. `route`: a route with drop. "
            "`prepare.function`: that function skipped the text.",
            ["reason", "route"],
        )
        self.decided_labels = counter(
            "streamlabel_decided_labels",
            "Labels that reached their threshold (`decision.threshold`), several of a result.",
            ["label"],
        )
        self.uncertain = counter(
            "streamlabel_uncertain",
            "Results below `decision.min_score` or `decision.min_margin`.",
        )
        self.path_missing = counter(
            "streamlabel_path_missing",
            "Conditions that did not match because the record lacks the field that they name, or has "
            "more than 1,000 characters in it for `matches`.",
            ["path"],
        )

    def _of_the_schema_registry(self, counter: partial[Counter], gauge: partial[Gauge]) -> None:
        self.registry_requests = counter(
            "streamlabel_registry_requests",
            "Requests to the schema registry. `away`: no usable answer. `refused`: the sign-in or "
            "the schema.",
            ["outcome"],
        )
        self.registry_schemas = gauge(
            "streamlabel_registry_schemas",
            "Schemas in memory. At registry.cache_schemas, the one used longest ago makes room.",
            multiprocess_mode="livesum",
        )
        self.registry_away = gauge(
            "streamlabel_registry_away",
            "1 while records wait because the schema registry does not answer. In a pool: the number "
            "of such processes.",
            multiprocess_mode="livesum",
        )

    def _of_the_shadow(
        self,
        counter: partial[Counter],
        gauge: partial[Gauge],
        histogram: partial[Histogram],
        info: partial[Info],
    ) -> None:
        """Declare the comparison of two models.

        The label `comparison` names the hashes of both models' weights: a change of either begins
        another comparison at zero, and no counter falls.
        """
        self.shadow_state = gauge(
            "streamlabel_shadow_state",
            "State of the second model: 0 none, 1 loading, 2 comparing, 3 failed.",
            multiprocess_mode="liveall",
        )
        self.shadow_share = gauge(
            "streamlabel_shadow_share",
            "Share of the records that the second model sees: shadow.share. 0 without one.",
            multiprocess_mode="livemax",
        )
        self.shadow_model = info(
            "streamlabel_shadow_model", "The second model, and the comparison that it is part of."
        )
        self.shadow_since = gauge(
            "streamlabel_shadow_since_timestamp_seconds",
            "Start of the comparison, seconds since 1970. In a pool: that of its first process.",
            ["comparison"],
            multiprocess_mode="livemin",
        )
        self.shadow_texts = counter(
            "streamlabel_shadow_texts", "Texts that both models labelled.", ["comparison"]
        )
        self.shadow_agreed = counter(
            "streamlabel_shadow_agreed", "Texts that got the same label from both.", ["comparison"]
        )
        self.shadow_flips = counter(
            "streamlabel_shadow_flips",
            "Texts that got another label from the second model, by both labels. Pairs beyond the "
            "first 200 are counted as `(others)`.",
            ["comparison", "from", "to"],
        )
        self.shadow_divergence = histogram(
            "streamlabel_shadow_divergence",
            "Jensen-Shannon divergence of both models' probabilities for a text, bits: 0 equal, 1 "
            "disjoint. It is not observed if the models' labels differ.",
            ["comparison"],
            buckets=DIVERGENCE_BUCKETS,
        )
        self.shadow_seconds = histogram(
            "streamlabel_shadow_seconds",
            "Time of the second model for a group of texts, tokenizer included.",
            ["comparison"],
            buckets=STAGE_BUCKETS,
        )
        self.shadow_skipped = counter(
            "streamlabel_shadow_skipped",
            "Chosen texts that the second model did not label. `loading`: it was not loaded yet. "
            "`behind`: beyond its share of time. `failed`: it failed on the text, or is off.",
            ["reason"],
        )
        self.shadow_unpublished = counter(
            "streamlabel_shadow_unpublished",
            "Results of the second model that did not reach shadow.topic.",
        )

    def clear_comparison(self) -> None:
        """Drop the series of the comparison, because another one begins."""
        for collector in (
            self.shadow_since,
            self.shadow_texts,
            self.shadow_agreed,
            self.shadow_flips,
            self.shadow_divergence,
            self.shadow_seconds,
        ):
            collector.clear()

    def _create_series(self) -> None:
        """Start series at zero: rates and alerts can't see a series before its first event."""
        for stage in STAGES:
            self.stage.labels(stage)
        for stage in THREADS:
            self.busy.labels(stage)
        for trigger in ("records", "tokens", "goal", "ready"):
            self.micro_batches.labels(trigger)
        for source in ("batch", "cache"):
            self.cache_hits.labels(source)
        for kind in ("assigned", "revoked", "lost", "deleted"):
            self.rebalances.labels(kind)
        for reason in ("loading", "behind", "failed"):
            self.shadow_skipped.labels(reason)
        for outcome in ("changed", "unchanged", "refused", "failed"):
            self.model_changes.labels(outcome)
        for outcome in ("answered", "not_found", "refused", "away"):
            self.registry_requests.labels(outcome)
        for reason in DeadLetterReason:
            self.dead_lettered.labels(reason.value)

    def create_label_series(self, labels: Iterable[str], decided: Iterable[str] = ()) -> None:
        """Start the series of labels of results, and of decided labels, at zero, likewise."""
        for label in labels:
            self.labels.labels(label)
        for label in decided:
            self.decided_labels.labels(label)

    def show_each_model(self, facts: Mapping[str, Mapping[str, str]]) -> None:
        """Show several models, in place of those shown before.

        Args:
            facts: of each model, by its name: as `ModelCard.facts`.
        """
        with self.lock:
            self.each_model.clear()
            for name, of_one in facts.items():
                self.each_model.labels(name).info(dict(of_one))
                self.model_records.labels(name, "labelled")
                for stage in MODEL_STAGES:
                    self.model_seconds.labels(name, stage)

    def remove_partitions(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Drop the series of partitions that this worker no longer owns."""
        for topic, partition in partitions:
            for gauge in (self.offset_lag, self.open_transaction):
                # `remove` raises for a series that does not exist: a partition may be revoked
                # before its first reading.
                gauge.labels(topic, str(partition))
                gauge.remove(topic, str(partition))


class PoolMetrics:
    """The collectors of a pool's parent; all others are combined from its processes."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)

        self.restarts = Counter(
            "streamlabel_process_restarts",
            "Processes of a pool that ended unexpectedly and were restarted.",
            registry=r,
        )
        self.process_model = Gauge(
            "streamlabel_process_model",
            "1 for the model that a process of a pool has in use. Two models among them: a change is "
            "under way, or has ended before its last process.",
            ["slot", "model", "revision", "weights"],
            registry=r,
        )
        # In addition to each process's own: a hanging process reports nothing to the parent.
        self.live = Gauge("streamlabel_live", "1 while /livez succeeds.", registry=r)
