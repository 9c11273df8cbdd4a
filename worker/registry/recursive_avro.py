"""Unrolls an Avro record that contains itself by one level.

A field that is added to such a record would be in each record within it too, whose bytes do not
have it. So the records within become a type of their own, which has the fields as they were.

The bytes of a value do not change, as Avro encodes no names. The inner type keeps its name, in
another namespace: a reader with the writer's own schema finds it by that
(https://avro.apache.org/docs/1.12.0/specification/#schema-resolution).

Owns: the name of the inner type.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Final

from worker.registry.subjects import full_name

_NAMED: Final = ("record", "error", "enum", "fixed")
_PARTS: Final = ("type", "items", "values", "fields")


def definitions(schema: Any, namespace: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the types that a schema defines, by their full names."""
    for node, space in _nodes(schema, namespace):
        if isinstance(node, dict) and node.get("type") in _NAMED:
            yield full_name(node, space), node


def unrolled(root: dict[str, Any]) -> dict[str, Any]:
    """Return a record that does not contain itself, with the same encoding."""
    name = full_name(root, "")
    used = (_full(node, space) for node, space in _nodes(root, "") if isinstance(node, str))
    return _Unrolling(root, name).root if name in used else root


class _Unrolling:
    """Writes each type at its first use, and those within the root under another name."""

    def __init__(self, root: dict[str, Any], name: str) -> None:
        self._types = dict(definitions(root))
        self._outer, self._inner = name, _inner_name(name, self._types)
        self._written: set[str] = set()
        self.root = {**root, "fields": self._fields(root, name)}

    def _type(self, node: Any, namespace: str) -> Any:
        if isinstance(node, list):
            return [self._type(each, namespace) for each in node]
        if isinstance(node, str):
            full = _full(node, namespace)
            return self._named(full) if full in self._types else node
        kind = node["type"]
        if kind in _NAMED:
            return self._named(full_name(node, namespace))
        if not isinstance(kind, str) or _full(kind, namespace) in self._types:
            return self._type(kind, namespace)
        inner = {part: self._type(node[part], namespace) for part in _PARTS[1:3] if part in node}
        return {**node, **inner}

    def _named(self, full: str) -> Any:
        target = self._inner if full == self._outer else full
        if full in self._written:
            return target
        self._written.add(full)
        namespace, _, name = target.rpartition(".")
        definition = {**self._types[full], "name": name, "namespace": namespace}
        if full == self._outer:
            definition.pop("aliases", None)  # the outer type has them
        if "fields" in definition:
            definition["fields"] = self._fields(definition, full)
        return definition

    def _fields(self, definition: dict[str, Any], full: str) -> list[dict[str, Any]]:
        namespace = full.rpartition(".")[0]
        return [
            {**field, "type": self._type(field["type"], namespace)}
            for field in definition["fields"]
        ]


def _inner_name(outer: str, types: Container[str]) -> str:
    """Return a name that no type has."""
    namespace, _, name = outer.rpartition(".")
    # A type in a namespace can't name one without: without one, the name itself differs.
    inner = f"{namespace}.original.{name}" if namespace else f"{name}_original"
    while inner in types:
        inner += "_"
    return inner


def _nodes(schema: Any, namespace: str) -> Iterator[tuple[Any, str]]:
    """Yield the parts of a schema that are types, with the namespace around each."""
    nodes = [(schema, namespace)]
    while nodes:
        node, space = nodes.pop()
        yield node, space
        if isinstance(node, list):
            nodes += [(each, space) for each in node]
        elif isinstance(node, dict):
            if node.get("type") in _NAMED:
                space = full_name(node, space).rpartition(".")[0]
            nodes += [(node[part], space) for part in _PARTS if part in node]


def _full(name: str, namespace: str) -> str:
    return full_name({"name": name}, namespace)
