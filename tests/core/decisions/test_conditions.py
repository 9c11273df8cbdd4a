"""Conditions on a record: on its fields and on its labels."""

from __future__ import annotations

from typing import Any

import pytest

from worker.core.decisions.conditions import LONGEST_MATCHED, FieldTest
from worker.settings import FieldCondition

PAYLOAD = {"lang": "en", "n": 1, "ok": True, "tags": ["a", "b"], "user": {"name": "x"}, "no": None}


def holds(missing: list[str] | None = None, **condition: Any) -> bool:
    test = FieldTest(FieldCondition(**condition), ([] if missing is None else missing).append)
    return test.holds(PAYLOAD)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"path": "lang", "in": ["de", "en"]}, True),
        ({"path": "lang", "in": "de"}, False),
        ({"path": "user.name", "in": "x"}, True),
        ({"path": "n", "in": [1.0]}, True),
        ({"path": "n", "in": [True]}, False),
        ({"path": "ok", "in": [True]}, True),
        ({"path": "ok", "in": [1]}, False),
        ({"path": "no", "in": ["x"]}, False),
        ({"path": "no", "not_in": ["x"]}, True),
        ({"path": "lang", "not_in": ["en"]}, False),
        ({"path": "tags", "in": ["b", "c"]}, True),
        ({"path": "tags", "not_in": ["b"]}, False),
        ({"path": "tags.1", "in": ["b"]}, True),
        ({"path": "user", "in": ["x"]}, False),
        ({"path": "lang", "matches": "e."}, True),
        ({"path": "lang", "matches": "e"}, False),
        ({"path": "n", "matches": "1"}, False),
        ({"path": "tags", "matches": "[b-z]"}, True),
        ({"path": "lang", "exists": True}, True),
        ({"path": "lang", "exists": False}, False),
        ({"path": "gone", "exists": False}, True),
        ({"path": "gone", "exists": True}, False),
    ],
)
def test_a_condition_on_a_field(condition: dict[str, Any], expected: bool) -> None:
    missing: list[str] = []
    assert holds(missing, **condition) is expected
    assert missing == []


@pytest.mark.parametrize("test", [{"in": ["x"]}, {"not_in": ["x"]}, {"matches": "x"}])
def test_a_missing_field_meets_no_condition_and_is_told(test: dict[str, Any]) -> None:
    missing: list[str] = []
    assert holds(missing, path="user.gone", **test) is False
    assert missing == ["user.gone"]


def test_a_long_field_matches_no_expression_and_is_told() -> None:
    """The time of some expressions grows with the power of the length."""
    missing: list[str] = []
    test = FieldTest(FieldCondition(path="x", matches="(a|b|ab)*"), missing.append)
    assert test.holds({"x": "a" * LONGEST_MATCHED})
    assert missing == []
    assert not test.holds({"x": "a" * (LONGEST_MATCHED + 1)})
    assert missing == ["x"]


def test_a_record_without_an_object_has_no_field() -> None:
    assert FieldTest(FieldCondition(path="a", not_in="x")).holds(None) is False


def test_all_tests_of_a_field_must_hold() -> None:
    assert holds(path="lang", matches="e.", not_in="es")
    assert not holds(path="lang", matches="e.", not_in="en")


def test_a_condition_without_a_path_holds_for_every_record() -> None:
    assert FieldTest(FieldCondition()).holds(None)
