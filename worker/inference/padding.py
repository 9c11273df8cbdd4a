"""The padded forward pass: texts padded to a rectangle, with the padding masked.

It runs every architecture, and is the reference for the other passes. In some architectures a
text's result depends on longer texts beside it, masked or not; `Unpadded` runs those.

Owns: how texts become rectangles.
Thread: infer; built on the load thread.
Must not import: transformers; it is given a model.
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
from worker.inference.extra_inputs import ExtraInput
from worker.inference.placement import device_and_dtype

Rows = Sequence[Sequence[int]]
Side = Literal["right", "left"]

# If shapes cost memory, widths are rounded up to multiples of this.
_STEP = 8


class PaddedForward:
    """Runs a rectangle of texts through the model.

    If shapes cost memory, the rectangle is enlarged to one of few shapes: by wider padding, and by
    copies of the last text whose logits are dropped. So it may be a quarter larger than the
    rectangle around its texts.

    Args:
        model: a transformers model for sequence classification, in evaluation mode, on its device.
        pad_id: id that fills a rectangle; masked, so that it changes no result. None if the model
            has none: one is chosen for each pass, because decoders read the last token of a text
            that is not the padding id.
        extra_inputs: the model's inputs other than ids and mask, by name.
        side: side of the padding.
        longest: tokens of the longest text that the model takes; None if there is no limit.
    """

    name = "padded"
    pads = True
    parallel = False

    def __init__(
        self,
        model: Any,
        pad_id: int | None,
        *,
        extra_inputs: Mapping[str, ExtraInput] | None = None,
        side: Side = "right",
        longest: int | None = None,
    ) -> None:
        self.device, self.dtype = device_and_dtype(model)
        self.longest = longest
        self._model = model
        self._pad_id, self._extra_inputs, self._side = pad_id, extra_inputs or {}, side
        self._device = next(model.parameters()).device
        self._masks = "attention_mask" in inspect.signature(model.forward).parameters
        self._few_shapes = shapes.cost_memory(model)

    def __call__(self, rows: Rows) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        width = max(map(len, rows))
        if self._few_shapes:
            rounded = shapes.round_up(width, _STEP)
            width = max(width, min(rounded, self.longest or rounded))
        return self.rectangle(rows, width)

    def rectangle(self, rows: Rows, width: int) -> Tensor:
        """Return the logits [texts, labels] with all texts padded to `width` tokens."""
        texts = len(rows)
        if self._few_shapes:
            rows = [*rows, *[rows[-1]] * (shapes.round_up(len(rows)) - len(rows))]
        ids, mask = padded(rows, self._padding_for(rows), width, self._side)
        inputs = {"attention_mask": mask} if self._masks else {}
        for name, extra in self._extra_inputs.items():
            values = [extra.along(len(row)) for row in rows]
            inputs[name], _ = padded(values, extra.within, width, self._side)
        moved = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits: Tensor = self._model(input_ids=ids.to(self._device), **moved).logits
        return logits[:texts]

    def _padding_for(self, rows: Rows) -> int:
        """Return the padding id; if the model has none, an id that ends none of these texts."""
        if self._pad_id is not None:
            return self._pad_id
        config = self._model.config
        text_config = config.get_text_config()
        size = getattr(text_config, "vocab_size", sys.maxsize)
        unused = set(range(min(size, len(rows) + 1))) - {row[-1] for row in rows}
        if not unused:
            raise ValueError(
                "every token of the vocabulary ends a text: no token is left to pad with"
            )
        config.pad_token_id = text_config.pad_token_id = min(unused)
        return min(unused)


class Unpadded:
    """Runs texts without padding, for a model in which padding changes results.

    Args:
        plain: runs texts of equal length.
        name: name of this variant.
        at_once: most texts in a pass; None for all of equal length.
    """

    pads = False
    parallel = False

    def __init__(self, plain: PaddedForward, name: str, at_once: int | None = None) -> None:
        self.name = name
        self.device, self.dtype, self.longest = plain.device, plain.dtype, plain.longest
        self._plain, self._at_once = plain, at_once

    def __call__(self, rows: Rows) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        passes = [self._plain.rectangle(part, len(part[0])) for part in self._passes(rows, order)]
        logits = torch.cat(passes)
        return logits[torch.tensor(order, device=logits.device).argsort()]

    def _passes(self, rows: Rows, order: Sequence[int]) -> Iterator[Rows]:
        for _, group in groupby((rows[row] for row in order), key=len):
            equal = list(group)
            size = self._at_once or len(equal)
            yield from (equal[start : start + size] for start in range(0, len(equal), size))


def padded(
    rows: Rows, pad_id: Any, width: int | None = None, side: Side = "right"
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 [texts, width]; the mask is 0 at padding.

    Args:
        rows: the ids of each text.
        pad_id: the padding value.
        width: at least the length of the longest text, which is the default.
        side: side of the padding.
    """
    width = width or max(map(len, rows))
    fill = [[pad_id] * (width - len(row)) for row in rows]
    pairs = zip(rows, fill, strict=True)
    left = side == "left"
    ids = torch.tensor([[*more, *row] if left else [*row, *more] for row, more in pairs])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width) < lengths[:, None]
    return ids, (mask.flip(1) if left else mask).long()
