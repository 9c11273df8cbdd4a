"""What the model has said of texts, so that a text that comes again need not be asked about again.

Pure. `key` holds no state and may be called on any thread; the rest belongs to one thread, the
infer thread, which alone looks up and adds. So a text's answer is there before the next micro-batch
is looked up, also where that one was tokenised while this one ran, and there is no race to reason
about. A cache lives and dies with the model that it was made for; no key needs to name the model.
"""

from __future__ import annotations

import secrets
import struct
import sys
from hashlib import blake2b
from typing import Final

from worker.core.records import Prediction

_KEY_BYTES: Final = 16
_HEAD: Final = struct.Struct("=I?")  # token_count, truncated; then each probability, a double
_PROBABILITY_BYTES: Final = 8
# What an entry takes of a dict's table at most, just after the table grew: two places of 24 bytes
# and three indices of 4 (CPython's Objects/dictobject.c: two thirds are used, growth doubles).
_TABLE_BYTES: Final = 60


class PredictionCache:
    """Predictions by a digest of their text, in two generations.

    What is put or used joins the young one. When that holds half of the bound, it becomes the old
    one, and what the old one still had, unused since, goes all at once. So whatever was used among
    the last half of a cache's worth of texts is there, as in one that orders its entries by use;
    but nothing is kept in order, and memory comes back in whole stretches. (Single entries that go
    leave holes among what lives for a moment: one text in, one out, made a worker grow by 5 %.)
    For the same reason a prediction is kept as one string of bytes, not as an object a label.

    The texts themselves are not kept. A digest has 128 bits: that one of n texts looked up in a
    cache of m entries takes another's answer has odds of at most n * m / 2**128, for 10**12 texts
    and 10**6 entries 3 in 10**21. It is keyed with a secret of this cache's own, so that nobody
    can prepare two texts with one digest, or guess a text from a digest.

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
        """Bytes that it holds at most; what its tables take of that varies as they grow."""
        return self._young.size + self._old.size

    def key(self, text: str) -> bytes:
        """The text's digest; of its very characters, lone surrogates included."""
        encoded = text.encode("utf-8", "surrogatepass")
        return blake2b(encoded, digest_size=_KEY_BYTES, key=self._secret).digest()

    def get(self, key: bytes) -> Prediction | None:
        """What the model said of this text, if that is still known."""
        entry = self._young.entries.get(key)
        if entry is None:
            entry = self._old.pop(key)
            if entry is None:
                return None
            self._keep(key, entry)
        return _unpacked(entry)

    def put(self, key: bytes, prediction: Prediction) -> None:
        """Keep what the model said; a failure is no prediction and must not come here."""
        if key not in self._young.entries:
            self._old.pop(key)
            self._keep(key, _packed(prediction))

    def _keep(self, key: bytes, entry: bytes) -> None:
        size = _size(key, entry)
        if size > self._generation_bytes:
            return
        if self._young.size + size > self._generation_bytes:
            self._young, self._old = _Generation(), self._young
        self._young.put(key, entry)


class _Generation:
    """Entries, and what they take."""

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
    head = _HEAD.pack(prediction.token_count, prediction.truncated)
    labels = len(prediction.probabilities)
    return head + struct.pack(f"={labels}d", *prediction.probabilities)


def _unpacked(entry: bytes) -> Prediction:
    token_count, truncated = _HEAD.unpack_from(entry)
    labels = (len(entry) - _HEAD.size) // _PROBABILITY_BYTES
    probabilities = struct.unpack_from(f"={labels}d", entry, _HEAD.size)
    return Prediction(probabilities, token_count, truncated)
