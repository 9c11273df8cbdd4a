"""The bounds of Avro schemas hold for any bytes, whole and cut."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.schemas import record
from worker.errors import RecordRejected
from worker.registry.avro_guard import AvroGuard
from worker.registry.avro_types import VALUES_PER_BYTE, Reduced, Reducer
from worker.registry.schema import RegisteredSchema

SCHEMAS = 1_000
BODIES = 10  # for each


class Measure(AvroGuard):
    """A walk that counts values and levels."""

    def __init__(self, body: bytes, types: Any) -> None:
        super().__init__(body, types)
        self.deepest = self.count = 0

    def _value(self, schema: Any, level: int) -> None:
        self.deepest, self.count = max(self.deepest, level), self.count + 1
        super()._value(schema, level)


class Drawn:
    """Draws schemas; types may be used again, and within themselves."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._names: list[str] = []

    def root(self) -> tuple[Reduced, dict[str, Any]]:
        self._names = []
        reducer = Reducer(RegisteredSchema("AVRO", json.dumps(self._record(0))))
        return reducer.root(), reducer.types

    def body(self) -> bytes:
        return bytes(self.chance.choices(b"\0\1\2\2\2\3\4\x08", k=self.chance.randrange(40)))

    def _record(self, level: int) -> dict[str, Any]:
        name = f"N{len(self._names)}"
        self._names.append(name)
        fields = [(f"f{n}", self._type(level + 1)) for n in range(self.chance.randrange(5))]
        return record(*fields, name=name)

    def _type(self, level: int) -> Any:
        choose, names = self.chance.choice, self._names
        makers: list[Callable[[], Any]] = [
            lambda: choose(("null", "null", "int", "string", "boolean")),
            lambda: choose(("null", "int", "bytes")),
            lambda: choose(names),
            lambda: ["null", choose(names)],
            lambda: {"type": "array", "items": self._type(level + 1)},
            lambda: {"type": "map", "values": self._type(level + 1)},
            lambda: ["int", self._record(level)],
            lambda: self._record(level),
            self._fixed,
        ]
        return choose(makers if level < 5 else makers[:4])()

    def _fixed(self) -> dict[str, Any]:
        self._names.append(name := f"N{len(self._names)}")
        return {"type": "fixed", "name": name, "size": self.chance.randrange(12)}


@pytest.mark.parametrize("seed", [20261127])
def test_no_body_has_more_values_or_levels_than_its_schema_says(seed: int) -> None:
    drawn, closest = Drawn(seed), -math.inf
    for _ in range(SCHEMAS):
        root, types = drawn.root()
        for _ in range(BODIES):
            walk = Measure(drawn.body(), types)
            try:
                walk.check(root.schema)
                most = VALUES_PER_BYTE * walk._at + root.slack
            except RecordRejected:
                most = VALUES_PER_BYTE * len(walk._body) + root.peak
            assert walk.count <= most
            assert walk.deepest < root.depth
            closest = max(closest, walk.count - most)
    assert closest == 0  # no bound is wider than it has to be


def test_only_a_type_within_itself_has_no_bounds() -> None:
    drawn = Drawn(7)
    roots = [drawn.root()[0] for _ in range(500)]
    assert {math.isinf(root.depth) for root in roots} == {True, False}
    assert all(math.isinf(root.peak) for root in roots if math.isinf(root.depth))
