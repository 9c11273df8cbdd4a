"""Builds the model of a config.json without weights, to check that its files can hold it.

A config may describe ten million layers, or an embedding of a terabyte. Its modules are built on
torch's meta device, where a weight has a shape and takes no memory, and are counted meanwhile.

Owns: the limits on a model's tensors and weights.
Thread: load, before a record is read.
Must not import: transformers; it is given a class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from worker.errors import ModelUnavailable
from worker.inference.checkpoint import Checkpoint

# Factors and margins. The files of some architectures store in one tensor what the model has in
# several, or the reverse; most differ only by the head.
_TENSORS, _MORE_TENSORS = 4, 1_000
# Names of number types in a safetensors file.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WEIGHTS_A_BYTE, _MORE_WEIGHTS = 2, 10_000_000  # a stored weight has at least 4 bits


def skeleton(model_class: Any, config: Any, checkpoint: Checkpoint) -> nn.Module | None:
    """Return the model without its weights, or None if this architecture can't be built that way.

    Args:
        model_class: class of transformers for sequence classification.
        config: describes the model; not changed.
        checkpoint: has the files of the weights.

    Raises:
        ModelUnavailable: the config describes far more than the files hold.
    """
    with _at_most(checkpoint), torch.device("meta"):
        try:
            model: nn.Module = model_class(copy.deepcopy(config))
        except ModelUnavailable:
            raise
        except Exception:  # noqa: BLE001 - loading will meet the same error, and report it
            return None
    return model


def rows_of(model: nn.Module | None) -> int | None:
    """Return the number of rows of its embedding, or None if it has no plain embedding."""
    try:
        table: Any = model.get_input_embeddings() if model is not None else None  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


@contextmanager
def _at_most(checkpoint: Checkpoint) -> Iterator[None]:
    """Abort the building of a model with more tensors or weights than the files can hold."""
    tensors, size = _held(checkpoint.weights)
    most_tensors = _TENSORS * tensors + _MORE_TENSORS
    most_weights = _WEIGHTS_A_BYTE * size + _MORE_WEIGHTS
    made = weights = 0

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made, weights
        made += 1
        weights += parameter.numel() if parameter is not None else 0
        if made > most_tensors or weights > most_weights:
            count_of = f"{made:,} tensors" if made > most_tensors else f"{weights:,} weights"
            raise ModelUnavailable(
                f"{checkpoint.name} can't be used: its config.json describes a model of {count_of} "
                f"or more, its files hold {tensors:,} tensors in {size:,} bytes; the largest number "
                f"in config.json is {_largest(checkpoint.config)}: download it again, or correct "
                "that number"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def stored_weights(files: Sequence[Path]) -> dict[str, int]:
    """Return the number of weights in the files, by number type; whole numbers are left out."""
    stored: dict[str, int] = {}
    for file in files:
        with safe_open(file, "pt") as content:
            for name in content.keys():  # noqa: SIM118 - it is no mapping
                part = content.get_slice(name)
                if (dtype := part.get_dtype()) in _FLOATS:
                    stored[_FLOATS[dtype]] = stored.get(_FLOATS[dtype], 0) + prod(part.get_shape())
    return stored


def weights_of(model: nn.Module | None) -> int | None:
    """Return the number of its weights, those that it shares counted once; None if unknown."""
    return None if model is None else sum(parameter.numel() for parameter in model.parameters())


def _held(files: Sequence[Path]) -> tuple[int, int]:
    """Return the number of tensors in the files, and of bytes."""
    tensors = 0
    for file in files:
        with safe_open(file, "pt") as content:
            tensors += len(content.keys())
    return tensors, sum(file.stat().st_size for file in files)


def _largest(config: Mapping[str, Any]) -> str:
    numbers = {key: n for key, n in config.items() if isinstance(n, int)}
    key = max(numbers, key=numbers.__getitem__, default="")
    return f"{key} = {numbers[key]}" if key else "in a nested object"
