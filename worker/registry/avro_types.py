"""Reduces an Avro schema to what a reader needs, and finds bounds of what its bodies hold.

A reader of the writer's schema needs no defaults, logical types, aliases, and of names only those
of fields. Without the rest, a wrong default or a date in the year 10,000 does no harm. A type is
defined at its first use, whether its text is in the schema or in one that the schema refers to.

A body of few bytes can hold very many values (an array of a type without bytes, such as null), or
nest deeply (a type that contains itself). `Reduced` has bounds for both.

Owns: the bounds.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

from worker.core.visible import excerpt
from worker.registry.rejections import unusable
from worker.registry.schema import RegisteredSchema

VALUES_PER_BYTE: Final = 8  # in usual schemas, each value has a byte or more
SLACK: Final = 100_000  # values that a body may have in addition
_LEAST_BYTES: Final = {
    **dict.fromkeys(("boolean", "int", "long", "bytes", "string"), 1),
    "null": 0,
    "float": 4,
    "double": 8,
}
_NESTING: Final = 100  # levels of a schema
_NAMED: Final = ("record", "error", "enum", "fixed")
_INNER: Final = {"array": "items", "map": "values"}
_MANY: Final = 1e9

_Type = TypeVar("_Type")


class Reduced(NamedTuple):
    """A reduced schema, and bounds of its values. They are infinite for a type within itself.

    A reader makes at most `VALUES_PER_BYTE * n` values of n bytes, and some more: `slack` if the
    bytes are a whole value, and `peak` if they are its beginning. A negative slack makes up for
    more values elsewhere. Both are infinite above `SLACK`.

    Attributes:
        schema: for fastavro.
        depth: most levels of a value.
    """

    schema: Any
    slack: float
    peak: float
    depth: float


def _leaf(schema: Any, least_bytes: int) -> Reduced:
    return Reduced(schema, _bounded(1 - VALUES_PER_BYTE * least_bytes), 1, 1)


class Reducer:
    """Reduces one schema.

    Attributes:
        types: the reduced named types, by the names that they get here.
        symbols: of enums, by the same names. Those in `types` stand for them: a producer's may be
            no Avro names, which a reader need not mind.

    Raises:
        RecordRejected: the text is not JSON (`unusable_schema`).
    """

    def __init__(self, schema: RegisteredSchema) -> None:
        self.types: dict[str, Any] = {}
        self.symbols: dict[str, list[str]] = {}
        self._reduced: dict[str, Reduced] = {}
        self._done: dict[int, Reduced] = {}  # by the identity of the definition
        self._definitions: dict[str, tuple[Any, str]] = {}
        self._trees = [_parsed(text) for text in (*schema.resolved.values(), schema.text)]

    def root(self) -> Reduced:
        """Return the reduced schema; raise RecordRejected if it is none."""
        try:
            for tree in self._trees:
                self._definitions.update(_definitions(tree))
            return self._reduce(self._trees[-1], "", 0)
        except KeyError as error:
            raise unusable(f"no Avro schema: a type lacks {error}") from None
        except (TypeError, AttributeError):
            raise unusable("no Avro schema: a value has the wrong JSON type") from None

    def _reduce(self, schema: Any, namespace: str, level: int) -> Reduced:
        if level > _NESTING:
            raise unusable(f"it nests more than {_NESTING} levels")
        if isinstance(schema, str):
            return self._named(schema, namespace, level)
        if isinstance(schema, list):
            return _union([self._reduce(branch, namespace, level + 1) for branch in schema])
        kind = schema["type"]
        if not isinstance(kind, str):
            return self._reduce(kind, namespace, level + 1)
        if kind in _NAMED:
            return self._define(schema, namespace, level)
        if inner := _INNER.get(kind):
            return _repeated(kind, inner, self._reduce(schema[inner], namespace, level + 1))
        return self._named(kind, namespace, level)

    def _named(self, name: str, namespace: str, level: int) -> Reduced:
        if name in _LEAST_BYTES:
            return _leaf(name, _LEAST_BYTES[name])
        for full in (_full_name(name, namespace), name):
            if full in self._reduced:
                return self._reduced[full]
            if full in self._definitions:
                return self._define(*self._definitions[full], level)
        raise unusable(f"its type {excerpt(name, 80)!r} is unknown; is a reference missing?")

    def _define(self, schema: Any, namespace: str, level: int) -> Reduced:
        if id(schema) in self._done:  # defined here, and used before
            return self._done[id(schema)]
        name, own = _name(schema, namespace), f"T{len(self.types)}"
        definition = self.types[own] = {"type": schema["type"], "name": own}
        if schema["type"] == "enum":
            self.symbols[own] = [_typed(str, one) for one in _typed(list, schema["symbols"])]
            definition["symbols"] = [f"S{number}" for number in range(len(self.symbols[own]))]
            reduced = _leaf(definition, 1)
        elif schema["type"] == "fixed":
            definition["size"] = size = max(_typed(int, schema["size"]), 0)
            reduced = _leaf(definition, size)
        else:
            reduced = self._record(definition, schema["fields"], name, level)
        self._reduced[name] = self._done[id(schema)] = reduced._replace(schema=own)
        return reduced

    def _record(self, definition: Any, fields: Any, name: str, level: int) -> Reduced:
        self._reduced[name] = Reduced(definition["name"], math.inf, math.inf, math.inf)
        definition["fields"] = []
        slack = peak = 1.0
        depth = 0.0
        for field in fields:
            inner = self._reduce(field["type"], name.rpartition(".")[0], level + 1)
            definition["fields"].append({"name": _typed(str, field["name"]), "type": inner.schema})
            peak = _bounded(max(peak, slack + inner.peak))
            slack = _bounded(slack + inner.slack)
            depth = max(depth, inner.depth)
        return Reduced(definition, slack, peak, depth + 1)


def _union(branches: list[Reduced]) -> Reduced:
    if not branches:
        raise unusable("it has a union without types")
    slack = max(branch.slack for branch in branches) - VALUES_PER_BYTE  # of its index
    peak = max(branch.peak for branch in branches)
    depth = max(branch.depth for branch in branches)
    return Reduced([branch.schema for branch in branches], _bounded(slack), peak, depth)


def _repeated(kind: str, inner: str, item: Reduced) -> Reduced:
    """Return an array or a map. Its end takes a byte, and so does a key."""
    each = item.slack - (VALUES_PER_BYTE if kind == "map" else 0)
    slack = 1.0 - VALUES_PER_BYTE if each <= 0 else math.inf
    peak = max(slack, 1 + item.peak)
    return Reduced({"type": kind, inner: item.schema}, slack, peak, item.depth + 1)


def _bounded(slack: float) -> float:
    return math.inf if slack > SLACK else max(slack, -_MANY)  # sums of such numbers are exact


def _typed(type_: type[_Type], value: Any) -> _Type:
    if not isinstance(value, type_):
        raise TypeError
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unusable(f"no Avro schema: not JSON ({type(error).__name__})") from None


def _definitions(tree: Any) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield the named types of a schema, and the namespaces around them."""
    stack = [(tree, "")]
    while stack:
        schema, namespace = stack.pop()
        if isinstance(schema, list):
            stack.extend((branch, namespace) for branch in reversed(schema))
        elif isinstance(schema, dict):
            inside = namespace
            if schema.get("type") in _NAMED and isinstance(schema.get("name"), str):
                name = _name(schema, namespace)
                inside = name.rpartition(".")[0]
                yield name, (schema, namespace)
            parts = (schema.get(part) for part in ("type", "items", "values", "fields"))
            stack.extend((part, inside) for part in parts if isinstance(part, list | dict))


def _name(schema: Any, namespace: str) -> str:
    return _full_name(schema["name"], schema.get("namespace", namespace) or "")


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
