"""Source coordinates: topic, partition and offset of an outcome's input record.

Every result and every dead letter has them in one header, so that `streamlabel audit` can verify
the worker's promises from the topics alone, without decoding a value.

Owns: the header and its format, and the name of the header with the group of a backfill.
Thread: any; pure functions.
Must not import: any other module of the worker.
"""

from __future__ import annotations

SOURCE_HEADER = "streamlabel-source"

# The consumer group of the backfill that an outcome is of, in UTF-8. A worker's outcome has none.
# An audit judges the outcomes of one group: a record may have one of the worker, and one of each
# backfill.
GROUP_HEADER = "streamlabel-group"

_MOST_DIGITS = 19  # of a 64-bit offset; also keeps `int` from parsing very long input


def format_source(topic: str, partition: int, offset: int) -> bytes:
    """Return the header's value, `topic/partition/offset` in ASCII; topic names have no slash."""
    return f"{topic}/{partition}/{offset}".encode("ascii")


def parse_source(value: bytes) -> tuple[str, int, int] | None:
    """Return topic, partition and offset, or None if the value has another form.

    The audit calls this for each of millions of records: string splits, no regular expression.
    """
    parts = value.rsplit(b"/", 2)
    if len(parts) != 3:
        return None
    topic, partition, offset = parts
    # `int` accepts signs, spaces and underscores, `isdigit` does not.
    if not (partition.isdigit() and offset.isdigit() and topic and topic.isascii()):
        return None
    if len(partition) > _MOST_DIGITS or len(offset) > _MOST_DIGITS or b"/" in topic:
        return None
    return topic.decode("ascii"), int(partition), int(offset)
