"""Layers of BERT and its relatives with fewer steps: one product for query, key and value.

transformers' layers multiply the same rows by three matrices one after the other, and add the
residual in a step of its own. A layer here has four products; prepacked, they add the bias, the
residual and the GELU themselves. It also calls a tenth of the Python functions, for which lanes
would wait for each other.

Owns: the replacement of a model's layers.
Thread: infer, and its lanes; replaced on the load thread.
Must not import: transformers.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.inference.attention import Segments, attend
from worker.inference.linears import PrepackedLinear


@dataclass(frozen=True, slots=True)
class Names:
    """Paths of the modules of a layer that normalises after each of its two residuals."""

    query: str
    key: str
    value: str
    output: str
    norm: str
    expand: str
    activation: str
    contract: str
    last_norm: str


class JoinedLayer(nn.Module):
    """Computes what transformers' layer computes, for texts in one row, in evaluation mode.

    Args:
        layer: the layer to replace, whose parameters it shares.
        names: where the layer has its modules.
        heads: number of attention heads.

    Raises:
        AttributeError: the layer lacks a module.
        TypeError: the layer's query, key and value are not plain linear layers.
    """

    def __init__(self, layer: nn.Module, names: Names, heads: int) -> None:
        super().__init__()
        modules: list[Any] = [layer.get_submodule(path) for path in astuple(names)]
        self.projections = _joined(modules[:3])
        self.output, self.norm = modules[3:5]
        self.expand, self.activation, self.contract, self.last_norm = modules[5:]
        self._heads = heads

    def forward(self, hidden: Tensor, *_: object, segments: Segments, **__: object) -> Tensor:
        """Compute hidden states [1, tokens, size] from those of the layer before.

        A hook on `norm` may keep fewer tokens, which the steps after attention then run for.
        """
        tokens = hidden.shape[1]
        query, key, value = self.projections(hidden[0]).view(tokens, 3, self._heads, -1).unbind(1)
        attended = attend(query, key, value, segments=segments).flatten(1)[None]
        hidden = self.norm(_plus(self.output, attended, hidden))
        wide = self.activation(self.expand(hidden))
        result: Tensor = self.last_norm(_plus(self.contract, wide, hidden))
        return result


def join(layers: nn.ModuleList, names: Names, heads: int) -> bool:
    """Replace all layers, and return whether that was possible."""
    try:
        joined = [JoinedLayer(layer, names, heads) for layer in layers]
    except (AttributeError, TypeError):
        return False
    for index, layer in enumerate(joined):
        layers[index] = layer
    return True


@torch.no_grad()
def _joined(linears: list[nn.Linear]) -> nn.Linear:
    """Return one linear layer whose outputs are those of the given layers, one after another."""
    if not all(type(linear) is nn.Linear and linear.bias is not None for linear in linears):
        raise TypeError("not plain linear layers with a bias")
    weight, bias = (
        nn.Parameter(torch.cat([getattr(linear, name) for linear in linears]), requires_grad=False)
        for name in ("weight", "bias")
    )
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight, joined.bias = weight, bias
    return joined


def _plus(linear: Any, rows: Tensor, residual: Tensor) -> Tensor:
    """Return `residual` plus the output of a linear layer, in one step where the layer can."""
    if isinstance(linear, PrepackedLinear):
        total: Tensor = linear(rows, residual)
    else:
        total = linear(rows).add_(residual)
    return total
