"""The plain forward pass: texts padded to a rectangle, the rest masked.

It knows every architecture, and is the measure of the other passes. Some architectures give a text
another result beside longer ones, be it masked or not; `Unpadded` runs those. Built at start; then the
infer thread alone calls it. Must not import transformers: it is given a model.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from worker.inference import shapes
from worker.inference.frames import Frame

Rows = Sequence[Sequence[int]]
Side = Literal["right", "left"]

# Widths are filled up to multiples of this, where shapes cost memory.
_STEP = 8


class PaddedForward:
    """A rectangle of texts through the model.

    It is filled up to one of few shapes where they cost memory: by wider padding, and by copies of the
    last text whose logits are dropped. So it may be a quarter larger than the rectangle around its texts.

    Args:
        model: of transformers, for sequence classification; in evaluation mode, on its device.
        pad_id: id that fills a rectangle; masked, so that it changes no result. None for a model that
            has none: one is chosen for each pass, for decoders take a text's last token that is
            another.
        frames: what the model takes beside ids and mask, by name.
        side: where the padding goes.
        longest: tokens that the model has positions for; None where it counts none.
    """

    name = "padded"
    pads = True
    parallel = False

    def __init__(
        self,
        model: Any,
        pad_id: int | None,
        *,
        frames: Mapping[str, Frame] | None = None,
        side: Side = "right",
        longest: int | None = None,
    ) -> None:
        self.model = model
        self._pad_id, self._frames, self._side = pad_id, frames or {}, side
        self._longest = longest
        self._device = next(model.parameters()).device
        self._masks = "attention_mask" in inspect.signature(model.forward).parameters
        self._few_shapes = shapes.cost_memory(model)

    def __call__(self, rows: Rows) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        width = max(map(len, rows))
        if self._few_shapes:
            filled = shapes.filled_up(width, _STEP)
            width = max(width, min(filled, self._longest or filled))
        return self.rectangle(rows, width)

    def rectangle(self, rows: Rows, width: int) -> Tensor:
        """The same, all texts padded to so many tokens."""
        texts = len(rows)
        if self._few_shapes:
            rows = [*rows, *[rows[-1]] * (shapes.filled_up(len(rows)) - len(rows))]
        ids, mask = padded(rows, self._padding_for(rows), width, self._side)
        inputs = {"attention_mask": mask} if self._masks else {}
        for name, frame in self._frames.items():
            values = [frame.along(len(row)) for row in rows]
            inputs[name], _ = padded(values, frame.within, width, self._side)
        moved = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits: Tensor = self.model(input_ids=ids.to(self._device), **moved).logits
        return logits[:texts]

    def _padding_for(self, rows: Rows) -> int:
        """The padding id; where the model has none, one that no text here ends in."""
        if self._pad_id is not None:
            return self._pad_id
        config = self.model.config
        text_config = config.get_text_config()
        size = getattr(text_config, "vocab_size", sys.maxsize)
        free = set(range(min(size, len(rows) + 1))) - {row[-1] for row in rows}
        if not free:
            raise ValueError("the texts end in every token that there is: none is left to pad with")
        config.pad_token_id = text_config.pad_token_id = min(free)
        return min(free)


class Unpadded:
    """Texts without padding, for a model whose texts are not themselves beside longer ones.

    Args:
        plain: runs texts of equal length.
        name: as it is told.
        at_once: most texts that share a pass; None for all of equal length.
    """

    pads = False
    parallel = False

    def __init__(self, plain: PaddedForward, name: str, at_once: int | None = None) -> None:
        self.model, self.name = plain.model, name
        self._plain, self._at_once = plain, at_once

    def __call__(self, rows: Rows) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        passes = [self._plain.rectangle(some, len(some[0])) for some in self._passes(rows, order)]
        found = torch.cat(passes)
        return found[torch.tensor(order, device=found.device).argsort()]

    def _passes(self, rows: Rows, order: Sequence[int]) -> Iterator[Rows]:
        for _, equal in groupby((rows[row] for row in order), key=len):
            some = list(equal)
            size = self._at_once or len(some)
            yield from (some[start : start + size] for start in range(0, len(some), size))


def padded(
    rows: Rows, pad_id: Any, width: int | None = None, side: Side = "right"
) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64 of shape [texts, width]; the mask is 0 where padding is.

    Args:
        rows: the ids of each text.
        pad_id: what fills them up.
        width: at least that of the longest text; None for that.
        side: where the padding goes.
    """
    width = width or max(map(len, rows))
    fill = [[pad_id] * (width - len(row)) for row in rows]
    pairs = zip(rows, fill, strict=True)
    left = side == "left"
    ids = torch.tensor([[*more, *row] if left else [*row, *more] for row, more in pairs])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width) < lengths[:, None]
    return ids, (mask.flip(1) if left else mask).long()
