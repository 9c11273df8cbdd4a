"""JSON Schema: reads bodies as JSON objects. The producer's serializer validated them.

Owns: nothing.
Thread: `JsonSchema` is built on registry, and reads on poll.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.dead_letter import DeadLetterReason
from worker.core.formats.plain_json import parse_object
from worker.errors import RecordRejected
from worker.registry.rejections import mismatch, unusable
from worker.registry.schema import RegisteredSchema, SchemaType

_SCHEMAS: Final = 100  # that are searched for names at a step


class JsonSchema:
    """A compiled schema.

    Args:
        schema: a JSON Schema. Only its names are used.

    Raises:
        RecordRejected: it is no JSON Schema (`unusable_schema`).
    """

    type: SchemaType = "JSON"

    def __init__(self, schema: RegisteredSchema) -> None:
        try:
            self._schema = json.loads(schema.text)
        except (ValueError, RecursionError) as error:
            raise unusable(f"no JSON Schema: not JSON ({type(error).__name__})") from None
        if not isinstance(self._schema, dict | bool):
            raise unusable("no JSON Schema: neither an object nor a boolean")

    def parse(self, body: bytes) -> Mapping[str, Any]:
        """Return an object; raise RecordRejected for anything else."""
        try:
            return parse_object(body)
        except RecordRejected as error:
            if error.reason == DeadLetterReason.NOT_AN_OBJECT:
                raise
            raise mismatch(error.message) from None

    def fields(self, payload: Any, path: tuple[str, ...]) -> Sequence[str]:  # noqa: ARG002
        """Return the names of the properties at a path."""
        schemas = [self._schema]
        for step in path:
            schemas = [inner for schema in self._branches(schemas) for inner in _step(schema, step)]
        names = [name for schema in self._branches(schemas) for name in _properties(schema)]
        return list(dict.fromkeys(names))

    def _branches(self, schemas: list[Any]) -> Iterator[dict[str, Any]]:
        """Yield the schemas and those that they combine or refer to in the same document."""
        queue = list(schemas)
        for schema in queue:
            if not isinstance(schema, dict):
                continue
            yield schema
            inner = [self._referred(schema.get("$ref"))]
            for combined in ("oneOf", "anyOf", "allOf"):
                branches = schema.get(combined)
                inner += branches if isinstance(branches, list) else []
            queue += inner[: max(_SCHEMAS - len(queue), 0)]

    def _referred(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        node: Any = self._schema
        for step in reference[1:].split("/")[1:]:
            node = node.get(step) if isinstance(node, dict) else None
        return node


def _step(schema: dict[str, Any], step: str) -> list[Any]:
    items = [schema.get("items")] if step.isdigit() else []
    return [_properties(schema).get(step), *items]


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}
