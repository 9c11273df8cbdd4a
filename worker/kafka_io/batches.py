"""Record batches whose header names are not UTF-8.

Any thread that polls. The protocol says that a header's name is UTF-8, no broker checks it, and
some producers don't care. The client gives up on such a record as corrupt, for good: its partition
would stand still. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


def tolerate() -> None:
    """Have all clients of this process read such names; calling it again is no matter."""
    memory_records.DefaultRecordBatch = _Batch


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    _buffer: bytearray

    def _read_msg(self, *args: Any) -> Any:
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            # Nothing has moved: the position is set when a record is complete. The rest of the
            # batch is read the slow way too, for such records rarely come alone.
            self._buffer = _Bytes(self._buffer)
            return super()._read_msg(*args)


class _Bytes(bytearray):
    """The client decodes slices of its buffer: in these, what is no UTF-8 is written out in hex."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
