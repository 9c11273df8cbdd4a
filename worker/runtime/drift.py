"""Measures whether labels and confidences have shifted since the model took over.

Owns: the reference and the newest window of both, which two gauges compare.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.core.drift import Drift, cell_of
from worker.core.records import Encoded, ModelCard
from worker.metrics import CONFIDENCE_BUCKETS, Metrics
from worker.settings import DriftSettings


class DriftWatch:
    """Compares the newest results with the first ones.

    The cells of the confidences are the buckets of `streamlabel_confidence`, so the histogram shows
    what moved the index. The model bounds the number of labels, so both counts are bounded.
    """

    def __init__(self, settings: DriftSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._model: ModelCard | None = None
        self._start()

    def _start(self) -> None:
        reference, window = self._settings.reference_records, self._settings.window_records
        self._labels, self._confidence = (
            Drift[str](reference, window),
            Drift[int](reference, window),
        )

    def follow(self, model: ModelCard) -> None:
        """Start again with the results of this model, and ignore those of others from now on."""
        self._model = model
        self._start()

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Take in acknowledged outcomes. Those without a label are ignored, as dead letters."""
        results = [one for one in outcomes if one.reason is None and not one.filtered and one.label]
        if self._model is not None:
            results = [outcome for outcome in results if outcome.model is self._model]
        self._labels.note(outcome.label for outcome in results)
        self._confidence.note(cell_of(outcome.score, CONFIDENCE_BUCKETS) for outcome in results)
        self._metrics.label_drift.set(self._labels.index)
        self._metrics.confidence_drift.set(self._confidence.index)
