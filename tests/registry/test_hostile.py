"""Hostile bodies and schemas: each is rejected for its reason, in bounded time and memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import DeadLetterReason
from tests.support.schemas import avro_bytes, compiled, record, rejection
from worker.errors import RecordRejected
from worker.registry.avro_guard import DEPTH, AvroGuard
from worker.registry.compile import CompiledSchema

R = DeadLetterReason
SECRET = "tell nobody"
HUGE = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2^63 - 1
NULLS = b"\x80" * 8 + b"\x40"  # 2^61

LONG = b"\xd8\x04" + b"a" * 300  # a text
NODE = record(("text", "string"), ("next", ["null", "Node"]), name="Node")
TREE = record(
    ("text", "string"),
    ("inner", {"type": "map", "values": {"type": "array", "items": "Tree"}}),
    name="Tree",
)
EMPTY = record(name="Empty")
ALL = record(
    ("text", "string"),
    ("bytes", "bytes"),
    ("kind", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}),
    ("four", {"type": "fixed", "name": "Four", "size": 4}),
    ("numbers", {"type": "array", "items": ["null", "int", "long", "float", "double", "boolean"]}),
    ("nulls", {"type": "array", "items": "null"}),
    ("empty", {"type": "map", "values": EMPTY}),
    ("node", NODE),
    name="All",
)
VALUE = {
    "text": SECRET,
    "bytes": SECRET.encode(),
    "kind": "B",
    "four": b"abcd",
    "numbers": [None, 5, 2**40, 0.5, 1e300, True],
    "nulls": [None] * 3,
    "empty": {SECRET: {}},
    "node": {"text": SECRET, "next": {"text": SECRET, "next": None}},
}


def bodies(*fields: tuple[str, Any]) -> CompiledSchema:
    return compiled("AVRO", record(*fields))


@pytest.mark.parametrize(
    ("schema", "body", "problem"),
    [
        (bodies(("a", {"type": "array", "items": "null"})), NULLS, "too many values"),
        (bodies(("a", {"type": "array", "items": EMPTY})), NULLS, "too many values"),
        (bodies(("a", {"type": "array", "items": record(("n", "null"))})), NULLS, "too many"),
        (bodies(("a", {"type": "array", "items": ["null"]})), NULLS + b"\1", "can't be read"),
        (bodies(("a", {"type": "array", "items": "int"})), NULLS + b"\2" * 9, "EOFError"),
        (bodies(("a", {"type": "array", "items": "int"})), b"\x03\x01", "EOFError"),
        (bodies(("a", {"type": "map", "values": "null"})), NULLS + b"\2a" * 9, "EOFError"),
        (bodies(("a", {"type": "map", "values": "null"})), NULLS + b"\0" * 9, "EOFError"),
        (bodies(("a", "string")), HUGE + b"abc", "can't be read"),
        (bodies(("a", "bytes")), HUGE + b"abc", "can't be read"),
        (bodies(("a", "string")), b"\x01abc", "can't be read"),
        (bodies(("a", "string")), b"\x02\xff", "UnicodeDecodeError"),
        (bodies(("a", "long")), b"\xff" * 1000, "can't be read"),
        (bodies(("a", ["null", "int"])), b"\x06", "can't be read"),
        (bodies(("a", {"type": "enum", "name": "K", "symbols": ["A"]})), b"\x06", "can't be"),
        (bodies(("a", {"type": "fixed", "name": "F", "size": 10**10})), b"abc", "can't be"),
        (bodies(("a", {"type": "fixed", "name": "F", "size": 10**30})), b"abc", "can't be"),
        (bodies(("a", "int")), b"", "can't be read"),
        (compiled("AVRO", NODE), b"\x02a\x02" * 500_000, f"nests more than {DEPTH} levels"),
        (compiled("AVRO", TREE), b"\x02a\x02\x02k\x02" * 200_000, f"more than {DEPTH} levels"),
        (compiled("AVRO", NODE), LONG + b"\x01", "an index is -1 of 2"),
        (compiled("AVRO", NODE), LONG + b"\x04", "an index is 2 of 2"),
        (compiled("AVRO", NODE), HUGE + LONG, "bytes should follow byte 10 of 312"),
        (compiled("AVRO", NODE), b"\x03" + LONG, "-2 bytes should follow"),
        (compiled("AVRO", NODE), b"\xff" * 300, "a number at byte 0 of 300 does not end"),
        (compiled("AVRO", NODE), LONG, "a number at byte 302 of 302 does not end"),
        (compiled("AVRO", NODE), b"\x02\xff\x00", "UnicodeDecodeError"),
        (compiled("AVRO", NODE), LONG + b"\x00b", "1 of 304 bytes are left"),
        (compiled("AVRO", TREE), LONG + b"\x01" * 3, "bytes should follow"),
    ],
)
def test_a_hostile_avro_body_is_a_mismatch(
    schema: CompiledSchema, body: bytes, problem: str
) -> None:
    rejected = rejection(schema, body)
    assert rejected.reason == R.SCHEMA_MISMATCH
    assert problem in rejected.message


def test_values_that_nest_deeply_but_within_the_limit_are_read() -> None:
    value: Any = None
    for _ in range(DEPTH):
        value = {"text": "a", "next": value}
    assert compiled("AVRO", NODE).parse(avro_bytes(NODE, value))["next"]["text"] == "a"


def test_blocks_with_their_size_in_bytes_are_read() -> None:
    """Java writes a block as a negative count and its bytes."""
    arrays = compiled("AVRO", record(("a", {"type": "array", "items": "null"})))
    assert arrays.parse(b"\x03\x00\x04\x00") == {"a": [None] * 4}
    tree = compiled("AVRO", TREE)
    leaf = b"\x02b\x00"
    body = b"\x02a" + b"\x01\x0e\x02k" + b"\x01\x06" + leaf + b"\x00" + b"\x00"
    assert tree.parse(body)["inner"] == {"k": [{"text": "b", "inner": {}}]}


def test_types_that_double_at_each_level_are_not_expanded() -> None:
    """A value of no bytes would have 2^60 records."""
    types = {"T0": record(("n", "null"), name="T0")}
    for level in range(1, 61):
        inner = f"T{level - 1}"
        types[f"T{level}"] = record(("a", inner), ("b", inner), name=f"T{level}")
    rejected = rejection(compiled("AVRO", '"T60"', types), b"")
    assert "too many values" in rejected.message
    # Nor if the value would have enough bytes in the end.
    long = record(("many", "T60"), ("end", {"type": "fixed", "name": "End", "size": 10**12}))
    for schema in (long, {"type": "array", "items": long}, ["null", long]):
        assert "too many values" in rejection(compiled("AVRO", schema, types), b"\2" * 9).message


@pytest.mark.parametrize("levels", [101, 3000])
def test_a_schema_that_nests_too_deeply_is_unusable(levels: int) -> None:
    types = {
        f"T{level}": record(("a", f"T{level + 1}"), name=f"T{level}") for level in range(levels)
    }
    nested = '{"type":"array","items":' * levels + '"int"' + "}" * levels
    for schema, references in (('"T0"', types), (nested, {})):
        with pytest.raises(RecordRejected) as caught:
            compiled("AVRO", schema, references)
        assert caught.value.reason == R.UNUSABLE_SCHEMA


def test_types_that_nest_deeply_by_their_names_are_read_with_a_limit() -> None:
    """Each is defined near the top, the last first; a value would nest 1,000 levels."""
    fields: list[tuple[str, Any]] = [("f0", record(("n", "int"), name="T0"))]
    fields += [(f"f{n}", record(("a", f"T{n - 1}"), name=f"T{n}")) for n in range(1, 1000)]
    rejected = rejection(bodies(*fields), b"\2" * 1000)
    assert f"nests more than {DEPTH} levels" in rejected.message


def test_a_long_schema_is_read() -> None:
    """Five megabytes: 50,000 fields of 2,500 types."""
    types = [
        record(
            *((f"field_{n}_{m}_{'x' * 60}", ["null", "string"]) for m in range(20)), name=f"T{n}"
        )
        for n in range(2500)
    ]
    schema = json.dumps(record(("text", "string"), *((f"f{n}", t) for n, t in enumerate(types))))
    assert len(schema) > 5_000_000
    assert compiled("AVRO", schema).parse(b"\x02a" + bytes(50_000))["text"] == "a"


@pytest.mark.parametrize(
    "schema",
    [
        record(("in", "Post")),
        record(("in", record(("out", "Post"), name="In"))),
        record(("null", "null"), ("in", {"type": "array", "items": "Post"})),
        # The name is used before it is defined once more, within itself.
        record(("in", ["null", "Post"]), ("again", record(("a", "null")))),
        # Types that refer to each other, and to one that is defined before.
        record(("a", record(("b", ["null", "Post", "A"]), name="A")), ("c", ["null", "A"])),
    ],
)
@pytest.mark.parametrize("body", [b"\2", b"\4", b"\2\0", b"\1\0", b"\4\2"])
def test_types_that_nest_without_bytes_of_their_own_do_not_end_the_process(
    schema: Any, body: bytes
) -> None:
    nested = compiled("AVRO", schema)
    for times in (1, 20, 100_000):
        assert seen(nested, body * times) in ("read", R.SCHEMA_MISMATCH)


CRASH = """\
import json, resource, sys
from tests.support.schemas import compiled, rejection
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
schema = json.loads(sys.argv[1])
print(rejection(compiled("AVRO", schema), b"\\x02a\\x02" * 300_000).message)
"""


def test_a_list_of_300_000_nodes_does_not_overflow_the_stack_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, json.dumps(NODE)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "nests more than" in done.stdout, done.stderr


def seen(schema: CompiledSchema, body: bytes) -> str:
    """Return the reason of a rejection, or `read`; its message has no text of the record."""
    try:
        schema.parse(body)
    except RecordRejected as caught:
        error = caught
    else:
        return "read"
    assert error.reason in (R.SCHEMA_MISMATCH, R.NOT_AN_OBJECT)
    assert SECRET not in error.message
    return error.reason


EVERY = [compiled("AVRO", schema) for schema in (ALL, NODE, TREE, ["null", ALL, "string"])]
EVERY += [bodies(("a", {"type": "array", "items": ["null", "string"]}), ("b", "boolean"))]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_rejected(body: bytes) -> None:
    for schema in EVERY:
        assert seen(schema, body)


def test_a_damaged_body_is_read_or_rejected() -> None:
    whole = avro_bytes(ALL, VALUE)
    schema = compiled("AVRO", ALL)
    assert schema.parse(whole)["node"]["next"]["text"] == SECRET
    chance = random.Random(20261127)
    fates = set()
    for _ in range(20_000):
        body = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        fates.add(seen(schema, bytes(body[: chance.randrange(len(body) + 1)])))
        fates.add(seen(schema, bytes(body)))
    assert fates == {"read", R.SCHEMA_MISMATCH}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
NODES = st.recursive(
    st.builds(lambda text: {"text": text, "next": None}, TEXTS),
    lambda inner: st.builds(lambda text, next_: {"text": text, "next": next_}, TEXTS, inner),
)


@given(NODES, st.lists(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)), TEXTS)
def test_the_guard_lets_pass_what_a_serializer_writes(
    node: Any, numbers: list[Any], key: str
) -> None:
    value = {**VALUE, "node": node, "numbers": numbers, "empty": {key: {}}}
    body = avro_bytes(ALL, value)
    assert compiled("AVRO", ALL).parse(body) == value


def test_the_guard_reads_to_the_last_byte() -> None:
    body = avro_bytes(NODE, {"text": "a", "next": None})
    guard = AvroGuard(body[:-1], {})
    with pytest.raises(RecordRejected, match="a number at byte 2 of 2"):
        guard.check(NODE)
