"""Computes the page's figures from one reading of the metrics, or from two.

Owns: nothing; readings in, figures out.
Thread: any.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from typing import Any, Final

from worker.core.drift import reading
from worker.http.reading import Buckets, Reading, between, quantile
from worker.metrics import STAGES

Json = dict[str, Any]

MOST_LABELS: Final = 100  # with a total of their own; a model may have thousands
PARTITIONS: Final = 48  # shown, those with the most lag
DEAD: Final = "records_dead_lettered_total"
# A micro-batch passes these between poll and acknowledgement; `commit` comes after them.
_ON_THE_WAY: Final = ("queue", "tokenise", "infer", "publish")


def totals(new: Reading) -> Json:
    """Return what was counted since the start, and what is in flight."""
    names = ("consumed", "published", "dead_lettered")
    return {name: new.total(f"records_{name}_total") for name in names} | {
        "in_flight": new.total("inflight_records"),
        "in_flight_bytes": new.total("inflight_bytes"),
        "truncated": new.total("truncated_total"),
        "cached": new.total("cache_hits_total"),
        "restarts": new.total("process_restarts_total"),
    }


def labels(new: Reading) -> tuple[dict[str, float], Json]:
    """Return the most frequent labels with their totals, by name, and the sum of the rest."""
    counts = new.by("labels_total", "label")
    top = sorted(counts, key=lambda label: -counts[label])[:MOST_LABELS]
    shown = {label: counts[label] for label in sorted(top)}
    rest = {"labels": len(counts) - len(top), "total": sum(counts.values()) - sum(shown.values())}
    return shown, rest


def latency(old: Reading, new: Reading) -> Json:
    """Return quantiles of the end-to-end latency between two readings, seconds."""
    buckets = between(old.buckets("end_to_end_seconds"), new.buckets("end_to_end_seconds"))
    return {f"p{share}": quantile(buckets, share / 100) for share in (50, 95, 99)}


def lag(new: Reading) -> Json:
    """Return the lag in all, and by partition for those with the most of it."""
    partitions: list[Json] = [
        {"topic": labels["topic"], "partition": int(labels["partition"]), "records": value}
        for labels, value in new.series("offset_lag")
    ]
    worst = sorted(partitions, key=lambda row: -row["records"])[:PARTITIONS]
    return {
        "records": sum(row["records"] for row in partitions),
        "seconds": new.total("time_lag_seconds"),
        "partitions": sorted(worst, key=lambda row: (row["topic"], row["partition"])),
        "left_out": len(partitions) - len(worst),
    }


def stages(old: Reading, new: Reading, seconds: float) -> list[Json]:
    """Return each stage's mean seconds for a micro-batch, and its busy share of `seconds`.

    `busy` is the share of one thread's time; in a pool, the mean over its processes. A step counts
    when it ends, so one that is longer than the window would be more than all of it.
    """
    busy = {labels["stage"]: value for labels, value in new.series("stage_busy_seconds_total")}
    whole = seconds * max(1, len(new.series("state")))
    result = []
    for stage in STAGES:
        worked = busy.get(stage, 0.0) - old.total("stage_busy_seconds_total", stage=stage)
        share = min(1.0, worked / whole) if stage in busy and whole > 0 else None
        mean = _mean(old, new, "stage_seconds", stage=stage)
        result.append({"name": stage, "seconds": mean, "busy": share})
    return result


def shares(all_stages: list[Json]) -> list[Json]:
    """Return each stage's percent of a micro-batch's time between poll and acknowledgement.

    The whole is the sum of the mean times in queue, tokenise, infer and publish; waits between two
    stages are not measured and belong to no stage. The percents sum to 100. Empty without a
    micro-batch in the window.
    """
    times = {stage["name"]: stage["seconds"] for stage in all_stages}
    on_the_way = {name: times[name] for name in _ON_THE_WAY if times[name] is not None}
    whole = sum(on_the_way.values())
    if not whole:
        return []
    return [{"name": name, "percent": 100 * time / whole} for name, time in on_the_way.items()]


def batches(old: Reading, new: Reading) -> Json:
    """Return means over the micro-batches and forward passes between two readings."""
    return {
        "records": _mean(old, new, "batch_records"),
        "tokens": _mean(old, new, "batch_tokens"),
        "tokens_at_most": new.total("forward_tokens"),
        "padding": _mean(old, new, "padding_ratio"),
        "closed_by": new.by("micro_batches_total", "trigger"),
    }


def drift(new: Reading) -> list[Json]:
    """Return both indices of drift with their reading."""
    indices = ((of, new.total(f"{of}_drift")) for of in ("label", "confidence"))
    return [{"of": of, "index": index, "reading": reading(index)} for of, index in indices]


def histogram(buckets: Buckets) -> list[tuple[float, float, float]]:
    """Return lower bound (excluded, but for 0), upper bound (included) and count of each bucket.

    The last bucket of Prometheus reaches to infinity. No probability is above 1, so it is empty and
    left out.
    """
    low, below = 0.0, 0.0
    counts = []
    for bound, cumulative in buckets[:-1]:
        counts.append((low, bound, cumulative - below))
        low, below = bound, cumulative
    return counts


def _mean(old: Reading, new: Reading, name: str, **where: str) -> float | None:
    count, total = (
        new.total(f"{name}_{part}", **where) - old.total(f"{name}_{part}", **where)
        for part in ("count", "sum")
    )
    return total / count if count else None
