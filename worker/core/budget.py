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
        most: tokens of one pass, padding included, as the settings have it.

    Attributes:
        tokens: the same, as it is now.
    """

    def __init__(self, most: int) -> None:
        self.tokens = self._most = most
        self._patience = _PATIENCE
        self._fitted = 0

    def cut(self, model_input: ModelInput) -> Iterator[ModelInput]:
        """The rows in passes within the budget, in their order; a longer text goes alone.

        Each pass is cut when it is asked for, so that one that ran out of memory makes those
        after it smaller.
        """
        start, width = 0, 0
        for row, ids in enumerate(model_input.ids):
            width = max(width, len(ids))
            if row > start and width * (row + 1 - start) > self.tokens:
                yield model_input.take(range(start, row))
                start, width = row, len(ids)
        yield model_input.take(range(start, len(model_input.ids)))

    def fitted(self, tokens: int) -> None:
        """A pass of this many padded tokens went through."""
        if self.tokens == self._most or tokens * 2 <= self.tokens:
            return  # a small pass says nothing about a larger one
        self._fitted += 1
        if self._fitted >= self._patience:
            self._fitted = 0
            self.tokens = min(self._most, int(self.tokens * _GROWTH) + 1)

    def ran_out(self, fits: int) -> None:
        """Memory ran out on a pass; `fits` padded tokens of it, in one pass, did not."""
        self._fitted = 0
        self._patience *= 2
        self.tokens = min(self.tokens, fits)
