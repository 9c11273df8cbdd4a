"""Limits the tokens of a forward pass to the setting, or to less after memory ran out.

Owns: the current limit.
Thread: infer; pure.
Must not import: anything but core.records.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.core.records import ModelInput

_PATIENCE = 64
_GROWTH = 1.5


class ForwardBudget:
    """Cuts forward passes to a size that fits the memory.

    The budget shrinks at once and grows slowly, because the memory may be short for a while
    (another process on the same GPU) or always (a setting that is too high). After `_PATIENCE`
    passes near the limit it grows by half, up to its initial size. Each time that memory runs out,
    the number of passes doubles, so that a setting that is too high costs less and less.

    Args:
        most: most tokens that the engine computes in one pass, as set or as found at warm-up.
        pads: True if the engine computes the rectangle around its texts, False if only their
            tokens.

    Attributes:
        tokens: the current limit.
    """

    def __init__(self, most: int, *, pads: bool = True) -> None:
        self._pads = pads
        self.tokens = self._most = most
        self._patience = _PATIENCE
        self._fitted = 0

    def cost(self, model_input: ModelInput) -> int:
        """Return the tokens that the engine computes for a pass, with padding if it pads."""
        return model_input.padded_tokens if self._pads else model_input.tokens

    def cut(self, model_input: ModelInput) -> Iterator[ModelInput]:
        """Yield the rows in passes within the budget, in order; a longer text has its own pass.

        Each pass is cut when the caller requests it, so that a pass that ran out of memory makes
        the following ones smaller.
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
        """Note that a pass of this many tokens succeeded."""
        if self.tokens == self._most or tokens * 2 <= self.tokens:
            return  # a small pass does not show that a larger one fits
        self._fitted += 1
        if self._fitted >= self._patience:
            self._fitted = 0
            self.tokens = min(self._most, int(self.tokens * _GROWTH) + 1)

    def ran_out(self, fits: int) -> None:
        """Note that memory ran out on a pass, but not on a part of it with `fits` tokens."""
        self._fitted = 0
        self._patience *= 2
        self.tokens = min(self.tokens, fits)
