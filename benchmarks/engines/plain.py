"""transformers' `pipeline()` in float32, in arrival order; with text by text, the reference.

Owns: the pipeline.
Thread: main, in a process of its own.
Must not import: kafka, worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import torch
from transformers import pipeline

_BATCHES: Final = {"text by text": 1, "batches of 32": 32}


class PlainEngine:
    """`pipeline("text-classification")`; it pads each batch to its longest text."""

    def __init__(self, name: str, batch: int) -> None:
        self._pipeline: Any = pipeline(
            "text-classification", model=name, dtype=torch.float32, device="cpu", top_k=None
        )
        self._batch = batch
        self._labels = list(self._pipeline.model.config.id2label.values())
        self.runs_as = "float32"
        self.versions = f"transformers {version('transformers')}, torch {version('torch')}"

    def label(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the probabilities of the texts in the order of the model's labels."""
        results = self._pipeline(list(texts), batch_size=self._batch, truncation=True)
        by_label = ({item["label"]: item["score"] for item in result} for result in results)
        return [[scores[label] for label in self._labels] for scores in by_label]

    def alone(self, text: str) -> object:
        """Label one text."""
        return self.label([text])


def load(options: dict[str, Any]) -> PlainEngine:
    """Load the model that the parent names."""
    torch.set_num_threads(options["threads"])
    return PlainEngine(options["name"], _BATCHES[options["variant"]])
