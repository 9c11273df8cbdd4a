"""The input records of a run, by number, with the kind of outcome that each must have.

The producer's thread notes records, and readers of the input find places; the harness's thread
counts once the producer has ended, but for `total`. A place (a partition and an offset) names one
record only while its log lasts. So each record has its number in a header, which results and dead
letters keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from tests.chaos.decisions import Kind

Fate = Kind | Literal["bad"]  # a bad record must become a dead letter

NUMBER_HEADER: Final = "chaos-number"


class SentRecord(NamedTuple):
    """An acknowledged record; the offset is -1 if the broker did not tell it."""

    fate: Fate
    partition: int
    offset: int
    timestamp_ms: int = 0


class Sent:
    """Acknowledged input records."""

    def __init__(self) -> None:
        self._records: dict[int, SentRecord] = {}
        self._logged: dict[int, SentRecord] = {}
        self._fates: dict[int, Fate] = {}
        self._places: dict[tuple[int, int], list[int]] = {}

    @property
    def total(self) -> int:
        """Their number."""
        return len(self._records)

    @property
    def records(self) -> Mapping[int, SentRecord]:
        """The records by number."""
        return self._records

    @property
    def known(self) -> Mapping[int, SentRecord]:
        """Those, and records that the log has though no acknowledgement came."""
        return self._logged | self._records

    def sending(self, number: int, fate: Fate) -> None:
        """Note what must become of a record before it is sent."""
        self._fates[number] = fate

    def note(self, number: int, record: SentRecord) -> None:
        """Add a record."""
        self._records[number] = record
        self._place(number, record.partition, record.offset)

    def found(self, number: int, partition: int, offset: int, timestamp_ms: int) -> None:
        """Add the place of a record that the log has."""
        fate = self._fates.get(number, "post")
        self._logged[number] = SentRecord(fate, partition, offset, timestamp_ms)
        self._place(number, partition, offset)

    def _place(self, number: int, partition: int, offset: int) -> None:
        there = self._places.setdefault((partition, offset), [])
        if number not in there:
            there.append(number)

    def numbers_at(self, partition: int, offset: int) -> tuple[int, ...]:
        """Return the numbers of the records that were at a place, one for each life of the log."""
        return tuple(self._places.get((partition, offset), ()))

    def find(self, partition: int, offset: int, timestamp_ms: int) -> int | None:
        """Return the number of the record that was at a place and has this time."""
        for number in self.numbers_at(partition, offset):
            record = self._records.get(number) or self._logged.get(number)
            if record and record.timestamp_ms == timestamp_ms:
                return number
        return None

    def count(self, fate: Fate, starts: Mapping[int, int] | None = None) -> int:
        """Return the number of records with this fate.

        Args:
            fate: of the records.
            starts: partition -> first offset that its log still has; earlier ones don't count.
        """
        first = starts or {}
        return sum(
            one.fate == fate and (one.offset < 0 or one.offset >= first.get(one.partition, 0))
            for one in list(self._records.values())
        )


def numbered(number: int) -> list[tuple[str, bytes]]:
    """Return the headers of the record with this number."""
    return [(NUMBER_HEADER, str(number).encode())]


def number_of(headers: object) -> int | None:
    """Return the number in a record's headers, if there is one."""
    assert isinstance(headers, list | tuple)
    for name, value in headers:
        if name == NUMBER_HEADER and value and value.isdigit():
            return int(value)
    return None
