"""Every format is measured from its bytes to the bytes of a result."""

from __future__ import annotations

from benchmarks.formats import measure


def test_each_format_is_measured_beside_json() -> None:
    """The figures are not judged: a test has no time for steady ones."""
    result = measure("A text.", rounds=1, records=20)
    names = [cost.name for cost in result.formats]
    assert names == ["JSON", "Avro", "Avro, enriched", "JSON Schema", "Protobuf"]
    assert all(cost.decode_us > 0 and cost.encode_us > 0 for cost in result.formats)
    assert result.to_json("JSON") == 1
    assert result.to_json("XML") is None
