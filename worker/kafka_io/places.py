"""Finds the offsets of places that a person names.

Owns: nothing.
Thread: that of the admin client's caller.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kafka.admin import OffsetSpec

from worker.core.records import Partition
from worker.core.when import Span, When
from worker.errors import Fatal
from worker.kafka_io.admin import Admin


def locate(
    admin: Admin, partitions: Collection[Partition], when: When, group: str
) -> dict[Partition, int]:
    """Return the offset of a place in each partition, which need not be in the log.

    A time is the first record at or after it, or the end of the log if there is none. A partition
    that a list of offsets does not name has none.

    Args:
        admin: asks the cluster.
        partitions: all that are wanted.
        when: the place.
        group: `committed` is its position.

    Raises:
        Fatal: the group has no position in one of the partitions.
        BrokerAway, AccessDenied: as `Admin`.
    """
    if when.kind == "offset":
        return dict.fromkeys(partitions, when.offset)
    if when.kind == "offsets":
        given: Mapping[int, int] = when.offsets or {}
        if unknown := sorted(given.keys() - {p.partition for p in partitions}):
            raise Fatal(f"{when.text}: there is no partition {', '.join(map(str, unknown))}")
        return {p: given[p.partition] for p in partitions if p.partition in given}
    if when.kind == "committed":
        return _committed(admin, partitions, group)
    if when.kind == "time":
        found = admin.offsets(partitions, when.time_ms)
        ends = admin.offsets(partitions, OffsetSpec.LATEST)
        return {p: at if at >= 0 else ends[p] for p, at in found.items()}
    spec = OffsetSpec.EARLIEST if when.kind == "earliest" else OffsetSpec.LATEST
    return admin.offsets(partitions, spec)


def _committed(admin: Admin, partitions: Collection[Partition], group: str) -> dict[Partition, int]:
    committed = admin.all_committed(group)
    missing = [f"{p.topic}[{p.partition}]" for p in sorted(partitions) if p not in committed]
    if missing:
        raise Fatal(
            f"group {group!r} has committed no offset of {', '.join(missing)}, so `committed` is no "
            "place there: name an offset or a time"
        )
    return {p: committed[p] for p in partitions}


def resolve(
    admin: Admin, partitions: Collection[Partition], span: Span
) -> dict[Partition, tuple[int, int]]:
    """Return the first offset of a range and the one after its last, within the log as it is now.

    The end of the log is that of all its records, also of transactions that are still open: a
    record that was there when the range was chosen belongs to it. A partition that a list of
    offsets does not name has an empty range at its end.

    Raises:
        Fatal, BrokerAway, AccessDenied: as `locate`.
    """
    starts = locate(admin, partitions, span.start, span.group)
    ends = locate(admin, partitions, span.end, span.group)
    first = admin.offsets(partitions, OffsetSpec.EARLIEST)
    last = admin.offsets(partitions, OffsetSpec.LATEST)
    ranges: dict[Partition, tuple[int, int]] = {}
    for p in partitions:
        if p not in starts or p not in ends:
            ranges[p] = last[p], last[p]
            continue
        start = min(max(starts[p], first[p]), last[p])
        ranges[p] = start, max(start, min(ends[p], last[p]))
    return ranges
