"""Source coordinates: they are parsed as written, and other values are rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.coordinates import format_source, parse_source

topics = st.text("abcXYZ019._-", min_size=1, max_size=249)
partitions = st.integers(0, 2**31 - 1)
offsets = st.integers(0, 2**63 - 1)


@given(topics, partitions, offsets)
def test_coordinates_are_parsed_as_written(topic: str, partition: int, offset: int) -> None:
    """For every name and number that Kafka allows."""
    assert parse_source(format_source(topic, partition, offset)) == (topic, partition, offset)


@given(st.binary(max_size=80))
def test_the_parser_raises_for_no_value(value: bytes) -> None:
    """Any value gives coordinates or None."""
    parsed = parse_source(value)
    assert parsed is None or (parsed[1] >= 0 and parsed[2] >= 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"//",
        b"topic",
        b"topic/1",
        b"/1/2",
        b"topic//2",
        b"topic/1/",
        b"topic/1/-2",
        b"topic/+1/2",
        b"topic/1/2 ",
        b"topic/1/1_000",
        b"topic/one/2",
        b"a/topic/1/2",
        b"t\xc3\xb6pic/1/2",
        b"topic/1/" + b"9" * 20,
        b"topic/" + b"9" * 5_000 + b"/1",
    ],
)
def test_malformed_coordinates_are_none(value: bytes) -> None:
    """The parser does not guess coordinates from a value of another form."""
    assert parse_source(value) is None
