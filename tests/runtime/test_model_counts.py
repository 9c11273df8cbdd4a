"""Results of several models are counted by model; those of one model are not."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry

from tests.support.records import CARD, item
from worker.core.absences import Absence, Part, Parts
from worker.core.decisions.rules import Decision, bind
from worker.core.offsets import OffsetTracker
from worker.core.records import Classified, Encoded, Prediction, RecordRef
from worker.metrics import Metrics
from worker.runtime.drift import DriftWatch
from worker.runtime.outcome_counts import count_outcomes
from worker.settings import DriftSettings

NOTHING = Prediction((), 0, truncated=False)


def result(parts: Parts | None) -> Encoded:
    outcome = Classified(item(), NOTHING, CARD, parts)
    return Encoded(
        RecordRef("in", 0, 0, 1), "out", None, b"", [], 0, label="a", score=0.5, outcome=outcome
    )


def part(*probabilities: float, card: object = CARD) -> Part:
    return Part(Prediction(probabilities, 3, truncated=False), card)  # type: ignore[arg-type]


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"streamlabel_{name}_total"
    }


def test_each_model_is_counted_with_its_labels_and_absences() -> None:
    metrics = Metrics()
    card = replace(CARD, decision=bind(Decision(min_score=0.9), CARD.labels, "softmax"))
    parts: list[Parts] = [
        {"mood": part(0.2, 0.8), "topic": Absence("not_applicable")},
        {"mood": part(0.9, 0.1), "topic": part(0.6, 0.4, card=card)},
        {"mood": Absence("model_failed"), "topic": Absence("not_applicable")},
    ]
    count_outcomes(metrics, [result(one) for one in parts], 0, OffsetTracker())
    low, high = CARD.labels
    assert samples(metrics.registry, "model_records") == {
        ("mood", "labelled"): 2,
        ("mood", "model_failed"): 1,
        ("topic", "not_applicable"): 2,
        ("topic", "labelled"): 1,
    }
    assert samples(metrics.registry, "model_labels") == {
        ("mood", high): 1,
        ("mood", low): 1,
        ("topic", "UNCERTAIN"): 1,
    }


def test_one_model_has_no_counts_by_name() -> None:
    metrics = Metrics()
    bare = Encoded(RecordRef("in", 0, 0, 1), "out", None, b"", [], 0, label="a", score=0.5)
    count_outcomes(metrics, [result(None), bare], 0, OffsetTracker())
    count_outcomes(metrics, [bare], 0, OffsetTracker())
    assert samples(metrics.registry, "model_records") == {}


def test_a_result_without_a_label_has_no_part_in_labels_confidence_and_drift() -> None:
    """The first of several models is absent; the record is published all the same."""
    metrics = Metrics()
    known = result({"mood": part(0.2, 0.8)})
    absent = replace(result({"mood": Absence("not_applicable")}), label="", score=0.0)
    count_outcomes(metrics, [known, absent], 0, OffsetTracker())
    assert samples(metrics.registry, "labels") == {("a",): 1}
    value = metrics.registry.get_sample_value
    assert value("streamlabel_confidence_count") == 1
    assert value("streamlabel_confidence_sum") == 0.5
    assert value("streamlabel_records_published_total") == 2
    watch = DriftWatch(DriftSettings(reference_records=100, window_records=100), metrics)
    watch.note([known] * 100)
    watch.note([absent] * 100)
    watch.note([known] * 100)
    assert watch._labels.index == watch._confidence.index == 0
