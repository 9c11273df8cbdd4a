"""Reads Protobuf's wire format as far as the runtime does not: a message's indexes, and its memory.

An empty message takes two bytes of a body, and in memory all its fields: a megabyte of messages
with a thousand fields takes 8 GB. Only large bodies of wide messages are walked over before they
are parsed, which takes about a microsecond for each field.

https://protobuf.dev/programming-guides/encoding/

Owns: the limits of a body.
Thread: poll; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from worker.registry.rejections import mismatch

MOST_BYTES: Final = 256 << 20  # of the messages of a body, in memory
_LEVELS: Final = 100  # as in the runtime, which rejects deeper bodies
_NESTING: Final = 32  # levels of a message's definition, as in protoc
_EMPTY_BYTES: Final = 2  # of an empty message, at least
_FIELD_MEMORY: Final = 16  # bytes of a string, the largest field
_VARINT, _LENGTH, _GROUP, _GROUP_END = 0, 2, 3, 4
_FIXED: Final = {1: 8, 5: 4}


def message_indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """Return the indexes of a body's message, and the index of the byte behind them.

    They are the number of indexes, then each of them, as zigzag varints: of the message in the
    file, of the message in that one, and so on. The first message is written as one byte 0.
    """
    if body[:1] == b"\0":
        return (0,), 1
    try:
        number, at = _zigzag(body, 0)
        if not 0 < number <= _NESTING:
            raise mismatch(f"the indexes of its message number {number}")
        indexes = []
        for _ in range(number):
            index, at = _zigzag(body, at)
            indexes.append(index)
    except IndexError:
        raise mismatch("the indexes of its message can't be read") from None
    return tuple(indexes), at


def memory_per_byte(message: Any) -> int:
    """Return the most bytes of memory for a byte of a body, by the message's descriptor."""
    names, found = {message.full_name}, [message]
    for outer in found:
        for field in outer.fields:
            inner = field.message_type
            if inner and inner.full_name not in names:
                names.add(inner.full_name)
                found.append(inner)
    return max(map(_memory, found)) // _EMPTY_BYTES


def check_memory(message: Any, body: bytes, at: int) -> None:
    """Raise RecordRejected if a body's messages take more than `MOST_BYTES`.

    A body that can't be read is left to the runtime.
    """
    left = MOST_BYTES
    try:
        for inner in _messages(message, body, at):
            left -= _memory(inner)
            if left < 0:
                raise mismatch(f"its messages would take more than {MOST_BYTES >> 20} MiB")
    except (IndexError, KeyError):
        return


def _memory(message: Any) -> int:
    return _FIELD_MEMORY * (1 + len(message.fields))


def _messages(message: Any, body: bytes, at: int) -> Iterator[Any]:
    """Yield the type of each message of known type in a body."""
    open_: list[tuple[Any, int]] = [(message, len(body))]
    while open_ and len(open_) <= _LEVELS:
        outer, end = open_[-1]
        if at >= end:
            open_.pop()
            continue
        tag, at = _varint(body, at)
        kind, inner = tag & 7, _inner(outer, tag >> 3)
        if kind == _VARINT:
            _, at = _varint(body, at)
        elif kind == _LENGTH:
            length, at = _varint(body, at)
            if inner:
                open_.append((inner, at + length))
            else:
                at += length
        elif kind == _GROUP:
            open_.append((inner, end))
        elif kind == _GROUP_END:
            open_.pop()
        else:
            at += _FIXED[kind]
        if inner:
            yield inner


def _inner(message: Any, number: int) -> Any:
    field = message.fields_by_number.get(number) if message else None
    return field.message_type if field else None


def _zigzag(body: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(body, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number and the index behind it; raise IndexError if it does not end."""
    value = shift = 0
    while shift < 70:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise IndexError
