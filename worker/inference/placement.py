"""Chooses the device and the number type, and reads both and the longest input off a model.

Owns: which device and number type the model computes with.
Thread: load, before a record is read.
Must not import: transformers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from worker.errors import SettingsError
from worker.inference import int8
from worker.limits import as_mib
from worker.logs import get_logger

log = get_logger(__name__)

Dtype = Literal["auto", "float32", "bfloat16", "int8", "auto-int8"]

# Processors without one of these emulate bfloat16, and are slower with it than with float32.
_COMPUTES_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        SettingsError: `cuda` is set and torch finds no GPU.
    """
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise SettingsError("model.device = 'cuda', but torch finds no GPU: use cpu or auto")
    return "cuda" if present and wanted != "cpu" else "cpu"


def require_room(name: str, weights: int, device: str) -> None:
    """Check that a GPU has room for a model's weights, in bytes, beside what it holds.

    Raises:
        SettingsError: it has not.
    """
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else weights
    if free < weights:
        raise SettingsError(
            f"{name} needs {as_mib(weights)} on the GPU, which has {as_mib(free)} free beside the "
            "model in use: choose a smaller model, or device = cpu for this one"
        )


def choose_dtype(wanted: Dtype, device: str) -> torch.dtype:
    """Return the number type; `auto` is bfloat16 if the processor supports it natively.

    For `int8` and `auto-int8` it is that of `auto`, for what does not compute in 8-bit integers.
    """
    if wanted in ("float32", "bfloat16"):
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    return torch.bfloat16 if _computes_bfloat16(device) else torch.float32


def tries_int8(wanted: Dtype, device: str) -> bool:
    """Return whether to try 8-bit integers.

    Raises:
        SettingsError: `int8` is set, and the device has no instructions for it.
    """
    if wanted not in ("int8", "auto-int8"):
        return False
    reason = (
        f"the device is {device}, and it runs on a CPU only"
        if device != "cpu"
        else "this processor, or this release of torch, lacks products of bytes (AMX, VNNI)"
    )
    if device == "cpu" and int8.supported():
        return True
    if wanted == "int8":
        raise SettingsError(f"model.dtype = 'int8', but {reason}: use auto or auto-int8")
    log.info("int8 can't be used: choosing the number type as auto does", reason=reason)
    return False


def _computes_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch have no such function; float32 is correct on every processor.
    get_capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = get_capabilities()
    return any(capabilities.get(name) for name in _COMPUTES_BFLOAT16)


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Return the values on a device, without waiting for the passes that it runs."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    # From other memory, the copy would begin at the end of the pass that runs now.
    return values.pin_memory().to(device, non_blocking=True)


def device_and_dtype(model: nn.Module) -> tuple[str, str]:
    """Return the names of the model's device and number type, such as `cpu` and `float32`."""
    parameter = next(model.parameters())
    return parameter.device.type, str(parameter.dtype).removeprefix("torch.")


def longest_input(model: nn.Module, stated: int | None) -> int | None:
    """Return how many tokens the model has positions for, or None if there is no limit.

    RoBERTa and its relatives number positions from `padding_idx + 1`
    (create_position_ids_from_input_ids in transformers' modeling_roberta.py), so that
    `max_position_embeddings` states 514 for 512.

    Args:
        model: the model.
        stated: `max_position_embeddings` of its config, if it has one; XLNet states -1.
    """
    shifted = [
        table.num_embeddings - table.padding_idx - 1
        for name, table in model.named_modules()
        if name.endswith(".position_embeddings")
        and isinstance(table, nn.Embedding)
        and table.padding_idx is not None
    ]
    return min(shifted, default=stated if stated and stated > 0 else None)
