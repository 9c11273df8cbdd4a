"""Values compare and hash as frozen dataclasses do, and cost less to make."""

from __future__ import annotations

import pytest

from worker.core.records import Classified, Encoded, Prediction, RawRecord, WorkItem


def test_values_compare_by_their_members() -> None:
    prediction = Prediction((0.25, 0.75), 3, truncated=False)
    same = Prediction((0.25, 0.75), 3, truncated=False)
    assert prediction == same
    assert hash(prediction) == hash(same)
    assert prediction != Prediction((0.75, 0.25), 3, truncated=False)
    assert not hasattr(prediction, "__dict__")


@pytest.mark.parametrize("made", [RawRecord, WorkItem, Prediction, Classified, Encoded])
def test_a_value_of_each_record_is_made_without_a_call_for_each_member(made: type) -> None:
    assert "__setattr__" not in made.__init__.__code__.co_names  # type: ignore[misc]
