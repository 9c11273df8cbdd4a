"""Compares a released version with today's code: messages, schemas and names. No tests.

Each check yields the faults that it finds. docs/upgrading.md states the policy that they hold.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastavro import parse_schema, schemaless_reader
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel

from worker.registry.protobuf_files import file_descriptor
from worker.registry.schema import RegisteredSchema

Faults = Iterator[str]
Node = Mapping[str, Any]

# A change of one of these is a change of what a member may be.
_CONSTRAINTS = (
    "type", "const", "format", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
    "uniqueItems", "additionalProperties",
)  # fmt: skip
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")


def json_schemas(old: Node, new: Node) -> Faults:
    """Check that no member is removed, has another type or is newly required.

    A value may be added to an enumeration, and an optional member to an object.
    """
    yield from _nodes(old, new, old, new, "")


def _nodes(old: Node, new: Node, olds: Node, news: Node, place: str) -> Faults:
    old, new = _resolved(old, olds), _resolved(new, news)
    where = place or "the document"
    for name in _CONSTRAINTS:
        if old.get(name) != new.get(name):
            yield f"{where}: {name} was {old.get(name)!r} and is {new.get(name)!r}"
    if ("enum" in old) != ("enum" in new):
        yield f"{where}: it {'had' if 'enum' in old else 'has'} an enumeration of its values"
    else:
        removed = (value for value in old.get("enum", ()) if value not in new["enum"])
        yield from (f"{where}: the value {value!r} is removed" for value in removed)
    yield from _members(old, new, olds, news, place)
    if "items" in old and "items" in new:
        yield from _nodes(old["items"], new["items"], olds, news, f"{place}[]")
    for kind in _ALTERNATIVES:
        lists = old.get(kind, ()), new.get(kind, ())
        if len(lists[0]) != len(lists[1]):
            yield f"{where}: {kind} had {len(lists[0])} alternatives and has {len(lists[1])}"
        for before, after in zip(*lists, strict=False):
            yield from _nodes(before, after, olds, news, place)


def _members(old: Node, new: Node, olds: Node, news: Node, place: str) -> Faults:
    before, after = old.get("properties", {}), new.get("properties", {})
    required = set(old.get("required", ())), set(new.get("required", ()))
    for name, member in before.items():
        path = f"{place}.{name}".removeprefix(".")
        if name not in after:
            yield f"{path} is removed"
            continue
        if (name in required[0]) != (name in required[1]):
            yield f"{path} {'was' if name in required[0] else 'is'} required"
        yield from _nodes(member, after[name], olds, news, path)
    for name in after.keys() - before.keys():
        if name in required[1]:
            yield f"{place}.{name} is new and required".removeprefix(".")


def _resolved(node: Node, document: Node) -> Node:
    while "$ref" in node:
        node = document["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def json_messages(old_schema: Node, lines: Sequence[str]) -> Faults:
    """Check that today's messages are valid by the released schema, which may not know all."""
    validator = Draft202012Validator(_open(old_schema))
    for line in lines:
        try:
            validator.validate(json.loads(line))
        except ValidationError as error:
            yield f"a message of today: {error.message} at {error.json_path}"


def _open(node: Any) -> Any:
    """Return a schema that tolerates unknown members, as a reader must."""
    if isinstance(node, dict):
        return {k: _open(v) for k, v in node.items() if k != "additionalProperties"}
    return [_open(part) for part in node] if isinstance(node, list) else node


def models(model: type[BaseModel], lines: Sequence[str]) -> Faults:
    """Check that today's model reads the released version's messages, and keeps each value."""
    for line in lines:
        document = json.loads(line)
        try:
            read = json.loads(model.model_validate_json(line).model_dump_json())
        except ValueError as error:
            yield f"{model.__name__} refuses a message: {' '.join(str(error).split()[:30])}"
            continue
        yield from _lost(document, read, "")


def avro(old: Node, new: Node, old_bodies: Sequence[bytes], new_bodies: Sequence[bytes]) -> Faults:
    """Check both directions by Avro's schema resolution (writer's schema, reader's schema)."""
    read = _avro_reader
    yield from _exchange("an older Avro result", old_bodies, read(old, None), read(old, new))
    yield from _exchange("a newer Avro result", new_bodies, read(new, None), read(new, old))


Read = Callable[[bytes], Any]


def _avro_reader(writer: Node, reader: Node | None) -> Read:
    schemas = parse_schema(dict(writer)), parse_schema(dict(reader)) if reader else None
    return lambda body: schemaless_reader(io.BytesIO(body), *schemas)


def _exchange(kind: str, bodies: Sequence[bytes], written: Read, read: Read) -> Faults:
    for body in bodies:
        sent = written(body)
        try:
            received = read(body)
        except Exception as error:  # noqa: BLE001 - fastavro raises many kinds
            yield f"{kind} can't be read: {error}"
            continue
        # The reader may know fewer members, or more with a default.
        for name in sent.keys() & received.keys():
            yield from _lost(sent[name], received[name], name)


def protobuf(old: str, new: str, old_bodies: Sequence[bytes]) -> Faults:
    """Check the numbers and types of fields, and that today's class reads older messages."""
    before, after = (file_descriptor(RegisteredSchema("PROTOBUF", text)) for text in (old, new))
    for name, message in before.message_types_by_name.items():
        now = after.message_types_by_name.get(name)
        if now is None:
            yield f"message {name} is removed"
            continue
        yield from _fields(message, now)
    first = next(iter(before.message_types_by_name))
    if first != next(iter(after.message_types_by_name)):
        yield f"{first} is no longer the file's first message"
        return
    classes = [GetMessageClass(file.message_types_by_name[first]) for file in (before, after)]
    for body in old_bodies:
        sent, received = (MessageToDict(each.FromString(body)) for each in classes)
        yield from _lost(sent, received, "")


def _fields(old: Descriptor, new: Descriptor) -> Faults:
    for number, field in old.fields_by_number.items():
        now = new.fields_by_number.get(number)
        if now is None:
            yield f"{field.full_name} = {number} is removed"
        elif _declared(field) != _declared(now):
            yield f"{field.full_name} = {number} is now {now.name}, of another name or type"


def _declared(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type.full_name if field.message_type else None
    return field.name, field.type, field.is_repeated, field.has_presence, kind


def names(old: Node, new: Node, removed: frozenset[str]) -> Faults:
    """Check that each name of a release is still there, or that docs/upgrading.md lists it.

    `removed` has the names in that page's table.
    """
    for kind in ("commands", "chart_values", "dead_letter_reasons"):
        for name in old.get(kind, ()):
            if name not in new.get(kind, ()) and name not in removed:
                yield f"{kind.removesuffix('s').replace('_', ' ')} {name} is removed"
    for path, option in old["settings"].items():
        if path not in removed:
            yield from _option(path, option, new["settings"].get(path), removed)
    for name, metric in old["metrics"].items():
        now = new["metrics"].get(name)
        if name not in removed and now != metric:
            yield f"metric {name} was {metric} and is {now or 'removed'}"


def _option(path: str, old: Node, new: Node | None, removed: frozenset[str]) -> Faults:
    if new is None:
        yield f"setting {path} is removed"
        return
    spellings = old["flag"], *old["variables"]
    for name in {*spellings} - {new["flag"], *new["variables"]} - removed:
        yield f"setting {path} is no longer set by {name}"
    for choice in {*old["choices"]} - {*new["choices"]}:
        if new["choices"] and f"{path} = {choice}" not in removed:
            yield f"setting {path} no longer takes {choice}"


def removed_names(page: str) -> frozenset[str]:
    """Return the names in the table "Deprecated and removed names" of docs/upgrading.md."""
    _, heading, section = page.partition("\n## Deprecated and removed names\n")
    if not heading:
        raise ValueError("docs/upgrading.md has no section `Deprecated and removed names`")
    return frozenset(re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE))


def _lost(sent: Any, received: Any, place: str) -> Faults:
    """Compare what was sent with what was read; a reader may know fewer or more members."""
    if isinstance(sent, dict) and isinstance(received, dict):
        for name, value in sent.items():
            if name not in received:
                yield f"{place}.{name} is lost".removeprefix(".")
            else:
                yield from _lost(value, received[name], f"{place}.{name}".removeprefix("."))
    elif isinstance(sent, list) and isinstance(received, list) and len(sent) == len(received):
        for before, after in zip(sent, received, strict=True):
            yield from _lost(before, after, f"{place}[]")
    elif sent != received:
        yield f"{place} was {sent!r} and is read as {received!r}"
