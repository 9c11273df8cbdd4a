"""Loads a model with the weights of its checkpoint, and rejects one with missing weights.

Owns: the interpretation of transformers' report on a checkpoint's weights.
Thread: load, before a record is read.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from worker.errors import ModelUnavailable
from worker.inference.attention_mode import choose_per_pass
from worker.inference.checkpoint import Checkpoint
from worker.logs import get_logger

log = get_logger(__name__)

_NAMED = 5  # weights that are logged by name
_HEAD = "ForSequenceClassification"


def with_weights(checkpoint: Checkpoint, config: Any, dtype: torch.dtype, unused: set[str]) -> Any:
    """Build the model of the config with its weights.

    Transformers gets the weights, not the folder, in which it would also look for adapters, pickles
    and distributed checkpoints.

    Args:
        checkpoint: the files.
        config: the config of transformers.
        dtype: number type of the weights.
        unused: receives the names of weights that the model has no place for.

    Raises:
        ModelUnavailable: weights are missing or of another shape.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in checkpoint.weights:
        weights |= load_file(file)
    model, report = class_for(config).from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        ignore_mismatched_sizes=True,  # they are in the report, and rejected by name
        output_loading_info=True,
    )
    _refuse_made_up(report, checkpoint.name)
    unused |= report["unexpected_keys"]
    model.config.use_cache = False  # a decoder would keep keys and values to continue the text
    choose_per_pass(model)
    return model


def class_for(config: Any) -> Any:
    """Return transformers' class for sequence classification with this config."""
    classes = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    return classes[0] if isinstance(classes, tuple) else classes


def _refuse_made_up(report: dict[str, Any], name: str) -> None:
    """Reject missing weights: transformers fills them with random numbers and continues."""
    if report["missing_keys"]:
        raise ModelUnavailable(
            f"{name} is not a classification model: its weights lack "
            f"{', '.join(sorted(report['missing_keys']))}; choose one that was trained to classify"
        )
    if report["mismatched_keys"]:
        wrong = ", ".join(
            f"{key} is {list(actual)} instead of {list(expected)}"
            for key, actual, expected in sorted(report["mismatched_keys"])
        )
        raise ModelUnavailable(
            f"{name} does not fit its config.json: {wrong}; check id2label, or save it again"
        )


def warn_of_unused(unused: set[str], name: str) -> None:
    """Log weights that the model has no place for, such as those of relative positions."""
    if unused:
        log.warning(
            "checkpoint has weights that this architecture of transformers does not use: labels may "
            "differ from those that the model was trained to give",
            model=name,
            number=len(unused),
            first=sorted(unused)[:_NAMED],
        )


def refuse_other_task(config: Any, name: str) -> None:
    """Reject heads for tokens or multiple choice: names and shapes may equal a classifier's."""
    declared = [a for a in config.architectures or () if "For" in a]
    if declared and not any(_HEAD in architecture for architecture in declared):
        raise ModelUnavailable(
            f"{name} was saved as {', '.join(declared)}, not for sequence classification: choose "
            "another model"
        )
