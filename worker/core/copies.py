"""Joins what was acknowledged of a record: its outcome, and the copies beside it.

An outcome and its copies are sent as records of their own, to topics of their own, and each is
acknowledged for itself. The record is done with the last of them.

Owns: the records of which a part is not acknowledged yet.
Thread: the poll thread, or the revoke thread while the poll thread is parked in a rebalance.
Must not import: anything but core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from worker.core.records import Encoded, RecordRef
from worker.core.route_headers import COPY_HEADER


class Whole(NamedTuple):
    """A record of which every part is acknowledged.

    Attributes:
        outcome: its outcome.
        copies: copies of it, and dead letters in place of refused ones.
    """

    outcome: Encoded
    copies: Sequence[Encoded] = ()


class Wholes:
    """Holds back each outcome until every copy of it is acknowledged.

    Args:
        tracks: whether a record is still this worker's. What was acknowledged of another one may be
            forgotten: its partition has another owner, which publishes all of it.
    """

    def __init__(self, tracks: Callable[[RecordRef], bool]) -> None:
        self._tracks = tracks
        self._begun: dict[RecordRef, list[Encoded]] = {}

    def add(self, acknowledged: Iterable[Encoded]) -> list[Whole]:
        """Return the records that are complete now, in the order of their last parts."""
        complete = []
        for part in acknowledged:
            if not (part.copies or part.is_copy):
                complete.append(Whole(part))
                continue
            parts = self._begun.setdefault(part.ref, [])
            parts.append(part)
            outcome = next((one for one in parts if not one.is_copy), None)
            if outcome is not None and len(parts) > outcome.copies:
                del self._begun[part.ref]
                complete.append(Whole(outcome, [one for one in parts if one.is_copy]))
        return complete

    def forget_if_above(self, most: int) -> None:
        """Drop the parts of records that this worker has lost, if more records than these wait."""
        if len(self._begun) > most:
            self._begun = {ref: parts for ref, parts in self._begun.items() if self._tracks(ref)}


def same_part(sent: Encoded, replacement: Encoded) -> Encoded:
    """Return what takes the place of a part, as the same part of its record.

    The dead letter in place of a copy names the route, so that it is not taken for the record's
    outcome.
    """
    if replacement is sent or replacement.reason is None:
        return replacement
    if not sent.is_copy:
        return replace(replacement, copies=sent.copies) if sent.copies else replacement
    header = (COPY_HEADER, sent.route.encode())
    headers = [*(one for one in replacement.headers if one != header), header]
    return replace(replacement, headers=headers, route=sent.route, is_copy=True)
