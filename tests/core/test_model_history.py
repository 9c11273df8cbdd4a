"""The runs of models in the results of a topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.core import model_history
from worker.core.model_history import LabellingModel, ModelHistory, moment_ms
from worker.core.records import Partition

OLD = LabellingModel("old", "main", "aa" * 32)
NEW = LabellingModel("new", "main", "bb" * 32)
P0, P1 = Partition("in", 0), Partition("in", 1)
NOON = 1_795_780_800_000


def noted(*results: tuple[Partition, int, LabellingModel, Any]) -> ModelHistory:
    history = ModelHistory()
    for result in results:
        history.note(*result)
    return history


def runs(history: ModelHistory, partition: Partition) -> list[tuple[str, int, int, int, int]]:
    return [
        (run.model.name, run.first, run.last, run.results, run.since_ms)
        for run in history.runs[partition]
    ]


def test_a_change_begins_a_run_at_its_first_offset_in_each_partition() -> None:
    history = noted(
        (P0, 0, OLD, NOON),
        (P0, 2, OLD, NOON + 1),  # offset 1 is a dead letter
        (P1, 7, OLD, NOON + 2),
        (P0, 3, NEW, NOON + 3),
        (P0, 4, OLD, NOON + 4),
    )
    assert runs(history, P0) == [
        ("old", 0, 2, 2, NOON),
        ("new", 3, 3, 1, NOON + 3),
        ("old", 4, 4, 1, NOON + 4),
    ]
    assert runs(history, P1) == [("old", 7, 7, 1, NOON + 2)]
    assert history.results == 5


def test_records_that_are_labelled_again_are_counted_again() -> None:
    """At least once: after a crash another model labels some records a second time."""
    history = noted(
        (P0, 0, OLD, 0), (P0, 1, OLD, 1), (P0, 1, NEW, 2), (P0, 2, NEW, 3), (P0, 1, NEW, 4)
    )
    assert runs(history, P0) == [("old", 0, 1, 2, 0), ("new", 1, 2, 3, 2)]


def test_equal_names_with_other_weights_are_two_models() -> None:
    history = noted((P0, 0, OLD, 0), (P0, 1, OLD._replace(weights_sha256="cc" * 32), 1))
    assert len(history.models()) == 2


def test_the_summary_has_each_model_with_its_first_time_and_its_newest_partitions() -> None:
    history = noted(
        (P0, 0, OLD, 50), (P1, 0, OLD, 20), (P1, 1, NEW, 80), (P0, 1, NEW, 90), (P0, 2, OLD, 95)
    )
    found = [(u.model, u.since_ms, u.results, u.newest_in) for u in history.models()]
    assert found == [(OLD, 20, 3, 1), (NEW, 80, 2, 1)]


def test_memory_is_bounded_by_the_newest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_history, "MOST_RUNS", 3)
    history = noted(*((P0, n, NEW if n % 2 else OLD, n) for n in range(10)))
    assert [run.first for run in history.runs[P0]] == [7, 8, 9]
    assert (history.left_out[P0], history.left_out[P1], history.results) == (7, 0, 10)


@pytest.mark.parametrize(
    "processed_at",
    [
        NOON,
        "2026-11-27T12:00:00Z",
        "2026-11-27T12:00:00",
        "2026-11-27T13:00:00.000+01:00",
        {"seconds": NOON // 1000, "nanos": 999_999},
        {"seconds": NOON // 1000, "nanos": None},
    ],
)
def test_a_time_is_read_in_every_format(processed_at: Any) -> None:
    assert moment_ms(processed_at) == NOON
    assert datetime.fromtimestamp(NOON / 1000, UTC).hour == 12


@pytest.mark.parametrize("processed_at", ["noon", None, 1.5, {}, {"seconds": "1"}])
def test_anything_else_is_no_time(processed_at: Any) -> None:
    with pytest.raises(ValueError, match=r"noon|is no time"):
        moment_ms(processed_at)


def test_the_histories_of_two_topics_become_one() -> None:
    """A route sends some results elsewhere: the change of the model is still one change."""
    history = noted((P0, 0, OLD, NOON), (P0, 3, OLD, NOON + 3), (P0, 6, NEW, NOON + 6))
    history.add(noted((P0, 1, OLD, NOON + 1), (P0, 7, NEW, NOON + 7), (P1, 2, NEW, NOON)))
    assert runs(history, P0) == [("old", 0, 3, 3, NOON), ("new", 6, 7, 2, NOON + 6)]
    assert runs(history, P1) == [("new", 2, 2, 1, NOON)]
    assert (history.results, [use.results for use in history.models()]) == (6, [3, 3])


def test_joined_histories_keep_the_newest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one history does."""
    monkeypatch.setattr(model_history, "MOST_RUNS", 2)
    history = noted((P0, 0, OLD, NOON), (P0, 2, NEW, NOON + 2))
    history.add(noted((P0, 3, OLD, NOON + 3), (P0, 4, NEW, NOON + 4), (P0, 5, OLD, NOON + 5)))
    assert [run.first for run in history.runs[P0]] == [2, 5]
    assert (history.left_out[P0], history.results) == (2, 5)
