"""Reads the config of a model, and rejects a model that is no text classifier.

Owns: which architectures and kinds of model are accepted.
Thread: load, before a record is read.
Must not import: torch.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
)

from worker.errors import ModelUnavailable
from worker.inference.checkpoint import Checkpoint
from worker.inference.names import refuse_many


def read_config(checkpoint: Checkpoint) -> Any:
    """Return the config of transformers.

    Raises:
        ModelUnavailable: this version does not know the architecture, or can't classify with it.
    """
    kind = checkpoint.config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ModelUnavailable(
            f"{checkpoint.name} needs code from its own repository (auto_map), which is never run: "
            "choose a model of an architecture that transformers includes"
            if "auto_map" in checkpoint.config
            else f"{checkpoint.name} is a {kind!r}, which transformers "
            f"{transformers.__version__} does not know: choose another model"
        )
    refuse_many(checkpoint.config, checkpoint.name)
    config = AutoConfig.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False
    )
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelUnavailable(
            f"{checkpoint.name} is a {kind!r}, an architecture that transformers can't use for "
            "sequence classification: choose another model"
        )
    if config.problem_type == "regression":
        raise ModelUnavailable(
            f"{checkpoint.name} is a regression model: its output is a quantity, not a label's "
            "probability; choose a classification model"
        )
    # Reset, because a config may name code on the hub here (`org/kernel`).
    config._attn_implementation = config._experts_implementation = None  # noqa: SLF001
    return config
