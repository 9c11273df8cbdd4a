"""The writer of our own Avro schemas writes what fastavro writes."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from worker.registry.avro_writer import compiled

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "All",
    "fields": [
        {"name": "n", "type": "long"},
        {"name": "x", "type": "double"},
        {"name": "yes", "type": "boolean"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "maybe", "type": ["null", "string"]},
        {"name": "words", "type": {"type": "array", "items": "string"}},
        {
            "name": "inner",
            "type": {"type": "record", "name": "I", "fields": [{"name": "n", "type": "long"}]},
        },
    ],
}
WRITE, PARSED = compiled(SCHEMA), parse_schema(SCHEMA)
LONGS = st.integers(-(2**63), 2**63 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]))
ALL = st.fixed_dictionaries(
    {
        "n": LONGS,
        "x": st.floats(),
        "yes": st.booleans(),
        "at": st.integers(0, 2**42).map(lambda ms: datetime.fromtimestamp(ms / 1000, UTC)),
        "maybe": st.none() | WORDS,
        "words": st.lists(WORDS),
        "inner": st.fixed_dictionaries({"n": LONGS}),
    }
)
LEAST = {
    "n": -(2**63),
    "x": -0.0,
    "yes": False,
    "at": datetime(1970, 1, 1, tzinfo=UTC),
    "maybe": "x" * 64,
    "words": [],
    "inner": {"n": 64},
}


@given(ALL)
@example(LEAST)
def test_every_type_is_written_as_by_fastavro(value: dict[str, Any]) -> None:
    """Byte for byte, at the bounds too."""
    body = BytesIO()
    schemaless_writer(body, PARSED, value)
    assert WRITE(value) == body.getvalue()


@pytest.mark.parametrize("schema", ["int", {"type": "fixed", "size": 2}])
def test_a_type_that_no_model_has_is_an_error(schema: Any) -> None:
    """When the schema is compiled, and not at the first result."""
    with pytest.raises(KeyError):
        compiled(schema)


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": -7}])
def test_a_map_of_scalars_is_written_as_by_fastavro(value: dict[str, int]) -> None:
    schema = {"type": "map", "values": "long"}
    body = BytesIO()
    schemaless_writer(body, schema, value)
    assert compiled(schema)(value) == body.getvalue()
