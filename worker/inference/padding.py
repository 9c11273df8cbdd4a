"""The plain forward pass: texts padded to a rectangle, the rest masked.

Right for every architecture, and the measure of the other passes. Built at start; then the
infer thread alone calls it. Must not import transformers: it is given a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PaddedForward:
    """A rectangle of texts through the model.

    Args:
        model: of transformers, for sequence classification; in evaluation mode, on its device.
        pad_id: id that fills a rectangle; masked, so that it changes no result.
    """

    name = "padded"
    pads = True

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        self.model = model
        self._pad_id = pad_id
        self._device = next(model.parameters()).device

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        ids, mask = padded(rows, self._pad_id)
        logits: Tensor = self.model(
            input_ids=ids.to(self._device), attention_mask=mask.to(self._device)
        ).logits
        return logits


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64 of shape [texts, longest]; padding is on the right, its mask 0."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(width) < lengths[:, None]).long()
