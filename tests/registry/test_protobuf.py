"""Protobuf: both forms of a schema, each message in a file, and every kind of field."""

from __future__ import annotations

import base64
import errno
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from schemas import DeadLetterReason
from tests.support.schemas import compiled, rejection
from worker.core.formats.walk import member
from worker.errors import RecordRejected
from worker.registry import protobuf_files
from worker.registry.compile import CompiledSchema
from worker.registry.protobuf_files import file_descriptor
from worker.registry.schema import RegisteredSchema

R = DeadLetterReason
SECRET = "tell nobody"
OTHER = 'syntax = "proto3"; package other; message Author { string name = 1; Author by = 2; }'
POST = """\
syntax = "proto3";
package posts;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "acme/other.proto";
enum Kind { POST = 0; REPLY = 1; }
message First { string text = 1; }
message Post {
  message Part { string text = 1; message Deep { string text = 1; } }
  string text = 1;
  optional string title = 2;
  int64 id = 3;
  other.Author author = 4;
  repeated Part parts = 5;
  map<int32, Part> by_number = 6;
  map<bool, Kind> by_flag = 7;
  Kind kind = 8;
  repeated Kind kinds = 9;
  oneof body { string plain = 10; bytes raw = 11; }
  google.protobuf.Timestamp at = 12;
  google.protobuf.StringValue wrapped = 13;
  repeated string tags = 14;
  double score = 15;
  bool camelCase = 16;
}
"""
REFERENCES = {"acme/other.proto": OTHER}


def described(text: str, references: Mapping[str, str] | None = None) -> str:
    """Return a schema as Confluent's Python serializer registers it."""
    schema = RegisteredSchema("PROTOBUF", text, resolved=references or {})
    return base64.b64encode(file_descriptor(schema).serialized_pb).decode()


def message(index: int = 1, **fields: Any) -> bytes:
    schema = RegisteredSchema("PROTOBUF", POST, resolved=REFERENCES)
    descriptor = list(file_descriptor(schema).message_types_by_name.values())[index]
    return bytes(GetMessageClass(descriptor)(**fields).SerializeToString())


FULL: dict[str, Any] = {
    "text": "a text",
    "id": 2**60,
    "author": {"name": "Ann", "by": {"name": "Bo"}},
    "parts": [{"text": "one"}, {"text": "two"}],
    "by_number": {7: {"text": "seven"}},
    "by_flag": {True: 1},
    "kind": 1,
    "kinds": [0, 1, 5],
    "plain": "plain",
    "at": {"seconds": 5},
    "wrapped": {"value": "wrapped"},
    "tags": ["x", "y"],
    "score": 0.5,
    "camelCase": True,
}


@pytest.fixture(scope="module")
def posts() -> CompiledSchema:
    return compiled("PROTOBUF", POST, REFERENCES)


@pytest.mark.parametrize("own", [POST, "base64"])
@pytest.mark.parametrize("other", [OTHER, "base64"])
def test_text_and_descriptor_are_the_same_schema_also_mixed(own: str, other: str) -> None:
    schema = described(POST, REFERENCES) if own == "base64" else own
    references = {"acme/other.proto": described(OTHER) if other == "base64" else other}
    read = compiled("PROTOBUF", schema, references).parse(b"\2\2" + message(**FULL))
    assert member(read, ("author", "by", "name")) == "Bo"


def test_a_descriptor_that_imports_a_text_that_imports_a_descriptor_is_read() -> None:
    middle = 'syntax = "proto3"; import "acme/other.proto"; message M { other.Author author = 1; }'
    top = 'syntax = "proto3"; import "m.proto"; message T { M m = 1; }'
    texts = {**REFERENCES, "m.proto": middle}
    for schema in (top, described(top, texts)):
        for third in (OTHER, described(OTHER)):
            references = {"acme/other.proto": third, "m.proto": middle}
            read = compiled("PROTOBUF", schema, references).parse(b"\0\x0a\5\x0a\3\x0a\1n")
            assert member(read, ("m", "author", "name")) == "n"


def test_a_set_of_descriptors_is_read() -> None:
    files = FileDescriptorSet()
    schema = RegisteredSchema("PROTOBUF", POST, resolved=REFERENCES)
    descriptor = file_descriptor(schema)
    for file in (*descriptor.dependencies, descriptor):
        file.CopyToProto(files.file.add())
    encoded = base64.encodebytes(files.SerializeToString()).decode()
    read = compiled("PROTOBUF", encoded).parse(b"\2\2" + message(**FULL))
    assert member(read, ("author", "name")) == "Ann"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text", "a text"),
        ("id", 2**60),
        ("author.by.name", "Bo"),
        ("parts.1.text", "two"),
        ("by_number.7.text", "seven"),
        ("by_flag.true", "REPLY"),
        ("kind", "REPLY"),
        ("kinds", ["POST", "REPLY", 5]),
        ("plain", "plain"),
        ("at.seconds", 5),
        ("wrapped.value", "wrapped"),
        ("tags.1", "y"),
        ("score", 0.5),
        ("camelCase", True),
        # Not set: null if the schema can tell, or else the type's default.
        ("title", None),
        ("raw", None),
        ("author.by.by", None),
    ],
)
def test_every_kind_of_field_is_read(posts: CompiledSchema, path: str, value: Any) -> None:
    assert member(posts.parse(b"\2\2" + message(**FULL)), tuple(path.split("."))) == value


def test_a_text_that_is_not_set_is_empty(posts: CompiledSchema) -> None:
    read = posts.parse(b"\2\2")
    assert (read["text"], read["parts"], read["by_flag"], read["kind"]) == ("", [], {}, "POST")
    assert {name: read[name] for name in ("title", "author", "at")} == dict.fromkeys(
        ("title", "author", "at")
    )
    assert len(read) == len(list(read)) == 16
    assert "camel_case" not in read


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("author.by", ["name", "by"]),
        ("parts", ["text"]),
        ("parts.0", ["text"]),
        ("by_number", []),  # its keys are data
        ("by_number.7", ["text"]),
        ("by_flag.true", []),
        ("text", []),
        ("at", ["seconds", "nanos"]),
        ("nothing.at.all", []),
    ],
)
def test_the_names_of_fields_are_found(posts: CompiledSchema, path: str, names: list[str]) -> None:
    read = posts.parse(b"\2\2" + message(**FULL))
    assert posts.fields(read, tuple(path.split("."))) == names
    assert list(posts.fields(read, ()))[:3] == ["text", "title", "id"]


@pytest.mark.parametrize(
    ("indexes", "field"),
    [
        (b"\0", "text"),  # the shorthand of the first message
        (b"\2\0", "text"),
        (b"\4\2\0", "text"),  # Post.Part
        (b"\6\2\0\0", "text"),  # Post.Part.Deep
        (b"\2\2", "plain"),
    ],
)
def test_the_indexes_choose_the_message(posts: CompiledSchema, indexes: bytes, field: str) -> None:
    number = {"text": 1, "plain": 10}[field]
    body = indexes + bytes((number << 3 | 2, 3)) + b"abc"
    for _ in range(2):  # the second time, its class is there
        assert posts.parse(body)[field] == "abc"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "can't be read"),
        (b"\x80", "can't be read"),
        (b"\xff" * 9, "can't be read"),
        (b"\1", "number -1"),
        (b"\x42" + b"\0" * 33, "number 33"),
        (b"\4\2", "can't be read"),
        (b"\2\4", "no message 2"),
        (b"\2\3", "no message -2"),
        (b"\4\2\x12", "no message 1.9"),
        (b"\0\x0a\x05abc", "Protobuf can't be read"),
        (b"\0\x0a\x02\xff\xff", "Protobuf can't be read"),
        (b"\0\x0a" + b"\xff" * 4 + b"\x0f", "Protobuf can't be read"),
        (b"\0" + b"\xff" * 100, "Protobuf can't be read"),
        (b"\0" + b"\x0b" * 100_000, "Protobuf can't be read"),
    ],
)
def test_a_body_that_does_not_match_is_rejected(
    posts: CompiledSchema, body: bytes, problem: str
) -> None:
    rejected = rejection(posts, body)
    assert rejected.reason == R.SCHEMA_MISMATCH
    assert problem in rejected.message


def test_messages_that_nest_deeply_are_rejected() -> None:
    author = compiled("PROTOBUF", OTHER)
    body = b""
    for _ in range(50_000):
        size, length = len(body), b""
        while size > 0x7F:
            size, length = size >> 7, length + bytes((size & 0x7F | 0x80,))
        body = b"\x12" + length + bytes((size,)) + body
        if len(body) > 200_000:
            break
    assert rejection(author, b"\0" + body).reason == R.SCHEMA_MISMATCH


def test_a_text_of_proto2_that_is_no_utf8_is_not_a_string() -> None:
    schema = compiled("PROTOBUF", 'syntax = "proto2"; message A { optional string text = 1; }')
    assert not isinstance(schema.parse(b"\0\x0a\2\xff\xff")["text"], str)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_rejected(body: bytes) -> None:
    try:
        read = EVERY.parse(body)
    except RecordRejected as caught:
        error: RecordRejected | None = caught
    else:
        error = None
        assert isinstance({name: read[name] for name in read}, dict)
    assert error is None or error.reason == R.SCHEMA_MISMATCH


EVERY = compiled("PROTOBUF", POST, REFERENCES)


@pytest.mark.parametrize(
    ("schema", "references", "problem"),
    [
        ("", {}, "no message"),
        ("   ", {}, "no message"),
        ('syntax = "proto3"; enum E { A = 0; }', {}, "no message"),
        ("no proto, and no base64", {}, "Expected top-level statement"),
        ('syntax = "proto3"; message A { string text = 1; ', {}, "Reached end of input"),
        (POST, {}, "acme/other.proto"),
        ('syntax = "proto3"; import "/etc/passwd"; message A {}', {}, "/etc/passwd"),
        ('syntax = "proto3"; import "../errors"; message A {}', {}, "../errors"),
        ("\ud800", {}, "UTF-8"),
        ("message A {", {"../x.proto": OTHER}, "'../x.proto' can't be the name"),
        ("message A {", {"/x.proto": OTHER}, "can't be the name"),
        ("message A {", {"--version": OTHER}, "can't be the name"),
        ("message A {", {"@x": OTHER}, "can't be the name"),
        ("message A {", {"\0": OTHER}, "can't be the name"),
        ("message A {", {"x" * 300: OTHER}, "can't be the name"),
        ("message A {", {"a": OTHER, "a/b": OTHER}, "can't be the name"),
        ("message A {", {"a/b": OTHER, "a": OTHER}, "can't be the name"),
        ("AAAA", {}, "no file descriptor"),
        ("CgFhIgA=", {}, "Protobuf: "),  # a message without a name
        ("bm9uZQ==", {}, "no file descriptor"),
        (described(POST, REFERENCES), {}, "acme/other.proto"),
        (base64.b64encode(FileDescriptorProto(name="a").SerializeToString()).decode(), {}, "no"),
    ],
)
def test_a_schema_that_is_none_is_unusable(
    schema: str, references: dict[str, str], problem: str
) -> None:
    with pytest.raises(RecordRejected) as caught:
        compiled("PROTOBUF", schema, references)
    assert caught.value.reason == R.UNUSABLE_SCHEMA
    assert problem in caught.value.message


def test_the_files_that_serializers_know_need_no_reference() -> None:
    text = """\
syntax = "proto3";
import "confluent/meta.proto";
import "confluent/types/decimal.proto";
import "confluent/type/variant.proto";
import "google/type/money.proto";
import "google/protobuf/api.proto";
message A {
  string text = 1 [(confluent.field_meta) = { tags: "PII" }];
  confluent.type.Decimal price = 2;
  confluent.type.Variant more = 3;
  google.type.Money money = 4;
  google.protobuf.Api api = 5;
}
"""
    for schema in (text, described(text)):
        assert compiled("PROTOBUF", schema).parse(b"\0\x0a\1a")["text"] == "a"


def test_a_descriptor_without_the_files_of_google_is_unusable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = 'syntax = "proto3"; import "google/type/money.proto"; message A {}'
    schema = described(text)
    monkeypatch.setitem(sys.modules, "google.type.money_pb2", None)
    with pytest.raises(RecordRejected, match=r"google/type/money\.proto"):
        compiled("PROTOBUF", schema)


@pytest.mark.parametrize(
    "text",
    [
        'syntax="proto3"; ' + "message M {" * 20_000 + "}" * 20_000,
        'syntax="proto3"; option foo = ' + "{a:" * 20_000 + "1" + "}" * 20_000 + ";",
        'syntax="proto2"; message A { optional int32 a = 1 [default = ' + "-" * 100_000 + "1]; }",
        'syntax="proto3"; message A { string a = 1; } /*' + "*" * 1_000_000,
    ],
)
def test_a_hostile_text_is_unusable_and_nothing_is_printed(
    text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecordRejected) as caught:
        compiled("PROTOBUF", text)
    assert caught.value.reason == R.UNUSABLE_SCHEMA
    assert len(caught.value.message) < 400
    assert capfd.readouterr() == ("", "")


def test_a_machine_that_is_too_slow_for_protoc_is_no_fault_of_the_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A schema that is too much for it ends at its limit of CPU time."""
    monkeypatch.setattr(protobuf_files, "_PROTOC", "import time; time.sleep(60)")
    monkeypatch.setattr(protobuf_files, "_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="took more than"):
        compiled("PROTOBUF", OTHER)


def test_protoc_killed_for_want_of_memory_is_no_fault_of_the_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protobuf_files, "_PROTOC", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(OSError, match="out of memory"):
        compiled("PROTOBUF", OTHER)


def test_a_full_disk_is_no_fault_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had no room for the output of protoc."""
    monkeypatch.setattr(protobuf_files, "_PROTOC", "import sys; sys.exit(1)")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "room":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        compiled("PROTOBUF", OTHER)


def test_a_missing_temporary_folder_is_no_fault_of_the_schema(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        compiled("PROTOBUF", OTHER)


def test_a_name_that_a_disk_does_not_take_is_the_fault_of_the_schema() -> None:
    with pytest.raises(RecordRejected, match="can't be the name of a file"):
        compiled("PROTOBUF", 'syntax = "proto3"; import "x";', {"ä" * 200: OTHER})


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGXCPU])
def test_a_text_that_kills_protoc_is_unusable(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Also by its limit of CPU time."""
    kill = f"import os; os.kill(os.getpid(), {number:d})"
    monkeypatch.setattr(protobuf_files, "_PROTOC", kill)
    with pytest.raises(RecordRejected, match=f"protoc ended with -{number:d}"):
        compiled("PROTOBUF", OTHER)


def test_protoc_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compiled("PROTOBUF", OTHER)
    with pytest.raises(RecordRejected):
        compiled("PROTOBUF", "message")
    assert list(tmp_path.iterdir()) == []
