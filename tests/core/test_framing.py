"""Framing: a registry's frames are recognised byte for byte, and the frames of others are named."""

from __future__ import annotations

import uuid

import pytest

from worker.core.framing import SchemaFrame, foreign_frame, schema_frame
from worker.core.records import Headers

GUID = uuid.UUID("3a9f8c1e-0000-4000-8000-00000000002a")
NAME = "__value_schema_id"


@pytest.mark.parametrize(
    ("value", "headers", "frame"),
    [
        (b"\0\0\0\0\x07body", (), SchemaFrame(7, 5)),
        (b"\0\x7f\xff\xff\xff", (), SchemaFrame(2**31 - 1, 5)),
        (b"body", ((NAME, b"\1" + GUID.bytes),), SchemaFrame(str(GUID), 0)),
        (b"body", ((NAME, b"\1" + GUID.bytes + b"\2\4"),), SchemaFrame(str(GUID), 0, b"\2\4")),
        (b"body", ((NAME, b"\0\0\0\0\x09"),), SchemaFrame(9, 0)),
        (b"body", ((NAME, b"\0\0\0\0\x09\0"),), SchemaFrame(9, 0, b"\0")),
        (b"\0\0\0\0\x07body", ((NAME, b"\1" + GUID.bytes),), SchemaFrame(str(GUID), 0)),
        (b"\0\0\0\0\x07body", ((NAME, b"\1short"),), SchemaFrame(7, 5)),
        (b"\0\0\0\0\x07body", (("x", b"y"), (NAME, None)), SchemaFrame(7, 5)),
    ],
)
def test_a_frame_names_schema_and_body(value: bytes, headers: Headers, frame: SchemaFrame) -> None:
    assert schema_frame(value, headers) == frame


@pytest.mark.parametrize(
    "value", [b"", b"\0", b"\0\0\0\0", b"\0\0\0\0\0body", b"\0\xff\xff\xff\xff", b'{"text":"a"}']
)
def test_other_values_have_no_frame(value: bytes) -> None:
    assert schema_frame(value, ((NAME, b"\2?"),)) is None


@pytest.mark.parametrize(
    ("value", "headers", "name", "remedy"),
    [
        (b"\3\0" + GUID.bytes + b"x", (), f"AWS Glue's serializer, schema {GUID}", "Confluent's"),
        (b"\3\5" + GUID.bytes, (), f"AWS Glue's serializer, schema {GUID}", "Confluent's"),
        (bytes(7) + b"\1\2body", (), "Apicurio's serializer with an id of 8 bytes, 258", "as-conf"),
        (b"\xc3\1\1\2\3\4\5\6\7\x08x", (), "fingerprint 0807060504030201", "Confluent's"),
        (b"Obj\1\2", (), "an Avro file", "one by one"),
        (b"x", (("apicurio.value.globalId", bytes(8)),), "Apicurio's", "headers.enabled = false"),
        (b"x", (("apicurio.value.contentId", bytes(8)),), "Apicurio's", "headers.enabled = false"),
        (b"x", (("content-type", b"avro/binary+ab12"),), "Azure's", "Confluent's"),
    ],
)
def test_the_frame_of_another_registry_is_named_with_a_remedy(
    value: bytes, headers: Headers, name: str, remedy: str
) -> None:
    message = foreign_frame(value, headers) or ""
    assert name in message
    assert remedy in message


@pytest.mark.parametrize(
    "value", [b"", b"\3\1" + GUID.bytes, b"\3\0short", bytes(8), b"\xc3\1short", b"Object", b"{}"]
)
def test_a_value_that_resembles_another_frame_is_not_named(value: bytes) -> None:
    assert foreign_frame(value, (("content-type", None), ("content-type", b"text/plain"))) is None
