"""compare_topics: two results of a record are found by its coordinates, and compared."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Self

import pytest

from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.errors import Fatal, TopicMissing
from worker.kafka_io import shadow_results as module
from worker.kafka_io.reader import AuditRecord
from worker.kafka_io.shadow_results import TopicsComparison, compare_topics
from worker.settings import load

BOUNDS = (0.1, 1.0)


def result(offset: int, score: float, model: str, labels: tuple[str, str] = ("A", "B")) -> Any:
    """Return a record with the result of `in/0/offset`: `score` for the first label."""
    document = {
        "labels": [
            {"label": n, "score": p} for n, p in zip(labels, (score, 1 - score), strict=True)
        ],
        "model": {"name": model, "weights_sha256": model * 8},
    }
    headers = [(SOURCE_HEADER, format_source("in", 0, offset))]
    return AuditRecord(0, offset, headers, 0, json.dumps(document).encode(), None)


def enriched(offset: int, score: float, model: str) -> Any:
    plain = result(offset, score, model)
    value = {"text": "hi", "classification": json.loads(plain.value)}
    return plain._replace(value=json.dumps(value).encode())


class Topics:
    """A fake cluster: records by topic."""

    def __init__(self, **records: list[Any]) -> None:
        self.records = records

    def __call__(self, _: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def resolve(self, _: object) -> Any:
        return SimpleNamespace(all_results=("out",))

    def topics(self, names: list[str]) -> dict[str, Any]:
        return {name: self.records.get(name) for name in names}

    def end_offsets(self, topic: str) -> dict[int, int]:
        return {0: len(self.records[topic])}

    def read(self, topic: str, _: object) -> Any:
        return iter(self.records[topic])


def compare(monkeypatch: pytest.MonkeyPatch, **records: list[Any]) -> TopicsComparison:
    cluster = Topics(**records)
    monkeypatch.setattr(module, "Admin", cluster)
    monkeypatch.setattr(module, "TopicReader", cluster)
    settings = load({"shadow.topic": "shadow"}, environ={}).settings
    return compare_topics(settings, BOUNDS, lambda *_: None)


def test_results_are_matched_whatever_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(
        monkeypatch,
        out=[result(1, 0.9, "m"), result(2, 0.9, "m"), enriched(3, 0.2, "m"), result(4, 0.5, "m")],
        shadow=[result(3, 0.2, "s"), result(2, 0.1, "s"), result(9, 0.1, "s")],
    )
    assert found.models == ("m", "s")
    assert (found.comparison.texts, found.comparison.agreed) == (2, 1)
    assert found.comparison.flips == {("A", "B"): 1}
    assert found.comparison.divergences == [1, 1, 0]
    assert (found.unmatched, found.others) == (1, 0)


def test_a_repeat_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = result(1, 0.9, "m"), result(1, 0.1, "s")
    found = compare(monkeypatch, out=[ours, ours], shadow=[theirs, theirs])
    assert (found.comparison.texts, found.unmatched) == (1, 0)


def test_only_the_newest_pair_of_models_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(
        monkeypatch,
        out=[result(1, 0.9, "m"), result(2, 0.9, "n"), result(3, 0.9, "n")],
        shadow=[result(1, 0.9, "s"), result(2, 0.9, "s"), result(3, 0.1, "s")],
    )
    assert found.models == ("n", "s")
    assert (found.comparison.texts, found.others) == (2, 1)


def test_independent_labels_show_by_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared alone: (1, 1) and (0, 1) differ in one of two labels."""
    both, one = result(1, 1.0, "m"), result(1, 0.0, "s")
    document = json.loads(both.value)
    document["labels"][1]["score"] = 1.0
    both = both._replace(value=json.dumps(document).encode())
    found = compare(monkeypatch, out=[both], shadow=[one])
    assert found.comparison.total_divergence == 0.5


def test_records_that_are_no_results_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = [
        AuditRecord(0, 0, [], 0, b"{}", None),
        *(result(1, 0.9, "m")._replace(value=value) for value in (b"\xff", b"[1]", b"{}", b"null")),
    ]
    found = compare(
        monkeypatch, out=[*foreign, result(1, 0.9, "m")], shadow=[*foreign, result(1, 0.9, "s")]
    )
    assert found.comparison.texts == 1


def test_topics_of_other_workers_have_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fatal, match="no record has a result of both models"):
        compare(monkeypatch, out=[result(1, 0.9, "m")], shadow=[result(2, 0.9, "s")])


def test_a_missing_topic_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopicMissing, match="missing: shadow"):
        compare(monkeypatch, out=[])
