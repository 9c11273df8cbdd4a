"""One byte for each record of a partition, for the audit's ledger.

Memory is in pages that exist only where records do, so that a topic whose offsets have gaps
(compaction, transactions) costs what its records cost. A record that lies all alone costs a page.
Pure; imports no other room.
"""

from __future__ import annotations

from collections.abc import Iterator

_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS


class Cells:
    """Offset -> byte; 0 where nothing was ever set."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def __getitem__(self, offset: int) -> int:
        page = self._pages.get(offset >> _PAGE_BITS)
        return page[offset & _PAGE - 1] if page else 0

    def __setitem__(self, offset: int, value: int) -> None:
        number = offset >> _PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(_PAGE)
        page[offset & _PAGE - 1] = value

    def find(self, value: int) -> Iterator[int]:
        """Offsets of this value (not 0), ascending."""
        for number in sorted(self._pages):
            page = self._pages[number]
            slot = page.find(value)
            while slot >= 0:
                yield (number << _PAGE_BITS) + slot
                slot = page.find(value, slot + 1)
