"""Walking: a path that leads nowhere says how far it leads, and names the fields of a schema."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest

from schemas import DeadLetterReason
from worker.core.formats.walk import kind, member, picked
from worker.errors import RecordRejected


def problem(payload: Any, path: str, names: Sequence[str] = ()) -> str:
    with pytest.raises(RecordRejected) as caught:
        member(payload, tuple(path.split(".")), lambda _: names)
    assert caught.value.reason == DeadLetterReason.PATH_MISSING
    return caught.value.message


def test_a_missing_member_is_named_with_the_fields_that_are_there() -> None:
    assert problem({}, "text", ["id", "body"]) == "no member at 'text'; fields there: id, body"
    assert problem({"after": {}}, "after.text", ["id"]).endswith("'after.text'; fields there: id")
    many = [f"f{number}" for number in range(13)]
    assert problem({}, "text", many).endswith("f10, f11, ...")
    assert problem({}, "text", ["a" * 100, "b\x1b"]).endswith(f"there: {'a' * 60}, b[U+001B]")
    assert problem({}, "text") == "no member at 'text'"


@pytest.mark.parametrize(
    ("value", "named"),
    [(None, "null"), ("secret", "a string"), (5, "a number"), (b"secret", "bytes")],
)
def test_a_path_that_ends_early_names_the_kind_of_the_value_there(value: Any, named: str) -> None:
    message = problem({"after": value}, "after.text", ["secret"])
    assert message == f"no member at 'after.text': 'after' is {named}"


def test_without_a_schema_no_keys_are_named() -> None:
    with pytest.raises(RecordRejected, match=r"no member at 'text'$"):
        member({"secret": 1}, ("text",))


def test_kinds_are_named_as_in_json() -> None:
    values = [{}, OrderedDict(), [], "", True, 1, 1.5, None, b""]
    assert [kind(value) for value in values] == [
        *("an object", "an object", "an array", "a string", "a boolean"),
        *("a number", "a number", "null", "bytes"),
    ]


def test_the_fields_that_conditions_ask_for_are_picked_and_nothing_else() -> None:
    payload = {"a": {"b": 1, "c": [5, {"d": 6}]}, "text": "long"}
    paths = [("a", "c", "1", "d"), ("a", "b"), ("no", "such"), ("text", "x")]
    kept = picked(payload, paths)
    assert kept == {"a": {"b": 1, "c": {"1": {"d": 6}}}}
    assert member(kept, paths[0]) == 6
    assert picked(payload, []) is None
    inner_first = picked(payload, [("a", "b"), ("a",)])
    assert inner_first == {"a": payload["a"]}
    assert payload == {"a": {"b": 1, "c": [5, {"d": 6}]}, "text": "long"}, "it is unchanged"
