"""A model with the weights of its checkpoint, and nothing made up.

Owns what transformers says of a checkpoint's weights, and what of it is refused or told. Runs at
start, on one thread, before a record is read.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from worker.errors import ModelUnavailable
from worker.inference.checkpoint import Checkpoint
from worker.inference.history import forget
from worker.logs import get_logger

log = get_logger(__name__)

_NAMED = 5  # weights that are told by name
_HEAD = "ForSequenceClassification"


def with_weights(checkpoint: Checkpoint, config: Any, dtype: torch.dtype, unused: set[str]) -> Any:
    """Make the model of the config with its weights.

    The weights are read here and handed over, instead of naming the folder: transformers would look
    there for adapters, pickles and distributed checkpoints as well.

    Args:
        checkpoint: its files.
        config: of transformers.
        dtype: type of the weights.
        unused: gets the names of weights that the model has no place for.

    Raises:
        ModelUnavailable: weights are missing or of another shape, or the model is for another task.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in checkpoint.weights:
        weights |= load_file(file)
    model, report = class_for(config).from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        ignore_mismatched_sizes=True,  # they are in the report, and refused with their names
        output_loading_info=True,
    )
    _refuse_made_up(report, checkpoint.name)
    unused |= report["unexpected_keys"]
    _refuse_other_task(config, checkpoint.name)
    model.config.use_cache = False  # a decoder's memory of a text that is not continued
    forget(model)
    return model


def class_for(config: Any) -> Any:
    """The class of transformers that classifies sequences with this config."""
    found = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _refuse_made_up(report: dict[str, Any], name: str) -> None:
    """Refuse missing weights: transformers would fill them with random numbers and go on."""
    if report["missing_keys"]:
        raise ModelUnavailable(
            f"{name} is no classification model: its weights lack "
            f"{', '.join(sorted(report['missing_keys']))}; choose one that was trained to classify"
        )
    if report["mismatched_keys"]:
        wrong = ", ".join(
            f"{key} is {list(found)} instead of {list(wanted)}"
            for key, found, wanted in sorted(report["mismatched_keys"])
        )
        raise ModelUnavailable(
            f"{name} does not fit its config.json: {wrong}; check id2label, or save it again"
        )


def tell_unused(unused: set[str], name: str) -> None:
    """Weights that no part of the model takes, such as those of relative positions, change results."""
    if unused:
        log.warning(
            "weights of the checkpoint are not used: this architecture of transformers has no "
            "place for them, and the model may label otherwise than it was trained to",
            model=name,
            number=len(unused),
            first=sorted(unused)[:_NAMED],
        )


def _refuse_other_task(config: Any, name: str) -> None:
    """A head for tokens or multiple choice may have the very names and shapes of a classifier's."""
    declared = [a for a in config.architectures or () if "For" in a]
    if declared and not any(_HEAD in architecture for architecture in declared):
        raise ModelUnavailable(
            f"{name} was made as {', '.join(declared)}, not for sequence classification: choose "
            "another model"
        )
