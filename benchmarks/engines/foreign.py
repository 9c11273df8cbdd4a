"""The parts that OpenVINO and ONNX Runtime have in common: tokenizer, probabilities, cache.

Owns: the files of converted models.
Thread: main, in a process of its own.
Must not import: kafka, worker.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer


class Reader:
    """Tokenizer and config of a checkpoint."""

    def __init__(self, folder: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        config = AutoConfig.from_pretrained(folder)
        several = config.problem_type == "multi_label_classification"
        self._independent = several or config.num_labels == 1

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, cut at the model's limit."""
        ids: list[list[int]] = self._tokenizer(list(texts), truncation=True)["input_ids"]
        return ids

    def probabilities(self, logits: Any) -> list[list[float]]:
        """Return the probabilities of logits [texts, labels], as `pipeline()` computes them."""
        if self._independent:
            values = 1 / (1 + np.exp(-logits))
        else:
            values = np.exp(logits - logits.max(1, keepdims=True))
            values /= values.sum(1, keepdims=True)
        rows: list[list[float]] = values.tolist()
        return rows


def inputs_of(ids: Sequence[int]) -> dict[str, Any]:
    """Return the inputs of one text."""
    row = np.array([ids], np.int64)
    return {"input_ids": row, "attention_mask": np.ones_like(row)}


def cached(options: dict[str, Any], name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder below the cache that `make` has filled once, for these weights and versions.

    Args:
        options: `name`, the checkpoint's folder; `cache`; and `lock`, which identifies the
            versions of all packages.
        name: of the converted model.
        make: writes it to an existing folder.
    """
    weights = Path(options["name"], "model.safetensors")
    with weights.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    key = hashlib.sha256(f"{digest} {options['lock']}".encode()).hexdigest()[:16]
    final = Path(options["cache"], key, name)
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=final.parent))
        try:
            make(scratch)
            scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final
