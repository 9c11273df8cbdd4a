"""Limits the shapes of forward passes on machines where each new shape costs memory.

oneDNN compiles and keeps a program for each number of rows of a matrix product: 4 MB and 23 ms for
each pass of a new size, measured with DistilBERT on Intel.

Owns: the sizes that passes are rounded up to.
Thread: infer, and its lanes.
Must not import: transformers.
"""

from __future__ import annotations

import platform

import torch
from torch import nn

# The tokens of a pass are rounded up to multiples of this.
TOKENS = 32

# On these, float32 products run in a library that caches nothing.
_X86 = ("x86_64", "AMD64")
_LIMITED = "streamlabel_few_shapes"


def round_up(size: int, step: int = 1) -> int:
    """Return the smallest allowed size that is not below `size`.

    Allowed sizes are multiples of `step`, at most eight between a power of two and the next, so
    that `size` grows by less than `step` or by less than an eighth.
    """
    step = max(step, 1 << max(0, (size - 1).bit_length() - 4))
    return -(-size // step) * step


def cost_memory(model: nn.Module) -> bool:
    """Return whether each new size of a pass costs memory, by the model's type and device."""
    if getattr(model, _LIMITED, False):
        return True
    parameter = next(model.parameters())
    uncached = parameter.dtype is torch.float32 and platform.machine() in _X86
    return parameter.device.type == "cpu" and not uncached


def limit(model: nn.Module) -> None:
    """Note that each new size of a pass will cost memory, for any type of parameters."""
    setattr(model, _LIMITED, True)
