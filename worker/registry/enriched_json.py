"""Adds the result to a JSON Schema, as one more property of its objects.

A schema may be closed: `additionalProperties` refuses members that it does not name. So may be each
schema that it applies to the same object (`allOf`, `if`, `$ref` ...). Each of them gets the
property, so that it accepts an object with a result if it accepted the object. It is not required:
a schema may refer to itself, and objects within the object have no result.

https://json-schema.org/draft/2020-12/json-schema-core#section-10

Owns: the reasons for which a JSON Schema can't be enriched.
Thread: registry; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from schemas.dead_letter import DeadLetterReason
from schemas.forms import PLAIN, ResultForm
from worker.core.visible import excerpt
from worker.errors import RecordRejected
from worker.registry.schema import RegisteredSchema

# Confluent's registry reads a schema without `$schema` so; others refuse it.
_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
_SCHEMAS: Final = ("not", "if", "then", "else")
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_BY_NAME: Final = ("dependentSchemas", "dependencies")
_CLOSING: Final = ("additionalProperties", "unevaluatedProperties")
# They look at the whole object, or apply a schema that can't be found by its text.
_UNCHANGEABLE: Final = (
    "propertyNames",
    "maxProperties",
    "const",
    "enum",
    "$dynamicRef",
    "$recursiveRef",
)


def enriched_json(schema: RegisteredSchema, form: ResultForm = PLAIN) -> str:
    """Return the text of the schema with the result as a property.

    Raises:
        RecordRejected: its objects can't have such a property.
    """
    root = json.loads(schema.text)
    types = root.get("type", "object") if isinstance(root, dict) else ()
    if "object" not in ([types] if isinstance(types, str) else types):
        raise _refused("its root is not an object, and only an object has a place for the result")
    _Opening(root, schema.resolved, form).open(root)
    return json.dumps({"$schema": _DIALECT, **root}, separators=(",", ":"))


class _Opening:
    """Lets a schema, and those that it applies to the same object, accept the result."""

    def __init__(self, root: dict[str, Any], resolved: Mapping[str, str], form: ResultForm) -> None:
        self._root, self._resolved = root, resolved
        self._member, self._result = form.member, _result(form)
        self._seen: set[int] = set()
        self._others: dict[str, Any] = {}  # kept, because `_seen` has their parts' ids

    def open(self, root: dict[str, Any]) -> None:
        self._open(root, root, described=True)

    def _open(self, node: Any, document: Any, *, described: bool = False) -> None:
        """Open one schema.

        Args:
            node: the schema, not necessarily an object.
            document: that it is part of.
            described: whether it says what the property is, and not only that there may be one.
        """
        if not isinstance(node, dict) or id(node) in self._seen:
            return
        self._seen.add(id(node))
        if blocking := next(_blocking(node, self._member), None):
            raise _refused(f"it has {blocking!r} for the object that the result is added to")
        if document is self._root and described:
            node.setdefault("properties", {})[self._member] = self._result
        elif _is_closed(node, self._member):
            if document is not self._root:
                raise _refused("a schema that it refers to refuses further members")
            node.setdefault("properties", {})[self._member] = {}
        for part in _applied(node):
            self._open(part, document)
        if isinstance(reference := node.get("$ref"), str):
            # In older dialects, `$ref` is all that counts of a schema.
            self._open(*self._found(reference, document), described=described)

    def _found(self, reference: str, document: Any) -> tuple[Any, Any]:
        """Return a schema by its reference, and the document that it is in."""
        name, _, pointer = reference.partition("#")
        if name and name != _id(document):
            document = self._other(name, reference)
        node = document
        try:
            for step in unquote(pointer).split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901
                node = node[int(step) if isinstance(node, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise _refused(f"its $ref {excerpt(reference, 100)!r} is not found") from None
        if pointer[:1] not in ("", "/"):
            raise _refused(f"its $ref {excerpt(reference, 100)!r} is not a path")
        return node, document

    def _other(self, name: str, reference: str) -> Any:
        text = self._resolved.get(reference) or self._resolved.get(name)
        if text is None:
            raise _refused(f"its $ref {excerpt(reference, 100)!r} is not found")
        return self._others.setdefault(text, json.loads(text))


def _blocking(node: Mapping[str, Any], member: str) -> Iterator[str]:
    """Yield the keywords that may refuse the object only because it has the result."""
    yield from (name for name in _UNCHANGEABLE if name in node)
    for pattern in node.get("patternProperties", ()):
        try:
            matches = re.search(pattern, member)
        except re.error:
            matches = None  # not Python's syntax, and no plain word
        if matches:
            yield f"patternProperties {excerpt(pattern, 60)}"


def _id(document: Mapping[str, Any]) -> str:
    return str(document.get("$id") or document.get("id") or "").rstrip("#")


def _is_closed(node: Mapping[str, Any], member: str) -> bool:
    closed = any(node.get(name, True) is not True for name in _CLOSING)
    return closed or member in node.get("properties", ())


def _applied(node: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas that a schema applies to the same object."""
    yield from (node[name] for name in _SCHEMAS if name in node)
    for name in _LISTS:
        yield from node.get(name, ())
    for name in _BY_NAME:
        yield from node.get(name, {}).values()


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with its definitions where they are used: it has no names of its own."""
    if isinstance(node, list):
        return [_inlined(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        rest = {name: value for name, value in node.items() if name != "$ref"}
        return _inlined({**definitions[reference.rpartition("/")[2]], **rest}, definitions)
    return {name: _inlined(each, definitions) for name, each in node.items() if name != "$defs"}


def _refused(problem: str) -> RecordRejected:
    return RecordRejected(
        DeadLetterReason.UNUSABLE_SCHEMA, f"a result can't be added to this JSON Schema: {problem}"
    )


@functools.cache
def _result(form: ResultForm) -> dict[str, Any]:
    schema = form.model.model_json_schema(mode="validation")
    inlined: dict[str, Any] = _inlined(schema, schema["$defs"])
    return inlined
