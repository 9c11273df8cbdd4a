"""Source coordinates: which input record a published outcome belongs to.

Every result and every dead letter carries them in one header, so that `streamlabel audit` can
prove the worker's promises from the topics alone, without decoding a value. Pure functions, any
thread; imports no other room.
"""

from __future__ import annotations

SOURCE_HEADER = "streamlabel-source"

_MOST_DIGITS = 19  # of a 64-bit offset; also keeps `int` away from absurdly long input


def format_source(topic: str, partition: int, offset: int) -> bytes:
    """The header's value, `topic/partition/offset` in ASCII (a topic's name holds no slash)."""
    return f"{topic}/{partition}/{offset}".encode("ascii")


def parse_source(value: bytes) -> tuple[str, int, int] | None:
    """Topic, partition and offset, or None where the value is not of that form.

    The audit calls this once a record, millions of times: plain splits, no regular expression.
    """
    parts = value.rsplit(b"/", 2)
    if len(parts) != 3:
        return None
    topic, partition, offset = parts
    # `isdigit` refuses what `int` would let pass: signs, spaces, underscores, the empty string.
    if not (partition.isdigit() and offset.isdigit() and topic and topic.isascii()):
        return None
    if len(partition) > _MOST_DIGITS or len(offset) > _MOST_DIGITS or b"/" in topic:
        return None
    return topic.decode("ascii"), int(partition), int(offset)
