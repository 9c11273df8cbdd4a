"""Bounds the shapes of forward passes where each new one costs memory.

oneDNN makes and keeps a program of its own for each number of rows that a product has: 4 MB and
23 ms for each pass of a new size, seen with DistilBERT on Intel. The infer thread and its lanes
call this. Must not import transformers.
"""

from __future__ import annotations

import platform

import torch
from torch import nn

# Float32 on these goes to a library that keeps nothing.
_X86 = ("x86_64", "AMD64")


def filled_up(size: int, step: int = 1) -> int:
    """The least rung of a ladder that is not below `size`.

    The rungs are multiples of `step`, and eight at most between a power of two and the next: what
    fills a size up is less than `step`, or less than an eighth.
    """
    step = max(step, 1 << max(0, (size - 1).bit_length() - 4))
    return -(-size // step) * step


def cost_memory(model: nn.Module) -> bool:
    """Tell whether each new size of a pass costs memory, by the model's type and device."""
    parameter = next(model.parameters())
    plain = parameter.dtype is torch.float32 and platform.machine() in _X86
    return parameter.device.type == "cpu" and not plain
