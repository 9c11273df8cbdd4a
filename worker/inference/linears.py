"""Linear layers with weights in the memory layout of oneDNN's kernels, on a CPU.

`torch.nn.functional.linear` in bfloat16 copies the bias on every call and keeps the weight in its
original layout. In float32 it calls MKL, which reaches less than half of oneDNN's speed on AMD's
processors (110 and 250 GFLOP/s a core of Zen 5). The operators used here, which torch's compiler
emits, do neither, and can apply an exact GELU or add a residual in the same step. They are not
public: if they raise, the layers stay as they are.

Owns: the replacement of a model's linear layers.
Thread: infer, and its lanes; replaced on the load thread.
Must not import: transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from worker.clock import Clock

# Names of linear layers and of the activations that follow them: in transformers' BERT and its
# relatives, in DistilBERT, and in `JoinedLayer`.
_FOLLOWED = (("dense", "intermediate_act_fn"), ("lin1", "activation"), ("expand", "activation"))
# Number of rows that the layout is optimised for; other numbers work a little slower.
_ROWS = 1024
# Rows and tries of the measurement, some tens of milliseconds. A smaller gain is not worth the
# program that oneDNN keeps for each number of rows.
_TRIAL_ROWS, _TRIES, _WORTH = 128, 3, 1.2


class PrepackedLinear(nn.Module):
    """A linear layer for inference on a CPU; holds the weight once, in oneDNN's layout.

    The weight is not a parameter, so that `.to()` does not touch it: it can't be moved or
    converted.

    Args:
        linear: the layer to replace; its weight is copied.
        activation: `gelu`, in its exact form, or `none`.

    Raises:
        RuntimeError: this processor or build of torch has no such kernel for the weight's type.
    """

    def __init__(self, linear: nn.Linear, activation: str = "none") -> None:
        super().__init__()
        operators: Any = torch.ops.mkldnn
        self._apply_to = operators._linear_pointwise  # noqa: SLF001 - so torch names it
        self._weight = operators._reorder_linear_weight(  # noqa: SLF001 - so torch names it
            linear.weight.detach(), _ROWS
        )
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = activation

    def forward(self, rows: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute [..., outputs] of [..., inputs], plus a residual of the outputs' shape."""
        if residual is None:
            output: Tensor = self._apply_to(
                rows, self._weight, self._bias, self._activation, [], "none"
            )
        else:
            output = self._apply_to.binary(rows, residual, self._weight, self._bias, "add")
        return output


def gains(model: nn.Module, clock: Clock) -> bool:
    """Return whether prepacked layers compute clearly faster on this machine, by a measurement."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    largest = max(linears, key=lambda linear: linear.weight.numel(), default=None)
    if largest is None or largest.weight.device.type != "cpu":
        return False
    try:
        layers = (largest, PrepackedLinear(largest))
        rows = torch.zeros(_TRIAL_ROWS, largest.in_features, dtype=largest.weight.dtype)
        plain, prepacked = (_seconds(layer, rows, clock) for layer in layers)
    except (AttributeError, RuntimeError):
        return False
    return plain > _WORTH * prepacked


@torch.inference_mode()
def _seconds(layer: nn.Module, rows: Tensor, clock: Clock) -> float:
    seconds = []
    for _ in range(_TRIES):
        began = clock.monotonic()
        layer(rows)
        seconds.append(clock.monotonic() - began)
    return min(seconds)


@torch.no_grad()
def prepack(model: nn.Module) -> bool:
    """Replace every linear layer of a model on a CPU, and return whether that was possible.

    Replaces none if torch or the processor lacks the kernels.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        for linear in linears[:1]:
            trial = torch.zeros(1, linear.in_features, dtype=linear.weight.dtype)
            residual = torch.zeros(1, linear.out_features, dtype=linear.weight.dtype)
            PrepackedLinear(linear, "gelu")(trial)
            PrepackedLinear(linear)(trial, residual)
    except (AttributeError, RuntimeError):
        return False
    for parent in list(model.modules()):
        for first, then in _FOLLOWED:
            _fuse(parent, first, then)
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, PrepackedLinear(child))
    return True


def _fuse(parent: nn.Module, linear: str, activation: str) -> None:
    first, then = getattr(parent, linear, None), getattr(parent, activation, None)
    # Recognised by its function: transformers has a dozen GELUs, most of them approximate.
    if type(first) is nn.Linear and getattr(then, "act", None) is nn.functional.gelu:
        setattr(parent, linear, PrepackedLinear(first, "gelu"))
        setattr(parent, activation, nn.Identity())
