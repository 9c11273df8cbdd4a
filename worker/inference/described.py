"""Reads all of a model but its weights: config, labels, tokenizer, and what its files hold.

Needs the network only for a model on the hub.

Owns: `Description`, and every check of a model that needs transformers but no weights.
Thread: load, before a record is read; main in `streamlabel model fetch`.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
)

from worker.core.records import Activation
from worker.errors import ModelUnavailable, StreamlabelError
from worker.inference.activation import choose_activation
from worker.inference.checkpoint import Checkpoint, resolve
from worker.inference.names import label_names, refuse_many
from worker.inference.skeleton import rows_of, skeleton
from worker.inference.vocabulary import ids_within, load_tokenizer
from worker.inference.weights import class_for, refuse_other_task
from worker.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Description:
    """A model without its weights.

    Attributes:
        checkpoint: its files.
        config, tokenizer: those of transformers.
        labels: the names of its outputs.
        activation: function from outputs to probabilities.
        pad_id: the checkpoint's own padding id, if it has a valid one.
        bare: the model's modules without weights, if they can be built without.
        ids_below: bound of the token ids that have an embedding, if it is below the vocabulary's.
    """

    checkpoint: Checkpoint
    config: Any
    tokenizer: Any
    labels: tuple[str, ...]
    activation: Activation
    pad_id: int | None
    bare: torch.nn.Module | None
    ids_below: int | None


def describe(settings: ModelSettings) -> Description:
    """Find or download the model, and read and check all of it but the weights.

    Raises:
        ModelUnavailable: it can't be used; the message says what to do.
        SettingsError: the settings contradict the model.
    """
    _silence_libraries()
    with loading_errors(settings.name):
        checkpoint = resolve(settings)
    with loading_errors(checkpoint.name):
        config = _config(checkpoint)
        labels = label_names(config.id2label, checkpoint.name)
        activation = choose_activation(
            settings.activation, config.problem_type, len(labels), checkpoint.name
        )
        tokenizer = load_tokenizer(checkpoint)
        pad_id = _set_pad_id(config, tokenizer)
        bare = skeleton(class_for(config), config, checkpoint)
        ids_below = ids_within(tokenizer, rows_of(bare), checkpoint.name)
        refuse_other_task(config, checkpoint.name)
    return Description(checkpoint, config, tokenizer, labels, activation, pad_id, bare, ids_below)


def _silence_libraries() -> None:
    """Turn off progress bars, advice and reports; this package logs the ones that matter."""
    logging: Any = transformers.logging  # untyped
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()


@contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """Turn any error of a library (corrupt files, a missing package) into ModelUnavailable."""
    try:
        yield
    except StreamlabelError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        advice = (
            "install that package, or choose another model"
            if isinstance(error, ImportError)
            else "if its files are damaged, download or save them again"
        )
        raise ModelUnavailable(
            f"{name} can't be loaded: {type(error).__name__}: {reason}; {advice}"
        ) from error


def _config(checkpoint: Checkpoint) -> Any:
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


def _set_pad_id(config: Any, tokenizer: Any) -> int | None:
    """Set the config's padding id, and return the checkpoint's own, if it has a valid one.

    Decoders look for the last id that is not the padding id. Another id may occur in a text, so
    only the model's own is returned. A model that can't be built without one gets the tokenizer's.
    """
    text_config = config.get_text_config()
    # CANINE has no vocabulary: a character's id is its code point. Perceiver states no padding.
    size = getattr(text_config, "vocab_size", sys.maxsize)
    of_config = getattr(text_config, "pad_token_id", None)
    own, *others = (
        number if isinstance(number, int) and 0 <= number < size else None
        for number in (of_config, tokenizer.pad_token_id, tokenizer.eos_token_id)
    )
    known = (number for number in (own, *others) if number is not None)
    config.pad_token_id = text_config.pad_token_id = next(known, None)
    return own
