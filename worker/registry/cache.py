"""Schemas in memory: the last used ones.

Owns: `SchemaCache` and its `Entry`.
Thread: one at a time, under its owner's lock.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from worker.errors import RecordRejected

Compiled = TypeVar("Compiled")

# A record waits for the schema, so it is read within a moment, unless its partition went elsewhere.
_UNREAD_FOR_S: Final = 60.0
# A compiled schema takes about ten times the memory of its text.
_CHARACTERS: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class Entry(Generic[Compiled]):
    """The outcome of asking for a schema.

    Attributes:
        compiled: the schema; None if it is rejected.
        enriched: the frame of a record with a result added; None if nothing is added.
        rejection: why records of this schema can't be read.
        lasts: seconds for which a rejection is believed.
        settled_at: seconds of the monotonic clock.
        characters: of the schema's text and those that it refers to; 0 if nothing is compiled.
        read: whether a record has asked for it since.
    """

    compiled: Compiled | None
    enriched: bytes | None
    rejection: RecordRejected | None
    lasts: float
    settled_at: float
    characters: int = 0
    read: bool = False


class SchemaCache(Generic[Compiled]):
    """A map from keys to entries, bounded by their number and by their schemas' characters.

    The bound must not take away a schema that a record waits for before the record has seen it:
    two waiting records could otherwise evict each other's schema for ever. So an entry that no
    record has read yet is kept for a minute, above the bound if there is no other way.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, Entry[Compiled]] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float) -> Entry[Compiled] | None:
        """Return an entry for a record, or None if there is none that is still believed.

        Args:
            key: the schema's.
            now: seconds of the monotonic clock; only rejections need it.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.read and entry.rejection and now - entry.settled_at >= entry.lasts:
            self._remove(key)
            return None
        entry.read = True
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Hashable, entry: Entry[Compiled]) -> None:
        """Add an entry, and make room for it."""
        if key in self._entries:
            self._remove(key)
        self._entries[key] = entry
        self._characters += entry.characters
        for name, one in list(self._entries.items()) if self._is_full() else ():
            if one.read or entry.settled_at - one.settled_at >= _UNREAD_FOR_S:
                self._remove(name)
                if not self._is_full():
                    break

    def _is_full(self) -> bool:
        return len(self._entries) > self._size or self._characters > _CHARACTERS

    def _remove(self, key: Hashable) -> None:
        self._characters -= self._entries.pop(key).characters
