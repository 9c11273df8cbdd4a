"""The page's figures of several models: labels, outcomes, and the time that each model takes.

Owns: the members of each model in a snapshot.
Thread: any.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from worker.http.reading import Reading, Window
from worker.metrics import MODEL_STAGES

Json = dict[str, Any]

LABELS: Final = 20  # shown of a model, the most frequent ones
_LABELLED: Final = "labelled"


def each_model(window: Window, recent: Window) -> list[Json]:
    """Return what each of several models did, in the order of their tables; empty for one model.

    Args:
        window: for the share of time, which compares the models with each other.
        recent: for the busy share of each thread's time; see `figures.stages`.
    """
    new = window.new
    names = [labels["name"] for labels, _ in new.series("each_model_info")]
    worked = {name: window.gained("model_seconds_total", name=name) for name in names}
    whole = sum(worked.values())
    return [
        {
            "name": name,
            "facts": _facts(new, name),
            "time": worked[name] / whole if whole else None,
            "busy": {stage: _busy(recent, name, stage) for stage in MODEL_STAGES},
            **_outcomes(new, name),
            **_labels(new, name),
        }
        for name in dict.fromkeys(names)
    ]


def _facts(new: Reading, name: str) -> Json:
    """Return the facts of the model; of a pool under change, those of one of its processes."""
    found = (labels for labels, _ in new.series("each_model_info") if labels["name"] == name)
    return {key: value for key, value in next(found).items() if key != "name"}


def _busy(recent: Window, name: str, stage: str) -> float | None:
    whole = recent.seconds * max(1, len(recent.new.series("state")))
    worked = recent.gained("model_seconds_total", name=name, stage=stage)
    return min(1.0, worked / whole) if whole > 0 else None


def _outcomes(new: Reading, name: str) -> Json:
    """Return how many records the model labelled, and how many it gave nothing, by reason."""
    counts = _counts(new, "model_records_total", name, "outcome")
    labelled = counts.pop(_LABELLED, 0.0)
    return {"labelled": labelled, "absent": {reason: n for reason, n in counts.items() if n}}


def _labels(new: Reading, name: str) -> Json:
    counts = _counts(new, "model_labels_total", name, "label")
    top = sorted(counts, key=lambda label: (-counts[label], label))[:LABELS]
    shown = {label: counts[label] for label in top}
    return {"labels": shown, "others": _rest(counts.values(), shown.values())}


def _counts(new: Reading, metric: str, name: str, label: str) -> dict[str, float]:
    return {labels[label]: value for labels, value in new.series(metric) if labels["name"] == name}


def _rest(counts: Iterable[float], shown: Iterable[float]) -> Json:
    counts, shown = list(counts), list(shown)
    return {"labels": len(counts) - len(shown), "total": sum(counts) - sum(shown)}
