"""Tells by two gauges whether labels and confidences have shifted since the worker started.

The poll thread notes what the broker has acknowledged, a micro-batch at a time. Imports core and
the ground floor.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.drift import Drift, cell_of
from worker.core.records import Encoded
from worker.metrics import CONFIDENCE_BUCKETS, Metrics
from worker.settings import DriftSettings


class DriftWatch:
    """Compares the newest results with the first ones.

    The cells of the confidences are the buckets of `streamlabel_confidence`: what moves the index
    can be looked at. There are as many labels as the model has, so both counts are bounded.
    """

    def __init__(self, settings: DriftSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._labels = Drift[str](settings.reference_records, settings.window_records)
        self._confidence = Drift[int](settings.reference_records, settings.window_records)

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Take acknowledged outcomes in; a dead letter has no label."""
        results = [outcome for outcome in outcomes if outcome.reason is None]
        self._labels.note(outcome.label for outcome in results)
        self._confidence.note(cell_of(outcome.score, CONFIDENCE_BUCKETS) for outcome in results)
        self._metrics.label_drift.set(self._labels.index)
        self._metrics.confidence_drift.set(self._confidence.index)
