"""A checkpoint on OpenVINO: batches of similar length, in as many streams as there are threads.

As the documentation recommends for throughput: `PERFORMANCE_HINT`, `NUM_STREAMS` and
`INFERENCE_PRECISION_HINT` on `compile_model`, and an `AsyncInferQueue`
(https://docs.openvino.ai, "High-level Performance Hints", "AsyncInferQueue").
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from transformers import AutoModelForSequenceClassification

BATCH = 32

Ids = Sequence[Sequence[int]]


class Logits(torch.nn.Module):
    """The model as a function of ids and mask [texts, tokens] alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def example() -> dict[str, torch.Tensor]:
    """Return inputs to trace a model with; without a padded text, a trace may drop the mask."""
    mask = torch.ones((2, 9), dtype=torch.long)
    mask[0, 5:] = 0
    return {"input_ids": torch.ones_like(mask), "attention_mask": mask}


def converted(folder: Path) -> ov.Model:
    """Return the checkpoint as an OpenVINO model that takes any number of texts and tokens."""
    shape = [("input_ids", [-1, -1], ov.Type.i64), ("attention_mask", [-1, -1], ov.Type.i64)]
    return ov.convert_model(Logits(folder), example_input=example(), input=shape)


def compiled(model: Any, precision: str, threads: int, streams: int) -> ov.CompiledModel:
    """Compile for throughput with several streams, or for latency with one."""
    options = {
        "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    return ov.Core().compile_model(model, "CPU", options)


def by_length(ids: Ids) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Yield the texts in batches of similar length: their positions, and the padded inputs."""
    order = sorted(range(len(ids)), key=lambda position: len(ids[position]))
    for start in range(0, len(order), BATCH):
        positions = order[start : start + BATCH]
        padded = np.zeros((len(positions), len(ids[positions[-1]])), np.int64)
        mask = np.zeros_like(padded)
        for row, position in enumerate(positions):
            padded[row, : len(ids[position])] = ids[position]
            mask[row, : len(ids[position])] = 1
        yield positions, {"input_ids": padded, "attention_mask": mask}


class Streams:
    """Runs the batches of a compiled model, one in each of its streams."""

    def __init__(self, model: ov.CompiledModel) -> None:
        self._queue = ov.AsyncInferQueue(model)
        self._queue.set_callback(self._keep)
        self._rows: dict[int, Any] = {}

    def logits(self, ids: Ids) -> Any:
        """Return the logits [texts, labels], in the order of the texts."""
        self._rows = {}
        for positions, inputs in by_length(ids):
            self._queue.start_async(inputs, positions)
        self._queue.wait_all()
        return np.stack([self._rows[position] for position in range(len(ids))])

    def _keep(self, request: Any, positions: list[int]) -> None:
        # A copy, because the request's next batch overwrites its output.
        self._rows.update(zip(positions, request.get_output_tensor(0).data.copy(), strict=True))
