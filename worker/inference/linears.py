"""Linear layers whose weights lie in memory as oneDNN's kernels read them.

`torch.nn.functional.linear` in bfloat16 copies the bias out first and leaves the weight as it is;
these operators, which torch's own compiler emits, do neither, and apply an exact GELU on the way.
They are not public: what they raise means that the layers stay as they are. Made at start;
then the infer thread and its lanes call the layers. Must not import transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Where a linear layer is followed by an activation, in transformers' BERT and its kin, and DistilBERT.
_FOLLOWED = (("dense", "intermediate_act_fn"), ("lin1", "activation"))
# Rows that the weight is laid out for; other numbers work, a little slower.
_ROWS = 1024


class PrepackedLinear(nn.Module):
    """A linear layer for inference on a CPU; it holds the weight once, in oneDNN's layout.

    The weight is no parameter, so that `.to()` leaves it alone: it can't be moved or converted.

    Args:
        linear: what to compute; its weight is copied.
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

    def forward(self, rows: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        found: Tensor = self._apply_to(rows, self._weight, self._bias, self._activation, [], "none")
        return found


@torch.no_grad()
def prepack(model: nn.Module) -> bool:
    """Replace every linear layer of a model on a CPU; whether that could be done.

    Either all are replaced or, where torch or the processor lacks the kernels, none.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        for linear in linears[:1]:
            trial = torch.zeros(1, linear.in_features, dtype=linear.weight.dtype)
            PrepackedLinear(linear, "gelu")(trial)
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
    # By its function, for transformers has a dozen GELUs, most of them approximate.
    if type(first) is nn.Linear and getattr(then, "act", None) is nn.functional.gelu:
        setattr(parent, linear, PrepackedLinear(first, "gelu"))
        setattr(parent, activation, nn.Identity())
