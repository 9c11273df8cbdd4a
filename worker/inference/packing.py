"""The packed forward pass: texts joined in one row without padding, each attending only to itself.

Owns: the changes to a transformers model that packing needs: an attention function, registered
    under a private name; positions that restart at each text; and a hook in the last layer that
    keeps the hidden states that the model's head reads.
Thread: infer, and its lanes, several at once; built on the load thread.
Must not import: anything of transformers but the registry of attention functions.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AttentionInterface

from worker.inference import shapes
from worker.inference.attention import Segments, within_texts
from worker.inference.extra_inputs import ExtraInput
from worker.inference.layers import JoinedLayer, Names, join
from worker.inference.placement import device_and_dtype, to_device

# The rows of the layers that follow the last attention, one a text, are rounded up to multiples of
# this.
_STEP_OF_TEXTS = 16

_ATTENTION = "streamlabel_packed"
AttentionInterface.register(_ATTENTION, within_texts)


class CannotPack(Exception):
    """The model can't be packed; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The places in an architecture's forward pass that packing changes.

    Attributes:
        layers: path of the stack of layers within the base model.
        last: path, within the last layer, of the module after which tokens no longer affect each
            other: the modules that follow need to run for a text's first token only.
        names: where a layer has its modules; None if its steps can't be joined.
        positions: numbered from 0, or from `padding_idx + 1` with the padding id not counted.
    """

    layers: str
    last: str
    names: Names | None = None
    positions: Literal["from 0", "from padding"] = "from 0"


_BERT = Layout(
    "encoder.layer",
    "attention.output",
    Names(
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        output="attention.output.dense",
        norm="attention.output.LayerNorm",
        expand="intermediate.dense",
        activation="intermediate.intermediate_act_fn",
        contract="output.dense",
        last_norm="output.LayerNorm",
    ),
)
_ROBERTA = replace(_BERT, positions="from padding")
_DISTILBERT = Layout(
    "transformer.layer",
    "sa_layer_norm",
    Names(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        norm="sa_layer_norm",
        expand="ffn.lin1",
        activation="ffn.activation",
        contract="ffn.lin2",
        last_norm="output_layer_norm",
    ),
)
# By class, because a model_type does not determine the head: all of these read a text's first
# token.
LAYOUTS = {
    "BertForSequenceClassification": _BERT,
    "DistilBertForSequenceClassification": _DISTILBERT,
    "ElectraForSequenceClassification": _BERT,
    "ModernBertForSequenceClassification": Layout("layers", ""),
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
}


class PackedForward:
    """Runs texts in one row through the model, without padding. Changes the model for good.

    If shapes cost memory, a row is extended to one of few lengths: by beginnings of its first text,
    whose logits are dropped.

    Args:
        model: a transformers model for sequence classification, in evaluation mode, on its device.
        extra_inputs: the model's inputs other than ids and positions, by name.
        longest: tokens of the longest text that the model takes; None if there is no limit.

    Raises:
        CannotPack: the architecture is not among `LAYOUTS`, or the checkpoint is a decoder.
    """

    name = "packed"
    pads = False
    parallel = True

    def __init__(
        self,
        model: Any,
        extra_inputs: Mapping[str, ExtraInput] | None = None,
        *,
        longest: int | None = None,
    ) -> None:
        self.device, self.dtype = device_and_dtype(model)
        self.longest = longest
        self._model = model
        # All of LAYOUTS default to zeros.
        self._extra_inputs = {
            name: extra
            for name, extra in (extra_inputs or {}).items()
            if extra != ExtraInput((), 0, ())
        }
        self._layout = layout(type(model).__name__, model.config)
        self._device = next(model.parameters()).device
        self._few_shapes = shapes.cost_memory(model)
        model.set_attn_implementation(_ATTENTION)
        if self._layout.names:
            join(self._layers(), self._layout.names, model.config.num_attention_heads)
        # Of its own, because a hook that referred to this object would refer to the model, and keep
        # its memory until the next full collection.
        self._pooling = _Pooling(mean=self._takes_mean(), few_shapes=self._few_shapes)
        self._pooled_module().register_forward_hook(self._pooling)

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        texts = len(rows)
        if self._few_shapes:
            rows = [*rows, *_filling(rows)]
        segments = Segments.of([len(row) for row in rows], self._device)
        self._pooling.local.segments = segments
        ids = self._joined(rows)
        logits: Tensor = self._model(
            input_ids=ids[None],
            position_ids=self._positions(ids, segments)[None],
            segments=segments,
            **{
                name: self._joined([extra.along(len(row)) for row in rows])[None]
                for name, extra in self._extra_inputs.items()
            },
        ).logits
        return logits[:texts]

    def _joined(self, rows: Sequence[Sequence[int]]) -> Tensor:
        # Through a buffer: making a tensor of a list of 65,000 numbers takes longer than the whole
        # pass on a GPU.
        numbers = array("q", chain.from_iterable(rows))
        return to_device(torch.frombuffer(numbers, dtype=torch.int64), self._device)

    def _positions(self, ids: Tensor, segments: Segments) -> Tensor:
        """Return positions [tokens] that restart at each text.

        RoBERTa's are those of `create_position_ids_from_input_ids` in transformers'
        modeling_roberta.py for one text at a time: a padding id within a text is not counted.
        """
        if self._layout.positions == "from 0":
            return torch.arange(len(ids), device=ids.device) - segments.spread(segments.starts)
        padding: int = self._model.base_model.embeddings.padding_idx
        counts = ids != padding
        counted = counts.cumsum(0)
        before = counted[segments.starts] - counts[segments.starts].long()
        return (counted - segments.spread(before)) * counts + padding

    def _pooled_module(self) -> nn.Module:
        if self._takes_mean():
            norm: nn.Module = self._model.base_model.get_submodule("final_norm")
            return norm
        last = self._layers()[-1]
        return last.get_submodule("norm" if isinstance(last, JoinedLayer) else self._layout.last)

    def _layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self._model.base_model.get_submodule(self._layout.layers)
        return layers

    def _takes_mean(self) -> bool:
        return getattr(self._model.config, "classifier_pooling", "cls") == "mean"


class _Pooling:
    """A hook that reduces hidden states [1, tokens, size] to those that the head reads.

    They are [texts, 1, size]: the head then sees texts of one token. The mean over one token is
    that token, so that a head that takes the mean over a text's tokens is correct too.

    Args:
        mean: whether the head takes the mean over a text's tokens.
        few_shapes: whether shapes cost memory.

    Attributes:
        local: `segments` are those of the texts that the calling thread runs.
    """

    def __init__(self, *, mean: bool, few_shapes: bool) -> None:
        self._mean, self._few_shapes = mean, few_shapes
        self.local = threading.local()

    def __call__(self, _module: nn.Module, _inputs: object, hidden: Tensor) -> Tensor:
        segments: Segments = self.local.segments
        pooled = segments.means(hidden[0]) if self._mean else hidden[0, segments.starts]
        if self._few_shapes:
            missing = shapes.round_up(len(pooled), _STEP_OF_TEXTS) - len(pooled)
            pooled = pad(pooled, (0, 0, 0, missing))
        return pooled[:, None]


def _filling(rows: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Yield texts that round the pass up to an allowed number of tokens."""
    tokens = sum(map(len, rows))
    missing = shapes.round_up(tokens, shapes.TOKENS) - tokens
    while missing > 0:
        filling = rows[0][:missing]
        missing -= len(filling)
        yield filling


def layout(model_class: str, config: Any) -> Layout:
    """Return how models of this class and config are packed. Raises CannotPack."""
    known = LAYOUTS.get(model_class)
    if known is None:
        raise CannotPack(f"{model_class} is not among the architectures that can be packed")
    if getattr(config, "is_decoder", False):
        raise CannotPack(f"this {model_class} is a decoder")
    return known
