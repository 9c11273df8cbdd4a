"""The table of broker faults: what the module's docstring says is what the code does."""

from __future__ import annotations

import pytest
from kafka import errors

import worker.errors
from worker.core.faults import disposition
from worker.kafka_io import translation
from worker.kafka_io.translation import translate

ROWS = [
    [cell.strip() for cell in line.strip("| ").split("|")]
    for line in (translation.__doc__ or "").splitlines()
    if line.startswith("| ") and "disposition" not in line
]


def test_the_table_is_there() -> None:
    assert len(ROWS) > 20
    assert {row[3] for row in ROWS} == {"retry", "stop"}


@pytest.mark.parametrize(("fault", "said", "meaning", "answer"), ROWS, ids=[r[1] for r in ROWS])
def test_each_row_of_the_table_holds(fault: str, said: str, meaning: str, answer: str) -> None:
    found = translate(getattr(errors, said)("topic-7"))
    assert type(found) is getattr(worker.errors, meaning), fault
    assert disposition(found).value == answer
    assert said in str(found)
    assert "topic-7" in str(found)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (errors.UnknownTopicOrPartitionError, "`streamlabel topics create`"),
        (errors.TopicAuthorizationFailedError, "grant it to this worker's user"),
        (errors.CorruptRecordError, "move the group's offset of this partition past it"),
    ],
)
def test_a_fault_that_stops_says_what_to_do(said: type[Exception], advice: str) -> None:
    assert advice in str(translate(said("x")))
