"""Drift of a model shows in the gauges, through the whole worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import ObedientModel, WorkerThread, produce, running, texts, wait_until
from worker.core.records import ModelInput, Prediction

pytestmark = pytest.mark.integration

SMALL: dict[str, Any] = {"drift__reference_records": 200, "drift__window_records": 100}


class Turning(ObedientModel):
    """Label every second text POSITIVE with 0.7; once stuck, label all of them with 0.995."""

    stuck = False

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        plain = super().predict(model_input)
        last = ["".join(map(chr, ids))[-1] for ids in model_input.ids]
        score = 0.995 if self.stuck else 0.7
        positive = [self.stuck or int(digit) % 2 for digit in last]
        return [
            Prediction((1 - score, score) if p else (score, 1 - score), one.token_count, False)
            for p, one in zip(positive, plain, strict=True)
        ]


def drifts(worker: WorkerThread) -> tuple[float, float]:
    return (
        worker.value("streamlabel_label_drift"),
        worker.value("streamlabel_confidence_drift"),
    )


def feed(broker: Broker, topics: Topics, worker: WorkerThread, number: int) -> None:
    before = int(worker.published)
    produce(broker, topics.input, texts(number, start=before))
    wait_until(lambda: worker.published == before + number, what="all are labelled")


def test_a_model_that_turns_positive_on_everything_is_detected(
    broker: Broker, topics: Topics
) -> None:
    """Its recovery is detected too. Dead letters between the results do not count."""
    model = Turning()
    with running(broker, topics, model, **SMALL) as worker:
        feed(broker, topics, worker, 400)
        assert drifts(worker) < (0.1, 0.1)
        model.stuck = True
        produce(broker, topics.input, [(b"k", b"\xff")] * 50)
        feed(broker, topics, worker, 400)
        wait_until(lambda: min(drifts(worker)) > 2, 10, "both are seen")
        model.stuck = False
        feed(broker, topics, worker, 800)
        wait_until(lambda: max(drifts(worker)) < 0.1, 10, "both are over")


def test_drift_that_is_switched_off_sets_no_gauge(broker: Broker, topics: Topics) -> None:
    model = Turning()
    with running(broker, topics, model, **SMALL | {"drift__reference_records": 0}) as worker:
        feed(broker, topics, worker, 400)
        model.stuck = True
        feed(broker, topics, worker, 400)
        assert drifts(worker) == (0, 0)
