"""The padding-free forward pass: texts joined in one row, each attending to itself alone.

Owns what that takes of transformers: an attention function that is registered under a name of its
own, positions that start anew at each text, and a hook in the last layer that keeps of each text what
the model's own head looks at. Several threads may call it at once, as `lanes` do. Imports of
transformers the registry of attention functions alone.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AttentionInterface

from worker.inference import shapes
from worker.inference.attention import Segments, within_texts
from worker.inference.frames import Frame

# Tokens of a pass and, past the last mixing of tokens, its texts are filled up to multiples of these.
_STEP_OF_TOKENS, _STEP_OF_TEXTS = 32, 16

_ATTENTION = "streamlabel_packed"
_PLAIN_ATTENTION = "sdpa"  # what transformers takes for each of LAYOUTS
AttentionInterface.register(_ATTENTION, within_texts)


class CannotPack(Exception):
    """This model has no padding-free pass here; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in an architecture's forward pass.

    Attributes:
        layers: path of the stack of layers within the base model.
        last: path, within the last layer, of the module whose output holds the last mixing of tokens:
            what follows looks at each token alone, and so needs run for a text's first token only.
        positions: numbered from 0, or from `padding_idx + 1` with the padding id left uncounted.
    """

    layers: str
    last: str
    positions: Literal["from 0", "from padding"] = "from 0"


_BERT = Layout("encoder.layer", "attention.output")
_ROBERTA = Layout("encoder.layer", "attention.output", "from padding")
# By class, for a model_type says nothing of the head: all of these read a text's first token.
LAYOUTS = {
    "BertForSequenceClassification": _BERT,
    "DistilBertForSequenceClassification": Layout("transformer.layer", "sa_layer_norm"),
    "ElectraForSequenceClassification": _BERT,
    "ModernBertForSequenceClassification": Layout("layers", ""),
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
}


class PackedForward:
    """Texts in one row through the model, with no padding. The model is changed: see `undo`.

    A row is filled up to one of few lengths where shapes cost memory: by beginnings of its first text,
    whose logits are dropped.

    Args:
        model: of transformers, for sequence classification; in evaluation mode, on its device.
        frames: what the model takes beside ids and positions, by name.

    Raises:
        CannotPack: the architecture is not known here, or this checkpoint is special in it.
    """

    name = "packed"
    pads = False
    parallel = True

    def __init__(self, model: Any, frames: Mapping[str, Frame] | None = None) -> None:
        self.model = model
        # All of LAYOUTS take zeros by themselves.
        self._frames = {
            name: frame for name, frame in (frames or {}).items() if frame != Frame((), 0, ())
        }
        self._layout = layout(type(model).__name__, model.config)
        self._device = next(model.parameters()).device
        self._few_shapes = shapes.cost_memory(model)
        self._here = threading.local()  # of the texts that this thread runs just now: `segments`
        self._hook = self._pooled_module().register_forward_hook(self._pool)
        model.set_attn_implementation(_ATTENTION)

    def undo(self) -> None:
        """Give the model back as it was."""
        self._hook.remove()
        self.model.set_attn_implementation(_PLAIN_ATTENTION)

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        texts = len(rows)
        if self._few_shapes:
            rows = [*rows, *_filling(rows)]
        segments = self._here.segments = Segments.of([len(row) for row in rows], self._device)
        ids = self._joined(rows)
        logits: Tensor = self.model(
            input_ids=ids[None],
            position_ids=self._positions(ids, segments)[None],
            segments=segments,
            **{
                name: self._joined([frame.along(len(row)) for row in rows])[None]
                for name, frame in self._frames.items()
            },
        ).logits
        return logits[:texts]

    def _joined(self, rows: Sequence[Sequence[int]]) -> Tensor:
        # By way of a buffer: of 65,000 numbers, a list alone takes longer than a GPU's whole pass.
        numbers = array("q", chain.from_iterable(rows))
        return torch.frombuffer(numbers, dtype=torch.int64).to(self._device)

    def _positions(self, ids: Tensor, segments: Segments) -> Tensor:
        """Positions [tokens] that start anew at each text.

        RoBERTa's as `create_position_ids_from_input_ids` in transformers' modeling_roberta.py has
        them, for one text at a time: a padding id that is spelt out in a text counts for nothing.
        """
        if self._layout.positions == "from 0":
            return torch.arange(len(ids), device=ids.device) - segments.spread(segments.starts)
        padding: int = self.model.base_model.embeddings.padding_idx
        counts = ids != padding
        counted = counts.cumsum(0)
        before = counted[segments.starts] - counts[segments.starts].long()
        return (counted - segments.spread(before)) * counts + padding

    def _pooled_module(self) -> nn.Module:
        base: nn.Module = self.model.base_model
        if self._takes_mean():
            return base.get_submodule("final_norm")
        layers: Any = base.get_submodule(self._layout.layers)
        last: nn.Module = layers[-1].get_submodule(self._layout.last)
        return last

    def _takes_mean(self) -> bool:
        return getattr(self.model.config, "classifier_pooling", "cls") == "mean"

    def _pool(self, _module: nn.Module, _inputs: object, hidden: Tensor) -> Tensor:
        """Of hidden states [1, tokens, size] what the head takes, [texts, 1, size].

        The head then sees texts of one token. The mean over one token is that token, so that a head
        that takes the mean over a text's tokens is right too.
        """
        segments: Segments = self._here.segments
        pooled = segments.means(hidden[0]) if self._takes_mean() else hidden[0, segments.starts]
        if self._few_shapes:
            missing = shapes.filled_up(len(pooled), _STEP_OF_TEXTS) - len(pooled)
            pooled = pad(pooled, (0, 0, 0, missing))
        return pooled[:, None]


def _filling(rows: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Texts that fill these up to a number of tokens that few passes differ from."""
    tokens = sum(map(len, rows))
    missing = shapes.filled_up(tokens, _STEP_OF_TOKENS) - tokens
    while missing > 0:
        filling = rows[0][:missing]
        missing -= len(filling)
        yield filling


def layout(model_class: str, config: Any) -> Layout:
    """How models of this class and config are packed. Raises CannotPack."""
    found = LAYOUTS.get(model_class)
    if found is None:
        raise CannotPack(f"{model_class} is not among the architectures that can be packed")
    if getattr(config, "is_decoder", False):
        raise CannotPack(f"this {model_class} is a decoder")
    return found
