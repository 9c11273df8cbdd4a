"""How texts become the inputs of a model of OpenVINO: joined in one row, or padded.

Each of two classes describes one way: the conversion of the model, the inputs of a pass, and how
texts are divided into passes that run side by side.

Owns: the shapes of passes of OpenVINO, which are few, because it keeps a program for each.
Thread: infer; built on the load thread.
Must not import: openvino.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from worker.inference import shapes
from worker.inference.extra_inputs import ExtraInput
from worker.inference.openvino_model import CannotConvert, Inputs, convert
from worker.inference.packing import layout
from worker.inference.padding import Side, padded

Rows = Sequence[Sequence[int]]

# Tokens of a part, at least and at most. Smaller parts read the weights too often; in larger ones
# the attention, which computes the square of a part's tokens, is no longer a small share.
_LEAST, _MOST = 64, 512
# Texts of a padded part, at most.
_TEXTS = 32
_STEP_OF_TOKENS, _STEP_OF_TEXTS, _STEP_OF_WIDTH = 32, 16, 8

_ATTENTION = "streamlabel_openvino"
# Number of the text that fills a row up.
_FILLING = -1


class Encoding(Protocol):
    """A way to give texts to a model.

    Attributes:
        pads: True if a pass computes the rectangle around its texts.
    """

    pads: bool

    def convert(self, model: nn.Module) -> Any:
        """Return OpenVINO's model of a float32 model. Raises CannotConvert."""
        ...  # pragma: no cover - a protocol

    def inputs(self, rows: Rows) -> Inputs:
        """Return the inputs of a pass; the first logits are those of `rows`, in order."""
        ...  # pragma: no cover - a protocol

    def parts(self, rows: Rows, streams: int) -> Iterator[Rows]:
        """Yield the rows in order, in parts for `streams` passes side by side."""
        ...  # pragma: no cover - a protocol


@dataclass(frozen=True, slots=True)
class _Texts:
    """The bounds of the texts in a joined row, as inputs of the model.

    Attributes:
        of: number of each token's text, int64 [tokens].
        starts: index of each text's first token, int64 [texts].
    """

    of: Tensor
    starts: Tensor


def _within_texts(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    texts: _Texts,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend under a mask, because a converted model can't loop over the texts of a pass."""
    mask = texts.of[:, None] == texts.of
    if sliding_window is not None:
        index = torch.ones_like(texts.of).cumsum(0)  # tracing would fix the length of an arange
        mask = mask & ((index[:, None] - index).abs() < sliding_window)
    attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return attended.transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _within_texts)


class _JoinedModel(nn.Module):
    """A model that takes a joined row. Its head sees the first token of each text."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._takes_mean = getattr(model.config, "classifier_pooling", "cls") == "mean"
        self._texts: _Texts | None = None

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, text_of: Tensor, starts: Tensor
    ) -> Tensor:
        texts = self._texts = _Texts(text_of, starts)
        output = self.model(input_ids=input_ids, position_ids=position_ids, texts=texts)
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Change the model for its conversion, and restore it."""
        config, base = self.model.config, self.model.base_model
        places = layout(type(self.model).__name__, config)
        last = base.get_submodule(places.layers)[-1].get_submodule(places.last)
        hook = (base.final_norm if self._takes_mean else last).register_forward_hook(self._pool)
        attention = config._attn_implementation  # noqa: SLF001
        self.model.set_attn_implementation(_ATTENTION)
        try:
            yield
        finally:
            hook.remove()
            self.model.set_attn_implementation(attention)

    def _pool(self, _module: nn.Module, _inputs: object, hidden: Tensor) -> Tensor:
        """Reduce hidden states [1, tokens, size] to those that the head reads, [texts, 1, size]."""
        texts: Any = self._texts
        if not self._takes_mean:
            firsts: Tensor = hidden[0, texts.starts]
            return firsts[:, None]
        belongs = (texts.of[texts.starts][:, None] == texts.of).to(hidden.dtype)
        means: Tensor = belongs / belongs.sum(1, keepdim=True) @ hidden[0]
        return means[:, None]


class Joined:
    """Texts joined in one row without padding, for the architectures of `packing.LAYOUTS`.

    Args:
        model: a transformers model for sequence classification.
        extra_inputs: the model's inputs other than ids and positions, by name.

    Raises:
        CannotPack: the model can't be packed.
        CannotConvert: the model has an input that a joined row lacks.
    """

    pads = False

    def __init__(self, model: Any, extra_inputs: Mapping[str, ExtraInput]) -> None:
        places = layout(type(model).__name__, model.config)
        # All of LAYOUTS default to zeros.
        given = [name for name, extra in extra_inputs.items() if extra != ExtraInput((), 0, ())]
        if given:
            raise CannotConvert(f"a joined row has no {', '.join(given)}")
        from_padding = places.positions == "from padding"
        self._padding: int | None = (
            model.base_model.embeddings.padding_idx if from_padding else None
        )

    def convert(self, model: nn.Module) -> Any:
        """Return OpenVINO's model of a float32 model. Raises CannotConvert."""
        joined = _JoinedModel(model)
        texts = [[2] * 5, [2] * 3]  # any ids
        example = {name: torch.from_numpy(array) for name, array in self.inputs(texts).items()}
        with joined.prepared():
            return convert(joined, example)

    def inputs(self, rows: Rows) -> Inputs:
        """Return ids and positions [1, tokens], numbers of texts [tokens], and starts [texts]."""
        lengths = np.array([len(row) for row in rows])
        starts = np.zeros(shapes.round_up(len(rows), _STEP_OF_TEXTS), np.int64)
        starts[1 : len(rows)] = lengths.cumsum()[:-1]
        ids = np.fromiter(chain.from_iterable(rows), np.int64)
        text_of = np.arange(len(rows)).repeat(lengths)
        missing = (0, shapes.round_up(len(ids), _STEP_OF_TOKENS) - len(ids))
        positions = self._positions(ids, starts[: len(rows)].repeat(lengths))
        return {
            "input_ids": np.pad(ids, missing)[None],
            "position_ids": np.pad(positions, missing)[None],
            "text_of": np.pad(text_of, missing, constant_values=_FILLING),
            "starts": starts,
        }

    def _positions(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return positions [tokens] as `PackedForward` does, given each token's text's start."""
        if self._padding is None:
            return np.arange(len(ids)) - starts
        counts = (ids != self._padding).astype(np.int64)
        counted = counts.cumsum()
        positions: NDArray[np.int64] = (counted - (counted - counts)[starts]) * counts
        return positions + self._padding

    def parts(self, rows: Rows, streams: int) -> Iterator[Rows]:
        """Yield the rows in order, in parts of about equal tokens, as many for each stream."""
        tokens, longest = sum(map(len, rows)), max(map(len, rows))
        streams = max(1, min(streams, tokens // max(_LEAST, longest)))
        share = tokens / (streams * ceil(tokens / (streams * _MOST)))
        start = taken = 0
        for row, ids in enumerate(rows, 1):
            taken += len(ids)
            if taken >= share or row == len(rows):
                yield rows[start:row]
                start, taken = row, 0


class _PaddedModel(nn.Module):
    """A model whose inputs are known by name, and that returns its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: value for name, value in given.items() if value is not None}
        logits: Tensor = self.model(input_ids=input_ids, **given).logits
        return logits


class Padded:
    """Texts padded to a rectangle, for every other architecture.

    Args:
        model: a transformers model for sequence classification.
        extra_inputs: the model's inputs other than ids and mask, by name.
        pad_id: id that fills a rectangle.
        side: side of the padding.
        longest: tokens of the longest text that the model takes; None if there is no limit.

    Raises:
        CannotConvert: the model has no padding id, or an input that is not known here.
    """

    pads = True

    def __init__(
        self,
        model: Any,
        extra_inputs: Mapping[str, ExtraInput],
        *,
        pad_id: int | None,
        side: Side,
        longest: int | None,
    ) -> None:
        if pad_id is None:
            raise CannotConvert("the model has no padding id")
        if other := set(extra_inputs) - {"token_type_ids"}:
            raise CannotConvert(f"its input {', '.join(sorted(other))} is not supported")
        self._pad_id, self._side, self._longest = pad_id, side, longest
        self._extra_inputs = extra_inputs
        self._masks = "attention_mask" in inspect.signature(model.forward).parameters

    def convert(self, model: nn.Module) -> Any:
        """Return OpenVINO's model of a float32 model. Raises CannotConvert."""
        texts = [[2] * 9, [2] * 5]  # any ids
        example = {name: torch.from_numpy(array) for name, array in self.inputs(texts).items()}
        return convert(_PaddedModel(model), example)

    def inputs(self, rows: Rows) -> Inputs:
        """Return ids, mask and token types, each [texts, width]."""
        rows = [*rows, *[rows[-1]] * (shapes.round_up(len(rows)) - len(rows))]
        width = max(map(len, rows))
        rounded = shapes.round_up(width, _STEP_OF_WIDTH)
        width = max(width, min(rounded, self._longest or rounded))
        ids, mask = padded(rows, self._pad_id, width, self._side)
        inputs = {"input_ids": ids.numpy()}
        if self._masks:
            inputs["attention_mask"] = mask.numpy()
        for name, extra in self._extra_inputs.items():
            values = [extra.along(len(row)) for row in rows]
            inputs[name] = padded(values, extra.within, width, self._side)[0].numpy()
        return inputs

    def parts(self, rows: Rows, streams: int) -> Iterator[Rows]:
        """Yield the rows in order, in parts of equally many texts."""
        most = max(1, min(_TEXTS, ceil(len(rows) / streams)))
        yield from (rows[start : start + most] for start in range(0, len(rows), most))
