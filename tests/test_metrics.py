"""Metrics: many amounts are observed at once as one by one, by a private way of the library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from worker.metrics import Metrics, observe_all

BUCKETS = (0.1, 0.5, 1.0)


def histogram() -> Histogram:
    return Histogram("h", "", buckets=BUCKETS, registry=CollectorRegistry())


def samples(observed: Histogram) -> dict[tuple[str, str], float]:
    (family,) = observed.collect()
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.one_of(st.sampled_from(BUCKETS), st.floats(0, 2))))
def test_observing_all_at_once_equals_observing_each(amounts: list[float]) -> None:
    together, one_by_one = histogram(), histogram()
    observe_all(together, amounts)
    for amount in amounts:
        one_by_one.observe(amount)
    assert samples(together) == pytest.approx(samples(one_by_one))


def test_each_of_several_models_is_shown_until_others_take_over() -> None:
    metrics = Metrics()
    metrics.show_each_model({"mood": {"model": "a"}, "topic": {"model": "b"}})
    metrics.show_each_model({"mood": {"model": "c"}})
    (family,) = (f for f in metrics.registry.collect() if f.name == "streamlabel_each_model")
    assert [sample.labels for sample in family.samples] == [{"name": "mood", "model": "c"}]
