"""FirstOffsets: where each partition's results begin to come from a model."""

from __future__ import annotations

from dataclasses import replace

from structlog.testing import capture_logs

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import outcome
from tests.support.records import CARD, raw
from worker.core.records import (
    Classified,
    DeadLettered,
    Encoded,
    ModelCard,
    Partition,
    Prediction,
    WorkItem,
)
from worker.metrics import Metrics
from worker.runtime.first_offsets import FirstOffsets

NEW = replace(CARD, name="new", weights_sha256="cd" * 32)


def labelled(offset: int, model: ModelCard, *, partition: int = 0, epoch: int = 1) -> Encoded:
    record = raw(offset, partition=partition, epoch=epoch)
    made = Classified(WorkItem(record, "hi"), Prediction((0.5, 0.5), 1, truncated=False), model)
    return replace(outcome(offset), ref=record.ref, outcome=made)


def dead(offset: int) -> Encoded:
    record = raw(offset)
    made = DeadLettered(record, DeadLetterReason.NOT_UTF8, "not UTF-8")
    return replace(outcome(offset), ref=record.ref, outcome=made)


class Desk:
    """First offsets, and the metrics that show them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.first = FirstOffsets(self.metrics, HandClock().wall_ms)

    def note(self, *outcomes: Encoded) -> list[tuple[str, int, int]]:
        """Note a batch, and return model, partition and offset of each line that is logged."""
        with capture_logs() as logs:
            self.first.note(outcomes)
        assert {line["event"] for line in logs} <= {"model took over"}
        return [(line["model"], line["partition"], line["offset"]) for line in logs]

    def offsets(self) -> list[dict[str, int]]:
        return [one["first_offsets"] for one in self.first.models()]

    def shown(self, *partitions: int) -> dict[tuple[str, str], float]:
        """Show these partitions; return the series of the gauge, by partition and model."""
        self.first.show([Partition("in", number) for number in partitions])
        (family,) = self.metrics.model_first_offset.collect()
        return {(s.labels["partition"], s.labels["model"]): s.value for s in family.samples}


def test_the_first_model_takes_over_from_none_and_is_not_logged() -> None:
    desk = Desk()
    assert desk.note(dead(3), labelled(4, CARD), labelled(5, CARD)) == []
    (model,) = desk.first.models()
    assert (model["name"], model["first_offsets"]) == ("tiny", {"in/0": 4})
    assert (model["revision"], model["weights_sha256"]) == ("local", CARD.weights_sha256)


def test_each_partition_has_its_first_result_of_a_new_model() -> None:
    """A dead letter before it says nothing of a model."""
    desk = Desk()
    desk.note(labelled(1, CARD), labelled(1, CARD, partition=1))
    assert desk.note(labelled(2, CARD), dead(3), labelled(4, NEW), labelled(5, NEW)) == [
        ("new", 0, 4)
    ]
    assert desk.note(labelled(2, NEW, partition=1)) == [("new", 1, 2)]
    assert desk.note(labelled(6, NEW), labelled(3, NEW, partition=1)) == []
    assert desk.offsets() == [{"in/0": 1, "in/1": 1}, {"in/0": 4, "in/1": 2}]


def test_a_partition_that_comes_back_is_noted_again() -> None:
    """Another worker has labelled in between, maybe with another model."""
    desk = Desk()
    desk.note(labelled(1, CARD), labelled(2, NEW))
    assert desk.note(labelled(9, NEW, epoch=2)) == [("new", 0, 9)]
    assert desk.offsets()[-1] == {"in/0": 9}


def test_the_gauge_shows_the_model_in_use_and_the_partitions_of_this_worker() -> None:
    desk = Desk()
    assert desk.shown(0, 1) == {}
    desk.note(labelled(1, CARD), labelled(7, CARD, partition=1))
    assert desk.shown(0, 1, 2) == {("0", "tiny"): 1, ("1", "tiny"): 7}
    desk.note(labelled(2, NEW))
    assert desk.shown(0, 1) == {("0", "new"): 2}
    assert desk.shown(1) == {}
    assert desk.shown(0) == {("0", "new"): 2}


def test_the_number_of_models_is_bounded() -> None:
    desk = Desk()
    for number in range(30):
        desk.note(labelled(number, replace(CARD, name=f"model-{number}")))
    names = [one["name"] for one in desk.first.models()]
    assert names == [f"model-{number}" for number in range(10, 30)]
