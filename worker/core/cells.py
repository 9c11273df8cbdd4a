"""One byte for each record of a partition, for the audit's ledger.

Bytes are stored in pages, which exist only for offsets with records. So a topic whose offsets have
gaps (compaction, transactions) needs memory for its records alone; a single record needs a page.

Owns: the bytes of one partition.
Thread: main, of `streamlabel audit`; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from collections.abc import Iterator

_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS


class Cells:
    """Maps an offset to a byte, which is 0 until it is set."""

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
        """Yield the offsets with this value (not 0), ascending."""
        for number in sorted(self._pages):
            page = self._pages[number]
            slot = page.find(value)
            while slot >= 0:
                yield (number << _PAGE_BITS) + slot
                slot = page.find(value, slot + 1)
