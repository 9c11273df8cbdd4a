"""Protobuf's wire format: bodies whose messages would fill the memory are rejected."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from schemas import DeadLetterReason
from tests.support.schemas import compiled, rejection
from worker.registry import protobuf_wire
from worker.registry.protobuf_files import file_descriptor
from worker.registry.protobuf_wire import check_memory, memory_per_byte
from worker.registry.schema import RegisteredSchema

WIDE = (
    'syntax = "proto3"; message Rows { repeated Row rows = 1; string text = 2; } message Row { '
    + " ".join(f"double f{number} = {number};" for number in range(1, 1001))
    + "}"
)
KINDS = """\
syntax = "proto2";
message Kinds {
  optional int32 varint = 1;
  optional fixed64 eight = 2;
  optional fixed32 four = 3;
  optional string text = 4;
  repeated Kinds inner = 5;
  repeated group Part = 6 { optional Kinds kinds = 1; }
  map<string, Kinds> by_name = 7;
}
"""


def descriptor(text: str) -> Any:
    file = file_descriptor(RegisteredSchema("PROTOBUF", text))
    return next(iter(file.message_types_by_name.values()))


def test_few_bytes_with_messages_of_gigabytes_are_rejected() -> None:
    rows = compiled("PROTOBUF", WIDE)
    rejected = rejection(rows, b"\0" + b"\x0a\0" * 200_000)
    assert rejected.reason == DeadLetterReason.SCHEMA_MISMATCH
    assert "its messages would take more than 256 MiB" in rejected.message


def test_large_bodies_of_wide_messages_are_read() -> None:
    body = b"\0" + b"\x0a\0" * 5_000 + b"\x12\xa0\x8d\x06" + b"a" * 100_000
    read = compiled("PROTOBUF", WIDE).parse(body)
    assert (len(read["rows"]), read["text"]) == (5_000, "a" * 100_000)


def test_the_widest_message_counts() -> None:
    assert memory_per_byte(descriptor(WIDE)) == 16 * 1001 // 2
    assert memory_per_byte(descriptor(KINDS)) == 16 * 8 // 2


def test_messages_of_every_wire_type_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = descriptor(KINDS)
    message = GetMessageClass(kinds)(
        varint=-1,
        eight=5,
        four=5,
        text="text",
        inner=[{}, {"inner": [{"text": "deeper"}]}],
        by_name={"a": {"varint": 1}},
    )
    message.part.add().kinds.text = "in a group"
    body = b"unused" + message.SerializeToString()
    body += b"\x43\x08\x01\x4b\x4c\x44\x4a\x02ab"  # groups and a text of unknown numbers
    body += b"\x20\x05"  # the text as a number
    counted = list(protobuf_wire._messages(kinds, body, 6))
    assert len(counted) == 3 + 2 + 2  # inner, the group and its message, the map's entry
    exact = sum(map(protobuf_wire._memory, counted))
    monkeypatch.setattr(protobuf_wire, "MOST_BYTES", exact)
    check_memory(kinds, body, 6)
    monkeypatch.setattr(protobuf_wire, "MOST_BYTES", exact - 1)
    with pytest.raises(Exception, match="its messages would take"):
        check_memory(kinds, body, 6)


@pytest.mark.parametrize(
    "body", [b"\x80", b"\x80" * 20, b"\x0f", b"\x2a\x7f\x08", b"\x2a", b"\x64"]
)
def test_a_body_that_is_cut_is_left_to_the_runtime(body: bytes) -> None:
    check_memory(descriptor(KINDS), body, 0)


def test_a_body_that_nests_too_deeply_is_left_to_the_runtime() -> None:
    kinds = descriptor(KINDS)
    body = b"\x2a\xff\xff\x3f" * 250_000  # each message would end a megabyte later
    assert len(list(protobuf_wire._messages(kinds, body, 0))) == 100


MEMORY = """\
import resource
from tests.registry.test_protobuf_wire import WIDE
from tests.support.schemas import compiled, rejection
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(rejection(compiled("PROTOBUF", WIDE), b"\\0" + b"\\x0a\\0" * 450_000).message)
"""


def test_a_process_of_one_gigabyte_survives_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=False
    )
    assert "its messages would take" in done.stdout, done.stderr
