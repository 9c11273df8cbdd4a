"""What the model has said of texts, so that a text that comes again need not be asked about again.

Pure. `key` holds no state and may be called on any thread; the rest belongs to one thread, the
infer thread, which alone looks up and adds. So a text's answer is there before the next micro-batch
is looked up, also where that one was tokenised while this one ran, and there is no race to reason
about. A cache lives and dies with the model that it was made for; no key needs to name the model.
"""

from __future__ import annotations

import secrets
import sys
from collections import OrderedDict
from hashlib import blake2b

from worker.core.records import Prediction

_KEY_BYTES = 16


class PredictionCache:
    """Predictions by a digest of their text; the one that was not used for longest goes first.

    The texts themselves are not kept. A digest has 128 bits: that one of n texts looked up in a
    cache of m entries takes another's answer has odds of at most n * m / 2**128, for 10**12 texts
    and 10**6 entries 3 in 10**21. It is keyed with a secret of this cache's own, so that nobody
    can prepare two texts with one digest, or guess a text from a digest.

    Args:
        max_bytes: most memory of keys, predictions and the table that holds them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._secret = secrets.token_bytes(_KEY_BYTES)
        self._entries: OrderedDict[bytes, Prediction] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes that it holds, as the interpreter counts them; the table grows in leaps."""
        return self._held + sys.getsizeof(self._entries)

    def key(self, text: str) -> bytes:
        """The text's digest; of its very characters, lone surrogates included."""
        encoded = text.encode("utf-8", "surrogatepass")
        return blake2b(encoded, digest_size=_KEY_BYTES, key=self._secret).digest()

    def get(self, key: bytes) -> Prediction | None:
        """What the model said of this text, if that is still known."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, prediction: Prediction) -> None:
        """Keep what the model said; a failure is no prediction and must not come here."""
        if key in self._entries:
            return
        self._entries[key] = prediction
        self._held += _size(key, prediction)
        while self._entries and self.size > self._max_bytes:
            self._held -= _size(*self._entries.popitem(last=False))


def _size(key: bytes, prediction: Prediction) -> int:
    """Bytes of one entry's objects, those included that other entries might share."""
    parts = (key, prediction, prediction.probabilities, prediction.token_count)
    return sum(map(sys.getsizeof, (*parts, *prediction.probabilities)))
