"""How many tokens one forward pass may have: what the settings say, until memory says less.

Pure; owned by the infer thread. Imports records alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.core.records import ModelInput

_PATIENCE = 64
_GROWTH = 1.5


class ForwardBudget:
    """Cuts forward passes to what the memory has been seen to hold.

    It shrinks at once and grows with care, for the memory may have been short for a while only
    (another process on the same GPU) or may always be (a setting too bold). After `_PATIENCE`
    passes near the limit it grows by half, up to where it began; each time that memory runs out
    again it waits twice as long, so that a budget that is too large for good costs ever less.

    Args:
        most: tokens of one pass that the engine computes, as set or as found at warm-up.
        pads: whether the engine computes the rectangle around its texts, or their tokens alone.

    Attributes:
        tokens: the same, as it is now.
    """

    def __init__(self, most: int, *, pads: bool = True) -> None:
        self._pads = pads
        self.tokens = self._most = most
        self._patience = _PATIENCE
        self._fitted = 0

    def cost(self, model_input: ModelInput) -> int:
        """Tokens that the engine computes for a pass, padding included where it pads."""
        return model_input.padded_tokens if self._pads else model_input.tokens

    def cut(self, model_input: ModelInput) -> Iterator[ModelInput]:
        """The rows in passes within the budget, in their order; a longer text goes alone.

        Each pass is cut when it is asked for, so that one that ran out of memory makes those
        after it smaller.
        """
        start, width, tokens = 0, 0, 0
        for row, ids in enumerate(model_input.ids):
            width, tokens = max(width, len(ids)), tokens + len(ids)
            cost = width * (row + 1 - start) if self._pads else tokens
            if row > start and cost > self.tokens:
                yield model_input.take(range(start, row))
                start, width, tokens = row, len(ids), len(ids)
        yield model_input.take(range(start, len(model_input.ids)))

    def fitted(self, tokens: int) -> None:
        """A pass that cost this many tokens went through."""
        if self.tokens == self._most or tokens * 2 <= self.tokens:
            return  # a small pass says nothing about a larger one
        self._fitted += 1
        if self._fitted >= self._patience:
            self._fitted = 0
            self.tokens = min(self._most, int(self.tokens * _GROWTH) + 1)

    def ran_out(self, fits: int) -> None:
        """Memory ran out on a pass; `fits` tokens of it, in one pass, did not."""
        self._fitted = 0
        self._patience *= 2
        self.tokens = min(self.tokens, fits)
