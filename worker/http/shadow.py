"""The comparison of two models as one document: for the page, for `streamlabel shadow report`.

Owns: the document's members.
Thread: any.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from worker.core.shadow import Comparison, wilson_interval
from worker.http.reading import Buckets, Reading, quantile
from worker.metrics import DIVERGENCE_BUCKETS, ShadowState

Json = dict[str, Any]

_FLIPS: Final = 20  # pairs shown, the most frequent ones
_QUANTILES: Final = (50, 90, 99)


def shadow_member(reading: Reading) -> Json | None:
    """Return the comparison that a worker or a pool reports; None without a second model.

    A pool changes its model one process after the other. Meanwhile there are two comparisons, and
    the one that began last is returned.
    """
    share = reading.total("shadow_share")
    if not share:
        return None
    since = reading.by("shadow_since_timestamp_seconds", "comparison")
    name = max(since, key=lambda comparison: since[comparison], default="")
    facts = next(
        (labels for labels, _ in reading.series("shadow_model_info")
         if labels.get("comparison") == name),
        {},
    )  # fmt: skip
    texts = reading.total("shadow_texts_total", comparison=name)
    return {
        "model": facts.get("shadow", ""),
        "facts": {key: facts.get(key, "") for key in ("revision", "engine", "dtype", "device")},
        "against": facts.get("model", ""),
        "state": ShadowState(int(reading.total("shadow_state"))).name.lower(),
        "since": since[name] * 1000 if name else None,
        "share": share,
        **_figures(
            int(texts),
            int(reading.total("shadow_agreed_total", comparison=name)),
            {
                (labels["from"], labels["to"]): int(value)
                for labels, value in reading.series("shadow_flips_total")
                if labels["comparison"] == name
            },
            reading.buckets("shadow_divergence", comparison=name),
            reading.total("shadow_divergence_sum", comparison=name),
        ),
        "latency": _latency(reading, name),
        "skipped": {
            reason: int(number)
            for reason, number in reading.by("shadow_skipped_total", "reason").items()
        },
        "behind": int(reading.total("shadow_skipped_total", reason="behind")),
        "unpublished": int(reading.total("shadow_unpublished_total")),
    }


def comparison_member(comparison: Comparison) -> Json:
    """Return the figures of a comparison made from topics."""
    bounds = (*DIVERGENCE_BUCKETS, float("inf"))
    return _figures(
        comparison.texts,
        comparison.agreed,
        comparison.flips,
        list(zip(bounds, accumulate(comparison.divergences), strict=True)),
        comparison.total_divergence,
    )


def _figures(
    texts: int,
    agreed: int,
    flips: Mapping[tuple[str, str], int],
    buckets: Buckets,
    total_divergence: float,
) -> Json:
    most = sorted(flips.items(), key=lambda flip: (-flip[1], flip[0]))
    return {
        "texts": texts,
        "agreed": agreed,
        "agreement": agreed / texts if texts else None,
        "interval": list(wilson_interval(agreed, texts)),
        "flips": [{"from": a, "to": b, "number": number} for (a, b), number in most[:_FLIPS]],
        "flips_left_out": sum(number for _, number in most[_FLIPS:]),
        "divergence": _divergence(buckets, total_divergence),
    }


def _divergence(buckets: Buckets, total: float) -> Json | None:
    """Return mean and quantiles, bits; None if the labels differ, or no text was compared."""
    texts = buckets[-1][1] if buckets else 0
    if not texts:
        return None
    shares: Sequence[int] = _QUANTILES
    return {"mean": total / texts} | {f"p{n}": quantile(buckets, n / 100) for n in shares}


def _latency(reading: Reading, comparison: str) -> Json:
    """Return the mean milliseconds of both models for a text, caches included."""
    return {
        "shadow_ms": _milliseconds(
            reading.total("shadow_seconds_sum", comparison=comparison),
            reading.total("shadow_texts_total", comparison=comparison),
        ),
        "model_ms": _milliseconds(
            reading.total("stage_seconds_sum", stage="infer"),
            reading.total("records_published_total"),
        ),
    }


def _milliseconds(seconds: float, texts: float) -> float | None:
    return 1000 * seconds / texts if texts else None
