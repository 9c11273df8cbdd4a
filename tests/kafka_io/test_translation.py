"""The table of exceptions in the module's docstring matches the code."""

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


def test_the_docstring_has_the_table() -> None:
    assert len(ROWS) > 20
    assert {row[3] for row in ROWS} == {"retry", "stop"}


@pytest.mark.parametrize(
    ("fault", "exception", "expected", "outcome"), ROWS, ids=[r[1] for r in ROWS]
)
def test_each_row_of_the_table_holds(
    fault: str, exception: str, expected: str, outcome: str
) -> None:
    translated = translate(getattr(errors, exception)("topic-7"))
    assert type(translated) is getattr(worker.errors, expected), fault
    assert disposition(translated).value == outcome
    assert exception in str(translated)
    assert "topic-7" in str(translated)


@pytest.mark.parametrize(
    ("exception", "advice"),
    [
        (errors.UnknownTopicOrPartitionError, "`streamlabel topics create`"),
        (errors.TopicAuthorizationFailedError, "grant it to this worker's user"),
        (errors.CorruptRecordError, "move the group's offset of this partition past it"),
    ],
)
def test_an_error_that_stops_the_worker_has_advice(exception: type[Exception], advice: str) -> None:
    assert advice in str(translate(exception("x")))
