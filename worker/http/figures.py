"""Computes the page's figures from a reading of the metrics, or from the window between two.

Owns: nothing; readings in, figures out.
Thread: any.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from typing import Any, Final

from worker.core.drift import reading as reading_of
from worker.http.reading import Buckets, Reading, Window
from worker.metrics import STAGES, THREADS

Json = dict[str, Any]

MOST_LABELS: Final = 100  # with a total of their own; a model may have thousands
PARTITIONS: Final = 48  # shown, those with the most lag
ARRIVED: Final = "offsets_arrived_total"
PUBLISHED: Final = "records_published_total"
DEAD: Final = "records_dead_lettered_total"
OUTCOMES: Final = (PUBLISHED, DEAD)
# A micro-batch passes these between poll and acknowledgement; `commit` comes after them.
_ON_THE_WAY: Final = ("queue", "tokenise", "infer", "publish")
WHOLE: Final = (
    "time of a micro-batch between poll and acknowledgement, without waits between two stages"
)
_STEADY: Final = 0.01  # of what arrived or was done
# Of the same: more was done than arrived, and yet the lag does not fall. Arrivals are counted once
# a second, so over 30 s both counts may differ by a few percent at any moment.
_UNCOMMITTED: Final = 0.1


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


def rates(window: Window) -> dict[str, float | None]:
    """Return how many records a second arrived, were labelled, and became dead letters."""
    return {
        "arriving": window.rate(ARRIVED),
        "labelled": window.rate(PUBLISHED),
        "dead_letters": window.rate(DEAD),
    }


def latency(window: Window) -> dict[str, float | None]:
    """Return quantiles of the end-to-end latency, seconds."""
    return {
        f"p{share}": window.quantile("end_to_end_seconds", share / 100) for share in (50, 95, 99)
    }


def lag(new: Reading) -> Json:
    """Return the lag in all, None without a partition, and by partition for those with most."""
    partitions: list[Json] = [
        {"topic": topic, "partition": int(partition), "records": value}
        for (topic, partition), value in _by_partition(new).items()
    ]
    worst = sorted(partitions, key=lambda row: -row["records"])[:PARTITIONS]
    return {
        "records": sum(row["records"] for row in partitions) if partitions else None,
        "seconds": new.total("time_lag_seconds"),
        "partitions": sorted(worst, key=lambda row: (row["topic"], row["partition"])),
        "left_out": len(partitions) - len(worst),
    }


def outlook(window: Window) -> Json:
    """Return when the lag will be zero if it goes on shrinking as it did in this window.

    until_zero_s = lag / shrinks, where `shrinks` is by how many offsets a second the lag of the
    partitions that are in both readings fell: what was committed less what arrived. It is None
    where the lag does not shrink, and `trend` says why: `growing`, `steady` (it changed by less
    than 1 % of what arrived or was done), or `unknown` (no partition yet, or what was done is not
    committed yet: the lag falls with a commit only).
    """
    before, now = (_by_partition(reading) for reading in (window.old, window.new))
    records = sum(now.values())
    both = before.keys() & now.keys()
    if not both or window.seconds <= 0:
        return {"until_zero_s": None, "trend": "unknown"}
    if not records:
        return {"until_zero_s": 0.0, "trend": "none"}
    shrunk = sum(before[one] - now[one] for one in both)
    arrived, done = (sum(map(window.gained, names)) for names in ((ARRIVED,), OUTCOMES))
    moved = max(arrived, done)
    if shrunk > _STEADY * moved:
        return {"until_zero_s": records / shrunk * window.seconds, "trend": "shrinking"}
    if done - arrived > _UNCOMMITTED * moved:
        return {"until_zero_s": None, "trend": "unknown"}
    steady = abs(shrunk) <= _STEADY * moved
    return {"until_zero_s": None, "trend": "steady" if steady else "growing"}


def _by_partition(reading: Reading) -> dict[tuple[str, str], float]:
    return {
        (labels["topic"], labels["partition"]): value
        for labels, value in reading.series("offset_lag")
    }


def stages(window: Window, means: Window) -> list[Json]:
    """Return each stage's mean seconds for a micro-batch, and its busy share of the time.

    Args:
        window: for the busy share, which is that of one thread's time; in a pool, the mean over its
            processes. A step counts when it ends, so a step longer than the window is cut to it.
        means: for the mean seconds.
    """
    whole = window.seconds * max(1, len(window.new.series("state")))
    result = []
    for stage in STAGES:
        worked = window.gained("stage_busy_seconds_total", stage=stage)
        share = min(1.0, worked / whole) if stage in THREADS and whole > 0 else None
        mean = means.mean("stage_seconds", stage=stage)
        result.append({"name": stage, "seconds": mean, "busy": share})
    return result


def shares(all_stages: list[Json]) -> Json:
    """Return each stage's percent of a micro-batch's time between poll and acknowledgement.

    The percents sum to 100; there are none without a micro-batch in the window.
    """
    times = {stage["name"]: stage["seconds"] for stage in all_stages}
    on_the_way = {name: times[name] for name in _ON_THE_WAY if times[name] is not None}
    whole = sum(on_the_way.values())
    parts = {name: 100 * time / whole for name, time in on_the_way.items()} if whole else {}
    return {"of": WHOLE, "stages": parts}


def batches(window: Window) -> Json:
    """Return means over the micro-batches and forward passes of a window."""
    return {
        "records": window.mean("batch_records"),
        "tokens": window.mean("batch_tokens"),
        "tokens_at_most": window.new.total("forward_tokens"),
        "padding": window.mean("padding_ratio"),
        "closed_by": window.new.by("micro_batches_total", "trigger"),
    }


def drift(new: Reading) -> list[Json]:
    """Return both indices of drift with their reading."""
    indices = ((of, new.total(f"{of}_drift")) for of in ("label", "confidence"))
    return [{"of": of, "index": index, "reading": reading_of(index)} for of, index in indices]


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
