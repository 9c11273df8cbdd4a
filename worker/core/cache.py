"""Caches the model's predictions, so that a repeated text is not labelled again.

One thread looks up and adds, so there is no race: a text's prediction is stored before the next
micro-batch is looked up, even if that one was tokenised while the model ran. A cache belongs to one
loaded model, so keys don't include the model.

Owns: the cached predictions.
Thread: infer; `key` has no state and may be called on any thread.
Must not import: anything but core.records.
"""

from __future__ import annotations

import secrets
import struct
import sys
from hashlib import blake2b
from typing import Final

from worker.core.records import Prediction

_KEY_BYTES: Final = 16
_HEAD: Final = struct.Struct("=IB")  # token_count, flags; then each probability, a double
_TRUNCATED, _IN_WINDOWS = 1, 2  # flags
_TAIL: Final = struct.Struct("=II")  # of a text read in windows: windows, total_tokens
_PROBABILITY_BYTES: Final = 8
# Most bytes of a dict's table for one entry, just after the table grew: two slots of 24 bytes and
# three indices of 4 (CPython's Objects/dictobject.c: two thirds are used, growth doubles).
_TABLE_BYTES: Final = 60


class PredictionCache:
    """Predictions by a digest of their text, in two generations.

    A new or used entry joins the young generation. When that holds half of the limit, it becomes
    the old generation, and the previous old one, with the entries unused since, is dropped as a
    whole. So an entry stays if it was used among the last texts that fill half of the cache, as in
    an LRU cache, but no order is maintained, and memory is freed in large blocks. (Freeing single
    entries fragments the memory: replacing one text at a time made a worker grow by 5 %.) For the
    same reason a prediction is stored as one string of bytes, not as an object for each label.

    The texts themselves are not stored. A digest has 128 bits: the odds that one of n texts gets
    the prediction of another, in a cache of m entries, are at most n * m / 2**128; for 10**12 texts
    and 10**6 entries 3 in 10**21. The digest is keyed with a secret of this cache, so that an
    attacker can neither prepare two texts with one digest, nor guess a text from a digest.

    Args:
        max_bytes: most memory of keys, predictions and the tables that hold them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._generation_bytes = max_bytes // 2
        self._secret = secrets.token_bytes(_KEY_BYTES)
        self._young, self._old = _Generation(), _Generation()

    def __len__(self) -> int:
        return len(self._young.entries) + len(self._old.entries)

    @property
    def size(self) -> int:
        """Upper bound of the bytes in use; the part of the tables varies as they grow."""
        return self._young.size + self._old.size

    def key(self, text: str) -> bytes:
        """Return the text's digest, computed of its exact characters, lone surrogates included."""
        encoded = text.encode("utf-8", "surrogatepass")
        return blake2b(encoded, digest_size=_KEY_BYTES, key=self._secret).digest()

    def get(self, key: bytes) -> Prediction | None:
        """Return the prediction for this key, or None if it is not cached."""
        entry = self._young.entries.get(key)
        if entry is None:
            entry = self._old.pop(key)
            if entry is None:
                return None
            self._store(key, entry)
        return _unpacked(entry)

    def put(self, key: bytes, prediction: Prediction) -> None:
        """Store a prediction; failures must not be stored."""
        if key not in self._young.entries:
            self._old.pop(key)
            self._store(key, _packed(prediction))

    def _store(self, key: bytes, entry: bytes) -> None:
        size = _size(key, entry)
        if size > self._generation_bytes:
            return
        if self._young.size + size > self._generation_bytes:
            self._young, self._old = _Generation(), self._young
        self._young.put(key, entry)


class _Generation:
    """Entries, and the bytes that they take."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.size = 0

    def put(self, key: bytes, entry: bytes) -> None:
        self.entries[key] = entry
        self.size += _size(key, entry)

    def pop(self, key: bytes) -> bytes | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size -= _size(key, entry)
        return entry


def _size(key: bytes, entry: bytes) -> int:
    return sys.getsizeof(key) + sys.getsizeof(entry) + _TABLE_BYTES


def _packed(prediction: Prediction) -> bytes:
    flags, probabilities = prediction.truncated, prediction.probabilities
    if prediction.total_tokens is None:
        head = _HEAD.pack(prediction.token_count, flags)
        return head + struct.pack(f"={len(probabilities)}d", *probabilities)
    head = _HEAD.pack(prediction.token_count, flags | _IN_WINDOWS)
    tail = _TAIL.pack(prediction.windows, prediction.total_tokens)
    return head + struct.pack(f"={len(probabilities)}d", *probabilities) + tail


def _unpacked(entry: bytes) -> Prediction:
    token_count, flags = _HEAD.unpack_from(entry)
    truncated = bool(flags & _TRUNCATED)
    if not flags & _IN_WINDOWS:
        labels = (len(entry) - _HEAD.size) // _PROBABILITY_BYTES
        probabilities = struct.unpack_from(f"={labels}d", entry, _HEAD.size)
        return Prediction(probabilities, token_count, truncated)
    end = len(entry) - _TAIL.size
    windows, total = _TAIL.unpack_from(entry, end)
    labels = (end - _HEAD.size) // _PROBABILITY_BYTES
    probabilities = struct.unpack_from(f"={labels}d", entry, _HEAD.size)
    return Prediction(probabilities, token_count, truncated, windows, total)
