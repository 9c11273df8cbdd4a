"""Protobuf: reads bodies by their writer's schema, and shows messages as mappings.

Fields have their names in the `.proto` file. A field that is not set is null if the schema can
tell (a message, a member of a oneof, `optional`), and otherwise has its type's default: an empty
text. An enum's value is its name, or its number if it has none.

Owns: the messages of a schema.
Thread: `ProtobufSchema` is built on registry, and reads on poll.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from worker.registry.protobuf_files import file_descriptor
from worker.registry.protobuf_wire import (
    MOST_BYTES,
    check_memory,
    memory_per_byte,
    message_indexes,
)
from worker.registry.rejections import mismatch, unusable
from worker.registry.schema import RegisteredSchema, SchemaType


class _MessageType(NamedTuple):
    """A message of a schema.

    Attributes:
        message: its class.
        memory_per_byte: the most bytes of memory for a byte of a body.
    """

    message: Any
    memory_per_byte: int


class ProtobufSchema:
    """A compiled schema.

    Args:
        schema: a Protobuf schema with the texts of its imports.

    Raises:
        RecordRejected: it can't be used (`unusable_schema`).
    """

    type: SchemaType = "PROTOBUF"

    def __init__(self, schema: RegisteredSchema) -> None:
        self._messages = list(file_descriptor(schema).message_types_by_name.values())
        if not self._messages:
            raise unusable("Protobuf: it has no message")
        self._types: dict[tuple[int, ...], _MessageType] = {}

    def parse(self, body: bytes) -> MessageView:
        """Return a message; the body begins with the indexes of its type."""
        indexes, at = message_indexes(body)
        known = self._types.get(indexes) or self._type(indexes)
        if len(body) * known.memory_per_byte > MOST_BYTES:
            check_memory(known.message.DESCRIPTOR, body, at)
        try:
            return MessageView(known.message.FromString(body[at:]))
        except DecodeError:
            raise mismatch("Protobuf can't be read") from None

    def fields(self, payload: MessageView, path: tuple[str, ...]) -> Sequence[str]:
        """Return the names of the fields at a path."""
        return _fields(payload.descriptor, path)

    def _type(self, indexes: tuple[int, ...]) -> _MessageType:
        messages, descriptor = self._messages, None
        for index in indexes:
            if not 0 <= index < len(messages):
                raise mismatch(f"its schema has no message {'.'.join(map(str, indexes))}")
            descriptor = messages[index]
            messages = list(descriptor.nested_types)
        known = _MessageType(GetMessageClass(descriptor), memory_per_byte(descriptor))
        self._types[indexes] = known
        return known


class MessageView(Mapping[str, Any]):
    """A message as a mapping; its values are converted as they are asked for."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self.descriptor: Any = message.DESCRIPTOR
        self._fields: Mapping[str, Any] = self.descriptor.fields_by_name

    def __getitem__(self, name: str) -> Any:
        field = self._fields[name]
        if field.has_presence and not self._message.HasField(name):
            return None
        return _value(getattr(self._message, name), field)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def _value(value: Any, field: Any) -> Any:
    if isinstance(value, str | bytes | float | bool):
        return value
    if isinstance(value, Message):
        return MessageView(value)
    if isinstance(value, MutableMapping):
        values = field.message_type.fields_by_name["value"]
        return {_key(key): _value(inner, values) for key, inner in value.items()}
    if isinstance(value, MutableSequence):
        return [_value(inner, field) for inner in value]
    name = field.enum_type.values_by_number.get(value) if field.enum_type else None
    return name.name if name else value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _fields(message: Any, path: tuple[str, ...]) -> Sequence[str]:
    for step in path:
        if message.GetOptions().map_entry:  # the step before was a map, and this one is its key
            message = message.fields_by_name["value"].message_type
        elif not (step.isdigit() and step not in message.fields_by_name):  # not an index
            field = message.fields_by_name.get(step)
            message = field.message_type if field else None
        if message is None:
            return []
    return [] if message.GetOptions().map_entry else list(message.fields_by_name)
