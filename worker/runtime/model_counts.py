"""Counts what each of several models made of the acknowledged results.

Owns: the counters by model.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from worker.core.absences import Absence, Parts
from worker.core.decided_members import judged
from worker.core.records import Classified, Encoded
from worker.metrics import Metrics

LABELLED = "labelled"


def count_models(metrics: Metrics, results: Sequence[Encoded]) -> None:
    """Count results by model, outcome and label; nothing if one model labels.

    Either all results of a worker have parts, or none, so that one model costs one look.

    Args:
        metrics: the collectors; the caller holds their lock.
        results: acknowledged.
    """
    if not results or not _parts(results[0]):
        return
    outcomes, labels = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for result in results:
        for name, part in _parts(result).items():
            if isinstance(part, Absence):
                outcomes[name, part.reason] += 1
            else:
                outcomes[name, LABELLED] += 1
                labels[name, judged(part.card, part.prediction)[0]] += 1
    for pair, number in outcomes.items():
        metrics.model_records.labels(*pair).inc(number)
    for pair, number in labels.items():
        metrics.model_labels.labels(*pair).inc(number)


def _parts(result: Encoded) -> Parts:
    outcome = result.outcome
    return (outcome.parts or {}) if isinstance(outcome, Classified) else {}
